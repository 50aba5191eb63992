"""HEAD, OPTIONS, and responses without a body: no id gets to where others see it, and nothing is
renewed that nobody used."""

import pytest
from helpers import CountingStore, serve

from nocookie import PathSegment, Query, SessionMiddleware, session

CARRIERS = {
    "header": ({}, "/", "HTTP_X_SESSION_ID"),
    "cookie": ({"find_id": "cookie", "key": "sid", "cookie_expires": 3600}, "/", "HTTP_COOKIE"),
    "query": ({"find_id": Query()}, "/?sid={}", None),
    "path": ({"find_id": PathSegment()}, "/~{}/", None),
}


@pytest.fixture
def store(clock):
    return CountingStore(clock=clock)


@pytest.fixture(params=CARRIERS)
def ask(request, store, clock):
    """`ask(page, status, id)` makes a request by this carrier and returns what a server saw."""
    options, path, header = CARRIERS[request.param]

    def app(environ, start_response):
        environ["test.page"]()
        headers = [] if environ["test.status"][:3] == "304" else [("Content-Length", "0")]
        start_response(environ["test.status"], headers)
        return [b""]

    middleware = SessionMiddleware(app, use_cookies=False, type=store, clock=clock, **options)

    def ask(page, status="200 OK", id=None, method="GET"):
        from webob import Request

        there = "/" if id is None else path.format(id)
        environ = Request.blank(there, method=method).environ
        environ |= {"test.page": page, "test.status": status}
        if id is not None and header is not None:
            environ[header] = f"sid={id}" if header == "HTTP_COOKIE" else id
        return serve(middleware, environ=environ)

    return ask


def told(answer):
    """The id that a response gives to its client."""
    cookie = answer.header("Set-Cookie")
    return answer.id or (cookie.partition("=")[2].partition(";")[0] if cookie else None)


def visit():
    session["n"] = session.get("n", 0) + 1
    session.save()


def test_a_304_begins_no_session(ask, store):
    answer = ask(visit, "304 Not Modified")
    assert (answer.status, told(answer)) == ("304 Not Modified", None)
    assert store.trips == []
    assert told(ask(visit)) is not None, "the next response does"


def test_a_304_to_a_known_visitor_saves_and_tells_nothing(ask, store, clock):
    id = told(ask(visit))
    clock.advance(600)
    answer = ask(visit, "304 Not Modified", id)
    assert id not in repr(answer.headers)
    seen = []
    ask(lambda: seen.append(session["n"]), id=id)
    assert seen == [2]


@pytest.mark.parametrize("kind", ["rotated", "persisted"])
def test_what_a_304_cannot_tell_is_reported(ask, caplog, kind):
    def turn():
        session.regenerate_id()

    def persist():
        session["n"] = 1
        session.persist()

    id = told(ask(visit)) if kind == "rotated" else None
    answer = ask(turn if kind == "rotated" else persist, "304 Not Modified", id)
    assert told(answer) is None
    assert not (id and id in repr(answer.headers))
    assert [record.event for record in caplog.records if record.levelname == "WARNING"] == ["lost"]
    if id is not None:
        seen = []
        ask(lambda: seen.append(session.get("n")), id=id)
        assert seen == [None], "the old id is dead all the same"


@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "201 Created"])
def test_a_response_without_a_body_tells_the_id_and_is_not_stored(ask, status):
    answer = ask(visit, status)
    assert len(told(answer)) == 43
    assert answer.header("Cache-Control") == "no-store"


def test_options_that_need_no_session_cost_nothing_and_tell_nothing(ask, store):
    """The question that a browser sends ahead (CORS) carries no id, and must not be given one."""
    id = told(ask(visit))
    store.trips.clear()
    for one in (None, id):
        answer = ask(lambda: None, "204 No Content", one, method="OPTIONS")
        assert id not in repr(answer.headers)
        assert told(answer) is None
    assert store.trips == []


@pytest.mark.parametrize("status", ["200 OK", "304 Not Modified", "204 No Content"])
def test_a_head_request_begins_and_renews_nothing(ask, store, clock, status):
    id = told(ask(visit))
    clock.advance(1700)
    assert told(ask(visit, status, method="HEAD")) is None
    ask(lambda: session.get("n"), status, id, method="HEAD")
    clock.advance(200)
    seen = []
    ask(lambda: seen.append((session.get("n"), session.reason)), id=id)
    assert seen == [(None, "expired")]
