//! From the mirror of the settings file to checked settings. It goes on after a mistake, so that one run
//! shows all of them; settings come out only if there was none.

mod api;
mod brackets;
mod caller;
mod findings;
mod identity;
mod keyvault;
mod listener;
mod name;
mod network;
mod path;
mod rings;
mod route;
#[cfg(test)]
mod sample;
mod tls;
mod tree;
mod trigger;
mod value;
mod word;

use std::collections::HashMap;
use std::num::{NonZero, NonZeroU64};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use self::findings::{Findings, Mark};
use self::keyvault::VaultUses;
use self::value::{DAY, HOUR, MILLISECOND, SECOND};
use crate::model::Secret;
use crate::settings::file::{Admin, Bodies, File, Format, Keys, Level, Limits, Log, Requires};
use crate::settings::files::FileInForce;
use crate::settings::fingerprint::Fingerprint;
use crate::settings::leaf::Table;
use crate::settings::mistake::{Flaw, Mistake, More, Place, Report, Severity};
use crate::settings::{
    AccessLog, AdminSettings, BodySettings, Config, ConnectionSettings, Environment, LogFormat, LogSettings,
    QuotaSettings, Rate, ReadyRequires, SecretSource, defaults, file, source,
};

/// Largest settings file: 10,000 routes take 4 MB.
const SETTINGS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most header fields that can be allowed: a field costs memory beyond its bytes, whatever stands in it.
const HEADERS_CEILING: u64 = 300;
/// A window begins with nearly so many bytes whatever is set (RFC 9113 section 6.9.2).
const WINDOW_MIN: u64 = 64 * 1024;
/// Larger ones only cost memory: the flow platform is far, but its callers send little.
const WINDOW_MAX: u64 = 16 * 1024 * 1024;

/// Largest `bodies.rate_min` and `bodies.stream_rate_min`: callers behind a slow line would be refused above it.
const BODY_RATE_CEILING: u64 = 1024 * 1024;

/// Below this a pepper can be guessed.
const PEPPER_BYTES_MIN: usize = 16;

/// Reads and checks a settings file. Beside the settings come the warnings.
///
/// # Errors
/// The report of all mistakes, if there is one.
pub fn load(path: &Path, environment: &Environment) -> Result<(Config, Vec<Mistake>), Report> {
    match source::read_text(path, SETTINGS_BYTES_MAX) {
        Ok(text) => parse(&text, path, environment).map(|(mut config, warnings)| {
            config.files.insert(0, FileInForce::new(path, text.as_bytes()));
            (config, warnings)
        }),
        Err(mut flaw) => {
            flaw.hint = None;
            let name = path.display().to_string();
            let mistake = Mistake::new(Severity::Mistake, flaw, Place::file(&name));
            Err(Report::new(&name, vec![mistake], More::Complete))
        }
    }
}

/// Checks the text of a settings file. `origin` names it in reports, and relative paths start at its folder.
///
/// # Errors
/// The report of all mistakes, if there is one.
pub fn parse(text: &str, origin: &Path, environment: &Environment) -> Result<(Config, Vec<Mistake>), Report> {
    let name = origin.display().to_string();
    let mut check = Check {
        findings: Findings::new(&name, text),
        environment,
        folder: origin.parent().unwrap_or(Path::new("")).to_owned(),
        lists: HashMap::new(),
        vaults: VaultUses::default(),
        fingerprint: Fingerprint::new(),
        files: Vec::new(),
    };
    check.fingerprint.text(text);
    let config = tree::read(text, &mut check.findings).map(|file| check.config(&file));
    let warnings = check.findings.finish()?;
    match config {
        Some(config) => Ok((config, warnings)),
        // A file that was not read has left a mistake behind, so this report is never an empty one.
        None => Err(Report::new(&name, warnings, More::Complete)),
    }
}

/// A check under way.
struct Check<'a> {
    findings: Findings,
    environment: &'a Environment,
    /// Where relative paths start.
    folder: PathBuf,
    /// Network lists that were read: a list used twice is read, and found wrong, once.
    /// Nothing stands for a list with mistakes.
    lists: HashMap<PathBuf, Option<Vec<IpNet>>>,
    /// Secrets in key vaults that the settings name.
    vaults: VaultUses,
    /// Of everything that was read and is no secret.
    fingerprint: Fingerprint,
    /// The lists that were read.
    files: Vec<FileInForce>,
}

