"""The redis store on one server: the suite, trips, faults, forks, threads, TLS."""

import gc
import math
import re
import signal
import socket
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from realservers import wait_until
from realservers.relay import Relay

from nocookie.errors import SessionGone, StoreError, StoreTimeout
from nocookie.stores.base import (
    OWN_LIFE,
    Delta,
    KeyTaken,
    Missing,
    Moved,
    Record,
    Trail,
    VersionChanged,
)
from nocookie.stores.redis import GRACE, TOMB_TIME, RedisStore
from nocookie.stores.redis_scripts import KEPT, LOOK
from nocookie.testing import FakeClock, StoreSuite

pytestmark = pytest.mark.server

#: Seconds that a call may take beyond its deadline on a busy machine.
SLACK = 3.0


TRAIL = Trail(b"a \0 ticket", 30)
INDEX = "nocookie:owners:" + b"ann".hex()


def key(number):
    return f"{number:064x}"


def record(clock=time.time, **fields):
    return Record(fields, clock(), 0.0, 0.0, 0)


def fields(store, number=1):
    found = store.load(key(number))
    assert isinstance(found, Record), found
    return dict(found.fields)


def place(number=1, prefix="nocookie:"):
    return prefix + key(number)


class TestRedisStore(StoreSuite):
    @pytest.fixture
    def store(self, valkey, clock):
        store = RedisStore(url=valkey.url, clock=clock)
        yield store
        store.close()


@pytest.fixture
def store(valkey, clock):
    store = RedisStore(url=valkey.url, clock=clock)
    yield store
    store.close()


@pytest.fixture
def relay(valkey):
    with Relay("127.0.0.1", valkey.port) as relay:
        yield relay


@pytest.fixture
def distant(relay):
    """A store that reaches the server through the relay, by the real clock."""
    store = RedisStore(url=f"redis://127.0.0.1:{relay.port}")
    yield store
    store.close()


@pytest.fixture
def opened():
    """`opened(url, ...)` makes a store that is closed in the end."""
    stores = []

    def make(url, **options):
        stores.append(RedisStore(url=url, **options))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


# -- what a call costs, and what it leaves


def test_every_call_is_one_trip_and_a_rotation_three(distant, relay):
    calls = {
        "load": lambda: distant.load(key(1)),
        "load what is not there": lambda: distant.load(key(9)),
        "load, and no touch is due": lambda: distant.load_and_touch(key(1), 600, 9e9, 60),
        "load and touch": lambda: distant.load_and_touch(key(1), 600, 9e9, -1),
        "save": lambda: distant.save(key(1), Delta({"a": b"1"}, {"b"}), 600),
        "save, exactly": lambda: distant.save(key(1), Delta(), 600, 2),
        "touch": lambda: distant.touch(key(1), 600),
        "rotate": lambda: distant.rotate(key(1), key(2), Delta(), b"", 600),
        "destroy": lambda: distant.destroy(key(2)),
    }
    trips = {}
    for _ in range(2):  # the first time, the server has no script yet
        distant.create(key(1), record(), 600)
        for name, call in calls.items():
            relay.requests = 0
            call()
            trips[name] = relay.requests
    assert trips.pop("rotate") == 3
    assert set(trips.values()) == {1}, trips
    assert relay.connections == 1


def test_owners_and_trails_cost_the_trips_that_are_stated(distant, relay):
    leave = {"trail": TRAIL}
    calls = {
        "create": lambda: distant.create(key(1), record(), 600, b"ann"),
        "load": lambda: distant.load_and_touch(key(1), 600, 9e9, -1),
        "save": lambda: distant.save(key(1), Delta({"a": b"1"}), 600),
        "rotate": lambda: distant.rotate(key(1), key(2), Delta(), b"", 600),
        "and with a trail": lambda: distant.rotate(key(2), key(3), Delta(), b"", 600, **leave),
        "load a trail": lambda: distant.load(key(2)),
        "destroy a trail": lambda: distant.destroy(key(2)),
        "owned, of three entries": lambda: distant.owned(b"ann"),
        "end three entries": lambda: distant.end_owned(b"ann"),
        "create for nobody": lambda: distant.create(key(4), record(), 600),
        "give an owner": lambda: distant.rotate(key(4), key(5), Delta(), b"", 600, b"ann"),
        "destroy": lambda: distant.destroy(key(5)),
        "create, again": lambda: distant.create(key(6), record(), 600),
        "a trail for nobody": lambda: distant.rotate(key(6), key(7), Delta(), b"", 600, **leave),
    }
    trips = {}
    for turn in range(2):  # the first time, the server has no script yet
        for name, call in calls.items():
            relay.requests = 0
            call()
            trips[name] = relay.requests
        if turn == 0:
            for number in range(1, 8):
                distant.destroy(key(number))
            distant._ask(b"UNLINK", f"owners:{b'ann'.hex()}", until=time.monotonic() + 1)
    assert trips == {
        "create": 2,
        "load": 1,
        "save": 1,
        "rotate": 5,
        "and with a trail": 5,
        "load a trail": 1,
        "destroy a trail": 2,
        "owned, of three entries": 1 + 3 + 1,
        "end three entries": 1 + 3 + 1 + 1,
        "create for nobody": 1,
        "give an owner": 4,
        "destroy": 1,
        "create, again": 1,
        "a trail for nobody": 3,
    }


def test_a_read_writes_nothing_until_a_touch_is_due(store, valkey, clock):
    store.create(key(1), record(clock), 600)
    store.load_and_touch(key(1), 600, 9e9, 60)
    valkey.ask("CONFIG", "RESETSTAT")
    for _ in range(5):
        store.load(key(1))
        store.load_and_touch(key(1), 600, 9e9, 60)
    assert valkey.calls().keys() <= {"evalsha", "hgetall", "config|resetstat"}
    clock.advance(61)
    store.load_and_touch(key(1), 600, 9e9, 60)
    assert {"hset", "pexpire"} <= valkey.calls().keys()


def test_every_name_begins_with_the_prefix_and_goes_with_its_session(valkey, opened):
    store = opened(valkey.url, key_prefix="shop:")
    store.create(key(1), record(a=b"1"), 600)
    store.create(key(2), record(), math.inf)
    store.save(key(1), Delta({"b": b"2"}), 600)
    store.rotate(key(1), key(3), Delta(), b"", 600)
    store.touch(key(3), 900)
    names = valkey.ask("KEYS", "*").split()
    assert sorted(names) == [place(n, "shop:") for n in (1, 2, 3)]
    left = int(valkey.ask("PTTL", place(1, "shop:")))
    assert 0 < left <= 4000, "that it has gone is said for the time of a rotation"
    assert valkey.ask("HGETALL", place(1, "shop:")).split() == ["d", key(3)]
    left = int(valkey.ask("PTTL", place(3, "shop:"))) / 1000 - 900
    assert GRACE - 30 < left <= GRACE
    assert valkey.ask("PTTL", place(2, "shop:")) == "-1"


