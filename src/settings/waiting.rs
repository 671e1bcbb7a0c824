//! Checks what routes say about waiting for the results of runs, and that addresses of runs can be sealed and reached.

use crate::model::Flaw;
use crate::settings::answer::{FIXED, RUNS, RunCredential, WaitSettings};
use crate::settings::caller::KeysTable;
use crate::settings::check::Check;
use crate::settings::findings::Mark;
use crate::settings::identity::sign_in::check_seal;
use crate::settings::route::{RouteKind, RouteTable};
use crate::settings::table::Table;
use crate::settings::{CallerSettings, CallersSettings, KeyPlace, RouteSettings, SecretSource};

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
        if route.waiting_max == 0 && !wait.is_zero() {
            let flaw = Flaw::new("`waiting_max` is 0, so no request waits: callers get the address at once");
            let hint = "give `waiting_max` a number, or write wait = \"0s\"";
            self.findings.warn(wait, flaw.hint(hint));
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

    /// What addresses of runs need beside their routes: a secret where some are made, and a path that no route has where there
    /// is one.
    pub(super) fn run_addresses(&mut self, keys: &Table<KeysTable>, routes: &[Table<RouteTable>]) {
        let waits = |route: &Table<RouteTable>| Some(Mark::from(route.answer.as_ref()?.wait.as_ref()?));
        let sealed = keys
            .place("run_addresses")
            .filter(|_| !keys.run_addresses.is_empty());
        if let Some(wait) = routes.iter().find_map(waits)
            && sealed.is_none()
            && !keys.is_reported("run_addresses")
        {
            let flaw = Flaw::new("`wait` needs a secret that seals the addresses of runs");
            let hint = "name its place in [keys]: run_addresses = [\"env:NAME\"]; make one with: openssl rand -base64 32";
            self.findings.mistake(wait, flaw.hint(hint));
        }
        let Some(sealed) = sealed else { return };
        for path in routes.iter().filter_map(|route| route.path.as_ref()) {
            if is_reserved(path) {
                let flaw = Flaw::new(format!("addresses of runs begin with {RUNS}, so no route may"))
                    .hint("choose another path, or remove `run_addresses` if no route has `wait`");
                self.findings
                    .clash(path, flaw, sealed, "they are opened with this");
            }
        }
    }

    /// Where addresses of runs demand credentials, callers must have some that they can present there.
    pub(super) fn run_credentials(
        &mut self,
        tables: &[Table<RouteTable>],
        routes: &[RouteSettings],
        callers: &[CallerSettings],
    ) {
        for route in routes {
            let waiting = route.waiting.as_ref();
            let CallersSettings::Named(names) = &route.callers else {
                continue;
            };
            if waiting.is_none_or(|waiting| waiting.credential == RunCredential::Nothing) {
                continue;
            }
            let is_its = |table: &&Table<RouteTable>| {
                table.name.as_ref().map(|name| name.as_str()) == Some(route.name.as_str())
            };
            let table = tables.iter().find(is_its).and_then(|table| table.answer.as_ref());
            let Some(mark) = table.and_then(|table| table.place("run_credential")) else {
                continue;
            };
            let is_listed = |caller: &&CallerSettings| names.contains(&caller.name);
            let listed: Vec<_> = callers.iter().filter(is_listed).collect();
            let unable = |caller: &&CallerSettings| !can_present(caller, &route.key_places);
            let Some(caller) = listed.iter().copied().find(unable) else {
                continue;
            };
            // A caller with a mistake may be able to.
            if listed.len() == names.len() && listed.iter().all(unable) {
                let what = "no caller of the route can present a credential at the address of a run: \
                            nothing is signed there, and its path has no {key}";
                let hint = "leave `run_credential` out, or list a caller that has a key or networks alone";
                self.findings.mistake(mark, Flaw::new(what).hint(hint));
                continue;
            }
            let flaw = Flaw::new(format!(
                "the caller \"{}\" has no credential for the address of a run, so it never gets a result there: \
                 nothing is signed there, and its path has no {{key}}",
                caller.name
            ));
            let hint = "give it a route of its own without `run_credential`";
            self.findings.warn(mark, flaw.hint(hint));
        }
    }
}

