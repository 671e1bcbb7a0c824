//! No proof: the route is open to everybody, and no credential is looked at.

use crate::policy::address::Origin;
use crate::policy::caller::Caller;
use crate::policy::proof::shown::{Identity, Proof, Shown};
use crate::problem::{Kind, Problem};

#[derive(Debug)]
pub(in crate::policy) struct Anyone(Caller);

impl Anyone {
    pub(in crate::policy) fn new() -> Self {
        Self(Caller::anonymous())
    }
}

impl Proof for Anyone {
    fn identify(&self, _: &Shown<'_>) -> Option<Result<Identity, Problem>> {
        Some(Ok(Identity::Known(self.0.clone())))
    }

    fn missing(&self, _: Origin) -> Problem {
        Kind::KeyMissing.into()
    }
}
