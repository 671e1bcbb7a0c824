//! Signals of the system: those that stop the gateway, the one that reloads its settings, and those that would end it by
//! default and are ignored.

use std::io;

/// Signals that stop the gateway.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    pub(super) fn register() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    #[cfg(not(unix))]
    pub(super) fn register() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}

/// A signal that ends nothing.
#[cfg_attr(not(unix), expect(dead_code, reason = "no such signals are sent there"))]
pub(super) enum Notice {
    Hangup,
    Other(Ignored),
}

/// A signal that does nothing here: it is logged with what to do instead.
#[cfg_attr(not(unix), expect(dead_code, reason = "no such signals are sent there"))]
pub(super) enum Ignored {
    User1,
    User2,
}

impl Ignored {
    pub(super) fn log(&self) {
        match self {
            Self::User1 => tracing::warn!(
                signal = "SIGUSR1",
                "SIGUSR1 is ignored: there is no log file to reopen, because the log goes to standard output; to \
                 apply changed settings, send SIGHUP"
            ),
            Self::User2 => tracing::warn!(
                signal = "SIGUSR2",
                "SIGUSR2 is ignored: the program cannot be replaced while it runs; stop it with SIGTERM, which \
                 lets requests finish, and start the new one"
            ),
        }
    }
}

/// Signals whose default action would end the process without draining.
pub(super) struct Notices {
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    #[cfg(unix)]
    user: [tokio::signal::unix::Signal; 2],
}

impl Notices {
    #[cfg(unix)]
    pub(super) fn register() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    #[cfg(not(unix))]
    pub(super) fn register() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    pub(super) async fn next(&mut self) -> Notice {
        let [first, second] = &mut self.user;
        tokio::select! {
            _ = self.hangup.recv() => Notice::Hangup,
            _ = first.recv() => Notice::Other(Ignored::User1),
            _ = second.recv() => Notice::Other(Ignored::User2),
        }
    }

    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) -> Notice {
        std::future::pending().await
    }
}
