//! The doctor names the one thing that is wrong, who fixes it and how, and skips what depends on it. A probe
//! starts no run, and no secret is printed.

mod api;
mod identities;
mod resources;
mod running;
mod signatures;

use std::process::{Command, Output};

use flowgate::doctor::{Check, Live, Privileges, Questions, Report, Verdict};
use flowgate::entra::refusal::{ERRORS, NUMBERS};
use flowgate::flow::fault::{CODES, DESPITE_TOKEN, Row, STATUSES};
use flowgate::model::FixedBy;
use flowgate::settings::Environment;
use flowgate::{doctor, settings};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::emulator::Answer as Flow;
use crate::emulator::{Condition, Door, Issuer, Reply, TokenAnswer, TokenForm, Trigger, TriggerHandle};
use crate::harness::{CLIENT, OID, SECRET, TENANT, World, post};

/// What an answer with status 429 means.
const THROTTLED: &str = "Entra was asked for too many tokens. The gateway waits and asks again.";
const STRANGER: &str = "77777777-2222-4333-8444-555555555555";

fn accepting(world: &World) -> TriggerHandle {
    world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted))
}

fn environment(world: &World) -> Environment {
    let pairs = world.secrets.iter();
    Environment::from_pairs(pairs.map(|(name, value)| (name.as_str(), value.as_str())))
}

async fn examine(world: &World, settings: &str, questions: &Questions) -> Report {
    let path = world.dir().join("doctor.toml");
    std::fs::write(&path, patient(settings)).unwrap();
    let environment = environment(world);
    let (config, _) = settings::load(&path, &environment).unwrap_or_else(|report| panic!("{report}"));
    doctor::examine(&config, &environment, questions).await.unwrap()
}

/// The settings with deadlines that a busy machine can meet, unless a test sets its own.
fn patient(settings: &str) -> String {
    let text = settings.replace("timeout = \"3s\"", "timeout = \"20s\"");
    match text.contains("connect_timeout") {
        true => text,
        false => text.replace("[[route]]\n", "[[route]]\nconnect_timeout = \"20s\"\n"),
    }
}

/// Settings with one route to this trigger.
fn settings(world: &World, trigger: &TriggerHandle, more: &str) -> String {
    format!(
        "{}{}",
        world.base(),
        world.route("orders", "/orders", &trigger.url(), more)
    )
}

fn live() -> Questions {
    Questions {
        live: Live::Probes,
        ..Questions::default()
    }
}

/// The only failed check, which must have this group and name; everything after it must be skipped.
fn the_one<'a>(report: &'a Report, title: &str, name: &str) -> &'a Check {
    let failed: Vec<_> = report.failures().collect();
    assert_eq!(failed.len(), 1, "{}", report.text());
    assert_eq!(
        (failed[0].0.as_str(), failed[0].1.name),
        (title, name),
        "{}",
        report.text()
    );
    assert!(
        report.summary().contains(&format!("{title}: {name};")),
        "{}",
        report.summary()
    );
    let group = report.groups.iter().find(|group| group.title() == title).unwrap();
    let behind = group
        .checks
        .iter()
        .skip_while(|check| check.verdict != Verdict::Fail)
        .skip(1);
    for check in behind {
        assert!(
            check.verdict == Verdict::Skipped && check.says.contains(name),
            "{}",
            report.text()
        );
    }
    let check = failed[0].1;
    let remedy = check.remedy.as_ref().expect("a failure says what to do");
    assert!(remedy.what.ends_with('.'), "{remedy:?}");
    check
}

/// A check's finding with its remedy.
fn whole(check: &Check) -> String {
    format!("{} {:?}", check.says, check.remedy)
}

fn find<'a>(report: &'a Report, title: &str, name: &str) -> &'a Check {
    let group = report.groups.iter().find(|group| group.title() == title).unwrap();
    let found = group.checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {}", report.text()))
}

#[tokio::test]
async fn a_healthy_installation_is_called_healthy() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, &format!("object_ids = [\"{OID}\"]"));
    let report = examine(&world, &text, &live()).await;
    assert!(!report.has_failed(), "{}", report.text());
    for (title, name) in [
        ("gateway", "listener"),
        ("gateway", "proxy"),
        ("identity contoso", "dns"),
        ("identity contoso", "tls"),
        ("identity contoso", "clock"),
        ("identity contoso", "token"),
        ("route orders", "tcp"),
        ("route orders", "tls"),
        ("route orders", "claims"),
        ("route orders", "no key"),
        ("route orders", "credential"),
    ] {
        let verdict = find(&report, title, name).verdict;
        assert_eq!(verdict, Verdict::Ok, "{title} {name}: {}", report.text());
    }
    let claims = &find(&report, "route orders", "claims").claims;
    assert_eq!(claims.len(), 6);
    assert!(report.text().contains("days left"), "{}", report.text());
    assert_eq!(trigger.runs(), 0, "a probe starts no run");
}

#[tokio::test]
async fn the_same_fault_of_two_routes_is_reported_once() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.emulator.flow.listener().set_door(Door::Refuse).await;
    let routes = [
        world.route("orders", "/orders", &trigger.url(), ""),
        world.route("stock", "/stock", &trigger.url(), ""),
    ];
    let report = examine(&world, &format!("{}{}", world.base(), routes.concat()), &live()).await;
    the_one(&report, "route orders", "tcp");
    let second = find(&report, "route stock", "tcp");
    assert_eq!(second.verdict, Verdict::Skipped);
    assert!(second.says.contains("see route orders"), "{}", second.says);
}

