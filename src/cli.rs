//! The command line: parses a command, calls one library function and returns what to print and the exit
//! code. `main` prints it and ends the process; only `login` prints while it runs.

mod commands;
mod disk;
mod doctor;
mod edited;
mod enrolling;
pub mod explain;
mod import;
mod init;
mod kept;
mod key_edits;
mod key_list;
mod key_maker;
mod keys;
mod libraries;
mod lines;
mod load;
mod logging;
mod login;
mod noted;
mod operate;
mod outcome;
mod reload;
mod routes;
mod serve;
mod signals;
mod vendor_enrol;
mod vendor_pack;
mod vendor_test;
pub mod vendors;

use std::path::Path;

use clap::{CommandFactory, Parser, Subcommand};

pub use outcome::Outcome;

use crate::cli::doctor::DoctorArguments;
use crate::cli::keys::KeyCommand;
use crate::cli::load::{SettingsFile, load, rendered, style};
use crate::cli::operate::{AuditCommand, Running};
use crate::cli::outcome::WRONG;
use crate::cli::vendor_test::VendorCommand;
use crate::control::Request;
use crate::doctor::{count, setup};
use crate::settings;
use crate::settings::{Environment, Report, Secrets};

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
  flowgate init                            write settings, a certificate and a key to begin with
  flowgate check  --config flowgate.toml   find every mistake in the settings
  flowgate key new --caller shop           make a key for a caller; --write adds it
  flowgate routes --config flowgate.toml   see who may call what
  flowgate vendor-pack orders              print a page for the developer who calls a route
  flowgate vendor test orders              send a signed sample that starts nothing
  flowgate serve  --config flowgate.toml   run the gateway
  flowgate reload --config flowgate.toml   put changed settings in force
  flowgate rollback 7                      put those of revision 7 in force again
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
    /// Write a working folder to begin with: commented settings, a certificate for development, and a caller with a
    /// key. No file is overwritten.
    Init(init::Init),
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
        style: setup::Style,
    },
    /// Show which settings are in force, since when and by whom, and whether the files differ from them.
    Status {
        #[command(flatten)]
        running: Running,
    },
    /// Show what a reload would change, without secrets, and a digest for `reload --digest`. Compares the file of `--config`,
    /// which may be another than the gateway's own.
    Plan {
        #[command(flatten)]
        running: Running,
        /// Show what a rollback to this revision would change.
        #[arg(long, value_name = "NUMBER")]
        revision: Option<u64>,
    },
    /// Put the changed settings in force; a mistake in them changes nothing.
    Reload {
        #[command(flatten)]
        running: Running,
        /// Only if the files are as `plan` saw them.
        #[arg(long, value_name = "DIGEST")]
        digest: Option<String>,
    },
    /// Put the settings of an earlier revision in force, also over restarts, until the next reload. Without a number, list the
    /// revisions that are kept.
    Rollback {
        #[command(flatten)]
        running: Running,
        /// The revision.
        revision: Option<u64>,
        /// Also if it lets in what is kept out now. Keys that were revoked with `key revoke` stay refused.
        #[arg(long, requires = "revision")]
        readmit: bool,
    },
    /// Check the trail of changes.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// List, make, rotate and revoke keys of callers, and hash existing ones.
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
    /// Print a page for the developer of a calling system: address, method, key or signature, limits, which answers to repeat, a
    /// `curl` line. No secret is read.
    VendorPack(vendor_pack::VendorPack),
    /// Test a route as its vendor would call it.
    Vendor {
        #[command(subcommand)]
        command: VendorCommand,
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

/// Runs a command to its end.
pub fn run(cli: Cli) -> Outcome {
    outcome(cli.command).unwrap_or_else(|failed| failed)
}

fn outcome(command: Command) -> Result<Outcome, Outcome> {
    match command {
        Command::Serve { settings } => serve::serve(&settings.config),
        Command::Init(task) => Ok(init::init(&task)),
        Command::Check {
            settings,
            without_secrets,
        } => check(&settings.config, without_secrets),
        Command::Doctor { settings, words } => doctor::doctor(&settings.config, words),
        Command::Explain { code } => Ok(explain::explain(&code)),
        Command::Setup {
            settings,
            identity,
            style,
        } => doctor::setup(&settings.config, &identity, style),
        Command::Status { running } => Ok(operate::ask(&running, &Request::Status)),
        Command::Plan { running, revision } => Ok(operate::plan(&running, revision)),
        Command::Reload { running, digest } => Ok(operate::ask(&running, &Request::Reload { digest })),
        Command::Rollback {
            running,
            revision,
            readmit,
        } => Ok(operate::ask(&running, &Request::Rollback { revision, readmit })),
        Command::Audit { command } => Ok(operate::audit(&command)),
        Command::Key { command } => keys::run(command),
        Command::Routes { settings } => {
            let environment = Environment::of_process().with(Secrets::Unresolved);
            let (config, _) = load(&settings.config, &environment)?;
            Ok(Outcome::out(routes::table(&config)))
        }
        Command::VendorPack(task) => vendor_pack::vendor_pack(&task),
        Command::Vendor { command } => vendor_test::run(&command),
        Command::Import(task) => Ok(import::import(&task)),
        Command::Relink(task) => Ok(import::relink(&task)),
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
            Ok(Outcome::out(text + "\n"))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "flowgate", &mut script);
            Ok(Outcome::out(String::from_utf8_lossy(&script)))
        }
    }
}

fn check(path: &Path, without_secrets: bool) -> Result<Outcome, Outcome> {
    let secrets = if without_secrets {
        Secrets::Unresolved
    } else {
        Secrets::Resolved
    };
    let (config, warnings) = load(path, &Environment::of_process().with(secrets))?;
    let warnings =
        Report::strict(warnings).map_err(|report| Outcome::failed(report.render(style()), WRONG))?;
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
    outcome.err = rendered(&warnings);
    Ok(outcome)
}
