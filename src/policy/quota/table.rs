//! Failed authentications by address, in bounded memory. An address without failures is not in the table;
//! when the table is full, new addresses share a fixed number of cells until entries expire.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::policy::address::Bucket;
use crate::policy::quota::rate::{Cell, Pace, Ticks};

// Enough that two threads rarely need the same one.
const SHARDS_MAX: usize = 64;

// 128 KiB. To exhaust all of them, a flood must fail this many times the burst, and continue at this many
// times the rate.
const SHARED_CELLS: usize = 16_384;

// So that a flood does not make every failure walk its shard.
const SWEEP_NANOS: u64 = 1_000_000_000;

/// The failures by address, or by what else is counted one by one. Their rate is in the settings.
#[derive(Debug)]
pub(super) struct Addresses<K = Bucket> {
    shards: Box<[Mutex<Shard<K>>]>,
    shard_entries_max: usize,
    shared: Box<[Cell]>,
    // Randomly keyed, so that nobody can choose addresses that collide in one shard or one shared cell.
    hasher: RandomState,
    entries: AtomicUsize,
    clock: Ticks,
}

/// Theoretical arrival times in nanoseconds; an entry whose time has passed is equivalent to no entry.
#[derive(Debug)]
struct Shard<K> {
    arrivals: HashMap<K, u64, RandomState>,
    next_sweep: u64,
}

impl<K: Copy + Eq + Hash> Addresses<K> {
    pub(super) fn new(addresses_max: usize, clock: Ticks) -> Self {
        let shards = addresses_max.clamp(1, SHARDS_MAX);
        let hasher = RandomState::new();
        let shard = || Shard {
            arrivals: HashMap::with_hasher(hasher.clone()),
            next_sweep: 0,
        };
        Self {
            shards: (0..shards).map(|_| Mutex::new(shard())).collect(),
            shard_entries_max: (addresses_max / shards).max(1),
            shared: (0..SHARED_CELLS).map(|_| Cell::default()).collect(),
            hasher,
            entries: AtomicUsize::new(0),
            clock,
        }
    }

    /// Whether an address may try a key, or how long it must wait.
    pub(super) fn probe(&self, bucket: K, pace: &Pace) -> Result<(), Duration> {
        // Almost always there are no failures, and this answers without a lock or a reading of the clock.
        if self.entries() == 0 {
            return Ok(());
        }
        let Some((shard, cell)) = self.places(bucket) else {
            return Ok(());
        };
        let shard = lock(shard);
        if let Some(arrival) = shard.arrivals.get(&bucket) {
            return pace.next(*arrival).map(drop);
        }
        if shard.arrivals.len() >= self.shard_entries_max {
            return cell.probe(pace);
        }
        Ok(())
    }

