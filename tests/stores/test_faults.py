"""What can go wrong around a store, on every place, as an application and its clients see it.

test_fault_list.py says which test proves the answer to which fault on which place, and where a
fault cannot be had.
"""

import contextlib
import http.client
import json
import math
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from helpers import serve
from realservers import free_port, wait_until
from realservers.relay import Relay
from stores.places import needs, places

from nocookie import (
    Session,
    SessionMiddleware,
    StoreError,
    UnboundSessionError,
    ValueRefused,
    session,
)
from nocookie.stores.base import Missing, Purgeable
from nocookie.testing import FakeClock
from nocookie.testing.serving import serving

#: Seconds that a call may take; and how much later an answer may come on a busy machine.
DEADLINE = 2.0
SLACK = 1.5

SECRET = "a secret of more than thirty-two characters"


def count(environ, start_response):
    """Count visits; `/other` does not ask for the session."""
    if environ["PATH_INFO"] != "/other":
        session["n"] = session.get("n", 0) + 1
        session.save()
    start_response("200 OK", [])
    return [b"" if environ["PATH_INFO"] == "/other" else b"%d" % session["n"]]


def wrap(app, options):
    return SessionMiddleware(app, use_cookies=False, **options)


def new_session(options, **values):
    made = Session({}, **options)
    made.update(values)
    made.save()
    return made


def same(options, made):
    return Session({}, id=made.id, **options)


def together(*calls):
    """Make all calls at one moment, each in a thread; return what they returned."""
    start = threading.Barrier(len(calls))

    def run(call):
        start.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [done.result(120) for done in [pool.submit(run, call) for call in calls]]


# -- the wire and the server ---------------------------------------------------------------------


@pytest.fixture
def wire(place):
    """The place behind a relay, as `options`; a call has the usual deadline."""
    with Relay("127.0.0.1", place.server.port) as relay:
        relay.options = {**place.options, **place.through(relay.port), "deadline": DEADLINE}
        yield relay


@places("remote")
def test_a_server_that_is_down_at_the_start_is_503_until_it_is_there(place, wire):
    there, wire.target = wire.target, ("127.0.0.1", free_port())
    app = wrap(count, wire.options)
    for _ in range(2):
        begun = time.monotonic()
        assert serve(app).status.startswith("503 ")
        assert time.monotonic() - begun < DEADLINE + SLACK
        assert serve(app, path="/other").status == "200 OK"
    wire.target = there
    answer = serve(app)
    assert (answer.status, answer.body) == ("200 OK", b"1")
    assert serve(app, answer.id).body == b"2"


@places("remote")
def test_a_server_that_dies_under_a_request_is_503_and_heals(place, wire):
    """Between load and save. What was stored is there again when a durable server is."""
    there = wire.target

    def app(environ, start_response):
        session.get("n")
        if environ["PATH_INFO"] == "/dies":
            wire.target = ("127.0.0.1", free_port())
            wire.cut()
        return count(environ, start_response)

    middleware = wrap(app, wire.options)
    id = serve(middleware).id
    answer = serve(middleware, id, "/dies")
    assert answer.status.startswith("503 ")
    assert answer.id is None
    assert serve(middleware, id).status.startswith("503 ")
    wire.target = there
    answer = serve(middleware, id)
    assert (answer.status, answer.body, answer.id) == ("200 OK", b"2", None)


@places("remote")
def test_an_answer_that_gets_lost_never_counts_twice(place, wire):
    """Whoever called was told that it failed, or it did not: the outcome is between."""
    lost = 0
    for nth in range(1, 9):
        counter = new_session(wire.options, n=0)
        acknowledged = unknown = 0
        wire.drop_reply(nth)
        for _ in range(4):
            try:
                same(wire.options, counter).incr("n")
                acknowledged += 1
            except StoreError:
                unknown += 1
        lost += wire.wait_for_drop(0)
        assert unknown <= 1
        assert acknowledged <= same(place.options, counter)["n"] <= acknowledged + unknown
        wire.forget_drops()
    assert lost >= 6


@places("remote")
def test_an_answer_to_a_save_that_gets_lost_leaves_the_old_record_or_the_new(place, wire):
    app = wrap(count, wire.options)
    for nth in range(1, 6):
        id = serve(app).id
        assert serve(app, id).body == b"2"
        wire.drop_reply(nth)
        for _ in range(2):
            answer = serve(app, id)
            assert answer.status[:3] in ("200", "503")
            assert answer.id is None
        wire.forget_drops()
        assert dict(Session({}, id=id, **place.options)) in ({"n": 3}, {"n": 4})
        assert serve(app, id).status == "200 OK"


