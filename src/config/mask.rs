//! Hides what must not be printed in a line of settings: values at secret keys, signatures, passwords in
//! addresses, comments. It works on the text and not on what the text means, because files with syntax errors
//! are printed too. Every byte keeps its place, so that carets still point to the right column.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::OnceLock;

use serde_json::Value;

use crate::config::file;
use crate::config::vault;

/// Keys whose value is a secret, or a digest that a secret is easily mistaken for.
const SECRET_KEYS: [&str; 9] = [
    "pepper",
    "client_secret",
    "key",
    "file",
    "digest",
    "secret",
    "value",
    "password",
    "seal",
];

/// What may be shown of a value at a secret key: it says where the secret lies, or of which kind it is.
const SHOWN_PREFIXES: [&str; 5] = ["env:", "file:", vault::PREFIX, "sha256:", "hmac-sha256:"];

/// The text with everything hidden that must not be printed, byte for byte of the same length.
pub(super) fn settings(text: &str) -> String {
    let mut scanner = Scanner {
        text,
        hidden: Vec::new(),
        key: String::new(),
        word: 0..0,
    };
    scanner.scan();
    overwrite(text, &scanner.hidden)
}

/// A line of a key list. Its label is shown only where a digest follows: a lone word may be a key.
pub(super) fn key_line(line: &str) -> String {
    let words = words(line);
    let digest = |text: &str| text.starts_with("sha256:") || text.starts_with("hmac-sha256:");
    let labelled = words.get(1).is_some_and(|(_, word)| digest(word));
    let mut hidden = Vec::new();
    for (index, (start, word)) in words.iter().enumerate() {
        let option = ["not_before=", "expires=", "enabled="]
            .iter()
            .any(|name| word.starts_with(name));
        if (index == 0 && labelled) || (index > 1 && option && labelled) {
            continue;
        }
        let shown = if digest(word) {
            word.find(':').map_or(0, |colon| colon + 1)
        } else {
            0
        };
        hidden.push(Hidden {
            range: start + shown..start + word.len(),
            with: b'*',
        });
    }
    overwrite(line, &hidden)
}

/// A line of a network list. A word that cannot be part of an address may be anything, a secret included.
pub(super) fn network_line(line: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':' | b'/');
    let odd = words(line)
        .into_iter()
        .filter(|(_, word)| !word.bytes().all(plain));
    let hidden: Vec<_> = odd
        .map(|(start, word)| Hidden {
            range: start..start + word.len(),
            with: b'*',
        })
        .collect();
    overwrite(line, &hidden)
}

/// The words of a line with the byte each begins at.
pub(super) fn words(line: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut from = 0;
    for piece in line.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        if !word.is_empty() {
            words.push((from, word));
        }
        from += piece.len();
    }
    words
}

/// Whether this text has the form of a client secret made by Entra.
pub(super) fn looks_like_entra_secret(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'~' | b'.' | b'_' | b'-');
    (30..=64).contains(&text.len()) && text.contains('~') && text.bytes().all(plain)
}

/// Whether this text can be the name of an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.len() <= 128 && name.bytes().all(plain)
}

