//! Rate limits: who is refused, by which limit, with which answer, and how others are affected.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::emulator::Answer as Flow;
use crate::emulator::certs::server_name;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, PATIENCE, Running, TENANT, World, post};

/// The caller `shop` is the last entry of the base settings, so a rate after it is its rate.
const SHOP_RATE: &str = "[caller.rate]\n";

/// A gateway with these lines after the base settings and with these routes: name, path, more keys.
async fn gateway(more: &str, routes: &[(&str, &str, &str)]) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let mut settings = format!("{}{more}", world.base());
    for (name, path, keys) in routes {
        settings.push_str(&world.route(name, path, &trigger.url(), keys));
    }
    let running = world.start(&settings);
    (world, running, trigger)
}

fn with_key(path: &str, key: &str) -> Request<Full<Bytes>> {
    post(path)
        .header("x-api-key", key)
        .body(Full::from("{}"))
        .unwrap()
}

/// Sends one request from this address of loopback.
async fn send_from(
    world: &World,
    gateway: &Running,
    from: Ipv4Addr,
    request: Request<Full<Bytes>>,
) -> Answer {
    let exchange = async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        let tcp = socket.connect(gateway.address).await.unwrap();
        let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&["http/1.1"])));
        let stream = tls.connect(server_name("localhost"), tcp).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("no answer in time")
}

/// The answer for a request that this limit refuses, with `requests` per minute.
async fn assert_refused_by(gateway: &Running, answer: &Answer, name: &str, requests: u32) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(answer.code(), "rate-limited");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60 / requests).contains(&seconds), "{seconds}");
    assert_eq!(
        answer.header("ratelimit"),
        Some(format!("\"{name}\";r=0;t={seconds}").as_str())
    );
    assert_eq!(
        answer.header("ratelimit-policy"),
        Some(format!("\"{name}\";q={requests};w=60").as_str())
    );
    let problem = answer.json();
    assert_eq!(problem["reason"], "time");
    assert_eq!(problem["retryable"], true);
    assert_eq!(problem["retry_after"], seconds);
    let line = gateway.lines.of(answer).await;
    assert_eq!(line["problem"], "rate-limited");
    assert_eq!(line["limit"], name);
}

