"""Which URLs get the id, and how it is put there. What HTML needs beside is `nocookie.html`.

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
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote, unquote, unquote_plus

__all__ = [
    "Base",
    "Edits",
    "InParameter",
    "InQuery",
    "InSegment",
    "Place",
    "Reference",
    "Scope",
    "Segment",
    "edited",
]

#: What changes in a text: (from, to, what stands there instead), in order, without overlap.
Edits = list[tuple[int, int, str]]

#: What a browser strips from both ends of a URL (WHATWG URL, "C0 control or space").
_BLANK: Final = "".join(map(chr, range(0x21)))
_ODD: Final = re.compile(r"[\\\x00-\x1f\x7f]")
#: What a browser takes out of a URL wherever it is.
_UNSEEN: Final = re.compile(r"[\t\n\r]")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ABSOLUTE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?")
_ANY_AUTHORITY: Final = re.compile(
    r"[\x00-\x20]*(?:[A-Za-z][A-Za-z0-9+.\-\t\n\r]*:)?(?:[\t\n\r]*[/\\]){2,}[^/\\?#]*"
)
_AFTER_PATH: Final = re.compile("[?#]")
_HOST: Final = re.compile(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_DEFAULT_PORT: Final = {"http": "80", "https": "443"}

_REDIRECTS: Final = {"301", "302", "303", "307", "308"}

_DOT: Final = re.compile(r"(?:\.|%2[eE])")
_DOTS: Final = re.compile(r"(?:\.|%2[eE]){2}")
_EMPTY_OR_DOTS: Final = re.compile(r"(?:\.|%2[eE]){0,2}")

#: What a browser percent-encodes in a path, other than by keeping it.
_ENCODED_IN_PATH: Final = re.compile(r"[^!-~]|[\"<>^`{}]")
_ENCODED_IN_QUERY: Final = re.compile(r"[^!-~]|[\"<>']")
#: Path characters of RFC 3986 that `quote` would encode.
_PATH_SAFE: Final = "!$&'()*+,;=:@~"

#: The declarative refresh of HTML, "shared declarative refresh steps", up to its URL.
_REFRESH: Final = re.compile(
    r"""[\t\n\f\r ]*(?:[0-9]+|(?=\.))[0-9.]*
        (?:\Z|(?=[;,\t\n\f\r ]))[\t\n\f\r ]*(?P<mark>[;,])?[\t\n\f\r ]*
        (?:[uU][rR][lL][\t\n\f\r ]*=[\t\n\f\r ]*)?
        (?:"(?P<dq>[^"]*)|'(?P<sq>[^']*)|(?P<bare>.*))""",
    re.VERBOSE | re.DOTALL,
)


class Segment(NamedTuple):
    """One segment of a resolved path."""

    text: str
    #: Where the URL writes it; `FROM_BASE` if the base has it; `FROM_DOTS` for the empty one
    #: that a dot segment at the end leaves.
    at: int


FROM_BASE: Final = -1
FROM_DOTS: Final = -2


class Base(NamedTuple):
    """What relative URLs are resolved against."""

    scheme: str
    #: Whether it has the page's origin. If not, no relative URL does.
    own: bool
    segments: Sequence[str]
    query: str | None


class Reference(NamedTuple):
    """A URL that leads to the own origin: where its parts are, where it leads."""

    text: str
    #: Where the path starts. It ends at `query`.
    path: int
    #: Where the question mark is; where the query would go if there is none.
    query: int
    #: Where the `#` is, or the end.
    fragment: int
    end: int
    has_authority: bool
    segments: list[Segment]
    base: Base

    @property
    def has_path(self) -> bool:
        return self.path < self.query

    @property
    def has_query(self) -> bool:
        return self.query < self.fragment

    @property
    def inherits(self) -> bool:
        """Whether the path is the base's."""
        return not self.has_path and not self.has_authority


