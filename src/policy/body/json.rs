//! Looks through a JSON text in one pass, without building anything of it: whether it is JSON, how deep it is, whether a key
//! is there twice, and what a tree of it would take. Two readers may take different values of a doubled key (RFC 8259
//! section 4), so a body with one is refused where it is read.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::model::claims::printable;

/// How much is shown of the pointer to a place. Characters.
const POINTER_CHARS_MAX: usize = 160;

/// What is in a text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) values: usize,
    objects: usize,
    members: usize,
    /// Members whose value is null.
    pub(super) null_members: usize,
}

impl Shape {
    /// The most that a tree of a text of this length takes. Bytes.
    pub(super) fn tree_bytes(&self, length: usize) -> usize {
        // A node of serde_json's map has room for 11 members; a value has 32 bytes, and a list up to twice its length.
        const OBJECT: usize = 640;
        const MEMBER: usize = 160;
        const VALUE: usize = 96;
        let objects = self.objects.saturating_mul(OBJECT);
        let members = self.members.saturating_mul(MEMBER);
        let values = self.values.saturating_mul(VALUE);
        objects
            .saturating_add(members)
            .saturating_add(values)
            .saturating_add(length.saturating_mul(2))
    }
}

/// Looks through a text.
///
/// # Errors
/// What is wrong and where, without a value.
pub(super) fn inspect(text: &[u8], depth_max: usize) -> Result<Shape, String> {
    let mut seen = Seen {
        shape: Shape::default(),
        depth_max,
        fault: None,
    };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let node = Node {
        seen: &mut seen,
        depth: 0,
    };
    let read = node.deserialize(&mut reader).and_then(|_| reader.end());
    match (read, seen.fault) {
        (Ok(()), _) => Ok(seen.shape),
        (Err(_), Some(fault)) => Err(fault.to_string()),
        // The sentences of the reader are fixed: they name a line and a column, and quote nothing.
        (Err(error), None) => Err(format!("it is not JSON: {error}")),
    }
}

struct Seen {
    shape: Shape,
    depth_max: usize,
    fault: Option<Fault>,
}

/// What ended the pass before the end of the text.
struct Fault {
    what: &'static str,
    /// The way to the place, from its end.
    way: Vec<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pointer = self.way.iter().rev().map(|step| format!("/{step}"));
        let pointer: String = pointer.collect();
        write!(f, "{} at {}", self.what, printable(&pointer, POINTER_CHARS_MAX))
    }
}

impl Seen {
    fn fail<E: Error>(&mut self, what: &'static str, at: Option<&str>) -> E {
        let way = at.map(escape).into_iter().collect();
        self.fault = Some(Fault { what, way });
        E::custom(what)
    }

    /// Notes a step on the way back from a fault.
    fn step(&mut self, step: impl FnOnce() -> String) {
        if let Some(fault) = &mut self.fault {
            fault.way.push(step());
        }
    }
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Whether a value was null.
#[derive(PartialEq, Eq)]
enum Found {
    Null,
    Other,
}

/// One value of the text.
struct Node<'s> {
    seen: &'s mut Seen,
    /// Lists and objects around it.
    depth: usize,
}

impl Node<'_> {
    fn enter<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        match self.depth > self.seen.depth_max {
            true => Err(self.seen.fail("it is nested too deeply", None)),
            false => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Found, D::Error> {
        self.seen.shape.values += 1;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Found, E> {
        Ok(Found::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Found, E> {
        Ok(Found::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Found, A::Error> {
        self.enter()?;
        let mut index = 0_usize;
        loop {
            let node = Node {
                seen: &mut *self.seen,
                depth: self.depth,
            };
            match list.next_element_seed(node) {
                Ok(Some(_)) => index = index.saturating_add(1),
                Ok(None) => return Ok(Found::Other),
                Err(error) => {
                    self.seen.step(|| index.to_string());
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Found, A::Error> {
        self.enter()?;
        self.seen.shape.objects += 1;
        let mut keys: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(key) = map.next_key_seed(Key)? {
            self.seen.shape.members += 1;
            if keys.contains(&key) {
                return Err(self.seen.fail("a key is there twice", Some(&key)));
            }
            let node = Node {
                seen: &mut *self.seen,
                depth: self.depth,
            };
            let found = map.next_value_seed(node).inspect_err(|_| {
                self.seen.step(|| escape(&key));
            })?;
            self.seen.shape.null_members += usize::from(found == Found::Null);
            keys.insert(key);
        }
        Ok(Found::Other)
    }
}

/// A key, borrowed where it is written without escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::{Shape, inspect};
    use crate::settings::JSON_DEPTH_CEILING;

    fn why(text: &str) -> String {
        inspect(text.as_bytes(), 4).unwrap_err()
    }

    #[test]
    fn what_is_in_a_text_is_counted() {
        let shape = inspect(br#" {"a": [1, null, {"b": null}], "c": null} "#, 4).unwrap();
        let expected = Shape {
            values: 7,
            objects: 2,
            members: 3,
            null_members: 2,
        };
        assert_eq!(shape, expected);
    }

    #[test]
    fn a_key_that_is_there_twice_is_named_by_its_pointer() {
        assert_eq!(
            why(r#"{"items": [{}, {"a/b": {"x": 1, "\u0078": "canary"}}]}"#),
            "a key is there twice at /items/1/a~1b/x"
        );
        assert!(inspect(br#"[{"a": 1}, {"a": 1, "A": {"a": 2}}]"#, 4).is_ok());
    }

    #[test]
    fn depth_is_limited_before_anything_recurses_further() {
        assert!(inspect(b"[[[[1]]]]", 4).is_ok());
        assert_eq!(
            why(r#"{"a": [[1, [[]]]]}"#),
            "it is nested too deeply at /a/0/1/0"
        );
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(inspect(nested(JSON_DEPTH_CEILING).as_bytes(), JSON_DEPTH_CEILING).is_ok());
        assert!(inspect("[".repeat(1_000_000).as_bytes(), JSON_DEPTH_CEILING).is_err());
        assert!(inspect(r#"{"a":"#.repeat(200_000).as_bytes(), JSON_DEPTH_CEILING).is_err());
    }

    #[test]
    fn what_is_not_json_is_named_by_line_and_column_and_not_quoted() {
        for text in [
            "canary",
            "{\"a\": canary}",
            "{\"a\": 1} canary",
            "[1,]",
            "{\"a\" 1}",
            "\"\u{1}\"",
            "01",
            "1e999",
            "NaN",
            "{'a': 1}",
            "// c\n1",
            "\"\\ud800\"",
        ] {
            let why = why(text);
            assert!(
                why.contains(" at line ") && !why.contains("canary"),
                "{text}: {why}"
            );
        }
        assert!(inspect(b"\"\xff\"", 4).is_err());
        assert!(inspect(b"", 4).is_err());
    }

    proptest! {
        #[test]
        fn what_passes_is_what_a_tree_reads(text in r#"[\[\]{}:,"a1\\ un.e-]{0,16}|\{("[ab]":(1|null|\[\]),?){0,4}\}"#) {
            let tree = serde_json::from_str::<Value>(&text);
            match inspect(text.as_bytes(), JSON_DEPTH_CEILING) {
                Ok(shape) => prop_assert!(tree.is_ok() && shape.values > 0),
                Err(why) => prop_assert!(tree.is_err() || why.starts_with("a key is there twice")),
            }
        }
    }
}
