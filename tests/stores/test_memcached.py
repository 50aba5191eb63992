"""The memcached store: the suite, what memcached does by itself, what breaks, many at once."""

import itertools
import math
import signal
import socket
import threading
import time
import traceback

import pytest
from helpers import serve
from realservers import free_port, wait_until
from realservers.memcached import Memcached
from realservers.relay import Relay

from nocookie import ConfigError, Session, SessionMiddleware, StoreError, StoreTimeout
from nocookie.errors import SessionGone
from nocookie.stores import close_all, open_store
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Missing,
    Moved,
    Record,
    Trail,
    VersionChanged,
)
from nocookie.stores.memcached import GRACE, MemcachedStore, _item
from nocookie.stores.memcached_servers import addresses
from nocookie.stores.memcached_wire import Connection
from nocookie.testing import StoreSuite

pytestmark = pytest.mark.server

#: Seconds. Long enough for a busy machine to be late, short enough to wait for.
DEADLINE = 0.5
LATE = 5.0

#: An id that may have been issued.
UNKNOWN = "A" * 43


def key(number):
    return f"{number:064x}"


def record(**fields):
    return Record(fields, time.time(), 0.0, 0.0, 0)


def fields(store, number=1):
    found = store.load(key(number))
    assert isinstance(found, Record), found
    return dict(found.fields)


def is_alive(store, number):
    return isinstance(store.load(key(number)), Record)


#: Every call, on the record under `key(1)`; the ones that write carry a delta.
CALLS = {
    "load": lambda store: store.load(key(1)),
    "create": lambda store: store.create(key(1), record(), 60),
    "save": lambda store: store.save(key(1), Delta({"b": b"2"}), 60),
    "touch": lambda store: store.touch(key(1), 60),
    "rotate": lambda store: store.rotate(key(1), key(2), Delta(), b"", 60),
    "destroy": lambda store: store.destroy(key(1)),
}


def fails(call, error=StoreError):
    """Have *call* fail with an error that says nothing of the data; return what it says."""
    with pytest.raises(error) as caught:
        call()
    said = "".join(traceback.format_exception(caught.value))
    assert key(1) not in said and key(2) not in said and "127.0.0.1" not in str(caught.value)
    return str(caught.value)


class TestMemcachedStore(StoreSuite):
    @pytest.fixture
    def store(self, clock, memcached):
        store = MemcachedStore(url=memcached.url, clock=clock)
        yield store
        store.close()


class TestMemcachedStoreOnThreeServers(StoreSuite):
    """And with a pool that is smaller than the number of threads."""

    @pytest.fixture
    def store(self, clock, memcached_servers):
        url = ";".join(server.url for server in memcached_servers)
        store = MemcachedStore(url=url, clock=clock, pool_size=2, deadline=30)
        yield store
        store.close()


TRAIL = Trail(b"a ticket", 30)


@pytest.fixture
def open_one():
    """`open_one(url, **options)`: a store that is closed at the end."""
    opened = []

    def open_one(url, **options):
        store = MemcachedStore(url=url, **options)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_one, memcached):
    return open_one(memcached.url)


@pytest.fixture
def relay(memcached):
    with Relay("127.0.0.1", memcached.port) as relay:
        yield relay


@pytest.fixture
def through(open_one, relay):
    """A store that reaches its server through the relay."""
    return open_one(f"127.0.0.1:{relay.port}", deadline=LATE)


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1",
        "cache.example.org:11211",
        "a:1;b:2;c_d:65535",
        " a:1 ; b:2 ",
        "[::1]:11211",
        "[::1]",
        "unix:/run/memcached.sock",
        "unix:/run/a b;c:1",
    ],
)
def test_a_store_does_nothing_before_it_is_used(open_one, url):
    open_one(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        ";",
        "a:1;",
        "a:0",
        "a:65536",
        "a:port",
        "a:1:2",
        "::1",
        "[::1",
        "a b:1",
        "a:1,b:1",
        "unix:",
        "unix:relative",
        "redis://:hunter2@a:1",
        "memcached://a:1",
    ],
)
def test_a_wrong_url_is_a_config_error_that_does_not_show_it(url):
    with pytest.raises(ConfigError, match="host:port") as caught:
        MemcachedStore(url=url)
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_named_twice_counts_once():
    """A configuration of Beaker's in the wild names one three times."""
    assert addresses("a:11211;b:1;a; A ") == [("a", 11211), ("b", 1)]


@pytest.mark.parametrize("prefix", ["two words:", "tab\t", "new\nline", "nul\0", "é", "x" * 187])
def test_a_wrong_prefix_is_a_config_error(prefix):
    with pytest.raises(ConfigError, match="key_prefix"):
        MemcachedStore(url="a:1", key_prefix=prefix)


def test_the_longest_prefix_works_and_another_prefix_is_other_sessions(open_one, memcached):
    one = open_one(memcached.url, key_prefix="x" * 186)
    other = open_one(memcached.url, key_prefix="")
    one.create(key(1), record(a=b"1"), 60)
    assert other.load(key(1)) is Missing.UNKNOWN
    other.create(key(1), record(a=b"2"), 60)
    assert (fields(one), fields(other)) == ({"a": b"1"}, {"a": b"2"})


def test_the_types_name_this_store(memcached):
    try:
        store = open_store("memcached", {"url": memcached.url, "key_prefix": "mine:"})
        assert type(store) is MemcachedStore
        assert open_store("ext:memcached", {"url": memcached.url, "key_prefix": "mine:"}) is store
        with pytest.raises(ConfigError, match="needs url"):
            open_store("memcached", {})
    finally:
        close_all()


