//! The network of a caller that has no keys. The last kind of a route, because every request has an address.

use std::sync::Arc;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use crate::policy::address::Origin;
use crate::policy::caller::Callers;
use crate::policy::proof::shown::{Identity, Proof, Shown};
use crate::problem::{Kind, Problem};
use crate::settings::CallerSettings;

#[derive(Debug)]
pub(in crate::policy) struct ByNetwork {
    callers: Arc<Callers>,
    /// Indices of the route's callers without keys; those of one network in the order of the route.
    networks: JointPrefixMap<IpNet, Vec<usize>>,
}

impl ByNetwork {
    pub(in crate::policy) fn build(
        listed: &[usize],
        settings: &[CallerSettings],
        callers: &Arc<Callers>,
    ) -> Self {
        let mut networks: JointPrefixMap<IpNet, Vec<usize>> = JointPrefixMap::new();
        for &index in listed {
            let caller = settings.get(index).filter(|caller| caller.is_known_by_network());
            for network in caller.map_or(&[][..], |caller| &caller.networks.allow) {
                networks.entry(**network).or_default().push(index);
            }
        }
        Self {
            callers: callers.clone(),
            networks,
        }
    }
}

impl Proof for ByNetwork {
    fn identify(&self, shown: &Shown<'_>) -> Option<Result<Identity, Problem>> {
        let origin = shown.origin;
        // From the widest network to the narrowest; at most one for each length of a prefix.
        let mut narrowest = None;
        for indices in self.networks.cover_values(&IpNet::from(origin.address())) {
            let fitting = indices.iter().find_map(|&index| {
                let member = self.callers.member(index)?;
                member.networks.admit(origin).is_ok().then_some((index, member))
            });
            narrowest = fitting.or(narrowest);
        }
        narrowest.map(|(index, member)| Ok(Identity::Known(member.identified(index, None))))
    }

    fn missing(&self, origin: Origin) -> Problem {
        let cause = format!("{origin} is in no network of the route's callers");
        Problem::from(Kind::AddressRefused).because(cause)
    }
}
