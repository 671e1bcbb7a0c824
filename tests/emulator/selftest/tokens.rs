//! The promises of the token endpoint.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature;
use aws_lc_rs::signature::RsaKeyPair;
use serde_json::{Value, json};

use super::client::{
    AUDIENCE, CLIENT, OID, SCOPE, SECRET, TENANT, ask, claims, connect, encoded, post, secret_form, send,
    started, try_ask,
};
use crate::emulator::{Emulator, Issuer, KeyKind, Leaf, TokenAnswer, aadsts, ids};

#[tokio::test]
async fn a_good_request_gets_a_signed_token() {
    let emulator = started().await;
    let got = ask(&emulator, &secret_form(SECRET, SCOPE)).await;
    assert_eq!(got.status, 200, "{got:?}");
    let answer = got.json();
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 3599);
    assert_eq!(answer["ext_expires_in"], 3599);
    let claims = claims(answer["access_token"].as_str().unwrap());
    assert_eq!(claims["aud"], AUDIENCE);
    assert_eq!(claims["iss"], format!("https://sts.windows.net/{TENANT}/"));
    assert_eq!(claims["oid"], OID);
    assert_eq!(claims["appid"], CLIENT);
    assert_eq!(claims["idtyp"], "app");

    let request = &emulator.entra.requests()[0];
    assert_eq!(request.raw, secret_form(SECRET, SCOPE));
    assert_eq!(request.field("client_secret"), Some(SECRET));
    assert_eq!(request.sni.as_deref(), Some("localhost"));
    assert_eq!(emulator.entra.token_requests().get(), 1);
    assert_eq!(emulator.entra.token_requests_of(CLIENT), 1);
    emulator.assert_clean();
}

#[tokio::test]
async fn two_tokens_of_the_same_second_differ() {
    let emulator = started().await;
    ask(&emulator, &secret_form(SECRET, SCOPE)).await;
    ask(&emulator, &secret_form(SECRET, SCOPE)).await;
    let issued = emulator.entra.issued();
    assert_ne!(issued[0], issued[1]);
}

#[tokio::test]
async fn a_single_slash_in_the_scope_costs_the_slash_in_the_audience() {
    let emulator = started().await;
    let got = ask(
        &emulator,
        &secret_form(SECRET, "https://service.flow.microsoft.com/.default"),
    )
    .await;
    let claims = claims(got.json()["access_token"].as_str().unwrap());
    assert_eq!(claims["aud"], "https://service.flow.microsoft.com");
}

/// Requests a token and expects a refusal.
async fn refused(emulator: &Emulator, target: &str, form: &str, status: u16, number: u32, error: &str) {
    let got = try_ask(emulator, target, form).await.unwrap();
    assert_eq!(got.status, status, "{number}: {got:?}");
    let answer = got.json();
    assert_eq!(answer["error_codes"], json!([number]), "{form}");
    assert_eq!(answer["error"], error, "{form}");
    let description = answer["error_description"].as_str().unwrap();
    assert!(
        description.starts_with(&format!("AADSTS{number}: ")),
        "{description}"
    );
    assert!(emulator.entra.issued().is_empty());
}

#[tokio::test]
async fn an_unknown_client_tenant_or_secret_is_refused() {
    let emulator = started().await;
    let path = format!("/{TENANT}/oauth2/v2.0/token");
    let good = secret_form(SECRET, SCOPE);
    let wrong = secret_form("wrong", SCOPE);
    let nobody = good.replace(CLIENT, "nobody");
    let silent = good.replace("client_secret", "secret");
    refused(&emulator, &path, &wrong, 401, 7_000_215, "invalid_client").await;
    refused(&emulator, &path, &silent, 401, 7_000_218, "invalid_client").await;
    refused(&emulator, &path, &nobody, 400, 700_016, "unauthorized_client").await;
    refused(
        &emulator,
        "/other/oauth2/v2.0/token",
        &good,
        400,
        90002,
        "invalid_request",
    )
    .await;
    refused(
        &emulator,
        "/common/oauth2/v2.0/token",
        &good,
        400,
        9_001_023,
        "invalid_request",
    )
    .await;
}

