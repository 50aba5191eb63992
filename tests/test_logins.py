"""Login and logout, whose a session is, and how long it lives."""

import pytest
from helpers import serve

import nocookie
from nocookie import (
    ConfigError,
    NocookieError,
    PathSegment,
    Query,
    Session,
    SessionGone,
    SessionMiddleware,
    session,
)
from nocookie.stores.base import Missing, Record
from nocookie.stores.memory import MemoryStore

SECRET = "s" * 32
DAY = 86400.0


@pytest.fixture
def store(clock):
    return MemoryStore(clock=clock)


@pytest.fixture(params=["plain", "with a secret", "encrypted", "pickled"])
def options(request, store, clock):
    return {
        "plain": {},
        "with a secret": {"secret": SECRET},
        "encrypted": {"secret": SECRET, "encrypt_key": "k" * 32},
        "pickled": {"secret": SECRET, "data_serializer": "pickle"},
    }[request.param] | {"type": store, "clock": clock}


class Site:
    """An application whose every page is a function of the session."""

    def __init__(self, **options):
        self.options = options
        self.middleware = SessionMiddleware(self._app, use_cookies=False, **options)
        self.manager = self.middleware.manager

    def _app(self, environ, start_response):
        self.result = self.page()
        headers = self.result.headers if isinstance(self.result, nocookie.Farewell) else []
        start_response("200 OK", headers)
        return [b"done"]

    def get(self, page, id=None, **request):
        """Serve one request by *page*; return the answer, and what the page returned."""
        self.page = page
        self.answer = serve(self.middleware, id, **request)
        return self.answer


@pytest.fixture
def site(options):
    return Site(**options)


def visit():
    session["basket"] = session.get("basket", 0) + 1
    session.save()


def login(owner="ann"):
    def page():
        session.login(owner)

    return page


def logged_in(site, owner="ann", id=None, **request):
    return site.get(login(owner), id, **request).id


def state():
    return session.owner, dict(session), session.reason


def seen(site, id):
    site.get(state, id)
    return site.result


# -- login ---------------------------------------------------------------------------------------


def test_a_login_takes_a_new_id_and_keeps_what_the_visitor_had(site):
    before = site.get(visit).id
    after = logged_in(site, id=before)
    assert after not in (None, before)
    assert seen(site, after) == ("ann", {"basket": 1}, None)
    assert seen(site, before) == (None, {}, "unknown")


def test_a_login_begins_a_session_where_there_is_none(site):
    assert seen(site, logged_in(site)) == ("ann", {}, None)


def test_a_second_login_is_another_owners(site):
    first = logged_in(site)
    second = logged_in(site, "bob", first)
    assert seen(site, second)[0] == "bob"
    assert seen(site, first)[2] == "unknown"
    assert site.manager.sessions_of("ann") == []


def test_a_login_as_somebody_else_begins_an_empty_session(site):
    def page():
        session["secret"] = "of ann"
        session.timeout = 60
        session.login("ann")

    ann = site.get(page).id
    bob = logged_in(site, "bob", ann)
    assert seen(site, bob) == ("bob", {}, None)
    site.get(lambda: session.timeout, bob)
    assert site.result == 1800


def test_a_login_as_somebody_else_takes_nothing_that_others_add_meanwhile(site):
    ann = logged_in(site)

    def page():
        session.login("bob")
        Site(**site.options).get(visit, ann)
        session["own"] = 1

    assert seen(site, site.get(page, ann).id) == ("bob", {"own": 1}, None)


def test_a_second_login_of_the_same_owner_keeps_the_session(site):
    first = logged_in(site)
    site.get(visit, first)
    assert seen(site, logged_in(site, "ann", first)) == ("ann", {"basket": 1}, None)


