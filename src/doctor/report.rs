//! The doctor's report: checks in groups, and their rendering as text and JSON. It decides nothing except
//! that a check that depends on a failed one is skipped.

use std::collections::HashSet;
use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value, json};

use crate::doctor::advice;
use crate::entra::claims::Compared;
use crate::model::Remedy;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// Information: it could not be decided from here, or needs no action.
    Note,
    /// It works now, but will not or should not stay like this.
    Warn,
    Fail,
    /// Not checked, because an earlier check failed.
    Skipped,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Check {
    /// Its name: `dns`, `tls`, `token`.
    pub name: &'static str,
    pub verdict: Verdict,
    pub says: String,
    pub remedy: Option<Remedy>,
    /// The claims of a token, if they were compared.
    pub claims: Vec<Compared>,
    /// What could not be tested because of this result, and how to test it.
    pub untested: Option<String>,
}

impl Check {
    pub(super) fn new(name: &'static str, verdict: Verdict, says: impl Into<String>) -> Self {
        Self {
            name,
            verdict,
            says: says.into(),
            remedy: None,
            claims: Vec::new(),
            untested: None,
        }
    }

    pub(super) fn ok(name: &'static str, says: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, says)
    }

    pub(super) fn note(name: &'static str, says: impl Into<String>) -> Self {
        Self::new(name, Verdict::Note, says)
    }

    pub(super) fn warn(name: &'static str, says: impl Into<String>, remedy: Remedy) -> Self {
        Self::new(name, Verdict::Warn, says).with(remedy)
    }

    pub(super) fn fail(name: &'static str, says: impl Into<String>, remedy: Remedy) -> Self {
        Self::new(name, Verdict::Fail, says).with(remedy)
    }

    pub(super) fn with(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(remedy);
        self
    }

    /// Notes what this result leaves untested, with the way to test it in brackets.
    pub(super) fn untested(mut self, what: impl Into<String>) -> Self {
        self.untested = Some(what.into());
        self
    }

    pub(super) fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, Verdict::Skipped, why)
    }

    fn json(&self) -> Value {
        let mut value = Map::new();
        let mut add = |key: &str, field: Value| value.insert(key.to_owned(), field);
        add("check", self.name.into());
        add("verdict", self.verdict.as_str().to_ascii_lowercase().into());
        add("says", self.says.as_str().into());
        if let Some(remedy) = &self.remedy {
            add("who", remedy.fixed_by.as_str().into());
            add("do", remedy.what.as_ref().into());
            add("portal", remedy.portal.as_ref().into());
            add("command", remedy.command.as_ref().into());
        }
        if !self.claims.is_empty() {
            let rows = self.claims.iter().map(|row| {
                json!({"claim": row.claim, "wanted": row.wanted, "got": row.got, "verdict": row.fit.as_str()})
            });
            add("claims", rows.collect());
        }
        value.into()
    }

    /// Renders it as text. A table that was already printed is not repeated, so that a different one is
    /// noticed.
    fn text(&self, shown: &mut HashSet<String>) -> String {
        let indent = " ".repeat(2 + VERDICT_CHARS + 2);
        let mut text = format!(
            "  {:VERDICT_CHARS$}  {:NAME_CHARS$}  {}\n",
            self.verdict.as_str(),
            self.name,
            self.says
        );
        if !self.claims.is_empty() {
            let table = claims_table(&self.claims);
            let lines = match shown.insert(table.clone()) {
                true => table.as_str(),
                false => "(the claims are those of the table above)",
            };
            for line in lines.lines() {
                text.push_str(&format!("{indent}{line}\n"));
            }
        }
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!(
                "{indent}-> {}: {}\n",
                remedy.fixed_by.as_str(),
                remedy.what
            ));
            for (what, place) in [("portal", &remedy.portal), ("command", &remedy.command)] {
                if !place.is_empty() {
                    text.push_str(&format!("{indent}   {what}: {place}\n"));
                }
            }
        }
        text
    }
}

const VERDICT_CHARS: usize = 7;
const NAME_CHARS: usize = 12;

