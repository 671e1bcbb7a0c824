//! Random names in the forms that the platform uses: workflow ids, GUIDs, signatures and run ids.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Numbers runs across all emulators of a process, so that run ids are unique.
static RUNS: AtomicU64 = AtomicU64::new(1);

pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The SHA-256 of `bytes` in hexadecimal digits, the form in which recorded bodies are compared.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Base64 with the URL alphabet and without padding, as tokens and signatures use it.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A random workflow id of 32 hexadecimal digits.
pub fn workflow_id() -> String {
    hex(&random_bytes::<16>())
}

/// A random signature of 43 characters.
pub fn signature() -> String {
    base64url(&random_bytes::<32>())
}

/// A random GUID.
pub fn guid() -> String {
    uuid::Uuid::from_bytes(random_bytes::<16>()).to_string()
}

/// The next run id: 29 digits, `CU` and two digits.
pub fn run_id() -> String {
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    format!("08584{number:024}CU00")
}

/// The current Unix time in seconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
