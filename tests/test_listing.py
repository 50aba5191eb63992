"""What an operator sees of sessions, and ends, without an id."""

import math

import pytest

from nocookie import ConfigError, Session
from nocookie.backend import Backend
from nocookie.listing import (
    Field,
    contents,
    end_every,
    end_key,
    end_owned,
    keys,
    listed,
    of_owner,
    with_fingerprints,
)
from nocookie.options import resolve
from nocookie.stores.base import Delta, Missing, Record, Trail
from nocookie.stores.file import FileStore

SECRET = "k8Jq0x_Wz3mB7vCe9Ls-and-some-more"


@pytest.fixture
def store(clock, tmp_path):
    store = FileStore(data_dir=tmp_path, clock=clock)
    yield store
    store.close()


class NotByOwner:
    """What a store without that power has: the example for LMDB is one."""

    shared = True

    def __init__(self, store):
        self._store = store
        for name in ("load", "create", "save", "touch", "rotate", "destroy", "keys", "close"):
            setattr(self, name, getattr(store, name))


@pytest.fixture(params=["by owner", "not by owner"])
def any_store(request, store):
    return store if request.param == "by owner" else NotByOwner(store)


def backend(store, clock, **options):
    return Backend(resolve(None, {"type": store, "clock": clock, **options}))


def made(store, clock, owner=None, secret=SECRET, client=None, **values):
    mine = Session({}, type=store, clock=clock, secret=secret)
    mine.update(values or {"n": 1})
    if owner is not None:
        mine.login(owner, client)
    mine.save()
    return mine


def test_a_session_is_listed_with_what_is_known_of_it(store, clock):
    began = clock()
    mine = made(store, clock, "ada", client="curl/8")
    clock.advance(600)
    other = made(store, clock)

    found = {one.fingerprint: one for one in listed(backend(store, clock, secret=SECRET))}

    assert found.keys() == {mine.fingerprint, other.fingerprint}
    ada = found[mine.fingerprint]
    assert (ada.owner, ada.client, ada.unreadable) == ("ada", "curl/8", None)
    assert (ada.created, ada.last_accessed, ada.expires) == (began, began, began + 1800)
    assert found[other.fingerprint].owner is None


def test_what_has_ended_is_not_listed(store, clock):
    expired = made(store, clock)
    clock.advance(1801)
    made(store, clock).delete()

    assert list(listed(backend(store, clock, secret=SECRET))) == []
    key = backend(store, clock).ids.key
    assert contents(backend(store, clock, secret=SECRET), key(expired.id)) is None


def test_a_session_that_is_over_by_the_options_is_not_listed(store, clock):
    made(store, clock)
    clock.advance(700)

    assert len(list(listed(backend(store, clock, secret=SECRET)))) == 1
    assert list(listed(backend(store, clock, secret=SECRET, timeout=600))) == []


@pytest.mark.parametrize("owner", [None, "ada"])
@pytest.mark.parametrize(
    ("written", "read", "why"),
    [
        (SECRET, None, "sealed with a secret that is not given"),
        (SECRET, "another" * 5, "sealed with another secret, or with none"),
        (None, SECRET, "sealed with another secret, or with none"),
    ],
)
def test_what_the_secret_does_not_open_is_listed_as_unreadable(
    store, clock, owner, written, read, why
):
    mine = made(store, clock, owner, written)

    (one,) = listed(backend(store, clock, secret=read))

    assert (one.fingerprint, one.owner, one.unreadable) == (mine.fingerprint, None, why)
    assert (one.created, one.expires) == (clock(), clock() + 1800)


def test_a_secret_of_before_opens_too(store, clock):
    made(store, clock, "ada")

    (one,) = listed(backend(store, clock, secret=["another" * 5, SECRET]))

    assert (one.owner, one.unreadable) == ("ada", None)
    with_old = backend(store, clock, secret=["another" * 5, SECRET])
    assert [one.owner for one in of_owner(with_old, "ada")] == ["ada"]
    assert sum(end_owned(with_old, "ada")) == 1


