//! Certificates of listeners, trigger addresses and the pepper are re-read while the gateway serves. Valid
//! content is used from then on, invalid content leaves the last valid one in use, and each change is logged
//! once.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use flowgate::model::Secret;
use flowgate::settings::KeyDigest;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::emulator::Answer as Flow;
use crate::emulator::certs::server_name;
use crate::emulator::{Leaf, Trigger, TriggerHandle, VaultAnswer};
use crate::harness::{Answer, KEY, PATIENCE, TENANT, World};
use crate::listening::{Talk, order, order_bytes};
use crate::program::Program;

const READER: &str = "dddddddd-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const READER_OID: &str = "77777777-8888-4777-8666-555555555555";
const READER_SECRET: &str = "canary-reader-secret~9";

/// Puts a file into place in one atomic step.
fn put(world: &World, name: &str, text: &str) {
    let new = world.dir().join(format!("{name}.written"));
    std::fs::write(&new, text).unwrap();
    // Independent of the umask of the test run.
    std::fs::set_permissions(&new, Permissions::from_mode(0o644)).unwrap();
    std::fs::rename(new, world.dir().join(name)).unwrap();
}

fn put_pair(world: &World, leaf: &Leaf) {
    put(world, "gateway.pem", &leaf.chain_pem);
    put(world, "gateway.key", &leaf.key_pem);
}

fn accepting(world: &World) -> TriggerHandle {
    world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted))
}

/// Settings with one signed route and this trigger.
fn signed(world: &World, trigger: &str) -> String {
    let route = world.route("orders", "/orders", trigger, "signed = true");
    format!("{}{route}", world.base())
}

async fn connect(world: &World, address: SocketAddr, name: &str) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&["http/1.1"])));
    tls.connect(server_name(name), tcp).await.unwrap()
}

/// The certificate that a client gets for `localhost`.
async fn shown(world: &World, address: SocketAddr) -> CertificateDer<'static> {
    let stream = connect(world, address, "localhost").await;
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}

async fn until_shown(world: &World, address: SocketAddr, leaf: &Leaf) {
    let looks = async { while shown(world, address).await != leaf.chain[0] {} };
    tokio::time::timeout(PATIENCE, looks)
        .await
        .expect("the new certificate is not shown");
}

/// An order on a connection of its own.
async fn ask(world: &World, address: SocketAddr) -> Answer {
    let mut talk = Talk::new(connect(world, address, "localhost").await);
    talk.say(order_bytes("")).await;
    talk.hear().await
}

/// Sends orders until one of them reaches this host of the emulator's flows, and returns the last answer.
async fn until_called(world: &World, address: SocketAddr, host: &str) -> Answer {
    let calls = async {
        loop {
            let answer = ask(world, address).await;
            if called(world).last().is_some_and(|last| last.starts_with(host)) {
                return answer;
            }
        }
    };
    tokio::time::timeout(PATIENCE, calls)
        .await
        .expect("the flow is not called there")
}

