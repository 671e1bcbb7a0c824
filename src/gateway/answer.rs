//! The answer on its way to the caller: its body, and inside it the request's log line, which is written when the last
//! byte has left. It gives the upstream connection back once the flow's answer has ended.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::deliveries::KeptAnswer;
use crate::flow;
use crate::flow::outbound;
use crate::gateway::duplicates::Keeping;
use crate::gateway::journal::Journal;
use crate::model::{AnsweredBy, RequestId};
use crate::policy::Taken;
use crate::problem::{Kind, Problem};
use crate::wire::{BodyError, Fields};

/// How much of a failed answer is read to find out whose it is; every fault of the platform is far smaller. Bytes.
const JUDGED_BYTES_MAX: usize = 64 * 1024;
const JUDGED_TIME: Duration = Duration::from_secs(10);
/// How long a caller waits for the end of an answer that it does not get; a new connection takes less.
const DISCARDED_TIME: Duration = Duration::from_millis(200);

/// Id of the request, for the caller's support ticket.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Who gave the answer: `gateway`, `platform`, `flow` or `api`.
pub(super) const ANSWER: HeaderName = HeaderName::from_static("x-flowgate-answer");

/// Id of the request whose answer a duplicate gets.
const DUPLICATE_OF: HeaderName = HeaderName::from_static("x-flowgate-duplicate-of");

pub struct AnswerBody {
    source: AnswerSource,
    journal: Option<Journal>,
}

/// The fields of a flow's answer beside those in the head itself: they pass as they are, and no map is made of them.
#[derive(Debug)]
pub struct Passed {
    pub fields: Fields,
    request: RequestId,
    by: AnsweredBy,
}

impl Passed {
    /// Calls `take` with names and values in the order in which they go to the caller.
    pub fn each(&self, mut take: impl FnMut(&[u8], &[u8])) {
        for (name, value) in self.fields.iter() {
            take(name, value);
        }
        take(
            REQUEST_ID.as_str().as_bytes(),
            self.request.encode(&mut [0; 36]).as_bytes(),
        );
        take(ANSWER.as_str().as_bytes(), self.by.as_str().as_bytes());
    }

    pub fn append_to(&self, headers: &mut HeaderMap) {
        self.fields.append_to(headers);
        headers.insert(REQUEST_ID, outbound::format_id(self.request));
        headers.insert(ANSWER, HeaderValue::from_static(self.by.as_str()));
    }
}

enum AnswerSource {
    Own(Option<Bytes>),
    Flow(Box<FlowBody>),
}

pub(super) struct FlowBody {
    passed: Option<Passed>,
    /// Pieces read ahead while the answer was being judged.
    pub first: VecDeque<Bytes>,
    /// What is still to come, with the connection it comes over; none after the end.
    pub rest: Option<flow::AnswerBody>,
    /// The trigger's permit, held until the answer has ended.
    pub permit: Option<flow::Permit>,
    /// Time between two pieces.
    pub timeout: Duration,
    /// Runs while nothing arrives.
    pub timer: Option<Pin<Box<Sleep>>>,
    pub taken: Option<Taken>,
    /// Keeps a copy for duplicates of the request.
    pub keeping: Option<Box<Keeping>>,
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            AnswerSource::Own(_) => "AnswerBody::Own",
            AnswerSource::Flow(_) => "AnswerBody::Flow",
        })
    }
}

pub(super) fn problem(problem: &Problem, by: AnsweredBy, mut journal: Journal) -> Response<AnswerBody> {
    journal.problem(problem);
    own(problem.answer(journal.request()), by, journal)
}

/// The answer for a problem whose request has lost its line.
pub(super) fn without_line(problem: &Problem, request: RequestId) -> Response<AnswerBody> {
    of_bytes(problem.answer(request))
}

/// An answer without a line.
pub(super) fn of_bytes(answer: Response<Bytes>) -> Response<AnswerBody> {
    answer.map(|bytes| AnswerBody {
        source: AnswerSource::Own(Some(bytes)),
        journal: None,
    })
}

