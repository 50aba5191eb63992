"""The session itself: values, changes, lifetimes, ends."""

import threading

import pytest
from helpers import CountingStore

import nocookie
from nocookie import NocookieError, Session, SessionConflict, SessionGone, ValueRefused
from nocookie.stores.base import Missing, Record


@pytest.fixture
def store(clock):
    return CountingStore(clock=clock)


@pytest.fixture(params=["plain", "with a secret", "encrypted", "pickled"])
def options(request, store, clock):
    return {
        "plain": {},
        "with a secret": {"secret": "s" * 32},
        "encrypted": {"secret": "s" * 32, "encrypt_key": "k" * 32},
        "pickled": {"secret": "s" * 32, "data_serializer": "pickle"},
    }[request.param] | {"type": store, "clock": clock}


@pytest.fixture
def open_(options):
    def open_(id=None, **more):
        return Session({}, id, **options, **more)

    return open_


def saved(open_, **values):
    made = open_()
    made.update(values)
    made.save()
    return made


# -- the mapping ---------------------------------------------------------------------------------


def test_it_is_a_mapping(open_):
    id = saved(open_, a=1, b="two").id
    session = open_(id)
    assert dict(session) == {"a": 1, "b": "two"}
    assert (len(session), "a" in session, "c" in session) == (2, True, False)
    assert session.has_key("b")
    assert session.pop("a") == 1
    session["c"] = [3]
    assert session == {"b": "two", "c": [3]}
    assert session.setdefault("c", 4) == [3]
    with pytest.raises(KeyError):
        del session["a"]
    session.save()
    assert dict(open_(id)) == {"b": "two", "c": [3]}


def test_a_key_that_was_deleted_and_set_again_is_stored(open_):
    id = saved(open_, a=1).id
    session = open_(id)
    del session["a"]
    session["a"] = 2
    session.save()
    assert dict(open_(id)) == {"a": 2}


def test_a_key_that_was_deleted_set_and_deleted_again_is_gone(open_):
    id = saved(open_, a=1, b=1).id
    session = open_(id)
    session.pop("a")
    session["a"] = 2
    session.pop("a")
    session.save()
    assert dict(session) == {"b": 1}
    assert dict(open_(id)) == {"b": 1}


@pytest.mark.parametrize("key", [1, None, ("a",), b"bytes"])
def test_keys_are_text(open_, key):
    with pytest.raises(ValueRefused, match="keys are text"):
        open_()[key] = 1


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["list"].append(1),
        lambda s: s["list"][0].append(1),
        lambda s: s["dict"].update(new=1),
        lambda s: s["dict"]["deep"].add("x"),
        lambda s: s["set"].add(2),
        lambda s: s["bytes"].extend(b"!"),
        lambda s: s["tuple"][0].append(1),
    ],
)
def test_containers_changed_in_place_are_noticed(open_, change):
    values = {
        "list": [[]],
        "dict": {"deep": {"s"}},
        "set": {1},
        "bytes": bytearray(b"b"),
        "tuple": ([],),
    }
    id = saved(open_, **values).id
    session = open_(id)
    change(session)
    session.save()
    assert dict(open_(id)) == dict(session)
    assert dict(open_(id)) != values


def test_containers_that_were_only_read_are_not_written(open_, store):
    id = saved(open_, list=[1], dict={"a": 1}, set={3, 1, 2}).id
    session = open_(id)
    dict(session)
    store.trips.clear()
    session.save()
    assert store.trips == []


def test_a_container_changed_after_save_is_written_as_it_is_at_the_commit(store, clock):
    from helpers import serve

    def app(environ, start_response):
        session = environ["nocookie.session"]
        session["list"] = [1]
        session.save()
        session["list"].append(2)
        start_response("200 OK", [])
        return [b""]

    middleware = nocookie.SessionMiddleware(app, use_cookies=False, type=store, clock=clock)
    id = serve(middleware).id
    assert Session({}, id, backend=middleware.manager.backend)["list"] == [1, 2]


