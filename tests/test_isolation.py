"""Each request has its own session, whatever runs beside it, and leaves nothing behind."""

import asyncio
import contextvars
import gc
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from webob import Request

import nocookie
from nocookie import Header, Query, SessionMiddleware, UnboundSessionError, session
from nocookie.stores.memory import MemoryStore

THREADS, REQUESTS = 16, 500


class Boom(Exception):
    pass


def make_ids(app, names):
    """Store one session for each name, holding it, and return their ids."""
    ids = {}
    for name in names:
        made = nocookie.Session({}, backend=app.manager.backend)
        made["me"] = name
        made.save()
        ids[name] = made.id
    return ids


def call(app, id, *, iterate=True, close=True, path="/"):
    """Make a request as a server would, or as one that loses its client would."""
    environ = Request.blank(path, headers={"X-Session-Id": id}).environ
    said = []
    body = app(environ, lambda status, headers, exc_info=None: said.append(status))
    chunks = []
    try:
        if iterate:
            chunks.extend(body)
    finally:
        if close and hasattr(body, "close"):
            body.close()
    return b"".join(chunks).decode()


def application(environ, start_response):
    """Answer who the session says it is, in one of many ways."""
    kind = environ["PATH_INFO"]
    me = session["me"]
    if kind == "/raise":
        raise Boom
    if kind == "/stream":
        return stream(start_response, me)
    start_response("200 OK", [])
    if kind == "/write":
        session["seen"] = session.get("seen", 0) + 1
        session.save()
    assert session["me"] == me
    return [me.encode()]


def stream(start_response, me):
    start_response("200 OK", [])
    for _ in range(3):
        assert session["me"] == me
        yield session["me"].encode()


def one_request(app, ids, name, chance):
    kind = chance.choice(["/", "/write", "/raise", "/stream", "/drop"])
    try:
        if kind == "/drop":
            call(app, ids[name], path="/stream", iterate=False, close=False)
            return
        answer = call(app, ids[name], path=kind)
    except Boom:
        assert kind == "/raise"
    else:
        assert answer == (name * 3 if kind == "/stream" else name)
    with pytest.raises(UnboundSessionError):
        session.get("me")


@pytest.fixture
def app():
    return SessionMiddleware(application, use_cookies=False, type=MemoryStore())


def test_threads_do_not_cross_and_keep_nothing(app):
    names = [f"visitor {n}" for n in range(THREADS)]
    ids = make_ids(app, names)

    def work(name):
        chance = random.Random(name)
        for _ in range(REQUESTS):
            one_request(app, ids, name, chance)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, names))


def test_asyncio_tasks_do_not_cross_and_keep_nothing(app):
    names = [f"visitor {n}" for n in range(THREADS)]
    ids = make_ids(app, names)

    async def work(name):
        chance = random.Random(name)
        for turn in range(REQUESTS):
            if turn % 20 == 0:
                await asyncio.to_thread(one_request, app, ids, name, chance)
            else:
                one_request(app, ids, name, chance)
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*map(work, names))

    asyncio.run(main())


def test_interleaved_streams_in_one_thread_do_not_cross(app):
    names = [f"visitor {n}" for n in range(8)]
    ids = make_ids(app, names)
    bodies = {}
    for name in names:
        environ = Request.blank("/stream", headers={"X-Session-Id": ids[name]}).environ
        bodies[name] = app(environ, lambda *_: None)
    for _ in range(3):
        for name in names:
            assert next(bodies[name]).decode() == name
    for body in bodies.values():
        body.close()


GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent, random, sys
sys.path.insert(0, {folder!r})
import test_isolation as t
from nocookie import SessionMiddleware
from nocookie.stores.memory import MemoryStore
app = SessionMiddleware(t.application, use_cookies=False, type=MemoryStore())
names = [f"visitor {{n}}" for n in range(t.THREADS)]
ids = t.make_ids(app, names)
done = []
def work(name):
    chance = random.Random(name)
    for _ in range(t.REQUESTS):
        t.one_request(app, ids, name, chance)
        gevent.sleep(0)
    done.append(name)
