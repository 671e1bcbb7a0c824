//! Where files are read that may lie on a disk that hangs. A question for a token must come to an end all the same, and
//! must not leave a thread behind with each try.

use std::sync::Arc;
use std::time::Duration;

/// Time for a file: a disk that hangs, or another process that stopped while it held a lock.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// Does one thing after the other: on a disk that hangs each try would take a thread, until none is left that looks up
/// the name of a token endpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desk(Arc<tokio::sync::Mutex<()>>);

#[cfg(test)]
impl Desk {
    /// Whether both are one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stuck {
    /// It took too long.
    #[error("the disk did not answer within {DISK_TIMEOUT:?}")]
    Late,
    /// The runtime is going down.
    #[error("the gateway is stopping")]
    Over,
}

impl Desk {
    /// Does something that blocks on a thread of its own.
    ///
    /// # Errors
    /// When it takes too long, or what was done before still does.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stuck> {
        let turn = self.0.clone();
        let done = async {
            let turn = turn.lock_owned().await;
            let work = move || {
                let _turn = turn;
                work()
            };
            tokio::task::spawn_blocking(work).await
        };
        match tokio::time::timeout(DISK_TIMEOUT, done).await {
            Ok(done) => done.map_err(|_| Stuck::Over),
            Err(_) => Err(Stuck::Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use super::{DISK_TIMEOUT, Desk, Stuck};

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_takes_one_thread() {
        let (desk, begun) = (Desk::default(), Arc::new(AtomicUsize::new(0)));
        let (release, held) = mpsc::channel::<()>();
        let hung = {
            let begun = begun.clone();
            desk.work(move || {
                begun.fetch_add(1, Ordering::SeqCst);
                held.recv()
            })
        };
        let late = async {
            while begun.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(2 * DISK_TIMEOUT).await;
        };
        let (hung, ()) = tokio::join!(hung, late);
        assert_eq!(hung.unwrap_err(), Stuck::Late);
        for _ in 0..3 {
            let begun = begun.clone();
            let next = desk.work(move || begun.fetch_add(1, Ordering::SeqCst));
            let (next, ()) = tokio::join!(next, tokio::time::advance(2 * DISK_TIMEOUT));
            next.unwrap_err();
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1, "more than one thread was taken");
        release.send(()).unwrap();
        assert_eq!(desk.work(|| "read").await, Ok("read"));
    }
}
