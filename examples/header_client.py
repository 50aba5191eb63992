"""A client that keeps its session by the header X-Session-Id, with requests.

    python examples/header_api.py                               # in another terminal
    python examples/header_client.py [http://127.0.0.1:8000]

`client()` returns a requests.Session that remembers the id of each origin (scheme, host and
port), takes over a new one whenever the server gives it one, and never sends an id to an origin
that did not give it: not on a redirect either, where requests would copy the header along.
"""

import sys
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

HEADER = "X-Session-Id"
PORTS = {"http": 80, "https": 443}


class SessionIdAdapter(HTTPAdapter):
    """Puts the id on every request, and reads it from every response.

    This is the place where requests sends each single request, a redirected one among them, so
    there is no way round it.
    """

    def __init__(self):
        super().__init__()
        self.ids = {}

    def send(self, request, *args, **options):
        origin = origin_of(request.url)
        request.headers.pop(HEADER, None)  # what a redirect copied from another origin
        if origin in self.ids:
            request.headers[HEADER] = self.ids[origin]
        response = super().send(request, *args, **options)
        if HEADER in response.headers:
            self.ids[origin] = response.headers[HEADER]
        return response


def origin_of(url):
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)


def client():
    made = requests.Session()
    adapter = SessionIdAdapter()
    made.mount("http://", adapter)
    made.mount("https://", adapter)
    return made


def main(base="http://127.0.0.1:8000"):
    base = base.rstrip("/")
    with client() as api:
        for method, path, body in (
            ("POST", "/login", {"user": "ada"}),
            ("POST", "/items", {"item": "milk"}),
            ("POST", "/items", {"item": "bread"}),
            ("GET", "/items", None),
            ("POST", "/logout", None),
            ("GET", "/items", None),
        ):
            response = api.request(method, base + path, json=body, timeout=10)
            response.raise_for_status()
            print(method, path, response.json())


if __name__ == "__main__":
    main(*sys.argv[1:2])
