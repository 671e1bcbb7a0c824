//! Events that a test can wait for: gates that hold requests inside of the emulator, and counts. Nothing here
//! sleeps; a deadline turns a missed event into a readable failure.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

/// How long a test waits for an event before it fails: far above anything a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A number that a test can read and wait for.
#[derive(Clone, Debug)]
pub struct Count {
    name: &'static str,
    value: Arc<watch::Sender<u64>>,
}

impl Count {
    /// A count at zero; the name appears in the message of a failed wait.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            value: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The current number.
    pub fn get(&self) -> u64 {
        *self.value.borrow()
    }

    /// Every change from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.value.subscribe()
    }

    /// Waits until the number is at least `goal`.
    ///
    /// # Panics
    /// After ten seconds.
    pub async fn reached(&self, goal: u64) {
        self.wait(goal, |value| value >= goal).await;
    }

    /// Waits until the number is exactly `goal`; for counts that also fall, such as open connections.
    ///
    /// # Panics
    /// After ten seconds.
    pub async fn settled_at(&self, goal: u64) {
        self.wait(goal, |value| value == goal).await;
    }

    /// Raises the number.
    pub fn add(&self, amount: u64) {
        self.value
            .send_modify(|value| *value = value.saturating_add(amount));
    }

    /// Raises the number by one until the returned guard is dropped, even if its task is cancelled.
    pub fn enter(&self) -> Entered {
        self.add(1);
        Entered { count: self.clone() }
    }

    async fn wait(&self, goal: u64, enough: impl Fn(u64) -> bool) {
        let mut changes = self.value.subscribe();
        let waited = tokio::time::timeout(PATIENCE, changes.wait_for(|value| enough(*value))).await;
        assert!(
            waited.is_ok(),
            "waited {PATIENCE:?} for {name} = {goal}, but it is {now}",
            name = self.name,
            now = self.get()
        );
    }
}

/// Keeps a [`Count`] raised by one while it lives.
#[derive(Debug)]
pub struct Entered {
    count: Count,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.count
            .value
            .send_modify(|value| *value = value.saturating_sub(1));
    }
}

/// Holds requests inside of the emulator until the test releases them.
///
/// Requests at the gate have been read and recorded, but not answered.
#[must_use = "requests stay inside the emulator until this gate releases them"]
#[derive(Clone, Debug)]
pub struct Gate {
    arrivals: Count,
    inside: Count,
    permits: Arc<Semaphore>,
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self {
            arrivals: Count::new("requests that arrived at the gate"),
            inside: Count::new("requests inside the gate"),
            permits: Arc::new(Semaphore::new(0)),
        }
    }

    /// Waits until `n` requests have arrived since the gate was created, whether or not they have left again.
    ///
    /// # Panics
    /// After ten seconds.
    pub async fn arrived(&self, n: u64) {
        self.arrivals.reached(n).await;
    }

    /// Lets `n` requests pass, in the order of their arrival; unused passes remain for later arrivals.
    pub fn release(&self, n: usize) {
        // An open gate already lets all requests pass.
        if !self.permits.is_closed() {
            self.permits.add_permits(n);
        }
    }

    /// Lets all requests pass from now on.
    pub fn open(&self) {
        self.permits.close();
    }

    /// Number of requests that wait now; a caller that hung up is no longer counted.
    pub fn inside(&self) -> &Count {
        &self.inside
    }

    /// Arrives and waits to be released.
    pub async fn pass(&self) {
        let _inside = self.inside.enter();
        self.arrivals.add(1);
        // A closed semaphore is an open gate, so both outcomes mean "continue".
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }
}
