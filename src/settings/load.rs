//! Loads a settings file and checks it. Continues after a mistake, so that one run reports all of them, and returns settings
//! only if there was none.

use std::collections::HashMap;
use std::path::Path;

use crate::files;
use crate::settings::check::{Check, VaultUses};
use crate::settings::files::FileInForce;
use crate::settings::findings::Findings;
use crate::settings::fingerprint::Fingerprint;
use crate::settings::handshake_check::StatePlace;
use crate::settings::mistake::{Mistake, More, Place, Report, Severity};
use crate::settings::name::Names;
use crate::settings::rings::Pepper;
use crate::settings::schema::{File, vocabulary};
use crate::settings::table::Table;
use crate::settings::{Config, Environment, bodies, caller, identity, syntax};

/// Largest settings file: 10,000 routes take 4 MB.
const SETTINGS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads and checks a settings file. Beside the settings come the warnings.
pub fn load(path: &Path, environment: &Environment) -> Result<(Config, Vec<Mistake>), Report> {
    parse_file(&read(path)?, path, environment)
}

/// The text of a settings file.
///
/// # Errors
/// A report with the reason why it cannot be read.
pub fn read(path: &Path) -> Result<String, Report> {
    files::read_text(path, SETTINGS_BYTES_MAX).map_err(|mut flaw| {
        flaw.hint = None;
        let name = path.display().to_string();
        let mistake = Mistake::new(Severity::Mistake, flaw, Place::file(&name));
        Report::new(&name, vec![mistake], More::Complete)
    })
}

/// Checks the text that was read from a settings file, which is followed with its lists.
///
/// # Errors
/// The report of all mistakes, if there is one.
pub fn parse_file(
    text: &str,
    path: &Path,
    environment: &Environment,
) -> Result<(Config, Vec<Mistake>), Report> {
    let (mut config, warnings) = parse(text, path, environment)?;
    config.files.insert(0, FileInForce::new(path, text.as_bytes()));
    Ok((config, warnings))
}

/// Checks the text of a settings file. `origin` names it in reports, and relative paths start at its folder.
pub fn parse(text: &str, origin: &Path, environment: &Environment) -> Result<(Config, Vec<Mistake>), Report> {
    let name = origin.display().to_string();
    let mut check = Check {
        findings: Findings::new(&name, text, vocabulary()),
        environment,
        folder: origin.parent().unwrap_or(Path::new("")).to_owned(),
        lists: HashMap::new(),
        schemas: HashMap::new(),
        vaults: VaultUses::default(),
        fingerprint: Fingerprint::new(),
        files: Vec::new(),
    };
    check.fingerprint.text(text);
    let config = syntax::read(text, &mut check.findings).map(|file| check.config(&file));
    let warnings = check.findings.finish()?;
    match config {
        Some(config) => Ok((config, warnings)),
        // A file that was not read has left a mistake behind, so this report is never an empty one.
        None => Err(Report::new(&name, warnings, More::Complete)),
    }
}

