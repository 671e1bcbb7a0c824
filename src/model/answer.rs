//! Who gave an answer: a header for callers, and a field of the log.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AnsweredBy {
    Gateway,
    /// The flow platform, translated by the gateway.
    Platform,
    /// The flow; passed unchanged.
    Flow,
    /// The API of a route that leads to one; passed unchanged.
    Api,
}

impl AnsweredBy {
    /// The value of `x-flowgate-answer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Platform => "platform",
            Self::Flow => "flow",
            Self::Api => "api",
        }
    }
}
