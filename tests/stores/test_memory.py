"""The memory store: the suite, the cap, forks."""

import threading

import pytest
from helpers import serve
from lengths import FLOOD

from nocookie import SessionMiddleware, session
from nocookie.stores.base import Delta, KeyTaken, Missing, Record, Trail
from nocookie.stores.memory import MemoryStore
from nocookie.testing import StoreSuite


def key(number):
    return f"{number:064x}"


def record(clock, **fields):
    return Record(fields, clock.now, 0.0, 0.0, 0)


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    def store(self, clock):
        store = MemoryStore(clock=clock)
        yield store
        store.close()


@pytest.fixture
def store(clock):
    return MemoryStore(max_sessions=3, clock=clock)


def test_an_expired_record_is_told_from_an_unknown_one(store, clock):
    store.create(key(1), record(clock), 60)
    clock.advance(60)
    assert store.load(key(1)) is Missing.EXPIRED
    assert store.load(key(2)) is Missing.UNKNOWN


def test_past_the_cap_the_longest_idle_makes_room(store, clock):
    for number in (1, 2, 3):
        store.create(key(number), record(clock), 600)
        clock.advance(1)
    store.touch(key(1), 600)
    store.save(key(2), Delta({"a": b"1"}), 600)
    store.create(key(4), record(clock), 600)
    assert [n for n in (1, 2, 3, 4) if store.load(key(n)) is not Missing.UNKNOWN] == [1, 2, 4]
    store.create(key(5), record(clock), 600)
    assert [n for n in (1, 2, 4, 5) if store.load(key(n)) is not Missing.UNKNOWN] == [2, 4, 5]


def there(store, *numbers):
    return [n for n in numbers if store.load(key(n)) is not Missing.UNKNOWN]


def test_of_those_without_an_owner_the_longest_idle_makes_room(store, clock):
    store.create(key(1), record(clock), 600, b"ann")
    store.create(key(2), record(clock), 600)
    store.create(key(3), record(clock), 600)
    store.touch(key(2), 600)
    store.create(key(4), record(clock), 600)
    assert there(store, 1, 2, 3, 4) == [1, 2, 4]
    store.save(key(2), Delta({"a": b"1"}), 600)
    store.create(key(5), record(clock), 600)
    assert there(store, 1, 2, 4, 5) == [1, 2, 5]


def test_where_all_have_an_owner_the_longest_idle_makes_room(store, clock):
    for number in (1, 2, 3):
        store.create(key(number), record(clock), 600, b"ann")
    store.touch(key(1), 600)
    store.create(key(4), record(clock), 600)
    store.create(key(5), record(clock), 600)
    store.create(key(6), record(clock), 600)
    assert there(store, 1, 2, 3, 4, 5, 6) == [1, 3, 6], "who comes next pushes out a stranger"


def test_who_logs_in_is_no_stranger_any_more_and_who_is_ended_counts_no_more(store, clock):
    store.create(key(1), record(clock), 600)
    store.rotate(key(1), key(2), Delta(), b"", 600, b"ann")
    store.create(key(3), record(clock), 600)
    store.rotate(key(2), key(4), Delta(), b"", 600)
    for number in range(10, 20):
        store.create(key(number), record(clock), 600)
    assert there(store, 2, 3, 4) == [4]
    store.destroy(key(4))
    store.create(key(4), record(clock), 600)
    for number in range(20, 30):
        store.create(key(number), record(clock), 600)
    assert there(store, 4) == []


def test_a_trail_counts_in_the_cap_and_that_of_an_owner_is_kept(store, clock):
    trail = Trail(b"ticket", 60)
    store.create(key(1), record(clock), 600, b"ann")
    store.rotate(key(1), key(2), Delta(), b"", 600, trail=trail)
    store.create(key(3), record(clock), 600)
    for number in range(4, 10):
        store.rotate(key(number - 1), key(number), Delta(), b"", 600, trail=trail)
    assert there(store, *range(1, 10)) == [1, 2, 9]