/// The hosts at which flows were called, oldest first.
fn called(world: &World) -> Vec<String> {
    let requests = world.emulator.flow.requests();
    requests
        .iter()
        .map(|request| request.head.header("host").unwrap_or_default().to_owned())
        .collect()
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// The next line whose message has this part.
async fn logged(program: &mut Program, part: &str) -> Value {
    let line = program.line(|line| message(line).contains(part)).await;
    assert!(!line.to_string().contains("canary"), "{line}");
    line
}

/// Stops the program and returns the remaining lines.
async fn stop(program: &mut Program) -> Vec<String> {
    program.signal("TERM");
    let mut said = Vec::new();
    program
        .line(|line| {
            said.push(message(line).to_owned());
            message(line) == "drained"
        })
        .await;
    said
}

/// A world with a vault, and the settings of its reader.
async fn with_vault() -> (World, String) {
    let mut world = World::new().await;
    world
        .emulator
        .register_app(TENANT, READER, READER_SECRET, READER_OID);
    world.secrets.push(("READER_SECRET".into(), READER_SECRET.into()));
    world.emulator.vault.tenant(TENANT);
    world.emulator.vault.allow(READER_OID);
    let reading = format!(
        "{}scope = \"https://vault.azure.net/.default\"\n[keyvault]\nidentity = \"reader\"\nca_file = {:?}\nperiod = \
         \"1s\"\n",
        world.identity("reader", TENANT, READER, "env:READER_SECRET"),
        world.emulator.ca_file()
    );
    (world, reading)
}

#[tokio::test]
async fn a_certificate_replaced_in_its_files_is_presented_to_the_next_caller() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let before = shown(&world, gateway.address).await;
    let mut open = gateway.connect().await;
    assert_eq!(open.send(order()).await.status, 202);
    let leaf = world.emulator.ca.leaf(&["localhost", "hooks.example"]);
    put_pair(&world, &leaf);
    until_shown(&world, gateway.address, &leaf).await;
    assert_ne!(before, leaf.chain[0]);
    assert_eq!(open.send(order()).await.status, 202, "an open connection goes on");
}

#[tokio::test]
async fn the_names_that_are_served_follow_the_new_certificate() {
    let world = World::new().await;
    let other = world.emulator.ca.leaf(&["other.example"]);
    let files = other.write(world.dir(), "site").unwrap();
    let more = format!(
        "{}[[listener.certificate]]\nchain = {:?}\nkey = \"file:{}\"\n",
        world.certificate(),
        files.chain,
        files.key.display()
    );
    let settings = world.base().replace(&world.certificate(), &more);
    let route = world.route("orders", "/orders", "https://localhost:9/", "");
    let gateway = world.start(&format!("{settings}{route}"));
    let leaf = world.emulator.ca.leaf(&["new.example"]);
    put(&world, "site.pem", &leaf.chain_pem);
    put(&world, "site.key", &leaf.key_pem);
    // A client with an unknown name gets the default certificate, whose name does not match, so it refuses
    // it.
    let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&[])));
    let looks = async {
        loop {
            let tcp = TcpStream::connect(gateway.address).await.unwrap();
            if tls.connect(server_name("new.example"), tcp).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, looks)
        .await
        .expect("the new name is not served");
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    tls.connect(server_name("other.example"), tcp)
        .await
        .expect_err("the old name is not served any more");
}

#[tokio::test]
async fn a_chain_that_does_not_match_the_key_is_not_used_and_is_reported_once() {
    let world = World::new().await;
    world.file("trigger", "https://localhost:9/?sp=a&sv=b&sig=canary");
    let mut program = Program::start(&world, &signed(&world, "file:trigger"));
    let address = program.address().await;
    let before = shown(&world, address).await;
    let leaf = world.emulator.ca.leaf(&["localhost"]);
    put(&world, "gateway.pem", &leaf.chain_pem);
    let line = logged(&mut program, "cannot be the certificate of listener").await;
    assert_eq!(line["level"], "WARN");
    for part in [
        "gateway.pem",
        "the private key does not belong to the certificate",
        "the operator must",
    ] {
        assert!(message(&line).contains(part), "{part}: {line}");
    }
    assert_eq!(shown(&world, address).await, before);
    put(&world, "gateway.key", &leaf.key_pem);
    let line = program
        .line(|line| {
            assert!(!message(line).contains("cannot be the certificate"), "{line}");
            message(line).contains(" replaced")
        })
        .await;
    assert_eq!(line["level"], "INFO");
    let said = message(&line);
    assert!(
        said.starts_with("certificate of listener 127.0.0.1:")
            && said.contains(" for localhost replaced, valid until 20"),
        "{line}"
    );
    assert_eq!(shown(&world, address).await, leaf.chain[0]);
}

