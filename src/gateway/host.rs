//! The one host that a request is meant for, and what a head on HTTP/2 must say in one way. A host can be named in the
//! target, in `Host` and in `:authority`; wherever two of them stand they must agree, because somebody on the way may
//! have believed the other one. Heads on HTTP/1 have been read strictly before; h2 lets more through.

use std::borrow::Cow;

use http::request::Parts;
use http::{Method, Version, header};

use crate::policy::host;
use crate::problem::{Kind, Problem};
use crate::wire::is_plain_length;

/// Returns the host; empty for an HTTP/1.0 request without one, which only routes for every host answer.
///
/// # Errors
/// [`Kind::MalformedRequest`] (RFC 9112 section 3.2: a missing, repeated or contradicting `Host` is answered 400).
pub(super) fn of(head: &Parts) -> Result<Cow<'_, str>, Problem> {
    if head.version == Version::HTTP_2 {
        check_http2(head)?;
    }
    let mut fields = head.headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(malformed("there are two Host fields"));
    }
    let field = match field {
        Some(value) => Some(
            value
                .to_str()
                .map_err(|_| malformed("the Host field is not plain text"))?,
        ),
        None => None,
    };
    if let Some(field) = field {
        host::parse(field)?;
    }
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    if let Some(authority) = authority {
        host::parse(authority)?;
    }
    let scheme = head.uri.scheme_str();
    if scheme.is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(malformed("the target has a scheme other than http or https"));
    }
    match (authority, field) {
        (Some(authority), Some(field)) if !same(authority, field, scheme) => {
            Err(malformed("the Host field and the target name different hosts"))
        }
        // The absolute form does not make up for it: a reader that knows only `Host` would find none.
        (_, None) if head.version == Version::HTTP_11 => Err(malformed("there is no Host field")),
        (Some(authority), _) => Ok(Cow::Borrowed(authority)),
        (None, Some(field)) => Ok(Cow::Borrowed(field)),
        (None, None) if head.version <= Version::HTTP_10 => Ok(Cow::Borrowed("")),
        (None, None) => Err(malformed("the request names no host")),
    }
}

/// What h2 and the http crate let through of a head that another server would read differently.
fn check_http2(head: &Parts) -> Result<(), Problem> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(malformed("the methods CONNECT and TRACE are not served"));
    }
    // HTTP/2 is spoken over TLS only.
    if head.uri.scheme_str().is_some_and(|scheme| scheme != "https") {
        return Err(malformed("the scheme is not https"));
    }
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    // The http crate takes `?x` for the query of `/`.
    if !target.starts_with('/') {
        return Err(malformed("the path does not start with a slash"));
    }
    if target
        .bytes()
        .any(|byte| matches!(byte, 0..=b' ' | b'#' | b'\\' | 0x7f..))
    {
        return Err(malformed(
            "the target contains a character that must be percent-encoded",
        ));
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    if lengths
        .next()
        .is_some_and(|length| !is_plain_length(length.as_bytes()))
        || lengths.next().is_some()
    {
        return Err(malformed("Content-Length is not one plain number"));
    }
    Ok(())
}

fn malformed(what: &'static str) -> Problem {
    Problem::from(Kind::MalformedRequest).detail(what)
}

/// Whether two texts name the same host and port, of which the scheme has a default.
fn same(one: &str, other: &str, scheme: Option<&str>) -> bool {
    let port = if scheme == Some("http") { ":80" } else { ":443" };
    let bare = |text: &str| text.len() - if text.ends_with(port) { port.len() } else { 0 };
    match (one.get(..bare(one)), other.get(..bare(other))) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};

    use super::of;

    fn host(version: Version, uri: &str, hosts: &[&str]) -> Option<String> {
        let mut request = Request::builder().version(version).uri(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        of(&head).ok().map(|host| host.into_owned())
    }

    #[test]
    fn one_host_is_needed() {
        assert_eq!(
            host(Version::HTTP_11, "/", &["a.example"]).as_deref(),
            Some("a.example")
        );
        assert_eq!(host(Version::HTTP_11, "/", &[]), None);
        assert_eq!(host(Version::HTTP_11, "/", &["a.example", "a.example"]), None);
        assert_eq!(host(Version::HTTP_10, "/", &[]).as_deref(), Some(""));
    }

    #[test]
    fn target_and_field_must_agree() {
        let uri = "https://a.example/x";
        assert_eq!(host(Version::HTTP_2, uri, &[]).as_deref(), Some("a.example"));
        assert_eq!(
            host(Version::HTTP_2, uri, &["A.example:443"]).as_deref(),
            Some("a.example")
        );
        assert_eq!(
            host(Version::HTTP_11, "http://a.example:80/x", &["a.example"]).as_deref(),
            Some("a.example:80")
        );
        assert_eq!(host(Version::HTTP_2, uri, &["a.example:80"]), None);
        assert_eq!(host(Version::HTTP_2, uri, &["b.example"]), None);
        assert_eq!(host(Version::HTTP_11, uri, &["b.example"]), None);
        assert_eq!(host(Version::HTTP_2, "ftp://a.example/", &[]), None);
    }

    #[test]
    fn odd_hosts_are_refused() {
        for invalid in ["", "a b", "u@a", "a/b", "a:x", "[::1", "a,b"] {
            assert_eq!(host(Version::HTTP_11, "/", &[invalid]), None, "{invalid:?}");
        }
    }

    #[test]
    fn the_absolute_form_does_not_replace_the_field() {
        let uri = "https://a.example/x";
        assert_eq!(host(Version::HTTP_11, uri, &[]), None);
        assert_eq!(host(Version::HTTP_10, uri, &[]).as_deref(), Some("a.example"));
    }

    fn http2(method: &str, uri: &str, lengths: &[&str]) -> bool {
        let mut request = Request::builder()
            .version(Version::HTTP_2)
            .method(method)
            .uri(uri);
        for length in lengths {
            request = request.header("content-length", *length);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        of(&head).is_ok()
    }

    #[test]
    fn http2_is_read_as_strictly_as_http1() {
        let uri = "https://a.example/x?y";
        assert!(http2("POST", uri, &[]));
        for method in ["CONNECT", "TRACE"] {
            assert!(!http2(method, uri, &[]), "{method}");
        }
        for invalid in [
            "http://a.example/x",
            "https://a.example?x",
            "https://a.example/\u{e9}",
            "https://a.example/?\u{e9}",
        ] {
            assert!(!http2("POST", invalid, &[]), "{invalid}");
        }
        for length in ["0", "2", "10", "999999999999999999"] {
            assert!(http2("POST", uri, &[length]), "{length}");
        }
        for lengths in [
            &[""][..],
            &["02"],
            &["00"],
            &["+2"],
            &["2,2"],
            &["1000000000000000000"],
            &["2", "2"],
        ] {
            assert!(!http2("POST", uri, lengths), "{lengths:?}");
        }
    }
}
