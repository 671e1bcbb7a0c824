//! The tests of the emulator itself, by subject.

mod admission;
mod answers;
mod client;
mod network;
mod tokens;
mod users;
mod vault;
