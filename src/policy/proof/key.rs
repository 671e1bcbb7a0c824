//! An API key. One that is presented decides: if it is wrong, neither the caller's network nor a signature helps.

use std::sync::Arc;

use crate::policy::address::Origin;
use crate::policy::caller::Callers;
use crate::policy::key::{KeyFault, KeyReader, Presented, is_generated};
use crate::policy::proof::pending;
use crate::policy::proof::pending::{Pending, Signatory};
use crate::policy::proof::shown::{Guesses, Identity, Proof, Shown};
use crate::problem::{Kind, Problem};
use crate::settings::KeyPlace;

#[derive(Debug)]
pub(in crate::policy) struct ByKey {
    callers: Arc<Callers>,
    /// Indices of the route's callers with keys, in order.
    listed: Box<[usize]>,
    reader: KeyReader,
}

impl ByKey {
    /// None where no key could let anybody in: what a vendor sends in such a field then is no credential of ours.
    pub(in crate::policy) fn build(
        listed: &[usize],
        places: &[KeyPlace],
        callers: &Arc<Callers>,
    ) -> Option<Self> {
        let has_keys = |index: usize| callers.member(index)?.has_keys.then_some(index);
        let mut listed: Vec<usize> = listed.iter().copied().filter_map(has_keys).collect();
        listed.sort_unstable();
        (!listed.is_empty()).then(|| Self {
            callers: callers.clone(),
            listed: listed.into_boxed_slice(),
            reader: KeyReader::build(places),
        })
    }

    fn look_up(&self, presented: &Presented<'_>, shown: &Shown<'_>) -> Result<Identity, Problem> {
        let candidate = &presented.candidate;
        if shown.guesses == Guesses::Refused && !is_generated(candidate.as_bytes()) {
            let cause = "the key was not looked up, because it could be guessed";
            return Err(Problem::from(Kind::KeyUnknown).because(cause));
        }
        let keys = &self.callers.keys;
        let found = keys
            .identify(candidate, shown.now)
            .map_err(|fault| self.refuse(fault))?;
        let Some(member) = self.callers.member(found.caller) else {
            return Err(Kind::KeyUnknown.into());
        };
        let name = &member.name;
        let refused = |kind: Kind, cause: String| {
            let problem = Problem::from(kind).because(cause);
            problem.of_caller(name.clone(), found.label())
        };
        if member.key_in_url != presented.is_in_url {
            let cause = match presented.is_in_url {
                true => format!("{found} of caller {name} is in the URL, where it is not valid"),
                false => format!("{found} of caller {name} is valid in the URL only"),
            };
            return Err(refused(Kind::KeyUnknown, cause));
        }
        if self.listed.binary_search(&found.caller).is_err() {
            let cause = format!("the route does not list caller {name} ({found})");
            return Err(refused(Kind::CallerNotAllowed, cause));
        }
        if let Err(outside) = member.networks.admit(shown.origin) {
            let cause = format!("caller {name} ({found}): {outside}");
            return Err(refused(Kind::AddressRefused, cause));
        }
        keys.note(&found);
        let caller = member.identified(found.caller, found.label());
        let Some(signer) = &member.signer else {
            return Ok(Identity::Known(caller));
        };
        let (scheme, url) = (signer.scheme(), shown.url());
        if let Err(why) = scheme.claim(shown.head(&url), (shown.now)()) {
            return Err(pending::refused(&caller, &why));
        }
        let candidates = vec![Signatory::new(caller, scheme)];
        Ok(Identity::Pending(Pending::new(candidates, url)))
    }

    fn refuse(&self, fault: KeyFault<'_>) -> Problem {
        match fault {
            KeyFault::Unknown(trace) => Problem::from(Kind::KeyUnknown).because(trace.to_string()),
            KeyFault::Lapsed { key, why } => {
                let Some(member) = self.callers.member(key.caller) else {
                    return Kind::KeyExpired.into();
                };
                Problem::from(Kind::KeyExpired)
                    .because(format!("{key} of caller {} {why}", member.name))
                    .of_caller(member.name.clone(), key.label())
            }
        }
    }
}

impl Proof for ByKey {
    fn identify(&self, shown: &Shown<'_>) -> Option<Result<Identity, Problem>> {
        match self.reader.read(shown.headers, shown.target, shown.path_key) {
            Ok(presented) => Some(self.look_up(&presented?, shown)),
            Err(problem) => Some(Err(problem)),
        }
    }

    fn missing(&self, _: Origin) -> Problem {
        let places = self.reader.places();
        Problem::from(Kind::KeyMissing)
            .detail(format!("The key is read in {places}."))
            .because(format!("no key in {places}, where the route reads it"))
    }
}
