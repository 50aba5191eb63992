"""What a request pays on each store, beside Beaker on the same one in the same run.

Valkey, PostgreSQL and memcached are started here, on this host: so what is measured is the code and
one trip over loopback, not a network. `make bench-stores` runs it, with what BENCH names:

    python tests/bench/stores.py [--rounds N] [--dir FOLDER] [--plot FILE]

A ratio above 1 means that nocookie is cheaper. Behind it, where there is a server to be asked, is
the most that it could be: that of the trips alone, with bytes made beforehand and no answer read.
The last column is how much of a request on the memory store one on this store costs.
"""

import argparse
import contextlib
import random
import shutil
import socket
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # for cells, run and realservers

from cells import SAMPLE, Bare, Cell, Nocookie  # noqa: E402
from run import Beaker  # noqa: E402

OPERATIONS = ("read", "write", "new")


#: About as long as a small session in a store.
VALUE = b"x" * 150
#: By store: what writes that value there and what reads it, and how the answer to each ends.
TRIPS = {
    "redis": (
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$150\r\n%b\r\n" % VALUE, b"+OK\r\n"),
        (b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", VALUE + b"\r\n"),
    ),
    "memcached": (
        (b"set k 0 0 150\r\n%b\r\n" % VALUE, b"STORED\r\n"),
        (b"gets k\r\n", b"END\r\n"),
    ),
}


class Trips(Cell):
    """What no library on this store can do without."""

    def __init__(self, store, operation, port):
        write, read = TRIPS[store]
        self.questions = {"read": [read], "write": [read, write], "new": [write]}[operation]
        self.samples, self.calls = [], 1
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ask(*write)
        while self.sample() < SAMPLE:
            self.calls *= 2

    def request(self):
        for question in self.questions:
            self.ask(*question)

    def ask(self, question, end):
        self.socket.sendall(question)
        answer = self.socket.recv(8192)
        while not answer.endswith(end):
            answer += self.socket.recv(8192)


@contextlib.contextmanager
def servers(folder):
    """Start what is here; yield what both sides are told about it, by the name of the store."""
    from realservers.memcached import Memcached
    from realservers.postgres import Postgres
    from realservers.valkey import Valkey

    with contextlib.ExitStack() as stack:
        options = {
            "memory": ({"type": "memory"}, {"type": "memory"}),
            "file": (
                {"type": "file", "data_dir": f"{folder}/ours"},
                {"type": "file", "data_dir": f"{folder}/theirs"},
            ),
        }
        for name, make in (
            ("redis", lambda: Valkey(room(folder, "valkey"))),
            ("memcached", lambda: Memcached(room(folder, "memcached"))),
            ("postgresql", Postgres),
        ):
            server = make()
            server.start()
            stack.callback(server.stop)
            if name == "redis":
                url = server.url
                options[name] = ({"type": "redis", "url": url}, {"type": "ext:redis", "url": url})
            elif name == "memcached":
                theirs = {"type": "ext:memcached", "url": server.url, "lock_dir": f"{folder}/lock"}
                options[name] = ({"type": "memcached", "url": server.url}, theirs)
            else:
                url = server.url(server.make_database())
                ours = {"type": "sqlalchemy", "url": url, "create_table": True}
                theirs = {"type": "ext:database", "url": url, "lock_dir": f"{folder}/lock"}
                options[name] = (ours, theirs)
        yield options


def room(folder, name):
    path = Path(folder) / name
    path.mkdir()
    return path


def measure(options, rounds):
    cells = {("bare", "", ""): Cell(Bare(), "untouched", "small")}
    for store, sides in options.items():
        for side, make, settings in zip(("ours", "Beaker"), (Nocookie, Beaker), sides, strict=True):
            for operation in OPERATIONS:
                cells[store, side, operation] = Cell(make(**settings), operation, "small")
        if store in TRIPS:
            port = int(sides[0]["url"].rpartition(":")[2].partition("/")[0])
            for operation in OPERATIONS:
                cells[store, "trips", operation] = Trips(store, operation, port)
    order = list(cells.values())
    chance = random.Random(1)
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        chance.shuffle(order)
        for cell in order:
            cell.samples.append(cell.sample() / cell.calls)
    print("\r", end="", file=sys.stderr)
    bare = cells["bare", "", ""].figure
    # Trips are made without a request around them.
    return {key: cell.figure - bare * (key[1] != "trips") for key, cell in cells.items()}


def report(options, figures):
    """Print the table; return, by store, the ratios to Beaker and to the memory store."""
    print("times cheaper than Beaker 1.14.1 without cookies on the same store; 3 small keys\n")
    print("| store | " + " | ".join(OPERATIONS) + " | a read, in reads from memory |")
    print("| --- |" + " --- |" * (len(OPERATIONS) + 1))
    lines = {}
    for store in options:
        ratios = [figures[store, "Beaker", o] / figures[store, "ours", o] for o in OPERATIONS]
        cost = figures[store, "ours", "read"] / figures["memory", "ours", "read"]
        lines[store] = ratios, cost
        texts = [f"{ratio:.1f}" for ratio in ratios]
        if store in TRIPS:
            most = [figures[store, "Beaker", o] / figures[store, "trips", o] for o in OPERATIONS]
            texts = [f"{text} of {best:.1f}" for text, best in zip(texts, most, strict=True)]
        print(f"| {store} | {' | '.join(texts)} | {cost:.0f} |")
    return lines


def plot(lines, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "nocookie"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    names = list(lines)
    for number, operation in enumerate(OPERATIONS):
        places = [place + 0.27 * number for place in range(len(names))]
        left.bar(places, [lines[name][0][number] for name in names], 0.27, label=operation)
    left.axhline(1, color="black", linewidth=1)
    left.set_yscale("log")
    left.set_xticks([place + 0.27 for place in range(len(names))], names)
    left.set_ylabel("times cheaper than Beaker (log)")
    left.set_title("Beside Beaker on the same store")
    left.legend()
    right.bar(names, [lines[name][1] for name in names], 0.5, color="tab:gray")
    right.set_yscale("log")
    right.set_ylabel("reads from memory (log)")
    right.set_title("What a read costs, one store beside another")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--dir", help="where files lie")
    parser.add_argument("--plot", help="draw the figures into this SVG file")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="nocookie-bench-", dir=arguments.dir)
    try:
        with servers(folder) as options:
            lines = report(options, measure(options, arguments.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.plot:
        plot(lines, arguments.plot)


if __name__ == "__main__":
    main()
