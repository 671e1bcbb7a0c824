//! What a gateway that serves keeps in its state folder: the trail of changes, revoked keys, last uses of keys, the
//! control socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{io, mem};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cli::disk::on_disk;
use crate::cli::load::Given;
use crate::cli::noted::record;
pub(super) use crate::cli::noted::reply;
use crate::cli::outcome::{FAILED, WELL, WRONG};
use crate::cli::{enrolling, key_list};
use crate::control;
use crate::control::{Asked, ControlSocket, Granted, Refused, Reply, Request, SOCKET};
use crate::gateway::{Gateway, NotRevoked};
use crate::model::{CallerName, KeyLabel, clock, locked};
use crate::settings;
use crate::settings::ControlSettings;
use crate::state::{
    Actor, Enrolled, KeyUses, Recalled, Revision, Revisions, Revocations, StateError, StateFolder, Trail,
};

/// Name of the trail in the state folder.
pub(super) const TRAIL: &str = "audit.jsonl";
const REVOKED: &str = "revoked.jsonl";
const ENROLLED: &str = "enrolled.jsonl";
/// Time from one line about refused commands to the next.
const REFUSALS_PERIOD: Duration = Duration::from_secs(1);
const REVISIONS: &str = "revisions";
const KEY_USES: &str = "key-uses";

