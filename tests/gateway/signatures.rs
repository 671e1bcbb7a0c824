//! Callers that sign their requests: who is let in, what is refused with one answer, and what the operator learns.

use std::time::UNIX_EPOCH;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, post, send_h2};

const SECRET: &str = "It's a Secret to Everybody";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hmac_sha256(secret: &str, text: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex(hmac::sign(&key, text).as_ref())
}

fn now() -> u64 {
    let now = flowgate::model::clock::wall();
    now.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A caller `github` that signs, and what else its settings say.
fn github(more: &str) -> String {
    format!(
        "[[caller]]\nname = \"github\"\n{more}[caller.signature]\npreset = \"github\"\nsecret = \"file:secret\"\n"
    )
}

/// A gateway with these callers, all of whom may call `/hooks`.
async fn gateway(callers: &str, names: &str, more: &str) -> (World, TriggerHandle, Running) {
    let world = World::new().await;
    world.file("secret", SECRET);
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let route = world.route("hooks", "/hooks", &trigger.url(), more);
    let route = route.replace("callers = [\"shop\"]", &format!("callers = [{names}]"));
    assert!(route.contains(names), "{route}");
    let gateway = world.start(&format!("{}{callers}{route}", world.base()));
    (world, trigger, gateway)
}

fn signed(signature: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = post("/hooks").header("x-hub-signature-256", signature);
    request.body(Full::from(body.into())).unwrap()
}

async fn deliver(gateway: &Running, secret: &str, body: &str) -> Answer {
    let signature = format!("sha256={}", hmac_sha256(secret, body.as_bytes()));
    gateway.send(signed(&signature, body.to_owned())).await
}

#[tokio::test]
async fn a_signature_alone_identifies_its_caller() {
    let (world, trigger, gateway) = gateway(&github(""), "\"github\"", "").await;
    // The vector that GitHub publishes.
    let published = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let answer = gateway.send(signed(published, "Hello, World!")).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let line = gateway.lines.of(&answer).await;
    assert_eq!(
        (line["caller"].as_str(), line["key"].as_str()),
        (Some("github"), Some("signature"))
    );
    assert_eq!(line["bytes_in"], 13);
    let request = trigger.last_request();
    assert_eq!(request.text(), "Hello, World!");
    assert_eq!(request.header("x-hub-signature-256"), None);

    let mut sender = gateway.connect_h2().await;
    let request = Request::post("https://localhost/hooks").header("x-hub-signature-256", published);
    let answer = send_h2(&mut sender, request.body(Full::from("Hello, World!")).unwrap()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(trigger.runs(), 2);
    world.emulator.assert_clean();
}

#[tokio::test]
async fn a_signature_is_over_the_body_as_it_came_and_the_rules_of_the_route_come_after_it() {
    let lines = "drop_nulls = true\ncontent_type_as = \"application/json\"";
    let (_world, trigger, gateway) = gateway(&github(""), "\"github\"", lines).await;
    let mut connection = gateway.connect().await;
    for (secret, body, status, code) in [
        (SECRET, "{\"a\": null}", 202, ""),
        ("another", "no JSON", 401, "signature-invalid"),
        (SECRET, "no JSON", 400, "body-invalid"),
        (SECRET, "{\"b\": 1}", 202, ""),
    ] {
        let signature = format!("sha256={}", hmac_sha256(secret, body.as_bytes()));
        let answer = connection.send(signed(&signature, body)).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        if status != 202 {
            assert_eq!(answer.code(), code);
        }
    }
    assert_eq!(
        (trigger.runs(), trigger.last_request().text().as_str()),
        (2, "{\"b\": 1}")
    );
}

#[tokio::test]
async fn every_wrong_signature_has_one_answer_and_a_cause_of_its_own() {
    let (_world, trigger, gateway) = gateway(&github(""), "\"github\"", "").await;
    let right = hmac_sha256(SECRET, b"{}");
    let other = hmac_sha256("another", b"{}");
    let mut bodies = Vec::new();
    for (signature, cause) in [
        (
            None,
            "there is no signature in header:x-hub-signature-256 (caller github)",
        ),
        (Some(String::new()), "is empty"),
        (
            Some(format!("sha256={other}")),
            "matches no secret; tried signature, over `{body}` with a body of 2 bytes",
        ),
        (Some(format!("sha1={right}")), "does not begin with `sha256=`"),
        (Some(format!("sha256={}", &right[..62])), "has 31 bytes, not 32"),
        (Some(format!("sha256={}zz", &right[..62])), "is not valid hex"),
        (Some(format!("sha256={right},")), "is not valid hex"),
        (Some("x".repeat(12 * 1024)), "at most 8192 are read"),
        (Some(hmac_sha256(SECRET, b"{ }")), "does not begin with `sha256=`"),
    ] {
        let mut request = post("/hooks");
        if let Some(signature) = &signature {
            request = request.header("x-hub-signature-256", signature);
        }
        let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, "signature-invalid".to_owned()),
            "{cause}"
        );
        let line = gateway.lines.of(&answer).await;
        let logged = line["cause"].as_str().unwrap();
        assert!(logged.contains(cause), "{cause}: {logged}");
        assert!(!logged.contains(SECRET) && !logged.contains(&right), "{logged}");
        let mut body = answer.json();
        body["instance"].take();
        bodies.push(body);
    }
    let twice = post("/hooks")
        .header("x-hub-signature-256", format!("sha256={right}"))
        .header("x-hub-signature-256", format!("sha256={right}"));
    let answer = gateway.send(twice.body(Full::from("{}")).unwrap()).await;
    assert_eq!(answer.code(), "signature-invalid");
    assert!(
        gateway.lines.of(&answer).await["cause"]
            .as_str()
            .unwrap()
            .contains("more than once")
    );
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    assert_eq!(trigger.runs(), 0);
    // Other tenants of the vendor share its addresses.
    assert_eq!(deliver(&gateway, SECRET, "{}").await.status, 202);
}

