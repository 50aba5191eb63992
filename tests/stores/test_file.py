"""The file store: the suite, the file itself, what breaks, and many processes at once."""

import os
import random
import resource
import signal
import sqlite3
import stat
import threading
import time

import pytest

from nocookie import ConfigError, Session, StoreError, StoreTimeout
from nocookie.errors import SessionGone
from nocookie.stores import file
from nocookie.stores.base import Delta, Missing, Moved, Record, Trail, VersionChanged, pack
from nocookie.stores.file import FileStore
from nocookie.testing import StoreSuite


def key(number):
    return f"{number:064x}"


def record(**fields):
    return Record(fields, time.time(), 0.0, 0.0, 0)


def fields(store, number=1):
    found = store.load(key(number))
    assert isinstance(found, Record), found
    return dict(found.fields)


class TestFileStore(StoreSuite):
    @pytest.fixture
    def store(self, clock, tmp_path):
        store = FileStore(data_dir=tmp_path, clock=clock)
        yield store
        store.close()


class TestFileStoreThatSyncs(StoreSuite):
    """The other durability, and a pool that is smaller than the number of threads."""

    @pytest.fixture
    def store(self, clock, tmp_path):
        store = FileStore(
            data_dir=tmp_path, clock=clock, durability="full", pool_size=2, deadline=30
        )
        yield store
        store.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions" / "sessions.db"


@pytest.fixture
def open_file(tmp_path):
    """`open_file(**options)`: a store on the file of this test; several share it."""
    opened = []

    def open_one(**options):
        store = FileStore(**{"data_dir": tmp_path, **options})
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_file):
    return open_file()


