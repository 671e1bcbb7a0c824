//! An emulator of the services behind the gateway: Microsoft Entra's token endpoint, the trigger endpoint of
//! flows and a key vault, as real TLS servers on loopback. Tests, benches and the demo share it; it knows
//! nothing of the gateway.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "several binaries include this module, and none of them uses all of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::new_without_default,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::disallowed_methods,
    reason = "the emulator is test code: a broken set-up shall end the test, and it reads the real clock"
)]

pub mod aadsts;
mod admission;
pub mod answer;
pub mod certs;
pub mod entra;
pub mod faults;
pub mod flow;
mod form;
pub mod gate;
pub mod ids;
pub mod issuer;
mod journal;
pub mod jwt;
pub mod listener;
pub mod managed;
mod operations;
mod platform;
pub mod record;
pub mod reply;
pub mod script;
mod session;
pub mod standalone;
pub mod steps;
mod subject;
pub mod tokens;
pub mod trigger;
pub mod vault;
pub mod vendor;
pub mod wire;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::{fs, io};

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

pub use self::answer::{After, Answer, ErrorBody};
pub use self::certs::{Authority, KeyKind, Leaf};
pub use self::entra::{Entra, Rotation, TokenForm};
pub use self::faults::{PLATFORM_FAULTS, PlatformFault, platform_fault};
pub use self::flow::{Flow, TriggerHandle};
pub use self::gate::{Count, Gate};
pub use self::issuer::Issuer;
use self::jwt::Mint;
use self::listener::Listener;
pub use self::listener::{Door, KeepAlive};
pub use self::managed::{ManagedAnswer, ManagedEndpoint, ManagedIdentity, Platform};
pub use self::record::{Decided, Recorded};
pub use self::reply::Reply;
use self::script::Violations;
pub use self::steps::Steps;
pub use self::tokens::TokenAnswer;
pub use self::trigger::{Condition, Family, Signatures, Trigger};
pub use self::vault::{Vault, VaultAnswer};
pub use self::vendor::Vendor;
pub use self::wire::Framing;

/// The names in the servers' certificates.
const NAMES: &[&str] = &["localhost", "127.0.0.1"];

/// The servers, their authority and a folder; everything ends when this is dropped.
#[derive(Debug)]
pub struct Emulator {
    /// The authority that signed the servers' certificates; it can also sign the gateway's.
    pub ca: Arc<Authority>,
    /// The token endpoint.
    pub entra: Entra,
    /// The trigger endpoint.
    pub flow: Flow,
    /// A key vault.
    pub vault: Vault,
    violations: Violations,
    folder: TempDir,
    /// Stops the servers when it is dropped; never read.
    _life: Life,
}

impl Emulator {
    /// Starts the servers on the caller's runtime.
    ///
    /// # Panics
    /// If this machine has no free port or no writable folder for temporary files.
    pub async fn start() -> Self {
        let started = Self::start_with(Authority::new(), [0, 0]).await;
        started.expect("the emulator can listen on loopback")
    }

    /// Starts the servers with this authority, the token endpoint on the first port and the flows on the second.
    ///
    /// # Errors
    /// If a port is taken, or there is no writable folder for temporary files.
    pub async fn start_with(ca: Authority, ports: [u16; 2]) -> io::Result<Self> {
        let (parts, tasks) = Parts::start(ca, ports).await?;
        Ok(parts.into_emulator(Life::Tasks(tasks)))
    }

