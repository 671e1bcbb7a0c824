//! Checks what a route says about handshakes, and that its callers and limits fit.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use crate::model::Flaw;
use crate::model::handshake::{Handshake, Requires, Stage};
use crate::model::signature::{Algorithm, Recipe};
use crate::settings::check::Check;
use crate::settings::handshake::{HandshakeSettings, Reached};
use crate::settings::route::RouteTable;
use crate::settings::signature::UNKNOWN_PART;
use crate::settings::table::Table;
use crate::settings::{CallerSettings, CallersSettings, RouteSettings, SecretSource};

/// Whether there is a state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatePlace {
    Folder,
    None,
}

impl Check<'_> {
    pub(super) fn handshakes(&mut self, route: &Table<RouteTable>, methods: &[Method]) -> HandshakeSettings {
        let listed = route.handshakes.iter().map(|value| (value.into(), **value));
        let vendors = self.each_once(listed, |vendor| format!("\"{}\" is listed twice", vendor.name()));
        let tested = route.reachable.iter().map(|value| (value.into(), **value));
        let tested = self.each_once(tested, |_| "the method is listed twice".to_owned());
        let reachable = tested.into_iter().map(|method| match method {
            Reached::Get => Method::GET,
            Reached::Head => Method::HEAD,
        });
        let reachable: Vec<_> = reachable.collect();
        if let Some(method) = reachable.iter().find(|method| methods.contains(method)) {
            let flaw = Flaw::new(format!(
                "{method} is one of the `methods` of the route, so it starts the flow"
            ));
            let hint = "remove it here or there";
            self.findings
                .mistake(route.place("reachable").unwrap_or(route.into()), flaw.hint(hint));
        }
        let rows = || vendors.iter().flat_map(|vendor| Handshake::of(*vendor));
        // Those by the head alone may come with any, but where deliveries follow with the same.
        let is_listed = |row: &&Handshake| {
            let is_alone = row.stage() == Stage::Head && !matches!(row.requires, Requires::Enrolment(_));
            is_alone || methods.contains(&row.method)
        };
        for row in rows().filter(|row| !is_listed(row)) {
            let flaw = Flaw::new(format!(
                "the handshake of \"{}\" comes with {}, which the route does not accept",
                row.vendor.name(),
                row.method
            ));
            self.findings.mistake(
                route.place("handshakes").unwrap_or(route.into()),
                flaw.hint("add it to `methods`"),
            );
        }
        let mut unlisted: Vec<Method> = Vec::new();
        let asked = rows()
            .filter(|row| row.stage() == Stage::Head)
            .map(|row| &row.method);
        for method in asked.chain(&reachable) {
            if !methods.contains(method) && !unlisted.contains(method) {
                unlisted.push(method.clone());
            }
        }
        let needs_word = rows().any(|row| matches!(row.requires, Requires::VerifyToken(_)));
        let word = self.verify_token(route, needs_word);
        HandshakeSettings {
            verify_token_from: word.as_ref().map(SecretSource::place),
            verify_token: word.and_then(|word| word.known().cloned()),
            vendors,
            reachable,
            unlisted,
        }
    }

    fn verify_token(&mut self, route: &Table<RouteTable>, is_needed: bool) -> Option<SecretSource> {
        match &route.verify_token {
            None if is_needed => {
                let hint = "name its place: verify_token = \"env:NAME\"; it is what you enter at Meta";
                route.missing("verify_token", hint, &mut self.findings);
                None
            }
            None => None,
            Some(value) if !is_needed && !route.is_reported("handshakes") => {
                let flaw = Flaw::new("`verify_token` goes with the handshake \"meta\" only");
                self.findings.mistake(value, flaw);
                None
            }
            Some(value) => self.secret_at_start("verify_token", value),
        }
    }

    /// What handshakes need beside the route itself: secrets of its callers, and room for bodies that may be a challenge.
    pub(super) fn handshakes_of_routes(
        &mut self,
        tables: &[Table<RouteTable>],
        routes: &[RouteSettings],
        callers: &[CallerSettings],
        (held_budget, state): (u64, StatePlace),
    ) {
        let asks = |route: &&RouteSettings| !route.handshakes.vendors.is_empty();
        let asking: Vec<_> = routes.iter().filter(asks).collect();
        if asking.is_empty() {
            return;
        }
        let tables: HashMap<_, _> = tables
            .iter()
            .filter_map(|table| Some((table.name.as_ref()?.as_str(), table)))
            .collect();
        let callers: HashMap<_, _> = callers.iter().map(|caller| (&caller.name, caller)).collect();
        for route in asking {
            let Some(table) = tables.get(route.name.as_str()) else {
                continue;
            };
            let rows = || {
                let vendors = route.handshakes.vendors.iter();
                vendors.flat_map(|vendor| Handshake::of(*vendor))
            };
            let room = held_budget / UNKNOWN_PART;
            if let Some(row) = rows().find(|row| row.stage() == Stage::Body)
                && route.body_bytes_max > room
            {
                let flaw = Flaw::new(format!(
                    "bodies that may be a handshake of \"{}\" are held before their caller is known, in an eighth of \
                     `bodies.held_budget`, which is {room} bytes; the route accepts {}",
                    row.vendor.name(),
                    route.body_bytes_max
                ));
                let hint = "lower `body_size_max` of the route, or raise `held_budget`";
                self.findings.mistake(
                    table.place("body_size_max").unwrap_or((*table).into()),
                    flaw.hint(hint),
                );
            }
            let listed = match &route.callers {
                CallersSettings::Named(names) => names.as_slice(),
                CallersSettings::Anonymous => &[],
            };
            let signatures = listed
                .iter()
                .filter_map(|name| callers.get(name)?.signature.as_ref());
            let recipes: Vec<_> = signatures.map(|signature| &signature.recipe).collect();
            self.signers_of_handshakes((table, route), &recipes, state);
        }
    }

    fn signers_of_handshakes(
        &mut self,
        (table, route): (&Table<RouteTable>, &RouteSettings),
        recipes: &[&Arc<Recipe>],
        state: StatePlace,
    ) {
        let rows = route
            .handshakes
            .vendors
            .iter()
            .flat_map(|vendor| Handshake::of(*vendor));
        let mut unsigned = None;
        for (row, place) in rows.filter_map(|row| Some((row, row.signed_in()?))) {
            let fits = recipes.iter().any(|recipe| {
                let makes = !row.has_hmac() || recipe.algorithm == Algorithm::HmacSha256;
                makes && recipe.signature.contains(place)
            });
            let signing = recipes.iter().filter(|recipe| recipe.signature.contains(place));
            let is_enrolment = matches!(row.requires, Requires::Enrolment(_));
            let is_of_one = is_enrolment || matches!(row.requires, Requires::Secret(_));
            let is_one_of_several = is_of_one && signing.count() > 1;
            let is_kept = state == StatePlace::Folder || !is_enrolment;
            let name = row.vendor.name();
            let flaw = match (fits, is_one_of_several) {
                (true, false) if is_kept => continue,
                (true, false) => Flaw::new(format!(
                    "\"{name}\" sends a secret once, and there is no state folder to keep it in"
                ))
                .hint("set `folder` of [state]"),
                (true, true) => Flaw::new(format!(
                    "several callers of the route sign in {place}, and a challenge of \"{name}\" does not say which of \
                     them it is for: all but one would get a wrong answer"
                ))
                .hint("give each of them a route of its own"),
                // Once for all rows of a vendor.
                (false, _) if unsigned.replace(row.vendor) == Some(row.vendor) => continue,
                (false, _) => Flaw::new(format!(
                    "the handshake of \"{name}\" needs a caller of the route that signs in {place}"
                ))
                .hint(format!(
                    "list a caller in `callers` whose [caller.signature] has preset = \"{name}\""
                )),
            };
            let mark = table.place("handshakes").unwrap_or(table.into());
            self.findings.mistake(mark, flaw);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use crate::model::handshake::Vendor;
    use crate::settings::sample::{Sample, TRIGGER};

    /// One route with these lines, whose caller signs as Slack does.
    fn sample(lines: &str) -> Sample {
        let slack = "name = \"slack\"\n[caller.signature]\npreset = \"slack\"\nsecret = \"env:SECRET\"";
        Sample::default().with("caller", slack).with(
            "route",
            &format!(
                "name = \"a\"\npath = \"/a\"\ncallers = [\"slack\"]\nidentity = \"contoso\"\n\
                 trigger = \"{TRIGGER}\"\n{lines}"
            ),
        )
    }

    #[test]
    fn a_route_answers_the_vendors_that_it_lists_and_no_other() {
        let config = sample("handshakes = [\"slack\", \"dropbox\"]\nreachable = [\"HEAD\"]").config();
        let handshakes = &config.routes[0].handshakes;
        assert_eq!(handshakes.vendors, [Vendor::Slack, Vendor::Dropbox]);
        assert_eq!(handshakes.unlisted, [Method::GET, Method::HEAD]);
        let none = sample("").config();
        assert!(
            none.routes[0].handshakes.vendors.is_empty() && none.routes[0].handshakes.unlisted.is_empty()
        );
    }

    #[test]
    fn what_a_handshake_needs_is_asked_for() {
        for (lines, flaw) in [
            (
                "handshakes = [\"slak\"]",
                "the handshake of this vendor is not known",
            ),
            ("handshakes = [\"slack\", \"slack\"]", "\"slack\" is listed twice"),
            (
                "handshakes = [\"zoom\"]",
                "the handshake of \"zoom\" needs a caller of the route that signs in header:x-zm-signature",
            ),
            (
                "handshakes = [\"x\"]",
                "the handshake of \"x\" needs a caller of the route that signs in header:x-twitter-webhooks-signature",
            ),
            (
                "handshakes = [\"sns\"]",
                "the handshake of \"sns\" needs a caller of the route that signs in body:/Signature",
            ),
            ("handshakes = [\"meta\"]", "`verify_token` is missing"),
            (
                "handshakes = [\"slack\"]\nverify_token = \"env:SECRET\"",
                "`verify_token` goes with the handshake \"meta\" only",
            ),
            (
                "handshakes = [\"slack\"]\nmethods = [\"PUT\"]",
                "the handshake of \"slack\" comes with POST, which the route does not accept",
            ),
            (
                "reachable = [\"GET\"]\nmethods = [\"GET\"]",
                "GET is one of the `methods` of the route, so it starts the flow",
            ),
            ("reachable = [\"POST\"]", "unknown value"),
        ] {
            assert_eq!(sample(lines).mistakes(), [flaw], "{lines}");
        }
        let inline = sample("handshakes = [\"meta\"]\nverify_token = \"canary-word\"").report();
        assert!(!inline.contains("canary-word"), "{inline}");
    }

    #[test]
    fn a_challenge_that_is_answered_with_a_secret_is_for_one_caller() {
        let several = |preset: &str| {
            let caller = |name: &str| {
                format!(
                    "name = \"{name}\"\n[caller.signature]\npreset = \"{preset}\"\nsecret = \"env:SECRET\"\n"
                )
            };
            sample(&format!("handshakes = [\"{preset}\"]"))
                .with(
                    "caller",
                    &format!("{}[[caller]]\n{}", caller("one"), caller("two")),
                )
                .replace("callers = [\"slack\"]", "callers = [\"one\", \"two\"]")
        };
        assert_eq!(
            several("x").mistakes(),
            [
                "several callers of the route sign in header:x-twitter-webhooks-signature, and a challenge of \"x\" does not say \
                 which of them it is for: all but one would get a wrong answer"
            ]
        );
        assert!(
            several("x")
                .replace("\"one\", \"two\"", "\"one\"")
                .mistakes()
                .is_empty()
        );
        // Their signatures say whose challenge it is.
        assert!(several("zoom").mistakes().is_empty());
    }

    #[test]
    fn a_secret_that_a_vendor_sends_has_one_owner_and_a_place() {
        let asana = |more: &str| {
            let caller = "name = \"board\"\n[caller.signature]\npreset = \"asana\"\n[[caller]]\n";
            let sample = sample(&format!("handshakes = [\"asana\"]\n{more}"));
            sample
                .replace("name = \"slack\"", &format!("{caller}name = \"slack\""))
                .replace("callers = [\"slack\"]", "callers = [\"slack\", \"board\"]")
        };
        let state = "[state]\nfolder = \"state\"";
        let config = asana(state).config();
        let signature = config.callers[0].signature.as_ref().unwrap();
        assert!(signature.secrets.is_empty());
        assert_eq!(
            asana("").mistakes(),
            ["\"asana\" sends a secret once, and there is no state folder to keep it in"]
        );
        let two = asana(state)
            .replace("preset = \"slack\"", "preset = \"asana\"")
            .mistakes();
        assert_eq!(
            two,
            [
                "several callers of the route sign in header:x-hook-signature, and a challenge of \"asana\" does not say which \
                 of them it is for: all but one would get a wrong answer"
            ]
        );
    }

    #[test]
    fn bodies_that_may_be_a_challenge_have_room() {
        let large = sample("handshakes = [\"slack\", \"monday\"]\nbody_size_max = \"9 MiB\"");
        let mistakes = large.mistakes();
        assert!(
            mistakes
                .iter()
                .any(|mistake| mistake.contains("a handshake of \"monday\"")),
            "{mistakes:?}"
        );
    }

    #[test]
    fn one_challenge_is_for_one_route() {
        let second = format!(
            "handshakes = [\"dropbox\"]\n[[route]]\nname = \"b\"\npath = \"/a\"\nanonymous = true\n\
             methods = [\"GET\"]\nidentity = \"contoso\"\ntrigger = \"{TRIGGER}\""
        );
        let report = sample(&second).report();
        assert!(report.contains("both answer GET"), "{report}");
    }
}