#[tokio::test]
async fn a_bad_form_is_refused() {
    let emulator = started().await;
    let path = format!("/{TENANT}/oauth2/v2.0/token");
    let good = secret_form(SECRET, SCOPE);
    let magic = good.replace("client_credentials", "magic");
    let old = format!("{good}&resource=x");
    let doubled = format!("{good}&client_id={CLIENT}");
    refused(&emulator, &path, &magic, 400, 70003, "unsupported_grant_type").await;
    refused(&emulator, &path, &old, 400, 901_002, "invalid_request").await;
    refused(&emulator, &path, &doubled, 400, 90013, "invalid_request").await;
    refused(&emulator, &path, "", 400, 900_144, "invalid_request").await;
}

#[tokio::test]
async fn a_bad_scope_is_refused() {
    let emulator = started().await;
    let path = format!("/{TENANT}/oauth2/v2.0/token");
    let with = |scope: &str| secret_form(SECRET, scope);
    let twice_encoded = with(&encoded(SCOPE));
    let two = with("https://a.example/.default https://b.example/.default");
    let unknown = with("https://unknown.example/.default");
    refused(&emulator, &path, &twice_encoded, 400, 1_002_012, "invalid_scope").await;
    refused(&emulator, &path, &with(AUDIENCE), 400, 1_002_012, "invalid_scope").await;
    refused(&emulator, &path, &two, 400, 70011, "invalid_scope").await;
    refused(&emulator, &path, &unknown, 400, 500_011, "invalid_resource").await;
}

#[tokio::test]
async fn scripted_token_answers_come_in_their_order_and_then_the_normal_ones() {
    let emulator = started().await;
    let entra = &emulator.entra;
    let form = secret_form(SECRET, SCOPE);
    entra.next(TokenAnswer::throttle(60));
    entra.next(TokenAnswer::aadsts(7_000_222));
    entra.next(TokenAnswer::ServerError(503));
    entra.next(TokenAnswer::Html);
    entra.next(TokenAnswer::Empty);
    entra.next(TokenAnswer::NotJson);
    entra.next(TokenAnswer::Oversized(100_000));
    entra.next(TokenAnswer::Redirect("https://elsewhere.example/".to_owned()));
    entra.next(TokenAnswer::ExpiresIn(60));
    entra.next(TokenAnswer::MissingAccessToken);
    entra.next(TokenAnswer::NumbersAsStrings);
    entra.next(TokenAnswer::TokenWith(json!({"aud": "other", "oid": null})));

    let throttled = ask(&emulator, &form).await;
    assert_eq!(
        (throttled.status, throttled.header("retry-after")),
        (429, Some("60"))
    );
    assert_eq!(throttled.body, "Too Many Requests");
    assert_eq!(
        ask(&emulator, &form).await.json()["error_codes"],
        json!([7_000_222])
    );
    assert_eq!(ask(&emulator, &form).await.status, 503);
    assert!(ask(&emulator, &form).await.body.starts_with(b"<html>"));
    assert!(ask(&emulator, &form).await.body.is_empty());
    assert!(serde_json::from_slice::<Value>(&ask(&emulator, &form).await.body).is_err());
    assert!(ask(&emulator, &form).await.body.len() > 100_000);
    assert_eq!(
        ask(&emulator, &form).await.header("location"),
        Some("https://elsewhere.example/")
    );
    assert_eq!(ask(&emulator, &form).await.json()["expires_in"], 60);
    assert!(ask(&emulator, &form).await.json().get("access_token").is_none());
    assert_eq!(ask(&emulator, &form).await.json()["expires_in"], "3599");
    let changed = claims(
        ask(&emulator, &form).await.json()["access_token"]
            .as_str()
            .unwrap(),
    );
    assert_eq!(changed["aud"], "other");
    assert!(changed.get("oid").is_none());
    assert_eq!(ask(&emulator, &form).await.status, 200);
    emulator.assert_script_done();
}

