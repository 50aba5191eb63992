"""The leak guard: a live id on its way to where it must not go, whoever put it there.

Four ways out are watched: a URL of another origin in a header, a header that is no place for an
id, a body that public caches may keep, and a page that has browsers tell other origins its URL.
What a page's links say is the business of `nocookie.html`, which reads them as a browser would.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from nocookie.carriers import Reply
from nocookie.rewriting import Scope

__all__ = ["BodyWatch", "is_html", "is_publicly_cacheable", "leak_in_head", "tells_others"]

#: Headers that hold URLs, with what finds those in their values.
_ADDRESSES: Final = {
    "location": re.compile(r"(.+)", re.DOTALL).findall,
    "content-location": re.compile(r"(.+)", re.DOTALL).findall,
    "refresh": re.compile(r"=\s*[\"']?([^\"']*)").findall,
    "link": re.compile(r"<([^>]*)(?:>|\Z)").findall,
}

#: What lets a cache keep a response for others than the one who asked (RFC 9111, 5.2.2).
_PUBLIC: Final = frozenset({"public", "s-maxage"})
_PRIVATE: Final = frozenset({"private", "no-store"})


def leak_in_head(
    reply: Reply, id: str, scope: Scope, expected: Callable[[str], bool]
) -> str | None:
    """Return what is wrong with a head that holds *id*, without the id; None if nothing is.

    *scope* reads URLs; *expected* says whether ids travel in a header, given in lower case.
    """
    for name, value in reply.headerlist:
        if id not in value:
            continue
        kind = name.lower()
        urls = _ADDRESSES.get(kind)
        if urls is None:
            if not expected(kind):
                return f"in the header {name}"
        elif any(id in url and scope.read(url) is None for url in urls(value)):
            return f"to another origin, in the header {name}"
    return None


def is_publicly_cacheable(reply: Reply) -> bool:
    """Whether the response invites caches to keep it for everybody."""
    words = {
        word.partition("=")[0].strip().lower()
        for name, value in reply.headerlist
        if name.lower() == "cache-control"
        for word in value.split(",")
    }
    return not _PUBLIC.isdisjoint(words) and _PRIVATE.isdisjoint(words)


def is_html(reply: Reply) -> bool:
    for name, value in reply.headerlist:
        # By its length first: most headers are done with quickly.
        if len(name) == 12 and name.lower() == "content-type":
            return value.strip().lower().startswith("text/html")
    return False


#: Referrer policies (W3C) under which another origin is told the page's whole URL, where a page
#: says them. A look only, beside what `nocookie.html` reads: the first two are found quickly.
_LAX: Final = (b"unsafe-url", b"no-referrer-when-downgrade")
_SAYS_LAX: Final = re.compile(
    rb"(?i)(?:(?:content|referrerpolicy)[\t\n\f\r ]{0,9}=[\t\n\f\r ]{0,9}"
    rb"(?:[\"']|&quot;|&#39;|&#34;)?[a-z, -]{0,80}?|referrer-policy\([\t\n\f\r ]{0,9})"
    rb"(?:unsafe-url|no-referrer-when-downgrade)"
)


def tells_others(page: bytes) -> bool:
    """Whether a stretch of a page seems to have browsers tell other origins where it came from."""
    lax, laxer = _LAX
    return (lax in page or laxer in page) and _SAYS_LAX.search(page) is not None


class BodyWatch:
    """A body passes through, and *leak* is called once if a stretch of it *is_leak*.

    What is looked for is at most *reach* bytes long.
    """

    changes = False

    def __init__(
        self, is_leak: Callable[[bytes], bool], reach: int, leak: Callable[[], None]
    ) -> None:
        self._is_leak = is_leak
        self._reach = reach
        self._leak: Callable[[], None] | None = leak
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        if self._leak is not None:
            seen = self._tail + data
            if self._is_leak(seen):
                self._leak()
                self._leak = None
            self._tail = seen[1 - self._reach :]
        return data

    def close(self) -> bytes:
        return b""
