//! `flowgate serve`: reads the settings, starts log and gateway, and handles signals until it is stopped.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::{io, mem};

use tokio::runtime::Builder;

use crate::admin;
use crate::cli::load::load_whole;
use crate::cli::logging;
use crate::cli::outcome::{FAILED, Outcome, WELL};
use crate::counters::Counters;
use crate::server::Server;
use crate::settings::{Config, FileInForce, Mistake, Severity};

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
    let (config, warnings) = match load_whole(path, &runtime, "start") {
        Ok(loaded) => loaded,
        Err(outcome) => return outcome,
    };
    runtime.block_on(run(config, &warnings, notices))
}

fn no_signals(error: &io::Error) -> Outcome {
    Outcome::failed(format!("cannot listen for signals: {error}\n"), FAILED)
}

async fn run(mut config: Config, warnings: &[Mistake], mut notices: Notices) -> Outcome {
    let logging = match logging::start(&config.log) {
        Ok(logging) => logging,
        Err(error) => return Outcome::failed(format!("cannot write the log: {error}\n"), FAILED),
    };
    for warning in warnings {
        let (file, line, hint) = (warning.file(), warning.line(), warning.hint());
        match warning.severity() {
            Severity::Warning => tracing::warn!(file, line, hint, "{}", warning.what()),
            Severity::Mistake | Severity::Lapse => tracing::error!(file, line, hint, "{}", warning.what()),
        }
    }
    // Registered before anything is served, so that no signal meets the default action.
    let mut signals = match Signals::register() {
        Ok(signals) => signals,
        Err(error) => return no_signals(&error),
    };
    notices.files = mem::take(&mut config.files).into();
    let server = match Server::start(&config, &Counters::new(), logging.log.clone()) {
        Ok(server) => server,
        Err(error) => return Outcome::failed(format!("flowgate: {error}\n"), FAILED),
    };
    let admin = match admin::start(&config, server.control(), server.gateway()) {
        Ok(admin) => admin,
        Err(error) => return Outcome::failed(format!("flowgate: {error}\n"), FAILED),
    };
    // The settings' own copies of lists and secrets are no longer needed.
    drop(config);
    for address in server.addresses() {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = admin {
        tracing::info!(%address, "admin listening: /healthz /readyz /metrics /status /keys/unused");
    }
    let signal = tokio::select! {
        signal = signals.next() => signal,
        never = notices.answer() => match never {},
    };
    tracing::info!(signal, "stopping");
    let again = async {
        tokio::select! {
            _ = signals.next() => {}
            never = notices.answer() => match never {},
        }
    };
    server.stop(again).await;
    Outcome {
        code: WELL,
        ..Outcome::default()
    }
}

/// Signals that stop the gateway.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn register() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(not(unix))]
    fn register() -> io::Result<Self> {
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

/// Signals whose default action would end the process without draining, and which do nothing here: each is
/// logged with what to do instead.
struct Notices {
    /// The files that the settings in force were read from.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only SIGHUP compares them"))]
    files: Arc<[FileInForce]>,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    #[cfg(unix)]
    user: [tokio::signal::unix::Signal; 2],
}

#[cfg(unix)]
impl Notices {
    fn register() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            files: Arc::default(),
            hangup: signal(SignalKind::hangup())?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    /// Logs each of these signals, forever.
    async fn answer(&mut self) -> Infallible {
        let [first, second] = &mut self.user;
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    let files = self.files.clone();
                    // Blocking: lists may have many megabytes. The task logs its result itself.
                    let _ = tokio::task::spawn_blocking(move || compare(&files)).await;
                }
                _ = first.recv() => tracing::warn!(
                    signal = "SIGUSR1",
                    "SIGUSR1 is ignored: there is no log file to reopen, because the log goes to standard output; to \
                     apply changed settings, restart the gateway"
                ),
                _ = second.recv() => tracing::warn!(
                    signal = "SIGUSR2",
                    "SIGUSR2 is ignored: the program cannot be replaced while it runs; stop it with SIGTERM, which \
                     lets requests finish, and start the new one"
                ),
            }
        }
    }
}

#[cfg(not(unix))]
impl Notices {
    fn register() -> io::Result<Self> {
        Ok(Self {
            files: Arc::default(),
        })
    }

    async fn answer(&mut self) -> Infallible {
        std::future::pending().await
    }
}

/// Logs a SIGHUP: whether the files differ from the settings in force, and what to do.
#[cfg(unix)]
fn compare(files: &[FileInForce]) {
    use crate::settings::FileState;

    let (mut changed, mut unreadable) = (Vec::new(), Vec::new());
    for file in files {
        match file.compare() {
            FileState::Same => {}
            FileState::Differs => changed.push(file.to_string()),
            FileState::Unreadable(why) => unreadable.push(why),
        }
    }
    let listed = |texts: &[String]| (!texts.is_empty()).then(|| texts.join(", "));
    let (changed, unreadable) = (listed(&changed), listed(&unreadable));
    let signal = "SIGHUP";
    if changed.is_none() && unreadable.is_none() {
        tracing::info!(
            signal,
            "SIGHUP is ignored: the settings file and the list files have not changed since the start; \
             certificates and rotated secrets are followed without a signal"
        );
        return;
    }
    tracing::warn!(
        signal,
        changed,
        unreadable,
        "SIGHUP is ignored: settings are read only at the start, and the files have changed since; check \
         them with `flowgate check`, then restart the gateway to apply them"
    );
}
