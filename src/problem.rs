//! The one table of answers the gateway gives itself (RFC 9457): status, code and words for callers. What happened inside
//! stays in the cause, which a [`Problem`] carries beside its row.

mod answer;

use http::StatusCode;
use serde::Serialize;

pub use answer::{LimitNotice, NAMES, Problem};

use crate::model::{FixedBy, Page, failures};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Credential,
    Request,
    /// A rule of the gateway that a better credential would not change.
    Policy,
    Time,
    /// Nothing the caller did; the operator has the cause in the log.
    NotYourFault,
}

impl Reason {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Request => "request",
            Self::Policy => "policy",
            Self::Time => "time",
            Self::NotYourFault => "not-your-fault",
        }
    }
}

/// Whether the same request may be sent again: only when no run can have started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// No run has started, and the same request can succeed later.
    Later,
    /// It would fail the same way, or a run may have started.
    No,
}

/// Whether a request started a run, which is what repeating it would do twice. Where an API takes the place of a flow,
/// whether it was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Run {
    /// The request was refused before a run.
    No,
    /// Something is known that only a run reaches.
    Yes,
    /// Not known; treat it as started.
    Unknown,
}

impl Run {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug)]
pub struct Row {
    pub status: StatusCode,
    /// Stable code in body, log and metrics.
    pub code: &'static str,
    pub reason: Reason,
    pub again: Again,
    pub title: &'static str,
    pub fixed_by: FixedBy,
    pub fix: &'static str,
}

const KEY: &str = "Send the key that `flowgate key new` printed, where the route reads it; `flowgate routes` shows who may call.";
pub(crate) const REQUEST: &str =
    "Read `problem` and `cause` of these requests in the access log; the caller has to change the request.";
const RUNS: &str = "Read `cause` of these requests in the access log, and look at the flow's run history.";
const CAUSE: &str = "Read `cause` of these requests in the access log; `flowgate doctor --live` goes the same way step by step.";

macro_rules! problems {
    ($($(#[$doc:meta])* $kind:ident $status:ident $code:literal $reason:ident $again:ident $title:literal
        $fixed_by:ident $fix:expr;)+) => {
        /// Every answer the gateway gives itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),+];

            pub const fn row(self) -> &'static Row {
                match self {
                    $(Kind::$kind => const {
                        &Row {
                            status: StatusCode::$status,
                            code: $code,
                            reason: Reason::$reason,
                            again: Again::$again,
                            title: $title,
                            fixed_by: FixedBy::$fixed_by,
                            fix: $fix,
                        }
                    },)+
                }
            }
        }
    };
}

