//! Hides what must not be printed of a settings file or a list. Everything is hidden that is not known to be harmless:
//! in any text the words of the schema, its punctuation and short values such as numbers and dates stay, and where the
//! text is TOML also the values of known keys that are made of plain words. Comments are blanked. Every byte keeps its
//! place, so that carets still point to the right column.

mod plain;
mod vocabulary;

use std::collections::HashSet;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

pub(super) use plain::{is_plain, is_variable};
pub(super) use vocabulary::Vocabulary;

use crate::model::entra_ids::is_guid;
use crate::settings::mask::plain::{is_plain_run, is_plain_variable, is_short_value, runs};
use crate::settings::mask::vocabulary::{SECRET_KEYS, Sort};
use crate::settings::vault;

/// Parameters of a trigger's address that are named in every trigger.
const PARAMETERS: [&str; 4] = ["api-version", "sp", "sv", "sig"];

/// Most unknown keys of a file that are looked at; a report shows fewer.
const COMPARISONS_MAX: usize = 1000;

/// The error of the TOML reader after which the rest of the text still means what it says.
pub(super) const TWICE: &str = "duplicate key";

/// The text with everything hidden that must not be printed, byte for byte of the same length.
pub(super) fn settings(text: &str, vocabulary: &Vocabulary) -> String {
    let mut mask = Mask::new(text);
    mask.hide_all_but_structure(vocabulary);
    let (tree, errors) = DeTable::parse_recoverable(text);
    if errors.iter().all(|error| error.message() == TWICE) {
        mask.table(tree.get_ref(), vocabulary);
    }
    mask.finish()
}

/// A line of a key list. Its label is shown only where a digest follows: a lone word may be a key.
pub(super) fn key_line(line: &str) -> String {
    let mut mask = Mask::new(line);
    let words = words(line);
    let digest = |text: &str| text.starts_with("sha256:") || text.starts_with("hmac-sha256:");
    let labelled = words.get(1).is_some_and(|(_, word)| digest(word));
    for (index, (start, word)) in words.iter().enumerate() {
        let shown = match index {
            0 if labelled && is_plain(word) => word.len(),
            _ if digest(word) => word.find(':').map_or(0, |colon| colon + 1),
            2.. if labelled && is_option(word) => word.len(),
            _ => 0,
        };
        mask.hide(start + shown..start + word.len(), b'*');
    }
    mask.finish()
}

/// Whether this is an option behind a digest with a value that cannot be a secret.
fn is_option(word: &str) -> bool {
    let Some((name, value)) = word.split_once('=') else {
        return false;
    };
    matches!(name, "not_before" | "expires" | "enabled") && (is_short_value(value) || is_plain(value))
}

/// A line of a network list. A word that cannot be part of an address may be anything, a secret included.
pub(super) fn network_line(line: &str) -> String {
    let mut mask = Mask::new(line);
    for (start, word) in words(line) {
        if !is_nearly_network(word) {
            mask.hide(start..start + word.len(), b'*');
        }
    }
    mask.finish()
}