@pytest.mark.parametrize("fault", ["cut", "drop_request", "drop_reply"])
@places("remote")
def test_one_failure_on_the_wire_costs_neither_the_id_nor_the_data(place, wire, fault):
    app = wrap(count, wire.options)
    id = serve(app).id
    getattr(wire, fault)()
    answer = serve(app, id)
    assert answer.status[:3] in ("200", "503")
    assert answer.id is None
    after = serve(app, id)
    assert (after.status, after.id) == ("200 OK", None)
    assert int(after.body) >= (3 if answer.status == "200 OK" else 2)


@places("remote")
def test_a_slow_wire_costs_time_and_no_more_trips(place, wire):
    def requests():
        before = wire.requests
        assert serve(app, id).status == "200 OK"
        return wire.requests - before

    app = wrap(count, wire.options)
    id = serve(app).id
    for _ in range(10):  # a driver may prepare a statement that comes often
        usual = requests()
    wire.delay = wire.jitter = 0.2
    begun = time.monotonic()
    assert [requests() for _ in range(4)] == [usual] * 4
    assert time.monotonic() - begun < 4 * usual * (0.4 + SLACK)
    wire.delay = wire.jitter = 0
    assert serve(app, id).body == b"16"


@places("remote")
def test_a_wire_that_is_too_slow_is_503_within_the_deadline(place, wire):
    app = wrap(count, {**wire.options, "deadline": 0.3})
    id = serve(app).id
    wire.delay = 5
    begun = time.monotonic()
    assert serve(app, id).status.startswith("503 ")
    assert time.monotonic() - begun < 0.3 + SLACK
    wire.delay = 0
    wire.cut()
    ends = time.monotonic() + 10
    while (answer := serve(app, id)).status.startswith("503 ") and time.monotonic() < ends:
        pass
    assert (answer.status, answer.id) == ("200 OK", None)


@places("remote")
def test_a_frozen_server_is_503_within_the_deadline_and_disturbs_nobody_else(place):
    app = wrap(count, {**place.options, "deadline": DEADLINE})
    id = serve(app).id
    assert serve(app, id).body == b"2"
    place.server.freeze()
    try:
        begun = time.monotonic()
        with ThreadPoolExecutor(3) as pool:
            stuck = [pool.submit(serve, app, id) for _ in range(2)] + [pool.submit(serve, app)]
            for _ in range(20):
                asked = time.monotonic()
                assert serve(app, path="/other").status == "200 OK"
                assert time.monotonic() - asked < DEADLINE / 2
            answers = [one.result(60) for one in stuck]
        assert time.monotonic() - begun < DEADLINE + SLACK
    finally:
        place.server.thaw()
    assert [answer.status[:3] for answer in answers] == ["503"] * 3
    assert [answer.id for answer in answers] == [None] * 3
    answer = serve(app, id)
    assert (answer.status, answer.id) == ("200 OK", None)
    assert int(answer.body) >= 3


@places("remote")
def test_a_restart_costs_at_most_one_request_and_durable_sessions_go_on(place):
    app = wrap(count, {**place.options, "deadline": DEADLINE})
    id = serve(app).id
    assert serve(app, id).body == b"2"
    place.server.restart()
    answer = serve(app, id)
    if answer.status.startswith("503 "):
        answer = serve(app, id)
    assert answer.status == "200 OK"
    if "durable" in place.powers:
        assert (answer.body, answer.id) == (b"3", None)
    else:
        assert answer.body == b"1"
        assert answer.id not in (None, id)


@places()
def test_a_record_that_is_evicted_under_a_request_is_409_and_not_made_again(place):
    def app(environ, start_response):
        session.get("n")
        place.store().destroy(key)
        return count(environ, start_response)

    made = new_session(place.options, n=1)
    key = made._backend.ids.key(made.id)
    assert serve(wrap(app, place.options), made.id).status.startswith("409 ")
    assert place.store().load(key) is Missing.UNKNOWN


# -- the disk ------------------------------------------------------------------------------------


