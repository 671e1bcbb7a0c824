//! Values that occur all over the file: durations, sizes, numbers, rates, addresses, paths, secrets. Each is
//! read, held against its bounds, and reported where it fails. What comes back after a mistake is never used,
//! because a file with a mistake never becomes settings.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use jiff::SignedDuration;

use crate::model::Secret;
use crate::settings::check::Check;
use crate::settings::file::RateTable;
use crate::settings::leaf::{At, Moment, Size, Span, Table};
use crate::settings::mistake::Flaw;
use crate::settings::source::{Holds, Reference};
use crate::settings::{Rate, SecretSource, Secrets, lists, source};

/// A thousandth of a second: what is shorter cannot be kept.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
/// One second.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// One hour.
pub(super) const HOUR: Duration = Duration::from_secs(3600);
/// One day, the longest time a request or a connection is made to wait for anything.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// Most requests and longest burst of a rate; beyond it a limit limits nothing on one machine.
const RATE_MAX: u64 = 1_000_000;

/// What stands for a secret that is not read.
pub(super) const PLACEHOLDER: &str = "unresolved";

impl Check<'_> {
    pub(super) fn duration(
        &mut self,
        value: Option<&At<Span>>,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(value) = value else { return default };
        let read = parse_duration(&value.0).and_then(|duration| within(duration, &bounds, print_duration));
        self.findings.keep(value, read).unwrap_or(default)
    }

    pub(super) fn size(
        &mut self,
        value: Option<&At<Size>>,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> u64 {
        let Some(value) = value else { return default };
        let read = match &**value {
            Size::Bytes(bytes) => Ok(*bytes),
            Size::Text(text) => parse_size(text),
        };
        let print = |bytes: &u64| ByteSize(*bytes).to_string();
        let read = read.and_then(|bytes| within(bytes, &bounds, print));
        self.findings.keep(value, read).unwrap_or(default)
    }

    pub(super) fn number(
        &mut self,
        value: Option<&At<u64>>,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> u64 {
        let Some(value) = value else { return default };
        self.findings
            .keep(value, within(**value, &bounds, u64::to_string))
            .unwrap_or(default)
    }

    /// The same as a count of things in memory.
    pub(super) fn count(
        &mut self,
        value: Option<&At<u64>>,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> usize {
        usize::try_from(self.number(value, default, bounds)).unwrap_or(usize::MAX)
    }

    pub(super) fn rate(&mut self, table: Option<&Table<RateTable>>, default: Rate) -> Rate {
        let Some(table) = table else { return default };
        if table.requests.is_none() {
            self.findings.missing(
                table.span(),
                "requests",
                "write for example { requests = 10, per = \"1s\" }",
            );
        }
        if table.per.is_none() {
            self.findings.missing(
                table.span(),
                "per",
                "write for example { requests = 10, per = \"1s\" }",
            );
        }
        let requests = self.number(table.requests.as_ref(), default.requests.into(), 1..=RATE_MAX);
        let per = self.duration(table.per.as_ref(), default.per, MILLISECOND..=DAY);
        let burst = self.number(table.burst.as_ref(), requests, 1..=RATE_MAX);
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Rate {
            requests: count(requests),
            per,
            burst: count(burst),
        }
    }

    pub(super) fn socket_address(&mut self, value: &At<String>) -> Option<SocketAddr> {
        self.findings.keep(value, parse_address(value))
    }

    pub(super) fn moment(&mut self, value: Option<&At<Moment>>) -> Option<SystemTime> {
        let value = value?;
        self.findings.keep(value, lists::moment(&value.0))
    }

    /// A path, relative to the folder of the settings file.
    pub(super) fn path(&mut self, value: &At<String>) -> Option<PathBuf> {
        let read = match value.as_str() {
            "" => Err(Flaw::new("the path is empty")),
            text if text.starts_with("env:") || text.starts_with("keyvault:") => {
                Err(Flaw::new("this is a path, not a reference"))
            }
            text => match text.strip_prefix("file:") {
                Some(path) => {
                    Err(Flaw::new("this is a path, not a reference").hint(format!("write \"{path}\"")))
                }
                None => Ok(self.folder.join(text)),
            },
        };
        self.findings.keep(value, read)
    }

    /// Where a secret lies. The value itself must not stand in the file.
    fn reference(&mut self, key: &str, value: &At<String>) -> Option<Reference> {
        let Some(reference) = Reference::parse(value, &self.folder) else {
            let variable = key.to_ascii_uppercase();
            let flaw =
                Flaw::new(format!("`{key}` must not be written into the settings file")).hint(format!(
                    "keep it in an environment variable, a file or a key vault, and write {key} = \"env:{variable}\", \
                     \"file:PATH\" or \"keyvault:ADDRESS\" here"
                ));
            self.findings.mistake(value, flaw);
            return None;
        };
        self.findings.keep(value, reference)
    }

    /// A secret behind a reference, with the place where it can be read again. One in a key vault is not read before it
    /// is needed, so that a vault that is away does not keep the rest from serving.
    pub(super) fn secret_source(&mut self, key: &str, value: &At<String>) -> Option<SecretSource> {
        let reference = self.reference(key, value)?;
        if let Reference::Vault(place) = &reference {
            self.vaults.later.push((value.into(), place.clone()));
            return Some(SecretSource::new(reference, None));
        }
        let secret = self.resolve(value, &reference)?;
        Some(SecretSource::new(reference, Some(secret)))
    }

    /// A secret that must be there before anything is served, with the place where it can be read again. Nothing is known
    /// of it where a placeholder would stand for it.
    pub(super) fn secret_at_start(&mut self, key: &str, value: &At<String>) -> Option<SecretSource> {
        let reference = self.reference(key, value)?;
        self.at_start(value, reference, Holds::Text)
    }

    /// The same behind a reference that was read, for something of this kind.
    pub(super) fn at_start(
        &mut self,
        value: &At<String>,
        reference: Reference,
        holds: Holds,
    ) -> Option<SecretSource> {
        let (source, warning) = self.find_at_start(value, reference, holds)?;
        if let Some(flaw) = warning {
            self.findings.warn(value, flaw);
        }
        Some(source)
    }

    /// The same with what is odd about the place, which nobody was told yet.
    pub(super) fn find_at_start(
        &mut self,
        value: &At<String>,
        reference: Reference,
        holds: Holds,
    ) -> Option<(SecretSource, Option<Flaw>)> {
        if let Reference::Vault(place) = &reference {
            self.vaults.at_start.push((value.into(), place.clone()));
        }
        if !self.environment.is_at_hand(&reference) {
            return Some((SecretSource::new(reference, None).holding(holds), None));
        }
        let resolved = self.environment.resolve_as(&reference, holds);
        let resolved = self.findings.keep(value, resolved)?;
        let source = SecretSource::new(reference, Some(resolved.secret)).holding(holds);
        Some((source.until(resolved.expires), resolved.warning))
    }

    /// What a reference points to, or a placeholder if secrets are not read.
    pub(super) fn resolve(&mut self, value: &At<String>, reference: &Reference) -> Option<Secret> {
        let source = self.at_start(value, reference.clone(), Holds::Text)?;
        Some(
            source
                .known()
                .cloned()
                .unwrap_or_else(|| Secret::new(PLACEHOLDER)),
        )
    }

    /// Whether a file may be left unread because this machine is not the one that will run the gateway.
    pub(super) fn is_elsewhere(&mut self, value: &At<String>, path: &Path) -> bool {
        if self.environment.secrets() == Secrets::Resolved || path.exists() {
            return false;
        }
        let flaw = Flaw::new(format!(
            "file {} is not on this machine and was not checked",
            path.display()
        ));
        self.findings.warn(value, flaw);
        true
    }

    /// Warns of a file that must be there when the gateway runs, but may appear later than the settings are
    /// read.
    pub(super) fn expect_file(&mut self, value: &At<String>, path: &Path) {
        if self.environment.secrets() == Secrets::Resolved && fs::metadata(path).is_err() {
            self.findings.warn(
                value,
                Flaw::new(format!("file {} is not there yet", path.display())),
            );
        }
    }

    /// The same for a file with a secret, which only its owner should read.
    pub(super) fn expect_secret_file(&mut self, value: &At<String>, path: &Path) {
        self.expect_file(value, path);
        let metadata = fs::metadata(path).ok();
        let metadata = metadata.filter(|_| self.environment.secrets() == Secrets::Resolved);
        if let Some(flaw) = metadata.and_then(|metadata| source::exposure(&metadata, path)) {
            self.findings.warn(value, flaw);
        }
    }
}

fn within<T: PartialOrd>(
    value: T,
    bounds: &RangeInclusive<T>,
    print: impl Fn(&T) -> String,
) -> Result<T, Flaw> {
    if value < *bounds.start() {
        return Err(Flaw::new(format!(
            "the value is too small; it must be at least {}",
            print(bounds.start())
        )));
    }
    if value > *bounds.end() {
        return Err(Flaw::new(format!(
            "the value is too large; it must be at most {}",
            print(bounds.end())
        )));
    }
    Ok(value)
}

/// In the largest unit that leaves no remainder.
fn print_duration(duration: &Duration) -> String {
    let millis = duration.as_millis();
    for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis >= length && millis.is_multiple_of(length) {
            return format!("{}{unit}", millis / length);
        }
    }
    format!("{millis}ms")
}

fn parse_duration(text: &str) -> Result<Duration, Flaw> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Flaw::new("a duration has a unit").hint(format!("write \"{text}s\" for seconds")));
    }
    let malformed =
        || Flaw::new("this is not a duration").hint("write for example \"500ms\", \"30s\" or \"1h30m\"");
    let duration: SignedDuration = text.parse().map_err(|_| malformed())?;
    Duration::try_from(duration).map_err(|_| Flaw::new("a duration cannot be negative"))
}