@pytest.mark.parametrize("undo", ["revert", "load", "clear"])
@pytest.mark.parametrize("known", [False, True])
def test_a_login_that_is_undone_logs_nobody_in(site, undo, known):
    before = site.get(visit).id if known else None

    def page():
        session.login("ann")
        getattr(session, undo)()
        assert session.owner is None
        session["n"] = 1
        session.save()

    id = site.get(page, before).id or before
    assert seen(site, id)[0] is None
    assert site.manager.sessions_of("ann") == []
    assert site.manager.end_all("ann") == 0
    assert seen(site, id)[1]["n"] == 1


@pytest.mark.parametrize("undo", ["revert", "load"])
def test_to_undo_a_login_leaves_who_was_logged_in_before(site, undo):
    before = logged_in(site)

    def page():
        session.login("bob")
        getattr(session, undo)()

    id = site.get(page, before).id or before
    assert seen(site, id)[0] == "ann"
    assert len(site.manager.sessions_of("ann")) == 1
    assert site.manager.sessions_of("bob") == []


@pytest.mark.parametrize("undo", ["revert", "load", "clear"])
def test_a_timeout_that_is_undone_counts_for_nothing(site, undo):
    before = site.get(visit).id

    def page():
        session.timeout = 60
        getattr(session, undo)()
        assert session.timeout == 1800
        session["n"] = 1
        session.save()

    site.get(page, before)
    site.get(lambda: session.timeout, before)
    assert site.result == 1800


def test_what_the_handler_changes_beside_a_login_is_saved_with_it(site):
    def page():
        session["a"] = 1
        session.login("ann")
        session["b"] = 2

    assert seen(site, site.get(page).id) == ("ann", {"a": 1, "b": 2}, None)


def test_a_login_begins_the_lifetime_anew(site, clock):
    id = site.get(visit).id
    for _ in range(20):
        clock.advance(1700)
        site.get(state, id)
    id = logged_in(site, id=id)
    began = clock.now
    for _ in range(20):
        clock.advance(1700)
        assert seen(site, id)[0] == "ann"
    site.get(lambda: session.created, id)
    assert site.result == began


@pytest.mark.parametrize("owner", ["", None, 5, b"ann"])
def test_an_owner_is_named_by_text(site, owner):
    def page():
        with pytest.raises(NocookieError):
            session.login(owner)
        assert session.owner is None

    assert site.get(page).status == "200 OK"


@pytest.mark.parametrize("owner", ["ünï", "a b\n\0", "x" * 5000, "\U0001f36a", "'; DROP"])
def test_an_owner_may_have_any_name(site, owner):
    assert seen(site, logged_in(site, owner))[0] == owner
    assert [one.owner for one in site.manager.sessions_of(owner)] == [owner]


def test_no_name_of_ours_is_among_the_keys_of_a_session(site):
    id = logged_in(site, id=site.get(visit).id)

    def page():
        assert list(session) == ["basket"]
        assert len(session) == 1
        session.clear()
        assert not session.keys()
        session["\0facts"] = {}
        with pytest.raises(nocookie.ValueRefused):
            session.save()
        del session["\0facts"]
        session["after"] = 1
        session.save()

    site.get(page, id)
    assert seen(site, id) == ("ann", {"after": 1}, None)


def test_a_clear_beside_others_keeps_the_owner(site):
    id = logged_in(site)

    def page():
        session.clear()
        session.save()
        session.persist()
        session.incr("n")

    site.get(page, id)
    assert seen(site, id) == ("ann", {"n": 1}, None)


def test_a_session_by_hand_logs_in_too(options):
    mine = Session({}, **options)
    mine["a"] = 1
    mine.save()
    before = mine.id
    mine.login("ann", client="by hand")
    mine.save()
    assert mine.id != before
    found = Session({}, id=mine.id, **options)
    assert (found.owner, dict(found)) == ("ann", {"a": 1})
    assert Session({}, id=before, **options).is_new


