"""Ids that Beaker issued: recognised where the import wrote a record, replaced at once, and no
door for anybody else."""

import hashlib
import hmac
import json
import logging
import uuid

import pytest
from helpers import CountingStore, serve
from hypothesis import given
from hypothesis import settings as search
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from webob import Request

from nocookie import (
    AskedHeader,
    Cookie,
    Header,
    Session,
    SessionMiddleware,
    StoreError,
    session,
)
from nocookie.beaker_ids import is_beaker_id, is_store_key, mark_key, store_key
from nocookie.importing import Importer
from nocookie.options import resolve
from nocookie.stores.base import Missing, Record
from nocookie.testing import FakeClock

SECRET = "a secret for tests, long enough"
OLD_SECRET = "somesecret"
#: Some time after the moment at which the tests' clock stands.
UNTIL = "2001-12-31"
#: Seconds for which the old id leads to the new one: `rotation_grace`.
GRACE = 10


def new_old_id():
    return uuid.uuid4().hex


def signed(id, secret=OLD_SECRET):
    """As Beaker signs the id in its cookie."""
    return hmac.new(secret.encode(), id.encode(), hashlib.sha1).hexdigest() + id


def visit(environ, start_response):
    action = environ["PATH_INFO"].strip("/")
    if action == "write":
        session["n"] = session.get("n", 0) + 1
        session.save()
    elif action == "incr":
        session.incr("n")
    elif action == "rotate":
        session.regenerate_id()
    elif action == "end":
        session.delete()
    elif action == "auto":
        session["n"] = 9
    start_response("200 OK", [("Content-Type", "text/plain")])
    if not action:
        return [b"untouched"]
    return [f"{session.get('n')} {session.reason} {session.must_propagate}".encode()]


class House:
    """An application that takes over, and a store with what was imported."""

    def __init__(self, clock, **options):
        self.clock = clock
        self.store = CountingStore(clock=clock)
        self.store.shared = True
        self.options = {"beaker_ids_until": UNTIL, "secret": SECRET, "clock": clock, **options}
        self.options["type"] = self.store
        if self.options.get("use_cookies") is None:
            self.options["use_cookies"] = False
        self.app = SessionMiddleware(visit, **self.options)

    def imported(self, id=None, **data):
        """Import a session under this id; return the id."""
        id = id or new_old_id()
        now = self.clock()
        text = json.dumps({**(data or {"n": 1}), "_creation_time": now, "_accessed_time": now})
        source = Source({id: text})
        outcomes = [*Importer(source, json.loads, resolve(None, self.options))([id])]
        assert [outcome.kind for outcome in outcomes] == ["imported"]
        self.store.trips.clear()
        return id

    def get(self, path, id=None, cookie=None):
        environ = Request.blank(path).environ
        if id is not None:
            environ["HTTP_X_SESSION_ID"] = id
        if cookie is not None:
            environ["HTTP_COOKIE"] = f"sid={cookie}"
        return serve(self.app, environ=environ)

    def records(self):
        return sorted(self.store.keys())

    def is_dead(self, id=None, cookie=None):
        """Whether an id opens nothing once nobody can be on the way with it any more."""
        self.clock.advance(GRACE)
        return self.get("/read", id, cookie).body == b"None unknown False"


class Source:
    """A store of Beaker's, in memory."""

    place = "here"
    lists_all = True

    def __init__(self, texts):
        self.texts = texts

    def ids(self):
        return list(self.texts)

    def read(self, id):
        return self.texts.get(id)

    def close(self):
        pass


@pytest.fixture
def house(clock):
    return House(clock)


@pytest.fixture
def events(caplog):
    caplog.set_level(logging.INFO, "nocookie")
    return lambda: [record.event for record in caplog.records]


# -- what Beaker has ended ------------------------------------------------------------------------


def test_a_client_that_comes_while_its_session_is_being_ended_keeps_it_or_finds_nothing(house):
    """Whoever is first: the other changes nothing."""
    old, other = house.imported(), new_old_id()
    importer = Importer(Source({other: "{}"}), json.loads, resolve(None, house.options))
    store, ours = house.store, []
    load = store.load

    def load_late(key):
        found = load(key)
        if key == mark_key(old) and not ours:
            ours.append(None)
            ours[0] = house.get("/write", old).id
        return found

    store.load = load_late
    assert [outcome.kind for outcome in importer.ended([other])] == ["taken"]
    store.load = load
    assert house.get("/read", ours[0]).body == b"2 None False"


