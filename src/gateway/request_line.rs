//! The line of a request as it is written: its fields, and its form for people.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use crate::model::AnsweredBy;
use crate::problem::Run;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum End {
    /// The last byte of the answer has left.
    Complete,
    CallerGone,
    /// The answer broke off on the flow's side.
    FlowCut,
    /// The gateway stopped before the request had ended.
    Stopped,
}

#[derive(Debug, Serialize)]
pub(super) struct Millis {
    pub(super) total: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flow: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct RequestLine<'a> {
    pub(super) v: u8,
    pub(super) time: String,
    pub(super) kind: &'static str,
    pub(super) request: String,
    pub(super) route: Option<&'a str>,
    pub(super) caller: Option<&'a str>,
    pub(super) key: Option<&'a str>,
    pub(super) address: IpAddr,
    pub(super) protocol: &'static str,
    pub(super) method: &'a str,
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flow_status: Option<u16>,
    pub(super) answer: Option<AnsweredBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<&'a str>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) ms: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run_started: Option<Run>,
    /// The first request of the same delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duplicate_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handshake: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) check: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) page: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<&'static str>,
    pub(super) end: End,
}

/// The line for people: the same facts, the usual ones first.
pub(super) fn text(line: &RequestLine<'_>) -> String {
    let mut text = String::with_capacity(160);
    let or_dash = |field: Option<&str>| field.unwrap_or("-").to_owned();
    let status = line.status.map_or("---".to_owned(), |status| status.to_string());
    let _ = write!(
        text,
        "{} {} {} {} {} {} {}ms",
        line.time,
        line.address,
        line.method.escape_default(),
        or_dash(line.route),
        or_dash(line.caller),
        status,
        line.ms.total
    );
    let mut field = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            // Causes can quote what others sent; control characters must not reach a terminal.
            let _ = write!(text, " {name}={}", value.escape_debug());
        }
    };
    field("problem", line.problem);
    field("run", line.run);
    field("run_started", line.run_started.map(Run::as_str));
    let flow_status = line.flow_status.map(|status| status.to_string());
    field("flow_status", flow_status.as_deref());
    field("duplicate_of", line.duplicate_of.as_deref());
    field("handshake", line.handshake);
    field("check", line.check);
    field("page", line.page);
    field("cause", line.cause);
    field("target", line.target);
    field("request", Some(&line.request));
    text.push('\n');
    text
}
