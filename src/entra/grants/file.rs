//! A token that another program keeps fresh in a file: reads it, and finds out how long it will live. That is decided
//! when a token is first seen and goes on from there on the monotonic clock; when to look again is said in `cache.rs`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::entra::answer;
use crate::entra::answer::{FILE, FILE_EXPIRED, Granted, TokenError};
use crate::entra::date::Clocks;
use crate::entra::grant::{Asked, Grant};
use crate::files;
use crate::model::clock::Steady;
use crate::model::{Secret, clock, locked};
use crate::secrets::Desk;

/// How often a token file is looked at: renewal programs replace it minutes before the old token ends.
const FILE_PERIOD: Duration = Duration::from_secs(2);
const FILE_BYTES_MAX: u64 = 64 * 1024;

pub(crate) struct TokenFile {
    path: PathBuf,
    life: Duration,
    clock: Steady,
    desk: Desk,
    seen: Mutex<Option<SeenToken>>,
}

struct SeenToken {
    mark: TokenMark,
    at: Instant,
    left: Duration,
}

/// What distinguishes a token from the previous one.
#[derive(PartialEq, Eq)]
enum TokenMark {
    /// Its expiry, since the epoch.
    Expires(Duration),
    /// When its file was changed, for a token without an expiry.
    Changed(SystemTime),
}

impl SeenToken {
    fn new(mark: TokenMark, left: Duration) -> Self {
        let at = Instant::now();
        Self { mark, at, left }
    }

    fn left_of(&self, mark: &TokenMark) -> Option<Duration> {
        (self.mark == *mark).then(|| self.left.saturating_sub(self.at.elapsed()))
    }
}

impl TokenFile {
    pub(crate) fn new(path: PathBuf, life: Duration) -> Self {
        Self {
            path,
            life,
            clock: Steady::from(clock::wall()),
            desk: Desk::default(),
            seen: Mutex::new(None),
        }
    }

    async fn read(&self) -> Result<Granted, TokenError> {
        let path = self.path.clone();
        let read = self.desk.work(move || read_small(&path)).await;
        let stuck = |stuck| TokenError::own(FILE, format!("{}: {stuck}", self.path.display()));
        let (text, changed) = read.map_err(stuck)??;
        let token = text.expose().trim();
        let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
        if !answer::usable(token) {
            return Err(TokenError::own(FILE, "it holds something other than one token"));
        }
        let left = match answer::expires(token) {
            Some(expires) => self.left_until(expires),
            None => self.left_since(changed, clock::wall()),
        };
        if left.is_zero() {
            return Err(FILE_EXPIRED.into());
        }
        Ok(Granted {
            token: Secret::new(token),
            life: left,
            refresh_in: Some(FILE_PERIOD),
            refresh_token: None,
            id_token: None,
        })
    }

    /// Remaining life of a token with an expiry. A clock adjustment would make it too long, or expire this token and all
    /// later ones; so the clocks are read when an expiry is first seen, and again only while it is implausible by both.
    fn left_until(&self, expires: Duration) -> Duration {
        let mut seen = locked(&self.seen);
        let mark = TokenMark::Expires(expires);
        if let Some(left) = seen.as_ref().and_then(|seen| seen.left_of(&mark)) {
            return left;
        }
        let left = Clocks::read(&self.clock).left(expires, answer::LIFE_MAX);
        // What no clock can have right is asked again.
        let is_likely = !left.is_zero() && left <= answer::LIFE_MAX;
        *seen = is_likely.then(|| SeenToken::new(mark, left));
        left
    }

    /// Life of an opaque token. It lives from the change of its file, also for a gateway that was started later; the
    /// wall clock is asked once for each change, when both moments are on the same side of any jump.
    fn left_since(&self, changed: SystemTime, wall: SystemTime) -> Duration {
        let mut seen = locked(&self.seen);
        let mark = TokenMark::Changed(changed);
        if let Some(left) = seen.as_ref().and_then(|seen| seen.left_of(&mark)) {
            return left;
        }
        let age = wall.duration_since(changed).unwrap_or_default();
        let left = self.life.saturating_sub(age);
        *seen = Some(SeenToken::new(mark, left));
        left
    }
}

impl Grant for TokenFile {
    fn ask(&self) -> Asked<'_> {
        Box::pin(self.read())
    }
}

/// The text of a small file, and when it was changed last.
fn read_small(path: &Path) -> Result<(Secret, SystemTime), TokenError> {
    let failed = |error: std::io::Error| TokenError::own(FILE, format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let changed = metadata.modified().map_err(failed)?;
    let text = files::text(&file, FILE_BYTES_MAX).map_err(failed)?;
    let text = text.ok_or_else(|| {
        let shown = path.display();
        TokenError::own(FILE, format!("{shown}: larger than {FILE_BYTES_MAX} bytes"))
    })?;
    Ok((Secret::new(text.as_str()), changed))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, UNIX_EPOCH};

    use super::TokenFile;
    use crate::model::clock;
    use crate::model::clock::Steady;

    const LIFE: Duration = Duration::from_secs(3000);
    const MINUTE: Duration = Duration::from_secs(60);
    const YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

    fn file() -> TokenFile {
        TokenFile::new(PathBuf::new(), LIFE)
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_file_that_never_opens_ends_the_question() {
        let folder = tempfile::tempdir().unwrap();
        // A pipe opens when somebody writes to it.
        let pipe = folder.path().join("token");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let file = TokenFile::new(pipe.clone(), LIFE);
        let (read, ()) = tokio::join!(file.read(), tokio::time::advance(MINUTE));
        let why = read.unwrap_err().to_string();
        assert!(why.contains("did not answer"), "{why}");
        // Lets go of the thread that waits.
        std::fs::write(&pipe, "").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_opaque_token_lives_on_however_the_wall_clock_jumps() {
        let file = file();
        let wall = clock::wall();
        let changed = wall - MINUTE;
        assert_eq!(file.left_since(changed, wall), LIFE - MINUTE);
        tokio::time::advance(MINUTE).await;
        for jumped in [wall + YEARS, wall - YEARS] {
            assert_eq!(file.left_since(changed, jumped), LIFE - 2 * MINUTE);
        }
        tokio::time::advance(LIFE).await;
        assert_eq!(file.left_since(changed, wall - YEARS), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_opaque_token_written_after_a_jump_has_its_whole_life() {
        let file = file();
        let wall = clock::wall();
        file.left_since(wall, wall);
        for jumped in [wall + YEARS, wall - YEARS] {
            assert_eq!(file.left_since(jumped - MINUTE, jumped), LIFE - MINUTE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_with_an_expiry_is_compared_with_a_clock_that_does_not_jump() {
        let file = file();
        let start = file.clock.now().duration_since(UNIX_EPOCH).unwrap();
        let expires = start + 60 * MINUTE;
        assert_eq!(file.left_until(expires), 60 * MINUTE);
        tokio::time::advance(10 * MINUTE).await;
        assert_eq!(file.left_until(expires), 50 * MINUTE);
        tokio::time::advance(YEARS).await;
        assert_eq!(file.left_until(expires), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_by_a_wrong_clock_is_over_when_the_clock_was_set() {
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap();
        let expires = now + 60 * MINUTE;
        for wrong in [clock::wall() + YEARS, clock::wall() - YEARS] {
            let mut file = file();
            file.clock = Steady::from(wrong);
            let left = file.left_until(expires);
            assert!(left <= 60 * MINUTE && left > 50 * MINUTE, "{left:?}");
        }
    }
}