/// The answer for a problem while the request goes on, with its line.
pub(super) fn early(problem: &Problem, request: RequestId) -> Response<Bytes> {
    let mut answer = problem.answer(request);
    sign(&mut answer, request, AnsweredBy::Gateway);
    answer
}

fn sign<B>(answer: &mut Response<B>, request: RequestId, by: AnsweredBy) {
    let headers = answer.headers_mut();
    headers.insert(REQUEST_ID, outbound::format_id(request));
    headers.insert(ANSWER, HeaderValue::from_static(by.as_str()));
}

pub(super) fn own(mut answer: Response<Bytes>, by: AnsweredBy, mut journal: Journal) -> Response<AnswerBody> {
    journal.answered(answer.status().as_u16(), by);
    sign(&mut answer, journal.request(), by);
    let (head, bytes) = answer.into_parts();
    let body = AnswerBody {
        source: AnswerSource::Own(Some(bytes)),
        journal: Some(journal),
    };
    Response::from_parts(head, body.noticed())
}

/// The answer of the request that this one repeats.
pub(super) fn repeated(kept: &KeptAnswer, mut journal: Journal) -> Response<AnswerBody> {
    journal.duplicate(kept.request);
    let mut answer = Response::new(kept.body.clone());
    *answer.status_mut() = kept.status;
    let headers = answer.headers_mut();
    headers.extend(kept.fields.iter().cloned());
    headers.insert(DUPLICATE_OF, outbound::format_id(kept.request));
    own(answer, kept.by, journal)
}

/// An answer of the flow or the API, its head already filtered.
pub(super) fn passed(
    status: StatusCode,
    fields: Fields,
    mut body: Box<FlowBody>,
    by: AnsweredBy,
    mut journal: Journal,
) -> Response<AnswerBody> {
    journal.answered(status.as_u16(), by);
    body.passed = Some(Passed {
        fields,
        request: journal.request(),
        by,
    });
    let body = AnswerBody {
        source: AnswerSource::Flow(body),
        journal: Some(journal),
    };
    let mut response = Response::new(body.noticed());
    *response.status_mut() = status;
    response
}

impl AnswerBody {
    /// The fields that the writer of this answer adds to its head.
    pub fn take_passed(&mut self) -> Option<Passed> {
        match &mut self.source {
            AnswerSource::Flow(flow) => flow.passed.take(),
            AnswerSource::Own(_) => None,
        }
    }

    /// Leaves out the gateway's own words, as the answer to HEAD does; returns how many bytes they have (RFC 9110
    /// section 9.3.2). A flow was asked with HEAD as well, and sends none.
    pub fn omit(&mut self) -> Option<u64> {
        let AnswerSource::Own(bytes) = &mut self.source else {
            return None;
        };
        let omitted = bytes.take()?.len() as u64;
        self.finish();
        Some(omitted)
    }

    /// Without a body nobody polls for the end, so it is noted here.
    fn noticed(mut self) -> Self {
        if self.is_end_stream() {
            self.finish();
        }
        self
    }

    fn finish(&mut self) {
        if let Some(mut journal) = self.journal.take() {
            journal.complete();
        }
        if let AnswerSource::Flow(flow) = &mut self.source {
            if let Some(mut keeping) = flow.keeping.take() {
                keeping.finish();
            }
            flow.rest = None;
            flow.permit = None;
        }
    }

