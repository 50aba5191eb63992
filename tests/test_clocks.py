"""Clocks that jump: by a day, forward and back, and between hosts."""

import pytest
from helpers import serve

from nocookie import Session, SessionGone, SessionMiddleware, session
from nocookie.stores.memory import MemoryStore

DAY, HOUR = 86400.0, 3600.0


@pytest.fixture(params=["memory", "file", "sqlite"])
def where(request, tmp_path, clock):
    where = {
        "memory": {"type": MemoryStore(clock=clock)},
        "file": {"type": "file", "data_dir": str(tmp_path)},
        "sqlite": {
            "type": "sqlalchemy",
            "url": f"sqlite:///{tmp_path / 'db'}",
            "create_table": True,
        },
    }[request.param]
    return where | {"clock": clock}


@pytest.fixture
def open_(where):
    def open_(id=None, **more):
        return Session({}, id=id, **where, **more)

    return open_


@pytest.fixture
def id(open_):
    mine = open_()
    mine["a"] = 1
    mine.save()
    return mine.id


def visit(where, id=None):
    """One request that only reads; return what it saw."""
    seen = []

    def app(environ, start_response):
        seen.append((session.get("a"), session.reason))
        start_response("200 OK", [])
        return [b""]

    serve(SessionMiddleware(app, use_cookies=False, **where), id)
    return seen[0]


def test_what_expired_by_a_jump_is_not_revived_by_the_jump_back(where, id, clock):
    clock.advance(DAY)
    assert visit(where, id)[0] is None
    clock.advance(-DAY)
    assert visit(where, id)[0] is None


def test_what_nobody_saw_during_the_jump_lives_on(where, id, clock):
    clock.advance(DAY)
    clock.advance(-DAY)
    assert visit(where, id) == (1, None)


def test_a_session_from_the_time_of_a_jump_forward_lives_no_longer_than_others(where, clock, open_):
    clock.advance(DAY)
    mine = open_()
    mine["a"] = 1
    mine.save()
    clock.advance(-DAY)
    lived = 0.0
    while visit(where, mine.id) == (1, None):
        clock.advance(HOUR / 4)
        lived += HOUR / 4
        assert lived <= 13 * HOUR, "it lives for longer than it may"
    assert lived == 12 * HOUR


def test_after_a_jump_back_a_session_lives_no_longer_than_others(where, id, clock):
    clock.advance(-DAY)
    lived = 0.0
    while visit(where, id) == (1, None):
        clock.advance(HOUR / 4)
        lived += HOUR / 4
        assert lived <= 13 * HOUR
    assert lived == 12 * HOUR


def test_an_idle_session_from_the_future_ends_as_others(where, id, clock):
    clock.advance(-DAY)
    assert visit(where, id) == (1, None)
    clock.advance(1800)
    assert visit(where, id)[0] is None


def test_a_record_from_the_future_is_reported(where, id, clock, caplog):
    clock.advance(-DAY)
    visit(where, id)
    visit(where, id)
    events = [record.event for record in caplog.records]
    assert events.count("clock") == 1, "and set right, so once"


def test_clocks_of_hosts_may_differ_by_half_a_minute(where, id, clock, caplog):
    """Two hosts, 30 seconds apart, in turn: no flapping, and time never runs back for others."""
    for _ in range(200):
        clock.advance(30)
        assert visit(where, id) == (1, None)
        clock.advance(-30)
        assert visit(where, id) == (1, None)
        clock.advance(60)
    assert "clock" not in [record.event for record in caplog.records]


def test_no_jump_makes_a_time_to_live_negative(where, id, clock, open_):
    late = open_(id)
    late["b"] = 2
    clock.advance(DAY)
    with pytest.raises(SessionGone):
        late.save()
    clock.advance(-2 * DAY)
    mine = open_(id)
    mine["c"] = 3
    mine.save()
    assert open_(id)["c"] == 3
