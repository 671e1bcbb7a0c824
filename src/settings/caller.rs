//! `[keys]`, `[[caller]]`: callers, and their keys from the settings file and from key files. A key belongs to one caller:
//! with a duplicate digest the caller would be ambiguous.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::SystemTime;

use hashbrown::HashTable;

use crate::model::{CallerName, Flaw, KeyLabel, Network, Secret};
use crate::settings::check::Check;
use crate::settings::findings::{Findings, Mark};
use crate::settings::kinds::{ANY, At, switch};
use crate::settings::limits::CALLER_RATE;
use crate::settings::mistake::TextKind;
use crate::settings::name::Names;
use crate::settings::network::NetworkKeys;
use crate::settings::rings::{KeyMarks, Pepper, Ring, Shared};
use crate::settings::scalars::Rate;
use crate::settings::signature::SignatureTable;
use crate::settings::table::{Table, table};
use crate::settings::{
    KeyDigest, KeyList, KeySettings, KeyState, NetworkSettings, SecretSource, Secrets, SignatureSettings,
    UNRESOLVED, lists,
};

table! {
    /// What all API keys have in common.
    pub(crate) struct KeysTable {
        /// Secret mixed into key digests of the form "hmac-sha256:"; a reference, "env:NAME", "file:PATH" or
        /// "keyvault:ADDRESS".
        pepper: Option<At<String>> = None, ANY, Reload;
        /// Secrets that seal the addresses at which runs are asked for (`wait` of [route.answer]), as references: the first seals, all
        /// open. Instances with the same ones open each other's.
        run_addresses: Vec<At<String>> = Vec::new(), ANY, Reload;
    }
}

table! {
    /// Who may call.
    pub(crate) struct CallerTable {
        /// Name by which routes refer to it; it appears in logs and metrics.
        name: Option<At<String>> = None, ANY, Reload;
        /// Whether it may call at all; if not, its keys are refused and its networks identify nobody.
        enabled: KeyState = KeyState::Enabled, ANY, Reload;
        /// Networks it may call from; default: any.
        networks: Option<At<Vec<Network>>> = None, ANY, Reload;
        /// File with more such networks, one a line.
        networks_file: Option<At<String>> = None, ANY, Reload;
        /// Networks it may not call from.
        deny_networks: Vec<Network> = Vec::new(), ANY, Reload;
        /// File with more such networks, one a line.
        deny_networks_file: Option<At<String>> = None, ANY, Reload;
        /// Its rate over all routes: half of what a route takes, so that one caller leaves room for others.
        rate: Rate = CALLER_RATE, ANY, Reload;
        /// File with keys, one a line: LABEL DIGEST, then not_before=, expires=, enabled= as needed.
        keys_file: Option<At<String>> = None, ANY, Reload;
        /// How it signs its requests.
        signature: Option<Table<SignatureTable>> = None, ANY, Reload;
        /// Whether its keys are sent in the URL, for vendors that have nothing but one; they are valid nowhere else then.
        key_in_url: bool = false, ANY, Reload;
        /// Its API keys.
        key: Vec<Table<KeyTable>> = Vec::new(), ANY, Reload;
    }
}

table! {
    /// An API key of a caller, by its digest.
    pub(crate) struct KeyTable {
        /// Distinguishes the key in logs.
        label: Option<At<KeyLabel>> = None, ANY, Reload;
        /// "sha256:" or "hmac-sha256:" and 64 hexadecimal digits, as `flowgate key hash` prints them.
        digest: Option<At<KeyDigest>> = None, ANY, Reload;
        /// The key is refused before this moment.
        not_before: Option<SystemTime> = None, ANY, Reload;
        /// The key is refused from this moment on.
        expires: Option<SystemTime> = None, ANY, Reload;
        /// Whether the key is accepted at all.
        enabled: KeyState = KeyState::Enabled, ANY, Reload;
    }
}

