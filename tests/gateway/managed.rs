//! Managed identities: each platform is called as it documents, each of its failures is reported with who
//! fixes it, and a key file for Azure Arc's agent is read only from the folder of its keys.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::emulator::Answer as Flow;
use crate::emulator::managed::IDENTITY_HEADER;
use crate::emulator::{
    ManagedAnswer, ManagedEndpoint, ManagedIdentity, Platform, Reply, Trigger, TriggerHandle, jwt,
};
use crate::harness::{Running, TENANT, World};
use crate::secrets::listen;

/// The machine's system-assigned identity.
pub fn own() -> ManagedIdentity {
    identity("aaaaaaaa-0000-4000-8000-000000000001", "own")
}

/// A user-assigned identity.
pub fn assigned() -> ManagedIdentity {
    identity("aaaaaaaa-0000-4000-8000-000000000002", "assigned")
}

fn identity(client_id: &str, name: &str) -> ManagedIdentity {
    ManagedIdentity {
        tenant: TENANT.to_owned(),
        client_id: client_id.to_owned(),
        oid: client_id.replace("aaaaaaaa", "bbbbbbbb"),
        resource_id: format!(
            "/subscriptions/1/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        ),
    }
}

/// A world with one platform, and settings for the identity `machine` on it.
struct Machine {
    world: World,
    endpoint: ManagedEndpoint,
    trigger: TriggerHandle,
    /// Keys of `[identity.managed]`.
    table: String,
}

impl Machine {
    async fn imds() -> Self {
        let world = World::new().await;
        let endpoint = ManagedEndpoint::start(Platform::Imds, &world.emulator.entra, Some(own())).await;
        let table = format!("source = \"imds\"\nendpoint = \"{}\"\n", endpoint.endpoint());
        Self::of(world, endpoint, table)
    }

    async fn app_service() -> Self {
        let mut world = World::new().await;
        let endpoint = ManagedEndpoint::start(Platform::AppService, &world.emulator.entra, Some(own())).await;
        world
            .secrets
            .push(("IDENTITY_ENDPOINT".into(), endpoint.identity_endpoint()));
        world
            .secrets
            .push(("IDENTITY_HEADER".into(), IDENTITY_HEADER.into()));
        Self::of(world, endpoint, String::new())
    }

    async fn arc() -> Self {
        let world = World::new().await;
        let folder = world.dir().join("tokens");
        std::fs::create_dir(&folder).unwrap();
        let platform = Platform::Arc(folder.clone());
        let endpoint = ManagedEndpoint::start(platform, &world.emulator.entra, Some(own())).await;
        let table = format!(
            "source = \"arc\"\nendpoint = \"{}\"\narc_token_folder = {folder:?}\n",
            endpoint.endpoint()
        );
        Self::of(world, endpoint, table)
    }

    fn of(world: World, endpoint: ManagedEndpoint, table: String) -> Self {
        let trigger = world
            .emulator
            .flow
            .add(Trigger::any_user(TENANT).does(Flow::Accepted));
        Self {
            world,
            endpoint,
            trigger,
            table,
        }
    }

    fn folder(&self) -> PathBuf {
        self.world.dir().join("tokens")
    }

    fn start(&self, more: &str) -> Running {
        self.start_within("10s", more)
    }

    fn start_within(&self, timeout: &str, more: &str) -> Running {
        let identity = format!(
            "[[identity]]\nname = \"machine\"\ntimeout = \"{timeout}\"\n[identity.managed]\n{}{more}\n",
            self.table
        );
        let route = self
            .world
            .route("orders", "/orders", &self.trigger.url(), "identity = \"machine\"");
        self.world.start_with(&format!("{identity}{route}"))
    }

    /// A claim of the token that the flow received last.
    fn shown(&self, claim: &str) -> Value {
        let request = self.trigger.last_request();
        let claims = jwt::unverified_claims(request.bearer().unwrap()).unwrap();
        claims[claim].clone()
    }
}

/// Calls once, and returns status, code and the cause from the log.
async fn refused(gateway: &Running) -> (u16, String) {
    let answer = gateway.post("/orders", "{}").await;
    let line = gateway.lines.of(&answer).await;
    let cause = line["cause"].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), cause)
}

