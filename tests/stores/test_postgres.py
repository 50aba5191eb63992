"""The database store on a real PostgreSQL: the suite, trips, and what goes wrong."""

import itertools
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from lengths import KILLS
from realservers.relay import Relay
from sqlalchemy import create_engine, event, text

from nocookie import Session, StoreError, StoreTimeout
from nocookie.errors import SessionGone
from nocookie.stores.base import Delta, KeyTaken, Missing, Moved, Record, Trail
from nocookie.stores.sqlalchemy import SqlAlchemyStore
from nocookie.stores.sqlalchemy.calls import Call
from nocookie.stores.sqlalchemy.statements import SLACK, Statements
from nocookie.testing import StoreSuite
from nocookie.testing.threads import wait_until

pytestmark = pytest.mark.server

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


# -- the suite -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_url(postgres_server):
    """One database for the suite; each test of it has a table of its own."""
    if postgres_server.process is None:
        postgres_server.start()
    name = postgres_server.make_database()
    postgres_server.execute("CREATE SCHEMA elsewhere", name)
    yield postgres_server.url(name)
    if postgres_server.process is None:
        postgres_server.start()
    postgres_server.drop_database(name)


@pytest.fixture(scope="module")
def engine(shared_url):
    engine = create_engine(shared_url, isolation_level="SERIALIZABLE", pool_size=3)
    yield engine
    engine.dispose()


numbers = itertools.count()


class TestOnPostgres(StoreSuite):
    @pytest.fixture
    def store(self, clock, shared_url):
        store = SqlAlchemyStore(
            url=shared_url,
            table_name=f"sessions_{next(numbers)}",
            create_table=True,
            clock=clock,
            deadline=30,
        )
        yield store
        store.close()


class TestOnAnEngineOfTheApplication(StoreSuite):
    """Which is at another isolation level, with a table in another schema."""

    @pytest.fixture
    def store(self, clock, engine):
        store = SqlAlchemyStore(
            engine=engine,
            table_name=f"sessions_{next(numbers)}",
            schema_name="elsewhere",
            create_table=True,
            clock=clock,
            deadline=30,
        )
        yield store
        store.close()


class TestWhereBytesCannotBeAppended(StoreSuite):
    """What MySQL and every other database gets: read, merge, compare, write."""

    @pytest.fixture
    def store(self, clock, shared_url):
        store = SqlAlchemyStore(
            url=shared_url,
            table_name=f"sessions_{next(numbers)}",
            create_table=True,
            clock=clock,
            deadline=30,
        )
        store._sql = Statements(store._sql.table, "another")
        yield store
        store.close()


# -- one test, one database ----------------------------------------------------------------------


@pytest.fixture
def url(postgres_url):
    return postgres_url


@pytest.fixture
def sql(postgres, postgres_database):
    """`sql(statement)`: run beside the store, as an operator would."""
    return lambda statement: postgres.execute(statement, postgres_database)


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
def relay(postgres):
    with Relay("127.0.0.1", postgres.port) as relay:
        yield relay


@pytest.fixture
def through(relay, postgres, postgres_database):
    """The URL of the database behind the relay."""
    return postgres.url(postgres_database, relay.port)


@pytest.fixture
def thawed(postgres, postgres_database):
    """Whatever happens, the server goes on afterwards, before its database is taken back."""
    yield postgres
    if postgres.process is not None:
        postgres.thaw()


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


def within(store, call):
    """Run *call*, which must be over by the deadline; return what it raised."""
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        call()
    assert time.monotonic() - begun < store._deadline + MARGIN
    return caught.value


def assert_discreet(error):
    """It carries nothing: no row, no key, and no exception of a driver, which quotes them."""
    assert error.__cause__ is None
    assert error.__context__ is None
    assert not any(key(n)[-8:] in str(error) for n in (1, 101, 201))
    assert "secret" not in str(error)


