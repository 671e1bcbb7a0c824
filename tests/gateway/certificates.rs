//! Client certificates: the assertion is as Microsoft documents it and verifies with an independent library,
//! a certificate is replaced without a restart, and every refusal by Entra is reported with its cause and who
//! fixes it.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::emulator::Answer as Flow;
use crate::emulator::{KeyKind, Leaf, TokenAnswer, Trigger, TriggerHandle};
use crate::harness::{CLIENT, OID, PATIENCE, SECRET, TENANT, World};

fn accepting(world: &World) -> TriggerHandle {
    world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted))
}

fn rsa(world: &World) -> Leaf {
    world
        .emulator
        .ca
        .client_leaf_with("flowgate.example", KeyKind::Rsa2048)
}

/// Certificate and key in one text.
fn pem(leaf: &Leaf) -> String {
    format!("{}{}", leaf.chain_pem, leaf.key_pem)
}

fn register(world: &World, leaf: &Leaf) {
    world.emulator.entra.forget_credentials(TENANT, CLIENT);
    world
        .emulator
        .entra
        .register_certificate(TENANT, CLIENT, leaf, OID);
}

/// The settings with these lines instead of the client secret, and a route to the trigger.
fn settings(world: &World, trigger: &TriggerHandle, certificates: &str) -> String {
    let with_secret = world.identity("contoso", TENANT, CLIENT, "env:CONTOSO_SECRET");
    let without = with_secret.replace("client_secret = \"env:CONTOSO_SECRET\"\n", "");
    assert_ne!(without, with_secret);
    format!(
        "{}{}",
        world
            .base()
            .replace(&with_secret, &format!("{without}{certificates}\n")),
        world.route("orders", "/orders", &trigger.url(), "")
    )
}

fn table(lines: &str) -> String {
    format!("[[identity.certificate]]\n{lines}\n")
}

/// The assertions that Entra received, oldest first.
fn assertions(world: &World) -> Vec<String> {
    let requests = world.emulator.entra.requests();
    requests
        .iter()
        .filter_map(|request| request.field("client_assertion").map(str::to_owned))
        .collect()
}

/// The assertions so far, none of which was refused. The next request follows when all earlier ones have been
/// answered.
async fn accepted(world: &World) -> Vec<String> {
    let shown = assertions(world);
    let count = shown.len() as u64;
    world.emulator.entra.token_requests().reached(count + 1).await;
    assert!(
        world.emulator.entra.issued().len() >= shown.len(),
        "one was refused"
    );
    shown
}

/// A part of an assertion: 0 is its header, 1 its claims.
fn part(assertion: &str, index: usize) -> Value {
    let text = assertion.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

fn thumbprint(leaf: &Leaf, algorithm: &'static digest::Algorithm) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &leaf.chain[0]))
}

/// The claims, if an independent library verifies signature, dates and parties.
fn verified(assertion: &str, leaf: &Leaf, algorithm: Algorithm, audience: &str) -> Value {
    let (_, certificate) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
    let key = DecodingKey::from_rsa_der(&certificate.public_key().subject_public_key.data);
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[CLIENT]);
    validation.sub = Some(CLIENT.to_owned());
    validation.validate_nbf = true;
    validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
    jsonwebtoken::decode(assertion, &key, &validation).unwrap().claims
}

#[tokio::test]
async fn a_call_is_answered_with_a_token_got_by_certificate() {
    for (algorithm, name, field, digest) in [
        (Algorithm::PS256, "PS256", "x5t#S256", &digest::SHA256),
        (
            Algorithm::RS256,
            "RS256",
            "x5t",
            &digest::SHA1_FOR_LEGACY_USE_ONLY,
        ),
    ] {
        let world = World::new().await;
        let leaf = rsa(&world);
        register(&world, &leaf);
        world.file("contoso.pem", &pem(&leaf));
        let trigger = accepting(&world);
        let lines = format!("file = \"file:contoso.pem\"\nalgorithm = \"{name}\"");
        let gateway = world.start(&settings(&world, &trigger, &table(&lines)));
        assert_eq!(gateway.post("/orders", "{}").await.status, 202, "{name}");

        let request = world.emulator.entra.requests()[0].clone();
        assert_eq!(request.field("grant_type"), Some("client_credentials"));
        assert_eq!(request.field("client_id"), Some(CLIENT));
        assert_eq!(request.field("client_secret"), None);
        assert_eq!(
            request.field("client_assertion_type"),
            Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        );
        let assertion = request.field("client_assertion").unwrap();
        let header = json!({"alg": name, "typ": "JWT", field: thumbprint(&leaf, digest)});
        assert_eq!(part(assertion, 0), header);
        let audience = world.emulator.entra.token_url(TENANT);
        let claims = verified(assertion, &leaf, algorithm, &audience);
        let names: BTreeSet<_> = claims.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            names,
            BTreeSet::from(["aud", "exp", "iat", "iss", "jti", "nbf", "sub"])
        );
        assert_eq!(claims["aud"], audience.as_str());
        assert_eq!(claims["iat"], claims["nbf"]);
        let (from, until) = (claims["nbf"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert_eq!(until - from, 600);
        let id = claims["jti"].as_str().unwrap();
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().to_string(), id);
    }
}

