//! One line for each request, written when its last byte has left or its caller has gone, whatever path led there:
//! the line is written on drop. Never in a line: bodies, query values, keys, tokens.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use crate::counters::{Counters, OutcomeLabels, Refused, RouteFigures};
use crate::flow::Age;
use crate::gateway::course::Course;
use crate::gateway::log::{Form, Log, SCHEMA_VERSION, json};
use crate::gateway::request_line::{End, Millis, RequestLine, text};
use crate::model::claims::cut;
use crate::model::{AnsweredBy, CallerName, KeyLabel, RequestId, clock};
use crate::problem::{Kind, Problem, Run};

/// Longest part of a method that is written; real ones are shorter.
const METHOD_BYTES_MAX: usize = 32;

/// Longest cause that is written. The longest of ours, with what a platform says of it, has about 2,000 characters.
const CAUSE_CHARS_MAX: usize = 4096;
/// The standard library writes the message of a panic, with its place in the code; the log does not get it.
const PANICKED: &str =
    "the gateway panicked, which is a bug in it. Report it with the panic message on standard error";

/// What is hidden of a path that no route has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMask {
    /// Segments that could be a secret by their length.
    LongSegments,
    /// All: callers may send keys in paths.
    All,
}

/// The line of one request as it grows. It is written when dropped.
pub struct Journal(Box<Line>);

struct Line {
    log: Log,
    counters: Counters,
    request: RequestId,
    started: Instant,
    address: IpAddr,
    protocol: &'static str,
    method: Method,
    route: Option<Arc<RouteFigures>>,
    caller: Option<CallerName>,
    key: Option<KeyLabel>,
    status: Option<u16>,
    /// The flow's, where the route has another one for callers.
    flow_status: Option<u16>,
    answer: Option<AnsweredBy>,
    problem: Option<Kind>,
    limit: Option<&'static str>,
    cause: Option<String>,
    target: Option<String>,
    progress: Option<Arc<Course>>,
    bytes_in: u64,
    bytes_out: u64,
    token_time: Option<Duration>,
    flow_time: Option<Duration>,
    body_time: Duration,
    run: Option<String>,
    /// None where it has no meaning: what an API did is its own affair.
    run_started: Option<Run>,
    duplicate_of: Option<RequestId>,
    handshake: Option<&'static str>,
    /// Of a request that only asked, what came of it.
    check: Option<&'static str>,
    /// The problem whose page was asked for.
    page: Option<&'static str>,
    upstream: Option<Age>,
    /// Whether the caller was answered before the flow did.
    is_overdue: bool,
    end: End,
}

impl Journal {
    pub fn open(
        log: &Log,
        counters: &Counters,
        address: IpAddr,
        protocol: &'static str,
        method: &Method,
    ) -> Self {
        Self(Box::new(Line {
            log: log.clone(),
            counters: counters.clone(),
            request: RequestId::new(),
            started: clock::now(),
            address,
            protocol,
            method: method.clone(),
            route: None,
            caller: None,
            key: None,
            status: None,
            flow_status: None,
            answer: None,
            problem: None,
            limit: None,
            cause: None,
            target: None,
            progress: None,
            bytes_in: 0,
            bytes_out: 0,
            token_time: None,
            flow_time: None,
            body_time: Duration::ZERO,
            run: None,
            run_started: Some(Run::No),
            duplicate_of: None,
            handshake: None,
            check: None,
            page: None,
            upstream: None,
            is_overdue: false,
            end: End::CallerGone,
        }))
    }

    pub fn request(&self) -> RequestId {
        self.0.request
    }

    /// When the request began to be handled.
    pub(super) fn started(&self) -> Instant {
        self.0.started
    }

    pub fn route(&mut self, figures: &Arc<RouteFigures>) {
        self.0.route = Some(figures.clone());
    }

