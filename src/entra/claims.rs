//! Compares an identity's token with what a route needs, and reports a mismatch before the first call is refused. The
//! token is not verified: an opaque one is not an error, and a mismatch is a warning unless the route's settings ask to
//! refuse calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crate::model::claims::Claims;
use crate::model::trigger::Family;
use crate::model::{Cloud, IdentityName, RouteName, Secret, Tenant, TriggerUrl, claims, clock, locked};
use crate::settings::{ClaimMismatch, IdentitySettings, RouteKind, RouteSettings};

const ROUTES_NAMED_MAX: usize = 5;
/// The claim that is compared with the clock of this host.
const TIME: &str = "exp";

#[derive(Debug, Clone)]
pub struct Needs {
    pub audience: String,
    /// None if the settings name none.
    pub tenant: Option<Tenant>,
    pub cloud: Cloud,
    /// Object ids on the trigger's list, as far as the settings know; empty if any will do.
    pub object_ids: Vec<String>,
}

impl Needs {
    pub fn of(route: &RouteSettings, identity: &IdentitySettings) -> Self {
        Self {
            audience: match route.kind {
                RouteKind::Flow => wanted_audience(&route.trigger, identity).to_owned(),
                // What an API compares is only known from the scope that was chosen for it.
                RouteKind::Api(_) => identity.audience.clone(),
            },
            tenant: identity.tenant.clone(),
            cloud: route.trigger.cloud().unwrap_or(identity.cloud),
            object_ids: route.object_ids.clone(),
        }
    }
}

