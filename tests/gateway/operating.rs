//! Commands to a running gateway, the keys they revoke, and the trail that all of it leaves.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::harness::{KEY, TENANT, World, caller};
use crate::program::Program;
use crate::reloading::{NEXT_KEY, status};

/// A program with a state folder and the route `/orders`, and its settings.
pub async fn operated() -> (World, Program, String) {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let text = format!(
        "{}[state]\nfolder = \"state\"\n{}",
        world.base(),
        world.route("orders", "/orders", &trigger.url(), "")
    );
    let program = started(&world, &text).await;
    (world, program, text)
}

pub async fn started(world: &World, text: &str) -> Program {
    let mut program = Program::start(world, text);
    let taking = |line: &Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("taking commands"))
    };
    program.line(taking).await;
    program.address().await;
    program
}

/// Runs a command for the gateway with these settings.
pub async fn flowgate(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate"));
    command
        .args(arguments)
        .arg("--config")
        .arg(world.dir().join("program.toml"));
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

pub fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn err(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The trail of changes, as what happened and how it ended.
pub fn trail(world: &World) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(world.dir().join("state/audit.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| line[name].as_str().unwrap().to_owned();
        (field("action"), field("outcome"))
    });
    lines.collect()
}

pub async fn ended(program: &mut Program) {
    program.signal("TERM");
    assert_eq!(program.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_plan_names_what_would_change_and_a_reload_puts_just_that_in_force() {
    let (world, mut program, text) = operated().await;
    let shown = out(&flowgate(&world, &["status"]).await);
    assert!(
        shown.contains("revision     1 in force") && shown.contains("as in force"),
        "{shown}"
    );
    assert_eq!(out(&flowgate(&world, &["plan"]).await), "nothing would change\n");

    let other = text
        .replace(&caller("shop", KEY), &caller("shop", NEXT_KEY))
        .replace("workers = 2", "workers = 1");
    world.file("program.toml", &other);
    let plan = out(&flowgate(&world, &["plan"]).await);
    assert!(
        plan.contains("caller shop.key shop-1.digest: *** -> ***"),
        "{plan}"
    );
    assert!(
        plan.contains("needs a restart: gateway.workers: 2 -> 1"),
        "{plan}"
    );
    let digest = plan.rsplit(' ').next().unwrap().trim().to_owned();
    assert!(out(&flowgate(&world, &["status"]).await).contains("changed since"));
    assert_eq!(
        status(&world, &program, KEY).await,
        202,
        "nothing has changed yet"
    );

    // Somebody writes to the file in between.
    world.file("program.toml", &other.replace("shop-1", "shop-2"));
    let refused = err(&flowgate(&world, &["reload", "--digest", &digest]).await);
    assert!(refused.contains("run `flowgate plan` again"), "{refused}");
    assert_eq!(status(&world, &program, KEY).await, 202);

    world.file("program.toml", &other);
    let done = out(&flowgate(&world, &["reload", "--digest", &digest]).await);
    assert!(done.starts_with("revision 2 is in force\n"), "{done}");
    assert_eq!(status(&world, &program, KEY).await, 401);
    assert_eq!(status(&world, &program, NEXT_KEY).await, 202);
    ended(&mut program).await;
    let expected = [
        ("start", "done"),
        (
            "reload",
            "refused: the files have changed since they were looked at; run `flowgate plan` again",
        ),
        ("reload", "begun"),
        ("reload", "done"),
        ("stop", "begun"),
    ];
    assert_eq!(
        trail(&world),
        expected.map(|(one, other)| (one.to_owned(), other.to_owned()))
    );
    let verified = out(&flowgate(&world, &["audit", "verify"]).await);
    assert!(verified.contains("5 lines"), "{verified}");
    let path = world.dir().join("state/audit.jsonl");
    let changed = std::fs::read_to_string(&path).unwrap().replace("begun", "began");
    std::fs::write(&path, changed).unwrap();
    let broken = err(&flowgate(&world, &["audit", "verify"]).await);
    assert!(broken.contains("line 4 does not follow"), "{broken}");
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_after_a_reload_and_after_a_restart() {
    let (world, mut program, text) = operated().await;
    assert_eq!(status(&world, &program, KEY).await, 202);
    let revoke = ["key", "revoke", "--caller", "shop", "--label", "shop-1"];
    // Settings that do not load are no reason to keep it.
    world.file("program.toml", "[state]\nfolder = \"state\"\n[[route]]\n");
    let done = out(&flowgate(&world, &revoke).await);
    assert!(
        done.contains("refused from now on, also after a restart"),
        "{done}"
    );
    assert_eq!(status(&world, &program, KEY).await, 401);
    let none = err(&flowgate(&world, &["key", "revoke", "--caller", "shop", "--label", "other"]).await);
    assert!(none.contains("not in the settings in force"), "{none}");

    world.file(
        "program.toml",
        &format!("{text}# A comment.\n").replace("workers = 2", "workers = 2\nwatch = \"off\""),
    );
    program.signal("HUP");
    program.line(|line| line["revision"] == 2).await;
    assert_eq!(status(&world, &program, KEY).await, 401);
    ended(&mut program).await;

    let program = started(&world, &text).await;
    assert_eq!(status(&world, &program, KEY).await, 401);
}

#[tokio::test]
async fn nothing_changes_while_the_trail_cannot_be_written_and_a_key_is_refused_nevertheless() {
    let (world, program, text) = operated().await;
    let path = world.dir().join("state/audit.jsonl");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    world.file("program.toml", &text.replace("\"/orders\"", "\"/other\""));
    let refused = err(&flowgate(&world, &["reload"]).await);
    assert!(
        refused.contains("the trail of changes cannot be written"),
        "{refused}"
    );
    assert_eq!(status(&world, &program, KEY).await, 202, "the route is as it was");
    let revoked = err(&flowgate(
        &world,
        &["key", "revoke", "--caller", "shop", "--label", "shop-1"],
    )
    .await);
    assert!(
        revoked.contains("also after a restart, but the trail of changes cannot be written"),
        "{revoked}"
    );
    assert_eq!(status(&world, &program, KEY).await, 401);
}

#[tokio::test]
async fn a_state_folder_has_one_gateway_and_only_its_user() {
    let (world, mut program, text) = operated().await;
    world.file("second.toml", &text);
    let second = Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(["serve", "--config"])
        .arg(world.dir().join("second.toml"))
        .envs(world.secrets.iter().cloned())
        .output()
        .unwrap();
    assert!(err(&second).contains("used by another process"), "{second:?}");
    let mode = |path: &Path| {
        let metadata = std::fs::metadata(path).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
    };
    let state = world.dir().join("state");
    assert_eq!(mode(&state), 0o700);
    for name in ["audit.jsonl", "revoked.jsonl", "control.sock"] {
        assert_eq!(mode(&state.join(name)), 0o600, "{name}");
    }
    ended(&mut program).await;
    assert!(!state.join("control.sock").exists());
    let gone = err(&flowgate(&world, &["status"]).await);
    assert!(gone.contains("no gateway answers at"), "{gone}");
    // A socket that a crash has left is replaced.
    drop(std::os::unix::net::UnixListener::bind(state.join("control.sock")).unwrap());
    let program = started(&world, &text).await;
    assert!(out(&flowgate(&world, &["status"]).await).contains("revision     1"));
    drop(program);
}

#[tokio::test]
async fn what_is_no_command_is_refused_and_changes_nothing() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let (world, program, _) = operated().await;
    let socket = world.dir().join("state/control.sock");
    for line in [
        "\n",
        "{}\n",
        "{\"do\":\"reload\",\"digest\":7}\n",
        "{\"do\":\"stop\"}\n",
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.contains("does not know this command"),
            "{line:?}: {answer}"
        );
    }
    let mut endless = UnixStream::connect(&socket).unwrap();
    // The gateway closes it before all of it is written.
    let _ = endless.write_all(&vec![b'x'; 4 * 1024 * 1024]);
    assert_eq!(status(&world, &program, KEY).await, 202);
    assert!(out(&flowgate(&world, &["status"]).await).contains("revision     1"));
}

#[tokio::test]
async fn a_key_is_revoked_while_a_reload_hangs_and_the_gateway_still_stops() {
    let (world, mut program, text) = operated().await;
    world.file("partners", "127.0.0.0/8\n");
    let listed = text.replace(
        "name = \"shop\"\n",
        "name = \"shop\"\nnetworks_file = \"partners\"\n",
    );
    std::fs::remove_file(world.dir().join("partners")).unwrap();
    let made = Command::new("mkfifo").arg(world.dir().join("partners")).status();
    assert!(made.unwrap().success());
    world.file("program.toml", &listed);
    program.signal("HUP");
    // It opens the list, and nobody writes to it.
    let began = Instant::now();
    let revoke = ["key", "revoke", "--caller", "shop", "--label", "shop-1"];
    out(&flowgate(&world, &revoke).await);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(status(&world, &program, KEY).await, 401);
    ended(&mut program).await;
}

#[tokio::test]
async fn a_plan_names_the_host_that_a_trigger_file_moves_to() {
    let (world, program, text) = operated().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    world.file("trigger", &trigger.url());
    let inline = text
        .lines()
        .find(|line| line.starts_with("trigger = "))
        .unwrap()
        .to_owned();
    let text = text.replace(&inline, "trigger = \"file:trigger\"");
    world.file("program.toml", &text);
    out(&flowgate(&world, &["reload"]).await);
    world.file(
        "trigger",
        &trigger.url().replace("https://", "https://elsewhere."),
    );
    let plan = out(&flowgate(&world, &["plan"]).await);
    assert!(plan.contains("route orders would call elsewhere."), "{plan}");
    drop(program);
}

/// Runs a command for the gateway at this socket as the user `nobody`, who has one group.
fn as_nobody(program: &Path, socket: &Path, arguments: &[&str]) -> Output {
    Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--init-groups"])
        .arg(program)
        .args(arguments)
        .arg("--socket")
        .arg(socket)
        .current_dir("/")
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root, setpriv and the user nobody with the group nogroup: cargo test --test gateway -- --ignored nobody"]
async fn a_group_may_do_what_it_was_granted_and_nobody_else_anything() {
    use std::os::unix::fs::PermissionsExt;

    let (world, mut program, text) = operated().await;
    let shared = tempfile::tempdir().unwrap();
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let own = shared.path().join("flowgate");
    std::fs::copy(env!("CARGO_BIN_EXE_flowgate"), &own).unwrap();
    let socket = shared.path().join("control.sock");
    ended(&mut program).await;
    let granting = |groups: &str| format!("{text}[control]\nsocket = {socket:?}\n{groups}\n");
    let mut program = Program::start(&world, &granting("operate = [\"no-such-group-here\"]"));
    // In either order: the system may be asked for a while.
    let mut awaited = vec!["no-such-group-here", "taking commands", "listening"];
    let mut address = None;
    program
        .line(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            if message == "listening" {
                address = line["address"].as_str().and_then(|text| text.parse().ok());
            }
            awaited.retain(|part| !message.contains(part));
            awaited.is_empty()
        })
        .await;
    program.address = address;
    let nobody = |arguments: &[&str]| as_nobody(&own, &socket, arguments);
    let refused = err(&nobody(&["status"]));
    assert!(
        refused.contains("may send no command to this gateway"),
        "{refused}"
    );

    // Grants change with a reload.
    world.file("program.toml", &granting("operate = [\"nogroup\"]"));
    out(&flowgate(&world, &["reload"]).await);
    assert!(out(&nobody(&["status"])).contains("revision"));
    assert!(out(&nobody(&["reload"])).contains("is in force"));
    let refused = err(&nobody(&[
        "key", "revoke", "--caller", "shop", "--label", "shop-1",
    ]));
    assert!(refused.contains("`keys` of [control]"), "{refused}");
    let other = shared.path().join("other.toml");
    std::fs::write(&other, &text).unwrap();
    let refused = err(&nobody(&["plan", "--config", other.to_str().unwrap()]));
    assert!(
        refused.contains("only the gateway's own user and root"),
        "{refused}"
    );
    assert_eq!(status(&world, &program, KEY).await, 202);

    world.file("program.toml", &granting("keys = [\"nogroup\"]"));
    out(&flowgate(&world, &["reload"]).await);
    assert!(err(&nobody(&["reload"])).contains("`operate` of [control]"));
    out(&nobody(&[
        "key", "revoke", "--caller", "shop", "--label", "shop-1",
    ]));
    assert_eq!(status(&world, &program, KEY).await, 401);
    ended(&mut program).await;

    let trail = std::fs::read_to_string(world.dir().join("state/audit.jsonl")).unwrap();
    for part in [
        "group no-such-group-here may operate",
        "\"name\":\"nobody\"",
        "refused: no right to it",
        "control.operate: \\\"nogroup\\\" added",
    ] {
        assert!(trail.contains(part), "{part}: {trail}");
    }
}

#[tokio::test]
async fn a_socket_at_which_another_process_listens_is_left_alone() {
    let (world, mut program, text) = operated().await;
    ended(&mut program).await;
    let socket = world.dir().join("taken.sock");
    let other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let taken = format!("{text}[control]\nsocket = {socket:?}\n");
    let mut program = Program::start(&world, &taken);
    let line = program
        .line(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains("control socket"))
        })
        .await;
    let message = line["message"].as_str().unwrap();
    assert!(
        message.contains("another process takes commands there"),
        "{message}"
    );
    program.address().await;
    assert_eq!(status(&world, &program, KEY).await, 202, "requests go on");
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_at_once_are_carried_out_one_after_the_other() {
    let (world, mut program, text) = operated().await;
    world.file("program.toml", &text.replace("\"/orders\"", "\"/other\""));
    let both = tokio::join!(flowgate(&world, &["reload"]), flowgate(&world, &["reload"]));
    let mut replies = [out(&both.0), out(&both.1)];
    replies.sort();
    assert!(replies[0].starts_with("revision 2 is in force"), "{replies:?}");
    assert!(replies[1].starts_with("revision 3 is in force"), "{replies:?}");
    assert_eq!(status(&world, &program, KEY).await, 404);
    ended(&mut program).await;
    let reloads = trail(&world).into_iter().filter(|(action, _)| action == "reload");
    let outcomes: Vec<_> = reloads.map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, ["begun", "done", "begun", "done"]);
}