/// How often the last uses of keys are written, if there were any.
const KEY_USES_PERIOD: Duration = Duration::from_secs(300);
/// Time for the last write, at the stop: a disk that hangs does not hold it up.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The open state folder; without one nothing is kept.
#[derive(Default)]
pub(super) struct Kept {
    trail: Option<Arc<Trail>>,
    commands: Option<mpsc::Receiver<Asked>>,
    granted: Granted,
    /// Where commands are taken.
    socket: Option<PathBuf>,
    folder: Option<StateFolder>,
    revisions: Option<Arc<Revisions>>,
    key_uses: Option<Arc<KeyUses>>,
}

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotKept {
    #[error(transparent)]
    Folder(#[from] StateError),
    #[error("{0}")]
    File(#[from] io::Error),
}

impl Kept {
    /// Opens the folder and what is in it, and nothing without one.
    pub(super) fn open(folder: Option<&Path>) -> Result<(Self, Recalled), NotKept> {
        let Some(folder) = folder else {
            return Ok((Self::default(), Recalled::default()));
        };
        let folder = StateFolder::open(folder)?;
        let trail = Arc::new(Trail::open(folder.join(TRAIL))?);
        let recalled = Recalled {
            revocations: Revocations::open(folder.join(REVOKED))?,
            enrolled: Enrolled::open(folder.join(ENROLLED))?,
            trail: Some(trail.clone()),
            ..Recalled::default()
        };
        let kept = Self {
            trail: Some(trail),
            commands: None,
            granted: Granted::default(),
            socket: None,
            revisions: Some(Arc::new(Revisions::at(folder.join(REVISIONS)))),
            key_uses: Some(Arc::new(KeyUses::new(folder.join(KEY_USES)))),
            folder: Some(folder),
        };
        Ok((kept, recalled))
    }

    /// Opens the folder before the settings are read, if an operator has rolled back to a revision in it: the settings file
    /// may be the reason.
    pub(super) fn open_pinned(path: &Path) -> Result<Option<(Self, Recalled)>, String> {
        let text = settings::read(path).ok();
        let folder = text.and_then(|text| settings::state_folder(&text, path));
        let Some(folder) = folder.filter(|folder| Revisions::at(folder.join(REVISIONS)).pin_path().exists())
        else {
            return Ok(None);
        };
        Self::open(Some(&folder))
            .map(Some)
            .map_err(|error| error.to_string())
    }

    /// The revision that a start takes in place of the settings file, if an operator has rolled back to one.
    pub(super) async fn pinned(&self) -> Result<Option<(u64, Given)>, String> {
        let Some(revisions) = &self.revisions else {
            return Ok(None);
        };
        let Some(number) = revisions.pinned()? else {
            return Ok(None);
        };
        let pin = revisions.pin_path();
        let read = self.revision(number).await.map_err(|why| {
            format!(
                "revision {number}, to which the settings were rolled back, cannot be used: {why}; to start with the \
                 settings file, remove {}",
                pin.display()
            )
        });
        read.map(|(_, given)| Some((number, given)))
    }

    /// The number of the settings of a start: that of the last ones if they are the same.
    pub(super) fn number_of(&self, started: &Revision) -> u64 {
        let Some(revisions) = &self.revisions else {
            return started.number;
        };
        let numbers = revisions.numbers();
        match (numbers.last(), revisions.last()) {
            (Some(number), Some(last)) if last.is_same(started) => *number,
            (Some(number), _) => number + 1,
            (None, _) => started.number,
        }
    }

    /// Keeps what is in force. Without it there is no way back to it, and nothing else is wrong.
    pub(super) async fn keep(&self, revision: Revision) {
        let Some(revisions) = self.revisions.clone() else {
            return;
        };
        let number = revision.number;
        let keeping = move || match revisions.numbers().contains(&revision.number) {
            true => Ok(()),
            false => revisions.keep(&revision),
        };
        let kept = on_disk(keeping).await.map_err(io::Error::other);
        if let Err(error) = kept.flatten() {
            tracing::error!("revision {number} is in force but cannot be kept for a rollback: {error}");
        }
    }

    /// A revision that is kept, and what settings are loaded from it.
    pub(super) async fn revision(&self, number: u64) -> Result<(Revision, Given), String> {
        let revisions = self.revisions.clone();
        let revisions = revisions.ok_or("revisions are kept only with `folder` of [state]")?;
        let reading = move || {
            let revision = revisions.read(number)?;
            let given = Given {
                text: Some(revision.settings.clone()),
                lists: Arc::new(revisions.lists(&revision)?),
            };
            Ok((revision, given))
        };
        let read = on_disk(reading).await;
        read.unwrap_or_else(|why| Err(format!("revision {number} cannot be read: {why}")))
    }

    /// The revisions that are kept.
    pub(super) async fn revisions(&self) -> Vec<Revision> {
        let Some(revisions) = self.revisions.clone() else {
            return Vec::new();
        };
        let reading = move || {
            let numbers = revisions.numbers();
            let read = numbers.iter().filter_map(|number| revisions.read(*number).ok());
            read.collect::<Vec<_>>()
        };
        on_disk(reading).await.unwrap_or_default()
    }

    /// Has a start take this revision, or the settings file.
    pub(super) async fn pin(&self, number: Option<u64>) -> Result<(), String> {
        let Some(revisions) = self.revisions.clone() else {
            return Ok(());
        };
        let path = revisions.pin_path();
        let pinned = on_disk(move || revisions.pin(number))
            .await
            .map_err(io::Error::other);
        pinned
            .flatten()
            .map_err(|error| format!("{} cannot be changed: {error}", path.display()))
    }

    /// Notes the uses of keys that an earlier run has left, and keeps them from now on.
    pub(super) fn keep_key_uses(&self, gateway: &Arc<Gateway>) {
        let Some(uses) = self.key_uses.clone() else {
            return;
        };
        match uses.read() {
            Ok(read) => gateway.recall_key_uses(&read),
            Err(error) => {
                let path = uses.path().display();
                tracing::warn!("the last uses of keys begin anew, because {path} cannot be read: {error}");
            }
        }
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let mut works = true;
            loop {
                tokio::time::sleep(KEY_USES_PERIOD).await;
                let written = write_key_uses(uses.clone(), gateway.clone()).await;
                // Once, not at each try.
                if let Err(error) = written.as_ref().map_err(ToString::to_string)
                    && mem::replace(&mut works, false)
                {
                    unwritten(&uses, &error);
                }
                works = written.is_ok();
            }
        });
    }

    /// Writes the last uses of keys at the end.
    pub(super) async fn write_key_uses(&self, gateway: &Arc<Gateway>) {
        let Some(uses) = self.key_uses.clone() else {
            return;
        };
        let writing = write_key_uses(uses.clone(), gateway.clone());
        match tokio::time::timeout(LAST_WRITE_TIMEOUT, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => unwritten(&uses, &error.to_string()),
            Err(_) => unwritten(&uses, "the disk does not answer"),
        }
    }

    /// Takes commands from now on; logs why not, where that fails.
    pub(super) fn listen(&mut self, gateway: &Arc<Gateway>) {
        let Some(folder) = &self.folder else {
            tracing::info!(
                "no state folder: revoked keys and the trail of changes are not kept, and there is no control socket; set \
                 `folder` of [state] for them"
            );
            return;
        };
        let path = self.granted.load().socket.clone();
        let path = path.unwrap_or_else(|| folder.join(SOCKET));
        self.socket = Some(path.clone());
        #[cfg(unix)]
        match ControlSocket::open(&path, self.granted.clone(), refused(self.trail.clone())) {
            Ok(socket) => {
                let path = socket.path().display();
                tracing::info!("taking commands at {path}");
                let (sender, commands) = mpsc::channel(1);
                tokio::spawn(dispatch(socket, gateway.clone(), self.trail.clone(), sender));
                self.commands = Some(commands);
            }
            Err(error) => {
                let path = path.display();
                tracing::error!(
                    "the control socket {path} cannot be opened, so no commands are taken: {error}"
                );
            }
        }
        #[cfg(not(unix))]
        let _ = (path, gateway, refused(self.trail.clone()));
    }

    /// Has these groups send commands from now on.
    pub(super) fn grant(&self, settings: &ControlSettings) {
        self.granted.store(Arc::new(settings.clone()));
        #[cfg(unix)]
        {
            let settings = settings.clone();
            let listens_at = self.commands.as_ref().and(self.socket.clone());
            // The system may ask a directory on the network.
            tokio::task::spawn_blocking(move || {
                if let Some(path) = listens_at
                    && let Err(error) = control::share(&path, &settings)
                {
                    tracing::error!("the rights of {} cannot be changed: {error}", path.display());
                }
                for group in control::unknown_groups(&settings) {
                    tracing::warn!(
                        "there is no group \"{group}\", which [control] names, so it grants nothing"
                    );
                }
            });
        }
    }

    /// The next command.
    pub(super) async fn command(&mut self) -> Asked {
        let asked = match &mut self.commands {
            Some(commands) => commands.recv().await,
            None => None,
        };
        match asked {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }

    /// Adds a line to the trail, if there is one.
    ///
    /// # Errors
    /// Why that cannot be: what it is about must not happen then.
    pub(super) async fn record(
        &self,
        by: &Actor,
        action: &'static str,
        outcome: &str,
        what: &[String],
    ) -> Result<(), String> {
        let Some(trail) = self.trail.clone() else {
            return Ok(());
        };
        let (by, outcome, what) = (by.clone(), outcome.to_owned(), what.to_vec());
        let recording = move || record(Some(&trail), &by, action, &outcome, &what);
        let recorded = on_disk(recording).await;
        recorded.unwrap_or_else(|why| Err(format!("the trail of changes cannot be written: {why}")))
    }

    /// The same for what has happened already.
    pub(super) async fn note(&self, by: &Actor, action: &'static str, outcome: &str, what: &[String]) {
        if let Err(why) = self.record(by, action, outcome, what).await {
            tracing::error!("{why}; {action} ({outcome}) is missing there");
        }
    }
}

/// Notes commands that were refused. Anybody on this machine may cause them, so there are only so many lines.
fn refused(trail: Option<Arc<Trail>>) -> Refused {
    let last: Mutex<(Option<Instant>, u64)> = Mutex::default();
    Arc::new(move |by: &Actor, what: &str| {
        let unnoted = {
            let mut last = locked(&last);
            let now = clock::now();
            if last.0.is_some_and(|last| now < last + REFUSALS_PERIOD) {
                last.1 += 1;
                return;
            }
            let unnoted = last.1;
            *last = (Some(now), 0);
            unnoted
        };
        tracing::warn!("a command by {by} on the control socket was refused ({what})");
        let more = (unnoted > 0).then(|| format!("and {unnoted} more since the line before"));
        let more = more.as_slice();
        if let Err(why) = record(trail.as_deref(), by, what, "refused: no right to it", more) {
            tracing::error!("{why}");
        }
    })
}

/// Off the workers: there may be a hundred thousand keys.
async fn write_key_uses(uses: Arc<KeyUses>, gateway: Arc<Gateway>) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || uses.write(&gateway.key_uses())).await;
    written.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn unwritten(uses: &KeyUses, why: &str) {
    let path = uses.path().display();
    tracing::warn!("the last uses of keys are not kept, because {path} cannot be written: {why}");
}