#[tokio::test]
async fn a_cut_token_answer_is_an_error_for_the_caller() {
    let emulator = started().await;
    emulator.entra.next(TokenAnswer::Cut);
    let path = format!("/{TENANT}/oauth2/v2.0/token");
    let cut = try_ask(&emulator, &path, &secret_form(SECRET, SCOPE)).await;
    assert!(cut.is_err(), "{cut:?}");
}

#[tokio::test]
async fn a_hanging_token_request_ends_when_the_caller_leaves() {
    let emulator = started().await;
    emulator.entra.next(TokenAnswer::Hang);
    let asking = tokio::spawn({
        let mut sender = connect(&emulator, &emulator.entra.authority()).await;
        let request = post(
            &format!("/{TENANT}/oauth2/v2.0/token"),
            &[],
            &secret_form(SECRET, SCOPE),
        );
        async move { send(&mut sender, request).await }
    });
    emulator.entra.token_requests().reached(1).await;
    asking.abort();
    emulator.entra.hang_ups().reached(1).await;
}

#[tokio::test]
async fn a_script_for_one_client_leaves_the_others_alone() {
    let emulator = started().await;
    emulator.register_app(TENANT, "other", SECRET, "oid");
    emulator.entra.always_for(CLIENT, TokenAnswer::aadsts(90033));
    let form = secret_form(SECRET, SCOPE);
    assert_eq!(ask(&emulator, &form).await.status, 503);
    assert_eq!(ask(&emulator, &form).await.status, 503);
    assert_eq!(ask(&emulator, &form.replace(CLIENT, "other")).await.status, 200);
    emulator.entra.normal();
    assert_eq!(ask(&emulator, &form).await.status, 200);
    assert_eq!(
        (
            emulator.entra.token_requests_of(CLIENT),
            emulator.entra.token_requests_of("other")
        ),
        (3, 1)
    );
}

#[tokio::test]
async fn lifetimes_and_refresh_hints_are_settable() {
    let emulator = started().await;
    emulator.entra.lifetime(Duration::from_secs(120));
    emulator.entra.refresh_in(Some(Duration::from_secs(60)));
    let answer = ask(&emulator, &secret_form(SECRET, SCOPE)).await.json();
    assert_eq!(
        (&answer["expires_in"], &answer["refresh_in"]),
        (&json!(120), &json!(60))
    );
    let claims = claims(answer["access_token"].as_str().unwrap());
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        120
    );
}

/// An assertion signed with the key of `leaf`.
fn assertion(leaf: &Leaf, algorithm: &str, overrides: &Value) -> String {
    let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &leaf.chain[0]);
    let header = json!({"alg": algorithm, "typ": "JWT", "x5t#S256": ids::base64url(thumbprint.as_ref())});
    let now = ids::now();
    let mut claims = json!({
        "iss": CLIENT, "sub": CLIENT, "jti": ids::guid(), "nbf": now, "iat": now, "exp": now + 600,
    });
    for (name, value) in overrides.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let signed = format!(
        "{}.{}",
        ids::base64url(header.to_string().as_bytes()),
        ids::base64url(claims.to_string().as_bytes())
    );
    let key = RsaKeyPair::from_pkcs8(leaf.key.secret_der()).unwrap();
    let mut bytes = vec![0; key.public_modulus_len()];
    let padding: &dyn signature::RsaEncoding = if algorithm == "PS256" {
        &signature::RSA_PSS_SHA256
    } else {
        &signature::RSA_PKCS1_SHA256
    };
    key.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut bytes)
        .unwrap();
    format!("{signed}.{}", ids::base64url(&bytes))
}

