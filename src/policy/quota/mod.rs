//! Rate limits of address, caller, route and gateway. All limits that apply to a request are tested before
//! any is taken from, so that a refused request costs nothing. Caller and route are known before.

mod limiter;
mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::address::Origin;
use crate::policy::key::GENERATED_PREFIX;
use crate::policy::quota::limiter::{Limiter, Ticks};
use crate::policy::quota::table::Addresses;
use crate::problem::{Kind, LimitNotice, Problem};
use crate::settings::{CallerSettings, QuotaSettings, Rate, RouteSettings};

/// All limits and their state.
#[derive(Debug)]
pub struct Quotas {
    failures: Arc<Failures>,
    callers: Box<[Option<Arc<Limit>>]>,
    routes: Box<[Option<Arc<Limit>>]>,
    gateway: Option<Arc<Limit>>,
    clock: Ticks,
}

#[derive(Debug)]
struct Failures {
    rate: Rate,
    addresses_max: usize,
    addresses: Addresses,
}

/// A limit, and the texts for its refusals.
#[derive(Debug)]
struct Limit {
    scope: Scope,
    name: String,
    rate: Rate,
    limiter: Limiter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    Address,
    Caller,
    Route,
    Gateway,
}

impl Scope {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Caller => "caller",
            Self::Route => "route",
            Self::Gateway => "gateway",
        }
    }
}

impl Quotas {
    /// Builds all limits, unused. Callers and routes are later identified by their index in these lists.
    pub fn build(settings: &QuotaSettings, callers: &[CallerSettings], routes: &[RouteSettings]) -> Self {
        let start = Draft {
            clock: Ticks::start(),
            known: HashMap::new(),
            failures: None,
        };
        start.finish(settings, callers, &names(routes))
    }

    /// Builds the limits of new settings. A limit whose name and rate have not changed keeps its state, so
    /// that a reload does not reset it.
    #[must_use]
    pub fn renew(
        &self,
        settings: &QuotaSettings,
        callers: &[CallerSettings],
        routes: &[RouteSettings],
    ) -> Self {
        let limits = self
            .callers
            .iter()
            .chain(&self.routes)
            .chain([&self.gateway])
            .flatten();
        let known = limits
            .map(|limit| ((limit.scope, limit.name.as_str()), limit))
            .collect();
        let draft = Draft {
            clock: self.clock,
            known,
            failures: Some(&self.failures),
        };
        draft.finish(settings, callers, &names(routes))
    }

    /// Lets an address present keys, unless it has presented too many wrong ones. Nothing is taken. It
    /// applies only to requests whose authentication failed or could be a guess.
    ///
    /// # Errors
    /// `rate-limited`, for the limit `address`.
    pub fn admit_address(&self, origin: Origin) -> Result<(), Problem> {
        let Failures { rate, addresses, .. } = &*self.failures;
        addresses.probe(origin.bucket()).map_err(|wait| {
            let cause = format!("too many failed authentications from {origin}");
            refusal(Scope::Address, rate, wait).because(cause).detail(format!(
                "Too many wrong keys were presented from this address. Until then only a valid key that \
                 begins with {GENERATED_PREFIX} is accepted from it; any other is refused, even if it is \
                 right."
            ))
        })
    }

    /// Remembers that an address has presented a wrong key.
    pub fn count_failure(&self, origin: Origin) {
        // If others have exhausted the limit since, the next request is refused; this one is already refused.
        let _ = self.failures.addresses.take(origin.bucket());
    }

    /// Takes a request from the limits of its caller, its route and the gateway: from all of them or from
    /// none.
    ///
    /// # Errors
    /// `rate-limited`, for the limit that makes the caller wait longest.
    pub fn admit(&self, caller: Option<usize>, route: usize) -> Result<(), Problem> {
        let caller = caller.and_then(|index| self.callers.get(index));
        let limits = [caller, self.routes.get(route), Some(&self.gateway)]
            .map(|limit| limit.and_then(Option::as_ref).map(Arc::as_ref));
        test_all(&limits)?;
        take_all(&limits)
    }