#[tokio::test]
async fn each_request_has_an_assertion_of_its_own() {
    let world = World::new().await;
    let leaf = rsa(&world);
    register(&world, &leaf);
    world.file("contoso.pem", &pem(&leaf));
    world.emulator.entra.refresh_in(Some(Duration::from_secs(1)));
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, &table("file = \"file:contoso.pem\"")));
    world.emulator.entra.token_requests().reached(3).await;
    gateway.ready().await;
    let shown = accepted(&world).await;
    let ids: BTreeSet<_> = shown
        .iter()
        .map(|assertion| part(assertion, 1)["jti"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), shown.len());
}

#[tokio::test]
async fn a_chain_is_sent_where_entra_knows_subject_and_issuer_only() {
    let cases = [
        ("flowgate.example", "send_chain = true", 202, ""),
        ("flowgate.example", "send_chain = false", 502, "AADSTS700027"),
        ("other.example", "send_chain = true", 502, "AADSTS700030"),
    ];
    for (name, more, status, number) in cases {
        let world = World::new().await;
        let issuer = world.emulator.ca.intermediate();
        let leaf = issuer.client_leaf_with("flowgate.example", KeyKind::Rsa2048);
        world.emulator.entra.forget_credentials(TENANT, CLIENT);
        world
            .emulator
            .entra
            .register_subject(TENANT, CLIENT, name, &world.emulator.ca, OID);
        world.file("contoso.pem", &pem(&leaf));
        let trigger = accepting(&world);
        let lines = format!("file = \"file:contoso.pem\"\n{more}");
        let gateway = world.start(&settings(&world, &trigger, &table(&lines)));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.status, status, "{name} {more}");
        let header = part(&assertions(&world)[0], 0);
        if more.ends_with("false") {
            assert!(header.get("x5c").is_none());
        } else {
            let chain: Vec<_> = leaf.chain.iter().map(|der| STANDARD.encode(der)).collect();
            assert_eq!(header["x5c"], json!(chain));
        }
        if status != 202 {
            let line = gateway.lines.of(&answer).await;
            let cause = line["cause"].as_str().unwrap();
            assert!(cause.contains(number), "{cause}");
        }
    }
}

