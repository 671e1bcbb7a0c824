//! A signature over the request. Which caller it is of, is known only once the body was read: until then those whose scheme
//! fits the head are candidates.

use std::sync::Arc;

use crate::policy::address::Origin;
use crate::policy::caller::Callers;
use crate::policy::proof::pending::{Pending, Signatory};
use crate::policy::proof::shown::{Identity, Proof, Shown};
use crate::policy::proof::signature::Unverified;
use crate::problem::{Kind, Problem};

#[derive(Debug)]
pub(in crate::policy) struct BySignature {
    callers: Arc<Callers>,
    /// Indices of the route's callers that sign and have no keys.
    listed: Box<[usize]>,
}

impl BySignature {
    /// None where nobody is known by a signature alone.
    pub(in crate::policy) fn build(listed: &[usize], callers: &Arc<Callers>) -> Option<Self> {
        let signs = |index: &usize| {
            let member = callers.member(*index);
            member.is_some_and(|member| member.signer.is_some() && !member.has_keys)
        };
        let listed: Box<[usize]> = listed.iter().copied().filter(signs).collect();
        (!listed.is_empty()).then(|| Self {
            callers: callers.clone(),
            listed,
        })
    }
}

impl Proof for BySignature {
    fn identify(&self, shown: &Shown<'_>) -> Option<Result<Identity, Problem>> {
        let url = shown.url();
        let mut candidates = Vec::new();
        let mut refusal = None;
        for &index in &self.listed {
            let member = self.callers.member(index);
            let Some((member, signer)) = member.and_then(|member| Some((member, member.signer.as_ref()?)))
            else {
                continue;
            };
            let scheme = signer.scheme();
            let name = &member.name;
            let why = match scheme.claim(shown.head(&url), (shown.now)()) {
                Err(Unverified::Missing(_)) => continue,
                Err(why) => format!("caller {name}: {why}"),
                Ok(_) => match member.networks.admit(shown.origin) {
                    Err(outside) => format!("caller {name}: {outside}"),
                    Ok(()) => {
                        let caller = member.identified(index, None);
                        candidates.push(Signatory::new(caller, scheme));
                        continue;
                    }
                },
            };
            refusal.get_or_insert(why);
        }
        match (candidates.is_empty(), refusal) {
            (false, _) => Some(Ok(Identity::Pending(Pending::new(candidates, url)))),
            (true, Some(why)) => Some(Err(Problem::from(Kind::SignatureInvalid).because(why))),
            (true, None) => None,
        }
    }

    fn missing(&self, _: Origin) -> Problem {
        let signers = self.listed.iter().filter_map(|index| {
            let member = self.callers.member(*index)?;
            let scheme = member.signer.as_ref()?.scheme();
            Some(format!("{} (caller {})", scheme.places(), member.name))
        });
        let places = signers.collect::<Vec<_>>().join(", ");
        Problem::from(Kind::SignatureInvalid).because(format!("there is no signature in {places}"))
    }
}
