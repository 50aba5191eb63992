"""The leak guard: a live id on its way to where it must not go, whoever put it there.

Seven ways out are watched: a URL of another origin in a header, a header that is no place for an
id, a body that public caches may keep, a page that has browsers tell other origins its URL, a
field of a form that goes to another origin, a URL of another origin in a page, and a page with the
id of another visitor. What the links of a page that is rewritten say is the business of
`nocookie.html`, which reads them as a browser would.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from nocookie.carriers import BodyFilter, Reply, UrlCarrier
from nocookie.entities import unescaped
from nocookie.ids import GRAMMAR
from nocookie.places import InParameter, InQuery, InSegment
from nocookie.rewriting import Scope, refresh_url

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = [
    "SHORTEST",
    "BodyWatch",
    "FormWatch",
    "Guard",
    "LaterWatch",
    "PageWatch",
    "PlacedIds",
    "UrlWatch",
    "Watched",
    "is_document",
    "is_publicly_cacheable",
    "leak_in_head",
    "speaks_to_caches",
    "tells_others",
]

#: Headers that hold URLs, with what finds those in their values.
_ADDRESSES: Final = {
    "location": re.compile(r"(.+)", re.DOTALL).findall,
    "content-location": re.compile(r"(.+)", re.DOTALL).findall,
    "refresh": re.compile(r"=\s*[\"']?([^\"']*)").findall,
    "link": re.compile(r"<([^>]*)(?:>|\Z)").findall,
}

#: A URL in any other header, of the origin or with one: scripts and browsers go there, too
#: (`HX-Redirect`, `report-uri`).
_urls: Final = re.compile(r"(?<![^\s<>\"',;=])(?:https?:/)?/[^\s<>\"',;]*+")

#: What is shorter is in any response by chance: what a gateway numbers, which is a name and no key.
SHORTEST: Final = 16

#: What lets a cache keep a response for others than the one who asked (RFC 9111, 5.2.2).
_PUBLIC: Final = frozenset({"public", "s-maxage"})
_PRIVATE: Final = frozenset({"private", "no-store"})
_KEPT: Final = frozenset({"public", "max-age", "s-maxage"})

#: Beside `Cache-Control` and its like for some caches, as `CDN-Cache-Control`.
_TO_CACHES: Final = frozenset({"edge-control", "expires", "surrogate-control", "x-accel-expires"})


def leak_in_head(
    reply: Reply, id: str, scope: Scope, expected: Callable[[str], bool]
) -> str | None:
    """Return what is wrong with a head that holds *id*, without the id; None if nothing is.

    *scope* reads URLs; *expected* says whether ids travel in a header, given in lower case.
    """

    def if_foreign(url: re.Match[str]) -> str:
        return url[0] if scope.read(url[0]) is None else ""

    for name, value in reply.headerlist:
        if id not in value:
            continue
        kind = name.lower()
        find = _ADDRESSES.get(kind)
        if find is None:
            # The attributes of a cookie are not sent on: its path, say.
            told = value.partition(";")[0] if kind == "set-cookie" else _urls.sub(if_foreign, value)
            if id in told and not expected(kind):
                return f"in the header {name}"
            continue
        urls = find(value)
        if kind == "refresh":  # as a browser reads it, beside what looks like a URL in it
            urls = [refresh_url(value), *urls]
        if any(id in url and scope.read(url) is None for url in urls):
            return f"to another origin, in the header {name}"
    return None


def speaks_to_caches(name: str) -> bool:
    """Whether a header, in lower case, says how long a response may be kept: to every cache, or to
    some, for which it then counts more than what all are told (RFC 9213)."""
    return name.endswith("cache-control") or name in _TO_CACHES


def is_publicly_cacheable(reply: Reply) -> bool:
    """Whether the response invites caches to keep it for everybody."""
    is_private = is_public = is_targeted = False
    expires = None
    for name, value in reply.headerlist:
        kind = name.lower()
        if not speaks_to_caches(kind):
            continue
        words = {word.partition("=")[0].strip().lower() for word in value.split(",")}
        if kind == "cache-control":
            is_private |= not _PRIVATE.isdisjoint(words)
            is_public |= not _PUBLIC.isdisjoint(words)
        elif kind == "expires":
            expires = value
        elif kind == "x-accel-expires":
            is_targeted |= value.strip() not in ("0", "off")
        else:
            # What is for shared caches only needs not say that it is public.
            is_targeted |= _PRIVATE.isdisjoint(words) and bool(words & _KEPT)
    return is_targeted or (not is_private and (is_public or _is_to_come(expires)))


def _is_to_come(date: str | None) -> bool:
    try:
        return date is not None and parsedate_to_datetime(date).timestamp() > time.time()
    except (ValueError, OverflowError):
        return False


#: What browsers take for a page: what they show as one, and what says nothing of itself, so that
#: they look (WHATWG MIME Sniffing, 4.2 and 7).
_is_of_document: Final = re.compile(
    r"(?i)\s*+(?:text/html|text/xml|application/xml|[^;,+]*+\+xml"
    r"|(?:(?:application|unknown)/unknown|\*/\*)?[ \t]*(?:[;,]|\Z))"
).match


def is_document(reply: Reply) -> bool:
    """Whether browsers show the body as a page, which may have others be told its URL."""
    for name, value in reply.headerlist:
        if name == "Content-Type" or name.lower() == "content-type":
            return value.startswith("text/html") or _is_of_document(value) is not None
    return True


#: Referrer policies (W3C) under which another origin is told the page's whole URL, where a page
#: says them. A look only, beside what `nocookie.html` reads: the first two are found quickly.
_LAX: Final = (b"unsafe-url", b"no-referrer-when-downgrade")
_SAYS_LAX: Final = re.compile(
    rb"(?i)(?:(?:content|referrerpolicy)[\t\n\f\r ]{0,9}=[\t\n\f\r ]{0,9}"
    rb"(?:[\"']|&quot;|&#39;|&#34;)?[a-z, -]{0,80}?|referrer-policy\([\t\n\f\r ]{0,9}"
    rb"|\"referrer_policy\"[\t\n\r ]{0,9}:[\t\n\r ]{0,9}\")"
    rb"(?:unsafe-url|no-referrer-when-downgrade)"
)


def tells_others(page: bytes) -> bool:
    """Whether a stretch of a page seems to have browsers tell other origins where it came from."""
    # Not by `in`: see `PlacedIds.may_be_in`.
    lax, laxer = _LAX
    return (page.find(lax) >= 0 or page.find(laxer) >= 0) and _SAYS_LAX.search(page) is not None


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


class Watched:
    """A body goes through one filter, and what comes out of it through another."""

    def __init__(self, first: BodyFilter, then: BodyFilter) -> None:
        self.changes = first.changes or then.changes
        self._first = first
        self._then = then

    def feed(self, data: bytes) -> bytes:
        return self._then.feed(self._first.feed(data))

    def close(self) -> bytes:
        return self._then.feed(self._first.close()) + self._then.close()


# --- The ids of other visitors ------------------------------------------------------------------

#: How far before an id its URL is looked for.
_URL_REACH: Final = 256
_before_url: Final = re.compile(rb"[^\"'<>()\s]*+\Z")
_unquoted: Final = re.compile(rb"[A-Za-z-]++=(?=/|https?:|\Z)")


class PlacedIds:
    """Finds ids of ours by where they stand: where one of our carriers puts them.

    What merely looks like one is none: a key's thumbprint and a challenge of OAuth do, too.
    *is_ours* says what we may have issued. Where that is by the grammar only (*signed* is false),
    the URL has to be of the own origin.
    """

    #: What is looked for is not longer than this.
    reach = _URL_REACH + 128

    def __init__(
        self, carriers: Iterable[UrlCarrier], is_ours: Callable[[str], bool], *, signed: bool
    ) -> None:
        self._is_ours = is_ours
        self._signed = signed
        self._places: list[tuple[bytes, re.Pattern[bytes], bool]] = []
        for carrier in carriers:
            place = carrier.where
            if isinstance(place, InSegment):
                needle, before = f"/{place.mark}".encode(), rb""
            elif isinstance(place, InQuery):
                needle, before = f"{place.name}=".encode(), rb"[?&;]"
            elif isinstance(place, InParameter):
                needle, before = f";{place.name}=".encode(), rb""
            else:
                continue
            pattern = rb"%s%s(%s)(?=[^A-Za-z0-9_-])" % (before, re.escape(needle), GRAMMAR.encode())
            self._places.append((needle, re.compile(pattern), isinstance(place, InSegment)))
        self._needles = [needle for needle, _, _ in self._places]

    def may_be_in(self, text: bytes) -> bool:
        """Whether a text has anything that an id of ours stands behind."""
        # Not by `in`, which takes bytes for a number first.
        return max(map(text.find, self._needles), default=-1) >= 0

    def other_than(
        self, known: Collection[str], text: bytes, scope: Callable[[], Scope]
    ) -> str | None:
        """Return an id in a text that is none of those *known*. *scope* returns what reads URLs of
        the own origin."""
        for needle, pattern, is_path in self._places:
            # Quickly done with, as a rule: there is none, or each is one of those known. One
            # character is counted faster than two.
            count = text.count(needle[1:] if len(needle) == 2 else needle)
            if count == sum(
                [text.count(needle + id.encode()) for id in set(known)] if count else ()
            ):
                continue
            for found in pattern.finditer(text):
                id = found[1].decode()
                if id in known or not self._is_ours(id):
                    continue
                if self._signed or _is_home(text, found.start(), scope(), is_path):
                    return id
        return None


def _is_home(text: bytes, end: int, scope: Scope, is_path: bool) -> bool:
    """Whether the URL that ends here is of the own origin; of a path, the mount itself."""
    start = max(end - _URL_REACH, 0)
    before = _before_url.search(text, start, end)
    assert before is not None
    if before.start() == start > 0:
        return False  # longer than we look
    url = before[0]
    if named := _unquoted.match(url):
        url = url[named.end() :]
    if not is_path:
        return scope.stays(url.decode("latin-1"))
    mount = "".join(f"/{part}" for part in scope.mount).encode()
    return url == mount or (url.endswith(mount) and url[: len(url) - len(mount)] in scope.roots)


# --- URLs ---------------------------------------------------------------------------------------

#: How far before an id its tag is looked for.
_LINK_REACH: Final = 2048
_tag: Final = re.compile(rb"<([A-Za-z][^\t\n\f\r />]*+)").match
_attributes: Final = re.compile(
    rb"(?<![^\t\n\f\r /\"'])([^\t\n\f\r \"'<>/=]++)[\t\n\f\r ]*+=[\t\n\f\r ]*+"
    rb"(?:\"([^\"]*+)|'([^']*+)|([^\t\n\f\r >\"'][^\t\n\f\r >]*+))"
).finditer

_in_css: Final = re.compile("[\"'(]").split

#: Attributes whose URL a browser fetches or follows.
_FETCHED: Final = frozenset(
    {
        *(b"action", b"background", b"data", b"formaction", b"href", b"manifest"),
        *(b"poster", b"src", b"xlink:href"),
    }
)
#: Those with several, and more between blanks.
_LISTS: Final = frozenset({b"attributionsrc", b"imagesrcset", b"ping", b"srcset"})
#: What `nocookie.html` reads on a page that is rewritten.
_REWRITTEN: Final = frozenset(
    {
        *((b"a", b"href"), (b"area", b"href"), (b"form", b"action"), (b"iframe", b"src")),
        *((b"frame", b"src"), (b"meta", b"content"), (b"input", b"formaction")),
        (b"button", b"formaction"),
    }
)
#: What a browser asks nobody for.
_INSIDE: Final = ("about:", "blob:", "data:", "javascript:")


class LaterWatch:
    """A body passes through, and is looked at by what *make* returns once there is enough of it to
    hold an id: most answers that are no page are shorter."""

    changes = False

    def __init__(self, make: Callable[[], BodyFilter]) -> None:
        self._make = make
        self._watch: BodyFilter | None = None
        self._seen = b""

    def feed(self, data: bytes) -> bytes:
        if self._watch is not None:
            self._watch.feed(data)
            return data
        self._seen += data
        if len(self._seen) >= SHORTEST:
            self._watch = self._make()
            self._watch.feed(self._seen)
        return data

    def close(self) -> bytes:
        return b""


class UrlWatch:
    """A page passes through, and *leak* is called once, with the name of an element, if one has
    browsers send one of these ids to another origin.

    *is_own* says of a URL whether it leads to the own origin. What `nocookie.html` looks at on a
    page that is rewritten is left out for the id *told*, which it puts there.

    A look only: it reads tags as they are commonly written, and knows of no base.
    """

    changes = False

    def __init__(
        self,
        ids: Iterable[str],
        is_own: Callable[[str], bool],
        leak: Callable[[str], None],
        told: str | None = None,
    ) -> None:
        self._ids = [(id.encode(), id == told) for id in dict.fromkeys(ids)]
        self._is_own = is_own
        self._leak: Callable[[str], None] | None = leak
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        if self._leak is not None:
            seen = self._tail + data
            for id, is_told in self._ids:
                start = max(len(self._tail) - len(id) + 1, 0)
                if seen.find(id, start) >= 0:
                    self._look(seen, start, id, is_told)
            self._tail = seen[-_LINK_REACH:]
        return data

    def close(self) -> bytes:
        return b""

    def _look(self, seen: bytes, start: int, id: bytes, is_told: bool) -> None:
        at = seen.find(id, start)
        while at >= 0 and self._leak is not None:
            end, reach = at + len(id), max(at - _LINK_REACH, 0)
            sent_by = None
            if not _is_plainly_own(seen, reach, at):
                sent_by = _sent_by(seen[reach:end], self._is_own)
            if sent_by is not None and not (is_told and sent_by in _REWRITTEN):
                self._leak(sent_by[0].decode("latin-1"))
                self._leak = None
            at = seen.find(id, end)


def _is_plainly_own(page: bytes, start: int, end: int) -> bool:
    """Whether a URL begins with one slash, as those do that a framework makes under a mount."""
    at = max(page.rfind(b'"', start, end), page.rfind(b"'", start, end)) + 1
    url = page[at:end]
    return at > 0 and url[:1] == b"/" and url[1:2] not in (b"/", b"\\") and len(url.split()) == 1


def _sent_by(page: bytes, is_own: Callable[[str], bool]) -> tuple[bytes, bytes] | None:
    """Return the element and the attribute that send to another origin what the page ends in."""
    tag = _tag(page, page.rfind(b"<"))
    if tag is None:
        return None
    name, at = tag[1].lower(), tag.end()
    attribute, value = b"", page[at:] if name == b"style" else b""
    for found in _attributes(page, at):
        if page.find(b">", at, found.start()) >= 0:
            break  # text, in which there are quotes, too
        at = found.end()
        if at == len(page):
            attribute, value = found[1].lower(), found[found.lastindex or 0]
    text = unescaped(value.decode("latin-1"))
    url = ""
    if attribute == b"srcdoc":
        return _sent_by(text.encode("latin-1", "replace"), is_own)
    if attribute in _LISTS:
        url = text.split()[-1].lstrip(",")
    elif attribute == b"content":
        url = refresh_url(text)
    elif attribute in _FETCHED:
        url = text
    elif name == b"style" or attribute == b"style" or "url(" in text.lower():
        url = _in_css(text)[-1]
    url = url.lstrip("\"' \t\n\f\r")  # in the document of a frame, quotes are references
    if not url or url.lower().startswith(_INSIDE) or is_own(url):
        return None
    return name, attribute


# --- Forms --------------------------------------------------------------------------------------

_FORM_REACH: Final = 2048
_form_tags: Final = re.compile(
    rb"(?i)<(/?)(form|input|button|textarea|option)(?=[\t\n\f\r />])([^<>]*+)(>[^<]*+)?"
).finditer
_VALUE: Final = rb"[\t\n\f\r ]*+=[\t\n\f\r ]*+(\"[^\"]*+|'[^']*+|[^\t\n\f\r >]*+)"
_action: Final = re.compile(rb"(?i)[\t\n\f\r /\"'](?:form)?action" + _VALUE).search
#: By the word as it is commonly written, which is found quickly.
_actions: Final = [(word, re.compile(word + _VALUE).finditer) for word in (b"action", b"ACTION")]
_value: Final = re.compile(rb"(?i)[\t\n\f\r /\"']value" + _VALUE).search


class FormWatch:
    """A page passes through, and *leak* is called once if a form that leads to another origin has
    a field with one of these ids in it.

    A look only: it reads tags as they are commonly written.
    """

    changes = False

    def __init__(
        self,
        ids: Iterable[str],
        is_own: Callable[[str], bool],
        leak: Callable[[], None],
        may_lead_away: Callable[[], bool] | None = None,
    ) -> None:
        self._ids = [id.encode() for id in ids]
        self._is_own = is_own
        #: What knows better than a look whether there is such a form.
        self._knows = may_lead_away
        self._leak: Callable[[], None] | None = leak
        self._tail = b""
        #: Of the form that is open: whether it leads to another origin, whether an id is in it.
        self._leads_away = self._has_id = False

    def feed(self, data: bytes) -> bytes:
        if self._leak is not None:
            seen = self._tail + data
            done = 0
            if self._leads_away or self._has_id or self._may_lead_away(seen):
                done = self._look(seen)
            self._tail = seen[max(done, len(seen) - _FORM_REACH) :]
        return data

    def close(self) -> bytes:
        return b""

    def _may_lead_away(self, seen: bytes) -> bool:
        if self._knows is not None:
            return self._knows()
        return any(seen.find(id) >= 0 for id in self._ids) and any(
            not self._is_home(found[1])
            for word, find in _actions
            if word in seen
            for found in find(seen)
        )

    def _is_home(self, written: bytes) -> bool:
        url = written.lstrip(b"\"'")
        if url[:1] == b"/" and url[1:2] not in (b"/", b"\\") and b"&" not in url:
            return True
        return self._is_own(unescaped(url.decode("latin-1")))

    def _look(self, seen: bytes) -> int:
        """Return up to where all tags are done with."""
        done = 0
        for tag in _form_tags(seen):
            if tag.end() == len(seen) and len(seen) - tag.start() < _FORM_REACH:
                break  # more may follow
            done = tag.end()
            self._on_tag(tag)
            if self._leads_away and self._has_id and self._leak is not None:
                self._leak()
                self._leak = None
        return done

    def _on_tag(self, tag: re.Match[bytes]) -> None:
        name, attributes, text = tag[2].lower(), tag[3], tag[4] or b""
        if name == b"form":
            self._leads_away = self._has_id = False
        if tag[1]:
            return
        action = _action(attributes) if name in (b"form", b"button", b"input") else None
        if action is not None:
            self._leads_away |= not self._is_home(action[1])
        if name != b"form":
            value = _value(attributes)
            held = (value[1] if value else b"") + (
                text if name in (b"textarea", b"option") else b""
            )
            self._has_id |= any(id in held for id in self._ids)


# --- A page -------------------------------------------------------------------------------------


class Guard(Protocol):
    """What knows the ids of a visitor, and whom to tell."""

    placed_ids: PlacedIds

    def known_ids(self, environ: WSGIEnvironment, used: Sequence[str | None]) -> list[str]:
        """Return the ids in the request's URL that could be ours, and those *used*."""
        ...

    def home(self, environ: WSGIEnvironment) -> Scope:
        """Return what reads URLs of the own origin."""
        ...

    def leak(self, why: str, id: str | None) -> None:
        """Report an id on its way to where it must not go. Raises `IdLeak` if that is asked for."""
        ...