@pytest.mark.parametrize("prefix", ["a:", "a*", "[ab]:", "a?:", "a\\:", "клю:", "{tag}:", ""])
def test_another_prefix_is_other_sessions(valkey, opened, prefix):
    ours, theirs = opened(valkey.url, key_prefix=prefix), opened(valkey.url, key_prefix="ab:")
    ours.create(key(1), record(), 600)
    theirs.create(key(1), record(), 600)
    theirs.create(key(2), record(), 600)
    valkey.ask("SET", prefix + "of another program", "1")
    assert list(ours.keys()) == [key(1)]
    assert sorted(theirs.keys()) == [key(1), key(2)]
    assert ours.load(key(2)) is Missing.UNKNOWN


def test_many_keys_are_listed_once_each(store, clock):
    for number in range(1200):
        store.create(key(number), record(clock), 600)
    assert sorted(store.keys()) == [key(number) for number in range(1200)]


# -- times


@pytest.mark.parametrize("now", [1_732_312_345.123_456_7, 0.1, 1e9 + 1 / 3])
@pytest.mark.parametrize("ttl", [0.1 + 0.2, 1800.0, 1 / 3, 1e9, math.inf])
def test_times_come_back_to_the_last_bit(store, clock, now, ttl):
    clock.now = now
    store.create(key(1), record(clock), ttl)
    for renew in (
        lambda: store.save(key(1), Delta(), ttl),
        lambda: store.touch(key(1), ttl),
        lambda: store.load_and_touch(key(1), ttl, math.inf, 0),
    ):
        found = store.load(key(1))
        assert (found.accessed, found.expires) == (clock.now, clock.now + ttl)
        assert found.created == now
        clock.advance(ttl / 7 if ttl < 1e9 else 0.7)
        renew()
    assert store.load(key(1)).accessed == clock.now


def test_an_expired_record_is_told_from_an_unknown_one(store, clock):
    store.create(key(1), record(clock), 60)
    clock.advance(60)
    assert store.load(key(1)) is Missing.EXPIRED
    assert store.load_and_touch(key(1), 60, 600, 0) is Missing.EXPIRED
    assert store.load(key(2)) is Missing.UNKNOWN


def test_a_due_touch_comes_with_the_load(store, clock):
    store.create(key(1), Record({"a": b"1"}, clock.now, 0.0, 0.0, 0, b"seal"), 600)
    before = store.load(key(1))
    clock.advance(60)
    assert store.load_and_touch(key(1), 600, math.inf, 60) == before
    assert store.load(key(1)) == before, "it was not due"
    clock.advance(1)
    assert store.load_and_touch(key(1), 600, math.inf, 60) == before, "as it was before"
    renewed = before._replace(accessed=clock.now, expires=clock.now + 600)
    assert store.load(key(1)) == renewed


def test_a_touch_with_the_load_does_not_exceed_the_lifetime(store, clock):
    began = clock.now
    store.create(key(1), record(clock), 600)
    clock.advance(500)
    store.load_and_touch(key(1), 600, 900, 60)
    assert store.load(key(1)).expires == began + 900
    clock.advance(399)
    store.load_and_touch(key(1), 600, 900, 60)
    assert store.load(key(1)).expires == began + 900
    store.touch(key(1), 600)
    clock.advance(100)
    before = store.load(key(1))
    store.load_and_touch(key(1), 600, 900, 60)
    assert store.load(key(1)) == before, "its lifetime is over: it is left as it is"


def test_a_clock_that_is_behind_takes_nothing_away(store, valkey, opened, clock):
    """Two hosts, 30 seconds apart."""
    behind = FakeClock(clock.now - 30)
    other = opened(valkey.url, clock=behind)
    store.create(key(1), record(clock), 600)
    before = store.load(key(1))
    other.touch(key(1), 600)
    other.load_and_touch(key(1), 600, math.inf, 0)
    other.save(key(1), Delta(), 600)
    after = store.load(key(1))
    assert (after.accessed, after.expires) == (before.accessed, before.expires)
    behind.advance(31)
    other.touch(key(1), 600)
    assert store.load(key(1)).expires == behind.now + 600


def test_a_clock_that_was_a_day_ahead_is_not_believed(store, valkey, opened, clock):
    ahead = opened(valkey.url, clock=FakeClock(clock.now + 86_400))
    ahead.create(key(1), record(clock), 600)
    store.touch(key(1), 600)
    assert store.load(key(1)).expires == clock.now + 600


# -- what is not a record

BROKEN = {
    "another type": ["SET", "KEY", "text"],
    "no meta": ["HSET", "KEY", ".a", "1"],
    "empty meta": ["HSET", "KEY", "m", ""],
    "garbage": ["HSET", "KEY", "m", "garbage"],
    "cut short": ["HSET", "KEY", "m", "1 1000000000.0 1000000000.0"],
    "a time that is none": ["HSET", "KEY", "m", "1 soon 1000000000.0 2000000000.0 1 "],
    "not a number": ["HSET", "KEY", "m", "1 1.0 1.0 nan 1 "],
    "a later format": ["HSET", "KEY", "m", "2 1000000000.0 1000000000.0 2000000000.0 1 "],
    "a later format that expired": ["HSET", "KEY", "m", "2 1.0 1.0 1.0 1 "],
}


@pytest.fixture(params=BROKEN)
def broken(request, store, valkey, clock):
    """The store, with a thing that is no record under key(1)."""
    store.create(key(2), record(clock, b=b"2"), 600)
    valkey.ask(*(place() if word == "KEY" else word for word in BROKEN[request.param]))
    return store


def test_what_is_not_a_record_is_corrupted_and_is_kept(broken, valkey, clock):
    def dump():
        return valkey.ask("DUMP", place())

    before = dump()
    assert broken.load(key(1)) is Missing.CORRUPTED
    assert broken.load_and_touch(key(1), 600, math.inf, 0) is Missing.CORRUPTED
    for write in (
        lambda: broken.save(key(1), Delta({"a": b"1"}), 600),
        lambda: broken.save(key(1), Delta(cleared=True), 600, expect=1),
        lambda: broken.touch(key(1), 600),
        lambda: broken.rotate(key(1), key(3), Delta(), b"", 600),
    ):
        with pytest.raises(SessionGone):
            write()
    for take in (
        lambda: broken.create(key(1), record(clock), 600),
        lambda: broken.rotate(key(2), key(1), Delta(), b"", 600),
    ):
        with pytest.raises(KeyTaken):
            take()
    assert dump() == before
    assert fields(broken, 2) == {"b": b"2"}
    assert list(broken.keys()) == [key(2)]
    broken.destroy(key(1))
    assert broken.load(key(1)) is Missing.UNKNOWN


