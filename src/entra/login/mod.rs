//! The sign-in of a person, once, for an identity that asks for tokens in an account's name: in a browser with PKCE on
//! loopback (RFC 8252, RFC 7636), or by a device code where there is none (RFC 8628). It leaves the refresh token in the
//! identity's store; what is said to the person is the command line's.

mod account;
mod loopback;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::time::Instant;

pub use crate::entra::login::account::Account;
pub use crate::entra::store::Protection;

use crate::counters::Counters;
use crate::entra::answer::{Granted, TokenError};
use crate::entra::application::Application;
use crate::entra::grants::sign_in;
use crate::entra::login::loopback::{Brought, Loopback, Opening};
use crate::entra::store::{Kept, Store};
use crate::entra::{grants, refused};
use crate::model::{Outlook, Secret};
use crate::settings::{GrantSettings, IdentitySettings, KeyVaultSettings};

/// Time for a person to sign in with a browser.
pub const BROWSER_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest life of a device code that is believed; Entra's is 15 minutes.
const DEVICE_LIFE_MAX: Duration = Duration::from_secs(900);
/// Time between two questions where the endpoint names none, and what `slow_down` adds (RFC 8628 section 3.5).
const POLL_PAUSE: Duration = Duration::from_secs(5);
const POLL_PAUSE_MIN: Duration = Duration::from_secs(1);
const POLL_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Longest code or address that is shown.
const SHOWN_CHARS_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginError {
    /// The settings or the command do not allow it.
    Wrong(String),
    Failed(String),
}

/// A sign-in that has been stored.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub account: Account,
    pub store: PathBuf,
    pub protection: Protection,
}

pub struct DeviceCode {
    pub address: String,
    pub user_code: String,
    code: Secret,
    pause: Duration,
    until: Instant,
}

impl fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCode").finish_non_exhaustive()
    }
}

/// A browser's sign-in that waits for its answer.
pub struct Browser {
    /// The page on which a person signs in.
    pub address: String,
    /// A local URL that redirects a browser there, once. It reveals nothing in a process list.
    pub opening: String,
    led: Arc<Opening>,
    loopback: Loopback,
    state: Secret,
    verifier: Secret,
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser").finish_non_exhaustive()
    }
}

pub struct Login {
    application: Application,
    store: Store,
}

impl Login {
    /// Prepares the sign-in of an identity; `all` are those of the same settings, one of which may vouch for its
    /// application. Needs a runtime of tokio around it.
    pub fn new(
        identity: &IdentitySettings,
        all: &[IdentitySettings],
        keyvault: Option<&KeyVaultSettings>,
    ) -> Result<Self, LoginError> {
        let name = identity.name.as_str();
        let GrantSettings::SignIn {
            endpoint,
            proof,
            store,
            seal,
        } = &identity.grant
        else {
            return Err(LoginError::Wrong(format!(
                "nobody signs in for identity {name}: its settings have no [identity.sign_in]"
            )));
        };
        let scope = format!("{} openid profile", sign_in::lasting(&identity.scope));
        let store = Store::new(store, seal.as_ref(), &endpoint.client_id);
        let unkept = |why| format!("the sign-in could not be kept, so it was not begun: {why}");
        store.probe().map_err(|why| LoginError::Wrong(unkept(why)))?;
        let (control, counters) = (Handle::current(), Counters::new());
        let slots = &mut grants::slots(all, keyvault, &control, &counters);
        let application = Application::new(endpoint, proof, identity, &scope, slots).map_err(failed)?;
        Ok(Self { application, store })
    }

