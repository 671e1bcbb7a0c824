//! TLS, towards callers and triggers, read record by record. A connection that waits holds no buffer: whatever is read
//! belongs to the record that is due, and what is left of it lies in the socket until somebody has room for it. What is
//! read and what is sent pass through memory of the worker's.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

use bytes::BytesMut;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{
    AlertDescription, ClientConfig, CommonState, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved,
    ProtocolVersion, ServerConfig,
};
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::wire::{Stream, Timer, poll_discard};

/// The head of a record: its kind, a version and its length (RFC 8446 section 5.1).
const RECORD_HEAD: usize = 5;
/// The largest record with its head: TLS 1.2 allows 2 KiB for what encryption adds (RFC 5246 section 6.2.3).
const RECORD_MAX: usize = RECORD_HEAD + 16 * 1024 + 2 * 1024;
/// Bytes that one record carries at most.
const CARRIED_MAX: usize = 16 * 1024;
/// Bytes read where more than one record may be there: most answers are a small one, or a few.
const READ_BYTES: usize = 4 * 1024;
/// What a server may say before the handshake is over: a chain of certificates, and then some.
const HANDSHAKE_MAX: usize = 128 * 1024;

/// What may wait for the first answer: a ticket for the next handshake, and little else.
const PATIENT_MAX: usize = 1024;

/// How long, and for how many bytes, a caller that was sent a fatal alert is listened to. Closing with bytes unread
/// resets the connection, and the reset can overtake the alert.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Records that are refused with `unexpected_message`: the first when the handshake is over, the second before.
const REFUSED: &[u8] = &[20, 3, 3, 0, 1, 1, 20, 3, 3, 0, 1, 2];
/// A byte that begins no record, and is refused with `decode_error`.
const NO_RECORD: u8 = 0xff;
/// The kinds of a record with a part of the handshake and with an alert, and that of a ClientHello.
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const CLIENT_HELLO: u8 = 1;

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

/// A side of TLS.
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

/// A connection to a server.
pub type ToServer = Secure<UnbufferedClientConnection>;
/// A connection of a caller.
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

/// A handshake that failed.
#[derive(Debug)]
pub struct NoHandshake {
    /// The error.
    pub why: io::Error,
    /// What the caller has said before it was answered.
    pub said: Vec<u8>,
    /// The connection, if an alert is to be sent on it.
    alerted: Option<Box<OfCaller>>,
}

