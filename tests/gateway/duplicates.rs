//! Deliveries that come twice: one starts a run, the others get its answer, and what failed before a run may be repeated.

use std::sync::Arc;

use bytes::Bytes;
use flowgate::gateway::Wanted;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::emulator::trigger::Condition;
use crate::emulator::{Answer as Flow, Door, ErrorBody, Reply, Steps, Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, caller, post, send_h2};

const BY_HEADER: &str = "[route.duplicates]\nby = \"header:x-delivery\"\n";
/// The key of the caller "bakery".
const OTHER_KEY: &str = "canary-key-of-bakery-0123456789";

/// A flow that answers 200, and a gateway with one route to it; `more` ends the route.
async fn world(more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::json(200, &json!({"ok": 1}))));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), more));
    gateway.ready().await;
    (world, gateway, trigger)
}

fn delivery(id: &str, body: &str) -> Request<Full<Bytes>> {
    post("/orders")
        .header("x-api-key", KEY)
        .header("x-delivery", id)
        .body(Full::from(body.to_owned()))
        .unwrap()
}

impl Running {
    async fn deliver(&self, id: &str, body: &str) -> Answer {
        self.send(delivery(id, body)).await
    }
}

/// The request whose answer this is, where it is a duplicate's.
fn duplicate_of(answer: &Answer) -> Option<&str> {
    answer.header("x-flowgate-duplicate-of")
}

#[tokio::test]
async fn a_duplicate_gets_the_first_answer_and_starts_nothing() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    let reply = Reply::json(201, &json!({"order": 17})).header("Location", "/orders/17");
    trigger.does(Flow::Respond(reply));
    let first = gateway.deliver("1", "{}").await;
    let again = gateway.deliver("1", "{}").await;
    assert_eq!(trigger.runs(), 1);
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for name in ["content-type", "location", "x-flowgate-answer"] {
        assert!(first.header(name).is_some(), "{name}");
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!(duplicate_of(&first), None);
    assert_eq!(duplicate_of(&again), first.header("x-request-id"));
    let line = gateway.lines.of(&again).await;
    assert_eq!(line["duplicate_of"].as_str(), first.header("x-request-id"));
    assert_eq!(
        (&line["run_started"], &line["answer"]),
        (&json!("no"), &json!("flow"))
    );
    assert_eq!(gateway.lines.of(&first).await.get("duplicate_of"), None);
    let metrics = gateway.admin("/metrics").await.1;
    for figure in [
        "flowgate_duplicates_total{route=\"orders\"} 1",
        "flowgate_remembered_deliveries 1",
    ] {
        assert!(metrics.lines().any(|line| line == figure), "{figure}:\n{metrics}");
    }
    assert_eq!(gateway.deliver("2", "{}").await.status, 201);
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn of_a_hundred_equal_requests_at_once_one_starts_a_run() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    let gate = trigger.hold();
    let gateway = Arc::new(gateway);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let sender = gateway.connect_h2().await;
        for _ in 0..5 {
            let mut sender = sender.clone();
            requests.spawn(async move {
                let request = Request::post("https://localhost/orders")
                    .header("x-api-key", KEY)
                    .header("x-delivery", "1");
                send_h2(&mut sender, request.body(Full::from("{}")).unwrap()).await
            });
            let gateway = gateway.clone();
            requests.spawn(async move { gateway.deliver("1", "{}").await });
        }
    }
    gate.arrived(1).await;
    gate.open();
    let answers = requests.join_all().await;
    assert_eq!(answers.len(), 100);
    let first = answers
        .iter()
        .find(|answer| duplicate_of(answer).is_none())
        .unwrap();
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &first.body));
    }
    let duplicates = answers.iter().filter_map(duplicate_of);
    assert_eq!(
        duplicates
            .filter(|of| Some(*of) == first.header("x-request-id"))
            .count(),
        99
    );
    assert_eq!((trigger.runs(), trigger.requests().len()), (1, 1));
}

