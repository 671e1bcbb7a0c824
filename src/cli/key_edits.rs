//! `flowgate key new --write`, `rotate` and `revoke`: edit the settings with the rights of the person who runs them, and have the
//! running gateway use the result. The edited text is checked with the rest of the settings before it replaces the file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::key_maker::{Made, Pepper, label_of_today, parse_caller, parse_label, read_pepper, wrong};
use crate::cli::operate::{NotSent, Running};
use crate::cli::outcome::{FAILED, Outcome, WELL};
use crate::control;
use crate::control::Request;
use crate::model::{CallerName, KeyLabel, Secret, clock};
use crate::settings;
use crate::settings::key_edit::{
    CallerKeys, KeyChange, NewKey, lifetime, list_has, list_with_change, list_with_key, pepper_reference,
    read_list, whole_seconds,
};
use crate::settings::{Environment, KeySettings, KeyState, Secrets, Style, edit};

/// Time for the gateway to deny a key, and for it to load settings after that: it may be busy, and the key is denied by then.
const REVOKE_PATIENCE: Duration = Duration::from_secs(10);
const REVOKED_PATIENCE: Duration = Duration::from_secs(2);
/// Keys that are made on one day without a label.
const LABELS_OF_A_DAY_MAX: usize = 100;

/// The gateway and the caller that get a key.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    pub(super) running: Running,
    /// Name of the caller that will use the key.
    #[arg(long, value_name = "NAME")]
    pub(super) caller: String,
    #[command(flatten)]
    pub(super) pepper: Pepper,
}

#[derive(Debug, clap::Args)]
pub(super) struct Rotation {
    /// Label of the key that is replaced.
    #[arg(long, value_name = "LABEL")]
    label: String,
    /// Label of the new key; defaults to today's date.
    #[arg(long, value_name = "LABEL")]
    new_label: Option<String>,
    /// How long the old key is accepted from now on, such as 7d; it never expires later than it did.
    #[arg(long, value_name = "TIME")]
    overlap: String,
}

/// Why nothing was changed.
type Refusal = String;

/// A key and what becomes of it.
type Expected<'e> = (&'e KeyLabel, &'e dyn Fn(&KeySettings) -> bool);

/// The files that have the keys of a caller.
struct Sheet<'s> {
    config: &'s Path,
    caller: &'s CallerName,
    text: String,
    list: Option<List>,
}

struct List {
    path: PathBuf,
    text: String,
}

/// Another text for a file.
struct Edit {
    path: PathBuf,
    before: String,
    after: String,
}

pub(super) fn add(place: &Place, label: Option<String>, expires: Option<&str>) -> Result<Outcome, Outcome> {
    let caller = parse_caller(&place.caller)?;
    let refused = |why: Refusal| wrong(format!("{why}\nNothing was changed."));
    let read = Sheet::read(place.running.config(), &caller).map_err(refused)?;
    let Some(sheet) = read else {
        return Err(refused(format!(
            "The settings have no caller \"{caller}\". Add it, and name it in the `callers` of a route:\n\n    [[caller]]\n    \
             name = \"{caller}\"\n"
        )));
    };
    let label = sheet.free_label(label)?;
    let pepper = sheet.pepper(&place.pepper)?;
    let made = Made::new(label, expires, pepper.as_ref())?;
    let edit = sheet.with_key(&made.entry).map_err(refused)?;
    let digest = made.entry.digest;
    let expected: Expected<'_> = (&made.entry.label, &move |key| key.digest == digest);
    sheet.check(&edit, &[expected]).map_err(refused)?;
    edit.write().map_err(refused)?;
    let said = format!(
        "{}Key {} of caller {caller} was added to {}.\n",
        made.shown(&caller),
        made.entry.label,
        edit.path.display()
    );
    Ok(put_in_force(&place.running, &edit, said))
}

