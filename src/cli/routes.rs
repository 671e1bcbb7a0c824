//! The table of routes that `flowgate routes` prints: public address, who may call, limits, identity, and the
//! trigger without its secrets.

use comfy_table::{ContentArrangement, Table, presets};

use crate::settings::{CallersSettings, Config, Proof, Rate, RouteSettings, Transport};

pub(super) fn table(config: &Config) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "route",
            "public address",
            "who may call",
            "limits",
            "identity",
            "trigger",
        ]);
    for route in &config.routes {
        table.add_row([
            route.name.to_string(),
            addresses(config, route),
            callers(route),
            limits(route),
            match &route.proof {
                Proof::Identity(name) => name.to_string(),
                Proof::Signed => "(signed address)".to_owned(),
            },
            route.trigger_shown(),
        ]);
    }
    format!("{table}\n")
}

pub(super) fn addresses(config: &Config, route: &RouteSettings) -> String {
    let methods: Vec<&str> = route.methods.iter().map(http::Method::as_str).collect();
    let listeners = config.listeners.iter().map(|listener| {
        let scheme = match listener.transport {
            Transport::Tls(_) => "https",
            Transport::Plain { .. } => "http",
        };
        let usual = matches!((scheme, listener.address.port()), ("https", 443) | ("http", 80));
        let host = route.host.as_deref().unwrap_or("*");
        let port = if usual {
            String::new()
        } else {
            format!(":{}", listener.address.port())
        };
        format!("{scheme}://{host}{port}{}", route.path)
    });
    format!(
        "{} {}",
        methods.join(","),
        listeners.collect::<Vec<_>>().join(" ")
    )
}

/// Lists the first of these names.
pub(super) fn shortened(names: &[&str], shown: usize) -> String {
    let first: Vec<_> = names.iter().copied().take(shown).collect();
    match names.len().saturating_sub(shown) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

fn callers(route: &RouteSettings) -> String {
    let mut text = match &route.callers {
        CallersSettings::Anonymous => "everybody".to_owned(),
        CallersSettings::Named(names) => {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            shortened(&names, 5)
        }
    };
    let networks = &route.networks;
    if !networks.allow.is_empty() {
        text.push_str(&format!(" from {} networks", networks.allow.len()));
    }
    if !networks.deny.is_empty() {
        text.push_str(&format!(" but {} networks", networks.deny.len()));
    }
    text
}

fn limits(route: &RouteSettings) -> String {
    let size = bytesize::ByteSize(route.body_bytes_max);
    match &route.rate {
        Some(rate) => format!("{}, {size}", format_rate(rate)),
        None => size.to_string(),
    }
}

fn format_rate(rate: &Rate) -> String {
    format!("{} per {:?} burst {}", rate.requests, rate.per, rate.burst)
}
