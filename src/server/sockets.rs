//! Sockets on which workers accept.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener as StdListener;

use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::BindError;

/// Connections that the kernel completes before we accept them.
pub(super) const BACKLOG: i32 = 4096;

/// One socket of a listener for each worker, and where they are bound.
pub(super) fn bind_all(
    address: SocketAddr,
    workers: usize,
) -> Result<(SocketAddr, Vec<StdListener>), BindError> {
    let failed = |address, error| BindError {
        table: "[[listener]]",
        address,
        error,
    };
    let first = claim(address)
        .and_then(|()| bind(address))
        .map_err(|error| failed(address, error))?;
    // Port 0 becomes a real one with the first socket; the others join it.
    let address = first.local_addr().map_err(|error| failed(address, error))?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(another(&sockets, address).map_err(|error| failed(address, error))?);
    }
    Ok((address, sockets))
}

/// Makes sure that the port is free. Sockets that share it among our workers would share it with another process of
/// this account as well, and each would get a part of the callers.
fn claim(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

#[cfg(target_os = "linux")]
fn another(_sockets: &[StdListener], address: SocketAddr) -> io::Result<StdListener> {
    bind(address)
}

// Elsewhere several sockets on one port do not share the load: the workers accept from one queue in turn.
#[cfg(not(target_os = "linux"))]
fn another(sockets: &[StdListener], _address: SocketAddr) -> io::Result<StdListener> {
    sockets
        .first()
        .map_or_else(|| Err(io::ErrorKind::NotFound.into()), StdListener::try_clone)
}

fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Answers leave in whole pieces; waiting for more would only add delay. On Linux each connection has it from here.
    #[cfg(target_os = "linux")]
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
