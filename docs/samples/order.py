"""Sends a JSON body to a flow through Flowgate, and repeats it only where no run of the flow can have started.

    FLOWGATE_URL=https://hooks.example.com/orders FLOWGATE_KEY=flowgate_... python3 order.py '{"order": 17}'

It needs nothing but Python 3.8 or later.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

ATTEMPTS = 5
# A flow may take 120 s.
TIMEOUT = 130


def send(url, key, body):
    """The flow's answer. An error other than HTTPError means that no answer arrived: a run may have started, so it is not
    repeated."""
    headers = {"Content-Type": "application/json", "X-API-Key": key}
    request = urllib.request.Request(url, body.encode(), headers)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            problem = read_problem(error)
            if attempt == ATTEMPTS or not problem.get("retryable"):
                request_id = error.headers.get("x-request-id")
                sys.exit(f"not accepted: {error.code} {problem.get('code')}, request {request_id}: {problem.get('title')}")
            time.sleep(problem.get("retry_after", attempt**2))


def read_problem(error):
    """What Flowgate says about an answer of its own; nothing about an answer of the flow."""
    if error.headers.get_content_type() != "application/problem+json":
        return {}
    return json.load(error)


if __name__ == "__main__":
    print(send(os.environ["FLOWGATE_URL"], os.environ["FLOWGATE_KEY"], sys.argv[1]))
