"""A response that is made while it is sent, and what the session can still do meanwhile.

    python examples/streaming.py
    curl -iN http://127.0.0.1:8000/export                              # answers X-Session-Id: ...
    curl -N -H 'X-Session-Id: ...' http://127.0.0.1:8000/export        # break this one off: ^C
    curl -N -H 'X-Session-Id: ...' http://127.0.0.1:8000/

The head of a response leaves before its first chunk, and the id is in the head. So whatever makes
an id (a new session, `regenerate_id()`) has to be saved before. A session that exists can be saved
later as well: that is written when the server closes the body.
"""

import logging
import os
import time
from wsgiref.simple_server import make_server

from nocookie import SessionMiddleware, session

ROWS = 5
PAUSE = float(os.environ.get("PAUSE", "0.5"))


def pages(environ, start_response):
    page = PAGES.get(environ["PATH_INFO"])
    status = "404 Not Found" if page is None else "200 OK"
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return page() if page else []


def export():
    # Here nothing has left yet: read, change, save. If this save fails, the answer is a 503.
    session["begun"] = session.get("begun", 0) + 1
    session.save()
    return rows(session["begun"])


def rows(number):
    # A generator runs when its first chunk is asked for. `pages` has returned by then, and the
    # head, with the id, is on its way.
    yield f"export {number}\n".encode()
    for row in range(1, ROWS + 1):
        time.sleep(PAUSE)
        yield f"row {row}\n".encode()
    # A change of a session that exists may come as late as this. It is a difference like any
    # other: it undoes nothing that other requests have saved during a long export. A client that
    # goes away early does not get here.
    session["finished"] = session.get("finished", 0) + 1
    session.save()


def overview():
    text = f"begun {session.get('begun', 0)}, finished {session.get('finished', 0)}\n"
    return [text.encode()]


def too_late():
    """What cannot be done: the client has read the head, and there was no id in it."""
    yield b"a first chunk\n"
    if session.is_new:
        session["colour"] = "green"
        session.save()  # lost, and said so in the log
    else:
        session.regenerate_id()  # lost too: the old id stays good
    yield b"too late for a new session, and for a new id\n"


PAGES = {"/": overview, "/export": export, "/too-late": too_late}

application = SessionMiddleware(pages, use_cookies=False)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)  # shows the event `lost`
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
