//! Kinds of values that are a number in some unit, or a moment: counts, durations, sizes, rates, dates. Each is parsed and
//! checked against its bounds.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use bytesize::ByteSize;
use jiff::SignedDuration;
use serde_json::{Value, json};
use toml::de::DeValue;

use crate::model::Flaw;
use crate::settings::findings::Findings;
use crate::settings::kinds::{ANY, COUNT, DURATION, Field, Setting};
use crate::settings::lists;
use crate::settings::table::{Table, table};

/// What is shorter cannot be kept.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = secs(1);
pub(super) const HOUR: Duration = secs(3600);
/// The longest time a request or a connection is made to wait for anything.
pub(super) const DAY: Duration = secs(86_400);

/// Most requests and longest burst of a rate; beyond it a limit limits nothing on one machine.
const RATE_MAX: u32 = 1_000_000;

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The value, if it is within its bounds.
fn within<T: PartialOrd>(value: T, bounds: &RangeInclusive<T>, print: fn(&T) -> String) -> Result<T, Flaw> {
    if value < *bounds.start() {
        let least = print(bounds.start());
        return Err(Flaw::new(format!(
            "the value is too small; it must be at least {least}"
        )));
    }
    if value > *bounds.end() {
        let most = print(bounds.end());
        return Err(Flaw::new(format!(
            "the value is too large; it must be at most {most}"
        )));
    }
    Ok(value)
}

/// Counts of things, in the width in which they are used.
macro_rules! count {
    ($($kind:ty),+) => {$(
        impl Setting for $kind {
            type Bounds = RangeInclusive<$kind>;

            fn read(field: Field<'_>, bounds: &Self::Bounds, findings: &mut Findings) -> Option<Self> {
                let count = field.expect(COUNT, whole(field.value.get_ref()), findings)?;
                // What does not fit is beyond the bounds as well.
                let count = Self::try_from(count).unwrap_or(Self::MAX);
                findings.keep(field.span(), within(count, bounds, Self::to_string))
            }

            fn schema(bounds: &Self::Bounds) -> Value {
                json!({ "type": "integer", "minimum": bounds.start(), "maximum": bounds.end() })
            }

            fn show(&self) -> Value {
                (*self).into()
            }
        }
    )+};
}
count!(u32, usize);

fn whole(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

impl Setting for Duration {
    type Bounds = RangeInclusive<Duration>;

    fn read(field: Field<'_>, bounds: &Self::Bounds, findings: &mut Findings) -> Option<Self> {
        let text = field.expect(DURATION, field.text(), findings)?;
        let read = parse_duration(text).and_then(|duration| within(duration, bounds, print_duration));
        findings.keep(field.span(), read)
    }

    fn schema(_: &Self::Bounds) -> Value {
        json!({ "type": "string", "examples": ["500ms", "30s", "1h30m"] })
    }

    fn show(&self) -> Value {
        print_duration(self).into()
    }
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

/// In the largest unit that leaves no remainder.
fn print_duration(duration: &Duration) -> String {
    let millis = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let whole = units
        .iter()
        .find(|(_, length)| millis >= *length && millis.is_multiple_of(*length));
    let (unit, length) = whole.unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / length)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    pub(super) const fn kib(kib: u64) -> Self {
        Self(kib * 1024)
    }

    /// As an integer; what does not fit into memory is more than it.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    pub fn as_u64(self) -> u64 {
        self.0
    }

    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl Setting for Size {
    type Bounds = RangeInclusive<Size>;

    fn read(field: Field<'_>, bounds: &Self::Bounds, findings: &mut Findings) -> Option<Self> {
        let read = match field.value.get_ref() {
            DeValue::String(text) => parse_size(text),
            value => Ok(Size(field.expect(
                "a size such as \"64 KiB\", or a number of bytes",
                whole(value),
                findings,
            )?)),
        };
        findings.keep(
            field.span(),
            read.and_then(|size| within(size, bounds, print_size)),
        )
    }

    fn schema(_: &Self::Bounds) -> Value {
        json!({ "type": ["string", "integer"], "minimum": 0, "examples": ["64 KiB", "1 MiB"] })
    }

    fn show(&self) -> Value {
        print_size(self).into()
    }
}

fn parse_size(text: &str) -> Result<Size, Flaw> {
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| Size(size.0))
        .map_err(|_| Flaw::new("this is not a size").hint("write for example \"64 KiB\" or \"1 MiB\""))
}

