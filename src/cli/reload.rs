//! Settings that change while the gateway serves: read again on SIGHUP, on a command, and when a file that is watched has
//! changed. What cannot be used is logged, and the settings in force stay.

use std::collections::HashMap;
use std::convert::Infallible;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::kept::Kept;
use crate::cli::load::{NotLoaded, Whole, load_whole};
use crate::cli::outcome::{FAILED, WELL, WRONG};
use crate::cli::signals::{Notice, Notices};
use crate::control::{Asked, Reply, Request};
use crate::gateway::{NotRevoked, ReloadOutcome, Wanted};
use crate::model::{CallerName, KeyLabel, clock};
use crate::server::Server;
use crate::settings::{
    Difference, FileInForce, FileState, Look, Mistake, Scalars, Severity, VaultReference, VaultValue, Watched,
};
use crate::state::Actor;

/// How often files are looked at. Folders are not subscribed to: a look costs a microsecond, finds what a subscription
/// misses on network disks, and follows links that are set anew.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// A file that was changed may still be half written: it is read once it has stayed the same for so long.
const QUIET: Duration = Duration::from_secs(1);
/// Time from one build to the next.
const BUILD_PERIOD: Duration = Duration::from_secs(2);

/// Why settings are read again.
#[derive(Debug, Clone)]
enum Reason {
    Operator(Actor),
    /// A file was changed. Of list files only, the settings file counts as it was read last.
    Files(Watched),
}

impl Reason {
    fn word(&self) -> &'static str {
        match self {
            Self::Operator(Actor::Signal { .. }) => "SIGHUP",
            Self::Operator(_) => "a command",
            Self::Files(Watched::All) => "a settings file",
            Self::Files(_) => "a list file",
        }
    }

    fn actor(&self) -> Actor {
        match self {
            Self::Operator(by) => by.clone(),
            Self::Files(_) => Actor::Gateway,
        }
    }

    fn is_of_lists(&self) -> bool {
        matches!(self, Self::Files(Watched::Lists))
    }

    fn wanted(&self) -> Wanted {
        match self.is_of_lists() {
            true => Wanted::ByItself,
            false => Wanted::ByOperator,
        }
    }
}

/// The settings in force, as far as the next ones are compared with them.
pub(super) struct Reloader {
    path: PathBuf,
    text: String,
    vaults: HashMap<VaultReference, VaultValue>,
    files: Vec<Watching>,
    digest: String,
    /// What needs a restart keeps the value of the start.
    started: Scalars,
    watched: Watched,
    built: Instant,
    /// When these settings came into force, and by whom.
    since: String,
    by: Actor,
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

/// How a try to reload ended.
enum Ended {
    /// A file that was touched has the content it had.
    Unchanged,
    InForce {
        revision: u64,
        changes: Vec<String>,
    },
    Refused(String),
}

impl Reloader {
    pub(super) fn new(path: PathBuf, whole: &mut Whole) -> Self {
        Self {
            path,
            text: mem::take(&mut whole.text),
            vaults: mem::take(&mut whole.vaults),
            files: Watching::all(mem::take(&mut whole.config.files)),
            digest: whole.config.digest.to_string(),
            started: Scalars::of(&whole.config),
            watched: whole.config.gateway.watch,
            built: Instant::now(),
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
            self.reload(server, kept, &reason, None).await;
        }
    }

    /// Ends when a file that is watched was changed and has become quiet.
    async fn changed(&mut self) -> Watched {
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
                return Watched::All;
            }
            return Watched::Lists;
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

    /// Reads the files and puts them in force. With `digest` only if they still have it.
    async fn reload(
        &mut self,
        server: &mut Server,
        kept: &Kept,
        reason: &Reason,
        digest: Option<&str>,
    ) -> Ended {
        tokio::time::sleep_until(self.built + BUILD_PERIOD).await;
        self.built = Instant::now();
        // Somebody who asks for it may have changed what is not watched: a trigger, certificate authorities.
        let by_itself = matches!(reason, Reason::Files(_));
        if by_itself && self.differing(reason.is_of_lists()).await.is_empty() {
            return Ended::Unchanged;
        }
        let text = reason.is_of_lists().then(|| self.text.clone());
        let ended = match load_whole(&self.path, text, &self.vaults).await {
            Ok(whole) => match digest.filter(|digest| *digest != whole.config.digest.to_string()) {
                Some(_) => Err(
                    "the files have changed since they were looked at; run `flowgate plan` again".to_owned(),
                ),
                None => self.apply(server, kept, whole, reason).await,
            },
            Err(failed) => Err(not_loaded(failed)),
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
                kept.note(&reason.actor(), "reload", &format!("refused: {why}"), &[]);
                Ended::Refused(why)
            }
        }
    }

    /// The files with other content than what is in force, the settings file first. One that cannot be read is reported by
    /// the load.
    async fn differing(&self, only_lists: bool) -> Vec<String> {
        let first = usize::from(only_lists);
        let watched = self.files.iter().skip(first);
        let files: Vec<_> = watched.map(|watching| watching.file.clone()).collect();
        let compare = move || {
            let other = files.iter().filter(|file| file.compare() != FileState::Same);
            other.map(ToString::to_string).collect()
        };
        tokio::task::spawn_blocking(compare).await.unwrap_or_default()
    }

    /// What would change with these settings, in words.
    fn difference(&self, later: &Whole) -> Difference {
        let mut difference = Difference::between(&self.text, &later.text);
        for file in later.config.files.iter().skip(1) {
            if !self.files.iter().any(|watching| watching.file.is_same(file)) {
                difference.add(format!("list {file}: other content"));
            }
        }
        difference
    }

