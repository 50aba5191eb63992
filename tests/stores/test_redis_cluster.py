"""The redis store on a cluster: the suite, moving slots, forks, and the loss of a primary."""

import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nocookie.errors import StoreError, StoreTimeout
from nocookie.stores.base import Delta, Missing, Record
from nocookie.stores.redis import RedisStore
from nocookie.testing import StoreSuite

pytestmark = pytest.mark.server

#: Seconds from the death of a primary within which calls may fail: until its replica is voted in
#: (the node timeout of the test's cluster is one second), and a margin for a busy machine.
WINDOW = 10.0

#: Sessions under load, and for how many seconds before and after the death.
SESSIONS = 60
BEFORE, AFTER = 2.0, 2.0


def key(number):
    return f"{number:064x}"


def record(**fields):
    return Record(fields, time.time(), 0.0, 0.0, 0)


def fields(store, number=1):
    found = store.load(key(number))
    assert isinstance(found, Record), found
    return dict(found.fields)


def place(number):
    return f"nocookie:{key(number)}"


class TestRedisStoreOnACluster(StoreSuite):
    @pytest.fixture
    def store(self, valkey_cluster, clock):
        store = RedisStore(url=valkey_cluster.url, clock=clock)
        yield store
        store.close()


@pytest.fixture
def store(valkey_cluster):
    store = RedisStore(url=valkey_cluster.url)
    yield store
    store.close()


def test_sessions_are_on_every_primary_and_listed_from_each(store, valkey_cluster):
    for number in range(200):
        store.create(key(number), record(), 600)
    sizes = [int(node.ask("DBSIZE")) for node in valkey_cluster.primaries()]
    assert len(sizes) == 3 and min(sizes) > 20 and sum(sizes) == 200
    assert sorted(store.keys()) == [key(number) for number in range(200)]


def test_one_address_is_enough_and_dead_ones_do_no_harm(valkey_cluster):
    dead = "127.0.0.1:1,127.0.0.1:2"
    store = RedisStore(url=f"redis+cluster://{dead},127.0.0.1:{valkey_cluster.nodes[0].port}")
    for number in range(20):
        store.create(key(number), record(n=b"%d" % number), 600)
    assert [fields(store, n) for n in range(20)] == [{"n": b"%d" % n} for n in range(20)]
    store.close()


def test_no_node_that_answers_is_an_error():
    store = RedisStore(url="redis+cluster://127.0.0.1:1,127.0.0.1:2")
    with pytest.raises(StoreError):
        store.load(key(1))
    with pytest.raises(StoreError):
        list(store.keys())


def test_a_server_that_is_no_cluster_is_an_error(valkey):
    store = RedisStore(url=f"redis+cluster://127.0.0.1:{valkey.port}")
    with pytest.raises(StoreError):
        store.load(key(1))
    store.close()


def test_a_child_uses_no_connection_of_its_parent(store, valkey_cluster, fork):
    for number in range(8):
        store.create(key(number), record(tag=b"%d" % number), 600)

    def use():
        for _ in range(30):
            for number in range(8):
                assert fields(store, number) == {"tag": b"%d" % number}

    use()
    children = [fork(use) for _ in range(3)]
    use()
    assert [child.wait() for child in children] == [0, 0, 0]
    use()


# -- slots that move


def slot_of(cluster, number):
    return cluster.nodes[0].ask("CLUSTER", "KEYSLOT", place(number))


def owner(cluster, slot):
    """The primary that has the slot, and one that has not."""
    for line in cluster.nodes[0].ask("CLUSTER", "NODES").splitlines():
        (
            _,
            address,
            flags,
            *_,
        ) = line.split()
        if "master" not in flags:
            continue
        ranges = [part.split("-") for part in line.split()[8:] if not part.startswith("[")]
        if any(int(part[0]) <= int(slot) <= int(part[-1]) for part in ranges):
            port = int(address.split("@")[0].rpartition(":")[2])
            here = next(node for node in cluster.nodes if node.port == port)
            return here, next(node for node in cluster.primaries() if node is not here)
    raise AssertionError("nobody has it")


def begin_to_move(slot, here, there):
    there.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", here.ask("CLUSTER", "MYID"))
    here.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", there.ask("CLUSTER", "MYID"))


def move_keys(slot, here, there):
    for name in here.ask("CLUSTER", "GETKEYSINSLOT", slot, "100").split():
        assert here.ask("MIGRATE", "127.0.0.1", str(there.port), name, "0", "5000") == "OK"


def end_the_move(cluster, slot, there):
    there_id = there.ask("CLUSTER", "MYID")
    for node in [there, *cluster.primaries()]:
        assert node.ask("CLUSTER", "SETSLOT", slot, "NODE", there_id) == "OK"