#[tokio::test]
async fn a_duplicate_of_a_running_delivery_is_refused_where_the_settings_say_so() {
    let (_world, gateway, trigger) = world(&format!("{BY_HEADER}in_flight = \"conflict\"")).await;
    let gate = trigger.hold();
    let mut connection = gateway.connect().await;
    let first = tokio::spawn(async move { connection.send(delivery("1", "{}")).await });
    gate.arrived(1).await;
    let refused = gateway.deliver("1", "{}").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (409, "delivery-in-flight")
    );
    assert_eq!(refused.header("retry-after"), Some("5"));
    assert_eq!(refused.json()["retryable"], true);
    gate.open();
    let first = first.await.unwrap();
    let cause = gateway.lines.of(&refused).await["cause"].to_string();
    assert!(cause.contains(first.header("x-request-id").unwrap()), "{cause}");
    assert_eq!(gateway.deliver("1", "{}").await.body, first.body);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn no_more_duplicates_wait_than_requests_may() {
    let (_world, gateway, trigger) = world(&format!("waiting_max = 0\n{BY_HEADER}")).await;
    let gate = trigger.hold();
    let mut connection = gateway.connect().await;
    let first = tokio::spawn(async move { connection.send(delivery("1", "{}")).await });
    gate.arrived(1).await;
    let refused = gateway.deliver("1", "{}").await;
    assert_eq!(refused.code(), "delivery-in-flight");
    let cause = gateway.lines.of(&refused).await["cause"].to_string();
    assert!(cause.contains("`waiting_max`"), "{cause}");
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn the_same_id_with_another_body_is_refused() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    let gate = trigger.hold();
    let mut connection = gateway.connect().await;
    let first = tokio::spawn(async move { connection.send(delivery("1", "{}")).await });
    gate.arrived(1).await;
    let while_it_runs = gateway.deliver("1", "[]").await;
    gate.open();
    let first = first.await.unwrap();
    let afterwards = gateway.deliver("1", "[]").await;
    for refused in [while_it_runs, afterwards] {
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (422, "delivery-id-reused")
        );
        let cause = gateway.lines.of(&refused).await["cause"].to_string();
        assert!(cause.contains(first.header("x-request-id").unwrap()), "{cause}");
    }
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn an_id_is_bound_to_route_and_caller() {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let mut settings = format!("{}{}", world.base(), caller("bakery", OTHER_KEY));
    for name in ["orders", "returns"] {
        let more = format!("callers = [\"shop\", \"bakery\"]\n{BY_HEADER}");
        settings.push_str(&world.route(name, &format!("/{name}"), &trigger.url(), &more));
    }
    let gateway = world.start(&settings);
    let mut runs = 0;
    for path in ["/orders", "/returns"] {
        for key in [KEY, OTHER_KEY] {
            runs += 1;
            for _ in 0..2 {
                let request = post(path).header("x-api-key", key).header("x-delivery", "1");
                let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
                assert_eq!(answer.status, 202);
                assert_eq!(trigger.runs(), runs, "{path} {key}");
            }
        }
    }
}

#[tokio::test]
async fn what_failed_before_a_run_may_be_repeated() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    for (number, (answer, code)) in [
        (Flow::throttled(None, ErrorBody::Empty), "flow-throttled"),
        (Flow::too_large(), "body-too-large"),
    ]
    .into_iter()
    .enumerate()
    {
        trigger.next(answer);
        let id = number.to_string();
        assert_eq!(gateway.deliver(&id, "{}").await.code(), code);
        let again = gateway.deliver(&id, "{}").await;
        assert_eq!(
            (again.status.as_u16(), duplicate_of(&again)),
            (200, None),
            "{code}"
        );
        assert!(duplicate_of(&gateway.deliver(&id, "{}").await).is_some());
    }
    assert_eq!(trigger.runs(), 2);
    trigger.set_condition(Condition::Disabled);
    assert_eq!(gateway.deliver("off", "{}").await.code(), "flow-off");
    trigger.set_condition(Condition::Enabled);
    // Released as well: another content may use the id.
    assert_eq!(gateway.deliver("off", "[]").await.status, 200);
    assert_eq!(trigger.runs(), 3);
}

