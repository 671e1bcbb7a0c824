//! Finds routes that match the same requests.

use std::collections::HashMap;

use http::Method;
use matchit::{InsertError, Router};

use crate::settings::findings::Mark;

/// A route that is in the way of another.
#[derive(Default)]
pub(super) struct Rival {
    pub(super) name: String,
    /// Where its path is set; nothing if only its template is known.
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
                    return Err(Rival {
                        name: other.name.clone(),
                        mark: Some(other.mark),
                        why: format!("both answer {method} at the same path"),
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
                why: error.to_string(),
                ..Rival::default()
            }),
        }
    }
}

impl Host {
    fn rival(&self, template: &str) -> Rival {
        let first = self.templates.get(template).and_then(|places| places.first());
        Rival {
            name: first.map(|place| place.name.clone()).unwrap_or_default(),
            mark: first.map(|place| place.mark),
            why: format!("{template} and this path match the same requests"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http::Method;

    use super::Paths;

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
}
