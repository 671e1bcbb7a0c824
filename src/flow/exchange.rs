//! One request and its answer over one connection. A connection serves one exchange at a time, without a task of its
//! own: the task that waits for the answer moves the bytes. It decides whether the connection may serve again; anything unexpected
//! about an answer means that it may not.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body::Body;

use crate::flow::body::{Outgoing, Progress, StreamedBody};
use crate::flow::error::{Failed, FlowError};
use crate::flow::outbound::TRACKING_ID;
use crate::flow::pool::Lease;
use crate::model::{RequestId, clock};
use crate::wire;
use crate::wire::{Decoder, Defect, Fields, Framing, HeadEnd, Limits, Outbox, Piece, Scan, describe};

/// How large the head of an answer may be: a platform's has some 30 fields and 3 kB.
const ANSWER_LIMITS: Limits = Limits {
    bytes_max: 64 * 1024,
    fields_max: 256,
};
/// Answers of the 1xx class before the real one. None is asked for; a front end may send one or two.
const INTERIM_MAX: usize = 8;

pub struct Call {
    /// Request line and fields, without those that give the length and without the line that ends them.
    pub head: Vec<u8>,
    /// Its method: an answer to HEAD has no body.
    pub method: Method,
    pub body: Outgoing,
    /// The tracking id in its head; none towards an API.
    pub tracking: Option<RequestId>,
}

pub struct Answer {
    pub status: StatusCode,
    pub fields: Fields,
    pub body: AnswerBody,
}

/// The body of an answer. With its end the connection goes back to the pool; dropped before, it is closed.
pub struct AnswerBody {
    decoder: Decoder,
    held: BytesMut,
    lease: Option<Lease>,
    /// Whether the connection may serve again after the end.
    persists: bool,
}

/// Why a request does not leave whole.
enum Broken {
    /// Its body ended early: there is nothing to wait for.
    Body(String),
    /// The connection takes no more; an answer may have come before that.
    Connection(String),
}

struct Upload<'a> {
    outbox: Outbox,
    body: Option<StreamedBody>,
    chunked: bool,
    progress: Option<&'a Progress>,
}

impl<'a> Upload<'a> {
    fn new(call: Call, progress: Option<&'a Progress>) -> Self {
        let mut outbox = Outbox::default();
        *outbox.head() = call.head;
        let head = outbox.head();
        let mut upload = None;
        let mut chunked = false;
        let mut whole = Bytes::new();
        match call.body {
            Outgoing::Held(bytes) => {
                // RFC 9110 section 8.6: where a body is usual, its absence is said. Some front ends answer 411 otherwise.
                let usual = matches!(call.method, Method::POST | Method::PUT | Method::PATCH);
                if usual || !bytes.is_empty() {
                    length(head, bytes.len() as u64);
                }
                whole = bytes;
            }
            Outgoing::Streamed(body) => {
                match body.size_hint().exact() {
                    Some(bytes) => length(head, bytes),
                    None => {
                        chunked = true;
                        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
                    }
                }
                upload = Some(body);
            }
        }
        head.extend_from_slice(b"\r\n");
        outbox.body(whole);
        Self {
            outbox,
            body: upload,
            chunked,
            progress,
        }
    }

    fn is_done(&self) -> bool {
        self.body.is_none() && self.outbox.is_empty()
    }

    fn poll(&mut self, lease: &mut Lease, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if !self.outbox.is_empty() {
                let before = lease.sent;
                let polled = self.outbox.poll_send(&mut lease.link.stream, cx, &mut lease.sent);
                if let Some(progress) = self.progress.filter(|_| lease.sent > before) {
                    progress.moved(0);
                }
                std::task::ready!(polled).map_err(|error| Broken::Connection(error.to_string()))?;
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(Ok(()));
            };
            match std::task::ready!(body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.chunked => self.outbox.chunk(data),
                    Ok(data) => self.outbox.body(data),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => {
                    self.body = None;
                    return Poll::Ready(Err(Broken::Body(describe(&*error))));
                }
                None => {
                    self.body = None;
                    if self.chunked {
                        self.outbox.last_chunk();
                    }
                }
            }
        }
    }
}

