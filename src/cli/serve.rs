//! `flowgate serve`: reads the settings, starts log and gateway, and serves until it is stopped.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::admin;
use crate::cli::kept::{Kept, reply};
use crate::cli::load::{Whole, load_for, runtime};
use crate::cli::logging;
use crate::cli::outcome::{FAILED, Outcome};
use crate::cli::reload;
use crate::cli::reload::Reloader;
use crate::cli::signals::{Notice, Notices, Signals};
use crate::counters::Counters;
use crate::server::Server;
use crate::state::Actor;

pub(super) fn serve(path: &Path) -> Result<Outcome, Outcome> {
    let runtime = runtime()?;
    // Registered before the settings are read, which may take a while: none of these signals may end the
    // process.
    let notices = {
        let _entered = runtime.enter();
        Notices::register()
    };
    let notices = notices.map_err(no_signals)?;
    let whole = runtime.block_on(load_for(path, "start"))?;
    let outcome = runtime.block_on(run(path, whole, notices));
    // A file that hangs in the system must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

fn no_signals(error: io::Error) -> Outcome {
    Outcome::failed(format!("cannot listen for signals: {error}\n"), FAILED)
}

async fn run(path: &Path, mut whole: Whole, mut notices: Notices) -> Result<Outcome, Outcome> {
    let logging = logging::start(&whole.config.log)
        .map_err(|error| Outcome::failed(format!("cannot write the log: {error}\n"), FAILED))?;
    whole.warnings.iter().for_each(reload::log);
    // Registered before anything is served, so that no signal meets the default action.
    let mut signals = Signals::register().map_err(no_signals)?;
    let (mut kept, revocations) = Kept::open(whole.config.state_folder.as_deref())
        .map_err(|error| Outcome::failed(format!("flowgate: {error}\n"), FAILED))?;
    let mut reloader = Reloader::new(path.to_owned(), &mut whole);
    let (config, log) = (&whole.config, logging.log.clone());
    let mut server = Server::start_with(config, &Counters::new(), log, revocations)
        .map_err(|error| Outcome::failed(format!("flowgate: {error}\n"), FAILED))?;
    kept.listen(server.gateway());
    let admin = admin::start(&whole.config, server.control(), server.gateway())
        .map_err(|error| Outcome::failed(format!("flowgate: {error}\n"), FAILED))?;
    // The settings' own copies of lists and secrets are no longer needed.
    drop(whole);
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = admin {
        tracing::info!(%address, "admin listening: /healthz /readyz /metrics /status /keys/unused");
    }
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
                asked = kept.command() => asked.answer(reply(FAILED, "flowgate: the gateway is stopping")),
                notice = notices.next() => match notice {
                    Notice::Hangup => tracing::warn!(signal = "SIGHUP", "SIGHUP is ignored: the gateway is stopping"),
                    Notice::Other(ignored) => ignored.log(),
                },
            }
        }
    };
    server.stop(again).await;
    Ok(Outcome::default())
}