def test_a_unix_socket_works(open_one, own_memcached, tmp_path, monkeypatch):
    # It listens there only, so what asks whether it is ready has to look there.
    path = tmp_path / "socket"
    monkeypatch.setattr(Memcached, "answers", lambda server: path.exists())
    own_memcached("-s", str(path))
    store = open_one(f"unix:{path}")
    store.create(key(1), record(a=b"1"), 60)
    store.save(key(1), Delta({"b": b"2"}), 60)
    assert fields(store) == {"a": b"1", "b": b"2"}


def test_a_name_with_several_addresses_leads_to_the_one_that_answers(
    open_one, memcached, monkeypatch
):
    """As `localhost` does, where it is ::1 first and memcached listens on 127.0.0.1."""
    look_up = socket.getaddrinfo
    nobody = free_port()

    def look_up_both(host, port, **options):
        return look_up("127.0.0.1", nobody, **options) + look_up("127.0.0.1", port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_both)
    assert open_one(f"localhost:{memcached.port}").load(key(1)) is Missing.UNKNOWN


# -- trips ---------------------------------------------------------------------------------------


def trips(relay, call):
    before = relay.requests
    call()
    return relay.requests - before


def test_each_call_costs_the_trips_that_are_stated(through, relay):
    store = through
    assert trips(relay, lambda: store.create(key(1), record(a=b"1"), 60)) == 1
    assert trips(relay, lambda: store.load(key(1))) == 1
    assert trips(relay, lambda: store.save(key(1), Delta({"b": b"2"}), 60)) == 1, "after a load"
    assert trips(relay, lambda: store.save(key(1), Delta({"c": b"3"}), 60)) == 2, "without one"
    store.load(key(1))
    assert trips(relay, lambda: store.touch(key(1), 60)) == 1
    assert trips(relay, lambda: store.touch(key(1), 60)) == 2
    store.create(key(3), record(), 60)
    store.load(key(3))
    assert trips(relay, lambda: store.touch(key(1), 60)) == 2, "after a load of another"
    assert trips(relay, lambda: store.rotate(key(1), key(2), Delta(), b"", 60)) == 5
    leave = lambda: store.rotate(key(2), key(4), Delta(), b"", 60, trail=TRAIL)  # noqa: E731
    assert trips(relay, leave) == 4
    assert trips(relay, lambda: store.load(key(2))) == 1, "the trail"
    assert trips(relay, lambda: store.destroy(key(2))) == 2
    store.load(key(4))
    assert trips(relay, lambda: store.destroy(key(4))) == 1, "after a load"
    assert trips(relay, lambda: store.destroy(key(3))) == 2, "without one"
    assert trips(relay, lambda: store.destroy(key(3))) == 1, "of nothing"
    assert trips(relay, lambda: store.load(key(2))) == 1
    assert relay.connections == 1


def test_a_load_that_somebody_came_after_costs_a_save_two_trips_more(through, store, relay):
    store.create(key(1), record(a=b"1"), 60)
    through.load(key(1))
    store.save(key(1), Delta({"b": b"2"}), 60)
    assert trips(relay, lambda: through.save(key(1), Delta({"c": b"3"}), 60)) == 3
    assert fields(store) == {"a": b"1", "b": b"2", "c": b"3"}


def counting(environ, start_response):
    session = environ["nocookie.session"]
    if environ["PATH_INFO"] == "/change":
        session["count"] = session.get("count", 0) + 1
        session.save()
    body = str(session.get("count")).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


@pytest.fixture
def app(through, clock):
    through._clock = clock
    return SessionMiddleware(counting, use_cookies=False, type=through, clock=clock)


def test_a_request_that_reads_is_one_trip_one_that_changes_two(app, relay, clock):
    id = serve(app, path="/change").id
    assert trips(relay, lambda: serve(app, id=id)) == 1
    assert trips(relay, lambda: serve(app, id=id, path="/change")) == 2
    clock.advance(300)
    assert trips(relay, lambda: serve(app, id=id)) == 2, "a touch is due"
    assert trips(relay, lambda: serve(app)) == 0
    assert trips(relay, lambda: serve(app, id=UNKNOWN)) == 1


# -- what was loaded is only a guess -------------------------------------------------------------


def test_what_a_thread_loaded_before_says_nothing_of_what_is_there_now(open_one, memcached, clock):
    """Not that the session is gone, not that its version is another, not that it is alive."""
    mine, store = open_one(memcached.url, clock=clock), open_one(memcached.url, clock=clock)
    store.create(key(1), record(), 60)
    mine.load(key(1))
    store.touch(key(1), 1000)
    clock.advance(60)
    mine.save(key(1), Delta({"a": b"1"}), 1000)  # what it loaded has expired by now

    mine.load(key(1))
    store.save(key(1), Delta({"b": b"2"}), 1000)
    version = store.load(key(1)).version
    mine.save(key(1), Delta({"c": b"3"}), 1000, expect=version)

    mine.load(key(1))
    with pytest.raises(VersionChanged):
        mine.save(key(1), Delta(), 1000, expect=version)

    mine.load(key(1))
    store.destroy(key(1))
    with pytest.raises(SessionGone):
        mine.save(key(1), Delta(), 1000)
    assert mine.load(key(1)) is Missing.UNKNOWN

    store.create(key(1), record()._replace(seal=b"first"), 1000)
    mine.load(key(1))
    store.destroy(key(1))
    store.create(key(1), record(a=b"next")._replace(seal=b"second"), 1000)
    mine.save(key(1), Delta({"b": b"2"}), 1000, seal=b"second")
    assert fields(store) == {"a": b"next", "b": b"2"}


