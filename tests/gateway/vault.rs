//! Secrets in a key vault: read on demand with the token of another identity. Every failure of a vault is
//! reported with the vault, the secret, the identity and who fixes it.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use flowgate::settings::KeyDigest;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::emulator::Answer as Flow;
use crate::emulator::certs::server_name;
use crate::emulator::{Door, Trigger, TriggerHandle, VaultAnswer};
use crate::harness::{CLIENT, KEY, OID, PATIENCE, Running, SECRET, TENANT, World};
use crate::listening::{Talk, order_bytes};
use crate::operating::{ended, err, flowgate, out};
use crate::program::Program;

const READER: &str = "dddddddd-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const READER_OID: &str = "77777777-8888-4777-8666-555555555555";
const READER_SECRET: &str = "canary-reader-secret~9";
const SECOND: &str = "canary-client-secret~2";
const RESOURCE: &str = "https://vault.azure.net";

/// A world whose vault holds the secret of `contoso`, which `reader` may read.
async fn world() -> World {
    let mut world = World::new().await;
    world
        .emulator
        .register_app(TENANT, READER, READER_SECRET, READER_OID);
    world.secrets.push(("READER_SECRET".into(), READER_SECRET.into()));
    let vault = &world.emulator.vault;
    vault.tenant(TENANT);
    vault.allow(READER_OID);
    vault.put("contoso", SECRET);
    // Generates the emulator's key beforehand: on a busy machine that takes longer than a token request may.
    world
        .emulator
        .entra
        .token_for(TENANT, CLIENT, "https://vault.azure.net", &Value::Null);
    world
}

fn accepting(world: &World) -> TriggerHandle {
    world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted))
}

/// The identity that reads the vault; `more` adds keys to `[keyvault]`.
fn reading(world: &World, more: &str) -> String {
    format!(
        "{}scope = \"{RESOURCE}/.default\"\n[keyvault]\nidentity = \"reader\"\nca_file = {:?}\n{more}\n",
        world.identity("reader", TENANT, READER, "env:READER_SECRET"),
        world.emulator.ca_file()
    )
}

/// Base settings in which the secret of `contoso` is stored in the vault.
fn settings(world: &World, trigger: &TriggerHandle, more: &str) -> String {
    format!(
        "{}{}{}",
        world
            .base()
            .replace("env:CONTOSO_SECRET", &world.emulator.vault.reference("contoso")),
        reading(world, more),
        world.route("orders", "/orders", &trigger.url(), "")
    )
}

async fn until(gateway: &Running, path: &str, status: u16) {
    let calls = async { while gateway.post(path, "{}").await.status.as_u16() != status {} };
    tokio::time::timeout(PATIENCE, calls)
        .await
        .expect("the route does not recover");
}

/// Runs the program with these settings to its end.
async fn run(world: &World, command: &'static str, settings: &str) -> Output {
    world.file("program.toml", settings);
    let path = world.dir().join("program.toml");
    let secrets = world.secrets.clone();
    let ended = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_flowgate"))
            .args([command, "--config"])
            .arg(path)
            .envs(secrets)
            .output()
            .unwrap()
    });
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("the program does not end")
        .unwrap()
}

#[tokio::test]
async fn a_client_secret_comes_from_the_vault_with_a_token_for_vaults() {
    let world = world().await;
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, ""));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let requests = world.emulator.vault.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].head.method, "GET");
    assert_eq!(requests[0].head.target, "/secrets/contoso?api-version=2025-07-01");
    let asked = world.emulator.entra.requests();
    let scopes: Vec<_> = asked
        .iter()
        .filter(|request| request.field("client_id") == Some(READER))
        .map(|request| request.field("scope").unwrap_or_default())
        .collect();
    assert_eq!(scopes, ["https://vault.azure.net/.default"]);
    let own = asked
        .iter()
        .find(|request| request.field("client_id") == Some(CLIENT))
        .unwrap();
    assert_eq!(own.field("client_secret"), Some(SECRET));
}

#[tokio::test]
async fn a_version_in_the_reference_is_the_one_that_is_read() {
    let world = world().await;
    let vault = &world.emulator.vault;
    let version = vault.put("contoso", SECRET);
    vault.put("contoso", "canary-newer");
    let trigger = accepting(&world);
    let settings =
        settings(&world, &trigger, "").replace("/secrets/contoso", &format!("/secrets/contoso/{version}"));
    let gateway = world.start(&settings);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}

