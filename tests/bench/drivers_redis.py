"""What could speak to Redis for the store: which promises each driver keeps, and what it costs.

Every cell of the first table is an experiment that was run just now, in a process of its own,
against a real Valkey behind a relay that does what networks do. The second table has what the
store's own calls cost on each driver, in turns, in one run. `make bench-drivers` runs it:

    python tests/bench/drivers_redis.py [--rounds N] [--only NAME] [--no-figures | --no-promises]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib.metadata
import itertools
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # for redis_candidates, and for realservers

if __name__ == "__main__" and "--gevent" in sys.argv:
    from gevent import monkey

    monkey.patch_all()

from redis_candidates import DEADLINE, DRIVERS, RedisPyConnection  # noqa: E402

from nocookie.errors import StoreError  # noqa: E402
from nocookie.stores.base import Delta, Record  # noqa: E402
from nocookie.stores.redis import RedisStore  # noqa: E402
from nocookie.stores.redis_connection import ErrorReply  # noqa: E402

#: Seconds that a call may take beyond its deadline on a machine that does other things.
SLACK = 1.0
#: The deadline where none is missed.
LONG = 30
#: Seconds after which an experiment counts as hanging.
PATIENCE = 15

# -- what networks do ----------------------------------------------------------------------------


class Relay:
    """Passes on what comes, until *marker* is in a request: then *act* has the answer."""

    def __init__(self, port, marker=b"", act=None):
        self.target, self.marker, self.act = port, marker, act
        self.seen = 0
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with contextlib.suppress(OSError), client:
            server = socket.create_connection(("127.0.0.1", self.target))
            with server:
                marked = False
                while True:
                    ready = select.select([client, server], [], [])[0]
                    if client in ready:
                        data = client.recv(65536)
                        if not data:
                            return
                        if self.act is not None and self.marker in data:
                            self.seen += data.count(self.marker) if self.marker else 1
                            marked = True
                        server.sendall(data)
                    if server in ready:
                        data = server.recv(65536)
                        if not data:
                            return
                        if not marked:
                            client.sendall(data)
                        elif not self.act(self, client, data):
                            return
                        else:
                            marked = False

    def close(self):
        self.over.set()
        self.listener.close()


def silence(relay, client, data):
    relay.over.wait(2 * PATIENCE)


def drops(relay, client, data):
    client.sendall(b"+")
    while not relay.over.wait(0.05):
        client.sendall(b"OK")


def without_end(relay, client, data):
    """There is always more to read, and never an answer. Not for ever, nobody has the memory."""
    over = time.monotonic() + 8 * DEADLINE
    client.sendall(b"+")
    while time.monotonic() < over and not relay.over.is_set():
        client.sendall(b"a" * 4096)
    return False


def hang_up(relay, client, data):
    return False


def late(relay, client, data):
    relay.over.wait(DEADLINE / 2)
    client.sendall(data)
    return True


def instead(answer):
    def act(relay, client, data):
        client.sendall(answer)
        relay.over.wait(0.2)
        return True

    return act


PRIVATE = "do-not-show"
#: What a broken server or something between might say: neither is an answer to a GET.
MALFORMED = (
    b"?%b\r\n" % PRIVATE.encode(),
    b":%b\r\n" % PRIVATE.encode(),
    b"HTTP/1.1 502 %b\r\n\r\n" % PRIVATE.encode(),
    b"$-7\r\n",
    b"$3\r\nown\r\n$7\r\nforeign\r\n",
    b"-%b no error that is known\r\n" % PRIVATE.encode(),
)

# -- experiments: `setup` in this process, `run` in one that has the driver ----------------------


def outcome(driver, *command, deadline=DEADLINE):
    """What a call ends in, and how late."""
    begun = time.monotonic()
    try:
        answer = driver.call(command[-1], command, begun + deadline, False)
    except StoreError as error:
        answer = error
    return answer, time.monotonic() - begun - deadline


def ends(driver):
    answer, late_by = outcome(driver, b"GET", b"k")
    if not isinstance(answer, StoreError):
        return f"no, it returned {answer!r}"[:60]
    return True if late_by < SLACK else f"no, {late_by + DEADLINE:.1f} s"


def ends_warm(driver):
    """Once there is a connection."""
    outcome(driver, b"SET", b"warm", b"1", deadline=5)
    return ends(driver)


def ends_large(driver):
    """A save that the other end does not read."""
    outcome(driver, b"SET", b"warm", b"1", deadline=5)
    answer, late_by = outcome(driver, b"SET", b"k", b"v" * 30_000_000)
    if not isinstance(answer, StoreError):
        return "no, it returned"
    return True if late_by < SLACK else f"no, {late_by + DEADLINE:.1f} s"


def dead_addresses(driver):
    """A name with four addresses, of which none answers a connection."""
    real = socket.getaddrinfo
    socket.getaddrinfo = lambda *given, **more: real(*given, **more)[:1] * 4
    return ends(driver)


def counted_once(driver):
    outcome(driver, b"SET", b"warm", b"1", deadline=5)
    answer, _ = outcome(driver, b"INCR", b"k")
    return True if isinstance(answer, StoreError) else f"no, it returned {answer!r}"


def read_own(driver, number):
    time.sleep(DEADLINE / 2)  # until everybody is there
    for _ in range(500):
        name = b"own-%d" % number
        answer = driver.call(name, (b"GET", name), time.monotonic() + 5, False)
        if answer != b"%d" % number:
            raise AssertionError(f"{name} is {answer!r}"[:80])


def forks(driver, fork):
    """Children and parent read at once, on what was opened before."""
    for number in range(3):
        name = b"own-%d" % number
        driver.call(name, (b"SET", name, b"%d" % number), time.monotonic() + 5, False)
    children = []
    for number in (1, 2):
        pid = fork()
        if pid == 0:
            code = 1
            signal.alarm(int(PATIENCE / 2))
            try:
                read_own(driver, number)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    try:
        read_own(driver, 0)
        said = True
    except (AssertionError, StoreError) as error:
        said = f"no, the parent: {error}"
    for pid in children:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            said = "no, no answer in a child" if status == -signal.SIGALRM else "no, a child fails"
    return said


def os_fork(driver):
    return forks(driver, os.fork)


def c_fork(driver):
    return forks(driver, ctypes.PyDLL(None).fork)


def killed_greenlets(driver):
    """One that waits is killed; what it asked for must not come to another."""
    import gevent

    outcome(driver, b"SET", b"theirs", b"theirs", deadline=5)
    for name in (b"GETRANGE", b"GET"):
        outcome(driver, b"SET", b"mine", b"mine", deadline=5)
        slow = (b"GETRANGE", b"theirs", b"0", b"-1")
        waiting = gevent.spawn(driver.call, b"theirs", slow, time.monotonic() + 5, False)
        gevent.sleep(DEADLINE / 5)
        waiting.kill(block=name == b"GET", timeout=2)
        for _ in range(10):
            answer, _ = outcome(driver, b"GET", b"mine", deadline=5)
            if answer != b"mine":
                return f"no, it gives {answer!r}"[:60]
            gevent.sleep(DEADLINE / 10)
    return True


def does_not_block(driver):
    """While one greenlet waits, others run."""
    import gevent

    outcome(driver, b"SET", b"warm", b"1", deadline=5)
    worst = 0.0
    waiting = gevent.spawn(outcome, driver, b"GET", b"k")
    while not waiting.ready():
        begun = time.monotonic()
        gevent.sleep(0.01)
        worst = max(worst, time.monotonic() - begun)
    return True if worst < 0.3 else f"no, for {worst:.1f} s"


def malformed(driver):
    """Ends in an error that says nothing of it, and the next call has its own answer."""
    outcome(driver, b"SET", b"mine", b"mine", deadline=5)
    answer, late_by = outcome(driver, b"GET", b"k")
    if isinstance(answer, StoreError):
        text = "".join(traceback.format_exception(answer))
        if PRIVATE in text:
            return "no, its text is shown"
    elif not isinstance(answer, ErrorReply) and answer != b"own":
        return f"no, it returned {answer!r}"[:60]
    if late_by > SLACK:
        return f"no, {late_by + DEADLINE:.1f} s"
    for _ in range(3):
        answer, _ = outcome(driver, b"STRLEN", b"mine", deadline=5)
        if answer != 4:
            return f"no, then {answer!r}"[:60]
    return True


GET, INCR = b"\r\nk\r\n", b"INCR"
#: Of each promise, the experiments: name, what runs, what the relay does to which request, and
#: what is special about it.
EXPERIMENTS = {
    "a reply in drops": (ends_warm, GET, drops),
    "a reply without end": (ends_warm, GET, without_end),
    "a silent server": (ends_warm, GET, silence),
    "a command that is not read": (ends_large, b"\r\nk\r\n", silence, "deaf"),
    "a silent handshake": (ends, b"", silence),
    "a handshake in drops": (ends, b"", drops, "password"),
    "four dead addresses": (dead_addresses, None, None, "dead"),
    "a cluster in drops": (ends, b"", drops, "cluster url"),
    "a cluster, one reply in drops": (ends_warm, GET, drops, "cluster"),
    "sent once, hung up": (counted_once, INCR, hang_up),
    "sent once, no answer": (counted_once, INCR, silence),
    "sent once in a cluster, hung up": (counted_once, INCR, hang_up, "cluster"),
    "sent once in a cluster, no answer": (counted_once, INCR, silence, "cluster"),
    "os.fork": (os_fork, None, None),
    "a fork of C": (c_fork, None, None),
    "a killed greenlet": (killed_greenlets, b"GETRANGE", late, "gevent"),
    "other greenlets run on": (does_not_block, GET, silence, "gevent"),
    **{
        f"malformed reply {number}": (malformed, GET, instead(answer))
        for number, answer in enumerate(MALFORMED, 1)
    },
}


@contextlib.contextmanager
def dead_port():
    """A port of this host where a connection is neither taken nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # its queue is full then
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()[1]