    /// Starts the servers on a thread and a runtime of their own, shared with nothing under test. May be
    /// called with or without a runtime.
    ///
    /// # Panics
    /// As [`Emulator::start`].
    pub fn start_on_own_thread() -> Self {
        let (ready, started) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("emulator".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    // Dropping the runtime ends the tasks, so their handles are not needed.
                    let started = Parts::start(Authority::new(), [0, 0]).await;
                    let (parts, _) = started.expect("the emulator can listen on loopback");
                    if ready.send(parts).is_ok() {
                        // A dropped sender means the same as a message.
                        let _ = stopped.await;
                    }
                });
            })
            .unwrap();
        let parts = started.recv().expect("the emulator's thread starts");
        parts.into_emulator(Life::Thread {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The PEM file with the authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A folder that disappears with the emulator, for certificates, settings and secrets of a test.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Registers an application with a secret.
    pub fn register_app(&self, tenant: &str, client_id: &str, secret: &str, oid: &str) {
        self.entra.register_app(tenant, client_id, secret, oid);
    }

    /// Makes the flow refuse every token that Entra has issued so far; the next one is accepted.
    pub fn revoke_issued_tokens(&self) {
        for token in self.entra.issued() {
            self.flow.revoke(&token);
        }
    }

    /// From now on both servers answer only what is scripted.
    pub fn strict(&self) {
        self.entra.strict();
        self.flow.strict();
    }

    /// What went wrong so far: unscripted requests, and requests that are not valid HTTP.
    pub fn violations(&self) -> Vec<String> {
        self.violations.list()
    }

    /// Fails the test if something went wrong in the emulator.
    ///
    /// # Panics
    /// With the list of what went wrong.
    pub fn assert_clean(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "the emulator saw: {violations:#?}");
    }

    /// Fails the test if something went wrong, or a scripted answer was not used.
    ///
    /// # Panics
    /// With what went wrong or what is left.
    pub fn assert_script_done(&self) {
        self.assert_clean();
        let left = (self.entra.script_left(), self.flow.script_left());
        assert_eq!(left, (0, 0), "scripted answers left at entra and at the flow");
    }
}

/// What keeps the servers running.
#[derive(Debug)]
enum Life {
    Tasks(Vec<AbortHandle>),
    Thread {
        stop: Option<oneshot::Sender<()>>,
        thread: Option<JoinHandle<()>>,
    },
}

impl Drop for Life {
    fn drop(&mut self) {
        match self {
            Self::Tasks(tasks) => tasks.iter().for_each(AbortHandle::abort),
            Self::Thread { stop, thread } => {
                drop(stop.take());
                if let Some(thread) = thread.take() {
                    // A panic of that thread has been printed already.
                    let _ = thread.join();
                }
            }
        }
    }
}

/// Everything except what keeps it running.
struct Parts {
    ca: Arc<Authority>,
    entra: Entra,
    flow: Flow,
    vault: Vault,
    violations: Violations,
    folder: TempDir,
}

impl Parts {
    /// Binds the servers and starts them on the current runtime.
    async fn start(ca: Authority, [entra_port, flow_port]: [u16; 2]) -> io::Result<(Self, Vec<AbortHandle>)> {
        let ca = Arc::new(ca);
        let folder = TempDir::new()?;
        fs::write(folder.path().join("ca.pem"), ca.pem())?;
        let violations = Violations::default();
        let mint = Arc::new(Mint::default());
        let (entra_listener, entra_socket) = Listener::bind(&ca.leaf(NAMES), entra_port).await?;
        let (flow_listener, flow_socket) = Listener::bind(&ca.leaf(NAMES), flow_port).await?;
        let (vault_listener, vault_socket) = Listener::bind(&ca.leaf(NAMES), 0).await?;
        let entra = Entra::new(Arc::clone(&entra_listener), Arc::clone(&mint), violations.clone());
        let vault = Vault::new(Arc::clone(&vault_listener), Arc::clone(&mint), violations.clone());
        let flow = Flow::new(Arc::clone(&flow_listener), mint, violations.clone());
        let tasks = [
            tokio::spawn(entra_listener.run(entra_socket, {
                let entra = entra.clone();
                move |wire, connection| entra.clone().serve(wire, connection)
            })),
            tokio::spawn(flow_listener.run(flow_socket, {
                let flow = flow.clone();
                move |wire, connection| flow.clone().serve(wire, connection)
            })),
            tokio::spawn(vault_listener.run(vault_socket, {
                let vault = vault.clone();
                move |wire, connection| vault.clone().serve(wire, connection)
            })),
        ];
        let handles = tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect();
        Ok((
            Self {
                ca,
                entra,
                flow,
                vault,
                violations,
                folder,
            },
            handles,
        ))
    }

    fn into_emulator(self, life: Life) -> Emulator {
        let Self {
            ca,
            entra,
            flow,
            vault,
            violations,
            folder,
        } = self;
        Emulator {
            ca,
            entra,
            flow,
            vault,
            violations,
            folder,
            _life: life,
        }
    }
}
