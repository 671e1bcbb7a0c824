//! The only reader of what the token endpoint answers: what was granted, or a [`TokenError`]. It trusts nothing in the body,
//! and takes numbers as numbers or as text, because several token services send text.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::entra::date;
use crate::entra::date::Clocks;
use crate::entra::failure::Failure;
use crate::entra::refused::Refusal;
use crate::model::claims::Claims;
use crate::model::{FailureRow, Outlook, Page, Secret, failures, fill};
use crate::outbound::FetchFault;
use crate::secrets::VaultError;

/// Longest token that is used; a request head with a longer one would be refused upstream.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Life of a token whose answer names none: short, so that a wrong guess heals itself (an endless one would not).
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);
/// Longest life believed; Entra's longest is 28 hours.
pub(crate) const LIFE_MAX: Duration = Duration::from_secs(48 * 3600);

const WRONG_ENDPOINT: &str =
    "Compare the authority: what answers there is no token endpoint of Entra, or it has a problem.";
const NETWORK: &str = "Check DNS, firewall and routing between the gateway's host and the authority; `flowgate doctor` shows where it ends.";
const OTHER_ANSWERS: &str =
    "Compare the authority; a proxy or a portal of the network may answer in its place.";
const WRITER: &str = "Check the program that writes the token file, and the rights of the file.";

failures! {
    /// Why there is no token, apart from what Entra, the platform and key vaults report themselves.
    TOKEN:
    UNREACHABLE "unreachable" "unreachable" HostAdmin Transient Page::NONE,
        "the token endpoint cannot be reached: {detail}", NETWORK;
    TIMEOUT "timeout" "timeout" HostAdmin Transient Page::NONE,
        "the token endpoint did not answer within {detail}", NETWORK;
    CUT "cut" "cut" HostAdmin Transient Page::NONE,
        "the answer of the token endpoint broke off", NETWORK;
    TOO_LARGE "too-large" "too-large" Operator Transient Page::NONE,
        "the answer of the token endpoint is larger than 256 KiB", WRONG_ENDPOINT;
    EMPTY "empty" "empty" Operator Transient Page::NONE,
        "the token endpoint answered 200 with an empty body", WRONG_ENDPOINT;
    HTML "html" "html" Operator Transient Page::NONE,
        "the token endpoint answered with a web page", OTHER_ANSWERS;
    NOT_JSON "not-json" "not-json" Operator Transient Page::NONE,
        "the token endpoint answered 200 with something other than JSON", WRONG_ENDPOINT;
    NO_TOKEN "no-token" "no-token" Operator Transient Page::NONE,
        "the answer of the token endpoint has no usable access_token", WRONG_ENDPOINT;
    BORN_EXPIRED "born-expired" "born-expired" Operator Transient Page::NONE,
        "the token endpoint gave a token that has already expired", WRONG_ENDPOINT;
    NOT_BEARER "not-bearer" "not-bearer" Operator Transient Page::NONE,
        "the token endpoint gave a token of another type than Bearer", WRONG_ENDPOINT;
    REDIRECTED "redirected" "redirected" Operator AfterFix Page::NONE,
        "the token endpoint answered with a redirect (status {detail}), which is not followed", OTHER_ANSWERS;
    FILE "file" "file" Operator AfterFix Page::NONE,
        "the token file cannot be read: {detail}", WRITER;
    FILE_EXPIRED "file-expired" "file-expired" Operator AfterFix Page::NONE,
        "the token in the file has expired; the program that writes it has stopped renewing it", WRITER;
    UNSIGNED "unsigned" "unsigned" HostAdmin Transient Page::NONE,
        "the assertion for the token endpoint could not be signed; the machine gives no random numbers",
        "Check the random source of this host's kernel; without random numbers nothing can be signed.";
    CREDENTIAL "credential" "credential" Operator AfterFix Page::new(
        "Microsoft Entra admin center, App registrations, {client_id}, Certificates & secrets",
        "az ad app credential reset --id {client_id} --append --cert @certificate.pem",
    ),
        "{detail}",
        "Put a certificate that is valid, with its private key, where the settings point, and upload its public part.";
    NOT_SIGNED_IN "not-signed-in" "not-signed-in" Operator AfterFix Page::LOGIN,
        "{detail}",
        "Sign in with the account that the identity is to use; a gateway that runs takes it up within a minute.";
}

