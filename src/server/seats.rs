//! Seats for connections: how many are taken in all, by one address and on each worker. It decides whether a newcomer
//! gets one; who is turned away, and in what words, is the acceptor's business. Those inside are never asked to leave.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use crate::counters::{Counters, WorkerLabels};
use crate::model::locked;
use crate::policy::address::Bucket;
use crate::policy::{Networks, Origin};
use crate::server::reason;
use crate::server::reason::Reason;
use crate::settings::{ConnectionSettings, NetworkSettings};

/// Addresses for which memory is kept ready; what a flood of them took is given back.
const ADDRESSES_KEPT: usize = 1024;

/// One in so many connections, of all and of one address, may linger for long after its last answer: callers that send
/// what nobody reads keep few seats from others.
const LINGERING_SHARE: usize = 8;

/// What one address has.
#[derive(Debug, Default)]
struct Taken {
    seats: usize,
    /// Those whose connections linger.
    lingering: usize,
}

#[derive(Debug)]
pub(super) struct Seats {
    max: usize,
    taken: AtomicUsize,
    changed: Notify,
    per_address_max: usize,
    exempt: Option<Networks>,
    lingering: AtomicUsize,
    /// Each address that has a seat, so never more entries than seats.
    by_address: Mutex<HashMap<Bucket, Taken>>,
    by_worker: Box<[Gauge]>,
    gauge: Gauge,
}

/// One open connection.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    bucket: Option<Bucket>,
    worker: usize,
}

/// Whether the seats of a peer's address are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    /// Unless it is in a network that the settings exempt.
    ByAddress,
    /// They are not: the listener lets in none but peers that the settings name.
    Named,
}

impl Seats {
    pub(super) fn new(settings: &ConnectionSettings, workers: usize, counters: &Counters) -> Arc<Self> {
        let exempt = NetworkSettings {
            allow: settings.per_address_exempt.clone(),
            deny: Vec::new(),
        };
        let by_worker = (0..workers)
            .map(|worker| {
                let worker = u32::try_from(worker).unwrap_or(u32::MAX);
                counters
                    .worker_connections
                    .get_or_create(&WorkerLabels { worker })
                    .clone()
            })
            .collect();
        Arc::new(Self {
            max: settings.max,
            taken: AtomicUsize::new(0),
            changed: Notify::new(),
            per_address_max: settings.per_address_max,
            // An empty list would let in everybody.
            exempt: (!exempt.allow.is_empty()).then(|| Networks::build(&exempt)),
            lingering: AtomicUsize::new(0),
            by_address: Mutex::default(),
            by_worker,
            gauge: counters.connections.clone(),
        })
    }

    pub(super) fn take(
        self: &Arc<Self>,
        worker: usize,
        peer: SocketAddr,
        counting: Counting,
    ) -> Result<Seat, Reason> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(reason::CONNECTIONS_FULL);
        }
        let origin = Origin::of_peer(peer);
        let bucket = (counting == Counting::ByAddress && !self.is_exempt(origin)).then(|| origin.bucket());
        if let Some(bucket) = bucket
            && !self.take_of_address(bucket)
        {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(reason::CONNECTIONS_FULL_ADDRESS);
        }
        self.gauge.inc();
        if let Some(gauge) = self.by_worker.get(worker) {
            gauge.inc();
        }
        Ok(Seat {
            seats: self.clone(),
            bucket,
            worker,
        })
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) async fn emptied(&self) {
        loop {
            let changed = self.changed.notified();
            if self.taken() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// The worker with the fewest connections, if this one has noticeably more.
    ///
    /// Few connections are spread as evenly as they can be, give or take one, for each may carry a good part of the
    /// load. With many, an eighth is what chance makes of it, and evening that out would only cost wake-ups.
    pub(super) fn calmer(&self, worker: usize) -> Option<usize> {
        let own = self.by_worker.get(worker)?.get();
        let counts = self.by_worker.iter().map(Gauge::get).enumerate();
        let (calmest, least) = counts.min_by_key(|(_, count)| *count)?;
        (own > least + 1 + least / 8).then_some(calmest)
    }

    fn is_exempt(&self, origin: Origin) -> bool {
        self.exempt
            .as_ref()
            .is_some_and(|exempt| exempt.admit(origin).is_ok())
    }

    fn take_of_address(&self, bucket: Bucket) -> bool {
        let mut addresses = locked(&self.by_address);
        let taken = addresses.entry(bucket).or_default();
        let free = taken.seats < self.per_address_max;
        taken.seats += usize::from(free);
        free
    }

    fn linger_of_address(&self, bucket: Bucket) -> bool {
        let mut addresses = locked(&self.by_address);
        let Some(taken) = addresses.get_mut(&bucket) else {
            return false;
        };
        let free = taken.lingering < share(self.per_address_max);
        taken.lingering += usize::from(free);
        free
    }

    fn leave_address(&self, bucket: Bucket) {
        let mut addresses = locked(&self.by_address);
        if let Entry::Occupied(mut taken) = addresses.entry(bucket) {
            taken.get_mut().seats -= 1;
            if taken.get().seats == 0 {
                taken.remove();
            }
        }
        let kept = addresses.len().saturating_mul(4).max(ADDRESSES_KEPT);
        if addresses.capacity() > kept.saturating_mul(2) {
            addresses.shrink_to(kept);
        }
    }
}

/// Of so many seats, those whose connections may linger.
fn share(seats: usize) -> usize {
    (seats / LINGERING_SHARE).max(1)
}

impl Seat {
    /// Lets the connection linger for long, if not too many do already.
    pub(super) fn linger(&self) -> Option<Lingering<'_>> {
        let seats = &*self.seats;
        if seats.lingering.fetch_add(1, Ordering::Relaxed) >= share(seats.max)
            || self.bucket.is_some_and(|bucket| !seats.linger_of_address(bucket))
        {
            seats.lingering.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Lingering(self))
    }
}

