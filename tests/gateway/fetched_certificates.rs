//! Vendors that sign with a certificate: it is fetched from their own hosts alone, once, within limits, and whatever is wrong
//! with it is refused as any wrong signature.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flowgate::gateway::Wanted;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::emulator::Answer as Flow;
use crate::emulator::{Authority, Door, Leaf, Reply, Trigger, TriggerHandle, Vendor};
use crate::harness::{Answer, Running, TENANT, World, post};

pub const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:orders";
/// The path at which the certificate is.
pub const PEM: &str = "/SimpleNotificationService-0123.pem";
const WEBHOOK: &str = "7KL53894WH270591R";

/// The vendor's host, its key and a gateway with a caller that the vendor is.
pub struct Amazon {
    pub world: World,
    pub vendor: Vendor,
    pub leaf: Leaf,
    pub trigger: TriggerHandle,
    pub gateway: Running,
    pub settings: String,
}

fn rsa_leaf(ca: &Authority, begins: i32, ends: i32) -> Leaf {
    ca.client_leaf_between("sns.example", begins, ends)
}

fn sign(leaf: &Leaf, text: &str) -> String {
    let key = RsaKeyPair::from_pkcs8(leaf.key.secret_der()).unwrap();
    let mut signature = vec![0; key.public_modulus_len()];
    let random = SystemRandom::new();
    key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
        .unwrap();
    STANDARD.encode(signature)
}

/// A message that Amazon signs over these fields, in the order of its documents.
pub fn signed(leaf: &Leaf, mut message: Value, fields: &[&str], url: &str) -> String {
    let text: String = fields
        .iter()
        .filter_map(|name| Some(format!("{name}\n{}\n", message.get(name)?.as_str()?)))
        .collect();
    message["Signature"] = sign(leaf, &text).into();
    message["SigningCertURL"] = url.into();
    message.to_string()
}

fn notification(leaf: &Leaf, topic: &str, url: &str) -> String {
    let message = json!({
        "Type": "Notification", "MessageId": "22b80b92", "TopicArn": topic, "Message": "Hello",
        "Timestamp": flowgate::model::clock::stamp(), "SignatureVersion": "2",
    });
    let fields = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
    signed(leaf, message, &fields, url)
}

impl Amazon {
    pub async fn new(route: &str) -> Self {
        let world = World::new().await;
        world.file("topic", TOPIC);
        world.file("webhook", WEBHOOK);
        world.file("secret", "canary-signing-secret");
        let ca = &world.emulator.ca;
        let vendor = Vendor::start(ca).await;
        let leaf = rsa_leaf(ca, -1, 30);
        vendor.put(PEM, leaf.chain_pem.clone());
        let trigger = world
            .emulator
            .flow
            .add(Trigger::any_user(TENANT).does(Flow::Accepted));
        let caller = |preset: &str, secret: &str| {
            format!(
                "[[caller]]\nname = \"{preset}\"\n[caller.signature]\npreset = \"{preset}\"\nsecret = \"file:{secret}\"\n\
                 vendor_hosts = [\"{}\"]\nca_file = {:?}\n",
                vendor.host(),
                world.emulator.ca_file()
            )
        };
        let github = "[[caller]]\nname = \"github\"\n[caller.signature]\npreset = \"github\"\nsecret = \"file:secret\"\n";
        let lines = format!("callers = [\"sns\", \"paypal\", \"github\"]\n{route}");
        let settings = format!(
            "{}{}{}{github}{}",
            world.base(),
            caller("sns", "topic"),
            caller("paypal", "webhook"),
            world.route("hooks", "/hooks", &trigger.url(), &lines)
        );
        let gateway = world.start(&settings);
        Self {
            world,
            vendor,
            leaf,
            trigger,
            gateway,
            settings,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.vendor.host())
    }

    fn message(&self, path: &str) -> String {
        notification(&self.leaf, TOPIC, &self.url(path))
    }

    pub async fn send(&self, body: impl Into<Bytes>) -> Answer {
        let request = post("/hooks").header("x-amz-sns-message-type", "Notification");
        self.gateway
            .send(request.body(Full::from(body.into())).unwrap())
            .await
    }

    /// A webhook of `PayPal` whose signature is right for the body `123456789`.
    fn paypal(&self, url: &str, webhook: &str, body: &str) -> Request<Full<Bytes>> {
        // The check value of CRC-32.
        let crc = 0xCBF4_3926_u32;
        let at = flowgate::model::clock::stamp();
        let text = format!("69cd13f0|{at}|{webhook}|{crc}");
        let request = post("/hooks")
            .header("paypal-transmission-id", "69cd13f0")
            .header("paypal-transmission-time", at)
            .header("paypal-cert-url", url)
            .header("paypal-transmission-sig", sign(&self.leaf, &text));
        request.body(Full::from(body.to_owned())).unwrap()
    }

