//! Single words of a route: methods, places where a key is read, query parameters, a contact. Each has values that would
//! break HTTP or the trigger, and those are refused by name.

use std::sync::Arc;

use http::{HeaderName, Method};
use serde_json::Value;

use crate::model::trigger::OWN_PARAMETERS;
use crate::model::{Flaw, ProblemPages, PublicUrl};
use crate::settings::kinds::{Word, word};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// The whole value of a header field.
    Header(HeaderName),
    /// `Authorization` with any scheme or none: what follows the scheme.
    Authorization,
    /// `Authorization: Basic` (RFC 7617): the password.
    Basic,
    /// A parameter of the query, by its decoded name.
    Query(String),
    /// The segment `{key}` of the route's path.
    Path,
}

impl KeyPlace {
    /// Whether a key there is in the URL, and with it in the logs of its sender.
    pub fn is_in_url(&self) -> bool {
        matches!(self, Self::Query(_) | Self::Path)
    }
}

impl std::fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Authorization => f.write_str("authorization"),
            Self::Basic => f.write_str("basic"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Path => f.write_str("path"),
        }
    }
}

/// Methods that are never forwarded: CONNECT asks for a tunnel, TRACE reveals header fields to the caller.
const METHODS_REFUSED: [&str; 2] = ["CONNECT", "TRACE"];

/// Header fields that belong to one connection (RFC 9110 section 7.6.1) or to the way a request is read.
const HEADERS_REFUSED: [&str; 11] = [
    "connection",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whom callers of a route can ask: an address or a sentence, in every problem of the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact(Arc<str>);

impl Contact {
    pub fn text(&self) -> &Arc<str> {
        &self.0
    }
}

/// A refusal is what an attacker can have the most of, and each repeats it.
const CONTACT_CHARS_MAX: usize = 200;

word! {
    Contact: read_contact, ["mailto:integration@example.com"];
    PublicUrl: PublicUrl::parse, ["https://hooks.example.com"];
    Method: read_method, ["POST"];
    KeyPlace: read_place, ["header:x-api-key", "authorization", "basic"];
}

impl Word for ProblemPages {
    const EXAMPLES: &'static [&'static str] = &["https://hooks.example.com/problems"];

    fn parse(text: &str) -> Result<Self, Flaw> {
        Self::parse(text)
    }

    fn show(&self) -> Value {
        self.base().trim_end_matches('/').into()
    }
}

fn read_method(text: &str) -> Result<Method, Flaw> {
    let upper = text.to_ascii_uppercase();
    if METHODS_REFUSED.contains(&upper.as_str()) {
        return Err(Flaw::new(format!("{upper} is never forwarded")));
    }
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let Some(method) = known.iter().find(|method| method.as_str() == upper) else {
        // Methods are case-sensitive tokens, so any other one is taken as it is written.
        let flaw = || Flaw::new("this is not a method").hint("write for example \"POST\"");
        return Method::from_bytes(text.as_bytes()).map_err(|_| flaw());
    };
    if method.as_str() != text {
        return Err(Flaw::new("methods are written in capitals").hint(format!("write \"{method}\"")));
    }
    Ok(method.clone())
}

fn read_contact(text: &str) -> Result<Contact, Flaw> {
    let is_short = text.chars().count() <= CONTACT_CHARS_MAX;
    if text.trim().is_empty() || !is_short || text.chars().any(char::is_control) {
        let flaw = Flaw::new(format!(
            "a contact is one line of at most {CONTACT_CHARS_MAX} characters"
        ));
        return Err(flaw.hint("write for example \"mailto:integration@example.com\""));
    }
    Ok(Contact(text.into()))
}

