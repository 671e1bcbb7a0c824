//! A problem on its way out: its public row, and beside it what only the log may know.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::model::claims::cut;
use crate::model::{CallerName, KeyLabel, ProblemPages, RequestId};
use crate::problem::{Again, Kind, Run};

/// What the `RateLimit` fields say about the limit that refused.
#[derive(Debug, Clone)]
pub struct LimitNotice {
    /// Name of the limit: `address`, `handshake`, `page`, `check`, `caller`, `route` or `gateway`.
    pub name: &'static str,
    pub quota: u32,
    /// The window in whole seconds, at least 1.
    pub window_seconds: u64,
}

#[derive(Debug, Default)]
struct Inner {
    cause: Option<Cow<'static, str>>,
    detail: Option<String>,
    wait: Option<Duration>,
    again: Option<Again>,
    run: Option<Run>,
    caller: Option<(CallerName, Option<KeyLabel>)>,
    allow: Option<HeaderValue>,
    limit: Option<LimitNotice>,
    contact: Option<Arc<str>>,
    pages: Option<Arc<str>>,
}

/// An answer the gateway gives itself: a public row, and beside it what only the log may know.
#[derive(Debug)]
pub struct Problem {
    kind: Kind,
    // Boxed on first use: a bare problem stays two words, and `Result` small.
    inner: Option<Box<Inner>>,
}

impl From<Kind> for Problem {
    // Every branch that leads here is the unusual one: the code of requests that pass then lies together, in fewer cache lines.
    #[cold]
    fn from(kind: Kind) -> Self {
        Self { kind, inner: None }
    }
}

/// Longest sentence for the caller. Ours are far shorter, but what they quote is the caller's. Characters.
const DETAIL_CHARS_MAX: usize = 512;
/// Room in a body for the request's id and the numbers.
const BODY_BYTES_BESIDE: usize = 192;

/// The type of a problem without pages is this and its code.
pub const NAMES: &str = "urn:flowgate:problem:";

/// What follows the type in every body of one kind.
#[derive(Serialize)]
struct Beginning {
    title: &'static str,
    status: u16,
    code: &'static str,
    reason: &'static str,
}

/// The beginnings of bodies, each made when it is first needed: a refusal is what an attacker can have the most of.
static BEGINNINGS: [OnceLock<Box<[u8]>>; Kind::ALL.len()] = [const { OnceLock::new() }; Kind::ALL.len()];

impl Kind {
    /// A JSON object without its end and without its opening brace.
    fn beginning(self) -> &'static [u8] {
        let make = || {
            let row = self.row();
            let beginning = Beginning {
                title: row.title,
                status: row.status.as_u16(),
                code: row.code,
                reason: row.reason.as_str(),
            };
            // Serializing these plain fields into memory cannot fail; an empty body would still carry the status.
            let mut text = serde_json::to_vec(&beginning).unwrap_or_default();
            text.pop();
            text.drain(..1.min(text.len()));
            text.into()
        };
        BEGINNINGS
            .get(self as usize)
            .map_or(b"", |beginning| beginning.get_or_init(make))
    }
}

impl Problem {
    fn inner(&mut self) -> &mut Inner {
        self.inner.get_or_insert_default()
    }