def test_a_client_that_has_just_come_keeps_its_session(house):
    """It has left its mark, and the session has not moved yet."""
    old, other = house.imported(), new_old_id()
    importer = Importer(Source({other: "{}"}), json.loads, resolve(None, house.options))
    rotate, seen = house.store.rotate, []

    def rotate_late(*arguments, **options):
        house.store.rotate = rotate
        seen.extend(outcome.kind for outcome in importer.ended([other]))
        return rotate(*arguments, **options)

    house.store.rotate = rotate_late
    ours = house.get("/write", old).id
    assert seen == ["taken"]
    assert house.get("/read", ours).body == b"2 None False"


def test_what_was_cleared_is_not_found_by_who_comes_then(house):
    old, other = house.imported(), new_old_id()
    importer = Importer(Source({other: "{}"}), json.loads, resolve(None, house.options))
    destroy, seen = house.store.destroy, []

    def destroy_late(key):
        house.store.destroy = destroy
        seen.append(house.get("/read", old).body)
        return destroy(key)

    house.store.destroy = destroy_late
    assert [outcome.kind for outcome in importer.ended([other])] == ["ended"]
    assert seen == [b"None None True"]


def test_to_find_what_was_imported_no_other_record_is_read(house):
    for _ in range(5):
        house.get("/write")
    house.imported()
    keys_asked = house.store.keys_asked
    keys_asked.clear()
    other = new_old_id()
    importer = Importer(Source({other: "{}"}), json.loads, resolve(None, house.options))
    assert [outcome.kind for outcome in importer.ended([other])] == ["ended"]
    assert len(keys_asked) == 2, "the record and its mark"


@given(st.text("0123456789abcdef", min_size=64, max_size=64))
def test_only_keys_of_the_import_look_like_them(key):
    assert is_store_key(store_key(key))
    assert not is_store_key(key)
    assert not is_store_key(mark_key(key))


# -- the session moves ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/read", "/write", "/incr", "/rotate", "/auto"])
@pytest.mark.parametrize("auto", [False, True])
def test_whatever_the_request_does_the_session_moves_to_an_id_of_ours(clock, path, auto):
    house = House(clock, auto=auto)
    old = house.imported()

    first = house.get(path, old)

    said = {"/write": 2, "/incr": 2, "/auto": 9}.get(path, 1)
    assert first.body.decode() == f"{said} None True"
    assert len(first.id) == 43
    kept = said if path != "/auto" or auto else 1
    again = house.get("/read", first.id)
    assert (again.body.decode(), again.id) == (f"{kept} None False", None)
    assert house.is_dead(old)
    assert store_key(old) not in house.records()


def test_it_costs_a_mark_and_a_rotation_once(house):
    old = house.imported()
    ours = house.get("/read", old).id
    assert house.store.trips == ["load", "create", "rotate"]
    house.store.trips.clear()
    house.get("/read", ours)
    assert house.store.trips == ["load"]


def test_an_untouched_session_stays_until_it_is_used(house):
    old = house.imported()
    assert house.get("/", old).id is None
    assert house.store.trips == []
    assert house.get("/read", old).body == b"1 None True"


def test_a_request_that_nobody_made_on_purpose_moves_nothing(house):
    """It does not rotate, so it must tell no id either: none is stored under that."""
    old = house.imported()
    environ = Request.blank("/read", method="HEAD").environ
    environ["HTTP_X_SESSION_ID"] = old
    assert serve(house.app, environ=environ).id is None
    assert house.store.trips == ["load"]
    assert house.get("/read", old).body == b"1 None True"


def test_the_end_of_a_session_is_its_end(house):
    old = house.imported()
    assert house.get("/end", old).body == b"None destroyed False"
    assert house.get("/read", old).body == b"None unknown False"
    assert house.records() == [mark_key(old)]


def test_ways_around_the_middleware_move_it_too(house):
    for make in (
        lambda old: session.rebuild(old),
        lambda old: session._get_current_obj().__dict__.__setitem__(
            "_sess", Session({}, **{**session._get_current_obj().__dict__["_params"], "id": old})
        ),
    ):
        old = house.imported()

        def application(environ, start_response, make=make, old=old):
            make(old)
            body = f"{session['n']} {session.must_propagate}".encode()
            start_response("200 OK", [])
            return [body]

        first = serve(SessionMiddleware(application, **house.options))
        assert first.body == b"1 True"
        assert house.get("/read", first.id).body == b"1 None False"
        assert house.is_dead(old)


