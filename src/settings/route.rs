//! `[[route]]`: who may call which path, and which flow is behind it. A route lists its callers or says that it is open;
//! there is no default that lets anybody in.

mod settings;
mod table;

use http::{HeaderName, Method};

pub use settings::{
    CallersSettings, Checks, ClaimMismatch, QueryPass, RelativePath, RouteKind, RouteSettings,
    UpstreamSettings,
};
pub(crate) use table::{RouteKindWord, RouteTable};

use crate::model::entra_ids::is_guid;
use crate::model::{CallerName, Flaw, IdentityName, PathEnd, PathTemplate, PublicUrl, RouteName};
use crate::settings::IdentitySettings;
use crate::settings::bodies::BodySettings;
use crate::settings::check::Check;
use crate::settings::content::ContentKeys;
use crate::settings::findings::Mark;
use crate::settings::kinds::At;
use crate::settings::name::Names;
use crate::settings::network::NetworkKeys;
use crate::settings::path::Paths;
use crate::settings::table::Table;
use crate::settings::trigger::{Address, Proof};
use crate::settings::word::{self, KeyPlace};

/// The header field most senders of webhooks can set.
const KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

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
        list: &[Table<RouteTable>],
        identities: &[IdentitySettings],
        identity_names: &mut Names,
        caller_names: &mut Names,
    ) -> Vec<RouteSettings> {
        let route_names = Names::new("route", true);
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

    fn route(&mut self, route: &Table<RouteTable>, known: &mut Known<'_>) -> Option<RouteSettings> {
        let name = self.name(
            route,
            route.name.as_ref(),
            &mut known.route_names,
            RouteName::parse,
        );
        let hint = "write for example path = \"/orders\"";
        let path = route.require(("path", &route.path), hint, &mut self.findings);
        let methods = self.methods(route);
        let callers = self.callers_of(route, known.caller_names);
        let networks = self.networks(&NetworkKeys {
            allow: route.networks.as_ref(),
            allow_file: route.networks_file.as_ref(),
            deny: &route.deny_networks,
            deny_file: route.deny_networks_file.as_ref(),
        });
        let key_places = self.key_places(route);
        let content = self.content(&content_keys(route));
        let cors_origins = self.cors_origins(route);
        let success = self.success_answer(route.answer.as_ref());
        let handshakes = self.handshakes(route, &methods);
        let proof = self.proof(route, known.identity_names);
        let end = path.map(|path| path.end());
        let (trigger, kind, relative_path) = self.behind(route, proof.as_ref(), known.identities, end);
        let waiting = self.waiting(route, kind.as_ref());
        let object_ids = self.object_ids(route);
        let query = self.query(route);
        let upstream = self.upstream(route);
        let duplicates = self.duplicates(route.duplicates.as_ref());
        let (trigger, trigger_source) = trigger.unzip();
        let probe = self.probe(route, kind.as_ref(), &methods, trigger.as_ref());
        let path = path?;
        if route.is_reported("host") {
            return None;
        }
        self.place(route, path, &[&methods[..], &handshakes.unlisted].concat(), known);
        Some(RouteSettings {
            name: name?,
            enabled: route.enabled,
            host: route.host.clone(),
            public_url: public_url(route),
            path: (**path).clone(),
            methods,
            callers: callers?,
            networks,
            key_places,
            cors_origins,
            success,
            waiting,
            answer_within: route.answer.as_ref().and_then(|answer| answer.within),
            contact: route.contact.clone(),
            handshakes,
            checks: route.checks,
            rate: Some(route.rate),
            body_bytes_max: route.body_size_max.as_u64(),
            content,
            kind: kind?,
            proof: proof?,
            object_ids,
            on_claim_mismatch: route.on_claim_mismatch,
            trigger: trigger?,
            trigger_source: trigger_source?,
            relative_path,
            query,
            probe,
            upstream,
            duplicates,
        })
    }

    /// The largest body of a route that holds all of them must fit into the budget.
    pub(super) fn whole_bodies(&mut self, routes: &[Table<RouteTable>], bodies: &BodySettings) {
        for route in routes {
            let is_too_large = route.body_size_max > bodies.held_budget;
            if let Some(table) = route.duplicates.as_ref().filter(|_| is_too_large) {
                let what = "bodies are held whole to recognize duplicates, and `body_size_max` of the route is larger \
                            than `held_budget` of [bodies]";
                self.findings.mistake(table, Flaw::new(what));
            }
        }
    }

    /// The target of a route: its address, its kind, and what happens to the rest of the path.
    fn behind(
        &mut self,
        route: &Table<RouteTable>,
        proof: Option<&Proof>,
        identities: &[IdentitySettings],
        end: Option<PathEnd>,
    ) -> (Option<Address>, Option<RouteKind>, RelativePath) {
        match route.kind {
            RouteKindWord::Api => {
                let upstream = self.api(route, proof, identities).map(|url| (url, None));
                let paths = self.api_paths(route, end);
                (upstream, paths.map(RouteKind::Api), RelativePath::Appended)
            }
            RouteKindWord::Flow => {
                self.without_api(route);
                let trigger = self.trigger_of(route, proof, identities);
                (trigger, Some(RouteKind::Flow), self.relative_path(route, end))
            }
        }
    }

    /// Adds the route to the others, and reports the one it conflicts with.
    fn place(
        &mut self,
        route: &Table<RouteTable>,
        path: &At<PathTemplate>,
        methods: &[Method],
        known: &mut Known<'_>,
    ) {
        let name = route.name.as_ref().map_or("", |name| name.as_str());
        let Err(rival) = known
            .paths
            .add(route.host.as_deref(), path, methods, name, path.into())
        else {
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
    fn methods(&mut self, route: &RouteTable) -> Vec<Method> {
        let Some(values) = &route.methods else {
            return vec![Method::POST];
        };
        if values.is_empty() {
            self.findings.mistake(
                values,
                Flaw::new("no method is listed, so nothing could be called"),
            );
        }
        let methods = values.iter().map(|value| (value.into(), (**value).clone()));
        self.each_once(methods, |method| format!("{method} is listed twice"))
    }

    /// Values of a list; one that repeats another is reported.
    pub(super) fn each_once<T: PartialEq>(
        &mut self,
        values: impl IntoIterator<Item = (Mark, T)>,
        twice: impl Fn(&T) -> String,
    ) -> Vec<T> {
        let mut once = Vec::new();
        for (mark, value) in values {
            if once.contains(&value) {
                self.findings.mistake(mark, Flaw::new(twice(&value)));
            } else {
                once.push(value);
            }
        }
        once
    }

    fn callers_of(&mut self, route: &Table<RouteTable>, names: &mut Names) -> Option<CallersSettings> {
        let open = route.place("anonymous").filter(|_| route.anonymous);
        match (&route.callers, open) {
            (Some(callers), Some(open)) => {
                let flaw = Flaw::new("a route either lists its callers or is open to everybody");
                self.findings
                    .clash(open, flaw, callers, "callers are listed here");
                None
            }
            (None, Some(_)) => Some(CallersSettings::Anonymous),
            (None, None) => {
                if !route.is_reported("callers") && !route.is_reported("anonymous") {
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
                let known = values
                    .iter()
                    .filter(|value| names.use_of(value, &mut self.findings))
                    .filter_map(|value| Some((value.into(), CallerName::parse(value).ok()?)));
                let known: Vec<_> = known.collect();
                let callers = self.each_once(known, |name| format!("the caller \"{name}\" is listed twice"));
                Some(CallersSettings::Named(callers))
            }
        }
    }

    fn key_places(&mut self, route: &RouteTable) -> Vec<KeyPlace> {
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
        let places = values.iter().map(|value| (value.into(), (**value).clone()));
        self.each_once(places, |_| "the place is listed twice".to_owned())
    }

    fn proof(&mut self, route: &Table<RouteTable>, names: &mut Names) -> Option<Proof> {
        let signed = route.place("signed").filter(|_| route.signed);
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
                if !route.is_reported("identity") && !route.is_reported("signed") {
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
        route: &Table<RouteTable>,
        proof: Option<&Proof>,
        identities: &[IdentitySettings],
    ) -> Option<Address> {
        let hint = "copy the address from the trigger of the flow";
        let value = route.require(("trigger", &route.trigger), hint, &mut self.findings)?;
        self.trigger(value, proof, identities)
    }

    /// The object ids on the trigger's list; they are compared with a token's, so a route without one has none.
    fn object_ids(&mut self, route: &RouteTable) -> Vec<String> {
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
            if is_guid(value) {
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

    fn relative_path(&mut self, route: &Table<RouteTable>, end: Option<PathEnd>) -> RelativePath {
        let asked = route
            .place("relative_path")
            .filter(|_| route.relative_path == RelativePath::Appended);
        if let Some(value) = asked.filter(|_| end == Some(PathEnd::Fixed)) {
            let flaw = Flaw::new("`relative_path` needs a path that ends in {*rest}");
            let hint = "write for example path = \"/orders/{*rest}\"";
            match &route.path {
                Some(path) => self.findings.clash(value, flaw.hint(hint), path, "this path"),
                None => self.findings.mistake(value, flaw.hint(hint)),
            }
        }
        route.relative_path
    }

    fn query(&mut self, route: &RouteTable) -> QueryPass {
        let is_api = route.kind == RouteKindWord::Api;
        let Some(values) = &route.query else {
            return if is_api { QueryPass::All } else { QueryPass::None };
        };
        let all = values.iter().find(|value| value.as_str() == "*");
        if let Some(all) = all {
            if values.len() > 1 {
                self.findings.mistake(
                    all,
                    Flaw::new("\"*\" passes every parameter on, so it must be the only entry"),
                );
            }
            return QueryPass::All;
        }
        let read = values.iter().filter_map(|value| {
            let name = self.findings.keep(value, word::read_parameter(value, is_api))?;
            Some((value.into(), name))
        });
        let read: Vec<_> = read.collect();
        let names = self.each_once(read, |name| format!("\"{name}\" is listed twice"));
        if names.is_empty() {
            return QueryPass::None;
        }
        QueryPass::Named(names)
    }

    fn upstream(&mut self, route: &RouteTable) -> UpstreamSettings {
        UpstreamSettings {
            trust: self.trust(route.ca_file.as_ref()),
            connect_to: route.connect_to,
            in_flight_max: route.in_flight_max,
            waiting_max: route.waiting_max,
            waiting_timeout: route.waiting_timeout,
            connect_timeout: route.connect_timeout,
            response_timeout: route.response_timeout,
            idle_timeout: route.upstream_idle_timeout,
        }
    }
}

fn content_keys(route: &RouteTable) -> ContentKeys<'_> {
    ContentKeys {
        types: route.content_types.as_ref(),
        replacement: route.content_type_as.as_ref(),
        schema: route.json_schema.as_ref(),
        depth_max: route.json_depth_max,
        drop_nulls: route.drop_nulls,
        form_to_json: route.form_to_json,
    }
}

/// Scheme and host under which callers know a route, where the settings say that.
fn public_url(route: &RouteTable) -> Option<PublicUrl> {
    let of_host = || route.host.as_ref().map(PublicUrl::of_host);
    route.public_url.clone().or_else(of_host)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::settings::sample::{Sample, TRIGGER};
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
            assert_eq!(mistakes, ["the value is too large; it must be at most 100 MiB"]);
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
