//! The gateway's end of the control socket. It reads commands of those who may send them: what they do is decided where they are
//! carried out, one after the other.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::control::protocol::{Reply, Request};
use crate::control::rights::Rights;
use crate::settings::ControlSettings;
use crate::state::Actor;

/// Its name in the state folder.
pub const SOCKET: &str = "control.sock";

/// Commands that wait; more connections wait to be accepted.
const WAITING_MAX: usize = 8;

/// A command, who sent it, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// The command.
    pub request: Request,
    /// Who sent it, and what it may do.
    pub by: Actor,
    pub rights: Rights,
    /// One of those that may wait, until it is carried out: the peer may be gone by then.
    place: OwnedSemaphorePermit,
    reply: oneshot::Sender<Reply>,
}

impl Asked {
    /// Whether nobody waits for the answer.
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers it.
    pub fn answer(self, reply: Reply) {
        // Nobody may wait any more.
        let _ = self.reply.send(reply);
        drop(self.place);
    }
}

/// The grants in force.
pub type Granted = Arc<ArcSwap<ControlSettings>>;

/// What is done about a command that was refused: who, and which. It may block.
pub type Refused = Arc<dyn Fn(&Actor, &str) + Send + Sync>;

/// The socket. It is removed when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    commands: mpsc::Receiver<Asked>,
    #[cfg(unix)]
    accepting: unix::Accepting,
}

