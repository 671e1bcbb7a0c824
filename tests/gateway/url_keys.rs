//! Keys in URLs, for vendors that have nothing else: accepted where a route says so, nowhere else, and never repeated.

use http::Request;
use http_body_util::Full;
use serde_json::Value;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, digest};

const URL_KEY: &str = "canary-key-of-a-url-0123456789";

async fn gateway(path: &str, more: &str) -> (World, TriggerHandle, Running) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let vendor = format!(
        "[[caller]]\nname = \"vendor\"\nkey_in_url = true\n[[caller.key]]\nlabel = \"url-1\"\ndigest = \"{}\"\n",
        digest(URL_KEY)
    );
    let route = world.route("hooks", path, &trigger.url(), more);
    let route = route.replace("callers = [\"shop\"]", "callers = [\"shop\", \"vendor\"]");
    let gateway = world.start(&format!("{}{vendor}{route}", world.base()));
    (world, trigger, gateway)
}

async fn ask(gateway: &Running, target: &str, header: Option<&str>) -> (Answer, Value) {
    let mut request = Request::post(target).header("host", "localhost");
    if let Some(key) = header {
        request = request.header("x-api-key", key);
    }
    let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
    let line = gateway.lines.of(&answer).await;
    let shown = format!("{line}{}", answer.text());
    assert!(!shown.contains("canary"), "{shown}");
    (answer, line)
}

#[tokio::test]
async fn a_key_in_the_query_is_valid_there_and_nowhere_else() {
    let places = "key_from = [\"query:code\", \"header:x-api-key\"]\nquery = [\"event\"]\n";
    let (_world, trigger, gateway) = gateway("/hooks", places).await;
    let (answer, line) = ask(&gateway, &format!("/hooks?event=paid&code={URL_KEY}"), None).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(
        (line["caller"].as_str(), line["key"].as_str()),
        (Some("vendor"), Some("url-1"))
    );
    let target = trigger.last_request().head.target.clone();
    assert!(
        target.contains("event=paid") && !target.contains("canary"),
        "{target}"
    );

    let (answer, line) = ask(&gateway, "/hooks", Some(URL_KEY)).await;
    assert_eq!(answer.code(), "key-unknown");
    assert!(
        line["cause"]
            .as_str()
            .unwrap()
            .contains("is valid in the URL only"),
        "{line}"
    );
    let (answer, line) = ask(&gateway, &format!("/hooks?code={KEY}"), None).await;
    assert_eq!(answer.code(), "key-unknown");
    assert!(
        line["cause"]
            .as_str()
            .unwrap()
            .contains("is in the URL, where it is not valid"),
        "{line}"
    );
    assert_eq!(ask(&gateway, "/hooks", Some(KEY)).await.0.status, 202);
    assert_eq!(
        ask(&gateway, &format!("/hooks?code={URL_KEY}&code=canary-2"), None)
            .await
            .0
            .code(),
        "keys-differ"
    );
    assert_eq!(ask(&gateway, "/hooks?code=", None).await.0.code(), "key-missing");
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_key_in_the_path_is_not_in_the_log_also_where_no_route_is() {
    let (_world, trigger, gateway) = gateway(
        "/hooks/{key}/paid",
        "key_from = [\"path\", \"header:x-api-key\"]\n",
    )
    .await;
    let (answer, _) = ask(&gateway, &format!("/hooks/{URL_KEY}/paid"), None).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(!trigger.last_request().head.target.contains("canary"));
    assert_eq!(
        ask(&gateway, "/hooks/canary-other/paid", None).await.0.code(),
        "key-unknown"
    );
    // A short key in an address with a mistake.
    let (answer, line) = ask(&gateway, "/hook/canary-1/paid", None).await;
    assert_eq!(answer.status, 404);
    assert_eq!(line["target"], "/***/***/***");
    let metrics = gateway.admin("/metrics").await.1;
    assert!(!metrics.contains("canary"));
    assert_eq!(trigger.runs(), 1);
}