fn length(head: &mut Vec<u8>, bytes: u64) {
    use std::io::Write as _;
    head.extend_from_slice(b"content-length: ");
    // Writing into memory does not fail.
    let _ = write!(head, "{bytes}\r\n");
}

struct Download {
    method: Method,
    held: BytesMut,
    scan: Scan,
    interim: usize,
}

impl Download {
    fn poll(
        &mut self,
        lease: &mut Lease,
        cx: &mut Context<'_>,
    ) -> Poll<Result<wire::ResponseHead, FlowError>> {
        loop {
            if let Some(head) = self.head()? {
                return Poll::Ready(Ok(head));
            }
            let read = lease.link.stream.poll_more(cx, &mut self.held);
            match std::task::ready!(read) {
                Ok(0) => {
                    let when = if self.held.is_empty() {
                        "before"
                    } else {
                        "in the middle of"
                    };
                    let text = format!("the trigger closed it {when} the head of its answer");
                    return Poll::Ready(Err(FlowError::Lost(text, lease.fate())));
                }
                Ok(_) => {}
                Err(error) => {
                    return Poll::Ready(Err(FlowError::Lost(error.to_string(), lease.fate())));
                }
            }
        }
    }

    /// The head of the real answer, once it is whole.
    fn head(&mut self) -> Result<Option<wire::ResponseHead>, FlowError> {
        while !self.held.is_empty() {
            let end = self.scan.look(&self.held, ANSWER_LIMITS).map_err(|defect| {
                FlowError::Invalid(match defect {
                    Defect::Malformed(what) => what.to_owned(),
                    Defect::TooLarge => "its head has more than 64 KiB or 256 fields".to_owned(),
                })
            })?;
            let Some(HeadEnd { end, fields }) = end else {
                return match is_http(&self.held) {
                    true => Ok(None),
                    false => Err(FlowError::Invalid(
                        "its head does not begin with HTTP/1".to_owned(),
                    )),
                };
            };
            let text = wire::take(&mut self.held, end);
            let head = wire::response(&text, fields, &self.method)
                .map_err(|what| FlowError::Invalid(what.to_owned()))?;
            if !head.status.is_informational() {
                return Ok(Some(head));
            }
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                // It was not asked for, and would leave the connection to nobody.
                return Err(FlowError::Invalid("it switches protocols".to_owned()));
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                let text = format!("more than {INTERIM_MAX} interim answers came before it");
                return Err(FlowError::Invalid(text));
            }
        }
        Ok(None)
    }
}

/// Whether a trigger's answers carry the tracking id of their requests. Where they do, an answer with the id
/// of another request of ours was given to the wrong one, by a mix-up on the connection or behind it.
///
/// Only ids of our form are compared, and only once the trigger has echoed one: its owner may let it set
/// tracking ids of its own (`clientTrackingId` of the trigger), and without any the platform answers with the
/// id of the run.
#[derive(Debug, Default)]
pub(super) struct Echo(AtomicBool);

