//! What is fetched from vendors: the certificates with which they sign, and the pages that confirm a subscription. From hosts of
//! the vendor alone, over HTTPS, without redirects, and within limits, because a request can name a URL before its sender is
//! known.
//!
//! It belongs to the estate: what a URL of a vendor had is no matter of settings, and a reload must not have all deliveries
//! wait for the vendor at once. Settings decide which authorities are trusted for that, so each choice of those has its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::counters::Counters;
use crate::gateway::fetches::{FetchFailed, Fetches};
use crate::model::clock;
use crate::outbound::{FetchFault, Fetched, Fetcher, Trust, TrustError};
use crate::policy::signature::Certificate;
use crate::policy::{Confirmation, NoCertificate};

/// A vendor gives up after 15 s, and the flow needs time, too.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A certificate has two kilobytes, a chain of them ten.
const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;
/// A certificate that the vendor has withdrawn is not used for longer.
const CERTIFICATE_KEPT: Duration = Duration::from_secs(86_400);
/// A token of Amazon is valid for two days.
const CONFIRMATION_KEPT: Duration = Duration::from_secs(2 * 86_400);
/// When a vendor should try again.
const AGAIN: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Vendor {
    client: Arc<Client>,
    certificates: Fetches<Arc<Certificate>>,
    confirmations: Fetches<()>,
}

/// Whether a subscription was confirmed by this request or by an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmed {
    Now,
    Earlier,
}

/// Why a subscription was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotConfirmed {
    /// The vendor does not want it.
    Refused(String),
    Unavailable {
        why: String,
        wait: Duration,
    },
}

struct Client {
    fetcher: Fetcher,
    counters: Counters,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Vendor {
    pub(super) fn build(trust: &Trust, control: &Handle, counters: &Counters) -> Result<Self, TrustError> {
        let client = Client {
            fetcher: Fetcher::new(trust, TIMEOUT)?,
            counters: counters.clone(),
        };
        Ok(Self {
            client: Arc::new(client),
            certificates: Fetches::new(control.clone()),
            confirmations: Fetches::new(control.clone()),
        })
    }

    /// Calls the page that confirms a subscription, once: the same message may come again.
    pub(super) async fn confirm(&self, confirmation: &Confirmation) -> Result<Confirmed, NotConfirmed> {
        let (client, url) = (self.client.clone(), confirmation.url().to_owned());
        let mut outcome = Confirmed::Earlier;
        let fetch = || {
            outcome = Confirmed::Now;
            async move { client.get(&url).await.map(|_| ((), CONFIRMATION_KEPT)) }
        };
        // Its limits were taken: it is signed by the vendor, and a handshake.
        let called = self.confirmations.at(confirmation.url(), || Ok(()), fetch).await;
        match called {
            Ok(()) => Ok(outcome),
            Err(FetchFailed::Unfit(why)) => Err(NotConfirmed::Refused(why)),
            Err(FetchFailed::Unavailable(why)) => Err(NotConfirmed::Unavailable { why, wait: AGAIN }),
            Err(FetchFailed::Limited(wait)) => Err(NotConfirmed::Unavailable {
                why: "too many subscriptions are being confirmed".to_owned(),
                wait,
            }),
        }
    }

    pub(super) async fn certificate(
        &self,
        url: &str,
        permit: impl FnOnce() -> Result<(), Duration>,
    ) -> Result<Arc<Certificate>, NoCertificate> {
        let client = self.client.clone();
        let (at, fetch) = (url.to_owned(), url.to_owned());
        let fetch = move || async move { client.certificate(&fetch).await };
        let found = self.certificates.at(url, permit, fetch).await;
        found.map_err(|failed| match failed {
            FetchFailed::Unfit(why) => NoCertificate::Unfit(format!("{at}: {why}")),
            FetchFailed::Unavailable(why) => NoCertificate::Unavailable {
                why: format!("{at}: {why}"),
                wait: AGAIN,
            },
            FetchFailed::Limited(wait) => NoCertificate::Unavailable {
                why: format!(
                    "{at}: too many certificates were fetched for requests from there, or for this caller"
                ),
                wait,
            },
        })
    }
}

impl Client {
    async fn certificate(&self, url: &str) -> Result<(Arc<Certificate>, Duration), FetchFailed> {
        let fetched = self.get(url).await?;
        if fetched.body.len() > CERTIFICATE_BYTES_MAX {
            let why = format!("it has more than {CERTIFICATE_BYTES_MAX} bytes, which no certificate has");
            return Err(FetchFailed::Unfit(why));
        }
        let certificate = Certificate::from_pem(&fetched.body);
        let certificate = certificate.map_err(|why| FetchFailed::Unfit(why.to_owned()))?;
        let now = clock::wall();
        if !certificate.is_valid(now) {
            let why = "it has expired or is not valid yet by the clock of this machine";
            return Err(FetchFailed::Unfit(why.to_owned()));
        }
        tracing::info!("the signing certificate at {url} was fetched");
        let kept = CERTIFICATE_KEPT.min(certificate.rest(now));
        Ok((Arc::new(certificate), kept))
    }

    /// A good answer.
    async fn get(&self, url: &str) -> Result<Fetched, FetchFailed> {
        self.counters.vendor_fetches.inc();
        let request = self.fetcher.get(url);
        let fetched = self.fetcher.fetch(request).await;
        let fetched = fetched.map_err(|error| match error.cause {
            FetchFault::Unreachable(why) => FetchFailed::Unavailable(why),
            FetchFault::Timeout(time) => {
                FetchFailed::Unavailable(format!("no answer within {} s", time.as_secs()))
            }
            FetchFault::Cut => FetchFailed::Unavailable("the answer broke off".to_owned()),
            FetchFault::TooLarge => FetchFailed::Unfit("the answer is too large".to_owned()),
            FetchFault::Redirected(status) => {
                FetchFailed::Unavailable(format!("status {status}; redirects are not followed"))
            }
        })?;
        match fetched.status {
            200 => Ok(fetched),
            // There is nothing, or not for us: asking again changes nothing.
            status @ (400..=404 | 410) => Err(FetchFailed::Unfit(format!("status {status}"))),
            status => Err(FetchFailed::Unavailable(format!("status {status}"))),
        }
    }
}
