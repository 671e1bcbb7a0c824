//! Names of identities, callers and routes: each is defined once, and each reference must resolve.

use std::collections::HashMap;

use crate::model::{Flaw, NameError, RouteName};
use crate::settings::check::Check;
use crate::settings::findings::{Findings, Mark};
use crate::settings::kinds::At;
use crate::settings::near;
use crate::settings::table::{Rows, Table};

pub(super) struct Names {
    kind: &'static str,
    given: HashMap<String, Given>,
    /// Whether each table had a readable name. If not, an unknown name is probably that one.
    complete: bool,
}

struct Given {
    mark: Mark,
    used: bool,
}

impl Names {
    /// `complete` unless the list of tables itself could not be read.
    pub(super) fn new(kind: &'static str, complete: bool) -> Self {
        Self {
            kind,
            given: HashMap::new(),
            complete,
        }
    }

    pub(super) fn use_of(&mut self, value: &At<String>, findings: &mut Findings) -> bool {
        if let Some(given) = self.given.get_mut(value.as_str()) {
            given.used = true;
            return true;
        }
        // What can be no name may be anything, a secret included, and is not repeated.
        if RouteName::parse(value).is_err() {
            findings.mistake(
                value,
                Flaw::new(format!("this is not the name of any {}", self.kind)),
            );
            return false;
        }
        // The search for a near name is the expensive part, and useless once the report is full.
        if self.complete && findings.has_room() {
            let flaw = Flaw::new(format!("there is no {} \"{}\"", self.kind, value.as_str()));
            let flaw = match near::closest(value, self.given.keys().map(String::as_str)) {
                Some(meant) => flaw.hint(format!("did you mean \"{meant}\"?")),
                None => flaw.hint(format!(
                    "add [[{}]] with name = \"{}\"",
                    self.kind,
                    value.as_str()
                )),
            };
            findings.mistake(value, flaw);
        }
        false
    }

    pub(super) fn warn_of_unused(&self, findings: &mut Findings) {
        for (name, given) in self.given.iter().filter(|(_, given)| !given.used) {
            findings.warn(
                given.mark,
                Flaw::new(format!("no route uses the {} \"{name}\"", self.kind)),
            );
        }
    }
}

impl Check<'_> {
    /// Reads the name of a table and remembers it.
    pub(super) fn name<N>(
        &mut self,
        table: &Table<impl Rows>,
        value: Option<&At<String>>,
        names: &mut Names,
        parse: fn(&str) -> Result<N, NameError>,
    ) -> Option<N> {
        let Some(value) = value else {
            names.complete = false;
            table.missing(
                "name",
                &format!("give the {} a name", names.kind),
                &mut self.findings,
            );
            return None;
        };
        let read = parse(value).map_err(|error| Flaw::new(error.to_string()));
        let Some(name) = self.findings.keep(value, read) else {
            names.complete = false;
            return None;
        };
        if let Some(given) = names.given.get(value.as_str()) {
            let flaw = Flaw::new(format!(
                "the {} \"{}\" is there twice",
                names.kind,
                value.as_str()
            ));
            self.findings.clash(value, flaw, given.mark, "first here");
            return None;
        }
        names.given.insert(
            value.as_str().to_owned(),
            Given {
                mark: value.into(),
                used: false,
            },
        );
        Some(name)
    }
}
