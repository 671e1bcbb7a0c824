//! Every counter, gauge and histogram as a typed handle, and the text they are scraped as. Labels are handed in by the
//! floors above and come from settings or code, never from a request, so their number is bounded.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Route and how its request ended: `answered`, or the code of a problem.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// Name of the route; `-` before one was found.
    pub route: Arc<str>,
    /// `answered`, `caller-gone`, or the code of a problem.
    pub outcome: &'static str,
}

/// Name of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// Name of the route.
    pub route: Arc<str>,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// A word from the code.
    pub reason: &'static str,
}

/// Name of an identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IdentityLabels {
    /// Name of the identity.
    pub identity: Arc<str>,
}

/// Identity and how a token request ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FetchLabels {
    /// Name of the identity.
    pub identity: Arc<str>,
    /// `ok`, or a word for the failure.
    pub outcome: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// Handles of everything that is counted.
#[derive(Debug, Clone)]
pub struct Counters {
    registry: Arc<Registry>,
    /// Requests by route and outcome.
    pub requests: Family<OutcomeLabels, Counter>,
    /// Requests and connections refused by the gateway, by reason.
    pub refusals: Family<ReasonLabels, Counter>,
    /// Open connections of callers.
    pub connections: Gauge,
    /// Connections accepted since the start.
    pub connections_accepted: Counter,
    /// Handshakes that failed, by reason.
    pub handshakes_failed: Family<ReasonLabels, Counter>,
    /// Token requests by identity and outcome.
    pub token_fetches: Family<FetchLabels, Counter>,
    /// Seconds until the current token of an identity expires; 0 without a token.
    pub token_expires_in: Family<IdentityLabels, Seconds>,
    /// Seconds since the current token of an identity was fetched; 0 without a token.
    pub token_age: Family<IdentityLabels, Seconds>,
    /// Connections opened to triggers.
    pub upstream_opened: Counter,
    /// Requests that went over a connection already open.
    pub upstream_reused: Counter,
    /// Open connections to triggers.
    pub upstream_connections: Gauge,
    /// Requests sent once more with a fresh token.
    pub token_retries: Counter,
    /// Time spent in the gateway itself, in seconds.
    pub own_time: Histogram,
    /// Time from the request's last byte to the head of the trigger's answer, in seconds.
    pub flow_time: Family<RouteLabels, Histogram, fn() -> Histogram>,
    /// Addresses whose failed authentications are remembered.
    pub limiter_entries: Gauge,
    /// Bytes of held bodies in memory.
    pub held_bytes: Gauge,
    /// Log lines dropped because the writer could not keep up.
    pub log_dropped: Gauge,
    /// 1 while the gateway is ready.
    pub ready: Gauge,
    /// Days until the certificate of a listener expires, by its first name.
    pub certificate_days: Family<NameLabels, Seconds>,
}

/// A name from the settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NameLabels {
    /// The name.
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

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl Counters {
    /// Fresh counters, all at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("flowgate");
        let r = &mut registry;
        let requests = Family::default();
        r.register("requests", "Requests by route and outcome", requests.clone());
        let refusals = Family::default();
        r.register(
            "refusals",
            "Requests and connections refused by the gateway",
            refusals.clone(),
        );
        let connections = Gauge::default();
        r.register("connections", "Open connections of callers", connections.clone());
        let connections_accepted = Counter::default();
        r.register(
            "connections_accepted",
            "Connections accepted",
            connections_accepted.clone(),
        );
        let handshakes_failed = Family::default();
        r.register(
            "handshakes_failed",
            "TLS handshakes that failed",
            handshakes_failed.clone(),
        );
        let token_fetches = Family::default();
        r.register(
            "token_fetches",
            "Token requests by identity and outcome",
            token_fetches.clone(),
        );
        let token_expires_in = Family::default();
        r.register(
            "token_expires_in_seconds",
            "Seconds until the current token expires",
            token_expires_in.clone(),
        );
        let token_age = Family::default();
        r.register(
            "token_age_seconds",
            "Seconds since the current token was fetched",
            token_age.clone(),
        );
        let upstream_opened = Counter::default();
        r.register(
            "upstream_opened",
            "Connections opened to triggers",
            upstream_opened.clone(),
        );
        let upstream_reused = Counter::default();
        r.register(
            "upstream_reused",
            "Requests sent over an open connection",
            upstream_reused.clone(),
        );
        let upstream_connections = Gauge::default();
        r.register(
            "upstream_connections",
            "Open connections to triggers",
            upstream_connections.clone(),
        );
        let token_retries = Counter::default();
        r.register(
            "token_retries",
            "Requests sent once more with a fresh token",
            token_retries.clone(),
        );
        let own_time = own_buckets();
        r.register(
            "own_time_seconds",
            "Time spent in the gateway itself",
            own_time.clone(),
        );
        let flow_time: Family<RouteLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(flow_buckets);
        r.register(
            "flow_time_seconds",
            "Time the trigger took to answer",
            flow_time.clone(),
        );
        let limiter_entries = Gauge::default();
        r.register(
            "limiter_entries",
            "Addresses with remembered failures",
            limiter_entries.clone(),
        );
        let held_bytes = Gauge::default();
        r.register(
            "held_body_bytes",
            "Bytes of held bodies in memory",
            held_bytes.clone(),
        );
        let log_dropped = Gauge::default();
        r.register(
            "log_lines_dropped",
            "Log lines dropped under pressure",
            log_dropped.clone(),
        );
        let ready = Gauge::default();
        r.register("ready", "1 while the gateway is ready", ready.clone());
        let certificate_days = Family::default();
        r.register(
            "certificate_days_left",
            "Days until a certificate expires",
            certificate_days.clone(),
        );
        Self {
            registry: Arc::new(registry),
            requests,
            refusals,
            connections,
            connections_accepted,
            handshakes_failed,
            token_fetches,
            token_expires_in,
            token_age,
            upstream_opened,
            upstream_reused,
            upstream_connections,
            token_retries,
            own_time,
            flow_time,
            limiter_entries,
            held_bytes,
            log_dropped,
            ready,
            certificate_days,
        }
    }

    /// Counts one refusal.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// All figures in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string fails only if an encoder does; then the scraper sees a document without its end.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Holds a gauge one higher for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Raises the gauge by one.
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
    use super::Counted;
    use super::Counters;
    use super::OutcomeLabels;

    #[test]
    fn figures_are_scraped_under_our_name() {
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
