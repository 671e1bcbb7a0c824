//! Bodies in both directions: how large, how fast, how long, and complete or not at all.

mod answers;
mod expect;
mod held;
mod leaving;
mod rates;
mod refused;
mod shares;
mod sizes;
mod streamed;

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::harness::{KEY, PATIENCE, World};
use crate::listening::Talk;

/// The head of an order whose body is framed by this line; the body follows.
fn head(framing: &str) -> String {
    format!("POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n{framing}\r\n\r\n")
}

fn with_length(bytes: usize) -> String {
    head(&format!("Content-Length: {bytes}"))
}

pub(crate) fn chunked() -> String {
    head("Transfer-Encoding: chunked")
}

pub(crate) fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

pub(crate) const LAST_CHUNK: &str = "0\r\n\r\n";

/// Bytes without a pattern, so that a repeated or missing part is noticed.
fn noise(bytes: usize) -> Bytes {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A trigger that reads and answers byte by byte, as the test directs it.
struct Bare {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Bare {
    fn new(world: &World) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that what it does not read stays with the gateway.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let config = world
            .emulator
            .ca
            .leaf(&["localhost"])
            .server_config(&["http/1.1"]);
        Self {
            listener: socket.listen(8).unwrap(),
            tls: TlsAcceptor::from(Arc::new(config)),
        }
    }

    fn url(&self) -> String {
        let port = self.listener.local_addr().unwrap().port();
        format!("https://localhost:{port}/start")
    }

    /// The next connection of the gateway.
    async fn accept(&self) -> Talk<TlsStream<TcpStream>> {
        let accept = async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            Talk::new(self.tls.accept(tcp).await.unwrap())
        };
        tokio::time::timeout(PATIENCE, accept)
            .await
            .expect("the gateway does not call")
    }
}
