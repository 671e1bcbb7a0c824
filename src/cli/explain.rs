//! `flowgate explain`: every row of every table of failures, for people and for the documents. The tables are the only
//! place where a failure is described; this joins and prints them.

use std::borrow::Cow;

use strsim::osa_distance;

use crate::cli::outcome::{Outcome, WRONG};
use crate::entra::PLATFORM;
use crate::entra::answer::TOKEN;
use crate::entra::refusal::{BY_STATUS, ERRORS, NUMBERS};
use crate::flow::fault;
use crate::model::{FailureRow, Outlook, Values, fill};
use crate::problem::{Again, ENDINGS, Kind, NAMES, Run};
use crate::secrets::VAULT;
use crate::server::reason::CONNECTIONS;

/// Codes that are named where none fits.
const NEAREST_MAX: usize = 3;

/// Which table a row is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Problems,
    Endings,
    Entra,
    Tokens,
    Platform,
    Vaults,
    Trigger,
    Connections,
}

impl Table {
    const fn title(self) -> &'static str {
        match self {
            Self::Problems => "Answers of the gateway",
            Self::Endings => "Calls without an answer",
            Self::Entra => "Refusals of Entra",
            Self::Tokens => "Tokens that did not come",
            Self::Platform => "Managed identities and federated tokens",
            Self::Vaults => "Key vaults",
            Self::Trigger => "Refusals and failures of the trigger",
            Self::Connections => "Connections",
        }
    }

    const fn about(self) -> &'static str {
        match self {
            Self::Problems => "The caller gets these as `code`; the log has them as `problem`.",
            Self::Endings => "The log has these as `problem` where there was no answer of the gateway.",
            Self::Entra => {
                "The log has these in `cause` of `token-refused` and `token-unavailable`. No request was sent to the \
                 flow. An `error` counts where its AADSTS number is not known; an answer with neither is judged by its \
                 status."
            }
            Self::Tokens | Self::Platform | Self::Vaults => {
                "The log has these in `cause` of `token-refused` and `token-unavailable`; metrics count the first ones by their \
                 code. No request was sent to the flow."
            }
            Self::Trigger => {
                "The log has these in `cause`, beside the answer that the caller gets. One code can have several rows, \
                 by the words of its message. An answer without a known code is judged by its status (`http-...`, with \
                 `-challenge` where it carries `WWW-Authenticate`)."
            }
            Self::Connections => {
                "The log has these as `reason` of a connection line; metrics count them by it."
            }
        }
    }
}

/// One row of a table.
#[derive(Debug)]
struct Entry {
    table: Table,
    code: &'static str,
    /// Part of the message that distinguishes rows of one code.
    wording: &'static str,
    happened: Cow<'static, str>,
    what: Cow<'static, str>,
    fixed_by: &'static str,
    outlook: Option<Outlook>,
    answer: Option<Kind>,
    run: Option<(Run, Again)>,
    portal: Cow<'static, str>,
    command: Cow<'static, str>,
}

/// What pages and commands name where no identity is known.
const EXAMPLE: &Values<'_> = &[
    ("resource", "Microsoft Flow Service"),
    (
        "create",
        "az ad sp create --id 7df0a125-d3be-4c96-aa54-591f83ff541c",
    ),
];

impl Entry {
    fn of(table: Table, row: &'static FailureRow) -> Self {
        Self {
            table,
            code: row.code,
            wording: "",
            happened: fill(row.seen, EXAMPLE),
            what: fill(row.what, EXAMPLE),
            fixed_by: row.fixed_by.as_str(),
            outlook: Some(row.outlook),
            answer: None,
            run: None,
            portal: fill(row.page.portal, EXAMPLE),
            command: fill(row.page.command, EXAMPLE),
        }
    }

