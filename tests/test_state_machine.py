"""Two sessions on one record, and anything they may do to it, against a model.

The model says what a session promises: deltas are merged key by key, the last writer of a key
wins, `clear` takes the keys of others along, an ended record stays ended, and a session goes on
seeing what it loaded until it loads again.
"""

import copy
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from lengths import FUZZ

from nocookie import Session, SessionGone, ValueRefused
from nocookie.stores.file import FileStore
from nocookie.stores.memory import MemoryStore
from nocookie.testing import FakeClock

TIMEOUT = 1000.0
#: A touch is due after a twentieth of the timeout.
TOUCH_AFTER = TIMEOUT / 20

NAMES = ("a", "b", "n")
names = st.sampled_from(NAMES)
numbers = st.integers(0, 3)
values = st.one_of(numbers, st.lists(numbers, max_size=2))
handles = st.sampled_from(["one", "other"])


@dataclass
class Stored:
    """A record that lives."""

    fields: dict
    accessed: float


@dataclass
class View:
    """What one session has: as it loaded it, and what was done to it since."""

    session: Session
    #: The id that it loads by, and the id of its record.
    presented: str | None = None
    id: str | None = None
    loaded: dict = field(default_factory=dict)
    #: Of what was loaded, what is left; and what the application sees.
    fields: dict = field(default_factory=dict)
    seen: dict = field(default_factory=dict)
    assigned: set = field(default_factory=set)
    deleted: set = field(default_factory=set)
    cleared: bool = False
    touch_due: bool = False
    #: A new id was asked for and could not be had.
    moving: bool = False

    def begin(self, fields):
        self.fields, self.seen = dict(fields), copy.deepcopy(fields)
        self.assigned, self.deleted, self.cleared = set(), set(), False

    def detach(self):
        self.id, self.loaded = None, {}
        self.touch_due = self.moving = False
        self.begin({})

    def changes(self):
        return {
            name: copy.deepcopy(value)
            for name, value in self.seen.items()
            if name in self.assigned or value != self.fields[name]
        }

    def settle(self, changes):
        self.loaded = merged(self.loaded, changes, self.deleted, self.cleared)
        self.fields = dict(self.loaded)
        self.assigned, self.deleted, self.cleared = set(), set(), False
        self.touch_due = False


def merged(fields, changes, deleted, cleared):
    kept = {} if cleared else {name: v for name, v in fields.items() if name not in deleted}
    return copy.deepcopy({**kept, **changes})


