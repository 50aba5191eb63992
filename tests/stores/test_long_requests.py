"""What a request may rely on while it runs, on every place: nothing that was acknowledged is lost,
and nothing that has ended comes back."""

import threading

import pytest
from helpers import serve
from lengths import ROUNDS
from stores.places import places
from webob import Request

from nocookie import (
    Session,
    SessionConflict,
    SessionGone,
    SessionMiddleware,
    StoreError,
    session,
)
from nocookie.owners import sessions_of
from nocookie.stores.base import ByOwner, Missing

TIMEOUT, LIFETIME, LIMIT = 1800.0, 43200.0, 3600.0
EVERY, GRACE = 900.0, 10.0
MINUTE = 60.0


class Site:
    """An application on a place. A page is a function; what it returns is the body."""

    def __init__(self, place, clock, **more):
        self.clock = clock
        self.options = {**place.at(clock), **more}
        self._app = SessionMiddleware(self._handle, use_cookies=False, **self.options)
        self.backend = self._app.manager.backend

    def _handle(self, environ, start_response):
        body = environ["page"]()
        start_response("200 OK", [])
        return [b""] if body is None else body

    def get(self, page, id=None):
        environ = Request.blank("/").environ | {"page": page}
        if id is not None:
            environ["HTTP_X_SESSION_ID"] = id
        return serve(self._app, environ=environ)

    def begin(self):
        return self.get(saving("kept")).id

    def peek(self, id):
        """What a request that begins now finds under an id; why there is nothing, if so."""
        found = []
        self.get(lambda: found.append(session.reason or dict(session)), id)
        return found[0]

    def hand(self, id):
        """The session by hand, as another request has it."""
        return Session({}, id, backend=self.backend)


def saving(name, lasts=0.0, clock=None):
    def page():
        session.get("kept")
        if lasts:
            clock.advance(lasts)
        session[name] = 1
        session.save()

    return page


@pytest.fixture
def site(place, clock):
    return Site(place, clock)


# -- a session does not end while a request uses it -----------------------------------------------


@places()
def test_a_save_300_seconds_after_the_session_would_have_expired_is_stored(site, clock):
    id = site.begin()
    answer = site.get(saving("late", TIMEOUT + 300, clock), id)
    assert (answer.status, answer.id) == ("200 OK", None)
    clock.advance(TIMEOUT - 1)
    assert site.peek(id) == {"kept": 1, "late": 1}


@places()
def test_a_session_that_a_long_request_has_only_read_goes_on(site, clock):
    id = site.begin()

    def page():
        session.get("kept")
        clock.advance(TIMEOUT + 300)

    site.get(page, id)
    clock.advance(TIMEOUT - 1)
    assert site.peek(id) == {"kept": 1}


@places()
def test_a_session_goes_on_after_a_response_that_took_long(site, clock):
    """Renewed at `close`: the commit was long ago."""
    id = site.begin()

    def page():
        session.get("kept")

        def stream():
            yield b"1"
            clock.advance(TIMEOUT + 300)
            yield b"2"

        return stream()

    assert site.get(page, id).body == b"12"
    clock.advance(TIMEOUT - 1)
    assert site.peek(id) == {"kept": 1}


@places()
def test_a_short_request_is_no_reason_to_write(site, clock):
    id = site.begin()
    before = site.backend.store.load(site.backend.ids.key(id)).accessed
    clock.advance(30)
    assert site.peek(id) == {"kept": 1}
    assert site.backend.store.load(site.backend.ids.key(id)).accessed == before


@places()
def test_a_time_of_its_own_ends_no_session_in_use(site, clock):
    def page():
        session["kept"] = 1
        session.timeout = 100
        session.save()

    id = site.get(page).id
    assert site.get(saving("late", 400, clock), id).status == "200 OK"
    clock.advance(99)
    assert site.peek(id) == {"kept": 1, "late": 1}
    clock.advance(200)
    assert site.peek(id) == "expired"


@places()
@pytest.mark.parametrize("end", ["delete", "owner"])
def test_after_an_end_no_request_saves_however_soon(site, clock, end):
    def page():
        session["kept"] = 1
        session.login("ada")

    id = site.get(page).id
    if end == "owner" and not isinstance(site.backend.store, ByOwner):
        pytest.skip("the store is not ByOwner")

    def late():
        session.get("kept")
        clock.advance(TIMEOUT + 300)
        if end == "delete":
            site.backend.store.destroy(site.backend.ids.key(id))
        else:
            session.end_all("ada")
        session["late"] = 1
        session.save()

    assert site.get(late, id).status[:3] == "409"
    assert site.peek(id) == "unknown"