#[tokio::test]
async fn a_secret_rotated_in_the_vault_costs_no_request() {
    let world = world().await;
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, ""));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    world.emulator.entra.forget_credentials(TENANT, CLIENT);
    world.emulator.register_app(TENANT, CLIENT, SECOND, OID);
    world.emulator.vault.put("contoso", SECOND);
    world.emulator.revoke_issued_tokens();
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(world.emulator.vault.reads().get(), 2);
    assert_eq!(world.emulator.entra.token_requests_of(CLIENT), 3);
}

#[tokio::test]
async fn a_vault_that_goes_away_leaves_the_last_value() {
    let world = world().await;
    world.emulator.entra.lifetime(Duration::from_secs(3));
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, "period = \"1s\"\ntimeout = \"1s\""));
    until(&gateway, "/orders", 202).await;
    let vault = &world.emulator.vault;
    for away in [
        VaultAnswer::Status(503),
        VaultAnswer::Hang,
        VaultAnswer::Html(200),
    ] {
        vault.always(away);
        vault.reads().reached(vault.reads().get() + 1).await;
        let asked = world.emulator.entra.token_requests();
        asked.reached(asked.get() + 1).await;
        until(&gateway, "/orders", 202).await;
    }
}

#[tokio::test]
async fn a_secret_is_read_again_periodically() {
    let world = world().await;
    world.emulator.entra.lifetime(Duration::from_secs(3));
    let trigger = accepting(&world);
    world.emulator.register_app(TENANT, CLIENT, SECOND, OID);
    let gateway = world.start(&settings(&world, &trigger, "period = \"1s\""));
    gateway.ready().await;
    world.emulator.vault.put("contoso", SECOND);
    let used = async {
        let mut seen = 0;
        loop {
            let requests = world.emulator.entra.requests();
            if requests
                .iter()
                .any(|request| request.field("client_secret") == Some(SECOND))
            {
                return;
            }
            seen += 1;
            world.emulator.entra.token_requests().reached(seen).await;
        }
    };
    tokio::time::timeout(PATIENCE, used)
        .await
        .expect("the new secret is not used");
}

#[tokio::test]
async fn every_failure_of_a_vault_has_a_sentence_with_who_fixes_it() {
    let world = world().await;
    let vault = &world.emulator.vault;
    let trigger = accepting(&world);
    let cases: Vec<(VaultAnswer, u16, Vec<&str>)> = vec![
        (
            VaultAnswer::Firewall("203.0.113.7".into()),
            502,
            vec![
                "firewall refuses the address 203.0.113.7",
                "Networking",
                "az keyvault network-rule add",
            ],
        ),
        (
            VaultAnswer::PrivateOnly,
            502,
            vec!["firewall refuses", "private endpoint"],
        ),
        (
            VaultAnswer::Challenge(RESOURCE.into()),
            502,
            vec!["does not accept its token", "status 401", "Directory ID"],
        ),
        (
            VaultAnswer::Challenge("https://management.azure.com".into()),
            502,
            vec![
                "asks for a token for https://management.azure.com",
                "with tokens for https://vault.azure.net only",
            ],
        ),
        (
            VaultAnswer::Throttled(Some("7".into())),
            503,
            vec!["too many requests", "status 429", "Nobody needs to fix"],
        ),
        (
            VaultAnswer::Html(200),
            502,
            vec!["a web page", "status 200", "proxies"],
        ),
        (VaultAnswer::Html(403), 502, vec!["a web page", "status 403"]),
        (VaultAnswer::Status(500), 503, vec!["itself failed", "status 500"]),
        (
            VaultAnswer::Status(418),
            502,
            vec!["status 418", "Secret Identifier"],
        ),
        (VaultAnswer::Json("canary".into()), 502, vec!["other than JSON"]),
        (
            VaultAnswer::Json("{\"id\":\"canary\"}".into()),
            502,
            vec!["has no value", "az keyvault secret set"],
        ),
        (
            VaultAnswer::Oversized(1 << 20),
            502,
            vec!["larger than any secret"],
        ),
        (
            VaultAnswer::Redirect("https://canary.example/".into()),
            502,
            vec!["redirect (status 302)"],
        ),
        (VaultAnswer::Hang, 503, vec!["did not answer within 300ms"]),
        (VaultAnswer::Cut, 503, vec!["key vault"]),
    ];
    for (answer, status, parts) in cases {
        vault.always(answer.clone());
        let timeout = match answer {
            VaultAnswer::Hang => "timeout = \"300ms\"",
            _ => "",
        };
        let gateway = world.start(&settings(&world, &trigger, timeout));
        assert_fails(&world, &gateway, status, &parts).await;
    }
}

