//! A check: what a caller gets who asks with `x-flowgate-check: true` whether its request would start a flow. Here are the steps
//! that follow admission, and the answer. Nothing is sent to the flow, no delivery is claimed, no permit is taken.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde::Serialize;
use serde_json::Value;

use crate::flow::Load;
use crate::gateway::admission::Passage;
use crate::gateway::journal::Journal;
use crate::gateway::payload::Payload;
use crate::gateway::snapshot::Route;
use crate::gateway::steps::{CHECK, Findings, Step};
use crate::gateway::{bearer, forward};
use crate::model::RequestId;
use crate::problem::Problem;
use crate::settings::DeliveryId;

/// The first words of every answer, so that nobody takes it for that of the flow.
const NOTE: &str = "This is the answer to a check (x-flowgate-check): nothing was started.";

#[derive(Serialize)]
struct Report {
    check: &'static str,
    note: &'static str,
    checks: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    name: &'static str,
    result: &'static str,
    /// What the caller would have got.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Value>,
}

/// Makes the steps that are left, and answers with all of them.
pub(super) async fn conclude(
    mut findings: Findings,
    passage: Passage<'_>,
    journal: &mut Journal,
) -> Response<Bytes> {
    let Passage { head, route, .. } = passage;
    let payload = passage.payload.as_ref();
    if let Some(payload) = payload.filter(|_| has_id(route, &findings)) {
        let sent = (head, passage.rest, payload);
        let delivery = forward::delivery(route, sent, &passage.sender.who, passage.sender.delivery());
        findings.pass(Step::Delivery, delivery);
    }
    let load = payload.map_or(Load::Whole, Payload::load);
    let free = route.trigger.probe(passage.sender.holder, load);
    findings.pass(Step::Permit, free.map_err(Problem::from));
    // Nothing of the body is needed any more, and the token may have to be waited for.
    drop(passage);
    findings.pass(Step::Token, bearer::fitting_token(route, journal).await);
    answer(route, findings, journal)
}

/// Whether the id of a delivery can be looked for: not in a body that was refused.
fn has_id(route: &Route, findings: &Findings) -> bool {
    let by = route.duplicates.as_ref().map(|rules| &rules.settings.by);
    let is_in_body = matches!(by, Some(DeliveryId::Body | DeliveryId::Json(_)));
    !is_in_body || findings.has_passed(Step::BodyRules)
}

fn answer(route: &Route, findings: Findings, journal: &mut Journal) -> Response<Bytes> {
    let request = journal.request();
    let mut causes = Vec::new();
    let mut checks = Vec::with_capacity(Step::ALL.len());
    for (step, found) in findings.into_all() {
        let (result, problem) = match found {
            Some(Ok(())) => ("passed", None),
            Some(Err(problem)) => {
                let problem = route.problem(problem);
                causes.push(cause(step, &problem));
                ("failed", document(&problem, request))
            }
            None => ("skipped", None),
        };
        checks.push(Line {
            name: step.name(),
            result,
            problem,
        });
    }
    let result = if causes.is_empty() { "passed" } else { "failed" };
    journal.check(result);
    if !causes.is_empty() {
        journal.cause(causes.join("; "));
    }
    let report = Report {
        check: result,
        note: NOTE,
        checks,
    };
    // Serializing these plain fields into memory cannot fail; an empty body would still carry the result.
    let mut answer = Response::new(serde_json::to_vec(&report).unwrap_or_default().into());
    let headers = answer.headers_mut();
    headers.insert(CHECK, HeaderValue::from_static(result));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// The body of the answer that the problem would have been.
fn document(problem: &Problem, request: RequestId) -> Option<Value> {
    serde_json::from_slice(problem.answer(request).body()).ok()
}

/// What failed, for the log alone.
fn cause(step: Step, problem: &Problem) -> String {
    let why = problem.cause().or(problem.explanation()).unwrap_or_default();
    format!("{}: {problem}: {why}", step.name())
}
