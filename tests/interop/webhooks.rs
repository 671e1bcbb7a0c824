//! The libraries of vendors accept what is signed with our recipes, and refuse it when a byte of it has changed: both sides
//! mean the same by a signature.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use flowgate::model::signature::{Preset, SigningSecret};
use flowgate::model::{KeyLabel, Secret, clock};
use flowgate::policy::signature::{Addition, Head, Scheme, Unsigned};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

const URL: &str = "https://hooks.example/in?a=%3Ab";

/// A request that is signed for a vendor.
struct Sample {
    preset: &'static str,
    secret: &'static str,
    url: String,
    body: String,
    content_type: &'static str,
}

fn sample(preset: &'static str, secret: &'static str, body: &str) -> Sample {
    Sample {
        preset,
        secret,
        url: URL.to_owned(),
        body: body.to_owned(),
        content_type: "application/json",
    }
}

impl Sample {
    fn signed(&self, now: SystemTime) -> HeaderMap {
        let preset = Preset::named(self.preset).unwrap();
        let secret = SigningSecret {
            label: KeyLabel::parse("current").unwrap(),
            secret: Secret::new(self.secret),
            not_before: None,
            expires: None,
        };
        let scheme = Scheme::build(&preset.recipe, &[secret]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(self.content_type));
        let unsigned = Unsigned {
            method: &Method::POST,
            url: &self.url,
            headers: &headers,
            body: self.body.as_bytes(),
            id: "msg_1",
            now,
        };
        for addition in scheme.sign(unsigned).unwrap() {
            let Addition::Header(name, value) = addition else {
                panic!("{} does not sign in the head", self.preset)
            };
            headers.insert(name, value);
        }
        let head = Head {
            method: &Method::POST,
            url: &self.url,
            headers: &headers,
        };
        scheme.verify(head, self.body.as_bytes(), now).unwrap();
        headers
    }

    fn request(&self, headers: &HeaderMap, body: &str) -> Value {
        let headers: serde_json::Map<_, _> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
            .collect();
        json!({
            "preset": self.preset,
            "secret": self.secret,
            "url": self.url,
            "decoded_url": self.url.replace("%3A", ":"),
            "headers": headers,
            "body": body,
        })
    }
}

/// Runs a script with each sample as it is and with a changed body.
fn ask(program: &str, script: &str, samples: &[Sample]) {
    // Ahead, because Paddle accepts five seconds in the past and its library is not the first that is loaded.
    let now = clock::wall() + Duration::from_secs(20);
    let requests: Vec<_> = samples
        .iter()
        .flat_map(|sample| {
            let headers = sample.signed(now);
            let changed = sample.body.replacen('1', "2", 1);
            assert_ne!(changed, sample.body);
            [
                sample.request(&headers, &sample.body),
                sample.request(&headers, &changed),
            ]
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests.json");
    std::fs::write(&file, Value::from(requests).to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/interop")
        .join(script);
    let output = Command::new(program).arg(script).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let failure = String::from_utf8_lossy(&output.stderr);
    let mut answers = text.lines();
    for sample in samples {
        let pair = [answers.next(), answers.next()];
        let expected = [Some("accepted"), Some("refused")];
        assert_eq!(pair, expected, "{} {}\n{failure}", sample.preset, sample.body);
    }
}

const SHARED: &str = "canary-signing-secret";
const STANDARD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const EVENT: &str = r#"{"id":"1","text":"é"}"#;

fn twilio(preset: &'static str) -> [Sample; 2] {
    let hash = digest(&SHA256, EVENT.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let json = Sample {
        url: format!("{URL}&bodySHA256={hash}"),
        ..sample(preset, SHARED, EVENT)
    };
    let form = Sample {
        content_type: "application/x-www-form-urlencoded",
        ..sample(preset, SHARED, "To=%2B1800&Body=a+b%26&Empty=&From=%C3%A9")
    };
    [json, form]
}

#[test]
#[ignore = "needs Python with libraries; .ci/run has them. By hand: pip install --target target/interop gidgethub standardwebhooks stripe svix slack-sdk squareup twilio && PYTHONPATH=target/interop cargo test --test interop -- --ignored python_libraries"]
fn python_libraries_of_vendors_agree_about_signatures() {
    let mut samples = vec![
        sample("github", SHARED, EVENT),
        sample("slack", SHARED, EVENT),
        sample("square", SHARED, EVENT),
        sample("standard-webhooks", STANDARD, EVENT),
        sample("stripe", SHARED, EVENT),
        sample("svix", STANDARD, EVENT),
    ];
    samples.extend(twilio("twilio"));
    samples.extend(twilio("twilio-sha256"));
    ask("python3", "webhooks.py", &samples);
}

#[test]
#[ignore = "needs Node.js with libraries; .ci/run has them. By hand: npm install --prefix target/webhooks with the packages that webhooks.cjs names && NODE_PATH=$PWD/target/webhooks/node_modules cargo test --test interop -- --ignored node_libraries"]
fn node_libraries_of_vendors_agree_about_signatures() {
    let millis = clock::wall()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let linear = format!(r#"{{"id": "1", "webhookTimestamp": {millis}}}"#);
    let mut samples = vec![
        sample("adyen-platform", "44782DEF547AAA06C910C43932B1EB0C", EVENT),
        sample("github", SHARED, EVENT),
        sample("hubspot", SHARED, EVENT),
        sample("line", SHARED, EVENT),
        sample("linear", SHARED, &linear),
        sample("paddle", SHARED, EVENT),
        sample("razorpay", SHARED, EVENT),
        sample("square", SHARED, EVENT),
        sample("standard-webhooks", STANDARD, EVENT),
        sample("stripe", SHARED, EVENT),
        sample("workos", SHARED, EVENT),
    ];
    samples.extend(twilio("twilio"));
    ask("node", "webhooks.cjs", &samples);
}
