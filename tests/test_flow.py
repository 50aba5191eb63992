"""The commit point: when a request writes, once, before the first byte leaves."""

import logging
import sys
import threading
import wsgiref.validate
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from wsgiref.util import FileWrapper

import pytest
from helpers import Answer, CountingStore, serve
from webob import Request

import nocookie
from nocookie import Cookie, Form, Header, PathParam, Query, Session, SessionMiddleware, session
from nocookie.ids import RandomIds


@pytest.fixture
def store():
    return CountingStore()


@pytest.fixture
def wrap(store):
    def wrap(app, **options):
        options.setdefault("use_cookies", False)
        return SessionMiddleware(app, type=store, **options)

    return wrap


def stored(middleware, id):
    """What is stored under *id*, or None."""
    found = nocookie.Session({}, id, backend=middleware.manager.backend)
    return None if found.is_new else dict(found)


def test_a_returned_list_is_committed_before_the_head_leaves(wrap, store):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [])
        assert store.trips == []
        return [b"body"]

    answer = serve(wrap(app))
    assert store.trips == ["create"]
    assert answer.log == ["head", "chunk"]
    assert answer.id


def test_a_generator_is_committed_before_its_first_chunk_leaves(wrap, store):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [])
        yield b"one"
        assert store.trips == ["create"]
        yield b"two"

    answer = serve(wrap(app))
    assert (answer.body, answer.log) == (b"onetwo", ["head", "chunk", "chunk"])
    assert answer.id


def test_a_lazy_body_is_committed_when_the_application_returns_it(wrap, store):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [])

        def body():
            assert store.trips == ["create"]
            yield b"one"

        return body()

    assert serve(wrap(app)).id


def test_write_commits_first(wrap, store):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        write = start_response("200 OK", [])
        assert store.trips == []
        write(b"written")
        assert store.trips == ["create"]
        return [b"returned"]

    answer = serve(wrap(app))
    assert (answer.body, answer.log) == (b"writtenreturned", ["head", "write", "chunk"])
    assert answer.id


def test_a_body_without_chunks_is_committed(wrap, store):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("204 No Content", [])
        return
        yield

    answer = serve(wrap(app))
    assert (answer.status, answer.body, store.trips) == ("204 No Content", b"", ["create"])


def test_an_empty_chunk_before_the_head_is_passed_on(wrap):
    def app(environ, start_response):
        yield b""
        start_response("200 OK", [])
        yield b"late"

    answer = serve(wrap(app))
    assert (answer.status, answer.body) == ("200 OK", b"late")


def test_an_application_that_raises_commits_nothing(wrap, store):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(wrap(app))
    assert store.trips == []


def test_a_generator_that_raises_before_its_first_chunk_commits_nothing(wrap, store):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [])
        raise ZeroDivisionError
        yield

    with pytest.raises(ZeroDivisionError):
        serve(wrap(app))
    assert store.trips == []


def test_exc_info_replaces_the_head_that_has_not_left(wrap):
    def app(environ, start_response):
        start_response("200 OK", [("X-First", "1")])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Oops", [("X-Second", "2")], sys.exc_info())
        return [b"sorry"]

    answer = serve(wrap(app))
    assert (answer.status, answer.headers) == ("500 Oops", [("X-Second", "2")])
    assert answer.log == ["head", "chunk"]


def test_exc_info_after_the_head_left_raises_the_error(wrap):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"begun"
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Oops", [], sys.exc_info())
        yield b"never"

    with pytest.raises(ZeroDivisionError):
        serve(wrap(app))


def test_two_heads_without_exc_info_are_an_error(wrap):
    def app(environ, start_response):
        start_response("200 OK", [])
        start_response("200 OK", [])
        return []

    with pytest.raises(AssertionError):
        serve(wrap(app))


def test_a_shared_header_list_is_never_changed(wrap):
    shared = [("Content-Type", "text/plain")]

    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", shared)
        return [b""]

    middleware = wrap(app)
    assert serve(middleware).id != serve(middleware).id
    assert shared == [("Content-Type", "text/plain")]


def test_close_is_called_once_whether_or_not_the_body_is_read(wrap):
    closed = []

    class Body:
        def __iter__(self):
            return iter([b"x"])

        def close(self):
            closed.append(session["a"])  # the session is still bound

    def app(environ, start_response):
        session["a"] = "mine"
        start_response("200 OK", [])
        return Body()

    serve(wrap(app))
    body = wrap(app)(Request.blank("/").environ, lambda *_: None)
    body.close()
    assert closed == ["mine", "mine"]


def test_a_file_is_handed_to_the_server_as_it_is(wrap, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"content")

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open(file, "rb"))

    environ = Request.blank("/").environ
    environ["wsgi.file_wrapper"] = FileWrapper
    body = wrap(app)(environ, lambda *_: None)
    assert type(body) is FileWrapper
    body.close()


