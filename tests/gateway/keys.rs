//! Keys of callers, listed and changed by commands while the gateway serves.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::{KEY, caller, digest};
use crate::operating::{ended, err, flowgate, operated, out, started, trail};
use crate::reloading::{NEXT_KEY, status};

/// The row of a key in what `key list` prints.
fn row<'t>(table: &'t str, label: &str) -> &'t str {
    let mut rows = table.lines();
    let found = rows.find(|row| row.split('|').nth(2).is_some_and(|cell| cell.trim() == label));
    found.unwrap_or_else(|| panic!("no {label} in {table}"))
}

#[tokio::test]
async fn the_last_use_of_a_key_survives_a_reload_and_a_restart() {
    let (world, mut program, text) = operated().await;
    let list = ["key", "list"];
    // Uses are noted to the minute, which may have just begun.
    let is_used = |shown: &str| {
        ["ago)", "(now)"]
            .iter()
            .any(|part| row(shown, "shop-1").contains(part))
    };
    let shown = out(&flowgate(&world, &list).await);
    assert!(row(&shown, "shop-1").contains("none known"), "{shown}");
    assert_eq!(status(&world, &program, KEY).await, 202);
    let shown = out(&flowgate(&world, &list).await);
    assert!(is_used(&shown), "{shown}");

    // The same key in another place, and another one before it.
    let other = text.replace(
        &caller("shop", KEY),
        &format!("{}{}", caller("first", NEXT_KEY), caller("shop", KEY)),
    );
    world.file("program.toml", &other);
    out(&flowgate(&world, &["reload"]).await);
    let shown = out(&flowgate(&world, &list).await);
    assert!(is_used(&shown), "{shown}");
    assert!(row(&shown, "first-1").contains("none known"), "{shown}");
    ended(&mut program).await;

    let mut program = started(&world, &other).await;
    let shown = out(&flowgate(&world, &list).await);
    assert!(is_used(&shown), "{shown}");
    let one = out(&flowgate(&world, &["key", "list", "--caller", "first"]).await);
    assert!(!one.contains("shop-1") && one.contains("first-1"), "{one}");
    let none = err(&flowgate(&world, &["key", "list", "--caller", "nobody"]).await);
    assert!(none.contains("have no caller nobody"), "{none}");
    ended(&mut program).await;

    // A damaged file is one warning, and a new beginning.
    let path = world.dir().join("state/key-uses");
    let uses = std::fs::read_to_string(&path).unwrap();
    assert_eq!(uses.lines().count(), 2, "{uses}");
    std::fs::write(&path, uses.replace("key uses", "")).unwrap();
    let mut program = crate::program::Program::start(&world, &other);
    let begins = |line: &serde_json::Value| {
        let text = line["message"].as_str().unwrap_or_default();
        text.starts_with("the last uses of keys begin anew") && line["level"] == "WARN"
    };
    program.line(begins).await;
    program.address().await;
    let shown = out(&flowgate(&world, &list).await);
    assert!(row(&shown, "shop-1").contains("none known"), "{shown}");
}

#[tokio::test]
async fn a_list_of_keys_has_the_state_of_each_and_an_end() {
    let (world, mut program, text) = operated().await;
    let line = |label: &str, more: &str| format!("{label} {} {more}\n", digest(label));
    let many: String = (0..600).map(|number| line(&format!("k{number}"), "")).collect();
    let states = [
        line("off", "enabled=false"),
        line("late", "not_before=2999-01-01"),
        line("old", "expires=2020-01-01"),
        line("dated", "expires=2999-01-01"),
    ];
    world.file("partners", &format!("{}{many}", states.concat()));
    let listed = text.replace(
        "[[caller]]\n",
        "[[caller]]\nname = \"partners\"\nkeys_file = \"partners\"\n[[caller]]\n",
    );
    world.file("program.toml", &listed);
    out(&flowgate(&world, &["reload"]).await);
    let shown = out(&flowgate(&world, &["key", "list"]).await);
    for (label, state) in [
        ("off", " disabled "),
        ("late", " not valid before 2999-01-01 (in "),
        ("old", " expired 2020-01-01 ("),
        ("dated", " expires 2999-01-01 (in "),
        ("k0", " valid "),
    ] {
        assert!(row(&shown, label).contains(state), "{label}: {shown}");
    }
    assert!(
        shown.ends_with("and 105 more; name a caller with --caller\n"),
        "{shown}"
    );
    ended(&mut program).await;
}

/// The key that a command has printed.
fn printed(text: &str) -> String {
    let key = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("flowgate_"));
    format!("flowgate_{}", key.unwrap_or_else(|| panic!("no key in {text}")))
}

