//! Identities that request tokens in the name of an account, with its password or a person's sign-in: for
//! tenants whose flows refuse the tokens of applications.

mod login;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::emulator::Answer as Flow;
use crate::emulator::{Door, Rotation, TokenAnswer, Trigger, TriggerHandle, aadsts};
use crate::harness::{Answer, CLIENT, PATIENCE, Running, SECRET, TENANT, World};

/// A public client, in addition to the confidential one of every world.
const PUBLIC: &str = "dddddddd-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const OTHER: &str = "dddddddd-bbbb-4ccc-8ddd-ffffffffffff";
const USER: &str = "flows@contoso.example";
const USER_OID: &str = "12121212-8888-4777-8666-555555555555";
const PASSWORD: &str = "canary-password+&=%7e";
const RISK: &str = "the gateway holds this password, and the account has no second factor";

/// A world with an account, and a trigger that accepts only this account.
async fn world() -> (World, TriggerHandle) {
    let world = World::new().await;
    world.emulator.entra.register_public(TENANT, PUBLIC, "public-oid");
    world
        .emulator
        .entra
        .register_user(TENANT, USER, PASSWORD, USER_OID);
    let trigger = Trigger::specific_users(TENANT, &[USER_OID]).does(Flow::Accepted);
    let trigger = world.emulator.flow.add(trigger);
    (world, trigger)
}

/// The identity `account` of this client, and a route that uses it; `table` configures how it gets tokens.
fn settings(world: &World, trigger: &TriggerHandle, client: &str, more: &str, table: &str) -> String {
    format!(
        "{}[[identity]]\nname = \"account\"\ntenant = \"{TENANT}\"\nclient_id = \"{client}\"\nauthority = \"{}\"\n\
         ca_file = {:?}\ntimeout = \"3s\"\n{more}\n{table}\n{}",
        world.base(),
        world.emulator.entra.authority(),
        world.emulator.ca_file(),
        world.route("orders", "/orders", &trigger.url(), "identity = \"account\""),
    )
}

fn by_password(world: &World, trigger: &TriggerHandle, client: &str, more: &str) -> String {
    let table = format!(
        "[identity.password]\nuser = \"{USER}\"\npassword = \"file:password\"\naccept_risk = \"{RISK}\""
    );
    settings(world, trigger, client, more, &table)
}

fn signed_in(world: &World, trigger: &TriggerHandle, more: &str) -> String {
    let table = "[identity.sign_in]\nstore = \"kept\"";
    settings(world, trigger, PUBLIC, more, table)
}

/// Writes a file that only its owner may read, in one atomic step.
fn private(world: &World, name: &str, text: &str) {
    let new = world.dir().join(format!("{name}.written"));
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(new, world.dir().join(name)).unwrap();
}

/// Stores a sign-in as `flowgate login` does.
fn store(world: &World) -> String {
    let token = world.emulator.entra.refresh_token(TENANT, PUBLIC, USER);
    let kept = json!({"version": 1, "client_id": PUBLIC, "account": USER, "refresh_token": token});
    private(world, "kept", &kept.to_string());
    token
}

fn stored(world: &World) -> String {
    let text = std::fs::read_to_string(world.dir().join("kept")).unwrap();
    let kept: Value = serde_json::from_str(&text).unwrap();
    kept["refresh_token"].as_str().unwrap().to_owned()
}

