//! Hosts and path templates of routes, and the search for routes that stand in each other's way.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::Method;
use matchit::{InsertError, Router};

use crate::model::Flaw;
use crate::settings::findings::Mark;

/// Longest path template; with its parameters filled in it must still fit in a request head.
const PATH_BYTES_MAX: usize = 2048;

/// Whether a path ends in `{*rest}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathEnd {
    Fixed,
    Open,
}

/// Checks a path template.
pub(crate) fn check_template(text: &str) -> Result<PathEnd, Flaw> {
    check_frame(text)?;
    let mut names = Vec::new();
    let mut end = PathEnd::Fixed;
    let mut segments = text.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match check_segment(segment)? {
            Segment::Plain => {}
            Segment::Parameter(name) if names.contains(&name) => {
                return Err(Flaw::new(format!(
                    "the parameter {{{name}}} stands in the path twice"
                )));
            }
            Segment::Parameter(name) => names.push(name),
            Segment::Rest if segments.peek().is_some() => {
                return Err(Flaw::new(
                    "{*...} takes the whole rest of a path, so it must be the last segment",
                ));
            }
            Segment::Rest => end = PathEnd::Open,
        }
    }
    Ok(end)
}

/// Checks a path without parameters.
pub(crate) fn check_plain(text: &str) -> Result<(), Flaw> {
    check_frame(text)?;
    if text.contains(['{', '}']) {
        return Err(Flaw::new("this path cannot have parameters"));
    }
    text.split('/')
        .skip(1)
        .try_for_each(|segment| check_segment(segment).map(|_| ()))
}

fn check_frame(text: &str) -> Result<(), Flaw> {
    if text.contains(['?', '#']) {
        return Err(Flaw::new("a path ends before `?` and `#`")
            .hint("query parameters to pass on belong into `query`"));
    }
    if !text.starts_with('/') {
        let flaw = Flaw::new("a path starts with a slash");
        return Err(match text.split_once("://") {
            Some(_) => flaw.hint("the host belongs into `host`"),
            None => flaw.hint(format!("write \"/{text}\"")),
        });
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(Flaw::new(format!(
            "the path is longer than {PATH_BYTES_MAX} bytes"
        )));
    }
    if text.contains('%') {
        return Err(Flaw::new("a path is not percent-encoded here")
            .hint("use a parameter such as {name} in its place"));
    }
    if text.contains("//") {
        return Err(Flaw::new("the path has a doubled slash"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Flaw::new("the path has a dot segment"));
    }
    Ok(())
}

enum Segment<'a> {
    Plain,
    Parameter(&'a str),
    Rest,
}

fn check_segment(segment: &str) -> Result<Segment<'_>, Flaw> {
    if let Some(name) = segment.strip_prefix(':') {
        // The form of other routers would silently become plain text here.
        let flaw = Flaw::new("a path segment cannot begin with a colon");
        return Err(if is_parameter(name) {
            flaw.hint(format!("write {{{name}}} for a parameter"))
        } else {
            flaw.hint("write {name} for a parameter")
        });
    }
    let Some((before, rest)) = segment.split_once('{') else {
        check_letters(segment)?;
        return Ok(Segment::Plain);
    };
    let Some((inside, after)) = rest.split_once('}') else {
        return Err(Flaw::new("an opening brace in the path has no closing one"));
    };
    if after.contains('{') {
        return Err(Flaw::new("a path segment has at most one parameter"));
    }
    check_letters(before)?;
    check_letters(after)?;
    let (name, is_rest) = inside
        .strip_prefix('*')
        .map_or((inside, false), |name| (name, true));
    if !is_parameter(name) {
        return Err(
            Flaw::new("a path parameter has a name of letters, digits and `_`")
                .hint("write for example {id}"),
        );
    }
    if is_rest && !(before.is_empty() && after.is_empty()) {
        return Err(Flaw::new("{*...} must be a whole segment"));
    }
    Ok(if is_rest {
        Segment::Rest
    } else {
        Segment::Parameter(name)
    })
}

