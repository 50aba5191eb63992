"""What somebody writes first: a count in a memory store. The log goes where the server's goes."""

import logging
import os

from nocookie import SessionMiddleware, session

logging.basicConfig(format="%(message)s")


def count(environ, start_response):
    session["n"] = session.get("n", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    return [b"%d" % session["n"]]


application = SessionMiddleware(count, use_cookies=False)