def test_what_is_under_way_in_the_old_session_cannot_be_saved(site, options):
    id = site.get(visit).id
    late = Session({}, id=id, **options)
    late["basket"] = 100
    logged_in(site, id=id)
    with pytest.raises(SessionGone):
        late.save()


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_gateways_session_gets_an_owner_under_its_id(store, clock, secret):
    site = Site(type=store, clock=clock, strict=False, id_key="k" * 32, secret=secret)
    site.get(visit, "+43 1 234")
    late = Session(
        {}, "+43 1 234", type=store, clock=clock, strict=False, id_key="k" * 32, secret=secret
    )
    late["basket"] = 100

    def login_and_read():
        session.login("ann")
        session.persist()
        return session["basket"]

    site.get(login_and_read, "+43 1 234")
    assert site.result == 1
    assert seen(site, "+43 1 234") == ("ann", {"basket": 1}, None)
    assert len(site.manager.sessions_of("ann")) == 1
    with pytest.raises(SessionGone):
        late.save()
    assert site.manager.end_all("ann") == 1
    assert seen(site, "+43 1 234")[2] == "unknown"


def test_a_session_that_its_client_keeps_has_an_owner_and_is_in_no_list(clock):
    site = Site(type="cookie", secret=SECRET, clock=clock, find_id="header:X-Session-Id")
    before = site.get(visit).id
    token = logged_in(site, id=before)
    assert seen(site, token) == ("ann", {"basket": 1}, None)
    later = site.get(visit, token).id
    assert seen(site, later) == ("ann", {"basket": 2}, None)
    with pytest.raises(NocookieError, match="owner"):
        site.manager.sessions_of("ann")


# -- logout --------------------------------------------------------------------------------------


def test_a_logout_ends_the_session_and_says_what_to_send(site):
    id = logged_in(site)
    answer = site.get(lambda: session.logout("/bye"), id)
    assert answer.header("Location") == "/bye"
    assert answer.header("Clear-Site-Data") == '"cache", "storage"'
    assert answer.header("Cache-Control") == "no-store"
    assert answer.id is None
    assert seen(site, id) == (None, {}, "unknown")


@pytest.mark.parametrize("find_id", [Query("sid"), PathSegment("~")])
def test_what_is_saved_after_a_logout_is_found_where_the_visitor_is_sent(store, clock, find_id):
    def app(environ, start_response):
        headers = []
        if environ["PATH_INFO"] == "/in":
            session.login("ann")
            headers = [("Location", "/home")]
        elif environ["PATH_INFO"] == "/out":
            headers = session.logout("/bye").headers
            session["message"] = "goodbye"
            session.save()
        start_response("303 See Other" if headers else "200 OK", headers)
        return [repr((session.owner, session.get("message"))).encode()]

    site = SessionMiddleware(app, use_cookies=False, find_id=find_id, type=store, clock=clock)
    there = serve(site, path="/in").header("Location")
    bye = serve(site, path=there.replace("/home", "/out")).header("Location")
    assert serve(site, path=bye).body == b"(None, 'goodbye')"
    assert serve(site, path=there).body == b"(None, None)"


@pytest.mark.parametrize("find_id", [Query(), PathSegment()])
def test_after_a_logout_no_url_has_the_id(store, clock, find_id):
    site = Site(type=store, clock=clock, find_id=find_id)

    def begin():
        session.login("ann")
        return session.id

    site.get(begin)
    id = site.result
    here = f"/~{id}/page" if isinstance(find_id, PathSegment) else f"/page?sid={id}"
    for to in (None, f"/bye?sid={id}", f"/~{id}/bye"):
        site.get(lambda to=to: (session.url("/x"), session.logout(to)), path=here)
        url, farewell = site.result
        assert id in url or url == "/x"
        if isinstance(find_id, Query) == ("sid" in (to or "sid")):
            assert id not in farewell.location
    assert farewell.location


# -- lifetimes -----------------------------------------------------------------------------------


def remember():
    session.login("ann")
    session.timeout = 30 * DAY
    session.lifetime = 90 * DAY
    session.save()


def test_a_session_may_live_longer_than_the_others(site, clock):
    id = site.get(remember).id
    other = site.get(visit).id
    for _ in range(4):
        clock.advance(20 * DAY)
        assert seen(site, id)[0] == "ann", "it is renewed by what it says itself"
    assert seen(site, other)[2] in ("unknown", "expired")
    clock.advance(11 * DAY)
    assert seen(site, id)[0] is None, "its lifetime is over"


