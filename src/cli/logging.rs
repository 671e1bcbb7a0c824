//! Where lines go: one writer beside the requests that never blocks them, and counts what it drops. Request lines and
//! all others share it, so their order is kept.

use std::io::IsTerminal;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use tracing_appender::non_blocking::ErrorCounter;
use tracing_appender::non_blocking::NonBlocking;
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::AccessLog;
use crate::config::LogFormat;
use crate::config::LogSettings;
use crate::gateway::journal::Form;
use crate::gateway::journal::Log;
use crate::gateway::journal::Sink;

/// Lines that wait for the writer at most; about 30 MB of them.
const LINES_MAX: usize = 64 * 1024;

/// Writes what still waits when dropped.
pub(super) struct Logging {
    /// For request lines.
    pub(super) log: Log,
    _guard: WorkerGuard,
}

struct Writer {
    lines: Mutex<NonBlocking>,
    dropped: ErrorCounter,
}

impl Sink for Writer {
    fn line(&self, line: &[u8]) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // It takes the line or counts it as dropped; there is nothing else it could report.
        let _ = lines.write_all(line);
    }

    fn dropped(&self) -> u64 {
        u64::try_from(self.dropped.dropped_lines()).unwrap_or(u64::MAX)
    }
}

/// Puts the writer and the subscriber in place.
pub(super) fn start(settings: &LogSettings) -> Logging {
    let form = match settings.format {
        LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text,
        LogFormat::Auto if std::io::stdout().is_terminal() => Form::Text,
        LogFormat::Auto => Form::Json,
    };
    let builder = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX);
    let (writer, guard) = builder.finish(std::io::stdout());
    let dropped = writer.error_counter();
    // Libraries speak from warn on: below that they can print what passes through them.
    let filter = EnvFilter::new(format!("warn,flowgate={}", settings.level));
    let lines = writer.clone();
    let registry = tracing_subscriber::registry().with(filter);
    // Only one subscriber can be set, and this is the only place that sets one.
    let _ = match form {
        Form::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(move || lines.clone()),
            )
            .try_init(),
        Form::Text => registry
            .with(
                fmt::layer()
                    .with_target(false)
                    .with_ansi(std::io::stdout().is_terminal())
                    .with_writer(move || lines.clone()),
            )
            .try_init(),
    };
    let log = match settings.access {
        AccessLog::On => Log::new(
            Arc::new(Writer {
                lines: Mutex::new(writer),
                dropped,
            }),
            form,
        ),
        AccessLog::Off => Log::off(),
    };
    Logging { log, _guard: guard }
}
