//! Runs every seed of the fuzz targets, including every input that once broke a promise, through its driver.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says which seed it was"
)]

#[path = "fuzz/drivers.rs"]
mod drivers;

use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap().path())).collect();
    names.sort();
    names
}

/// Runs every seed of a target through its driver; the name of the one that fails is in the output.
fn run(target: &str, driver: fn(&[u8])) {
    let mut count = 0;
    for entry in fs::read_dir(folder().join("seeds").join(target)).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        driver(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{target} has no seeds");
}

macro_rules! targets {
    ($($target:ident $promise:ident;)+) => {
        $(#[test]
        fn $promise() {
            run(stringify!($target), drivers::$target);
        })+

        #[test]
        fn every_target_runs_here() {
            let mut here = vec![$(stringify!($target)),+];
            here.sort_unstable();
            assert_eq!(names(&folder().join("targets")), here);
            assert_eq!(names(&folder().join("seeds")), here);
            let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
            for target in here {
                assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target}");
            }
        }
    };
}

targets! {
    blocks frames_of_http2_go_on_the_same_however_they_arrive;
    body a_body_that_is_read_differs_as_the_settings_say;
    chunks a_chunked_body_is_read_in_one_way;
    entra_answer an_answer_of_entra_becomes_a_token_or_a_refusal_without_its_words;
    fault_body an_answer_of_the_platform_becomes_one_line;
    header_policy fields_pass_or_stay_and_none_is_forged;
    pfx a_pfx_file_is_opened_or_refused_with_one_reason;
    request_head a_request_head_is_read_in_one_way;
    response_head the_head_of_an_answer_is_read_in_one_way;
    settings settings_are_read_to_the_end_and_show_no_secret;
    signature a_signed_request_is_answered_and_none_is_accepted_without_the_secret;
    target a_target_is_forwarded_as_it_was_checked;
    trigger_url an_address_is_kept_byte_for_byte_and_shows_no_secret;
}
