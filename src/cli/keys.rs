//! The commands about keys of callers: make, list, rotate and revoke them, and hash existing ones. Only digests are stored.

use std::io::BufRead;

use clap::Subcommand;

use crate::cli::key_edits;
use crate::cli::key_edits::{Place, Rotation};
use crate::cli::key_maker::{Made, Pepper, label_of_today, parse_caller, parse_label, read_pepper, wrong};
use crate::cli::operate;
use crate::cli::operate::Running;
use crate::cli::outcome::Outcome;
use crate::control::Request;
use crate::model::Secret;
use crate::policy::key::{GENERATED_PREFIX, KEY_BYTES_MAX, is_generated};
use crate::settings::KeyDigest;
use crate::settings::key_edit::{NewKey, settings_of};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List the keys in force: state, expiry, and when each was used last.
    List {
        #[command(flatten)]
        running: Running,
        /// Only those of this caller.
        #[arg(long, value_name = "NAME")]
        caller: Option<String>,
    },
    /// Generate a key of 256 random bits, print it once, and print the lines for the settings, which contain
    /// only its digest; or write them there.
    New {
        #[command(flatten)]
        place: Place,
        /// Label of the key, used in logs and headers; defaults to today's date.
        #[arg(long)]
        label: Option<String>,
        /// When it expires: how long it lasts, such as 90d, or a date such as 2027-01-31. Default: never.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
        /// Add it to the settings of the caller, and have the running gateway use it.
        #[arg(long)]
        write: bool,
    },
    /// Make a key that replaces another one: both are accepted until the old one expires.
    Rotate {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        rotation: Rotation,
    },
    /// Refuse a key from now on in the gateway that runs, and after every reload and restart; then disable it in the settings.
    Revoke {
        #[command(flatten)]
        running: Running,
        /// Name of the caller that has the key.
        #[arg(long, value_name = "NAME")]
        caller: String,
        /// Label of the key.
        #[arg(long)]
        label: String,
    },
    /// Read existing keys from standard input, one per line, and print their digests for the settings.
    Hash {
        /// Print lines for a keys_file, labelled LABEL-1, LABEL-2 and so on.
        #[arg(long, value_name = "LABEL")]
        label: Option<String>,
        #[command(flatten)]
        pepper: Pepper,
    },
}

/// A shorter text is more likely a password, a label or part of a line than a key.
const KEY_CHARS_LIKELY: usize = 16;

pub(super) fn run(command: KeyCommand) -> Result<Outcome, Outcome> {
    match command {
        KeyCommand::List { running, caller } => Ok(operate::ask(&running, &Request::Keys { caller })),
        KeyCommand::New {
            place,
            label,
            expires,
            write: true,
        } => key_edits::add(&place, label, expires.as_deref()),
        KeyCommand::New {
            place,
            label,
            expires,
            write: false,
        } => new(&place, label, expires.as_deref()),
        KeyCommand::Rotate { place, rotation } => key_edits::rotate(&place, rotation),
        KeyCommand::Revoke {
            running,
            caller,
            label,
        } => key_edits::revoke(&running, &caller, &label),
        KeyCommand::Hash { label, pepper } => hash(label.as_deref(), &pepper, std::io::stdin().lock()),
    }
}

fn new(place: &Place, label: Option<String>, expires: Option<&str>) -> Result<Outcome, Outcome> {
    let caller = parse_caller(&place.caller)?;
    let label = parse_label(&label.unwrap_or_else(label_of_today))?;
    let pepper = read_pepper(&place.pepper)?;
    let made = Made::new(label, expires, pepper.as_ref())?;
    let lines = lines(&made.entry);
    Ok(Outcome::out(format!(
        "{}The lines for the settings:\n\n    [[caller]]\n    name = \"{caller}\"\n\n    [[caller.key]]\n{lines}",
        made.shown(&caller)
    )))
}

fn lines(entry: &NewKey) -> String {
    let settings = settings_of(entry).into_iter();
    settings.map(|setting| format!("    {setting}\n")).collect()
}