# -- trips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["ours", "the application's"])
def test_every_call_is_one_trip(open_store, through, relay, engines, whose):
    """No BEGIN, no COMMIT, no ping: only the statement."""
    where = {"url": through} if whose == "ours" else {"engine": engines(through)}
    store = open_store(**where)
    for number in range(10):  # until the driver has prepared each statement
        store.create(key(1000 + number), record(a=b"1"), 600)
        store.load(key(1000 + number))
        store.save(key(1000 + number), Delta({"a": b"2"}), 600)
        store.touch(key(1000 + number), 600)
        store.rotate(key(1000 + number), key(2000 + number), Delta({"a": b"3"}), b"", 600)
        store.save(key(2000 + number), Delta({"a": b"3"}, cleared=True), 600)
        store.rotate(key(2000 + number), key(3000 + number), Delta(), b"", 600, trail=TRAIL)
        store.destroy(key(3000 + number))
        store.owned(b"ann")
        store.end_owned(b"ann")
        store.end_owned(b"ann", but=key(1))
        store.purge(10)
    store.create(key(1), record(a=b"1"), 600)
    clear = Delta({"a": b"2"}, cleared=True)
    calls = {
        "clear": lambda: store.save(key(1), clear, 600),
        **all_calls(store),
        "rotate with a trail": lambda: store.rotate(
            key(201), key(202), Delta(), b"", 600, b"ann", TRAIL
        ),
        "load a trail": lambda: store.load(key(201)),
        "destroy": lambda: store.destroy(key(202)),
        "end others": lambda: store.end_owned(b"ann", but=key(1)),
    }
    trips = {}
    for name, call in calls.items():
        relay.requests = 0
        call()
        trips[name] = relay.requests
    assert trips.pop("keys") <= 4  # a page, and one that says there are no more; first time
    assert trips == dict.fromkeys(trips, 1)


def test_a_change_is_two_trips_and_a_hundred_are_few_more(open_store, through, relay):
    """Every 20th save or so writes the journal anew, for two more."""
    store = open_store(url=through)
    store.create(key(1), record(a=b"1" * 300, user=b"2" * 100), 600)
    trips = []
    for turn in range(120):
        relay.requests = 0
        store.load(key(1))
        store.save(key(1), Delta({"a": b"%d" % turn * 20}), 600)
        trips.append(relay.requests)
    steady = trips[20:]
    assert min(steady) == 2
    assert sum(steady) <= 2.25 * len(steady)


def test_the_journal_stays_near_the_size_of_the_record(store, sql):
    store.create(key(1), record(a=b"1"), 600)
    for turn in range(300):
        store.save(key(1), Delta({"a": b"%d" % turn}), 600)
        [(size,)] = sql(f"SELECT octet_length(data) FROM {TABLE}")
        assert size <= SLACK + 200
    large = os.urandom(600_000)
    for turn in range(5):
        store.save(key(1), Delta({"large": large, "turn": b"%d" % turn}), 600)
    [(size,)] = sql(f"SELECT octet_length(data) FROM {TABLE}")
    assert size < 3 * len(large)
    assert fields(store) == {"a": b"299", "large": large, "turn": b"4"}


def test_most_saves_leave_the_indexes_alone(store, sql):
    """PostgreSQL calls that a HOT update: the row is the only thing that is written."""
    store.create(key(1), record(a=b"1"), 600)
    for turn in range(100):
        store.save(key(1), Delta({"a": b"%d" % turn}), 600)
    store.close()
    for _ in range(100):
        [(updated, hot)] = sql(
            f"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = '{TABLE}'"
        )
        if updated >= 100:
            break
        time.sleep(0.05)  # statistics come a little later
    assert updated >= 100
    assert hot >= 90


