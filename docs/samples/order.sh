#!/bin/sh
# Sends a JSON body to a flow through Flowgate, and repeats it only where no run of the flow can have started.
#
#   FLOWGATE_URL=https://hooks.example.com/orders FLOWGATE_KEY=flowgate_... sh order.sh '{"order": 17}'
set -eu
: "${FLOWGATE_URL:?}" "${FLOWGATE_KEY:?}" "${1:?the body is missing}"

attempts=5
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

attempt=1
while :; do
    # The key is read from standard input: arguments are in the list of processes. A flow may take 120 s. When no answer
    # arrives, a run may have started: then curl fails and nothing is repeated.
    result=$(printf 'header = "X-API-Key: %s"\n' "$FLOWGATE_KEY" |
        curl --silent --show-error --config - --max-time 130 --output "$answer" --write-out '%{http_code} %{content_type}' \
            --header 'Content-Type: application/json' --data-binary "$1" "$FLOWGATE_URL")
    case $result in
        2*)
            cat "$answer"
            exit 0
            ;;
        *application/problem+json*) ;; # Flowgate says below whether to repeat it.
        *) attempts=0 ;;               # The flow's own answer.
    esac
    if [ "$attempt" -ge "$attempts" ] || ! grep -q '"retryable":true' "$answer"; then
        echo "not accepted: $result" >&2
        cat "$answer" >&2
        exit 1
    fi
    wait=$(sed -n 's/.*"retry_after":\([0-9]*\).*/\1/p' "$answer")
    sleep "${wait:-$((attempt * attempt))}"
    attempt=$((attempt + 1))
done
