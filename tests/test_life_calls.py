"""Pairs of calls that change the life of a session, in one request: nothing that was acknowledged
is lost, nothing that ended comes back, and `sessions_of` tells the truth."""

import itertools

import pytest
from helpers import CountingStore, serve

from nocookie import SessionMiddleware, session


class Stop(Exception):
    """Of the application's own."""


def stop():
    raise Stop


FIRST = {
    "login as ann": lambda: session.login("ann"),
    "login as bob": lambda: session.login("bob"),
    "a fresh id": lambda: session.regenerate_id(),
    "a timeout": lambda: setattr(session, "timeout", 60),
    "a lifetime": lambda: setattr(session, "lifetime", 600),
    "a value": lambda: session.__setitem__("new", 1),
}
SECOND = {
    **FIRST,
    "revert": lambda: session.revert(),
    "load": lambda: session.load(),
    "clear": lambda: session.clear(),
    "delete": lambda: session.delete(),
    "invalidate": lambda: session.invalidate(),
    "an exception": stop,
    "save": lambda: session.save(),
}
BEFORE = {
    "a new one": None,
    "an anonymous one": lambda: session.update(old=1),
    "ann's": lambda: (session.login("ann"), session.update(old=1)),
}


class Client:
    """Keeps the id that it is told, and forgets one that does not count."""

    def __init__(self, clock, store, **options):
        self.id = None
        self.ids = set()
        self.site = SessionMiddleware(
            self._app, use_cookies=False, type=store, clock=clock, **options
        )

    def _app(self, environ, start_response):
        self.page()
        start_response("200 OK", [])
        return [b""]

    def ask(self, page, id=None):
        self.page = page
        try:
            answer = serve(self.site, id or self.id)
        except Stop:
            return
        if id is None and answer.id is not None:
            self.id = answer.id
            self.ids.add(answer.id)

    def look(self, id):
        found = []
        self.ask(lambda: found.append((session.is_new, session.owner, dict(session))), id)
        return found[0]

    def owned(self, owner):
        return len(self.site.manager.sessions_of(owner))


@pytest.fixture(params=[{}, {"secret": "s" * 32}], ids=["plain", "sealed"])
def client(request, clock):
    return Client(clock, CountingStore(clock=clock), **request.param)


@pytest.mark.parametrize("saves", [True, False], ids=["saved", "left"])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(FIRST, SECOND)))
@pytest.mark.parametrize("before", BEFORE)
def test_whatever_follows_on_a_call_the_session_has_one_life_and_one_owner(
    client, before, first, second, saves
):
    begin = BEFORE[before]
    if begin is not None:
        client.ask(lambda: (begin(), session.save()))
    old = client.id
    owner = "ann" if before == "ann's" else None

    def page():
        FIRST[first]()
        SECOND[second]()
        if saves:
            session.save()

    client.ask(page)
    is_new, now, data = (True, None, {}) if client.id is None else client.look(client.id)
    # What listings say is what the client's session says.
    for name in ("ann", "bob"):
        assert client.owned(name) == (not is_new and now == name)
    # No id but the last opens anything, but within a grace the session itself.
    for id in client.ids - {client.id}:
        assert client.look(id)[0], "an old id opened a session"
    calls = {first, second}
    if second in ("delete", "invalidate"):
        if old is not None:
            assert client.look(old)[0], "what was ended lives"
    elif second == "an exception":
        assert (is_new, now) == (old is None, owner)
        assert ("new" in data) is False
    elif second in ("revert", "load"):
        assert now == owner
        assert "new" not in data
    elif second == "clear":
        assert data == {} or not saves
    elif now == owner and old is not None and "login as bob" not in calls:
        assert data["old"] == 1, "what was acknowledged is lost"
    if "login as bob" in calls and now == "bob" and owner == "ann":
        assert "old" not in data, "another's data"
    if second == "login as ann":
        assert now == "ann"
    if second == "login as bob":
        assert now == "bob"


@pytest.mark.parametrize("saves", [True, False], ids=["saved", "left"])
@pytest.mark.parametrize(("first", "second"), list(itertools.product(FIRST, SECOND)))
def test_a_request_beside_it_loses_nothing_that_was_acknowledged(client, first, second, saves):
    """Another request saves while the pair is under way: it is kept, or ends with the session."""
    client.ask(lambda: (session.update(old=1), session.save()))
    id, refused = client.id, []

    def beside():
        page, client.page = client.page, lambda: (session.update(beside=1), session.save())
        refused.append(serve(client.site, id).status[:3] != "200")
        client.page = page

    def page():
        FIRST[first]()
        beside()
        SECOND[second]()
        if saves:
            session.save()

    client.ask(page)
    is_new, owner, data = client.look(client.id)
    # A login as somebody else empties what is there, too.
    is_emptied = {first, second} == {"login as ann", "login as bob"}
    has_ended = second in ("delete", "invalidate", "clear") or is_emptied
    if not refused[0] and not is_new and not has_ended:
        assert data.get("beside") == 1, "an acknowledged save is lost"
    for name in ("ann", "bob"):
        assert client.owned(name) == (not is_new and owner == name)
