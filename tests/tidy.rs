//! Keeps the house in order: modules name lower floors only, the emulator never names the crate, no marks of
//! unfinished work, and README's tables are the code's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use flowgate::problem::Kind;

/// Each top-level module and its floor; a module that is missing here is refused.
const FLOORS: &[(&str, u8)] = &[
    ("model", 0),
    ("problem", 1),
    ("counters", 1),
    ("wire", 1),
    ("config", 2),
    ("policy", 3),
    ("entra", 3),
    ("flow", 3),
    ("gateway", 4),
    ("server", 5),
    ("doctor", 6),
    ("cli", 6),
    ("main", 6),
    ("lib", 6),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // What a tool builds or keeps inside of a folder of ours is not ours.
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found
}

fn floor(module: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, floor)| *floor)
}

/// The top-level module that a file of `src` belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn modules_name_lower_floors_only() {
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let module = module_of(&path);
        let own = floor(&module).unwrap_or_else(|| panic!("{module} has no floor; give it one in FLOORS"));
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let place = format!("{}:{}", path.display(), number + 1);
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("crate::{") {
                wrong.push(format!(
                    "{place}: one path per import, so that this test can read it"
                ));
            }
            for other in code.split("crate::").skip(1) {
                let other: String = other
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                let Some(theirs) = floor(&other) else { continue };
                if other != module && theirs >= own && own < 6 {
                    wrong.push(format!(
                        "{place}: {module} (floor {own}) names {other} (floor {theirs})"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_emulator_never_names_the_crate() {
    for path in files(&root().join("tests/emulator"), "rs") {
        if path.ends_with("demo.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            !text.contains("flowgate::"),
            "{} names the crate it tests",
            path.display()
        );
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("unimpl", "emented!"),
    ];
    for folder in ["src", "tests", "benches"] {
        for path in files(&root().join(folder), "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for mark in marks {
                assert!(!text.contains(mark), "{} contains {mark}", path.display());
            }
        }
    }
}

#[test]
fn only_main_prints() {
    for path in files(&root().join("src"), "rs") {
        if path.ends_with("main.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for mark in ["println!", "eprintln!", "process::exit"] {
            assert!(!text.contains(mark), "{} contains {mark}", path.display());
        }
    }
}

#[test]
fn readme_shows_the_table_of_problems() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut expected = String::from("| status | code | reason | send again? | what the caller is told |\n");
    expected.push_str("| --- | --- | --- | --- | --- |\n");
    for kind in Kind::ALL {
        let row = kind.row();
        let again = if flowgate::problem::Problem::from(*kind).retryable() {
            "yes"
        } else {
            "no"
        };
        let status = row.status.as_u16();
        expected.push_str(&format!(
            "| {status} | `{}` | {} | {again} | {} |\n",
            row.code,
            row.reason.as_str(),
            row.title
        ));
    }
    assert!(
        readme.contains(&expected),
        "README.md needs this table:\n{expected}"
    );
}

#[test]
fn readme_shows_the_tables_of_what_fails() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let expected = flowgate::doctor::advice::tables();
    assert!(
        readme.contains(&expected),
        "README.md needs these tables:\n{expected}"
    );
}
