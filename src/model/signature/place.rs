//! Where a value of a request is: in a header field, in a parameter of the query, or in a JSON body.

use std::fmt;

use http::HeaderName;

use crate::model::{Flaw, Pointer};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Header(HeaderName),
    /// A parameter of the query, compared after percent-decoding.
    Query(String),
    Body(Pointer),
}

/// Longest name of a parameter.
const NAME_BYTES_MAX: usize = 256;

impl Place {
    pub fn header(name: &'static str) -> Self {
        Self::Header(HeaderName::from_static(name))
    }

    pub fn query(name: &str) -> Self {
        Self::Query(name.to_owned())
    }

    pub fn body(pointer: &str) -> Self {
        Self::Body(Pointer::of(pointer))
    }

    /// Reads `header:NAME`, `query:NAME` or `body:/POINTER`.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        match text.split_once(':') {
            Some(("header", name)) => HeaderName::try_from(name)
                .map(Self::Header)
                .map_err(|_| Flaw::new("this is not the name of a header field")),
            Some(("query", name)) if !name.is_empty() && name.len() <= NAME_BYTES_MAX => {
                Ok(Self::query(name))
            }
            Some(("body", pointer)) => Pointer::parse(pointer).map(Self::Body),
            _ => Err(Flaw::new("this is not a place in a request")
                .hint("write \"header:NAME\", \"query:NAME\" or \"body:/POINTER\"")),
        }
    }

    pub fn field(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Query(_) | Self::Body(_) => None,
        }
    }

    pub fn pointer(&self) -> Option<&Pointer> {
        match self {
            Self::Body(pointer) => Some(pointer),
            Self::Header(_) | Self::Query(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Body(pointer) => write!(f, "body:{pointer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["header:x-signature", "query:signature", "body:/a~1b/0/*/c~0d"] {
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
        let long = format!("body:/{}", "a".repeat(300));
        for bad in [
            "",
            "header:",
            "header:a b",
            "query:",
            "body:a",
            "cookie:a",
            "x-signature",
            &long,
        ] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
