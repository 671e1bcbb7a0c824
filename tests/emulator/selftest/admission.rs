//! Whom a trigger admits, and the order of its checks.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use super::client::{
    OID, SCOPE, SECRET, TENANT, ask, call, call_with_token, method, post, secret_form, started, token,
};
use crate::emulator::{Condition, Family, TokenForm, Trigger, ids};

#[tokio::test]
async fn a_signature_in_the_address_starts_a_run_and_nothing_else_does() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    let target = trigger.target();
    let signature = &trigger.settings().signature;
    assert_eq!(signature.len(), 43);
    let unsigned = target.split_once("&sp=").unwrap().0.to_owned();
    let bearer = ("Authorization", "Bearer x");
    let refused = [
        (
            post(&unsigned, &[], ""),
            "DirectApiAuthorizationRequired",
            "Shared Access",
        ),
        (post(&unsigned, &[bearer], ""), "OAuthAccessPolicyNotFound", ""),
        (
            post(&target, &[bearer], ""),
            "DirectApiRequestHasMoreThanOneAuthorization",
            "'Bearer'",
        ),
        (
            post(&target, &[("Authorization", "HMAC abc")], ""),
            "DirectApiRequestHasMoreThanOneAuthorization",
            "'HMAC'",
        ),
        (
            post(&unsigned, &[("Authorization", "Basic abc")], ""),
            "DirectApiRequestHasMoreThanOneAuthorization",
            "'Basic'",
        ),
        (
            post(&target.replace(signature, "wrong"), &[], ""),
            "DirectApiInvalidAuthorizationSignature",
            "",
        ),
        (
            post(&target.replace("%2F", "%252F"), &[], ""),
            "DirectApiInvalidAuthorizationSignature",
            "",
        ),
    ];
    for (request, code, wording) in refused {
        let got = call(&emulator, request).await;
        assert_eq!((got.status, got.code().as_str()), (401, code));
        assert!(got.message().contains(wording), "{got:?}");
        assert_eq!(got.header("x-ms-workflow-run-id"), None);
        assert!(got.header("x-ms-workflow-id").is_some());
    }
    assert_eq!(trigger.runs(), 0);

    let got = call(
        &emulator,
        post(&target, &[("x-ms-client-tracking-id", "mine")], "{}"),
    )
    .await;
    assert_eq!((got.status, got.body.len()), (202, 0));
    let run = got.header("x-ms-workflow-run-id").unwrap();
    assert_eq!(run.len(), 33);
    assert!(run.ends_with("CU00"));
    assert_eq!(got.header("x-ms-client-tracking-id"), Some("mine"));
    assert!(got.header("strict-transport-security").is_some());
    assert!(got.header("set-cookie").unwrap().starts_with("ARRAffinity"));
    assert_eq!(trigger.runs(), 1);
    assert_eq!(trigger.last_request().run.as_deref(), Some(run));
    assert_eq!(trigger.request_count().get(), 8);
    emulator.assert_clean();
}

