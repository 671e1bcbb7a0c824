//! Validates scope and authority of an identity, and warns of ids out of samples. Each check rejects the mistakes
//! that would otherwise surface only when a token is requested.

use crate::model::entra_ids::is_placeholder;
use crate::model::{Cloud, Flaw, Host};

/// What every scope for an application ends in.
pub(super) const DEFAULT: &str = "/.default";

/// Warns of an id out of a sample.
pub(super) fn judge_id(key: &str, text: &str) -> Option<Flaw> {
    let hint = match key {
        "tenant" => "write the Directory (tenant) ID that Entra shows under Overview",
        _ => "write the Application (client) ID that Entra shows for the app registration",
    };
    is_placeholder(text).then(|| Flaw::new(format!("the value of `{key}` is a placeholder")).hint(hint))
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
    use super::{check_authority, check_scope};
    use crate::model::Cloud;

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
