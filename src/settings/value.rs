//! Values that occur all over the file: addresses, networks, digests, paths, secrets. What comes back after a mistake is
//! never used, because a file with a mistake never becomes settings.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::Value;

use crate::files;
use crate::model::{ClientId, FixedPath, Flaw, Host, KeyLabel, Network, PathTemplate, Tenant};
use crate::settings::check::Check;
use crate::settings::files::FileInForce;
use crate::settings::kinds::{At, Word, word};
use crate::settings::source::{Holds, Reference};
use crate::settings::{KeyDigest, SecretSource, Secrets, lists};

/// A value that may be left out; nothing after a mistake in it.
pub(super) fn optional<T, V>(value: Option<T>, read: impl FnOnce(T) -> Option<V>) -> Option<Option<V>> {
    match value {
        Some(value) => read(value).map(Some),
        None => Some(None),
    }
}

impl Check<'_> {
    /// A path, relative to the folder of the settings file.
    pub(super) fn path(&mut self, value: &At<String>) -> Option<PathBuf> {
        let read = match value.as_str() {
            "" => Err(Flaw::new("the path is empty")),
            text if text.starts_with("env:") || text.starts_with("keyvault:") => {
                Err(Flaw::new("this is a path, not a reference"))
            }
            text => match text.strip_prefix("file:") {
                Some(path) => {
                    Err(Flaw::new("this is a path, not a reference").hint(format!("write \"{path}\"")))
                }
                None => Ok(self.folder.join(text)),
            },
        };
        self.findings.keep(value, read)
    }

    /// Parses the reference to a secret. The settings file must not contain the secret itself.
    fn reference(&mut self, key: &str, value: &At<String>) -> Option<Reference> {
        let Some(reference) = Reference::parse(value, &self.folder) else {
            let variable = key.to_ascii_uppercase();
            let flaw =
                Flaw::new(format!("`{key}` must not be written into the settings file")).hint(format!(
                    "keep it in an environment variable, a file or a key vault, and write {key} = \"env:{variable}\", \
                     \"file:PATH\" or \"keyvault:ADDRESS\" here"
                ));
            self.findings.mistake(value, flaw);
            return None;
        };
        self.findings.keep(value, reference)
    }

    /// A secret behind a reference, with the place where it can be read again. One in a key vault is not read before it
    /// is needed, so that an unavailable vault does not prevent the rest from serving.
    pub(super) fn secret_source(&mut self, key: &str, value: &At<String>) -> Option<SecretSource> {
        let reference = self.reference(key, value)?;
        if let Reference::Vault(place) = &reference {
            self.vaults.later.push((value.into(), place.clone()));
            return Some(SecretSource::new(reference, None));
        }
        let source = self.at_start(value, reference, Holds::Text)?;
        Some(source.or_unresolved())
    }

    /// A secret that is required before anything is served, with the place where it can be read again. Its value is
    /// unknown, rather than a placeholder, where it cannot be read.
    pub(super) fn secret_at_start(&mut self, key: &str, value: &At<String>) -> Option<SecretSource> {
        let reference = self.reference(key, value)?;
        self.at_start(value, reference, Holds::Text)
    }

    /// The same behind a reference that was read, for something of this kind.
    pub(super) fn at_start(
        &mut self,
        value: &At<String>,
        reference: Reference,
        holds: Holds,
    ) -> Option<SecretSource> {
        let (source, warning) = self.find_at_start(value, reference, holds)?;
        if let Some(flaw) = warning {
            self.findings.warn(value, flaw);
        }
        Some(source)
    }

    /// Like [`Self::at_start`], but returns the warning about the place instead of recording it.
    pub(super) fn find_at_start(
        &mut self,
        value: &At<String>,
        reference: Reference,
        holds: Holds,
    ) -> Option<(SecretSource, Option<Flaw>)> {
        if let Reference::Vault(place) = &reference {
            self.vaults.at_start.push((value.into(), place.clone()));
        }
        if !self.environment.is_at_hand(&reference) {
            return Some((SecretSource::new(reference, None).holding(holds), None));
        }
        let resolved = self.environment.resolve(&reference, holds);
        let resolved = self.findings.keep(value, resolved)?;
        let source = SecretSource::new(reference, Some(resolved.secret)).holding(holds);
        Some((source.until(resolved.expires), resolved.warning))
    }

    /// Whether a file may be left unread because this machine is not the one that will run the gateway.
    pub(super) fn is_elsewhere(&mut self, value: &At<String>, path: &Path) -> bool {
        if self.environment.secrets() == Secrets::Resolved {
            return false;
        }
        // A pipe would be waited for without end.
        let why = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() || metadata.is_dir() => return false,
            Ok(_) => "is no regular file",
            Err(_) => "is not on this machine",
        };
        let flaw = Flaw::new(format!("file {} {why} and was not checked", path.display()));
        self.findings.warn(value, flaw);
        true
    }

    /// Reads a list that the settings name; nothing on another machine, or after a mistake.
    pub(super) fn list(&mut self, value: &At<String>, path: &Path) -> Option<Rc<String>> {
        if self.environment.is_file(path) && self.is_elsewhere(value, path) {
            return None;
        }
        let text = self.follow(path, lists::LIST_BYTES_MAX).and_then(|bytes| {
            let text = String::from_utf8(bytes);
            text.map_err(|_| Flaw::new(format!("file {} is not UTF-8 text", path.display())))
        });
        let text = self.findings.keep(value, text)?;
        self.fingerprint.text(&text);
        Some(Rc::new(text))
    }

    /// Reads a file without secrets that is followed while the gateway runs.
    pub(super) fn follow(&mut self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, Flaw> {
        let bytes = self.environment.read(path, bytes_max)?;
        let file = FileInForce::new(path, &bytes);
        if !self.files.iter().any(|known| known.is_same(&file)) {
            self.files.push(file);
        }
        Ok(bytes)
    }

    /// Warns of a file that must be there when the gateway runs, but may appear later than the settings are
    /// read.
    pub(super) fn expect_file(&mut self, value: &At<String>, path: &Path) {
        if self.environment.secrets() == Secrets::Resolved && fs::metadata(path).is_err() {
            self.findings.warn(
                value,
                Flaw::new(format!("file {} is not there yet", path.display())),
            );
        }
    }

    /// The same for a file with a secret, which only its owner should read.
    pub(super) fn expect_secret_file(&mut self, value: &At<String>, path: &Path) {
        self.expect_file(value, path);
        let metadata = fs::metadata(path).ok();
        let metadata = metadata.filter(|_| self.environment.secrets() == Secrets::Resolved);
        if let Some(flaw) = metadata.and_then(|metadata| files::exposure(&metadata, path)) {
            self.findings.warn(value, flaw);
        }
    }
}