def test_a_token_of_before_a_restart_does_not_count_after_it(open_one, own_memcached):
    """memcached counts its tokens from the start, so another record may have the same."""
    server = own_memcached()
    mine, other = open_one(server.url), open_one(server.url)
    other.create(key(1), record(old=b"1"), 60)
    mine.load(key(1))
    token = mine._last.item.token
    server.restart()
    other.create(key(1), record(new=b"2"), 60)
    other.load(key(1))
    assert other._last.item.token == token
    mine.save(key(1), Delta({"mine": b"3"}), 60)
    assert fields(other) == {"new": b"2", "mine": b"3"}


# -- how long memcached keeps an item --------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl", "left"),
    [
        (0.001, 61),
        (60, 120),
        (30 * 86400 - 60, 30 * 86400),
        (30 * 86400, 30 * 86400 + 60),
        (400 * 86400, 400 * 86400 + 60),
        (100 * 365 * 86400, -1),
        (math.inf, -1),
        (-1000, 60),
    ],
)
def test_memcached_keeps_an_item_a_minute_longer_than_it_counts(store, memcached, ttl, left):
    store.create(key(1), record(), ttl)
    seconds = memcached.seconds_left(f"nocookie:{key(1)}")
    assert seconds == left if left < 0 else abs(seconds - left) <= LATE


# -- what memcached does by itself: large items, evictions, a full memory, restarts ----------------


def test_what_is_too_large_is_refused_and_the_old_record_stays(store):
    large = b"x" * 1_048_576
    assert "larger than an item" in fails(lambda: store.create(key(1), record(a=large), 60))
    assert store.load(key(1)) is Missing.UNKNOWN
    store.create(key(1), record(a=b"1"), 60)
    for after_a_load in (True, False):
        assert fields(store) == {"a": b"1"}
        if not after_a_load:
            store._last.item = None
        said = fails(lambda: store.save(key(1), Delta({"b": large}), 60))
        assert "larger than an item" in said
    said = fails(lambda: store.rotate(key(1), key(2), Delta({"b": large}), b"", 60))
    assert "larger than an item" in said
    assert fields(store) == {"a": b"1"}
    assert store.load(key(2)) is Missing.UNKNOWN
    store.save(key(1), Delta({"b": b"2"}), 60)


def test_a_session_of_the_largest_size_by_default_fits(memcached):
    """`max_size` refuses earlier what memcached would."""
    options = {"type": "memcached", "url": memcached.url}
    try:
        session = Session({}, **options)
        session["a"] = "x" * 999_900
        session.save()
        assert Session({}, id=session.id, **options)["a"] == "x" * 999_900
    finally:
        close_all()


def test_what_is_evicted_is_a_new_session_and_no_error(open_one, own_memcached):
    server = own_memcached("-m", "4")
    store = open_one(server.url)

    def filling(environ, start_response):
        session = environ["nocookie.session"]
        new = session.is_new
        session["large"] = "x" * 20_000
        session.save()
        start_response("200 OK", [])
        return [str(new).encode()]

    app = SessionMiddleware(filling, use_cookies=False, type=store)
    id = serve(app).id
    assert serve(app, id=id).body == b"False"
    for number in range(1000):
        store.create(key(number), record(large=b"x" * 20_000), 60)
    assert int(server.stats()["evictions"]) > 0
    answer = serve(app, id=id)
    assert (answer.status, answer.body) == ("200 OK", b"True")
    assert answer.id not in (None, id)


def test_with_a_full_memory_that_may_not_evict_reads_and_ends_go_on(open_one, own_memcached):
    # Without its moving of memory in the background, which makes room after the fact.
    server = own_memcached("-M", "-m", "4", "-o", "slab_automove=0")
    store = open_one(server.url, deadline=LATE)
    for number in itertools.count(1):
        try:
            store.create(key(number), record(a=b"x" * 50_000), 60)
        except StoreError:
            break
    assert number > 10
    assert "no memory" in fails(lambda: store.create(key(0), record(a=b"x" * 50_000), 60))
    other = Delta({"a": b"y" * 50_000})
    assert "no memory" in fails(lambda: store.save(key(1), other, 60))
    assert "no memory" in fails(lambda: store.rotate(key(1), key(0), Delta(), b"", 60))
    assert fields(store) == {"a": b"x" * 50_000}
    assert store.load(key(0)) is Missing.UNKNOWN
    store.destroy(key(1))
    assert store.load(key(1)) is Missing.UNKNOWN
    assert fields(store, 2) == {"a": b"x" * 50_000}
    store.create(key(1), record(a=b"x" * 50_000), 60)


def test_after_a_restart_ids_are_unknown_and_nothing_fails(open_one, own_memcached):
    """Also not the first call on each connection that was open."""
    server = own_memcached()
    store = open_one(server.url)
    app = SessionMiddleware(counting, use_cookies=False, type=store)
    id = serve(app, path="/change").id
    together(8, lambda number: [store.load(key(n)) for n in range(20)])
    server.restart()
    answer = serve(app, id=id, path="/change")
    assert (answer.status, answer.body) == ("200 OK", b"1")
    assert answer.id not in (None, id)
    together(8, lambda number: [store.load(key(n)) for n in range(20)])


def test_a_server_without_cas_is_an_error_and_not_a_store_that_never_saves(open_one, own_memcached):
    store = open_one(own_memcached("-C").url)
    store.create(key(1), record(a=b"1"), 60)
    assert "-C" in fails(lambda: store.load(key(1)))
    assert "-C" in fails(lambda: store.save(key(1), Delta(), 60))


