//! What settings let in that others keep out, in words: keys, routes, callers, networks, listeners. A limit that is wider is
//! not in it.

use std::collections::HashMap;
use std::time::SystemTime;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixSet;

use crate::settings::{
    CallerSettings, CallersSettings, Config, KeySettings, KeyState, NetworkSettings, RouteKind,
    RouteSettings, Transport,
};

/// What `later` lets in and `earlier` does not, at this moment.
pub fn openings(earlier: &Config, later: &Config, now: SystemTime) -> Vec<String> {
    let mut found = of_listeners(earlier, later);
    found.extend(of_keys(earlier, later, now));
    let known: HashMap<_, _> = earlier
        .callers
        .iter()
        .map(|caller| (&caller.name, caller))
        .collect();
    for caller in &later.callers {
        if let Some(known) = known.get(&caller.name) {
            found.extend(of_caller(known, caller));
        }
    }
    let known: HashMap<_, _> = earlier.routes.iter().map(|route| (&route.name, route)).collect();
    for route in later.routes.iter().filter(|route| route.enabled) {
        match known.get(&route.name).filter(|known| known.enabled) {
            Some(known) => found.extend(of_route(known, route)),
            None => found.push(format!("route {} is open", route.name)),
        }
    }
    found
}

fn of_listeners(earlier: &Config, later: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for listener in &later.listeners {
        let address = listener.address;
        let known = earlier.listeners.iter().find(|known| known.address == address);
        match (known.map(|known| &known.transport), &listener.transport) {
            (None, _) => found.push(format!("listener {address} is open")),
            (Some(Transport::Tls(_)), Transport::Plain { .. }) => {
                found.push(format!("listener {address} accepts plain HTTP"));
            }
            (Some(Transport::Plain { from: known, .. }), Transport::Plain { from, .. }) => {
                let network = uncovered(from, known);
                found.extend(
                    network.map(|network| format!("listener {address} accepts plain HTTP from {network}")),
                );
            }
            (Some(_), Transport::Tls(_)) => {}
        }
    }
    found
}

fn of_keys(earlier: &Config, later: &Config, now: SystemTime) -> Vec<String> {
    let mut known = HashMap::new();
    for caller in &earlier.callers {
        let keys = caller.keys.iter();
        known.extend(keys.map(|key| (*key.digest.as_bytes(), (&caller.name, key))));
    }
    let mut found = Vec::new();
    for caller in &later.callers {
        for key in caller.keys.iter().filter(|key| may_be_accepted(key, now)) {
            let accepted = known.get(key.digest.as_bytes()).is_some_and(|(name, known)| {
                **name == caller.name && may_be_accepted(known, now) && !is_longer(&key, known)
            });
            if !accepted {
                found.push(format!("key {} of caller {} is accepted", key.label, caller.name));
            }
        }
    }
    found
}

fn may_be_accepted(key: &KeySettings, now: SystemTime) -> bool {
    key.state == KeyState::Enabled && key.expires.is_none_or(|expires| expires > now)
}

/// Whether a key is valid at a time when it was not before.
fn is_longer(key: &KeySettings, known: &KeySettings) -> bool {
    let ends_later = known
        .expires
        .is_some_and(|known| key.expires.is_none_or(|expires| expires > known));
    let begins_earlier = known
        .not_before
        .is_some_and(|known| key.not_before.is_none_or(|begin| begin < known));
    ends_later || begins_earlier
}

fn of_caller(earlier: &CallerSettings, later: &CallerSettings) -> Option<String> {
    let network = wider(&earlier.networks, &later.networks)?;
    Some(format!("caller {} may call from {network}", later.name))
}

fn of_route(earlier: &RouteSettings, later: &RouteSettings) -> Vec<String> {
    let name = &later.name;
    let mut found = Vec::new();
    if (&earlier.host, &earlier.path) != (&later.host, &later.path) {
        found.push(format!("route {name} has its address back"));
    }
    let methods = later
        .methods
        .iter()
        .filter(|method| !earlier.methods.contains(method));
    found.extend(methods.map(|method| format!("route {name} accepts {method}")));
    match (&earlier.callers, &later.callers) {
        (CallersSettings::Named(_), CallersSettings::Anonymous) => {
            found.push(format!("route {name} is open to callers without a credential"));
        }
        (CallersSettings::Named(known), CallersSettings::Named(names)) => {
            let more = names.iter().filter(|caller| !known.contains(caller));
            found.extend(more.map(|caller| format!("route {name} admits caller {caller}")));
        }
        (CallersSettings::Anonymous, _) => {}
    }
    if let Some(network) = wider(&earlier.networks, &later.networks) {
        found.push(format!("route {name} may be called from {network}"));
    }
    if let (RouteKind::Api(known), RouteKind::Api(paths)) = (&earlier.kind, &later.kind) {
        let more = paths.iter().filter(|path| !known.contains(path));
        found.extend(more.map(|path| format!("route {name} opens {path}")));
    }
    found
}

