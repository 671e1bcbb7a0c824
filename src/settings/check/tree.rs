//! From text to the mirror of the settings file, past every mistake: what cannot be read is reported, taken
//! out, and the rest is read again.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use crate::settings::check::brackets;
use crate::settings::check::findings::{Findings, ROOT};
use crate::settings::file::File;
use crate::settings::mask;
use crate::settings::mistake::{Flaw, MISTAKES_MAX};
use crate::settings::near::closest;

/// Reads the text. Nothing comes back when the text is broken in a way that leaves its meaning open.
pub(super) fn read(text: &str, findings: &mut Findings) -> Option<File> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let clear = report(text, &errors, findings);
    if !clear {
        return None;
    }
    let mut tree = tree.into_inner();
    for _ in 0..MISTAKES_MAX {
        let copy = Spanned::new(0..text.len(), tree.clone());
        let error = match File::deserialize(Deserializer::from(copy)) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let Some(cut) = take_out(&mut tree, ROOT, &span) else {
            findings.mistake(span, Flaw::new("this cannot be read"));
            return None;
        };
        let (flaw, meant) = explain(error.message(), &cut, header(text, &span));
        if let Some(meant) = meant {
            findings.report_key(cut.table.clone(), &meant);
        }
        findings.report_key(cut.table, &cut.key);
        findings.mistake(span, flaw);
    }
    None
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
            flaw.hint("text stands in quotes")
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

/// Where the line begins in which a place is.
fn line_start(text: &str, at: usize) -> usize {
    text.get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |at| at + 1)
}

/// Keys under which there are lists of tables.
const TABLE_LISTS: [&str; 6] = ["listener", "certificate", "identity", "caller", "key", "route"];

/// Keys whose value is a rate.
const RATES: [&str; 3] = ["rate", "gateway", "failed_authentications"];

/// The name in the header of a table, if that is what stands there.
fn header<'a>(text: &'a str, span: &Range<usize>) -> Option<&'a str> {
    let header = text.get(span.clone())?.trim();
    let name = header.strip_prefix('[')?.strip_suffix(']')?;
    let name = name.trim_start_matches('[').trim_end_matches(']').trim();
    name.split('.').all(mask::is_known_key).then_some(name)
}

/// A key that was taken out.
struct Cut {
    table: Range<usize>,
    key: String,
    /// What its value was.
    found: Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    String,
    Integer,
    Float,
    Boolean,
    Datetime,
    Array,
    Tables,
    Table,
}

impl Found {
    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(_) => Self::String,
            DeValue::Integer(_) => Self::Integer,
            DeValue::Float(_) => Self::Float,
            DeValue::Boolean(_) => Self::Boolean,
            DeValue::Datetime(_) => Self::Datetime,
            DeValue::Array(array) if array.first().is_some_and(|first| first.get_ref().is_table()) => {
                Self::Tables
            }
            DeValue::Array(_) => Self::Array,
            DeValue::Table(_) => Self::Table,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "a whole number",
            Self::Float => "a number with a fraction",
            Self::Boolean => "true or false",
            Self::Datetime => "a date",
            Self::Array => "a list",
            Self::Tables => "a list of tables",
            Self::Table => "a table",
        }
    }
}

/// Takes the innermost key out whose name or value lies exactly at `span`.
fn take_out(table: &mut DeTable<'_>, at: Range<usize>, span: &Range<usize>) -> Option<Cut> {
    let hit = table.iter().find_map(|(key, value)| {
        // An element that is no table has no key of its own: the whole list goes.
        let elements = value
            .get_ref()
            .as_array()
            .into_iter()
            .flat_map(|list| list.iter());
        let element = elements
            .into_iter()
            .find(|element| !element.get_ref().is_table() && element.span() == *span);
        let found = Found::of(element.unwrap_or(value).get_ref());
        let hit = element.is_some() || key.span() == *span || value.span() == *span;
        hit.then(|| (key.clone(), found))
    });
    if let Some((key, found)) = hit {
        table.remove(&key);
        return Some(Cut {
            table: at,
            key: key.into_inner().into_owned(),
            found,
        });
    }
    table
        .iter_mut()
        .find_map(|(_, value)| take_out_below(value, span))
}

fn take_out_below(value: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Cut> {
    let at = value.span();
    match value.get_mut() {
        DeValue::Table(table) => take_out(table, at, span),
        DeValue::Array(list) => {
            let mut tables = list.iter_mut().filter(|element| element.get_ref().is_table());
            tables.find_map(|element| take_out_below(element, span))
        }
        _ => None,
    }
}

/// Says in our words what is wrong, and which key of the same table was probably meant; `header` is the name in the
/// header of a table that is wrong as a whole. The reader's own
/// message quotes the value, which may be a secret.
fn explain(message: &str, cut: &Cut, header: Option<&str>) -> (Flaw, Option<String>) {
    let expected = message
        .rsplit_once(", expected ")
        .map_or("", |(_, expected)| expected);
    // A date would be a table to the reader, with a key that nobody wrote.
    let is_date = cut.found == Found::Datetime && message.contains("toml_private");
    if message.starts_with("unknown field") && !is_date {
        let known = quoted(expected);
        // A key that is like no other may be a secret in the wrong place.
        let meant = closest(&cut.key, known.iter().copied());
        let flaw = if meant.is_some() || mask::is_known_key(&cut.key) {
            Flaw::new(format!("unknown key `{}`", cut.key))
        } else {
            Flaw::new("unknown key")
        };
        let Some(meant) = meant else {
            return (flaw.hint(format!("known here are {}", known.join(", "))), None);
        };
        return (
            flaw.hint(format!("did you mean `{meant}`?")),
            Some(meant.to_owned()),
        );
    }
    if message.starts_with("unknown variant") {
        let known: Vec<_> = quoted(expected)
            .iter()
            .map(|word| format!("\"{word}\""))
            .collect();
        return (
            Flaw::new("unknown value").hint(format!("write {}", known.join(" or "))),
            None,
        );
    }
    let expected = match expected {
        "a boolean" => "true or false",
        "a sequence" if TABLE_LISTS.contains(&cut.key.as_str()) => "a list of tables",
        "a sequence" => "a list",
        "u64" => "a whole number, 0 or more",
        _ if is_date => "a table",
        "" => "a string",
        other => other,
    };
    let flaw = Flaw::new(format!("expected {expected}, found {}", cut.found.text()));
    let key = header.unwrap_or(&cut.key);
    let flaw = match (expected, cut.found) {
        ("a list of tables", _) => flaw.hint(format!("write [[{key}]], with double brackets")),
        ("a table", Found::Tables) => flaw.hint(format!("write [{key}], with single brackets")),
        ("a table", Found::Integer | Found::String | Found::Float)
            if cut.table != ROOT && RATES.contains(&key) =>
        {
            flaw.hint(format!("write {key} = {{ requests = 10, per = \"1s\" }}"))
        }
        ("a list", Found::String) => flaw.hint("put it in brackets, [\"...\"]"),
        ("true or false", Found::String) => flaw.hint("write it without quotes"),
        ("a whole number, 0 or more", Found::String) => flaw.hint("write it without quotes"),
        (text, Found::Integer) if text.starts_with("a duration") => {
            flaw.hint("a duration has a unit and stands in quotes, for example \"10s\"")
        }
        ("a string", _) => flaw.hint("put it in quotes"),
        _ => flaw,
    };
    (flaw, None)
}

/// The words between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}