def test_a_session_may_live_shorter(site, clock):
    def page():
        session["a"] = 1
        session.timeout = 60
        session.save()
        assert (session.timeout, session.lifetime) == (60.0, 43200.0)

    id = site.get(page).id
    for _ in range(5):
        clock.advance(50)
        assert seen(site, id)[1] == {"a": 1}
    clock.advance(60)
    assert seen(site, id)[1] == {}


def test_a_session_may_live_for_ever(site, clock):
    def page():
        session["a"] = 1
        session.timeout = session.lifetime = None
        session.save()

    id = site.get(page).id
    clock.advance(1000 * DAY)
    site.get(lambda: (session["a"], session.timeout, session.lifetime), id)
    assert site.result == (1, None, None)


def test_its_times_survive_a_rotation_and_a_clear(site, clock):
    id = site.get(remember).id

    def page():
        session.clear()
        session["a"] = 1
        session.regenerate_id()

    id = site.get(page, id).id
    clock.advance(20 * DAY)
    site.get(lambda: (session.owner, dict(session), session.timeout), id)
    assert site.result == ("ann", {"a": 1}, 30 * DAY)


def test_its_times_are_as_they_were_told_until_they_are_saved(site, clock):
    id = logged_in(site)

    def page():
        session.timeout = 5 * DAY  # and no save

    site.get(page, id)
    site.get(lambda: session.timeout, id)
    assert site.result == 1800.0


@pytest.mark.parametrize("rotate_every", [None, 100])
def test_a_renewal_saves_no_time_that_was_not(options, clock, rotate_every):
    site = Site(**options, rotate_every=rotate_every)
    id = site.get(remember).id

    def page():
        session.timeout = 5  # and no save

    clock.advance(DAY)  # a touch is due, and where ids change by themselves, that
    id = site.get(page, id).id or id
    clock.advance(60)
    site.get(lambda: session.timeout, id)
    assert site.result == 30 * DAY


@pytest.mark.parametrize("name", ["timeout", "lifetime"])
@pytest.mark.parametrize("value", [0, -1, "soon", float("nan"), float("inf"), [], True])
def test_a_wrong_time_is_refused(site, name, value):
    def page():
        with pytest.raises(ConfigError, match=f"session.{name} must be"):
            setattr(session, name, value)

    assert site.get(page).status == "200 OK"


# -- all of an owner's ---------------------------------------------------------------------------


def test_the_sessions_of_an_owner_are_listed_the_last_used_first(site, clock):
    first = logged_in(site, headers={"User-Agent": "Phone/1 \x07"})
    clock.advance(100)
    second = logged_in(site, headers={"User-Agent": "Desk/2"})
    logged_in(site, "bob")
    clock.advance(100)
    site.get(state, first)
    listed = site.manager.sessions_of("ann")
    assert [one.client for one in listed] == ["Phone/1 ", "Desk/2"]
    assert [one.created for one in listed] == [clock.now - 200, clock.now - 100]
    assert [one.last_accessed for one in listed] == [clock.now, clock.now - 100]
    assert all(one.expires > clock.now for one in listed)
    assert [one.owner for one in listed] == ["ann", "ann"]
    assert not any(id in repr(listed) for id in (first, second))
    site.get(lambda: session.fingerprint, second)
    assert listed[1].fingerprint == site.result


def test_the_list_says_by_what_the_id_travelled(site):
    id = logged_in(site, id=site.get(visit).id)
    (one,) = site.manager.sessions_of("ann")
    assert one.carrier == "Header('X-Session-Id')"
    site.get(lambda: session.sessions_of(), id)
    assert site.result == [one]