#[tokio::test]
async fn imds_is_asked_as_it_documents() {
    let machine = Machine::imds().await;
    let gateway = machine.start("");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(machine.shown("appid"), own().client_id);
    assert_eq!(machine.shown("aud"), "https://service.flow.microsoft.com/");
    let head = machine.endpoint.seen()[0].clone();
    assert_eq!(
        head.target,
        "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fservice.flow.microsoft.com%2F"
    );
    assert_eq!(head.header("metadata"), Some("true"));
    assert_eq!(machine.endpoint.requests().get(), 1);
}

#[tokio::test]
async fn app_service_is_found_by_its_variables_and_asked_as_it_documents() {
    let machine = Machine::app_service().await;
    let gateway = machine.start("");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(machine.shown("appid"), own().client_id);
    let head = machine.endpoint.seen()[0].clone();
    assert_eq!(
        head.target,
        "/msi/token/?api-version=2019-08-01&resource=https%3A%2F%2Fservice.flow.microsoft.com%2F"
    );
    assert_eq!(head.header("x-identity-header"), Some(IDENTITY_HEADER));
    assert_eq!(head.header("metadata"), None);
    // The answer has no `expires_in`, so the lifetime comes from the date.
    let left = left(&gateway).await;
    assert!((3500..3600).contains(&left), "{left}");
}

/// How long the token is still valid, in seconds.
async fn left(gateway: &Running) -> u64 {
    let (_, body) = gateway.admin("/readyz?verbose").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let identities = body["identities"].as_array().unwrap();
    let machine = identities.iter().find(|one| one["name"] == "machine").unwrap();
    machine["expires_in_seconds"].as_u64().unwrap()
}

#[tokio::test]
async fn an_expiry_that_is_written_as_a_date_is_accepted() {
    for form in ["%m/%d/%Y %H:%M:%S +00:00", "%-m/%-d/%Y %-I:%M:%S %p +00:00"] {
        let machine = Machine::app_service().await;
        let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2);
        let body = serde_json::json!({
            "access_token": "opaque", "token_type": "Bearer", "expires_on": ends.strftime(form).to_string(),
        });
        machine
            .endpoint
            .always(ManagedAnswer::Reply(Reply::json(200, &body)));
        let gateway = machine.start("");
        gateway.ready().await;
        let left = left(&gateway).await;
        assert!((7100..=7200).contains(&left), "{form}: {left}");
    }
}

#[tokio::test]
async fn the_arc_agent_gets_the_key_that_it_asks_for() {
    let machine = Machine::arc().await;
    let heard = listen();
    let gateway = machine.start("");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(machine.shown("appid"), own().client_id);
    let seen = machine.endpoint.seen();
    assert_eq!(seen.len(), 2);
    for head in &seen {
        assert_eq!(
            head.target,
            "/metadata/identity/oauth2/token?api-version=2020-06-01&resource=https%3A%2F%2Fservice.flow.microsoft.com%2F"
        );
        assert_eq!(head.header("metadata"), Some("true"));
    }
    assert_eq!(seen[0].header("authorization"), None);
    let shown = seen[1].header("authorization").unwrap();
    assert!(shown.starts_with("Basic "), "{shown}");
    assert!(!gateway.lines.all().concat().contains(&shown[6..]));
    assert!(!heard.text().contains(&shown[6..]));
}

#[tokio::test]
async fn a_user_assigned_identity_is_selected_in_the_words_of_each_platform() {
    let keys = [("client_id", 0), ("object_id", 1), ("resource_id", 2)];
    for (machine, names) in [
        (Machine::imds().await, ["client_id", "object_id", "msi_res_id"]),
        (
            Machine::app_service().await,
            ["client_id", "principal_id", "mi_res_id"],
        ),
        (Machine::arc().await, ["client_id", "object_id", "msi_res_id"]),
    ] {
        machine.endpoint.assign(assigned());
        let values = [assigned().client_id, assigned().oid, assigned().resource_id];
        for (key, at) in keys {
            let gateway = machine.start(&format!("{key} = \"{}\"", values[at]));
            assert_eq!(gateway.post("/orders", "{}").await.status, 202, "{key}");
            assert_eq!(machine.shown("appid"), assigned().client_id, "{key}");
            let target = machine.endpoint.seen().last().unwrap().target.clone();
            assert!(target.contains(&format!("&{}=", names[at])), "{target}");
        }
    }
}