pub(super) fn rotate(place: &Place, rotation: Rotation) -> Result<Outcome, Outcome> {
    let caller = parse_caller(&place.caller)?;
    let refused = |why: Refusal| wrong(format!("{why}\nNothing was changed."));
    let old = parse_label(&rotation.label)?;
    let overlap = lifetime(&rotation.overlap);
    let overlap =
        overlap.ok_or_else(|| wrong("--overlap: write how long, such as 7d, 12h or 30m".to_owned()))?;
    let until = clock::wall().checked_add(overlap).and_then(whole_seconds);
    let until = until.ok_or_else(|| wrong("--overlap: this is too long".to_owned()))?;
    let unknown = || {
        refused(format!(
            "The settings have no key \"{old}\" of caller \"{caller}\"."
        ))
    };
    let sheet = Sheet::read(place.running.config(), &caller)
        .map_err(refused)?
        .ok_or_else(unknown)?;
    let first = sheet
        .with_change(&old, KeyChange::Expire(until))
        .map_err(refused)?
        .ok_or_else(unknown)?;
    let label = sheet.free_label(rotation.new_label)?;
    let pepper = sheet.pepper(&place.pepper)?;
    let made = Made::new(label, None, pepper.as_ref())?;
    // Beside the old one, so that one file is replaced.
    let after = match first.path == sheet.config {
        true => with_key(&first.after, &caller, &made.entry).map_err(refused)?,
        false => list_with_key(&first.after, &made.entry),
    };
    let edit = Edit { after, ..first };
    let digest = made.entry.digest;
    let is_new: Expected<'_> = (&made.entry.label, &move |key| key.digest == digest);
    let is_old: Expected<'_> = (&old, &move |key| {
        key.expires.is_some_and(|expires| expires <= until)
    });
    let keys = sheet.check(&edit, &[is_new, is_old]).map_err(refused)?;
    edit.write().map_err(refused)?;
    let expires = keys
        .iter()
        .find(|key| key.label == old)
        .and_then(|key| key.expires);
    let said = format!(
        "{}Key {} of caller {caller} was added to {}; key {old} expires {}.\n",
        made.shown(&caller),
        made.entry.label,
        edit.path.display(),
        clock::dated_time(expires.unwrap_or(until), clock::wall())
    );
    Ok(put_in_force(&place.running, &edit, said))
}

/// Denies a key first: whatever is wrong with the settings or the disk must not keep a leaked key working.
pub(super) fn revoke(running: &Running, caller: &str, label: &str) -> Result<Outcome, Outcome> {
    let (caller, label) = (parse_caller(caller)?, parse_label(label)?);
    let request = Request::Revoke {
        caller: caller.to_string(),
        key: label.to_string(),
    };
    let denied = running.send(&request, REVOKE_PATIENCE);
    let disabling = || disable(running.config(), &caller, &label);
    let edited = running.has_settings().then(disabling);
    let is_listed = matches!(edited, Some(Ok(Some(_))));
    let mut outcome = match &denied {
        Ok(reply) if reply.code == WELL => Outcome::out(reply.text.clone()),
        // The settings in force do not have it, or this user has no right to it.
        Ok(reply) => Outcome::failed(reply.text.clone(), if is_listed { FAILED } else { reply.code }),
        Err(error) => {
            let why = error.to_string();
            let why = why.trim_start_matches("flowgate: ");
            let text = format!(
                "flowgate: the key is NOT denied in a gateway that runs: {}\nReload or restart it once the key is disabled in the \
                 settings, or run this command as its user or as root.\n",
                why.trim_end()
            );
            Outcome::failed(text, FAILED)
        }
    };
    let key = format!("key {label} of caller {caller}");
    match edited {
        Some(Ok(Some(edit))) => {
            let file = edit.path.display();
            outcome.out.push_str(&format!("{key} is disabled in {file}\n"));
            if denied.is_ok() {
                match ask_for(running, &edit, REVOKED_PATIENCE) {
                    (text, WELL) => outcome.out.push_str(&text),
                    // It is refused all the same.
                    (text, _) => outcome.err.push_str(&text),
                }
            }
        }
        None => outcome.err.push_str(&format!(
            "flowgate: there is no {} here, so no settings were changed: set `enabled = false` on {key} there\n",
            running.config().display()
        )),
        Some(Ok(None)) => {
            let file = running.config().display();
            outcome.err.push_str(&format!(
                "flowgate: {file} has no {key}, so nothing was disabled there\n"
            ));
        }
        Some(Err(why)) => {
            outcome.err.push_str(&format!(
                "flowgate: the settings were not changed: {}\nSet `enabled = false` on {key} there, or remove it, or run this command \
                 again.\n",
                why.trim_end()
            ));
            outcome.code = FAILED;
        }
    }
    Ok(outcome)
}