    pub fn caller(&mut self, name: &CallerName, key: Option<&KeyLabel>) {
        self.0.caller = Some(name.clone());
        self.0.key = key.cloned();
    }

    /// Notes the path of a request that no route has. Long segments are masked: they could be somebody's secret; where keys are
    /// sent in paths, all are.
    pub fn target(&mut self, path: &str, mask: PathMask) {
        if !self.is_written() {
            return;
        }
        let mut text = String::new();
        for segment in path.split('/').skip(1).take(8) {
            let plain = mask == PathMask::LongSegments
                && segment.len() <= 16
                && segment.bytes().all(|byte| byte.is_ascii_graphic());
            text.push('/');
            text.push_str(if plain { segment } else { "***" });
        }
        self.0.target = Some(text);
    }

    /// Notes whose challenge it is: the name of a row, never what the request says.
    pub(super) fn handshake(&mut self, vendor: &'static str) {
        self.0.handshake = Some(vendor);
    }

    /// Notes that it was a check, which starts nothing, and what came of it.
    pub(super) fn check(&mut self, result: &'static str) {
        self.0.check = Some(result);
    }

    /// Notes the problem that was the answer before the flow gave one. What comes later adds to it.
    pub(super) fn overdue(&mut self, problem: &Problem, bytes: u64) {
        let known = self.0.run_started;
        self.problem(problem);
        self.0.run_started = known;
        self.answered(problem.kind().row().status.as_u16(), AnsweredBy::Gateway);
        self.0.bytes_out = bytes;
        self.0.is_overdue = true;
    }

    /// Notes whose page was asked for: the code of a row, never what the request says.
    pub(super) fn page(&mut self, code: &'static str) {
        self.0.page = Some(code);
    }

    /// Notes the problem that is the answer, or the reason that there is none.
    pub fn problem(&mut self, problem: &Problem) {
        if self.0.is_overdue {
            let first = self.0.cause.take().unwrap_or_default();
            let then = (problem.kind().row().code, problem.cause().unwrap_or_default());
            self.0.run_started = Some(problem.run_started());
            return self.cause(format!("{first} Afterwards: {}: {}", then.0, then.1));
        }
        self.0.problem = Some(problem.kind());
        self.0.limit = problem.limit_name();
        self.0.run_started = Some(problem.run_started());
        if let Some((name, key)) = problem.caller() {
            self.caller(name, key);
        }
        if let Some(cause) = problem.cause().or(problem.explanation()) {
            self.cause(cause);
        }
        match self.0.refused() {
            Some(refused) => {
                refused.refusals.inc();
            }
            None => self.0.counters.refused(problem.kind().row().code),
        }
    }

    /// Adds to what the log knows about the cause.
    pub fn cause(&mut self, cause: impl Into<String>) {
        if self.is_written() {
            self.0.cause = Some(cut(cause.into(), CAUSE_CHARS_MAX));
        }
    }

    /// Notes the body's progress; its bytes are read at the end.
    pub(super) fn body(&mut self, progress: &Arc<Course>, took: Duration) {
        self.0.progress = Some(progress.clone());
        self.0.body_time += took;
    }

    /// Notes bytes of a body that was read but went nowhere.
    pub fn discarded(&mut self, bytes: u64) {
        self.0.bytes_in += bytes;
    }

    /// Notes time spent on waiting for others than the token and the flow.
    pub(super) fn waited(&mut self, time: Duration) {
        self.0.body_time += time;
    }

    pub fn token_time(&mut self, time: Duration) {
        self.0.token_time = Some(self.0.token_time.unwrap_or_default() + time);
    }

    pub fn flow_time(&mut self, time: Duration, age: Age) {
        if let Some(figures) = &self.0.route {
            figures.flow_time.observe(time.as_secs_f64());
        }
        self.0.flow_time = Some(self.0.flow_time.unwrap_or_default() + time);
        self.0.upstream = Some(age);
    }