def test_200_000_sessions_of_clients_that_never_return_end_none_that_has_an_owner(clock):
    """As many where the full length is run."""

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/login":
            session.login("ann")
        session["basket"] = []
        session.save()
        start_response("200 OK", [])
        return [b""]

    store = MemoryStore(max_sessions=2000, clock=clock)
    app = SessionMiddleware(application, use_cookies=False, type=store, clock=clock)
    ids = [serve(app, path="/login").id for _ in range(1000)]
    for _ in range(FLOOD):
        assert serve(app).id
    assert len(list(store.keys())) == 2000
    store_key = app.manager.backend.ids.key
    assert [id for id in ids if not isinstance(store.load(store_key(id)), Record)] == []


def test_the_cap_holds(store, clock):
    for number in range(100):
        store.create(key(number), record(clock), 600)
        assert len(list(store.keys())) <= 3
    assert sorted(store.keys()) == [key(97), key(98), key(99)]


def test_an_expired_record_makes_room_before_a_living_one(store, clock):
    store.create(key(1), record(clock), 60)
    store.create(key(2), record(clock), 600)
    store.create(key(3), record(clock), 600)
    clock.advance(60)
    store.create(key(4), record(clock), 600)
    assert sorted(store.keys()) == [key(2), key(3), key(4)]


def test_replacing_an_expired_record_at_the_cap_evicts_nobody(store, clock):
    store.create(key(2), record(clock), 600)
    store.create(key(3), record(clock), 600)
    store.create(key(1), record(clock), 60)
    clock.advance(60)
    store.create(key(1), record(clock), 600)
    assert sorted(store.keys()) == [key(1), key(2), key(3)]


def test_a_create_that_is_refused_evicts_nobody(store, clock):
    for number in (1, 2, 3):
        store.create(key(number), record(clock), 600)
    with pytest.raises(KeyTaken):
        store.create(key(3), record(clock), 600)
    assert sorted(store.keys()) == [key(1), key(2), key(3)]


def test_what_is_expired_does_not_pile_up(clock):
    store = MemoryStore(clock=clock)
    for number in range(1000):
        store.create(key(number), record(clock), 60)
        clock.advance(1)
    assert store.purge(10_000) <= 60


def test_what_is_expired_does_not_pile_up_behind_what_lives_for_longer(clock):
    store = MemoryStore(clock=clock)
    store.create(key(0), record(clock), 1e9, b"ann")
    for number in range(1, 3000):
        store.create(key(number), record(clock), 60, b"bob")
        clock.advance(1)
    assert store.purge(10_000) <= 180
    assert isinstance(store.load(key(0)), Record)


def test_a_fork_while_another_thread_holds_the_lock_leaves_the_child_able_to_work(clock, fork):
    store = MemoryStore(clock=clock)
    store.create(key(1), record(clock, a=b"1"), 600)
    held, release = threading.Event(), threading.Event()

    def hold():
        with store._lock.here():
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)

    def use():
        store.save(key(1), Delta({"b": b"2"}), 600)
        store.create(key(2), record(clock), 600)
        assert dict(store.load(key(1)).fields) == {"a": b"1", "b": b"2"}

    status = fork(use).wait()
    release.set()
    holder.join(60)
    assert status == 0
    assert dict(store.load(key(1)).fields) == {"a": b"1"}, "the child's session is its own"


def test_another_process_sees_nothing(python):
    """Which is what `shared` says, so that the middleware can warn."""
    code = (
        "from nocookie import Session\n"
        "import sys\n"
        "session = Session({}, id=sys.argv[1] or None, type='memory')\n"
        "print(session.is_new)\n"
        "session['a'] = 1\n"
        "session.save()\n"
        "print(session.id)\n"
    )

    def run(id):
        out, _ = python(code, id).communicate(timeout=60)
        return out.split()

    _, id = run("")
    is_new, other = run(id)
    assert is_new == "True"
    assert other != id
    assert MemoryStore.shared is False
