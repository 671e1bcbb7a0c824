//! The parts in which a body is read.

use bytes::{Bytes, BytesMut};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Data(Bytes),
    /// Nothing yet: more bytes must arrive.
    More,
    /// The end; any further bytes belong to the next message.
    End,
}

/// Takes bytes from the front. Taking all of them leaves no empty handle behind, which would keep the memory
/// alive.
pub fn take(held: &mut BytesMut, count: usize) -> Bytes {
    if count >= held.len() {
        std::mem::take(held).freeze()
    } else {
        held.split_to(count).freeze()
    }
}