impl NoHandshake {
    /// Sends the alert, if there is one, and ends when the caller can have read it.
    pub async fn part(self) {
        if let Some(mut stream) = self.alerted {
            stream.refusal = Some(Refusal::new(self.why));
            poll_fn(|cx| stream.poll_refuse(cx)).await;
        }
    }
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

/// Where TLS stands when it has read everything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Handshake,
    Traffic,
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl ToServer {
    /// Makes a connection secure.
    ///
    /// # Errors
    /// Those of the socket and of TLS.
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
            let (used, stands) = stream.digest(&mut arrived, &mut unread);
            arrived.drain(..used.min(arrived.len()));
            stream.arrived = arrived;
            stream.unread = unread;
            let told = poll_fn(|cx| stream.poll_leave(cx)).await;
            // What is wrong with the peer explains more than that it does not listen any more.
            let stands = stands?;
            told?;
            if stands == Stands::Traffic {
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
    /// Makes the connection of a caller secure. Until something has come it holds no buffer, and what a caller says may
    /// be as long as a record or a little longer.
    ///
    /// # Errors
    /// Those of the socket and of TLS.
    pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Box<Self>, NoHandshake> {
        let tls = match UnbufferedServerConnection::new(config) {
            Ok(tls) => tls,
            Err(error) => {
                return Err(NoHandshake {
                    why: broken(error),
                    said: Vec::new(),
                    alerted: None,
                });
            }
        };
        let mut stream = Box::new(Self::new(tcp, tls));
        let mut said = Vec::new();
        match stream.shake(&mut said).await {
            Ok(()) => Ok(stream),
            Err(why) => Err(NoHandshake {
                why,
                said,
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
            let stands = poll_fn(taking).await?;
            answered |= !self.leaving.is_empty();
            // With TLS 1.3 a caller that has finished waits for no more than its answer, and a ticket goes with that.
            // Where the system cannot acknowledge without it, it leaves at once.
            let version = self.tls.protocol_version();
            self.patient = stands == Stands::Traffic
                && version == Some(ProtocolVersion::TLSv1_3)
                && self.leaving.len() <= PATIENT_MAX
                && cfg!(target_os = "linux");
            if !self.patient {
                poll_fn(|cx| self.poll_leave(cx)).await?;
            }
            if stands == Stands::Traffic {
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

    /// The socket underneath.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether bytes have arrived that nobody has read yet, or the end.
    pub fn has_unread(&self) -> bool {
        self.ended || !self.unread.is_empty() || !self.arrived.is_empty()
    }

    /// Adds what arrives to `into`: one record, or a few small ones; 0 at the end.
    ///
    /// # Errors
    /// Those of the socket and of TLS; an end without TLS's own goodbye is an error.
    pub fn poll_more(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let before = into.len();
        if !self.unread.is_empty() {
            into.unsplit(std::mem::take(&mut self.unread));
        }
        while into.len() == before && !self.ended {
            std::task::ready!(SPACE.with_borrow_mut(|space| self.poll_record(cx, &mut space.arrived, into)))?;
        }
        Poll::Ready(Ok(into.len() - before))
    }

    /// Reads once, and takes in what is whole.
    fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
        into: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        if self.refusal.is_some() {
            return self.poll_refuse(cx).map(Err);
        }
        let taken = std::task::ready!(self.poll_take(cx, space, into, |_| {}));
        if T::LINGERS && self.alerted {
            self.refusal = taken.err().map(Refusal::new);
            return self.poll_refuse(cx).map(Err);
        }
        // A peer that is sent an alert waits for no record.
        let may_wait = self.patient && taken.is_ok();
        let told = if self.leaving.is_empty() || may_wait {
            Ok(())
        } else {
            // What TLS itself has to say. It leaves with the next bytes, if the socket takes none now.
            match self.poll_leave(cx) {
                Poll::Ready(told) => told,
                Poll::Pending => Ok(()),
            }
        };
        // What is wrong with the peer explains more than that it does not listen any more.
        Poll::Ready(taken.and(told))
    }

    /// The same, and keeps what TLS has to say. Whatever is read is shown to `see` first.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
        into: &mut BytesMut,
        see: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<Stands>> {
        let have = self.arrived.len();
        let too_long = have >= space.len();
        let Some(begun) = space.get_mut(..have).filter(|_| !too_long) else {
            let error = Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);
            self.alert(&error, None, have);
            return Poll::Ready(Err(broken(error)));
        };
        begun.copy_from_slice(&self.arrived);
        // The head of the next record comes with a large one, so that a long answer takes one look at the socket for each.
        let end = match record_bytes(&self.arrived) {
            Some(bytes) if bytes > READ_BYTES.max(have) => bytes + RECORD_HEAD,
            _ => have + READ_BYTES,
        };
        let end = end.min(space.len());
        let mut read = ReadBuf::new(space.get_mut(have..end).unwrap_or_default());
        std::task::ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
        let count = read.filled().len();
        if count == 0 {
            let what = "the peer closed the connection without the goodbye of TLS";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
        }
        see(read.filled());
        let bytes = space.get_mut(..have + count).unwrap_or_default();
        let (used, stands) = self.digest(bytes, into);
        self.keep(bytes.get(used..).unwrap_or_default());
        Poll::Ready(stands)
    }

    /// Keeps the beginning of a record, in no more memory than that takes.
    fn keep(&mut self, rest: &[u8]) {
        self.arrived.clear();
        if self.arrived.capacity() > rest.len() + RECORD_HEAD {
            self.arrived = Vec::new();
        }
        self.arrived.extend_from_slice(rest);
    }

    /// Takes in what has arrived: what it says to us comes into `into`, what TLS answers to it waits to leave. Tells how
    /// many bytes are done with.
    fn digest(&mut self, bytes: &mut [u8], into: &mut BytesMut) -> (usize, io::Result<Stands>) {
        let mut used = 0;
        loop {
            let rest = bytes.get_mut(used..).unwrap_or_default();
            let version = hello_version(rest);
            let UnbufferedStatus { mut discard, state } = self.tls.process(rest);
            let stands = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                into.extend_from_slice(record.payload);
                            }
                            Err(error) => return (used, Err(broken(error))),
                        }
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    if let Err(error) = encode(data, &mut self.leaving) {
                        return (used, Err(broken(error)));
                    }
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Stands::Handshake),
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => Some(Stands::Traffic),
                Ok(_) => return (used, Err(broken("a state of TLS that was not asked for"))),
                Err(error) => {
                    used += discard;
                    self.alert(&error, version, bytes.len().saturating_sub(used));
                    return (used, Err(broken(error)));
                }
            };
            used += discard;
            if let Some(stands) = stands {
                return (used, Ok(stands));
            }
        }
    }

    /// Adds the fatal alert that names this error to what leaves. The library has made one for most errors. For the
    /// others it is given something that it refuses, because it alone has the keys; what that alert says is corrected
    /// where it is not encrypted. `unused` bytes from before the error are still needed in front of a record.
    fn alert(&mut self, error: &Error, hello_version: Option<u16>, unused: usize) {
        // A fatal alert is not answered, and none follows our own goodbye (RFC 8446 section 6).
        let silent = self.gone || matches!(error, Error::AlertReceived(_));
        for record in [REFUSED, &[]] {
            if !silent && !self.tls.wants_write() {
                let mut record = record.to_vec();
                record.resize(record.len() + unused + RECORD_HEAD, NO_RECORD);
                // The error is known already.
                let _ = self.tls.process(&mut record);
            }
        }
        let start = self.leaving.len();
        while self.tls.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(data)) = self.tls.process(&mut []).state
            && encode(data, &mut self.leaving).is_ok()
        {}
        self.alerted = self.leaving.len() > start;
        if let Some(right) = right_alert(error, hello_version)
            && let Some([ALERT, _, _, 0, 2, _, description]) = self.leaving.get_mut(start..)
        {
            *description = right.into();
        }
    }

