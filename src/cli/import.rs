//! `flowgate import` and `flowgate relink`: turns the address that a flow shows into a route, or into the new
//! trigger of an existing route. A signature is never written to the settings file, but to a file that only
//! its owner can read.

use std::fmt::Write as _;
use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cli::load::SettingsFile;
use crate::cli::outcome::{Outcome, WRONG};
use crate::cli::routes;
use crate::cli::routes::shortened;
use crate::model::trigger::{ADDRESS_CHARS_MAX, Family};
use crate::model::{Cloud, RouteName, Secret, TriggerUrl};
use crate::settings;
use crate::settings::edit::{Readers, TriggerPlace};
use crate::settings::{Config, Environment, Proof, RouteKind, RouteSettings, Secrets, Style, edit};

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    #[command(flatten)]
    settings: SettingsFile,
    /// The address, or - to read it from standard input, which keeps it out of the shell's history.
    #[arg(value_name = "URL")]
    address: String,
    /// Name of the route.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Public path; default /NAME.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Host that the route answers for; default every host.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// A caller that may use the route; may be repeated.
    #[arg(long = "caller", value_name = "NAME", conflicts_with = "anonymous")]
    callers: Vec<String>,
    /// Open the route to anyone, without a key.
    #[arg(long)]
    anonymous: bool,
    /// The identity whose token starts the flow; default the only one that fits.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// Print what would be written, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `relink`.
