//! Changes to the keys of a caller, in a settings file or in a list of keys: each puts a text in one place, so every other byte
//! stays, comments too. What is wrong with the rest of the file is found when the changed text is checked.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::files;
use crate::model::{Flaw, KeyLabel};
use crate::settings::edit::quoted;
use crate::settings::{KeyDigest, lists, mask};

/// A key to add.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub label: KeyLabel,
    pub digest: KeyDigest,
    pub expires: Option<SystemTime>,
}

/// What is set on a key that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChange {
    Disable,
    /// It expires then, or when it did if that is earlier.
    Expire(SystemTime),
}

impl KeyChange {
    fn name(self) -> &'static str {
        match self {
            Self::Disable => "enabled",
            Self::Expire(_) => "expires",
        }
    }

    /// Its value, as TOML and lists write it alike.
    fn value(self) -> String {
        match self {
            Self::Disable => "false".to_owned(),
            Self::Expire(time) => written(time),
        }
    }
}

/// The keys of a caller in the text of a settings file.
#[derive(Debug)]
pub struct CallerKeys<'t> {
    text: &'t str,
    keys: Vec<KeySpan>,
    /// The list of keys, as the settings name it.
    pub keys_file: Option<String>,
    /// Whether it has networks that identify it while it has no keys.
    pub has_networks: bool,
    form: Form,
    /// Where the last value of the caller ends.
    end: usize,
}

/// How its keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As `[[caller.key]]`.
    Headers,
    /// As `key = []`, which begins here.
    EmptyList(usize),
    /// The caller is an inline table without keys.
    Inline,
}

#[derive(Debug)]
struct KeySpan {
    label: String,
    table: Range<usize>,
    is_inline: bool,
    /// Where its first and its last value ends.
    first_end: usize,
    last_end: usize,
    enabled: Option<Range<usize>>,
    expires: Option<(Range<usize>, Option<SystemTime>)>,
}

