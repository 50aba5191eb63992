"""`nocookie import`: what Beaker 1.14.1 itself has stored, and whose clients stay logged in."""

import dbm
import os
import pickle
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tracemalloc
import uuid
import zlib
from base64 import b64encode
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from beaker.cache import CacheManager
from beaker.ext.database import DatabaseNamespaceManager
from beaker.ext.memcached import MemcachedNamespaceManager
from beaker.ext.redisclusternm import RedisClusterNamespaceManager
from beaker.ext.redisnm import RedisNamespaceManager
from beaker.middleware import SessionMiddleware as BeakerMiddleware
from beaker.session import Session as BeakerSession
from hypothesis import given
from hypothesis import strategies as st
from stores.older_beakers import FILES
from webtest import TestApp

from nocookie import Session, SessionMiddleware, cli
from nocookie.beaker_bounds import Unreadable
from nocookie.beaker_ids import mark_key, store_key
from nocookie.beaker_stores import decoder, open_beaker
from nocookie.commands import import_sessions
from nocookie.ids import RandomIds
from nocookie.options import resolve
from nocookie.stores import close_all, open_store
from nocookie.stores.base import Missing, Record

SECRET = "a secret for tests, long enough"
OLD_SECRET = "somesecret"
TOMORROW = (date.today() + timedelta(days=1)).isoformat()
#: What both serializers hold.
DATA = {"user": "ann", "cart": [1, 2, {"n": 3.5}], "language": None, "ünïcode": "žluť"}
NOT_FOUND = (
    "What Beaker has deleted since an earlier run is not found here: not all can be listed "
    "that memcached holds. Import once, after Beaker has stopped."
)


def application(environ, start_response):
    """Written for Beaker, and for us: it differs in nothing."""
    session = environ["beaker.session"]
    action = environ["PATH_INFO"].strip("/")
    if action == "login":
        session.update(DATA)
        session.save()
    elif action == "write":
        session["visits"] = session.get("visits", 0) + 1
        session.save()
    elif action == "logout":
        session.delete()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{session.get('user')} {session.get('visits', 0)}".encode()]


# -- where Beaker stores -------------------------------------------------------------------------


#: What Beaker keeps for ever: engines, clients, and the tables of engines.
ENGINES = DatabaseNamespaceManager.binds.dict
CLIENTS = [RedisNamespaceManager.clients.dict, RedisClusterNamespaceManager.clients.dict]
TABLES = DatabaseNamespaceManager.tables.dict
MEMCACHED = MemcachedNamespaceManager.clients.dict


@pytest.fixture
def beaker_is_closed():
    yield
    for engine in ENGINES.values():
        engine.dispose()
    for client in [client for clients in CLIENTS for client in clients.values()]:
        client.close()
    for client in MEMCACHED.values():
        client.disconnect_all()
    for kept in (ENGINES, TABLES, MEMCACHED, *CLIENTS):
        kept.clear()


SERVERS = [
    pytest.param(name, marks=pytest.mark.server)
    for name in ("postgres", "redis", "redis cluster", "memcached")
]


@pytest.fixture(params=["file", "dbm", "sqlite", *SERVERS])
def place(request, tmp_path, beaker_is_closed):
    """Beaker's options for one of its stores."""
    data_dir = str(tmp_path / "beaker")
    if request.param in ("file", "dbm"):
        return {"type": request.param, "data_dir": data_dir}
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/beaker.db"
        return {"type": "ext:database", "url": url, "data_dir": data_dir}
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        database = request.getfixturevalue("postgres_database")
        request.getfixturevalue("postgres").execute("CREATE SCHEMA elsewhere", database)
        names = {"table_name": "old", "schema_name": "elsewhere"}
        return {"type": "ext:database", "url": url, "data_dir": data_dir, **names}
    if request.param == "redis":
        port = request.getfixturevalue("valkey").port
        return {"type": "ext:redis", "url": f"redis://127.0.0.1:{port}/3"}
    if request.param == "memcached":
        servers = request.getfixturevalue("memcached_servers")
        url = ";".join(server.url for server in servers)
        return {"type": "ext:memcached", "url": url, "memcache_module": "memcache"}
    nodes = request.getfixturevalue("valkey_cluster").primaries()
    urls = ",".join(f"redis://127.0.0.1:{node.port}" for node in nodes[:2])
    return {"type": "ext:rediscluster", "urls": urls}


@pytest.fixture
def files(tmp_path):
    return {"type": "file", "data_dir": str(tmp_path / "beaker")}


def written(options, data=DATA, id=None, used=0.0, began=0.0):
    """Have Beaker store a session that began and was used so many seconds ago; return its id."""
    session = BeakerSession({}, id=id, use_cookies=False, **options)
    session.update(data)
    now = time.time()
    session["_creation_time"], session["_accessed_time"] = now - max(began, used), now - used
    session.save()
    return session.id


# -- where we do ---------------------------------------------------------------------------------


class Target:
    """An application that takes over, with an ini file."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.options = {
            "data_dir": str(folder / "ours"),
            "use_cookies": "false",
            "beaker_ids_until": TOMORROW,
        }

    def set(self, **options):
        self.options.update(options)
        return self

    @property
    def config(self):
        return {f"nocookie.{name}": value for name, value in self.options.items()}

    def client(self, **options):
        middleware = SessionMiddleware(
            application, self.config, environ_key="beaker.session", **options
        )
        return TestApp(middleware)

    def later(self):
        """A client of a minute later: nobody can be on the way with an old id any more."""
        return self.client(clock=lambda: time.time() + 60)

    def ini(self):
        path = self.folder / "ours.ini"
        write_ini(path, self.config)
        return path

    def load(self, key):
        settings = resolve(self.config, {})
        return open_store(settings["type"] or "file", settings).load(key)


def write_ini(path, config):
    lines = [f"{key} = {str(value).replace('%', '%%')}" for key, value in config.items()]
    path.write_text("\n".join(["[app:main]", *lines]), "utf-8")


@pytest.fixture
def target(tmp_path):
    yield Target(tmp_path)
    close_all()


class Done:
    def __init__(self, status, out, err):
        self.status, self.err = status, err
        self.first, *self.rest = out.splitlines() or [""]

    @property
    def imported(self):
        return int(self.first.removeprefix("Imported ").split()[0].replace(",", ""))


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, target):
    """Run `nocookie import` from a store of Beaker's into the target."""
    monkeypatch.delenv("NOCOOKIE_URL", raising=False)
    monkeypatch.delenv("NOCOOKIE_BEAKER_URL", raising=False)

    def run(beaker, *arguments, trust=True):
        path = tmp_path / "beaker.ini"
        config = {"use_cookies": "False", **beaker}
        write_ini(path, {f"beaker.session.{name}": value for name, value in config.items()})
        if trust:
            arguments = ("--trust-pickles", *arguments)
        command = ["import", "--from", str(path), "--config", str(target.ini()), *arguments]
        try:
            with pytest.raises(SystemExit) as stop:
                cli.main(command)
        finally:
            close_all()
        return Done(stop.value.code, *capsys.readouterr())

    return run


