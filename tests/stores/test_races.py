"""Two that meet: nothing that was acknowledged is lost, and nothing that was ended comes back.

On every place, by what an application uses: sessions, and requests through the middleware.
"""

import json
import queue
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from lengths import ROUNDS, TURNS
from stores import workers
from stores.places import places

from nocookie import Session
from nocookie.stores.base import Listable

#: Seconds up to which each side of a round waits before it acts: about what a save takes.
OFFSET = 0.0012
#: Seconds until the round begins, for the message to arrive.
NOTICE = 0.0005


def new_session(place, **values):
    session = Session({}, **place.options)
    session.update(values)
    session.save()
    return session


def same(place, session):
    return Session({}, id=session.id, **place.options)


@places()
def test_two_that_change_different_keys_lose_nothing_beside_a_third_that_reads(place, crew):
    session = new_session(place, untouched="as it was")
    *_, reads = crew.run(
        ("change", session.id, "a", TURNS),
        ("change", session.id, "b", TURNS),
        ("read", session.id, ["a", "b"], TURNS),
    )
    assert dict(same(place, session)) == {"untouched": "as it was", "a": TURNS, "b": TURNS}
    assert reads > TURNS / 50, "the third did not read beside them"


@places()
def test_two_that_count_by_incr_lose_nothing(place, crew):
    session = new_session(place, n=0)
    crew.run(("incr", session.id, "n", TURNS), ("incr", session.id, "n", TURNS))
    assert same(place, session)["n"] == 2 * TURNS


@places()
def test_two_that_change_one_key_by_mutate_lose_nothing(place, crew):
    session = new_session(place, n=0)
    crew.run(("mutate", session.id, "last", TURNS), ("mutate", session.id, "last", TURNS))
    found = same(place, session)
    assert found["n"] == 2 * TURNS
    assert found["last"] == list(range(2 * TURNS - 4, 2 * TURNS)), "a change was lost in between"


@places()
def test_what_was_saved_before_a_clear_does_not_survive_it(place, crew):
    """For a `clear()` that was saved between the moments *began* and *ended*, against saves of
    others: what was acknowledged before *began* is gone for good, although its writer goes on
    with the session that it loaded earlier; what was begun after *ended* is there."""
    session = new_session(place, old=1)
    seen = []
    done = threading.Event()

    def clear():
        while not done.is_set():
            mine = same(place, session)
            mine.clear()
            mine["cleared"] = len(seen)
            began = time.monotonic()
            mine.save()
            ended = time.monotonic()
            time.sleep(random.uniform(0, 5 * workers.THINK))
            read = time.monotonic()
            there = same(place, session)
            assert there["cleared"] == len(seen)
            seen.append((began, ended, read, set(there)))

    with ThreadPoolExecutor(1) as pool:
        clearer = pool.submit(clear)
        try:
            logs = crew.run(*(("add", session.id, prefix, TURNS) for prefix in "ab"))
        finally:
            done.set()
        clearer.result(60)
    log = [entry for one in logs for entry in one]
    met = 0
    for began, ended, read, names in seen:
        before = {name for name, _, acknowledged in log if acknowledged < began}
        after = {name for name, begun, acknowledged in log if ended < begun and acknowledged < read}
        met += bool(before and names != {"cleared"})
        assert "old" not in names
        assert not before & names, "what was saved before survived"
        assert after <= names, "what was saved after is missing"
    assert met > 5, "the clears did not meet the writers"


# -- ends ----------------------------------------------------------------------------------------

ENDS = ("delete", "invalidate", "regenerate_id")
ROLES = ("writer", "writer", "reader")


def in_a_thread(place, crew):
    """Return how to talk to a racer that is a thread."""
    orders, answers = queue.SimpleQueue(), queue.SimpleQueue()

    def ask(answer):
        answers.put(answer)
        return orders.get(timeout=60)

    def run():
        try:
            workers.race(place.options, ask)
        except BaseException as error:
            answers.put(f"died: {error!r}")

    threading.Thread(target=run, daemon=True).start()
    return orders.put, lambda: answers.get(timeout=60)


def in_a_process(place, crew):
    process = crew.start("race_by_pipe")

    def tell(order):
        process.stdin.write(order + "\n")
        process.stdin.flush()

    return tell, lambda: process.stdout.readline().strip()


def race_against_ends(place, tell, hear):
    """Return how often the late save was stored before the end, and how often refused after."""
    seed = random.randrange(10**9)
    sys.stdout.write(f"seed = {seed}\n")
    dice = random.Random(seed)
    outcomes = Counter()
    assert hear() == "ready"
    for turn in range(ROUNDS):
        end, role = dice.choice(ENDS), ROLES[turn % len(ROLES)]
        session = new_session(place, kept=1)
        old_id = session.id
        ender = same(place, session)
        assert ender["kept"] == 1
        tell(json.dumps([role, old_id]))
        assert hear() == "loaded"
        moment = time.monotonic() + NOTICE
        tell(str(moment + dice.uniform(0, OFFSET)))
        time.sleep(max(0.0, moment + dice.uniform(0, OFFSET) - time.monotonic()))
        began = time.monotonic()
        getattr(ender, end)()
        if end == "regenerate_id":
            ender.save()
        ended = time.monotonic()
        outcome, late_began, late_ended = json.loads(hear())
        outcomes[outcome] += 1

        old = same(place, session)
        assert (old.is_new, old.reason, dict(old)) == (True, "unknown", {}), "revived"
        if outcome == "saved":
            assert late_began < ended, "a save after the end was not refused"
        elif outcome == "gone":
            assert late_ended > began, "a save before the end was refused"
        else:
            assert outcome == "200 OK", "a request that only read failed"
        if end == "regenerate_id":
            rotated = same(place, ender)
            expected = {"kept": 1, "late": 1} if outcome == "saved" else {"kept": 1}
            assert dict(rotated) == expected, "the rotation lost an acknowledged save"
            rotated.delete()
    tell("")
    store = place.store()
    if isinstance(store, Listable):
        assert list(store.keys()) == [], "something came back later"
    return outcomes


@places()
def test_no_late_request_of_another_thread_revives_what_ended(place, crew):
    outcomes = race_against_ends(place, *in_a_thread(place, crew))
    assert min(outcomes[word] for word in ("saved", "gone", "200 OK")) > ROUNDS / 100, outcomes


@places("shared")
def test_no_late_request_of_another_process_revives_what_ended(place, crew):
    outcomes = race_against_ends(place, *in_a_process(place, crew))
    assert min(outcomes[word] for word in ("saved", "gone", "200 OK")) > ROUNDS / 100, outcomes
