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

pub use body::Decoder;
pub use body::Piece;
pub use body::take;
pub use fields::Fields;
pub use head::Defect;
pub use head::Found;
pub use head::Framing;
pub use head::Limits;
pub use head::RequestHead;
pub use head::ResponseHead;
pub use head::Scan;
pub use head::request;
pub use head::response;
pub use outbox::Outbox;
pub use secure::NoHandshake;
pub use secure::OfCaller;
pub use secure::ToServer;
pub use stream::Stream;
pub use stream::poll_discard;
pub use timer::Timer;