# -- late changes --------------------------------------------------------------------------------


def test_a_late_save_is_written_when_the_body_is_closed(wrap, store):
    def app(environ, start_response):
        session["early"] = 1
        session.save()
        start_response("200 OK", [])

        def body():
            yield b"one"
            session["late"] = 2
            session.save()
            yield b"two"

        return body()

    middleware = wrap(app)
    answer = serve(middleware)
    assert stored(middleware, answer.id) == {"early": 1, "late": 2}


def test_a_late_first_save_cannot_be_told_and_is_reported(wrap, store, caplog):
    def app(environ, start_response):
        start_response("200 OK", [])

        def body():
            yield b"one"
            session["late"] = 2
            session.save()

        return body()

    assert serve(wrap(app)).id is None
    assert "create" not in store.trips
    assert [r.event for r in caplog.records if r.levelname == "WARNING"] == ["lost"]


def test_a_late_rotation_is_not_done_and_is_reported(wrap, store, caplog):
    def app(environ, start_response):
        if session.is_new:
            session["a"] = 1
            session.save()
            start_response("200 OK", [])
            return [b""]
        start_response("200 OK", [])

        def body():
            yield b"one"
            session.regenerate_id()

        return body()

    middleware = wrap(app)
    id = serve(middleware).id
    serve(middleware, id)
    assert stored(middleware, id) == {"a": 1}
    assert [r.event for r in caplog.records if r.levelname == "WARNING"] == ["lost"]


def test_a_late_save_of_a_session_that_ended_is_reported(wrap, store, caplog):
    def app(environ, start_response):
        session["a"] = session.get("a", 0) + 1
        session.save()
        start_response("200 OK", [])

        def body():
            yield b"one"
            nocookie.Session({}, session.id, backend=middleware.manager.backend).delete()
            session["late"] = 2
            session.save()

        return body()

    middleware = wrap(app)
    id = serve(middleware).id
    assert stored(middleware, id) is None
    assert "lost" in [r.event for r in caplog.records if r.levelname == "WARNING"]


def test_a_session_that_is_only_read_in_the_stream_stays_alive(clock):
    store = CountingStore(clock=clock)

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/write":
            session["n"] = 1
            session.save()
        start_response("200 OK", [])
        return (str(session.get("n")).encode() for _ in range(1))

    middleware = SessionMiddleware(app, use_cookies=False, type=store, clock=clock)
    id = serve(middleware, path="/write").id
    for _ in range(5):
        clock.advance(1000)
        assert serve(middleware, id).body == b"1"


def test_a_late_save_without_data_loses_nothing_and_says_nothing(wrap, caplog):
    def app(environ, start_response):
        start_response("200 OK", [])

        def body():
            yield b"one"
            session.save()

        return body()

    serve(wrap(app))
    assert caplog.records == []


@pytest.mark.parametrize("closed", ["once", "never"])
def test_a_late_save_is_written_at_the_end_of_the_body_whether_or_not_it_is_closed(
    wrap, store, closed
):
    def app(environ, start_response):
        session["early"] = 1
        session.save()
        start_response("200 OK", [])

        def body():
            yield b"one"
            session["late"] = 2
            session.save()

        return body()

    body = wrap(app)(Request.blank("/").environ, lambda *_: None)
    assert list(body) == [b"one"]
    assert store.trips == ["create", "save"]
    if closed == "once":
        body.close()
        assert store.trips == ["create", "save"]


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("kind", ["new", "gone", "down"])
def test_what_is_lost_is_said_once_though_a_body_ends_and_is_closed(
    wrap, store, caplog, kind, auto
):
    def app(environ, start_response):
        if kind != "new":
            session["early"] = 1
            session.save()
        start_response("200 OK", [])

        def body():
            yield b"one"
            session["late"] = 2
            session.save()
            if kind != "new":
                store.fail("save", gone=kind == "gone")

        return body()

    serve(wrap(app, auto=auto))
    assert store.trips.count("save") == (kind != "new")
    assert [r.event for r in caplog.records].count("lost") == 1


def test_what_close_saves_after_the_end_of_the_body_is_written_too(wrap, store):
    class Body:
        def __iter__(self):
            yield b"one"
            session["late"] = 1
            session.save()

        def close(self):
            session["at close"] = session["late"] + 1
            session.save()

    def app(environ, start_response):
        session["early"] = 0
        session.save()
        start_response("200 OK", [])
        return Body()

    middleware = wrap(app)
    answer = serve(middleware)
    assert stored(middleware, answer.id) == {"early": 0, "late": 1, "at close": 2}
    assert store.trips[:3] == ["create", "save", "save"]


