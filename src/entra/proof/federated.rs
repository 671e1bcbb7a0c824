//! A token of another issuer in place of a secret (RFC 7523 section 2.2): from a file that the platform keeps fresh, read
//! for every question, or from a managed identity. What cannot work is found before Entra is asked.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use crate::entra::answer;
use crate::entra::answer::{Granted, TokenError};
use crate::entra::cache::Slot;
use crate::entra::date::Clocks;
use crate::entra::endpoint::Endpoint;
use crate::entra::failure::{
    FILE_EXPIRED, FILE_HUNG, FILE_INVALID, FILE_MISSING, FILE_UNREADABLE, Failure, Trouble, VOUCHER_FAILED,
    VOUCHER_MISSING,
};
use crate::entra::proof::assertion;
use crate::entra::slots::Slots;
use crate::files;
use crate::model::claims::Claims;
use crate::model::clock::Steady;
use crate::model::{Outlook, Secret, clock};
use crate::outbound::TrustError;
use crate::secrets::Desk;
use crate::settings::{AssertionSource, EXCHANGE_AUDIENCE, FederatedSettings};

/// Largest token file that is read; a federated token has one or two KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Longest claim that is repeated in the log.
const SHOWN_CHARS_MAX: usize = 200;

pub(crate) struct Federated {
    identity: String,
    source: TokenSource,
    clock: Steady,
    desk: Desk,
    /// Whether a warning about an unusual audience was logged.
    warned: AtomicBool,
}

enum TokenSource {
    File(PathBuf),
    Slot { slot: Option<Arc<Slot>>, name: String },
}

/// What a federated credential is matched with.
#[derive(Default, Deserialize)]
struct Presented {
    iss: Option<String>,
    sub: Option<String>,
    aud: Option<Audience>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Federated {
    pub(crate) fn new(
        settings: &FederatedSettings,
        identity: &str,
        slots: &mut Slots<'_>,
    ) -> Result<Self, TrustError> {
        let source = match &settings.source {
            AssertionSource::File(path) => TokenSource::File(path.clone()),
            AssertionSource::Identity { name, scope } => TokenSource::Slot {
                slot: slots.slot_of(name, scope)?,
                name: name.as_str().to_owned(),
            },
        };
        Ok(Self::from(source, identity))
    }

    pub(crate) fn of_file(path: PathBuf, identity: &str) -> Self {
        Self::from(TokenSource::File(path), identity)
    }

    fn from(source: TokenSource, identity: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            source,
            clock: Steady::from(clock::wall()),
            desk: Desk::default(),
            warned: AtomicBool::new(false),
        }
    }

    /// Where its tokens come from, for people.
    pub(crate) fn place(&self) -> String {
        match &self.source {
            TokenSource::File(path) => format!("federated token in {}", path.display()),
            TokenSource::Slot { name, .. } => format!("federated token of managed identity {name}"),
        }
    }

    /// Sends a request with these pairs and the token. If the file was replaced since it was read, it is tried once more.
    pub(crate) async fn ask(
        &self,
        endpoint: &Endpoint,
        pairs: &[(&str, &str)],
    ) -> Result<Granted, TokenError> {
        let first = self.assertion().await?;
        let refused = match self.present(endpoint, pairs, &first).await {
            Err(TokenError::Refused(why)) if why.refusal.outlook == Outlook::AfterFix => why,
            answer => return answer,
        };
        if let TokenSource::File(_) = &self.source
            && let Ok(second) = self.assertion().await
            && !second.same_as(first.expose())
        {
            return self.present(endpoint, pairs, &second).await;
        }
        Err(TokenError::Refused(refused))
    }

    async fn present(
        &self,
        endpoint: &Endpoint,
        pairs: &[(&str, &str)],
        assertion: &Secret,
    ) -> Result<Granted, TokenError> {
        let mut form = vec![
            ("client_assertion_type", assertion::TYPE),
            ("client_assertion", assertion.expose()),
        ];
        form.extend_from_slice(pairs);
        let mut answer = endpoint.ask(&form).await;
        if let Err(TokenError::Refused(why)) = &mut answer
            && why.refusal.outlook == Outlook::AfterFix
        {
            let presented = FederatedToken::of(assertion);
            why.sentence.push_str(&presented.claims());
        }
        answer
    }

