//! One identity's token over time: one fetch for all who wait, renewal ahead of the end, refusals remembered briefly.
//! How a token is asked for is handed in as a function; every deadline is on tokio's monotonic clock, so a wall clock
//! that jumps changes nothing.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use moka::future::Cache;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::counters::{Counters, FetchLabels, IdentityLabels};
use crate::entra::answer::{BORN_EXPIRED, Granted, LIFE_MAX, NO_TOKEN, TokenError, UNREACHABLE};
use crate::entra::claims::Inspector;
use crate::entra::grant::Grant;
use crate::entra::refused::RETRY_AFTER_MAX;
use crate::model::{IdentityName, Outlook, Secret, locked};

/// First pause after a refusal that is not transient.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// First pause after a transient failure.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after a refusal, unless the endpoint itself asks for more.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Longest pause after a failure that may be over at once.
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(15);
/// Pauses after a failure that may pass: tries at 0, 2, 6, 14 and 30 seconds, as Microsoft documents them for IMDS
/// ("How to use managed identities for Azure resources on an Azure VM to acquire an access token"). A gateway goes on
/// after that, and meets the end of an update, which takes up to 70 seconds, with its eighth try.
const PASSING_PAUSE: Duration = Duration::from_secs(2);
/// The last of those pauses.
const PASSING_PAUSE_MAX: Duration = Duration::from_secs(16);

/// A token refused by a trigger is replaced at most once in this time.
const FORGET_PERIOD: Duration = Duration::from_secs(60);
/// Taken off a token's life: its dates are whole seconds, so it may end that much earlier than the answer says.
const ROUNDING: Duration = Duration::from_secs(1);
/// Least time between two successful fetches, whatever the answer says about renewal.
const RENEW_MIN: Duration = Duration::from_secs(1);

/// A token on its way to triggers.
pub struct Token {
    header: HeaderValue,
    text: Secret,
    asked: Instant,
    expires: Instant,
    refresh_at: Instant,
}

impl Token {
    /// `Bearer` and the token, marked sensitive so that HTTP libraries do not print it.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.expires
    }

    /// The token itself, for reading its claims.
    pub fn text(&self) -> &Secret {
        &self.text
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What a try to get a token came to.
#[derive(Clone)]
enum Outcome {
    Token(Arc<Token>),
    Refused { error: Arc<TokenError>, until: Instant },
}

/// Why a caller gets no token now, and how long that is remembered.
#[derive(Debug, Clone)]
pub struct Unavailable {
    pub error: Arc<TokenError>,
    /// Time until the next try.
    pub wait: Duration,
}

/// What became of a token that a trigger refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It is gone, or another one had already taken its place: ask again.
    Yes,
    /// One was replaced less than a minute ago; a fresh one would be refused as well.
    TooSoon,
}

/// What readiness and `/readyz?verbose` say about an identity.
#[derive(Debug, Clone)]
pub struct Health {
    /// Time until the current token expires; none without a token.
    pub expires_in: Option<Duration>,
    /// Time since the current token was asked for.
    pub age: Option<Duration>,
    /// The last failure, while it has not been followed by a success.
    pub failure: Option<String>,
}

/// Whether an outcome in hand will do.
#[derive(Clone, Copy)]
enum Need {
    /// A caller waits: any token that has not expired.
    Usable,
    /// The minder renews: not one that is due.
    Renewed,
}

pub(crate) struct Slot {
    name: IdentityName,
    label: Arc<str>,
    grant: Box<dyn Grant>,
    current: ArcSwapOption<Token>,
    outcomes: Cache<IdentityName, Outcome>,
    control: Handle,
    counters: Counters,
    state: Mutex<State>,
    forgotten: Notify,
    inspector: ArcSwapOption<Inspector>,
    news: OnceLock<News>,
}

/// Makes a future that ends when what is shown to Entra has been replaced.
pub(crate) type News = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Default)]
struct State {
    failures: u32,
    failure: Option<String>,
    forgot: Option<Instant>,
    /// A token that was taken away on somebody's word, and serves on if none can be had in its place.
    doubted: Option<Arc<Token>>,
}

