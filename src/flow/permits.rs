//! The permits of one trigger and its waiting room, shared fairly between those who call it. One caller may use what
//! the others leave free; once others wait, a permit goes to the one with the fewest, and the one with the most in the
//! waiting room makes room. A body that is still arriving costs its sender next to nothing and may take long, so such
//! requests never get all permits, and one sender never gets all of what they may have.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::flow::error::FlowError;
use crate::flow::shares::{Load, PermitLimits, Shares, Turn};
use crate::model::{Holder, locked};

#[derive(Debug)]
pub struct Permits(Mutex<State>);

#[derive(Debug)]
struct State {
    limits: PermitLimits,
    shares: Shares,
}

/// The right to send one request, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Arc<Permits>,
    holder: Holder,
    arriving: Option<Arriving>,
}

/// The part of a permit that counts while the body is still arriving. To be dropped when the body is whole.
#[derive(Debug)]
pub struct Arriving {
    permits: Arc<Permits>,
    holder: Holder,
}

impl Permit {
    /// Hands over what must be dropped when the body is whole; with the permit at the latest.
    pub fn take_arriving(&mut self) -> Option<Arriving> {
        self.arriving.take()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.give_back(self.holder);
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut state = self.permits.state();
        let shares = &mut state.shares;
        shares.arriving = shares.arriving.saturating_sub(1);
        shares.change(self.holder, |share| {
            share.arriving = share.arriving.saturating_sub(1);
        });
        state.dispatch();
    }
}

impl Permits {
    /// Permits for so many requests at one time, and room for so many that wait.
    pub fn new(in_flight_max: usize, waiting_max: usize, waiting_timeout: Duration) -> Self {
        Self(Mutex::new(State {
            limits: PermitLimits::new(in_flight_max, waiting_max, waiting_timeout),
            shares: Shares::default(),
        }))
    }

    /// Changes how many there are. Requests that have one keep it, and those that wait keep their places.
    pub fn resize(&self, in_flight_max: usize, waiting_max: usize, waiting_timeout: Duration) {
        let mut state = self.state();
        state.limits = PermitLimits::new(in_flight_max, waiting_max, waiting_timeout);
        state.dispatch();
    }

    /// Waits, within bounds, for a permit.
    ///
    /// # Errors
    /// [`FlowError::Busy`] when the waiting room is full, when the wait takes too long, or when this request gave way
    /// to another caller's.
    pub async fn acquire(self: &Arc<Self>, holder: Holder, load: Load) -> Result<Permit, FlowError> {
        let (patience, (number, turn)) = {
            let mut state = self.state();
            let State { limits, shares } = &mut *state;
            if shares.has_room(limits, holder, load) {
                shares.grant(holder, load);
                drop(state);
                return Ok(self.permit(holder, load));
            }
            if !shares.make_place(limits, holder) {
                return Err(state.busy(holder, load, "the waiting room is full"));
            }
            (limits.waiting_timeout, shares.join(holder, load))
        };
        let mut wait = Wait {
            permits: self,
            holder,
            load,
            number,
            turn,
        };
        let why = match tokio::time::timeout(patience, &mut wait.turn).await {
            Ok(Ok(Turn::Granted)) => return Ok(self.permit(holder, load)),
            Ok(Ok(Turn::GaveWay)) => "it gave its waiting place to a caller with fewer requests",
            Ok(Err(_)) | Err(_) => "the wait took too long",
        };
        drop(wait);
        Err(self.state().busy(holder, load, why))
    }

    /// Whether a request would get a permit at once. None is taken, and nobody waits.
    ///
    /// # Errors
    /// [`FlowError::Busy`].
    pub fn probe(&self, holder: Holder, load: Load) -> Result<(), FlowError> {
        let state = self.state();
        match state.shares.has_room(&state.limits, holder, load) {
            true => Ok(()),
            false => Err(state.busy(holder, load, "a request would have to wait")),
        }
    }

    fn permit(self: &Arc<Self>, holder: Holder, load: Load) -> Permit {
        let arriving = (load == Load::Arriving).then(|| Arriving {
            permits: self.clone(),
            holder,
        });
        Permit {
            permits: self.clone(),
            holder,
            arriving,
        }
    }