fn is_parameter(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What RFC 3986 section 3.3 allows in a segment without encoding, less the star.
fn check_letters(text: &str) -> Result<(), Flaw> {
    let allowed = |letter: &char| letter.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(*letter);
    match text.chars().find(|letter| !allowed(letter)) {
        None => Ok(()),
        Some('*') => {
            Err(Flaw::new("a star has no meaning by itself").hint("write {*rest} for the rest of a path"))
        }
        Some('}') => Err(Flaw::new("a closing brace in the path has no opening one")),
        Some(letter) => Err(Flaw::new(format!(
            "the path contains {letter:?}, which a path cannot hold unencoded"
        ))
        .hint("use a parameter such as {name} in its place")),
    }
}

/// Reads the host of a route into lower case.
pub(crate) fn check_host(text: &str) -> Result<String, Flaw> {
    let host = text.to_ascii_lowercase();
    if host.contains("://") || host.contains('/') {
        return Err(
            Flaw::new("a host has no scheme and no path").hint("write for example \"hooks.example.com\"")
        );
    }
    if host.contains('*') {
        return Err(
            Flaw::new("a host cannot contain a star").hint("leave the host out to answer for every host")
        );
    }
    let bare = host
        .rsplit_once(':')
        .filter(|(name, port)| is_host(name) && port.parse::<u16>().is_ok());
    if let Some((name, _)) = bare.filter(|_| !is_host(&host)) {
        return Err(Flaw::new("a host has no port here").hint(format!("write \"{name}\"")));
    }
    if let Some(name) = host.strip_suffix('.').filter(|name| is_host(name)) {
        return Err(Flaw::new("a host has no dot at its end").hint(format!("write \"{name}\"")));
    }
    if !is_host(&host) {
        return Err(Flaw::new("this is not a host name").hint("write for example \"hooks.example.com\""));
    }
    Ok(host)
}

/// Reads a name that a certificate serves into lower case.
pub(crate) fn check_certificate_name(text: &str) -> Result<String, Flaw> {
    let name = text.to_ascii_lowercase();
    let parent = name.strip_prefix("*.").unwrap_or(&name);
    if name.parse::<std::net::IpAddr>().is_ok() || is_domain(parent) {
        return Ok(name);
    }
    Err(Flaw::new("this is not a name a certificate can serve")
        .hint("write for example \"hooks.example.com\" or \"*.example.com\""))
}

/// Whether this is a host as it stands in an address: a name, an IPv4 address, or an IPv6 address in
/// brackets.
pub(crate) fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<Ipv4Addr>().is_ok() || is_domain(text),
    }
}

/// Whether this is a DNS name: labels of up to 63 bytes, 253 altogether (RFC 1035 section 2.3.4).
pub(crate) fn is_domain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-');
    // A last label of digits would be half an IPv4 address.
    let numeric = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(fits) && !numeric
}

/// A route that is in the way of another.
pub(super) struct Rival {
    pub(super) name: String,
    /// Where its path stands; nothing if only its template is known.
    pub(super) mark: Option<Mark>,
    pub(super) why: String,
}

/// The paths of all routes so far, by host.
#[derive(Default)]
pub(super) struct Paths {
    hosts: HashMap<Option<String>, Host>,
}

#[derive(Default)]
struct Host {
    router: Router<()>,
    templates: HashMap<String, Vec<Place>>,
}

struct Place {
    name: String,
    mark: Mark,
    methods: Vec<Method>,
}

impl Paths {
    /// Adds a route, or names the one that is in its way. Equal templates get along while their methods
    /// differ; a different template that could match the same path does not.
    pub(crate) fn add(
        &mut self,
        host: Option<&str>,
        path: &str,
        methods: &[Method],
        name: &str,
        mark: Mark,
    ) -> Result<(), Rival> {
        let host = self.hosts.entry(host.map(str::to_owned)).or_default();
        let place = Place {
            name: name.to_owned(),
            mark,
            methods: methods.to_vec(),
        };
        if let Some(places) = host.templates.get_mut(path) {
            for other in places.iter() {
                if let Some(method) = other.methods.iter().find(|method| methods.contains(method)) {
                    let why = format!("both answer {method} at the same path");
                    return Err(Rival {
                        name: other.name.clone(),
                        mark: Some(other.mark),
                        why,
                    });
                }
            }
            places.push(place);
            return Ok(());
        }
        match host.router.insert(path, ()) {
            Ok(()) => {
                host.templates.insert(path.to_owned(), vec![place]);
                Ok(())
            }
            Err(InsertError::Conflict { with }) => Err(host.rival(&with)),
            Err(error) => Err(Rival {
                name: String::new(),
                mark: None,
                why: error.to_string(),
            }),
        }
    }
}