impl Slot {
    /// A slot without a token yet. Fetches run on `control`, so that a caller that leaves does not end one.
    pub(crate) fn new(
        name: IdentityName,
        grant: Box<dyn Grant>,
        control: Handle,
        counters: Counters,
    ) -> Arc<Self> {
        Arc::new(Self {
            label: name.as_str().into(),
            name,
            grant,
            current: ArcSwapOption::empty(),
            outcomes: Cache::new(1),
            control,
            counters,
            state: Mutex::default(),
            forgotten: Notify::new(),
            inspector: ArcSwapOption::empty(),
            news: OnceLock::new(),
        })
    }

    /// A token that has not expired, if there is one without asking.
    pub(crate) fn at_hand(&self) -> Option<Arc<Token>> {
        self.current
            .load_full()
            .filter(|token| Instant::now() < token.expires)
    }

    pub(crate) async fn token(self: &Arc<Self>) -> Result<Arc<Token>, Unavailable> {
        if let Some(token) = self.at_hand() {
            return Ok(token);
        }
        let slot = self.clone();
        let outcome = self
            .control
            .spawn(async move { slot.obtain(Need::Usable).await })
            .await;
        match outcome {
            Ok(Outcome::Token(token)) => Ok(token),
            Ok(Outcome::Refused { error, until }) => Err(Unavailable {
                error,
                wait: until - Instant::now(),
            }),
            // The control runtime is going down, or a fetch panicked: both are over for this request.
            Err(_) => Err(Unavailable {
                error: Arc::new(TokenError::own(UNREACHABLE, "the gateway is stopping")),
                wait: FAILED_PAUSE,
            }),
        }
    }

    /// Drops `token` because a trigger refused it; a newer one stays.
    pub(crate) fn forget(&self, token: &Arc<Token>) -> Forgotten {
        self.take_away(token, None)
    }

    /// The same where it may be good for others: they get it back if no other token can be had.
    pub(crate) fn doubt(&self, token: &Arc<Token>) -> Forgotten {
        self.take_away(token, Some(token.clone()))
    }

    fn take_away(&self, token: &Arc<Token>, doubted: Option<Arc<Token>>) -> Forgotten {
        let mut state = locked(&self.state);
        let current = self.current.load_full();
        if !current.is_some_and(|current| Arc::ptr_eq(&current, token)) {
            return Forgotten::Yes;
        }
        if state.forgot.is_some_and(|at| at.elapsed() < FORGET_PERIOD) {
            return Forgotten::TooSoon;
        }
        state.forgot = Some(Instant::now());
        state.doubted = doubted;
        self.current.store(None);
        // A renewal must not depend on another request coming by: none comes while readiness is red.
        self.forgotten.notify_one();
        Forgotten::Yes
    }