def test_every_call_follows_a_slot_that_moves(store, valkey_cluster):
    cluster, slot = valkey_cluster, slot_of(valkey_cluster, 1)
    here, there = owner(cluster, slot)
    seen = []

    def use():
        """One of each call."""
        store.create(key(1), record(a=b"1"), 600)
        store.save(key(1), Delta({"b": b"2"}), 600, expect=1)
        store.touch(key(1), 600)
        assert store.load_and_touch(key(1), 600, math.inf, -1).version == 2
        store.destroy(key(1))
        assert store.load(key(1)) is Missing.UNKNOWN
        store.create(key(1), record(a=b"1"), 600)
        seen.append(fields(store))
        store.rotate(key(1), key(2), Delta(), b"", 600)
        assert fields(store, 2) == {"a": b"1"}
        store.rotate(key(2), key(1), Delta(), b"", 600)
        store.destroy(key(1))

    use()
    begin_to_move(slot, here, there)
    use()  # ASK: what is not here any more is there
    store.create(key(1), record(a=b"moved"), 600)
    move_keys(slot, here, there)
    assert fields(store) == {"a": b"moved"}
    store.destroy(key(1))
    end_the_move(cluster, slot, there)
    use()  # MOVED
    assert owner(cluster, slot)[0] is there
    end_the_move(cluster, slot, here)
    cluster.wait_until_whole()
    use()
    assert seen == [{"a": b"1"}] * 4


def test_nothing_is_lost_while_slots_move_to_and_fro(store, valkey_cluster):
    cluster, slot = valkey_cluster, slot_of(valkey_cluster, 1)
    here, there = owner(cluster, slot)
    store.create(key(1), record(), 600)
    done = threading.Event()
    saved = []

    def write(worker):
        for turn in range(100_000):
            if done.is_set():
                return
            store.save(key(1), Delta({f"{worker}.{turn}": b"1"}), 600)
            saved.append(f"{worker}.{turn}")

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, worker) for worker in range(3)]
        try:
            for _ in range(4):
                begin_to_move(slot, here, there)
                move_keys(slot, here, there)
                end_the_move(cluster, slot, there)
                here, there = there, here
        finally:
            done.set()
        for writer in writers:
            writer.result()
    assert fields(store).keys() == set(saved)
    assert len(saved) > 20


# -- a primary that is lost


@pytest.fixture
def own_cluster(tmp_path):
    """A cluster that a test may hurt."""
    from realservers.valkey import ValkeyCluster

    cluster = ValkeyCluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_a_rotation_to_a_server_that_is_down_leaves_the_session_as_it_was(own_cluster):
    store = RedisStore(url=own_cluster.url)
    victim, other = own_cluster.primaries()[:2]
    mine = next(n for n in range(100) if owner(own_cluster, slot_of(own_cluster, n))[0] is other)
    there = next(
        n for n in range(100, 200) if owner(own_cluster, slot_of(own_cluster, n))[0] is victim
    )
    store.create(key(mine), record(a=b"1"), 600)
    before = store.load(key(mine))
    victim.kill()
    with pytest.raises(StoreError):
        store.rotate(key(mine), key(there), Delta({"a": b"2"}), b"", 600)
    assert store.load(key(mine)) == before
    until = time.monotonic() + WINDOW
    while True:
        try:
            store.rotate(key(mine), key(there), Delta({"a": b"2"}), b"", 600)
            break
        except StoreError:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert fields(store, there) == {"a": b"2"}
    assert store.load(key(mine)) is Missing.UNKNOWN
    store.close()


def test_a_frozen_primary_costs_its_own_sessions_the_deadline_and_others_nothing(own_cluster):
    store = RedisStore(url=own_cluster.url, deadline=0.4)
    for number in range(40):
        store.create(key(number), record(n=b"%d" % number), 600)
    victim = own_cluster.primaries()[0]
    victim.freeze()
    try:
        answers = {}
        for number in range(40):
            begun = time.monotonic()
            try:
                answers[number] = fields(store, number)
            except StoreTimeout:
                answers[number] = None
            assert time.monotonic() - begun < 0.4 + 3
            if list(answers.values()).count(None) == 2:
                break
        until = time.monotonic() + WINDOW
        while time.monotonic() < until:  # its replica takes over
            try:
                assert all(fields(store, n) == {"n": b"%d" % n} for n in range(40))
                break
            except StoreError:
                time.sleep(0.05)
        else:
            raise AssertionError("the store did not find the new primary")
    finally:
        victim.thaw()
    assert all(found in (None, {"n": b"%d" % n}) for n, found in answers.items())
    assert None in answers.values()
    store.close()


def test_a_process_that_starts_beside_a_frozen_node_asks_the_next(own_cluster):
    victim, other = own_cluster.primaries()[:2]
    mine = next(n for n in range(100) if owner(own_cluster, slot_of(own_cluster, n))[0] is other)
    url = f"redis+cluster://127.0.0.1:{victim.port},127.0.0.1:{other.port}"
    victim.freeze()
    try:
        for _ in range(10):  # which one is asked first is left to chance
            store = RedisStore(url=url, deadline=1.0)
            assert store.load(key(mine)) is Missing.UNKNOWN
            store.close()
    finally:
        victim.thaw()


