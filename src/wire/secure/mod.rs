//! TLS, towards callers and triggers, read record by record. A connection that waits holds no buffer: whatever is read
//! belongs to the record that is due, and what is left of it stays in the socket until somebody has room for it. What is
//! read and what is sent pass through memory of the worker's.

mod alert;
mod handshake;
mod records;
mod stream;

use std::cell::RefCell;
use std::{fmt, io};

use bytes::BytesMut;
use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{EncodeError, EncodeTlsData, UnbufferedStatus};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::wire::timer::Timer;

/// The head of a record: its kind, a version and its length (RFC 8446 section 5.1).
const RECORD_HEAD: usize = 5;
/// The largest record with its head: TLS 1.2 allows 2 KiB for what encryption adds (RFC 5246 section 6.2.3).
const RECORD_MAX: usize = RECORD_HEAD + 16 * 1024 + 2 * 1024;
/// Bytes that one record carries at most.
const CARRIED_MAX: usize = 16 * 1024;
/// Bytes read where more than one record may be there: most answers are a small one, or a few.
const READ_BYTES: usize = 4 * 1024;
/// Memory that all connections of a worker use in turn.
struct Space {
    arrived: Vec<u8>,
    read: BytesMut,
    plain: Vec<u8>,
    leaving: Vec<u8>,
}

thread_local! {
    static SPACE: RefCell<Space> = RefCell::new(Space {
        arrived: vec![0; RECORD_MAX + READ_BYTES],
        read: BytesMut::new(),
        plain: Vec::with_capacity(CARRIED_MAX),
        // What TLS itself has to say, as new keys, leaves before a record.
        leaving: vec![0; RECORD_MAX + READ_BYTES],
    });
}

