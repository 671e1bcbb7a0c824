//! `problem_pages` of `[gateway]` and the routes, which must not be in each other's way.

use matchit::Router;

use crate::model::{Flaw, ProblemPages};
use crate::problem::Kind;
use crate::settings::check::Check;
use crate::settings::gateway::GatewaySettings;
use crate::settings::route::RouteTable;
use crate::settings::table::Table;

impl Check<'_> {
    /// Reports routes that would match the address of a page: the page would hide them.
    pub(super) fn problem_pages(&mut self, gateway: &Table<GatewaySettings>, routes: &[Table<RouteTable>]) {
        let Some((pages, mark)) = gateway.problem_pages.as_ref().zip(gateway.place("problem_pages")) else {
            return;
        };
        for route in routes {
            let Some(path) = &route.path else { continue };
            let is_same_host = route.host.as_ref().is_none_or(|host| host == pages.host());
            if is_same_host && matches_page(path, pages) {
                let flaw = Flaw::new("the route matches the address of a page about a problem")
                    .hint("give `problem_pages` another path or host");
                self.findings.clash(path, flaw, mark, "pages are here");
            }
        }
    }
}

fn matches_page(template: &str, pages: &ProblemPages) -> bool {
    let mut router = Router::new();
    // A template that cannot be inserted was reported where routes are compared.
    if router.insert(template, ()).is_err() {
        return false;
    }
    let mut codes = Kind::ALL.iter().map(|kind| kind.row().code);
    codes.any(|code| router.at(&format!("{}{code}", pages.path())).is_ok())
}

#[cfg(test)]
mod tests {
    use crate::settings::sample::Sample;

    fn mistakes(path: &str, host: &str) -> Vec<String> {
        let route = format!(
            "name = \"a\"\npath = \"{path}\"\n{host}\nanonymous = true\nsigned = true\ntrigger = \"env:SIGNED\""
        );
        let pages = "problem_pages = \"https://hooks.example.com/problems\"";
        Sample::default()
            .with("route", &route)
            .with("gateway", pages)
            .mistakes()
    }

    #[test]
    fn a_route_that_matches_a_page_is_a_mistake() {
        let same = "host = \"hooks.example.com\"";
        for (path, host) in [
            ("/problems/{x}", same),
            ("/problems/{x}", ""),
            ("/{*rest}", same),
            ("/{a}/{b}", same),
            ("/problems/flow-off", same),
        ] {
            let found = mistakes(path, host);
            let expected = ["the route matches the address of a page about a problem"];
            assert_eq!(found, expected, "{path} {host}");
        }
        for (path, host) in [
            ("/problems/{x}", "host = \"other.example.com\""),
            ("/problems", same),
            ("/problems/{x}/y", same),
            ("/orders/{x}", same),
            ("/problems/not-a-code", same),
        ] {
            assert!(mistakes(path, host).is_empty(), "{path} {host}");
        }
    }
}
