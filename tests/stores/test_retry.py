"""The one loop of all who try again."""

import itertools
import math

import pytest

from nocookie.stores import retry
from nocookie.stores.retry import FIRST_PAUSE, LONGEST_PAUSE, tries


@pytest.fixture
def pauses(monkeypatch):
    """What was slept so far; the time goes on by it, and by nothing else."""
    slept = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    monkeypatch.setattr(retry.time, "monotonic", lambda: sum(slept))
    return slept


@pytest.fixture
def longest(pauses, monkeypatch):
    """Every pause is as long as it may be."""
    monkeypatch.setattr(retry, "_pause_up_to", lambda least, most: most)
    return pauses


def test_the_first_try_is_made_at_once_also_when_the_time_is_over(pauses):
    assert len(list(tries(-1.0))) == 1
    assert pauses == []


def test_the_bound_of_the_pauses_doubles_up_to_the_longest(longest):
    list(itertools.islice(tries(math.inf), 8))
    assert longest[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert longest[-1] == LONGEST_PAUSE
    del longest[:]
    list(itertools.islice(tries(math.inf, 0.003), 4))
    assert longest == [0.001, 0.002, 0.003]


def test_no_try_but_the_first_begins_after_the_end(longest):
    begun = [sum(longest) for _ in tries(0.1)]
    assert 0.1 - LONGEST_PAUSE < begun[-1] <= 0.1


def test_pauses_are_the_systems_and_not_the_same_in_processes_that_were_forked_alike(pauses):
    """As those of a fork in C are: Python's own generator then goes on in all of them alike."""
    import random

    state = random.getstate()
    for _ in range(2):
        random.setstate(state)
        list(itertools.islice(tries(math.inf), 4))
    assert pauses[:3] != pauses[3:]
    assert all(0 <= pause <= LONGEST_PAUSE for pause in pauses)
