//! Takes single values out of a JSON body without building it in memory. Keys on the way to a value must not be there twice,
//! because another reader could take the other one; everything else is only skipped.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::model::Pointer;

/// The values of some pointers. Their bytes are at most those of the body, because no two pointers are the same.
#[derive(Debug, Default)]
pub struct BodyValues<'s> {
    pointers: &'s [Pointer],
    values: Vec<Option<Found>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    text: String,
    kind: ValueKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    /// A text or a whole number.
    Exact,
    /// A large number loses digits as it is read, and a boolean identifies nothing.
    Other,
}

/// Why a body has no values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    #[error("is not valid JSON at line {line} column {column}")]
    Invalid { line: usize, column: usize },
    // The key is one of a pointer's, so it may be named.
    #[error("has the key `{0}` twice")]
    DoubledKey(String),
    #[error("has elements with different values where all must have the same")]
    Differs,
}

/// What is at a pointer that ends at an object or a list.
const COMPOUND: &str = "{}";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// The whole body is valid and no key on the way is doubled.
    Whole,
    /// Reading ends at the last value. For bodies that a signature covers: reading all of one costs more than its hash.
    LastValue,
}

impl<'s> BodyValues<'s> {
    /// Reads the values of all pointers in one pass. A body that does not begin as JSON has none.
    ///
    /// # Errors
    /// Also for a key on the way that is there twice.
    pub fn read(body: &[u8], pointers: &'s [Pointer], extent: Extent) -> Result<Self, BodyFault> {
        let mut found = Findings {
            values: vec![None; pointers.len()],
            fault: None,
            extent,
            is_over: false,
        };
        let is_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
        if is_json && !pointers.is_empty() {
            let wanted = pointers.iter().map(Pointer::segments).enumerate().collect();
            let mut reader = serde_json::Deserializer::from_slice(body);
            let node = Node {
                wanted,
                found: &mut found,
            };
            let read = node.deserialize(&mut reader).and_then(|()| reader.end());
            if let Err(error) = read
                && !found.is_over
            {
                return Err(found.fault.unwrap_or(BodyFault::Invalid {
                    line: error.line(),
                    column: error.column(),
                }));
            }
        }
        Ok(Self {
            pointers,
            values: found.values,
        })
    }

    pub fn get(&self, pointer: &Pointer) -> Option<&str> {
        self.find(pointer).map(|found| &*found.text)
    }

    /// The value that identifies something: a text or a whole number.
    pub fn id(&self, pointer: &Pointer) -> Option<&str> {
        let found = self.find(pointer).filter(|found| found.kind == ValueKind::Exact);
        found.map(|found| &*found.text)
    }

    fn find(&self, pointer: &Pointer) -> Option<&Found> {
        let index = self.pointers.iter().position(|known| known == pointer)?;
        self.values.get(index)?.as_ref()
    }
}

struct Findings {
    values: Vec<Option<Found>>,
    fault: Option<BodyFault>,
    extent: Extent,
    /// Reading ended early, with what it was for.
    is_over: bool,
}

/// One value of the document, and what of the pointers is left to go below it.
struct Node<'f, 'p> {
    wanted: Vec<(usize, &'p [String])>,
    found: &'f mut Findings,
}

impl<'p> Node<'_, 'p> {
    fn below(&self, mut fits: impl FnMut(&str) -> bool) -> Vec<(usize, &'p [String])> {
        let step = |&(index, path): &(usize, &'p [String])| {
            let (first, rest) = path.split_first()?;
            fits(first).then_some((index, rest))
        };
        self.wanted.iter().filter_map(step).collect()
    }

    fn refuse<E: Error>(&mut self, fault: BodyFault) -> E {
        self.found.fault = Some(fault);
        E::custom("refused")
    }

    /// The value is what the pointers that end here point at.
    fn set<E: Error>(mut self, text: &str, kind: ValueKind) -> Result<(), E> {
        for (index, path) in std::mem::take(&mut self.wanted) {
            if !path.is_empty() {
                continue;
            }
            let Some(slot) = self.found.values.get_mut(index) else {
                continue;
            };
            let value = Found {
                text: text.to_owned(),
                kind,
            };
            if slot.as_ref().is_some_and(|other| *other != value) {
                return Err(self.refuse(BodyFault::Differs));
            }
            *slot = Some(value);
            let found = &mut *self.found;
            if found.extent == Extent::LastValue && found.values.iter().all(Option::is_some) {
                found.is_over = true;
                return Err(E::custom("over"));
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        if self.wanted.is_empty() {
            return reader.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.set(value, ValueKind::Exact)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.set(if value { "true" } else { "false" }, ValueKind::Other)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.set(&value.to_string(), ValueKind::Exact)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.set(&value.to_string(), ValueKind::Exact)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.set(&value.to_string(), ValueKind::Other)
    }

    /// `null` is no value.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            let wanted = self.below(|segment| segment == "*" || is_index(segment, index));
            let node = Node {
                wanted,
                found: &mut *self.found,
            };
            if list.next_element_seed(node)?.is_none() {
                break;
            }
            index = index.saturating_add(1);
        }
        self.set(COMPOUND, ValueKind::Other)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen: Vec<String> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let wanted = self.below(|segment| segment == key);
            if !wanted.is_empty() {
                if seen.contains(&key) {
                    return Err(self.refuse(BodyFault::DoubledKey(key)));
                }
                seen.push(key);
            }
            map.next_value_seed(Node {
                wanted,
                found: &mut *self.found,
            })?;
        }
        self.set(COMPOUND, ValueKind::Other)
    }
}

