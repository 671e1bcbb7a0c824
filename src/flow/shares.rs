//! Who has how many permits of one trigger, who waits, and whose turn is next.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::model::{Holder, Holders};

/// How the body of a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It is whole: only the trigger decides how long the permit is in use.
    Whole,
    /// It is still arriving, as slowly as its sender likes.
    Arriving,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PermitLimits {
    pub in_flight_max: usize,
    pub arriving_max: usize,
    pub waiting_max: usize,
    pub waiting_timeout: Duration,
}

impl PermitLimits {
    pub(super) fn new(in_flight_max: usize, waiting_max: usize, waiting_timeout: Duration) -> Self {
        Self {
            in_flight_max,
            // A quarter is left to bodies that are whole, and at least one permit where there are two.
            arriving_max: (in_flight_max - in_flight_max.div_ceil(4)).max(1),
            waiting_max,
            waiting_timeout,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Granted,
    GaveWay,
}

#[derive(Debug)]
pub(super) struct Waiter {
    number: u64,
    turn: oneshot::Sender<Turn>,
}

/// What one holder has. It exists while it has anything.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub in_flight: usize,
    pub arriving: usize,
    pub whole: VecDeque<Waiter>,
    pub uploads: VecDeque<Waiter>,
}

impl Share {
    pub(super) fn waiting(&self) -> usize {
        self.whole.len() + self.uploads.len()
    }

    fn is_empty(&self) -> bool {
        self.in_flight == 0 && self.arriving == 0 && self.waiting() == 0
    }

    fn queue(&mut self, load: Load) -> &mut VecDeque<Waiter> {
        match load {
            Load::Whole => &mut self.whole,
            Load::Arriving => &mut self.uploads,
        }
    }

    fn pop_newest(&mut self) -> Option<Waiter> {
        let number = |queue: &VecDeque<Waiter>| queue.back().map(|waiter| waiter.number);
        match number(&self.whole) > number(&self.uploads) {
            true => self.whole.pop_back(),
            false => self.uploads.pop_back(),
        }
    }
}

/// The first waiting request of a holder. The least is the next to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Only of those whose body is still arriving; they have a queue of their own.
    arriving: usize,
    in_flight: usize,
    number: u64,
    holder: Holder,
}

/// Holders with waiting requests, in order, so that no decision looks at all of them.
#[derive(Debug, Default)]
pub(super) struct Queues {
    pub whole: BTreeSet<Candidate>,
    pub uploads: BTreeSet<Candidate>,
    /// By all that they have: requests in flight and waiting.
    pub crowds: BTreeSet<(usize, Holder)>,
}

impl Queues {
    fn each(&mut self, holder: Holder, share: &Share, entry: Listing) {
        let first = |queue: &VecDeque<Waiter>, arriving| {
            queue.front().map(|waiter| Candidate {
                arriving,
                in_flight: share.in_flight,
                number: waiter.number,
                holder,
            })
        };
        let crowd = (share.in_flight + share.waiting(), holder);
        let whole = first(&share.whole, 0);
        let upload = first(&share.uploads, share.arriving);
        match entry {
            Listing::Add => {
                self.whole.extend(whole);
                self.uploads.extend(upload);
                self.crowds.insert(crowd);
            }
            Listing::Remove => {
                whole.map(|candidate| self.whole.remove(&candidate));
                upload.map(|candidate| self.uploads.remove(&candidate));
                self.crowds.remove(&crowd);
            }
        }
    }
}

enum Listing {
    Add,
    Remove,
}

#[derive(Debug, Default)]
pub(super) struct Shares {
    pub in_flight: usize,
    pub arriving: usize,
    pub waiting: usize,
    /// Waiting requests are numbered in the order in which they came.
    pub number: u64,
    /// At most one for each request in flight or waiting.
    pub shares: Holders<Share>,
    pub queues: Queues,
}