impl Check<'_> {
    fn config(&mut self, file: &File) -> Config {
        let workers = self.workers(file);
        let connections = self.connections(file);
        let bodies = self.bodies(file.bodies.as_deref());
        let quotas = self.quotas(file.limits.as_deref());
        let key_pepper_source = self.pepper(file.keys.as_deref());
        let listeners = self.listeners(&file.listener);
        let admin = self.admin(file.admin.as_deref(), &file.listener);
        let mut identity_names = name::Names::new("identity");
        let mut identities = self.identities(&file.identity, &mut identity_names);
        let mut caller_names = name::Names::new("caller");
        let callers = self.callers(&file.caller, file.keys.as_ref(), &mut caller_names);
        let routes = self.routes(&file.route, &identities, &mut identity_names, &mut caller_names);
        identity::give_roles(&mut identities, &routes);
        let keyvault = self.keyvault(file.keyvault.as_ref(), &identities, &mut identity_names);
        self.health_paths(&file.listener, &file.route);
        self.balancers(&file.listener, &callers);
        // With a mistake somewhere, a use may only have been overlooked.
        if self.findings.len() == 0 {
            identity_names.warn_of_unused(&mut self.findings);
            caller_names.warn_of_unused(&mut self.findings);
        }
        Config {
            listeners,
            admin,
            workers,
            connections,
            bodies,
            quotas,
            log: log(file.log.as_deref()),
            key_pepper: key_pepper_source.as_ref().map(pepper_of),
            key_pepper_source,
            keyvault,
            identities,
            callers,
            routes,
            digest: std::mem::take(&mut self.fingerprint).finish(),
            files: std::mem::take(&mut self.files),
        }
    }

    fn workers(&mut self, file: &File) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let workers = file.gateway.as_ref().and_then(|gateway| gateway.workers.as_ref());
        self.count(workers, cores as u64, 1..=1024)
    }

    fn connections(&mut self, file: &File) -> ConnectionSettings {
        let empty = file::Connections::default();
        let table = file.connections.as_deref().unwrap_or(&empty);
        let drain_timeout = file
            .gateway
            .as_ref()
            .and_then(|gateway| gateway.drain_timeout.as_ref());
        let target_bytes = self.size(
            table.target_size_max.as_ref(),
            defaults::TARGET_SIZE_MAX,
            256..=defaults::TARGET_SIZE_MAX,
        );
        let head_bytes = self.size(
            table.head_size_max.as_ref(),
            defaults::HEAD_SIZE_MAX,
            8192..=1 << 20,
        );
        let streams = self.number(
            table.http2_streams_max.as_ref(),
            defaults::HTTP2_STREAMS_MAX,
            1..=10_000,
        );
        let stream_window = self.size(
            table.http2_stream_window.as_ref(),
            defaults::HTTP2_STREAM_WINDOW,
            WINDOW_MIN..=WINDOW_MAX,
        );
        let connection_window = self.size(
            table.http2_connection_window.as_ref(),
            defaults::HTTP2_CONNECTION_WINDOW,
            WINDOW_MIN..=WINDOW_MAX,
        );
        let per_address_max = table.per_address_max.as_ref();
        ConnectionSettings {
            connections_max: self.count(table.max.as_ref(), defaults::CONNECTIONS_MAX, 1..=10_000_000),
            per_address_max: self.count(per_address_max, defaults::PER_ADDRESS_MAX, 1..=10_000_000),
            per_address_exempt: self.network_list(table.per_address_exempt.as_ref()),
            handshake_timeout: self.duration(
                table.handshake_timeout.as_ref(),
                defaults::HANDSHAKE_TIMEOUT,
                MILLISECOND..=HOUR,
            ),
            head_timeout: self.duration(
                table.head_timeout.as_ref(),
                defaults::HEAD_TIMEOUT,
                MILLISECOND..=HOUR,
            ),
            head_bytes_max: usize::try_from(head_bytes).unwrap_or(usize::MAX),
            target_bytes_max: usize::try_from(target_bytes).unwrap_or(usize::MAX),
            headers_max: self.count(
                table.headers_max.as_ref(),
                defaults::HEADERS_MAX,
                1..=HEADERS_CEILING,
            ),
            idle_timeout: self.duration(
                table.idle_timeout.as_ref(),
                defaults::IDLE_TIMEOUT,
                MILLISECOND..=DAY,
            ),
            write_timeout: self.duration(
                table.write_timeout.as_ref(),
                defaults::WRITE_TIMEOUT,
                MILLISECOND..=HOUR,
            ),
            age_max: self.duration(table.age_max.as_ref(), defaults::AGE_MAX, SECOND..=30 * DAY),
            streams_max: u32::try_from(streams).unwrap_or(u32::MAX),
            stream_window: u32::try_from(stream_window).unwrap_or(u32::MAX),
            connection_window: u32::try_from(connection_window).unwrap_or(u32::MAX),
            drain_timeout: self.duration(drain_timeout, defaults::DRAIN_TIMEOUT, MILLISECOND..=DAY),
        }
    }

    fn bodies(&mut self, table: Option<&Bodies>) -> BodySettings {
        let empty = Bodies::default();
        let table = table.unwrap_or(&empty);
        let hold = self.size(
            table.hold_size_max.as_ref(),
            defaults::HOLD_SIZE_MAX,
            0..=defaults::BODY_SIZE_CEILING,
        );
        let budget = self.size(table.held_budget.as_ref(), defaults::HELD_BUDGET, 0..=1 << 40);
        let given = table
            .held_budget
            .as_ref()
            .map(Mark::from)
            .or(table.hold_size_max.as_ref().map(Mark::from));
        if let Some(mark) = given.filter(|_| budget < hold) {
            let flaw = Flaw::new(
                "`held_budget` is smaller than `hold_size_max`, so the largest held body never fits",
            );
            self.findings.mistake(mark, flaw);
        }
        let rate_min = self.size(
            table.rate_min.as_ref(),
            defaults::BODY_RATE_MIN,
            0..=BODY_RATE_CEILING,
        );
        let stream_rate_min = self.size(
            table.stream_rate_min.as_ref(),
            defaults::BODY_STREAM_RATE_MIN,
            0..=BODY_RATE_CEILING,
        );
        BodySettings {
            timeout: self.duration(table.timeout.as_ref(), defaults::BODY_TIMEOUT, MILLISECOND..=HOUR),
            rate_min: NonZeroU64::new(rate_min),
            rate_grace: self.duration(
                table.rate_grace.as_ref(),
                defaults::BODY_RATE_GRACE,
                MILLISECOND..=HOUR,
            ),
            stream_rate_min: NonZeroU64::new(stream_rate_min),
            hold_bytes_max: usize::try_from(hold).unwrap_or(usize::MAX),
            held_bytes_budget: usize::try_from(budget).unwrap_or(usize::MAX),
        }
    }

    fn quotas(&mut self, table: Option<&Limits>) -> QuotaSettings {
        let empty = Limits::default();
        let table = table.unwrap_or(&empty);
        let gateway = rate(
            defaults::GATEWAY_REQUESTS,
            defaults::GATEWAY_PER,
            defaults::GATEWAY_BURST,
        );
        let failures = rate(defaults::FAILURES, defaults::FAILURES_PER, defaults::FAILURES);
        QuotaSettings {
            gateway: Some(self.rate(table.gateway.as_ref(), gateway)),
            failed_authentications: self.rate(table.failed_authentications.as_ref(), failures),
            addresses_max: self.count(
                table.addresses_max.as_ref(),
                defaults::ADDRESSES_MAX,
                1..=100_000_000,
            ),
        }
    }

    fn pepper(&mut self, table: Option<&Keys>) -> Option<SecretSource> {
        let value = table?.pepper.as_ref()?;
        let pepper = self.secret_at_start("pepper", value)?;
        if pepper
            .known()
            .is_some_and(|pepper| pepper.expose().len() < PEPPER_BYTES_MIN)
        {
            let flaw = Flaw::new(format!(
                "the pepper has fewer than {PEPPER_BYTES_MIN} bytes and can be guessed"
            ));
            self.findings
                .warn(value, flaw.hint("make one with `openssl rand -base64 32`"));
        }
        Some(pepper)
    }

    fn admin(&mut self, table: Option<&Admin>, listeners: &[Table<file::Listener>]) -> Option<AdminSettings> {
        let empty = Admin::default();
        let table = table.unwrap_or(&empty);
        if table.off.as_deref() == Some(&true) {
            return None;
        }
        let address = match &table.address {
            Some(value) => {
                let address = self.socket_address(value)?;
                let public = |listener: &&Table<file::Listener>| {
                    listener
                        .address
                        .as_ref()
                        .is_some_and(|other| other.parse() == Ok(address))
                };
                if let Some(other) = listeners.iter().find(public).filter(|_| address.port() != 0) {
                    let flaw = Flaw::new("the admin listener has the address of a public listener");
                    self.findings.clash(value, flaw, other.span(), "of this listener");
                }
                if !address.ip().to_canonical().is_loopback() {
                    let flaw =
                        Flaw::new("the admin listener can be reached from other machines, without a key");
                    self.findings.warn(
                        value,
                        flaw.hint("let a firewall or a network policy stand before it"),
                    );
                }
                address
            }
            None => defaults::ADMIN_ADDRESS,
        };
        let hosts = table.hosts.iter().flat_map(|hosts| hosts.iter());
        let hosts: Vec<String> = hosts
            .filter_map(|value| self.findings.keep(value, path::check_host(value)))
            .collect();
        let ready_requires = match table.ready_requires.as_deref() {
            None | Some(Requires::AnyRoute) => ReadyRequires::AnyRoute,
            Some(Requires::AllRoutes) => ReadyRequires::AllRoutes,
        };
        Some(AdminSettings {
            address,
            hosts: hosts.into(),
            ready_requires,
        })
    }
}

