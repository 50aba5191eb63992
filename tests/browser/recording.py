"""What a server was sent, all of it; and whether ids are in it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from nocookie.ids import GRAMMAR

#: What an id looks like, whoever's it is.
find_ids = re.compile(rf"(?<![A-Za-z0-9_-]){GRAMMAR}(?![A-Za-z0-9_-])").findall


class Request(NamedTuple):
    method: str
    #: From the path on, as it was sent but for percents.
    address: str
    headers: dict[str, str]
    body: str

    @property
    def ids(self) -> list[str]:
        return find_ids("\n".join([self.address, *self.headers.values(), self.body]))


class Recorder:
    """Notes every request, then lets *application* answer it."""

    def __init__(self, application) -> None:  # type: ignore[no-untyped-def]
        self.application = application
        self.requests: list[Request] = []

    def __call__(self, environ, start_response):  # type: ignore[no-untyped-def]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        query = environ.get("QUERY_STRING")
        address = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        address += f"?{query}" if query else ""
        headers = {name: value for name, value in environ.items() if name.startswith("HTTP_")}
        request = Request(environ["REQUEST_METHOD"], address, headers, body.decode("latin-1"))
        self.requests.append(request)
        return self.application(environ, start_response)

    @property
    def addresses(self) -> list[str]:
        return [request.address for request in self.requests]

    def with_an_id(self, *known: str) -> Iterator[Request]:
        """Yield the requests that hold any of these ids, or what looks like one."""
        for request in self.requests:
            if request.ids or any(id in repr(request) for id in known):
                yield request


def partner(environ, start_response):  # type: ignore[no-untyped-def]
    """The other site. It embeds the shop, too, if it is told where that is: `/embeds?<url>`."""
    path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    if path.endswith(".svg"):
        start_response("200 OK", [("Content-Type", "image/svg+xml")])
        return [IMAGE.encode()]
    frame = ""
    if path == "/embeds":
        frame = f'<iframe src="{query}" title="The shop" width="100%" height="320"></iframe>'
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [f"{PAGE}{frame}".encode()]


PAGE = """<!doctype html><html lang="en"><title>The partner</title>
<body style="font: 16px/1.6 sans-serif; max-width: 40em; margin: 1em auto; background: #eef3fb">
<h1 id="partner">The partner's page</h1>"""
IMAGE = """<svg xmlns="http://www.w3.org/2000/svg" width="320" height="40">
<rect width="320" height="40" fill="#cfe0fc"/><text x="12" y="26" font-family="sans-serif">
The partner's banner</text></svg>"""