gevent.joinall([gevent.spawn(work, name) for name in names], raise_error=True)
assert sorted(done) == sorted(names)
print("done")
"""


def test_greenlets_do_not_cross_and_keep_nothing(tmp_path):
    if not _has("gevent"):
        pytest.skip("gevent is not installed")
    ran = subprocess.run(
        [sys.executable, "-c", GEVENT.format(folder=os.path.dirname(__file__))],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.stdout.strip() == "done", ran.stderr


def _has(module):
    import importlib.util

    found = importlib.util.find_spec(module) is not None
    assert found or not os.environ.get("CI"), f"{module} is missing, and this is CI"
    return found


@pytest.mark.parametrize("way", ["recipe", "rebuild"])
def test_sixteen_threads_at_the_same_line_change_only_their_own(way):
    """All threads are in the middle of the recipe at once, each on its own id."""
    barrier = threading.Barrier(THREADS)
    ids = {}

    def app(environ, start_response):
        mine = environ["QUERY_STRING"]
        real = session._get_current_obj()
        params = real.__dict__["_params"]
        barrier.wait()
        if way == "recipe":
            params["id"] = ids[mine]
            barrier.wait()
            assert params["id"] == ids[mine]
            real.__dict__["_sess"] = nocookie.Session({}, **params)
        else:
            session.rebuild(ids[mine])
            barrier.wait()
            assert params["id"] is None
        barrier.wait()
        assert session["me"] == mine
        session["visits"] = session.get("visits", 0) + 1
        session.save()
        start_response("200 OK", [])
        return [session["me"].encode()]

    middleware = SessionMiddleware(app, use_cookies=False, find_id=Query(), type=MemoryStore())
    names = [f"visitor{n}" for n in range(THREADS)]
    ids.update(make_ids(middleware, names))

    def work(name):
        for _ in range(20):
            environ = Request.blank(f"/?{name}").environ
            assert b"".join(middleware(environ, lambda *_: None)).decode() == name

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, names))
    for name in names:
        stored = nocookie.Session({}, ids[name], backend=middleware.manager.backend)
        assert (stored["me"], stored["visits"]) == (name, 20)


def test_outside_a_request_the_proxy_says_what_to_do():
    with pytest.raises(UnboundSessionError, match="SessionMiddleware") as caught:
        session["a"]
    assert isinstance(caught.value, RuntimeError)
    assert repr(session) == "<nocookie.session, unbound>"
    assert not hasattr(session, "__wrapped__")


def test_the_application_sees_context_variables_from_outside_and_keeps_its_own():
    outer = contextvars.ContextVar("outer", default="unset")

    def app(environ, start_response):
        assert outer.get() == "set by the server"
        outer.set("set by the application")
        start_response("200 OK", [])
        return [b""]

    outer.set("set by the server")
    list(SessionMiddleware(app, use_cookies=False)(Request.blank("/").environ, lambda *_: None))
    assert outer.get() == "set by the server"


@pytest.mark.parametrize("path", ["/", "/write", "/raise", "/stream", "/untouched"])
def test_a_request_leaves_nothing_for_the_garbage_collector(path):
    def app(environ, start_response):
        if path == "/untouched":
            start_response("200 OK", [])
            return [b""]
        return application(environ, start_response)

    middleware = SessionMiddleware(app, use_cookies=False, type=MemoryStore(), find_id=Header())
    (id,) = make_ids(middleware, ["me"]).values()

    def request():
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "HTTP_X_SESSION_ID": id,
            "wsgi.url_scheme": "http",
        }
        body = ()
        try:
            # Servers hold environ; so does their start_response.
            body = middleware(environ, lambda *said: environ and None)
            for _ in body:
                pass
        except Boom:
            pass
        finally:
            if hasattr(body, "close"):
                body.close()

    request()
    gc.collect()
    gc.disable()
    try:
        # What threads of earlier tests leave meanwhile is not ours, and does not come each time.
        for _ in range(3):
            for _ in range(1000):
                request()
            freed = gc.collect()
            if not freed:
                break
        assert freed == 0
    finally:
        gc.enable()