def test_a_late_save_is_lost_where_the_client_keeps_the_session(caplog):
    """With `type = cookie`: the head is gone that could have told it."""

    def app(environ, start_response):
        session["early"] = 1
        session.save()
        start_response("200 OK", [])

        def body():
            yield b"one"
            session["late"] = 2
            session.save()

        return body()

    serve(SessionMiddleware(app, use_cookies=True, type="cookie", secret="s" * 32))
    assert [r.event for r in caplog.records].count("lost") == 1


def test_a_renewal_that_fails_late_is_no_change_that_is_lost(clock, caplog):
    store = CountingStore(clock=clock)

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/write":
            session["n"] = 1
            session.save()
        start_response("200 OK", [])
        return (str(session.get("n")).encode() for _ in range(1))

    middleware = SessionMiddleware(app, use_cookies=False, type=store, clock=clock)
    id = serve(middleware, path="/write").id
    clock.advance(1000)
    store.fail("touch")
    assert serve(middleware, id).body == b"1"
    assert store.trips.count("touch") == 1
    warnings = [record.event for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["store error"]


# -- bodies whose head was never started: the application has taken the socket over ----------------


class Taken:
    """An application that takes the socket over, in one of several ways."""

    def __init__(self, how, work):
        self.how, self.work = how, work

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/begin":
            session["n"] = 1
            session.save()
            start_response("200 OK", [])
            return [b""]
        if self.how == "generator":
            return self.body()
        self.work()
        if self.how == "raises":
            raise StopIteration
        return () if self.how == "tuple" else []

    def body(self):
        self.work()
        yield from ()


WAYS = ["list", "tuple", "generator", "raises"]
SOCKET = {"Upgrade": "websocket", "Connection": "Upgrade"}


@pytest.mark.parametrize("how", WAYS)
def test_a_save_of_one_that_has_taken_the_socket_over_is_written(wrap, store, how):
    def work():
        session["n"] += 1
        session.save()

    middleware = wrap(Taken(how, work))
    id = serve(middleware, path="/begin").id
    store.trips.clear()
    answer = taken_over(middleware, id)
    assert (answer.log, store.trips) == ([], ["load", "save"])
    assert stored(middleware, id) == {"n": 2}


@pytest.mark.parametrize("how", WAYS)
def test_one_that_has_taken_the_socket_over_and_only_reads_renews(clock, how):
    store = CountingStore(clock=clock)
    app = Taken(how, lambda: session["n"])
    middleware = SessionMiddleware(app, use_cookies=False, type=store, clock=clock)
    id = serve(middleware, path="/begin").id
    for _ in range(5):
        clock.advance(1000)
        taken_over(middleware, id)
    assert stored(middleware, id) == {"n": 1}


@pytest.mark.parametrize("how", WAYS)
def test_a_new_session_of_one_that_has_taken_the_socket_over_is_lost(wrap, store, caplog, how):
    def work():
        session["n"] = 1
        session.save()

    taken_over(wrap(Taken(how, work)), None)
    assert store.trips == []
    assert [r.event for r in caplog.records] == ["lost"]


def test_a_listener_cannot_refuse_a_client_that_has_taken_the_socket_over(wrap, caplog):
    def refuse(event):
        if event.name == "lost":
            raise nocookie.TooManyTries(60)

    def work():
        session["n"] = 1
        session.save()

    assert taken_over(wrap(Taken("list", work), on_event=refuse), None).log == []


def test_stop_iteration_is_an_error_like_any_other_where_nobody_asked_for_the_socket(wrap, store):
    def work():
        session["n"] += 1
        session.save()

    middleware = wrap(Taken("raises", work))
    id = serve(middleware, path="/begin").id
    with pytest.raises(StopIteration):
        serve(middleware, id)
    assert stored(middleware, id) == {"n": 1}


@pytest.mark.parametrize("started", [False, True])
def test_a_body_that_raises_before_the_commit_saves_nothing_when_it_is_closed(wrap, store, started):
    class Body:
        def __iter__(self):
            return self

        def __next__(self):
            session["n"] = 2
            session.save()
            raise ZeroDivisionError

        def close(self):
            session["n"] = 3
            session.save()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/begin":
            session["n"] = 1
            session.save()
            start_response("200 OK", [])
            return [b""]
        if started:

            def body():
                start_response("200 OK", [])
                yield from Body()

            return body()
        return Body()

    middleware = wrap(app)
    id = serve(middleware, path="/begin").id
    with pytest.raises(ZeroDivisionError):
        serve(middleware, id)
    assert stored(middleware, id) == {"n": 1}


def taken_over(middleware, id):
    try:
        return serve(middleware, id, headers=SOCKET)
    except StopIteration:
        return Answer()


# -- one context ----------------------------------------------------------------------------------

mark = ContextVar("mark", default=0)


def test_what_is_set_in_the_call_can_be_reset_in_the_body_and_in_its_close(wrap):
    seen = []

    class Body:
        def __init__(self):
            self.token = mark.set(1)
            self.pieces = iter([b"a", b"b"])

        def __iter__(self):
            return self

        def __next__(self):
            mark.set(mark.get() + 1)
            return next(self.pieces)

        def close(self):
            seen.append(mark.get())
            mark.reset(self.token)
            seen.append(mark.get())

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body()

    assert serve(wrap(app)).body == b"ab"
    assert seen == [4, 0]
    assert mark.get() == 0


def test_a_body_that_is_closed_while_it_works_is_closed_in_a_copy_of_its_context(wrap):
    """As a thread or a greenlet does that gives up on a client which does not read."""
    seen = []
    works, ends = threading.Event(), threading.Event()

    class Body:
        def __iter__(self):
            return self

        def __next__(self):
            works.set()
            assert ends.wait(60)
            seen.append((mark.get(), session["n"]))
            raise StopIteration

        def close(self):
            seen.append((mark.get(), session["n"]))

    def app(environ, start_response):
        mark.set(1)
        session["n"] = 7
        start_response("200 OK", [])
        return Body()

    body = wrap(app)(Request.blank("/").environ, lambda *_: None)
    with ThreadPoolExecutor(1) as pool:
        reads = pool.submit(list, body)
        assert works.wait(60)
        try:
            body.close()
        finally:
            ends.set()
        assert reads.result(60) == []
    assert seen == [(1, 7), (1, 7)]


def test_a_body_that_reads_itself_on_is_read_on(wrap):
    """Whoever is further out in a step of the same body, it goes on without an exception."""
    bodies = []

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body()

    class Body:
        depth = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.depth += 1
            if self.depth == 1:
                return next(bodies[0])
            if self.depth == 2:
                return b"inner"
            raise StopIteration

    bodies.append(wrap(app)(Request.blank("/").environ, lambda *_: None))
    assert list(bodies[0]) == [b"inner"]


def test_a_runtime_error_of_the_application_is_its_own(wrap):
    calls = []

    def app(environ, start_response):
        start_response("200 OK", [])

        class Body:
            def __iter__(self):
                return self

            def __next__(self):
                calls.append(1)
                raise RuntimeError("cannot enter context: said by the application")

        return Body()

    with pytest.raises(RuntimeError, match="said by the application"):
        serve(wrap(app))
    assert calls == [1]


def test_a_save_after_the_request_is_an_error(wrap):
    kept = []

    def app(environ, start_response):
        session["a"] = 1
        kept.append(environ["nocookie.session"])
        start_response("200 OK", [])
        return [b""]

    serve(wrap(app))
    with pytest.raises(nocookie.UnboundSessionError, match="over"):
        kept[0].save()


# -- several passes ------------------------------------------------------------------------------


def test_nested_middleware_is_one_session_one_load_and_one_commit(wrap, store):
    def app(environ, start_response):
        session["n"] = session.get("n", 0) + 1
        session.save()
        start_response("200 OK", [])
        return [str(session["n"]).encode()]

    middleware = wrap(wrap(app))
    first = serve(middleware)
    assert store.trips == ["create"]
    assert [name for name, _ in first.headers].count("X-Session-Id") == 1
    store.trips.clear()
    assert serve(middleware, first.id).body == b"2"
    assert store.trips == ["load", "save"]


def test_between_nested_middlewares_the_session_is_still_open(wrap, store):
    def app(environ, start_response):
        session["inner"] = 1
        session.save()
        start_response("200 OK", [])
        return [b""]

    inner = wrap(app)

    def between(environ, start_response):
        said = []
        body = inner(environ, lambda *args: said.append(args))
        session["between"] = 2
        session.save()
        start_response(*said[0])
        return body

    middleware = wrap(between)
    answer = serve(middleware)
    assert store.trips == ["create"]
    assert stored(middleware, answer.id) == {"inner": 1, "between": 2}


def test_an_internal_redirect_keeps_the_session_and_tells_it_once(wrap, store):
    def app(environ, start_response):
        session["n"] = session.get("n", 0) + 1
        session.save()
        status = "404 Not Found" if environ["PATH_INFO"] == "/missing" else "200 OK"
        start_response(status, [])
        return [str(session["n"]).encode()]

    middleware = wrap(app)

    def error_documents(environ, start_response):
        said = []
        body = middleware(environ, lambda *args: said.append(args))
        if said[0][0].startswith("404"):
            environ["PATH_INFO"] = "/error-page"
            return middleware(environ, start_response)
        start_response(*said[0])
        return body

    answer = serve(error_documents, path="/missing")
    assert (answer.status, answer.body) == ("200 OK", b"2")
    assert store.trips == ["create", "save"]
    assert stored(middleware, answer.id) == {"n": 2}


def test_an_internal_redirect_need_not_close_the_first_body_before(wrap, store):
    def app(environ, start_response):
        session["n"] = session.get("n", 0) + 1
        session.save()
        start_response("200 OK", [])
        return (part for part in [str(session["n"]).encode(), b"!"])

    middleware = wrap(app)

    def error_documents(environ, start_response):
        first = middleware(environ, lambda *args: None)
        second = middleware(environ, start_response)
        first.close()
        return second

    answer = serve(error_documents)
    assert answer.body == b"2!"
    assert stored(middleware, answer.id) == {"n": 2}


def test_a_body_that_cannot_be_read_costs_the_id_and_no_more(wrap, caplog):
    class Broken:
        def read(self, size=-1):
            raise OSError("the client is gone")

    environ = Request.blank("/read", method="POST").environ | {
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": "10",
        "wsgi.input": Broken(),
    }
    assert serve(wrap(visit, find_id="form:sid"), environ=environ).status == "200 OK"
    assert [r.event for r in caplog.records] == ["finder failed"]


def test_what_raised_is_not_saved_by_the_error_page(wrap, store):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/error":
            session.get("x")
            start_response("500 Oops", [])
            return [b"sorry"]
        session["evil"] = 1
        session.save()
        raise ZeroDivisionError

    middleware = wrap(app)

    def error_documents(environ, start_response):
        try:
            return middleware(environ, start_response)
        except ZeroDivisionError:
            environ["PATH_INFO"] = "/error"
            return middleware(environ, start_response)

    answer = serve(error_documents)
    assert (answer.body, answer.id, store.trips) == (b"sorry", None, [])


def test_two_middlewares_one_after_the_other_have_a_session_each(store):
    other = CountingStore()
    one = SessionMiddleware(visit, use_cookies=False, type=store)
    two = SessionMiddleware(visit, use_cookies=False, type=other, secret="s" * 32)

    def cascade(environ, start_response):
        list(one(environ, lambda *args: None))
        return two(environ, start_response)

    answer = serve(cascade, path="/write")
    assert (store.trips, other.trips) == (["create"], ["create"])
    assert stored(two, answer.id) == {"n": 1}


def test_two_middlewares_under_two_keys_are_two_sessions(store):
    def app(environ, start_response):
        environ["a.session"]["who"] = "a"
        environ["a.session"].save()
        environ["b.session"]["who"] = "b"
        environ["b.session"].save()
        start_response("200 OK", [])
        return [b""]

    inner = SessionMiddleware(
        app, environ_key="b.session", use_cookies=False, type=store, find_id=Header("X-B")
    )
    outer = SessionMiddleware(
        inner, environ_key="a.session", use_cookies=False, type=store, find_id=Header("X-A")
    )
    answer = serve(outer)
    assert stored(outer, answer.header("X-A")) == {"who": "a"}
    assert stored(outer, answer.header("X-B")) == {"who": "b"}


# -- what it costs -------------------------------------------------------------------------------


def visit(environ, start_response):
    kind = environ["PATH_INFO"]
    if kind == "/read":
        session.get("n")
    elif kind == "/write":
        session["n"] = session.get("n", 0) + 1
        session.save()
    start_response("200 OK", [])
    return [b""]


@pytest.mark.parametrize(
    ("path", "id", "trips"),
    [
        ("/", "known", []),
        ("/read", None, []),
        ("/read", "junk", []),
        ("/read", "known", ["load"]),
        ("/write", None, ["create"]),
        ("/write", "junk", ["create"]),
        ("/write", "known", ["load", "save"]),
    ],
)
def test_trips_to_the_store_are_as_promised(wrap, store, path, id, trips):
    middleware = wrap(visit)
    known = serve(middleware, path="/write").id
    store.trips.clear()
    serve(middleware, known if id == "known" else id, path=path)
    assert store.trips == trips


def test_a_due_touch_costs_one_more_and_is_not_due_often(clock):
    store = CountingStore(clock=clock)
    middleware = SessionMiddleware(visit, use_cookies=False, type=store, clock=clock)
    id = serve(middleware, path="/write").id
    trips = []
    for _ in range(7):
        clock.advance(20)
        store.trips.clear()
        serve(middleware, id, path="/read")
        trips.append("touch" in store.trips)
    assert trips == [False, False, False, True, False, False, False]


# -- headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("touch", ["in", "len", "get", "is_new", "iter", "reason"])
def test_vary_names_the_header_whenever_the_session_was_consulted(wrap, touch):
    def app(environ, start_response):
        {
            "in": lambda: "a" in session,
            "len": lambda: len(session),
            "get": lambda: session.get("a"),
            "is_new": lambda: session.is_new,
            "iter": lambda: list(session),
            "reason": lambda: session.reason,
        }[touch]()
        start_response("200 OK", [("Vary", "Accept")])
        return [b""]

    answer = serve(wrap(app))
    assert answer.header("Vary") == "Accept, X-Session-Id"


def test_an_untouched_session_adds_no_header(wrap):
    answer = serve(wrap(visit, find_id=[Header(), Query()]), "A" * 43)
    assert answer.headers == []


def test_vary_is_not_said_twice_and_not_beside_a_star(wrap):
    def app(environ, start_response):
        session.get("a")
        start_response("200 OK", [("vary", environ["PATH_INFO"][1:])])
        return [b""]

    middleware = wrap(app)
    assert serve(middleware, path="/x-session-id").header("Vary") == "x-session-id"
    assert serve(middleware, path="/*").header("Vary") == "*"


def test_a_response_with_an_id_is_not_stored_by_caches(wrap):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [("Cache-Control", "public, max-age=60")])
        return [b""]

    assert serve(wrap(app)).header("Cache-Control") == "no-store"


