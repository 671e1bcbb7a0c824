//! Why a signature was not accepted: the private cause for the log. Callers learn only that it was not.

use std::time::Duration;

use crate::model::{BodyFault, KeyLabel, clock};

/// Why a request was not accepted. Values of the request are not in it, only places, numbers and hashes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    #[error("{0} is missing")]
    Missing(String),
    #[error("{0} is there more than once")]
    Doubled(String),
    #[error("{0} is empty")]
    Empty(String),
    #[error("{place} has {bytes} bytes; at most {max} are read")]
    TooLong { place: String, bytes: usize, max: usize },
    #[error("{0} has more items than are read")]
    TooMany(String),
    #[error("{0} has characters other than printable ASCII")]
    NotText(String),
    #[error("{place} does not begin with `{prefix}`")]
    OtherPrefix { place: String, prefix: String },
    #[error("{place} has an empty item between its separators")]
    EmptyItem { place: String },
    #[error("{place} is not valid {encoding}")]
    Encoding { place: String, encoding: &'static str },
    #[error("the signature in {place} has {bytes} bytes, not {expected}")]
    Length {
        place: String,
        bytes: usize,
        expected: usize,
    },
    #[error("the timestamp in {place} is not {expected}")]
    TimestampForm { place: String, expected: &'static str },
    #[error("the timestamp in {place} is {}; accepted are {} s before and after the clock of this machine{}", dated(*at, *now), .tolerance.as_secs(), unit_hint(*at))]
    TimestampOutside {
        place: String,
        at: i64,
        now: i64,
        tolerance: Duration,
    },
    #[error("the body, in which the signed values are, {0}")]
    Body(String),
    #[error("the query has the hash of another body ({0} bytes were received)")]
    BodyHash(usize),
    #[error("{0} is not what this secret is for")]
    OtherSubject(&'static str),
    #[error("{0} names no certificate of a host that may serve one")]
    CertificateUrl(String),
    #[error("the signing certificate cannot be used: {0}")]
    Certificate(String),
    #[error("the signing certificate was not given")]
    CertificateMissing,
    #[error("the signing certificate is not valid at this time")]
    CertificateDates,
    #[error("the signature is right for the secret `{label}`, which {why}")]
    Inactive { label: KeyLabel, why: String },
    #[error(
        "what is signed has the form of a token that the vendor sends before its events, which is signed for anybody who asks"
    )]
    ChallengeToken,
    #[error(
        "no secret is enrolled for it yet; run `flowgate vendor enrol ROUTE --for 10m`, then have the vendor create the webhook"
    )]
    NothingEnrolled,
    #[error("{0}")]
    Mismatch(Box<Checked>),
}

impl From<BodyFault> for Unverified {
    fn from(fault: BodyFault) -> Self {
        Self::Body(fault.to_string())
    }
}

/// What was checked when no secret matched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signature in {places} matches no secret; tried {}, over `{content}` with a body of {body_bytes} bytes and SHA-256 {body_sha256}{}",
    .labels.join(", "),
    timestamp_note(.timestamp.as_deref())
)]
pub struct Checked {
    pub places: String,
    pub labels: Vec<String>,
    pub content: String,
    pub body_bytes: usize,
    pub body_sha256: String,
    /// The date that was signed.
    pub timestamp: Option<String>,
}

fn dated(at: i64, now: i64) -> String {
    clock::dated(at, now)
}

/// The commonest mistake in a recipe: milliseconds that are read as seconds are far beyond this century.
fn unit_hint(at: i64) -> &'static str {
    const YEAR_5000: i64 = 95_617_584_000;
    if at > YEAR_5000 {
        " (is it in milliseconds?)"
    } else {
        ""
    }
}

fn timestamp_note(timestamp: Option<&str>) -> String {
    timestamp.map_or_else(String::new, |timestamp| format!(", timestamp {timestamp}"))
}
