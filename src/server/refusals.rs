//! Lines about connections that are turned away or end badly. A flood of them is counted whole, but must not fill the
//! log: an address and all addresses together have some lines at once and few after that. The first line of a reason
//! in a second is always written, so that no flood hides another event. The next line of a reason counts
//! what was left out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::locked;
use crate::policy::Origin;
use crate::policy::address::Bucket;

/// Lines of all reasons and addresses that may come at once, over all workers.
const BURST: u32 = 200;
/// After that, one in each of these.
const PERIOD: Duration = Duration::from_millis(50);
/// Lines of one reason about one address that may come at once, if each says something of its own.
const PEER_BURST: u32 = 50;
/// After that, one in each of these; so it is from the first on for lines that are all alike.
const PEER_PERIOD: Duration = Duration::from_secs(1);
/// Rest after which a reason has a line whatever else is written.
const REASON_PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Refusals(Mutex<Book>);

/// Whether lines of one reason about one address say more than each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// Each says the same.
    Alike,
    /// Each has a detail.
    Detailed,
}

#[derive(Debug)]
struct Book {
    all: Meter,
    /// Addresses that have had a line lately. Only lines that are written enter one, and each stays for as long as it
    /// has had more lines than its share, so there are never many more than [`BURST`].
    peers: HashMap<(Bucket, &'static str), Meter>,
    /// One for each reason, which are words from the code.
    reasons: HashMap<&'static str, Reason>,
    tidied: Instant,
}

#[derive(Debug)]
struct Reason {
    lines: Meter,
    left_out: u64,
}

/// A rate with a burst, in one instant (generic cell rate algorithm): when all lines so far would have been written at
/// the steady rate.
#[derive(Debug, Clone, Copy)]
struct Meter(Instant);

impl Meter {
    fn admits(self, burst: u32, period: Duration, now: Instant) -> bool {
        self.0.saturating_duration_since(now) <= period * burst.saturating_sub(1)
    }

    fn note(&mut self, period: Duration, now: Instant) {
        self.0 = self.0.max(now) + period;
    }
}

/// A line may be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AdmittedLine {
    /// Refusals of this reason since its last line that got none.
    left_out: u64,
}

impl Refusals {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Book {
            all: Meter(now),
            peers: HashMap::new(),
            reasons: HashMap::new(),
            tidied: now,
        }))
    }

    /// Whether this refusal is written.
    pub(super) fn admit(
        &self,
        peer: SocketAddr,
        reason: &'static str,
        lines: Lines,
        now: Instant,
    ) -> Option<AdmittedLine> {
        let mut book = locked(&self.0);
        book.tidy(now);
        let burst = match lines {
            Lines::Alike => 1,
            Lines::Detailed => PEER_BURST,
        };
        let Book {
            all, peers, reasons, ..
        } = &mut *book;
        let of_reason = reasons.entry(reason).or_insert(Reason {
            lines: Meter(now),
            left_out: 0,
        });
        let key = (Origin::of_peer(peer).bucket(), reason);
        let mut of_peer = peers.get(&key).copied().unwrap_or(Meter(now));
        let rested = of_reason.lines.admits(1, REASON_PERIOD, now);
        let room = of_peer.admits(burst, PEER_PERIOD, now) && all.admits(BURST, PERIOD, now);
        if !rested && !room {
            of_reason.left_out += 1;
            return None;
        }
        if room {
            all.note(PERIOD, now);
        }
        of_peer.note(PEER_PERIOD, now);
        peers.insert(key, of_peer);
        of_reason.lines = Meter(now + REASON_PERIOD);
        Some(AdmittedLine {
            left_out: std::mem::take(&mut of_reason.left_out),
        })
    }
}

impl Book {
    /// Forgets addresses that have been quiet, now and then.
    fn tidy(&mut self, now: Instant) {
        if now >= self.tidied + PEER_PERIOD {
            self.tidied = now;
            self.peers.retain(|_, meter| meter.0 > now);
        }
    }
}