    /// Notes the request that was the first of the same delivery: this one gets its answer and starts nothing.
    pub(super) fn duplicate(&mut self, first: RequestId) {
        self.0.duplicate_of = Some(first);
        if let Some(figures) = &self.0.route {
            figures.duplicates.inc();
        }
    }

    /// Counts a request that is sent once more with a fresh token.
    pub fn resent(&self) {
        self.0.counters.token_retries.inc();
    }

    /// Notes that the request begins to leave: a run can start from now on.
    pub(super) fn sending(&mut self) {
        self.0.run_started = Some(Run::Unknown);
    }

    /// Notes that nothing of it has left after all.
    pub(super) fn unsent(&mut self) {
        self.0.run_started = Some(Run::No);
    }

    pub fn run(&mut self, run: Option<String>) {
        if run.is_some() {
            self.0.run_started = Some(Run::Yes);
            self.0.run = run;
        }
    }

    /// Notes the answer's status and who gave it. What was spent until now, and not on waiting for others, is the
    /// gateway's own time.
    pub fn answered(&mut self, status: u16, by: AnsweredBy) {
        let line = &mut self.0;
        if line.is_overdue {
            // Of our own problems the line has the code in its cause.
            line.flow_status = Some(status).filter(|_| by != AnsweredBy::Gateway);
            return;
        }
        line.status = Some(status);
        line.answer = Some(by);
        if by == AnsweredBy::Api {
            line.run_started = None;
        }
        let waited =
            line.flow_time.unwrap_or_default() + line.token_time.unwrap_or_default() + line.body_time;
        let own = line.started.elapsed().saturating_sub(waited);
        line.counters.own_time.observe(own.as_secs_f64());
    }

    /// Notes the status of the flow, whose place another one takes.
    pub(super) fn flow_status(&mut self, status: u16) {
        self.0.flow_status = Some(status);
    }

    pub fn sent(&mut self, bytes: u64) {
        if !self.0.is_overdue {
            self.0.bytes_out += bytes;
        }
    }

    pub fn complete(&mut self) {
        // The answer of a call whose caller has gone is read to its end, but nobody got it.
        let abandoned = self
            .0
            .progress
            .as_ref()
            .is_some_and(|progress| progress.is_abandoned());
        self.0.end = if abandoned { End::CallerGone } else { End::Complete };
    }

    /// Notes that the answer broke off on the flow's side.
    pub fn cut(&mut self, cause: impl Into<String>) {
        self.0.end = End::FlowCut;
        self.cause(cause);
    }

    /// Notes that the gateway panicked. What is known of the run stays, and so does an answer that was noted before;
    /// where none was, the caller gets one that is written without this line.
    fn failed(&mut self) {
        let known = self.0.run_started;
        self.problem(&Problem::from(Kind::Internal).because(PANICKED));
        self.0.run_started = known;
        if self.0.status.is_none() {
            self.answered(Kind::Internal.row().status.as_u16(), AnsweredBy::Gateway);
            self.complete();
        }
    }

    fn is_written(&self) -> bool {
        self.0.log.requests().is_some()
    }
}

impl Line {
    fn bytes_in(&self) -> u64 {
        self.bytes_in + self.progress.as_ref().map_or(0, |progress| progress.bytes())
    }

    /// What is counted for its problem, if it has one and its route is known.
    fn refused(&self) -> Option<&Refused> {
        let (route, kind) = (self.route.as_deref()?, self.problem?);
        self.counters.of_refusal(route, kind as usize, kind.row().code)
    }

