//! Finds the end of a body: after a stated number of bytes, after its last chunk, or at the end of its
//! connection.

use bytes::BytesMut;

use crate::wire::chunks::Chunks;
use crate::wire::head::Framing;
use crate::wire::piece::{Piece, take};

/// Extracts one body from a stream of bytes.
#[derive(Debug)]
pub enum Decoder {
    Done,
    /// This many bytes are still to come.
    Length(u64),
    Chunked(Box<Chunks>),
    /// Everything until the connection ends.
    UntilClose,
}

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes of the body that are still to come, if known.
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the bytes of the body that have arrived out of `held`.
    ///
    /// # Errors
    /// Names an error in its chunks; nothing after it can be parsed.
    pub fn next(&mut self, held: &mut BytesMut) -> Result<Piece, &'static str> {
        match self {
            Self::Done => Ok(Piece::End),
            Self::Length(left) => {
                let there = usize::try_from(*left).unwrap_or(usize::MAX).min(held.len());
                if there == 0 {
                    return Ok(Piece::More);
                }
                *left -= there as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Piece::Data(take(held, there)))
            }
            Self::Chunked(chunks) => {
                let piece = chunks.next(held)?;
                if piece == Piece::End {
                    *self = Self::Done;
                }
                Ok(piece)
            }
            Self::UntilClose if held.is_empty() => Ok(Piece::More),
            Self::UntilClose => Ok(Piece::Data(std::mem::take(held).freeze())),
        }
    }

    /// Handles the end of the connection; fails if the body is incomplete.
    pub fn ended(&mut self) -> Result<(), &'static str> {
        match self {
            Self::Done => Ok(()),
            Self::UntilClose => {
                *self = Self::Done;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err("the connection was closed in the middle of the body"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{Decoder, Piece, take};
    use crate::wire::Framing;

    fn data(text: &'static str) -> Result<Piece, &'static str> {
        Ok(Piece::Data(text.into()))
    }

    #[test]
    fn a_length_ends_a_body_and_what_follows_is_left() {
        let mut body = Decoder::new(Framing::Length(5));
        let mut held = BytesMut::new();
        assert_eq!(body.next(&mut held), Ok(Piece::More));
        held.extend_from_slice(b"ab");
        assert_eq!(body.next(&mut held), data("ab"));
        assert_eq!(body.next(&mut held), Ok(Piece::More));
        assert!(!body.is_done());
        held.extend_from_slice(b"cdeGET");
        assert_eq!(body.next(&mut held), data("cde"));
        assert!(body.is_done());
        assert_eq!(body.next(&mut held), Ok(Piece::End));
        assert_eq!(held, "GET");
    }

    #[test]
    fn what_is_left_of_a_body_is_known_if_its_length_is() {
        let mut body = Decoder::new(Framing::Length(5));
        assert_eq!(body.left(), Some(5));
        assert_eq!(body.next(&mut BytesMut::from("abc")), data("abc"));
        assert_eq!(body.left(), Some(2));
        assert_eq!(body.next(&mut BytesMut::from("de")), data("de"));
        assert_eq!(body.left(), Some(0));
        for framing in [Framing::Chunked, Framing::UntilClose] {
            assert_eq!(Decoder::new(framing).left(), None, "{framing:?}");
        }
    }

    #[test]
    fn a_body_of_no_bytes_is_over_at_once() {
        assert!(Decoder::new(Framing::None).is_done());
        assert!(Decoder::new(Framing::Length(0)).is_done());
        for framing in [Framing::Length(1), Framing::Chunked, Framing::UntilClose] {
            assert!(!Decoder::new(framing).is_done(), "{framing:?}");
        }
    }

    #[test]
    fn a_chunked_body_is_over_after_its_last_chunk() {
        let mut body = Decoder::new(Framing::Chunked);
        let mut held = BytesMut::from("1\r\na\r\n0\r\n\r\nGET");
        assert_eq!(body.next(&mut held), data("a"));
        assert!(!body.is_done());
        assert_eq!(body.next(&mut held), Ok(Piece::End));
        assert!(body.is_done());
        assert_eq!(held, "GET");
    }

    #[test]
    fn only_a_body_that_ends_with_its_connection_may_be_ended_by_it() {
        let mut body = Decoder::new(Framing::UntilClose);
        let mut held = BytesMut::from("abc");
        assert_eq!(body.next(&mut held), data("abc"));
        assert_eq!(body.next(&mut held), Ok(Piece::More));
        assert_eq!(body.ended(), Ok(()));
        assert!(body.is_done());
        assert_eq!(body.ended(), Ok(()));
        for framing in [Framing::Length(1), Framing::Chunked] {
            let mut body = Decoder::new(framing);
            assert!(body.ended().is_err(), "{framing:?}");
            assert!(!body.is_done());
        }
    }

    #[test]
    fn taking_everything_leaves_no_memory_behind() {
        for (count, left) in [(3, 0), (4, 0), (2, 1)] {
            let mut held = BytesMut::with_capacity(1024);
            held.extend_from_slice(b"abc");
            assert_eq!(take(&mut held, count).len(), count.min(3));
            assert_eq!(held.len(), left);
            assert_eq!(held.capacity() == 0, left == 0, "{count}");
        }
    }
}