    /// Adds what happened inside, for the log alone.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cow<'static, str>>) -> Self {
        self.inner().cause = Some(cause.into());
        self
    }

    /// Adds a sentence for the caller, made of nothing but the caller's own data and the public rules of the route.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.inner().detail = Some(cut(detail.into(), DETAIL_CHARS_MAX));
        self
    }

    /// Adds how long the caller should wait; it is rounded up to whole seconds and is at least one.
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.inner().wait = Some(wait);
        self
    }

    /// Says otherwise than the row whether the same request may be sent again.
    #[must_use]
    pub fn again(mut self, again: Again) -> Self {
        self.inner().again = Some(again);
        self
    }

    /// Says otherwise than the kind whether a run was started.
    #[must_use]
    pub fn run(mut self, run: Run) -> Self {
        self.inner().run = Some(run);
        self
    }

    /// Names the known caller that is refused, and its key, for the log alone.
    #[must_use]
    pub fn of_caller(mut self, name: CallerName, key: Option<KeyLabel>) -> Self {
        self.inner().caller = Some((name, key));
        self
    }

    /// Adds the methods that the address accepts (RFC 9110 section 10.2.1).
    #[must_use]
    pub fn allow(mut self, methods: HeaderValue) -> Self {
        self.inner().allow = Some(methods);
        self
    }

    #[must_use]
    pub fn limit(mut self, notice: LimitNotice) -> Self {
        self.inner().limit = Some(notice);
        self
    }

    /// Adds whom the caller can ask.
    #[must_use]
    pub fn contact(mut self, contact: &Arc<str>) -> Self {
        self.inner().contact = Some(contact.clone());
        self
    }

    /// Makes its type the address of its page.
    #[must_use]
    pub fn pages(mut self, pages: &ProblemPages) -> Self {
        self.inner().pages = Some(pages.base().clone());
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn cause(&self) -> Option<&str> {
        self.inner.as_ref()?.cause.as_deref()
    }

    pub fn caller(&self) -> Option<(&CallerName, Option<&KeyLabel>)> {
        let (name, key) = self.inner.as_ref()?.caller.as_ref()?;
        Some((name, key.as_ref()))
    }

    pub fn run_started(&self) -> Run {
        let stated = self.inner.as_ref().and_then(|inner| inner.run);
        stated.unwrap_or(self.kind.run())
    }

    pub fn explanation(&self) -> Option<&str> {
        self.inner.as_ref()?.detail.as_deref()
    }

    pub fn limit_name(&self) -> Option<&'static str> {
        Some(self.inner.as_ref()?.limit.as_ref()?.name)
    }

    pub fn wait_time(&self) -> Option<Duration> {
        self.inner.as_ref()?.wait
    }

    fn retry_after(&self) -> Option<u64> {
        let wait = self.wait_time()?;
        // Rounded up: a caller that waits the time it was given must not be refused again.
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    pub fn retryable(&self) -> bool {
        let stated = self.inner.as_ref().and_then(|inner| inner.again);
        stated.unwrap_or(self.kind.row().again) == Again::Later
    }

    pub fn answer(&self, request: RequestId) -> http::Response<Bytes> {
        let beginning = self.kind.beginning();
        let detail = self.explanation();
        let contact = self.inner.as_ref().and_then(|inner| inner.contact.as_deref());
        // The address was checked when it was read: nothing in it ends a text.
        let pages = self.inner.as_ref().and_then(|inner| inner.pages.as_deref());
        let pages = pages.unwrap_or(NAMES);
        let texts = [("detail", detail), ("contact", contact)];
        let texts_bytes: usize = texts
            .iter()
            .filter_map(|(_, text)| Some(text.as_ref()?.len()))
            .sum();
        let mut body = Vec::with_capacity(pages.len() + beginning.len() + texts_bytes + BODY_BYTES_BESIDE);
        body.extend_from_slice(b"{\"type\":\"");
        body.extend_from_slice(pages.as_bytes());
        body.extend_from_slice(self.kind.row().code.as_bytes());
        body.extend_from_slice(b"\",");
        body.extend_from_slice(beginning);
        for (name, text) in texts {
            let Some(text) = text else { continue };
            body.extend_from_slice(b",\"");
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(b"\":");
            // Writing a text into memory cannot fail.
            let _ = serde_json::to_writer(&mut body, text);
        }
        body.extend_from_slice(b",\"instance\":\"urn:uuid:");
        body.extend_from_slice(request.encode(&mut [0; 36]).as_bytes());
        body.extend_from_slice(match self.retryable() {
            true => b"\",\"retryable\":true",
            false => b"\",\"retryable\":false",
        });
        body.extend_from_slice(b",\"run_started\":\"");
        body.extend_from_slice(self.run_started().as_str().as_bytes());
        body.push(b'"');
        if let Some(seconds) = self.retry_after() {
            use std::io::Write as _;
            let _ = write!(body, ",\"retry_after\":{seconds}");
        }
        body.push(b'}');
        let mut response = http::Response::new(Bytes::from(body));
        *response.status_mut() = self.kind.row().status;
        self.fill(response.headers_mut());
        response
    }

    fn fill(&self, headers: &mut HeaderMap) {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.kind.row().status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1 demands a challenge; the scheme is ours, the code says what was wrong.
            let challenge = match self.kind {
                Kind::KeyMissing => "ApiKey realm=\"flowgate\"",
                Kind::KeyExpired => "ApiKey realm=\"flowgate\", error=\"key-expired\"",
                Kind::KeysDiffer => "ApiKey realm=\"flowgate\", error=\"keys-differ\"",
                _ => "ApiKey realm=\"flowgate\", error=\"key-unknown\"",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let Some(inner) = &self.inner else { return };
        if let Some(allow) = &inner.allow {
            headers.insert(header::ALLOW, allow.clone());
        }
        if let Some(limit) = &inner.limit {
            let reset = self.retry_after().unwrap_or(1);
            let policy = format!("\"{}\";q={};w={}", limit.name, limit.quota, limit.window_seconds);
            let state = format!("\"{}\";r=0;t={reset}", limit.name);
            if let (Ok(policy), Ok(state)) = (HeaderValue::try_from(policy), HeaderValue::try_from(state)) {
                headers.insert("ratelimit-policy", policy);
                headers.insert("ratelimit", state);
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.row().code)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Again, Kind, LimitNotice, Problem};
    use crate::model::RequestId;

    #[test]
    fn a_problem_tells_nothing_of_its_cause() {
        let problem = Problem::from(Kind::TokenRefused).because("canary-cause");
        let answer = problem.answer(RequestId::new());
        let body = String::from_utf8(answer.body().to_vec()).unwrap();
        assert!(!format!("{body} {:?}", answer.headers()).contains("canary"));
        assert_eq!(problem.cause(), Some("canary-cause"));
    }

    #[test]
    fn a_refused_rate_names_its_limit_and_the_time() {
        let notice = LimitNotice {
            name: "caller",
            quota: 10,
            window_seconds: 60,
        };
        let answer = Problem::from(Kind::RateLimited)
            .wait(Duration::from_millis(1500))
            .limit(notice)
            .answer(RequestId::new());
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["retry-after"], "2");
        assert_eq!(answer.headers()["ratelimit-policy"], "\"caller\";q=10;w=60");
        assert_eq!(answer.headers()["ratelimit"], "\"caller\";r=0;t=2");
        let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(body["retry_after"], 2);
        assert_eq!(body["retryable"], true);
        assert_eq!(body["reason"], "time");
    }

    #[test]
    fn every_body_is_one_object_with_all_its_fields() {
        for kind in Kind::ALL {
            let request = RequestId::new();
            let answer = Problem::from(*kind)
                .detail("a \"quoted\" \n line")
                .answer(request);
            let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
            let row = kind.row();
            assert_eq!(body["type"], format!("urn:flowgate:problem:{}", row.code));
            assert_eq!(
                (&body["title"], &body["status"]),
                (&row.title.into(), &row.status.as_u16().into())
            );
            assert_eq!(
                (&body["code"], &body["reason"]),
                (&row.code.into(), &row.reason.as_str().into())
            );
            assert_eq!(body["detail"], "a \"quoted\" \n line");
            assert_eq!(body["instance"], format!("urn:uuid:{request}"));
            assert_eq!(body["retryable"], row.again == Again::Later);
            assert_eq!(body["run_started"], kind.run().as_str());
            assert_eq!(body.get("retry_after"), None);
        }
    }

    #[test]
    fn a_contact_is_in_the_body() {
        let contact = "Ask \"Anna\" \\ mailto:a@b.example".into();
        let problem = Problem::from(Kind::KeyMissing).contact(&contact).detail("why");
        let answer = problem.answer(RequestId::new());
        let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(
            (&body["contact"], &body["detail"]),
            (&(*contact).into(), &"why".into())
        );
    }

    #[test]
    fn a_401_carries_a_challenge() {
        for kind in [
            Kind::KeyMissing,
            Kind::KeyUnknown,
            Kind::KeyExpired,
            Kind::KeysDiffer,
        ] {
            let answer = Problem::from(kind).answer(RequestId::new());
            assert!(answer.headers().contains_key("www-authenticate"));
        }
    }

    #[test]
    fn a_long_detail_is_cut() {
        let problem = Problem::from(Kind::MalformedRequest).detail("\u{e4}".repeat(100_000));
        assert!(problem.explanation().unwrap().chars().count() <= 513);
        assert!(problem.answer(RequestId::new()).body().len() < 4096);
    }

    #[test]
    fn an_override_decides_whether_to_send_again() {
        assert!(!Problem::from(Kind::FlowFailed).retryable());
        assert!(Problem::from(Kind::FlowFailed).again(Again::Later).retryable());
    }
}