@places("local")
def test_a_write_that_the_system_cuts_short_is_503_and_keeps_the_old_record(place, fork):
    def app(environ, start_response):
        session["large"] = environ["PATH_INFO"][1:] * 600_000
        return count(environ, start_response)

    def child():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        middleware = wrap(app, place.options)
        assert serve(middleware, id, "/a").status.startswith("503 ")
        assert dict(Session({}, id=id, **place.options)) == {"n": 1}
        assert serve(middleware, None, "/a").status.startswith("503 ")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert serve(middleware, id, "/b").body == b"2"

    id = new_session(place.options, n=1).id
    assert fork(child).wait() == 0
    assert dict(Session({}, id=id, **place.options)) == {"n": 2, "large": "b" * 600_000}


def as_nobody(folder):
    """Have a child that may do everything be somebody who may do nothing."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    assert not os.access(folder, os.W_OK), "this user may write whatever the mode says"


@pytest.fixture
def closed(place, tmp_path):
    """`closed(mode, folder_mode)`: the place has one session and these modes; return its id."""
    for folder in [tmp_path, *tmp_path.parents]:
        if folder == tmp_path or folder.name.startswith("pytest-"):
            folder.chmod(0o755)  # pytest keeps them to itself
    id = new_session(place.options, n=1).id
    place.store().close()

    def close(mode, folder_mode):
        for path in place.folder().iterdir():
            path.chmod(mode)
        place.folder().parent.chmod(0o755)
        place.folder().chmod(folder_mode)
        return id

    yield close
    place.folder().chmod(0o700)


@places("local")
def test_a_folder_that_forbids_is_503_and_never_an_empty_session(place, closed, fork):
    def child():
        as_nobody(place.folder())
        app = wrap(count, {**place.options, "deadline": DEADLINE})
        for answer in (serve(app, id), serve(app, id)):
            assert answer.status.startswith("503 ")
            assert answer.id is None
        assert serve(app, path="/other").status == "200 OK"

    id = closed(0o600, 0o700)
    assert fork(child).wait() == 0
    assert dict(Session({}, id=id, **place.options)) == {"n": 1}


@places("local")
def test_where_nothing_can_be_written_reads_go_on_and_saves_are_503(place, closed, fork):
    """A read-only file, which is as near to a read-only file system as a test without one gets."""

    def read(environ, start_response):
        start_response("200 OK", [])
        return [b"%d" % session["n"]]

    def child():
        as_nobody(next(place.folder().glob("*.db")))
        options = {**place.options, "deadline": DEADLINE}
        assert serve(wrap(read, options), id).body == b"1"
        assert serve(wrap(count, options), id).status.startswith("503 ")
        assert serve(wrap(read, options), id).body == b"1"

    id = closed(0o444, 0o700)
    if os.getuid() == 0:
        os.chown(place.folder(), 65534, 65534)
    assert fork(child).wait() == 0
    if os.getuid() == 0:
        for path in (place.folder(), *place.folder().iterdir()):
            os.chown(path, 0, 0)
    assert dict(Session({}, id=id, **place.options)) == {"n": 1}


# -- many at once --------------------------------------------------------------------------------


@places()
def test_64_threads_see_each_its_own_session(place):
    def app(environ, start_response):
        mine = environ["PATH_INFO"]
        seen = session.get("mine", mine)
        session["mine"] = mine
        session.save()
        seen_after = session["mine"]
        start_response("200 OK", [])
        return [f"{seen} {seen_after}".encode()]

    def visit(number):
        id = None
        for _ in range(5):
            answer = serve(middleware, id, f"/{number}")
            assert answer.status == "200 OK"
            assert answer.body == f"/{number} /{number}".encode()
            id = answer.id or id
        return id

    middleware = wrap(app, place.options)
    ids = together(*(partial(visit, number) for number in range(64)))
    assert len(set(ids)) == 64


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import json, sys
import gevent
from helpers import serve
from nocookie import SessionMiddleware, Session, session

options = json.loads(sys.argv[2])
shared = Session({}, **options)
shared["n"] = 0
shared.save()

def app(environ, start_response):
    number = environ["PATH_INFO"]
    before = session.get("mine", number)
    session["mine"] = number
    gevent.sleep(0.001)
    session.save()
    gevent.sleep(0.001)
    start_response("200 OK", [])
    yield f"{before} {session['mine']}".encode()

def visit(number):
    id = None
    for _ in range(3):
        answer = serve(middleware, id, f"/{number}")
        assert answer.body == f"/{number} /{number}".encode(), answer.body
        id = answer.id or id
    Session({}, id=shared.id, **options).incr("n")
    return id

middleware = SessionMiddleware(app, use_cookies=False, **options)
greenlets = [gevent.spawn(visit, number) for number in range(200)]
gevent.joinall(greenlets, timeout=100, raise_error=True)
assert len({greenlet.value for greenlet in greenlets}) == 200
assert Session({}, id=shared.id, **options)["n"] == 200
print("done")
"""


