//! Refusals over HTTP/2 as callers see them: at once, complete, and without harm to the connection, although
//! the body is still being sent.

use serde_json::Value;

use crate::emulator::Trigger;
use crate::harness::{Running, TENANT, World, send_h2};
use crate::listening::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Heard, Peer, RST_STREAM, WINDOW_UPDATE, field, frame,
    order_fields, stream,
};
use crate::listening::served;

/// The fields of a `POST`, or another method, for this path without a key.
fn fields(method: &str, path: &str) -> Vec<u8> {
    [
        field(":method", method),
        field(":scheme", "https"),
        field(":path", path),
        field(":authority", "localhost"),
    ]
    .concat()
}

/// Waits for the end of an answer that is a problem, and returns its code.
async fn problem(peer: &mut Peer, id: u32) -> String {
    let mut body = Vec::new();
    loop {
        let heard = peer.hear(|heard| heard.stream == id).await.unwrap();
        match heard.kind {
            HEADERS => assert_eq!(heard.flags & END_STREAM, 0),
            DATA => body.extend(heard.payload),
            _ => panic!("{heard:?}"),
        }
        if heard.flags & END_STREAM != 0 {
            let body: Value = serde_json::from_slice(&body).unwrap();
            return body["code"].as_str().unwrap().to_owned();
        }
    }
}

fn code(heard: &Heard) -> u32 {
    u32::from_be_bytes(heard.payload[..4].try_into().unwrap())
}

async fn gateway() -> (World, Running) {
    let (world, gateway, _) = served("").await;
    (world, gateway)
}

#[tokio::test]
async fn a_caller_may_send_its_whole_body_after_it_was_refused() {
    const BYTES: usize = 5_000_000;
    let (_world, gateway) = gateway().await;
    let mut peer = Peer::connect(&gateway).await;
    let large = [order_fields(), field("content-length", &BYTES.to_string())].concat();
    for (id, fields, refused) in [
        (1, fields("POST", "/orders"), "key-missing"),
        (3, fields("POST", "/nowhere"), "route-unknown"),
        (5, large, "body-too-large"),
    ] {
        peer.say(&frame(HEADERS, END_HEADERS, id, &fields)).await;
        assert_eq!(problem(&mut peer, id).await, refused);
        // It continues to send as if it had read nothing, as far as its window allows.
        let mut window = 65_535;
        let mut left = BYTES;
        while left > 0 {
            while window == 0 {
                let heard = peer
                    .hear(|heard| heard.stream == id || heard.kind == GOAWAY)
                    .await;
                let heard = heard.expect("the connection lives");
                assert_eq!(heard.kind, WINDOW_UPDATE, "{refused}: {heard:?}");
                window += usize::try_from(code(&heard)).unwrap();
            }
            let piece = left.min(window).min(16_384);
            left -= piece;
            window -= piece;
            let flags = if left == 0 { END_STREAM } else { 0 };
            assert!(peer.say(&frame(DATA, flags, id, &vec![b'x'; piece])).await);
        }
        assert!(peer.catch_up().await, "the connection lives");
    }
}

#[tokio::test]
async fn a_caller_that_stops_after_its_refusal_is_reset_without_an_error() {
    let (_world, gateway) = gateway().await;
    let mut peer = Peer::connect(&gateway).await;
    peer.say(&frame(HEADERS, END_HEADERS, 1, &fields("POST", "/orders")))
        .await;
    assert_eq!(problem(&mut peer, 1).await, "key-missing");
    let reset = peer.hear(|heard| heard.stream == 1).await.unwrap();
    assert_eq!((reset.kind, code(&reset)), (RST_STREAM, 0));
    // What was in progress by then is not a flood.
    for _ in 0..60 {
        peer.say(&frame(DATA, 0, 1, &[b'x'; 1000])).await;
    }
    assert!(peer.catch_up().await, "the connection lives");
}

#[tokio::test]
async fn refusals_beyond_those_whose_bodies_are_taken_are_reset_without_an_error() {
    const REQUESTS: u32 = 20;
    let (_world, gateway) = gateway().await;
    let mut peer = Peer::connect(&gateway).await;
    for number in 0..REQUESTS {
        let id = stream(number);
        let head = frame(HEADERS, END_HEADERS, id, &fields("POST", "/nowhere"));
        let body = frame(DATA, 0, id, &[b'x'; 100]);
        peer.say(&[head, body].concat()).await;
    }
    let mut answers = 0;
    while answers < REQUESTS {
        let heard = peer.hear(|heard| heard.stream > 0 || heard.kind == GOAWAY).await;
        let heard = heard.expect("the connection lives");
        match heard.kind {
            DATA if heard.flags & END_STREAM != 0 => answers += 1,
            RST_STREAM => assert_eq!(code(&heard), 0),
            HEADERS | DATA | WINDOW_UPDATE => {}
            _ => panic!("{heard:?}"),
        }
    }
    for number in 0..REQUESTS {
        peer.say(&frame(DATA, 0, stream(number), &[b'x'; 100])).await;
    }
    assert!(peer.catch_up().await, "the connection lives");
}

#[tokio::test]
async fn an_answer_to_head_is_its_head() {
    let world = World::new().await;
    let settings = world.base().replace(
        "[[listener.certificate]]",
        "health_path = \"/-/health\"\n[[listener.certificate]]",
    );
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT));
    let routes = [
        world.route("orders", "/orders", &trigger.url(), ""),
        world.route("read", "/read", &trigger.url(), "methods = [\"GET\", \"HEAD\"]"),
    ];
    let gateway = world.start(&format!("{settings}{}", routes.concat()));
    gateway.ready().await;
    for (path, status) in [
        ("/read", 401),
        ("/nowhere", 404),
        ("/orders", 405),
        ("/-/health", 200),
    ] {
        let mut peer = Peer::connect(&gateway).await;
        let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields("HEAD", path));
        peer.say(&bytes).await;
        let head = peer.hear(|heard| heard.stream == 1).await.unwrap();
        assert_eq!(
            (head.kind, head.flags & END_STREAM),
            (HEADERS, END_STREAM),
            "{path}"
        );
        assert!(peer.catch_up().await);
        let line = gateway.lines.wait_for(|line| line["status"] == status).await;
        assert_eq!(line["bytes_out"].as_u64().unwrap_or(0), 0, "{line}");
        let mut caller = gateway.connect_h2().await;
        let lengths = ["HEAD", "GET"].map(|method| {
            http::Request::builder()
                .method(method)
                .uri(format!("https://localhost{path}"))
                .body(http_body_util::Full::default())
                .unwrap()
        });
        let mut stated = Vec::new();
        for request in lengths {
            let answer = send_h2(&mut caller, request).await;
            stated.push(answer.header("content-length").map(str::to_owned));
        }
        assert!(
            stated[0].is_some() && stated[0] == stated[1],
            "{path}: {stated:?}"
        );
    }
}
