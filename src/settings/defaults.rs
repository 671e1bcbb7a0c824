//! What holds where the settings say nothing, each with its reason.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Running requests get this long when the gateway stops: orchestrators kill a process 30 s after asking it
/// to end.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Open connections: at some 20 kB each, 200 MB.
pub(super) const CONNECTIONS_MAX: u64 = 10_000;
/// A tenth of all: a vendor behind one address keeps hundreds open, and no ten addresses fill the gateway.
pub(super) const PER_ADDRESS_MAX: u64 = 1000;
/// A handshake takes two round trips; this leaves room for lost packets.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request head fits in a few packets.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Twice the longest trigger address, so that a long query and its header fields fit.
pub(super) const HEAD_SIZE_MAX: u64 = 32 * 1024;
/// What the HTTP library reads without asking for memory.
pub(super) const HEADERS_MAX: u64 = 100;
pub(super) const TARGET_SIZE_MAX: u64 = 16_384;
/// Longer than the 60 s after which load balancers usually drop an idle connection, so that they do it first.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Long enough for a network that is gone for a moment, short enough not to hold a trigger's permit for nobody.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Old connections end once an hour, so that callers notice moved addresses and new certificates.
pub(super) const AGE_MAX: Duration = Duration::from_secs(3600);
/// The number RFC 9113 section 6.5.2 asks for at least.
pub(super) const HTTP2_STREAMS_MAX: u64 = 100;
/// Envoy's advice for edge proxies; nearly every webhook body fits.
pub(super) const HTTP2_STREAM_WINDOW: u64 = 64 * 1024;
/// Envoy's advice for edge proxies: what one connection may make us hold.
pub(super) const HTTP2_CONNECTION_WINDOW: u64 = 1024 * 1024;
/// Time for a held body, and between two pieces of a streamed one.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Kestrel's (Microsoft Learn, "Configure options for the ASP.NET Core Kestrel web server", minimum request body data
/// rate): below any line that a caller of today has.
pub(super) const BODY_RATE_MIN: u64 = 240;
/// Kestrel's, from the same page: TCP needs some of it to get going.
pub(super) const BODY_RATE_GRACE: Duration = Duration::from_secs(5);
/// A poor mobile line has more, and a body of 1 MiB is then whole within 69 s.
pub(super) const BODY_STREAM_RATE_MIN: u64 = 16 * 1024;
/// Nearly every webhook body is smaller.
pub(super) const HOLD_SIZE_MAX: u64 = 64 * 1024;
/// A thousand held bodies of the largest size.
pub(super) const HELD_BUDGET: u64 = 64 * 1024 * 1024;
/// Requests of all callers in [`GATEWAY_PER`].
pub(super) const GATEWAY_REQUESTS: u64 = 1000;
/// The window of [`GATEWAY_REQUESTS`].
pub(super) const GATEWAY_PER: Duration = Duration::from_secs(1);
/// Requests of all callers at once.
pub(super) const GATEWAY_BURST: u64 = 2000;
/// A person who mistypes a key needs a few tries, a guesser needs millions.
pub(super) const FAILURES: u64 = 10;
/// The window of [`FAILURES`].
pub(super) const FAILURES_PER: Duration = Duration::from_secs(60);
/// Addresses remembered one by one, at some 100 bytes each.
pub(super) const ADDRESSES_MAX: u64 = 65_536;
/// The flow platform takes 45,000 requests in 5 minutes for one trigger.
pub(super) const RATE_REQUESTS: u64 = 150;
/// The window of [`RATE_REQUESTS`].
pub(super) const RATE_PER: Duration = Duration::from_secs(1);
/// Two seconds' worth at once.
pub(super) const RATE_BURST: u64 = 300;
/// Half of [`RATE_REQUESTS`], so that no caller alone uses up the rate of a route.
pub(super) const CALLER_RATE_REQUESTS: u64 = RATE_REQUESTS / 2;
/// Half of [`RATE_BURST`].
pub(super) const CALLER_RATE_BURST: u64 = RATE_BURST / 2;
/// Loopback: health and metrics are nobody else's business until somebody says so.
pub(super) const ADMIN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// Entra answers within a second; the rest is for lost packets.
pub(super) const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Entra's tokens live 60 to 90 minutes; this stays below.
pub(super) const TOKEN_LIFE: Duration = Duration::from_secs(50 * 60);
/// Enough for a webhook; larger bodies must be asked for.
pub(super) const BODY_SIZE_MAX: u64 = 1024 * 1024;
/// The largest body a trigger accepts (Microsoft Learn, "Limits of automated, scheduled, and instant flows").
pub(super) const BODY_SIZE_CEILING: u64 = 104_857_600;
/// What a trigger answers at one time before waiting grows.
pub(super) const IN_FLIGHT_MAX: u64 = 100;
/// Two rounds of [`IN_FLIGHT_MAX`].
pub(super) const WAITING_MAX: u64 = 200;
/// Longer waits make callers give up and send again.
pub(super) const WAITING_TIMEOUT: Duration = Duration::from_secs(5);
/// Name look-up, TCP and TLS to the flow platform.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A rotated secret is known within the hour; one that Entra refuses is read again at once in any case.
pub(super) const KEYVAULT_PERIOD: Duration = Duration::from_secs(3600);
/// A vault answers within a second; the rest is for lost packets.
pub(super) const KEYVAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// A flow must answer within 120 s; its own time-out answer should arrive before ours.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(125);
/// Shorter than the platform's own idle limit, so that a request rarely meets a closing connection.
pub(super) const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
