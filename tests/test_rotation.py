"""Ids that change by themselves, and lead on for a while."""

import math

import pytest
from helpers import CountingStore, serve

from nocookie import ConfigError, Session, SessionGone, SessionMiddleware, session
from nocookie.ids import RandomIds, SignedIds, redeemed, ticket
from nocookie.stores.base import Moved

EVERY, GRACE = 600.0, 10.0


@pytest.fixture
def store(clock):
    return CountingStore(clock=clock)


@pytest.fixture(params=[None, "s" * 32], ids=["plain", "with a secret"])
def options(request, store, clock):
    return {
        "type": store,
        "clock": clock,
        "rotate_every": EVERY,
        "rotation_grace": GRACE,
        "secret": request.param,
    }


class Site:
    def __init__(self, find_id=None, **options):
        find = {} if find_id is None else {"find_id": find_id}
        self.middleware = SessionMiddleware(self._app, use_cookies=False, **find, **options)
        self.status = "200 OK"

    def _app(self, environ, start_response):
        self.result = self.page()
        start_response(self.status, [("Content-Type", "text/html")])
        return [b"<a href=/x>"]

    def get(self, page, id=None, **request):
        self.page = page
        return serve(self.middleware, id, **request)


@pytest.fixture
def site(options):
    return Site(**options)


def visit():
    session["n"] = session.get("n", 0) + 1
    session.save()


def read():
    return session.get("n"), session.reason


@pytest.fixture
def id(site):
    return site.get(visit).id


def test_a_session_in_use_goes_on_under_a_fresh_id(site, id, clock):
    clock.advance(EVERY - 1)
    assert site.get(read, id).id is None
    clock.advance(1)
    after = site.get(read, id).id
    assert after not in (None, id)
    assert site.result == (1, None)
    assert site.get(read, after).id is None, "not again at once"
    assert site.result == (1, None)
    clock.advance(EVERY)
    assert site.get(read, after).id not in (None, id, after)


def test_the_old_id_leads_on_for_the_grace_and_no_longer(site, id, clock):
    clock.advance(EVERY)
    after = site.get(read, id).id
    clock.advance(GRACE - 0.5)
    answer = site.get(visit, id)
    assert answer.id == after, "the client is told the successor"
    assert site.get(read, after).id is None
    assert site.result == (2, None)
    clock.advance(0.5)
    site.get(read, id)
    assert site.result[0] is None
    site.get(read, after)
    assert site.result == (2, None)


def test_nothing_rotates_by_itself_unless_asked(store, clock):
    site = Site(type=store, clock=clock, timeout=None)
    id = site.get(visit).id
    clock.advance(40000)
    assert site.get(visit, id).id is None


def test_a_rotation_without_a_save_saves_no_change_of_the_handler(site, id, clock):
    clock.advance(EVERY)

    def page():
        session["n"] = 100
        session["other"] = 1

    after = site.get(page, id).id
    site.get(lambda: dict(session), after)
    assert site.result == {"n": 1}


def test_a_rotation_with_a_save_is_one_trip(site, id, clock, store):
    clock.advance(EVERY)
    store.trips.clear()
    after = site.get(visit, id).id
    assert store.trips == ["load", "rotate"]
    store.trips.clear()
    site.get(read, id)
    assert store.trips == ["load", "load"], "along the trail"
    assert site.result == (2, None)
    assert after


def test_a_login_leaves_no_trail(site, id, clock):
    clock.advance(EVERY)
    middle = site.get(read, id).id
    after = site.get(lambda: session.login("ann"), middle).id
    for old in (id, middle):
        site.get(read, old)
        assert site.result == (None, "unknown"), "within the grace too"
    site.get(lambda: session.owner, after)
    assert site.result == "ann"


def test_a_login_under_way_with_the_old_id_follows(site, id, clock, options):
    late = Session({}, id=id, **options)
    late.load()
    clock.advance(EVERY)
    middle = site.get(visit, id).id
    late.login("ann")
    late["basket"] = 1
    late.save()
    for old in (id, middle):
        site.get(read, old)
        assert site.result == (None, "unknown")
    site.get(lambda: (session.owner, dict(session)), late.id)
    assert site.result == ("ann", {"n": 2, "basket": 1})


