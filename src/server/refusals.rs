//! Lines about connections that are turned away at the door. A flood of them is counted whole, but must not fill the
//! log: each address gets a line a second, and all together a few. What was left out is told with the next line.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use crate::policy::Origin;
use crate::policy::address::Bucket;

/// Lines in each [`PERIOD`], over all workers.
const LINES_MAX: usize = 20;
const PERIOD: Duration = Duration::from_secs(1);

/// Which refusals are written.
#[derive(Debug)]
pub(super) struct Refusals(Mutex<Period>);

#[derive(Debug)]
struct Period {
    began: Instant,
    /// What has had its line in this period; never more than [`LINES_MAX`].
    told: Vec<(Bucket, &'static str)>,
    left_out: u64,
}

/// A line may be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Refusals since the last line that got none.
    pub(super) left_out: u64,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Period {
            began: Instant::now(),
            told: Vec::with_capacity(LINES_MAX),
            left_out: 0,
        }))
    }

    /// Whether this refusal is written.
    pub(super) fn tell(&self, peer: SocketAddr, reason: &'static str, now: Instant) -> Option<Told> {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= period.began + PERIOD {
            period.began = now;
            period.told.clear();
        }
        let what = (Origin::of_peer(peer).bucket(), reason);
        if period.told.len() >= LINES_MAX || period.told.contains(&what) {
            period.left_out += 1;
            return None;
        }
        period.told.push(what);
        Some(Told {
            left_out: std::mem::take(&mut period.left_out),
        })
    }
}

impl Told {
    /// What the line says beside the reason.
    pub(super) fn detail(&self) -> Option<String> {
        (self.left_out > 0).then(|| format!("{} refusals before this one have no line", self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::Instant;

    use super::LINES_MAX;
    use super::PERIOD;
    use super::Refusals;
    use super::Told;

    fn peer(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 1))
    }

    #[test]
    fn an_address_has_a_line_a_second_and_the_next_tells_what_it_missed() {
        let refusals = Refusals::new();
        let now = Instant::now();
        assert_eq!(refusals.tell(peer(1), "full", now), Some(Told { left_out: 0 }));
        for _ in 0..7 {
            assert_eq!(refusals.tell(peer(1), "full", now), None);
        }
        let other = refusals.tell(peer(1), "other", now).unwrap();
        assert_eq!(
            other.detail().as_deref(),
            Some("7 refusals before this one have no line")
        );
        assert_eq!(
            refusals.tell(peer(1), "full", now + PERIOD),
            Some(Told { left_out: 0 })
        );
    }

    #[test]
    fn many_addresses_share_a_few_lines() {
        let refusals = Refusals::new();
        let now = Instant::now();
        let told = |now| {
            (0..=255)
                .filter(|number| refusals.tell(peer(*number), "full", now).is_some())
                .count()
        };
        assert_eq!(told(now), LINES_MAX);
        assert_eq!(told(now + PERIOD), LINES_MAX);
    }
}
