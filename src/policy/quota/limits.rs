//! The limits in force and their state. All limits that apply to a request are tested before any is taken
//! from, so that a refused request costs nothing.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Registry;
use crate::policy::address::{Bucket, Origin};
use crate::policy::key::GENERATED_PREFIX;
use crate::policy::quota::kinds::{
    ADDRESS, CHECK, FETCH, FETCH_RATE, HANDSHAKE, HANDSHAKE_RATE, KINDS, LimitKind, OPEN_ADDRESSES_MAX, PAGE,
    PAGE_RATE, Subject,
};
use crate::policy::quota::rate::{Cell, Pace, Ticks};
use crate::policy::quota::table::Addresses;
use crate::problem::{Kind, LimitNotice, Problem};
use crate::settings::{CallerSettings, QuotaSettings, Rate, RouteSettings};

/// The state of limits. It outlives settings: a limit finds its state by kind and name, so that new settings,
/// even with another rate, do not reset it.
#[derive(Debug)]
pub struct LimitStates {
    cells: Registry<(&'static str, String), Cell>,
    addresses: Arc<Addresses>,
    handshakes: Arc<OpenLimit<(Bucket, usize)>>,
    pages: Arc<OpenLimit<Bucket>>,
    fetches: Arc<Fetches>,
    clock: Ticks,
}

/// A limit of what needs no credential, with its state for each key: an address, or an address at a route.
#[derive(Debug)]
struct OpenLimit<K> {
    name: &'static str,
    rate: Rate,
    pace: Pace,
    addresses: Addresses<K>,
}

impl<K: Copy + Eq + Hash> OpenLimit<K> {
    fn new(name: &'static str, rate: Rate, clock: Ticks) -> Arc<Self> {
        Arc::new(Self {
            name,
            pace: Pace::of(&rate, clock),
            rate,
            addresses: Addresses::new(OPEN_ADDRESSES_MAX, clock),
        })
    }

    fn take(&self, key: K, origin: Origin) -> Result<(), Problem> {
        let taken = self.addresses.take(key, &self.pace);
        taken.map_err(|wait| {
            let cause = format!("too many {}s from {origin}", self.name);
            refusal(self.name, &self.rate, wait).because(cause)
        })
    }
}

/// What was fetched from vendors for each address, because of requests whose callers were not known yet.
#[derive(Debug)]
struct Fetches {
    by_address: Addresses,
    pace: Pace,
}

impl LimitStates {
    /// New state, for this many addresses that are counted individually.
    pub fn new(addresses_max: usize) -> Self {
        let clock = Ticks::start();
        Self {
            cells: Registry::default(),
            addresses: Arc::new(Addresses::new(addresses_max, clock)),
            handshakes: OpenLimit::new(HANDSHAKE, HANDSHAKE_RATE, clock),
            pages: OpenLimit::new(PAGE, PAGE_RATE, clock),
            fetches: Arc::new(Fetches {
                by_address: Addresses::new(OPEN_ADDRESSES_MAX, clock),
                pace: Pace::of(&FETCH_RATE, clock),
            }),
            clock,
        }
    }

    /// Addresses whose failures are counted individually.
    pub fn entries(&self) -> usize {
        self.addresses.entries()
    }

    /// Removes addresses whose failures have all expired. Called periodically, because the table sweeps
    /// itself only while failures arrive.
    pub fn sweep(&self) {
        self.addresses.sweep();
        self.handshakes.addresses.sweep();
        self.pages.addresses.sweep();
        self.fetches.by_address.sweep();
    }

    /// Forgets limits that no settings have any more.
    pub fn sweep_names(&self) {
        self.cells.sweep();
    }

    fn limits_of(&self, subject: Subject<'_>) -> Box<[Limit]> {
        let limit = |kind| self.limit(kind, subject);
        KINDS.iter().filter_map(limit).collect()
    }

