//! Access tokens: issued and signed as Entra does it, verified as the flow's platform does it. Also the check
//! of assertions that clients sign with their own key.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RsaKeyPair, UnparsedPublicKey};
use aws_lc_rs::{digest, signature};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::ids;

pub type Claims = Map<String, Value>;

/// Tokens remembered in each of the maps below.
const TOKENS_MAX: usize = 4096;

/// Generating an RSA key takes a noticeable part of a second, so the emulators of one process share theirs.
static SIGNING_KEY: OnceLock<RsaKeyPair> = OnceLock::new();

/// Entra's signing key, and what a resource needs to verify tokens.
#[derive(Debug, Default)]
pub struct Mint {
    issued: Mutex<VecDeque<String>>,
    opaque: Mutex<HashMap<String, Arc<Claims>>>,
    verified: Mutex<HashMap<String, Arc<Claims>>>,
}

impl Mint {
    /// Signs a token with these claims.
    pub fn token(&self, claims: &Claims) -> String {
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": "emulator"});
        let claims = Value::Object(claims.clone());
        let signed = format!(
            "{}.{}",
            ids::base64url(header.to_string().as_bytes()),
            ids::base64url(claims.to_string().as_bytes())
        );
        let key = signing_key();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            &signature::RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .expect("the buffer has the size of the key");
        self.remember(format!("{signed}.{}", ids::base64url(&signature)))
    }

    /// Creates an opaque token for these claims.
    pub fn opaque(&self, claims: Claims) -> String {
        let token = ids::base64url(&ids::random_bytes::<48>());
        insert(&self.opaque, &token, Arc::new(claims));
        self.remember(token)
    }

    /// All tokens made, oldest first.
    pub fn issued(&self) -> Vec<String> {
        self.issued.lock().unwrap().iter().cloned().collect()
    }

    /// The claims of a token that was issued here and is unchanged; its times are not checked.
    pub fn verify(&self, token: &str) -> Option<Arc<Claims>> {
        // Verifying a signature costs more than the rest of a request, and load runs repeat one token.
        let known = self.verified.lock().unwrap().get(token).cloned();
        if known.is_some() {
            return known;
        }
        if let Some(claims) = self.opaque.lock().unwrap().get(token) {
            return Some(Arc::clone(claims));
        }
        let jwt = Jwt::parse(token)?;
        if jwt.text("alg") != Some("RS256") {
            return None;
        }
        jwt.check(
            &signature::RSA_PKCS1_2048_8192_SHA256,
            signing_key().public_key().as_ref(),
        )?;
        let claims = Arc::new(jwt.claims);
        insert(&self.verified, token, Arc::clone(&claims));
        Some(claims)
    }

    fn remember(&self, token: String) -> String {
        let mut issued = self.issued.lock().unwrap();
        if issued.len() == TOKENS_MAX {
            issued.pop_front();
        }
        issued.push_back(token.clone());
        token
    }
}

/// What is wrong with a client's assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionFault {
    /// Not a JWT, or not signed by the registered certificate.
    Signature,
    /// For another audience, or from another issuer.
    Party,
    /// Not valid yet, expired, or valid for longer than a day.
    Time,
}

/// Whether an assertion is signed with RS256 by the owner of this key.
pub fn is_signed(assertion: &str, key: &[u8]) -> bool {
    Jwt::parse(assertion).is_some_and(|jwt| {
        jwt.text("alg") == Some("RS256") && jwt.check(&signature::RSA_PKCS1_2048_8192_SHA256, key).is_some()
    })
}

/// The claims of an assertion without checking its signature, for federated identities.
pub fn unverified_claims(assertion: &str) -> Option<Claims> {
    Jwt::parse(assertion).map(|jwt| jwt.claims)
}

/// The certificates in the header of an assertion, the signer's first.
pub fn chain(assertion: &str) -> Vec<Vec<u8>> {
    let jwt = Jwt::parse(assertion);
    let fields = jwt.as_ref().and_then(|jwt| jwt.header.get("x5c")?.as_array());
    let texts = fields.into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(|text| STANDARD.decode(text).ok()).collect()
}

