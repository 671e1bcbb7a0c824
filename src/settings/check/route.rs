//! Routes: who may call which path, and which flow stands behind it. A route lists its callers or says that
//! it is open; there is no default that lets anybody in.

use http::{HeaderName, Method};

use crate::model::{CallerName, IdentityName, RouteName};
use crate::settings::check::name::Names;
use crate::settings::check::network::NetworkKeys;
use crate::settings::check::path::{PathEnd, Paths};
use crate::settings::check::trigger::Address;
use crate::settings::check::value::{DAY, HOUR, MILLISECOND};
use crate::settings::check::{Check, findings, path, route_rate, word};
use crate::settings::file::{OnClaimMismatch, Route, RouteKindWord};
use crate::settings::leaf::{At, Table};
use crate::settings::mistake::Flaw;
use crate::settings::{
    CallersSettings, ClaimMismatch, IdentitySettings, KeyPlace, Proof, QueryPass, RelativePath, RouteKind,
    RouteSettings, UpstreamSettings, defaults, mask,
};

/// The header field most senders of webhooks can set.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// What routes are held against.
struct Known<'a> {
    identities: &'a [IdentitySettings],
    identity_names: &'a mut Names,
    caller_names: &'a mut Names,
    route_names: Names,
    paths: Paths,
}

