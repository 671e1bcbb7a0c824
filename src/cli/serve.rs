//! `flowgate serve`: settings, log, gateway, and the signals that end it.

use std::path::Path;

use tokio::runtime::Builder;

use crate::cli::FAILED;
use crate::cli::Outcome;
use crate::cli::WELL;
use crate::cli::load_whole;
use crate::cli::logging;
use crate::config::Config;
use crate::config::Mistake;
use crate::counters::Counters;
use crate::server::Server;

pub(super) fn serve(path: &Path) -> Outcome {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::failed(format!("cannot start: {error}\n"), FAILED),
    };
    let (config, warnings) = match load_whole(path, &runtime, "start") {
        Ok(loaded) => loaded,
        Err(outcome) => return outcome,
    };
    runtime.block_on(run(config, &warnings))
}

async fn run(config: Config, warnings: &[Mistake]) -> Outcome {
    let logging = match logging::start(&config.log) {
        Ok(logging) => logging,
        Err(error) => return Outcome::failed(format!("cannot write the log: {error}\n"), FAILED),
    };
    for warning in warnings {
        tracing::warn!(
            file = warning.file(),
            line = warning.line(),
            hint = warning.hint(),
            "{}",
            warning.what()
        );
    }
    // Registered before anything is served, so that no signal meets the default action.
    let mut signals = match Signals::register() {
        Ok(signals) => signals,
        Err(error) => return Outcome::failed(format!("cannot listen for signals: {error}\n"), FAILED),
    };
    let server = match Server::start(&config, &Counters::new(), logging.log.clone()) {
        Ok(server) => server,
        Err(error) => return Outcome::failed(format!("flowgate: {error}\n"), FAILED),
    };
    // From here on the settings' own copies of lists and secrets are not needed.
    drop(config);
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = server.admin_address() {
        tracing::info!(%address, "admin listening: /healthz /readyz /metrics /status /keys/unused");
    }
    let signal = signals.next().await;
    tracing::info!(signal, "stopping");
    server
        .stop(async {
            signals.next().await;
        })
        .await;
    Outcome {
        code: WELL,
        ..Outcome::default()
    }
}

/// The signals that end the gateway.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn register() -> std::io::Result<Self> {
        use tokio::signal::unix::SignalKind;
        use tokio::signal::unix::signal;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(not(unix))]
    fn register() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