    /// The token, good as far as can be seen from here.
    async fn assertion(&self) -> Result<Secret, TokenError> {
        let found = match &self.source {
            TokenSource::File(path) => {
                let now = Clocks::read(&self.clock);
                read_at(&self.desk, path)
                    .await
                    .and_then(|text| check(text, now))
                    .map_err(|trouble| trouble.of(&self.identity, &self.place(), None))
            }
            TokenSource::Slot { slot, name } => self.vouched(slot.as_ref(), name).await,
        };
        let token = found.map_err(|failure| TokenError::Platform(Box::new(failure)))?;
        self.warn_of_audience(&token);
        Ok(token)
    }

    /// The token of a managed identity, whose own failure names who fixes it.
    async fn vouched(&self, slot: Option<&Arc<Slot>>, name: &str) -> Result<Secret, Failure> {
        let Some(slot) = slot else {
            let seen = format!("there is no identity {name}");
            let trouble = Trouble::new(VOUCHER_MISSING, seen);
            return Err(trouble.of(&self.identity, &self.place(), None));
        };
        let token = slot.token().await.map_err(|unavailable| Failure {
            seen: format!("{}: {}", self.place(), VOUCHER_FAILED.seen),
            what: VOUCHER_FAILED.what.into(),
            row: VOUCHER_FAILED,
            sentence: format!(
                "No token for identity {}: the managed identity {name} that vouches for it has none. {}",
                self.identity, unavailable.error
            ),
            label: unavailable.error.label(),
            outlook: unavailable.error.outlook(),
            wait: None,
        })?;
        Ok(token.text().clone())
    }

    /// Entra compares the audience with the federated credential, which can have another one; it rarely has.
    fn warn_of_audience(&self, token: &Secret) {
        let presented = FederatedToken::of(token);
        if presented.fit == AudienceFit::Usual {
            self.warned.store(false, Ordering::Relaxed);
            return;
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                identity = %self.identity,
                "the federated token of identity {} is for the audience {}, and federated credentials usually want \
                 {EXCHANGE_AUDIENCE}: the cluster administrator sets it where the token is projected",
                self.identity,
                presented.audience
            );
        }
    }
}

/// A federated token as a federated credential is matched with it; every text is bounded and quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederatedToken {
    pub issuer: String,
    pub subject: String,
    pub audience: String,
    pub fit: AudienceFit,
    pub left: Option<Duration>,
}

/// Whether an audience is what federated credentials usually want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudienceFit {
    /// It is [`EXCHANGE_AUDIENCE`], in any cloud.
    Usual,
    /// Any other; the federated credential must name it.
    Unusual,
}

impl FederatedToken {
    /// What a token says of itself; it is not verified.
    pub fn of(token: &Secret) -> Self {
        let Presented { iss, sub, aud } = answer::payload(token.expose()).unwrap_or_default();
        let audiences = match aud {
            None => Vec::new(),
            Some(Audience::One(one)) => vec![one],
            Some(Audience::Several(several)) => several,
        };
        // Other clouds have endings of their own.
        let is_usual = audiences.iter().any(|one| one.starts_with(EXCHANGE_AUDIENCE));
        let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            issuer: shown(&iss.unwrap_or_default()),
            subject: shown(&sub.unwrap_or_default()),
            audience: shown(&audiences.join(" ")),
            fit: match is_usual {
                true => AudienceFit::Usual,
                false => AudienceFit::Unusual,
            },
            left: answer::expires(token.expose()).map(|end| end.saturating_sub(now)),
        }
    }

    /// What the administrator of the tenant compares with the federated credential.
    fn claims(&self) -> String {
        format!(
            " The presented token has the issuer {}, the subject {} and the audience {}.",
            self.issuer, self.subject, self.audience
        )
    }

    /// What the file of an identity holds, checked as it is before Entra is asked.
    pub async fn in_file(path: &Path, identity: &str) -> Result<Self, Failure> {
        let now = Clocks::read(&Steady::from(clock::wall()));
        let read = read_at(&Desk::default(), path).await;
        let text = read.and_then(|text| check(text, now));
        let place = Federated::of_file(path.to_owned(), identity).place();
        let token = text.map_err(|trouble| trouble.of(identity, &place, None))?;
        Ok(Self::of(&token))
    }
}

/// A claim for the log, in quotes and of bounded length; control characters are written out.
fn shown(claim: &str) -> String {
    let short: String = claim.chars().take(SHOWN_CHARS_MAX).collect();
    format!("\"{}\"", short.escape_debug())
}

/// Reads the file at a desk, so that a disk that hangs holds nobody else.
async fn read_at(desk: &Desk, path: &Path) -> Result<Secret, Trouble> {
    let path = path.to_owned();
    let text = desk.work(move || read(&path)).await;
    text.unwrap_or_else(|stuck| {
        let seen = stuck.to_string();
        Err(Trouble::new(FILE_HUNG, seen))
    })
}

