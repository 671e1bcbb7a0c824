//! Deliveries in memory: forgotten by a restart, unknown to other instances. What is under way is never forgotten, and is no
//! more than the requests that run; of what was answered there is a largest number, and of the answers a largest size.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::deliveries::{Delivery, DeliveryStore, Digest, Earlier, KeptAnswer, Running, Started};
use crate::model::{RequestId, clock, locked};

/// Enough that two threads rarely need the same one.
const SHARDS: usize = 16;
/// Deliveries that are forgotten, and senders that are looked at, under one lock: a worker may wait for it.
const SWEPT_MAX: usize = 256;

pub struct Memory {
    shards: [Mutex<Shard>; SHARDS],
    // Randomly keyed, so that nobody can choose ids that meet in one shard.
    hasher: RandomState,
    /// Of one shard.
    entries_max: AtomicUsize,
    bytes_max: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Digest, Entry>,
    /// Those with an answer, by sender.
    senders: BTreeMap<u64, Sender>,
    /// Senders by how many deliveries they have, and by the bytes of their answers, where there are any: which one has the most
    /// is known without a look at each.
    by_count: BTreeSet<(usize, u64)>,
    by_bytes: BTreeSet<(usize, u64)>,
    /// The number of the next answer.
    next: u64,
    answered: usize,
    bytes: usize,
}

/// What was answered to a sender, the oldest first.
#[derive(Default)]
struct Sender {
    answered: BTreeMap<u64, Digest>,
    /// Those whose answer is more than a status.
    whole: BTreeMap<u64, Digest>,
    bytes: usize,
}

struct Entry {
    content: Digest,
    request: RequestId,
    sender: u64,
    state: State,
}

enum State {
    /// Dropped without an answer, it wakes those that wait.
    Running(watch::Sender<Option<Arc<KeptAnswer>>>),
    Answered {
        answer: Arc<KeptAnswer>,
        until: Instant,
        number: u64,
    },
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// For so many answered deliveries, and so many bytes of their answers.
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        let memory = Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            entries_max: AtomicUsize::default(),
            bytes_max: AtomicUsize::default(),
        };
        memory.resize(entries_max, bytes_max);
        memory
    }

    /// Changes what there is room for; it applies from the next answer of each shard on.
    pub fn resize(&self, entries_max: usize, bytes_max: usize) {
        self.entries_max
            .store((entries_max / SHARDS).max(1), Ordering::Relaxed);
        self.bytes_max.store(bytes_max / SHARDS, Ordering::Relaxed);
    }

    /// Answered deliveries, and the bytes of their answers.
    pub fn used(&self) -> (usize, usize) {
        let used = self.shards.iter().map(locked);
        let used = used.map(|shard| (shard.answered, shard.bytes));
        used.fold((0, 0), |sum, used| (sum.0 + used.0, sum.1 + used.1))
    }

    /// Forgets deliveries whose time is over, and gives their memory back.
    pub fn sweep(&self) {
        let now = clock::now();
        for shard in &self.shards {
            // Others get the lock in between.
            let mut from = Some(0);
            while let Some(sender) = from {
                from = locked(shard).sweep(now, sender);
            }
        }
    }

    fn shard(&self, key: &Digest) -> Option<&Mutex<Shard>> {
        // The map inside of a shard uses other bits of its own hash.
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default();
        self.shards.get(hash % SHARDS)
    }

    fn start(&self, delivery: &Delivery) -> Started {
        // There always is one.
        let Some(shard) = self.shard(&delivery.key) else {
            return Started::First;
        };
        let mut shard = locked(shard);
        if let Some(entry) = shard.entries.get(&delivery.key) {
            if entry.content != delivery.content && !entry.is_over(clock::now()) {
                return Started::Earlier(Earlier::Differs(entry.request));
            }
            match &entry.state {
                State::Running(ended) => {
                    let mut ended = ended.subscribe();
                    let first = entry.request;
                    let end = Box::pin(async move {
                        let answer = ended.wait_for(Option::is_some).await.ok()?;
                        answer.clone()
                    });
                    return Started::Earlier(Earlier::Running(Running { first, end }));
                }
                State::Answered { answer, until, .. } if clock::now() < *until => {
                    return Started::Earlier(Earlier::Answered(answer.clone()));
                }
                State::Answered { .. } => shard.forget(&delivery.key),
            }
        }
        shard.entries.insert(
            delivery.key,
            Entry {
                content: delivery.content,
                request: delivery.request,
                sender: delivery.sender,
                state: State::Running(watch::Sender::new(None)),
            },
        );
        Started::First
    }
}