/// An address or a prefix, perhaps a wrong one: groups of up to four digits with `.`, `:` or `/` between them.
fn is_nearly_network(word: &str) -> bool {
    let mut groups = word.split(['.', ':', '/']);
    groups.all(|group| group.len() <= 4 && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
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

/// The runs of letters and digits that a settings file has and its masked text has not. They may be secrets, so no
/// sentence about the file repeats them.
#[derive(Debug, Default)]
pub(super) struct HiddenWords(HashSet<String>);

impl HiddenWords {
    pub(super) fn of(text: &str, masked: &str) -> Self {
        let hidden = runs(text).filter(|range| masked.get(range.clone()) != text.get(range.clone()));
        let words = hidden.filter_map(|range| text.get(range));
        let words = words.filter(|word| !is_plain_run(word));
        Self(words.map(str::to_lowercase).collect())
    }

    /// The sentence without them and without what is joined to them.
    pub(super) fn hide_in(&self, mut sentence: String) -> String {
        let is_hidden = |word: &str| !is_plain_run(word) && self.0.contains(&word.to_lowercase());
        let mut hidden: Vec<Range<usize>> = Vec::new();
        for range in runs(&sentence).filter(|range| sentence.get(range.clone()).is_some_and(is_hidden)) {
            let joined = |found: &char| found.is_alphanumeric() || "-_~+=.%/".contains(*found);
            let bytes = |chars: &mut dyn Iterator<Item = char>| chars.map(char::len_utf8).sum::<usize>();
            let before = sentence.get(..range.start).unwrap_or("");
            let behind = sentence.get(range.end..).unwrap_or("");
            let start = range.start - bytes(&mut before.chars().rev().take_while(joined));
            let end = range.end + bytes(&mut behind.chars().take_while(joined));
            match hidden.last_mut() {
                Some(last) if start <= last.end => last.end = end,
                _ => hidden.push(start..end),
            }
        }
        for range in hidden.into_iter().rev() {
            sentence.replace_range(range, "***");
        }
        sentence
    }
}

/// A reference as the settings have it, without what may be a secret that was pasted behind its prefix.
pub(super) fn reference(text: &str) -> String {
    let mut mask = Mask::new(text);
    mask.hide(0..text.len(), b'*');
    mask.reference(0..text.len());
    mask.finish()
}

/// A text on its way to being masked.
struct Mask<'a> {
    text: &'a str,
    bytes: Vec<u8>,
    /// How many unknown keys may still be compared with the known ones, which takes long.
    comparisons: usize,
}

impl<'a> Mask<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes().to_vec(),
            comparisons: COMPARISONS_MAX,
        }
    }

    fn finish(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn hide(&mut self, range: Range<usize>, with: u8) {
        let bytes = self.bytes.get_mut(range).unwrap_or_default();
        for line in bytes.split_mut(|byte| matches!(*byte, b'\n' | b'\r')) {
            line.fill(with);
        }
    }

    fn show(&mut self, range: Range<usize>) {
        if let (Some(bytes), Some(text)) = (self.bytes.get_mut(range.clone()), self.text.get(range)) {
            bytes.copy_from_slice(text.as_bytes());
        }
    }

    /// Keeps words of the schema, punctuation and short values, whether the text is TOML or not.
    fn hide_all_but_structure(&mut self, words: &Vocabulary) {
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            self.line(start, line, words);
            start += line.len();
        }
    }

    fn line(&mut self, start: usize, line: &str, words: &Vocabulary) {
        let is_separator = |found: char| {
            matches!(found, '=' | '[' | ']' | '{' | '}' | ',' | '"' | '\'') || found.is_whitespace()
        };
        let mut quotes = 0;
        let mut is_secret = false;
        let mut from = 0;
        for piece in line.split_inclusive(is_separator) {
            let word = piece.strip_suffix(is_separator).unwrap_or(piece);
            if word.starts_with('#') && quotes % 2 == 0 {
                self.hide(start + from..start + line.len(), b' ');
                return;
            }
            if word.is_empty() {
                quotes += usize::from(piece.ends_with(['"', '\'']));
                from += piece.len();
                continue;
            }
            let is_known = word.split('.').all(|part| words.is_word(part));
            let is_harmless = is_known || is_plain_variable(word) || (!is_secret && is_short_value(word));
            if !is_harmless {
                self.hide(start + from..start + from + word.len(), b'*');
            }
            is_secret |= word
                .rsplit('.')
                .next()
                .is_some_and(|name| SECRET_KEYS.contains(&name));
            quotes += usize::from(piece.ends_with(['"', '\'']));
            from += piece.len();
        }
    }

    /// Shows what may be shown of the values of a table, and hides short values at keys of secrets.
    fn table(&mut self, table: &DeTable<'_>, words: &Vocabulary) {
        for (key, value) in table {
            let name = key.get_ref().to_ascii_lowercase();
            if !words.is_key(&name) && self.comparisons > 0 {
                self.comparisons -= 1;
                if words.is_slip(&name) {
                    self.show(key.span());
                }
            }
            self.value(&name, value.get_ref(), value.span(), words);
        }
    }

    fn value(&mut self, key: &str, value: &DeValue<'_>, span: Range<usize>, words: &Vocabulary) {
        match value {
            DeValue::Table(table) => self.table(table, words),
            DeValue::Array(values) => {
                for value in values {
                    self.value(key, value.get_ref(), value.span(), words);
                }
            }
            DeValue::String(_) => self.string(key, span, words),
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
                let text = self.text.get(span.clone()).unwrap_or("");
                let is_shown = match words.sort_of(key) {
                    Sort::Secret => false,
                    Sort::Unknown => is_short_value(text),
                    Sort::Plain => true,
                };
                if is_shown {
                    self.show(span);
                } else {
                    self.hide(span, b'*');
                }
            }
        }
    }

    /// A string with its quotes.
    fn string(&mut self, key: &str, span: Range<usize>, words: &Vocabulary) {
        let text = self.text.get(span.clone()).unwrap_or("");
        let open = if text.starts_with("\"\"\"") || text.starts_with("'''") {
            3
        } else {
            1
        };
        let inner = span.start + open..span.end.saturating_sub(open).max(span.start + open);
        self.show(span.start..inner.start);
        self.show(inner.end..span.end);
        self.hide(inner.clone(), b'*');
        let text = self.text.get(inner.clone()).unwrap_or("");
        // Escapes are not decoded, and only secrets span several lines.
        if text.contains(['\\', '\n']) {
            return;
        }
        match words.sort_of(key) {
            Sort::Secret => self.reference(inner),
            Sort::Unknown => {}
            Sort::Plain if key == "client_id" => {
                let is_id = is_guid(text.trim_matches([' ', '{', '}']));
                if is_id {
                    self.show(inner);
                }
            }
            Sort::Plain if text.starts_with("env:") || text.starts_with(vault::PREFIX) => {
                self.reference(inner)
            }
            Sort::Plain if text.contains("://") => self.address(inner),
            Sort::Plain => {
                if is_guid(text) || is_plain(text) {
                    self.show(inner);
                }
            }
        }
    }

    /// `env:NAME` and the like: the prefix, and what follows it if that is plainly no secret.
    fn reference(&mut self, range: Range<usize>) {
        let text = self.text.get(range.clone()).unwrap_or("");
        let prefixes = ["env:", "file:", vault::PREFIX, "sha256:", "hmac-sha256:"];
        let Some(prefix) = prefixes.into_iter().find(|prefix| text.starts_with(prefix)) else {
            return;
        };
        let rest = range.start + prefix.len()..range.end;
        self.show(range.start..rest.start);
        let text = self.text.get(rest.clone()).unwrap_or("");
        match prefix {
            "env:" if is_variable(text) && is_plain(text) => self.show(rest),
            "file:" if is_plain(text) => self.show(rest),
            vault::PREFIX if vault::is_address(text) => self.address(rest),
            _ => {}
        }
    }

    /// The parts of an address that are plain words, and the names of parameters that every trigger has.
    fn address(&mut self, range: Range<usize>) {
        let text = self.text.get(range.clone()).unwrap_or("");
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_plain(scheme)) else {
            return;
        };
        let mut at = range.start + scheme.len() + 3;
        self.show(range.start..at);
        let query = rest.find('?').unwrap_or(rest.len());
        let (path, query) = rest.split_at(query);
        let authority = path.split('/').next().unwrap_or("");
        for part in path.split_inclusive(['/', '.']) {
            let word = part.strip_suffix(['/', '.']).unwrap_or(part);
            let is_user = authority.contains('@') && at < range.start + scheme.len() + 3 + authority.len();
            if !is_user && (is_plain(word) || is_guid(word)) {
                self.show(at..at + part.len());
            } else {
                self.show(at + word.len()..at + part.len());
            }
            at += part.len();
        }
        for pair in query.split_inclusive(['?', '&']) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_known = PARAMETERS.contains(&name) || matches!(pair, "?" | "&");
            if is_known {
                let is_shown = name != "sig" && is_short_value(value.trim_end_matches('&'));
                let equals = usize::from(name.len() < pair.len());
                let shown = if is_shown { pair.len() } else { name.len() + equals };
                self.show(at..at + shown);
            }
            at += pair.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{key_line, network_line, settings};
    use crate::settings::schema::vocabulary;

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
            let masked = settings(line, vocabulary());
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
            assert_eq!(settings(line, vocabulary()), line);
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

    proptest! {
        #[test]
        fn any_text_keeps_its_length(text in any::<String>()) {
            prop_assert_eq!(settings(&text, vocabulary()).len(), text.len());
            prop_assert_eq!(settings(&text, vocabulary()).lines().count(), text.lines().count());
        }

        #[test]
        fn any_secret_value_is_hidden(secret in "[a-z0-9.~+/=#%&-]{12,40}") {
            let text = format!("[[identity]]\nclient_secret = \"{secret}\"\nname = \"x\"\n");
            prop_assert!(!settings(&text, vocabulary()).contains(&secret));
        }
    }
}
