"""No exception from a client: every pair of options, with every carrier, under odd requests.

The options are those of the table and the carriers those of `nocookie.carriers`. One that has no
values to try in VALUES or CARRIERS fails here.
"""

import itertools
import logging
import math
import os
import random
import re
import socket
import tempfile
import threading
import time
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import pytest
from helpers import CountingStore, serve
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

import nocookie
from nocookie import (
    ConfigError,
    SessionMiddleware,
    StoreError,
    TooManyTries,
    carriers,
    forms,
    session,
)
from nocookie.errors import NocookieError, Refusal, SessionConflict, ValueRefused
from nocookie.events import EVENTS
from nocookie.ids import SignedIds
from nocookie.options import OPTIONS
from nocookie.processes import Serving
from nocookie.stores import redis_scripts
from nocookie.stores.base import Delta, Record
from nocookie.stores.file import FileStore
from nocookie.stores.memory import MemoryStore
from nocookie.testing import FakeClock

SECRET = "a secret of more than enough characters: 7hJk2pQ9"
OLD_SECRET = "another of more than enough characters: Zx81vbnQ"
NOWHERE = "127.0.0.1:1"


def by_hand(request):
    """A finder of an application."""
    return request.headers.get("X-Session-Id")


def odd_finder(request):
    """One that returns what it should not, and fails."""
    if request.method == "POST":
        return 7
    if request.method == "OPTIONS":
        raise ZeroDivisionError
    return None


def tells(event):
    """A listener that does nothing."""


def broken(event):
    raise ValueError("a listener that fails")


#: By option: what to try, each with the options that it needs beside it.
VALUES = {
    "use_cookies": [(True, {}), (False, {})],
    "find_id": [],  # the carriers: see below
    "id_header": [("X-Session-Id", {}), ("X-Other", {}), (None, {})],
    "rewrite": [("off", {}), ("location", {}), ("html", {})],
    "origin": [("https://shop.example", {}), ("http://localhost:8080/below", {})],
    "leak_guard": [("off", {}), ("log", {}), ("raise", {})],
    "type": [
        ("memory", {}),
        ("file", {"data_dir": "TMP"}),
        ("sqlalchemy", {"url": None, "create_table": True, "engine": "ENGINE"}),
        ("redis", {"url": f"redis://{NOWHERE}", "engine": None}),
        ("memcached", {"url": NOWHERE, "engine": None}),
        ("cookie", {"secret": SECRET}),
        (MemoryStore(), {}),
    ],
    "url": [
        (f"redis://{NOWHERE}", {"type": "redis"}),
        (f"redis+cluster://:word@{NOWHERE}", {"type": "redis"}),
        (NOWHERE, {"type": "memcached"}),
        ("sqlite://", {"type": "sqlalchemy", "create_table": True}),
    ],
    "engine": [("ENGINE", {"type": "sqlalchemy", "url": None, "create_table": True})],
    "table_name": [("other_sessions", {})],
    "schema_name": [("main", {})],
    "create_table": [(True, {}), (False, {})],
    "key_prefix": [("shop:", {})],
    "data_dir": [("TMP", {})],
    "durability": [("normal", {}), ("full", {})],
    "max_sessions": [(1, {}), (100, {})],
    "deadline": [(0.05, {}), (86400, {})],
    "timeout": [(1e-6, {}), (1800, {}), (None, {}), ("1e9", {})],
    "lifetime": [(1e-6, {}), (43200, {}), (None, {}), ("1e9", {})],
    "rotate_every": [(1e-6, {"rotation_grace": 1e-6}), (600, {}), (None, {})],
    "rotation_grace": [(1e-3, {}), (1e9, {"rotate_every": 1e9})],
    "request_limit": [(1e-3, {}), (3600, {}), ("1e9", {})],
    "auto": [(True, {}), (False, {})],
    "secret": [(SECRET, {}), ([SECRET, OLD_SECRET], {}), (None, {})],
    "encrypt_key": [(OLD_SECRET, {"secret": SECRET}), (None, {})],
    "data_serializer": [("json", {}), ("pickle", {"secret": SECRET})],
    "values": [("base", {"data_serializer": "json"})],
    "max_value_size": [(1, {}), (10_000, {})],
    "max_size": [(1, {}), (10_000, {})],
    "max_keys": [(1, {}), (10, {})],
    "on_unknown": [("new", {}), ("error", {})],
    "require_https": [(True, {}), (False, {})],
    "trusted_proxies": [("10.0.0.0/8, ::1", {}), ("", {})],
    "watch_client": [(True, {}), (False, {})],
    "on_event": [(tells, {}), (broken, {}), ([tells, broken], {})],
    "strict": [(True, {}), (False, {"id_key": OLD_SECRET})],
    "id_key": [(OLD_SECRET, {}), (None, {})],
    "key": [("sid", {}), ("__Host-sid", {"secure": True})],
    "cookie_path": [("/shop", {})],
    "cookie_domain": [("shop.example", {})],
    "cookie_expires": [
        (True, {}),
        (False, {}),
        (300, {}),
        ("1e9", {}),
        (timedelta(days=1), {}),
    ],
    "secure": [(True, {}), (False, {})],
    "httponly": [(True, {}), (False, {})],
    "samesite": [("Lax", {}), ("Strict", {}), ("None", {"secure": True}), (None, {})],
    "partitioned": [(True, {"secure": True}), (False, {})],
    "beaker_ids_until": [("2099-12-31", {}), ("2001-01-01", {}), (None, {})],
    "beaker_secret": [("Beaker's own", {"beaker_ids_until": "2099-12-31"})],
    "clock": [("CLOCK", {}), ("BACKWARDS", {})],
}

