//! Networks of callers, routes and plain listeners, from the settings file and from list files.

use std::path::Path;

use crate::model::{Flaw, Network};
use crate::settings::check::Check;
use crate::settings::findings::Findings;
use crate::settings::kinds::At;
use crate::settings::lists;
use crate::settings::mistake::TextKind;

/// Networks that are let in and kept out. Denial wins; an empty `allow` lets in every address not denied.
#[derive(Debug, Clone, Default)]
pub struct NetworkSettings {
    pub allow: Vec<Network>,
    pub deny: Vec<Network>,
}

/// The four keys about networks that callers and routes share.
pub(super) struct NetworkKeys<'a> {
    pub(super) allow: Option<&'a At<Vec<Network>>>,
    pub(super) allow_file: Option<&'a At<String>>,
    pub(super) deny: &'a [Network],
    pub(super) deny_file: Option<&'a At<String>>,
}

impl Check<'_> {
    pub(super) fn networks(&mut self, keys: &NetworkKeys<'_>) -> NetworkSettings {
        let mistakes = self.findings.len();
        let mut allow = keys.allow.map(|list| list.to_vec()).unwrap_or_default();
        let listed = self.network_file(keys.allow_file);
        // A list that could not be read is not an empty one.
        let readable = listed.is_some() && mistakes == self.findings.len();
        allow.extend(listed.unwrap_or_default());
        let mut deny = keys.deny.to_vec();
        deny.extend(self.network_file(keys.deny_file).unwrap_or_default());
        let given = keys.allow.map(At::span).or(keys.allow_file.map(At::span));
        if let Some(span) = given.filter(|_| readable && allow.is_empty()) {
            let flaw = Flaw::new("no network is listed, which would let in every address");
            let hint = "list at least one network, or remove the key to let in every address";
            self.findings.mistake(span, flaw.hint(hint));
        }
        NetworkSettings { allow, deny }
    }

    /// The networks of a file, none without a file, nothing for a file with mistakes or on another machine.
    fn network_file(&mut self, value: Option<&At<String>>) -> Option<Vec<Network>> {
        let Some(value) = value else {
            return Some(Vec::new());
        };
        let path = self.path(value)?;
        if let Some(networks) = self.lists.get(&path) {
            return networks.clone();
        }
        let networks = self.read_networks(value, &path);
        self.lists.insert(path, networks.clone());
        networks
    }

    fn read_networks(&mut self, value: &At<String>, path: &Path) -> Option<Vec<Network>> {
        let text = self.list(value, path)?;
        let mut networks = Vec::new();
        let mut misplaced = Vec::new();
        for entry in lists::networks(&text) {
            match entry {
                Ok((network, _)) => networks.push(network),
                Err(found) => misplaced.push(found),
            }
        }
        if misplaced.is_empty() {
            networks.shrink_to_fit();
            return Some(networks);
        }
        let source = self
            .findings
            .add_source(&path.display().to_string(), &text, TextKind::NetworkList);
        for (flaw, span) in misplaced {
            self.findings.mistake(Findings::mark(source, span), flaw);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::sample::Sample;

    fn sample(lines: &str) -> Sample {
        Sample::default().with("caller", &format!("name = \"shop\"\n{lines}"))
    }

    #[test]
    fn networks_come_from_the_settings_and_from_files() {
        let sample = sample(
            "networks = [\"10.0.0.0/8\"]\nnetworks_file = \"in.txt\"\ndeny_networks = [\"10.9.0.0/16\"]\n\
             deny_networks_file = \"out.txt\"",
        );
        let config = sample
            .file("in.txt", "# office\n192.0.2.0/24 # north\n")
            .file("out.txt", "10.8.0.1\n")
            .config();
        let networks = &config.callers[0].networks;
        assert_eq!(
            format!("{:?} {:?}", networks.allow, networks.deny),
            "[Network(10.0.0.0/8), Network(192.0.2.0/24)] [Network(10.9.0.0/16), Network(10.8.0.1/32)]"
        );
    }

    #[test]
    fn a_wrong_line_is_reported_once_however_often_its_file_is_used() {
        let lines = "networks_file = \"in.txt\"\n[[caller]]\nname = \"erp\"\nnetworks_file = \"in.txt\"";
        let report = sample(lines)
            .file("in.txt", "10.0.0.0/8\n10.0.0.1/8\ncanary-secret\n")
            .report();
        assert!(
            report.contains("in.txt:2:1") && report.contains("write 10.0.0.0/8"),
            "{report}"
        );
        assert!(
            report.ends_with("2 mistakes\n") && !report.contains("canary"),
            "{report}"
        );
    }

    #[test]
    fn a_missing_list_is_no_empty_list() {
        let mistakes = sample("networks_file = \"none.txt\"").mistakes();
        assert!(
            mistakes.len() == 1 && mistakes[0].ends_with("none.txt does not exist"),
            "{mistakes:?}"
        );
    }
}