@places()
def test_a_request_that_begins_does_not_have_what_has_expired(site, clock):
    id = site.begin()
    clock.advance(TIMEOUT)
    for _ in range(2):  # to look renews nothing
        answer = site.get(saving("new"), id)
        assert answer.id not in (None, id)
        assert site.peek(answer.id) == {"new": 1}
        clock.advance(TIMEOUT)
        assert site.peek(id) == "expired"


@places()
def test_who_meets_an_expired_session_does_not_take_it_from_a_request_under_way(site, clock):
    id = site.begin()
    told = []

    def long():
        session.get("kept")
        clock.advance(TIMEOUT + 300)
        told.append(site.get(saving("new"), id).id)
        if hasattr(site.backend.store, "purge"):
            site.backend.store.purge(100)
        session["late"] = 1
        session.save()

    assert site.get(long, id).status == "200 OK"
    assert site.peek(id) == {"kept": 1, "late": 1}
    assert site.peek(told[0]) == {"new": 1}


@places()
def test_a_request_that_lasts_beyond_its_limit_saves_nothing(site, clock):
    id = site.begin()
    answer = site.get(saving("late", TIMEOUT + LIMIT, clock), id)
    assert answer.status[:3] == "409"
    assert b"another request" not in answer.body
    assert site.peek(id) in ("expired", "unknown")


@places()
def test_no_request_saves_beyond_the_lifetime(place, clock):
    site = Site(place, clock, lifetime=2000)
    id = site.begin()
    clock.advance(300)
    assert site.get(saving("late", 1699, clock), id).status == "200 OK"
    assert site.get(saving("later", 1, clock), id).status[:3] == "409"
    assert site.peek(id) in ("expired", "unknown")


@places()
def test_what_has_expired_is_listed_no_more(site, clock):
    store = site.backend.store
    if not isinstance(store, ByOwner):
        pytest.skip("the store is not ByOwner")

    def page():
        session["kept"] = 1
        session.login("ada")

    id = site.get(page).id
    [seen] = sessions_of(site.backend, "ada")
    assert seen.expires == clock.now + TIMEOUT
    clock.advance(TIMEOUT)
    assert sessions_of(site.backend, "ada") == []
    assert site.peek(id) == "expired"


# -- hosts whose clocks differ ---------------------------------------------------------------------


@places("shared")
def test_a_host_whose_clock_is_ahead_takes_no_acknowledged_save_away(place, clock):
    """It has read that the session is over, and waits; the other saves meanwhile."""
    behind, ahead = clock, type(clock)(clock.now + 30)
    here, there = Site(place, behind), Site(place, ahead)
    id = here.begin()
    # So long that not even a request that is under way may have it any more, by one of the clocks.
    late = here.hand(id)
    late["late"] = 1
    passed = TIMEOUT + LIMIT - 1
    behind.advance(passed)
    ahead.advance(passed)
    load = there.backend.load

    def load_and_wait(key):
        found = load(key)
        late.save()
        return found

    there.backend.load = load_and_wait
    met = there.hand(id)
    assert met.reason in ("expired", "unknown")
    assert here.peek(id) == {"kept": 1, "late": 1}


@places("shared")
def test_hosts_whose_clocks_differ_end_no_session_for_each_other(place, clock):
    behind, ahead = clock, type(clock)(clock.now + 30)
    here, there = Site(place, behind), Site(place, ahead)
    id = here.begin()
    behind.advance(TIMEOUT - 1)
    ahead.advance(TIMEOUT - 1)
    assert there.peek(id) == "expired"
    assert here.get(saving("late"), id).status == "200 OK"
    assert there.peek(id) == {"kept": 1, "late": 1}


# -- beside a rotation -----------------------------------------------------------------------------


@places()
def test_an_upload_of_25_minutes_beside_a_poll_that_rotates(place, clock):
    site = Site(place, clock, rotate_every=EVERY, rotation_grace=GRACE)
    id = site.begin()
    after = []

    def upload():
        session.get("kept")
        for _ in range(25):
            clock.advance(MINUTE)
            told = site.get(saving("poll"), after[-1] if after else id).id
            after.extend([told] if told else [])
        session["upload"] = 1
        session.save()

    answer = site.get(upload, id)
    assert len(after) == 1
    assert (answer.status, answer.id) == ("200 OK", after[0])
    assert site.peek(after[0]) == {"kept": 1, "poll": 1, "upload": 1}
    assert site.peek(id) == "unknown", "the old id opens nothing after the grace"


@places()
def test_a_long_request_that_only_reads_is_told_where_its_session_is_and_renews_it(place, clock):
    site = Site(place, clock, rotate_every=EVERY, rotation_grace=GRACE)
    id = site.begin()
    clock.advance(EVERY)
    after = []

    def read():
        session.get("kept")
        after.append(site.get(saving("poll"), id).id)
        clock.advance(TIMEOUT - 1)

    clock.advance(-1)
    environ_id = site.get(lambda: (session.get("kept"), clock.advance(1), read())[-1], id).id
    assert environ_id == after[0]
    clock.advance(TIMEOUT - 1)
    assert site.peek(after[0]) == {"kept": 1, "poll": 1}