impl Shares {
    /// Changes the share of a holder, and its places in the queues with it.
    pub(super) fn change<R>(&mut self, holder: Holder, change: impl FnOnce(&mut Share) -> R) -> R {
        match self.shares.entry(holder) {
            Entry::Vacant(entry) => {
                let mut share = Share::default();
                let result = change(&mut share);
                if share.waiting() > 0 {
                    self.queues.each(holder, &share, Listing::Add);
                }
                if !share.is_empty() {
                    entry.insert(share);
                }
                result
            }
            Entry::Occupied(mut entry) => {
                let share = entry.get_mut();
                if share.waiting() > 0 {
                    self.queues.each(holder, share, Listing::Remove);
                }
                let result = change(share);
                if share.waiting() > 0 {
                    self.queues.each(holder, share, Listing::Add);
                } else if share.is_empty() {
                    entry.remove();
                }
                result
            }
        }
    }

    pub(super) fn has_room(&self, limits: &PermitLimits, holder: Holder, load: Load) -> bool {
        let own = || self.shares.get(&holder).map_or(0, |share| share.arriving);
        self.in_flight < limits.in_flight_max && (load == Load::Whole || self.takes_upload(limits, own()))
    }

    /// Whether a holder with so many bodies arriving may have one more: fewer than twice what it leaves to others. A
    /// holder alone ends at two thirds of what all may have, the next one at two thirds of the rest.
    pub(super) fn takes_upload(&self, limits: &PermitLimits, own: usize) -> bool {
        own < 2 * limits.arriving_max.saturating_sub(self.arriving)
    }

    pub(super) fn grant(&mut self, holder: Holder, load: Load) {
        let arriving = usize::from(load == Load::Arriving);
        self.in_flight += 1;
        self.arriving += arriving;
        self.change(holder, |share| {
            share.in_flight += 1;
            share.arriving += arriving;
        });
    }

    /// Whether one more may wait, if need be in place of the newest request of the holder with the most.
    pub(super) fn make_place(&mut self, limits: &PermitLimits, holder: Holder) -> bool {
        if self.waiting < limits.waiting_max {
            return true;
        }
        let own = self
            .shares
            .get(&holder)
            .map_or(0, |share| share.in_flight + share.waiting());
        // Only if the newcomer does not get as many by it: places must not be taken back and forth.
        let Some(&(_, largest)) = self.queues.crowds.last().filter(|(count, _)| own + 1 < *count) else {
            return false;
        };
        let Some(waiter) = self.change(largest, Share::pop_newest) else {
            return false;
        };
        self.waiting = self.waiting.saturating_sub(1);
        // It listens: it would have left the queue under the lock otherwise.
        let _ = waiter.turn.send(Turn::GaveWay);
        true
    }

    pub(super) fn join(&mut self, holder: Holder, load: Load) -> (u64, oneshot::Receiver<Turn>) {
        let (turn, receiver) = oneshot::channel();
        self.number += 1;
        let number = self.number;
        self.waiting += 1;
        self.change(holder, |share| {
            share.queue(load).push_back(Waiter { number, turn });
        });
        (number, receiver)
    }

    /// Takes a request out of the waiting room, if it is still there.
    pub(super) fn leave(&mut self, holder: Holder, load: Load, number: u64) -> bool {
        let left = self.change(holder, |share| {
            let queue = share.queue(load);
            let at = queue.binary_search_by_key(&number, |waiter| waiter.number).ok()?;
            queue.remove(at)
        });
        self.waiting -= usize::from(left.is_some());
        left.is_some()
    }

    /// Gives free permits to those whose turn it is.
    pub(super) fn dispatch(&mut self, limits: &PermitLimits) {
        while self.waiting > 0 && self.in_flight < limits.in_flight_max {
            let whole = self.queues.whole.first().copied();
            let upload = self.queues.uploads.first().copied();
            let upload = upload.filter(|upload| self.takes_upload(limits, upload.arriving));
            let turn = |candidate: &Candidate| (candidate.in_flight, candidate.number);
            let (next, load) = match (whole, upload) {
                (Some(whole), Some(upload)) if turn(&upload) < turn(&whole) => (upload, Load::Arriving),
                (Some(whole), _) => (whole, Load::Whole),
                (None, Some(upload)) => (upload, Load::Arriving),
                (None, None) => return,
            };
            let Some(waiter) = self.change(next.holder, |share| share.queue(load).pop_front()) else {
                return;
            };
            self.waiting = self.waiting.saturating_sub(1);
            self.grant(next.holder, load);
            // It listens: it would have left the queue under the lock otherwise.
            let _ = waiter.turn.send(Turn::Granted);
        }
    }
}