#[tokio::test]
async fn a_gateway_that_is_stopping_takes_no_command() {
    let (world, mut program, text) = operated().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let held = world.route("held", "/held", &trigger.url(), "");
    world.file("program.toml", &format!("{text}{held}"));
    out(&flowgate(&world, &["reload"]).await);
    let gate = trigger.hold();
    let tls = std::sync::Arc::new(world.emulator.ca.client_config(&["http/1.1"]));
    let tcp = tokio::net::TcpStream::connect(program.address.unwrap())
        .await
        .unwrap();
    let name = crate::emulator::certs::server_name("localhost");
    let mut stream = tokio_rustls::TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .unwrap();
    let request = format!(
        "POST /held HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
        .await
        .unwrap();
    gate.arrived(1).await;
    program.signal("TERM");
    program.line(|line| line["message"] == "draining").await;
    let refused = err(&flowgate(&world, &["reload"]).await);
    assert!(refused.contains("the gateway is stopping"), "{refused}");
    program.signal("HUP");
    program
        .line(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains("SIGHUP is ignored"))
        })
        .await;
    gate.open();
    assert_eq!(program.exit().await.code(), Some(0));
    let refused = trail(&world).into_iter().filter(|(action, _)| action == "reload");
    assert_eq!(refused.count(), 2, "one begun and done");
}
