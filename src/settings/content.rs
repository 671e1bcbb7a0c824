//! What a route demands of bodies: the keys of `[[route]]` about their types, and about JSON where the gateway reads it. One
//! of the latter is enough for the gateway to read the bodies of a route.

use std::path::Path;
use std::sync::Arc;

use crate::model::{BodySchema, ContentType, Flaw, MediaRange};
use crate::settings::check::Check;
use crate::settings::files::sha256_of;
use crate::settings::kinds::{At, word};

/// Deepest nesting that can be allowed: the reader of JSON itself ends at 128.
pub const JSON_DEPTH_CEILING: usize = 100;
/// Newtonsoft.Json and System.Text.Json read no deeper by default, and the flow platform is written with them.
const JSON_DEPTH_USUAL: usize = 64;
/// Largest file with a schema: some hundred times those of vendors.
const SCHEMA_BYTES_MAX: usize = 1024 * 1024;

word! {
    MediaRange: Self::parse, ["application/json", "text/*"];
    ContentType: Self::parse, ["application/json"];
}

/// What a route demands of bodies. By default nothing: any body passes as it is.
#[derive(Debug, Clone, Default)]
pub struct ContentSettings {
    /// The types that are accepted; none for any.
    pub types: Option<Vec<MediaRange>>,
    /// What the flow gets in place of the stated type.
    pub replacement: Option<ContentType>,
    pub reading: Option<ReadingSettings>,
}

/// What is done with bodies that the gateway reads.
#[derive(Debug, Clone)]
pub struct ReadingSettings {
    pub schema: Option<Arc<FileSchema>>,
    pub depth_max: usize,
    pub drop_nulls: bool,
    pub form_to_json: bool,
}

/// A schema, and the digest of its file.
#[derive(Debug)]
pub struct FileSchema {
    pub schema: BodySchema,
    pub sha256: String,
}

impl Default for ReadingSettings {
    fn default() -> Self {
        Self {
            schema: None,
            depth_max: JSON_DEPTH_USUAL,
            drop_nulls: false,
            form_to_json: false,
        }
    }
}

/// The keys of a route about it.
pub(super) struct ContentKeys<'a> {
    pub(super) types: Option<&'a At<Vec<At<MediaRange>>>>,
    pub(super) replacement: Option<&'a At<ContentType>>,
    pub(super) schema: Option<&'a At<String>>,
    pub(super) depth_max: Option<usize>,
    pub(super) drop_nulls: bool,
    pub(super) form_to_json: bool,
}