problems! {
    MalformedRequest BAD_REQUEST "malformed-request" Request No
        "The request is malformed or ambiguous." Caller REQUEST;
    /// The flow's own schema refused the body (`TriggerInputSchemaMismatch`).
    BodyRefusedByFlow BAD_REQUEST "body-refused-by-flow" Request No
        "The body does not match the schema that the flow expects; no run was started." Caller REQUEST;
    /// It is no JSON, nested too deeply, has a key twice, or the route's schema does not allow it.
    BodyInvalid BAD_REQUEST "body-invalid" Request No
        "The body is not one that this address accepts; the detail names the places." Caller REQUEST;
    /// A route that recognizes duplicates found no id, or two.
    DeliveryIdMissing BAD_REQUEST "delivery-id-missing" Request No
        "The request has no usable delivery id, by which this address recognizes duplicates." Caller REQUEST;
    KeyMissing UNAUTHORIZED "key-missing" Credential No
        "This address needs an API key and the request carries none where it is read." Caller KEY;
    KeyUnknown UNAUTHORIZED "key-unknown" Credential No
        "The API key is not known." Caller KEY;
    KeyExpired UNAUTHORIZED "key-expired" Credential No
        "The API key has expired, is not valid yet or was switched off." Caller KEY;
    KeysDiffer UNAUTHORIZED "keys-differ" Credential No
        "The request carries two different API keys; send exactly one." Caller KEY;
    SignatureInvalid UNAUTHORIZED "signature-invalid" Credential No
        "The signature of the request is missing or not valid." Caller
        "Read `cause` of these requests in the access log: it names what was checked and with which secret. Compare the secret \
            with the one that the vendor shows, and `flowgate check` with the vendor's page in docs/vendors.md.";
    /// A challenge of a vendor that cannot be answered. The cause says why; the caller learns nothing of it.
    HandshakeRefused BAD_REQUEST "handshake-refused" Request No
        "The request looks like the handshake of a webhook and cannot be answered." Caller
        "Read `cause` of these requests in the access log. A vendor's own challenge is refused only if `verify_token` of the \
            route is another than the vendor sends, or its secret is no longer in force.";
    CallerNotAllowed FORBIDDEN "caller-not-allowed" Policy No
        "The API key is valid, but its owner may not call this address."
        Operator "Add the caller to `callers` of the route if it may call it; the access log names it as `caller`.";
    /// It has `x-flowgate-check`, which the route does not answer. A flow that its sender takes for tested must not start.
    ChecksOff FORBIDDEN "checks-off" Policy No
        "This address answers no checks (x-flowgate-check); nothing was started."
        Operator "Set `checks = true` for the route and reload, or have the caller leave out `x-flowgate-check`.";
    AddressRefused FORBIDDEN "address-refused" Policy No
        "Requests from this network address are not accepted here."
        Operator "Add the caller's network to `networks` of the route or the caller; the access log has its `address`. \
            Behind a load balancer it is the balancer's.";
    RouteUnknown NOT_FOUND "route-unknown" Request No
        "There is nothing at this address." Caller REQUEST;
    /// The address of a run that no secret opens, or that leads to nothing any more.
    RunUnknown NOT_FOUND "run-unknown" Credential No
        "There is no run at this address." Caller
        "Read `cause` of these requests in the access log. Where the address is one of this gateway, its route was removed or \
            leads to another host, its caller was removed from the route, or the secret that sealed it is not in `run_addresses` any more.";
    RunExpired GONE "run-expired" Time No
        "The address of the run has expired." Caller
        "Raise `run_expires` in `[route.answer]` if callers ask later. The run history of the flow has the result.";
    MethodNotAllowed METHOD_NOT_ALLOWED "method-not-allowed" Request No
        "This address does not accept this method; see the Allow header." Caller REQUEST;
    BodyTimeout REQUEST_TIMEOUT "body-timeout" Time Later
        "The body of the request did not arrive in time." Caller REQUEST;
    /// An earlier request with the same id has no answer yet.
    DeliveryInFlight CONFLICT "delivery-in-flight" Time Later
        "The same delivery is being handled; repeat it later to get its answer."
        Caller "Nothing: anyone who repeats the delivery later gets the answer of its first request, which `cause` names.";
    BodyTooLarge PAYLOAD_TOO_LARGE "body-too-large" Policy No
        "The body is larger than this address accepts." Caller REQUEST;
    TargetTooLong URI_TOO_LONG "target-too-long" Request No
        "The address of the request is too long." Caller REQUEST;
    /// Its type is not one of the route's, or it is compressed where it is read.
    BodyTypeRefused UNSUPPORTED_MEDIA_TYPE "body-type-refused" Request No
        "The body has a type or an encoding that this address does not accept." Caller REQUEST;
    ExpectationFailed EXPECTATION_FAILED "expectation-failed" Request No
        "The Expect header asks for something other than 100-continue." Caller REQUEST;
    DeliveryIdReused UNPROCESSABLE_ENTITY "delivery-id-reused" Request No
        "The delivery id was used for another request before." Caller REQUEST;
    RateLimited TOO_MANY_REQUESTS "rate-limited" Time Later
        "Too many requests; wait for the time in Retry-After."
        Operator "Raise the limit that the access log names as `limit`, or have the caller slow down.";
    HeadTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE "head-too-large" Request No
        "The request has too many or too large header fields." Caller REQUEST;
    Internal INTERNAL_SERVER_ERROR "internal" NotYourFault No
        "The gateway failed to handle the request." Operator CAUSE;
    TokenRefused BAD_GATEWAY "token-refused" NotYourFault Later
        "The gateway could not sign in to the flow service; its operator must act." Operator CAUSE;
    /// The token cannot be what the trigger compares with, and the route refuses calls then.
    TokenUnfit BAD_GATEWAY "token-unfit" NotYourFault Later
        "The sign-in of the gateway does not fit the flow; its operator must act." Operator CAUSE;
    TokenUnavailable SERVICE_UNAVAILABLE "token-unavailable" NotYourFault Later
        "The gateway cannot sign in to the flow service right now." Operator CAUSE;
    FlowRefusedToken BAD_GATEWAY "flow-refused-token" NotYourFault Later
        "The flow does not accept the sign-in of the gateway; its operator or the flow's owner must act."
        Operator CAUSE;
    ApiRefusedToken BAD_GATEWAY "api-refused-token" NotYourFault Later
        "The API behind this address does not accept the sign-in of the gateway; its operator must act."
        Operator CAUSE;
    FlowMisconfigured BAD_GATEWAY "flow-misconfigured" NotYourFault Later
        "The flow behind this address is not set up for the gateway; its operator must act." Operator CAUSE;
    FlowOff SERVICE_UNAVAILABLE "flow-off" NotYourFault Later
        "The flow behind this address is switched off; no run was started." FlowOwner RUNS;
    FlowGone BAD_GATEWAY "flow-gone" NotYourFault Later
        "The flow behind this address does not exist any more; its operator must act." Operator CAUSE;
    FlowThrottled SERVICE_UNAVAILABLE "flow-throttled" Time Later
        "The flow platform accepts no more requests for this flow at the moment." Operator CAUSE;
    /// The flow ran and did not answer (`NoResponse`).
    FlowNoResponse BAD_GATEWAY "flow-no-response" NotYourFault No
        "The flow did not give an answer; a run has probably started." FlowOwner RUNS;
    FlowTimeout GATEWAY_TIMEOUT "flow-timeout" NotYourFault No
        "The flow did not answer in time; a run may have started." FlowOwner RUNS;
    /// The flow may go on: the time is that of the sender, or of `within`.
    AnswerOverdue GATEWAY_TIMEOUT "answer-overdue" NotYourFault No
        "The flow did not answer before its sender gives up." FlowOwner
        "Have the flow answer at once: with a Response action as its first step, or without any and `accepted = \"ok\"` in \
            `[route.answer]`. What it answered later is `flow_status` of the line; `within` of that table changes the time.";
    /// The platform failed, or its answer says nothing known.
    FlowFailed BAD_GATEWAY "flow-failed" NotYourFault No
        "The flow platform failed; a run may have started." Operator CAUSE;
    FlowUnreachable BAD_GATEWAY "flow-unreachable" NotYourFault Later
        "The flow platform cannot be reached; nothing was sent." Operator CAUSE;
    FlowConnectTimeout GATEWAY_TIMEOUT "flow-connect-timeout" NotYourFault Later
        "The flow platform did not accept a connection in time; nothing was sent." Operator CAUSE;
    /// The answer is not valid HTTP, or can be read in two ways.
    FlowAnswerInvalid BAD_GATEWAY "flow-answer-invalid" NotYourFault No
        "The flow platform gave an answer that cannot be trusted; a run may have started." Operator CAUSE;
    /// The connection to the trigger was lost after the request had begun to leave.
    FlowConnectionLost BAD_GATEWAY "flow-connection-lost" NotYourFault No
        "The connection to the flow platform was lost; a run may have started." Operator CAUSE;
    /// Every permit and every waiting place of the trigger is taken.
    FlowBusy SERVICE_UNAVAILABLE "flow-busy" Time Later
        "Too many requests for this flow are under way." Operator CAUSE;
    /// The certificate with which the vendor signs, or the page that confirms a subscription, cannot be fetched.
    VendorUnavailable SERVICE_UNAVAILABLE "vendor-unavailable" NotYourFault Later
        "A service of the sender that this request needs cannot be used at the moment." Operator
        "Read `cause` of these requests in the access log: it names the address. The gateway must reach it over HTTPS; where \
            TLS is inspected on the way, set `ca_file` of [caller.signature].";
    /// The settings have `enabled = false` for it.
    RouteDisabled SERVICE_UNAVAILABLE "route-disabled" Time Later
        "This address is switched off at the moment." Operator
        "Set `enabled = true` for the route, or remove the line, and reload.";
    /// The memory for held bodies is spent.
    GatewayBusy SERVICE_UNAVAILABLE "gateway-busy" Time Later
        "The gateway is handling too much at the moment." Operator CAUSE;
}

