//! Flows that answer 202 with an address of their run: the result is waited for, and later asked for at an address of the gateway
//! that shows nothing of the run and leads nowhere else.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use flowgate::gateway::Wanted;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::time::Instant;

use crate::emulator::{Answer as Flow, Reply, Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, PATIENCE, Running, TENANT, World, caller, post, send_h2};

const KEYS: &str = "[keys]\nrun_addresses = [\"file:seal\"]\n";
const SEAL: &str = "canary-seal-0123456789abcdef";
const AT_ONCE: &str = "[route.answer]\nwait = \"0s\"\n";
const WAIT: &str = "[route.answer]\nwait = \"10s\"\n";
/// The key of the caller "bakery".
const OTHER_KEY: &str = "canary-key-of-bakery-0123456789";
/// Some tests ask as fast as possible.
const OFTEN: &str = "rate = { requests = 100000, per = \"1s\" }\n";
const PREFIX: &str = "/.flowgate/runs/";

/// A flow whose run ends after so many questions.
fn asynchronous(polls: u32) -> Flow {
    let then = Reply::json(201, &json!({"order": 7})).header("x-order", "7");
    Flow::Asynchronous { polls, then }
}

/// A gateway with one route with these lines to a flow that does this.
async fn stage(more: &str, does: Flow) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    world.file("seal", SEAL);
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT).does(does));
    let gateway = world.start(&settings(&world, &trigger.url(), more));
    gateway.ready().await;
    (world, gateway, trigger)
}

fn settings(world: &World, trigger: &str, more: &str) -> String {
    let caller = format!("name = \"shop\"\n{OFTEN}");
    format!(
        "{}{KEYS}{}",
        world.base().replace("name = \"shop\"\n", &caller),
        world.route("orders", "/orders", trigger, more)
    )
}

/// The address that a 202 has; nothing else of it names the flow.
fn address(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{}", answer.text());
    let address = answer.header("location").expect("an address").to_owned();
    assert!(address.starts_with(PREFIX), "{address}");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    check_no_trace(answer);
    address
}

fn check_no_trace(answer: &Answer) {
    for (name, value) in &answer.headers {
        let field = format!("{name}: {}", value.to_str().unwrap());
        for trace in ["x-ms-", "/workflows/", "sig=", "https://localhost:", "operations"] {
            assert!(!field.contains(trace), "{field}");
        }
    }
}

fn get(path: &str, key: Option<&str>) -> Request<Full<bytes::Bytes>> {
    let mut request = Request::get(path).header("host", "localhost");
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    request.body(Full::default()).unwrap()
}

impl Running {
    async fn ask(&self, path: &str) -> Answer {
        self.send(get(path, None)).await
    }
}

#[tokio::test]
async fn the_result_of_a_run_is_the_answer_where_it_comes_in_time() {
    let (world, gateway, trigger) = stage(WAIT, asynchronous(1)).await;
    let mut h2 = gateway.connect_h2().await;
    let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
    for answer in [
        gateway.post("/orders", "{}").await,
        send_h2(&mut h2, request.body(Full::from("{}")).unwrap()).await,
    ] {
        assert_eq!(
            (answer.status.as_u16(), answer.json()),
            (201, json!({"order": 7}))
        );
        assert_eq!(answer.header("x-order"), Some("7"));
        assert_eq!(answer.header("x-flowgate-answer"), Some("flow"));
        check_no_trace(&answer);
        let line = gateway.lines.of(&answer).await;
        assert_eq!(
            (&line["status"], &line["run_started"]),
            (&json!(201), &json!("yes"))
        );
        assert!(line["run"].is_string(), "{line}");
    }
    assert_eq!((trigger.runs(), world.emulator.flow.polls().get()), (2, 4));
    for poll in world.emulator.flow.requests() {
        // An address with a signature gets no token beside it.
        let is_signed = poll.head.target.contains("sig=");
        assert_eq!(
            (poll.bearer().is_none(), poll.head.method == "GET"),
            (is_signed, is_signed)
        );
    }
    world.emulator.assert_clean();
}

