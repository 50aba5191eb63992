"""Which responses get ids on their links, and what else changes in their heads.

How an id goes on a URL, and on which, is in `nocookie.rewriting`; here is when.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from nocookie.carriers import USUAL, Reply, UrlCarrier
from nocookie.ids import GRAMMAR
from nocookie.request import Request
from nocookie.rewriting import Scope

__all__ = [
    "REDIRECTS",
    "can_be_told",
    "is_page",
    "leads_on",
    "put_on_body",
    "put_on_head",
    "scope_of",
    "strip_head",
]

_grammar: Final = re.compile(GRAMMAR, re.ASCII)

#: The answers whose Location a browser follows (RFC 9110, 15.4). In a 201 it names a resource.
REDIRECTS: Final = frozenset({"301", "302", "303", "307", "308"})

#: What a head says about the bytes of the body, and would say wrongly of other bytes.
_OF_THE_BYTES: Final = frozenset(
    {
        *("content-length", "content-md5", "digest", "content-digest", "repr-digest"),
        "accept-ranges",
    }
)


def scope_of(request: Request, carrier: UrlCarrier, id: str) -> Scope:
    """Return where *id* may go in the response to this request. Raises ValueError if it is none
    of our ids by its grammar."""
    url, mount = request.address()
    return Scope(url, carrier.where, id, grammar=_grammar, mount=mount)


def can_be_told(request: Request, id: str) -> bool:
    """Whether links may have this id: an id of Beaker's, say, has no place in a URL."""
    return request.may_tell and _grammar.fullmatch(id) is not None


def leads_on(reply: Reply) -> bool:
    """Whether the head says where to go next. Cheap: every response is asked."""
    for name, _ in reply.headerlist:
        if name not in USUAL and name.lower() in ("location", "refresh"):
            return True
    return False


def is_page(reply: Reply) -> bool:
    """Whether the body is a page whose links can be rewritten."""
    # Only now: its grammar takes a tenth of our start to compile, and few applications need it.
    from nocookie.html import is_rewritable

    return not reply.as_it_is and is_rewritable(reply.status, reply.headerlist)


def put_on_head(scope: Scope, reply: Reply) -> bool:
    """Put the id on where the response sends the client; return whether it is there now."""
    return _edit_head(reply, scope.location, scope.refresh, scope.id)


def put_on_body(scope: Scope, reply: Reply, on_leak: Callable[[str], object]) -> None:
    """Have the id put on the links of the page that the response is.

    Its head says no more what is true of the page as it was only (RFC 9110, 8.8.1: what is
    equal but for its links has the same weak validator).
    """
    from nocookie.html import HtmlRewriter, says_charset

    sniffed = True
    headers = []
    for name, value in reply.headerlist:
        kind = name.lower()
        if kind in _OF_THE_BYTES:
            continue
        if kind == "etag" and not value.startswith("W/"):
            value = "W/" + value
        elif kind == "content-type":
            sniffed = not says_charset(value)
        headers.append((name, value))
    reply.headerlist[:] = headers
    reply.rewriter = HtmlRewriter(scope, sniffed=sniffed, on_leak=on_leak)


def strip_head(scope: Scope, reply: Reply) -> None:
    """Take an id that has ended from where the response sends the client."""
    _edit_head(reply, scope.bare_url, scope.bare_url, scope.id)


def _edit_head(
    reply: Reply, location: Callable[[str], str], refresh: Callable[[str], str], id: str
) -> bool:
    followed = reply.status[:3] in REDIRECTS
    there = False
    for at, (name, value) in enumerate(reply.headerlist):
        kind = name.lower()
        if kind == "location" and followed:
            new = location(value)
        elif kind == "refresh":
            new = refresh(value)
        else:
            continue
        if new != value:
            reply.headerlist[at] = (name, new)
        there = there or id in new
    return there
