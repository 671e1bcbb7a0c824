//! Which route a request is for: host, path and method to whatever the gateway keeps for a route. The path
//! that is matched is the path that was checked, so nothing that decodes to another route gets through; what
//! the route then demands of the caller is decided elsewhere.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use http::{HeaderValue, Method};
use matchit::Router;

use crate::model::PathEnd;
use crate::policy::path::PathFault;
use crate::policy::{host, path};
use crate::problem::{Kind, Problem};
use crate::settings::RouteSettings;

/// What a request must look like to be for a route.
#[derive(Debug, Clone, Copy)]
pub struct Matching<'a> {
    /// Host, or every host.
    pub host: Option<&'a str>,
    pub path: &'a str,
    pub methods: &'a [Method],
    /// Methods that the route does not have, and with which a vendor may ask whether it wants its webhooks.
    pub unlisted: &'a [Method],
}

impl<'a> From<&'a RouteSettings> for Matching<'a> {
    fn from(settings: &'a RouteSettings) -> Self {
        Self {
            host: settings.host.as_deref(),
            path: &settings.path,
            methods: &settings.methods,
            unlisted: &settings.handshakes.unlisted,
        }
    }
}

/// Why routes cannot be in one table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A template that no acceptable path can match, or that is not a template.
    #[error("path template {path:?} cannot be used: {why}")]
    Template { path: String, why: String },
    /// Two routes want the same method at the same host and template.
    #[error("two routes want {method} {path:?}")]
    Twice { method: Method, path: String },
}

/// The table of all routes; `T` is what the gateway keeps for one.
///
/// The routes of a host are asked first, then those that answer for every host. The most specific template
/// decides, before the method is looked at: with `GET /orders/new` and `POST /orders/{id}`, a POST to
/// `/orders/new` is refused. `{*rest}` matches at least one character, so `/files/` does not match
/// `/files/{*rest}`.
#[derive(Debug, Clone)]
pub struct Routes<T> {
    hosts: HashMap<Box<str>, Router<PathEntry<T>>>,
    anywhere: Router<PathEntry<T>>,
}

/// All routes of one host and template.
#[derive(Debug, Clone)]
struct PathEntry<T> {
    methods: Vec<(Method, T)>,
    unlisted: Vec<(Method, T)>,
    // `None` only for methods that are no header value, which the type of a method rules out.
    allow: Option<HeaderValue>,
    end: PathEnd,
}

/// Methods, and those that are not listed, by host and template.
type Drafts<'a, T> = BTreeMap<(Option<String>, &'a str), [Vec<(Method, T)>; 2]>;

#[derive(Debug)]
pub struct RouteMatch<'r, 'p, T> {
    pub value: &'r T,
    /// What the trailing `{*rest}` of the template matched, byte for byte as received.
    pub rest: Option<&'p str>,
    /// What a segment `{key}` of the template matched.
    pub key: Option<&'p str>,
}

impl<T> Routes<T> {
    /// Builds the table.
    pub fn build<'a>(routes: impl IntoIterator<Item = (Matching<'a>, T)>) -> Result<Self, RouteError>
    where
        T: Clone,
    {
        let mut entries: Drafts<'_, T> = BTreeMap::new();
        for (matching, value) in routes {
            check_template(matching.path)?;
            let host = matching.host.map(|host| host::fold(host).into_owned());
            let [methods, unlisted] = entries.entry((host, matching.path)).or_default();
            unlisted.extend(
                matching
                    .unlisted
                    .iter()
                    .map(|method| (method.clone(), value.clone())),
            );
            for method in matching.methods {
                if methods.iter().any(|(known, _)| known == method) {
                    return Err(RouteError::Twice {
                        method: method.clone(),
                        path: matching.path.to_owned(),
                    });
                }
                methods.push((method.clone(), value.clone()));
            }
        }
        let mut table = Self {
            hosts: HashMap::new(),
            anywhere: Router::new(),
        };
        for ((host, template), [methods, unlisted]) in entries {
            let router = match host {
                Some(host) => table.hosts.entry(host.into()).or_default(),
                None => &mut table.anywhere,
            };
            router
                .insert(template, PathEntry::new(template, methods, unlisted))
                .map_err(|error| RouteError::Template {
                    path: template.to_owned(),
                    why: error.to_string(),
                })?;
        }
        Ok(table)
    }

    /// Finds the route of a request. `host` may have a port, a final dot and capital letters; `path` is raw.
    ///
    /// # Errors
    /// `malformed-request` for a path that can be read in two ways, `route-unknown`, and `method-not-allowed`
    /// with the methods that the address has; `HEAD` and `OPTIONS` are not implied by others.
    pub fn find<'r, 'p>(
        &'r self,
        host: &str,
        path: &'p str,
        method: &Method,
    ) -> Result<RouteMatch<'r, 'p, T>, Problem> {
        let decoded = path::decode(path)?;
        let host = host::fold(host);
        let routers = (self.hosts.get(&*host), &self.anywhere);
        let located = locate(routers, path);
        // Only an encoded path has a second reading; the templates themselves contain no percent sign.
        if let Cow::Owned(decoded) = &decoded {
            let elsewhere = locate(routers, decoded).map(|(entry, ..)| entry);
            if !same(located.as_ref().map(|(entry, ..)| *entry), elsewhere) {
                return Err(PathFault::Disguised.into());
            }
        }
        let Some((entry, rest, key)) = located else {
            return Err(Kind::RouteUnknown.into());
        };
        match entry.methods.iter().find(|(known, _)| known == method) {
            Some((_, value)) => Ok(RouteMatch { value, rest, key }),
            None => Err(entry.refuse()),
        }
    }

    /// The route that a challenge is for, whose method [`Routes::find`] refused at the same host and path.
    pub fn find_unlisted(&self, host: &str, path: &str, method: &Method) -> Option<&T> {
        let host = host::fold(host);
        let (entry, ..) = locate((self.hosts.get(&*host), &self.anywhere), path)?;
        let mut unlisted = entry.unlisted.iter();
        unlisted
            .find(|(known, _)| known == method)
            .map(|(_, value)| value)
    }
}