@places()
def test_200_greenlets_see_each_their_own_session(place, python):
    needs("gevent")
    options = place.options if "shared" in place.powers else {"type": "memory"}
    process = python(GREENLETS, "greenlets", json.dumps(options))
    out, _ = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "done\n")


@places("shared")
def test_children_of_a_fork_share_no_connection(place, fork):
    sessions = [new_session(place.options, tag=number) for number in range(5)]
    fresh = new_session(place.options, ids=[])

    def use(number):
        for turn in range(50):
            mine = same(place.options, sessions[number])
            assert mine["tag"] == number
            mine["turn"] = turn
            mine.save()
            mine = new_session(place.options, tag=number)
            same(place.options, fresh).mutate(partial(note, id=mine.fingerprint))

    def note(stored, id):
        stored["ids"] = [*stored["ids"], id]

    children = [fork(partial(use, number)) for number in range(1, 5)]
    use(0)
    assert [child.wait() for child in children] == [0] * 4
    ids = same(place.options, fresh)["ids"]
    assert len(set(ids)) == len(ids) == 5 * 50
    assert [same(place.options, one)["turn"] for one in sessions] == [49] * 5


@places()
def test_50_requests_after_the_end_each_get_a_session_of_their_own(place):
    clock = FakeClock(time.time())
    options = {**place.at(clock), "timeout": 600}
    app = wrap(count, options)
    old = serve(app).id
    clock.advance(700)
    answers = together(*[partial(serve, app, old)] * 50)
    assert {answer.status for answer in answers} == {"200 OK"}
    assert {answer.body for answer in answers} == {b"1"}
    ids = {answer.id for answer in answers}
    assert len(ids) == 50
    assert not ids & {old, None}
    found = Session({}, id=old, **options)
    assert (found.is_new, dict(found)) == (True, {})


@places()
def test_a_login_under_load_leaves_one_id_and_loses_nothing(place):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/login":
            session["user"] = "eve"
            session.regenerate_id()
        else:
            session[environ["PATH_INFO"]] = 1
        session.save()
        start_response("200 OK", [])
        return [b""]

    middleware = wrap(app, place.options)
    for _ in range(5):
        old = new_session(place.options, kept=1)
        paths = ["/login", *(f"/{number}" for number in range(20))]
        random.shuffle(paths)
        calls = [partial(serve, middleware, old.id, path) for path in paths]
        answers = dict(zip(paths, together(*calls), strict=True))
        login = answers.pop("/login")
        assert login.status == "200 OK"
        assert login.id not in (None, old.id)
        found = same(place.options, old)
        assert (found.is_new, found.reason) == (True, "unknown")
        saved = {path for path, answer in answers.items() if answer.status == "200 OK"}
        late = {path for path in saved if answers[path].id is not None}
        assert all(answers[path].status[:3] == "409" for path in answers.keys() - saved)
        assert len({answers[path].id for path in late} | {login.id}) == len(late) + 1
        expected = {"kept": 1, "user": "eve"} | dict.fromkeys(saved - late, 1)
        assert dict(Session({}, id=login.id, **place.options)) == expected


@places("swept")
def test_a_sweep_under_load_takes_no_living_session(place):
    clock = FakeClock(time.time())
    options = {**place.at(clock), "timeout": 600, "request_limit": 0.001}
    store = Session({}, **options)._backend.store
    assert isinstance(store, Purgeable)
    for _ in range(100):
        new_session(options, n=0)
    clock.advance(550)
    living = [new_session(options, n=0) for _ in range(20)]
    clock.advance(100)
    swept = threading.Event()
    until = time.monotonic() + 60

    def sweep():
        left = 100
        while left and time.monotonic() < until:
            left -= store.purge(7)
        swept.set()
        return left

    def use(sessions):
        turn = 0
        while turn < 20 or not swept.is_set():
            for one in sessions:
                found = same(options, one)
                assert (found.is_new, found["n"]) == (False, turn)
                found["n"] = turn + 1
                found.save()
            turn += 1
        return [turn] * len(sessions)

    parts = [living[number::4] for number in range(4)]
    left, *turns = together(sweep, *(partial(use, part) for part in parts))
    assert left == 0
    while store.purge(100):
        pass
    assert [[same(options, one)["n"] for one in part] for part in parts] == turns


