//! A form (`application/x-www-form-urlencoded`) as JSON: an object with a member for each parameter, whose value is a text. A
//! parameter that is there several times becomes a list of its values in their order, so that nothing is lost and a schema
//! can refuse it. Names have no meaning of their own: `a[b]` is one name.

use percent_encoding::percent_decode;
use serde_json::map::Entry;
use serde_json::{Map, Value};

/// Parameters of one form, as ASP.NET Core takes them at most (Microsoft Learn, "FormOptions.ValueCountLimit").
pub(super) const PARAMETERS_MAX: usize = 1024;

/// Reads a form (URL Standard, section 5.1). Unlike there, what is not UTF-8 is refused and not replaced.
///
/// # Errors
/// What is wrong with it, without its names and values.
pub(super) fn parse(form: &[u8]) -> Result<Value, String> {
    let mut object = Map::new();
    let parameters = form.split(|byte| *byte == b'&').filter(|part| !part.is_empty());
    for (index, part) in parameters.enumerate() {
        if index >= PARAMETERS_MAX {
            return Err(format!("the form has more than {PARAMETERS_MAX} parameters"));
        }
        let mut halves = part.splitn(2, |byte| *byte == b'=');
        let mut decoded = || {
            let text = decode(halves.next().unwrap_or_default());
            text.ok_or_else(|| format!("parameter {} of the form is not UTF-8", index + 1))
        };
        let (name, value) = (decoded()?, Value::String(decoded()?));
        match object.entry(name) {
            Entry::Vacant(entry) => drop(entry.insert(value)),
            Entry::Occupied(mut entry) => match entry.get_mut() {
                Value::Array(list) => list.push(value),
                first => *first = Value::Array(vec![first.take(), value]),
            },
        }
    }
    Ok(Value::Object(object))
}

fn decode(text: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{PARAMETERS_MAX, parse};

    #[test]
    fn a_parameter_is_a_text_and_several_of_a_name_are_a_list() {
        for (form, expected) in [
            ("", json!({})),
            ("a=1&b=x+y%20%C3%A4", json!({"a": "1", "b": "x y \u{e4}"})),
            ("a=1&b=&a=2&a=1&b", json!({"a": ["1", "2", "1"], "b": ["", ""]})),
            ("&&a=b=c&&", json!({"a": "b=c"})),
            ("a%5Bb%5D=1&a[b]=2", json!({"a[b]": ["1", "2"]})),
            ("=x&100%=%zz", json!({"": "x", "100%": "%zz"})),
            ("a=%00%22%5C", json!({"a": "\u{0}\"\\"})),
        ] {
            assert_eq!(parse(form.as_bytes()), Ok(expected), "{form}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused_without_being_quoted() {
        assert_eq!(
            parse(b"a=1&canary=%ff").unwrap_err(),
            "parameter 2 of the form is not UTF-8"
        );
        assert!(parse("a&".repeat(PARAMETERS_MAX).as_bytes()).is_ok());
        let why = parse("canary&".repeat(PARAMETERS_MAX + 1).as_bytes()).unwrap_err();
        assert_eq!(why, "the form has more than 1024 parameters");
    }

    proptest! {
        #[test]
        fn no_value_is_lost_or_made_up(pairs in prop::collection::vec(("[ab=&+%\u{e4}]{0,2}", "[xy=&+% \u{e4}]{0,3}"), 0..12)) {
            let encode = |text: &str| {
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
            };
            let form: Vec<_> = pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
            let Value::Object(object) = parse(form.join("&").as_bytes()).unwrap() else {
                panic!("no object");
            };
            for (name, _) in &pairs {
                let all: Vec<&str> = pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect();
                let expected = match all.as_slice() {
                    [one] => json!(one),
                    all => json!(all),
                };
                prop_assert_eq!(&object[name], &expected);
            }
            prop_assert!(object.keys().all(|name| pairs.iter().any(|(other, _)| other == name)));
        }

        #[test]
        fn any_bytes_are_a_form_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }
}