impl<'t> CallerKeys<'t> {
    /// The keys of this caller, nothing if there is no such caller.
    ///
    /// # Errors
    /// When the text is not TOML.
    pub fn find(text: &'t str, caller: &str) -> Result<Option<Self>, String> {
        let document =
            DeTable::parse(text).map_err(|error| format!("this is not TOML: {}", error.message()))?;
        let tables = tables(document.get_ref(), "caller");
        let mut named = tables
            .into_iter()
            .filter(|(table, _)| string(table, "name") == Some(caller));
        let Some((table, span)) = named.next() else {
            return Ok(None);
        };
        let is_inline =
            |span: &Range<usize>| text.get(span.clone()).is_some_and(|table| table.starts_with('{'));
        let keys = tables_of(table.get("key"));
        let keys = keys
            .into_iter()
            .filter_map(|(key, span)| KeySpan::of(key, is_inline(&span), span));
        let form = match table.get("key") {
            Some(list)
                if text
                    .get(list.span())
                    .is_some_and(|list| list.starts_with('[') && !list.starts_with("[[")) =>
            {
                Form::EmptyList(list.span().start)
            }
            None if is_inline(&span) => Form::Inline,
            _ => Form::Headers,
        };
        Ok(Some(Self {
            text,
            keys: keys.collect(),
            keys_file: string(table, "keys_file").map(str::to_owned),
            has_networks: ["networks", "networks_file"]
                .iter()
                .any(|key| table.contains_key(*key)),
            form,
            end: end_of(table).unwrap_or(span.end),
        }))
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn has(&self, label: &str) -> bool {
        self.keys.iter().any(|key| key.label == label)
    }

    /// The text with this change to a key, nothing if there is no such key.
    pub fn with_change(&self, label: &str, change: KeyChange) -> Option<String> {
        let key = self.keys.iter().find(|key| key.label == label)?;
        let (place, change) = match change {
            KeyChange::Disable => (key.enabled.clone(), change),
            KeyChange::Expire(time) => match &key.expires {
                Some((place, earlier)) => (Some(place.clone()), KeyChange::Expire(earliest(time, *earlier))),
                None => (None, change),
            },
        };
        if let Some(place) = place {
            return replaced(self.text, place, &change.value());
        }
        let setting = format!("{} = {}", change.name(), change.value());
        match key.is_inline {
            true => replaced(self.text, key.last_end..key.last_end, &format!(", {setting}")),
            false => {
                let indent = indent(self.text, key.first_end);
                with_lines(self.text, key.last_end, &[format!("{indent}{setting}")])
            }
        }
    }

    /// The text with this key behind the others of the caller.
    pub fn with_key(&self, key: &NewKey) -> Option<String> {
        let settings = settings_of(key);
        let inline = format!("{{ {} }}", settings.join(", "));
        let Some(last) = self.keys.last() else {
            return match self.form {
                Form::EmptyList(at) => replaced(self.text, at + 1..at + 1, &inline),
                Form::Inline => replaced(self.text, self.end..self.end, &format!(", key = [{inline}]")),
                Form::Headers => with_lines(self.text, self.end, &block("", "", settings)),
            };
        };
        if last.is_inline {
            return replaced(self.text, last.table.end..last.table.end, &format!(", {inline}"));
        }
        let (outer, inner) = (
            indent(self.text, last.table.start),
            indent(self.text, last.first_end),
        );
        with_lines(self.text, last.last_end, &block(outer, inner, settings))
    }
}

impl KeySpan {
    fn of(key: &DeTable<'_>, is_inline: bool, table: Range<usize>) -> Option<Self> {
        let ends = || key.iter().map(|(_, value)| value.span().end);
        let expires = key.get("expires").map(|value| {
            let text = match value.get_ref() {
                DeValue::Datetime(date) => date.to_string(),
                other => other.as_str().unwrap_or_default().to_owned(),
            };
            (value.span(), lists::moment(&text).ok())
        });
        Some(Self {
            label: string(key, "label")?.to_owned(),
            is_inline,
            table,
            first_end: ends().min()?,
            last_end: ends().max()?,
            enabled: key.get("enabled").map(Spanned::span),
            expires,
        })
    }
}

/// The reference of the pepper in the text of a settings file.
pub fn pepper_reference(text: &str) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let keys = document.get_ref().get("keys")?.get_ref().as_table()?;
    string(keys, "pepper").map(str::to_owned)
}

fn tables<'d>(document: &'d DeTable<'_>, key: &str) -> Vec<(&'d DeTable<'d>, Range<usize>)> {
    tables_of(document.get(key))
}

fn tables_of<'d>(value: Option<&'d Spanned<DeValue<'_>>>) -> Vec<(&'d DeTable<'d>, Range<usize>)> {
    let list = value.and_then(|value| value.get_ref().as_array());
    let entries = list.into_iter().flat_map(|list| list.iter());
    entries
        .filter_map(|entry| Some((entry.get_ref().as_table()?, entry.span())))
        .collect()
}

fn string<'d>(table: &'d DeTable<'_>, key: &str) -> Option<&'d str> {
    table.get(key)?.get_ref().as_str()
}

/// Where the last value of a table ends, wherever its parts are written.
fn end_of(table: &DeTable<'_>) -> Option<usize> {
    let ends = table.iter().filter_map(|(_, value)| match value.get_ref() {
        DeValue::Table(inner) => end_of(inner).max(Some(value.span().end)),
        _ => Some(value.span().end),
    });
    ends.max()
}

/// The lines of a key in settings.
pub fn settings_of(key: &NewKey) -> Vec<String> {
    let mut settings = vec![
        format!("label = {}", quoted(key.label.as_str())),
        format!("digest = {}", quoted(&key.digest.to_setting())),
    ];
    settings.extend(
        key.expires
            .map(|expires| format!("expires = {}", written(expires))),
    );
    settings
}

fn block(outer: &str, inner: &str, settings: Vec<String>) -> Vec<String> {
    let mut lines = vec![String::new(), format!("{outer}[[caller.key]]")];
    lines.extend(settings.into_iter().map(|setting| format!("{inner}{setting}")));
    lines
}

