//! Commands to the gateway that are carried out one after the other: what is in force, what would change, reload and
//! rollback.

use std::path::Path;

use tokio::time::Instant;

use crate::cli::disk::on_disk;
use crate::cli::edited::FileEdit;
use crate::cli::kept::{Kept, reply};
use crate::cli::load::{Given, NotLoaded, Whole, parse};
use crate::cli::outcome::{WELL, WRONG};
use crate::cli::reload::{Ended, Expected, Reason, Reloader, UNFINISHED};
use crate::control::{Asked, Reply, Request, Right};
use crate::model::clock;
use crate::server::Server;
use crate::settings;
use crate::settings::{Config, Environment, Scalars, Secrets};
use crate::state::{Actor, Revision};

/// Lines that are printed of what a rollback would let in.
const OPENINGS_SHOWN: usize = 50;

impl Reloader {
    /// Carries out a command; a look that nobody waits for any more is left out.
    pub(super) async fn carry_out(&mut self, server: &mut Server, kept: &Kept, asked: Asked) {
        if asked.is_abandoned() && asked.request.needs() == Right::Read {
            return;
        }
        let by = asked.by.clone();
        let reply = match asked.request.clone() {
            Request::Status => self.status(server).await,
            Request::Plan { config, revision } => {
                let planned = match revision {
                    Some(number) => self.plan_rollback(server, kept, number).await,
                    None => self.plan(server, config.as_deref(), &asked).await,
                };
                planned.unwrap_or_else(|why| reply(WRONG, &format!("flowgate: {why}")))
            }
            Request::Rollback {
                revision: Some(number),
                readmit,
            } => match self.rollback(server, kept, (by.clone(), number), readmit).await {
                Ok(done) => reply(WELL, &done),
                Err(why) => {
                    tracing::error!(
                        "not rolled back to revision {number}, the settings in force stay: {why}"
                    );
                    let refused = format!("refused: revision {number}: {why}");
                    kept.note(&by, "rollback", &refused, &[]).await;
                    reply(WRONG, &format!("flowgate: not rolled back: {why}"))
                }
            },
            Request::Rollback { revision: None, .. } => {
                let in_force = server.gateway().status().revision;
                reply(WELL, &listed(&kept.revisions().await, in_force))
            }
            Request::Reload { digest } => {
                let reason = Reason::Operator(by);
                let expected = digest.map_or(Expected::Anything, Expected::Digest);
                match self.reload(server, kept, &reason, &expected).await {
                    Ended::Unchanged | Ended::Others => reply(WELL, "nothing has changed"),
                    Ended::Refused(why) => reply(WRONG, &format!("flowgate: not reloaded: {why}")),
                    Ended::InForce { revision, changes } => {
                        let lines: String = changes.iter().map(|line| format!("\n  {line}")).collect();
                        reply(WELL, &format!("revision {revision} is in force{lines}"))
                    }
                }
            }
            Request::Edited { file, before, after } => {
                self.edited(server, kept, by, &FileEdit { file, before, after })
                    .await
            }
            // Carried out where commands arrive.
            Request::Keys { .. }
            | Request::Revoke { .. }
            | Request::Enrol { .. }
            | Request::Forget { .. } => return,
        };
        asked.answer(reply);
    }

    async fn status(&self, server: &Server) -> Reply {
        let status = server.gateway().status();
        let listeners: Vec<_> = status.listeners.iter().map(ToString::to_string).collect();
        let differing = self.differing(false).await;
        let files = match differing.as_slice() {
            [] => "as in force".to_owned(),
            names => format!("changed since, see `flowgate plan`: {}", names.join(", ")),
        };
        let reload = match status.last_reload.and_then(|last| last.refused) {
            Some(why) => format!("\nlast reload  refused: {why}"),
            None => String::new(),
        };
        let pinned = match self.pinned {
            Some(number) => format!(
                "\npinned       to the settings of revision {number}: files are not followed, and a restart takes these \
                 settings, until `flowgate reload`"
            ),
            None => String::new(),
        };
        reply(
            WELL,
            &format!(
                "revision     {} in force since {} {}{pinned}\nfiles        {files}\nlisteners    {}\nserving for  {} s, \
                 version {}{reload}",
                status.revision,
                self.since,
                by_whom(&self.by),
                listeners.join(" "),
                status.since_seconds,
                status.version
            ),
        )
    }

    /// A file of somebody else may send the secrets of the gateway anywhere, even if it is only looked at.
    async fn plan(&self, server: &Server, other: Option<&Path>, asked: &Asked) -> Result<Reply, String> {
        // A path may lead to a disk that hangs, so only the owner's is looked at.
        let other = match other {
            Some(path) if path != self.path && asked.rights.allow(Right::Own) => {
                let (path, own) = (path.to_owned(), self.path.clone());
                let looking = move || (!is_same_file(&path, &own)).then_some(path);
                let looked = on_disk(looking).await;
                looked.map_err(|why| format!("it is not known which file this is: {why}"))?
            }
            Some(path) => Some(path.to_owned()).filter(|path| *path != self.path),
            None => None,
        };
        if other.is_some() && !asked.rights.allow(Right::Own) {
            let own = self.path.display();
            return Err(format!(
                "only the gateway's own user and root may compare another file than {own}"
            ));
        }
        let whole = self
            .load(server, other.as_ref().unwrap_or(&self.path), Given::default())
            .await
            .map_err(|why| format!("these settings cannot be used: {why}"))?;
        let next = match other {
            Some(_) => String::new(),
            None => format!(
                "\nTo put this in force: flowgate reload --digest {}",
                whole.digest()
            ),
        };
        Ok(self.planned(server, &whole, &next))
    }

