"""The database store on SQLite: the suite, both ways to change a record, options, what goes wrong.
What every database has in common is here; what takes a server is in test_postgres.py."""

import gc
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from lengths import KILLS
from sqlalchemy import MetaData, create_engine, event
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateIndex, CreateTable

from nocookie import ConfigError, Session, StoreError, StoreTimeout
from nocookie.errors import SessionGone
from nocookie.stores import close_all
from nocookie.stores.base import Delta, KeyTaken, Missing, Moved, Record, Trail, VersionChanged
from nocookie.stores.sqlalchemy import SqlAlchemyStore, table
from nocookie.stores.sqlalchemy.engines import driver_settings
from nocookie.stores.sqlalchemy.rows import SWEEP_GRID, entry
from nocookie.stores.sqlalchemy.statements import SLACK, Statements
from nocookie.stores.sqlalchemy.store import SWEEP_EVERY
from nocookie.testing import StoreSuite

#: Seconds over the deadline that a loaded machine is allowed.
MARGIN = 1.0

TABLE = "nocookie_sessions"
TRAIL = Trail(b"ticket", 60)


def key(number):
    return f"{number:064x}"


def record(**fields):
    return Record(fields, time.time(), 0.0, 0.0, 0)


def fields(store, number=1):
    found = store.load(key(number))
    assert isinstance(found, Record), found
    return dict(found.fields)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
def url(path):
    return f"sqlite:///{path}"


@pytest.fixture
def sql(path):
    """`sql(statement)`: run beside the store, as an operator would."""

    def run(statement, values=()):
        connection = sqlite3.connect(path)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    return run


@pytest.fixture
def open_store(url):
    """`open_store(**options)`: a store on the database of this test; several share it."""
    opened = []

    def open_one(**options):
        where = {} if "engine" in options else {"url": url}
        store = SqlAlchemyStore(**{**where, "create_table": True, **options})
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


@pytest.fixture
def engines():
    """`engines(url, **options)`: an application's engine."""
    made = []

    def make(url, **options):
        made.append(create_engine(url, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def reading_first(store):
    """Make *store* do what it does where a database cannot append bytes."""
    store._sql = Statements(store._sql.table, "another")
    return store


def all_calls(store, number=1):
    """Every call of the contract, by name."""
    return {
        "load": lambda: store.load(key(number)),
        "create": lambda: store.create(key(number + 100), record(a=b"1"), 600),
        "save": lambda: store.save(key(number), Delta({"a": b"2"}), 600),
        "touch": lambda: store.touch(key(number), 600),
        "rotate": lambda: store.rotate(key(number), key(number + 200), Delta(), b"", 600),
        "rotate with a trail": lambda: store.rotate(
            key(number), key(number + 200), Delta(), b"", 600, trail=TRAIL
        ),
        "destroy": lambda: store.destroy(key(number)),
        "purge": lambda: store.purge(10),
        "keys": lambda: list(store.keys()),
        "owned": lambda: store.owned(b"ann"),
        "end_owned": lambda: store.end_owned(b"ann"),
    }


def assert_discreet(error):
    """It carries nothing: no row, no key, and no exception of a driver, which quotes them."""
    assert error.__cause__ is None
    assert error.__context__ is None
    assert not any(key(n)[-8:] in str(error) for n in (1, 101, 201))
    assert "secret" not in str(error)


# -- the suite -----------------------------------------------------------------------------------


class TestOnSqlite(StoreSuite):
    @pytest.fixture
    def store(self, clock, open_store):
        return open_store(clock=clock, deadline=30)


class TestWhereBytesCannotBeAppended(StoreSuite):
    """What MySQL and every other database gets: read, merge, compare, write."""

    @pytest.fixture
    def store(self, clock, open_store):
        return reading_first(open_store(clock=clock, deadline=30))


# -- options -------------------------------------------------------------------------------------


def test_neither_url_nor_engine_is_refused_and_so_are_both(url, engines):
    with pytest.raises(ConfigError, match="either url or engine"):
        SqlAlchemyStore()
    with pytest.raises(ConfigError, match="either url or engine"):
        SqlAlchemyStore(url=url, engine=engines(url))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("no url: secret", "is not one that SQLAlchemy knows"),
        ("nothing://user:secret@host/db", "is not one that SQLAlchemy knows"),
        ("sqlite+nothing:///secret", "is not one that SQLAlchemy knows"),
        ("sqlite+aiosqlite:///secret.db", "not installed|synchronous"),
        ("oracle+oracledb://user:secret@host/db", "driver that is not installed: oracledb"),
        ("sqlite://", "use type = 'memory'"),
        ("sqlite:///:memory:", "use type = 'memory'"),
        ("sqlite:///file:secret?mode=memory&cache=shared&uri=true", "use type = 'memory'"),
    ],
)
def test_a_url_that_cannot_serve_is_refused_without_being_shown(url, why):
    with pytest.raises(ConfigError, match=why) as caught:
        SqlAlchemyStore(url=url)
    assert "secret" not in str(caught.value)


