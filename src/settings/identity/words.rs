//! Validates the values that define an identity: tenant, client id, scope and authority. Each check rejects the mistakes
//! that would otherwise surface only when a token is requested.

use crate::model::host::is_domain;
use crate::model::{Cloud, Flaw, Host};
use crate::settings::mask;

/// What every scope for an application ends in.
pub(super) const DEFAULT: &str = "/.default";

pub(super) fn check_tenant(text: &str) -> Result<String, Flaw> {
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
    if mask::is_guid(text) || (text.contains('.') && is_domain(text)) {
        return Ok(text.to_owned());
    }
    let flaw = Flaw::new("a tenant is its id or one of its domains");
    Err(match text.trim_matches(['{', '}', ' ']) {
        id if mask::is_guid(id) => flaw.hint(format!("write \"{id}\"")),
        _ => flaw
            .hint("write for example \"contoso.onmicrosoft.com\", or the id that Entra shows for the tenant"),
    })
}

pub(super) fn check_client_id(text: &str) -> Result<String, Flaw> {
    if mask::is_guid(text) {
        return Ok(text.to_owned());
    }
    let flaw = Flaw::new("a client id is a GUID");
    if mask::looks_like_entra_secret(text) {
        return Err(
            Flaw::new("a client id is a GUID, and this looks like the value of a client secret").hint(
                "put the Application (client) ID here, and the secret behind client_secret = \"env:NAME\"",
            ),
        );
    }
    Err(match text.trim_matches(['{', '}', ' ']) {
        id if mask::is_guid(id) => flaw.hint(format!("write it without braces and blanks, \"{id}\"")),
        _ => flaw.hint("write the Application (client) ID that Entra shows for the app registration"),
    })
}

/// Warns of an id out of a sample, which Entra gives to nobody: all but the last group are zero.
pub(super) fn judge_id(key: &str, text: &str) -> Option<Flaw> {
    let is_placeholder = mask::is_guid(text)
        && text
            .rsplit_once('-')
            .is_some_and(|(groups, _)| groups.bytes().all(|byte| matches!(byte, b'0' | b'-')));
    let hint = match key {
        "tenant" => "write the Directory (tenant) ID that Entra shows under Overview",
        _ => "write the Application (client) ID that Entra shows for the app registration",
    };
    is_placeholder.then(|| Flaw::new(format!("the value of `{key}` is a placeholder")).hint(hint))
}

pub(super) fn check_scope(text: &str) -> Result<(), Flaw> {
    if let Some(cloud) = Cloud::ALL.into_iter().find(|cloud| is_near(text, *cloud)) {
        // Entra cuts one slash off and the flow compares the rest letter by letter.
        return Err(Flaw::new(
            "with this scope the flow refuses the token: its audience must keep its last slash",
        )
        .hint(format!(
            "write \"{}\", with two slashes, or leave the scope out",
            cloud.scope()
        )));
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || !text.ends_with(DEFAULT) || text.len() == DEFAULT.len() {
        return Err(
            Flaw::new("a scope for an application ends in /.default").hint(format!(
                "write for example \"{}\", or leave the scope out",
                Cloud::Public.scope()
            )),
        );
    }
    Ok(())
}

/// Whether this is the scope or the audience of a flow with too few slashes.
pub(super) fn is_near(text: &str, cloud: Cloud) -> bool {
    let audience = cloud.audience();
    let bare = audience.strip_suffix('/').unwrap_or(audience);
    text == audience || text == bare || text.strip_suffix(DEFAULT) == Some(bare)
}

pub(super) fn check_authority(text: &str) -> Result<String, Flaw> {
    let (is_secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => {
            return Err(Flaw::new("an authority must start with https://")
                .hint(format!("write for example \"{}\"", Cloud::Public.authority())));
        }
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err(Flaw::new("an authority carries no user name"));
    }
    if rest.contains(['/', '?', '#']) {
        return Err(
            Flaw::new("an authority is a host without a path").hint("the tenant belongs into `tenant`")
        );
    }
    let host = Host::of_authority(rest);
    let host = host.ok_or_else(|| Flaw::new("the authority has no valid host and port"))?;
    if !is_secure && !host.is_here() {
        return Err(Flaw::new(
            "an authority must start with https://: the client secret would be sent in clear text",
        ));
    }
    let scheme = if is_secure { "https" } else { "http" };
    Ok(format!("{scheme}://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::{check_authority, check_client_id, check_scope, check_tenant};
    use crate::model::Cloud;

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    #[test]
    fn a_tenant_is_an_id_or_a_domain_of_its_own() {
        for good in [GUID, "contoso.onmicrosoft.com"] {
            assert!(check_tenant(good).is_ok(), "{good}");
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
            assert!(check_tenant(bad).is_err(), "{bad}");
        }
        assert!(
            check_tenant("common")
                .unwrap_err()
                .hint
                .unwrap()
                .contains("AADSTS9001023")
        );
    }

    #[test]
    fn a_client_id_is_a_guid() {
        assert!(check_client_id(GUID).is_ok());
        let hint = check_client_id(&format!("{{{GUID}}}")).unwrap_err().hint.unwrap();
        assert!(hint.contains(&format!("\"{GUID}\"")), "{hint}");
        let flaw = check_client_id("abc8Q~canarycanarycanarycanarycanary1234").unwrap_err();
        assert!(
            flaw.what.contains("client secret") && !format!("{flaw:?}").contains("canary"),
            "{flaw:?}"
        );
        assert!(check_client_id("my-app").is_err());
    }

    #[test]
    fn a_scope_with_one_slash_is_corrected_in_every_cloud() {
        for cloud in Cloud::ALL {
            assert!(check_scope(cloud.scope()).is_ok());
            let single = cloud.scope().replace("//.default", "/.default");
            let hint = check_scope(&single).unwrap_err().hint.unwrap();
            assert!(hint.contains(&format!("\"{}\"", cloud.scope())), "{hint}");
            assert!(
                check_scope(cloud.audience())
                    .unwrap_err()
                    .hint
                    .unwrap()
                    .contains(cloud.scope())
            );
        }
        for bad in [
            "",
            "/.default",
            "api://app/Flows.Run",
            "a b/.default",
            "https://a.example/.default ",
        ] {
            assert!(check_scope(bad).is_err(), "{bad}");
        }
        assert!(check_scope("api://00000000-0000-0000-0000-000000000000/.default").is_ok());
    }

    #[test]
    fn an_authority_is_https_or_on_this_machine() {
        for (text, read) in [
            (
                "https://login.microsoftonline.us",
                "https://login.microsoftonline.us",
            ),
            ("https://login.example/", "https://login.example"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(check_authority(text).unwrap(), read);
        }
        for bad in [
            "login.example",
            "http://login.example",
            "https://login.example/tenant",
            "https://u:p@login.example",
            "https://login.example:0",
            "https://login.example:x",
            "https://",
            "https://login example",
            "http://127.evil.example",
        ] {
            assert!(check_authority(bad).is_err(), "{bad}");
        }
    }
}
