//! Who the caller is and whether it may call a route: by its key, or by its network if it has none. Where
//! keys stand and whose they are is left to `key/`; how often a caller may call, to
//! `quota`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use crate::model::{CallerName, Holder, KeyLabel, Secret};
use crate::policy::address::{Networks, Origin, canonical};
use crate::policy::key::{Candidate, Identified, KeyFault, KeyReader, Keys, is_generated};
use crate::problem::{Kind, Problem};
use crate::settings::{CallerSettings, CallersSettings, KeyPlace};

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name; `anonymous` on a route that is open to everybody.
    pub name: CallerName,
    /// Which of its keys it showed, if it was known by one.
    pub label: Option<KeyLabel>,
    /// Its index in the settings; none for the anonymous caller.
    pub index: Option<usize>,
}

impl Caller {
    /// Whose share its requests use: its own, or where callers are not known, that of its address.
    pub fn holder(&self, origin: Origin) -> Holder {
        self.index.map_or_else(|| origin.bucket().into(), Holder::Caller)
    }
}

/// Whether a refusal counts as a failed authentication of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// A credential was shown and was wrong: a guess must cost something.
    Failed,
    /// Nothing was learned about any credential.
    Unrelated,
}

impl Attempt {
    /// What a problem says about the attempt. A missing key is no attempt: nobody can guess without showing
    /// one, and callers that probe an address first would lock themselves out.
    pub fn of(kind: Kind) -> Self {
        if matches!(kind, Kind::KeyUnknown | Kind::KeyExpired | Kind::KeysDiffer) {
            return Self::Failed;
        }
        Self::Unrelated
    }
}

/// Whether keys that could be guessed are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guesses {
    /// Every key is looked up.
    Allowed,
    /// Generated keys only. Any other is unknown without a look at it, so that neither the answer nor its
    /// time depends on whether it is right.
    Refused,
}

/// All callers with their keys and networks.
#[derive(Debug, Default)]
pub struct Callers {
    members: Box<[Member]>,
    by_name: HashMap<CallerName, usize>,
    keys: Keys,
}

#[derive(Debug)]
struct Member {
    name: CallerName,
    networks: Networks,
    means: Means,
}

/// How a caller is known.
#[derive(Debug)]
enum Means {
    Key,
    /// By these networks alone.
    Network(Box<[IpNet]>),
}

impl Callers {
    /// Builds the callers; their order is that of the settings, and an index there is an index here.
    pub fn build(callers: &[CallerSettings], pepper: Option<&Secret>) -> Self {
        let members = callers.iter().map(Member::new).collect();
        let by_name = callers
            .iter()
            .enumerate()
            .map(|(index, caller)| (caller.name.clone(), index))
            .collect();
        Self {
            members,
            by_name,
            keys: Keys::build(callers, pepper),
        }
    }

    /// All keys that hold at this time, and whose they are.
    pub fn keys_in_force(&self, now: SystemTime) -> impl Iterator<Item = (&CallerName, Identified<'_>)> {
        let all = self.keys.in_force(now);
        all.filter_map(|key| Some((&self.members.get(key.caller)?.name, key)))
    }

    /// Whether a key has let anybody in since the table was built.
    pub fn has_used(&self, key: &Identified<'_>) -> bool {
        self.keys.is_noted(key)
    }
}

impl Member {
    fn new(settings: &CallerSettings) -> Self {
        let means = if settings.keys.is_empty() {
            Means::Network(settings.networks.allow.iter().copied().map(canonical).collect())
        } else {
            Means::Key
        };
        Self {
            name: settings.name.clone(),
            networks: Networks::build(&settings.networks),
            means,
        }
    }
}

/// Who may call one route.
#[derive(Debug)]
pub struct Access {
    rule: Rule,
    reader: KeyReader,
}

#[derive(Debug)]
enum Rule {
    Anonymous(Caller),
    // Boxed because it is far larger than the other.
    Listed(Box<Listed>),
}

/// The callers that a route lists.
#[derive(Debug)]
struct Listed {
    callers: Arc<Callers>,
    /// Indices of the callers that are known by a key, in order.
    keyed: Box<[usize]>,
    /// Callers without keys by their networks; those of one network in the order of the route.
    by_network: JointPrefixMap<IpNet, Vec<usize>>,
}

impl Access {
    /// Builds the rule of a route. A listed name that no caller has lets nobody in, and so does a caller
    /// without keys whose networks are not narrowed down. Where no key could let anybody in, none is read: what a
    /// vendor sends in such a field then is no credential of ours.
    pub fn build(listed: &CallersSettings, places: &[KeyPlace], callers: &Arc<Callers>) -> Self {
        let names = match listed {
            CallersSettings::Named(names) => names,
            CallersSettings::Anonymous => {
                let caller = Caller {
                    name: CallerName::anonymous(),
                    label: None,
                    index: None,
                };
                return Self {
                    rule: Rule::Anonymous(caller),
                    reader: KeyReader::build(&[]),
                };
            }
        };
        let listed = Box::new(Listed::build(names, callers));
        let read = if listed.keyed.is_empty() { &[] } else { places };
        Self {
            rule: Rule::Listed(listed),
            reader: KeyReader::build(read),
        }
    }

