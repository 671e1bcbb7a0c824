//! See the driver of this name.
#![no_main]

#[path = "../drivers.rs"]
#[allow(dead_code, unused_imports, reason = "each target runs one of the drivers")]
mod drivers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drivers::body(data));
