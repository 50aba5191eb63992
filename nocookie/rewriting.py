"""Which URLs get the id. How it is put there is in `nocookie.places`, HTML in `nocookie.html`.

An id that reaches another origin is a stolen session, and every rewriter before this one sent
some there, because it judged the text where a browser judges the URL. So the rule is narrow.
A URL gets the id only if

- it is written plainly: no backslash, TAB, newline or other control character before its query,
  no user name, the scheme http or https with two slashes or none at all, the host as the page's
  own address has it. Whatever is merely equivalent is left alone;
- it leads to the scheme, host and port of the page;
- its path, with dot segments resolved, lies inside the mount, on a segment boundary;
- it is not just a place on the same page.

What is left alone costs at worst a session on that link. The text is edited, never put together
again from parts: one id goes in, stale ones go out, all other characters stay as they were.

Inside this module a URL is a `str` of one character per byte, as in WSGI. Real text goes through
`Scope.url`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from nocookie.places import (
    BLANK,
    FROM_DOTS,
    UNSEEN,
    Base,
    Edits,
    InParameter,
    InQuery,
    InSegment,
    Place,
    Reference,
    Segment,
    edited,
)

__all__ = ["InParameter", "InQuery", "InSegment", "Place", "Scope", "refresh_url"]

_ODD: Final = re.compile(r"[\\\x00-\x1f\x7f]")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ABSOLUTE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?")
_HOST: Final = re.compile(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_DEFAULT_PORT: Final = {"http": "80", "https": "443"}

#: A page with more segments in its URL, or more characters, is as good as foreign: each relative
#: link on it would have to be read along with all of these.
_DEEPEST: Final = 256
_LONGEST: Final = 8192

_REDIRECTS: Final = {"301", "302", "303", "307", "308"}

_DOT: Final = re.compile(r"(?:\.|%2[eE])")
_DOTS: Final = re.compile(r"(?:\.|%2[eE]){2}")

#: What a browser percent-encodes in a path, other than by keeping it.
_ENCODED_IN_PATH: Final = re.compile(r"[^!-~]|[\"<>^`{}]")
_ENCODED_IN_QUERY: Final = re.compile(r"[^!-~]|[\"<>']")
#: Path characters of RFC 3986 that `quote` would encode.
_PATH_SAFE: Final = "!$&'()*+,;=:@~"

#: The declarative refresh of HTML, "shared declarative refresh steps", up to its URL.
_REFRESH: Final = re.compile(
    r"""[\t\n\f\r ]*(?:[0-9]++|(?=\.))[0-9.]*+
        (?:\Z|(?=[;,\t\n\f\r ]))[\t\n\f\r ]*(?P<mark>[;,])?[\t\n\f\r ]*
        (?P<word>[uU][rR][lL][\t\n\f\r ]*=[\t\n\f\r ]*)?
        (?:"(?P<dq>[^"]*)|'(?P<sq>[^']*)|(?P<bare>.*))""",
    re.VERBOSE | re.DOTALL,
)


class Scope:
    """One request's: where ids may go, and which.

    *page* is the absolute URL of the page as the browser has it. *mount* is SCRIPT_NAME as it
    was received, before the id was taken from it. *origin*, such as `https://shop.example`,
    stands in for the page's scheme, host and port where a proxy hides them; without it these
    come from the client, in its Host header. *grammar* says what an id looks like.

    Raises ValueError if *id* is none by *grammar*.
    """

    def __init__(
        self,
        page: str,
        place: Place,
        id: str,
        *,
        grammar: re.Pattern[str],
        mount: str = "",
        origin: str | None = None,
    ) -> None:
        self.is_id: Callable[[str], object] = grammar.fullmatch
        if not self.is_id(id):
            raise ValueError("the id is none by its own grammar")
        self.id = id
        self.place = place
        self.mount = [_quoted(part) for part in mount.split("/") if part]
        found = _ABSOLUTE.match(page)
        scheme, authority, path, query = found.groups() if found else ("", "", "", None)
        if origin is not None:
            pinned = _ABSOLUTE.fullmatch(origin.rstrip("/"))
            if pinned is None or pinned[3] or not _spellings(pinned[1].lower(), pinned[2]):
                raise ValueError("an origin is a scheme, a host and perhaps a port")
            scheme, authority = pinned.group(1, 2)
        self.scheme = scheme.lower()
        self.root = f"{self.scheme}://{authority.lower()}"
        # The Host header is the client's: one that is odd is nobody's.
        self._hosts = _spellings(self.scheme, authority)
        self.roots = _roots(self.scheme, authority)
        own = self.scheme in _DEFAULT_PORT and not _ODD.search(path)
        self.page = self.base = _base(self.scheme, own, path[1:], query)

    def url(self, url: str) -> str:
        """Return *url* with the id, or as it is if the id must not go there. Never raises."""
        text = _bytewise(url)
        return url if text is None else _readable(edited(text, self.edits(text)), url)

    def bare_url(self, url: str) -> str:
        """Return *url* without the id: for mail, for redirects through another site, for
        canonical links. Never raises.

        On a URL of the own origin a parameter of our name goes, whatever it holds; on any
        other, and where we are in doubt, whatever is an id by its grammar.
        """
        text = _bytewise(url)
        return url if text is None else _readable(edited(text, self.bare_edits(text)), url)

    def location(self, value: str) -> str:
        """Return the value of a `Location` header with the id, or as it is."""
        return edited(value, self.edits(value, navigates=True))

    def refresh(self, value: str) -> str:
        """Return the value of a `Refresh` header with the id, or as it is."""
        return edited(value, self.refresh_edits(value))

    def headers(self, status: str, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers of a response, with the id where a browser would follow them.

        These are `Location` in a redirect, and `Refresh`. In other responses `Location` names a
        resource; so do `Content-Location` and `Link`, always.
        """
        found = []
        for name, value in headers:
            if name.lower() == "location" and status[:3] in _REDIRECTS:
                value = self.location(value)
            elif name.lower() == "refresh":
                value = self.refresh(value)
            found.append((name, value))
        return found

    def under(self, href: str) -> Scope:
        """Return the scope below `<base href>`."""
        scope = copy.copy(self)
        scope.base = self._base(href)
        return scope

    def nowhere(self) -> Scope:
        """Return a scope that has no origin of its own: no URL gets the id."""
        scope = copy.copy(self)
        scope.scheme, scope._hosts, scope.roots = "", frozenset(), frozenset()
        scope.page = scope.base = Base("", False, [""], None)
        return scope

    @property
    def _starts_at_page(self) -> bool:
        """Whether a bare fragment is a place on the page: under a base of another URL it leads to
        that one."""
        base, page = self.base, self.page
        return (base.segments, base.query) == (page.segments, page.query)

    @property
    def at_home(self) -> bool:
        """Whether relative URLs start from the page itself."""
        return self.base is self.page

    def edits(self, text: str, *, navigates: bool = False) -> Edits | None:
        """Return what gives the URL the id; None if it is left alone, nothing if it has it.

        A bare fragment is a place on the page, unless following it *navigates*.
        """
        url = self.read(text)
        if url is None:
            return None
        is_bare = url.inherits and not url.has_query and url.fragment < url.end
        if is_bare and not navigates and self._starts_at_page:
            return None
        return self.place.put(url, self)

    def stays(self, text: str) -> bool:
        """Whether a URL plainly leads to the own origin, be it out of the scope."""
        anywhere = copy.copy(self)
        anywhere.mount = []
        return anywhere.read(text) is not None

    def has_id(self, text: str) -> bool:
        """Whether a URL holds an id, or what it is relative to does: the page's URL, the base."""
        page, base = self.page, self.base
        return (
            self._is_in(text)
            or page.once("id", lambda: self._is_in(_path(page)))
            or base.once("id", lambda: self._is_in(_path(base)))
        )

    def _is_in(self, text: str) -> bool:
        return self.id in text or bool(self.place.scrub(text, self))

    def bare_edits(self, text: str) -> Edits:
        url = self.read(text)
        edits = None if url is None else self.place.take(url, self)
        if edits is not None:
            return edits
        return self.place.scrub(text, self)

    def refresh_edits(self, text: str) -> Edits | None:
        """Return what gives a refresh the id (HTML, "shared declarative refresh steps")."""
        found = _REFRESH.match(text)
        if found is None:
            return None
        name = _url_of(found)
        start, url = found.start(name), found[name]
        if name == "bare" and not url and not found["word"]:
            here = self.here()
            mark = "" if found["mark"] else ";"
            return [(start, start, f"{mark}url={here}")] if here else None
        edits = self.edits(url, navigates=True)
        return edits and [(start + a, start + b, new) for a, b, new in edits]

    def here(self) -> str | None:
        """Return a URL that leads to the page with the id, from wherever relative URLs start;
        None if the page's own URL has it or cannot have it."""
        home = copy.copy(self)
        home.base = self.page
        text = "" if self.at_home else self.root + _path(self.page)
        edits = home.edits(text)
        if not edits or (not self.at_home and not self._hosts):
            return None
        return edited(text, edits)

    def read(self, text: str) -> Reference | None:
        """Return where *text* leads if that is inside the scope and plain to see."""
        if "\0" in text:  # stripped from a URL, and U+FFFD in a page
            return None
        end = len(text.rstrip(BLANK))
        start = min(len(text) - len(text.lstrip(BLANK)), end)
        fragment = text.find("#", start, end)
        if fragment < 0:
            fragment = end
        query = text.find("?", start, fragment)
        if query < 0:
            query = fragment
        if _ODD.search(text, start, query):
            return None

        scheme = _SCHEME.match(text, start, query)
        path = start
        has_authority = False
        if scheme:
            path = scheme.end()
            if text[start : path - 1].lower() != self.scheme or not text.startswith("//", path):
                return None
        if text.startswith("//", path, query):
            if not scheme and self.base.scheme != self.scheme:
                return None
            has_authority = True
            path += 2
            host = path
            path = text.find("/", host, query)
            if path < 0:
                path = query
            if text[host:path].lower() not in self._hosts:
                return None
        elif not self.base.own:
            return None

        segments = self._resolved(text, path, query, has_authority)
        depth = len(self.mount)
        if [_encoded(part.text) for part in segments[:depth]] != self.mount:
            return None
        return Reference(text, path, query, fragment, end, has_authority, segments, self.base)

    def _resolved(self, text: str, path: int, end: int, has_authority: bool) -> list[Segment]:
        if path == end:
            if has_authority:
                return [Segment("", path)]
            return self.base.inherited
        if text[path] == "/":
            at, found = path + 1, []
        else:
            at, found = path, self.base.inherited[:-1]
        for part in text[at:end].split("/"):
            last = at + len(part) == end
            if _DOTS.fullmatch(part):
                del found[-1:]
            elif not _DOT.fullmatch(part):
                found.append(Segment(part, at))
                last = False
            if last:
                found.append(Segment("", FROM_DOTS))
            at += len(part) + 1
        return found

    def _base(self, href: str) -> Base:
        home = copy.copy(self)
        home.base, home.mount = self.page, []
        url = home.read(href)
        if url is None:
            # Not ours, or odd. A scheme that is plain to see still counts for //host/path.
            found = _ABSOLUTE.match(href.strip(BLANK))
            plain = found and not _ODD.search(found[0])
            return Base(found[1].lower() if found and plain else "", False, [""], None)
        query: str | None = url.text[url.query + 1 : url.fragment]
        if not url.has_query:
            query = self.page.query if url.inherits else None
        return _base(self.scheme, True, "/".join(part.text for part in url.segments), query)