/// A call fails with this status, and its line says why, without any secret.
async fn assert_fails(world: &World, gateway: &Running, status: u16, parts: &[&str]) {
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(answer.status.as_u16(), status, "{parts:?}");
    let line = gateway.lines.of(&answer).await;
    let cause = line["cause"].as_str().unwrap();
    let all = ["secret contoso of key vault localhost", "identity reader"];
    for part in all.iter().chain(parts) {
        assert!(cause.contains(part), "{part}: {cause}");
    }
    assert!(
        !cause.contains("canary") || cause.contains("canary.example"),
        "{cause}"
    );
    for token in world.emulator.entra.issued() {
        assert!(!cause.contains(&token), "{cause}");
    }
    assert!(!answer.text().contains("vault"), "{}", answer.text());
}

#[tokio::test]
async fn a_missing_role_a_missing_secret_and_a_disabled_one_are_distinguished() {
    let world = world().await;
    let vault = &world.emulator.vault;
    let trigger = accepting(&world);
    vault.forbid(READER_OID);
    let gateway = world.start(&settings(&world, &trigger, ""));
    let role = format!("--role \"Key Vault Secrets User\" --assignee {READER}");
    assert_fails(
        &world,
        &gateway,
        502,
        &["may not read secrets", "Access control (IAM)", &role],
    )
    .await;
    vault.allow(READER_OID);
    vault.disable("contoso");
    let gateway = world.start(&settings(&world, &trigger, ""));
    assert_fails(&world, &gateway, 502, &["switched off", "--enabled true"]).await;
    let settings = settings(&world, &trigger, "").replace("/secrets/contoso", "/secrets/contoso-2");
    let gateway = world.start(&settings);
    let answer = gateway.post("/orders", "{}").await;
    let cause = gateway.lines.of(&answer).await["cause"].to_string();
    assert!(
        cause.contains("secret contoso-2 of key vault") && cause.contains("no such secret"),
        "{cause}"
    );
}

#[tokio::test]
async fn a_vault_of_another_tenant_is_named() {
    let world = world().await;
    world
        .emulator
        .vault
        .tenant("22222222-2222-4333-8444-555555555555");
    world
        .emulator
        .vault
        .always(VaultAnswer::Challenge(RESOURCE.into()));
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, ""));
    let parts = ["belongs to tenant 22222222-2222-4333-8444-555555555555", TENANT];
    assert_fails(&world, &gateway, 502, &parts).await;
}

#[tokio::test]
async fn a_tenant_that_is_named_by_its_domain_is_not_called_another_one() {
    let world = world().await;
    let domain = "contoso.example";
    world
        .emulator
        .register_app(domain, READER, READER_SECRET, READER_OID);
    world
        .emulator
        .vault
        .always(VaultAnswer::Challenge(RESOURCE.into()));
    let trigger = accepting(&world);
    let reader = |tenant| world.identity("reader", tenant, READER, "env:READER_SECRET");
    let settings = settings(&world, &trigger, "").replace(&reader(TENANT), &reader(domain));
    let gateway = world.start(&settings);
    let part = format!(
        "(status 401); its challenge names tenant {TENANT}. Check that the identity belongs to the vault's tenant"
    );
    assert_fails(&world, &gateway, 502, &[&part]).await;
}

#[tokio::test]
async fn a_vault_that_cannot_be_reached_or_trusted_is_named() {
    let world = world().await;
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, "").replace(
        &format!(
            "[keyvault]\nidentity = \"reader\"\nca_file = {:?}",
            world.emulator.ca_file()
        ),
        "[keyvault]\nidentity = \"reader\"",
    ));
    assert_fails(&world, &gateway, 503, &["cannot be reached", "ertificate"]).await;
    world.emulator.vault.listener().set_door(Door::Refuse).await;
    let gateway = world.start(&settings(&world, &trigger, ""));
    assert_fails(&world, &gateway, 503, &["cannot be reached", "Vault URI"]).await;
}

#[tokio::test]
async fn a_reader_without_a_token_is_the_reason() {
    let mut world = world().await;
    world.secrets.retain(|(name, _)| name != "READER_SECRET");
    world.secrets.push(("READER_SECRET".into(), "wrong".into()));
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, ""));
    assert_fails(
        &world,
        &gateway,
        502,
        &["no token for key vaults", "AADSTS7000215", READER],
    )
    .await;
    assert_eq!(world.emulator.vault.reads().get(), 0);
}

#[tokio::test]
async fn a_token_that_was_withdrawn_is_replaced_once() {
    let world = world().await;
    world.emulator.vault.next(VaultAnswer::Challenge(RESOURCE.into()));
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, ""));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let sent: Vec<_> = world
        .emulator
        .vault
        .requests()
        .iter()
        .map(|request| {
            request
                .head
                .header("authorization")
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0], sent[1]);
}

