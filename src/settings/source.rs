//! Everything outside the settings file that its meaning depends on: environment variables, secret files and the time.
//! Resolves `env:NAME` and `file:PATH` to secrets, and returns values that were read from key vaults before. No other code
//! in the product reads environment variables.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fs, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::files;
use crate::model::{Flaw, Secret, clock};
use crate::settings::vault::VaultReference;
use crate::settings::{mask, vault};

/// Largest secret: a key with a long chain around it is far below.
pub(super) const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Largest PEM file: the bundle of a whole operating system is a quarter of it.
pub(super) const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Takes the place of a secret that is not read.
pub const UNRESOLVED: &str = "unresolved";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// They are read and must be there.
    Resolved,
    /// They are not read, and other files may be missing: placeholders replace all of them, so the result can be inspected
    /// but not served. For checks on a machine other than the one that runs the gateway.
    Unresolved,
}

/// Where settings get from the process what is not in their file.
#[derive(Debug, Clone)]
pub struct Environment {
    variables: Variables,
    secrets: Secrets,
    /// What was read from key vaults, if anybody has.
    vaults: Option<HashMap<VaultReference, VaultValue>>,
    /// Lists and other files without secrets that are not read from their places.
    lists: Arc<HashMap<PathBuf, String>>,
    now: SystemTime,
}

#[derive(Debug, Clone)]
pub struct VaultValue {
    pub secret: Secret,
    pub expires: Option<SystemTime>,
}

impl From<Secret> for VaultValue {
    fn from(secret: Secret) -> Self {
        Self {
            secret,
            expires: None,
        }
    }
}

#[derive(Debug, Clone)]
enum Variables {
    Process,
    Pairs(HashMap<String, Secret>),
}

impl Environment {
    /// The environment of this process, with its clock at this moment.
    pub fn of_process() -> Self {
        Self {
            variables: Variables::Process,
            secrets: Secrets::Resolved,
            vaults: None,
            lists: Arc::default(),
            now: clock::wall(),
        }
    }

    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<String>,
    {
        let pairs = pairs.into_iter();
        let pairs = pairs.map(|(name, value)| (name.into(), Secret::new(value)));
        Self {
            variables: Variables::Pairs(pairs.collect()),
            ..Self::of_process()
        }
    }

    #[must_use]
    pub fn with(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// The same environment with the values read from key vaults. Without them, those secrets are placeholders.
    #[must_use]
    pub fn with_vaults<V: Into<VaultValue>>(mut self, values: HashMap<VaultReference, V>) -> Self {
        let values = values.into_iter().map(|(place, value)| (place, value.into()));
        self.vaults = Some(values.collect());
        self
    }

    /// The same environment with other content for these files than they have.
    #[must_use]
    pub fn with_lists(mut self, lists: Arc<HashMap<PathBuf, String>>) -> Self {
        self.lists = lists;
        self
    }

    /// Whether a file is read from its place.
    pub(super) fn is_file(&self, path: &Path) -> bool {
        !self.lists.contains_key(path)
    }

    /// Reads a file that has no secret: a list of keys or networks, certificates.
    pub(super) fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, Flaw> {
        match self.lists.get(path) {
            Some(text) => Ok(text.clone().into_bytes()),
            None => files::read(path, bytes_max),
        }
    }

    #[must_use]
    pub fn at(mut self, now: SystemTime) -> Self {
        self.now = now;
        self
    }

    pub fn secrets(&self) -> Secrets {
        self.secrets
    }

    /// Whether the value behind a reference can be read now; if not, a placeholder is used.
    pub(super) fn is_at_hand(&self, reference: &Reference) -> bool {
        match (self.secrets, reference) {
            (Secrets::Unresolved, _) => false,
            (Secrets::Resolved, Reference::Vault(_)) => self.vaults.is_some(),
            (Secrets::Resolved, Reference::Variable(_) | Reference::File(_)) => true,
        }
    }

    /// The time by which dates are judged.
    pub(super) fn now(&self) -> SystemTime {
        self.now
    }

    /// Reads the secret of a reference that did not come from a settings file; `folder` is where relative
    /// paths begin.
    pub fn secret(&self, reference: &str, folder: &Path) -> Result<Secret, String> {
        let reference = Reference::parse(reference, folder)
            .ok_or("a secret is named as env:NAME or file:PATH, never given itself")?;
        // A pipe would be waited for without end; what does not exist is reported when it is read.
        if let Ok(Reference::File(path)) = &reference
            && fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
        {
            return Err(format!("{} is not a regular file", path.display()));
        }
        let resolved = reference.and_then(|reference| self.resolve(&reference, Holds::Text));
        resolved.map(|resolved| resolved.secret).map_err(|flaw| flaw.what)
    }

    /// The proxy variables that are set. The gateway connects directly and uses none of them; a proxy may carry a password,
    /// so only the names come out.
    pub fn proxies(&self) -> Vec<&'static str> {
        let known = [
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ];
        let set = |name: &&str| self.variable(name).is_ok_and(|value| !value.expose().is_empty());
        known.into_iter().filter(set).collect()
    }