impl Word for SocketAddr {
    const EXAMPLES: &'static [&'static str] = &["0.0.0.0:8443", "[::]:8443"];

    fn parse(text: &str) -> Result<Self, Flaw> {
        parse_address(text)
    }

    fn show(&self) -> Value {
        self.to_string().into()
    }
}

impl Word for Network {
    const EXAMPLES: &'static [&'static str] = &["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"];

    fn parse(text: &str) -> Result<Self, Flaw> {
        text.parse()
    }

    fn show(&self) -> Value {
        self.to_string().into()
    }
}

word! {
    Host: Self::parse, ["hooks.example.com"];
    Tenant: Self::parse, ["contoso.onmicrosoft.com"];
    ClientId: Self::parse, [];
    PathTemplate: Self::parse, ["/orders", "/orders/{id}", "/files/{*rest}"];
    FixedPath: Self::parse, ["/health"];
    KeyDigest: lists::digest, [];
    KeyLabel: parse_label, ["2026"];
}

fn parse_label(text: &str) -> Result<KeyLabel, Flaw> {
    KeyLabel::parse(text).map_err(|error| Flaw::new(error.to_string()))
}

fn parse_address(text: &str) -> Result<SocketAddr, Flaw> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let flaw = Flaw::new("this is not an IP address with a port");
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let good_port = port.parse::<u16>().is_ok();
    Err(match host {
        "" | "*" if good_port => flaw.hint(format!(
            "write \"0.0.0.0:{port}\" or \"[::]:{port}\" for every address"
        )),
        "localhost" if good_port => flaw.hint(format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")),
        _ => flaw.hint("write for example \"0.0.0.0:8443\" or \"[::]:8443\""),
    })
}

#[cfg(test)]
mod tests {
    use super::parse_address;

    #[test]
    fn an_address_is_an_ip_and_a_port() {
        assert!(parse_address("[::]:8443").is_ok());
        for (bad, correction) in [
            (":8443", "0.0.0.0:8443"),
            ("localhost:80", "127.0.0.1:80"),
            ("8443", "0.0.0.0:8443"),
        ] {
            assert!(
                parse_address(bad).unwrap_err().hint.unwrap().contains(correction),
                "{bad}"
            );
        }
    }
}
