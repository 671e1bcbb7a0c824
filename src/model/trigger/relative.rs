//! Checks the relative path after `/invoke`, in every spelling of its characters.

use thiserror::Error;

use crate::model::trigger::escape::unescape;
use crate::model::trigger::target::is_path_byte;

/// Why a relative path cannot be appended to the trigger's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RelativePathError {
    /// Two slashes in a row, or a slash at the end.
    #[error("relative path has an empty segment")]
    EmptySegment,
    /// `.` or `..`, plain or percent-encoded, also between encoded slashes.
    #[error("relative path has a dot segment")]
    DotSegment,
    /// A character that must be encoded in a path, `?` and `#` among them.
    #[error("relative path has a character that is not allowed in a path")]
    Character,
    #[error("relative path has an encoded control character")]
    Control,
    #[error("relative path has a broken percent-encoding")]
    Escape,
    #[error("relative path makes the address longer than 16384 characters")]
    TooLong,
}

/// Checks a relative path in one pass: characters, escapes, and every spelling of `/`, `\` and `.`.
pub(super) fn check_relative(rest: &str) -> Result<(), RelativePathError> {
    let mut left = rest.as_bytes();
    let mut piece = Piece::default();
    let mut segment_bytes = 0usize;
    while let [first, tail @ ..] = left {
        left = tail;
        if !is_path_byte(*first) {
            return Err(RelativePathError::Character);
        }
        let mut byte = *first;
        if byte == b'%' {
            (byte, left) = unescape(left).ok_or(RelativePathError::Escape)?;
            // A percent sign that encodes another escape is decoded too: the server behind might decode
            // twice.
            while let Some((inner, tail)) = unescape(left).filter(|_| byte == b'%') {
                (byte, left) = (inner, tail);
            }
        }
        if byte.is_ascii_control() {
            return Err(RelativePathError::Control);
        }
        if *first == b'/' && segment_bytes == 0 {
            return Err(RelativePathError::EmptySegment);
        }
        segment_bytes = if *first == b'/' { 0 } else { segment_bytes + 1 };
        match byte {
            b'/' | b'\\' => piece.end()?,
            b'.' => piece.dots += 1,
            _ => piece.others += 1,
        }
    }
    if segment_bytes == 0 {
        return Err(RelativePathError::EmptySegment);
    }
    piece.end()
}

/// The text between two slashes of any spelling.
#[derive(Default)]
struct Piece {
    dots: usize,
    others: usize,
}

impl Piece {
    fn end(&mut self) -> Result<(), RelativePathError> {
        if self.others == 0 && (1..=2).contains(&self.dots) {
            return Err(RelativePathError::DotSegment);
        }
        *self = Self::default();
        Ok(())
    }
}
