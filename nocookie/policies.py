"""Referrer policies that a response itself says, and by which other origins are told its URL.

A policy on an element, in a style sheet or on a preload counts more than the header
`Referrer-Policy`. What tells no more than an origin stays; the rest becomes `same-origin`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from nocookie.entities import unescaped

__all__ = [
    "CALM_CSS",
    "CALM_STYLE",
    "STRICT",
    "lax_css",
    "says_lax_in_svg",
    "tightened_html",
    "tightened_link",
]

Span = tuple[int, int]

STRICT: Final = "same-origin"

#: Those that tell other origins no path of ours (W3C, Referrer Policy).
_SAFE: Final = frozenset(
    {
        *("no-referrer", "same-origin", "origin", "strict-origin"),
        *("origin-when-cross-origin", "strict-origin-when-cross-origin"),
    }
)

# --- CSS ----------------------------------------------------------------------------------------
#
# `url("//other/x" referrer-policy(unsafe-url))`: a function by that name, which may be written in
# escapes, with the parenthesis right behind it. Whatever is in there, and is not safe, is replaced.


def _escapable(letter: str) -> str:
    """Return what matches a letter, in any case, as it is or escaped (CSS Syntax, 4.3.7)."""
    codes = "|".join(f"{ord(each):x}" for each in {letter, letter.upper()})
    plain = "" if letter in "abcdef" else r"\\?+"
    return rf"(?:{plain}{re.escape(letter)}|\\0{{0,4}}+(?i:{codes})(?:\r\n|[ \t\n\f\r])?+)"


#: How far its arguments are read.
_REACH: Final = 64
_functions: Final = re.compile(
    rf"(?i){''.join(map(_escapable, 'referrer-policy'))}\(([^)]{{0,{_REACH}}}+)".encode()
).finditer
#: What it may begin with: as many letters as it has, each with all that an escape may have.
_unfinished: Final = re.compile(rb"[rR\\][-A-Za-z0-9\\ \t\n\f\r]*+\Z").search
_LONGEST: Final = 15 * 9

#: A quoted style attribute in which there is no such function: no escape, and no function whose
#: name ends in a y.
CALM_STYLE: Final = (
    rb"(?:\"[^\"\\&(]*+(?:(?<![yY])\([^\"\\&(]*+)*+\"|'[^'\\&(]*+(?:(?<![yY])\([^'\\&(]*+)*+')"
)
#: The same of a style sheet, up to a tag.
CALM_CSS: Final = rb"[^<\\(]*+(?:(?<![yY])\([^<\\(]*+)*+"


def lax_css(css: bytes, start: int, end: int, *, is_whole: bool) -> tuple[list[Span], int]:
    """Return where arguments stand that should be `STRICT`; and up to where all is seen: unless
    it *is_whole*, more may follow."""
    spans: list[Span] = []
    seen = start
    region = css[start:end]
    if b"\\" not in region and b"policy(" not in region.lower():
        functions: Iterable[re.Match[bytes]] = ()
    else:
        functions = _functions(css, start, end)
    for found in functions:
        if not is_whole and found.end() == end:
            return spans, found.start()
        seen = found.end()
        if found[1].decode("latin-1").strip().lower() not in _SAFE:
            spans.append(found.span(1))
    if is_whole:
        return spans, end
    tail = _unfinished(css, max(seen, end - _LONGEST), end)
    return spans, end if tail is None else tail.start()


#: What is no text in a style sheet of svg: comments, and the marks of CDATA sections; and all these
#: marks, because browsers may end a comment earlier.
_unsaid: Final = re.compile(rb"<!--(?:(?!-->)[^<])*+-->|<!\[CDATA\[|\]\]>").sub
_marks: Final = re.compile(rb"<!--|--!?>|<!\[CDATA\[|\]\]>").sub


def says_lax_in_svg(css: bytes) -> bool:
    """Whether a style sheet with no tag in it says a policy that tells too much, if it is read as
    in svg: there it may be put together from pieces, and have references in it."""
    for without in (_unsaid, _marks):
        text = unescaped(without(b"", css).decode("latin-1")).encode("utf-8")
        if lax_css(text, 0, len(text), is_whole=True)[0]:
            return True
    return False


# --- HTML in an attribute -----------------------------------------------------------------------

#: Policies as attributes have them. More than those: also what only looks so.
_lax: Final = re.compile(
    r"""(?ix)(?:content|referrerpolicy)[\t\n\f\r ]*+=[\t\n\f\r ]*+
    (?:["']?+[a-z,\ -]*?(unsafe-url|no-referrer-when-downgrade)
    |["'](always)(?=["'])|(always)(?=[\t\n\f\r >]|\Z))"""
)
#: How often a document may be in an attribute of another.
_DEPTH: Final = 4


def tightened_html(text: str) -> str | None:
    """Return a document, of one character per byte, with no policy that tells too much; None if
    that cannot be seen to be so."""
    text = _replaced(text, [found.span(found.lastindex or 0) for found in _lax.finditer(text)])
    text = _replaced(text, lax_css(text.encode("latin-1"), 0, len(text), is_whole=True)[0])
    inner = text
    for _ in range(_DEPTH):
        css = inner.encode("utf-8")
        if _lax.search(inner) or lax_css(css, 0, len(css), is_whole=True)[0]:
            return None
        outer, inner = inner, unescaped(inner)
        if inner == outer:
            return text
    return None


def _replaced(text: str, spans: list[Span]) -> str:
    parts: list[str] = []
    at = 0
    for start, end in spans:
        parts += text[at:start], STRICT
        at = end
    return "".join((*parts, text[at:]))


# --- Links in a head ----------------------------------------------------------------------------

_link_policies: Final = re.compile(
    r'(?is)(referrerpolicy[\t ]*+=[\t ]*+)("(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[^\t ;,"]*+)'
)


def tightened_link(value: str) -> str:
    """Return the value of a `Link` header with no policy that tells too much."""
    return _link_policies.sub(_tightened, value)


def _tightened(found: re.Match[str]) -> str:
    said = re.sub(r"\\(.)", r"\1", found[2].strip('"')).strip().lower()
    return found[0] if said in _SAFE else found[1] + STRICT
