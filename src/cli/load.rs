//! Settings for commands: the file that is named, read with or without what is in key vaults.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::cli::outcome::{FAILED, Outcome, WRONG};
use crate::entra::VaultsError;
use crate::settings::{Config, Environment, Mistake, Report, Style, VaultReference, VaultValue};
use crate::{entra, settings};

#[derive(Debug, clap::Args)]
pub(super) struct SettingsFile {
    /// The settings file.
    #[arg(long, short, value_name = "FILE", default_value = "flowgate.toml")]
    pub(super) config: PathBuf,
}

pub(super) fn load(path: &Path, environment: &Environment) -> Result<(Config, Vec<Mistake>), Outcome> {
    settings::load(path, environment).map_err(|report| Outcome::failed(report.render(style()), WRONG))
}

/// Settings with their secrets, and what they were made of.
pub(super) struct Whole {
    pub(super) config: Config,
    pub(super) warnings: Vec<Mistake>,
    /// The settings file.
    pub(super) text: String,
    pub(super) vaults: HashMap<VaultReference, VaultValue>,
    /// When the load began: nothing of it is older.
    pub(super) begun: Instant,
}

impl Whole {
    /// A digest of everything that settings were read from and of the hosts that they call. It covers no secret but those in
    /// whole files, which it does not give away.
    pub(super) fn digest(&self) -> String {
        let mut context = Context::new(&SHA256);
        for file in &self.config.files {
            context.update(file.digest());
        }
        for route in &self.config.routes {
            context.update(route.name.as_str().as_bytes());
            context.update(route.trigger.authority().as_bytes());
            context.update(b"\n");
        }
        let digest = context.finish();
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What is not read from its file.
#[derive(Default)]
pub(super) struct Given {
    /// The settings file.
    pub(super) text: Option<String>,
    pub(super) lists: Arc<HashMap<PathBuf, String>>,
}

/// Why settings cannot be loaded with their secrets.
#[derive(Debug)]
pub(super) enum NotLoaded {
    Settings(Report),
    Vaults(Box<VaultsError>),
    /// The program is ending, or has a defect.
    Unfinished,
}

/// Loads the settings with their secrets. Secrets in key vaults can be read only with the settings that say
/// how to reach the vault, so the settings are then parsed a second time, with those values; a value that is `held` stays
/// while its vault is away.
pub(super) async fn load_whole(
    path: &Path,
    given: Given,
    held: &HashMap<VaultReference, VaultValue>,
) -> Result<Whole, NotLoaded> {
    let begun = Instant::now();
    let process = || Environment::of_process().with_lists(given.lists.clone());
    let text = match given.text {
        Some(text) => text,
        None => {
            let path = path.to_owned();
            let reading = move || settings::read(&path).map_err(NotLoaded::Settings);
            let read = tokio::task::spawn_blocking(reading).await;
            read.unwrap_or(Err(NotLoaded::Unfinished))?
        }
    };
    let (text, parsed) = parse(path, text, process()).await?;
    let (config, warnings) = parsed;
    let mut whole = Whole {
        config,
        warnings,
        text,
        vaults: HashMap::new(),
        begun,
    };
    let keyvault = whole.config.keyvault.as_ref();
    let Some(keyvault) = keyvault.filter(|keyvault| !keyvault.at_start.is_empty()) else {
        return Ok(whole);
    };
    whole.vaults = entra::read_vaults(keyvault, &whole.config.identities, held)
        .await
        .map_err(|error| NotLoaded::Vaults(error.into()))?;
    let environment = process().with_vaults(whole.vaults.clone());
    let (text, parsed) = parse(path, whole.text, environment).await?;
    (whole.config, whole.warnings) = parsed;
    whole.text = text;
    Ok(whole)
}

/// Parses where it blocks nothing: lists may have many megabytes.
pub(super) async fn parse(
    path: &Path,
    text: String,
    environment: Environment,
) -> Result<(String, (Config, Vec<Mistake>)), NotLoaded> {
    let path = path.to_owned();
    let parsing = move || {
        let parsed = settings::parse_file(&text, &path, &environment);
        parsed.map(|parsed| (text, parsed)).map_err(NotLoaded::Settings)
    };
    let parsed = tokio::task::spawn_blocking(parsing).await;
    parsed.unwrap_or(Err(NotLoaded::Unfinished))
}

/// The same for a command: `what` is the action that fails without them.
pub(super) async fn load_for(path: &Path, given: Given, what: &str) -> Result<Whole, Outcome> {
    let loaded = load_whole(path, given, &HashMap::new()).await;
    loaded.map_err(|failed| match failed {
        NotLoaded::Settings(report) => Outcome::failed(report.render(style()), WRONG),
        NotLoaded::Vaults(error) => Outcome::failed(format!("flowgate: cannot {what}: {error}\n"), FAILED),
        NotLoaded::Unfinished => Outcome::failed(format!("flowgate: cannot {what}\n"), FAILED),
    })
}

pub(super) fn runtime() -> Result<Runtime, Outcome> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Outcome::failed(format!("cannot start: {error}\n"), FAILED))
}

/// Warnings for standard error.
pub(super) fn rendered(warnings: &[Mistake]) -> String {
    let texts = warnings.iter().map(|warning| warning.render(style()) + "\n\n");
    texts.collect()
}

/// Colour only on a terminal.
pub(super) fn style() -> Style {
    if std::io::stderr().is_terminal() {
        Style::Color
    } else {
        Style::Plain
    }
}
