//! `[connections]`: limits and deadlines of connections.

use std::time::Duration;

use crate::model::Network;
use crate::settings::kinds::ANY;
use crate::settings::scalars::{DAY, HOUR, MILLISECOND, SECOND, Size, secs};
use crate::settings::table::table;

/// Most header fields that can be allowed: a field costs memory beyond its bytes.
const HEADERS_CEILING: usize = 300;
/// A window begins with nearly so many bytes whatever is set (RFC 9113 section 6.9.2).
const WINDOW_MIN: Size = Size::kib(64);
/// Larger ones only cost memory: the flow platform is far, but its callers send little.
const WINDOW_MAX: Size = Size::kib(16 * 1024);
/// The most a trigger accepts.
const TARGET_SIZE_MAX: Size = Size::kib(16);

table! {
    /// Limits and deadlines of connections.
    pub struct ConnectionSettings {
        // At some 20 kB each, 200 MB.
        /// Open connections on all listeners together.
        max: usize = 10_000, 1..=10_000_000, Restart;
        // A tenth of all: a vendor behind one address keeps hundreds open, and no ten addresses fill the gateway.
        /// Open connections of one address (IPv6: of one /64).
        per_address_max: usize = 1000, 1..=10_000_000, Restart;
        /// Networks whose peers may open more than that: your own load balancers and gateways; default: none.
        per_address_exempt: Vec<Network> = Vec::new(), ANY, Restart;
        // A handshake takes two round trips; this leaves room for lost packets.
        /// Time for the TLS handshake.
        handshake_timeout: Duration = secs(10), MILLISECOND..=HOUR, Reload;
        // A request head fits in a few packets.
        /// Time from the first byte of a request head to its end.
        head_timeout: Duration = secs(10), MILLISECOND..=HOUR, Reload;
        // Twice the longest trigger address, so that a long query and its header fields fit.
        /// Largest request head.
        head_size_max: Size = Size::kib(32), Size::kib(8)..=Size::kib(1024), Reload;
        // What the HTTP library reads without asking for memory.
        /// Most header fields in a request.
        headers_max: usize = 100, 1..=HEADERS_CEILING, Reload;
        /// Longest request target, path and query together; a trigger accepts no more than 16 KiB.
        target_size_max: Size = TARGET_SIZE_MAX, Size::new(256)..=TARGET_SIZE_MAX, Reload;
        // Longer than the 60 s after which load balancers usually drop an idle connection, so that they do it first.
        /// Time a connection may stay open without a request.
        idle_timeout: Duration = secs(75), MILLISECOND..=DAY, Reload;
        // Long enough for a network that is gone for a moment, short enough not to hold a trigger's permit for nobody.
        /// Time in which a caller must take some of the answer that waits for it.
        write_timeout: Duration = secs(30), MILLISECOND..=HOUR, Reload;
        // Callers notice moved addresses and new certificates within the hour.
        /// Age at which a connection is closed after the request it is serving.
        age_max: Duration = HOUR, SECOND..=secs(30 * 86_400), Reload;
        // The number RFC 9113 section 6.5.2 asks for at least.
        /// Concurrent streams of one HTTP/2 connection.
        http2_streams_max: u32 = 100, 1..=10_000, Reload;
        // Envoy's advice for edge proxies; nearly every webhook body fits.
        /// Bytes a caller may send on one HTTP/2 stream before they are asked for.
        http2_stream_window: Size = WINDOW_MIN, WINDOW_MIN..=WINDOW_MAX, Reload;
        // Envoy's advice for edge proxies: what one connection may make us hold.
        /// The same for all streams of a connection together.
        http2_connection_window: Size = Size::kib(1024), WINDOW_MIN..=WINDOW_MAX, Reload;
    }
}