    fn limit(&self, kind: &'static LimitKind, subject: Subject<'_>) -> Option<Limit> {
        let rate = (kind.rate)(subject)?;
        let name = subject.name().to_owned();
        Some(Limit {
            kind,
            cell: self.cells.share((kind.name, name.clone()), Cell::default),
            name,
            pace: Pace::of(&rate, self.clock),
            rate,
        })
    }
}

/// All limits of one version of the settings, with their state.
#[derive(Debug)]
pub struct Quotas {
    callers: Box<[Box<[Limit]>]>,
    routes: Box<[Box<[Limit]>]>,
    gateway: Box<[Limit]>,
    /// One for each route that answers checks.
    checks: Box<[Option<Limit>]>,
    failures: Rate,
    failures_pace: Pace,
    addresses: Arc<Addresses>,
    handshakes: Arc<OpenLimit<(Bucket, usize)>>,
    pages: Arc<OpenLimit<Bucket>>,
    fetches: Arc<Fetches>,
    /// One for each caller whose vendor signs with a certificate.
    caller_fetches: Box<[Option<Limit>]>,
}

/// A limit with its state, and the texts for its refusals.
#[derive(Debug)]
struct Limit {
    kind: &'static LimitKind,
    name: String,
    rate: Rate,
    pace: Pace,
    cell: Arc<Cell>,
}

/// Permission to proceed: every limit was taken from. A limit of concurrent requests would be given back when
/// this is dropped, so it is kept until the last byte of the answer.
#[derive(Debug)]
#[must_use]
pub struct Taken(());

impl Quotas {
    /// Builds all limits. Callers and routes are later identified by their index in these lists.
    pub fn build(
        settings: &QuotaSettings,
        callers: &[CallerSettings],
        routes: &[RouteSettings],
        states: &LimitStates,
    ) -> Self {
        let of = |subject| states.limits_of(subject);
        Self {
            callers: callers.iter().map(|caller| of(Subject::Caller(caller))).collect(),
            routes: routes.iter().map(|route| of(Subject::Route(route))).collect(),
            gateway: of(Subject::Gateway(settings)),
            checks: routes
                .iter()
                .map(|route| states.limit(&CHECK, Subject::Route(route)))
                .collect(),
            failures: settings.failed_authentications,
            failures_pace: Pace::of(&settings.failed_authentications, states.clock),
            addresses: states.addresses.clone(),
            handshakes: states.handshakes.clone(),
            pages: states.pages.clone(),
            fetches: states.fetches.clone(),
            caller_fetches: callers
                .iter()
                .map(|caller| states.limit(&FETCH, Subject::Caller(caller)))
                .collect(),
        }
    }

    /// Lets an address present keys, unless it has presented too many wrong ones. Nothing is taken. It
    /// applies only to requests whose authentication failed or could be a guess.
    ///
    /// # Errors
    /// `rate-limited`, for the limit `address`.
    pub fn admit_address(&self, origin: Origin) -> Result<(), Problem> {
        let probed = self.addresses.probe(origin.bucket(), &self.failures_pace);
        probed.map_err(|wait| {
            let cause = format!("too many failed authentications from {origin}");
            refusal(ADDRESS, &self.failures, wait)
                .because(cause)
                .detail(format!(
                    "Too many wrong keys were presented from this address. Until then only a valid key that \
                 begins with {GENERATED_PREFIX} is accepted from it; any other is refused, even if it is \
                 right."
                ))
        })
    }

    pub fn count_failure(&self, origin: Origin) {
        // If others have just exhausted the limit, the next request is refused; this one is already refused.
        let _ = self.addresses.take(origin.bucket(), &self.failures_pace);
    }

    /// Takes a handshake from what its address may ask for on a route. No other limit is taken from.
    ///
    /// # Errors
    /// `rate-limited`, for the limit `handshake`.
    pub fn take_handshake(&self, origin: Origin, route: usize) -> Result<(), Problem> {
        self.handshakes.take((origin.bucket(), route), origin)
    }

    /// Takes a page about a problem from what its address may ask for. No other limit is taken from.
    ///
    /// # Errors
    /// `rate-limited`, for the limit `page`.
    pub fn take_page(&self, origin: Origin) -> Result<(), Problem> {
        self.pages.take(origin.bucket(), origin)
    }

    /// Takes a check from what its route answers. No other limit is taken from.
    ///
    /// # Errors
    /// `rate-limited`, for the limit `check`.
    pub fn take_check(&self, route: usize) -> Result<(), Problem> {
        let limit = self.checks.get(route).and_then(Option::as_ref);
        match limit {
            Some(limit) => limit.cell.take(&limit.pace).map_err(|wait| limit.refuse(wait)),
            None => Ok(()),
        }
    }

    /// Takes something that a request of this address has fetched from the vendor of a caller.
    ///
    /// # Errors
    /// How long to wait for the next.
    pub fn take_fetch(&self, origin: Origin, caller: usize) -> Result<(), Duration> {
        let of_caller = self.caller_fetches.get(caller).and_then(Option::as_ref);
        if let Some(limit) = of_caller {
            limit.cell.probe(&limit.pace)?;
        }
        let Fetches { by_address, pace } = &*self.fetches;
        by_address.take(origin.bucket(), pace)?;
        of_caller.map_or(Ok(()), |limit| limit.cell.take(&limit.pace))
    }