/// Disables a key in its file; nothing if the settings do not have it.
fn disable(config: &Path, caller: &CallerName, label: &KeyLabel) -> Result<Option<Edit>, Refusal> {
    let Some(sheet) = Sheet::read(config, caller)? else {
        return Ok(None);
    };
    let Some(edit) = sheet.with_change(label, KeyChange::Disable)? else {
        return Ok(None);
    };
    sheet.check(&edit, &[(label, &|key| key.state == KeyState::Disabled)])?;
    edit.write()?;
    Ok(Some(edit))
}

impl<'s> Sheet<'s> {
    /// Reads the files; nothing if the settings do not have the caller.
    fn read(config: &'s Path, caller: &'s CallerName) -> Result<Option<Self>, Refusal> {
        let text = settings::read(config).map_err(|report| report.render(Style::Plain))?;
        let found = find(&text, caller)?;
        let Some(keys_file) = found.map(|keys| keys.keys_file) else {
            return Ok(None);
        };
        let list = keys_file.map(|file| {
            let path = folder(config).join(file);
            read_list(&path).map(|text| List { path, text })
        });
        Ok(Some(Self {
            config,
            caller,
            list: list.transpose()?,
            text,
        }))
    }

    fn has(&self, label: &str) -> bool {
        let in_settings =
            find(&self.text, self.caller).is_ok_and(|keys| keys.is_some_and(|keys| keys.has(label)));
        in_settings || self.list.as_ref().is_some_and(|list| list_has(&list.text, label))
    }

    /// The label, if no other key of the caller has it; without one the date of today, with a number if it is taken.
    fn free_label(&self, label: Option<String>) -> Result<KeyLabel, Outcome> {
        if let Some(label) = label {
            return match self.has(&label) {
                true => Err(wrong(format!(
                    "The caller \"{}\" has a key \"{label}\" already: choose another label.\nNothing was changed.",
                    self.caller
                ))),
                false => parse_label(&label),
            };
        }
        let today = label_of_today();
        let numbered = (2..LABELS_OF_A_DAY_MAX).map(|number| format!("{today}-{number}"));
        let mut labels = std::iter::once(today.clone()).chain(numbered);
        let free = labels.find(|label| !self.has(label));
        parse_label(&free.unwrap_or(today))
    }

    /// The pepper that digests are made with.
    fn pepper(&self, named: &Pepper) -> Result<Option<Secret>, Outcome> {
        let reference = pepper_reference(&self.text);
        let Some(reference) = reference.filter(|_| named.pepper.is_none()) else {
            return read_pepper(named);
        };
        let read = match reference.starts_with("keyvault:") {
            true => Err("it is in a key vault".to_owned()),
            false => Environment::of_process().secret(&reference, folder(self.config)),
        };
        read.map(Some).map_err(|why| {
            wrong(format!(
                "The settings have a pepper, and without it no digest can be made: {why}. Name its value here with --pepper env:NAME \
                 or --pepper file:PATH.\nNothing was changed."
            ))
        })
    }

    fn with_key(&self, key: &NewKey) -> Result<Edit, Refusal> {
        let keys = find(&self.text, self.caller)?;
        let (is_empty, has_networks) =
            keys.map_or((true, false), |keys| (keys.is_empty(), keys.has_networks));
        if let Some(list) = self.list.as_ref().filter(|_| is_empty) {
            return Ok(list.edit(list_with_key(&list.text, key)));
        }
        if is_empty && has_networks {
            return Err(format!(
                "The caller \"{}\" is known by its networks alone; with a key, every call from them would need the key. If that is \
                 meant, add [[caller.key]] yourself: `flowgate key new` without --write prints the lines.",
                self.caller
            ));
        }
        Ok(self.edit(with_key(&self.text, self.caller, key)?))
    }

    /// The change to a key in the file that has it, nothing if none has.
    fn with_change(&self, label: &KeyLabel, change: KeyChange) -> Result<Option<Edit>, Refusal> {
        let keys = find(&self.text, self.caller)?;
        if let Some(after) = keys.and_then(|keys| keys.with_change(label.as_str(), change)) {
            return Ok(Some(self.edit(after)));
        }
        let edit = self.list.as_ref().and_then(|list| {
            let after = list_with_change(&list.text, label.as_str(), change)?;
            Some(list.edit(after))
        });
        Ok(edit)
    }