@places()
def test_the_old_id_opens_nothing_after_the_grace_while_its_trail_lies(place, clock):
    site = Site(place, clock, rotate_every=EVERY, rotation_grace=GRACE)
    id = site.begin()
    clock.advance(EVERY)
    after = site.get(saving("more"), id).id
    late = site.hand(id)
    dict(late)  # within the grace, it leads on
    clock.advance(GRACE)
    assert site.peek(id) == "unknown"
    assert site.hand(id).is_new
    late["late"] = 1
    late.save()
    assert site.peek(after) == {"kept": 1, "more": 1, "late": 1}


@places()
def test_nothing_is_saved_into_a_session_that_ended_after_it_moved(place, clock):
    site = Site(place, clock, rotate_every=EVERY, rotation_grace=GRACE)
    id = site.begin()
    late = site.hand(id)
    late["late"] = 1
    clock.advance(EVERY)
    after = site.get(saving("more"), id).id
    clock.advance(600)
    site.hand(after).delete()
    with pytest.raises(SessionGone):
        late.save()
    assert site.peek(after) == site.peek(id) == "unknown"


@places()
def test_a_request_may_see_many_rotations(place, clock):
    site = Site(place, clock, rotate_every=60, rotation_grace=GRACE)
    id = site.begin()
    late = site.hand(id)
    late["late"] = 1
    after = id
    for _ in range(50):
        clock.advance(60)
        after = site.get(saving("poll"), after).id
    late.save()
    assert site.peek(after) == {"kept": 1, "poll": 1, "late": 1}


# -- two logins at once ----------------------------------------------------------------------------


@places()
@pytest.mark.parametrize("owners", [("ada", "ada"), ("ada", "bob")])
def test_the_second_of_two_logins_begins_a_session_of_its_own(place, clock, owners):
    site = Site(place, clock)

    def cart():
        session["cart"] = ["book"]
        session["seen"] = 1
        session.timeout = 600
        session.save()

    id = site.get(cart).id
    told = []

    def first():
        session["first"] = 1
        session.login(owners[0])

    def second():
        session["cart"].append("pen")
        told.append(site.get(first, id).id)
        session["second"] = 1
        session.login(owners[1])

    answer = site.get(second, id)
    assert answer.status == "200 OK"
    assert answer.id not in (None, id, told[0])
    mine, other = site.hand(answer.id), site.hand(told[0])
    assert (dict(mine), mine.owner, mine.timeout) == ({"second": 1}, owners[1], TIMEOUT)
    assert dict(other) == {"cart": ["book"], "seen": 1, "first": 1}
    assert (other.owner, other.timeout) == (owners[0], 600)
    assert site.peek(id) == "unknown"


@places()
def test_a_login_whose_session_ended_under_way_is_a_session_of_its_own(site, clock):
    id = site.begin()

    def login():
        session.get("kept")
        site.hand(id).delete()
        session["new"] = 1
        session.lifetime = 900
        session.login("ada")

    answer = site.get(login, id)
    mine = site.hand(answer.id)
    assert (answer.status, dict(mine), mine.owner) == ("200 OK", {"new": 1}, "ada")
    assert (mine.lifetime, mine.timeout) == (900, TIMEOUT)
    if isinstance(site.backend.store, ByOwner):
        assert len(sessions_of(site.backend, "ada")) == 1


# -- ids of gateways -------------------------------------------------------------------------------


@pytest.fixture(params=[None, "s" * 32], ids=["plain", "with a secret"])
def gateway(request, place, clock):
    return Site(place, clock, strict=False, id_key="k", secret=request.param)


def between(monkeypatch, store, name, act):
    """Have *act* happen once, after the next call of a method and before its caller has the
    answer."""
    real = getattr(store, name)

    def call(*arguments, **further):
        monkeypatch.setattr(store, name, real)
        found = real(*arguments, **further)
        act()
        return found

    monkeypatch.setattr(store, name, call)


@places()
def test_a_save_beside_a_login_under_the_id_of_a_gateway_is_kept_or_refused(gateway, monkeypatch):
    gateway.get(saving("kept"), "42")
    other, login = gateway.hand("42"), gateway.hand("42")
    other["acknowledged"] = 1
    login.login("ada")
    between(monkeypatch, gateway.backend.store, "load", other.save)
    login.save()
    mine = gateway.hand("42")
    assert (dict(mine), mine.owner) == ({"kept": 1, "acknowledged": 1}, "ada")
    other["late"] = 1
    with pytest.raises(SessionGone):
        other.save()
    assert "late" not in gateway.hand("42")