#: By carrier: what `find_id` is to be.
CARRIERS = {
    "Header": lambda: nocookie.Header(),
    "AskedHeader": lambda: nocookie.AskedHeader(),
    "Bearer": lambda: nocookie.Bearer(),
    "Query": lambda: nocookie.Query(),
    "PathSegment": lambda: nocookie.PathSegment(),
    "PathParam": lambda: carriers.PathParam(),
    "Form": lambda: nocookie.Form(),
    "Cookie": lambda: "cookie",
    "Callback": lambda: [by_hand, odd_finder],
    "FirstOf": lambda: nocookie.FirstOf("cookie:a", "header:X-Session-Id", "form:sid", "query:sid"),
    # With none named, the option `use_cookies` decides.
    "none": lambda: None,
}

#: What `nocookie.carriers` has beside carriers.
NO_CARRIERS = {
    *("SCHEMES", "AmbiguousId", "BodyFilter", "Carrier", "RawCarrier", "Reply", "UrlCarrier"),
    *("USUAL", "carriers_from"),
}


def test_every_option_has_values_to_try():
    missing = OPTIONS.keys() - VALUES.keys()
    assert not missing, f"give each of these options some valid values in VALUES: {missing}"
    assert VALUES.keys() == OPTIONS.keys()
    assert [name for name, values in VALUES.items() if not values] == ["find_id"]


def test_every_carrier_is_tried():
    there = set(carriers.__all__) - NO_CARRIERS
    missing = there - CARRIERS.keys()
    assert not missing, f"make each of these carriers in CARRIERS: {missing}"
    assert CARRIERS.keys() - {"none"} == there


# -- the pairs -----------------------------------------------------------------------------------

#: One value of an option: its name and where it stands in VALUES.
FACTORS = [(name, at) for name, values in VALUES.items() for at in range(len(values))]
PAIRS = [(a, b) for a, b in itertools.combinations(FACTORS, 2) if a[0] != b[0]]


class Backwards:
    """A clock that is put back now and then."""

    def __init__(self):
        self.now, self.calls = 2e9, 0

    def __call__(self):
        self.calls += 1
        self.now += 50 if self.calls % 7 else -1000
        return self.now


def made(carrier, row, tmp_path, app=None):
    """Return the middleware with these values. Raises what its construction raises."""
    options = {}
    for name, at in row:
        options.update(VALUES[name][at][1])
    options |= {name: VALUES[name][at][0] for name, at in row}
    stand_ins = {
        "TMP": lambda: str(tmp_path),
        "ENGINE": lambda: create_engine("sqlite://", poolclass=StaticPool),
        "CLOCK": FakeClock,
        "BACKWARDS": Backwards,
    }
    for name, value in options.items():
        if isinstance(value, str) and value in stand_ins:
            options[name] = stand_ins[value]()
    find_id = CARRIERS[carrier]()
    if find_id is not None:
        options |= {"find_id": find_id}
        options.setdefault("use_cookies", False)
    return SessionMiddleware(app, **options)


class Rows:
    """Rows of values such that every pair that can be made at all is in one of them."""

    def __init__(self, carrier, tmp_path):
        self.carrier, self.tmp_path = carrier, tmp_path
        self.refused, self.covered = [], 0
        self.order = list(VALUES)
        random.Random(carrier).shuffle(self.order)

    def __iter__(self):
        left = dict.fromkeys(PAIRS)
        while left:
            first = next(iter(left))
            row = list(first)
            if not self.can_be_made(row):
                self.refused.append(first)
                del left[first]
                continue
            for name in self.order:
                if name not in dict(row):
                    self.grow(row, name, left)
            for a, b in itertools.combinations(row, 2):
                pair = (a, b) if (a, b) in left else (b, a)
                self.covered += pair in left
                left.pop(pair, None)
            yield row

    def grow(self, row, name, left):
        """Add the value of this option that makes the most new pairs, if one can be added."""

        def gain(at):
            new = (name, at)
            return sum((new, old) in left or (old, new) in left for old in row)

        for at in sorted(range(len(VALUES[name])), key=gain, reverse=True):
            if not gain(at):
                return
            if self.can_be_made([*row, (name, at)]):
                row.append((name, at))
                return

    def can_be_made(self, row):
        try:
            made(self.carrier, row, self.tmp_path)
        except ConfigError:
            return False
        return True


