//! HTTP/1 on the wire (RFC 9112), the same for callers and triggers: where a head ends and what it says, where a body
//! ends, how bytes get into and out of a stream. It decides what can be read in one way only, and refuses the rest;
//! it knows nothing of callers, routes or flows.

mod body;
mod chunks;
mod fields;
mod head;
mod outbox;
mod secure;
mod stream;
mod timer;

pub use body::{Decoder, Piece, take};
pub use fields::Fields;
pub use head::{Defect, Found, Framing, Limits, RequestHead, ResponseHead, Scan, request, response};
pub use outbox::Outbox;
pub use secure::{NoHandshake, OfCaller, ToServer};
pub use stream::{Stream, poll_discard};
pub use timer::Timer;
