//! The claims of an access token, read for comparison and explanation only. No signature is checked, so no
//! claim may be trusted. Microsoft reserves the right to make tokens opaque ("Access tokens in the Microsoft
//! identity platform"), so a token that cannot be read is not a fault. This is the only reader of tokens.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::model::{Cloud, Tenant, clock};

// Enough for an audience or an issuer with a tenant id.
const CLAIM_CHARS_MAX: usize = 128;

// A larger token does not fit into a request header of the platform.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// The payload of a JWT (RFC 7519), unverified.
#[derive(Clone)]
pub struct Claims(Map<String, Value>);

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A claim may contain personal data.
        write!(f, "Claims({})", self.0.len())
    }
}

impl Claims {
    /// Reads a token; `None` if it is opaque.
    pub fn read(token: &str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = token.split('.');
        let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
            return None;
        };
        let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&bytes).ok().map(Self)
    }

    /// Deserializes the claims into `T`; `None` if they do not fit.
    pub fn shaped<T: DeserializeOwned>(self) -> Option<T> {
        serde_json::from_value(Value::Object(self.0)).ok()
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(Value::as_f64)
    }

    /// The words of a claim that is a text with spaces between them, or a list.
    pub fn words(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::String(text)) => text.split_whitespace().map(safe).collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(safe).collect(),
            _ => Vec::new(),
        }
    }

    /// The audience; the first of several.
    pub fn audience(&self) -> Option<&str> {
        match self.0.get("aud") {
            Some(Value::String(aud)) => Some(aud),
            Some(Value::Array(list)) => list.first().and_then(Value::as_str),
            _ => None,
        }
    }

    /// Why the audience cannot match: a flow compares it byte for byte.
    pub fn audience_fault(&self, wanted: &str) -> Option<String> {
        let found = match self.0.get("aud") {
            Some(Value::String(aud)) => aud.as_str(),
            Some(Value::Array(list)) => {
                if list.iter().any(|aud| aud.as_str() == Some(wanted)) {
                    return None;
                }
                list.first().and_then(Value::as_str).unwrap_or("")
            }
            _ => return Some(format!("aud is missing, wanted {}", quoted(wanted))),
        };
        if found == wanted {
            return None;
        }
        Some(format!(
            "aud is {}, wanted {}{}",
            quoted(found),
            quoted(wanted),
            audience_hint(found, wanted)
        ))
    }

    pub fn tenant_fault(&self, wanted: Option<&Tenant>) -> Option<String> {
        let shown = quoted(wanted.map_or("", |tenant| tenant));
        let Some(found) = self.text("tid") else {
            return Some(format!("tid is missing, wanted the tenant {shown}"));
        };
        wanted?.is_not(found).then(|| {
            let found = quoted(found);
            format!("tid is {found}, wanted {shown}: the token is of another tenant")
        })
    }

    /// Why no flow can accept the issuer as Entra.
    pub fn issuer_fault(&self) -> Option<String> {
        let Some(found) = self.text("iss") else {
            return Some("iss is missing".to_owned());
        };
        if ISSUERS.into_iter().any(|issuer| found.starts_with(issuer)) {
            return None;
        }
        Some(format!(
            "iss is {}, which is no issuer of Entra known to Flowgate",
            quoted(found)
        ))
    }

    /// Why the issuer is not that of the token's own tenant in this cloud.
    pub fn issuer_fault_in(&self, cloud: Cloud) -> Option<String> {
        let (Some(found), Some(tid)) = (self.text("iss"), self.text("tid")) else {
            return self.issuer_fault();
        };
        let own = |issuer: &str| {
            let rest = found.strip_prefix(issuer);
            rest.is_some_and(|rest| {
                rest.split('/')
                    .next()
                    .is_some_and(|id| id.eq_ignore_ascii_case(tid))
            })
        };
        if issuers(cloud).into_iter().any(own) {
            return None;
        }
        self.issuer_fault().or_else(|| {
            Some(format!(
                "iss is {}, which is not the issuer of the tenant {} in the cloud {}",
                quoted(found),
                quoted(tid),
                cloud.name()
            ))
        })
    }

    pub fn time_fault(&self, now: SystemTime) -> Option<String> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let seconds = |name: &str| {
            let seconds = self.0.get(name).and_then(Value::as_u64)?;
            Some(i64::try_from(seconds).unwrap_or(i64::MAX))
        };
        if let Some(exp) = seconds("exp").filter(|exp| *exp <= now) {
            return Some(format!(
                "exp is {}: the token has expired",
                clock::dated(exp, now)
            ));
        }
        if let Some(nbf) = seconds("nbf").filter(|nbf| *nbf > now) {
            return Some(format!(
                "nbf is {}: the token is not valid yet or this clock is late",
                clock::dated(nbf, now)
            ));
        }
        None
    }
}

/// Audiences of other APIs that are often requested by mistake, without their last slash (ids from Microsoft
/// Learn, "Verify first-party Microsoft applications in sign-in reports").
const OTHER_AUDIENCES: &[(&str, &str)] = &[
    ("00000003-0000-0000-c000-000000000000", "Microsoft Graph"),
    ("475226c6-020e-4fb2-8a90-7a972cbfc1d4", "Power Apps"),
    (
        "7df0a125-d3be-4c96-aa54-591f83ff541c",
        "the flow service by its id, where the flow compares the address",
    ),
    (
        "8578e004-a5c6-46e7-913e-12f58912df43",
        "the Power Platform management API",
    ),
    (
        "https://api.powerplatform.com",
        "the Power Platform management API",
    ),
    ("https://graph.microsoft.com", "Microsoft Graph"),
    ("https://management.azure.com", "Azure Resource Manager"),
    ("https://management.core.windows.net", "Azure Resource Manager"),
    ("https://service.powerapps.com", "Power Apps"),
    ("https://vault.azure.net", "Key Vault"),
];