#[tokio::test]
async fn an_invalid_replacement_leaves_the_last_valid_file_in_use() {
    let world = World::new().await;
    world.file("trigger", "https://localhost:9/?sp=a&sv=b&sig=canary");
    let mut program = Program::start(&world, &signed(&world, "file:trigger"));
    let address = program.address().await;
    let before = shown(&world, address).await;
    let chain = world.dir().join("gateway.pem");
    let good = std::fs::read_to_string(&chain).unwrap();
    let large = "-----BEGIN CERTIFICATE-----\n".repeat(200_000);
    for (text, part) in [
        (None, "is a folder, not a file"),
        (Some(large.as_str()), "is larger than 1 MiB"),
    ] {
        match text {
            Some(text) => put(&world, "gateway.pem", text),
            None => {
                std::fs::remove_file(&chain).unwrap();
                std::fs::create_dir(&chain).unwrap();
            }
        }
        let line = logged(&mut program, "the certificate of listener").await;
        assert!(
            message(&line).contains("cannot be read again, the last one serves on")
                && message(&line).contains(part),
            "{line}"
        );
        assert_eq!(shown(&world, address).await, before, "{part}");
        if text.is_none() {
            std::fs::remove_dir(&chain).unwrap();
        }
        put(&world, "gateway.pem", &good);
        logged(&mut program, "gateway.pem can be read again").await;
    }
    let said = stop(&mut program).await;
    assert!(!said.iter().any(|said| said.contains("replaced")), "{said:?}");
}

#[tokio::test]
async fn a_certificate_outside_its_dates_does_not_replace_a_good_one() {
    let world = World::new().await;
    world.file("trigger", "https://localhost:9/?sp=a&sv=b&sig=canary");
    let mut program = Program::start(&world, &signed(&world, "file:trigger"));
    let address = program.address().await;
    let before = shown(&world, address).await;
    put_pair(&world, &world.emulator.ca.future_leaf(&["localhost"]));
    let line = logged(&mut program, "cannot be the certificate of listener").await;
    assert!(message(&line).contains("it is valid from "), "{line}");
    assert_eq!(shown(&world, address).await, before);
}

