//! Reads one whole body: makes a form JSON, leaves nulls out, and checks what the flow would get. Memory beside the body is
//! asked for before it is used.

use bytes::Bytes;
use serde_json::Value;

use crate::model::BodySchema;
use crate::model::schema::Violation;
use crate::policy::body::{form, json, nulls};
use crate::problem::{Kind, Problem};
use crate::settings::ReadingSettings;

/// UTF-8's own mark of where a text begins.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What comparing keys, or writing a body anew, takes at most for each byte of it: a member has seven bytes at least, and an
/// entry of 24 in a table that may be half empty and just be growing; a byte of a form may become six. Bytes.
const WORK_BYTES: usize = 12;
/// What a parameter of a form takes beside its text. Bytes.
const PARAMETER_BYTES: usize = 256;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    Json,
    Form,
    /// Nothing that is read.
    Other,
}

/// What a route that reads its bodies does with them.
#[derive(Debug)]
pub struct BodyReader(ReadingSettings);

impl BodyReader {
    pub(super) fn new(settings: ReadingSettings) -> Self {
        Self(settings)
    }

    /// Checks a body and returns what the flow gets, which is the body itself unless something in it changes. `reserve` is
    /// asked for as many bytes beside it as are used at one time.
    ///
    /// # Errors
    /// [`Kind::BodyInvalid`], or what `reserve` says.
    pub fn read(
        &self,
        body: Bytes,
        syntax: Syntax,
        reserve: &mut dyn FnMut(usize) -> Result<(), Problem>,
    ) -> Result<Bytes, Problem> {
        let body = match body.strip_prefix(BYTE_ORDER_MARK) {
            Some(text) => body.slice_ref(text),
            None => body,
        };
        if body.is_empty() {
            return match &self.0.schema {
                Some(_) => Err(invalid("it is empty")),
                None => Ok(body),
            };
        }
        let work = body.len().saturating_mul(WORK_BYTES);
        match syntax {
            Syntax::Other => Ok(body),
            Syntax::Form => {
                reserve(work.saturating_add(form::PARAMETERS_MAX * PARAMETER_BYTES))?;
                let value = form::parse(&body).map_err(|why| invalid(&why))?;
                self.check(&value, form::PARAMETERS_MAX)?;
                // Writing a tree into memory cannot fail.
                Ok(serde_json::to_vec(&value).unwrap_or_default().into())
            }
            Syntax::Json => {
                reserve(work)?;
                let shape = json::inspect(&body, self.0.depth_max).map_err(|why| invalid(&why))?;
                let body = match self.0.drop_nulls && shape.null_members > 0 {
                    true => nulls::without_nulls(&body).into(),
                    false => body,
                };
                if self.0.schema.is_some() {
                    reserve(shape.tree_bytes(body.len()).max(work))?;
                    let value = serde_json::from_slice(&body).map_err(|_| invalid("it is not JSON"))?;
                    self.check(&value, shape.values)?;
                }
                Ok(body)
            }
        }
    }

    fn check(&self, body: &Value, values: usize) -> Result<(), Problem> {
        let schema: Option<&BodySchema> = self.0.schema.as_ref().map(|file| &file.schema);
        let violations = schema.map(|schema| schema.violations(body, values));
        match violations.unwrap_or_default().as_slice() {
            [] => Ok(()),
            found => Err(violated(found)),
        }
    }
}

/// A body that cannot be read in one way.
fn invalid(why: &str) -> Problem {
    let sentence = format!("the body is not accepted: {why}");
    Problem::from(Kind::BodyInvalid)
        .detail(sentence.clone())
        .because(sentence)
}

