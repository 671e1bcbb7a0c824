//! An address that cannot be listened on, and what to do about it.

use std::io;
use std::net::SocketAddr;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}, the `address` of {table}: {error}{}", remedy(*.address, .error))]
pub struct BindError {
    /// The table of the settings that names it.
    pub table: &'static str,
    pub address: SocketAddr,
    pub error: io::Error,
}

fn remedy(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse if cfg!(target_os = "linux") => format!(
            "; `ss -ltnp 'sport = :{port}'`, run as root, names the process that has it: stop that one, or set another port"
        ),
        io::ErrorKind::AddrInUse => format!(
            "; `lsof -nP -iTCP:{port} -sTCP:LISTEN` names the process that has it: stop that one, or set another port"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has this address: write 0.0.0.0 or [::] for all of them"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied if port < 1024 => "; ports below 1024 need the capability \
            CAP_NET_BIND_SERVICE: give it to the service, or set a higher port"
            .to_owned(),
        _ => String::new(),
    }
}
