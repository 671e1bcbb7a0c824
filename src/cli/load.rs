//! Settings for commands: the file that is named, read with or without what is in key vaults.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use crate::cli::outcome::{FAILED, Outcome, WRONG};
use crate::settings::{Config, Environment, Mistake, Style};
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

/// Loads the settings with their secrets. Secrets in key vaults can be read only with the settings that say
/// how to reach the vault, so the settings are then parsed a second time, with those values. `what` is the
/// action that fails without them.
pub(super) fn load_whole(
    path: &Path,
    runtime: &Runtime,
    what: &str,
) -> Result<(Config, Vec<Mistake>), Outcome> {
    let environment = Environment::of_process();
    let (config, warnings) = load(path, &environment)?;
    let Some(keyvault) = config
        .keyvault
        .as_ref()
        .filter(|keyvault| !keyvault.at_start.is_empty())
    else {
        return Ok((config, warnings));
    };
    match runtime.block_on(entra::read_vaults(keyvault, &config.identities)) {
        Ok(values) => load(path, &environment.with_vaults(values)),
        Err(error) => Err(Outcome::failed(
            format!("flowgate: cannot {what}: {error}\n"),
            FAILED,
        )),
    }
}

/// Colour only on a terminal.
pub(super) fn style() -> Style {
    if std::io::stderr().is_terminal() {
        Style::Color
    } else {
        Style::Plain
    }
}