pub trait Side: Send + Unpin + 'static {
    /// What the library knows of this side alone.
    type Data;
    /// Whether the peer gets time to read a fatal alert. A trigger does not: a caller waits for what comes of it.
    const LINGERS: bool;

    /// Takes in the records that have arrived, up to the next thing that is to be done.
    fn process<'c, 'i>(&'c mut self, arrived: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Whether the library has made records that were not taken.
    fn wants_write(&self) -> bool;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const LINGERS: bool = false;

    fn process<'c, 'i>(&'c mut self, arrived: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(arrived)
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const LINGERS: bool = true;

    fn process<'c, 'i>(&'c mut self, arrived: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(arrived)
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

pub type ToServer = Secure<UnbufferedClientConnection>;
pub type OfCaller = Secure<UnbufferedServerConnection>;

/// A connection on which the handshake is done.
pub struct Secure<T> {
    tcp: TcpStream,
    tls: T,
    /// The beginning of a record.
    arrived: Vec<u8>,
    /// What came while there was no reader.
    unread: BytesMut,
    /// Records that the socket has not taken, from `left` on.
    leaving: Vec<u8>,
    left: usize,
    /// Whether these may wait for the next record: they are nothing that the peer waits for.
    patient: bool,
    /// Whether the peer has said goodbye.
    ended: bool,
    /// Whether we have.
    gone: bool,
    /// Whether a fatal alert was made for the peer.
    alerted: bool,
    /// Set while the peer gets time to read it.
    refusal: Option<Box<Refusal>>,
}

#[derive(Debug)]
pub struct NoHandshake {
    pub why: io::Error,
    /// What the caller has said before it was answered.
    pub said: Vec<u8>,
    /// Whether it was ended from outside.
    pub is_cut: bool,
    /// The connection, if an alert is to be sent on it.
    alerted: Option<Box<OfCaller>>,
}

/// A connection that ends with a fatal alert and waits until the peer can have read it.
struct Refusal {
    why: io::Error,
    until: Instant,
    timer: Timer,
    bytes_left: usize,
    /// Whether the alert, and the end of our side, have left.
    sent: bool,
}

impl<T> fmt::Debug for Secure<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure")
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}

/// How far TLS is when it has read everything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Handshake,
    Traffic,
}

impl<T: Side> Secure<T> {
    fn new(tcp: TcpStream, tls: T) -> Self {
        Self {
            tcp,
            tls,
            arrived: Vec::new(),
            unread: BytesMut::new(),
            leaving: Vec::new(),
            left: 0,
            patient: false,
            ended: false,
            gone: false,
            alerted: false,
            refusal: None,
        }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether bytes have arrived that nobody has read yet, or the end.
    pub fn has_unread(&self) -> bool {
        self.ended || !self.unread.is_empty() || !self.arrived.is_empty()
    }
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, to: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = to.len();
    let size = match data.encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(error)) => error.required_size,
        Err(error) => return Err(error),
    };
    to.resize(start + size, 0);
    data.encode(to.get_mut(start..).unwrap_or_default()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::future::{Future, pending, poll_fn};
    use std::io;
    use std::io::ErrorKind;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::BytesMut;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::server::TlsStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    use super::{CARRIED_MAX, OfCaller, RECORD_HEAD, ToServer};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn provider() -> Arc<rustls::crypto::CryptoProvider> {
        Arc::new(rustls::crypto::aws_lc_rs::default_provider())
    }

    fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let leaf = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let chain = vec![leaf.cert.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf.signing_key.serialize_der()));
        let mut roots = RootCertStore::empty();
        roots.add(leaf.cert.der().clone()).unwrap();
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    /// Both ends of a connection that is not secure yet: the client's, then the server's.
    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (near, far)
    }

    async fn in_time<T>(doing: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, doing).await.unwrap()
    }

    /// Both ends of a connection, or why there is none.
    async fn pair_named(
        version: &'static SupportedProtocolVersion,
        name: &'static str,
    ) -> (io::Result<ToServer>, io::Result<TlsStream<TcpStream>>) {
        let (server, client) = configs(version);
        let (tcp, far) = sockets().await;
        let near = ToServer::connect(tcp, client, ServerName::try_from(name).unwrap());
        in_time(async { tokio::join!(near, TlsAcceptor::from(server).accept(far)) }).await
    }

    /// Both ends of a connection that we serve.
    async fn served(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
    ) -> (Box<OfCaller>, client::TlsStream<TcpStream>) {
        let (far, tcp) = sockets().await;
        let name = ServerName::try_from("localhost").unwrap();
        let far = TlsConnector::from(client.clone()).connect(name, far);
        let near = OfCaller::accept(tcp, server.clone(), pending());
        let (near, far) = in_time(async { tokio::join!(near, far) }).await;
        (near.unwrap(), far.unwrap())
    }

    async fn pair(version: &'static SupportedProtocolVersion) -> (ToServer, TlsStream<TcpStream>) {
        let (near, far) = pair_named(version, "localhost").await;
        (near.unwrap(), far.unwrap())
    }

    async fn more(near: &mut ToServer, into: &mut BytesMut) -> io::Result<usize> {
        in_time(poll_fn(|cx| near.poll_more(cx, into))).await
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_is_sent_arrives_both_ways() {
        for version in [&TLS12, &TLS13] {
            let (mut near, mut far) = pair(version).await;
            // More than the sockets take at once, so that records wait on both sides.
            let sent = pattern(8 * 1024 * 1024);
            let echoing = async {
                let mut got = vec![0; sent.len()];
                far.read_exact(&mut got).await.unwrap();
                assert!(got == sent, "it arrives otherwise");
                far.write_all(&got).await.unwrap();
                far.shutdown().await.unwrap();
            };
            let calling = async {
                near.write_all(&sent).await.unwrap();
                near.flush().await.unwrap();
                let mut got = BytesMut::new();
                while more(&mut near, &mut got).await.unwrap() > 0 {}
                assert!(got == sent, "it comes back otherwise");
                assert!(near.has_unread(), "its end is news");
            };
            tokio::join!(echoing, calling);
        }
    }

    #[tokio::test]
    async fn pieces_leave_as_one() {
        let (mut near, mut far) = pair(&TLS13).await;
        let pieces = ["", "4\r\n", "", "body", "\r\n"].map(|text| io::IoSlice::new(text.as_bytes()));
        assert_eq!(near.write_vectored(&pieces).await.unwrap(), 9);
        near.flush().await.unwrap();
        let mut got = [0; 9];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"4\r\nbody\r\n");
    }

    #[tokio::test]
    async fn a_record_that_is_taken_leaves_no_buffer_behind() {
        let (mut near, mut far) = pair(&TLS13).await;
        let sending = tokio::spawn(async move {
            let sent = pattern(64 * CARRIED_MAX);
            // The other end goes before all is sent.
            let _ = far.write_all(&sent).await;
            far
        });
        let mut first = BytesMut::new();
        more(&mut near, &mut first).await.unwrap();
        for _ in 0..8 {
            let mut got = BytesMut::new();
            let count = more(&mut near, &mut got).await.unwrap();
            assert_eq!(count, CARRIED_MAX);
            let kept = near.arrived.capacity();
            assert!(kept <= 2 * RECORD_HEAD, "{kept} bytes wait for a reader");
        }
        drop(near);
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn only_a_goodbye_is_an_end() {
        let (mut near, mut far) = pair(&TLS13).await;
        far.write_all(b"whole").await.unwrap();
        far.shutdown().await.unwrap();
        let mut got = BytesMut::new();
        while more(&mut near, &mut got).await.unwrap() > 0 {}
        assert_eq!(got, "whole");

        let (mut near, mut far) = pair(&TLS13).await;
        far.write_all(b"half").await.unwrap();
        far.flush().await.unwrap();
        // The socket is closed under TLS.
        drop(far.into_inner().0);
        let mut got = BytesMut::new();
        assert_eq!(more(&mut near, &mut got).await.unwrap(), 4);
        let error = more(&mut near, &mut got).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
    }

    #[tokio::test]
    async fn it_says_goodbye_itself() {
        let (mut near, mut far) = pair(&TLS13).await;
        near.write_all(b"last").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last");
    }

    #[tokio::test]
    async fn what_is_no_record_is_an_error_and_the_peer_gets_an_alert() {
        let (mut near, far) = pair(&TLS13).await;
        let (mut tcp, _) = far.into_inner();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let error = more(&mut near, &mut BytesMut::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        // An alert is a record of its own.
        let mut head = [0; RECORD_HEAD];
        tcp.read_exact(&mut head).await.unwrap();
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused_and_the_peer_gets_an_alert() {
        for version in [&TLS12, &TLS13] {
            let (near, far) = pair_named(version, "elsewhere").await;
            let error = near.unwrap_err();
            assert!(error.to_string().contains("not valid for name"), "{error}");
            let seen = match far {
                Ok(mut far) => far.read_u8().await.unwrap_err(),
                Err(error) => error,
            };
            assert!(seen.to_string().contains("BadCertificate"), "{seen}");
        }
    }

    #[tokio::test]
    async fn what_a_caller_sends_and_gets_is_whole() {
        for version in [&TLS12, &TLS13] {
            let (server, client) = configs(version);
            let (mut near, mut far) = served(&server, &client).await;
            let sent = pattern(2 * 1024 * 1024 + 7);
            let echoing = async {
                let mut got = Vec::new();
                // Less room than a record needs, now and then.
                let mut room = [0; 1500];
                while got.len() < sent.len() {
                    let count = near.read(&mut room).await.unwrap();
                    assert!(count > 0, "it ended after {} bytes", got.len());
                    got.extend_from_slice(&room[..count]);
                }
                assert!(got == sent, "it arrives otherwise");
                near.write_all(&got).await.unwrap();
                near.shutdown().await.unwrap();
            };
            let calling = async {
                far.write_all(&sent).await.unwrap();
                far.flush().await.unwrap();
                let mut got = Vec::new();
                far.read_to_end(&mut got).await.unwrap();
                assert!(got == sent, "it comes back otherwise");
            };
            in_time(async { tokio::join!(echoing, calling) }).await;
        }
    }

    #[tokio::test]
    async fn a_ticket_leaves_with_the_first_answer_and_is_good() {
        let (server, client) = configs(&TLS13);
        let (mut near, mut far) = served(&server, &client).await;
        let nothing = far.get_ref().0.try_read(&mut [0; 64]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "{nothing}");
        // A request that is read before does not send it off either.
        far.write_all(b"question").await.unwrap();
        assert_eq!(in_time(near.read(&mut [0; 64])).await.unwrap(), 8);
        let nothing = far.get_ref().0.try_read(&mut [0; 64]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "{nothing}");
        near.write_all(b"answer").await.unwrap();
        in_time(far.read_exact(&mut [0; 6])).await.unwrap();
        let (_, far) = served(&server, &client).await;
        assert_eq!(far.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }

    #[tokio::test]
    async fn a_ticket_of_which_a_part_has_left_goes_on_with_the_answer() {
        let (server, client) = configs(&TLS13);
        let (mut near, mut far) = served(&server, &client).await;
        // As a flush does on a socket that takes no more.
        near.left = near.tcp.try_write(&near.leaving[..7]).unwrap();
        near.write_all(b"answer").await.unwrap();
        let mut got = [0; 6];
        in_time(far.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"answer");
    }

    #[tokio::test]
    async fn a_caller_gets_its_alert_although_its_ticket_waits() {
        let (server, client) = configs(&TLS13);
        let (mut near, far) = served(&server, &client).await;
        let (mut tcp, mut tls) = far.into_inner();
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        in_time(near.read(&mut [0; 64])).await.unwrap_err();
        drop(near);
        let mut alert = Vec::new();
        in_time(tcp.read_to_end(&mut alert)).await.unwrap();
        tls.read_tls(&mut alert.as_slice()).unwrap();
        let error = tls.process_new_packets().unwrap_err();
        assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
    }

    #[tokio::test]
    async fn a_caller_at_rest_costs_no_buffer() {
        for version in [&TLS12, &TLS13] {
            let (server, client) = configs(version);
            let (mut near, mut far) = served(&server, &client).await;
            far.write_all(b"question").await.unwrap();
            assert_eq!(in_time(near.read(&mut [0; 64])).await.unwrap(), 8);
            near.write_all(b"answer").await.unwrap();
            let kept = [
                near.arrived.capacity(),
                near.unread.capacity(),
                near.leaving.capacity(),
            ];
            assert_eq!(kept, [0; 3]);
        }
    }

    #[tokio::test]
    async fn a_caller_that_says_too_much_before_its_handshake_is_refused() {
        let (server, _) = configs(&TLS13);
        let (mut far, tcp) = sockets().await;
        let talking = async {
            // A first message of 64 kB in records of 1 kB, and never its end.
            let mut message = vec![1, 0, 0xff, 0xff];
            message.resize(1024, 0);
            let mut sent = 0;
            loop {
                let mut record = vec![0x16, 3, 1, 4, 0];
                record.extend_from_slice(&message);
                message.fill(0);
                if far.write_all(&record).await.is_err() || sent > 1024 * 1024 {
                    return sent;
                }
                sent += record.len();
            }
        };
        let listening = async { OfCaller::accept(tcp, server, pending()).await.unwrap_err().why };
        let (_, error) = in_time(async { tokio::join!(talking, listening) }).await;
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    }

    #[tokio::test]
    async fn what_a_caller_said_is_kept_when_the_handshake_fails() {
        let (server, _) = configs(&TLS13);
        let (_, client) = configs(&TLS12);
        let (far, tcp) = sockets().await;
        let name = ServerName::try_from("localhost").unwrap();
        let far = TlsConnector::from(client).connect(name, far);
        let near = async {
            let failed = OfCaller::accept(tcp, server, pending()).await.unwrap_err();
            assert!(failed.why.to_string().contains("incompatible"), "{failed:?}");
            assert_eq!(failed.said.first(), Some(&0x16), "a handshake message begins it");
            failed.part().await;
        };
        let ((), far) = in_time(async { tokio::join!(near, far) }).await;
        assert!(far.unwrap_err().to_string().contains("ProtocolVersion"));
    }
}
