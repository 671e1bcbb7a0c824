//! `flowgate init`: a working folder to begin with. Its settings are those of a tenant, with what only the operator knows
//! left open, or those of the emulator, which work as they are.

use std::path::{Path, PathBuf};

use crate::cli::outcome::{FAILED, Outcome, WRONG};
use crate::files::{Access, Fresh};
use crate::material::DevelopmentCertificate;
use crate::model::{Host, Secret};
use crate::policy::key;
use crate::settings::KeyDigest;

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The folder; it is made unless it is there.
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Write settings for flowgate-emulator instead of a tenant: Entra on PORT, the flow on the port after it.
    #[arg(long, value_name = "PORT", num_args = 0..=1, require_equals = true, default_missing_value = "9443",
          value_parser = clap::value_parser!(u16).range(1..i64::from(u16::MAX)))]
    emulator: Option<u16>,
    /// A name for the certificate in place of the name of this machine; localhost is always in it.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

const SETTINGS: &str = "flowgate.toml";
const CHAIN: &str = "certs/development.pem";
const KEY: &str = "certs/development.key";
const TEMPLATE: &str = include_str!("init/settings.txt");
const TENANT: &str = include_str!("init/tenant.txt");
const EMULATOR: &str = include_str!("init/emulator.txt");
/// The emulator has no other application, and no secret worth keeping.
const EMULATOR_SECRET: (&str, &str) = ("flowgate-emulator/client-secret", "emulator\n");
/// The default port of `flowgate-emulator`.
const EMULATOR_PORT: u16 = 9443;
const ELSEWHERE: &str = "In a shell of its own: ";
/// The names by which this machine reaches itself.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

pub(super) fn init(task: &Init) -> Outcome {
    let names = match names(task) {
        Ok(names) => names,
        Err(why) => return Outcome::failed(format!("flowgate: {why}\n"), WRONG),
    };
    try_init(task, &names)
        .unwrap_or_else(|why| Outcome::failed(format!("flowgate: {why}; nothing was written\n"), FAILED))
}

fn try_init(task: &Init, names: &[String]) -> Result<Outcome, String> {
    let certificate =
        DevelopmentCertificate::new(names).map_err(|error| format!("no certificate can be made: {error}"))?;
    let key = key::generate().ok_or("the operating system provides no random bytes")?;
    let settings = settings(task, names, &certificate, &key);
    let mut files = vec![
        (CHAIN, certificate.chain.as_str(), Access::Usual),
        (KEY, certificate.key.expose(), Access::Owner),
    ];
    if task.emulator.is_some() {
        let (path, secret) = EMULATOR_SECRET;
        files.push((path, secret, Access::Owner));
    }
    // Last, because it is what makes the folder one.
    files.push((SETTINGS, &settings, Access::Usual));
    write(&task.folder, &files)?;
    Ok(Outcome::out(next_steps(task, names, &certificate, &key)))
}

/// The names in the certificate.
fn names(task: &Init) -> Result<Vec<String>, String> {
    let own = match &task.host {
        Some(name) => {
            let host = Host::parse(name).map_err(|flaw| format!("--host {name}: {}", flaw.sentence()))?;
            Some(host)
        }
        // A machine may have a name that no certificate can carry.
        None => machine().and_then(|name| Host::parse(&name).ok()),
    };
    let own = own.map(|host| host.trim_matches(['[', ']']).to_owned());
    let mut names = HERE.map(str::to_owned).to_vec();
    names.extend(own.filter(|own| !HERE.contains(&own.as_str())));
    Ok(names)
}

#[cfg(unix)]
fn machine() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    Some(name)
}

#[cfg(not(unix))]
fn machine() -> Option<String> {
    None
}

fn settings(task: &Init, names: &[String], certificate: &DevelopmentCertificate, key: &Secret) -> String {
    let (blocks, port) = match task.emulator {
        Some(port) => (EMULATOR, port),
        None => (TENANT, EMULATOR_PORT),
    };
    let (identity, trigger) = blocks.split_once("---\n").unwrap_or((blocks, ""));
    TEMPLATE
        .replace("{identity}", identity)
        .replace("{trigger}", trigger.trim_end())
        .replace("{names}", &names.join(", "))
        .replace("{expires}", &certificate.expires)
        .replace(
            "{digest}",
            &KeyDigest::of(key.expose().as_bytes(), None).to_setting(),
        )
        .replace("{entra}", &port.to_string())
        .replace("{flow}", &port.saturating_add(1).to_string())
}

/// Writes all of the files, or none.
fn write(folder: &Path, files: &[(&str, &str, Access)]) -> Result<(), String> {
    let taken = files.iter().map(|(name, ..)| folder.join(name));
    if let Some(path) = taken.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(format!(
            "{} exists already; name another folder: flowgate init FOLDER",
            path.display()
        ));
    }
    let mut fresh = Fresh::default();
    let mut written = fresh.folder(folder);
    for (name, text, access) in files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        written = written
            .and_then(|()| fresh.folder(parent))
            .and_then(|()| fresh.file(&path, text, *access));
    }
    written.map_err(|error| error.to_string())?;
    fresh.keep();
    Ok(())
}

fn next_steps(task: &Init, names: &[String], certificate: &DevelopmentCertificate, key: &Secret) -> String {
    let at = |name: &str| shell_word(&task.folder.join(name));
    let (settings, chain, private) = (at(SETTINGS), at(CHAIN), at(KEY));
    let (names, expires, key) = (names.join(", "), &certificate.expires, key.expose());
    let first = match task.emulator {
        Some(EMULATOR_PORT) => format!("{ELSEWHERE}flowgate-emulator {}", at("")),
        Some(port) => format!("{ELSEWHERE}flowgate-emulator --port {port} {}", at("")),
        None => format!(
            "Replace what is in <...> in {settings}, then: export FLOWGATE_CONTOSO_SECRET='the client secret'"
        ),
    };
    let width = [&settings, &chain, &private]
        .map(|path| path.len())
        .into_iter()
        .max()
        .unwrap_or(0);
    format!(
        "Written:\n\n    {settings:width$}  settings, with comments\n    {chain:width$}  FOR DEVELOPMENT ONLY: \
         certificate for {names}; expires {expires}\n    {private:width$}  its private key, which only its owner can \
         read\n\nThe key of the caller \"shop\", printed only this once:\n\n    {key}\n\nNext:\n\n 1. {first}\n \
         2. flowgate check --config {settings}\n 3. {ELSEWHERE}flowgate serve --config {settings}\n \
         4. curl -i --cacert {chain} https://localhost:8443/orders -H 'X-API-Key: {key}' \
         -H 'Content-Type: application/json' -d '{{\"order\": 17}}'\n"
    )
}

/// A path as a shell takes it, without a first `./`.
fn shell_word(path: &Path) -> String {
    let path = path.strip_prefix(".").unwrap_or(path).display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:\\".contains(c);
    match path.trim_end_matches('/') {
        "" => ".".to_owned(),
        plain if plain.chars().all(is_plain) => plain.to_owned(),
        other => format!("'{}'", other.replace('\'', "'\\''")),
    }
}
