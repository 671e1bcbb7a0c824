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
use flowgate::cli::vendors::presets_table;

/// Where a generated part of a page ends.
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

/// The same for a part of a page, behind a mark.
fn compare_part(name: &str, part: &str, expected: &str) {
    let begin = format!("<!-- generated: {part} -->\n");
    let text = fs::read_to_string(page(name)).unwrap();
    let (before, rest) = text.split_once(&begin).expect("the page has the mark");
    let (_, after) = rest.split_once(END).expect("the generated part ends");
    compare(name, &format!("{before}{begin}{expected}{END}{after}"));
}

#[test]
fn the_page_of_failures_is_that_of_the_tables() {
    compare("failures.md", &failures_page());
}

#[test]
fn the_page_for_callers_has_the_table_of_problems() {
    compare_part("callers.md", "problems", &problems_table());
}

#[test]
fn the_page_of_vendors_has_the_table_of_presets() {
    compare_part("vendors.md", "presets", &presets_table());
}