fn settings(world: &crate::harness::World, name: &str) -> String {
    std::fs::read_to_string(world.dir().join(name)).unwrap()
}

#[tokio::test]
async fn a_key_is_written_rotated_and_revoked_while_the_gateway_serves() {
    let (world, mut program, text) = operated().await;
    let mode = |mode| {
        std::fs::set_permissions(
            world.dir().join("program.toml"),
            std::fs::Permissions::from_mode(mode),
        )
    };
    mode(0o640).unwrap();
    let new = [
        "key",
        "new",
        "--write",
        "--caller",
        "shop",
        "--label",
        "second",
        "--expires",
        "90d",
    ];
    let said = out(&flowgate(&world, &new).await);
    let began = Instant::now();
    let second = printed(&said);
    assert_eq!(said.matches(&second).count(), 1);
    assert!(said.contains("The change is in force, as revision 2."), "{said}");
    assert_eq!(status(&world, &program, &second).await, 202);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(status(&world, &program, KEY).await, 202);
    let written = settings(&world, "program.toml");
    let start = written.find("\n[[caller.key]]\nlabel = \"second\"").unwrap();
    let length = written[start..].find("Z\n").unwrap() + 2;
    assert_eq!(
        format!("{}{}", &written[..start], &written[start + length..]),
        text
    );
    assert!(
        !written.contains(&second) && written.contains(&digest(&second)),
        "{written}"
    );
    let metadata = std::fs::metadata(world.dir().join("program.toml")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);

    let rotate = [
        "key",
        "rotate",
        "--caller",
        "shop",
        "--label",
        "second",
        "--overlap",
        "7d",
    ];
    let said = out(&flowgate(&world, &rotate).await);
    let third = printed(&said);
    assert!(
        said.contains("key second expires 20") && said.contains("(in 7 days)"),
        "{said}"
    );
    assert!(said.contains("as revision 3."), "{said}");
    for key in [&second, &third] {
        assert_eq!(status(&world, &program, key).await, 202);
    }
    let longer = [
        "key",
        "rotate",
        "--caller",
        "shop",
        "--label",
        "second",
        "--overlap",
        "30d",
    ];
    let said = out(&flowgate(&world, &longer).await);
    assert!(
        !said.contains("(in 30 days)") && !said.contains("(in 29 days)"),
        "never later: {said}"
    );

    let revoke = ["key", "revoke", "--caller", "shop", "--label", "second"];
    let said = out(&flowgate(&world, &revoke).await);
    assert!(
        said.contains("refused from now on") && said.contains("key second of caller shop is disabled in"),
        "{said}"
    );
    assert_eq!(status(&world, &program, &second).await, 401);
    assert!(settings(&world, "program.toml").contains("enabled = false"));
    let again = out(&flowgate(&world, &revoke).await);
    assert!(again.contains("is in force"), "{again}");
    // Nothing but commands has changed anything.
    let begun: Vec<_> = trail(&world)
        .into_iter()
        .filter(|(action, _)| action != "start")
        .collect();
    assert!(
        begun
            .iter()
            .all(|(_, outcome)| outcome == "begun" || outcome == "done"),
        "{begun:?}"
    );
    assert!(begun.iter().any(|(action, _)| action == "key-revoke"));
    ended(&mut program).await;
    let without = out(&flowgate(
        &world,
        &["key", "new", "--write", "--caller", "shop", "--label", "cold"],
    )
    .await);
    assert!(without.contains("No gateway is running there"), "{without}");
    let program = started(&world, &settings(&world, "program.toml")).await;
    assert_eq!(status(&world, &program, &printed(&without)).await, 202);
    assert_eq!(status(&world, &program, &second).await, 401);
}

