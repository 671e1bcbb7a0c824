//! Faults of a trigger at the protocol level, one row each, over HTTP/1.1 and over HTTP/2 towards the caller.
//! Whatever happens, the caller gets one clean problem or a visibly cut answer, the connection is not reused,
//! nothing of it reaches the next request, and the log line names the fault.

mod caller;
mod chunks;
mod connecting;
mod endings;
mod heads;
mod interim;
mod leftovers;
mod lengths;
mod redirects;
mod tracking;
mod uploads;

use serde_json::{Value, json};

use crate::emulator::Answer as Flow;
use crate::emulator::steps::Step;
use crate::emulator::{Steps, Trigger, TriggerHandle};
use crate::harness::{Running, TENANT, World};
use crate::upstream::caller::{Caller, End, Protocol, Seen};

/// A problem for everything that is not HTTP/1 or is ambiguous.
pub(crate) const INVALID: Verdict = Verdict::Refused("flow-answer-invalid");
/// A problem for a connection that ends before the head of the answer does.
pub(crate) const LOST: Verdict = Verdict::Refused("flow-connection-lost");
/// The route's setting for how long an answer may take.
pub(crate) const IMPATIENT: &str = "response_timeout = \"500ms\"";
/// More than all buffers on the way can hold, so that it is sent only if someone consumes it. Bytes.
pub(crate) const ENDLESS: usize = 64 << 20;

/// What the caller must see of a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// This problem.
    Refused(&'static str),
    /// A broken transfer, or a problem if the fault is noticed before the head was sent to the caller.
    Cut,
    /// This status and body, or a refusal: the fault comes at or after the end of a complete answer.
    Alone(u16, &'static str),
    /// This status and body, and the connection stays usable: it is not a fault.
    Harmless(u16, &'static str),
}

/// One fault.
pub(crate) struct Fault {
    /// What the trigger does.
    pub(crate) answer: Flow,
    /// What the caller sees.
    pub(crate) verdict: Verdict,
    /// Words of which the log's cause contains at least one.
    pub(crate) words: &'static [&'static str],
    /// The method of the request.
    pub(crate) method: &'static str,
    /// More settings of the route.
    pub(crate) route: &'static str,
}

impl Fault {
    pub(crate) fn new(answer: impl Into<Flow>, verdict: Verdict) -> Self {
        Self {
            answer: answer.into(),
            verdict,
            words: &[],
            method: "POST",
            route: "",
        }
    }

    /// Sets words of which the log's cause contains one.
    pub(crate) fn logged(self, words: &'static [&'static str]) -> Self {
        Self { words, ..self }
    }

    pub(crate) fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub(crate) fn route(self, route: &'static str) -> Self {
        Self { route, ..self }
    }

    /// Whether it sends more than anybody should accept.
    fn is_endless(&self) -> bool {
        let Flow::Steps(steps) = &self.answer else {
            return false;
        };
        let much =
            |step: &Step| matches!(step, Step::Repeat { bytes, times } if bytes.len() * times > ENDLESS / 2);
        steps.list.iter().any(much)
    }

    /// Makes the trigger commit the fault on a connection that has served before, and checks everything
    /// around it.
    pub(crate) async fn ends_well(self) {
        let stand = Stand::new(self.route).await;
        for protocol in [Protocol::Http1, Protocol::Http2] {
            stand.commit(protocol, &self).await;
        }
        stand.world.emulator.assert_script_done();
    }
}

/// Defines a test for each row: name, what the trigger does, what the caller sees, and words of which the log
/// contains one.
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident: $answer:expr => $verdict:expr $(, $words:expr)?;)+) => {
        $(
            $(#[$doc])*
            #[tokio::test]
            async fn $name() {
                let fault = $crate::upstream::Fault::new($answer, $verdict);
                fault$(.logged(&$words))?.ends_well().await;
            }
        )+
    };
}
pub(crate) use faults;

/// These bytes, after which the connection stays open for reuse.
pub(crate) fn bytes(bytes: impl AsRef<[u8]>) -> Steps {
    Steps::new().send(bytes.as_ref().to_vec())
}

/// `piece` repeated, about 64 MiB of it.
pub(crate) fn endless(before: &str, piece: &str) -> Steps {
    let block = piece.repeat((64 << 10) / piece.len());
    let times = ENDLESS / block.len();
    bytes(before).repeat(block, times)
}

/// A gateway with one worker, so that all requests share one pool, and a route to one trigger.
pub(crate) struct Stand {
    pub(crate) world: World,
    pub(crate) gateway: Running,
    pub(crate) trigger: TriggerHandle,
}

impl Stand {
    /// `more` adds keys to the route.
    pub(crate) async fn new(more: &str) -> Self {
        let world = World::new().await;
        let trigger = world
            .emulator
            .flow
            .add(Trigger::any_user(TENANT).methods(&["POST", "HEAD", "GET"]));
        world.emulator.flow.strict();
        let one = world.base().replace("workers = 2", "workers = 1");
        assert!(one.contains("workers = 1"), "{one}");
        let more = format!("methods = [\"POST\", \"HEAD\", \"GET\"]\nbody_size_max = \"32 MiB\"\n{more}");
        let route = world.route("orders", "/orders", &trigger.url(), &more);
        let gateway = world.start(&format!("{one}{route}"));
        gateway.ready().await;
        Self {
            world,
            gateway,
            trigger,
        }
    }