@pytest.mark.parametrize("find_id", [Query(), lambda request: None])
def test_a_page_that_hands_out_the_id_by_itself_is_not_stored_by_caches(wrap, find_id):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [("Cache-Control", "public")])
        return [f'<a href="?sid={session.id}">'.encode()]

    answer = serve(wrap(app, find_id=find_id, id_header="none"))
    assert answer.header("Cache-Control") == "no-store"


def test_an_id_is_not_said_twice(wrap):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [("X-Session-Id", session.id)])
        return [b""]

    assert len(serve(wrap(app)).id) == 43


def test_one_id_in_two_carriers_is_looked_up_once(wrap, store):
    middleware = wrap(visit, find_id=[Header("X-A"), Header("X-B")])
    id = nocookie.Session({}, backend=middleware.manager.backend).id
    serve(middleware, path="/read", headers={"X-A": id, "X-B": id})
    assert store.trips == ["load"]


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (None, "same-origin"),
        ("unsafe-url", "same-origin"),
        ("origin", "same-origin"),
        ("no-referrer", "no-referrer"),
        ("same-origin", "same-origin"),
    ],
)
def test_with_a_url_carrier_the_referrer_policy_is_strict(wrap, said, sent):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [("Referrer-Policy", said)] if said else [])
        return [b""]

    assert serve(wrap(app, find_id=Query())).header("Referrer-Policy") == sent


