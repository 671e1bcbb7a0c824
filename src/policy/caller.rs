//! Who the callers are: their names, networks and keys, built once from the settings.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use crate::model::{CallerName, Holder, KeyLabel, Minute, Registry, Secret};
use crate::policy::address::{Networks, Origin, OutsideNetworks};
use crate::policy::key::{DigestStart, Identified, Keys, Lapse};
use crate::policy::proof::signature::{Signer, SignerError};
use crate::settings::{CallerSettings, KeyDigest};

#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name; `anonymous` on a route that is open to everybody.
    pub name: CallerName,
    /// The label of the key that identified it, if one did.
    pub label: Option<KeyLabel>,
    /// Its index in the settings; none for the anonymous caller.
    pub index: Option<usize>,
    /// Its number, which outlives the settings; none is used for the anonymous caller.
    pub(super) number: usize,
    /// What its signature says, if its request was signed.
    pub signed: Option<Box<Signed>>,
}

#[derive(Debug, Clone)]
pub struct Signed {
    /// The label of the secret.
    pub with: KeyLabel,
    /// The id of the delivery, where the signature has one.
    pub delivery: Option<String>,
}

impl Caller {
    pub(super) fn anonymous() -> Self {
        Self {
            name: CallerName::anonymous(),
            label: None,
            index: None,
            number: 0,
            signed: None,
        }
    }

    /// Whose share its requests use: its own, or where callers are not known, that of its address.
    pub fn holder(&self, origin: Origin) -> Holder {
        match self.index {
            Some(_) => Holder::Caller(self.number),
            None => origin.bucket().into(),
        }
    }
}

/// Numbers of callers that stay the same when the settings change, by name.
#[derive(Debug, Default)]
pub struct CallerNumbers {
    numbers: Registry<CallerName, usize>,
    next: AtomicUsize,
}

impl CallerNumbers {
    fn of(&self, name: &CallerName) -> Arc<usize> {
        let next = || self.next.fetch_add(1, Ordering::Relaxed);
        self.numbers.share(name.clone(), next)
    }

    /// Forgets callers that no settings have any more.
    pub fn sweep(&self) {
        self.numbers.sweep();
    }
}

#[derive(Debug, Default)]
pub struct Callers {
    members: Box<[Member]>,
    by_name: HashMap<CallerName, usize>,
    pub(super) keys: Keys,
}

#[derive(Debug)]
pub(super) struct Member {
    pub name: CallerName,
    number: Arc<usize>,
    pub networks: Networks,
    pub has_keys: bool,
    /// Its keys are accepted in the URL, and nowhere else.
    pub key_in_url: bool,
    /// What its requests must be signed with.
    pub signer: Option<Arc<Signer>>,
}

impl Callers {
    /// Builds the callers; their order is that of the settings, and an index there is an index here.
    ///
    /// # Errors
    /// A secret of a signature that is none.
    pub fn build(
        callers: &[CallerSettings],
        pepper: Option<&Secret>,
        numbers: &CallerNumbers,
    ) -> Result<Self, SignerError> {
        let names = callers.iter().map(|caller| caller.name.clone());
        let member = |caller| Member::new(caller, numbers);
        Ok(Self {
            members: callers.iter().map(member).collect::<Result<_, _>>()?,
            by_name: names.zip(0..).collect(),
            keys: Keys::build(callers, pepper),
        })
    }

    /// What the requests of a caller must be signed with.
    pub fn signer(&self, name: &CallerName) -> Option<&Arc<Signer>> {
        self.member(*self.by_name.get(name)?)?.signer.as_ref()
    }

    /// Lets an origin in as that of a caller, or returns which of its lists refuses it.
    pub fn admit(&self, name: &CallerName, origin: Origin) -> Result<(), OutsideNetworks> {
        let member = self.by_name.get(name).and_then(|index| self.member(*index));
        member.map_or(Ok(()), |member| member.networks.admit(origin))
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
        self.with_names(self.keys.in_force(now))
    }

    /// All keys in the order of the settings, and whose they are.
    pub fn all_keys(&self) -> impl Iterator<Item = (&CallerName, Identified<'_>)> {
        self.with_names(self.keys.all())
    }

    fn with_names<'k>(
        &'k self,
        keys: impl Iterator<Item = Identified<'k>>,
    ) -> impl Iterator<Item = (&'k CallerName, Identified<'k>)> {
        keys.filter_map(|key| Some((&self.members.get(key.caller)?.name, key)))
    }

    pub fn has(&self, caller: &CallerName) -> bool {
        self.by_name.contains_key(caller)
    }

    /// Why a key is refused at this time, if it is.
    pub fn lapse(&self, key: &Identified<'_>, now: SystemTime) -> Option<Lapse> {
        self.keys.lapse(key, now)
    }

    /// When a key let somebody in last, as far as that is known.
    pub fn last_use(&self, key: &Identified<'_>) -> Option<Minute> {
        self.keys.last_use(key)
    }

    /// Uses of keys are noted with this minute from now on.
    pub fn advance(&self, minute: Minute) {
        self.keys.advance(minute);
    }

    /// Notes when the key whose digest begins like this was used in an earlier run.
    pub fn recall(&self, start: &DigestStart, minute: Minute) {
        self.keys.recall(start, minute);
    }

    /// Whether a key has let anybody in since the gateway started.
    pub fn has_used(&self, key: &Identified<'_>) -> bool {
        self.keys.is_noted(key)
    }

    /// The digest of a key, if the caller has it.
    pub fn digest(&self, caller: &CallerName, label: &KeyLabel) -> Option<KeyDigest> {
        self.keys.digest(*self.by_name.get(caller)?, label)
    }

    /// Refuses all keys whose digests fit.
    pub fn revoke_all(&self, is_revoked: impl Fn(&KeyDigest) -> bool) {
        self.keys.revoke_all(is_revoked);
    }

    /// Takes over what is known of the uses of keys under earlier settings.
    pub fn carry_over(&self, earlier: &Self) {
        self.keys.carry_over(&earlier.keys);
    }
}

impl Member {
    fn new(settings: &CallerSettings, numbers: &CallerNumbers) -> Result<Self, SignerError> {
        let signer = settings
            .signature
            .as_ref()
            .map(|signature| Signer::build(&settings.name, signature));
        let signer = signer.transpose()?.map(Arc::new);
        Ok(Self {
            name: settings.name.clone(),
            number: numbers.of(&settings.name),
            networks: Networks::build(&settings.networks),
            has_keys: !settings.keys.is_empty(),
            key_in_url: settings.key_in_url,
            signer,
        })
    }

    /// This caller, known by one of its keys or by its network.
    pub(super) fn identified(&self, index: usize, label: Option<KeyLabel>) -> Caller {
        Caller {
            name: self.name.clone(),
            label,
            index: Some(index),
            number: *self.number,
            signed: None,
        }
    }
}
