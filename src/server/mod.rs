//! Listening sockets, workers and connections: HTTP is read and written here, and handed to the gateway.

mod accept;
mod connection;
mod http1;
mod http2;
mod linger;
mod listening;
mod phase;
pub mod reason;
mod refusals;
mod reload;
mod seats;
mod shared;
mod sockets;
mod start;
mod tls;

pub use http2::blocks;
pub use reload::Reloaded;
pub use start::{Server, StartError};