#[tokio::test]
async fn every_refusal_of_entra_is_named_with_cause_and_remedy() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, "");
    for row in NUMBERS {
        world.emulator.entra.always(TokenAnswer::aadsts(row.number));
        let report = examine(&world, &text, &Questions::default()).await;
        let check = the_one(&report, "identity contoso", "token");
        let number = format!("AADSTS{}", row.number);
        // Whatever number an answer with Retry-After has, the cause is the pause.
        let cause = match row.number {
            90055 => THROTTLED,
            _ => row.failure.what,
        };
        assert!(
            check.says.contains(&number) && check.remedy.as_ref().unwrap().what == cause,
            "{}",
            whole(check)
        );
        let remedy = check.remedy.as_ref().unwrap();
        assert_eq!(remedy.fixed_by, row.failure.fixed_by, "{number}");
        assert!(
            !format!("{remedy:?}").contains("{client_id}"),
            "{number}: {remedy:?}"
        );
        assert_eq!(find(&report, "route orders", "claims").verdict, Verdict::Skipped);
    }
}

#[tokio::test]
async fn every_error_without_a_known_number_is_named_with_cause_and_remedy() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, "");
    for row in ERRORS {
        let body = json!({"error": row.failure.code}).to_string();
        let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length";
        let reply = format!("{head}: {}\r\n\r\n{body}", body.len());
        world.emulator.entra.always(TokenAnswer::Raw(reply.into()));
        let report = examine(&world, &text, &Questions::default()).await;
        let check = the_one(&report, "identity contoso", "token");
        let remedy = check.remedy.as_ref().unwrap();
        assert_eq!(remedy.fixed_by, row.failure.fixed_by, "{}", row.failure.code);
        assert!(
            check.says.contains(row.failure.code) && remedy.what == row.failure.what,
            "{}",
            whole(check)
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_not_entras_is_named() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, "");
    for (answer, part, who) in [
        (TokenAnswer::Html, "web page", "operator"),
        (TokenAnswer::Empty, "empty body", "operator"),
        (TokenAnswer::NotJson, "other than JSON", "operator"),
        (TokenAnswer::Oversized(300_000), "larger than", "operator"),
        (TokenAnswer::Cut, "the token endpoint", "host-admin"),
    ] {
        world.emulator.entra.always(answer);
        let report = examine(&world, &text, &Questions::default()).await;
        let check = the_one(&report, "identity contoso", "token");
        assert!(check.says.contains(part), "{part}: {}", check.says);
        assert_eq!(check.remedy.as_ref().unwrap().fixed_by.as_str(), who, "{part}");
    }
}

/// Every refusal of Entra and the trigger that is publicly documented has a row, so that the tests above
/// cover it.
#[test]
fn no_refusal_that_is_known_in_public_is_missing_from_the_tables() {
    let numbers = [
        7_000_215, 7_000_222, 70002, 700_016, 7_000_229, 7_000_112, 700_027, 50012, 700_030, 500_133,
        700_024, 70021, 700_211, 700_213, 7_002_131, 90061, 500_011, 50001, 70011, 28002, 1_002_012, 700_022,
        700_023, 901_002, 90002, 900_023, 900_382, 900_432, 90038, 65001, 650_052, 650_056, 650_057, 650_053,
        50105, 53003, 530_032, 530_035, 50076, 50074, 50079, 50126, 50034, 50057, 50055, 50053, 50173,
        700_082, 70008, 70043, 700_025, 7_000_218, 50196, 90033, 90006, 90024, 90012, 50033, 50087, 90090,
        90055, 100_007,
    ];
    for number in numbers {
        assert!(NUMBERS.iter().any(|row| row.number == number), "AADSTS{number}");
    }
    let codes = [
        "DirectApiAuthorizationRequired",
        "MisMatchingOAuthClaims",
        "DirectApiRequestHasMoreThanOneAuthorization",
        "OAuthAccessPolicyNotFound",
        "DirectApiInvalidAuthorizationScheme",
        "DirectApiInvalidAuthorizationSignature",
        "AuthorizationFailed",
        "InvalidUseOfOAuthToken",
        "InternalServerError",
        "MissingApiVersionParameter",
        "TriggerRequestMethodNotValid",
        "TriggerInputSchemaMismatch",
        "WorkflowTriggerIsNotEnabled",
        "WorkflowNotFound",
        "WorkflowTriggerNotFound",
        "WorkflowDisabled",
        "InvalidRequestContent",
        "InvalidFlowExtensionRequestRoute",
        "ClientScopeAuthorizationFailed",
        "http-401-challenge",
        "http-403-challenge",
        "http-413",
    ];
    for code in codes {
        assert!(
            CODES.iter().chain(STATUSES).any(|row| row.failure.code == code),
            "{code}"
        );
    }
}