# -- the requests --------------------------------------------------------------------------------


class Boom(Exception):
    """The application's own."""


def presented(kind, site, live):
    """What a client says its id is, in this kind of request: none, one, or two texts."""
    ours = live[-1] if live else "A" * 43
    return {
        "no id": [],
        "empty": [""],
        "control characters": ["a\r\nX-Injected: 1\x1b[31m\x7f"],
        "Latin-1": ["caf\xe9\xff" * 9],
        "64 KB": ["A" * 65536],
        "NUL": ["A" * 42 + "\0"],
        "forged": [SignedIds([OLD_SECRET + "!"]).new()],
        "unknown": [site.manager.backend.ids.new()],
        "live": [ours],
        "live and another": [ours, "B" * 43],
        "live and quoted": [f'"{ours}"'],
        "Beaker's": [uuid4().hex],
        "Beaker's, signed": ["0" * 40 + uuid4().hex],
        "a gateway's": ["user-4711 / Müller"],
        "markup": ['"><script>alert(1)</script>'],
        "not by percent": ["%zz%0d%0a%00"],
    }[kind]


IDS = [
    *("no id", "empty", "control characters", "Latin-1", "64 KB", "NUL", "forged", "unknown"),
    *("live", "live and another", "live and quoted", "Beaker's", "Beaker's, signed"),
    *("a gateway's", "markup", "not by percent"),
]
METHODS = ["GET", "POST", "HEAD", "OPTIONS", "prefetch", "cross-origin"]
WAYS = ["http", "https", "proxied", "proxied oddly", "not proxied", "unusual server"]
ANSWERS = ["text", "304", "204", "303", "html", "stream", "write", "refresh", "late start"]
HANDLERS = [
    *("nothing", "read", "save", "login", "logout", "regenerate", "raise", "catch"),
    *("persist", "count", "rebuild", "url", "times", "clear", "after", "owners"),
]


def pairwise(*dimensions):
    """Rows in which every two values of two dimensions meet."""
    left = {
        ((i, a), (j, b))
        for (i, first), (j, second) in itertools.combinations(enumerate(dimensions), 2)
        for a in first
        for b in second
    }
    choose = random.Random(7)
    while left:
        best, best_row = set(), None
        (i, a), (j, b) = min(left, key=repr)
        for _ in range(30):
            row = [choose.choice(values) for values in dimensions]
            row[i], row[j] = a, b
            met = left.intersection(itertools.combinations(list(enumerate(row)), 2))
            if len(met) > len(best):
                best, best_row = met, row
        left -= best
        yield best_row


REQUESTS = list(pairwise(IDS, METHODS, WAYS, ANSWERS, HANDLERS))


def environ_of(carrier, texts, method, way):
    """A request in which these texts stand where the carrier looks, and so in the other places."""
    environ = {
        "REQUEST_METHOD": method if method.isupper() else "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/page",
        "QUERY_STRING": "a=1",
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "80",
        "HTTP_HOST": "shop.example",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.input": Input(b""),
    }
    if method == "prefetch":
        environ["HTTP_SEC_PURPOSE"] = "prefetch;prerender"
    if method == "OPTIONS":
        environ["HTTP_ACCESS_CONTROL_REQUEST_METHOD"] = "POST"
    if method in ("OPTIONS", "cross-origin"):
        environ["HTTP_ORIGIN"] = "https://other.example"
    if way != "http":
        environ |= {"HTTP_USER_AGENT": "Odd/1\x00\xff", "HTTP_REFERER": "http://[::1/\x00?sid=x"}
    if way == "https":
        environ |= {"wsgi.url_scheme": "https", "SERVER_PORT": "443"}
    if way.startswith("proxied"):
        environ["REMOTE_ADDR"] = "10.1.2.3"
    if way in ("proxied", "not proxied"):
        environ |= {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_FORWARDED": 'for="[::1]";proto=https'}
    if way == "proxied oddly":
        odd = '\x00"proto=https;;,=,\xff'
        environ |= {"HTTP_X_FORWARDED_PROTO": odd, "HTTP_FORWARDED": odd, "HTTP_HOST": "\x00[:x"}
        environ["QUERY_STRING"] = "a=\x00\x7f\r\nb"
    if way == "unusual server":
        del environ["HTTP_HOST"], environ["REMOTE_ADDR"], environ["SERVER_PROTOCOL"]
        del environ["QUERY_STRING"], environ["SCRIPT_NAME"]
    if texts:
        put(environ, carrier, texts, method)
    return environ


def put(environ, carrier, texts, method):
    text = texts[0]
    in_header, in_query = ", ".join(texts), "&".join(f"sid={one}" for one in texts)
    if carrier in ("Header", "AskedHeader", "Callback", "FirstOf", "none"):
        environ["HTTP_X_SESSION_ID"] = in_header
    if carrier in ("Cookie", "FirstOf", "none"):
        names = ("nocookie.session.id", "sid", "a")
        environ["HTTP_COOKIE"] = "; ".join(f"{n}={one}" for n in names for one in texts)
    if carrier == "Bearer":
        environ["HTTP_AUTHORIZATION"] = f"Bearer {text}"
    if carrier in ("Query", "FirstOf"):
        environ["QUERY_STRING"] = f"a=%zz&{in_query}&amp;sid={text}"
    if carrier == "PathSegment":
        environ["PATH_INFO"] = "".join(f"/~{one}" for one in texts) + ("/page", "")[len(text) % 2]
        if method == "POST":
            environ["REQUEST_URI"] = environ["PATH_INFO"]
    if carrier == "PathParam":
        environ["PATH_INFO"] = "/page" + "".join(f";sid={one}" for one in texts)
    if carrier in ("Form", "FirstOf"):
        body = in_query.encode("latin-1", "replace")
        environ |= {
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "CONTENT_LENGTH": str(len(body)) if method != "PUT" else "many",
            "wsgi.input": Input(body),
        }


class Input:
    """The body of a request."""

    def __init__(self, body):
        self.body = body

    def read(self, size=-1):
        return self.body


PAGE = (
    b"<!doctype html><base href='/x/'><a href='next?a=1'>n</a><a href='//other.example/'>o</a>"
    b"<form method=post action=/to><input name=a></form>"
    b"<meta http-equiv=refresh content='1;url=/r'>"
)

STATUS = {"304": "304 Not Modified", "204": "204 No Content", "303": "303 See Other"}
HEADERS = {
    "303": [("Location", "/next?a=1#b")],
    "html": [("Content-Type", "text/html; charset=utf-8")],
    "stream": [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "public")],
    "write": [("Content-Type", "text/html; charset=utf-8")],
    "refresh": [("Refresh", "1; url=/next")],
}