def test_facts_that_cannot_be_read_cost_their_session_only(store, clock):
    store.create("ab" * 32, Record({"\0facts": b"j[1]"}, clock(), 0.0, 0.0, 0), 600)
    made(store, clock, "ada", secret=None)

    found = {one.fingerprint: one for one in listed(backend(store, clock))}

    assert found.pop("abababababab"[:10]).unreadable == "what it says of itself cannot be read"
    assert [one.owner for one in found.values()] == ["ada"]


def test_a_record_that_is_none_is_listed(store, clock):

    made(store, clock)
    store.load = lambda key: Missing.CORRUPTED

    (one,) = listed(backend(store, clock))

    assert one.unreadable == "its bytes are no record"
    assert one.created is one.last_accessed is one.expires is None


def test_values_are_told_by_their_names_sizes_and_forms_alone(store, clock):
    mine = Session({}, type=store, clock=clock, secret=SECRET, data_serializer="pickle")
    mine.update(text="geheim", number=7, thing=object)
    mine.save()
    (key,) = keys(backend(store, clock))

    found = contents(backend(store, clock, secret=SECRET), key)

    forms = {field.name: field.encoding for field in found.fields}
    assert forms == {"text": "pickle", "number": "pickle", "thing": "pickle"}
    assert "geheim" not in repr(found)


@pytest.mark.parametrize(
    ("options", "forms"),
    [
        ({}, ["JSON", "integer", "text"]),
        ({"secret": SECRET}, ["JSON", "integer", "text"]),
        ({"secret": SECRET, "encrypt_key": "k" * 32}, ["JSON", "integer", "text"]),
    ],
)
def test_the_form_of_a_value_is_seen_through_its_seal(store, clock, options, forms):
    mine = Session({}, type=store, clock=clock, **options)
    mine.update(a=[1], b=2, c="three")
    mine.save()
    (key,) = keys(backend(store, clock))

    found = contents(backend(store, clock, **options), key)
    assert [field.encoding for field in found.fields] == forms
    stored = store.load(key).fields
    assert [field.size for field in found.fields] == [len(stored[name]) for name in "abc"]

    if options:
        word = "encrypted" if "encrypt_key" in options else "sealed"
        blind = contents(backend(store, clock), key)
        assert [field.encoding for field in blind.fields] == [word] * 3


def test_a_value_that_was_planted_is_told(store, clock):
    mine = made(store, clock, a="mine")
    (key,) = keys(backend(store, clock))

    store.save(key, Delta({"planted": b"m" + b"0" * 20}), 600)

    found = contents(backend(store, clock, secret=SECRET), key)

    assert found.fields[1] == Field("planted", 21, "not ours")
    assert mine.fingerprint == found.listed.fingerprint


def test_limits_of_its_own_are_told(store, clock):
    mine = made(store, clock, "ada")
    mine.timeout, mine.lifetime = 60, None
    mine.save()
    (key,) = keys(backend(store, clock))

    found = contents(backend(store, clock, secret=SECRET), key)

    assert (found.life.timeout, found.life.lifetime) == (60, math.inf)
    assert [field.name for field in found.fields] == ["n"], "ours are none of the application's"


# -- ending --------------------------------------------------------------------------------------


def test_the_sessions_of_an_owner_are_found_and_ended_and_no_others(any_store, store, clock):
    ada = [made(store, clock, "ada") for _ in range(3)]
    bob = made(store, clock, "bob")
    ours = backend(any_store, clock, secret=SECRET)

    assert {one.fingerprint for one in of_owner(ours, "ada")} == {one.fingerprint for one in ada}
    assert sum(end_owned(ours, "ada")) == 3
    assert [one.fingerprint for one in listed(ours)] == [bob.fingerprint]
    assert sum(end_owned(ours, "ada")) == 0