def test_an_item_that_goes_away_while_a_request_runs_is_not_made_again(store, memcached):
    for write in (CALLS["save"], CALLS["touch"], CALLS["rotate"]):
        store.create(key(1), record(a=b"1"), 60)
        store.load(key(1))
        assert memcached.ask(f"delete nocookie:{key(1)}") == b"DELETED\r\n"
        with pytest.raises(SessionGone):
            write(store)
        assert store.load(key(1)) is Missing.UNKNOWN
        assert store.load(key(2)) is Missing.UNKNOWN


# -- items that are not records ------------------------------------------------------------------


def plant(memcached, data, number=1):
    memcached.put(f"nocookie:{key(number)}", data)


def raw(memcached, number=1):
    return memcached.item(f"nocookie:{key(number)}")


def items():
    item = _item(record(a=b"1", b=b"2")._replace(seal=b"seal", expires=math.inf))
    return {
        "empty": b"",
        "half": item[: len(item) // 2],
        "one byte short": item[:-1],
        "one byte more": item + b"\0",
        "garbage": bytes(range(256)),
        "another's": b"\x80\x04K\x01.",
        "a later kind": b"\x07" + item[1:],
        "an end that is no number": item[:17] + b"\x7f\xf8" + b"\0" * 6 + item[25:],
        "a seal without end": item[:33] + b"\xff\xff" + item[35:],
    }


@pytest.mark.parametrize("what", items())
def test_what_cannot_be_read_makes_room_as_long_as_it_cannot(store, memcached, what):
    plant(memcached, items()[what])
    store.create(key(1), record(b=b"2"), 60, instead_of=Missing.CORRUPTED)
    assert dict(store.load(key(1)).fields) == {"b": b"2"}
    with pytest.raises(VersionChanged):
        store.create(key(1), record(c=b"3"), 60, instead_of=Missing.CORRUPTED)
    assert dict(store.load(key(1)).fields) == {"b": b"2"}


@pytest.mark.parametrize("what", items())
def test_what_cannot_be_read_costs_that_session_only_and_is_kept(store, memcached, what):
    data = items()[what]
    store.create(key(2), record(a=b"1"), 60)
    plant(memcached, data)
    assert store.load(key(1)) is Missing.CORRUPTED
    with pytest.raises(KeyTaken):
        store.create(key(1), record(), 60)
    for write in (
        lambda: store.save(key(1), Delta({"a": b"1"}, cleared=True), 60),
        lambda: store.touch(key(1), 60),
        lambda: store.rotate(key(1), key(3), Delta(), b"", 60),
    ):
        assert "cannot be read" in fails(write)
    assert raw(memcached) == data
    assert fields(store, 2) == {"a": b"1"}
    assert store.load(key(3)) is Missing.UNKNOWN
    store.destroy(key(1))
    assert store.load(key(1)) is Missing.UNKNOWN


def test_every_way_to_cut_a_record_short_is_noticed(store, memcached):
    store.create(key(1), record(a=b"1", bb=b"22")._replace(seal=b"seal"), 60)
    whole = raw(memcached)
    for size in range(len(whole)):
        plant(memcached, whole[:size], 2)
        assert store.load(key(2)) is Missing.CORRUPTED, size


# -- a server that is down, slow, frozen ---------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_is_down_is_a_store_error(open_one, call):
    store = open_one(f"127.0.0.1:{free_port()}")
    assert "refused" in fails(lambda: CALLS[call](store))


@pytest.mark.parametrize("host", ["nobody.invalid", "two..dots", "x" * 64])
def test_a_name_that_leads_nowhere_is_a_store_error(open_one, host):
    assert host not in fails(lambda: open_one(f"{host}:1").load(key(1)))


def test_an_application_starts_before_its_server_and_heals_without_a_restart(
    open_one, own_memcached
):
    server = own_memcached()
    server.stop()
    app = SessionMiddleware(counting, use_cookies=False, type=open_one(server.url))
    assert serve(app).status == "200 OK", "no id, no trip"
    assert serve(app, path="/change").status.startswith("503")
    assert serve(app, id=UNKNOWN).status.startswith("503")
    server.start()
    id = serve(app, path="/change").id
    assert serve(app, id=id).body == b"1"


def test_a_server_that_dies_between_load_and_save_is_503(open_one, own_memcached):
    server = own_memcached()

    def dying(environ, start_response):
        session = environ["nocookie.session"]
        session["a"] = 1
        server.kill()
        session.save()
        start_response("200 OK", [])
        return [b""]

    store = open_one(server.url)
    app = SessionMiddleware(dying, use_cookies=False, type=store)
    id = serve(SessionMiddleware(counting, use_cookies=False, type=store), path="/change").id
    answer = serve(app, id=id)
    assert answer.status.startswith("503")
    assert answer.id is None


@pytest.mark.parametrize("call", ["create", "save", "touch", "destroy"])
def test_a_write_whose_answer_was_lost_is_an_error_and_done_once(through, store, relay, call):
    if call != "create":
        store.create(key(1), record(a=b"1"), 60)
        before = store.load(key(1)).version
    if call in ("save", "touch", "destroy"):
        through.load(key(1))
    relay.drop_reply()
    assert trips(relay, lambda: fails(lambda: CALLS[call](through))) == 1, "it is not sent again"
    assert relay.wait_for_drop()
    if call == "destroy":
        assert store.load(key(1)) is Missing.UNKNOWN
    elif call == "create":
        assert is_alive(store, 1)
    elif call == "save":
        assert fields(store) == {"a": b"1", "b": b"2"}
        assert store.load(key(1)).version == before + 1
    assert through.load(key(3)) is Missing.UNKNOWN, "and the next call works"


def test_a_count_whose_answer_was_lost_is_never_counted_twice(through, relay, memcached):
    mine = Session({}, type=through)
    mine["n"] = 0
    mine.save()
    mine = Session({}, id=mine.id, type=through)
    assert mine["n"] == 0
    relay.drop_reply(holding=b"cas ")
    with pytest.raises(StoreError):
        mine.incr("n")
    assert relay.wait_for_drop()
    assert Session({}, id=mine.id, type=through)["n"] == 1


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("fault", ["drop_request", "drop_reply"])
def test_a_rotation_that_breaks_off_anywhere_has_happened_or_has_not(
    through, store, relay, memcached, nth, fault
):
    store.create(key(1), record(a=b"1"), 60)
    getattr(relay, fault)(nth)
    try:
        through.rotate(key(1), key(2), Delta({"b": b"2"}), b"", 60)
    except StoreError:
        assert fields(store) == {"a": b"1"}, "as it was"
        assert store.load(key(2)) is Missing.UNKNOWN
    else:  # for the last step it can be seen that it was done
        assert (nth, fault) == (5, "drop_reply")
        assert store.load(key(1)) is Missing.UNKNOWN
        assert fields(store, 2) == {"a": b"1", "b": b"2"}
    assert relay.wait_for_drop()
    done = nth if fault == "drop_reply" else nth - 1
    if done == 2:  # reserved, and not a session
        with pytest.raises(SessionGone):
            store.save(key(2), Delta(), 60)
        with pytest.raises(KeyTaken):
            store.create(key(2), record(), 60)
        assert 0 < memcached.seconds_left(f"nocookie:{key(2)}") <= 60 + LATE, "nor for ever"


class Puts:
    """Has something done before or after the nth `put` of memcached."""

    def __init__(self, monkeypatch, nth, before=None, after=None):
        put, left = Connection.put, [nth]

        def counted(*arguments):
            left[0] -= 1
            if left[0] == 0 and before is not None:
                before()
            token = put(*arguments)
            if left[0] == 0 and after is not None:
                after()
            return token

        monkeypatch.setattr(Connection, "put", counted)


def test_a_rotation_whose_new_record_goes_away_meanwhile_is_none(store, memcached, monkeypatch):
    """By an eviction: nobody else knows where it is."""
    store.create(key(1), record(a=b"1"), 60)
    Puts(monkeypatch, 2, after=lambda: memcached.ask(f"delete nocookie:{key(2)}"))
    with pytest.raises(SessionGone):
        store.rotate(key(1), key(2), Delta({"b": b"2"}), b"", 60)
    assert fields(store) == {"a": b"1"}
    assert store.load(key(2)) is Missing.UNKNOWN


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_logout_in_the_middle_of_a_rotation_ends_the_session(store, memcached, monkeypatch, step):
    store.create(key(1), record(a=b"1"), 60)
    Puts(monkeypatch, step, before=lambda: memcached.ask(f"delete nocookie:{key(1)}"))
    with pytest.raises(SessionGone):
        store.rotate(key(1), key(2), Delta(), b"", 60)
    assert not is_alive(store, 1)
    assert not is_alive(store, 2)


@pytest.mark.parametrize("step", [2, 3, 4])
def test_who_reads_what_a_slow_rotation_has_buried_takes_it_back(
    open_one, memcached, monkeypatch, step
):
    """Or comes too late for that; never are there two, and never none."""
    mine = open_one(memcached.url, deadline=20)
    hasty = open_one(memcached.url, deadline=1)
    mine.create(key(1), record(a=b"1"), 60)
    found, nested = [], []

    def read():
        if not nested:
            nested.append(1)
            found.append(hasty.load(key(1)))

    Puts(monkeypatch, step, after=read)
    try:
        mine.rotate(key(1), key(2), Delta({"b": b"2"}), b"", 60)
    except SessionGone:
        assert step in (2, 3)
        assert found[0].fields == fields(mine) == {"a": b"1"}
        assert mine.load(key(2)) is Missing.UNKNOWN
    else:
        assert (step, found) == (4, [Missing.UNKNOWN])
        assert fields(mine, 2) == {"a": b"1", "b": b"2"}


# -- trails --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
@pytest.mark.parametrize("fault", ["drop_request", "drop_reply"])
def test_a_rotation_with_a_trail_that_breaks_off_anywhere_never_leaves_two(
    through, open_one, relay, memcached, nth, fault
):
    store = open_one(memcached.url, deadline=2)
    store.create(key(1), record(a=b"1"), 60)
    getattr(relay, fault)(nth)
    fails(lambda: through.rotate(key(1), key(2), Delta({"b": b"2"}), b"", 60, trail=TRAIL))
    assert relay.wait_for_drop()
    done = nth if fault == "drop_reply" else nth - 1
    if done < 3:
        assert is_alive(store, 1), "as it was"
    else:
        assert store.load(key(1)) == Moved(TRAIL.ticket)
    if done >= 3:
        assert fields(store, 2) == {"a": b"1", "b": b"2"}, "by who follows, if need be"
    elif done == 2:
        with pytest.raises(StoreTimeout):
            store.load(key(2))
        with pytest.raises(SessionGone):
            store.save(key(2), Delta(), 60)
        left = memcached.seconds_left(f"nocookie:{key(2)}")
        assert 0 < left <= 60 + GRACE, "nor for ever"
    else:
        assert store.load(key(2)) is Missing.UNKNOWN


def test_who_follows_a_trail_early_waits_for_what_is_there(open_one, memcached, monkeypatch):
    mine, theirs = open_one(memcached.url), open_one(memcached.url)
    mine.create(key(1), record(a=b"1"), 60)
    found = []

    def follow():
        found.append(theirs.load(key(1)))
        found.append(theirs.load(key(2)))

    def wait():
        follower.start()
        wait_until(lambda: found, lambda: "it does not see the trail")
        follower.join(0.05)
        assert len(found) == 1, "it did not wait"

    follower = threading.Thread(target=follow)
    Puts(monkeypatch, 3, before=wait)
    mine.rotate(key(1), key(2), Delta({"b": b"2"}), b"", 60, trail=TRAIL)
    follower.join(10)
    assert found[0] == Moved(TRAIL.ticket)
    assert found[1].fields == {"a": b"1", "b": b"2"}


def destroy_all(store, number):
    """As whoever ends a session does it; the ticket of these tests is not read."""
    while isinstance(store.destroy(key(number)), Moved):
        number += 1


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_logout_in_the_middle_of_a_rotation_with_a_trail_ends_the_session(
    open_one, memcached, monkeypatch, step
):
    mine, theirs = open_one(memcached.url), open_one(memcached.url)
    mine.create(key(1), record(a=b"1"), 60)
    Puts(monkeypatch, step, before=lambda: destroy_all(theirs, 1))
    with pytest.raises(SessionGone):
        mine.rotate(key(1), key(2), Delta(), b"", 60, trail=TRAIL)
    assert mine.load(key(1)) is mine.load(key(2)) is Missing.UNKNOWN


def test_what_became_a_trail_since_it_was_loaded_is_told_by_destroy(open_one, memcached):
    mine, theirs = open_one(memcached.url), open_one(memcached.url)
    mine.create(key(1), record(), 60)
    mine.load(key(1))
    theirs.rotate(key(1), key(2), Delta(), b"", 60, trail=TRAIL)
    assert mine.destroy(key(1)) == Moved(TRAIL.ticket)
    assert is_alive(mine, 2)


def test_memcached_keeps_a_trail_a_minute_longer_than_it_counts(store, memcached):
    store.create(key(1), record(), math.inf)
    store.rotate(key(1), key(2), Delta(), b"", math.inf, trail=Trail(b"t", 10))
    assert 68 <= memcached.seconds_left(f"nocookie:{key(1)}") <= 70


# -- a server that is slow, frozen, late ----------------------------------------------------------


def test_a_slow_server_is_slow_and_costs_no_more_trips(open_one, relay):
    store = open_one(f"127.0.0.1:{relay.port}", deadline=2.0)
    relay.delay = relay.jitter = 0.2
    assert trips(relay, lambda: store.create(key(1), record(a=b"1"), 60)) == 1
    assert trips(relay, lambda: store.load(key(1))) == 1
    assert trips(relay, lambda: store.save(key(1), Delta({"b": b"2"}), 60)) == 1
    relay.delay = relay.jitter = 0
    assert fields(store) == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("call", CALLS)
def test_a_frozen_server_is_a_timeout_within_the_deadline(open_one, own_memcached, call):
    server = own_memcached()
    store = open_one(server.url, deadline=LATE)
    store.create(key(1), record(a=b"1"), 60)
    store._deadline = DEADLINE
    for connected in (True, False):
        server.freeze()
        begin = time.monotonic()
        assert "in time" in fails(lambda: CALLS[call](store), StoreTimeout)
        # A rotation keeps a quarter of the time for taking back what it did.
        assert DEADLINE * 0.7 <= time.monotonic() - begin < DEADLINE + LATE
        if not connected:
            server.thaw()
    # What was sent arrives now, and may take effect; nobody takes its answer for another's.
    store._deadline = LATE
    store.create(key(9), record(mine=b"9"), 60)
    assert fields(store, 9) == {"mine": b"9"}


def test_the_deadline_counts_for_all_trips_of_a_call_together(through, store, relay):
    store.create(key(1), record(a=b"1"), 60)
    deadline = through._deadline = 4 * DEADLINE
    relay.delay = deadline * 0.7
    begin = time.monotonic()
    fails(lambda: through.save(key(1), Delta({"b": b"2"}), 60), StoreTimeout)
    assert time.monotonic() - begin < deadline * 1.35
    assert fields(store) == {"a": b"1"} or relay.requests == 2


def test_a_late_answer_is_never_read_as_the_answer_to_another_command(through, store, relay):
    for number in (1, 2):
        store.create(key(number), record(number=b"%d" % number), 60)
    assert fields(through, 1) == {"number": b"1"}
    for _ in range(3):
        relay.freeze()
        through._deadline = DEADLINE
        fails(lambda: through.load(key(1)), StoreTimeout)
        through._deadline = LATE
        relay.thaw()
        assert fields(through, 2) == {"number": b"2"}
    assert relay.connections == 4


def test_a_command_that_a_signal_breaks_off_leaves_no_answer_behind(open_one, relay):
    """Such as KeyboardInterrupt, or gevent's Timeout: no Exception. And the place in the pool is
    free again."""

    class Broken(BaseException):
        pass

    def break_off(*_):
        raise Broken

    store = open_one(f"127.0.0.1:{relay.port}", pool_size=1, deadline=LATE)
    for number in (1, 2):
        store.create(key(number), record(number=b"%d" % number), 60)
    relay.freeze()
    before = signal.signal(signal.SIGALRM, break_off)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Broken):
            store.load(key(1))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    relay.thaw()
    assert fields(store, 2) == {"number": b"2"}


