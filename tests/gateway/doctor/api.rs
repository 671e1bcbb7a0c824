//! `--live` on a route to an API: one call to the path that the settings name; without one, no call.

use super::{Check, Verdict, examine, find, live, the_one, whole};
use crate::apis::Api;
use crate::harness::{CLIENT, TENANT, World};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::json;

const GRAPH: &str = "https://graph.microsoft.com";

fn answer(status: u16) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::from("{\"error\":{\"code\":\"Whatever\"}}"))
        .unwrap()
}

fn settings(world: &World, api: &Api, more: &str) -> String {
    world.emulator.entra.allow_audience(GRAPH);
    let identity = world.identity("graph", TENANT, CLIENT, "env:CONTOSO_SECRET");
    format!(
        "{}{identity}scope = \"{GRAPH}/.default\"\n[[route]]\nname = \"graph\"\nkind = \"api\"\npath = \
         \"/graph/{{*rest}}\"\nmethods = [\"GET\"]\ncallers = [\"shop\"]\nidentity = \"graph\"\nupstream = \
         \"https://localhost:{}/v1.0\"\nca_file = {:?}\npaths = [\"/organization\"]\n{more}\n",
        world.base(),
        api.port,
        world.emulator.ca_file(),
    )
}

const PROBE: &str = "probe = \"/organization\"";

/// The verdict and text for an API that answers with this status.
async fn answered_with(status: u16) -> (Verdict, String) {
    let world = World::new().await;
    let api = Api::start(&world, vec![answer(status)]).await;
    let report = examine(&world, &settings(&world, &api, PROBE), &live()).await;
    let check: &Check = find(&report, "route graph", "api");
    if check.verdict == Verdict::Fail {
        the_one(&report, "route graph", "api");
    }
    (check.verdict, whole(check))
}

#[tokio::test]
async fn an_api_is_asked_once_for_the_path_of_the_settings_with_the_token() {
    let world = World::new().await;
    let api = Api::start(&world, Vec::new()).await;
    let report = examine(&world, &settings(&world, &api, PROBE), &live()).await;
    assert!(!report.has_failed(), "{}", report.text());
    assert_eq!(find(&report, "route graph", "api").verdict, Verdict::Ok);
    let asked = api.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(
        (asked[0].method.as_str(), asked[0].target.as_str()),
        ("GET", "/v1.0/organization")
    );
    let shown = asked[0].headers["authorization"].to_str().unwrap().to_owned();
    let (_, token) = shown.split_once("Bearer ").unwrap();
    let report = format!("{}{}", report.text(), report.json());
    assert!(!report.contains(token), "{report}");
}

#[tokio::test]
async fn an_api_without_a_probe_is_not_asked_and_the_line_says_how() {
    let world = World::new().await;
    let api = Api::start(&world, Vec::new()).await;
    let report = examine(&world, &settings(&world, &api, ""), &live()).await;
    let check = find(&report, "route graph", "api");
    assert_eq!(check.verdict, Verdict::Note);
    assert!(check.says.contains("Set probe ="), "{}", check.says);
    assert!(api.asked().is_empty());
}

#[tokio::test]
async fn a_refused_token_is_explained_by_its_audience() {
    let (verdict, message) = answered_with(401).await;
    assert_eq!(verdict, Verdict::Fail, "{message}");
    assert!(
        message.contains("operator") && message.contains(GRAPH),
        "{message}"
    );
}

#[tokio::test]
async fn a_missing_permission_names_the_place_and_what_the_token_carries() {
    let world = World::new().await;
    world.emulator.entra.claims(json!({"roles": ["User.Read.All"]}));
    let api = Api::start(&world, vec![answer(403)]).await;
    let report = examine(&world, &settings(&world, &api, PROBE), &live()).await;
    let message = whole(the_one(&report, "route graph", "api"));
    for part in ["User.Read.All", "tenant-admin", "API permissions", CLIENT] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn every_other_answer_of_an_api_is_reported_unchanged() {
    for (status, verdict) in [
        (204, Verdict::Ok),
        (302, Verdict::Warn),
        (400, Verdict::Warn),
        (404, Verdict::Warn),
        (429, Verdict::Note),
        (503, Verdict::Fail),
    ] {
        let (seen, message) = answered_with(status).await;
        assert_eq!(seen, verdict, "{status}: {message}");
        assert!(message.contains(&format!("answered {status}")), "{message}");
    }
}
