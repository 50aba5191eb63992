"""An application that uWSGI loads in its master, and that uses its store there at once.

`?n` answers how n reads of other visitors' sessions went; and so did one read and one change of
the visitor's own, by whose id the request came.
"""

import itertools
import json
import os

from nocookie import Session, SessionMiddleware, session

OPTIONS = json.loads(os.environ["NOCOOKIE_OPTIONS"])
VISITORS = 40


def make(number):
    """The session of one visitor, in the store that the middleware below has, too."""
    one = Session({}, **OPTIONS)
    one["who"] = number
    one.save()
    return one.id


IDS = [make(number) for number in range(VISITORS)]
_next = itertools.count()


def check(found, number):
    """What is wrong with what was found as the session of visitor *number*, if anything."""
    if found is None or found.is_new:
        return "error: it is gone"
    return None if found["who"] == number else f"foreign: {found['who']}, not {number}"


def respond(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    reads, number = (int(part) for part in environ["QUERY_STRING"].split("-"))
    wrong = [check(session, number)]
    for _ in range(reads):
        other = next(_next) % VISITORS
        try:
            wrong.append(check(session.get_by_id(IDS[other]), other))
        except Exception as error:
            wrong.append(f"error: {error!r}")
    try:
        session.incr("requests")
    except Exception as error:
        wrong.append(f"error: {error!r}")
    answer = {"pid": os.getpid(), "reads": reads, "wrong": list(filter(None, wrong))}
    return [json.dumps(answer).encode()]


def ids(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"ids": IDS, "master": os.getppid()}).encode()]


_inner = SessionMiddleware(respond, use_cookies=False, **OPTIONS)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/ids":
        return ids(environ, start_response)
    return _inner(environ, start_response)
