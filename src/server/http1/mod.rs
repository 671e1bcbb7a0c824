//! HTTP/1: one request after the other, without a library between the stream and the gateway.

mod answer;
mod connection;
mod end;
mod lent;
mod plan;

pub(super) use connection::serve;
