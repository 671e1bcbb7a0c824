//! The promises of the key vault.

use serde_json::json;

use super::client::{CLIENT, Got, OID, TENANT, connect, method, send, started, token};
use crate::emulator::Emulator;

const QUERY: &str = "?api-version=2025-07-01";

async fn get(emulator: &Emulator, path: &str, token: Option<&str>) -> Got {
    let mut sender = connect(emulator, &emulator.vault.url()).await;
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer
        .iter()
        .map(|value| ("Authorization", value.as_str()))
        .collect();
    send(
        &mut sender,
        method("GET", &format!("{path}{QUERY}"), &headers, ""),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn without_a_token_for_vaults_there_is_a_challenge() {
    let emulator = started().await;
    emulator.vault.tenant(TENANT);
    emulator.vault.allow(OID);
    emulator.vault.put("flow", "canary");
    let slash = emulator
        .entra
        .token_for(TENANT, CLIENT, "https://vault.azure.net/", &json!({}));
    let expired = emulator.entra.token_for(
        TENANT,
        CLIENT,
        "https://vault.azure.net",
        &json!({"exp": 1_000_000}),
    );
    let flow = token(&emulator, &json!({}));
    for token in [None, Some("opaque"), Some(&flow), Some(&slash), Some(&expired)] {
        let got = get(&emulator, "/secrets/flow", token).await;
        assert_eq!(got.status, 401, "{got:?}");
        assert_eq!(
            got.header("www-authenticate").unwrap(),
            format!(
                "Bearer authorization=\"https://login.microsoftonline.com/{TENANT}\", \
                 resource=\"https://vault.azure.net\""
            )
        );
    }
}

#[tokio::test]
async fn a_reader_gets_the_newest_version_or_the_one_it_names() {
    let emulator = started().await;
    let token = emulator
        .entra
        .token_for(TENANT, CLIENT, "https://vault.azure.net", &json!({}));
    let old = emulator.vault.put("flow", "one");
    emulator.vault.put_until("flow", "two", Some(2_000_000_000));
    let refused = get(&emulator, "/secrets/flow", Some(&token)).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "Forbidden"));
    emulator.vault.allow(OID);
    let newest = get(&emulator, "/secrets/flow", Some(&token)).await.json();
    assert_eq!(newest["value"], "two");
    assert_eq!(newest["attributes"]["exp"], 2_000_000_000);
    let first = get(&emulator, &format!("/secrets/flow/{old}"), Some(&token))
        .await
        .json();
    assert_eq!(first["value"], "one");
    for path in ["/secrets/other", "/secrets/flow/0123", "/keys/flow"] {
        let missing = get(&emulator, path, Some(&token)).await;
        assert_eq!(
            (missing.status, missing.code().as_str()),
            (404, "SecretNotFound"),
            "{path}"
        );
    }
    emulator.vault.disable("flow");
    let off = get(&emulator, "/secrets/flow", Some(&token)).await;
    assert_eq!(off.json()["error"]["innererror"]["code"], "SecretDisabled");
    assert_eq!(emulator.vault.reads().get(), 7);
    emulator.assert_clean();
}
