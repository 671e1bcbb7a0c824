//! The gateway's end of the control socket. It reads commands of those who may send them: what they do is decided where they are
//! carried out, one after the other.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

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
    reply: oneshot::Sender<Reply>,
}

impl Asked {
    /// Answers it.
    pub fn answer(self, reply: Reply) {
        // Nobody may wait any more.
        let _ = self.reply.send(reply);
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
mod unix {
    use std::io;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::{Semaphore, mpsc, oneshot};
    use tokio::task::{AbortHandle, spawn_blocking};

    use super::{Asked, ControlSocket, Granted, Refused, WAITING_MAX};
    use crate::control::protocol::{LINE_BYTES_MAX, Reply, Request};
    use crate::control::rights::{Right, Rights, of_user};
    use crate::state::Actor;

    /// Time for the line of a command.
    const LINE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Time for the system to say which groups a user has.
    const GROUPS_TIMEOUT: Duration = Duration::from_secs(5);
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

    /// What each connection needs.
    #[derive(Clone)]
    struct Desk {
        owner: u32,
        granted: Granted,
        refused: Refused,
        commands: mpsc::Sender<Asked>,
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
            let is_shared = granted.load().socket.is_some();
            let listener = UnixListener::bind(path)?;
            let mode = if is_shared { 0o666 } else { 0o600 };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            let (sender, commands) = mpsc::channel(WAITING_MAX);
            let desk = Desk {
                owner: std::fs::metadata(path)?.uid(),
                granted,
                refused,
                commands: sender,
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

    async fn accept(listener: UnixListener, desk: Desk) {
        // Those who may not send a command do not take places from those who may.
        let (waiting, strangers) = (WAITING_MAX, WAITING_MAX);
        let places = [
            Arc::new(Semaphore::new(waiting)),
            Arc::new(Semaphore::new(strangers)),
        ];
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(peer) = stream.peer_cred() else { continue };
            let is_owner = peer.uid() == desk.owner || peer.uid() == 0;
            let [own, others] = &places;
            let place = if is_owner { own } else { others };
            // One that finds no place is closed: its command says that nobody answers.
            let Ok(place) = place.clone().try_acquire_owned() else {
                continue;
            };
            let desk = desk.clone();
            tokio::spawn(async move {
                // A peer that goes away gets no answer.
                let _ = serve(stream, desk).await;
                drop(place);
            });
        }
    }

    async fn serve(stream: UnixStream, desk: Desk) -> io::Result<()> {
        let peer = stream.peer_cred()?;
        let (uid, owner, granted) = (peer.uid(), desk.owner, desk.granted.load_full());
        let asking = spawn_blocking(move || of_user(uid, owner, &granted));
        let known = tokio::time::timeout(GROUPS_TIMEOUT, asking).await;
        let (name, rights) = match known {
            Ok(Ok(known)) => known,
            Ok(Err(_)) | Err(_) if uid == owner || uid == 0 => (None, Rights::All),
            Ok(Err(_)) | Err(_) => (None, Rights::Some(Vec::new())),
        };
        let by = Actor::User {
            uid,
            name,
            pid: peer.pid(),
        };
        let (reader, mut writer) = stream.into_split();
        let reader = BufReader::new(reader.take(LINE_BYTES_MAX as u64));
        let reply = match rights.allow(Right::Read) {
            true => answer(reader, &desk, by, rights).await?,
            false => {
                let reply = refusal(&format!(
                    "{by} may send no command to this gateway: its own user, root and the groups of [control] may"
                ));
                note(&desk, by, "command").await;
                reply
            }
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        writer.write_all(&line).await
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
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            request,
            by,
            rights,
            reply,
        };
        let answer = match desk.commands.send(asked).await {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        Ok(answer.unwrap_or_else(|| refusal("the gateway is stopping")))
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
}
