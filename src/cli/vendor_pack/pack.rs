//! What a page and a definition are made of: the route, how callers know it, and what one of them must send.

use http::Method;

use crate::settings::{Config, KeyPlace, Rate, RouteSettings, SignatureSettings};

/// The body of examples.
pub(super) const BODY: &str = "{\"test\": true}";

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
pub(super) struct Sender<'c> {
    pub(super) key: Option<&'c KeyPlace>,
    pub(super) signature: Option<&'c SignatureSettings>,
    pub(super) rate: Option<&'c Rate>,
    pub(super) has_networks: bool,
}

pub(super) fn has_body(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS].contains(method)
}
