//! An ordinary caller beside the slow ones, on a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::emulator::certs::server_name;
use crate::harness::{KEY, PATIENCE, post};

/// Interval between two requests.
const PERIOD: Duration = Duration::from_millis(50);
/// One of this many requests uses a new connection.
const NEW_EVERY: u64 = 5;

/// What it has observed.
#[derive(Debug, Default)]
pub(crate) struct Met {
    pub(crate) requests: u64,
    pub(crate) worst: Duration,
    pub(crate) failures: Vec<String>,
}

/// The running caller.
pub(crate) struct Good {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Met>,
}

impl Good {
    pub(crate) fn start(address: SocketAddr, tls: TlsConnector) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let enough = enough.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(work(address, tls, &enough))
            }
        });
        Self { enough, thread }
    }

    /// Stops it, and returns what it has observed.
    pub(crate) async fn stop(self) -> Met {
        self.enough.store(true, Ordering::Relaxed);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        joined.unwrap().expect("the good caller panicked")
    }
}

async fn work(address: SocketAddr, tls: TlsConnector, enough: &AtomicBool) -> Met {
    let mut met = Met::default();
    let mut kept = None;
    let mut next = tokio::time::interval(PERIOD);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The last request uses a new connection.
    while !enough.load(Ordering::Relaxed) || !met.requests.is_multiple_of(NEW_EVERY) {
        next.tick().await;
        let begun = Instant::now();
        let asked = async {
            if met.requests % NEW_EVERY == NEW_EVERY - 1 {
                return ask(&mut connect(address, &tls).await?).await;
            }
            if kept.is_none() {
                kept = Some(connect(address, &tls).await?);
            }
            ask(kept.as_mut().unwrap()).await
        };
        let answered = tokio::time::timeout(PATIENCE, asked).await;
        met.requests += 1;
        met.worst = met.worst.max(begun.elapsed());
        match answered {
            Ok(Ok(202)) => {}
            other => {
                met.failures.push(format!("request {}: {other:?}", met.requests));
                kept = None;
            }
        }
    }
    met
}

type Connection = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr, tls: &TlsConnector) -> Result<Connection, String> {
    let connected = async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        tls.connect(server_name("localhost"), tcp).await
    };
    let stream = connected.await.map_err(|error| error.to_string())?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn ask(connection: &mut Connection) -> Result<u16, String> {
    let request = post("/good").header("x-api-key", KEY).body(Full::from("{}"));
    let asked = async {
        connection.ready().await?;
        let answer = connection.send_request(request.unwrap()).await?;
        let status = answer.status().as_u16();
        answer.into_body().collect().await.map(|_| status)
    };
    asked.await.map_err(|error| error.to_string())
}