@places()
def test_32_writers_on_one_key_all_finish(place):
    counter = new_session(place.options, n=0)

    def add():
        for _ in range(5):
            same(place.options, counter).mutate(lambda stored: stored.update(n=stored["n"] + 1))

    begun = time.monotonic()
    together(*[add] * 32)
    assert time.monotonic() - begun < 60
    assert same(place.options, counter)["n"] == 32 * 5


# -- clocks --------------------------------------------------------------------------------------


@places("shared")
def test_workers_whose_clocks_differ_by_30_seconds_agree(place):
    """A touch never sets the time back, and nothing expires for one and lives for the other as
    long as it is used."""
    real = FakeClock(time.time())
    fast = {**place.options, "clock": lambda: real() + 15, "timeout": 600}
    slow = {**place.options, "clock": lambda: real() - 15, "timeout": 600}
    made = new_session(slow, n=0)
    key = made._backend.ids.key(made.id)
    accessed = 0.0
    for turn in range(40):
        real.advance(100 if turn % 10 == 9 else 20)
        mine = same((fast, slow)[turn % 2], made)
        assert (mine.is_new, mine["n"]) == (False, 0)
        mine.save()  # nothing changed: a touch, if one is due
        now = place.store().load(key).accessed
        assert now >= accessed
        accessed = now
    assert accessed > real() - 200


DAY = 86400.0


def reads(place, clock, id, **options):
    """What a request under this id sees of the value `n`."""
    seen = []

    def app(environ, start_response):
        seen.append(session.get("n"))
        start_response("200 OK", [])
        return [b""]

    serve(wrap(app, {**place.at(clock), **options}), id)
    return seen[0]


@places()
def test_a_clock_that_jumps_a_day_ahead_and_back_revives_nothing(place):
    clock = FakeClock(time.time())
    id = new_session(place.at(clock), n=1).id
    clock.advance(DAY)
    assert reads(place, clock, id) is None
    late = new_session(place.at(clock), n=2).id
    clock.advance(-DAY)
    assert reads(place, clock, id) is None
    # What was made during the jump works, and lives no longer than anything else.
    lived = 0.0
    while reads(place, clock, late) == 2:
        clock.advance(900)
        lived += 900
        assert lived <= 12.5 * 3600
    assert lived == 12 * 3600


@places()
def test_a_clock_that_jumps_a_day_back_gives_no_longer_life(place, caplog):
    clock = FakeClock(time.time())
    id = new_session(place.at(clock), n=1).id
    clock.advance(-DAY)
    lived = 0.0
    while reads(place, clock, id) == 1:
        clock.advance(900)
        lived += 900
        assert lived <= 12.5 * 3600
    assert lived == 12 * 3600
    events = [record.event for record in caplog.records if hasattr(record, "event")]
    assert events.count("clock") == 1


# -- requests that break off ---------------------------------------------------------------------


class Boom(Exception):
    pass


def break_off(environ, start_response):
    """Set `a` and `b` alike, and fail where the path says."""
    where = environ["PATH_INFO"]
    session["a"] = session["b"] = where
    session.save()
    if where == "/raises":
        raise Boom
    if where == "/raises-after-start":
        start_response("200 OK", [])
        raise Boom
    return _breaking(where, start_response)


def _breaking(where, start_response):
    if where == "/raises-before-the-first-chunk":
        raise Boom
    start_response("200 OK", [])
    for turn in range(1000):
        session["a"] = session["b"] = f"{where} {turn}"
        session.save()
        if turn and where == "/raises-in-the-body":
            raise Boom
        yield b"x" * 65536


NEVER_SAVED = ("/raises", "/raises-after-start", "/raises-before-the-first-chunk")