/// A connection that may linger for long.
#[derive(Debug)]
pub(super) struct Lingering<'a>(&'a Seat);

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        let seats = &*self.0.seats;
        seats.lingering.fetch_sub(1, Ordering::Relaxed);
        if let Some(bucket) = self.0.bucket
            && let Some(taken) = locked(&seats.by_address).get_mut(&bucket)
        {
            taken.lingering -= 1;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let seats = &*self.seats;
        if let Some(bucket) = self.bucket {
            seats.leave_address(bucket);
        }
        if let Some(gauge) = seats.by_worker.get(self.worker) {
            gauge.dec();
        }
        seats.gauge.dec();
        seats.taken.fetch_sub(1, Ordering::Relaxed);
        seats.changed.notify_waiters();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::{ADDRESSES_KEPT, Counting, Seats};
    use crate::counters::Counters;
    use crate::model::locked;
    use crate::server::reason;
    use crate::settings::ConnectionSettings;

    pub(in crate::server) fn seats(max: usize, per_address_max: usize, exempt: &[&str]) -> Arc<Seats> {
        let settings = ConnectionSettings {
            max,
            per_address_max,
            per_address_exempt: exempt.iter().map(|network| network.parse().unwrap()).collect(),
            ..ConnectionSettings::default()
        };
        Seats::new(&settings, 3, &Counters::new())
    }

    fn peer(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 40_000)
    }

    #[test]
    fn an_address_has_so_many_seats_and_gets_them_back() {
        let seats = seats(100, 2, &[]);
        let take = |address| seats.take(0, peer(address), Counting::ByAddress);
        let first = take("192.0.2.1").unwrap();
        let _second = take("::ffff:192.0.2.1").unwrap();
        assert_eq!(take("192.0.2.1").unwrap_err(), reason::CONNECTIONS_FULL_ADDRESS);
        let _neighbour = take("192.0.2.2").unwrap();
        assert_eq!(seats.taken(), 3, "a refusal takes nothing");
        drop(first);
        take("192.0.2.1").unwrap();
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let seats = seats(100, 1, &[]);
        let take = |address| seats.take(0, peer(address), Counting::ByAddress);
        let _one = take("2001:db8:0:1::1").unwrap();
        assert_eq!(
            take("2001:db8:0:1:ffff::2").unwrap_err(),
            reason::CONNECTIONS_FULL_ADDRESS
        );
        take("2001:db8:0:2::1").unwrap();
    }

    #[test]
    fn an_exempt_network_has_all_seats_but_no_more() {
        let seats = seats(3, 1, &["10.0.0.0/8"]);
        let take = |address| seats.take(0, peer(address), Counting::ByAddress);
        let kept = [take("10.0.0.1").unwrap(), take("10.0.0.1").unwrap()];
        let _other = take("192.0.2.1").unwrap();
        assert_eq!(take("10.0.0.1").unwrap_err(), reason::CONNECTIONS_FULL);
        drop(kept);
        assert_eq!(take("192.0.2.1").unwrap_err(), reason::CONNECTIONS_FULL_ADDRESS);
        seats.take(0, peer("192.0.2.1"), Counting::Named).unwrap();
    }

    #[test]
    fn one_in_eight_connections_may_linger_of_all_and_of_one_address() {
        let seats = seats(32, 16, &[]);
        let take = |address| seats.take(0, peer(address), Counting::ByAddress).unwrap();
        let mine: Vec<_> = (0..3).map(|_| take("192.0.2.1")).collect();
        let first = mine[0].linger().unwrap();
        let _second = mine[1].linger().unwrap();
        assert!(mine[2].linger().is_none(), "the address has its share");
        let others = ["192.0.2.2", "192.0.2.3", "192.0.2.4"].map(take);
        let _third = others[0].linger().unwrap();
        let _fourth = others[1].linger().unwrap();
        assert!(others[2].linger().is_none(), "no more of all");
        drop(first);
        assert!(others[2].linger().is_some());
        assert!(mine[2].linger().is_some());
    }

    #[test]
    fn addresses_that_have_left_are_forgotten() {
        let seats = seats(usize::MAX, 1, &[]);
        let all: Vec<_> = (0..100_000u32)
            .map(|number| {
                let address = SocketAddr::from((number.to_be_bytes(), 1));
                seats.take(0, address, Counting::ByAddress).unwrap()
            })
            .collect();
        assert_eq!(locked(&seats.by_address).len(), 100_000);
        drop(all);
        let addresses = locked(&seats.by_address);
        assert_eq!(addresses.len(), 0);
        assert!(
            addresses.capacity() <= 4 * ADDRESSES_KEPT,
            "{}",
            addresses.capacity()
        );
    }

    #[test]
    fn a_worker_that_is_much_busier_knows_a_calmer_one() {
        let seats = seats(1000, 1000, &[]);
        let take = |worker| seats.take(worker, peer("192.0.2.1"), Counting::Named).unwrap();
        let mut taken = vec![take(0)];
        assert_eq!(seats.calmer(0), None, "one more is not much");
        taken.push(take(0));
        assert_eq!(seats.calmer(0), Some(1));
        taken.extend([take(1), take(2)]);
        assert_eq!(seats.calmer(0), None);
        for _ in 0..80 {
            taken.extend([take(0), take(1), take(2)]);
        }
        taken.extend((0..9).map(|_| take(2)));
        assert_eq!(seats.calmer(2), None, "ten of eighty are chance");
        taken.extend((0..3).map(|_| take(2)));
        assert_eq!(seats.calmer(2), Some(1));
        assert_eq!(seats.calmer(1), None);
    }
}
