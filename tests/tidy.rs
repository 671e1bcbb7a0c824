//! Checks the structure: modules name lower floors only, the emulator never names the crate, no marks of
//! unfinished work.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
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
    ("state", 2),
    ("secrets", 3),
    ("policy", 4),
    ("deliveries", 4),
    ("entra", 4),
    ("flow", 4),
    ("gateway", 5),
    ("server", 6),
    ("admin", 6),
    ("control", 6),
    ("doctor", ROOF),
    ("cli", ROOF),
    ("main", ROOF),
    ("lib", ROOF),
];
/// The floor whose modules may name each other.
const ROOF: u8 = 7;
/// Modules that do not name these, although they are on lower floors: the gateway introduces them.
const STRANGERS: &[(&str, &[&str])] = &[
    ("server", &["entra", "flow"]),
    ("admin", &["entra", "flow"]),
    ("control", &["entra", "flow"]),
];

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

/// The code of each module of the crate, by its path: `entra::grants::file`.
fn modules() -> Modules {
    let src = root().join("src");
    let mut modules = Modules::new();
    for path in files(&src, "rs") {
        let inside = path.strip_prefix(&src).unwrap().with_extension("");
        let mut parts: Vec<_> = inside.iter().map(|part| part.to_str().unwrap()).collect();
        if parts.last() == Some(&"mod") {
            parts.pop();
        }
        if parts != ["lib"] && parts != ["main"] {
            modules.insert(parts.join("::"), code_of(&fs::read_to_string(&path).unwrap()));
        }
    }
    modules
}

type Modules = BTreeMap<String, String>;
type Edges = BTreeMap<String, BTreeSet<String>>;

/// A text in one line, without comments and without its unit tests.
fn code_of(text: &str) -> String {
    let product = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = product
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default().trim());
    lines.collect::<Vec<_>>().join(" ")
}

/// The same code in which every path into the crate begins with `crate::`.
fn absolute(module: &str, code: &str) -> String {
    let parent = |of: &str| of.rsplit_once("::").map_or("", |(parent, _)| parent).to_owned();
    let begin = |of: &str| {
        if of.is_empty() {
            "crate::".to_owned()
        } else {
            format!("crate::{of}::")
        }
    };
    let above = parent(module);
    let mut code = code
        .replace("pub(in crate::", "pub(in ")
        .replace("super::super::", &begin(&parent(&above)))
        .replace("super::", &begin(&above))
        .replace("self::", &begin(module));
    let words: Vec<_> = code.split([' ', ';']).collect();
    let children = words
        .windows(2)
        .filter(|pair| pair[0] == "mod")
        .map(|pair| pair[1]);
    let children: Vec<_> = children.map(str::to_owned).collect();
    for child in children.iter().filter(|child| !child.is_empty()) {
        let named = format!("{child}::");
        let mut parts = code.split(named.as_str());
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let is_whole = !whole.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':');
            let path = if is_whole {
                format!("{}{named}", begin(module))
            } else {
                named.clone()
            };
            whole.push_str(&path);
            whole.push_str(part);
        }
        code = whole;
    }
    code
}

/// Takes the re-exports out of a module's code: the rest of it, and the paths that are named on.
fn apart(code: &str) -> (String, Vec<String>) {
    let (mut rest, mut named_on) = (String::new(), Vec::new());
    for statement in code.split_inclusive(';') {
        let at = [
            "pub use crate::",
            "pub(crate) use crate::",
            "pub(super) use crate::",
        ];
        let at = at
            .iter()
            .find_map(|begin| Some(statement.find(begin)? + begin.len()));
        match at {
            Some(at) => named_on.extend(leaves(&statement[at..])),
            None => rest.push_str(statement),
        }
    }
    (rest, named_on)
}

/// For each module the modules that define what it names.
fn edges(modules: &Modules) -> Edges {
    let read: BTreeMap<_, _> = modules
        .iter()
        .map(|(name, code)| (name.as_str(), apart(&absolute(name, code))))
        .collect();
    let defining = |path: &str| {
        let mut path = path.to_owned();
        // A name is passed on a few times at most.
        for _ in 0..8 {
            let mut module = path.as_str();
            while !read.contains_key(module) {
                (module, _) = module.rsplit_once("::")?;
            }
            let name = path[module.len()..]
                .trim_start_matches("::")
                .split("::")
                .next()
                .unwrap_or_default();
            let end = format!("::{name}");
            let (_, named_on) = &read[module];
            let Some(next) = named_on
                .iter()
                .find(|path| !name.is_empty() && path.ends_with(&end))
            else {
                return Some(module.to_owned());
            };
            path.clone_from(next);
        }
        panic!("{path} is passed on without end")
    };
    let names = |rest: &str| rest.split("crate::").skip(1).flat_map(leaves).collect::<Vec<_>>();
    read.iter()
        .map(|(name, (rest, _))| {
            let named = names(rest).into_iter().filter_map(|path| defining(&path));
            ((*name).to_owned(), named.filter(|other| other != name).collect())
        })
        .collect()
}

/// A circle of files within this room, if there is one.
fn circle(room: &str, edges: &Edges) -> Option<Vec<String>> {
    let mut left = edges.clone();
    left.retain(|name, _| name.split("::").next() == Some(room));
    loop {
        let before = left.len();
        let names: BTreeSet<_> = left.keys().cloned().collect();
        left.retain(|_, named| named.iter().any(|other| names.contains(other)));
        if left.len() == before {
            break;
        }
    }
    let mut walk = vec![left.keys().next()?.clone()];
    loop {
        let next = left[walk.last()?]
            .iter()
            .find(|other| left.contains_key(*other))?
            .clone();
        if let Some(at) = walk.iter().position(|name| *name == next) {
            walk.drain(..at);
            walk.push(next);
            return Some(walk);
        }
        walk.push(next);
    }
}

#[test]
fn no_two_files_of_a_room_import_each_other() {
    let edges = edges(&modules());
    for (room, _) in FLOORS {
        let circle = circle(room, &edges);
        assert!(
            circle.is_none(),
            "a circle of imports: {}",
            circle.unwrap().join(" -> ")
        );
    }
}

#[test]
fn a_circle_is_found_however_its_paths_are_written() {
    let circle = |a: &str, b: &str| {
        let room = [
            ("room", "mod a; mod b; pub use a::A; pub(crate) use b::{B, C};"),
            ("room::a", a),
            ("room::b", b),
        ];
        let room = room.map(|(name, code)| (name.to_owned(), code_of(code)));
        circle("room", &edges(&room.into()))
    };
    for there in [
        "use crate::room::B;",
        "use crate::{\n    other::X,\n    room::{C},\n};",
        "use super::b::B;",
        "fn a() -> super::C {}",
    ] {
        assert!(circle(there, "use crate::room::a::A;").is_some(), "{there}");
        assert!(
            circle(there, "use crate::other::A; // crate::room::A").is_none(),
            "{there}"
        );
    }
    let tests = "struct B;\n#[cfg(test)]\nmod tests {\n    use crate::room::A;\n}\n";
    assert!(circle("use super::B;", tests).is_none());
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
