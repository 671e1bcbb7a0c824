//! The keys of one caller, packed: there may be a hundred thousand of them, and they stay as long as the gateway runs.
//! The table that finds them (`policy/key/table.rs`) shares them with the settings they came with.

use std::fmt;
use std::num::NonZeroU32;
use std::time::SystemTime;

use crate::model::{KeyLabel, LabelPlace, Labels};
use crate::settings::KeyDigest;

#[derive(Debug, Clone)]
pub struct KeySettings {
    pub label: KeyLabel,
    pub digest: KeyDigest,
    pub not_before: Option<SystemTime>,
    pub expires: Option<SystemTime>,
    pub state: KeyState,
}

impl KeySettings {
    pub fn new(label: KeyLabel, digest: KeyDigest) -> Self {
        Self {
            label,
            digest,
            not_before: None,
            expires: None,
            state: KeyState::Enabled,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    Enabled,
    /// Refused, and named in the log when it is shown.
    Disabled,
}

/// Room that is made for a label before the labels are known.
const LABEL_BYTES: usize = 12;

/// Keys in the order they were given.
#[derive(Clone, Default)]
pub struct KeyList {
    entries: Vec<Entry>,
    labels: Labels,
    dates: Vec<Dates>,
}

#[derive(Clone)]
struct Entry {
    digest: KeyDigest,
    state: KeyState,
    label: LabelPlace,
    /// Which of `dates`, counted from 1; most keys have none.
    dates: Option<NonZeroU32>,
}

/// When a key holds.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub state: KeyState,
    pub dates: Option<Dates>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dates {
    pub not_before: Option<SystemTime>,
    pub expires: Option<SystemTime>,
}

// A hundred thousand times over.
const _: () = assert!(size_of::<Entry>() <= 48);

impl KeyList {
    pub fn reserve(&mut self, keys: usize) {
        self.entries.reserve_exact(keys);
        self.labels.reserve(keys.saturating_mul(LABEL_BYTES));
    }

    pub fn shrink_to_fit(&mut self) {
        self.entries.shrink_to_fit();
        self.labels.shrink_to_fit();
        self.dates.shrink_to_fit();
    }

    pub fn push(&mut self, key: &KeySettings) {
        let dates = Dates {
            not_before: key.not_before,
            expires: key.expires,
        };
        let entry = Entry {
            digest: key.digest,
            state: key.state,
            label: self.labels.push(&key.label),
            dates: self.add_dates(dates),
        };
        self.entries.push(entry);
    }

    fn add_dates(&mut self, dates: Dates) -> Option<NonZeroU32> {
        if dates.not_before.is_none() && dates.expires.is_none() {
            return None;
        }
        // Keys created on the same day are usually adjacent, so comparing with the last entry is enough.
        if self.dates.last() != Some(&dates) {
            self.dates.push(dates);
        }
        // The lists they come from are far smaller than 4 GiB.
        Some(NonZeroU32::try_from(u32::try_from(self.dates.len()).ok()?).unwrap_or(NonZeroU32::MAX))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<KeySettings> {
        let Terms { state, dates } = self.terms(index)?;
        Some(KeySettings {
            label: self.label(index)?,
            digest: *self.digest(index)?,
            not_before: dates.and_then(|dates| dates.not_before),
            expires: dates.and_then(|dates| dates.expires),
            state,
        })
    }

    #[inline]
    pub fn digest(&self, index: usize) -> Option<&KeyDigest> {
        self.entries.get(index).map(|entry| &entry.digest)
    }

    #[inline]
    pub fn label(&self, index: usize) -> Option<KeyLabel> {
        self.labels.get(self.entries.get(index)?.label)
    }

    #[inline]
    pub fn terms(&self, index: usize) -> Option<Terms> {
        let entry = self.entries.get(index)?;
        let dates = entry
            .dates
            .and_then(|number| self.dates.get(number.get() as usize - 1).copied());
        Some(Terms {
            state: entry.state,
            dates,
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = KeySettings> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl FromIterator<KeySettings> for KeyList {
    fn from_iter<I: IntoIterator<Item = KeySettings>>(keys: I) -> Self {
        let mut list = Self::default();
        keys.into_iter().for_each(|key| list.push(&key));
        list.shrink_to_fit();
        list
    }
}

impl fmt::Debug for KeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::{KeyList, KeySettings, KeyState};
    use crate::model::KeyLabel;
    use crate::settings::KeyDigest;

    fn day(number: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(number * 86_400))
    }

    fn key(label: &str, not_before: Option<SystemTime>, expires: Option<SystemTime>) -> KeySettings {
        KeySettings {
            not_before,
            expires,
            ..KeySettings::new(
                KeyLabel::parse(label).unwrap(),
                KeyDigest::of(label.as_bytes(), None),
            )
        }
    }

    #[test]
    fn keys_come_back_as_they_were_given() {
        let disabled = KeySettings {
            state: KeyState::Disabled,
            digest: KeyDigest::HmacSha256([7; 32]),
            ..key("off", None, day(1))
        };
        let keys = [
            key("plain", None, None),
            key("dated", day(1), day(2)),
            key("dated-too", day(1), day(2)),
            disabled,
            key("late", day(1), None),
            key("last", None, None),
        ];
        let list: KeyList = keys.iter().cloned().collect();
        assert_eq!((list.len(), list.is_empty()), (6, false));
        assert_eq!(format!("{list:?}"), format!("{keys:?}"));
        for (index, key) in keys.iter().enumerate() {
            assert!(
                list.digest(index) == Some(&key.digest) && list.label(index).as_ref() == Some(&key.label)
            );
        }
        assert!(list.get(6).is_none() && list.digest(6).is_none() && list.label(6).is_none());
    }

    #[test]
    fn keys_of_one_day_share_their_dates() {
        let list: KeyList = (0..9)
            .map(|number| key(&format!("k{number}"), day(1), day(number / 3)))
            .collect();
        assert_eq!(list.dates.len(), 3);
    }
}
