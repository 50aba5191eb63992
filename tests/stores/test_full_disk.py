"""On a disk that is really full nothing is stored, nothing is lost, and sessions can be ended."""

import random
import threading
import time

import pytest
from realservers.disks import MEBIBYTE, small_disk

from nocookie import StoreError
from nocookie.stores.base import Missing, Record
from nocookie.stores.file import FileStore
from nocookie.stores.sqlalchemy import SqlAlchemyStore

#: Mebibytes: a quarter of it is kept back, and the `-wal` grows to four.
SIZE = 24
#: What the sessions that fill it hold.
LARGE = random.Random(1).randbytes(1500)


def key(number):
    return f"{number:064x}"


def record(**fields):
    return Record(fields, time.time(), 0.0, 0.0, 0)


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", SIZE) as disk:
        yield disk


@pytest.fixture(params=["file", "sqlite"])
def open_store(request, disk, clock):
    opened = []

    def open_one():
        if request.param == "file":
            store = FileStore(data_dir=disk.folder, clock=clock)
        else:
            url = f"sqlite:///{disk.folder}/sessions.db"
            store = SqlAlchemyStore(url=url, create_table=True, clock=clock)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


def stored_until_full(store):
    number = 0
    while True:
        try:
            store.create(key(number + 1), record(a=LARGE), 600)
        except StoreError:
            return number
        number += 1


def reserve(disk):
    [found] = disk.folder.rglob("sessions.db-reserve")
    return found.stat().st_size


@pytest.fixture
def fill(disk, clock):
    """`fill(store)`: store sessions until the disk is full; return how many there are."""

    def until_full(store):
        store.create(key(0), record(), 600)
        clock.advance(40)  # until it sweeps
        number = stored_until_full(store)
        disk.fill()
        return number

    return until_full


def test_room_is_kept_back_by_the_first_sweep(open_store, disk, clock):
    store = open_store()
    store.create(key(1), record(), 600)
    assert list(disk.folder.rglob("*-reserve")) == []
    clock.advance(40)
    store.create(key(2), record(), 600)
    assert reserve(disk) == SIZE // 4 * MEBIBYTE
    [found] = disk.folder.rglob("*-reserve")
    assert found.stat().st_blocks * 512 == reserve(disk), "it is really taken"
    assert found.stat().st_mode & 0o777 == 0o600


def test_every_session_can_be_ended(open_store, fill, disk):
    store = open_store()
    number = fill(store)
    for one in range(1, number + 1):
        store.destroy(key(one))
    assert list(store.keys()) == [key(0)]
    assert reserve(disk) == SIZE // 4 * MEBIBYTE


def test_sessions_are_ended_by_a_process_that_starts_on_a_full_disk(open_store, fill):
    store = open_store()
    fill(store)
    store.close()
    other = open_store()
    other.destroy(key(1))
    assert other.load(key(1)) is Missing.UNKNOWN
    assert isinstance(other.load(key(2)), Record)


def test_all_sessions_of_an_owner_can_be_ended(open_store, fill):
    store = open_store()
    for one in range(10**5, 10**5 + 20):
        store.create(key(one), record(a=LARGE), 600, b"ann")
    fill(store)
    assert store.end_owned(b"ann") == 20
    assert store.owned(b"ann") == []


@pytest.mark.parametrize("limit", [60, 100_000])
def test_what_has_expired_can_be_purged_in_batches_of_any_size(open_store, fill, clock, limit):
    store = open_store()
    number = fill(store)
    clock.advance(700)
    removed = [store.purge(limit)]
    while removed[-1] == limit:
        removed.append(store.purge(limit))
    assert sum(removed) == number + 1
    assert list(store.keys()) == []


def test_sessions_are_ended_while_others_try_to_save(open_store, fill):
    """They do not get the room that is given up for an end."""
    store = open_store()
    fill(store)
    done = threading.Event()

    def save(number):
        other = open_store()
        while not done.is_set():
            number += 1
            try:
                other.create(key(number), record(a=LARGE), 600)
            except StoreError:
                pass

    threads = [threading.Thread(target=save, args=(10**6 * n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        for one in range(1, 301):
            store.destroy(key(one))
            assert store.load(key(one)) is Missing.UNKNOWN
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_nothing_is_lost_and_all_goes_on_when_there_is_room(open_store, fill, disk):
    store = open_store()
    number = fill(store)
    store.destroy(key(1))
    for one in range(2, number + 1):
        assert store.load(key(one)).fields == {"a": LARGE}
    disk.free()
    store.destroy(key(2))
    for one in range(10**5, 10**5 + 100):
        store.create(key(one), record(a=LARGE), 600)
    assert len(list(store.keys())) == number + 1 - 2 + 100


def test_room_that_others_took_is_taken_again_before_anything_is_stored(open_store, fill, disk):
    store = open_store()
    fill(store)
    [found] = disk.folder.rglob("*-reserve")
    with open(found, "r+b") as file:
        file.truncate(0)
    disk.fill()
    with pytest.raises(StoreError, match="the disk is full"):
        store.create(key(10**6), record(), 600)
    disk.free()
    with pytest.raises(StoreError, match="SQLITE_FULL"):
        store.create(key(10**6), record(), 600)
    assert reserve(disk) > 0, "and no more was free"
    store.destroy(key(1))


def test_a_disk_that_is_too_small_to_keep_room_back_is_used_as_it_is(tmp_path, clock):
    with small_disk(tmp_path / "tiny", 1) as disk:
        store = FileStore(data_dir=disk.folder, clock=clock)
        store.create(key(10**5), record(), 600)
        disk.fill()
        clock.advance(40)  # until it sweeps
        assert stored_until_full(store) < 10
        disk.free()
        assert stored_until_full(store) > 10
        assert isinstance(store.load(key(10**5)), Record)
        store.close()