#[tokio::test]
async fn a_refused_certificate_is_named_with_cause_and_who_fixes_it() {
    let world = World::new().await;
    let (shown, registered) = (rsa(&world), rsa(&world));
    register(&world, &registered);
    world.file("contoso.pem", &pem(&shown));
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, &table("file = \"file:contoso.pem\""));
    let cases = [
        (700_027, "the certificate is not registered", "operator"),
        (50012, "does not accept the client assertion", "operator"),
        (700_030, "subject is not among those", "operator"),
        (500_133, "the clock of the host is wrong", "gateway's host"),
        (700_024, "the clock of the host is wrong", "gateway's host"),
    ];
    for (number, reason, fixer) in cases {
        // The first is Entra's own text about an unknown certificate.
        if number != 700_027 {
            world.emulator.entra.always(TokenAnswer::aadsts(number));
        }
        let gateway = world.start(&text);
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (502, "token-refused")
        );
        let line = gateway.lines.of(&answer).await;
        let cause = line["cause"].as_str().unwrap().to_owned();
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &shown.chain[0]);
        let print: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let number = format!("AADSTS{number}");
        for part in [reason, fixer, "contoso", &number, &print, "contoso.pem"] {
            assert!(
                cause.to_lowercase().contains(&part.to_lowercase()),
                "{part}: {cause}"
            );
        }
        assert!(!answer.text().contains(&print) && !answer.text().contains("AADSTS"));
    }
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn the_certificate_that_expires_last_is_tried_first_and_the_next_one_at_once() {
    let world = World::new().await;
    let (older, newer) = (
        rsa(&world),
        world.emulator.ca.client_leaf_between("flowgate.example", -1, 60),
    );
    world.file("older.pem", &pem(&older));
    world.file("newer.pem", &newer.chain_pem);
    world.file("newer.key", &newer.key_pem);
    let trigger = accepting(&world);
    let text = settings(
        &world,
        &trigger,
        &[
            table("file = \"file:older.pem\""),
            table("file = \"file:newer.pem\"\nkey = \"file:newer.key\""),
        ]
        .concat(),
    );
    let shown = |world: &World| {
        let shown = assertions(world).into_iter();
        shown
            .map(|assertion| part(&assertion, 0)["x5t#S256"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (old, new) = (
        thumbprint(&older, &digest::SHA256),
        thumbprint(&newer, &digest::SHA256),
    );
    register(&world, &older);
    let gateway = world.start(&text);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(shown(&world), [new, old]);
}

#[tokio::test]
async fn a_replaced_certificate_is_taken_up_and_a_broken_one_is_not() {
    let world = World::new().await;
    let (first, second) = (rsa(&world), rsa(&world));
    register(&world, &first);
    world
        .emulator
        .entra
        .register_certificate(TENANT, CLIENT, &second, OID);
    world.file("contoso.pem", &pem(&first));
    world.emulator.entra.refresh_in(Some(Duration::from_secs(1)));
    let trigger = accepting(&world);
    let gateway = world.start(&settings(&world, &trigger, &table("file = \"file:contoso.pem\"")));
    gateway.ready().await;
    let count = |leaf: &Leaf| {
        let print = thumbprint(leaf, &digest::SHA256);
        let shown = assertions(&world);
        shown
            .iter()
            .filter(|assertion| part(assertion, 0)["x5t#S256"] == print.as_str())
            .count()
    };
    let put = |text: &str| {
        world.file("next.pem", text);
        std::fs::rename(world.dir().join("next.pem"), world.dir().join("contoso.pem")).unwrap();
    };
    // Renewal tools often write certificate and key one after the other, and people install files that become
    // valid tomorrow.
    let ca = &world.emulator.ca;
    for text in [
        format!("{}{}", second.chain_pem, first.key_pem),
        pem(&ca.client_leaf_between("flowgate.example", 1, 60)),
        pem(&ca.client_leaf_between("flowgate.example", -60, -1)),
    ] {
        put(&text);
        // The first of them may already have been in progress.
        let before = world.emulator.entra.token_requests().get();
        world.emulator.entra.token_requests().reached(before + 2).await;
        assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    }
    let print = thumbprint(&first, &digest::SHA256);
    for assertion in assertions(&world) {
        assert_eq!(
            part(&assertion, 0)["x5t#S256"],
            print.as_str(),
            "the last good one serves on"
        );
    }

    put(&pem(&second));
    let taken = async {
        while count(&second) == 0 {
            let before = world.emulator.entra.token_requests().get();
            world.emulator.entra.token_requests().reached(before + 1).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken)
        .await
        .expect("the new certificate is not used");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    accepted(&world).await;
}

#[cfg(feature = "pfx")]
#[tokio::test]
async fn a_pfx_file_signs_in_as_well() {
    let pfx = include_bytes!("../certificates/client.pfx");
    let open = include_bytes!("../certificates/client.nopassword.pfx");
    let mut world = World::new().await;
    let certificate = include_bytes!("../certificates/client.cer").to_vec();
    world.emulator.entra.forget_credentials(TENANT, CLIENT);
    world
        .emulator
        .entra
        .register_der(TENANT, CLIENT, certificate, OID);
    std::fs::write(world.dir().join("contoso.pfx"), pfx).unwrap();
    world
        .secrets
        .push(("PFX_PASSWORD".into(), "canary-password".into()));
    world.secrets.push(("VAULT_PFX".into(), STANDARD.encode(open)));
    let trigger = accepting(&world);
    for lines in [
        "file = \"file:contoso.pfx\"\npassword = \"env:PFX_PASSWORD\"",
        "file = \"env:VAULT_PFX\"",
    ] {
        let gateway = world.start(&settings(&world, &trigger, &table(lines)));
        assert_eq!(gateway.post("/orders", "{}").await.status, 202, "{lines}");
    }
}

#[tokio::test]
async fn the_program_logs_replaced_and_refused_certificates_and_no_part_of_a_key() {
    let world = World::new().await;
    let (first, second) = (rsa(&world), rsa(&world));
    register(&world, &first);
    world
        .emulator
        .entra
        .register_certificate(TENANT, CLIENT, &second, OID);
    world.file("contoso.pem", &pem(&first));
    world.emulator.entra.refresh_in(Some(Duration::from_secs(1)));
    let trigger = accepting(&world);
    let path = world.dir().join("program.toml");
    let text = settings(&world, &trigger, &table("file = \"file:contoso.pem\""));
    std::fs::write(
        &path,
        format!("[log]\nlevel = \"trace\"\nformat = \"json\"\n{text}"),
    )
    .unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(["serve", "--config"])
        .arg(&path)
        .env("CONTOSO_SECRET", SECRET)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    world.emulator.entra.token_requests().reached(2).await;
    world.file("next.pem", &pem(&second));
    std::fs::rename(world.dir().join("next.pem"), world.dir().join("contoso.pem")).unwrap();
    world.emulator.entra.token_requests().reached(4).await;
    let id = program.id().to_string();
    let stopped = tokio::task::spawn_blocking(move || {
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        program.wait_with_output().unwrap()
    });
    let output = stopped.await.unwrap();
    let log = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let count = log
        .matches("certificate of identity contoso replaced, now ")
        .count();
    assert_eq!(count, 1, "{log}");
    for leaf in [&first, &second] {
        for line in leaf.key_pem.lines().filter(|line| !line.starts_with('-')) {
            assert!(!log.contains(line), "a part of a key is shown");
        }
    }
    for assertion in assertions(&world) {
        assert!(!log.contains(&assertion), "an assertion is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_a_key_vault_signs_in_and_is_replaced_there() {
    let mut world = World::new().await;
    let (first, second) = (rsa(&world), rsa(&world));
    register(&world, &first);
    let (reader, secret, oid) = (
        "dddddddd-bbbb-4ccc-8ddd-eeeeeeeeeeee",
        "canary-reader-secret~9",
        "77777777-8888-4777-8666-555555555555",
    );
    world.emulator.register_app(TENANT, reader, secret, oid);
    world.secrets.push(("READER_SECRET".into(), secret.into()));
    let vault = &world.emulator.vault;
    vault.tenant(TENANT);
    vault.allow(oid);
    vault.put("signing", &pem(&first));
    let trigger = accepting(&world);
    let reading = format!(
        "{}scope = \"https://vault.azure.net/.default\"\n[keyvault]\nidentity = \"reader\"\nca_file = {:?}\nperiod = \"1s\"\n",
        world.identity("reader", TENANT, reader, "env:READER_SECRET"),
        world.emulator.ca_file()
    );
    let reference = vault.reference("signing");
    let certificate = table(&format!("file = \"{reference}\""));
    world.emulator.entra.refresh_in(Some(Duration::from_secs(1)));
    let gateway = world.start(&format!("{}{reading}", settings(&world, &trigger, &certificate)));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let shown = |leaf: &Leaf| {
        let print = thumbprint(leaf, &digest::SHA256);
        let mut assertions = assertions(&world).into_iter();
        assertions.any(|assertion| part(&assertion, 0)["x5t#S256"] == print.as_str())
    };
    assert!(shown(&first));
    let query = vault.requests().last().unwrap().head.query().to_owned();
    assert!(
        query.ends_with("&outContentType=application/x-pem-file"),
        "{query}"
    );

    register(&world, &second);
    vault.put("signing", &pem(&second));
    let taken = async {
        while !shown(&second) {
            let before = world.emulator.entra.token_requests().get();
            world.emulator.entra.token_requests().reached(before + 1).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken)
        .await
        .expect("the new certificate is not used");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}