impl Check<'_> {
    pub(super) fn routes(
        &mut self,
        list: &[Table<Route>],
        identities: &[IdentitySettings],
        identity_names: &mut Names,
        caller_names: &mut Names,
    ) -> Vec<RouteSettings> {
        if list.is_empty() {
            let hint = "add [[route]] with a name, a path, callers and the address of a trigger";
            self.findings.missing(findings::ROOT, "route", hint);
        }
        let route_names = Names::new("route");
        let mut known = Known {
            identities,
            identity_names,
            caller_names,
            route_names,
            paths: Paths::default(),
        };
        list.iter()
            .filter_map(|route| self.route(route, &mut known))
            .collect()
    }

    fn route(&mut self, route: &Table<Route>, known: &mut Known<'_>) -> Option<RouteSettings> {
        let name = self.name(
            route.span(),
            route.name.as_ref(),
            &mut known.route_names,
            RouteName::parse,
        );
        let host = route
            .host
            .as_ref()
            .map(|value| self.findings.keep(value, path::check_host(value)));
        let path = self.path_of(route);
        let methods = self.methods(route);
        let callers = self.callers_of(route, known.caller_names);
        let networks = self.networks(&NetworkKeys {
            allow: route.networks.as_ref(),
            allow_file: route.networks_file.as_ref(),
            deny: route.deny_networks.as_ref(),
            deny_file: route.deny_networks_file.as_ref(),
        });
        let key_places = self.key_places(route);
        let rate = Some(self.rate(route.rate.as_ref(), route_rate()));
        let body_bytes_max = self.size(
            route.body_size_max.as_ref(),
            defaults::BODY_SIZE_MAX,
            0..=defaults::BODY_SIZE_CEILING,
        );
        let proof = self.proof(route, known.identity_names);
        let end = path.map(|(_, end)| end);
        let (trigger, kind, relative_path) = self.behind(route, proof.as_ref(), known.identities, end);
        let object_ids = self.object_ids(route);
        let query = self.query(route);
        let upstream = self.upstream(route);
        let host = match host {
            Some(host) => Some(host?),
            None => None,
        };
        let (trigger, trigger_source) = trigger.unzip();
        let probe = self.probe(route, kind.as_ref(), &methods, trigger.as_ref());
        let (path, _) = path?;
        self.place(route, host.as_deref(), path, &methods, known);
        Some(RouteSettings {
            name: name?,
            host,
            path: path.as_str().to_owned(),
            methods,
            callers: callers?,
            networks,
            key_places,
            rate,
            body_bytes_max,
            kind: kind?,
            proof: proof?,
            object_ids,
            on_claim_mismatch: on_claim_mismatch(route),
            trigger: trigger?,
            trigger_source: trigger_source?,
            relative_path,
            query,
            probe,
            upstream,
        })
    }

    /// What stands behind a route: where it is, of what kind, and what becomes of the rest of the path.
    fn behind(
        &mut self,
        route: &Table<Route>,
        proof: Option<&Proof>,
        identities: &[IdentitySettings],
        end: Option<PathEnd>,
    ) -> (Option<Address>, Option<RouteKind>, RelativePath) {
        match route.kind.as_deref() {
            Some(RouteKindWord::Api) => {
                let upstream = self.api(route, proof, identities).map(|url| (url, None));
                let paths = self.api_paths(route, end);
                (upstream, paths.map(RouteKind::Api), RelativePath::Appended)
            }
            Some(RouteKindWord::Flow) | None => {
                self.without_api(route);
                let trigger = self.trigger_of(route, proof, identities);
                (trigger, Some(RouteKind::Flow), self.relative_path(route, end))
            }
        }
    }

    fn path_of<'r>(&mut self, route: &'r Table<Route>) -> Option<(&'r At<String>, PathEnd)> {
        let Some(value) = &route.path else {
            self.findings
                .missing(route.span(), "path", "write for example path = \"/orders\"");
            return None;
        };
        self.findings
            .keep(value, path::check_template(value))
            .map(|end| (value, end))
    }

    /// Puts the route among the others, and reports the one it cannot stand beside.
    fn place(
        &mut self,
        route: &Table<Route>,
        host: Option<&str>,
        path: &At<String>,
        methods: &[Method],
        known: &mut Known<'_>,
    ) {
        let name = route.name.as_ref().map_or("", |name| name.as_str());
        let Err(rival) = known.paths.add(host, path, methods, name, path.into()) else {
            return;
        };
        let flaw = match rival.name.as_str() {
            "" => Flaw::new("the route clashes with another"),
            other => Flaw::new(format!("the route clashes with the route \"{other}\"")),
        };
        let flaw = flaw.hint(rival.why);
        match rival.mark {
            Some(mark) => self.findings.clash(path, flaw, mark, "declared here"),
            None => self.findings.mistake(path, flaw),
        }
    }

    /// The methods; empty if one is wrong.
    fn methods(&mut self, route: &Route) -> Vec<Method> {
        let Some(values) = &route.methods else {
            return vec![Method::POST];
        };
        if values.is_empty() {
            self.findings.mistake(
                values,
                Flaw::new("no method is listed, so nothing could be called"),
            );
        }
        let mut methods = Vec::new();
        for value in values.iter() {
            let Some(method) = self.findings.keep(value, word::read_method(value)) else {
                continue;
            };
            if methods.contains(&method) {
                self.findings
                    .mistake(value, Flaw::new(format!("{method} is listed twice")));
                continue;
            }
            methods.push(method);
        }
        methods
    }

    fn callers_of(&mut self, route: &Table<Route>, names: &mut Names) -> Option<CallersSettings> {
        let open = route.anonymous.as_ref().filter(|value| ***value);
        match (&route.callers, open) {
            (Some(callers), Some(open)) => {
                let flaw = Flaw::new("a route either lists its callers or is open to everybody");
                self.findings
                    .clash(open, flaw, callers, "callers are listed here");
                None
            }
            (None, Some(_)) => Some(CallersSettings::Anonymous),
            (None, None) => {
                let reported = |key| self.findings.was_reported(route.span(), key);
                if !reported("callers") && !reported("anonymous") {
                    let flaw = Flaw::new("the route does not say who may call, and by default nobody may");
                    let hint =
                        "list callers = [\"NAME\"], or open the route to everybody with anonymous = true";
                    self.findings.mistake(route, flaw.hint(hint));
                }
                None
            }
            (Some(values), None) => {
                if values.is_empty() {
                    let flaw = Flaw::new("no caller is listed, so nobody could call");
                    self.findings.mistake(values, flaw);
                }
                let mut callers: Vec<CallerName> = Vec::new();
                for value in values.iter() {
                    if !names.use_of(value, &mut self.findings) {
                        continue;
                    }
                    let Ok(name) = CallerName::parse(value) else {
                        continue;
                    };
                    if callers.contains(&name) {
                        self.findings
                            .mistake(value, Flaw::new(format!("the caller \"{name}\" is listed twice")));
                        continue;
                    }
                    callers.push(name);
                }
                Some(CallersSettings::Named(callers))
            }
        }
    }

    fn key_places(&mut self, route: &Route) -> Vec<KeyPlace> {
        let Some(values) = &route.key_from else {
            return vec![
                KeyPlace::Header(KEY_HEADER),
                KeyPlace::Authorization,
                KeyPlace::Basic,
            ];
        };
        if values.is_empty() {
            let flaw = Flaw::new("no place for a key is listed");
            self.findings
                .mistake(values, flaw.hint("remove the key for the usual places"));
        }
        let mut places = Vec::new();
        for value in values.iter() {
            let Some(place) = self.findings.keep(value, word::read_place(value)) else {
                continue;
            };
            if places.contains(&place) {
                self.findings
                    .mistake(value, Flaw::new("the place is listed twice"));
                continue;
            }
            places.push(place);
        }
        places
    }

    fn proof(&mut self, route: &Table<Route>, names: &mut Names) -> Option<Proof> {
        let signed = route.signed.as_ref().filter(|value| ***value);
        match (&route.identity, signed) {
            (Some(identity), Some(signed)) => {
                let flaw = Flaw::new("a route has either an identity or a signed trigger address, not both");
                self.findings.clash(signed, flaw, identity, "the identity");
                None
            }
            (None, Some(_)) => Some(Proof::Signed),
            (Some(identity), None) => {
                let found = names.use_of(identity, &mut self.findings);
                let name = IdentityName::parse(identity).ok().filter(|_| found)?;
                Some(Proof::Identity(name))
            }
            (None, None) => {
                let reported = |key| self.findings.was_reported(route.span(), key);
                if !reported("identity") && !reported("signed") {
                    let flaw = Flaw::new("the route does not say how the flow is convinced to start");
                    let hint = "set identity = \"NAME\" for a token, or signed = true if the trigger's \
                                address carries a signature";
                    self.findings.mistake(route, flaw.hint(hint));
                }
                None
            }
        }
    }

    fn trigger_of(
        &mut self,
        route: &Table<Route>,
        proof: Option<&Proof>,
        identities: &[IdentitySettings],
    ) -> Option<Address> {
        let Some(value) = &route.trigger else {
            self.findings.missing(
                route.span(),
                "trigger",
                "copy the address from the trigger of the flow",
            );
            return None;
        };
        self.trigger(value, proof, identities)
    }

    /// The object ids on the trigger's list; they are compared with a token's, so a route without one has none.
    fn object_ids(&mut self, route: &Route) -> Vec<String> {
        let Some(values) = &route.object_ids else {
            return Vec::new();
        };
        if route.identity.is_none() {
            let flaw = Flaw::new("`object_ids` goes with `identity` only");
            self.findings.mistake(
                values,
                flaw.hint("a signed address asks for no token, so there is no list"),
            );
        }
        let mut ids = Vec::new();
        for value in values.iter() {
            if mask::is_guid(value) {
                ids.push(value.to_ascii_lowercase());
                continue;
            }
            let flaw = Flaw::new("an object id is a GUID");
            let hint =
                "write the object id of the enterprise application: az ad sp show --id CLIENT_ID --query id";
            self.findings.mistake(value, flaw.hint(hint));
        }
        ids
    }

    fn relative_path(&mut self, route: &Route, end: Option<PathEnd>) -> RelativePath {
        let Some(value) = route.relative_path.as_ref().filter(|value| ***value) else {
            return RelativePath::Dropped;
        };
        if end == Some(PathEnd::Fixed) {
            let flaw = Flaw::new("`relative_path` needs a path that ends in {*rest}");
            let hint = "write for example path = \"/orders/{*rest}\"";
            match &route.path {
                Some(path) => self.findings.clash(value, flaw.hint(hint), path, "this path"),
                None => self.findings.mistake(value, flaw.hint(hint)),
            }
        }
        RelativePath::Appended
    }

    fn query(&mut self, route: &Route) -> QueryPass {
        let is_api = route.kind.as_deref() == Some(&RouteKindWord::Api);
        let Some(values) = &route.query else {
            return if is_api { QueryPass::All } else { QueryPass::None };
        };
        let all = values.iter().find(|value| value.as_str() == "*");
        if let Some(all) = all {
            if values.len() > 1 {
                self.findings.mistake(
                    all,
                    Flaw::new("\"*\" passes every parameter on, so it stands alone"),
                );
            }
            return QueryPass::All;
        }
        let mut names: Vec<String> = Vec::new();
        for value in values.iter() {
            let Some(name) = self.findings.keep(value, word::read_parameter(value, is_api)) else {
                continue;
            };
            if names.contains(&name) {
                self.findings
                    .mistake(value, Flaw::new(format!("\"{name}\" is listed twice")));
                continue;
            }
            names.push(name);
        }
        if names.is_empty() {
            QueryPass::None
        } else {
            QueryPass::Named(names)
        }
    }

    fn upstream(&mut self, route: &Route) -> UpstreamSettings {
        UpstreamSettings {
            trust: self.trust(route.ca_file.as_ref()),
            connect_to: route
                .connect_to
                .as_ref()
                .and_then(|address| self.socket_address(address)),
            in_flight_max: self.count(route.in_flight_max.as_ref(), defaults::IN_FLIGHT_MAX, 1..=100_000),
            waiting_max: self.count(route.waiting_max.as_ref(), defaults::WAITING_MAX, 0..=1_000_000),
            waiting_timeout: self.duration(
                route.waiting_timeout.as_ref(),
                defaults::WAITING_TIMEOUT,
                MILLISECOND..=HOUR,
            ),
            connect_timeout: self.duration(
                route.connect_timeout.as_ref(),
                defaults::CONNECT_TIMEOUT,
                MILLISECOND..=HOUR,
            ),
            response_timeout: self.duration(
                route.response_timeout.as_ref(),
                defaults::RESPONSE_TIMEOUT,
                MILLISECOND..=HOUR,
            ),
            idle_timeout: self.duration(
                route.upstream_idle_timeout.as_ref(),
                defaults::UPSTREAM_IDLE_TIMEOUT,
                MILLISECOND..=DAY,
            ),
        }
    }
}

