"""What takes more than HTTP to see: the store, the logs, the events. REQ-21, 23, 35, 37 to 39,
49, 51, 52, 54."""

from __future__ import annotations

import pickle
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

from nocookie.testing.audit.auditor import Auditor, marker_text
from nocookie.testing.audit.checks.ids import like
from nocookie.testing.audit.requirements import Failed, NotApplicable, check

__all__ = [
    "bound",
    "corruption_is_contained",
    "encrypted_only",
    "failure_is_fast",
    "failure_is_told",
    "guesses_count",
    "lazy",
    "life_is_told",
    "not_executed",
    "not_logged",
]

#: Requests that store nothing.
IDLE: Final = 60
#: Ids that nobody issued.
GUESSES: Final = 100


@check(21)
def lazy(audit: Auditor) -> str:
    visitor, _ = audit.known()
    assert visitor.id is not None
    count = audit.target.store_count
    before = count() if count else 0
    forged = like(visitor.id)
    calls = [partial(audit.ask, "get"), partial(audit.ask, "get", forged)]
    calls += [partial(audit.ask, "get", method="HEAD")]
    calls += [partial(audit.ask, "get", headers=[("Sec-Purpose", "prefetch")])]
    if audit.has("logout"):
        calls.append(partial(audit.ask, "logout"))
    answers = audit.at_once(calls * (IDLE // len(calls)))
    told = sum(audit.told(answer) is not None for answer in answers)
    if told:
        raise Failed(f"{told} of {len(answers)} requests that stored nothing were given an id")
    if count is None:
        return f"{len(answers)} requests that stored nothing were given no id"
    grown = count() - before
    if grown > 0:
        raise Failed(f"{len(answers)} requests that stored nothing left {grown} records")
    return f"{len(answers)} requests that stored nothing left no record"


@check(23)
def not_logged(audit: Auditor) -> str:
    """Last of all: by then every endpoint has been asked, and has failed where it can."""
    visitor, _ = audit.known()
    for name in ("rotate", "boom", "logout"):
        if audit.has(name):
            visitor.ask(name, k="k")
    if audit.told_in_errors:
        names = ", ".join("/" + name for name in sorted(audit.told_in_errors))
        raise Failed(f"error pages of {names} show the id")
    log = audit.hook("log_text", "what is in the logs; no error page showed an id")
    found = audit.traces(log())
    if found:
        raise Failed(f"{found} of {len(audit.issued)} ids are in the log")
    return f"{len(audit.issued)} ids, none in the log or in an error page"


class _Bomb:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self._marker,)


@check(35)
def not_executed(audit: Auditor) -> str:
    """A pickle that makes a file, in the place of every stored value. The application has to run
    on this host."""
    overwrite = audit.hook("overwrite", "what happens to bytes planted in the store")
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder, "executed")
        for protocol in (0, pickle.HIGHEST_PROTOCOL):
            visitor, _ = audit.known()
            overwrite(pickle.dumps(_Bomb(marker), protocol))
            visitor.ask("get")
            if marker.exists():
                raise Failed("bytes planted in the store were executed")
    return "a pickle planted in the place of stored values was not executed"


@check(37)
def corruption_is_contained(audit: Auditor) -> str:
    overwrite = audit.hook("overwrite", "what a corrupted record does")
    kinds = {"empty": b"", "half": b'{"k": ', "garbage": bytes(range(256)), "another type": b"[1]"}
    for what, data in kinds.items():
        visitor, marker = audit.known()
        overwrite(data)
        answer = visitor.ask("get")
        if answer.status >= 500 and answer.status != 503:
            raise Failed(f"a record that is {what}: /get answered {answer.status}")
        if marker in answer.text:
            raise Failed("the overwritten record was still read: the hook overwrites another")
        after, fresh = audit.known()
        if not after.sees(fresh):
            raise Failed(f"after a record that is {what} new sessions do not work")
        if visitor.ask("set", k="marker", v=fresh).status >= 400 or not visitor.sees(fresh):
            raise Failed(f"a record that is {what} keeps its visitor from a new session")
    return f"records that are {', '.join(kinds)}: their visitors begin anew, others go on"