#[tokio::test]
async fn keys_of_a_list_are_edited_in_the_list() {
    let (world, program, text) = operated().await;
    world.file("pepper", "canary-pepper-0123456789");
    let lines = format!("# Partners.\nfirst {} # theirs\n", digest(NEXT_KEY));
    world.file("partners", &lines);
    let listed = text.replace("name = \"shop\"\n", "name = \"shop\"\nkeys_file = \"partners\"\n");
    let listed = listed.replace(
        &caller("shop", KEY).replace("[[caller]]\nname = \"shop\"\n", ""),
        "[keys]\npepper = \"file:pepper\"\n",
    );
    world.file("program.toml", &listed);
    out(&flowgate(&world, &["reload"]).await);
    let new = ["key", "new", "--write", "--caller", "shop", "--label", "next"];
    let said = out(&flowgate(&world, &new).await);
    assert!(
        said.contains("added to") && said.contains("is in force"),
        "{said}"
    );
    let list = settings(&world, "partners");
    assert!(
        list.starts_with(&lines) && list.contains("\nnext hmac-sha256:"),
        "{list}"
    );
    assert_eq!(status(&world, &program, &printed(&said)).await, 202);
    let rotate = [
        "key",
        "rotate",
        "--caller",
        "shop",
        "--label",
        "next",
        "--overlap",
        "0s",
        "--new-label",
        "last",
    ];
    let rotated = out(&flowgate(&world, &rotate).await);
    assert_eq!(status(&world, &program, &printed(&rotated)).await, 202);
    out(&flowgate(&world, &["key", "revoke", "--caller", "shop", "--label", "first"]).await);
    assert_eq!(status(&world, &program, NEXT_KEY).await, 401);
    let list = settings(&world, "partners");
    assert!(list.contains(" enabled=false # theirs\n"), "{list}");
    assert_eq!(settings(&world, "program.toml"), listed);

    // A pepper that the person cannot read.
    std::fs::remove_file(world.dir().join("pepper")).unwrap();
    let refused = err(&flowgate(&world, &["key", "new", "--write", "--caller", "shop"]).await);
    assert!(
        refused.contains("--pepper env:NAME") && refused.contains("Nothing was changed."),
        "{refused}"
    );
    assert_eq!(settings(&world, "partners"), list);
}

#[tokio::test]
async fn what_a_command_cannot_edit_stays_as_it_is() {
    let (world, program, text) = operated().await;
    world.file("pepper", "canary-pepper-0123456789");
    let pepper = format!("file:{}", world.dir().join("pepper").display());
    let route = "[[route]]";
    let other = text.replace(
        route,
        &format!("[[caller]]\nname = \"inside\"\nnetworks = [\"10.0.0.0/8\"]\n{route}"),
    );
    for (settings_text, arguments, why) in [
        (
            &text,
            vec!["new", "--write", "--caller", "nobody"],
            "    name = \"nobody\"",
        ),
        (
            &text,
            vec!["new", "--write", "--caller", "shop", "--label", "shop-1"],
            "already",
        ),
        (
            &text,
            vec!["new", "--write", "--caller", "shop", "--expires", "2020-01-01"],
            "in the past",
        ),
        (
            &text,
            vec!["new", "--write", "--caller", "shop", "--pepper", &pepper],
            "needs a pepper",
        ),
        (
            &other,
            vec!["new", "--write", "--caller", "inside"],
            "known by its networks alone",
        ),
        (
            &text,
            vec!["rotate", "--caller", "shop", "--label", "none", "--overlap", "1d"],
            "have no key \"none\"",
        ),
        (
            &text,
            vec![
                "rotate",
                "--caller",
                "shop",
                "--label",
                "shop-1",
                "--overlap",
                "1",
            ],
            "such as 7d",
        ),
        (
            &text.replace("callers = [\"shop\"]", "callers = [\"shp\"]"),
            vec![
                "rotate",
                "--caller",
                "shop",
                "--label",
                "shop-1",
                "--overlap",
                "1d",
            ],
            "shp",
        ),
    ] {
        world.file("program.toml", settings_text);
        let refused = flowgate(&world, &[vec!["key"], arguments.clone()].concat()).await;
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {refused:?}");
        let said = err(&refused);
        assert!(
            said.contains(why) && refused.stdout.is_empty(),
            "{arguments:?}: {said}"
        );
        assert_eq!(&settings(&world, "program.toml"), settings_text);
    }

    // Somebody else's change waits: it is not put in force with that of a command.
    world.file("program.toml", &text.replace("\"/orders\"", "\"/other\""));
    let waits = out(&flowgate(
        &world,
        &["key", "new", "--write", "--caller", "shop", "--label", "next"],
    )
    .await);
    assert!(
        waits.contains("other changes of the files wait: `flowgate plan`"),
        "{waits}"
    );
    assert_eq!(status(&world, &program, KEY).await, 202);
    assert_eq!(status(&world, &program, &printed(&waits)).await, 401);
    let refused = flowgate(&world, &["key", "revoke", "--caller", "shop", "--label", "none"]).await;
    assert!(
        err(&refused).contains("not in the settings in force"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_key_is_denied_while_its_file_cannot_be_edited() {
    let (world, program, text) = operated().await;
    let revoke = ["key", "revoke", "--caller", "shop", "--label", "shop-1"];
    // A disk that takes no more bytes.
    let mut full = Command::new("sh");
    full.args([
        "-c",
        "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\" --config program.toml",
    ])
    .arg(env!("CARGO_BIN_EXE_flowgate"))
    .args(revoke)
    .current_dir(world.dir());
    let refused = tokio::task::spawn_blocking(move || full.output().unwrap())
        .await
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = err(&refused);
    assert!(
        said.contains("program.toml cannot be replaced: ") && said.contains("Set `enabled = false`"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&refused.stdout).contains("refused from now on"));
    assert_eq!(status(&world, &program, KEY).await, 401);
    assert_eq!(settings(&world, "program.toml"), text);
    let left = std::fs::read_dir(world.dir()).unwrap();
    let drafts = left.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".new")
    });
    assert_eq!(drafts.count(), 0);
    drop(program);

    // A gateway that cannot be asked.
    let missed = flowgate(&world, &revoke).await;
    assert_eq!(missed.status.code(), Some(1), "{missed:?}");
    assert!(
        err(&missed).contains("the key is NOT denied in a gateway that runs"),
        "{missed:?}"
    );
    assert!(settings(&world, "program.toml").contains("enabled = false"));
}

