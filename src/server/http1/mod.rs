//! HTTP/1: one request after the other, without a library between the stream and the gateway.

mod connection;

pub(super) use connection::serve;
