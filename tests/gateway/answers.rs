//! Answers that vendors accept: what a route makes of its flow's success.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::emulator::Answer as Flow;
use crate::emulator::{Gate, Reply, Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, post, send_h2};

const TWIML: &str = "[route.answer]\ncontent_type = \"text/xml\"\nbody = \"<Response/>\"";

/// A gateway with one route with these lines, to a flow that does this.
async fn stage(more: &str, does: Flow) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).methods(&["POST", "HEAD"]).does(does));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), more));
    (world, gateway, trigger)
}

/// What names the flow or where it is.
fn traces(answer: &Answer, trigger: &TriggerHandle) -> Vec<String> {
    let host = trigger.url().split('/').nth(2).unwrap().to_owned();
    let fields = answer.headers.iter();
    let fields = fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    let hints = [
        host.as_str(),
        "logic.azure.com",
        "/workflows/",
        "x-ms-",
        "location",
    ];
    fields
        .filter(|field| hints.iter().any(|hint| field.contains(hint)))
        .collect()
}

#[tokio::test]
async fn accepted_becomes_ok_and_the_log_keeps_what_the_flow_said() {
    let polled = Flow::Asynchronous {
        polls: 1,
        then: Reply::new(200),
    };
    for does in [Flow::Accepted, polled] {
        let (_world, gateway, trigger) = stage("[route.answer]\naccepted = \"ok\"", does).await;

        let answer = gateway.post("/orders", "{}").await;

        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(traces(&answer, &trigger), [""; 0]);
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("x-flowgate-answer"), Some("flow"));
        assert_eq!(trigger.runs(), 1);
        let line = gateway.lines.of(&answer).await;
        assert_eq!(
            (&line["status"], &line["flow_status"]),
            (&json!(200), &json!(202))
        );
        assert_eq!(line["run"].as_str(), trigger.last_request().run.as_deref());
    }
}

#[tokio::test]
async fn other_answers_are_not_made_ok() {
    let (_world, gateway, trigger) = stage("[route.answer]\naccepted = \"ok\"", Flow::Accepted).await;
    for status in [200, 201, 204, 302, 404, 500] {
        trigger.next(Flow::Respond(Reply::new(status)));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.status, status);
        assert_eq!(gateway.lines.of(&answer).await["flow_status"], json!(null));
    }
}

#[tokio::test]
async fn without_a_word_about_it_accepted_passes() {
    for more in ["", "[route.answer]\naccepted = \"pass\""] {
        let (_world, gateway, _) = stage(more, Flow::Accepted).await;
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.status, 202);
        assert_eq!(gateway.lines.of(&answer).await["flow_status"], json!(null));
    }
}

#[tokio::test]
async fn a_fixed_answer_takes_the_place_of_every_success() {
    let (_world, gateway, trigger) = stage(TWIML, Flow::Accepted).await;
    let mut h2 = gateway.connect_h2().await;
    let own = Reply::json(201, &json!({"id": 7}))
        .header("location", "https://shop.example/7")
        .header("x-order", "7");
    for (does, status) in [(Flow::Accepted, 202), (Flow::Respond(own), 201)] {
        trigger.does(does);
        let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
        for answer in [
            gateway.post("/orders", "{}").await,
            send_h2(&mut h2, request.body(Full::from("{}")).unwrap()).await,
        ] {
            assert_eq!(
                (answer.status.as_u16(), answer.text().as_str()),
                (200, "<Response/>")
            );
            assert_eq!(answer.header("content-type"), Some("text/xml"));
            assert_eq!(answer.header("x-order"), None);
            assert_eq!(answer.header("x-flowgate-answer"), Some("flow"));
            assert_eq!(traces(&answer, &trigger), [""; 0]);
            let line = gateway.lines.of(&answer).await;
            assert_eq!(
                (&line["status"], &line["flow_status"]),
                (&json!(200), &json!(status))
            );
            assert_eq!(
                (&line["end"], &line["bytes_out"]),
                (&json!("complete"), &json!(11))
            );
        }
    }
    assert_eq!(trigger.runs(), 4);
}

#[tokio::test]
async fn a_fixed_answer_may_be_empty() {
    for (lines, status) in [
        ("status = 204", 204),
        ("status = 200", 200),
        ("status = 202", 202),
    ] {
        let does = Flow::json(200, &json!({"secret": "canary"}));
        let (_world, gateway, _) = stage(&format!("[route.answer]\n{lines}"), does).await;
        let mut connection = gateway.connect().await;
        for _ in 0..2 {
            let request = post("/orders").header("x-api-key", KEY);
            let answer = connection.send(request.body(Full::from("{}")).unwrap()).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0));
            assert_eq!(answer.header("content-type"), None);
        }
    }
}

