//! Requests of one HTTP/2 connection, handed to the gateway, and its answers made hyper's.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;

use crate::gateway::{Call, Inbound};
use crate::server::http2::answer::RunningBody;
use crate::server::http2::line::{Line, Running};
use crate::server::http2::unread::Rest;
use crate::wire::Defect;

const OUTER_BLANKS: &str = "the value of a header field begins or ends with a blank";
const QUOTED_NAME: &str = "the name of a header field has a quotation mark";

/// Hands requests of one connection to the gateway.
pub(super) struct Requests(pub(super) Arc<Line>);

impl Service<Request<Incoming>> for Requests {
    type Response = Response<RunningBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (head, body) = request.into_parts();
        let (body, rest) = match body.is_end_stream() {
            true => (Inbound::Whole(Bytes::new()), None),
            false => {
                let (body, rest) = Rest::of(body, &self.0.discarding);
                let body = Inbound::Http2(Box::pin(body), self.0.standstill.clone());
                (body, Some(rest))
            }
        };
        let running = Running::begin(&self.0, rest);
        let is_head = head.method == Method::HEAD;
        let defect = defect_of(&head.headers);
        let request = Request::from_parts(head, body);
        Answering {
            call: self.0.shared.gateway.handle(request, &self.0.via, defect),
            running: Some(running),
            is_head,
        }
    }
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

/// A request that is being answered.
pub(super) struct Answering {
    call: Call,
    running: Option<Running>,
    /// Whether the head of the answer is all that is wanted.
    is_head: bool,
}

impl Future for Answering {
    type Output = Result<Response<RunningBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let is_known = |running: &Running| running.line.via.is_known();
        let was_known = self.running.as_ref().is_some_and(is_known);
        let polled = Pin::new(&mut self.call).poll(cx);
        if let Some(running) = &self.running
            && !was_known
            && is_known(running)
        {
            running.line.gate.changed();
        }
        let response = std::task::ready!(polled);
        match self.running.take() {
            Some(running) => {
                if let Some(rest) = &running.rest {
                    rest.answered(&running.line.discarding);
                }
                let mut response = response;
                if self.is_head
                    && let Some(bytes) = response.body_mut().omit()
                {
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
                Poll::Ready(Ok(response.map(|body| RunningBody::new(body, running))))
            }
            // It is over; whoever asks again gets nothing more.
            None => Poll::Pending,
        }
    }
}