/// Whether a segment is this number as RFC 6901 has it: without zeros before it.
fn is_index(segment: &str, index: usize) -> bool {
    (segment == "0" || !segment.starts_with(['0', '+'])) && segment.parse() == Ok(index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::proptest;

    use super::{BodyFault, BodyValues, Extent};
    use crate::model::Pointer;

    fn values(body: &str, pointers: &[&str]) -> Result<Vec<Option<String>>, BodyFault> {
        let pointers: Vec<_> = pointers.iter().map(|text| Pointer::of(text)).collect();
        let values = BodyValues::read(body.as_bytes(), &pointers, Extent::Whole)?;
        Ok(pointers
            .iter()
            .map(|pointer| values.get(pointer).map(str::to_owned))
            .collect())
    }

    #[test]
    fn values_are_taken_from_where_pointers_lead() {
        let body =
            r#"{"a": {"b/c": "x", "n": -1, "t": true, "f": 1.5}, "l": [{"v": 7}, {"v": 7}], "z": null}"#;
        let pointers = [
            "/a/b~1c", "/a/n", "/a/t", "/a/f", "/l/1/v", "/l/*/v", "/z", "/l/1", "/l/2", "/none", "/l/01/v",
        ];
        let expected = [
            Some("x"),
            Some("-1"),
            Some("true"),
            Some("1.5"),
            Some("7"),
            Some("7"),
            None,
            Some("{}"),
            None,
            None,
            None,
        ];
        let expected: Vec<_> = expected.iter().map(|value| value.map(str::to_owned)).collect();
        assert_eq!(values(body, &pointers), Ok(expected));
    }

    #[test]
    fn a_text_or_a_whole_number_identifies_something() {
        let pointer = [Pointer::of("/id")];
        for (value, id) in [
            ("\"x\"", Some("x")),
            ("-7", Some("-7")),
            ("18446744073709551616", None),
            ("1.5", None),
            ("true", None),
            ("null", None),
            ("{}", None),
            ("[1]", None),
        ] {
            let body = format!("{{\"id\": {value}}}");
            let values = BodyValues::read(body.as_bytes(), &pointer, Extent::Whole).unwrap();
            assert_eq!(values.id(&pointer[0]), id, "{value}");
        }
    }

    #[test]
    fn a_key_on_the_way_is_there_once() {
        for body in [
            r#"{"a": {"b": 1}, "a": {"b": 1}}"#,
            r#"{"a": {"b": 1, "b": 1}}"#,
            r#"{"a": {"b": 1}, "\u0061": {}}"#,
        ] {
            let refusal = values(body, &["/a/b"]).unwrap_err();
            assert!(refusal.to_string().contains("twice"), "{refusal}");
        }
        assert!(values(r#"{"a": {"b": 1}, "c": 1, "c": 2}"#, &["/a/b"]).is_ok());
    }

    #[test]
    fn reading_ends_where_it_may() {
        let pointers = [Pointer::of("/a/b"), Pointer::of("/c")];
        let read = |body: &str| BodyValues::read(body.as_bytes(), &pointers, Extent::LastValue);
        let values = read(r#"{"a": {"b": 1}, "c": "d", "#).unwrap();
        let [b, c] = [0, 1].map(|index: usize| values.get(&pointers[index]));
        assert_eq!((b, c), (Some("1"), Some("d")));
        assert!(read(r#"{"a": {"b": 1}, "#).is_err());
    }

    #[test]
    fn elements_that_differ_are_refused() {
        assert!(values(r#"[{"s": "a"}, {"s": "b"}]"#, &["/*/s"]).is_err());
    }

    #[test]
    fn what_is_not_json_is_refused_and_deep_nesting_ends() {
        let deep = "[".repeat(100_000);
        for body in ["{", "{\"a\": }", "[1] 2", "{\"a\": 1}}", deep.as_str()] {
            assert!(
                matches!(values(body, &["/a"]), Err(BodyFault::Invalid { .. })),
                "{}",
                body.len()
            );
        }
        assert_eq!(values("a=1", &["/a"]), Ok(vec![None]));
        assert_eq!(values("", &["/a"]), Ok(vec![None]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in any::<Vec<u8>>()) {
            let pointers = [Pointer::of("/a/*/b"), Pointer::of("/0")];
            for extent in [Extent::Whole, Extent::LastValue] {
                let _ = BodyValues::read(&body, &pointers, extent);
            }
        }
    }
}