/// The pepper; where it is not read keys cannot be told apart, and need not be.
fn pepper_of(source: &SecretSource) -> Secret {
    let known = source.known().cloned();
    known.unwrap_or_else(|| Secret::new(value::PLACEHOLDER))
}

fn log(table: Option<&Log>) -> LogSettings {
    let empty = Log::default();
    let table = table.unwrap_or(&empty);
    LogSettings {
        format: match table.format.as_deref() {
            None | Some(Format::Auto) => LogFormat::Auto,
            Some(Format::Json) => LogFormat::Json,
            Some(Format::Text) => LogFormat::Text,
        },
        access: if table.access.as_deref() == Some(&false) {
            AccessLog::Off
        } else {
            AccessLog::On
        },
        level: match table.level.as_deref() {
            None | Some(Level::Info) => tracing::Level::INFO,
            Some(Level::Error) => tracing::Level::ERROR,
            Some(Level::Warn) => tracing::Level::WARN,
            Some(Level::Debug) => tracing::Level::DEBUG,
            Some(Level::Trace) => tracing::Level::TRACE,
        },
    }
}

/// A rate out of constants.
fn rate(requests: u64, per: std::time::Duration, burst: u64) -> Rate {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Rate {
        requests: count(requests),
        per,
        burst: count(burst),
    }
}