impl DeliveryStore for Memory {
    fn try_start<'s>(&'s self, delivery: &'s Delivery) -> BoxFuture<'s, Started> {
        Box::pin(ready(self.start(delivery)))
    }

    fn complete(&self, delivery: &Delivery, answer: KeptAnswer, window: Duration) {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        let entries_max = self.entries_max.load(Ordering::Relaxed);
        let Some(shard) = self.shard(&delivery.key) else {
            return;
        };
        let answer = Arc::new(answer);
        let mut shard = locked(shard);
        let ended = shard.answer(delivery, &answer, clock::now() + window);
        shard.shrink(entries_max, bytes_max);
        drop(shard);
        if let Some(ended) = ended {
            // Who waits gets all of it, also where there is no room to keep it.
            ended.send_replace(Some(answer));
        }
    }

    fn abort(&self, delivery: &Delivery) {
        let Some(shard) = self.shard(&delivery.key) else {
            return;
        };
        let mut shard = locked(shard);
        let entry = shard.entries.get(&delivery.key);
        if entry.is_some_and(|entry| entry.is_run_by(delivery)) {
            shard.entries.remove(&delivery.key);
        }
    }
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        matches!(self.state, State::Answered { until, .. } if until <= now)
    }

    fn is_run_by(&self, delivery: &Delivery) -> bool {
        matches!(self.state, State::Running(_)) && self.request == delivery.request
    }
}

impl Shard {
    /// Keeps an answer; returns what wakes those that wait for it.
    fn answer(
        &mut self,
        delivery: &Delivery,
        answer: &Arc<KeptAnswer>,
        until: Instant,
    ) -> Option<watch::Sender<Option<Arc<KeptAnswer>>>> {
        let entry = self.entries.get_mut(&delivery.key)?;
        if !entry.is_run_by(delivery) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let state = State::Answered {
            answer: answer.clone(),
            until,
            number,
        };
        let sender = entry.sender;
        let ended = match mem::replace(&mut entry.state, state) {
            State::Running(ended) => Some(ended),
            State::Answered { .. } => None,
        };
        let bytes = answer.bytes();
        self.answered += 1;
        self.bytes += bytes;
        self.update(sender, |mine| {
            mine.answered.insert(number, delivery.key);
            if bytes > 0 {
                mine.whole.insert(number, delivery.key);
                mine.bytes += bytes;
            }
        });
        ended
    }

    /// Changes what a sender has, and its places among the others.
    fn update(&mut self, sender: u64, change: impl FnOnce(&mut Sender)) {
        let mine = self.senders.entry(sender).or_default();
        self.by_count.remove(&(mine.answered.len(), sender));
        self.by_bytes.remove(&(mine.bytes, sender));
        change(mine);
        if mine.bytes > 0 {
            self.by_bytes.insert((mine.bytes, sender));
        }
        match mine.answered.len() {
            0 => drop(self.senders.remove(&sender)),
            count => drop(self.by_count.insert((count, sender))),
        }
    }

