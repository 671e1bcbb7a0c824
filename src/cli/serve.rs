//! `flowgate serve`: reads the settings, starts log and gateway, and serves until it is stopped.

use std::io;
use std::path::Path;

use tokio::runtime::Builder;

use crate::admin;
use crate::cli::kept::Kept;
use crate::cli::load::{Whole, load_for};
use crate::cli::logging;
use crate::cli::outcome::{FAILED, Outcome, WELL};
use crate::cli::reload;
use crate::cli::reload::Reloader;
use crate::cli::signals::{Notice, Notices, Signals};
use crate::counters::Counters;
use crate::server::Server;
use crate::state::Actor;

pub(super) fn serve(path: &Path) -> Outcome {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Outcome::failed(format!("cannot start: {error}\n"), FAILED),
    };
    // Registered before the settings are read, which may take a while: none of these signals may end the
    // process.
    let notices = {
        let _entered = runtime.enter();
        Notices::register()
    };
    let notices = match notices {
        Ok(notices) => notices,
        Err(error) => return no_signals(&error),
    };
    let whole = match runtime.block_on(load_for(path, "start")) {
        Ok(whole) => whole,
        Err(outcome) => return outcome,
    };
    runtime.block_on(run(path, whole, notices))
}

fn no_signals(error: &io::Error) -> Outcome {
    Outcome::failed(format!("cannot listen for signals: {error}\n"), FAILED)
}

async fn run(path: &Path, mut whole: Whole, mut notices: Notices) -> Outcome {
    let logging = match logging::start(&whole.config.log) {
        Ok(logging) => logging,
        Err(error) => return Outcome::failed(format!("cannot write the log: {error}\n"), FAILED),
    };
    whole.warnings.iter().for_each(reload::log);
    // Registered before anything is served, so that no signal meets the default action.
    let mut signals = match Signals::register() {
        Ok(signals) => signals,
        Err(error) => return no_signals(&error),
    };
    let (mut kept, revocations) = match Kept::open(whole.config.state_folder.as_deref()) {
        Ok(kept) => kept,
        Err(error) => return Outcome::failed(format!("flowgate: {error}\n"), FAILED),
    };
    let mut reloader = Reloader::new(path.to_owned(), &mut whole);
    let (config, log) = (&whole.config, logging.log.clone());
    let mut server = match Server::start_with(config, &Counters::new(), log, revocations) {
        Ok(server) => server,
        Err(error) => return Outcome::failed(format!("flowgate: {error}\n"), FAILED),
    };
    let admin = match admin::start(&whole.config, server.control(), server.gateway()) {
        Ok(admin) => admin,
        Err(error) => return Outcome::failed(format!("flowgate: {error}\n"), FAILED),
    };
    // The settings' own copies of lists and secrets are no longer needed.
    drop(whole);
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = admin {
        tracing::info!(%address, "admin listening: /healthz /readyz /metrics /status /keys/unused");
    }
    kept.listen();
    let about = [
        format!("version {}", env!("CARGO_PKG_VERSION")),
        format!("settings {}", server.gateway().status().settings),
    ];
    kept.note(&Actor::Gateway, "start", "done", &about);
    let signal = tokio::select! {
        signal = signals.next() => signal,
        never = reloader.run(&mut server, &mut notices, &mut kept) => match never {},
    };
    tracing::info!(signal, "stopping");
    let by = Actor::Signal {
        name: signal.to_owned(),
    };
    kept.note(&by, "stop", "begun", &[]);
    let again = async {
        loop {
            tokio::select! {
                _ = signals.next() => return,
                notice = notices.next() => match notice {
                    Notice::Hangup => tracing::warn!(signal = "SIGHUP", "SIGHUP is ignored: the gateway is stopping"),
                    Notice::Other(ignored) => ignored.log(),
                },
            }
        }
    };
    server.stop(again).await;
    Outcome {
        code: WELL,
        ..Outcome::default()
    }
}
