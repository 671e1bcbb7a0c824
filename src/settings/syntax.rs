//! Parses text into the tables of the settings file, and reports invalid TOML in plain words.

use toml::de::DeTable;

use crate::model::Flaw;
use crate::settings::findings::{Findings, ROOT};
use crate::settings::schema::File;
use crate::settings::table::Table;
use crate::settings::{brackets, mask};

/// Reads the text. Nothing comes back when the text is broken in a way that leaves its meaning open.
pub(super) fn read(text: &str, findings: &mut Findings) -> Option<Table<File>> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let is_clear = report(text, &errors, findings);
    is_clear.then(|| Table::of(tree.get_ref(), ROOT, findings))
}

/// Reports what is not TOML, and whether the text still means what it says.
fn report(text: &str, errors: &[toml::de::Error], findings: &mut Findings) -> bool {
    let start = |error: &toml::de::Error| error.span().unwrap_or(0..0).start;
    let is_twice = |error: &toml::de::Error| error.message() == mask::TWICE;
    // Behind a key given twice the text goes on as usual; behind any other error it may mean anything.
    let clear = errors.iter().all(is_twice);
    let bracket = if clear { None } else { brackets::unclosed(text) };
    let line_end = bracket.map(|at| {
        at + text
            .get(at..)
            .and_then(|rest| rest.find('\n'))
            .unwrap_or(text.len() - at)
    });
    let mut seen = None;
    for error in errors {
        // Behind a bracket that is not closed the reader takes everything for a part of it.
        if line_end.is_some_and(|end| start(error) >= end) {
            continue;
        }
        let line = line_start(text, start(error));
        if !is_twice(error) && seen == Some(line) {
            continue;
        }
        let span = error.span().unwrap_or(0..0);
        let flaw = if is_twice(error) {
            Flaw::new("this key is given twice in the same table")
        } else {
            seen = Some(line);
            Flaw::new(format!("this is not TOML: {}", error.message()))
        };
        // The reader takes a word without quotes for a number it cannot make sense of.
        let is_word = text
            .get(span.clone())
            .is_some_and(|part| part.starts_with(char::is_alphabetic));
        let flaw = if is_word && !is_twice(error) {
            flaw.hint("text is written in quotes")
        } else {
            flaw
        };
        findings.mistake(span, flaw);
    }
    if let Some(at) = bracket.filter(|at| seen != Some(line_start(text, *at))) {
        let (found, closing) = if text.get(at..).is_some_and(|rest| rest.starts_with('[')) {
            ("[", "]")
        } else {
            ("{", "}")
        };
        let flaw = Flaw::new(format!("this is not TOML: the bracket `{found}` is not closed"));
        findings.mistake(at..at + 1, flaw.hint(format!("add the missing `{closing}`")));
    }
    clear
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |at| at + 1)
}