def sql(path, *statements):
    """Change the file behind the store's back; return the last rows."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        for statement in statements:
            rows = connection.execute(*statement if type(statement) is tuple else (statement,))
        return rows.fetchall()
    finally:
        connection.close()


# -- the file ------------------------------------------------------------------------------------


def test_reads_leave_nothing_on_the_disk(store, tmp_path):
    assert store.load(key(1)) is Missing.UNKNOWN
    store.destroy(key(1))
    assert list(store.keys()) == []
    assert store.purge(10) == 0
    assert store.owned(b"ann") == []
    assert store.end_owned(b"ann") == 0
    for name in ("save", "touch", "rotate", "rotate with a trail"):
        with pytest.raises(SessionGone):
            all_calls(store)[name]()
    assert list(tmp_path.iterdir()) == []


def test_the_first_create_makes_the_file(store, path):
    store.create(key(1), record(), 60)
    assert path.is_file()


def test_a_data_dir_is_made_with_its_parents(open_file, tmp_path):
    deep = tmp_path / "var" / "lib" / "app"
    open_file(data_dir=deep).create(key(1), record(), 60)
    assert (deep / "sessions" / "sessions.db").is_file()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_it(open_file, tmp_path, umask):
    old = os.umask(umask)
    try:
        store = open_file(data_dir=tmp_path / "data")
        store.create(key(1), record(), 60)
        store.save(key(1), Delta({"a": b"1"}), 60)
        folder = tmp_path / "data" / "sessions"
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()}
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(["sessions.db", "sessions.db-wal", "sessions.db-shm"], 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_link_that_leads_nowhere_is_not_followed(store, path, tmp_path):
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        store.create(key(1), record(), 60)
    assert not (tmp_path / "elsewhere").exists()


def test_closing_leaves_one_file(store, path):
    store.create(key(1), record(), 60)
    store.close()
    assert [p.name for p in path.parent.iterdir()] == ["sessions.db"]


def test_the_id_is_not_in_the_file(open_file, path, tmp_path):
    session = Session({}, data_dir=str(tmp_path))
    session["a"] = "findable value"
    session.save()
    session._backend.store.close()
    data = path.read_bytes()
    assert b"findable value" in data
    assert session.id.encode() not in data


@pytest.mark.parametrize(("durability", "level"), [("normal", 1), ("full", 2)])
def test_durability_sets_how_much_is_synchronised(open_file, durability, level):
    store = open_file(durability=durability)
    store.create(key(1), record(), 60)
    for connection in filter(None, store._pool.here()._places):
        assert connection.sql.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("durability", ["", "off", "FULL", None])
def test_a_wrong_durability_is_a_config_error(tmp_path, durability):
    with pytest.raises(ConfigError, match="durability"):
        FileStore(data_dir=tmp_path, durability=durability)


def test_a_create_sweeps_what_is_expired(open_file, clock, path):
    store = open_file(clock=clock)
    for number in range(5):
        store.create(key(number), record(), 60)
    store.create(key(5), record(), 600)
    clock.advance(61)
    assert store.load(key(0)) is Missing.EXPIRED
    store.create(key(6), record(), 600)
    assert sql(path, "SELECT count(*) FROM sessions") == [(2,)]
    assert fields(store, 5) == {}


def test_a_create_is_done_even_if_the_sweep_fails(open_file, clock, monkeypatch):
    store = open_file(clock=clock)
    store.create(key(1), record(), 600)
    clock.advance(61)
    monkeypatch.setattr(file, "PURGE", "DELETE FROM nowhere WHERE ? AND ?")
    store.create(key(2), record(a=b"1"), 600)
    assert fields(store, 2) == {"a": b"1"}


def test_expired_is_told_from_unknown(open_file, clock):
    store = open_file(clock=clock)
    store.create(key(1), record(), 60)
    clock.advance(60)
    assert store.load(key(1)) is Missing.EXPIRED
    assert store.load(key(2)) is Missing.UNKNOWN


# -- files that are not ours ---------------------------------------------------------------------


def all_calls(store):
    return {
        "load": lambda: store.load(key(1)),
        "create": lambda: store.create(key(1), record(), 60),
        "save": lambda: store.save(key(1), Delta({"a": b"1"}), 60),
        "touch": lambda: store.touch(key(1), 60),
        "rotate": lambda: store.rotate(key(1), key(2), Delta(), b"", 60),
        "rotate with a trail": lambda: store.rotate(
            key(1), key(2), Delta(), b"", 60, trail=Trail(b"ticket", 60)
        ),
        "destroy": lambda: store.destroy(key(1)),
        "purge": lambda: store.purge(1),
        "keys": lambda: list(store.keys()),
        "owned": lambda: store.owned(b"ann"),
        "end_owned": lambda: store.end_owned(b"ann"),
    }


CALLS = tuple(all_calls(None))


@pytest.fixture(params=["delete", "wal"])
def foreign(request, path):
    path.parent.mkdir()
    sql(
        path,
        f"PRAGMA journal_mode = {request.param}",
        "CREATE TABLE theirs (a)",
        "INSERT INTO theirs VALUES (1)",
    )
    return path


@pytest.fixture(params=["application", "version"])
def newer(request, path, tmp_path):
    store = FileStore(data_dir=tmp_path)
    store.create(key(1), record(a=b"1"), 60)
    store.close()
    if request.param == "version":
        sql(path, f"PRAGMA user_version = {file.SCHEMA_VERSION + 1}")
    else:
        sql(path, "PRAGMA application_id = 77")
    return path


@pytest.mark.parametrize("call", CALLS)
def test_another_programs_file_is_refused_and_left_as_it_is(store, foreign, call):
    before = foreign.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        all_calls(store)[call]()
    store.close()
    assert foreign.read_bytes() == before


@pytest.mark.parametrize("call", CALLS)
def test_a_newer_versions_file_is_refused_and_left_as_it_is(store, newer, call):
    """A rolling deployment: the newer worker goes on."""
    before = newer.read_bytes()
    with pytest.raises(StoreError, match="left as it is"):
        all_calls(store)[call]()
    store.close()
    assert newer.read_bytes() == before


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_garbage_is_a_store_error_and_left_as_it_is(store, path, call, garbage):
    path.parent.mkdir()
    path.write_bytes(garbage)
    with pytest.raises(StoreError):
        all_calls(store)[call]()
    store.close()
    assert path.read_bytes() == garbage


def test_an_empty_file_is_taken(store, path):
    """What a crash leaves between making the file and preparing it."""
    path.parent.mkdir()
    path.touch()
    assert store.load(key(1)) is Missing.UNKNOWN
    store.create(key(1), record(a=b"1"), 60)
    assert fields(store) == {"a": b"1"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\x02{}more",
        b"\0\x02{",
        b"garbage" * 100,
        b"\xff" * 100,
        b"\0\x04null",
        b"\0\x02[]",
        b"\0\x011",
        b'\0\x09{"a": -1}',
        b'\0\x0a{"a": "1"}1',
        b'\0\x0b{"a": true}1',
        b'\0\x0b{"a": 9999}1',
        b'\0\x0a{"a": 1e0}1',
        b"\xff\xff\xff\xff\xff\xff{}",
        b"\xff\xff\0\x0f\xff\xff" + b"[" * 0x0FFFFF,
        "text",
        7,
        1.5,
    ],
    ids=lambda data: repr(data[:16] if isinstance(data, (bytes, str)) else data),
)
def test_a_corrupted_record_costs_that_session_only(store, path, data):
    store.create(key(1), record(a=b"1"), 60)
    store.create(key(2), record(b=b"2"), 60)
    change = "UPDATE sessions SET data = ? WHERE key = ?"
    sql(path, (change, (data, bytes.fromhex(key(1)))))
    assert store.load(key(1)) is Missing.CORRUPTED
    assert fields(store, 2) == {"b": b"2"}
    store.save(key(2), Delta({"c": b"3"}), 60)
    assert sorted(store.keys()) == [key(1), key(2)], "it is kept: it may be a later version's"
    store.destroy(key(1))
    assert store.load(key(1)) is Missing.UNKNOWN


@pytest.mark.parametrize(
    "change", ["data = 'text'", "data = x'ff'", "created = 'long ago'", "expires = 'x'", "seal = 7"]
)
def test_a_corrupted_record_makes_room_as_long_as_it_is_one(store, path, change):
    store.create(key(1), record(a=b"1"), 60)
    sql(path, f"UPDATE sessions SET {change}")
    store.create(key(1), record(b=b"2"), 60, instead_of=Missing.CORRUPTED)
    assert fields(store, 1) == {"b": b"2"}
    with pytest.raises(VersionChanged):
        store.create(key(1), record(c=b"3"), 60, instead_of=Missing.CORRUPTED)
    assert fields(store, 1) == {"b": b"2"}


@pytest.mark.parametrize("column", ["created", "accessed", "expires", "seal"])
def test_a_record_with_corrupted_times_or_seal_is_corrupted(store, path, column):
    store.create(key(1), record(a=b"1"), 60)
    sql(path, f"UPDATE sessions SET {column} = 'garbage'")
    assert store.load(key(1)) is Missing.CORRUPTED


def test_every_way_to_cut_a_record_short_is_noticed(store, path):
    store.create(key(1), record(a=b"12345", b=b"67890"), 60)
    [(whole,)] = sql(path, "SELECT data FROM sessions")
    for length in range(len(whole)):
        sql(path, ("UPDATE sessions SET data = ?", (whole[:length],)))
        assert store.load(key(1)) is Missing.CORRUPTED
    sql(path, ("UPDATE sessions SET data = ?", (whole,)))
    assert fields(store) == {"a": b"12345", "b": b"67890"}


# -- a disk that refuses -------------------------------------------------------------------------


def assert_discreet(error, tmp_path):
    shown = str(error)
    assert str(tmp_path) not in shown
    assert key(1) not in shown


def test_a_data_dir_that_is_a_file_is_a_store_error(open_file, tmp_path):
    (tmp_path / "data").write_text("a file")
    store = open_file(data_dir=tmp_path / "data")
    for call in all_calls(store).values():
        with pytest.raises(StoreError) as caught:
            call()
        assert_discreet(caught.value, tmp_path)
    assert (tmp_path / "data").read_text() == "a file"


def let_others_in(tmp_path):
    """pytest keeps its folders to the user who runs it; a child that is nobody has to pass."""
    for folder in [tmp_path, *tmp_path.parents]:
        if folder == tmp_path or folder.name.startswith("pytest-"):
            folder.chmod(0o755)


def unprivileged():
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


@pytest.mark.parametrize("mode", [0o000, 0o500])
@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_forbids_is_a_store_error(open_file, fork, tmp_path, mode, made):
    """And never an empty session: what cannot be looked at is not missing."""
    data = tmp_path / "data"
    if made:
        open_file(data_dir=data).create(key(1), record(), 600)
        open_file(data_dir=data).close()
    else:
        data.mkdir()
    let_others_in(tmp_path)
    if made:
        if os.getuid() == 0:
            os.chown(data, 65534, 65534)
            os.chown(data / "sessions", 65534, 65534)
        (data / "sessions").chmod(mode)
    else:
        if os.getuid() == 0:
            os.chown(data, 65534, 65534)
        data.chmod(mode)

    def child():
        unprivileged()
        store = FileStore(data_dir=data, deadline=0.5)
        with pytest.raises(StoreError) as caught:
            store.create(key(1), record(), 600)
        assert_discreet(caught.value, tmp_path)
        if made or mode == 0:
            with pytest.raises(StoreError) as caught:
                store.load(key(1))
            assert_discreet(caught.value, tmp_path)
        else:
            assert store.load(key(1)) is Missing.UNKNOWN

    try:
        assert fork(child).wait() == 0
    finally:
        (data / "sessions" if made else data).chmod(0o700)


def test_a_read_only_file_can_be_read_and_a_write_is_a_store_error(open_file, fork, path, tmp_path):
    store = open_file()
    store.create(key(1), record(a=b"1"), 600)
    store.close()
    let_others_in(tmp_path)
    path.chmod(0o444)
    if os.getuid() == 0:
        os.chown(path.parent, 65534, 65534)

    def child():
        unprivileged()
        begun = time.monotonic()
        store = FileStore(data_dir=tmp_path, deadline=5)
        with pytest.raises(StoreError) as caught:
            store.save(key(1), Delta({"a": b"2"}), 600)
        assert not isinstance(caught.value, StoreTimeout)
        assert_discreet(caught.value, tmp_path)
        assert time.monotonic() - begun < 2, "it waited for what cannot change"
        assert fields(store) == {"a": b"1"}
        store.close()

    assert fork(child).wait() == 0
    if os.getuid() == 0:
        for one in (path.parent, *path.parent.iterdir()):
            os.chown(one, 0, 0)
    assert fields(open_file()) == {"a": b"1"}


def test_a_full_disk_keeps_the_old_record_and_the_store_goes_on(store):
    store.create(key(1), record(a=b"old"), 600)
    [connection] = filter(None, store._pool.here()._places)
    limit = "PRAGMA max_page_count = {}"
    connection.sql.execute(limit.format(8))
    for call in (
        lambda: store.save(key(1), Delta({"a": b"x" * 500_000}), 600),
        lambda: store.create(key(2), record(b=b"x" * 500_000), 600),
        lambda: store.rotate(key(1), key(3), Delta({"a": b"x" * 500_000}), b"", 600),
    ):
        with pytest.raises(StoreError, match="SQLITE_FULL"):
            call()
    assert fields(store) == {"a": b"old"}
    assert store.load(key(2)) is Missing.UNKNOWN
    assert store.load(key(3)) is Missing.UNKNOWN
    store.touch(key(1), 600)
    connection.sql.execute(limit.format(1_000_000))
    store.save(key(1), Delta({"a": b"x" * 500_000}), 600)
    assert fields(store) == {"a": b"x" * 500_000}
    store.destroy(key(1))


def test_a_write_that_the_system_cuts_short_keeps_the_old_record(open_file, fork):
    store = open_file()
    store.create(key(1), record(a=b"old"), 600)

    def child():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        with pytest.raises(StoreError):
            store.save(key(1), Delta({"a": b"x" * 600_000}), 600)
        assert fields(store) == {"a": b"old"}
        with pytest.raises(StoreError):
            store.create(key(2), record(b=b"x" * 600_000), 600)
        assert store.load(key(2)) is Missing.UNKNOWN
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        store.save(key(1), Delta({"a": b"new" * 200_000}), 600)
        assert fields(store) == {"a": b"new" * 200_000}
        store.close()

    assert fork(child).wait() == 0
    assert fields(store) == {"a": b"new" * 200_000}


# -- waiting -------------------------------------------------------------------------------------

#: How much later than its deadline a call may end: what a busy machine adds.
SLACK = 2.0


@pytest.fixture
def locked(path, python):
    """`locked()`: another process holds the file's lock until the test is over."""

    def lock():
        process = python(
            "import sqlite3, sys\n"
            "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "connection.execute('BEGIN IMMEDIATE')\n"
            "print('locked', flush=True)\n"
            "sys.stdin.read()\n",
            path,
        )
        assert process.stdout.readline() == "locked\n"
        return process

    return lock


