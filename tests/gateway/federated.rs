//! Workload identity federation and the default chain: the platform's token replaces a secret, each reason
//! for a refusal is reported with who fixes it, and a temporary failure never makes the chain switch to
//! another source.

use serde_json::{Value, json};

use crate::emulator::Answer as Flow;
use crate::emulator::{
    Issuer, ManagedAnswer, ManagedEndpoint, Platform, Reply, TokenAnswer, Trigger, TriggerHandle, jwt,
};
use crate::harness::{OID, PATIENCE, Running, TENANT, World};
use crate::managed::own;
use crate::secrets::listen;

const APP: &str = "dddddddd-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const ISSUER: &str = "https://oidc.prod-aks.azure.example/0a1b2c3d/";
const SUBJECT: &str = "system:serviceaccount:default:workload-identity-sa";

/// A world with a cluster that Entra trusts for the application.
struct Cluster {
    world: World,
    issuer: Issuer,
    trigger: TriggerHandle,
}

impl Cluster {
    async fn new() -> Self {
        let world = World::new().await;
        let entra = &world.emulator.entra;
        let issuer = Issuer::new(ISSUER);
        entra.register_federated(TENANT, APP, ISSUER, SUBJECT, OID);
        entra.trust_issuer(&issuer);
        let trigger = world
            .emulator
            .flow
            .add(Trigger::any_user(TENANT).does(Flow::Accepted));
        Self {
            world,
            issuer,
            trigger,
        }
    }

    fn good(&self) -> String {
        self.issuer.token(SUBJECT, &Value::Null)
    }

    /// Sets the variables that the webhook sets.
    fn webhook(&mut self) {
        let file = self.world.dir().join("projected").display().to_string();
        for (name, value) in [
            ("AZURE_TENANT_ID", TENANT.to_owned()),
            ("AZURE_CLIENT_ID", APP.to_owned()),
            (
                "AZURE_AUTHORITY_HOST",
                self.world.emulator.entra.authority() + "/",
            ),
            ("AZURE_FEDERATED_TOKEN_FILE", file),
        ] {
            self.world.secrets.push((name.to_owned(), value));
        }
    }

    /// Starts with the identity `name`, which has these lines.
    fn start_as(&self, name: &str, lines: &str) -> Running {
        let identity = format!(
            "[[identity]]\nname = \"{name}\"\nca_file = {:?}\ntimeout = \"3s\"\n{lines}\n",
            self.world.emulator.ca_file()
        );
        let route = self.world.route(
            "orders",
            "/orders",
            &self.trigger.url(),
            &format!("identity = \"{name}\""),
        );
        self.world.start_with(&format!("{identity}{route}"))
    }

    fn start(&self) -> Running {
        self.start_as(
            "pod",
            &format!("{}[identity.federated]\ntoken_file = \"projected\"\n", self.app()),
        )
    }

    fn app(&self) -> String {
        format!(
            "tenant = \"{TENANT}\"\nclient_id = \"{APP}\"\nauthority = \"{}\"\n",
            self.world.emulator.entra.authority()
        )
    }

    fn assertions(&self) -> Vec<String> {
        let requests = self.world.emulator.entra.requests();
        let own = requests
            .iter()
            .filter(|request| request.field("client_id") == Some(APP));
        own.map(|request| request.field("client_assertion").unwrap_or_default().to_owned())
            .collect()
    }
}

async fn refused(gateway: &Running) -> (u16, String) {
    let answer = gateway.post("/orders", "{}").await;
    let line = gateway.lines.of(&answer).await;
    let cause = line["cause"].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), cause)
}

#[tokio::test]
async fn the_platforms_token_replaces_a_secret() {
    let cluster = Cluster::new().await;
    let token = cluster.good();
    cluster.world.file("projected", &token);
    let gateway = cluster.start();
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let requests = cluster.world.emulator.entra.requests();
    let request = requests
        .iter()
        .find(|request| request.field("client_id") == Some(APP))
        .unwrap();
    assert_eq!(request.field("grant_type"), Some("client_credentials"));
    assert_eq!(
        request.field("client_assertion_type"),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    );
    assert_eq!(request.field("client_assertion"), Some(token.as_str()));
    assert_eq!(request.field("client_secret"), None);
    assert!(!gateway.lines.all().concat().contains(&token));
}

