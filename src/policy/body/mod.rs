//! What a route demands of bodies, and what it makes of them for the flow: which types it accepts, JSON in one reading and
//! within bounds, a schema, nulls left out, forms as JSON. Pure: bytes and the head come in, a decision or bytes go out. Who
//! calls is decided before, over the bytes as they came.

mod form;
mod json;
mod nulls;
mod reader;
mod rules;

pub use reader::{BodyReader, Syntax};
pub use rules::BodyRules;