impl Check<'_> {
    fn config(&mut self, file: &Table<File>) -> Config {
        if file.listener.is_empty() {
            let hint = "add [[listener]] with an address and a certificate";
            file.missing("listener", hint, &mut self.findings);
        }
        if file.route.is_empty() {
            let hint = "add [[route]] with a name, a path, callers and the address of a trigger";
            file.missing("route", hint, &mut self.findings);
        }
        bodies::check(&file.bodies, &mut self.findings);
        let key_pepper_source = self.pepper(&file.keys);
        let run_seals = self.run_seals(&file.keys);
        let listeners = self.listeners(&file.listener);
        let admin = self.admin(&file.admin, &file.listener);
        let mut identity_names = Names::new("identity", !file.is_reported("identity"));
        let mut identities = self.identities(&file.identity, &mut identity_names);
        let mut caller_names = Names::new("caller", !file.is_reported("caller"));
        let pepper =
            match file.keys.pepper.is_some() || file.is_reported("keys") || file.keys.is_reported("pepper") {
                true => Pepper::Given,
                false => Pepper::Absent,
            };
        let callers = self.callers(&file.caller, pepper, &mut caller_names);
        let routes = self.routes(&file.route, &identities, &mut identity_names, &mut caller_names);
        self.whole_bodies(&file.route, &file.bodies);
        identity::give_roles(&mut identities, &routes);
        let keyvault = self.keyvault(file.keyvault.as_ref(), &identities, &mut identity_names);
        self.health_paths(&file.listener, &file.route);
        self.problem_pages(&file.gateway, &file.route);
        let held_budget = file.bodies.held_budget.as_u64();
        self.keys_in_urls(&file.route, &routes, &callers);
        let has_state = file.state.folder.is_some() || file.is_reported("state");
        let state = if has_state {
            StatePlace::Folder
        } else {
            StatePlace::None
        };
        self.handshakes_of_routes(&file.route, &routes, &callers, (held_budget, state));
        self.signed_routes(&file.route, &routes, &callers, held_budget);
        self.signed_ids(&file.route, &routes, &callers);
        self.balancers(&file.listener, &callers);
        self.run_addresses(&file.keys, &file.route);
        self.run_credentials(&file.route, &routes, &callers);
        self.keys_in_pages(&file.route, &routes, &callers);
        // With a mistake somewhere, a use may only have been overlooked.
        if self.findings.len() == 0 {
            identity_names.warn_of_unused(&mut self.findings);
            caller_names.warn_of_unused(&mut self.findings);
        }
        Config {
            listeners,
            admin,
            gateway: (*file.gateway).clone(),
            connections: (*file.connections).clone(),
            bodies: (*file.bodies).clone(),
            quotas: (*file.limits).clone(),
            log: (*file.log).clone(),
            control: self.control(&file.control, has_state),
            state_folder: file.state.folder.as_ref().and_then(|folder| self.path(folder)),
            key_pepper: key_pepper_source.as_ref().map(caller::pepper_of),
            key_pepper_source,
            run_seals,
            keyvault,
            identities,
            callers,
            routes,
            digest: std::mem::take(&mut self.fingerprint).finish(),
            files: std::mem::take(&mut self.files),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::parse;
    use crate::settings::sample::Sample;
    use crate::settings::{Environment, LogFormat, ReadyRequires};

    #[test]
    fn the_names_of_the_admin_listener_are_host_names() {
        let named = Sample::default().with("admin", "hosts = [\"Metrics.internal\", \"flowgate\"]");
        let admin = named.config().admin.unwrap();
        let hosts: Vec<_> = admin.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["metrics.internal", "flowgate"]);
        for (host, flaw) in [
            ("flowgate:9464", "a host has no port here"),
            ("*.internal", "a host cannot contain a star"),
            ("http://flowgate", "a host has no scheme and no path"),
        ] {
            let wrong = Sample::default().with("admin", &format!("hosts = [\"{host}\"]"));
            assert_eq!(wrong.mistakes(), [flaw], "{host}");
        }
    }

    #[test]
    fn the_admin_listener_is_on_loopback_by_default() {
        let address = Sample::default().config().admin.unwrap().address;
        assert_eq!(address.to_string(), "127.0.0.1:9464");
        assert!(
            Sample::default()
                .with("admin", "off = true")
                .config()
                .admin
                .is_none()
        );
        let public = Sample::default().with("admin", "address = \"0.0.0.0:9464\"");
        assert_eq!(
            public.warnings(),
            ["the admin listener can be reached from other machines, without a key"]
        );
        let same = Sample::default()
            .with("admin", "address = \"127.0.0.1:8443\"")
            .replace(":0\"", ":8443\"");
        assert_eq!(
            same.mistakes(),
            ["the admin listener has the address of a public listener"]
        );
    }

    #[test]
    fn words_of_a_closed_set_are_read() {
        let config = Sample::default()
            .with("log", "format = \"json\"\nlevel = \"debug\"\naccess = false")
            .with("admin", "ready_requires = \"all-routes\"")
            .config();
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.admin.unwrap().ready_requires, ReadyRequires::AllRoutes);
        let report = Sample::default()
            .with("log", "format = \"xml\"\nlevel = 3")
            .report();
        assert!(
            report.contains("write \"auto\" or \"json\" or \"text\""),
            "{report}"
        );
        assert!(
            report.contains("expected a string, found a whole number"),
            "{report}"
        );
    }

    #[test]
    fn bounds_hold() {
        for (table, line, what) in [
            (
                "gateway",
                "workers = 0",
                "the value is too small; it must be at least 1",
            ),
            (
                "gateway",
                "drain_timeout = \"0s\"",
                "the value is too small; it must be at least 1ms",
            ),
            (
                "connections",
                "head_timeout = \"2h\"",
                "the value is too large; it must be at most 1h",
            ),
            (
                "connections",
                "head_size_max = \"1 KiB\"",
                "the value is too small; it must be at least 8 KiB",
            ),
            (
                "bodies",
                "timeout = 30",
                "expected a duration such as \"30s\" or \"1h30m\", found a whole number",
            ),
            (
                "bodies",
                "rate_min = \"2 MiB\"",
                "the value is too large; it must be at most 1 MiB",
            ),
            (
                "bodies",
                "stream_rate_min = \"2 MiB\"",
                "the value is too large; it must be at most 1 MiB",
            ),
            (
                "bodies",
                "rate_grace = \"0s\"",
                "the value is too small; it must be at least 1ms",
            ),
            (
                "bodies",
                "held_budget = -1",
                "expected a size such as \"64 KiB\", or a number of bytes, found a whole number",
            ),
            (
                "bodies",
                "hold_size_max = \"90 MiB\"",
                "`held_budget` is smaller than `hold_size_max`, so the largest held body never fits",
            ),
            ("limits", "gateway = { requests = 1 }", "`per` is missing"),
            (
                "limits",
                "gateway = { requests = 0, per = \"1s\" }",
                "the value is too small; it must be at least 1",
            ),
            ("limits", "gateway = \"none\"", "expected a table, found a string"),
            (
                "limits",
                "addresses_max = 1.5",
                "expected a whole number, 0 or more, found a number with a fraction",
            ),
        ] {
            assert_eq!(Sample::default().with(table, line).mistakes(), [what], "{line}");
        }
    }

    #[test]
    fn bounds_of_connections_hold() {
        for (line, what) in [
            (
                "write_timeout = \"2h\"",
                "the value is too large; it must be at most 1h",
            ),
            (
                "per_address_max = 0",
                "the value is too small; it must be at least 1",
            ),
            (
                "http2_stream_window = \"1 KiB\"",
                "the value is too small; it must be at least 64 KiB",
            ),
            (
                "http2_connection_window = \"17 MiB\"",
                "the value is too large; it must be at most 16 MiB",
            ),
        ] {
            assert_eq!(
                Sample::default().with("connections", line).mistakes(),
                [what],
                "{line}"
            );
        }
    }

    #[test]
    fn the_least_rate_of_a_body_can_be_switched_off() {
        let rate = |line: &str| Sample::default().with("bodies", line).config().bodies.rate_min;
        assert_eq!(rate("timeout = \"1s\"").unwrap().get(), 240);
        assert_eq!(rate("rate_min = \"1 KiB\"").unwrap().get(), 1024);
        assert_eq!(rate("rate_min = 0"), None);
    }

    #[test]
    fn the_rate_of_streamed_bodies_is_16_kib_a_second_or_off() {
        let bodies = |line: &str| Sample::default().with("bodies", line).config().bodies;
        let rate = |line: &str| bodies(line).stream_rate_min;
        assert_eq!(rate("timeout = \"1s\"").unwrap().get(), 16 * 1024);
        assert_eq!(rate("stream_rate_min = \"2 KiB\"").unwrap().get(), 2048);
        assert_eq!(rate("stream_rate_min = 0"), None);
    }

    #[test]
    fn a_caller_that_sets_no_rate_gets_half_of_what_a_route_takes() {
        let config = Sample::default().config();
        let route = config.routes.first().unwrap().rate.unwrap();
        let caller = config.callers.first().unwrap().rate.unwrap();
        assert_eq!(
            (2 * caller.requests, 2 * caller.burst),
            (route.requests, route.burst)
        );
        assert_eq!(caller.per, route.per);
    }

    #[test]
    fn exempt_networks_are_checked_like_all_networks() {
        let exempt = |networks: &str| {
            Sample::default().with("connections", &format!("per_address_exempt = [{networks}]"))
        };
        let config = exempt("\"10.0.1.0/24\", \"::ffff:192.0.2.1\"").config();
        let read = format!("{:?}", config.connections.per_address_exempt);
        assert_eq!(read, "[Network(10.0.1.0/24), Network(192.0.2.1/32)]");
        let mistakes = exempt("\"10.0.1.1/24\"").mistakes();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    }

    #[test]
    fn a_burst_is_as_large_as_the_rate_unless_given() {
        let config = Sample::default()
            .with("limits", "gateway = { requests = 7, per = \"1s\" }")
            .config();
        assert_eq!(config.quotas.gateway.unwrap().burst, 7);
    }

    #[test]
    fn a_short_pepper_is_worth_a_warning() {
        let short = Sample::default()
            .with("keys", "pepper = \"file:pepper\"")
            .file("pepper", "short\n");
        assert!(
            short
                .warnings()
                .iter()
                .any(|what| what.contains("fewer than 16 bytes"))
        );
    }

    #[test]
    fn an_empty_file_lacks_a_listener_and_a_route() {
        let environment = Environment::from_pairs([("", ""); 0]);
        for text in ["", "# nothing\n", "\u{feff}"] {
            let report = parse(text, Path::new("x.toml"), &environment).unwrap_err();
            let what: Vec<_> = report
                .mistakes()
                .iter()
                .map(|mistake| mistake.what().to_owned())
                .collect();
            assert_eq!(what, ["`listener` is missing", "`route` is missing"], "{text:?}");
        }
    }
}
