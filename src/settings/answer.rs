//! `[route.answer]`: what callers get where the flow accepted a request or succeeded. Vendors switch off a webhook that does
//! not answer what they expect, and a flow without a Response action always answers 202 without a body.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::model::{ContentType, Flaw};
use crate::settings::check::Check;
use crate::settings::kinds::{ANY, At, choice};
use crate::settings::scalars::{DAY, HOUR, SECOND, secs};
use crate::settings::table::{Table, table};

/// Largest fixed body; acknowledgements of vendors have a few hundred bytes. All of it is in memory for each route.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// What a fixed answer is made of.
pub(super) const FIXED: [&str; 3] = ["status", "content_type", "body"];

table! {
    /// What callers get where the flow accepted a request or answered with success; all else passes as it is.
    pub(crate) struct AnswerTable {
        /// What the 202 of a flow becomes: "pass", or "ok" for 200.
        accepted: Accepted = Accepted::Pass, ANY, Reload;
        /// Status of a fixed answer, which takes the place of every success of the flow. Default: 200 if the answer is fixed.
        status: Option<At<u32>> = None, 200..=204, Reload;
        /// Type of its body.
        content_type: Option<At<ContentType>> = None, ANY, Reload;
        /// Its body, at most 16384 bytes; default: empty.
        body: Option<At<String>> = None, ANY, Reload;
        /// When its senders give up; a problem is the answer before that, while the flow goes on. "0s" is never; default: what the
        /// preset of the caller says, or never.
        within: Option<Duration> = None, Duration::ZERO..=HOUR, Reload;
        /// Time for which the result is waited for where the flow answers 202 with an address of its run; then callers get 202 with
        /// an address of the gateway, with "0s" at once. Default: that address is kept back.
        wait: Option<At<Duration>> = None, Duration::ZERO..=HOUR, Reload;
        // Polls of a caller that comes back the next day still find the result.
        /// Time for which the address of a run is valid.
        run_expires: Duration = DAY, SECOND..=secs(30 * 86_400), Reload;
        /// Whether the address of a run also demands the credential of the caller that started it.
        run_credential: bool = false, ANY, Reload;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    Pass,
    Ok,
}

choice!(Accepted: Self::Pass => "pass", Self::Ok => "ok");

/// What becomes of a flow's success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SuccessAnswer {
    /// It passes.
    Flow,
    /// It passes, and 202 becomes 200.
    AcceptedIsOk,
    Fixed(FixedAnswer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedAnswer {
    pub status: StatusCode,
    /// None without a body.
    pub content_type: Option<HeaderValue>,
    pub body: Bytes,
}

/// How results of runs are waited for that the flow answers with 202.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitSettings {
    pub time: Duration,
    /// How long the address of a run is valid.
    pub expires: Duration,
    pub credential: RunCredential,
}

/// What the address of a run demands beside itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunCredential {
    Nothing,
    /// That of the caller that started the run.
    OfCaller,
}