/// A network that is let in and was not.
fn wider(earlier: &NetworkSettings, later: &NetworkSettings) -> Option<String> {
    let allowed = match (earlier.allow.is_empty(), later.allow.is_empty()) {
        (true, _) => None,
        (false, true) => Some("any network".to_owned()),
        (false, false) => uncovered(&later.allow, &earlier.allow).map(|network| network.to_string()),
    };
    allowed.or_else(|| uncovered(&earlier.deny, &later.deny).map(|network| network.to_string()))
}

/// The first network that is in none of the others. Two halves of a network do not count as the whole.
fn uncovered<'n>(networks: &'n [IpNet], others: &[IpNet]) -> Option<&'n IpNet> {
    let others: JointPrefixSet<IpNet> = others.iter().copied().collect();
    networks.iter().find(|network| others.get_lpm(network).is_none())
}

#[cfg(test)]
mod tests {
    use super::{Config, openings};
    use crate::model::clock;
    use crate::settings::sample::Sample;

    const KEYS: &str = "name = \"erp\"\nnetworks = [\"10.0.0.0/8\"]\ndeny_networks = [\"10.9.0.0/16\"]\n";

    fn key(number: usize, rest: &str) -> String {
        format!("[[caller.key]]\nlabel = \"k{number}\"\ndigest = \"sha256:{number:064x}\"\n{rest}\n")
    }

    fn found(earlier: &str, later: &str) -> Vec<String> {
        let of = |caller: &str| Sample::default().with("caller", caller).config();
        openings(&of(earlier), &of(later), clock::wall())
    }

    #[test]
    fn a_key_that_comes_back_is_named_and_one_that_goes_is_not() {
        let (both, one) = (
            format!("{KEYS}{}{}", key(1, ""), key(2, "")),
            format!("{KEYS}{}", key(1, "")),
        );
        assert_eq!(found(&one, &both), ["key k2 of caller erp is accepted"]);
        assert!(found(&both, &one).is_empty() && found(&both, &both).is_empty());
        let off = format!("{KEYS}{}{}", key(1, ""), key(2, "enabled = false"));
        assert_eq!(found(&off, &both), ["key k2 of caller erp is accepted"]);
        assert!(found(&one, &off).is_empty());
        let short = format!("{KEYS}{}", key(1, "expires = 2100-01-01"));
        assert_eq!(found(&short, &one), ["key k1 of caller erp is accepted"]);
        assert!(found(&one, &short).is_empty());
        let over = format!("{KEYS}{}{}", key(1, ""), key(2, "expires = 2020-01-01"));
        assert!(found(&one, &over).is_empty());
    }

    #[test]
    fn a_network_that_comes_back_is_named() {
        let with = |from: &str, to: &str| format!("{}{}", KEYS.replace(from, to), key(1, ""));
        let now = with("", "");
        assert!(found(&now, &with("10.0.0.0/8", "10.1.0.0/16")).is_empty());
        assert_eq!(
            found(&now, &with("\"10.0.0.0/8\"", "\"10.0.0.0/8\", \"192.0.2.0/24\"")),
            ["caller erp may call from 192.0.2.0/24"]
        );
        assert_eq!(
            found(&now, &with("10.9.0.0/16", "10.9.1.0/24")),
            ["caller erp may call from 10.9.0.0/16"]
        );
        assert_eq!(
            found(&now, &with("networks = [\"10.0.0.0/8\"]\ndeny", "deny")),
            ["caller erp may call from any network"]
        );
    }

    #[test]
    fn routes_and_listeners_that_come_back_are_named() {
        let with = |from: &str, to: &str| Sample::default().replace(from, to).config();
        let base = with("", "");
        let name = "name = \"orders\"\n";
        let closed = with(name, "name = \"orders\"\nenabled = false\n");
        let opened = |earlier: &Config, later: &Config| openings(earlier, later, clock::wall());
        assert_eq!(opened(&closed, &base), ["route orders is open"]);
        assert!(opened(&base, &closed).is_empty() && opened(&base, &base).is_empty());
        for (from, to, opening) in [
            (
                name,
                "name = \"orders\"\nmethods = [\"GET\", \"POST\"]\n",
                "route orders accepts GET",
            ),
            (
                "path = \"/orders\"",
                "path = \"/other\"",
                "route orders has its address back",
            ),
            ("name = \"orders\"", "name = \"returns\"", "route returns is open"),
            (
                "127.0.0.0/8",
                "127.0.0.0/8\", \"10.0.0.0/8",
                "listener 127.0.0.1:0 accepts plain HTTP from 10.0.0.0/8",
            ),
            ("127.0.0.1:0", "127.0.0.1:1", "listener 127.0.0.1:1 is open"),
        ] {
            assert_eq!(opened(&base, &with(from, to)), [opening]);
        }
        let named = with("anonymous = true", "callers = [\"shop\"]");
        assert_eq!(
            opened(&named, &base),
            ["route orders is open to callers without a credential"]
        );
    }
}
