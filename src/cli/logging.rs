//! Sets up logging: what is logged, and in which form. Request lines and all others use one queue, so their
//! order is kept.

use std::fs::File;
use std::io;
use std::io::IsTerminal;
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(windows)]
use std::os::windows::io::AsHandle;
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::cli::libraries;
use crate::cli::libraries::Libraries;
use crate::cli::lines::{FlushOnDrop, Lines};
use crate::gateway::log::{Form, Log};
use crate::settings::{AccessLog, LogFormat, LogSettings};

/// The target of this crate's lines.
const OURS: &str = "flowgate";

/// Writes the remaining lines when dropped.
pub(super) struct Logging {
    /// For lines of requests and connections.
    pub(super) log: Log,
    _flush: FlushOnDrop,
}

/// Installs the writer and the subscriber.
pub(super) fn start(settings: &LogSettings) -> io::Result<Logging> {
    let form = match settings.format {
        LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text,
        LogFormat::Auto if io::stdout().is_terminal() => Form::Text,
        LogFormat::Auto => Form::Json,
    };
    let (sink, flush) = Lines::start(standard_output()?, io::stderr(), form)?;
    let libraries = Targets::new()
        .with_default(libraries::level(settings.level))
        .with_target(OURS, LevelFilter::OFF);
    let registry =
        tracing_subscriber::registry().with(Libraries::new(sink.clone(), form).with_filter(libraries));
    let ours = Targets::new().with_target(OURS, settings.level);
    let lines = sink.clone();
    let layer = match form {
        Form::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(move || lines.clone())
            .boxed(),
        Form::Text => fmt::layer()
            .with_target(false)
            .with_ansi(io::stdout().is_terminal())
            .with_writer(move || lines.clone())
            .boxed(),
    };
    // This is the only place that sets the subscriber.
    let _ = registry.with(layer.with_filter(ours)).try_init();
    let sink = Arc::new(sink);
    let log = match settings.access {
        AccessLog::On => Log::new(sink, form),
        AccessLog::Off => Log::without_requests(sink, form),
    };
    Ok(Logging { log, _flush: flush })
}

/// Standard output without the buffer of the standard library.
fn standard_output() -> io::Result<File> {
    #[cfg(unix)]
    let owned = io::stdout().as_fd().try_clone_to_owned()?;
    #[cfg(windows)]
    let owned = io::stdout().as_handle().try_clone_to_owned()?;
    Ok(File::from(owned))
}
