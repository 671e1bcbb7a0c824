//! The one host that a request is meant for. It can be named in the target, in `Host` and in `:authority`; wherever
//! two of them stand they must agree, because somebody on the way may have believed the other one.

use std::borrow::Cow;

use http::Version;
use http::header;
use http::request::Parts;

use crate::policy::host;
use crate::problem::Kind;
use crate::problem::Problem;

/// Tells the host; empty for an HTTP/1.0 request without one, which only routes for every host answer.
///
/// # Errors
/// [`Kind::MalformedRequest`] (RFC 9112 section 3.2: a missing, repeated or contradicting `Host` is answered 400).
pub(super) fn of(head: &Parts) -> Result<Cow<'_, str>, Problem> {
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
    if head
        .uri
        .scheme_str()
        .is_some_and(|scheme| !matches!(scheme, "http" | "https"))
    {
        return Err(malformed("the target has a scheme other than http or https"));
    }
    match (authority, field) {
        (Some(authority), Some(field)) if !same(authority, field) => {
            Err(malformed("the Host field and the target name different hosts"))
        }
        (Some(authority), _) => Ok(Cow::Borrowed(authority)),
        (None, Some(field)) => Ok(Cow::Borrowed(field)),
        (None, None) if head.version <= Version::HTTP_10 => Ok(Cow::Borrowed("")),
        (None, None) => Err(malformed("the request names no host")),
    }
}

fn malformed(what: &'static str) -> Problem {
    Problem::from(Kind::MalformedRequest).detail(what)
}

/// Whether two texts name the same host and port.
fn same(one: &str, other: &str) -> bool {
    let bare = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.trim_end_matches(":443").trim_end_matches(":80").to_owned()
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::Version;

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
        assert_eq!(host(Version::HTTP_2, uri, &["b.example"]), None);
        assert_eq!(host(Version::HTTP_11, uri, &["b.example"]), None);
        assert_eq!(host(Version::HTTP_2, "ftp://a.example/", &[]), None);
    }

    #[test]
    fn odd_hosts_are_refused() {
        for odd in ["", "a b", "u@a", "a/b", "a:x", "[::1", "a,b"] {
            assert_eq!(host(Version::HTTP_11, "/", &[odd]), None, "{odd:?}");
        }
    }
}
