//! Decisions about a request: who calls, which route it is for, whether it may, and how often. Nothing here
//! waits, opens a socket or knows the flow; each machine is built once from the settings and then only read.
//!
//! The gateway asks in this order, and the first refusal is the answer:
//!
//! 1. [`Origin::of_peer`]: the caller's address.
//! 2. [`host::parse`] and [`Routes::find`]: the route, from a path that can be read in one way only.
//! 3. [`Networks::admit`]: the networks of the route.
//!    The challenge of a vendor is answered here ([`handshake`]), unless its sender signs it.
//! 4. [`Quotas::admit_address`]: whether the address has failed authentications left. If not, keys that could
//!    be guessed are not looked up ([`Guesses::Refused`]), so that guessing costs something; a generated key
//!    is, so that nobody can lock out its owner.
//! 5. [`Access::identify`]: the caller, by key or network, with its own networks; if [`Attempt::of`] the
//!    problem is a failure, [`Quotas::count_failure`] remembers it, or the refusal of step 4 is the answer.
//!    A caller that signs is known only after its body was read ([`Pending::confirm`]).
//! 6. [`Quotas::take`]: the limits of caller, route and gateway, all of them tested before any is taken
//!    from.
//! 7. [`BodyRules::accept`] and [`body::BodyReader::read`]: the body, once it is held, where the route has rules for it.

mod access;
pub mod address;
pub mod body;
mod caller;
pub mod handshake;
pub mod host;
pub mod key;
pub mod open_paths;
pub mod path;
mod proof;
pub mod quota;
pub mod route;

pub use access::{Access, Attempt};
pub use address::{Networks, Origin, OutsideNetworks};
pub use body::BodyRules;
pub use caller::{Caller, CallerNumbers, Callers, Signed};
pub use handshake::{AlsoDue, CHALLENGE_BYTES_MAX, Challenge, Confirmation, Handshakes};
pub use open_paths::OpenPaths;
pub use proof::signature;
pub use proof::{CertificateWanted, Guesses, Identity, NoCertificate, Pending, Shown};
pub use quota::{LimitStates, Quotas, Taken};
pub use route::{Matching, RouteError, RouteMatch, Routes};
