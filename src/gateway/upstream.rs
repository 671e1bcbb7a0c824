//! What is behind a route: the request target it gets.

use http::uri::PathAndQuery;

use crate::gateway::query::Reserved;
use crate::gateway::{Route, query};
use crate::model::TriggerUrl;
use crate::problem::{Kind, Problem};
use crate::settings::{QueryPass, RelativePath};

/// The target for the trigger: its own path and query as configured, and what the route lets through of the caller's.
pub(super) fn target(
    route: &Route,
    url: &TriggerUrl,
    rest: Option<&str>,
    caller_query: Option<&str>,
) -> Result<PathAndQuery, Problem> {
    let rest = rest.filter(|rest| route.relative_path == RelativePath::Appended && !rest.is_empty());
    if let (Some(open), Some(rest)) = (&route.api, rest) {
        open.admit(rest)?;
    }
    let base = match rest {
        Some(rest) => url.with_relative(rest).map_err(|error| {
            Problem::from(Kind::MalformedRequest).detail(format!("the rest of the path: {error}"))
        })?,
        None => url.path_and_query().clone(),
    };
    if caller_query.is_none() || route.query == QueryPass::None {
        return Ok(base);
    }
    let mut text = base.as_str().to_owned();
    let reserved = match route.api {
        Some(_) => Reserved::Tokens,
        None => Reserved::Triggers,
    };
    query::append(&mut text, caller_query, &route.query, reserved);
    if text.len() > query::TARGET_BYTES_MAX {
        return Err(Kind::TargetTooLong.into());
    }
    PathAndQuery::try_from(text).map_err(|_| Kind::MalformedRequest.into())
}