def test_all_sessions_are_ended_readable_or_not(store, clock):
    made(store, clock, "ada")
    made(store, clock, secret="another" * 5)

    assert sum(end_every(backend(store, clock))) == 2
    assert list(keys(backend(store, clock))) == []


def test_a_session_that_moves_past_is_ended_all_the_same(store, clock):
    """A rotation takes it from a key that is to come to one that was looked at before."""
    began = clock()
    store.create("ff" * 32, Record({}, began, 0.0, 0.0, 0), 600)
    store.create("aa" * 32, Record({}, began, 0.0, 0.0, 0), 600)
    destroy, moves = store.destroy, ["00" * 32]

    def move_first(key):
        if moves:
            clock.advance(1)
            trail = Trail(b"ticket", 10)

            store.rotate("ff" * 32, moves.pop(), Delta(), b"", 600, trail=trail)
            store.create("11" * 32, Record({}, clock(), 0.0, 0.0, 0), 600)
        return destroy(key)

    store.destroy = move_first

    assert sum(end_every(backend(store, clock))) == 2
    assert list(keys(backend(store, clock))) == ["11" * 32], "that began afterwards"


def test_an_end_says_that_the_session_has_moved_away(store, clock):

    store.create("ff" * 32, Record({}, clock(), 0.0, 0.0, 0), 600)
    store.rotate("ff" * 32, "aa" * 32, Delta(), b"", 600, trail=Trail(b"ticket", 10))

    assert not end_key(backend(store, clock), "ff" * 32)
    assert end_key(backend(store, clock), "aa" * 32)


def test_a_trail_is_not_listed(store, clock):

    store.create("ff" * 32, Record({}, clock(), 0.0, 0.0, 0), 600)
    store.rotate("ff" * 32, "aa" * 32, Delta(), b"", 600, trail=Trail(b"ticket", 10))

    assert [one.fingerprint for one in listed(backend(store, clock))] == ["a" * 10]


# -- finding -------------------------------------------------------------------------------------


def test_a_fingerprint_may_name_none_one_or_several(store, clock):
    for key in ("ab" * 32, "ab" * 31 + "cd", "cd" * 32):
        store.create(key, Record({}, clock(), 0.0, 0.0, 0), 600)
    looked = []

    found = with_fingerprints(
        backend(store, clock), ["ab" * 5, "cd" * 5, "ef" * 5], lambda: looked.append(1)
    )

    assert (
        sorted(found["ab" * 5]) == ["ab" * 32, "ab" * 31 + "cd"][::1] or len(found["ab" * 5]) == 2
    )
    assert found["cd" * 5] == ["cd" * 32]
    assert found["ef" * 5] == []
    assert len(looked) == 3


def test_nothing_is_listed_that_is_not_wanted_yet(clock):
    """A million sessions are no reason to hold more than one."""
    asked = []

    class Endless(NotByOwner):
        def __init__(self):
            pass

        def keys(self):
            number = 0
            while True:
                asked.append(number)
                yield f"{number:064x}"
                number += 1

        def load(self, key):
            return Record({}, clock(), clock(), math.inf, 1)

    for name in ("create", "save", "touch", "rotate", "destroy", "close"):
        setattr(Endless, name, lambda self, *args: None)
    found = listed(backend(Endless(), clock))

    assert [next(found).expires for _ in range(3)] == [clock() + 1800] * 3
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"type": "memory"}, "seen by that process alone"),
        ({"type": "memcached", "url": "127.0.0.1:1"}, "MemcachedStore cannot list what it holds"),
        ({"type": "cookie", "secret": SECRET}, "lie with their clients"),
    ],
)
@pytest.mark.parametrize(
    "call", [listed, end_every, lambda b: of_owner(b, "ada"), lambda b: end_owned(b, "ada")]
)
def test_where_nobody_can_list_that_is_said_at_once(options, sentence, call):
    with pytest.raises(ConfigError, match=sentence):
        call(Backend(resolve(None, options)))
