//! What settings let in that others keep out, in words: keys, routes, callers, networks, listeners; `route_openings.rs` has what
//! a route demands of requests. A limit that is wider is not in it.

use std::collections::HashMap;
use std::time::SystemTime;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixSet;

use crate::model::Network;
use crate::settings::route_openings::of_requests;
use crate::settings::{
    CallerSettings, CallersSettings, Config, KeySettings, KeyState, NetworkSettings, RouteKind,
    RouteSettings, RunCredential, Transport,
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
            found.extend(of_caller(known, caller, now));
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
                **name == caller.name
                    && may_be_accepted(known, now)
                    && !is_longer((key.not_before, key.expires), (known.not_before, known.expires))
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

/// From when and until when something is valid.
type Validity = (Option<SystemTime>, Option<SystemTime>);

/// Whether it is valid at a time when it was not before.
fn is_longer(later: Validity, earlier: Validity) -> bool {
    let ends_later = earlier
        .1
        .is_some_and(|end| later.1.is_none_or(|later| later > end));
    let begins_earlier = earlier
        .0
        .is_some_and(|begin| later.0.is_none_or(|later| later < begin));
    ends_later || begins_earlier
}

fn of_caller(earlier: &CallerSettings, later: &CallerSettings, now: SystemTime) -> Vec<String> {
    let name = &later.name;
    let mut found = Vec::new();
    if let Some(network) = wider(&earlier.networks, &later.networks) {
        found.push(format!("caller {name} may call from {network}"));
    }
    if !earlier.keys.is_empty() && later.keys.is_empty() {
        found.push(format!("caller {name} is accepted without a key"));
    }
    match (&earlier.signature, &later.signature) {
        (Some(_), None) => found.push(format!("caller {name} is accepted without a signature")),
        (Some(earlier), Some(later)) if earlier.recipe != later.recipe => {
            found.push(format!("caller {name} may sign in another way"));
        }
        _ => {}
    }
    let known = earlier.signature.iter().flat_map(|signature| &signature.secrets);
    let known: Vec<_> = known.collect();
    for secret in later.signature.iter().flat_map(|signature| &signature.secrets) {
        let is_over = secret.expires.is_some_and(|expires| expires <= now);
        let same = known.iter().find(|known| known.source == secret.source);
        if !is_over
            && same.is_none_or(|known| {
                is_longer(
                    (secret.not_before, secret.expires),
                    (known.not_before, known.expires),
                )
            })
        {
            found.push(format!(
                "signatures of caller {name} with the secret {} are accepted",
                secret.label
            ));
        }
    }
    found
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
    let origins = later.cors_origins.iter();
    let origins = origins.filter(|origin| !earlier.cors_origins.contains(origin));
    found.extend(origins.map(|origin| format!("route {name} may be called by pages of {origin}")));
    if let Some(network) = wider(&earlier.networks, &later.networks) {
        found.push(format!("route {name} may be called from {network}"));
    }
    let is_bare = |route: &RouteSettings| {
        let waiting = route.waiting.as_ref();
        waiting.is_some_and(|waiting| waiting.credential == RunCredential::Nothing)
    };
    if is_bare(later) && !is_bare(earlier) {
        found.push(format!(
            "runs of route {name} can be asked for without a credential"
        ));
    }
    match (&earlier.kind, &later.kind) {
        (RouteKind::Api(known), RouteKind::Api(paths)) => {
            let more = paths.iter().filter(|path| !known.contains(path));
            found.extend(more.map(|path| format!("route {name} opens {path}")));
        }
        (RouteKind::Flow, RouteKind::Api(_)) => found.push(format!("route {name} opens an API")),
        (_, RouteKind::Flow) => {}
    }
    found.extend(of_requests(earlier, later));
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
fn uncovered<'n>(networks: &'n [Network], others: &[Network]) -> Option<&'n Network> {
    let others: JointPrefixSet<IpNet> = others.iter().map(|network| **network).collect();
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
    fn a_weaker_proof_that_comes_back_is_named() {
        let signed = |secrets: &str| {
            let caller = format!("name = \"vendor\"\n[caller.signature]\npreset = \"stripe\"\n{secrets}");
            Sample::default()
                .with("caller", &caller)
                .variable("OTHER", "canary-other")
                .config()
        };
        let one = signed("secret = \"env:SECRET\"");
        let list = |more: &str| {
            signed(&format!(
                "[[caller.signature.secrets]]\nlabel = \"a\"\nsecret = \"env:SECRET\"\n\
                 [[caller.signature.secrets]]\nlabel = \"b\"\nsecret = \"env:OTHER\"\n{more}"
            ))
        };
        let opened = |earlier: &Config, later: &Config| openings(earlier, later, clock::wall());
        let (both, short) = (list(""), list("expires = 2100-01-01"));
        assert_eq!(
            opened(&one, &both),
            ["signatures of caller vendor with the secret b are accepted"]
        );
        assert_eq!(
            opened(&short, &both),
            ["signatures of caller vendor with the secret b are accepted"]
        );
        assert!(opened(&both, &one).is_empty() && opened(&both, &short).is_empty());
        let wide = signed("secret = \"env:SECRET\"\ntolerance = \"30m\"");
        assert_eq!(opened(&one, &wide), ["caller vendor may sign in another way"]);
        let known = Sample::default()
            .with("caller", "name = \"vendor\"\nnetworks = [\"10.0.0.0/8\"]")
            .config();
        assert_eq!(
            opened(&one, &known),
            ["caller vendor is accepted without a signature"]
        );
        let keyed = Sample::default().with(
            "caller",
            &format!("name = \"vendor\"\nnetworks = [\"10.0.0.0/8\"]\n{}", key(1, "")),
        );
        assert_eq!(
            opened(&keyed.config(), &known),
            ["caller vendor is accepted without a key"]
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
            (
                "anonymous = true",
                "anonymous = true\ncors_origins = [\"https://a.example\"]",
                "route orders may be called by pages of https://a.example",
            ),
        ] {
            assert_eq!(opened(&base, &with(from, to)), [opening]);
        }
        let waits = |more: &str| {
            let named = Sample::default().replace("anonymous = true", "callers = [\"shop\"]");
            let keys = named.with("keys", "run_addresses = [\"env:PEPPER\"]");
            let answer = format!("name = \"orders\"\nanswer = {{ {more} }}\n");
            keys.replace(name, &answer).config()
        };
        let (bare, proven) = (
            waits("wait = \"1s\""),
            waits("wait = \"1s\", run_credential = true"),
        );
        let opening = "runs of route orders can be asked for without a credential";
        assert_eq!(opened(&proven, &bare), [opening]);
        assert_eq!(opened(&waits("accepted = \"ok\""), &bare), [opening]);
        assert!(opened(&bare, &proven).is_empty() && opened(&bare, &bare).is_empty());
        let named = with("anonymous = true", "callers = [\"shop\"]");
        assert_eq!(
            opened(&named, &base),
            ["route orders is open to callers without a credential"]
        );
    }
}