impl<T> PathEntry<T> {
    fn new(template: &str, methods: Vec<(Method, T)>, unlisted: Vec<(Method, T)>) -> Self {
        let last = template.rsplit('/').next().unwrap_or_default();
        let end = if last.starts_with("{*") {
            PathEnd::Open
        } else {
            PathEnd::Fixed
        };
        let mut names: Vec<_> = methods.iter().map(|(method, _)| method.as_str()).collect();
        names.sort_unstable();
        let allow = HeaderValue::try_from(names.join(", ")).ok();
        Self {
            methods,
            unlisted,
            allow,
            end,
        }
    }

    fn refuse(&self) -> Problem {
        let problem = Problem::from(Kind::MethodNotAllowed);
        match &self.allow {
            Some(allow) => problem.allow(allow.clone()),
            None => problem,
        }
    }
}

fn check_template(template: &str) -> Result<(), RouteError> {
    let wrong = |why: String| RouteError::Template {
        path: template.to_owned(),
        why,
    };
    path::check(template).map_err(|fault| wrong(fault.to_string()))?;
    if template.contains('%') {
        // Every encoded path is also matched in its decoded form, and must lead to the same entry.
        return Err(wrong("it must be written without percent-encoding".to_owned()));
    }
    Ok(())
}

fn locate<'r, 'p, T>(
    (own, anywhere): (Option<&'r Router<PathEntry<T>>>, &'r Router<PathEntry<T>>),
    path: &'p str,
) -> Option<(&'r PathEntry<T>, Option<&'p str>, Option<&'p str>)> {
    let matched = match own.and_then(|own| own.at(path).ok()) {
        Some(matched) => matched,
        None => anywhere.at(path).ok()?,
    };
    let rest = match matched.value.end {
        PathEnd::Fixed => None,
        PathEnd::Open => matched.params.iter().last().map(|(_, value)| value),
    };
    Some((matched.value, rest, matched.params.get("key")))
}

