//! A small complete settings file for tests, in which single tables can be replaced.

use std::collections::BTreeMap;
use std::path::Path;

use crate::settings::mistake::Mistake;
use crate::settings::{Config, Environment, Report, RouteSettings, Secrets, Severity, parse};

/// The address of a trigger that wants a token.
pub(super) const TRIGGER: &str = "https://prod-01.westeurope.logic.azure.com/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-10-01";

const GUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// Settings under test.
pub(super) struct Sample {
    tables: BTreeMap<&'static str, String>,
    replacements: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    variables: Vec<(String, String)>,
    secrets: Secrets,
}

impl Default for Sample {
    fn default() -> Self {
        let tables = BTreeMap::from([
            (
                "listener",
                "address = \"127.0.0.1:0\"\nplain_http = \"private-networks\"\n\
                 plain_http_from = [\"127.0.0.0/8\"]"
                    .to_owned(),
            ),
            (
                "identity",
                format!(
                    "name = \"contoso\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\n\
                     client_secret = \"env:SECRET\""
                ),
            ),
            (
                "caller",
                "name = \"shop\"\nnetworks = [\"10.0.0.0/8\"]".to_owned(),
            ),
            (
                "route",
                format!(
                    "name = \"orders\"\npath = \"/orders\"\nanonymous = true\nidentity = \"contoso\"\n\
                     trigger = \"{TRIGGER}\""
                ),
            ),
        ]);
        Self {
            tables,
            replacements: Vec::new(),
            files: Vec::new(),
            variables: Vec::new(),
            secrets: Secrets::Resolved,
        }
    }
}

impl Sample {
    /// Puts other lines into a table.
    pub(super) fn with(mut self, table: &'static str, lines: &str) -> Self {
        self.tables.insert(table, lines.to_owned());
        self
    }

    /// Replaces a part of the finished text.
    pub(super) fn replace(mut self, from: &str, to: &str) -> Self {
        self.replacements.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Puts a file beside the settings.
    pub(super) fn file(self, name: &str, text: &str) -> Self {
        self.bytes(name, text.as_bytes())
    }

    /// Puts a file that is no text beside the settings.
    pub(super) fn bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        self.files.push((name.to_owned(), bytes.to_vec()));
        self
    }

    /// Sets an environment variable.
    pub(super) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn without_secrets(mut self) -> Self {
        self.secrets = Secrets::Unresolved;
        self
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (table, lines) in &self.tables {
            let is_list = ["listener", "identity", "caller", "route"].contains(table);
            let header = if is_list {
                format!("[[{table}]]")
            } else {
                format!("[{table}]")
            };
            text.push_str(&format!("{header}\n{lines}\n\n"));
        }
        for (from, to) in &self.replacements {
            text = text.replace(from, to);
        }
        text
    }

    fn parse(&self) -> Result<(Config, Vec<Mistake>), Report> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in &self.files {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            #[cfg(unix)]
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        let signed = format!("{TRIGGER}&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=canary");
        let pairs = [
            ("SECRET", "canary-secret"),
            ("PEPPER", "canary-pepper-of-20-bytes"),
            ("SIGNED", signed.as_str()),
        ];
        let own = self
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let environment = Environment::from_pairs(pairs.into_iter().chain(own)).with(self.secrets);
        parse(
            &self.text(),
            &folder.path().join(Path::new("flowgate.toml")),
            &environment,
        )
    }

    /// The settings; the test fails if there is a mistake.
    #[track_caller]
    pub(super) fn config(&self) -> Config {
        self.parse()
            .unwrap_or_else(|report| panic!("{report}\n{}", self.text()))
            .0
    }

    /// What is wrong, each without its place.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let Err(report) = self.parse() else {
            return Vec::new();
        };
        let mistakes = report
            .mistakes()
            .iter()
            .filter(|mistake| mistake.severity() == Severity::Mistake);
        mistakes.map(|mistake| mistake.what().to_owned()).collect()
    }

    /// The warnings, except those about unused callers and identities: most samples leave one.
    #[track_caller]
    pub(super) fn warnings(&self) -> Vec<String> {
        let warnings = self.all_warnings();
        warnings.iter().map(|warning| warning.what().to_owned()).collect()
    }

    /// The same with their places.
    #[track_caller]
    pub(super) fn all_warnings(&self) -> Vec<Mistake> {
        let (_, mut warnings) = self
            .parse()
            .unwrap_or_else(|report| panic!("{report}\n{}", self.text()));
        // Tests of identities bring ids of their own, which are those of samples.
        let is_usual = |what: &str| what.starts_with("no route uses") || what.ends_with("is a placeholder");
        warnings.retain(|warning| !is_usual(warning.what()));
        warnings
    }

    /// The whole report; the test fails if there is none.
    #[track_caller]
    pub(super) fn report(&self) -> String {
        self.parse().err().unwrap().to_string()
    }
}

impl RouteSettings {
    /// A route to a flow, as settings with little in them have it.
    pub(crate) fn sample() -> Self {
        Sample::default().config().routes.remove(0)
    }
}