def fingerprint(id):
    return store_key(id)[:10]


# -- nobody is logged out ------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_a_client_with_beakers_cookie_keeps_its_session_and_gets_an_id_of_ours(
    place, serializer, run, target
):
    beaker = {**place, "data_serializer": serializer, "secret": OLD_SECRET, "key": "sid"}
    client = TestApp(BeakerMiddleware(application, **beaker))
    client.get("/login")
    old = client.cookies["sid"]
    target.set(use_cookies="true", key="sid", secret=SECRET, beaker_secret=OLD_SECRET)

    done = run({**beaker, "use_cookies": "True"})

    assert (done.status, done.imported, done.rest, done.err) == (0, 1, [], "")
    client.app = target.client().app
    assert client.get("/").text == "ann 0"
    ours = client.cookies["sid"]
    assert len(ours) == 43
    assert client.get("/write").text == "ann 1"
    assert client.cookies["sid"] == ours
    client.app = target.later().app
    client.reset()  # else both would be sent
    client.set_cookie("sid", old)
    assert client.get("/").text == "None 0", "the old id is dead"


@pytest.mark.parametrize("serializer", ["pickle", "json"])
@pytest.mark.parametrize("carrier", ["header:X-Old", "query:sid"])
def test_a_client_without_cookies_keeps_its_session_and_gets_an_id_of_ours(
    place, serializer, carrier, run, target
):
    beaker = {**place, "data_serializer": serializer, "secret": OLD_SECRET}
    old = written(beaker)
    target.set(find_id=carrier, secret=SECRET)

    assert run(beaker).imported == 1

    client = target.client()

    def get(path, id):
        if carrier == "query:sid":
            return client.get(path, {"sid": id})
        return client.get(path, headers={"X-Old": id})

    first = get("/", old)
    assert first.text == "ann 0"
    ours = first.headers["X-Session-Id" if carrier == "query:sid" else "X-Old"]
    assert len(ours) == 43
    again = get("/write", ours)
    assert again.text == "ann 1"
    client = target.later()
    assert get("/", old).text == "None 0", "the old id is dead"


def test_every_value_comes_back_as_it_was(files, run, target):
    values = {
        "tuple": (1, "two", None),
        "set": {1, 2},
        "bytes": b"\0\xff",
        "decimal": Decimal("1.10"),
        "uuid": uuid.UUID(int=5),
        "day": date(2020, 2, 29),
        "numbers": {1: "one"},
    }
    old = written(files, values)

    assert run(files).imported == 1

    target.options["data_serializer"] = "json"
    settings = {name: value for name, value in target.options.items() if name != "use_cookies"}
    session = Session({}, id=old, **settings)
    assert dict(session) == values


def test_the_times_are_beakers(place, run, target):
    began, used = time.time() - 3000, time.time() - 600
    old = written(place, began=3000, used=600)
    run(place)
    found = target.load(store_key(old))
    assert found.created == pytest.approx(began, abs=5)
    assert found.accessed == pytest.approx(used, abs=5)
    assert found.expires == pytest.approx(used + 1800, abs=5)


# -- what is over --------------------------------------------------------------------------------


def test_what_is_over_stays_where_it_is(files, run, target):
    living = written(files, used=500)
    in_beaker = written(files, used=700)
    empty = written(files, {})

    done = run({**files, "timeout": 600})

    assert (done.status, done.imported) == (0, 1)
    assert sorted(done.rest) == ["1 expired in Beaker.", "1 without data."]
    found = [type(target.load(store_key(id))) for id in (living, in_beaker, empty)]
    assert found == [Record, Missing, Missing]


def test_our_own_limits_count_too_and_the_summary_says_so(files, run, target):
    written(files, used=2000)
    written(files, began=50_000)

    done = run(files)

    assert done.imported == 0
    unused, old = sorted(done.rest)
    assert unused.startswith("1 not used for longer than timeout, 1800 seconds: ")
    assert "(--timeout, and the same for the application)" in unused
    assert old.startswith("1 older than lifetime, 43200 seconds: --lifetime-from-last-use imports")
    assert "(--lifetime, and the same for the application)" in old


def test_a_lifetime_can_begin_with_the_last_use(files, run, target):
    old = written(files, began=50_000, used=100)

    assert run(files, "--lifetime-from-last-use").imported == 1

    client = target.client()
    assert client.get("/", headers={"X-Session-Id": old}).text == "ann 0"


def test_without_limits_of_ours_a_session_of_last_year_is_taken_over(files, run, target):
    old = written(files, began=4e7, used=3e7)
    target.set(timeout="none", lifetime="none")

    assert run(files).imported == 1

    assert target.client().get("/", headers={"X-Session-Id": old}).text == "ann 0"


def test_a_clock_that_was_ahead_makes_no_session_live_longer(files, run, target):
    old = written(files, used=-9000, began=-9000)
    run(files)
    found = target.load(store_key(old))
    assert found.created <= found.accessed <= time.time()


# -- again and again -----------------------------------------------------------------------------


def test_a_second_run_finds_everything_there(place, run, target):
    ids = [written(place) for _ in range(3)]
    assert run(place).imported == 3
    before = [target.load(store_key(id)) for id in ids]

    done = run(place)

    assert (done.status, done.imported) == (0, 0)
    if place["type"] == "ext:memcached":
        assert done.rest[-1] == NOT_FOUND
    else:
        assert done.rest == ["3 imported before."]
    assert [target.load(store_key(id)) for id in ids] == before


@pytest.mark.parametrize("end", ["/", "/logout"])
def test_what_a_client_has_come_with_is_never_imported_again(files, run, target, end):
    """Neither a copy under the old id beside the living session, nor one that was ended."""
    old = written(files)
    run(files)
    target.client().get(end, headers={"X-Session-Id": old})
    close_all()

    done = run(files)

    assert (done.imported, done.rest) == (0, ["1 with a client that came here already."])
    assert target.later().get("/", headers={"X-Session-Id": old}).text == "None 0"


def test_what_beaker_wrote_after_the_first_run_comes_with_the_second(files, run, target):
    target.set(secret=SECRET)
    old = written(files, used=100)
    run(files)
    written(files, {"user": "bob", "visits": 7}, id=old, used=10)

    assert run(files).imported == 1

    assert target.client().get("/", headers={"X-Session-Id": old}).text == "bob 7"


def test_a_session_that_expired_here_and_lives_in_beaker_is_imported_again(files, run, target):
    target.set(timeout="300")
    old = written(files, used=290)
    run(files)
    written(files, {"user": "bob"}, id=old, used=10)
    expired = target.load(store_key(old))._replace(expires=0.0)
    assert isinstance(expired, Record)
    close_all()
    with sqlite3.connect(target.folder / "ours" / "sessions" / "sessions.db") as sql:
        sql.execute("UPDATE sessions SET expires = ?", (time.time() - 1,))
    sql.close()

    assert run(files).imported == 1

    assert target.client().get("/", headers={"X-Session-Id": old}).text == "bob 0"