fn parse_size(text: &str) -> Result<u64, Flaw> {
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| size.0)
        .map_err(|_| Flaw::new("this is not a size").hint("write for example \"64 KiB\" or \"1 MiB\""))
}

fn parse_address(text: &str) -> Result<SocketAddr, Flaw> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let flaw = Flaw::new("this is not an IP address with a port");
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let good_port = port.parse::<u16>().is_ok();
    Err(match host {
        "" | "*" if good_port => flaw.hint(format!(
            "write \"0.0.0.0:{port}\" or \"[::]:{port}\" for every address"
        )),
        "localhost" if good_port => flaw.hint(format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")),
        _ => flaw.hint("write for example \"0.0.0.0:8443\" or \"[::]:8443\""),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse_address, parse_duration, parse_size, print_duration};

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        for (text, millis) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("2 minutes", 120_000),
            ("PT3S", 3000),
        ] {
            assert_eq!(
                parse_duration(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for bad in ["", "ten", "10", "-5s", "10x", "3 months"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(
            parse_duration("10").unwrap_err().hint.unwrap(),
            "write \"10s\" for seconds"
        );
    }

    #[test]
    fn a_printed_duration_reads_as_itself() {
        for millis in [1, 999, 1000, 1001, 60_000, 90_000, 3_600_000, 86_400_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&print_duration(&duration)).unwrap(), duration);
        }
    }

    #[test]
    fn a_size_has_a_decimal_or_binary_unit() {
        for (text, bytes) in [
            ("64 KiB", 65_536),
            ("64KiB", 65_536),
            ("1 MB", 1_000_000),
            ("1.5MiB", 1_572_864),
            ("7", 7),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "MiB", "1 pound", "-1 KiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_an_ip_and_a_port() {
        assert!(parse_address("[::]:8443").is_ok());
        for (bad, correction) in [
            (":8443", "0.0.0.0:8443"),
            ("localhost:80", "127.0.0.1:80"),
            ("8443", "0.0.0.0:8443"),
        ] {
            assert!(
                parse_address(bad).unwrap_err().hint.unwrap().contains(correction),
                "{bad}"
            );
        }
    }
}
