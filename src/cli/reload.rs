//! Settings that change while the gateway serves: read again on SIGHUP, on a command, and when a file that is watched has
//! changed. What cannot be used is logged, and the settings in force stay.

mod reason;

use std::collections::HashMap;
use std::convert::Infallible;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use reason::{Expected, Reason};

use crate::cli::disk::{DISK_TIMEOUT, NotDone, on_disk};
use crate::cli::kept::Kept;
use crate::cli::load::{Given, NotLoaded, Whole, load_whole};
use crate::cli::signals::{Notice, Notices};
use crate::gateway::ReloadOutcome;
use crate::model::clock;
use crate::server::Server;
use crate::settings;
use crate::settings::{
    Difference, FileInForce, FileState, Look, Mistake, Scalars, Severity, UNSEEN, VaultReference, VaultValue,
    Watched,
};
use crate::state::{Actor, ListVersion, Revision};

/// How often files are looked at. Folders are not subscribed to: a look costs a microsecond, finds what a subscription
/// misses on network disks, and follows links that are set anew.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// A file that was changed may still be half written: it is read once it has stayed the same for so long.
const QUIET: Duration = Duration::from_secs(1);
/// A file that never becomes quiet is read nevertheless.
const RESTLESS_MAX: Duration = Duration::from_secs(30);
/// Files that could not be put in force are tried again: what was wrong may have been the disk, or a vault.
const AGAIN: Duration = Duration::from_secs(60);
/// The settings in force, as far as the next ones are compared with them.
pub(super) struct Reloader {
    pub(super) path: PathBuf,
    pub(super) text: String,
    vaults: HashMap<VaultReference, VaultValue>,
    /// When the reading of those began.
    vaults_read: Instant,
    files: Vec<Watching>,
    /// What needs a restart keeps the value of the start.
    pub(super) started: Scalars,
    watched: Watched,
    /// The revision that was rolled back to: files are not followed until an operator asks for a reload.
    pub(super) pinned: Option<u64>,
    pub(super) built: Instant,
    /// Files that were changed, and are waited for until they are quiet.
    restless: Option<Restless>,
    /// When files that could not be put in force are tried again.
    again: Option<Instant>,
    /// Warnings that were logged.
    warned: Vec<String>,
    /// When these settings came into force, and by whom.
    pub(super) since: String,
    pub(super) by: Actor,
}

/// A file and its last look.
struct Watching {
    file: FileInForce,
    look: Look,
}

/// Looks at files that are changing.
struct Restless {
    looks: Vec<Look>,
    /// When they were first seen, and when they changed last.
    since: Instant,
    changed: Instant,
}

impl Watching {
    /// The first look is reason to compare them: they may have changed since they were read.
    fn all(files: Vec<FileInForce>) -> Vec<Self> {
        let watch = |file: FileInForce| Self { look: UNSEEN, file };
        files.into_iter().map(watch).collect()
    }
}

/// How a try to reload ended.
pub(super) enum Ended {
    /// A file that was touched has the content it had.
    Unchanged,
    /// Other files were changed beside the one that an edit is about, so none of them was put in force.
    Others,
    InForce {
        revision: u64,
        changes: Vec<String>,
    },
    Refused(String),
}

impl Reloader {
    pub(super) fn new(path: PathBuf, whole: &mut Whole, pinned: Option<u64>) -> Self {
        Self {
            path,
            text: mem::take(&mut whole.text),
            vaults: mem::take(&mut whole.vaults),
            vaults_read: whole.begun,
            files: Watching::all(mem::take(&mut whole.config.files)),
            started: Scalars::of(&whole.config),
            watched: whole.config.gateway.watch,
            pinned,
            built: Instant::now(),
            restless: None,
            again: None,
            warned: whole
                .warnings
                .iter()
                .map(|warning| warning.what().to_owned())
                .collect(),
            since: clock::stamp(),
            by: Actor::Gateway,
        }
    }