    fn of_problem(kind: Kind) -> Self {
        let row = kind.row();
        Self {
            table: Table::Problems,
            code: row.code,
            wording: "",
            happened: row.title.into(),
            what: row.fix.into(),
            fixed_by: row.fixed_by.as_str(),
            outlook: None,
            answer: Some(kind),
            run: Some((kind.run(), row.again)),
            portal: "".into(),
            command: "".into(),
        }
    }

    fn of_fault(row: &'static fault::Row) -> Self {
        Self {
            wording: row.wording,
            answer: Some(row.kind),
            run: Some((row.run, row.again())),
            ..Self::of(Table::Trigger, &row.failure)
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}  ({})\n", self.code, self.table.title());
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                text.push_str(&format!("  {name:12}{value}\n"));
            }
        };
        line("message", self.wording);
        line("happened", &self.happened);
        let name = if self.happened.is_empty() {
            "meaning"
        } else {
            "to do"
        };
        line(name, &self.what);
        line("fixed by", self.fixed_by);
        line("outlook", self.outlook.map_or("", Outlook::clause));
        if let Some(kind) = self.answer {
            line(
                "caller gets",
                &format!("{} {}", kind.row().status.as_u16(), kind.row().code),
            );
        }
        if let Some((run, again)) = self.run {
            line("run started", run.as_str());
            line("send again", send_again(again));
        }
        line("portal", &self.portal);
        line("command", &self.command);
        text
    }

    fn cells(&self) -> String {
        let code = match self.wording {
            "" => format!("`{}`", self.code),
            wording => format!("`{}` with *{wording}*", self.code),
        };
        let happened = match self.happened.as_ref() {
            "" => String::new(),
            clause => format!("{}. ", capital(clause.trim_end_matches('.'))),
        };
        let page = match (self.portal.as_ref(), self.command.as_ref()) {
            (portal, "") => portal.to_owned(),
            ("", command) => format!("`{command}`"),
            (portal, command) => format!("{portal}; `{command}`"),
        };
        let mut cells = vec![code, self.fixed_by.to_owned(), format!("{happened}{}", self.what)];
        match (self.table, self.answer, self.run) {
            (Table::Problems, _, Some((run, again))) => {
                cells.extend([run.as_str().to_owned(), again_word(again).to_owned()]);
            }
            (_, Some(kind), Some((run, again))) => {
                let answer = format!("{} `{}`", kind.row().status.as_u16(), kind.row().code);
                cells.extend([
                    answer,
                    run.as_str().to_owned(),
                    again_word(again).to_owned(),
                    page,
                ]);
            }
            _ => cells.extend([self.outlook.map_or("", Outlook::clause).to_owned(), page]),
        }
        // A bar would end the cell.
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), letters.as_str())
}

const fn send_again(again: Again) -> &'static str {
    match again {
        Again::Later => "yes, later: no run was started",
        Again::No => "no: it would fail again, or a run may have started",
    }
}

const fn again_word(again: Again) -> &'static str {
    match again {
        Again::Later => "yes",
        Again::No => "no",
    }
}

fn tables() -> [(Table, Vec<Entry>); 8] {
    let of = |table, rows: &[&'static FailureRow]| {
        let entries = rows.iter().map(|row| Entry::of(table, row));
        (table, entries.collect())
    };
    let entra: Vec<_> = (NUMBERS.iter().map(|row| &row.failure))
        .chain(ERRORS.iter().map(|row| &row.failure))
        .chain(BY_STATUS.iter().map(|row| &row.failure))
        .collect();
    let problems = Kind::ALL.iter().map(|kind| Entry::of_problem(*kind));
    [
        (Table::Problems, problems.collect()),
        of(Table::Endings, ENDINGS),
        of(Table::Entra, &entra),
        of(Table::Tokens, TOKEN),
        of(Table::Platform, PLATFORM),
        of(Table::Vaults, VAULT),
        (Table::Trigger, fault::rows().map(Entry::of_fault).collect()),
        of(Table::Connections, CONNECTIONS),
    ]
}

fn entries() -> Vec<Entry> {
    tables().into_iter().flat_map(|(_, entries)| entries).collect()
}