    /// A request that the trigger answers properly, which leaves an open connection to the trigger.
    pub(crate) async fn ordinary(&self, caller: &mut Caller, name: &str) -> u64 {
        let own = json!({ "order": name });
        self.trigger.next(Flow::json(200, &own));
        let seen = caller.send(&self.gateway, "POST", b"{}").await;
        assert_eq!(
            (seen.status, seen.end.clone()),
            (Some(200), End::Whole),
            "{seen:?}"
        );
        assert_eq!(seen.json(), own, "an answer that is not its own");
        self.trigger.last_request().connection
    }

    async fn commit(&self, protocol: Protocol, fault: &Fault) {
        let mut caller = Caller::connect(&self.gateway, protocol).await;
        let before = self.ordinary(&mut caller, "before").await;
        let requests = self.trigger.requests().len();
        let written = self.world.emulator.flow.written().get();

        self.trigger.next(fault.answer.clone());
        let seen = caller.send(&self.gateway, fault.method, b"{}").await;
        let faulty = self.trigger.last_request();
        assert_eq!(faulty.connection, before, "the pool has a connection to lend");
        let after = self.ordinary(&mut caller, "after").await;

        let outcome = fault.verdict.check(&seen, protocol);
        assert_eq!(
            self.trigger.requests().len(),
            requests + 2,
            "each request is sent once"
        );
        let harmless = matches!(fault.verdict, Verdict::Harmless(..));
        assert_eq!(after == faulty.connection, harmless, "{protocol:?}: used again");
        // Only the connection of the request after the fault is left.
        self.world.emulator.flow.listener().open().settled_at(1).await;
        if fault.is_endless() {
            assert_eq!(
                self.world.emulator.flow.written().get(),
                written,
                "all of it was swallowed"
            );
        }
        let line = self.line(&seen, protocol).await;
        outcome.check_line(&line, fault.words);
    }

    /// The line of the request; if the answer was cut, the head with the request's id may be missing.
    pub(crate) async fn line(&self, seen: &Seen, protocol: Protocol) -> Value {
        let id = seen.header("x-request-id").map(str::to_owned);
        let fits = |line: &Value| match &id {
            Some(id) => line["request"] == id.as_str(),
            None => line["protocol"] == protocol.as_str() && line["end"] == "flow-cut",
        };
        self.gateway.lines.wait_for(fits).await
    }
}

/// What the caller saw, in the log's terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    Problem(&'static str),
    Cut,
    Whole,
}

impl Verdict {
    /// Fails unless the caller saw what it must.
    pub(crate) fn check(self, seen: &Seen, protocol: Protocol) -> Outcome {
        match (self, &seen.end) {
            (Self::Refused(code), End::Whole) => is_problem(seen, code),
            (Self::Cut, End::Broken(_)) => Outcome::Cut,
            (Self::Cut, End::Whole) if seen.is_problem() => {
                let lost = seen.code() == "flow-connection-lost";
                is_problem(
                    seen,
                    if lost {
                        "flow-connection-lost"
                    } else {
                        "flow-answer-invalid"
                    },
                )
            }
            (Self::Alone(..), End::Whole) if seen.is_problem() => is_problem(seen, "flow-answer-invalid"),
            (Self::Alone(status, body) | Self::Harmless(status, body), End::Whole) => {
                assert_eq!(
                    (seen.status, seen.text().as_str()),
                    (Some(status), body),
                    "{protocol:?}"
                );
                Outcome::Whole
            }
            _ => panic!("{protocol:?}: {self:?} is wanted, but this was seen: {seen:?}"),
        }
    }
}

/// Checks that it is the gateway's own answer, complete in every respect.
fn is_problem(seen: &Seen, code: &'static str) -> Outcome {
    assert!(seen.is_problem(), "no problem but {seen:?}");
    let body = seen.json();
    assert_eq!(body["code"], code, "{seen:?}");
    assert_eq!(body["status"].as_u64(), seen.status.map(u64::from), "{seen:?}");
    assert_eq!(seen.header("x-flowgate-answer"), Some("gateway"), "{seen:?}");
    let unsent = ["flow-unreachable", "flow-connect-timeout"].contains(&code);
    assert_eq!(body["retryable"], unsent, "a run may have started: {seen:?}");
    assert_eq!(
        body["run_started"],
        if unsent { "no" } else { "unknown" },
        "{seen:?}"
    );
    Outcome::Problem(code)
}

impl Outcome {
    /// Checks that the line says how it ended, and why in words about this fault.
    pub(crate) fn check_line(self, line: &Value, words: &[&str]) {
        match self {
            Self::Problem(code) => assert_eq!(line["problem"], code, "{line}"),
            Self::Cut => assert_eq!(line["end"], "flow-cut", "{line}"),
            Self::Whole => {
                assert_eq!(line["end"], "complete", "{line}");
                return;
            }
        }
        let cause = line["cause"].as_str().unwrap_or_default().to_lowercase();
        assert!(
            words.iter().any(|word| cause.contains(word)),
            "the cause {cause:?} has none of {words:?}"
        );
    }
}