class Own:
    def __init__(self):
        self.n = 0

    def __eq__(self, other):
        return self.n == other.n


def test_other_objects_need_changed(store, clock):
    options = {"type": store, "clock": clock, "secret": "s" * 32, "data_serializer": "pickle"}
    session = Session({}, **options)
    session["own"] = Own()
    session.save()
    again = Session({}, session.id, **options)
    again["own"].n = 1
    again.save()
    assert Session({}, session.id, **options)["own"].n == 0
    again.changed("own")
    again.save()
    assert Session({}, session.id, **options)["own"].n == 1
    with pytest.raises(KeyError):
        again.changed("missing")


def test_revert_undoes_nested_changes(open_):
    id = saved(open_, a=1, deep={"list": [1]}).id
    session = open_(id)
    session["a"] = 2
    session["b"] = 3
    session["deep"]["list"].append(2)
    del session["a"]
    session.revert()
    assert dict(session) == {"a": 1, "deep": {"list": [1]}}
    session.clear()
    session.revert()
    assert session["a"] == 1
    session.save()
    assert dict(open_(id)) == {"a": 1, "deep": {"list": [1]}}


@pytest.mark.parametrize(
    "value", [object(), lambda: 0, type("Odd", (), {})(), 1j, open, {"deep": [object()]}]
)
def test_a_value_that_cannot_be_held_is_refused_by_name_and_changes_nothing(store, value, clock):
    session = Session({}, type=store, clock=clock)
    session["a"] = 1
    session.save()
    session["a"] = 2
    session["culprit"] = value
    with pytest.raises(ValueRefused, match="culprit") as caught:
        session.save()
    assert caught.value.key == "culprit"
    assert dict(Session({}, session.id, type=store, clock=clock)) == {"a": 1}


def test_sizes_are_refused_before_the_store(open_, store):
    session = open_(max_value_size=1000, max_size=2000)
    session["a"] = "x" * 1001
    with pytest.raises(ValueRefused, match="max_value_size"):
        session.save()
    for name in "abc":
        session[name] = "x" * 900
    with pytest.raises(ValueRefused, match="max_size"):
        session.save()
    assert store.trips == []
    del session["c"]
    session.save()
    again = open_(session.id, max_value_size=1000, max_size=2000)
    again["a"] = "y" * 900  # replaced, not added
    again.save()
    again["c"] = "z" * 900
    with pytest.raises(ValueRefused, match="max_size"):
        again.save()


# -- two at once ---------------------------------------------------------------------------------


def test_changes_of_different_keys_are_both_kept(open_):
    id = saved(open_, a=0, b=0).id
    one, two = open_(id), open_(id)
    one["a"], two["b"] = 1, 2
    two.save()
    one.save()
    assert dict(open_(id)) == {"a": 1, "b": 2}


def test_on_the_same_key_the_last_writer_wins(open_):
    id = saved(open_, a=0).id
    one, two = open_(id), open_(id)
    one["a"], two["a"] = 1, 2
    two.save()
    one.save()
    assert open_(id)["a"] == 1


def test_clear_removes_what_others_added_meanwhile(open_):
    id = saved(open_, a=0).id
    one, two = open_(id), open_(id)
    one.clear()
    one["mine"] = 1
    two["theirs"] = 2
    two.save()
    one.save()
    assert dict(open_(id)) == {"mine": 1}


def test_an_ended_session_cannot_be_saved_and_is_not_revived(open_, store):
    id = saved(open_, a=0).id
    for end in (Session.delete, Session.invalidate):
        slow, other = open_(id), open_(id)
        slow["a"] = 1
        end(other)
        with pytest.raises(SessionGone):
            slow.save()
        assert list(store.keys()) == []
        id = saved(open_, a=0).id


