//! Whose key it is: a table from digests to callers. The keys themselves are in no memory of ours; where in a
//! request a key is sent is read in `reader.rs`, and what its owner may call is decided in `caller.rs`.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac};
use hashbrown::HashTable;

use crate::model::{KeyLabel, Minute, Secret};
use crate::policy::key::form::KEY_BYTES_MAX;
use crate::policy::key::reader::Candidate;
use crate::policy::key::usage::{LastUses, Marks};
use crate::settings::{CallerSettings, Dates, KeyDigest, KeyList, KeyState, Terms};

/// All keys of all callers, by digest.
#[derive(Debug, Default)]
pub struct Keys {
    /// The keys of each caller, shared with its settings.
    lists: Box<[Arc<KeyList>]>,
    plain: Index,
    peppered: Option<Peppered>,
    uses: LastUses,
    /// Keys that were revoked, whatever the settings say of them.
    revoked: Marks,
}

/// Keys whose digests are made with the pepper.
#[derive(Debug)]
struct Peppered {
    pepper: hmac::Key,
    keys: Index,
}

/// Places of keys, by digest. The hash is keyed, so that the time of a look-up reveals nothing about the digests beside
/// it.
#[derive(Debug, Default)]
struct Index {
    places: HashTable<KeySlot>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct KeySlot {
    caller: u32,
    /// Its number among the keys of the caller.
    key: u32,
}

// A hundred thousand times over.
const _: () = assert!(size_of::<KeySlot>() == 8);

#[derive(Debug, Clone, Copy)]
pub struct Identified<'k> {
    /// Index of its caller in the settings.
    pub caller: usize,
    list: &'k KeyList,
    key: usize,
}

impl Identified<'_> {
    #[inline]
    pub fn label(&self) -> Option<KeyLabel> {
        self.list.label(self.key)
    }

    pub fn terms(&self) -> Option<Terms> {
        self.list.terms(self.key)
    }

    pub fn digest_start(&self) -> Option<DigestStart> {
        self.list.digest(self.key)?.as_bytes().first_chunk().copied()
    }
}

impl fmt::Display for Identified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.label() {
            Some(label) => write!(f, "key {label}"),
            None => f.write_str("key ?"),
        }
    }
}

#[derive(Debug)]
pub enum KeyFault<'k> {
    /// No caller has it. What is there of its digest lets an operator recognise it, and nobody recover it.
    Unknown(Trace),
    Lapsed {
        key: Identified<'k>,
        why: Lapse,
    },
}

/// The beginning of the digest of an unknown key, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    Sha256([u8; 4]),
    /// First bytes of its HMAC-SHA-256 under the pepper.
    HmacSha256([u8; 4]),
    TooLong,
    Unreadable,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(start) => write!(
                f,
                "no caller has the key sha256:{:08x}...",
                u32::from_be_bytes(*start)
            ),
            Self::HmacSha256(start) => {
                write!(
                    f,
                    "no caller has the key hmac-sha256:{:08x}...",
                    u32::from_be_bytes(*start)
                )
            }
            Self::TooLong => write!(f, "the key is longer than {KEY_BYTES_MAX} bytes"),
            Self::Unreadable => f.write_str("the Basic credentials cannot be decoded"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    Disabled,
    NotYetValid,
    Expired,
    /// It was revoked while the gateway ran.
    Revoked,
}

impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "is disabled",
            Self::NotYetValid => "is not valid yet",
            Self::Expired => "has expired",
            Self::Revoked => "was revoked",
        })
    }
}

impl Keys {
    /// Builds the table. A digest that two callers have belongs to the first; without a pepper nothing
    /// matches a peppered digest. The settings are checked for both.
    pub fn build(callers: &[CallerSettings], pepper: Option<&Secret>) -> Self {
        let lists: Box<[_]> = callers.iter().map(|caller| Arc::clone(&caller.keys)).collect();
        let plain = Index::build(&lists, |digest| matches!(digest, KeyDigest::Sha256(_)));
        let keys = Index::build(&lists, |digest| matches!(digest, KeyDigest::HmacSha256(_)));
        let peppered = pepper.filter(|_| !keys.is_empty()).map(|pepper| Peppered {
            pepper: hmac::Key::new(hmac::HMAC_SHA256, pepper.expose().as_bytes()),
            keys,
        });
        Self {
            uses: LastUses::new(lists.iter().map(|list| list.len())),
            revoked: Marks::new(lists.iter().map(|list| list.len())),
            lists,
            plain,
            peppered,
        }
    }