@pytest.mark.parametrize("where", [*NEVER_SAVED, "/raises-in-the-body", "/closed", "/dropped"])
@places()
def test_a_request_that_breaks_off_saves_nothing_half_and_holds_nothing(place, where):
    """An exception, a GeneratorExit, a body that is dropped: the proxy is free, the two values
    are still alike, and the next request gets in at once."""
    made = new_session(place.options, a="before", b="before")
    app = wrap(break_off, place.options)
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": where,
        "HTTP_X_SESSION_ID": made.id,
        "wsgi.url_scheme": "http",
    }
    with contextlib.suppress(Boom):
        body = app(environ, lambda *_: print)
        try:
            for turn, _ in enumerate(body):
                if turn == 1 and where in ("/closed", "/dropped"):
                    break
        finally:
            if where != "/dropped":
                body.close()
        del body
    with pytest.raises(UnboundSessionError):
        session.get("a")
    seen = dict(same({**place.options, "deadline": DEADLINE}, made))
    assert seen["a"] == seen["b"]
    assert (seen["a"] == "before") == (where in NEVER_SAVED)
    after = same({**place.options, "deadline": DEADLINE}, made)
    began = time.monotonic()
    after["a"] = after["b"] = "after"
    after.save()
    assert time.monotonic() - began < DEADLINE
    assert dict(same(place.options, made)) == {"a": "after", "b": "after"}


@places()
def test_a_client_that_hangs_up_in_the_middle_leaves_a_whole_session(place):
    made = new_session(place.options, a="before", b="before")
    with serving(wrap(break_off, place.options)) as url:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 30) as raw:
                request = f"GET /hangs-up HTTP/1.1\r\nHost: x\r\nX-Session-Id: {made.id}\r\n\r\n"
                raw.sendall(request.encode())
                assert raw.recv(1000).startswith(b"HTTP/1.0 200")
        for _ in range(5):
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/other", headers={"X-Session-Id": made.id}),
                timeout=30,
            ) as answer:
                answer.read(100)
            seen = dict(same(place.options, made))
            assert seen["a"] == seen["b"] != "before"


# -- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, SECRET])
@places()
def test_an_id_that_is_in_use_is_drawn_again_and_never_overwritten(place, secret, monkeypatch):
    options = {**place.options, "secret": secret} if secret else place.options
    victim = new_session(options, user="victim")
    real, draws, drawn = os.urandom, [], 20 if secret else 32

    def repeating(size):
        if size != drawn:  # a nonce
            return real(size)
        return draws.pop() if draws else bytes(size)

    monkeypatch.setattr("nocookie.sealing.os.urandom", repeating)
    stuck = new_session(options, user="first")
    with pytest.raises(StoreError, match="repeats"):
        new_session(options, user="second")
    draws[:] = [real(drawn), bytes(drawn)]
    second = new_session(options, user="second")
    assert len({victim.id, stuck.id, second.id}) == 3
    found = [same(options, one)["user"] for one in (victim, stuck, second)]
    assert found == ["victim", "first", "second"]


@places()
def test_without_entropy_there_is_no_session_and_the_old_ones_go_on(place, monkeypatch):
    app = wrap(count, place.options)
    id = serve(app).id

    def fail(size):
        raise OSError("no entropy")

    monkeypatch.setattr("nocookie.sealing.os.urandom", fail)
    answer = serve(app)
    assert answer.status.startswith("503")
    assert answer.id is None
    assert serve(app, id).body == b"2"


# -- values --------------------------------------------------------------------------------------


class Unserialisable:
    def __reduce__(self):
        raise TypeError("not this")


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@places()
def test_a_value_that_cannot_be_serialised_is_named_and_changes_nothing(place, serializer):
    options = {**place.options, "data_serializer": serializer, "secret": SECRET}
    made = new_session(options, kept=1, gone=2)
    mine = same(options, made)
    mine["good"] = 1
    del mine["gone"]
    mine["the bad one"] = {"deep": [Unserialisable()]}
    with pytest.raises(ValueRefused, match="the bad one") as caught:
        mine.save()
    assert caught.value.key == "the bad one"
    assert dict(same(options, made)) == {"kept": 1, "gone": 2}
    del mine["the bad one"]
    mine.save()
    assert dict(same(options, made)) == {"kept": 1, "good": 1}


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def circle():
    value = []
    value.append(value)
    return value