@pytest.mark.parametrize(
    ("origin", "exposed"),
    [
        (None, None),
        ("http://localhost", None),
        ("https://localhost", "X-Session-Id"),
        ("http://elsewhere.example", "X-Session-Id"),
        ("null", "X-Session-Id"),
    ],
)
def test_browser_code_of_another_origin_may_read_the_id(wrap, origin, exposed):
    headers = {"Host": "localhost"} | ({"Origin": origin} if origin else {})
    answer = serve(wrap(visit), path="/write", headers=headers)
    assert answer.header("Access-Control-Expose-Headers") == exposed


def test_what_is_exposed_already_stays_exposed(wrap):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [("Access-Control-Expose-Headers", "X-Total")])
        return [b""]

    answer = serve(wrap(app), headers={"Origin": "https://elsewhere.example"})
    assert answer.header("Access-Control-Expose-Headers") == "X-Total, X-Session-Id"


def test_the_announcement_can_be_renamed_and_switched_off(wrap):
    renamed = serve(wrap(visit, find_id=Query(), id_header="X-Sid"), path="/write")
    assert len(renamed.header("X-Sid")) == 43
    silent = serve(wrap(visit, find_id=Query(), id_header="none"), path="/write")
    assert not any(len(value) == 43 for _, value in silent.headers)