#[tokio::test]
async fn the_expiry_of_a_listeners_certificate_is_watched_and_follows_the_new_one() {
    let world = World::new().await;
    put_pair(&world, &world.emulator.ca.leaf_for(&["localhost"], 200));
    let gateway = world.start_with(&world.route("orders", "/orders", "https://localhost:9/", ""));
    let ready = |text: &str| serde_json::from_str::<Value>(text).unwrap()["credentials"][0].clone();
    let held = ready(&gateway.admin("/readyz?verbose").await.1);
    assert_eq!(held["credential"], "localhost");
    assert!(
        held["of"].as_str().unwrap().starts_with("listener 127.0.0.1:"),
        "{held}"
    );
    assert_eq!(held["days_left"], 199);
    let leaf = world.emulator.ca.leaf_for(&["hooks.example", "localhost"], 9);
    put_pair(&world, &leaf);
    until_shown(&world, gateway.address, &leaf).await;
    let follows = async {
        while ready(&gateway.admin("/readyz?verbose").await.1)["days_left"] != 8 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, follows)
        .await
        .expect("the end does not follow");
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(
        metrics.contains("flowgate_certificate_days_left{name=\"hooks.example\"} 8.9"),
        "{metrics}"
    );
    assert!(
        !metrics.contains("flowgate_certificate_days_left{name=\"localhost\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_certificate_with_its_key_in_one_secret_of_a_vault_can_be_replaced_there() {
    let (world, reading) = with_vault().await;
    let vault = &world.emulator.vault;
    let both = |leaf: &Leaf| format!("{}{}", leaf.key_pem, leaf.chain_pem);
    let first = world.emulator.ca.intermediate().leaf(&["localhost"]);
    vault.put("site", &both(&first));
    let base = world.base().replace(
        &world.certificate(),
        &format!(
            "[[listener.certificate]]\nfile = \"{}\"\n",
            vault.reference("site")
        ),
    );
    let route = world.route("orders", "/orders", "https://localhost:9/", "");
    let mut program = Program::start(&world, &format!("{base}{reading}{route}"));
    let address = program.address().await;
    assert_eq!(shown(&world, address).await, first.chain[0]);
    vault.always(VaultAnswer::Status(503));
    logged(&mut program, "cannot be read again, the last one serves on").await;
    vault.normal();
    let second = world.emulator.ca.leaf(&["localhost"]);
    vault.put("site", &both(&second));
    until_shown(&world, address, &second).await;
    logged(&mut program, "replaced, valid until").await;
}

#[tokio::test]
async fn a_key_in_a_vault_is_read_at_once_when_the_chain_was_replaced() {
    let (world, reading) = with_vault().await;
    let vault = &world.emulator.vault;
    let key = world.dir().join("gateway.key");
    vault.put("site", &std::fs::read_to_string(&key).unwrap());
    let base = world
        .base()
        .replace(&format!("file:{}", key.display()), &vault.reference("site"));
    let route = world.route("orders", "/orders", "https://localhost:9/", "");
    let settings = format!("{base}{reading}{route}").replace("period = \"1s\"", "period = \"1h\"");
    let mut program = Program::start(&world, &settings);
    let address = program.address().await;
    let leaf = world.emulator.ca.leaf(&["localhost"]);
    vault.put("site", &leaf.key_pem);
    put(&world, "gateway.pem", &leaf.chain_pem);
    until_shown(&world, address, &leaf).await;
    assert_eq!(vault.reads().get(), 2);
}

#[tokio::test]
async fn a_trigger_moves_to_another_host_with_all_that_is_derived_from_it() {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let one = flow.add(Trigger::anyone().does(Flow::Accepted));
    let two = flow.add(Trigger::anyone().does(Flow::Accepted));
    world.file("trigger", &one.url());
    let settings = format!("[bodies]\nrate_min = 0\n{}", signed(&world, "file:trigger"));
    let gateway = world.start(&settings);
    let mut underway = Talk::new(connect(&world, gateway.address, "localhost").await);
    let order = order_bytes("Expect: 100-continue\r\n");
    let (head, body) = order.split_at(order.len() - 2);
    underway.say(head).await;
    underway.hear_until("100 Continue\r\n\r\n").await;
    put(&world, "trigger", &two.url_on("127.0.0.1"));
    let answer = until_called(&world, gateway.address, "127.0.0.1").await;
    assert_eq!(answer.status, 202);
    let last = flow.requests().last().unwrap().clone();
    assert_eq!(last.workflow.as_deref(), Some(two.workflow().as_str()));
    assert_eq!(last.sni, None, "an address has no name to ask for");
    underway.say(body).await;
    assert_eq!(underway.hear().await.status, 202);
    let last = flow.requests().last().unwrap().clone();
    assert_eq!(
        last.workflow.as_deref(),
        Some(one.workflow().as_str()),
        "a call under way goes on where it began"
    );
    assert!(last.head.header("host").unwrap().starts_with("localhost:"));
}

#[tokio::test]
async fn an_address_that_the_route_cannot_use_is_not_taken_and_a_good_one_is_reported_without_its_signature()
{
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let one = flow.add(Trigger::anyone().does(Flow::Accepted));
    let two = flow.add(Trigger::anyone().does(Flow::Accepted));
    world.file("trigger", &one.url());
    let mut program = Program::start(&world, &signed(&world, "file:trigger"));
    let address = program.address().await;
    let bare = one.url();
    put(&world, "trigger", bare.split("&sp=").next().unwrap());
    let line = logged(&mut program, "cannot be the trigger of route orders").await;
    assert_eq!(line["route"], "orders");
    assert!(
        message(&line).contains("the operator must put a good one there"),
        "{line}"
    );
    assert_eq!(ask(&world, address).await.status, 202);
    put(&world, "trigger", &two.url());
    logged(&mut program, "can be read by other users (mode 644)").await;
    let line = logged(
        &mut program,
        "trigger of route orders replaced, now https://localhost:",
    )
    .await;
    assert!(message(&line).contains(&two.workflow()), "{line}");
    let signature = two.settings().signature.clone();
    assert!(
        !line.to_string().contains(&signature) && !message(&line).contains("sig"),
        "{line}"
    );
    assert_eq!(ask(&world, address).await.status, 202);
    let last = flow.requests().last().unwrap().clone();
    assert_eq!(last.workflow.as_deref(), Some(two.workflow().as_str()));
}

#[tokio::test]
async fn a_trigger_for_tokens_is_read_again_as_well() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.file("trigger", &trigger.url());
    let gateway = world.start_with(&world.route("orders", "/orders", "file:trigger", ""));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let other = accepting(&world);
    put(&world, "trigger", &other.url());
    let moved = async {
        let flow = &world.emulator.flow;
        while flow.requests().last().unwrap().workflow.as_deref() != Some(other.workflow().as_str()) {
            // A line about a rate limit may come first.
            gateway.post("/orders", "{}").await;
        }
    };
    tokio::time::timeout(PATIENCE, moved)
        .await
        .expect("the new trigger is called");
}

#[tokio::test]
async fn a_token_follows_no_address_in_a_file_to_a_host_that_is_not_of_flows() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.file("trigger", &trigger.url());
    let settings = world.base() + &world.route("orders", "/orders", "file:trigger", "");
    let mut program = Program::start(&world, &settings);
    let address = program.address().await;
    put(&world, "trigger", &trigger.url_on("127.0.0.1"));
    let line = logged(&mut program, "cannot be the trigger of route orders").await;
    assert!(message(&line).contains("a token would be sent there"), "{line}");
    assert_eq!(ask(&world, address).await.status, 202);
    assert!(called(&world).iter().all(|host| host.starts_with("localhost:")));
}

