"""When a session ends by itself: REQ-16 to REQ-19, 53."""

from __future__ import annotations

from typing import Final

from nocookie.testing.audit.auditor import Auditor, Visitor, marker_text
from nocookie.testing.audit.requirements import Failed, check

__all__ = ["absolute", "idle", "jumping_clock", "on_read", "swept"]

DAY: Final = 86400.0


def _id(visitor: Visitor) -> str:
    assert visitor.id is not None
    return visitor.id


@check(16)
def idle(audit: Auditor) -> str:
    timeout = audit.promised("timeout")
    advance = audit.hook("advance", "time that passes")
    visitor, marker = audit.known()
    advance(0.9 * timeout)
    if not visitor.sees(marker):
        raise Failed(f"a session that was idle for {0.9 * timeout:g} s was gone")
    advance(0.9 * timeout)
    if not visitor.sees(marker):
        raise Failed("use does not renew a session")
    advance(timeout + 1)
    if visitor.sees(marker):
        raise Failed(f"a session that was idle for {timeout + 1:g} s was still there")
    return f"alive while used within {timeout:g} s, dead after {timeout + 1:g} s without use"


@check(17)
def absolute(audit: Auditor) -> str:
    lifetime = audit.promised("lifetime")
    advance = audit.hook("advance", "time that passes")
    step = min(0.9 * (audit.target.timeout or lifetime), lifetime / 10)
    visitor, marker = audit.known()
    passed = 0.0
    rotated = not audit.has("rotate")
    while passed + step < lifetime:
        advance(step)
        passed += step
        if not rotated and passed > lifetime / 2:
            visitor.ask("rotate")
            rotated = True
        if not visitor.sees(marker):
            raise Failed(f"a session in use ended after {passed:g} s of its {lifetime:g} s")
        visitor.store("used", marker_text())
    advance(lifetime - passed + 1)
    if visitor.sees(marker):
        raise Failed(f"use or a rotation kept a session beyond its lifetime of {lifetime:g} s")
    return f"alive in use up to {passed:g} s, dead after {lifetime:g} s"


@check(18)
def on_read(audit: Auditor) -> str:
    """Also for a writer: what has expired but not yet been cleaned must not be written to."""
    timeout = audit.promised("timeout")
    advance = audit.hook("advance", "time that passes")
    reader, first = audit.known()
    writer, second = audit.known()
    id = _id(writer)
    advance(timeout + 1)
    if reader.sees(first):
        raise Failed("an expired session was read")
    value = marker_text()
    writer.ask("set", k="late", v=value)
    if writer.id == id or audit.shows(id, second) or audit.shows(id, value):
        raise Failed("an expired session was written to")
    if writer.sees(second):
        raise Failed("an expired session went on under a new id")
    return "one second after their time two sessions were dead, to a reader and to a writer"


#: Seconds, more than a request takes.
A_REQUEST: Final = 7200


@check(19)
def swept(audit: Auditor) -> str:
    timeout = audit.promised("timeout")
    advance = audit.hook("advance", "time that passes")
    count = audit.hook("store_count", "what is left in the store")
    purge = audit.hook("purge", "how expired sessions are removed")
    before = count()
    dead = [audit.known() for _ in range(50)]
    advance(0.6 * timeout)
    alive = [audit.known() for _ in range(10)]
    advance(0.6 * timeout)
    for visitor, _ in alive[:5]:
        visitor.store("used", "1")
    purge()
    lost = sum(not visitor.sees(marker) for visitor, marker in alive)
    if lost:
        raise Failed(f"the sweep took {lost} of {len(alive)} sessions that live")
    # What expires may be kept a while for requests that are under way.
    advance(timeout + A_REQUEST)
    purge()
    left = count() - before
    if left > 0:
        raise Failed(
            f"after the sweep {left} of {len(dead) + len(alive)} expired sessions are left"
        )
    return f"{len(dead)} expired sessions were removed, and none of {len(alive)} that lived"


@check(53)
def jumping_clock(audit: Auditor) -> str:
    timeout, lifetime = audit.promised("timeout"), audit.promised("lifetime")
    advance = audit.hook("advance", "clocks that jump")
    # A day on, and back.
    visitor, marker = audit.known()
    id = _id(visitor)
    advance(DAY)
    if audit.shows(id, marker):
        raise Failed("after a jump of a day a session was still there")
    advance(-DAY)
    if audit.shows(id, marker):
        raise Failed("a clock that was set back revived a session that had been found expired")
    # A day back.
    visitor, marker = audit.known()
    advance(-DAY)
    if audit.ask("set", _id(visitor), k="k", v="v").status >= 500:
        raise Failed("a session from the future was an error")
    fresh, early = audit.known()
    if not fresh.sees(early):
        raise Failed("a session begun after the clock was set back does not work")
    step = 0.9 * timeout
    passed = 0.0
    while passed < lifetime + 2 * step:
        advance(step)
        passed += step
        visitor.sees(marker)
    alive = audit.shows(_id(visitor), marker)
    advance(DAY - passed)
    if alive:
        raise Failed(f"a clock set back by a day let a session outlive its {lifetime:g} s")
    return "a jump of a day ended sessions for good, and a jump back gave none a longer life"