/// An answer of the platform that matches this row.
fn answer_of(row: &Row) -> Flow {
    let Some(status) = row.failure.code.strip_prefix("http-") else {
        let body =
            json!({"error": {"code": row.failure.code, "message": format!("It says {}.", row.wording)}});
        return Flow::Platform(Reply::json(400, &body));
    };
    let (status, challenge) = match status.strip_suffix("-challenge") {
        Some(status) => (status, true),
        None => (status, false),
    };
    let reply = Reply::new(status.parse().unwrap_or(520));
    Flow::Platform(match challenge {
        true => reply.header("WWW-Authenticate", "Bearer realm=\"app\""),
        false => reply,
    })
}

#[tokio::test]
async fn every_fault_of_the_platform_is_named_with_cause_and_remedy() {
    let world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT).unchecked());
    let text = settings(&world, &trigger, "");
    for row in CODES.iter().chain(STATUSES) {
        trigger.does(answer_of(row));
        // For a probe a refused method is the expected result; only a real call reports it as a fault.
        let questions = Questions {
            live: match row.failure.code {
                "TriggerRequestMethodNotValid" => Live::Run,
                _ => Live::Probes,
            },
            ..Questions::default()
        };
        let report = examine(&world, &text, &questions).await;
        let failed: Vec<_> = report.failures().collect();
        assert_eq!(failed.len(), 1, "{}: {}", row.failure.code, report.text());
        let (title, check) = &failed[0];
        the_one(&report, title, check.name);
        let remedy = check.remedy.as_ref().unwrap();
        // The route sends a token, so a trigger that found none has another cause.
        let row = match row.wording {
            "oauth authorization scheme" => &DESPITE_TOKEN[0],
            _ => row,
        };
        assert_eq!(
            (remedy.fixed_by, remedy.what.as_ref()),
            (row.failure.fixed_by, row.failure.what),
            "{}",
            row.failure.code
        );
        if !row.failure.code.starts_with("http-") {
            assert!(check.says.contains(row.failure.code), "{}", check.says);
        }
    }
}

#[tokio::test]
async fn a_wrong_secret_is_the_one_thing() {
    let mut world = World::new().await;
    world.secrets = vec![("CONTOSO_SECRET".into(), "canary-wrong".into())];
    let trigger = accepting(&world);
    let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
    let message = whole(the_one(&report, "identity contoso", "token"));
    for part in [
        "AADSTS7000215",
        "operator",
        "az ad app credential reset",
        CLIENT,
        "Certificates & secrets",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(
        find(&report, "route orders", "credential").verdict,
        Verdict::Skipped
    );
    assert_eq!(trigger.requests().len(), 0, "nothing was sent");
}

#[tokio::test]
async fn a_wrong_tenant_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, "").replace(TENANT, STRANGER);
    let report = examine(&world, &text, &live()).await;
    let message = whole(the_one(&report, "identity contoso", "token"));
    assert!(
        message.contains("AADSTS90002") && message.contains("az account show"),
        "{message}"
    );
}

#[tokio::test]
async fn an_unknown_application_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, "").replace(CLIENT, STRANGER);
    let report = examine(&world, &text, &live()).await;
    let message = whole(the_one(&report, "identity contoso", "token"));
    assert!(
        message.contains("AADSTS700016") && message.contains(STRANGER),
        "{message}"
    );
}