#[derive(Debug, Clone)]
pub struct CallerSettings {
    pub name: CallerName,
    /// Its keys; a caller without any is known by its networks alone.
    pub keys: Arc<KeyList>,
    /// Its keys are accepted in the URL, and nowhere else.
    pub key_in_url: bool,
    pub networks: NetworkSettings,
    /// What every request of it must be signed with, beside its key if it has keys.
    pub signature: Option<SignatureSettings>,
    pub rate: Option<Rate>,
}

impl CallerSettings {
    pub fn new(name: CallerName) -> Self {
        Self {
            name,
            keys: Arc::default(),
            key_in_url: false,
            networks: NetworkSettings::default(),
            signature: None,
            rate: Some(CALLER_RATE),
        }
    }

    /// Whether an address in its networks is all the proof that it gives.
    pub fn is_known_by_network(&self) -> bool {
        self.keys.is_empty() && self.signature.is_none()
    }
}

switch!(KeyState: Enabled = true, Disabled = false);

/// Below this a pepper can be guessed.
const PEPPER_BYTES_MIN: usize = 16;

impl Check<'_> {
    pub(super) fn pepper(&mut self, table: &KeysTable) -> Option<SecretSource> {
        let value = table.pepper.as_ref()?;
        let pepper = self.secret_at_start("pepper", value)?;
        if pepper
            .known()
            .is_some_and(|pepper| pepper.expose().len() < PEPPER_BYTES_MIN)
        {
            let flaw = Flaw::new(format!(
                "the pepper has fewer than {PEPPER_BYTES_MIN} bytes and can be guessed"
            ));
            self.findings
                .warn(value, flaw.hint("make one with `openssl rand -base64 32`"));
        }
        Some(pepper)
    }

    pub(super) fn callers(
        &mut self,
        list: &[Table<CallerTable>],
        pepper: Pepper,
        names: &mut Names,
    ) -> Vec<CallerSettings> {
        let mut shared = Shared {
            rings: Vec::with_capacity(list.len()),
            digests: HashTable::new(),
            hasher: RandomState::new(),
            files: HashMap::new(),
            pepper,
            state: KeyState::Enabled,
        };
        let callers: Vec<_> = list
            .iter()
            .map(|caller| self.caller(caller, names, &mut shared))
            .collect();
        let with_keys = callers.into_iter().zip(shared.rings).map(|(caller, ring)| {
            let mut keys = ring.keys;
            keys.shrink_to_fit();
            Some(CallerSettings {
                keys: Arc::new(keys),
                ..caller?
            })
        });
        with_keys.flatten().collect()
    }

    /// A caller without its keys; they are the last ring.
    fn caller(
        &mut self,
        caller: &Table<CallerTable>,
        names: &mut Names,
        shared: &mut Shared,
    ) -> Option<CallerSettings> {
        let name = self.name(caller, caller.name.as_ref(), names, CallerName::parse);
        if let Some(value) = caller
            .name
            .as_ref()
            .filter(|value| value.as_str() == CallerName::anonymous().as_str())
        {
            let flaw = Flaw::new("\"anonymous\" is the name under which callers of open routes are logged");
            self.findings.mistake(value, flaw.hint("choose another name"));
        }
        let mistakes = self.findings.len();
        shared.rings.push(Ring::default());
        shared.state = caller.enabled;
        for table in &caller.key {
            self.key(table, shared);
        }
        if let Some(value) = &caller.keys_file {
            self.key_file(value, shared);
        }
        let keyless = shared.rings.last().is_none_or(|ring| ring.keys.is_empty());
        let mut networks = self.networks(&NetworkKeys {
            allow: caller.networks.as_ref(),
            allow_file: caller.networks_file.as_ref(),
            deny: &caller.deny_networks,
            deny_file: caller.deny_networks_file.as_ref(),
        });
        if caller.enabled == KeyState::Disabled {
            networks.deny.extend(Network::EVERYTHING);
        }
        let signature = caller.signature.as_ref().map(|table| self.signature(table));
        let unread = caller.keys_file.is_some() && self.environment.secrets() == Secrets::Unresolved;
        let by_address = caller.networks.is_some() || caller.networks_file.is_some() || signature.is_some();
        let sources = ["key", "keys_file", "networks", "networks_file", "signature"];
        let reported = sources.iter().any(|key| caller.is_reported(key));
        // Its networks or its signature alone would let everybody in, because somebody has emptied a file.
        if let Some(value) = caller
            .keys_file
            .as_ref()
            .filter(|_| keyless && by_address && !unread && !reported)
            && mistakes == self.findings.len()
        {
            let flaw = Flaw::new("the file has no keys, and the caller has no other");
            self.findings.mistake(
                value,
                flaw.hint("add a key, or remove `keys_file` to know the caller without one"),
            );
        }
        if keyless && !by_address && !unread && mistakes == self.findings.len() && !reported {
            let mark = caller.keys_file.as_ref().map_or(Mark::from(caller), Mark::from);
            let flaw =
                Flaw::new("the caller has no keys, no signature and no networks, so nobody would be it");
            let hint = "make a key with `flowgate key new` and add its digest as [[caller.key]]";
            self.findings.mistake(mark, flaw.hint(hint));
        }
        Some(CallerSettings {
            networks,
            signature: signature.flatten(),
            key_in_url: caller.key_in_url,
            rate: Some(caller.rate),
            ..CallerSettings::new(name?)
        })
    }

    fn key(&mut self, table: &Table<KeyTable>, shared: &mut Shared) {
        let hint = "give the key a label that distinguishes it in logs";
        let label = table.require(("label", &table.label), hint, &mut self.findings);
        let hint = lists::HOW_TO_MAKE;
        let digest = table.require(("digest", &table.digest), hint, &mut self.findings);
        let (Some(label), Some(digest)) = (label, digest) else {
            return;
        };
        let key = KeySettings {
            label: (**label).clone(),
            digest: **digest,
            not_before: table.not_before,
            expires: table.expires,
            state: table.enabled,
        };
        let marks = KeyMarks {
            label: label.into(),
            digest: digest.into(),
        };
        self.add_key(&key, marks, shared);
    }

    fn key_file(&mut self, value: &At<String>, shared: &mut Shared) {
        let Some(path) = self.path(value) else { return };
        if let Some(first) = shared.files.insert(path.clone(), value.into()) {
            let flaw = Flaw::new("two callers have the same key file");
            self.findings.clash(value, flaw, first, "first here");
            return;
        }
        let Some(text) = self.list(value, &path) else {
            return;
        };
        shared.reserve(lists::keys_max(&text));
        let source = self
            .findings
            .add_source(&path.display().to_string(), &text, TextKind::KeyList);
        for entry in lists::keys(&text) {
            match entry {
                Ok(((key, digest), label)) => {
                    let marks = KeyMarks {
                        label: Findings::mark(source, label),
                        digest: Findings::mark(source, digest),
                    };
                    self.add_key(&key, marks, shared);
                }
                Err((flaw, span)) => self.findings.mistake(Findings::mark(source, span), flaw),
            }
        }
    }

    fn add_key(&mut self, key: &KeySettings, marks: KeyMarks, shared: &mut Shared) {
        if matches!(key.digest, KeyDigest::HmacSha256(_)) && shared.pepper == Pepper::Absent {
            shared.pepper = Pepper::Missed;
            let flaw = Flaw::new("a digest with hmac-sha256: needs a pepper, and `keys.pepper` is missing");
            self.findings
                .mistake(marks.digest, flaw.hint("add [keys] with pepper = \"env:NAME\""));
        }
        if let Some(first) = shared.note_digest(&key.digest) {
            let flaw = Flaw::new("the same key is given twice");
            self.findings.clash(marks.digest, flaw, first, "first here");
        }
        let Some(ring) = shared.rings.last_mut() else {
            return;
        };
        if let Some(first) = ring.note_label(&key.label, &shared.hasher) {
            let flaw = Flaw::new(format!(
                "the caller has two keys with the label \"{}\"",
                key.label
            ));
            self.findings.clash(marks.label, flaw, first, "first here");
        }
        match shared.state {
            KeyState::Enabled => ring.keys.push(key),
            KeyState::Disabled => ring.keys.push(&KeySettings {
                state: KeyState::Disabled,
                ..key.clone()
            }),
        }
        ring.marks.push(marks);
        self.judge_dates_of_key(key, marks.label);
    }

    fn judge_dates_of_key(&mut self, key: &KeySettings, mark: Mark) {
        let Some(expires) = key.expires else { return };
        if key.not_before.is_some_and(|not_before| not_before >= expires) {
            self.findings
                .mistake(mark, Flaw::new("the key expires before it becomes valid"));
        } else if expires <= self.environment.now() && key.state == KeyState::Enabled {
            self.findings
                .warn(mark, Flaw::new(format!("the key \"{}\" has expired", key.label)));
        }
    }
}

