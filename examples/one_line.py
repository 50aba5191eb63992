"""The one-line way: wrap any WSGI application, and it has sessions without cookies.

    python examples/one_line.py
    curl -i http://127.0.0.1:8000/                                # answers X-Session-Id: ...
    curl -i -H 'X-Session-Id: ...' http://127.0.0.1:8000/         # visit 2

Without further options the id travels in the header X-Session-Id, and sessions lie in memory.
"""

import os
from wsgiref.simple_server import make_server

from nocookie import SessionMiddleware, session


def count(environ, start_response):
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"visit %d\n" % session["visits"]]


application = SessionMiddleware(count, use_cookies=False)  # the one line


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
