"""A process that is killed at any moment of a save leaves the old record or the new one, no lock,
and nothing to clean up."""

import os
import random
import signal
import sqlite3
import sys
import time

from lengths import KILLS
from stores import workers
from stores.places import places

from nocookie import Session

#: Seconds after which a killed writer must be in nobody's way.
FREE = 3.0

#: Seconds up to which a writer goes on after its first save, until it is killed.
OFFSET = 0.02


class Breeder:
    """A process that forks a writer when it is told to."""

    def __init__(self, process):
        self.process = process
        self.line()

    def line(self):
        line = self.process.stdout.readline()
        assert line, "the breeder ended"
        return line.strip()

    def kill_one(self, seconds):
        """Start a writer, let it save once, kill it *seconds* later; return the last turn that it
        said was stored."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        # The writer may speak before the breeder does, and more than once.
        said = [self.line(), self.line()]
        while not (pids := [int(line.split()[1]) for line in said if line.startswith("pid")]):
            said.append(self.line())
        [pid] = pids
        time.sleep(seconds)  # not to wait for anything: to hit any moment
        os.kill(pid, signal.SIGKILL)
        while (line := self.line()) != "dead":
            said.append(line)
        return max(int(line) for line in said if not line.startswith("pid"))


@places("shared")
def test_a_writer_killed_at_any_moment_tears_nothing_and_loses_nothing(place, crew):
    session = Session({}, **place.options)
    session.update(large=workers.large(0), turn=0)
    session.save()
    id = session.id
    seed = random.randrange(10**9)
    sys.stdout.write(f"seed = {seed}\n")
    dice = random.Random(seed)
    breeder = Breeder(crew.start("breed", id))
    turns = []
    for _ in range(KILLS):
        acknowledged = breeder.kill_one(dice.uniform(0, OFFSET))
        begun = time.monotonic()
        found = Session({}, id=id, **place.options)
        found["after"] = len(turns)
        found.save()
        assert time.monotonic() - begun < FREE, "a dead process was still in the way"
        found = Session({}, id=id, **place.options)
        assert acknowledged <= found["turn"], "an acknowledged save was lost"
        assert found["large"] == workers.large(found["turn"]), "a save was torn"
        assert found["after"] == len(turns)
        turns.append(found["turn"])
    assert turns == sorted(turns)
    assert turns[-1] >= KILLS

    Session({}, id=id, **place.options).delete()
    breeder.process.communicate(timeout=60)
    store = place.store()
    while getattr(store, "purge", lambda _: 0)(1000):
        pass
    assert list(getattr(store, "keys", list)()) == []
    store.close()
    if folder := place.folder():
        [left] = folder.iterdir()
        check = sqlite3.connect(left)
        assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        check.close()