    /// The header fields to take out of the request before it goes on; `Authorization` never goes on anyway.
    pub fn header_places(&self) -> &[HeaderName] {
        self.reader.header_places()
    }

    /// Says who calls, and that it may.
    ///
    /// A key that is shown decides alone: if it is wrong, the caller's network does not help. Without a key
    /// the caller is the one whose network fits most narrowly. On a route that is open to everybody no key is
    /// looked at. `guesses` matters only to a request that presents a key.
    ///
    /// # Errors
    /// `key-unknown`, `key-expired`, `keys-differ`, `key-missing`, `caller-not-allowed`, `address-refused`.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        origin: Origin,
        guesses: Guesses,
        now: impl FnOnce() -> SystemTime,
    ) -> Result<Caller, Problem> {
        let listed = match &self.rule {
            Rule::Anonymous(caller) => return Ok(caller.clone()),
            Rule::Listed(listed) => listed,
        };
        match self.reader.read(headers)? {
            Some(candidate) if guesses == Guesses::Refused && !is_generated(candidate.as_bytes()) => {
                Err(Problem::from(Kind::KeyUnknown)
                    .because("the key was not looked up, because it could be guessed"))
            }
            Some(candidate) => listed.by_key(&candidate, origin, now),
            None => listed.by_network(origin).map_err(|problem| match problem.kind() {
                Kind::KeyMissing => {
                    let places = self.reader.places();
                    problem
                        .detail(format!("The key is read in {places}."))
                        .because(format!("no key in {places}, where the route reads it"))
                }
                _ => problem,
            }),
        }
    }
}

impl Listed {
    fn build(names: &[CallerName], callers: &Arc<Callers>) -> Self {
        let mut keyed = Vec::new();
        let mut by_network: JointPrefixMap<IpNet, Vec<usize>> = JointPrefixMap::new();
        for name in names {
            let Some(&index) = callers.by_name.get(name) else {
                continue;
            };
            match callers.members.get(index).map(|member| &member.means) {
                Some(Means::Key) => keyed.push(index),
                Some(Means::Network(networks)) => {
                    for network in networks {
                        by_network.entry(*network).or_default().push(index);
                    }
                }
                None => {}
            }
        }
        keyed.sort_unstable();
        Self {
            callers: Arc::clone(callers),
            keyed: keyed.into_boxed_slice(),
            by_network,
        }
    }

    fn by_key(
        &self,
        candidate: &Candidate<'_>,
        origin: Origin,
        now: impl FnOnce() -> SystemTime,
    ) -> Result<Caller, Problem> {
        let found = self
            .callers
            .keys
            .identify(candidate, now)
            .map_err(|fault| self.refuse(fault))?;
        let Some(member) = self.callers.members.get(found.caller) else {
            return Err(Kind::KeyUnknown.into());
        };
        let Member { name, networks, .. } = member;
        if self.keyed.binary_search(&found.caller).is_err() {
            let cause = format!("the route does not list caller {name} ({found})");
            return Err(Problem::from(Kind::CallerNotAllowed)
                .because(cause)
                .of_caller(name.clone(), found.label()));
        }
        networks.admit(origin).map_err(|refused| {
            let cause = format!("caller {name} ({found}): {refused}");
            Problem::from(Kind::AddressRefused)
                .because(cause)
                .of_caller(name.clone(), found.label())
        })?;
        self.callers.keys.note(&found);
        Ok(Caller {
            name: name.clone(),
            label: found.label(),
            index: Some(found.caller),
        })
    }

    fn by_network(&self, origin: Origin) -> Result<Caller, Problem> {
        // From the widest network to the narrowest; at most one for each length of a prefix.
        let mut narrowest = None;
        for indices in self.by_network.cover_values(&IpNet::from(origin.address())) {
            let fitting = indices.iter().find_map(|&index| {
                let member = self.callers.members.get(index)?;
                member.networks.admit(origin).is_ok().then_some((index, member))
            });
            narrowest = fitting.or(narrowest);
        }
        if let Some((index, member)) = narrowest {
            return Ok(Caller {
                name: member.name.clone(),
                label: None,
                index: Some(index),
            });
        }
        if self.keyed.is_empty() {
            let cause = format!("{origin} is in no network of the route's callers");
            return Err(Problem::from(Kind::AddressRefused).because(cause));
        }
        Err(Kind::KeyMissing.into())
    }

