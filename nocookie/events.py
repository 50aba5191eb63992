"""What happened, for whoever watches: one log record an event.

Records go to the logger `nocookie`. Each has the attributes `event` and `fingerprint`, the
first characters of the store key: enough to follow a session through a log, of no use to
anybody who wants to use it. No id is ever logged.
"""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["emit", "logger"]

logger: Final = logging.getLogger("nocookie")

#: Events that an operator should look at; the others are daily life.
_WARNINGS: Final = frozenset(
    {"conflict", "corrupted", "finder failed", "leak", "lost", "misfit", "store error"}
)


def emit(event: str, detail: str = "", fingerprint: str | None = None) -> None:
    """Report *event*. *detail* must not hold an id, nor anything that a client sent."""
    level = logging.WARNING if event in _WARNINGS else logging.INFO
    if logger.isEnabledFor(level):
        logger.log(
            level,
            "session %s: %s%s",
            fingerprint or "-",
            event,
            f" ({detail})" if detail else "",
            extra={"event": event, "detail": detail, "fingerprint": fingerprint},
        )