impl Host {
    fn rival(&self, template: &str) -> Rival {
        let first = self.templates.get(template).and_then(|places| places.first());
        let why = format!("{template} and this path match the same requests");
        match first {
            Some(place) => Rival {
                name: place.name.clone(),
                mark: Some(place.mark),
                why,
            },
            None => Rival {
                name: String::new(),
                mark: None,
                why,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::Method;
    use proptest::prelude::*;

    use super::{PathEnd, Paths, check_host, check_plain, check_template};

    #[test]
    fn a_template_has_plain_segments_and_parameters() {
        for (good, end) in [
            ("/", PathEnd::Fixed),
            ("/orders", PathEnd::Fixed),
            ("/orders/", PathEnd::Fixed),
            ("/orders/{id}", PathEnd::Fixed),
            ("/orders/{id}.json", PathEnd::Fixed),
            ("/v1/img-{n}/{id}", PathEnd::Fixed),
            ("/a:b@c~d!$&'()+,;=", PathEnd::Fixed),
            ("/files/{*rest}", PathEnd::Open),
        ] {
            assert_eq!(check_template(good), Ok(end), "{good}");
            matchit::Router::new().insert(good, ()).unwrap();
        }
        for bad in [
            "",
            "orders",
            "https://a.example/x",
            "/a//b",
            "//",
            "/./a",
            "/a/..",
            "/a%20b",
            "/a?b",
            "/a#b",
            "/a b",
            "/ü",
            "/{",
            "/}",
            "/{}",
            "/{*}",
            "/{{a}}",
            "/{a}{b}",
            "/{a}-{b}",
            "/{a}/{a}",
            "/{*rest}/a",
            "/a{*rest}",
            "/*",
            "/*rest",
            "/:id",
            "/{i d}",
            "/\\",
            "/a\"b",
        ] {
            assert!(check_template(bad).is_err(), "{bad}");
        }
        assert!(check_plain("/-/health").is_ok());
        assert!(check_plain("/{id}").is_err());
    }

    #[test]
    fn a_host_is_a_name_in_lower_case_without_port() {
        for (text, read) in [
            ("Hooks.Example.com", "hooks.example.com"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(check_host(text).unwrap(), read);
        }
        for (bad, correction) in [
            ("hooks.example.com:8443", "\"hooks.example.com\""),
            ("hooks.example.com.", "\"hooks.example.com\""),
            ("https://hooks.example.com", "hooks.example.com"),
            ("*.example.com", "every host"),
            ("", "hooks.example.com"),
            ("a..b", "hooks.example.com"),
            ("2001:db8::1", "hooks.example.com"),
            ("1.2.3", "hooks.example.com"),
        ] {
            let hint = check_host(bad).unwrap_err().hint.unwrap();
            assert!(hint.contains(correction), "{bad}: {hint}");
        }
    }

    fn add(paths: &mut Paths, host: Option<&str>, path: &str, method: Method) -> Result<(), String> {
        paths
            .add(host, path, &[method], path, (0..0).into())
            .map_err(|rival| rival.name)
    }

    #[test]
    fn routes_clash_when_they_could_match_the_same_request() {
        let mut paths = Paths::default();
        let host = Some("a.example");
        add(&mut paths, host, "/orders/{id}", Method::POST).unwrap();
        add(&mut paths, host, "/orders/{id}", Method::GET).unwrap();
        add(&mut paths, host, "/orders/new", Method::POST).unwrap();
        add(&mut paths, None, "/orders/{id}", Method::POST).unwrap();
        add(&mut paths, Some("b.example"), "/orders/{id}", Method::POST).unwrap();
        assert_eq!(
            add(&mut paths, host, "/orders/{id}", Method::POST).unwrap_err(),
            "/orders/{id}"
        );
        assert_eq!(
            add(&mut paths, host, "/orders/{number}", Method::PUT).unwrap_err(),
            "/orders/{id}"
        );
    }

    #[test]
    fn the_rival_is_named_for_every_form_of_conflict() {
        for (first, second) in [
            ("/a/{x}", "/a/{y}"),
            ("/a/{x}/b", "/a/{y}/b"),
            ("/a/{*x}", "/a/{*y}"),
            ("/a/{x}.json", "/a/{y}.json"),
            ("/a/b/{x}/c/{y}", "/a/b/{z}/c/{w}"),
        ] {
            let mut paths = Paths::default();
            for other in ["/", "/a", "/a/b", "/q/{x}", "/zz/{*rest}"] {
                add(&mut paths, None, other, Method::POST).unwrap();
            }
            add(&mut paths, None, first, Method::POST).unwrap();
            assert_eq!(
                add(&mut paths, None, second, Method::POST).unwrap_err(),
                first,
                "{second}"
            );
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the time that passes is what is tested")]
    fn ten_thousand_routes_are_compared_in_no_time() {
        let mut paths = Paths::default();
        let started = Instant::now();
        for number in 0..10_000 {
            add(
                &mut paths,
                Some("a.example"),
                &format!("/t{number}/orders/{{id}}"),
                Method::POST,
            )
            .unwrap();
        }
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
    }

    proptest! {
        #[test]
        fn a_template_we_accept_is_one_the_router_accepts(text in "/[a-c{}*/._:~-]{0,12}") {
            if check_template(&text).is_ok() {
                prop_assert!(matchit::Router::new().insert(text, ()).is_ok());
            }
        }
    }
}