#[tokio::test]
async fn what_did_not_leave_may_be_repeated() {
    let (world, gateway, trigger) = world(BY_HEADER).await;
    let door = world.emulator.flow.listener();
    door.set_door(Door::Refuse).await;
    assert_eq!(gateway.deliver("1", "{}").await.code(), "flow-unreachable");
    door.set_door(Door::Open).await;
    assert_eq!(gateway.deliver("1", "{}").await.status, 200);
    assert_eq!(trigger.runs(), 1);
}

/// Delivers twice where the first outcome is not known; returns both answers and the number of runs.
async fn twice_unknown(flow: Flow, setting: &str) -> (Answer, Answer, u64) {
    let more = format!("response_timeout = \"300ms\"\n{BY_HEADER}{setting}");
    let (_world, gateway, trigger) = world(&more).await;
    trigger.next(flow);
    let first = gateway.deliver("1", "{}").await;
    let second = gateway.deliver("1", "{}").await;
    assert!(first.status.is_server_error(), "{}", first.text());
    (first, second, trigger.runs())
}

#[tokio::test]
async fn after_an_unknown_outcome_a_duplicate_gets_the_same_problem() {
    for (flow, code) in [(Flow::Never, "flow-timeout"), (Flow::Cut, "flow-connection-lost")] {
        let (first, second, runs) = twice_unknown(flow, "").await;
        assert_eq!((first.code().as_str(), runs), (code, 1));
        assert_eq!((second.status, &second.body), (first.status, &first.body));
        assert_eq!(second.header("content-type"), Some("application/problem+json"));
        assert_eq!(duplicate_of(&second), first.header("x-request-id"));
    }
}

#[tokio::test]
async fn after_an_unknown_outcome_a_duplicate_can_be_accepted() {
    for flow in [Flow::Never, Flow::Cut, Flow::no_response()] {
        let (first, second, runs) = twice_unknown(flow, "unknown = \"accept\"").await;
        assert_eq!((second.status.as_u16(), second.body.len(), runs), (200, 0, 1));
        assert_eq!(duplicate_of(&second), first.header("x-request-id"));
    }
}

#[tokio::test]
async fn after_an_unknown_outcome_a_duplicate_can_start_again() {
    for flow in [Flow::Never, Flow::Cut] {
        let (_, second, runs) = twice_unknown(flow, "unknown = \"again\"").await;
        assert_eq!(
            (second.status.as_u16(), duplicate_of(&second), runs),
            (200, None, 2)
        );
    }
}

#[tokio::test]
async fn a_run_that_is_known_is_not_started_again() {
    let (first, second, runs) = twice_unknown(Flow::no_response(), "unknown = \"again\"").await;
    assert_eq!((first.code().as_str(), runs), ("flow-no-response", 1));
    assert_eq!(second.body, first.body);
}

#[tokio::test]
async fn an_answer_of_the_flow_is_repeated_whatever_its_status() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    for status in [400, 409, 500, 503] {
        trigger.next(Flow::json(status, &json!({"own": status})));
        let id = status.to_string();
        for _ in 0..2 {
            let answer = gateway.deliver(&id, "{}").await;
            assert_eq!(
                (answer.status.as_u16(), answer.json()["own"].clone()),
                (status, json!(status))
            );
        }
    }
    assert_eq!(trigger.runs(), 4);
}

#[tokio::test]
async fn of_a_large_answer_and_one_that_breaks_off_the_status_is_kept() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    let large = Flow::Respond(Reply::text(201, "x".repeat(20_000)));
    let stream = Flow::Stream {
        chunks: 20,
        chunk_bytes: 1000,
        gate: None,
    };
    for (id, flow, status) in [("large", large, 201), ("stream", stream, 200)] {
        trigger.next(flow);
        assert_eq!(gateway.deliver(id, "{}").await.body.len(), 20_000);
        let again = gateway.deliver(id, "{}").await;
        assert_eq!((again.status.as_u16(), again.body.len()), (status, 0));
        assert!(duplicate_of(&again).is_some());
    }
    let short = Steps::new().send("HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\nhalf");
    trigger.next(Flow::Steps(short.then(crate::emulator::After::Cut)));
    let mut connection = gateway.tls_stream().await;
    let request = format!(
        "POST /orders HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\nx-delivery: cut\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    tokio::io::AsyncWriteExt::write_all(&mut connection, request.as_bytes())
        .await
        .unwrap();
    gateway.lines.wait_for(|line| line["end"] == "flow-cut").await;
    let again = gateway.deliver("cut", "{}").await;
    assert_eq!((again.status.as_u16(), again.body.len()), (202, 0));
    assert_eq!(trigger.requests().len(), 3);
}