def test_bytes_that_nobody_asked_for_cost_the_connection(through, store, relay, memcached):
    """As from a command that was broken off by whoever had the connection before."""
    for number in (1, 2):
        store.create(key(number), record(number=b"%d" % number), 60)
    assert fields(through, 1) == {"number": b"1"}
    connection = through._servers[0].pool.here()._places[-1]
    connection.sock.until = time.monotonic() + LATE
    connection.sock.sendall(f"get nocookie:{key(1)}\r\n".encode())
    while connection.sock.is_quiet():
        time.sleep(0.01)
    assert fields(through, 2) == {"number": b"2"}
    assert relay.connections == 2


# -- several servers -----------------------------------------------------------------------------


@pytest.fixture
def on_three(open_one, memcached_servers):
    return open_one(";".join(server.url for server in memcached_servers), deadline=LATE)


def holds(server, number):
    return server.ask(f"mg nocookie:{key(number)}") == b"HD\r\n"


def place_of(store, number):
    return store._servers.index(store._server(key(number)))


def test_sessions_spread_over_the_servers_each_on_one(on_three, memcached_servers):
    for number in range(300):
        on_three.create(key(number), record(), 60)
    held = [{n for n in range(300) if holds(server, n)} for server in memcached_servers]
    assert sum(map(len, held)) == len(set.union(*held)) == 300
    assert min(map(len, held)) > 60


