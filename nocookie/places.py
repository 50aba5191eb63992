"""The places of an id in a URL: a query parameter, a path parameter, a path segment.

Each edits a `Reference`, a URL of which `nocookie.rewriting` has found that it leads inside the
scope.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, unquote, unquote_plus

if TYPE_CHECKING:
    from nocookie.rewriting import Scope

__all__ = [
    "BLANK",
    "FROM_BASE",
    "FROM_DOTS",
    "UNSEEN",
    "Base",
    "Edits",
    "InParameter",
    "InQuery",
    "InSegment",
    "Place",
    "Reference",
    "Segment",
    "edited",
]

T = TypeVar("T")

#: What changes in a text: (from, to, what stands there instead), in order, without overlap.
Edits = list[tuple[int, int, str]]


#: What a browser takes out of a URL wherever it is.
UNSEEN: Final = re.compile(r"[\t\n\r]")
#: What it strips from both ends of one (WHATWG URL, "C0 control or space").
BLANK: Final = "".join(map(chr, range(0x21)))
_SLASHES: Final = re.compile(r"[/\\]")
_ANY_AUTHORITY: Final = re.compile(
    r"[\x00-\x20]*+(?:[A-Za-z][A-Za-z0-9+.\-\t\n\r]*+:)?+(?:[\t\n\r]*+[/\\]){2,}+[^/\\?#]*+"
)
_AFTER_PATH: Final = re.compile("[?#]")
_EMPTY_OR_DOTS: Final = re.compile(r"(?:\.|%2[eE]){0,2}")


class Segment(NamedTuple):
    """One segment of a resolved path."""

    text: str
    #: Where the URL writes it; `FROM_BASE` if the base has it; `FROM_DOTS` for the empty one
    #: that a dot segment at the end leaves.
    at: int


FROM_BASE: Final = -1
FROM_DOTS: Final = -2


class Base:
    """What relative URLs are resolved against: a page has many, so what they all ask is kept."""

    __slots__ = ("_inherited", "_known", "own", "query", "scheme", "segments")

    def __init__(self, scheme: str, own: bool, segments: Sequence[str], query: str | None) -> None:
        self.scheme = scheme
        #: Whether it has the page's origin. If not, no relative URL does.
        self.own = own
        self.segments = segments
        self.query = query
        self._inherited: list[Segment] | None = None
        self._known: dict[str, Any] = {}

    @property
    def inherited(self) -> list[Segment]:
        """Its segments as those of a URL: not to be changed."""
        if self._inherited is None:
            self._inherited = [Segment(part, FROM_BASE) for part in self.segments]
        return self._inherited

    def once(self, what: str, find: Callable[[], T]) -> T:
        """Return what *find* returned when *what* was asked first."""
        if what not in self._known:
            self._known[what] = find()
        found: T = self._known[what]
        return found


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

    #: The field by which a GET form carries it, if its action cannot.
    field: str | None

    def put(self, url: Reference, scope: Scope) -> Edits | None:
        """Return what gives *url* this id and no other; None if it should be left alone."""
        ...

    def pieces(self, scope: Scope) -> tuple[bytes, bytes]:
        """Return what `put` puts into a URL of a page that is as plain as can be; and into one
        that has a query, if that is different."""
        ...

    def take(self, url: Reference, scope: Scope) -> Edits | None:
        """Return what takes the id from *url*, whichever it is."""
        ...

    def scrub(self, text: str, scope: Scope) -> Edits:
        """Return what takes anything that is an id by grammar from a URL that may be foreign."""
        ...


class InQuery:
    """The id in a query parameter: `/cart?sid=<id>`."""

    field: str | None

    def __init__(self, name: str = "sid") -> None:
        self.name = self.field = name
        self._written = quote(name, safe="")

    def pieces(self, scope: Scope) -> tuple[bytes, bytes]:
        pair = f"{self._written}={scope.id}".encode()
        return b"?" + pair, b"&amp;" + pair

    def put(self, url: Reference, scope: Scope) -> Edits | None:
        pair = f"{self._written}={scope.id}"
        if url.has_query:
            return self._replaced(url.text, url.query, url.fragment, pair)
        if url.inherits and url.base.query is not None:
            # To give only our own parameter would drop those of the page.
            query = "?" + url.base.query
            edits = url.base.once("query", lambda: self._replaced(query, 0, len(query), pair))
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
        was_last = edits == [(url.query, url.fragment, "")]
        if was_last and (url.inherits or url.text[url.query - 1] == " "):
            # Without its question mark it would inherit the query of the page, or lose a blank.
            return [(url.query + 1, url.fragment, "")] if url.query + 1 < url.fragment else []
        return edits

    def scrub(self, text: str, scope: Scope) -> Edits:
        _, query = _path_of(text)
        fragment = text.find("#", query)
        end = len(text) if fragment < 0 else fragment
        if not text.startswith("?", query):
            return []

        def is_id(piece: str) -> bool:
            value = unquote_plus(UNSEEN.sub("", piece.partition("=")[2]))
            return bool(scope.is_id(value.strip(BLANK)))

        return _parameter_edits(text, query, end, "&", is_id) or []

    def _is_ours(self, piece: str) -> bool:
        name = piece.partition("=")[0]
        return unquote_plus(UNSEEN.sub("", name)) == self.name


class InParameter:
    """The id in a parameter of the last path segment: `/cart;sid=<id>`."""

    field: str | None = None

    def __init__(self, name: str = "sid") -> None:
        self.name = name
        self._written = quote(name, safe="")

    def pieces(self, scope: Scope) -> tuple[bytes, bytes]:
        return f";{self._written}={scope.id}".encode(), b""

    def put(self, url: Reference, scope: Scope) -> Edits | None:
        pair = f"{self._written}={scope.id}"
        *directories, last = url.segments
        if len(url.segments) == len(scope.mount):
            return None  # /shop;sid=... is not below /shop
        kept = sum(part.at == FROM_BASE for part in directories)
        if kept and url.base.once("marked", lambda: self._first_marked(url.base)) < kept:
            return None
        if any(self._is_in(part.text) for part in directories[kept:]):
            return None
        if url.inherits:
            edits = url.base.once(
                "last", lambda: self._replaced(last.text, 0, len(last.text), pair)
            )
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
            value = unquote(UNSEEN.sub("", piece.partition("=")[2]))
            return bool(scope.is_id(value.strip(BLANK)))

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

    def _first_marked(self, base: Base) -> int:
        """Return which segment of a base is the first that has our parameter; if none, beyond."""
        marked = (at for at, part in enumerate(base.segments) if self._is_in(part))
        return next(marked, len(base.segments))

    def _is_in(self, segment: str) -> bool:
        return any(map(self._is_ours, segment.split(";")[1:]))

    def _is_ours(self, piece: str) -> bool:
        return unquote(piece.partition("=")[0]) == self.name


class InSegment:
    """The id in a segment of its own, the first below the mount: `/~<id>/cart`."""

    field: str | None = None

    def __init__(self, mark: str = "~") -> None:
        self.mark = mark

    def pieces(self, scope: Scope) -> tuple[bytes, bytes]:
        return f"{self.mark}{scope.id}/".encode(), b""

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
        # To a browser a backslash is a slash.
        for part in _SLASHES.split(text[start:end]):
            stop = at + len(part)
            if self._is_disguised(UNSEEN.sub("", part).strip(BLANK), scope):
                edits.append(_cut(text, at, stop))
            at = stop + 1
        return edits

    def _is_ours(self, part: str, scope: Scope) -> bool:
        return part.startswith(self.mark) and bool(scope.is_id(part[len(self.mark) :]))

    def _is_disguised(self, part: str, scope: Scope) -> bool:
        """Whether it is an id where none is taken off, or one in other letters."""
        if len(part) > 3 * len(self.mark + scope.id):  # be it all in percents
            return False
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
    follows = text.startswith("/", end) and not text.startswith(("/", "\\"), end + 1)
    if follows and text.startswith("/", start - 1):
        return start, end + 1, ""
    return start, end, "." if text.startswith("/", end) else ""
