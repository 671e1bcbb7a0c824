//! The promises of the token endpoint about accounts.

use super::client::{CLIENT, OID, SCOPE, SECRET, TENANT, ask, claims, encoded, started};
use crate::emulator::{Emulator, Rotation};

const PUBLIC: &str = "dddddddd-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const USER: &str = "flows@contoso.example";

async fn with_account() -> Emulator {
    let emulator = started().await;
    emulator.entra.register_public(TENANT, PUBLIC, OID);
    emulator.entra.register_user(TENANT, USER, "right", "user-oid");
    emulator
}

async fn asked(emulator: &Emulator, form: &str) -> serde_json::Value {
    ask(emulator, form).await.json()
}

fn password(password: &str, more: &str) -> String {
    format!(
        "grant_type=password&client_id={PUBLIC}&username={}&password={password}&scope={}%20offline_access{more}",
        encoded(USER),
        encoded(SCOPE)
    )
}

fn refresh(token: &str) -> String {
    format!(
        "grant_type=refresh_token&client_id={PUBLIC}&refresh_token={token}&scope={}%20offline_access",
        encoded(SCOPE)
    )
}

#[tokio::test]
async fn a_password_gets_a_token_of_the_account() {
    let emulator = with_account().await;
    let answer = asked(&emulator, &password("right", "")).await;
    let claims = claims(answer["access_token"].as_str().unwrap());
    assert_eq!(
        (
            claims["oid"].as_str(),
            claims["idtyp"].as_str(),
            claims["upn"].as_str()
        ),
        (Some("user-oid"), Some("user"), Some(USER))
    );
    assert!(answer["refresh_token"].is_string() && answer["id_token"].is_null());
    emulator.assert_clean();
}

#[tokio::test]
async fn what_is_wrong_with_an_account_has_its_number() {
    let emulator = with_account().await;
    let unknown = password("right", "").replace("flows", "nobody");
    let confidential = password("right", "").replace(PUBLIC, CLIENT);
    for (form, number) in [
        (password("wrong", ""), 50126),
        (unknown, 50034),
        (password("right", "&client_secret=x"), 700_025),
        (confidential, 7_000_218),
        (refresh("never-given"), 70008),
    ] {
        let answer = asked(&emulator, &form).await;
        assert_eq!(answer["error_codes"][0], number, "{answer}");
    }
    let confidential =
        password("right", &format!("&client_secret={}", encoded(SECRET))).replace(PUBLIC, CLIENT);
    assert!(asked(&emulator, &confidential).await["access_token"].is_string());
}

#[tokio::test]
async fn a_refresh_token_rotates_and_can_be_revoked() {
    let emulator = with_account().await;
    let first = emulator.entra.refresh_token(TENANT, PUBLIC, USER);
    let second = asked(&emulator, &refresh(&first)).await["refresh_token"].clone();
    assert_ne!(second, first.as_str());
    assert!(asked(&emulator, &refresh(&first)).await["access_token"].is_string());
    emulator.entra.rotation(Rotation::Strict);
    asked(&emulator, &refresh(&first)).await;
    assert_eq!(asked(&emulator, &refresh(&first)).await["error_codes"][0], 70008);
    emulator.entra.revoke_refresh_tokens(50173);
    let answer = asked(&emulator, &refresh(second.as_str().unwrap())).await;
    assert_eq!(answer["error_codes"][0], 50173, "{answer}");
    emulator.assert_clean();
}
