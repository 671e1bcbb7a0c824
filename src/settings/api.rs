//! Routes to an API in place of a flow: where it is, and what of it may be asked for. What is not listed stays closed,
//! because the token opens far more than one path.

use http::Method;

use crate::model::trigger::Family;
use crate::model::{Cloud, FixedPath, Flaw, PathEnd, PathTemplate, TriggerUrl};
use crate::settings::check::Check;
use crate::settings::kinds::At;
use crate::settings::route::RouteTable;
use crate::settings::table::Table;
use crate::settings::{IdentitySettings, Proof, RouteKind, Secrets};

/// Scopes of the APIs that flows and pages ask for most (Microsoft Learn: "Microsoft Graph permissions overview", "Power
/// BI REST APIs", "Power Platform API authentication").
const SCOPES: [(&str, &str); 3] = [
    ("graph.microsoft.com", "https://graph.microsoft.com/.default"),
    (
        "api.powerbi.com",
        "https://analysis.windows.net/powerbi/api/.default",
    ),
    ("api.powerplatform.com", "https://api.powerplatform.com/.default"),
];

impl Check<'_> {
    pub(super) fn api(
        &mut self,
        route: &Table<RouteTable>,
        proof: Option<&Proof>,
        identities: &[IdentitySettings],
    ) -> Option<TriggerUrl> {
        for key in ["trigger", "signed", "relative_path", "answer"] {
            if let Some(mark) = route.place(key) {
                let flaw = Flaw::new(format!("`{key}` has no meaning on a route to an API"));
                self.findings.mistake(mark, flaw);
            }
        }
        let hint = "write for example upstream = \"https://graph.microsoft.com/v1.0\"";
        let value = route.require(("upstream", &route.upstream), hint, &mut self.findings)?;
        let url = self.findings.keep(value, check_upstream(value))?;
        if let Some(Proof::Identity(name)) = proof
            && let Some(identity) = identities.iter().find(|identity| identity.name == *name)
            && self.environment.secrets() == Secrets::Resolved
        {
            self.judge_scope(value, &url, identity);
        }
        Some(url)
    }

    /// A token for flows is not valid for an API.
    fn judge_scope(&mut self, value: &At<String>, url: &TriggerUrl, identity: &IdentitySettings) {
        let known = SCOPES
            .iter()
            .find(|(host, _)| url.host() == *host)
            .map(|(_, scope)| *scope);
        let for_flows = Cloud::ALL.iter().any(|cloud| cloud.scope() == identity.scope);
        if !for_flows && known.is_none_or(|scope| scope == identity.scope) {
            return;
        }
        let what = match for_flows {
            true => format!(
                "the tokens of \"{}\" are for flows, and this is an API",
                identity.name
            ),
            false => format!(
                "the tokens of \"{}\" are for {}, and this is another API",
                identity.name, identity.audience
            ),
        };
        let hint = match known {
            Some(scope) => format!("use an identity with scope = \"{scope}\""),
            None => "use an identity whose scope is the API's".to_owned(),
        };
        self.findings.warn(value, Flaw::new(what).hint(hint));
    }

    pub(super) fn api_paths(
        &mut self,
        route: &Table<RouteTable>,
        end: Option<PathEnd>,
    ) -> Option<Vec<PathTemplate>> {
        if route.is_reported("paths") {
            return None;
        }
        let Some(values) = &route.paths else {
            if end == Some(PathEnd::Open) {
                let flaw = Flaw::new("the route does not say what of the API may be asked for");
                let hint = "list paths = [\"/users/{id}\"], or open all of it with paths = [\"/{*rest}\"]";
                self.findings.mistake(route, flaw.hint(hint));
                return None;
            }
            return Some(Vec::new());
        };
        if end == Some(PathEnd::Fixed) {
            let flaw = Flaw::new("`paths` needs a path that ends in {*rest}");
            let hint = "write for example path = \"/graph/{*rest}\"";
            self.findings.mistake(values, flaw.hint(hint));
        }
        if values.is_empty() {
            let flaw = Flaw::new("no path is listed, so nothing could be asked for");
            self.findings.mistake(values, flaw);
        }
        let mut paths = Vec::new();
        let mut table = matchit::Router::new();
        for value in values.iter() {
            let inserted = table
                .insert(&***value, ())
                .map_err(|_| Flaw::new("this path matches the same requests as another in the list"));
            self.findings.keep(value, inserted)?;
            paths.push((**value).clone());
        }
        Some(paths)
    }

    /// What `flowgate doctor` may ask for: nothing that a caller could not.
    pub(super) fn probe(
        &mut self,
        route: &Table<RouteTable>,
        kind: Option<&RouteKind>,
        methods: &[Method],
        upstream: Option<&TriggerUrl>,
    ) -> Option<FixedPath> {
        let (Some(value), Some(RouteKind::Api(paths))) = (&route.probe, kind) else {
            return None;
        };
        let sent = upstream.map_or(Ok(()), |url| url.with_relative(value).map(|_| ()));
        let sent = sent.map_err(|error| Flaw::new(error.to_string().replace("relative path", "this path")));
        self.findings.keep(value, sent)?;
        let is_open = match paths.as_slice() {
            [] => &***value == "/",
            paths => paths.iter().any(|path| {
                let mut table = matchit::Router::new();
                table.insert(&**path, ()).is_ok() && table.at(value).is_ok()
            }),
        };
        if !is_open {
            let hint = match paths.is_empty() {
                true => "write probe = \"/\", which is `upstream` itself",
                false => "name one of them, or add it to `paths`",
            };
            let flaw = Flaw::new("the probe is no path that callers may ask for");
            self.findings.mistake(value, flaw.hint(hint));
            return None;
        }
        if !methods.contains(&Method::GET) {
            let flaw = Flaw::new("the probe asks with GET, which the route does not let through");
            let hint = "add \"GET\" to `methods`, or take the probe out";
            self.findings.mistake(value, flaw.hint(hint));
            return None;
        }
        Some((**value).clone())
    }

    /// Reports keys that only an API has.
    pub(super) fn without_api(&mut self, route: &Table<RouteTable>) {
        for key in ["upstream", "paths", "probe"] {
            if let Some(mark) = route.place(key) {
                let flaw = Flaw::new(format!("`{key}` is for routes to an API"));
                self.findings
                    .mistake(mark, flaw.hint("set kind = \"api\", or take it out"));
            }
        }
    }
}

