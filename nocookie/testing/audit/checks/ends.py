"""How a session changes its id, and how it ends: REQ-06 to REQ-11, 20, 55."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import Final

from nocookie.testing.audit.auditor import WAIT, Auditor, Visitor, links_of, marker_text
from nocookie.testing.audit.client import Answer
from nocookie.testing.audit.requirements import Failed, check

__all__ = [
    "all_of_a_user",
    "ended",
    "fresh_id",
    "leaves_nothing",
    "no_resurrection",
    "not_revived_by_old_id",
    "refusal_is_told",
    "short_grace",
]

#: How often an ended id is sent again.
REPLAYS: Final = 40


def _expect_ok(name: str, answer: Answer) -> Answer:
    if answer.status >= 400:
        raise Failed(f"/{name} answered {answer.status}")
    return answer


def _id(visitor: Visitor) -> str:
    assert visitor.id is not None
    return visitor.id


@check(6)
def fresh_id(audit: Auditor) -> str:
    names = [name for name in ("login", "rotate") if audit.has(name)]
    if not names:
        audit.need("login")
    for name in names:
        visitor, marker = audit.known()
        old = _id(visitor)
        answer = _expect_ok(name, visitor.ask(name, user="ada"))
        if audit.told(answer) is None or visitor.id == old:
            raise Failed(f"/{name} kept the id")
        if audit.shows(old, marker):
            raise Failed(f"after /{name} the old id still opened the session")
        if not visitor.sees(marker):
            raise Failed(f"/{name} lost what the visitor had")
    return f"after {' and '.join('/' + name for name in names)} the id was a new one, the old dead"


@check(7)
def not_revived_by_old_id(audit: Auditor) -> str:
    audit.need("slow")
    audit.need("rotate")
    for _ in range(2):
        visitor, marker = audit.known()
        old, key = _id(visitor), marker_text()
        late = audit.behind(
            partial(audit.ask, "slow", old, ms=WAIT, k=key), partial(visitor.ask, "rotate")
        )
        if audit.shows(old, marker) or audit.shows(old, key):
            raise Failed("a request under way revived the id that was rotated away")
        if not visitor.sees(marker):
            raise Failed("a request under way lost the data of the rotated session")
        if not _is_refused(late) and not visitor.sees(key):
            raise Failed("a request under way was told that its write was stored, and it was not")
    return "the old id stayed dead; the late write was refused, or is under the new id"


def _is_refused(answer: Answer) -> bool:
    return answer.status >= 400 or answer.header("X-Session-State") == "gone"


@check(8)
def short_grace(audit: Auditor) -> str:
    audit.need("renew")
    grace = audit.promised("grace")
    advance = audit.hook("advance", "time that passes")
    visitor, marker = audit.known()
    old = _id(visitor)
    advance(audit.target.renew_after)
    _expect_ok("renew", visitor.ask("renew"))
    if visitor.id == old:
        raise Failed("/renew kept the id")
    if grace > 30:
        raise Failed(f"a grace of {grace:g} s is more than 30 s")
    advance(grace / 2)
    if not audit.shows(old, marker):
        raise Failed("within the grace the old id did not answer")
    advance(grace / 2 + 1)
    if audit.shows(old, marker):
        raise Failed("after the grace the old id still answered")
    if not visitor.sees(marker):
        raise Failed("after the grace the new id did not answer")
    if audit.has("login"):
        before = _id(visitor)
        advance(audit.target.renew_after)
        visitor.ask("renew")
        middle = _id(visitor)
        if middle == before:
            raise Failed("a second /renew kept the id")
        _expect_ok("login", visitor.ask("login", user="ada"))
        if audit.shows(before, marker) or audit.shows(middle, marker):
            raise Failed("a grace led from an id of before the login into the session after it")
    return f"the old id answered within {grace:g} s, not after, and never across a login"


@check(9)
def ended(audit: Auditor) -> str:
    audit.need("logout")
    visitor, marker = audit.known()
    if audit.has("login"):
        _expect_ok("login", visitor.ask("login", user="ada"))
    id = _id(visitor)
    visitor.ask("logout")
    replays = audit.at_once([partial(audit.shows, id, marker)] * REPLAYS)
    if any(replays):
        raise Failed(
            f"after the logout the id opened the session, {sum(replays)} of {REPLAYS} times"
        )
    return f"after the logout the id was sent {REPLAYS} times more, and opened nothing"


@check(10)
def no_resurrection(audit: Auditor) -> str:
    audit.need("logout")
    kinds = [name for name in ("slow", "slowread") if audit.has(name)]
    if not kinds:
        audit.need("slow")
    for kind in kinds:
        visitor, marker = audit.known()
        id, key = _id(visitor), marker_text()
        late = partial(audit.ask, kind, id, ms=WAIT, k=key)
        audit.behind(late, partial(visitor.ask, "logout"))
        _expect_dead(audit, id, (marker, key), f"/{kind} that was under way")
    offsets = random.Random(1)  # noqa: S311 - nothing is secret
    rounds = 0
    for _ in range(audit.target.rounds):
        for kind in kinds:
            visitor, marker = audit.known()
            id, key = _id(visitor), marker_text()
            pause = offsets.random() * 0.006
            end = partial(_after, pause, visitor)
            audit.at_once([partial(audit.ask, kind, id, ms=3, k=key), end])
            _expect_dead(audit, id, (marker, key), f"/{kind} at the same moment")
            rounds += 1
    return f"{rounds} races of {' and '.join('/' + kind for kind in kinds)} with /logout: 0 revived"


def _after(pause: float, visitor: Visitor) -> Answer:
    time.sleep(pause)
    return visitor.ask("logout")


def _expect_dead(audit: Auditor, id: str, markers: tuple[str, str], what: str) -> None:
    if any(audit.shows(id, marker) for marker in markers):
        raise Failed(f"{what} revived the session that was logged out")


@check(11)
def refusal_is_told(audit: Auditor) -> str:
    audit.need("slow")
    audit.need("logout")
    visitor, _ = audit.known()
    late = audit.behind(
        partial(audit.ask, "slow", _id(visitor), ms=WAIT, k=marker_text()),
        partial(visitor.ask, "logout"),
    )
    if not _is_refused(late):
        raise Failed(f"/slow was told {late.status}, and its data is nowhere")
    return f"the save of the ended session was answered with {late.status}"


@check(20)
def all_of_a_user(audit: Auditor) -> str:
    audit.need("login")
    ends = [name for name in ("end_all", "end_others") if audit.has(name)]
    if not ends:
        audit.need("end_all")
    for name in ends:
        user = f"user{random.getrandbits(48):x}"
        visitors = []
        for _ in range(3):
            visitor, marker = audit.known()
            _expect_ok("login", visitor.ask("login", user=user))
            visitors.append((visitor, marker))
        stranger, strange = audit.known()
        _expect_ok("login", stranger.ask("login", user=f"{user}x"))
        caller, mark = visitors[0]
        if audit.has("sessions"):
            _expect_no_ids(audit, _expect_ok("sessions", caller.ask("sessions")))
        others = [(_id(visitor), marker) for visitor, marker in visitors[1:]]
        call = partial(caller.ask, name)
        if audit.has("slow"):
            late = partial(audit.ask, "slow", others[0][0], ms=WAIT, k="late")
            audit.behind(late, call)
        else:
            call()
        alive = [marker for id, marker in others if audit.shows(id, marker)]
        if alive:
            raise Failed(f"/{name} left {len(alive)} of {len(others)} sessions of the user alive")
        if audit.shows(_id(caller), mark) == (name == "end_all"):
            kept = "kept" if name == "end_all" else "ended"
            raise Failed(f"/{name} {kept} the session that called it")
        if audit.target.endpoint("login").takes("user") and not stranger.sees(strange):  # type: ignore[union-attr]
            raise Failed(f"/{name} ended the session of another user")
    return f"{' and '.join('/' + name for name in ends)} ended the sessions of the user at once"


def _expect_no_ids(audit: Auditor, answer: Answer) -> None:
    if audit.traces(answer.text):
        raise Failed("the list of a user's sessions holds their ids")


@check(55)
def leaves_nothing(audit: Auditor) -> str:
    audit.need("logout")
    visitor, _ = audit.known()
    id = _id(visitor)
    answer = visitor.ask("logout")
    if answer.status >= 500:
        raise Failed(f"/logout answered {answer.status}")
    # A cookie may be taken away with its value in it.
    head = [value for name, value in answer.headers if name.lower() != "set-cookie"]
    if id in "\n".join(head) or any(id in link for link in links_of(answer)):
        raise Failed("the answer to the logout repeats the id")
    told = audit.told(answer)
    if told is not None:
        raise Failed("the answer to the logout gives out an id")
    if audit.target.clears_site_data and not answer.header("Clear-Site-Data"):
        raise Failed("the answer to the logout has no Clear-Site-Data")
    return "neither the head nor a link of the answer to the logout holds an id"
