//! `--privileges --live` finds out, without starting a run, whether a trigger that is called with a token can
//! still be started by a signature, and prints no signature.

use super::{
    Check, Live, Privileges, Questions, Report, Verdict, environment, examine, program, settings, whole,
};
use crate::emulator::Answer as Flow;
use crate::emulator::{Reply, Signatures, Trigger, TriggerHandle, faults};
use crate::harness::{OID, TENANT, World};
use flowgate::doctor::SignedUrl;
use serde_json::json;

const READER: &str = "dddddddd-bbbb-4ccc-8ddd-eeeeeeeeeeee";

fn trigger(world: &World, signatures: Signatures) -> TriggerHandle {
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    world.emulator.flow.add(trigger.signatures(signatures))
}

/// The address with its signature, as it was handed out originally.
fn signed(trigger: &TriggerHandle) -> String {
    let bare = trigger.url();
    let (place, _) = bare.split_once('?').unwrap();
    format!("{place}?{}", trigger.settings().signed_query())
}

fn privileges() -> Questions {
    Questions {
        live: Live::Probes,
        privileges: Privileges::Yes,
        ..Questions::default()
    }
}

/// With an old address in this file.
fn with_old(world: &World, address: &str) -> Questions {
    world.file("old", address);
    let reference = format!("file:{}", world.dir().join("old").display());
    let old = SignedUrl::read(&reference, &environment(world)).unwrap();
    Questions {
        signed: vec![old],
        ..privileges()
    }
}

/// The checks about signatures.
fn signature_checks(report: &Report) -> Vec<&Check> {
    let group = report
        .groups
        .iter()
        .find(|group| group.kind == "privileges")
        .unwrap();
    let checks = group.checks.iter().filter(|check| check.name == "signatures");
    checks.collect()
}

fn only(report: &Report) -> &Check {
    let checks = signature_checks(report);
    assert_eq!(checks.len(), 1, "{}", report.text());
    checks[0]
}

#[tokio::test]
async fn a_flow_in_a_tenant_mode_is_closed_to_signatures() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Ignored);
    let report = examine(&world, &settings(&world, &trigger, ""), &privileges()).await;
    let check = only(&report);
    assert_eq!(check.verdict, Verdict::Ok, "{}", report.text());
    assert!(
        check.says.contains("orders is closed to signatures"),
        "{}",
        check.says
    );
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn signatures_that_a_policy_disabled_are_reported_as_disabled() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Disabled);
    let report = examine(&world, &settings(&world, &trigger, ""), &privileges()).await;
    let check = only(&report);
    assert_eq!(check.verdict, Verdict::Ok, "{}", report.text());
    assert!(check.says.contains("a policy of the workflow"), "{}", check.says);
}

#[tokio::test]
async fn a_trigger_that_accepts_signatures_beside_tokens_causes_a_warning() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Accepted);
    let report = examine(&world, &settings(&world, &trigger, ""), &privileges()).await;
    let check = only(&report);
    assert_eq!(check.verdict, Verdict::Warn, "{}", report.text());
    let message = whole(check);
    for part in [
        "still accepts signatures",
        "is unknown here",
        "flow-owner",
        "sasAuthenticationPolicy",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn what_a_made_up_signature_does_not_show_is_reported_as_unknown() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Ignored);
    let text = settings(&world, &trigger, "");
    let refused = |status| {
        let body = json!({"error": {"code": "SomethingNew", "message": "It says something new."}});
        Flow::Platform(Reply::json(status, &body))
    };
    trigger.change(|trigger| *trigger = trigger.clone().unchecked());
    trigger.does(refused(418));
    let report = examine(&world, &text, &privileges()).await;
    let check = only(&report);
    assert_eq!(check.verdict, Verdict::Note, "{}", report.text());
    assert!(check.says.contains("--signed-url"), "{}", check.says);
}

#[tokio::test]
async fn an_old_address_that_still_works_is_a_failure_and_starts_no_run() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Accepted);
    let questions = with_old(&world, &signed(&trigger));
    let report = examine(&world, &settings(&world, &trigger, ""), &questions).await;
    let check = only(&report);
    assert_eq!(check.verdict, Verdict::Fail, "{}", report.text());
    assert!(report.has_failed());
    let message = whole(check);
    for part in [
        "still works",
        "route orders",
        "/old",
        "flow-owner",
        "Regenerate",
        "portal",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(trigger.runs(), 0);
    let shown = format!("{}{}{questions:?}", report.text(), report.json());
    assert!(!shown.contains(&trigger.settings().signature), "{shown}");
}