    /// Says whose key it is. The clock is read only for a key that has dates.
    pub fn identify(
        &self,
        candidate: &Candidate<'_>,
        now: impl FnOnce() -> SystemTime,
    ) -> Result<Identified<'_>, KeyFault<'_>> {
        let key = self.look_up(candidate).map_err(KeyFault::Unknown)?;
        if self.revoked.is_set(key.caller, key.key) {
            let why = Lapse::Revoked;
            return Err(KeyFault::Lapsed { key, why });
        }
        match key.list.terms(key.key).and_then(|terms| lapse(&terms, now)) {
            None => Ok(key),
            Some(why) => Err(KeyFault::Lapsed { key, why }),
        }
    }

    pub fn note(&self, key: &Identified<'_>) {
        self.uses.note(key.caller, key.key);
    }

    pub fn is_noted(&self, key: &Identified<'_>) -> bool {
        self.uses.is_noted(key.caller, key.key)
    }

    /// When a key let somebody in last, as far as that is known.
    pub(in crate::policy) fn last_use(&self, key: &Identified<'_>) -> Option<Minute> {
        self.uses.last(key.caller, key.key)
    }

    /// Uses are noted with this minute from now on.
    pub(in crate::policy) fn advance(&self, minute: Minute) {
        self.uses.advance(minute);
    }

    /// Notes when the key whose digest begins like this was used in an earlier run.
    pub(in crate::policy) fn recall(&self, start: &DigestStart, minute: Minute) {
        let peppered = self.peppered.as_ref().map(|peppered| &peppered.keys);
        let indices = [Some(&self.plain), peppered];
        let mut found = indices
            .into_iter()
            .flatten()
            .filter_map(|index| index.find_start(&self.lists, start));
        if let Some(place) = found.next() {
            self.uses
                .recall(place.caller as usize, place.key as usize, minute);
        }
    }

    /// Why a key is refused at this time, if it is.
    pub(in crate::policy) fn lapse(&self, key: &Identified<'_>, now: SystemTime) -> Option<Lapse> {
        if self.revoked.is_set(key.caller, key.key) {
            return Some(Lapse::Revoked);
        }
        lapse(&key.list.terms(key.key)?, || now)
    }

    /// The digest of the key of this caller with this label.
    pub(in crate::policy) fn digest(&self, caller: usize, label: &KeyLabel) -> Option<KeyDigest> {
        let mut all = self.all();
        let key = all.find(|key| key.caller == caller && key.label().as_ref() == Some(label))?;
        key.list.digest(key.key).copied()
    }

    /// Refuses all keys whose digests fit.
    pub(in crate::policy) fn revoke_all(&self, is_revoked: impl Fn(&KeyDigest) -> bool) {
        for key in self.all() {
            if key.list.digest(key.key).is_some_and(&is_revoked) {
                self.revoked.set(key.caller, key.key);
            }
        }
    }

    /// Takes over what is known of the uses of keys from an earlier table.
    pub(in crate::policy) fn carry_over(&self, earlier: &Self) {
        let is_known = |key: &Identified<'_>| earlier.is_noted(key) || earlier.last_use(key).is_some();
        for key in earlier.all().filter(is_known) {
            let Some(digest) = key.list.digest(key.key) else {
                continue;
            };
            let index = match (digest, &self.peppered) {
                (KeyDigest::Sha256(_), _) => &self.plain,
                (KeyDigest::HmacSha256(_), Some(peppered)) => &peppered.keys,
                (KeyDigest::HmacSha256(_), None) => continue,
            };
            if let Some(same) = index.find(&self.lists, digest.as_bytes()) {
                let (to, from) = ((same.caller, same.key), (key.caller, key.key));
                self.uses.carry_over(to, &earlier.uses, from);
            }
        }
    }

