//! Claims of a token are compared with what routes need before the first call is refused: once in the log, on
//! `/readyz?verbose` as long as it is true, and with a refusal only if the settings ask for one.

use serde_json::{Value, json};

use crate::emulator::Answer as Flow;
use crate::emulator::{TokenForm, Trigger, TriggerHandle};
use crate::harness::{CLIENT, OID, Running, TENANT, World};

const SINGLE_SLASH: &str = "https://service.flow.microsoft.com";

fn accepting(world: &World) -> TriggerHandle {
    world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted))
}

async fn mismatches(gateway: &Running) -> Value {
    let (_, body) = gateway.admin("/readyz?verbose").await;
    serde_json::from_str::<Value>(&body).unwrap()["claim_mismatches"].clone()
}

#[tokio::test]
async fn a_matching_token_is_not_mentioned() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let listed = format!("object_ids = [\"{OID}\"]");
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), &listed));
    gateway.ready().await;
    assert_eq!(mismatches(&gateway).await, json!([]));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}

#[tokio::test]
async fn a_claim_that_cannot_match_is_shown_with_its_fix_and_calls_are_tried() {
    let world = World::new().await;
    world.emulator.entra.claims(json!({"aud": SINGLE_SLASH}));
    let trigger = accepting(&world);
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    gateway.ready().await;
    let shown = mismatches(&gateway).await;
    assert_eq!(shown[0]["route"], "orders");
    let finding = shown[0]["findings"][0].as_str().unwrap();
    for part in [
        "aud",
        "second slash",
        "https://service.flow.microsoft.com//.default",
    ] {
        assert!(finding.contains(part), "{part}: {finding}");
    }
    assert_eq!(gateway.post("/orders", "{}").await.code(), "flow-refused-token");
    assert_eq!(trigger.requests().len(), 1, "the flow was asked");
}

#[tokio::test]
async fn a_route_that_refuses_keeps_the_token_here() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let strict = format!("object_ids = [\"{CLIENT}\"]\non_claim_mismatch = \"refuse\"");
    let routes = [
        world.route("strict", "/strict", &trigger.url(), &strict),
        world.route("easy", "/easy", &trigger.url(), ""),
    ]
    .concat();
    let gateway = world.start_with(&routes);
    gateway.ready().await;
    let answer = gateway.post("/strict", "{}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (502, "token-unfit")
    );
    assert_eq!(answer.json()["reason"], "not-your-fault");
    assert!(!answer.text().contains(CLIENT), "{}", answer.text());
    let cause = gateway.lines.of(&answer).await["cause"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(cause.contains(OID) && cause.contains("client id"), "{cause}");
    assert_eq!(trigger.requests().len(), 0, "no forward");
    assert_eq!(gateway.post("/easy", "{}").await.status, 202);
    let (_, ready) = gateway.admin("/readyz?verbose").await;
    let ready: Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["routes_not_ready"][0]["name"], "strict");
}

#[tokio::test]
async fn an_opaque_token_is_no_reason_to_refuse() {
    let world = World::new().await;
    world.emulator.entra.token_form(TokenForm::Opaque);
    let trigger = accepting(&world);
    let strict = format!("object_ids = [\"{CLIENT}\"]\non_claim_mismatch = \"refuse\"");
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), &strict));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(mismatches(&gateway).await, json!([]));
}

#[tokio::test]
async fn a_renewed_token_that_fits_ends_the_warning() {
    let world = World::new().await;
    world.emulator.entra.claims(json!({"aud": SINGLE_SLASH}));
    let trigger = accepting(&world);
    trigger.change(|trigger| trigger.audience = SINGLE_SLASH.to_owned());
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(mismatches(&gateway).await[0]["route"], "orders");
    world.emulator.entra.claims(json!({}));
    trigger.change(|trigger| trigger.audience = format!("{SINGLE_SLASH}/"));
    world.emulator.revoke_issued_tokens();
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(mismatches(&gateway).await, json!([]));
}
