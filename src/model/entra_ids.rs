//! How Entra names tenants and applications. A mistake here would otherwise surface only when a token is requested.

use crate::model::Flaw;
use crate::model::host::is_domain;

/// A tenant: its id or one of its domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant(Box<str>);

/// The id of an application, which Entra calls application (client) id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientId(Box<str>);

shown_as!(Tenant.0: str);
shown_as!(ClientId.0: str);

impl Tenant {
    pub fn parse(text: &str) -> Result<Self, Flaw> {
        if matches!(
            text.to_ascii_lowercase().as_str(),
            "common" | "consumers" | "organizations"
        ) {
            // Entra refuses such a request with AADSTS9001023.
            return Err(Flaw::new(format!(
                "\"{text}\" is not a tenant, and an application must name its own"
            ))
            .hint("write the tenant's id or one of its domains; Entra would answer AADSTS9001023"));
        }
        if is_guid(text) || (text.contains('.') && is_domain(text)) {
            return Ok(Self(text.into()));
        }
        let flaw = Flaw::new("a tenant is its id or one of its domains");
        Err(match text.trim_matches(['{', '}', ' ']) {
            id if is_guid(id) => flaw.hint(format!("write \"{id}\"")),
            _ => flaw.hint(
                "write for example \"contoso.onmicrosoft.com\", or the id that Entra shows for the tenant",
            ),
        })
    }

    /// Whether the tenant with this id is certainly another one. A domain says nothing about ids.
    pub(crate) fn is_not(&self, id: &str) -> bool {
        is_guid(self) && !self.eq_ignore_ascii_case(id)
    }
}

impl ClientId {
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        if is_guid(text) {
            return Ok(Self(text.into()));
        }
        if looks_like_secret(text) {
            return Err(
                Flaw::new("a client id is a GUID, and this looks like the value of a client secret").hint(
                    "put the Application (client) ID here, and the secret behind client_secret = \"env:NAME\"",
                ),
            );
        }
        let flaw = Flaw::new("a client id is a GUID");
        Err(match text.trim_matches(['{', '}', ' ']) {
            id if is_guid(id) => flaw.hint(format!("write it without braces and blanks, \"{id}\"")),
            _ => flaw.hint("write the Application (client) ID that Entra shows for the app registration"),
        })
    }
}

/// Whether this is a GUID in its usual form, hyphens included.
pub(crate) fn is_guid(text: &str) -> bool {
    text.len() == uuid::fmt::Hyphenated::LENGTH && uuid::Uuid::try_parse(text).is_ok()
}

/// Whether this is an id out of a sample, which Entra gives to nobody: all but the last group are zero.
pub(crate) fn is_placeholder(text: &str) -> bool {
    is_guid(text) && text.starts_with("00000000-0000-0000-0000-")
}

/// Whether this text has the form of a client secret made by Entra.
fn looks_like_secret(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'~' | b'.' | b'_' | b'-');
    (30..=64).contains(&text.len()) && text.contains('~') && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::{ClientId, Tenant, is_guid};

    const GUID: &str = "00000000-0000-0000-0000-00000000000a";

    #[test]
    fn a_tenant_is_an_id_or_a_domain_of_its_own() {
        for good in [GUID, "contoso.onmicrosoft.com"] {
            assert!(Tenant::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "contoso",
            "common",
            "Organizations",
            "consumers",
            "a b.example",
            "a/b.example",
            "x.",
        ] {
            assert!(Tenant::parse(bad).is_err(), "{bad}");
        }
        let hint = Tenant::parse("common").unwrap_err().hint.unwrap();
        assert!(hint.contains("AADSTS9001023"), "{hint}");
    }

    #[test]
    fn only_an_id_can_differ_from_an_id() {
        let (id, domain) = (Tenant::parse(GUID).unwrap(), Tenant::parse("a.example").unwrap());
        assert!(!id.is_not(&GUID.to_uppercase()) && !domain.is_not(GUID));
        assert!(id.is_not("11111111-0000-0000-0000-00000000000a") && id.is_not(""));
    }

    #[test]
    fn a_client_id_is_a_guid() {
        assert!(ClientId::parse(GUID).is_ok());
        let hint = ClientId::parse(&format!("{{{GUID}}}")).unwrap_err().hint.unwrap();
        assert!(hint.contains(&format!("\"{GUID}\"")), "{hint}");
        let flaw = ClientId::parse("abc8Q~canarycanarycanarycanarycanary1234").unwrap_err();
        assert!(
            flaw.what.contains("client secret") && !format!("{flaw:?}").contains("canary"),
            "{flaw:?}"
        );
        assert!(ClientId::parse("my-app").is_err());
    }

    #[test]
    fn a_guid_has_hyphens_and_nothing_around() {
        assert!(is_guid("01234567-89ab-CDEF-0123-456789abcdef"));
        for bad in [
            "",
            "{01234567-89ab-cdef-0123-456789abcdef}",
            "0123456789abcdef0123456789abcdef",
            "0-0-0-0-0",
        ] {
            assert!(!is_guid(bad), "{bad}");
        }
    }
}