impl AdmittedLine {
    /// The detail of the line, with the lines that it represents.
    pub(super) fn detail(&self, detail: Option<String>) -> Option<String> {
        if self.left_out == 0 {
            return detail;
        }
        let more = format!("{} more of this reason since its last line", self.left_out);
        Some(match detail {
            Some(detail) => format!("{detail}; {more}"),
            None => more,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{AdmittedLine, BURST, Lines, PEER_BURST, PEER_PERIOD, Refusals};

    fn peer(number: u32) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from(0xc000_0200 + number), 1))
    }

    /// How many of so many refusals of each address, one after the other, have a line.
    fn written(refusals: &Refusals, peers: u32, each: u32, lines: Lines, now: Instant) -> u32 {
        let all = (0..each).flat_map(|_| 0..peers);
        let written = all.filter(|number| refusals.admit(peer(*number), "full", lines, now).is_some());
        u32::try_from(written.count()).unwrap()
    }

    #[test]
    fn an_address_has_one_line_a_second_and_the_next_counts_what_was_left_out() {
        let refusals = Refusals::new();
        let now = Instant::now();
        assert_eq!(written(&refusals, 1, 8, Lines::Alike, now), 1);
        // Not another reason's business.
        let other = refusals.admit(peer(0), "other", Lines::Alike, now).unwrap();
        assert_eq!(other.detail(None), None);
        let next = refusals
            .admit(peer(0), "full", Lines::Alike, now + PEER_PERIOD)
            .unwrap();
        assert_eq!(next, AdmittedLine { left_out: 7 });
        assert_eq!(
            next.detail(None).as_deref(),
            Some("7 more of this reason since its last line")
        );
        assert_eq!(
            next.detail(Some("because".into())).as_deref(),
            Some("because; 7 more of this reason since its last line")
        );
        let last = refusals.admit(peer(0), "full", Lines::Alike, now + 2 * PEER_PERIOD);
        assert_eq!(last, Some(AdmittedLine { left_out: 0 }));
    }

    #[test]
    fn lines_with_a_detail_may_come_at_once_and_then_one_a_second() {
        let refusals = Refusals::new();
        let mut now = Instant::now();
        assert_eq!(written(&refusals, 1, 1000, Lines::Detailed, now), PEER_BURST);
        for _ in 0..100 {
            now += PEER_PERIOD;
            assert_eq!(written(&refusals, 1, 1000, Lines::Detailed, now), 1);
        }
        now += PEER_PERIOD * PEER_BURST;
        assert_eq!(
            written(&refusals, 1, 1000, Lines::Detailed, now),
            PEER_BURST,
            "it has rested"
        );
    }

    #[test]
    fn many_addresses_share_a_few_lines() {
        for (lines, each) in [(Lines::Alike, 1), (Lines::Detailed, 5)] {
            let refusals = Refusals::new();
            let mut now = Instant::now();
            assert_eq!(written(&refusals, 1000, each, lines, now), BURST);
            for _ in 0..100 {
                now += Duration::from_secs(1);
                let count = written(&refusals, 1000, each, lines, now);
                assert!((20..=21).contains(&count), "{count} in a second");
            }
        }
    }

    #[test]
    fn a_flood_hides_no_other_reason() {
        let refusals = Refusals::new();
        let now = Instant::now();
        written(&refusals, 1000, 5, Lines::Detailed, now);
        for number in [1, 5000] {
            let reason = ["first", "second"][usize::from(number == 1)];
            let other = refusals.admit(peer(number), reason, Lines::Detailed, now);
            assert_eq!(other, Some(AdmittedLine { left_out: 0 }), "{reason}");
        }
    }

    #[test]
    fn addresses_are_forgotten() {
        let refusals = Refusals::new();
        let mut now = Instant::now();
        for _ in 0..100 {
            written(&refusals, 1000, 2, Lines::Detailed, now);
            now += Duration::from_millis(300);
            let held = refusals.0.lock().unwrap().peers.len();
            assert!(held <= 2 * BURST as usize, "{held}");
        }
        now += PEER_BURST * PEER_PERIOD;
        refusals.admit(peer(0), "full", Lines::Alike, now);
        assert_eq!(refusals.0.lock().unwrap().peers.len(), 1);
    }
}
