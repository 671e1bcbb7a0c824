//! HTTP/2: hyper speaks the protocol; what it does not bound is counted, held back and timed around it.

mod answer;
pub mod blocks;
mod connection;
mod fragment;
mod frames;
mod gate;
mod guard;
mod hello;
mod line;
mod pace;
mod requests;
mod resets;
mod unread;
mod window;

pub(super) use connection::serve;
