"""Several threads at once, with no thread left behind."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["together", "wait_until"]

#: How long a test waits for its threads before it calls them stuck.
PATIENCE: Final = 60.0


def together(
    *functions: Callable[[], object], meanwhile: list[Callable[[], object]] | None = None
) -> None:
    """Run *functions* at the same time, each in a thread, and those in *meanwhile* again and
    again until they are done. Raises what any of them raised."""
    start = threading.Barrier(len(functions) + len(meanwhile or ()))
    done = threading.Event()
    errors: list[BaseException] = []

    def run(function: Callable[[], object], again: bool) -> None:
        try:
            start.wait(PATIENCE)
            function()
            while again and not done.is_set() and not errors:
                function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f, False), daemon=True) for f in functions]
    others = [threading.Thread(target=run, args=(f, True), daemon=True) for f in meanwhile or ()]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # more switches, so more of what can go wrong does
    try:
        for thread in threads + others:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        done.set()
        for thread in others:
            thread.join(PATIENCE)
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads + others), "a thread is stuck"


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another thread. Raises rather than wait for ever."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "the other thread never came so far"
        time.sleep(0)
