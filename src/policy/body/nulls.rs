//! Leaves out the members of objects whose value is null: schemas that a designer made of an example refuse `null` where they
//! take a missing member. Everything else stays as it was written, numbers and escapes included, but for white space. A
//! null in a list stays: the elements behind it would move.

/// An object or a list that is open.
struct Frame {
    is_object: bool,
    /// Whether something of it was written.
    has_content: bool,
    /// Where in the output the current member begins.
    member: usize,
}

/// The text without null members. It must have been found to be JSON; what becomes of other texts does not matter, but
/// ends.
pub(super) fn without_nulls(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let mut open: Vec<Frame> = Vec::new();
    let mut expects_key = false;
    let mut rest = json;
    while let Some((&first, behind)) = rest.split_first() {
        match first {
            b' ' | b'\t' | b'\r' | b'\n' => rest = behind,
            b',' => {
                expects_key = open.last().is_some_and(|frame| frame.is_object);
                rest = behind;
            }
            b':' => {
                out.push(first);
                rest = behind;
            }
            b'{' | b'[' => {
                begin_value(&mut open, &mut out);
                out.push(first);
                let is_object = first == b'{';
                expects_key = is_object;
                open.push(Frame {
                    is_object,
                    has_content: false,
                    member: 0,
                });
                rest = behind;
            }
            b'}' | b']' => {
                open.pop();
                expects_key = false;
                out.push(first);
                rest = behind;
            }
            _ => {
                let (token, after) = rest.split_at_checked(token_length(rest)).unwrap_or((rest, &[]));
                rest = after;
                match open.last_mut().filter(|frame| frame.is_object) {
                    Some(frame) if expects_key => {
                        expects_key = false;
                        frame.member = out.len();
                        if frame.has_content {
                            out.push(b',');
                        }
                    }
                    Some(frame) if token == b"null" => {
                        out.truncate(frame.member);
                        continue;
                    }
                    _ => begin_value(&mut open, &mut out),
                }
                out.extend_from_slice(token);
            }
        }
    }
    out
}

/// Notes that a value is written, and separates it from the one before it in a list.
fn begin_value(open: &mut [Frame], out: &mut Vec<u8>) {
    if let Some(frame) = open.last_mut() {
        if frame.has_content && !frame.is_object {
            out.push(b',');
        }
        frame.has_content = true;
    }
}

/// The length of a string, or of a number or word; at least one byte.
fn token_length(text: &[u8]) -> usize {
    if text.first() != Some(&b'"') {
        let is_end = |byte: &u8| b",:{}[]\" \t\r\n".contains(byte);
        let length = text.iter().skip(1).position(is_end);
        return length.map_or(text.len(), |length| length + 1);
    }
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        match text.get(at) {
            Some(b'"') => return at + 1,
            _ => at += 2,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::without_nulls;

    fn without(text: &str) -> String {
        String::from_utf8(without_nulls(text.as_bytes())).unwrap()
    }

    #[test]
    fn null_members_go_and_all_else_stays_as_written() {
        for (text, expected) in [
            (r#"{"a": null}"#, "{}"),
            (r#"{"a": null, "b": 1}"#, r#"{"b":1}"#),
            (r#"{"a": 1, "b": null}"#, r#"{"a":1}"#),
            (r#"{"a": 1, "b": null, "c": 2}"#, r#"{"a":1,"c":2}"#),
            (
                r#"{"a": {"b": null}, "c": [{"d": null, "e": []}, null]}"#,
                r#"{"a":{},"c":[{"e":[]},null]}"#,
            ),
            (r#"[null, {"a": null}, "null"]"#, r#"[null,{},"null"]"#),
            (
                r#"{"n": 1.10, "big": 123456789012345678901234567890, "e": 1E+2}"#,
                r#"{"n":1.10,"big":123456789012345678901234567890,"e":1E+2}"#,
            ),
            (
                r#"{"null": "null", "a\"b\\": "\u00e4 , \" }", "x": null}"#,
                r#"{"null":"null","a\"b\\":"\u00e4 , \" }"}"#,
            ),
            ("null", "null"),
            (" \"a\" ", "\"a\""),
        ] {
            assert_eq!(without(text), expected, "{text}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a\"\\\\,:{}\u{e4} ]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[ab\"\\\\]{0,3}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn pruned(value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let kept = members.into_iter().filter(|(_, value)| !value.is_null());
                kept.map(|(key, value)| (key, pruned(value))).collect()
            }
            Value::Array(list) => list.into_iter().map(pruned).collect(),
            other => other,
        }
    }

    proptest! {
        #[test]
        fn the_text_becomes_what_its_tree_without_nulls_is(value in json(), is_pretty in any::<bool>()) {
            let text = match is_pretty {
                true => serde_json::to_vec_pretty(&value).unwrap(),
                false => serde_json::to_vec(&value).unwrap(),
            };
            let out = without_nulls(&text);
            prop_assert!(out.len() <= text.len());
            prop_assert_eq!(out, serde_json::to_vec(&pruned(value)).unwrap());
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(without_nulls(&bytes).len() <= 2 * bytes.len());
        }
    }
}