    /// Addresses whose failures are counted individually.
    pub fn entries(&self) -> usize {
        self.failures.addresses.entries()
    }

    /// Removes addresses whose failures have all expired. Called periodically, because the table sweeps
    /// itself only while failures arrive.
    pub fn sweep(&self) {
        self.failures.addresses.sweep();
    }
}

/// The limits that apply to one request.
type Met<'a> = [Option<&'a Limit>; 3];

fn test_all(limits: &Met<'_>) -> Result<(), Problem> {
    let mut longest = None;
    for limit in limits.iter().flatten() {
        if let Err(wait) = limit.limiter.probe()
            && longest.is_none_or(|(_, known)| wait > known)
        {
            longest = Some((limit, wait));
        }
    }
    longest.map_or(Ok(()), |(limit, wait)| Err(limit.refuse(wait)))
}

fn take_all(limits: &Met<'_>) -> Result<(), Problem> {
    for (index, limit) in limits.iter().enumerate() {
        let Some(limit) = limit else { continue };
        // Another thread may have taken the last one since the test.
        if let Err(wait) = limit.limiter.take() {
            let taken = limits.iter().take(index).flatten();
            taken.for_each(|taken| taken.limiter.give_back());
            return Err(limit.refuse(wait));
        }
    }
    Ok(())
}

impl Limit {
    fn refuse(&self, wait: Duration) -> Problem {
        let cause = format!("the limit of {} {} is spent", self.scope.as_str(), self.name);
        refusal(self.scope, &self.rate, wait).because(cause)
    }
}

fn refusal(scope: Scope, rate: &Rate, wait: Duration) -> Problem {
    let window_seconds = rate.per.as_secs() + u64::from(rate.per.subsec_nanos() > 0);
    let notice = LimitNotice {
        name: scope.as_str(),
        quota: rate.requests,
        window_seconds: window_seconds.max(1),
    };
    Problem::from(Kind::RateLimited).wait(wait).limit(notice)
}

fn names(routes: &[RouteSettings]) -> Vec<(&str, Option<Rate>)> {
    routes
        .iter()
        .map(|route| (route.name.as_str(), route.rate))
        .collect()
}

/// The state to build on: none, or the limits of the previous settings.
struct Draft<'a> {
    clock: Ticks,
    known: HashMap<(Scope, &'a str), &'a Arc<Limit>>,
    failures: Option<&'a Arc<Failures>>,
}

