//! The checks that a trigger makes before a run, in the platform's order: address, exactly one authorization,
//! token or signature, method, condition, schema.

use serde_json::Value;

use super::faults::PlatformFault;
use super::jwt::Mint;
use super::trigger::{Condition, Mode, Signatures, Trigger};
use super::wire::Head;
use super::{faults, form, ids, jwt};

/// A refusal, with the values for its message.
#[derive(Clone, Debug)]
pub struct Refused {
    pub fault: PlatformFault,
    /// The scheme of the `Authorization` header.
    pub scheme: String,
    /// What the schema check found.
    pub details: String,
}

impl From<PlatformFault> for Refused {
    fn from(fault: PlatformFault) -> Self {
        Self {
            fault,
            scheme: String::new(),
            details: String::new(),
        }
    }
}

/// Verifies tokens.
pub struct Verifier<'a> {
    /// Knows Entra's key.
    pub mint: &'a Mint,
    /// Whether a token was revoked.
    pub revoked: &'a dyn Fn(&str) -> bool,
}

/// Checks everything in the head.
///
/// # Errors
/// The first failure, as the platform reports it.
pub fn check_head(trigger: &Trigger, head: &Head, verifier: &Verifier<'_>) -> Result<(), Refused> {
    let query = form::decode(head.query());
    if form::values(&query, "api-version")
        .iter()
        .all(|version| version.is_empty())
    {
        return Err(faults::API_VERSION_MISSING.into());
    }
    check_authorization(trigger, head, &query, verifier)?;
    if !trigger.methods.contains(&head.method) {
        return Err(faults::METHOD_NOT_VALID.into());
    }
    match trigger.condition {
        Condition::Enabled => Ok(()),
        Condition::Disabled => Err(faults::DISABLED.into()),
        Condition::Deleted => Err(faults::DELETED.into()),
    }
}

/// Checks the signature of an address that the platform made for `permission`.
///
/// # Errors
/// If a part is missing, repeated or wrong.
pub fn check_signature(
    query: &[(String, String)],
    permission: &str,
    signature: &str,
) -> Result<(), PlatformFault> {
    let fits = form::single(query, "sp") == Some(permission)
        && form::single(query, "sv") == Some("1.0")
        && form::single(query, "sig") == Some(signature);
    if fits {
        Ok(())
    } else {
        Err(faults::SIGNATURE_INVALID)
    }
}

/// Requires at most one authorization, and returns the bearer's credentials.
///
/// # Errors
/// If there are two, or one of an unknown scheme.
pub fn single_bearer<'a>(head: &'a Head, query: &[(String, String)]) -> Result<Option<&'a str>, Refused> {
    let shown = head.headers_named("authorization");
    let Some(first) = shown.first() else {
        return Ok(None);
    };
    let (scheme, credentials) = first.split_once(' ').unwrap_or((first, ""));
    let has_signature = !form::values(query, "sig").is_empty();
    if shown.len() > 1 || has_signature || !scheme.eq_ignore_ascii_case("bearer") {
        let scheme = scheme.to_owned();
        return Err(Refused {
            scheme,
            ..faults::MORE_THAN_ONE.into()
        });
    }
    Ok(Some(credentials.trim()))
}

/// Checks a body against the required properties.
///
/// # Errors
/// Names what is missing, as the platform does.
pub fn check_schema(trigger: &Trigger, body: &[u8]) -> Result<(), Refused> {
    if trigger.required.is_empty() {
        return Ok(());
    }
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let missing: Vec<&str> = trigger
        .required
        .iter()
        .map(String::as_str)
        .filter(|name| parsed.get(name).is_none())
        .collect();
    let details = match (parsed.is_object(), missing.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => format!(
            "Required properties are missing from object: {}.",
            missing.join(", ")
        ),
        (false, _) => "Invalid type. Expected Object but got another type.".to_owned(),
    };
    Err(Refused {
        details,
        ..faults::SCHEMA_MISMATCH.into()
    })
}

fn check_authorization(
    trigger: &Trigger,
    head: &Head,
    query: &[(String, String)],
    verifier: &Verifier<'_>,
) -> Result<(), Refused> {
    let bearer = single_bearer(head, query)?;
    let has_signature = !form::values(query, "sig").is_empty();
    match (&trigger.mode, has_signature, bearer) {
        (Mode::Anyone, true, _) => {
            let permission = format!("/triggers/{}/run", trigger.name);
            Ok(check_signature(query, &permission, &trigger.signature)?)
        }
        (Mode::Anyone, false, None) => Err(faults::SHARED_ACCESS_REQUIRED.into()),
        (Mode::Anyone, false, Some(_)) => Err(faults::NO_OAUTH_POLICY.into()),
        (Mode::AnyUser | Mode::SpecificUsers(_), true, None) if trigger.signatures != Signatures::Ignored => {
            if trigger.signatures == Signatures::Disabled {
                return Err(faults::SAS_DISABLED.into());
            }
            let permission = format!("/triggers/{}/run", trigger.name);
            Ok(check_signature(query, &permission, &trigger.signature)?)
        }
        // What a tenant mode answers to an address that is still signed is not documented; it requires a
        // token in any case.
        (Mode::AnyUser | Mode::SpecificUsers(_), _, None) => Err(faults::OAUTH_REQUIRED.into()),
        (Mode::AnyUser | Mode::SpecificUsers(_), _, Some(token)) => {
            Ok(check_token(trigger, token, verifier)?)
        }
    }
}

/// Checks a token for a trigger.
///
/// # Errors
/// One fault for tokens that are invalid everywhere, another for tokens that are invalid for this trigger.
pub fn check_token(trigger: &Trigger, token: &str, verifier: &Verifier<'_>) -> Result<(), PlatformFault> {
    if (verifier.revoked)(token) {
        return Err(faults::TOKEN_INVALID);
    }
    let claims = verifier.mint.verify(token).ok_or(faults::TOKEN_INVALID)?;
    if !jwt::within_times(&claims, ids::now()) {
        return Err(faults::TOKEN_INVALID);
    }
    let claim = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let tenant = &trigger.tenant;
    let issuer_fits = claim("iss") == format!("https://sts.windows.net/{tenant}/")
        || claim("iss") == format!("https://login.microsoftonline.com/{tenant}/v2.0");
    let user_fits = match &trigger.mode {
        Mode::SpecificUsers(oids) => oids.is_empty() || oids.iter().any(|oid| oid == claim("oid")),
        Mode::AnyUser | Mode::Anyone => true,
    };
    if claim("aud") == trigger.audience && claim("tid") == tenant && issuer_fits && user_fits {
        return Ok(());
    }
    Err(faults::CLAIMS_MISMATCH.with_status(trigger.mismatch_status))
}