def test_a_corrupted_record_makes_room_as_long_as_it_is_one(broken, clock):
    broken.create(key(1), record(clock, b=b"2"), 600, instead_of=Missing.CORRUPTED)
    assert fields(broken, 1) == {"b": b"2"}
    with pytest.raises(VersionChanged):
        broken.create(key(1), record(clock, c=b"3"), 600, instead_of=Missing.CORRUPTED)
    assert fields(broken, 1) == {"b": b"2"}


def test_a_record_with_a_name_that_is_no_text_makes_room(store, valkey, clock):
    store.create(key(1), record(clock, a=b"1"), 600)
    valkey.ask("HSET", place(), b".\xff\xfe", "1")
    store.create(key(1), record(clock, b=b"2"), 600, instead_of=Missing.CORRUPTED)
    assert fields(store, 1) == {"b": b"2"}


def test_a_name_that_is_no_text_is_corrupted(store, valkey, clock):
    store.create(key(1), record(clock, a=b"1"), 600)
    valkey.ask("HSET", place(), b".\xff\xfe", "1")
    assert store.load(key(1)) is Missing.CORRUPTED
    with pytest.raises(SessionGone):
        store.rotate(key(1), key(2), Delta(), b"", 600)
    assert store.load(key(1)) is Missing.CORRUPTED, "it is kept"
    assert store.load(key(2)) is Missing.UNKNOWN


# -- rotation, step by step


def stopped(distant, relay, trail=None):
    """Have a rotation from key(1) to key(2) reach its second step, and no server after it."""
    distant.create(key(1), record(a=b"secret"), 600)
    distant.rotate(key(1), key(2), Delta(), b"", 600)  # the server has the scripts now
    distant.rotate(key(2), key(1), Delta(), b"", 600)
    for _ in range(40):  # the second, and all that come then
        relay.drop_request(2)
    with pytest.raises(StoreError):
        distant.rotate(key(1), key(2), Delta(), b"", 600, trail=trail)
    relay.forget_drops()


@pytest.mark.parametrize("trail", [None, TRAIL])
def test_a_rotation_that_stops_half_way_is_taken_back_by_who_reads_next(
    distant, relay, opened, valkey, clock, trail
):
    clock.now = time.time()
    store = opened(valkey.url, clock=clock, deadline=2)
    stopped(distant, relay, trail)
    with pytest.raises(SessionGone):
        store.save(key(1), Delta({"a": b"2"}), 600)
    assert list(store.keys()) == []
    assert 600_000 < int(valkey.ask("PTTL", place(1))) <= (600 + GRACE) * 1000
    assert fields(store, 1) == {"a": b"secret"}
    assert store.load(key(2)) is Missing.UNKNOWN
    store.save(key(1), Delta({"a": b"2"}), 600)
    assert list(store.keys()) == [key(1)]
    with pytest.raises(KeyTaken):  # by what may still be on its way
        store.create(key(2), record(clock), 600)
    assert 0 < int(valkey.ask("PTTL", place(2))) <= TOMB_TIME * 1000


def test_what_is_destroyed_after_its_rotation_stopped_half_way_stays_ended(
    distant, relay, store, clock
):
    clock.now = time.time()
    stopped(distant, relay)
    store.destroy(key(1))
    assert [store.load(key(n)) for n in (1, 2)] == [Missing.UNKNOWN] * 2


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_many_who_take_one_rotation_back_leave_one_session(opened, valkey, store, clock, nth):
    """While it goes on, slowly: then it has happened, or has not."""
    store.create(key(1), record(clock, a=b"1"), 600)
    hasty = opened(valkey.url, clock=clock, deadline=2)
    found = []

    def wait_and_read():
        readers = [threading.Thread(target=lambda: found.append(hasty.load(key(1)))) for _ in "123"]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(10)

    rotating = in_the_middle(opened, valkey, store, nth, wait_and_read)
    try:
        rotating.rotate(key(1), key(2), Delta({"b": b"2"}), b"", 600)
    except (SessionGone, KeyTaken, StoreError):
        assert fields(store, 1) == {"a": b"1"}
        assert store.load(key(2)) is Missing.UNKNOWN
    else:
        assert store.load(key(1)) is Missing.UNKNOWN
        assert fields(store, 2) == {"a": b"1", "b": b"2"}
    if nth in (2, 3):
        assert [dict(one.fields) for one in found] == [{"a": b"1"}] * 3


@pytest.mark.parametrize("lost", ["drop_reply", "drop_request"])
def test_a_rotation_whose_first_step_fails_leaves_the_session_as_it_was(
    distant, relay, store, valkey, clock, lost
):
    clock.now = time.time()
    distant.create(key(1), record(a=b"1"), 600)
    distant.rotate(key(1), key(2), Delta(), b"", 600)
    before = store.load(key(2))
    getattr(relay, lost)()
    with pytest.raises(StoreError):
        distant.rotate(key(2), key(3), Delta({"a": b"2"}), b"", 600)
    assert store.load(key(2)) == before
    assert store.load(key(3)) is Missing.UNKNOWN
    assert 600_000 < int(valkey.ask("PTTL", place(2))) <= (600 + GRACE) * 1000
    distant.rotate(key(2), key(3), Delta(), b"", math.inf)
    distant.create(key(4), record(), 600)
    for taken in (3, 4):
        with pytest.raises(KeyTaken):
            distant.rotate(key(3), key(taken), Delta(), b"", 600)
        assert isinstance(store.load(key(3)), Record)
        assert valkey.ask("PTTL", place(3)) == "-1"


@pytest.mark.parametrize("lost", ["drop_reply", "drop_request"])
@pytest.mark.parametrize("nth", [2, 3])
@pytest.mark.parametrize("trail", [None, TRAIL])
def test_a_later_step_whose_answer_is_lost_is_asked_again(
    distant, relay, store, clock, lost, nth, trail
):
    clock.now = time.time()
    distant.create(key(1), record(a=b"1"), 600)
    distant.rotate(key(1), key(2), Delta(), b"", 600, trail=trail)
    getattr(relay, lost)(nth)
    distant.rotate(key(2), key(3), Delta({"b": b"2"}), b"", 600, trail=trail)
    there = Missing.UNKNOWN if trail is None else Moved(TRAIL.ticket)
    assert store.load(key(2)) == there
    assert fields(store, 3) == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("lost", ["drop_reply", "drop_request"])
