//! The answers that a test can script for Entra's token endpoint.

use bytes::Bytes;
use serde_json::Value;

use super::aadsts::{Refusal, refusal};

/// One answer to a token request.
#[derive(Clone, Debug)]
pub enum TokenAnswer {
    /// Entra's own behaviour: the checks, then a token.
    Normal,
    /// A token whose claims are overridden by these (an object; null removes a claim).
    TokenWith(Value),
    /// A token with another number in `expires_in`; the token itself keeps its usual times.
    ExpiresIn(i64),
    /// A success without `access_token`.
    MissingAccessToken,
    /// A success in which every number is a string, as managed identities write them.
    NumbersAsStrings,
    /// A refusal in Entra's envelope.
    Refuse(Refusal),
    /// 429 with a plain text and this value of `Retry-After`, if any.
    Throttle {
        /// Literal, so that it can also be a date or nonsense.
        retry_after: Option<String>,
    },
    /// An empty answer with this status.
    ServerError(u16),
    /// 200 with a page, as a captive portal sends it.
    Html,
    /// 200 without a body.
    Empty,
    /// 200 with a JSON content type, but a body that is not JSON.
    NotJson,
    /// 200 with a JSON string of this many bytes in `access_token`.
    Oversized(usize),
    /// Never answered.
    Hang,
    /// Cut in the middle of the body.
    Cut,
    /// 302 to this address.
    Redirect(String),
    /// These bytes, then the connection is closed.
    Raw(Bytes),
}

impl TokenAnswer {
    /// The refusal with this AADSTS number, with Entra's own message.
    pub fn aadsts(number: u32) -> Self {
        Self::Refuse(refusal(number))
    }

    /// 429 with a `Retry-After` of this many seconds.
    pub fn throttle(seconds: u64) -> Self {
        Self::Throttle {
            retry_after: Some(seconds.to_string()),
        }
    }

    /// Whether the checks of a real endpoint come first.
    pub fn is_checked(&self) -> bool {
        match self {
            Self::Normal
            | Self::TokenWith(_)
            | Self::ExpiresIn(_)
            | Self::MissingAccessToken
            | Self::NumbersAsStrings => true,
            Self::Refuse(_)
            | Self::Throttle { .. }
            | Self::ServerError(_)
            | Self::Html
            | Self::Empty
            | Self::NotJson
            | Self::Oversized(_)
            | Self::Hang
            | Self::Cut
            | Self::Redirect(_)
            | Self::Raw(_) => false,
        }
    }
}
