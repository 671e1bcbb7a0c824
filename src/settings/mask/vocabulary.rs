//! The keys and words of the settings, and which values of keys are hidden.

use std::collections::HashSet;

use serde_json::Value;

use crate::settings::near;

/// Keys whose value is a secret, or a digest that a secret is easily mistaken for.
pub(super) const SECRET_KEYS: [&str; 11] = [
    "pepper",
    "client_secret",
    "key",
    "file",
    "digest",
    "secret",
    "value",
    "password",
    "seal",
    "verify_token",
    "run_addresses",
];

/// What the settings know: keys, in any table, and values of closed sets.
#[derive(Debug, Default)]
pub(in crate::settings) struct Vocabulary {
    keys: HashSet<String>,
    words: HashSet<String>,
}

impl Vocabulary {
    /// The keys and words of a JSON Schema.
    pub(in crate::settings) fn of(schema: &Value) -> Self {
        let mut vocabulary = Self::default();
        vocabulary.collect(schema);
        vocabulary
    }

    fn collect(&mut self, node: &Value) {
        for (key, property) in node["properties"].as_object().into_iter().flatten() {
            self.keys.insert(key.clone());
            self.collect(property);
        }
        let words = node["enum"].as_array().into_iter().flatten();
        self.words
            .extend(words.filter_map(Value::as_str).map(str::to_owned));
        if let Some(items) = node.get("items") {
            self.collect(items);
        }
    }

    pub(in crate::settings) fn is_key(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        word.is_empty() || self.is_key(word) || self.words.contains(word)
    }

    pub(super) fn sort_of(&self, key: &str) -> Sort {
        match (SECRET_KEYS.contains(&key), self.is_key(key)) {
            (true, _) => Sort::Secret,
            (false, true) => Sort::Plain,
            (false, false) => Sort::Unknown,
        }
    }

    /// Whether a key is so near to a known one that it can only be a slip of the finger.
    pub(super) fn is_slip(&self, key: &str) -> bool {
        // Far longer than any key: the search would only cost time.
        const BYTES_MAX: usize = 64;
        let is_near = || near::closest(key, self.keys.iter().map(String::as_str)).is_some();
        key.len() <= BYTES_MAX && is_near()
    }
}

/// What a key says about its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Secret,
    /// A misspelt key may have been meant as any other, a secret one included.
    Unknown,
    Plain,
}