/// The beginning of paths at which runs are asked for; no route has it.
pub const RUNS: &str = "/.flowgate/runs/";
impl Check<'_> {
    pub(super) fn success_answer(&mut self, table: Option<&Table<AnswerTable>>) -> SuccessAnswer {
        let Some(table) = table else {
            return SuccessAnswer::Flow;
        };
        let fixed = FIXED.iter().find_map(|key| table.place(key));
        match (table.accepted, fixed) {
            (Accepted::Pass, None) => SuccessAnswer::Flow,
            (Accepted::Ok, None) => SuccessAnswer::AcceptedIsOk,
            (Accepted::Ok, Some(fixed)) => {
                let flaw = Flaw::new("`accepted` has no meaning where the answer is fixed");
                self.findings.clash(fixed, flaw, table, "the answer");
                SuccessAnswer::Flow
            }
            (Accepted::Pass, Some(_)) => SuccessAnswer::Fixed(self.fixed_answer(table)),
        }
    }

    fn fixed_answer(&mut self, table: &Table<AnswerTable>) -> FixedAnswer {
        let status = table.status.as_ref().and_then(|status| {
            let status = u16::try_from(**status).ok()?;
            StatusCode::from_u16(status).ok()
        });
        let status = status.unwrap_or(StatusCode::OK);
        let body = table.body.as_ref().filter(|body| !body.is_empty());
        if let Some(body) = body {
            if body.len() > BODY_BYTES_MAX {
                let flaw = Flaw::new(format!("the body has more than {BODY_BYTES_MAX} bytes"));
                self.findings.mistake(body, flaw);
            }
            if status == StatusCode::NO_CONTENT {
                let flaw = Flaw::new("an answer with status 204 has no body");
                self.findings.mistake(body, flaw);
            }
            if table.content_type.is_none() {
                let hint = "write for example content_type = \"text/xml\"";
                table.missing("content_type", hint, &mut self.findings);
            }
        }
        let content_type = table.content_type.as_ref().map(|value| {
            if body.is_none() && !table.is_reported("body") {
                let flaw = Flaw::new("`content_type` goes with `body` only");
                self.findings.mistake(value, flaw);
            }
            value.as_header().clone()
        });
        FixedAnswer {
            status,
            content_type,
            body: body.map_or_else(Bytes::new, |body| Bytes::copy_from_slice(body.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FixedAnswer, SuccessAnswer};
    use crate::settings::sample::{Sample, TRIGGER};

    fn answer(lines: &str) -> Sample {
        let route = format!(
            "name = \"a\"\npath = \"/a\"\nanonymous = true\nidentity = \"contoso\"\ntrigger = \"{TRIGGER}\"\n\
             [route.answer]\n{lines}\n"
        );
        Sample::default().with("route", &route)
    }

    fn read(lines: &str) -> SuccessAnswer {
        answer(lines).config().routes.remove(0).success
    }

    #[test]
    fn an_answer_passes_unless_the_settings_say_otherwise() {
        assert_eq!(read(""), SuccessAnswer::Flow);
        assert_eq!(read("accepted = \"pass\""), SuccessAnswer::Flow);
        assert_eq!(read("accepted = \"ok\""), SuccessAnswer::AcceptedIsOk);
    }

    #[test]
    fn a_fixed_answer_has_a_status_and_perhaps_a_body() {
        let fixed = |status: u16, content_type: Option<&'static str>, body: &'static str| {
            SuccessAnswer::Fixed(FixedAnswer {
                status: status.try_into().unwrap(),
                content_type: content_type.map(|text| text.parse().unwrap()),
                body: body.into(),
            })
        };
        assert_eq!(read("status = 204"), fixed(204, None, ""));
        assert_eq!(read("body = \"\""), fixed(200, None, ""));
        let twiml = "content_type = \"text/xml; charset=utf-8\"\nbody = \"\"\"\n<Response/>\"\"\"";
        assert_eq!(
            read(twiml),
            fixed(200, Some("text/xml; charset=utf-8"), "<Response/>")
        );
    }

    #[test]
    fn senders_give_up_when_the_route_says_so() {
        let within = |lines: &str| answer(lines).config().routes.remove(0).answer_within;
        assert_eq!(within(""), None);
        assert_eq!(within("within = \"5s\""), Some(Duration::from_secs(5)));
        assert_eq!(within("within = \"0s\""), Some(Duration::ZERO));
        let long = answer("within = \"2h\"").mistakes();
        assert_eq!(long, ["the value is too large; it must be at most 1h"]);
    }

    #[test]
    fn what_cannot_be_an_answer_is_a_mistake() {
        let long = format!("content_type = \"a/b\"\nbody = \"{}\"", "a".repeat(16 * 1024 + 1));
        for (lines, mistake) in [
            ("status = 404", "the value is too large; it must be at most 204"),
            ("status = 100", "the value is too small; it must be at least 200"),
            ("body = \"x\"", "`content_type` is missing"),
            ("content_type = \"a/b\"", "`content_type` goes with `body` only"),
            (
                "status = 204\ncontent_type = \"a/b\"\nbody = \"x\"",
                "an answer with status 204 has no body",
            ),
            (
                "content_type = \"text/<b>x y\"\nbody = \"x\"",
                "this is not a media type",
            ),
            (
                "accepted = \"ok\"\nstatus = 200",
                "`accepted` has no meaning where the answer is fixed",
            ),
            ("accepted = \"maybe\"", "unknown value"),
            (&long, "the body has more than 16384 bytes"),
        ] {
            assert_eq!(answer(lines).mistakes(), [mistake], "{lines}");
        }
    }
}
