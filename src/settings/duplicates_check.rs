//! Checks that the callers of a route have the ids by which its duplicates are recognized.

use std::collections::HashMap;

use crate::model::Flaw;
use crate::model::signature::Recipe;
use crate::settings::check::Check;
use crate::settings::duplicates::DuplicatesTable;
use crate::settings::route::RouteTable;
use crate::settings::table::Table;
use crate::settings::{CallerSettings, CallersSettings, DeliveryId, RouteSettings, WithoutId};

impl Check<'_> {
    /// Ids of signatures, where a route recognizes duplicates by them: its callers must have some.
    pub(super) fn signed_ids(
        &mut self,
        tables: &[Table<RouteTable>],
        routes: &[RouteSettings],
        callers: &[CallerSettings],
    ) {
        let asks = |route: &&RouteSettings| {
            let rules = route.duplicates.as_ref();
            rules.is_some_and(|rules| rules.by == DeliveryId::Delivery)
        };
        let asking: Vec<_> = routes.iter().filter(asks).collect();
        if asking.is_empty() {
            return;
        }
        let callers: HashMap<_, _> = callers.iter().map(|caller| (&caller.name, caller)).collect();
        for route in asking {
            let is_its = |table: &&Table<RouteTable>| {
                table.name.as_ref().map(|name| name.as_str()) == Some(route.name.as_str())
            };
            let table = tables.iter().find(is_its);
            let Some(table) = table.and_then(|table| table.duplicates.as_ref()) else {
                continue;
            };
            let names = match &route.callers {
                CallersSettings::Named(names) => names.as_slice(),
                CallersSettings::Anonymous => &[],
            };
            let listed: Vec<_> = names
                .iter()
                .filter_map(|name| callers.get(name).copied())
                .collect();
            // A caller with a mistake may have one.
            if listed.len() == names.len() {
                self.ids_of(table, &listed);
            }
        }
    }

    fn ids_of(&mut self, table: &Table<DuplicatesTable>, callers: &[&CallerSettings]) {
        let mark = table.place("by").unwrap_or(table.into());
        let has_id = |caller: &CallerSettings| recipe_of(caller).is_some_and(|recipe| recipe.id.is_some());
        if !callers.iter().any(|caller| has_id(caller)) {
            let what = "no caller of the route has a signature with an id of the delivery, so nothing could be recognized by it";
            let hint = "write another place, such as by = \"body\", or give `id` in the [caller.signature] of its callers";
            self.findings.mistake(mark, Flaw::new(what).hint(hint));
            return;
        }
        if let Some(caller) = callers.iter().find(|caller| !has_id(caller)) {
            let becomes = match table.without_id {
                WithoutId::Refuse => "every request of it is refused",
                WithoutId::Pass => "each of its deliveries starts a run of its own",
            };
            let flaw = Flaw::new(format!(
                "the caller \"{}\" has no signature with an id of the delivery: {becomes}",
                caller.name
            ));
            let hint = "give it a route of its own with another `by`, or `id` in its [caller.signature]";
            self.findings.warn(mark, flaw.hint(hint));
        }
        let is_open = |caller: &&&CallerSettings| {
            recipe_of(caller).is_some_and(|recipe| recipe.id.is_some() && !recipe.covers_id())
        };
        if let Some(caller) = callers.iter().find(is_open) {
            let flaw = Flaw::new(format!(
                "the signature of the caller \"{}\" does not cover the id of the delivery: someone who has read a delivery \
                 can send it again with another id, and it starts another run",
                caller.name
            ));
            let hint = "if no two of its deliveries have the same body, write by = \"body\"";
            self.findings.warn(mark, flaw.hint(hint));
        }
    }
}

fn recipe_of(caller: &CallerSettings) -> Option<&Recipe> {
    caller.signature.as_ref().map(|signature| &*signature.recipe)
}

#[cfg(test)]
mod tests {
    use crate::settings::sample::{Sample, TRIGGER};

    fn sample(lines: &str) -> Sample {
        let route = format!(
            "name = \"a\"\npath = \"/a\"\nanonymous = true\nidentity = \"contoso\"\ntrigger = \"{TRIGGER}\"\n{lines}"
        );
        Sample::default().with("route", &route)
    }

    /// A route by the ids of these presets, each of them one of its callers.
    fn signed(presets: &[&str], lines: &str) -> Sample {
        let caller = |preset: &&str| {
            format!(
                "name = \"{preset}\"\n[caller.signature]\npreset = \"{preset}\"\nsecret = \"env:SECRET\"\n"
            )
        };
        let callers: Vec<_> = presets.iter().map(caller).collect();
        sample(&format!("[route.duplicates]\nby = \"delivery\"\n{lines}"))
            .with("caller", &callers.join("[[caller]]\n"))
            .replace("anonymous = true", &format!("callers = {presets:?}"))
    }

    #[test]
    fn ids_of_signatures_are_those_of_the_callers() {
        const NONE: &str = "no caller of the route has a signature with an id of the delivery, so nothing could be recognized by it";
        let open = sample("[route.duplicates]\nby = \"delivery\"");
        assert_eq!(open.mistakes(), [NONE]);
        for lines in ["", "without_id = \"pass\""] {
            assert_eq!(signed(&["x"], lines).mistakes(), [NONE]);
        }
        assert!(
            signed(&["x"], "")
                .replace("\"delivery\"", "\"body\"")
                .warnings()
                .is_empty()
        );
        for (lines, becomes) in [
            ("", "every request of it is refused"),
            (
                "without_id = \"pass\"",
                "each of its deliveries starts a run of its own",
            ),
        ] {
            assert_eq!(
                signed(&["stripe", "x"], lines).warnings(),
                [format!(
                    "the caller \"x\" has no signature with an id of the delivery: {becomes}"
                )]
            );
        }
    }

    #[test]
    fn an_id_that_nobody_signed_is_warned_of() {
        for (preset, is_signed) in [
            ("github", false),
            ("gitlab-token", false),
            ("slack", true),
            ("stripe", true),
            ("twitch", true),
        ] {
            let warnings = signed(&[preset], "").warnings();
            let open = |warning: &String| warning.contains("does not cover the id of the delivery");
            assert_eq!(!warnings.iter().any(open), is_signed, "{preset}: {warnings:?}");
        }
    }
}
