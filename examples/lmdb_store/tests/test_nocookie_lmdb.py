"""The suite that every store passes, unchanged, and what it leaves to each: killed and stopped
processes, forks, a file that is full, bytes that are no record."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from nocookie_lmdb import LmdbStore

from nocookie import Session, StoreError, StoreTimeout, cli
from nocookie.stores import close_all
from nocookie.stores.base import Delta, KeyTaken, Missing, Record
from nocookie.testing import StoreSuite

KEY = "0" * 64
RECORD = Record({"a": b"1"}, 0.0, 0.0, 0.0, 0)


class TestLmdbStore(StoreSuite):
    @pytest.fixture
    def store(self, clock, tmp_path):
        store = LmdbStore(data_dir=tmp_path, deadline=30, clock=clock)
        yield store
        store.close()


@pytest.fixture
def store(tmp_path):
    store = LmdbStore(data_dir=tmp_path)
    yield store
    store.close()


def test_nothing_is_on_the_disk_before_the_first_use(store, tmp_path):
    assert list(tmp_path.iterdir()) == []


def test_it_is_found_by_its_name(tmp_path):
    mine = Session({}, type="lmdb", data_dir=tmp_path)
    mine["colour"] = "green"
    mine.save()
    assert Session({}, type="lmdb", data_dir=tmp_path, id=mine.id)["colour"] == "green"


def test_its_sessions_are_listed_and_ended_from_the_shell(tmp_path, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([*arguments, "--type", "lmdb", "--data-dir", str(tmp_path)])
        return stop.value.code, capsys.readouterr().out

    made = []
    for owner in ["ada", "bob", "ada"] + ["many"] * 200:
        mine = Session({}, type="lmdb", data_dir=tmp_path)
        mine.login(owner)
        mine.save()
        made.append(mine.fingerprint)
    close_all()

    status, out = run("list", "--json")
    assert status == 0
    assert sorted(json.loads(line)["fingerprint"] for line in out.splitlines()) == sorted(made)
    assert run("end", "--owner", "ada") == (0, "Ended 2 sessions.\n")
    assert run("end", made[1]) == (0, "Ended 1 session.\n")
    assert run("end", "--all") == (0, "Ended 200 sessions.\n")
    assert run("list") == (0, "No session.\n")


def test_a_file_that_is_full_is_a_store_error_and_the_records_stay(tmp_path):
    store = LmdbStore(data_dir=tmp_path, map_size=500_000)
    store.create(KEY, RECORD, 60)
    with pytest.raises(StoreError, match="full"):
        store.save(KEY, Delta({"b": b"x" * 1_000_000}), 60)
    assert store.load(KEY).fields == {"a": b"1"}
    store.destroy(KEY)
    store.close()


def test_what_cannot_be_read_is_kept(store):
    store.create(KEY, RECORD, 60)
    with store._transaction() as sessions:
        sessions._transaction.put(bytes.fromhex(KEY), b"\xff garbage", db=sessions._records)
    assert store.load(KEY) is Missing.CORRUPTED
    with pytest.raises(KeyTaken):
        store.create(KEY, RECORD, 60)
    with pytest.raises(StoreError):
        store.save(KEY, Delta(), 60)
    assert store.load(KEY) is Missing.CORRUPTED


# -- other processes -------------------------------------------------------------------------------

WRITE_FOR_EVER = """
import itertools, sys
from nocookie.stores.base import Delta
from nocookie_lmdb import LmdbStore

store = LmdbStore(data_dir=sys.argv[1], deadline=30)
for turn in itertools.count():
    store.save("0" * 64, Delta({"a": b"%d" % turn * 1000, "b": b"%d" % turn * 1000}), 60)
    print(turn, flush=True)
"""

HOLD = """
import sys, time
from nocookie_lmdb import LmdbStore

with LmdbStore(data_dir=sys.argv[1])._transaction():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def python(tmp_path):
    """`python(code)` starts a process, and waits for its first line."""
    started = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        started.append(process)
        assert process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_writer_that_is_killed_leaves_all_of_a_save_or_nothing(store, python):
    store.create(KEY, RECORD, 60)
    store.save(KEY, Delta({"b": b"1"}), 60)
    for _ in range(5):
        writer = python(WRITE_FOR_EVER)
        writer.kill()
        writer.wait()
        fields = store.load(KEY).fields
        assert fields["a"] == fields["b"]
        store.save(KEY, Delta({"a": b"1", "b": b"1"}), 60)


def test_a_writer_that_is_stopped_is_a_timeout_for_the_others_and_not_for_readers(tmp_path, python):
    store = LmdbStore(data_dir=tmp_path, deadline=0.2)
    store.create(KEY, RECORD, 60)
    writer = python(HOLD)
    writer.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(StoreTimeout):
        store.save(KEY, Delta(), 60)
    assert time.monotonic() - begin < 5
    assert store.load(KEY).fields == {"a": b"1"}
    writer.kill()
    writer.wait()
    store.save(KEY, Delta({"a": b"2"}), 60)
    store.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_parents_and_children_use_it_at_once(store):
    store.create(KEY, RECORD, 60)
    done = threading.Event()

    def read():
        while not done.is_set():
            store.load(KEY)

    reader = threading.Thread(target=read)
    reader.start()
    children = []
    for number in range(3):
        if (pid := os.fork()) == 0:
            signal.alarm(60)
            try:
                for turn in range(20):
                    store.save(KEY, Delta({f"{number}.{turn}": b"1"}), 60)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    for turn in range(20):
        store.save(KEY, Delta({f"parent.{turn}": b"1"}), 60)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    done.set()
    reader.join()
    assert len(store.load(KEY).fields) == 81