/// The pepper; a placeholder where it is not read, because keys are then not compared.
pub(super) fn pepper_of(source: &SecretSource) -> Secret {
    let known = source.known().cloned();
    known.unwrap_or_else(|| Secret::new(UNRESOLVED))
}

#[cfg(test)]
mod tests {
    use crate::settings::KeyState;
    use crate::settings::sample::Sample;

    const HEX: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";

    fn sample(lines: &str) -> Sample {
        Sample::default().with("caller", &format!("name = \"erp\"\n{lines}"))
    }

    fn key(label: &str, rest: &str) -> String {
        format!("[[caller.key]]\nlabel = \"{label}\"\ndigest = \"sha256:{HEX}\"\n{rest}\n")
    }

    #[test]
    fn a_caller_has_keys_or_networks() {
        assert_eq!(
            sample("").mistakes(),
            ["the caller has no keys, no signature and no networks, so nobody would be it"]
        );
        assert!(sample("networks = [\"10.0.0.0/8\"]").mistakes().is_empty());
        assert!(sample(&key("a", "")).mistakes().is_empty());
        assert_eq!(
            sample("deny_networks = [\"10.0.0.0/8\"]").mistakes(),
            ["the caller has no keys, no signature and no networks, so nobody would be it"]
        );
    }

    #[test]
    fn an_empty_network_list_does_not_open_the_gate() {
        for lines in ["networks = []", "networks_file = \"empty.txt\""] {
            let sample = sample(&format!("{lines}\n{}", key("a", ""))).file("empty.txt", "# none\n");
            assert_eq!(
                sample.mistakes(),
                ["no network is listed, which would let in every address"]
            );
        }
    }

