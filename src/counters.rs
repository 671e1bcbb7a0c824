//! Every counter, gauge and histogram as a typed handle, and the OpenMetrics text for scrapers. Label values
//! come from settings or code, never from a request, so their number is bounded.

mod recent;

use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

pub use recent::{RECENT_MINUTES, Recent};

use crate::model::clock;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// Name of the route; `-` before one was found.
    pub route: Arc<str>,
    /// `answered`, `caller-gone`, or the code of a problem.
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    pub route: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// A word from the code.
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WorkerLabels {
    /// Counted from 0.
    pub worker: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IdentityLabels {
    pub identity: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CredentialLabels {
    pub identity: Arc<str>,
    /// Kind and number, such as `client-secret-1`.
    pub credential: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FetchLabels {
    pub identity: Arc<str>,
    /// `ok`, or a word for the failure.
    pub outcome: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// All metrics. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<Figures>);

impl Deref for Counters {
    type Target = Figures;

    fn deref(&self) -> &Figures {
        &self.0
    }
}

/// Metrics of one route that every request updates.
#[derive(Debug)]
pub struct RouteFigures {
    pub route: Arc<str>,
    pub answered: Counter,
    /// Time the trigger took, in seconds.
    pub flow_time: Histogram,
    pub duplicates: Counter,
    pub overdue: Counter,
    pub recently_answered: Recent,
    /// Requests of the last minutes whose answer broke off on the flow's side.
    pub recently_cut: Recent,
    /// Requests of the last minutes whose caller left before the end.
    pub recently_gone: Recent,
    refused: Box<[OnceLock<Refused>]>,
}

impl RouteFigures {
    /// Requests of the last minutes that ended in this kind of refusal.
    pub fn recently_refused(&self, kind: usize, minute: u32) -> u64 {
        let refused = self.refused.get(kind).and_then(OnceLock::get);
        refused.map_or(0, |refused| refused.recent.count(minute))
    }
}

#[derive(Debug)]
pub struct Refused {
    pub requests: Counter,
    /// Refusals of this kind on all routes.
    pub refusals: Counter,
    pub recent: Recent,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NameLabels {
    pub name: Arc<str>,
}

fn own_buckets() -> Histogram {
    Histogram::new([
        0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0,
    ])
}

fn flow_buckets() -> Histogram {
    Histogram::new([
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
    ])
}

/// A row for each metric: the field that code uses, name and help for scrapers, type and first value.
macro_rules! figures {
    ($($(#[$doc:meta])* $field:ident $name:literal $help:literal: $kind:ty = $first:expr;)+) => {
        /// The handles of all metrics.
        #[derive(Debug)]
        pub struct Figures {
            registry: Registry,
            started: Instant,
            /// Requests of the last minutes without a route, whatever was answered.
            pub without_route: Recent,
            $($(#[$doc])* pub $field: $kind,)+
        }

        impl Default for Figures {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("flowgate");
                $(
                    let $field: $kind = $first;
                    registry.register($name, $help, $field.clone());
                )+
                Self {
                    registry,
                    started: clock::now(),
                    without_route: Recent::default(),
                    $($field,)+
                }
            }
        }
    };
}

figures! {
    requests "requests" "Requests by route and outcome":
        Family<OutcomeLabels, Counter> = Family::default();
    refusals "refusals" "Requests and connections refused":
        Family<ReasonLabels, Counter> = Family::default();
    connections "connections" "Open connections of callers": Gauge = Gauge::default();
    worker_connections "worker_connections" "Open connections of each worker":
        Family<WorkerLabels, Gauge> = Family::default();
    connections_accepted "connections_accepted" "Connections accepted": Counter = Counter::default();
    handshakes_failed "handshakes_failed" "TLS handshakes that failed":
        Family<ReasonLabels, Counter> = Family::default();
    token_fetches "token_fetches" "Token requests by outcome":
        Family<FetchLabels, Counter> = Family::default();
    /// 0 without a token.
    token_expires_in "token_expires_in_seconds" "Seconds until the current token expires":
        Family<IdentityLabels, Seconds> = Family::default();
    /// 0 without a token.
    token_age "token_age_seconds" "Seconds since the current token was fetched":
        Family<IdentityLabels, Seconds> = Family::default();
    upstream_opened "upstream_opened" "Connections opened to triggers": Counter = Counter::default();
    upstream_reused "upstream_reused" "Requests sent over an open connection": Counter = Counter::default();
    upstream_connections "upstream_connections" "Open connections to triggers": Gauge = Gauge::default();
    token_retries "token_retries" "Requests sent once more with a fresh token": Counter = Counter::default();
    webhook_handshakes "webhook_handshakes" "Challenges of vendors answered in place of the flow":
        Counter = Counter::default();
    checks "checks" "Checks answered in place of the flow": Counter = Counter::default();
    vendor_fetches "vendor_fetches" "Certificates fetched from vendors, and subscriptions confirmed there":
        Counter = Counter::default();
    problem_pages "problem_pages" "Pages about problems that were asked for": Counter = Counter::default();
    own_time "own_time_seconds" "Time spent in the gateway itself": Histogram = own_buckets();
    /// From the request's last byte to the head of the answer.
    flow_time "flow_time_seconds" "Time the trigger took to answer":
        Family<RouteLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(flow_buckets);
    limiter_entries "limiter_entries" "Addresses with remembered failures": Gauge = Gauge::default();
    duplicates "duplicates" "Requests that got the answer of an earlier one":
        Family<RouteLabels, Counter> = Family::default();
    overdue "answers_overdue" "Requests answered without their flow, because their sender gives up":
        Family<RouteLabels, Counter> = Family::default();
    /// Without those that are under way.
    deliveries "remembered_deliveries" "Deliveries whose duplicates get the same answer": Gauge = Gauge::default();
    delivery_bytes "delivery_answer_bytes" "Bytes of their answers": Gauge = Gauge::default();
    held_bytes "held_body_bytes" "Bytes of held bodies in memory": Gauge = Gauge::default();
    /// Because the writer could not keep up, or because the system did not accept them.
    log_dropped "log_lines_dropped" "Log lines dropped under pressure": Gauge = Gauge::default();
    ready "ready" "1 while the gateway is ready": Gauge = Gauge::default();
    /// If known; negative once it has expired.
    credential_days_left "credential_days_left" "Days until a credential of an identity expires":
        Family<CredentialLabels, Seconds> = Family::default();
    /// By the first name of the certificate.
    certificate_days "certificate_days_left" "Days until a certificate expires":
        Family<NameLabels, Seconds> = Family::default();
}

impl Counters {
    /// All at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// The metrics of one route, looked up once. `kinds` is the number of kinds of refusal.
    pub fn of_route(&self, name: &str, kinds: usize) -> RouteFigures {
        let route: Arc<str> = name.into();
        let labels = RouteLabels { route: route.clone() };
        let answered = OutcomeLabels {
            route: route.clone(),
            outcome: "answered",
        };
        RouteFigures {
            route,
            answered: self.requests.get_or_create(&answered).clone(),
            flow_time: self.flow_time.get_or_create(&labels).clone(),
            duplicates: self.duplicates.get_or_create(&labels).clone(),
            overdue: self.overdue.get_or_create(&labels).clone(),
            recently_answered: Recent::default(),
            recently_cut: Recent::default(),
            recently_gone: Recent::default(),
            refused: (0..kinds).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The metrics of a kind of refusal on a route. Created by the first refusal, so that the metrics page
    /// does not list what never happened.
    pub fn of_refusal<'f>(
        &self,
        route: &'f RouteFigures,
        kind: usize,
        code: &'static str,
    ) -> Option<&'f Refused> {
        let place = route.refused.get(kind)?;
        Some(place.get_or_init(|| {
            let labels = OutcomeLabels {
                route: route.route.clone(),
                outcome: code,
            };
            Refused {
                requests: self.requests.get_or_create(&labels).clone(),
                refusals: self
                    .refusals
                    .get_or_create(&ReasonLabels { reason: code })
                    .clone(),
                recent: Recent::default(),
            }
        }))
    }

    /// Removes the series of a route that no settings have any more. `codes` are those of all refusals.
    pub fn forget_route(&self, name: &str, codes: impl Iterator<Item = &'static str>) {
        let route: Arc<str> = name.into();
        for outcome in codes.chain(["answered", "caller-gone", "flow-cut"]) {
            let route = route.clone();
            self.requests.remove(&OutcomeLabels { route, outcome });
        }
        let labels = RouteLabels { route };
        self.flow_time.remove(&labels);
        self.duplicates.remove(&labels);
        self.overdue.remove(&labels);
    }

    /// Minutes since the start, counted from 1, for [`Recent`].
    pub fn minute(&self) -> u32 {
        let minutes = clock::now().saturating_duration_since(self.started).as_secs() / 60;
        u32::try_from(minutes).unwrap_or(u32::MAX).saturating_add(1)
    }

    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string fails only if an encoder does; the scraper then gets a document without its
        // end marker.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Raises a gauge by one until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    pub fn on(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::{Counted, Counters, OutcomeLabels};

    #[test]
    fn metrics_are_exported_under_our_name() {
        let counters = Counters::new();
        let labels = OutcomeLabels {
            route: "orders".into(),
            outcome: "answered",
        };
        counters.requests.get_or_create(&labels).inc();
        let held = Counted::on(&counters.connections);
        let text = counters.render();
        assert!(
            text.contains("flowgate_requests_total{route=\"orders\",outcome=\"answered\"} 1"),
            "{text}"
        );
        assert!(text.contains("flowgate_connections 1"), "{text}");
        drop(held);
        assert!(counters.render().contains("flowgate_connections 0"));
    }
}
