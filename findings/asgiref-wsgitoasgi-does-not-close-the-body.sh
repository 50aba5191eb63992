#!/usr/bin/env bash
# asgiref 3.13.0's WsgiToAsgi never calls close() on what a WSGI application returns, though PEP 3333
# asks for it ("must"), neither for a list-like body nor for one that streams. What an application
# frees or writes there never happens. a2wsgi 1.10.10 calls it once.
# Seen:
#   asgiref: closed 0 times
#   a2wsgi:  closed 1 times
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet asgiref==3.13.0 a2wsgi==1.10.10
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio

from a2wsgi import WSGIMiddleware
from asgiref.wsgi import WsgiToAsgi


class Body:
    def __init__(self, closed):
        self.closed = closed
        self.chunks = iter([b"one", b"two"])

    def __iter__(self):
        return self.chunks

    def close(self):
        self.closed.append(True)


def times_closed(adapter):
    closed = []

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Body(closed)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("localhost", 80),
    }
    sent = []
    asked = False

    async def receive():
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    asyncio.run(asyncio.wait_for(adapter(application)(scope, receive, send), 30))
    assert b"".join(m.get("body", b"") for m in sent) == b"onetwo", sent
    return len(closed)


asgiref, a2wsgi = times_closed(WsgiToAsgi), times_closed(WSGIMiddleware)
print("asgiref: closed", asgiref, "times")
print("a2wsgi:  closed", a2wsgi, "times")
assert (asgiref, a2wsgi) == (0, 1)
PYTHON
