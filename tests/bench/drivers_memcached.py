"""Which driver for memcached keeps the promises of a session store, and what each costs.

`make bench-drivers` runs it, with what BENCH names:

    python tests/bench/drivers_memcached.py [--rounds N] [--only PROMISE]
        [--no-figures | --no-promises]

It prints two tables. In the first a column is a candidate (tests/bench/memcached_candidates.py) and
a row is a promise; a cell is the outcome of an experiment that has been made just now, against a
server that misbehaves on purpose or against a real one, in a process of its own. The second is what
a candidate's commands cost, as a multiple of ours: the tenth percentile of many short samples, with
the candidates in turns.
"""

import argparse
import ctypes
import gc
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

DEADLINE = 0.5
#: How much later a call may end, on a machine that is busy, and still have ended at its deadline.
LATE = 0.4
#: Seconds after which an experiment counts as one that hangs.
PATIENCE = 20
A, B = b"nocookie:" + b"a" * 64, b"nocookie:" + b"b" * 64
TOKEN = b"17"


# -- a server that misbehaves on purpose ----------------------------------------------------------


class Fake:
    """Gives each command to `answer(words, connection)`, which returns pieces to be sent, numbers
    of seconds to be waited in between, or None to close the connection. It speaks the commands of
    both of memcached's protocols."""

    def __init__(self, answer):
        self.answer = answer
        self.commands = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            serve = threading.Thread(target=self.serve, args=(connection,), daemon=True)
            serve.start()

    def serve(self, connection):
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    words = line.split()
                    size = {b"add": 4, b"cas": 4, b"replace": 4, b"ms": 2}.get(words[0])
                    if size:
                        lines.read(int(words[size]) + 2)
                    self.commands.append(words)
                    pieces = self.answer(words, self.connections)
                    if pieces is None:
                        return
                    for piece in pieces:
                        if isinstance(piece, bytes):
                            connection.sendall(piece)
                        else:
                            time.sleep(piece)
            except OSError:
                pass


def held(words, item=b"a\r\nbc", token=TOKEN):
    """The answer to a read."""
    if words[0] == b"mg":
        return b"VA %d c%b\r\n%b\r\n" % (len(item), token, item)
    return b"VALUE %b 0 %d %b\r\n%b\r\nEND\r\n" % (words[1], len(item), token, item)


def done(words):
    """The answer that says yes to any other command."""
    yes = {b"ms": b"HD", b"md": b"HD", b"delete": b"DELETED"}
    return yes.get(words[0], b"STORED") + b"\r\n"


def well(words, connection):
    return [held(words) if words[0] in (b"gets", b"mg") else done(words)]


def its_name(words, connection):
    """After a while, an item that says which it is."""
    return [0.2, held(words, words[1])]


# -- experiments: each returns None, or what went wrong -------------------------------------------


COMMANDS = {
    "gets": lambda driver: driver.gets(A),
    "add": lambda driver: driver.add(A, b"item", 60),
    "cas": lambda driver: driver.cas(A, b"item", TOKEN, 60),
    "delete": lambda driver: driver.delete(A),
    "delete_if": lambda driver: driver.delete_if(A, TOKEN),
}


