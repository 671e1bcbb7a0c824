//! The table of why a connection was turned away or did not end as it should: `reason` of its line and its metric label.

use crate::model::{FailureRow, Page, failures};

/// A row of the table below.
pub(super) type Reason = &'static FailureRow;

failures! {
    /// Every reason of a connection line.
    CONNECTIONS:
    CONNECTIONS_FULL "connections-full" "connections-full" Operator Transient Page::NONE,
        "all connections that the gateway serves at once are taken",
        "The caller can try again soon. If this lasts, raise `connections.max` and the limit of open files, or start \
         another gateway.";
    CONNECTIONS_FULL_ADDRESS "connections-full-address" "connections-full-address" Caller Transient Page::NONE,
        "the address has as many connections as one address may have",
        "The caller must reuse its connections. Behind a load balancer or NAT the operator can add the address to \
         `connections.per_address_exempt`.";
    PLAIN_HTTP_ADDRESS "plain-http-address" "plain-http-address" Operator AfterFix Page::NONE,
        "the listener takes plain HTTP from certain networks only, and the address is in none of them",
        "Add the address of the proxy to the listener, or call the TLS listener.";
    ACCEPT_FAILED "accept-failed" "accept-failed" HostAdmin Transient Page::command("ulimit -n"),
        "the operating system gave no connection",
        "Counted in the metrics and logged as a warning with the error. The gateway tries again; usually the limit of \
         open files is too low.";
    HANDSHAKE_TIMEOUT "handshake-timeout" "handshake-timeout" Caller AfterFix Page::NONE,
        "the peer did not complete the TLS handshake in time",
        "Usual for port scanners and health checks that only connect. A caller must start TLS at once.";
    PEER_GONE "peer-gone" "peer-gone" Caller AfterFix Page::NONE,
        "the peer closed the connection during the handshake",
        "Usual for port scanners and health checks. If a caller reports a TLS error, its own log has the reason.";
    IO "io" "io" HostAdmin Transient Page::NONE,
        "the connection failed during the handshake",
        "The line has the error. Check the network between caller and gateway.";
    NOT_TLS "not-tls" "not-tls" Caller AfterFix Page::NONE,
        "the peer does not speak TLS; it must use https:// for this port",
        "The caller must use https:// for this port.";
    HANDSHAKE_TOO_LONG "handshake-too-long" "handshake-too-long" Caller AfterFix Page::NONE,
        "the peer sent a handshake message longer than 16 KiB, which no TLS library needs",
        "No usual TLS library does this; find out what calls from this address.";
    NO_COMMON_SUITE "no-common-suite" "no-common-suite" Caller AfterFix Page::NONE,
        "the peer offers no cipher suite of today; its TLS library must be renewed",
        "The caller must update its TLS library.";
    OLD_VERSION "old-version" "old-version" Caller AfterFix Page::NONE,
        "the peer offers no TLS version from 1.2 on; its TLS library must be renewed",
        "The caller must update its TLS library or allow TLS 1.2 in it.";
    NO_COMMON_SIGNATURE "no-common-signature" "no-common-signature" Operator AfterFix Page::NONE,
        "the peer cannot check the kind of key this listener's certificate has",
        "Add a certificate with an RSA key to the listener, or have the caller update its TLS library.";
    NO_COMMON_PROTOCOL "no-common-protocol" "no-common-protocol" Caller AfterFix Page::NONE,
        "the peer offers neither h2 nor http/1.1 by ALPN",
        "The caller must offer h2 or http/1.1, or leave ALPN out.";
    CERTIFICATE_DISTRUSTED "certificate-distrusted" "certificate-distrusted" Operator AfterFix
        Page::command("flowgate doctor --config FILE"),
        "the peer does not trust this listener's certificate or its chain is incomplete",
        "Put the intermediate certificates into the chain file, or have the caller trust the issuer.";
    CERTIFICATE_EXPIRED "certificate-expired" "certificate-expired" Operator AfterFix
        Page::command("flowgate doctor --config FILE"),
        "the peer reports that this listener's certificate has expired",
        "Renew the certificate; the gateway follows the file. If it is valid, the caller's clock is wrong.";
    CERTIFICATE_REFUSED "certificate-refused" "certificate-refused" Operator AfterFix
        Page::command("flowgate doctor --config FILE"),
        "the peer refuses this listener's certificate; does it carry the name it called?",
        "Add a certificate for the name that the caller uses.";
    TLS "tls" "tls" Caller AfterFix Page::NONE,
        "TLS failed for another reason",
        "The line has the error of the TLS library.";
    NO_REQUEST "no-request" "no-request" Caller AfterFix Page::NONE,
        "the connection was opened and no request came in time",
        "Usual for health checks that only connect and for browsers that connect ahead.";
    HEAD_TIMEOUT "head-timeout" "head-timeout" Caller AfterFix Page::NONE,
        "the head of a request did not arrive whole in time",
        "The caller must send a head without pauses; `connections.head_timeout` is the limit.";
    WRITE_STALLED "write-stalled" "write-stalled" Caller AfterFix Page::NONE,
        "the caller took nothing of an answer in time",
        "The caller must read its answers; `connections.write_timeout` is the limit. The run of that request may have \
         started.";
    TOO_OLD "too-old" "too-old" Nobody Transient Page::NONE,
        "the connection reached its greatest age and was still in use",
        "Nothing is wrong unless its requests were cut off; then raise `connections.age_max`.";
    HEAD_TOO_LARGE "head-too-large" "head-too-large" Caller AfterFix Page::NONE,
        "a request on HTTP/2 has a head far above the limit",
        "The caller must send fewer or smaller header fields, or the operator must raise `connections.head_size_max`.";
    MALFORMED_HTTP2 "malformed-http2" "malformed-http2" Caller AfterFix Page::NONE,
        "the peer violated HTTP/2",
        "The caller's HTTP library must be corrected or updated; the line has what was wrong.";
    HTTP2_FLOOD "http2-flood" "http2-flood" Caller AfterFix Page::NONE,
        "the peer sent more HTTP/2 frames that ask for nothing than a good caller does",
        "Find out what calls from this address; block it in the network if it goes on.";
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_is_sound_and_counted_by_its_code() {
        for row in super::CONNECTIONS {
            row.assert_sound();
            assert_eq!(row.code, row.label);
        }
    }
}