/// Passes commands on, and carries out at once what must not wait for a reload that takes long.
#[cfg(unix)]
async fn dispatch(
    mut socket: ControlSocket,
    gateway: Arc<Gateway>,
    trail: Option<Arc<Trail>>,
    commands: mpsc::Sender<Asked>,
) {
    loop {
        let asked = socket.next().await;
        if let Request::Revoke { caller, key } = &asked.request {
            let (gateway, trail) = (gateway.clone(), trail.clone());
            let (caller, key, by) = (caller.clone(), key.clone(), asked.by.clone());
            let revoking = move || revoke(&gateway, trail.as_deref(), &by, &caller, &key);
            // The disk may hang: the key is refused before that.
            tokio::spawn(async move {
                if let Ok(reply) = tokio::task::spawn_blocking(revoking).await {
                    asked.answer(reply);
                }
            });
            continue;
        }
        if matches!(asked.request, Request::Enrol { .. } | Request::Forget { .. }) {
            let (gateway, trail) = (gateway.clone(), trail.clone());
            let (request, by) = (asked.request.clone(), asked.by.clone());
            let doing = move || enrolling::carry_out(&gateway, trail.as_deref(), &by, &request);
            tokio::spawn(async move {
                if let Ok(Some(reply)) = tokio::task::spawn_blocking(doing).await {
                    asked.answer(reply);
                }
            });
            continue;
        }
        if let Request::Keys { caller } = &asked.request {
            let (gateway, caller) = (gateway.clone(), caller.clone());
            let listing = move || match key_list::list(&gateway, caller.as_deref()) {
                Ok(table) => reply(WELL, &table),
                Err(why) => reply(WRONG, &format!("flowgate: {why}")),
            };
            tokio::spawn(async move {
                if let Ok(reply) = tokio::task::spawn_blocking(listing).await {
                    asked.answer(reply);
                }
            });
            continue;
        }
        let commands = commands.clone();
        tokio::spawn(async move {
            // Dropped when nobody takes it any more, which answers that the gateway is stopping.
            let _ = commands.send(asked).await;
        });
    }
}

