//! HTTP/1 on the wire (RFC 9112), the same for callers and triggers: the end and content of a head, the end
//! of a body, reading from and writing to a stream. It accepts only what is unambiguous; it knows nothing of
//! callers, routes or flows.

mod bind;
mod body;
mod chunks;
mod errors;
mod fields;
mod head;
mod outbox;
mod piece;
mod secure;
mod stream;
mod timer;

pub use bind::BindError;
pub use body::Decoder;
pub use errors::{BodyError, describe};
pub use fields::Fields;
pub use head::{
    Defect, Framing, HeadEnd, Limits, RequestHead, ResponseHead, Scan, is_plain_length, request, response,
};
pub use outbox::Outbox;
pub use piece::{Piece, take};
pub use secure::{NoHandshake, OfCaller, ToServer};
pub use stream::{Stream, poll_discard};
pub use timer::Timer;
