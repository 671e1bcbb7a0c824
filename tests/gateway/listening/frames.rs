//! An HTTP/2 peer that builds its frames byte by byte, so that it can send invalid ones.

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use crate::harness::{KEY, PATIENCE, Running};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// A frame type that no RFC defines.
pub(crate) const UNKNOWN: u8 = 0xbe;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame that the gateway sent.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header field without indexing or compression (RFC 7541 section 6.2.2).
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        number(&mut bytes, text.len());
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The length of a string (RFC 7541 section 5.1).
pub(crate) fn number(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        bytes.push(u8::try_from(length).unwrap());
        return;
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// The fields of an order with the key of `shop`.
pub(crate) fn order_fields() -> Vec<u8> {
    // The method POST and the scheme https are in the static table (RFC 7541 appendix A).
    let mut block = vec![0x83, 0x87];
    block.extend(field(":path", "/orders"));
    block.extend(field(":authority", "localhost"));
    block.extend(field("x-api-key", KEY));
    block
}

/// The head of an order whose body is still to come.
pub(crate) fn order_head(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &order_fields())
}

/// The stream id with this number; those of callers are odd.
pub(crate) fn stream(number: u32) -> u32 {
    2 * number + 1
}

/// The peer.
pub(crate) struct Peer {
    writer: WriteHalf<TlsStream<TcpStream>>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Peer {
    /// Connects and sends the preface.
    pub(crate) async fn connect(gateway: &Running) -> Self {
        Self::over(gateway.tls_stream_h2().await).await
    }

    /// Sends the preface over a connection that is made.
    pub(crate) async fn over(stream: TlsStream<TcpStream>) -> Self {
        let (reader, mut writer) = tokio::io::split(stream);
        let (sender, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // It ends with the connection, however that ends.
            let _ = listen(reader, &sender).await;
        });
        writer
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut peer = Self { writer, heard };
        peer.say(&frame(SETTINGS, 0, 0, &[])).await;
        peer
    }

    /// Writes to a gateway that may have closed; returns whether it succeeded.
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> bool {
        let said = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        tokio::time::timeout(PATIENCE, said)
            .await
            .expect("it does not read")
            .is_ok()
    }

    /// The next matching frame; `None` once the connection is closed.
    pub(crate) async fn hear(&mut self, fits: impl Fn(&Heard) -> bool) -> Option<Heard> {
        let search = async {
            loop {
                let heard = self.heard.recv().await?;
                if fits(&heard) {
                    return Some(heard);
                }
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .expect("it neither says that nor closes")
    }

    /// Everything until the gateway closes.
    pub(crate) async fn rest(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        let end = async {
            while let Some(heard) = self.heard.recv().await {
                all.push(heard);
            }
        };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("the connection stays");
        all
    }

    /// Sends a PING and waits for its acknowledgement, so that everything sent before has been read.
    pub(crate) async fn catch_up(&mut self) -> bool {
        self.say(&frame(PING, 0, 0, &[7; 8])).await
            && self
                .hear(|heard| heard.kind == PING && heard.flags == ACK)
                .await
                .is_some()
    }
}

async fn listen(
    mut reader: ReadHalf<TlsStream<TcpStream>>,
    heard: &mpsc::UnboundedSender<Heard>,
) -> std::io::Result<()> {
    loop {
        let mut head = [0; 9];
        reader.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        reader.read_exact(&mut payload).await?;
        let frame = Heard {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        };
        if heard.send(frame).is_err() {
            return Ok(());
        }
    }
}