#[tokio::test]
async fn the_connection_of_a_replaced_answer_serves_again() {
    let does = Flow::json(200, &json!({"large": "x".repeat(10_000)}));
    let (_world, gateway, _) = stage(TWIML, does).await;
    let mut connection = gateway.connect().await;
    for upstream in ["new", "reused"] {
        let request = post("/orders").header("x-api-key", KEY);
        let answer = connection.send(request.body(Full::from("{}")).unwrap()).await;
        assert_eq!(gateway.lines.of(&answer).await["upstream"], upstream);
    }
}

#[tokio::test]
async fn nobody_waits_for_an_answer_that_is_replaced() {
    let gate = Gate::closed();
    let does = Flow::Stream {
        chunks: 2,
        chunk_bytes: 10,
        gate: Some(gate),
    };
    let (_world, gateway, _) = stage(TWIML, does).await;
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "<Response/>")
    );
    assert_eq!(gateway.lines.of(&answer).await["end"], "complete");
}

#[tokio::test]
async fn failures_stay_what_they_are() {
    let (_world, gateway, trigger) = stage(TWIML, Flow::Accepted).await;
    for (does, status, by) in [
        (Flow::no_response(), 502, "platform"),
        (Flow::json(404, &json!({"of": "the flow"})), 404, "flow"),
        (Flow::json(500, &json!({"of": "the flow"})), 500, "flow"),
        (
            Flow::Respond(Reply::new(302).header("location", "/elsewhere")),
            302,
            "flow",
        ),
    ] {
        trigger.next(does);
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("x-flowgate-answer"), Some(by));
        assert!(!answer.text().contains("<Response/>"));
    }
    let request = post("/orders").body(Full::from("{}")).unwrap();
    assert_eq!(gateway.send(request).await.code(), "key-missing");
}

#[tokio::test]
async fn a_fixed_answer_to_head_has_no_body() {
    let more = format!("methods = [\"HEAD\"]\n{TWIML}");
    let (_world, gateway, _) = stage(&more, Flow::json(200, &json!({"a": 1}))).await;
    let mut h2 = gateway.connect_h2().await;
    let request = |uri: &str| {
        let request = Request::head(uri).header("x-api-key", KEY);
        request
            .header("host", "localhost")
            .body(Full::<Bytes>::default())
            .unwrap()
    };
    for answer in [
        gateway.send(request("/orders")).await,
        send_h2(&mut h2, request("https://localhost/orders")).await,
    ] {
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
        assert_eq!(answer.header("content-type"), Some("text/xml"));
    }
}

#[tokio::test]
async fn every_problem_of_a_route_says_whom_to_ask() {
    let contact = "contact = \"Ask \\\"Anna\\\" at mailto:anna@example.com\"";
    let (_world, gateway, trigger) = stage(contact, Flow::no_response()).await;
    let unknown = gateway
        .send(post("/orders").body(Full::from("{}")).unwrap())
        .await;
    let failed = gateway.post("/orders", "{}").await;
    assert_eq!(trigger.runs(), 1);
    for (answer, code) in [(&unknown, "key-missing"), (&failed, "flow-no-response")] {
        assert_eq!(answer.code(), code);
        assert_eq!(
            answer.json()["contact"],
            "Ask \"Anna\" at mailto:anna@example.com"
        );
    }
    let nowhere = gateway.post("/nowhere", "{}").await;
    assert_eq!(
        (nowhere.code().as_str(), &nowhere.json()["contact"]),
        ("route-unknown", &json!(null))
    );
}

#[tokio::test]
async fn no_field_says_where_the_flow_is() {
    let (_world, gateway, trigger) = stage("", Flow::Accepted).await;
    let url = trigger.url();
    for (status, name, value) in [
        (201, "Location", url.clone()),
        (201, "Content-Location", url.clone()),
        (200, "Operation-Location", url.clone()),
        (200, "Azure-AsyncOperation", url.to_ascii_uppercase()),
        (200, "Link", format!("<{url}>; rel=\"next\"")),
        (200, "Refresh", format!("5; url={url}")),
        (
            202,
            "Operation-Location",
            "https://management.example/1".to_owned(),
        ),
    ] {
        trigger.next(Flow::Respond(Reply::new(status).header(name, value)));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header(name)),
            (status, None),
            "{name}"
        );
    }
    let own = Reply::new(200).header("link", "<https://shop.example/2>; rel=\"next\"");
    trigger.next(Flow::Respond(own));
    assert!(gateway.post("/orders", "{}").await.header("link").is_some());
}