#[tokio::test]
async fn an_old_address_that_is_dead_is_reported_as_dead() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Ignored);
    let text = settings(&world, &trigger, "");
    let old = signed(&trigger);
    let wrong = old.replace(&trigger.settings().signature, &"B".repeat(43));
    for (signatures, address, code) in [
        (Signatures::Ignored, &old, "DirectApiAuthorizationRequired"),
        (Signatures::Disabled, &old, "DirectApiInvalidAuthorizationScheme"),
        (
            Signatures::Accepted,
            &wrong,
            "DirectApiInvalidAuthorizationSignature",
        ),
    ] {
        trigger.change(|trigger| trigger.signatures = signatures);
        let report = examine(&world, &text, &with_old(&world, address)).await;
        let first = signature_checks(&report)[0];
        assert_eq!(first.verdict, Verdict::Ok, "{}", report.text());
        assert!(
            first.says.contains("no longer works") && first.says.contains(code),
            "{}",
            first.says
        );
        assert!(!report.has_failed(), "{}", report.text());
    }
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_refusal_by_network_does_not_make_a_signature_dead() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Accepted);
    let text = settings(&world, &trigger, "");
    let questions = with_old(&world, &signed(&trigger));
    let (status, body) = faults::platform_fault("AuthorizationFailed").remove(0);
    trigger.change(|trigger| *trigger = trigger.clone().unchecked());
    // The two calls of the route itself come first.
    for code in ["DirectApiAuthorizationRequired", "TriggerRequestMethodNotValid"] {
        let (status, body) = faults::platform_fault(code).pop().unwrap();
        trigger.next(Flow::Platform(Reply::new(status).body(body)));
    }
    trigger.does(Flow::Platform(Reply::new(status).body(body)));
    let report = examine(&world, &text, &questions).await;
    let first = signature_checks(&report)[0];
    assert_eq!(first.verdict, Verdict::Note, "{}", report.text());
    assert!(first.says.contains("access rules"), "{}", first.says);
}

#[tokio::test]
async fn the_signature_of_another_route_is_tried_as_well() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Accepted);
    world.file("signed", &signed(&trigger));
    let text = format!(
        "{}{}",
        settings(&world, &trigger, ""),
        world.route("old", "/old", "file:signed", "signed = true")
    );
    let questions = Questions {
        route: Some("orders".to_owned()),
        ..privileges()
    };
    let report = examine(&world, &text, &questions).await;
    let check = only(&report);
    assert_eq!(check.verdict, Verdict::Fail, "{}", report.text());
    assert!(check.says.contains("in route old still works"), "{}", check.says);
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn an_address_of_another_trigger_is_not_called() {
    let world = World::new().await;
    let here = trigger(&world, Signatures::Ignored);
    let other = trigger(&world, Signatures::Accepted);
    let questions = with_old(&world, &signed(&other));
    let report = examine(&world, &settings(&world, &here, ""), &questions).await;
    let first = signature_checks(&report)[0];
    assert_eq!(first.verdict, Verdict::Warn, "{}", report.text());
    assert!(
        first.says.contains("is not the address of a trigger"),
        "{}",
        first.says
    );
    assert_eq!(other.request_count().get(), 0);
}

#[tokio::test]
async fn a_route_that_lets_every_method_through_is_not_tried() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Accepted);
    let all = "methods = [\"GET\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\"]";
    let questions = with_old(&world, &signed(&trigger));
    let report = examine(&world, &settings(&world, &trigger, all), &questions).await;
    for check in signature_checks(&report) {
        assert_eq!(check.verdict, Verdict::Note, "{}", report.text());
        assert!(check.says.contains("no signature was tried"), "{}", check.says);
    }
    let requests = trigger.requests();
    assert!(
        requests
            .iter()
            .all(|request| !request.head.target.contains("sig=")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn an_old_address_may_be_stored_in_a_key_vault() {
    let mut world = World::new().await;
    world
        .emulator
        .register_app(TENANT, READER, "canary-reader-secret", OID);
    world
        .secrets
        .push(("READER_SECRET".into(), "canary-reader-secret".into()));
    let trigger = trigger(&world, Signatures::Accepted);
    world.emulator.vault.tenant(TENANT);
    world.emulator.vault.allow(OID);
    world.emulator.vault.put("old", &signed(&trigger));
    let vault = format!(
        "{}scope = \"https://vault.azure.net/.default\"\n[keyvault]\nidentity = \"reader\"\nca_file = {:?}\n",
        world.identity("reader", TENANT, READER, "env:READER_SECRET"),
        world.emulator.ca_file()
    );
    let text = settings(&world, &trigger, "") + &vault;
    let old = SignedUrl::read(&world.emulator.vault.reference("old"), &environment(&world)).unwrap();
    let questions = Questions {
        signed: vec![old],
        ..privileges()
    };
    let report = examine(&world, &text, &questions).await;
    assert_eq!(only(&report).verdict, Verdict::Fail, "{}", report.text());
    let without = examine(&world, &settings(&world, &trigger, ""), &questions).await;
    assert!(
        signature_checks(&without)[0].says.contains("no [keyvault]"),
        "{}",
        without.text()
    );
}

#[tokio::test]
async fn the_program_announces_what_it_sends_and_accepts_no_address_itself() {
    let world = World::new().await;
    let trigger = trigger(&world, Signatures::Accepted);
    let text = settings(&world, &trigger, "");
    world.file("old", &signed(&trigger));
    let reference = format!("file:{}", world.dir().join("old").display());
    let all = [
        "doctor",
        "--privileges",
        "--live",
        "--signed-url",
        reference.as_str(),
    ];
    let output = program(&world, &text, &all).await;
    let shown = [output.stdout, output.stderr].concat();
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("with the signature in file:")
            && shown.contains("a made-up signature that is not valid"),
        "{shown}"
    );
    assert!(!shown.contains(&trigger.settings().signature), "{shown}");
    let given = signed(&trigger);
    for wrong in [
        &["doctor", "--privileges", "--live", "--signed-url", given.as_str()][..],
        &[
            "doctor",
            "--privileges",
            "--live",
            "--signed-url",
            "file:/nowhere/at-all",
        ],
        &["doctor", "--privileges", "--signed-url", reference.as_str()],
    ] {
        let output = program(&world, &text, wrong).await;
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(!shown.contains(&trigger.settings().signature), "{shown}");
    }
    assert_eq!(trigger.runs(), 0);
}