def test_purging_uses_the_index(store, sql):
    for number in range(50):
        store.create(key(number), record(a=b"1"), 600)
    sql(f"INSERT INTO {TABLE} SELECT decode(md5(n::text) || md5(n::text), 'hex'), '', 0, 0, 0, 0,"
        f" 1e12, 1e9::bigint + n, 1, '', 1 FROM generate_series(1, 20000) n")  # fmt: skip
    sql(f"ANALYZE {TABLE}")
    compiled = store._sql.purge.compile(store._engine, compile_kwargs={"render_postcompile": True})
    with store._engine.connect() as connection:
        plan = connection.exec_driver_sql(
            f"EXPLAIN {compiled}", {"now": 1.0, "minute": 1, "limit": 100, "look": 200}
        ).fetchall()
    assert f"Index Scan using ix_{TABLE}_sweep" in "\n".join(line for (line,) in plan)
    assert "skip" in str(compiled).lower()


def test_a_purge_passes_over_rows_that_somebody_holds(open_store, sql, postgres, engines, url):
    now = time.time()
    store = open_store(clock=lambda: now)
    for number in range(3):
        store.create(key(number), record(), 60)
    now += 100
    with engines(url).connect() as holder:
        holder.execute(text(f"SELECT 1 FROM {TABLE} WHERE get_byte(key, 31) = 1 FOR UPDATE"))
        assert store.purge(10) == 2
    assert store.purge(10) == 1


# -- owners and trails ---------------------------------------------------------------------------


def test_the_records_of_an_owner_are_found_by_the_index(store, sql):
    store.create(key(1), record(), 600)
    sql(f"INSERT INTO {TABLE} SELECT decode(md5(n::text) || md5(n::text), 'hex'), '', 0, 0, 0, 0,"
        " 1e12, 1, 1, '', 1, CASE WHEN n % 10 = 0 THEN int4send(n) END"
        " FROM generate_series(2, 20000) n")  # fmt: skip
    sql(f"ANALYZE {TABLE}")
    with store._engine.connect() as connection:
        for statement in (store._sql.owned, store._sql.end_owned, store._sql.end_others):
            plan = connection.exec_driver_sql(
                f"EXPLAIN {statement.compile(store._engine)}",
                {"whose": b"ann", "now": 1.0, "kept": b""},
            ).fetchall()
            assert f"Index Scan using ix_{TABLE}_owner" in "\n".join(line for (line,) in plan)


@pytest.fixture
def under_way(sql, engines, url):
    """`under_way(statements, call)`: run *call* while *statements* of another are done and not
    committed yet; return what it returned."""

    def run(statements, call):
        with engines(url).connect() as other, ThreadPoolExecutor(1) as pool:
            for statement in statements:
                other.exec_driver_sql(statement)
            outcome = pool.submit(call)
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            wait_until(lambda: sql(waits) == [(1,)])
            assert not outcome.done()
            other.commit()
            return outcome.result(30)

    return run


MOVE = f"UPDATE {TABLE} SET key = decode('{key(2)}', 'hex')"
LEAVE = (
    f"INSERT INTO {TABLE} SELECT decode('{key(1)}', 'hex'), 'ticket', 6, 6, created, accessed,"
    f" expires, sweep, 0, '', 2, NULL FROM {TABLE}"
)


def test_the_end_of_an_owner_waits_for_a_rotation_and_takes_what_it_moved(open_store, under_way):
    store = open_store(deadline=30)
    store.create(key(1), record(), 600, b"ann")
    assert under_way([MOVE], lambda: store.end_owned(b"ann")) == 1
    assert store.load(key(1)) is store.load(key(2)) is Missing.UNKNOWN


def test_the_end_of_the_others_spares_what_a_rotation_under_way_makes_the_one(
    open_store, under_way
):
    store = open_store(deadline=30)
    store.create(key(1), record(), 600, b"ann")
    assert under_way([MOVE], lambda: store.end_owned(b"ann", but=key(2))) == 0
    assert fields(store, 2) == {}


