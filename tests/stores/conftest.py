"""Other processes, for stores: forked children, and fresh interpreters."""

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from stores import workers
from stores.places import KINDS

from nocookie.stores import close_all

#: Seconds after which a child counts as stuck, and is ended by the alarm that it set itself.
CHILD_LIMIT = 60
#: Seconds after which workers count as stuck.
CREW_LIMIT = 240


class Child:
    """A forked child that runs one function: its exit code is 0 if that returned."""

    def __init__(self, function):
        with warnings.catch_warnings():
            # From 3.12 on Python warns of a fork with threads: it is what these tests are about.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                signal.alarm(CHILD_LIMIT)
                function()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def wait(self):
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def fork():
    """`fork(function)` starts a `Child`."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    return Child


@pytest.fixture
def python():
    """`python(code, *arguments)` starts a fresh interpreter that can import what we can."""
    started = []

    def start(code, *arguments, **options):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def place(request):
    """An empty place of the row that the test is parametrised with; see `places`."""
    yield KINDS[request.param].make(request)
    close_all()


class Crew:
    """Workers that begin at one moment: processes where the place is shared, else threads."""

    def __init__(self, place, python):
        self.place = place
        self.python = python

    def run(self, *tasks):
        """Run each task, (worker's name, *arguments), at once; return what they returned."""
        if "shared" not in self.place.powers:
            return self._threads(tasks)
        processes = [self.start(*task) for task in tasks]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=CREW_LIMIT)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes)
        return [json.loads(output) for output in outputs]

    def start(self, name, *arguments):
        """Start one process and leave the talking to the test."""
        options, arguments = json.dumps(self.place.options), json.dumps(arguments)
        return self.python(workers.START, name, options, arguments)

    def _threads(self, tasks):
        start = threading.Barrier(len(tasks))
        with ThreadPoolExecutor(len(tasks)) as pool:

            def work(name, *arguments):
                start.wait(CHILD_LIMIT)
                return workers.WORKERS[name](self.place.options, *arguments)

            futures = [pool.submit(work, *task) for task in tasks]
            return [future.result(CREW_LIMIT) for future in futures]


@pytest.fixture
def crew(place, python):
    return Crew(place, python)


# -- PostgreSQL


@pytest.fixture(scope="session")
def postgres_server():
    from realservers.postgres import Postgres

    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres(postgres_server):
    """The server, running, whatever the last test did to it."""
    if postgres_server.process is None:
        postgres_server.start()
    return postgres_server


@pytest.fixture
def postgres_database(postgres):
    """The name of an empty database."""
    name = postgres.make_database()
    yield name
    if postgres.process is None:
        postgres.start()
    postgres.drop_database(name)


@pytest.fixture
def postgres_url(postgres, postgres_database):
    return postgres.url(postgres_database)


# -- Valkey


@pytest.fixture(scope="session")
def valkey_alone(tmp_path_factory):
    from realservers.valkey import Valkey

    folder = tmp_path_factory.mktemp("valkey")
    server = Valkey(folder, unixsocket=folder / "socket")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def valkey(valkey_alone):
    """A server that is empty."""
    valkey_alone.ask("FLUSHALL")
    return valkey_alone


@pytest.fixture
def own_valkey(tmp_path):
    """`own_valkey(**options)` starts a server that a test may stop, freeze or fill."""
    from realservers.valkey import Valkey

    started = []

    def start(**options):
        folder = tmp_path / f"valkey{len(started)}"
        folder.mkdir()
        server = Valkey(folder, **options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def valkey_cluster_of_six(tmp_path_factory):
    from realservers.valkey import ValkeyCluster

    cluster = ValkeyCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def valkey_cluster(valkey_cluster_of_six):
    """Three primaries with a replica each, all of them empty."""
    for node in valkey_cluster_of_six.primaries():
        node.ask("FLUSHALL")
    return valkey_cluster_of_six


# -- memcached


@pytest.fixture(scope="session")
def three_memcached(tmp_path_factory):
    from realservers.memcached import Memcached

    servers = [Memcached(tmp_path_factory.mktemp("memcached")) for _ in range(3)]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
def memcached_servers(three_memcached):
    """Three servers, empty, running, whatever the last test did to them."""
    for server in three_memcached:
        if server.process is None:
            server.start()
        server.thaw()
        server.flush()
    return three_memcached


@pytest.fixture
def memcached(memcached_servers):
    return memcached_servers[0]


@pytest.fixture
def own_memcached(tmp_path):
    """`own_memcached(*options)` starts a server with options of its own."""
    from realservers.memcached import Memcached

    started = []

    def start(*options):
        server = Memcached(tmp_path, *options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


# -- places


@pytest.fixture(scope="session")
def valkey_of_places(tmp_path_factory):
    from realservers.valkey import Valkey

    server = Valkey(tmp_path_factory.mktemp("valkey"), appendonly="yes")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def valkey_that_writes(valkey_of_places):
    """A server that is empty and keeps what it has on the disk, too."""
    if valkey_of_places.process is None:
        valkey_of_places.start()
    valkey_of_places.thaw()
    valkey_of_places.ask("FLUSHALL")
    return valkey_of_places
