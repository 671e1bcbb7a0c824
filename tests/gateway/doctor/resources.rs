//! An identity whose tokens are for an API: whatever is missing, granted or revoked is reported for that API,
//! and not for the flow service. Also a trigger that found no token although one was sent.

use std::io::Write;
use std::process::Stdio;

use super::{Privileges, Questions, Verdict, examine, find, live, program, settings, the_one, whole};
use crate::emulator::Answer as Flow;
use crate::emulator::{Reply, TokenAnswer, Trigger};
use crate::harness::{CLIENT, TENANT, World};
use serde_json::json;

const PLATFORM: &str = "https://api.powerplatform.com";
const PLATFORM_ID: &str = "8578e004-a5c6-46e7-913e-12f58912df43";
const GRAPH: &str = "https://graph.microsoft.com";
const GRAPH_ID: &str = "00000003-0000-0000-c000-000000000000";
const FLOW_ID: &str = "7df0a125-d3be-4c96-aa54-591f83ff541c";

/// Settings with an identity `api` of this kind, and a route that uses it.
fn with_api(world: &World, audience: &str, kind: &str) -> String {
    let way = match kind.contains("managed") {
        true => String::new(),
        false => format!(
            "tenant = \"{TENANT}\"\nclient_id = \"{CLIENT}\"\nauthority = \"{}\"\nca_file = {:?}\n",
            world.emulator.entra.authority(),
            world.emulator.ca_file()
        ),
    };
    format!(
        "{}[[identity]]\nname = \"api\"\nscope = \"{audience}/.default\"\n{way}{kind}\n[[route]]\nname = \"api\"\nkind = \
         \"api\"\npath = \"/api/{{*rest}}\"\nmethods = [\"GET\"]\ncallers = [\"shop\"]\nidentity = \"api\"\nupstream = \
         \"https://localhost:9/v1.0\"\npaths = [\"/things\"]\n",
        world.base()
    )
}

const SECRET: &str = "client_secret = \"env:CONTOSO_SECRET\"";

#[tokio::test]
async fn a_missing_resource_is_the_one_of_the_identitys_own_scope() {
    let world = World::new().await;
    for (audience, name, id) in [
        (PLATFORM, "Power Platform API", PLATFORM_ID),
        (GRAPH, "Microsoft Graph", GRAPH_ID),
        (
            "https://erp.contoso.example",
            "https://erp.contoso.example",
            "API_APPLICATION_ID",
        ),
    ] {
        for number in [500_011, 650_052, 50_001] {
            world.emulator.entra.always(TokenAnswer::aadsts(number));
            let only = Questions {
                identity: Some("api".to_owned()),
                ..Questions::default()
            };
            let report = examine(&world, &with_api(&world, audience, SECRET), &only).await;
            let message = whole(find(&report, "identity api", "token"));
            for part in [name, &format!("az ad sp create --id {id}")] {
                assert!(message.contains(part), "{number} {part}: {message}");
            }
            assert!(
                !message.contains(FLOW_ID) && !message.contains("Flow Service"),
                "{number}: {message}"
            );
        }
    }
}