/// The rate of a route that sets none.
fn route_rate() -> Rate {
    rate(defaults::RATE_REQUESTS, defaults::RATE_PER, defaults::RATE_BURST)
}

/// The rate of a caller that sets none.
fn caller_rate() -> Rate {
    rate(
        defaults::CALLER_RATE_REQUESTS,
        defaults::RATE_PER,
        defaults::CALLER_RATE_BURST,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::parse;
    use crate::settings::check::sample::Sample;
    use crate::settings::{Environment, LogFormat, ReadyRequires, defaults};

    #[test]
    fn the_names_of_the_admin_listener_are_host_names() {
        let named = Sample::default().with("admin", "hosts = [\"Metrics.internal\", \"flowgate\"]");
        let admin = named.config().admin.unwrap();
        assert_eq!(*admin.hosts, ["metrics.internal", "flowgate"]);
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
        assert_eq!(defaults::ADMIN_ADDRESS.to_string(), "127.0.0.1:9464");
        assert_eq!(
            Sample::default().config().admin.unwrap().address,
            defaults::ADMIN_ADDRESS
        );
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
                "the value is too small; it must be at least 8.0 KiB",
            ),
            (
                "bodies",
                "timeout = 30",
                "expected a duration such as \"30s\" or \"1h30m\", found a whole number",
            ),
            (
                "bodies",
                "rate_min = \"2 MiB\"",
                "the value is too large; it must be at most 1.0 MiB",
            ),
            (
                "bodies",
                "stream_rate_min = \"2 MiB\"",
                "the value is too large; it must be at most 1.0 MiB",
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
                "the value is too small; it must be at least 64.0 KiB",
            ),
            (
                "http2_connection_window = \"17 MiB\"",
                "the value is too large; it must be at most 16.0 MiB",
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
        assert_eq!(rate("timeout = \"1s\"").unwrap().get(), defaults::BODY_RATE_MIN);
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
        assert_eq!(read, "[10.0.1.0/24, 192.0.2.1/32]");
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