@pytest.mark.parametrize("nth", [2, 3])
@pytest.mark.parametrize("trail", [None, TRAIL])
def test_a_rotation_whose_answers_are_lost_has_happened_or_has_not(
    distant, relay, store, clock, lost, nth, trail
):
    """Asked again, and lost again."""
    clock.now = time.time()
    distant.create(key(1), record(a=b"1"), 600)
    distant.rotate(key(1), key(2), Delta(), b"", 600, trail=trail)
    for _ in "12":
        getattr(relay, lost)(nth)
    try:
        distant.rotate(key(2), key(3), Delta({"b": b"2"}), b"", 600, trail=trail)
    except StoreError:
        assert fields(store, 2) == {"a": b"1"}
        assert store.load(key(3)) is Missing.UNKNOWN
    else:
        assert (nth, lost) == (3, "drop_reply")
        assert not isinstance(store.load(key(2)), Record)
        assert fields(store, 3) == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("end", ["destroyed", "rotated by another"])
def test_what_ends_in_the_middle_of_a_rotation_that_fails_stays_ended(
    distant, relay, store, valkey, clock, end
):
    clock.now = time.time()
    distant.create(key(1), record(a=b"1"), 600)
    distant.create(key(2), record(), 600)
    relay.delay = 0.3
    with ThreadPoolExecutor(1) as pool:
        rotation = pool.submit(distant.rotate, key(1), key(2), Delta(), b"", 600)
        until = time.monotonic() + 10
        while isinstance(store.load(key(1)), Record) and time.monotonic() < until:
            time.sleep(0.005)
        if end == "destroyed":
            store.destroy(key(1))
        else:  # and its process died half way
            meta = valkey.ask("HGET", place(), "t").partition(" ")[2]
            valkey.ask("HSET", place(), "t", f"{key(7)} {meta}")
        with pytest.raises(KeyTaken):
            rotation.result()
    if end == "destroyed":
        assert store.load(key(1)) is Missing.UNKNOWN, "it must not be dug out"
    else:
        assert valkey.ask("HGET", place(), "t").startswith(key(7)), "nor this one"


class Interrupted:
    """A wire that does something else before one of its calls."""

    def __init__(self, wire, nth, act):
        self._wire, self._left, self._act = wire, nth, act

    def call(self, *arguments, **named):
        self._left -= 1
        if self._left == 0:
            self._act()
        return self._wire.call(*arguments, **named)

    def close(self):
        self._wire.close()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_logout_in_the_middle_of_a_rotation_ends_the_session(opened, valkey, store, nth):
    rotating = opened(valkey.url, clock=store._clock)
    store.create(key(1), record(a=b"1"), 600)
    rotating.rotate(key(1), key(2), Delta(), b"", 600)  # the server has the scripts now
    rotating._wire = Interrupted(rotating._wire, nth, lambda: store.destroy(key(2)))
    with pytest.raises(SessionGone):
        rotating.rotate(key(2), key(3), Delta(), b"", 600)
    assert [valkey.ask("EXISTS", place(n)) for n in (2, 3)] == ["0"] * 2
    assert store.load(key(1)) is Missing.UNKNOWN


# -- rotation with a trail, step by step


def in_the_middle(opened, valkey, store, nth, act):
    """A store that does something else before the nth step of its next call."""
    rotating = opened(valkey.url, clock=store._clock)
    for number in (90, 91):  # the server has the scripts then
        store.create(key(number), record(store._clock), 600, [b"other", None][number % 2])
        rotating.rotate(key(number), key(number + 5), Delta(), b"", 600, trail=TRAIL)
        store.destroy(key(number + 5))
    rotating._wire = Interrupted(rotating._wire, nth, act)
    return rotating


@pytest.mark.parametrize("nth", [2, 3])
def test_who_reads_what_is_moving_waits_for_the_trail(opened, valkey, store, clock, nth):
    store.create(key(1), record(clock, a=b"1"), 600)
    found = []
    readers = [
        threading.Thread(target=lambda: found.append(store.load(key(1)))),
        threading.Thread(target=lambda: found.append(store.load_and_touch(key(1), 9, 9, 0))),
    ]

    def read():
        assert store.load(key(2)) is Missing.UNKNOWN or nth == 3
        for reader in readers:
            reader.start()
        readers[0].join(0.05)
        assert found == [], "they did not wait"

    rotating = in_the_middle(opened, valkey, store, nth, read)
    rotating.rotate(key(1), key(2), Delta({"b": b"2"}), b"", 600, trail=TRAIL)
    for reader in readers:
        reader.join(10)
    assert found == [Moved(TRAIL.ticket)] * 2
    assert fields(store, 2) == {"a": b"1", "b": b"2"}
    left = int(valkey.ask("PTTL", place())) / 1000
    assert TRAIL.ttl + GRACE - 30 < left <= TRAIL.ttl + GRACE


def test_who_reads_what_is_dug_out_finds_the_record(opened, valkey, store, clock):
    store.create(key(1), record(clock, a=b"1"), 600)
    found = []
    reader = threading.Thread(target=lambda: found.append(store.load(key(1))))

    def take():
        reader.start()
        reader.join(0.02)
        assert found == []
        store.create(key(2), record(clock), 600)

    before = store.load(key(1))
    with pytest.raises(KeyTaken):
        in_the_middle(opened, valkey, store, 2, take).rotate(
            key(1), key(2), Delta(), b"", 600, trail=TRAIL
        )
    reader.join(10)
    assert found == [before]
    assert valkey.ask("HEXISTS", place(), "w") == "0"


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_logout_in_the_middle_of_a_rotation_with_a_trail_ends_it(opened, valkey, store, nth):
    store.create(key(1), record(store._clock, a=b"1"), 600)
    rotating = in_the_middle(opened, valkey, store, nth, lambda: store.destroy(key(1)))
    with pytest.raises(SessionGone):
        rotating.rotate(key(1), key(2), Delta(), b"", 600, trail=TRAIL)
    assert [valkey.ask("EXISTS", place(n)) for n in (1, 2)] == ["0"] * 2


