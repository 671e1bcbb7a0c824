//! `flowgate doctor` and `flowgate setup`: turns arguments into questions for the doctor, and its report into
//! an outcome.

use std::io::Write;
use std::path::Path;

use tokio::runtime::Runtime;

use crate::cli::load::{load, rendered, runtime};
use crate::cli::outcome::{FAILED, Outcome, WELL, WRONG};
use crate::doctor::live::{RUN_WORDS, not_allowed};
use crate::doctor::{Live, Privileges, Questions, Report, Selection, SignedUrl, Walk, advice, setup};
use crate::settings::{Environment, Mistake, Secrets};
use crate::{doctor, settings};

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArguments {
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

pub(super) fn doctor(path: &Path, words: DoctorArguments) -> Result<Outcome, Outcome> {
    if words.audit {
        let why = "`doctor --audit` is now `doctor --privileges`; it does the same\n";
        return Err(Outcome::failed(why, WRONG));
    }
    let live = match (words.live, words.run.as_deref()) {
        (false, None) => Live::No,
        (true, None) => Live::Probes,
        (true, Some(RUN_WORDS)) => Live::Run,
        (_, Some(_)) => return Err(Outcome::failed(not_allowed("--live --run"), WRONG)),
    };
    let signed = words.signed_url.iter().map(|reference| {
        SignedUrl::read(reference, &Environment::of_process())
            .map_err(|why| Outcome::failed(format!("--signed-url: {why}\n"), WRONG))
    });
    let signed = signed.collect::<Result<_, _>>()?;
    let questions = Questions {
        route: words.route,
        identity: words.identity,
        live,
        privileges: if words.privileges {
            Privileges::Yes
        } else {
            Privileges::No
        },
        signed,
    };
    let runtime = runtime()?;
    let found = examine(path, &questions, &runtime);
    // A pending name lookup must not delay the exit.
    runtime.shutdown_background();
    let (mut report, warnings) = found?;
    report.name_settings(path);
    let out = match words.json {
        true => serde_json::to_string_pretty(&report.json()).unwrap_or_default() + "\n",
        false => report.text(),
    };
    let err = rendered(&warnings);
    let code = if report.has_failed() { FAILED } else { WELL };
    Ok(Outcome { out, err, code })
}

/// Runs all checks. Settings that need secrets from key vaults at the start are parsed twice, as `serve`
/// does; a secret that cannot be read is reported.
fn examine(path: &Path, questions: &Questions, runtime: &Runtime) -> Result<(Report, Vec<Mistake>), Outcome> {
    let mut environment = Environment::of_process();
    let (mut config, mut warnings) = load(path, &environment)?;
    Selection::of(&config, questions).map_err(wrong)?;
    let walk = runtime.block_on(Walk::begin(&config));
    let Some(values) = walk.values(&config) else {
        return Ok((walk.stop(&config, questions).map_err(wrong)?, warnings));
    };
    if !values.is_empty() {
        environment = environment.with_vaults(values);
        (config, warnings) = load(path, &environment)?;
    }
    let selection = Selection::of(&config, questions).map_err(wrong)?;
    let mut plan = doctor::live::plan(&selection, questions.live);
    plan.extend(doctor::signature::plan(&config, &selection, questions));
    announce(&plan);
    let report = runtime.block_on(walk.finish(&config, &environment, questions));
    Ok((report.map_err(wrong)?, warnings))
}

fn wrong(why: String) -> Outcome {
    Outcome::failed(why + "\n", WRONG)
}

/// Prints what will be sent before it is sent: the outcome of a command is printed only at its end.
pub(super) fn announce(plan: &[String]) {
    if plan.is_empty() {
        return;
    }
    let mut text = String::from("This will be sent:\n");
    for line in plan {
        text.push_str(&format!("  {line}\n"));
    }
    // If standard error is closed, the calls are made anyway: they were asked for.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

pub(super) fn setup(path: &Path, identity: &str, style: setup::Style) -> Result<Outcome, Outcome> {
    // The announcement comes before secrets are read from vaults; the pod's environment is known only with
    // them.
    let whole = settings::load(path, &Environment::of_process());
    let without = |_| load(path, &Environment::of_process().with(Secrets::Unresolved));
    let (config, _) = whole.or_else(without)?;
    let questions = Questions {
        identity: Some(identity.to_owned()),
        ..Questions::default()
    };
    let selection = Selection::of(&config, &questions).map_err(wrong)?;
    let runtime = runtime()?;
    let mut text = String::new();
    for identity in &selection.identities {
        text.push_str(&runtime.block_on(setup::lines(identity, &config, style)));
    }
    Ok(Outcome::out(advice::with_settings(&text, path)))
}