    pub async fn browser(&self) -> Result<Browser, LoginError> {
        let deaf = |error| failed(format!("cannot listen for the browser's answer: {error}"));
        let loopback = Loopback::open().await.map_err(deaf)?;
        let (state, verifier, path) = (random()?, random()?, random()?);
        let challenge = digest::digest(&digest::SHA256, verifier.expose().as_bytes());
        let challenge = URL_SAFE_NO_PAD.encode(challenge.as_ref());
        let redirect = loopback.address();
        let fields = [
            ("client_id", self.application.endpoint.client_id()),
            ("response_type", "code"),
            ("redirect_uri", &redirect),
            ("response_mode", "query"),
            ("scope", self.application.endpoint.scope()),
            ("state", state.expose()),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            // The person who sets up the gateway is usually signed in to the browser with a different account.
            ("prompt", "select_account"),
        ];
        let fields =
            fields.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        let page = self.application.endpoint.beside("authorize");
        let address = format!("{page}?{}", fields.join("&"));
        let led = Arc::new(Opening::new(&path, &address));
        Ok(Browser {
            opening: format!("{redirect}{}", led.path().expose()),
            led,
            address,
            loopback,
            state,
            verifier,
        })
    }

    /// Waits for the browser, and stores what it brought.
    pub async fn finish(&self, browser: Browser) -> Result<SignedIn, LoginError> {
        let redirect = browser.loopback.address();
        let waiting = browser.loopback.wait(&browser.state, &browser.led);
        let minutes = BROWSER_TIMEOUT.as_secs() / 60;
        let late = |_| {
            failed(format!(
                "nobody signed in within {minutes} minutes; run the command again"
            ))
        };
        let code = match tokio::time::timeout(BROWSER_TIMEOUT, waiting)
            .await
            .map_err(late)?
        {
            Brought::OpenedTwice => {
                return Err(failed(
                    "the address for the browser was opened twice, perhaps by another user of this machine, so the sign-in \
                     was ended; run the command again, with --no-browser or --device-code if it happens again",
                ));
            }
            Brought::Code(code) => code,
            Brought::Refusal(error, description) => return Err(self.refused(&error, &description)),
        };
        let pairs = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", redirect.as_str()),
            ("code_verifier", browser.verifier.expose()),
        ];
        let granted = self.application.ask_with(&pairs).await.map_err(failed)?;
        self.keep(&granted).await
    }

    /// A refusal that came through the browser, read like one of the token endpoint.
    fn refused(&self, error: &str, description: &str) -> LoginError {
        let body = serde_json::json!({"error": error, "error_description": description}).to_string();
        let refusal = refused::read(400, body.as_bytes(), None);
        LoginError::Failed(self.application.endpoint.sentence(&refusal))
    }

    pub async fn device(&self) -> Result<DeviceCode, LoginError> {
        let asked = Instant::now();
        let endpoint = &self.application.endpoint;
        let body = endpoint
            .post(&endpoint.beside("devicecode"), &[])
            .await
            .map_err(failed)?;
        let other = || failed("the authority answered with something other than a device code");
        read_device(&body, asked).ok_or_else(other)
    }

    /// Asks until the person has signed in, and stores what was granted.
    pub async fn poll(&self, device: &DeviceCode) -> Result<SignedIn, LoginError> {
        let pairs = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device.code.expose()),
        ];
        let mut pause = device.pause;
        while Instant::now() + pause < device.until {
            tokio::time::sleep(pause).await;
            match self.application.ask_with(&pairs).await {
                Ok(granted) => return self.keep(&granted).await,
                Err(error) => pause = next_pause(&error, pause)?,
            }
        }
        Err(expired())
    }

    async fn keep(&self, granted: &Granted) -> Result<SignedIn, LoginError> {
        let Some(token) = &granted.refresh_token else {
            return Err(failed(
                "entra gave a token but no refresh token, so the gateway could not renew it; look whether a policy of \
                 the tenant forbids offline_access",
            ));
        };
        let account = Account::of(granted);
        let kept = Kept {
            token: token.clone(),
            account: account.name.clone().unwrap_or_default(),
        };
        let unkept = |why| {
            failed(format!(
                "{account} signed in, but the sign-in cannot be kept: {why}"
            ))
        };
        self.store.replace(&kept, None).map_err(unkept)?;
        Ok(SignedIn {
            account,
            store: self.store.path().to_owned(),
            protection: self.store.protection(),
        })
    }
}

fn failed(why: impl ToString) -> LoginError {
    LoginError::Failed(why.to_string())
}

fn expired() -> LoginError {
    failed("the code has expired before anybody signed in; run the command again")
}

