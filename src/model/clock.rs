//! The clocks. Reading one costs as much as a hash table look-up, so a worker reads it once each time it is
//! woken.
//!
//! This is the only file that reads the wall clock. It may jump by years, so deadlines, limits and the
//! lifetime of tokens never use it. Only dates that people wrote (keys, certificates, log lines) are compared
//! with it.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::time::Instant;

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// The monotonic clock, read when this [`turn`] began; outside of a turn it is read anew.
pub fn now() -> Instant {
    NOW.get().unwrap_or_else(Instant::now)
}

/// Runs one turn of a task on its worker, for which [`now`] does not change. A turn takes microseconds, so
/// nothing in it may measure itself with [`now`].
pub fn turn<T>(work: impl FnOnce() -> T) -> T {
    struct Over(Option<Instant>);
    impl Drop for Over {
        fn drop(&mut self) {
            NOW.set(self.0);
        }
    }
    let _over = Over(NOW.replace(Some(Instant::now())));
    work()
}

/// The wall clock, computed from the monotonic clock and a reading at most a second old. Good enough to show,
/// not to decide with.
pub fn wall_nearly() -> SystemTime {
    let now = now();
    if let Some((at, wall)) = WALL.get() {
        let passed = now.saturating_duration_since(at);
        if passed < Duration::from_secs(1) {
            return wall.checked_add(passed).unwrap_or(wall);
        }
    }
    let wall = wall();
    WALL.set(Some((now, wall)));
    wall
}

/// The wall clock without the changes that were made to it since the start. Dates that others wrote, such as
/// a token's expiry, are compared with this one where a jump of the clock must not change the result.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    wall: SystemTime,
    since: Instant,
}

impl Steady {
    pub fn from(wall: SystemTime) -> Self {
        Self {
            wall,
            since: Instant::now(),
        }
    }

    pub fn now(&self) -> SystemTime {
        // The sum overflows only around the year 292 billion.
        self.wall.checked_add(self.since.elapsed()).unwrap_or(self.wall)
    }
}

/// Formats a date with its distance from `now`: `2026-11-01 (28 days ago)`. Both are seconds since 1970.
pub fn dated(seconds: i64, now: i64) -> String {
    let apart = seconds.saturating_sub(now);
    let (count, unit) = match apart.unsigned_abs() {
        days @ 86_400.. => (days / 86_400, "day"),
        hours @ 3_600.. => (hours / 3_600, "hour"),
        minutes @ 60.. => (minutes / 60, "minute"),
        seconds => (seconds, "second"),
    };
    let plural = if count == 1 { "" } else { "s" };
    let form = if unit == "day" {
        "%Y-%m-%d"
    } else {
        "%Y-%m-%d %H:%M:%S UTC"
    };
    let date = Timestamp::from_second(seconds).map_or_else(
        |_| "at no date of this calendar".to_owned(),
        |at| at.strftime(form).to_string(),
    );
    match apart.signum() {
        -1 => format!("{date} ({count} {unit}{plural} ago)"),
        0 => format!("{date} (now)"),
        _ => format!("{date} (in {count} {unit}{plural})"),
    }
}

/// The same for moments.
pub fn dated_time(time: SystemTime, now: SystemTime) -> String {
    let seconds = |time: SystemTime| Timestamp::try_from(time).map_or(i64::MAX, Timestamp::as_second);
    dated(seconds(time), seconds(now))
}

/// The wall clock as an RFC 3339 text in UTC with milliseconds.
pub fn stamp() -> String {
    stamp_of(wall())
}