class Place(Protocol):
    """Where in a URL the id goes."""

    def put(self, url: Reference, scope: Scope) -> Edits | None:
        """Return what gives *url* this id and no other; None if it should be left alone."""
        ...

    def take(self, url: Reference, scope: Scope) -> Edits | None:
        """Return what takes the id from *url*, whichever it is."""
        ...

    def scrub(self, text: str, scope: Scope) -> Edits:
        """Return what takes anything that is an id by grammar from a URL that may be foreign."""
        ...


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
        self.mount = [_quoted(part) for part in mount.strip("/").split("/") if part]
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
        own = self.scheme in _DEFAULT_PORT and not _ODD.search(path)
        self.page = self.base = _base(self.scheme, own, path[1:].split("/"), query)

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
        # Under a base of another URL a bare fragment leads to that one.
        stays = not navigates and self.base[2:] == self.page[2:]
        if stays and url.inherits and not url.has_query and url.fragment < url.end:
            return None
        return self.place.put(url, self)

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
        name = next(name for name in ("dq", "sq", "bare") if found[name] is not None)
        start, url = found.start(name), found[name]
        if name == "bare" and not url:
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
        end = len(text.rstrip(_BLANK))
        start = min(len(text) - len(text.lstrip(_BLANK)), end)
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
            return [Segment(part, FROM_BASE) for part in self.base.segments]
        if text[path] == "/":
            at, found = path + 1, []
        else:
            at, found = path, [Segment(part, FROM_BASE) for part in self.base.segments[:-1]]
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
            found = _ABSOLUTE.match(href.strip(_BLANK))
            plain = found and not _ODD.search(found[0])
            return Base(found[1].lower() if found and plain else "", False, [""], None)
        query: str | None = url.text[url.query + 1 : url.fragment]
        if not url.has_query:
            query = self.page.query if url.inherits else None
        return _base(self.scheme, True, [part.text for part in url.segments], query)


class InQuery:
    """The id in a query parameter: `/cart?sid=<id>`."""

    def __init__(self, name: str = "sid") -> None:
        self.name = name
        self._written = quote(name, safe="")

    def put(self, url: Reference, scope: Scope) -> Edits | None:
        pair = f"{self._written}={scope.id}"
        if url.has_query:
            return self._replaced(url.text, url.query, url.fragment, pair)
        if url.inherits and url.base.query is not None:
            # To give only our own parameter would drop those of the page.
            query = "?" + url.base.query
            edits = self._replaced(query, 0, len(query), pair)
            return edits and [(url.fragment, url.fragment, edited(query, edits))]
        slash = "" if url.inherits or url.has_path else "/"
        return [(url.query, url.query, f"{slash}?{pair}")]

    def _replaced(self, text: str, query: int, end: int, pair: str) -> Edits:
        edits = _parameter_edits(text, query, end, "&", self._is_ours, pair)
        if edits is None:
            joint = "" if end == query + 1 or text[end - 1] == "&" else "&"
            return [(end, end, joint + pair)]
        return edits

    def take(self, url: Reference, scope: Scope) -> Edits | None:
        if not url.has_query:
            return []
        edits = _parameter_edits(url.text, url.query, url.fragment, "&", self._is_ours) or []
        if url.inherits and edits == [(url.query, url.fragment, "")]:
            # Without its question mark it would inherit the query of the page.
            return [(url.query + 1, url.fragment, "")] if url.query + 1 < url.fragment else []
        return edits

    def scrub(self, text: str, scope: Scope) -> Edits:
        _, query = _path_of(text)
        fragment = text.find("#", query)
        end = len(text) if fragment < 0 else fragment
        if not text.startswith("?", query):
            return []

        def is_id(piece: str) -> bool:
            return bool(scope.is_id(unquote_plus(piece.partition("=")[2])))

        return _parameter_edits(text, query, end, "&", is_id) or []

    def _is_ours(self, piece: str) -> bool:
        name = piece.partition("=")[0]
        return unquote_plus(_UNSEEN.sub("", name)) == self.name


