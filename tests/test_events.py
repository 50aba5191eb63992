"""What happened is logged, counted, and told to who asks."""

import logging
import re
from pathlib import Path

import pytest
from helpers import CountingStore, serve

from nocookie import Event, Session, SessionMiddleware, StoreError, session
from nocookie.events import _LEVELS, EVENTS, Events
from nocookie.ids import SignedIds

SECRET = "s" * 32


@pytest.fixture
def store(clock):
    return CountingStore(clock=clock)


@pytest.fixture
def told():
    return []


@pytest.fixture
def site(store, clock, told):
    def app(environ, start_response):
        environ["page"]()
        start_response("200 OK", [])
        return [b""]

    return SessionMiddleware(
        app, use_cookies=False, type=store, clock=clock, secret=SECRET, on_event=told.append
    )


def get(site, page, id=None):
    from webob import Request

    environ = Request.blank("/").environ | {"page": page}
    if id is not None:
        environ["HTTP_X_SESSION_ID"] = id
    return serve(site, environ=environ).id


def visit():
    session["n"] = session.get("n", 0) + 1
    session.save()


def names(told):
    return [(event.name, event.detail) if event.detail else event.name for event in told]


def test_the_life_of_a_session_is_told_in_order(site, told, clock):
    id = get(site, visit)
    id = get(site, lambda: session.regenerate_id(), id)
    id = get(site, lambda: session.login("ann"), id)
    get(site, lambda: session.logout(), id)
    get(site, lambda: session.get("n"), id)
    other = get(site, visit)
    clock.advance(1800)
    get(site, lambda: session.get("n"), other)
    get(site, lambda: session.get("n"), SignedIds(["another " * 4]).new())
    get(site, lambda: session.get("n"), "nonsense")
    assert names(told) == [
        "created",
        "rotated",
        "login",
        "ended",
        ("refused", "unknown"),
        "created",
        "expired",
        ("refused", "expired"),
        ("refused", "forged"),
        ("refused", "malformed"),
    ]
    assert {event.name for event in told} <= EVENTS.keys()


def test_a_session_can_be_followed_by_its_fingerprint(site, told, store):
    id = get(site, visit)
    get(site, lambda: session.logout(), id)
    get(site, lambda: session.get("n"), id)
    created, ended, refused = told
    assert created.fingerprint == ended.fingerprint == refused.fingerprint
    assert site.manager.backend.ids.key(id).startswith(created.fingerprint)
    assert len(created.fingerprint) == 10


def test_what_is_told_shows_neither_the_id_nor_the_request(site, told):
    id = get(site, visit)
    get(site, visit, id)
    get(site, lambda: session.logout(), id)
    assert id not in repr(told)
    assert told[-1].environ["HTTP_X_SESSION_ID"] == id, "who wants to look at it can"


def test_outside_of_a_request_there_is_no_environ(store, clock, told):
    mine = Session({}, type=store, clock=clock, on_event=[told.append])
    mine["a"] = 1
    mine.save()
    (event,) = told
    assert event == Event("created", "", mine.fingerprint, None)


def test_events_are_counted(site):
    ids = [get(site, visit) for _ in range(3)]
    get(site, lambda: session.logout(), ids[0])
    for _ in range(2):
        get(site, lambda: session.get("n"), ids[0])
    assert site.manager.backend.events.counts() == {
        "created": 3,
        "ended": 1,
        "refused: unknown": 2,
    }


def test_a_callback_that_fails_costs_nothing(store, clock, caplog, told):
    def broken(event):
        raise RuntimeError("out of order")

    mine = Session({}, type=store, clock=clock, on_event=[broken, told.append])
    mine["a"] = 1
    mine.save()
    assert names(told) == ["created"]
    assert "a callback of on_event failed at the event created" in caplog.text
    assert mine.id not in caplog.text


def test_a_callback_may_be_named_in_text(store, clock, monkeypatch):
    import builtins

    seen = []
    monkeypatch.setattr(builtins, "note_event", seen.append, raising=False)
    mine = Session({}, type=store, clock=clock, on_event="builtins:note_event")
    mine["a"] = 1
    mine.save()
    assert names(seen) == ["created"]


@pytest.mark.parametrize("watched", [True, False])
def test_a_client_that_says_it_is_another_is_told(store, clock, told, watched):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/login":
            session.login("ann", client="a name for people")
        session.get("n")
        start_response("200 OK", [])
        return [b""]

    app = SessionMiddleware(
        app,
        use_cookies=False,
        type=store,
        clock=clock,
        watch_client=watched,
        on_event=told.append,
    )
    phone, desk = {"User-Agent": "Phone/1"}, {"User-Agent": "Desk/2"}
    id = serve(app, path="/login", headers=phone).id
    serve(app, id, headers=phone)
    assert names(told) == ["created", "login"]
    for headers in (desk, {}):
        told.clear()
        assert serve(app, id, headers=headers).status == "200 OK", "advice, no defence"
        assert names(told) == (["client changed"] if watched else [])
    assert "Desk" not in repr(told)


def test_a_store_that_fails_is_told(site, told, store):
    id = get(site, visit)
    told.clear()
    store.fail("load")

    def page():
        with pytest.raises(StoreError):
            session.get("n")

    get(site, page, id)
    assert names(told) == [("store error", "down, for the test")]


def test_log_records_have_the_same_in_fields(site, caplog):
    caplog.set_level(logging.DEBUG)
    id = get(site, visit)
    (record,) = caplog.records
    assert (record.name, record.event, record.detail) == ("nocookie", "created", "")
    assert record.levelno == logging.INFO
    assert site.manager.backend.ids.key(id).startswith(record.fingerprint)


def test_of_many_threads_every_event_counts():
    from nocookie.testing.threads import together

    events = Events()

    def emit():
        for _ in range(2000):
            events.emit("created")

    together(emit, emit, emit, emit)
    assert events.counts() == {"created": 8000}


def test_every_event_in_the_source_has_its_line():
    """EVENTS is what the documentation is made from."""
    import re
    from pathlib import Path

    import nocookie

    root = Path(nocookie.__file__).parent
    source = "".join(path.read_text() for path in root.rglob("*.py"))
    emitted = set(re.findall(r'\bemit\(\s*"([a-z _]+)"', source))
    by_a_variable = {"replaced", "expired", "corrupted", "rotated", "login"}
    assert emitted | by_a_variable == EVENTS.keys()


def test_every_event_is_on_the_page_about_watching():
    page = (Path(__file__).parent.parent / "docs" / "watching.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z _]+)` \| (?=.+ \| .+ \|$)", page, re.MULTILINE)
    assert sorted(rows) == sorted(EVENTS)
    warnings = re.search(r"logger `nocookie`: (.+?) as warnings", page, re.DOTALL)[1]
    assert sorted(re.findall("`([^`]+)`", warnings)) == sorted(_LEVELS)
