//! Checks the gateway's own side: the certificates that it presents to callers, and proxies that other
//! programs on this host may use.

use crate::doctor::network::{RENEWAL, days};
use crate::doctor::questions::Selection;
use crate::doctor::report::{Check, Group};
use crate::model::{FixedBy, Remedy, clock};
use crate::settings::{Certificate, Config, Environment, Transport};

pub(super) fn examine(config: &Config, selection: &Selection<'_>, environment: &Environment) -> Group {
    let mut group = Group::new("gateway", "");
    for listener in &config.listeners {
        match &listener.transport {
            Transport::Plain { .. } => {
                group.aside(Check::note(
                    "listener",
                    format!("{} speaks plain HTTP", listener.address),
                ));
            }
            Transport::Tls(tls) => {
                for certificate in &tls.certificates {
                    group.aside(judge(listener.address, certificate));
                }
            }
        }
    }
    for route in &selection.routes {
        if let Some(host) = &route.host
            && !is_covered(config, host)
        {
            let says = format!("no certificate covers {host}, the host of route {}", route.name);
            let what = format!("Add a [[listener.certificate]] for {host}, or correct `host` of the route.");
            group.aside(Check::warn(
                "listener",
                says,
                Remedy::new(FixedBy::Operator, what),
            ));
        }
    }
    group.aside(proxies(environment));
    group
}

fn judge(address: std::net::SocketAddr, certificate: &Certificate) -> Check {
    let now = clock::wall();
    let names = certificate.names.join(" ");
    let left = certificate.not_after.duration_since(now).unwrap_or_default();
    let renew = "Renew the certificate and store it with its key where the settings name them; a running \
                 gateway reads it from there by itself, but from a variable only after a restart.";
    if left.is_zero() {
        let says = format!("{address}: the certificate for {names} has expired");
        return Check::fail("listener", says, Remedy::new(FixedBy::Operator, renew));
    }
    if certificate.not_before > now {
        let says = format!("{address}: the certificate for {names} is not valid yet");
        let what = "Compare this host's clock, or go back to the previous certificate.";
        return Check::fail("listener", says, Remedy::new(FixedBy::Operator, what));
    }
    let says = format!("{address}: certificate for {names}, {}", days(left));
    match left <= RENEWAL {
        true => Check::warn("listener", says, Remedy::new(FixedBy::Operator, renew)),
        false => Check::ok("listener", says),
    }
}

/// Whether the certificate that callers get for this host covers it.
fn is_covered(config: &Config, host: &str) -> bool {
    let covers = |name: &String| match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == host,
    };
    config.listeners.iter().any(|listener| match &listener.transport {
        Transport::Plain { .. } => true,
        Transport::Tls(tls) => tls
            .certificates
            .iter()
            .any(|certificate| certificate.names.iter().any(covers)),
    })
}

fn proxies(environment: &Environment) -> Check {
    let set = environment.proxies();
    if set.is_empty() {
        return Check::ok(
            "proxy",
            "no proxy variable is set, and the gateway would not use one",
        );
    }
    let says = format!(
        "{} is set, and the gateway ignores it: it connects directly",
        set.join(", ")
    );
    let what = "Let this host out to the authority and the triggers on port 443: no setting makes the gateway use a proxy.";
    Check::warn("proxy", says, Remedy::new(FixedBy::HostAdmin, what))
}
