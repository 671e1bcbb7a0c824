//! The only reader of what the token endpoint answers: what was granted, or a [`TokenError`]. It trusts nothing in the body,
//! and takes numbers as numbers or as text, because several token services send text.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::entra::date;
use crate::entra::date::Clocks;
use crate::entra::failure::Failure;
use crate::entra::refused::Refusal;
use crate::model::Secret;
use crate::model::claims::Claims;
use crate::outbound::ANSWER_BYTES_MAX;
use crate::secrets::VaultError;

/// Longest token that is used; a request head with a longer one would be refused upstream.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Life of a token whose answer names none: short, so that a wrong guess heals itself (an endless one would not).
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);
/// Longest life believed; Entra's longest is 28 hours.
pub(crate) const LIFE_MAX: Duration = Duration::from_secs(48 * 3600);

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// No connection, or it broke before an answer.
    #[error(
        "the token endpoint cannot be reached: {0}; whoever runs the gateway's host must look after the way there, and \
         `flowgate doctor` shows where it ends"
    )]
    Unreachable(String),
    /// No whole answer within the deadline.
    #[error("the token endpoint did not answer within {0:?}")]
    Timeout(Duration),
    /// The answer broke off.
    #[error("the answer of the token endpoint broke off")]
    Cut,
    /// More bytes than any token answer has.
    #[error("the answer of the token endpoint is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// A 200 without a body.
    #[error("the token endpoint answered 200 with an empty body")]
    Empty,
    /// A web page, as a captive portal or a proxy sends it.
    #[error("the token endpoint answered with a web page; is there a proxy or portal between?")]
    Html,
    /// A body that is not the JSON of RFC 6749 section 5.1.
    #[error("the token endpoint answered 200 with something other than JSON")]
    NotJson,
    /// JSON without a usable `access_token`.
    #[error("the answer of the token endpoint has no usable access_token")]
    NoToken,
    /// A token whose life is over when it arrives.
    #[error("the token endpoint gave a token that has already expired")]
    BornExpired,
    /// A token of another type than Bearer.
    #[error("the token endpoint gave a token of another type than Bearer")]
    NotBearer,
    /// A redirect, which a token request must not follow.
    #[error(
        "the token endpoint answered with a redirect (status {0}), which is not followed; check the authority"
    )]
    Redirected(u16),
    /// The file cannot be read.
    #[error("the token file cannot be read: {0}")]
    File(String),
    /// The token in the file has expired.
    #[error("the token in the file has expired; the program that writes it has stopped renewing it")]
    FileExpired,
    /// There is nothing to sign with, or no random numbers to sign with.
    #[error("the assertion for the token endpoint could not be signed; the machine gives no random numbers")]
    Unsigned,
    /// What the platform should have given is not there, or not good for anything.
    #[error("{}", .0.sentence)]
    Platform(Box<Failure>),
    /// The credential of the application cannot be used.
    #[error("{0}")]
    Credential(String),
    /// The secret to show Entra cannot be read.
    #[error("{0}")]
    Vault(Box<VaultError>),
    /// Entra says no.
    #[error("the token endpoint refused: {0}")]
    Refused(Box<Refused>),
    /// Nobody has signed in for an identity that needs it, or what is kept of it cannot be used.
    #[error("{0}")]
    NotSignedIn(String),
}

/// A refusal with the sentence for the log.
#[derive(Debug, Clone)]
pub struct Refused {
    /// What was read from the answer.
    pub refusal: Refusal,
    /// Names identity, tenant and client id, the cause and who mends it.
    pub sentence: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// What a good answer says.
#[derive(Debug)]
pub struct Granted {
    /// The token.
    pub token: Secret,
    /// How long it may be used, counted from when it was asked for.
    pub life: Duration,
    /// When the issuer wants it renewed, counted likewise.
    pub refresh_in: Option<Duration>,
    /// What the next token can be asked for with, where an account signed in.
    pub refresh_token: Option<Secret>,
    /// Who signed in, where that was asked for.
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
///
/// # Errors
/// Names what is wrong with the body.
pub fn read(body: &[u8]) -> Result<Granted, TokenError> {
    read_until(body, None)
}

/// Reads the body of a 200 whose token may tell its end by the date alone, as managed identities do.
///
/// # Errors
/// Names what is wrong with the body.
pub(crate) fn read_dated(body: &[u8], now: Clocks) -> Result<Granted, TokenError> {
    read_until(body, Some(now))
}

fn read_until(body: &[u8], now: Option<Clocks>) -> Result<Granted, TokenError> {
    let text = body.trim_ascii();
    if text.is_empty() {
        return Err(TokenError::Empty);
    }
    if text.starts_with(b"<") {
        return Err(TokenError::Html);
    }
    let fields: Fields = serde_json::from_slice(text).map_err(|_| TokenError::NotJson)?;
    let token = fields.access_token.map(Secret::new).ok_or(TokenError::NoToken)?;
    if !usable(token.expose()) {
        return Err(TokenError::NoToken);
    }
    if fields
        .token_type
        .is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"))
    {
        return Err(TokenError::NotBearer);
    }
    let seconds = |field: &Option<Seconds>| field.as_ref().and_then(Seconds::duration);
    // The token's own dates are compared with each other, not with our clock, which may be wrong by years.
    let own = own_life(token.expose()).unwrap_or(LIFE_MAX).min(LIFE_MAX);
    let dated = || Some(now?.left(fields.expires_on.as_ref()?.moment()?, own));
    let told = seconds(&fields.expires_in).or_else(dated).unwrap_or(UNKNOWN_LIFE);
    Ok(Granted {
        life: told.min(own),
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
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::proptest;

    use super::{Clocks, TokenError, expires, own_life, read};

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
    fn an_end_by_the_date_counts_where_no_life_is_told() {
        let now = Duration::from_secs(1_586_984_735 - 600);
        let life = |body: &str| {
            super::read_dated(body.as_bytes(), Clocks::agreed(now))
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
        assert!(matches!(
            read(br#"{"access_token":"a","token_type":"PoP"}"#),
            Err(TokenError::NotBearer)
        ));
    }

    #[test]
    fn an_opaque_token_tells_no_dates() {
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
