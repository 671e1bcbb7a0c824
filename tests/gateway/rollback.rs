//! The way back to settings that were in force: what it puts in force, what survives it, and what it refuses.

use crate::harness::{KEY, World, caller};
use crate::operating::{ended, err, flowgate, operated, out, started, trail};
use crate::reloading::{NEXT_KEY, status};

/// The same settings with another key for the caller.
fn rekeyed(text: &str) -> String {
    text.replace(&caller("shop", KEY), &caller("shop", NEXT_KEY))
}

async fn reload(world: &World, text: &str) {
    world.file("program.toml", text);
    out(&flowgate(world, &["reload"]).await);
}

#[tokio::test]
async fn a_rollback_puts_earlier_settings_in_force_until_a_reload_and_over_a_restart() {
    let (world, mut program, text) = operated().await;
    let narrow = text.replace("\"/orders\"", "\"/elsewhere\"");
    reload(
        &world,
        &narrow.replace("[state]", "# canary-in-a-comment\n[state]"),
    )
    .await;
    reload(&world, &text).await;
    assert_eq!(status(&world, &program, KEY).await, 202);
    let listed = out(&flowgate(&world, &["rollback"]).await);
    assert!(
        listed.contains("     3  ") && listed.contains("in force"),
        "{listed}"
    );
    assert!(
        listed.contains("route orders.path: \"/orders\" -> \"/elsewhere\""),
        "{listed}"
    );

    let plan = out(&flowgate(&world, &["plan", "--revision", "2"]).await);
    assert!(plan.contains("flowgate rollback 2 --readmit"), "{plan}");
    let refused = err(&flowgate(&world, &["rollback", "2"]).await);
    assert!(refused.contains("route orders has its address back"), "{refused}");
    assert_eq!(status(&world, &program, KEY).await, 202);
    let done = out(&flowgate(&world, &["rollback", "2", "--readmit"]).await);
    assert!(
        done.contains("revision 4 is in force, with the settings of revision 2"),
        "{done}"
    );
    assert_eq!(status(&world, &program, KEY).await, 404);

    // The file says something else, and is not followed.
    let shown = out(&flowgate(&world, &["status"]).await);
    assert!(
        shown.contains("pinned       to the settings of revision 2") && shown.contains("changed since"),
        "{shown}"
    );
    ended(&mut program).await;
    // It may be the reason for the rollback.
    world.file("broken.toml", "[state]\nfolder = \"state\"\n[[route\n");
    let broken = std::fs::read_to_string(world.dir().join("broken.toml")).unwrap();
    let mut program = started(&world, &broken).await;
    assert_eq!(status(&world, &program, KEY).await, 404);
    let shown = out(&flowgate(&world, &["status"]).await);
    assert!(
        shown.contains("revision     4 in force") && shown.contains("pinned"),
        "{shown}"
    );
    assert!(err(&flowgate(&world, &["reload"]).await).contains("not reloaded"));
    assert_eq!(status(&world, &program, KEY).await, 404);

    reload(&world, &text).await;
    assert_eq!(status(&world, &program, KEY).await, 202);
    assert!(!out(&flowgate(&world, &["status"]).await).contains("pinned"));
    ended(&mut program).await;
    let program = started(&world, &text).await;
    assert_eq!(status(&world, &program, KEY).await, 202);
    assert!(out(&flowgate(&world, &["status"]).await).contains("revision     5 in force"));
    drop(program);

    let actions = trail(&world);
    let refusals = actions
        .iter()
        .filter(|(action, outcome)| action == "rollback" && outcome.starts_with("refused"));
    assert_eq!(refusals.count(), 1);
    assert!(actions.contains(&("rollback".to_owned(), "done".to_owned())));
    let folder = world.dir().join("state/revisions");
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("canary-in-a-comment"), "comments may have secrets");
        for (_, secret) in &world.secrets {
            assert!(!text.contains(secret), "a secret is kept");
        }
    }
}

#[tokio::test]
async fn a_rollback_readmits_no_key_unless_told_to_and_a_revoked_one_never() {
    let (world, mut program, text) = operated().await;
    reload(&world, &rekeyed(&text)).await;
    let refused = err(&flowgate(&world, &["rollback", "1"]).await);
    assert!(
        refused.contains("key shop-1 of caller shop is accepted"),
        "{refused}"
    );
    assert_eq!(status(&world, &program, KEY).await, 401);
    assert_eq!(status(&world, &program, NEXT_KEY).await, 202);
    out(&flowgate(&world, &["rollback", "1", "--readmit"]).await);
    assert_eq!(status(&world, &program, KEY).await, 202);

    let label = ["--caller", "shop", "--label", "shop-1"];
    let revoke: Vec<_> = ["key", "revoke"].into_iter().chain(label).collect();
    flowgate(&world, &revoke).await;
    assert_eq!(status(&world, &program, KEY).await, 401);
    reload(&world, &rekeyed(&text)).await;
    out(&flowgate(&world, &["rollback", "1", "--readmit"]).await);
    assert_eq!(
        status(&world, &program, KEY).await,
        401,
        "a revocation survives a rollback"
    );
    ended(&mut program).await;
}

