//! `flowgate vendor enrol` and `vendor forget`: commands to the gateway that runs, about secrets that a vendor sends once.

use std::time::Duration;

use crate::cli::enrolling::PERIOD_MAX;
use crate::cli::key_maker::wrong;
use crate::cli::operate;
use crate::cli::operate::Running;
use crate::cli::outcome::Outcome;
use crate::control::Request;
use crate::settings::key_edit::lifetime;

#[derive(Debug, clap::Args)]
pub(super) struct Enrol {
    #[command(flatten)]
    running: Running,
    /// The route, with the vendor in its `handshakes`.
    route: String,
    /// For how long, such as 10m; the first handshake ends it.
    #[arg(long = "for", value_name = "TIME", default_value = "10m")]
    period: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Forget {
    #[command(flatten)]
    running: Running,
    /// The route.
    route: String,
    /// Label of the secret, which the log names as `key`; without it, the secrets are listed.
    label: Option<String>,
}

pub(super) fn enrol(task: &Enrol) -> Result<Outcome, Outcome> {
    let period =
        lifetime(&task.period).filter(|period| (Duration::from_secs(1)..=PERIOD_MAX).contains(period));
    let period = period.ok_or_else(|| wrong("--for: write how long, such as 10m; at most 24h".to_owned()))?;
    let request = Request::Enrol {
        route: task.route.clone(),
        seconds: period.as_secs(),
    };
    Ok(operate::ask(&task.running, &request))
}

pub(super) fn forget(task: &Forget) -> Outcome {
    let request = Request::Forget {
        route: task.route.clone(),
        label: task.label.clone(),
    };
    operate::ask(&task.running, &request)
}
