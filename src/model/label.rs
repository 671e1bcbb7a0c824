//! Labels of keys. A single label is stored inline, so that passing it on touches no shared memory; many are
//! stored in one block, because there may be a hundred thousand of them.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::model::{NAME_BYTES_MAX, NameError, check_name};

/// Label of one key of a caller: distinguishes keys in log and headers without revealing them.
#[derive(Clone)]
pub struct KeyLabel {
    /// The text, followed by unused bytes.
    bytes: [u8; NAME_BYTES_MAX],
    length: u8,
}

impl KeyLabel {
    /// Accepts a name that is safe as a header value, a metric label and a log field.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_name(text)?;
        Self::of(text.as_bytes()).ok_or(NameError)
    }

    /// A label of bytes that were checked before.
    #[inline]
    fn of(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self {
            bytes,
            length: u8::try_from(text.len()).ok()?,
        })
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    pub fn as_str(&self) -> &str {
        // It was created from valid UTF-8.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl PartialEq for KeyLabel {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for KeyLabel {}

impl Hash for KeyLabel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Many labels, stored one after another.
#[derive(Clone, Default)]
pub struct Labels(Vec<u8>);

#[derive(Debug, Clone, Copy)]
pub struct LabelPlace {
    start: u32,
    length: u8,
}

impl Labels {
    pub fn reserve(&mut self, bytes: usize) {
        self.0.reserve_exact(bytes);
    }

    pub fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    pub fn push(&mut self, label: &KeyLabel) -> LabelPlace {
        // The lists they come from are far smaller than 4 GiB.
        let start = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(label.as_bytes());
        LabelPlace {
            start,
            length: label.length,
        }
    }

    #[inline]
    pub fn get(&self, place: LabelPlace) -> Option<KeyLabel> {
        let rest = self.0.get(place.start as usize..)?;
        // A copy whose length the compiler knows takes a few instructions; only the last labels need the
        // other way.
        match rest.first_chunk() {
            Some(bytes) => Some(KeyLabel {
                bytes: *bytes,
                length: place.length,
            }),
            None => KeyLabel::of(rest.get(..usize::from(place.length))?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyLabel, Labels};
    use crate::model::{NAME_BYTES_MAX, NameError};

    fn label(text: &str) -> KeyLabel {
        KeyLabel::parse(text).unwrap()
    }

    #[test]
    fn a_label_has_as_many_bytes_as_a_name() {
        let longest = "x".repeat(NAME_BYTES_MAX);
        assert_eq!(label(&longest).as_str(), longest);
        assert_eq!(label(&longest).to_string(), longest);
        for bad in ["", "a b", "a\0", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(KeyLabel::parse(bad), Err(NameError), "{bad:?}");
        }
    }

    #[test]
    fn labels_come_back_from_their_place() {
        let mut all = Labels::default();
        let texts = ["first", "s", "s", &"x".repeat(NAME_BYTES_MAX), "last"];
        let places = texts.map(|text| all.push(&label(text)));
        for (place, text) in places.into_iter().zip(texts) {
            assert_eq!(all.get(place), Some(label(text)));
            assert_eq!(all.get(place).unwrap().as_str(), text);
        }
        assert_eq!(Labels::default().get(places[1]), None);
    }
}
