//! A token issuer that Entra trusts: the cluster of a workload identity. It signs its tokens with its own
//! key; the emulated Entra verifies them.

use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature;
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use serde_json::{Value, json};

use super::ids;

/// Generating an RSA key takes a noticeable part of a second, so all issuers of a process share one.
static KEY: OnceLock<RsaKeyPair> = OnceLock::new();

/// Identified by the value of `iss`.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The value of `iss`.
    pub name: String,
}

impl Issuer {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    /// The key with which its tokens are verified.
    pub fn public_key(&self) -> Vec<u8> {
        key().public_key().as_ref().to_vec()
    }

    /// A token for an hour; `overrides` replace its claims, and null removes one.
    pub fn token(&self, subject: &str, overrides: &Value) -> String {
        let now = ids::now();
        let mut claims = json!({
            "iss": self.name, "sub": subject, "aud": ["api://AzureADTokenExchange"],
            "iat": now, "nbf": now, "exp": now + 3600, "jti": ids::guid(),
        });
        for (name, value) in overrides.as_object().into_iter().flatten() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let header = json!({"alg": "RS256", "kid": "cluster", "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            ids::base64url(header.to_string().as_bytes()),
            ids::base64url(claims.to_string().as_bytes())
        );
        let mut signature = vec![0; key().public_modulus_len()];
        key()
            .sign(
                &signature::RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .expect("the buffer has the size of the key");
        format!("{signed}.{}", ids::base64url(&signature))
    }
}

fn key() -> &'static RsaKeyPair {
    KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key can be made"))
}