fn read(path: &Path) -> Result<Secret, Trouble> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => FILE_MISSING.into(),
        std::io::ErrorKind::InvalidData => {
            Trouble::new(FILE_INVALID, "the file holds something other than text")
        }
        kind => Trouble::new(FILE_UNREADABLE, format!("the file cannot be read ({kind})")),
    };
    let file = File::open(path).map_err(failed)?;
    let text = files::text(&file, FILE_BYTES_MAX).map_err(failed)?;
    let text = text.ok_or_else(|| {
        let seen = format!("the file is larger than {FILE_BYTES_MAX} bytes");
        Trouble::new(FILE_INVALID, seen)
    })?;
    Ok(Secret::new(text.trim()))
}

/// What can be seen without knowing the issuer: that it is a JWT and has not expired.
fn check(text: Secret, now: Clocks) -> Result<Secret, Trouble> {
    let token = text.expose();
    if token.is_empty() {
        return Err(Trouble::new(FILE_INVALID, "the file is empty"));
    }
    if !answer::usable(token) || Claims::read(token).is_none() {
        let seen = "the file holds something other than a JWT";
        return Err(Trouble::new(FILE_INVALID, seen));
    }
    if answer::expires(token).is_some_and(|end| now.agree_on_end(end)) {
        return Err(FILE_EXPIRED.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::proptest;

    use super::{AudienceFit, Clocks, FederatedToken, check, read, shown};
    use crate::model::Secret;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn jwt(payload: &str) -> Secret {
        Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload)))
    }

    fn presented(payload: &str) -> FederatedToken {
        FederatedToken::of(&jwt(payload))
    }

    #[test]
    fn each_file_of_no_use_has_its_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let large = "x".repeat(5_000_000);
        let umlauts = "ü".repeat(40_000);
        let expired = jwt(r#"{"exp":1600000000}"#);
        for (text, part) in [
            (Some("".as_bytes()), "is empty"),
            (Some("\r\n ".as_bytes()), "is empty"),
            (Some(large.as_bytes()), "larger than 65536 bytes"),
            (Some(umlauts.as_bytes()), "larger than 65536 bytes"),
            (Some(&[0xff, 0xfe]), "other than text"),
            (Some(b"canary"), "other than a JWT"),
            (Some(b"a.b.c"), "other than a JWT"),
            (Some(b"canary of\nlines"), "other than a JWT"),
            (Some(expired.expose().as_bytes()), "has expired"),
            (None, "is not there"),
        ] {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let found = read(&path).and_then(|text| check(text, Clocks::agreed(NOW)));
            let sentence = found.err().unwrap().of("contoso", "here", None).sentence;
            assert!(sentence.contains(part), "{part}: {sentence}");
            assert!(!sentence.contains("canary"), "{sentence}");
        }
    }

    #[test]
    fn a_good_file_loses_the_blanks_around_its_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = jwt(r#"{"exp":1800000000}"#);
        std::fs::write(&path, format!(" {}\r\n", token.expose())).unwrap();
        let found = read(&path).and_then(|text| check(text, Clocks::agreed(NOW)));
        assert!(found.ok().unwrap().same_as(token.expose()));
    }

    #[test]
    fn the_audience_may_be_one_of_several() {
        for (payload, fits) in [
            (r#"{"aud":"api://AzureADTokenExchange"}"#, true),
            (r#"{"aud":["x","api://AzureADTokenExchange"]}"#, true),
            (r#"{"aud":"api://AzureADTokenExchangeUSGov"}"#, true),
            (r#"{"aud":"https://kubernetes.default.svc"}"#, false),
            (r#"{"aud":[]}"#, false),
            (r"{}", false),
        ] {
            let is_usual = presented(payload).fit == AudienceFit::Usual;
            assert_eq!(is_usual, fits, "{payload}");
        }
    }

    #[test]
    fn only_the_compared_claims_are_reported() {
        let presented = presented(
            r#"{"iss":"https://issuer.example/","sub":"system:\nserviceaccount","aud":"x","jti":"canary"}"#,
        );
        assert_eq!(
            presented.claims(),
            " The presented token has the issuer \"https://issuer.example/\", the subject \
             \"system:\\nserviceaccount\" and the audience \"x\"."
        );
    }

    proptest! {
        #[test]
        fn a_claim_in_the_log_has_no_control_characters_and_an_end(claim in ".{0,500}") {
            let shown = shown(&claim);
            assert!(!shown.chars().any(char::is_control), "{shown}");
            assert!(shown.chars().count() <= 2 + 200 * 10, "{shown}");
        }
    }
}
