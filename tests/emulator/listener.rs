//! The front of both servers: a TLS listener on loopback that counts connections, and can misbehave before
//! the first byte of HTTP.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::certs::Leaf;
use super::gate::Count;
use super::wire::Wire;

/// The emulator closes connections beyond this number at once.
const CONNECTIONS_MAX: u64 = 16_384;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// The answer of a server without TLS.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// Minimum duration of a connection attempt on loopback when the queue is full.
const KEPT_WAITING: Duration = Duration::from_millis(300);
/// Linux holds one connection in the shortest queue; other systems hold a few.
const CROWD_MAX: usize = 64;

/// What happens to a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// It is served.
    Open,
    /// Nobody listens: the system refuses it.
    Refuse,
    /// It is accepted and closed before the handshake.
    Slam,
    /// It is accepted, but the handshake is never answered.
    Silent,
    /// It is accepted and answered in plain text instead of TLS.
    Plain,
    /// It is not accepted, and the system's queue is full.
    Full,
}

/// What happens to a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// It stays open for the next request.
    Yes,
    /// The answer says `Connection: close`, and it is closed.
    CloseAnnounced,
    /// It is closed although the answer did not say so.
    CloseSilently,
}

/// What is known of a connection before its first request.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its number, counted from 1.
    pub number: u64,
    /// The server name in the TLS handshake.
    pub sni: Option<String>,
    /// The negotiated protocol.
    pub alpn: Option<String>,
    evictions: watch::Receiver<u64>,
}

impl Connection {
    /// Returns when the listener wants idle connections closed.
    pub async fn evicted(&mut self) {
        // The sender belongs to the listener, which outlives its connections.
        let _ = self.evictions.changed().await;
    }
}

/// The settings and counts of one listening address.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    tls: Mutex<Arc<ServerConfig>>,
    keep_alive: Mutex<KeepAlive>,
    door: watch::Sender<Door>,
    door_applied: watch::Sender<Door>,
    evictions: watch::Sender<u64>,
    connections: Count,
    open: Count,
    handshake_failures: Count,
}

