//! The digest that identifies a key of a caller: the settings never contain the key itself.

use std::fmt;

use crate::model::Secret;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyDigest {
    /// SHA-256 of the key: `sha256:` and 64 hexadecimal digits.
    Sha256([u8; 32]),
    /// HMAC-SHA-256 of the key under the pepper: `hmac-sha256:` and 64 hexadecimal digits.
    HmacSha256([u8; 32]),
}

impl KeyDigest {
    /// The digest of a key: HMAC-SHA-256 under the pepper if there is one, or else SHA-256.
    pub fn of(key: &[u8], pepper: Option<&Secret>) -> Self {
        let mut bytes = [0; 32];
        let Some(pepper) = pepper else {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
            bytes.copy_from_slice(digest.as_ref());
            return Self::Sha256(bytes);
        };
        let pepper = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, pepper.expose().as_bytes());
        bytes.copy_from_slice(aws_lc_rs::hmac::sign(&pepper, key).as_ref());
        Self::HmacSha256(bytes)
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::Sha256(bytes) | Self::HmacSha256(bytes) => bytes,
        }
    }

    pub fn to_setting(&self) -> String {
        let (name, bytes) = match self {
            Self::Sha256(bytes) => ("sha256", bytes),
            Self::HmacSha256(bytes) => ("hmac-sha256", bytes),
        };
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name}:{hex}")
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key of a whole digest can be searched for if it is short, so none is printed.
        f.write_str(match self {
            Self::Sha256(_) => "Sha256(***)",
            Self::HmacSha256(_) => "HmacSha256(***)",
        })
    }
}