def test_a_login_that_is_due_for_a_rotation_is_a_login(site, id, clock):
    clock.advance(EVERY)
    after = site.get(lambda: session.login("ann"), id).id
    site.get(read, id)
    assert site.result == (None, "unknown")
    assert site.get(read, after).id is None, "its id is fresh"


def test_a_save_under_way_with_the_old_id_follows(site, id, clock, options):
    late = Session({}, id=id, **options)
    late["late"] = 1
    clock.advance(EVERY)
    after = site.get(visit, id).id
    late.save()
    assert late.id == after
    assert late.must_propagate
    site.get(lambda: dict(session), after)
    assert site.result == {"n": 2, "late": 1}


def test_counting_under_way_with_the_old_id_follows(site, id, clock, options):
    late = Session({}, id=id, **options)
    assert late["n"] == 1
    clock.advance(EVERY)
    after = site.get(visit, id).id
    assert late.incr("n") == 3
    assert late.id == after


def test_a_reload_under_way_with_the_old_id_follows(site, id, clock, options):
    late = Session({}, id=id, **options)
    assert late["n"] == 1
    clock.advance(EVERY)
    after = site.get(visit, id).id
    late.load()
    assert (late["n"], late.id) == (2, after)


def test_a_logout_with_the_old_id_ends_the_successor(site, id, clock, options):
    late = Session({}, id=id, **options)
    late.load()
    clock.advance(EVERY)
    after = site.get(visit, id).id
    late.delete()
    for one in (id, after):
        site.get(read, one)
        assert site.result == (None, "unknown")


def test_trails_lead_on_to_trails(site, id, clock, store, options):
    first = id
    store_of = Site(**{**options, "rotation_grace": 10 * EVERY})
    ids = [first]
    for _ in range(9):
        clock.advance(EVERY)
        ids.append(store_of.get(visit, ids[-1]).id)
    for old in ids[:-1]:
        answer = store_of.get(read, old)
        assert (answer.id, store_of.result) == (ids[-1], (10, None))
    store_of.get(lambda: session.delete(), ids[0])
    for old in ids:
        store_of.get(read, old)
        assert store_of.result == (None, "unknown")


def test_of_two_that_rotate_at_once_one_does_and_the_other_follows(site, id, clock, options):
    clock.advance(EVERY)
    inner = Site(**options)
    told = []

    def page():
        session.get("n")
        told.append(inner.get(visit, id).id)

    answer = site.get(page, id)
    assert told[0] not in (None, id)
    assert answer.id == told[0]
    site.get(read, answer.id)
    assert site.result == (2, None)

    clock.advance(EVERY)
    told.clear()

    def saving():
        session["a"] = 1
        session.save()
        told.append(inner.get(visit, answer.id).id)

    later = site.get(saving, answer.id)
    assert later.id == told[0]
    site.get(lambda: dict(session), later.id)
    assert site.result == {"n": 3, "a": 1}


def test_what_ends_while_it_would_rotate_stays_ended_in_silence(site, id, clock, options):
    clock.advance(EVERY)

    def page():
        session.get("n")
        Session({}, id=id, **options).delete()

    answer = site.get(page, id)
    assert (answer.status, answer.id) == ("200 OK", None)
    site.get(read, id)
    assert site.result == (None, "unknown")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_it_waits_for_a_response_that_the_client_hears(site, id, clock, status):
    clock.advance(EVERY)
    site.status = status
    assert site.get(read, id).id is None
    assert site.get(read, id, method="HEAD").id is None
    site.status = "200 OK"
    assert site.get(read, id).id is not None


def test_it_waits_for_a_page_where_the_id_is_in_its_links(options, clock):
    site = Site("query:sid", **options, rewrite="html")
    first = site.get(lambda: (visit(), session.id))
    assert site.result[1].encode() in first.body
    id = site.result[1]
    clock.advance(EVERY)
    second = site.get(lambda: session.get("n"), path=f"/?sid={id}")
    assert site.result == 1
    assert id.encode() not in second.body
    assert b"?sid=" in second.body
    off = Site("query:sid", **options, rewrite="off")
    fresh = second.body.partition(b"sid=")[2][:43].decode()
    clock.advance(EVERY)
    off.get(lambda: session.get("n"), path=f"/?sid={fresh}")
    site.get(lambda: session.get("n"), path=f"/?sid={fresh}")
    assert site.result == 1