#[tokio::test]
async fn a_token_follows_a_file_to_no_other_port_and_to_no_app_that_anyone_can_own() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.file("trigger", &trigger.url());
    let settings = world.base() + &world.route("orders", "/orders", "file:trigger", "");
    let mut program = Program::start(&world, &settings);
    let address = program.address().await;
    let url = trigger.url();
    let authority = url.split('/').nth(2).unwrap();
    for other in [
        "localhost:9",
        "localhost",
        "app.azurewebsites.net",
        "app.azurewebsites.net:8443",
    ] {
        put(&world, "trigger", &url.replace(authority, other));
        let line = logged(&mut program, &format!("{other} is neither {authority}")).await;
        assert!(
            message(&line).contains("cannot be the trigger of route orders"),
            "{line}"
        );
        assert!(message(&line).contains("if that is meant, send SIGHUP"), "{line}");
    }
    assert_eq!(ask(&world, address).await.status, 202);
}

#[tokio::test]
async fn a_token_follows_a_file_between_hosts_of_the_flow_service() {
    let world = World::new().await;
    let flow = |host: &str| {
        format!(
            "https://{host}/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke\
             ?api-version=1"
        )
    };
    world.file("trigger", &flow("prod-00.westeurope.logic.azure.com"));
    let settings = world.base() + &world.route("orders", "/orders", "file:trigger", "");
    let mut program = Program::start(&world, &settings);
    program.address().await;
    put(&world, "trigger", &flow("prod-01.westus.logic.azure.com"));
    logged(
        &mut program,
        "trigger of route orders replaced, now https://prod-01.westus.logic.azure.com/",
    )
    .await;
    put(&world, "trigger", &flow("0.00.environment.api.powerplatform.com"));
    logged(
        &mut program,
        "trigger of route orders replaced, now https://0.00.environment.api.powerplatform.com/",
    )
    .await;
}

