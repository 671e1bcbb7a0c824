//! What a route says about handshakes: which vendors' challenges it answers by itself. `handshake_check.rs` has the rules.

use http::Method;

use crate::model::handshake::Vendor;
use crate::model::{Flaw, Secret};
use crate::settings::kinds::{choice, word};
use crate::settings::near::closest;

/// A method with which vendors test a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    Get,
    Head,
}

choice!(Reached: Self::Get => "GET", Self::Head => "HEAD");
word! {
    Vendor: read_vendor, ["graph", "slack"];
}

fn read_vendor(text: &str) -> Result<Vendor, Flaw> {
    if let Some(vendor) = Vendor::ALL.into_iter().find(|vendor| vendor.name() == text) {
        return Ok(vendor);
    }
    let flaw = Flaw::new("the handshake of this vendor is not known");
    let names = Vendor::ALL.map(Vendor::name);
    Err(match closest(text, names.into_iter()) {
        Some(meant) => flaw.hint(format!("did you mean \"{meant}\"?")),
        None => flaw.hint(format!("known are {}", names.join(", "))),
    })
}

/// What a route answers to vendors by itself.
#[derive(Debug, Clone, Default)]
pub struct HandshakeSettings {
    pub vendors: Vec<Vendor>,
    /// What Meta has to send.
    pub verify_token: Option<Secret>,
    /// The place that it is read from.
    pub verify_token_from: Option<String>,
    /// Methods with which the URL is tested.
    pub reachable: Vec<Method>,
    /// Methods of challenges and tests that the route itself does not have.
    pub unlisted: Vec<Method>,
}