fn check_upstream(text: &str) -> Result<TriggerUrl, Flaw> {
    let url = TriggerUrl::parse(text).map_err(|error| Flaw {
        what: error.to_string().replace("trigger address", "address of the API"),
        hint: error.hint(),
    })?;
    if url.family() != Family::Other {
        return Err(Flaw::new("this is the address of a flow's trigger")
            .hint("write trigger = \"...\" and leave `kind` out"));
    }
    if text.contains('?') {
        return Err(Flaw::new("the address of an API ends before `?`")
            .hint("query parameters come from the caller; name those that pass in `query`"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use crate::model::PathTemplate;
    use crate::settings::sample::Sample;
    use crate::settings::{QueryPass, RouteKind};

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    fn sample(lines: &str) -> Sample {
        let identity = |name: &str, scope: &str| {
            format!(
                "name = \"{name}\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\nclient_secret = \"env:SECRET\"\n{scope}"
            )
        };
        Sample::default()
            .with(
                "identity",
                &format!(
                    "{}\n[[identity]]\n{}",
                    identity("graph", "scope = \"https://graph.microsoft.com/.default\""),
                    identity("flows", "")
                ),
            )
            .with(
                "route",
                &format!("name = \"a\"\nkind = \"api\"\nanonymous = true\n{lines}"),
            )
    }

    #[test]
    fn an_api_has_an_address_and_a_list_of_paths() {
        let config = sample(
            "path = \"/graph/{*rest}\"\nidentity = \"graph\"\nupstream = \"https://graph.microsoft.com/v1.0\"\n\
             paths = [\"/users/{id}\", \"/groups/{*all}\"]",
        )
        .config();
        let route = config
            .routes
            .iter()
            .find(|route| route.name.as_str() == "a")
            .unwrap();
        let paths = ["/users/{id}", "/groups/{*all}"];
        let paths = paths.iter().map(|path| PathTemplate::parse(path).unwrap());
        assert_eq!(route.kind, RouteKind::Api(paths.collect()));
        assert_eq!(route.query, QueryPass::All);
        assert_eq!(route.trigger.authority(), "graph.microsoft.com");
    }

    #[test]
    fn nothing_of_an_api_is_open_unless_it_is_listed() {
        let api = "identity = \"graph\"\nupstream = \"https://graph.microsoft.com/v1.0\"\n";
        for (lines, what) in [
            (
                "path = \"/graph/{*rest}\"",
                "the route does not say what of the API may be asked for",
            ),
            (
                "path = \"/graph/{*rest}\"\npaths = []",
                "no path is listed, so nothing could be asked for",
            ),
            (
                "path = \"/me\"\npaths = [\"/users\"]",
                "`paths` needs a path that ends in {*rest}",
            ),
            (
                "path = \"/graph/{*rest}\"\npaths = [\"users\"]",
                "a path starts with a slash",
            ),
            (
                "path = \"/graph/{*rest}\"\npaths = [\"/a/{b}\", \"/a/{c}\"]",
                "this path matches the same requests as another in the list",
            ),
            (
                "path = \"/me\"\ntrigger = \"https://a.example\"",
                "`trigger` has no meaning on a route to an API",
            ),
        ] {
            assert_eq!(sample(&format!("{api}{lines}")).mistakes(), [what], "{lines}");
        }
    }

    #[test]
    fn a_probe_is_a_path_that_callers_may_get() {
        let api = "identity = \"graph\"\nupstream = \"https://graph.microsoft.com/v1.0\"\n";
        let open = "path = \"/graph/{*rest}\"\npaths = [\"/users/{id}\", \"/organization\"]\n";
        let get = "methods = [\"GET\"]\n";
        for (lines, probe) in [
            (open, "/organization"),
            (open, "/users/ann"),
            ("path = \"/me\"\n", "/"),
        ] {
            let config = sample(&format!("{api}{lines}{get}probe = \"{probe}\"")).config();
            let mut routes = config.routes.iter();
            let route = routes.find(|route| route.name.as_str() == "a").unwrap();
            assert_eq!(route.probe.as_deref(), Some(probe));
        }
        for (lines, probe, what) in [
            (open, "/groups", "the probe is no path that callers may ask for"),
            (
                open,
                "/users/a/b",
                "the probe is no path that callers may ask for",
            ),
            (
                "path = \"/me\"\n",
                "/me",
                "the probe is no path that callers may ask for",
            ),
            (open, "/users/{id}", "this path cannot have parameters"),
            (open, "organization", "a path starts with a slash"),
            (open, "/users/ann?$select=id", "a path ends before `?` and `#`"),
        ] {
            let mistakes = sample(&format!("{api}{lines}{get}probe = \"{probe}\"")).mistakes();
            assert_eq!(mistakes, [what], "{probe}");
        }
        assert_eq!(
            sample(&format!("{api}{open}probe = \"/organization\"")).mistakes(),
            ["the probe asks with GET, which the route does not let through"]
        );
    }

    #[test]
    fn the_address_of_an_api_is_no_trigger_and_has_no_query() {
        let flow = "https://prod-00.westeurope.logic.azure.com/workflows/00000000000000000000000000000000/triggers/manual/paths/invoke?api-version=2016-10-01";
        for (address, what) in [
            (flow, "this is the address of a flow's trigger"),
            (
                "https://graph.microsoft.com/v1.0?a=b",
                "the address of an API ends before `?`",
            ),
        ] {
            let lines = format!("path = \"/me\"\nidentity = \"graph\"\nupstream = \"{address}\"");
            assert_eq!(sample(&lines).mistakes(), [what], "{address}");
        }
        assert_eq!(
            sample("path = \"/me\"\nidentity = \"graph\"").mistakes(),
            ["`upstream` is missing"]
        );
    }

    #[test]
    fn keys_of_an_api_are_refused_on_a_flow() {
        let sample = Sample::default().with(
            "route",
            "name = \"a\"\npath = \"/a\"\nanonymous = true\nsigned = true\ntrigger = \"env:SIGNED\"\npaths = [\"/x\"]",
        );
        assert_eq!(sample.mistakes(), ["`paths` is for routes to an API"]);
    }

    #[test]
    fn a_token_for_something_else_is_worth_a_warning() {
        let lines = |identity: &str, upstream: &str| {
            sample(&format!(
                "path = \"/me\"\nidentity = \"{identity}\"\nupstream = \"{upstream}\""
            ))
            .warnings()
        };
        assert!(lines("graph", "https://graph.microsoft.com/v1.0/me").is_empty());
        assert_eq!(
            lines("flows", "https://graph.microsoft.com/v1.0/me"),
            ["the tokens of \"flows\" are for flows, and this is an API"]
        );
        assert_eq!(
            lines("graph", "https://api.powerbi.com/v1.0/myorg"),
            ["the tokens of \"graph\" are for https://graph.microsoft.com, and this is another API"]
        );
        assert!(lines("graph", "https://api.example/v1").is_empty());
    }
}