fn stamp_of(time: SystemTime) -> String {
    // Before 1970 the seconds count downwards, so only later times are assembled from parts.
    let Ok(since) = time.duration_since(SystemTime::UNIX_EPOCH) else {
        return Timestamp::try_from(time).map_or_else(|_| "-".to_owned(), |time| format!("{time:.3}"));
    };
    SECOND.with_borrow_mut(|(at, text)| {
        if *at != since.as_secs() || text.is_empty() {
            *at = since.as_secs();
            // If the clock is beyond year 9999, the line is written without a date.
            *text = Timestamp::from_second(at.cast_signed()).map_or_else(
                |_| "-".to_owned(),
                |time| format!("{time}").trim_end_matches('Z').to_owned(),
            );
        }
        match text.as_str() {
            "-" => text.clone(),
            text => format!("{text}.{:03}Z", since.subsec_millis()),
        }
    })
}

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    /// A wall clock reading and when it was made.
    static WALL: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
    /// The text of the second that was stamped last.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    /// The text of the second that was formatted last: a busy worker asks thousands of times for the same.
    static DATE: RefCell<(Duration, String)> = const { RefCell::new((Duration::ZERO, String::new())) };
}

/// Appends the wall clock as the value of a `Date` field (RFC 9110 section 6.6.1).
pub fn date(to: &mut Vec<u8>) {
    let now = wall_nearly()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    DATE.with_borrow_mut(|(at, text)| {
        if at.as_secs() != now.as_secs() {
            *at = now;
            text.clear();
            if let Ok(time) = Timestamp::from_second(now.as_secs().cast_signed()) {
                // Fails only for years that the format cannot express; then the field stays empty.
                let _ = DateTimePrinter::new().print_timestamp_rfc9110(&time, &mut *text);
            }
        }
        to.extend_from_slice(text.as_bytes());
    });
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3). A date is left aside: Entra and the platform send seconds.
pub(crate) fn retry_after(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{date, dated, now, stamp, stamp_of, turn, wall, wall_nearly};

    #[test]
    fn a_date_says_how_far_it_is() {
        let now = 1_790_000_000;
        for (seconds, text) in [
            (now - 28 * 86_400, "2026-08-24 (28 days ago)"),
            (now + 86_400, "2026-09-22 (in 1 day)"),
            (now - 3600, "2026-09-21 13:13:20 UTC (1 hour ago)"),
            (now + 119, "2026-09-21 14:15:19 UTC (in 1 minute)"),
            (now, "2026-09-21 14:13:20 UTC (now)"),
        ] {
            assert_eq!(dated(seconds, now), text);
        }
        assert!(dated(i64::MAX, now).starts_with("at no date"));
        assert!(dated(i64::MIN, i64::MAX).ends_with("days ago)"));
    }

    #[test]
    fn a_stamp_is_rfc_3339_with_milliseconds() {
        let text = stamp();
        assert_eq!(text.len(), "2026-11-21T03:30:00.000Z".len(), "{text}");
        let moments = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_780_000_000_999, "2026-05-28T20:26:40.999Z"),
            (1_780_000_000_001, "2026-05-28T20:26:40.001Z"),
            (1_780_000_001_050, "2026-05-28T20:26:41.050Z"),
        ];
        for (millis, text) in moments {
            assert_eq!(stamp_of(UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
        let before = UNIX_EPOCH - Duration::from_millis(1);
        assert_eq!(stamp_of(before), "1969-12-31T23:59:59.999Z");
        let beyond = UNIX_EPOCH + Duration::from_secs(400_000_000_000);
        assert_eq!(stamp_of(beyond), "-");
    }

    #[tokio::test(start_paused = true)]
    async fn time_does_not_change_during_a_turn() {
        let begin = now();
        turn(|| {
            assert_eq!(now(), begin);
            turn(|| assert_eq!(now(), begin));
            assert_eq!(now(), begin);
        });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(now() - begin, Duration::from_secs(1));
    }

    #[test]
    fn the_wall_clock_is_nearly_right() {
        for _ in 0..2 {
            let difference = wall().duration_since(wall_nearly()).unwrap_or_default();
            assert!(difference < Duration::from_secs(1), "{difference:?}");
        }
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