#[tokio::test]
async fn a_request_without_an_id_is_refused_or_passes() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    let mut connection = gateway.connect().await;
    let request = || {
        let request = post("/orders").header("x-api-key", KEY);
        request.body(Full::from("{}")).unwrap()
    };
    let refused = connection.send(request()).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (400, "delivery-id-missing")
    );
    assert_eq!(refused.json()["detail"], "the header `x-delivery` is missing");
    assert!(connection.is_open(), "a refusal is no reason to hang up");
    assert_eq!(trigger.runs(), 0);

    let (_world, gateway, trigger) = world(&format!("{BY_HEADER}without_id = \"pass\"")).await;
    for runs in 1..3 {
        assert_eq!(gateway.send(request()).await.status, 200);
        assert_eq!(trigger.runs(), runs);
    }
    for _ in 0..2 {
        assert_eq!(gateway.deliver("1", "{}").await.status, 200);
        assert_eq!(trigger.runs(), 3);
    }
}

#[tokio::test]
async fn an_id_is_read_in_the_body_or_is_the_body() {
    for (by, bodies) in [
        (
            "json:/event/id",
            [r#"{"event": {"id": 7}}"#, r#"{"event": {"id": 8}}"#],
        ),
        ("body", ["{}", "[]"]),
    ] {
        let (_world, gateway, trigger) = world(&format!("[route.duplicates]\nby = \"{by}\"")).await;
        for (runs, body) in (1..).zip(bodies) {
            for _ in 0..2 {
                assert_eq!(gateway.post("/orders", body).await.status, 200);
                assert_eq!(trigger.runs(), runs, "{by}");
            }
        }
    }
}

#[tokio::test]
async fn an_id_that_two_readers_could_take_for_two_is_refused() {
    for rules in ["", "without_id = \"pass\"\n"] {
        let (_world, gateway, trigger) =
            world(&format!("[route.duplicates]\nby = \"json:/id\"\n{rules}")).await;
        let refused = gateway.post("/orders", r#"{"id": "1", "id": "2"}"#).await;
        assert_eq!(refused.code(), "delivery-id-missing");
        assert_eq!(refused.json()["detail"], "the body has the key `id` twice");
        assert_eq!(trigger.runs(), 0);
    }
}

#[tokio::test]
async fn a_path_and_a_query_that_go_on_are_part_of_the_content() {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT).unchecked().does(Flow::Accepted));
    let rules = "query = [\"lang\"]\n[route.duplicates]\nby = \"body\"";
    let routes = world.route("orders", "/orders", &trigger.url(), rules);
    let gateway = world.start_with(&routes);
    for path in ["/orders?lang=de", "/orders?lang=fr", "/orders?lang=de"] {
        assert_eq!(gateway.post(path, "{}").await.status.as_u16(), 202, "{path}");
    }
    assert_eq!(trigger.requests().len(), 2);
}

#[tokio::test]
async fn what_stays_here_of_the_query_and_path_may_differ() {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT).unchecked().does(Flow::Accepted));
    let rules = format!("query = [\"order\"]\nkey_from = [\"query:code\"]\n{BY_HEADER}");
    let caller = caller("shop", KEY).replace("name = \"shop\"\n", "name = \"shop\"\nkey_in_url = true\n");
    let text = world.base().replace(&self::caller("shop", KEY), &caller);
    let path = "/orders/{team}/{*rest}";
    let rules = format!("relative_path = true\n{rules}");
    let gateway = world.start(&format!(
        "{text}{}",
        world.route("orders", path, &trigger.url(), &rules)
    ));
    for (target, status) in [
        ("/orders/a/1?order=5&attempt=1", 202),
        ("/orders/a/1?attempt=2&order=5", 202),
        ("/orders/b/1?order=5", 202),
        ("/orders/a/1?order=6", 422),
        ("/orders/a/2?order=5", 422),
    ] {
        let request = post(&format!("{target}&code={KEY}")).header("x-delivery", "1");
        let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
    }
    assert_eq!(trigger.requests().len(), 1);
}

