//! The command line: parses a command, calls one library function and returns what to print and the exit
//! code. `main` prints it and ends the process; only `login` prints while it runs.

mod doctor;
pub mod explain;
mod import;
mod keys;
mod libraries;
mod lines;
mod logging;
mod login;
mod routes;
mod serve;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::doctor::count;
use crate::settings::{Config, Environment, Mistake, Report, Secrets, Style};
use crate::{entra, settings};

/// Flowgate: an authenticating TLS reverse proxy for HTTP-triggered Power Automate and Logic Apps flows.
///
/// It lets callers with an API key, or from a known network, start a flow that is set to "Any user in my
/// tenant" or "Specific users in my tenant": it checks the caller, adds an Entra access token, forwards the
/// request, and explains in plain words what went wrong if something does.
#[derive(Debug, Parser)]
#[command(name = "flowgate", version, after_help = START_HERE, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const START_HERE: &str = "\
Start here:
  flowgate check  --config flowgate.toml   find every mistake in the settings
  flowgate key new --caller shop           make a key for a caller
  flowgate routes --config flowgate.toml   see who may call what
  flowgate serve  --config flowgate.toml   run the gateway
  flowgate doctor --config flowgate.toml   find the one thing that is wrong
  flowgate explain CODE                    see what a code in the log means

Exit codes: 0 all is well, 1 it failed while running, 2 the settings or the command are wrong.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C; a second signal stops at once.
    Serve {
        #[command(flatten)]
        settings: SettingsFile,
    },
    /// Check the settings and report every mistake with its line, its reason and, where it is known, the
    /// correction.
    Check {
        #[command(flatten)]
        settings: SettingsFile,
        /// Do not read secrets, for a machine that does not have them.
        #[arg(long)]
        without_secrets: bool,
    },
    /// Check every step from name resolution to the token's claims, and name the one thing that is wrong, who
    /// fixes it and how.
    Doctor {
        #[command(flatten)]
        settings: SettingsFile,
        #[command(flatten)]
        words: DoctorArguments,
    },
    /// Explain a code of the log, of an answer or of Entra: what happened, who fixes it, whether waiting or sending again
    /// helps.
    Explain {
        /// The code: `key-missing`, `AADSTS7000215`, `NoResponse`, `http-404`, `not-tls`.
        code: String,
    },
    /// Print the commands that create what an identity needs in Entra; nothing is run.
    Setup {
        #[command(flatten)]
        settings: SettingsFile,
        /// The identity.
        #[arg(long, value_name = "NAME")]
        identity: String,
        /// The tool that the commands are for.
        #[arg(long, value_enum, default_value = "az")]
        style: SetupStyle,
    },
    /// Create keys for callers, or hash existing ones.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Create a route from the address that a flow's trigger shows. A signature is written to a file of its
    /// own.
    Import(import::Import),
    /// Set the new address of a route's flow. The route's public address stays the same.
    Relink(import::Relink),
    /// Show every route: public address, who may call, limits, identity, and the trigger without its secrets.
    Routes {
        #[command(flatten)]
        settings: SettingsFile,
    },
    /// Sign in once for an identity that requests tokens in the name of an account, and store the refresh
    /// token.
    Login {
        #[command(flatten)]
        settings: SettingsFile,
        /// Name of the identity; its settings have `[identity.sign_in]`.
        #[arg(long, value_name = "NAME")]
        identity: String,
        /// Sign in on another device with a code, for a machine without a browser.
        #[arg(long)]
        device_code: bool,
        /// Print the address instead of opening a browser.
        #[arg(long, conflicts_with = "device_code")]
        no_browser: bool,
    },
    /// Print the JSON Schema of the settings file, for editors that complete and check TOML.
    Schema,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
struct SettingsFile {
    /// The settings file.
    #[arg(long, short, value_name = "FILE", default_value = "flowgate.toml")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct DoctorArguments {
    /// Check only this route and its identity.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Check only this identity and its routes.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Call the triggers in ways that cannot start a run; prints what will be sent first.
    #[arg(long)]
    live: bool,
    /// With --live: make a real call, which starts a run. The value must be "yes, start a run".
    #[arg(long, value_name = "WORDS", requires = "live")]
    run: Option<String>,
    /// Also report what is more permissive than necessary.
    #[arg(long)]
    privileges: bool,
    /// Former name of --privileges; refused with a message that names it.
    #[arg(long, hide = true)]
    audit: bool,
    /// With --privileges --live: an old signed address of a trigger that is now called with a token. Tests,
    /// without starting a run, whether the signature still works. Give a reference to the address, never the
    /// address itself; may be repeated.
    #[arg(long, value_name = "REFERENCE", requires_all = ["privileges", "live"])]
    signed_url: Vec<String>,
    /// Print JSON, for scripts.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SetupStyle {
    /// Azure CLI.
    Az,
    /// Microsoft Graph PowerShell.
    Powershell,
    /// Bicep with the Microsoft Graph extension.
    Bicep,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Generate a key of 256 random bits, print it once, and print the lines for the settings, which contain
    /// only its digest.
    New {
        /// Name of the caller that will use the key.
        #[arg(long, value_name = "NAME")]
        caller: String,
        /// Label of the key, used in logs and headers; defaults to today's date.
        #[arg(long)]
        label: Option<String>,
        #[command(flatten)]
        pepper: Pepper,
    },
    /// Read existing keys from standard input, one per line, and print their digests for the settings.
    Hash {
        /// Print lines for a keys_file, labelled LABEL-1, LABEL-2 and so on.
        #[arg(long, value_name = "LABEL")]
        label: Option<String>,
        #[command(flatten)]
        pepper: Pepper,
    },
}

