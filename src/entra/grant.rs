//! A way to get tokens. When to ask, and how long an answer is remembered, is decided in `cache.rs`.

use futures_util::future::BoxFuture;

use crate::entra::answer::{Granted, TokenError};

pub(crate) type Asked<'a> = BoxFuture<'a, Result<Granted, TokenError>>;

/// A way to get tokens of one identity for one scope.
pub(crate) trait Grant: Send + Sync {
    fn ask(&self) -> Asked<'_>;
}
