"""What belongs to one process."""

import gc
import os
import threading
import weakref

import pytest

from nocookie import forks
from nocookie.forks import ProcessLocal


class Value:
    pass


@pytest.fixture(params=["the kernel wipes a page", "the process id is asked for each time"])
def become(request, monkeypatch):
    """`become(pid)` makes this another process."""
    if "asked" in request.param:
        monkeypatch.setattr(forks, "_is_known", bytes(1))
    elif isinstance(forks._is_known, bytes):
        pytest.skip("this kernel wipes no page at a fork")

    def fork():
        if not isinstance(forks._is_known, bytes):
            forks._is_known[0] = 0

    def become(pid):
        monkeypatch.setattr(os, "getpid", lambda: pid)
        fork()

    yield become
    fork()


def test_a_process_has_one_value_and_another_has_another(become):
    local = ProcessLocal(Value)
    become(-1)
    first = local.here()
    assert local.here() is first
    become(-2)
    second = local.here()
    assert second is not first
    assert local.here() is second


def test_what_is_inherited_is_not_even_collected(become):
    local = ProcessLocal(Value)
    become(-1)
    inherited = weakref.ref(local.here())
    become(-2)
    local.here()
    del local
    gc.collect()
    assert inherited() is not None


def test_a_later_process_with_the_id_of_an_earlier_one_has_its_own(become):
    """Ids come again: a grandchild may have that of a grandparent who has gone."""
    local = ProcessLocal(Value)
    become(-1)
    first = local.here()
    become(-2)
    local.here()
    become(-1)
    assert local.here() is not first


def test_threads_that_ask_at_once_have_one_value_made():
    made, found = [], []
    start = threading.Barrier(8)

    def make():
        made.append(Value())
        threading.Event().wait(0.05)
        return made[-1]

    def ask():
        start.wait(10)
        found.append(local.here())

    local = ProcessLocal(make)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    assert found == made * 8