#[derive(Debug, clap::Args)]
struct Pepper {
    /// Source of the pepper of `[keys]`, `env:NAME` or `file:PATH`: makes hmac-sha256 digests.
    #[arg(long, value_name = "REFERENCE")]
    pepper: Option<String>,
}

/// Result of a command.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Text for standard output.
    pub out: String,
    /// Text for standard error.
    pub err: String,
    /// Exit code.
    pub code: u8,
}

/// The command succeeded.
const WELL: u8 = 0;
/// The command failed while running.
const FAILED: u8 = 1;
/// The settings or the arguments are invalid.
const WRONG: u8 = 2;

impl Outcome {
    fn out(text: impl Into<String>) -> Self {
        Self {
            out: text.into(),
            ..Self::default()
        }
    }

    fn failed(text: impl Into<String>, code: u8) -> Self {
        Self {
            err: text.into(),
            code,
            ..Self::default()
        }
    }
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> Outcome {
    match cli.command {
        Command::Serve { settings } => serve::serve(&settings.config),
        Command::Check {
            settings,
            without_secrets,
        } => check(&settings.config, without_secrets),
        Command::Doctor { settings, words } => doctor::doctor(&settings.config, words),
        Command::Explain { code } => explain::explain(&code),
        Command::Setup {
            settings,
            identity,
            style,
        } => doctor::setup(&settings.config, &identity, style),
        Command::Key { command } => keys::run(command),
        Command::Routes { settings } => match load(
            &settings.config,
            &Environment::of_process().with(Secrets::Unresolved),
        ) {
            Ok((config, _)) => Outcome::out(routes::table(&config)),
            Err(outcome) => outcome,
        },
        Command::Import(task) => import::import(&task),
        Command::Relink(task) => import::relink(&task),
        Command::Login {
            settings,
            identity,
            device_code,
            no_browser,
        } => {
            let way = match (device_code, no_browser) {
                (true, _) => login::SignInMethod::DeviceCode,
                (false, true) => login::SignInMethod::ShowAddress,
                (false, false) => login::SignInMethod::OpenBrowser,
            };
            login::login(&settings.config, &identity, way)
        }
        Command::Schema => {
            let text = serde_json::to_string_pretty(&settings::schema()).unwrap_or_default();
            Outcome::out(text + "\n")
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "flowgate", &mut script);
            Outcome::out(String::from_utf8_lossy(&script))
        }
    }
}

fn load(path: &Path, environment: &Environment) -> Result<(Config, Vec<Mistake>), Outcome> {
    settings::load(path, environment).map_err(|report| Outcome::failed(report.render(style()), WRONG))
}

/// Loads the settings with their secrets. Secrets in key vaults can be read only with the settings that say
/// how to reach the vault, so the settings are then parsed a second time, with those values. `what` is the
/// action that fails without them.
fn load_whole(path: &Path, runtime: &Runtime, what: &str) -> Result<(Config, Vec<Mistake>), Outcome> {
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
fn style() -> Style {
    if std::io::stderr().is_terminal() {
        Style::Color
    } else {
        Style::Plain
    }
}

fn check(path: &Path, without_secrets: bool) -> Outcome {
    let secrets = if without_secrets {
        Secrets::Unresolved
    } else {
        Secrets::Resolved
    };
    let environment = Environment::of_process().with(secrets);
    let (config, warnings) = match load(path, &environment) {
        Ok(loaded) => loaded,
        Err(outcome) => return outcome,
    };
    let warnings = match Report::strict(warnings) {
        Ok(warnings) => warnings,
        Err(report) => return Outcome::failed(report.render(style()), WRONG),
    };
    let mut outcome = Outcome::out(format!(
        "{}: no mistakes. {}, {}, {}, {}.\n",
        path.display(),
        count(config.listeners.len(), "listener", "listeners"),
        count(config.routes.len(), "route", "routes"),
        count(config.callers.len(), "caller", "callers"),
        count(config.identities.len(), "identity", "identities")
    ));
    for identity in &config.identities {
        for note in identity.notes() {
            outcome
                .out
                .push_str(&format!("identity {}: {note}\n", identity.name));
        }
    }
    if let Some(keyvault) = &config.keyvault {
        let secrets = keyvault.at_start.len() + keyvault.later.len();
        outcome.out.push_str(&format!(
            "Secrets in key vaults: {secrets}, not read; `flowgate serve` reads them with identity {}.\n",
            keyvault.identity.name
        ));
    }
    for warning in warnings {
        outcome.err.push_str(&warning.render(style()));
        outcome.err.push_str("\n\n");
    }
    outcome
}
