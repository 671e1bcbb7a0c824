"""Asks the libraries of vendors whether they accept requests that were signed for them: reads a file with a list of requests
in JSON and prints `accepted` or `refused` for each."""

import json
import sys
import urllib.parse

import gidgethub.sansio
import standardwebhooks
import stripe
import svix.webhooks
from slack_sdk.signature import SignatureVerifier
from square.utils.webhooks_helper import verify_signature
from twilio.request_validator import RequestValidator


def github(r):
    gidgethub.sansio.validate_event(
        r["body"].encode(), signature=r["headers"]["x-hub-signature-256"], secret=r["secret"]
    )


def slack(r):
    headers = r["headers"]
    return SignatureVerifier(r["secret"]).is_valid(
        r["body"], headers["x-slack-request-timestamp"], headers["x-slack-signature"]
    )


def twilio(r, algorithm="HMAC_SHA1"):
    parameters = r["body"]
    if "bodySHA256" not in r["url"]:
        parameters = dict(urllib.parse.parse_qsl(r["body"], keep_blank_values=True))
    return RequestValidator(r["secret"]).validate(
        r["url"], parameters, r["headers"]["x-twilio-signature"], algorithm
    )


def square(r):
    return verify_signature(
        request_body=r["body"],
        signature_header=r["headers"]["x-square-hmacsha256-signature"],
        signature_key=r["secret"],
        notification_url=r["url"],
    )


VERIFIERS = {
    "github": github,
    "slack": slack,
    "square": square,
    "standard-webhooks": lambda r: standardwebhooks.Webhook(r["secret"]).verify(r["body"], r["headers"]),
    "stripe": lambda r: stripe.WebhookSignature.verify_header(
        r["body"], r["headers"]["stripe-signature"], r["secret"], 300
    ),
    "svix": lambda r: svix.webhooks.Webhook(r["secret"]).verify(r["body"], r["headers"]),
    "twilio": twilio,
    "twilio-sha256": lambda r: twilio(r, "HMAC_SHA256"),
}

REFUSALS = (
    gidgethub.ValidationFailure,
    standardwebhooks.WebhookVerificationError,
    stripe.SignatureVerificationError,
    svix.webhooks.WebhookVerificationError,
)

with open(sys.argv[1]) as file:
    for request in json.load(file):
        try:
            # Those that raise an error return the content or nothing.
            is_accepted = VERIFIERS[request["preset"]](request) is not False
        except REFUSALS:
            is_accepted = False
        print("accepted" if is_accepted else "refused")