def test_a_session_by_hand_moves_when_it_is_saved(house):
    old = house.imported()
    options = {name: value for name, value in house.options.items() if name != "use_cookies"}
    alone = Session({}, id=old, **options)
    alone["n"] = 5
    alone.save()
    assert len(alone.id) == 43
    assert house.get("/read", alone.id).body == b"5 None False"
    assert house.is_dead(old)


def test_loading_again_keeps_the_new_id(house):
    old = house.imported()

    def application(environ, start_response):
        session["n"] = 7
        session.load()
        start_response("200 OK", [])
        return [f"{session['n']}".encode()]

    first = serve(SessionMiddleware(application, **house.options), old)
    assert first.body == b"1"
    assert house.get("/read", first.id).body == b"1 None False"
    assert house.is_dead(old)


def test_of_two_requests_at_once_both_give_the_client_the_same_id(clock):
    """Whichever answer comes last is in the cookie then, and what each of them saved is there."""
    house = House(clock, use_cookies=True, key="sid", beaker_secret=OLD_SECRET)
    old = house.imported()
    inner = []

    def slow(environ, start_response):
        session["slow"] = session["n"]
        inner.append(house.get("/write", cookie=signed(old)))
        session.save()
        start_response("200 OK", [])
        return [b""]

    def cookie(answer):
        return answer.header("Set-Cookie").partition(";")[0].removeprefix("sid=")

    environ = {**Request.blank("/").environ, "HTTP_COOKIE": f"sid={signed(old)}"}
    outer = serve(SessionMiddleware(slow, **house.options), environ=environ)
    assert (outer.status, cookie(outer)) == ("200 OK", cookie(inner[0]))
    assert house.get("/write", cookie=cookie(outer)).body == b"3 None False"


def test_a_request_that_comes_late_with_the_old_id_is_not_logged_out(house):
    """A page asks for several things at once, and some were on their way when the first moved the
    session."""
    old = house.imported()
    first = house.get("/write", old)
    late = house.get("/write", old)
    assert (late.body, late.id) == (b"3 None True", first.id)
    assert house.is_dead(old)


# -- nobody else gets in -------------------------------------------------------------------------


def test_an_id_that_was_not_imported_is_never_adopted(house):
    forged = new_old_id()

    first = house.get("/write", forged)

    assert first.body == b"1 unknown True"
    assert len(first.id) == 43
    assert house.store.load(store_key(forged)) is Missing.UNKNOWN
    assert house.get("/read", forged).body == b"None unknown False"


@pytest.mark.parametrize(
    "text",
    [
        "5" * 32,
        "0" * 32,
        uuid.uuid1().hex,
        str(uuid.UUID(int=5)),
        new_old_id().upper(),
        new_old_id()[:-1],
        new_old_id() + "0",
        new_old_id()[:-1] + "\u0663",
        f"{new_old_id()}\n",
    ],
)
def test_what_beaker_cannot_have_issued_is_malformed_and_costs_no_trip(house, text):
    assert not is_beaker_id(text)
    assert house.get("/read", text).body == b"None malformed False"
    assert house.store.trips == []


def test_without_the_option_nothing_is_recognised(clock):
    house = House(clock)
    old = house.imported()
    without = {name: value for name, value in house.options.items() if "beaker" not in name}
    house.app = SessionMiddleware(visit, **without)
    assert house.get("/read", old).body == b"None malformed False"
    assert house.store.trips == []


def test_after_the_day_nothing_is_recognised(house, events):
    old = house.imported()
    house.clock.now = resolve(None, {"beaker_ids_until": UNTIL})["beaker_ids_until"].timestamp()
    house.store.create(store_key(old), Record({}, house.clock(), 0, 0, 1), 600)
    house.store.trips.clear()
    assert house.get("/read", old).body == b"None malformed False"
    assert house.store.trips == []
    assert "misfit" not in events()
    SessionMiddleware(visit, **house.options)
    assert "misfit" in events()


@pytest.fixture
def signing(clock):
    return House(clock, use_cookies=True, key="sid", beaker_secret=OLD_SECRET)