/// In the largest unit that leaves no remainder: `ByteSize` itself rounds.
fn print_size(size: &Size) -> String {
    let whole = |(_, shift): &&(&str, u32)| size.0 > 0 && size.0.trailing_zeros() >= *shift;
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let (unit, shift) = units.iter().find(whole).unwrap_or(&("B", 0));
    format!("{} {unit}", size.0 >> shift)
}

/// A number of bytes, of which 0 switches a limit off.
impl Setting for Option<NonZeroU64> {
    type Bounds = RangeInclusive<Size>;

    fn read(field: Field<'_>, bounds: &Self::Bounds, findings: &mut Findings) -> Option<Self> {
        Size::read(field, bounds, findings).map(|size| NonZeroU64::new(size.0))
    }

    fn schema(bounds: &Self::Bounds) -> Value {
        Size::schema(bounds)
    }

    fn show(&self) -> Value {
        Size(self.map_or(0, NonZeroU64::get)).show()
    }
}

/// A rate with a burst (generic cell rate algorithm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests allowed in each `per` on the long run; at least 1.
    pub requests: u32,
    /// The window in which `requests` are allowed; above zero.
    pub per: Duration,
    /// Requests that may come at once; at least 1.
    pub burst: u32,
}

table! {
    /// A rate as it is written.
    struct RateTable {
        /// Requests allowed in each `per` on the long run.
        requests: Option<u32> = None, 1..=RATE_MAX, Reload;
        /// The window, for example "1s" or "1m".
        per: Option<Duration> = None, MILLISECOND..=DAY, Reload;
        /// Requests that may come at once; default: as many as `requests`.
        burst: Option<u32> = None, 1..=RATE_MAX, Reload;
    }
}

impl Setting for Rate {
    type Bounds = ();

    fn read(field: Field<'_>, (): &(), findings: &mut Findings) -> Option<Self> {
        let example = "{ requests = 10, per = \"1s\" }";
        if let DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) = field.value.get_ref() {
            let flaw = field.unexpected("a table", findings);
            findings.mistake(
                field.span(),
                flaw.hint(format!("write {} = {example}", field.key)),
            );
            return None;
        }
        let table = <Table<RateTable> as Setting>::read(field, &ANY, findings)?;
        let hint = format!("write for example {example}");
        let requests = table
            .require(("requests", &table.requests), &hint, findings)
            .copied();
        let per = table.require(("per", &table.per), &hint, findings).copied();
        let (requests, per) = (requests?, per?);
        let burst = table.burst.unwrap_or(requests);
        Some(Self { requests, per, burst })
    }

    fn schema((): &()) -> Value {
        <Table<RateTable> as Setting>::schema(&ANY)
    }

    fn show(&self) -> Value {
        let Self { requests, per, burst } = self;
        json!({ "requests": requests, "per": per.show(), "burst": burst })
    }
}

/// A date or a moment, as text or in TOML's own form.
impl Setting for SystemTime {
    type Bounds = ();

    fn read(field: Field<'_>, (): &(), findings: &mut Findings) -> Option<Self> {
        let text = match field.value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            DeValue::Datetime(moment) => Some(moment.to_string()),
            _ => None,
        };
        let expected = "a date such as 2027-01-31, or a moment such as 2027-01-31T12:00:00Z";
        let text = field.expect(expected, text, findings)?;
        findings.keep(field.span(), lists::moment(&text))
    }

    fn schema((): &()) -> Value {
        json!({ "type": "string", "examples": ["2027-01-31", "2027-01-31T12:00:00Z"] })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Size, parse_duration, parse_size, print_duration, print_size};

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
            assert_eq!(parse_size(text).unwrap(), Size::new(bytes), "{text}");
        }
        for bad in ["", "MiB", "1 pound", "-1 KiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_printed_size_reads_as_itself() {
        for (bytes, printed) in [
            (0, "0 B"),
            (240, "240 B"),
            (65_536, "64 KiB"),
            (104_857_600, "100 MiB"),
        ] {
            assert_eq!(print_size(&Size::new(bytes)), printed);
            assert_eq!(parse_size(printed).unwrap(), Size::new(bytes));
        }
    }
}
