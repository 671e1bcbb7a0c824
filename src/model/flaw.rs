//! Why a value cannot be used, before it is known where the value is written.

/// Why a value cannot be used, and what helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

impl Flaw {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What is wrong and what to do, in one line.
    pub(crate) fn sentence(self) -> String {
        match self.hint {
            Some(hint) => format!("{}; {hint}", self.what),
            None => self.what,
        }
    }
}
