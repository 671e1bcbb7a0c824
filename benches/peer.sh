#!/usr/bin/env bash
# Runs Flowgate for the comparison with other proxies in one job: TLS in, network list, key table, rate limit, token, TLS out.
#   peer.sh config    writes settings for the job under $BENCH_RUN; the harness sets the BENCH_* variables
#   peer.sh serve     runs the gateway with them, in the foreground
# FLOWGATE_BIN names the binary; it should come from `packaging/build`, or `cargo build --profile dist` on other systems than Linux.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${FLOWGATE_BIN:-$here/target/dist/flowgate}
settings=$BENCH_RUN/flowgate.toml
case ${1:-} in
config)
    "$bin" key hash --label k <"$BENCH_KEYS" >"$BENCH_RUN/keys"
    # The limits are evaluated but never reached, as the job requires.
    rate='{ requests = 1000000, per = "1s", burst = 1000000 }'
    cat >"$settings" <<TOML
[gateway]
workers = $BENCH_WORKERS
[connections]
max = 100000
per_address_max = 100000
idle_timeout = "10m"
[limits]
gateway = $rate
failed_authentications = $rate
[admin]
off = true
[log]
access = ${FLOWGATE_ACCESS:-false}
level = "warn"
[[listener]]
address = "127.0.0.1:$BENCH_PORT"
[[listener.certificate]]
chain = "$BENCH_CERT"
key = "file:$BENCH_KEY"
[[identity]]
name = "bench"
token_file = "$BENCH_TOKEN"
token_life = "24h"
[[caller]]
name = "bench"
keys_file = "$BENCH_RUN/keys"
rate = $rate
[[route]]
name = "bench"
path = "/{*rest}"
relative_path = true
methods = ["GET", "POST"]
callers = ["bench"]
key_from = ["header:x-api-key"]
networks_file = "$BENCH_CIDRS"
identity = "bench"
trigger = "https://$BENCH_UPSTREAM_NAME/"
connect_to = "127.0.0.1:$BENCH_UPSTREAM_PORT"
ca_file = "$BENCH_CA"
rate = $rate
body_size_max = 104857600
in_flight_max = 100000
TOML
    ;;
serve) exec "$bin" serve --config "$settings" ;;
*) echo "usage: peer.sh config|serve, with the harness' variables in the environment" >&2; exit 2 ;;
esac
