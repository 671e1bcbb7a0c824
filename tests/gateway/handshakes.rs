//! Handshakes of vendors: each is answered with what its documents ask for, nothing else is sent back, and no flow starts.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, post, send_h2};
use crate::listening::Talk;

const SECRET: &str = "canary-signing-secret";
const VERIFY_TOKEN: &str = "meatyhamhock";
const SIGNED: [&str; 4] = ["slack", "twitch", "x", "zoom"];
const UNSIGNED: [&str; 12] = [
    "adobe-sign",
    "business-central",
    "cloudevents",
    "dropbox",
    "event-grid",
    "graph",
    "meta",
    "monday",
    "okta",
    "sharepoint",
    "smartsheet",
    "woocommerce",
];

/// A route for each vendor at its name, a plain route, and one that is only tested.
async fn gateway(more: &str) -> (World, TriggerHandle, Running) {
    let world = World::new().await;
    world.file("secret", SECRET);
    world.file("verify-token", VERIFY_TOKEN);
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let mut settings = world.base();
    for name in SIGNED {
        settings += &format!(
            "[[caller]]\nname = \"{name}\"\n[caller.signature]\npreset = \"{name}\"\nsecret = \"file:secret\"\n"
        );
    }
    let mut route = |name: &str, lines: &str| {
        settings += &world.route(
            name,
            &format!("/{name}"),
            &trigger.url(),
            &format!("{lines}\n{more}"),
        );
    };
    for name in UNSIGNED {
        let word = match name {
            "meta" => "verify_token = \"file:verify-token\"\n",
            _ => "",
        };
        route(name, &format!("{word}handshakes = [\"{name}\"]"));
    }
    for name in SIGNED {
        route(
            name,
            &format!("callers = [\"{name}\"]\nhandshakes = [\"{name}\"]"),
        );
    }
    route("plain", "");
    route("tested", "reachable = [\"HEAD\", \"GET\"]");
    let gateway = world.start(&settings);
    (world, trigger, gateway)
}

fn hmac_sha256(text: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::sign(&key, text).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends what the lines of a head and a body say; the first line is method and target.
async fn ask(gateway: &Running, head: &str, body: impl Into<Bytes>) -> Answer {
    gateway.send(request(head, body)).await
}

fn request(head: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut lines = head.lines();
    let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "localhost");
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.body(Full::from(body.into())).unwrap()
}

/// The head of a request that its vendor signs.
fn signed(vendor: &str, body: &str) -> String {
    let now = flowgate::model::clock::wall();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let version_0 = || hex(&hmac_sha256(format!("v0:{now}:{body}").as_bytes()));
    let json = "content-type: application/json";
    match vendor {
        "slack" => format!(
            "POST /slack\n{json}\nx-slack-request-timestamp: {now}\nx-slack-signature: v0={}",
            version_0()
        ),
        "zoom" => format!(
            "POST /zoom\n{json}\nx-zm-request-timestamp: {now}\nx-zm-signature: v0={}",
            version_0()
        ),
        "twitch" => {
            let id = "e76c6bd4-55c9-4987-8304-da1588d8988b";
            let at = flowgate::model::clock::stamp();
            let signature = hex(&hmac_sha256(format!("{id}{at}{body}").as_bytes()));
            format!(
                "POST /twitch\n{json}\ntwitch-eventsub-message-id: {id}\ntwitch-eventsub-message-timestamp: {at}\n\
                 twitch-eventsub-message-type: webhook_callback_verification\n\
                 twitch-eventsub-message-signature: sha256={signature}"
            )
        }
        _ => panic!("{vendor} signs no challenge"),
    }
}