    /// Gives the peer time to read the alert, and returns the error.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(mut refusal) = self.refusal.take() else {
            return Poll::Ready(io::ErrorKind::BrokenPipe.into());
        };
        if self.poll_linger(cx, &mut refusal).is_pending() {
            self.refusal = Some(refusal);
            return Poll::Pending;
        }
        Poll::Ready(refusal.why)
    }

    /// Ends when the peer has closed, or when it had enough time.
    fn poll_linger(&mut self, cx: &mut Context<'_>, refusal: &mut Refusal) -> Poll<()> {
        if refusal.timer.poll_until(cx, refusal.until).is_ready() {
            return Poll::Ready(());
        }
        if !refusal.sent {
            let sent = std::task::ready!(self.poll_leave(cx));
            let ended = std::task::ready!(Pin::new(&mut self.tcp).poll_shutdown(cx));
            if sent.and(ended).is_err() {
                return Poll::Ready(());
            }
            refusal.sent = true;
        }
        while refusal.bytes_left > 0 {
            match std::task::ready!(poll_discard(&self.tcp, cx)) {
                Ok(count) if count > 0 => refusal.bytes_left = refusal.bytes_left.saturating_sub(count),
                _ => break,
            }
        }
        Poll::Ready(())
    }

    /// Sends what waits to leave.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.leaving.get(self.left..)
            && !rest.is_empty()
        {
            let count = std::task::ready!(Pin::new(&mut self.tcp).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.left += count;
        }
        self.leaving = Vec::new();
        self.left = 0;
        self.patient = false;
        Poll::Ready(Ok(()))
    }

    /// Sends what waits to leave, unless it may go with the next record.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.patient {
            return Poll::Ready(Ok(()));
        }
        self.poll_leave(cx)
    }

    /// Makes a record, or the goodbye, and hands it to the socket with what waited for it; what that does not take waits.
    fn seal(&mut self, cx: &mut Context<'_>, space: &mut [u8], plain: Option<&[u8]>) -> io::Result<()> {
        // A part of it may have left, if somebody flushed meanwhile.
        let waiting = self.leaving.get(self.left..).unwrap_or_default();
        let waited = waiting.len();
        if let Some(first) = space.get_mut(..waited) {
            first.copy_from_slice(waiting);
        }
        self.leaving = Vec::new();
        self.left = 0;
        self.patient = false;
        let room = space.get_mut(waited..).unwrap_or_default();
        // What has arrived of a record is what TLS expects to see again.
        let count = match self.tls.process(&mut self.arrived).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match plain {
                Some(plain) => traffic.encrypt(plain, room),
                None => traffic.queue_close_notify(room),
            }
            .map_err(broken)?,
            // Whatever else TLS had to say or to read was taken care of as it came.
            Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => return Err(broken(error)),
        };
        let record = space.get(..waited + count).unwrap_or_default();
        let sent = match Pin::new(&mut self.tcp).poll_write(cx, record) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        self.leaving
            .extend_from_slice(record.get(sent..).unwrap_or_default());
        Ok(())
    }
}