def removed(options, id):
    """Have Beaker's store lose a session as a cleaning script removes it, or an expiry of Redis."""
    if options["type"] in ("file", "dbm"):
        folder = Path(options["data_dir"], f"container_{options['type']}", id[:1], id[:2])
        for path in folder.glob(f"{id}.*"):
            path.unlink()
    elif options["type"] == "ext:database":
        from sqlalchemy import text

        table = "elsewhere.old" if "schema_name" in options else "beaker_cache"
        for engine in ENGINES.values():
            with engine.begin() as connection:
                connection.execute(text(f"DELETE FROM {table} WHERE namespace = :id"), {"id": id})
    elif options["type"] == "ext:memcached":
        for client in MEMCACHED.values():
            client.delete(f"{id}_session")
    else:
        for client in [client for clients in CLIENTS for client in clients.values()]:
            client.delete(f"beaker_cache:{id}:session")


def deleted(options, id):
    """As an application with Beaker logs a client out."""
    session = BeakerSession({}, id=id, use_cookies=False, **options)
    assert session["user"] == "ann"
    session.delete()
    session.save()


def emptied(options, id):
    session = BeakerSession({}, id=id, use_cookies=False, **options)
    session.clear()
    session.save()


def timed_out(options, id):
    written(options, id=id, used=700)


@pytest.mark.parametrize("end", [deleted, emptied, removed, timed_out])
@pytest.mark.parametrize("secret", [None, SECRET])
def test_what_beaker_has_ended_since_the_first_run_the_second_ends(place, run, target, end, secret):
    if secret:
        target.set(secret=secret)
    kept, old = written(place), written(place)
    own = Session({}, **{k: v for k, v in target.options.items() if k != "use_cookies"})
    own["a"] = 1
    own.save()
    own_key = own._backend.ids.key(own.id)
    assert run({**place, "timeout": 600}).imported == 2
    end(place, old)
    if place["type"] == "ext:memcached":  # a listing of which may leave anything out
        done = run({**place, "timeout": 600})
        assert (done.status, done.imported, done.rest[-1]) == (0, 0, NOT_FOUND)
        for _ in range(5):  # what one listing leaves out is in the next
            if end is removed or not isinstance(target.load(store_key(old)), Record):
                break
            run({**place, "timeout": 600})
        client = target.client()
        if end is not removed:
            assert client.get("/", headers={"X-Session-Id": old}).text == "None 0"
        else:
            assert client.get("/", headers={"X-Session-Id": old}).text == "ann 0"
        assert client.get("/", headers={"X-Session-Id": kept}).text == "ann 0"
        return

    done = run({**place, "timeout": 600}, "--dry-run")
    sentence = "1 imported before and ended now, because Beaker has ended or emptied them since."
    assert (done.status, done.rest) == (0, ["1 imported before.", sentence])
    assert isinstance(target.load(store_key(old)), Record)

    done = run({**place, "timeout": 600})
    assert (done.status, done.imported, done.err) == (0, 0, "")
    assert done.rest == ["1 imported before.", sentence]

    done = run({**place, "timeout": 600})
    assert (done.status, done.imported) == (0, 0)
    assert "ended" not in " ".join(done.rest)
    client = target.client()
    assert client.get("/", headers={"X-Session-Id": old}).text == "None 0"
    assert client.get("/", headers={"X-Session-Id": kept}).text == "ann 0"
    assert isinstance(target.load(own_key), Record)


@pytest.mark.parametrize("end", [deleted, removed])
def test_what_beaker_has_ended_stays_if_its_client_came_before(place, run, target, end):
    old, _ = written(place), written(place)
    run(place)
    ours = target.client().get("/write", headers={"X-Session-Id": old}).headers["X-Session-Id"]
    close_all()
    end(place, old)

    done = run(place)

    assert "ended" not in " ".join(done.rest)
    assert target.later().get("/", headers={"X-Session-Id": ours}).text == "ann 1"
    assert not any(b"imported" in data for data in target.load(own_key(ours)).fields.values())


def own_key(id):
    return RandomIds().key(id)


def test_another_store_of_beakers_or_an_empty_one_ends_nothing(files, run, target, tmp_path):
    old = written(files)
    run(files)
    other = {**files, "data_dir": str(tmp_path / "other")}
    written(other)

    (said,) = run(other).rest
    assert said == (
        "1 imported before from another store of Beaker's, and left: to end what that has ended, "
        "import from there again."
    )
    removed(files, old)
    assert sorted(run(files).rest) == [
        "1 imported before and left, though Beaker's store is empty now: nocookie end ends one.",
        said,
    ]
    assert target.client().get("/", headers={"X-Session-Id": old}).text == "ann 0"


def test_a_folder_of_beakers_that_cannot_be_read_is_an_error_and_ends_nothing(
    files, run, target, monkeypatch
):
    old, other = written(files), written(files)
    run(files)
    listed = os.listdir

    def listdir(path="."):
        if str(path).endswith(old[:2]):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "listdir", listdir)
    done = run(files)

    assert (done.status, done.first) == (1, "")
    assert "Beaker's files cannot be read: Permission denied" in done.err
    assert all(isinstance(target.load(store_key(id)), Record) for id in (old, other))


def test_a_dry_run_says_the_same_and_writes_nothing(place, run, target):
    old, left = written(place), written(place, {"user": object})

    done = run(place, "--dry-run")

    assert done.first == "1 session to import."
    assert done.rest == ["1 not imported: they have values that cannot be stored."]
    assert done.err.startswith(f"{fingerprint(left)} refused: ")
    assert target.load(store_key(old)) is Missing.UNKNOWN
    assert not (target.folder / "ours").exists()


@pytest.mark.parametrize("type", ["file", "dbm"])
def test_beakers_store_is_not_changed(files, run, target, type):
    files["type"] = type
    written(files)

    def everything():
        folder = Path(files["data_dir"])
        return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}

    before = everything()
    assert run(files).imported == 1
    assert everything() == before


def test_a_run_that_is_killed_is_made_good_by_the_next(files, run, target, tmp_path):
    for number in range(300):
        written(files, {"n": number})
    run(files, "--dry-run")  # writes the ini files
    command = ["--from", tmp_path / "beaker.ini", "--config", target.ini(), "--trust-pickles"]
    process = start(*command)
    database = tmp_path / "ours" / "sessions" / "sessions.db"
    until = time.monotonic() + PATIENCE
    while process.poll() is None and not count(database):
        assert time.monotonic() < until
    process.kill()
    process.communicate()
    there = count(database)

    done = run(files)

    assert there > 0
    assert (done.status, done.imported) == (0, 300 - there)
    assert count(database) == 300


def test_it_can_be_stopped_and_says_so(files, run, target, monkeypatch):
    for _ in range(3):
        written(files)
    asked = []

    @contextmanager
    def stoppable():
        yield lambda: asked.append(0) or len(asked) == 2

    monkeypatch.setattr(import_sessions, "stoppable", stoppable)

    done = run(files)

    assert (done.status, done.imported) == (0, 2)
    assert done.rest == ["Stopped early; the next run goes on."]
    assert run(files).rest == ["2 imported before."]