def test_a_known_id_goes_back_only_by_the_carrier_that_brought_it(wrap):
    def app(environ, start_response):
        session["n"] = 1
        session.regenerate_id()
        start_response("200 OK", [])
        return [b""]

    middleware = wrap(app, find_id=[Header("X-A"), Header("X-B")])
    first = serve(middleware)
    assert first.header("X-A")
    assert first.header("X-B") is None
    second = serve(middleware, headers={"X-B": first.header("X-A")})
    assert second.header("X-A") is None
    assert second.header("X-B") not in (None, first.header("X-A"))


def test_the_application_can_ask_which_carrier_brought_the_session(wrap):
    seen = []

    def app(environ, start_response):
        seen.append(session.carrier)
        session["a"] = 1
        session.save()
        start_response("200 OK", [])
        return []

    header, query = Header("X-Sid"), Query("sid")
    middleware = wrap(app, find_id=[header, query])
    id = serve(middleware).header("X-Sid")
    serve(middleware, path=f"/?sid={id}")
    serve(middleware, path=f"/?sid={id}", headers={"X-Sid": "A" * 43})
    serve(middleware, headers={"X-Sid": id})
    serve(middleware, headers={"X-Sid": "A" * 43})
    assert seen == [None, query, query, header, None]


def test_if_the_store_does_not_know_the_first_id_the_next_one_counts(wrap, caplog):
    middleware = wrap(visit, find_id=[Header("X-A"), Header("X-B")])
    id = serve(middleware, path="/write").header("X-A")
    answer = serve(middleware, path="/write", headers={"X-A": "A" * 43, "X-B": id})
    assert stored(middleware, id) == {"n": 2}
    assert answer.header("X-A") is None
    assert "conflict" in [r.event for r in caplog.records]