def test_an_engine_in_memory_is_refused(engines):
    with pytest.raises(ConfigError, match="use type = 'memory'"):
        SqlAlchemyStore(engine=engines("sqlite://", poolclass=StaticPool))


def test_construction_touches_nothing(path, open_store):
    open_store()
    assert not path.exists()


def test_without_sqlalchemy_the_error_names_the_extra(tmp_path):
    (tmp_path / "sqlalchemy.py").write_text("raise ImportError('not here')")
    code = (
        "from nocookie import ConfigError\n"
        "from nocookie.stores import open_store\n"
        "try:\n"
        "    open_store('sqlalchemy', {'url': 'sqlite:///x.db'})\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "pip install nocookie[sqlalchemy]" in run.stdout, run.stderr


def test_an_asynchronous_engine_is_refused(engines, monkeypatch):
    engine = engines("sqlite:///x.db")
    monkeypatch.setattr(engine.dialect, "is_async", True)
    with pytest.raises(ConfigError, match="synchronous"):
        SqlAlchemyStore(engine=engine)


def test_what_the_url_says_wins_over_what_we_would_set():
    def settings(url):
        return driver_settings(make_url(url), 1.5)

    assert settings("sqlite:///x.db") == {"timeout": 0}
    assert settings("sqlite:///x.db?timeout=7") == {}
    assert settings("postgresql+psycopg://host/db") == {
        "connect_timeout": 2,
        "options": "-cstatement_timeout=1350",
    }
    assert settings("postgresql+psycopg://host/db?options=-cx=y") == {"connect_timeout": 2}
    assert settings("mysql+pymysql://host/db?read_timeout=9") == {
        "connect_timeout": 2,
        "write_timeout": 2,
    }


# -- the table -----------------------------------------------------------------------------------


def test_the_table_has_the_name_and_schema_that_it_is_given():
    metadata = MetaData()
    made = table(metadata, "their_sessions", "web")
    assert metadata.tables["web.their_sessions"] is made
    indexes = sorted(index.name for index in made.indexes)
    assert indexes == ["ix_their_sessions_owner", "ix_their_sessions_sweep"]


def test_a_table_made_by_a_migration_serves(url, open_store, engines):
    metadata = MetaData()
    table(metadata, "theirs")
    metadata.create_all(engines(url))
    store = open_store(table_name="theirs", create_table=False)
    store.create(key(1), record(a=b"1"), 600)
    assert fields(store) == {"a": b"1"}


def test_two_tables_are_two_stores(open_store):
    one, two = open_store(), open_store(table_name="others")
    one.create(key(1), record(a=b"1"), 600)
    two.create(key(1), record(a=b"2"), 600)
    assert (fields(one), fields(two)) == ({"a": b"1"}, {"a": b"2"})


def test_a_missing_table_says_what_to_do(open_store, sql):
    store = open_store(create_table=False)
    for call in all_calls(store).values():
        with pytest.raises(StoreError, match="create_table = true, or run the migration") as caught:
            call()
        assert_discreet(caught.value)
    assert sql("SELECT name FROM sqlite_master") == []


def test_reading_makes_no_table(store, sql):
    calls = all_calls(store)
    assert calls["load"]() is Missing.UNKNOWN
    assert calls["keys"]() == []
    assert calls["purge"]() == 0
    calls["destroy"]()
    assert calls["owned"]() == []
    assert calls["end_owned"]() == 0
    for name in ("save", "touch", "rotate", "rotate with a trail"):
        with pytest.raises(SessionGone):
            calls[name]()
    assert sql("SELECT name FROM sqlite_master") == []


CREATOR = """
import sys, time
from nocookie.stores.sqlalchemy import SqlAlchemyStore
from nocookie.stores.base import Record
store = SqlAlchemyStore(url=sys.argv[1], create_table=True, deadline=30)
print("ready", flush=True)
sys.stdin.readline()
store.create(f"{int(sys.argv[2]):064x}", Record({}, time.time(), 0, 0, 0), 600)
store.close()
print("done", flush=True)
"""


def test_eight_processes_may_make_the_table_at_once(python, url, store, sql):
    processes = [python(CREATOR, url, number) for number in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout.readline() == "done\n"
    assert sorted(store.keys()) == [key(n) for n in range(8)]
    assert len(sql("SELECT 1 FROM sqlite_master WHERE name LIKE 'ix_%'")) == 2


PAGE = Path(__file__).parents[2] / "docs" / "stores" / "sqlalchemy.md"


def on_the_page(*about):
    """The SQL on the page that has all of *about* in it."""
    if not PAGE.exists():
        pytest.skip("the pages are not beside these tests")
    blocks = [part.partition("```")[0] for part in PAGE.read_text("utf-8").split("```sql\n")[1:]]
    [shown] = [block for block in blocks if all(word in block for word in about)]
    return shown


def in_sql(made, dialect, *, only=""):
    indexes = sorted(made.indexes, key=lambda index: index.name)
    parts = [CreateTable(made), *map(CreateIndex, indexes)]
    said = (f"{str(part.compile(dialect=dialect)).strip()};" for part in parts)
    return [line for line in said if only in line]


@pytest.mark.parametrize(
    ("dialect", "quote"), [(postgresql.dialect(), "BYTEA"), (mysql.dialect(), "LONGBLOB")]
)
def test_the_page_shows_the_table_as_it_is(dialect, quote):
    said = " ".join(in_sql(table(MetaData()), dialect))
    assert said.split() == on_the_page("CREATE TABLE", quote).split()


@pytest.mark.parametrize(
    ("dialect", "type"), [(postgresql.dialect(), "BYTEA"), (mysql.dialect(), "VARBINARY(64)")]
)
def test_the_page_shows_what_an_earlier_table_lacks(dialect, type):
    alter, index = on_the_page("ALTER TABLE", f"owner {type}").split("\n", 1)
    assert alter == f"ALTER TABLE {TABLE} ADD COLUMN owner {type};"
    assert index.split() == " ".join(in_sql(table(MetaData()), dialect, only="(owner)")).split()


@pytest.fixture
def earlier(sql):
    """The table as it was before it had owners, with a session in it; `migrate()` adds them."""
    made = table(MetaData())
    [create, _, sweep] = in_sql(made, sqlite.dialect())
    assert "owner BLOB" in create
    sql(create.replace("owner BLOB, ", ""))
    sql(sweep)
    data = entry({"a": b"1"})
    row = (bytes.fromhex(key(1)), data, len(data), len(data))
    sql(f"INSERT INTO {TABLE} VALUES (?, ?, ?, ?, 1, 1, 1e10, 1000000000, 1, x'', 1)", row)

    def migrate():
        sql(f"ALTER TABLE {TABLE} ADD COLUMN owner BLOB")
        sql(f"CREATE INDEX ix_{TABLE}_owner ON {TABLE} (owner) WHERE owner IS NOT NULL")

    return migrate


def test_a_table_of_an_earlier_version_is_read_and_says_what_it_lacks(open_store, earlier):
    store = open_store()
    assert fields(store) == {"a": b"1"}
    for name in ("create", "rotate", "rotate with a trail", "owned", "end_owned"):
        with pytest.raises(
            StoreError, match=r"lacks a column.*docs/stores/sqlalchemy\.md"
        ) as caught:
            all_calls(store)[name]()
        assert_discreet(caught.value)
    store.save(key(1), Delta({"a": b"2"}), 600)
    earlier()
    store.create(key(2), record(), 600, b"ann")
    store.rotate(key(1), key(3), Delta(), b"", 600, b"ann", TRAIL)
    assert sorted(store.owned(b"ann")) == [key(2), key(3)]
    assert fields(store, 3) == {"a": b"2"}


# -- statements ----------------------------------------------------------------------------------


def statements(made):
    yield from (made.load, made.insert, made.replace, made.destroy, made.keys, made.expired)
    yield from (made.find_trail, made.remove_trail)
    yield from (made.owned, made.end_owned, made.end_others)
    yield from () if made.leave_trail is None else (made.leave_trail,)
    yield from made.change.values()
    yield from made.touch.values()
    yield from (made.purge,) if made.direct else (made.purge_keys,)


@pytest.mark.parametrize("dialect", [mysql.dialect(), postgresql.dialect()], ids=["mysql", "pg"])
def test_every_statement_can_be_said_in_a_dialect_that_is_not_here(dialect):
    made = Statements(table(MetaData()), dialect.name)
    assert made.direct == (dialect.name == "postgresql")
    said = [str(statement.compile(dialect=dialect)) for statement in statements(made)]
    assert len(said) == (38 if made.direct else 39)


def test_mysql_gets_columns_that_hold_what_is_put_into_them():
    made = table(MetaData())
    for dialect in (mysql.dialect(), mysql.dialect(is_mariadb=True)):
        ddl = str(CreateTable(made).compile(dialect=dialect))
        assert "`key` BINARY(32) NOT NULL" in ddl
        assert "data LONGBLOB NOT NULL" in ddl
        assert "seal VARBINARY(255) NOT NULL" in ddl
        assert "expires DOUBLE NOT NULL" in ddl
        assert "owner VARBINARY(64)," in ddl
        indexes = [str(CreateIndex(index).compile(dialect=dialect)) for index in made.indexes]
        assert sorted(sql.partition(" ON ")[2] for sql in indexes) == [
            "nocookie_sessions (owner)",
            "nocookie_sessions (sweep)",
        ]


def test_purging_uses_the_index(store, sql):
    store.create(key(1), record(), 600)
    compiled = store._sql.purge.compile(store._engine)
    given = {"minute": 1, "now": 1.0, "limit": 10, "look": 20}
    values = [given.get(name, 0) for name in compiled.positiontup]
    plan = sql(f"EXPLAIN QUERY PLAN {compiled}", values)
    assert any(f"INDEX ix_{TABLE}_sweep (sweep<?)" in line[-1] for line in plan), plan
    assert not any(line[-1].startswith("SCAN nocookie_sessions") for line in plan), plan


def test_creating_sweeps_what_has_expired(open_store):
    now = 1_000_000_000.0
    store = open_store(clock=lambda: now)
    for number in range(5):
        store.create(key(number), record(), 10)
    now += 10 + SWEEP_EVERY + SWEEP_GRID
    store.create(key(9), record(), 600)
    assert [store.load(key(n)) for n in range(5)] == [Missing.UNKNOWN] * 5


def test_the_journal_stays_near_the_size_of_the_record(store, sql):
    store.create(key(1), record(a=b"1"), 600)
    for turn in range(300):
        store.save(key(1), Delta({"a": b"%d" % turn}, {"never there"}), 600)
        [(size,)] = sql(f"SELECT length(data) FROM {TABLE}")
        assert size <= SLACK + 200
    assert fields(store) == {"a": b"299"}


def test_a_record_that_is_made_anew_is_not_taken_for_an_earlier_one(store):
    """Neither by `expect` nor by our own compare-and-set."""
    versions = set()
    for _ in range(20):
        store.create(key(1), record(a=b"1"), 600)
        versions.add(store.load(key(1)).version)
        store.destroy(key(1))
    assert len(versions) == 20


def test_a_database_in_utf_16_keeps_every_byte(sql, path, open_store):
    """There SQLite would cut what it appends to an even number of bytes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA encoding = 'UTF-16'; CREATE TABLE other (x)")
    store = open_store()
    store.create(key(1), record(a=b"odd"), 600)
    assert sql("PRAGMA encoding") == [("UTF-16le",)]
    for turn in range(5):
        store.save(key(1), Delta({f"{turn}": b"\0" * turn}), 600)
    assert fields(store) == {"a": b"odd", **{f"{turn}": b"\0" * turn for turn in range(5)}}


def test_a_file_of_ours_is_in_wal_mode(store, sql):
    store.create(key(1), record(), 600)
    assert sql("PRAGMA journal_mode") == [("wal",)]


# -- an application's engine ---------------------------------------------------------------------


def test_an_applications_engine_stays_open_and_as_it_was(open_store, engines, url):
    engine = engines(url)
    store = open_store(engine=engine)
    store.create(key(1), record(a=b"1"), 600)
    pool = engine.pool
    store.close()
    assert engine.pool is pool
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DELETE FROM {TABLE}")
        connection.rollback()  # its own transactions are as they were
    assert fields(store) == {"a": b"1"}


# -- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["ours", "the application's"])
def test_a_file_that_somebody_holds_is_a_timeout_within_the_deadline(
    open_store, engines, url, path, whose
):
    where = {"url": url}
    if whose == "the application's":
        where = {"engine": engines(url, connect_args={"timeout": 0.1})}
    store = open_store(**where, deadline=0.5)
    store.create(key(1), record(a=b"1"), 600)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        for name in ("create", "save", "touch", "rotate", "destroy"):
            begun = time.monotonic()
            with pytest.raises(StoreTimeout) as caught:
                all_calls(store)[name]()
            assert_discreet(caught.value)
            assert 0.4 < time.monotonic() - begun < 0.5 + MARGIN
        if whose == "ours":  # in WAL mode nobody keeps readers waiting
            assert fields(store) == {"a": b"1"}
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    store.save(key(1), Delta({"a": b"2"}), 600)
    assert fields(store) == {"a": b"2"}


def test_a_file_that_is_freed_in_time_is_waited_for(store, path):
    store.create(key(1), record(a=b"1"), 600)
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, holder.close).start()
    store.save(key(1), Delta({"a": b"2"}), 600)
    assert fields(store) == {"a": b"2"}


def test_a_folder_that_is_not_there_is_a_store_error(open_store, tmp_path):
    store = open_store(url=f"sqlite:///{tmp_path}/secret/sessions.db")
    for call in all_calls(store).values():
        with pytest.raises(StoreError) as caught:
            call()
        assert_discreet(caught.value)


def test_the_deadline_holds_for_an_engine_that_has_the_address_of_one_that_is_gone():
    # A dialect outlives its engine where something keeps it, a cycle of garbage for one.
    dialects = []
    for _ in range(300):
        engine = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
        dialects.append(engine.dialect)
        SqlAlchemyStore(engine=engine).close()
        del engine
    assert [len(dialect.dispatch.do_connect) for dialect in dialects] == [1] * len(dialects)


def test_an_engine_that_cannot_even_connect_is_a_store_error(open_store, engines, url):
    """And no session is taken for missing or corrupted because of it."""
    store = open_store(engine=engines(url, connect_args={"nothing": "secret"}))
    for call in all_calls(store).values():
        with pytest.raises(StoreError, match="TypeError") as caught:
            call()
        assert_discreet(caught.value)


@pytest.mark.parametrize("fails", [False, True])
def test_a_call_leaves_no_garbage(store, fails):
    """As long as the driver raises nothing: then SQLAlchemy itself leaves some."""
    store.create(key(1), record(a=b"1"), 600)

    def use():
        if fails:
            for call in (
                all_calls(store)["create"],
                lambda: store.touch(key(7), 600),
            ):
                with pytest.raises((KeyTaken, SessionGone)):
                    call()
        else:
            store.load(key(1))
            store.save(key(1), Delta({"a": b"2"}), 600)
            store.touch(key(1), 600)

    store.create(key(101), record(), 600)
    use()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            use()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_file_that_is_no_database_is_a_store_error_and_kept(store, path):
    path.write_bytes(b"a file of somebody else, and long enough to be looked at" * 20)
    before = path.read_bytes()
    for call in all_calls(store).values():
        with pytest.raises(StoreError) as caught:
            call()
        assert_discreet(caught.value)
    assert path.read_bytes() == before


def test_a_full_disk_keeps_the_old_record_and_the_store_goes_on(store):
    """F11."""
    limits = []
    event.listen(
        store._engine,
        "checkout",
        lambda connection, *_: [connection.execute(f"PRAGMA max_page_count = {n}") for n in limits],
    )
    store.create(key(1), record(a=b"old"), 600)
    limits.append(12)
    for call in (
        lambda: store.save(key(1), Delta({"a": b"x" * 500_000}), 600),
        lambda: store.save(key(1), Delta({"a": b"x" * 500_000}, cleared=True), 600),
        lambda: store.create(key(2), record(b=b"x" * 500_000), 600),
        lambda: store.rotate(key(1), key(3), Delta({"a": b"x" * 500_000}), b"", 600),
    ):
        with pytest.raises(StoreError, match="SQLITE_FULL") as caught:
            call()
        assert_discreet(caught.value)
    assert fields(store) == {"a": b"old"}
    assert store.load(key(2)) is Missing.UNKNOWN
    assert store.load(key(3)) is Missing.UNKNOWN
    store.touch(key(1), 600)
    limits[:] = [1_000_000]
    store.save(key(1), Delta({"a": b"x" * 500_000}), 600)
    assert fields(store) == {"a": b"x" * 500_000}
    store.destroy(key(1))


# -- owners and trails ---------------------------------------------------------------------------


def test_the_records_of_an_owner_are_found_by_the_index(store, sql):
    store.create(key(1), record(), 600, b"ann")
    store.create(key(2), record(), 600)
    for statement in (store._sql.owned, store._sql.end_owned, store._sql.end_others):
        compiled = str(statement.compile(store._engine))
        values = [b"ann", 1.0, b""][: compiled.count("?")]
        assert f"ix_{TABLE}_owner" in str(sql(f"EXPLAIN QUERY PLAN {compiled}", values))


@pytest.mark.parametrize("reads", [False, True])
def test_a_rotation_that_cannot_leave_its_trail_changes_nothing(store, sql, reads):
    if reads:
        reading_first(store)
    store.create(key(1), record(a=b"1"), 600)
    sql(f"CREATE TRIGGER no_trail BEFORE INSERT ON {TABLE} WHEN new.format = 2"
        " BEGIN SELECT no_such_function(); END")  # fmt: skip
    with pytest.raises(StoreError, match="failed") as caught:
        all_calls(store)["rotate with a trail"]()
    assert_discreet(caught.value)
    assert fields(store) == {"a": b"1"}
    assert store.load(key(201)) is Missing.UNKNOWN
    sql("DROP TRIGGER no_trail")  # somebody else can write
    all_calls(store)["rotate with a trail"]()
    assert store.load(key(1)) == Moved(b"ticket")
    assert fields(store, 201) == {"a": b"1"}


def test_after_a_trail_a_save_is_done_at_once_again(open_store, sql, engines, url):
    """The connection is as it was, and an application's are as they were."""
    engine = engines(url)
    with engine.connect() as connection:
        level = connection.get_isolation_level()
    store = open_store(engine=engine)
    store.create(key(1), record(a=b"1"), 600)
    all_calls(store)["rotate with a trail"]()
    store.save(key(201), Delta({"a": b"2"}), 600)
    assert sql(f"SELECT count(*) FROM {TABLE} WHERE version > 0") == [(1,)]
    assert fields(open_store(), 201) == {"a": b"2"}
    with engine.connect() as connection:
        assert connection.get_isolation_level() == level
        connection.exec_driver_sql(f"DELETE FROM {TABLE}")
        connection.rollback()
    assert fields(store, 201) == {"a": b"2"}


def test_a_trail_that_is_over_is_unknown(open_store):
    """Its record may live: nobody is told that it expired."""
    now = 1_000_000_000.0
    store = open_store(clock=lambda: now)
    store.create(key(1), record(), 600)
    all_calls(store)["rotate with a trail"]()
    now += 61
    assert store.load(key(1)) is Missing.UNKNOWN
    assert store.purge(10) == 1


ROTATOR = """
import sys
from nocookie.stores.sqlalchemy import SqlAlchemyStore
from nocookie.stores.base import Delta, Trail
store = SqlAlchemyStore(url=sys.argv[1], deadline=30)
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    trail = Trail(b"%d" % (number + 1), 600)
    store.rotate(f"{number:064x}", f"{number + 1:064x}", Delta(), b"", 600, trail=trail)
    number += 1
"""


def test_who_rotates_and_is_killed_leaves_one_record_and_whole_trails(store, url, python):
    store.create(key(0), record(a=b"1"), 600)
    chance = random.Random(7)
    number = 0
    for _ in range(max(4, KILLS // 4)):
        process = python(ROTATOR, url, number)
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.01, 0.1))
        process.kill()
        process.communicate()
        while isinstance(found := store.load(key(number)), Moved):
            number = int(found.ticket)
        assert isinstance(found, Record), number
        assert list(store.keys()) == [key(number)]
    assert number > 10


# -- corrupted records ---------------------------------------------------------------------------


def corrupted(store, sql, change, values=()):
    """Change a row by hand; nothing of the store may make it better or worse."""
    store.create(key(1), record(a=b"12345", b=b"67890"), 600)
    store.save(key(1), Delta({"c": b"1"}, {"a"}), 600)
    sql(f"UPDATE {TABLE} SET {change}", values)
    return sql(f"SELECT * FROM {TABLE}")


@pytest.mark.parametrize(
    "change",
    [
        "data = x''",
        "data = x'00'",
        "data = 'text'",
        "data = 5",
        "data = randomblob(length(data))",
        "size = 'long'",
        "version = 'new'",
        "seal = 'text'",
        "created = 'yesterday'",
        "accessed = 'text'",
        "expires = 'never'",
        "expires = 9e999",
        "format = 3",
    ],
)
def test_a_corrupted_record_is_kept_and_says_so(store, sql, change):
    """F16, F17."""
    before = corrupted(store, sql, change)
    store.create(key(2), record(other=b"1"), 600)
    assert store.load(key(1)) is Missing.CORRUPTED
    with pytest.raises(KeyTaken):
        store.create(key(1), record(), 600)
    assert sql(f"SELECT * FROM {TABLE} WHERE key = ?", (bytes.fromhex(key(1)),)) == before
    assert fields(store, 2) == {"other": b"1"}
    store.create(key(1), record(new=b"1"), 600, instead_of=Missing.CORRUPTED)
    assert fields(store) == {"new": b"1"}
    with pytest.raises(VersionChanged):
        store.create(key(1), record(late=b"1"), 600, instead_of=Missing.CORRUPTED)
    assert fields(store) == {"new": b"1"}
    store.destroy(key(1))
    assert store.load(key(1)) is Missing.UNKNOWN


def test_every_way_to_cut_a_journal_short_is_noticed(store, sql):
    """Also between two entries, where what is left is one."""
    corrupted(store, sql, "size = size")
    [(whole,)] = sql(f"SELECT data FROM {TABLE}")
    for length in range(len(whole)):
        sql(f"UPDATE {TABLE} SET data = ?", (whole[:length],))
        assert store.load(key(1)) is Missing.CORRUPTED
    sql(f"UPDATE {TABLE} SET data = ?", (whole,))
    assert fields(store) == {"b": b"67890", "c": b"1"}


@pytest.mark.parametrize("reads", [False, True])
def test_a_record_of_a_newer_version_is_not_written_to(store, sql, reads):
    """F17: the newer worker beside this one goes on with it."""
    before = corrupted(store, sql, "format = 3")
    if reads:
        reading_first(store)
    for delta in (Delta({"a": b"2"}), Delta({"a": b"2"}, cleared=True)):
        with pytest.raises(StoreError, match="left as it is"):
            store.save(key(1), delta, 600)
        with pytest.raises(StoreError, match="left as it is"):
            store.rotate(key(1), key(2), delta, b"", 600)
    assert sql(f"SELECT * FROM {TABLE}") == before


def test_a_touch_from_a_slow_clock_takes_nothing_back(open_store):
    """F22."""
    now = 1_000_000_000.0
    right, slow = open_store(clock=lambda: now), open_store(clock=lambda: now - 30)
    right.create(key(1), record(a=b"1"), 600)
    before = right.load(key(1))
    slow.touch(key(1), 600)
    slow.touch(key(1), 5)
    assert right.load(key(1)) == before


def test_threads_that_read_and_compare_get_through(open_store):
    """F37: many writers of one record, where each change is a compare-and-set."""
    store = reading_first(open_store(deadline=30))
    store.create(key(1), record(), 600)

    def write(number):
        for turn in range(10):
            store.save(key(1), Delta({f"{number}.{turn}": b"1"}), 600)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fields(store)) == 160


def test_a_change_that_never_gets_through_is_a_timeout(open_store):
    """The other writer is always quicker."""
    other = open_store()
    store = reading_first(open_store(deadline=0.3))
    other.create(key(1), record(), 600)

    @event.listens_for(store._engine, "before_cursor_execute")
    def be_quicker(connection, cursor, statement, *_):
        if statement.lstrip().startswith("UPDATE"):
            other.touch(key(1), 600)
            other.save(key(1), Delta({"theirs": b"1"}), 600)

    begun = time.monotonic()
    with pytest.raises(StoreTimeout, match="others kept it busy"):
        store.save(key(1), Delta({"ours": b"1"}), 600)
    assert time.monotonic() - begun < 0.3 + MARGIN
    assert fields(other) == {"theirs": b"1"}


# -- processes -----------------------------------------------------------------------------------


def test_forked_workers_have_connections_of_their_own(store, fork):
    """F27."""
    for number in range(4):
        store.create(key(number), record(mine=b"%d" % number), 600)
    assert fields(store, 0) == {"mine": b"0"}

    def worker(number):
        for turn in range(50):
            assert fields(store, number)["mine"] == b"%d" % number
            store.save(key(number), Delta({"turn": b"%d" % turn}), 600)
        store.close()

    children = [fork(lambda number=number: worker(number)) for number in range(4)]
    for _ in range(50):
        assert fields(store, 0)["mine"] == b"0"
    assert [child.wait() for child in children] == [0] * 4
    assert [fields(store, n)["turn"] for n in range(4)] == [b"49"] * 4


def test_a_fork_while_threads_write_leaves_the_child_no_lock_of_theirs(store, fork):
    """F27. SQLite keeps count of its locks in memory, and a fork copies the count."""
    for number in range(4):
        store.create(key(number), record(large=b"x" * 100_000), 600)
    done, failed = threading.Event(), []

    def work(number):
        turn = 0
        while not done.is_set():
            turn += 1
            try:
                store.save(key(number), Delta({"turn": b"%d" % turn}), 600)
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()

    def child():
        store.save(key(3), Delta({"child": b"1"}), 600)
        assert fields(store, 3)["child"] == b"1"
        store.close()

    try:
        for _ in range(30):
            assert fork(child).wait() == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed


WRITER = """
import sys
from nocookie.stores.sqlalchemy import SqlAlchemyStore
from nocookie.stores.base import Delta
store = SqlAlchemyStore(url=sys.argv[1])
print("ready", flush=True)
turn = int(sys.argv[2])
while True:
    turn += 1
    value = b"%d " % turn * 60_000
    store.save(f"{1:064x}", Delta({"large": value, "turn": b"%d" % turn}), 600)
    print(turn, flush=True)
"""


def test_a_writer_killed_at_any_point_leaves_the_old_record_or_the_new_one(store, url, python):
    """F23."""
    store.create(key(1), record(large=b"0 " * 60_000, turn=b"0"), 600)
    chance = random.Random(23)
    turn = 0
    for _ in range(max(4, KILLS // 4)):
        writer = python(WRITER, url, turn)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.15))
        writer.kill()
        acknowledged = [turn, *map(int, writer.communicate()[0].split())][-1]
        begun = time.monotonic()
        store.save(key(1), Delta({"after": b"1"}), 600)
        assert time.monotonic() - begun < 1 + MARGIN, "a lock was left behind"
        found = fields(store)
        turn = int(found["turn"])
        assert found["large"] == b"%d " % turn * 60_000
        assert turn >= acknowledged


# -- as an application uses it -------------------------------------------------------------------


def test_a_session_lives_in_the_database(url):
    options = {"type": "sqlalchemy", "url": url, "create_table": True}
    try:
        first = Session({}, **options)
        first["user"] = "ada"
        first.save()
        again = Session({}, id=first.id, **options)
        assert again["user"] == "ada"
        again.incr("hits", 2)
        again.regenerate_id()
        again.save()
        assert Session({}, id=first.id, **options).is_new
        assert dict(Session({}, id=again.id, **options)) == {"user": "ada", "hits": 2}
    finally:
        close_all()
