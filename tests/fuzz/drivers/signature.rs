//! Signed requests, as vendors send them: the name of a preset, the query, fields, an empty line, the body.

use std::time::{Duration, UNIX_EPOCH};

use flowgate::model::signature::{KeyForm, Preset, SigningSecret};
use flowgate::model::{KeyLabel, Secret};
use flowgate::policy::signature::{Head, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{distinctive_words, is_one_line};

/// When every request arrives.
const NOW: u64 = 1_790_000_000;
/// The public key of SendGrid's examples.
const PUBLIC: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
const PUBLIC_ED25519: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

fn scheme(name: &str) -> Scheme {
    let preset = Preset::named(name).unwrap_or(&Preset::all()[0]);
    let secret = match preset.recipe.key_form {
        KeyForm::Text => "canary-9f2c1e7b5d",
        KeyForm::Hex => "9f2c1e7b5d9f2c1e7b5d",
        KeyForm::Base64 => "nywee12fLB57XQ==",
        KeyForm::Public if preset.name == "sendgrid" => PUBLIC,
        KeyForm::Public => PUBLIC_ED25519,
    };
    let secret = SigningSecret {
        label: KeyLabel::parse("current").unwrap(),
        secret: Secret::new(secret),
        not_before: None,
        expires: None,
    };
    Scheme::build(&preset.recipe, &[secret]).unwrap()
}

/// A request is answered whatever it is; without the secret none is accepted, and no refusal repeats what was sent.
pub(crate) fn signature(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let scheme = scheme(lines.next().unwrap_or_default());
    let url = format!("https://hooks.example/in?{}", lines.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    let head = Head {
        method: &Method::POST,
        url: &url,
        headers: &headers,
    };
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    if let Ok(claim) = scheme.claim(head, now) {
        let _ = claim.certificate_url(body.as_bytes());
    }
    let refusal = scheme
        .verify(head, body.as_bytes(), now)
        .expect_err("nobody has the secret");
    let refusal = refusal.to_string();
    assert!(is_one_line(&refusal), "{refusal:?}");
    let names = format!("{:?}", Preset::all());
    for word in distinctive_words(&text, &text) {
        let is_ours = names.contains(word) || word.contains("SHA-256");
        assert!(is_ours || !refusal.contains(word), "{word:?} is in {refusal:?}");
    }
}
