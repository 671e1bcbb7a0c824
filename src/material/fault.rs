//! Why a certificate with its key cannot be used.

use crate::model::Flaw;

/// Which of the texts cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    File,
    Key,
    Password,
}

#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) about: About,
    pub(crate) flaw: Flaw,
}

impl Fault {
    pub(crate) fn new(about: About, what: impl Into<String>) -> Self {
        let flaw = Flaw::new(what);
        Self { about, flaw }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.flaw = self.flaw.hint(hint);
        self
    }
}