def test_the_first_valid_id_counts_when_the_one_before_it_is_malformed(wrap):
    middleware = wrap(visit, find_id=[Header("X-A"), Header("X-B")])
    id = serve(middleware, path="/write").header("X-A")
    serve(middleware, path="/write", headers={"X-A": "junk", "X-B": id})
    assert stored(middleware, id) == {"n": 2}


def test_several_different_ids_in_one_carrier_count_as_none(wrap):
    middleware = wrap(visit, find_id=Query())
    ids = [serve(middleware, path="/write").id for _ in range(2)]
    for query in (f"sid={ids[0]}&sid={ids[1]}", f"sid={ids[0]}&s%69d={ids[1]}"):
        assert serve(middleware, path="/write?" + query).id not in (None, *ids)
    serve(middleware, path=f"/write?sid={ids[0]}&sid={ids[0]}")
    assert stored(middleware, ids[0]) == {"n": 2}


CARRYING = {
    "query": (Query(), lambda ids: {"path": "/write?" + "&".join(f"sid={id}" for id in ids)}),
    "param": (PathParam(), lambda ids: {"path": "/write" + "".join(f";sid={id}" for id in ids)}),
    "header": (Header(), lambda ids: {"headers": {"X-Session-Id": ", ".join(ids)}}),
    "cookie": (
        Cookie("sid"),
        lambda ids: {"headers": {"Cookie": "; ".join(f"sid={id}" for id in ids)}},
    ),
    "form": (Form(), lambda ids: {"POST": [("sid", id) for id in ids]}),
}


def several(wrap, kind, others, secret="a secret for tests, long enough", **options):
    """Send the id of a session and others in one place, in each order; return how often it was the
    session, and what was asked of the store for the last."""
    carrier, request = CARRYING[kind]
    middleware = wrap(visit, find_id=carrier, secret=secret, **options)
    store = middleware.manager.backend.store
    ids = []
    for _ in range(2):
        made = Session({}, backend=middleware.manager.backend)
        made["n"] = 1
        made.save()
        ids.append(made.id)
    values = [value.replace("OTHER", ids[1]) for value in others]
    for each in ([ids[0], *values], [*values, ids[0]], [*values[:1], ids[0], *values[1:]]):
        path = request(each).get("path", "/write")
        store.trips.clear()
        serve(middleware, **{**request(each), "path": path})
    trips = store.trips.count("load")
    return stored(middleware, ids[0])["n"] - 1, trips


@pytest.mark.parametrize("kind", CARRYING)
@pytest.mark.parametrize(
    "others",
    [["x"], ["A" * 43], ["x", "y" * 43, "z" * 300], [RandomIds().new() for _ in range(20)]],
    ids=["malformed", "forged", "several", "many"],
)
def test_what_can_be_no_id_of_ours_hides_none(wrap, kind, others):
    """A site beside ours, under the same domain, can set a cookie of our name."""
    assert several(wrap, kind, others) == (3, 1)


@pytest.mark.parametrize("kind", CARRYING)
def test_of_several_the_one_counts_that_the_store_knows(wrap, kind):
    others = [RandomIds().new() for _ in range(3)]
    count, trips = several(wrap, kind, others, secret=None)
    assert (count, trips) == (3, 4)


@pytest.mark.parametrize("kind", CARRYING)
def test_of_more_than_four_none_is_asked_for(wrap, kind):
    others = [RandomIds().new() for _ in range(4)]
    assert several(wrap, kind, others, secret=None) == (0, 0)


@pytest.mark.parametrize("kind", CARRYING)
def test_two_that_the_store_knows_count_as_none(wrap, kind):
    assert several(wrap, kind, ["OTHER"]) == (0, 2)