def test_who_destroys_during_a_rotation_is_told_where_it_went(open_store, under_way):
    """The statement that waited for it does not see the trail."""
    store = open_store(deadline=30)
    store.create(key(1), record(), 600)
    assert under_way([MOVE, LEAVE], lambda: store.destroy(key(1))) == Moved(b"ticket")
    assert store.load(key(1)) is Missing.UNKNOWN
    assert fields(store, 2) == {}


def test_what_a_destroy_costs_where_there_is_no_record(open_store, through, relay):
    store = open_store(url=through)
    trips = []
    for number in range(0, 20, 2):
        store.create(key(number), record(), 600)
        store.rotate(key(number), key(number + 1), Delta(), b"", 600, trail=TRAIL)
        relay.requests = 0
        assert store.destroy(key(number)) == Moved(b"ticket")
        trail = relay.requests
        assert store.destroy(key(number)) is None
        trips.append((trail, relay.requests - trail))
    assert trips[-1] == (3, 2)


def test_a_table_of_an_earlier_version_says_what_it_lacks(store, sql):
    store.create(key(1), record(a=b"1"), 600)
    sql(f"ALTER TABLE {TABLE} DROP COLUMN owner")
    for name in ("create", "rotate", "rotate with a trail", "owned", "end_owned"):
        with pytest.raises(
            StoreError, match=r"lacks a column.*docs/stores/sqlalchemy\.md"
        ) as caught:
            all_calls(store)[name]()
        assert_discreet(caught.value)
    assert fields(store) == {"a": b"1"}
    sql(f"ALTER TABLE {TABLE} ADD COLUMN owner BYTEA")
    sql(f"CREATE INDEX ix_{TABLE}_owner ON {TABLE} (owner) WHERE owner IS NOT NULL")
    store.create(key(2), record(), 600, b"ann")
    assert store.owned(b"ann") == [key(2)]


# -- the table -----------------------------------------------------------------------------------


def test_a_missing_table_says_what_to_do(open_store, sql):
    store = open_store(create_table=False)
    for call in all_calls(store).values():
        with pytest.raises(StoreError, match="create_table = true, or run the migration") as caught:
            call()
        assert_discreet(caught.value)
    assert sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []


def test_reading_makes_no_table(store, sql):
    assert store.load(key(1)) is Missing.UNKNOWN
    assert list(store.keys()) == []
    assert store.purge(10) == 0
    store.destroy(key(1))
    assert store.owned(b"ann") == []
    assert store.end_owned(b"ann") == 0
    for name in ("save", "touch", "rotate", "rotate with a trail"):
        with pytest.raises(SessionGone):
            all_calls(store)[name]()
    assert sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []


def test_a_missing_schema_is_a_store_error(open_store):
    store = open_store(schema_name="nowhere")
    with pytest.raises(StoreError, match="InvalidSchemaName"):
        store.create(key(1), record(), 600)