/// Whether a row has this code, with or without `AADSTS` or a link to it.
fn matches(entry: &Entry, code: &str) -> bool {
    // The type of a problem is a name, or the address of a page.
    let plain = code.strip_prefix(NAMES).or(code
        .split_once("://")
        .and_then(|(_, page)| page.rsplit('/').next()));
    let plain = plain.unwrap_or(code);
    let number = entry.code.strip_prefix("AADSTS");
    entry.code.eq_ignore_ascii_case(plain) || number == Some(plain)
}

pub(super) fn explain(code: &str) -> Outcome {
    let entries = entries();
    let found: Vec<_> = entries.iter().filter(|entry| matches(entry, code)).collect();
    if !found.is_empty() {
        let texts: Vec<_> = found.iter().map(|entry| entry.text()).collect();
        return Outcome::out(texts.join("\n"));
    }
    let wanted = code.to_ascii_lowercase();
    let far = |known: &str| osa_distance(&wanted, &known.to_ascii_lowercase());
    let codes = entries.iter().map(|entry| entry.code);
    let mut near: Vec<_> = codes
        .map(|code| {
            (
                far(code).min(code.strip_prefix("AADSTS").map_or(usize::MAX, far)),
                code,
            )
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    let near: Vec<_> = near.iter().take(NEAREST_MAX).map(|(_, code)| *code).collect();
    let code = crate::model::claims::safe(code);
    Outcome::failed(
        format!(
            "flowgate: {code} is no known code; the nearest are {}\n",
            near.join(", ")
        ),
        WRONG,
    )
}

/// The whole of docs/failures.md.
pub fn failures_page() -> String {
    let mut text = String::from(
        "# Failures\n\nThis page is generated from the tables of the code (`UPDATE=1 cargo test --test generated`). \
         `flowgate explain CODE` prints one row.\n\nThe log, `flowgate doctor` and `/readyz?verbose` are made from the \
         same tables. Callers get `code` and a sentence of the first table ([callers.md](callers.md)), and \
         nothing of the others.\n",
    );
    for (table, entries) in tables() {
        let head = match table {
            Table::Problems => {
                "| code | fixed by | what happened, and what to do | run started | send again |"
            }
            Table::Trigger => {
                "| code | fixed by | what happened, and what to do | caller gets | run started | send again | where |"
            }
            _ => "| code | fixed by | what happened, and what to do | waiting | where |",
        };
        let rule: String = head
            .chars()
            .filter(|letter| *letter == '|')
            .skip(1)
            .map(|_| " --- |")
            .collect();
        text.push_str(&format!(
            "\n## {}\n\n{}\n\n{head}\n|{rule}\n",
            table.title(),
            table.about()
        ));
        text.extend(entries.iter().map(Entry::cells));
    }
    text
}

/// The table of problems for callers, in docs/callers.md.
pub fn problems_table() -> String {
    let mut text = String::from("| status | code | reason | send again? | what happened |\n");
    text.push_str("| --- | --- | --- | --- | --- |\n");
    for kind in Kind::ALL {
        let row = kind.row();
        text.push_str(&format!(
            "| {} | `{}` | {} | {} | {} |\n",
            row.status.as_u16(),
            row.code,
            row.reason.as_str(),
            again_word(row.again),
            row.title
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{entries, explain};

    #[test]
    fn every_row_of_every_table_is_explained() {
        for entry in entries() {
            for code in [
                entry.code.to_owned(),
                entry.code.to_uppercase(),
                entry.code.to_lowercase(),
            ] {
                let outcome = explain(&code);
                assert_eq!(outcome.code, 0, "{code}");
                for part in [
                    entry.code,
                    entry.wording,
                    &entry.happened,
                    &entry.what,
                    entry.fixed_by,
                ] {
                    assert!(outcome.out.contains(part), "{code}: {part}: {}", outcome.out);
                }
                assert!(!outcome.out.contains("{client"), "{}", outcome.out);
            }
        }
    }
}
