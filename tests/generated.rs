//! Documents that are made from tables of the code. `UPDATE=1` writes them; otherwise they are compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::PathBuf;

use flowgate::cli::explain::{failures_page, problems_table};

/// Where a generated part of a page begins and ends.
const BEGIN: &str = "<!-- generated: problems -->\n";
const END: &str = "<!-- end -->";

fn page(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn compare(name: &str, expected: &str) {
    let path = page(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/{name} differs from the tables: UPDATE=1 cargo test --test generated"
    );
}

#[test]
fn the_page_of_failures_is_that_of_the_tables() {
    compare("failures.md", &failures_page());
}

#[test]
fn the_page_for_callers_has_the_table_of_problems() {
    let text = fs::read_to_string(page("callers.md")).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("callers.md has the mark");
    let (_, after) = rest.split_once(END).expect("the generated part ends");
    compare(
        "callers.md",
        &format!("{before}{BEGIN}{}{END}{after}", problems_table()),
    );
}