class InParameter:
    """The id in a parameter of the last path segment: `/cart;sid=<id>`."""

    def __init__(self, name: str = "sid") -> None:
        self.name = name
        self._written = quote(name, safe="")

    def put(self, url: Reference, scope: Scope) -> Edits | None:
        pair = f"{self._written}={scope.id}"
        *directories, last = url.segments
        if len(url.segments) == len(scope.mount):
            return None  # /shop;sid=... is not below /shop
        if any(self._is_in(part.text) for part in directories):
            return None
        if url.inherits:
            edits = self._replaced(last.text, 0, len(last.text), pair)
            return edits and self._inherited(url, edited(last.text, edits))
        start = url.text.rfind("/", url.path, url.query) + 1 or url.path
        if last.at == FROM_DOTS:
            slash = "" if url.text[url.query - 1] == "/" else "/"
            return [(url.query, url.query, f"{slash};{pair}")]
        if not url.has_path:
            return [(url.query, url.query, f"/;{pair}")]
        return self._replaced(url.text, start, url.query, pair)

    def _replaced(self, text: str, start: int, end: int, pair: str) -> Edits:
        first = text.find(";", start, end)
        edits = None
        if first >= 0:
            edits = _parameter_edits(text, first, end, ";", self._is_ours, pair)
        return [(end, end, f";{pair}")] if edits is None else edits

    def take(self, url: Reference, scope: Scope) -> Edits | None:
        if url.has_path:
            return self._cut(url.text, url.path, url.query, self._is_ours)
        *_, last = url.segments
        edits = self._cut(last.text, 0, len(last.text), self._is_ours)
        if not edits or not url.inherits or (url.fragment < url.end and not url.has_query):
            return []
        return self._inherited(url, edited(last.text, edits))

    def scrub(self, text: str, scope: Scope) -> Edits:
        def is_id(piece: str) -> bool:
            return bool(scope.is_id(unquote(piece.partition("=")[2])))

        return self._cut(text, *_path_of(text), is_id)

    def _cut(self, text: str, start: int, end: int, ours: Callable[[str], bool]) -> Edits:
        edits: Edits = []
        for part in text[start:end].split("/"):
            name, mark, _ = part.partition(";")
            first, stop = start + len(name), start + len(part)
            cut = (mark and _parameter_edits(text, first, stop, ";", ours)) or []
            bare = edited(part, [(a - start, b - start, new) for a, b, new in cut])
            ends_in_slash = not bare and stop == end and text.startswith("/", start - 1)
            if not ends_in_slash and _EMPTY_OR_DOTS.fullmatch(bare):
                # Alone, these would lead elsewhere.
                cut = cut and [(first, stop, ";")]
            edits += cut
            start = stop + 1
        return edits

    def _inherited(self, url: Reference, name: str) -> Edits:
        """Return what says the base's last segment, now *name*, and its query."""
        # A first segment with a colon would be read as a scheme.
        dots = "./" if ":" in name or name.startswith(";") or not name else ""
        query = "" if url.has_query or url.base.query is None else "?" + url.base.query
        return [(url.query, url.query, dots + name + query)]

    def _is_in(self, segment: str) -> bool:
        return any(map(self._is_ours, segment.split(";")[1:]))

    def _is_ours(self, piece: str) -> bool:
        return unquote(piece.partition("=")[0]) == self.name


class InSegment:
    """The id in a segment of its own, the first below the mount: `/~<id>/cart`."""

    def __init__(self, mark: str = "~") -> None:
        self.mark = mark

    def put(self, url: Reference, scope: Scope) -> Edits | None:
        return self._set(url, scope, self.mark + scope.id)

    def take(self, url: Reference, scope: Scope) -> Edits | None:
        if url.inherits and not url.has_query and url.fragment < url.end:
            return []
        return self._set(url, scope, None)

    def _set(self, url: Reference, scope: Scope, wanted: str | None) -> Edits | None:
        """Make *wanted* the first segment below the mount, in place of an id that is there."""
        depth = len(scope.mount)
        below = url.segments[depth:] or [Segment("", FROM_BASE)] * url.inherits
        if not below:
            # The mount itself, without a slash: what is below it starts with one.
            return [(url.query, url.query, f"/{wanted}/")] if wanted else []
        first = below[0]
        has_id = self._is_ours(first.text, scope)
        if any(self._is_disguised(part.text, scope) for part in below[has_id:][:1]):
            return None
        if (first.text if has_id else None) == wanted:
            return []
        if first.at >= 0 and url.has_path:
            if not has_id:
                return [(first.at, first.at, f"{wanted}/")]
            end = first.at + len(first.text)
            return [(first.at, end, wanted)] if wanted else [_cut(url.text, first.at, end)]
        if first.at == FROM_DOTS:
            slash = "" if url.text[url.query - 1] == "/" else "/"
            return [(url.query, url.query, f"{slash}{wanted}/")]
        if not url.has_path and not url.inherits:
            return [(url.query, url.query, f"/{wanted}/")]
        # The base has another id there, or none: the path has to be said from the top.
        dirs = url.base.segments if url.inherits else url.base.segments[:-1]
        own = dirs[depth + has_id :] if len(dirs) > depth else [first.text]
        parts = [*scope.mount, *([wanted] if wanted else []), *own]
        text = "/" + "/".join(parts)
        if text.startswith("//"):
            return None
        if not url.inherits:
            return [(url.path, url.path, text + "/" if parts else "/")]
        query = "" if url.has_query or url.base.query is None else "?" + url.base.query
        return [(url.path, url.path, text + query)]

    def scrub(self, text: str, scope: Scope) -> Edits:
        edits: Edits = []
        start, end = _path_of(text)
        at = start
        for part in text[start:end].split("/"):
            stop = at + len(part)
            if self._is_disguised(part, scope):
                edits.append(_cut(text, at, stop))
            at = stop + 1
        return edits

    def _is_ours(self, part: str, scope: Scope) -> bool:
        return part.startswith(self.mark) and bool(scope.is_id(part[len(self.mark) :]))

    def _is_disguised(self, part: str, scope: Scope) -> bool:
        """Whether it is an id where none is taken off, or one in other letters."""
        plain = unquote(part)
        return plain.startswith(self.mark) and bool(scope.is_id(plain[len(self.mark) :]))