def test_on_a_terminal_there_is_a_bar(files, run, target, tmp_path):
    for _ in range(20):
        written(files)
    run(files, "--dry-run")
    ours, theirs = os.openpty()
    command = ["--from", tmp_path / "beaker.ini", "--config", target.ini(), "--trust-pickles"]
    process = start(*command, stderr=theirs)
    os.close(theirs)
    out, _ = process.communicate(timeout=PATIENCE)
    seen = b""
    try:
        while data := os.read(ours, 65536):
            seen += data
    except OSError:
        pass  # how Linux says that the other side is closed
    os.close(ours)
    assert b"Importing" in seen and b"20/20" in seen
    assert out.startswith("Imported 20 sessions in ")


#: Seconds. Longer than a run takes on a busy machine.
PATIENCE = 60


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "nocookie", "import", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        **{"stderr": subprocess.PIPE, **options},
    )


def count(database):
    """How many records there are; none as long as there is no table."""
    if not database.exists():
        return 0
    sql = sqlite3.connect(database)
    try:
        return sql.execute("SELECT count(*) FROM sessions").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        sql.close()


# -- what cannot be taken over -------------------------------------------------------------------


class Basket:
    """What JSON has no words for."""

    def __eq__(self, other):
        return type(other) is Basket


def test_a_value_that_cannot_be_stored_is_reported_and_the_session_left_out(files, run, target):
    left = written(files, {"user": "ann", "basket": Basket(), 5: "five"})
    taken = written(files)

    done = run(files)

    assert (done.status, done.imported) == (1, 1)
    assert done.rest == ["1 not imported: they have values that cannot be stored."]
    first, second = done.err.splitlines()
    assert first.startswith(f"{fingerprint(left)} refused: session['basket']: ")
    assert second == f"{fingerprint(left)} refused: session['5']: keys are text, not int"
    assert isinstance(target.load(store_key(taken)), Record)
    assert target.load(store_key(left)) is Missing.UNKNOWN


def test_pickle_takes_over_every_value(files, run, target):
    old = written(files, {"user": "ann", "basket": Basket()})
    assert run(files).status == 1
    target.set(secret=SECRET, data_serializer="pickle")

    assert run(files).imported == 1

    close_all()
    seen = []

    def look(environ, start_response):
        seen.append(environ["nocookie.session"]["basket"])
        start_response("200 OK", [])
        return []

    TestApp(SessionMiddleware(look, target.config)).get("/", headers={"X-Session-Id": old})
    assert seen == [Basket()]


def test_a_value_can_be_left_out_on_purpose(files, run, target):
    old = written(files, {"user": "ann", "basket": Basket()})

    done = run(files, "--leave-out-values")

    assert (done.status, done.imported) == (0, 1)
    assert done.err.startswith(f"{fingerprint(old)} imported: session['basket']: ")
    assert target.client().get("/", headers={"X-Session-Id": old}).text == "ann 0"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"user": "ann", "a": "x" * 600, "b": "y" * 600}, "max_size is 1000"),
        ({"user": "ann", "x" * 600: 1, "y" * 600: 1}, "max_size is 1000"),
        (dict.fromkeys("abcdef", 1), "max_keys is 5"),
    ],
)
def test_a_session_that_is_too_large_is_left_out_whole(files, run, target, values, sentence):
    written(files, values)
    target.set(max_size="1000", max_keys="5")

    for more in ((), ("--leave-out-values",)):
        done = run(files, *more)
        assert (done.status, done.imported) == (1, 0)
        assert sentence in done.err


def test_a_broken_record_costs_that_session_only(files, run, target):
    written(files)
    cut, other, foreign = (written(files) for _ in range(3))

    def path(id):
        return Path(files["data_dir"], "container_file", id[:1], id[:2], f"{id}.cache")

    path(cut).write_bytes(path(cut).read_bytes()[:20])
    path(other).write_bytes(pickle.dumps({"session": "bm8gcGlja2xl"}))
    path(foreign).write_bytes(pickle.dumps([1, 2]))

    done = run(files)

    assert (done.status, done.imported) == (1, 1)
    assert done.rest == ["3 not imported: they cannot be read."]
    assert {line.split()[0] for line in done.err.splitlines()} == {
        fingerprint(id) for id in (cut, other, foreign)
    }


@given(st.text() | st.binary().map(lambda data: b64encode(data).decode()))
@pytest.mark.parametrize("beaker", [{}, {"encrypt_key": "k", "validate_key": "v"}])
def test_whatever_the_text_says_it_is_a_session_or_unreadable(beaker, text):
    decode = decoder({**beaker, "data_serializer": "json"})
    try:
        assert isinstance(decode(text), dict)
    except Unreadable:
        pass