    /// Sends a request from another address of this machine; returns the status.
    async fn send_from(&self, host: u8, request: Request<Full<Bytes>>) -> u16 {
        let stream = self.gateway.tls_stream_from([127, 0, 1, host].into()).await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(connection);
        let answer = sender.send_request(request).await.unwrap();
        driver.abort();
        answer.status().as_u16()
    }

    /// Sends a message that must be refused as any wrong credential is; returns what the caller learns.
    async fn refused(&self, body: String, cause: &str) -> Value {
        let answer = self.send(body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (401, "signature-invalid".to_owned()),
            "{cause}: {}",
            answer.text()
        );
        let line = self.gateway.lines.of(&answer).await;
        let why = line["cause"].as_str().unwrap();
        assert!(why.contains(cause), "{cause}: {why}");
        let mut body = answer.json();
        body["instance"].take();
        body
    }

    /// Sends a message whose certificate cannot be fetched now.
    async fn unavailable(&self, body: String, cause: &str) {
        let answer = self.send(body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (503, "vendor-unavailable".to_owned()),
            "{cause}: {}",
            answer.text()
        );
        assert!(answer.header("retry-after").is_some());
        let line = self.gateway.lines.of(&answer).await;
        let why = line["cause"].as_str().unwrap();
        assert!(why.contains(cause), "{cause}: {why}");
        assert!(!answer.text().contains("localhost"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_certificate_is_fetched_once_for_all_messages_and_kept_over_a_reload() {
    let mut amazon = Amazon::new("").await;
    let all = join_all((0..8).map(|_| amazon.send(amazon.message(PEM)))).await;
    for answer in &all {
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let line = amazon.gateway.lines.of(&all[0]).await;
    assert_eq!(
        (line["caller"].as_str(), line["key"].as_str()),
        (Some("sns"), Some("signature"))
    );
    assert_eq!(amazon.vendor.targets(), [PEM]);

    let old = json!({
        "Type": "Notification", "MessageId": "1", "TopicArn": TOPIC, "Message": "Hello", "Subject": "S",
        "Timestamp": "2020-01-01T00:00:00.000Z", "SignatureVersion": "2",
    });
    let fields = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
    let old = signed(&amazon.leaf, old, &fields, &amazon.url(PEM));
    assert_eq!(amazon.send(old).await.status, 202, "however old");

    let settings = amazon
        .settings
        .replace("name = \"hooks\"", "name = \"hooks\"\nbody_size_max = \"64 KiB\"");
    let config = Arc::new(amazon.world.load(&settings));
    amazon
        .gateway
        .server
        .reload(&config, Wanted::ByOperator)
        .await
        .unwrap();
    amazon.vendor.listener().set_door(Door::Refuse).await;
    assert_eq!(amazon.send(amazon.message(PEM)).await.status, 202);
    assert_eq!(amazon.vendor.reads().get(), 1);
    assert_eq!(amazon.trigger.runs(), 10);
    let metrics = amazon.gateway.admin("/metrics").await.1;
    assert!(metrics.contains("flowgate_vendor_fetches_total 1\n"), "{metrics}");
    amazon.vendor.assert_clean();
    amazon.world.emulator.assert_clean();
}

#[tokio::test]
async fn only_the_form_of_the_vendors_own_urls_is_fetched() {
    let amazon = Amazon::new("").await;
    let host = amazon.vendor.host();
    let port = host.strip_prefix("localhost").unwrap();
    let mut bodies = Vec::new();
    for url in [
        format!("http://{host}{PEM}"),
        format!("https://sns.eu-west-1.amazonaws.com{PEM}"),
        format!("https://127.0.0.1{port}{PEM}"),
        format!("https://localhost{PEM}"),
        format!("https://user@{host}{PEM}"),
        format!("https://sns:x@{host}{PEM}"),
        format!("https://{host}.evil.example{PEM}"),
        format!("https://evil.example/{host}{PEM}"),
        format!("https://{host}/../SimpleNotificationService-0123.pem"),
        format!("https://{host}/SimpleNotificationService-/../../a.pem"),
        format!("https://{host}/SimpleNotificationService-%2e%2e%2fa.pem"),
        format!("https://{host}/SimpleNotificationService-\\a.pem"),
        format!("https://{host}/other.pem"),
        format!("https://{host}{PEM}?a=.pem"),
        format!("https://{host}{PEM}#.pem"),
        format!("https://{host}/SimpleNotificationService-\r\nhost: evil.example\r\n.pem"),
        format!("HTTPS://{host}{PEM}"),
        "file:///SimpleNotificationService-a.pem".to_owned(),
        format!(
            "https://{host}/SimpleNotificationService-{}.pem",
            "a".repeat(9000)
        ),
        String::new(),
    ] {
        let body = notification(&amazon.leaf, TOPIC, &url);
        let cause = "body:/SigningCertURL names no certificate of a host that may serve one";
        bodies.push(amazon.refused(body, cause).await);
    }
    let good = amazon.message(PEM);
    let without = good.replace("SigningCertURL", "Other");
    bodies.push(amazon.refused(without, "body:/SigningCertURL is missing").await);
    let twice = good.replacen(
        '{',
        &format!("{{\"SigningCertURL\": \"{}\", ", amazon.url(PEM)),
        1,
    );
    bodies.push(amazon.refused(twice, "has the key `SigningCertURL` twice").await);
    // Nobody who does not know the topic has anything fetched.
    let other = notification(
        &amazon.leaf,
        "arn:aws:sns:eu-west-1:123456789012:others",
        &amazon.url(PEM),
    );
    bodies.push(
        amazon
            .refused(other, "the topic of the message is not what this secret is for")
            .await,
    );
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    assert_eq!(amazon.vendor.reads().get(), 0);
    assert_eq!(amazon.trigger.runs(), 0);
}

#[tokio::test]
async fn a_wrong_certificate_is_refused_as_a_wrong_signature_is() {
    let amazon = Amazon::new("").await;
    let ca = &amazon.world.emulator.ca;
    let path = |name: &str| format!("/SimpleNotificationService-{name}.pem");
    let (expired, future, other) = (rsa_leaf(ca, -10, -1), rsa_leaf(ca, 1, 10), rsa_leaf(ca, -1, 30));
    let mut bodies = Vec::new();
    for (name, page, leaf, cause) in [
        (
            "expired",
            Bytes::from(expired.chain_pem.clone()),
            &expired,
            "it has expired or is not valid yet",
        ),
        (
            "future",
            future.chain_pem.clone().into(),
            &future,
            "it has expired or is not valid yet",
        ),
        (
            "other",
            other.chain_pem.clone().into(),
            &amazon.leaf,
            "matches no secret",
        ),
        (
            "text",
            "<html>".into(),
            &amazon.leaf,
            "it is no certificate in PEM",
        ),
        (
            "der",
            amazon.leaf.chain[0].to_vec().into(),
            &amazon.leaf,
            "it is no certificate in PEM",
        ),
    ] {
        amazon.vendor.put(&path(name), page);
        let body = notification(leaf, TOPIC, &amazon.url(&path(name)));
        bodies.push(amazon.refused(body, cause).await);
    }
    let right = amazon.message(PEM).replace("Hello", "Hallo");
    bodies.push(amazon.refused(right, "matches no secret").await);
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    assert_eq!(amazon.send(amazon.message(PEM)).await.status, 202);
    assert_eq!(amazon.trigger.runs(), 1);
}

#[tokio::test]
async fn what_is_too_large_or_not_there_is_no_certificate() {
    let amazon = Amazon::new("").await;
    let large = |bytes: usize| format!("{}{}", amazon.leaf.chain_pem, "\n".repeat(bytes));
    for (name, bytes, cause) in [
        ("large", 1024 * 1024, "the answer is too large"),
        ("larger", 65 * 1024, "which no certificate has"),
    ] {
        let path = format!("/SimpleNotificationService-{name}.pem");
        amazon.vendor.put(&path, large(bytes));
        amazon.refused(amazon.message(&path), cause).await;
    }
    let gone = amazon.message("/SimpleNotificationService-gone.pem");
    amazon
        .refused(gone.clone(), "the signing certificate cannot be used")
        .await;
    amazon.refused(gone, "-gone.pem: status 404").await;
    assert_eq!(amazon.vendor.reads().get(), 3, "a failure is remembered");
    assert_eq!(amazon.send(amazon.message(PEM)).await.status, 202);
}

#[tokio::test]
async fn while_the_vendor_cannot_be_reached_it_is_asked_to_send_again() {
    let amazon = Amazon::new("").await;
    let path = |name: &str| format!("/SimpleNotificationService-{name}.pem");
    let elsewhere = Authority::new().leaf(&["localhost"]);
    amazon.vendor.next(Reply::new(500));
    amazon
        .unavailable(amazon.message(&path("a")), "-a.pem: status 500")
        .await;
    amazon
        .vendor
        .next(Reply::new(302).header("Location", amazon.url(PEM)));
    amazon
        .unavailable(amazon.message(&path("b")), "redirects are not followed")
        .await;
    amazon.vendor.listener().evict();
    amazon.vendor.listener().set_door(Door::Refuse).await;
    amazon
        .unavailable(amazon.message(&path("c")), "-c.pem: localhost:")
        .await;
    // A candidate that could not be checked takes nothing from one whose signature is right.
    let body = amazon.message(&path("c"));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"canary-signing-secret");
    let tag = aws_lc_rs::hmac::sign(&key, body.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let both = post("/hooks").header("x-hub-signature-256", format!("sha256={hex}"));
    let answer = amazon.gateway.send(both.body(Full::from(body)).unwrap()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    amazon.vendor.listener().set_door(Door::Open).await;
    amazon.vendor.listener().present(&elsewhere);
    amazon
        .unavailable(amazon.message(&path("d")), "-d.pem: localhost:")
        .await;
    amazon
        .vendor
        .listener()
        .present(&amazon.world.emulator.ca.leaf(&["localhost"]));
    assert_eq!(amazon.send(amazon.message(PEM)).await.status, 202);
    assert_eq!(amazon.trigger.runs(), 2);
}

#[tokio::test]
async fn nobody_can_have_a_vendor_flooded_or_a_known_certificate_forgotten() {
    let amazon = Amazon::new("").await;
    assert_eq!(amazon.send(amazon.message(PEM)).await.status, 202);
    let good = amazon.message(PEM);
    let forged = |number: usize| good.replace("0123.pem", &format!("{number:016x}.pem"));
    let mut connection = amazon.gateway.connect().await;
    let mut refused = 0;
    for number in 0..10_000 {
        let answer = connection
            .send(post("/hooks").body(Full::from(forged(number))).unwrap())
            .await;
        match answer.status.as_u16() {
            401 => refused += 1,
            503 => {}
            status => panic!("{status}: {}", answer.text()),
        }
        if number % 1000 == 0 {
            let good = post("/hooks").body(Full::from(good.clone())).unwrap();
            assert_eq!(connection.send(good).await.status, 202, "{number}");
        }
    }
    let asked = amazon.vendor.reads().get();
    assert_eq!(asked, 1 + refused, "what is not fetched is answered with 503");
    // The burst, and one more in five seconds.
    assert!((6..60).contains(&asked), "{asked}");

    // From many addresses together.
    for host in 1..=100 {
        let body = forged(20_000 + usize::from(host));
        let request = post("/hooks").body(Full::from(body)).unwrap();
        assert!(matches!(amazon.send_from(host, request).await, 401 | 503));
    }
    let more = amazon.vendor.reads().get() - asked;
    assert!((10..100).contains(&more), "{more}");
    amazon
        .unavailable(forged(30_000), "too many certificates were fetched")
        .await;
    assert_eq!(amazon.send(good.clone()).await.status, 202);
    assert_eq!(amazon.trigger.runs(), 12);

    // What there is for one caller takes nothing from another: the certificate of PayPal is fetched.
    let path = "/v1/notifications/certs/CERT-360caa42-fca2a594";
    amazon.vendor.put(path, amazon.leaf.chain_pem.clone());
    let genuine = amazon.paypal(&amazon.url(path), WEBHOOK, "123456789");
    assert_eq!(amazon.send_from(200, genuine).await, 202);
    // While nothing more is fetched for Amazon, also from an address that has asked for nothing yet.
    // One of a few: the limit may just have let one more through.
    let mut answers = Vec::new();
    for number in 30_001..30_004 {
        let more = post("/hooks").body(Full::from(forged(number))).unwrap();
        answers.push(amazon.send_from(201, more).await);
    }
    let refused = answers.iter().filter(|status| **status == 503).count();
    assert!(refused >= 2, "{answers:?}");
}

#[tokio::test]
async fn a_webhook_of_paypal_is_checked_with_the_certificate_that_it_names() {
    let amazon = Amazon::new("").await;
    let path = "/v1/notifications/certs/CERT-360caa42-fca2a594";
    amazon.vendor.put(path, amazon.leaf.chain_pem.clone());
    let body = "123456789";
    let send = async |url: &str, webhook: &str, body: &str| {
        let request = amazon.paypal(url, webhook, body);
        amazon.gateway.send(request).await
    };
    let url = amazon.url(path);
    let answer = send(&url, WEBHOOK, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(amazon.gateway.lines.of(&answer).await["caller"], "paypal");
    for (url, webhook, body) in [
        (&*url, WEBHOOK, "12345678"),
        (&*url, "another", body),
        (
            "https://api.paypal.com/v1/notifications/certs/CERT-1",
            WEBHOOK,
            body,
        ),
        (&*amazon.url("/v1/other/CERT-360caa42-fca2a594"), WEBHOOK, body),
        (&*amazon.url("/v1/notifications/certs/../../other"), WEBHOOK, body),
        (&*url.replace("https:", "http:"), WEBHOOK, body),
    ] {
        assert_eq!(
            send(url, webhook, body).await.code(),
            "signature-invalid",
            "{url}"
        );
    }
    assert_eq!(amazon.vendor.targets(), [path]);
    assert_eq!(amazon.trigger.runs(), 1);
}