def handle(did):
    if did == "read":
        session.get("n")
        assert session.reason is None or session.is_new
        repr(session)
    elif did in ("save", "persist", "after"):
        session.start()
        session["n"] = session.get("n", 0) + 1
        session.save()
        if did == "persist":
            session.persist()
    elif did == "login":
        session.login("ada")
        session.save()
    elif did == "logout":
        session.logout("/bye?a=1")
    elif did == "regenerate":
        session["n"] = 1
        session.regenerate_id()
        session.save()
    elif did == "raise":
        session["n"] = 1
        session.save()
        raise Boom
    elif did == "catch":
        for _ in range(2):
            try:
                session.get("n")
            except NocookieError:
                pass
    elif did == "count":
        session.incr("n")
        session.mutate(lambda stored: stored.setdefault("m", []).append(1))
    elif did == "rebuild":
        session.rebuild("no id\0")
        session["n"] = 1
        session.save()
    elif did == "url":
        session["n"] = 1
        session.save()
        session.url("/next?a=1"), session.bare_url("/next?sid=1"), session.fingerprint
    elif did == "times":
        session.timeout, session.lifetime = 1e9, None
        session["n"] = 1
        session.save()
    elif did == "clear":
        session["n"] = [1]
        session.clear()
        session.revert()
        session.load()
        session.save()
    elif did == "owners":
        session.sessions_of("ada")
        session.end_all("bob")
        session.end_one("0" * 10, "ada")


#: The application tells the client about what it did wrong with the session.
OURS_TO_ANSWER = (StoreError, SessionConflict, Refusal)


def application(environ, start_response):
    answer, did = environ["test.answer"], environ["test.did"]
    status = STATUS.get(answer, "200 OK")
    headers = [("X-Application", "1"), *HEADERS.get(answer, ())]
    try:
        handle(did)
        if session.accessed() and did != "catch":
            environ["test.seen"].add(session.reason)
            environ["test.id"].append(session.id if session.must_propagate else None)
    except OURS_TO_ANSWER:
        if did == "catch":
            start_response("500 Of a framework", headers)
            return [b""]
        raise
    except NocookieError:  # a size, a gateway's id, a store without owners
        status = "400 Bad Request"
    if answer == "write":
        write = start_response(status, headers)
        write(PAGE)
        return []
    if answer == "late start":
        return late(status, headers, start_response)
    start_response(status, headers)
    if answer == "stream":
        return stream(did)
    return [] if status[:3] in ("204", "304") else [PAGE]


def stream(did):
    for at in range(0, len(PAGE), 50):
        yield PAGE[at : at + 50]
    if did == "after":
        session["late"] = 1
        with suppress(ValueRefused):
            session.save()


def late(status, headers, start_response):
    start_response(status, headers)
    yield b""
    yield b"x"


CONTROL = re.compile(r"[\x00-\x1f\x7f]").search


