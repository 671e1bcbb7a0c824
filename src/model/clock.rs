//! The one place that reads the wall clock. Deadlines, limits and the life of tokens never ask it: it may jump by
//! years, and they must not. Only dates that people wrote down (keys, certificates, log lines) are compared with it.

use std::cell::RefCell;
use std::time::Duration;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall clock as an RFC 3339 text in UTC with milliseconds.
pub fn stamp() -> String {
    match Timestamp::try_from(wall()) {
        Ok(time) => format!("{time:.3}"),
        // A clock beyond year 9999; the line still goes out.
        Err(_) => "-".to_owned(),
    }
}

thread_local! {
    /// The text of the second that was asked for last: a busy worker asks thousands of times for the same.
    static DATE: RefCell<(Duration, String)> = const { RefCell::new((Duration::ZERO, String::new())) };
}

/// Adds the wall clock as the value of a `Date` field (RFC 9110 section 6.6.1).
pub fn date(to: &mut Vec<u8>) {
    let now = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    DATE.with_borrow_mut(|(at, text)| {
        if at.as_secs() != now.as_secs() {
            *at = now;
            text.clear();
            if let Ok(time) = Timestamp::from_second(now.as_secs().cast_signed()) {
                // Fails only for years that the form cannot write; then the field stays empty.
                let _ = DateTimePrinter::new().print_timestamp_rfc9110(&time, &mut *text);
            }
        }
        to.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::date;
    use super::stamp;

    #[test]
    fn a_stamp_is_rfc_3339_with_milliseconds() {
        let text = stamp();
        assert_eq!(text.len(), "2026-11-21T03:30:00.000Z".len(), "{text}");
        assert!(text.ends_with('Z'));
    }

    #[test]
    fn a_date_has_the_form_of_http() {
        let mut text = Vec::new();
        date(&mut text);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.len(), "Sun, 06 Nov 1994 08:49:37 GMT".len(), "{text}");
        assert!(text.ends_with(" GMT"));
    }
}