@contextlib.contextmanager
def deaf_port():
    """A server that says what is expected of a SET, once, and reads nothing of what is large."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(client):
        with contextlib.suppress(OSError), client:
            while len(data := client.recv(4096)) < 4096:
                if not data:
                    return
                client.sendall(b"+OK\r\n" * data.count(b"*"))
            over.wait(2 * PATIENCE)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    over.set()
    listener.close()


def experiment(name, driver, valkey, node):
    """Run it; return "yes", or "no" and why."""
    function, marker, act, *special = EXPERIMENTS[name]
    special = special[0] if special else ""
    with contextlib.ExitStack() as stack:
        in_cluster = special == "cluster"
        server = node if in_cluster else valkey
        server.ask("FLUSHALL")
        if special == "dead":
            port = stack.enter_context(dead_port())
        elif special == "deaf":
            port = stack.enter_context(deaf_port())
        elif marker is None:
            port = server.port
        else:
            relay = Relay(server.port, marker, act)
            stack.callback(relay.close)
            port = relay.port
        if in_cluster:
            server.ask("CONFIG", "SET", "cluster-announce-port", str(port))
        url = f"{'redis+cluster' if 'cluster' in special else 'redis'}://"
        url += f":a-password@127.0.0.1:{port}" if special == "password" else f"127.0.0.1:{port}"
        words = ["--run", name, "--driver", driver, "--url", url]
        if special == "gevent":
            words.append("--gevent")
        said = in_a_process(words)
        sent = relay.seen if function is counted_once else 1
        if said == "yes" and sent != 1:
            said = f"no, {sent} times"
        if in_cluster:
            server.ask("CONFIG", "SET", "cluster-announce-port", str(server.port))
        return said


def in_a_process(words):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"no, over {PATIENCE} s"
    lines = [line for line in out.splitlines() if line.startswith("said ")]
    if lines:
        return json.loads(lines[-1][5:])
    if process.returncode < 0:
        return f"no, {signal.Signals(-process.returncode).name}"
    last = err.strip().splitlines()[-1] if err.strip() else f"exit {process.returncode}"
    return f"no, {last.partition(':')[0]}"


def run(name, driver, url):
    """In the process of an experiment."""
    if "cluster" in url and DRIVERS[driver] is RedisPyConnection:
        said = "has none"
    else:
        said = EXPERIMENTS[name][0](DRIVERS[driver](url))
    print("said", json.dumps("yes" if said is True else said), flush=True)
    os._exit(0)  # with whatever threads are left


# -- figures -------------------------------------------------------------------------------------


class On(RedisStore):
    """The store on another driver."""

    def __init__(self, url, driver):
        super().__init__(url=url, deadline=LONG)
        self._wire = driver(url, LONG)


def figures(url, names, rounds):
    """Seconds of the calls of the store, by driver and call: the 10th percentile."""
    session = {name: bytes(40) for name in ("user", "csrf", "cart")}
    calls = {}
    for name in names:
        store = On(url, DRIVERS[name])
        key = f"f{names.index(name):063x}"
        store.create(key, Record(session, time.time(), 0.0, 0.0, 0), 1800)
        fresh = map(f"{names.index(name):032x}{{:032x}}".format, itertools.count())
        calls[name] = {
            "read": lambda store=store, key=key: store.load_and_touch(key, 1800, 43200, 60),
            "save": lambda store=store, key=key: store.save(key, Delta({"cart": bytes(40)}), 1800),
            "create": lambda store=store, fresh=fresh: store.create(
                next(fresh), Record(session, time.time(), 0.0, 0.0, 0), 1800
            ),
        }
    calls["Beaker's ext:redis"] = beakers(url, session)
    samples = {(name, call): [] for name in calls for call in calls[name]}
    order = list(samples)
    chance = random.Random(1)
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        chance.shuffle(order)
        gc.collect()
        gc.disable()
        for name, call in order:
            one = calls[name][call]
            one()
            for _ in range(20):
                begun = time.perf_counter()
                one()
                samples[name, call].append(time.perf_counter() - begun)
        gc.enable()
    print("\r", end="", file=sys.stderr)
    return {key: sorted(times)[len(times) // 10] for key, times in samples.items()}


def beakers(url, session):
    """What Beaker asks of its own store for the same."""
    from beaker.session import Session

    def opened(id=None):
        return Session({}, id=id, use_cookies=False, type="ext:redis", url=url, timeout=1800)

    def create():
        new = opened()
        new.update(session)
        new.save()
        return new.id

    known = create()

    def save():
        one = opened(known)
        one["cart"] = bytes(40)
        one.save()

    return {"read": lambda: opened(known)["user"], "save": save, "create": create}


# -- both tables ---------------------------------------------------------------------------------


def versions(name):
    return ", ".join(f"{p} {importlib.metadata.version(p)}" for p in DRIVERS[name].packages)


def table(head, rows):
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", help="experiments whose name has this in it")
    parser.add_argument("--no-figures", action="store_true")
    parser.add_argument("--no-promises", action="store_true")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--driver", action="append", help="these candidates alone")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--gevent", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run, arguments.driver[0], arguments.url)
    from realservers import free_port
    from realservers.valkey import Valkey

    names = arguments.driver or list(DRIVERS)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = []
        in_cluster = {"cluster_enabled": "yes", "cluster_port": free_port()}
        for name, options in ("alone", {}), ("node", in_cluster):
            (Path(folder) / name).mkdir()
            server = Valkey(Path(folder) / name, **options)
            server.start()
            stack.callback(server.stop)
            servers.append(server)
        valkey, node = servers
        node.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        node.ask("CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")
        for name in names:
            print(f"{name}: {versions(name)}")
        print()
        if not arguments.no_promises:
            asked = [name for name in EXPERIMENTS if (arguments.only or "") in name]
            rows = []
            for name in asked:
                print(f"\r{name:50}", end="", file=sys.stderr, flush=True)
                rows.append([name, *(experiment(name, driver, valkey, node) for driver in names)])
            print("\r", end="", file=sys.stderr)
            table(["promise", *names], rows)
        if not arguments.no_figures:
            found = figures(valkey.url, names, arguments.rounds)
            rows = [
                [name, *(f"{found[name, call] / found[names[0], call]:.2f}" for call in
                         ("read", "save", "create"))]
                for name in dict.fromkeys(name for name, _ in found)
            ]  # fmt: skip
            table([f"p10, {names[0]} = 1", "read", "save", "create"], rows)


if __name__ == "__main__":
    main()
