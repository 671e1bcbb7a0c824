#!/usr/bin/env bash
# Sends the requests of a plan with curl, and prints the results; arguments, plan and output are those of
# client.py, with --http1.1 or --http2 for the library.
set -uo pipefail
version=$1 base=$2 ca_file=$3 tries=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# All tries of a line over the connection of the first, as far as the gateway keeps it open.
while read -r path key bytes; do
    head -c "$bytes" /dev/zero | tr '\0' x >"$folder/body"
    rm -f "$folder"/answer*
    urls=()
    for ((count = 0; count < tries; count++)); do
        urls+=(--output "$folder/answer$count" "$base$path")
    done
    number=0
    while read -r ended status error; do
        problem=$(grep -so '"status":[0-9]*' "$folder/answer$number" | cut -d: -f2)
        if [ "$ended" = 0 ]; then
            echo "$status $problem"
        else
            echo "- curl ended with $ended: $error"
        fi
        number=$((number + 1))
    done < <(curl "$version" --silent --max-time 60 --noproxy '*' --cacert "$ca_file" \
        --header "X-API-Key: $key" --header "Content-Type: application/json" --data-binary "@$folder/body" \
        --write-out '%{exitcode} %{http_code} %{errormsg}\n' "${urls[@]}")
done
