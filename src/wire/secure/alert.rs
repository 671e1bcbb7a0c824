//! Fatal alerts: which one is sent, and the time in which the peer can read it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::unbuffered::ConnectionState;
use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved, ProtocolVersion};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::wire::secure::{NoHandshake, RECORD_HEAD, Refusal, Secure, Side, encode};
use crate::wire::stream::poll_discard;
use crate::wire::timer::Timer;

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

impl NoHandshake {
    /// Sends the alert, if there is one, and ends when the caller can have read it.
    pub async fn part(self) {
        self.part_within(LINGER_TIME).await;
    }

    /// The same, without waiting for the caller.
    pub async fn part_at_once(self) {
        self.part_within(Duration::ZERO).await;
    }

    async fn part_within(self, time: Duration) {
        if let Some(mut stream) = self.alerted {
            stream.refusal = Some(Refusal::new(self.why, time));
            poll_fn(|cx| stream.poll_refuse(cx)).await;
        }
    }
}

impl<T: Side> Secure<T> {
    /// Adds the fatal alert that names this error to what leaves. The library has made one for most errors. For the
    /// others it is given something that it refuses, because it alone has the keys; what that alert says is corrected
    /// where it is not encrypted. `unused` bytes from before the error are still needed in front of a record.
    pub(super) fn alert(&mut self, error: &Error, hello_version: Option<u16>, unused: usize) {
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
    pub(super) fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(mut refusal) = self.refusal.take() else {
            return Poll::Ready(io::ErrorKind::BrokenPipe.into());
        };
        if self.poll_linger(cx, &mut refusal).is_pending() {
            self.refusal = Some(refusal);
            return Poll::Pending;
        }
        Poll::Ready(refusal.why)
    }

    /// Sends what waits to leave, and closes our side.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_leave(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Ends when the peer has closed, or when it had enough time.
    fn poll_linger(&mut self, cx: &mut Context<'_>, refusal: &mut Refusal) -> Poll<()> {
        let is_late = refusal.timer.poll_until(cx, refusal.until).is_ready();
        if !refusal.sent {
            match self.poll_part(cx) {
                Poll::Ready(Ok(())) => refusal.sent = true,
                Poll::Pending if !is_late => return Poll::Pending,
                _ => return Poll::Ready(()),
            }
        }
        if is_late {
            return Poll::Ready(());
        }
        while refusal.bytes_left > 0 {
            match std::task::ready!(poll_discard(&self.tcp, cx)) {
                Ok(count) if count > 0 => refusal.bytes_left = refusal.bytes_left.saturating_sub(count),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl Refusal {
    /// For the error for which the peer was sent an alert.
    pub(super) fn of(why: io::Error) -> Box<Self> {
        Self::new(why, LINGER_TIME)
    }

    fn new(why: io::Error, time: Duration) -> Box<Self> {
        Box::new(Self {
            why,
            until: Instant::now() + time,
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
        // RFC 8446 sections 5 and 5.1: what is wrong with the head of a record. Encrypted it stays the library's decode_error.
        Error::InvalidMessage(InvalidMessage::MessageTooLarge) => Some(AlertDescription::RecordOverflow),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::InvalidEmptyPayload) => {
            Some(AlertDescription::UnexpectedMessage)
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
pub(super) fn hello_version(record: &[u8]) -> Option<u16> {
    let [HANDSHAKE, _, _, _, _, CLIENT_HELLO, _, _, _, major, minor, ..] = record else {
        return None;
    };
    Some(u16::from_be_bytes([*major, *minor]))
}