@check(38)
def failure_is_told(audit: Auditor) -> str:
    outage = audit.hook("outage", "what happens while the store is down")
    visitor, marker = audit.known()
    assert visitor.id is not None
    with outage():
        answers = [audit.ask("get", visitor.id), audit.ask("set", visitor.id, k="k", v="v")]
        answers.append(audit.ask("set", k="k", v="v"))
    for answer in answers:
        if answer.status != 503:
            raise Failed(f"while the store was down a request was answered with {answer.status}")
        if audit.told(answer) is not None:
            raise Failed("while the store was down a client was given an id")
    if not visitor.sees(marker):
        raise Failed("after the store was down a session was gone")
    return "503 while the store was down, and the same session after it"


@check(39)
def failure_is_fast(audit: Auditor) -> str:
    outage = audit.hook("outage", "how long a request waits for a store that is down")
    deadline = audit.promised("deadline")
    visitor, _ = audit.known()
    assert visitor.id is not None
    with outage():
        calls = [partial(audit.ask, "get", visitor.id)] * (2 * audit.target.threads)
        slowest = max(answer.seconds for answer in audit.at_once(calls))
    # Two trips at most, and half a second for the rest.
    if slowest > 2 * deadline + 0.5:
        raise Failed(f"while the store was down a request took {slowest:.1f} s")
    return f"while the store was down the slowest of {len(calls)} requests took {slowest:.1f} s"


@check(49)
def guesses_count(audit: Auditor) -> str:
    events = audit.hook("events", "what is counted")
    visitor, _ = audit.known()
    assert visitor.id is not None
    forged = [like(visitor.id) for _ in range(GUESSES)]
    log = audit.target.log_text
    before = len(events())
    audit.at_once([partial(audit.ask, "get", id) for id in forged])
    seen = len(events()) - before
    if seen < GUESSES:
        raise Failed(f"{GUESSES} ids that nobody issued made {seen} events")
    if log is not None and any(id in log() for id in forged):
        raise Failed("an id that was guessed is in the log")
    return f"{GUESSES} ids that nobody issued made {seen} events"


@check(51)
def life_is_told(audit: Auditor) -> str:
    events = audit.hook("events", "what events there are")
    audit.need("logout")
    steps = [("set", {"k": "k", "v": "v"})]
    steps += [("rotate", {})] if audit.has("rotate") else []
    steps += [("logout", {})]
    visitor = audit.visitor()
    for name, values in steps:
        before = len(events())
        visitor.ask(name, **values)
        if len(events()) == before:
            raise Failed(f"/{name} was no event")
    return f"{', '.join('/' + name for name, _ in steps)}: each was an event"


@check(52)
def encrypted_only(audit: Auditor) -> str:
    plain = audit.target.plain
    if plain is None:
        raise NotApplicable("the target does not say where it is reached over plain HTTP (plain)")
    visitor, marker = audit.known()
    assert visitor.id is not None
    answer = audit.ask("set", base=plain, k="k", v=marker_text())
    if audit.told(answer) is not None:
        raise Failed("an id was issued over plain HTTP")
    if audit.shows(visitor.id, marker, base=plain):
        raise Failed("an id was accepted over plain HTTP")
    if not visitor.sees(marker):
        raise Failed("after its id was refused over plain HTTP the session was gone")
    return "over plain HTTP no id was issued, and none accepted"


@check(54)
def bound(audit: Auditor) -> str:
    header = audit.target.bound_to
    if header is None:
        raise NotApplicable(
            "the target does not bind sessions to a header of the client (bound_to)"
        )
    visitor = audit.visitor()
    marker = marker_text()
    same = [(header, "one")]
    visitor.ask("set", k="marker", v=marker, headers=same)
    if visitor.id is None or not audit.shows(visitor.id, marker, headers=same):
        raise Failed(f"a session bound to {header} does not work")
    if audit.shows(visitor.id, marker, headers=[(header, "another")]):
        raise Failed(f"another {header} got the same session")
    return f"with another {header} the id opened nothing"