#[tokio::test]
async fn a_trigger_in_a_vault_is_read_periodically() {
    let (world, reading) = with_vault().await;
    let trigger = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
    let vault = &world.emulator.vault;
    vault.put("trigger", &trigger.url());
    let settings = format!("{reading}{}", signed(&world, &vault.reference("trigger")));
    let mut program = Program::start(&world, &settings);
    let address = program.address().await;
    assert_eq!(ask(&world, address).await.status, 202);
    vault.always(VaultAnswer::Html(403));
    logged(&mut program, "the trigger of route orders cannot be read again").await;
    assert_eq!(ask(&world, address).await.status, 202, "the last good one serves");
    vault.normal();
    vault.put("trigger", &trigger.url_on("127.0.0.1"));
    until_called(&world, address, "127.0.0.1").await;
    logged(&mut program, "secret trigger of key vault").await;
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_no_call_waiting_and_no_other_file() {
    let world = World::new().await;
    let trigger = accepting(&world);
    std::fs::create_dir(world.dir().join("away")).unwrap();
    world.file("away/trigger", &trigger.url());
    let route = world.route("orders", "/orders", "file:away/trigger", "");
    let mut program = Program::start(&world, &format!("{}{route}", world.base()));
    let address = program.address().await;
    let path = world.dir().join("away/trigger");
    std::fs::remove_file(&path).unwrap();
    // Nothing writes to it, so a reader blocks when it opens it.
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let line = logged(&mut program, "the trigger of route orders cannot be read again").await;
    assert!(
        message(&line).contains("the disk did not answer within 5s"),
        "{line}"
    );
    assert_eq!(ask(&world, address).await.status, 202);
    let leaf = world.emulator.ca.leaf(&["localhost"]);
    put_pair(&world, &leaf);
    until_shown(&world, address, &leaf).await;
    release(&path);
}

/// Unblocks the readers of a pipe.
fn release(path: &Path) {
    let opened = std::fs::OpenOptions::new().write(true).open(path);
    drop(opened.unwrap());
}

#[tokio::test]
async fn a_changed_pepper_locks_nobody_out_and_is_reported_once() {
    let world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
    world.file("trigger", &trigger.url());
    world.file("pepper", "canary-pepper-of-20-bytes");
    let digest = KeyDigest::of(KEY.as_bytes(), Some(&Secret::new("canary-pepper-of-20-bytes")));
    let settings = signed(&world, "file:trigger").replace(&crate::harness::digest(KEY), &digest.to_setting());
    let settings = format!("[keys]\npepper = \"file:pepper\"\n{settings}");
    let mut program = Program::start(&world, &settings);
    let address = program.address().await;
    put(&world, "pepper", "canary-another-pepper-of-28");
    let line = logged(&mut program, "the pepper was changed").await;
    assert_eq!(line["level"], "WARN");
    assert!(message(&line).contains("must reload the settings"), "{line}");
    assert_eq!(ask(&world, address).await.status, 202);
    // Once another change was read and logged, the pepper has been read again as well.
    let leaf = world.emulator.ca.leaf(&["localhost"]);
    put_pair(&world, &leaf);
    until_shown(&world, address, &leaf).await;
    let said = stop(&mut program).await;
    assert!(!said.iter().any(|said| said.contains("pepper")), "{said:?}");
}

#[tokio::test]
async fn the_expiry_of_a_pepper_in_a_vault_is_reported() {
    let (world, reading) = with_vault().await;
    let vault = &world.emulator.vault;
    let ends = jiff::Timestamp::now().as_second() + 20 * 86_400;
    vault.put_until("pepper", "canary-pepper-of-20-bytes", Some(ends));
    let route = world.route("orders", "/orders", "https://localhost:9/", "");
    let settings = format!(
        "[keys]\npepper = \"{}\"\n{}{reading}{route}",
        vault.reference("pepper"),
        world.base()
    );
    let mut program = Program::start(&world, &settings);
    logged(&mut program, "credential pepper of the gateway expires on").await;
    let pause = Duration::from_secs(60) * 86_400;
    vault.put_until(
        "pepper",
        "canary-pepper-of-20-bytes",
        Some(ends - i64::try_from(pause.as_secs()).unwrap()),
    );
    logged(&mut program, "credential pepper of the gateway expired on").await;
}
