"""What happened, for whoever watches: a log record, a count and a call for each event.

Log records go to the logger `nocookie`. Each has the attributes `event`, `detail` and
`fingerprint`, the first characters of the store key: enough to follow a session through a log, of
no use to anybody who wants to use it. No id is ever logged. docs/watching.md says what to alert on.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nocookie.errors import Refusal
from nocookie.forks import ProcessLocal
from nocookie.local import current

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["EVENTS", "Event", "Events", "emit", "logger", "report_once", "tell"]

logger: Final = logging.getLogger("nocookie")
_is_logged: Final = logger.isEnabledFor

#: Every event, and what it says.
EVENTS: Final = {
    "created": "A session is about to be stored for the first time.",
    "rotated": "A session is about to go on under a new id.",
    "login": "A session is about to have an owner, and a new id.",
    "ended": "A session was ended, by the application or by an operator.",
    "expired": "A client came with the id of a session whose time is over.",
    "refused": "A client came with what is no id of a session; the detail is the reason.",
    "client changed": "An owner's session is used by a client that says it is another one.",
    "form refused": "A form came without the token of its session.",
    "conflict": "One request brought several ids.",
    "corrupted": "A record, or a value in one, cannot be read. It is kept.",
    "clock": "A record is stamped later than now: a clock is wrong, here or elsewhere.",
    "finder failed": "A finder raised, or returned what is no text: no id, then.",
    "leak": "An id was on its way to where it must not go.",
    "redirect_abroad": "A client with its id in a header or a form was sent to another origin, and "
    "may take the id along.",
    "lost": "A change came after the response had begun, and could not be saved.",
    "misfit": "The configuration does not fit the place it runs in.",
    "options": "Options were taken otherwise than they are written, most of them Beaker's.",
    "replaced": "The file of a store was replaced or removed while it was used. It is opened anew.",
    "plain http": "A client was kept from a session because it came by plain HTTP.",
    "store error": "The store failed.",
}

#: Events that an operator should look at; the others are daily life.
_LEVELS: Final = dict.fromkeys(
    (
        *("clock", "conflict", "corrupted", "finder failed", "leak", "lost", "misfit"),
        *("options", "redirect_abroad", "replaced", "store error"),
    ),
    logging.WARNING,
)


#: Whether a callback is being told of an event. What it brings about, by a look at the session that
#: is being loaded say, is told to none: that would never end.
_is_telling: Final[ContextVar[bool]] = ContextVar("nocookie.is_telling", default=False)


class Event(NamedTuple):
    """What a callback of the option `on_event` gets."""

    #: One of `EVENTS`.
    name: str
    #: For people. With `refused`, the reason: `malformed`, `forged`, `unknown`, `ambiguous`, ...
    detail: str
    #: Names the session, where there is one.
    fingerprint: str | None
    #: The environ of the request that is being served; None outside of one.
    environ: WSGIEnvironment | None

    def __repr__(self) -> str:
        # The environ may hold the id.
        return f"<Event {self.name}, {self.detail or '-'}, {self.fingerprint or '-'}>"


class Events:
    """The events of one application: counted, logged, and given to *callbacks*.

    A callback that raises a `Refusal`, `TooManyTries` say, has the client told, unless the
    response has begun. Anything else that it raises is logged and goes no further.
    """

    def __init__(self, callbacks: Sequence[Callable[[Event], object]] = ()) -> None:
        self._callbacks = callbacks
        # To count takes no lock: `next` is one step for all threads. But who looks counts, too.
        self._counts: dict[str, count[int]] = {}
        self._looks: defaultdict[str, int] = defaultdict(int)
        self._lock = ProcessLocal(threading.Lock)

    def emit(self, name: str, detail: str = "", fingerprint: str | None = None) -> None:
        """Report an event. *detail* must not hold an id, nor anything that a client sent."""
        kind = f"{name}: {detail}" if name == "refused" else name
        next(self._counts.get(kind) or self._counts.setdefault(kind, count()))
        # Asked here already: every new session comes by, and few logs want to hear of it.
        if _is_logged(_LEVELS.get(name, logging.INFO)):
            emit(name, detail, fingerprint)
        if not self._callbacks or _is_telling.get():
            return
        telling = _is_telling.set(True)
        try:
            self._tell(Event(name, detail, fingerprint, None))
        finally:
            _is_telling.reset(telling)

    def _tell(self, event: Event) -> None:
        for callback in self._callbacks:
            request: Any = current()
            environ = None if request is None else request._environ
            try:
                callback(event._replace(environ=environ))
            except Exception as error:
                if isinstance(error, Refusal):
                    if request is None:
                        raise
                    if not request._sent:
                        request._refused = error
                        raise
                logger.exception("a callback of on_event failed at the event %s", event.name)

    def counts(self) -> dict[str, int]:
        """Return how often each event has happened in this process, by name; `refused` by its
        reason too, as `refused: forged`."""
        with self._lock.here():
            found = {}
            for kind, counted in self._counts.copy().items():
                found[kind] = next(counted) - self._looks[kind]
                self._looks[kind] += 1
            return found


def tell(name: str, detail: str = "") -> None:
    """Report an event of a store, which several applications may share: to the one that is being
    served; outside of a request it is only logged. *detail* is as for `Events.emit`."""
    request: Any = current()
    if request is None:
        emit(name, detail)
    else:
        request._manager.emit(name, detail)


def emit(name: str, detail: str = "", fingerprint: str | None = None) -> None:
    """Log an event of no application in particular. *detail* is as for `Events.emit`."""
    level = _LEVELS.get(name, logging.INFO)
    if _is_logged(level):
        logger.log(
            level,
            "session %s: %s%s",
            fingerprint or "-",
            name,
            f" ({detail})" if detail else "",
            extra={"event": name, "detail": detail, "fingerprint": fingerprint},
        )


#: What was said of options already, and how much of it a process remembers.
_said: Final[set[str]] = set()
REMEMBERED: Final = 1000


def report_once(notes: Sequence[str]) -> None:
    """Log the event `options`, unless this process has logged the same: sessions made by hand have
    the same options again and again."""
    detail = "; ".join(notes)
    if detail and detail not in _said and len(_said) < REMEMBERED:
        _said.add(detail)
        emit("options", detail)
