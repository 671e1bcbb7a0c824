//! Ends of tokens that are written as a date: how they are read, and how much is left until then. Two clocks are asked,
//! because either may be wrong: the one that nobody sets since the start, and the one that may have been set right since.

use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::strtime;

use crate::model::clock;
use crate::model::clock::Steady;

/// Longer than any date.
const DATE_BYTES_MAX: usize = 64;
/// How far two clocks of one company are apart at most.
const SKEW: Duration = Duration::from_secs(300);
/// The forms in which older interfaces of App Service write it: on Linux, and on Windows.
const FORMS: [&str; 2] = ["%m/%d/%Y %H:%M:%S %:z", "%m/%d/%Y %I:%M:%S %p %:z"];

/// Reads a date, as the time since the epoch; nothing if it is none, or has no time zone.
pub(crate) fn read(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.len() > DATE_BYTES_MAX {
        return None;
    }
    let of_service = |form: &str| strtime::parse(form, text).ok()?.to_timestamp().ok();
    let found: Option<Timestamp> = FORMS.iter().find_map(|form| of_service(form));
    let found = found.or_else(|| text.parse().ok())?;
    Duration::try_from(found.duration_since(Timestamp::UNIX_EPOCH)).ok()
}

/// The moment by both clocks, as the time since the epoch: first the one that goes on from the start, then the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks([Duration; 2]);

impl Clocks {
    pub(crate) fn read(steady: &Steady) -> Self {
        let since = |time: std::time::SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self([since(steady.now()), since(clock::wall())])
    }

    /// One moment by both.
    #[cfg(test)]
    pub(crate) fn agreed(now: Duration) -> Self {
        Self([now, now])
    }

    /// Whether this end has passed. A clock that was wrong at the start, or that was set wrong since, does not end by itself
    /// what is good.
    pub(crate) fn agree_on_end(&self, end: Duration) -> bool {
        self.0.iter().all(|now| end <= *now)
    }

    /// The time left until this end, of a life of at most `life_max`. The clock that runs on from the start of the process
    /// is used, even if the system clock was set since, unless it is implausible: by it the end has passed, or is further
    /// away than the whole life.
    pub(crate) fn left(&self, end: Duration, life_max: Duration) -> Duration {
        let left = |now: &Duration| end.checked_sub(*now).filter(|left| !left.is_zero());
        let fits = |left: &Duration| *left <= life_max.saturating_add(SKEW);
        let mut either = self.0.iter().filter_map(left);
        let shortest = either.clone().min().unwrap_or_default();
        either.find(fits).unwrap_or(shortest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::proptest;

    use super::{Clocks, read};

    const HOUR: Duration = Duration::from_secs(3600);
    const YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    const NOW: Duration = Duration::from_secs(1_781_924_278);

    #[test]
    fn each_form_of_a_date_is_read() {
        for text in [
            "06/20/2026 02:57:58 +00:00",
            "6/20/2026 2:57:58 AM +00:00",
            "06/20/2026 04:57:58 +02:00",
            "6/19/2026 11:57:58 PM -03:00",
            "2026-06-20T02:57:58Z",
            "2026-06-20T02:57:58+00:00",
            " 06/20/2026 02:57:58 +00:00\n",
        ] {
            assert_eq!(read(text), Some(NOW), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_or_has_no_zone_is_not_guessed() {
        for text in [
            "",
            "tomorrow",
            "06/20/2026 02:57:58",
            "13/20/2026 02:57:58 +00:00",
            "02/30/2026 02:57:58 +00:00",
            "6/20/2026 13:57:58 PM +00:00",
            "2026-06-20 02:57:58.114324",
            "01/01/1969 00:00:00 +00:00",
            &"0".repeat(100_000),
        ] {
            assert_eq!(read(text), None, "{text:.40}");
        }
    }

    #[test]
    fn a_wall_clock_that_was_set_changes_nothing() {
        for wall in [NOW + YEARS, NOW - YEARS, NOW + HOUR / 2, NOW - HOUR / 2] {
            assert_eq!(Clocks([NOW, wall]).left(NOW + HOUR, HOUR), HOUR, "{wall:?}");
        }
    }

    #[test]
    fn a_clock_that_was_wrong_at_the_start_gives_way_to_one_that_was_set_right() {
        for start in [NOW + YEARS, NOW - YEARS, NOW + HOUR, NOW - HOUR] {
            assert_eq!(Clocks([start, NOW]).left(NOW + HOUR, HOUR), HOUR, "{start:?}");
        }
    }

    #[test]
    fn clocks_that_are_both_wrong_give_the_shorter_life_that_is_left() {
        let both = Clocks([NOW - YEARS, NOW - 2 * YEARS]);
        assert_eq!(both.left(NOW + HOUR, HOUR), YEARS + HOUR);
        assert_eq!(
            Clocks::agreed(NOW + 2 * HOUR).left(NOW + HOUR, HOUR),
            Duration::ZERO
        );
    }

    #[test]
    fn an_end_has_passed_when_both_clocks_say_so() {
        assert!(Clocks::agreed(NOW).agree_on_end(NOW));
        assert!(!Clocks([NOW + YEARS, NOW]).agree_on_end(NOW + HOUR));
        assert!(!Clocks([NOW, NOW + YEARS]).agree_on_end(NOW + HOUR));
    }

    proptest! {
        #[test]
        fn no_text_ends_the_reader(text in "\\PC{0,80}", near in "[0-9/: +APMTZ.-]{0,40}") {
            let _ = (read(&text), read(&near));
        }
    }
}
