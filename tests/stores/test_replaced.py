"""The file of the sessions is replaced or removed under processes that have it open: they notice,
say so once, and go on with what is there, all with the same."""

import contextlib
import os
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nocookie import SessionGone
from nocookie.stores import file, sqlite_file
from nocookie.stores.base import Delta, Missing, Record
from nocookie.stores.file import FileStore
from nocookie.stores.sqlalchemy import SqlAlchemyStore


def key(number):
    return f"{number:064x}"


def record(**fields):
    return Record(fields, time.time(), 0.0, 0.0, 0)


#: A process with the store open, that does what it is told and says what came of it.
WORKER = """
import logging, sys, time
from nocookie import StoreError
from nocookie.stores.base import Record
from nocookie.stores.file import FileStore
from nocookie.stores.sqlalchemy import SqlAlchemyStore
kind, folder = sys.argv[1:]
events = []
class Kept(logging.Handler):
    def emit(self, record):
        events.append(record.event)
logging.getLogger("nocookie").addHandler(Kept())
if kind == "file":
    store = FileStore(data_dir=folder)
else:
    store = SqlAlchemyStore(url=f"sqlite:///{folder}/sessions/sessions.db", create_table=True)
print("ready", flush=True)
for line in sys.stdin:
    verb, number = line.split()
    try:
        if verb == "create":
            store.create(f"{int(number):064x}", Record({}, time.time(), 0., 0., 0), 600)
            said = "done"
        elif verb == "events":
            said = " ".join(events) or "none"
        else:
            said = type(store.load(f"{int(number):064x}")).__name__
    except StoreError as error:
        said = f"failed: {error}"
    print(said, flush=True)
"""


class Worker:
    def __init__(self, process):
        self.process = process
        assert process.stdout.readline() == "ready\n"

    def ask(self, verb, number=0):
        self.process.stdin.write(f"{verb} {number}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture(params=["file", "sqlite"])
def kind(request, tmp_path):
    if request.param == "sqlite":
        (tmp_path / "sessions").mkdir(mode=0o700)
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions" / "sessions.db"


@pytest.fixture
def worker(kind, python, tmp_path):
    """`worker()` starts a process that has the store of this test open."""
    return lambda: Worker(python(WORKER, kind, tmp_path))


@pytest.fixture
def store(kind, tmp_path, path):
    if kind == "file":
        store = FileStore(data_dir=tmp_path)
    else:
        store = SqlAlchemyStore(url=f"sqlite:///{path}", create_table=True)
    yield store
    store.close()


def sides(path):
    return [path.with_name(path.name + side) for side in sqlite_file.SIDES]


def copied(path, copy):
    """As an operator makes a copy of a database that is used."""
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()
    return copy


def remove_alone(path, copy):
    path.unlink()


def remove_with_sides(path, copy):
    for one in (path, *sides(path)):
        one.unlink()


def restore(path, copy):
    os.replace(copy, path)


def restore_without_sides(path, copy):
    for one in sides(path):
        one.unlink()
    os.replace(copy, path)


def replace_folder(path, copy):
    folder = path.parent
    folder.rename(folder.with_name("before"))
    folder.mkdir(mode=0o700)


def replace_folder_by_one_with_a_copy(path, copy):
    replace_folder(path, copy)
    shutil.move(copy, path)


WAYS = [
    remove_alone,
    remove_with_sides,
    restore,
    restore_without_sides,
    replace_folder,
    replace_folder_by_one_with_a_copy,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_processes_go_on_together_with_what_is_there(way, worker, path, tmp_path):
    one, two = worker(), worker()
    assert one.ask("create", 1) == "done"
    copy = copied(path, tmp_path / "copy")
    assert two.ask("create", 2) == "done"
    assert one.ask("load", 2) == two.ask("load", 1) == "Record"

    way(path, copy)

    has_copy = "restore" in way.__name__ or "copy" in way.__name__
    assert one.ask("load", 1) == ("Record" if has_copy else "Missing")
    assert one.ask("create", 3) == "done"
    assert two.ask("load", 3) == "Record"
    assert two.ask("create", 4) == "done"
    assert one.ask("load", 4) == "Record"
    assert one.ask("load", 2) == two.ask("load", 2) == "Missing", "it went with its file"
    fresh = worker()
    assert fresh.ask("load", 3) == fresh.ask("load", 4) == "Record"
    assert one.ask("events") == two.ask("events") == "replaced"
    assert fresh.ask("events") == "none"
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    check.close()


def test_a_process_that_has_not_looked_yet_does_not_keep_others_from_a_new_file(worker, path):
    """It has the files beside the old one open, and their locks."""
    idle, busy = worker(), worker()
    assert idle.ask("create", 1) == "done"
    assert busy.ask("load", 1) == "Record"
    path.unlink()
    assert busy.ask("create", 2) == "done"
    fresh = worker()
    assert fresh.ask("load", 2) == "Record"
    assert fresh.ask("create", 3) == "done"
    assert idle.ask("load", 3) == "Record"


def test_a_save_to_a_file_that_is_gone_is_not_acknowledged(store, path):
    store.create(key(1), record(a=b"1"), 600)
    path.unlink()
    with pytest.raises(SessionGone):
        store.save(key(1), Delta({"a": b"2"}), 600)


def test_it_is_said_once_however_many_connections_there_are(store, path, caplog):
    store.create(key(1), record(), 600)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.load(key(1)), range(200)))
        path.unlink()
        list(pool.map(lambda _: store.load(key(1)), range(200)))
    assert [r.event for r in caplog.records] == ["replaced"]
    assert str(path) not in caplog.text


