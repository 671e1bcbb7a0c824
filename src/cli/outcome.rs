//! What a command comes to: what is printed, and the exit code.

#[derive(Debug, Default)]
pub struct Outcome {
    pub out: String,
    pub err: String,
    pub code: u8,
}

/// The command succeeded.
pub(super) const WELL: u8 = 0;
/// The command failed while running.
pub(super) const FAILED: u8 = 1;
/// The settings or the arguments are invalid.
pub(super) const WRONG: u8 = 2;

impl Outcome {
    pub(super) fn out(text: impl Into<String>) -> Self {
        Self {
            out: text.into(),
            ..Self::default()
        }
    }

    pub(super) fn failed(text: impl Into<String>, code: u8) -> Self {
        Self {
            err: text.into(),
            code,
            ..Self::default()
        }
    }
}