ODD = {
    "nan": math.nan,
    "infinite": [math.inf, -math.inf, -0.0],
    "lone surrogate": "a\ud800b",
    "two lone surrogates": ["\ud83d", "\udf6a", "\ud83d\udf6a"],
    "nul": "\0",
    "deep": nested(60),
    "too deep": nested(100_000),
    "circle": circle(),
    "large": "x" * 900_000,
    "too large": "x" * 1_000_001,
    "many": list(range(50_000)),
    "large int": 10**3000,
    "too large int": 10**5000,
    "bytes": bytes(range(256)) * 100,
}
REFUSED = ("too deep", "circle", "too large", "too large int")
ODD_KEYS = {
    "lone surrogate": "a\ud800",
    "nul": "\0",
    "large": "k" * 100_000,
    "empty": "",
    "no text": 7,
    "bang": "!tuple",
}
REFUSED_KEYS = ("lone surrogate", "nul", "no text", "large")


@pytest.mark.parametrize("kind", ODD)
@places()
def test_an_odd_value_comes_back_as_it_was_or_is_refused(place, kind):
    value = ODD[kind]
    made = new_session(place.options, kept=1)
    mine = same(place.options, made)
    mine["odd"] = value
    if kind in REFUSED:
        with pytest.raises(ValueRefused, match="odd") as caught:
            mine.save()
        assert caught.value.key == "odd"
        assert dict(same(place.options, made)) == {"kept": 1}
        return
    mine.save()
    found = same(place.options, made)
    assert found["kept"] == 1
    assert repr(found["odd"]) == repr(value)
    assert type(found["odd"]) is type(value)


@pytest.mark.parametrize("kind", ODD_KEYS)
@places()
def test_an_odd_key_comes_back_as_it_was_or_is_refused(place, kind):
    key = ODD_KEYS[kind]
    made = new_session(place.options, kept=1)
    mine = same(place.options, made)
    if kind in REFUSED_KEYS:
        with pytest.raises(ValueRefused):
            (mine.update({key: "value"}), mine.save())
        assert dict(same(place.options, made)) == {"kept": 1}
        return
    mine[key] = "value"
    mine.save()
    assert dict(same(place.options, made)) == {"kept": 1, key: "value"}


# -- a server's worker that is told to stop ------------------------------------------------------

SERVED = """
import json
from nocookie import SessionMiddleware, session

def app(environ, start_response):
    name = environ["PATH_INFO"][1:]
    session[name] = session.get(name, 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % session[name]]

application = SessionMiddleware(app, use_cookies=False, **json.loads({options!r}))
"""


@places("shared")
def test_a_graceful_stop_under_load_loses_no_acknowledged_save(place, tmp_path):
    """gunicorn: reloaded twice under load, and then stopped."""
    needs("gunicorn")
    (tmp_path / "served.py").write_text(SERVED.format(options=json.dumps(place.options)))
    port = free_port()
    command = ["-m", "gunicorn", "--workers=2", "--threads=4", "--no-control-socket"]
    command += ["--graceful-timeout=5", f"--bind=127.0.0.1:{port}", "served:application"]
    made = new_session(place.options, kept=1)
    done = threading.Event()

    def ask(name):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", f"/{name}", headers={"X-Session-Id": made.id})
            answer = connection.getresponse()
            return answer.status, int(answer.read())
        finally:
            connection.close()

    def client(name):
        """Return what was acknowledged last."""
        acknowledged = 0
        while not done.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                status, number = ask(name)
                assert status == 200
                assert number > acknowledged, "an acknowledged save was lost"
                acknowledged = number
        return acknowledged

    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        )
    try:

        def answers():
            assert process.poll() is None, (tmp_path / "log").read_text()
            with contextlib.suppress(OSError):
                return ask("first")[0] == 200
            return False

        wait_until(answers, (tmp_path / "log").read_text)
        with ThreadPoolExecutor(4) as pool:
            clients = {name: pool.submit(client, name) for name in "abcd"}
            for told in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
                time.sleep(0.7)  # the load that it is about
                process.send_signal(told)
            process.wait(30)
            done.set()
            acknowledged = {name: one.result(60) for name, one in clients.items()}
    finally:
        done.set()
        process.kill()
        process.wait()
    found = dict(same(place.options, made))
    assert all(found[name] >= number > 5 for name, number in acknowledged.items()), acknowledged
    assert "Traceback" not in (tmp_path / "log").read_text()