    pub(super) fn resolve(&self, reference: &Reference, holds: Holds) -> Result<Resolved, Flaw> {
        match reference {
            Reference::Variable(name) => {
                let secret = self.variable(name)?;
                let secret = tidy(secret.expose()).ok_or_else(|| {
                    Flaw::new(format!("environment variable {name} is empty"))
                        .hint("set it before starting Flowgate")
                })?;
                Ok(secret.into())
            }
            Reference::File(path) => read_secret(path, holds),
            Reference::Vault(place) => {
                let value = self.vaults.as_ref().and_then(|values| values.get(place)).cloned();
                let value = value.ok_or_else(|| {
                    Flaw::new(format!(
                        "{place} was not read; `flowgate serve`, `doctor` and `login` read key vaults"
                    ))
                })?;
                Ok(Resolved {
                    expires: value.expires,
                    ..value.secret.into()
                })
            }
        }
    }

    /// The value of an optional variable that the platform sets; an empty variable counts as unset. Returns nothing when
    /// secrets are not read, because the gateway may then run on another machine.
    pub(super) fn platform_variable(&self, name: &str) -> Option<Secret> {
        match self.secrets {
            Secrets::Resolved => self.variable(name).ok().and_then(|value| tidy(value.expose())),
            Secrets::Unresolved => None,
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    fn variable(&self, name: &str) -> Result<Secret, Flaw> {
        let value = match &self.variables {
            Variables::Process => match std::env::var(name) {
                Ok(value) => Some(Secret::new(value)),
                Err(std::env::VarError::NotPresent) => None,
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(Flaw::new(format!("environment variable {name} is not UTF-8")));
                }
            },
            Variables::Pairs(pairs) => pairs.get(name).cloned(),
        };
        value.ok_or_else(|| {
            Flaw::new(format!("environment variable {name} is not set"))
                .hint("set it before starting Flowgate")
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    Variable(String),
    File(PathBuf),
    Vault(VaultReference),
}

impl Reference {
    /// Reads `env:NAME`, `file:PATH` or `keyvault:ADDRESS`; nothing if the text is none of them. Paths are relative to `folder`.
    pub(super) fn parse(text: &str, folder: &Path) -> Option<Result<Self, Flaw>> {
        if let Some(name) = text.strip_prefix("env:") {
            if !mask::is_variable(name) {
                let what = "the name of an environment variable has letters, digits and `_` only";
                return Some(Err(Flaw::new(what)));
            }
            return Some(Ok(Self::Variable(name.to_owned())));
        }
        if let Some(address) = text.strip_prefix(vault::PREFIX) {
            return Some(VaultReference::parse(address).map(Self::Vault));
        }
        let path = text.strip_prefix("file:")?;
        if path.is_empty() {
            return Some(Err(Flaw::new("`file:` needs a path behind it")));
        }
        Some(Ok(Self::File(folder.join(path))))
    }
}

/// What a reference may point to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    /// Text, or bytes that are none, such as a PFX file. Those are kept as base64, the form in which a variable or a
    /// vault holds them, so that a secret is text wherever it comes from.
    Bytes,
    /// Any number of PEM certificates, which may be world-readable. The data between them need not be text.
    Chain,
}

/// A secret, and where it can be read again when it has been replaced there.
#[derive(Debug, Clone)]
pub struct SecretSource {
    reference: Reference,
    known: Option<Secret>,
    expires: Option<SystemTime>,
    holds: Holds,
}

/// Whether both are stored in the same place: what is there is followed by itself.
impl PartialEq for SecretSource {
    fn eq(&self, other: &Self) -> bool {
        (&self.reference, self.expires, self.holds) == (&other.reference, other.expires, other.holds)
    }
}

impl SecretSource {
    pub(super) fn new(reference: Reference, known: Option<Secret>) -> Self {
        Self {
            reference,
            known,
            expires: None,
            holds: Holds::Text,
        }
    }

    pub(super) fn until(mut self, expires: Option<SystemTime>) -> Self {
        self.expires = expires;
        self
    }

    /// The same source, with a placeholder where its value was not read.
    pub(super) fn or_unresolved(mut self) -> Self {
        self.known.get_or_insert_with(|| Secret::new(UNRESOLVED));
        self
    }

    pub(super) fn holding(mut self, holds: Holds) -> Self {
        self.holds = holds;
        self
    }

    /// The value that was read with the settings; nothing for a secret in a key vault, which is read when it is needed.
    pub fn known(&self) -> Option<&Secret> {
        self.known.as_ref()
    }

    /// When that value expires, where its key vault knows.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    pub fn place(&self) -> String {
        match &self.reference {
            Reference::Variable(name) => format!("environment variable {name}"),
            Reference::File(path) => format!("file {}", path.display()),
            Reference::Vault(place) => place.to_string(),
        }
    }

    pub fn file(&self) -> Option<&Path> {
        match &self.reference {
            Reference::File(path) => Some(path),
            Reference::Variable(_) | Reference::Vault(_) => None,
        }
    }

    pub fn vault(&self) -> Option<&VaultReference> {
        match &self.reference {
            Reference::Vault(place) => Some(place),
            Reference::Variable(_) | Reference::File(_) => None,
        }
    }

    /// Reads it again from its file, and returns a warning about the file, if any. Blocks.
    pub fn read_again(&self) -> Result<(Secret, Option<String>), String> {
        match &self.reference {
            Reference::Variable(_) | Reference::Vault(_) => Err(format!("{} is no file", self.place())),
            Reference::File(path) => read_secret(path, self.holds)
                .map(|resolved| (resolved.secret, resolved.warning.map(|flaw| flaw.sentence())))
                .map_err(|flaw| flaw.what),
        }
    }
}

#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) secret: Secret,
    pub(super) expires: Option<SystemTime>,
    pub(super) warning: Option<Flaw>,
}

impl From<Secret> for Resolved {
    fn from(secret: Secret) -> Self {
        Self {
            secret,
            expires: None,
            warning: None,
        }
    }
}

/// Without the newline that editors and `echo` leave at the end; nothing if nothing remains.
fn tidy(text: &str) -> Option<Secret> {
    let text = text.trim_end_matches(['\r', '\n']);
    (!text.is_empty()).then(|| Secret::new(text))
}

fn read_secret(path: &Path, holds: Holds) -> Result<Resolved, Flaw> {
    if holds == Holds::Chain {
        return read_chain(path).map(Resolved::from);
    }
    let shown = path.display();
    let file = files::open(path)?;
    let bytes = files::bytes(&file, SECRET_BYTES_MAX).map_err(|error| files::unreadable(path, &error))?;
    let bytes = bytes.ok_or_else(|| Flaw::new(format!("secret file {shown} is larger than 64 KiB")))?;
    let secret = match (std::str::from_utf8(&bytes), holds) {
        (Ok(text), _) => tidy(text),
        (Err(_), Holds::Bytes) => Some(Secret::new(STANDARD.encode(bytes.as_slice()))),
        (Err(_), Holds::Text | Holds::Chain) => {
            return Err(files::unreadable(path, &io::ErrorKind::InvalidData.into()));
        }
    };
    let secret = secret.ok_or_else(|| Flaw::new(format!("secret file {shown} is empty")))?;
    let metadata = file.metadata().ok();
    Ok(Resolved {
        warning: metadata.and_then(|metadata| files::exposure(&metadata, path)),
        ..secret.into()
    })
}

/// Reads a file of certificates. It holds no secret, but it is kept as one, like everything that is read again.
pub(super) fn read_chain(path: &Path) -> Result<Secret, Flaw> {
    let bytes = files::read(path, PEM_BYTES_MAX)?;
    Ok(Secret::new(String::from_utf8_lossy(&bytes)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Environment, Holds, Reference};

    fn resolve(environment: &Environment, text: &str, folder: &Path) -> Result<String, String> {
        let reference = Reference::parse(text, folder)
            .unwrap()
            .map_err(|flaw| flaw.what)?;
        let resolved = environment
            .resolve(&reference, Holds::Text)
            .map_err(|flaw| flaw.what)?;
        Ok(resolved.secret.expose().to_owned())
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_may_not_be_read_names_the_user_of_the_process() {
        use std::os::unix::fs::MetadataExt;

        let uid = std::fs::metadata("/proc/self").unwrap().uid();
        let flaw = crate::files::unreadable(Path::new("x.key"), &std::io::ErrorKind::PermissionDenied.into());
        assert!(
            flaw.what.starts_with("file x.key may not be read by "),
            "{}",
            flaw.what
        );
        assert!(flaw.what.contains(&format!("uid {uid}")), "{}", flaw.what);
        assert!(flaw.hint.unwrap().contains("chown"));
    }

    #[test]
    fn a_variable_must_be_there_and_not_be_empty() {
        let environment = Environment::from_pairs([("A", "one\n"), ("B", "\n")]);
        let folder = Path::new(".");
        assert_eq!(resolve(&environment, "env:A", folder).unwrap(), "one");
        assert_eq!(
            resolve(&environment, "env:B", folder).unwrap_err(),
            "environment variable B is empty"
        );
        assert_eq!(
            resolve(&environment, "env:C", folder).unwrap_err(),
            "environment variable C is not set"
        );
        let error = resolve(&environment, "env:can ary", folder).unwrap_err();
        assert!(!error.contains("ary"), "{error}");
        assert!(Reference::parse("hunter2", folder).is_none());
    }

    #[test]
    fn a_secret_file_is_small_and_loses_its_last_newline() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::from_pairs([("", ""); 0]);
        std::fs::write(folder.path().join("good"), "two\r\n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        std::fs::write(folder.path().join("large"), "x".repeat(64 * 1024 + 1)).unwrap();
        std::fs::write(folder.path().join("binary"), [0xff, 0xfe]).unwrap();
        assert_eq!(resolve(&environment, "file:good", folder.path()).unwrap(), "two");
        for (name, reason) in [
            ("empty", "is empty"),
            ("large", "is larger than 64 KiB"),
            ("binary", "is not UTF-8 text"),
            ("none", "does not exist"),
            (".", "is a folder"),
        ] {
            let error = resolve(&environment, &format!("file:{name}"), folder.path()).unwrap_err();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_file_that_others_can_read_gives_a_warning() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "two").unwrap();
        for (mode, warned) in [(0o600, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let reference = Reference::parse("file:secret", folder.path()).unwrap().unwrap();
            let resolved = Environment::of_process()
                .resolve(&reference, Holds::Text)
                .unwrap();
            assert_eq!(resolved.warning.is_some(), warned, "{mode:o}");
        }
    }
}