#[tokio::test]
async fn a_tenant_mode_trigger_wants_exactly_the_right_token() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::any_user(TENANT));
    let target = trigger.target();
    let good = token(&emulator, &json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let tampered = format!("{signed}.{}", ids::base64url(&[7; 256]));
    let expired = token(&emulator, &json!({"exp": ids::now() - 1}));
    let early = token(&emulator, &json!({"nbf": ids::now() + 100}));
    for bad in ["garbage", "", "a.b.c", &tampered, &expired, &early] {
        let got = call_with_token(&emulator, &trigger, bad).await;
        assert_eq!(
            (got.status, got.code().as_str()),
            (401, "DirectApiInvalidAuthorizationScheme"),
            "{bad}"
        );
        assert!(
            got.message()
                .starts_with("The provided authorization token is not valid.")
        );
    }
    for claims in [
        json!({"aud": "https://service.flow.microsoft.com"}),
        json!({"tid": "other"}),
        json!({"iss": "https://sts.windows.net/other/"}),
    ] {
        let got = call_with_token(&emulator, &trigger, &token(&emulator, &claims)).await;
        assert_eq!(
            (got.status, got.code().as_str()),
            (403, "MisMatchingOAuthClaims"),
            "{claims}"
        );
    }
    let got = call(&emulator, post(&target, &[], "{}")).await;
    assert_eq!(
        (got.status, got.code().as_str()),
        (401, "DirectApiAuthorizationRequired")
    );
    assert!(
        got.message()
            .starts_with("The OAuth authorization scheme is required.")
    );
    let got = call(&emulator, post(&format!("{target}&sp=a&sv=1.0&sig=b"), &[], "{}")).await;
    assert_eq!(
        (got.status, got.code().as_str()),
        (401, "DirectApiAuthorizationRequired")
    );
    assert_eq!(trigger.runs(), 0);

    assert_eq!(call_with_token(&emulator, &trigger, &good).await.status, 202);
    assert_eq!(trigger.last_request().bearer(), Some(good.as_str()));
    emulator.flow.revoke(&good);
    let got = call_with_token(&emulator, &trigger, &good).await;
    assert_eq!(
        (got.status, got.code().as_str()),
        (401, "DirectApiInvalidAuthorizationScheme")
    );
    assert_eq!(
        call_with_token(&emulator, &trigger, &token(&emulator, &json!({})))
            .await
            .status,
        202
    );
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn an_opaque_token_is_as_good_as_a_signed_one() {
    let emulator = started().await;
    emulator.entra.token_form(TokenForm::Opaque);
    let trigger = emulator.flow.add(Trigger::any_user(TENANT));
    let got = ask(&emulator, &secret_form(SECRET, SCOPE)).await.json();
    let token = got["access_token"].as_str().unwrap();
    assert!(!token.contains('.'));
    assert_eq!(call_with_token(&emulator, &trigger, token).await.status, 202);
}

#[tokio::test]
async fn specific_users_are_identified_by_their_object_id() {
    let emulator = started().await;
    let token = token(&emulator, &json!({}));
    let listed = emulator
        .flow
        .add(Trigger::specific_users(TENANT, &["someone", OID]));
    let unlisted = emulator
        .flow
        .add(Trigger::specific_users(TENANT, &["someone"]).mismatch_status(401));
    let empty = emulator.flow.add(Trigger::specific_users(TENANT, &[]));
    assert_eq!(call_with_token(&emulator, &listed, &token).await.status, 202);
    assert_eq!(call_with_token(&emulator, &empty, &token).await.status, 202);
    let got = call_with_token(&emulator, &unlisted, &token).await;
    assert_eq!((got.status, got.code().as_str()), (401, "MisMatchingOAuthClaims"));
}

#[tokio::test]
async fn address_method_condition_and_schema_are_checked_in_the_platforms_order() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone().requires(&["item"]));
    let target = trigger.target();
    let case = async |request: Request<Full<Bytes>>, status: u16, code: &str| {
        let got = call(&emulator, request).await;
        assert_eq!((got.status, got.code().as_str()), (status, code));
        got.message()
    };
    let workflow = trigger.workflow();
    case(
        post(&target.replace(&workflow, "0"), &[], ""),
        404,
        "WorkflowNotFound",
    )
    .await;
    case(post("/nowhere", &[], ""), 404, "WorkflowNotFound").await;
    case(
        post(&target.replace("manual/paths", "other/paths"), &[], ""),
        404,
        "WorkflowTriggerNotFound",
    )
    .await;
    case(
        post(&target.replace("direct/", "direct/cu/07/"), &[], ""),
        404,
        "WorkflowNotFound",
    )
    .await;
    case(
        post(trigger.settings().path().as_str(), &[], ""),
        400,
        "MissingApiVersionParameter",
    )
    .await;
    let message = case(
        method("GET", &target, &[], ""),
        400,
        "TriggerRequestMethodNotValid",
    )
    .await;
    assert!(message.contains("expected 'POST' and actual 'GET'"), "{message}");
    let message = case(post(&target, &[], "{}"), 400, "TriggerInputSchemaMismatch").await;
    assert!(
        message.contains("Required properties are missing from object: item."),
        "{message}"
    );
    trigger.set_condition(Condition::Disabled);
    let message = case(
        post(&target, &[], "{\"item\":1}"),
        400,
        "WorkflowTriggerIsNotEnabled",
    )
    .await;
    assert!(message.contains("state 'Disabled'"), "{message}");
    trigger.set_condition(Condition::Deleted);
    let message = case(
        post(&target, &[], "{\"item\":1}"),
        400,
        "WorkflowTriggerIsNotEnabled",
    )
    .await;
    assert!(message.contains("state 'Deleted'"), "{message}");
    trigger.set_condition(Condition::Enabled);
    assert_eq!(trigger.runs(), 0);
    assert_eq!(
        call(&emulator, post(&target, &[], "{\"item\":1}")).await.status,
        202
    );
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn all_address_families_lead_to_their_trigger() {
    let emulator = started().await;
    let families = [
        (Family::LogicApps, "/workflows/"),
        (
            Family::PowerPlatform { scale_unit: None },
            "/powerautomate/automations/direct/workflows/",
        ),
        (
            Family::PowerPlatform {
                scale_unit: Some("07".to_owned()),
            },
            "/powerautomate/automations/direct/cu/07/workflows/",
        ),
        (Family::Standard, "/api/"),
    ];
    for (family, start) in families {
        let trigger = emulator.flow.add(Trigger::anyone().family(family).named("hook"));
        let target = trigger.target();
        assert!(target.starts_with(start), "{target}");
        assert!(trigger.url().starts_with("https://localhost:"));
        assert_eq!(call(&emulator, post(&target, &[], "")).await.status, 202);
        let relative = target.replace("/invoke?", "/invoke/address/12345?");
        assert_eq!(call(&emulator, post(&relative, &[], "")).await.status, 202);
        assert_eq!(trigger.last_request().head.target, relative);
    }
}