class TwoSessions(RuleBasedStateMachine):
    store = None
    clock: FakeClock
    options: dict

    @initialize(fields=st.dictionaries(names, values, max_size=3))
    def start(self, fields):
        self.living: dict[str, Stored] = {}
        self.ended: set[str] = set()
        first = self.open(None)
        self.views = {"one": View(first)}
        self.views["one"].detach()
        for name, value in {**fields, "n": 0}.items():
            self.assign("one", name, value)
        self.save("one")
        self.views["other"] = View(self.open(first.id), presented=first.id)
        self.load_model(self.views["other"])

    def open(self, id):
        return Session(
            {},
            id=id,
            type=self.store,
            clock=self.clock,
            timeout=TIMEOUT,
            # Handles here live as long as the model: what comes within the limit is in
            # stores/test_long_requests.py.
            request_limit=1e-9,
            lifetime=None,
            **self.options,
        )

    def teardown(self):
        for id in getattr(self, "living", ()):
            self.open(id).delete()

    # -- the mapping

    @rule(handle=handles, name=names, value=values)
    def assign(self, handle, name, value):
        if name == "n" and type(value) is not int:
            value = len(value)
        view = self.views[handle]
        view.session[name] = copy.deepcopy(value)
        view.seen[name] = copy.deepcopy(value)
        view.assigned.add(name)
        view.deleted.discard(name)

    @rule(handle=handles, name=names)
    def delete_key(self, handle, name):
        view = self.views[handle]
        if name not in view.seen:
            with pytest.raises(KeyError):
                del view.session[name]
            return
        del view.session[name]
        del view.seen[name]
        view.assigned.discard(name)
        view.fields.pop(name, None)
        if name in view.loaded:
            view.deleted.add(name)

    @rule(handle=handles, name=names)
    def save_what_cannot_be_saved(self, handle, name):
        view = self.views[handle]
        view.session[name] = object()
        with pytest.raises(ValueRefused):
            view.session.save()
        if name in view.seen:
            view.session[name] = copy.deepcopy(view.seen[name])
            view.assigned.add(name)
            view.deleted.discard(name)
            return
        del view.session[name]
        view.fields.pop(name, None)
        if name in view.loaded:
            view.deleted.add(name)

    @rule(handle=handles)
    def clear(self, handle):
        view = self.views[handle]
        view.session.clear()
        view.begin({})
        view.cleared = True

    @rule(handle=handles, name=names, number=numbers)
    def change_in_place(self, handle, name, number):
        view = self.views[handle]
        assume(type(view.seen.get(name)) is list)
        view.session[name].append(number)
        view.seen[name].append(number)

    @rule(handle=handles)
    def revert(self, handle):
        view = self.views[handle]
        view.session.revert()
        view.begin(view.loaded)

    # -- the record

    @rule(handle=handles)
    def save(self, handle):
        view = self.views[handle]
        changes = view.changes()
        if view.id is None:
            view.session.save()
            if changes:
                self.created(view, changes)
            return
        record = self.living.get(view.id)
        if not (changes or view.deleted or view.cleared or view.moving):
            view.session.save()
            if view.touch_due and record is not None:
                record.accessed = self.clock.now
            view.touch_due = False
            return
        if record is None:
            with pytest.raises(SessionGone):
                view.session.save()
            return
        view.session.save()
        record.fields = merged(record.fields, changes, view.deleted, view.cleared)
        record.accessed = self.clock.now
        view.settle(changes)

    def created(self, view, changes):
        view.id = view.session.id
        assert view.id not in self.ended, "an ended id is not used again"
        assert view.id not in self.living
        self.living[view.id] = Stored(changes, self.clock.now)
        view.settle(changes)

    @rule(handle=handles)
    def rotate(self, handle):
        view = self.views[handle]
        old, changes = view.id, view.changes()
        view.session.regenerate_id()
        if old is None:
            view.session.save()
            if changes:
                self.created(view, changes)
            return
        record = self.living.pop(old, None)
        if record is None:
            view.moving = True
            with pytest.raises(SessionGone):
                view.session.save()
            return
        view.session.save()
        view.id, view.moving = view.session.id, False
        assert view.id != old
        assert view.id not in self.ended
        self.ended.add(old)
        record.fields = merged(record.fields, changes, view.deleted, view.cleared)
        record.accessed = self.clock.now
        self.living[view.id] = record
        view.settle(changes)

    @rule(handle=handles)
    def load(self, handle):
        view = self.views[handle]
        if view.id is not None:
            view.presented = view.id
        view.session.load()
        self.load_model(view)

    @rule(handle=handles)
    def end(self, handle):
        view = self.views[handle]
        view.session.delete()
        if view.id is not None:
            self.living.pop(view.id, None)
            self.ended.add(view.id)
        view.detach()
        assert view.session.reason == "destroyed"

    @rule(handle=handles, data=st.data())
    def next_request(self, handle, data):
        """Present any id that there is or was."""
        id = data.draw(st.sampled_from([*sorted(self.living), *sorted(self.ended), None]))
        view = self.views[handle] = View(self.open(id), presented=id)
        self.load_model(view)

    def load_model(self, view):
        record = self.living.get(view.presented)
        if record is None:
            view.detach()
            assert dict(view.session) == {}
            return
        view.id = view.presented
        view.loaded = copy.deepcopy(record.fields)
        view.begin(view.loaded)
        view.moving = False
        view.touch_due = self.clock.now - record.accessed > TOUCH_AFTER
        assert view.session.id == view.id

    # -- compare and set

    @rule(handle=handles)
    def incr(self, handle):
        self.mutated(handle, "n", lambda stored: stored.get("n", 0) + 1, "incr")

    @rule(handle=handles, name=names, value=numbers)
    def mutate(self, handle, name, value):
        view = self.views[handle]
        # A case of its own: see below.
        assume(name not in view.assigned or view.loaded.get(name) != value)
        self.mutated(handle, name, lambda stored: value, "mutate")

    def mutated(self, handle, name, new, how):
        view = self.views[handle]

        def change(stored):
            stored[name] = new(stored)
            return stored[name]

        def call():
            return view.session.incr("n") if how == "incr" else view.session.mutate(change)

        if view.id is None:
            expected = new(view.seen)
            assert call() == expected
            view.seen[name] = expected
            view.assigned.add(name)
            view.deleted.discard(name)
            return
        record = self.living.get(view.id)
        if record is None:
            with pytest.raises(SessionGone):
                call()
            return
        before, expected = view.loaded, new(record.fields)
        # What was changed in place is a change of this session too, whatever others did meanwhile.
        pending = view.assigned | view.changes().keys()
        assume(name not in pending or before.get(name) != expected)
        assert call() == expected
        view.assigned = pending
        record.fields = {**record.fields, name: expected}
        record.accessed = self.clock.now
        view.loaded = copy.deepcopy(record.fields)
        view.assigned.discard(name)
        view.deleted.discard(name)
        view.touch_due = False
        mine = {
            other: value
            for other, value in view.seen.items()
            if other in view.assigned
            or (other in view.fields and before.get(other) == view.loaded.get(other))
        }
        view.fields = {}
        if not view.cleared:
            view.fields = {k: v for k, v in view.loaded.items() if k not in view.deleted}
        mine = {k: v for k, v in mine.items() if k in view.assigned or k in view.fields}
        view.seen = copy.deepcopy({**view.fields, **mine})

    # -- time

    @rule(seconds=st.sampled_from([10.0, TOUCH_AFTER + 1, TIMEOUT / 2, TIMEOUT]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)
        for id, record in list(self.living.items()):
            if record.accessed + TIMEOUT <= self.clock.now:
                del self.living[id]
                self.ended.add(id)

    # -- what must hold at any time

    @invariant()
    def each_session_sees_its_own(self):
        for view in getattr(self, "views", {}).values():
            assert dict(view.session) == view.seen
            assert len(view.session) == len(view.seen)
            assert all((name in view.session) == (name in view.seen) for name in NAMES)
            if view.id is not None and not view.moving:
                assert view.session.id == view.id

    @invariant()
    def the_store_has_what_was_saved(self):
        for id, record in getattr(self, "living", {}).items():
            found = self.open(id)
            assert not found.is_new
            assert dict(found) == record.fields

    @invariant()
    def what_has_ended_stays_ended(self):
        for id in getattr(self, "ended", ()):
            found = self.open(id)
            assert found.is_new
            assert found.reason in ("unknown", "expired")
            assert found.id != id


@pytest.fixture(params=["memory", "file"])
def store(request, clock, tmp_path):
    store = (
        MemoryStore(clock=clock)
        if request.param == "memory"
        else FileStore(data_dir=tmp_path, clock=clock)
    )
    yield store
    store.close()


@pytest.mark.parametrize("options", [{}, {"secret": "a secret"}], ids=["plain", "secret"])
def test_two_sessions_on_one_record_do_what_the_model_does(store, clock, options):
    run_state_machine_as_test(
        type("Two", (TwoSessions,), {"store": store, "clock": clock, "options": options}),
        settings=settings(
            max_examples=60 * FUZZ,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def session(store, clock):
    session = Session({}, type=store, clock=clock)
    session["a"] = 1
    session.save()
    return session


def test_a_session_takes_a_store_object_and_its_own_clock(store, clock, session):
    assert session._backend.store is store
    assert session.created == clock.now
    clock.advance(1800)
    assert Session({}, id=session.id, type=store, clock=clock).reason == "expired"


def test_mutate_replaces_a_pending_value_also_by_what_was_loaded(store, clock, session):
    session["a"] = 5
    session.mutate(lambda stored: stored.update(a=1))
    session.save()
    assert session["a"] == Session({}, id=session.id, type=store, clock=clock)["a"]


@pytest.mark.parametrize("end", ["clear", "pop"])
def test_mutate_keeps_what_was_changed_in_place_though_another_removed_it(store, clock, end):
    session = Session({}, type=store, clock=clock)
    session["a"] = []
    session.save()
    other = Session({}, id=session.id, type=store, clock=clock)
    other["a"].append(0)
    session.clear() if end == "clear" else session.pop("a")
    session["b"] = 1
    session.save()
    assert other.incr("n") == 1
    assert dict(other) == {"a": [0], "b": 1, "n": 1}
    other.save()
    assert dict(Session({}, id=session.id, type=store, clock=clock)) == dict(other)


def test_load_between_a_rotation_and_its_save_keeps_id_and_record_together(store, clock, session):
    session.regenerate_id()
    session.load()
    session["b"] = 2
    session.save()
    assert dict(Session({}, id=session.id, type=store, clock=clock)) == {"a": 1, "b": 2}


def test_a_dead_sessions_save_revives_nothing(store, clock, session):
    other = Session({}, id=session.id, type=store, clock=clock)
    assert other["a"] == 1
    session.delete()
    other["a"] = 2
    for _ in range(2):
        with pytest.raises(SessionGone):
            other.save()
    assert Session({}, id=other.id, type=store, clock=clock).reason == "unknown"