#[tokio::test]
async fn a_vault_that_is_away_at_the_start_keeps_only_its_own_identity_waiting() {
    let world = world().await;
    world.emulator.vault.always(VaultAnswer::Status(503));
    let other = "cccccccc-bbbb-4ccc-8ddd-eeeeeeeeeeee";
    world.emulator.register_app(TENANT, other, SECRET, "other-oid");
    let trigger = accepting(&world);
    let gateway = world.start(&format!(
        "{}{}{}",
        settings(&world, &trigger, ""),
        world.identity("other", TENANT, other, "env:CONTOSO_SECRET"),
        world.route("other", "/other", &trigger.url(), "identity = \"other\"")
    ));
    assert_eq!(gateway.post("/orders", "{}").await.code(), "token-unavailable");
    assert_eq!(gateway.post("/other", "{}").await.status, 202);
    let (status, body) = gateway.admin("/readyz?verbose").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let identities = body["identities"].as_array().unwrap();
    let contoso = identities
        .iter()
        .find(|identity| identity["name"] == "contoso")
        .unwrap();
    assert_eq!((status, &contoso["ready"]), (200, &Value::Bool(false)));
    assert!(
        contoso["why"].as_str().unwrap().contains("itself failed"),
        "{contoso}"
    );
    world.emulator.vault.normal();
    until(&gateway, "/orders", 202).await;
}

#[tokio::test]
async fn the_expiry_in_the_vault_is_shown() {
    let world = world().await;
    let end = jiff::Timestamp::now().as_second() + 5 * 86_400 + 3600;
    world.emulator.vault.put_until("contoso", SECRET, Some(end));
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, ""));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let (_, body) = gateway.admin("/readyz?verbose").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let identities = body["identities"].as_array().unwrap();
    let contoso = identities
        .iter()
        .find(|identity| identity["name"] == "contoso")
        .unwrap();
    assert_eq!(contoso["credentials"][0]["days_left"], 5, "{contoso}");
    let (_, metrics) = gateway.admin("/metrics").await;
    let gauge = "flowgate_credential_days_left{identity=\"contoso\",credential=\"client-secret-1\"} 5.0";
    assert!(metrics.contains(gauge), "{metrics}");
}

/// Settings whose listener key, pepper and signed trigger are stored in the vault.
fn all_in_the_vault(world: &World, more: &str) -> String {
    let vault = &world.emulator.vault;
    let signed = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
    let pepper = flowgate::model::Secret::new("canary-pepper-of-20-bytes");
    vault.put("pepper", pepper.expose());
    vault.put("trigger", &signed.url());
    let path = world.dir().join("gateway.key");
    vault.put("site", &std::fs::read_to_string(&path).unwrap());
    let digest = KeyDigest::of(KEY.as_bytes(), Some(&pepper)).to_setting();
    let base = world
        .base()
        .replace(&format!("file:{}", path.display()), &vault.reference("site"))
        .replace(&crate::harness::digest(KEY), &digest);
    format!(
        "[keys]\npepper = \"{}\"\n{base}{}{}",
        vault.reference("pepper"),
        reading(world, more),
        world.route("orders", "/orders", &vault.reference("trigger"), "signed = true")
    )
}

#[tokio::test]
async fn listener_key_pepper_and_signed_trigger_come_from_the_vault() {
    let world = world().await;
    let settings = all_in_the_vault(&world, "");
    // A temporary failure does not keep the program from starting.
    world.emulator.vault.next(VaultAnswer::Status(503));
    let mut program = Program::start(&world, &settings);
    let tcp = TcpStream::connect(program.address().await).await.unwrap();
    let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&["http/1.1"])));
    let mut talk = Talk::new(tls.connect(server_name("localhost"), tcp).await.unwrap());
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status.as_u16(), 202);
    assert_eq!(world.emulator.vault.reads().get(), 4);
}

