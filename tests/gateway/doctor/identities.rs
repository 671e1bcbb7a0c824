//! Every kind of identity: the doctor reports what is missing before Entra is asked, and who fixes which
//! refusal where.

use serde_json::{Value, json};

use super::{accepting, examine, find, program, the_one, whole};
use crate::emulator::Answer as Flow;
use crate::emulator::{
    Issuer, ManagedAnswer, ManagedEndpoint, Platform, Reply, TokenAnswer, Trigger, TriggerHandle, VaultAnswer,
};
use crate::harness::{CLIENT, OID, SECRET, TENANT, World};
use crate::managed::own;
use flowgate::doctor::{Questions, Report, Verdict};

const OTHER: &str = "dddddddd-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const OTHER_OID: &str = "12121212-8888-4777-8666-555555555555";
const OTHER_SECRET: &str = "canary-reader-secret~9";
const ISSUER: &str = "https://oidc.prod-aks.azure.example/0a1b2c3d/";
const SUBJECT: &str = "system:serviceaccount:default:workload-identity-sa";

/// Base settings with an additional identity `second`, which has these lines, and a route that uses it.
fn with_second(world: &World, trigger: &TriggerHandle, lines: &str) -> String {
    format!(
        "{}[[identity]]\nname = \"second\"\n{lines}\n{}",
        world.base(),
        world.route("orders", "/orders", &trigger.url(), "identity = \"second\"")
    )
}

/// Settings of an application that uses the emulator.
fn application(world: &World) -> String {
    format!(
        "tenant = \"{TENANT}\"\nclient_id = \"{OTHER}\"\nauthority = \"{}\"\nca_file = {:?}\ntimeout = \"3s\"\n",
        world.emulator.entra.authority(),
        world.emulator.ca_file()
    )
}

/// An address on this machine where nothing listens any more.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn skipped(report: &Report, title: &str, name: &str) {
    let check = find(report, title, name);
    assert_eq!(
        check.verdict,
        Verdict::Skipped,
        "{title} {name}: {}",
        report.text()
    );
}

fn all_of(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn a_managed_identity_whose_endpoint_is_not_there_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    for (source, parts) in [
        ("imds", ["IMDS", "Outside of Azure", "az vm identity show"]),
        (
            "arc",
            [
                "the Azure Arc agent",
                "systemctl restart himdsd",
                "azcmagent show",
            ],
        ),
    ] {
        let lines = format!(
            "[identity.managed]\nsource = \"{source}\"\nendpoint = \"{}\"",
            nobody()
        );
        let report = examine(
            &world,
            &with_second(&world, &trigger, &lines),
            &Questions::default(),
        )
        .await;
        let message = whole(the_one(&report, "identity second", "endpoint"));
        all_of(&message, &parts);
        all_of(&message, &["host-admin", "no connection"]);
        skipped(&report, "identity second", "token");
        skipped(&report, "route orders", "claims");
    }
}

#[tokio::test]
async fn a_managed_identity_that_is_not_assigned_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let endpoint = ManagedEndpoint::start(Platform::Imds, &world.emulator.entra, Some(own())).await;
    let refusal = json!({"error": "invalid_request", "error_description": "Identity not found"});
    endpoint.always(ManagedAnswer::Reply(Reply::json(400, &refusal)));
    let table = format!(
        "[identity.managed]\nsource = \"imds\"\nendpoint = \"{}\"\n",
        endpoint.endpoint()
    );
    for (selector, parts) in [
        ("", ["host-admin", "No identity is assigned here"]),
        (
            "client_id = \"aaaaaaaa-0000-4000-8000-000000000009\"",
            ["operator", "is not assigned here"],
        ),
    ] {
        let lines = format!("{table}{selector}");
        let report = examine(
            &world,
            &with_second(&world, &trigger, &lines),
            &Questions::default(),
        )
        .await;
        let message = whole(the_one(&report, "identity second", "token"));
        all_of(&message, &parts);
        all_of(&message, &["Identity", "az vm identity"]);
        let reached = find(&report, "identity second", "endpoint");
        assert_eq!(reached.verdict, Verdict::Ok, "{}", reached.says);
    }
}

