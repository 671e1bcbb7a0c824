//! The address at which a caller asks for a run: a sealed text that only gateways with the same secret can make or read. Nothing is
//! stored, so it outlives reloads and restarts. It names one run of one route on one host of its trigger, and ends at a moment.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::uri::PathAndQuery;

use crate::model::{CallerName, RouteName, Secret};
use crate::settings::{RUNS, SecretSource};

/// Bound into the keys, so that the same secret makes other ones elsewhere.
const PURPOSE: &[u8] = b"flowgate run address 1";
/// The first byte of what is encoded; another form gets another one.
const VERSION: u8 = 1;
/// The longest text that is opened: names, a moment and the longest target, encoded.
const SEALED_CHARS_MAX: usize = 4096;
const HOST_BYTES: usize = 16;

/// What an address leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunAddress {
    pub route: RouteName,
    /// Who started the run.
    pub caller: CallerName,
    pub expires: SystemTime,
    /// Stands for host and port of the trigger.
    host: [u8; HOST_BYTES],
    /// Path and query of the run there.
    pub target: PathAndQuery,
}

impl RunAddress {
    pub(super) fn new(
        (route, caller): (&RouteName, &CallerName),
        expires: SystemTime,
        (authority, target): (&str, PathAndQuery),
    ) -> Self {
        Self {
            route: route.clone(),
            caller: caller.clone(),
            expires,
            host: digest_of(authority),
            target,
        }
    }

    /// Whether the run is on this host and port.
    pub(super) fn is_on(&self, authority: &str) -> bool {
        self.host == digest_of(authority)
    }

    fn encode(&self) -> Option<Vec<u8>> {
        let seconds = self.expires.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let mut bytes = seconds.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.host);
        for name in [self.route.as_str(), self.caller.as_str()] {
            bytes.push(u8::try_from(name.len()).ok()?);
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes.extend_from_slice(self.target.as_str().as_bytes());
        Some(bytes)
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let seconds = u64::from_be_bytes(*bytes.split_off(..8)?.first_chunk()?);
        let host = *bytes.split_off(..HOST_BYTES)?.first_chunk()?;
        let mut name = || {
            let length = usize::from(*bytes.split_off_first()?);
            std::str::from_utf8(bytes.split_off(..length)?).ok()
        };
        let (route, caller) = (name()?, name()?);
        Some(Self {
            route: RouteName::parse(route).ok()?,
            caller: CallerName::parse(caller).ok()?,
            expires: UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?,
            host,
            target: PathAndQuery::try_from(bytes).ok()?,
        })
    }
}

fn digest_of(authority: &str) -> [u8; HOST_BYTES] {
    let digest = digest(&SHA256, authority.as_bytes());
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// The keys that seal and open addresses of runs.
pub(super) struct RunSeals(ArcSwap<Vec<LessSafeKey>>);

impl fmt::Debug for RunSeals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunSeals")
    }
}

impl RunSeals {
    /// None without any.
    pub(super) fn build(sources: &[SecretSource]) -> Option<Self> {
        let known: Vec<_> = sources.iter().filter_map(SecretSource::known).cloned().collect();
        (!sources.is_empty()).then(|| Self(ArcSwap::from_pointee(keys(&known))))
    }

    /// Uses these secrets from now on, in the order of the settings.
    pub(super) fn replace(&self, secrets: &[Secret]) {
        self.0.store(std::sync::Arc::new(keys(secrets)));
    }

    /// The path of an address; none where nothing can be sealed.
    pub(super) fn seal(&self, run: &RunAddress) -> Option<String> {
        let keys = self.0.load();
        let key = keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut bytes = run.encode()?;
        // Random nonces repeat with a probability of 2^-32 after four billion runs (NIST SP 800-38D).
        let at = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(at, Aad::from([VERSION]), &mut bytes)
            .ok()?;
        let text = URL_SAFE_NO_PAD.encode([&[VERSION][..], &nonce, &bytes].concat());
        (text.len() <= SEALED_CHARS_MAX).then(|| format!("{RUNS}{text}"))
    }