    /// Takes a request from the limits of its caller, its route and the gateway: from all of them or from
    /// none.
    ///
    /// # Errors
    /// `rate-limited`, for the limit that makes the caller wait longest.
    pub fn take(&self, caller: Option<usize>, route: usize) -> Result<Taken, Problem> {
        self.test(caller, route)?;
        take_all(self.met_by(caller, route))
    }

    /// Whether a request could be taken from all of them now. Nothing is taken.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn test(&self, caller: Option<usize>, route: usize) -> Result<(), Problem> {
        let mut longest = None;
        for limit in self.met_by(caller, route) {
            if let Err(wait) = limit.cell.probe(&limit.pace)
                && longest.is_none_or(|(_, known)| wait > known)
            {
                longest = Some((limit, wait));
            }
        }
        match longest {
            Some((limit, wait)) => Err(limit.refuse(wait)),
            None => Ok(()),
        }
    }

    /// The limits that apply to one request.
    fn met_by(&self, caller: Option<usize>, route: usize) -> impl Iterator<Item = &Limit> + Clone {
        let caller = caller.and_then(|index| self.callers.get(index));
        let lists = [caller, self.routes.get(route), Some(&self.gateway)];
        lists.into_iter().flatten().flat_map(|limits| limits.iter())
    }
}

fn take_all<'l>(met: impl Iterator<Item = &'l Limit> + Clone) -> Result<Taken, Problem> {
    for (index, limit) in met.clone().enumerate() {
        // Another thread may have taken the last one since the test.
        if let Err(wait) = limit.cell.take(&limit.pace) {
            met.take(index)
                .for_each(|taken| taken.cell.give_back(&taken.pace));
            return Err(limit.refuse(wait));
        }
    }
    Ok(Taken(()))
}

impl Limit {
    fn refuse(&self, wait: Duration) -> Problem {
        let cause = format!("the limit of {} {} is spent", self.kind.name, self.name);
        refusal(self.kind.name, &self.rate, wait).because(cause)
    }
}