    #[test]
    fn a_key_is_given_once() {
        let twice = format!("{}{}", key("a", ""), key("b", ""));
        assert_eq!(sample(&twice).mistakes(), ["the same key is given twice"]);
        let in_file = sample(&format!("keys_file = \"keys.txt\"\n{}", key("a", "")));
        let report = in_file.file("keys.txt", &format!("\nb sha256:{HEX}\n")).report();
        assert!(
            report.contains("keys.txt:2:3") && report.contains("first here"),
            "{report}"
        );
        let labels = sample(&format!("{}{}", key("a", ""), key("a", "").replace("0a", "0b")));
        assert_eq!(
            labels.mistakes(),
            ["the caller has two keys with the label \"a\""]
        );
    }

    #[test]
    fn a_key_or_label_that_is_given_twice_is_found_among_many() {
        let lines = |label: &str, numbers: std::ops::Range<u32>| -> String {
            numbers
                .map(|number| format!("{label}{number} sha256:{number:064x}\n"))
                .collect()
        };
        let tables: String = (0..300)
            .map(|number| key(&format!("t{number}"), "").replace(HEX, &format!("{:064x}", 9000 + number)))
            .collect();
        let files = "[[caller]]\nname = \"one\"\nkeys_file = \"one.txt\"\n\
                     [[caller]]\nname = \"two\"\nkeys_file = \"two.txt\"\n";
        let report = sample(&format!("{tables}{files}"))
            .file("one.txt", &lines("a", 0..3000))
            .file(
                "two.txt",
                &format!("{}{}", lines("b", 3000..6000), lines("b", 9123..9124)),
            )
            .report();
        assert!(
            report.contains("two.txt:3001:7") && report.ends_with("1 mistake\n"),
            "{report}"
        );
        let report = sample(&format!("{tables}{files}"))
            .file("one.txt", &lines("a", 0..3000))
            .file(
                "two.txt",
                &format!("{}b3456 sha256:{:064x}\n", lines("b", 3000..6000), 1234),
            )
            .report();
        for place in [
            "two.txt:3001:1",
            "two.txt:457:1",
            "two.txt:3001:7",
            "one.txt:1235:7",
        ] {
            assert!(report.contains(place), "{place}: {report}");
        }
        assert!(report.ends_with("2 mistakes\n"), "{report}");
    }

