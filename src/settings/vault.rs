//! References to secrets in Azure Key Vault: their syntax, which hosts are vaults, and the token audience that a vault
//! requires. `secrets/vault.rs` reads the secrets.

use std::fmt;

use crate::model::{Flaw, Host};

/// What a reference begins with.
pub(super) const PREFIX: &str = "keyvault:";

/// Where vaults live, and the resource that their tokens are for (Microsoft, "Azure Key Vault keys, secrets and
/// certificates overview", DNS suffixes).
const CLOUDS: [(&str, &str); 3] = [
    ("vault.azure.net", "https://vault.azure.net"),
    ("vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net"),
    ("vault.azure.cn", "https://vault.azure.cn"),
];

const EXAMPLE: &str = "write keyvault:https://VAULT.vault.azure.net/secrets/NAME";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VaultReference {
    /// Host, and port where one is given.
    authority: String,
    resource: &'static str,
    name: String,
    version: Option<String>,
    form: Form,
}

/// In which form a value is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    AsItIs,
    /// As PEM; the vault converts a stored PFX file.
    Pem,
}

impl VaultReference {
    /// Reads a reference that did not come from a settings file; nothing if it names no key vault.
    pub fn of(reference: &str) -> Option<Result<Self, String>> {
        let address = reference.strip_prefix(PREFIX)?;
        Some(Self::parse(address).map_err(|flaw| flaw.what))
    }

    /// Reads what follows `keyvault:`.
    pub(super) fn parse(text: &str) -> Result<Self, Flaw> {
        let Some(rest) = text.strip_prefix("https://") else {
            return Err(
                Flaw::new("a key vault is named by its address, which begins with https://").hint(EXAMPLE),
            );
        };
        if rest.contains(['?', '#', '@']) {
            return Err(
                Flaw::new("the address of a secret in a key vault has a host and a path only").hint(EXAMPLE),
            );
        }
        let mut parts = rest.split('/');
        let authority = parts.next().unwrap_or("").to_ascii_lowercase();
        let resource = resource_of(&authority)?;
        let path: Vec<_> = parts.collect();
        let (name, version) = match path.as_slice() {
            ["secrets", name] | ["secrets", name, ""] => (*name, None),
            ["secrets", name, version] => (*name, Some(*version)),
            [kind @ ("certificates" | "keys"), ..] => {
                let flaw = Flaw::new(format!(
                    "this names one of the {kind} of the key vault, not a secret"
                ));
                return Err(flaw.hint(
                    "a certificate is stored with its key in the secret of the same name: write /secrets/ in its place",
                ));
            }
            _ => return Err(Flaw::new("the address names no secret of the key vault").hint(EXAMPLE)),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !(1..=127).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(Flaw::new(
                "the name of a secret in a key vault has 1 to 127 letters, digits and hyphens",
            ));
        }
        if version.is_some_and(|version| {
            version.len() != 32 || !version.bytes().all(|byte| byte.is_ascii_hexdigit())
        }) {
            return Err(
                Flaw::new("the version of a secret in a key vault has 32 hexadecimal digits")
                    .hint("leave it out to get the newest one"),
            );
        }
        Ok(Self {
            authority,
            resource,
            name: name.to_owned(),
            version: version.map(str::to_owned),
            form: Form::AsItIs,
        })
    }

    /// The same secret, as PEM if it is a certificate with its key: a PFX file of a vault has no password, not even an empty
    /// one, which few libraries read.
    pub(super) fn in_pem(self) -> Self {
        Self {
            form: Form::Pem,
            ..self
        }
    }

    /// What is asked for beside the version of the interface (Microsoft, "Get Secret", outContentType).
    pub fn query(&self) -> &'static str {
        match self.form {
            Form::AsItIs => "",
            Form::Pem => "&outContentType=application/x-pem-file",
        }
    }

    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Name of the vault, as the portal shows it.
    pub fn vault(&self) -> &str {
        self.authority.split(['.', ':']).next().unwrap_or(&self.authority)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The audience that a token must have, to the letter.
    pub fn resource(&self) -> &'static str {
        self.resource
    }

    pub fn scope(&self) -> String {
        format!("{}/.default", self.resource)
    }

    /// Where the secret is read, without a query.
    pub fn url(&self) -> String {
        let version = self.version.as_ref().map(|version| format!("/{version}"));
        format!(
            "https://{}/secrets/{}{}",
            self.authority,
            self.name,
            version.unwrap_or_default()
        )
    }
}

impl fmt::Display for VaultReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret {} of key vault {}", self.name, self.authority)
    }
}

/// Whether a text is so plainly an address that it cannot be a secret put into the wrong place.
pub(super) fn is_address(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/-[]".contains(&byte);
    text.starts_with("https://") && text.bytes().all(plain)
}

