"""Real servers for tests: each a process of the tests' own, on a free port of this host, with its
data in a folder that goes away. A test asks for one by the fixture of its name.

A server can be stopped, killed, restarted with its data, and frozen: what a store has to live
with. Faults on the wire (delays, lost replies) come from `realservers.relay`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

#: Seconds that a server may take to start; a loaded machine is slow.
PATIENCE = 60.0


def missing(what: str, how: str) -> NoReturn:
    """Say loudly that *what* is not here and *how* to get it; a failure where CI=true."""
    message = f"NOT TESTED: {what} is not installed ({how})"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server process. Subclasses say with what `command` it starts and when it `answers`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.environ: dict[str, str] | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it is ready. May raise OSError for no."""
        with socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it, with the data that is there, and wait until it answers."""
        log = self.folder / "server.log"
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        wait_until(self._ready, lambda: f"{self.command()[0]} did not start:\n{log.read_text()}")

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"ended:\n{(self.folder / 'server.log').read_text()[-5000:]}")
        try:
            return self.answers()
        except OSError:
            return False

    def stop(self) -> None:
        """End it as an operator would: it may write what it has to."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        # On a busy machine it takes effect late: wait until the process has stopped.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, with_signal: int) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
            self.process.send_signal(signal.SIGCONT)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        # What it started and left behind is in its group.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process = None


def wait_until(ready: Callable[[], bool], what: Callable[[], str]) -> None:
    until = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < until, what()
        time.sleep(0.02)