impl Refusal {
    fn new(why: io::Error) -> Box<Self> {
        Box::new(Self {
            why,
            until: Instant::now() + LINGER_TIME,
            timer: Timer::default(),
            bytes_left: LINGER_BYTES_MAX,
            sent: false,
        })
    }
}

/// The alert that the standard wants for an error for which the library sends another one, or none.
fn right_alert(error: &Error, hello_version: Option<u16>) -> Option<AlertDescription> {
    match error {
        // The library looks for this extension before it looks at the version.
        Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired)
            if hello_version? < u16::from(ProtocolVersion::TLSv1_2) =>
        {
            Some(AlertDescription::ProtocolVersion)
        }
        Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => {
            Some(AlertDescription::ProtocolVersion)
        }
        // Such a message can be decoded. OpenSSL and BoringSSL call it that as well.
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge)
        | Error::PeerMisbehaved(PeerMisbehaved::ServerNameDifferedOnRetry) => {
            Some(AlertDescription::IllegalParameter)
        }
        Error::PeerMisbehaved(
            PeerMisbehaved::IllegalMiddleboxChangeCipherSpec
            | PeerMisbehaved::MessageInterleavedWithHandshakeMessage
            | PeerMisbehaved::TooManyEmptyFragments
            | PeerMisbehaved::TooManyWarningAlertsReceived,
        ) => Some(AlertDescription::UnexpectedMessage),
        _ => None,
    }
}

/// The version that a ClientHello names where TLS 1.2 and older have it (RFC 8446 section 4.1.2).
fn hello_version(record: &[u8]) -> Option<u16> {
    let [HANDSHAKE, _, _, _, _, CLIENT_HELLO, _, _, _, major, minor, ..] = record else {
        return None;
    };
    Some(u16::from_be_bytes([*major, *minor]))
}

/// The length of the record that begins like this, with its head.
fn record_bytes(begun: &[u8]) -> Option<usize> {
    let length = begun.get(3..RECORD_HEAD)?;
    let length = u16::from_be_bytes(length.try_into().ok()?);
    Some(RECORD_HEAD + usize::from(length))
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

impl Stream for Box<OfCaller> {
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut BytesMut,
        _max: usize,
    ) -> Poll<io::Result<usize>> {
        (**self).poll_more(cx, into)
    }

    fn socket(&self) -> &TcpStream {
        self.tcp()
    }

    fn is_silent(&self) -> bool {
        !self.has_unread() && self.tcp().is_silent()
    }
}

