//! Asks a gateway on this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::control::protocol::{Reply, Request};

/// Why a gateway does not answer.
#[derive(Debug, thiserror::Error)]
#[error(
    "no gateway answers at {}: {error}; it must be running with this state folder and have logged \"listening\", and this \
     command must run as its user, as root or as somebody whom [control] grants it",
    .path.display()
)]
pub struct Unreachable {
    path: PathBuf,
    error: io::Error,
}

impl Unreachable {
    /// Whether no gateway is running there.
    pub fn is_absent(&self) -> bool {
        matches!(
            self.error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        )
    }

    /// Whether a gateway has taken the command and not answered yet.
    pub fn is_busy(&self) -> bool {
        matches!(
            self.error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        )
    }
}

/// A gateway may read a hundred thousand keys, or wait for a vault.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Sends a command, and waits for its answer for so long.
///
/// # Errors
/// When no gateway is there, or it does not let this user in.
#[cfg(unix)]
pub fn ask(path: &Path, request: &Request, patience: Duration) -> Result<Reply, Unreachable> {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixStream;

    use crate::control::protocol::LINE_BYTES_MAX;

    let exchange = || -> io::Result<Reply> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream.take(LINE_BYTES_MAX as u64)).read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::other("it closed the connection"));
        }
        Ok(serde_json::from_str(&answer)?)
    };
    exchange().map_err(|error| Unreachable {
        path: path.to_owned(),
        error,
    })
}

/// There is no such socket here.
///
/// # Errors
/// Always.
#[cfg(not(unix))]
pub fn ask(path: &Path, _: &Request, _: Duration) -> Result<Reply, Unreachable> {
    Err(Unreachable {
        path: path.to_owned(),
        error: io::ErrorKind::Unsupported.into(),
    })
}