@pytest.mark.parametrize("lost", ["drop_reply", "drop_request"])
def test_the_last_step_to_a_trail_is_asked_again(distant, relay, store, clock, lost):
    clock.now = time.time()
    distant.create(key(1), record(a=b"1"), 600)
    distant.rotate(key(1), key(2), Delta(), b"", 600, trail=TRAIL)
    getattr(relay, lost)(nth=3)
    distant.rotate(key(2), key(3), Delta(), b"", 600, trail=TRAIL)
    assert relay.wait_for_drop()
    assert store.load(key(2)) == Moved(TRAIL.ticket)
    assert fields(store, 3) == {"a": b"1"}


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("lost", ["drop_reply", "drop_request"])
def test_where_a_trail_led_is_not_lost_with_an_answer(distant, relay, store, clock, lost, nth):
    clock.now = time.time()
    for number in (1, 2):
        distant.create(key(number), record(), 600)
        distant.rotate(key(number), key(number + 5), Delta(), b"", 600, trail=TRAIL)
        if number == 1:
            distant.destroy(key(1))
    getattr(relay, lost)(nth)
    assert distant.destroy(key(2)) == Moved(TRAIL.ticket)
    assert relay.wait_for_drop()
    assert store.load(key(2)) is Missing.UNKNOWN
    assert store.destroy(key(2)) is None


def test_a_trail_that_cannot_be_read_is_corrupted_and_kept(store, valkey, clock):
    valkey.ask("HSET", place(), "f", "soon ticket")
    assert store.load(key(1)) is Missing.CORRUPTED
    with pytest.raises(KeyTaken):
        store.create(key(1), record(clock), 600)
    assert store.destroy(key(1)) is None
    assert store.load(key(1)) is Missing.UNKNOWN


def test_a_touch_with_the_load_leaves_a_session_with_a_life_of_its_own(store, clock):
    store.create(key(1), record(clock, **{OWN_LIFE: b"1"}), 600)
    store.create(key(2), record(clock, life=b"1"), 600)
    before = store.load(key(1))
    clock.advance(120)
    store.load_and_touch(key(1), 600, math.inf, 60)
    store.load_and_touch(key(2), 600, math.inf, 60)
    assert store.load(key(1)) == before
    assert store.load(key(2)).accessed == clock.now


# -- owners


def entries(valkey):
    return valkey.ask("ZRANGE", INDEX, "0", "-1").split()


def of_old(valkey, *numbers):
    """Put entries into the index that came long ago."""
    for number in numbers:
        valkey.ask("ZADD", INDEX, "1", key(number))


@pytest.mark.parametrize("trail", [None, TRAIL])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_the_end_of_all_in_the_middle_of_a_rotation_ends_it(opened, valkey, store, nth, trail):
    store.create(key(1), record(store._clock), 600, b"ann")
    seen = []

    def end():
        seen.append(store.end_owned(b"ann"))
        seen.append(store.owned(b"ann"))

    rotating = in_the_middle(opened, valkey, store, nth, end)
    with pytest.raises(SessionGone):
        rotating.rotate(key(1), key(2), Delta(), b"", 600, trail=trail)
    assert seen == [1, []]
    assert [valkey.ask("EXISTS", place(n)) for n in (1, 2)] == ["0"] * 2


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_rotation_in_the_middle_of_the_end_of_all_is_met(opened, valkey, store, nth):
    for number in (1, 2, 3):
        store.create(key(number), record(store._clock), 600, b"ann")
    moved = []

    def rotate():
        for number in (1, 2, 3):
            with suppress(SessionGone):
                store.rotate(key(number), key(number + 10), Delta(), b"", 600, trail=TRAIL)
                moved.append(number)

    ending = in_the_middle(opened, valkey, store, nth, rotate)
    assert ending.end_owned(b"ann") == 3
    assert len(moved) == max(0, 5 - max(nth, 2)), "it did not meet them"
    assert list(store.keys()) == []
    assert store.owned(b"ann") == []


def test_a_key_that_is_used_again_is_not_ended_for_its_former_owner(store, clock):
    store.create(key(1), record(clock), 600, b"ann")
    store.destroy(key(1))
    store.create(key(1), record(clock, a=b"1"), 600, b"bob")
    assert store.owned(b"ann") == []
    assert store.end_owned(b"ann") == 0
    assert fields(store) == {"a": b"1"}
    assert store.owned(b"bob") == [key(1)]


def test_the_owner_is_kept_by_a_save_that_clears(store, clock):
    store.create(key(1), record(clock, a=b"1"), 600, b"ann")
    store.save(key(1), Delta({"b": b"2"}, cleared=True), 600)
    assert fields(store) == {"b": b"2"}
    assert store.owned(b"ann") == [key(1)]


def test_an_entry_without_a_record_goes_unless_one_may_be_about_to_come(store, valkey, clock):
    store.create(key(1), record(clock), 600, b"ann")
    store.create(key(2), record(clock), 600, b"ann")
    store.destroy(key(2))
    of_old(valkey, 1, 3)
    assert store.owned(b"ann") == [key(1)]
    assert sorted(entries(valkey)) == [key(1), key(2)]
    store.end_owned(b"ann")
    assert entries(valkey) == [key(2)], "it came a moment ago"


def test_what_is_buried_keeps_its_entry(opened, valkey, store):
    """It may be dug out."""

    def look():
        of_old(valkey, 1)
        assert store.owned(b"ann") == []
        store.create(key(2), record(store._clock), 600)

    store.create(key(1), record(store._clock), 600, b"ann")
    rotating = in_the_middle(opened, valkey, store, 4, look)
    with pytest.raises(KeyTaken):
        rotating.rotate(key(1), key(2), Delta(), b"", 600)
    assert store.owned(b"ann") == [key(1)]


def test_the_index_of_an_owner_who_comes_and_goes_does_not_grow(store, valkey, clock):
    store.create(key(1), record(clock), math.inf, b"ann")
    of_old(valkey, 1, *range(100, 150))
    for number in range(2, 80):
        store.create(key(number), record(clock), 600, b"ann")
        store.destroy(key(number))
        of_old(valkey, number)
    assert len(entries(valkey)) <= KEPT + LOOK + 1
    assert store.owned(b"ann") == [key(1)]


def test_what_comes_late_is_behind_all_others_even_if_the_clock_was_put_back(store, valkey, clock):
    ahead = "9999999999.5"
    valkey.ask("ZADD", INDEX, ahead, key(2))
    store.create(key(1), record(clock), 600, b"ann")
    assert entries(valkey) == [key(2), key(1)]


@pytest.mark.parametrize("renewal", ["save", "touch", "load"])
def test_the_index_lasts_as_long_as_what_is_renewed(store, valkey, clock, renewal):
    renew = {
        "save": lambda: store.save(key(1), Delta(), 600),
        "touch": lambda: store.touch(key(1), 600),
        "load": lambda: store.load_and_touch(key(1), 600, math.inf, 60),
    }[renewal]

    def left():
        return int(valkey.ask("PTTL", INDEX)) / 1000

    store.create(key(1), record(clock), 600, b"ann")
    assert 1200 < left() <= 1200 + 2 * GRACE
    valkey.ask("PEXPIRE", INDEX, "700000")  # time goes by there, too
    clock.advance(500)
    renew()
    assert left() <= 700, "it reaches far enough"
    clock.advance(500)
    renew()
    assert left() > 1200
    entry = valkey.ask("HGET", place(), "o")
    renew()
    assert valkey.ask("HGET", place(), "o") == entry, "once is enough"
    store.touch(key(1), math.inf)
    assert valkey.ask("PTTL", INDEX) == "-1"
    store.create(key(2), record(clock), 600, b"ann")
    assert valkey.ask("PTTL", INDEX) == "-1"