class Checked:
    """One site, and what it is asked."""

    def __init__(self, carrier, row, tmp_path):
        self.carrier, self.row = carrier, row
        self.site = made(carrier, row, tmp_path, application)
        self.live = []
        #: What became of sessions: reasons, None for one that was known, and our own statuses.
        self.seen = set()
        chosen = dict(row)
        fails = {"redis", "memcached"}
        kind = VALUES["type"][chosen["type"]][0] if "type" in chosen else None
        url = VALUES["url"][chosen["url"]][1]["type"] if "url" in chosen else kind
        no_table = chosen.get("create_table") == 1
        self.may_fail = bool(fails & {kind, url}) or no_table or "table_name" in chosen

    def ask(self, kind, method, way, answer, did):
        texts = presented(kind, self.site, self.live)
        environ = environ_of(self.carrier, texts, method, way)
        ids = []
        environ |= {"test.answer": answer, "test.did": did, "test.id": ids}
        environ["test.seen"] = self.seen
        told = (kind, method, way, answer, did), self.carrier, self.described()
        try:
            got = serve(self.site, environ=environ)
        except Boom:
            assert did == "raise", told
            return
        except ValueRefused:
            # The application's own: it put there what is too large, and did not take it back.
            assert did in ("regenerate", "count") or self.site.manager.backend.auto, told
            return
        except Exception as error:
            raise AssertionError(f"{error!r} got out of the middleware: {told}") from error
        self.check(got, method, told)
        if got.header("X-Application") and ids and ids[0]:
            self.live.append(ids[0])

    def check(self, got, method, told):
        ours = not any(name == "X-Application" for name, _ in got.headers)
        code = got.status[:3]
        if ours:
            self.seen.add(code)
            allowed = {"307", "400", "401", "403", "404", "409"} | (
                {"503"} if self.may_fail else set()
            )
            assert code in allowed, (got.status, told)
            length = got.header("Content-Length")
            assert "chunk" in got.log, ("a body without a piece is no answer everywhere", told)
            if length and method != "HEAD":
                assert int(length) == len(got.body), told
        else:
            assert not code.startswith("5"), (got.status, told)
        for name, value in got.headers:
            assert type(name) is type(value) is str, told
            assert not CONTROL(name + value), (name, value, told)
            value.encode("latin-1")

    def close(self):
        store = self.site.manager.backend.store
        if hasattr(store, "close"):
            store.close()

    def described(self):
        return {name: VALUES[name][at][0] for name, at in self.row}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_pair_of_options_answers_every_client(carrier, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL, "nocookie")  # of everything something is said
    rows, seen = Rows(carrier, tmp_path), set()
    for row in rows:
        site = Checked(carrier, row, tmp_path)
        for request in REQUESTS:
            site.ask(*request)
        site.close()
        seen |= site.seen
    # It was not by chance: sessions were found, refused, and failed.
    assert {None, "absent", "malformed", "unknown", "forged", "insecure", "destroyed"} <= seen
    assert {"503", *(["401"] if carrier == "Bearer" else ["400", "404"])} <= seen
    assert rows.covered + len(rows.refused) == len(PAIRS)


# -- callbacks that raise ------------------------------------------------------------------------
#
# A callback may raise at any event. What is for the client is answered, unless the response has
# begun; anything else that it raises goes to the log.

PHASES = ["prepare", "find", "load", "commit", "body", "close"]


class Site:
    """One application whose handler and stream are the test's, and what its callback raises."""

    def __init__(self, event, error, **options):
        self.event, self.error, self.raised = event, error, 0
        self.clock = FakeClock()
        self.store = CountingStore(clock=self.clock)
        self.page = self.later = self.at_close = lambda: None
        self.headers, self.own_500 = [], False
        options = {"find_id": "header:X-Session-Id", "secret": SECRET} | options
        self.app = SessionMiddleware(
            self.respond,
            use_cookies=False,
            type=self.store,
            clock=self.clock,
            on_event=self.told,
            **options,
        )

    def told(self, event):
        if event.name == self.event and self.armed:
            self.raised += 1
            raise self.error

    armed = False

    def respond(self, environ, start_response):
        try:
            self.page()
        except OURS_TO_ANSWER:
            if not self.own_500:
                raise
            with suppress(*OURS_TO_ANSWER):
                session.get("n")  # an error page looks at the session again
            start_response("500 Of a framework", [])
            return [b""]
        status = "302 Found" if dict(self.headers).get("Location") else "200 OK"
        start_response(status, [("X-Application", "1"), *self.headers])
        return Streamed(self)

    def get(self, id=None, **environ):
        given = environ_of("Header", [] if id is None else [id], "GET", "http")
        return serve(self.app, environ=given | environ)

    def begin(self):
        """Store a session; return its id."""
        self.page = save
        id = self.get().id
        self.page = lambda: None
        return id


class Streamed:
    """A response that is made while it is sent."""

    def __init__(self, site):
        self.site, self.steps = site, iter([b"one ", b"two"])

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self.steps, None)
        if chunk is None:
            raise StopIteration
        if chunk == b"two":
            self.site.later()
        return chunk

    def close(self):
        self.site.at_close()


def save():
    session["n"] = session.get("n", 0) + 1
    session.save()


def read():
    session.get("n")