#[tokio::test]
async fn a_caller_that_is_too_fast_learns_when_to_retry() {
    let rate = format!("{SHOP_RATE}requests = 2\nper = \"1m\"\n");
    let (_world, gateway, trigger) = gateway(&rate, &[("orders", "/orders", "")]).await;
    for _ in 0..2 {
        assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    }
    let answer = gateway.post("/orders", "{}").await;
    assert_refused_by(&gateway, &answer, "caller", 2).await;
    assert_eq!(gateway.lines.of(&answer).await["caller"], "shop");
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_route_has_its_own_limit() {
    let rate = "rate = { requests = 2, per = \"1m\" }";
    let routes = [("orders", "/orders", rate), ("other", "/other", "")];
    let (_world, gateway, trigger) = gateway("", &routes).await;
    for _ in 0..2 {
        assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    }
    let answer = gateway.post("/orders", "{}").await;
    assert_refused_by(&gateway, &answer, "route", 2).await;
    assert_eq!(gateway.post("/other", "{}").await.status, 202);
    assert_eq!(trigger.runs(), 3);
}

#[tokio::test]
async fn the_gateway_has_a_limit_over_all_routes() {
    let rate = "[limits]\ngateway = { requests = 2, per = \"1m\" }\n";
    let routes = [("one", "/one", ""), ("two", "/two", "")];
    let (_world, gateway, trigger) = gateway(rate, &routes).await;
    assert_eq!(gateway.post("/one", "{}").await.status, 202);
    assert_eq!(gateway.post("/two", "{}").await.status, 202);
    for path in ["/one", "/two"] {
        let answer = gateway.post(path, "{}").await;
        assert_refused_by(&gateway, &answer, "gateway", 2).await;
    }
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn refused_requests_take_nothing_from_the_limit_of_the_gateway() {
    let limits = "[limits]\ngateway = { requests = 2, per = \"1h\" }\n\
                  failed_authentications = { requests = 2, per = \"1h\" }\n";
    let (world, gateway, trigger) = gateway(limits, &[("orders", "/orders", "")]).await;
    let mut connection = gateway.connect().await;
    for _ in 0..5 {
        assert_eq!(connection.send(with_key("/nowhere", KEY)).await.status, 404);
        let keyless = post("/orders").body(Full::from("{}")).unwrap();
        assert_eq!(connection.send(keyless).await.status, 401);
    }
    for status in [401, 401, 429, 429] {
        let guess = with_key("/orders", "guess");
        assert_eq!(connection.send(guess).await.status, status);
    }
    let neighbour = Ipv4Addr::new(127, 0, 0, 2);
    for _ in 0..2 {
        let answer = send_from(&world, &gateway, neighbour, with_key("/orders", KEY)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_route_open_to_all_still_has_its_limit() {
    let keys = "anonymous = true\nrate = { requests = 1, per = \"1m\" }";
    let (_world, gateway, trigger) = gateway("", &[("open", "/open", keys)]).await;
    let open = || post("/open").body(Full::from("{}")).unwrap();
    assert_eq!(gateway.send(open()).await.status, 202);
    let answer = gateway.send(open()).await;
    assert_refused_by(&gateway, &answer, "route", 1).await;
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_burst_passes_at_once_and_no_more() {
    let keys = "rate = { requests = 1, per = \"1h\", burst = 3 }";
    let (_world, gateway, trigger) = gateway("", &[("orders", "/orders", keys)]).await;
    let mut connection = gateway.connect().await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(connection.send(with_key("/orders", KEY)).await.status.as_u16());
    }
    assert_eq!(seen, [202, 202, 202, 429, 429]);
    assert_eq!(trigger.runs(), 3);
    assert!(connection.is_open(), "a refusal is no reason to hang up");
}

#[tokio::test]
async fn a_caller_that_waits_is_served_again() {
    let keys = "rate = { requests = 1, per = \"1s\" }";
    let (_world, gateway, trigger) = gateway("", &[("orders", "/orders", keys)]).await;
    let mut connection = gateway.connect().await;
    assert_eq!(connection.send(with_key("/orders", KEY)).await.status, 202);
    assert_eq!(connection.send(with_key("/orders", KEY)).await.status, 429);
    let served = async {
        while connection.send(with_key("/orders", KEY)).await.status != 202 {
            assert_eq!(trigger.runs(), 1);
        }
    };
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("never served again");
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_refusal_takes_nothing_from_the_other_limits() {
    let rates = format!(
        "{SHOP_RATE}requests = 3\nper = \"1h\"\n[limits]\ngateway = {{ requests = 4, per = \"1h\" }}\n"
    );
    let keys = "rate = { requests = 1, per = \"1h\" }";
    let anonymous = "anonymous = true";
    let routes = [
        ("narrow", "/narrow", keys),
        ("wide", "/wide", ""),
        ("open", "/open", anonymous),
    ];
    let (_world, gateway, _) = gateway(&rates, &routes).await;
    let limit = async |path: &str| {
        let answer = gateway.post(path, "{}").await;
        gateway.lines.of(&answer).await["limit"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(limit("/narrow").await, None);
    for _ in 0..5 {
        assert_eq!(limit("/narrow").await.as_deref(), Some("route"));
    }
    // One of the caller's three requests went to the narrow route; its refusals took none.
    for _ in 0..2 {
        assert_eq!(limit("/wide").await, None);
    }
    for _ in 0..5 {
        assert_eq!(limit("/wide").await.as_deref(), Some("caller"));
    }
    // Three of the gateway's four requests went to the caller; its refusals took none.
    assert_eq!(limit("/open").await, None);
    assert_eq!(limit("/open").await.as_deref(), Some("gateway"));
}

#[tokio::test]
async fn guessing_keys_runs_into_the_limit() {
    let limits = "[limits]\nfailed_authentications = { requests = 3, per = \"1m\" }\n";
    let (world, gateway, trigger) = gateway(limits, &[("orders", "/orders", "")]).await;
    for guess in ["one", "two", "three"] {
        let answer = gateway.send(with_key("/orders", guess)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (401, "key-unknown")
        );
    }
    let answer = gateway.send(with_key("/orders", "four")).await;
    assert_refused_by(&gateway, &answer, "address", 3).await;
    // The right key gets the same answer, because it could have been guessed.
    let answer = gateway.send(with_key("/orders", KEY)).await;
    assert_refused_by(&gateway, &answer, "address", 3).await;
    assert_eq!(trigger.runs(), 0);

    let neighbour = Ipv4Addr::new(127, 0, 0, 2);
    let answer = send_from(&world, &gateway, neighbour, with_key("/orders", KEY)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(gateway.lines.of(&answer).await["address"], "127.0.0.2");
    let answer = send_from(&world, &gateway, neighbour, with_key("/orders", "one")).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn expired_and_contradicting_keys_count_as_guesses() {
    let more = format!(
        "[[caller.key]]\nlabel = \"old\"\ndigest = \"{}\"\nexpires = 2020-01-01\n\
         [limits]\nfailed_authentications = {{ requests = 2, per = \"1m\" }}\n",
        crate::harness::digest("old-key")
    );
    let (_world, gateway, _) = gateway(&more, &[("orders", "/orders", "")]).await;
    assert_eq!(
        gateway.send(with_key("/orders", "old-key")).await.code(),
        "key-expired"
    );
    let two = post("/orders")
        .header("x-api-key", KEY)
        .header("authorization", "Bearer another");
    assert_eq!(
        gateway.send(two.body(Full::from("{}")).unwrap()).await.code(),
        "keys-differ"
    );
    let answer = gateway.send(with_key("/orders", KEY)).await;
    assert_refused_by(&gateway, &answer, "address", 2).await;
}

#[tokio::test]
async fn only_wrong_keys_count_as_guesses() {
    let limits = "[limits]\nfailed_authentications = { requests = 2, per = \"1h\" }\n";
    let (_world, gateway, _) = gateway(limits, &[("orders", "/orders", "")]).await;
    let mut connection = gateway.connect().await;
    for _ in 0..5 {
        let keyless = post("/orders").body(Full::from("{}")).unwrap();
        assert_eq!(connection.send(keyless).await.code(), "key-missing");
        assert_eq!(connection.send(with_key("/orders", KEY)).await.status, 202);
        assert_eq!(connection.send(with_key("/nowhere", "guess")).await.status, 404);
    }
    let metrics = gateway.admin("/metrics").await.1;
    assert!(metrics.contains("\nflowgate_limiter_entries 0\n"), "{metrics}");
}

#[tokio::test]
async fn a_flood_of_addresses_does_not_grow_the_memory() {
    let limits = "[limits]\naddresses_max = 4\n";
    let (world, gateway, _) = gateway(limits, &[("orders", "/orders", "")]).await;
    for last in 2..20 {
        let from = Ipv4Addr::new(127, 0, 0, last);
        let answer = send_from(&world, &gateway, from, with_key("/orders", "guess")).await;
        assert_eq!(answer.status, 401, "{from}: {}", answer.text());
    }
    let metrics = gateway.admin("/metrics").await.1;
    let entries = metrics
        .lines()
        .find_map(|line| line.strip_prefix("flowgate_limiter_entries "))
        .unwrap();
    assert!((1..=4).contains(&entries.parse::<u32>().unwrap()), "{entries}");
    let answer = gateway.send(with_key("/orders", KEY)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[tokio::test]
async fn refusals_are_counted_by_reason() {
    let keys = "rate = { requests = 1, per = \"1h\" }";
    let (_world, gateway, _) = gateway("", &[("orders", "/orders", keys)]).await;
    for _ in 0..3 {
        gateway.post("/orders", "{}").await;
    }
    gateway.send(with_key("/orders", "guess")).await;
    gateway.send(with_key("/nowhere", KEY)).await;
    let metrics = gateway.admin("/metrics").await.1;
    for line in [
        "flowgate_refusals_total{reason=\"rate-limited\"} 2",
        "flowgate_refusals_total{reason=\"key-unknown\"} 1",
        "flowgate_refusals_total{reason=\"route-unknown\"} 1",
        "flowgate_requests_total{route=\"orders\",outcome=\"answered\"} 1",
        "flowgate_requests_total{route=\"orders\",outcome=\"rate-limited\"} 2",
        "flowgate_requests_total{route=\"-\",outcome=\"route-unknown\"} 1",
        "flowgate_limiter_entries 1",
    ] {
        assert!(
            metrics.lines().any(|known| known == line),
            "{line} is missing in:\n{metrics}"
        );
    }
}

/// The names of all series, without their values.
fn series(metrics: &str) -> BTreeSet<&str> {
    metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, _)| name)
        .collect()
}

#[tokio::test]
async fn nothing_a_caller_sends_becomes_a_label() {
    let (_world, gateway, _) = gateway("", &[("orders", "/orders/{id}", "")]).await;
    let send_everywhere = async |word: &str| {
        for (method, path, host) in [
            ("POST", format!("/orders/{word}"), "localhost".to_owned()),
            ("POST", format!("/{word}"), "localhost".to_owned()),
            (word, "/orders/1".to_owned(), "localhost".to_owned()),
            (
                "POST",
                format!("/orders/1?{word}={word}"),
                format!("{word}.example"),
            ),
            ("POST", format!("/{word}/../x"), "localhost".to_owned()),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", host)
                .header("x-api-key", KEY)
                .header("user-agent", word)
                .header("x-flowgate-caller", word);
            gateway
                .send(request.body(Full::<Bytes>::default()).unwrap())
                .await;
        }
        let guess = with_key("/orders/1", word);
        gateway.send(guess).await;
    };
    send_everywhere("CANARY0").await;
    let first = gateway.admin("/metrics").await.1;
    for number in 1..4 {
        send_everywhere(&format!("CANARY{number}")).await;
    }
    let last = gateway.admin("/metrics").await.1;
    assert!(!last.to_ascii_lowercase().contains("canary"), "{last}");
    assert!(!last.contains("127.0.0.1"), "{last}");
    assert_eq!(series(&first), series(&last));
}
