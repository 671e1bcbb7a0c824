//! Takes one value out of a JSON body without building the body in memory.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The text or whole number at a path of keys and indexes; of keys that are there twice the last one counts. None where there
/// is no such value, or the body is no JSON.
pub(super) fn value_at(body: &[u8], path: &[String]) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = Node(path).deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    value
}

/// A value of the document, and what of the path is left below it.
struct Node<'p>(&'p [String]);

impl Node<'_> {
    fn found(&self, value: impl ToString) -> Option<String> {
        self.0.is_empty().then(|| value.to_string())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.found(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.found(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.found(value))
    }

    // Neither these nor `null` identify anything, and large numbers lose digits as they are read.
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let (index, rest) = match self.0.split_first() {
            Some((first, rest)) => (first.parse::<usize>().ok(), rest),
            None => (None, self.0),
        };
        let mut at = 0_usize;
        loop {
            if index == Some(at) {
                let Some(value) = list.next_element_seed(Node(rest))? else {
                    return Ok(found);
                };
                found = value;
            } else if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            at = at.saturating_add(1);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match self.0.split_first() {
                Some((first, rest)) if *first == key => found = map.next_value_seed(Node(rest))?,
                _ => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::proptest;

    use super::value_at;

    fn at(body: &str, path: &[&str]) -> Option<String> {
        let path: Vec<_> = path.iter().map(ToString::to_string).collect();
        value_at(body.as_bytes(), &path)
    }

    #[test]
    fn a_text_or_a_whole_number_is_found_where_the_path_leads() {
        let body =
            r#"{"a": {"b/c": "x", "n": -1}, "l": [{"v": 7}, {"v": 8}], "f": 1.5, "t": true, "z": null}"#;
        for (path, value) in [
            (&["a", "b/c"][..], Some("x")),
            (&["a", "n"], Some("-1")),
            (&["l", "1", "v"], Some("8")),
            (&["l", "2", "v"], None),
            (&["l", "x", "v"], None),
            (&["a"], None),
            (&["l"], None),
            (&["a", "b/c", "d"], None),
            (&["f"], None),
            (&["t"], None),
            (&["z"], None),
            (&["none"], None),
        ] {
            assert_eq!(at(body, path).as_deref(), value, "{path:?}");
        }
        assert_eq!(at("\"x\"", &[]).as_deref(), Some("x"));
    }

    #[test]
    fn of_keys_that_are_there_twice_the_last_one_counts() {
        assert_eq!(at(r#"{"a": 1, "a": 2}"#, &["a"]).as_deref(), Some("2"));
        assert_eq!(at(r#"{"a": 1, "a": {}}"#, &["a"]), None);
    }

    #[test]
    fn what_is_no_json_has_no_value_and_deep_nesting_ends() {
        let deep = "[".repeat(100_000);
        for body in ["", "a=1", "{\"a\": 1", "{\"a\": 1} 2", deep.as_str()] {
            assert_eq!(at(body, &["a"]), None, "{}", body.len());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_have_no_value(body in any::<Vec<u8>>()) {
            let _ = value_at(&body, &["a".to_owned(), "0".to_owned()]);
        }
    }
}
