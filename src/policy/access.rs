//! Who may call a route: the kinds of proof it accepts, in the order in which they are asked. How often a caller may call
//! is left to `quota`.

use std::sync::Arc;

use crate::model::CallerName;
use crate::policy::address::Origin;
use crate::policy::caller::{Caller, Callers};
use crate::policy::proof;
use crate::policy::proof::{Identity, Proof, Shown};
use crate::problem::{Kind, Problem};
use crate::settings::{CallerSettings, CallersSettings, KeyPlace};

/// Whether a refusal counts as a failed authentication of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// A credential was presented and was wrong: a guess must cost something.
    Failed,
    /// Nothing was learned about any credential.
    Unrelated,
}

impl Attempt {
    /// What a problem says about the attempt. A missing key is no attempt: nobody can guess without presenting one, and
    /// callers that probe an address first would lock themselves out.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::KeyUnknown | Kind::KeyExpired | Kind::KeysDiffer => Self::Failed,
            _ => Self::Unrelated,
        }
    }
}

#[derive(Debug)]
pub struct Access {
    /// Never empty. The first kind whose proof a request has decides alone.
    proofs: Box<[Box<dyn Proof>]>,
    callers: Arc<Callers>,
    /// Indices of the callers that may call; none where everybody may.
    listed: Option<Box<[usize]>>,
}

impl Access {
    /// Who may call a route; `settings` are those of which `callers` were made.
    pub fn build(
        listed: &CallersSettings,
        places: &[KeyPlace],
        settings: &[CallerSettings],
        callers: &Arc<Callers>,
    ) -> Self {
        Self {
            proofs: proof::accepted(listed, places, settings, callers).into_boxed_slice(),
            callers: callers.clone(),
            listed: match listed {
                CallersSettings::Anonymous => None,
                CallersSettings::Named(names) => Some(callers.named(names).into()),
            },
        }
    }

    /// A caller that was identified once, by its name: none if it may not call any more.
    ///
    /// # Errors
    /// `address-refused`.
    pub fn known(&self, name: &CallerName, origin: Origin) -> Result<Option<Caller>, Problem> {
        let Some(listed) = &self.listed else {
            return Ok(Some(Caller::anonymous()).filter(|caller| caller.name == *name));
        };
        let mut members = listed
            .iter()
            .filter_map(|&index| Some((index, self.callers.member(index)?)));
        let Some((index, member)) = members.find(|(_, member)| member.name == *name) else {
            return Ok(None);
        };
        if let Err(outside) = member.networks.admit(origin) {
            let problem = Problem::from(Kind::AddressRefused).because(format!("caller {name}: {outside}"));
            return Err(problem.of_caller(name.clone(), None));
        }
        Ok(Some(member.identified(index, None)))
    }

    /// Identifies the caller, and checks that it may call.
    ///
    /// # Errors
    /// `key-unknown`, `key-expired`, `keys-differ`, `key-missing`, `signature-invalid`, `caller-not-allowed`, `address-refused`.
    pub fn identify(&self, shown: &Shown<'_>) -> Result<Identity, Problem> {
        let found = self.proofs.iter().find_map(|proof| proof.identify(shown));
        found.unwrap_or_else(|| {
            let first = self.proofs.first();
            Err(first.map_or_else(|| Kind::KeyMissing.into(), |proof| proof.missing(shown.origin)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use http::{HeaderMap, HeaderValue, Method};

    use super::{Access, Attempt};
    use crate::model::{CallerName, KeyLabel};
    use crate::policy::address::Origin;
    use crate::policy::caller::{Caller, CallerNumbers, Callers};
    use crate::policy::proof::{Guesses, Identity, Shown};
    use crate::problem::{Kind, Problem};
    use crate::settings::{
        CallerSettings, CallersSettings, KeyDigest, KeyPlace, KeySettings, NetworkSettings,
    };

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn caller(name: &str, key: Option<&str>, allow: &[&str], deny: &[&str]) -> CallerSettings {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let label = KeyLabel::parse("first").unwrap();
        let keys = key.into_iter().map(|key| KeySettings {
            expires: Some(NOW + Duration::from_secs(60)),
            ..KeySettings::new(label.clone(), KeyDigest::of(key.as_bytes(), None))
        });
        CallerSettings {
            keys: Arc::new(keys.collect()),
            networks: NetworkSettings {
                allow: nets(allow),
                deny: nets(deny),
            },
            ..CallerSettings::new(CallerName::parse(name).unwrap())
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
            callers,
            &Arc::new(Callers::build(callers, None, &CallerNumbers::default()).unwrap()),
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
        let identity = access.identify(&Shown {
            headers: &headers,
            method: &Method::POST,
            target: "/orders",
            public_url: None,
            path_key: None,
            origin: origin(from),
            guesses: Guesses::Allowed,
            now: &|| now,
        });
        identity.map(|identity| match identity {
            Identity::Known(caller) => caller,
            Identity::Pending(pending) => panic!("{pending:?}"),
        })
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
        let callers = Arc::new(Callers::build(&cast(), None, &CallerNumbers::default()).unwrap());
        let places = [KeyPlace::Header("x-api-key".parse().unwrap())];
        let open = Access::build(&CallersSettings::Anonymous, &places, &cast(), &callers);
        let caller = ask(&open, Some("wrong"), "198.51.100.1", NOW).unwrap();
        assert_eq!(caller.name.as_str(), "anonymous");
        assert_eq!((caller.index, caller.label), (None, None));
    }

    #[test]
    fn a_known_caller_is_let_in_as_long_as_it_is_listed_and_in_its_networks() {
        let ask = |access: &Access, name: &str, from: &str| {
            let found = access.known(&CallerName::parse(name).unwrap(), origin(from));
            found
                .map(|caller| caller.map(|caller| (caller.name.to_string(), caller.index)))
                .map_err(|problem| problem.kind())
        };
        let named = access(&cast(), &["shop", "erp"]);
        assert_eq!(
            ask(&named, "erp", "10.1.1.1"),
            Ok(Some(("erp".to_owned(), Some(0))))
        );
        assert_eq!(ask(&named, "erp", "11.0.0.1"), Err(Kind::AddressRefused));
        for gone in ["plant", "never-was", "anonymous"] {
            assert_eq!(ask(&named, gone, "192.0.2.1"), Ok(None), "{gone}");
        }
        let open = Access::build(&CallersSettings::Anonymous, &[], &[], &Arc::default());
        let anonymous = Some(("anonymous".to_owned(), None));
        assert_eq!(ask(&open, "anonymous", "10.1.1.1"), Ok(anonymous));
        assert_eq!(ask(&open, "shop", "10.1.1.1"), Ok(None));
    }

    #[test]
    fn only_a_wrong_credential_counts_as_a_failed_attempt() {
        for kind in Kind::ALL {
            let wrong = matches!(kind, Kind::KeyUnknown | Kind::KeyExpired | Kind::KeysDiffer);
            assert_eq!(Attempt::of(*kind) == Attempt::Failed, wrong, "{kind:?}");
        }
    }
}
