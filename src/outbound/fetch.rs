//! Questions over HTTP that the gateway asks on its own account: for tokens, for secrets, for the time. They use no proxy,
//! follow no redirect, and each has one deadline and one size for its whole answer.

use std::io;
use std::time::Duration;

use http::HeaderMap;
use reqwest::{Client, RequestBuilder, Response};

use crate::model::clock;
use crate::outbound::trust::{Trust, TrustError};
use crate::outbound::verifier::refused_certificate;

/// Largest answer that is read; Entra's tokens with many groups stay below a tenth of it.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Time to connect to what is on this machine or one hop away: it answers at once, or it is not there.
const NEAR_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Fetcher {
    client: Client,
    timeout: Duration,
    /// How long a connection was waited for, for people.
    connect_timeout: Duration,
}

pub(crate) struct Fetched {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchError {
    pub(crate) cause: FetchFault,
    /// Whether the question may have arrived.
    pub(crate) is_sent: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FetchFault {
    /// No connection, or it broke before the answer.
    Unreachable(String),
    Timeout(Duration),
    Cut,
    TooLarge,
    Redirected(u16),
}

impl Fetcher {
    pub(crate) fn new(trust: &Trust, timeout: Duration) -> Result<Self, TrustError> {
        // Connecting ends before the whole does, so that it is known whether anything was sent.
        Self::build(trust, timeout, timeout - timeout / 10, 1)
    }

    /// For what is on this machine or one hop away; no connection to it is kept.
    pub(crate) fn near(trust: &Trust, timeout: Duration) -> Result<Self, TrustError> {
        let connect_timeout = NEAR_TIMEOUT.min(timeout);
        Ok(Self {
            connect_timeout,
            ..Self::build(trust, timeout, connect_timeout, 0)?
        })
    }

    fn build(
        trust: &Trust,
        timeout: Duration,
        connect_timeout: Duration,
        idle_max: usize,
    ) -> Result<Self, TrustError> {
        let client = Client::builder()
            .tls_backend_preconfigured(trust.explaining_client_config()?)
            // A question carries a secret: it goes to the configured place or nowhere.
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would be handed the token, and IMDS refuses requests that came through one.
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(idle_max)
            .build()
            .map_err(|error| TrustError::Unusable(error.to_string()))?;
        Ok(Self {
            client,
            timeout,
            connect_timeout: timeout,
        })
    }

    pub(crate) fn get(&self, url: &str) -> RequestBuilder {
        self.client.get(url)
    }

    pub(crate) fn post(&self, url: &str) -> RequestBuilder {
        self.client.post(url)
    }

    pub(crate) async fn fetch(&self, request: RequestBuilder) -> Result<Fetched, FetchError> {
        let response = request.send().await.map_err(|error| self.unsent(&error))?;
        let read = self.read(response).await;
        read.map_err(|cause| FetchError { cause, is_sent: true })
    }

    async fn read(&self, mut response: Response) -> Result<Fetched, FetchFault> {
        let status = response.status();
        if status.is_redirection() {
            return Err(FetchFault::Redirected(status.as_u16()));
        }
        let headers = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        loop {
            let piece = response.chunk().await.map_err(|error| match error.is_timeout() {
                true => FetchFault::Timeout(self.timeout),
                false => FetchFault::Cut,
            })?;
            let Some(piece) = piece else {
                return Ok(Fetched {
                    status: status.as_u16(),
                    headers,
                    body,
                });
            };
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(FetchFault::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
    }

    fn unsent(&self, error: &reqwest::Error) -> FetchError {
        let cause = match (error.is_timeout(), error.is_connect()) {
            (true, true) => FetchFault::Timeout(self.connect_timeout),
            (true, false) => FetchFault::Timeout(self.timeout),
            (false, _) => FetchFault::Unreachable(unreachable(error)),
        };
        FetchError {
            cause,
            // Without a connection nothing was sent.
            is_sent: !error.is_connect(),
        }
    }
}

impl Fetched {
    /// The text of a header field; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        clock::retry_after(self.header("retry-after"))
    }
}

fn unreachable(error: &reqwest::Error) -> String {
    let place = error.url().and_then(|url| {
        let host = url.host_str()?;
        Some(format!("{host}:{}, ", url.port_or_known_default()?))
    });
    // The outer links of the chain name the address again, and say "error sending request".
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let certificate = inner.downcast_ref::<io::Error>().and_then(refused_certificate);
    let why = certificate.unwrap_or_else(|| inner.to_string());
    format!("{}{why}", place.unwrap_or_default())
}