    fn count(&self) {
        let minute = self.counters.minute();
        if self.handshake.is_some() && self.problem.is_none() {
            self.counters.webhook_handshakes.inc();
        }
        if self.check.is_some() {
            self.counters.checks.inc();
        }
        if self.page.is_some() {
            self.counters.problem_pages.inc();
        } else if self.route.is_none() {
            self.counters.without_route.add(minute);
        }
        let outcome = match (self.problem, self.end) {
            (Some(kind), _) => match self.refused() {
                Some(refused) => {
                    refused.requests.inc();
                    refused.recent.add(minute);
                    return;
                }
                None => kind.row().code,
            },
            (None, End::Complete) => match &self.route {
                Some(figures) => {
                    figures.answered.inc();
                    // A check says nothing about calls.
                    if self.check.is_none() {
                        figures.recently_answered.add(minute);
                    }
                    return;
                }
                None => "answered",
            },
            (None, End::CallerGone) => "caller-gone",
            (None, End::FlowCut) => "flow-cut",
            (None, End::Stopped) => "stopped",
        };
        if let Some(figures) = &self.route {
            match self.end {
                End::CallerGone => figures.recently_gone.add(minute),
                End::FlowCut => figures.recently_cut.add(minute),
                End::Complete | End::Stopped => {}
            }
        }
        let route = self
            .route
            .as_ref()
            .map_or_else(|| "-".into(), |figures| figures.route.clone());
        self.counters
            .requests
            .get_or_create(&OutcomeLabels { route, outcome })
            .inc();
    }