fn same<T>(one: Option<&PathEntry<T>>, other: Option<&PathEntry<T>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => std::ptr::eq(one, other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use percent_encoding::percent_decode_str;
    use proptest::proptest;

    use super::{Matching, RouteError, Routes};
    use crate::model::RequestId;
    use crate::problem::{Kind, Problem};

    fn table(routes: &[(Option<&str>, &str, &[Method])]) -> Result<Routes<usize>, RouteError> {
        Routes::build(routes.iter().enumerate().map(|(index, &(host, path, methods))| {
            (
                Matching {
                    host,
                    path,
                    methods,
                    unlisted: &[],
                },
                index,
            )
        }))
    }

    fn shop() -> Routes<usize> {
        table(&[
            (None, "/orders", &[Method::POST]),
            (None, "/orders/{id}", &[Method::POST, Method::GET]),
            (None, "/orders/{id}", &[Method::DELETE]),
            (Some("files.example"), "/files/{*rest}", &[Method::PUT]),
            (Some("files.example"), "/orders", &[Method::PUT]),
            (None, "/orders/new", &[Method::GET]),
            (None, "/a:b", &[Method::GET]),
            (None, "/{any}", &[Method::GET]),
        ])
        .unwrap()
    }

    fn find(routes: &Routes<usize>, host: &str, path: &str, method: &Method) -> Result<usize, Kind> {
        routes
            .find(host, path, method)
            .map(|found| *found.value)
            .map_err(|problem| problem.kind())
    }

    fn allow(problem: &Problem) -> String {
        problem.answer(RequestId::new()).headers()["allow"]
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn host_path_and_method_lead_to_the_route() {
        let routes = shop();
        assert_eq!(find(&routes, "any.example", "/orders", &Method::POST), Ok(0));
        assert_eq!(find(&routes, "any.example", "/orders/7", &Method::GET), Ok(1));
        assert_eq!(find(&routes, "any.example", "/orders/7", &Method::DELETE), Ok(2));
        assert_eq!(find(&routes, "any.example", "/orders/new", &Method::GET), Ok(5));
        assert_eq!(
            find(&routes, "any.example", "/orders/", &Method::POST),
            Err(Kind::RouteUnknown)
        );
        assert_eq!(
            find(&routes, "any.example", "/Orders/x/y", &Method::POST),
            Err(Kind::RouteUnknown)
        );
    }

    #[test]
    fn a_host_is_known_whatever_its_case_port_and_final_dot() {
        let routes = shop();
        for host in [
            "files.example",
            "FILES.example",
            "files.example.",
            "files.example:8443",
        ] {
            assert_eq!(find(&routes, host, "/files/a", &Method::PUT), Ok(3), "{host}");
        }
        assert_eq!(
            find(&routes, "other.example", "/files/a", &Method::PUT),
            Err(Kind::RouteUnknown)
        );
    }

    #[test]
    fn a_host_of_its_own_comes_before_every_host() {
        let routes = shop();
        assert_eq!(find(&routes, "files.example", "/orders", &Method::PUT), Ok(4));
        assert_eq!(
            find(&routes, "files.example", "/orders", &Method::POST),
            Err(Kind::MethodNotAllowed)
        );
        assert_eq!(find(&routes, "files.example", "/orders/7", &Method::GET), Ok(1));
    }

    #[test]
    fn another_method_is_told_the_ones_there_are() {
        let routes = shop();
        let problem = routes.find("x", "/orders/7", &Method::PATCH).unwrap_err();
        assert_eq!(problem.kind(), Kind::MethodNotAllowed);
        assert_eq!(allow(&problem), "DELETE, GET, POST");
        let problem = routes.find("x", "/orders/new", &Method::POST).unwrap_err();
        assert_eq!(allow(&problem), "GET");
    }

    #[test]
    fn head_and_options_are_not_implied() {
        let routes = shop();
        assert_eq!(
            find(&routes, "x", "/orders/7", &Method::HEAD),
            Err(Kind::MethodNotAllowed)
        );
        assert_eq!(
            find(&routes, "x", "/orders/7", &Method::OPTIONS),
            Err(Kind::MethodNotAllowed)
        );
    }

    #[test]
    fn the_rest_is_what_was_received() {
        let routes = shop();
        let rest = |path| routes.find("files.example", path, &Method::PUT).unwrap().rest;
        assert_eq!(rest("/files/a/b%20c;v=1/"), Some("a/b%20c;v=1/"));
        assert_eq!(rest("/files/%61"), Some("%61"));
        assert_eq!(rest("/orders"), None);
        assert_eq!(
            find(&routes, "files.example", "/files/", &Method::PUT),
            Err(Kind::RouteUnknown)
        );
    }

    #[test]
    fn an_encoded_letter_is_data_and_never_part_of_an_address() {
        let routes = shop();
        assert_eq!(find(&routes, "x", "/orders/%37", &Method::GET), Ok(1));
        assert_eq!(find(&routes, "x", "/orders/a%7Eb%2D", &Method::GET), Ok(1));
        assert_eq!(
            find(&routes, "x", "/%6frders", &Method::GET),
            Err(Kind::MalformedRequest)
        );
        assert_eq!(
            find(&routes, "x", "/orders/%6eew", &Method::GET),
            Err(Kind::MalformedRequest)
        );
        assert_eq!(
            find(&routes, "x", "/%6Frders/7", &Method::GET),
            Err(Kind::MalformedRequest)
        );
        assert_eq!(
            find(&routes, "x", "/a%3Ab", &Method::GET),
            Err(Kind::MalformedRequest)
        );
        assert_eq!(
            find(&routes, "x", "/no/such/pl%61ce", &Method::GET),
            Err(Kind::RouteUnknown)
        );
    }

    #[test]
    fn a_path_with_two_readings_is_refused_before_any_route_is_looked_for() {
        let routes = shop();
        for path in [
            "/orders/..",
            "/orders//7",
            "/x/%2e%2e/orders",
            "/orders%2f7",
            "*",
            "/no\\where",
        ] {
            assert_eq!(
                find(&routes, "x", path, &Method::GET),
                Err(Kind::MalformedRequest),
                "{path}"
            );
        }
    }

    #[test]
    fn the_same_method_twice_is_no_table() {
        let both: [Method; 2] = [Method::GET, Method::PUT];
        let error = table(&[(None, "/a", &both), (None, "/a", &[Method::PUT])]).unwrap_err();
        assert_eq!(
            error,
            RouteError::Twice {
                method: Method::PUT,
                path: "/a".to_owned()
            }
        );
        assert!(table(&[(None, "/a", &both), (Some("h"), "/a", &both)]).is_ok());
    }

    #[test]
    fn a_template_that_cannot_match_is_no_table() {
        for template in [
            "a",
            "/a//b",
            "/a/../b",
            "/a%20b",
            "/ä",
            "/{a",
            "/{*rest}/b",
            "/{a}-{b}",
        ] {
            let error = table(&[(None, template, &[Method::GET])]).unwrap_err();
            assert!(
                matches!(error, RouteError::Template { .. }),
                "{template}: {error}"
            );
        }
        assert!(table(&[(None, "/{a}/x", &[Method::GET]), (None, "/{b}/x", &[Method::PUT])]).is_err());
    }

    // What other servers make of a path on their way to a decision.
    fn readings(path: &str) -> Vec<String> {
        let once = percent_decode_str(path).decode_utf8_lossy().into_owned();
        let twice = percent_decode_str(&once).decode_utf8_lossy().into_owned();
        let unreserved = |text: &str| {
            let mut text = text.to_owned();
            for byte in (0x21u8..0x7f).filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
                let plain = char::from(byte).to_string();
                text = text
                    .replace(&format!("%{byte:02x}"), &plain)
                    .replace(&format!("%{byte:02X}"), &plain);
            }
            text
        };
        let folded = path.replace("%2F", "%2f").replace("%2f", "/");
        let mut readings = vec![path.to_owned(), once, twice, unreserved(path), folded];
        readings.extend(readings.clone().iter().map(|text| text.replace('\\', "/")));
        readings.extend(readings.clone().iter().map(|text| merged(text)));
        readings.extend(readings.clone().iter().map(|text| without_dots(text)));
        readings
    }

    fn merged(path: &str) -> String {
        let mut path = path.to_owned();
        while path.contains("//") {
            path = path.replace("//", "/");
        }
        path
    }

    fn without_dots(path: &str) -> String {
        let mut kept: Vec<&str> = Vec::new();
        for segment in path.split('/').skip(1) {
            match segment.split(';').next().unwrap_or_default() {
                "." => {}
                ".." => {
                    kept.pop();
                }
                _ => kept.push(segment),
            }
        }
        format!("/{}", kept.join("/"))
    }

    proptest! {
        #[test]
        fn every_reading_of_an_accepted_path_leads_to_the_same_route(
            start in "(/orders|/files|)",
            middle in "(/(new|a|a:b|7|~|%7e|%20|%c3%a9|%61|a%3ab|n%65w|%25|%41|\\.){1,3}){0,3}",
            end in "/|/orders|/%6frders|/\\.\\.|/%2e%2E|/;x|//new|%5c|\\\\a|%252e|%25|2f|%2f|/\\.;a|",
            at in 0usize..2,
        ) {
            let path = format!("{start}{middle}{end}");
            let routes = shop();
            let host = ["x", "files.example"][at];
            for method in [Method::GET, Method::PUT, Method::POST] {
                let found = find(&routes, host, &path, &method);
                if found == Err(Kind::MalformedRequest) {
                    continue;
                }
                for reading in readings(&path) {
                    // A reading may need encoding again to be sent, but never another route.
                    let entry = super::locate((routes.hosts.get(host), &routes.anywhere), &reading);
                    let value = entry
                        .map(|(entry, ..)| entry.methods.iter().find(|(known, _)| *known == method))
                        .map(|known| known.map(|(_, value)| *value));
                    let expected = match found {
                        Ok(value) => Some(Some(value)),
                        Err(Kind::MethodNotAllowed) => Some(None),
                        Err(_) => None,
                    };
                    assert_eq!(value, expected, "{path} read as {reading}");
                }
            }
        }

        #[test]
        fn no_request_breaks_the_table(host in ".*", path in ".*") {
            let _ = shop().find(&host, &path, &Method::GET);
        }
    }
}
