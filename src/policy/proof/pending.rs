//! A request whose caller is known once its body was read and its signature checked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method};

use crate::policy::caller::{Caller, Signed};
use crate::policy::proof::signature::{Certificate, Head, Scheme, Unverified};
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
    caller: Caller,
    scheme: Arc<Scheme>,
    /// What it signs with, where that is fetched; or why there is none.
    certificate: Option<Result<Arc<Certificate>, Problem>>,
}

impl Signatory {
    pub(super) fn new(caller: Caller, scheme: Arc<Scheme>) -> Self {
        Self {
            caller,
            scheme,
            certificate: None,
        }
    }
}

/// A certificate without which the signature of a candidate cannot be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateWanted {
    candidate: usize,
    /// The caller's index in the settings.
    pub caller: Option<usize>,
    /// On a host of the vendor.
    pub url: String,
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCertificate {
    /// What is there is none, or there is nothing.
    Unfit(String),
    /// It cannot be fetched now.
    Unavailable { why: String, wait: Duration },
}

impl Pending {
    pub(super) fn new(candidates: Vec<Signatory>, url: String) -> Self {
        Self { candidates, url }
    }

    /// Whether a candidate signs with a certificate that has to be fetched.
    pub fn needs_certificate(&self) -> bool {
        let mut candidates = self.candidates.iter();
        candidates.any(|signatory| signatory.scheme.has_certificate())
    }

    /// The certificates to fetch: of those candidates alone whose request it is if nothing but the signature is looked at.
    pub fn certificates(
        &mut self,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Vec<CertificateWanted> {
        let url = &self.url;
        let head = Head { method, url, headers };
        let mut wanted = Vec::new();
        for (candidate, signatory) in self.candidates.iter_mut().enumerate() {
            let claim = signatory.scheme.claim(head, now);
            match claim.and_then(|claim| claim.certificate_url(body)) {
                Ok(None) => {}
                Ok(Some(url)) => wanted.push(CertificateWanted {
                    candidate,
                    caller: signatory.caller.index,
                    url,
                }),
                Err(why) => signatory.certificate = Some(Err(refused(&signatory.caller, &why))),
            }
        }
        wanted
    }

    /// Gives a candidate what was fetched for it.
    pub fn supply(&mut self, wanted: &CertificateWanted, fetched: Result<Arc<Certificate>, NoCertificate>) {
        let Some(signatory) = self.candidates.get_mut(wanted.candidate) else {
            return;
        };
        let name = &signatory.caller.name;
        signatory.certificate = Some(fetched.map_err(|why| match why {
            NoCertificate::Unfit(why) => refused(&signatory.caller, &Unverified::Certificate(why)),
            NoCertificate::Unavailable { why, wait } => {
                let problem = Problem::from(Kind::VendorUnavailable).wait(wait);
                problem.because(format!(
                    "caller {name}: the signing certificate cannot be fetched: {why}"
                ))
            }
        }));
    }

    /// Whose request it is: the first candidate whose signature is valid.
    ///
    /// # Errors
    /// `signature-invalid`, with what was checked as its cause; `vendor-unavailable` where that could not be checked.
    pub fn confirm(
        self,
        method: &Method,
        headers: &HeaderMap,
        body: &[u8],
        now: SystemTime,
    ) -> Result<Caller, Problem> {
        let url = &self.url;
        let head = Head { method, url, headers };
        let mut refusal: Option<Problem> = None;
        for signatory in self.candidates {
            match signatory.confirm(head, body, now) {
                Ok(caller) => return Ok(caller),
                // It might have been this one.
                Err(problem) if problem.kind() == Kind::VendorUnavailable => refusal = Some(problem),
                Err(problem) => _ = refusal.get_or_insert(problem),
            }
        }
        Err(refusal.unwrap_or_else(|| Kind::SignatureInvalid.into()))
    }
}

impl Signatory {
    fn confirm(self, head: Head<'_>, body: &[u8], now: SystemTime) -> Result<Caller, Problem> {
        let mut caller = self.caller;
        let certificate = self.certificate.transpose()?;
        let claimed = self.scheme.claim(head, now);
        let verified = claimed.and_then(|claim| claim.confirm(body, certificate.as_deref()));
        let verified = verified.map_err(|why| refused(&caller, &why))?;
        caller.label.get_or_insert_with(|| verified.label.clone());
        caller.signed = Some(Box::new(Signed {
            with: verified.label,
            delivery: verified.id,
        }));
        Ok(caller)
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
