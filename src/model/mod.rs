//! Values that every floor may use: typed names, the request id, secrets and the trigger address. Nothing
//! here does I/O or waits.

/// Makes a value that was parsed usable as what it holds, and shows it like that.
macro_rules! shown_as {
    ($name:ident.$field:tt: $held:ty) => {
        impl std::ops::Deref for $name {
            type Target = $held;

            fn deref(&self) -> &$held {
                &self.$field
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&**self, f)
            }
        }
    };
}

mod answer;
mod body_values;
pub mod claims;
pub mod clock;
pub mod cloud;
pub(crate) mod entra_ids;
mod flaw;
pub mod handshake;
mod holder;
pub(crate) mod host;
pub mod label;
mod lock;
pub mod media;
mod minute;
mod network;
mod path;
mod pointer;
mod problem_pages;
mod public_url;
mod registry;
mod remedy;
pub(crate) mod room;
pub mod schema;
pub mod secret;
pub mod signature;
pub mod trigger;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

pub use answer::AnsweredBy;
pub use body_values::{BodyFault, BodyValues, Extent};
pub use cloud::Cloud;
pub use entra_ids::{ClientId, Tenant};
pub use flaw::Flaw;
pub use holder::{Holder, Holders};
pub use host::Host;
pub use label::{KeyLabel, LabelPlace, Labels};
pub(crate) use lock::locked;
pub use media::{ContentType, MediaRange, MediaType};
pub use minute::Minute;
pub use network::Network;
pub use path::{FixedPath, PathEnd, PathTemplate};
pub use pointer::Pointer;
pub use problem_pages::ProblemPages;
pub use public_url::PublicUrl;
pub use registry::Registry;
pub(crate) use remedy::failures;
pub use remedy::{FailureRow, FixedBy, Outlook, Page, Remedy, Values, fill};
pub use schema::BodySchema;
pub use secret::Secret;
pub use trigger::TriggerUrl;

/// Longest name of a route, caller, identity or key label, in bytes: it becomes a header value and a metric label.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a text cannot be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 64 characters out of a-z, A-Z, 0-9, '-', '_' and '.'")]
pub struct NameError;

fn check_name(text: &str) -> Result<(), NameError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(plain) {
        return Err(NameError);
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts a name that is safe as a header value, a metric label and a log field.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    )+};
}

names! {
    RouteName
    CallerName
    IdentityName
}

impl CallerName {
    /// The name under which calls to a route without keys are counted and logged.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }
}

/// Identifies one request in log, headers and problems: a UUID of version 7 (RFC 9562), so ids sort by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(uuid::Uuid);

thread_local! {
    /// Keeps the ids of one worker in order within a millisecond.
    static ORDER: uuid::ContextV7 = const { uuid::ContextV7::new() };
}

impl RequestId {
    pub fn new() -> Self {
        let since = clock::wall_nearly()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        ORDER.with(|order| {
            let time = uuid::Timestamp::from_unix(order, since.as_secs(), since.subsec_nanos());
            Self(uuid::Uuid::new_v7(time))
        })
    }

    /// Reads an id in the form that we write; rejects any other form.
    pub fn parse(text: &str) -> Option<Self> {
        let id = uuid::Uuid::try_parse(text).ok()?;
        (text.len() == 36 && id.get_version_num() == 7).then_some(Self(id))
    }

    pub fn encode(self, space: &mut [u8; 36]) -> &str {
        self.0.as_hyphenated().encode_lower(space)
    }

    /// The 16 bytes of the id; they serve as the trace id of a request that came without one.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{CallerName, NameError, RequestId, RouteName};

    #[test]
    fn a_name_is_safe_in_a_header_and_a_label() {
        for bad in ["", "a b", "a\"b", "ü", "a\nb", &"x".repeat(65)] {
            assert_eq!(RouteName::parse(bad), Err(NameError), "{bad:?}");
        }
        assert_eq!(
            CallerName::parse("erp-1.north_2").unwrap().as_str(),
            "erp-1.north_2"
        );
    }

    #[test]
    fn request_ids_sort_by_time() {
        let first = RequestId::new().to_string();
        let second = RequestId::new().to_string();
        assert!(first < second, "{first} {second}");
        assert_eq!(first.len(), 36);
    }

    #[test]
    fn a_request_id_is_read_as_it_was_written() {
        let id = RequestId::new();
        assert_eq!(RequestId::parse(&id.to_string()), Some(id));
        let other_forms = [
            id.to_string().replace('-', ""),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            "6ba7b810-9dad-41d1-80b4-00c04fd430c8".to_owned(),
            "08584290143402151988728929011CU00".to_owned(),
            String::new(),
        ];
        for other in other_forms {
            assert_eq!(RequestId::parse(&other), None, "{other}");
        }
    }
}