def test_a_full_server_gives_no_owner_and_still_ends_all(own_valkey, opened, clock):
    server = own_valkey(maxmemory_policy="noeviction")
    store = opened(server.url, clock=clock)
    for number in (1, 2):
        store.create(key(number), record(clock), 600, b"ann")
    store.rotate(key(2), key(3), Delta(), b"", 600, trail=TRAIL)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    for call in (
        lambda: store.create(key(5), record(clock), 600, b"ann"),
        lambda: store.rotate(key(1), key(6), Delta(), b"", 600),
        lambda: store.rotate(key(1), key(6), Delta(), b"", 600, b"bob"),
    ):
        assert re.search("OOM|OutOfMemory", str(quickly(call, 0)))
    assert store.destroy(key(2)) == Moved(TRAIL.ticket)
    assert sorted(store.owned(b"ann")) == [key(1), key(3)]
    assert store.end_owned(b"ann") == 2
    assert list(store.keys()) == []


# -- faults


def quickly(call, deadline, *arguments):
    """The error that the call raises, in time."""
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        call(*arguments)
    assert time.monotonic() - begun < deadline + SLACK
    return caught.value


def every_call(store):
    yield lambda: store.load(key(1))
    yield lambda: store.load_and_touch(key(1), 600, 9e9, 60)
    yield lambda: store.create(key(2), record(), 600)
    yield lambda: store.save(key(1), Delta({"a": b"2"}), 600)
    yield lambda: store.touch(key(1), 600)
    yield lambda: store.rotate(key(1), key(3), Delta(), b"", 600)
    yield lambda: store.destroy(key(1))
    yield lambda: list(store.keys())


def test_a_server_that_is_down_is_an_error_until_it_is_up(own_valkey, opened):
    server = own_valkey()
    server.stop()
    store = opened(server.url)
    for call in every_call(store):
        assert not isinstance(quickly(call, 0), StoreTimeout)
    server.start()
    store.create(key(1), record(a=b"1"), 600)
    assert fields(store) == {"a": b"1"}