    fn refuse(&self, fault: KeyFault<'_>) -> Problem {
        match fault {
            KeyFault::Unknown(trace) => Problem::from(Kind::KeyUnknown).because(trace.to_string()),
            KeyFault::Lapsed { key, why } => {
                let Some(Member { name, .. }) = self.callers.members.get(key.caller) else {
                    return Kind::KeyExpired.into();
                };
                Problem::from(Kind::KeyExpired)
                    .because(format!("{key} of caller {name} {why}"))
                    .of_caller(name.clone(), key.label())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use aws_lc_rs::digest;
    use http::{HeaderMap, HeaderValue};

    use super::{Access, Attempt, Caller, Callers, Guesses};
    use crate::model::{CallerName, KeyLabel};
    use crate::policy::address::Origin;
    use crate::problem::{Kind, Problem};
    use crate::settings::{
        CallerSettings, CallersSettings, KeyDigest, KeyPlace, KeySettings, KeyState, NetworkSettings,
    };

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn caller(name: &str, key: Option<&str>, allow: &[&str], deny: &[&str]) -> CallerSettings {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let keys = key.into_iter().map(|key| KeySettings {
            label: KeyLabel::parse("first").unwrap(),
            digest: KeyDigest::Sha256(
                digest::digest(&digest::SHA256, key.as_bytes())
                    .as_ref()
                    .try_into()
                    .unwrap(),
            ),
            not_before: None,
            expires: Some(NOW + Duration::from_secs(60)),
            state: KeyState::Enabled,
        });
        CallerSettings {
            name: CallerName::parse(name).unwrap(),
            keys: Arc::new(keys.collect()),
            networks: NetworkSettings {
                allow: nets(allow),
                deny: nets(deny),
            },
            rate: None,
        }
    }

    fn access(callers: &[CallerSettings], names: &[&str]) -> Access {
        let names = names
            .iter()
            .map(|name| CallerName::parse(name).unwrap())
            .collect();
        let places = [KeyPlace::Header("x-api-key".parse().unwrap())];
        Access::build(
            &CallersSettings::Named(names),
            &places,
            &Arc::new(Callers::build(callers, None)),
        )
    }

    fn origin(text: &str) -> Origin {
        Origin::of_peer(SocketAddr::new(text.parse().unwrap(), 40_000))
    }

    fn ask(access: &Access, key: Option<&str>, from: &str, now: SystemTime) -> Result<Caller, Problem> {
        let value = |key: &str| HeaderValue::from_str(key).unwrap();
        let headers: HeaderMap = key
            .into_iter()
            .map(|key| ("x-api-key".parse().unwrap(), value(key)))
            .collect();
        access.identify(&headers, origin(from), Guesses::Allowed, || now)
    }

    fn name(access: &Access, key: Option<&str>, from: &str) -> Result<String, Kind> {
        match ask(access, key, from, NOW) {
            Ok(caller) => Ok(caller.name.to_string()),
            Err(problem) => Err(problem.kind()),
        }
    }

    fn cast() -> Vec<CallerSettings> {
        vec![
            caller("erp", Some("k1"), &["10.0.0.0/8"], &["10.9.0.0/16"]),
            caller("shop", Some("k2"), &[], &[]),
            caller(
                "plant",
                None,
                &["192.0.2.0/24", "2001:db8::/32"],
                &["192.0.2.66/32"],
            ),
            caller("robot", None, &["192.0.2.64/26"], &["192.0.2.65/32"]),
            caller("twin", None, &["192.0.2.0/24"], &[]),
            caller("mapped", None, &["::ffff:203.0.113.0/120"], &[]),
            caller("careless", None, &[], &[]),
        ]
    }

    #[test]
    fn a_key_names_its_caller() {
        let caller = ask(&access(&cast(), &["shop", "erp"]), Some("k1"), "10.1.1.1", NOW).unwrap();
        assert_eq!(caller.name.as_str(), "erp");
        assert_eq!(caller.label.unwrap().as_str(), "first");
        assert_eq!(caller.index, Some(0));
        let access = access(&cast(), &["shop", "erp"]);
        assert_eq!(name(&access, Some("k2"), "10.1.1.1").as_deref(), Ok("shop"));
    }

    #[test]
    fn the_places_where_keys_stand_are_known_for_those_who_drop_them() {
        assert_eq!(access(&cast(), &["shop"]).header_places(), ["x-api-key"]);
        assert!(access(&cast(), &["plant"]).header_places().is_empty());
    }

    #[test]
    fn a_caller_that_the_route_does_not_list_is_refused() {
        let access = access(&cast(), &["shop", "plant"]);
        let problem = ask(&access, Some("k1"), "10.1.1.1", NOW).unwrap_err();
        assert_eq!(problem.kind(), Kind::CallerNotAllowed);
        assert_eq!(
            problem.cause(),
            Some("the route does not list caller erp (key first)")
        );
    }

    #[test]
    fn a_caller_is_held_to_its_networks() {
        let access = access(&cast(), &["erp"]);
        for from in ["11.0.0.1", "10.9.0.1", "2001:db8::1"] {
            assert_eq!(
                name(&access, Some("k1"), from),
                Err(Kind::AddressRefused),
                "{from}"
            );
        }
        let problem = ask(&access, Some("k1"), "10.9.0.1", NOW).unwrap_err();
        assert_eq!(
            problem.cause(),
            Some("caller erp (key first): 10.9.0.1 is on the deny list (10.9.0.0/16)")
        );
    }

    #[test]
    fn a_wrong_key_is_refused_even_in_a_callers_network() {
        let access = access(&cast(), &["plant", "shop"]);
        assert_eq!(name(&access, Some("wrong"), "192.0.2.1"), Err(Kind::KeyUnknown));
        assert_eq!(name(&access, Some("k2"), "192.0.2.1"), Ok("shop".to_owned()));
        assert_eq!(name(&access, None, "192.0.2.1"), Ok("plant".to_owned()));
    }

    #[test]
    fn an_expired_key_is_refused_and_named_in_the_log() {
        let late = NOW + Duration::from_secs(61);
        let problem = ask(&access(&cast(), &["shop"]), Some("k2"), "10.0.0.1", late).unwrap_err();
        assert_eq!(problem.kind(), Kind::KeyExpired);
        assert_eq!(problem.cause(), Some("key first of caller shop has expired"));
    }

    #[test]
    fn no_key_appears_in_a_cause() {
        let access = access(&cast(), &["shop"]);
        for key in ["canary", "k1", "k2"] {
            if let Err(problem) = ask(&access, Some(key), "10.0.0.1", NOW + Duration::from_secs(61)) {
                assert!(!format!("{problem:?}").contains(key), "{problem:?}");
            }
        }
    }

    #[test]
    fn the_narrowest_network_without_a_denial_names_the_caller() {
        let access = access(&cast(), &["plant", "robot", "twin"]);
        for (from, expected) in [
            ("192.0.2.1", "plant"),
            ("192.0.2.64", "robot"),
            ("192.0.2.65", "plant"),
            ("192.0.2.66", "robot"),
            ("2001:db8::5", "plant"),
            ("::ffff:192.0.2.1", "plant"),
        ] {
            assert_eq!(name(&access, None, from).as_deref(), Ok(expected), "{from}");
        }
        let other = super::tests::access(&cast(), &["plant", "twin"]);
        assert_eq!(name(&other, None, "192.0.2.66").as_deref(), Ok("twin"));
        let mapped = super::tests::access(&cast(), &["mapped"]);
        assert_eq!(name(&mapped, None, "203.0.113.9").as_deref(), Ok("mapped"));
    }

    #[test]
    fn without_a_key_and_a_network_the_answer_says_what_would_help() {
        let keyed = access(&cast(), &["plant", "shop"]);
        assert_eq!(name(&keyed, None, "198.51.100.1"), Err(Kind::KeyMissing));
        let networks = access(&cast(), &["plant"]);
        assert_eq!(name(&networks, None, "198.51.100.1"), Err(Kind::AddressRefused));
    }

    #[test]
    fn a_caller_without_keys_and_networks_lets_nobody_in() {
        assert_eq!(
            name(&access(&cast(), &["careless"]), None, "10.0.0.1"),
            Err(Kind::AddressRefused)
        );
        assert_eq!(
            name(&access(&cast(), &["nobody"]), None, "10.0.0.1"),
            Err(Kind::AddressRefused)
        );
        assert_eq!(
            name(&access(&cast(), &[]), None, "10.0.0.1"),
            Err(Kind::AddressRefused)
        );
    }

    #[test]
    fn on_an_anonymous_route_no_key_is_looked_at() {
        let callers = Arc::new(Callers::build(&cast(), None));
        let places = [KeyPlace::Header("x-api-key".parse().unwrap())];
        let open = Access::build(&CallersSettings::Anonymous, &places, &callers);
        let caller = ask(&open, Some("wrong"), "198.51.100.1", NOW).unwrap();
        assert_eq!(caller.name.as_str(), "anonymous");
        assert_eq!((caller.index, caller.label), (None, None));
        assert!(
            open.header_places().is_empty(),
            "what is not read is no credential, and goes on"
        );
    }

    #[test]
    fn only_a_wrong_credential_counts_as_a_failed_attempt() {
        for kind in Kind::ALL {
            let wrong = matches!(kind, Kind::KeyUnknown | Kind::KeyExpired | Kind::KeysDiffer);
            assert_eq!(Attempt::of(*kind) == Attempt::Failed, wrong, "{kind:?}");
        }
    }
}