#[tokio::test]
async fn an_unusable_federated_file_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let issuer = Issuer::new(ISSUER);
    let over = issuer.token(SUBJECT, &json!({"exp": 1_700_000_000}));
    for (text, parts) in [
        (
            None,
            [
                "the file is not there",
                "cluster-admin",
                "azure.workload.identity/use",
            ],
        ),
        (Some(""), ["the file is empty", "operator", "token_file"]),
        (Some("canary"), ["other than a JWT", "operator", "token_file"]),
        (
            Some(over.as_str()),
            ["has expired", "cluster-admin", "token projection"],
        ),
    ] {
        if let Some(text) = text {
            world.file("projected", text);
        }
        let lines = format!(
            "{}[identity.federated]\ntoken_file = \"projected\"",
            application(&world)
        );
        let report = examine(
            &world,
            &with_second(&world, &trigger, &lines),
            &Questions::default(),
        )
        .await;
        let message = whole(the_one(&report, "identity second", "federated"));
        all_of(&message, &parts);
        skipped(&report, "identity second", "token");
        assert_eq!(
            world.emulator.entra.token_requests_of(OTHER),
            0,
            "nothing was sent"
        );
        assert!(!report.text().contains("canary"), "{}", report.text());
    }
}

#[tokio::test]
async fn a_federated_token_is_shown_beside_what_a_federated_credential_must_hold() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let issuer = Issuer::new(ISSUER);
    let entra = &world.emulator.entra;
    entra.trust_issuer(&issuer);
    entra.register_federated(TENANT, OTHER, ISSUER, SUBJECT, OTHER_OID);
    let lines = format!(
        "{}[identity.federated]\ntoken_file = \"projected\"",
        application(&world)
    );
    let text = with_second(&world, &trigger, &lines);
    let another = "system:serviceaccount:default:another";
    for subject in [SUBJECT, another] {
        let token = issuer.token(subject, &Value::Null);
        world.file("projected", &token);
        let report = examine(&world, &text, &Questions::default()).await;
        let shown = find(&report, "identity second", "federated");
        all_of(
            &shown.says,
            &[ISSUER, subject, "api://AzureADTokenExchange", "minutes left"],
        );
        assert!(!report.text().contains(&token), "{}", report.text());
        if subject == another {
            let message = whole(the_one(&report, "identity second", "token"));
            all_of(
                &message,
                &["tenant-admin", "az ad app federated-credential list", OTHER],
            );
        } else {
            assert!(!report.has_failed(), "{}", report.text());
        }
    }
}

#[tokio::test]
async fn the_default_chain_says_which_source_it_takes_and_why_not_the_other() {
    let mut world = World::new().await;
    let trigger = accepting(&world);
    let endpoint = ManagedEndpoint::start(Platform::Imds, &world.emulator.entra, Some(own())).await;
    let chain = |at: &str| {
        format!(
            "default = true\nca_file = {:?}\n[identity.managed]\nsource = \"imds\"\nendpoint = \"{at}\"",
            world.emulator.ca_file()
        )
    };
    let there = with_second(&world, &trigger, &chain(&endpoint.endpoint()));
    let nothing = with_second(&world, &trigger, &chain(&nobody()));
    let report = examine(&world, &there, &Questions::default()).await;
    assert!(!report.has_failed(), "{}", report.text());
    all_of(
        &report.text(),
        &[
            "workload identity is not used: ",
            "AZURE_",
            "managed identity from IMDS is used",
        ],
    );
    let report = examine(&world, &nothing, &Questions::default()).await;
    the_one(&report, "identity second", "endpoint");
    for (name, value) in [
        ("AZURE_TENANT_ID", TENANT.to_owned()),
        ("AZURE_CLIENT_ID", OTHER.to_owned()),
        ("AZURE_AUTHORITY_HOST", world.emulator.entra.authority() + "/"),
        (
            "AZURE_FEDERATED_TOKEN_FILE",
            world.dir().join("projected").display().to_string(),
        ),
    ] {
        world.secrets.push((name.to_owned(), value));
    }
    let report = examine(&world, &there, &Questions::default()).await;
    the_one(&report, "identity second", "federated");
    all_of(
        &report.text(),
        &[
            "workload identity is used",
            "managed identity is not used: it comes after",
        ],
    );
}

