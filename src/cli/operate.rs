//! Commands to a gateway that runs on this machine, over its control socket, and the check of its trail of changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use crate::cli::kept::TRAIL;
use crate::cli::load::SettingsFile;
use crate::cli::outcome::{FAILED, Outcome, WELL, WRONG};
use crate::control;
use crate::control::{Reply, Request, SOCKET, Unreachable};
use crate::settings;
use crate::state::{Broken, verify};

/// Which gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Running {
    #[command(flatten)]
    settings: SettingsFile,
    /// Its state folder; otherwise the one that the settings file names.
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    /// Its control socket; otherwise the one that the settings file names, or that of the state folder.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Check that no line of the trail was changed or removed, and print the hash of the last one.
    Verify {
        #[command(flatten)]
        running: Running,
    },
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSent {
    /// It is not known where the gateway takes commands.
    #[error("{0}")]
    NoFolder(String),
    #[error(transparent)]
    Unreachable(Unreachable),
}

impl Running {
    /// The settings file.
    pub(super) fn config(&self) -> &Path {
        &self.settings.config
    }

    /// Whether a settings file is meant: with --state or --socket nobody need name one.
    pub(super) fn has_settings(&self) -> bool {
        let is_named_otherwise = self.state.is_some() || self.socket.is_some();
        !is_named_otherwise || self.settings.config.exists()
    }

    /// Sends a command, and waits for its answer for so long.
    pub(super) fn send(&self, request: &Request, patience: Duration) -> Result<Reply, NotSent> {
        let socket = self.socket().map_err(|outcome| NotSent::NoFolder(outcome.err))?;
        control::ask(&socket, request, patience).map_err(NotSent::Unreachable)
    }

    fn socket(&self) -> Result<PathBuf, Outcome> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let path = &self.settings.config;
        let text = settings::read(path).ok().filter(|_| self.state.is_none());
        match text.and_then(|text| settings::control_socket(&text, path)) {
            Some(socket) => Ok(socket),
            None => Ok(self.folder()?.join(SOCKET)),
        }
    }

    fn folder(&self) -> Result<PathBuf, Outcome> {
        if let Some(folder) = &self.state {
            return Ok(folder.clone());
        }
        let path = &self.settings.config;
        let found = settings::read(path)
            .ok()
            .and_then(|text| settings::state_folder(&text, path));
        found.ok_or_else(|| {
            let path = path.display();
            let text = format!(
                "flowgate: {path} names no `folder` of [state], where the gateway takes commands: set it and restart the \
                 gateway, or name the folder with --state\n"
            );
            Outcome::failed(text, WRONG)
        })
    }
}

/// Has a gateway carry out a command.
pub(super) fn ask(running: &Running, request: &Request) -> Outcome {
    let socket = match running.socket() {
        Ok(socket) => socket,
        Err(outcome) => return outcome,
    };
    match control::ask(&socket, request, control::PATIENCE) {
        Ok(reply) if reply.code == WELL => Outcome::out(reply.text),
        Ok(reply) => Outcome::failed(reply.text, reply.code),
        Err(error) => Outcome::failed(format!("flowgate: {error}\n"), FAILED),
    }
}

/// What a gateway is asked to compare must be named as the gateway sees it.
pub(super) fn plan(running: &Running, revision: Option<u64>) -> Outcome {
    let path = &running.settings.config;
    let config = match running.has_settings() {
        // Then it is the gateway's own.
        false => None,
        true => match std::path::absolute(path) {
            Ok(path) => Some(path),
            Err(error) => return Outcome::failed(format!("flowgate: {error}\n"), WRONG),
        },
    };
    ask(running, &Request::Plan { config, revision })
}

pub(super) fn audit(command: &AuditCommand) -> Outcome {
    let AuditCommand::Verify { running } = command;
    let path = match running.folder() {
        Ok(folder) => folder.join(TRAIL),
        Err(outcome) => return outcome,
    };
    let shown = path.display();
    match verify(&path) {
        Ok(verified) => Outcome::out(format!(
            "{shown}: {} lines, none changed or removed before the last one, whose hash is\n{}\n",
            verified.lines, verified.last
        )),
        Err(error @ Broken::Line { .. }) => Outcome::failed(
            format!("flowgate: {shown}: {error}; lines before it are as they were written\n"),
            FAILED,
        ),
        Err(Broken::Unreadable(error)) => {
            Outcome::failed(format!("flowgate: {shown} cannot be read: {error}\n"), FAILED)
        }
    }
}