    async fn plan_rollback(&self, server: &Server, kept: &Kept, number: u64) -> Result<Reply, String> {
        let whole = self.load_revision(server, kept, number).await?;
        let openings = self.openings(server, kept, &whole).await;
        let next = match openings.is_empty() {
            true => format!("\nTo put this in force: flowgate rollback {number}"),
            false => format!(
                "\nit would let in what is kept out now:\n{}\nTo put this in force: flowgate rollback {number} --readmit",
                indented(&openings)
            ),
        };
        Ok(self.planned(server, &whole, &next))
    }

    fn planned(&self, server: &Server, whole: &Whole, next: &str) -> Reply {
        let mut lines = self.difference(server, whole);
        if lines.is_empty() {
            return reply(WELL, "nothing would change");
        }
        let changes = self.started.changes(&Scalars::of(&whole.config));
        let restart = changes.iter().filter(|change| change.needs_restart());
        lines.extend(restart.map(|change| format!("needs a restart: {change}")));
        reply(WELL, &format!("would change:\n{}{next}", indented(&lines)))
    }

    /// Puts a revision in force again, and keeps it in force over restarts until a reload.
    async fn rollback(
        &mut self,
        server: &mut Server,
        kept: &Kept,
        (by, to): (Actor, u64),
        readmit: bool,
    ) -> Result<String, String> {
        let reason = Reason::Rollback { by, to };
        self.pause(&reason).await;
        self.built = Instant::now();
        let whole = self.load_revision(server, kept, to).await?;
        let openings = self.openings(server, kept, &whole).await;
        if !openings.is_empty() && !readmit {
            return Err(format!(
                "revision {to} lets in what is kept out now; add --readmit if that is meant:\n{}",
                indented(&openings)
            ));
        }
        let ended = self.apply(server, kept, whole, &reason).await;
        match ended {
            Ok(Ended::InForce { revision, changes }) => Ok(format!(
                "revision {revision} is in force, with the settings of revision {to}. Files are not followed, and a restart \
                 takes these settings, until `flowgate reload`.\n{}",
                indented(&changes)
            )),
            Ok(Ended::Unchanged | Ended::Others) => Ok("nothing has changed".to_owned()),
            Ok(Ended::Refused(why)) | Err(why) => match kept.pin(self.pinned).await {
                Ok(()) => Err(why),
                Err(not_pinned) => Err(format!(
                    "{why}; and {not_pinned}, so a restart takes revision {to}"
                )),
            },
        }
    }

    async fn load_revision(&self, server: &Server, kept: &Kept, number: u64) -> Result<Whole, String> {
        let (_, given) = kept.revision(number).await?;
        let loaded = self.load(server, &self.path, given).await;
        loaded.map_err(|why| {
            format!("the settings of revision {number} cannot be used (lines count without comments): {why}")
        })
    }

    /// What these settings let in that those in force keep out. Where that is not known, the operator decides as well.
    async fn openings(&self, server: &Server, kept: &Kept, later: &Whole) -> Vec<String> {
        let compared = self.compare(server, kept, later).await;
        compared.unwrap_or_else(|why| {
            vec![format!(
                "perhaps more than the settings in force, which cannot be compared with them: {why}"
            )]
        })
    }

    async fn compare(&self, server: &Server, kept: &Kept, later: &Whole) -> Result<Vec<String>, String> {
        let number = server.gateway().status().revision;
        let (revision, given) = kept.revision(number).await?;
        let environment = Environment::of_process()
            .with(Secrets::Unresolved)
            .with_lists(given.lists);
        let parsed = parse(&self.path, revision.settings, environment).await;
        let (_, (current, _)): (String, (Config, _)) = parsed.map_err(|failed| match failed {
            NotLoaded::Unfinished => UNFINISHED.to_owned(),
            NotLoaded::Settings(_) | NotLoaded::Vaults(_) => {
                format!("the kept settings of revision {number} cannot be read")
            }
        })?;
        let mut found = settings::openings(&current, &later.config, clock::wall());
        let more = found.len().saturating_sub(OPENINGS_SHOWN);
        if more > 0 {
            found.truncate(OPENINGS_SHOWN);
            found.push(format!("and {more} more"));
        }
        Ok(found)
    }
}

/// Revisions for their reader, the newest first.
fn listed(revisions: &[Revision], in_force: u64) -> String {
    let rows = revisions.iter().rev().map(|revision| {
        let now = match revision.number == in_force {
            true => ", in force",
            false => "",
        };
        let (number, time, by) = (revision.number, &revision.time, by_whom(&revision.by));
        format!("{number:>6}  {time} {by}{now}\n{}", indented(&revision.changes))
    });
    rows.collect()
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}\n")).collect()
}

fn by_whom(by: &Actor) -> String {
    match by {
        Actor::Gateway => "by the gateway: its start, or a file that was changed".to_owned(),
        other => format!("by {other}"),
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}