/// Settings in which the secret of `contoso` is stored in the vault, which `second` may read.
fn in_vault(world: &mut World, trigger: &TriggerHandle, more: &str) -> String {
    world
        .emulator
        .register_app(TENANT, OTHER, OTHER_SECRET, OTHER_OID);
    world.secrets.push(("READER_SECRET".into(), OTHER_SECRET.into()));
    let vault = &world.emulator.vault;
    vault.tenant(TENANT);
    vault.allow(OTHER_OID);
    vault.put("contoso", SECRET);
    format!(
        "{}{}scope = \"https://vault.azure.net/.default\"\n[keyvault]\nidentity = \"second\"\nca_file = {:?}\ntimeout = \"3s\"\n{more}{}",
        world
            .base()
            .replace("env:CONTOSO_SECRET", &vault.reference("contoso")),
        world.identity("second", TENANT, OTHER, "env:READER_SECRET"),
        world.emulator.ca_file(),
        world.route("orders", "/orders", &trigger.url(), "")
    )
}

fn vault_title(world: &World) -> String {
    let reference = world.emulator.vault.reference("contoso");
    let rest = reference.split("https://").nth(1).unwrap();
    format!("vault {}", rest.split('/').next().unwrap())
}

#[tokio::test]
async fn a_secret_in_a_vault_is_read_and_its_expiry_shown_without_its_value() {
    let mut world = World::new().await;
    let trigger = accepting(&world);
    let text = in_vault(&mut world, &trigger, "");
    let ends = jiff::Timestamp::now().as_second() + 20 * 86_400 + 3600;
    world.emulator.vault.put_until("contoso", SECRET, Some(ends));
    let report = examine(&world, &text, &Questions::default()).await;
    assert!(!report.has_failed(), "{}", report.text());
    let check = find(&report, &vault_title(&world), "secret");
    assert_eq!(check.verdict, Verdict::Warn, "{}", report.text());
    all_of(
        &whole(check),
        &["20 days left", "it can be read", "az keyvault secret set"],
    );
    let titles: Vec<_> = report.groups.iter().map(flowgate::doctor::Group::title).collect();
    let vault = vault_title(&world);
    assert_eq!(
        titles,
        [
            "gateway",
            "identity second",
            &vault,
            "identity contoso",
            "route orders"
        ],
        "what is needed comes first"
    );
    assert!(
        !format!("{}{report:?}", report.text()).contains(SECRET),
        "{}",
        report.text()
    );
}

#[tokio::test]
async fn a_vault_that_refuses_is_the_one_thing() {
    let mut world = World::new().await;
    let trigger = accepting(&world);
    let text = in_vault(&mut world, &trigger, "");
    let title = vault_title(&world);
    let role = format!("az role assignment create --role \\\"Key Vault Secrets User\\\" --assignee {OTHER}");
    world.emulator.vault.forbid(OTHER_OID);
    for (answer, parts) in [
        (
            None,
            vec!["status 403", "tenant-admin", &role, "Access control (IAM)"],
        ),
        (
            Some(VaultAnswer::Firewall("203.0.113.7".into())),
            vec![
                "203.0.113.7",
                "tenant-admin",
                "az keyvault network-rule add",
                "Networking",
            ],
        ),
        (
            Some(VaultAnswer::Status(418)),
            vec!["status 418", "operator", "Secret Identifier"],
        ),
        (Some(VaultAnswer::Html(200)), vec!["a web page", "host-admin"]),
        (Some(VaultAnswer::Throttled(None)), vec!["status 429", "nobody"]),
    ] {
        if let Some(answer) = answer {
            world.emulator.vault.always(answer);
        }
        let report = examine(&world, &text, &Questions::default()).await;
        let message = whole(the_one(&report, &title, "secret"));
        all_of(&message, &["secret contoso of key vault", "identity second"]);
        all_of(&message, &parts);
        skipped(&report, "identity contoso", "token");
        all_of(
            &find(&report, "identity contoso", "token").says,
            &["see vault localhost"],
        );
        skipped(&report, "route orders", "claims");
    }
}