#[tokio::test]
async fn an_audience_that_lost_its_slash_is_the_one_thing() {
    let world = World::new().await;
    let bare = "https://service.flow.microsoft.com";
    world.emulator.entra.claims(json!({"aud": bare}));
    let trigger = accepting(&world);
    let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
    let check = the_one(&report, "route orders", "claims");
    let message = whole(check);
    for part in [
        "second slash",
        "https://service.flow.microsoft.com//.default",
        "operator",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let text = report.text();
    assert!(text.contains("| aud ") && text.contains("DOES NOT FIT"), "{text}");
    let json = report.json();
    let routes = json["groups"].as_array().unwrap().iter();
    let route = routes.clone().find(|group| group["kind"] == "route").unwrap();
    let checks = route["checks"].as_array().unwrap().iter();
    let claims = checks.clone().find(|check| check["check"] == "claims").unwrap();
    assert_eq!(claims["claims"][0]["got"], bare);
    assert_eq!(trigger.requests().len(), 0, "nothing was sent");
}

#[tokio::test]
async fn a_token_of_another_tenant_or_cloud_is_the_one_thing() {
    for (claim, value, part) in [
        ("tid", STRANGER, "another tenant"),
        ("aud", "https://gov.service.flow.microsoft.us/", "the cloud gcc"),
        ("iss", "https://idp.example/", "no issuer of Entra"),
    ] {
        let world = World::new().await;
        let mut claims = json!({});
        claims[claim] = value.into();
        if claim == "tid" {
            claims["iss"] = format!("https://sts.windows.net/{STRANGER}/").into();
        }
        world.emulator.entra.claims(claims);
        let trigger = accepting(&world);
        let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
        let message = whole(the_one(&report, "route orders", "claims"));
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn an_object_id_that_is_not_on_the_list_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, &format!("object_ids = [\"{CLIENT}\"]"));
    let report = examine(&world, &text, &live()).await;
    let message = whole(the_one(&report, "route orders", "claims"));
    for part in [
        OID,
        "flow-owner",
        "the list has the client id",
        "make.powerautomate.com",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn a_flow_that_does_not_list_the_object_id_is_found_by_a_probe() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::specific_users(TENANT, &[STRANGER]).does(Flow::Accepted));
    let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
    let message = whole(the_one(&report, "route orders", "credential"));
    for part in ["MisMatchingOAuthClaims", OID, "az ad sp show --id"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn an_expired_certificate_of_a_listener_is_the_one_thing() {
    let world = World::new().await;
    let leaf = world.emulator.ca.expired_leaf(&["localhost"]);
    leaf.write(world.emulator.dir(), "gateway").unwrap();
    let trigger = accepting(&world);
    let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
    let failed: Vec<_> = report.failures().collect();
    assert_eq!(failed.len(), 1, "{}", report.text());
    assert_eq!((failed[0].0.as_str(), failed[0].1.name), ("gateway", "listener"));
    assert!(failed[0].1.says.contains("has expired"), "{}", failed[0].1.says);
    assert_eq!(failed[0].1.remedy.as_ref().unwrap().fixed_by, FixedBy::Operator);
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let port = world.emulator.entra.listener().address().port();
    let text = settings(&world, &trigger, "").replace(
        &world.emulator.entra.authority(),
        &format!("https://login.flowgate.invalid:{port}"),
    );
    let report = examine(&world, &text, &live()).await;
    let message = whole(the_one(&report, "identity contoso", "dns"));
    assert!(
        message.contains("login.flowgate.invalid") && message.contains("host-admin"),
        "{message}"
    );
}

#[tokio::test]
async fn a_refused_connection_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.emulator.entra.listener().set_door(Door::Refuse).await;
    let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
    let message = whole(the_one(&report, "identity contoso", "tcp"));
    assert!(
        message.contains("host-admin") && message.contains("nc -vz localhost"),
        "{message}"
    );
}

#[tokio::test]
async fn a_certificate_of_another_name_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world
        .emulator
        .entra
        .listener()
        .present(&world.emulator.ca.wrong_name_leaf());
    let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
    let message = whole(the_one(&report, "identity contoso", "tls"));
    assert!(
        message.contains("another name than localhost") && message.contains("openssl s_client"),
        "{message}"
    );
    assert_eq!(world.emulator.entra.token_requests().get(), 0);
}

#[tokio::test]
async fn an_expired_certificate_of_the_trigger_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let expired = world.emulator.ca.expired_leaf(&["localhost"]);
    world.emulator.flow.listener().present(&expired);
    let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
    let message = whole(the_one(&report, "route orders", "tls"));
    assert!(message.contains("has expired"), "{message}");
}

#[tokio::test]
async fn a_peer_that_never_answers_the_handshake_has_a_deadline() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.emulator.flow.listener().set_door(Door::Silent).await;
    let text = settings(&world, &trigger, "connect_timeout = \"1s\"");
    let report = examine(&world, &text, &live()).await;
    let message = whole(the_one(&report, "route orders", "tls"));
    assert!(message.contains("within 1s"), "{message}");
}

#[tokio::test]
async fn a_clock_that_is_off_by_an_hour_is_the_one_thing() {
    for (seconds, word) in [(3600, "behind"), (-3600, "ahead of")] {
        let world = World::new().await;
        let trigger = accepting(&world);
        world.emulator.entra.clock_ahead(seconds);
        let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
        let message = whole(the_one(&report, "identity contoso", "clock"));
        assert!(message.contains(word) && message.contains("NTP"), "{message}");
        assert_eq!(
            world.emulator.entra.token_requests().get(),
            0,
            "no token was asked for"
        );
    }
}

#[tokio::test]
async fn a_flow_that_is_switched_off_is_found_by_a_probe() {
    let world = World::new().await;
    let trigger = accepting(&world);
    trigger.set_condition(Condition::Disabled);
    trigger.change(|trigger| trigger.methods = vec!["GET".to_owned()]);
    let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
    let message = whole(the_one(&report, "route orders", "credential"));
    assert!(
        message.contains("WorkflowTriggerIsNotEnabled") && message.contains("flow-owner"),
        "{message}"
    );
}