def held_for(call):
    """Seconds that a call takes, PATIENCE / 4 at most; and what it returned or raised."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    begin = time.monotonic()
    thread.start()
    thread.join(PATIENCE / 4)
    return time.monotonic() - begin, outcome[0] if outcome else None


def one_deadline(make, memcached_port):
    def trickle(words, connection):
        answer = held(words, b"x" * 60) if words[0] in (b"gets", b"mg") else b"x" * 60
        return [part for byte in answer for part in (bytes([byte]), 0.1)]

    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    waiting = [socket.socket() for _ in range(3)]
    for sock in waiting:
        sock.setblocking(False)
        sock.connect_ex(full.getsockname())
    unread = socket.create_server(("127.0.0.1", 0))
    large = b"x" * 30_000_000
    faults = [
        ("is silent", Fake(lambda *_: []).port, COMMANDS),
        ("sends a byte each 0.1 s", Fake(trickle).port, COMMANDS),
        ("does not take the connection", full.getsockname()[1], {"gets": COMMANDS["gets"]}),
        (
            "takes the connection and reads nothing",
            unread.getsockname()[1],
            {"add of 30 MB": lambda driver: driver.add(A, large, 60)},
        ),
    ]
    for fault, port, commands in faults:
        for name, command in commands.items():
            driver = make(port, DEADLINE)
            seconds, outcome = held_for(lambda driver=driver, command=command: command(driver))
            if seconds > DEADLINE + LATE:
                longer = "over " * (seconds > PATIENCE / 4)
                return f"{name}, of a server that {fault}, takes {longer}{seconds:.1f} s"
            if not isinstance(outcome, Exception):
                return f"{name}, of a server that {fault}, returns {outcome}"
    return None


def sent_once(make, memcached_port):
    for name, command in COMMANDS.items():
        for before in (0, 1):  # on a new connection, and on one that has been used
            answers = iter([well] * before)

            def answer(words, connection, answers=answers):
                return next(answers, lambda *_: None)(words, connection)

            fake = Fake(answer)
            driver = make(fake.port, DEADLINE)
            for _ in range(before):
                command(driver)
            _, outcome = held_for(lambda driver=driver, command=command: command(driver))
            time.sleep(0.1)
            if len(fake.commands) != before + 1:
                return f"{name} whose answer is lost is sent {len(fake.commands) - before} times"
            if not isinstance(outcome, Exception):
                return f"{name} whose answer is lost returns {outcome}"
    return None


def after_fork(fork):
    def experiment(make, memcached_port):
        fake = Fake(its_name)
        driver = make(fake.port, 5)
        driver.gets(A)

        def ask(name, after):
            time.sleep(after)
            try:
                return 0 if driver.gets(name)[0] == name else 1
            except Exception:
                return 2

        child = fork()
        if not child:
            status = 2
            try:
                status = ask(B, 0.05)  # while the parent waits
            finally:
                os._exit(status)
        parent = ask(A, 0)
        _, child = os.waitpid(child, 0)
        outcomes = {"parent": parent, "child": os.waitstatus_to_exitcode(child)}
        for who, outcome in outcomes.items():
            if outcome:
                return f"the {who} gets " + ("the other's answer" if outcome == 1 else "an error")
        return None if fake.connections == 2 else "the child goes on with the parent's connection"

    return experiment


def killed_greenlets(make, memcached_port):
    """In a process of its own, as gevent changes it from the start."""
    return in_greenlets("killed", make)


def others_go_on(make, memcached_port):
    return in_greenlets("others", make)


def in_greenlets(what, make):
    fake = Fake(its_name)
    name = next(name for name, each in candidates().items() if each is make)
    command = [sys.executable, __file__, "--greenlets", what, name, str(fake.port)]
    return verdict(command)


def greenlets(what, make, port):
    import gevent

    if what == "others":
        ticks = []

        def tick():
            while True:
                gevent.sleep(0.01)
                ticks.append(1)

        ticking = gevent.spawn(tick)
        make(port, 5).gets(A)
        ticking.kill()
        return None if len(ticks) >= 5 else "while one waits 0.2 s, all of them do"
    for how in ("killed", "timed out"):
        driver = make(port, 5, 1)
        driver.gets(A)
        if how == "killed":
            waiting = gevent.spawn(driver.gets, A)
            gevent.sleep(0.05)
            waiting.kill()
        else:
            with gevent.Timeout(0.05, False):
                driver.gets(A)
        for _ in range(2):
            try:
                item, _ = driver.gets(B)
            except Exception as error:
                return f"after a greenlet that is {how}, the next gets a {type(error).__name__}"
            if item != B:
                return f"the next greenlet gets the answer to one that is {how}"
    return None


#: What becomes of a right answer, and how that is called. Each ends: a driver need not wait.
MALFORMED = {
    "cut short": lambda answer: answer[:-1],
    "with a byte more": lambda answer: answer + b"E",
    "two answers": lambda answer: answer + answer,
    "an empty line": lambda answer: b"\r\n",
    "a word of another command": lambda answer: b"TOUCHED\r\n",
    "a word in small letters": lambda answer: answer.lower(),
    "a refusal": lambda answer: b"SERVER_ERROR hunter2\r\n",
    "not understood": lambda answer: b"ERROR\r\n",
    "garbage": lambda answer: bytes(range(128, 256)) + b"\r\n",
}
#: More, for an item.
NO_ITEM = {
    "an item with a smaller size": lambda answer: answer.replace(b" 5 ", b" 4 "),
    "an item with a larger size": lambda answer: answer.replace(b" 5 ", b" 6 "),
    "an item whose size is no number": lambda answer: answer.replace(b" 5 ", b" x "),
    "an item without a token": lambda answer: answer.replace(b" 17", b"").replace(b" c17", b""),
    "an item of another key": lambda answer: answer.replace(A, B),
}


def malformed(make, memcached_port):
    taken, count = [], 0
    for name, command in COMMANDS.items():
        for what, spoil in {**MALFORMED, **(NO_ITEM if name == "gets" else {})}.items():
            answers = iter([spoil])

            def answer(words, connection, answers=answers):
                right = well(words, connection)[0]
                spoil = next(answers, None)
                if spoil is None:
                    return [held(words, b"next")]
                return [spoil(right), 0.05] if spoil(right) != right else None

            driver = make(Fake(answer).port, DEADLINE)
            seconds, outcome = held_for(lambda driver=driver, command=command: command(driver))
            count += 1
            if seconds > DEADLINE + LATE:
                return f"{name}: {what} holds the call for {seconds:.1f} s"
            if not isinstance(outcome, Exception):
                taken.append(f"{name}: {what}")
            time.sleep(0.06)
            _, item = held_for(lambda driver=driver: driver.gets(A)[0])
            if not isinstance(item, Exception) and item != b"next":
                return f"{name}: {what} is in part the answer to the next command"
    if taken:
        return f"{len(taken)} of {count} are taken for good, such as {taken[0]}"
    return None


def conditional_commands(make, memcached_port):
    driver = make(memcached_port, 5)
    name = A + b"conditional"
    driver.delete(name)

    def expect(what, found, expected):
        if found != expected:
            raise AssertionError(f"{what}: {found!r}")

    expect("gets of nothing", driver.gets(name)[0], None)
    expect("replace of nothing", driver.replace(name, b"0", 60), False)
    expect("cas of nothing", driver.cas(name, b"0", b"1", 60), False)
    expect("delete of nothing", driver.delete(name), False)
    expect("delete of nothing, with a token", driver.delete_if(name, b"1"), False)
    expect("add", driver.add(name, b"\r\n1", 60), True)
    expect("add to an item", driver.add(name, b"2", 60), False)
    item, token = driver.gets(name)
    expect("gets", item, b"\r\n1")
    expect("replace", driver.replace(name, b"", 60), True)
    expect("cas with an old token", driver.cas(name, b"3", token, 60), False)
    expect("delete with an old token", driver.delete_if(name, token), False)
    item, token = driver.gets(name)
    expect("gets of an empty item", item, b"")
    expect("cas", driver.cas(name, b"4", token, 1000), True)
    left = server_at(memcached_port).seconds_left(name.decode())
    expect("exptime", 990 <= left <= 1000, True)
    expect("delete with the token", driver.delete_if(name, driver.gets(name)[1]), True)
    expect("add, then delete", (driver.add(name, b"5", 60), driver.delete(name)), (True, True))


def keys_as_they_are(make, memcached_port):
    for size in (73, 186, 187, 250):
        name, server = b"k" * size, server_at(memcached_port)
        server.ask(f"delete {name.decode()}")
        make(memcached_port, 5).add(name, b"item", 60)
        if server.ask(f"mg {name.decode()}") != b"HD\r\n":
            return f"a key of {size} bytes is stored under another"
    return None


def long_tokens(make, memcached_port):
    """memcached counts its tokens in 64 bits, one for each write."""
    token = 2**32 + 17

    def answer(words, connection):
        if words[0] in (b"gets", b"mg"):
            return [held(words, token=b"%d" % token)]
        return [done(words)]

    fake = Fake(answer)
    driver = make(fake.port, DEADLINE)
    came = driver.gets(A)[1]
    if came != b"%d" % token:
        return f"of a token beyond 32 bits, {came.decode() or 'nothing'} comes"
    driver.cas(A, b"item", came, 60)
    sent = fake.commands[-1]
    if not any(word in (b"%d" % token, b"C%d" % token) for word in sent):
        return "the token is not sent back as it came"
    return None


def bounded_pool(make, memcached_port):
    fake = Fake(its_name)
    driver = make(fake.port, 5, 2)
    errors = []

    def use():
        try:
            driver.gets(A)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        return f"with all in use, the next gets a {type(errors[0]).__name__} at once"
    return f"of 2 connections, it opens {fake.connections}" if fake.connections > 2 else None


def c_fork():
    """As a C extension forks: Python hears nothing of it."""
    return ctypes.PyDLL(None).fork()


PROMISES = {
    "one deadline a call": one_deadline,
    "sent once": sent_once,
    "safe under os.fork": after_fork(os.fork),
    "safe under a fork in C": after_fork(c_fork),
    "greenlets that are killed leave no answer": killed_greenlets,
    "a wait blocks no other greenlet": others_go_on,
    "malformed answers are errors": malformed,
    "commands with a condition": conditional_commands,
    "keys as they are": keys_as_they_are,
    "tokens of 64 bits": long_tokens,
    "a bounded pool that waits": bounded_pool,
}


def candidates():
    from memcached_candidates import CANDIDATES

    return CANDIDATES


def server_at(port):
    from realservers.memcached import Memcached

    server = Memcached(Path())
    server.port = port
    return server


def verdict(command):
    """What an experiment in a process of its own says last."""
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return "it does not end"
    said = ran.stdout.splitlines()
    if ran.returncode or not said:
        return "it fails: " + (ran.stderr.strip().splitlines() or ["no word"])[-1][:90]
    return None if said[-1] == "yes" else said[-1]


def promises(port, only):
    """Print the table, or the rows that have *only* in their name; below, why a cell is a no."""
    names = list(candidates())
    packages = ("nocookie", "pymemcache", "meta-memcache", "meta-memcache-socket", "gevent")
    print(", ".join(f"{package} {version(package)}" for package in packages) + "\n")
    print("| promise | " + " | ".join(names) + " |")
    print("| --- |" + " --- |" * len(names))
    reasons = []
    for promise in PROMISES:
        if only not in promise:
            continue
        cells = []
        for name in names:
            why = verdict([sys.executable, __file__, "--experiment", promise, name, str(port)])
            cells.append("no" if why else "yes")
            if why:
                reasons.append(f"- {name}, {promise}: {why}")
        print(f"| {promise} | " + " | ".join(cells) + " |", flush=True)
    without = "import sys; sys.modules['meta_memcache_socket'] = None; import meta_memcache"
    why = verdict([sys.executable, "-c", f"{without}; print('yes')"])
    print("\n" + "\n".join(reasons))
    print(f"- meta-memcache without meta-memcache-socket: {why or 'it can be imported'}")


# -- figures ------------------------------------------------------------------------------------


#: How many calls are timed together: some milliseconds, short enough to fall between the slices of
#: whatever else runs. One more goes before, untimed.
CALLS = 64


class Cell:
    """One operation of one candidate on an item of one size."""

    def __init__(self, driver, operation, item, label):
        self.driver, self.item, self.samples = driver, item, []
        self.operation = getattr(self, operation)
        self.name = b"nocookie:bench:" + label
        self.number = 0
        driver.add(self.name, item, 600)

    def sample(self):
        self.operation()
        begin = time.perf_counter()
        for _ in range(CALLS):
            self.operation()
        self.samples.append(time.perf_counter() - begin)

    def read(self):
        self.driver.gets(self.name)

    def save(self):
        _, token = self.driver.gets(self.name)
        self.driver.cas(self.name, self.item, token, 600)

    def create(self):
        self.number += 1
        self.driver.add(b"%b:%d" % (self.name, self.number), self.item, 600)

    @property
    def figure(self):
        return sorted(self.samples)[len(self.samples) // 10]


def figures(port, rounds):
    from memcached_candidates import CANDIDATES, PythonMemcached

    from nocookie.stores.base import pack

    makes = {**CANDIDATES, "python-memcached": PythonMemcached}
    small = {"user_id": b"123456", "name": b'"Ada Lovelace"', "csrf": b"x" * 34}
    large = {"user_id": b"123456"} | {f"key_{n:03}": b"x" * 197 for n in range(99)}
    items = {"3 keys": pack(small), "100 keys": pack(large)}
    cells = {
        (name, operation, size): Cell(
            make(port, 30), operation, item, b"%d%d%b" % (number, len(item), operation.encode())
        )
        for number, (name, make) in enumerate(makes.items())
        for size, item in items.items()
        for operation in ("read", "save", "create")
    }
    order = list(cells.values())
    chance = random.Random(1)
    gc.disable()
    for _ in range(rounds):
        chance.shuffle(order)
        for cell in order:
            cell.sample()
        gc.collect()
    columns = [(operation, size) for size in items for operation in ("read", "save", "create")]
    print("times what it costs nocookie; python-memcached reads and saves without a condition\n")
    print("| candidate | " + " | ".join(f"{what}, {size}" for what, size in columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    for name in makes:
        ratios = [cells[name, *c].figure / cells["nocookie", *c].figure for c in columns]
        print(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", default="", help="promises whose name has this in it")
    parser.add_argument("--no-figures", action="store_true")
    parser.add_argument("--no-promises", action="store_true")
    parser.add_argument("--experiment", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--greenlets", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.greenlets:
        from gevent import monkey

        monkey.patch_all()
        what, name, port = arguments.greenlets
        print(greenlets(what, candidates()[name], int(port)) or "yes")
        return
    if arguments.experiment:
        warnings.simplefilter("ignore")
        promise, name, port = arguments.experiment
        print(PROMISES[promise](candidates()[name], int(port)) or "yes", flush=True)
        os._exit(0)  # with threads that still wait
    from realservers.install import main as install
    from realservers.memcached import Memcached

    install(["memcached"])
    folder = tempfile.mkdtemp(prefix="nocookie-bench-")
    server = Memcached(Path(folder))
    server.start()
    try:
        if not arguments.no_promises:
            promises(server.port, arguments.only)
        if not arguments.no_figures:
            print()
            figures(server.port, arguments.rounds)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
