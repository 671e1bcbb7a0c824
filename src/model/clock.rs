//! The one place that reads the wall clock. Deadlines, limits and the life of tokens never ask it: it may jump by
//! years, and they must not. Only dates that people wrote down (keys, certificates, log lines) are compared with it.

use std::time::SystemTime;

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall clock as an RFC 3339 text in UTC with milliseconds.
pub fn stamp() -> String {
    match jiff::Timestamp::try_from(wall()) {
        Ok(time) => format!("{time:.3}"),
        // A clock beyond year 9999; the line still goes out.
        Err(_) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::stamp;

    #[test]
    fn a_stamp_is_rfc_3339_with_milliseconds() {
        let text = stamp();
        assert_eq!(text.len(), "2026-11-21T03:30:00.000Z".len(), "{text}");
        assert!(text.ends_with('Z'));
    }
}