def test_rotation_moves_the_record_and_kills_the_old_id(open_, store, clock):
    first = saved(open_, a=1)
    created = first.created
    clock.advance(5)
    session = open_(first.id)
    session["b"] = 2
    session.regenerate_id()
    assert session.must_propagate
    assert session.id != first.id
    assert open_(first.id)["a"] == 1  # not yet
    session.save()
    assert open_(first.id).reason == "unknown"
    after = open_(session.id)
    assert dict(after) == {"a": 1, "b": 2}
    assert after.created == created
    assert len(list(store.keys())) == 1


def test_a_slow_writer_meets_a_rotation(open_):
    id = saved(open_, a=1).id
    slow, fast = open_(id), open_(id)
    slow["a"] = 2
    fast.regenerate_id()
    fast.save()
    with pytest.raises(SessionGone):
        slow.save()
    assert open_(fast.id)["a"] == 1


def test_incr_is_exact(open_):
    session = saved(open_, other=1)
    id = session.id

    def work():
        mine = open_(id)
        for _ in range(50):
            mine.incr("n")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_(id)["n"] == 400
    assert session.incr("n", 0.5) == 400.5
    assert session["n"] == 400.5


def test_mutate_sees_what_is_stored_and_keeps_what_is_pending(open_):
    id = saved(open_, basket=["a"]).id
    mine, theirs = open_(id), open_(id)
    assert mine["basket"] == ["a"]
    mine["pending"] = True
    theirs["basket"] = ["a", "b"]
    theirs.save()

    def add(stored):
        stored["basket"].append("c")
        return len(stored["basket"])

    assert mine.mutate(add) == 3
    assert mine["basket"] == ["a", "b", "c"]
    assert dict(open_(id)) == {"basket": ["a", "b", "c"]}
    mine.save()
    assert open_(id)["pending"] is True


def test_mutate_gives_up_when_others_keep_winning(open_, store, monkeypatch):
    id = saved(open_, n=0).id
    session, other = open_(id), open_(id)
    monkeypatch.setattr("nocookie.stores.retry.time.sleep", lambda seconds: None)

    def change(stored):
        other["n"] = other["n"] + 1
        other.save()
        stored["m"] = 1

    with pytest.raises(SessionConflict):
        session.mutate(change)
    assert "m" not in open_(id)


def test_mutate_on_a_session_that_ended_says_so(open_):
    session = saved(open_, n=0)
    open_(session.id).delete()
    with pytest.raises(SessionGone):
        session.incr("n")


def test_mutate_comes_after_what_was_saved_before(store, clock):
    from helpers import serve

    def app(environ, start_response):
        session = environ["nocookie.session"]
        session["n"] = 5
        session.save()
        assert session.incr("n") == 6
        start_response("200 OK", [])
        return [b""]

    middleware = nocookie.SessionMiddleware(app, use_cookies=False, type=store, clock=clock)
    id = serve(middleware).id
    serve(middleware, id)
    assert Session({}, id, backend=middleware.manager.backend)["n"] == 6


def test_mutate_on_a_new_session_changes_it(open_):
    session = open_()
    assert session.incr("n", 5) == 5
    session.save()
    assert open_(session.id)["n"] == 5


# -- life ----------------------------------------------------------------------------------------


def test_a_new_session_without_data_is_not_stored(open_, store):
    session = open_()
    session.save()
    session.clear()
    session.save()
    session.delete()
    assert store.trips == []
    assert not session.must_propagate


def test_after_delete_it_is_empty_under_a_fresh_id(open_, store):
    session = saved(open_, a=1)
    old = session.id
    known = open_(old)
    known.delete()
    assert (dict(known), known.reason, known.is_new) == ({}, "destroyed", False)
    assert known.id != old
    known.save()
    assert list(store.keys()) == []
    known["fresh"] = 1
    known.save()
    assert dict(open_(known.id)) == {"fresh": 1}
    assert open_(old).is_new


def test_idle_sessions_expire_and_used_ones_do_not(open_, clock):
    session = saved(open_, a=1)
    for _ in range(5):
        clock.advance(1700)
        again = open_(session.id)
        assert again["a"] == 1
        again.save()
    clock.advance(1800)
    ended = open_(session.id)
    assert (ended.is_new, ended.reason) == (True, "expired")


