"""What runs beside a test, in another process or another thread: each worker a function that uses
sessions as an application would.

A process begins with `START`, its arguments the worker's name and JSON; see the fixture `crew`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from helpers import serve

from nocookie import Session, SessionGone, SessionMiddleware, session

START = "from stores.workers import main; main()"

#: Seconds between the load and the save of one request: enough for others to come in between.
THINK = 0.002

#: Bytes of a save that takes long enough to be killed in its middle.
LARGE = 600_000


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def open_session(options: dict[str, Any], id: str | None = None) -> Session:
    return Session({}, id=id, **options)


# -- one thing, many times -----------------------------------------------------------------------


def change(options, id, name, turns):
    """Load, think, change one key of its own, save."""
    for turn in range(turns):
        mine = open_session(options, id)
        assert mine.get(name, 0) == turn, "an acknowledged save was lost"
        time.sleep(THINK)
        mine[name] = turn + 1
        mine.save()


def incr(options, id, name, turns):
    for _ in range(turns):
        open_session(options, id).incr(name)


def mutate(options, id, name, turns):
    def append(stored):
        stored[name] = [*stored.get(name, [])[-3:], stored.get("n", 0)]
        stored["n"] = stored.get("n", 0) + 1

    for _ in range(turns):
        open_session(options, id).mutate(append)


def read(options, id, names, until):
    """Only read, as long as the others write. Returns how often."""
    seen = dict.fromkeys(names, 0)
    count = 0
    while min(seen.values()) < until:
        mine = open_session(options, id)
        assert not mine.is_new, "a living session was missing"
        now = {name: mine.get(name, 0) for name in names}
        assert all(now[name] >= seen[name] for name in names), "time ran backwards"
        assert mine["untouched"] == "as it was"
        mine.save()  # nothing changed: nothing to write
        seen = now
        count += 1
        time.sleep(THINK)
    return count


def add(options, id, prefix, turns):
    """Add keys of its own, now and then from a fresh load. Returns when each save began and
    ended."""
    log = []
    mine = open_session(options, id)
    for turn in range(turns):
        if turn % 7 == 0:
            mine = open_session(options, id)
        name = f"{prefix}{turn}"
        mine[name] = 1
        began = time.monotonic()
        mine.save()
        log.append((name, began, time.monotonic()))
        time.sleep(random.uniform(0, THINK / 2))
    return log


# -- rounds --------------------------------------------------------------------------------------


def ahead() -> float:
    """A clock by which every session is due for a touch."""
    return time.time() + 90.0


def write_late(options, id, go):
    mine = open_session(options, id)
    assert mine["kept"] == 1
    go()
    mine["late"] = 1
    began = time.monotonic()
    try:
        mine.save()
    except SessionGone:
        return "gone", began, time.monotonic()
    return "saved", began, time.monotonic()


def read_late(options, id, go):
    """A request that only reads, and renews the session at its end."""
    began = 0.0

    def app(environ, start_response):
        nonlocal began
        assert session["kept"] == 1
        go()
        began = time.monotonic()
        start_response("200 OK", [])
        return [b""]

    answer = serve(SessionMiddleware(app, use_cookies=False, clock=ahead, **options), id)
    assert answer.id is None
    return answer.status, began, time.monotonic()


def rotate_until_gone(options, id, go):
    """Go on under one fresh id after the other. Returns all of them."""
    mine = open_session(options, id)
    assert mine["kept"] == 1
    ids = [id]
    go()
    try:
        while True:
            mine.regenerate_id()
            mine.save()
            ids.append(mine.id)
    except SessionGone:
        return ids


def write_until_gone(options, id, go):
    """Save all the time, from a fresh load now and then. Returns how often it was acknowledged."""
    mine = open_session(options, id)
    assert mine["kept"] == 1
    turns = 0
    go()
    try:
        while True:
            if turns % 5 == 4:
                mine = open_session(options, id)
                if mine.is_new:
                    return turns
            mine["turn"] = turns
            mine.save()
            turns += 1
    except SessionGone:
        return turns


def race(options, ask):
    """Play one round after the other: load, say so, and act at the moment that is named."""

    def wait_for_go():
        time.sleep(max(0.0, float(ask("loaded")) - time.monotonic()))

    roles = {
        "writer": write_late,
        "reader": read_late,
        "rotator": rotate_until_gone,
        "keeper": write_until_gone,
    }
    answer = "ready"
    while order := ask(answer):
        role, id = json.loads(order)
        answer = json.dumps(roles[role](options, id, wait_for_go))


def race_by_pipe(options):
    def ask(answer):
        say(answer)
        return sys.stdin.readline().strip()

    race(options, ask)


# -- to be killed --------------------------------------------------------------------------------


def large(turn: int) -> str:
    return str(turn % 10) * LARGE


def save_for_ever(options, id):
    mine = open_session(options, id)
    turn = mine["turn"]
    while True:
        turn += 1
        mine["large"], mine["turn"] = large(turn), turn
        mine.save()
        os.write(1, b"%d\n" % turn)


def breed(options, id):
    """Fork a writer for every line, so that no kill has to wait for an interpreter to start, nor
    for a driver to be imported."""
    open_session(options, id).get("turn")
    say("ready")
    while sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            save_for_ever(options, id)
        say(f"pid {pid}")
        os.waitpid(pid, 0)
        say("dead")


# -- the process ---------------------------------------------------------------------------------

WORKERS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (change, incr, mutate, read, add)
}
SPEAKING: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (race_by_pipe, breed)
}


def main() -> None:
    name, options, arguments = sys.argv[1], *map(json.loads, sys.argv[2:])
    if name in SPEAKING:
        SPEAKING[name](options, *arguments)
        return
    say("ready")
    sys.stdin.readline()
    say(json.dumps(WORKERS[name](options, *arguments)))