def test_a_cookie_with_the_right_signature_opens_its_session(signing):
    old = signing.imported()
    first = signing.get("/read", cookie=signed(old))
    assert first.body == b"1 None True"
    ours = first.header("Set-Cookie").partition(";")[0].removeprefix("sid=")
    assert signing.get("/read", cookie=ours).body == b"1 None False"
    assert signing.is_dead(cookie=signed(old))


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda old: old, "forged"),
        (lambda old: "0" * 40 + old, "forged"),
        (lambda old: signed(old, "another"), "forged"),
        (lambda old: signed(old, SECRET), "forged"),
        (lambda old: signed(new_old_id())[:40] + old, "forged"),
        (lambda old: signed(old).upper(), "malformed"),
        (lambda old: signed(old)[1:], "malformed"),
        (lambda old: signed(old) + "0", "malformed"),
    ],
)
def test_a_cookie_with_a_wrong_signature_costs_no_trip(signing, forge, reason):
    old = signing.imported()
    answer = signing.get("/read", cookie=forge(old))
    assert answer.body.decode() == f"None {reason} False"
    assert signing.store.trips == []


@pytest.mark.parametrize("cookie", ["{}; sid=x", "x; sid={}"])
def test_beside_another_cookie_the_signature_counts_all_the_same(signing, cookie):
    old = signing.imported()
    for unsigned in (old, "0" * 40 + old):
        answer = signing.get("/read", cookie=cookie.format(unsigned))
        assert answer.body == b"None malformed False"
    assert signing.store.trips == []
    assert signing.get("/read", cookie=cookie.format(signed(old))).body == b"1 None True"


def test_without_beakers_secret_its_cookies_were_bare(clock):
    house = House(clock, use_cookies=True, key="sid")
    old = house.imported()
    assert house.get("/read", cookie=signed(old)).body == b"None malformed False"
    assert house.get("/read", cookie=old).body == b"1 None True"


@pytest.mark.parametrize(
    "carrier",
    [Header(), AskedHeader(), lambda request: request.headers.get("X-Session-Id")],
    ids=["header", "asked header", "callable"],
)
def test_no_carrier_takes_an_id_without_its_signature(clock, carrier):
    house = House(clock, find_id=[Cookie("sid"), carrier], beaker_secret=OLD_SECRET)
    old = house.imported()
    assert house.get("/read", cookie=old).body == b"None forged False"
    assert house.get("/read", id=old).body == b"None forged False"
    assert house.store.trips == []
    first = house.get("/read", id=signed(old))
    assert first.body == b"1 None True"
    assert first.id is not None
    another = house.imported()
    first = house.get("/read", cookie=signed(another))
    assert (first.body, first.id) == (b"1 None True", None)
    assert first.header("Set-Cookie") is not None


def test_without_beakers_secret_an_id_counts_as_it_is(clock):
    """So had clients it that Beaker gave no cookie, by an application of its own making."""
    house = House(clock, find_id=[Cookie("sid"), Header()])
    old = house.imported()
    first = house.get("/read", id=old)
    assert first.body == b"1 None True"
    assert first.id is not None


def test_no_id_of_beakers_is_in_a_log_or_a_repr(house, caplog):
    caplog.set_level(logging.DEBUG)
    old = house.imported()
    house.get("/write", old)
    house.get("/read", old)
    house.get("/end", house.imported())
    assert old not in caplog.text
    assert old not in repr(vars(house.app.manager))


def test_a_store_that_fails_on_the_way_loses_nothing(house):
    now = house.clock()
    text = json.dumps({"n": 1, "_creation_time": now, "_accessed_time": now})
    ids = [new_old_id() for _ in range(3)]
    importer = Importer(Source(dict.fromkeys(ids, text)), json.loads, resolve(None, house.options))
    outcomes = importer(ids)
    assert next(outcomes).kind == "imported"
    house.store.fail("create")
    with pytest.raises(StoreError):
        next(outcomes)
    house.store.fail()
    assert [outcome.kind for outcome in importer(ids)] == ["there", "imported", "imported"]


def test_a_store_that_fails_at_the_first_use_is_503_and_loses_nothing(house):
    for call in ("create", "rotate"):
        old = house.imported()
        house.store.fail(call)
        assert house.get("/read", old).status.startswith("503")
        house.store.fail()
        first = house.get("/read", old)
        assert first.body == b"1 None True"
        assert house.get("/read", first.id).body == b"1 None False"