impl<T: Side> AsyncRead for Secure<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.unread.is_empty() {
            SPACE.with_borrow_mut(|Space { arrived, read, .. }| {
                read.clear();
                while read.is_empty() && !me.ended {
                    std::task::ready!(me.poll_record(cx, arrived, read))?;
                }
                let now = read.len().min(out.remaining());
                let (now, later) = read.split_at(now);
                out.put_slice(now);
                me.unread.extend_from_slice(later);
                Poll::Ready(Ok(()))
            })
        } else {
            let now = me.unread.len().min(out.remaining());
            out.put_slice(&me.unread.split_to(now));
            if me.unread.is_empty() {
                me.unread = BytesMut::new();
            }
            Poll::Ready(Ok(()))
        }
    }
}

impl<T: Side> AsyncWrite for Secure<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        if me.refusal.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        std::task::ready!(me.poll_room(cx))?;
        SPACE.with_borrow_mut(|Space { plain, leaving, .. }| {
            let first = pieces.iter().position(|piece| !piece.is_empty());
            let Some(first) = first.and_then(|first| pieces.get(first..)) else {
                return Poll::Ready(Ok(0));
            };
            let bytes = match first {
                [one, rest @ ..] if one.len() >= CARRIED_MAX || rest.iter().all(|piece| piece.is_empty()) => {
                    one.get(..CARRIED_MAX).unwrap_or(one)
                }
                _ => {
                    plain.clear();
                    for piece in first {
                        let room = CARRIED_MAX - plain.len();
                        plain.extend_from_slice(piece.get(..room).unwrap_or(piece));
                    }
                    plain
                }
            };
            me.seal(cx, leaving, Some(bytes))?;
            Poll::Ready(Ok(bytes.len()))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_leave(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        std::task::ready!(me.poll_room(cx))?;
        if !me.gone && me.refusal.is_none() {
            me.gone = true;
            SPACE.with_borrow_mut(|space| me.seal(cx, &mut space.leaving, None))?;
            std::task::ready!(me.poll_leave(cx))?;
        }
        Pin::new(&mut me.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
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
        let near = OfCaller::accept(tcp, server.clone());
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
    async fn what_is_no_record_is_an_error_and_the_peer_is_told() {
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
    async fn a_certificate_for_another_name_is_refused_and_the_peer_is_told() {
        for version in [&TLS12, &TLS13] {
            let (near, far) = pair_named(version, "elsewhere").await;
            let error = near.unwrap_err();
            assert!(error.to_string().contains("not valid for name"), "{error}");
            let told = match far {
                Ok(mut far) => far.read_u8().await.unwrap_err(),
                Err(error) => error,
            };
            assert!(told.to_string().contains("BadCertificate"), "{told}");
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
        // A request that is read meanwhile does not send it off either.
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
    async fn a_caller_is_told_what_is_wrong_although_its_ticket_waits() {
        let (server, client) = configs(&TLS13);
        let (mut near, far) = served(&server, &client).await;
        let (mut tcp, mut tls) = far.into_inner();
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        in_time(near.read(&mut [0; 64])).await.unwrap_err();
        drop(near);
        let mut told = Vec::new();
        in_time(tcp.read_to_end(&mut told)).await.unwrap();
        tls.read_tls(&mut told.as_slice()).unwrap();
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
        let listening = async { OfCaller::accept(tcp, server).await.unwrap_err().why };
        let (_, error) = in_time(async { tokio::join!(talking, listening) }).await;
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    }

    #[tokio::test]
    async fn what_a_caller_said_is_told_when_no_handshake_comes_of_it() {
        let (server, _) = configs(&TLS13);
        let (_, client) = configs(&TLS12);
        let (far, tcp) = sockets().await;
        let name = ServerName::try_from("localhost").unwrap();
        let far = TlsConnector::from(client).connect(name, far);
        let near = async {
            let failed = OfCaller::accept(tcp, server).await.unwrap_err();
            assert!(failed.why.to_string().contains("incompatible"), "{failed:?}");
            assert_eq!(failed.said.first(), Some(&0x16), "a handshake message begins it");
            failed.part().await;
        };
        let ((), far) = in_time(async { tokio::join!(near, far) }).await;
        assert!(far.unwrap_err().to_string().contains("ProtocolVersion"));
    }
}