    pub(in crate::policy) fn all(&self) -> impl Iterator<Item = Identified<'_>> {
        self.lists.iter().enumerate().flat_map(|(caller, list)| {
            (0..list.len()).map(move |key| Identified {
                caller,
                list: list.as_ref(),
                key,
            })
        })
    }

    /// All keys that are valid at this time.
    pub fn in_force(&self, now: SystemTime) -> impl Iterator<Item = Identified<'_>> {
        self.all().filter(move |key| self.lapse(key, now).is_none())
    }

    fn look_up(&self, candidate: &Candidate<'_>) -> Result<Identified<'_>, Trace> {
        if matches!(candidate, Candidate::Unreadable) {
            return Err(Trace::Unreadable);
        }
        let key = candidate.as_bytes();
        if key.len() > KEY_BYTES_MAX {
            return Err(Trace::TooLong);
        }
        let mut trace = None;
        if !self.plain.is_empty() || self.peppered.is_none() {
            let digest = digest::digest(&digest::SHA256, key);
            trace = trace.or(start(digest.as_ref()).map(Trace::Sha256));
            if let Some(found) = self.plain.find(&self.lists, digest.as_ref()) {
                return Ok(found);
            }
        }
        if let Some(peppered) = &self.peppered {
            let digest = hmac::sign(&peppered.pepper, key);
            trace = trace.or(start(digest.as_ref()).map(Trace::HmacSha256));
            if let Some(found) = peppered.keys.find(&self.lists, digest.as_ref()) {
                return Ok(found);
            }
        }
        Err(trace.unwrap_or(Trace::Unreadable))
    }
}

impl Index {
    /// The places of the keys whose digest is `wanted`, the first of those with the same.
    fn build(lists: &[Arc<KeyList>], wanted: impl Fn(&KeyDigest) -> bool) -> Self {
        let all = || {
            lists.iter().zip(0..).flat_map(|(list, caller)| {
                let places = (0..).map(move |key| KeySlot { caller, key });
                places
                    .take(list.len())
                    .filter_map(|place| Some((place, place.digest(lists)?)))
            })
        };
        let all = || all().filter(|(_, digest)| wanted(digest));
        let hasher = RandomState::new();
        let hash = |digest: &KeyDigest| {
            digest
                .as_bytes()
                .first_chunk()
                .map_or(0, |start| hash(&hasher, start))
        };
        // Counted first: a table that grows is up to twice too large, and leaves its smaller selves behind.
        let mut places = HashTable::with_capacity(all().count());
        for (place, digest) in all() {
            let same = |other: &KeySlot| other.digest(lists) == Some(digest);
            let rehash = |other: &KeySlot| other.digest(lists).map_or(0, hash);
            places.entry(hash(digest), same, rehash).or_insert(place);
        }
        Self { places, hasher }
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The key with this digest. Two digests are compared in the same time wherever they differ.
    fn find<'k>(&self, lists: &'k [Arc<KeyList>], digest: &[u8]) -> Option<Identified<'k>> {
        let digest: &[u8; 32] = digest.try_into().ok()?;
        let same = |place: &KeySlot| {
            place
                .digest(lists)
                .is_some_and(|known| verify_slices_are_equal(known.as_bytes(), digest).is_ok())
        };
        let place = self
            .places
            .find(hash(&self.hasher, digest.first_chunk()?), same)?;
        Some(Identified {
            caller: place.caller as usize,
            list: place.list(lists)?,
            key: place.key as usize,
        })
    }

    /// The key whose digest begins like this.
    fn find_start(&self, lists: &[Arc<KeyList>], start: &DigestStart) -> Option<KeySlot> {
        let same = |place: &KeySlot| {
            place
                .digest(lists)
                .is_some_and(|known| known.as_bytes().starts_with(start))
        };
        self.places
            .find(hash(&self.hasher, start.first_chunk()?), same)
            .copied()
    }
}

/// Enough of a digest to distinguish any number of keys.
pub type DigestStart = [u8; 16];

// A digest is as good as random, so that its beginning distinguishes keys as well as the whole.
fn hash(hasher: &RandomState, start: &[u8; 8]) -> u64 {
    hasher.hash_one(u64::from_ne_bytes(*start))
}

impl KeySlot {
    fn list(self, lists: &[Arc<KeyList>]) -> Option<&KeyList> {
        lists.get(self.caller as usize).map(Arc::as_ref)
    }

    fn digest(self, lists: &[Arc<KeyList>]) -> Option<&KeyDigest> {
        self.list(lists)?.digest(self.key as usize)
    }
}

fn lapse(terms: &Terms, now: impl FnOnce() -> SystemTime) -> Option<Lapse> {
    if terms.state == KeyState::Disabled {
        return Some(Lapse::Disabled);
    }
    let Dates { not_before, expires } = terms.dates?;
    let now = now();
    if not_before.is_some_and(|first| now < first) {
        return Some(Lapse::NotYetValid);
    }
    expires.is_some_and(|end| now >= end).then_some(Lapse::Expired)
}

