//! A file that a command has changed is put in force by itself, unless something else would come into force with it.

use std::path::PathBuf;

use crate::cli::disk::{NotDone, on_disk};
use crate::cli::kept::{Kept, reply};
use crate::cli::outcome::{WELL, WRONG};
use crate::cli::reload::{Ended, Expected, Reason, Reloader};
use crate::control::Reply;
use crate::server::Server;
use crate::settings::FileState;
use crate::state::Actor;

/// What a command has done to a file.
#[derive(Debug, Clone)]
pub(super) struct FileEdit {
    pub(super) file: PathBuf,
    /// SHA-256 before and after, in hexadecimal digits.
    pub(super) before: String,
    pub(super) after: String,
}

const WAITS: &str = "The change is not in force yet, because other changes of the files wait: `flowgate plan` shows them, \
                     `flowgate reload` puts all of it in force.";

/// What a changed file is to the settings in force.
enum EditState {
    InForce,
    /// Nothing else was changed; its path as the settings in force have it.
    Alone(PathBuf),
    Others,
    /// It is none of their files.
    Unknown,
}

impl Reloader {
    pub(super) async fn edited(
        &mut self,
        server: &mut Server,
        kept: &Kept,
        by: Actor,
        edit: &FileEdit,
    ) -> Reply {
        let reason = Reason::Edit(by);
        self.pause(&reason).await;
        let edited = match self.edit_state(edit.clone()).await {
            Ok(EditState::InForce) => return reply(WELL, "The change is in force."),
            Ok(EditState::Alone(path)) => path,
            Ok(EditState::Others) => return reply(WELL, WAITS),
            Err(why) => return reply(WRONG, &format!("flowgate: the change is not in force: {why}")),
            Ok(EditState::Unknown) => {
                let why =
                    "flowgate: the gateway has other settings files, so the change is not in force there";
                return reply(WRONG, why);
            }
        };
        // What somebody else saves in between is not meant.
        let expected = self.files().into_iter().map(|file| match file.path() == edited {
            true => (edited.clone(), edit.after.clone()),
            false => (file.path().to_owned(), file.sha256()),
        });
        let expected = Expected::Files(expected.collect());
        match self.reload(server, kept, &reason, &expected).await {
            Ended::Refused(why) => reply(WRONG, &format!("flowgate: the change is not in force: {why}")),
            Ended::Others => reply(WELL, WAITS),
            Ended::Unchanged => reply(WELL, "The change is in force."),
            Ended::InForce { revision, .. } => {
                reply(WELL, &format!("The change is in force, as revision {revision}."))
            }
        }
    }

    async fn edit_state(&self, edit: FileEdit) -> Result<EditState, NotDone> {
        let (files, is_pinned) = (self.files(), self.pinned.is_some());
        let look = move || {
            let (edited, others): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.is_at(&edit.file));
            let [edited] = edited.as_slice() else {
                return EditState::Unknown;
            };
            if edited.sha256() == edit.after {
                return EditState::InForce;
            }
            let is_alone = !is_pinned
                && edited.sha256() == edit.before
                && edited.is_now(&edit.after)
                && others.iter().all(|file| file.compare() == FileState::Same);
            match is_alone {
                true => EditState::Alone(edited.path().to_owned()),
                false => EditState::Others,
            }
        };
        on_disk(look).await
    }
}