def test_all_but_this_one_end_at_once(site, options):
    ids = [logged_in(site) for _ in range(4)]
    bob = logged_in(site, "bob")
    late = Session({}, id=ids[1], **options)
    late["a"] = 1
    site.get(lambda: session.end_all(but=session), ids[0])
    assert site.result == 3
    assert [seen(site, id)[0] for id in ids] == ["ann", None, None, None]
    assert seen(site, bob)[0] == "bob"
    with pytest.raises(SessionGone):
        late.save()
    assert site.manager.end_all("ann") == 1
    assert site.manager.end_all("nobody") == 0


def test_one_of_an_owner_is_ended_by_its_fingerprint_and_no_other(site, options):
    ids = [logged_in(site) for _ in range(3)]
    bob = logged_in(site, "bob")
    named = {id: site.manager.backend.fingerprint(id) for id in (*ids, bob)}
    late = Session({}, id=ids[1], **options)
    late["a"] = 1
    site.get(lambda: session.end_one(named[ids[1]]), ids[0])
    assert site.result is True
    assert [seen(site, id)[0] for id in ids] == ["ann", None, "ann"]
    with pytest.raises(SessionGone):
        late.save()
    for nothing in (named[ids[1]], named[bob], named[ids[0]][:5], ""):
        site.get(lambda it=nothing: session.end_one(it), ids[0])
        assert site.result is False
    assert seen(site, bob)[0] == "bob"
    site.get(lambda: session.end_one(named[bob]))
    assert site.result is False, "who has no owner has no sessions"
    assert site.manager.end_one("bob", named[bob])


def test_a_login_may_end_all_others(site):
    first = logged_in(site)

    def page():
        session.login("ann")
        return session.end_all(but=session)

    second = site.get(page).id
    assert site.result == 1
    assert (seen(site, first)[0], seen(site, second)[0]) == (None, "ann")


def test_who_has_no_owner_has_no_sessions(site):
    site.get(lambda: (session.sessions_of(), session.end_all()))
    assert site.result == ([], 0)


def test_owners_are_found_after_the_secret_changed(store, clock):
    old = Site(type=store, clock=clock, secret="a" * 32)
    id = logged_in(old)
    new = Site(type=store, clock=clock, secret=["b" * 32, "a" * 32])
    assert len(new.manager.sessions_of("ann")) == 1
    logged_in(new)
    assert len(new.manager.sessions_of("ann")) == 2
    assert new.manager.end_all("ann") == 2
    assert seen(new, id)[2] == "unknown"


def test_the_store_sees_neither_the_owner_nor_the_id(site, store):
    id = logged_in(site, "ann@shop.example")
    if site.manager.backend.sealer is None:
        pytest.skip("without encryption values can be read, that of the owner too")
    if "encrypt_key" not in site.options:
        pytest.skip("without encryption values can be read")
    assert id not in repr(vars(store))
    assert "ann" not in repr(vars(store))


def test_a_store_that_knows_no_owners_says_so(clock):
    class Plain:
        """A store without the power to find by owner."""

        shared = True

        def __init__(self):
            self._store = MemoryStore(clock=clock)
            for name in ("load", "create", "save", "touch", "rotate", "destroy", "close"):
                setattr(self, name, getattr(self._store, name))

    site = Site(type=Plain(), clock=clock)
    assert seen(site, logged_in(site))[0] == "ann", "it logs in all the same"
    with pytest.raises(NocookieError, match="Plain cannot find sessions by their owner"):
        site.manager.sessions_of("ann")
    with pytest.raises(NocookieError, match="owner"):
        site.manager.end_all("ann")


@pytest.mark.parametrize(
    "planted", [b"", b"s\xff", b"j{}", b'j{"owner": 5}', b'j{"x": 1}', b"j[1]"]
)
def test_facts_that_we_did_not_write_cost_the_session(store, clock, planted):
    site = Site(type=store, clock=clock)
    id = logged_in(site)
    (key,) = store.keys()
    record = store.load(key)
    assert isinstance(record, Record)
    store._records[key] = record._replace(fields={**record.fields, "\0facts": planted})
    expected = (None, {}, "corrupted") if planted != b"j{}" else (None, {}, None)
    assert seen(site, id) == expected
    assert store.load(key) is not Missing.UNKNOWN, "it is kept"