#: By event and phase: what makes it happen. Each gets a site that it may set up, and asks it for
#: the one request in which the callback raises.
PROVOKE = {}


def provokes(event, phase, **options):
    def kept(ask):
        PROVOKE[event, phase] = ask, options

    return kept


def asked(site, page=lambda: None, id=None, **environ):
    site.page = page
    site.armed = True
    return site.get(id, **environ)


class FailsFirst(nocookie.Query):
    def prepare(self, environ):
        raise ZeroDivisionError


provokes("finder failed", "prepare", find_id=FailsFirst())(asked)
provokes("finder failed", "find", find_id=lambda request: 7)(lambda site: asked(site, read))


@provokes("misfit", "prepare", find_id="query:sid")
def _(site):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Serving, "is_alone", lambda self, environ: False)
        return asked(site)


@provokes("misfit", "commit")
def _(site):
    return asked(site, save, REMOTE_ADDR="192.0.2.1")


@provokes("conflict", "find", find_id=["header:X-Session-Id", "cookie:sid"])
def _(site):
    new = site.app.manager.backend.ids.new
    return asked(site, read, new(), HTTP_COOKIE=f"sid={new()}")


provokes("refused", "load")(lambda site: asked(site, read, "A" * 43))
provokes("created", "commit")(lambda site: asked(site, save))


@provokes("created", "load")
def _(site):
    return asked(site, lambda: (save(), session.persist()))


@provokes("plain http", "commit", require_https=True)
def _(site):
    return asked(site, save)


@provokes("expired", "load")
def _(site):
    id = site.begin()
    site.clock.advance(1801)
    return asked(site, read, id)


@provokes("corrupted", "load")
def _(site):
    id = site.begin()
    key = site.app.manager.backend.ids.key(id)
    site.store.save(key, Delta({"n": b"no value"}), 600)
    return asked(site, read, id)


@provokes("clock", "load")
def _(site):
    site.clock.advance(10_000)
    id = site.begin()
    site.clock.advance(-10_000)
    return asked(site, read, id)


@provokes("replaced", "load")
def _(site):
    id = site.begin()

    def page():
        read()
        store.load(key)

    with tempfile.TemporaryDirectory() as folder:
        store, key = FileStore(data_dir=folder), f"{1:064x}"
        store.create(key, Record({}, 0.0, 0.0, 0.0, 0), 600)
        os.unlink(f"{folder}/sessions/sessions.db")
        got = asked(site, page, id)
        store.close()
    return got


@provokes("store error", "load")
def _(site):
    id = site.begin()
    site.store.fail("load")
    return asked(site, read, id)


@provokes("store error", "commit")
def _(site):
    site.store.fail("create")
    return asked(site, save)


@provokes("store error", "close")
def _(site):
    id = site.begin()

    def at_close():
        save()
        site.store.fail("save")

    site.at_close = at_close
    return asked(site, read, id)


@provokes("ended", "load")
def _(site):
    return asked(site, lambda: session.logout(), site.begin())


@provokes("ended", "body")
def _(site):
    id = site.begin()
    site.later = lambda: session.logout()
    return asked(site, read, id)


provokes("login", "commit")(lambda site: asked(site, lambda: session.login("ada")))


@provokes("login", "close", strict=False, id_key=OLD_SECRET, secret=None)
def _(site):
    site.page = save
    site.get("user-4711")
    site.at_close = lambda: session.login("ada")
    return asked(site, read, "user-4711")


@provokes("rotated", "commit")
def _(site):
    return asked(site, lambda: (save(), session.regenerate_id()), site.begin())


@provokes("client changed", "commit", watch_client=True)
def _(site):
    site.page = lambda: session.login("ada")
    id = site.get(HTTP_USER_AGENT="One/1").id
    return asked(site, read, id, HTTP_USER_AGENT="Two/2")


@provokes("lost", "commit")
def _(site):
    id = site.begin()
    site.page = save

    def respond(environ, start_response):
        session.regenerate_id()
        save()
        start_response("304 Not Modified", [("X-Application", "1")])
        return [b""]

    site.app.app = respond
    return asked(site, save, id)


@provokes("lost", "close")
def _(site):
    site.at_close = save
    return asked(site)


@provokes("leak", "commit")
def _(site):
    id = site.begin()
    site.headers = [("X-Elsewhere", id), ("Location", f"https://other.example/?{id}")]
    return asked(site, read, id)


@provokes("leak", "body")
def _(site):
    id = site.begin()
    site.headers = [("Cache-Control", "public, max-age=60"), ("Content-Type", "text/plain")]

    def respond(environ, start_response):
        read()
        start_response("200 OK", [("X-Application", "1"), *site.headers])
        yield b"one "
        yield id.encode()

    site.app.app = respond
    return asked(site, read, id)


@provokes("redirect_abroad", "commit")
def _(site):
    site.headers = [("Location", "https://other.example/")]
    return asked(site, read, site.begin())


@provokes("form refused", "load", find_id="header:X-Session-Id")
def _(site):
    return asked(site, lambda: forms.refusal("no token of ours"))