    fn edit(&self, after: String) -> Edit {
        Edit {
            path: self.config.to_owned(),
            before: self.text.clone(),
            after,
        }
    }

    /// Checks the settings with this edit, without their secrets, which the person need not be able to read. Returns the keys of
    /// the caller.
    fn check(&self, edit: &Edit, expected: &[Expected<'_>]) -> Result<Vec<KeySettings>, Refusal> {
        let (text, lists) = match edit.path == self.config {
            true => (&edit.after, HashMap::new()),
            false => (
                &self.text,
                HashMap::from([(edit.path.clone(), edit.after.clone())]),
            ),
        };
        let environment = Environment::of_process()
            .with(Secrets::Unresolved)
            .with_lists(Arc::new(lists));
        let parsed = settings::parse(text, self.config, &environment);
        let (config, _) = parsed.map_err(|report| {
            let report = report.render(Style::Plain);
            format!("The settings have mistakes with this change, or had them before:\n{report}")
        })?;
        let caller = config.callers.iter().find(|caller| caller.name == *self.caller);
        let keys: Vec<_> = caller.into_iter().flat_map(|caller| caller.keys.iter()).collect();
        let is_met =
            |(label, is_right): &Expected<'_>| keys.iter().any(|key| key.label == **label && is_right(key));
        match expected.iter().all(is_met) {
            true => Ok(keys),
            false => Err(format!(
                "{} cannot be edited at this place: edit it yourself.",
                edit.path.display()
            )),
        }
    }
}

impl List {
    fn edit(&self, after: String) -> Edit {
        Edit {
            path: self.path.clone(),
            before: self.text.clone(),
            after,
        }
    }
}

impl Edit {
    fn write(&self) -> Result<(), Refusal> {
        if self.before == self.after {
            return Ok(());
        }
        edit::replace_same(&self.path, &self.before, &self.after)
            .map_err(|error| format!("{} cannot be replaced: {error}.", self.path.display()))
    }
}

fn find<'t>(text: &'t str, caller: &CallerName) -> Result<Option<CallerKeys<'t>>, Refusal> {
    CallerKeys::find(text, caller.as_str())
}

fn with_key(text: &str, caller: &CallerName, key: &NewKey) -> Result<String, Refusal> {
    let after = find(text, caller)?.and_then(|keys| keys.with_key(key));
    after.ok_or_else(|| "The settings cannot be edited at this place: edit them yourself.".to_owned())
}

fn folder(config: &Path) -> &Path {
    config.parent().unwrap_or(Path::new(""))
}

/// Has the gateway use what was written. A gateway that is not running is no failure: it reads the file when it starts.
fn put_in_force(running: &Running, edit: &Edit, said: String) -> Outcome {
    match ask_for(running, edit, control::PATIENCE) {
        (text, WELL) => Outcome::out(said + &text),
        (text, code) => Outcome {
            out: said,
            err: text,
            code,
        },
    }
}

fn ask_for(running: &Running, edit: &Edit, patience: Duration) -> (String, u8) {
    let file = std::path::absolute(&edit.path).unwrap_or_else(|_| edit.path.clone());
    let request = Request::Edited {
        file,
        before: settings::sha256_of(&edit.before),
        after: settings::sha256_of(&edit.after),
    };
    match running.send(&request, patience) {
        Ok(reply) => (reply.text, reply.code),
        Err(NotSent::Unreachable(error)) if error.is_busy() => {
            let text = "The gateway is busy, and looks at the change after that: see `flowgate status`.\n";
            (text.to_owned(), WELL)
        }
        Err(NotSent::Unreachable(error)) if error.is_absent() => {
            let text = "No gateway is running there; the next start uses the change.\n";
            (text.to_owned(), WELL)
        }
        Err(NotSent::NoFolder(_)) => {
            let text = "A gateway that runs uses the change after SIGHUP; with `folder` of [state] this command would ask it.\n";
            (text.to_owned(), WELL)
        }
        Err(NotSent::Unreachable(error)) => {
            (format!("flowgate: the change is not in force: {error}\n"), FAILED)
        }
    }
}
