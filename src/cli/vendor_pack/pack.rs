//! What a page and a definition are made of: the route, how callers know it, and what one of them must send.

use http::Method;

use crate::model::CallerName;
use crate::settings::{Config, KeyPlace, Rate, RouteSettings, SignatureSettings};

/// The body of examples.
pub(in crate::cli) const BODY: &str = "{\"test\": true}";

/// What the page is about.
pub(super) struct Pack<'c> {
    pub(super) config: &'c Config,
    pub(super) route: &'c RouteSettings,
    pub(super) address: Address,
    pub(super) caller: Sender<'c>,
}

/// How callers know the route.
pub(super) struct Address {
    /// Scheme and host, with the port if it is not the usual one.
    pub(super) base: String,
    /// The path, with parameters in braces.
    pub(super) path: String,
    pub(super) port: u16,
}

/// Who sends, and what must be sent to be let in.
#[derive(Default)]
pub(in crate::cli) struct Sender<'c> {
    /// One caller, if it matters which.
    pub(in crate::cli) name: Option<&'c CallerName>,
    pub(in crate::cli) key: Option<&'c KeyPlace>,
    pub(in crate::cli) signature: Option<&'c SignatureSettings>,
    pub(super) rate: Option<&'c Rate>,
    pub(super) has_networks: bool,
}

pub(in crate::cli) fn has_body(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS].contains(method)
}