/// Whether this is a GUID in its usual form, hyphens included.
pub(super) fn is_guid(text: &str) -> bool {
    let mut groups = text.split('-');
    let hex = |group: Option<&str>, length: usize| {
        group.is_some_and(|group| group.len() == length && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    [8, 4, 4, 4, 12]
        .into_iter()
        .all(|length| hex(groups.next(), length))
        && groups.next().is_none()
}

struct Hidden {
    range: Range<usize>,
    with: u8,
}

fn overwrite(text: &str, hidden: &[Hidden]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for Hidden { range, with } in hidden {
        for byte in bytes.get_mut(range.clone()).unwrap_or_default() {
            if !matches!(*byte, b'\n' | b'\r') {
                *byte = *with;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One pass over TOML, right or wrong. A word before `=` is a key and holds until the next one.
struct Scanner<'a> {
    text: &'a str,
    hidden: Vec<Hidden>,
    key: String,
    /// The last word, quotes included.
    word: Range<usize>,
}

impl Scanner<'_> {
    fn rest(&self, at: usize) -> &str {
        self.text.get(at..).unwrap_or("")
    }

    fn scan(&mut self) {
        let mut at = 0;
        while let Some(first) = self.rest(at).chars().next() {
            at = match first {
                '#' => self.comment(at),
                '"' | '\'' => self.string(at, first),
                '=' => self.equals(at),
                ',' | '[' | ']' | '{' | '}' => at + 1,
                blank if blank.is_whitespace() => at + blank.len_utf8(),
                _ => self.bare(at),
            };
        }
    }

    fn line_end(&self, at: usize) -> usize {
        self.rest(at)
            .find('\n')
            .map_or(self.text.len(), |length| at + length)
    }

    fn comment(&mut self, at: usize) -> usize {
        let end = self.line_end(at);
        self.hidden.push(Hidden {
            range: at..end,
            with: b' ',
        });
        end
    }

    fn string(&mut self, at: usize, quote: char) -> usize {
        let triple = if quote == '"' { "\"\"\"" } else { "'''" };
        let (open, body_end, end) = if self.rest(at).starts_with(triple) {
            let body = self.closing_triple(at + 3, quote);
            (3, body, (body + 3).min(self.text.len()))
        } else {
            let body = self.closing(at + 1, quote);
            let closed = self.rest(body).starts_with(quote);
            (1, body, if closed { body + 1 } else { body })
        };
        self.word = at..end;
        if !self.is_key(end) {
            self.value(at + open..body_end);
        }
        end
    }

    /// Where a string of one line ends: at its quote, or with the line when the quote was forgotten.
    fn closing(&self, from: usize, quote: char) -> usize {
        let mut escaped = false;
        for (offset, found) in self.rest(from).char_indices() {
            if found == '\n' || (found == quote && !escaped) {
                return from + offset;
            }
            escaped = found == '\\' && quote == '"' && !escaped;
        }
        self.text.len()
    }

    /// Where a string of several lines ends: at three quotes, of which up to two more before them are still its own.
    fn closing_triple(&self, from: usize, quote: char) -> usize {
        let mut escaped = false;
        let mut quotes = 0;
        for (offset, found) in self.rest(from).char_indices() {
            if found == quote && !escaped {
                quotes += 1;
                if quotes == 5 {
                    return from + offset - 2;
                }
                continue;
            }
            if quotes >= 3 {
                return from + offset - 3;
            }
            quotes = 0;
            escaped = found == '\\' && quote == '"' && !escaped;
        }
        self.text.len() - if quotes >= 3 { 3 } else { 0 }
    }

    fn is_key(&self, end: usize) -> bool {
        let rest = self.rest(end).trim_start_matches([' ', '\t']);
        rest.starts_with('=') || rest.starts_with('.')
    }

    fn bare(&mut self, at: usize) -> usize {
        let stop = |found: char| {
            found.is_whitespace() || matches!(found, '"' | '\'' | ',' | '[' | ']' | '{' | '}' | '=' | '#')
        };
        let end = self
            .rest(at)
            .find(stop)
            .map_or(self.text.len(), |length| at + length);
        self.word = at..end;
        end
    }

    fn equals(&mut self, at: usize) -> usize {
        let word = self.text.get(self.word.clone()).unwrap_or("");
        let name = word.rsplit('.').next().unwrap_or(word);
        self.key = name.trim_matches(['"', '\'']).to_ascii_lowercase();
        let rest = self.rest(at + 1);
        let value = at + 1 + (rest.len() - rest.trim_start_matches([' ', '\t']).len());
        if self.rest(value).starts_with(['"', '\'', '[', '{', '\n', '\r']) || self.rest(value).is_empty() {
            return value;
        }
        let is_shown = match sort_of(&self.key) {
            Sort::Secret => false,
            Sort::Unknown => is_plain_scalar(self.rest(value).lines().next().unwrap_or("")),
            Sort::Plain => true,
        };
        if is_shown {
            return value;
        }
        // A secret without quotes may hold any character, so nothing up to the end of the line is safe to
        // show.
        let end = self.line_end(value);
        self.hidden.push(Hidden {
            range: value..end,
            with: b'*',
        });
        end
    }

    fn value(&mut self, range: Range<usize>) {
        let text = self.text.get(range.clone()).unwrap_or("");
        if let Some(from) = first_hidden(&self.key, text) {
            self.hidden.push(Hidden {
                range: range.start + from..range.end,
                with: b'*',
            });
            return;
        }
        if let Some(password) = password_in(text) {
            let password = range.start + password.start..range.start + password.end;
            self.hidden.push(Hidden {
                range: password,
                with: b'*',
            });
        }
    }
}

/// Every key the settings know, in whatever table.
fn known_keys() -> &'static HashSet<String> {
    static KEYS: OnceLock<HashSet<String>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let mut keys = HashSet::new();
        collect(&file::schema(), &mut keys);
        keys
    })
}

fn collect(node: &Value, keys: &mut HashSet<String>) {
    match node {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let ("properties", Value::Object(properties)) = (name.as_str(), value) {
                    keys.extend(properties.keys().cloned());
                }
                collect(value, keys);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, keys)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a key says about its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Secret,
    /// A misspelt key may have been meant as any other, a secret one included.
    Unknown,
    Plain,
}

fn sort_of(key: &str) -> Sort {
    if SECRET_KEYS.contains(&key) {
        return Sort::Secret;
    }
    // Before the first key there is nothing but what a broken file begins with.
    if known_keys().contains(key) {
        Sort::Plain
    } else {
        Sort::Unknown
    }
}

/// Whether an unquoted value is a number, a date or a switch.
fn is_plain_scalar(text: &str) -> bool {
    let text = text.split(['#', ',', '}', ']']).next().unwrap_or(text).trim();
    let plain = |byte: u8| byte.is_ascii_digit() || b"+-.:_TZ".contains(&byte);
    matches!(text, "true" | "false") || text.bytes().all(plain)
}

/// From where on a value must be hidden.
fn first_hidden(key: &str, text: &str) -> Option<usize> {
    match sort_of(key) {
        Sort::Secret => {
            return match SHOWN_PREFIXES.iter().find(|prefix| text.starts_with(**prefix)) {
                Some(&"file:") => None,
                Some(&"env:") if is_variable(text.get(4..).unwrap_or("")) => None,
                Some(&vault::PREFIX) if vault::is_address(text.get(vault::PREFIX.len()..).unwrap_or("")) => {
                    None
                }
                Some(prefix) => Some(prefix.len()),
                None => Some(0),
            };
        }
        Sort::Unknown => return Some(0),
        Sort::Plain => {}
    }
    if looks_like_entra_secret(text) || (key == "client_id" && !is_guid(text)) {
        return Some(0);
    }
    let lower = text.to_ascii_lowercase();
    let marks = ["sig=", "sig%3d", "sig\\u003d"].into_iter();
    marks
        .filter_map(|mark| lower.find(mark).map(|at| at + mark.len()))
        .min()
}

/// User name and password in an address.
fn password_in(text: &str) -> Option<Range<usize>> {
    let start = text.find("://")? + 3;
    let authority = text.get(start..)?;
    let authority = authority.split(['/', '?', '#']).next().unwrap_or(authority);
    authority.rfind('@').map(|at| start..start + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_guid;
    use super::key_line;
    use super::network_line;
    use super::settings;

    #[test]
    fn a_secret_is_hidden_however_it_is_written() {
        for line in [
            "client_secret = \"canary\"",
            "client_secret = 'canary'",
            "client_secret = \"can\\\"canary\"",
            "client_secret = \"\"\"\ncanary\n\"\"\"",
            "client_secret = \"\"\"a\\\"\"\"canary\"\"\"",
            "client_secret = \"\"\"a\\\\\"\"\"\npepper = \"canary\"",
            "keys = { pepper = \"\"\"a\"\"\"\", x = \"canary\" }",
            "keys = { pepper = '''a''''', x = 'canary' }",
            "client_secret = \"\"\"canary",
            "client_secret = \"canary",
            "client_secret = canary==",
            "client_secret = canary\"",
            "\"client_secret\" = \"canary\"",
            "identity.client_secret=\"canary\"",
            "client_secret = [\n  \"a\",\n  \"canary\",\n]",
            "key = [{ label = \"a\", digest = \"canary\" }]",
            "digest = \"sha256:canary\"",
            "client_sekret_key = \"canary\"",
            "pepper = \"env:canary-value\"",
            "pepper = \"keyvault:canary\"",
            "pepper = \"keyvault:https://me:canary@a.vault.azure.net/secrets/b\"",
            "apikey = 'canary'",
            "colour = \"canary\"",
            "colour = canary",
            "name = \"x\" # canary",
            "trigger = \"https://a.example/x?sp=1&sig=canary\"",
            "trigger = 'https://a.example/x?sp=1&SIG%3Dcanary'",
            "trigger = https://a.example/x?sp=1&sig=canary",
            "authority = \"https://me:canary@login.example\"",
            "client_id = \"canary\"",
            "tenant = \"canary~aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        ] {
            let masked = settings(line);
            assert!(!masked.contains("canary"), "{masked}");
            assert_eq!(masked.len(), line.len(), "{masked}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for line in [
            "client_secret = \"env:CLIENT_SECRET\"",
            "key = \"file:certs/site.key\"",
            "key = \"keyvault:https://contoso.vault.azure.net/secrets/site\"",
            "keys_file = \"keys.txt\"",
            "key_from = [\"header:x-api-key\", \"basic\"]",
            "token_life = \"50m\"",
            "client_id = \"00000000-0000-0000-0000-000000000000\"",
            "path = \"/a#b\"",
            "key = [{ label = \"a\" }]",
            "worker = 2",
            "expiers = 2027-01-31T00:00:00Z",
            "[routes]",
        ] {
            assert_eq!(settings(line), line);
        }
    }

    #[test]
    fn a_list_shows_only_what_can_be_no_key() {
        assert_eq!(key_line("canary"), "******");
        assert_eq!(key_line("canary erp"), "****** ***");
        assert_eq!(
            key_line("erp sha256:12 expires=2020-01-01"),
            "erp sha256:** expires=2020-01-01"
        );
        assert_eq!(key_line("erp  canary"), "***  ******");
        assert_eq!(network_line("10.0.0.1/8 canary"), "10.0.0.1/8 ******");
    }

    #[test]
    fn a_guid_has_hyphens_and_nothing_around() {
        assert!(is_guid("01234567-89ab-CDEF-0123-456789abcdef"));
        for bad in [
            "",
            "{01234567-89ab-cdef-0123-456789abcdef}",
            "0123456789abcdef0123456789abcdef",
            "0-0-0-0-0",
        ] {
            assert!(!is_guid(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_keeps_its_length(text in any::<String>()) {
            prop_assert_eq!(settings(&text).len(), text.len());
            prop_assert_eq!(settings(&text).lines().count(), text.lines().count());
        }

        #[test]
        fn any_secret_value_is_hidden(secret in "[a-z0-9.~+/=#%&-]{12,40}") {
            let text = format!("[[identity]]\nclient_secret = \"{secret}\"\nname = \"x\"\n");
            prop_assert!(!settings(&text).contains(&secret));
        }
    }
}