#[tokio::test]
async fn without_its_listener_key_the_program_ends_with_the_sentence() {
    let world = world().await;
    for (answer, part) in [
        (
            VaultAnswer::Firewall("203.0.113.7".into()),
            "firewall refuses the address 203.0.113.7",
        ),
        (VaultAnswer::Hang, "did not answer within 200ms"),
        (
            VaultAnswer::Json("{\"value\":\"canary\"}".into()),
            "there is no private key in PEM form",
        ),
    ] {
        let timeout = match answer {
            VaultAnswer::Hang => "timeout = \"200ms\"",
            _ => "",
        };
        let settings = all_in_the_vault(&world, timeout);
        world.emulator.vault.always(answer);
        let began = Instant::now();
        let ended = run(&world, "serve", &settings).await;
        let text =
            String::from_utf8_lossy(&ended.stderr).into_owned() + &String::from_utf8_lossy(&ended.stdout);
        assert!(text.contains(part), "{part}: {text}");
        assert!(!text.contains("canary"), "{text}");
        assert!(!ended.status.success());
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn the_program_shows_nothing_of_a_vault_at_its_finest_level() {
    let world = world().await;
    let text = format!(
        "[log]\nlevel = \"trace\"\nformat = \"json\"\n{}",
        all_in_the_vault(&world, "")
            .replace("env:CONTOSO_SECRET", &world.emulator.vault.reference("contoso"))
    );
    let mut program = Program::start(&world, &text);
    // One for the values at the start, and one for each identity when it serves.
    world.emulator.entra.token_requests().reached(3).await;
    program.signal("TERM");
    let key = std::fs::read_to_string(world.dir().join("gateway.key")).unwrap();
    let mut secrets = world.emulator.entra.issued();
    secrets.extend(["canary", "PRIVATE KEY", key.lines().nth(1).unwrap()].map(str::to_owned));
    assert!(secrets.len() > 4, "tokens were issued");
    let mut count = 0;
    program
        .line(|line| {
            count += 1;
            let line = line.to_string();
            for secret in &secrets {
                assert!(!line.contains(secret.as_str()), "{line}");
            }
            line.contains("\"drained\"")
        })
        .await;
    assert!(count > 1);
}

#[tokio::test]
async fn a_check_asks_no_vault_and_says_so() {
    let world = world().await;
    let ended = run(&world, "check", &all_in_the_vault(&world, "")).await;
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert!(text.contains("Secrets in key vaults: 3, not read"), "{text}");
    assert_eq!(world.emulator.vault.reads().get(), 0);
    assert_eq!(world.emulator.entra.token_requests().get(), 0);
}

#[tokio::test]
async fn a_reload_keeps_the_value_that_was_followed_while_its_vault_is_away() {
    let world = world().await;
    let vault = &world.emulator.vault;
    let add = || world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
    let (first, second) = (add(), add());
    vault.put("trigger", &first.url());
    let text = format!(
        "{}{}{}",
        world.base(),
        reading(&world, "period = \"1s\""),
        world.route("orders", "/orders", &vault.reference("trigger"), "signed = true")
    );
    let mut program = Program::start(&world, &text);
    program.address().await;
    vault.put("trigger", &second.url());
    let logged = |part: &'static str| {
        move |line: &Value| line["message"].as_str().is_some_and(|text| text.contains(part))
    };
    program.line(logged("trigger of route orders replaced")).await;

    vault.always(VaultAnswer::Status(503));
    world.file("program.toml", &text.replace("/orders", "/other"));
    program.signal("HUP");
    program
        .line(logged("the value that was read before stays in use"))
        .await;
    program.line(logged("revision 2 is in force")).await;
    let tls = Arc::new(world.emulator.ca.client_config(&["http/1.1"]));
    let tcp = TcpStream::connect(program.address.unwrap()).await.unwrap();
    let mut talk = Talk::new(
        TlsConnector::from(tls)
            .connect(server_name("localhost"), tcp)
            .await
            .unwrap(),
    );
    talk.say(order_bytes("").replace("/orders", "/other")).await;
    assert_eq!(talk.hear().await.status.as_u16(), 202);
    assert_eq!((first.run_count().get(), second.run_count().get()), (0, 1));
}

#[tokio::test]
async fn a_reload_while_starting_takes_effect_after_the_start() {
    let world = world().await;
    let text = format!("[state]\nfolder = \"state\"\n{}", all_in_the_vault(&world, ""));
    // The next try is two seconds later.
    world.emulator.vault.next(VaultAnswer::Status(503));
    let mut program = Program::start(&world, &text);
    world.emulator.entra.token_requests().reached(1).await;
    let refused = err(&flowgate(&world, &["reload"]).await);
    assert!(
        refused.contains("no gateway answers") && refused.contains("have logged \"listening\""),
        "{refused}"
    );
    world.file("program.toml", &text.replace("/orders", "/other"));
    program.signal("HUP");
    program.address().await;
    let reloaded = program.line(|line| line["because"] == "SIGHUP").await;
    assert_eq!(reloaded["revision"], 2, "{reloaded}");
    let plan = out(&flowgate(&world, &["plan"]).await);
    assert_eq!(plan, "nothing would change\n");
    ended(&mut program).await;
}
