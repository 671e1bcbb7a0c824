//! Who the callers are: their names, networks and keys, built once from the settings.

use std::collections::HashMap;
use std::time::SystemTime;

use ipnet::IpNet;

use crate::model::{CallerName, Holder, KeyLabel, Secret};
use crate::policy::address::{Networks, Origin, canonical};
use crate::policy::key::{Identified, Keys};
use crate::settings::CallerSettings;

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name; `anonymous` on a route that is open to everybody.
    pub name: CallerName,
    /// The label of the key that identified it, if one did.
    pub label: Option<KeyLabel>,
    /// Its index in the settings; none for the anonymous caller.
    pub index: Option<usize>,
}

impl Caller {
    /// Whose share its requests use: its own, or where callers are not known, that of its address.
    pub fn holder(&self, origin: Origin) -> Holder {
        self.index.map_or_else(|| origin.bucket().into(), Holder::Caller)
    }
}

/// All callers with their keys and networks.
#[derive(Debug, Default)]
pub struct Callers {
    members: Box<[Member]>,
    by_name: HashMap<CallerName, usize>,
    pub(super) keys: Keys,
}

/// One caller of the settings.
#[derive(Debug)]
pub(super) struct Member {
    pub name: CallerName,
    pub networks: Networks,
    /// The networks that alone identify it; none for a caller with keys.
    pub identified_by: Option<Box<[IpNet]>>,
}

impl Callers {
    /// Builds the callers; their order is that of the settings, and an index there is an index here.
    pub fn build(callers: &[CallerSettings], pepper: Option<&Secret>) -> Self {
        let names = callers.iter().map(|caller| caller.name.clone());
        Self {
            members: callers.iter().map(Member::new).collect(),
            by_name: names.zip(0..).collect(),
            keys: Keys::build(callers, pepper),
        }
    }

    /// The indices of callers with these names; a name that no caller has is left out.
    pub(super) fn named(&self, names: &[CallerName]) -> Vec<usize> {
        names
            .iter()
            .filter_map(|name| self.by_name.get(name).copied())
            .collect()
    }

    pub(super) fn member(&self, index: usize) -> Option<&Member> {
        self.members.get(index)
    }

    /// All keys that are valid at this time, and whose they are.
    pub fn keys_in_force(&self, now: SystemTime) -> impl Iterator<Item = (&CallerName, Identified<'_>)> {
        let all = self.keys.in_force(now);
        all.filter_map(|key| Some((&self.members.get(key.caller)?.name, key)))
    }

    /// Whether a key has let anybody in since the table was built.
    pub fn has_used(&self, key: &Identified<'_>) -> bool {
        self.keys.is_noted(key)
    }
}

impl Member {
    fn new(settings: &CallerSettings) -> Self {
        let allowed = || settings.networks.allow.iter().copied().map(canonical);
        Self {
            name: settings.name.clone(),
            networks: Networks::build(&settings.networks),
            identified_by: settings.keys.is_empty().then(|| allowed().collect()),
        }
    }

    /// This caller, known by one of its keys or by its network.
    pub(super) fn identified(&self, index: usize, label: Option<KeyLabel>) -> Caller {
        Caller {
            name: self.name.clone(),
            label,
            index: Some(index),
        }
    }
}