fn on_claim_mismatch(route: &Route) -> ClaimMismatch {
    match route.on_claim_mismatch.as_deref() {
        None | Some(OnClaimMismatch::Try) => ClaimMismatch::Try,
        Some(OnClaimMismatch::Refuse) => ClaimMismatch::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::settings::check::sample::{Sample, TRIGGER};
    use crate::settings::{CallersSettings, ClaimMismatch, QueryPass, RelativePath};

    fn sample(lines: &str) -> Sample {
        Sample::default().with("route", lines)
    }

    fn signed(lines: &str) -> Sample {
        sample(&format!(
            "name = \"a\"\npath = \"/a\"\nsigned = true\ntrigger = \"env:SIGNED\"\n{lines}"
        ))
    }

    #[test]
    fn object_ids_are_guids_and_go_with_an_identity() {
        let id = "ABCDEF00-0000-0000-0000-000000000002";
        let good = format!(
            "name = \"a\"\npath = \"/a\"\nanonymous = true\nidentity = \"contoso\"\ntrigger = \"{TRIGGER}\"\n\
             object_ids = [\"{id}\"]\non_claim_mismatch = \"refuse\""
        );
        let route = sample(&good).config().routes.remove(0);
        assert_eq!(route.object_ids, [id.to_ascii_lowercase()]);
        assert_eq!(route.on_claim_mismatch, ClaimMismatch::Refuse);
        let bad = sample(&good.replace(id, "shop@contoso.com"));
        assert_eq!(bad.mistakes(), ["an object id is a GUID"]);
        let signed = signed(&format!("anonymous = true\nobject_ids = [\"{id}\"]"));
        assert_eq!(signed.mistakes(), ["`object_ids` goes with `identity` only"]);
    }

    #[test]
    fn a_route_says_who_may_call() {
        assert_eq!(
            signed("").mistakes(),
            ["the route does not say who may call, and by default nobody may"]
        );
        assert_eq!(
            signed("anonymous = false").mistakes(),
            ["the route does not say who may call, and by default nobody may"]
        );
        assert_eq!(
            signed("anonymous = true\ncallers = [\"shop\"]").mistakes(),
            ["a route either lists its callers or is open to everybody"]
        );
        assert_eq!(
            signed("callers = []").mistakes(),
            ["no caller is listed, so nobody could call"]
        );
        assert_eq!(
            signed("callers = [\"shop\", \"shop\"]").mistakes(),
            ["the caller \"shop\" is listed twice"]
        );
        let config = signed("anonymous = true").config();
        assert!(matches!(config.routes[0].callers, CallersSettings::Anonymous));
    }

    #[test]
    fn an_unknown_name_brings_the_one_that_was_meant() {
        let report = signed("callers = [\"shpo\"]").report();
        assert!(
            report.contains("there is no caller \"shpo\"") && report.contains("did you mean \"shop\"?"),
            "{report}"
        );
        let report = sample(&format!(
            "name = \"a\"\npath = \"/a\"\ncallers = [\"shop\"]\nidentity = \"contosso\"\n\
             trigger = \"{TRIGGER}\""
        ))
        .report();
        assert!(report.contains("did you mean \"contoso\"?"), "{report}");
    }

    #[test]
    fn a_route_has_exactly_one_proof() {
        let lines = format!("name = \"a\"\npath = \"/a\"\ncallers = [\"shop\"]\ntrigger = \"{TRIGGER}\"\n");
        assert_eq!(
            sample(&lines).mistakes(),
            ["the route does not say how the flow is convinced to start"]
        );
        assert_eq!(
            sample(&format!("{lines}signed = true\nidentity = \"contoso\"")).mistakes(),
            ["a route has either an identity or a signed trigger address, not both"]
        );
        assert_eq!(sample(&format!("{lines}signed = true")).mistakes().len(), 1);
        let twice = sample(
            "name = \"a\"\npath = \"/a\"\ncallers = [\"shop\"]\ntrigger = \"env:SIGNED\"\n\
             identity = \"contoso\"",
        );
        assert_eq!(
            twice.mistakes(),
            ["trigger address carries a signature (sig) although the route uses an identity"]
        );
    }

    #[test]
    fn a_signature_in_the_file_is_refused_and_not_shown() {
        let sample = sample(&format!(
            "name = \"a\"\npath = \"/a\"\ncallers = [\"shop\"]\nsigned = true\n\
             trigger = \"{TRIGGER}&sp=x&sv=1&sig=canary\""
        ));
        let report = sample.report();
        assert!(
            report.contains("must not be written into the settings file"),
            "{report}"
        );
        assert!(
            report.contains("sig=******") && !report.contains("canary"),
            "{report}"
        );
    }

    #[test]
    fn clashing_routes_are_both_shown() {
        let second = signed(
            "callers = [\"shop\"]\n[[route]]\nname = \"b\"\npath = \"/a\"\nsigned = true\n\
             trigger = \"env:SIGNED\"\nanonymous = true",
        );
        let report = second.report();
        assert!(
            report.contains("the route clashes with the route \"a\""),
            "{report}"
        );
        assert!(
            report.contains("declared here") && report.contains("both answer POST"),
            "{report}"
        );
        let other_method = second.replace("anonymous = true", "anonymous = true\nmethods = [\"PUT\"]");
        assert!(
            other_method.mistakes().is_empty(),
            "{:?}",
            other_method.mistakes()
        );
    }

    #[test]
    fn a_relative_path_needs_an_open_end() {
        assert_eq!(
            signed("callers = [\"shop\"]\nrelative_path = true").mistakes(),
            ["`relative_path` needs a path that ends in {*rest}"]
        );
        let open = signed("callers = [\"shop\"]\nrelative_path = true").replace("\"/a\"", "\"/a/{*rest}\"");
        assert_eq!(open.config().routes[0].relative_path, RelativePath::Appended);
    }

    #[test]
    fn a_body_is_at_most_what_a_trigger_takes() {
        assert!(
            signed("callers = [\"shop\"]\nbody_size_max = 104857600")
                .mistakes()
                .is_empty()
        );
        for size in ["104857601", "\"101 MiB\""] {
            let mistakes = signed(&format!("callers = [\"shop\"]\nbody_size_max = {size}")).mistakes();
            assert_eq!(mistakes, ["the value is too large; it must be at most 100.0 MiB"]);
        }
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let config = signed("callers = [\"shop\"]").config();
        let route = &config.routes[0];
        assert_eq!(route.methods, ["POST"]);
        assert_eq!(route.key_places.len(), 3);
        assert_eq!(
            route.rate.map(|rate| (rate.requests, rate.burst)),
            Some((150, 300))
        );
        assert_eq!(route.query, QueryPass::None);
        assert_eq!(route.upstream.response_timeout, Duration::from_secs(125));
        assert_eq!(route.body_bytes_max, 1 << 20);
    }

    #[test]
    fn a_star_alone_passes_every_parameter_on() {
        let config = signed("callers = [\"shop\"]\nquery = [\"*\"]").config();
        assert_eq!(config.routes[0].query, QueryPass::All);
        assert_eq!(
            signed("callers = [\"shop\"]\nquery = [\"a\", \"*\"]")
                .mistakes()
                .len(),
            1
        );
    }

    #[test]
    fn an_unresolved_route_needs_no_secrets() {
        let sample = signed("callers = [\"shop\"]").replace("env:SIGNED", "env:NOWHERE");
        assert_eq!(sample.mistakes(), ["environment variable NOWHERE is not set"]);
        assert!(sample.without_secrets().mistakes().is_empty());
    }
}