/// What the difference between two audiences suggests, with the colon before it.
fn audience_hint(found: &str, wanted: &str) -> String {
    let bare = |audience: &str| audience.trim_end_matches('/').to_ascii_lowercase();
    if wanted.strip_suffix('/') == Some(found) {
        let scope = quoted(&format!("{wanted}/.default"));
        return format!(": the scope lost its second slash and must be {scope}");
    }
    if bare(found) == bare(wanted) {
        return ": the flow compares letter by letter, slashes and case included".to_owned();
    }
    let same = |cloud: &Cloud| bare(cloud.audience()) == bare(found);
    if let Some(cloud) = Cloud::ALL.into_iter().find(same) {
        return format!(": this is the audience of the cloud {}", cloud.name());
    }
    let other = OTHER_AUDIENCES
        .iter()
        .find(|(audience, _)| *audience == bare(found));
    other.map_or_else(String::new, |(_, name)| format!(": this is {name}"))
}

/// Issuers of access tokens, version 1 and 2, in every cloud (Microsoft Learn, "Access tokens in the
/// Microsoft identity platform" and "National clouds and Microsoft Entra ID").
const ISSUERS: [&str; 5] = [
    "https://sts.windows.net/",
    "https://login.microsoftonline.com/",
    "https://login.microsoftonline.us/",
    "https://sts.chinacloudapi.cn/",
    "https://login.partner.microsoftonline.cn/",
];

/// The issuers of one cloud, version 1 first.
fn issuers(cloud: Cloud) -> [&'static str; 2] {
    match cloud {
        Cloud::Public | Cloud::Gcc => ["https://sts.windows.net/", "https://login.microsoftonline.com/"],
        Cloud::GccHigh | Cloud::Dod => ["https://sts.windows.net/", "https://login.microsoftonline.us/"],
        Cloud::China => [
            "https://sts.chinacloudapi.cn/",
            "https://login.partner.microsoftonline.cn/",
        ],
    }
}

/// The issuer that version 1 tokens of a tenant have in a cloud.
pub fn usual_issuer(cloud: Cloud, tid: &str) -> String {
    let [first, _] = issuers(cloud);
    format!("{first}{}/", safe(tid))
}

/// A claim in quotation marks, safe to print and of limited length.
pub fn quoted(value: &str) -> String {
    format!("\"{}\"", safe(value))
}

/// A claim, safe to print and of limited length.
pub fn safe(value: &str) -> String {
    printable(value, CLAIM_CHARS_MAX)
}

pub fn cut(mut text: String, chars_max: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(chars_max) {
        text.truncate(at);
        text.push('\u{2026}');
    }
    text
}

/// A text that cannot forge or reorder a log line, cut after `chars_max` characters.
pub fn printable(text: &str, chars_max: usize) -> String {
    let mut safe = String::new();
    for (at, found) in text.chars().enumerate() {
        if at >= chars_max {
            safe.push('\u{2026}');
            break;
        }
        let invisible = matches!(found, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(found, '\u{61c}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
        if found.is_control() || invisible {
            safe.extend(found.escape_unicode());
            continue;
        }
        safe.push(found);
    }
    safe
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::Claims;
    use crate::model::Cloud;

    const TENANT: &str = "11111111-2222-3333-4444-555555555555";

    fn claims(value: &serde_json::Value) -> Claims {
        Claims::read(&format!(
            "e30.{}.CANARY",
            URL_SAFE_NO_PAD.encode(value.to_string())
        ))
        .unwrap()
    }

    #[test]
    fn the_issuer_is_that_of_the_tenant_in_the_cloud() {
        for (issuer, cloud, fits) in [
            (format!("https://sts.windows.net/{TENANT}/"), Cloud::Public, true),
            (
                format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
                Cloud::Gcc,
                true,
            ),
            (
                format!("https://login.microsoftonline.us/{TENANT}/v2.0"),
                Cloud::Dod,
                true,
            ),
            (format!("https://sts.windows.net/{TENANT}/"), Cloud::China, false),
            (
                "https://sts.windows.net/99999999-2222-3333-4444-555555555555/".to_owned(),
                Cloud::Public,
                false,
            ),
            (
                format!("https://sts.windows.net/{TENANT}0/"),
                Cloud::Public,
                false,
            ),
            ("https://idp.example/".to_owned(), Cloud::Public, false),
        ] {
            let claims = claims(&serde_json::json!({"iss": issuer, "tid": TENANT}));
            let fault = claims.issuer_fault_in(cloud);
            assert_eq!(fault.is_none(), fits, "{issuer} {}: {fault:?}", cloud.name());
        }
    }

    #[test]
    fn roles_and_scopes_are_read_in_both_forms() {
        let claims = claims(&serde_json::json!({"scp": "User Flows.Read", "roles": ["A", 7, "B"]}));
        assert_eq!(claims.words("scp"), ["User", "Flows.Read"]);
        assert_eq!(claims.words("roles"), ["A", "B"]);
        assert!(claims.words("none").is_empty());
        assert!(!format!("{claims:?}").contains("User"));
    }
}
