//! `[log]`: what is logged, and how.

use tracing::Level;

use crate::settings::kinds::{ANY, choice, switch};
use crate::settings::table::table;

table! {
    /// What is logged, and how.
    pub struct LogSettings {
        /// "auto" (text on a terminal, JSON elsewhere), "json" or "text".
        format: LogFormat = LogFormat::Auto, ANY, Restart;
        /// Whether each request gets a line.
        access: AccessLog = AccessLog::On, ANY, Restart;
        /// Least level of the lines that are not about one request: "error", "warn", "info", "debug", "trace".
        level: Level = Level::INFO, ANY, Restart;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Json,
    Text,
}

choice!(LogFormat: Self::Auto => "auto", Self::Json => "json", Self::Text => "text");
choice!(
    Level: Self::ERROR => "error", Self::WARN => "warn", Self::INFO => "info",
    Self::DEBUG => "debug", Self::TRACE => "trace"
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    On,
    /// None; connection lines and changes of state are still logged.
    Off,
}

switch!(AccessLog: On = true, Off = false);