@pytest.mark.parametrize(
    "call",
    [
        *("create", "save", "touch", "rotate", "rotate with a trail"),
        *("destroy", "purge", "end_owned"),
    ],
)
def test_a_lock_that_another_process_holds_is_a_timeout(open_file, locked, call):
    open_file().create(key(1), record(a=b"1"), 600)
    store = open_file(deadline=0.2)
    holder = locked()
    begun = time.monotonic()
    with pytest.raises(StoreTimeout):
        all_calls(store)[call]()
    assert time.monotonic() - begun < 0.2 + SLACK
    assert fields(store) == {"a": b"1"}, "readers do not wait for writers"
    holder.communicate()
    store.save(key(1), Delta({"a": b"2"}), 600)
    assert fields(store) == {"a": b"2"}


def test_a_call_that_waited_for_its_turn_has_less_time_for_the_lock(open_file, locked):
    """The deadline is for the whole call, not for each thing that it waits for."""
    open_file().create(key(1), record(), 600)
    store = open_file(deadline=2, pool_size=1)
    store.touch(key(1), 600)
    locked()
    took = []

    def touch():
        begun = time.monotonic()
        with pytest.raises(StoreTimeout):
            store.touch(key(1), 600)
        took.append(time.monotonic() - begun)

    threads = [threading.Thread(target=touch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 3
    assert max(took) < 3


def test_a_lock_on_a_file_that_is_being_made_is_a_timeout(open_file, locked, path):
    path.parent.mkdir()
    path.touch()
    locked()
    store = open_file(deadline=0.3)
    begun = time.monotonic()
    with pytest.raises(StoreTimeout):
        store.create(key(1), record(), 600)
    assert time.monotonic() - begun < 0.3 + SLACK


def test_more_threads_than_connections_wait_and_then_time_out(open_file):
    store = open_file(pool_size=2, deadline=0.2)
    store.create(key(1), record(), 600)
    pool = store._pool.here()
    taken = [pool.take(time.monotonic()) for _ in range(2)]
    begun = time.monotonic()
    with pytest.raises(StoreTimeout, match="in use"):
        store.load(key(1))
    assert 0.2 <= time.monotonic() - begun < 0.2 + SLACK
    for places, connection in taken:
        pool.give_back(places, connection)
    assert fields(store) == {}


def test_who_waits_for_a_connection_goes_on_when_the_store_is_closed(open_file):
    store = open_file(pool_size=1, deadline=30)
    store.create(key(1), record(a=b"1"), 600)
    pool = store._pool.here()
    _, connection = pool.take(time.monotonic())
    found = []
    waiter = threading.Thread(target=lambda: found.append(fields(store)))
    waiter.start()
    until = time.monotonic() + 10
    while not pool._waiting and time.monotonic() < until:
        time.sleep(0.001)
    store.close()
    waiter.join(10)
    connection.close()
    assert found == [{"a": b"1"}]


def test_32_threads_on_two_connections_do_not_deadlock(open_file):
    store = open_file(pool_size=2, deadline=30)
    store.create(key(0), record(), 600)
    errors = []

    def work(number):
        try:
            for turn in range(20):
                store.save(key(0), Delta({f"{number}.{turn}": b"1"}), 600)
                store.load(key(0))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
    assert len(fields(store, 0)) == 32 * 20
    assert len([c for c in store._pool.here()._places if c]) <= 2


# -- forks ---------------------------------------------------------------------------------------


def test_children_of_a_fork_and_their_parent_use_the_store_at_once(store, fork):
    for number in range(5):
        store.create(key(number), record(tag=b"%d" % number), 600)

    def use(number):
        for turn in range(200):
            assert fields(store, number)["tag"] == b"%d" % number
            store.save(key(number), Delta({"turn": b"%d" % turn}), 600)
            assert fields(store, number)["turn"] == b"%d" % turn
            store.save(key(0), Delta({f"{number}.{turn}": b"1"}), 600)

    children = [fork(lambda number=number: use(number)) for number in range(1, 5)]
    for turn in range(200):
        store.save(key(0), Delta({f"0.{turn}": b"1"}), 600)
    assert [child.wait() for child in children] == [0, 0, 0, 0]
    everything = fields(store, 0)
    assert everything.pop("tag") == b"0"
    assert everything.keys() == {f"{n}.{turn}" for n in range(5) for turn in range(200)}


def test_a_fork_in_the_middle_of_writes_of_other_threads_leaves_the_child_able_to_work(
    open_file, fork
):
    store = open_file(deadline=10)
    store.create(key(1), record(), 600)
    store.create(key(2), record(a=b"0"), 600)
    done = threading.Event()
    errors = []

    def write(number):
        try:
            while not done.is_set():
                store.save(key(1), Delta({str(number): random.randbytes(200_000)}), 600)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()

    def use(turn):
        for number in range(20):
            store.save(key(2), Delta({f"{turn}.{number}": b"1"}), 600)
            assert f"{turn}.{number}" in fields(store, 2)
        assert len(fields(store, 1)) <= 3

    try:
        codes = [fork(lambda turn=turn: use(turn)).wait() for turn in range(10)]
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 10
    assert errors == []
    assert len(fields(store, 2)) == 1 + 10 * 20


def test_forks_of_several_threads_do_not_wait_for_one_another(open_file, fork):
    store = open_file(deadline=20)
    store.create(key(1), record(a=b"1"), 600)
    codes = []

    def many():
        codes.extend(fork(lambda: fields(store)).wait() for _ in range(5))

    begun = time.monotonic()
    threads = [threading.Thread(target=many) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 15
    assert time.monotonic() - begun < 15


def test_a_child_that_exits_does_not_disturb_its_parent(store, fork):
    store.create(key(1), record(a=b"1"), 600)

    def child():
        assert fields(store)["a"] == b"1"
        store.close()

    for turn in range(5):
        assert fork(child).wait() == 0
        store.save(key(1), Delta({"turn": b"%d" % turn}), 600)
    assert fields(store) == {"a": b"1", "turn": b"4"}


PREFACE = """
import sys, time, os, random
from nocookie.stores.base import *
from nocookie.stores.file import FileStore
store = FileStore(data_dir=sys.argv[1], deadline=30)
def key(number):
    return f"{number:064x}"
print("ready", flush=True)
sys.stdin.readline()
"""


def start_all(processes):
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def end_all(processes):
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


# -- owners and trails ---------------------------------------------------------------------------


def test_the_records_of_an_owner_are_found_by_an_index(store, path):
    store.create(key(1), record(), 60, b"ann")
    values = b"ann", 1.0, b""
    for statement in (file.OWNED, file.END_OWNED):
        plan = sql(path, (f"EXPLAIN QUERY PLAN {statement}", values[: statement.count("?")]))
        assert "USING INDEX sessions_by_owner" in str(plan)


def test_a_record_without_owner_is_not_in_the_index(store, path):
    """So it costs nothing there."""
    store.create(key(1), record(), 60)
    store.create(key(2), record(), 60, b"ann")
    [(count,)] = sql(path, "SELECT count(*) FROM sessions INDEXED BY sessions_by_owner"
                     " WHERE owner IS NOT NULL")  # fmt: skip
    assert count == 1


def test_a_rotation_that_cannot_leave_its_trail_changes_nothing(store, path):
    store.create(key(1), record(a=b"1"), 600)
    sql(path, "CREATE TRIGGER no_trail BEFORE INSERT ON sessions WHEN new.version = 0"
        " BEGIN SELECT no_such_function(); END")  # fmt: skip
    with pytest.raises(StoreError):
        store.rotate(key(1), key(2), Delta({"a": b"2"}), b"", 600, trail=Trail(b"ticket", 60))
    assert fields(store) == {"a": b"1"}
    assert store.load(key(2)) is Missing.UNKNOWN
    sql(path, "DROP TRIGGER no_trail")  # somebody else can write
    store.rotate(key(1), key(2), Delta({"a": b"2"}), b"", 600, trail=Trail(b"ticket", 60))
    assert store.load(key(1)) == Moved(b"ticket")
    assert fields(store, 2) == {"a": b"2"}


def test_a_trail_that_is_over_is_unknown(open_file, clock):
    """Its record may live: nobody is told that it expired."""
    store = open_file(clock=clock)
    store.create(key(1), record(), 600)
    store.rotate(key(1), key(2), Delta(), b"", 600, trail=Trail(b"ticket", 60))
    clock.advance(61)
    assert store.load(key(1)) is Missing.UNKNOWN


def test_who_rotates_and_is_killed_leaves_one_record_and_whole_trails(store, python, tmp_path):
    store.create(key(0), record(a=b"1"), 600)
    code = PREFACE + (
        "number = int(sys.argv[2])\n"
        "while True:\n"
        "    trail = Trail(b'%d' % (number + 1), 600)\n"
        "    store.rotate(key(number), key(number + 1), Delta(), b'', 600, trail=trail)\n"
        "    number += 1\n"
    )
    chance = random.Random(7)
    number = 0
    for _ in range(20):
        process = python(code, tmp_path, number)
        start_all([process])
        time.sleep(chance.uniform(0.01, 0.05))
        process.kill()
        process.communicate()
        begun = number
        while isinstance(found := store.load(key(number)), Moved):
            number = int(found.ticket)
        assert isinstance(found, Record), (begun, number)
        assert list(store.keys()) == [key(number)]
    assert number > 20


# -- a file of the version before ----------------------------------------------------------------

VERSION_1 = (
    "PRAGMA journal_mode = WAL",
    """
    CREATE TABLE sessions (
        key      BLOB PRIMARY KEY,
        data     BLOB NOT NULL,
        created  REAL NOT NULL,
        accessed REAL NOT NULL,
        expires  REAL NOT NULL,
        sweep    INTEGER NOT NULL,
        version  INTEGER NOT NULL,
        seal     BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX sessions_by_sweep ON sessions (sweep)",
    f"PRAGMA application_id = {file.APPLICATION_ID}",
    "PRAGMA user_version = 1",
)


@pytest.fixture
def older(path):
    """A file as version 1 of the schema made it, with a session in it."""
    path.parent.mkdir()
    now = time.time()
    row = (bytes.fromhex(key(1)), pack({"a": b"1"}), now, now, now + 600, 2**60, 7, b"seal")
    sql(path, *VERSION_1, (f"INSERT INTO sessions VALUES ({', '.join('?' * 8)})", row))
    return path


@pytest.mark.parametrize("call", CALLS)
def test_a_file_of_the_version_before_is_brought_up_to_date(store, older, call):
    sessions = "SELECT key, data, seal FROM sessions ORDER BY key"
    before = sql(older, sessions)
    if call in ("load", "touch", "purge", "keys", "owned", "end_owned"):
        all_calls(store)[call]()
        assert sql(older, sessions) == before
    elif call == "create":
        store.create(key(3), record(), 600)
    else:
        all_calls(store)[call]()
    assert sql(older, "PRAGMA user_version") == [(2,)]
    store.create(key(9), record(), 600, b"ann")
    assert store.owned(b"ann") == [key(9)]


def test_the_schema_is_the_same_by_either_way(open_file, older, tmp_path):
    open_file().load(key(1))
    new = open_file(data_dir=tmp_path / "new")
    new.create(key(1), record(), 600)
    made = "SELECT name FROM sqlite_master ORDER BY name"
    columns = "SELECT name, type, \"notnull\", pk FROM pragma_table_info('sessions')"
    other = tmp_path / "new" / "sessions" / "sessions.db"
    for about in (made, columns):
        assert sql(older, about) == sql(other, about)


def test_processes_that_race_to_bring_a_file_up_to_date_all_succeed(python, older, tmp_path, store):
    code = PREFACE + (
        "assert store.load(key(1)).fields == {'a': b'1'}\n"
        "record = Record({'a': b'1'}, time.time(), 0., 0., 0)\n"
        "store.create(key(int(sys.argv[2])), record, 600, b'ann')\n"
        "store.close()\n"
    )
    processes = [python(code, tmp_path, number) for number in range(2, 6)]
    start_all(processes)
    end_all(processes)
    assert sorted(store.owned(b"ann")) == [key(number) for number in range(2, 6)]
    assert fields(store) == {"a": b"1"}


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(store, older):
    """The second of its steps does: the name is taken."""
    sql(older, "CREATE TABLE sessions_by_owner (a)")
    with pytest.raises(StoreError):
        store.load(key(1))
    assert sql(older, "PRAGMA user_version") == [(1,)]
    sql(older, "DROP TABLE sessions_by_owner")
    assert fields(store) == {"a": b"1"}


def test_a_process_that_runs_the_code_before_goes_on_with_an_upgraded_file(store, older):
    """It has the file open already; only at its next opening would it refuse."""
    connection = sqlite3.connect(older, isolation_level=None)
    save = "UPDATE sessions SET data = ?, version = version + 1 WHERE key = ?"
    create = (
        "INSERT INTO sessions (key, data, created, accessed, expires, sweep, version, seal)"
        " SELECT x'77', data, created, accessed, expires, sweep, 1, seal FROM sessions"
    )
    name = bytes.fromhex(key(1))
    connection.execute(save, (pack({"a": b"2"}), name))
    assert fields(store) == {"a": b"2"}
    connection.execute(save, (pack({"a": b"3"}), name))
    connection.execute(create)
    connection.close()
    assert fields(store) == {"a": b"3"}
    assert len(list(store.keys())) == 2


# -- processes -----------------------------------------------------------------------------------


def test_processes_that_race_to_make_the_file_all_succeed(python, tmp_path, open_file):
    code = PREFACE + (
        "store.create(key(int(sys.argv[2])), Record({'a': b'1'}, time.time(), 0., 0., 0), 600)\n"
        "store.close()\n"
    )
    for turn in range(4):
        data = tmp_path / str(turn)
        processes = [python(code, data, number) for number in range(3)]
        start_all(processes)
        end_all(processes)
        assert sorted(open_file(data_dir=data).keys()) == [key(0), key(1), key(2)]


def test_threads_that_race_to_make_the_file_all_succeed(open_file, tmp_path):
    for turn in range(10):
        stores = [open_file(data_dir=tmp_path / str(turn), deadline=10) for _ in range(4)]
        start = threading.Barrier(4)
        errors = []

        def make(number, stores=stores, start=start, errors=errors):
            try:
                start.wait(10)
                stores[number].create(key(number), record(), 600)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=make, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(list(stores[0].keys())) == 4
        for store in stores:
            store.close()


def test_processes_that_change_different_fields_lose_nothing(python, tmp_path, store):
    store.create(key(1), record(), 600)
    write = PREFACE + (
        "name = sys.argv[2]\n"
        "for turn in range(1000):\n"
        "    here = store.load(key(1)).fields\n"
        "    assert int(here.get(name, 0)) == turn\n"
        "    store.save(key(1), Delta({name: b'%d' % (turn + 1)}), 600)\n"
        "store.close()\n"
    )
    read = PREFACE + (
        "seen = {}\n"
        "while seen.get('a') != 1000 or seen.get('b') != 1000:\n"
        "    now = {n: int(v) for n, v in store.load(key(1)).fields.items()}\n"
        "    assert all(now[name] >= seen[name] for name in seen), 'time ran backwards'\n"
        "    seen = now\n"
        "store.close()\n"
    )
    processes = [python(write, tmp_path, "a"), python(write, tmp_path, "b"), python(read, tmp_path)]
    start_all(processes)
    end_all(processes)
    assert fields(store) == {"a": b"1000", "b": b"1000"}


def test_processes_that_count_by_compare_and_set_lose_nothing(python, tmp_path, store):
    store.create(key(1), record(count=b"0"), 600)
    code = PREFACE + (
        "for turn in range(1000):\n"
        "    while True:\n"
        "        seen = store.load(key(1))\n"
        "        more = b'%d' % (int(seen.fields['count']) + 1)\n"
        "        try:\n"
        "            store.save(key(1), Delta({'count': more}), 600, expect=seen.version)\n"
        "            break\n"
        "        except VersionChanged:\n"
        "            pass\n"
        "store.close()\n"
    )
    processes = [python(code, tmp_path) for _ in range(2)]
    start_all(processes)
    end_all(processes)
    assert fields(store) == {"count": b"2000"}
