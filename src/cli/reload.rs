//! Settings that change while the gateway serves: read again on SIGHUP, and when a file that is watched has changed. What
//! cannot be used is logged, and the settings in force stay.

use std::collections::HashMap;
use std::convert::Infallible;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::load::{NotLoaded, Whole, load_whole};
use crate::cli::signals::{Notice, Notices};
use crate::gateway::{ReloadOutcome, Wanted};
use crate::server::Server;
use crate::settings::{
    FileInForce, FileState, Look, Mistake, Scalars, Severity, VaultReference, VaultValue, Watched,
};

/// How often files are looked at. Folders are not subscribed to: a look costs a microsecond, finds what a subscription
/// misses on network disks, and follows links that are set anew.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// A file that was changed may still be half written: it is read once it has stayed the same for so long.
const QUIET: Duration = Duration::from_secs(1);
/// Time from one build to the next.
const BUILD_PERIOD: Duration = Duration::from_secs(2);

/// Why settings are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trigger {
    Signal,
    /// Only list files: the settings file counts as it was read last.
    Lists,
    All,
}

impl Trigger {
    fn word(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::Lists => "a list file",
            Self::All => "a settings file",
        }
    }
}

/// The settings in force, as far as the next ones are compared with them.
pub(super) struct Reloader {
    path: PathBuf,
    text: String,
    vaults: HashMap<VaultReference, VaultValue>,
    files: Vec<Watching>,
    /// What needs a restart keeps the value of the start.
    started: Scalars,
    watched: Watched,
    built: Instant,
}

/// A file and its last look.
struct Watching {
    file: FileInForce,
    look: Look,
}

impl Watching {
    fn all(files: Vec<FileInForce>) -> Vec<Self> {
        let watch = |file: FileInForce| Self {
            look: file.look(),
            file,
        };
        files.into_iter().map(watch).collect()
    }
}

impl Reloader {
    pub(super) fn new(path: PathBuf, whole: &mut Whole) -> Self {
        Self {
            path,
            text: mem::take(&mut whole.text),
            vaults: mem::take(&mut whole.vaults),
            files: Watching::all(mem::take(&mut whole.config.files)),
            started: Scalars::of(&whole.config),
            watched: whole.config.gateway.watch,
            built: Instant::now(),
        }
    }

    /// Reloads whenever there is reason to, for ever.
    pub(super) async fn run(&mut self, server: &mut Server, notices: &mut Notices) -> Infallible {
        loop {
            let trigger = tokio::select! {
                notice = notices.next() => match notice {
                    Notice::Hangup => Trigger::Signal,
                    Notice::Other(ignored) => {
                        ignored.log();
                        continue;
                    }
                },
                trigger = self.changed() => trigger,
            };
            tokio::time::sleep_until(self.built + BUILD_PERIOD).await;
            self.built = Instant::now();
            self.reload(server, trigger).await;
        }
    }

    /// Ends when a file that is watched was changed and has become quiet.
    async fn changed(&mut self) -> Trigger {
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            let Some(mut seen) = self.news() else { continue };
            loop {
                tokio::time::sleep(QUIET).await;
                let again = self.looks();
                if again == seen {
                    break;
                }
                seen = again;
            }
            let settings = self.files.first().zip(seen.first());
            let is_settings = settings.is_some_and(|(watching, look)| watching.look != *look);
            for (watching, look) in self.files.iter_mut().zip(seen) {
                watching.look = look;
            }
            if is_settings && self.watched == Watched::All {
                return Trigger::All;
            }
            return Trigger::Lists;
        }
    }

    /// All looks, if one of a file that is watched is another one than before.
    fn news(&self) -> Option<Vec<Look>> {
        let first = match self.watched {
            Watched::Off => return None,
            Watched::Lists => 1,
            Watched::All => 0,
        };
        let looks = self.looks();
        let mut watched = self.files.iter().zip(&looks).skip(first);
        watched
            .any(|(watching, look)| watching.look != *look)
            .then_some(looks)
    }

    fn looks(&self) -> Vec<Look> {
        self.files.iter().map(|watching| watching.file.look()).collect()
    }

    async fn reload(&mut self, server: &mut Server, trigger: Trigger) {
        let because = trigger.word();
        if !self.differs(trigger).await {
            if trigger == Trigger::Signal {
                tracing::info!(
                    signal = because,
                    "the settings and their list files have not changed; nothing to reload"
                );
            }
            return;
        }
        let text = (trigger == Trigger::Lists).then(|| self.text.clone());
        match load_whole(&self.path, text, &self.vaults).await {
            Ok(whole) => self.apply(server, whole, trigger).await,
            Err(NotLoaded::Stopping) => {}
            Err(NotLoaded::Settings(report)) => {
                report.mistakes().iter().for_each(log);
                let mistakes = report.mistakes().iter();
                let first = mistakes
                    .filter(|mistake| mistake.severity() != Severity::Warning)
                    .map(|mistake| format!("{}: {}", mistake.file(), mistake.what()))
                    .next();
                refused(server, because, first.unwrap_or_default());
            }
            Err(NotLoaded::Vaults(error)) => refused(server, because, error.to_string()),
        }
    }

    /// Whether a file has other content than what is in force. One that cannot be read is reported by the load.
    async fn differs(&self, trigger: Trigger) -> bool {
        let first = usize::from(trigger == Trigger::Lists);
        let files: Vec<_> = self
            .files
            .iter()
            .skip(first)
            .map(|watching| watching.file.clone())
            .collect();
        let compare = move || files.iter().any(|file| file.compare() != FileState::Same);
        tokio::task::spawn_blocking(compare).await.unwrap_or(false)
    }

    async fn apply(&mut self, server: &mut Server, mut whole: Whole, trigger: Trigger) {
        let because = trigger.word();
        let wanted = match trigger {
            Trigger::Lists => Wanted::ByItself,
            Trigger::Signal | Trigger::All => Wanted::ByOperator,
        };
        whole.warnings.iter().for_each(log);
        let files = mem::take(&mut whole.config.files);
        let config = Arc::new(whole.config);
        let reloaded = match server.reload(&config, wanted).await {
            Ok(reloaded) => reloaded,
            Err(error) => return refused(server, because, error.to_string()),
        };
        for change in self.started.changes(&Scalars::of(&config)) {
            if change.needs_restart() {
                let setting = change.setting.as_str();
                tracing::warn!(setting, "{change} takes effect when the gateway is restarted");
            }
        }
        self.text = whole.text;
        self.vaults = whole.vaults;
        self.files = Watching::all(files);
        self.watched = config.gateway.watch;
        let revision = reloaded.revision;
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
    }
}

fn refused(server: &Server, because: &'static str, why: String) {
    tracing::error!(
        because,
        "settings not reloaded, those in force stay: {why}; correct them and send SIGHUP again"
    );
    server.gateway().note_reload(ReloadOutcome::Refused(why));
}

/// Logs what was found in settings.
pub(super) fn log(found: &Mistake) {
    let (file, line, hint) = (found.file(), found.line(), found.hint());
    match found.severity() {
        Severity::Warning => tracing::warn!(file, line, hint, "{}", found.what()),
        Severity::Mistake | Severity::Lapse => tracing::error!(file, line, hint, "{}", found.what()),
    }
}
