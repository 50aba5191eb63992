"""What a request pays for its session, beside Beaker in the same run: `make bench`.

Each cell is one WSGI request without a server: the session untouched, one key read, one key
written and saved, or a new session filled and saved; with 3 small keys, and with 100 keys of 20
kB. All cells are sampled in turns, in shuffled order, with the garbage collector off; the figure
is the 10th percentile, less what the same request costs without any session.

Milliseconds of one machine say nothing on another. Ratios do, if both sides ran in one run: so
that is what is printed, and drawn into docs/performance.svg with `--plot`.

    python tests/bench/run.py [--rounds N] [--dir FOLDER] [--plot FILE]

`--dir /dev/shm` takes the disk out of the figures of the file stores.
"""

import argparse
import gc
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import warnings
from pathlib import Path
from urllib.parse import parse_qs

warnings.simplefilter("ignore")

from beaker.middleware import SessionMiddleware as BeakerMiddleware  # noqa: E402
from beaker.session import Session as BeakerSession  # noqa: E402
from cells import OPERATIONS, PAYLOADS, SAMPLE, Bare, Cell, Closure, Nocookie, text  # noqa: E402


class Beaker:
    """Beaker with the published recipe for no cookies, and the one line it needs to run."""

    def __init__(self, **options):
        self.options = {f"session.{name}": value for name, value in options.items()}

    def wrap(self, app):
        return BeakerMiddleware(app, {**self.options, "session.use_cookies": False})

    def open(self, environ):
        real = environ["beaker.session"]
        params = real.__dict__["_params"]
        params["id"] = parse_qs(environ["QUERY_STRING"]).get("sid", [None])[0]
        real.__dict__["_sess"] = BeakerSession({}, **params)
        real.__dict__["_headers"] = {"set_cookie": False, "cookie_out": None}
        return real


class Row(Cell):
    """The least that a read from SQLite can cost: one row by its key, and one value of it."""

    def __init__(self, folder):
        import pickle

        self.samples, self.calls = [], 1
        sql = sqlite3.connect(Path(folder) / "row.db", isolation_level=None)
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("CREATE TABLE s (id TEXT PRIMARY KEY, exp REAL, data BLOB) WITHOUT ROWID")
        row = ("k" * 43, time.time() + 3600, pickle.dumps(PAYLOADS["small"]))
        sql.execute("INSERT INTO s VALUES (?, ?, ?)", row)
        select = "SELECT data FROM s WHERE id = ? AND exp > ?"

        def request():
            data = sql.execute(select, (row[0], time.time())).fetchone()[0]
            assert pickle.loads(data)["user_id"]

        self.request = request
        while self.sample() < SAMPLE:
            self.calls *= 2


def measure(folder, rounds):
    """Return the figure of each cell: {(library, operation, size): seconds}."""
    libraries = {
        "Beaker memory": Beaker(type="memory"),
        "Beaker file": Beaker(type="file", data_dir=f"{folder}/beaker"),
        "memory": Nocookie(type="memory"),
        "memory, secret": Nocookie(type="memory", secret=text(40)),
        "file": Nocookie(type="file", data_dir=f"{folder}/plain"),
        "file, secret": Nocookie(type="file", data_dir=f"{folder}/secret", secret=text(40)),
    }
    cells = {
        (name, operation, size): Cell(library, operation, size)
        for name, library in libraries.items()
        for size in PAYLOADS
        for operation in OPERATIONS
        if (operation, size) != ("untouched", "large")
    }
    cells["bare", "untouched", "small"] = Cell(Bare(), "untouched", "small")
    cells["closure", "untouched", "small"] = Cell(Closure(), "untouched", "small")
    cells["row", "read", "small"] = Row(folder)
    order = list(cells.values())
    chance = random.Random(1)
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        chance.shuffle(order)
        gc.collect()
        gc.freeze()
        for cell in order:
            gc.disable()
            cell.samples.append(cell.sample() / cell.calls)
            gc.enable()
    print("\r", end="", file=sys.stderr)
    bare = cells["bare", "untouched", "small"].figure
    return {
        key: cell.figure - (0 if key[0] == "row" else bare)
        for key, cell in cells.items()
        if key[0] != "bare"
    }


def report(figures):
    """Print how many times cheaper than Beaker we are; return the lines for the plot."""
    columns = [("untouched", "small"), ("read", "small"), ("write", "small"), ("new", "small")]
    columns += [("read", "large"), ("write", "large"), ("new", "large")]
    print("times cheaper than Beaker 1.14.1 without cookies, on the same kind of store\n")
    print("| store | " + " | ".join(f"{o}, {s}" for o, s in columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    lines = {}
    for name in ("memory", "memory, secret", "file", "file, secret"):
        peer = "Beaker " + name.partition(",")[0]
        lines[name] = [figures[peer, o, s] / figures[name, o, s] for o, s in columns if
                       (peer, o, s) in figures]  # fmt: skip
        print(f"| {name} | " + " | ".join(f"{ratio:.1f}" for ratio in lines[name]) + " |")
    closure = figures["memory", "untouched", "small"] / figures["closure", "untouched", "small"]
    row = figures["file", "read", "small"] / figures["row", "read", "small"]
    print(f"\nuntouched: {closure:.1f} times a bare closure")
    print(f"file, read: {row:.2f} times a bare row of SQLite")
    return [f"{o}\n{s}" for o, s in columns], lines


def plot(labels, lines, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "nocookie"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4))
    width = 0.8 / len(lines)
    for number, (name, ratios) in enumerate(lines.items()):
        places = [place + number * width for place in range(len(ratios))]
        axes.bar(places, ratios, width, label=name)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.set_xticks([place + 0.3 for place in range(len(labels))], labels)
    axes.set_ylabel("times cheaper than Beaker (log)")
    axes.set_title("What a request pays for its session; above 1, nocookie is cheaper")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--dir", help="where the file stores lie")
    parser.add_argument("--plot", help="draw the ratios into this SVG file")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="nocookie-bench-", dir=arguments.dir)
    try:
        labels, lines = report(measure(folder, arguments.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.plot:
        plot(labels, lines, arguments.plot)


if __name__ == "__main__":
    main()