/// Denies a key first, then notes it: what the disk says must not keep a leaked key working.
fn revoke(gateway: &Gateway, trail: Option<&Trail>, by: &Actor, caller: &str, key: &str) -> Reply {
    let (Ok(name), Ok(label)) = (CallerName::parse(caller), KeyLabel::parse(key)) else {
        return reply(
            WRONG,
            "flowgate: this is no name of a caller, or no label of a key",
        );
    };
    let what = format!("key {label} of caller {name}");
    let note = |outcome: &str| record(trail, by, "key-revoke", outcome, std::slice::from_ref(&what));
    let kept = match gateway.revoke(&name, &label) {
        Err(NotRevoked::NoKey) => {
            if let Err(why) = note("refused: there is no such key") {
                tracing::error!("{why}");
            }
            return reply(
                WRONG,
                &format!("flowgate: {what} is not in the settings in force"),
            );
        }
        Err(NotRevoked::NotKept(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    tracing::warn!(caller = %name, key = %label, "{what} was revoked and is refused from now on");
    match (kept, note("done")) {
        (Ok(()), Ok(())) => reply(
            WELL,
            &format!("{what} is refused from now on, also after a restart"),
        ),
        (Ok(()), Err(why)) => reply(
            FAILED,
            &format!("{what} is refused from now on, also after a restart, but {why}"),
        ),
        (Err(error), _) => reply(
            FAILED,
            &format!(
                "{what} is refused until the gateway is restarted, but that could not be written down: {error}; remove the \
                 key from the settings before the next start"
            ),
        ),
    }
}