/// A challenge with a token in the place that the documents of its vendor have it in.
fn challenge(vendor: &str, token: &str) -> (String, String) {
    let query = |parameters: &str| (format!("{parameters}{token}"), String::new());
    let field = |name: &str, body: &str| (format!("POST /{vendor}\n{name}: {token}"), body.to_owned());
    let signed = |body: String| (signed(vendor, &body), body);
    let json = "content-type: application/json";
    match vendor {
        "adobe-sign" => (
            format!("GET /adobe-sign\nx-adobesign-clientid: {token}"),
            String::new(),
        ),
        "okta" => (
            format!("GET /okta\nx-okta-verification-challenge: {token}"),
            String::new(),
        ),
        "cloudevents" | "event-grid-options" => {
            let path = vendor.trim_end_matches("-options");
            (
                format!("OPTIONS /{path}\nwebhook-request-origin: {token}"),
                String::new(),
            )
        }
        "business-central" | "graph" => query(&format!("POST /{vendor}?validationToken=")),
        "sharepoint" => query("POST /sharepoint?validationtoken="),
        "dropbox" => query("GET /dropbox?challenge="),
        "x" => query("GET /x?nonce=ZmFrZQ&crc_token="),
        "meta" => query(&format!(
            "GET /meta?hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge="
        )),
        "smartsheet" => field(
            "smartsheet-hook-challenge",
            &format!(r#"{{"challenge": "{token}", "webhookId": 2674017481058180}}"#),
        ),
        "monday" => (
            format!("POST /monday\n{json}"),
            format!(r#"{{"challenge": "{token}"}}"#),
        ),
        "woocommerce" => (
            "POST /woocommerce\ncontent-type: application/x-www-form-urlencoded".to_owned(),
            format!("webhook_id={token}"),
        ),
        "event-grid" => (
            format!("POST /event-grid\n{json}; charset=utf-8\naeg-event-type: SubscriptionValidation"),
            format!(
                r#"[{{"id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66", "topic": "/subscriptions/x", "subject": "",
                "data": {{"validationCode": "{token}",
                "validationUrl": "https://rp-eastus2.eventgrid.azure.net:553/eventsubscriptions/a/validate?id=1"}},
                "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
                "eventTime": "2018-01-25T22:12:19.4556811Z", "metadataVersion": "1", "dataVersion": "1"}}]"#
            ),
        ),
        "slack" => signed(format!(
            r#"{{"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "challenge": "{token}", "type": "url_verification"}}"#
        )),
        "zoom" => signed(format!(
            r#"{{"payload": {{"plainToken": "{token}"}}, "event_ts": 1654503849680, "event": "endpoint.url_validation"}}"#
        )),
        "twitch" => signed(format!(
            r#"{{"challenge": "{token}", "subscription": {{"id": "f1c2a387-161a-49f9-a165-0f21d7a4e1c4",
            "status": "webhook_callback_verification_pending", "type": "channel.follow", "version": "1"}}}}"#
        )),
        _ => panic!("{vendor} is not known"),
    }
}

const GUID: &str = "512d38b6-c7b8-40c8-89fe-f46f9e9622b6";
const SLACK: &str = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
const CRC: &str = "YjQxZmNmZTQtZWE4Yi00M2EwLWFhYmYtYzY0ZTRiMTJhZGM1";
const ZOOM: &str = "qgg8vlvZRS6UYooatFL8Aw";

