//! Requests of one HTTP/2 connection, handed to the gateway, and its answers made hyper's.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::service::Service;

use crate::gateway::{AnswerBody, Call, Inbound};
use crate::server::http2::answer::RunningBody;
use crate::server::http2::line::{Line, Running};
use crate::server::http2::unread::Rest;
use crate::wire::Defect;

const OUTER_BLANKS: &str = "the value of a header field begins or ends with a blank";
const QUOTED_NAME: &str = "the name of a header field has a quotation mark";

/// Stated length of bodies of which the first piece is taken with the head: what one frame has room for.
const WHOLE_BYTES_MAX: u64 = 16 * 1024;

pub(super) struct Requests(pub(super) Arc<Line>);

impl Service<Request<Incoming>> for Requests {
    type Response = Response<RunningBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Answering {
            is_head: request.method() == Method::HEAD,
            running: Some(Running::begin(&self.0)),
            step: Step::Arrived(Some(request)),
        }
    }
}

/// The body of a request for the gateway, and what becomes of its rest. A small one has usually come with its head:
/// then it is taken as a whole, and there is no rest.
fn open(mut body: Incoming, line: &Line, cx: &mut Context<'_>) -> (Inbound, Option<Arc<Rest>>) {
    if body.is_end_stream() {
        return (Inbound::Whole(Bytes::new()), None);
    }
    let mut first = None;
    if body
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes <= WHOLE_BYTES_MAX)
        && let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(cx)
    {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) if body.is_end_stream() => return (Inbound::Whole(data), None),
            Ok(Ok(data)) => first = Some(Ok(Frame::data(data))),
            Ok(Err(trailers)) => first = Some(Ok(trailers)),
            Err(error) => first = Some(Err(error)),
        }
    }
    let (body, rest) = Rest::of(body, first, &line.discarding);
    let body = Inbound::Http2(Box::pin(body), line.standstill.clone());
    (body, Some(rest))
}

/// What no field may have (RFC 9113 section 8.2.1) and h2 lets pass.
fn defect_of(fields: &HeaderMap) -> Option<Defect> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let defect = fields.iter().find_map(|(name, value)| {
        let value = value.as_bytes();
        if is_blank(value.first()) || is_blank(value.last()) {
            return Some(OUTER_BLANKS);
        }
        name.as_str().contains('"').then_some(QUOTED_NAME)
    });
    defect.map(Defect::Malformed)
}

pub(super) struct Answering {
    step: Step,
    running: Option<Running>,
    /// Whether the head of the answer is all that is wanted.
    is_head: bool,
}

#[allow(
    clippy::large_enum_variant,
    reason = "it moves once, within its own box; another box would be an allocation a request"
)]
enum Step {
    /// Taken when it is called.
    Arrived(Option<Request<Incoming>>),
    Called(Call),
}

impl Future for Answering {
    type Output = Result<Response<RunningBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        let Some(running) = &mut me.running else {
            // It is over; anyone who asks again gets nothing more.
            return Poll::Pending;
        };
        let was_known = running.line.via.is_known();
        if let Step::Arrived(request) = &mut me.step
            && let Some(request) = request.take()
        {
            let (head, body) = request.into_parts();
            let defect = defect_of(&head.headers);
            let (body, rest) = open(body, &running.line, cx);
            running.rest = rest;
            let request = Request::from_parts(head, body);
            let line = &running.line;
            me.step = Step::Called(line.shared.gateway.handle(request, &line.via, defect));
        }
        let Step::Called(call) = &mut me.step else {
            return Poll::Pending;
        };
        let polled = Pin::new(call).poll(cx);
        if !was_known && running.line.via.is_known() {
            running.line.gate.changed();
        }
        let response = std::task::ready!(polled);
        if let Some(rest) = &running.rest {
            rest.answered(&running.line.discarding);
        }
        let Some(running) = me.running.take() else {
            return Poll::Pending;
        };
        let response = framed(response, me.is_head);
        Poll::Ready(Ok(response.map(|body| RunningBody::new(body, running))))
    }
}

/// An answer with the fields that frame it, and without a body where none is wanted.
fn framed(mut response: Response<AnswerBody>, is_head: bool) -> Response<AnswerBody> {
    if is_head && let Some(bytes) = response.body_mut().omit() {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, bytes.into());
    }
    if let Some(passed) = response.body_mut().take_passed() {
        passed.append_to(response.headers_mut());
    }
    if response.status() == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6, also where the flow says one.
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}
