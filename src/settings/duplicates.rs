//! `[route.duplicates]`: how a delivery that comes twice is recognized, and what becomes of the second one.

use std::fmt;
use std::time::Duration;

use http::HeaderName;

use crate::model::{Flaw, Pointer};
use crate::settings::check::Check;
use crate::settings::kinds::{ANY, At, choice, word};
use crate::settings::scalars::{DAY, SECOND, secs};
use crate::settings::table::{Table, table};
use crate::settings::word::read_header;

table! {
    /// How a delivery that comes twice is recognized.
    pub(crate) struct DuplicatesTable {
        /// Where its id is: "header:NAME", "idempotency-key" for that header, "json:/POINTER" for a value of the body,
        /// "body" for the hash of all of it, or "delivery" where the signature of the caller has one.
        by: Option<At<DeliveryId>> = None, ANY, Reload;
        // Most vendors repeat a delivery for hours.
        /// Time for which its answer is given again.
        window: Duration = DAY, SECOND..=secs(30 * 86_400), Reload;
        /// What a duplicate gets while the first one is under way: "wait" for its answer, or "conflict" for 409.
        in_flight: InFlight = InFlight::Wait, ANY, Reload;
        /// What a duplicate gets if a run may have started but the flow gave no answer: the same "problem", "accept" for
        /// 200, or "again" for another try.
        unknown: UnknownOutcome = UnknownOutcome::Problem, ANY, Reload;
        /// What happens to a request without an id: "refuse" or "pass".
        without_id: WithoutId = WithoutId::Refuse, ANY, Reload;
    }
}

/// The header of draft-ietf-httpapi-idempotency-key-header.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where the id of a delivery is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryId {
    Header(HeaderName),
    /// A value of the JSON body.
    Json(Pointer),
    /// The body itself, by its hash.
    Body,
    /// Where the signature of its caller has it.
    Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InFlight {
    Wait,
    Conflict,
}

/// What a duplicate gets where nobody knows whether its first request started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownOutcome {
    Problem,
    Accept,
    Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutId {
    Refuse,
    Pass,
}

choice!(InFlight: Self::Wait => "wait", Self::Conflict => "conflict");
choice!(UnknownOutcome: Self::Problem => "problem", Self::Accept => "accept", Self::Again => "again");
choice!(WithoutId: Self::Refuse => "refuse", Self::Pass => "pass");
word! {
    DeliveryId: read_id, ["header:x-github-delivery", "idempotency-key", "json:/id", "body"];
}

#[derive(Debug, Clone)]
pub struct DuplicateSettings {
    pub by: DeliveryId,
    pub window: Duration,
    pub in_flight: InFlight,
    pub unknown: UnknownOutcome,
    pub without_id: WithoutId,
}

/// In words for the sender of a request.
impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "the header `{name}`"),
            Self::Body => f.write_str("the body"),
            Self::Delivery => f.write_str("the id of the delivery"),
            Self::Json(pointer) => write!(f, "the value at `{pointer}` of the JSON body"),
        }
    }
}

fn read_id(text: &str) -> Result<DeliveryId, Flaw> {
    if let Some(name) = text.strip_prefix("header:") {
        let name = read_header(name, "the id of a delivery")?;
        return match name.as_str() {
            "authorization" | "cookie" => Err(Flaw::new(format!(
                "`{name}` says who calls, not what is delivered"
            ))),
            _ => Ok(DeliveryId::Header(name)),
        };
    }
    if let Some(pointer) = text.strip_prefix("json:") {
        return Pointer::parse(pointer).map(DeliveryId::Json);
    }
    match text {
        "idempotency-key" => Ok(DeliveryId::Header(IDEMPOTENCY_KEY)),
        "body" => Ok(DeliveryId::Body),
        "delivery" => Ok(DeliveryId::Delivery),
        _ => Err(Flaw::new("unknown place for the id of a delivery")
            .hint("write \"header:NAME\", \"idempotency-key\", \"json:/POINTER\", \"body\" or \"delivery\"")),
    }
}

impl Check<'_> {
    pub(super) fn duplicates(&mut self, table: Option<&Table<DuplicatesTable>>) -> Option<DuplicateSettings> {
        let table = table?;
        let hint = "write for example by = \"idempotency-key\"";
        let by = table.require(("by", &table.by), hint, &mut self.findings)?;
        Some(DuplicateSettings {
            by: (**by).clone(),
            window: table.window,
            in_flight: table.in_flight,
            unknown: table.unknown,
            without_id: table.without_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderName;

    use super::{DeliveryId, InFlight, UnknownOutcome, WithoutId, read_id};
    use crate::model::Pointer;
    use crate::settings::sample::{Sample, TRIGGER};

    fn sample(lines: &str) -> Sample {
        let route = format!(
            "name = \"a\"\npath = \"/a\"\nanonymous = true\nidentity = \"contoso\"\ntrigger = \"{TRIGGER}\"\n{lines}"
        );
        Sample::default().with("route", &route)
    }

    #[test]
    fn an_id_is_in_a_header_or_in_the_body() {
        let header = |name: &'static str| DeliveryId::Header(HeaderName::from_static(name));
        let json = |pointer: &str| DeliveryId::Json(Pointer::of(pointer));
        for (text, id) in [
            ("header:X-GitHub-Delivery", header("x-github-delivery")),
            ("idempotency-key", header("idempotency-key")),
            ("json:/event/0/id", json("/event/0/id")),
            ("json:/a~1b/c~01", json("/a~1b/c~01")),
            ("json:/", json("/")),
            ("body", DeliveryId::Body),
        ] {
            assert_eq!(read_id(text).unwrap(), id, "{text}");
        }
        for bad in [
            "",
            "header:",
            "header:content-length",
            "header:authorization",
            "header:cookie",
            "header:x-flowgate-id",
            "x-github-delivery",
            "json:id",
            "json:",
            "json:/a~2",
            "json:/a~",
        ] {
            assert!(read_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn duplicates_are_recognized_where_the_settings_say_so() {
        assert!(sample("").config().routes[0].duplicates.is_none());
        let config = sample("[route.duplicates]\nby = \"body\"").config();
        let settings = config.routes[0].duplicates.clone().unwrap();
        assert_eq!(settings.window, Duration::from_secs(86_400));
        assert_eq!(
            (settings.in_flight, settings.unknown, settings.without_id),
            (InFlight::Wait, UnknownOutcome::Problem, WithoutId::Refuse)
        );
        assert_eq!(
            sample("[route.duplicates]\nwindow = \"1h\"").mistakes(),
            ["`by` is missing"]
        );
    }

    #[test]
    fn bodies_that_are_held_whole_fit_into_the_budget() {
        let large = sample("body_size_max = \"65 MiB\"\n[route.duplicates]\nby = \"body\"");
        let mistakes = large.mistakes();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains("`held_budget`"), "{mistakes:?}");
        assert!(sample("body_size_max = \"65 MiB\"").mistakes().is_empty());
        let config = sample("[route.duplicates]\nby = \"body\"").config();
        assert_eq!(config.held_body_bytes_max(), 1 << 20);
        assert_eq!(sample("").config().held_body_bytes_max(), 64 << 10);
    }
}
