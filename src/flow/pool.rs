//! Kept-alive TLS connections to one host, one pool for each worker so that no lock is ever contended. It decides when
//! a connection may be used again, and knows whether any byte of a request has left.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Duration;
use std::{fmt, io};

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::counters::{Counted, Counters};
use crate::flow::error::{ConnectError, Sent};
use crate::model::{TriggerUrl, clock, locked};
use crate::outbound::{TrustError, refused_certificate};
use crate::settings::UpstreamSettings;
use crate::wire::{Timer, ToServer};

/// Idle connections kept for each host and worker; more are closed.
const IDLE_MAX: usize = 256;
/// Time an attempt at one address gets before the next one is tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(2500);

/// A host that triggers live on, with its connections.
pub(super) struct Host {
    name: String,
    port: u16,
    server_name: ServerName<'static>,
    connect_to: Option<SocketAddr>,
    tls: Arc<rustls::ClientConfig>,
    connect_timeout: Duration,
    idle_timeout: Duration,
    pools: Box<[Mutex<Vec<Idle>>]>,
    counters: Counters,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

struct Idle {
    link: Link,
    since: Instant,
}

pub(super) struct Link {
    pub stream: Box<ToServer>,
    /// For the answer's deadline; kept with the connection so that each request moves it instead of making one.
    pub timer: Timer,
    /// Memory for the head of a request and a small body behind it, kept like the timer; the next request overwrites it.
    pub space: Vec<u8>,
    _open: Counted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    New,
    Reused,
}

/// A connection in the hands of one request. Dropped, it is closed; [`Lease::give_back`] returns it to the pool.
pub struct Lease {
    pub(super) link: Link,
    host: Arc<Host>,
    worker: usize,
    /// Bytes of the request that TLS has taken.
    pub(super) sent: u64,
    pub age: Age,
}

impl Host {
    pub(super) fn new(
        url: &TriggerUrl,
        upstream: &UpstreamSettings,
        workers: usize,
        counters: &Counters,
    ) -> Result<Arc<Self>, TrustError> {
        let name = url
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let server_name = ServerName::try_from(name.clone())
            .map_err(|_| TrustError::Unusable(format!("{name} is no name a certificate can carry")))?;
        Ok(Arc::new(Self {
            name,
            port: url.port(),
            server_name,
            connect_to: upstream.connect_to,
            tls: Arc::new(upstream.trust.explaining_client_config()?),
            connect_timeout: upstream.connect_timeout,
            idle_timeout: upstream.idle_timeout,
            pools: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            counters: counters.clone(),
        }))
    }

    /// An idle connection of this worker, the one used last first, so that unneeded ones grow old.
    pub(super) fn take(self: &Arc<Self>, worker: usize) -> Option<Lease> {
        let pool = self.pools.get(worker)?;
        loop {
            let mut idle = locked(pool).pop()?;
            if clock::now().saturating_duration_since(idle.since) < self.idle_timeout
                && is_silent(&mut idle.link.stream)
            {
                self.counters.upstream_reused.inc();
                return Some(self.lease(idle.link, worker, Age::Reused));
            }
        }
    }

    fn lease(self: &Arc<Self>, link: Link, worker: usize, age: Age) -> Lease {
        Lease {
            link,
            host: self.clone(),
            worker,
            sent: 0,
            age,
        }
    }

    /// Closes connections of this worker that were idle for too long.
    pub(super) fn sweep(&self, worker: usize) {
        let Some(pool) = self.pools.get(worker) else {
            return;
        };
        let mut pool = locked(pool);
        pool.retain_mut(|idle| {
            clock::now().saturating_duration_since(idle.since) < self.idle_timeout
                && is_silent(&mut idle.link.stream)
        });
        if pool.is_empty() {
            pool.shrink_to_fit();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pools.iter().all(|pool| locked(pool).is_empty())
    }

    /// Opens a connection.
    pub(super) async fn connect(self: &Arc<Self>, worker: usize) -> Result<Lease, ConnectError> {
        // Boxed: the handshake's state is large and lives for a moment of the request's future.
        let link = tokio::time::timeout(self.connect_timeout, Box::pin(self.open())).await;
        match link {
            Ok(link) => Ok(self.lease(link?, worker, Age::New)),
            Err(_) => Err(ConnectError::Timeout(
                self.name.clone(),
                self.port,
                self.connect_timeout,
            )),
        }
    }

    async fn open(&self) -> Result<Link, ConnectError> {
        let tcp = self.tcp().await?;
        // The head and a small body leave in one write; waiting for more would only add delay.
        let _ = tcp.set_nodelay(true);
        let stream = ToServer::connect(tcp, self.tls.clone(), self.server_name.clone())
            .await
            .map_err(|error| ConnectError::Tls(self.name.clone(), explain(&error)))?;
        self.counters.upstream_opened.inc();
        Ok(Link {
            stream: Box::new(stream),
            timer: Timer::default(),
            space: Vec::new(),
            _open: Counted::on(&self.counters.upstream_connections),
        })
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        if let Some(address) = self.connect_to {
            return Ok(vec![address]);
        }
        let found = tokio::net::lookup_host((self.name.as_str(), self.port)).await;
        Ok(found
            .map_err(|error| ConnectError::Name(self.name.clone(), error))?
            .collect())
    }

    async fn tcp(&self) -> Result<TcpStream, ConnectError> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses = self.addresses().await?;
        let count = addresses.len();
        for (number, address) in (1..).zip(addresses) {
            let connecting = TcpStream::connect(address);
            let connected = match number == count {
                // All the time that is left: the system tries again after 1 and after 3 seconds.
                true => Ok(connecting.await),
                false => tokio::time::timeout(ADDRESS_TIMEOUT, connecting).await,
            };
            match connected {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => {
                    last = io::Error::new(io::ErrorKind::TimedOut, "no answer to the connection attempt")
                }
            }
        }
        Err(ConnectError::Tcp(self.name.clone(), self.port, last))
    }
}

fn explain(error: &io::Error) -> String {
    refused_certificate(error).unwrap_or_else(|| {
        format!("{error}. Fixed by: operator. Find out what answers at this address and port")
    })
}

impl Lease {
    pub fn take_space(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.link.space)
    }

    pub(super) fn fate(&self) -> Sent {
        if self.sent == 0 {
            Sent::Nothing
        } else {
            Sent::Something
        }
    }

    /// Returns the connection after a whole answer; one too many is dropped.
    pub fn give_back(self) {
        let Self {
            link, host, worker, ..
        } = self;
        let Some(pool) = host.pools.get(worker) else {
            return;
        };
        let mut pool = locked(pool);
        if pool.len() < IDLE_MAX {
            pool.push(Idle {
                link,
                since: clock::now(),
            });
        }
    }
}

/// Whether a connection that has rested may serve: it is open and silent. An answer that nobody asked for would be
/// taken for that of the next request.
fn is_silent(stream: &mut ToServer) -> bool {
    if stream.has_unread() {
        return false;
    }
    let mut cx = Context::from_waker(std::task::Waker::noop());
    if stream.tcp().poll_read_ready(&mut cx).is_pending() {
        return true;
    }
    // Something has come: the end, an answer, or only a record of TLS itself, as a ticket is one.
    stream.poll_more(&mut cx, &mut BytesMut::new()).is_pending() && !stream.has_unread()
}