def test_the_order_of_the_servers_makes_no_difference(on_three, open_one, memcached_servers):
    for number in range(50):
        on_three.create(key(number), record(), 60)
    other = open_one(";".join(server.url.upper() for server in reversed(memcached_servers)))
    assert all(is_alive(other, number) for number in range(50))


def test_one_server_less_moves_no_session_of_the_others(on_three, open_one, memcached_servers):
    two = open_one(";".join(server.url for server in memcached_servers[:2]))
    for number in range(50):
        on_three.create(key(number), record(), 60)
    kept = {number for number in range(50) if place_of(on_three, number) != 2}
    assert {number for number in range(50) if is_alive(two, number)} == kept


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_the_sessions_of_a_server_that_is_down_are_errors_and_nowhere_else(
    on_three, memcached_servers, how
):
    for number in range(30):
        on_three.create(key(number), record(), 60)
    theirs = [number for number in range(30) if place_of(on_three, number) == 1]
    others = [number for number in range(30) if place_of(on_three, number) != 1]
    fresh = next(number for number in itertools.count(100) if place_of(on_three, number) == 1)
    free = [n for n in range(200, 250) if place_of(on_three, n) != 1]
    getattr(memcached_servers[1], how)()
    on_three._deadline = DEADLINE
    error = StoreError if how == "kill" else StoreTimeout
    for call in (
        lambda: on_three.load(key(theirs[0])),
        lambda: on_three.save(key(theirs[0]), Delta(), 60),
        lambda: on_three.destroy(key(theirs[0])),
        lambda: on_three.rotate(key(theirs[0]), key(free[0]), Delta(), b"", 60),
    ):
        fails(call, error)
    fails(lambda: on_three.create(key(fresh), record(), 60), error)
    for number in others[:3]:
        on_three.save(key(number), Delta({"a": b"1"}), 60)
        assert fields(on_three, number) == {"a": b"1"}
        # A rotation to a server that is down keeps the session where it is.
        fails(lambda number=number: on_three.rotate(key(number), key(fresh), Delta(), b"", 60))
        assert fields(on_three, number) == {"a": b"1"}
    on_three.rotate(key(others[0]), key(free[1]), Delta(), b"", 60)
    assert not any(
        holds(memcached_servers[place], number)
        for place in (0, 2)
        for number in (*theirs, fresh, free[0])
    )
    if how == "freeze":
        memcached_servers[1].thaw()
        on_three._deadline = LATE
        assert is_alive(on_three, theirs[-1])
        assert not is_alive(on_three, free[0])