@given(data=st.binary())
def test_whatever_a_file_holds_it_is_a_session_or_unreadable(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "any"
    file = folder / "container_file" / "a" / "ab" / "abc.cache"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    store = open_beaker({"data_dir": str(folder)}, 1.0)
    assert store.ids() == ["abc"]
    try:
        assert store.read("abc") is None or isinstance(store.read("abc"), (str, dict))
    except Unreadable:
        pass


# -- what somebody else has put into Beaker's store ----------------------------------------------


def path_of(options, id):
    return Path(options["data_dir"], "container_file", id[:1], id[:2], f"{id}.cache")


def pipe(path, tmp_path):
    os.mkfifo(path)


def socket_there(path, tmp_path):
    path.parent.mkdir(parents=True, exist_ok=True)
    here = os.getcwd()
    os.chdir(path.parent)  # such a name is short
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(path.name)
    os.chdir(here)


def folder(path, tmp_path):
    path.mkdir()


def link_to_a_device(path, tmp_path):
    path.symlink_to("/dev/null")


def link_to_a_session(path, tmp_path):
    (tmp_path / "elsewhere").write_bytes(pickle.dumps({"session": "e30="}))
    path.symlink_to(tmp_path / "elsewhere")


def link_to_a_folder(path, tmp_path):
    os.rename(path.parent, tmp_path / "moved")
    path.parent.symlink_to(tmp_path / "moved")
    path.write_bytes(pickle.dumps({"session": "e30="}))


def large(path, tmp_path):
    with path.open("wb") as file:
        file.truncate(1 << 28)  # of which nothing is on the disk


@contextmanager
def seconds(most):
    """What waits for ever fails here, and hangs nobody."""

    def stop(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(most)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def memory(most):
    """No more bytes than this are taken at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("type", ["file", "dbm"])
@pytest.mark.parametrize(
    "put",
    [
        *(pipe, socket_there, folder, link_to_a_device, link_to_a_session, link_to_a_folder),
        large,
    ],
)
def test_only_regular_files_of_a_bounded_size_are_read(files, run, target, tmp_path, type, put):
    files["type"] = type
    good, bad = written(files), written(files)
    path = path_of(files, bad)
    if type == "dbm":
        path = Path(str(path).replace("container_file", "container_dbm")).with_suffix(".dbm")
    for each in path.parent.glob(f"{bad}.*"):
        each.unlink()
    put(path, tmp_path)

    with seconds(60), memory(30_000_000):
        done = run(files)

    assert (done.status, done.imported) == (1, 1)
    assert done.rest == ["1 not imported: they cannot be read."]
    why = "its file is a link|it is no file|its file has 268,435,456 bytes"
    assert re.match(f"{fingerprint(bad)} unreadable: ({why})", done.err)
    assert isinstance(target.load(store_key(good)), Record)


def test_a_file_that_becomes_a_pipe_or_a_link_in_the_last_moment_is_not_waited_for(
    files, run, target, tmp_path, monkeypatch
):
    bad = written(files)
    path = path_of(files, bad)
    opened = os.open

    for put in (pipe, link_to_a_device, socket_there):

        def late(name, *arguments, put=put, **options):
            if str(name) == str(path) and not path.is_symlink():
                path.unlink()
                put(path, tmp_path)
            return opened(name, *arguments, **options)

        monkeypatch.setattr(os, "open", late)
        with seconds(60), memory(30_000_000):
            done = run(files)
        monkeypatch.undo()
        assert (done.status, done.imported) == (1, 0)
        assert done.err.startswith(f"{fingerprint(bad)} unreadable: ")
        path.unlink()
        path.write_bytes(b"")


def test_a_session_that_could_never_be_stored_is_not_even_read(place, run, target):
    """Of whatever store: what is asked for is measured there."""
    target.set(max_size="10000")
    size = 500_000 if place["type"] == "ext:memcached" else 3_000_000  # as much as it takes
    good, bad = written(place), written(place, {"user": "ann", "x": "x" * size})

    store = open_beaker({name: str(value) for name, value in place.items()}, 5.0, most=65_536)
    assert store.read(good) is not None
    with memory(size // 2), pytest.raises(Unreadable):
        store.read(bad)
    assert store.read(good) is not None
    store.close()

    done = run(place)

    assert (done.status, done.imported) == (1, 1)
    assert done.err.startswith(f"{fingerprint(bad)} unreadable: it")
    assert re.search(r"65,536 bytes, 4 times max_size|262,144 are read|65,536 are read", done.err)
    assert isinstance(target.load(store_key(good)), Record)


def test_text_that_inflates_is_not_inflated_beyond_what_could_be_stored(files, run, target):
    files = {**files, "data_serializer": "json"}
    target.set(max_size="10000")
    good, bad = written(files), written(files)
    text = b64encode(zlib.compress(b'{"x": "' + b"x" * 50_000_000 + b'"}')).decode()
    path_of(files, bad).write_bytes(pickle.dumps({"session": text}))
    del text

    with memory(8_000_000):
        done = run(files, trust=False)

    assert (done.status, done.imported) == (1, 1)
    assert done.err == (
        f"{fingerprint(bad)} unreadable: it has more than 65,536 bytes, 4 times max_size\n"
    )
    assert isinstance(target.load(store_key(good)), Record)


def test_text_that_is_cut_short_is_no_session(files, run, target):
    files = {**files, "data_serializer": "json"}
    bad = written(files)
    whole = zlib.compress(b'{"x": 1}')
    text = b64encode(whole[:-2]).decode()
    path_of(files, bad).write_bytes(pickle.dumps({"session": text}))
    assert "unreadable" in run(files, trust=False).err


def nested(depth):
    there = []
    for _ in range(depth):
        there = [there, there]
    return pickle.dumps({"session": {"a": there}})


def in_itself():
    there = [1] * 1000
    there.append(there)
    return there


#: Pickles that name places and lengths which are not there: enough of them to be seen.
LIES = {
    "a place far away": b"\x80\x04Nr" + (2_000_000).to_bytes(4, "little") + b".",
    "a length": b"\x80\x05\x96" + (40_000_000).to_bytes(8, "little") + b".",
    "a length of bytes": b"\x80\x04\x8e" + (40_000_000).to_bytes(8, "little") + b".",
    "many steps": b"\x80\x04" + b"N0" * 10_000 + pickle.dumps({"session": "e30="}, 4)[2:],
    "one list in many places": nested(18),
    "one text in many places": pickle.dumps({"session": {"a": ["x" * 20_000] * 1000}}),
    "a list in itself": pickle.dumps({"session": {"a": in_itself()}}),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_around_a_session_takes_no_more_memory_than_it_has(files, run, target, lie):
    good, bad = written(files), written(files)
    path_of(files, bad).write_bytes(LIES[lie])
    target.set(max_size="10000")
    store = open_beaker(files, 1.0, most=65_536)

    with memory(8_000_000), pytest.raises(Unreadable):
        store.read(bad)

    assert (run(files).status, fingerprint(bad) in run(files).err) == (1, True)
    assert isinstance(target.load(store_key(good)), Record)


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_the_largest_session_that_can_be_stored_is_read(place, run, target, serializer):
    """In the form of Beaker's that is the longest: text that is not ASCII."""
    target.set(max_size="30000")
    old = written({**place, "data_serializer": serializer}, {"user": "ann", "x": "é" * 14_000})
    assert run({**place, "data_serializer": serializer}).imported == 1
    assert target.client().get("/", headers={"X-Session-Id": old}).text == "ann 0"


def test_what_is_under_no_id_of_beakers_is_not_taken_over(files, run, target):
    """An id that a client or a gateway chose can be guessed; and a cache may lie beside."""
    written(files, id="123")
    cache = CacheManager(type="file", data_dir=files["data_dir"]).get_cache("page")
    cache.set_value("front", "html")

    done = run(files)

    assert (done.status, done.imported) == (0, 0)
    assert done.rest == ["2 other entries, under no id of Beaker's."]


# -- pickles -------------------------------------------------------------------------------------


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_pickles_are_read_only_if_the_operator_says_so(files, run, target, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    written(files, {"trap": Trap()})

    done = run(files, trust=False)

    assert (done.status, done.first) == (2, "")
    assert "--trust-pickles" in done.err
    assert not Path("sprung").exists()
    assert run(files).status == 0
    assert Path("sprung").exists(), "to read a pickle is to run it"


def test_json_is_read_without_running_anything(place, run, target, monkeypatch, tmp_path):
    """Not even what somebody puts around it."""
    monkeypatch.chdir(tmp_path)
    beaker = {**place, "data_serializer": "json"}
    good = written(beaker)
    bad = written(beaker)
    if place["type"] == "file":
        path = Path(place["data_dir"], "container_file", bad[:1], bad[:2], f"{bad}.cache")
        path.write_bytes(pickle.dumps({"session": Trap()}))
    elif place["type"] == "dbm":
        name = Path(place["data_dir"], "container_dbm", bad[:1], bad[:2], f"{bad}.dbm")
        with dbm.open(str(name), "w") as there:
            there[b"session"] = pickle.dumps(Trap())
    elif place["type"] == "ext:database":
        from sqlalchemy import text

        for engine in ENGINES.values():
            table = "elsewhere.old" if "schema_name" in place else "beaker_cache"
            with engine.begin() as connection:
                connection.execute(
                    text(f"UPDATE {table} SET data = :data WHERE namespace = :id"),
                    {"data": pickle.dumps({"session": Trap()}), "id": bad},
                )
    elif place["type"] == "ext:memcached":
        for client in MEMCACHED.values():
            client.set(f"{bad}_session", Trap())
    else:
        for client in [client for clients in CLIENTS for client in clients.values()]:
            client.set(f"beaker_cache:{bad}:session", pickle.dumps(Trap()))

    done = run(beaker, trust=False)

    assert (done.status, done.imported) == (1, 1)
    assert isinstance(target.load(store_key(good)), Record)
    assert done.err.startswith(f"{fingerprint(bad)} unreadable: ")
    assert not Path("sprung").exists()


# -- encrypted -----------------------------------------------------------------------------------

ENCRYPTED = {"encrypt_key": "old encryption key", "validate_key": "old validation key"}


@pytest.mark.parametrize("serializer", ["pickle", "json"])
@pytest.mark.parametrize("bits", [48, 128, 256])
def test_encrypted_sessions_are_opened_and_encrypted_again(files, run, target, serializer, bits):
    beaker = {**files, **ENCRYPTED, "data_serializer": serializer, "encrypt_nonce_bits": bits}
    old = written(beaker)
    target.set(secret=SECRET, encrypt_key="our encryption key")

    assert run(beaker).imported == 1

    assert b"ann" not in b"".join(target.load(store_key(old)).fields.values())
    assert target.client().get("/", headers={"X-Session-Id": old}).text == "ann 0"


@pytest.mark.parametrize("wrong", ["encrypt_key", "validate_key"])
def test_a_wrong_key_opens_nothing(files, run, target, wrong):
    written({**files, **ENCRYPTED})

    done = run({**files, **ENCRYPTED, wrong: "another"})

    assert (done.status, done.imported) == (1, 0)
    assert "does not open with this encrypt_key and validate_key" in done.err
    assert "another" not in done.err


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beaker", "sentence"),
    [
        ({"type": "memory"}, "in the memory of the application's processes"),
        ({}, "in the memory of the application's processes"),
        ({"type": "ext:memcached"}, "need the url of the servers"),
        ({"type": "ext:memcached", "url": "h:1:2"}, "host:port"),
        ({"type": "cookie"}, "with their clients"),
        ({"type": "ext:mongodb", "url": "mongodb://h"}, "no reader for MongoDB"),
        ({"type": "ext:google"}, "App Engine"),
        ({"type": "ext:rdeis"}, "Beaker has no type 'ext:rdeis'"),
        ({"type": "ext:redis"}, "need the url"),
        ({"type": "ext:rediscluster"}, "need the urls"),
        ({"type": "ext:redis", "url": "hunter2"}, "begins with redis://"),
        ({"type": "ext:database"}, "need the url"),
        ({"type": "ext:database", "url": "hunter2:hunter2"}, "not one that SQLAlchemy knows"),
        ({"type": "ext:database", "url": "sqlite:///none.db"}, "none.db is no file"),
        ({"type": "file"}, "need data_dir"),
        ({"type": "file", "data_dir": "/nowhere"}, "/nowhere/container_file is no folder"),
        ({"type": "dbm", "dbm_dir": "/nowhere"}, "/nowhere is no folder"),
        ({"data_serializer": "yaml"}, "'yaml' is none of Beaker's"),
        ({"encrypt_key": "hunter2"}, "needs its validate_key"),
        ({**ENCRYPTED, "crypto_type": "pycryptodome"}, "another package than cryptography"),
        ({**ENCRYPTED, "encrypt_nonce_bits": "7"}, "no multiple of 8"),
        ({"type": "file", "data_dir": ".", "timeout": "soon"}, "whole number of seconds"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_status_2(
    run, target, beaker, sentence, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "container_file").mkdir()

    done = run(beaker)

    assert (done.status, done.first) == (2, "")
    (said,) = done.err.splitlines()
    assert said.startswith("nocookie import: ")
    assert sentence in said
    assert "hunter2" not in said
    assert not Path("none.db").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"beaker_ids_until": "none"}, "needs beaker_ids_until"),
        ({"type": "memory"}, "the memory of a process"),
        ({"strict": "false", "id_key": "k"}, "strict = False"),
        ({"type": "cookie", "secret": SECRET}, "type = cookie"),
    ],
)
def test_an_application_that_would_recognise_nobody_is_refused(
    files, run, target, options, sentence
):
    written(files)
    target.set(**options)

    done = run(files)

    assert (done.status, done.first) == (2, "")
    assert sentence in done.err


def test_without_a_word_of_where_it_asks(capsys, target):
    for arguments in (["import"], ["import", "--beaker-type", "file"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
        assert "Which s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("beaker", "options", "sentence"),
    [
        ({"key": "sid"}, {"use_cookies": "true"}, "set key = sid"),
        ({"key": "sid"}, {"find_id": "header, cookie", "key": "foo"}, "set key = sid"),
        ({"key": "sid"}, {"find_id": "cookie:foo"}, "write cookie:sid in find_id"),
        ({"key": ""}, {"find_id": "bearer"}, "no cookie:beaker.session.id"),
        ({}, {"use_cookies": "true"}, "set key = beaker.session.id"),
        ({}, {"find_id": "header:X-Id"}, "no cookie:beaker.session.id"),
        ({"secret": "s"}, {"find_id": "cookie:beaker.session.id"}, "set beaker_secret"),
        (
            {"secret": "s"},
            {"use_cookies": "true", "key": "beaker.session.id", "beaker_secret": "t"},
            "set beaker_secret",
        ),
    ],
)
def test_it_notes_what_would_keep_clients_from_being_recognised(
    files, run, target, beaker, options, sentence
):
    written(files)
    target.set(**options)

    done = run({**files, **beaker, "use_cookies": "True"})

    assert (done.status, done.imported) == (0, 1)
    (note,) = done.err.splitlines()
    assert note.startswith("Note: Beaker's ")
    assert sentence in note


@pytest.mark.parametrize(
    ("beaker", "options"),
    [
        ({"key": "sid"}, {"use_cookies": "true", "key": "sid"}),
        ({"key": "sid"}, {"find_id": "header:X-Id, cookie", "key": "sid"}),
        ({}, {"find_id": "asked-header, Cookie:beaker.session.id"}),
        ({"key": "sid", "use_cookies": "off"}, {"find_id": "header"}),
    ],
)
def test_it_notes_nothing_where_clients_are_recognised(files, run, target, beaker, options):
    written(files)
    target.set(**options)
    assert run({**files, "use_cookies": "True", **beaker}).err == ""


# -- times of the command line -------------------------------------------------------------------


def test_a_timeout_and_a_lifetime_can_be_said(files, run, target):
    written(files, used=2000)
    written(files, began=50_000)
    assert run(files, "--timeout", "3000").imported == 1
    assert run(files, "--timeout", "3000", "--lifetime", "60000").imported == 1


@pytest.mark.parametrize(("own", "imported"), [(None, 0), ("3600", 1), ("90000", 1)])
def test_without_an_ini_file_of_ours_beakers_timeout_counts(
    files, target, capsys, monkeypatch, own, imported
):
    monkeypatch.chdir(target.folder)
    written(files, used=2000)
    source = target.folder / "beaker.ini"
    times = {} if own is None else {"beaker.session.timeout": own}
    write_ini(source, {f"beaker.session.{name}": value for name, value in files.items()} | times)
    with pytest.raises(SystemExit) as stop:
        cli.main(
            ["import", "--from", str(source), "--trust-pickles", "--data-dir", "ours"]
            + ["--beaker-ids-until", TOMORROW]
        )
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"Imported {imported} session")


# -- whose a session is --------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "owner"), [("ann", "ann"), (5, "5"), (None, None), ("", None)])
def test_the_owner_is_what_beakers_application_noted(files, run, target, value, owner):
    old = written(files, {"user_id": value, "n": 1})

    assert run(files, "--owner-key", "user_id").imported == 1

    seen = []

    def look(environ, start_response):
        session = environ["beaker.session"]
        seen.append((session.owner, session["n"], len(session.sessions_of("ann"))))
        start_response("200 OK", [])
        return []

    client = TestApp(SessionMiddleware(look, target.config, environ_key="beaker.session"))
    client.get("/", headers={"X-Session-Id": old})
    assert seen == [(owner, 1, int(owner == "ann"))]


def test_without_a_word_nobody_owns_what_is_imported(files, run, target):
    old = written(files, {"user_id": "ann"})
    assert run(files).imported == 1
    assert Session({}, old, **target.options).owner is None


# -- memcached -----------------------------------------------------------------------------------


@pytest.mark.server
def test_a_text_in_memcached_is_read_without_unpickling_anything(
    memcached, run, target, beaker_is_closed
):
    beaker = {"type": "ext:memcached", "url": memcached.url, "memcache_module": "memcache"}
    old = written({**beaker, "data_serializer": "json"})
    assert memcached.ask(f"get {old}_session", b"END\r\n").split(b" ")[2] == b"16", "a text"
    memcached.put("another", b"x")
    memcached.put("others_session", b"x")

    done = run({**beaker, "data_serializer": "json"}, trust=False)

    assert (done.status, done.imported) == (0, 1)
    assert done.rest == ["1 other entries, under no id of Beaker's."]
    assert isinstance(target.load(store_key(old)), Record)


@pytest.mark.server
def test_a_dict_in_memcached_of_an_older_beaker_is_read(memcached, run, target, beaker_is_closed):
    beaker = {"type": "ext:memcached", "url": memcached.url, "memcache_module": "memcache"}
    id = uuid.uuid4().hex
    written(beaker)
    large = "z" * 100_000
    (client,) = MEMCACHED.values()
    client.set(f"{id}_session", {"user": large, "_accessed_time": time.time()}, min_compress_len=10)

    done = run(beaker)

    assert (done.status, done.imported) == (0, 2)
    assert Session({}, id, **target.options)["user"] == large


@pytest.mark.server
@pytest.mark.parametrize("part", [1.0, 0.5])
def test_what_is_compressed_in_memcached_is_not_inflated_beyond_what_could_be_stored(
    memcached, run, target, beaker_is_closed, part
):
    """Nor is what is cut short a session."""
    beaker = {"type": "ext:memcached", "url": memcached.url, "memcache_module": "memcache"}
    target.set(max_size="10000")
    good, bad = written(beaker), uuid.uuid4().hex
    data = zlib.compress(b"x" * (50_000_000 if part == 1 else 1000))
    data = data[: int(len(data) * part)]
    # 8: compressed.
    assert memcached.ask(f"set {bad}_session 8 0 {len(data)}", item=data) == b"STORED\r\n"

    with memory(8_000_000):
        done = run(beaker)

    assert (done.status, done.imported) == (1, 1)
    why = (
        "it has more than 65,536 bytes, 4 times" if part == 1 else "what is compressed of it is cut"
    )
    assert done.err.startswith(f"{fingerprint(bad)} unreadable: {why}")
    assert isinstance(target.load(store_key(good)), Record)


@pytest.mark.server
@pytest.mark.parametrize("kill", [True, False])
def test_a_memcached_that_does_not_list_is_one_sentence_and_status_1(run, own_memcached, kill):
    server = own_memcached(*(() if kill else ("-o", "no_lru_crawler")))
    if kill:
        server.kill()

    done = run({"type": "ext:memcached", "url": server.url})

    assert (done.status, done.first) == (1, "")
    assert done.err.startswith("nocookie import: memcached ")


# -- what older Beakers wrote --------------------------------------------------------------------


@pytest.fixture
def older(files):
    """Put a recorded file where Beaker had it."""

    def older(file):
        path = Path(files["data_dir"], "container_file", file.id[:1], file.id[:2])
        path.mkdir(parents=True)
        path.joinpath(f"{file.id}.cache").write_bytes(file.data)

    return older


OLDER = {f"{file.beaker} {file.python[0]} {file.what}": file for file in FILES}


@pytest.mark.parametrize(
    ("name", "serializer", "user"),
    [
        ("1.11.0 3 plain", "pickle", "Zoë"),
        ("1.11.0 3 json", "json", "Zoë"),
        ("1.11.0 3 objects", "pickle", "Zoë"),
        ("1.11.0 2 plain", "pickle", "ann"),
        ("1.12.0 2 plain", "pickle", "ann"),
    ],
)
def test_a_session_of_an_older_beaker_is_read(files, run, target, older, name, serializer, user):
    """Before 1.12 it was a plain dict, and with json no less."""
    older(OLDER[name])
    target.set(timeout="none", lifetime="none")

    done = run({**files, "data_serializer": serializer}, trust=serializer == "pickle")

    assert (done.status, done.imported, done.err) == (0, 1, "")
    session = Session({}, OLDER[name].id, **target.options)
    assert (session["user"], session["cart"]) == (user, [1, 2.5, None, {"n": True}])
    assert ("day" in session) is name.endswith("objects")


@pytest.mark.parametrize("protocol", range(5))
def test_a_large_session_of_an_older_beaker_is_read_too(files, run, target, protocol):
    old = written(files)
    session = {
        "user": "Zoë",
        "x": [[n, str(n)] for n in range(10_000)],
        "_creation_time": time.time(),
    }
    path_of(files, old).write_bytes(pickle.dumps({"session": session}, protocol))
    assert run(files).imported == 1
    assert Session({}, old, **target.options)["x"] == session["x"]


@pytest.mark.parametrize(
    ("name", "encoding", "user"),
    [
        ("1.11.0 2 bytes", "utf-8", "Zoë"),
        ("1.12.0 2 bytes", "utf-8", "Zoë"),
        ("1.12.0 2 bytes", "latin-1", "ZoÃ«"),
        ("1.11.0 2 objects", "latin-1", "ann"),  # a date: Python 2 pickled its bytes as a str
    ],
)
def test_bytes_of_python_2_are_named_and_read_in_the_encoding_that_is_said(
    files, run, target, older, name, encoding, user
):
    older(OLDER[name])
    target.set(timeout="none", lifetime="none")

    done = run(files)
    assert (done.status, done.imported) == (1, 0)
    assert "unreadable: Python 2 wrote it" in done.err
    assert "--python-2-text" in done.err

    assert run(files, "--python-2-text", encoding).imported == 1
    assert Session({}, OLDER[name].id, **target.options)["user"] == user


@pytest.mark.parametrize("name", ["1.5.4 2 plain", "1.5.4 2 bytes"])
def test_what_beaker_1_5_wrote_is_named_and_not_passed_over(files, run, older, name):
    older(OLDER[name])

    done = run(files)

    assert (done.status, done.imported) == (1, 0)
    assert done.rest == [
        "1 not imported: their ids are MD5, as Beaker before 1.6 made them, and can be guessed."
    ]


def test_something_else_under_such_a_name_is_no_session(files, run, older):
    """What a cache keeps lies beside, and its names are anybody's."""
    cached = pickle.dumps({"front": "html"})
    older(FILES[0]._replace(id="5" * 32, text=b64encode(cached).decode()))
    done = run(files)
    assert (done.status, done.rest) == (0, ["1 other entries, under no id of Beaker's."])


def test_objects_of_an_older_beaker_run_only_if_the_operator_says_so(files, run, older):
    older(OLDER["1.11.0 3 objects"])
    done = run({**files, "data_serializer": "json"}, trust=False)
    assert (done.status, done.imported) == (1, 0)
    assert "Beaker before 1.12" in done.err
    assert "--trust-pickles" in done.err


def test_where_sessions_are_encrypted_one_that_is_not_is_nobodys(files, run, older):
    older(OLDER["1.11.0 3 plain"])
    done = run({**files, "encrypt_key": "e" * 16, "validate_key": "v" * 16})
    assert (done.status, done.imported) == (1, 0)
    assert "it is not encrypted" in done.err


def test_an_encoding_that_there_is_none_of_is_status_2(files, run):
    done = run(files, "--python-2-text", "nonsense")
    assert done.status == 2
    assert "There is no encoding nonsense" in done.err


@pytest.mark.server
def test_a_server_that_is_away_is_one_sentence_and_status_1(run, target, own_valkey):
    server = own_valkey()
    server.kill()

    done = run({"type": "ext:redis", "url": f"redis://127.0.0.1:{server.port}"})

    assert done.status == 1
    assert len(done.err.splitlines()) == 1


def test_a_table_that_is_not_there_is_one_sentence_and_status_1(run, target, tmp_path):
    sqlite3.connect(tmp_path / "empty.db").close()

    done = run({"type": "ext:database", "url": f"sqlite:///{tmp_path}/empty.db"})

    assert done.status == 1
    (said,) = done.err.splitlines()
    assert said == ("nocookie import: Beaker's table beaker_cache cannot be read: OperationalError")


# -- other ways to say it ------------------------------------------------------------------------


def test_options_say_it_without_an_ini_file(files, target, capsys):
    old = written({**files, "data_serializer": "pickle"})
    arguments = [
        *("--beaker-data-dir", files["data_dir"], "--data-dir", str(target.folder / "ours")),
        *("--beaker-ids-until", TOMORROW, "--trust-pickles"),
    ]
    with pytest.raises(SystemExit) as stop:
        cli.main(["import", *arguments])
    close_all()
    assert stop.value.code == 0
    assert "Imported 1 session " in capsys.readouterr().out
    assert target.client().get("/", headers={"X-Session-Id": old}).text == "ann 0"


def test_the_folder_of_pylons_is_found_by_cache_dir(tmp_path, target, capsys):
    written({"type": "file", "data_dir": str(tmp_path / "cache" / "sessions")})
    write_ini(tmp_path / "pylons.ini", {"cache_dir": "%(here)s/cache", "session.type": "file"})
    text = (tmp_path / "pylons.ini").read_text().replace("%%", "%")
    (tmp_path / "pylons.ini").write_text(text)
    with pytest.raises(SystemExit):
        cli.main(
            ["import", "--from", str(tmp_path / "pylons.ini"), "--trust-pickles"]
            + ["--config", str(target.ini())]
        )
    assert "Imported 1 session " in capsys.readouterr().out


def test_quiet_says_only_what_was_not_imported(files, run, target):
    written(files)
    assert run(files, "--quiet").first == ""
    left = written(files, {"basket": Basket()})
    done = run(files, "--quiet")
    assert (done.status, done.first) == (1, "")
    assert done.err.startswith(fingerprint(left))


def test_no_id_is_in_what_it_says(files, run, target):
    ids = [written(files), written(files, {"basket": Basket()}), written(files, {})]
    done = run(files)
    said = "\n".join([done.first, *done.rest, done.err])
    assert [id for id in ids if id in said] == []


# -- into every store ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "type",
    [
        "file",
        "sqlalchemy",
        *(pytest.param(name, marks=pytest.mark.server) for name in ("redis", "memcached")),
    ],
)
@pytest.mark.parametrize("secret", [None, SECRET])
def test_every_shared_store_takes_them(files, run, target, type, secret, request):
    target.set(type=type)
    if type == "sqlalchemy":
        target.set(url=f"sqlite:///{target.folder}/ours.db", create_table="true")
    elif type == "redis":
        target.set(url=f"redis://127.0.0.1:{request.getfixturevalue('valkey').port}")
    elif type == "memcached":
        target.set(url=f"127.0.0.1:{request.getfixturevalue('memcached').port}")
    if secret:
        target.set(secret=secret)
    began, used = time.time() - 3000, time.time() - 600
    old = written(files, began=3000, used=600)

    #: Of one that cannot list what it holds.
    said = ["What Beaker has deleted"] if type == "memcached" else []

    assert run(files).imported == 1
    assert [line[:23] for line in run(files).rest] == ["1 imported before.", *said]
    found = target.load(store_key(old))
    assert found.created == pytest.approx(began, abs=5)
    assert found.accessed == pytest.approx(used, abs=5)
    assert found.expires == pytest.approx(used + 1800, abs=5)
    written(files, {"user": "bob"}, id=old)
    assert run(files).imported == 1

    client = target.client()
    first = client.get("/write", headers={"X-Session-Id": old})
    assert first.text == "bob 1"
    assert client.get("/", headers={"X-Session-Id": first.headers["X-Session-Id"]}).text == "bob 1"
    assert target.later().get("/", headers={"X-Session-Id": old}).text == "None 0"
    assert isinstance(target.load(mark_key(old)), Record)
    close_all()
    first, *rest = run(files).rest
    assert first == "1 with a client that came here already."
    assert [line[:23] for line in rest] == said