fn violated(found: &[Violation]) -> Problem {
    let places: Vec<_> = found.iter().map(ToString::to_string).collect();
    let rules = found.iter().map(|violation| match violation.rule.as_str() {
        "" => violation.to_string(),
        rule => format!("{violation} by {rule} of the schema"),
    });
    let rules: Vec<_> = rules.collect();
    Problem::from(Kind::BodyInvalid)
        .detail(format!(
            "these places do not fit the schema: {}",
            places.join(", ")
        ))
        .because(format!("`json_schema` does not allow {}", rules.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::{BodyReader, Syntax};
    use crate::model::BodySchema;
    use crate::problem::{Kind, Problem};
    use crate::settings::{FileSchema, ReadingSettings};

    fn reader(schema: Option<&str>) -> BodyReader {
        BodyReader(ReadingSettings {
            schema: schema.map(|text| {
                Arc::new(FileSchema {
                    schema: BodySchema::compile(text).unwrap(),
                    sha256: String::new(),
                })
            }),
            drop_nulls: true,
            form_to_json: true,
            ..ReadingSettings::default()
        })
    }

    fn read(reader: &BodyReader, body: &str, syntax: Syntax) -> Result<Bytes, Problem> {
        reader.read(Bytes::copy_from_slice(body.as_bytes()), syntax, &mut |_| Ok(()))
    }

    #[test]
    fn a_body_in_which_nothing_changes_is_not_copied() {
        let body = Bytes::from_static(br#"{"a": [null, 1]}"#);
        let read = reader(Some("{}")).read(body.clone(), Syntax::Json, &mut |_| Ok(()));
        assert_eq!(read.unwrap().as_ptr(), body.as_ptr());
        let marked = Bytes::from_static(b"\xef\xbb\xbf[1]");
        let read = reader(None)
            .read(marked.clone(), Syntax::Json, &mut |_| Ok(()))
            .unwrap();
        assert_eq!(
            (read.as_ref(), read.as_ptr()),
            (&b"[1]"[..], marked[3..].as_ptr())
        );
    }

    #[test]
    fn the_schema_is_about_what_the_flow_gets() {
        let reader = reader(Some(
            r#"{"properties": {"a": {"type": "string"}}, "required": ["b"]}"#,
        ));
        let read = |body, syntax| read(&reader, body, syntax).map_err(|problem| problem.kind());
        assert_eq!(
            read(r#"{"a": null, "b": 1}"#, Syntax::Json),
            Ok(r#"{"b":1}"#.into())
        );
        assert_eq!(read(r#"{"b": null}"#, Syntax::Json), Err(Kind::BodyInvalid));
        assert_eq!(read("a=1&b=2", Syntax::Form), Ok(r#"{"a":"1","b":"2"}"#.into()));
        assert_eq!(read("a=1&b=2&a=3", Syntax::Form), Err(Kind::BodyInvalid));
        assert_eq!(read("", Syntax::Json), Err(Kind::BodyInvalid));
    }

    #[test]
    fn an_empty_body_passes_without_a_schema() {
        for syntax in [Syntax::Json, Syntax::Form, Syntax::Other] {
            assert_eq!(read(&reader(None), "", syntax).unwrap(), "");
        }
    }

    #[test]
    fn a_refusal_names_places_and_never_a_value() {
        let reader = reader(Some(r#"{"properties": {"a": {"type": "number"}}}"#));
        for (body, part) in [
            (r#"{"a": "canary"}"#, "/a (type)"),
            (r#"{"a": canary}"#, "line 1 column 7"),
            (r#"{"a": 1, "a": "canary"}"#, "twice at /a"),
        ] {
            let problem = read(&reader, body, Syntax::Json).unwrap_err();
            let (detail, cause) = (problem.explanation().unwrap(), problem.cause().unwrap());
            assert!(detail.contains(part) && cause.contains(part), "{detail} {cause}");
            assert!(
                !format!("{detail} {cause}").contains("canary"),
                "{detail} {cause}"
            );
        }
    }

    #[test]
    fn memory_is_asked_for_before_it_is_used() {
        let body = Bytes::from("[{\"\":0}]".replace("{\"\":0}", &["{\"\":0}"; 1000].join(",")));
        let mut asked = Vec::new();
        let mut reserve = |bytes| {
            asked.push(bytes);
            Ok(())
        };
        reader(Some("{}"))
            .read(body.clone(), Syntax::Json, &mut reserve)
            .unwrap();
        assert!(asked[0] >= body.len() && asked[1] > 600 * 1000, "{asked:?}");
        let mut full = |_| Err(Kind::GatewayBusy.into());
        let refused = reader(None).read(body, Syntax::Json, &mut full).unwrap_err();
        assert_eq!(refused.kind(), Kind::GatewayBusy);
    }
}
