//! How often the password of an account is shown, over all scopes and identities that use it. Entra counts wrong ones
//! towards the account's lock, and a try whose answer never came may have been one of them. One try is under way at a time,
//! so that a refusal is known before the next one.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::entra::grants::bar::Bar;
use crate::model::locked;

/// Tries without an answer that may follow each other as any others do.
const UNHEARD_MAX: u32 = 3;
/// The pause after those. It doubles with each further try: far below the ten tries of Entra's smart lockout in the minutes
/// in which it counts them.
const PAUSE: Duration = Duration::from_secs(60);
/// The longest pause: an outage that is over is noticed after that.
const PAUSE_MAX: Duration = Duration::from_secs(30 * 60);

#[derive(Default)]
pub(crate) struct Account {
    pub(crate) bar: Bar,
    turn: tokio::sync::Mutex<()>,
    silence: Mutex<Silence>,
}

#[derive(Default)]
struct Silence {
    tries: u32,
    pause: Option<(Instant, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unheard {
    pub(crate) tries: u32,
    /// The whole pause.
    pub(crate) pause: Duration,
    pub(crate) left: Duration,
}

impl Account {
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The pause that lasts, if one does.
    pub(crate) fn unheard(&self) -> Option<Unheard> {
        let silence = locked(&self.silence);
        let (since, pause) = silence.pause?;
        let left = pause.saturating_sub(since.elapsed());
        let tries = silence.tries;
        (!left.is_zero()).then_some(Unheard { tries, pause, left })
    }

    pub(crate) fn heard(&self) {
        *locked(&self.silence) = Silence::default();
    }

    /// No answer came to a question that may have arrived.
    pub(crate) fn lost(&self) {
        let mut silence = locked(&self.silence);
        silence.tries = silence.tries.saturating_add(1);
        let Some(more) = silence.tries.checked_sub(UNHEARD_MAX) else {
            return;
        };
        let pause = PAUSE.saturating_mul(1 << more.min(10)).min(PAUSE_MAX);
        silence.pause = Some((Instant::now(), pause));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Account;

    #[tokio::test(start_paused = true)]
    async fn three_tries_without_an_answer_begin_a_pause_that_grows() {
        let account = Account::default();
        for _ in 0..2 {
            account.lost();
            assert_eq!(account.unheard(), None);
        }
        for minutes in [1, 2, 4, 8, 16, 30, 30] {
            account.lost();
            let pause = Duration::from_secs(60 * minutes);
            assert_eq!(account.unheard().map(|unheard| unheard.left), Some(pause));
            tokio::time::advance(pause - Duration::from_secs(1)).await;
            assert!(account.unheard().is_some());
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(account.unheard(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_the_count() {
        let account = Account::default();
        for _ in 0..2 {
            account.lost();
        }
        account.heard();
        for _ in 0..2 {
            account.lost();
        }
        assert_eq!(account.unheard(), None);
        account.lost();
        account.heard();
        assert_eq!(account.unheard(), None);
    }
}