#[tokio::test]
async fn a_flow_for_anyone_behind_an_identity_is_found_by_its_mode() {
    let world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
    let bare = trigger.url().split("&sp=").next().unwrap().to_owned();
    let text = format!("{}{}", world.base(), world.route("orders", "/orders", &bare, ""));
    let report = examine(&world, &text, &live()).await;
    let message = whole(the_one(&report, "route orders", "no key"));
    assert!(
        message.contains("DirectApiAuthorizationRequired") && message.contains("signed URL"),
        "{message}"
    );
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_probe_of_a_trigger_for_get_uses_another_method() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).methods(&["GET"]).does(Flow::Accepted));
    let report = examine(
        &world,
        &settings(&world, &trigger, "methods = [\"GET\"]"),
        &live(),
    )
    .await;
    assert!(!report.has_failed(), "{}", report.text());
    assert_eq!(trigger.runs(), 0);
    let requests = trigger.requests();
    assert!(requests.iter().all(|request| request.head.method != "GET"));
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn an_address_of_a_known_family_is_first_called_as_callers_would() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let host = "0123456789abcdef0123456789abcd.ef.environment.api.powerplatform.com";
    let flow = world.emulator.flow.listener();
    flow.present(&world.emulator.ca.leaf(&[host]));
    let route = world.route(
        "orders",
        "/orders",
        &trigger.url_on(host),
        &format!("connect_to = \"{}\"", flow.address()),
    );
    let report = examine(&world, &format!("{}{route}", world.base()), &live()).await;
    assert!(!report.has_failed(), "{}", report.text());
    let address = find(&report, "route orders", "trigger");
    assert_eq!(address.verdict, Verdict::Ok, "{}", address.says);
    assert!(
        address.says.contains("Power Automate, cloud public"),
        "{}",
        address.says
    );
    let requests = trigger.requests();
    let sent: Vec<_> = requests
        .iter()
        .map(|request| {
            (
                request.head.method.as_str(),
                request.header("authorization").is_some(),
            )
        })
        .collect();
    assert_eq!(sent, [("POST", false), ("GET", true)]);
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_signed_route_is_probed_with_its_signature_and_without() {
    let world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
    world.file("signed", &trigger.url());
    let text = format!(
        "{}{}",
        world.base(),
        world.route("orders", "/orders", "file:signed", "signed = true")
    );
    let report = examine(&world, &text, &live()).await;
    assert!(!report.has_failed(), "{}", report.text());
    let requests = trigger.requests();
    assert_eq!(requests.len(), 2);
    assert!(!requests[0].head.target.contains("sig=") && requests[1].head.target.contains("sig="));
    assert_eq!(trigger.runs(), 0);
    let shown = format!("{}{}", report.text(), report.json());
    assert!(!shown.contains(&trigger.settings().signature), "{shown}");
}

#[tokio::test]
async fn only_the_exact_words_start_a_run() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let questions = Questions {
        live: Live::Run,
        ..Questions::default()
    };
    let report = examine(&world, &settings(&world, &trigger, ""), &questions).await;
    assert!(!report.has_failed(), "{}", report.text());
    assert!(find(&report, "route orders", "run").says.contains("run 08584"));
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn an_opaque_token_is_no_failure() {
    let world = World::new().await;
    world.emulator.entra.token_form(TokenForm::Opaque);
    let trigger = accepting(&world);
    let report = examine(&world, &settings(&world, &trigger, ""), &live()).await;
    assert!(!report.has_failed(), "{}", report.text());
    assert_eq!(find(&report, "route orders", "claims").verdict, Verdict::Note);
}

#[tokio::test]
async fn a_token_file_that_is_missing_is_the_one_thing() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let identity = world.identity("contoso", TENANT, CLIENT, "env:CONTOSO_SECRET");
    let file = format!("[[identity]]\nname = \"contoso\"\ntenant = \"{TENANT}\"\ntoken_file = \"nowhere\"\n");
    let text = settings(&world, &trigger, "").replace(&identity, &file);
    let report = examine(&world, &text, &live()).await;
    let message = whole(the_one(&report, "identity contoso", "token"));
    assert!(
        message.contains("token file") && message.contains("operator"),
        "{message}"
    );
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_reported_as_ignored() {
    let mut world = World::new().await;
    world
        .secrets
        .push(("HTTPS_PROXY".into(), "http://user:canary@proxy:3128".into()));
    let trigger = accepting(&world);
    let report = examine(&world, &settings(&world, &trigger, ""), &Questions::default()).await;
    let check = find(&report, "gateway", "proxy");
    assert_eq!(check.verdict, Verdict::Warn);
    assert!(
        check.says.contains("HTTPS_PROXY") && check.says.contains("ignores"),
        "{}",
        check.says
    );
    assert!(!report.text().contains("canary"), "{}", report.text());
}

#[tokio::test]
async fn a_secret_that_expires_soon_is_a_warning() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * 20 + 1);
    let secret = format!(
        "[[identity.secret]]\nvalue = \"env:CONTOSO_SECRET\"\nexpires = {}\n",
        ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    );
    let identity = world.identity("contoso", TENANT, CLIENT, "env:CONTOSO_SECRET");
    let other = identity.replace("client_secret = \"env:CONTOSO_SECRET\"\n", "") + &secret;
    let text = settings(&world, &trigger, "").replace(&identity, &other);
    let report = examine(&world, &text, &Questions::default()).await;
    assert!(!report.has_failed(), "{}", report.text());
    let check = find(&report, "identity contoso", "secret");
    assert_eq!(check.verdict, Verdict::Warn);
    assert!(check.says.contains("20 days left"), "{}", check.says);
}

