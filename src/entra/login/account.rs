//! Who signed in, according to the claims of a token. The signature is not verified: the claims are only displayed, and
//! nothing is decided by them.

use std::fmt;

use crate::entra::answer::Granted;
use crate::model::Secret;
use crate::model::claims::Claims;

const CLAIM_CHARS_MAX: usize = 256;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// User principal name.
    pub name: Option<String>,
    pub tenant: Option<String>,
    pub object: Option<String>,
}

impl Account {
    /// The account of an answer: from its id token, or else from its access token.
    pub(crate) fn of(granted: &Granted) -> Self {
        let id = granted.id_token.as_ref().and_then(Self::read);
        id.or_else(|| Self::read(&granted.token)).unwrap_or_default()
    }

    fn read(token: &Secret) -> Option<Self> {
        let claims = Claims::read(token.expose())?;
        let text = |name| claims.text(name).map(clean);
        Some(Self {
            name: text("preferred_username")
                .or_else(|| text("upn"))
                .or_else(|| text("unique_name")),
            tenant: text("tid"),
            object: text("oid"),
        })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [name, tenant, object] =
            [&self.name, &self.tenant, &self.object].map(|text| text.as_deref().unwrap_or("unknown"));
        write!(f, "{name} (tenant {tenant}, object id {object})")
    }
}

/// Without what could change the look of a terminal.
fn clean(text: &str) -> String {
    let plain = text
        .chars()
        .filter(|c| c.is_alphanumeric() || c.is_ascii_graphic());
    plain.take(CLAIM_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::proptest;

    use super::Account;
    use crate::entra::answer::Granted;
    use crate::model::Secret;

    fn account(access: &str, id: Option<&str>) -> String {
        let jwt = |claims: &str| Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)));
        let granted = Granted {
            token: jwt(access),
            life: Duration::ZERO,
            refresh_in: None,
            refresh_token: None,
            id_token: id.map(jwt),
        };
        Account::of(&granted).to_string()
    }

    #[test]
    fn the_id_token_names_the_account_and_else_the_access_token() {
        let access = r#"{"upn":"a@b.example","tid":"t","oid":"o"}"#;
        let id = r#"{"preferred_username":"c@d.example","tid":"u","oid":"p"}"#;
        assert_eq!(account(access, None), "a@b.example (tenant t, object id o)");
        assert_eq!(account(access, Some(id)), "c@d.example (tenant u, object id p)");
        assert_eq!(
            account("opaque", None),
            "unknown (tenant unknown, object id unknown)"
        );
        assert_eq!(
            account("{\"upn\":\"a\\u001b[2J\\n\\u202eb\"}", None),
            "a[2Jb (tenant unknown, object id unknown)"
        );
    }

    proptest! {
        #[test]
        fn no_claims_end_the_reader(claims in ".{0,200}") {
            let shown = account(&claims, None);
            assert!(!shown.contains(char::is_control), "{shown}");
        }
    }
}