#[derive(Debug, clap::Args)]
pub(super) struct Relink {
    #[command(flatten)]
    settings: SettingsFile,
    /// Name of the route.
    route: String,
    /// The new address, or - to read it from standard input.
    #[arg(value_name = "URL")]
    address: String,
    /// Print what would be written, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A settings file that was read and is valid, secrets aside.
struct Settings {
    text: String,
    config: Config,
}

/// Why nothing was changed, for the operator.
type Refusal = String;

pub(super) fn import(task: &Import) -> Outcome {
    outcome(try_import(task))
}

pub(super) fn relink(task: &Relink) -> Outcome {
    outcome(try_relink(task))
}

fn outcome(result: Result<String, Refusal>) -> Outcome {
    match result {
        Ok(said) => Outcome::out(said),
        Err(refusal) => Outcome::failed(format!("{refusal}\nNothing was changed.\n"), WRONG),
    }
}

fn try_import(task: &Import) -> Result<String, Refusal> {
    let url = read_address(&task.address)?;
    let settings = Settings::read_to_add(&task.settings.config)?;
    let name =
        RouteName::parse(&task.name).map_err(|error| format!("The name \"{}\": {error}.", &task.name))?;
    if settings.route(&task.name).is_some() {
        return Err(format!(
            "There is a route \"{name}\" already. To give it this address: flowgate relink {name} -"
        ));
    }
    settings.know_callers(&task.callers)?;
    let proof = settings.proof_for(&url, task.identity.as_deref())?;
    let (address, signature) = match &proof {
        Proof::Signed => (None, Some(exposed(&url))),
        Proof::Identity(_) => (Some(unsigned(&url)), None),
    };
    let secret_file = format!("{name}.trigger");
    let block = block(task, &settings, &proof, address.as_deref(), &secret_file)?;
    let text = edit::appended(&settings.text, &block);
    let config = check(&text, &task.settings.config)
        .map_err(|report| format!("With the new route the settings would be invalid:\n{report}"))?;
    let mut said = describe(&url) + &left_behind(&task.address, &url);
    if let (Proof::Identity(name), true) = (&proof, url.is_signed()) {
        let _ = writeln!(
            said,
            "The address carries a signature; it is left out, because the route sends the token of \
             \"{name}\" instead."
        );
    }
    if task.dry_run {
        let _ = write!(
            said,
            "\nThis would be added to {}:\n\n{block}",
            task.settings.config.display()
        );
        return Ok(said);
    }
    if let Some(signature) = signature {
        let path = folder(&task.settings.config).join(&secret_file);
        if path.exists() {
            return Err(format!("{} already exists; move it away first.", path.display()));
        }
        let readers = edit::replace_secret(&path, &signature, &task.settings.config)
            .map_err(|error| unwritten(&path, &error))?;
        let _ = writeln!(
            said,
            "Signature   stored in {}, readable by its owner only",
            path.display()
        );
        said.push_str(&readable_by(readers, &path));
    }
    edit::replace_settings(&task.settings.config, &text)
        .map_err(|error| unwritten(&task.settings.config, &error))?;
    let _ = writeln!(
        said,
        "Added       route \"{name}\" to {}",
        task.settings.config.display()
    );
    said.push_str(&public_address(&config, &task.name));
    said.push_str("Run `flowgate reload`, or send SIGHUP to the gateway, to serve it.\n");
    Ok(said)
}

fn try_relink(task: &Relink) -> Result<String, Refusal> {
    let url = read_address(&task.address)?;
    let settings = Settings::read(&task.settings.config)?;
    let Some(route) = settings.route(&task.route) else {
        let known: Vec<_> = settings
            .config
            .routes
            .iter()
            .map(|route| route.name.as_str())
            .collect();
        return Err(format!(
            "There is no route \"{}\". Known are: {}.",
            &task.route,
            known.join(", ")
        ));
    };
    if route.kind != RouteKind::Flow {
        return Err(format!(
            "The route \"{}\" leads to an API; change its `upstream` in the settings.",
            route.name
        ));
    }
    let place = edit::trigger_of(&settings.text, folder(&task.settings.config), &task.route)
        .ok_or_else(|| format!("The trigger of \"{}\" was not found in the settings.", route.name))?;
    let address = fitting(&url, route)?;
    let mut said = describe(&url) + &left_behind(&task.address, &url);
    let change = change_at(&place, address, &settings.text, task)?;
    let place = match &change {
        Change::Secret(path, _) => path.display().to_string(),
        Change::Settings(_) => task.settings.config.display().to_string(),
    };
    if task.dry_run {
        let _ = writeln!(said, "This address would replace the one in {place}.");
        return Ok(said);
    }
    let next = match change {
        Change::Secret(path, address) => {
            let readers = edit::replace_secret(&path, &address, &task.settings.config)
                .map_err(|error| unwritten(&path, &error))?;
            said.push_str(&readable_by(readers, &path));
            "A running gateway uses it within seconds."
        }
        Change::Settings(text) => {
            edit::replace_settings(&task.settings.config, &text)
                .map_err(|error| unwritten(&task.settings.config, &error))?;
            "Run `flowgate reload`, or send SIGHUP to the gateway, to use the new address."
        }
    };
    let _ = writeln!(said, "Replaced    the trigger of \"{}\" in {place}", route.name);
    said.push_str(&public_address(&settings.config, &task.route));
    let _ = writeln!(said, "Callers notice nothing. {next}");
    Ok(said)
}

/// What is written where the trigger is.
fn change_at(place: &TriggerPlace, address: Secret, text: &str, task: &Relink) -> Result<Change, Refusal> {
    Ok(match place {
        TriggerPlace::Variable(name) => {
            return Err(format!(
                "The trigger of \"{}\" is in the environment variable {name}: set it to the new address where the gateway \
                 is started.",
                task.route
            ));
        }
        TriggerPlace::Vault(place) => {
            return Err(format!(
                "The trigger of \"{}\" is {place}: store the new address there.",
                task.route
            ));
        }
        TriggerPlace::File(path) => Change::Secret(path.clone(), address),
        TriggerPlace::Inline(span) => {
            let changed = edit::with(text, span.clone(), address.expose())
                .ok_or_else(|| "The settings cannot be changed at this place.".to_owned())?;
            check(&changed, &task.settings.config)?;
            Change::Settings(changed)
        }
    })
}

enum Change {
    Settings(String),
    Secret(PathBuf, Secret),
}

/// Converts the new address into the form that the route needs.
fn fitting(url: &TriggerUrl, route: &RouteSettings) -> Result<Secret, Refusal> {
    match (&route.proof, url.is_signed()) {
        (Proof::Signed, true) => Ok(exposed(url)),
        (Proof::Identity(_), false) => Ok(Secret::new(unsigned(url))),
        // A Logic App may accept both; the token is safer.
        (Proof::Identity(_), true) if url.family() == Family::Consumption => Ok(Secret::new(unsigned(url))),
        (Proof::Identity(name), true) => Err(format!(
            "The new address carries a signature, so the flow is set to \"Anyone\", and the route \"{}\" \
             sends the token of \"{name}\". Set the trigger to \"Any user in my tenant\" or \"Specific users \
             in my tenant\", save the flow, and copy the address again.",
            route.name
        )),
        (Proof::Signed, false) => Err(format!(
            "The new address carries no signature, and the route \"{}\" is signed. Copy the whole address, with its sig; or, \
             if the flow now wants a token, replace `signed` by `identity` in the route.",
            route.name
        )),
    }
}

/// A placeholder route that makes settings without routes pass the check.
const STAND_IN: &str =
    "[[route]]\nname = \".\"\npath = \"/\"\nanonymous = true\nsigned = true\ntrigger = \"file:.\"\n";

impl Settings {
    fn read(path: &Path) -> Result<Self, Refusal> {
        let text = read(path)?;
        let config = check(&text, path)?;
        Ok(Self { text, config })
    }

