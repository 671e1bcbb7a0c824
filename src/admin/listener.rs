//! Connections of the admin listener.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::admin::answers::answer;
use crate::gateway::Gateway;
use crate::model::Host;
use crate::settings::Config;
use crate::wire::BindError;

/// Connections at one time; scrapers and probes need a few. One more closes the one that was used least recently, so
/// that connections at rest and slow heads keep no probe out.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole connection: a scraper comes back, a stuck one goes.
const AGE_MAX: Duration = Duration::from_secs(300);

struct Open {
    /// When it was used last, on a clock that counts connections and requests.
    used: Arc<AtomicU64>,
    task: AbortHandle,
}

/// Closes the connection that was used least recently if there is no room for another one.
fn make_room(open: &mut Vec<Open>) {
    open.retain(|open| !open.task.is_finished());
    if open.len() < CONNECTIONS_MAX {
        return;
    }
    let oldest = open.iter().enumerate();
    let oldest = oldest.min_by_key(|(_, open)| open.used.load(Ordering::Relaxed));
    if let Some((index, _)) = oldest {
        open.swap_remove(index).task.abort();
    }
}

/// Listens, unless the settings switch that off, and serves on this runtime until it ends.
pub fn start(
    config: &Config,
    control: &Handle,
    gateway: &Arc<Gateway>,
) -> Result<Option<SocketAddr>, BindError> {
    let Some(settings) = &config.admin else {
        return Ok(None);
    };
    let failed = |error| BindError {
        table: "[admin]",
        address: settings.address,
        error,
    };
    let _inside = control.enter();
    let listener = StdListener::bind(settings.address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    control.spawn(serve(listener, gateway.clone(), settings.hosts.clone()));
    Ok(Some(address))
}

/// `hosts` are names that it may be asked by, in lower case.
async fn serve(listener: TcpListener, gateway: Arc<Gateway>, hosts: Arc<[Host]>) {
    let mut open = Vec::with_capacity(CONNECTIONS_MAX);
    let clock = Arc::new(AtomicU64::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: trying again at once would only burn time.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        make_room(&mut open);
        let (gateway, hosts, clock) = (gateway.clone(), hosts.clone(), clock.clone());
        let used = Arc::new(AtomicU64::new(clock.fetch_add(1, Ordering::Relaxed)));
        let last = used.clone();
        let task = tokio::spawn(async move {
            let service = service_fn(move |request| {
                last.store(clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
                let answer = answer(&gateway, &hosts, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // Why it ends is of no interest.
            let _ = tokio::time::timeout(AGE_MAX, connection).await;
        });
        let task = task.abort_handle();
        open.push(Open { used, task });
    }
}
