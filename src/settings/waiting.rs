//! Checks what routes say about waiting for the results of runs, and that addresses of runs can be sealed and reached.

use crate::model::Flaw;
use crate::settings::SecretSource;
use crate::settings::answer::{FIXED, RUNS, RunCredential, WaitSettings};
use crate::settings::caller::KeysTable;
use crate::settings::check::Check;
use crate::settings::findings::Mark;
use crate::settings::identity::sign_in::check_seal;
use crate::settings::route::{RouteKind, RouteTable};
use crate::settings::table::Table;

/// Secrets that seal addresses of runs: every address is tried with all of them.
const RUN_SEALS_MAX: usize = 4;

impl Check<'_> {
    /// The secrets that seal addresses of runs; the first seals.
    pub(super) fn run_seals(&mut self, table: &KeysTable) -> Vec<SecretSource> {
        let seals = table.run_addresses.iter().filter_map(|value| {
            let seal = self.secret_at_start("run_addresses", value)?;
            if let Some(known) = seal.known() {
                let checked = check_seal(known)
                    .map_err(|what| Flaw::new(what).hint("make one with: openssl rand -base64 32"));
                self.findings.keep(value, checked)?;
            }
            Some(seal)
        });
        let seals: Vec<_> = seals.collect();
        if let Some(more) = table.run_addresses.get(RUN_SEALS_MAX) {
            let flaw = Flaw::new(format!("at most {RUN_SEALS_MAX} secrets open addresses of runs"));
            self.findings.mistake(more, flaw);
        }
        seals
    }

    pub(super) fn waiting(&mut self, route: &RouteTable, kind: Option<&RouteKind>) -> Option<WaitSettings> {
        let table = route.answer.as_ref()?;
        let Some(wait) = &table.wait else {
            let alone = ["run_expires", "run_credential"];
            if let Some(place) = alone.iter().find_map(|key| table.place(key))
                && !table.is_reported("wait")
            {
                self.findings
                    .mistake(place, Flaw::new("this goes with `wait` only"));
            }
            return None;
        };
        if let Some(RouteKind::Api(_)) = kind {
            let flaw = Flaw::new("an API has no runs whose result could be waited for");
            self.findings.mistake(wait, flaw);
        }
        if let Some(fixed) = FIXED.iter().find_map(|key| table.place(key)) {
            let flaw =
                Flaw::new("a fixed answer takes the place of every result, so there is nothing to wait for");
            self.findings.clash(wait, flaw, fixed, "the answer");
        }
        if let Some(place) = table
            .place("run_credential")
            .filter(|_| route.anonymous && table.run_credential)
        {
            let flaw = Flaw::new("a route that is open to everybody has no callers with credentials");
            self.findings.mistake(place, flaw);
        }
        Some(WaitSettings {
            time: **wait,
            expires: table.run_expires,
            credential: match table.run_credential {
                true => RunCredential::OfCaller,
                false => RunCredential::Nothing,
            },
        })
    }

    /// What addresses of runs need beside their routes: a secret, and a path that no route has.
    pub(super) fn run_addresses(&mut self, keys: &Table<KeysTable>, routes: &[Table<RouteTable>]) {
        let waits = |route: &Table<RouteTable>| Some(Mark::from(route.answer.as_ref()?.wait.as_ref()?));
        let Some(wait) = routes.iter().find_map(waits) else {
            return;
        };
        if keys.run_addresses.is_empty() && !keys.is_reported("run_addresses") {
            let flaw = Flaw::new("`wait` needs a secret that seals the addresses of runs");
            let hint = "name its place in [keys]: run_addresses = [\"env:NAME\"]; make one with: openssl rand -base64 32";
            self.findings.mistake(wait, flaw.hint(hint));
        }
        let first = |path: &str| path.split('/').nth(1) == RUNS.split('/').nth(1);
        for path in routes.iter().filter_map(|route| route.path.as_ref()) {
            if first(path) {
                let flaw = Flaw::new(format!("addresses of runs begin with {RUNS}, so no route may"));
                self.findings.clash(path, flaw, wait, "they are asked for here");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::settings::answer::{RunCredential, WaitSettings};
    use crate::settings::sample::{Sample, TRIGGER};

    const SEAL: &str = "run_addresses = [\"env:SEAL\"]";

    fn sample(path: &str, answer: &str) -> Sample {
        let route = format!(
            "name = \"a\"\npath = \"{path}\"\nanonymous = true\nidentity = \"contoso\"\ntrigger = \"{TRIGGER}\"\n\
             [route.answer]\n{answer}\n"
        );
        let sample = Sample::default().with("route", &route).with("keys", SEAL);
        sample.variable("SEAL", "canary-seal-of-20-bytes")
    }

    #[test]
    fn results_are_waited_for_where_the_route_says_so() {
        let waiting = |answer: &str| sample("/a", answer).config().routes.remove(0).waiting;
        assert_eq!(waiting("accepted = \"ok\""), None);
        let day = Duration::from_secs(86_400);
        let expected = |time: u64, expires: Duration| WaitSettings {
            time: Duration::from_secs(time),
            expires,
            credential: RunCredential::Nothing,
        };
        assert_eq!(waiting("wait = \"0s\""), Some(expected(0, day)));
        let hour = Duration::from_secs(3600);
        assert_eq!(
            waiting("wait = \"60s\"\nrun_expires = \"1h\""),
            Some(expected(60, hour))
        );
    }

    #[test]
    fn what_cannot_be_waited_for_is_a_mistake() {
        for (path, answer, mistake) in [
            ("/a", "run_expires = \"1h\"", "this goes with `wait` only"),
            ("/a", "run_credential = true", "this goes with `wait` only"),
            (
                "/a",
                "wait = \"1s\"\nstatus = 200",
                "a fixed answer takes the place of every result, so there is nothing to wait for",
            ),
            (
                "/a",
                "wait = \"1s\"\nrun_credential = true",
                "a route that is open to everybody has no callers with credentials",
            ),
            (
                "/.flowgate/a",
                "wait = \"1s\"",
                "addresses of runs begin with /.flowgate/runs/, so no route may",
            ),
            (
                "/a",
                "wait = \"2h\"",
                "the value is too large; it must be at most 1h",
            ),
        ] {
            assert_eq!(sample(path, answer).mistakes(), [mistake], "{answer}");
        }
    }

    #[test]
    fn addresses_of_runs_need_a_secret_that_cannot_be_guessed() {
        let wait = || sample("/a", "wait = \"1s\"");
        assert_eq!(
            wait().with("keys", "").mistakes(),
            ["`wait` needs a secret that seals the addresses of runs"]
        );
        let short = wait().variable("SEAL", "short").mistakes();
        assert_eq!(short, ["the seal has fewer than 16 bytes and could be guessed"]);
        let inline = wait().with("keys", "run_addresses = [\"canary-plain-text\"]");
        assert!(!inline.report().contains("canary"), "{}", inline.report());
        let five = format!("run_addresses = [{}]", ["\"env:SEAL\""; 5].join(", "));
        assert_eq!(
            wait().with("keys", &five).mistakes(),
            ["at most 4 secrets open addresses of runs"]
        );
        // Nothing is reserved where nobody waits.
        assert!(sample("/.flowgate/a", "accepted = \"ok\"").mistakes().is_empty());
    }
}
