//! Errors of bodies, and their text.

use std::error::Error;

/// Why a body broke off.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// An error with its causes; hyper's own text names only the outermost.
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
