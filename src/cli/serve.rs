//! `flowgate serve`: reads the settings, starts log and gateway, and serves until it is stopped.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::admin;
use crate::cli::kept::{Kept, reply};
use crate::cli::load::{load_for, runtime};
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
    // Lists that are kept, and commands, name files by their whole paths.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let outcome = runtime.block_on(run(&path, notices));
    // A file that hangs in the system must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

fn no_signals(error: io::Error) -> Outcome {
    Outcome::failed(format!("cannot listen for signals: {error}\n"), FAILED)
}

async fn run(path: &Path, mut notices: Notices) -> Result<Outcome, Outcome> {
    let failed = |error: String| Outcome::failed(format!("flowgate: {error}\n"), FAILED);
    let early = Kept::open_pinned(path).map_err(failed)?;
    let pinned = match &early {
        Some((kept, _)) => kept.pinned().await.map_err(failed)?,
        None => None,
    };
    let (pinned, given) = pinned.unzip();
    let mut whole = load_for(path, given.unwrap_or_default(), "start").await?;
    let logging = logging::start(&whole.config.log)
        .map_err(|error| Outcome::failed(format!("cannot write the log: {error}\n"), FAILED))?;
    whole.warnings.iter().for_each(reload::log);
    // Registered before anything is served, so that no signal meets the default action.
    let mut signals = Signals::register().map_err(no_signals)?;
    let (mut kept, mut recalled) = match early {
        Some(opened) => opened,
        None => {
            Kept::open(whole.config.state_folder.as_deref()).map_err(|error| failed(error.to_string()))?
        }
    };
    let mut reloader = Reloader::new(path.to_owned(), &mut whole, pinned);
    let mut revision = reloader.revision(1, Vec::new());
    revision.number = kept.number_of(&revision);
    recalled.revision = revision.number;
    let (config, log) = (&whole.config, logging.log.clone());
    let mut server = Server::start_with(config, &Counters::new(), log, recalled)
        .map_err(|error| failed(error.to_string()))?;
    server.gateway().note_pinned(pinned);
    kept.keep(revision).await;
    kept.keep_key_uses(server.gateway());
    kept.grant(&whole.config.control);
    kept.listen(server.gateway());
    let admin = admin::start(&whole.config, server.control(), server.gateway())
        .map_err(|error| failed(error.to_string()))?;
    let granted = whole.config.control.grants();
    // The settings' own copies of lists and secrets are no longer needed.
    drop(whole);
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = admin {
        tracing::info!(%address, "admin listening: /healthz /readyz /metrics /status /keys/unused");
    }
    note_start(&kept, &server, granted, pinned).await;
    let signal = tokio::select! {
        signal = signals.next() => signal,
        never = reloader.run(&mut server, &mut notices, &mut kept) => match never {},
    };
    tracing::info!(signal, "stopping");
    let by = Actor::Signal {
        name: signal.to_owned(),
    };
    kept.note(&by, "stop", "begun", &[]).await;
    let gateway = server.gateway().clone();
    let again = ended_early(&mut signals, &mut notices, &mut kept);
    server.stop(again).await;
    kept.write_key_uses(&gateway).await;
    Ok(Outcome::default())
}

/// Notes in the trail what is in force from now on, and who may change it.
async fn note_start(kept: &Kept, server: &Server, granted: Vec<String>, pinned: Option<u64>) {
    let status = server.gateway().status();
    let mut about = vec![
        format!("version {}", env!("CARGO_PKG_VERSION")),
        format!("revision {}, settings {}", status.revision, status.settings),
    ];
    about.extend(granted);
    if let Some(number) = pinned {
        tracing::warn!(
            "started with the settings of revision {number}, to which they were rolled back: files are not followed until \
             `flowgate reload`"
        );
    }
    kept.note(&Actor::Gateway, "start", "done", &about).await;
}

/// Ends with a second signal; answers until then that the gateway is stopping.
async fn ended_early(signals: &mut Signals, notices: &mut Notices, kept: &mut Kept) {
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
}