def refresh_url(text: str) -> str:
    """Return where a refresh leads, as it is written; nothing if that is the page itself, or if it
    is no refresh."""
    found = _REFRESH.match(text)
    return "" if found is None else found[_url_of(found)]


def _url_of(found: re.Match[str]) -> str:
    return next(name for name in ("dq", "sq", "bare") if found[name] is not None)


@lru_cache(32)
def _spellings(scheme: str, authority: str) -> frozenset[str]:
    """Return the ways to write the host and port of our own origin."""
    found = _HOST.fullmatch(authority.lower())
    if not found or scheme not in _DEFAULT_PORT:
        return frozenset()
    host, port = found.groups()
    if port in (None, _DEFAULT_PORT[scheme]):
        return frozenset({host, f"{host}:{_DEFAULT_PORT[scheme]}"})
    return frozenset({f"{host}:{port}"})


@lru_cache(32)
def _roots(scheme: str, authority: str) -> frozenset[bytes]:
    """Return the ways to write our own origin at the start of a URL, in lower case."""
    return frozenset(f"{scheme}://{host}".encode() for host in _spellings(scheme, authority))


def _quoted(part: str) -> str:
    """Return a segment of SCRIPT_NAME, which WSGI decodes, as URLs have it."""
    return quote(part, safe=_PATH_SAFE, encoding="latin-1")


def _encoded(path: str) -> str:
    """Return a path, or a segment of one, as a browser would send it."""
    return _ENCODED_IN_PATH.sub(_percent, path) if _ENCODED_IN_PATH.search(path) else path


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def _base(scheme: str, own: bool, path: str, query: str | None) -> Base:
    """Return a base in the letters that a browser would send, so that it can be written out."""
    if query is not None and _ENCODED_IN_QUERY.search(query):
        query = _ENCODED_IN_QUERY.sub(_percent, UNSEEN.sub("", query))
    own = own and path.count("/") < _DEEPEST and len(path) + len(query or "") < _LONGEST
    return Base(scheme, own, _encoded(path).split("/"), query)


def _path(base: Base) -> str:
    query = "" if base.query is None else "?" + base.query
    return "/" + "/".join(base.segments) + query


def _bytewise(url: str) -> str | None:
    """Return the text with one character per byte of its UTF-8; None if it has none."""
    if url.isascii():
        return url
    try:
        return url.encode().decode("latin-1")
    except UnicodeEncodeError:
        return None


def _readable(text: str, url: str) -> str:
    return text if url.isascii() else text.encode("latin-1").decode()