#[tokio::test]
async fn the_privileges_report_names_what_is_more_permissive_than_needed() {
    let world = World::new().await;
    world
        .emulator
        .entra
        .claims(json!({"roles": ["Directory.Read.All"], "scp": "User"}));
    let trigger = accepting(&world);
    let signed = format!(
        "{}&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=canary-signature",
        trigger.url()
    );
    world.file("signed", &signed);
    let more = "[[caller]]\nname = \"nobody\"\n[[caller.key]]\nlabel = \"old\"\nenabled = false\ndigest = \
                \"sha256:1111111111111111111111111111111111111111111111111111111111111111\"\n[[caller.key]]\nlabel = \
                \"older\"\nexpires = 2020-01-01\ndigest = \
                \"sha256:2222222222222222222222222222222222222222222222222222222222222222\"\n";
    let text = [
        settings(&world, &trigger, ""),
        world.route("open", "/open", &trigger.url(), "anonymous = true"),
        world.route("signed", "/signed", "file:signed", "signed = true"),
        more.to_owned(),
    ]
    .concat();
    let questions = Questions {
        privileges: Privileges::Yes,
        ..Questions::default()
    };
    let report = examine(&world, &text, &questions).await;
    assert!(!report.has_failed(), "{}", report.text());
    let text = report.text();
    for part in [
        "Directory.Read.All, User",
        "route orders uses a token, and route signed the signature",
        "identity contoso serves 1 route open to everybody",
        "no route admits the caller nobody",
        "key old of nobody is disabled",
        "key older of nobody has expired",
        "no gateway reports at http://127.0.0.1:0/keys/unused which keys nobody uses",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn the_privileges_report_names_each_route_without_a_key() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let signature = "sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=canary-signature";
    world.file("signed", &format!("{}&{signature}", trigger.url()));
    let near =
        "anonymous = true\nnetworks = [\"10.0.0.0/8\", \"127.0.0.0/8\"]\ndeny_networks = [\"10.1.0.0/16\"]";
    let text = [
        settings(&world, &trigger, ""),
        world.route("open", "/open", &trigger.url(), "anonymous = true"),
        world.route("near", "/near", &trigger.url(), near),
        world.route(
            "signed",
            "/signed",
            "file:signed",
            "anonymous = true\nsigned = true",
        ),
    ]
    .concat();
    let questions = Questions {
        privileges: Privileges::Yes,
        ..Questions::default()
    };
    let report = examine(&world, &text, &questions).await;
    let group = report
        .groups
        .iter()
        .find(|group| group.kind == "privileges")
        .unwrap();
    let open: Vec<_> = group
        .checks
        .iter()
        .filter(|check| check.name == "anonymous")
        .collect();
    let says: Vec<&str> = open.iter().map(|check| check.says.as_str()).collect();
    let know = "anyone who knows its address starts the flow with";
    assert_eq!(
        says,
        [
            format!(
                "route open is open without a key, and no networks restrict it: {know} the token of identity contoso"
            ),
            format!(
                "route near is open without a key, from 2 networks except 1 network: {know} the token of identity contoso"
            ),
            format!(
                "route signed is open without a key, and no networks restrict it: {know} the signature of its trigger"
            ),
        ]
    );
    for check in open {
        assert_eq!(check.verdict, Verdict::Warn);
        assert_eq!(check.remedy.as_ref().unwrap().fixed_by, FixedBy::Operator);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_privileges_report_asks_the_gateway_which_keys_nobody_uses() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let more = "[[caller]]\nname = \"idle\"\n[[caller.key]]\nlabel = \"spare\"\ndigest = \
                \"sha256:1111111111111111111111111111111111111111111111111111111111111111\"\n[[caller.key]]\nlabel = \
                \"off\"\nenabled = false\ndigest = \
                \"sha256:2222222222222222222222222222222222222222222222222222222222222222\"\n";
    let text = settings(&world, &trigger, "") + more;
    let gateway = world.start(&text);
    gateway.ready().await;
    // A wrong key belongs to nobody and does not count as used.
    let wrong = post("/orders")
        .header("x-api-key", "wrong")
        .body(Full::default())
        .unwrap();
    assert_eq!(gateway.send(wrong).await.status, 401);
    let (status, unused) = gateway.admin("/keys/unused").await;
    let unused: Value = serde_json::from_str(&unused).unwrap();
    assert_eq!(
        (status, &unused["keys"], &unused["unused"]),
        (200, &json!(2), &json!(2))
    );
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let (_, unused) = gateway.admin("/keys/unused").await;
    let unused: Value = serde_json::from_str(&unused).unwrap();
    assert_eq!(unused["named"], json!([{"caller": "idle", "key": "spare"}]));

    let address = gateway.admin.unwrap();
    let text = text.replacen("127.0.0.1:0", &address.to_string(), 1);
    let questions = Questions {
        privileges: Privileges::Yes,
        ..Questions::default()
    };
    let report = examine(&world, &text, &questions).await;
    let says = "1 of 2 keys were not used since the gateway started, less than a day ago: spare of idle;";
    assert!(report.text().contains(says), "{}", report.text());
}

#[tokio::test]
async fn nothing_secret_is_shown_when_all_goes_wrong() {
    let mut world = World::new().await;
    world
        .secrets
        .push(("WRONG_SECRET".into(), "canary-wrong-secret".into()));
    let trigger = world
        .emulator
        .flow
        .add(Trigger::specific_users(TENANT, &[STRANGER]).does(Flow::Accepted));
    let signed = format!(
        "{}&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=canary-signature",
        trigger.url()
    );
    world.file("signed", &signed);
    let text = [
        settings(&world, &trigger, ""),
        world.identity("refused", TENANT, CLIENT, "env:WRONG_SECRET"),
        world.route("signed", "/signed", "file:signed", "signed = true"),
        world.route("refused", "/refused", &trigger.url(), "identity = \"refused\""),
    ]
    .concat();
    let questions = Questions {
        live: Live::Run,
        privileges: Privileges::Yes,
        ..Questions::default()
    };
    let report = examine(&world, &text, &questions).await;
    let shown = format!("{}{}{report:?}", report.text(), report.json());
    assert!(
        shown.contains("AADSTS7000215") && shown.contains("MisMatchingOAuthClaims"),
        "{shown}"
    );
    let mut secrets = vec![SECRET.to_owned(), "canary".to_owned()];
    let issued = world.emulator.entra.issued();
    assert!(!issued.is_empty());
    secrets.extend(issued);
    for secret in secrets {
        assert!(!shown.contains(&secret), "{secret} is in {shown}");
    }
}

#[tokio::test]
async fn one_route_or_identity_can_be_asked_for() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = [
        settings(&world, &trigger, ""),
        world.identity("other", TENANT, STRANGER, "env:CONTOSO_SECRET"),
        world.route("other", "/other", &trigger.url(), "identity = \"other\""),
    ]
    .concat();
    let only = Questions {
        route: Some("orders".to_owned()),
        ..Questions::default()
    };
    let report = examine(&world, &text, &only).await;
    let titles: Vec<_> = report.groups.iter().map(doctor::Group::title).collect();
    assert_eq!(titles, ["gateway", "identity contoso", "route orders"]);
    let only = Questions {
        identity: Some("other".to_owned()),
        ..Questions::default()
    };
    let report = examine(&world, &text, &only).await;
    the_one(&report, "identity other", "token");
    assert_eq!(report.groups.len(), 3);
}

/// Runs the program while the emulator serves on this runtime.
async fn program(world: &World, settings: &str, arguments: &[&str]) -> Output {
    let path = world.dir().join("program.toml");
    std::fs::write(&path, patient(settings)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate"));
    command.args(arguments).arg("--config").arg(&path);
    for (name, value) in &world.secrets {
        command.env(name, value);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn the_exit_code_reports_the_result() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, "");
    let healthy = program(&world, &text, &["doctor", "--live"]).await;
    let stderr = String::from_utf8_lossy(&healthy.stderr).into_owned();
    assert_eq!(
        healthy.status.code(),
        Some(0),
        "{}{stderr}",
        String::from_utf8_lossy(&healthy.stdout)
    );
    assert!(
        stderr.contains("This will be sent:") && stderr.contains("starts no run"),
        "{stderr}"
    );
    world.emulator.entra.always(TokenAnswer::aadsts(7_000_222));
    let broken = program(&world, &text, &["doctor", "--json"]).await;
    assert_eq!(broken.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&broken.stdout).unwrap();
    assert_eq!((&json["healthy"], &json["version"]), (&json!(false), &json!(2)));
    for wrong in [
        &["doctor", "--route", "nowhere"][..],
        &["doctor", "--live", "--run", "yes"],
        &["doctor", "--run", "yes, start a run"],
    ] {
        let output = program(&world, &text, wrong).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn setup_prints_the_commands_of_an_identity() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let text = settings(&world, &trigger, "");
    for (style, parts) in [
        ("az", ["az ad app create", "az ad sp show --id"]),
        ("powershell", ["New-MgApplication", "Add-MgApplicationPassword"]),
        ("bicep", ["Microsoft.Graph/servicePrincipals", "output objectId"]),
    ] {
        let output = program(
            &world,
            &text,
            &["setup", "--identity", "contoso", "--style", style],
        )
        .await;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{shown}");
        for part in parts.into_iter().chain([CLIENT, TENANT, "no consent"]) {
            assert!(shown.contains(part), "{style} {part}: {shown}");
        }
        assert!(!shown.contains(SECRET), "{shown}");
    }
    let wrong = program(&world, &text, &["setup", "--identity", "nobody"]).await;
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test]
async fn setup_prints_the_steps_of_each_kind_of_identity() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let leaf = world.emulator.ca.client_leaf_between("flowgate.example", -1, 20);
    world.file("pem", &format!("{}{}", leaf.chain_pem, leaf.key_pem));
    let issuer = Issuer::new("https://oidc.example/0a1b/");
    world.file(
        "projected",
        &issuer.token("system:serviceaccount:a:b", &json!({})),
    );
    let application = format!("tenant = \"{TENANT}\"\nclient_id = \"{CLIENT}\"\n");
    let path = world.dir().join("program.toml");
    let login = format!("flowgate login --config {} --identity flows", path.display());
    let kinds: [(&str, String, [&[&str]; 3]); 5] = [
        (
            "pem",
            format!("{application}[[identity.certificate]]\nfile = \"file:pem\""),
            [
                &["--append --cert @flowgate.crt", "no consent"],
                &["AsymmetricX509Cert"],
                &["--append --cert @flowgate.crt"],
            ],
        ),
        (
            "pod",
            format!("{application}[identity.federated]\ntoken_file = \"projected\""),
            [
                &[
                    "az ad app federated-credential create",
                    "\"issuer\": \"https://oidc.example/0a1b/\", \"subject\": \"system:serviceaccount:a:b\"",
                    "api://AzureADTokenExchange",
                ],
                &["-Issuer 'https://oidc.example/0a1b/' -Subject 'system:serviceaccount:a:b'"],
                &[
                    "federatedIdentityCredentials",
                    "issuer: 'https://oidc.example/0a1b/'",
                ],
            ],
        ),
        (
            "machine",
            "[identity.managed]\nsource = \"imds\"".to_owned(),
            [
                &["az vm identity assign", "--query principalId", "No role"],
                &["Update-AzVM"],
                &["SystemAssigned", "output objectId"],
            ],
        ),
        (
            "flows",
            format!("{application}[identity.sign_in]\nstore = \"kept\""),
            [
                &[
                    "--is-fallback-public-client true --public-client-redirect-uris http://localhost",
                    "[?value=='User']",
                    "admin-consent",
                    login.as_str(),
                    "az ad user show --id USER --query id",
                ],
                &["-IsFallbackPublicClient", "New-MgOauth2PermissionGrant"],
                &["redirectUris: ['http://localhost']", "scope: 'User'"],
            ],
        ),
        (
            "reader",
            format!(
                "{application}client_secret = \"keyvault:https://contoso.vault.azure.net/secrets/other\"\n\
                 [keyvault]\nidentity = \"contoso\""
            ),
            [
                &["az ad app create"],
                &["New-MgApplication"],
                &["applications@v1.0"],
            ],
        ),
    ];
    for (name, lines, wanted) in kinds {
        let text = format!(
            "{}[[identity]]\nname = \"{name}\"\n{lines}\n",
            settings(&world, &trigger, "")
        );
        // The group of the identity that reads the vaults lists the secrets.
        let asked = if name == "reader" { "contoso" } else { name };
        for (style, parts) in ["az", "powershell", "bicep"].into_iter().zip(wanted) {
            let output = program(&world, &text, &["setup", "--identity", asked, "--style", style]).await;
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(0), "{name} {style}: {stderr}");
            let role = match (name, style) {
                ("reader", "bicep") => "4633458b-17de-408a-b874-0445c86b69e6",
                ("reader", _) => "/secrets/other",
                _ => "",
            };
            for part in parts.iter().copied().chain([role]) {
                assert!(shown.contains(part), "{name} {style} {part}: {shown}");
            }
            assert!(!shown.contains("PRIVATE KEY"), "{shown}");
        }
    }
}

#[tokio::test]
async fn setup_uses_what_its_own_steps_made() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let application = format!("tenant = \"{TENANT}\"\nclient_id = \"{CLIENT}\"\n");
    let account = format!("{application}[identity.sign_in]\nstore = \"kept\"");
    let of_app = |object_id: &'static str, powershell: &'static str, bicep: &'static str| {
        [
            vec![
                "# APP=",
                "az ad sp create --id \"$APP\"",
                object_id,
                "echo \"$APP\"",
            ],
            vec![
                "# $app = Get-MgApplication",
                "# $sp = Get-MgServicePrincipal",
                powershell,
            ],
            vec![bicep, "output clientId string = app.appId"],
        ]
    };
    let own = of_app(
        "OBJECT_ID=$(az ad sp show --id \"$APP\" --query id",
        "($objectId = $sp.Id)",
        "output objectId string = principal.id",
    );
    let user = of_app(
        "OBJECT_ID=$(az ad user show --id USER --query id",
        "DelegatedPermissionGrant.ReadWrite.All,User.ReadWrite.All",
        "// az ad user show --id USER",
    );
    let assigned = [
        vec![
            "# ID=$(az identity show",
            "az identity show --ids \"$ID\" --query clientId",
        ],
        vec![
            "Connect-AzAccount",
            "$identity.Id = @{}",
            "($objectId = $identity.PrincipalId)",
        ],
        vec!["output selector string = identity.properties.clientId"],
    ];
    let file = [
        vec!["az ad sp show --id CLIENT_ID"],
        vec!["appId eq 'CLIENT_ID'"],
        vec!["// az ad sp show --id CLIENT_ID"],
    ];
    let named = format!("[identity.managed]\nsource = \"app-service\"\nclient_id = \"{CLIENT}\"");
    for (lines, wanted) in [
        (format!("{application}client_secret = \"env:ABSENT\""), &own),
        ("[identity.federated]".to_owned(), &own),
        (account, &user),
        (named, &assigned),
        ("token_file = \"token\"".to_owned(), &file),
    ] {
        let text = format!(
            "{}[[identity]]\nname = \"second\"\n{lines}\n",
            settings(&world, &trigger, "")
        );
        for (style, parts) in ["az", "powershell", "bicep"].into_iter().zip(wanted) {
            let output = program(
                &world,
                &text,
                &["setup", "--identity", "second", "--style", style],
            )
            .await;
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(0), "{lines} {style}: {stderr}");
            for part in parts {
                assert!(shown.contains(part), "{lines} {style} {part}: {shown}");
            }
            assert!(!shown.contains("unresolved"), "{shown}");
            for (made, used) in [
                ("\nAPP=", "$APP"),
                ("\nID=", "$ID"),
                ("\n$app =", "$app."),
                ("\n$sp =", "$sp."),
            ] {
                let Some(at) = shown.find(used) else { continue };
                assert!(
                    shown.find(made).is_some_and(|first| first < at),
                    "{style} {used}: {shown}"
                );
            }
            let has_az = shown
                .lines()
                .any(|line| line.contains("az ad ") || line.contains("az webapp "));
            assert!(style != "powershell" || !has_az, "{shown}");
        }
    }
}
