"""Every operation on a session, with the store failing at each of its calls: before the call,
after it (so that its answer is lost), from it on; and with the process dying there. Whatever comes
of it: the client's next request works, nothing is lost that was acknowledged, nothing that ended
comes back, a session has one life and one owner, and `sessions_of` tells the truth.

`make soak` runs all of it on every store; otherwise the store is in this process, and three
operations die on the stores `file` and `redis`.
"""

import pytest
from lengths import EVERY_STORE
from stores.failing import DEAD, DIES, FAILS, OPERATIONS, World
from stores.places import params

from nocookie.options import resolve
from nocookie.stores import open_store
from nocookie.stores.base import ByOwner
from nocookie.testing import FakeClock

ON = params() if EVERY_STORE else ["memory"]
DYING_ON = (
    params("shared")
    if EVERY_STORE
    else [*(each for each in params("shared") if each.values[0] in ("file", "valkey"))]
)
DYING = list(OPERATIONS) if EVERY_STORE else ["login", "logout", "rotation by time"]


@pytest.fixture
def world(place):
    """`world(name)` is a world in which this operation can be done."""

    def make(name):
        clock = FakeClock()
        options = place.at(clock)
        store = options["type"]
        if isinstance(store, str):
            store = open_store(store, resolve(None, options))
        operation = OPERATIONS[name]
        if operation.by_owner and not isinstance(store, ByOwner):
            pytest.skip("this store finds no sessions by their owner")
        return World(store, clock, **operation.options), operation

    return make


def each_call(names, hows):
    return [
        pytest.param(name, how, at, id=f"{name}-{how}-{at}")
        for name in names
        for how in hows
        for at in range(1, OPERATIONS[name].calls + 1)
    ]


@pytest.mark.parametrize("place", ON, indirect=True)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_makes_so_many_calls_and_is_done_if_none_fails(world, name):
    """So the tests below let each call fail, and there is none beyond."""
    world, operation = world(name)
    visitor = world.visitor(operation)
    calls = world.calls(operation)
    world.fail(calls + 1, "down")
    answer = visitor.ask()
    assert not visitor.was_hit
    assert len(visitor.calls) == calls, visitor.calls
    assert answer.status == "200 OK"
    visitor.check(answer, "before")


@pytest.mark.parametrize("place", ON, indirect=True)
@pytest.mark.parametrize(("name", "how", "at"), each_call(OPERATIONS, FAILS))
def test_whichever_call_fails_nothing_is_lost_and_nothing_is_there_twice(world, name, how, at):
    world, operation = world(name)
    if at > world.calls(operation):
        pytest.skip("this store needs fewer calls")
    visitor = world.visitor(operation)
    world.fail(at, how)
    answer = visitor.ask()
    assert visitor.was_hit, "the fault was tried"
    visitor.check(answer, how)


@pytest.mark.parametrize("place", ON, indirect=True)
@pytest.mark.parametrize(("name", "how", "at"), each_call(OPERATIONS, ["before", "after"]))
def test_a_framework_that_answers_for_itself_says_no_less(world, name, how, at):
    """It makes a 500 of our error, and has no other idea of what was saved."""
    world, operation = world(name)
    if at > world.calls(operation):
        pytest.skip("this store needs fewer calls")
    visitor = world.visitor(operation)
    world.has_framework = True
    world.fail(at, how)
    answer = visitor.ask()
    assert visitor.was_hit, "the fault was tried"
    visitor.check(answer, how)


@pytest.mark.parametrize("place", DYING_ON, indirect=True)
@pytest.mark.parametrize(("name", "how", "at"), each_call(DYING, DIES))
def test_wherever_a_process_dies_nothing_is_lost_and_nothing_is_there_twice(
    world, fork, name, how, at
):
    world, operation = world(name)
    if at > world.calls(operation):
        pytest.skip("this store needs fewer calls")
    visitor = world.visitor(operation)
    world.fail(at, how)
    assert fork(visitor.ask).wait() == DEAD, "the fault was tried"
    world.store.calm()
    visitor.check(None, how)
