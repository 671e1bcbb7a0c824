//! Links between documents: files and headings exist, and README stays short and leads to every page.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{document, root};

/// More than this and a newcomer does not read it.
const README_LINES_MAX: usize = 150;

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

/// The text without what is code: links in there are none.
fn prose(text: &str) -> String {
    let mut code = false;
    let mut prose = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        if !code && !fence {
            for (number, part) in line.split('`').enumerate() {
                prose.push_str(if number % 2 == 0 { part } else { "code" });
            }
        }
        prose.push('\n');
    }
    prose
}

/// The anchors that a page gets for its headings.
fn anchors(text: &str) -> Vec<String> {
    let mut code = false;
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !code) else {
            continue;
        };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = seen.entry(anchor.clone()).or_default();
        found.push(if *again == 0 {
            anchor
        } else {
            format!("{anchor}-{again}")
        });
        *again += 1;
    }
    found
}

/// Targets of the links of a text, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let text = prose(text);
    let numbered = text.lines().enumerate();
    let links = numbered.flat_map(|(number, line)| {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.map(move |target| (number + 1, target.to_owned()))
    });
    links.collect()
}

/// What is wrong with a link of the document at this path.
fn wrong(path: &Path, target: &str) -> Option<String> {
    if target.starts_with("https://") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = match file {
        "" => path.to_owned(),
        file => path.parent().unwrap().join(file),
    };
    if !file.exists() {
        return Some(format!("there is no {target}"));
    }
    let known = anchor.is_empty()
        || anchors(&fs::read_to_string(file).unwrap())
            .iter()
            .any(|known| known == anchor);
    (!known).then(|| format!("no heading has the anchor {target}"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = Vec::new();
    for path in documents() {
        for (line, target) in links(&fs::read_to_string(&path).unwrap()) {
            if let Some(wrong) = wrong(&path, &target) {
                found.push(format!("{}:{line}: {wrong}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn links_and_anchors_are_found() {
    let text = "# A page, `its` name\n[a](b.md#c) and `[no](link)`\n```\n# no heading [no](link)\n```\n## Twice\n## Twice\n";
    assert_eq!(links(text), [(2, "b.md#c".to_owned())]);
    assert_eq!(anchors(text), ["a-page-its-name", "twice", "twice-1"]);
}

#[test]
fn readme_is_short() {
    let lines = document("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines");
}

#[test]
fn readme_leads_to_every_page() {
    let linked = links(&document("README.md"));
    for path in documents() {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let in_docs = name.strip_prefix("docs/").unwrap_or(&name);
        let is_page = !in_docs.contains('/') && name != "README.md";
        assert!(
            !is_page || linked.iter().any(|(_, target)| *target == name),
            "README.md does not link to {name}"
        );
    }
}

/// Files that a page names in code, such as `tests/gateway/limits.rs` or `flow/fault.rs`, exist.
#[test]
fn files_that_documents_name_exist() {
    let mut found = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        if path.ends_with("CHANGELOG.md") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for named in line.split('`').skip(1).step_by(2) {
                let ours = ["tests/", "src/", "benches/", "docs/", "config/"];
                let of_src = named.contains('/') && named.ends_with(".rs");
                let is_path = named
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
                    && (of_src || ours.iter().any(|folder| named.starts_with(folder)));
                let places = [root().join(named), root().join("src").join(named)];
                if is_path && !places.iter().any(|place| place.exists()) {
                    found.push(format!("{}:{}: there is no {named}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