/// Reads a list of keys.
///
/// # Errors
/// Why it cannot be read.
pub fn read_list(path: &Path) -> Result<String, String> {
    // A pipe would be waited for without end.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(format!("{} is no regular file", path.display()));
    }
    files::read_text(path, lists::LIST_BYTES_MAX).map_err(Flaw::sentence)
}

/// The text of a list with this change to a key, nothing if there is no such key.
pub fn list_with_change(text: &str, label: &str, change: KeyChange) -> Option<String> {
    let mut entries = lists::keys(text).filter_map(Result::ok);
    let ((key, _), span) = entries.find(|((key, _), _)| key.label.as_str() == label)?;
    let change = match change {
        KeyChange::Disable => change,
        KeyChange::Expire(time) => KeyChange::Expire(earliest(time, key.expires)),
    };
    let option = format!("{}={}", change.name(), change.value());
    let rest = text.get(span.start..)?;
    let line = rest.split(['\n', '#']).next()?;
    let words = mask::words(line);
    let is_same = |word: &str| {
        word.split_once('=')
            .is_some_and(|(name, _)| name == change.name())
    };
    match words.iter().find(|(_, word)| is_same(word)) {
        Some((at, word)) => replaced(text, span.start + at..span.start + at + word.len(), &option),
        None => {
            let (at, word) = words.last()?;
            let end = span.start + at + word.len();
            replaced(text, end..end, &format!(" {option}"))
        }
    }
}

/// The text of a list with this key at its end.
pub fn list_with_key(text: &str, key: &NewKey) -> String {
    let ending = ending(text);
    let between = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        ending
    };
    let expires = key
        .expires
        .map_or_else(String::new, |time| format!(" expires={}", written(time)));
    format!(
        "{text}{between}{} {}{expires}{ending}",
        key.label,
        key.digest.to_setting()
    )
}

pub fn list_has(text: &str, label: &str) -> bool {
    let mut keys = lists::keys(text).filter_map(Result::ok);
    keys.any(|((key, _), _)| key.label.as_str() == label)
}

fn earliest(time: SystemTime, other: Option<SystemTime>) -> SystemTime {
    other.map_or(time, |other| time.min(other))
}

fn replaced(text: &str, place: Range<usize>, by: &str) -> Option<String> {
    let (before, after) = (text.get(..place.start)?, text.get(place.end..)?);
    Some(format!("{before}{by}{after}"))
}

/// The text with these lines behind the line of this place.
fn with_lines(text: &str, at: usize, lines: &[String]) -> Option<String> {
    let (ending, rest) = (ending(text), text.get(at..)?);
    let lines = lines.join(ending);
    match rest.find('\n') {
        Some(end) => replaced(text, at + end + 1..at + end + 1, &format!("{lines}{ending}")),
        None => replaced(text, text.len()..text.len(), &format!("{ending}{lines}{ending}")),
    }
}

/// How lines end in this text.
fn ending(text: &str) -> &'static str {
    match text.split_once('\n') {
        Some((first, _)) if first.ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// The blanks before the line of this place.
fn indent(text: &str, at: usize) -> &str {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let blanks = line.len() - line.trim_start_matches([' ', '\t']).len();
    line.get(..blanks).unwrap_or_default()
}

/// A moment as settings write it: a date where it is one.
fn written(time: SystemTime) -> String {
    let Ok(time) = Timestamp::try_from(time) else {
        return String::new();
    };
    let text = time.to_string();
    text.strip_suffix("T00:00:00Z")
        .map_or_else(|| text.clone(), str::to_owned)
}

/// Reads when a key expires: a date, a moment, or how long it lasts, such as `90d`.
///
/// # Errors
/// Why it cannot be used.
pub fn expiry(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let time = match lifetime(text) {
        Some(lifetime) => now
            .checked_add(lifetime)
            .ok_or_else(|| "this is too long".to_owned())?,
        None => lists::moment(text).map_err(|_| {
            "write how long it lasts, such as 90d, 12h or 30m, a date such as 2027-01-31, or a moment such as \
             2027-01-31T12:00:00Z"
                .to_owned()
        })?,
    };
    let time = whole_seconds(time).ok_or("this is no date of this calendar")?;
    if time < now {
        return Err("this is in the past".to_owned());
    }
    Ok(time)
}

/// A number and its unit.
pub fn lifetime(text: &str) -> Option<Duration> {
    const UNITS: [(char, u64); 5] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 7 * 86_400)];
    let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
    let number = text.strip_suffix(unit)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(seconds)
        .map(Duration::from_secs)
}