#: What a page needs at least to say a policy; an id is longer.
_SHORTEST_POLICY: Final = len("content=unsafe-url")


class PageWatch:
    """The page of a visitor passes through, and is looked at: for an id of another visitor, for a
    field of a form that takes an id of this one to another origin, and with *told* given, for a
    policy by which browsers tell other origins that id, as it is in the page's URL.

    Each is reported at most once. *used* is as for `Guard.known_ids`; what the page goes through
    before is *rewriter*.
    """

    __slots__ = (
        *("_came", "_environ", "_forms", "_guard", "_has_others", "_home", "_is_suspect"),
        "_rewriter",
        *("_tail", "_told", "_used", "changes"),
    )

    def __init__(
        self,
        guard: Guard,
        environ: WSGIEnvironment,
        used: Sequence[str | None],
        told: str | None,
        rewriter: BodyFilter | None,
    ) -> None:
        self._guard = guard
        self._environ = environ
        #: What reads URLs of the own origin, once that was needed: the address may be long.
        self._home: Scope | None = None
        self._used = used
        # Who rewrites a page tightens its policies.
        self.changes = rewriter is not None and rewriter.changes
        self._told = None if self.changes else told
        self._rewriter = rewriter
        self._has_others = False
        #: Made when a page may have such a form: most have none.
        self._forms: FormWatch | None = None
        self._tail = b""
        #: Whether there may be an id of another visitor. What a rewriter puts on links is none, so
        #: there what came counts.
        self._is_suspect = not self.changes
        self._came = b""

    def feed(self, data: bytes) -> bytes:
        if self._rewriter is not None:
            if not self._is_suspect:
                came = self._came + data
                self._is_suspect = self._guard.placed_ids.may_be_in(came)
                self._came = came[-_URL_REACH:]
            data = self._rewriter.feed(data)
        self._look(data)
        return data

    def close(self) -> bytes:
        rest = b"" if self._rewriter is None else self._rewriter.close()
        self._look(rest)
        return rest

    def _look(self, data: bytes) -> None:
        seen = self._tail + data
        self._tail = seen[-_FORM_REACH:]
        if len(seen) < _SHORTEST_POLICY:
            return
        guard = self._guard
        if self._told is not None and tells_others(seen):
            told, self._told = self._told, None
            guard.leak("in a Referer: by a policy that the page asks for", told)
        if self._is_suspect and not self._has_others and guard.placed_ids.may_be_in(seen):
            other = guard.placed_ids.other_than(self._known(), seen, self._where)
            if other is not None:
                self._has_others = True
                guard.leak("to another visitor, in a page", other)
        if self._forms is not None:
            self._forms.feed(data)
        elif self._may_lead_away(seen):
            self._look_at_forms(seen)

    def _where(self) -> Scope:
        if self._home is None:
            self._home = self._guard.home(self._environ)
        return self._home

    def _known(self) -> list[str]:
        return self._guard.known_ids(self._environ, self._used)

    def _leads_away(self) -> bool:
        # Who rewrites a page knows better than a look.
        return bool(getattr(self._rewriter, "leads_away", True))

    def _may_lead_away(self, seen: bytes) -> bool:
        if self.changes:
            return self._leads_away()
        return any(seen.find(id.encode()) >= 0 for id in self._known())

    def _look_at_forms(self, seen: bytes) -> None:
        known, guard = self._known(), self._guard
        if known:
            leak = partial(guard.leak, "in a field of a form to another origin", known[0])
            knows = self._leads_away if self.changes else None
            self._forms = FormWatch(known, lambda url: self._where().stays(url), leak, knows)
            self._forms.feed(seen)
