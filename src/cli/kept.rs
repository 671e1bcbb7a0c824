//! What a gateway that serves keeps in its state folder: the trail of changes, revoked keys, the control socket.

use std::io;
use std::path::Path;

use crate::control::{Asked, ControlSocket, SOCKET};
use crate::state::{Actor, Revocations, StateError, StateFolder, Trail};

/// Name of the trail in the state folder.
pub(super) const TRAIL: &str = "audit.jsonl";
const REVOKED: &str = "revoked.jsonl";

/// The open state folder; without one nothing is kept.
#[derive(Default)]
pub(super) struct Kept {
    trail: Option<Trail>,
    socket: Option<ControlSocket>,
    folder: Option<StateFolder>,
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
    pub(super) fn open(folder: Option<&Path>) -> Result<(Self, Revocations), NotKept> {
        let Some(folder) = folder else {
            return Ok((Self::default(), Revocations::default()));
        };
        let folder = StateFolder::open(folder)?;
        let revocations = Revocations::open(folder.join(REVOKED))?;
        let kept = Self {
            trail: Some(Trail::open(folder.join(TRAIL))?),
            socket: None,
            folder: Some(folder),
        };
        Ok((kept, revocations))
    }

    /// Takes commands from now on; logs why not, where that fails.
    pub(super) fn listen(&mut self) {
        let Some(folder) = &self.folder else {
            tracing::info!(
                "no state folder: revoked keys and the trail of changes are not kept, and there is no control socket; set \
                 `folder` of [state] for them"
            );
            return;
        };
        #[cfg(unix)]
        match ControlSocket::open(&folder.join(SOCKET)) {
            Ok(socket) => {
                let path = socket.path().display();
                tracing::info!("taking commands at {path}");
                self.socket = Some(socket);
            }
            Err(error) => {
                let path = folder.join(SOCKET);
                let path = path.display();
                tracing::error!(
                    "the control socket {path} cannot be opened, so no commands are taken: {error}"
                );
            }
        }
        #[cfg(not(unix))]
        let _ = (folder, SOCKET);
    }

    /// The next command.
    pub(super) async fn command(&mut self) -> Asked {
        match &mut self.socket {
            Some(socket) => socket.next().await,
            None => std::future::pending().await,
        }
    }

    /// Adds a line to the trail, if there is one.
    ///
    /// # Errors
    /// Why that cannot be: what it is about must not happen then.
    pub(super) fn record(
        &self,
        by: &Actor,
        action: &str,
        outcome: &str,
        what: &[String],
    ) -> Result<(), String> {
        let Some(trail) = &self.trail else {
            return Ok(());
        };
        trail
            .record(by, action, outcome, what)
            .map_err(|error| format!("the trail of changes cannot be written: {error}"))
    }

    /// The same for what has happened already.
    pub(super) fn note(&self, by: &Actor, action: &str, outcome: &str, what: &[String]) {
        if let Err(why) = self.record(by, action, outcome, what) {
            tracing::error!("{why}; {action} ({outcome}) is missing there");
        }
    }
}