#[tokio::test]
async fn each_vendor_gets_the_answer_of_its_documents() {
    let (world, trigger, gateway) = gateway("").await;
    let microsoft =
        "Validation%3a+Testing+client+application+reachability+for+subscription+Request-Id%3a+522a8e7e";
    let sentence =
        "Validation: Testing client application reachability for subscription Request-Id: 522a8e7e";
    let json = |text: String| ("application/json", text);
    let zoom = hex(&hmac_sha256(ZOOM.as_bytes()));
    let x = STANDARD.encode(hmac_sha256(CRC.as_bytes()));
    for (vendor, token, (kind, body), field) in [
        (
            "adobe-sign",
            "UB7E5BXCXY",
            json(r#"{"xAdobeSignClientId":"UB7E5BXCXY"}"#.into()),
            Some("x-adobesign-clientid"),
        ),
        (
            "business-central",
            microsoft,
            ("text/plain", sentence.into()),
            None,
        ),
        (
            "cloudevents",
            "eventemitter.example.com",
            ("", String::new()),
            Some("webhook-allowed-origin"),
        ),
        ("dropbox", "Hq5A-gKd_0", ("text/plain", "Hq5A-gKd_0".into()), None),
        (
            "event-grid",
            GUID,
            json(format!(r#"{{"validationResponse":"{GUID}"}}"#)),
            None,
        ),
        (
            "event-grid-options",
            "eventgrid.azure.net",
            ("", String::new()),
            Some("webhook-allowed-origin"),
        ),
        ("graph", microsoft, ("text/plain", sentence.into()), None),
        ("meta", "1158201444", ("text/plain", "1158201444".into()), None),
        (
            "monday",
            SLACK,
            json(format!(r#"{{"challenge":"{SLACK}"}}"#)),
            None,
        ),
        (
            "okta",
            "xE9_kq-3",
            json(r#"{"verification":"xE9_kq-3"}"#.into()),
            None,
        ),
        ("sharepoint", GUID, ("text/plain", GUID.into()), None),
        ("slack", SLACK, ("text/plain", SLACK.into()), None),
        (
            "smartsheet",
            GUID,
            json(format!(r#"{{"smartsheetHookResponse":"{GUID}"}}"#)),
            Some("smartsheet-hook-response"),
        ),
        (
            "twitch",
            "pogchamp-kappa-360noscope-vohiyo",
            ("text/plain", "pogchamp-kappa-360noscope-vohiyo".into()),
            None,
        ),
        ("woocommerce", "123", ("", String::new()), None),
        (
            "x",
            CRC,
            json(format!(r#"{{"response_token":"sha256={x}"}}"#)),
            None,
        ),
        (
            "zoom",
            ZOOM,
            json(format!(r#"{{"encryptedToken":"{zoom}","plainToken":"{ZOOM}"}}"#)),
            None,
        ),
    ] {
        let (head, sent) = challenge(vendor, token);
        let answer = ask(&gateway, &head, sent).await;
        assert_eq!(answer.status, 200, "{vendor}: {}", answer.text());
        assert_eq!(answer.text(), body, "{vendor}");
        assert_eq!(
            answer.header("content-type").unwrap_or_default(),
            kind,
            "{vendor}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{vendor}"
        );
        if let Some(field) = field {
            assert_eq!(answer.header(field), Some(token), "{vendor}");
        }
        let line = gateway.lines.of(&answer).await;
        let name = vendor.trim_end_matches("-options");
        assert_eq!(
            (line["handshake"].as_str(), line["route"].as_str()),
            (Some(name), Some(name))
        );
        assert_eq!(
            (line["run_started"].as_str(), line["answer"].as_str()),
            (Some("no"), Some("gateway"))
        );
        let line = line.to_string();
        assert!(!line.contains(token) && !line.contains(SECRET), "{line}");
    }
    assert_eq!(
        ask(
            &gateway,
            "OPTIONS /event-grid\nwebhook-request-origin: elsewhere.example",
            ""
        )
        .await
        .status,
        405
    );
    assert_eq!(trigger.runs(), 0);
    let metrics = gateway.admin("/metrics").await.1;
    assert!(
        metrics.contains("flowgate_webhook_handshakes_total 17\n"),
        "{metrics}"
    );

    let mut sender = gateway.connect_h2().await;
    let request = Request::post(format!("https://localhost/graph?validationToken={GUID}"));
    let answer = send_h2(&mut sender, request.body(Full::default()).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, GUID));
    world.emulator.assert_clean();
}

/// Sends a challenge that must be refused; returns what the caller learns.
async fn refused(
    gateway: &Running,
    vendor: &str,
    (head, body): (String, String),
    cause: &str,
) -> serde_json::Value {
    let answer = ask(gateway, &head, body).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (400, "handshake-refused".to_owned()),
        "{vendor} {cause}: {}",
        answer.text()
    );
    let line = gateway.lines.of(&answer).await;
    assert_eq!(line["handshake"], vendor);
    let why = line["cause"].as_str().unwrap();
    assert!(
        why.contains(&format!("handshake of {vendor}: ")) && why.contains(cause),
        "{why}"
    );
    assert!(!line.to_string().contains("script"), "{line}");
    let mut body = answer.json();
    body["instance"].take();
    body
}

#[tokio::test]
async fn what_is_no_token_of_a_vendor_is_refused_with_one_answer() {
    let (_world, trigger, gateway) = gateway("").await;
    let html = "<script>alert(1)</script>";
    let written = html.replace('<', "%3C").replace('>', "%3E");
    let long = "a".repeat(2000);
    let large = "a".repeat(1_000_000);
    let mut bodies = Vec::new();
    for vendor in [
        "adobe-sign",
        "dropbox",
        "graph",
        "meta",
        "okta",
        "sharepoint",
        "smartsheet",
        "x",
    ] {
        let token = match vendor {
            "adobe-sign" | "okta" | "smartsheet" => html,
            _ => &written,
        };
        bodies.push(refused(&gateway, vendor, challenge(vendor, token), "the token has ").await);
        let cause = "the token has 2000 bytes, not ";
        bodies.push(refused(&gateway, vendor, challenge(vendor, &long), cause).await);
    }
    for vendor in ["event-grid", "monday", "slack", "twitch", "woocommerce", "zoom"] {
        bodies.push(refused(&gateway, vendor, challenge(vendor, html), "the token has ").await);
        let (head, body) = challenge(vendor, &large);
        if matches!(vendor, "event-grid" | "monday" | "woocommerce") {
            // Nobody has signed it, and a challenge is shorter: it is not even read.
            assert_eq!(ask(&gateway, &head, body).await.code(), "key-missing", "{vendor}");
            continue;
        }
        let cause = "the token has 1000000 bytes, not ";
        bodies.push(refused(&gateway, vendor, (head, body), cause).await);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn no_answer_is_the_signature_of_a_delivery() {
    let (_world, trigger, gateway) = gateway("").await;
    let mut bodies = Vec::new();
    for (vendor, token, cause) in [
        ("zoom", r#"v0:1790000000:{\"a\":1}"#, "not 22 to 22"),
        ("zoom", "v0:16545038496:{}aaaaa", "characters other than letters"),
        (
            "x",
            "%7B%22for_user_id%22%3A%221%22%7D",
            "characters other than those of base64",
        ),
        ("slack", "a:b", "characters other than letters"),
        ("meta", "1158a", "characters other than digits"),
        (
            "event-grid",
            "x12d38b6-c7b8-40c8-89fe-f46f9e9622b6",
            "hexadecimal",
        ),
        ("dropbox", "a&challenge=b", "more than once"),
    ] {
        bodies.push(refused(&gateway, vendor, challenge(vendor, token), cause).await);
    }
    for word in [
        "other",
        "",
        "meatyhamhoc",
        "meatyhamhock&hub.verify_token=meatyhamhock",
    ] {
        let head = format!("GET /meta?hub.mode=subscribe&hub.challenge=1&hub.verify_token={word}");
        let cause = "is not the `verify_token` of the route";
        bodies.push(refused(&gateway, "meta", (head, String::new()), cause).await);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_challenge_that_is_signed_wrongly_is_refused_as_a_delivery() {
    let (_world, trigger, gateway) = gateway("").await;
    for (vendor, token) in [("slack", SLACK), ("zoom", ZOOM), ("twitch", SLACK)] {
        let (head, body) = challenge(vendor, token);
        let answer = ask(
            &gateway,
            &head,
            body.replace(token, &token.replace('m', "n").replace('o', "p")),
        )
        .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, "signature-invalid".to_owned())
        );
        assert!(!answer.text().contains(token));
        let path = head.lines().next().unwrap();
        let answer = ask(&gateway, &format!("{path}\ncontent-type: application/json"), body).await;
        assert_eq!(answer.code(), "signature-invalid", "{vendor} without a signature");
    }
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn who_presents_a_key_is_judged_by_it_before_a_body_is_read() {
    let (_world, trigger, gateway) = gateway("").await;
    let (head, body) = challenge("monday", GUID);
    let with = |key: &str| format!("{head}\nx-api-key: {key}");
    let answer = ask(&gateway, &with("wrong"), body.clone()).await;
    assert_eq!(answer.code(), "key-unknown");
    assert_eq!(
        ask(&gateway, &with(KEY), body).await.text(),
        format!(r#"{{"challenge":"{GUID}"}}"#)
    );
    assert_eq!(trigger.runs(), 0);
    for delivery in [
        format!(r#"{{"challenge":"{GUID}","event":{{}}}}"#),
        "[1]".repeat(4000),
    ] {
        assert_eq!(ask(&gateway, &with(KEY), delivery).await.status, 202);
    }
    assert_eq!(trigger.runs(), 2);
    // Of a body that is announced and never sent.
    let head = "POST /monday HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 1000000\r\n\r\n";
    let mut talk = Talk::new(gateway.tls_stream().await);
    talk.say(head.to_owned()).await;
    assert_eq!(talk.hear().await.status.as_u16(), 401);
}

#[tokio::test]
async fn what_x_has_signed_for_anybody_starts_nothing() {
    let (_world, trigger, gateway) = gateway("").await;
    for body in ["transfer=100000EUR", "1234567890123456789", CRC] {
        let answer = ask(&gateway, &challenge("x", body).0, "").await;
        let json: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        let signature = json["response_token"].as_str().unwrap();
        let head = format!("POST /x\nx-twitter-webhooks-signature: {signature}");
        let answer = ask(&gateway, &head, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, "signature-invalid".to_owned())
        );
        let line = gateway.lines.of(&answer).await;
        assert!(
            line["cause"].as_str().unwrap().contains("signed for anybody"),
            "{line}"
        );
    }
    assert_eq!(trigger.runs(), 0);
    let event = r#"{"for_user_id":"2244994945"}"#;
    let signature = STANDARD.encode(hmac_sha256(event.as_bytes()));
    let head = format!("POST /x\nx-twitter-webhooks-signature: sha256={signature}");
    assert_eq!(ask(&gateway, &head, event).await.status, 202);
}

#[tokio::test]
async fn the_secret_that_signed_a_challenge_makes_its_answer() {
    let world = World::new().await;
    world.file("old", "the-secret-of-before");
    world.file("secret", SECRET);
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let caller = |name: &str| {
        format!(
            "[[caller]]\nname = \"{name}\"\n[caller.signature]\npreset = \"{name}\"\n\
             [[caller.signature.secrets]]\nlabel = \"old\"\nsecret = \"file:old\"\n\
             [[caller.signature.secrets]]\nlabel = \"new\"\nsecret = \"file:secret\"\n"
        )
    };
    let over = caller("x").replace("\"file:old\"\n", "\"file:old\"\nexpires = 2020-01-01\n");
    let routes = ["x", "zoom"].map(|name| {
        let lines = format!("callers = [\"{name}\"]\nhandshakes = [\"{name}\"]");
        world.route(name, &format!("/{name}"), &trigger.url(), &lines)
    });
    let gateway = world.start(&format!(
        "{}{}{over}{}",
        world.base(),
        caller("zoom"),
        routes.concat()
    ));
    let (head, body) = challenge("zoom", ZOOM);
    let answer = ask(&gateway, &head, body).await;
    assert_eq!(
        answer.json()["encryptedToken"],
        hex(&hmac_sha256(ZOOM.as_bytes()))
    );
    let answer = ask(&gateway, &challenge("x", CRC).0, "").await;
    let expected = format!("sha256={}", STANDARD.encode(hmac_sha256(CRC.as_bytes())));
    assert_eq!(
        answer.json()["response_token"],
        expected,
        "the first one has expired"
    );
}

#[tokio::test]
async fn a_route_without_handshakes_sends_nothing_back() {
    let (_world, trigger, gateway) = gateway("").await;
    for vendor in UNSIGNED.iter().chain(&SIGNED) {
        let token = "Canary-5d38b6-c7b8-40c8-89fe-f46f9e96";
        let (head, body) = challenge(vendor, token);
        let head = head.replacen(&format!("/{vendor}"), "/plain", 1);
        let answer = ask(&gateway, &head, body).await;
        let expected = match head.starts_with("POST") {
            true => (401, "key-missing"),
            false => (405, "method-not-allowed"),
        };
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            expected,
            "{vendor}"
        );
        assert!(!format!("{answer:?}").contains(token), "{vendor}");
        assert_eq!(gateway.lines.of(&answer).await.get("handshake"), None);
    }
    for request in [
        "GET /slack",
        "OPTIONS /event-grid",
        "GET /dropbox",
        "HEAD /dropbox",
        "GET /plain",
    ] {
        let answer = ask(&gateway, request, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("allow")),
            (405, Some("POST")),
            "{request}"
        );
    }
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn deliveries_go_on_to_the_flow() {
    let (_world, trigger, gateway) = gateway("").await;
    let event = r#"{"event": {"type": "create"}, "challenge": "x"}"#;
    for (head, body) in [
        ("POST /graph\ncontent-type: application/json", r#"{"value": []}"#),
        ("POST /monday\ncontent-type: application/json", event),
        ("POST /monday\ncontent-type: application/json", "no JSON"),
        (
            "POST /woocommerce\ncontent-type: application/x-www-form-urlencoded",
            "a=1&webhook_id=1",
        ),
        ("POST /event-grid\naeg-event-type: Notification", "[]"),
        ("POST /plain?validationToken=1", ""),
    ] {
        let mut request = request(head, body);
        request.headers_mut().insert("x-api-key", KEY.parse().unwrap());
        let answer = gateway.send(request).await;
        assert_eq!(answer.status, 202, "{head}: {}", answer.text());
        assert_eq!(trigger.last_request().text(), body);
    }
    let body = r#"{"type": "event_callback", "challenge": "x"}"#;
    assert_eq!(ask(&gateway, &signed("slack", body), body).await.status, 202);
    assert_eq!(trigger.runs(), 7);
}

#[tokio::test]
async fn the_client_id_of_adobe_sign_is_in_every_answer_that_succeeds() {
    let (_world, trigger, gateway) = gateway("").await;
    let deliver = async |key: &str, id: &str| {
        let request = post("/adobe-sign")
            .header("x-api-key", key)
            .header("x-adobesign-clientid", id);
        let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
        (
            answer.status.as_u16(),
            answer.header("x-adobesign-clientid").map(str::to_owned),
        )
    };
    assert_eq!(
        deliver(KEY, "UB7E5BXCXY").await,
        (202, Some("UB7E5BXCXY".to_owned()))
    );
    assert_eq!(deliver(KEY, "<b>").await, (202, None));
    assert_eq!(
        deliver("canary-wrong-0123456789", "UB7E5BXCXY").await,
        (401, None)
    );
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_url_that_is_only_tested_is_there() {
    let (_world, trigger, gateway) = gateway("").await;
    for method in ["HEAD", "GET"] {
        let answer = ask(&gateway, &format!("{method} /tested"), "").await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ""));
        let line = gateway.lines.of(&answer).await;
        assert_eq!(line["handshake"], "reachable");
    }
    assert_eq!(ask(&gateway, "OPTIONS /tested", "").await.status, 405);
    assert_eq!(ask(&gateway, "POST /tested", "").await.code(), "key-missing");
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn networks_of_the_route_come_before_its_handshakes() {
    let (_world, _trigger, gateway) = gateway("networks = [\"192.0.2.0/24\"]").await;
    for vendor in UNSIGNED.iter().chain(&SIGNED) {
        let (head, body) = challenge(vendor, GUID);
        assert_eq!(
            ask(&gateway, &head, body).await.code(),
            "address-refused",
            "{vendor}"
        );
    }
    assert_eq!(ask(&gateway, "GET /tested", "").await.code(), "address-refused");
    assert_eq!(ask(&gateway, "GET /plain", "").await.status, 405);
}

#[tokio::test]
async fn a_route_that_is_switched_off_answers_no_handshake() {
    let (_world, _trigger, gateway) = gateway("enabled = false").await;
    for vendor in ["graph", "monday", "slack", "dropbox"] {
        let (head, body) = challenge(vendor, GUID);
        assert_eq!(
            ask(&gateway, &head, body).await.code(),
            "route-disabled",
            "{vendor}"
        );
    }
}

#[tokio::test]
async fn handshakes_have_a_limit_of_their_own() {
    let (_world, trigger, gateway) = gateway("").await;
    let (head, _) = challenge("graph", GUID);
    let mut answered = 0;
    let limited = loop {
        let answer = ask(&gateway, &head, "").await;
        match answer.status.as_u16() {
            200 => answered += 1,
            _ => break answer,
        }
        assert!(answered < 100);
    };
    assert!(answered >= 30, "{answered}");
    assert_eq!(
        (limited.status.as_u16(), limited.code()),
        (429, "rate-limited".to_owned())
    );
    assert_eq!(gateway.lines.of(&limited).await["limit"], "handshake");
    let (head, body) = challenge("slack", SLACK);
    assert_eq!(
        ask(&gateway, &head, body).await.status,
        200,
        "a signed one has none"
    );
    let (head, _) = challenge("sharepoint", GUID);
    assert_eq!(
        ask(&gateway, &head, "").await.status,
        200,
        "another route has its own"
    );
    let delivery = r#"{"type": "event_callback"}"#;
    assert_eq!(
        ask(&gateway, &signed("slack", delivery), delivery).await.status,
        202
    );
    assert_eq!(gateway.post("/plain", "{}").await.status, 202);
    assert_eq!(trigger.runs(), 2);
}
