//! A request whose caller is known once its body was read and its signature checked.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, Method};

use crate::policy::caller::Caller;
use crate::policy::proof::signature::{Head, Scheme, Unverified};
use crate::problem::{Kind, Problem};

#[derive(Debug)]
pub struct Pending {
    candidates: Vec<Signatory>,
    /// The address that the sender called.
    url: String,
}

/// A caller whose request it may be.
#[derive(Debug)]
pub(super) struct Signatory {
    pub caller: Caller,
    pub scheme: Arc<Scheme>,
}

impl Pending {
    pub(super) fn new(candidates: Vec<Signatory>, url: String) -> Self {
        Self { candidates, url }
    }

    /// Whose request it is: the first candidate whose signature is valid.
    ///
    /// # Errors
    /// `signature-invalid`, with what was checked as its cause.
    pub fn confirm(
        self,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Caller, Problem> {
        let url = &self.url;
        let head = Head { method, url, headers };
        let mut refusal = None;
        for Signatory { mut caller, scheme } in self.candidates {
            match scheme.verify(head, body, now) {
                Ok(verified) => {
                    caller.label.get_or_insert_with(|| verified.label.clone());
                    caller.signed_with = Some(verified.label);
                    caller.delivery = verified.id;
                    return Ok(caller);
                }
                Err(why) => _ = refusal.get_or_insert_with(|| refused(&caller, &why)),
            }
        }
        Err(refusal.unwrap_or_else(|| Kind::SignatureInvalid.into()))
    }
}

/// The refusal of a caller whose signature is not valid. The log names it as the caller only if its key was right.
pub(super) fn refused(caller: &Caller, why: &Unverified) -> Problem {
    let cause = format!("caller {}: {why}", caller.name);
    let problem = Problem::from(Kind::SignatureInvalid).because(cause);
    match &caller.label {
        Some(label) => problem.of_caller(caller.name.clone(), Some(label.clone())),
        None => problem,
    }
}