    /// Keeps a fresh token ready for as long as the returned future is polled; it survives any number of failures.
    pub(crate) async fn mind(self: Arc<Self>) {
        loop {
            let (due, news) = match self.clone().obtain(Need::Renewed).await {
                Outcome::Token(token) => (token.refresh_at, None),
                Outcome::Refused { error, until } => (
                    until,
                    self.news.get().filter(|_| error.outlook() == Outlook::AfterFix),
                ),
            };
            let replaced = async {
                match news {
                    Some(news) => news().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.forgotten.notified() => {}
                () = replaced => self.begin_anew().await,
            }
        }
    }

    /// Sets the notification of a replaced credential, which ends the wait after a refusal.
    pub(crate) fn hear(&self, news: News) {
        // A slot is made once.
        let _ = self.news.set(news);
    }

    /// Forgets a refusal: something else will be shown next time.
    async fn begin_anew(&self) {
        locked(&self.state).failures = 0;
        self.outcomes.invalidate(&self.name).await;
    }

    /// Looks at the token that is there, and at each one to come.
    pub(crate) fn inspect(&self, inspector: Inspector) {
        self.inspector.store(Some(Arc::new(inspector)));
        self.look_again();
    }

    /// Has the current token compared once more, because something else is needed of it.
    pub(crate) fn look_again(&self) {
        if let (Some(token), Some(inspector)) = (self.at_hand(), &*self.inspector.load()) {
            inspector.look(&token.text);
        }
    }

    pub(crate) fn health(&self) -> Health {
        let now = Instant::now();
        let token = self.current.load_full().filter(|token| now < token.expires);
        let state = locked(&self.state);
        Health {
            expires_in: token.as_ref().map(|token| token.expires - now),
            age: token.as_ref().map(|token| now - token.asked),
            failure: state.failure.clone(),
        }
    }

    pub(crate) fn gauge(&self) {
        let health = self.health();
        let labels = IdentityLabels {
            identity: self.label.clone(),
        };
        let seconds = |time: Option<Duration>| time.map_or(0.0, |time| time.as_secs_f64());
        self.counters
            .token_expires_in
            .get_or_create(&labels)
            .set(seconds(health.expires_in));
        self.counters
            .token_age
            .get_or_create(&labels)
            .set(seconds(health.age));
    }

    async fn obtain(self: Arc<Self>, need: Need) -> Outcome {
        let entry = self
            .outcomes
            .entry_by_ref(&self.name)
            .or_insert_with_if(self.ask(), |outcome| self.is_stale(outcome, need))
            .await;
        entry.into_value()
    }

    fn is_stale(&self, outcome: &Outcome, need: Need) -> bool {
        let now = Instant::now();
        match (outcome, need) {
            (Outcome::Refused { until, .. }, _) => now >= *until,
            (Outcome::Token(token), Need::Usable) => now >= token.expires || !self.is_current(token),
            (Outcome::Token(token), Need::Renewed) => now >= token.refresh_at || !self.is_current(token),
        }
    }

    fn is_current(&self, token: &Arc<Token>) -> bool {
        self.current
            .load()
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, token))
    }

    async fn ask(&self) -> Outcome {
        // Life counts from before the question: the answer may have been long on its way.
        let asked = Instant::now();
        match self
            .grant
            .ask()
            .await
            .and_then(|granted| self.accept(granted, asked))
        {
            Ok(token) => {
                self.succeeded(&token);
                Outcome::Token(token)
            }
            Err(error) => self.failed(error),
        }
    }

    fn accept(&self, granted: Granted, asked: Instant) -> Result<Arc<Token>, TokenError> {
        let mut header =
            HeaderValue::try_from(format!("Bearer {}", granted.token.expose())).map_err(|_| NO_TOKEN)?;
        header.set_sensitive(true);
        let life = granted.life.min(LIFE_MAX);
        let life = life - (life / 2).min(ROUNDING);
        let expires = asked + life;
        if expires <= Instant::now() {
            return Err(BORN_EXPIRED.into());
        }
        let wanted = granted.refresh_in.unwrap_or(life).min(life * 4 / 5);
        let refresh_at = asked + jittered(wanted).max(RENEW_MIN);
        Ok(Arc::new(Token {
            header,
            text: granted.token,
            asked,
            expires,
            refresh_at,
        }))
    }

    fn succeeded(&self, token: &Arc<Token>) {
        // Before the token is at hand, so that a route that refuses what does not fit never sends it.
        let inspector = self.inspector.load_full();
        if let Some(inspector) = &inspector {
            inspector.look(&token.text);
        }
        let old = self.current.swap(Some(token.clone()));
        // One that came in between found the last token.
        if let Some(later) = &*self.inspector.load()
            && !inspector.is_some_and(|inspector| Arc::ptr_eq(&inspector, later))
        {
            later.look(&token.text);
        }
        let mut state = locked(&self.state);
        let healed = state.failure.take().is_some();
        state.doubted = None;
        state.failures = 0;
        drop(state);
        let same = old.is_some_and(|old| old.text.same_as(token.text.expose()));
        if same && !healed {
            return;
        }
        self.count("ok");
        let seconds = (token.expires - token.asked).as_secs();
        tracing::info!(identity = %self.name, life_seconds = seconds, "token renewed");
    }

    fn failed(&self, error: TokenError) -> Outcome {
        let text = error.to_string();
        let mut state = locked(&self.state);
        let known = state.failure.as_deref() == Some(&text);
        state.failures = state.failures.saturating_add(1);
        let pause = pause(&error, state.failures);
        state.failure = Some(text.clone());
        if let Some(doubted) = state.doubted.take().filter(|token| !token.is_over()) {
            self.current.store(Some(doubted));
        }
        drop(state);
        self.count(error.label());
        let seconds = pause.as_secs();
        let held = self.health().expires_in.map_or(0, |left| left.as_secs());
        // A cause is an operator's task once; the repeats are visible in the counters.
        if known {
            tracing::debug!(identity = %self.name, error = %text, next_try_seconds = seconds, "still no token");
        } else {
            tracing::warn!(
                identity = %self.name,
                error = %text,
                next_try_seconds = seconds,
                old_token_seconds = held,
                "no new token"
            );
        }
        Outcome::Refused {
            error: Arc::new(error),
            until: Instant::now() + pause,
        }
    }

    fn count(&self, outcome: &'static str) {
        let labels = FetchLabels {
            identity: self.label.clone(),
            outcome,
        };
        self.counters.token_fetches.get_or_create(&labels).inc();
    }
}

