//! An HTTP/1 connection: one request after the other, read and answered without a library between the stream and the
//! gateway, so that every deadline is kept here and an idle connection holds no memory but that of TLS.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, Uri, Version, header};
use http_body::Body;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::{AnswerBody, Connection, Inbound};
use crate::model::clock;
use crate::server::http1::answer::pour;
use crate::server::http1::end::End;
use crate::server::http1::lent::{Hands, READ_BYTES_MAX, Wire};
use crate::server::http1::plan::{Asked, Ending, Plan, stated_length};
use crate::server::linger::PAUSE_MAX;
use crate::server::phase::Phase;
use crate::server::reason;
use crate::server::seats::Seat;
use crate::server::shared::{LAST_CALL, Shared};
use crate::settings::ConnectionSettings;
use crate::wire;
use crate::wire::{Decoder, Defect, HeadEnd, Limits, Outbox, RequestHead, Scan, Stream, Timer};

/// Time that a request may still wait for its turn after its caller has closed its side.
const HALF_CLOSED_TIME: Duration = Duration::from_millis(400);
/// Of a refused body so much may still be to come for the connection to serve on, as many bytes as a held body has: to
/// read them costs less than another handshake.
const SETTLED_BYTES_MAX: u64 = 64 * 1024;
const SETTLED_TIME: Duration = Duration::from_secs(10);

/// Serves one connection to its end. Each time it is woken the clock is read once.
pub(in crate::server) async fn serve<S: Stream>(
    stream: S,
    peer: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let mut life = pin!(live(stream, peer, shared, phase, seat));
    poll_fn(|cx| clock::turn(|| life.as_mut().poll(cx))).await;
}

async fn live<S: Stream>(
    stream: S,
    peer: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let mut line = Line {
        timer: Timer::default(),
        halt: Halt::new(phase),
        born: Instant::now(),
        via: shared.connection(peer, "h1"),
        shared,
    };
    let mut wire = Wire::new(stream);
    let (end, wire) = loop {
        match line.turn(wire).await {
            Ok(back) => wire = back,
            Err(ended) => break ended,
        }
    };
    end.finish(wire, &line.shared, peer, &seat, line.halt.looks).await;
    drop(seat);
}

/// What a connection keeps from one request to the next.
struct Line {
    shared: Arc<Shared>,
    via: Arc<Connection>,
    born: Instant,
    timer: Timer,
    halt: Halt,
}

/// Completes when the gateway stops serving. It is polled each time, and costs one read of a number.
struct Halt {
    looks: watch::Receiver<Phase>,
    /// Wakes the connection; polled once, because the task that waits is always the same.
    wakes: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    armed: bool,
}

impl Halt {
    fn new(phase: watch::Receiver<Phase>) -> Self {
        let looks = phase.clone();
        let mut wakes = phase;
        Self {
            looks,
            wakes: Some(Box::pin(async move {
                // A closed channel means that the worker is gone: then this connection is too.
                let _ = wakes.changed().await;
            })),
            armed: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.armed {
            self.armed = true;
            if let Some(wakes) = &mut self.wakes
                && wakes.as_mut().poll(cx).is_ready()
            {
                self.wakes = None;
            }
        }
        self.is_on()
    }

    fn is_on(&self) -> bool {
        self.looks.has_changed().unwrap_or(true)
    }
}

/// What arrives on an idle connection.
enum Next {
    Head(Box<RequestHead>),
    Defect(Defect),
    End(End),
}

/// What a connection waits for between two requests.
enum Awaited {
    /// The rest of a head.
    Rest {
        since: Instant,
    },
    /// A request that its caller has sent already, or is about to, while the gateway stops: it is still answered.
    Last {
        since: Instant,
        is_over: bool,
    },
    First {
        since: Instant,
    },
    Next {
        since: Instant,
    },
}

impl Awaited {
    fn deadline(self, born: Instant, settings: &ConnectionSettings) -> (Instant, End) {
        match self {
            Self::Rest { since } => (since + settings.head_timeout, End::Late(reason::HEAD_TIMEOUT)),
            Self::Last { since, is_over: true } => (since, End::Over),
            Self::Last { since, .. } => (since + LAST_CALL, End::Over),
            Self::First { since } => (since + settings.head_timeout, End::Late(reason::NO_REQUEST)),
            Self::Next { since } => {
                let idle = since + settings.idle_timeout;
                (idle.min(born + settings.age_max), End::Over)
            }
        }
    }
}

impl Line {
    fn settings(&self) -> &ConnectionSettings {
        &self.shared.settings
    }

