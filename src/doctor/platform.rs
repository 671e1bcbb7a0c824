//! Checks identities that the platform provides: whether the endpoint is reachable, and which source the
//! default chain takes and why not the other.

use std::time::Duration;

use crate::doctor::authority::authority;
use crate::doctor::network::Destination;
use crate::doctor::report::{Check, Group};
use crate::doctor::walk::Walk;
use crate::doctor::{advice, credential, network};
use crate::model::{FixedBy, Remedy};
use crate::settings::{DefaultSettings, IdentitySettings, ManagedSettings, ManagedSource};

/// Each of these endpoints is on this machine or one hop away.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Checks that the endpoint of a managed identity accepts connections; nothing is sent to it.
pub(super) async fn managed(settings: &ManagedSettings, group: &mut Group) {
    let source = &settings.source;
    let which = match &settings.selector {
        Some(selector) => selector.to_string(),
        None => "system-assigned".to_owned(),
    };
    group.aside(Check::note("managed", format!("{}, {which}", settings.origin)));
    if group.skips(&["endpoint"]) {
        return;
    }
    let timeout = settings.timeout.min(REACH_TIMEOUT);
    let setting = "endpoint of the managed identity";
    let place = Destination::of(source.endpoint(), &settings.trust, timeout, setting);
    let found = network::reach(&place).await;
    let says = |check: &Check| format!("{}: {}", source.name(), check.says);
    group.add(match found {
        Ok(check) => Check::ok("endpoint", says(&check)),
        Err(check) => Check::fail("endpoint", says(&check), absent(source)),
    });
}

fn absent(source: &ManagedSource) -> Remedy {
    let what = match source {
        ManagedSource::Imds { .. } => {
            "Outside of Azure there is no IMDS: give the identity another kind of credential there. Inside, \
             let the gateway reach 169.254.169.254 port 80: a firewall of the host or the network of a \
             container may block it."
        }
        ManagedSource::AppService { .. } => {
            "Restart the app: the platform starts its endpoint together with it, and names it in IDENTITY_ENDPOINT."
        }
        ManagedSource::Arc { .. } => {
            "Start the agent of Azure Arc: systemctl restart himdsd, on Windows Restart-Service himds."
        }
    };
    let remedy = Remedy::new(FixedBy::HostAdmin, what);
    advice::at_source(remedy, source)
}

/// Checks the sources of the default chain in its order.
pub(super) async fn chain(
    settings: &IdentitySettings,
    chain: &DefaultSettings,
    walk: &mut Walk,
    group: &mut Group,
) {
    let out = match &chain.federated {
        Ok((endpoint, proof)) => {
            group.aside(Check::ok(
                "chain",
                "workload identity is used: its variables are set",
            ));
            let why = match &chain.managed {
                Ok(_) => "it comes after workload identity, and is not called",
                Err(why) => why.as_str(),
            };
            group.aside(Check::note(
                "chain",
                format!("managed identity is not used: {why}"),
            ));
            credential::federated(settings, proof, walk, group).await;
            authority(endpoint, group, &mut walk.seen).await;
            return;
        }
        Err(why) => why,
    };
    group.aside(Check::note(
        "chain",
        format!("workload identity is not used: {out}"),
    ));
    match &chain.managed {
        Ok(found) => {
            let says = format!(
                "managed identity from {} is used if it answers",
                found.source.name()
            );
            group.aside(Check::note("chain", says));
            managed(found, group).await;
        }
        Err(why) => {
            let what =
                "Give the machine an identity, or the identity of the settings a credential of its own.";
            group.add(Check::fail(
                "chain",
                format!("no source is available: managed identity is not used either: {why}"),
                Remedy::new(FixedBy::Operator, what),
            ));
        }
    }
}
