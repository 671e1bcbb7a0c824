"""Requests a token with MSAL for Python, as an application with a certificate does, and prints the answer."""

import os
import sys

import msal

AUTHORITY, CLIENT_ID, SCOPE, CERTIFICATE, KEY, CA = sys.argv[1:7]
# A CA bundle named in the environment would override `verify`.
os.environ["REQUESTS_CA_BUNDLE"] = CA
with open(KEY) as key, open(CERTIFICATE) as certificate:
    credential = {"private_key": key.read(), "public_certificate": certificate.read()}
application = msal.ConfidentialClientApplication(
    CLIENT_ID,
    authority=AUTHORITY,
    client_credential=credential,
    instance_discovery=False,
    verify=CA,
)
answer = application.acquire_token_for_client(scopes=[SCOPE])
print(answer.get("access_token") or answer, flush=True)