    /// Makes room: of the oldest answers of the sender with the most bytes only the status stays, and the sender with the most
    /// deliveries loses its oldest.
    fn shrink(&mut self, entries_max: usize, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(key) = self.oldest(&self.by_bytes, |most| &most.whole) else {
                break;
            };
            self.strip(&key);
        }
        while self.answered > entries_max {
            let Some(key) = self.oldest(&self.by_count, |most| &most.answered) else {
                break;
            };
            self.forget(&key);
        }
    }

    fn oldest(
        &self,
        order: &BTreeSet<(usize, u64)>,
        of: impl Fn(&Sender) -> &BTreeMap<u64, Digest>,
    ) -> Option<Digest> {
        let (_, sender) = order.last()?;
        let (_, key) = of(self.senders.get(sender)?).first_key_value()?;
        Some(*key)
    }

    /// Keeps nothing of an answer but its status.
    fn strip(&mut self, key: &Digest) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let State::Answered { answer, number, .. } = &mut entry.state else {
            return;
        };
        let (sender, number, bytes) = (entry.sender, *number, answer.bytes());
        *answer = Arc::new(KeptAnswer::bare(answer.request, answer.by, answer.status));
        self.bytes = self.bytes.saturating_sub(bytes);
        self.update(sender, |mine| {
            mine.whole.remove(&number);
            mine.bytes = mine.bytes.saturating_sub(bytes);
        });
    }

    /// Removes a delivery that was answered.
    fn forget(&mut self, key: &Digest) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        let State::Answered { answer, number, .. } = entry.state else {
            return;
        };
        let bytes = answer.bytes();
        self.answered = self.answered.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.update(entry.sender, |mine| {
            mine.answered.remove(&number);
            mine.whole.remove(&number);
            mine.bytes = mine.bytes.saturating_sub(bytes);
        });
    }

    /// Forgets some whose time is over, from this sender on; returns the sender to go on with. Those of one sender end in the
    /// order of their answers, unless its window was changed: then some stay a while longer.
    fn sweep(&mut self, now: Instant, from: u64) -> Option<u64> {
        let is_over = |key: &&Digest| self.entries.get(*key).is_some_and(|entry| entry.is_over(now));
        let mut over = Vec::new();
        let mut next = None;
        for (looked_at, (sender, mine)) in self.senders.range(from..).enumerate() {
            if looked_at == SWEPT_MAX || over.len() == SWEPT_MAX {
                next = Some(*sender);
                break;
            }
            let room = SWEPT_MAX - over.len();
            let mine = mine.answered.values().take_while(|key| is_over(key));
            over.extend(mine.take(room).copied());
            if over.len() == SWEPT_MAX {
                next = Some(*sender);
                break;
            }
        }
        for key in &over {
            self.forget(key);
        }
        // A map keeps its memory when it is emptied; the threshold avoids moving a shard that fills up again.
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use allocation_counter::measure;
    use bytes::Bytes;
    use futures_util::FutureExt;
    use http::StatusCode;
    use proptest::prelude::{Strategy, prop_oneof};
    use proptest::{collection, proptest};
    use tokio::time::advance;

    use super::{Memory, SHARDS};
    use crate::deliveries::identity::tests::delivery;
    use crate::deliveries::{Claim, Delivery, DeliveryStore, Earlier, KeptAnswer};
    use crate::model::{AnsweredBy, RequestId};

    const WINDOW: Duration = Duration::from_secs(60);
    const AMPLE: usize = 1 << 30;

    fn store(entries_max: usize, bytes_max: usize) -> (Arc<Memory>, Arc<dyn DeliveryStore>) {
        let memory = Arc::new(Memory::new(entries_max, bytes_max));
        (memory.clone(), memory)
    }

    fn take(store: &Arc<dyn DeliveryStore>, delivery: &Delivery) -> Result<Claim, Earlier> {
        let taken = Claim::take(store, delivery, WINDOW).now_or_never();
        taken.expect("memory is asked without waiting")
    }

    /// Claims a delivery that nobody has.
    #[track_caller]
    fn first(store: &Arc<dyn DeliveryStore>, delivery: &Delivery) -> Claim {
        take(store, delivery).unwrap_or_else(|_| panic!("it is not the first"))
    }

    fn answer(bytes: usize) -> KeptAnswer {
        KeptAnswer {
            body: Bytes::from(vec![b'x'; bytes]),
            ..KeptAnswer::bare(RequestId::new(), AnsweredBy::Flow, StatusCode::CREATED)
        }
    }

    /// The bytes of the kept answer, if it was answered.
    fn kept(store: &Arc<dyn DeliveryStore>, delivery: &Delivery) -> Option<usize> {
        match take(store, delivery) {
            Err(Earlier::Answered(answer)) => {
                assert_eq!(answer.status, StatusCode::CREATED);
                Some(answer.body.len())
            }
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_is_answered_alike_until_its_window_is_over() {
        let (memory, store) = store(AMPLE, AMPLE);
        let one = delivery("shop", "1", "{}");
        first(&store, &one).complete(answer(3));
        advance(WINDOW - Duration::from_millis(1)).await;
        assert_eq!(kept(&store, &one), Some(3));
        assert_eq!(memory.used(), (1, 3));
        advance(Duration::from_millis(1)).await;
        drop(first(&store, &one));
        assert_eq!(memory.used(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_over_is_swept() {
        let (memory, store) = store(AMPLE, AMPLE);
        for number in 0..10_000 {
            first(&store, &delivery("shop", &number.to_string(), "{}")).complete(answer(3));
        }
        advance(WINDOW).await;
        let running = first(&store, &delivery("shop", "running", "{}"));
        first(&store, &delivery("shop", "young", "{}")).complete(answer(3));
        memory.sweep();
        assert_eq!(memory.used(), (1, 3));
        assert!(take(&store, &delivery("shop", "running", "{}")).is_err());
        drop(running);
    }

    #[tokio::test]
    async fn the_same_id_with_another_content_differs_while_it_is_known() {
        let (_, store) = store(AMPLE, AMPLE);
        let (one, other) = (delivery("shop", "1", "{}"), delivery("shop", "1", "[]"));
        let differs = |found| matches!(found, Err(Earlier::Differs(request)) if request == one.request);
        let claim = first(&store, &one);
        assert!(differs(take(&store, &other)));
        claim.complete(answer(0));
        assert!(differs(take(&store, &other)));
    }

    #[tokio::test]
    async fn those_that_wait_get_the_answer_or_may_try() {
        let (_, store) = store(AMPLE, AMPLE);
        let (one, again) = (delivery("shop", "1", "{}"), delivery("shop", "1", "{}"));
        let wait = || match take(&store, &again) {
            Err(Earlier::Running(running)) if running.first == one.request => running.end,
            _ => panic!("nothing to wait for"),
        };
        let claim = first(&store, &one);
        let waits = [wait(), wait()];
        drop(claim);
        for wait in waits {
            assert!(wait.await.is_none());
        }
        let claim = first(&store, &one);
        let waits = [wait(), wait()];
        claim.complete(answer(5));
        for wait in waits {
            assert_eq!(wait.await.map(|answer| answer.body.len()), Some(5));
        }
    }

    #[tokio::test]
    async fn an_answer_without_room_reaches_those_that_wait() {
        let (_, store) = store(AMPLE, 0);
        let one = delivery("shop", "1", "{}");
        let claim = first(&store, &one);
        let Err(Earlier::Running(running)) = take(&store, &one) else {
            panic!("nothing to wait for");
        };
        claim.complete(answer(5));
        assert_eq!(running.end.await.map(|answer| answer.body.len()), Some(5));
        assert_eq!(kept(&store, &one), Some(0));
    }

    #[tokio::test]
    async fn of_many_threads_one_is_the_first() {
        let (_, store) = store(AMPLE, AMPLE);
        let firsts = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for number in 0..500 {
                        let one = delivery("shop", &number.to_string(), "{}");
                        if let Ok(claim) = take(&store, &one) {
                            firsts.fetch_add(1, Ordering::Relaxed);
                            claim.complete(answer(1));
                        }
                    }
                });
            }
        });
        assert_eq!(firsts.into_inner(), 500);
    }

    #[tokio::test]
    async fn a_flood_of_ids_does_not_grow_the_memory() {
        let (memory, store) = store(1600, 16_000);
        let running: Vec<_> = (0..100)
            .map(|number| delivery("shop", &format!("running-{number}"), "{}"))
            .collect();
        let claims: Vec<_> = running.iter().map(|delivery| first(&store, delivery)).collect();
        for number in 0..10_000 {
            first(&store, &delivery("shop", &number.to_string(), "{}")).complete(answer(20));
        }
        let (entries, bytes) = memory.used();
        assert!((1500..=1600).contains(&entries), "{entries}");
        assert!((15_000..=16_000).contains(&bytes), "{bytes}");
        for shard in &memory.shards {
            let shard = shard.lock().unwrap();
            assert_eq!(shard.senders.len(), 1);
            shard.is_sound();
            assert!(shard.entries.capacity() < 1000, "{}", shard.entries.capacity());
        }
        // What is under way is not forgotten.
        assert!(running.iter().all(|delivery| take(&store, delivery).is_err()));
        drop(claims);
        assert_eq!(kept(&store, &delivery("shop", "9999", "{}")), Some(20));
        drop(first(&store, &delivery("shop", "0", "{}")));
    }

    #[tokio::test]
    async fn a_flood_of_one_sender_forgets_nothing_of_the_others() {
        let (_, store) = store(100 * SHARDS, AMPLE);
        for number in 0..200 {
            first(&store, &delivery("quiet", &number.to_string(), "{}")).complete(answer(0));
        }
        for number in 0..20_000 {
            first(&store, &delivery("flood", &number.to_string(), "{}")).complete(answer(0));
        }
        for number in 0..200 {
            let quiet = delivery("quiet", &number.to_string(), "{}");
            assert_eq!(kept(&store, &quiet), Some(0), "{number}");
        }
    }

    #[tokio::test]
    async fn answers_of_one_sender_take_no_room_from_those_of_others() {
        let (memory, store) = store(AMPLE, 2000 * SHARDS);
        for number in 0..100 {
            first(&store, &delivery("quiet", &number.to_string(), "{}")).complete(answer(20));
        }
        for number in 0..2000 {
            first(&store, &delivery("flood", &number.to_string(), "{}")).complete(answer(500));
        }
        for number in 0..100 {
            let quiet = delivery("quiet", &number.to_string(), "{}");
            assert_eq!(kept(&store, &quiet), Some(20), "{number}");
        }
        assert_eq!(kept(&store, &delivery("flood", "0", "{}")), Some(0));
        assert_eq!(kept(&store, &delivery("flood", "1999", "{}")), Some(500));
        memory
            .shards
            .iter()
            .for_each(|shard| shard.lock().unwrap().is_sound());
    }

    #[tokio::test(start_paused = true)]
    async fn many_senders_are_swept_a_few_at_a_time() {
        let (memory, store) = store(AMPLE, AMPLE);
        for number in 0..10_000 {
            first(&store, &delivery(&format!("sender-{number}"), "1", "{}")).complete(answer(1));
        }
        advance(WINDOW).await;
        first(&store, &delivery("young", "1", "{}")).complete(answer(1));
        let shard = memory
            .shards
            .iter()
            .max_by_key(|shard| shard.lock().unwrap().answered);
        let mut shard = shard.unwrap().lock().unwrap();
        let before = shard.answered;
        assert!(before > 2 * super::SWEPT_MAX, "{before}");
        assert!(shard.sweep(crate::model::clock::now(), 0).is_some());
        assert_eq!(shard.answered, before - super::SWEPT_MAX);
        drop(shard);
        memory.sweep();
        assert_eq!(memory.used(), (1, 1));
        memory
            .shards
            .iter()
            .for_each(|shard| shard.lock().unwrap().is_sound());
    }

    #[tokio::test]
    async fn an_answered_delivery_takes_some_600_bytes() {
        const COUNT: i64 = 20_000;
        let allocated = measure(|| {
            let (memory, store) = store(AMPLE, AMPLE);
            for number in 0..COUNT {
                first(&store, &delivery("shop", &number.to_string(), "{}")).complete(answer(0));
            }
            assert_eq!(memory.used(), (20_000, 0));
            // Kept beyond the end, so that it is counted.
            std::mem::forget(store);
            std::mem::forget(memory);
        });
        let each = allocated.bytes_current / COUNT;
        assert!((300..=600).contains(&each), "{each}");
    }

    #[tokio::test]
    async fn the_oldest_answers_keep_their_status() {
        let (memory, store) = store(AMPLE, 100 * SHARDS);
        for number in 0..1000 {
            first(&store, &delivery("shop", &number.to_string(), "{}")).complete(answer(50));
        }
        assert_eq!(kept(&store, &delivery("shop", "999", "{}")), Some(50));
        assert_eq!(kept(&store, &delivery("shop", "0", "{}")), Some(0));
        first(&store, &delivery("shop", "large", "{}")).complete(answer(101));
        assert_eq!(kept(&store, &delivery("shop", "large", "{}")), Some(0));
        memory.resize(AMPLE, 0);
        first(&store, &delivery("shop", "none", "{}")).complete(answer(1));
        assert_eq!(kept(&store, &delivery("shop", "none", "{}")), Some(0));
    }

    impl super::Shard {
        /// Asserts that what is counted and ordered is what is there.
        fn is_sound(&self) {
            let senders = self.senders.iter();
            let by_count = senders
                .clone()
                .map(|(sender, mine)| (mine.answered.len(), *sender));
            assert!(
                self.by_count
                    .iter()
                    .copied()
                    .eq(by_count.collect::<BTreeSet<_>>())
            );
            let by_bytes = senders.map(|(sender, mine)| (mine.bytes, *sender));
            let by_bytes = by_bytes.filter(|(bytes, _)| *bytes > 0);
            assert!(
                self.by_bytes
                    .iter()
                    .copied()
                    .eq(by_bytes.collect::<BTreeSet<_>>())
            );
            let sum = |order: &BTreeSet<(usize, u64)>| order.iter().map(|(most, _)| most).sum::<usize>();
            assert_eq!(
                (sum(&self.by_count), sum(&self.by_bytes)),
                (self.answered, self.bytes)
            );
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Start { id: u8, content: u8 },
        Complete { id: u8, bytes: usize },
        Abort { id: u8 },
        Wait { seconds: u64 },
        Sweep,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u8, 0..2_u8).prop_map(|(id, content)| Step::Start { id, content }),
            3 => (0..6_u8, 0..9_usize).prop_map(|(id, bytes)| Step::Complete { id, bytes }),
            1 => (0..6_u8).prop_map(|id| Step::Abort { id }),
            1 => (1..50_u64).prop_map(|seconds| Step::Wait { seconds }),
            1 => proptest::strategy::Just(Step::Sweep),
        ]
    }

    /// What a store must know: content, and the second and size of the answer.
    type Model = HashMap<u8, (u8, Option<(u64, usize)>)>;

    async fn behaves(steps: &[Step]) {
        let (memory, store) = store(AMPLE, AMPLE);
        let mut model = Model::new();
        let mut claims: HashMap<u8, Claim> = HashMap::new();
        let mut now = 0;
        for step in steps {
            match *step {
                Step::Start { id, content } => {
                    let over = |(_, answered): &mut (u8, Option<(u64, usize)>)| {
                        answered.is_some_and(|(at, _)| at + WINDOW.as_secs() <= now)
                    };
                    if model.get_mut(&id).is_some_and(over) {
                        model.remove(&id);
                    }
                    let taken = take(&store, &delivery("shop", &id.to_string(), &content.to_string()));
                    match (taken, model.get(&id).copied()) {
                        (Ok(claim), None) => {
                            model.insert(id, (content, None));
                            claims.insert(id, claim);
                        }
                        (Err(Earlier::Differs(_)), Some((known, _))) => assert_ne!(known, content),
                        (Err(Earlier::Running(_)), Some((known, None))) => assert_eq!(known, content),
                        (Err(Earlier::Answered(answer)), Some((known, Some((_, bytes))))) => {
                            assert_eq!((known, bytes), (content, answer.body.len()));
                        }
                        (_, known) => panic!("{step:?} with {known:?}"),
                    }
                }
                Step::Complete { id, bytes } => {
                    if let Some(claim) = claims.remove(&id) {
                        claim.complete(answer(bytes));
                        model.entry(id).and_modify(|known| known.1 = Some((now, bytes)));
                    }
                }
                Step::Abort { id } => {
                    if claims.remove(&id).is_some() {
                        model.remove(&id);
                    }
                }
                Step::Wait { seconds } => {
                    advance(Duration::from_secs(seconds)).await;
                    now += seconds;
                }
                Step::Sweep => {
                    memory.sweep();
                    model.retain(|_, (_, answered)| {
                        answered.is_none_or(|(at, _)| at + WINDOW.as_secs() > now)
                    });
                    let answered = model.values().filter_map(|(_, answered)| *answered);
                    let bytes = answered.clone().map(|(_, bytes)| bytes).sum();
                    assert_eq!(memory.used(), (answered.count(), bytes));
                    memory
                        .shards
                        .iter()
                        .for_each(|shard| shard.lock().unwrap().is_sound());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_behaves_like_its_model(steps in collection::vec(step(), 0..80)) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(behaves(&steps));
        }
    }
}