#[derive(Debug, Clone)]
pub enum TokenError {
    /// A row of [`TOKEN`], with the `{detail}` of its text.
    Own(&'static FailureRow, String),
    /// What the platform should have given is not there, or not good for anything.
    Platform(Box<Failure>),
    Vault(Box<VaultError>),
    Refused(Box<RefusedToken>),
}

impl TokenError {
    pub(crate) fn own(row: &'static FailureRow, detail: impl Into<String>) -> Self {
        Self::Own(row, detail.into())
    }

    pub fn row(&self) -> &'static FailureRow {
        match self {
            Self::Own(row, _) => row,
            Self::Platform(failure) => failure.row,
            Self::Vault(error) => error.row,
            Self::Refused(refused) => refused.refusal.row,
        }
    }

    pub fn label(&self) -> &'static str {
        match self {
            Self::Platform(failure) => failure.label,
            _ => self.row().label,
        }
    }

    pub(crate) fn outlook(&self) -> Outlook {
        match self {
            Self::Refused(refused) => refused.refusal.outlook,
            Self::Platform(failure) => failure.outlook,
            Self::Vault(error) => error.outlook,
            _ => self.row().outlook,
        }
    }

    /// Whether no answer came to a question that may have arrived.
    pub(crate) fn is_silence(&self) -> bool {
        [UNREACHABLE, TIMEOUT, CUT].contains(&self.row())
    }

    /// What was seen, without what to do about it.
    pub fn seen(&self) -> String {
        match self {
            Self::Own(row, detail) => fill(row.seen, &[("detail", detail)]).into_owned(),
            Self::Platform(failure) => failure.seen.clone(),
            Self::Vault(error) => error.seen.clone(),
            Self::Refused(refused) => refused.refusal.to_string(),
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform(failure) => f.write_str(&failure.sentence),
            Self::Vault(error) => write!(f, "{error}"),
            Self::Refused(refused) => write!(f, "the token endpoint refused: {refused}"),
            // The detail names the next step by itself.
            Self::Own(row, detail) if row.seen == "{detail}" => f.write_str(detail),
            Self::Own(row, _) => {
                let (who, outlook) = (row.fixed_by.must_fix(), row.outlook.clause());
                write!(f, "{}. {} {who}; {outlook}", self.seen(), row.what)
            }
        }
    }
}

impl From<&'static FailureRow> for TokenError {
    fn from(row: &'static FailureRow) -> Self {
        Self::own(row, "")
    }
}

impl From<FetchFault> for TokenError {
    fn from(fault: FetchFault) -> Self {
        match fault {
            FetchFault::Unreachable(why) => Self::own(UNREACHABLE, why),
            FetchFault::Timeout(timeout) => Self::own(TIMEOUT, format!("{timeout:?}")),
            FetchFault::Cut => CUT.into(),
            FetchFault::TooLarge => TOO_LARGE.into(),
            FetchFault::Redirected(status) => Self::own(REDIRECTED, status.to_string()),
        }
    }
}

impl std::error::Error for TokenError {}

/// A refusal with the sentence for the log.
#[derive(Debug, Clone)]
pub struct RefusedToken {
    pub refusal: Refusal,
    /// Names identity, tenant and client id, the cause and who fixes it.
    pub sentence: String,
}

impl fmt::Display for RefusedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

