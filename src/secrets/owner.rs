//! To whom a secret or a certificate belongs, for the log and for gauges.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Who uses a secret or a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretOwner {
    /// An identity, which shows it to Entra.
    Identity(Arc<str>),
    /// A listener, which shows it to callers.
    Listener(SocketAddr),
    /// A route, which shows it to its flow.
    Route(Arc<str>),
    /// A caller, which signs with it.
    Caller(Arc<str>),
    Gateway,
}

impl SecretOwner {
    pub(crate) fn identity(&self) -> Option<&str> {
        match self {
            Self::Identity(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn route(&self) -> Option<&str> {
        match self {
            Self::Route(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn listener(&self) -> Option<tracing::field::DisplayValue<SocketAddr>> {
        match self {
            Self::Listener(address) => Some(tracing::field::display(*address)),
            _ => None,
        }
    }
}

impl fmt::Display for SecretOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(name) => write!(f, "identity {name}"),
            Self::Listener(address) => write!(f, "listener {address}"),
            Self::Route(name) => write!(f, "route {name}"),
            Self::Caller(name) => write!(f, "caller {name}"),
            Self::Gateway => f.write_str("the gateway"),
        }
    }
}