#[tokio::test]
async fn the_variables_of_the_webhook_are_enough() {
    let mut cluster = Cluster::new().await;
    cluster.webhook();
    cluster.world.file("projected", &cluster.good());
    let heard = listen();
    let gateway = cluster.start_as("pod-by-webhook", "federated = {}");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    for variable in [
        "tenant from environment variable AZURE_TENANT_ID",
        "client_id from environment variable AZURE_CLIENT_ID",
        "authority from environment variable AZURE_AUTHORITY_HOST",
        "token_file from environment variable AZURE_FEDERATED_TOKEN_FILE",
    ] {
        let line = format!("identity pod-by-webhook: {variable}");
        assert!(heard.text().contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_projected_token_is_read_anew_for_each_request() {
    let cluster = Cluster::new().await;
    cluster
        .world
        .emulator
        .entra
        .lifetime(std::time::Duration::from_secs(3));
    cluster.world.file("projected", &cluster.good());
    let gateway = cluster.start();
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let second = cluster.good();
    cluster.world.file("projected.new", &second);
    let dir = cluster.world.dir();
    std::fs::rename(dir.join("projected.new"), dir.join("projected")).unwrap();
    let renewed = async {
        while cluster.assertions().last() != Some(&second) {
            let asked = cluster.world.emulator.entra.token_requests().get();
            cluster
                .world
                .emulator
                .entra
                .token_requests()
                .reached(asked + 1)
                .await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed)
        .await
        .expect("the new token is not shown");
}

#[tokio::test]
async fn a_token_replaced_while_entra_refused_the_old_one_is_tried_at_once() {
    let cluster = Cluster::new().await;
    let entra = &cluster.world.emulator.entra;
    let (first, second) = (cluster.good(), cluster.good());
    cluster.world.file("projected", &first);
    entra.next_for(APP, TokenAnswer::aadsts(500_133));
    let gate = entra.hold();
    let gateway = cluster.start();
    // Both identities of the settings request a token.
    gate.arrived(2).await;
    cluster.world.file("projected", &second);
    gate.open();
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(cluster.assertions(), [first, second]);
}

#[tokio::test]
async fn a_mismatch_with_the_federated_credential_is_reported_with_what_was_presented() {
    for (overrides, number, parts) in [
        (
            json!({"iss": "https://oidc.prod-aks.azure.example/0a1b2c3d"}),
            "AADSTS70021",
            [
                "issuer's last slash",
                "issuer \"https://oidc.prod-aks.azure.example/0a1b2c3d\",",
            ],
        ),
        (
            json!({"sub": "system:serviceaccount:other:sa"}),
            "AADSTS700213",
            ["subject", "subject \"system:serviceaccount:other:sa\""],
        ),
        (
            json!({"aud": ["https://kubernetes.default.svc"]}),
            "AADSTS7002131",
            [
                "audience letter by letter",
                "audience \"https://kubernetes.default.svc\"",
            ],
        ),
    ] {
        let cluster = Cluster::new().await;
        let token = cluster.issuer.token(SUBJECT, &overrides);
        cluster.world.file("projected", &token);
        let (status, cause) = refused(&cluster.start()).await;
        assert_eq!(status, 502, "{cause}");
        for part in parts.into_iter().chain([
            number,
            "identity pod",
            APP,
            "administrator of the tenant must fix",
        ]) {
            assert!(cause.contains(part), "{part}: {cause}");
        }
        assert!(!cause.contains(&token), "{cause}");
        assert_eq!(cluster.assertions().len(), 1, "the file has not changed");
    }
}

#[tokio::test]
async fn an_issuer_that_entra_cannot_reach_is_the_clusters_task() {
    let cluster = Cluster::new().await;
    let hidden = Issuer::new("https://oidc.hidden.example/");
    let entra = &cluster.world.emulator.entra;
    entra.register_federated(TENANT, APP, &hidden.name, SUBJECT, OID);
    cluster
        .world
        .file("projected", &hidden.token(SUBJECT, &Value::Null));
    let (_, cause) = refused(&cluster.start()).await;
    for part in ["AADSTS90061", "must be public", "cluster's token issuer must fix"] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
}

#[tokio::test]
async fn a_projected_file_of_no_use_never_reaches_entra() {
    let cluster = Cluster::new().await;
    let expired = cluster.issuer.token(SUBJECT, &json!({"exp": 1_600_000_000}));
    let large = "canary".repeat(900_000);
    for (text, part, fixed_by) in [
        (Some(""), "the file is empty", "operator"),
        (Some(large.as_str()), "larger than 65536 bytes", "operator"),
        (Some("canary and more"), "other than a JWT", "operator"),
        (Some(expired.as_str()), "has expired", "cluster's token issuer"),
        (None, "the file is not there", "cluster's token issuer"),
    ] {
        match text {
            Some(text) => cluster.world.file("projected", text),
            None => std::fs::remove_file(cluster.world.dir().join("projected")).unwrap(),
        }
        let gateway = cluster.start();
        let (status, cause) = refused(&gateway).await;
        assert_eq!(status, 502, "{cause}");
        for part in [part, fixed_by, "identity pod", "projected", "must fix"] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
        assert!(!gateway.lines.all().concat().contains("canary"), "{cause}");
    }
    assert_eq!(cluster.assertions().len(), 0);
}

#[tokio::test]
async fn an_unusual_audience_is_worth_a_warning_and_no_more() {
    let cluster = Cluster::new().await;
    let heard = listen();
    let unusual = cluster
        .issuer
        .token(SUBJECT, &json!({"aud": "https://other.example"}));
    cluster.world.file("projected", &unusual);
    let lines = format!(
        "{}[identity.federated]\ntoken_file = \"projected\"\n",
        cluster.app()
    );
    let gateway = cluster.start_as("other-pod", &lines);
    let (_, cause) = refused(&gateway).await;
    assert!(cause.contains("AADSTS7002131"), "Entra was asked: {cause}");
    let warning = "the federated token of identity other-pod is for the audience \"https://other.example\"";
    assert!(heard.text().contains(warning));
}

/// The issuer of tokens for managed identities.
fn platform_issuer() -> String {
    format!("https://login.microsoftonline.com/{TENANT}/v2.0")
}

#[tokio::test]
async fn a_managed_identity_vouches_for_an_application() {
    let cluster = Cluster::new().await;
    let entra = &cluster.world.emulator.entra;
    let imds = ManagedEndpoint::start(Platform::Imds, entra, Some(own())).await;
    entra.register_federated(TENANT, APP, &platform_issuer(), &own().oid, OID);
    let machine = format!(
        "[[identity]]\nname = \"machine\"\nmanaged = {{ source = \"imds\", endpoint = \"{}\" }}\n",
        imds.endpoint()
    );
    let lines = format!(
        "{}federated = {{ identity = \"machine\" }}\n{machine}",
        cluster.app()
    );
    let gateway = cluster.start_as("app", &lines);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let shown = jwt::unverified_claims(&cluster.assertions()[0]).unwrap();
    assert_eq!(shown["aud"], "api://AzureADTokenExchange");
    assert_eq!(shown["sub"], own().oid);
    let seen = imds.seen();
    let exchange = "resource=api%3A%2F%2FAzureADTokenExchange";
    assert_eq!(seen.len(), 1, "it is asked for nothing else");
    assert!(seen.iter().all(|head| head.query().ends_with(exchange)));

    imds.always(ManagedAnswer::Reply(Reply::json(
        400,
        &json!({"error": "invalid_request", "error_description": "Identity not found"}),
    )));
    let gateway = cluster.start_as("app", &lines);
    let (status, cause) = refused(&gateway).await;
    assert_eq!(status, 502, "{cause}");
    for part in [
        "identity app",
        "the managed identity machine that vouches for it has none",
        "No identity is assigned here",
        "gateway's host must fix",
    ] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
}

/// The default chain with IMDS at this endpoint.
fn chain(imds: &ManagedEndpoint) -> String {
    format!(
        "default = true\nmanaged = {{ source = \"imds\", endpoint = \"{}\" }}\n",
        imds.endpoint()
    )
}

#[tokio::test]
async fn the_default_chain_takes_workload_identity_where_its_variables_are() {
    let mut cluster = Cluster::new().await;
    cluster.webhook();
    cluster.world.file("projected", &cluster.good());
    let imds = ManagedEndpoint::start(Platform::Imds, &cluster.world.emulator.entra, Some(own())).await;
    let heard = listen();
    let gateway = cluster.start_as("chain-a", &chain(&imds));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(imds.requests().get(), 0);
    let text = heard.text();
    assert!(text.contains("the default chain of identity chain-a takes the federated token in"));
    assert!(text.contains("managed identity comes after it and was not asked"));
}

#[tokio::test]
async fn the_default_chain_does_not_become_the_node_while_a_file_is_missing() {
    let mut cluster = Cluster::new().await;
    cluster.webhook();
    let imds = ManagedEndpoint::start(Platform::Imds, &cluster.world.emulator.entra, Some(own())).await;
    let gateway = cluster.start_as("chain-b", &chain(&imds));
    let (_, cause) = refused(&gateway).await;
    assert!(cause.contains("the file is not there"), "{cause}");
    cluster.world.file("projected", &cluster.good());
    gateway.ready().await;
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(imds.requests().get(), 0);
}

#[tokio::test]
async fn the_default_chain_takes_the_managed_identity_else_and_says_why() {
    let cluster = Cluster::new().await;
    let imds = ManagedEndpoint::start(Platform::Imds, &cluster.world.emulator.entra, Some(own())).await;
    let heard = listen();
    let gateway = cluster.start_as("chain-c", &chain(&imds));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let text = heard.text();
    let line = text
        .lines()
        .find(|line| line.contains("the default chain of identity chain-c takes"))
        .unwrap();
    for part in [
        "managed identity from IMDS",
        "workload identity is out: environment variable AZURE_TENANT_ID is not set",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test]
async fn a_source_that_was_taken_is_kept_while_it_fails() {
    let cluster = Cluster::new().await;
    let imds = ManagedEndpoint::start(Platform::Imds, &cluster.world.emulator.entra, Some(own())).await;
    imds.always(ManagedAnswer::Reply(Reply::new(500)));
    let gateway = cluster.start_as("chain-d", &chain(&imds));
    let (_, cause) = refused(&gateway).await;
    assert!(cause.contains("failed by itself"), "it is there: {cause}");
    imds.normal();
    imds.always(ManagedAnswer::Hang);
    imds.requests().reached(imds.requests().get() + 1).await;
    let silent = async {
        loop {
            let (_, cause) = refused(&gateway).await;
            assert!(!cause.contains("found no source"), "{cause}");
            if cause.contains("did not answer within") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, silent)
        .await
        .expect("the silence has no name");
    imds.normal();
    gateway.ready().await;
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}

#[tokio::test]
async fn a_chain_that_finds_nothing_names_every_source_and_looks_again() {
    let cluster = Cluster::new().await;
    let imds = ManagedEndpoint::start(Platform::Imds, &cluster.world.emulator.entra, Some(own())).await;
    imds.always(ManagedAnswer::Hang);
    let gateway = cluster.start_as("chain-e", &chain(&imds));
    let (status, cause) = refused(&gateway).await;
    assert_eq!(status, 503, "{cause}");
    for part in [
        "identity chain-e",
        "found no source",
        "Workload identity: environment variable AZURE_TENANT_ID is not set",
        "Managed identity: ",
        "did not answer within",
        "operator of the gateway must",
    ] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
    imds.normal();
    gateway.ready().await;
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}