def test_with_a_finder_of_the_applications_own_it_never_does(options, clock):
    site = Site(lambda request: request.headers.get("X-Mine"), **options)
    site.get(lambda: (visit(), session.id))
    id = site.result[1]
    clock.advance(EVERY)
    site.get(lambda: session.get("n"), headers={"X-Mine": id})
    site.get(lambda: (session.get("n"), session.id), headers={"X-Mine": id})
    assert site.result == (1, id)


def test_a_store_that_fails_to_rotate_is_a_503(site, id, clock, store):
    clock.advance(EVERY)
    store.fail("rotate")
    assert site.get(read, id).status[:3] == "503"
    store.failing.clear()
    assert site.get(read, id).id is not None
    assert site.result == (1, None)


def test_who_asks_for_a_fresh_id_gets_one_without_a_trail(site, id, clock):
    clock.advance(EVERY)
    after = site.get(lambda: session.regenerate_id(), id).id
    site.get(read, id)
    assert site.result == (None, "unknown")
    site.get(read, after)
    assert site.result == (1, None)


def test_its_facts_survive_rotations(site, clock):
    def page():
        session.login("ann")
        session.timeout = 86400

    id = site.get(page).id
    for _ in range(3):
        clock.advance(EVERY)
        id = site.get(read, id).id
    site.get(lambda: (session.owner, session.timeout), id)
    assert site.result == ("ann", 86400.0)
    assert len(site.middleware.manager.sessions_of("ann")) == 1


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"strict": False, "id_key": "k" * 32}, "gateway"),
        ({"type": "cookie", "secret": "s" * 32}, "type = cookie"),
    ],
)
def test_what_cannot_rotate_is_refused_at_construction(more, why):
    with pytest.raises(ConfigError, match=why):
        Session({}, rotate_every=60, **more)


# -- tickets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [RandomIds(), SignedIds(["s" * 32])])
def test_only_the_old_id_opens_a_ticket(ids):
    old, new, other = ids.new(), ids.new(), ids.new()
    one = ticket(old, new, 100.0)
    assert redeemed(old, one) == redeemed(old, one, 99.9) == new
    assert redeemed(old, one, 100.0) == "", "to a request that begins when its time is over"
    assert redeemed(other, one) != new
    assert new.encode() not in one
    assert redeemed(old, one[:-1]) == redeemed(old, b"") == ""


@pytest.mark.parametrize("planted", [b"", b"x", b"\0" * 32, b"\xff" * 32, b"x" * 1000])
def test_a_ticket_that_we_did_not_write_leads_nowhere(site, id, store, planted, clock):
    clock.advance(EVERY)
    after = site.get(read, id).id
    (key,) = [key for key in store._records if isinstance(store.load(key), Moved)]
    store._records[key] = store._records[key]._replace(seal=planted)
    site.get(read, id)
    assert site.result == (None, "unknown")
    site.get(read, after)
    assert site.result == (1, None)


def test_trails_in_a_circle_end(site, id, store, clock):
    """Who can write to the store cannot make a request go on for ever."""
    clock.advance(EVERY)
    after = site.get(read, id).id
    ids = site.middleware.manager.backend.ids
    record = store._records[ids.key(id)]
    store._records[ids.key(after)] = record._replace(seal=ticket(after, id, math.inf))
    store.trips.clear()
    site.get(read, id)
    assert site.result == (None, "unknown")
    assert len(store.trips) < 12


def test_the_late_save_of_an_ended_session_is_still_refused(site, id, clock, options):
    late = Session({}, id=id, **options)
    late["late"] = 1
    clock.advance(EVERY)
    after = site.get(visit, id).id
    Session({}, id=after, **options).delete()
    with pytest.raises(SessionGone):
        late.save()