/// When to ask again, if it is worth it.
fn next_pause(error: &TokenError, pause: Duration) -> Result<Duration, LoginError> {
    let slower = (pause + POLL_PAUSE).min(POLL_PAUSE_MAX);
    let refused = match error {
        TokenError::Refused(refused) => refused,
        // A network that is away for a moment (RFC 8628 section 3.5 wants the pace reduced).
        _ if error.is_silence() => return Ok(slower),
        _ => return Err(failed(error)),
    };
    match refused.refusal.error.as_deref() {
        Some("authorization_pending") => Ok(pause),
        Some("slow_down") => Ok(slower),
        Some("expired_token") => Err(expired()),
        Some("authorization_declined" | "access_denied") => {
            Err(failed("the person at the other device declined the sign-in"))
        }
        _ if refused.refusal.outlook != Outlook::AfterFix => Ok(slower),
        _ => Err(failed(error)),
    }
}

#[derive(Deserialize)]
struct DeviceFields {
    device_code: String,
    user_code: String,
    verification_uri: String,
    expires_in: Option<u64>,
    interval: Option<u64>,
}

fn read_device(body: &[u8], asked: Instant) -> Option<DeviceCode> {
    let fields: DeviceFields = serde_json::from_slice(body).ok()?;
    let is_address =
        fields.verification_uri.starts_with("https://") || fields.verification_uri.starts_with("http://");
    if !is_address
        || !is_shown(&fields.verification_uri)
        || !is_shown(&fields.user_code)
        || fields.device_code.is_empty()
    {
        return None;
    }
    let pause = fields.interval.map_or(POLL_PAUSE, Duration::from_secs);
    let life = fields.expires_in.map_or(DEVICE_LIFE_MAX, Duration::from_secs);
    Some(DeviceCode {
        address: fields.verification_uri,
        user_code: fields.user_code,
        code: Secret::new(fields.device_code),
        pause: pause.clamp(POLL_PAUSE_MIN, POLL_PAUSE_MAX),
        until: asked + life.min(DEVICE_LIFE_MAX),
    })
}