fn refusal(name: &'static str, rate: &Rate, wait: Duration) -> Problem {
    let window_seconds = rate.per.as_secs() + u64::from(rate.per.subsec_nanos() > 0);
    let notice = LimitNotice {
        name,
        quota: rate.requests,
        window_seconds: window_seconds.max(1),
    };
    Problem::from(Kind::RateLimited).wait(wait).limit(notice)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::time::advance;

    use super::{LimitStates, Quotas, refusal, take_all};
    use crate::model::{CallerName, RequestId, RouteName};
    use crate::policy::address::Origin;
    use crate::problem::{Kind, Problem};
    use crate::settings::{CallerSettings, QuotaSettings, Rate, RouteSettings};

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
            ..QuotaSettings::default()
        }
    }

    fn caller(name: &str, rate: Option<Rate>) -> CallerSettings {
        CallerSettings {
            rate,
            ..CallerSettings::new(CallerName::parse(name).unwrap())
        }
    }

    // One caller and two routes, of which the second has no limit.
    fn quotas(caller_rate: Option<Rate>, route: Option<Rate>, gateway: Option<Rate>) -> Quotas {
        let routes = [self::route("orders", route), self::route("free", None)];
        build(&states(), gateway, &[caller("erp", caller_rate)], &routes)
    }

    fn states() -> LimitStates {
        LimitStates::new(1_000)
    }

    fn build(
        states: &LimitStates,
        gateway: Option<Rate>,
        callers: &[CallerSettings],
        routes: &[RouteSettings],
    ) -> Quotas {
        Quotas::build(&settings(gateway), callers, routes, states)
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
            .take_while(|_| quotas.take(caller, route).is_ok())
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
            let problem = quotas.take(Some(0), 0).unwrap_err();
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
            assert_eq!(quotas.take(Some(0), 0).unwrap_err().limit_name(), Some("route"));
        }
        assert_eq!(admitted(&quotas, Some(0), 1), 2);
        assert_eq!(admitted(&quotas, None, 1), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_wait_is_reported() {
        let spent = |caller, route, gateway| {
            let quotas = quotas(Some(caller), Some(route), Some(gateway));
            assert_eq!(admitted(&quotas, Some(0), 0), 1);
            limit(&quotas.take(Some(0), 0).unwrap_err())
        };
        let (slow, quick) = (rate(1, 30, 1), rate(1, 5, 1));
        assert_eq!(spent(quick, slow, quick), (Some("route"), "30".to_owned()));
        assert_eq!(spent(slow, quick, quick), (Some("caller"), "30".to_owned()));
        assert_eq!(spent(quick, quick, slow), (Some("gateway"), "30".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_keys_runs_into_the_limit_of_the_address() {
        let states = states();
        let quotas = build(&states, None, &[], &[]);
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
        assert_eq!(states.entries(), 1);
        advance(120 * SECOND).await;
        states.sweep();
        assert_eq!(states.entries(), 0);
        assert!(quotas.admit_address(origin("192.0.2.1")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn new_settings_find_the_state_of_limits_by_kind_and_name() {
        let (tight, states) = (Some(rate(1, 60, 2)), states());
        let old = build(&states, tight, &[caller("erp", tight)], &[route("orders", tight)]);
        assert_eq!(admitted(&old, Some(0), 0), 2);
        old.count_failure(origin("192.0.2.1"));
        let callers = [caller("new", tight), caller("erp", tight)];
        let routes = [route("new", None), route("orders", tight), route("erp", tight)];
        let new = build(&states, None, &callers, &routes);
        assert_eq!(admitted(&new, Some(1), 0), 0, "the same caller");
        assert_eq!(admitted(&new, None, 1), 0, "the same route");
        assert_eq!(admitted(&new, Some(0), 2), 2, "a caller and a route that are new");
        assert_eq!(
            admitted(&build(&states, tight, &[], &routes), None, 0),
            0,
            "the gateway"
        );
        new.count_failure(origin("192.0.2.1"));
        assert!(
            new.admit_address(origin("192.0.2.1")).is_err(),
            "the same address"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_rate_is_no_fresh_limit() {
        let states = states();
        let with = |burst| build(&states, None, &[caller("erp", Some(rate(1, 60, burst)))], &[]);
        let old = with(2);
        assert_eq!(admitted(&old, Some(0), 0), 2);
        assert_eq!(admitted(&with(2), Some(0), 0), 0);
        assert_eq!(
            admitted(&with(3), Some(0), 0),
            1,
            "a larger burst adds what it is larger by"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_loses_a_race_gives_back_what_it_took() {
        let quotas = quotas(Some(rate(1, 60, 3)), Some(rate(1, 60, 1)), Some(rate(1, 60, 3)));
        let take_all = || take_all(quotas.met_by(Some(0), 0));
        assert!(take_all().is_ok());
        // Exhausts the route, as if another request had taken from it after this one was tested.
        for _ in 0..100 {
            assert_eq!(take_all().unwrap_err().limit_name(), Some("route"));
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
                .map(|_| scope.spawn(|| (0..500).filter(|_| quotas.take(Some(0), 0).is_ok()).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        // A taker that loses gives back a moment later, and may have blocked one other at its limits until
        // then.
        assert!((296..=300).contains(&admitted), "{admitted}");
        assert_eq!(quotas.take(Some(0), 0).unwrap_err().limit_name(), Some("route"));
    }

    // A route with only the fields that matter here: its name and rate.
    fn route(name: &str, rate: Option<Rate>) -> RouteSettings {
        RouteSettings {
            name: RouteName::parse(name).unwrap(),
            rate,
            ..RouteSettings::sample()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_equal_waits_that_of_the_narrowest_limit_is_reported() {
        let same = Some(rate(1, 60, 1));
        for (quotas, name) in [
            (quotas(same, same, same), "caller"),
            (quotas(None, same, same), "route"),
        ] {
            assert_eq!(admitted(&quotas, Some(0), 0), 1);
            assert_eq!(quotas.take(Some(0), 0).unwrap_err().limit_name(), Some(name));
        }
    }

    #[test]
    fn a_window_has_whole_seconds_and_is_never_too_short() {
        for (millis, window) in [(0, 1), (250, 1), (1_000, 1), (1_500, 2), (2_000, 2), (59_001, 60)] {
            let rate = Rate {
                per: Duration::from_millis(millis),
                ..rate(7, 0, 1)
            };
            let answer = refusal("route", &rate, SECOND).answer(RequestId::new());
            let policy = answer.headers()["ratelimit-policy"].to_str().unwrap();
            assert_eq!(policy, format!("\"route\";q=7;w={window}"), "{millis}");
        }
        let rate = Rate {
            per: SECOND + Duration::from_nanos(1),
            ..rate(7, 0, 1)
        };
        let answer = refusal("route", &rate, SECOND).answer(RequestId::new());
        assert_eq!(answer.headers()["ratelimit-policy"], "\"route\";q=7;w=2");
    }
}
