"""docs/state-table.md, cell by cell: what came in, times what the application did."""

import pytest
from helpers import CountingStore, serve

import nocookie
from nocookie import SessionMiddleware, session

SECRET = "at least thirty-two characters of it"
CAME_IN = [
    "none", "malformed", "ambiguous", "forged", "unknown", "expired", "destroyed", "valid"
]  # fmt: skip
DID = ["untouched", "read", "saved", "deleted", "rotated", "raised"]

REASON = {
    "none": "absent",
    "destroyed": "unknown",  # the store keeps no list of the dead
    "valid": None,
}
TRIPS = {"none": 0, "malformed": 0, "ambiguous": 2, "forged": 0}

#: (is the session known, what was done) -> must_propagate, reason if it changed, records
#: afterwards under the old and under other keys, whether an id is sent.
EXPECTED = {
    (False, "read"): (False, "same", 0, 0, False),
    (False, "saved"): (True, "same", 0, 1, True),
    (False, "deleted"): (False, "destroyed", 0, 0, False),
    (False, "rotated"): (True, "same", 0, 1, True),
    (False, "raised"): (True, "same", 0, 0, False),
    (True, "read"): (False, "same", 1, 0, False),
    (True, "saved"): (False, "same", 1, 0, False),
    (True, "deleted"): (False, "destroyed", 0, 0, False),
    (True, "rotated"): (True, "same", 0, 1, True),
    (True, "raised"): (False, "same", 1, 0, False),
}


class Boom(Exception):
    pass


def application(environ, start_response):
    did, seen = environ["did"], environ["seen"]
    if did == "read":
        session.get("a")
    elif did != "untouched":
        if did in ("saved", "rotated", "raised"):
            session["b"] = 2
            session.save()
        if did == "rotated":
            session.regenerate_id()
        if did == "deleted":
            session.delete()
    if did != "untouched":
        seen.update(
            is_new=session.is_new,
            must_propagate=session.must_propagate,
            reason=session.reason,
        )
    if did == "raised":
        raise Boom
    start_response("200 OK", [])
    return [b""]


def present(kind, manager, clock):
    """Return the header value for a request of this kind, and the id it means, if any."""

    def stored():
        made = nocookie.Session({}, backend=manager.backend)
        made["a"] = 1
        made.save()
        return made.id

    if kind == "none":
        return None, None
    if kind == "malformed":
        return "no id of ours", None
    if kind == "ambiguous":
        return f"{stored()}, {stored()}", None
    if kind == "forged":
        return "A" * 43, None
    if kind == "unknown":
        return manager.backend.ids.new(), None
    id = stored()
    if kind == "expired":
        clock.advance(1801)
        return id, None
    if kind == "destroyed":
        nocookie.Session({}, id, backend=manager.backend).delete()
        return id, None
    return id, id


@pytest.mark.parametrize("did", DID)
@pytest.mark.parametrize("came_in", CAME_IN)
def test_each_cell_of_the_table(came_in, did, clock):
    store = CountingStore(clock=clock)
    middleware = SessionMiddleware(
        application, use_cookies=False, secret=SECRET, type=store, clock=clock
    )
    text, id = present(came_in, middleware.manager, clock)
    before = set(store.keys())
    store.trips.clear()
    seen = {}
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "did": did, "seen": seen}
    if text is not None:
        environ["HTTP_X_SESSION_ID"] = text
    try:
        answer = serve(middleware, environ=environ)
    except Boom:
        assert did == "raised"
        answer = None

    if did == "untouched":
        assert (store.trips, answer.headers, set(store.keys())) == ([], [], before)
        return
    known = id is not None
    told, reason, old, others, sent = EXPECTED[known, did]
    came = REASON.get(came_in, came_in)
    assert seen == {
        "is_new": not known,
        "must_propagate": told,
        "reason": came if reason == "same" else reason,
    }
    assert store.trips.count("load") == TRIPS.get(came_in, 1)
    after = set(store.keys())
    old_key = {middleware.manager.backend.ids.key(id)} if known else set()
    assert len(after & old_key) == old
    assert len(after - before) == others
    if answer is not None:
        assert (answer.id is not None) == sent
        if sent:
            assert answer.id != text
            assert {middleware.manager.backend.ids.key(answer.id)} == after - before
