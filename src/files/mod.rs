//! Files of the operator: read whole up to a size, made together, replaced in one step, with the owner they had.

mod draft;
mod fresh;
mod read;

pub(crate) use draft::{Draft, behind};
pub(crate) use fresh::{Access, Fresh};
pub(crate) use read::{bytes, exposure, open, read, read_text, text, unreadable};