    fn give_back(&self, holder: Holder) {
        let mut state = self.state();
        let shares = &mut state.shares;
        shares.in_flight = shares.in_flight.saturating_sub(1);
        shares.change(holder, |share| {
            share.in_flight = share.in_flight.saturating_sub(1);
        });
        state.dispatch();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0)
    }
}

impl State {
    fn dispatch(&mut self) {
        self.shares.dispatch(&self.limits);
    }

    fn busy(&self, holder: Holder, load: Load, why: &'static str) -> FlowError {
        let Self { limits, shares } = self;
        let mine = shares.shares.get(&holder);
        let (all, own, what) = match load {
            Load::Arriving if shares.in_flight < limits.in_flight_max => {
                (shares.arriving, mine.map_or(0, |share| share.arriving), "uploads")
            }
            Load::Arriving | Load::Whole => (
                shares.in_flight,
                mine.map_or(0, |share| share.in_flight),
                "requests",
            ),
        };
        FlowError::Busy {
            what,
            all,
            own,
            waiting: shares.waiting,
            why,
            wait: limits.waiting_timeout,
        }
    }
}

/// A request in the waiting room. It leaves when dropped, and gives a permit back that came too late.
struct Wait<'a> {
    permits: &'a Arc<Permits>,
    holder: Holder,
    load: Load,
    number: u64,
    turn: oneshot::Receiver<Turn>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // While it is in the queue nothing was sent, and what was sent was sent under the lock.
        if self
            .permits
            .state()
            .shares
            .leave(self.holder, self.load, self.number)
        {
            return;
        }
        // Nothing is there any more if it was received.
        if let Ok(Turn::Granted) = self.turn.try_recv() {
            drop(self.permits.permit(self.holder, self.load));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::{Permit, Permits};
    use crate::flow::error::FlowError;
    use crate::flow::shares::Load;
    use crate::model::Holder;

    const WAIT: Duration = Duration::from_secs(5);
    const A: Holder = Holder::Caller(0);
    const B: Holder = Holder::Caller(1);
    const C: Holder = Holder::Address(1);

    type Asked = Pin<Box<dyn Future<Output = Result<Permit, FlowError>>>>;

    /// Asks and waits for nothing.
    fn ask(permits: &Arc<Permits>, holder: Holder, load: Load) -> Asked {
        let permits = permits.clone();
        let mut asked: Asked = Box::pin(async move { permits.acquire(holder, load).await });
        // The first poll takes a permit or a place. What is over by then is not polled again.
        match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Box::pin(std::future::ready(outcome)),
            Poll::Pending => asked,
        }
    }

    fn whole(permits: &Arc<Permits>, holder: Holder) -> Asked {
        ask(permits, holder, Load::Whole)
    }

    fn now(asked: &mut Asked) -> Option<Result<Permit, FlowError>> {
        match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    fn take(permits: &Arc<Permits>, holder: Holder, load: Load) -> Permit {
        now(&mut ask(permits, holder, load)).unwrap().unwrap()
    }

    /// As many as are to be had at once.
    fn take_all(permits: &Arc<Permits>, holder: Holder, load: Load) -> Vec<Permit> {
        std::iter::from_fn(|| now(&mut ask(permits, holder, load))?.ok()).collect()
    }

    fn why(error: &FlowError) -> &str {
        match error {
            FlowError::Busy { why, .. } => why,
            other => panic!("{other}"),
        }
    }

    fn is_empty(permits: &Permits) -> bool {
        let state = &permits.state().shares;
        let queues = &state.queues;
        let listed = queues.whole.len() + queues.uploads.len() + queues.crowds.len();
        (
            state.in_flight,
            state.arriving,
            state.waiting,
            listed,
            state.shares.len(),
        ) == (0, 0, 0, 0, 0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_use_what_others_leave_free() {
        let permits = Arc::new(Permits::new(100, 0, WAIT));
        assert_eq!(take_all(&permits, A, Load::Whole).len(), 100);
        assert!(is_empty(&permits));
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_permit_goes_to_the_waiting_caller_with_the_fewest() {
        let permits = Arc::new(Permits::new(4, 10, WAIT));
        let mut a = take_all(&permits, A, Load::Whole);
        let mut more_of_a = [whole(&permits, A), whole(&permits, A)];
        let mut b: Vec<Asked> = (0..3).map(|_| whole(&permits, B)).collect();
        let mut held = Vec::new();
        // A has 4: of what it gives back, B gets all until both have 2.
        for _ in 0..2 {
            a.pop();
            held.push(now(&mut b.remove(0)).unwrap().unwrap());
        }
        assert!(more_of_a.iter_mut().all(|asked| now(asked).is_none()));
        // Now A has fewer than B for a moment, whenever it gives one back.
        a.pop();
        held.push(now(&mut more_of_a[0]).unwrap().unwrap());
        assert!(now(&mut b[0]).is_none() && now(&mut more_of_a[1]).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn within_a_caller_the_first_goes_first() {
        let permits = Arc::new(Permits::new(1, 10, WAIT));
        let mut held = take(&permits, A, Load::Whole);
        let mut asked: Vec<Asked> = (0..4).map(|_| whole(&permits, A)).collect();
        while !asked.is_empty() {
            drop(held);
            held = now(&mut asked.remove(0)).unwrap().unwrap();
            assert!(asked.iter_mut().all(|asked| now(asked).is_none()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_caller_with_the_most_waiting_requests_makes_room_for_others() {
        let permits = Arc::new(Permits::new(1, 4, WAIT));
        let held = take(&permits, A, Load::Whole);
        let mut a: Vec<Asked> = (0..4).map(|_| whole(&permits, A)).collect();
        let mut b: Vec<Asked> = (0..3).map(|_| whole(&permits, B)).collect();
        let gave_way = now(&mut a[3]).unwrap().unwrap_err();
        assert_eq!(
            why(&gave_way),
            "it gave its waiting place to a caller with fewer requests"
        );
        assert!(gave_way.to_string().starts_with("1 requests"), "{gave_way}");
        assert!(now(&mut a[2]).unwrap().is_err(), "the newest goes first");
        assert!(now(&mut a[0]).is_none() && now(&mut a[1]).is_none());
        assert!(now(&mut b[0]).is_none() && now(&mut b[1]).is_none());
        // A has a permit and two places now; three of B's would be more than its share.
        let full = now(&mut b[2]).unwrap().unwrap_err();
        assert_eq!(why(&full), "the waiting room is full");
        assert_eq!(
            why(&now(&mut whole(&permits, A)).unwrap().unwrap_err()),
            "the waiting room is full"
        );
        drop((held, a, b));
        assert!(is_empty(&permits));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_newcomers_does_not_chase_those_away_who_wait() {
        let permits = Arc::new(Permits::new(1, 2, WAIT));
        let _held = take(&permits, A, Load::Whole);
        let mut waiting = [whole(&permits, B), whole(&permits, C)];
        for number in 2..100 {
            assert!(
                now(&mut whole(&permits, Holder::Address(number)))
                    .unwrap()
                    .is_err()
            );
        }
        assert!(waiting.iter_mut().all(|asked| now(asked).is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_are_arriving_leave_a_quarter_to_whole_ones() {
        let permits = Arc::new(Permits::new(100, 0, WAIT));
        let mut arriving: Vec<Permit> = Vec::new();
        for number in 0..50 {
            arriving.extend(take_all(&permits, Holder::Address(number), Load::Arriving));
        }
        assert_eq!(arriving.len(), 75);
        assert_eq!(take_all(&permits, A, Load::Whole).len(), 25);
        drop(arriving);
        assert!(is_empty(&permits));
    }

    #[tokio::test(start_paused = true)]
    async fn one_sender_of_bodies_that_are_arriving_leaves_room_for_others() {
        let permits = Arc::new(Permits::new(100, 0, WAIT));
        let a = take_all(&permits, A, Load::Arriving);
        let b = take_all(&permits, B, Load::Arriving);
        let c = take_all(&permits, C, Load::Arriving);
        assert_eq!((a.len(), b.len(), c.len()), (50, 17, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn with_few_permits_a_body_may_still_arrive() {
        for (in_flight_max, arriving) in [(1, 1), (2, 1), (3, 2), (4, 2), (8, 4)] {
            let permits = Arc::new(Permits::new(in_flight_max, 0, WAIT));
            let taken = take_all(&permits, A, Load::Arriving);
            assert_eq!(taken.len(), arriving, "of {in_flight_max}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_whole_makes_room_for_the_next_one() {
        let permits = Arc::new(Permits::new(2, 2, WAIT));
        let mut first = take(&permits, A, Load::Arriving);
        let mut second = ask(&permits, A, Load::Arriving);
        let third = now(&mut whole(&permits, A)).unwrap().unwrap();
        assert!(now(&mut second).is_none());
        // The permit of the first is still in use: the flow has not answered.
        drop(first.take_arriving());
        assert!(now(&mut second).is_none());
        drop(third);
        drop(now(&mut second).unwrap().unwrap());
        drop(first);
        assert!(is_empty(&permits));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_upload_does_not_hold_up_a_whole_body() {
        let permits = Arc::new(Permits::new(2, 2, WAIT));
        let _first = take(&permits, A, Load::Arriving);
        let mut second = ask(&permits, A, Load::Arriving);
        assert!(now(&mut second).is_none());
        drop(take(&permits, A, Load::Whole));
        drop(take(&permits, B, Load::Whole));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_in_time_and_leaves_nothing_behind() {
        let permits = Arc::new(Permits::new(1, 4, WAIT));
        let held = take(&permits, A, Load::Whole);
        let asked = whole(&permits, B);
        let began = tokio::time::Instant::now();
        let late = asked.await.unwrap_err();
        assert_eq!((why(&late), began.elapsed()), ("the wait took too long", WAIT));
        assert_eq!(permits.state().shares.waiting, 0);
        drop(held);
        assert!(is_empty(&permits));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_for_a_request_that_has_gone_goes_to_the_next() {
        let permits = Arc::new(Permits::new(1, 4, WAIT));
        let held = take(&permits, A, Load::Whole);
        let gone = ask(&permits, B, Load::Arriving);
        let mut next = whole(&permits, B);
        drop(held);
        // It was given to the first, which never came to hear it.
        assert!(now(&mut next).is_none());
        drop(gone);
        drop(now(&mut next).unwrap().unwrap());
        assert!(is_empty(&permits));
    }

    proptest::proptest! {
        /// Whatever comes and goes in whatever order, limits hold and nothing is left behind.
        #[test]
        fn limits_hold_and_all_comes_back(
            steps in proptest::collection::vec((0u64..4, proptest::bool::ANY, 0usize..12), 1..200),
            in_flight_max in 1usize..6,
            waiting_max in 0usize..6,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _entered = runtime.enter();
            let permits = Arc::new(Permits::new(in_flight_max, waiting_max, WAIT));
            let mut asked: Vec<Asked> = Vec::new();
            let mut held: Vec<Permit> = Vec::new();
            for (holder, upload, drop_at) in steps {
                let load = if upload { Load::Arriving } else { Load::Whole };
                asked.push(ask(&permits, Holder::Address(holder), load));
                if drop_at < held.len() {
                    held.swap_remove(drop_at);
                } else if drop_at < asked.len() {
                    drop(asked.swap_remove(drop_at));
                }
                let mut waiting = Vec::new();
                for mut one in asked {
                    match now(&mut one) {
                        Some(Ok(permit)) => held.push(permit),
                        Some(Err(_)) => {}
                        None => waiting.push(one),
                    }
                }
                asked = waiting;
                let guard = permits.state();
                let (limits, state) = (&guard.limits, &guard.shares);
                assert_eq!((state.in_flight, state.waiting), (held.len(), asked.len()));
                assert!(state.in_flight <= in_flight_max && state.waiting <= waiting_max);
                assert!(state.arriving <= limits.arriving_max);
                assert!(state.waiting == 0 || state.in_flight == in_flight_max || state.queues.whole.is_empty());
            }
            drop((asked, held));
            assert!(is_empty(&permits));
        }
    }
}