LOAD = """
import json, random, sys, time
from nocookie.errors import StoreError
from nocookie.stores.base import Delta, Record, VersionChanged
from nocookie.stores.redis import RedisStore
from concurrent.futures import ThreadPoolExecutor

url, worker, sessions = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = RedisStore(url=url)
key = lambda number: f"{number:064x}"
print("ready", flush=True)
stop = []

def work(thread):
    dice = random.Random(f"{worker}.{thread}")
    said = []
    turn = 0
    while not stop:
        turn += 1
        number = dice.randrange(sessions)
        field = f"{worker}.{thread}"
        begun = time.time()
        kind = dice.choice(("save", "count", "load"))
        try:
            if kind == "save":
                text = f"{number} {turn}".encode()
                store.save(key(number), Delta({field: text, field + "+": text}), 600)
                said.append((begun, time.time(), "saved", number, field, turn))
            elif kind == "count":
                seen = store.load(key(number))
                more = b"%d" % (int(seen.fields["count"]) + 1)
                store.save(key(number), Delta({"count": more}), 600, seen.version)
                said.append((begun, time.time(), "counted", number, field, int(more)))
            else:
                found = store.load(key(number)).fields
                if found["owner"] != b"%d" % number:
                    said.append((begun, time.time(), "WRONG", number, field, 0))
                for name, text in found.items():
                    if "." in name and (
                        text.split()[0] != b"%d" % number or found[name.rstrip("+")] != text
                        or found[name.rstrip("+") + "+"] != text
                    ):
                        said.append((begun, time.time(), "TORN", number, field, 0))
        except VersionChanged:
            pass
        except StoreError as error:
            said.append((begun, time.time(), "error", number, type(error).__name__, 0))
            time.sleep(0.02)
        except Exception as error:
            said.append((begun, time.time(), "WRONG", number, repr(error), 0))
            return said
    return said

with ThreadPoolExecutor(4) as pool:
    futures = [pool.submit(work, thread) for thread in range(4)]
    sys.stdin.readline()
    stop.append(1)
    said = [line for future in futures for line in future.result()]
print(json.dumps(said), flush=True)
"""


def test_a_cluster_under_load_that_loses_a_primary_answers_nothing_wrong(own_cluster, python):
    """Two processes of four threads read, save and count in sessions while a primary is killed.

    Replication is asynchronous: what was acknowledged in the last moment before the death may be
    missing. Then the record is an older one, whole; it is never a mixture, never another
    session's, and what was acknowledged earlier or later, or on another primary, is all there.
    """
    store = RedisStore(url=own_cluster.url)
    for number in range(SESSIONS):
        store.create(key(number), record(owner=b"%d" % number, count=b"0"), 600)
    victim = own_cluster.primaries()[0]
    hit = {n for n in range(SESSIONS) if owner(own_cluster, slot_of(own_cluster, n))[0] is victim}
    assert 5 < len(hit) < SESSIONS - 5
    workers = [python(LOAD, own_cluster.url, name, SESSIONS) for name in "ab"]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    time.sleep(BEFORE)
    killed = time.time()
    victim.kill()
    healed = None
    while healed is None and time.time() < killed + WINDOW:
        try:
            for number in hit:
                store.touch(key(number), 600)
            healed = time.time()
        except StoreError:
            time.sleep(0.02)
    assert healed is not None, "no replica took over within the window"
    time.sleep(AFTER)
    said = []
    for worker in workers:
        out, _ = worker.communicate("\n", timeout=60)
        said += json.loads(out)

    wrong = [line for line in said if line[2] in ("WRONG", "TORN")]
    assert wrong == []
    errors = [line for line in said if line[2] == "error"]
    assert errors, "nobody noticed: the test shows nothing"
    assert {line[3] for line in errors} <= hit, "sessions of other primaries had errors"
    assert all(killed - 0.1 <= end and begin <= healed + 2 for begin, end, *_ in errors)

    found = {number: fields(store, number) for number in range(SESSIONS)}
    for number in range(SESSIONS):
        mine = [line for line in said if line[3] == number]
        names = {line[4] for line in mine if line[2] == "saved"}
        for name in names:
            turns = {line[5]: line for line in mine if line[4] == name and line[2] == "saved"}
            last = max(turns)
            text = found[number].get(name, b"x 0")
            turn = int(text.split()[1])
            if turn < last:
                assert number in hit, "a save on a primary that lived was lost"
                assert abs(turns[last][1] - killed) < 1, "not of the last moment"
        counts = [line[5] for line in mine if line[2] == "counted"]
        if number not in hit:
            assert len(counts) == len(set(counts)), "two have counted to the same"
            assert int(found[number]["count"]) == max(counts, default=0)
        before = [line[5] for line in mine if line[2] == "counted" and line[1] < killed - 1]
        after = [line[5] for line in mine if line[2] == "counted" and line[0] > healed]
        assert len(after) == len(set(after))
        assert int(found[number]["count"]) >= max(before + after, default=0)
    store.close()
