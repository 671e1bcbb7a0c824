//! Keys in URLs: for vendors whose form has one field. Such a key is in logs of others, so a route allows it explicitly, and it
//! is valid nowhere else.

use std::collections::{HashMap, HashSet};

use crate::model::Flaw;
use crate::settings::check::Check;
use crate::settings::route::RouteTable;
use crate::settings::table::Table;
use crate::settings::{CallerSettings, CallersSettings, KeyPlace, QueryPass, RouteSettings};

impl Check<'_> {
    pub(super) fn keys_in_urls(
        &mut self,
        tables: &[Table<RouteTable>],
        routes: &[RouteSettings],
        callers: &[CallerSettings],
    ) {
        let in_url = callers.iter().filter(|caller| caller.key_in_url);
        let in_url: HashSet<_> = in_url.map(|caller| &caller.name).collect();
        let read_there = |route: &&RouteSettings| route.key_places.iter().any(KeyPlace::is_in_url);
        if in_url.is_empty() && !routes.iter().any(|route| read_there(&route)) {
            return;
        }
        let tables: HashMap<_, _> = tables
            .iter()
            .filter_map(|table| Some((table.name.as_ref()?.as_str(), table)))
            .collect();
        for route in routes {
            let table = tables.get(route.name.as_str());
            let Some(&table) = table.filter(|table| !table.is_reported("key_from")) else {
                continue;
            };
            let mark = table.place("key_from").unwrap_or(table.into());
            if route.key_places.contains(&KeyPlace::Path)
                && !route.path.split('/').any(|segment| segment == "{key}")
            {
                let flaw = Flaw::new("the key is read in the path, which has no segment {key}");
                self.findings
                    .mistake(mark, flaw.hint("write for example path = \"/hooks/{key}\""));
            }
            for place in &route.key_places {
                let passes = match (place, &route.query) {
                    (KeyPlace::Query(_), QueryPass::All) => true,
                    (KeyPlace::Query(name), QueryPass::Named(names)) => names.contains(name),
                    _ => false,
                };
                if passes {
                    let flaw = Flaw::new(format!("the key is read in \"{place}\", which must not go on"));
                    let hint = "list the parameters that pass in `query`, without this one";
                    self.findings
                        .mistake(table.place("query").unwrap_or(mark), flaw.hint(hint));
                }
            }
            let CallersSettings::Named(names) = &route.callers else {
                continue;
            };
            let caller = names.iter().find(|name| in_url.contains(name));
            match (caller, read_there(&route)) {
                (Some(caller), false) => {
                    let flaw = Flaw::new(format!(
                        "caller \"{caller}\" sends its key in the URL, where the route reads none"
                    ));
                    let hint =
                        "set key_from = [\"query:NAME\"], or [\"path\"] with a segment {key} in `path`";
                    self.findings.mistake(mark, flaw.hint(hint));
                }
                (None, true) => {
                    let flaw = Flaw::new("no caller of the route may send its key in the URL");
                    let hint = "set `key_in_url = true` for the caller that has nothing but a URL";
                    self.findings.mistake(mark, flaw.hint(hint));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::sample::Sample;

    fn sample(route: &str, in_url: bool) -> Sample {
        let key = "[[caller.key]]\nlabel = \"a\"\ndigest = \"sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\"";
        let caller = format!("name = \"vendor\"\nkey_in_url = {in_url}\n{key}");
        let sample = Sample::default().with("caller", &caller);
        sample.replace("anonymous = true", &format!("callers = [\"vendor\"]\n{route}"))
    }

    #[test]
    fn a_key_in_a_url_is_allowed_by_the_route_and_by_the_caller() {
        assert!(sample("key_from = [\"query:code\"]", true).mistakes().is_empty());
        let path = sample("key_from = [\"path\"]", true);
        assert!(
            path.replace("\"/orders\"", "\"/orders/{key}\"")
                .mistakes()
                .is_empty()
        );
        for (route, in_url, what) in [
            (
                "key_from = [\"path\"]",
                true,
                "the key is read in the path, which has no segment {key}",
            ),
            (
                "key_from = [\"query:code\"]",
                false,
                "no caller of the route may send its key in the URL",
            ),
            (
                "",
                true,
                "caller \"vendor\" sends its key in the URL, where the route reads none",
            ),
            (
                "key_from = [\"query:code\"]\nquery = [\"code\"]",
                true,
                "the key is read in \"query:code\", which must not go on",
            ),
            (
                "key_from = [\"query:sig\"]",
                true,
                "this parameter belongs to the trigger's own address and is never passed on",
            ),
        ] {
            assert_eq!(sample(route, in_url).mistakes(), [what], "{route}");
        }
    }
}
