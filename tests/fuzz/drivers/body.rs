//! Bodies that a route reads: what the flow gets is JSON in one reading, and differs from what came as the settings say.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use flowgate::model::BodySchema;
use flowgate::policy::BodyRules;
use flowgate::policy::body::Syntax;
use flowgate::settings::{ContentSettings, FileSchema, ReadingSettings};
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use super::is_one_line;

static RULES: LazyLock<BodyRules> = LazyLock::new(|| {
    let schema = r#"{"type": ["object", "array"], "properties": {"id": {"type": ["integer", "string"]}}}"#;
    let reading = ReadingSettings {
        schema: Some(Arc::new(FileSchema {
            schema: BodySchema::compile(schema).unwrap(),
            sha256: String::new(),
        })),
        drop_nulls: true,
        form_to_json: true,
        ..ReadingSettings::default()
    };
    let settings = ContentSettings {
        reading: Some(reading),
        ..ContentSettings::default()
    };
    BodyRules::build(&settings).unwrap()
});

/// The value of Content-Type in the first line, the body in the others.
pub(crate) fn body(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (stated, body) = data.split_at(end.unwrap_or(data.len()));
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let Ok(stated) = HeaderValue::from_bytes(stated) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, stated);
    let syntax = match RULES.accept(&headers) {
        Ok(syntax) => syntax,
        Err(problem) => return assert!(is_one_line(problem.explanation().unwrap())),
    };
    let mut reserved = 0;
    let mut reserve = |bytes| {
        reserved = bytes;
        Ok(())
    };
    let reader = RULES.reader().unwrap();
    let read = match reader.read(Bytes::copy_from_slice(body), syntax, &mut reserve) {
        Ok(read) => read,
        Err(problem) => {
            for text in [problem.explanation(), problem.cause()] {
                assert!(is_one_line(text.unwrap()), "{text:?}");
            }
            return;
        }
    };
    assert!(read.len() <= body.len() + reserved);
    let value: Value = serde_json::from_slice(&read).unwrap();
    assert!(!has_null_member(&value));
    if syntax == Syntax::Json {
        let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let came: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(value, without_nulls(came));
    }
}

fn has_null_member(value: &Value) -> bool {
    match value {
        Value::Object(members) => members
            .values()
            .any(|value| value.is_null() || has_null_member(value)),
        Value::Array(list) => list.iter().any(has_null_member),
        _ => false,
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            kept.map(|(key, value)| (key, without_nulls(value))).collect()
        }
        Value::Array(list) => list.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
