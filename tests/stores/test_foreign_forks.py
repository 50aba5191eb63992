"""Forks that Python does not make: uWSGI's, and those of any C program with Python in it.

Such a child hears of nothing. What it inherits - connections, locks that other threads held - it
has to notice by its process id; see `nocookie.forks`.

The bare fork is made by `ctypes.PyDLL`, which keeps the GIL, as uWSGI does: so the child's one
thread has it. `CDLL` would give it up first, and then another thread of the parent may have it at
the fork, for ever in the child: there Python itself stands still. For the same reason no thread of
the parent computes anything at a fork here; those there are wait.
"""

import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from stores.places import places

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

READS = 1000

# -- a bare fork ---------------------------------------------------------------------------------

#: Three children and their parent read at once, and change something now and then. Each stops at
#: the first thing that is wrong: else whoever waits for an answer that another has got, waits long.
BARE = """
import ctypes, json, os, sys, threading, time

options, reads, faulty = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "faulty"
if faulty:
    os.getpid = lambda: 1
from nocookie.options import resolve
from nocookie.stores import open_store
from nocookie.stores.base import Delta, Record

VISITORS, CHILDREN, CONNECTIONS = 40, 3, 4
store = open_store(options["type"], resolve(None, options))
keys = [f"{number:064x}" for number in range(VISITORS)]

def read(begin, count, wrong):
    for number in range(begin, begin + count):
        if wrong:
            return
        number %= VISITORS
        try:
            who = store.load(keys[number]).fields["who"]
            if who != b"%d" % number:
                wrong.append(f"foreign: {who}, not {number}")
            if number % 10 == 0:
                store.save(keys[number], Delta({"seen": b"1"}), 600)
        except Exception as error:
            wrong.append(f"error: {error!r}")

def in_threads(count, wrong):
    threads = [
        threading.Thread(target=read, args=(7 * number, count // CONNECTIONS, wrong))
        for number in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

for number, key in enumerate(keys):
    store.create(key, Record({"who": b"%d" % number}, 0.0, 0.0, 0.0, 0), 600)
warm = []
in_threads(4 * VISITORS, warm)
assert not warm, warm

c_fork = ctypes.PyDLL(None).fork
children, results = [], []
for _ in range(CHILDREN):
    source, target = os.pipe()
    pid = c_fork()
    if pid == 0:
        wrong = []
        try:
            in_threads(reads, wrong)
            os.write(target, json.dumps(wrong[:3]).encode())
        finally:
            os._exit(0)
    os.close(target)
    children.append((pid, source))
wrong = []
in_threads(reads, wrong)
results.append(wrong[:3])
for pid, source in children:
    with open(source, "rb") as pipe:
        results.append(json.loads(pipe.read() or '["error: it has not answered"]'))
    os.waitpid(pid, 0)
print(json.dumps(results), flush=True)
os._exit(0)
"""


def bare_fork(python, options, fault="right"):
    """Return what went wrong: of the parent, and of each child."""
    out, _ = python(BARE, json.dumps(options), READS, fault).communicate(timeout=120)
    return json.loads(out)


@places()
def test_children_of_a_bare_fork_and_their_parent_read_no_foreign_session(place, python):
    options = place.options if "shared" in place.powers else {"type": place.name}
    assert bare_fork(python, options) == [[]] * 4


@pytest.mark.server
def test_without_a_look_at_the_process_id_the_same_goes_wrong(valkey, python):
    """The tests above can fail."""
    options = {"type": "redis", "url": f"redis://127.0.0.1:{valkey.port}", "deadline": 2.0}
    assert any(bare_fork(python, options, "faulty"))


# -- locks ---------------------------------------------------------------------------------------

#: Another thread is within `held` at the fork; the child does `use`.
LOCKED = """
import ctypes, os, signal, sys, threading, time
from contextlib import ExitStack

folder, held, use = sys.argv[1:]
exec(held)
c_fork = ctypes.PyDLL(None).fork
holding, release = threading.Event(), threading.Event()

def hold():
    with ExitStack() as stack:
        for one in locks():
            stack.enter_context(one)
        holding.set()
        release.wait()

threading.Thread(target=hold, daemon=True).start()
assert holding.wait(10)
pid = c_fork()
if pid == 0:
    signal.alarm(20)
    begun = time.monotonic()
    code = 1
    try:
        exec(use)
        assert time.monotonic() - begun < 10
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), flush=True)
os._exit(0)
"""

