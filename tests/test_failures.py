"""A store that fails is never an empty session, and never a silent 200."""

import importlib.util
import os

import pytest
from helpers import CountingStore, serve
from webob import Request

from nocookie import SessionGone, SessionMiddleware, StoreError, session


@pytest.fixture
def store():
    return CountingStore()


def known_id(store):
    def app(environ, start_response):
        session["n"] = 1
        session.save()
        start_response("200 OK", [])
        return [b""]

    return serve(SessionMiddleware(app, use_cookies=False, type=store)).id


def wrap(app, store):
    return SessionMiddleware(app, use_cookies=False, type=store)


CLOSED = []


class Body:
    def __init__(self, *chunks):
        self.chunks = chunks

    def __iter__(self):
        return iter(self.chunks)

    def close(self):
        CLOSED.append(self)


def returning_a_list(environ, start_response):
    session["n"] = session.get("n", 0) + 1
    session.save()
    start_response("200 OK", [("X-App", "1")])
    return [b"saved!"]


def returning_a_body(environ, start_response):
    returning_a_list(environ, start_response)
    return Body(b"saved!")


def generating(environ, start_response):
    returning_a_list(environ, start_response)
    yield b"saved!"


def writing(environ, start_response):
    session["n"] = session.get("n", 0) + 1
    session.save()
    start_response("200 OK", [("X-App", "1")])(b"saved!")
    return [b""]


APPS = [returning_a_list, returning_a_body, generating, writing]


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("call", ["load", "save", "create"])
def test_a_store_that_fails_is_503_and_never_a_200(store, app, call):
    id = None if call == "create" else known_id(store)
    store.fail(call)
    answer = serve(wrap(app, store), id)
    assert answer.status.startswith("503 ")
    assert int(answer.header("Retry-After")) > 0
    assert b"saved" not in answer.body
    assert answer.header("X-App") is None
    assert answer.id is None
    assert int(answer.header("Content-Length")) == len(answer.body)
    store.fail()
    assert serve(wrap(app, store), id).status == "200 OK"


@pytest.mark.parametrize("app", APPS)
def test_a_session_that_ended_meanwhile_is_409(store, app):
    id = known_id(store)
    store.fail("save", gone=True)
    answer = serve(wrap(app, store), id)
    assert answer.status.startswith("409 ")
    assert b"saved" not in answer.body


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("app", APPS)
def test_after_a_failure_is_answered_nothing_is_saved_any_more(store, app, gone, caplog):
    id = known_id(store)
    store.trips.clear()
    store.fail("save", gone=gone)
    middleware = wrap(app, store)
    body = middleware(
        {"REQUEST_METHOD": "GET", "HTTP_X_SESSION_ID": id}, lambda *_: store.fail() or print
    )
    list(body)
    if hasattr(body, "close"):
        body.close()
    assert store.trips == ["load", "save"]
    assert "lost" not in [record.event for record in caplog.records]


def test_the_body_that_is_replaced_is_closed(store):
    id = known_id(store)
    store.fail("save")
    CLOSED.clear()
    serve(wrap(returning_a_body, store), id)
    assert len(CLOSED) == 1


def test_the_answer_to_head_has_no_body(store):
    id = known_id(store)
    store.fail("save")
    answer = serve(wrap(returning_a_list, store), id, method="HEAD")
    assert (answer.status[:3], answer.body) == ("503", b"")


def test_an_application_may_handle_the_failure(store):
    def app(environ, start_response):
        try:
            session.get("n")
        except StoreError:
            start_response("200 OK", [])
            return [b"without a session today"]
        raise AssertionError

    id = known_id(store)
    store.fail("load")
    answer = serve(wrap(app, store), id)
    assert (answer.status, answer.body) == ("200 OK", b"without a session today")


@pytest.mark.parametrize("before", ["nothing", "save", "regenerate_id"])
@pytest.mark.parametrize("auto", [True, False])
def test_an_application_may_handle_the_end_of_its_session(store, before, auto):
    def app(environ, start_response):
        session["n"] = 2
        if before != "nothing":
            getattr(session, before)()
        try:
            session.persist()
        except SessionGone:
            start_response("410 Gone", [])
            return [b"log in again"]
        raise AssertionError

    id = known_id(store)
    store.fail("save", "rotate", gone=True)
    middleware = SessionMiddleware(app, use_cookies=False, type=store, auto=auto)
    assert serve(middleware, id).status == "410 Gone"