#[tokio::test]
async fn a_body_above_the_hold_size_is_held_as_well() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    let body = format!("{{\"text\": \"{}\"}}", "x".repeat(200_000));
    for _ in 0..2 {
        assert_eq!(gateway.deliver("1", &body).await.status, 200);
    }
    assert_eq!(trigger.runs(), 1);
    assert_eq!(trigger.last_request().body.len(), body.len());
    let other = body.replace("xxx}", "xxy}").replacen('x', "y", 1);
    assert_eq!(gateway.deliver("1", &other).await.status, 422);
}

#[tokio::test]
async fn answers_survive_a_reload() {
    let (world, mut gateway, trigger) = world(BY_HEADER).await;
    let first = gateway.deliver("1", "{}").await;
    let gate = trigger.hold();
    let mut connection = gateway.connect().await;
    let running = tokio::spawn(async move { connection.send(delivery("2", "{}")).await });
    gate.arrived(1).await;

    // Another window, and another place among the settings.
    let other = world.route("returns", "/returns", &trigger.url(), "");
    let rules = format!("{BY_HEADER}window = \"1h\"\nin_flight = \"conflict\"");
    let orders = world.route("orders", "/orders", &trigger.url(), &rules);
    let config = Arc::new(world.load(&format!("{}{other}{orders}", world.base())));
    gateway.server.reload(&config, Wanted::ByOperator).await.unwrap();

    let again = gateway.deliver("1", "{}").await;
    assert_eq!(duplicate_of(&again), first.header("x-request-id"));
    assert_eq!(gateway.deliver("2", "{}").await.code(), "delivery-in-flight");
    gate.open();
    let running = running.await.unwrap();
    let again = gateway.deliver("2", "{}").await;
    assert_eq!(duplicate_of(&again), running.header("x-request-id"));
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn where_the_first_fails_before_a_run_one_that_waits_goes_on() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    let gate = trigger.hold();
    trigger.next(Flow::throttled(None, ErrorBody::Empty));
    let gateway = Arc::new(gateway);
    let deliver = || {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.deliver("1", "{}").await })
    };
    let first = deliver();
    gate.arrived(1).await;
    let others = [deliver(), deliver(), deliver()];
    gate.open();
    assert_eq!(first.await.unwrap().code(), "flow-throttled");
    let mut firsts = 0;
    for other in others {
        let answer = other.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        firsts += u32::from(duplicate_of(&answer).is_none());
    }
    assert_eq!((firsts, trigger.runs()), (1, 1));
}

/// Sends over HTTP/2, and resets the stream once `arrived` is over.
async fn leave(gateway: &Running, id: &str, arrived: impl Future<Output = ()>) {
    let mut sender = gateway.connect_h2().await;
    let request = Request::post("https://localhost/orders")
        .header("x-api-key", KEY)
        .header("x-delivery", id);
    let pending = sender.send_request(request.body(Full::from("{}")).unwrap());
    let pending = tokio::spawn(pending);
    // The answer to another request of the connection shows that the gateway has read what came before.
    let mut seen = async || {
        let nowhere = Request::get("https://localhost/nowhere");
        let answer = sender.send_request(nowhere.body(Full::default()).unwrap()).await;
        assert_eq!(answer.unwrap().status(), 404);
    };
    seen().await;
    arrived.await;
    pending.abort();
    drop(pending.await);
    seen().await;
}