impl Check<'_> {
    pub(super) fn content(&mut self, keys: &ContentKeys<'_>) -> ContentSettings {
        let types = keys.types.map(|values| {
            if values.is_empty() {
                let flaw = Flaw::new("no type is listed, so no body would be accepted");
                self.findings
                    .mistake(values, flaw.hint("remove the key to accept any"));
            }
            let ranges = values.iter().map(|value| (value.into(), (**value).clone()));
            self.each_once(ranges, |range| format!("{range} is listed twice"))
        });
        let reading = self.reading(keys);
        if reading.is_some() {
            self.readable(keys);
        }
        ContentSettings {
            types,
            replacement: keys.replacement.map(|value| (**value).clone()),
            reading,
        }
    }

    /// Nothing where no key asks the gateway to read.
    fn reading(&mut self, keys: &ContentKeys<'_>) -> Option<ReadingSettings> {
        let ContentKeys {
            schema,
            depth_max,
            drop_nulls,
            form_to_json,
            ..
        } = *keys;
        if schema.is_none() && depth_max.is_none() && !drop_nulls && !form_to_json {
            return None;
        }
        Some(ReadingSettings {
            schema: schema.and_then(|value| self.schema(value)),
            depth_max: depth_max.unwrap_or(JSON_DEPTH_USUAL),
            drop_nulls,
            form_to_json,
        })
    }

    /// Reports types that could never be accepted, because the gateway reads JSON.
    fn readable(&mut self, keys: &ContentKeys<'_>) {
        const WHY: &str = "the gateway reads the bodies of this route as JSON";
        if let Some(replacement) = keys.replacement {
            if !replacement.is_json() {
                let flaw = Flaw::new(format!("{WHY}, so this must be a type of JSON in UTF-8"));
                let hint = "write \"application/json\"";
                self.findings.mistake(replacement, flaw.hint(hint));
            }
            return;
        }
        for range in keys.types.iter().flat_map(|values| values.iter()) {
            let is_read = range
                .media_type()
                .is_some_and(|media| media.is_json() || (keys.form_to_json && media.is_form()));
            if !is_read {
                let flaw = Flaw::new(format!("{WHY}, and this type is not one of JSON"));
                let hint = "if it is sent with JSON all the same, set content_type_as = \"application/json\"";
                self.findings.mistake(range, flaw.hint(hint));
            }
        }
    }

    /// A schema from its file, which is compiled once for all routes.
    fn schema(&mut self, value: &At<String>) -> Option<Arc<FileSchema>> {
        let path = self.path(value)?;
        if let Some(schema) = self.schemas.get(&path) {
            return schema.clone();
        }
        let schema = self.read_schema(value, &path).map(Arc::new);
        self.schemas.insert(path, schema.clone());
        schema
    }

    fn read_schema(&mut self, value: &At<String>, path: &Path) -> Option<FileSchema> {
        let text = self.list(value, path)?;
        let compiled = match text.len() <= SCHEMA_BYTES_MAX {
            true => BodySchema::compile(&text),
            false => Err(format!("it has more than {SCHEMA_BYTES_MAX} bytes")),
        };
        // The text is not quoted: somebody may have named the wrong file.
        let compiled = compiled.map_err(|why| {
            let flaw = Flaw::new(format!("{} is not a JSON Schema: {why}", path.display()));
            flaw.hint("references stay within the file: nothing else is read and nothing is fetched")
        });
        let schema = self.findings.keep(value, compiled)?;
        let sha256 = sha256_of(&text);
        Some(FileSchema { schema, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::sample::{Sample, TRIGGER};
    use crate::settings::{ContentSettings, JSON_DEPTH_CEILING};

    const ORDERS: &str = r#"{"type": "object", "required": ["id"]}"#;

    fn sample(lines: &str) -> Sample {
        let route = format!(
            "name = \"a\"\npath = \"/a\"\nanonymous = true\nidentity = \"contoso\"\ntrigger = \"{TRIGGER}\"\n{lines}"
        );
        Sample::default()
            .with("route", &route)
            .file("orders.json", ORDERS)
    }

    fn content(lines: &str) -> ContentSettings {
        sample(lines).config().routes.remove(0).content
    }

    #[test]
    fn a_route_reads_no_body_unless_a_key_asks_for_it() {
        assert!(
            content("content_types = [\"text/*\"]\ncontent_type_as = \"text/plain\"")
                .reading
                .is_none()
        );
        assert!(
            content("drop_nulls = false\nform_to_json = false")
                .reading
                .is_none()
        );
        for lines in [
            "json_schema = \"orders.json\"",
            "json_depth_max = 64",
            "drop_nulls = true",
            "form_to_json = true",
        ] {
            let reading = content(lines).reading.unwrap();
            assert_eq!(reading.depth_max, 64, "{lines}");
            assert_eq!(reading.schema.is_some(), lines.starts_with("json_schema"));
        }
    }

    #[test]
    fn types_are_types_and_those_that_are_read_are_json() {
        for (lines, mistake) in [
            (
                "content_types = []",
                "no type is listed, so no body would be accepted",
            ),
            ("content_types = [\"json\"]", "this is not a media type"),
            ("content_types = [\"a/b\", \"A/B\"]", "a/b is listed twice"),
            ("content_type_as = \"text/*\"", "this is not a media type"),
            (
                "drop_nulls = true\ncontent_type_as = \"text/plain\"",
                "the gateway reads the bodies of this route as JSON, so this must be a type of JSON in UTF-8",
            ),
            (
                "drop_nulls = true\ncontent_types = [\"application/json\", \"text/plain\"]",
                "the gateway reads the bodies of this route as JSON, and this type is not one of JSON",
            ),
        ] {
            assert_eq!(sample(lines).mistakes(), [mistake], "{lines}");
        }
        let form = "form_to_json = true\ncontent_types = [\"application/x-www-form-urlencoded\"]";
        assert_eq!(content(form).types.unwrap().len(), 1);
        let as_json =
            "drop_nulls = true\ncontent_types = [\"text/*\"]\ncontent_type_as = \"application/json\"";
        assert!(content(as_json).reading.is_some());
    }

    #[test]
    fn depth_is_bounded() {
        let lines = format!("json_depth_max = {}", JSON_DEPTH_CEILING + 1);
        assert_eq!(
            sample(&lines).mistakes(),
            ["the value is too large; it must be at most 100"]
        );
        assert_eq!(sample("json_depth_max = 0").mistakes().len(), 1);
    }

    #[test]
    fn a_schema_is_compiled_with_the_settings_and_followed_with_them() {
        let one = sample("json_schema = \"orders.json\"").config();
        assert!(one.files.iter().any(|file| file.path().ends_with("orders.json")));
        let other = sample("json_schema = \"orders.json\"")
            .file("orders.json", "{}")
            .config();
        assert_ne!(one.digest, other.digest);
    }

    #[test]
    fn a_wrong_schema_is_a_mistake_with_its_place_and_is_not_quoted() {
        for (schema, part) in [
            ("canary", "is not JSON: expected value at line 1 column 1"),
            (
                r#"{"properties": {"a": {"type": "canary"}}}"#,
                "at /properties/a/type",
            ),
            (
                r#"{"$ref": "https://schemas.example/a.json"}"#,
                "https://schemas.example/a.json",
            ),
        ] {
            let report = sample("json_schema = \"orders.json\"")
                .file("orders.json", schema)
                .report();
            assert!(
                report.contains("json_schema = \"orders.json\"") && report.contains(part),
                "{report}"
            );
            assert!(
                report.ends_with("1 mistake\n") && !report.contains("canary"),
                "{report}"
            );
        }
        let large = format!("{}{}", ORDERS, " ".repeat(super::SCHEMA_BYTES_MAX));
        let mistakes = sample("json_schema = \"orders.json\"")
            .file("orders.json", &large)
            .mistakes();
        assert!(mistakes[0].contains("more than 1048576 bytes"), "{mistakes:?}");
        let mistakes = sample("json_schema = \"none.json\"").mistakes();
        assert!(mistakes[0].ends_with("none.json does not exist"), "{mistakes:?}");
    }
}
