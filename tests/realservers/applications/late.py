"""An application that changes its session while its body is sent.

/      begins a session
/late  saves after the first chunk
/show  what is in the session, and how many saves that took
"""

import json

from nocookie import SessionMiddleware, session
from nocookie.stores.memory import MemoryStore


class Store(MemoryStore):
    saves = 0

    def save(self, *args, **options):
        Store.saves += 1
        super().save(*args, **options)


def choose(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/":
        session["late"] = 0
        session.save()
    body = json.dumps({**session, "saves": Store.saves}).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return late() if path == "/late" else [body]


def late():
    yield b"one "
    session["late"] += 1
    session.save()
    yield b"two"


application = SessionMiddleware(choose, use_cookies=False, type=Store())
