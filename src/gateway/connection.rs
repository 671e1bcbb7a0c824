//! What the connection of a request says about it, made once for all its requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::policy::Origin;
use crate::settings::Peers;

#[derive(Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    /// The address by which it is judged, as text.
    pub origin: Arc<str>,
    pub worker: usize,
    /// `h1` or `h2`.
    pub protocol: &'static str,
    /// Path that is answered with the gateway's health, if the listener has one.
    pub health_path: Option<Arc<str>>,
    /// Whether the peer is a caller.
    pub peers: Peers,
    known: AtomicBool,
}

impl Connection {
    /// Whether a credential of its callers was accepted, or none is asked for where one of them called.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    pub(super) fn set_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    pub fn new(
        peer: SocketAddr,
        worker: usize,
        protocol: &'static str,
        health_path: Option<&Arc<str>>,
        peers: Peers,
    ) -> Arc<Self> {
        Arc::new(Self {
            peer,
            origin: Origin::of_peer(peer).address().to_string().into(),
            worker,
            protocol,
            health_path: health_path.cloned(),
            peers,
            known: AtomicBool::new(false),
        })
    }
}
