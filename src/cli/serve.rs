//! `flowgate serve`: settings, log, gateway, and the signals that end it.

use std::path::Path;

use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::cli::FAILED;
use crate::cli::Outcome;
use crate::cli::WELL;
use crate::cli::load;
use crate::cli::logging;
use crate::config::Config;
use crate::config::Environment;
use crate::config::Mistake;
use crate::counters::Counters;
use crate::entra;
use crate::server::Server;

pub(super) fn serve(path: &Path) -> Outcome {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::failed(format!("cannot start: {error}\n"), FAILED),
    };
    let (config, warnings) = match settings(path, &runtime) {
        Ok(loaded) => loaded,
        Err(outcome) => return outcome,
    };
    runtime.block_on(run(config, &warnings))
}

/// The settings with everything that they need. What lies in key vaults is known only when the settings say how to get
/// there, so they are then read a second time, with those values at hand.
fn settings(path: &Path, runtime: &Runtime) -> Result<(Config, Vec<Mistake>), Outcome> {
    let environment = Environment::of_process();
    let (config, warnings) = load(path, &environment)?;
    let Some(keyvault) = config
        .keyvault
        .as_ref()
        .filter(|keyvault| !keyvault.at_start.is_empty())
    else {
        return Ok((config, warnings));
    };
    match runtime.block_on(entra::read_vaults(keyvault, &config.identities)) {
        Ok(values) => load(path, &environment.with_vaults(values)),
        Err(error) => Err(Outcome::failed(
            format!("flowgate: cannot start: {error}\n"),
            FAILED,
        )),
    }
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
        tracing::info!(%address, "admin listening: /healthz /readyz /metrics");
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