    /// Reads one request and answers it.
    async fn turn<S: Stream>(&mut self, mut wire: Wire<S>) -> Turn<S> {
        if let Err(end) = self.settle(&mut wire).await {
            return Err((end, Some(wire)));
        }
        let head = match self.next(&mut wire).await {
            Next::Head(head) => *head,
            Next::Defect(defect) => return self.refuse(wire, defect).await,
            Next::End(end) => return Err((end, Some(wire))),
        };
        wire.served = true;
        let expects = head.version == Version::HTTP_11 && head.headers.contains_key(header::EXPECT);
        let (body, hands) = Hands::open(wire, head.framing, expects);
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.target;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers;
        self.answer(request, hands, head.persists, None).await
    }

    /// Answers a head that cannot be read; the gateway gets a request without meaning in its place.
    async fn refuse<S: Stream>(&mut self, mut wire: Wire<S>, defect: Defect) -> Turn<S> {
        // Where the next request begins is unknown.
        wire.held = BytesMut::new();
        wire.body = Decoder::UntilClose;
        let mut request = Request::new(Inbound::Whole(Bytes::new()));
        // The method of such a head is not known for certain.
        if let Ok(unknown) = Method::from_bytes(b"-") {
            *request.method_mut() = unknown;
        }
        *request.uri_mut() = Uri::from_static("/");
        self.answer(request, Hands::Own(wire), false, Some(defect)).await
    }

    /// Reads what is left of a refused body, so that the next request can be read.
    async fn settle<S: Stream>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        if wire.body.is_done() {
            return Ok(());
        }
        let began = clock::now();
        let mut paused_since = began;
        poll_fn(|cx| {
            while let Poll::Ready(piece) = wire.poll_body(cx) {
                match piece {
                    None => return Poll::Ready(Ok(())),
                    Some(Ok(_)) => paused_since = clock::now(),
                    Some(Err(_)) => return Poll::Ready(Err(End::Gone)),
                }
            }
            if self.halt.poll(cx) {
                return Poll::Ready(Err(End::Answered));
            }
            let deadline = (paused_since + PAUSE_MAX).min(began + SETTLED_TIME);
            std::task::ready!(self.timer.poll_until(cx, deadline));
            Poll::Ready(Err(End::Over))
        })
        .await
    }