/// The audience that the trigger expects. Owners of Logic Apps can choose their own, which is known only from the
/// identity's scope; all other flows expect that of their cloud.
pub fn wanted_audience<'a>(url: &TriggerUrl, identity: &'a IdentitySettings) -> &'a str {
    match url.family() {
        Family::Consumption | Family::Standard => &identity.audience,
        Family::PowerPlatform | Family::PowerPlatformScaleUnit | Family::Other => {
            url.cloud().unwrap_or(identity.cloud).audience()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Fits,
    /// Nothing is known to compare it with.
    Unknown,
    /// The flow cannot accept it.
    Fails,
}

impl Fit {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::Unknown => "not compared",
            Self::Fails => "DOES NOT FIT",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Compared {
    pub claim: &'static str,
    pub wanted: String,
    pub got: String,
    pub fit: Fit,
    /// Why it cannot work; empty where it can.
    pub why: String,
    /// What to do about it; empty where nothing is to be done.
    pub fix: String,
}

/// Compares a token with what a route needs, claim by claim; nothing if the token is opaque.
pub fn compare(token: &str, needs: &Needs, now: SystemTime) -> Option<Vec<Compared>> {
    Claims::read(token).map(|claims| rows(&claims, needs, now))
}

fn rows(claims: &Claims, needs: &Needs, now: SystemTime) -> Vec<Compared> {
    vec![
        audience(claims, needs),
        issuer(claims, needs),
        tenant(claims, needs),
        object_id(claims, needs),
        kind(claims),
        time(claims, now),
    ]
}

fn claim_value(claims: &Claims, name: &str) -> String {
    claims
        .text(name)
        .map_or_else(|| "(none)".to_owned(), claims::safe)
}

/// A row with nothing to fix.
fn plain(claim: &'static str, wanted: impl Into<String>, got: String, fit: Fit) -> Compared {
    Compared {
        claim,
        wanted: wanted.into(),
        got,
        fit,
        why: String::new(),
        fix: String::new(),
    }
}

/// A row that fails where there is a reason.
fn judged(claim: &'static str, wanted: String, got: String, why: Option<String>, fix: String) -> Compared {
    let row = plain(claim, wanted, got, Fit::Fits);
    match why {
        Some(why) => Compared {
            fit: Fit::Fails,
            why,
            fix,
            ..row
        },
        None => row,
    }
}

fn audience(claims: &Claims, needs: &Needs) -> Compared {
    let got = claims
        .audience()
        .map_or_else(|| "(none)".to_owned(), claims::safe);
    let wanted = needs.audience.clone();
    let fix = format!("the operator sets scope = \"{wanted}/.default\" for the identity, or leaves it out");
    let why = claims.audience_fault(&wanted);
    judged("aud", wanted, got, why, fix)
}

fn issuer(claims: &Claims, needs: &Needs) -> Compared {
    let tid = claims.text("tid").unwrap_or("<tenant>");
    let fix = format!(
        "the operator compares cloud, tenant and authority of the identity with the flow's cloud {}",
        needs.cloud.name()
    );
    let (wanted, got) = (claims::usual_issuer(needs.cloud, tid), claim_value(claims, "iss"));
    judged("iss", wanted, got, claims.issuer_fault_in(needs.cloud), fix)
}

fn tenant(claims: &Claims, needs: &Needs) -> Compared {
    let got = claim_value(claims, "tid");
    let wanted = needs.tenant.as_deref().unwrap_or("(not in the settings)");
    let fault = claims.tenant_fault(needs.tenant.as_ref());
    let fix = "the operator sets the tenant in which the flow was made".to_owned();
    let mut row = judged("tid", wanted.to_owned(), got, fault, fix);
    if row.fit == Fit::Fits && !row.wanted.eq_ignore_ascii_case(&row.got) {
        // A domain, or nothing: no claim repeats it.
        row.fit = Fit::Unknown;
    }
    row
}

fn object_id(claims: &Claims, needs: &Needs) -> Compared {
    let got = claim_value(claims, "oid");
    if needs.object_ids.is_empty() {
        return plain("oid", "(not in the settings)", got, Fit::Unknown);
    }
    let wanted = needs.object_ids.join(", ");
    let listed = needs.object_ids.iter().any(|id| id.eq_ignore_ascii_case(&got));
    let why = (!listed).then(|| {
        let client = claims.text("appid").or_else(|| claims.text("azp"));
        let is_client = needs
            .object_ids
            .iter()
            .any(|id| client.is_some_and(|client| client.eq_ignore_ascii_case(id)));
        let hint = match is_client {
            true => ": the list has the client id where it wants the object id of the enterprise application",
            false => "",
        };
        match claims.text("oid") {
            Some(oid) => format!(
                "oid is {}, which is not among object_ids{hint}",
                claims::quoted(oid)
            ),
            None => "oid is missing, and the trigger's list holds object ids".to_owned(),
        }
    });
    let fix = format!(
        "the flow's owner puts {got} on the list under \"Specific users in my tenant\", and the operator into \
         object_ids of the route"
    );
    judged("oid", wanted, got, why, fix)
}

fn kind(claims: &Claims) -> Compared {
    let got = claim_value(claims, "idtyp");
    let fit = match got.as_str() {
        "app" | "user" => Fit::Fits,
        _ => Fit::Unknown,
    };
    plain("idtyp", "app or user", got, fit)
}

fn time(claims: &Claims, now: SystemTime) -> Compared {
    let date = |seconds: f64| {
        let moment =
            SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::try_from_secs_f64(seconds).ok()?)?;
        let moment = jiff::Timestamp::try_from(moment).ok()?;
        Some(moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    };
    let got = claims
        .number("exp")
        .and_then(date)
        .unwrap_or_else(|| "(none)".to_owned());
    let fix = "the operator checks the clock of the gateway's host, and for a token file the program \
               that writes it"
        .to_owned();
    judged(TIME, "still to come".to_owned(), got, claims.time_fault(now), fix)
}

/// What is known about the token that one route uses.
#[derive(Debug)]
pub struct Preflight {
    route: RouteName,
    needs: Mutex<Needs>,
    on_mismatch: ClaimMismatch,
    findings: Mutex<Findings>,
}

#[derive(Debug, Default)]
struct Findings {
    all: Arc<[String]>,
    /// Those that are so whatever the clock of this host says.
    certain: Arc<[String]>,
}

impl Preflight {
    pub fn new(route: &RouteSettings, identity: &IdentitySettings) -> Arc<Self> {
        Arc::new(Self {
            route: route.name.clone(),
            needs: Mutex::new(Needs::of(route, identity)),
            on_mismatch: route.on_claim_mismatch,
            findings: Mutex::default(),
        })
    }

    pub fn need(&self, needs: Needs) {
        *locked(&self.needs) = needs;
    }

    /// What cannot work with the current token, and how to fix it.
    pub fn findings(&self) -> Arc<[String]> {
        locked(&self.findings).all.clone()
    }

    /// Why calls are refused without asking the flow, where the settings want that. A token whose dates look wrong goes
    /// on: it came a moment ago, so the clock is in doubt, and the flow has its own.
    pub fn refusal(&self) -> Option<String> {
        if self.on_mismatch == ClaimMismatch::Try {
            return None;
        }
        let findings = locked(&self.findings).certain.clone();
        (!findings.is_empty()).then(|| {
            format!(
                "the token does not fit the route, which refuses calls then (on_claim_mismatch): {}",
                findings.join("; ")
            )
        })
    }
}

/// Compares each new token of one identity with what its routes need.
#[derive(Debug)]
pub struct Inspector {
    identity: IdentityName,
    routes: Vec<Arc<Preflight>>,
    logged: Mutex<BTreeSet<String>>,
}

impl Inspector {
    pub fn new(identity: &IdentityName, routes: Vec<Arc<Preflight>>) -> Self {
        Self {
            identity: identity.clone(),
            routes,
            logged: Mutex::default(),
        }
    }

    /// Looks at a new token. What is found is logged once, and again only after it was different in between.
    pub fn look(&self, token: &Secret) {
        let now = clock::wall();
        let claims = Claims::read(token.expose());
        let mut found: BTreeMap<String, (String, Vec<&str>)> = BTreeMap::new();
        for route in &self.routes {
            let compared = claims
                .as_ref()
                .map_or_else(Vec::new, |claims| rows(claims, &locked(&route.needs), now));
            let failed = compared.iter().filter(|row| row.fit == Fit::Fails);
            let (mut all, mut certain) = (Vec::new(), Vec::new());
            for row in failed {
                let text = format!("{}; {}", row.why, row.fix);
                // A date differs from token to token and is the same finding.
                let key = match row.claim {
                    TIME => row.claim.to_owned(),
                    _ => text.clone(),
                };
                let entry = found.entry(key).or_insert_with(|| (text.clone(), Vec::new()));
                entry.1.push(route.route.as_str());
                if row.claim != TIME {
                    certain.push(text.clone());
                }
                all.push(text);
            }
            *locked(&route.findings) = Findings {
                all: all.into(),
                certain: certain.into(),
            };
        }
        self.log(&found);
    }

    fn log(&self, found: &BTreeMap<String, (String, Vec<&str>)>) {
        let mut logged = locked(&self.logged);
        for (key, (text, routes)) in found {
            if logged.contains(key) {
                continue;
            }
            let named: Vec<&str> = routes.iter().take(ROUTES_NAMED_MAX).copied().collect();
            let more = match routes.len().saturating_sub(named.len()) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            tracing::warn!(
                identity = %self.identity,
                "the token of identity {} cannot be accepted behind {}{more}: {text}",
                self.identity,
                named.join(", ")
            );
        }
        if found.is_empty() && !logged.is_empty() {
            tracing::info!(identity = %self.identity, "the token of identity {} fits its routes again", self.identity);
        }
        *logged = found.keys().cloned().collect();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, UNIX_EPOCH};

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::{Fit, Inspector, Needs, Preflight, compare};
    use crate::model::{Cloud, IdentityName, RouteName, Secret, Tenant};
    use crate::settings::ClaimMismatch;

    const TENANT: &str = "11111111-2222-3333-4444-555555555555";
    const OID: &str = "99999999-2222-3333-4444-555555555555";
    const APP: &str = "22222222-2222-3333-4444-555555555555";

    fn needs() -> Needs {
        Needs {
            audience: Cloud::Public.audience().to_owned(),
            tenant: Tenant::parse(TENANT).ok(),
            cloud: Cloud::Public,
            object_ids: Vec::new(),
        }
    }

    fn good() -> serde_json::Value {
        serde_json::json!({
            "aud": Cloud::Public.audience(), "iss": format!("https://sts.windows.net/{TENANT}/"), "tid": TENANT,
            "oid": OID, "appid": APP, "idtyp": "app", "exp": 2_000,
        })
    }

    fn failing(claims: &serde_json::Value, needs: &Needs) -> Vec<(&'static str, String)> {
        let token = format!("e30.{}.CANARY", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let rows = compare(&token, needs, UNIX_EPOCH + Duration::from_secs(1_000)).unwrap();
        assert!(!format!("{rows:?}").contains("CANARY"));
        let failed = rows.into_iter().filter(|row| row.fit == Fit::Fails);
        failed
            .map(|row| (row.claim, format!("{}; {}", row.why, row.fix)))
            .collect()
    }

    #[test]
    fn a_good_token_fits() {
        assert_eq!(failing(&good(), &needs()), []);
    }

    #[test]
    fn each_claim_that_cannot_match_is_named_alone_with_its_fix() {
        for (claim, value, words) in [
            ("aud", "https://service.flow.microsoft.com", "second slash"),
            ("aud", "https://gov.service.flow.microsoft.us/", "the cloud gcc"),
            ("iss", "https://idp.example/", "no issuer of Entra"),
        ] {
            let mut claims = good();
            claims[claim] = value.into();
            let failed = failing(&claims, &needs());
            assert_eq!(failed.len(), 1, "{failed:?}");
            assert!(failed[0].0 == claim && failed[0].1.contains(words), "{failed:?}");
            assert!(failed[0].1.contains("the operator"), "{failed:?}");
        }
        let mut old = good();
        old["exp"] = 999.into();
        assert_eq!(failing(&old, &needs())[0].0, "exp");
        let other = Needs {
            tenant: Tenant::parse(OID).ok(),
            ..needs()
        };
        assert_eq!(failing(&good(), &other)[0].0, "tid");
    }

    #[test]
    fn an_object_id_is_compared_only_where_the_route_lists_some() {
        let listed = |ids: &[&str]| Needs {
            object_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            ..needs()
        };
        assert_eq!(failing(&good(), &listed(&[APP, OID])), []);
        let failed = failing(&good(), &listed(&[APP]));
        assert!(failed[0].1.contains("the list has the client id"), "{failed:?}");
        assert!(failed[0].1.contains(OID), "{failed:?}");
    }

    /// Lines that were logged.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_finding_is_logged_once_and_again_only_after_it_changed() {
        let heard = Heard::default();
        let writer = heard.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let routes = ["a", "b"].map(|name| {
            Arc::new(Preflight {
                route: RouteName::parse(name).unwrap(),
                needs: Mutex::new(needs()),
                on_mismatch: ClaimMismatch::Try,
                findings: Mutex::default(),
            })
        });
        let inspector = Inspector::new(&IdentityName::parse("contoso").unwrap(), routes.to_vec());
        let token = |audience: &str| {
            let mut claims = good();
            claims["aud"] = audience.into();
            claims["exp"] = 9_000_000_000u64.into();
            Secret::new(format!(
                "e30.{}.CANARY",
                URL_SAFE_NO_PAD.encode(claims.to_string())
            ))
        };
        let right = Cloud::Public.audience();
        tracing::subscriber::with_default(subscriber, || {
            for audience in ["api://x", "api://x", right, right, "api://x"] {
                inspector.look(&token(audience));
            }
        });
        let text = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[0].contains("WARN") && lines[0].contains("behind a, b: aud is"),
            "{text}"
        );
        assert!(
            lines[1].contains("INFO") && lines[1].contains("fits its routes again"),
            "{text}"
        );
        assert!(lines[2].contains("WARN") && !text.contains("CANARY"), "{text}");
    }

    #[test]
    fn a_clock_that_is_wrong_refuses_no_call() {
        let route = Arc::new(Preflight {
            route: RouteName::parse("a").unwrap(),
            needs: Mutex::new(needs()),
            on_mismatch: ClaimMismatch::Refuse,
            findings: Mutex::default(),
        });
        let inspector = Inspector::new(&IdentityName::parse("contoso").unwrap(), vec![route.clone()]);
        let look = |claims: &serde_json::Value| {
            let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
            inspector.look(&Secret::new(format!("e30.{claims}.CANARY")));
        };
        // It ended in 1970, as this host sees it.
        look(&good());
        assert_eq!(route.findings().len(), 1, "it is reported");
        assert_eq!(route.refusal(), None);
        let mut wrong = good();
        wrong["aud"] = "api://x".into();
        look(&wrong);
        assert_eq!(route.findings().len(), 2);
        let refusal = route.refusal().unwrap();
        assert!(
            refusal.contains("aud") && !refusal.contains("exp is"),
            "{refusal}"
        );
    }

    #[test]
    fn an_opaque_token_is_not_compared() {
        assert!(compare("opaque", &needs(), UNIX_EPOCH).is_none());
    }

    #[test]
    fn a_tenant_named_by_its_domain_is_not_compared() {
        let domain = Needs {
            tenant: Tenant::parse("contoso.onmicrosoft.com").ok(),
            ..needs()
        };
        assert_eq!(failing(&good(), &domain), []);
    }
}
