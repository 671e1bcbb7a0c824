//! `[[route]]` as it is written.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;

use crate::model::handshake::Vendor;
use crate::model::{ContentType, FixedPath, Host, MediaRange, Network, PathTemplate, PublicUrl};
use crate::settings::answer::AnswerTable;
use crate::settings::bodies::BODY_SIZE_CEILING;
use crate::settings::content::JSON_DEPTH_CEILING;
use crate::settings::duplicates::DuplicatesTable;
use crate::settings::handshake::Reached;
use crate::settings::kinds::{ANY, At, choice};
use crate::settings::limits::ROUTE_RATE;
use crate::settings::origin::WebOrigin;
use crate::settings::scalars::{DAY, HOUR, MILLISECOND, Rate, Size, secs};
use crate::settings::table::{Table, table};
use crate::settings::word::{Contact, KeyPlace};
use crate::settings::{Checks, ClaimMismatch, RelativePath};

table! {
    /// A public address and the flow behind it.
    pub(crate) struct RouteTable {
        /// Its name in logs and metrics.
        name: Option<At<String>> = None, ANY, Reload;
        /// Host it answers for, without port; default: any.
        host: Option<Host> = None, ANY, Reload;
        /// Scheme and host under which callers know it, for vendors that sign the address: `https://hooks.example.com`; default:
        /// https and `host`.
        public_url: Option<PublicUrl> = None, ANY, Reload;
        /// Whether it serves; if not, its callers get 503 and are asked to repeat.
        enabled: bool = true, ANY, Reload;
        /// Path, for example "/orders", "/orders/{id}" or "/files/{*rest}".
        path: Option<At<PathTemplate>> = None, ANY, Reload;
        /// Methods; default ["POST"].
        methods: Option<At<Vec<At<Method>>>> = None, ANY, Reload;
        /// Names of the callers that may call; all others are refused.
        callers: Option<At<Vec<At<String>>>> = None, ANY, Reload;
        /// Opens the route to everybody; in place of `callers`.
        anonymous: bool = false, ANY, Reload;
        /// Networks that may call, in addition to the caller's own; default: any.
        networks: Option<At<Vec<Network>>> = None, ANY, Reload;
        /// File with more such networks, one a line.
        networks_file: Option<At<String>> = None, ANY, Reload;
        /// Networks that may not call.
        deny_networks: Vec<Network> = Vec::new(), ANY, Reload;
        /// File with more such networks, one a line.
        deny_networks_file: Option<At<String>> = None, ANY, Reload;
        /// Where a key is read: "header:NAME", "authorization", "basic", and for callers with `key_in_url` "query:NAME" or
        /// "path", the segment {key} of `path`; default: header:x-api-key, authorization and basic.
        key_from: Option<At<Vec<At<KeyPlace>>>> = None, ANY, Reload;
        /// Origins of pages that may call it from a browser, such as `https://app.example.com`.
        cors_origins: Vec<At<WebOrigin>> = Vec::new(), ANY, Reload;
        /// Vendors whose handshake is answered here and starts no flow: "graph", "slack", "meta"; default: none.
        handshakes: Vec<At<Vendor>> = Vec::new(), ANY, Reload;
        /// The verify token that is entered at Meta; a reference, "env:NAME", "file:PATH" or "keyvault:ADDRESS".
        verify_token: Option<At<String>> = None, ANY, Reload;
        /// Methods answered with 200 for vendors that test a URL first, "HEAD" or "GET"; default: none.
        reachable: Vec<At<Reached>> = Vec::new(), ANY, Reload;
        /// Whether a request with `x-flowgate-check: true` and valid credentials is answered with what each check says,
        /// and starts nothing.
        checks: Checks = Checks::Refused, ANY, Reload;
        /// Its rate over all callers.
        rate: Rate = ROUTE_RATE, ANY, Reload;
        // Enough for a webhook; larger bodies must be asked for.
        /// Largest body, at most 104857600 bytes.
        body_size_max: Size = Size::kib(1024), Size::new(0)..=BODY_SIZE_CEILING, Reload;
        /// Types of bodies that are accepted: "application/json", "text/*"; default: any, also none.
        content_types: Option<At<Vec<At<MediaRange>>>> = None, ANY, Reload;
        /// Content-Type that the flow gets in place of the caller's, for senders of JSON that call it otherwise.
        content_type_as: Option<At<ContentType>> = None, ANY, Reload;
        // Each of the next four makes the gateway read the bodies of the route.
        /// File with a JSON Schema (draft 2020-12) that bodies must fit; it refers to nothing outside.
        json_schema: Option<At<String>> = None, ANY, Reload;
        /// Deepest nesting of JSON; default 64 where the gateway reads the body, which this key makes it do.
        json_depth_max: Option<usize> = None, 1..=JSON_DEPTH_CEILING, Reload;
        /// Whether members of JSON objects whose value is null are left out.
        drop_nulls: bool = false, ANY, Reload;
        /// Whether forms (application/x-www-form-urlencoded) become JSON.
        form_to_json: bool = false, ANY, Reload;
        /// What is behind it: "flow", or "api" for an API of Microsoft's that wants a token.
        kind: RouteKindWord = RouteKindWord::Flow, ANY, Reload;
        /// Whom its callers can ask, in every problem: "mailto:integration@example.com" or a sentence.
        contact: Option<Contact> = None, ANY, Reload;
        /// What callers get where the flow accepted or succeeded.
        answer: Option<Table<AnswerTable>> = None, ANY, Reload;
        /// Name of the identity whose token starts the flow, or is sent to the API.
        identity: Option<At<String>> = None, ANY, Reload;
        /// Object ids on the list of a trigger set to "Specific users in my tenant"; the token's is compared with them.
        /// Default: not known.
        object_ids: Option<At<Vec<At<String>>>> = None, ANY, Reload;
        /// What happens to calls while a claim of the token cannot match: "try" or "refuse".
        on_claim_mismatch: ClaimMismatch = ClaimMismatch::Try, ANY, Reload;
        /// The trigger's address carries its own signature; in place of `identity`.
        signed: bool = false, ANY, Reload;
        /// Address of the trigger as the flow shows it; with a signature only as "env:NAME", "file:PATH" or
        /// "keyvault:ADDRESS".
        trigger: Option<At<String>> = None, ANY, Reload;
        /// Address of the API, with the path before what callers ask for: `https://graph.microsoft.com/v1.0`.
        upstream: Option<At<String>> = None, ANY, Reload;
        /// Paths of the API behind `upstream` that may be asked for, where the route's path ends in {*rest}:
        /// "/users/{id}". All others are refused.
        paths: Option<At<Vec<At<PathTemplate>>>> = None, ANY, Reload;
        /// Path of the API, one of `paths`, that `flowgate doctor --live` asks for with GET and the token; "/" is
        /// `upstream` itself. Default: none, and the API is not asked.
        probe: Option<At<FixedPath>> = None, ANY, Reload;
        /// Whether the rest of a path that ends in {*rest} is appended to the trigger's path.
        relative_path: RelativePath = RelativePath::Dropped, ANY, Reload;
        /// Query parameters of the caller that go on: names, or ["*"] for all; default: none to a flow, all to an API.
        query: Option<Vec<At<String>>> = None, ANY, Reload;
        /// PEM file with the certificate authorities trusted for the trigger, in place of the system's.
        ca_file: Option<At<String>> = None, ANY, Reload;
        // What a trigger answers at one time before waiting grows.
        /// Requests to the trigger at one time, shared fairly between callers; of those whose body is still arriving
        /// three quarters, and half for one caller.
        in_flight_max: usize = 100, 1..=100_000, Reload;
        // Two rounds of in_flight_max.
        /// Requests that may wait for one of those.
        waiting_max: usize = 200, 0..=1_000_000, Reload;
        // Longer waits make callers give up and send again.
        /// Time a request may wait.
        waiting_timeout: Duration = secs(5), MILLISECOND..=HOUR, Reload;
        /// Address to connect to in place of what the trigger's name resolves to, for private endpoints whose names
        /// public DNS does not know. The certificate must still carry the trigger's name.
        connect_to: Option<SocketAddr> = None, ANY, Reload;
        /// Time for name look-up, TCP and TLS to the trigger.
        connect_timeout: Duration = secs(5), MILLISECOND..=HOUR, Reload;
        // A flow must answer within 120 s; its own time-out answer should arrive before ours.
        /// Time from the end of the request to the head of the answer, and between two pieces of its body.
        response_timeout: Duration = secs(125), MILLISECOND..=HOUR, Reload;
        // Shorter than the platform's own idle limit, so that a request rarely meets a closing connection.
        /// Time an unused connection to the trigger is kept.
        upstream_idle_timeout: Duration = secs(60), MILLISECOND..=DAY, Reload;
        /// How a delivery that comes twice is recognized; default: each request is one of its own.
        duplicates: Option<Table<DuplicatesTable>> = None, ANY, Reload;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteKindWord {
    Flow,
    Api,
}

choice!(RouteKindWord: Self::Flow => "flow", Self::Api => "api");