async fn cause(gateway: &Running, answer: &Answer) -> String {
    gateway.lines.of(answer).await["cause"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Calls until the answer has this status.
async fn until(gateway: &Running, status: u16) {
    let calls = async {
        while gateway.post("/orders", "{}").await.status.as_u16() != status {
            // The gateway retries after seconds; a busy loop would only exhaust its limits.
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    };
    tokio::time::timeout(PATIENCE, calls)
        .await
        .expect("the route does not recover");
}

/// Waits until the gateway has requested a token this many times and been refused.
async fn refusals(gateway: &Running, count: u64) {
    let seen = async {
        loop {
            let (_, metrics) = gateway.admin("/metrics").await;
            let line = metrics.lines().find(|line| {
                line.starts_with("flowgate_token_fetches_total")
                    && line.contains("account")
                    && line.contains("refused")
            });
            let number = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            if number.unwrap_or_default() >= count {
                return;
            }
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    };
    tokio::time::timeout(PATIENCE, seen)
        .await
        .expect("the gateway does not try again");
}

/// The token requests of an account: form fields in their order.
fn asked(world: &World, client: &str) -> Vec<std::sync::Arc<crate::emulator::entra::TokenRequest>> {
    let mut requests = world.emulator.entra.requests();
    requests.retain(|request| {
        request.field("client_id") == Some(client)
            && request.field("grant_type") != Some("client_credentials")
    });
    requests
}

#[tokio::test]
async fn an_account_with_a_password_starts_a_flow_that_refuses_applications() {
    let (world, trigger) = world().await;
    private(&world, "password", PASSWORD);
    let gateway = world.start(&by_password(&world, &trigger, PUBLIC, ""));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let requests = asked(&world, PUBLIC);
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].field("grant_type"), Some("password"));
    assert_eq!(requests[0].field("username"), Some(USER));
    assert_eq!(requests[0].field("password"), Some(PASSWORD));
    assert_eq!(
        requests[0].field("scope"),
        Some("https://service.flow.microsoft.com//.default")
    );
    assert_eq!(
        requests[0].field("client_secret"),
        None,
        "a public client sends none"
    );
}

#[tokio::test]
async fn a_confidential_client_proves_itself_beside_the_account() {
    let (world, trigger) = world().await;
    private(&world, "password", PASSWORD);
    let proof = "client_secret = \"env:CONTOSO_SECRET\"";
    let gateway = world.start(&by_password(&world, &trigger, CLIENT, proof));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(asked(&world, CLIENT)[0].field("client_secret"), Some(SECRET));
}

#[tokio::test]
async fn a_proof_too_many_or_too_few_is_named() {
    let (world, trigger) = world().await;
    private(&world, "password", PASSWORD);
    let proof = "client_secret = \"env:CONTOSO_SECRET\"";
    for (client, more, part) in [(PUBLIC, proof, "AADSTS700025"), (CLIENT, "", "AADSTS7000218")] {
        let gateway = world.start(&by_password(&world, &trigger, client, more));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.code(), "token-refused");
        let cause = cause(&gateway, &answer).await;
        assert!(cause.contains(part) && cause.contains("operator"), "{cause}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_sent_once_until_another_one_is_there() {
    let (world, trigger) = world().await;
    private(&world, "password", "canary-wrong");
    let gateway = world.start(&by_password(&world, &trigger, PUBLIC, ""));
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (502, "token-refused")
    );
    let cause = cause(&gateway, &answer).await;
    for part in [
        "account",
        TENANT,
        "AADSTS50126",
        "not sent again",
        "password holds another one",
    ] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
    assert!(!cause.contains("canary"), "{cause}");
    refusals(&gateway, 2).await;
    assert_eq!(
        asked(&world, PUBLIC).len(),
        1,
        "a second try would count towards a lock"
    );
    private(&world, "password", PASSWORD);
    until(&gateway, 202).await;
    assert_eq!(asked(&world, PUBLIC).len(), 2);
}

#[tokio::test]
async fn each_refusal_of_an_account_is_explained() {
    for (number, part) in [
        (50126, "User name or password is wrong"),
        (50034, "does not exist in the tenant"),
        (50057, "is disabled"),
        (50055, "password has expired"),
        (50053, "is locked"),
        (50076, "multi-factor authentication"),
        (50074, "multi-factor authentication"),
        (50079, "register for multi-factor authentication"),
        (65001, "lacks consent"),
    ] {
        let (world, trigger) = world().await;
        private(&world, "password", PASSWORD);
        world
            .emulator
            .entra
            .always_for(PUBLIC, TokenAnswer::aadsts(number));
        let gateway = world.start(&by_password(&world, &trigger, PUBLIC, ""));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.code(), "token-refused", "{number}");
        let cause = cause(&gateway, &answer).await;
        assert!(cause.contains(part), "{number}: {cause}");
        assert!(cause.contains(&format!("AADSTS{number}")), "{cause}");
        assert_eq!(trigger.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_signed_in_account_starts_a_flow_and_its_refresh_token_is_replaced() {
    let (world, trigger) = world().await;
    let token = store(&world);
    let gateway = world.start(&signed_in(
        &world,
        &trigger,
        "scope = \"https://service.flow.microsoft.com/User\"",
    ));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let request = &asked(&world, PUBLIC)[0];
    assert_eq!(request.field("grant_type"), Some("refresh_token"));
    assert_eq!(request.field("refresh_token"), Some(token.as_str()));
    assert_eq!(
        request.field("scope"),
        Some("https://service.flow.microsoft.com/User offline_access")
    );
    assert_ne!(stored(&world), token, "the new one is kept");
    let mode = std::fs::metadata(world.dir().join("kept"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn two_gateways_with_one_store_do_not_destroy_it() {
    let (world, trigger) = world().await;
    world.emulator.entra.rotation(Rotation::Strict);
    store(&world);
    let gate = world.emulator.entra.hold();
    let settings = signed_in(&world, &trigger, "");
    let gateways = [world.start(&settings), world.start(&settings)];
    // Both use the same refresh token, which is valid for one of them only; each also requests a token for
    // `contoso`.
    gate.arrived(4).await;
    gate.open();
    for gateway in &gateways {
        until(gateway, 202).await;
    }
    drop(gateways);
    let gateway = world.start(&settings);
    assert_eq!(
        gateway.post("/orders", "{}").await.status,
        202,
        "the store is good"
    );
}

#[tokio::test]
async fn an_expired_sign_in_is_named_and_a_new_one_is_used_without_a_restart() {
    for number in [50173, 700_082, 70008, 70043, 50076] {
        let (world, trigger) = world().await;
        store(&world);
        world.emulator.entra.revoke_refresh_tokens(number);
        let gateway = world.start(&signed_in(&world, &trigger, ""));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.code(), "token-refused", "{number}");
        let cause = cause(&gateway, &answer).await;
        for part in [&format!("AADSTS{number}"), "flowgate login --identity account"] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
        if number == 50173 {
            store(&world);
            until(&gateway, 202).await;
        }
    }
}

#[tokio::test]
async fn an_expired_sign_in_is_not_used_again() {
    let (world, trigger) = world().await;
    store(&world);
    world.emulator.entra.revoke_refresh_tokens(50173);
    let gateway = world.start(&signed_in(&world, &trigger, ""));
    refusals(&gateway, 2).await;
    assert_eq!(asked(&world, PUBLIC).len(), 1);
}

#[tokio::test]
async fn an_unusable_store_is_named_with_the_next_step() {
    let (world, trigger) = world().await;
    let gateway = world.start(&signed_in(&world, &trigger, ""));
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(answer.code(), "token-refused");
    let missing = cause(&gateway, &answer).await;
    for part in [
        "nobody has signed in yet",
        "kept",
        "flowgate login --identity account",
    ] {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    let foreign = json!({"version": 1, "client_id": CLIENT, "account": USER, "refresh_token": "canary"});
    for (text, part) in [
        ("canary".to_owned(), "other than a sign-in"),
        (foreign.to_string(), "another client id"),
        ("flowgate-sealed-1:canary".to_owned(), "is sealed"),
    ] {
        private(&world, "kept", &text);
        let gateway = world.start(&signed_in(&world, &trigger, ""));
        let answer = gateway.post("/orders", "{}").await;
        let cause = cause(&gateway, &answer).await;
        assert!(cause.contains(part), "{part}: {cause}");
        assert!(!cause.contains("canary"), "{cause}");
    }
    assert_eq!(asked(&world, PUBLIC).len(), 0);
}

#[tokio::test]
async fn a_held_lock_stops_no_renewal() {
    let (world, trigger) = world().await;
    world.emulator.entra.rotation(Rotation::Strict);
    // A write is abandoned after five seconds, and the token is due for renewal after that.
    world.emulator.entra.lifetime(Duration::from_secs(8));
    let token = store(&world);
    let lock = std::fs::File::create(world.dir().join(".kept.lock")).unwrap();
    lock.lock().unwrap();
    let _gateway = world.start(&signed_in(&world, &trigger, ""));
    let renewed = async {
        while asked(&world, PUBLIC).len() < 2 {
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    };
    tokio::time::timeout(PATIENCE, renewed)
        .await
        .expect("it is not renewed");
    assert_eq!(stored(&world), token, "the store is somebody else's");
}

#[tokio::test]
async fn a_refresh_token_that_cannot_be_stored_remains_in_use() {
    let (world, trigger) = world().await;
    world.emulator.entra.rotation(Rotation::Strict);
    world.emulator.entra.lifetime(Duration::from_secs(3));
    let token = store(&world);
    // A folder with the name of the lock file makes every write fail.
    std::fs::create_dir(world.dir().join(".kept.lock")).unwrap();
    let gateway = world.start(&signed_in(&world, &trigger, ""));
    let renewed = async {
        while asked(&world, PUBLIC).len() < 3 {
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    };
    tokio::time::timeout(PATIENCE, renewed)
        .await
        .expect("it is not renewed");
    until(&gateway, 202).await;
    assert_eq!(stored(&world), token);
    std::fs::remove_dir(world.dir().join(".kept.lock")).unwrap();
    let written = async {
        while stored(&world) == token {
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    };
    tokio::time::timeout(PATIENCE, written)
        .await
        .expect("it is not written once it can be");
}

/// Settings in which a second identity, with this client, uses the account as well.
fn for_two(world: &World, trigger: &TriggerHandle, client: &str) -> String {
    let text = by_password(world, trigger, PUBLIC, "");
    let (_, identity) = text.split_once("[[identity]]\nname = \"account\"").unwrap();
    let identity = identity.split("\n[[").next().unwrap().replace(PUBLIC, client);
    let route = world.route("second", "/second", &trigger.url(), "identity = \"second\"");
    format!("{text}\n[[identity]]\nname = \"second\"{identity}\n{route}")
}

#[tokio::test]
async fn what_is_refused_to_one_application_keeps_no_other_from_the_account() {
    for number in [65001, 50105, 53003, 50076] {
        let (world, trigger) = world().await;
        world.emulator.entra.register_public(TENANT, OTHER, "other-oid");
        private(&world, "password", PASSWORD);
        let refused = aadsts::Refusal {
            error: "invalid_grant".to_owned(),
            ..aadsts::refusal(number)
        };
        world
            .emulator
            .entra
            .always_for(PUBLIC, TokenAnswer::Refuse(refused));
        let gateway = world.start(&for_two(&world, &trigger, OTHER));
        refusals(&gateway, 1).await;
        assert_eq!(gateway.post("/orders", "{}").await.status, 502, "{number}");
        assert_eq!(gateway.post("/second", "{}").await.status, 202, "{number}");
        refusals(&gateway, 2).await;
        assert_eq!(asked(&world, PUBLIC).len(), 1, "{number}");
    }
}

#[tokio::test]
async fn an_account_whose_tries_have_no_answer_is_left_alone_by_all_who_use_it() {
    let (world, trigger) = world().await;
    private(&world, "password", "canary-wrong");
    // The connection is closed without a byte.
    world
        .emulator
        .entra
        .always_for(PUBLIC, TokenAnswer::Raw("".into()));
    let gateway = world.start(&for_two(&world, &trigger, PUBLIC));
    for path in ["/orders", "/second"] {
        let cause = async {
            loop {
                let answer = gateway.post(path, "{}").await;
                let cause = cause(&gateway, &answer).await;
                if cause.contains("3 tries in a row had no answer") {
                    return cause;
                }
                tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                    .await
                    .unwrap_err();
            }
        };
        let cause = tokio::time::timeout(PATIENCE, cause)
            .await
            .expect("it is sent on and on");
        for part in ["not sent again for 1 min", "gateway's host must fix this"] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
        assert!(!cause.contains("canary"), "{cause}");
    }
    assert_eq!(asked(&world, PUBLIC).len(), 3);
}

#[tokio::test]
async fn an_authority_that_cannot_be_reached_counts_as_no_try() {
    let (world, trigger) = world().await;
    private(&world, "password", PASSWORD);
    world.emulator.entra.listener().set_door(Door::Refuse).await;
    let gateway = world.start(&by_password(&world, &trigger, PUBLIC, ""));
    let failures = async {
        loop {
            let (_, metrics) = gateway.admin("/metrics").await;
            let line = metrics.lines().find(|line| {
                line.starts_with("flowgate_token_fetches_total") && line.contains("unreachable")
            });
            let number = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            if number.unwrap_or_default() >= 4 {
                return;
            }
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    };
    tokio::time::timeout(PATIENCE, failures)
        .await
        .expect("the gateway does not try again");
    let answer = gateway.post("/orders", "{}").await;
    let cause = cause(&gateway, &answer).await;
    assert!(cause.contains("cannot be reached"), "{cause}");
}