#[tokio::test]
async fn nothing_of_the_trigger_is_held_between_two_questions() {
    let lines = format!("in_flight_max = 1\nwaiting_max = 1\n{WAIT}");
    let (world, gateway, trigger) = stage(&lines, asynchronous(1)).await;
    let mut connection = gateway.connect().await;
    let waiting = tokio::spawn(async move {
        let request = post("/orders").header("x-api-key", KEY);
        connection.send(request.body(Full::from("{}")).unwrap()).await
    });
    trigger.run_count().reached(1).await;
    world.emulator.flow.polls().reached(1).await;
    // It waits for its second question, and there is one permit. There is one place to wait as well.
    trigger.does(Flow::json(200, &json!({})));
    assert_eq!(gateway.post("/orders", "{}").await.status, 200);
    trigger.does(asynchronous(0));
    let began = Instant::now();
    address(&gateway.post("/orders", "{}").await);
    assert!(
        began.elapsed() < Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(waiting.await.unwrap().status, 201);
}

#[tokio::test]
async fn after_the_time_the_result_is_at_an_address_of_the_gateway() {
    let (world, gateway, trigger) = stage("[route.answer]\nwait = \"1500ms\"\n", asynchronous(2)).await;
    let first = gateway.post("/orders", "{}").await;
    let at = address(&first);
    assert_eq!(gateway.lines.of(&first).await["status"], 202);
    assert_eq!(world.emulator.flow.polls().get(), 1);
    let still = gateway.ask(&at).await;
    assert_eq!(still.header("x-flowgate-answer"), Some("flow"));
    let again = address(&still);
    let mut h2 = gateway.connect_h2().await;
    let request = Request::get(format!("https://localhost{again}"));
    let result = send_h2(&mut h2, request.body(Full::default()).unwrap()).await;
    for result in [result, gateway.ask(&at).await] {
        assert_eq!(
            (result.status.as_u16(), result.json()),
            (201, json!({"order": 7}))
        );
        check_no_trace(&result);
        let line = gateway.lines.of(&result).await;
        assert_eq!(
            (&line["route"], &line["caller"], &line["method"], &line["target"]),
            (
                &json!("orders"),
                &json!("shop"),
                &json!("GET"),
                &json!("/.flowgate/runs/***")
            )
        );
        assert_eq!(line["run_started"], "no");
    }
    assert_eq!(trigger.runs(), 1);
    let logged = gateway.lines.all().concat() + &gateway.admin("/metrics").await.1;
    for text in [&at[PREFIX.len()..], &again[PREFIX.len()..], "sig="] {
        assert!(!logged.contains(text), "{text}");
    }
}

#[tokio::test]
async fn an_address_is_of_the_host_that_the_settings_know() {
    let lines = format!("public_url = \"https://hooks.example\"\nhost = \"localhost\"\n{AT_ONCE}");
    let (_world, gateway, _) = stage(&lines, asynchronous(0)).await;
    let answer = gateway.post("/orders", "{}").await;
    let address = answer.header("location").unwrap();
    let path = address.strip_prefix("https://hooks.example").unwrap();
    let other = Request::get(path).header("host", "hooks.example");
    let other = gateway.send(other.body(Full::default()).unwrap()).await;
    assert_eq!(
        (other.status.as_u16(), other.code().as_str()),
        (404, "run-unknown")
    );
    assert_eq!(gateway.ask(path).await.status, 201);
}

#[tokio::test]
async fn an_address_elsewhere_is_not_followed_and_the_token_goes_nowhere() {
    let (world, gateway, trigger) = stage(WAIT, Flow::Accepted).await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let other = elsewhere.local_addr().unwrap();
    let own = trigger.url().split('/').nth(2).unwrap().to_owned();
    let run = "/workflows/1/runs/2/operations/3";
    for (location, why) in [
        (format!("https://{other}{run}"), "another host or port"),
        (
            format!("https://localhost:{}{run}", other.port()),
            "another host or port",
        ),
        (format!("http://{own}{run}"), "neither an https address"),
        (format!("https://user:pw@{own}{run}"), "user information"),
        (format!("https://{own}@{other}{run}"), "user information"),
        (format!("//{other}{run}"), "does not say https"),
        ("runs/1".to_owned(), "neither an https address"),
        (trigger.url(), "would start a run"),
        (format!("https://{own}/{}", "a".repeat(10 * 1024)), "too long"),
    ] {
        trigger.next(Flow::Respond(
            Reply::new(202).header("Location", location.clone()),
        ));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.status, 202, "{location}");
        assert_eq!(answer.header("location"), None, "{location}");
        check_no_trace(&answer);
        let cause = gateway.lines.of(&answer).await["cause"].to_string();
        assert!(cause.contains(why) && !cause.contains(run), "{location}: {cause}");
    }
    let twice = Reply::new(202).header("Location", run).header("Location", run);
    trigger.next(Flow::Respond(twice));
    assert_eq!(gateway.post("/orders", "{}").await.header("location"), None);
    assert!(elsewhere.accept().is_err(), "somebody called it");
    assert!(
        world
            .emulator
            .flow
            .requests()
            .iter()
            .all(|seen| seen.head.method == "POST")
    );
}