    /// Like `read`, but accepts settings whose only fault is that they have no route yet.
    fn read_to_add(path: &Path) -> Result<Self, Refusal> {
        let text = read(path)?;
        let config = match edit::has_routes(&text) {
            true => check(&text, path)?,
            false => check(&edit::appended(&text, STAND_IN), path)?,
        };
        Ok(Self { text, config })
    }

    fn route(&self, name: &str) -> Option<&RouteSettings> {
        self.config
            .routes
            .iter()
            .find(|route| route.name.as_str() == name)
    }

    fn caller_names(&self) -> Vec<&str> {
        let callers = self.config.callers.iter();
        callers.map(|caller| caller.name.as_str()).collect()
    }

    /// Checks the caller names early: the check of the whole text would report a line that is never written.
    fn know_callers(&self, named: &[String]) -> Result<(), Refusal> {
        let known = self.caller_names();
        let Some(stranger) = named.iter().find(|name| !known.contains(&name.as_str())) else {
            return Ok(());
        };
        let list = match known.is_empty() {
            true => "The settings have none: add [[caller]] first; flowgate key new --caller NAME prints its lines.".to_owned(),
            false => format!("Known are: {}.", shortened(&known, NAMES_SHOWN)),
        };
        Err(format!(
            "--caller {stranger}: there is no caller \"{stranger}\". {list}"
        ))
    }

    /// Decides how the flow authenticates us: by the named identity, by its signature, or by the only
    /// identity that fits.
    fn proof_for(&self, url: &TriggerUrl, named: Option<&str>) -> Result<Proof, Refusal> {
        let identities = &self.config.identities;
        let list = || {
            let names: Vec<_> = identities.iter().map(|identity| identity.name.as_str()).collect();
            match names.is_empty() {
                true => "The settings have none: add [[identity]] first.".to_owned(),
                false => format!("Known are: {}.", names.join(", ")),
            }
        };
        if let Some(named) = named {
            let identity = identities.iter().find(|identity| identity.name.as_str() == named);
            let identity = identity.ok_or_else(|| format!("There is no identity \"{named}\". {}", list()))?;
            return Ok(Proof::Identity(identity.name.clone()));
        }
        if url.is_signed() {
            return Ok(Proof::Signed);
        }
        let cloud = url.cloud();
        let mut fitting = identities
            .iter()
            .filter(|identity| identity.scope == identity.cloud.scope())
            .filter(|identity| cloud.is_none_or(|cloud| identity.cloud == cloud));
        match (fitting.next(), fitting.next()) {
            (Some(identity), None) => Ok(Proof::Identity(identity.name.clone())),
            _ => Err(format!(
                "The address carries no signature: name the identity whose token starts the flow, with --identity NAME. {}",
                list()
            )),
        }
    }
}

/// Names that a refusal lists at most.
const NAMES_SHOWN: usize = 20;

fn read(path: &Path) -> Result<String, Refusal> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("The settings file {} cannot be read: {error}.", path.display()))
}

fn block(
    task: &Import,
    settings: &Settings,
    proof: &Proof,
    address: Option<&str>,
    secret_file: &str,
) -> Result<String, Refusal> {
    let mut block = format!("[[route]]\nname = {}\n", edit::quoted(&task.name));
    if let Some(host) = &task.host {
        let _ = writeln!(block, "host = {}", edit::quoted(host));
    }
    let usual = format!("/{}", &task.name);
    let _ = writeln!(
        block,
        "path = {}",
        edit::quoted(task.path.as_deref().unwrap_or(&usual))
    );
    if task.anonymous {
        block.push_str("anonymous = true\n");
    } else if task.callers.is_empty() {
        let known = match settings.caller_names().as_slice() {
            [] => "none".to_owned(),
            known => shortened(known, NAMES_SHOWN),
        };
        return Err(format!(
            "A route needs callers: name them with --caller NAME, or open it with --anonymous. Known are: \
             {known}."
        ));
    } else {
        let callers: Vec<_> = task.callers.iter().map(|caller| edit::quoted(caller)).collect();
        let _ = writeln!(block, "callers = [{}]", callers.join(", "));
    }
    match (proof, address) {
        (Proof::Identity(name), Some(address)) => {
            let _ = writeln!(block, "identity = {}", edit::quoted(name.as_str()));
            let _ = writeln!(block, "trigger = {}", edit::quoted(address));
        }
        _ => {
            let reference = format!("file:{secret_file}");
            let _ = writeln!(block, "signed = true\ntrigger = {}", edit::quoted(&reference));
        }
    }
    Ok(block)
}

