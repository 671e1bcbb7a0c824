//! Keys of callers, listed and changed by commands while the gateway serves.

use crate::harness::{KEY, caller, digest};
use crate::operating::{ended, err, flowgate, operated, out, started};
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
    let shown = out(&flowgate(&world, &list).await);
    assert!(row(&shown, "shop-1").contains("none known"), "{shown}");
    assert_eq!(status(&world, &program, KEY).await, 202);
    let shown = out(&flowgate(&world, &list).await);
    assert!(row(&shown, "shop-1").contains("ago)"), "{shown}");

    // The same key in another place, and another one before it.
    let other = text.replace(
        &caller("shop", KEY),
        &format!("{}{}", caller("first", NEXT_KEY), caller("shop", KEY)),
    );
    world.file("program.toml", &other);
    out(&flowgate(&world, &["reload"]).await);
    let shown = out(&flowgate(&world, &list).await);
    assert!(row(&shown, "shop-1").contains("ago)"), "{shown}");
    assert!(row(&shown, "first-1").contains("none known"), "{shown}");
    ended(&mut program).await;

    let mut program = started(&world, &other).await;
    let shown = out(&flowgate(&world, &list).await);
    assert!(row(&shown, "shop-1").contains("ago)"), "{shown}");
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