fn assertion_form(assertion: &str) -> String {
    format!(
        "grant_type=client_credentials&client_id={CLIENT}&scope={}&client_assertion_type={}\
         &client_assertion={assertion}",
        encoded(SCOPE),
        encoded("urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
    )
}

#[tokio::test]
async fn an_assertion_must_be_signed_by_the_registered_certificate_and_name_the_parties() {
    let emulator = Emulator::start().await;
    let leaf = emulator.ca.leaf_with(&["client.example"], KeyKind::Rsa2048);
    let stranger = emulator.ca.leaf_with(&["client.example"], KeyKind::Rsa2048);
    emulator.entra.register_certificate(TENANT, CLIENT, &leaf, OID);
    let audience = json!({"aud": emulator.entra.token_url(TENANT)});
    let late = json!({"aud": emulator.entra.token_url(TENANT), "exp": ids::now() - 1});
    let cases = [
        (assertion(&leaf, "PS256", &audience), 200, None),
        (assertion(&leaf, "RS256", &audience), 200, None),
        (assertion(&stranger, "PS256", &audience), 401, Some(700_027)),
        (
            assertion(&leaf, "PS256", &json!({"aud": "https://elsewhere.example"})),
            401,
            Some(50012),
        ),
        (assertion(&leaf, "PS256", &late), 401, Some(500_133)),
    ];
    for (assertion, status, number) in cases {
        let got = ask(&emulator, &assertion_form(&assertion)).await;
        assert_eq!(got.status, status, "{number:?}: {got:?}");
        if let Some(number) = number {
            assert_eq!(got.json()["error_codes"], json!([number]));
        }
    }
}

#[tokio::test]
async fn an_assertion_is_good_for_one_request() {
    let emulator = Emulator::start().await;
    let leaf = emulator.ca.leaf_with(&["client.example"], KeyKind::Rsa2048);
    emulator.entra.register_certificate(TENANT, CLIENT, &leaf, OID);
    let audience = json!({"aud": emulator.entra.token_url(TENANT)});
    let form = assertion_form(&assertion(&leaf, "PS256", &audience));
    assert_eq!(ask(&emulator, &form).await.status, 200);
    let again = ask(&emulator, &form).await;
    assert_eq!(again.json()["error_codes"], json!([50012]), "{again:?}");
}

#[tokio::test]
async fn a_federated_assertion_must_match_the_registration_and_be_signed_by_its_issuer() {
    let emulator = Emulator::start().await;
    let issuer = Issuer::new("https://issuer.example/");
    emulator
        .entra
        .register_federated(TENANT, CLIENT, &issuer.name, "system:pod", OID);
    let good = issuer.token("system:pod", &Value::Null);
    let got = ask(&emulator, &assertion_form(&good)).await;
    assert_eq!(
        got.json()["error_codes"],
        json!([90061]),
        "nobody knows the issuer"
    );
    emulator.entra.trust_issuer(&issuer);
    let got = ask(&emulator, &assertion_form(&good)).await;
    assert_eq!(got.status, 200, "{got:?}");
    let leaf = emulator.ca.leaf_with(&["issuer.example"], KeyKind::Rsa2048);
    let claims =
        json!({"iss": "https://issuer.example/", "sub": "system:pod", "aud": "api://AzureADTokenExchange"});
    for (assertion, number) in [
        (
            issuer.token("system:pod", &json!({"iss": "https://issuer.example"})),
            70021,
        ),
        (issuer.token("system:other", &Value::Null), 700_213),
        (issuer.token("system:pod", &json!({"aud": "x"})), 7_002_131),
        (assertion(&leaf, "RS256", &claims), 700_027),
    ] {
        let got = ask(&emulator, &assertion_form(&assertion)).await;
        assert_eq!(got.json()["error_codes"], json!([number]));
    }
}

#[tokio::test]
async fn every_known_refusal_can_be_scripted() {
    let emulator = started().await;
    let mut sender = connect(&emulator, &emulator.entra.authority()).await;
    for number in aadsts::numbers() {
        emulator.entra.next(TokenAnswer::aadsts(number));
        let request = post(
            &format!("/{TENANT}/oauth2/v2.0/token"),
            &[],
            &secret_form(SECRET, SCOPE),
        );
        let answer = send(&mut sender, request).await.unwrap().json();
        assert_eq!(answer["error_codes"], json!([number]));
        assert!(
            !answer["error_description"].as_str().unwrap().contains('{'),
            "{answer}"
        );
    }
    emulator.assert_script_done();
}
