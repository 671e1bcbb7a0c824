//! Checks the structure: modules name lower floors only, the emulator never names the crate, no marks of
//! unfinished work.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module and its floor; a module that is missing here is refused.
const FLOORS: &[(&str, u8)] = &[
    ("model", 0),
    ("problem", 1),
    ("counters", 1),
    ("wire", 1),
    ("files", 1),
    ("material", 1),
    ("outbound", 1),
    ("settings", 2),
    ("secrets", 3),
    ("policy", 4),
    ("entra", 4),
    ("flow", 4),
    ("gateway", 5),
    ("server", 6),
    ("admin", 6),
    ("doctor", ROOF),
    ("cli", ROOF),
    ("main", ROOF),
    ("lib", ROOF),
];
/// The floor whose modules may name each other.
const ROOF: u8 = 7;
/// Modules that do not name these, although they are on lower floors: the gateway introduces them.
const STRANGERS: &[(&str, &[&str])] = &[("server", &["entra", "flow"]), ("admin", &["entra", "flow"])];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Folders that tools create are not ours.
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

/// Every path into the crate that a file names, with its line number: those of its `use` statements, with
/// braces expanded, and those in the code.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut code = line.split("//").next().unwrap_or_default().to_owned();
        let begin = code.trim_start();
        if begin.starts_with("use ") || begin.starts_with("pub") && begin.contains(" use ") {
            while !code.contains(';') {
                let (_, more) = lines.next().expect("a use statement ends");
                code.push_str(more.split("//").next().unwrap_or_default().trim());
            }
        }
        for path in code.split("crate::").skip(1) {
            for path in leaves(path) {
                found.push((number + 1, path));
            }
        }
    }
    found
}

/// The paths of one tree of imports: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn leaves(tree: &str) -> Vec<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let end = tree.find(|c| !is_path(c)).unwrap_or(tree.len());
    let (stem, rest) = tree.split_at(end);
    let Some(inside) = rest
        .strip_prefix('{')
        .filter(|_| stem.is_empty() || stem.ends_with("::"))
    else {
        return vec![stem.trim_end_matches(':').to_owned()];
    };
    let mut depth = 0;
    let mut branches = vec![String::new()];
    for c in inside.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(String::new());
                continue;
            }
            _ => {}
        }
        branches.last_mut().unwrap().push(c);
    }
    let branches = branches.iter().map(|branch| branch.trim());
    let branches = branches.filter(|branch| !branch.is_empty());
    branches
        .flat_map(|branch| leaves(branch).into_iter().map(|leaf| format!("{stem}{leaf}")))
        .collect()
}

#[test]
fn grouped_imports_are_read() {
    let text = "use crate::{cli, gateway::{Gateway, journal::Log}};\n\
                pub(crate) use crate::model::{\n    Host, // a comment\n    Network,\n};\n\
                let x = crate::wire::request(crate::problem::Kind::ALL);\n";
    let paths = crate_paths(text);
    let expected = [
        (1, "cli"),
        (1, "gateway::Gateway"),
        (1, "gateway::journal::Log"),
        (2, "model::Host"),
        (2, "model::Network"),
        (6, "wire::request"),
        (6, "problem::Kind::ALL"),
    ];
    assert_eq!(paths, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn modules_name_lower_floors_only() {
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let module = module_of(&path);
        let own = floor(&module).unwrap_or_else(|| panic!("{module} has no floor; give it one in FLOORS"));
        for (number, named) in crate_paths(&fs::read_to_string(&path).unwrap()) {
            let other = named.split("::").next().unwrap_or_default();
            let Some(theirs) = floor(other) else { continue };
            let is_stranger = STRANGERS
                .iter()
                .any(|(from, strangers)| *from == module && strangers.contains(&other));
            if is_stranger || other != module && theirs >= own && own < ROOF {
                let place = format!("{}:{number}", path.display());
                wrong.push(format!(
                    "{place}: {module} (floor {own}) names {other} (floor {theirs})"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Code that has an `Admitted` knows that every check has passed, because its field is private to the file that checks.
#[test]
fn there_is_one_maker_of_admitted() {
    let maker = root().join("src/gateway/admission.rs");
    let text = fs::read_to_string(&maker).unwrap();
    assert!(text.contains("pub(super) struct Admitted<'r>(AdmittedParts<'r>);"));
    let count = |text: &str, made: &str| text.matches(made).count();
    assert_eq!(count(&text, "Admitted("), 1, "one expression makes it");
    let own = text.split("impl<'r> Admitted<'r> {").nth(1).unwrap();
    let own = own.split("\n}\n").next().unwrap();
    assert_eq!(
        count(own, "Self(") + count(own, "-> Self"),
        0,
        "it has no other constructor"
    );
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