def test_what_answers_and_is_no_redis_is_an_error(opened):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.recv(1000)
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        server = threading.Thread(target=answer)
        server.start()
        store = opened(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        quickly(lambda: store.load(key(1)), 2)
        quickly(lambda: store.save(key(1), Delta(), 60), 2)
        listener.shutdown(socket.SHUT_RDWR)
        server.join()


def test_a_server_that_dies_before_the_save_has_the_old_data_when_it_is_back(own_valkey, opened):
    server = own_valkey(appendonly="yes", appendfsync="always")
    store = opened(server.url)
    store.create(key(1), record(a=b"1"), 600)
    store.load(key(1))
    server.kill()
    quickly(lambda: store.save(key(1), Delta({"a": b"2"}), 600), 0)
    server.start()
    assert fields(store) == {"a": b"1"}
    store.save(key(1), Delta({"a": b"2"}), 600)
    assert fields(store) == {"a": b"2"}


def test_a_save_whose_answer_is_lost_is_an_error_and_is_not_repeated(distant, relay, store, clock):
    clock.now = time.time()
    distant.create(key(1), record(n=b"0"), 600)
    distant.save(key(1), Delta({"n": b"1"}), 600)
    relay.drop_reply()
    before = relay.requests
    quickly(lambda: distant.save(key(1), Delta({"n": b"2"}), 600, expect=2), 0)
    assert relay.requests == before + 1
    found = store.load(key(1))
    assert (dict(found.fields), found.version) == ({"n": b"2"}, 3), "once, not twice"


@pytest.mark.parametrize("lost", ["drop_reply", "drop_request"])
def test_a_lost_answer_to_what_may_be_repeated_is_asked_again(distant, relay, store, clock, lost):
    clock.now = time.time()
    distant.create(key(1), record(a=b"1"), 600)
    distant.load(key(1)), distant.touch(key(1), 600)
    for call in (
        lambda: distant.load(key(1)),
        lambda: distant.load_and_touch(key(1), 600, 9e9, -1),
        lambda: distant.touch(key(1), 600),
        lambda: distant.destroy(key(1)),
    ):
        getattr(relay, lost)()
        call()
        assert relay.wait_for_drop()
    assert store.load(key(1)) is Missing.UNKNOWN


def test_a_slow_server_is_waited_for_without_more_trips(distant, relay):
    distant.create(key(1), record(a=b"1"), 600)
    distant.load(key(1))
    relay.delay, relay.jitter = 0.2, 0.2
    distant.save(key(1), Delta({"a": b"2"}), 600)
    before = relay.requests
    assert fields(distant) == {"a": b"2"}
    assert relay.requests == before + 1


def test_the_deadline_counts_for_all_steps_together(relay, opened):
    """To choose a database and to load are two trips, each of which alone would be fast enough."""
    relay.delay = 1.9
    store = opened(f"redis://127.0.0.1:{relay.port}/1")
    assert isinstance(quickly(lambda: store.load(key(1)), 2.0), StoreTimeout)
    relay.delay = 0
    assert store.load(key(1)) is Missing.UNKNOWN


def test_a_frozen_server_is_a_timeout_and_then_the_same_record(own_valkey, opened):
    server = own_valkey()
    store, fresh = opened(server.url, deadline=0.3), opened(server.url, deadline=0.3)
    store.create(key(1), record(a=b"1"), 600)
    server.freeze()
    try:
        for one in (store, fresh):
            for call in list(every_call(one))[:3]:
                assert isinstance(quickly(call, 0.3), StoreTimeout)
    finally:
        server.thaw()
    assert fields(store) == fields(fresh) == {"a": b"1"}


def test_a_large_save_to_a_frozen_server_ends_with_the_deadline(own_valkey, opened):
    server = own_valkey()
    store = opened(server.url, deadline=0.3)
    store.create(key(1), record(a=b"1"), 600)
    server.freeze()
    try:
        call = lambda: store.save(key(1), Delta({"a": b"x" * 20_000_000}), 600)  # noqa: E731
        assert isinstance(quickly(call, 0.3), StoreTimeout)
    finally:
        server.thaw()


def test_connections_heal_after_a_restart(own_valkey, opened):
    server = own_valkey(appendonly="yes")
    store = opened(server.url)
    store.create(key(1), record(a=b"1", n=b"0"), 600)
    for turn in range(1, 4):
        with ThreadPoolExecutor(8) as pool:  # many idle connections
            list(pool.map(lambda _: store.load(key(1)), range(64)))
        server.restart()
        store.save(key(1), Delta({"n": b"%d" % turn}), 600, expect=turn)
        assert fields(store)["n"] == b"%d" % turn


def test_after_a_restart_that_forgets_sessions_are_unknown(own_valkey, opened):
    server = own_valkey()
    store = opened(server.url)
    store.create(key(1), record(a=b"1"), 600)
    server.restart()
    assert store.load(key(1)) is Missing.UNKNOWN
    server.restart()
    with pytest.raises(SessionGone):
        store.save(key(1), Delta({"a": b"2"}), 600)
    store.create(key(1), record(a=b"3"), 600)
    assert fields(store) == {"a": b"3"}


def test_a_record_deleted_by_hand_is_gone(store, valkey, clock):
    store.create(key(1), record(clock), 600)
    version = store.load(key(1)).version
    valkey.ask("DEL", place())
    for expect in (None, version):
        with pytest.raises(SessionGone):
            store.save(key(1), Delta({"a": b"1"}), 600, expect)
    assert valkey.ask("EXISTS", place()) == "0"


def test_scripts_that_the_server_forgot_are_sent_again(store, valkey, clock):
    store.create(key(1), record(clock), 600)
    store.save(key(1), Delta({"a": b"1"}), 600)
    valkey.ask("SCRIPT", "FLUSH")
    store.save(key(1), Delta({"a": b"2"}), 600, expect=2)
    assert fields(store) == {"a": b"2"}


def test_a_full_server_refuses_writes_reads_on_and_forgets(own_valkey, opened, clock):
    server = own_valkey(maxmemory_policy="noeviction")
    store = opened(server.url, clock=clock)
    for number in (1, 2, 3):
        store.create(key(number), record(clock, a=b"1"), 60)
    store.save(key(1), Delta(), 600)
    store.rotate(key(1), key(4), Delta(), b"", 600)
    before = store.load(key(4)), store.load(key(2))
    server.ask("CONFIG", "SET", "maxmemory", "1")
    clock.advance(30)
    for call in (
        lambda: store.create(key(5), record(clock), 600),
        lambda: store.save(key(4), Delta({"b": b"2"}, {"a"}), 600),
        lambda: store.save(key(4), Delta({"b": b"2"}, cleared=True), 600),
        lambda: store.touch(key(4), 600),
        lambda: store.rotate(key(4), key(6), Delta(), b"", 600),
    ):
        assert "OutOfMemory" in str(quickly(call, 0)) or "OOM" in str(quickly(call, 0))
    assert store.load_and_touch(key(4), 600, math.inf, 5) == before[0]
    assert (store.load(key(4)), store.load(key(2))) == before
    assert sorted(store.keys()) == [key(2), key(3), key(4)]
    store.destroy(key(3))
    assert store.load(key(3)) is Missing.UNKNOWN
    server.ask("CONFIG", "SET", "maxmemory", "0")
    store.save(key(4), Delta({"b": b"2"}), 600)
    assert fields(store, 4) == {"a": b"1", "b": b"2"}


def test_a_primary_that_became_a_replica_is_an_error_and_heals(own_valkey, opened):
    primary, server = own_valkey(), own_valkey()
    store = opened(server.url)
    store.create(key(1), record(a=b"1"), 600)
    store.save(key(1), Delta(), 600), store.load(key(1))
    server.ask("REPLICAOF", "127.0.0.1", "1")
    for call in (
        lambda: store.save(key(1), Delta({"a": b"2"}), 600),
        lambda: store.touch(key(1), 600),
        lambda: store.load_and_touch(key(1), 600, 9e9, -1),
        lambda: store.destroy(key(1)),
    ):
        assert "READONLY" in str(quickly(call, 0))
    server.ask("REPLICAOF", "NO", "ONE")
    store.save(key(1), Delta({"a": b"2"}), 600)
    assert fields(store) == {"a": b"2"}
    assert primary.ask("DBSIZE") == "0"


def test_a_name_that_moves_to_the_new_primary_is_followed(own_valkey, opened):
    """As managed services do it: the old primary lives on as a replica."""
    old, new = own_valkey(), own_valkey()
    new.ask("REPLICAOF", "127.0.0.1", str(old.port))
    with Relay("127.0.0.1", old.port) as name:
        store = opened(f"redis://127.0.0.1:{name.port}")
        store.create(key(1), record(a=b"1"), 600)
        store.save(key(1), Delta(), 600)
        wait_until(lambda: new.ask("DBSIZE") == "1", lambda: "not replicated")
        new.ask("REPLICAOF", "NO", "ONE")
        old.ask("REPLICAOF", "127.0.0.1", str(new.port))
        name.target = "127.0.0.1", new.port
        store.save(key(1), Delta({"a": b"2"}), 600)
        assert fields(store) == {"a": b"2"}
        assert name.connections == 2


def test_a_server_that_answers_drop_by_drop_has_no_more_time_than_others(opened):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            client, _ = listener.accept()
            with client, suppress(OSError):
                for _ in range(50):
                    client.sendall(b"+")
                    time.sleep(0.1)

        server = threading.Thread(target=answer)
        server.start()
        store = opened(f"redis://127.0.0.1:{listener.getsockname()[1]}", deadline=0.5)
        assert isinstance(quickly(lambda: store.load(key(1)), 0.5), StoreTimeout)
        server.join()


def test_no_error_tells_what_was_stored(own_valkey, opened):
    """Neither a server's refusal, which may quote what was sent, nor a broken connection."""
    server = own_valkey(rename_command=("EVALSHA", ""))
    store = opened(server.url, key_prefix="private-prefix:")
    told = [quickly(lambda: store.create(key(0xABC), record(field=b"value-x"), 600), 0)]
    server.kill()
    told.append(quickly(lambda: store.save(key(0xABC), Delta({"field": b"value-x"}), 600), 0))
    for error in told:
        text = "".join(traceback.format_exception(error))
        text = "".join(line for line in text.splitlines() if not line.startswith("    "))
        assert not any(word in text for word in ("value-x", "private-prefix", key(0xABC), "field"))


# -- forks and threads


def test_a_child_uses_no_connection_of_its_parent(distant, relay, fork):
    for number in range(4):
        distant.create(key(number), record(tag=b"%d" % number), 600)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: distant.load(key(n)), range(40)))
    opened = relay.connections

    def use(number):
        for _ in range(200):
            assert fields(distant, number) == {"tag": b"%d" % number}

    children = [fork(lambda number=number: use(number)) for number in range(3)]
    use(3)
    assert [child.wait() for child in children] == [0, 0, 0]
    assert relay.connections == opened + 3
    use(3)
    assert relay.connections == opened + 3, "those of the parent are still good"