def test_rotations_between_two_servers_do_not_wait_for_one_another(open_one, memcached_servers):
    """Each needs a connection to both; in both pools there is one."""
    url = ";".join(server.url for server in memcached_servers[:2])
    store = open_one(url, pool_size=1, deadline=20)
    numbers = [[n for n in range(1000) if place_of(store, n) == place] for place in (0, 1)]

    def rotate(number):
        mine, theirs = numbers if number % 2 else reversed(numbers)
        for turn in range(20):
            old, new = mine[number * 20 + turn], theirs[number * 20 + turn + 200]
            store.create(key(old), record(), 60)
            store.rotate(key(old), key(new), Delta(), b"", 60)

    together(8, rotate)


# -- clocks --------------------------------------------------------------------------------------


def test_two_hosts_whose_clocks_differ_by_30_seconds_agree_on_who_lives(open_one, memcached, clock):
    ahead = open_one(memcached.url, clock=lambda: clock.now + 30)
    behind = open_one(memcached.url, clock=clock)
    behind.create(key(1), record(), 60)
    for _ in range(20):
        clock.advance(20)
        assert is_alive(ahead, 1)
        ahead.touch(key(1), 60)
        clock.advance(20)
        assert is_alive(behind, 1)
        behind.touch(key(1), 60)


def test_a_clock_that_jumps_and_comes_back_revives_what_nobody_replaced(store, clock):
    """Nothing is written on a read, so the jump alone ends nothing for good; a key that was
    taken meanwhile stays taken."""
    store._clock = clock
    for number in (1, 2):
        store.create(key(number), record(a=b"1"), 60)
    clock.advance(86400)
    assert store.load(key(1)) is Missing.EXPIRED
    store.create(key(2), record(b=b"2"), 60)
    clock.advance(-86400)
    assert fields(store, 1) == {"a": b"1"}
    assert fields(store, 2) == {"b": b"2"}