#[tokio::test]
async fn a_reader_of_the_vault_without_a_token_is_the_one_thing() {
    let mut world = World::new().await;
    let trigger = accepting(&world);
    let text = in_vault(&mut world, &trigger, "");
    world
        .emulator
        .entra
        .always_for(OTHER, TokenAnswer::aadsts(7_000_222));
    let only = Questions {
        identity: Some("contoso".to_owned()),
        ..Questions::default()
    };
    let report = examine(&world, &text, &only).await;
    let message = whole(the_one(&report, "identity second", "token"));
    all_of(&message, &["AADSTS7000222", OTHER]);
    skipped(&report, &vault_title(&world), "secret");
    skipped(&report, "identity contoso", "token");
    assert_eq!(world.emulator.vault.requests().len(), 0);
}

#[tokio::test]
async fn an_expired_certificate_is_the_one_thing() {
    let mut world = World::new().await;
    let trigger = accepting(&world);
    let text = in_vault(&mut world, &trigger, "");
    let secret = format!(
        "client_secret = \"{}\"\n",
        world.emulator.vault.reference("contoso")
    );
    let table = format!(
        "[[identity.certificate]]\nfile = \"{}\"\n",
        world.emulator.vault.reference("pem")
    );
    let contoso = world.identity(
        "contoso",
        TENANT,
        CLIENT,
        &world.emulator.vault.reference("contoso"),
    );
    assert!(text.contains(&contoso));
    let text = text.replace(&contoso, &format!("{}{table}", contoso.replace(&secret, "")));
    for (begins, ends, part) in [(-30, -1, "it has expired"), (1, 30, "not valid before")] {
        let leaf = world
            .emulator
            .ca
            .client_leaf_between("flowgate.example", begins, ends);
        world
            .emulator
            .vault
            .put("pem", &format!("{}{}", leaf.chain_pem, leaf.key_pem));
        let report = examine(&world, &text, &Questions::default()).await;
        let message = whole(the_one(&report, "identity contoso", "certificate"));
        all_of(
            &message,
            &[
                part,
                "thumbprint",
                "operator",
                "az ad app credential reset",
                CLIENT,
            ],
        );
        skipped(&report, "identity contoso", "token");
        assert!(!message.contains("PRIVATE"), "{message}");
        assert_eq!(
            world.emulator.entra.token_requests_of(CLIENT),
            0,
            "nothing was sent"
        );
    }
    let leaf = world.emulator.ca.client_leaf_between("flowgate.example", -1, 20);
    world
        .emulator
        .vault
        .put("pem", &format!("{}{}", leaf.chain_pem, leaf.key_pem));
    world
        .emulator
        .entra
        .register_certificate(TENANT, CLIENT, &leaf, OID);
    let report = examine(&world, &text, &Questions::default()).await;
    assert!(!report.has_failed(), "{}", report.text());
    all_of(
        &whole(find(&report, "identity contoso", "certificate")),
        &["days left", "thumbprint"],
    );
}

/// Settings with a signed trigger that is stored in the vault, which the gateway needs before it can start.
fn needed_at_start(world: &mut World, signed: &TriggerHandle) -> String {
    let trigger = accepting(world);
    let text = in_vault(world, &trigger, "");
    world.emulator.vault.put("signed", &signed.url());
    let reference = world.emulator.vault.reference("signed");
    format!(
        "{text}{}",
        world.route("signed", "/signed", &reference, "signed = true")
    )
}

#[tokio::test]
async fn settings_with_secrets_in_a_vault_are_checked_as_a_whole() {
    let mut world = World::new().await;
    let signed = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
    let text = needed_at_start(&mut world, &signed);
    let only = ["doctor", "--route", "signed", "--live", "--json"];
    let healthy = program(&world, &text, &only).await;
    let shown = String::from_utf8_lossy(&healthy.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&healthy.stderr).into_owned();
    assert_eq!(healthy.status.code(), Some(0), "{shown}{stderr}");
    assert_eq!(signed.requests().len(), 2, "the trigger of the vault is probed");
    let secret = &signed.settings().signature;
    assert!(!shown.contains(secret), "{shown}");

    world.emulator.vault.forbid(OTHER_OID);
    let broken = program(&world, &text, &["doctor", "--json"]).await;
    assert_eq!(broken.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&broken.stdout).unwrap();
    let title = format!("{}: secret;", vault_title(&world));
    all_of(json["summary"].as_str().unwrap(), &["One thing is wrong", &title]);
    for group in json["groups"].as_array().unwrap() {
        if group["kind"] == "route" || group["kind"] == "gateway" {
            assert_eq!(group["checks"][0]["verdict"], "skipped", "{group}");
        }
    }
}

