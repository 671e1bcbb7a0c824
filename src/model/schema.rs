//! The JSON Schema of a body, compiled once. All that the schema library is asked is in this file.
//!
//! Nothing is fetched: a reference to anything outside the document is a mistake in it. Patterns run in linear time, because
//! the text that they search is the caller's; lookaround and back references, which need more, are mistakes too. `format`
//! is not checked, as the draft of 2020 has it by default.
//!
//! Whether a body fits takes time in proportion to it. Where it does not fit costs more: the library keeps what is wrong in
//! every branch of an `anyOf`, and follows every way through a schema that refers to itself. So places are looked for only as
//! far as that is bounded.

use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::model::claims::printable;

/// Memory of one compiled pattern, and of what is cached while it searches. Bytes; both are the library's defaults for a
/// pattern that somebody else wrote.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Violations of one body that are named.
const VIOLATIONS_MAX: usize = 5;
/// Values of a body times values of the schema, up to which several violations are looked for. Each pair may become one, of
/// some hundred bytes.
const LISTED_PAIRS_MAX: usize = 20_000;
/// Values of a schema with its references followed. One with more, as every one that refers to itself, is not asked for places.
const EXPANDED_VALUES_MAX: usize = 10_000;
/// With one of these the library looks for the first violation in all branches and keeps those it finds there.
const BRANCHES: [&str; 9] = [
    "anyOf",
    "oneOf",
    "not",
    "if",
    "contains",
    "dependentSchemas",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// How much is shown of a pointer, which the caller makes as long as the body. Characters.
const POINTER_CHARS_MAX: usize = 80;

/// A compiled schema.
pub struct BodySchema {
    validator: Validator,
    shape: Option<Shape>,
}

/// What looking for violations costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// With references followed.
    values: usize,
    has_branches: bool,
}

/// A place of a body that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer (RFC 6901), cut and printable; empty for the whole body.
    pub pointer: String,
    /// What of the schema it violates, such as `type`; empty where the place is not looked for.
    pub keyword: String,
    /// Where that is in the schema, as JSON Pointer.
    pub rule: String,
}

impl BodySchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong, with its place in the schema and without its values.
    pub fn compile(text: &str) -> Result<Self, String> {
        let text = text.trim_start_matches('\u{feff}');
        let schema: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX);
        let options = jsonschema::options()
            .offline()
            .should_validate_formats(false)
            .with_pattern_options(patterns);
        let validator = options.build(&schema).map_err(|error| flaw(&error))?;
        Ok(Self {
            validator,
            shape: Shape::of(&schema),
        })
    }

    /// Where a body with so many values does not fit; nothing if it does.
    pub fn violations(&self, body: &Value, values: usize) -> Vec<Violation> {
        if self.validator.is_valid(body) {
            return Vec::new();
        }
        let Some(shape) = self.shape else {
            return vec![Violation::whole()];
        };
        if shape.values.saturating_mul(values) <= LISTED_PAIRS_MAX {
            let errors = self.validator.iter_errors(body).take(VIOLATIONS_MAX);
            return errors.map(|error| Violation::of(&error)).collect();
        }
        if shape.has_branches {
            return vec![Violation::whole()];
        }
        self.validator
            .validate(body)
            .err()
            .iter()
            .map(Violation::of)
            .collect()
    }
}

impl Shape {
    /// Nothing for a schema that refers to itself, or in a way that is not followed here.
    fn of(root: &Value) -> Option<Self> {
        let mut shape = Self {
            values: 0,
            has_branches: false,
        };
        let mut left = vec![root];
        while let Some(value) = left.pop() {
            shape.values += 1;
            if shape.values > EXPANDED_VALUES_MAX {
                return None;
            }
            match value {
                Value::Array(items) => left.extend(items),
                Value::Object(members) => {
                    if members.contains_key("$dynamicRef") || members.contains_key("$recursiveRef") {
                        return None;
                    }
                    shape.has_branches |= BRANCHES.iter().any(|keyword| members.contains_key(*keyword));
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        left.push(root.pointer(reference.strip_prefix('#')?)?);
                    }
                    // What is only referred to counts where it is.
                    let own = members
                        .iter()
                        .filter(|(key, _)| !matches!(key.as_str(), "$defs" | "definitions"));
                    left.extend(own.map(|(_, member)| member));
                }
                _ => {}
            }
        }
        Some(shape)
    }
}