#[tokio::test]
async fn each_refusal_of_imds_names_the_place_the_reason_and_who_fixes_it() {
    let machine = Machine::imds().await;
    let error = |status: u16, error: &str, description: &str| {
        Reply::json(
            status,
            &json!({"error": error, "error_description": format!("{description} canary")}),
        )
    };
    for (reply, status, parts) in [
        (
            error(400, "bad_request_102", "Required metadata header not specified"),
            502,
            ["bad_request_102", "takes it out", "gateway's host must fix"],
        ),
        (
            error(400, "invalid_request", "Identity not found"),
            502,
            [
                "No identity is assigned here",
                "az vm identity assign",
                "gateway's host must fix",
            ],
        ),
        (
            error(400, "invalid_request", "Multiple user assigned identities exist"),
            502,
            [
                "settings name none",
                "[identity.managed]",
                "operator of the gateway must fix",
            ],
        ),
        (
            error(
                400,
                "invalid_resource",
                "AADSTS500011: The resource principal was not found",
            ),
            502,
            [
                "AADSTS500011",
                "has no service principal in the tenant",
                "administrator of the tenant must fix",
            ],
        ),
        (
            Reply::html(404, "Not Found"),
            503,
            ["404", "compare `source`", "Nobody needs to fix"],
        ),
        (Reply::new(410), 503, ["410", "70 seconds", "Nobody needs to fix"]),
        (
            Reply::text(429, "Too Many Requests"),
            503,
            ["429", "too many tokens", "Nobody needs to fix"],
        ),
        (
            Reply::new(500),
            503,
            ["500", "failed by itself", "Nobody needs to fix"],
        ),
        (
            Reply::new(302).header("Location", "http://elsewhere.example/"),
            502,
            [
                "redirect",
                "something else seems to be",
                "operator of the gateway must fix",
            ],
        ),
        (
            Reply::html(200, "Sign in to the network"),
            503,
            [
                "web page",
                "no answer of a managed identity",
                "gateway's host must fix",
            ],
        ),
        (
            Reply::text(200, "x".repeat(1 << 20)),
            503,
            [
                "larger than",
                "something else seems to be",
                "gateway's host must fix",
            ],
        ),
    ] {
        machine.endpoint.always(ManagedAnswer::Reply(reply));
        let gateway = machine.start("");
        let (answered, cause) = refused(&gateway).await;
        assert_eq!(answered, status, "{cause}");
        for part in parts
            .into_iter()
            .chain(["identity machine", "from IMDS at http://127.0.0.1:"])
        {
            assert!(cause.contains(part), "{part}: {cause}");
        }
        assert!(
            !cause.contains("canary") && !cause.contains("elsewhere"),
            "{cause}"
        );
    }
    assert_eq!(machine.trigger.requests().len(), 0);
}

#[tokio::test]
async fn an_imds_that_hangs_blocks_only_its_own_identity() {
    let machine = Machine::imds().await;
    machine.endpoint.always(ManagedAnswer::Hang);
    let quick = machine.world.route("quick", "/quick", &machine.trigger.url(), "");
    let gateway = machine.start_within("5s", &format!("\n{quick}"));
    let waiting = refused(&gateway);
    let others = async {
        machine.endpoint.requests().reached(1).await;
        for _ in 0..5 {
            assert_eq!(gateway.post("/quick", "{}").await.status, 202);
        }
        assert_eq!(machine.endpoint.hang_ups().get(), 0, "the deadline is far away");
    };
    let ((status, cause), ()) = tokio::join!(waiting, others);
    assert_eq!(status, 503);
    assert!(cause.contains("did not answer within 5s"), "{cause}");
}

#[tokio::test]
async fn a_platform_where_nobody_listens_is_named() {
    let machine = Machine::imds().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let machine = Machine {
        table: format!("source = \"imds\"\nendpoint = \"{address}\"\n"),
        ..machine
    };
    let (status, cause) = refused(&machine.start("")).await;
    assert_eq!(status, 503);
    for part in [
        "cannot be reached",
        address.as_str(),
        "Outside of Azure there is no IMDS",
    ] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
}