#[tokio::test]
async fn a_path_on_the_triggers_host_is_asked_with_the_token() {
    let (world, gateway, trigger) = stage(AT_ONCE, Flow::Accepted).await;
    let run = "/workflows/1/runs/2/operations/3?api-version=1";
    trigger.next(Flow::Respond(Reply::new(202).header("Location", run)));
    let at = address(&gateway.post("/orders", "{}").await);
    // The emulator knows no such run.
    let answer = gateway.ask(&at).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (502, "flow-gone")
    );
    let body = answer.json();
    assert_eq!(
        (&body["run_started"], &body["retryable"]),
        (&json!("no"), &json!(true))
    );
    let seen = world.emulator.flow.requests().pop().unwrap();
    assert_eq!(
        (seen.head.target.as_str(), seen.head.method.as_str()),
        (run, "GET")
    );
    assert!(seen.bearer().is_some());
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_result_that_the_platform_refuses_is_a_problem_whose_run_has_started() {
    let (_world, gateway, trigger) = stage(WAIT, Flow::Accepted).await;
    let gone = Reply::new(202)
        .header("Location", "/workflows/1/runs/2/operations/3")
        .header("Retry-After", "0");
    trigger.next(Flow::Respond(gone));
    let answer = gateway.post("/orders", "{}").await;
    let body = answer.json();
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (502, "flow-gone")
    );
    assert_eq!(
        (&body["run_started"], &body["retryable"]),
        (&json!("yes"), &json!(false))
    );
}

