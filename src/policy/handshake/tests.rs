//! Promises about whatever a request says.

use http::Request;
use http::request::Parts;
use proptest::prelude::any;
use proptest::proptest;

use super::Handshakes;
use crate::model::handshake::Vendor;
use crate::model::{Secret, clock};
use crate::policy::caller::{CallerNumbers, Callers};
use crate::settings::{CallersSettings, HandshakeSettings};

fn all() -> Box<Handshakes> {
    let settings = HandshakeSettings {
        vendors: Vendor::ALL.to_vec(),
        verify_token: Some(Secret::new("canary-word")),
        ..HandshakeSettings::default()
    };
    let callers = Callers::build(&[], None, &CallerNumbers::default()).unwrap();
    Handshakes::build(&settings, &CallersSettings::Anonymous, &callers).unwrap()
}

fn head(request: http::request::Builder) -> Parts {
    request.body(()).unwrap().into_parts().0
}

#[test]
fn a_route_without_vendors_has_none() {
    let callers = Callers::build(&[], None, &CallerNumbers::default()).unwrap();
    let none = Handshakes::build(
        &HandshakeSettings::default(),
        &CallersSettings::Anonymous,
        &callers,
    );
    assert!(none.is_none());
}

#[test]
fn without_a_secret_in_force_nothing_is_computed() {
    let head = head(Request::get("/x?crc_token=YjQxZmNmZTQtZWE4Yi00M2Ew"));
    let handshakes = all();
    let refusal = handshakes
        .of_head(&head)
        .unwrap()
        .answer(clock::wall())
        .unwrap_err();
    assert!(
        refusal.cause().unwrap().contains("no caller of the route"),
        "{refusal:?}"
    );
}

proptest! {
    #[test]
    fn no_answer_has_a_character_of_markup(
        name in "validationToken|validationtoken|challenge|hub\\.challenge",
        value in "[a-zA-Z0-9_-]{0,60}[<>&%\"+: =.]{0,2}[a-z]{0,5}",
        get in any::<bool>(),
    ) {
        let value = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
        let uri = format!("/hooks?hub.mode=subscribe&hub.verify_token=canary-word&{name}={value}");
        let request = if get { Request::get(uri) } else { Request::post(uri) };
        let head = request.body(()).unwrap().into_parts().0;
        if let Some(Ok(answered)) = all().of_head(&head).map(|challenge| challenge.answer(clock::wall())) {
            let answer = answered.response;
            assert!(!answer.body().iter().any(|byte| b"<>&\"".contains(byte)), "{answer:?}");
        }
    }

    #[test]
    fn what_is_sent_back_of_a_body_is_its_token_alone(
        token in "[a-zA-Z0-9_-]{0,20}[<>&\"\\\\ ]{0,1}[0-9]{0,5}",
        more in any::<String>(),
        form in any::<bool>(),
    ) {
        let json = serde_json::json!({"challenge": token, "more": more}).to_string();
        let (kind, body) = match form {
            true => ("application/x-www-form-urlencoded", format!("webhook_id={token}")),
            false => ("application/json", json),
        };
        let head = head(Request::post("/hooks").header("content-type", kind));
        let all = all();
        let answer = all.of_body(&head, body.as_bytes()).map(|challenge| challenge.answer(clock::wall()));
        let fits = |byte: u8| if form { byte.is_ascii_digit() } else { byte.is_ascii_alphanumeric() || b"-_".contains(&byte) };
        let is_token = !token.is_empty() && token.bytes().all(fits);
        match answer {
            Some(Ok(answer)) => {
                assert!(is_token, "{answer:?}");
                let expected = if form { String::new() } else { format!("{{\"challenge\":\"{token}\"}}") };
                assert_eq!(answer.response.body(), &expected);
            }
            other => assert!(!is_token || body.len() > 4096 || token.len() > 20, "{other:?}"),
        }
    }

    #[test]
    fn no_body_ends_the_reader(body in any::<Vec<u8>>(), kind in "application/(json|x-www-form-urlencoded)") {
        let head = head(Request::post("/hooks").header("content-type", kind));
        assert!(all().of_body(&head, &body).is_none(), "{body:?}");
    }
}
