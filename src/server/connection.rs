//! The beginning of a connection: the TLS handshake, and which protocol is spoken afterwards.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::counters::ReasonLabels;
use crate::server::phase::{Draining, Phase, stopping};
use crate::server::reason::Reason;
use crate::server::seats::Seat;
use crate::server::shared::{LAST_CALL, Shared, refused};
use crate::server::tls::Offer;
use crate::server::{http1, http2, reason, tls};
use crate::wire::{NoHandshake, OfCaller};

pub(super) async fn serve_tls(
    tcp: TcpStream,
    peer: SocketAddr,
    config: Arc<rustls::ServerConfig>,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let deadline = shared.settings.handshake_timeout;
    let end = async {
        tokio::select! {
            biased;
            () = last_call(phase.clone()) => io::ErrorKind::Interrupted.into(),
            () = tokio::time::sleep(deadline) => io::ErrorKind::TimedOut.into(),
        }
    };
    // Boxed: the handshake's state is large and lives shortly.
    let stream = match Box::pin(OfCaller::accept(tcp, config, end)).await {
        Ok(stream) => stream,
        Err(failed) if failed.is_cut && failed.why.kind() == io::ErrorKind::Interrupted => {
            return failed.part_at_once().await;
        }
        Err(failed) => {
            handshake_failed(&shared, peer, &failed, deadline);
            // It takes no longer than a stop waits for a handshake.
            return failed.part().await;
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

fn handshake_failed(shared: &Shared, peer: SocketAddr, failed: &NoHandshake, deadline: Duration) {
    if failed.is_cut {
        let detail = format!("no whole handshake within {deadline:?}");
        return handshake_refused(shared, peer, reason::HANDSHAKE_TIMEOUT, detail);
    }
    let (reason, sentence) = tls::explain(&failed.why);
    let detail = match Offer::read(&failed.said) {
        Some(offer) => format!("{sentence}; it {offer}"),
        None => sentence,
    };
    handshake_refused(shared, peer, reason, detail);
}

fn handshake_refused(shared: &Shared, peer: SocketAddr, reason: Reason, detail: String) {
    let labels = ReasonLabels { reason: reason.code };
    shared
        .gateway
        .counters()
        .handshakes_failed
        .get_or_create(&labels)
        .inc();
    refused(shared, peer, reason, Some(detail));
}

/// Ends some time after the gateway has stopped serving.
async fn last_call(mut phase: watch::Receiver<Phase>) {
    stopping(&mut phase, Draining::No).await;
    tokio::time::sleep(LAST_CALL).await;
}