    /// Waits for a request and reads its head.
    async fn next<S: Stream>(&mut self, wire: &mut Wire<S>) -> Next {
        let limits = Limits {
            bytes_max: self.settings().head_size_max.bytes(),
            fields_max: self.settings().headers_max,
        };
        let mut scan = Scan::default();
        let idle_since = clock::now();
        let mut head_since = None;
        let mut halted_since = None;
        poll_fn(|cx| {
            loop {
                if !wire.held.is_empty() {
                    match scan.look(&wire.held, limits) {
                        Ok(Some(HeadEnd { end, fields })) => {
                            let text = wire.held.split_to(end).freeze();
                            if wire.held.is_empty() {
                                wire.held = BytesMut::new();
                            }
                            return Poll::Ready(match wire::request(&text, fields) {
                                Ok(head) => Next::Head(Box::new(head)),
                                Err(defect) => Next::Defect(defect),
                            });
                        }
                        Ok(None) => {}
                        Err(defect) => return Poll::Ready(Next::Defect(defect)),
                    }
                    head_since.get_or_insert_with(clock::now);
                } else if wire.closed_since.is_some() {
                    return Poll::Ready(Next::End(End::Gone));
                }
                match wire.stream.poll_more(cx, &mut wire.held, READ_BYTES_MAX) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Next::End(End::Gone)),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending => {}
                }
                let awaited = match head_since {
                    Some(since) => Awaited::Rest { since },
                    None if self.halt.poll(cx) => Awaited::Last {
                        since: *halted_since.get_or_insert_with(clock::now),
                        is_over: wire.served && wire.stream.is_silent(),
                    },
                    None if !wire.served => Awaited::First { since: idle_since },
                    None => Awaited::Next { since: idle_since },
                };
                let (deadline, end) = awaited.deadline(self.born, self.settings());
                std::task::ready!(self.timer.poll_until(cx, deadline));
                return Poll::Ready(Next::End(end));
            }
        })
        .await
    }

    /// Lets the gateway answer, and sends the answer.
    async fn answer<S: Stream>(
        &mut self,
        request: Request<Inbound>,
        mut hands: Hands<S>,
        persists: bool,
        defect: Option<Defect>,
    ) -> Turn<S> {
        let asked = Asked {
            head: request.method() == Method::HEAD,
            version: request.version(),
        };
        let mut call = self.shared.gateway.handle(request, &self.via, defect);
        let timer = &mut self.timer;
        let response = poll_fn(|cx| {
            if let Poll::Ready(response) = Pin::new(&mut call).poll(cx) {
                return Poll::Ready(Some(response));
            }
            let (watched, closed_since) = hands.watch(cx);
            if watched.is_err() {
                return Poll::Ready(None);
            }
            // A peer may close its side and still wait for the answer; one whose request still waits a while later is
            // taken for gone, so that no run starts for nobody.
            if let Some(since) = closed_since
                && !call.is_handed_over()
            {
                std::task::ready!(timer.poll_until(cx, since + HALF_CLOSED_TIME));
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
        // What is left of the call goes on by itself, or ends.
        drop(call);
        let Some(mut wire) = hands.back() else {
            return Err((End::Gone, None));
        };
        let Some(response) = response else {
            return Err((End::Gone, Some(wire)));
        };
        // A caller that waits to be asked for its body may send it or not.
        let settles = !wire.awaits_continue && wire.body.left().is_some_and(|left| left <= SETTLED_BYTES_MAX);
        let reusable = persists
            && settles
            && wire.closed_since.is_none()
            && !self.halt.is_on()
            && clock::now() < self.born + self.settings().age_max;
        match self.send(&mut wire, response, asked, reusable).await {
            Ok(()) => Ok(wire),
            Err(end) => Err((end, Some(wire))),
        }
    }

    /// Sends an answer; fails if the connection ends with it.
    async fn send<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        response: Response<AnswerBody>,
        asked: Asked,
        reusable: bool,
    ) -> Result<(), End> {
        let (head, mut body) = response.into_parts();
        let passed = body.take_passed();
        let stated = stated_length(&head.headers, passed.as_ref());
        let plan = Plan::new(&head, stated, &body.size_hint(), asked, reusable);
        if plan.ending == Ending::None {
            body.omit();
        }
        let mut outbox = Outbox::default();
        plan.write(&head.headers, passed.as_ref(), outbox.head());
        let timeout = self.settings().write_timeout;
        pour(
            &mut wire.stream,
            outbox,
            body,
            plan.ending,
            &mut self.timer,
            timeout,
        )
        .await?;
        if plan.persists { Ok(()) } else { Err(End::Answered) }
    }
}

/// How one request was answered: the connection goes on, or ends.
type Turn<S> = Result<Wire<S>, (End, Option<Wire<S>>)>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Awaited, End, LAST_CALL};
    use crate::server::reason;
    use crate::settings::ConnectionSettings;

    #[test]
    fn a_connection_waits_as_long_as_its_state_allows() {
        let second = Duration::from_secs;
        let settings = ConnectionSettings {
            head_timeout: second(10),
            idle_timeout: second(75),
            age_max: second(3600),
            ..ConnectionSettings::default()
        };
        let since = Instant::now();
        let over = since + LAST_CALL;
        let late = |reason| (since + second(10), End::Late(reason));
        for (awaited, age, expected) in [
            (Awaited::Rest { since }, 0, late(reason::HEAD_TIMEOUT)),
            (Awaited::First { since }, 0, late(reason::NO_REQUEST)),
            (Awaited::Next { since }, 0, (since + second(75), End::Over)),
            (Awaited::Next { since }, 3590, (since + second(10), End::Over)),
            (
                Awaited::Last {
                    since,
                    is_over: false,
                },
                0,
                (over, End::Over),
            ),
            (Awaited::Last { since, is_over: true }, 0, (since, End::Over)),
        ] {
            assert_eq!(awaited.deadline(since - second(age), &settings), expected);
        }
    }
}