/// Up to a tenth less, so that gateways started together do not renew together.
fn jittered(time: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(0u8) % 1000).unwrap_or(0);
    time - time / 10 * random / 1000
}

fn pause(error: &TokenError, failures: u32) -> Duration {
    let (base, most, asked) = match error {
        TokenError::Own(..) => (FAILED_PAUSE, FAILED_PAUSE_MAX, None),
        _ if error.outlook() == Outlook::AfterFix => (REFUSED_PAUSE, REFUSED_PAUSE_MAX, None),
        TokenError::Platform(failure) => (PASSING_PAUSE, PASSING_PAUSE_MAX, failure.wait),
        TokenError::Refused(refused) => (FAILED_PAUSE, FAILED_PAUSE_MAX, refused.refusal.retry_after),
        TokenError::Vault(error) => (FAILED_PAUSE, FAILED_PAUSE_MAX, error.retry_after),
    };
    let doubled = base
        .saturating_mul(1 << failures.saturating_sub(1).min(6))
        .min(most);
    match asked {
        Some(asked) => asked.min(RETRY_AFTER_MAX).max(base),
        None => doubled,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::runtime::Handle;
    use tokio::time::Instant;

    use super::{Forgotten, Slot};
    use crate::counters::Counters;
    use crate::entra::answer::{CREDENTIAL, EMPTY, Granted, TokenError};
    use crate::entra::failure::{Trouble, UNKNOWN, UPDATED};
    use crate::entra::grant::{Asked, Grant};
    use crate::model::{IdentityName, Secret};

    #[derive(Clone)]
    enum Step {
        Token(&'static str, u64),
        Fail,
        Refuse,
        Slow(Duration, &'static str),
        Platform(fn() -> Trouble, Option<Duration>),
    }

    #[derive(Clone, Default)]
    struct Endpoint {
        steps: Arc<Mutex<VecDeque<Step>>>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Grant for Endpoint {
        fn ask(&self) -> Asked<'_> {
            Box::pin(self.answer())
        }
    }

    impl Endpoint {
        fn script(steps: impl IntoIterator<Item = Step>) -> Self {
            let endpoint = Self::default();
            endpoint.steps.lock().unwrap().extend(steps);
            endpoint
        }

        fn count(&self) -> usize {
            self.asked.lock().unwrap().len()
        }

        fn slot(&self) -> Arc<Slot> {
            Slot::new(
                IdentityName::parse("contoso").unwrap(),
                Box::new(self.clone()),
                Handle::current(),
                Counters::new(),
            )
        }

        async fn answer(&self) -> Result<Granted, TokenError> {
            self.asked.lock().unwrap().push(Instant::now());
            let step = self
                .steps
                .lock()
                .unwrap()
                .pop_front()
                .expect("asked for more than was scripted");
            let granted = |text: &str, life| {
                Ok(Granted {
                    token: Secret::new(text),
                    life: Duration::from_secs(life),
                    refresh_in: None,
                    refresh_token: None,
                    id_token: None,
                })
            };
            match step {
                Step::Token(text, life) => granted(text, life),
                // A credential that an operator has to fix.
                Step::Refuse => Err(TokenError::own(CREDENTIAL, "it is wrong")),
                Step::Fail => Err(EMPTY.into()),
                Step::Platform(trouble, wait) => {
                    let failure = trouble().of("contoso", "here", wait);
                    Err(TokenError::Platform(Box::new(failure)))
                }
                Step::Slow(time, text) => {
                    tokio::time::sleep(time).await;
                    granted(text, 3600)
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_cold_callers_cause_one_fetch() {
        let endpoint = Endpoint::script([Step::Slow(Duration::from_secs(1), "one")]);
        let slot = endpoint.slot();
        let callers: Vec<_> = (0..1000)
            .map(|_| {
                let slot = slot.clone();
                tokio::spawn(async move { slot.token().await.map(|token| token.header().clone()) })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap().unwrap(), "Bearer one");
        }
        assert_eq!(endpoint.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_caller_may_leave_without_a_second_fetch() {
        let endpoint = Endpoint::script([Step::Slow(Duration::from_secs(1), "one")]);
        let slot = endpoint.slot();
        let first = tokio::spawn({
            let slot = slot.clone();
            async move { slot.token().await.map(|_| ()) }
        });
        while endpoint.count() == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        slot.token().await.unwrap();
        assert_eq!(endpoint.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_briefly() {
        let endpoint = Endpoint::script([Step::Fail, Step::Token("two", 3600)]);
        let slot = endpoint.slot();
        for _ in 0..10 {
            let unavailable = slot.token().await.unwrap_err();
            assert!(unavailable.wait <= Duration::from_secs(1));
        }
        assert_eq!(endpoint.count(), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(slot.token().await.unwrap().header(), "Bearer two");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_at_expiry_while_renewal_works() {
        let endpoint = Endpoint::script([Step::Token("one", 100), Step::Slow(Duration::from_secs(5), "two")]);
        let slot = endpoint.slot();
        let minder = tokio::spawn(slot.clone().mind());
        for second in 0..200u64 {
            let asked = Instant::now();
            slot.token().await.unwrap();
            assert_eq!(
                asked.elapsed(),
                Duration::ZERO,
                "a caller waited in second {second}"
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(slot.token().await.unwrap().header(), "Bearer two");
        minder.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_that_was_replaced_is_shown_at_once() {
        let refusals = std::iter::repeat_n(Step::Refuse, 6);
        let endpoint = Endpoint::script(refusals.chain([Step::Token("one", 3600)]));
        let slot = endpoint.slot();
        let replaced = Arc::new(tokio::sync::Notify::new());
        let news = replaced.clone();
        slot.hear(Box::new(move || Box::pin(news.clone().notified_owned())));
        let minder = tokio::spawn(slot.clone().mind());
        while endpoint.count() < 6 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let before = Instant::now();
        assert!(slot.token().await.unwrap_err().wait > Duration::from_secs(10));
        replaced.notify_one();
        while slot.at_hand().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(before.elapsed(), Duration::ZERO);
        minder.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_token_serves_while_renewal_fails_and_not_longer() {
        let failures = std::iter::repeat_n(Step::Fail, 40);
        let endpoint = Endpoint::script(
            [Step::Token("one", 100)]
                .into_iter()
                .chain(failures)
                .chain([Step::Token("two", 3600)]),
        );
        let slot = endpoint.slot();
        let started = Instant::now();
        let minder = tokio::spawn(slot.clone().mind());
        tokio::task::yield_now().await;
        while started.elapsed() < Duration::from_secs(99) {
            assert_eq!(slot.token().await.unwrap().header(), "Bearer one");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(slot.token().await.is_err(), "an expired token must not travel");
        assert!(slot.health().failure.is_some());
        // The minder goes on through every failure and ends with the good answer.
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(slot.token().await.unwrap().header(), "Bearer two");
        assert!(slot.health().failure.is_none());
        minder.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn renewal_starts_between_seven_and_eight_tenths_of_life() {
        let endpoint = Endpoint::script([Step::Token("one", 1000), Step::Token("two", 100_000)]);
        let slot = endpoint.slot();
        let minder = tokio::spawn(slot.clone().mind());
        tokio::time::sleep(Duration::from_secs(801)).await;
        let asked = endpoint.asked.lock().unwrap().clone();
        let after = asked[1] - asked[0];
        assert!(
            after >= Duration::from_secs(719) && after <= Duration::from_secs(800),
            "{after:?}"
        );
        minder.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_refused_token_is_forgotten_and_once_a_minute() {
        let steps = ["one", "two", "three"].map(|text| Step::Token(text, 3600));
        let endpoint = Endpoint::script(steps);
        let slot = endpoint.slot();
        let one = slot.token().await.unwrap();
        assert_eq!(slot.forget(&one), Forgotten::Yes);
        let two = slot.token().await.unwrap();
        assert_eq!(two.header(), "Bearer two");
        // A late refusal of the first token leaves the second alone.
        assert_eq!(slot.forget(&one), Forgotten::Yes);
        assert_eq!(slot.token().await.unwrap().header(), "Bearer two");
        assert_eq!(slot.forget(&two), Forgotten::TooSoon);
        assert_eq!(slot.token().await.unwrap().header(), "Bearer two");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(slot.forget(&two), Forgotten::Yes);
        assert_eq!(slot.token().await.unwrap().header(), "Bearer three");
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubted_token_serves_others_on_if_no_other_can_be_had() {
        let endpoint = Endpoint::script([Step::Token("one", 3600), Step::Fail, Step::Token("two", 3600)]);
        let slot = endpoint.slot();
        let one = slot.token().await.unwrap();
        assert_eq!(slot.doubt(&one), Forgotten::Yes);
        assert!(slot.at_hand().is_none(), "a fresh one is asked for first");
        slot.token().await.unwrap_err();
        assert_eq!(slot.token().await.unwrap().header(), "Bearer one");
        assert_eq!(slot.doubt(&one), Forgotten::TooSoon);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(slot.doubt(&one), Forgotten::Yes);
        assert_eq!(slot.token().await.unwrap().header(), "Bearer two");
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_token_is_not_taken_back() {
        let endpoint = Endpoint::script([Step::Token("one", 3600), Step::Fail]);
        let slot = endpoint.slot();
        let one = slot.token().await.unwrap();
        assert_eq!(slot.forget(&one), Forgotten::Yes);
        slot.token().await.unwrap_err();
        assert!(slot.at_hand().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_token_is_replaced_although_nobody_asks() {
        let endpoint = Endpoint::script([Step::Token("one", 3600), Step::Fail, Step::Token("two", 3600)]);
        let slot = endpoint.slot();
        let minder = tokio::spawn(slot.clone().mind());
        let one = slot.token().await.unwrap();
        assert_eq!(slot.forget(&one), Forgotten::Yes);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(endpoint.count(), 3);
        assert!(slot.health().expires_in.is_some());
        minder.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_life_is_cut() {
        let endpoint = Endpoint::script([Step::Token("one", u64::MAX / 4)]);
        let slot = endpoint.slot();
        slot.token().await.unwrap();
        assert!(slot.health().expires_in.unwrap() <= Duration::from_secs(48 * 3600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_identity_does_not_hold_up_another() {
        let slow = Endpoint::script([Step::Slow(Duration::from_secs(30), "slow")]).slot();
        let quick = Endpoint::script([Step::Token("quick", 3600)]).slot();
        let waiting = tokio::spawn(async move { slow.token().await.map(|_| ()) });
        tokio::task::yield_now().await;
        let asked = Instant::now();
        quick.token().await.unwrap();
        assert_eq!(asked.elapsed(), Duration::ZERO);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_without_life_is_an_error_and_no_loop() {
        let endpoint = Endpoint::script([Step::Token("dead", 0)]);
        let slot = endpoint.slot();
        assert!(slot.token().await.is_err());
        assert!(slot.token().await.is_err());
        assert_eq!(endpoint.count(), 1);
    }

    /// When a source that always fails like this is asked within `time`, in seconds from the start.
    async fn asked(trouble: fn() -> Trouble, wait: Option<Duration>, time: u64) -> Vec<u64> {
        let step = Step::Platform(trouble, wait);
        let endpoint = Endpoint::script(std::iter::repeat_n(step, 20));
        let begun = Instant::now();
        let minder = tokio::time::timeout(Duration::from_secs(time), endpoint.slot().mind());
        assert!(minder.await.is_err(), "a minder never ends");
        let asked = endpoint.asked.lock().unwrap();
        asked.iter().map(|at| (*at - begun).as_secs()).collect()
    }

    fn passing() -> Trouble {
        Trouble::new(UPDATED, "it answered 410")
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_tried_again_at_the_documented_times_and_past_the_longest_update() {
        assert_eq!(asked(passing, None, 79).await, [0, 2, 6, 14, 30, 46, 62, 78]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_asked_for_is_kept() {
        let wait = Some(Duration::from_secs(20));
        assert_eq!(asked(passing, wait, 41).await, [0, 20, 40]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_must_mend_is_asked_for_rarely() {
        let lasting = || Trouble::new(UNKNOWN, "it answered 400");
        assert_eq!(asked(lasting, None, 100).await, [0, 5, 15, 35, 75]);
    }
}