/// Reads the address from the argument, or one line of standard input for `-`.
fn read_address(argument: &str) -> Result<TriggerUrl, Refusal> {
    let mut text = Secret::new(argument);
    if argument == "-" {
        let mut line = String::new();
        let limit = 4 * ADDRESS_CHARS_MAX as u64;
        let read = io::stdin().take(limit).read_to_string(&mut line);
        read.map_err(|error| format!("Standard input cannot be read: {error}."))?;
        text = Secret::new(line.trim());
    }
    TriggerUrl::parse(text.expose()).map_err(|error| match error.hint() {
        Some(hint) => format!("The {error}.\nHint: {hint}"),
        None => format!("The {error}."),
    })
}

/// Checks settings without their secrets, which may be on another machine.
fn check(text: &str, path: &Path) -> Result<Config, Refusal> {
    let environment = Environment::of_process().with(Secrets::Unresolved);
    let checked = settings::parse(text, path, &environment);
    let (config, _) = checked.map_err(|report| report.render(Style::Plain))?;
    Ok(config)
}

/// Shown for a fact that the address does not contain.
const UNKNOWN: &str = "unknown, the address does not show it";

/// Describes the flow, as far as its address reveals it.
fn describe(url: &TriggerUrl) -> String {
    let family = match url.family() {
        Family::Consumption => "Logic Apps Consumption, or a flow from before the move of 2025",
        Family::PowerPlatform | Family::PowerPlatformScaleUnit => "Power Automate",
        Family::Standard => "Logic Apps Standard",
        Family::Other => "unknown",
    };
    let is_known = url.has_known_host() && url.family() != Family::Other;
    let mode = match (url.is_signed(), is_known) {
        (true, _) => "the address carries a signature (\"Anyone\", or a Logic App whose owner allows it)",
        (false, true) => {
            "the flow wants a token (\"Any user in my tenant\" or \"Specific users in my tenant\")"
        }
        (false, false) => UNKNOWN,
    };
    let mut said = format!("Trigger     {url}\nFamily      {family}\n");
    let cloud = url.cloud().map_or(UNKNOWN, Cloud::name);
    let _ = write!(said, "Cloud       {cloud}\nMode        {mode}\n");
    if let Some(warning) = url.warning() {
        let _ = writeln!(said, "Note        {warning}");
    }
    // Only Logic Apps have this shape, and their addresses do not change.
    if is_known && url.family() == Family::Consumption {
        said.push_str(
            "Note        if this is a Power Automate flow, its address was replaced in 2025: copy the new one from the trigger\n",
        );
    }
    said
}

/// Warns about other places where the signature was left.
fn left_behind(argument: &str, url: &TriggerUrl) -> String {
    if argument == "-" || !url.is_signed() {
        return String::new();
    }
    "Note        the signature is now in this shell's history; pass - instead of the address, and paste it\n"
        .to_owned()
}

fn public_address(config: &Config, name: &str) -> String {
    let route = config.routes.iter().find(|route| route.name.as_str() == name);
    route.map_or_else(String::new, |route| {
        format!("Public      {}\n", routes::addresses(config, route))
    })
}

/// The whole address as it is sent, including the signature.
fn exposed(url: &TriggerUrl) -> Secret {
    Secret::new(format!(
        "https://{}{}",
        url.authority(),
        url.exposed_path_and_query().expose()
    ))
}

/// The address without `sp`, `sv` and `sig`.
fn unsigned(url: &TriggerUrl) -> String {
    format!("https://{}{}", url.authority(), url.path_and_query_unsigned())
}

fn folder(settings: &Path) -> &Path {
    settings.parent().unwrap_or(Path::new(""))
}

fn unwritten(path: &Path, error: &io::Error) -> Refusal {
    format!("{} cannot be written: {error}.", path.display())
}

/// Describes who can read the file, and what to do if that does not include the gateway's user.
fn readable_by(readers: Readers, path: &Path) -> String {
    let shown = path.display();
    match readers {
        Readers::OwnerOfSettings(owner) => format!(
            "Readable    by user {owner}, who owns the settings file; if the gateway runs as another one: chown USER {shown}\n"
        ),
        Readers::Another { owner, settings } => format!(
            "Readable    by user {owner} only, but the settings file belongs to user {settings}: if the \
             gateway runs as that one, it cannot read the secret until you run chown {settings} {shown}\n"
        ),
        Readers::Unknown => String::new(),
    }
}
