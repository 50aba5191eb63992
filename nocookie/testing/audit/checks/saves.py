"""What a save means: REQ-11 to REQ-15, 22, 40 to 42, 47."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from nocookie.testing.audit.auditor import WAIT, Auditor, Visitor, marker_text
from nocookie.testing.audit.client import Answer, NoAnswer
from nocookie.testing.audit.requirements import Failed, NotApplicable, check

__all__ = [
    "exact",
    "failure_saves_nothing",
    "inner_changes",
    "isolated",
    "limited",
    "nothing_lost",
    "reading_writes_nothing",
    "saved_before_told",
    "steady",
]

#: Seconds that an application may need to end a request whose answer is out.
MOMENT: Final = 1.0

#: How often each of several writers writes.
TURNS: Final = 25


def _same(visitor: Visitor, audit: Auditor) -> Visitor:
    """Return another client with the same session."""
    return audit.visitor(visitor.id)


def _count(visitor: Visitor, key: str) -> int:
    """Return the number under a key, as /get shows it."""
    answer = visitor.ask("get")
    try:
        return int(json.loads(answer.text).get(key, 0))
    except (ValueError, AttributeError, TypeError) as error:
        raise NotApplicable("needs a /get that shows the session as a JSON object") from error


def _acknowledged(answers: list[Answer]) -> int:
    return sum(answer.status < 400 for answer in answers)


def _turns(visitor: Visitor, key: str) -> Callable[[], list[Answer]]:
    def write() -> list[Answer]:
        return [visitor.ask("incr", k=key) for _ in range(TURNS)]

    return write


@check(12)
def nothing_lost(audit: Auditor) -> str:
    audit.need("slow")
    keys = [marker_text() for _ in range(4 * audit.target.threads)]
    visitor, marker = audit.known()
    answers = audit.at_once(
        [partial(_same(visitor, audit).ask, "slow", ms=20, k=key) for key in keys]
    )
    stored = visitor.ask("get").text
    if marker not in stored:
        raise Failed("what was stored before is gone")
    lost = [
        key
        for key, answer in zip(keys, answers, strict=True)
        if answer.status < 400 and key not in stored
    ]
    if lost:
        raise Failed(f"{len(lost)} of {_acknowledged(answers)} writes to different keys were lost")
    if not _acknowledged(answers):
        raise Failed("no write to a session that is in use was stored")
    return f"{_acknowledged(answers)} writes to different keys at once, all there"


@check(13)
def reading_writes_nothing(audit: Auditor) -> str:
    audit.need("slowread")
    visitor, _ = audit.known()
    value = marker_text()
    audit.behind(
        partial(_same(visitor, audit).ask, "slowread", ms=WAIT),
        partial(visitor.store, "marker", value),
    )
    if not visitor.sees(value):
        raise Failed("a request that only read undid a write that came meanwhile")
    if not audit.has("incr"):
        return "a write stayed, though a request that had read before ended after it"
    visitor.ask("incr", k="n")
    readers = [partial(_same(visitor, audit).ask, "slowread", ms=3)] * TURNS
    results = audit.at_once(
        [_turns(_same(visitor, audit), "n"), *(lambda r=r: [r()] for r in readers)]
    )
    expected = 1 + _acknowledged(results[0])
    if _count(visitor, "n") != expected:
        raise Failed(f"beside {TURNS} readers {expected} additions made {_count(visitor, 'n')}")
    return f"{expected} additions beside {TURNS} requests that read: exact"


@check(14)
def exact(audit: Auditor) -> str:
    audit.need("incr")
    visitor, _ = audit.known()
    visitor.ask("incr", k="n")
    writers = [_turns(_same(visitor, audit), "n") for _ in range(min(4, audit.target.threads))]
    answers = [answer for answers in audit.at_once(writers) for answer in answers]
    expected = 1 + _acknowledged(answers)
    if _count(visitor, "n") != expected:
        raise Failed(f"{expected} additions to one key at once made {_count(visitor, 'n')}")
    return f"{expected} additions to one key by {len(writers)} clients at once: exact"


@check(15)
def inner_changes(audit: Auditor) -> str:
    audit.need("append")
    visitor, _ = audit.known()
    values = [marker_text() for _ in range(3)]
    for value in values:
        visitor.ask("append", k="list", v=value)
    stored = visitor.ask("get").text
    lost = [value for value in values if value not in stored]
    if lost:
        raise Failed(f"{len(lost)} of {len(values)} values appended to a stored list are not there")
    return f"{len(values)} values appended in place to a stored list are there"


@check(22)
def limited(audit: Auditor) -> str:
    audit.need("fill")
    visitor, marker = audit.known()
    size = 4_000_000
    answer = visitor.ask("fill", k="big", bytes=size)
    if not visitor.sees(marker):
        raise Failed("what was too large destroyed what was there")
    if answer.status < 400:
        raise Failed(f"a value of {size} bytes was taken")
    if answer.status >= 500:
        raise Failed(f"a value of {size} bytes was answered with {answer.status}")
    small = visitor.ask("fill", k="small", bytes=100)
    if small.status >= 400:
        raise Failed("after a refusal nothing else can be stored")
    return f"{size} bytes were answered with {answer.status}; what was there stayed"


@check(40)
def saved_before_told(audit: Auditor) -> str:
    visitor, _ = audit.known()
    for _ in range(audit.target.rounds):
        value = marker_text()
        # Hang up after the head: whatever the application does later is too late.
        answer = visitor.ask("set", k="marker", v=value, only_head=True)
        if answer.status < 400 and not visitor.sees(value):
            raise Failed("the head of a response came before its data was stored")
        fresh = audit.visitor()
        fresh.ask("set", k="marker", v=value, only_head=True)
        if fresh.id is not None and not fresh.sees(value):
            raise Failed("an id was given out before its session was stored")
    if not audit.has("stream"):
        return f"{2 * audit.target.rounds} writes could be read as soon as the head was out"
    log = audit.target.log_text
    before = log() if log else ""
    key = marker_text()
    visitor.ask("stream", k=key)
    if not _soon(visitor, key) and (log is None or log() == before):
        raise Failed("what a known visitor's body stored late is neither stored nor reported")
    fresh = audit.visitor()
    fresh.ask("stream", k=key)
    if fresh.id is not None and not _soon(fresh, key):
        raise Failed("the head of a streamed response gave out an id of no session")
    return "the head came after the save; what a body stored late was stored, or reported"


def _soon(visitor: Visitor, key: str) -> bool:
    """Whether the key is there, a moment after the body that stored it has arrived."""
    until = time.monotonic() + MOMENT
    while not visitor.sees(key):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@check(41)
def failure_saves_nothing(audit: Auditor) -> str:
    audit.need("boom")
    visitor, marker = audit.known()
    key = marker_text()
    answer = visitor.ask("boom", k=key)
    if answer.status < 500:
        raise Failed(f"/boom answered {answer.status}")
    if visitor.sees(key):
        raise Failed("a request that failed saved what it had begun")
    if not visitor.sees(marker):
        raise Failed("a request that failed lost what was there")
    fresh = audit.visitor()
    fresh.ask("boom", k=key)
    if fresh.id is not None:
        raise Failed("a request that failed gave out an id")
    return f"/boom answered {answer.status}, and nothing of it was saved"


@check(42)
def isolated(audit: Auditor) -> str:
    """Many visitors at once, with failures, late bodies and clients that hang up between."""
    visitors = [audit.known() for _ in range(audit.target.threads)]
    others = [(name, {"k": "k"}) for name in ("boom", "stream") if audit.has(name)]

    def work(visitor: Visitor, marker: str) -> tuple[int, int]:
        mixed = 0
        for turn in range(TURNS):
            if others and turn % 5 == 4:
                name, values = others[turn // 5 % len(others)]
                _try(visitor, name, values, turn % 2 == 0)
            if turn % 5 == 2:
                _try(audit.visitor(), "get", {}, True)
            text = visitor.ask("get").text
            mixed += marker not in text or any(m in text for m in markers - {marker})
            anonymous = audit.ask("get").text
            mixed += any(m in anonymous for m in markers)
        return mixed, 2 * TURNS

    markers = {marker for _, marker in visitors}
    counts = audit.at_once([partial(work, *pair) for pair in visitors])
    mixed, asked = (sum(column) for column in zip(*counts, strict=True))
    if mixed:
        raise Failed(f"{mixed} of {asked} answers showed another's session, or not one's own")
    return f"{asked} answers for {len(visitors)} visitors at once: each had its own session"


def _try(visitor: Visitor, name: str, values: dict[str, Any], hang_up: bool) -> None:
    try:
        visitor.ask(name, only_head=hang_up, **values)
    except NoAnswer:
        pass  # a server may cut a response that fails in its middle


@check(47)
def steady(audit: Auditor) -> str:
    """Tagged reads from many connections: a connection shared by mistake mixes up answers."""
    visitors = [audit.known() for _ in range(audit.target.threads)]

    def read(visitor: Visitor, marker: str) -> list[int]:
        answers = [visitor.ask("get") for _ in range(2 * TURNS)]
        return [0 if marker in answer.text else answer.status for answer in answers]

    results = [
        wrong
        for wrongs in audit.at_once([partial(read, *pair) for pair in visitors])
        for wrong in wrongs
    ]
    wrong = [status for status in results if status]
    if wrong:
        raise Failed(f"{len(wrong)} of {len(results)} reads at once were wrong: {sorted({*wrong})}")
    return f"{len(results)} reads at once, all right"