/// Checks an assertion as Entra does: signature and thumbprint, parties, times. Returns its `jti`.
///
/// # Errors
/// The first thing that is wrong.
pub fn check_assertion(
    assertion: &str,
    certificate: &[u8],
    client: &str,
    audience: &str,
) -> Result<String, AssertionFault> {
    let jwt = Jwt::parse(assertion).ok_or(AssertionFault::Signature)?;
    check_signature(&jwt, certificate).ok_or(AssertionFault::Signature)?;
    let claim = |name: &str| jwt.claims.get(name).and_then(Value::as_str).unwrap_or_default();
    if claim("iss") != client || claim("sub") != client || claim("aud") != audience || claim("jti").is_empty()
    {
        return Err(AssertionFault::Party);
    }
    // `nbf` is documented, but Microsoft's library for Python leaves it out.
    let mut claims = jwt.claims.clone();
    if let Some(issued) = claims.get("iat").cloned() {
        claims.entry("nbf").or_insert(issued);
    }
    if !within_times(&claims, ids::now()) {
        return Err(AssertionFault::Time);
    }
    Ok(claim("jti").to_owned())
}

/// Whether `now` is between `nbf` and `exp`; a missing bound refuses.
pub fn within_times(claims: &Claims, now: i64) -> bool {
    // A NumericDate may have a fraction (RFC 7519 section 2).
    let time = |name: &str| claims.get(name).and_then(Value::as_f64);
    let now = now as f64;
    match (time("nbf"), time("exp")) {
        (Some(from), Some(until)) => from.floor() <= now && now < until,
        _ => false,
    }
}

fn signing_key() -> &'static RsaKeyPair {
    SIGNING_KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key can be made"))
}

fn insert(map: &Mutex<HashMap<String, Arc<Claims>>>, token: &str, claims: Arc<Claims>) {
    let mut map = map.lock().unwrap();
    if map.len() == TOKENS_MAX {
        map.clear();
    }
    map.insert(token.to_owned(), claims);
}

fn check_signature(jwt: &Jwt<'_>, certificate: &[u8]) -> Option<()> {
    let sha256 = digest::digest(&digest::SHA256, certificate);
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
    let thumbprint_fits = match (jwt.text("x5t#S256"), jwt.text("x5t")) {
        (Some(shown), _) => same_bytes(shown, sha256.as_ref()),
        (None, Some(shown)) => same_bytes(shown, sha1.as_ref()),
        (None, None) => false,
    };
    if !thumbprint_fits {
        return None;
    }
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let key = &certificate.public_key().subject_public_key.data;
    match jwt.text("alg")? {
        "PS256" => jwt.check(&signature::RSA_PSS_2048_8192_SHA256, key),
        "RS256" => jwt.check(&signature::RSA_PKCS1_2048_8192_SHA256, key),
        _ => None,
    }
}

/// Compares thumbprints; clients write them in either alphabet, and Entra accepts both.
fn same_bytes(shown: &str, expected: &[u8]) -> bool {
    // Microsoft's own libraries write it with and without padding, in either alphabet.
    let bare = shown.trim_end_matches('=');
    [URL_SAFE_NO_PAD.decode(bare), STANDARD.decode(shown)]
        .iter()
        .any(|decoded| decoded.as_deref() == Ok(expected))
}

/// A parsed token.
struct Jwt<'a> {
    header: Claims,
    claims: Claims,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        Some(Self {
            header: object(header)?,
            claims: object(claims)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.header.get(name).and_then(Value::as_str)
    }

    fn check(&self, algorithm: &'static signature::RsaParameters, key: &[u8]) -> Option<()> {
        UnparsedPublicKey::new(algorithm, key)
            .verify(self.signed.as_bytes(), &self.signature)
            .ok()
    }
}
