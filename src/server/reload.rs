//! Other settings for a gateway that runs: built whole beside those in force, then swapped. What cannot be built changes
//! nothing.

use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;

use crate::gateway::{Gateway, Prepared, Wanted};
use crate::server::accept::Plan;
use crate::server::listening::{Listening, Speaks};
use crate::server::sockets::bind_all;
use crate::server::start::{Server, StartError};
use crate::settings::Config;
use crate::wire::BindError;

#[derive(Debug)]
pub struct Reloaded {
    pub revision: u64,
    /// Where callers are served now and were not before.
    pub opened: Vec<SocketAddr>,
    /// Where no callers are accepted any more.
    pub closed: Vec<SocketAddr>,
}

/// All that the next settings need, and nothing that is in force.
struct Next {
    prepared: Prepared,
    listeners: Vec<NextListener>,
    closed: Vec<Arc<Listening>>,
}

enum NextListener {
    Kept(Arc<Listening>, Speaks),
    Opened(Arc<Listening>, Vec<StdListener>),
}

impl Server {
    /// Puts these settings in force. Requests that are running end as they began; the next one of an open connection finds
    /// the new settings. What needs a restart stays as it was started.
    pub async fn reload(&mut self, config: &Arc<Config>, wanted: Wanted) -> Result<Reloaded, StartError> {
        let (gateway, plan, serving) = (self.gateway.clone(), self.plan.clone(), self.listenings.clone());
        let settings = config.clone();
        let building = move || Next::build((&gateway, &plan), serving, &settings, wanted);
        let next = self.alone(building).await.ok_or(StartError::Unfinished)??;
        Ok(self.swap(next, config))
    }

    /// Runs `work` in a thread of its own; nothing if that cannot be begun, or panics. The threads of a pool have arenas of their
    /// own (glibc), over which a thousand snapshots would spread more and more memory that is free and not returned.
    async fn alone<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = oneshot::channel();
        let control = self.control().clone();
        let working = move || {
            let _entered = control.enter();
            // Nobody waits any more where the gateway is stopping.
            let _ = done.send(work());
        };
        let thread = thread::Builder::new().name("flowgate-build".to_owned());
        thread.spawn(working).ok()?;
        result.await.ok()
    }

    fn swap(&mut self, next: Next, config: &Config) -> Reloaded {
        let (revision, retired) = self.gateway.put_in_force(next.prepared, config);
        let mut opened = Vec::new();
        self.listenings.clear();
        for listener in next.listeners {
            let listening = match listener {
                NextListener::Kept(listening, speaks) => {
                    listening.speak(speaks);
                    listening
                }
                NextListener::Opened(listening, sockets) => {
                    self.crew.accept(&listening, sockets);
                    opened.push(listening.bound);
                    listening
                }
            };
            self.listenings.push(listening);
        }
        let closed = next.closed.iter().map(|listening| {
            listening.close();
            listening.bound
        });
        let closed = closed.collect();
        self.note_listeners();
        self.drain_timeout = config.gateway.drain_timeout;
        self.control().spawn(self.gateway.clone().release(retired));
        Reloaded {
            revision,
            opened,
            closed,
        }
    }
}

impl Next {
    /// Builds it; new listeners are bound, and accept nothing yet.
    fn build(
        (gateway, plan): (&Gateway, &Plan),
        mut serving: Vec<Arc<Listening>>,
        config: &Config,
        wanted: Wanted,
    ) -> Result<Self, StartError> {
        let prepared = gateway.prepare(config, wanted)?;
        let taken: Vec<_> = serving.iter().map(|listening| listening.bound).collect();
        let settings = Arc::new(config.connections.clone());
        let mut listeners = Vec::new();
        for listener in prepared.listeners() {
            let address = listener.address;
            let known = serving.iter().position(|listening| listening.address == address);
            let known = known.map(|index| serving.remove(index));
            let earlier = known.as_ref().map(|listening| listening.speaks());
            let speaks = plan.speaks(listener, &settings, prepared.rereader(), earlier.as_deref())?;
            if let Some(why) = earlier.and_then(|earlier| speaks.lapse(&earlier)) {
                return Err(StartError::Lapsed { address, why });
            }
            listeners.push(match known {
                Some(listening) => NextListener::Kept(listening, speaks),
                None => {
                    let (bound, sockets) =
                        bind_all(address, plan.workers()).map_err(|error| overlapping(&taken, error))?;
                    let listening = Listening::new(address, bound, speaks, &plan.phases);
                    NextListener::Opened(listening, sockets)
                }
            });
        }
        Ok(Self {
            prepared,
            listeners,
            closed: serving,
        })
    }
}

/// An address that one of our own listeners has in part.
fn overlapping(taken: &[SocketAddr], error: BindError) -> StartError {
    let port = error.address.port();
    let ours = taken
        .iter()
        .find(|ours| ours.port() == port && **ours != error.address);
    match ours {
        Some(ours) => StartError::Overlap {
            address: error.address,
            ours: *ours,
        },
        None => error.into(),
    }
}