#[tokio::test]
async fn a_call_that_goes_on_without_its_caller_keeps_its_claim() {
    let (_world, gateway, trigger) = world(BY_HEADER).await;
    let gate = trigger.hold();
    leave(&gateway, "1", gate.arrived(1)).await;
    let mut connection = gateway.connect().await;
    let again = tokio::spawn(async move { connection.send(delivery("1", "{}")).await });
    gate.open();
    let line = gateway.lines.wait_for(|line| line["end"] == "caller-gone").await;
    let again = again.await.unwrap();
    assert_eq!(again.json(), json!({"ok": 1}));
    assert_eq!(duplicate_of(&again), line["request"].as_str());
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_before_its_request_went_on_leaves_no_claim() {
    let (_world, gateway, trigger) = world(&format!("in_flight_max = 1\n{BY_HEADER}")).await;
    let gate = trigger.hold();
    let mut connection = gateway.connect().await;
    let busy = tokio::spawn(async move { connection.send(delivery("busy", "{}")).await });
    gate.arrived(1).await;
    // Both wait: one for a permit, the other one for an answer.
    let mut gone = Vec::new();
    for id in ["1", "busy"] {
        leave(&gateway, id, async {}).await;
        let is_next = |line: &Value| line["end"] == "caller-gone" && !gone.contains(&line["request"]);
        let line = gateway.lines.wait_for(is_next).await;
        gone.push(line["request"].clone());
    }
    gate.open();
    assert_eq!(busy.await.unwrap().status, 200);
    let again = gateway.deliver("1", "{}").await;
    assert_eq!((again.status.as_u16(), duplicate_of(&again)), (200, None));
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_duplicate_needs_no_permit_of_the_flow_and_costs_the_rate_of_its_caller() {
    let more = format!("in_flight_max = 1\nwaiting_max = 0\n{BY_HEADER}");
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let rate = "[caller.rate]\nrequests = 3\nper = \"1h\"\n";
    let routes = world.route("orders", "/orders", &trigger.url(), &more);
    let gateway = world.start(&format!("{}{rate}{routes}", world.base()));
    gateway.ready().await;
    assert_eq!(gateway.deliver("1", "{}").await.status, 202);
    let gate = trigger.hold();
    let mut connection = gateway.connect().await;
    let busy = tokio::spawn(async move { connection.send(delivery("2", "{}")).await });
    gate.arrived(1).await;
    let again = gateway.deliver("1", "{}").await;
    assert_eq!(again.status, 202);
    assert!(duplicate_of(&again).is_some());
    assert_eq!(gateway.deliver("1", "{}").await.code(), "rate-limited");
    gate.open();
    assert_eq!(busy.await.unwrap().status, 202);
}

#[tokio::test]
async fn a_flood_of_ids_is_remembered_within_bounds() {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT).does(Flow::json(200, &json!({"ok": 1}))));
    flow.stop_recording();
    let ample = "{ requests = 100000, per = \"1s\" }";
    let settings = world
        .base()
        .replace("[[caller.key]]", &format!("rate = {ample}\n[[caller.key]]"));
    let limits = format!(
        "\n[limits]\ngateway = {ample}\ndeliveries_max = 1000\ndelivery_answers_budget = \"8 KiB\"\n"
    );
    let more = format!("rate = {ample}\n{BY_HEADER}");
    let routes = world.route("orders", "/orders", &trigger.url(), &more);
    let gateway = world.start(&format!("{settings}{limits}{routes}"));
    gateway.ready().await;
    let sender = gateway.connect_h2().await;
    let mut requests = tokio::task::JoinSet::new();
    for worker in 0..20 {
        let mut sender = sender.clone();
        requests.spawn(async move {
            for number in 0..150 {
                let request = Request::post("https://localhost/orders")
                    .header("x-api-key", KEY)
                    .header("x-delivery", format!("{worker}-{number}"));
                let answer = send_h2(&mut sender, request.body(Full::from("{}")).unwrap()).await;
                assert_eq!(answer.status, 200);
            }
        });
    }
    requests.join_all().await;
    assert_eq!(trigger.runs(), 3000);
    let metrics = gateway.admin("/metrics").await.1;
    let figure = |name: &str| -> usize {
        let found = metrics.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap().trim().parse().unwrap()
    };
    let deliveries = figure("flowgate_remembered_deliveries ");
    assert!((800..=1000).contains(&deliveries), "{deliveries}");
    let bytes = figure("flowgate_delivery_answer_bytes ");
    assert!((4096..=8192).contains(&bytes), "{bytes}");
    // One of the last is known, one of the first is not.
    let last = gateway.deliver("19-149", "{}").await;
    assert!(duplicate_of(&last).is_some());
    assert_eq!(duplicate_of(&gateway.deliver("0-0", "{}").await), None);
}