#[tokio::test]
async fn the_log_warns_of_keys_that_expire_soon_in_one_line_a_day() {
    let (world, mut program, text) = operated().await;
    ended(&mut program).await;
    let at = flowgate::model::clock::wall() + Duration::from_secs(5 * 86_400 + 60);
    let at = jiff::Timestamp::try_from(at)
        .unwrap()
        .strftime("%Y-%m-%dT%H:%M:%SZ");
    let line = |label: &str| format!("{label} {} expires={at}\n", digest(label));
    world.file("partners", &["a", "b", "c", "d", "e"].map(line).concat());
    let listed = text.replace(
        "[[caller]]\n",
        "[[caller]]\nname = \"partners\"\nkeys_file = \"partners\"\n[[caller]]\n",
    );
    let mut program = crate::program::Program::start(&world, &listed);
    let warned = |line: &serde_json::Value| {
        let text = line["message"].as_str().unwrap_or_default();
        text.starts_with("5 keys expire 20")
            && text.contains("(in 5 days): key a of caller partners, ")
            && text.contains(" and 2 more; ")
            && line["level"] == "WARN"
    };
    program.line(warned).await;
}

#[tokio::test]
async fn without_a_settings_file_a_key_is_denied_and_no_more() {
    let (world, program, text) = operated().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate"));
    command
        .args(["key", "revoke", "--caller", "shop", "--label", "shop-1"])
        .args(["--state", "state", "--config", "none.toml"])
        .current_dir(world.dir());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    assert!(out(&output).contains("refused from now on"), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("there is no none.toml here"),
        "{output:?}"
    );
    assert_eq!(status(&world, &program, KEY).await, 401);
    assert_eq!(settings(&world, "program.toml"), text);
}

#[tokio::test]
async fn a_key_edit_that_meets_another_save_says_that_it_waits() {
    let (world, mut program, text) = operated().await;
    world.file("partners", "127.0.0.0/8\n");
    world.file("token", "the-word-of-meta");
    // The list is read after the word, and the word of no other route is.
    let trigger = text.lines().find(|line| line.starts_with("trigger = ")).unwrap();
    let more = |name: &str, lines: &str| {
        world
            .route(name, &format!("/{name}"), "TRIGGER", lines)
            .replace("trigger = \"TRIGGER\"", trigger)
    };
    let text = format!(
        "{text}{}{}",
        more("meta", "handshakes = [\"meta\"]\nverify_token = \"file:token\"\n"),
        more("partners", "networks_file = \"partners\"\n")
    );
    world.file("program.toml", &text);
    out(&flowgate(&world, &["reload"]).await);

    // A load stops at the word until it is written.
    let token = world.dir().join("token");
    std::fs::remove_file(&token).unwrap();
    let made = Command::new("mkfifo").args(["-m", "600"]).arg(&token).status();
    assert!(made.unwrap().success());
    let saving = async {
        let path = token.clone();
        let open = move || std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let mut word = tokio::task::spawn_blocking(open).await.unwrap();
        world.file("partners", "192.0.2.0/24\n");
        std::io::Write::write_all(&mut word, b"the-word-of-meta").unwrap();
    };
    let new = [
        "key",
        "new",
        "--write",
        "--caller",
        "shop",
        "--label",
        "second",
        "--expires",
        "90d",
    ];
    let (said, ()) = tokio::join!(flowgate(&world, &new), saving);
    let said = out(&said);
    assert!(
        said.contains("The change is not in force yet, because other changes"),
        "{said}"
    );
    assert!(
        !said.contains("not reloaded") && !said.contains("run `flowgate plan` again"),
        "{said}"
    );
    let shown = out(&flowgate(&world, &["status"]).await);
    assert!(!shown.contains("last reload"), "{shown}");
    assert!(
        !trail(&world)
            .iter()
            .any(|(_, outcome)| outcome.starts_with("refused"))
    );
    ended(&mut program).await;
}
