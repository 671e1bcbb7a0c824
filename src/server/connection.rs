//! One connection's life: handshake, requests, rest, age, end. An idle HTTP/1 connection is parked: HTTP is taken off,
//! and only the stream waits for the next byte. It decides when a connection ends; what is answered is decided above.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::gateway::Gateway;
use crate::gateway::journal::ConnectionLine;
use crate::model::clock;
use crate::server::refusals::{Lines, Refusals};
use crate::server::tls::Offer;
use crate::server::{Phase, Seat, http1, http2, tls};
use crate::settings::{ConnectionSettings, Peers};
use crate::wire::{NoHandshake, OfCaller};

/// What connections of one listener share within a worker.
#[derive(Debug)]
pub(super) struct Shared {
    /// Who answers.
    pub gateway: Arc<Gateway>,
    /// The worker.
    pub worker: usize,
    /// Deadlines and limits.
    pub settings: Arc<ConnectionSettings>,
    /// Path answered with the gateway's health.
    pub health_path: Option<Arc<str>>,
    /// Who connects.
    pub peers: Peers,
    /// Which lines about connections are written.
    pub refusals: Arc<Refusals>,
}

/// When the gateway stops, a connection that has not had a request yet may take so long for each of its handshake and
/// its first request: two round trips and a lost packet. A silent one does not hold up the stop for longer.
pub(super) const LAST_CALL: Duration = Duration::from_secs(2);

/// Serves one connection to its end.
pub(super) async fn serve_tls(
    tcp: TcpStream,
    peer: SocketAddr,
    config: Arc<rustls::ServerConfig>,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let deadline = shared.settings.handshake_timeout;
    let handshake = tokio::select! {
        biased;
        // Boxed: the handshake's state is large and lives shortly.
        done = tokio::time::timeout(deadline, Box::pin(OfCaller::accept(tcp, config))) => done,
        () = last_call(phase.clone()) => return,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(failed)) => {
            handshake_failed(&shared, peer, &failed);
            // It takes no longer than a stop waits for a handshake.
            return failed.part().await;
        }
        Err(_) => {
            let detail = format!("no whole handshake within {deadline:?}");
            return handshake_refused(&shared, peer, "handshake-timeout", detail);
        }
    };
    if stream.protocol() == Some(tls::ALPN_H2) {
        // In a task of its own: this one has room for HTTP/1, which would stay unused as long as the connection lives.
        tokio::spawn(http2::serve(stream, peer, shared, phase, seat));
        return;
    }
    // In place: a box of its own would cost each connection at rest some 400 bytes.
    http1::serve(stream, peer, shared, phase, seat).await;
}

/// Serves one connection without TLS, HTTP/1 only.
pub(super) async fn serve_plain(
    tcp: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    http1::serve(tcp, peer, shared, phase, seat).await;
}

/// Boxed once after the handshake: it is large, and every future that holds it would carry it in full.
pub(super) type SecureStream = Box<OfCaller>;

fn handshake_failed(shared: &Shared, peer: SocketAddr, failed: &NoHandshake) {
    let (reason, sentence) = tls::explain(&failed.why);
    let detail = match Offer::read(&failed.said) {
        Some(offer) => format!("{sentence}; it {offer}"),
        None => sentence,
    };
    handshake_refused(shared, peer, reason, detail);
}

fn handshake_refused(shared: &Shared, peer: SocketAddr, reason: &'static str, detail: String) {
    let labels = crate::counters::ReasonLabels { reason };
    shared
        .gateway
        .counters()
        .handshakes_failed
        .get_or_create(&labels)
        .inc();
    refused(shared, peer, reason, Some(detail));
}

/// Counts a connection that was turned away or did not end as it should, and writes its line unless there are too many
/// of them.
pub(super) fn refused(shared: &Shared, peer: SocketAddr, reason: &'static str, detail: Option<String>) {
    shared.gateway.counters().refused(reason);
    let lines = match detail {
        Some(_) => Lines::Telling,
        None => Lines::Alike,
    };
    let Some(told) = shared.refusals.tell(peer, reason, lines, clock::now()) else {
        return;
    };
    let address = peer.ip().to_canonical();
    let detail = told.detail(detail).map(Into::into);
    shared
        .gateway
        .log()
        .connection(&ConnectionLine::new(address, reason, detail));
}

/// Ends some time after the gateway has stopped serving.
async fn last_call(mut phase: watch::Receiver<Phase>) {
    told_to_stop(&mut phase, Draining::No).await;
    tokio::time::sleep(LAST_CALL).await;
}

/// Whether a connection was told to close after what it is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Draining {
    Yes,
    No,
}

/// Ends when the gateway stops serving; never, once that is known.
pub(super) async fn told_to_stop(phase: &mut watch::Receiver<Phase>, draining: Draining) {
    if draining == Draining::Yes {
        return std::future::pending().await;
    }
    // A closed channel means that the worker is gone: then this connection is too.
    let _ = phase.wait_for(|phase| *phase != Phase::Serve).await;
}
