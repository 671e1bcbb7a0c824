//! Promises about whatever a request says.

use http::Request;
use http::request::Parts;
use proptest::prelude::any;
use proptest::proptest;

use super::Handshakes;
use crate::model::clock;
use crate::model::handshake::Vendor;
use crate::policy::caller::{CallerNumbers, Callers};
use crate::settings::{CallersSettings, HandshakeSettings};

fn all() -> Box<Handshakes> {
    let settings = HandshakeSettings {
        vendors: Vendor::ALL.to_vec(),
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
        name in "validationToken|validationtoken|crc_token|challenge|hub\\.challenge",
        value in "[a-zA-Z0-9+%<>:&=._-]{0,60}",
        get in any::<bool>(),
    ) {
        let uri = format!("/hooks?{name}={value}");
        let request = if get { Request::get(uri) } else { Request::post(uri) };
        let Ok(request) = request.body(()) else { return Ok(()) };
        let head = request.into_parts().0;
        if let Some(Ok(answer)) = all().of_head(&head).map(|challenge| challenge.answer(clock::wall())) {
            assert!(!answer.body().iter().any(|byte| b"<>&".contains(byte)), "{answer:?}");
        }
    }

    #[test]
    fn any_body_is_a_challenge_or_none(body in any::<Vec<u8>>(), kind in "application/(json|x-www-form-urlencoded)") {
        let head = head(Request::post("/hooks").header("content-type", kind));
        if let Some(challenge) = all().of_body(&head, &body) {
            let _ = challenge.answer(clock::wall());
        }
    }
}
