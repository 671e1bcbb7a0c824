//! The control socket: commands of this machine's operators to a gateway that runs. One line of JSON asks, one answers. The system
//! says who is at the other end; unless the settings grant groups a part, that is the owner or root.

mod client;
mod protocol;
mod rights;
mod socket;

pub use client::{PATIENCE, Unreachable, ask};
pub use protocol::{Reply, Request};
#[cfg(unix)]
pub use rights::unknown_groups;
pub use rights::{Right, Rights};
#[cfg(unix)]
pub use socket::share;
pub use socket::{Asked, ControlSocket, Granted, Refused, SOCKET};