# -- imports, visits and time, in any order ------------------------------------------------------


class Migration(RuleBasedStateMachine):
    """One client of Beaker's, imports whenever an operator likes, and the application that takes
    over: the session is never lost, never there twice, and never comes back."""

    TIMEOUT = 1800

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.house = House(self.clock, lifetime=None)
        self.old = new_old_id()
        self.source = Source({"a cache": "{}"})
        self.importer = Importer(
            self.source, json.loads, resolve(None, self.house.options), timeout=None
        )
        self.written = 0
        #: What was imported and may be come with: (number, last use).
        self.ready = None
        #: Our id, and when it was last used, once the client came; None after the end.
        self.ours = None
        self.came = False

    @precondition(lambda self: not self.came)
    @rule()
    def beaker_serves(self):
        self.written += 1
        self.clock.advance(1)
        now = self.clock()
        data = {"n": self.written, "_creation_time": now, "_accessed_time": now}
        self.source.texts[self.old] = json.dumps(data)
        self.beaker = (self.written, now)

    @precondition(lambda self: self.written)
    @rule(text=st.sampled_from([None, "{}"]))
    def beaker_ends(self, text):
        """And deletes it, or leaves its place."""
        self.source.texts[self.old] = text
        if text is None and self.written % 2:
            del self.source.texts[self.old]

    @precondition(lambda self: self.written)
    @rule()
    def import_runs(self):
        ids = self.source.ids()
        outcomes = [*self.importer(ids), *self.importer.ended(ids)]
        text = self.source.texts.get(self.old)
        is_there = self.ready is not None and self.clock() < self.ready[1] + self.TIMEOUT
        if text in (None, "{}"):
            expected = [] if self.old not in ids else ["empty" if text else "other"]
            if is_there and not self.came:
                expected = ["ended"]
                self.ready = None
        elif self.clock() >= self.beaker[1] + self.TIMEOUT:
            expected = ["unused"]
        elif self.came:
            expected = ["taken"]
        else:
            expected = ["there" if self.ready == self.beaker else "imported"]
            self.ready = self.beaker
        assert outcomes[0].kind == "other", "the cache"
        assert [outcome.kind for outcome in outcomes[1:]] == expected

    @rule(path=st.sampled_from(["/read", "/write"]))
    def the_client_comes(self, path):
        if self.ours is not None:
            id, number, last = self.ours
            lives = self.clock() < last + self.TIMEOUT
        elif not self.came:
            id, (number, last) = self.old, self.ready or (0, 0)
            lives = self.clock() < last + self.TIMEOUT
        else:
            return
        if not lives:
            assert self.house.get("/read", id).body.startswith(b"None ")
            return
        answer = self.house.get(path, id)
        number += path == "/write"
        assert answer.body.startswith(b"%d None" % number)
        assert (answer.id is not None) == (not self.came)
        self.came = True
        self.ours = (answer.id or id, number, self.clock())

    @precondition(lambda self: self.ready and not self.came)
    @rule()
    def the_client_comes_to_log_out(self):
        """So nothing leads on from the old id: the mark alone says that it came."""
        if self.clock() < self.ready[1] + self.TIMEOUT:
            self.house.get("/end", self.old)
            self.came = True

    @precondition(lambda self: self.ours)
    @rule()
    def the_client_logs_out(self):
        self.house.get("/end", self.ours[0])
        self.ours = None

    @precondition(lambda self: self.came)
    @rule()
    def somebody_else_has_the_old_id(self):
        self.clock.advance(GRACE)
        assert self.house.get("/write", self.old).body == b"1 unknown True"
        for key in self.house.records():  # the session that this made
            if key not in self.accounted():
                self.house.store.destroy(key)

    @rule(seconds=st.sampled_from([100, 1000, 2000]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    def accounted(self):
        key = self.house.app.manager.backend.ids.key
        return {
            mark_key(self.old),
            store_key(self.old),
            *([key(self.ours[0])] if self.ours else []),
        }

    @invariant()
    def it_is_there_once_at_most(self):
        records = [key for key in self.house.records() if key != mark_key(self.old)]
        assert len(records) <= 1
        if self.came:
            assert store_key(self.old) not in records


TestMigration = Migration.TestCase
TestMigration.settings = search(max_examples=100, stateful_step_count=30)