@places()
def test_a_login_that_fails_under_the_id_of_a_gateway_loses_nothing(gateway, monkeypatch):
    gateway.get(saving("kept"), "42")
    login = gateway.hand("42")
    login.login("ada")

    def fail(*arguments, **further):
        raise StoreError("down, for the test")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.backend.store, "create", fail)
        with pytest.raises(StoreError):
            login.save()
    mine = gateway.hand("42")
    assert (dict(mine), mine.owner) == ({"kept": 1}, None)


@places()
@pytest.mark.parametrize("owners", [("ada", "ada"), ("ada", "bob")])
def test_two_logins_at_once_under_the_id_of_a_gateway(gateway, owners):
    gateway.get(saving("kept"), "42")
    first, second = gateway.hand("42"), gateway.hand("42")
    first["first"] = 1
    first.login(owners[0])
    second["second"] = 1
    second.login(owners[1])
    first.save()
    second.save()
    mine = gateway.hand("42")
    assert mine.owner == owners[1]
    if owners[0] == owners[1]:
        assert dict(mine) == {"kept": 1, "first": 1, "second": 1}
    else:
        assert dict(mine) == {"second": 1}
    first["late"] = 1
    with pytest.raises(SessionGone):
        first.save()


@places()
def test_a_login_joins_a_gateway_session_that_another_request_has_begun(gateway):
    other, login = gateway.hand("42"), gateway.hand("42")
    login["mine"] = 1
    login.login("ada")
    other["other"] = 1
    other.login("bob")
    other.save()
    login.save()
    mine = gateway.hand("42")
    assert (dict(mine), mine.owner) == ({"mine": 1}, "ada")


@places()
def test_what_cannot_be_used_under_the_id_of_a_gateway_goes_only_as_it_was_seen(
    gateway, clock, monkeypatch
):
    """An expired session makes room for the next one; not if it was renewed since it was read."""
    gateway.get(saving("kept"), "42")
    slow = gateway.hand("42")
    slow["acknowledged"] = 1
    clock.advance(TIMEOUT + 1)
    late = gateway.hand("42")
    assert late.reason == "expired"
    late["late"] = 1
    between(monkeypatch, gateway.backend.store, "load", slow.save)
    late.save()
    assert dict(gateway.hand("42")) == {"kept": 1, "acknowledged": 1, "late": 1}


@places()
def test_an_expired_session_under_the_id_of_a_gateway_ends_when_the_next_one_is_stored(
    gateway, clock
):
    gateway.get(saving("kept"), "42")
    slow = gateway.hand("42")
    slow["slow"] = 1
    clock.advance(TIMEOUT + 1)
    gateway.get(saving("next"), "42")
    with pytest.raises(SessionGone):
        slow.save()
    assert dict(gateway.hand("42")) == {"next": 1}


@places()
def test_three_requests_at_once_begin_one_gateway_session_after_another_ended(gateway, monkeypatch):
    """The first one's ends while the second is about to join it, and a third begins anew."""
    one, two, three = (gateway.hand("42") for _ in range(3))
    one["a"], two["b"], three["c"] = 1, 2, 3
    one.save()

    def end_and_begin():
        one.delete()
        three.save()

    between(monkeypatch, gateway.backend.store, "load", end_and_begin)
    try:
        two.save()
    except SessionGone:  # it had joined what ended then
        assert dict(gateway.hand("42")) == {"c": 3}
    else:
        assert dict(gateway.hand("42")) == {"b": 2, "c": 3}
    assert gateway.backend.store.load("0" * 64) is Missing.UNKNOWN


@places("local")
def test_by_chance_no_acknowledged_save_is_lost_beside_logins_of_a_gateway(place):
    """Two threads, as long as `NOCOOKIE_ROUNDS` says: `make soak` has the long version."""
    options = {**place.options, "strict": False, "id_key": "k", "secret": "s" * 32}
    acknowledged, refused = {}, []
    done = threading.Event()

    def begin():
        mine = Session({}, "42", **options)
        mine["begun"] = 1
        mine.save()

    def save():
        for number in range(ROUNDS):
            mine = Session({}, "42", **options)
            name = str(number % 50)
            mine[name] = number
            try:
                mine.save()
            except SessionGone:
                refused.append(number)
            else:
                acknowledged[name] = number

    def log_in():
        while not done.is_set():
            mine = Session({}, "42", **options)
            mine.login("ada")
            try:
                mine.save()
            except SessionConflict:
                pass

    begin()
    logins = threading.Thread(target=log_in)
    logins.start()
    try:
        save()
    finally:
        done.set()
        logins.join()
    there = dict(Session({}, "42", **options))
    assert {name: there[name] for name in acknowledged} == acknowledged
    assert len(acknowledged) > 10