    /// Reloads whenever there is reason to, and carries out commands, for ever.
    pub(super) async fn run(
        &mut self,
        server: &mut Server,
        notices: &mut Notices,
        kept: &mut Kept,
    ) -> Infallible {
        loop {
            let reason = tokio::select! {
                notice = notices.next() => match notice {
                    Notice::Hangup => Reason::Operator(Actor::Signal { name: "SIGHUP".to_owned() }),
                    Notice::Other(ignored) => {
                        ignored.log();
                        continue;
                    }
                },
                asked = kept.command() => {
                    self.carry_out(server, kept, asked).await;
                    continue;
                }
                watched = self.changed() => Reason::Files(watched),
            };
            self.reload(server, kept, &reason, &Expected::Anything).await;
        }
    }

    /// Ends when a file that is watched was changed and has become quiet, or is to be tried again. Dropped, it goes on where
    /// it was.
    async fn changed(&mut self) -> Watched {
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            if self.watched == Watched::Off || self.pinned.is_some() {
                continue;
            }
            let now = Instant::now();
            if self.again.take_if(|again| now >= *again).is_some() {
                return self.watched;
            }
            let looks = self.looks().await;
            let Some(restless) = &mut self.restless else {
                let known = self.watching().map(|watching| &watching.look);
                if !looks.iter().eq(known) {
                    let (since, changed) = (now, now);
                    self.restless = Some(Restless {
                        looks,
                        since,
                        changed,
                    });
                }
                continue;
            };
            let is_quiet = restless.looks == looks;
            if !is_quiet {
                restless.looks = looks;
                restless.changed = now;
            }
            if now < restless.changed + QUIET && now < restless.since + RESTLESS_MAX {
                continue;
            }
            let seen = self.restless.take().map(|restless| restless.looks);
            let skipped = self.skipped();
            let watched = self.files.iter_mut().skip(skipped);
            for (watching, look) in watched.zip(seen.unwrap_or_default()) {
                watching.look = look;
            }
            return self.watched;
        }
    }

    /// How many files before the watched ones are not.
    fn skipped(&self) -> usize {
        usize::from(self.watched != Watched::All)
    }

    fn watching(&self) -> impl Iterator<Item = &Watching> {
        self.files.iter().skip(self.skipped())
    }

    /// A disk may hang, so not here.
    async fn looks(&self) -> Vec<Look> {
        let files: Vec<_> = self.watching().map(|watching| watching.file.clone()).collect();
        let look = move || files.iter().map(FileInForce::look).collect();
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// Waits until the next build may begin.
    pub(super) async fn pause(&self, reason: &Reason) {
        tokio::time::sleep_until(self.built + reason.period()).await;
    }

    /// The settings file and its lists, as they are in force.
    pub(super) fn files(&self) -> Vec<FileInForce> {
        self.files.iter().map(|watching| watching.file.clone()).collect()
    }

    /// Reads the files and puts them in force, if they are what is expected.
    pub(super) async fn reload(
        &mut self,
        server: &mut Server,
        kept: &Kept,
        reason: &Reason,
        expected: &Expected,
    ) -> Ended {
        self.pause(reason).await;
        self.built = Instant::now();
        // Somebody who asks for it may have changed what is not watched: a trigger, certificate authorities.
        let by_itself = matches!(reason, Reason::Files(_));
        if by_itself && self.differing(reason.is_of_lists()).await.is_empty() {
            // The refusal may be about the settings file, which is not watched.
            if server.gateway().is_reload_refused() && self.differing(false).await.is_empty() {
                server.gateway().note_reload(ReloadOutcome::InForce);
                tracing::info!("the files are as in force again");
            }
            return Ended::Unchanged;
        }
        let text = reason.is_of_lists().then(|| self.text.clone());
        let given = Given {
            text,
            ..Given::default()
        };
        let loaded = match self.unreadable(reason).await {
            Some(why) => Err(why),
            None => self.load(server, &self.path, given).await,
        };
        let ended = match (loaded, expected) {
            (Ok(whole), _) if expected.fits(&whole) => self.apply(server, kept, whole, reason).await,
            (Ok(_), Expected::Files(_)) => Ok(Ended::Others),
            (Ok(_), Expected::Digest(_) | Expected::Anything) => {
                Err("the files have changed since they were looked at; run `flowgate plan` again".to_owned())
            }
            (Err(why), _) => Err(why),
        };
        match ended {
            Ok(ended) => ended,
            Err(why) => {
                let because = reason.word();
                tracing::error!(
                    because,
                    "settings not reloaded, those in force stay: {why}; correct that and reload again"
                );
                server.gateway().note_reload(ReloadOutcome::Refused(why.clone()));
                // Nothing was changed, so it is only worth a line in the log if this fails.
                let refused = format!("refused: {why}");
                kept.note(&reason.actor(), reason.action(), &refused, &[]).await;
                self.again = by_itself.then(|| Instant::now() + AGAIN);
                Ended::Refused(why)
            }
        }
    }

    pub(super) async fn load(&self, server: &Server, path: &Path, given: Given) -> Result<Whole, String> {
        // A value that was followed since then is the one to keep while its vault is away.
        let mut held = self.vaults.clone();
        held.extend(server.gateway().rereader().vault_values_since(self.vaults_read));
        match tokio::time::timeout(DISK_TIMEOUT, load_whole(path, given, &held)).await {
            Ok(loaded) => loaded.map_err(not_loaded),
            Err(_) => Err(format!(
                "the files could not be read within {} s; one may be on a disk that hangs, or be no regular file",
                DISK_TIMEOUT.as_secs()
            )),
        }
    }

    /// The files with other content than what is in force, the settings file first. One that cannot be read is reported by
    /// the load.
    pub(super) async fn differing(&self, only_lists: bool) -> Vec<String> {
        let first = usize::from(only_lists);
        let watched = self.files.iter().skip(first);
        let files: Vec<_> = watched.map(|watching| watching.file.clone()).collect();
        let compare = move || {
            let other = files.iter().filter(|file| file.compare() != FileState::Same);
            other.map(ToString::to_string).collect()
        };
        match on_disk(compare).await {
            Ok(compared) => compared,
            Err(NotDone::Hangs) => vec!["files that cannot be read in time".to_owned()],
            Err(NotDone::Stopping) => Vec::new(),
        }
    }

    /// Why a list cannot be read, where all lists stay those they are. A pipe would never end, at each try another one.
    async fn unreadable(&self, reason: &Reason) -> Option<String> {
        if !reason.is_of_lists() {
            return None;
        }
        let lists = self.files.iter().skip(1);
        let files: Vec<_> = lists.map(|watching| watching.file.clone()).collect();
        let find = move || {
            files.iter().find_map(|file| match file.compare() {
                FileState::Unreadable(why) => Some(why),
                FileState::Same | FileState::Differs => None,
            })
        };
        let found = on_disk(find).await;
        found.unwrap_or_else(|why| Some(format!("the lists cannot be read: {why}")))
    }

    /// Logs warnings that these settings have and those in force have not.
    fn warn(&mut self, warnings: &[Mistake]) {
        let new = warnings
            .iter()
            .filter(|warning| !self.warned.iter().any(|known| known == warning.what()));
        new.for_each(log);
        self.warned = warnings.iter().map(|warning| warning.what().to_owned()).collect();
    }

    /// The settings in force, as they are kept.
    pub(super) fn revision(&self, number: u64, changes: Vec<String>) -> Revision {
        let lists = self.files.iter().skip(1).map(|watching| ListVersion {
            path: watching.file.path().to_owned(),
            sha256: watching.file.sha256(),
        });
        let settings = settings::without_comments(&self.text);
        let mut revision = Revision::new(number, self.by.clone(), settings, lists.collect());
        revision.changes = changes;
        revision
    }

    /// What would change with these settings, in words.
    pub(super) fn difference(&self, server: &Server, later: &Whole) -> Vec<String> {
        let mut difference = Difference::between(&self.text, &later.text);
        let lists = later.config.files.iter().skip(1);
        let other = lists.filter(|file| !self.files.iter().any(|watching| watching.file.is_same(file)));
        difference.add(other.map(|file| format!("list {file}: other content")));
        difference.add(server.gateway().moves(&later.config));
        difference.lines()
    }

    pub(super) async fn apply(
        &mut self,
        server: &mut Server,
        kept: &Kept,
        mut whole: Whole,
        reason: &Reason,
    ) -> Result<Ended, String> {
        self.warn(&whole.warnings);
        let changes = self.difference(server, &whole);
        let by = reason.actor();
        kept.record(&by, reason.action(), "begun", &changes).await?;
        if let Reason::Rollback { to, .. } = reason {
            kept.pin(Some(*to)).await?;
        }
        let files = mem::take(&mut whole.config.files);
        let config = Arc::new(whole.config);
        let reloaded = server.reload(&config, reason.wanted()).await;
        let reloaded = reloaded.map_err(|error| error.to_string())?;
        for change in self.started.changes(&Scalars::of(&config)) {
            if change.needs_restart() {
                let setting = change.setting.as_str();
                tracing::warn!(setting, "{change} takes effect when the gateway is restarted");
            }
        }
        self.text = whole.text;
        (self.vaults, self.vaults_read) = (whole.vaults, whole.begun);
        self.files = Watching::all(files);
        self.watched = config.gateway.watch;
        self.since = clock::stamp();
        self.by = by.clone();
        kept.grant(&config.control);
        let (revision, because) = (reloaded.revision, reason.word());
        for address in &reloaded.opened {
            tracing::info!(%address, "listening");
        }
        for address in &reloaded.closed {
            tracing::info!(%address, "not listening any more; its connections end after what they are doing");
        }
        tracing::info!(
            revision,
            because,
            "settings reloaded: revision {revision} is in force"
        );
        server.gateway().note_reload(ReloadOutcome::InForce);
        let done = [format!("revision {revision}")];
        kept.note(&by, reason.action(), "done", &done).await;
        self.pinned = match reason {
            Reason::Rollback { to, .. } => Some(*to),
            Reason::Operator(_) | Reason::Edit(_) | Reason::Files(_) => None,
        };
        server.gateway().note_pinned(self.pinned);
        if self.pinned.is_none()
            && let Err(why) = kept.pin(None).await
        {
            tracing::error!("{why}: a restart would take the settings that were rolled back to");
        }
        kept.keep(self.revision(revision, changes.clone())).await;
        Ok(Ended::InForce { revision, changes })
    }
}

/// Why nothing came of a load.
pub(super) const UNFINISHED: &str =
    "they were not read to the end: the gateway is stopping, or has a defect that is in its log";

/// Logs what is wrong with settings, and returns the first of it.
fn not_loaded(failed: NotLoaded) -> String {
    match failed {
        NotLoaded::Unfinished => UNFINISHED.to_owned(),
        NotLoaded::Vaults(error) => error.to_string(),
        NotLoaded::Settings(report) => {
            report.mistakes().iter().for_each(log);
            let mut mistakes = report.mistakes().iter();
            let first = mistakes.find(|mistake| mistake.severity() != Severity::Warning);
            first.map_or_else(String::new, |mistake| match mistake.line() {
                Some(line) => format!("{}:{line}: {}", mistake.file(), mistake.what()),
                None => format!("{}: {}", mistake.file(), mistake.what()),
            })
        }
    }
}

/// Logs what was found in settings.
pub(super) fn log(found: &Mistake) {
    let (file, line, hint) = (found.file(), found.line(), found.hint());
    match found.severity() {
        Severity::Warning => tracing::warn!(file, line, hint, "{}", found.what()),
        Severity::Mistake | Severity::Lapse => tracing::error!(file, line, hint, "{}", found.what()),
    }
}