def edited(text: str, edits: Edits | None) -> str:
    """Return *text* with *edits* made."""
    if not edits:
        return text
    parts: list[str] = []
    at = 0
    for start, end, new in edits:
        parts += text[at:start], new
        at = end
    return "".join(parts) + text[at:]


def _parameter_edits(
    text: str,
    start: int,
    end: int,
    separator: str,
    ours: Callable[[str], bool],
    wanted: str | None = None,
) -> Edits | None:
    """Return what makes *wanted* the one parameter that is *ours*; None if none is.

    The mark before the parameters (`?` or `;`) stands at *start*. It goes with the last of them.
    """
    edits: Edits = []
    at = start + 1
    found = kept = False
    for piece in text[at:end].split(separator):
        stop = at + len(piece)
        if not ours(piece):
            kept = True
        elif wanted is not None and not found:
            found = kept = True
            if piece != wanted:
                edits.append((at, stop, wanted))
        else:
            found = True
            edits.append((at - 1, stop, "") if kept else (at, min(stop + 1, end), ""))
        at = stop + 1
    if not found:
        return None
    return edits if kept else [(start, end, "")]


def _path_of(text: str) -> tuple[int, int]:
    """Return where the path of a URL starts and ends, be it foreign or odd."""
    found = _ANY_AUTHORITY.match(text)
    start = found.end() if found else 0
    end = _AFTER_PATH.search(text, start)
    return start, end.start() if end else len(text)


def _cut(text: str, start: int, end: int) -> tuple[int, int, str]:
    """Return what takes a segment from a path, and lets nothing else become of the rest."""
    # Without the segment, what follows might be read as //host or as a scheme.
    if (
        text.startswith("/", start - 1)
        and text.startswith("/", end)
        and text[end + 1 : end + 2] not in "/\\"
    ):
        return start, end + 1, ""
    return start, end, "." if text.startswith("/", end) else ""


def _spellings(scheme: str, authority: str) -> frozenset[str]:
    """Return the ways to write the host and port of our own origin."""
    found = _HOST.fullmatch(authority.lower())
    if not found or scheme not in _DEFAULT_PORT:
        return frozenset()
    host, port = found.groups()
    if port in (None, _DEFAULT_PORT[scheme]):
        return frozenset({host, f"{host}:{_DEFAULT_PORT[scheme]}"})
    return frozenset({f"{host}:{port}"})


def _quoted(part: str) -> str:
    """Return a segment of SCRIPT_NAME, which WSGI decodes, as URLs have it."""
    return quote(part, safe=_PATH_SAFE, encoding="latin-1")


def _encoded(part: str) -> str:
    """Return a segment of a URL as a browser would send it."""
    return _ENCODED_IN_PATH.sub(_percent, part)


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def _base(scheme: str, own: bool, segments: Iterable[str], query: str | None) -> Base:
    """Return a base in the letters that a browser would send, so that it can be written out."""
    if query is not None:
        query = _ENCODED_IN_QUERY.sub(_percent, _UNSEEN.sub("", query))
    return Base(scheme, own, [_encoded(part) for part in segments], query)


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