impl fmt::Debug for BodySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodySchema")
    }
}

impl Violation {
    /// A violation whose place is not looked for.
    fn whole() -> Self {
        Self {
            pointer: String::new(),
            keyword: String::new(),
            rule: String::new(),
        }
    }

    fn of(error: &ValidationError<'_>) -> Self {
        let mut pointer = error.instance_path().as_str().to_owned();
        // A member that is missing has no place of its own; its name is the schema's.
        if let ValidationErrorKind::Required { property } = error.kind()
            && let Some(name) = property.as_str()
        {
            pointer.push('/');
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        }
        Self {
            pointer: printable(&pointer, POINTER_CHARS_MAX),
            keyword: error.kind().keyword().to_owned(),
            rule: error.schema_path().as_str().to_owned(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pointer = match self.pointer.as_str() {
            "" => "the body as a whole",
            pointer => pointer,
        };
        match self.keyword.as_str() {
            "" => write!(
                f,
                "{pointer} (places are not named where the schema refers to itself, or has alternatives and the body is large)"
            ),
            keyword => write!(f, "{pointer} ({keyword})"),
        }
    }
}

/// What is wrong with a schema.
fn flaw(error: &ValidationError<'_>) -> String {
    match (error.kind(), error.instance_path().as_str()) {
        (ValidationErrorKind::Referencing(error), _) => error.to_string(),
        (ValidationErrorKind::Format { format }, at) if format == "regex" => format!(
            "at {at}: the pattern cannot be used; lookaround, back references and very large repetitions are not supported"
        ),
        (_, "") => error.masked().to_string(),
        (_, at) => format!("at {at}: {}", error.masked()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{BodySchema, Shape};

    fn schema(schema: &Value) -> BodySchema {
        BodySchema::compile(&schema.to_string()).unwrap_or_else(|why| panic!("{why}"))
    }

    fn shown(rules: &Value, body: &Value) -> Vec<String> {
        let violations = schema(rules).violations(body, 10);
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_violation_has_a_pointer_and_no_value() {
        let rules = json!({
            "required": ["customer/id"],
            "additionalProperties": false,
            "properties": {
                "items": {"items": {"properties": {"price": {"type": "number"}}}},
                "color": {"enum": ["red"]}
            }
        });
        let body = json!({"items": [{"price": 1}, {"price": "canary"}], "color": "canary", "more-canary": 1});
        let shown = shown(&rules, &body);
        for expected in [
            "/items/1/price (type)",
            "/color (enum)",
            "/customer~1id (required)",
            "the body as a whole (additionalProperties)",
        ] {
            assert!(shown.contains(&expected.to_owned()), "{shown:?}");
        }
        assert!(!format!("{shown:?}").contains("canary"), "{shown:?}");
    }

    #[test]
    fn only_some_violations_are_listed_and_of_large_bodies_one() {
        let rules = json!({"items": {"type": "string"}});
        let body = json!(vec![1; 100]);
        assert_eq!(schema(&rules).violations(&body, 101).len(), 5);
        assert_eq!(schema(&rules).violations(&body, 10_000).len(), 1);
        let long = json!({"type": "object", "additionalProperties": {"type": "string"}});
        let body = json!({"\u{202e}x".repeat(500): 1});
        let pointer = &schema(&long).violations(&body, 1)[0].pointer;
        assert!(pointer.len() < 1000 && !pointer.contains('\u{202e}'), "{pointer}");
    }

    #[test]
    fn what_a_violation_costs_is_bounded_whatever_the_schema_is() {
        let node = |kind: &str| {
            json!({
                "properties": {"kind": {"const": kind}, "child": {"$ref": "#/$defs/node"}},
                "required": ["kind"]
            })
        };
        for keyword in ["oneOf", "anyOf", "allOf"] {
            let rules = json!({
                "$defs": {"node": {keyword: [node("a"), node("b")]}},
                "$ref": "#/$defs/node"
            });
            let body = (0..60).fold(
                json!({"kind": "wrong"}),
                |child, _| json!({"kind": "wrong", "child": child}),
            );
            let found = schema(&rules).violations(&body, 121);
            assert_eq!(found.len(), 1, "{keyword}: {found:?}");
            assert!(
                found[0].to_string().contains("places are not named"),
                "{}",
                found[0]
            );
        }
        let event = |kind: &str| json!({"properties": {"type": {"const": kind}, "lines": {"items": {"type": "object"}}}});
        let events = ["a", "b", "c", "d"].map(event);
        let rules = json!({"oneOf": events});
        let lines = json!({"type": "x", "lines": vec![1; 30_000]});
        assert_eq!(schema(&rules).violations(&lines, 30_003).len(), 1);
        assert_eq!(
            shown(&rules, &json!({"type": "x", "lines": [1]})),
            ["the body as a whole (oneOf)"]
        );
    }

    #[test]
    fn references_are_followed_as_far_as_they_end() {
        let rules = json!({
            "$defs": {"price": {"type": "number"}},
            "properties": {"a": {"$ref": "#/$defs/price"}, "b": {"$ref": "#/$defs/price"}}
        });
        assert_eq!(
            shown(&rules, &json!({"a": "x", "b": "y"})),
            ["/a (type)", "/b (type)"]
        );
        let chain = (0..40).map(|number| {
            let next = json!({"$ref": format!("#/$defs/d{}", number + 1)});
            (format!("d{number}"), json!({"allOf": [next, next]}))
        });
        let mut defs: serde_json::Map<_, _> = chain.collect();
        defs.insert("d40".to_owned(), json!({"type": "string"}));
        assert_eq!(Shape::of(&json!({"$defs": defs, "$ref": "#/$defs/d0"})), None);
    }

    #[test]
    fn a_wrong_schema_is_refused_with_its_place_and_nothing_is_fetched() {
        for (text, part) in [
            ("{", "not JSON"),
            (
                r#"{"properties": {"a": {"type": "canary"}}}"#,
                "at /properties/a/type",
            ),
            (r#"{"properties": {"a": {"pattern": "(?=a)b"}}}"#, "lookaround"),
            (
                r#"{"properties": {"a": {"pattern": "a{1000}{1000}"}}}"#,
                "at /properties/a/pattern",
            ),
            (
                r#"{"$ref": "https://schemas.example/a.json"}"#,
                "https://schemas.example/a.json",
            ),
            (r#"{"$ref": "other.json"}"#, "other.json"),
            (r##"{"$ref": "#/$defs/none"}"##, "/$defs/none"),
            (r#"{"$schema": "https://schemas.example/own"}"#, "meta-schema"),
            ("5", "boolean"),
        ] {
            let why = BodySchema::compile(text).unwrap_err();
            assert!(why.contains(part) && !why.contains("canary"), "{text}: {why}");
        }
    }

    #[test]
    fn a_schema_of_an_older_draft_is_read_as_one() {
        let rules =
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]});
        assert_eq!(shown(&rules, &json!([1])), ["/0 (type)"]);
        assert_eq!(
            shown(&json!({"prefixItems": [{"type": "string"}]}), &json!([1])),
            ["/0 (type)"]
        );
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        for rules in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        ] {
            assert_eq!(schema(&rules).violations(&json!({"a": [1]}), 3), [], "{rules}");
        }
    }

    #[test]
    fn a_pattern_does_not_run_away_on_what_callers_send() {
        let rules = schema(&json!({"pattern": "^(a+)+$"}));
        let body = json!(format!("{}!", "a".repeat(64 * 1024)));
        // With backtracking it would not end.
        assert_eq!(rules.violations(&body, 1).len(), 1);
    }
}