    async fn apply(
        &mut self,
        server: &mut Server,
        kept: &Kept,
        mut whole: Whole,
        reason: &Reason,
    ) -> Result<Ended, String> {
        whole.warnings.iter().for_each(log);
        let changes = self.difference(&whole).lines().to_vec();
        let by = reason.actor();
        kept.record(&by, "reload", "begun", &changes)?;
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
        self.vaults = whole.vaults;
        self.files = Watching::all(files);
        self.digest = config.digest.to_string();
        self.watched = config.gateway.watch;
        self.since = clock::stamp();
        self.by = by.clone();
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
        kept.note(&by, "reload", "done", &[format!("revision {revision}")]);
        Ok(Ended::InForce { revision, changes })
    }

    /// Carries out a command.
    async fn carry_out(&mut self, server: &mut Server, kept: &Kept, asked: Asked) {
        let by = asked.by.clone();
        let reply = match asked.request.clone() {
            Request::Status => self.status(server).await,
            Request::Plan { config } => self.plan(config.as_deref()).await,
            Request::Reload { digest } => {
                let reason = Reason::Operator(by);
                match self.reload(server, kept, &reason, digest.as_deref()).await {
                    Ended::Unchanged => reply(WELL, "nothing has changed"),
                    Ended::Refused(why) => reply(WRONG, &format!("flowgate: not reloaded: {why}")),
                    Ended::InForce { revision, changes } => {
                        let lines: String = changes.iter().map(|line| format!("\n  {line}")).collect();
                        reply(WELL, &format!("revision {revision} is in force{lines}"))
                    }
                }
            }
            Request::Revoke { caller, key } => revoke(server, kept, &by, &caller, &key),
        };
        asked.answer(reply);
    }

    async fn status(&self, server: &Server) -> Reply {
        let status = server.gateway().status();
        let listeners: Vec<_> = status.listeners.iter().map(ToString::to_string).collect();
        let by = match &self.by {
            Actor::Gateway if status.revision == 1 => "at the start".to_owned(),
            Actor::Gateway => "because a file was changed".to_owned(),
            Actor::Signal { name } => format!("by {name}"),
            Actor::User { uid, .. } => format!("by user {uid}"),
        };
        let differing = self.differing(false).await;
        let files = match differing.as_slice() {
            [] => "as in force".to_owned(),
            names => format!("changed since, see `flowgate plan`: {}", names.join(", ")),
        };
        let reload = match status.last_reload.and_then(|last| last.refused) {
            Some(why) => format!("\nlast reload  refused: {why}"),
            None => String::new(),
        };
        reply(
            WELL,
            &format!(
                "revision     {} in force since {} {by}\nfiles        {files}\nlisteners    {}\nserving for  {} s, version {}{reload}",
                status.revision,
                self.since,
                listeners.join(" "),
                status.since_seconds,
                status.version
            ),
        )
    }

    async fn plan(&self, other: Option<&Path>) -> Reply {
        match load_whole(other.unwrap_or(&self.path), None, &self.vaults).await {
            Ok(whole) => {
                let difference = self.difference(&whole);
                let digest = whole.config.digest.to_string();
                if difference.lines().is_empty() {
                    return reply(WELL, "nothing would change");
                }
                let restart = self.started.changes(&Scalars::of(&whole.config));
                let restart = restart.iter().filter(|change| change.needs_restart());
                let restart: String = restart
                    .map(|change| format!("  needs a restart: {change}\n"))
                    .collect();
                let next = match other {
                    Some(_) => String::new(),
                    None => format!("\nTo put this in force: flowgate reload --digest {digest}"),
                };
                reply(WELL, &format!("would change:\n{difference}{restart}{next}"))
            }
            Err(failed) => reply(
                WRONG,
                &format!("flowgate: these settings cannot be used: {}", not_loaded(failed)),
            ),
        }
    }
}

fn reply(code: u8, text: &str) -> Reply {
    Reply {
        code,
        text: format!("{}\n", text.trim_end()),
    }
}

/// Denies a key first, then notes it: what the disk says must not keep a leaked key working.
fn revoke(server: &Server, kept: &Kept, by: &Actor, caller: &str, key: &str) -> Reply {
    let (Ok(name), Ok(label)) = (CallerName::parse(caller), KeyLabel::parse(key)) else {
        return reply(
            WRONG,
            "flowgate: this is no name of a caller, or no label of a key",
        );
    };
    let revoked = server.gateway().revoke(&name, &label);
    let what = format!("key {label} of caller {name}");
    let kept_it = match revoked {
        Err(NotRevoked::NoKey) => {
            kept.note(
                by,
                "key-revoke",
                "refused: there is no such key",
                std::slice::from_ref(&what),
            );
            return reply(
                WRONG,
                &format!("flowgate: {what} is not in the settings in force"),
            );
        }
        Err(NotRevoked::NotKept(error)) => Err(error.to_string()),
        Ok(()) => Ok(()),
    };
    tracing::warn!(caller = %name, key = %label, "{what} was revoked and is refused from now on");
    let recorded = kept.record(by, "key-revoke", "done", std::slice::from_ref(&what));
    match kept_it.and(recorded) {
        Ok(()) => reply(
            WELL,
            &format!("{what} is refused from now on, also after a restart"),
        ),
        Err(why) => reply(
            FAILED,
            &format!(
                "{what} is refused until the gateway is restarted, but that could not be written down: {why}; remove the \
                 key from the settings before the next start"
            ),
        ),
    }
}

/// Logs what is wrong with settings, and returns the first of it.
fn not_loaded(failed: NotLoaded) -> String {
    match failed {
        NotLoaded::Stopping => "the gateway is stopping".to_owned(),
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