    fn write(&self) {
        let Some(sink) = self.log.requests() else { return };
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let line = RequestLine {
            v: SCHEMA_VERSION,
            time: clock::stamp(),
            kind: "request",
            request: self.request.to_string(),
            route: self.route.as_ref().map(|figures| &*figures.route),
            caller: self.caller.as_ref().map(CallerName::as_str),
            key: self.key.as_ref().map(KeyLabel::as_str),
            address: self.address,
            protocol: self.protocol,
            method: self
                .method
                .as_str()
                .get(..METHOD_BYTES_MAX)
                .unwrap_or(self.method.as_str()),
            status: self.status,
            flow_status: self.flow_status,
            answer: self.answer,
            problem: self.problem.map(|kind| kind.row().code),
            limit: self.limit,
            cause: self.cause.as_deref(),
            target: self.target.as_deref(),
            bytes_in: self.bytes_in(),
            bytes_out: self.bytes_out,
            ms: Millis {
                total: millis(self.started.elapsed()),
                token: self.token_time.map(millis),
                flow: self.flow_time.map(millis),
            },
            run: self.run.as_deref(),
            run_started: self.run_started,
            duplicate_of: self.duplicate_of.map(|first| first.to_string()),
            handshake: self.handshake,
            check: self.check,
            page: self.page,
            upstream: self.upstream.map(|age| match age {
                Age::New => "new",
                Age::Reused => "reused",
            }),
            end: self.end,
        };
        match self.log.form() {
            Form::Json => sink.line(&json(&line)),
            Form::Text => sink.line(text(&line).as_bytes()),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed();
        }
        if self.0.end == End::CallerGone && self.0.log.is_stopping() {
            self.0.end = End::Stopped;
        }
        self.0.count();
        self.0.write();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::panic::AssertUnwindSafe;
    use std::sync::{Arc, Mutex};

    use http::Method;
    use serde_json::json;

    use super::{Journal, PathMask};
    use crate::counters::Counters;
    use crate::gateway::log::{ConnectionLine, Form, Log, Sink};
    use crate::model::AnsweredBy;
    use crate::problem::{Kind, Problem};

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Sink for Lines {
        fn line(&self, line: &[u8]) {
            self.0
                .lock()
                .unwrap()
                .push(String::from_utf8(line.to_vec()).unwrap());
        }

        fn dropped(&self) -> u64 {
            7
        }
    }

    fn journal(form: Form) -> (Arc<Lines>, Journal) {
        let lines = Arc::new(Lines::default());
        let log = Log::new(lines.clone(), form);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        (
            lines,
            Journal::open(&log, &Counters::new(), address, "h1", &Method::POST),
        )
    }

    #[tokio::test]
    async fn a_line_is_written_once_whatever_happened() {
        let (lines, mut journal) = journal(Form::Json);
        journal.answered(200, AnsweredBy::Flow);
        journal.complete();
        drop(journal);
        let written = lines.0.lock().unwrap();
        assert_eq!(written.len(), 1);
        let line: serde_json::Value = serde_json::from_str(&written[0]).unwrap();
        assert_eq!(line["v"], 1);
        assert_eq!(line["end"], "complete");
        assert_eq!(line["answer"], "flow");
    }

    #[tokio::test]
    async fn both_forms_have_the_status_of_the_flow_where_another_was_sent() {
        for (form, part) in [
            (Form::Json, "\"flow_status\":201"),
            (Form::Text, " flow_status=201 "),
        ] {
            let (lines, mut journal) = journal(form);
            journal.flow_status(201);
            journal.answered(200, AnsweredBy::Flow);
            drop(journal);
            let written = lines.0.lock().unwrap();
            assert!(written[0].contains(part), "{}", written[0]);
        }
    }

    #[tokio::test]
    async fn a_caller_that_leaves_is_told_apart() {
        let (lines, journal) = journal(Form::Json);
        drop(journal);
        assert!(lines.0.lock().unwrap()[0].contains(r#""end":"caller-gone""#));
    }

    #[tokio::test]
    async fn after_a_panic_the_line_says_that_the_gateway_failed() {
        let (lines, mut journal) = journal(Form::Json);
        journal.sending();
        let way = AssertUnwindSafe(move || {
            let _journal = journal;
            panic!("expected by this test");
        });
        std::panic::catch_unwind(way).unwrap_err();
        let line: serde_json::Value = serde_json::from_str(&lines.0.lock().unwrap()[0]).unwrap();
        let facts = ["problem", "status", "answer", "run_started", "end"].map(|key| &line[key]);
        assert_eq!(
            facts,
            [
                &json!("internal"),
                &json!(500),
                &json!("gateway"),
                &json!("unknown"),
                &json!("complete")
            ]
        );
        let cause = line["cause"].as_str().unwrap();
        assert!(
            cause.contains("panicked") && cause.contains("Report it"),
            "{cause}"
        );
    }

    #[tokio::test]
    async fn a_cause_cannot_break_out_of_its_line() {
        for form in [Form::Json, Form::Text] {
            let (lines, mut journal) = journal(form);
            journal.problem(&Problem::from(Kind::FlowFailed).because("a\nb\u{1b}[31m\"c"));
            drop(journal);
            let line = lines.0.lock().unwrap()[0].clone();
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.contains('\u{1b}'), "{line:?}");
        }
    }

    #[tokio::test]
    async fn a_long_segment_of_an_unknown_path_is_masked() {
        let (lines, mut journal) = journal(Form::Json);
        journal.target(
            "/hooks/0123456789abcdef0123456789abcdef/x",
            PathMask::LongSegments,
        );
        drop(journal);
        assert!(lines.0.lock().unwrap()[0].contains("/hooks/***/x"));
    }

    #[tokio::test]
    async fn without_lines_of_requests_those_of_connections_are_written() {
        for form in [Form::Json, Form::Text] {
            let lines = Arc::new(Lines::default());
            let log = Log::without_requests(lines.clone(), form);
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let counters = Counters::new();
            let mut journal = Journal::open(&log, &counters, address, "h1", &Method::POST);
            journal.target("/x", PathMask::LongSegments);
            journal.problem(&Problem::from(Kind::FlowFailed).because("why"));
            assert_eq!((&journal.0.target, &journal.0.cause), (&None, &None));
            drop(journal);
            assert!(lines.0.lock().unwrap().is_empty());
            log.connection(&ConnectionLine::new(address, "too-old", None));
            assert_eq!(lines.0.lock().unwrap().len(), 1);
            assert_eq!(log.dropped(), 7);
            assert!(
                counters.render().contains("outcome=\"flow-failed\""),
                "it is counted"
            );
        }
    }
}