#[cfg(unix)]
mod sign_in {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::{
        OTHER, OTHER_OID, accepting, all_of, application, examine, find, needed_at_start, program, skipped,
        the_one, whole, with_second,
    };
    use crate::emulator::Answer as Flow;
    use crate::emulator::Trigger;
    use crate::harness::{TENANT, World};
    use flowgate::doctor::{Questions, Verdict};

    const USER: &str = "flows@contoso.example";
    const LOGIN: &str = "flowgate login --config FILE --identity second";

    /// A world with an account, and settings of an identity that signs in with it.
    async fn world() -> (World, String) {
        let world = World::new().await;
        world.emulator.entra.register_public(TENANT, OTHER, "public-oid");
        world
            .emulator
            .entra
            .register_user(TENANT, USER, "canary-password", OTHER_OID);
        let trigger = accepting(&world);
        let lines = format!("{}[identity.sign_in]\nstore = \"kept\"", application(&world));
        let text = with_second(&world, &trigger, &lines);
        (world, text)
    }

    /// Stores a sign-in as `flowgate login` does.
    fn store(world: &World) -> String {
        let token = world.emulator.entra.refresh_token(TENANT, OTHER, USER);
        let kept = json!({"version": 1, "client_id": OTHER, "account": USER, "refresh_token": token});
        world.file("kept", &kept.to_string());
        let rights = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(world.dir().join("kept"), rights).unwrap();
        token
    }

    #[tokio::test]
    async fn a_missing_sign_in_is_the_one_thing() {
        let (world, text) = world().await;
        let report = examine(&world, &text, &Questions::default()).await;
        let message = whole(the_one(&report, "identity second", "sign-in"));
        all_of(&message, &["nobody has signed in yet", "kept", "operator", LOGIN]);
        skipped(&report, "identity second", "token");
        skipped(&report, "route orders", "claims");
        store(&world);
        std::fs::write(world.dir().join("kept"), "canary").unwrap();
        let report = examine(&world, &text, &Questions::default()).await;
        let message = whole(the_one(&report, "identity second", "sign-in"));
        all_of(&message, &["something other than a sign-in", "operator", LOGIN]);
        assert!(!message.contains("canary"), "{message}");
    }

    #[tokio::test]
    async fn a_sign_in_is_shown_with_its_account_and_its_rights() {
        let (world, text) = world().await;
        let token = store(&world);
        let report = examine(&world, &text, &Questions::default()).await;
        assert!(!report.has_failed(), "{}", report.text());
        let kept = find(&report, "identity second", "sign-in");
        assert_eq!(kept.verdict, Verdict::Ok);
        all_of(&kept.says, &[USER, "readable by its owner only"]);
        assert!(!report.text().contains(&token), "{}", report.text());
    }

    #[tokio::test]
    async fn a_revoked_refresh_token_is_the_one_thing() {
        let (world, text) = world().await;
        store(&world);
        world.emulator.entra.revoke_refresh_tokens(50173);
        let report = examine(&world, &text, &Questions::default()).await;
        let message = whole(the_one(&report, "identity second", "token"));
        all_of(&message, &["AADSTS50173", "operator", LOGIN]);
        skipped(&report, "route orders", "claims");
    }

    #[tokio::test]
    async fn a_sign_in_is_not_begun_while_the_vault_of_the_settings_refuses() {
        let mut world = World::new().await;
        let signed = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
        let text = needed_at_start(&mut world, &signed);
        world.emulator.vault.forbid(OTHER_OID);
        let output = program(&world, &text, &["login", "--identity", "contoso"]).await;
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        all_of(
            &stderr,
            &[
                "cannot sign in",
                "secret signed of key vault",
                "Key Vault Secrets User",
            ],
        );
        world.emulator.vault.allow(OTHER_OID);
        let output = program(&world, &text, &["login", "--identity", "contoso"]).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        all_of(&stderr, &["[identity.sign_in]"]);
    }
}
