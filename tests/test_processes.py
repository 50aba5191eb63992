"""A memory store in several processes is noticed by what happens, whatever the server says."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from realservers import PATIENCE
from realservers.wsgi import NAMES, WITH_WORKERS

from nocookie import processes
from nocookie.forks import ProcessLocal
from nocookie.processes import TRIES, Serving

SAID = "a memory store under several processes"

linux = pytest.mark.skipif(sys.platform != "linux", reason="the names are of Linux")


def pids_that_answer(server, wanted):
    """Ask until so many processes have answered, and each more than TRIES times."""
    until = time.monotonic() + PATIENCE
    answers = {}
    with ThreadPoolExecutor(8) as pool:
        while time.monotonic() < until:
            for answer in pool.map(lambda _: server.request("GET", "/"), range(16)):
                assert answer.status == 200
                pid = answer.headers["X-Pid"]
                answers[pid] = answers.get(pid, 0) + 1
            if sorted(answers.values())[-wanted:][0] > 2 * TRIES and len(answers) >= wanted:
                break
    return len(answers)


@pytest.mark.server
@linux
@pytest.mark.parametrize("name", WITH_WORKERS)
def test_a_server_with_two_workers_is_warned_about(name, wsgi_server):
    server = wsgi_server(name, "counter:application", workers=2)
    assert pids_that_answer(server, 2) == 2
    assert server.log.count(SAID) == 1


@pytest.mark.server
@linux
@pytest.mark.parametrize("name", NAMES)
def test_a_server_with_one_process_is_not_warned_about(name, wsgi_server):
    server = wsgi_server(name, "counter:application")
    assert pids_that_answer(server, 1) == 1
    assert SAID not in server.log


@linux
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_were_forked_after_the_store_was_made(workers, wsgi_server, monkeypatch):
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--preload")
    # A name of its own: the fixture gives what was started before.
    server = wsgi_server("gunicorn-sync", "counter:application", workers=workers, prefix="/p")
    assert pids_that_answer_below(server, workers) == workers
    assert server.log.count(SAID) == workers - 1


def pids_that_answer_below(server, wanted):
    class Below:
        def request(self, method, target):
            return server.request(method, server.prefix + target)

    return pids_that_answer(Below(), wanted)


# -- the names -----------------------------------------------------------------------------------


def said_by_a_child(*makers):
    """What a fresh process finds that serves what *makers* have made, in turn, TRIES times each."""
    code = (
        "import sys\n"
        "from nocookie.processes import TRIES, Serving\n"
        "sys.argv = ['program']\n"
        "for maker in map(int, sys.stdin.read().split()):\n"
        "    serving = Serving(maker)\n"
        "    print([serving.is_alone({}) for _ in range(TRIES)][-1])\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", code],
        input=" ".join(map(str, makers)),
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.split()


@pytest.fixture
def program(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program"])
    taken = ProcessLocal(dict)
    monkeypatch.setattr(processes, "_taken", taken)
    yield
    for descriptor in taken.here().values():
        os.close(descriptor)


@linux
def test_who_serves_what_another_serves_is_not_alone(program):
    serving = Serving(os.getpid())
    assert serving.is_alone({}) is True
    # One that serves what this process made; one that serves what another made, which no process
    # can be: this may run beside others of its kind.
    nobody = os.getpid() + 2**22
    assert said_by_a_child(os.getpid(), nobody) == ["False", "True"]


@linux
def test_one_process_may_serve_in_many_places(program):
    assert Serving(os.getpid()).is_alone({}) is True
    assert Serving(os.getpid()).is_alone({}) is True


@linux
def test_a_name_is_wanted_for_some_requests_before_anything_is_said(program, monkeypatch):
    """As long as a server is reloaded, the worker that goes may have it."""
    taken = [True] * 3
    monkeypatch.setattr(processes, "_take", lambda name: not taken)
    serving = Serving(1)
    assert [serving.is_alone({}) for _ in range(3)] == [None] * 3
    taken.clear()
    assert serving.is_alone({}) is True


@linux
def test_programs_with_one_parent_and_other_words_are_strangers(program, monkeypatch):
    names = processes._names(os.getpid())
    monkeypatch.setattr(sys, "argv", ["another"])
    assert set(names).isdisjoint(processes._names(os.getpid()))


@pytest.mark.parametrize("says", [False, True])
def test_where_there_are_no_such_names_the_servers_word_counts(says, monkeypatch):
    monkeypatch.setattr(processes, "_HAS_NAMES", False)
    assert Serving(os.getpid()).is_alone({"wsgi.multiprocess": says}) is not says
