//! Work that waits for a disk, which may hang: it is done off the workers, and awaited for a limited time.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Time for reading and checking all files.
pub(super) const DISK_TIMEOUT: Duration = Duration::from_secs(60);

/// Why nothing is known of such work. One that hangs may still be done later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotDone {
    #[error("the disk does not answer within {} s", DISK_TIMEOUT.as_secs())]
    Hangs,
    #[error("the gateway is stopping")]
    Stopping,
}

pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotDone> {
    within(DISK_TIMEOUT, work).await
}

async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NotDone> {
    let done = timeout(limit, spawn_blocking(work)).await;
    done.map_err(|_| NotDone::Hangs)?.map_err(|_| NotDone::Stopping)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{NotDone, on_disk, within};

    #[tokio::test]
    async fn work_that_hangs_is_not_awaited_for_ever() {
        assert_eq!(on_disk(|| 7).await, Ok(7));
        let (end, hangs) = mpsc::channel::<()>();
        let given_up = within(Duration::from_millis(1), move || hangs.recv()).await;
        assert_eq!(given_up, Err(NotDone::Hangs));
        drop(end);
    }
}
