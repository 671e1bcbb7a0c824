//! Where lines go: one writer beside the requests that never blocks them, and counts what it drops. Request lines and
//! all others share it, so their order is kept.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

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
    /// For lines of requests and connections.
    pub(super) log: Log,
    _guard: WorkerGuard,
}

struct Writer {
    lines: Mutex<NonBlocking>,
    dropped: ErrorCounter,
    lost: Arc<AtomicU64>,
}

impl Sink for Writer {
    fn line(&self, line: &[u8]) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // It takes the line or counts it as dropped; there is nothing else it could report.
        let _ = lines.write_all(line);
    }

    fn dropped(&self) -> u64 {
        let dropped = u64::try_from(self.dropped.dropped_lines()).unwrap_or(u64::MAX);
        dropped.saturating_add(self.lost.load(Ordering::Relaxed))
    }
}

/// Where lines end, whatever becomes of them there. One that the system does not take, because the disk is full, is
/// counted and given up: requests go on, and so does the log once there is room again.
struct Outlet<W> {
    out: W,
    lost: Arc<AtomicU64>,
    /// Whether the last line may have been written in part.
    torn: bool,
}

impl<W: Write> Outlet<W> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.out.write_all(b"\n")?;
        }
        self.out.write_all(line)
    }
}

impl<W: Write> Write for Outlet<W> {
    /// Takes one line: the writer hands over one at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.torn = self.line(line).is_err();
        self.lost.fetch_add(self.torn.into(), Ordering::Relaxed);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Puts the writer and the subscriber in place.
pub(super) fn start(settings: &LogSettings) -> Logging {
    let form = match settings.format {
        LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text,
        LogFormat::Auto if io::stdout().is_terminal() => Form::Text,
        LogFormat::Auto => Form::Json,
    };
    let builder = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    let (writer, guard) = builder.finish(Outlet {
        out: io::stdout(),
        lost: lost.clone(),
        torn: false,
    });
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
                    .with_ansi(io::stdout().is_terminal())
                    .with_writer(move || lines.clone()),
            )
            .try_init(),
    };
    let sink = Arc::new(Writer {
        lines: Mutex::new(writer),
        dropped,
        lost,
    });
    let log = match settings.access {
        AccessLog::On => Log::new(sink, form),
        AccessLog::Off => Log::without_requests(sink, form),
    };
    Logging { log, _guard: guard }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    use super::Outlet;

    /// Takes so many bytes and no more.
    struct Disk {
        room: usize,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.written.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let lost = Arc::new(AtomicU64::new(0));
        let mut outlet = Outlet {
            out: Disk {
                room: 7,
                written: Vec::new(),
            },
            lost: lost.clone(),
            torn: false,
        };
        for line in ["one\n", "two two\n", "three\n"] {
            outlet.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(lost.load(Ordering::Relaxed), 2);
        outlet.out.room = 100;
        outlet.write_all(b"four\n").unwrap();
        outlet.write_all(b"five\n").unwrap();
        assert_eq!(lost.load(Ordering::Relaxed), 2);
        assert_eq!(outlet.out.written, b"one\ntwo\nfour\nfive\n");
    }
}
