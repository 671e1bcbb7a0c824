//! API keys: what one looks like, where in a request it is read, and whose it is.

mod form;
mod reader;
mod table;
mod usage;

pub use form::{GENERATED_PREFIX, KEY_BYTES_MAX, generate, is_generated};
pub use reader::{Candidate, KeyReader, Presented};
pub use table::{DigestStart, Identified, KeyFault, Keys, Lapse, Trace};