fn start(digest: &[u8]) -> Option<[u8; 4]> {
    digest.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use aws_lc_rs::{digest, hmac};

    use super::{Candidate, KEY_BYTES_MAX, KeyFault, Keys, Lapse, Trace};
    use crate::model::{CallerName, KeyLabel, Secret};
    use crate::settings::{CallerSettings, KeyDigest, KeySettings, KeyState};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn sha256(key: &str) -> KeyDigest {
        KeyDigest::Sha256(
            digest::digest(&digest::SHA256, key.as_bytes())
                .as_ref()
                .try_into()
                .unwrap(),
        )
    }

    fn peppered(key: &str) -> KeyDigest {
        let pepper = hmac::Key::new(hmac::HMAC_SHA256, b"pepper");
        KeyDigest::HmacSha256(hmac::sign(&pepper, key.as_bytes()).as_ref().try_into().unwrap())
    }

    fn key(label: &str, digest: KeyDigest) -> KeySettings {
        KeySettings::new(KeyLabel::parse(label).unwrap(), digest)
    }

    fn caller(name: &str, keys: Vec<KeySettings>) -> CallerSettings {
        CallerSettings {
            keys: Arc::new(keys.into_iter().collect()),
            ..CallerSettings::new(CallerName::parse(name).unwrap())
        }
    }

    fn identify<'k>(keys: &'k Keys, key: &str) -> Result<(usize, String), KeyFault<'k>> {
        let found = keys.identify(&Candidate::Plain(key.as_bytes()), || NOW)?;
        Ok((found.caller, found.label().unwrap().to_string()))
    }

    fn lapse(key: KeySettings) -> Option<Lapse> {
        let keys = Keys::build(&[caller("erp", vec![key])], None);
        match identify(&keys, "k1") {
            Ok(_) => None,
            Err(KeyFault::Lapsed { why, .. }) => Some(why),
            Err(KeyFault::Unknown(trace)) => panic!("{trace}"),
        }
    }

    #[test]
    fn a_key_leads_to_its_caller_and_label() {
        let callers = [
            caller("erp", vec![key("old", sha256("k1")), key("new", sha256("k2"))]),
            caller("shop", vec![key("only", peppered("k3"))]),
        ];
        let keys = Keys::build(&callers, Some(&Secret::new("pepper")));
        assert_eq!(identify(&keys, "k1").unwrap(), (0, "old".to_owned()));
        assert_eq!(identify(&keys, "k2").unwrap(), (0, "new".to_owned()));
        assert_eq!(identify(&keys, "k3").unwrap(), (1, "only".to_owned()));
        assert!(identify(&keys, "k4").is_err());
    }

    #[test]
    fn each_of_many_keys_leads_to_its_own_caller_and_label() {
        let name = |number: usize| format!("k{number}");
        let callers: Vec<_> = (0..5)
            .map(|caller| {
                let numbers = (0..1000).map(|number| caller * 1000 + number);
                let keys = numbers.map(|number| key(&name(number), sha256(&name(number))));
                self::caller(&name(caller), keys.collect())
            })
            .collect();
        let keys = Keys::build(&callers, None);
        for number in 0..5000 {
            assert_eq!(
                identify(&keys, &name(number)).unwrap(),
                (number / 1000, name(number))
            );
        }
        assert!(identify(&keys, &name(5000)).is_err());
    }

    #[test]
    fn a_key_in_force_is_unused_until_it_lets_somebody_in() {
        let disabled = KeySettings {
            state: KeyState::Disabled,
            ..key("off", sha256("k2"))
        };
        let callers = [
            caller("erp", vec![key("one", sha256("k1")), disabled]),
            caller("shop", vec![key("two", sha256("k3"))]),
        ];
        let keys = Keys::build(&callers, None);
        let unused = || {
            let all = keys.in_force(NOW).filter(|key| !keys.is_noted(key));
            all.map(|key| (key.caller, key.label().unwrap().to_string()))
                .collect::<Vec<_>>()
        };
        assert_eq!(unused(), [(0, "one".to_owned()), (1, "two".to_owned())]);
        let found = keys.identify(&Candidate::Plain(b"k3"), || NOW).unwrap();
        keys.note(&found);
        assert_eq!(unused(), [(0, "one".to_owned())]);
    }

    #[test]
    fn a_key_that_two_callers_have_belongs_to_the_first() {
        let callers = ["erp", "shop"].map(|name| caller(name, vec![key(name, sha256("k1"))]));
        let keys = Keys::build(&callers, None);
        assert_eq!(identify(&keys, "k1").unwrap(), (0, "erp".to_owned()));
    }

    #[test]
    fn an_unknown_key_leaves_the_start_of_its_digest() {
        let trace = |keys: &Keys| match identify(keys, "hello").unwrap_err() {
            KeyFault::Unknown(trace) => trace.to_string(),
            KeyFault::Lapsed { why, .. } => panic!("{why}"),
        };
        // The digest of "hello" as sha256sum prints it.
        assert_eq!(
            trace(&Keys::default()),
            "no caller has the key sha256:2cf24dba..."
        );
        let peppered = Keys::build(
            &[caller("a", vec![key("x", peppered("k"))])],
            Some(&Secret::new("pepper")),
        );
        assert!(trace(&peppered).starts_with("no caller has the key hmac-sha256:"));
    }

    #[test]
    fn without_the_pepper_no_peppered_key_is_known() {
        let callers = [caller("erp", vec![key("x", peppered("k1"))])];
        assert!(identify(&Keys::build(&callers, None), "k1").is_err());
        assert!(identify(&Keys::build(&callers, Some(&Secret::new("salt"))), "k1").is_err());
        assert!(identify(&Keys::build(&callers, Some(&Secret::new("pepper"))), "k1").is_ok());
    }

    #[test]
    fn a_digest_is_not_its_own_key() {
        let keys = Keys::build(&[caller("erp", vec![key("x", sha256("k1"))])], None);
        let KeyDigest::Sha256(digest) = sha256("k1") else {
            unreachable!()
        };
        assert!(keys.identify(&Candidate::Plain(&digest), || NOW).is_err());
    }

    #[test]
    fn an_overlong_key_is_unknown() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        let longer = "k".repeat(KEY_BYTES_MAX + 1);
        let callers = [caller(
            "erp",
            vec![key("a", sha256(&longest)), key("b", sha256(&longer))],
        )];
        let keys = Keys::build(&callers, None);
        assert!(identify(&keys, &longest).is_ok());
        assert!(matches!(
            identify(&keys, &longer),
            Err(KeyFault::Unknown(Trace::TooLong))
        ));
    }

    #[test]
    fn unreadable_credentials_are_unknown() {
        let keys = Keys::build(&[caller("erp", vec![key("x", sha256(""))])], None);
        let fault = keys.identify(&Candidate::Unreadable, || NOW).unwrap_err();
        assert!(matches!(fault, KeyFault::Unknown(Trace::Unreadable)));
    }

    #[test]
    fn a_key_holds_from_its_first_moment_to_before_its_last() {
        let second = Duration::from_secs(1);
        let dated = |not_before, expires| {
            lapse(KeySettings {
                not_before: Some(not_before),
                expires: Some(expires),
                ..key("x", sha256("k1"))
            })
        };
        assert_eq!(dated(NOW, NOW + second), None);
        assert_eq!(dated(NOW + second, NOW + 2 * second), Some(Lapse::NotYetValid));
        assert_eq!(dated(NOW - second, NOW), Some(Lapse::Expired));
    }

    #[test]
    fn a_key_with_one_date_holds_on_the_other_side_for_ever() {
        let second = Duration::from_secs(1);
        let lapse = |not_before, expires| {
            lapse(KeySettings {
                not_before,
                expires,
                ..key("x", sha256("k1"))
            })
        };
        assert_eq!(lapse(Some(NOW), None), None);
        assert_eq!(lapse(Some(NOW + second), None), Some(Lapse::NotYetValid));
        assert_eq!(lapse(None, Some(NOW + second)), None);
        assert_eq!(lapse(None, Some(NOW)), Some(Lapse::Expired));
    }

    #[test]
    fn a_disabled_key_does_not_hold() {
        let disabled = KeySettings {
            state: KeyState::Disabled,
            ..key("x", sha256("k1"))
        };
        assert_eq!(lapse(disabled), Some(Lapse::Disabled));
    }

    #[test]
    fn the_clock_is_not_read_for_a_key_without_dates() {
        let keys = Keys::build(&[caller("erp", vec![key("x", sha256("k1"))])], None);
        assert!(
            keys.identify(&Candidate::Plain(b"k1"), || panic!("clock was read"))
                .is_ok()
        );
    }
}
