//! The gateway's end of the control socket. It only reads commands and says who sent them: what they do is decided where they
//! are carried out, one after the other.

use tokio::sync::{mpsc, oneshot};

use crate::control::protocol::{Reply, Request};
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
    /// Who sent it.
    pub by: Actor,
    reply: oneshot::Sender<Reply>,
}

impl Asked {
    /// Answers it.
    pub fn answer(self, reply: Reply) {
        // Nobody may wait any more.
        let _ = self.reply.send(reply);
    }
}

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
    use tokio::task::AbortHandle;

    use super::{Asked, ControlSocket, WAITING_MAX};
    use crate::control::protocol::{LINE_BYTES_MAX, Reply, Request};
    use crate::state::Actor;

    /// Time for the line of a command.
    const LINE_TIMEOUT: Duration = Duration::from_secs(5);
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

    impl ControlSocket {
        /// Listens at this path. A socket that was left there is replaced: the process that has the state folder is alone in it.
        ///
        /// # Errors
        /// When the system refuses it, for example because the path is longer than 107 bytes.
        pub fn open(path: &Path) -> io::Result<Self> {
            if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                std::fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            let owner = std::fs::metadata(path)?.uid();
            let (sender, commands) = mpsc::channel(WAITING_MAX);
            let task = tokio::spawn(accept(listener, owner, sender));
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

    async fn accept(listener: UnixListener, owner: u32, commands: mpsc::Sender<Asked>) {
        let places = Arc::new(Semaphore::new(WAITING_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let commands = commands.clone();
            tokio::spawn(async move {
                // A peer that goes away gets no answer.
                let _ = serve(stream, owner, commands).await;
                drop(place);
            });
        }
    }

    async fn serve(stream: UnixStream, owner: u32, commands: mpsc::Sender<Asked>) -> io::Result<()> {
        let peer = stream.peer_cred()?;
        let by = Actor::User {
            uid: peer.uid(),
            pid: peer.pid(),
        };
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(reader.take(LINE_BYTES_MAX as u64));
        let read = tokio::time::timeout(LINE_TIMEOUT, reader.read_line(&mut line)).await;
        let refused = |text: &str| Reply {
            code: 2,
            text: format!("flowgate: {text}\n"),
        };
        let reply = match read {
            _ if peer.uid() != owner && peer.uid() != 0 => {
                let uid = peer.uid();
                tracing::warn!(
                    uid,
                    "a command of user {uid} on the control socket was refused: it is not the owner"
                );
                refused("the control socket belongs to another user")
            }
            Err(_) => refused("no command came in time"),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) => match serde_json::from_str::<Request>(&line) {
                Err(_) => refused("the gateway does not know this command; it may have another version"),
                Ok(request) => {
                    let (reply, answer) = oneshot::channel();
                    let sent = commands.send(Asked { request, by, reply }).await;
                    let answer = match sent {
                        Ok(()) => answer.await.ok(),
                        Err(_) => None,
                    };
                    answer.unwrap_or_else(|| refused("the gateway is stopping"))
                }
            },
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        writer.write_all(&line).await
    }
}
