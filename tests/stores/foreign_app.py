"""An application that uWSGI loads in its master, and that uses its store there at once.

A visitor comes with the id of his session, and `?n` is his number. The answer says how it went to
read his session, to change it, and to read those of others.
"""

import itertools
import json
import os
import time

from nocookie import Session, SessionMiddleware, session

OPTIONS = json.loads(os.environ["NOCOOKIE_OPTIONS"])
VISITORS = 40
#: How many sessions a worker reads for one request, and in all: then it leaves the work to others.
AT_ONCE = 50
READS = 1000


def make(number):
    """The session of one visitor, in the store that the middleware below has, too."""
    one = Session({}, **OPTIONS)
    one["who"] = number
    one.save()
    return one.id


IDS = [make(number) for number in range(VISITORS)]
done = itertools.count()


def wrong_with(found, number):
    """What is wrong with what was found as the session of visitor *number*, if anything."""
    if found is None or found.is_new:
        return "error: it is gone"
    return None if found["who"] == number else f"foreign: {found['who']}, not {number}"


def respond(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    number = int(environ["QUERY_STRING"])
    wrong = [wrong_with(session, number)]
    reads = 1
    try:
        session.incr("requests")
        while reads < AT_ONCE and (other := next(done)) < READS:
            other = (other + number) % VISITORS
            wrong.append(wrong_with(session.get_by_id(IDS[other]), other))
            reads += 1
    except Exception as error:
        wrong.append(f"error: {error!r}")
    if reads < AT_ONCE:
        time.sleep(0.02)
    answer = {"pid": os.getpid(), "reads": reads, "wrong": list(filter(None, wrong))}
    return [json.dumps(answer).encode()]


_within = SessionMiddleware(respond, use_cookies=False, **OPTIONS)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/ids":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(IDS).encode()]
    return _within(environ, start_response)