    #[test]
    fn a_plain_key_is_refused_and_not_shown() {
        let sample = sample("[[caller.key]]\nlabel = \"a\"\ndigest = \"canary-key\"\n");
        let report = sample.report();
        assert!(
            report.contains("flowgate key hash") && !report.contains("canary"),
            "{report}"
        );
    }

    #[test]
    fn an_hmac_needs_a_pepper_and_says_so_once() {
        let keys = format!(
            "[[caller.key]]\nlabel = \"a\"\ndigest = \"hmac-sha256:{HEX}\"\n\
             [[caller.key]]\nlabel = \"b\"\ndigest = \"hmac-sha256:{}\"\n",
            HEX.replace("0a", "0b")
        );
        assert_eq!(
            sample(&keys).mistakes(),
            ["a digest with hmac-sha256: needs a pepper, and `keys.pepper` is missing"]
        );
        let peppered = sample(&keys).with("keys", "pepper = \"env:PEPPER\"");
        assert!(peppered.mistakes().is_empty());
        let misspelt = sample(&keys).with("keys", "peper = \"env:PEPPER\"");
        assert_eq!(misspelt.mistakes(), ["unknown key `peper`"]);
    }

    #[test]
    fn dates_of_keys_are_read_and_judged() {
        let good = sample(&key(
            "a",
            "not_before = 2020-01-01\nexpires = \"2999-01-01T00:00:00Z\"\nenabled = false",
        ));
        let config = good.config();
        let key_settings = config.callers[0].keys.get(0).unwrap();
        assert!(key_settings.not_before < key_settings.expires);
        assert_eq!(key_settings.state, KeyState::Disabled);
        assert_eq!(
            sample(&key("a", "expires = 2020-01-01T00:00:00Z")).warnings(),
            ["the key \"a\" has expired"]
        );
        let reverse = sample(&key("a", "not_before = 2031-01-01\nexpires = 2030-01-01"));
        assert_eq!(reverse.mistakes(), ["the key expires before it becomes valid"]);
        let local = sample(&key("a", "expires = 2031-01-01T00:00:00"));
        assert_eq!(local.mistakes(), ["the moment has no time zone"]);
        assert_eq!(
            sample(&key("a", "expires = 5")).mistakes(),
            [
                "expected a date such as 2027-01-31, or a moment such as 2027-01-31T12:00:00Z, found a \
                 whole number"
            ]
        );
    }

    #[test]
    fn the_name_anonymous_is_taken() {
        let sample = Sample::default().with("caller", "name = \"anonymous\"\nnetworks = [\"10.0.0.0/8\"]");
        let mistakes = sample.mistakes();
        assert!(
            mistakes.iter().any(|what| what.contains("open routes")),
            "{mistakes:?}"
        );
    }

    #[test]
    fn lines_of_a_key_file_are_reported_with_their_place() {
        let sample = sample("keys_file = \"keys.txt\"").file(
            "keys.txt",
            &format!("# keys\ngood sha256:{HEX}\nbad canary-key\nworse sha256:12 expires=never\n"),
        );
        let report = sample.report();
        assert!(
            report.contains("keys.txt:3:5") && report.contains("keys.txt:4:7"),
            "{report}"
        );
        assert!(!report.contains("canary"), "{report}");
    }

    #[test]
    fn two_callers_cannot_share_a_key_file() {
        let sample =
            sample("keys_file = \"keys.txt\"\n[[caller]]\nname = \"shop\"\nkeys_file = \"keys.txt\"")
                .file("keys.txt", &format!("a sha256:{HEX}\n"));
        assert_eq!(sample.mistakes(), ["two callers have the same key file"]);
    }
}
