#!/usr/bin/env bash
# Sends the requests of a plan with curl, and prints the results; arguments, plan and output are those of
# client.py, with --http1.1 or --http2 for the library.
set -uo pipefail
version=$1 base=$2 ca_file=$3 tries=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

while read -r path key bytes; do
    head -c "$bytes" /dev/zero | tr '\0' x >"$folder/body"
    for ((count = 0; count < tries; count++)); do
        : >"$folder/answer"
        status=$(curl "$version" --silent --show-error --max-time 60 --noproxy '*' --cacert "$ca_file" \
            --header "X-API-Key: $key" --header "Content-Type: application/json" --data-binary "@$folder/body" \
            --output "$folder/answer" --write-out '%{http_code}' "$base$path" 2>"$folder/error")
        ended=$?
        problem=$(grep -o '"status":[0-9]*' "$folder/answer" | cut -d: -f2)
        if [ "$ended" -eq 0 ]; then
            echo "$status $problem"
        else
            echo "- curl ended with $ended: $(tr '\n' ' ' <"$folder/error")"
        fi
    done
done