/// Whether a caller can identify itself with the head of a request whose path the route did not choose.
fn can_present(caller: &CallerSettings, places: &[KeyPlace]) -> bool {
    let reads = |place: &KeyPlace| *place != KeyPlace::Path && place.is_in_url() == caller.key_in_url;
    caller.signature.is_none() && (caller.keys.is_empty() || places.iter().any(reads))
}

/// Whether a route begins as addresses of runs do, whose answers would hide it. One with {variables} before that is hidden at
/// no other address than theirs.
fn is_reserved(template: &str) -> bool {
    let mut segments = template.split('/').skip(1);
    let [first, second] = [segments.next(), segments.next()];
    let mut reserved = RUNS.split('/').skip(1);
    let is_first = first == reserved.next();
    let is_second = second.is_some_and(|segment| segment.contains('{') || reserved.next() == Some(segment));
    let is_longer = segments.next().is_some() || second.is_some_and(|segment| segment.starts_with("{*"));
    is_first && is_second && is_longer
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
    }

    #[test]
    fn no_route_begins_as_addresses_of_runs_where_they_are_opened() {
        let hidden = "addresses of runs begin with /.flowgate/runs/, so no route may";
        for path in [
            "/.flowgate/runs/a",
            "/.flowgate/runs/a/b",
            "/.flowgate/runs/{id}",
            "/.flowgate/{a}/{b}",
            "/.flowgate/{*rest}",
        ] {
            // Also where no route waits any more, because addresses of before are answered.
            for answer in ["wait = \"1s\"", "accepted = \"ok\""] {
                assert_eq!(sample(path, answer).mistakes(), [hidden], "{path} {answer}");
            }
            let closed = sample(path, "accepted = \"ok\"").with("keys", "");
            assert!(closed.mistakes().is_empty(), "{path}");
        }
        for path in [
            "/.flowgate/a",
            "/.flowgate/runs",
            "/.flowgate/a/{b}",
            "/{a}/{b}/{c}",
            "/{*rest}",
        ] {
            assert!(sample(path, "wait = \"1s\"").mistakes().is_empty(), "{path}");
        }
    }

    #[test]
    fn without_a_place_to_wait_a_wait_is_worth_a_warning() {
        let warnings = |answer: &str| {
            sample("/a", answer)
                .replace("[route.answer]", "waiting_max = 0\n[route.answer]")
                .warnings()
        };
        assert_eq!(
            warnings("wait = \"1s\""),
            ["`waiting_max` is 0, so no request waits: callers get the address at once"]
        );
        assert!(warnings("wait = \"0s\"").is_empty());
    }

    #[test]
    fn callers_must_be_able_to_present_what_addresses_demand() {
        let key = "[[caller.key]]\nlabel = \"a\"\ndigest = \"sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\"\n";
        let signature = "[caller.signature]\npreset = \"github\"\nsecret = \"env:SECRET\"\n";
        let one = |lines: &str, route: &str, path: &str| {
            let caller = format!("name = \"one\"\n{lines}");
            sample(path, "wait = \"1s\"\nrun_credential = true")
                .with("caller", &caller)
                .replace("anonymous = true", &format!("callers = [\"one\"]\n{route}"))
        };
        let in_url = format!("key_in_url = true\n{key}");
        let both = format!("{key}{signature}");
        let mistake = "no caller of the route can present a credential at the address of a run: \
                       nothing is signed there, and its path has no {key}";
        for (lines, route, path, expected) in [
            (key, "", "/a", &[][..]),
            ("networks = [\"10.0.0.0/8\"]", "", "/a", &[]),
            (&in_url, "key_from = [\"query:code\"]", "/a", &[]),
            (&in_url, "key_from = [\"path\"]", "/a/{key}", &[mistake]),
            (signature, "", "/a", &[mistake]),
            (&both, "", "/a", &[mistake]),
        ] {
            assert_eq!(one(lines, route, path).mistakes(), expected, "{lines} {route}");
        }
        let two = format!("name = \"one\"\n{key}[[caller]]\nname = \"two\"\n{signature}");
        let mixed = one("", "", "/a")
            .with("caller", &two)
            .replace("[\"one\"]", "[\"one\", \"two\"]");
        assert!(mixed.mistakes().is_empty());
        let warned = mixed.warnings().concat();
        assert!(
            warned.contains("the caller \"two\" has no credential"),
            "{warned}"
        );
    }
}