#: No client is there when it comes.
AT_CONSTRUCTION = {"options"}


def test_every_event_is_provoked_and_every_phase():
    missing = EVENTS.keys() - {event for event, _ in PROVOKE} - AT_CONSTRUCTION
    assert not missing, f"give each of these events a way to provoke it here: {missing}"
    assert {event for event, _ in PROVOKE} == EVENTS.keys() - AT_CONSTRUCTION
    assert {phase for _, phase in PROVOKE} == set(PHASES)


ERRORS = {
    "TooManyTries": TooManyTries(30),
    "NocookieError": NocookieError("a callback's"),
    "StoreError": StoreError("a callback's own store"),
    "ConfigError": ConfigError("a callback's"),
    "ValueError": ValueError("a callback's"),
}

#: Where the response has begun, or the client has done nothing.
NOT_ANSWERED = {"body", "close"}


@pytest.mark.parametrize("own_500", [False, True], ids=["", "framework"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("event", "phase"), PROVOKE)
def test_a_callback_that_raises_is_answered_or_passed_over(event, phase, error, own_500, caplog):
    ask, options = PROVOKE[event, phase]
    site = Site(event, ERRORS[error], **options)
    site.own_500 = own_500
    got = ask(site)
    assert site.raised, "the event came"
    for_client = error == "TooManyTries" and phase not in NOT_ANSWERED
    if for_client and event != "redirect_abroad":
        assert got.status == "429 Too Many Requests"
        assert (got.header("Retry-After"), got.body.count(b"guessing")) == ("30", 1)
        return
    expected = {"plain http": "403", "store error": "503"}.get(event, "[23]0[0234]")
    if phase in NOT_ANSWERED:
        expected = "200"
    assert re.match(expected, got.status)
    if event != "redirect_abroad":
        assert f"a callback of on_event failed at the event {event}" in caplog.text


# -- servers of a store that answer nonsense -----------------------------------------------------

WITHIN = 0.1  # the deadline, in seconds


class Lines:
    """What a server hears, line by line and piece by piece."""

    def __init__(self, client):
        self.file = client.makefile("rb")

    def line(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError
        return line[:-2]

    def piece(self, size):
        return self.file.read(size + 2)[:-2]


class FakeRedis:
    """As much of Redis as the store needs, one session at a time."""

    url = "redis://127.0.0.1:%d"

    def __init__(self):
        self.meta, self.fields = b"", []
        self.roles = {
            redis_scripts.Script(getattr(redis_scripts, name)).sha: name
            for name in ("CREATE", "SAVE", "LOAD", "BURY", "DESTROY", "ADD")
        }

    def hear(self, lines):
        count = int(lines.line()[1:])
        return [lines.piece(int(lines.line()[1:])) for _ in range(count)]

    def answer(self, words):
        if words[0] == b"CLUSTER":
            return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:%d\r\n" % self.port
        if words[0] in (b"HGET", b"ZRANGE", b"HMGET"):
            return b"*0\r\n" if words[0] == b"ZRANGE" else b"*2\r\n$-1\r\n$-1\r\n"
        role = self.roles.get(words[1])
        if role == "CREATE":
            now, ttl, created, version, seal, _, *self.fields = words[4:]
            times = b"%a %a" % (float(now), float(now) + float(ttl))
            self.meta = b" ".join((b"1", created, times, version, seal))
        if role in ("LOAD", "BURY"):
            parts = [b"m", self.meta, *self.fields]
            return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
        return {"DESTROY": b"$0\r\n\r\n", "ADD": b"*0\r\n"}.get(role, b":1\r\n")

    #: No answer to anything that is asked.
    NONSENSE = [
        *(
            b"+private\r\n",
            b"$7\r\nprivate\r\n",
            b":-7\r\n",
            b"*1\r\n+private\r\n",
            b"*1\r\n:1\r\n",
        ),
        *(
            b"*1\r\n*0\r\n",
            b"*2\r\n$1\r\nm\r\n:1\r\n",
            b"*2\r\n$1\r\nm\r\n$-1\r\n",
            b"%1\r\n+a\r\n:1\r\n",
        ),
        *(
            b"#t\r\n",
            b",1.5\r\n",
            b"_\r\n",
            b"(7\r\n",
            b"~1\r\n:1\r\n",
            b">1\r\n+a\r\n",
            b"=5\r\ntxt:a\r\n",
        ),
        *(
            b"-\r\n",
            b"- \r\n",
            b"-MOVED\r\n",
            b"-MOVED 1\r\n",
            b"-MOVED 1 private\r\n",
            b"-ASK\r\n",
        ),
        *(b"-MOVED 99999 :0\r\n", b"-MOVED x y:z\r\n", b"-ASK 1 127.0.0.1:99999\r\n", b"-\xff\r\n"),
        *(
            b"?\r\n",
            b"\r\n",
            b"$-7\r\n",
            b"$x\r\n",
            b"*x\r\n",
            b":1:1\r\n",
            b":1\r\n:1\r\n",
            b"\0\0\r\n",
        ),
        *(b"", b"$1000\r\nprivate", b"*2\r\n$1\r\n", b":1", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ]


class FakeMemcached:
    url = "127.0.0.1:%d"

    def __init__(self):
        self.items, self.token = {}, 1

    def hear(self, lines):
        words = lines.line().split(b" ")
        if words[0] in (b"add", b"cas", b"replace"):
            words.append(lines.piece(int(words[4])))
        return words

    def answer(self, words):
        verb, name = words[:2]
        held = self.items.get(name)
        if verb == b"gets":
            if held is None:
                return b"END\r\n"
            head = b"VALUE %b 0 %d %d" % (name, len(held), self.token)
            return b"%b\r\n%b\r\nEND\r\n" % (head, held)
        if verb in (b"add", b"cas", b"replace"):
            self.items[name] = words[-1]
            return b"STORED\r\n"
        self.items.pop(name, None)
        return b"HD\r\n" if verb == b"md" else b"DELETED\r\n"

    NONSENSE = [
        *(
            b"",
            b"\r\n",
            b"OK\r\n",
            b"private\r\n",
            b"VALUE\r\n",
            b"VALUE a\r\n",
            b"VALUE a b c d\r\n",
        ),
        *(
            b"VALUE k 0 5 1\r\nab\r\nEND\r\n",
            b"END \r\n",
            b"END\r\nEND\r\n",
            b"STORED\n",
            b"+OK\r\n",
        ),
        *(
            b"SERVER_ERROR\r\n",
            b"CLIENT_ERROR private\r\n",
            b"ERROR\r\n",
            b"\0\xff\r\n",
            b"HD 1 2\r\n",
        ),
        *(
            b"VALUE k 0 -1 1\r\n\r\nEND\r\n",
            b"TOUCHED\r\n",
            b"VALUE k 0 1000 1\r\nprivate",
            b"STORE",
        ),
    ]


class Server:
    """A fake that answers well until it is told to answer nonsense from some command on."""

    def __init__(self, fake):
        self.fake, self.after, self.nonsense = fake, math.inf, b""
        self.heard = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = fake.port = self.listener.getsockname()[1]
        self.clients, self.threads = [], [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.clients.append(client)
                self.threads.append(threading.Thread(target=self.serve, args=(client,)))
                self.threads[-1].start()

    def serve(self, client):
        with client, suppress(OSError, ValueError):
            lines = Lines(client)
            while True:
                words = self.fake.hear(lines)
                if words[0] == b"CLUSTER":
                    client.sendall(self.fake.answer(words))
                    continue
                self.heard += 1
                wrong = self.heard > self.after
                client.sendall(self.nonsense if wrong else self.fake.answer(words))

    def close(self):
        for sock in (self.listener, *self.clients):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)


FAKES = {
    "redis": (FakeRedis, {"type": "redis"}),
    "cluster": (FakeRedis, {"type": "redis"}),
    "memcached": (FakeMemcached, {"type": "memcached"}),
}

#: What becomes of a session in the one request in which the server is out of its mind.
STEPS = ["read", "save", "persist", "login", "logout", "regenerate", "count", "begin"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", FAKES)
def test_a_server_that_answers_nonsense_is_503_within_the_deadline(name, step, caplog):
    caplog.set_level(logging.CRITICAL, "nocookie")
    make, options = FAKES[name]
    server = Server(make())
    url = server.fake.url % server.port
    options = options | {
        "url": url.replace("redis:", "redis+cluster:") if name == "cluster" else url
    }
    clock = FakeClock()
    site = SessionMiddleware(
        nonsense_application, use_cookies=False, deadline=WITHIN, clock=clock, **options
    )
    try:
        assert ask_for(site, None, "save").status == "200 OK"
        statuses = {}
        for at in itertools.count():
            statuses[at] = set()
            for nonsense in server.fake.NONSENSE:
                server.after = math.inf
                id = None if step == "begin" else ask_for(site, None, "save").id
                clock.advance(61)
                server.heard, server.after, server.nonsense = 0, at, nonsense
                begun = time.monotonic()
                got = ask_for(site, id, "save" if step == "begin" else step)
                took = time.monotonic() - begun
                told = (nonsense, at, got.status, got.body)
                assert got.status[:3] in ("503", "200", "409"), told
                assert took < WITHIN + 0.5, (told, took)
                assert b"private" not in got.body, told
                statuses[at].add((got.status[:3], nonsense if got.status[:3] != "503" else b""))
            if server.heard <= at:
                break
        assert at >= 1
        assert statuses[0] == {("503", b"")}, statuses[0]
    finally:
        site.manager.backend.store.close()
        server.close()


def nonsense_application(environ, start_response):
    handle(environ["test.did"])
    start_response("200 OK", [])
    return [b"done"]


def ask_for(site, id, did):
    environ = environ_of("Header", [] if id is None else [id], "GET", "http")
    return serve(site, environ=environ | {"test.did": did})