#[tokio::test]
async fn a_transient_failure_is_retried_after_two_seconds() {
    let machine = Machine::imds().await;
    machine.endpoint.next(ManagedAnswer::Reply(Reply::new(410)));
    let gateway = machine.start("");
    let begun = tokio::time::Instant::now();
    gateway.ready().await;
    assert!(begun.elapsed() >= std::time::Duration::from_millis(1900));
    assert_eq!(machine.endpoint.requests().get(), 2);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}

#[tokio::test]
async fn an_identity_that_is_not_assigned_is_named_with_its_selector() {
    for machine in [
        Machine::imds().await,
        Machine::app_service().await,
        Machine::arc().await,
    ] {
        let id = assigned().client_id;
        let (status, cause) = refused(&machine.start(&format!("client_id = \"{id}\""))).await;
        assert_eq!(status, 502, "{cause}");
        for part in ["not assigned here", id.as_str(), "User assigned", "must fix"] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
    }
}

#[tokio::test]
async fn a_header_that_app_service_refuses_is_named_without_its_value() {
    let mut machine = Machine::app_service().await;
    machine
        .world
        .secrets
        .retain(|(name, _)| name != "IDENTITY_HEADER");
    let stale = ("IDENTITY_HEADER".into(), "canary-stale-header".into());
    machine.world.secrets.push(stale);
    let heard = listen();
    let gateway = machine.start("");
    let (status, cause) = refused(&gateway).await;
    assert_eq!(status, 502);
    for part in [
        "identity machine",
        "from App Service",
        "401",
        "restart the app",
        "operator",
    ] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
    assert!(!gateway.lines.all().concat().contains("canary-stale"));
    assert!(!heard.text().contains("canary-stale"));
}

#[tokio::test]
async fn a_challenge_that_is_not_the_agents_gets_no_file() {
    let machine = Machine::arc().await;
    let (folder, outside) = (machine.folder(), machine.world.dir().join("outside"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(folder.join("note.txt"), "canary-note").unwrap();
    std::fs::write(outside.join("1.key"), "canary-outside").unwrap();
    std::fs::write(folder.join("large.key"), "canary".repeat(1000)).unwrap();
    let realm = |path: PathBuf| Some(format!("Basic realm={}", path.display()));
    for (challenge, part) in [
        (None, "401 without a challenge"),
        (Some("Basic ".to_owned()), "names no file"),
        (Some("Basic nothing".to_owned()), "names no file"),
        (realm(folder.join("note.txt")), "does not end in .key"),
        (realm(outside.join("1.key")), "points outside of"),
        (realm(folder.join("../outside/1.key")), "points outside of"),
        (realm(folder.join("large.key")), "more than 4096 bytes"),
    ] {
        machine.endpoint.always(ManagedAnswer::Challenge(challenge));
        let gateway = machine.start("");
        let (status, cause) = refused(&gateway).await;
        assert_eq!(status, 502, "{cause}");
        for part in [part, "identity machine", "find out what listens", "host must fix"] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
        assert!(!gateway.lines.all().concat().contains("canary"), "{cause}");
    }
    let seen = machine.endpoint.seen();
    assert!(seen.iter().all(|head| head.header("authorization").is_none()));
}

#[tokio::test]
async fn an_arc_agent_that_refuses_its_own_key_is_named() {
    let machine = Machine::arc().await;
    let path = machine.folder().join("1.key");
    std::fs::write(&path, "stale").unwrap();
    let challenge = format!("Basic realm={}", path.display());
    machine.endpoint.always(ManagedAnswer::Challenge(Some(challenge)));
    let (status, cause) = refused(&machine.start("")).await;
    assert_eq!(status, 502);
    for part in ["the key it asked for", "himdsd", "host must fix"] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
}

#[tokio::test]
async fn an_arc_agent_that_ignores_the_selector_is_refused() {
    let machine = Machine::arc().await;
    machine.endpoint.assign(assigned());
    machine.endpoint.always(ManagedAnswer::Unselected);
    let gateway = machine.start(&format!("client_id = \"{}\"", assigned().client_id));
    let (status, cause) = refused(&gateway).await;
    assert_eq!(status, 502, "{cause}");
    for part in ["machine's own", "update the agent", "host must fix"] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
    assert_eq!(
        machine.trigger.requests().len(),
        0,
        "another identity's token stays here"
    );
}