def test_a_lifetime_ends_however_much_a_session_is_used(open_, clock):
    session = saved(open_, a=1)
    for turn in range(43_200 // 1000):
        clock.advance(1000)
        again = open_(session.id)
        assert again["a"] == 1
        again["a"] = 1
        if turn == 20:
            again.regenerate_id()
            session = again
        again.save()
    clock.advance(200)
    assert open_(session.id).reason == "expired"


def test_a_save_past_the_lifetime_is_refused(open_, clock):
    session = saved(open_, a=1)
    clock.advance(1000)
    for _ in range(42):
        open_(session.id).save()
        clock.advance(1000)
    late = open_(session.id)
    assert late["a"] == 1
    late["a"] = 2
    clock.advance(1000)
    with pytest.raises(SessionGone):
        late.save()


def test_a_shorter_timeout_counts_at_once(open_, clock):
    session = saved(open_, a=1)
    clock.advance(100)
    assert open_(session.id, timeout=90).reason == "expired"
    assert open_(session.id, lifetime=90).reason == "expired"
    assert open_(session.id)["a"] == 1


def test_without_limits_it_lives_for_ever(open_, clock):
    session = open_(timeout=None, lifetime="none")
    session["a"] = 1
    session.save()
    clock.advance(10**9)
    again = open_(session.id, timeout=None, lifetime=None)
    assert again["a"] == 1
    assert again.timeout is None
    assert open_(session.id).timeout == 1800


def test_last_accessed_and_created_are_of_earlier_requests(open_, clock):
    start = clock()
    session = saved(open_, a=1)
    assert session.last_accessed is None
    clock.advance(100)
    again = open_(session.id)
    assert (again.created, again.last_accessed) == (start, start)


def test_get_by_id_opens_another_session_and_creates_none(open_, store):
    one, two = saved(open_, n=1), saved(open_, n=2)
    other = one.get_by_id(two.id)
    assert other["n"] == 2
    assert one.get_by_id("junk") is None
    assert one.get_by_id(open_().id) is None
    assert len(list(store.keys())) == 2


def test_load_reads_again_and_drops_what_was_not_saved(open_):
    session = saved(open_, a=1)
    other = open_(session.id)
    other["a"] = 2
    other.save()
    session["b"] = 1
    session.load()
    assert dict(session) == {"a": 2}
    other.delete()
    session.load()
    assert (dict(session), session.reason) == ({}, "unknown")


def test_load_takes_back_what_was_saved_for_the_commit(store, clock):
    from helpers import serve

    def app(environ, start_response):
        session = environ["nocookie.session"]
        if "a" not in session:
            session["a"] = 1
            session.save()
        else:
            session["a"] = 2
            session["b"] = 2
            session.save()
            session.load()
            assert dict(session) == {"a": 1}
        start_response("200 OK", [])
        return [b""]

    middleware = nocookie.SessionMiddleware(app, use_cookies=False, type=store, clock=clock)
    id = serve(middleware).id
    serve(middleware, id)
    assert dict(Session({}, id, backend=middleware.manager.backend)) == {"a": 1}


def test_a_rotation_onto_a_taken_id_draws_another(open_, monkeypatch):
    victim, session = saved(open_, a="victim"), saved(open_, a="mine")
    old, fresh = session.id, session._backend.ids.new()
    draws = iter([victim.id, fresh])
    monkeypatch.setattr(session._backend.ids, "new", lambda: next(draws), raising=False)
    session.regenerate_id()
    session.save()
    assert session.id == fresh
    assert open_(fresh)["a"] == "mine"
    assert open_(victim.id)["a"] == "victim"
    assert open_(old).is_new


def test_a_taken_id_is_drawn_again_and_never_overwrites(open_, store, monkeypatch):
    victim = saved(open_, a="victim")
    session = open_()
    session["a"] = "mine"
    fresh = session._backend.ids.new()
    draws = iter([victim.id, victim.id, fresh])
    monkeypatch.setattr(session._backend.ids, "new", lambda: next(draws), raising=False)
    session.save()
    assert session.id == fresh
    assert open_(victim.id)["a"] == "victim"


def test_a_generator_that_repeats_itself_is_an_error(open_, monkeypatch):
    victim = saved(open_, a="victim")
    session = open_()
    session["a"] = "mine"
    monkeypatch.setattr(session._backend.ids, "new", lambda: victim.id, raising=False)
    with pytest.raises(nocookie.StoreError):
        session.save()
    assert open_(victim.id)["a"] == "victim"


def test_no_entropy_is_an_error_and_never_a_weaker_id(open_, monkeypatch):
    def fail(size):
        raise OSError("no entropy")

    session = open_()
    session["a"] = 1
    monkeypatch.setattr("nocookie.sealing.os.urandom", fail)
    with pytest.raises(nocookie.StoreError, match="random"):
        session.save()


def test_a_value_larger_than_any_may_be_is_not_decoded(open_, store):
    """Somebody else wrote it. What fits the default is read, also where the option is lower."""
    mine = saved(open_, a=1, b="x" * 900_000)
    assert open_(mine.id, max_value_size=10)["b"] == "x" * 900_000
    tamper(store, mine._key, a=mine._stored["b"] + b"x" * 200_000)
    again = open_(mine.id, max_value_size=10)
    assert again.get("a") is None
    assert (again.is_new, again.reason) == (True, "corrupted")


# -- what lies in the store ----------------------------------------------------------------------


def tamper(store, key, **fields):
    record = store._records[key]
    store._records[key] = record._replace(fields={**record.fields, **fields})


@pytest.mark.parametrize("bytes_", [b"", b"j", b"j{", b"x", b"junk", b"p\x80", b"m", b"e" * 40])
def test_a_corrupted_value_costs_that_session_only(open_, store, bytes_):
    mine, other = saved(open_, a=1, b=2), saved(open_, a=1)
    tamper(store, mine._key, a=bytes_)
    session = open_(mine.id)
    assert session.get("a") is None
    assert (session.is_new, session.reason, dict(session)) == (True, "corrupted", {})
    assert session.id != mine.id
    session["a"] = "anew"
    session.save()
    assert open_(session.id)["a"] == "anew"
    assert open_(other.id)["a"] == 1
    assert isinstance(store.load(mine._key), Record)  # kept, for who can read it


def test_iterating_over_a_corrupted_session_finds_nothing(open_, store):
    mine = saved(open_, a=1, b=2)
    tamper(store, mine._key, b=b"junk")
    session = open_(mine.id)
    assert dict(session) == {}
    assert session.reason == "corrupted"


def test_incr_does_not_build_on_a_corrupted_value(open_, store):
    mine = saved(open_, n=5, other=1)
    tamper(store, mine._key, n=b"junk")
    session = open_(mine.id)
    assert session["other"] == 1
    assert session.incr("n") == 1
    assert (session.reason, session.is_new) == ("corrupted", True)
    assert store.load(mine._key).fields["n"] == b"junk"  # nothing was written there
    session.save()
    assert dict(open_(session.id)) == {"n": 1}


def test_logout_ends_a_session_with_a_corrupted_value(open_, store):
    mine = saved(open_, user="u", prefs=1)
    tamper(store, mine._key, prefs=b"junk")
    session = open_(mine.id)
    assert session.get("prefs") is None
    session.delete()
    assert list(store.keys()) == []
    assert open_(mine.id).get("user") is None


SECRET = {"secret": "s" * 32}


@pytest.mark.parametrize("more", [{}, {"encrypt_key": "k" * 32}, {"data_serializer": "pickle"}])
def test_with_a_secret_swapped_values_and_records_are_refused(store, clock, more):
    def open_(id=None):
        return Session({}, id, type=store, clock=clock, **SECRET, **more)

    mine, theirs = open_(), open_()
    mine.update(a="mine", b="also mine")
    theirs.update(a="theirs", b="also theirs")
    mine.save()
    theirs.save()
    whole, foreign = store._records[mine._key], store._records[theirs._key]

    tamper(store, mine._key, a=foreign.fields["a"])
    assert open_(mine.id).get("a") is None
    store._records[mine._key] = whole
    tamper(store, mine._key, a=whole.fields["b"])
    assert open_(mine.id).get("a") is None
    store._records[mine._key] = foreign
    assert open_(mine.id).reason == "corrupted"
    store._records[mine._key] = whole._replace(seal=foreign.seal)
    assert open_(mine.id).reason == "corrupted"
    store._records[mine._key] = whole
    assert open_(mine.id)["a"] == "mine"


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a planted pickle was run",))


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_planted_pickle_is_never_run(store, clock, serializer):
    import pickle

    options = {"type": store, "clock": clock, "data_serializer": serializer, **SECRET}
    mine = Session({}, **options)
    mine["a"] = 1
    mine.save()
    for planted in (pickle.dumps(Bomb()), b"p" + pickle.dumps(Bomb()), b"m" + bytes(16) + b"p"):
        tamper(store, mine._key, a=planted)
        assert Session({}, mine.id, **options).get("a") is None


def test_a_store_key_is_no_id(open_):
    session = saved(open_, a=1)
    assert open_(session._key).reason == "malformed"
    assert open_(session._key[:43]).reason in ("malformed", "forged", "unknown")


def test_secrets_can_be_changed_one_after_the_other(store, clock):
    def open_(secret, id=None):
        return Session({}, id, type=store, clock=clock, secret=secret)

    old, new = "the old secret of the house", "the new secret of the house"
    session = open_(old)
    session["a"] = 1
    session.save()
    both = open_([new, old], session.id)
    assert both["a"] == 1
    both["b"] = 2
    both.regenerate_id()
    both.save()
    assert dict(open_([new, old], both.id)) == {"a": 1, "b": 2}
    assert open_(new, session.id).reason == "forged"
    assert open_(new, both.id)["b"] == 2


def test_the_serializer_can_be_changed_without_losing_sessions(store, clock):
    def open_(serializer, id=None):
        return Session({}, id, type=store, clock=clock, data_serializer=serializer, **SECRET)

    session = open_("json")
    session["a"] = [1]
    session.save()
    pickled = open_("pickle", session.id)
    assert pickled["a"] == [1]
    pickled["own"] = Own()
    pickled.save()
    assert open_("pickle", session.id)["own"] == Own()
    assert open_("json", session.id)["a"] == [1]


def test_an_unreadable_record_is_a_new_session(open_, store, monkeypatch):
    session = saved(open_, a=1)
    monkeypatch.setattr(store, "load", lambda key: Missing.CORRUPTED)
    assert open_(session.id).reason == "corrupted"


# -- gateways ------------------------------------------------------------------------------------


@pytest.fixture
def gateway(store, clock):
    def open_(id=None):
        return Session({}, id, type=store, clock=clock, strict=False, id_key="the gateway's key")

    return open_


def test_a_gateway_brings_its_own_ids(gateway, store):
    session = gateway("+31 6 12345678")
    assert (session.is_new, session.reason, session.id) == (True, "unknown", "+31 6 12345678")
    session["menu"] = 1
    session.save()
    assert not session.must_propagate
    again = gateway("+31 6 12345678")
    assert (again.is_new, again["menu"]) == (False, 1)
    assert "12345678" not in repr(store._records)


@pytest.mark.parametrize("text", ["", "x" * 257, "a\nb", "a\0b", "\ud800"])
def test_a_gateway_id_has_limits(gateway, text):
    assert gateway(text).reason == "malformed"


def test_a_gateway_id_cannot_be_rotated(gateway):
    session = gateway("42")
    with pytest.raises(NocookieError, match="gateway"):
        session.regenerate_id()


def test_a_gateway_id_can_begin_anew_after_its_end(gateway):
    session = gateway("42")
    session["n"] = 1
    session.save()
    known = gateway("42")
    known.delete()
    assert known.id == "42"
    known["n"] = 2
    known.save()
    assert dict(gateway("42")) == {"n": 2}


@pytest.mark.parametrize("secret", [None, "s" * 32])
def test_two_first_requests_of_one_gateway_session_lose_nothing(store, clock, secret):
    options = {"type": store, "clock": clock, "strict": False, "id_key": "k", "secret": secret}
    one, two = Session({}, "42", **options), Session({}, "42", **options)
    one["a"], two["b"] = 1, 2
    one.save()
    two.save()
    assert dict(Session({}, "42", **options)) == {"a": 1, "b": 2}


@pytest.mark.parametrize("secret", [None, "s" * 32])
def test_three_first_requests_of_one_gateway_session_lose_nothing(
    store, clock, secret, monkeypatch
):
    """The first one's session ends while the second is about to join it, and a third begins."""
    options = {"type": store, "clock": clock, "strict": False, "id_key": "k", "secret": secret}
    one, two, three = (Session({}, "42", **options) for _ in range(3))
    one["a"], two["b"], three["c"] = 1, 2, 3
    one.save()
    load = store.load

    def load_late(key):
        monkeypatch.setattr(store, "load", load)
        one.delete()
        found = load(key)
        three.save()
        return found

    dict(two)
    monkeypatch.setattr(store, "load", load_late)
    two.save()
    assert dict(Session({}, "42", **options)) == {"b": 2, "c": 3}


@pytest.mark.parametrize("secret", [None, "s" * 32])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_slow_request_does_not_write_into_the_next_session_of_its_gateway_id(
    clock, secret, kind, tmp_path
):
    from nocookie.stores.file import FileStore

    store = CountingStore(clock=clock)
    if kind == "file":
        store = FileStore(data_dir=tmp_path, clock=clock)
    options = {"type": store, "clock": clock, "strict": False, "id_key": "k", "secret": secret}
    alice = Session({}, "phone", **options)
    alice["user"] = "alice"
    alice.save()
    slow, counting = Session({}, "phone", **options), Session({}, "phone", **options)
    assert (slow["user"], counting["user"]) == ("alice", "alice")
    slow["cart"] = "alice's"
    Session({}, "phone", **options).delete()
    bob = Session({}, "phone", **options)
    bob["user"] = "bob"
    bob.save()
    with pytest.raises(SessionGone):
        slow.save()
    with pytest.raises(SessionGone):
        counting.incr("n")
    with pytest.raises(SessionGone):
        alice.incr("n")
    assert dict(Session({}, "phone", **options)) == {"user": "bob"}
    bob["more"] = 1
    bob.save()
    assert dict(Session({}, "phone", **options)) == {"user": "bob", "more": 1}
    store.close()


def test_a_gateway_session_under_stricter_limits_begins_anew(store, clock):
    def gateway(**more):
        options = {"type": store, "clock": clock, "strict": False, "id_key": "k"}
        return Session({}, "42", **options, **more)

    session = gateway(secret="the old secret of the house")
    session["n"] = 1
    session.save()
    clock.advance(100)
    for more in ({"timeout": 50}, {"secret": "another secret altogether"}):
        late = gateway(**more)
        assert late.get("n") in (None, 2)
        late["n"] = 2
        late.save()
        assert gateway(**more)["n"] == 2


def test_an_expired_gateway_session_begins_anew(gateway, clock):
    session = gateway("42")
    session["n"] = 1
    session.save()
    clock.advance(2000)
    late = gateway("42")
    assert (late.reason, dict(late), late.id) == ("expired", {}, "42")
    late["n"] = 2
    late.save()
    assert gateway("42")["n"] == 2