#[tokio::test]
async fn an_address_that_was_made_up_is_no_failed_attempt() {
    let (_world, gateway, trigger) = stage(AT_ONCE, asynchronous(0)).await;
    let at = address(&gateway.post("/orders", "{}").await);
    let sealed = &at[PREFIX.len()..];
    let middle = sealed.len() / 2;
    let bit = if sealed.as_bytes()[middle] == b'A' {
        "B"
    } else {
        "A"
    };
    let altered = format!("{}{bit}{}", &sealed[..middle], &sealed[middle + 1..]);
    let forged = [
        &sealed[..middle],
        &sealed[1..],
        altered.as_str(),
        "",
        "a",
        "%41",
        &"A".repeat(5000),
    ];
    for (number, text) in forged.iter().enumerate() {
        let answer = gateway.ask(&format!("{PREFIX}{text}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (404, "run-unknown"),
            "{number}"
        );
        let line = gateway.lines.of(&answer).await;
        assert_eq!(
            (&line["target"], &line["route"]),
            (&json!("/.flowgate/runs/***"), &json!(null))
        );
    }
    for _ in forged.len()..12 {
        assert_eq!(gateway.ask(&format!("{PREFIX}x")).await.status, 404);
    }
    // Any page can have a browser ask: a key that could be guessed is still accepted from there.
    address(&gateway.post("/orders", "{}").await);
    let put = Request::put(&at).header("host", "localhost");
    let put = gateway.send(put.body(Full::default()).unwrap()).await;
    assert_eq!((put.status.as_u16(), put.header("allow")), (405, Some("GET")));
    assert_eq!(gateway.ask(&at).await.status, 201);
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn an_address_is_valid_as_long_as_its_caller_may_call() {
    let lines = format!("callers = [\"shop\", \"bakery\"]\n{AT_ONCE}");
    let (world, mut gateway, trigger) = stage(AT_ONCE, asynchronous(0)).await;
    let at = address(&gateway.post("/orders", "{}").await);
    let both = settings(&world, &trigger.url(), &lines) + &caller("bakery", OTHER_KEY);
    let outside = "name = \"shop\"\nnetworks = [\"192.0.2.0/24\"]\n";
    for (text, status, code, cause) in [
        (both.clone(), 201, "", ""),
        (
            both.replace("[\"shop\", \"bakery\"]", "[\"bakery\"]"),
            404,
            "run-unknown",
            "the caller that started the run is gone",
        ),
        (
            both.replace("callers = [\"shop\", \"bakery\"]", "anonymous = true"),
            404,
            "run-unknown",
            "the caller that started the run is gone",
        ),
        (
            both.replace("name = \"shop\"\n", outside),
            403,
            "address-refused",
            "caller shop: 127.0.0.1",
        ),
        (
            both.replace("name = \"shop\"\n", "name = \"shop\"\nenabled = false\n"),
            403,
            "address-refused",
            "caller shop: 127.0.0.1",
        ),
        (both.clone(), 201, "", ""),
    ] {
        let config = Arc::new(world.load(&text));
        gateway.server.reload(&config, Wanted::ByOperator).await.unwrap();
        let answer = gateway.ask(&at).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        if status != 201 {
            assert_eq!(answer.code(), code);
            let logged = gateway.lines.of(&answer).await["cause"].to_string();
            assert!(logged.contains(cause), "{logged}");
        }
    }
}

#[tokio::test]
async fn asking_at_an_address_costs_the_rate_of_its_caller() {
    let (world, first, trigger) = stage(AT_ONCE, asynchronous(0)).await;
    drop(first);
    let rate = "rate = { requests = 3, per = \"1h\" }\n";
    let text = settings(&world, &trigger.url(), AT_ONCE).replace(OFTEN, rate);
    let gateway = world.start(&text);
    gateway.ready().await;
    let at = address(&gateway.post("/orders", "{}").await);
    for _ in 0..2 {
        assert_eq!(gateway.ask(&at).await.status, 201);
    }
    let refused = gateway.ask(&at).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (429, "rate-limited")
    );
    assert_eq!(gateway.lines.of(&refused).await["limit"], "caller");
}

#[tokio::test]
async fn a_request_that_waits_leaves_the_memory_of_its_body_to_others() {
    let world = World::new().await;
    world.file("seal", SEAL);
    let trigger = Trigger::any_user(TENANT).does(asynchronous(u32::MAX));
    let trigger = world.emulator.flow.add(trigger);
    let bodies = "[bodies]\nhold_size_max = \"1 KiB\"\nheld_budget = \"1 KiB\"\n";
    let gateway = world.start(&format!("{}{bodies}", settings(&world, &trigger.url(), WAIT)));
    gateway.ready().await;
    let body = "x".repeat(1000);
    let mut connection = gateway.connect().await;
    let request = post("/orders").header("x-api-key", KEY);
    let request = request.body(Full::from(body.clone())).unwrap();
    let waiting = tokio::spawn(async move { connection.send(request).await });
    world.emulator.flow.polls().reached(1).await;
    trigger.does(Flow::json(200, &json!({})));
    let answer = gateway.post("/orders", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn a_refusal_of_the_platform_that_passes_ends_no_wait() {
    for (refusal, expected) in [
        (Reply::new(429).header("Retry-After", "30"), "30"),
        (Reply::new(429).header("Retry-After", "300"), "60"),
        (Reply::new(504), "2"),
        (Reply::new(408), "2"),
    ] {
        let world = World::new().await;
        world.file("seal", SEAL);
        let does = Flow::Asynchronous {
            polls: 0,
            then: refusal,
        };
        let trigger = Trigger::any_user(TENANT).does(does).without_platform_headers();
        let trigger = world.emulator.flow.add(trigger);
        let lines = WAIT.replace("10s", "2500ms");
        let gateway = world.start(&settings(&world, &trigger.url(), &lines));
        gateway.ready().await;
        let began = Instant::now();
        let answer = gateway.post("/orders", "{}").await;
        address(&answer);
        assert_eq!(answer.header("retry-after"), Some(expected));
        // There is no time for another question, and nobody is kept waiting for that.
        assert!(
            began.elapsed() < Duration::from_millis(2400),
            "{:?}",
            began.elapsed()
        );
        assert_eq!((trigger.runs(), world.emulator.flow.polls().get()), (1, 1));
    }
}

#[tokio::test]
async fn an_address_expires_and_is_valid_where_the_route_is() {
    let lines = format!("{OFTEN}networks = [\"127.0.0.0/8\"]\n{AT_ONCE}run_expires = \"1s\"\n");
    let (world, mut gateway, trigger) = stage(&lines, asynchronous(0)).await;
    let at = address(&gateway.post("/orders", "{}").await);
    let expired = async {
        loop {
            let answer = gateway.ask(&at).await;
            if answer.status == 410 {
                return answer;
            }
            assert_eq!(answer.status, 201);
        }
    };
    let answer = tokio::time::timeout(PATIENCE, expired).await.unwrap();
    assert_eq!(answer.code(), "run-expired");
    let elsewhere = lines.replace("127.0.0.0/8", "192.0.2.0/24");
    let config = Arc::new(world.load(&settings(&world, &trigger.url(), &elsewhere)));
    gateway.server.reload(&config, Wanted::ByOperator).await.unwrap();
    let answer = gateway.ask(&at).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (403, "address-refused")
    );
}

#[tokio::test]
async fn instances_with_the_same_secret_share_addresses_and_a_restart_keeps_them() {
    let (world, gateway, trigger) = stage(AT_ONCE, asynchronous(0)).await;
    let at = address(&gateway.post("/orders", "{}").await);
    drop(gateway);
    let text = settings(&world, &trigger.url(), AT_ONCE);
    let second = world.start(&text);
    assert_eq!(second.ask(&at).await.status, 201);
    // Another secret seals, and the old one still opens.
    world.file("next", "canary-next-seal-0123456789abcdef");
    let both = text.replace("\"file:seal\"", "\"file:next\", \"file:seal\"");
    let third = world.start(&both);
    assert_eq!(third.ask(&at).await.status, 201);
    let next = address(&third.post("/orders", "{}").await);
    assert_eq!(second.ask(&next).await.code(), "run-unknown");
    let only = world.start(&text.replace("\"file:seal\"", "\"file:next\""));
    assert_eq!(only.ask(&at).await.code(), "run-unknown");
    assert_eq!(only.ask(&next).await.status, 201);
    // A run is on the host of its trigger.
    let moved = world.start(&settings(&world, &trigger.url_on("127.0.0.1"), AT_ONCE));
    let answer = moved.ask(&at).await;
    assert_eq!(answer.code(), "run-unknown");
    let cause = moved.lines.of(&answer).await["cause"].to_string();
    assert!(cause.contains("another host or port"), "{cause}");
    // Without its route, or without `wait`, it leads nowhere.
    let without = world.start(&settings(&world, &trigger.url(), ""));
    assert_eq!(without.ask(&at).await.code(), "run-unknown");
    let none = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    assert_eq!(none.ask(&at).await.code(), "route-unknown");
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn an_address_can_demand_the_credential_of_its_caller() {
    let lines = format!("callers = [\"shop\", \"bakery\"]\n{AT_ONCE}run_credential = true\n");
    let (world, first, trigger) = stage(WAIT, asynchronous(0)).await;
    drop(first);
    let text = settings(&world, &trigger.url(), &lines);
    let gateway = world.start(&format!("{text}{}", caller("bakery", OTHER_KEY)));
    let at = address(&gateway.post("/orders", "{}").await);
    for (key, status, code) in [
        (None, 401, "key-missing"),
        (Some("wrong"), 401, "key-unknown"),
        (Some(OTHER_KEY), 403, "caller-not-allowed"),
    ] {
        let answer = gateway.send(get(&at, key)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
    }
    let polls = world.emulator.flow.polls().get();
    assert_eq!(gateway.send(get(&at, Some(KEY))).await.status, 201);
    assert_eq!(world.emulator.flow.polls().get(), polls + 1);
}

#[tokio::test]
async fn a_page_can_ask_at_an_address_that_demands_a_credential() {
    let more = format!("{AT_ONCE}run_credential = true\n");
    const ORIGINS: &str = "cors_origins = [\"https://app.example.com\"]\n";
    let (world, first, trigger) = stage(AT_ONCE, asynchronous(0)).await;
    drop(first);
    // No address of a run reaches a route for all paths, which would answer these preflights.
    let all = format!("methods = [\"GET\", \"POST\"]\n{ORIGINS}");
    let gateway = world.start(&format!(
        "{}{}",
        settings(&world, &trigger.url(), &format!("{ORIGINS}{more}")),
        world.route("all", "/{*rest}", &trigger.url(), &all)
    ));
    let at = address(&gateway.post("/orders", "{}").await);
    let preflight = |origin: &str, method: &str, at: &str| {
        let request = Request::options(at)
            .header("host", "localhost")
            .header("origin", origin)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "x-api-key");
        gateway.send(request.body(Full::default()).unwrap())
    };
    let ours = "https://app.example.com";
    let allowed = preflight(ours, "GET", &at).await;
    assert_eq!(allowed.status, 204);
    assert_eq!(allowed.headers["access-control-allow-origin"], ours);
    assert_eq!(allowed.headers["access-control-allow-methods"], "GET");
    assert_eq!(allowed.headers["access-control-allow-headers"], "x-api-key");
    let made_up = at.replace("/runs/", "/runs/A");
    for (origin, method, at) in [
        ("https://other.example.com", "GET", &at),
        (ours, "POST", &at),
        (ours, "GET", &made_up),
    ] {
        let refused = preflight(origin, method, at).await;
        assert_eq!(refused.status, 405, "{origin} {method}");
        assert!(!refused.headers.contains_key("access-control-allow-methods"));
    }
    assert_eq!(preflight(ours, "POST", "/elsewhere").await.status, 204);
    let mut asked = get(&at, Some(KEY));
    asked.headers_mut().insert("origin", ours.parse().unwrap());
    let answer = gateway.send(asked).await;
    assert_eq!(
        (
            answer.status.as_u16(),
            &answer.headers["access-control-allow-origin"]
        ),
        (201, &ours.parse().unwrap())
    );
}

#[tokio::test]
async fn a_run_that_never_ends_is_waited_for_no_longer_than_its_sender_waits() {
    let lines = "[route.answer]\nwait = \"60s\"\nwithin = \"2s\"\n";
    let (world, gateway, trigger) = stage(lines, asynchronous(u32::MAX)).await;
    let began = Instant::now();
    let answer = gateway.post("/orders", "{}").await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    address(&answer);
    assert_eq!((trigger.runs(), world.emulator.flow.polls().get()), (1, 1));
}

#[tokio::test]
async fn accepted_is_ok_where_there_is_no_result_in_time() {
    let lines = "[route.answer]\nwait = \"1s\"\naccepted = \"ok\"\n";
    let (_world, gateway, trigger) = stage(lines, asynchronous(9)).await;
    assert_eq!(gateway.post("/orders", "{}").await.status, 200);
    trigger.does(asynchronous(0));
    let patient = lines.replace("1s", "9s");
    let (_world, gateway, _) = stage(&patient, asynchronous(0)).await;
    assert_eq!(gateway.post("/orders", "{}").await.status, 201);
}

#[tokio::test]
async fn a_duplicate_gets_the_address_or_the_result_of_the_first() {
    for (wait, status) in [(AT_ONCE, 202), (WAIT, 201)] {
        let lines = format!("{wait}[route.duplicates]\nby = \"header:x-delivery\"\n");
        let (_world, gateway, trigger) = stage(&lines, asynchronous(0)).await;
        let deliver = || {
            let request = post("/orders").header("x-api-key", KEY).header("x-delivery", "1");
            gateway.send(request.body(Full::from("{}")).unwrap())
        };
        let (first, again) = (deliver().await, deliver().await);
        assert_eq!((first.status.as_u16(), again.status.as_u16()), (status, status));
        assert_eq!(
            (again.header("location"), &again.body),
            (first.header("location"), &first.body)
        );
        assert_eq!(
            again.header("x-flowgate-duplicate-of"),
            first.header("x-request-id")
        );
        if status == 202 {
            assert_eq!(gateway.ask(again.header("location").unwrap()).await.status, 201);
        }
        assert_eq!(trigger.runs(), 1);
    }
}

#[tokio::test]
async fn a_reload_and_a_stop_while_a_request_waits() {
    let (world, mut gateway, trigger) = stage(WAIT, asynchronous(2)).await;
    let polls = world.emulator.flow.polls().clone();
    let request = || {
        post("/orders")
            .header("x-api-key", KEY)
            .body(Full::from("{}"))
            .unwrap()
    };
    let mut connection = gateway.connect().await;
    let first = tokio::spawn(async move { connection.send(request()).await });
    polls.reached(1).await;
    let config = Arc::new(world.load(&settings(&world, &trigger.url(), "")));
    gateway.server.reload(&config, Wanted::ByOperator).await.unwrap();
    // It ends with what it began with.
    assert_eq!(first.await.unwrap().status, 201);
    let config = Arc::new(world.load(&settings(&world, &trigger.url(), WAIT)));
    gateway.server.reload(&config, Wanted::ByOperator).await.unwrap();
    trigger.does(asynchronous(u32::MAX));
    let mut connection = gateway.connect().await;
    let second = tokio::spawn(async move { connection.send(request()).await });
    polls.reached(4).await;
    let stopping = tokio::spawn(gateway.server.stop(std::future::pending()));
    // A gateway that stops keeps nobody waiting: what it answers outlives it.
    let at = address(&second.await.unwrap());
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    trigger.does(asynchronous(0));
    let next = world.start(&settings(&world, &trigger.url(), WAIT));
    address(&next.ask(&at).await);
}

/// The answer of a flow whose run is to be asked for only after a long time.
fn in_45_seconds() -> Flow {
    let run = Reply::new(202).header("Location", "/workflows/1/runs/2/operations/3");
    Flow::Respond(run.header("Retry-After", "45"))
}

#[tokio::test]
async fn a_stop_during_a_long_pause_keeps_nobody_waiting() {
    let (_world, gateway, trigger) = stage(&WAIT.replace("10s", "5m"), in_45_seconds()).await;
    let mut connection = gateway.connect().await;
    let request = post("/orders").header("x-api-key", KEY);
    let request = request.body(Full::from("{}")).unwrap();
    let waiting = tokio::spawn(async move { connection.send(request).await });
    trigger.run_count().reached(1).await;
    let began = Instant::now();
    let stopping = tokio::spawn(gateway.server.stop(std::future::pending()));
    address(&waiting.await.unwrap());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_that_leaves_during_a_long_pause_ends_it() {
    let (world, gateway, trigger) = stage(&WAIT.replace("10s", "5m"), in_45_seconds()).await;
    let mut sender = gateway.connect_h2().await;
    let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
    let waiting = tokio::spawn(sender.send_request(request.body(Full::from("{}")).unwrap()));
    trigger.run_count().reached(1).await;
    waiting.abort();
    drop(waiting.await);
    // Within the patience of a test, which is shorter than the pause.
    let line = gateway.lines.wait_for(|line| line["end"] == "caller-gone").await;
    assert_eq!(line["status"], 202);
    assert_eq!(world.emulator.flow.polls().get(), 0);
}

#[tokio::test]
async fn a_duplicate_waits_as_long_as_the_first_may_take_with_its_result() {
    // Without the time for the result, a duplicate would wait no longer than two seconds.
    let lines = "waiting_timeout = \"1ms\"\nconnect_timeout = \"1s\"\nresponse_timeout = \"1s\"\n";
    let lines = format!("{lines}{WAIT}[route.duplicates]\nby = \"body\"\n");
    let (_world, gateway, trigger) = stage(&lines, asynchronous(2)).await;
    let mut connection = gateway.connect().await;
    let request = || {
        let request = post("/orders").header("x-api-key", KEY);
        request.body(Full::from("{}")).unwrap()
    };
    let first = tokio::spawn(async move { connection.send(request()).await });
    trigger.run_count().reached(1).await;
    let again = gateway.send(request()).await;
    let first = first.await.unwrap();
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(
        again.header("x-flowgate-duplicate-of"),
        first.header("x-request-id")
    );
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn for_a_caller_that_has_gone_nobody_asks() {
    let (world, gateway, trigger) = stage(WAIT, asynchronous(u32::MAX)).await;
    let mut sender = gateway.connect_h2().await;
    let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
    let waiting = tokio::spawn(sender.send_request(request.body(Full::from("{}")).unwrap()));
    world.emulator.flow.polls().reached(1).await;
    waiting.abort();
    drop(waiting.await);
    let line = gateway.lines.wait_for(|line| line["end"] == "caller-gone").await;
    assert_eq!(
        (&line["status"], &line["run_started"]),
        (&json!(202), &json!("yes"))
    );
    assert!(world.emulator.flow.polls().get() <= 2);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_secret_that_is_replaced_in_its_file_seals_from_then_on() {
    let lines = format!("{OFTEN}{AT_ONCE}");
    let (world, gateway, trigger) = stage(&lines, asynchronous(0)).await;
    let at = address(&gateway.post("/orders", "{}").await);
    world.file("seal", "short");
    world.file("next", "canary-next-seal-0123456789abcdef");
    assert_eq!(
        gateway.ask(&at).await.status,
        201,
        "one that can be guessed is not taken"
    );
    std::fs::rename(world.dir().join("next"), world.dir().join("seal")).unwrap();
    let replaced = async { while gateway.ask(&at).await.status != 404 {} };
    tokio::time::timeout(PATIENCE, replaced).await.unwrap();
    let next = address(&gateway.post("/orders", "{}").await);
    let other = world.start(&settings(&world, &trigger.url(), AT_ONCE));
    assert_eq!(other.ask(&next).await.status, 201);
}