fn read_place(text: &str) -> Result<KeyPlace, Flaw> {
    if let Some(name) = text.strip_prefix("query:") {
        return read_parameter(name, false).map(KeyPlace::Query);
    }
    let Some(name) = text.strip_prefix("header:") else {
        return match text {
            "authorization" => Ok(KeyPlace::Authorization),
            "basic" => Ok(KeyPlace::Basic),
            "path" => Ok(KeyPlace::Path),
            _ => {
                let flaw = Flaw::new("unknown place for a key");
                Err(match HeaderName::try_from(text) {
                    Ok(name) if text.contains('-') => flaw.hint(format!("write \"header:{name}\"")),
                    _ => flaw.hint(
                        "write \"header:NAME\", \"authorization\", \"basic\", \"query:NAME\" or \"path\"",
                    ),
                })
            }
        };
    };
    let name = read_header(name, "a key")?;
    match name.as_str() {
        "authorization" => {
            Err(Flaw::new("`Authorization` has a place of its own").hint("write \"authorization\""))
        }
        _ => Ok(KeyPlace::Header(name)),
    }
}

/// The name of a header field in which callers may send `what`.
pub(super) fn read_header(name: &str, what: &str) -> Result<HeaderName, Flaw> {
    let name = HeaderName::try_from(name).map_err(|_| Flaw::new("this is not the name of a header field"))?;
    match name.as_str() {
        held if HEADERS_REFUSED.contains(&held) || held.starts_with("content-") => Err(Flaw::new(format!(
            "`{held}` has a meaning of its own in HTTP and cannot carry {what}"
        ))),
        own if own.starts_with("x-flowgate-") => Err(Flaw::new(format!(
            "`{own}` is set by Flowgate itself and cannot carry {what}"
        ))),
        _ => Ok(name),
    }
}

/// The name of a query parameter that passes. To an API all may; to a flow not those of the trigger's own address.
pub(super) fn read_parameter(text: &str, is_api: bool) -> Result<String, Flaw> {
    if !is_api
        && OWN_PARAMETERS
            .iter()
            .any(|reserved| reserved.eq_ignore_ascii_case(text))
    {
        return Err(Flaw::new(
            "this parameter belongs to the trigger's own address and is never passed on",
        ));
    }
    let plain =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'&' | b'=' | b'#' | b'%' | b'+' | b'*');
    if text.is_empty() || !text.bytes().all(plain) {
        return Err(Flaw::new("this is not the name of a query parameter")
            .hint("write the name alone, not percent-encoded, or \"*\" alone for all"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::{read_contact, read_method, read_parameter, read_place};
    use crate::settings::KeyPlace;

    #[test]
    fn methods_are_known_or_tokens_and_never_a_tunnel() {
        assert!(read_method("POST").is_ok() && read_method("PURGE").is_ok());
        for bad in ["CONNECT", "trace", "post", "", "A B"] {
            assert!(read_method(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_is_read_where_it_cannot_be_mistaken() {
        let own = KeyPlace::Header(HeaderName::from_static("x-shop-token"));
        assert_eq!(read_place("header:X-Shop-Token").unwrap(), own);
        assert_eq!(
            read_place("x-api-key").unwrap_err().hint.unwrap(),
            "write \"header:x-api-key\""
        );
        for bad in [
            "header:",
            "header:host",
            "header:Content-Type",
            "header:x-flowgate-caller",
            "header:te",
            "header:authorization",
            "header:a b",
            "cookie",
            "",
        ] {
            assert!(read_place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_contact_is_one_short_line() {
        let longest = "\u{e4}".repeat(200);
        for good in ["mailto:a@b.example", "Call \"Anna\", extension 17.", &longest] {
            assert_eq!(&**read_contact(good).unwrap().text(), good);
        }
        for bad in ["", " ", "a\nb", "a\u{1b}[31m", &format!("{longest}a")] {
            assert!(read_contact(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_parameters_of_the_trigger_are_never_passed_on() {
        for bad in [
            "sig",
            "SP",
            "Sv",
            "se",
            "API-Version",
            "",
            "a b",
            "a=b",
            "a&b",
            "%73ig",
            "*a",
        ] {
            assert!(read_parameter(bad, false).is_err(), "{bad}");
        }
        assert!(read_parameter("page", false).is_ok());
    }
}
