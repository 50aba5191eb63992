"""Ids that came in a URL, taken out of what the application and its logs see.

A carrier whose id is part of the URL takes it before the application runs. From then on the id is
in one object in environ that does not show it, so that neither an access log inside the stack nor
an error report has it, and a second pass of the same environ still finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nocookie.ids import GRAMMAR

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["TAKEN", "Taken", "ids_taken", "take", "taken"]

#: Where in environ the ids are that were taken out of it.
TAKEN: Final = "nocookie.taken"

#: What servers and proxies keep the address in as it was sent, and the address before.
_ADDRESSES: Final = ("REQUEST_URI", "RAW_URI", "UNENCODED_URL", "HTTP_REFERER")

#: What the application finds its way by: the carrier itself has changed what is to change there.
_ROUTED: Final = frozenset({"SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"})

ID_LENGTH: Final = 43
_is_id: Final = re.compile(GRAMMAR, re.ASCII).fullmatch


class Taken:
    """The ids of one request by where they were, and the address that they were taken from."""

    __slots__ = ("ids", "path", "query", "root")

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.ids: dict[str, tuple[str, ...]] = {}
        self.root: str = environ.get("SCRIPT_NAME", "")
        self.path: str = environ.get("PATH_INFO", "")
        self.query: str = environ.get("QUERY_STRING", "")

    def __repr__(self) -> str:
        return "<ids taken from the URL>"


def taken(environ: WSGIEnvironment) -> Taken:
    """Return what was taken from this request; to be called before more is."""
    there: Taken | None = environ.get(TAKEN)
    if there is None:
        there = environ[TAKEN] = Taken(environ)
    return there


def ids_taken(environ: WSGIEnvironment) -> dict[str, tuple[str, ...]]:
    """Return what came in the URL of this request, by place."""
    there: Taken | None = environ.get(TAKEN)
    return {} if there is None else there.ids


def take(
    environ: WSGIEnvironment, place: str, ids: tuple[str, ...], bare: Callable[[str], str]
) -> None:
    """Keep the *ids* that a carrier found at its *place*, and strip the addresses in environ of
    them by *bare*, which returns a URL without the id."""
    taken(environ).ids[place] = ids
    for name in _ADDRESSES:
        if name in environ:
            environ[name] = bare(environ[name])
    suspects = [id for id in ids if _is_id(id)]
    if not suspects:
        return
    for name, value in environ.items():
        # Most of an environ is shorter than an id, and so done with quickly.
        if type(value) is str and len(value) >= ID_LENGTH and name not in _ROUTED:
            for id in suspects:
                if id in value:
                    environ[name] = value = bare(value)
