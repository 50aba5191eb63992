"""Ends what is blocked in a driver."""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

__all__ = ["Due", "Watchdog"]


class Due(Protocol):
    """What is to be over by a moment."""

    until: float

    def shut(self) -> None: ...


class Watchdog:
    """Shuts the sockets of calls that outlive their deadline.

    A driver that waits for a frozen server waits for ever: no timeout of the server holds then, nor
    does the kernel's keepalive, which the kernel answers. A thread looks every TICK whether a call
    is due. So a call pays for two operations on a set, and nobody is woken by it.
    """

    #: In seconds. The last look before a deadline counts: a call ends before it, not after.
    TICK: Final = 0.05
    #: After so many ticks without a call the thread sleeps until there is one.
    QUIET: Final = 200

    def __init__(self) -> None:
        self._calls: set[Due] = set()
        self._starting = threading.Lock()
        self._started = False
        self._asleep = False
        self._wake = threading.Event()

    def watch(self, call: Due) -> None:
        self._calls.add(call)
        if not self._started:
            with self._starting:
                if not self._started:
                    threading.Thread(
                        target=self._run, name="nocookie-watchdog", daemon=True
                    ).start()
                    self._started = True
        elif self._asleep:
            self._wake.set()

    def forget(self, call: Due) -> None:
        self._calls.discard(call)

    def _run(self) -> None:
        quiet = 0
        while True:
            time.sleep(self.TICK)
            due = time.monotonic() + self.TICK
            calls = self._calls.copy()
            for call in calls:
                if call.until <= due:
                    call.shut()
            quiet = 0 if calls else quiet + 1
            if quiet > self.QUIET:
                self._wake.clear()
                self._asleep = True
                if not self._calls:  # only now: who came before we slept did not wake us
                    self._wake.wait()
                self._asleep = False
                quiet = 0