#[tokio::test]
async fn wrong_signatures_lock_nobody_out() {
    let limit = "[limits]\nfailed_authentications = { requests = 2, per = \"1h\" }\n";
    let (_world, trigger, gateway) = gateway(&format!("{limit}{}", github("")), "\"github\"", "").await;
    for _ in 0..20 {
        assert_eq!(deliver(&gateway, "another", "{}").await.status, 401);
    }
    assert_eq!(deliver(&gateway, SECRET, "{}").await.status, 202);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_signed_body_is_held_whole_up_to_what_the_route_accepts() {
    let (_world, trigger, gateway) = gateway(&github(""), "\"github\"", "").await;
    let large = "x".repeat(1024 * 1024);
    assert_eq!(deliver(&gateway, SECRET, &large).await.status, 202);
    assert_eq!(trigger.last_request().text().len(), large.len());
    let answer = deliver(&gateway, SECRET, &format!("{large}x")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (413, "body-too-large".to_owned())
    );
    // Its length is known only at its end.
    let signature = format!("sha256={}", hmac_sha256(SECRET, format!("{large}x").as_bytes()));
    let head = format!(
        "POST /hooks HTTP/1.1\r\nhost: localhost\r\nx-hub-signature-256: {signature}\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n100001\r\n{large}x\r\n0\r\n\r\n"
    );
    let answer = gateway.raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn no_body_is_larger_than_the_vendor_sends() {
    let callers = format!("[bodies]\nheld_budget = \"200 MiB\"\n{}", github(""));
    let (_world, trigger, gateway) = gateway(&callers, "\"github\"", "body_size_max = \"100 MiB\"").await;
    let head = "POST /hooks HTTP/1.1\r\nhost: localhost\r\nx-hub-signature-256: sha256=00\r\n\
                content-length: 26214401\r\nconnection: close\r\n\r\n";
    let signature = hmac_sha256(SECRET, b"{}");
    let answer = gateway
        .raw(head.replace("=00", &format!("={signature}")).as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("this address accepts 26214400"), "{answer}");
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn key_signature_and_network_must_all_be_right() {
    let key = format!(
        "[[caller.key]]\nlabel = \"both-1\"\ndigest = \"{}\"\n",
        crate::harness::digest("canary-both-0123456789")
    );
    let both = format!("{}{key}", github("").replace("github\"\n[", "both\"\n["));
    let (_world, trigger, gateway) = gateway(&both, "\"both\", \"shop\"", "").await;
    let signature = format!("sha256={}", hmac_sha256(SECRET, b"{}"));
    let ask = async |key: Option<&str>, signature: Option<&str>| {
        let mut request = post("/hooks");
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        if let Some(signature) = signature {
            request = request.header("x-hub-signature-256", signature);
        }
        let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
        (answer.status.as_u16(), answer)
    };
    let key = Some("canary-both-0123456789");
    let (status, answer) = ask(key, Some(&signature)).await;
    assert_eq!(status, 202, "{}", answer.text());
    assert_eq!(gateway.lines.of(&answer).await["key"], "both-1");
    let (status, answer) = ask(key, None).await;
    assert_eq!((status, answer.code()), (401, "signature-invalid".to_owned()));
    assert_eq!(
        gateway.lines.of(&answer).await["caller"],
        "both",
        "its key was right"
    );
    assert_eq!(ask(None, Some(&signature)).await.1.code(), "key-missing");
    assert_eq!(
        ask(Some("canary-wrong-0123456789"), Some(&signature))
            .await
            .1
            .code(),
        "key-unknown"
    );
    assert_eq!(
        ask(key, Some(&signature.replace("sha256=7", "sha256=8"))).await.0,
        if signature.contains("=7") { 401 } else { 202 }
    );
    // A caller of the same route that does not sign.
    assert_eq!(ask(Some(KEY), None).await.0, 202);
    assert!(trigger.runs() >= 2);
}

#[tokio::test]
async fn a_network_that_is_not_the_callers_makes_a_signature_worthless() {
    let far = github("networks = [\"192.0.2.0/24\"]\n");
    let (_world, trigger, gateway) = gateway(&far, "\"github\"", "").await;
    let answer = deliver(&gateway, SECRET, "{}").await;
    assert_eq!(answer.code(), "signature-invalid");
    let line = gateway.lines.of(&answer).await;
    assert!(
        line["cause"].as_str().unwrap().contains("caller github: "),
        "{line}"
    );
    let off = github("enabled = false\n");
    let (_world, second, gateway) = self::gateway(&off, "\"github\"", "").await;
    assert_eq!(deliver(&gateway, SECRET, "{}").await.code(), "signature-invalid");
    assert_eq!((trigger.runs(), second.runs()), (0, 0));
}

#[tokio::test]
async fn of_several_callers_the_one_whose_secret_fits_is_found() {
    let second = github("")
        .replace("\"github\"\n[", "\"other\"\n[")
        .replace("file:secret", "file:other");
    let world = World::new().await;
    world.file("secret", SECRET);
    world.file("other", "the-secret-of-the-other");
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let route = world.route("hooks", "/hooks", &trigger.url(), "");
    let route = route.replace("callers = [\"shop\"]", "callers = [\"github\", \"other\"]");
    let gateway = world.start(&format!("{}{}{second}{route}", world.base(), github("")));
    for (secret, caller) in [(SECRET, "github"), ("the-secret-of-the-other", "other")] {
        let answer = deliver(&gateway, secret, "{}").await;
        assert_eq!(answer.status, 202);
        assert_eq!(gateway.lines.of(&answer).await["caller"], caller);
    }
    assert_eq!(deliver(&gateway, "nobody's", "{}").await.status, 401);
}

#[tokio::test]
async fn a_secret_is_replaced_while_both_are_valid_and_followed_in_its_file() {
    let stripe = "[[caller]]\nname = \"stripe\"\n[caller.signature]\npreset = \"stripe\"\n\
                  [[caller.signature.secrets]]\nlabel = \"old\"\nsecret = \"file:secret\"\nexpires = 2100-01-01\n\
                  [[caller.signature.secrets]]\nlabel = \"new\"\nsecret = \"file:next\"\n\
                  [[caller.signature.secrets]]\nlabel = \"over\"\nsecret = \"file:over\"\nexpires = 2020-01-01\n";
    let world = World::new().await;
    for (name, secret) in [("secret", SECRET), ("next", "whsec_next"), ("over", "whsec_over")] {
        world.file(name, secret);
    }
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let route = world.route("hooks", "/hooks", &trigger.url(), "");
    let route = route.replace("callers = [\"shop\"]", "callers = [\"stripe\"]");
    let gateway = world.start(&format!("{}{stripe}{route}", world.base()));
    let ask = async |secret: &str, at: u64| {
        let signature = hmac_sha256(secret, format!("{at}.{{}}").as_bytes());
        let request = post("/hooks").header("stripe-signature", format!("t={at},v1={signature},v0=ignored"));
        let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
        let line = gateway.lines.of(&answer).await;
        (
            answer.status.as_u16(),
            line["key"].clone(),
            line["cause"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(ask(SECRET, now()).await.1, "old");
    assert_eq!(ask("whsec_next", now()).await.1, "new");
    let (status, _, cause) = ask("whsec_over", now()).await;
    assert_eq!(status, 401);
    assert!(
        cause.contains("the signature is right for the secret `over`, which"),
        "{cause}"
    );
    for at in [now() - 400, now() + 400, now() * 1000] {
        let (status, _, cause) = ask(SECRET, at).await;
        assert_eq!(status, 401);
        assert!(cause.contains("accepted are 300 s before and after"), "{cause}");
    }
    world.file("next", "whsec_third");
    let replaced = async { while ask("whsec_third", now()).await.0 != 202 {} };
    tokio::time::timeout(crate::harness::PATIENCE, replaced)
        .await
        .unwrap();
    assert_eq!(ask("whsec_next", now()).await.0, 401);
}

#[tokio::test]
async fn the_address_that_is_signed_is_that_of_the_settings() {
    // Twilio's published key, with a form.
    let twilio =
        "[[caller]]\nname = \"twilio\"\n[caller.signature]\npreset = \"twilio\"\nsecret = \"file:secret\"\n";
    let url = "public_url = \"https://hooks.example.com\"\n";
    let (_world, trigger, gateway) = gateway(twilio, "\"twilio\"", url).await;
    let ask = async |signed_url: &str, host: &str| {
        let text = format!("{signed_url}CallSidCA1");
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
        use base64::Engine;
        let signature = base64::engine::general_purpose::STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        let request = Request::post("/hooks")
            .header("host", host)
            .header("x-forwarded-host", "elsewhere.example")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-twilio-signature", signature);
        let answer = gateway
            .send(request.body(Full::from("CallSid=CA1")).unwrap())
            .await;
        answer.status.as_u16()
    };
    assert_eq!(ask("https://hooks.example.com/hooks", "localhost").await, 202);
    assert_eq!(ask("https://localhost/hooks", "localhost").await, 401);
    assert_eq!(ask("https://elsewhere.example/hooks", "localhost").await, 401);
    assert_eq!(
        ask("https://hooks.example.com/other", "hooks.example.com").await,
        401
    );
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_vendor_without_a_preset_needs_settings_alone() {
    let acme = "[[caller]]\nname = \"acme\"\n[caller.signature]\nfrom = [\"header:x-acme-signature\"]\n\
                prefix = \"v1=\"\nseparator = \",\"\ntemplate = \"{timestamp}:{id}:{method}:{body}\"\n\
                timestamp = \"header:x-acme-time\"\ntimestamp_unit = \"ms\"\ntolerance = \"1m\"\n\
                id = \"header:x-acme-delivery\"\nsecret = \"file:secret\"\n";
    let (_world, trigger, gateway) = gateway(acme, "\"acme\"", "").await;
    let ask = async |at: u64, id: &str, signed_id: &str| {
        let signature = hmac_sha256(SECRET, format!("{at}:{signed_id}:POST:{{}}").as_bytes());
        let request = post("/hooks")
            .header("x-acme-time", at)
            .header("x-acme-delivery", id)
            .header("x-acme-signature", format!("v0=00,v1={signature}"));
        gateway
            .send(request.body(Full::from("{}")).unwrap())
            .await
            .status
            .as_u16()
    };
    assert_eq!(ask(now() * 1000, "d-1", "d-1").await, 202);
    assert_eq!(ask(now() * 1000, "d-2", "d-1").await, 401, "the id is signed");
    assert_eq!(
        ask(now(), "d-1", "d-1").await,
        401,
        "seconds are not milliseconds"
    );
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn what_is_held_for_unknown_callers_has_a_bound() {
    let bodies = "[bodies]\nheld_budget = \"8 MiB\"\n";
    let (_world, trigger, gateway) = gateway(&format!("{bodies}{}", github("")), "\"github\"", "").await;
    let mut streams = Vec::new();
    let head = "POST /hooks HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\
                x-hub-signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\r\n\r\n";
    use tokio::io::AsyncWriteExt;
    for _ in 0..12 {
        let mut stream = gateway.tls_stream().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        // Those that find no room are refused while they write.
        let _ = stream.write_all(&vec![b'x'; 300_000]).await;
        streams.push(stream);
    }
    let held = async {
        loop {
            let metrics = gateway.admin("/metrics").await.1;
            let line = metrics
                .lines()
                .find(|line| line.starts_with("flowgate_held_body_bytes "));
            let held: u64 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            assert!(
                held <= 1024 * 1024 + 64 * 1024,
                "{held} bytes are held for callers that nobody knows"
            );
            if held >= 600_000 {
                return;
            }
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, held)
        .await
        .unwrap();
    // A known caller has room of its own.
    drop(streams);
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_delivery_that_its_vendor_repeats_starts_one_run() {
    let duplicates = "[route.duplicates]\nby = \"delivery\"\n";
    let (_world, trigger, gateway) = gateway(&github(""), "\"github\"", duplicates).await;
    let ask = async |id: Option<&str>, body: &str| {
        let signature = format!("sha256={}", hmac_sha256(SECRET, body.as_bytes()));
        let mut request = post("/hooks").header("x-hub-signature-256", signature);
        if let Some(id) = id {
            request = request.header("x-github-delivery", id);
        }
        gateway
            .send(request.body(Full::from(body.to_owned())).unwrap())
            .await
    };
    assert_eq!(ask(Some("d-1"), "{}").await.status, 202);
    let again = ask(Some("d-1"), "{}").await;
    assert_eq!(again.status, 202);
    assert!(again.header("x-flowgate-duplicate-of").is_some());
    assert_eq!(ask(Some("d-1"), "[]").await.status, 422);
    assert_eq!(ask(Some("d-2"), "{}").await.status, 202);
    let without = ask(None, "{}").await;
    assert_eq!(
        (without.status.as_u16(), without.code()),
        (400, "delivery-id-missing".to_owned())
    );
    assert_eq!(trigger.runs(), 2);
}