def test_nothing_is_said_of_a_file_that_stays(store, caplog):
    store.create(key(1), record(), 600)
    for _ in range(10):
        store.load(key(1))
    store.close()
    store.load(key(1))
    assert caplog.records == []


def test_a_call_looks_once_whether_the_file_is_there(tmp_path, monkeypatch):
    looked = []

    def identity(path):
        looked.append(path)
        return sqlite_file.identity(path)

    store = FileStore(data_dir=tmp_path)
    store.create(key(1), record(), 600)
    monkeypatch.setattr(file, "identity", identity)
    store.load(key(1))
    assert len(looked) == 1
    store.close()


def test_what_lay_beside_a_file_that_is_gone_is_not_used_for_the_next(store, path):
    store.create(key(1), record(), 600)
    before = [one.stat().st_ino for one in sides(path)]
    # As long as they are open, nothing else gets their numbers.
    with contextlib.ExitStack() as held:
        for one in sides(path):
            held.enter_context(one.open("rb"))
        path.unlink()
        assert store.load(key(1)) is Missing.UNKNOWN
        store.create(key(2), record(), 600)
        assert isinstance(store.load(key(2)), Record)
        assert set(before).isdisjoint(one.stat().st_ino for one in sides(path))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_a_file_of_either_store(store, path, umask):
    old = os.umask(umask)
    try:
        store.create(key(1), record(), 600)
        modes = {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(["sessions.db", "sessions.db-wal", "sessions.db-shm"], 0o600)


def test_an_applications_own_file_keeps_its_mode(tmp_path):
    path = tmp_path / "app.db"
    sqlite3.connect(path).close()
    path.touch()
    path.chmod(0o640)
    store = SqlAlchemyStore(url=f"sqlite:///{path}", create_table=True)
    store.create(key(1), record(), 600)
    store.close()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_in_a_url_is_followed_and_its_file_is_the_owners_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "elsewhere" / "real.db")
    old = os.umask(0o022)
    try:
        store = SqlAlchemyStore(url=f"sqlite:///{link}", create_table=True)
        store.create(key(1), record(), 600)
        store.close()
    finally:
        os.umask(old)
    assert (tmp_path / "elsewhere" / "real.db").stat().st_mode & 0o777 == 0o600
