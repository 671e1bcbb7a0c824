//! The control socket: commands of this machine's operators to a gateway that runs. One line of JSON asks, one answers. It is
//! in the state folder, which only the owner and root can enter, and asks the system who is at the other end.

mod client;
mod protocol;
mod socket;

pub use client::{Unreachable, ask};
pub use protocol::{Reply, Request};
pub use socket::{Asked, ControlSocket, SOCKET};
