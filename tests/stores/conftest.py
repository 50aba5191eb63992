"""Other processes, for stores: forked children, and fresh interpreters."""

import os
import signal
import subprocess
import sys
import traceback
import warnings

import pytest

#: Seconds after which a child counts as stuck, and is ended by the alarm that it set itself.
CHILD_LIMIT = 60


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