    fn sent(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(journal) = &mut self.journal {
            journal.sent(data.len() as u64);
        }
        if let AnswerSource::Flow(flow) = &mut self.source
            && let Some(keeping) = &mut flow.keeping
        {
            keeping.add(&data);
        }
        if self.is_end_stream() {
            self.finish();
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// Ends the answer visibly: the caller sees a broken transfer, not a short one that looks whole.
    fn cut(&mut self, cause: String) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(mut journal) = self.journal.take() {
            journal.cut(cause.clone());
        }
        if let AnswerSource::Flow(flow) = &mut self.source {
            flow.rest = None;
            flow.permit = None;
        }
        Poll::Ready(Some(Err(cause.into())))
    }

    /// Reads the rest of an answer whose caller has gone, so that its line records how it ended.
    pub async fn read_out(mut self) {
        use http_body_util::BodyExt;
        while let Some(Ok(_)) = self.frame().await {}
    }
}

impl FlowBody {
    pub(super) fn new(rest: flow::AnswerBody, permit: flow::Permit, timeout: Duration) -> Self {
        Self {
            passed: None,
            first: VecDeque::new(),
            rest: Some(rest),
            permit: Some(permit),
            timeout,
            timer: None,
            taken: None,
            keeping: None,
        }
    }

    /// Reads ahead in a failed answer, so that the fault table can look at it. What was read stays in the body.
    pub(super) async fn read_ahead(&mut self) -> Result<Bytes, Problem> {
        let deadline = Instant::now() + JUDGED_TIME;
        let mut seen = Vec::new();
        while let Some(rest) = &mut self.rest {
            match tokio::time::timeout_at(deadline, rest.data()).await {
                Ok(None) => self.rest = None,
                Ok(Some(Ok(data))) => {
                    seen.extend_from_slice(&data);
                    self.first.push_back(data);
                }
                // Nothing has gone to the caller yet, and the body itself would end quietly after its error.
                Ok(Some(Err(what))) => {
                    return Err(Problem::from(Kind::FlowConnectionLost).because(what));
                }
                Err(_) => break,
            }
            if seen.len() > JUDGED_BYTES_MAX {
                return Ok(Bytes::new());
            }
        }
        Ok(Bytes::from(seen))
    }

    /// Gives up what is left of an answer that nobody gets. It is read, so that its connection can serve again, as long as
    /// that is quick.
    pub(super) async fn discard(&mut self) {
        let deadline = Instant::now() + DISCARDED_TIME;
        let mut bytes = 0;
        while let Some(rest) = &mut self.rest
            && bytes <= JUDGED_BYTES_MAX
            && let Ok(Some(Ok(data))) = tokio::time::timeout_at(deadline, rest.data()).await
        {
            bytes += data.len();
        }
        self.first.clear();
        self.rest = None;
    }

    /// Bytes still to come, where that is known.
    fn length(&self) -> Option<u64> {
        let first: usize = self.first.iter().map(Bytes::len).sum();
        let rest = self.rest.as_ref().map_or(Some(0), flow::AnswerBody::length)?;
        Some(first as u64 + rest)
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let Poll::Ready(piece) = rest.poll_data(cx) else {
            let timeout = self.timeout;
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
            return timer.as_mut().poll(cx).map(|()| {
                Some(Err(format!(
                    "the flow sent nothing more of its answer for {timeout:?}"
                )))
            });
        };
        self.timer = None;
        Poll::Ready(piece)
    }
}

impl Drop for FlowBody {
    fn drop(&mut self) {
        // The permit goes last: while a connection is open, its trigger counts the request as under way.
        drop(self.rest.take());
        drop((self.permit.take(), self.taken.take()));
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = match &mut self.source {
            AnswerSource::Own(bytes) => bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok),
            AnswerSource::Flow(flow) => match flow.first.pop_front() {
                Some(bytes) => Some(Ok(bytes)),
                None => std::task::ready!(flow.poll_rest(cx)),
            },
        };
        match piece {
            Some(Ok(data)) => self.sent(data),
            Some(Err(cause)) => self.cut(cause),
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            AnswerSource::Own(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            AnswerSource::Flow(flow) => {
                flow.first.is_empty() && flow.rest.as_ref().is_none_or(flow::AnswerBody::is_over)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            AnswerSource::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            AnswerSource::Flow(flow) => flow.length().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
