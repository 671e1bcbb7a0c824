//! The route as a Swagger 2.0 definition, which imports as a custom connector of Power Platform. A connector can send a key, but
//! sign nothing.

use http::Method;
use serde_json::{Map, Value, json};

use crate::cli::vendor_pack::pack::{Pack, has_body};
use crate::settings::KeyPlace;

/// Why a route has none, or its text.
pub(super) fn definition(pack: &Pack<'_>) -> Result<String, &'static str> {
    if pack.caller.signature.is_some() {
        return Err("this caller signs its requests, which a custom connector cannot do");
    }
    let mut operations = Map::new();
    for method in &pack.route.methods {
        operations.insert(method.as_str().to_ascii_lowercase(), operation(pack, method));
    }
    let path = pack.address.path.as_str();
    let mut definition = json!({
        "swagger": "2.0",
        "info": {
            "title": pack.route.name.as_str(),
            "description": "A flow behind Flowgate.",
            "version": "1.0"
        },
        "host": pack.address.base.trim_start_matches("https://"),
        "basePath": "/",
        "schemes": ["https"],
        "consumes": [pack.example().content_type],
        "produces": ["application/json"],
        "paths": { path: operations },
        "definitions": { "Problem": problem() }
    });
    if let (Some(place), Some(fields)) = (pack.caller.key, definition.as_object_mut()) {
        let scheme = match place {
            KeyPlace::Header(name) => json!({"type": "apiKey", "in": "header", "name": name.as_str()}),
            // The key alone, or with any scheme before it.
            KeyPlace::Authorization => json!({"type": "apiKey", "in": "header", "name": "Authorization"}),
            KeyPlace::Basic => json!({"type": "basic"}),
            KeyPlace::Query(name) => json!({"type": "apiKey", "in": "query", "name": name}),
            KeyPlace::Path => {
                return Err("the key is part of the path, where a custom connector cannot keep it secret");
            }
        };
        fields.insert("securityDefinitions".to_owned(), json!({"key": scheme}));
        fields.insert("security".to_owned(), json!([{"key": []}]));
    }
    let text = serde_json::to_string_pretty(&definition);
    text.map(|text| text + "\n")
        .map_err(|_| "the definition cannot be written")
}

fn operation(pack: &Pack<'_>, method: &Method) -> Value {
    let parameters = parameters(&pack.address.path).map(|name| {
        json!({"name": name, "in": "path", "required": true, "type": "string", "x-ms-url-encoding": "single"})
    });
    let mut parameters: Vec<_> = parameters.collect();
    if let Some(name) = pack.id_field() {
        parameters.push(json!({
            "name": name.as_str(), "in": "header", "required": pack.needs_id(), "type": "string",
            "description": "Another one for each delivery, and the same when it is sent again."
        }));
    }
    if has_body(method) {
        let schema = if pack.example().is_json {
            "object"
        } else {
            "string"
        };
        parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": {"type": schema}}));
    }
    let name = pack.route.name.as_str();
    json!({
        "operationId": operation_id(name, method),
        "summary": format!("{method} {name}"),
        "description": format!("Calls {name} with {method}."),
        "parameters": parameters,
        "responses": {
            "200": {"description": "The answer of the flow.", "schema": {"type": "object"}},
            "202": {"description": "The flow has been started and answers nothing."},
            "default": {"description": "Not accepted.", "schema": {"$ref": "#/definitions/Problem"}}
        }
    })
}

/// Names of the parameters of a path.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

/// Letters and digits alone, unique because names of routes are and methods differ.
fn operation_id(name: &str, method: &Method) -> String {
    let mut id = String::new();
    for word in method
        .as_str()
        .split('-')
        .chain(name.split(|c: char| !c.is_ascii_alphanumeric()))
    {
        let mut letters = word.chars();
        id.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        id.extend(letters.map(|letter| letter.to_ascii_lowercase()));
    }
    id
}

fn problem() -> Value {
    json!({
        "type": "object",
        "properties": {
            "title": {"type": "string", "description": "What happened."},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "Stable; see the page that the operator hands out."},
            "retryable": {"type": "boolean", "description": "Whether the same request may be sent again."},
            "run_started": {"type": "string", "description": "no, yes or unknown."},
            "retry_after": {"type": "integer", "description": "Seconds to wait."},
            "instance": {"type": "string", "description": "Id of the request."}
        }
    })
}