    /// Takes one failure from an address.
    pub(super) fn take(&self, bucket: K, pace: &Pace) -> Result<(), Duration> {
        let Some((shard, cell)) = self.places(bucket) else {
            return Ok(());
        };
        let mut shard = lock(shard);
        let now = self.clock.now();
        if now >= shard.next_sweep {
            self.sweep_shard(&mut shard, now);
        }
        if let Some(arrival) = shard.arrivals.get_mut(&bucket) {
            *arrival = pace.next(*arrival)?;
            return Ok(());
        }
        if shard.arrivals.len() >= self.shard_entries_max {
            return cell.take(pace);
        }
        shard.arrivals.insert(bucket, pace.next(0)?);
        self.entries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The shard of an address, and the cell that it shares while the shard is full. Neither list is ever empty.
    fn places(&self, bucket: K) -> Option<(&Mutex<Shard<K>>, &Cell)> {
        // The map inside of a shard uses the lowest and the highest bits of the same hash.
        let hash = self.hasher.hash_one(bucket) >> 24;
        Some((pick(&self.shards, hash)?, pick(&self.shared, hash >> 6)?))
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Removes addresses whose failures have all expired, and releases their memory.
    pub(super) fn sweep(&self) {
        for shard in &self.shards {
            self.sweep_shard(&mut lock(shard), self.clock.now());
        }
    }

    fn sweep_shard(&self, shard: &mut Shard<K>, now: u64) {
        let before = shard.arrivals.len();
        shard.arrivals.retain(|_, arrival| *arrival > now);
        self.entries
            .fetch_sub(before - shard.arrivals.len(), Ordering::Relaxed);
        // A map keeps its memory when it is emptied; the threshold avoids moving a shard that fills up again.
        if shard.arrivals.len() < shard.arrivals.capacity() / 4 {
            shard.arrivals.shrink_to(shard.arrivals.len() * 2);
        }
        shard.next_sweep = now.saturating_add(SWEEP_NANOS);
    }
}

fn pick<T>(places: &[T], hash: u64) -> Option<&T> {
    let count = u64::try_from(places.len()).ok()?;
    places.get(usize::try_from(hash.checked_rem(count)?).ok()?)
}

// No change here can panic half-way, so the data behind a poisoned lock is consistent.
fn lock<K>(shard: &Mutex<Shard<K>>) -> MutexGuard<'_, Shard<K>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::time::Duration;

    use tokio::time::advance;

    use super::{SHARED_CELLS, lock};
    use crate::policy::address::{Bucket, Origin};
    use crate::policy::quota::rate::{Pace, Ticks};
    use crate::settings::Rate;

    const SECOND: Duration = Duration::from_secs(1);
    const RATE: Rate = Rate {
        requests: 1,
        per: Duration::from_secs(60),
        burst: 3,
    };

    /// The table with a rate.
    struct Addresses {
        table: super::Addresses,
        pace: Pace,
    }

    impl Addresses {
        fn new(rate: &Rate, addresses_max: usize) -> Self {
            let ticks = Ticks::start();
            Self {
                table: super::Addresses::new(addresses_max, ticks),
                pace: Pace::of(rate, ticks),
            }
        }

        fn probe(&self, bucket: Bucket) -> Result<(), Duration> {
            self.table.probe(bucket, &self.pace)
        }

        fn take(&self, bucket: Bucket) -> Result<(), Duration> {
            self.table.take(bucket, &self.pace)
        }

        fn entries(&self) -> usize {
            self.table.entries()
        }

        fn sweep(&self) {
            self.table.sweep();
        }
    }

    fn addresses(addresses_max: usize) -> Addresses {
        Addresses::new(&RATE, addresses_max)
    }

    fn v4(number: u32) -> Bucket {
        Origin::of_peer(SocketAddr::new(Ipv4Addr::from(number).into(), 1)).bucket()
    }

    fn v6(network: u64, host: u64) -> Bucket {
        let address = u128::from(network) << 64 | u128::from(host);
        Origin::of_peer(SocketAddr::new(Ipv6Addr::from(address).into(), 1)).bucket()
    }

    fn capacity(addresses: &Addresses) -> usize {
        addresses
            .table
            .shards
            .iter()
            .map(|shard| lock(shard).arrivals.capacity())
            .sum()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_refused_after_its_failures_and_forgiven_in_time() {
        let addresses = addresses(100);
        for _ in 0..3 {
            assert!(addresses.probe(v4(1)).is_ok());
            assert!(addresses.take(v4(1)).is_ok());
        }
        assert_eq!(addresses.probe(v4(1)), Err(60 * SECOND));
        assert!(addresses.probe(v4(2)).is_ok());
        advance(60 * SECOND).await;
        assert!(addresses.probe(v4(1)).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_makes_no_entry() {
        let addresses = addresses(100);
        assert!(addresses.take(v4(0)).is_ok());
        for number in 1..1_000 {
            assert!(addresses.probe(v4(number)).is_ok());
        }
        assert_eq!(addresses.entries(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_ipv6_network_of_64_bits_is_one_address() {
        let addresses = addresses(100);
        for host in 0..3 {
            assert!(addresses.take(v6(0x2001_0db8_0000_0001, host)).is_ok());
        }
        assert!(addresses.probe(v6(0x2001_0db8_0000_0001, 77)).is_err());
        assert!(addresses.probe(v6(0x2001_0db8_0000_0002, 77)).is_ok());
        assert_eq!(addresses.entries(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_keeps_the_table_bounded_and_old_entries_their_own() {
        let addresses = addresses(10_000);
        assert!(addresses.take(v4(0)).is_ok());
        for number in 1..=1_000_000 {
            let _ = addresses.take(v6(number << 20, 1));
        }
        assert!(addresses.entries() <= 10_000, "{}", addresses.entries());
        assert!(capacity(&addresses) < 20_000, "{}", capacity(&addresses));
        // The earlier address has its own cell: one failure taken, two left.
        assert!(addresses.take(v4(0)).is_ok());
        assert!(addresses.take(v4(0)).is_ok());
        assert!(addresses.probe(v4(0)).is_err());
        // The cell that a new address shares is exhausted.
        assert!(addresses.probe(v4(1)).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_flood_the_memory_comes_back() {
        let addresses = addresses(10_000);
        for number in 0..20_000 {
            let _ = addresses.take(v4(number));
        }
        let full = capacity(&addresses);
        advance(180 * SECOND).await;
        addresses.sweep();
        assert_eq!(addresses.entries(), 0);
        assert!(
            capacity(&addresses) < full / 50,
            "{} of {full}",
            capacity(&addresses)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn forgiven_addresses_make_room_for_newcomers() {
        let addresses = addresses(1);
        assert!(addresses.take(v4(1)).is_ok());
        advance(61 * SECOND).await;
        assert!(addresses.take(v4(2)).is_ok());
        assert_eq!(addresses.entries(), 1);
        for _ in 0..2 {
            assert!(addresses.take(v4(2)).is_ok());
        }
        assert!(addresses.probe(v4(2)).is_err());
        assert!(addresses.probe(v4(1)).is_ok());
        assert_eq!(shared_in_use(&addresses), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_still_limits_newcomers() {
        let addresses = addresses(0);
        assert!(addresses.take(v4(1)).is_ok());
        for _ in 0..3 {
            assert!(addresses.take(v4(2)).is_ok());
        }
        assert!(addresses.probe(v4(2)).is_err());
        assert_eq!(addresses.entries(), 1);
        assert_eq!(addresses.table.shared.len(), SHARED_CELLS);
    }

    #[test]
    fn threads_together_take_no_more_than_the_burst() {
        let rate = Rate {
            requests: 1,
            per: 3600 * SECOND,
            burst: 100,
        };
        let addresses = Addresses::new(&rate, 1_000);
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..200).filter(|_| addresses.take(v4(7)).is_ok()).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken, 100);
    }

    // Replenished so quickly that an entry expires before its shard may be swept again.
    fn quick(addresses_max: usize) -> Addresses {
        let rate = Rate {
            requests: 2,
            per: SECOND,
            burst: 3,
        };
        Addresses::new(&rate, addresses_max)
    }

    fn shared_in_use(addresses: &Addresses) -> usize {
        let cells = addresses.table.shared.iter();
        cells.filter(|cell| !cell.is_fresh()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_walk_the_table_once_a_second() {
        let addresses = quick(1);
        assert!(addresses.take(v4(1)).is_ok());
        advance(SECOND - Duration::from_nanos(1)).await;
        assert!(addresses.take(v4(2)).is_ok());
        assert_eq!(shared_in_use(&addresses), 1);
        advance(Duration::from_nanos(1)).await;
        assert!(addresses.take(v4(3)).is_ok());
        assert_eq!(shared_in_use(&addresses), 1);
        assert!(lock(&addresses.table.shards[0]).arrivals.contains_key(&v4(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_never_walks_the_table() {
        let addresses = quick(1);
        assert!(addresses.take(v4(1)).is_ok());
        advance(3600 * SECOND).await;
        assert!(addresses.probe(v4(1)).is_ok());
        assert_eq!(addresses.entries(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_forgets_the_forgiven_alone() {
        let addresses = addresses(10_000);
        assert!(addresses.take(v4(1)).is_ok());
        advance(SECOND).await;
        for number in 2..12 {
            assert!(addresses.take(v4(number)).is_ok());
        }
        advance(59 * SECOND).await;
        addresses.sweep();
        assert_eq!(addresses.entries(), 10);
        advance(SECOND).await;
        addresses.sweep();
        assert_eq!(addresses.entries(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_gives_memory_back_only_when_most_of_it_is_empty() {
        let addresses = addresses(64_000);
        let table = &addresses.table;
        for (keeps_more, shrinks) in [(0, false), (-2, true)] {
            let mut shard = lock(&table.shards[0]);
            shard.arrivals.clear();
            shard.arrivals.reserve(400);
            let full = shard.arrivals.capacity();
            let kept = (full / 4).saturating_add_signed(keeps_more);
            // Nothing is removed from the map, because a slot that was emptied may not count as capacity.
            for number in 0..kept {
                shard.arrivals.insert(v4(u32::try_from(number).unwrap()), 9);
            }
            table.sweep_shard(&mut shard, 1);
            assert_eq!(shard.arrivals.len(), kept);
            let capacity = shard.arrivals.capacity();
            assert_eq!(capacity < full, shrinks, "{capacity} of {full}");
            assert!(capacity >= 2 * kept, "{capacity} for {kept}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_spread_over_the_shards_and_the_shared_cells() {
        let addresses = addresses(6_400);
        for number in 0..40_000 {
            let _ = addresses.take(v4(number));
        }
        assert_eq!(addresses.entries(), 6_400);
        // Two for each cell: one in eight stays empty by chance.
        let in_use = shared_in_use(&addresses);
        assert!(in_use > SHARED_CELLS * 3 / 4, "{in_use}");
    }
}
