//! The handshake of either side.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::Context;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ProtocolVersion, ServerConfig};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::wire::secure::{NoHandshake, OfCaller, Progress, READ_BYTES, SPACE, ToServer, broken};

/// What a server may say before the handshake is over: a chain of certificates, and then some.
const HANDSHAKE_MAX: usize = 128 * 1024;

/// What may wait for the first answer: a ticket for the next handshake, and little else.
const PATIENT_MAX: usize = 1024;

/// The alert `close_notify`, not encrypted.
const GOODBYE: &[u8] = &[21, 3, 3, 0, 2, 1, 0];

impl ToServer {
    pub async fn connect(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = UnbufferedClientConnection::new(config, name).map_err(broken)?;
        let mut stream = Self::new(tcp, tls);
        loop {
            let mut arrived = std::mem::take(&mut stream.arrived);
            let mut unread = std::mem::take(&mut stream.unread);
            let (used, progress) = stream.digest(&mut arrived, &mut unread);
            arrived.drain(..used.min(arrived.len()));
            stream.arrived = arrived;
            stream.unread = unread;
            let sent = poll_fn(|cx| stream.poll_leave(cx)).await;
            // What is wrong with the peer explains more than that it does not listen any more.
            let progress = progress?;
            sent?;
            if progress == Progress::Traffic {
                stream.arrived.shrink_to_fit();
                return Ok(stream);
            }
            if stream.arrived.len() >= HANDSHAKE_MAX {
                return Err(broken("the handshake is too long"));
            }
            stream.arrived.reserve(READ_BYTES);
            if stream.tcp.read_buf(&mut stream.arrived).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"));
            }
        }
    }
}

impl OfCaller {
    /// Makes the connection of a caller secure, unless `end` comes first. Until something has come it holds no buffer, and
    /// what a caller says may be as long as a record or a little longer.
    ///
    /// At the end a caller that has begun and was not answered gets a goodbye: no alert names a time that is over (RFC 8446
    /// section 6). One that has sent nothing may not speak TLS, and after an answer only the library has the keys, which
    /// says no goodbye before the handshake is over: these see the end of the connection, as with nginx.
    pub async fn accept(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        end: impl Future<Output = io::Error>,
    ) -> Result<Box<Self>, NoHandshake> {
        let tls = match UnbufferedServerConnection::new(config) {
            Ok(tls) => tls,
            Err(error) => {
                return Err(NoHandshake {
                    why: broken(error),
                    said: Vec::new(),
                    is_cut: false,
                    alerted: None,
                });
            }
        };
        let mut stream = Box::new(Self::new(tcp, tls));
        let mut said = Vec::new();
        let (shaken, is_cut) = tokio::select! {
            biased;
            shaken = stream.shake(&mut said) => (shaken, false),
            why = end => {
                if !said.is_empty() && stream.tls.protocol_version().is_none() {
                    stream.leaving.extend_from_slice(GOODBYE);
                    stream.alerted = true;
                }
                (Err(why), true)
            }
        };
        match shaken {
            Ok(()) => Ok(stream),
            Err(why) => Err(NoHandshake {
                why,
                said,
                is_cut,
                alerted: stream.alerted.then_some(stream),
            }),
        }
    }

    async fn shake(&mut self, said: &mut Vec<u8>) -> io::Result<()> {
        let mut answered = false;
        loop {
            let taking = |cx: &mut Context<'_>| {
                let mut unread = std::mem::take(&mut self.unread);
                let taken = SPACE.with_borrow_mut(|space| {
                    self.poll_take(cx, &mut space.arrived, &mut unread, |bytes| {
                        if !answered {
                            said.extend_from_slice(bytes);
                        }
                    })
                });
                self.unread = unread;
                taken
            };
            let progress = poll_fn(taking).await?;
            answered |= !self.leaving.is_empty();
            // With TLS 1.3 a caller that has finished waits for no more than its answer, and a ticket goes with that.
            // Where the system cannot acknowledge without it, it leaves at once.
            let version = self.tls.protocol_version();
            self.patient = progress == Progress::Traffic
                && version == Some(ProtocolVersion::TLSv1_3)
                && self.leaving.len() <= PATIENT_MAX
                && cfg!(target_os = "linux");
            if !self.patient {
                poll_fn(|cx| self.poll_leave(cx)).await?;
            }
            if progress == Progress::Traffic {
                self.acknowledge();
                return Ok(());
            }
        }
    }

    /// Acknowledges the end of the handshake, and what follows until the first answer, as it arrives. A caller that
    /// leaves Nagle's algorithm on sends its request only after that, and the system delays an acknowledgement that
    /// travels alone by 40 ms.
    fn acknowledge(&self) {
        // A caller that has to wait for it is slower and still served.
        #[cfg(target_os = "linux")]
        let _ = SockRef::from(&self.tcp).set_tcp_quickack(true);
    }

    /// The protocol that both sides speak above TLS (RFC 7301), if the caller named one.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }
}
