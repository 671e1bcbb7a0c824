//! The assertion with which an application proves that it holds the private key of its certificate (RFC 7523; Microsoft
//! Learn, "Microsoft identity platform application authentication certificate credentials").

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::material::{AssertionAlgorithm, ChainShown, SigningCertificate};
use crate::model::Secret;

/// The type that goes with it in the form (RFC 7523 section 2.2).
pub(crate) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Microsoft advises five to ten minutes; the longer forgives a clock that is slow.
const LIFE: Duration = Duration::from_secs(600);

pub(crate) struct Assertion<'a> {
    /// Who signs, and for whom.
    pub(crate) client_id: &'a str,
    /// The token endpoint.
    pub(crate) audience: &'a str,
    pub(crate) algorithm: AssertionAlgorithm,
    pub(crate) chain: ChainShown,
}

impl Assertion<'_> {
    /// Signs it. Each one has its own `jti`, so it is good for one request; nothing if the machine has no random
    /// numbers.
    pub(crate) fn sign(&self, certificate: &SigningCertificate, now: SystemTime) -> Option<Secret> {
        let header = self.header(certificate);
        let claims = self.claims(now);
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = certificate.sign(self.algorithm, signed.as_bytes())?;
        Some(Secret::new(format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(signature)
        )))
    }

    /// PS256 goes with the SHA-256 thumbprint, as Microsoft documents it; RS256 with the SHA-1 one, as it did before.
    fn header(&self, certificate: &SigningCertificate) -> Value {
        let (field, thumbprint) = match self.algorithm {
            AssertionAlgorithm::Ps256 => ("x5t#S256", certificate.digest(&digest::SHA256)),
            AssertionAlgorithm::Rs256 => ("x5t", certificate.digest(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
        };
        let thumbprint = URL_SAFE_NO_PAD.encode(thumbprint);
        let mut header = json!({"alg": self.algorithm.name(), "typ": "JWT", field: thumbprint});
        if self.chain == ChainShown::Yes
            && let Some(fields) = header.as_object_mut()
        {
            // RFC 7515 section 4.1.6: in plain base64, and the signer's own first.
            let chain = certificate.chain().iter();
            fields.insert("x5c".into(), chain.map(|der| STANDARD.encode(der)).collect());
        }
        header
    }

    fn claims(&self, now: SystemTime) -> Value {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        json!({
            "aud": self.audience,
            "iss": self.client_id,
            "sub": self.client_id,
            "jti": Uuid::now_v7().to_string(),
            "nbf": now,
            "iat": now,
            "exp": now + LIFE.as_secs(),
        })
    }
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}