CREATOR = """
import sys, time
from nocookie.stores.sqlalchemy import SqlAlchemyStore
from nocookie.stores.base import Record
store = SqlAlchemyStore(url=sys.argv[1], create_table=True, deadline=30)
try:
    store.load("0" * 64)
finally:
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
    assert len(sql(f"SELECT 1 FROM pg_indexes WHERE tablename = '{TABLE}'")) == 3


# -- where changes race --------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["serializable", "repeatable read"])
def test_a_stricter_database_loses_nothing_either(open_store, sql, postgres_database, level):
    sql(f"ALTER DATABASE {postgres_database} SET default_transaction_isolation = '{level}'")
    store = open_store(deadline=30)
    store.create(key(1), record(), 600)

    def write(number):
        for turn in range(25):
            store.save(key(1), Delta({f"{number}.{turn}": b"1"}), 600)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fields(store)) == 100


# -- deadlines -----------------------------------------------------------------------------------


def test_a_frozen_server_is_a_timeout_and_the_same_session_goes_on_afterwards(thawed, open_store):
    """F05. The kernel still answers for a stopped process: nothing but our own watch ends it."""
    store = open_store(deadline=0.5)
    store.create(key(1), record(a=b"1"), 600)
    for name, call in all_calls(store).items():
        thawed.freeze()
        error = within(store, call)
        assert isinstance(error, StoreTimeout), name
        assert_discreet(error)
        thawed.thaw()
        store.create(key(1), record(a=b"1"), 600) if store.load(key(1)) is Missing.UNKNOWN else None
    assert isinstance(store.load(key(1)), Record)


def test_a_server_frozen_before_the_first_connection_is_a_timeout(thawed, open_store):
    store = open_store(deadline=0.5)
    thawed.freeze()
    assert isinstance(within(store, lambda: store.load(key(1))), StoreTimeout)
    thawed.thaw()
    assert store.load(key(1)) is Missing.UNKNOWN


def test_a_frozen_server_does_not_stop_an_applications_engine(thawed, open_store, engines, url):
    store = open_store(engine=engines(url), deadline=0.5)
    store.create(key(1), record(a=b"1"), 600)
    thawed.freeze()
    assert isinstance(within(store, lambda: store.load(key(1))), StoreTimeout)
    thawed.thaw()
    assert fields(store) == {"a": b"1"}


def test_many_threads_on_a_frozen_server_are_all_back_in_time(thawed, open_store):
    store = open_store(deadline=1.0)
    store.create(key(1), record(a=b"1"), 600)
    thawed.freeze()
    outcomes = []

    def read():
        begun = time.monotonic()
        try:
            store.load(key(1))
        except StoreTimeout:
            outcomes.append(time.monotonic() - begun)

    threads = [threading.Thread(target=read) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    thawed.thaw()
    assert len(outcomes) == 40
    assert max(outcomes) < 1.0 + MARGIN
    assert fields(store) == {"a": b"1"}


def test_a_lock_that_somebody_holds_is_a_timeout_and_costs_no_connection(
    open_store, engines, url, sql
):
    """The server ends the statement by itself, so nothing is left waiting there."""
    store = open_store(deadline=0.6)
    store.create(key(1), record(a=b"1"), 600)
    connections = []
    event.listen(store._engine, "connect", lambda *_: connections.append(1))
    with engines(url).connect() as holder:
        holder.execute(text(f"SELECT 1 FROM {TABLE} FOR UPDATE"))
        for name in ("save", "touch", "rotate", "rotate with a trail", "destroy"):
            assert isinstance(within(store, all_calls(store)[name]), StoreTimeout)
        waiting = sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        assert waiting == [(0,)]
    assert fields(store) == {"a": b"1"}
    assert not connections


def test_one_late_statement_does_not_close_an_applications_pool(open_store, engines, url):
    engine = engines(url)
    store = open_store(engine=engine, deadline=0.6)
    store.create(key(1), record(a=b"1"), 600)
    with engine.connect(), engine.connect(), engine.connect():
        pass  # now there are three
    connected = []
    event.listen(engine, "connect", lambda *_: connected.append(1))
    with engine.connect() as holder:
        holder.execute(text(f"SELECT 1 FROM {TABLE} FOR UPDATE"))
        assert isinstance(within(store, all_calls(store)["touch"]), StoreTimeout)
    with engine.connect() as one, engine.connect() as two, engine.connect() as three:
        assert [c.execute(text("SELECT 1")).scalar() for c in (one, two, three)] == [1, 1, 1]
    assert connected == [1]


def test_a_pool_in_use_is_a_bounded_wait_and_a_timeout(open_store, engines, url):
    """F28."""
    engine = engines(url, pool_size=1, max_overflow=0, pool_timeout=0.3)
    store = open_store(engine=engine, deadline=0.5)
    store.create(key(1), record(a=b"1"), 600)
    with engine.connect():
        error = within(store, lambda: store.load(key(1)))
        assert isinstance(error, StoreTimeout)
        assert "every connection is in use" in str(error)
    assert fields(store) == {"a": b"1"}


def test_64_threads_share_few_connections(open_store, sql):
    """F28: more threads than connections, and nobody is lost or mixed up."""
    store = open_store(deadline=30)
    for number in range(64):
        store.create(key(number), record(mine=b"%d" % number), 600)
    wrong = []

    def use(number):
        for _ in range(10):
            if fields(store, number)["mine"] != b"%d" % number:
                wrong.append(number)
            store.save(key(number), Delta({"turn": b"1"}), 600)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    [(connections,)] = sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    )
    assert connections <= 16


def test_a_slow_network_costs_time_and_nothing_else(open_store, through, relay):
    """F04."""
    store = open_store(url=through, deadline=5)
    store.create(key(1), record(a=b"1"), 600)
    store.load(key(1))
    relay.delay = relay.jitter = 0.2
    relay.requests = 0
    for turn in range(3):
        store.save(key(1), Delta({"a": b"%d" % turn}), 600)
        assert fields(store) == {"a": b"%d" % turn}
    assert relay.requests == 6
    relay.delay, relay.jitter, store._deadline = 3.0, 0.0, 0.5
    assert isinstance(within(store, lambda: store.load(key(1))), StoreTimeout)


def test_a_deadline_counts_for_the_whole_call(open_store, through, relay):
    """Connecting is several trips: all of them, and the statement, share one deadline."""
    store = open_store(url=through, deadline=0.5)
    relay.delay = 0.2
    assert isinstance(within(store, lambda: store.load(key(1))), StoreTimeout)


# -- a server that goes --------------------------------------------------------------------------


def test_a_server_that_is_down_at_the_start_is_an_error_until_it_is_up(postgres, open_store, url):
    """F01."""
    postgres.stop()
    store = open_store(deadline=1)
    for call in all_calls(store).values():
        assert_discreet(within(store, call))
    postgres.start()
    store.create(key(1), record(a=b"1"), 600)
    assert fields(store) == {"a": b"1"}


def test_a_server_killed_before_a_save_keeps_the_old_record(postgres, open_store):
    """F02."""
    store = open_store(deadline=1)
    store.create(key(1), record(a=b"1"), 600)
    store.load(key(1))
    postgres.kill()
    assert_discreet(within(store, lambda: store.save(key(1), Delta({"a": b"2"}), 600)))
    postgres.start()
    assert fields(store) == {"a": b"1"}
    store.save(key(1), Delta({"a": b"3"}), 600)
    assert fields(store) == {"a": b"3"}


def test_a_lost_answer_is_an_error_and_nothing_is_done_twice(open_store, through, relay, store):
    """F03. The outcome is unknown; a second try could count twice, so there is none."""
    far = open_store(url=through)
    store.create(key(1), record(n=b"0"), 600)
    far.load(key(1))
    relay.drop_reply(holding=b"UPDATE")
    with pytest.raises(StoreError):
        far.save(key(1), Delta({"n": b"1"}), 600, expect=far.load(key(1)).version)
    assert relay.wait_for_drop()
    assert fields(store) == {"n": b"1"}
    version = store.load(key(1)).version
    far.load(key(1))
    assert store.load(key(1)).version == version


def test_a_reader_whose_answer_is_lost_asks_again(open_store, through, relay, store):
    far = open_store(url=through)
    store.create(key(1), record(a=b"1"), 600)
    far.load(key(1))
    relay.drop_reply()
    assert fields(far) == {"a": b"1"}
    relay.drop_request()
    assert fields(far) == {"a": b"1"}
    relay.drop_reply()
    far.destroy(key(1))
    assert store.load(key(1)) is Missing.UNKNOWN


def test_a_restart_fails_no_request(postgres, open_store):
    """F06. An idle connection that the server has closed is noticed before it is used: also a
    first call that must not run twice goes through."""
    store = open_store()
    calls = [lambda: store.save(key(1), Delta({"a": b"2"}), 600), lambda: store.load(key(1))]
    store.create(key(1), record(a=b"1"), 600)
    threads = [threading.Thread(target=lambda: store.load(key(1))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for call in calls:
        postgres.restart()
        for _ in range(8):
            call()


def test_a_restart_fails_no_request_on_an_applications_engine(postgres, open_store, engines, url):
    store = open_store(engine=engines(url))
    store.create(key(1), record(a=b"1"), 600)
    postgres.restart()
    store.save(key(1), Delta({"a": b"2"}), 600)
    assert fields(store) == {"a": b"2"}


def test_a_connection_that_an_operator_ends_is_replaced(store, sql):
    store.create(key(1), record(a=b"1"), 600)
    sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()")  # fmt: skip
    store.save(key(1), Delta({"a": b"2"}), 600)
    assert fields(store) == {"a": b"2"}


def test_a_new_connection_is_used_whatever_the_server_says_first(store, monkeypatch):
    """Only an idle one that has something to say is given up; else there would be no end."""
    store.create(key(1), record(a=b"1"), 600)
    monkeypatch.setattr(Call, "_is_stale", lambda call: True)
    assert fields(store) == {"a": b"1"}


def test_a_record_that_an_operator_deletes_stays_deleted(store, sql):
    """F08."""
    store.create(key(1), record(a=b"1"), 600)
    store.load(key(1))
    sql(f"DELETE FROM {TABLE}")
    for name in ("save", "touch", "rotate"):
        with pytest.raises(SessionGone):
            all_calls(store)[name]()
    assert store.load(key(1)) is Missing.UNKNOWN


# -- a server that refuses -----------------------------------------------------------------------


def test_who_may_only_read_reads_and_a_write_is_a_store_error(
    open_store, postgres, postgres_database, sql
):
    """F14."""
    open_store().create(key(1), record(a=b"1"), 600)
    sql("DROP ROLE IF EXISTS reader")
    sql("CREATE ROLE reader LOGIN")
    sql(f"GRANT SELECT ON {TABLE} TO reader")
    url = postgres.url(postgres_database).replace("//nocookie@", "//reader@")
    store = open_store(url=url)
    assert fields(store) == {"a": b"1"}
    assert list(store.keys()) == [key(1)]
    for name in ("create", "save", "touch", "rotate", "destroy", "purge"):
        with pytest.raises(StoreError, match="InsufficientPrivilege") as caught:
            all_calls(store)[name]()
        assert_discreet(caught.value)
    assert fields(store) == {"a": b"1"}
    store.close()
    sql("DROP OWNED BY reader")
    sql("DROP ROLE reader")


def test_a_standby_is_read_and_a_write_is_a_store_error(open_store, sql, postgres_database):
    """F15, F10: what a database that takes no writes says."""
    open_store().create(key(1), record(a=b"1"), 600)
    sql(f"ALTER DATABASE {postgres_database} SET default_transaction_read_only = on")
    store = open_store()
    assert fields(store) == {"a": b"1"}
    with pytest.raises(StoreError, match="ReadOnlySqlTransaction"):
        store.save(key(1), Delta({"a": b"2"}), 600)
    assert fields(store) == {"a": b"1"}


def test_a_wrong_password_is_a_store_error_without_it(open_store, postgres, sql):
    store = open_store(url=postgres.url("none").replace("//nocookie@", "//nocookie:secret@"))
    with pytest.raises(StoreError) as caught:
        store.load(key(1))
    assert_discreet(caught.value)


# -- what is not ours ----------------------------------------------------------------------------


def corrupted(store, sql, change):
    """Change a row by hand; nothing of the store may make it better or worse."""
    store.create(key(1), record(a=b"12345", b=b"67890"), 600)
    store.save(key(1), Delta({"c": b"1"}, {"a"}), 600)
    sql(f"UPDATE {TABLE} SET {change} WHERE get_byte(key, 31) = 1")
    return sql(f"SELECT * FROM {TABLE}")


@pytest.mark.parametrize(
    "change",
    [
        "data = ''",
        "data = '\\x00'",
        "data = substr(data, 1, octet_length(data) / 2)",
        "data = data || data",
        "data = substr(data, 1, octet_length(data) - 1)",
        "data = decode(repeat('ff', octet_length(data)), 'hex')",
        "size = size + 1",
        "format = 3",
        "created = 'Infinity'",
    ],
)
def test_a_corrupted_record_is_kept_and_says_so(store, sql, change):
    """F16, F17."""
    before = corrupted(store, sql, change)
    store.create(key(2), record(other=b"1"), 600)
    assert store.load(key(1)) is Missing.CORRUPTED
    with pytest.raises(KeyTaken):
        store.create(key(1), record(), 600)
    assert sql(f"SELECT * FROM {TABLE} WHERE get_byte(key, 31) = 1") == before
    assert fields(store, 2) == {"other": b"1"}
    store.destroy(key(1))
    assert store.load(key(1)) is Missing.UNKNOWN


def test_a_record_of_a_newer_version_is_not_written_to(store, sql):
    """F17: the newer worker beside this one goes on with it."""
    before = corrupted(store, sql, "format = 3")
    for delta in (Delta({"a": b"2"}), Delta({"a": b"2"}, cleared=True)):
        with pytest.raises(StoreError, match="left as it is"):
            store.save(key(1), delta, 600)
        with pytest.raises(StoreError, match="left as it is"):
            store.rotate(key(1), key(2), delta, b"", 600)
    assert sql(f"SELECT * FROM {TABLE}") == before


# -- clocks --------------------------------------------------------------------------------------


def test_a_touch_from_a_slow_clock_takes_nothing_back(open_store):
    """F22."""
    now = 1_000_000_000.0
    right, slow = open_store(clock=lambda: now), open_store(clock=lambda: now - 30)
    right.create(key(1), record(a=b"1"), 600)
    before = right.load(key(1))
    slow.touch(key(1), 600)
    assert right.load(key(1)) == before
    slow.touch(key(1), 5)
    assert right.load(key(1)) == before


# -- processes -----------------------------------------------------------------------------------


def test_forked_workers_have_connections_of_their_own(store, fork, sql):
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


def test_a_fork_while_threads_work_disturbs_neither_side(store, fork):
    store.create(key(1), record(mine=b"parent"), 600)
    store.create(key(2), record(mine=b"child"), 600)
    done, wrong = threading.Event(), []

    def work():
        while not done.is_set():
            try:
                if fields(store)["mine"] != b"parent":
                    wrong.append("mixed")
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):

            def child():
                for _ in range(20):
                    assert fields(store, 2)["mine"] == b"child"
                store.close()

            assert fork(child).wait() == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_deadline_holds_in_a_forked_child_too(thawed, open_store, fork):
    store = open_store(deadline=0.5)
    store.create(key(1), record(a=b"1"), 600)

    def child():
        fields(store)
        thawed.freeze()
        assert isinstance(within(store, lambda: store.load(key(1))), StoreTimeout)
        store.close()

    assert fork(child).wait() == 0
    thawed.thaw()
    assert fields(store) == {"a": b"1"}


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


def test_a_writer_killed_at_any_point_leaves_the_old_record_or_the_new_one(store, url, python, sql):
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
        found = fields(store)
        turn = int(found["turn"])
        assert found["large"] == found["turn"] + (b" " + found["turn"]) * 59_999 + b" "
        store.save(key(1), Delta({"after": b"1"}), 600)
        assert time.monotonic() - begun < 1 + MARGIN, "a lock was left behind"
        # What was under way may take effect a moment later, but what was acknowledged has.
        assert turn >= acknowledged
        turn = int(fields(store)["turn"])


# -- as an application uses it --------------------------------------------------------------------


def test_a_session_lives_in_the_database(url):
    options = {"type": "sqlalchemy", "url": url, "create_table": True}
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
    again.invalidate()
    from nocookie.stores import close_all

    close_all()
