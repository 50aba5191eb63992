"""Every promise of `nocookie.stores.base`, as tests."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from nocookie.errors import SessionGone
from nocookie.stores.base import (
    ByOwner,
    Delta,
    KeyTaken,
    Listable,
    Missing,
    Moved,
    Purgeable,
    Record,
    Store,
    Trail,
    VersionChanged,
    merge,
)
from nocookie.testing.clock import FakeClock
from nocookie.testing.threads import together, wait_until

try:
    import pytest
    from hypothesis import HealthCheck, settings
    from hypothesis import strategies as st
    from hypothesis.stateful import (
        RuleBasedStateMachine,
        precondition,
        rule,
        run_state_machine_as_test,
    )
except ImportError as error:
    raise ImportError(
        "nocookie.testing.StoreSuite needs pytest and hypothesis: pip install pytest hypothesis"
    ) from error

__all__ = ["StoreSuite"]

#: Seconds that a record of the suite lives. None lives less than SHORT: a store whose server has
#: a clock of its own, which goes on while ours stands still, is not disturbed.
TTL: Final = 1000.0
SHORT: Final = 60.0

#: How long two sides race where only many tries would find a fault.
MOMENT: Final = 0.3

NAMES: Final = (
    "plain",
    "",
    " ",
    "!tag",
    "two words",
    "quo'te\"s",
    "`back`",
    "semi;colon--",
    "%s %(name)s {0}",
    "a.b$c:d",
    "line\nbreak",
    "nul\0nul",
    "ключ",
    "鍵",
    "\U0001f36a",
    "e\u0301",  # and, composed, the next: two names
    "\u00e9",
    "n" * 5000,
    "__proto__",
)
VALUES: Final = (
    b"",
    b"\0",
    b"j1",
    b"\0nul\0",
    b"\r\n",
    b"'; DROP TABLE sessions; --",
    b"\xff\xfe\x00\xd8",
    bytes(range(256)),
)


def key_of(number: int) -> str:
    """A store key as sessions make them: 64 hexadecimal digits."""
    return f"{number:064x}"


KEY: Final = key_of(0xFEED)
OTHER: Final = key_of(0xBEEF)
TRAIL: Final = Trail(b"ticket \0\xff", SHORT)


class StoreSuite:
    """Every promise of `nocookie.stores.base`, as a test.

    Subclass it with a fixture `store`: a fresh, empty store that takes its time from the fixture
    `clock`, and is closed afterwards.
    """

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def store(self, clock: FakeClock) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a fixture named store")

    # -- loading

    def test_what_was_never_stored_is_unknown(self, store: Store) -> None:
        assert store.load(KEY) is Missing.UNKNOWN

    def test_a_record_comes_back_as_it_was_created(self, store: Store, clock: FakeClock) -> None:
        began = clock.now - 5
        store.create(KEY, Record({"a": b"1", "b": b"2"}, began, 0.0, 0.0, 0, b"seal\0"), TTL)
        record = load(store, KEY)
        assert dict(record.fields) == {"a": b"1", "b": b"2"}
        assert record.created == began
        assert record.accessed == clock.now
        assert record.expires == clock.now + TTL
        assert record.seal == b"seal\0"

    def test_a_record_may_have_no_fields(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {})
        assert dict(load(store, KEY).fields) == {}

    def test_keys_do_not_mix(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"mine": b"1"}, key=KEY)
        create(store, clock, {"theirs": b"2"}, key=OTHER)
        store.save(KEY, Delta({"mine": b"3"}), TTL)
        assert fields(store, KEY) == {"mine": b"3"}
        assert fields(store, OTHER) == {"theirs": b"2"}

    @pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:12]))
    def test_a_field_may_have_any_name(self, store: Store, clock: FakeClock, name: str) -> None:
        create(store, clock, {name: b"1", "kept": b"0"})
        assert fields(store) == {name: b"1", "kept": b"0"}
        store.save(KEY, Delta({name: b"2"}), TTL)
        assert fields(store) == {name: b"2", "kept": b"0"}
        store.save(KEY, Delta({}, {name}), TTL)
        assert fields(store) == {"kept": b"0"}

    def test_names_that_look_alike_are_different(self, store: Store, clock: FakeClock) -> None:
        given = {name: str(number).encode() for number, name in enumerate(NAMES)}
        given |= {"case": b"lower", "CASE": b"upper"}
        create(store, clock, given)
        assert fields(store) == given

    @pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value[:12]))
    def test_a_field_may_have_any_value(self, store: Store, clock: FakeClock, value: bytes) -> None:
        create(store, clock, {"created": value})
        store.save(KEY, Delta({"saved": value}), TTL)
        assert fields(store) == {"created": value, "saved": value}
        assert all(type(value) is bytes for value in fields(store).values())

    def test_a_field_may_be_large(self, store: Store, clock: FakeClock) -> None:
        large = bytes(range(256)) * 2400  # 600 kB
        create(store, clock, {"large": large, "small": b"1"})
        assert fields(store) == {"large": large, "small": b"1"}
        store.save(KEY, Delta({"large": large[::-1]}), TTL)
        assert fields(store) == {"large": large[::-1], "small": b"1"}

    def test_there_may_be_many_fields(self, store: Store, clock: FakeClock) -> None:
        many = {f"field number {number:05}": b"%d" % number for number in range(4000)}
        create(store, clock, many)
        assert fields(store) == many

    def test_loading_renews_nothing(self, store: Store, clock: FakeClock) -> None:
        create(store, clock)
        before = load(store)
        clock.advance(5)
        store.load(KEY)
        assert load(store) == before

    def test_reading_creates_nothing(self, store: Store) -> None:
        store.load(KEY)
        with pytest.raises(SessionGone):
            store.touch(KEY, TTL)
        assert store.load(KEY) is Missing.UNKNOWN
        if isinstance(store, Listable):
            assert list(store.keys()) == []

    def test_what_a_caller_does_to_its_mappings_does_not_reach_the_store(
        self, store: Store, clock: FakeClock
    ) -> None:
        given = {"a": b"1"}
        create(store, clock, given)
        given["a"] = b"changed"
        given["planted"] = b"1"
        changes = {"b": b"2"}
        store.save(KEY, Delta(changes), TTL)
        changes["b"] = b"changed"
        copy = dict(load(store).fields)
        copy["c"] = b"3"
        assert fields(store) == {"a": b"1", "b": b"2"}

    def test_a_record_in_hand_does_not_change(self, store: Store, clock: FakeClock) -> None:
        """A request works on what it loaded, whatever others save meanwhile."""
        create(store, clock, {"a": b"1"})
        before = load(store)
        store.save(KEY, Delta({"a": b"2", "b": b"3"}), TTL)
        assert dict(before.fields) == {"a": b"1"}

    # -- create

    def test_create_never_overwrites_a_living_record(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"first": b"1"})
        before = load(store)
        clock.advance(1)
        with pytest.raises(KeyTaken):
            create(store, clock, {"second": b"2"})
        assert load(store) == before

    def test_create_replaces_an_expired_record(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"old": b"1"}, seal=b"old seal", ttl=SHORT)
        clock.advance(SHORT)
        create(store, clock, {"new": b"2"}, seal=b"new seal")
        record = load(store)
        assert (dict(record.fields), record.seal) == ({"new": b"2"}, b"new seal")
        assert (record.created, record.expires) == (clock.now, clock.now + TTL)

    def test_create_works_after_destroy(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"old": b"1"})
        store.destroy(KEY)
        create(store, clock, {"new": b"2"})
        assert fields(store) == {"new": b"2"}

    def test_of_many_that_create_one_key_one_succeeds(self, store: Store, clock: FakeClock) -> None:
        won: list[bytes] = []

        def one(name: bytes) -> None:
            try:
                create(store, clock, {"by": name})
            except KeyTaken:
                return
            won.append(name)

        together(*(partial(one, b"%d" % n) for n in range(8)))
        assert len(won) == 1
        assert fields(store) == {"by": won[0]}

    # -- save

    @pytest.mark.parametrize(
        ("delta", "expected"),
        [
            (Delta(), {"a": b"1", "b": b"2"}),
            (Delta({"b": b"3", "c": b"4"}), {"a": b"1", "b": b"3", "c": b"4"}),
            (Delta({}, {"a"}), {"b": b"2"}),
            (Delta({}, ["a", "b"]), {}),
            (Delta({}, ("never there",)), {"a": b"1", "b": b"2"}),
            (Delta({"c": b"4"}, frozenset({"a"})), {"b": b"2", "c": b"4"}),
            (Delta({"a": b"4"}, {"a"}), {"a": b"4", "b": b"2"}),
            (Delta(cleared=True), {}),
            (Delta({"a": b"4"}, {"b"}, cleared=True), {"a": b"4"}),
        ],
        ids=[
            "nothing",
            "set",
            "delete",
            "delete all",
            "delete nothing",
            "set and delete",
            "set wins over delete",
            "clear",
            "clear and set",
        ],
    )
    def test_save_applies_the_delta(
        self, store: Store, clock: FakeClock, delta: Delta, expected: dict[str, bytes]
    ) -> None:
        create(store, clock, {"a": b"1", "b": b"2"})
        store.save(KEY, delta, TTL)
        assert fields(store) == expected

    def test_save_changes_the_version_and_renews_and_keeps_the_rest(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock, {"a": b"1"}, seal=b"seal", ttl=SHORT)
        before = load(store)
        clock.advance(7)
        store.save(KEY, Delta({"a": b"2"}), TTL)
        after = load(store)
        assert after.version != before.version
        assert (after.accessed, after.expires) == (clock.now, clock.now + TTL)
        assert (after.created, after.seal) == (before.created, b"seal")

    def test_every_save_has_a_version_of_its_own(self, store: Store, clock: FakeClock) -> None:
        create(store, clock)
        versions = [load(store).version]
        for _ in range(20):
            store.save(KEY, Delta({"a": b"same"}), TTL)
            versions.append(load(store).version)
        assert len(set(versions)) == len(versions)

    def test_two_deltas_on_different_fields_both_survive(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock, {"a": b"0", "b": b"0", "c": b"0"})
        load(store), load(store)  # two requests see the same record, and then save
        store.save(KEY, Delta({"a": b"1"}, {"c"}), TTL)
        store.save(KEY, Delta({"b": b"2"}), TTL)
        assert fields(store) == {"a": b"1", "b": b"2"}

    def test_expect_saves_on_the_version_it_names(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"a": b"1"})
        store.save(KEY, Delta({"a": b"2"}), TTL, expect=load(store).version)
        store.save(KEY, Delta({"a": b"3"}), TTL, expect=load(store).version)
        assert fields(store) == {"a": b"3"}

    def test_expect_writes_nothing_on_another_version(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"a": b"1"})
        seen = load(store).version
        store.save(KEY, Delta({"a": b"2"}), TTL)
        before = load(store)
        clock.advance(5)
        with pytest.raises(VersionChanged):
            store.save(KEY, Delta({"a": b"late"}, cleared=True), TTL * 2, expect=seen)
        assert load(store) == before

    def test_with_a_seal_the_next_record_under_a_key_counts_as_gone(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock, {"a": b"1"}, seal=b"first")
        store.save(KEY, Delta({"b": b"2"}), TTL, seal=b"first")
        store.touch(KEY, TTL, seal=b"first")
        store.destroy(KEY)
        create(store, clock, {"a": b"next"}, seal=b"second")
        version = load(store).version
        for expect in (None, version, version + 1):
            with pytest.raises(SessionGone):
                store.save(KEY, Delta({"a": b"late"}), TTL, expect, b"first")
        with pytest.raises(SessionGone):
            store.touch(KEY, TTL, seal=b"first")
        with pytest.raises(VersionChanged):
            store.save(KEY, Delta({"a": b"late"}), TTL, version + 1, b"second")
        assert fields(store) == {"a": b"next"}

    def test_rotation_changes_the_version(self, store: Store, clock: FakeClock) -> None:
        create(store, clock)
        seen = load(store).version
        store.rotate(KEY, OTHER, Delta(), b"", TTL)
        with pytest.raises(VersionChanged):
            store.save(OTHER, Delta({"a": b"late"}), TTL, expect=seen)

    # -- create, instead of what is there

    def test_a_record_takes_the_place_of_the_one_that_was_seen(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock, {"a": b"1", "b": b"2"}, seal=b"first", ttl=SHORT)
        seen = load(store)
        clock.advance(5)
        create(store, clock, {"a": b"3"}, seal=b"second", instead_of=seen)
        record = load(store)
        assert (dict(record.fields), record.seal) == ({"a": b"3"}, b"second")
        assert (record.created, record.accessed) == (clock.now, clock.now)
        assert record.expires == clock.now + TTL
        assert record.version != seen.version
        with pytest.raises(SessionGone):
            store.save(KEY, Delta({"late": b"1"}), TTL, seal=b"first")
        store.save(KEY, Delta({"b": b"4"}), TTL, seal=b"second")
        assert fields(store) == {"a": b"3", "b": b"4"}

    @pytest.mark.parametrize("since", ["saved", "destroyed", "followed", "replaced", "moved"])
    def test_a_record_takes_the_place_of_no_other(
        self, store: Store, clock: FakeClock, since: str
    ) -> None:
        create(store, clock, seal=b"first")
        seen = load(store)
        if since == "saved":
            store.save(KEY, Delta({"acknowledged": b"1"}), TTL)
        elif since == "replaced":
            create(store, clock, {"acknowledged": b"1"}, seal=b"second", instead_of=seen)
        elif since == "moved":
            store.rotate(KEY, OTHER, Delta(), b"second", TTL, trail=TRAIL)
        else:
            store.destroy(KEY)
        if since == "followed":
            create(store, clock, {"acknowledged": b"1"}, seal=b"second")
        before = store.load(KEY)
        clock.advance(1)
        with pytest.raises(VersionChanged):
            create(store, clock, {"a": b"late"}, seal=b"third", instead_of=seen)
        assert store.load(KEY) == before

    def test_what_can_be_read_takes_no_place_as_corrupted(
        self, store: Store, clock: FakeClock
    ) -> None:
        with pytest.raises(VersionChanged):
            create(store, clock, instead_of=Missing.CORRUPTED)
        assert store.load(KEY) is Missing.UNKNOWN
        create(store, clock, {"a": b"1"})
        with pytest.raises(VersionChanged):
            create(store, clock, {"a": b"2"}, instead_of=Missing.CORRUPTED)
        assert fields(store) == {"a": b"1"}

    def test_a_record_that_takes_a_place_belongs_to_its_own_owner(
        self, store: Store, clock: FakeClock
    ) -> None:
        owners = by_owner(store)
        create(store, clock, seal=b"1", owner=b"ann")
        create(store, clock, seal=b"2", owner=b"bob", instead_of=load(store))
        assert (owners.owned(b"ann"), owners.owned(b"bob")) == ([], [KEY])
        create(store, clock, seal=b"3", instead_of=load(store))
        assert (owners.owned(b"ann"), owners.owned(b"bob")) == ([], [])
        assert owners.end_owned(b"bob") == 0
        assert isinstance(store.load(KEY), Record)

    def test_no_acknowledged_save_is_lost_to_a_record_that_takes_the_place(
        self, store: Store, clock: FakeClock
    ) -> None:
        """Who takes the saves along, and begins again if there was one more, has them all."""
        for turn in range(10):
            self._race_saves_and_replacement(store, clock, key_of(turn))

    def _race_saves_and_replacement(self, store: Store, clock: FakeClock, key: str) -> None:
        create(store, clock, {}, key=key, seal=b"first")
        saved: set[str] = set()

        def write(number: int) -> None:
            try:
                for turn in itertools.count():
                    store.save(key, Delta({f"{number}.{turn}": b"1"}), TTL, seal=b"first")
                    saved.add(f"{number}.{turn}")
            except SessionGone:
                return

        def replace() -> None:
            wait_until(lambda: len(saved) >= 6)
            while True:
                seen = load(store, key)
                try:
                    there = dict(seen.fields)
                    create(store, clock, there, key=key, seal=b"second", instead_of=seen)
                    return
                except VersionChanged:
                    continue

        together(lambda: write(1), lambda: write(2), replace)
        assert fields(store, key).keys() == saved

    # -- what is gone

    @pytest.mark.parametrize("operation", ["save", "save with expect", "touch", "rotate"])
    @pytest.mark.parametrize("end", ["never there", "expired", "destroyed", "rotated away"])
    def test_what_is_gone_cannot_be_written(
        self, store: Store, clock: FakeClock, operation: str, end: str
    ) -> None:
        third = key_of(3)
        version = 1
        if end != "never there":
            create(store, clock, {"a": b"1"}, ttl=SHORT)
            version = load(store).version
        if end == "expired":
            clock.advance(SHORT)
        elif end == "destroyed":
            store.destroy(KEY)
        elif end == "rotated away":
            store.rotate(KEY, third, Delta(), b"", TTL)
        write: Callable[[], None] = {
            "save": lambda: store.save(KEY, Delta({"a": b"2"}), TTL),
            "save with expect": lambda: store.save(KEY, Delta({"a": b"2"}), TTL, expect=version),
            "touch": lambda: store.touch(KEY, TTL),
            "rotate": lambda: store.rotate(KEY, OTHER, Delta({"a": b"2"}), b"", TTL),
        }[operation]
        with pytest.raises(SessionGone):
            write()
        assert isinstance(store.load(KEY), Missing)
        assert store.load(OTHER) is Missing.UNKNOWN
        if end == "rotated away":
            assert fields(store, third) == {"a": b"1"}

    # -- touch

    def test_touch_renews_and_changes_nothing_else(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"a": b"1"}, seal=b"seal", ttl=SHORT)
        before = load(store)
        clock.advance(SHORT - 1)
        store.touch(KEY, TTL)
        after = load(store)
        assert (after.accessed, after.expires) == (clock.now, clock.now + TTL)
        assert dict(after.fields) == {"a": b"1"}
        assert (after.created, after.seal) == (before.created, b"seal")
        clock.advance(TTL - 1)
        assert fields(store) == {"a": b"1"}

    def test_touch_may_shorten(self, store: Store, clock: FakeClock) -> None:
        """Near the end of its lifetime a session gets less than it had."""
        create(store, clock, ttl=TTL)
        store.touch(KEY, SHORT)
        clock.advance(SHORT)
        assert isinstance(store.load(KEY), Missing)

    # -- rotate

    def test_rotation_moves_everything_at_once(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"a": b"1", "b": b"2", "c": b"3"}, seal=b"old seal")
        began = clock.now
        clock.advance(9)
        store.rotate(KEY, OTHER, Delta({"b": b"4"}, {"c"}), b"new seal", TTL)
        assert store.load(KEY) is Missing.UNKNOWN
        record = load(store, OTHER)
        assert dict(record.fields) == {"a": b"1", "b": b"4"}
        assert (record.created, record.seal) == (began, b"new seal")
        assert (record.accessed, record.expires) == (clock.now, clock.now + TTL)

    def test_rotation_can_clear(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"a": b"1"})
        store.rotate(KEY, OTHER, Delta({"b": b"2"}, cleared=True), b"", TTL)
        assert fields(store, OTHER) == {"b": b"2"}

    def test_rotation_onto_a_living_record_changes_neither(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock, {"mine": b"1"}, key=KEY)
        create(store, clock, {"theirs": b"2"}, key=OTHER)
        before = load(store, KEY), load(store, OTHER)
        clock.advance(1)
        with pytest.raises(KeyTaken):
            store.rotate(KEY, OTHER, Delta({"mine": b"3"}), b"", TTL)
        assert (load(store, KEY), load(store, OTHER)) == before

    def test_a_rotated_record_goes_on_under_its_new_key(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock, {"a": b"1"})
        store.rotate(KEY, OTHER, Delta(), b"", TTL)
        store.save(OTHER, Delta({"b": b"2"}), TTL)
        store.touch(OTHER, TTL)
        assert fields(store, OTHER) == {"a": b"1", "b": b"2"}
        store.destroy(OTHER)
        assert store.load(OTHER) is Missing.UNKNOWN

    # -- rotate with a trail

    def test_a_trail_answers_with_its_ticket_and_takes_no_writes(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock, {"a": b"1"})
        store.rotate(KEY, OTHER, Delta({"b": b"2"}), b"", TTL, trail=TRAIL)
        before = load(store, OTHER)
        assert store.load(KEY) == Moved(TRAIL.ticket)
        third = key_of(3)
        writes: list[Callable[[], object]] = [
            lambda: store.save(KEY, Delta({"a": b"late"}), TTL),
            lambda: store.save(KEY, Delta({"a": b"late"}, cleared=True), TTL),
            lambda: store.save(KEY, Delta({"a": b"late"}), TTL, expect=before.version),
            lambda: store.touch(KEY, TTL),
            lambda: store.rotate(KEY, third, Delta(), b"", TTL),
            lambda: store.rotate(KEY, third, Delta(), b"", TTL, trail=TRAIL),
        ]
        for write in writes:
            with pytest.raises(SessionGone):
                write()
        assert store.load(KEY) == Moved(TRAIL.ticket)
        assert store.load(third) is Missing.UNKNOWN
        assert load(store, OTHER) == before
        assert dict(before.fields) == {"a": b"1", "b": b"2"}

    def test_a_trail_ends_in_its_time(self, store: Store, clock: FakeClock) -> None:
        create(store, clock)
        store.rotate(KEY, OTHER, Delta(), b"", TTL, trail=TRAIL)
        clock.advance(TRAIL.ttl - 0.5)
        assert store.load(KEY) == Moved(TRAIL.ticket)
        clock.advance(0.5)
        assert isinstance(store.load(KEY), Missing)
        assert store.destroy(KEY) is None
        assert fields(store, OTHER) == {"a": b"1"}

    def test_a_trail_leads_on_to_a_trail(self, store: Store, clock: FakeClock) -> None:
        create(store, clock)
        store.rotate(KEY, OTHER, Delta(), b"", TTL, trail=TRAIL)
        store.rotate(OTHER, key_of(3), Delta(), b"", TTL, trail=Trail(b"another", SHORT))
        assert store.load(KEY) == Moved(TRAIL.ticket)
        assert store.load(OTHER) == Moved(b"another")
        assert fields(store, key_of(3)) == {"a": b"1"}

    def test_nothing_is_created_on_a_trail(self, store: Store, clock: FakeClock) -> None:
        create(store, clock)
        store.rotate(KEY, OTHER, Delta(), b"", TTL, trail=TRAIL)
        with pytest.raises(KeyTaken):
            create(store, clock)
        assert store.load(KEY) == Moved(TRAIL.ticket)

    def test_who_destroys_a_trail_is_told_where_it_led(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock)
        store.rotate(KEY, OTHER, Delta(), b"", TTL, trail=TRAIL)
        assert store.destroy(KEY) == Moved(TRAIL.ticket)
        assert store.load(KEY) is Missing.UNKNOWN
        assert store.destroy(KEY) is None
        assert store.destroy(OTHER) is None  # that was a record
        assert store.load(OTHER) is Missing.UNKNOWN

    def test_a_trail_is_no_living_record(self, store: Store, clock: FakeClock) -> None:
        create(store, clock)
        store.rotate(KEY, OTHER, Delta(), b"", TTL, trail=TRAIL)
        if isinstance(store, Listable):
            assert list(store.keys()) == [OTHER]
        if isinstance(store, Purgeable):
            clock.advance(TRAIL.ttl)
            assert store.purge(10) == 1
            assert fields(store, OTHER) == {"a": b"1"}

    def test_a_reader_finds_the_record_or_its_trail_and_then_the_record(
        self, store: Store, clock: FakeClock
    ) -> None:
        """A rotation with a trail logs nobody out, whenever they look."""
        keys = [key_of(number) for number in range(12)]
        create(store, clock, key=keys[0])

        def rotate() -> None:
            for old, new in itertools.pairwise(keys):
                store.rotate(old, new, Delta(), b"", TTL, trail=Trail(new.encode(), SHORT))

        def read() -> None:
            key = keys[0]
            while isinstance(found := store.load(key), Moved):
                key = found.ticket.decode()
            assert isinstance(found, Record), (found, keys.index(key))

        together(rotate, meanwhile=[read, read])

    def test_a_destroy_and_a_rotation_with_a_trail_leave_what_can_be_found(
        self, store: Store, clock: FakeClock
    ) -> None:
        """Who destroys follows the trail: then nothing of the session is left."""
        for turn in range(20):
            old, new = key_of(turn), key_of(1000 + turn)
            create(store, clock, key=old)
            self._race_trail_and_destroy(store, old, new)

    def _race_trail_and_destroy(self, store: Store, old: str, new: str) -> None:
        def rotate() -> None:
            try:
                store.rotate(old, new, Delta(), b"", TTL, trail=Trail(new.encode(), SHORT))
            except SessionGone:
                pass

        def end() -> None:
            key = old
            while (moved := store.destroy(key)) is not None:
                key = moved.ticket.decode()

        together(rotate, end)
        assert isinstance(store.load(old), Missing)
        assert isinstance(store.load(new), Missing)

    # -- destroy

    def test_destroy_ends_the_record_and_no_other(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, key=KEY)
        create(store, clock, {"b": b"2"}, key=OTHER)
        store.destroy(KEY)
        assert store.load(KEY) is Missing.UNKNOWN
        assert fields(store, OTHER) == {"b": b"2"}

    def test_destroying_nothing_is_no_error(self, store: Store, clock: FakeClock) -> None:
        store.destroy(KEY)
        create(store, clock)
        store.destroy(KEY)
        store.destroy(KEY)
        assert store.load(KEY) is Missing.UNKNOWN

    def test_what_has_expired_can_be_destroyed_and_what_lives_not_with_it(
        self, store: Store, clock: FakeClock
    ) -> None:
        """Another host, whose clock is behind, may have renewed it since it was read."""
        create(store, clock, ttl=SHORT)
        store.destroy(KEY, expired=True)
        clock.advance(SHORT - 1)
        store.touch(KEY, TTL)
        clock.advance(1)
        store.destroy(KEY, expired=True)
        assert fields(store) == {"a": b"1"}
        clock.advance(TTL)
        store.destroy(KEY, expired=True)
        clock.advance(-TTL)
        assert store.load(KEY) is Missing.UNKNOWN
        store.destroy(KEY, expired=True)

    def test_a_trail_is_not_destroyed_as_expired(self, store: Store, clock: FakeClock) -> None:
        create(store, clock)
        store.rotate(KEY, OTHER, Delta(), b"", TTL, trail=TRAIL)
        store.destroy(KEY, expired=True)
        assert store.load(KEY) == Moved(TRAIL.ticket)
        assert fields(store, OTHER) == {"a": b"1"}

    # -- expiry

    @pytest.mark.parametrize("renewal", ["save", "touch", "rotate"])
    def test_who_reads_with_a_clock_that_is_ahead_takes_nothing_away(
        self, store: Store, clock: FakeClock, renewal: str
    ) -> None:
        create(store, clock, ttl=SHORT)
        clock.advance(SHORT + 1)
        assert isinstance(store.load(KEY), Missing)
        if isinstance(store, Listable):
            assert list(store.keys()) == []
        clock.advance(-2)
        if renewal == "rotate":
            store.rotate(KEY, OTHER, Delta({"b": b"2"}), b"", TTL)
        elif renewal == "save":
            store.save(KEY, Delta({"b": b"2"}), TTL)
        else:
            store.touch(KEY, TTL)
        clock.advance(2)
        assert fields(store, OTHER if renewal == "rotate" else KEY)["a"] == b"1"

    def test_what_is_read_purged_and_listed_to_its_last_second_can_be_saved_then(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock, ttl=TTL)
        for turn in range(4):
            clock.advance(TTL / 4 - 0.125)
            store.load(KEY)
            create(store, clock, key=key_of(turn), ttl=SHORT)
            if isinstance(store, Purgeable):
                store.purge(1000)
            if isinstance(store, Listable):
                assert KEY in set(store.keys())
        store.save(KEY, Delta({"late": b"1"}), TTL)
        clock.advance(TTL / 2)
        assert fields(store) == {"a": b"1", "late": b"1"}

    def test_expiry_is_decided_on_read(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, ttl=SHORT)
        clock.advance(SHORT - 0.5)
        assert isinstance(store.load(KEY), Record)
        clock.advance(0.5)
        assert store.load(KEY) in (Missing.EXPIRED, Missing.UNKNOWN)

    def test_a_record_without_a_limit_lives_for_ever(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"a": b"1"}, ttl=math.inf)
        clock.advance(100 * 365 * 86400.0)
        record = load(store)
        assert (dict(record.fields), record.expires) == ({"a": b"1"}, math.inf)
        store.save(KEY, Delta({"b": b"2"}), math.inf)
        store.touch(KEY, math.inf)
        store.rotate(KEY, OTHER, Delta(), b"", math.inf)
        clock.advance(100 * 365 * 86400.0)
        assert fields(store, OTHER) == {"a": b"1", "b": b"2"}
        store.touch(OTHER, SHORT)  # and can be given one
        clock.advance(SHORT)
        assert isinstance(store.load(OTHER), Missing)

    # -- at the same time

    def test_threads_that_save_different_fields_lose_nothing(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock, {})

        def writer(number: int) -> None:
            for turn in range(25):
                store.save(KEY, Delta({f"{number}.{turn}": b"%d" % turn}), TTL)

        together(*(partial(writer, n) for n in range(8)))
        expected = {f"{n}.{turn}": b"%d" % turn for n in range(8) for turn in range(25)}
        assert fields(store) == expected

    def test_compare_and_set_is_exact(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"count": b"0"})

        def add() -> None:
            for _ in range(15):
                while True:
                    seen = load(store)
                    more = b"%d" % (int(seen.fields["count"]) + 1)
                    try:
                        store.save(KEY, Delta({"count": more}), TTL, expect=seen.version)
                        break
                    except VersionChanged:
                        continue

        together(add, add, add, add)
        assert fields(store) == {"count": b"60"}

    def test_a_reader_sees_all_of_a_delta_or_nothing(self, store: Store, clock: FakeClock) -> None:
        create(store, clock, {"a": b"0", "b": b"0"})

        until = time.monotonic() + MOMENT

        def write() -> None:
            for turn in itertools.count():
                if time.monotonic() > until:
                    return
                value = b"%d" % turn * 100
                store.save(KEY, Delta({"a": value, "b": value}), TTL)

        def read() -> None:
            seen = load(store)
            assert seen.fields["a"] == seen.fields["b"]

        together(write, meanwhile=[read, read])

    def test_a_living_record_is_never_missing_while_others_write_it(
        self, store: Store, clock: FakeClock
    ) -> None:
        create(store, clock)

        until = time.monotonic() + MOMENT

        def save() -> None:
            while time.monotonic() < until:
                store.save(KEY, Delta({"a": b"2"}), TTL)

        def touch() -> None:
            while time.monotonic() < until:
                store.touch(KEY, TTL)

        together(save, touch, meanwhile=[lambda: load(store)])

    def test_a_clear_leaves_nothing_from_before_it(self, store: Store, clock: FakeClock) -> None:
        for turn in range(10):
            self._race_clear(store, clock, key_of(turn))

    def _race_clear(self, store: Store, clock: FakeClock, key: str) -> None:
        create(store, clock, {}, key=key)
        saved: list[int] = []
        before: list[int] = []

        def write() -> None:
            for number in range(20):
                store.save(key, Delta({str(number): b"1"}), TTL)
                saved.append(number)

        def clear() -> None:
            wait_until(lambda: len(saved) >= 5)
            before.extend(saved)
            store.save(key, Delta({"cleared": b"1"}, cleared=True), TTL)

        together(write, clear)
        left = fields(store, key)
        assert left.pop("cleared") == b"1"
        assert left.keys().isdisjoint(map(str, before))
        # What came after is there to the last: there is no gap.
        assert sorted(map(int, left)) == list(range(20))[20 - len(left) :]

    def test_nothing_survives_a_destroy(self, store: Store, clock: FakeClock) -> None:
        for turn in range(15):
            self._race_destroy(store, clock, key_of(turn))

    def _race_destroy(self, store: Store, clock: FakeClock, key: str) -> None:
        create(store, clock, key=key)
        written: list[int] = []

        def until_gone(write: Callable[[], None]) -> None:
            try:
                while True:
                    write()
                    written.append(1)
            except SessionGone:
                return

        def end() -> None:
            wait_until(lambda: len(written) >= 4)
            store.destroy(key)
            assert store.load(key) is Missing.UNKNOWN

        together(
            lambda: until_gone(lambda: store.save(key, Delta({"a": b"2"}), TTL)),
            lambda: until_gone(lambda: store.touch(key, TTL)),
            end,
        )
        assert store.load(key) is Missing.UNKNOWN

    def test_a_destroy_and_a_rotation_do_not_leave_the_old_key(
        self, store: Store, clock: FakeClock
    ) -> None:
        for turn in range(30):
            self._race_rotation_and_destroy(store, clock, key_of(turn), key_of(1000 + turn))

    def _race_rotation_and_destroy(
        self, store: Store, clock: FakeClock, old: str, new: str
    ) -> None:
        create(store, clock, key=old)
        rotated: list[int] = []

        def rotate() -> None:
            try:
                store.rotate(old, new, Delta(), b"", TTL)
            except SessionGone:
                return
            rotated.append(1)

        together(rotate, lambda: store.destroy(old))
        assert store.load(old) is Missing.UNKNOWN
        assert isinstance(store.load(new), Record) == bool(rotated)

    def test_what_is_destroyed_before_it_lives_under_a_new_key_never_does(
        self, store: Store, clock: FakeClock
    ) -> None:
        """A logout that has returned counts, whatever rotation is under way."""
        for turn in range(30):
            self._race_rotation_and_logout(store, clock, key_of(turn), key_of(1000 + turn))

    def _race_rotation_and_logout(self, store: Store, clock: FakeClock, old: str, new: str) -> None:
        create(store, clock, key=old)
        after_logout: list[Record | Missing | Moved] = []

        def rotate() -> None:
            try:
                store.rotate(old, new, Delta(), b"", TTL)
            except SessionGone:
                pass

        def log_out() -> None:
            wait_until(lambda: isinstance(store.load(old), Missing))
            store.destroy(old)
            after_logout.append(store.load(new))

        together(rotate, log_out)
        if isinstance(after_logout[0], Missing):
            assert store.load(new) is Missing.UNKNOWN

    def test_what_is_destroyed_under_its_new_key_stays_ended(
        self, store: Store, clock: FakeClock
    ) -> None:
        for turn in range(30):
            self._race_rotation_and_end(store, clock, key_of(turn), key_of(1000 + turn))

    def _race_rotation_and_end(self, store: Store, clock: FakeClock, old: str, new: str) -> None:
        create(store, clock, key=old)

        def end() -> None:
            wait_until(lambda: isinstance(store.load(new), Record))
            store.destroy(new)

        together(lambda: store.rotate(old, new, Delta(), b"", TTL), end)
        assert store.load(old) is Missing.UNKNOWN
        assert store.load(new) is Missing.UNKNOWN

    def test_of_several_rotations_one_succeeds(self, store: Store, clock: FakeClock) -> None:
        """There are never two live keys for one session."""
        for turn in range(30):
            self._race_rotations(store, clock, [key_of(10 * turn + n) for n in range(4)])

    def _race_rotations(self, store: Store, clock: FakeClock, keys: list[str]) -> None:
        create(store, clock, key=keys[0])
        won: list[str] = []

        def rotate(new: str) -> None:
            try:
                store.rotate(keys[0], new, Delta(), b"", TTL)
            except SessionGone:
                return
            won.append(new)

        together(*(partial(rotate, key) for key in keys[1:]))
        assert len(won) == 1
        assert [key for key in keys if isinstance(store.load(key), Record)] == won

    def test_a_rotation_takes_every_acknowledged_save_along(
        self, store: Store, clock: FakeClock
    ) -> None:
        for turn in range(10):
            self._race_rotation_and_saves(store, clock, key_of(turn), key_of(1000 + turn))

    def _race_rotation_and_saves(self, store: Store, clock: FakeClock, old: str, new: str) -> None:
        create(store, clock, {}, key=old)
        saved: set[str] = set()

        def write(number: int) -> None:
            try:
                for turn in itertools.count():
                    store.save(old, Delta({f"{number}.{turn}": b"1"}), TTL)
                    saved.add(f"{number}.{turn}")
            except SessionGone:
                return

        def rotate() -> None:
            wait_until(lambda: len(saved) >= 6)
            store.rotate(old, new, Delta(), b"", TTL)

        together(lambda: write(1), lambda: write(2), rotate)
        assert fields(store, new).keys() == saved

    # -- optional powers

    def test_purge_removes_what_is_expired_and_nothing_else(
        self, store: Store, clock: FakeClock
    ) -> None:
        if not isinstance(store, Purgeable):
            pytest.skip("the store is not Purgeable")
        for number in range(7):
            create(store, clock, key=key_of(number), ttl=SHORT + number)
        for number in range(7, 10):
            create(store, clock, {"b": b"2"}, key=key_of(number), ttl=[TTL, math.inf][number % 2])
        assert store.purge(100) == 0
        clock.advance(SHORT + 6)
        assert store.purge(3) == 3
        assert store.purge(3) == 3
        assert store.purge(3) == 1
        assert store.purge(3) == 0
        assert all(store.load(key_of(n)) is Missing.UNKNOWN for n in range(7))
        assert [fields(store, key_of(n)) for n in range(7, 10)] == [{"b": b"2"}] * 3

    def test_purge_while_others_touch_takes_no_living_record(
        self, store: Store, clock: FakeClock
    ) -> None:
        if not isinstance(store, Purgeable):
            pytest.skip("the store is not Purgeable")
        for number in range(20):
            create(store, clock, key=key_of(number), ttl=SHORT)

        def touch() -> None:
            for number in range(20):
                store.touch(key_of(number), TTL)

        def purge() -> None:
            store.purge(5)

        together(touch, meanwhile=[purge])
        clock.advance(SHORT)
        store.purge(100)
        assert all(isinstance(store.load(key_of(n)), Record) for n in range(20))

    def test_records_are_found_by_their_owner(self, store: Store, clock: FakeClock) -> None:
        owners = by_owner(store)
        one, two, three, four = map(key_of, range(1, 5))
        create(store, clock, key=one, owner=b"ann")
        create(store, clock, key=two, owner=b"ann", ttl=SHORT)
        create(store, clock, key=three, owner=b"bob\0")
        create(store, clock, key=four)
        assert sorted(owners.owned(b"ann")) == [one, two]
        assert owners.owned(b"bob\0") == [three]
        assert owners.owned(b"nobody") == owners.owned(b"") == []
        store.save(one, Delta({"a": b"2"}), TTL)
        store.touch(one, TTL)
        clock.advance(SHORT)
        assert owners.owned(b"ann") == [one]
        store.destroy(one)
        assert owners.owned(b"ann") == []

    def test_a_rotation_keeps_the_owner_or_gives_another(
        self, store: Store, clock: FakeClock
    ) -> None:
        owners = by_owner(store)
        keys = [key_of(number) for number in range(1, 7)]
        create(store, clock, key=keys[0])
        began = clock.now
        clock.advance(5)
        store.rotate(keys[0], keys[1], Delta(), b"", TTL)
        assert load(store, keys[1]).created == began
        store.rotate(keys[1], keys[2], Delta(), b"", TTL, owner=b"ann")
        assert owners.owned(b"ann") == [keys[2]]
        assert load(store, keys[2]).created == clock.now, "with an owner it begins anew"
        store.rotate(keys[2], keys[3], Delta(), b"", TTL)
        assert owners.owned(b"ann") == [keys[3]]
        store.rotate(keys[3], keys[4], Delta(), b"", TTL, trail=TRAIL)
        assert owners.owned(b"ann") == [keys[4]]
        store.rotate(keys[4], keys[5], Delta(), b"", TTL, owner=b"bob")
        assert (owners.owned(b"ann"), owners.owned(b"bob")) == ([], [keys[5]])

    def test_all_of_an_owner_end_but_one(self, store: Store, clock: FakeClock) -> None:
        owners = by_owner(store)
        mine = [key_of(number) for number in range(1, 8)]
        for key in mine:
            create(store, clock, key=key, owner=b"ann")
        create(store, clock, key=key_of(100), owner=b"bob")
        create(store, clock, key=key_of(101))
        assert owners.end_owned(b"ann", but=mine[3]) == 6
        assert [key for key in mine if store.load(key) is not Missing.UNKNOWN] == [mine[3]]
        assert owners.owned(b"ann") == [mine[3]]
        assert owners.end_owned(b"ann") == 1
        assert owners.end_owned(b"ann") == 0
        assert owners.owned(b"bob") == [key_of(100)]
        assert isinstance(store.load(key_of(101)), Record)
        with pytest.raises(SessionGone):
            store.save(mine[0], Delta({"a": b"late"}), TTL)

    def test_an_owner_of_many_sessions_is_rid_of_all(self, store: Store, clock: FakeClock) -> None:
        owners = by_owner(store)
        for number in range(300):
            create(store, clock, key=key_of(number), owner=b"ann")
        assert len(owners.owned(b"ann")) == 300
        assert owners.end_owned(b"ann") == 300
        assert owners.owned(b"ann") == []

    def test_no_rotation_carries_a_record_past_the_end_of_its_owner(
        self, store: Store, clock: FakeClock
    ) -> None:
        owners = by_owner(store)
        for turn in range(10):
            keys = [key_of(1000 * turn + number) for number in range(200)]
            create(store, clock, key=keys[0], owner=b"ann")
            self._race_rotations_and_end_of_all(store, owners, keys)

    def _race_rotations_and_end_of_all(
        self, store: Store, owners: ByOwner, keys: list[str]
    ) -> None:
        moved: list[str] = []

        def rotate() -> None:
            try:
                for old, new in itertools.pairwise(keys):
                    store.rotate(old, new, Delta(), b"", TTL, trail=[None, TRAIL][len(moved) % 2])
                    moved.append(new)
            except SessionGone:
                return

        def end() -> None:
            wait_until(lambda: len(moved) >= 2)
            owners.end_owned(b"ann")
            assert owners.owned(b"ann") == []

        together(rotate, end)
        assert not any(isinstance(store.load(key), Record) for key in keys)

    def test_keys_lists_the_living_only(self, store: Store, clock: FakeClock) -> None:
        if not isinstance(store, Listable):
            pytest.skip("the store is not Listable")
        for number in range(5):
            create(store, clock, key=key_of(number), ttl=TTL if number % 2 else SHORT)
        store.destroy(key_of(3))
        assert sorted(store.keys()) == [key_of(n) for n in (0, 1, 2, 4)]
        clock.advance(SHORT)
        assert list(store.keys()) == [key_of(1)]

    def test_keys_can_be_read_while_others_write(self, store: Store, clock: FakeClock) -> None:
        if not isinstance(store, Listable):
            pytest.skip("the store is not Listable")
        for number in range(50):
            create(store, clock, key=key_of(number))
        seen = []
        for turn, key in enumerate(store.keys()):
            seen.append(key)
            store.destroy(key)
            create(store, clock, key=key_of(10_000 + turn))
            if turn > 500:
                break
        assert {key_of(number) for number in range(50)} <= set(seen)
        assert len(seen) == len(set(seen))

    # -- closing

    def test_a_closed_store_opens_again_when_it_is_used(
        self, store: Store, clock: FakeClock
    ) -> None:
        store.close()
        create(store, clock, {"a": b"1"})
        store.close()
        store.close()
        assert isinstance(store.load(KEY), (Record, Missing))
        create(store, clock, {"b": b"2"}, key=OTHER)
        assert fields(store, OTHER) == {"b": b"2"}

    def test_closing_does_not_disturb_those_who_use_it(
        self, store: Store, clock: FakeClock
    ) -> None:
        def use(number: int) -> None:
            for turn in range(40):
                create(store, clock, {"a": b"1"}, key=key_of(100 * number + turn))

        together(*(partial(use, n) for n in range(4)), meanwhile=[store.close])

    # -- everything

    def test_any_sequence_of_calls_does_what_a_dict_would(
        self, store: Store, clock: FakeClock
    ) -> None:
        run_state_machine_as_test(
            type("StoreMachine", (_StoreMachine,), {"store": store, "clock": clock}),
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


def create(
    store: Store,
    clock: FakeClock,
    fields: dict[str, bytes] | None = None,
    *,
    key: str = KEY,
    seal: bytes = b"",
    ttl: float = TTL,
    owner: bytes | None = None,
    instead_of: Record | Missing | None = None,
) -> None:
    given = {"a": b"1"} if fields is None else fields
    store.create(key, Record(given, clock.now, 0.0, 0.0, 0, seal), ttl, owner, instead_of)


def by_owner(store: Store) -> ByOwner:
    if not isinstance(store, ByOwner):
        pytest.skip("the store is not ByOwner")
    return store


def load(store: Store, key: str = KEY) -> Record:
    record = store.load(key)
    assert isinstance(record, Record), record
    return record


def fields(store: Store, key: str = KEY) -> dict[str, bytes]:
    return dict(load(store, key).fields)


class _StoreMachine(RuleBasedStateMachine):
    """Any calls in any order, on a few keys, against a dict."""

    names = st.sampled_from(["a", "b", "c"])
    mappings = st.dictionaries(names, st.binary(max_size=4), max_size=3)
    deltas = st.builds(Delta, mappings, st.sets(names), st.booleans())
    numbers = st.integers(0, 3)
    ttls = st.sampled_from([SHORT, 2 * SHORT, 10 * SHORT, math.inf])
    finite_ttls = st.sampled_from([SHORT, 2 * SHORT])
    seals = st.binary(max_size=4)
    persons = st.sampled_from([None, 0, 1])
    trails_left = st.none() | st.builds(Trail, st.binary(min_size=1, max_size=4), finite_ttls)

    #: Every run has keys of its own, so one store serves all runs.
    runs = 0

    store: Store
    clock: FakeClock

    def __init__(self) -> None:
        super().__init__()
        run = _StoreMachine.runs = _StoreMachine.runs + 1
        self.keys = [key_of((run << 32) + number) for number in range(4)]
        self.model: dict[str, Record] = {}
        #: By old key: the ticket, and when it ends.
        self.trails: dict[str, tuple[bytes, float]] = {}
        self.owners: dict[str, bytes] = {}
        self.people = [b"ann %d" % run, b"bob %d" % run]

    def teardown(self) -> None:
        for key in self.keys:
            self.store.destroy(key)

    def alive(self, key: str) -> bool:
        return key in self.model and self.model[key].expires > self.clock.now

    def is_trail(self, key: str) -> bool:
        return key in self.trails and self.trails[key][1] > self.clock.now

    def check(self, key: str) -> None:
        found, expected = self.store.load(key), self.model.get(key)
        if self.is_trail(key):
            assert found == Moved(self.trails[key][0])
        elif key in self.trails:
            assert isinstance(found, Missing)
        elif expected is None:
            assert found is Missing.UNKNOWN
        elif not self.alive(key):
            assert found in (Missing.EXPIRED, Missing.UNKNOWN)
        else:
            assert isinstance(found, Record)
            assert found._replace(fields=dict(found.fields), version=0) == expected

    def renewed(self, record: Record, ttl: float) -> Record:
        return record._replace(accessed=self.clock.now, expires=self.clock.now + ttl)

    def own(self, key: str, person: int | None) -> bytes | None:
        """Remember the owner of a record that begins."""
        self.owners.pop(key, None)
        if person is None:
            return None
        self.owners[key] = self.people[person]
        return self.people[person]

    @rule(number=numbers, fields=mappings, seal=seals, ttl=ttls, person=persons)
    def create(
        self, number: int, fields: dict[str, bytes], seal: bytes, ttl: float, person: int | None
    ) -> None:
        key = self.keys[number]
        record = Record(fields, self.clock.now, 0.0, 0.0, 0, seal)
        if self.alive(key) or self.is_trail(key):
            with pytest.raises(KeyTaken):
                self.store.create(key, record, ttl)
        else:
            self.store.create(key, record, ttl, self.own(key, person))
            self.model[key] = self.renewed(record, ttl)
            self.trails.pop(key, None)
        self.check(key)

    @rule(number=numbers, fields=mappings, seal=seals, ttl=ttls, person=persons, late=st.booleans())
    def take_the_place(
        self,
        number: int,
        fields: dict[str, bytes],
        seal: bytes,
        ttl: float,
        person: int | None,
        late: bool,
    ) -> None:
        key = self.keys[number]
        if not self.alive(key):
            return
        seen = load(self.store, key)
        if late:
            self.save(number, Delta({"a": b"first"}), ttl)
        record = Record(fields, self.clock.now, 0.0, 0.0, 0, seal)
        if late:
            with pytest.raises(VersionChanged):
                self.store.create(key, record, ttl, instead_of=seen)
        else:
            self.store.create(key, record, ttl, self.own(key, person), seen)
            self.model[key] = self.renewed(record, ttl)
            assert load(self.store, key).version != seen.version
        self.check(key)

    @rule(number=numbers)
    def destroy_if_expired(self, number: int) -> None:
        key = self.keys[number]
        self.store.destroy(key, expired=True)
        if key in self.model and not self.alive(key):
            self.forget(key)
        self.check(key)

    @rule(number=numbers, delta=deltas, ttl=ttls)
    def save(self, number: int, delta: Delta, ttl: float) -> None:
        key = self.keys[number]
        if self.alive(key):
            before = load(self.store, key).version
            self.store.save(key, delta, ttl)
            assert load(self.store, key).version != before
            there = self.model[key]
            self.model[key] = self.renewed(there._replace(fields=merge(there.fields, delta)), ttl)
        else:
            with pytest.raises(SessionGone):
                self.store.save(key, delta, ttl)
        self.check(key)

    @rule(number=numbers, delta=deltas, ttl=ttls, late=st.booleans())
    def save_expecting(self, number: int, delta: Delta, ttl: float, late: bool) -> None:
        key = self.keys[number]
        if not self.alive(key):
            with pytest.raises(SessionGone):
                self.store.save(key, delta, ttl, expect=1)
        else:
            seen = load(self.store, key).version
            if late:
                self.save(number, Delta({"a": b"first"}), ttl)
                with pytest.raises(VersionChanged):
                    self.store.save(key, delta, ttl, expect=seen)
            else:
                self.store.save(key, delta, ttl, expect=seen)
                there = self.model[key]
                self.model[key] = self.renewed(
                    there._replace(fields=merge(there.fields, delta)), ttl
                )
        self.check(key)

    @rule(number=numbers, ttl=ttls)
    def touch(self, number: int, ttl: float) -> None:
        key = self.keys[number]
        if self.alive(key):
            self.store.touch(key, ttl)
            self.model[key] = self.renewed(self.model[key], ttl)
        else:
            with pytest.raises(SessionGone):
                self.store.touch(key, ttl)
        self.check(key)

    @rule(
        old=numbers,
        step=st.integers(1, 3),
        delta=deltas,
        seal=seals,
        ttl=ttls,
        person=persons,
        trail=trails_left,
    )
    def rotate(
        self,
        old: int,
        step: int,
        delta: Delta,
        seal: bytes,
        ttl: float,
        person: int | None,
        trail: Trail | None,
    ) -> None:
        here, there = self.keys[old], self.keys[(old + step) % 4]
        if (there in self.model and not self.alive(there)) or there in self.trails:
            return  # a fresh id is never one that has been: whatever happens is right
        owner = None if person is None else self.people[person]
        if not self.alive(here):
            with pytest.raises(SessionGone):
                self.store.rotate(here, there, delta, seal, ttl, owner, trail)
        elif there in self.model:
            with pytest.raises(KeyTaken):
                self.store.rotate(here, there, delta, seal, ttl, owner, trail)
        else:
            self.store.rotate(here, there, delta, seal, ttl, owner, trail)
            record = self.model.pop(here)
            moved = record._replace(fields=merge(record.fields, delta), seal=seal)
            before = self.owners.pop(here, None)
            if owner is not None:
                moved = moved._replace(created=self.clock.now)
            if owner or before:
                self.owners[there] = owner or before or b""
            self.model[there] = self.renewed(moved, ttl)
            if trail is not None:
                self.trails[here] = trail.ticket, self.clock.now + trail.ttl
        self.check(here)
        self.check(there)

    @rule(number=numbers)
    def destroy(self, number: int) -> None:
        key = self.keys[number]
        there = Moved(self.trails[key][0]) if self.is_trail(key) else None
        assert self.store.destroy(key) == there
        self.forget(key)
        self.check(key)

    def forget(self, key: str) -> None:
        for known in (self.model, self.trails, self.owners):
            known.pop(key, None)

    @precondition(lambda self: isinstance(self.store, ByOwner))
    @rule(person=st.sampled_from([0, 1]), but=st.none() | numbers)
    def end_owned(self, person: int, but: int | None) -> None:
        assert isinstance(self.store, ByOwner)
        owner, kept = self.people[person], None if but is None else self.keys[but]
        living = [k for k in self.keys if self.alive(k) and self.owners.get(k) == owner]
        assert sorted(self.store.owned(owner)) == sorted(living)
        ended = [key for key in living if key != kept]
        assert self.store.end_owned(owner, kept) == len(ended)
        for key in ended:
            self.forget(key)
        for key in self.keys:
            self.check(key)

    @rule(seconds=st.sampled_from([0.5, SHORT / 2, SHORT, 5 * SHORT]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for key in self.keys:
            self.check(key)

    @precondition(lambda self: isinstance(self.store, Purgeable))
    @rule(limit=st.integers(1, 3))
    def purge(self, limit: int) -> None:
        assert isinstance(self.store, Purgeable)
        assert 0 <= self.store.purge(limit) <= limit
        for key in self.keys:
            self.check(key)

    @precondition(lambda self: isinstance(self.store, Listable))
    @rule()
    def list_keys(self) -> None:
        assert isinstance(self.store, Listable)
        listed = set(self.store.keys()) & set(self.keys)
        assert sorted(listed) == sorted(filter(self.alive, self.keys))
