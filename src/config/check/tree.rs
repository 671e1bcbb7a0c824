//! From text to the mirror of the settings file, past every mistake: what cannot be read is reported, taken
//! out, and the rest is read again. Also the guess which word was meant.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;
use toml::de::Deserializer;

use crate::config::check::findings::Findings;
use crate::config::check::findings::ROOT;
use crate::config::file::File;
use crate::config::mistake::Flaw;
use crate::config::mistake::MISTAKES_MAX;

/// Reads the text. Nothing comes back when the text is broken in a way that leaves its meaning open.
pub(super) fn read(text: &str, findings: &mut Findings) -> Option<File> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut clear = true;
    for error in &errors {
        // Behind a key given twice the text goes on as usual; behind any other error it may mean anything.
        let twice = error.message() == "duplicate key";
        clear &= twice;
        let flaw = if twice {
            Flaw::new("this key is given twice in the same table")
        } else {
            Flaw::new(format!("this is not TOML: {}", error.message()))
        };
        let span = error.span().unwrap_or(0..0);
        // The reader takes a word without quotes for a number it cannot make sense of.
        let is_word = text
            .get(span.clone())
            .is_some_and(|part| part.starts_with(char::is_alphabetic));
        let flaw = if is_word && !twice {
            flaw.hint("text stands in quotes")
        } else {
            flaw
        };
        findings.mistake(span, flaw);
    }
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
        let (flaw, meant) = explain(error.message(), &cut);
        if let Some(meant) = meant {
            findings.report_key(cut.table.clone(), &meant);
        }
        findings.report_key(cut.table, &cut.key);
        findings.mistake(span, flaw);
    }
    None
}

/// Keys under which there are lists of tables.
const TABLE_LISTS: [&str; 6] = ["listener", "certificate", "identity", "caller", "key", "route"];

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

/// Says in our words what is wrong, and which key of the same table was probably meant. The reader's own
/// message quotes the value, which may be a secret.
fn explain(message: &str, cut: &Cut) -> (Flaw, Option<String>) {
    let expected = message
        .rsplit_once(", expected ")
        .map_or("", |(_, expected)| expected);
    // A date would be a table to the reader, with a key that nobody wrote.
    let is_date = cut.found == Found::Datetime && message.contains("toml_private");
    if message.starts_with("unknown field") && !is_date {
        let flaw = Flaw::new(format!("unknown key `{}`", cut.key));
        let known = quoted(expected);
        let Some(meant) = closest(&cut.key, known.iter().copied()) else {
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
    let key = &cut.key;
    let flaw = match (expected, cut.found) {
        ("a list of tables", _) => flaw.hint(format!("write [[{key}]], with double brackets")),
        ("a table", Found::Tables) => flaw.hint(format!("write [{key}], with single brackets")),
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

/// The known word that a wrong one was probably meant to be.
pub(super) fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong; with more, a guess is noise.
    let most = (word.chars().count() / 3).max(1);
    let near = known
        .map(|other| (distance(word, other), other))
        .filter(|(distance, _)| *distance <= most);
    near.min_by_key(|(distance, _)| *distance).map(|(_, other)| other)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other (optimal
/// string alignment).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    let mut last = None;
    for (row, letter) in from.chars().enumerate() {
        let mut current = vec![row + 1];
        let mut left_letter = None;
        for (column, other) in to.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let mut best = at(&above, column) + usize::from(letter != *other);
            best = best.min(at(&above, column + 1) + 1).min(at(&current, column) + 1);
            if last == Some(*other) && left_letter == Some(letter) && column > 0 {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
            left_letter = Some(*other);
        }
        before = std::mem::replace(&mut above, current);
        last = Some(letter);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::closest;
    use super::distance;

    #[test]
    fn distance_counts_slips_of_the_finger() {
        for (from, to, slips) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("adress", "address", 1),
            ("hots", "host", 1),
            ("kitten", "sitting", 3),
            ("ü", "u", 1),
        ] {
            assert_eq!(distance(from, to), slips, "{from} {to}");
        }
    }

    #[test]
    fn only_a_near_word_is_guessed() {
        let known = ["address", "http2", "health_path"];
        assert_eq!(closest("adress", known.into_iter()), Some("address"));
        assert_eq!(closest("health-path", known.into_iter()), Some("health_path"));
        assert_eq!(closest("colour", known.into_iter()), None);
    }
}
