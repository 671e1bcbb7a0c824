#!/bin/sh
# Registers a webhook of Dataverse that calls a flow through Flowgate, and an asynchronous step for new accounts. No test
# runs this file: it needs an environment of Dataverse, and a token of someone who may customise it.
#
#   ORG=https://contoso.crm.dynamics.com TOKEN=... KEY=flowgate_... sh dataverse-webhook.sh https://hooks.example.com/accounts
#
# The key is sent in the header field X-API-Key: an ordinary key of a caller, without `[caller.signature]`.
set -eu
: "${ORG:?}" "${TOKEN:?}" "${KEY:?}" "${1:?the address of the route is missing}"

# Sends a request to the Web API with the body from standard input. The token is in no list of processes.
dataverse() {
    printf 'header = "Authorization: Bearer %s"\n' "$TOKEN" >"$folder/token"
    curl --silent --show-error --fail-with-body --config "$folder/token" --header 'Content-Type: application/json' \
        --header 'Prefer: return=representation' --header 'OData-Version: 4.0' "$@"
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 700 "$folder"

# The value of a field of the first row, such as "accountid":"...".
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | head -n 1; }

api=$ORG/api/data/v9.2
# contract 8 is a webhook, authtype 5 a header field.
endpoint=$(dataverse --data-binary @- "$api/serviceendpoints" <<JSON | field serviceendpointid
{"name": "Flowgate accounts", "contract": 8, "connectionmode": 1, "url": "$1", "authtype": 5,
 "authvalue": "<settings><setting name=\"X-API-Key\" value=\"$KEY\" /></settings>"}
JSON
)
message=$(dataverse --get --data-urlencode "\$filter=name eq 'Create'" --data-urlencode '$select=sdkmessageid' "$api/sdkmessages" |
    field sdkmessageid)
filter=$(dataverse --get --data-urlencode "\$filter=primaryobjecttypecode eq 'account' and _sdkmessageid_value eq $message" \
    --data-urlencode '$select=sdkmessagefilterid' "$api/sdkmessagefilters" | field sdkmessagefilterid)
# stage 40 is after the operation, mode 1 asynchronous: users do not wait, and a failure undoes nothing.
dataverse --data-binary @- "$api/sdkmessageprocessingsteps" <<JSON >/dev/null
{"name": "Flowgate: account created", "stage": 40, "mode": 1, "rank": 1, "supporteddeployment": 0, "asyncautodelete": true,
 "sdkmessageid@odata.bind": "/sdkmessages($message)", "sdkmessagefilterid@odata.bind": "/sdkmessagefilters($filter)",
 "eventhandler_serviceendpoint@odata.bind": "/serviceendpoints($endpoint)"}
JSON
echo "registered: service endpoint $endpoint"
