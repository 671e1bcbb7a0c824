//! A moment to the minute, in 31 bits.

use std::time::{Duration, SystemTime};

const MINUTE_SECONDS: u64 = 60;

/// Minutes since 1970; 31 bits last for 4,000 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(u32);

impl Minute {
    pub const fn new(number: u32) -> Self {
        Self(number & (u32::MAX >> 1))
    }

    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::new(u32::try_from(since.as_secs() / MINUTE_SECONDS).unwrap_or(u32::MAX))
    }

    pub const fn number(self) -> u32 {
        self.0
    }

    /// The seconds since 1970 at which it begins.
    pub fn begin(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * MINUTE_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::Minute;

    #[test]
    fn a_minute_begins_where_it_is_counted_from() {
        let seconds = Duration::from_secs(1_790_000_059);
        let minute = Minute::of(SystemTime::UNIX_EPOCH + seconds);
        assert_eq!((seconds - minute.begin()).as_secs(), 19);
        assert_eq!(Minute::new(minute.number()), minute);
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Minute::of(before), Minute::new(0));
    }
}
