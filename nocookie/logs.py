"""Ids kept out of logs that others write: access logs, debug logs, error reports.

nocookie itself logs no id. But an id in a URL is in what servers and frameworks write about the
request. `MaskIds` goes on the handlers of the logs that can be reached from Python::

    for handler in logging.getLogger().handlers:
        handler.addFilter(MaskIds())

It shows a fingerprint in the id's place: the name of the session in listings and events.
"""

from __future__ import annotations

import hashlib
import logging
import re
from typing import Any, Final
from urllib.parse import unquote
from wsgiref.simple_server import WSGIRequestHandler

from nocookie.ids import FINGERPRINT_LENGTH, GRAMMAR

__all__ = ["MaskIds", "MaskingRequestHandler", "mask"]

#: A character of an id, as it is or in percents.
_CHARACTER: Final = "(?:[A-Za-z0-9_-]|%(?:2[Dd]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|5[Ff]))"
#: What ends in a letter or digit that is no part of an id behind it: an escape of Python or JSON, a
#: sequence that colours a terminal.
_ESCAPE: Final = (
    r"\\(?:[abfnrtv0]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})|\[[0-9;:<=>?]{0,64}[A-Za-z]"
)
#: What is written in percents: once, or again in a URL that is itself a parameter of another's.
_PERCENTS: Final = "|".join(f"(?<=%{'25' * depth}[0-9A-Fa-f]{{2}})" for depth in range(4))
#: An id, and not a part of a longer word; what is written in percents before it is none of it.
_ids: Final = re.compile(
    rf"({_ESCAPE}|(?<![A-Za-z0-9_-])|{_PERCENTS})({_CHARACTER}{{43}})(?![A-Za-z0-9_-])",
    re.ASCII,
)
_is_id: Final = re.compile(GRAMMAR, re.ASCII).fullmatch

#: A segment with the marker of `PathSegment` and more than an id behind it: what a client wrote
#: that tried how far it gets. No name of a user's folder is as long as that.
_segments: Final = re.compile(rf"(/(?:~|%7[Ee])){_CHARACTER}{{44,}}")


def mask(text: str) -> str:
    """Return *text* with each id in it replaced by its fingerprint: `[session 3f2a...]`.

    By grammar: whatever else is 43 characters of the URL-safe alphabet is masked too, and after
    `/~`, where an id with more characters attached may be, what is longer: `[masked]`.
    """
    return _segments.sub(r"\1[masked]", _ids.sub(_fingerprint, text))


def _fingerprint(found: re.Match[str]) -> str:
    id = unquote(found[2])
    if not _is_id(id):
        return found[0]
    key = hashlib.blake2b(id.encode(), digest_size=32).hexdigest()
    return f"{found[1]}[session {key[:FINGERPRINT_LENGTH]}]"


class MaskIds(logging.Filter):
    """Mask the ids in everything that a record will show: message, arguments, traceback, extra
    fields. Put it on handlers: a filter on a logger does not see what its children log."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # wrong arguments: what logging says of them would show them
            message = f"{record.msg!r} with arguments that do not fit"
        record.msg, record.args = mask(message), None
        if record.exc_info:
            # Formatters keep the text of a traceback here; made now, none makes it again.
            record.exc_text = mask(
                record.exc_text or logging.Formatter().formatException(record.exc_info)
            )
            record.exc_info = None
        if record.stack_info:
            record.stack_info = mask(record.stack_info)
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                record.__dict__[name] = _masked(value)
        return True


#: What every record has; none of it comes from a request but what is handled above.
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    try:
        # Handlers may show it either way.
        shown = [(text, mask(text)) for text in (repr(value), str(value))]
    except Exception:  # an object that cannot be shown is not worth a record
        return f"<{type(value).__name__}>"
    return next((masked for text, masked in shown if text != masked), value)


class MaskingRequestHandler(WSGIRequestHandler):
    """A request handler for `wsgiref.simple_server.make_server(handler_class=...)` whose access
    log shows no id."""

    def log_message(self, format: str, *args: Any) -> None:
        super().log_message("%s", mask(format % args))