@pytest.mark.parametrize("text", ["{},", ",{}", "{}, ,", "{},{},"])
def test_an_empty_part_of_a_header_is_no_second_id(wrap, text):
    middleware = wrap(visit)
    id = serve(middleware, path="/write").id
    serve(middleware, path="/write", headers={"X-Session-Id": text.replace("{}", id)})
    assert stored(middleware, id) == {"n": 1}


def test_what_hides_none_is_a_conflict_all_the_same(wrap, caplog):
    several(wrap, "cookie", ["x"])
    assert [record.event for record in caplog.records].count("conflict") == 3


def test_of_several_in_one_place_none_goes_on_links_that_nobody_used(wrap):
    def redirect(environ, start_response):
        start_response("302 Found", [("Location", "/next")])
        return [b""]

    middleware = wrap(redirect, find_id=Query())
    ids = [RandomIds().new() for _ in range(2)]
    assert serve(middleware, path=f"/?sid={ids[0]}").header("Location") == f"/next?sid={ids[0]}"
    assert serve(middleware, path=f"/?sid={ids[0]}&sid=x").header("Location").endswith(ids[0])
    assert serve(middleware, path=f"/?sid={ids[0]}&sid={ids[1]}").header("Location") == "/next"


class BadCarrier:
    def __init__(self, control):
        self.control = control

    def find(self, request):
        return None

    def place(self, id, reply):
        reply.headerlist.append(("X-Id", id + self.control + "X-Injected: 1"))
        return True

    def forget(self, reply):
        pass


class ReplacingCarrier(BadCarrier):
    def place(self, id, reply):
        reply.headers["Content-Type"] = "a" + self.control + "Set-Cookie: x=1"
        return True


@pytest.mark.parametrize("control", ["\r\n", "\r", "\n", "\0"])
@pytest.mark.parametrize("carrier", [BadCarrier, ReplacingCarrier])
def test_a_header_with_a_control_character_is_refused_by_us(wrap, carrier, control):
    def visit(environ, start_response):
        session["n"] = 1
        session.save()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    with pytest.raises(nocookie.NocookieError, match="control character"):
        serve(wrap(visit, find_id=carrier(control)))


# -- finders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [b"bytes", 7, ["x"], {"a": 1}, object()])
def test_a_finder_that_returns_junk_costs_the_id_and_no_more(wrap, returned, caplog):
    caplog.set_level("DEBUG")
    answer = serve(wrap(visit, find_id=lambda request: returned), path="/write")
    assert answer.status == "200 OK"
    assert len(answer.id) == 43
    assert "finder failed" in [r.event for r in caplog.records]
    assert "bytes'" not in caplog.text.replace("returned bytes", "")


def test_a_finder_that_raises_costs_the_id_and_no_more(wrap, caplog):
    def finder(request):
        raise ValueError("secret value")

    answer = serve(wrap(visit, find_id=finder), path="/write")
    assert answer.status == "200 OK"
    assert len(answer.id) == 43
    assert "secret value" not in caplog.text
    assert "finder failed" in [r.event for r in caplog.records]


def test_a_finder_is_asked_only_when_the_session_is_touched(wrap):
    asked = []
    middleware = wrap(visit, find_id=lambda request: asked.append(1))
    serve(middleware)
    assert asked == []
    serve(middleware, path="/read")
    assert asked == [1]


def test_a_form_is_read_once_and_given_to_the_application_whole(wrap):
    def app(environ, start_response):
        session["n"] = session.get("n", 0) + 1
        session.save()
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    middleware = wrap(app, find_id="form:sid")
    id = serve(middleware).id
    body = f"a=1&sid={id}&b=2".encode()
    answer = serve(
        middleware,
        method="POST",
        body=body,
        content_type="application/x-www-form-urlencoded",
    )
    assert answer.body == body
    assert stored(middleware, id) == {"n": 2}


# -- the rules of WSGI ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("path", ["/", "/read", "/write", "/stream"])
def test_both_sides_keep_the_rules_of_wsgi(wrap, path):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/stream":
            session["a"] = 1
            session.save()
            start_response("200 OK", [("Content-Type", "text/plain")])
            return (chunk for chunk in (b"a", b"b"))
        if environ["PATH_INFO"] == "/write":
            session["n"] = 1
            session.save()
        elif environ["PATH_INFO"] == "/read":
            session.get("n")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ab"]

    validator = wsgiref.validate.validator
    environ = Request.blank(path).environ
    environ["wsgi.errors"] = sys.stderr
    app = validator(wrap(validator(app)))
    said = []
    body = app(environ, lambda status, headers, exc_info=None: said.append(status) or said.append)
    assert b"".join(body) == b"ab"
    body.close()
    assert said == ["200 OK"]
