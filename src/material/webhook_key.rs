//! Keys of webhook signatures: decoded once, and compared with signatures in constant time.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use aws_lc_rs::{digest, hmac};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use zeroize::Zeroizing;

use crate::model::Secret;
use crate::model::signature::{Algorithm, Encoding, KeyForm};

/// Vendors differ about padding, and it carries no information.
const PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING);

pub(crate) enum WebhookKey {
    /// It has the states after both pads, so it is large.
    Hmac(Box<hmac::Key>),
    Ed25519(ParsedPublicKey),
    EcdsaP256(ParsedPublicKey),
    /// The secret as it is; of a scheme with certificates it is what the content compares or covers.
    Text(Secret),
}

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookKey(***)")
    }
}

impl WebhookKey {
    /// # Errors
    /// What is wrong with the secret, without a part of it.
    pub(crate) fn build(
        secret: &Secret,
        algorithm: Algorithm,
        form: KeyForm,
        prefix: &str,
    ) -> Result<Self, &'static str> {
        let text = secret.expose();
        let text = text.strip_prefix(prefix).unwrap_or(text);
        if text.is_empty() {
            return Err("is empty");
        }
        let bytes = || match form {
            KeyForm::Text => Ok(Zeroizing::new(text.as_bytes().to_vec())),
            KeyForm::Hex => decode(text, Encoding::Hex).ok_or("is not valid hex"),
            KeyForm::Base64 => decode(text, Encoding::Base64).ok_or("is not valid base64"),
            KeyForm::Public => public_key(text).ok_or("is no public key in PEM, base64 or hex"),
        };
        let hmac = |algorithm| bytes().map(|bytes| Self::Hmac(Box::new(hmac::Key::new(algorithm, &bytes))));
        let public = |algorithm: &'static dyn VerificationAlgorithm| {
            let key = ParsedPublicKey::new(algorithm, bytes()?.as_slice());
            key.map_err(|_| "is no public key of this algorithm")
        };
        match algorithm {
            Algorithm::HmacSha1 => hmac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Algorithm::HmacSha256 => hmac(hmac::HMAC_SHA256),
            Algorithm::HmacSha512 => hmac(hmac::HMAC_SHA512),
            Algorithm::Ed25519 => public(&signature::ED25519).map(Self::Ed25519),
            Algorithm::EcdsaP256 => public(&signature::ECDSA_P256_SHA256_ASN1).map(Self::EcdsaP256),
            Algorithm::RsaCertificate | Algorithm::Token => Ok(Self::Text(secret.clone())),
        }
    }

    /// Whether one of the signatures is right for the pieces. None makes another one wrong.
    pub(crate) fn verifies(&self, pieces: &[Cow<'_, [u8]>], signatures: &[Vec<u8>]) -> bool {
        match self {
            Self::Hmac(_) | Self::Text(_) => {
                let tag = self.tag(pieces);
                let same = |signature: &Vec<u8>| verify_slices_are_equal(&tag, signature).is_ok();
                // Without an early end, so that the time does not depend on which one is right.
                signatures
                    .iter()
                    .fold(false, |found, signature| found | same(signature))
            }
            Self::Ed25519(key) => {
                // The algorithm reads its text twice, so it takes one in one piece only.
                let text = pieces.concat();
                signatures
                    .iter()
                    .any(|signature| key.verify_sig(&text, signature).is_ok())
            }
            Self::EcdsaP256(key) => {
                let digest = digest_of(&digest::SHA256, pieces);
                let valid = |signature: &Vec<u8>| key.verify_digest_sig(&digest, signature).is_ok();
                signatures.iter().any(valid)
            }
        }
    }

    /// What a sender with this key would send; of a public key nothing.
    pub(crate) fn tag(&self, pieces: &[Cow<'_, [u8]>]) -> Vec<u8> {
        match self {
            Self::Hmac(key) => {
                let mut context = hmac::Context::with_key(key);
                pieces.iter().for_each(|piece| context.update(piece));
                context.sign().as_ref().to_vec()
            }
            Self::Text(secret) => secret.expose().as_bytes().to_vec(),
            Self::Ed25519(_) | Self::EcdsaP256(_) => Vec::new(),
        }
    }
}

pub(crate) fn digest_of(algorithm: &'static digest::Algorithm, pieces: &[Cow<'_, [u8]>]) -> digest::Digest {
    let mut context = digest::Context::new(algorithm);
    pieces.iter().for_each(|piece| context.update(piece));
    context.finish()
}