/// The next whole second, as settings write moments.
pub fn whole_seconds(time: SystemTime) -> Option<SystemTime> {
    let time = Timestamp::try_from(time).ok()?;
    let second = time.as_second() + i64::from(time.subsec_nanosecond() > 0);
    Timestamp::from_second(second).ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::{
        CallerKeys, KeyChange, NewKey, expiry, list_has, list_with_change, list_with_key, pepper_reference,
    };
    use crate::model::KeyLabel;
    use crate::settings::{KeyDigest, lists};

    const DAY: u64 = 86_400;

    fn day(number: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(number * DAY)
    }

    fn new_key(label: &str, expires: Option<SystemTime>) -> NewKey {
        NewKey {
            label: KeyLabel::parse(label).unwrap(),
            digest: KeyDigest::Sha256([0xab; 32]),
            expires,
        }
    }

    fn read(text: &str) -> toml::Table {
        toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// What may have been put into a text, nothing if something was taken out of it: the same bytes may end before and begin
    /// behind the place.
    fn put_in<'t>(before: &str, after: &'t str) -> Vec<&'t str> {
        let pairs = before.bytes().zip(after.bytes());
        let same = pairs.take_while(|(one, other)| one == other).count();
        let Some(more) = after.len().checked_sub(before.len()) else {
            return Vec::new();
        };
        let rest = |at: usize| before.as_bytes()[at..] == after.as_bytes()[at + more..];
        let places = (0..=same).filter(|at| rest(*at));
        places.filter_map(|at| after.get(at..at + more)).collect()
    }

    fn caller<'t>(text: &'t str, name: &str) -> CallerKeys<'t> {
        CallerKeys::find(text, name).unwrap().unwrap()
    }

    const TABLES: &str = "# Callers.\n[[caller]] # one\nname = \"a\"\nrate = { requests = 1, per = \"1s\", burst = 1 }\n\n\
        \x20 [[caller.key]] # first\n\x20   digest = \"d1\" # of a\n\x20   label = \"k1\"\n\n\
        # Between.\n  [[caller.key]]\n    label = \"k2\"\n    digest = '''\nd2'''\n    expires = 2030-01-01\n    enabled = true # on\n\n\
        [[caller]]\nname = \"b\"\nkeys_file = \"b.txt\"\n[caller.rate]\nrequests = 1\n\n[[caller]]\nname = \"c\"\nkey = [ # all\n\
        { label = \"k3\", digest = \"d3\" }, { label = \"k4\", digest = \"d4\", enabled = true },\n]\n[[route]]\nname = \"r\"\n";

    #[test]
    fn a_key_is_disabled_where_it_is_written() {
        for (name, label, put) in [
            ("a", "k1", "    enabled = false\n"),
            ("c", "k3", ", enabled = false"),
        ] {
            let after = caller(TABLES, name)
                .with_change(label, KeyChange::Disable)
                .unwrap();
            assert!(put_in(TABLES, &after).contains(&put), "{after}");
            assert!(CallerKeys::find(&after, name).unwrap().unwrap().has(label));
        }
        for (name, label) in [("a", "k2"), ("c", "k4")] {
            let after = caller(TABLES, name)
                .with_change(label, KeyChange::Disable)
                .unwrap();
            assert_eq!(after.len(), TABLES.len() + 1);
            assert!(after.contains("enabled = false"), "{after}");
        }
        let off = read(&caller(TABLES, "a").with_change("k1", KeyChange::Disable).unwrap());
        assert_eq!(off["caller"][0]["key"][0]["enabled"].as_bool(), Some(false));
        assert_eq!(off["caller"][0]["key"][1]["enabled"].as_bool(), Some(true));
        assert!(
            caller(TABLES, "a")
                .with_change("k3", KeyChange::Disable)
                .is_none()
        );
        assert!(CallerKeys::find(TABLES, "d").unwrap().is_none());
        assert!(CallerKeys::find("a = [", "d").is_err());
    }

    #[test]
    fn a_key_never_expires_later_than_it_did() {
        let change = |label: &str, number: u64| {
            let after = caller(TABLES, "a")
                .with_change(label, KeyChange::Expire(day(number)))
                .unwrap();
            read(&after)["caller"][0]["key"]
                .as_array()
                .unwrap()
                .iter()
                .find(|key| key["label"].as_str() == Some(label))
                .unwrap()["expires"]
                .to_string()
        };
        // The first day of 2030 is the 21,915th.
        assert_eq!(change("k2", 21_914), "2029-12-31");
        assert_eq!(change("k2", 21_916), "2030-01-01");
        assert_eq!(change("k1", 21_916), "2030-01-02");
    }

    #[test]
    fn a_new_key_is_behind_the_others_of_its_caller() {
        let key = new_key("next", Some(day(21_916)));
        let digest = "ab".repeat(32);
        let after = caller(TABLES, "a").with_key(&key).unwrap();
        let put = format!(
            "\n  [[caller.key]]\n    label = \"next\"\n    digest = \"sha256:{digest}\"\n    expires = 2030-01-02\n"
        );
        assert!(put_in(TABLES, &after).contains(&put.as_str()), "{after}");
        assert_eq!(
            read(&after)["caller"][0]["key"][2]["label"].as_str(),
            Some("next")
        );
        let after = caller(TABLES, "c").with_key(&new_key("next", None)).unwrap();
        assert_eq!(
            read(&after)["caller"][2]["key"][2]["label"].as_str(),
            Some("next")
        );
        assert!(!put_in(TABLES, &after).is_empty());
        // Callers without keys.
        let after = caller(TABLES, "b").with_key(&key).unwrap();
        assert_eq!(
            read(&after)["caller"][1]["key"][0]["label"].as_str(),
            Some("next")
        );
        for text in [
            "caller = [{ name = \"a\" }]",
            "[[caller]]\nname = \"a\"\nkey = [ # none\n]",
            "[[caller]]\nname = \"a\"",
        ] {
            let after = caller(text, "a").with_key(&key).unwrap();
            assert!(!put_in(text, &after).is_empty(), "{after}");
            assert_eq!(
                read(&after)["caller"][0]["key"][0]["label"].as_str(),
                Some("next"),
                "{after}"
            );
        }
    }

    #[test]
    fn lines_end_as_they_do_in_the_file() {
        let text = TABLES.replace("'''\nd2'''", "\"d2\"").replace('\n', "\r\n");
        let after = caller(&text, "a").with_key(&new_key("next", None)).unwrap();
        assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
        let list = "one sha256:00\r\n";
        assert!(list_with_key(list, &new_key("next", None)).ends_with("\r\n"));
    }

    #[test]
    fn a_key_of_a_list_is_changed_in_its_line() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let text = format!(
            "\u{feff}# all\none {digest} # first\ntwo\t{digest}  enabled=true expires=2030-01-01\r\n"
        );
        let off = |label: &str| list_with_change(&text, label, KeyChange::Disable);
        assert!(put_in(&text, &off("one").unwrap()).contains(&" enabled=false"));
        assert!(off("one").unwrap().contains("enabled=false # first"));
        assert_eq!(off("two").unwrap(), text.replace("=true", "=false"));
        assert!(off("first").is_none() && list_has(&text, "two") && !list_has(&text, "first"));
        let ends = |number| list_with_change(&text, "two", KeyChange::Expire(day(number))).unwrap();
        assert_eq!(ends(21_914), text.replace("2030-01-01", "2029-12-31"));
        assert_eq!(ends(21_916), text);
    }

    #[test]
    fn an_expiry_is_a_date_or_a_time_from_now() {
        let now = day(20_000) + Duration::from_millis(1);
        let second = Duration::from_secs(1);
        assert_eq!(expiry("7d", now), Ok(day(20_007) + second));
        assert_eq!(expiry("2w", now), Ok(day(20_014) + second));
        assert_eq!(expiry("2030-01-01", now), Ok(day(21_915)));
        assert_eq!(expiry("2030-01-01 00:00:00Z", now), Ok(day(21_915)));
        for bad in [
            "",
            "d",
            "7",
            "-7d",
            "7 d",
            "soon",
            "2024-01-01",
            "99999999999999999999d",
            "9999999999999d",
        ] {
            assert!(expiry(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_pepper_is_found_by_its_reference() {
        assert_eq!(
            pepper_reference("[keys]\npepper = \"env:P\"\n").as_deref(),
            Some("env:P")
        );
        assert_eq!(pepper_reference("[keys]\n"), None);
    }

    proptest! {
        #[test]
        fn an_edit_keeps_every_other_byte(
            keys in prop::collection::vec(("[a-z]{1,8}", "[ \t]{0,3}", "( #[^\n\r]{0,12})?", any::<bool>()), 1..6),
            before in "(# [^\r\n\u{0}-\u{1f}\u{7f}]{0,20}\n){0,2}", at in any::<prop::sample::Index>(),
            is_dos in any::<bool>(), is_cut in any::<bool>(),
        ) {
            let is_comment = |comment: &str| !comment.chars().any(char::is_control);
            prop_assume!(keys.iter().all(|(_, _, comment, _)| is_comment(comment)));
            let mut text = format!("{before}[[caller]]\nname = \"a\"\n");
            for (number, (label, indent, comment, is_on)) in keys.iter().enumerate() {
                text += &format!("{indent}[[caller.key]]{comment}\n{indent}label = \"{label}{number}\"{comment}\n");
                text += &format!("{indent}digest = \"x\"{comment}\n");
                if *is_on {
                    text += &format!("{indent}expires = 2030-01-01{comment}\n");
                }
            }
            text += "\n[[route]]\nname = \"r\"";
            let text = if is_dos { text.replace('\n', "\r\n") } else { text };
            let text = if is_cut { text } else { text + "\n" };
            let found = caller(&text, "a");
            let label = &found.keys[at.index(found.keys.len())].label;

            let added = found.with_key(&new_key("A", None)).unwrap();
            prop_assert!(!put_in(&text, &added).is_empty(), "{added}");
            let mut read_again = read(&added);
            let last = read_again["caller"][0]["key"].as_array_mut().unwrap().pop().unwrap();
            prop_assert_eq!(last["label"].as_str(), Some("A"));
            prop_assert_eq!(read_again, read(&text));

            let changed = found.with_change(label, KeyChange::Disable).unwrap();
            prop_assert!(!put_in(&text, &changed).is_empty(), "{changed}");
            let mut read_again = read(&changed);
            let keys = read_again["caller"][0]["key"].as_array_mut().unwrap();
            let key = keys.iter_mut().find(|key| key["label"].as_str() == Some(label)).unwrap();
            prop_assert_eq!(key.as_table_mut().unwrap().remove("enabled"), Some(false.into()));
            prop_assert_eq!(read_again, read(&text));
        }

        #[test]
        fn any_list_keeps_every_other_byte(text in "([a-z]{1,3}( sha256:[0-9a-f]{64})?( enabled=true)?( ?#[^\n]{0,9})?\r?\n?){0,5}") {
            for ((key, _), _) in lists::keys(&text).filter_map(Result::ok) {
                let label = key.label.as_str();
                let changed = list_with_change(&text, label, KeyChange::Expire(day(21_915))).unwrap();
                prop_assert!(put_in(&text, &changed).contains(&" expires=2030-01-01"));
            }
            let added = list_with_key(&text, &new_key("A", None));
            prop_assert!(added.starts_with(&text) && list_has(&added, "A"));
        }

        #[test]
        fn any_text_is_edited_or_refused(text in any::<String>()) {
            let _ = CallerKeys::find(&text, "a").map(|found| found.map(|found| found.with_key(&new_key("A", None))));
            let _ = list_with_change(&text, "a", KeyChange::Disable);
            let _ = expiry(&text, day(20_000));
            let _ = pepper_reference(&text);
        }
    }
}
