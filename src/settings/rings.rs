//! Detects duplicate labels and digests while the keys of all callers are read, and records where each key is set. With a
//! hundred thousand keys every copy would cost noticeable memory, so the tables hold positions instead of keys.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::model::{KeyLabel, room};
use crate::settings::findings::Mark;
use crate::settings::{KeyDigest, KeyList, KeyState};

/// What callers have to agree about.
pub(super) struct Shared {
    /// One for each caller so far; the last belongs to the caller that is looked at.
    pub(super) rings: Vec<Ring>,
    /// The first key with each digest.
    pub(super) digests: HashTable<KeyPlace>,
    pub(super) hasher: RandomState,
    pub(super) files: HashMap<PathBuf, Mark>,
    pub(super) pepper: Pepper,
    /// That of the caller that is looked at.
    pub(super) state: KeyState,
}

/// A key among those of all callers.
#[derive(Clone, Copy)]
pub(super) struct KeyPlace {
    pub(super) ring: u32,
    pub(super) key: u32,
}

/// Whether keys may be given by their HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pepper {
    Given,
    Absent,
    /// Absent, and said so.
    Missed,
}

/// The keys of one caller so far.
#[derive(Default)]
pub(super) struct Ring {
    pub(super) keys: KeyList,
    /// The position of each key in the settings.
    pub(super) marks: Vec<KeyMarks>,
    /// The first key with each label.
    pub(super) labels: HashTable<u32>,
}

#[derive(Clone, Copy)]
pub(super) struct KeyMarks {
    pub(super) label: Mark,
    pub(super) digest: Mark,
}

impl Ring {
    /// Records the label of the next key, and returns the position of the first key with the same label.
    pub(super) fn note_label(&mut self, label: &KeyLabel, hasher: &RandomState) -> Option<Mark> {
        let next = short(self.keys.len());
        let of = |key: &u32| self.keys.label(*key as usize);
        let entry = self.labels.entry(
            hasher.hash_one(Some(label)),
            |key| of(key).as_ref() == Some(label),
            |key| hasher.hash_one(of(key)),
        );
        match entry {
            Entry::Occupied(first) => self.marks.get(*first.get() as usize).map(|marks| marks.label),
            Entry::Vacant(place) => {
                place.insert(next);
                None
            }
        }
    }
}

impl Shared {
    /// Records the digest of the next key, and returns the position of the first key with the same digest.
    pub(super) fn note_digest(&mut self, digest: &KeyDigest) -> Option<Mark> {
        let (rings, hasher) = (&self.rings, &self.hasher);
        let ring = |place: &KeyPlace| rings.get(place.ring as usize);
        let of = |place: &KeyPlace| ring(place)?.keys.digest(place.key as usize);
        let next = KeyPlace {
            ring: short(rings.len().saturating_sub(1)),
            key: short(rings.last()?.keys.len()),
        };
        let entry = self.digests.entry(
            hasher.hash_one(Some(digest)),
            |place| of(place) == Some(digest),
            |place| hasher.hash_one(of(place)),
        );
        match entry {
            Entry::Occupied(first) => {
                let marks = ring(first.get())?.marks.get(first.get().key as usize);
                marks.map(|marks| marks.digest)
            }
            Entry::Vacant(place) => {
                place.insert(next);
                None
            }
        }
    }

    /// Makes room for so many keys of the caller that is looked at: what grows step by step leaves holes behind.
    pub(super) fn reserve(&mut self, keys: usize) {
        let (rings, hasher) = (&self.rings, &self.hasher);
        self.digests.reserve(keys, |place| {
            let ring = rings.get(place.ring as usize);
            hasher.hash_one(ring.and_then(|ring| ring.keys.digest(place.key as usize)))
        });
        let Some(Ring {
            keys: list,
            marks,
            labels,
        }) = self.rings.last_mut()
        else {
            return;
        };
        list.reserve(keys);
        labels.reserve(keys, |key| hasher.hash_one(list.label(*key as usize)));
        let mut roomy = room::passing(marks.len() + keys);
        roomy.append(marks);
        *marks = roomy;
    }
}

// No file that is read holds so many keys, nor so many callers.
pub(super) fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