impl Echo {
    fn compare(&self, sent: RequestId, fields: &Fields) -> Result<(), FlowError> {
        let Some(echoed) = fields.text(TRACKING_ID).and_then(RequestId::parse) else {
            return Ok(());
        };
        let is_known = self.0.load(Ordering::Relaxed);
        if echoed != sent {
            return if is_known {
                Err(FlowError::Foreign(echoed))
            } else {
                Ok(())
            };
        }
        // Written once only: all workers read it.
        if !is_known {
            self.0.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Forgets what was seen, for a trigger at another address.
    pub(super) fn forget(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Whether bytes may be the beginning of an answer. What cannot become one is not waited for.
fn is_http(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"HTTP/1.";
    bytes.iter().zip(BEGIN).all(|(byte, wanted)| byte == wanted)
}

/// Sends a request and waits for the head of its answer, for `timeout` after the last piece of the body.
pub(super) fn send<'a>(
    mut lease: Lease,
    call: Call,
    timeout: Duration,
    progress: Option<&'a Progress>,
    echo: &'a Echo,
) -> impl Future<Output = Result<Answer, Failed>> + use<'a> {
    let tracking = call.tracking;
    let mut download = Download {
        method: call.method.clone(),
        held: BytesMut::new(),
        scan: Scan::default(),
        interim: 0,
    };
    let mut upload = Upload::new(call, progress);
    let begun = clock::now();
    // A block, because the arguments of an `async fn` are kept twice.
    async move {
        let mut failed = None;
        let outcome = poll_fn(|cx| {
            if failed.is_none()
                && !upload.is_done()
                && let Poll::Ready(Err(broken)) = upload.poll(&mut lease, cx)
            {
                match broken {
                    Broken::Body(what) => return Poll::Ready(Err(FlowError::Lost(what, lease.fate()))),
                    Broken::Connection(what) => failed = Some(FlowError::Lost(what, lease.fate())),
                }
            }
            match download.poll(&mut lease, cx) {
                Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
                // What broke first is the reason.
                Poll::Ready(Err(error)) => return Poll::Ready(Err(failed.take().unwrap_or(error))),
                Poll::Pending => {}
            }
            let deadline = progress.map_or(begun, Progress::last) + timeout;
            std::task::ready!(lease.link.timer.poll_until(cx, deadline));
            Poll::Ready(Err(failed.take().unwrap_or(FlowError::Timeout(timeout))))
        });
        let head = match outcome.await {
            Ok(head) => head,
            Err(error) => {
                let untouched = lease.sent == 0;
                let body = upload.body.filter(|_| untouched).map(Outgoing::Streamed);
                return Err(Failed { error, body });
            }
        };
        if let Some(tracking) = tracking {
            echo.compare(tracking, &head.fields)?;
        }
        // An answer before the whole request was taken: the trigger may read on, or not.
        let persists = head.persists && upload.is_done();
        let whole = match head.framing {
            Framing::None => true,
            Framing::Length(length) => length <= download.held.len() as u64,
            Framing::Chunked | Framing::UntilClose => false,
        };
        if whole {
            // A connection that may be in use for long keeps no memory that it does not need.
            lease.link.space = upload.outbox.into_space();
        }
        let mut body = AnswerBody {
            decoder: Decoder::new(head.framing),
            held: download.held,
            lease: Some(lease),
            persists,
        };
        body.settle();
        Ok(Answer {
            status: head.status,
            fields: head.fields,
            body,
        })
    }
}

impl AnswerBody {
    /// The next piece; none at the end. The caller keeps the time.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        loop {
            match self.decoder.next(&mut self.held) {
                Ok(Piece::Data(data)) => {
                    self.settle();
                    return Poll::Ready(Some(Ok(data)));
                }
                Ok(Piece::End) => {
                    self.settle();
                    return Poll::Ready(None);
                }
                Ok(Piece::More) => {}
                Err(what) => return Poll::Ready(Some(Err(self.broken(what)))),
            }
            let Some(lease) = &mut self.lease else {
                return Poll::Ready(None);
            };
            match std::task::ready!(lease.link.stream.poll_more(cx, &mut self.held)) {
                Ok(0) => {
                    if let Err(what) = self.decoder.ended() {
                        return Poll::Ready(Some(Err(self.broken(what))));
                    }
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.broken(error)))),
            }
        }
    }

    pub async fn data(&mut self) -> Option<Result<Bytes, String>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    fn broken(&mut self, what: impl fmt::Display) -> String {
        self.lease = None;
        self.decoder = Decoder::Done;
        format!("the answer of the trigger broke off: {what}")
    }

    pub fn is_over(&self) -> bool {
        self.decoder.is_done()
    }

    /// Bytes still to come, where that is known.
    pub fn length(&self) -> Option<u64> {
        match &self.decoder {
            Decoder::Done => Some(0),
            Decoder::Length(left) => Some(*left),
            Decoder::Chunked(_) | Decoder::UntilClose => None,
        }
    }

    /// Gives the connection back once the body is over.
    fn settle(&mut self) {
        if !self.decoder.is_done() {
            return;
        }
        if let Some(lease) = self.lease.take()
            && self.persists
            && self.held.is_empty()
        {
            lease.give_back();
        }
    }
}