/// The length of every signature of an algorithm, if they all have the same.
pub(crate) fn signature_bytes(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HmacSha1 => Some(20),
        Algorithm::HmacSha256 => Some(32),
        Algorithm::HmacSha512 | Algorithm::Ed25519 => Some(64),
        Algorithm::EcdsaP256 | Algorithm::RsaCertificate | Algorithm::Token => None,
    }
}

/// PEM is base64 between two lines. A key in hex is never valid base64 of a key: its length gives it away.
fn public_key(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    let joined: String = lines.map(str::trim).collect();
    const ED25519_HEX: usize = 64;
    if joined.len() == ED25519_HEX
        && let Some(bytes) = decode(&joined, Encoding::Hex)
    {
        return Some(bytes);
    }
    decode(&joined, Encoding::Base64)
}

pub(crate) fn decode(text: &str, encoding: Encoding) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = match encoding {
        Encoding::Hex => {
            let (pairs, rest) = text.as_bytes().as_chunks::<2>();
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let pair = |&[high, low]: &[u8; 2]| u8::try_from(digit(high)? * 16 + digit(low)?).ok();
            let bytes: Option<Vec<u8>> = pairs.iter().map(pair).collect();
            bytes.filter(|_| rest.is_empty())?
        }
        Encoding::Base64 => BASE64.decode(text).ok()?,
        Encoding::Base64Url => BASE64_URL.decode(text).ok()?,
        Encoding::Plain => text.as_bytes().to_vec(),
    };
    Some(Zeroizing::new(bytes))
}

pub(crate) fn encode(bytes: &[u8], encoding: Encoding) -> String {
    match encoding {
        Encoding::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Encoding::Base64 => BASE64.encode(bytes),
        Encoding::Base64Url => BASE64_URL.encode(bytes),
        Encoding::Plain => String::from_utf8_lossy(bytes).into_owned(),
    }
}

pub(crate) fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Hex => "hex",
        Encoding::Base64 => "base64",
        Encoding::Base64Url => "base64url",
        Encoding::Plain => "text",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::proptest;

    use super::{WebhookKey as Key, decode, encode};
    use crate::model::Secret;
    use crate::model::signature::{Algorithm, Encoding, KeyForm};

    #[test]
    fn a_key_does_not_print() {
        for algorithm in [Algorithm::HmacSha256, Algorithm::Token] {
            let key = Key::build(&Secret::new("canary-7f"), algorithm, KeyForm::Text, "").unwrap();
            assert_eq!(format!("{key:?}"), "WebhookKey(***)");
        }
    }

    #[test]
    fn a_secret_that_is_no_key_is_refused() {
        for (text, algorithm, form) in [
            ("", Algorithm::HmacSha256, KeyForm::Text),
            ("", Algorithm::Token, KeyForm::Text),
            ("whsec_", Algorithm::HmacSha256, KeyForm::Base64),
            ("whsec_*", Algorithm::HmacSha256, KeyForm::Base64),
            ("abc", Algorithm::HmacSha256, KeyForm::Hex),
            ("xy", Algorithm::HmacSha256, KeyForm::Hex),
            ("AAAA", Algorithm::Ed25519, KeyForm::Public),
            ("AAAA", Algorithm::EcdsaP256, KeyForm::Public),
        ] {
            assert!(
                Key::build(&Secret::new(text), algorithm, form, "whsec_").is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrong_encoding_is_refused() {
        for (text, encoding) in [
            ("abc", Encoding::Hex),
            ("0g", Encoding::Hex),
            ("+1", Encoding::Hex),
            ("a-_b", Encoding::Base64),
            ("a+/b", Encoding::Base64Url),
            ("YR==", Encoding::Base64),
            ("YQ=a", Encoding::Base64),
            ("Y Q==", Encoding::Base64),
        ] {
            assert_eq!(decode(text, encoding), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn bytes_come_back(bytes in any::<Vec<u8>>()) {
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
                assert_eq!(decode(&encode(&bytes, encoding), encoding).as_deref(), Some(&bytes));
            }
        }
    }
}