def test_a_failure_that_was_overcome_is_not_blamed_for_a_later_500(store):
    def app(environ, start_response):
        try:
            session["n"]
        except StoreError:
            store.fail()
            session["n"]
        start_response("500 My Own", [])
        return [b"mine"]

    id = known_id(store)
    store.fail("load")
    assert serve(wrap(app, store), id).status == "500 My Own"


def test_a_touch_of_a_session_that_ended_is_silent(clock):
    store = CountingStore(clock=clock)

    def app(environ, start_response):
        start_response("200 OK", [])
        return [str(session.get("n")).encode()]

    def write(environ, start_response):
        session["n"] = 1
        session.save()
        return app(environ, start_response)

    options = {"use_cookies": False, "type": store, "clock": clock}
    id = serve(SessionMiddleware(write, **options)).id
    clock.advance(100)
    store.fail("touch", gone=True)
    answer = serve(SessionMiddleware(app, **options), id)
    assert (answer.status, answer.body) == ("200 OK", b"1")
    assert "touch" in store.trips


def test_one_failed_read_does_not_cost_the_session(store):
    def app(environ, start_response):
        try:
            n = session["n"]
        except StoreError:
            store.fail()
            n = session["n"]
        start_response("200 OK", [])
        return [str(n).encode()]

    id = known_id(store)
    store.fail("load")
    answer = serve(wrap(app, store), id)
    assert (answer.status, answer.body, answer.id) == ("200 OK", b"1", None)


def test_logout_fails_aloud(store):
    def app(environ, start_response):
        session.delete()
        start_response("200 OK", [])
        return [b"bye"]

    id = known_id(store)
    store.fail("destroy")
    assert serve(wrap(app, store), id).status.startswith("503 ")


def has(module):
    found = importlib.util.find_spec(module) is not None
    assert found or not os.environ.get("CI"), f"{module} is missing, and this is CI"
    return found


def flask_app():
    import flask

    app = flask.Flask("test")

    @app.route("/")
    def index():
        session["n"] = session.get("n", 0) + 1
        session.persist()
        return "saved!"

    return app


def bottle_app():
    import bottle

    app = bottle.Bottle()

    @app.route("/")
    def index():
        session["n"] = session.get("n", 0) + 1
        session.persist()
        return "saved!"

    return app


def pyramid_app():
    from pyramid.config import Configurator
    from pyramid.response import Response

    def index(request):
        session["n"] = session.get("n", 0) + 1
        session.persist()
        return Response("saved!")

    def on_error(context, request):
        return Response("sorry", status=500)

    with Configurator() as config:
        config.add_route("index", "/")
        config.add_view(index, route_name="index")
        config.add_exception_view(on_error)
        return config.make_wsgi_app()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("module", "make"), [("flask", flask_app), ("bottle", bottle_app), ("pyramid", pyramid_app)]
)
@pytest.mark.parametrize(
    ("call", "gone", "status"),
    [("load", False, "503"), ("save", False, "503"), ("save", True, "409")],
)
def test_a_500_that_a_framework_made_of_our_error_is_ours_again(
    store, module, make, call, gone, status
):
    if not has(module):
        pytest.skip(f"{module} is not installed")
    id = known_id(store)
    middleware = wrap(make(), store)
    assert serve(middleware, id).status == "200 OK"
    store.fail(call, gone=gone)
    answer = serve(middleware, id)
    assert answer.status.startswith(status)
    assert b"saved" not in answer.body


@pytest.mark.parametrize("find_id", ["query:sid", "path:~", "param:sid"])
@pytest.mark.parametrize("call", ["load", "save"])
def test_an_answer_of_ours_to_an_id_in_the_url_tells_no_other_origin_of_it(store, call, find_id):
    id = known_id(store)
    app = SessionMiddleware(returning_a_list, use_cookies=False, type=store, find_id=find_id)
    urls = {"query:sid": f"/?sid={id}", "path:~": f"/~{id}/", "param:sid": f"/x;sid={id}"}
    store.fail(call)
    answer = serve(app, environ=Request.blank(urls[find_id]).environ)
    assert answer.status.startswith("503 ")
    assert answer.header("Referrer-Policy") == "same-origin"


def test_one_without_needs_to_say_nothing(store):
    store.fail("create")
    assert serve(wrap(returning_a_list, store)).header("Referrer-Policy") is None


def test_a_refusal_tells_no_other_origin_either(store):
    app = SessionMiddleware(
        returning_a_list, use_cookies=False, type=store, find_id="query:sid", on_unknown="error"
    )
    answer = serve(app, environ=Request.blank(f"/?sid={'A' * 43}").environ)
    assert answer.status.startswith("404 ")
    assert answer.header("Referrer-Policy") == "same-origin"