fn hash(label: Option<&str>, pepper: &Pepper, input: impl BufRead) -> Result<Outcome, Outcome> {
    label.map(parse_label).transpose()?;
    let pepper = read_pepper(pepper)?;
    let mut out = String::new();
    let mut warnings = String::new();
    let mut count = 0;
    for line in input.lines() {
        let line = line.map(Secret::new);
        let line = line.map_err(|_| wrong("standard input is not UTF-8 text".to_owned()))?;
        let key = line.expose().trim();
        if key.is_empty() {
            continue;
        }
        count += 1;
        if key.len() > KEY_BYTES_MAX {
            return Err(wrong(format!("key {count} is longer than {KEY_BYTES_MAX} bytes")));
        }
        if key.starts_with(GENERATED_PREFIX) && !is_generated(key.as_bytes()) {
            return Err(wrong(format!(
                "key {count} begins with {GENERATED_PREFIX} but does not have the form of a key from \
                 `flowgate key new`, which has 43 of the characters A-Z, a-z, 0-9, \"-\" and \"_\" after \
                 that. Only such keys are exempt from the limit of wrong keys, so no other key may look like \
                 one: copy the whole key, or create another with `flowgate key new`"
            )));
        }
        if let Some(why) = unlikely(key) {
            warnings.push_str(&format!(
                "warning: key {count} {why}; this does not look like a key\n"
            ));
        }
        let digest = KeyDigest::of(key.as_bytes(), pepper.as_ref()).to_setting();
        out.push_str(&match label {
            // The appended number may make the label too long.
            Some(label) => format!("{} {digest}\n", parse_label(&format!("{label}-{count}"))?),
            None => format!("digest = \"{digest}\"\n"),
        });
    }
    if count == 0 {
        let why = "there is no key on standard input; try: flowgate key hash < file-with-the-key";
        return Err(wrong(why.to_owned()));
    }
    Ok(Outcome {
        err: warnings,
        ..Outcome::out(out)
    })
}

/// Why a line is probably not a key, without quoting it.
fn unlikely(key: &str) -> Option<String> {
    if key.chars().any(char::is_whitespace) {
        return Some("contains spaces".to_owned());
    }
    (key.chars().count() < KEY_CHARS_LIKELY).then(|| format!("is shorter than {KEY_CHARS_LIKELY} characters"))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Pepper};

    fn hash(label: Option<&str>, input: &str) -> Outcome {
        let pepper = Pepper { pepper: None };
        super::hash(label, &pepper, input.as_bytes()).unwrap_or_else(|failed| failed)
    }

    #[test]
    fn an_existing_key_becomes_its_digest() {
        let outcome = hash(None, "abc\n");
        assert_eq!(
            outcome.out,
            "digest = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n"
        );
    }

    #[test]
    fn many_keys_become_lines_for_a_file() {
        let outcome = hash(Some("k"), "a\n\nb\n");
        assert_eq!(outcome.out.lines().count(), 2);
        assert!(outcome.out.starts_with("k-1 sha256:"));
    }

    #[test]
    fn a_line_that_does_not_look_like_a_key_is_hashed_with_a_warning() {
        let lines = "canary-0123456789\ncanary-01234567\ncanary 0123456789 = x\ncanary-012345678\n";
        let outcome = hash(None, lines);
        assert_eq!(outcome.code, 0);
        assert_eq!(outcome.out.lines().count(), 4);
        assert_eq!(
            outcome.err,
            "warning: key 2 is shorter than 16 characters; this does not look like a key\n\
             warning: key 3 contains spaces; this does not look like a key\n"
        );
    }

    #[test]
    fn only_generated_keys_may_have_their_prefix() {
        let random = "0123456789-abcdefghijklmnopqrstuvwxyz_ABCDE";
        let code = |key: &str| hash(None, key).code;
        assert_eq!(code(&format!("flowgate_{random}")), 0);
        assert_eq!(
            code(&format!("Flowgate_{random}x")),
            0,
            "not taken for a generated key"
        );
        for other in [
            "flowgate_".to_owned(),
            "flowgate_a-short-secret".to_owned(),
            format!("flowgate_{random}x"),
            format!("flowgate_{}", random.replace('-', "+")),
            format!("flowgate_{}", random.replace("ab", "\u{e4}")),
        ] {
            assert_eq!(code(&other), 2, "{other}");
        }
    }

    #[test]
    fn input_without_keys_is_refused() {
        let outcome = hash(None, "\n");
        assert_eq!(outcome.code, 2);
    }
}