    /// What was sealed; none for everything else. Each key is tried, whatever is in the text.
    pub(super) fn open(&self, text: &str) -> Option<RunAddress> {
        if text.len() > SEALED_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, bytes) = bytes.split_first()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let open = |key: &LessSafeKey| {
            let mut sealed = sealed.to_vec();
            let at = Nonce::assume_unique_for_key(*nonce);
            let opened = key.open_in_place(at, Aad::from([*version]), &mut sealed);
            RunAddress::decode(opened.ok()?)
        };
        let keys = self.0.load();
        let opened = keys.iter().filter_map(open).next();
        opened.filter(|_| *version == VERSION)
    }
}

fn keys(secrets: &[Secret]) -> Vec<LessSafeKey> {
    let key = |secret: &Secret| {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"flowgate");
        let random = salt.extract(secret.expose().as_bytes());
        let expanded = random.expand(&[PURPOSE], &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(expanded)))
    };
    secrets.iter().filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use arc_swap::ArcSwap;

    use super::{RunAddress, RunSeals, keys};
    use crate::model::{CallerName, RouteName, Secret};
    use crate::settings::RUNS;

    fn seals(secrets: &[&str]) -> RunSeals {
        let secrets: Vec<_> = secrets.iter().map(|text| Secret::new(*text)).collect();
        RunSeals(ArcSwap::from_pointee(keys(&secrets)))
    }

    fn run() -> RunAddress {
        let names = (
            &RouteName::parse("orders").unwrap(),
            &CallerName::parse("shop").unwrap(),
        );
        let target = "/workflows/1/runs/2/operations/3?sig=canary".parse().unwrap();
        let expires = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        RunAddress::new(names, expires, ("a.example", target))
    }

    fn sealed(seals: &RunSeals) -> String {
        let path = seals.seal(&run()).unwrap();
        path.strip_prefix(RUNS).unwrap().to_owned()
    }

    #[test]
    fn a_gateway_with_the_same_secret_opens_what_was_sealed() {
        let (one, other) = (seals(&["first secret"]), seals(&["first secret"]));
        let text = sealed(&one);
        assert_eq!(other.open(&text), Some(run()));
        assert_ne!(text, sealed(&one), "no two are the same");
        assert!(run().is_on("a.example") && !run().is_on("b.example"));
    }

    #[test]
    fn the_first_secret_seals_and_all_open() {
        let (old, new) = (seals(&["old secret"]), seals(&["new secret", "old secret"]));
        assert_eq!(new.open(&sealed(&old)), Some(run()));
        assert_eq!(old.open(&sealed(&new)), None);
        old.replace(&[Secret::new("new secret")]);
        assert_eq!(old.open(&sealed(&new)), Some(run()));
    }

    #[test]
    fn what_is_not_whole_or_altered_by_one_bit_is_not_opened() {
        let seals = seals(&["a secret"]);
        let text = sealed(&seals);
        for place in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[place] = match altered[place] {
                b'A' => b'B',
                _ => b'A',
            };
            let altered = String::from_utf8(altered).unwrap();
            // The last character has bits that count for nothing, and those must be zero.
            assert_eq!(seals.open(&altered).filter(|_| altered != text), None, "{place}");
            assert_eq!(seals.open(&text[..place]), None);
        }
        for text in [
            format!("{text}A"),
            format!("{text}="),
            "A".repeat(5000),
            String::new(),
        ] {
            assert_eq!(seals.open(&text), None);
        }
    }

    #[test]
    fn an_address_shows_nothing_of_the_run() {
        let path = seals(&["a secret"]).seal(&run()).unwrap();
        assert!(path.starts_with("/.flowgate/runs/") && path.len() < 250, "{path}");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        assert!(path.bytes().all(plain), "{path}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_opened_without_harm(text in ".{0,200}") {
            proptest::prop_assert_eq!(seals(&["a secret"]).open(&text), None);
        }

        #[test]
        fn any_bytes_are_decoded_without_harm(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = RunAddress::decode(&bytes);
        }
    }
}