async fn setup(world: &World, text: &str, style: &str) -> String {
    let output = program(world, text, &["setup", "--identity", "api", "--style", style]).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that a shell can parse these commands; none of them is run.
fn is_read_by_a_shell(commands: &str) {
    let mut shell = std::process::Command::new("sh")
        .arg("-n")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell
        .stdin
        .take()
        .unwrap()
        .write_all(commands.as_bytes())
        .unwrap();
    assert!(shell.wait().unwrap().success(), "{commands}");
}

/// Checks that the text contains these parts in this order.
fn in_this_order(text: &str, parts: &[&str]) {
    let mut from = 0;
    for part in parts {
        let at = text[from..].find(part);
        from += at.unwrap_or_else(|| panic!("{part} is missing, or too early: {text}"));
    }
}

#[tokio::test]
async fn setup_says_what_an_api_needs_and_grants_no_more() {
    let world = World::new().await;
    let machine = "[identity.managed]\nsource = \"imds\"";
    for kind in [SECRET, machine] {
        let text = with_api(&world, GRAPH, kind);
        let az = setup(&world, &text, "az").await;
        in_this_order(
            &az,
            &[
                "OBJECT_ID=$(",
                "APP_ROLE",
                GRAPH_ID,
                "appRoleAssignments",
                "Only the app roles",
            ],
        );
        is_read_by_a_shell(&az);
        let powershell = setup(&world, &text, "powershell").await;
        in_this_order(
            &powershell,
            &[
                "AppRoleAssignment.ReadWrite.All",
                "$objectId =",
                "New-MgServicePrincipalAppRoleAssignment",
            ],
        );
        let bicep = setup(&world, &text, "bicep").await;
        assert!(
            bicep.contains("appRoleAssignedTo") && bicep.contains(GRAPH_ID),
            "{bicep}"
        );
        for shown in [az, powershell, bicep] {
            assert!(
                !shown.contains(FLOW_ID) && !shown.contains("Grant none"),
                "{shown}"
            );
            assert!(
                !shown.contains("Specific users"),
                "an API has no such list: {shown}"
            );
        }
    }
    let person = with_api(&world, GRAPH, "[identity.sign_in]\nstore = \"kept\"");
    let az = setup(&world, &person, "az").await;
    in_this_order(
        &az,
        &[
            GRAPH_ID,
            "PERMISSION",
            "admin-consent",
            "Only the delegated permissions",
        ],
    );
    assert!(!az.contains("[?value=='User']"), "{az}");
}

#[tokio::test]
async fn setup_makes_the_power_platform_api_and_gives_a_service_principal_its_role() {
    let world = World::new().await;
    let text = with_api(&world, PLATFORM, SECRET);
    let create = format!("az ad sp create --id {PLATFORM_ID}");
    let assignments = "https://api.powerplatform.com/authorization/roleAssignments?api-version=2024-10-01";
    let scope = format!("/tenants/{TENANT}");
    let az = setup(&world, &text, "az").await;
    in_this_order(
        &az,
        &[
            &create,
            "az ad app create",
            "OBJECT_ID=$(",
            assignments,
            "c886ad2e-27f7-4874-8381-5849b8d8a090",
            "$OBJECT_ID",
            "ApplicationUser",
            &scope,
            "delegated permissions only",
        ],
    );
    is_read_by_a_shell(&az);
    let powershell = setup(&world, &text, "powershell").await;
    in_this_order(
        &powershell,
        &[
            "Connect-AzAccount",
            "New-MgServicePrincipal -AppId 8578e004",
            "$objectId",
            assignments,
        ],
    );
    let bicep = setup(&world, &text, "bicep").await;
    in_this_order(&bicep, &[&create, assignments]);
    for shown in [az, powershell, bicep] {
        assert!(!shown.contains("appRole"), "it has none: {shown}");
    }
    let person = with_api(&world, PLATFORM, "[identity.sign_in]\nstore = \"kept\"");
    let az = setup(&world, &person, "az").await;
    in_this_order(&az, &[&create, "PERMISSION", "admin-consent"]);
    assert!(
        !az.contains("roleAssignments"),
        "an account has its own roles: {az}"
    );
}

#[tokio::test]
async fn the_role_that_an_api_needs_is_not_to_be_taken_back() {
    let world = World::new().await;
    world.emulator.entra.allow_audience(GRAPH);
    world.emulator.entra.claims(json!({"roles": ["User.Read.All"]}));
    let questions = Questions {
        privileges: Privileges::Yes,
        ..Questions::default()
    };
    let report = examine(&world, &with_api(&world, GRAPH, SECRET), &questions).await;
    let group = report
        .groups
        .iter()
        .find(|group| group.kind == "privileges")
        .unwrap();
    let about = |name: &str| {
        let says = format!("the token of {name} carries User.Read.All");
        let found = group.checks.iter().find(|check| check.says.starts_with(&says));
        found.unwrap_or_else(|| panic!("{name}: {}", report.text()))
    };
    let api = about("api");
    assert_eq!((api.verdict, &api.remedy), (Verdict::Note, &None), "{}", api.says);
    assert!(
        api.says.contains("Microsoft Graph") && api.says.contains("`paths`"),
        "{}",
        api.says
    );
    assert_eq!(about("contoso").verdict, Verdict::Warn, "a trigger asks for none");
}

#[tokio::test]
async fn a_trigger_that_finds_no_token_where_one_was_sent_has_its_own_explanation() {
    let world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT).unchecked());
    let message =
        "The OAuth authorization scheme is required. Please add authentication scheme and try again.";
    let body = json!({"error": {"code": "DirectApiAuthorizationRequired", "message": message}});
    trigger.does(Flow::Platform(Reply::json(401, &body)));
    let text = settings(&world, &trigger, "");
    let report = examine(&world, &text, &live()).await;
    let finding = whole(the_one(&report, "route orders", "credential"));
    for part in [
        "removed the Authorization header",
        "inspects TLS",
        "connect_to",
        "operator",
    ] {
        assert!(finding.contains(part), "{part}: {finding}");
    }
    assert!(
        !finding.contains("must give the route an identity"),
        "it has one: {finding}"
    );

    let gateway = world.start(&text);
    gateway.ready().await;
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(answer.code(), "flow-misconfigured");
    let line = gateway.lines.of(&answer).await;
    let cause = line["cause"].as_str().unwrap();
    assert!(cause.contains("removed the Authorization header"), "{cause}");
}

#[tokio::test]
async fn connect_to_is_advised_where_the_settings_take_it() {
    let world = World::new().await;
    let nowhere = "https://no-such-host.invalid";
    let text = with_api(&world, GRAPH, SECRET).replace(&world.emulator.entra.authority(), nowhere);
    let report = examine(&world, &text, &Questions::default()).await;
    let authority = find(&report, "identity contoso", "dns");
    assert_eq!(authority.verdict, Verdict::Fail, "{}", report.text());
    assert!(!whole(authority).contains("connect_to"), "{}", whole(authority));
    let trigger = text.replace("https://localhost:9/", "https://no-such-host-either.invalid/");
    let report = examine(&world, &trigger, &Questions::default()).await;
    let route = find(&report, "route api", "dns");
    assert!(
        whole(route).contains("behind a private endpoint set connect_to"),
        "{}",
        whole(route)
    );
}