fn claims_table(rows: &[Compared]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["claim", "wanted", "got", "verdict"]);
    for row in rows {
        table.add_row([row.claim, &row.wanted, &row.got, row.fit.as_str()]);
    }
    table.to_string()
}

/// Formats a number of things: `1 route`, `2 routes`.
pub(crate) fn count(number: usize, one: &str, more: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {more}"),
    }
}

#[derive(Debug)]
pub struct Group {
    /// `gateway`, `identity`, `route` or `privileges`.
    pub kind: &'static str,
    pub name: String,
    pub checks: Vec<Check>,
    /// The failed check because of which the rest is skipped.
    broken: Option<String>,
}

impl Group {
    pub(super) fn new(kind: &'static str, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
            checks: Vec::new(),
            broken: None,
        }
    }

    /// Adds a check; those after a failed or skipped one are skipped as well.
    pub(super) fn add(&mut self, check: Check) {
        match check.verdict {
            Verdict::Fail if self.broken.is_none() => self.broken = Some(format!("{} failed", check.name)),
            Verdict::Skipped if self.broken.is_none() => self.broken = Some(check.says.clone()),
            _ => {}
        }
        self.checks.push(check);
    }

    /// Adds a check that no other depends on.
    pub(super) fn aside(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Skips these checks if an earlier one failed; returns whether it did.
    pub(super) fn skips(&mut self, names: &[&'static str]) -> bool {
        let Some(why) = self.broken.clone() else {
            return false;
        };
        for name in names {
            self.checks.push(Check::skipped(name, why.clone()));
        }
        true
    }

    /// The title: `identity contoso`.
    pub fn title(&self) -> String {
        format!("{} {}", self.kind, self.name).trim_end().to_owned()
    }
}

#[derive(Debug, Default)]
pub struct Report {
    /// In the order in which they depend on each other.
    pub groups: Vec<Group>,
    /// What was not requested, and how to request it.
    pub unasked: Vec<String>,
}

impl Report {
    /// Puts the name of the settings file into the commands that need it.
    pub fn name_settings(&mut self, path: &Path) {
        let checks = self.groups.iter_mut().flat_map(|group| &mut group.checks);
        for remedy in checks.filter_map(|check| check.remedy.as_mut()) {
            remedy.command = advice::with_settings(&remedy.command, path).into();
        }
    }

    /// Every failed check, with the title of its group.
    pub fn failures(&self) -> impl Iterator<Item = (String, &Check)> {
        self.of(Verdict::Fail)
    }

    fn of(&self, verdict: Verdict) -> impl Iterator<Item = (String, &Check)> {
        self.groups.iter().flat_map(move |group| {
            let checks = group.checks.iter().filter(move |check| check.verdict == verdict);
            checks.map(|check| (group.title(), check))
        })
    }

    pub fn has_failed(&self) -> bool {
        self.failures().next().is_some()
    }

    pub fn untested(&self) -> Vec<&str> {
        let checks = self.groups.iter().flat_map(|group| &group.checks);
        let left = checks.filter_map(|check| check.untested.as_deref());
        self.unasked.iter().map(String::as_str).chain(left).collect()
    }

    /// Whether nothing failed and nothing was left untested.
    pub fn is_healthy(&self) -> bool {
        !self.has_failed() && self.untested().is_empty()
    }

    /// One line that names what is wrong.
    pub fn summary(&self) -> String {
        let failed: Vec<String> = self
            .failures()
            .map(|(title, check)| format!("{title}: {}", check.name))
            .collect();
        let warned = self.of(Verdict::Warn).count();
        let skipped = self.of(Verdict::Skipped).count();
        let beside = format!(
            "{}, {} skipped",
            count(warned, "warning", "warnings"),
            count(skipped, "check", "checks")
        );
        match failed.as_slice() {
            [] if self.is_healthy() => format!("Healthy: nothing failed; {beside}."),
            [] => format!(
                "Nothing failed in {}; {beside}. Not tested: {}.",
                self.tested(),
                self.untested().join("; ")
            ),
            [one] => format!("One thing is wrong: {one}; {beside}."),
            [first, ..] => format!("{} things are wrong, first {first}; {beside}.", failed.len()),
        }
    }

    /// What was checked: `2 identities, 3 routes`.
    fn tested(&self) -> String {
        let kinds = [
            ("identity", "identity", "identities"),
            ("vault", "key vault", "key vaults"),
            ("route", "route", "routes"),
        ];
        let of = |kind: &str| self.groups.iter().filter(|group| group.kind == kind).count();
        let mut parts = vec!["the gateway's own side".to_owned()];
        parts.extend(
            kinds
                .iter()
                .filter(|(kind, ..)| of(kind) > 0)
                .map(|(kind, one, more)| count(of(kind), one, more)),
        );
        parts.join(", ")
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut shown = HashSet::new();
        for group in &self.groups {
            text.push_str(&format!("{}\n", group.title()));
            for check in &group.checks {
                text.push_str(&check.text(&mut shown));
            }
            text.push('\n');
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    /// Renders the report as JSON, in the form that docs/doctor.md documents.
    pub fn json(&self) -> Value {
        let groups = self.groups.iter().map(|group| {
            json!({
                "kind": group.kind,
                "name": group.name,
                "checks": group.checks.iter().map(Check::json).collect::<Vec<_>>(),
            })
        });
        json!({
            "version": 2,
            "healthy": self.is_healthy(),
            "failed": self.failures().count(),
            "untested": self.untested(),
            "summary": self.summary(),
            "groups": groups.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, Group, Report, Verdict};
    use crate::model::{FixedBy, Remedy};

    fn broken() -> Report {
        let mut group = Group::new("identity", "contoso");
        group.add(Check::ok("dns", "it has an address"));
        group.add(Check::fail(
            "tcp",
            "refused",
            Remedy::new(FixedBy::Operator, "Open the port."),
        ));
        assert!(group.skips(&["tls", "token"]));
        Report {
            groups: vec![group],
            unasked: vec!["calls of the triggers (add --live)".to_owned()],
        }
    }

    #[test]
    fn the_one_thing_that_is_wrong_is_named_and_what_follows_is_skipped() {
        let report = broken();
        assert_eq!(
            report.summary(),
            "One thing is wrong: identity contoso: tcp; 0 warnings, 2 checks skipped."
        );
        let skipped = &report.groups[0].checks[3];
        assert_eq!(
            (skipped.verdict, skipped.says.as_str()),
            (Verdict::Skipped, "tcp failed")
        );
        let text = report.text();
        assert!(text.contains("  FAIL     tcp           refused\n"), "{text}");
        assert!(text.contains("-> operator: Open the port."), "{text}");
    }

    #[test]
    fn healthy_is_what_was_tested_as_a_whole_and_the_rest_names_what_was_not() {
        let mut group = Group::new("gateway", "");
        group.add(Check::note("running", "none").untested("the running gateway (start it)"));
        let mut report = Report {
            groups: vec![group, Group::new("route", "orders")],
            unasked: vec!["calls of the triggers (add --live)".to_owned()],
        };
        assert!(!report.has_failed() && !report.is_healthy());
        assert_eq!(
            report.summary(),
            "Nothing failed in the gateway's own side, 1 route; 0 warnings, 0 checks skipped. Not tested: calls of the \
             triggers (add --live); the running gateway (start it)."
        );
        report.unasked.clear();
        assert!(!report.is_healthy());
        report.groups.remove(0);
        assert!(
            report.is_healthy() && report.summary().starts_with("Healthy: "),
            "{}",
            report.summary()
        );
    }

    #[test]
    fn scripts_get_the_same() {
        let json = broken().json();
        assert_eq!((&json["healthy"], &json["version"]), (&false.into(), &2.into()));
        let failed = &json["groups"][0]["checks"][1];
        assert_eq!(failed["verdict"], "fail");
        assert_eq!(
            (failed["who"].as_str(), failed["do"].as_str()),
            (Some("operator"), Some("Open the port."))
        );
    }
}
