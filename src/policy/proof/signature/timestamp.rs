//! The timestamp of a delivery: read strictly, and compared with the wall clock in both directions, because either clock may
//! be wrong or step.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use crate::model::signature::{TimeUnit, TimestampRecipe};
use crate::policy::proof::signature::refusal::Unverified;

/// Longest timestamp: a date with nanoseconds and an offset.
const BYTES_MAX: usize = 40;

/// Reads a timestamp and compares it with `now`. The text itself is what was signed.
pub(super) fn check(
    text: &str,
    recipe: &TimestampRecipe,
    place: &str,
    now: SystemTime,
) -> Result<SystemTime, Unverified> {
    let place = place.to_owned();
    let Some(at) = read(text, recipe.unit) else {
        let expected = match recipe.unit {
            TimeUnit::Seconds => "a number of seconds since 1970",
            TimeUnit::Milliseconds => "a number of milliseconds since 1970",
            TimeUnit::Rfc3339 => "a date of RFC 3339",
        };
        return Err(Unverified::TimestampForm { place, expected });
    };
    let apart = now.duration_since(at).unwrap_or_else(|ahead| ahead.duration());
    match recipe.tolerance {
        Some(tolerance) if apart > tolerance => Err(Unverified::TimestampOutside {
            place,
            at: seconds(at),
            now: seconds(now),
            tolerance,
        }),
        _ => Ok(at),
    }
}

fn read(text: &str, unit: TimeUnit) -> Option<SystemTime> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let since = match unit {
        TimeUnit::Rfc3339 => {
            let at: Timestamp = text.parse().ok()?;
            return Some(at.into());
        }
        // Not by the parser alone, which also takes a plus sign.
        _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => return None,
        TimeUnit::Seconds => Duration::from_secs(text.parse().ok()?),
        TimeUnit::Milliseconds => Duration::from_millis(text.parse().ok()?),
    };
    UNIX_EPOCH.checked_add(since)
}

pub(super) fn seconds(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::check;
    use crate::model::signature::{Place, TimeUnit, TimestampPlace, TimestampRecipe};
    use crate::policy::proof::signature::Unverified;

    const NOW: u64 = 1_790_000_000;

    fn checked(text: &str, unit: TimeUnit) -> Result<u64, Unverified> {
        let recipe = TimestampRecipe {
            place: TimestampPlace::At(Place::header("x-time")),
            unit,
            tolerance: Some(Duration::from_secs(300)),
        };
        let at = check(
            text,
            &recipe,
            "header:x-time",
            UNIX_EPOCH + Duration::from_secs(NOW),
        )?;
        Ok(at.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn the_tolerance_is_the_same_before_and_after() {
        for (text, is_inside) in [
            (NOW - 300, true),
            (NOW - 301, false),
            (NOW + 300, true),
            (NOW + 301, false),
            (NOW * 1000, false),
            (0, false),
        ] {
            let read = checked(&text.to_string(), TimeUnit::Seconds);
            assert_eq!(read.is_ok(), is_inside, "{text}");
        }
        assert_eq!(
            checked(&(NOW * 1000 + 300_000).to_string(), TimeUnit::Milliseconds),
            Ok(NOW + 300)
        );
        assert!(checked(&(NOW * 1000 + 300_001).to_string(), TimeUnit::Milliseconds).is_err());
        assert_eq!(checked("2026-09-21T14:13:20Z", TimeUnit::Rfc3339), Ok(NOW));
        assert_eq!(
            checked("2026-09-21T16:13:20.000+02:00", TimeUnit::Rfc3339),
            Ok(NOW)
        );
    }

    #[test]
    fn a_timestamp_in_another_unit_is_named() {
        let refusal = checked(&(NOW * 1000).to_string(), TimeUnit::Seconds).unwrap_err();
        assert!(refusal.to_string().contains("milliseconds?"), "{refusal}");
    }

    #[test]
    fn a_timestamp_is_a_plain_number_or_a_date() {
        let digits = "1".repeat(400);
        let nines = "9".repeat(20);
        for text in [
            "",
            "-1",
            "+1790000000",
            "1.79e9",
            " 1790000000",
            "0x1",
            "１",
            "1790000000,",
            &digits,
            &nines,
        ] {
            for unit in [TimeUnit::Seconds, TimeUnit::Milliseconds, TimeUnit::Rfc3339] {
                let refusal = checked(text, unit).unwrap_err();
                assert!(
                    matches!(refusal, Unverified::TimestampForm { .. }),
                    "{text}: {refusal}"
                );
            }
        }
        // The largest number there is: no overflow.
        assert!(checked(&u64::MAX.to_string(), TimeUnit::Seconds).is_err());
        assert!(checked(&u64::MAX.to_string(), TimeUnit::Milliseconds).is_err());
    }
}