/// The resource of the cloud in which a vault is. A token of ours goes to this host, so unknown ones are refused.
fn resource_of(authority: &str) -> Result<&'static str, Flaw> {
    let host = authority.strip_suffix(":443").unwrap_or(authority);
    for (suffix, resource) in CLOUDS {
        let vault = host.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.'));
        if vault.is_some_and(is_vault_name) {
            return Ok(resource);
        }
    }
    if Host::of_authority(authority).is_some_and(|host| host.is_here()) {
        // A vault emulator on this machine; it uses tokens of the public cloud.
        return Ok("https://vault.azure.net");
    }
    let known: Vec<_> = CLOUDS
        .iter()
        .map(|(suffix, _)| format!("VAULT.{suffix}"))
        .collect();
    Err(
        Flaw::new("this is not the host of a key vault, and a token would be sent there")
            .hint(format!("known are {}", known.join(", "))),
    )
}

/// Microsoft, "Naming rules and restrictions for Azure resources": 3 to 24 letters, digits and hyphens.
fn is_vault_name(text: &str) -> bool {
    (3..=24).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::{VaultReference, is_address};

    #[test]
    fn a_reference_names_vault_secret_and_perhaps_a_version() {
        let version = "0123456789abcdef0123456789abcdef";
        for (text, resource, url) in [
            (
                "https://Contoso-kv.vault.azure.net/secrets/flow",
                "https://vault.azure.net",
                "https://contoso-kv.vault.azure.net/secrets/flow".to_owned(),
            ),
            (
                &format!("https://contoso.vault.usgovcloudapi.net:443/secrets/a-B9/{version}"),
                "https://vault.usgovcloudapi.net",
                format!("https://contoso.vault.usgovcloudapi.net:443/secrets/a-B9/{version}"),
            ),
            (
                "https://contoso.vault.azure.cn/secrets/flow/",
                "https://vault.azure.cn",
                "https://contoso.vault.azure.cn/secrets/flow".to_owned(),
            ),
            (
                "https://localhost:8443/secrets/flow",
                "https://vault.azure.net",
                "https://localhost:8443/secrets/flow".to_owned(),
            ),
        ] {
            let reference = VaultReference::parse(text).unwrap();
            assert_eq!(reference.resource(), resource);
            assert_eq!(reference.scope(), format!("{resource}/.default"));
            assert_eq!(reference.url(), url);
        }
        let reference = VaultReference::parse("https://contoso.vault.azure.net/secrets/flow").unwrap();
        assert_eq!(reference.vault(), "contoso");
        assert_eq!(
            reference.to_string(),
            "secret flow of key vault contoso.vault.azure.net"
        );
    }

    #[test]
    fn a_token_goes_to_hosts_of_vaults_only() {
        for host in [
            "contoso.example",
            "vault.azure.net",
            "contoso.vault.azure.net.example",
            "contoso-vault.azure.net",
            "a.b.vault.azure.net",
            "contoso.vault.azure.net:8443",
            "contoso.managedhsm.azure.net",
            "127.evil.example",
            "localhost:0",
            "10.0.0.4",
            "",
        ] {
            let flaw = VaultReference::parse(&format!("https://{host}/secrets/a")).unwrap_err();
            assert!(
                flaw.what.contains("not the host of a key vault"),
                "{host}: {}",
                flaw.what
            );
        }
    }

    #[test]
    fn each_mistake_in_a_reference_has_its_sentence() {
        for (text, part) in [
            ("http://contoso.vault.azure.net/secrets/a", "begins with https://"),
            ("contoso", "begins with https://"),
            (
                "https://me@contoso.vault.azure.net/secrets/a",
                "host and a path only",
            ),
            (
                "https://contoso.vault.azure.net/secrets/a?x=1",
                "host and a path only",
            ),
            (
                "https://contoso.vault.azure.net/certificates/a",
                "one of the certificates",
            ),
            ("https://contoso.vault.azure.net/keys/a", "one of the keys"),
            ("https://contoso.vault.azure.net/", "names no secret"),
            ("https://contoso.vault.azure.net/secrets", "names no secret"),
            ("https://contoso.vault.azure.net/secrets/a/b/c", "names no secret"),
            (
                "https://contoso.vault.azure.net/secrets/a_b",
                "letters, digits and hyphens",
            ),
            (
                "https://contoso.vault.azure.net/secrets/",
                "letters, digits and hyphens",
            ),
            (
                "https://contoso.vault.azure.net/secrets/a/latest",
                "32 hexadecimal digits",
            ),
        ] {
            let flaw = VaultReference::parse(text).unwrap_err();
            assert!(flaw.what.contains(part), "{text}: {}", flaw.what);
        }
    }

    #[test]
    fn only_a_plain_address_is_shown_in_reports() {
        assert!(is_address("https://contoso.vault.azure.net/secrets/a"));
        for text in ["hunter2", "https://a:b@c", "https://a/?b=c", "https://a~b"] {
            assert!(!is_address(text), "{text}");
        }
    }
}