failures! {
    /// What the log names as `problem` where there was no answer of ours.
    ENDINGS:
    FLOW_CUT "flow-cut" "" FlowOwner AfterFix Page::NONE,
        "the answer of the flow broke off on its way, so the caller's connection was cut",
        "Look at the run in the run history: its answer broke off on the way.";
    CALLER_GONE "caller-gone" "" Caller AfterFix Page::NONE,
        "the caller closed the connection before it had its answer",
        "Raise the time that the caller waits, or have the flow answer earlier. A run may have started.";
}

impl Kind {
    /// Whether a run was started, unless the problem knows better.
    pub const fn run(self) -> Run {
        match self {
            // Nothing but a run ends without an answer.
            Self::FlowNoResponse => Run::Yes,
            Self::Internal
            | Self::FlowTimeout
            | Self::AnswerOverdue
            | Self::FlowFailed
            | Self::FlowAnswerInvalid
            | Self::FlowConnectionLost => Run::Unknown,
            // Refused by us, by Entra or by the platform before the flow; a body that breaks off is no request.
            _ => Run::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Again, Kind, Reason, Run};

    #[test]
    fn codes_are_unique() {
        let codes: HashSet<_> = Kind::ALL.iter().map(|kind| kind.row().code).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
    }

    #[test]
    fn callers_are_blamed_only_for_what_they_can_fix() {
        for kind in Kind::ALL {
            let row = kind.row();
            let blamed = row.status.is_client_error();
            assert_eq!(
                blamed,
                row.reason != Reason::NotYourFault && !row.status.is_server_error(),
                "{} answers {} for {:?}",
                row.code,
                row.status,
                row.reason
            );
        }
    }

    #[test]
    fn only_what_started_no_run_may_be_sent_again() {
        for kind in Kind::ALL {
            assert!(
                kind.row().again == Again::No || kind.run() == Run::No,
                "{}",
                kind.row().code
            );
        }
    }
}