def test_a_fork_while_other_threads_are_in_a_call_leaves_the_child_able_to_work(
    valkey, opened, fork
):
    store = opened(f"{valkey.url}?max_connections=2")
    store.create(key(1), record(a=b"1"), 600)
    done = threading.Event()

    def busy():
        while not done.is_set():
            store.save(key(1), Delta({"a": b"1"}), 600)

    threads = [threading.Thread(target=busy) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert fork(lambda: fields(store)).wait() == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_store_that_is_dropped_closes_its_connections(valkey):
    """Warnings are errors here: also that of a socket which nobody closed."""
    store = RedisStore(url=f"{valkey.url}?client_name=dropped")
    store.load(key(1))
    assert "name=dropped" in valkey.ask("CLIENT", "LIST")
    del store
    gc.collect()
    gone = lambda: "name=dropped" not in valkey.ask("CLIENT", "LIST")  # noqa: E731
    wait_until(gone, lambda: "the connection is still open")


def test_more_threads_than_connections_wait_for_each_other(relay, opened):
    store = opened(f"redis://127.0.0.1:{relay.port}?max_connections=3", deadline=20)
    for number in range(16):
        store.create(key(number), record(tag=b"%d" % number), 600)

    def use(number):
        for _ in range(30):
            assert fields(store, number) == {"tag": b"%d" % number}

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(use, range(16)))
    assert relay.connections <= 3


def test_a_thread_that_gets_no_connection_gives_up_with_the_deadline(relay, opened):
    url = f"redis://127.0.0.1:{relay.port}?max_connections=1"
    store = opened(url, deadline=0.5)
    assert store.load(key(1)) is Missing.UNKNOWN
    relay.freeze()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(quickly, lambda: store.load(key(1)), 0.5) for _ in range(4)]
        assert all(isinstance(one.result(), StoreTimeout) for one in waiting)
    relay.thaw()
    assert store.load(key(1)) is Missing.UNKNOWN


def test_a_client_killed_in_the_middle_of_a_save_leaves_a_whole_record(
    python, valkey, store, clock
):
    clock.now = time.time()
    store.create(key(1), record(a=b"0" * 600_000, b=b"0"), 600)
    code = (
        "import os, sys\n"
        "from nocookie.stores.base import Delta\n"
        "from nocookie.stores.redis import RedisStore\n"
        "store = RedisStore(url=sys.argv[1])\n"
        "turn = int(sys.argv[2])\n"
        "while True:\n"
        "    turn += 1\n"
        "    delta = Delta({'a': b'%d' % (turn % 10) * 600_000, 'b': b'%d' % turn})\n"
        "    store.save(f'{1:064x}', delta, 600)\n"
        "    os.write(1, b'%d\\n' % turn)\n"
    )
    turn = 0
    for pause in range(10):
        writer = python(code, valkey.url, turn)
        writer.stdout.readline()
        time.sleep(pause * 0.0013)  # not to wait for anything: to hit any moment
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        acknowledged = int(rest.split()[-1]) if rest.endswith("\n") else turn
        found = fields(store)
        turn = int(found["b"])
        assert acknowledged <= turn
        assert found["a"] == b"%d" % (turn % 10) * 600_000
    assert turn >= 10


# -- other ways to a server


def use(store):
    store.create(key(1), record(a=b"1"), 600)
    store.save(key(1), Delta({"b": b"2"}), 600, expect=1)
    with pytest.raises(VersionChanged):
        store.save(key(1), Delta({"b": b"3"}), 600, expect=1)
    store.rotate(key(1), key(2), Delta(), b"", 600)
    assert fields(store, 2) == {"a": b"1", "b": b"2"}
    assert list(store.keys()) == [key(2)]
    store.destroy(key(2))
    assert store.load(key(2)) is Missing.UNKNOWN


def use_owners(store):
    for number in range(1, 3 * KEPT):
        store.create(key(number), record(), 600, b"ann")
    store.rotate(key(1), key(0), Delta(), b"", 600, trail=TRAIL)
    store.save(key(0), Delta(), math.inf)
    assert store.destroy(key(1)) == Moved(TRAIL.ticket)
    assert len(store.owned(b"ann")) == store.end_owned(b"ann") == 3 * KEPT - 1


def test_a_unix_socket(valkey, opened):
    store = opened(f"unix://{valkey.options['unixsocket']}?db=2")
    use(store)
    store.create(key(1), record(), 600)
    assert valkey.ask("-n", "2", "DBSIZE") == "1"
    assert valkey.ask("DBSIZE") == "0"


def test_a_database_by_its_number(valkey, opened):
    store = opened(f"{valkey.url}/3")
    use(store)
    store.create(key(1), record(), 600)
    assert valkey.ask("-n", "3", "DBSIZE") == "1"
    quickly(lambda: opened(f"{valkey.url}/77").load(key(1)), 0)


def test_a_password(own_valkey, opened):
    server = own_valkey()
    server.ask("ACL", "SETUSER", "shop", "on", ">p#ss", "~nocookie:*", "+@all")
    server.ask("CONFIG", "SET", "requirepass", "other")
    address = f"127.0.0.1:{server.port}"
    for url in (f"redis://shop:p%23ss@{address}", f"redis://:other@{address}"):
        use(opened(url))
    for url in (f"redis://shop:wrong-one@{address}", f"redis://{address}"):
        for call in list(every_call(opened(url)))[:4]:
            error = quickly(call, 0)
            text = "".join(traceback.format_exception(error))
            assert not any(word in text for word in ("wrong-one", "p#ss", "p%23ss"))


def test_the_commands_that_the_page_names_are_enough(own_valkey, opened):
    page = Path(__file__).resolve().parents[2] / "docs" / "stores" / "redis.md"
    line = re.search(r"^ACL SETUSER .*$", page.read_text("utf-8"), re.MULTILINE)[0]
    server = own_valkey()
    assert server.ask(*line.replace(">...", ">pass").split()) == "OK"
    store = opened(f"redis://shop:pass@127.0.0.1:{server.port}/1", key_prefix="shop:")
    use(store)
    index = f"shop:owners:{b'ann'.hex()}"
    server.ask("-n", "1", "ZADD", index, *(word for n in range(50) for word in ("1", key(n))))
    use_owners(store)
    assert server.ask("ACL", "LOG") == ""