#[derive(Debug)]
pub struct Granted {
    pub token: Secret,
    /// How long it may be used, counted from when it was asked for.
    pub life: Duration,
    /// When the issuer wants it renewed, counted likewise.
    pub refresh_in: Option<Duration>,
    /// What the next token can be asked for with, where an account signed in.
    pub refresh_token: Option<Secret>,
    pub id_token: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    /// A moment since the epoch, which may be written as a date.
    fn moment(&self) -> Option<Duration> {
        self.duration().or_else(|| match self {
            Self::Number(_) => None,
            Self::Text(text) => date::read(text),
        })
    }

    fn duration(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.trim().parse().ok()?,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[derive(Deserialize)]
struct Fields {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
    expires_on: Option<Seconds>,
    refresh_in: Option<Seconds>,
    refresh_token: Option<String>,
    id_token: Option<String>,
}

/// Reads the body of a 200.
pub fn read(body: &[u8]) -> Result<Granted, TokenError> {
    read_dated(body, None)
}

/// Reads the body of a 200 that may give the expiry only as a date, as managed identities do; that takes the clocks.
pub(crate) fn read_dated(body: &[u8], now: Option<Clocks>) -> Result<Granted, TokenError> {
    let text = body.trim_ascii();
    if text.is_empty() {
        return Err(EMPTY.into());
    }
    if text.starts_with(b"<") {
        return Err(HTML.into());
    }
    let fields: Fields = serde_json::from_slice(text).map_err(|_| NOT_JSON)?;
    let token = fields.access_token.map(Secret::new).ok_or(NO_TOKEN)?;
    if !usable(token.expose()) {
        return Err(NO_TOKEN.into());
    }
    if fields
        .token_type
        .is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"))
    {
        return Err(NOT_BEARER.into());
    }
    let seconds = |field: &Option<Seconds>| field.as_ref().and_then(Seconds::duration);
    // The token's own dates are compared with each other, not with our clock, which may be wrong by years.
    let own = own_life(token.expose()).unwrap_or(LIFE_MAX).min(LIFE_MAX);
    let dated = || Some(now?.left(fields.expires_on.as_ref()?.moment()?, own));
    let life = seconds(&fields.expires_in).or_else(dated).unwrap_or(UNKNOWN_LIFE);
    Ok(Granted {
        life: life.min(own),
        refresh_in: fields.refresh_in.as_ref().and_then(Seconds::duration),
        refresh_token: kept(fields.refresh_token),
        id_token: kept(fields.id_token),
        token,
    })
}

/// A further token of the answer, if it is one.
fn kept(token: Option<String>) -> Option<Secret> {
    token.map(Secret::new).filter(|token| usable(token.expose()))
}

/// Whether a text can be sent as a bearer token (RFC 6750 section 2.1, and no longer than any server takes).
pub(crate) fn usable(token: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
    !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(plain)
}

/// How long a token says it lives. It is read without checking its signature: it may shorten the use of a token, never
/// lengthen it.
fn own_life(token: &str) -> Option<Duration> {
    let claims = Claims::read(token)?;
    let start = claims.number("iat").or_else(|| claims.number("nbf"))?;
    Duration::try_from_secs_f64(claims.number("exp")? - start).ok()
}

/// What a JWT says, without a look at its signature; nothing when it is opaque.
pub(crate) fn payload<T: DeserializeOwned>(token: &str) -> Option<T> {
    Claims::read(token)?.shaped()
}

/// When a token says its life ends, in seconds since the epoch; read without trust, too.
pub(crate) fn expires(token: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(Claims::read(token)?.number("exp")?).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_is_sound() {
        for row in super::TOKEN {
            row.assert_sound();
        }
    }

    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::proptest;

    use super::{Clocks, NOT_BEARER, expires, own_life, read};

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn numbers_may_be_texts() {
        let granted = read(br#"{"access_token":"a.b","expires_in":"3599","refresh_in":"1800"}"#).unwrap();
        assert_eq!(granted.life, Duration::from_secs(3599));
        assert_eq!(granted.refresh_in, Some(Duration::from_secs(1800)));
    }

    #[test]
    fn a_token_that_says_it_lives_shorter_is_believed() {
        let token = jwt(r#"{"iat":1000,"exp":1060}"#);
        let body = format!(r#"{{"token_type":"bearer","access_token":"{token}","expires_in":3599}}"#);
        assert_eq!(read(body.as_bytes()).unwrap().life, Duration::from_secs(60));
    }

    #[test]
    fn an_unknown_life_is_short() {
        assert_eq!(
            read(br#"{"access_token":"opaque"}"#).unwrap().life,
            Duration::from_secs(300)
        );
    }

    #[test]
    fn an_expiry_date_counts_where_no_life_is_given() {
        let now = Duration::from_secs(1_586_984_735 - 600);
        let life = |body: &str| {
            super::read_dated(body.as_bytes(), Some(Clocks::agreed(now)))
                .unwrap()
                .life
        };
        for (body, seconds) in [
            (r#"{"access_token":"a","expires_on":"1586984735"}"#, 600),
            (r#"{"access_token":"a","expires_on":1586984735}"#, 600),
            (
                r#"{"access_token":"a","expires_in":"60","expires_on":"1586984735"}"#,
                60,
            ),
            (r#"{"access_token":"a","expires_on":"1586900000"}"#, 0),
            (
                r#"{"access_token":"a","expires_on":"04/15/2020 21:05:35 +00:00"}"#,
                600,
            ),
            (
                r#"{"access_token":"a","expires_on":"4/15/2020 9:05:35 PM +00:00"}"#,
                600,
            ),
            (r#"{"access_token":"a","expires_on":"tomorrow"}"#, 300),
            (r#"{"access_token":"a"}"#, 300),
        ] {
            assert_eq!(life(body), Duration::from_secs(seconds), "{body}");
        }
    }

    #[test]
    fn a_refresh_token_is_read_if_it_is_one() {
        let token = |more: &str| {
            let body = format!(r#"{{"access_token":"a"{more}}}"#);
            let granted = read(body.as_bytes()).unwrap();
            granted.refresh_token.map(|token| token.expose().to_owned())
        };
        assert_eq!(token(""), None);
        assert_eq!(
            token(r#","refresh_token":"0.AX-b_c""#),
            Some("0.AX-b_c".to_owned())
        );
        assert_eq!(token(r#","refresh_token":null"#), None);
        for bad in ["", "a b", "a\\nb"] {
            assert_eq!(token(&format!(r#","refresh_token":"{bad}""#)), None, "{bad}");
        }
    }

    #[test]
    fn each_useless_answer_has_its_name() {
        let name = |body: &[u8]| read(body).map(|_| ()).unwrap_err().to_string();
        assert!(name(b" \r\n").contains("empty"));
        assert!(name(b"<!doctype html>").contains("web page"));
        assert!(name(b"ok").contains("other than JSON"));
        assert!(name(b"{}").contains("no usable access_token"));
        assert!(name(br#"{"access_token":"a b"}"#).contains("no usable access_token"));
        assert!(name(br#"{"access_token":"a\nb"}"#).contains("no usable access_token"));
        let proof = read(br#"{"access_token":"a","token_type":"PoP"}"#).unwrap_err();
        assert_eq!(proof.row(), NOT_BEARER);
    }

    #[test]
    fn an_opaque_token_has_no_dates() {
        for token in ["opaque", "a.b.c", "a.b.c.d", ""] {
            assert!(own_life(token).is_none() && expires(token).is_none(), "{token}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_ends_the_reader(body in proptest::collection::vec(0u8..=255, 0..300)) {
            let _ = read(&body);
        }

        #[test]
        fn no_token_ends_the_reader(token in "[ -~]{0,200}") {
            let _ = (own_life(&token), expires(&token));
        }
    }
}