impl ControlSocket {
    /// The next command.
    pub async fn next(&mut self) -> Asked {
        match self.commands.recv().await {
            Some(asked) => asked,
            // It is accepted for as long as this lives.
            None => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
pub use unix::share;

#[cfg(unix)]
mod unix {
    use std::collections::HashMap;
    use std::collections::hash_map::Entry;
    use std::io;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::{Semaphore, mpsc, oneshot};
    use tokio::task::{AbortHandle, spawn_blocking};

    use super::{Asked, ControlSocket, Granted, Refused, WAITING_MAX};
    use crate::control::protocol::{LINE_BYTES_MAX, Reply, Request};
    use crate::control::rights::{Right, Rights, of_user};
    use crate::model::locked;
    use crate::settings::ControlSettings;
    use crate::state::Actor;

    /// Time for the line of a command.
    const LINE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Time for the system to say which groups a user has.
    const GROUPS_TIMEOUT: Duration = Duration::from_secs(5);
    /// Connections at one time, of the owner and of all others; of one other user.
    const PLACES_MAX: usize = 16;
    const VISITS_MAX: usize = 2;
    /// Threads that ask the system for groups.
    const LOOKUPS_MAX: usize = 4;
    /// Pause after a failure to accept.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

    #[derive(Debug)]
    pub(super) struct Accepting {
        task: AbortHandle,
        path: PathBuf,
    }

    impl Drop for Accepting {
        fn drop(&mut self) {
            self.task.abort();
            // One that stays is replaced by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Lets everybody connect where groups have grants, and only the owner otherwise.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn share(path: &Path, settings: &ControlSettings) -> io::Result<()> {
        let mode = if settings.grants().is_empty() {
            0o600
        } else {
            0o666
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
    }

    /// What each connection needs.
    #[derive(Clone)]
    struct Desk {
        owner: u32,
        granted: Granted,
        refused: Refused,
        commands: mpsc::Sender<Asked>,
        /// Questions to the system about groups.
        lookups: Arc<Semaphore>,
        /// Commands that wait, and among them revocations.
        waiting: Arc<Semaphore>,
        revoking: Arc<Semaphore>,
    }

    impl ControlSocket {
        /// Listens at this path. A socket that nobody listens at is replaced. Everybody may connect where groups have grants: who
        /// it is, is asked of the system.
        ///
        /// # Errors
        /// When somebody listens there, or the system refuses it, for example because the path is longer than 107 bytes.
        pub fn open(path: &Path, granted: Granted, refused: Refused) -> io::Result<Self> {
            if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(io::Error::other("another process takes commands there"));
                }
                std::fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            share(path, &granted.load())?;
            let (sender, commands) = mpsc::channel(WAITING_MAX);
            let desk = Desk {
                owner: nix::unistd::geteuid().as_raw(),
                granted,
                refused,
                commands: sender,
                lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
                waiting: Arc::new(Semaphore::new(WAITING_MAX)),
                revoking: Arc::new(Semaphore::new(WAITING_MAX)),
            };
            let task = tokio::spawn(accept(listener, desk));
            Ok(Self {
                commands,
                accepting: Accepting {
                    task: task.abort_handle(),
                    path: path.to_owned(),
                },
            })
        }

        /// Where it is.
        pub fn path(&self) -> &Path {
            &self.accepting.path
        }
    }

    /// Connections of one user that is neither the owner nor root.
    type Visits = Arc<Mutex<HashMap<u32, usize>>>;

    /// A place of such a user, until it is dropped.
    struct Visit {
        uid: u32,
        visits: Visits,
    }

    impl Visit {
        fn begin(uid: u32, visits: &Visits) -> Option<Self> {
            let mut all = locked(visits);
            let mine = all.entry(uid).or_default();
            if *mine >= VISITS_MAX {
                return None;
            }
            *mine += 1;
            let visits = visits.clone();
            Some(Self { uid, visits })
        }
    }

    impl Drop for Visit {
        fn drop(&mut self) {
            let mut all = locked(&self.visits);
            if let Entry::Occupied(mut mine) = all.entry(self.uid) {
                *mine.get_mut() -= 1;
                if *mine.get() == 0 {
                    mine.remove();
                }
            }
        }
    }

    async fn accept(listener: UnixListener, desk: Desk) {
        let (own, others) = (
            Arc::new(Semaphore::new(PLACES_MAX)),
            Arc::new(Semaphore::new(PLACES_MAX)),
        );
        let visits = Visits::default();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(peer) = stream.peer_cred() else { continue };
            let uid = peer.uid();
            let is_owner = uid == desk.owner || uid == 0;
            // One that finds no place is closed: its command says that nobody answers.
            let places = if is_owner { &own } else { &others };
            let Ok(place) = places.clone().try_acquire_owned() else {
                continue;
            };
            let visit = match is_owner {
                true => None,
                false => match Visit::begin(uid, &visits) {
                    Some(visit) => Some(visit),
                    None => continue,
                },
            };
            let desk = desk.clone();
            tokio::spawn(async move {
                // A peer that goes away gets no answer.
                let _ = serve(stream, desk).await;
                drop((place, visit));
            });
        }
    }

    /// Who this is, and what it may do; none while the system does not say. Only so many questions to it are under way, because
    /// a directory may not answer; the owner does not wait for the others.
    async fn rights_of(uid: u32, desk: &Desk) -> Option<(Option<String>, Rights)> {
        let is_owner = uid == desk.owner || uid == 0;
        let asking = async {
            let lookups = desk.lookups.clone();
            let place = match is_owner {
                true => lookups.try_acquire_owned().ok()?,
                false => lookups.acquire_owned().await.ok()?,
            };
            let (owner, granted) = (desk.owner, desk.granted.load_full());
            let asking = spawn_blocking(move || {
                let found = of_user(uid, owner, &granted);
                drop(place);
                found
            });
            asking.await.ok()
        };
        let known = tokio::time::timeout(GROUPS_TIMEOUT, asking).await;
        known
            .ok()
            .flatten()
            .or_else(|| is_owner.then_some((None, Rights::All)))
    }

    async fn serve(stream: UnixStream, desk: Desk) -> io::Result<()> {
        let peer = stream.peer_cred()?;
        converse(stream, (peer.uid(), peer.pid()), &desk).await
    }

    async fn converse(stream: UnixStream, (uid, pid): (u32, Option<i32>), desk: &Desk) -> io::Result<()> {
        let known = rights_of(uid, desk).await;
        let (reader, mut writer) = stream.into_split();
        let reader = BufReader::new(reader.take(LINE_BYTES_MAX as u64));
        let reply = match known {
            None => {
                tracing::warn!(
                    uid,
                    "the system does not say which groups the sender of a command has"
                );
                refusal("the system does not say which groups you have; try again")
            }
            Some((name, rights)) => {
                let by = Actor::User { uid, name, pid };
                match rights.allow(Right::Read) {
                    true => answer(reader, desk, by, rights).await?,
                    false => {
                        let reply = refusal(&format!(
                            "{by} may send no command to this gateway: its own user, root and the groups of [control] may"
                        ));
                        note(desk, by, "command").await;
                        reply
                    }
                }
            }
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        let written = tokio::time::timeout(LINE_TIMEOUT, writer.write_all(&line)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn answer(
        mut reader: impl AsyncBufReadExt + Unpin,
        desk: &Desk,
        by: Actor,
        rights: Rights,
    ) -> io::Result<Reply> {
        let mut line = String::new();
        let read = tokio::time::timeout(LINE_TIMEOUT, reader.read_line(&mut line)).await;
        let Ok(read) = read else {
            return Ok(refusal("no command came in time"));
        };
        read?;
        let Ok(request) = serde_json::from_str::<Request>(&line) else {
            let text = "the gateway does not know this command; it may have another version";
            return Ok(refusal(text));
        };
        let needed = request.needs();
        if !rights.allow(needed) {
            let reply = refusal(&format!(
                "{by} may not do this: it needs a group that `{}` of [control] names",
                needed.key()
            ));
            note(desk, by, request.name()).await;
            return Ok(reply);
        }
        // A revocation does not wait behind commands that wait for a reload.
        let waiting = match needed {
            Right::Keys => &desk.revoking,
            Right::Read | Right::Operate | Right::Own => &desk.waiting,
        };
        let Ok(place) = waiting.clone().try_acquire_owned() else {
            return Ok(refusal(
                "too many commands wait for one that takes long; try again",
            ));
        };
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            request,
            by,
            rights,
            reply,
            place,
        };
        let answered = async {
            match desk.commands.send(asked).await {
                Ok(()) => answer.await.ok(),
                Err(_) => None,
            }
        };
        let answer = tokio::select! {
            answer = answered => answer,
            // One that is gone keeps no place. What it asked for is carried out all the same.
            () = gone(&mut reader) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        Ok(answer.unwrap_or_else(|| refusal("the gateway is stopping")))
    }

    /// Ends when the peer has closed its end, or goes on sending.
    async fn gone(reader: &mut (impl AsyncBufReadExt + Unpin)) {
        let _ = reader.fill_buf().await;
    }

    /// Reports a command that was refused.
    async fn note(desk: &Desk, by: Actor, what: &'static str) {
        let refused = desk.refused.clone();
        // It is logged there what cannot be noted.
        let _ = spawn_blocking(move || refused(&by, what)).await;
    }

    fn refusal(text: &str) -> Reply {
        Reply {
            code: 2,
            text: format!("flowgate: {text}\n"),
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::atomic::{AtomicUsize, Ordering};

        use super::*;

        /// Neither the owner nor root, and in no group that has a grant.
        const STRANGER: u32 = 4_000_000_000;

        struct Stand {
            desk: Desk,
            refused: Arc<AtomicUsize>,
        }

        fn stand() -> Stand {
            let refused = Arc::new(AtomicUsize::new(0));
            let count = refused.clone();
            let desk = Desk {
                owner: 1,
                granted: Granted::default(),
                refused: Arc::new(move |_, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                }),
                commands: mpsc::channel(1).0,
                lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
                waiting: Arc::new(Semaphore::new(WAITING_MAX)),
                revoking: Arc::new(Semaphore::new(WAITING_MAX)),
            };
            Stand { desk, refused }
        }

        impl Stand {
            /// What a user reads whose command comes while all places for questions are taken, until `ended` frees them.
            async fn said_to(&self, uid: u32, ended: impl Future<Output = ()>) -> String {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let mut reader = BufReader::new(theirs);
                let mut line = String::new();
                let (served, (), read) = tokio::join!(
                    converse(ours, (uid, None), &self.desk),
                    ended,
                    reader.read_line(&mut line)
                );
                served.unwrap();
                read.unwrap();
                line
            }
        }

        #[tokio::test]
        async fn a_command_waits_for_a_question_about_groups() {
            let stand = stand();
            let all = LOOKUPS_MAX as u32;
            let others = stand.desk.lookups.clone().acquire_many_owned(all).await.unwrap();
            let ending = async {
                tokio::task::yield_now().await;
                drop(others);
            };
            let said = stand.said_to(STRANGER, ending).await;
            assert!(said.contains("may send no command"), "{said}");
            assert_eq!(stand.refused.load(Ordering::Relaxed), 1);
        }

        #[tokio::test(start_paused = true)]
        async fn without_an_answer_about_groups_nobody_is_refused() {
            let stand = stand();
            stand.desk.lookups.forget_permits(LOOKUPS_MAX);
            let said = stand.said_to(STRANGER, async {}).await;
            assert!(said.contains("try again"), "{said}");
            assert_eq!(stand.refused.load(Ordering::Relaxed), 0);
            // The owner needs no answer.
            assert_eq!(rights_of(1, &stand.desk).await, Some((None, Rights::All)));
        }
    }
}
