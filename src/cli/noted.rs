//! The answer to a command, and the line that it leaves in the trail of changes.

use crate::control::Reply;
use crate::state::{Actor, Trail};

/// Adds a line to the trail, if there is one.
///
/// # Errors
/// Why that cannot be: what it is about must not happen then.
pub(super) fn record(
    trail: Option<&Trail>,
    by: &Actor,
    action: &str,
    outcome: &str,
    what: &[String],
) -> Result<(), String> {
    let recorded = trail.map(|trail| trail.record(by, action, outcome, what));
    recorded
        .unwrap_or(Ok(()))
        .map_err(|error| format!("the trail of changes cannot be written: {error}"))
}

/// An answer to a command.
pub(super) fn reply(code: u8, text: &str) -> Reply {
    Reply {
        code,
        text: format!("{}\n", text.trim_end()),
    }
}