#: What holds which locks, and what a child has to be able to do.
LOCKS = {
    "events": (
        """
from nocookie.events import Events
events = Events()
locks = lambda: [events._lock.here()]
""",
        "events.emit('created'); assert events.counts() == {'created': 1}",
    ),
    "registry": (
        """
from nocookie import stores
locks = lambda: [stores._lock.here()]
""",
        "stores.open_store('memory', {}); stores.close_all()",
    ),
    "memory": (
        """
from nocookie.stores.memory import MemoryStore
from nocookie.stores.base import Record
store = MemoryStore()
locks = lambda: [store._lock.here()]
""",
        "store.create('0' * 64, Record({}, 0.0, 0.0, 0.0, 0), 60)",
    ),
    "memory, where the kernel wipes no page": (
        """
from nocookie import forks
from nocookie.stores.memory import MemoryStore
from nocookie.stores.base import Record
forks._is_known = bytes(1)
store = MemoryStore()
locks = lambda: [store._lock.here()]
""",
        "store.create('0' * 64, Record({}, 0.0, 0.0, 0.0, 0), 60)",
    ),
    "a pool, and every connection of it": (
        """
from nocookie.stores.base import Record
from nocookie.stores.file import FileStore
store = FileStore(data_dir=folder, pool_size=1, deadline=30)
store.create('0' * 64, Record({"a": b"1"}, 0.0, 0.0, 0.0, 0), 60)
pool = store._pool.here()
taken = pool.take(0)
locks = lambda: [pool._returned]
""",
        "assert store.load('0' * 64).fields == {'a': b'1'}; store.close()",
    ),
    "a cluster's map": (
        """
from nocookie import StoreError, StoreTimeout
from nocookie.stores.redis import RedisStore
store = RedisStore(url="redis+cluster://127.0.0.1:1", deadline=30)
locks = lambda: [store._wire._asking.here()]
""",
        """
try:
    store.load('0' * 64)
except StoreError as error:
    assert not isinstance(error, StoreTimeout)
""",
    ),
    "a database's gate, pool, and close": (
        """
from nocookie.stores.base import Record
from nocookie.stores.sqlalchemy import SqlAlchemyStore
url = f"sqlite:///{folder}/sessions.db"
store = SqlAlchemyStore(url=url, create_table=True, deadline=30)
store.create('0' * 64, Record({"a": b"1"}, 0.0, 0.0, 0.0, 0), 60)
process, pool = store._process.here(), store._engine.pool
locks = lambda: [process.closing, process.gate._changed, pool._overflow_lock, pool._pool.mutex]
""",
        "assert store.load('0' * 64).fields == {'a': b'1'}; store.close()",
    ),
    "the watchdog": (
        """
from nocookie.stores.sqlalchemy import calls
locks = lambda: [calls._watchdog.here()._starting]

class Due:
    until, over = 0.0, threading.Event()
    def shut(self):
        self.over.set()
""",
        "calls._watchdog.here().watch(Due()); assert Due.over.wait(5)",
    ),
    "a watchdog that runs": (
        """
from nocookie.stores.sqlalchemy import calls

class Due:
    until, over = 0.0, threading.Event()
    def shut(self):
        self.over.set()
calls._watchdog.here().watch(Due())
assert Due.over.wait(5)
locks = lambda: []
""",
        "Due.over.clear(); calls._watchdog.here().watch(Due()); assert Due.over.wait(5)",
    ),
    "another fork": (
        """
from nocookie import forks
from nocookie.stores.file import FileStore
store = FileStore(data_dir=folder)
locks = lambda: [forks._forking.here(), forks._making.setdefault(os.getpid(), threading.RLock())]
""",
        """
FileStore(data_dir=folder)
grandchild = os.fork()
if not grandchild:
    store.load('0' * 64)
    os._exit(0)
assert os.waitpid(grandchild, 0)[1] == 0
store.load('0' * 64)
""",
    ),
}


@pytest.mark.parametrize("what", LOCKS)
def test_a_lock_that_another_thread_has_at_a_bare_fork_holds_no_child_up(what, python, tmp_path):
    held, use = LOCKS[what]
    out, _ = python(LOCKED, tmp_path, held, use).communicate(timeout=60)
    assert out == "0\n"


# -- uWSGI ---------------------------------------------------------------------------------------

FLAGS = {
    "alone": [],
    "with the child's hook": ["--py-call-osafterfork"],
    "with threads": ["--enable-threads", "--threads", "2"],
    "with both": ["--enable-threads", "--threads", "2", "--py-call-osafterfork"],
}
#: On Python 3.13 no worker of uWSGI 2.0.30 answers with that option, whatever it serves.
WORKING_FLAGS = [
    name
    for name, flags in FLAGS.items()
    if "--py-call-osafterfork" not in flags or sys.version_info < (3, 13)
]


@pytest.fixture
def uwsgi(place, tmp_path):
    """`uwsgi(*options)` serves `foreign_app` with the place."""
    from realservers.uwsgi import Uwsgi

    started = []

    def start(*options):
        environ = {"NOCOOKIE_OPTIONS": json.dumps(place.options)}
        folder = tmp_path / "uwsgi"
        folder.mkdir()
        server = Uwsgi(folder, "stores.foreign_app:application", environ, *options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


class Clients:
    """Many visitors of one server, who ask at the same time."""

    def __init__(self, server):
        self.server = server
        self.ids = self._get("/ids")
        #: By the process id of a worker: how many sessions it has read.
        self.reads = {}
        self.wrong = []
        self._lock = threading.Lock()

    def ask_until(self, enough):
        until = time.monotonic() + 60

        def ask(first):
            number = first
            while not enough(self.reads) and not self.wrong:
                assert time.monotonic() < until, self.reads
                number = (number + 7) % len(self.ids)
                answer = self._get(f"/?{number}", self.ids[number])
                with self._lock:
                    self.wrong += answer["wrong"]
                    if "pid" in answer:
                        pid = answer["pid"]
                        self.reads[pid] = self.reads.get(pid, 0) + answer["reads"]

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, range(6)))

    def _get(self, path, id=None):
        headers = {} if id is None else {"X-Session-Id": id}
        request = urllib.request.Request(self.server.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            return {"wrong": [f"error: {error.code}"]}


@places("shared")
@pytest.mark.parametrize("flags", WORKING_FLAGS)
def test_workers_of_uwsgi_read_no_foreign_session_nor_does_one_that_comes_later(
    place, uwsgi, flags
):
    server = uwsgi(*FLAGS[flags])
    clients = Clients(server)
    clients.ask_until(lambda reads: len(reads) == 3)
    assert clients.wrong == []
    killed = next(iter(clients.reads))
    os.kill(killed, signal.SIGKILL)
    clients.ask_until(
        lambda reads: sum(n >= READS for pid, n in reads.items() if pid != killed) == 3
    )
    assert clients.wrong == []