/// Whether a text can be shown on a terminal as it is.
fn is_shown(text: &str) -> bool {
    !text.is_empty() && text.len() <= SHOWN_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// 256 random bits, as a verifier and a state want them.
fn random() -> Result<Secret, LoginError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| failed("the operating system gives no random bytes"))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Login, LoginError, next_pause, read_device};
    use crate::entra::answer::{HTML, RefusedToken, TIMEOUT, TokenError};
    use crate::entra::refused;
    use crate::model::{ClientId, Cloud, IdentityName};
    use crate::outbound::Trust;
    use crate::settings::{ClientProof, EndpointSettings, GrantSettings, IdentityRole, IdentitySettings};

    const PAUSE: Duration = Duration::from_secs(5);

    fn refused(status: u16, error: &str) -> TokenError {
        let refusal = refused::read(status, format!("{{\"error\":\"{error}\"}}").as_bytes(), None);
        let sentence = refusal.to_string();
        TokenError::Refused(Box::new(RefusedToken { refusal, sentence }))
    }

    #[test]
    fn polling_continues_slows_down_or_ends_as_entra_asks() {
        for (error, seconds) in [
            (refused(400, "authorization_pending"), 5),
            (refused(400, "slow_down"), 10),
            (refused(503, ""), 10),
            (refused(429, ""), 10),
            (TIMEOUT.into(), 10),
        ] {
            let next = next_pause(&error, PAUSE).unwrap();
            assert_eq!(next, Duration::from_secs(seconds), "{error}");
        }
        for (error, part) in [
            (refused(400, "expired_token"), "has expired"),
            (refused(400, "authorization_declined"), "declined"),
            (refused(400, "access_denied"), "declined"),
            (refused(400, "bad_verification_code"), "bad_verification_code"),
            (refused(401, "invalid_client"), "invalid_client"),
            (HTML.into(), "web page"),
        ] {
            let LoginError::Failed(why) = next_pause(&error, PAUSE).unwrap_err() else {
                panic!("the settings are not to blame for {error}");
            };
            assert!(why.contains(part), "{why}");
        }
        let most = next_pause(&refused(400, "slow_down"), Duration::from_secs(59)).unwrap();
        assert_eq!(most, Duration::from_secs(60));
    }

    fn login(folder: &std::path::Path) -> Login {
        let endpoint = EndpointSettings {
            authority: "https://login.example".to_owned(),
            token_url: "https://login.example/contoso/oauth2/v2.0/token".to_owned(),
            client_id: ClientId::parse("11111111-2222-3333-4444-555555555555").unwrap(),
            trust: Trust::Only([].into()),
            timeout: PAUSE,
        };
        let identity = IdentitySettings {
            name: IdentityName::parse("flows").unwrap(),
            grant: GrantSettings::SignIn {
                endpoint,
                proof: ClientProof::Public,
                store: folder.join("kept"),
                seal: None,
            },
            cloud: Cloud::Public,
            scope: Cloud::Public.scope().to_owned(),
            audience: Cloud::Public.audience().to_owned(),
            tenant: None,
            role: IdentityRole::Serves,
        };
        Login::new(&identity, &[], None).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_browser_that_never_answers_is_given_up_after_five_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let login = login(folder.path());
        let begun = Instant::now();
        let browser = login.browser().await.unwrap();
        let LoginError::Failed(why) = login.finish(browser).await.unwrap_err() else {
            panic!("the settings are not to blame");
        };
        assert!(why.contains("within 5 minutes"), "{why}");
        assert_eq!(begun.elapsed().as_secs(), 300);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_address_for_the_browser_is_what_entra_documents() {
        let folder = tempfile::tempdir().unwrap();
        let login = login(folder.path());
        let (first, second) = (login.browser().await.unwrap(), login.browser().await.unwrap());
        let (page, query) = first.address.split_once('?').unwrap();
        assert_eq!(page, "https://login.example/contoso/oauth2/v2.0/authorize");
        for part in [
            "client_id=11111111%2D2222%2D3333%2D4444%2D555555555555",
            "response_type=code",
            "redirect_uri=http%3A%2F%2Flocalhost%3A",
            "code_challenge_method=S256",
            "scope=https%3A%2F%2Fservice%2Eflow%2Emicrosoft%2Ecom%2F%2F%2Edefault%20offline%5Faccess%20openid%20profile",
        ] {
            assert!(query.contains(part), "{part}: {query}");
        }
        assert!(
            !query.contains(first.verifier.expose()),
            "the verifier stays here"
        );
        assert_ne!(first.verifier.expose(), second.verifier.expose());
        assert_ne!(first.state.expose(), second.state.expose());
        assert!(!format!("{first:?}").contains(first.state.expose()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_code_is_bounded_and_can_be_shown() {
        let asked = Instant::now();
        let read = |more: &str| {
            let body = format!(
                "{{\"device_code\":\"canary\",\"user_code\":\"ABCD-EFGH\",\
                 \"verification_uri\":\"https://microsoft.com/devicelogin\"{more}}}"
            );
            read_device(body.as_bytes(), asked)
        };
        let device = read(",\"expires_in\":900,\"interval\":5").unwrap();
        assert_eq!(
            (device.pause, device.until),
            (PAUSE, asked + Duration::from_secs(900))
        );
        assert!(!format!("{device:?}").contains("canary"));
        let wild = read(",\"expires_in\":18446744073709551615,\"interval\":0").unwrap();
        assert_eq!(
            (wild.pause, wild.until),
            (Duration::from_secs(1), asked + Duration::from_secs(900))
        );
        assert_eq!(read("").unwrap().pause, PAUSE);
        for bad in [
            "{}",
            "<html>",
            "{\"device_code\":\"a\",\"user_code\":\"a\\u001b[2J\",\"verification_uri\":\"https://a.example\"}",
            "{\"device_code\":\"a\",\"user_code\":\"b\",\"verification_uri\":\"javascript:alert(1)\"}",
            "{\"device_code\":\"\",\"user_code\":\"b\",\"verification_uri\":\"https://a.example\"}",
        ] {
            assert!(read_device(bad.as_bytes(), asked).is_none(), "{bad}");
        }
    }
}
