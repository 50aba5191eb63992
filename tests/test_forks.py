"""What belongs to one process."""

import gc
import os
import threading
import weakref

from nocookie.forks import ProcessLocal


class Value:
    pass


def become(monkeypatch, pid):
    monkeypatch.setattr(os, "getpid", lambda: pid)


def test_a_process_has_one_value_and_another_has_another(monkeypatch):
    local = ProcessLocal(Value)
    become(monkeypatch, -1)
    first = local.here()
    assert local.here() is first
    become(monkeypatch, -2)
    second = local.here()
    assert second is not first
    assert local.here() is second


def test_what_is_inherited_is_not_even_collected(monkeypatch):
    local = ProcessLocal(Value)
    become(monkeypatch, -1)
    inherited = weakref.ref(local.here())
    become(monkeypatch, -2)
    local.here()
    del local
    gc.collect()
    assert inherited() is not None


def test_a_later_process_with_the_id_of_an_earlier_one_has_its_own(monkeypatch):
    """Ids come again: a grandchild may have that of a grandparent who has gone."""
    local = ProcessLocal(Value)
    become(monkeypatch, -1)
    first = local.here()
    become(monkeypatch, -2)
    local.here()
    become(monkeypatch, -1)
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