impl Listener {
    /// Listens on this port of 127.0.0.1, for 0 on a free one.
    ///
    /// # Errors
    /// If the system does not provide the port, which the error names.
    pub async fn bind(leaf: &Leaf, port: u16) -> io::Result<(Arc<Self>, TcpListener)> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("127.0.0.1:{port}: {error}"));
        let listener = listen((Ipv4Addr::LOCALHOST, port).into()).map_err(named)?;
        let settings = Self {
            address: listener.local_addr()?,
            tls: Mutex::new(Arc::new(leaf.server_config(&["http/1.1"]))),
            keep_alive: Mutex::new(KeepAlive::Yes),
            door: watch::Sender::new(Door::Open),
            door_applied: watch::Sender::new(Door::Open),
            evictions: watch::Sender::new(0),
            connections: Count::new("accepted connections"),
            open: Count::new("open connections"),
            handshake_failures: Count::new("failed handshakes"),
        };
        Ok((Arc::new(settings), listener))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far, including failed handshakes.
    pub fn connections(&self) -> &Count {
        &self.connections
    }

    /// Connections open now, including those in their handshake.
    pub fn open(&self) -> &Count {
        &self.open
    }

    pub fn handshake_failures(&self) -> &Count {
        &self.handshake_failures
    }

    /// Presents another certificate on new connections.
    pub fn present(&self, leaf: &Leaf) {
        self.present_config(leaf.server_config(&["http/1.1"]));
    }

    /// Uses other TLS settings for new connections.
    pub fn present_config(&self, config: ServerConfig) {
        *self.tls.lock().unwrap() = Arc::new(config);
    }

    /// Sets what happens after answers.
    pub fn keep_alive(&self, keep_alive: KeepAlive) {
        *self.keep_alive.lock().unwrap() = keep_alive;
    }

    /// What to do after an answer.
    pub fn after_answer(&self) -> KeepAlive {
        *self.keep_alive.lock().unwrap()
    }

    /// Changes what happens to new connections, and returns once that is in effect.
    pub async fn set_door(&self, door: Door) {
        let mut applied = self.door_applied.subscribe();
        self.door.send_replace(door);
        // The task of the listener may already have ended together with its emulator.
        let _ = applied.wait_for(|now| *now == door).await;
    }

    /// Closes idle connections, and each busy one once it has been answered.
    pub fn evict(&self) {
        self.evictions.send_modify(|number| *number += 1);
    }

    /// Accepts connections until the task is aborted, which also ends the connections.
    pub async fn run<F, S>(self: Arc<Self>, listener: TcpListener, serve: S)
    where
        S: Fn(Wire, Connection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut doors = self.door.subscribe();
        let mut listener = Some(listener);
        let mut crowd = None;
        let mut tasks = JoinSet::new();
        loop {
            let door = *doors.borrow_and_update();
            match door {
                Door::Refuse => (listener, crowd) = (None, None),
                Door::Full => {
                    drop(listener.take());
                    crowd = Crowd::gather(self.address).await.ok();
                }
                // The port was ours a moment ago; if it cannot be bound again the next caller sees a refusal.
                Door::Open | Door::Slam | Door::Silent | Door::Plain if listener.is_none() => {
                    drop(crowd.take());
                    listener = listen(self.address).ok();
                }
                Door::Open | Door::Slam | Door::Silent | Door::Plain => {}
            }
            self.door_applied.send_replace(door);
            tokio::select! {
                changed = doors.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                Some(_) = tasks.join_next() => {}
                Some(stream) = accept(listener.as_ref()) => {
                    self.connections.add(1);
                    if door != Door::Slam && self.open.get() < CONNECTIONS_MAX {
                        let serve = serve.clone();
                        tasks.spawn(Arc::clone(&self).attend(stream, door, self.connections.get(), serve));
                    }
                }
            }
        }
    }

    async fn attend<F, S>(self: Arc<Self>, mut stream: TcpStream, door: Door, number: u64, serve: S)
    where
        S: Fn(Wire, Connection) -> F,
        F: Future<Output = ()>,
    {
        let _open = self.open.enter();
        let evictions = self.evictions.subscribe();
        if door == Door::Silent {
            wait_for_goodbye(&stream).await;
            return;
        }
        if door == Door::Plain {
            // The peer may leave at the first byte, which is what it should do.
            let _ = stream.write_all(PLAIN_ANSWER).await;
            wait_for_goodbye(&stream).await;
            return;
        }
        // Without it a small answer could wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let config = Arc::clone(&self.tls.lock().unwrap());
        let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else {
            self.handshake_failures.add(1);
            return;
        };
        let session = stream.get_ref().1;
        let connection = Connection {
            number,
            sni: session.server_name().map(str::to_owned),
            alpn: session
                .alpn_protocol()
                .map(|name| String::from_utf8_lossy(name).into_owned()),
            evictions,
        };
        serve(Wire::new(stream), connection).await;
    }
}

/// A socket that listens, with room for a thousand connections at once: one that finds no room is tried again by its
/// system after one and three seconds, and the gateway gives an address less.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket that listens and never accepts, and the connections that fill its queue. The next connection
/// hangs.
struct Crowd {
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Crowd {
    async fn gather(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(0)?;
        let mut waiting = Vec::new();
        // On loopback a queue with room answers at once, so a connection that has to wait has met a full one.
        while let Ok(stream) = tokio::time::timeout(KEPT_WAITING, TcpStream::connect(address)).await {
            waiting.push(stream?);
            if waiting.len() > CROWD_MAX {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        Ok(Self {
            _listener: listener,
            _waiting: waiting,
        })
    }
}

/// The next connection; never, if nothing listens.
async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    listener.accept().await.ok().map(|(stream, _)| stream)
}

/// Discards what arrives until the peer leaves.
async fn wait_for_goodbye(stream: &TcpStream) {
    let mut bin = [0; 4096];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut bin) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}