# -- threads, forks, processes -------------------------------------------------------------------


def together(count, function):
    """Run `function(number)` in so many threads, and raise what one of them raised."""
    errors = []

    def one(number):
        try:
            function(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_more_threads_than_connections_wait_and_then_time_out(open_one, own_memcached):
    server = own_memcached()
    store = open_one(server.url, pool_size=2, deadline=DEADLINE)
    until = time.monotonic() + LATE
    with store._servers[0].connection(until), store._servers[0].connection(until):
        begin = time.monotonic()
        said = fails(lambda: store.load(key(1)), StoreTimeout)
        assert DEADLINE * 0.9 < time.monotonic() - begin < DEADLINE + LATE
        assert "every connection is in use" in said
    server.freeze()
    together(6, lambda number: fails(lambda: store.load(key(1)), StoreTimeout))
    server.thaw()
    assert len(store._servers[0].pool.here()._places) == 2, "every place is free again"
    store._deadline = LATE
    together(6, lambda number: store.create(key(number), record(), 60))


def test_64_threads_share_four_connections(open_one, memcached):
    store = open_one(memcached.url, pool_size=4, deadline=30)
    before = int(memcached.stats()["total_connections"])

    def use(number):
        store.create(key(number), record(number=b"%d" % number), 60)
        for turn in range(10):
            store.save(key(number), Delta({"turn": b"%d" % turn}), 60)
            assert fields(store, number) == {"number": b"%d" % number, "turn": b"%d" % turn}

    together(64, use)
    assert int(memcached.stats()["total_connections"]) - before <= 4 + 1  # and the one that asks


def test_children_of_a_fork_and_their_parent_use_connections_of_their_own(store, memcached, fork):
    store.create(key(0), record(by=b"0"), 60)
    store.load(key(0))
    connections = int(memcached.stats()["curr_connections"])

    def use(number):
        for turn in range(200):
            if turn == 0 and number:
                store.create(key(number), record(by=b"%d" % number), 60)
            store.save(key(number), Delta({"turn": b"%d" % turn}), 60)
            assert fields(store, number) == {"by": b"%d" % number, "turn": b"%d" % turn}

    children = [fork(lambda number=number: use(number)) for number in (1, 2, 3, 4)]
    use(0)
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    assert fields(store, 0)["turn"] == b"199", "their end did not end our connection"
    assert int(memcached.stats()["curr_connections"]) <= connections


def test_a_fork_while_other_threads_are_at_work_leaves_the_child_able_to(open_one, memcached, fork):
    store = open_one(memcached.url, pool_size=2)
    done = threading.Event()

    def work(number):
        while not done.is_set():
            store.load(key(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10, 15):
            child = fork(
                lambda number=number: [
                    store.create(key(number), record(), 60),
                    [store.load(key(number)) for _ in range(2)],
                ]
            )
            assert child.wait() == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_store_that_is_closed_while_it_is_used_goes_on(store):
    store.create(key(1), record(), 60)
    done = threading.Event()

    def close(number):
        while not done.is_set():
            store.close()

    def use(number):
        try:
            for turn in range(200):
                store.save(key(1), Delta({"a": b"%d" % turn}), 60)
        finally:
            done.set()

    together(2, lambda number: (use, close)[number](number))
    store.close()
    assert fields(store) == {"a": b"199"}


GREENLETS = """
from gevent import monkey
monkey.patch_all()

import sys
import gevent
from nocookie.stores.base import Record
from nocookie.stores.memcached import MemcachedStore

store = MemcachedStore(url=sys.argv[1], pool_size=4, deadline=30)
for number in range(8):
    store.create(f"{number:064x}", Record({"n": b"%d" % number}, 0.0, 0.0, 0.0, 0), 60)

def load(number):
    while True:
        assert store.load(f"{number:064x}").fields["n"] == b"%d" % number

loads = [gevent.spawn(load, number) for number in range(8)]
for turn in range(200):
    gevent.sleep(0.001)
    number = turn % 8
    loads[number].kill(block=False)
    loads.append(gevent.spawn(load, number))
    loads[number] = loads.pop()
gevent.sleep(0.05)
assert not any(one.exception for one in loads)
gevent.killall(loads)
print(len(store._servers[0].pool.here()._places))
"""


def test_greenlets_that_are_killed_leave_no_answer_behind_and_take_no_place_along(
    python, memcached
):
    """As gevent ends those whose client went away: in the middle of whatever they wait for."""
    process = python(GREENLETS, memcached.url)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "4\n")


WRITER = """
import sys
from nocookie.stores.base import Delta
from nocookie.stores.memcached import MemcachedStore

store = MemcachedStore(url=sys.argv[1], deadline=30)
sys.stdin.readline()
for turn in range(500):
    store.save("0" * 63 + "1", Delta({f"{sys.argv[2]}.{turn}": b"1"}), 60)
"""


def test_processes_that_change_different_fields_lose_nothing(python, store, memcached):
    store.create(key(1), record(), 60)
    writers = [python(WRITER, memcached.url, number) for number in range(2)]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert fields(store).keys() == {f"{n}.{turn}" for n in range(2) for turn in range(500)}


def test_a_record_that_others_never_leave_alone_is_a_timeout(open_one, memcached):
    """Bounded retries: the deadline is the bound."""
    store, others = open_one(memcached.url, deadline=0.05), open_one(memcached.url)
    store.create(key(1), record(n=b"0"), 60)

    def changed_meanwhile(record):
        others.save(key(1), Delta({"n": b"1"}), 60)
        return record

    fails(lambda: store._change(key(1), changed_meanwhile, 60, None), StoreTimeout)
