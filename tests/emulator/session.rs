//! Serves one connection, the same for all servers: one request after the other, until one side closes.

use std::future::Future;

use super::listener::{Connection, KeepAlive, Listener};
use super::reply::Reply;
use super::script::Violations;
use super::wire::{Broken, Head, Wire};

/// What happens to a connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It stays open for the next request.
    KeepAlive,
    /// It is closed cleanly.
    Close,
    /// It is dropped without close_notify.
    Cut,
}

/// One of the servers.
pub trait Exchange: Sync {
    /// Reads the rest of a request and answers it.
    fn exchange(
        &self,
        wire: &mut Wire,
        connection: &Connection,
        head: Head,
    ) -> impl Future<Output = Result<Next, Broken>> + Send;
}

/// Serves a connection to its end. Whatever a peer sends ends only its connection, never the emulator.
pub async fn converse(
    service: &impl Exchange,
    mut wire: Wire,
    mut connection: Connection,
    violations: &Violations,
) {
    loop {
        let head = tokio::select! {
            // A request that has already arrived is served before the connection is evicted.
            biased;
            head = wire.head() => head,
            () = connection.evicted() => break,
        };
        let outcome = match head {
            Ok(head) => service.exchange(&mut wire, &connection, head).await,
            Err(broken) => Err(broken),
        };
        match outcome {
            Ok(Next::KeepAlive) => {}
            Ok(Next::Close) | Err(Broken::Closed) => break,
            Ok(Next::Cut) | Err(Broken::Lost) => return,
            Err(Broken::Malformed(why)) => {
                violations.note(format!("a request was malformed: {why}"));
                let refusal = Reply::new(400).header("Connection", "close");
                // The connection ends either way.
                let _ = wire.send(&refusal.bytes("GET")).await;
                break;
            }
        }
    }
    wire.close().await;
}

/// Sends an ordinary answer, and treats the connection as listener and request require.
///
/// # Errors
/// If the peer is gone.
pub async fn send(
    wire: &mut Wire,
    listener: &Listener,
    head: &Head,
    mut reply: Reply,
) -> Result<Next, Broken> {
    let after = listener.after_answer();
    let announced = after == KeepAlive::CloseAnnounced || !head.keeps_alive();
    if announced {
        reply = reply.header("Connection", "close");
    }
    wire.send(&reply.bytes(&head.method)).await?;
    Ok(if announced || after == KeepAlive::CloseSilently {
        Next::Close
    } else {
        Next::KeepAlive
    })
}