impl Draft<'_> {
    fn finish(
        &self,
        settings: &QuotaSettings,
        callers: &[CallerSettings],
        routes: &[(&str, Option<Rate>)],
    ) -> Quotas {
        Quotas {
            failures: self.failures(settings),
            callers: callers
                .iter()
                .map(|caller| self.limit(Scope::Caller, caller.name.as_str(), caller.rate))
                .collect(),
            routes: routes
                .iter()
                .map(|(name, rate)| self.limit(Scope::Route, name, *rate))
                .collect(),
            gateway: self.limit(Scope::Gateway, "as a whole", settings.gateway),
            clock: self.clock,
        }
    }

    fn limit(&self, scope: Scope, name: &str, rate: Option<Rate>) -> Option<Arc<Limit>> {
        let rate = rate?;
        if let Some(known) = self.known.get(&(scope, name))
            && known.rate == rate
        {
            return Some(Arc::clone(known));
        }
        Some(Arc::new(Limit {
            scope,
            name: name.to_owned(),
            rate,
            limiter: Limiter::new(&rate, self.clock),
        }))
    }

    fn failures(&self, settings: &QuotaSettings) -> Arc<Failures> {
        let QuotaSettings {
            failed_authentications: rate,
            addresses_max,
            ..
        } = *settings;
        match self.failures {
            Some(known) if known.rate == rate && known.addresses_max == addresses_max => Arc::clone(known),
            _ => {
                let addresses = Addresses::new(&rate, addresses_max, self.clock);
                Arc::new(Failures {
                    rate,
                    addresses_max,
                    addresses,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use http::Method;
    use tokio::time::advance;

    use super::{Draft, Quotas, Scope, Ticks, refusal, take_all};
    use crate::model::{CallerName, RequestId, RouteName, TriggerUrl};
    use crate::policy::address::Origin;
    use crate::problem::{Kind, Problem};
    use crate::settings::{
        CallerSettings, CallersSettings, ClaimMismatch, NetworkSettings, Proof, QueryPass, QuotaSettings,
        Rate, RelativePath, RouteKind, RouteSettings, Trust, UpstreamSettings,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(requests: u32, seconds: u64, burst: u32) -> Rate {
        Rate {
            requests,
            per: Duration::from_secs(seconds),
            burst,
        }
    }

    fn settings(gateway: Option<Rate>) -> QuotaSettings {
        QuotaSettings {
            gateway,
            failed_authentications: rate(1, 60, 2),
            addresses_max: 1_000,
        }
    }

    fn caller(name: &str, rate: Option<Rate>) -> CallerSettings {
        let name = CallerName::parse(name).unwrap();
        CallerSettings {
            name,
            keys: Arc::default(),
            networks: NetworkSettings::default(),
            rate,
        }
    }

    // One caller and two routes, of which the second has no limit.
    fn quotas(caller_rate: Option<Rate>, route: Option<Rate>, gateway: Option<Rate>) -> Quotas {
        let draft = Draft {
            clock: Ticks::start(),
            known: HashMap::new(),
            failures: None,
        };
        draft.finish(
            &settings(gateway),
            &[caller("erp", caller_rate)],
            &[("orders", route), ("free", None)],
        )
    }

    fn limit(problem: &Problem) -> (Option<&'static str>, String) {
        let answer = problem.answer(RequestId::new());
        (
            problem.limit_name(),
            answer.headers()["retry-after"].to_str().unwrap().to_owned(),
        )
    }

    fn admitted(quotas: &Quotas, caller: Option<usize>, route: usize) -> usize {
        (0..1_000)
            .take_while(|_| quotas.admit(caller, route).is_ok())
            .count()
    }

    fn origin(text: &str) -> Origin {
        Origin::of_peer(SocketAddr::new(text.parse().unwrap(), 40_000))
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_everything_passes() {
        let quotas = quotas(None, None, None);
        assert_eq!(admitted(&quotas, Some(0), 0), 1_000);
        assert_eq!(admitted(&quotas, None, 1), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn each_limit_refuses_under_its_own_name() {
        let tight = Some(rate(6, 60, 2));
        for (quotas, name, cause) in [
            (
                quotas(tight, None, None),
                "caller",
                "the limit of caller erp is spent",
            ),
            (
                quotas(None, tight, None),
                "route",
                "the limit of route orders is spent",
            ),
            (
                quotas(None, None, tight),
                "gateway",
                "the limit of gateway as a whole is spent",
            ),
        ] {
            assert_eq!(admitted(&quotas, Some(0), 0), 2);
            let problem = quotas.admit(Some(0), 0).unwrap_err();
            assert_eq!(problem.kind(), Kind::RateLimited);
            assert_eq!(limit(&problem), (Some(name), "10".to_owned()));
            assert_eq!(problem.cause(), Some(cause));
            let answer = problem.answer(RequestId::new());
            assert_eq!(
                answer.headers()["ratelimit-policy"].to_str().unwrap(),
                format!("\"{name}\";q=6;w=60")
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn limits_refill() {
        let quotas = quotas(Some(rate(60, 60, 4)), None, None);
        assert_eq!(admitted(&quotas, Some(0), 0), 4);
        advance(3 * SECOND).await;
        assert_eq!(admitted(&quotas, Some(0), 0), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_request_takes_nothing_from_the_other_limits() {
        let quotas = quotas(Some(rate(1, 60, 3)), Some(rate(1, 60, 1)), Some(rate(1, 60, 10)));
        assert_eq!(admitted(&quotas, Some(0), 0), 1);
        for _ in 0..100 {
            assert_eq!(quotas.admit(Some(0), 0).unwrap_err().limit_name(), Some("route"));
        }
        assert_eq!(admitted(&quotas, Some(0), 1), 2);
        assert_eq!(admitted(&quotas, None, 1), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_is_reported() {
        let spent = |caller, route, gateway| {
            let quotas = quotas(Some(caller), Some(route), Some(gateway));
            assert_eq!(admitted(&quotas, Some(0), 0), 1);
            limit(&quotas.admit(Some(0), 0).unwrap_err())
        };
        let (slow, quick) = (rate(1, 30, 1), rate(1, 5, 1));
        assert_eq!(spent(quick, slow, quick), (Some("route"), "30".to_owned()));
        assert_eq!(spent(slow, quick, quick), (Some("caller"), "30".to_owned()));
        assert_eq!(spent(quick, quick, slow), (Some("gateway"), "30".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_keys_runs_into_the_limit_of_the_address() {
        let quotas = quotas(None, None, None);
        for _ in 0..2 {
            quotas.admit_address(origin("192.0.2.1")).unwrap();
            quotas.count_failure(origin("192.0.2.1"));
        }
        let problem = quotas.admit_address(origin("::ffff:192.0.2.1")).unwrap_err();
        assert_eq!(limit(&problem), (Some("address"), "60".to_owned()));
        assert_eq!(
            problem.cause(),
            Some("too many failed authentications from 192.0.2.1")
        );
        assert!(quotas.admit_address(origin("192.0.2.2")).is_ok());
        assert_eq!(quotas.entries(), 1);
        advance(120 * SECOND).await;
        quotas.sweep();
        assert_eq!(quotas.entries(), 0);
        assert!(quotas.admit_address(origin("192.0.2.1")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn new_settings_keep_the_state_of_unchanged_limits() {
        let tight = Some(rate(1, 60, 2));
        let quotas = quotas(tight, None, tight);
        assert_eq!(admitted(&quotas, Some(0), 0), 2);
        quotas.count_failure(origin("192.0.2.1"));
        let callers = [caller("new", tight), caller("erp", tight)];
        let kept = quotas.renew(&settings(None), &callers, &[]);
        assert_eq!(admitted(&kept, Some(1), 0), 0);
        assert_eq!(admitted(&kept, Some(0), 0), 2);
        assert_eq!(kept.entries(), 1);
        let changed = quotas.renew(&settings(None), &[caller("erp", Some(rate(1, 60, 3)))], &[]);
        assert_eq!(admitted(&changed, Some(0), 0), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_loser_of_a_race_gives_back_what_it_took() {
        let quotas = quotas(Some(rate(1, 60, 3)), Some(rate(1, 60, 1)), Some(rate(1, 60, 3)));
        let limits = [&quotas.callers[0], &quotas.routes[0], &quotas.gateway].map(Option::as_deref);
        assert!(take_all(&limits).is_ok());
        // Exhausts the route, as if another request had taken from it after this one was tested.
        for _ in 0..100 {
            assert_eq!(take_all(&limits).unwrap_err().limit_name(), Some("route"));
        }
        assert_eq!(admitted(&quotas, Some(0), 1), 2);
    }

    #[test]
    fn threads_together_get_no_more_than_any_limit() {
        let quotas = quotas(
            Some(rate(1, 3600, 500)),
            Some(rate(1, 3600, 300)),
            Some(rate(1, 3600, 400)),
        );
        let admitted: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..500).filter(|_| quotas.admit(Some(0), 0).is_ok()).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        // A taker that loses gives back a moment later, and may have blocked one other at its limits until
        // then.
        assert!((296..=300).contains(&admitted), "{admitted}");
        assert_eq!(quotas.admit(Some(0), 0).unwrap_err().limit_name(), Some("route"));
    }

    // A route with only the fields that matter here: its name and rate.
    fn route(name: &str, rate: Option<Rate>) -> RouteSettings {
        let trigger = format!(
            "https://prod-12.westeurope.logic.azure.com/workflows/{}/triggers/manual/paths/invoke\
             ?api-version=2016-06-01",
            "0123456789abcdef".repeat(2)
        );
        RouteSettings {
            name: RouteName::parse(name).unwrap(),
            host: None,
            path: "/orders".to_owned(),
            methods: vec![Method::POST],
            callers: CallersSettings::Anonymous,
            networks: NetworkSettings::default(),
            key_places: Vec::new(),
            rate,
            body_bytes_max: 1,
            kind: RouteKind::Flow,
            proof: Proof::Signed,
            object_ids: Vec::new(),
            on_claim_mismatch: ClaimMismatch::Try,
            trigger: TriggerUrl::parse(&trigger).unwrap(),
            trigger_source: None,
            relative_path: RelativePath::Dropped,
            query: QueryPass::None,
            probe: None,
            upstream: UpstreamSettings {
                trust: Trust::System,
                connect_to: None,
                in_flight_max: 1,
                waiting_max: 1,
                waiting_timeout: SECOND,
                connect_timeout: SECOND,
                response_timeout: SECOND,
                idle_timeout: SECOND,
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_keeps_what_is_left_of_its_limit_under_new_settings() {
        let tight = Some(rate(1, 60, 2));
        let quotas = Quotas::build(
            &settings(None),
            &[],
            &[route("orders", tight), route("free", None)],
        );
        assert_eq!(admitted(&quotas, None, 0), 2);
        assert_eq!(admitted(&quotas, None, 1), 1_000);
        let renewed = quotas.renew(
            &settings(None),
            &[],
            &[route("new", tight), route("orders", tight)],
        );
        assert_eq!(admitted(&renewed, None, 1), 0);
        assert_eq!(admitted(&renewed, None, 0), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_gateway_keeps_what_is_left_of_its_limit_under_new_settings() {
        let quotas = quotas(None, None, Some(rate(1, 60, 2)));
        assert_eq!(admitted(&quotas, None, 1), 2);
        let kept = quotas.renew(&settings(Some(rate(1, 60, 2))), &[], &[]);
        assert_eq!(admitted(&kept, None, 0), 0);
        let changed = quotas.renew(&settings(Some(rate(1, 60, 3))), &[], &[]);
        assert_eq!(admitted(&changed, None, 0), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_anew_when_their_limit_changes() {
        let quotas = quotas(None, None, None);
        quotas.count_failure(origin("192.0.2.1"));
        assert_eq!(quotas.renew(&settings(None), &[], &[]).entries(), 1);
        let other_rate = QuotaSettings {
            failed_authentications: rate(1, 60, 3),
            ..settings(None)
        };
        assert_eq!(quotas.renew(&other_rate, &[], &[]).entries(), 0);
        let other_size = QuotaSettings {
            addresses_max: 2_000,
            ..settings(None)
        };
        assert_eq!(quotas.renew(&other_size, &[], &[]).entries(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn of_equal_waits_that_of_the_narrowest_limit_is_reported() {
        let same = Some(rate(1, 60, 1));
        for (quotas, name) in [
            (quotas(same, same, same), "caller"),
            (quotas(None, same, same), "route"),
        ] {
            assert_eq!(admitted(&quotas, Some(0), 0), 1);
            assert_eq!(quotas.admit(Some(0), 0).unwrap_err().limit_name(), Some(name));
        }
    }

    #[test]
    fn a_window_is_reported_in_whole_seconds_and_never_too_short() {
        for (millis, window) in [(0, 1), (250, 1), (1_000, 1), (1_500, 2), (2_000, 2), (59_001, 60)] {
            let rate = Rate {
                per: Duration::from_millis(millis),
                ..rate(7, 0, 1)
            };
            let answer = refusal(Scope::Route, &rate, SECOND).answer(RequestId::new());
            let policy = answer.headers()["ratelimit-policy"].to_str().unwrap();
            assert_eq!(policy, format!("\"route\";q=7;w={window}"), "{millis}");
        }
        let rate = Rate {
            per: SECOND + Duration::from_nanos(1),
            ..rate(7, 0, 1)
        };
        let answer = refusal(Scope::Route, &rate, SECOND).answer(RequestId::new());
        assert_eq!(answer.headers()["ratelimit-policy"], "\"route\";q=7;w=2");
    }
}
