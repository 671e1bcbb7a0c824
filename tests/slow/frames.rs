//! A minimal HTTP/2, byte by byte.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::harness::KEY;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `SETTINGS_INITIAL_WINDOW_SIZE` of zero (RFC 9113 section 6.5.2).
pub(crate) const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];

/// A frame as bytes; its payload is short.
pub(crate) fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0, length[0], length[1], kind, flags, 0, 0, 0, stream];
    bytes.extend(payload);
    bytes
}

/// A string and its length, not compressed (RFC 7541 sections 5.1 and 5.2).
pub(crate) fn text(block: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    if rest < 127 {
        block.push(rest as u8);
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        block.push(rest as u8);
    }
    block.extend(text.as_bytes());
}

/// The fields of a request for `/orders`, without indexing.
pub(crate) fn order_block() -> Vec<u8> {
    // The method POST and the scheme https are in the static table (RFC 7541 appendix A).
    let mut block = vec![0x83, 0x87];
    for (name, value) in [
        (":path", "/orders"),
        (":authority", "localhost"),
        ("x-api-key", KEY),
    ] {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A whole request with these fields, without a body.
pub(crate) fn request(stream: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

/// Reads frames until one of this kind has arrived; fails if the connection ends.
pub(crate) async fn until(kind: u8, stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await?;
        if head[3] == kind {
            return Ok(());
        }
    }
}