#[tokio::test]
async fn lists_are_those_of_the_revision_and_are_not_followed_after_a_rollback() {
    let (world, mut program, text) = operated().await;
    let line = program
        .line(|line| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.starts_with("admin"))
        })
        .await;
    let admin = line["address"].as_str().unwrap().parse().unwrap();
    world.file("partners", "127.0.0.0/8\n");
    let listed = text.replace(
        "name = \"shop\"\n",
        "name = \"shop\"\nnetworks_file = \"partners\"\n",
    );
    reload(&world, &listed).await;
    assert_eq!(status(&world, &program, KEY).await, 202);
    world.file("partners", "192.0.2.0/24\n");
    out(&flowgate(&world, &["reload"]).await);
    assert_eq!(status(&world, &program, KEY).await, 403);
    let refused = err(&flowgate(&world, &["rollback", "2"]).await);
    assert!(
        refused.contains("caller shop may call from 127.0.0.0/8"),
        "{refused}"
    );
    out(&flowgate(&world, &["rollback", "2", "--readmit"]).await);
    assert_eq!(status(&world, &program, KEY).await, 202);
    // Another gateway follows the same list, and one that this one does not have: by its second reload this one would have had
    // more than the time that it needs.
    world.file("others", "127.0.0.0/8\n");
    let both = listed
        .replace("folder = \"state\"", "folder = \"other-state\"")
        .replace(
            "[[route]]",
            "[[caller]]\nname = \"other\"\nnetworks_file = \"others\"\n[[route]]",
        );
    assert!(
        both.contains("other-state") && both.contains("\"others\""),
        "{both}"
    );
    let mut follower = started(&world, &both).await;
    for (list, revision) in [("partners", 2), ("others", 3)] {
        world.file(list, "198.51.100.0/24\n");
        follower
            .line(|line| line["because"] == "a list file" && line["revision"] == revision)
            .await;
    }
    assert_eq!(status(&world, &program, KEY).await, 202);
    assert_eq!(program.readiness(admin).await["pinned"], 2);
}

#[tokio::test]
async fn a_rollback_that_cannot_be_carried_out_changes_nothing() {
    let (world, mut program, text) = operated().await;
    let (name, secret) = world.secrets.first().unwrap().clone();
    let from_file = text.replace(&format!("env:{name}"), "file:secret");
    assert_ne!(from_file, text);
    world.file("secret", &secret);
    reload(&world, &from_file).await;
    reload(&world, &text).await;
    std::fs::remove_file(world.dir().join("secret")).unwrap();
    let gone = err(&flowgate(&world, &["rollback", "2"]).await);
    assert!(gone.contains("does not exist"), "{gone}");
    let unknown = err(&flowgate(&world, &["rollback", "77"]).await);
    assert!(unknown.contains("revision 77 is not kept"), "{unknown}");
    let shown = out(&flowgate(&world, &["status"]).await);
    assert!(
        shown.contains("revision     3 in force") && !shown.contains("pinned"),
        "{shown}"
    );
    assert_eq!(status(&world, &program, KEY).await, 202);
    ended(&mut program).await;

    // A pin that cannot be followed is no reason to serve something else.
    std::fs::write(world.dir().join("state/revisions/pinned"), "77\n").unwrap();
    let start = std::process::Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(["serve", "--config"])
        .arg(world.dir().join("program.toml"))
        .envs(world.secrets.iter().cloned())
        .output()
        .unwrap();
    let refused = err(&start);
    assert!(
        refused.contains("revision 77") && refused.contains("pinned"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_rollback_asks_before_a_route_demands_less_of_requests() {
    let (world, mut program, text) = operated().await;
    world.file("orders.json", r#"{"type": "object", "required": ["id"]}"#);
    let strict = text.replace(
        "path = \"/orders\"\n",
        "path = \"/orders\"\njson_schema = \"orders.json\"\n",
    );
    reload(&world, &strict).await;
    assert_eq!(status(&world, &program, KEY).await, 400);
    let refused = err(&flowgate(&world, &["rollback", "1"]).await);
    for line in [
        "accepts bodies of any type",
        "passes bodies on without reading them",
    ] {
        assert!(refused.contains(&format!("route orders {line}")), "{refused}");
    }
    assert_eq!(status(&world, &program, KEY).await, 400);
    out(&flowgate(&world, &["rollback", "1", "--readmit"]).await);
    assert_eq!(status(&world, &program, KEY).await, 202);
    ended(&mut program).await;
}
