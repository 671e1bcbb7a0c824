"""Sends the requests of a plan with one of Python's HTTP clients, and prints the results.

Usage: client.py LIBRARY BASE CA_FILE TRIES, with the plan on standard input: one line per kind of request,
"PATH KEY BYTES". Prints one line per request, "STATUS PROBLEM_STATUS", or "- ERROR".
"""

import asyncio
import json
import ssl
import sys

library, base, ca_file, tries = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
plan = [line.split() for line in sys.stdin.read().splitlines()]
TIMEOUT = 60


def report(send):
    for path, key, size in plan:
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        for _ in range(tries):
            try:
                status, body = send(base + path, headers, b"x" * int(size))
                print(status, json.loads(body)["status"], flush=True)
            except Exception as error:
                print("-", repr(error).replace("\n", " "), flush=True)


def with_requests():
    import requests

    session = requests.Session()
    session.verify = ca_file
    session.trust_env = False

    def send(url, headers, body):
        answer = session.post(url, data=body, headers=headers, timeout=TIMEOUT)
        return answer.status_code, answer.text

    report(send)


def with_urllib():
    import urllib.error
    import urllib.request

    context = ssl.create_default_context(cafile=ca_file)

    def send(url, headers, body):
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT, context=context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read()

    report(send)


def with_urllib3():
    import urllib3

    pool = urllib3.PoolManager(ca_certs=ca_file)

    def send(url, headers, body):
        answer = pool.request("POST", url, body=body, headers=headers, timeout=TIMEOUT)
        return answer.status, answer.data

    report(send)


def with_httpx(http2):
    import httpx

    context = ssl.create_default_context(cafile=ca_file)
    with httpx.Client(http1=not http2, http2=http2, verify=context, trust_env=False, timeout=TIMEOUT) as client:

        def send(url, headers, body):
            answer = client.post(url, content=body, headers=headers)
            assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
            return answer.status_code, answer.text

        report(send)


def with_aiohttp():
    import aiohttp

    context = ssl.create_default_context(cafile=ca_file)
    loop = asyncio.new_event_loop()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)

    async def open_session():
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=timeout)

    session = loop.run_until_complete(open_session())

    async def post(url, headers, body):
        async with session.post(url, data=body, headers=headers) as answer:
            return answer.status, await answer.text()

    report(lambda url, headers, body: loop.run_until_complete(post(url, headers, body)))
    loop.run_until_complete(session.close())


{
    "requests": with_requests,
    "urllib": with_urllib,
    "urllib3": with_urllib3,
    "httpx-h1": lambda: with_httpx(False),
    "httpx-h2": lambda: with_httpx(True),
    "aiohttp": with_aiohttp,
}[library]()
