"""How an id travels: find it in a request, place it in a response, forget it.

A *finder* is a callable `find_id(request) -> str | None`. A *carrier* is a finder that can give
the id back, three verbs in one object so that they cannot drift apart. Each says where its id
can leak; the header is the recommended one.

What `find` returns is checked by the manager before anything else sees it. A carrier that meets
several different ids raises `AmbiguousId` with all of them: choosing one would let whoever can add
a parameter choose the session.
"""

from __future__ import annotations

import importlib
import io
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable
from urllib.parse import quote, unquote, unquote_plus

from webob import Request
from webob.cookies import make_cookie
from webob.headers import ResponseHeaders

from nocookie.errors import ConfigError
from nocookie.ids import GRAMMAR
from nocookie.options import is_token
from nocookie.request import DIRECT, TAKEN, Deployment, Received, received, take_ids
from nocookie.request import Request as RequestView
from nocookie.rewriting import InParameter, InQuery, InSegment, Place

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = [
    "SCHEMES",
    "USUAL",
    "AmbiguousId",
    "AskedHeader",
    "Bearer",
    "BodyFilter",
    "Callback",
    "Carrier",
    "Cookie",
    "FirstOf",
    "Form",
    "Header",
    "PathParam",
    "PathSegment",
    "Query",
    "RawCarrier",
    "Reply",
    "UrlCarrier",
    "carriers_from",
]

Finder = Callable[[Request], "str | None"]


class AmbiguousId(Exception):
    """A carrier found several different *ids* in one request. What cannot be ours among them is
    left out; of the rest the one that the store knows counts, if there is one alone."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        super().__init__("several different ids")
        #: The ids, each once, as they came.
        self.ids = tuple(ids)


#: Headers of nearly every response, as they are commonly written. Who looks for others is quickly
#: done with these.
USUAL: Final = frozenset(
    {"Content-Type", "Content-Length", "Content-Language", "Content-Encoding", "Vary"}
)


class BodyFilter(Protocol):
    """What a body goes through on its way out."""

    #: False for one that only looks: what goes through stays as it is.
    changes: bool

    def feed(self, data: bytes, /) -> bytes: ...
    def close(self) -> bytes:
        """Return what was held back."""
        ...


class Reply:
    """The head of a response, as a carrier may change it. Named as in `webob.Response`."""

    __slots__ = ("as_it_is", "body", "deployment", "environ", "headerlist", "rewriter", "status")

    def __init__(
        self,
        status: str,
        headerlist: list[tuple[str, str]],
        environ: WSGIEnvironment,
        as_it_is: bool = False,
        body: Iterable[bytes] | None = None,
    ) -> None:
        self.status = status
        self.headerlist = headerlist
        #: The environ of the request that is answered.
        self.environ = environ
        #: The body goes out as it is: the server sends a file by itself, say.
        self.as_it_is = as_it_is
        #: The body where all of it is there already, to be looked at as often as is needed.
        self.body = body
        #: What is between the client and us: the manager that commits knows.
        self.deployment: Deployment = DIRECT
        #: What the body has to go through: it puts the id on the links of a page.
        self.rewriter: BodyFilter | None = None

    @property
    def headers(self) -> ResponseHeaders:
        """A mapping over `headerlist`; to change one is to change the other."""
        return ResponseHeaders.view_list(self.headerlist)

    @property
    def request(self) -> RequestView:
        """The request that is answered."""
        return RequestView(self.environ, self.deployment)

    def announce(self, name: str, id: str) -> None:
        """Give the client its id in a header, which browser code of another origin may then
        read (Fetch, section 3.3.2); not where ids need HTTPS and that code came without."""
        self.set(name, id)
        origin = self.environ.get("HTTP_ORIGIN")
        if origin is None:
            return
        is_plain = self.deployment.requires_https and origin[:5].lower() == "http:"
        if not is_plain and origin.lower() != self.request.origin:
            self.add_word("Access-Control-Expose-Headers", name)

    def set(self, name: str, value: str) -> None:
        """Set a header, in place of what there is of it."""
        wanted, size = name.lower(), len(name)
        headers = self.headerlist
        for there, _ in headers:
            if len(there) == size and there.lower() == wanted:
                headers[:] = [pair for pair in headers if pair[0].lower() != wanted]
                break
        headers.append((name, value))

    def add_word(self, name: str, word: str) -> None:
        """Add *word* to a header that is a list, unless it or `*` is there."""
        wanted, size = name.lower(), len(name)
        for header, _ in self.headerlist:
            if len(header) == size and header.lower() == wanted:
                break
        else:
            self.headerlist.append((name, word))
            return
        there = [value for header, value in self.headerlist if header.lower() == wanted]
        words = [part.strip() for value in there for part in value.split(",")]
        if "*" not in words and word.lower() not in map(str.lower, words):
            self.set(name, ", ".join([*words, word]))


@runtime_checkable
class Carrier(Protocol):
    """What a carrier has to have. Third parties need not inherit from anything here.

    Optional attributes: `vary`, the request header it reads (for `Vary`); `in_url`, true where
    the id is part of a URL; `prepare(environ)`, called before the application runs, for what
    must be read or taken away before it sees the request: it returns None, or a URL reference
    that the client is sent to instead.
    """

    def find(self, request: Request) -> str | None:
        """Return what the client sent as its id, unchecked; None if it sent nothing."""
        ...

    def place(self, id: str, reply: Reply) -> bool:
        """Give the client its id with this response; False if this response cannot carry it."""
        ...

    def forget(self, reply: Reply) -> None:
        """Make the client drop an id that has ended, where the carrier can do that."""
        ...


class RawCarrier:
    """A carrier that reads the environ itself: a WebOb request would cost more than the rest
    of the look-up together."""

    vary: str | None = None
    in_url = False

    def read(self, environ: WSGIEnvironment) -> str | None:
        raise NotImplementedError

    def find(self, request: Request) -> str | None:
        return self.read(request.environ)

    def place(self, id: str, reply: Reply) -> bool:
        return False

    def forget(self, reply: Reply) -> None:
        """Nothing in the client keeps the id by itself."""


#: What a client without an id sends, to be given one in a header.
ASKING: Final = "new"


class Header(RawCarrier):
    """The id in a request header, and in the response header of the same name.

    Leaks: to where a client is redirected. Clients take headers that were set by hand to other
    origins; `Bearer` most of them do not. Else hardly: such headers are seldom logged, never part
    of a URL, and never sent by a browser without a script that means to.
    """

    def __init__(self, name: str = "X-Session-Id") -> None:
        self.name = self.vary = _token(name, "a header name")
        self._key = "HTTP_" + name.upper().replace("-", "_")

    def read(self, environ: WSGIEnvironment) -> str | None:
        text: str | None = environ.get(self._key)
        if text is not None and "," in text:
            # Servers join repeated headers by commas, which no id contains. A comma that joins
            # nothing is another spelling, and opens nothing.
            parts = [part.strip() for part in text.split(",")]
            if all(parts):
                return _only(parts)
        return text

    def place(self, id: str, reply: Reply) -> bool:
        reply.announce(self.name, id)
        return True

    def __repr__(self) -> str:
        return f"Header({self.name!r})"


class AskedHeader(Header):
    """As `Header`, for the clients among others that ask for it: by sending this header, with their
    id or, as long as they have none, with the word `new`.

    Only they are given an id in it. So in a list before a cookie, programs get their id in the
    header, and browsers theirs in the cookie. Leaks: as `Header`.
    """

    def read(self, environ: WSGIEnvironment) -> str | None:
        text: str | None = environ.get(self._key)
        if text is None or text.strip().lower() == ASKING:
            return None
        return super().read(environ)

    def place(self, id: str, reply: Reply) -> bool:
        return self._key in reply.environ and super().place(id, reply)

    def __repr__(self) -> str:
        return f"AskedHeader({self.name!r})"


class Bearer(RawCarrier):
    """The id as a bearer token (RFC 6750): `Authorization: Bearer <id>`.

    Other schemes, `Basic` among them, are no id. A response has no header to answer in, so a
    new id is announced in `id_header`. Leaks: less than `Header`: proxies know to hide this one,
    and most clients drop it when they are redirected to another origin.
    """

    vary = "Authorization"

    def read(self, environ: WSGIEnvironment) -> str | None:
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    def __repr__(self) -> str:
        return "Bearer()"


class UrlCarrier(RawCarrier):
    """A carrier whose id is part of the URL.

    What it finds it takes out of environ before the application runs: see `nocookie.request`.
    The id goes back on links, by `session.url` and `rewrite`, and never to another origin.
    """

    in_url = True
    #: Where in a URL the id goes.
    where: Place
    #: Where the id stands, for the ids that were taken: not the carrier, because a second
    #: middleware may look in the same place with a carrier of its own.
    place_in_url: str

    def prepare(self, environ: WSGIEnvironment) -> str | None:
        """Take the ids of this request. Return where to send the client instead, if anywhere."""
        raise NotImplementedError

    def bare(self, url: str) -> str:
        """Return *url* without the id, or *url* itself."""
        raise NotImplementedError

    def read(self, environ: WSGIEnvironment) -> str | None:
        there: Received | None = environ.get(TAKEN)
        return None if there is None else _only(there.ids.get(self.place_in_url, ()))

    def find(self, request: Request) -> str | None:
        self.prepare(request.environ)
        return self.read(request.environ)


class Query(UrlCarrier):
    """The id in a query parameter.

    Leaks: by history, bookmarks, shared links, logs and `Referer`. Responses get
    `Referrer-Policy` and `Cache-Control: no-store`, and the parameter is taken out of environ;
    prefer a header where the client can.
    """

    def __init__(self, name: str = "sid") -> None:
        self.name = _token(name, "a parameter name")
        self.place_in_url = f"query:{name}"
        self.where = InQuery(name)
        self._is_escaped = re.compile(rf"(?:amp;)++{re.escape(name)}").fullmatch

    def prepare(self, environ: WSGIEnvironment) -> str | None:
        received(environ)
        if "HTTP_REFERER" in environ:
            RequestView(environ).strip_referer(self.bare)
        query = environ.get("QUERY_STRING", "")
        ids, rest = _split_query(query, self.name)
        escaped, rest = self._split_escaped(rest) if "amp" in rest else ((), rest)
        if ids or escaped:
            environ["QUERY_STRING"] = rest
        if ids:
            take_ids(environ, self.place_in_url, ids, self.bare)
        # In the path there is a question mark only where one was written in percents.
        in_path = environ.get("PATH_INFO", "").partition("?")[2]
        misplaced = _split_query(in_path, self.name)[0] if in_path else ()
        if escaped or misplaced:
            RequestView(environ).hide_ids(escaped + misplaced, self.bare)
        return None

    def _split_escaped(self, query: str) -> tuple[tuple[str, ...], str]:
        """As `_split_query`, for what a page's source has: `&amp;sid=`. It counts for nothing."""
        values, rest = [], []
        for part in query.split("&"):
            written, _, value = part.partition("=")
            if self._is_escaped(unquote_plus(written)):
                values.append(unquote_plus(value))
            else:
                rest.append(part)
        return tuple(values), "&".join(rest)

    def bare(self, url: str) -> str:
        address, hash, fragment = url.partition("#")
        path, _, query = address.partition("?")
        _, rest = _split_query(query, self.name)
        if "amp" in rest:
            _, rest = self._split_escaped(rest)
        return path + ("?" + rest if rest else "") + hash + fragment if rest != query else url

    def __repr__(self) -> str:
        return f"Query({self.name!r})"


def _split_query(query: str, name: str) -> tuple[tuple[str, ...], str]:
    """Return the values of the parameter *name*, and the rest of the query as it was."""
    if name not in query and "%" not in query:  # a name may be written in percents
        return (), query
    is_coded = "%" in query or "+" in query
    values, rest = [], []
    for part in query.split("&"):
        written, _, value = part.partition("=")
        if written == name or (is_coded and unquote_plus(written) == name):
            values.append(unquote_plus(value) if is_coded else value)
        else:
            rest.append(part)
    return tuple(values), "&".join(rest)


#: What a query may consist of: whatever can be seen.
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))

_is_id: Final = re.compile(GRAMMAR, re.ASCII).fullmatch

#: No path of a page has one, and not every rule of a guard in front sees past one.
_control: Final = re.compile(r"[\x00-\x1f\x7f]").search


class PathSegment(UrlCarrier):
    """The id as the first segment of the path below the mount: `/~<id>/`.

    The segment moves from PATH_INFO to SCRIPT_NAME, so every framework's own URL generator
    carries the id without any rewriting. Only this one form counts, exactly once, as it was sent:
    written otherwise (encoded, after dots or a second slash, doubled, before a control character)
    the path leads where it led, so nothing in front of the application is led to see another path
    than the application sees (CVE-2023-36899). `/~<id>` alone is sent to `/~<id>/`.

    Leaks: as `Query`; and SCRIPT_NAME has to keep the id, which `nocookie.logs` masks.
    """

    def __init__(self, marker: str = "~") -> None:
        if not isinstance(marker, str) or not re.fullmatch(r"[A-Za-z0-9._~!$'()*,:@-]+", marker):
            raise ConfigError(f"{marker!r} cannot begin a segment of a path")
        if ":" in marker:
            raise ConfigError(
                f"the marker {marker!r} has a colon: in a link that begins with it browsers see "
                "the scheme of another URL; take a full stop, say"
            )
        self.marker = marker
        self.place_in_url = f"path:{marker}"
        self.where = InSegment(marker)
        self._mark = f"/{marker}"
        segment = f"/{re.escape(marker)}({GRAMMAR})"
        # After it: the end, or a segment that is neither dots nor an id again.
        self._first = re.compile(
            rf"{segment}(?:/(?!\.{{1,2}}(?:/|\Z)|{segment[1:]}(?:/|\Z))|\Z)", re.ASCII
        ).match
        anywhere = re.compile(rf"{segment}(?=[/?#]|\Z)", re.ASCII)
        self._anywhere = anywhere.sub
        # In a path that begins with one, and does not go on as it should.
        self._odd = re.compile(rf"{segment}(?![A-Za-z0-9_-])", re.ASCII).findall

    def prepare(self, environ: WSGIEnvironment) -> str | None:
        received(environ)
        if "HTTP_REFERER" in environ:
            RequestView(environ).strip_referer(self.bare)
        path: str = environ.get("PATH_INFO", "")
        found = self._first(path)
        if found is None:
            odd = self._odd(path) if path.startswith(f"/{self.marker}") else ()
            if odd:
                RequestView(environ).hide_ids(tuple(odd), self.bare)
            elif self._mark in path and self.bare(path) != path:
                received(environ).has_hidden = True
            return None
        id = found[1]
        segment = f"/{self.marker}{id}"
        request = RequestView(environ)
        if _control(path) or not self._was_sent(segment, request):
            request.hide_ids((id,), self.bare)
            return None
        if path == segment:
            # In the letters that a browser would send: the query is the client's.
            query = quote(
                environ.get("QUERY_STRING", ""),
                safe=_PRINTABLE,
                encoding="latin-1",
                errors="replace",
            )
            return f"{segment[1:]}/{'?' + query if query else ''}"
        root = environ.get("SCRIPT_NAME", "").rstrip("/")
        request.relocate(root + segment, path[len(segment) :])
        take_ids(environ, self.place_in_url, (id,), self.bare)
        return None

    def _was_sent(self, segment: str, request: RequestView) -> bool:
        """Whether what was sent begins with the mount and this segment, and goes on as the decoded
        path does: else somebody in front of us saw another path. True where the server does not
        tell."""
        sent = request.sent_path
        if sent is None:
            return True
        before, _, _ = sent.partition(segment)
        rest = sent[len(before) :]
        # Dots or another id may be written in percents.
        return bool(
            request.is_mounted_at(before) and self._first(rest) and self._first(unquote(rest))
        )

    def bare(self, url: str) -> str:
        return self._anywhere("", url)

    def __repr__(self) -> str:
        return f"PathSegment({self.marker!r})"


#: What ends a segment of a path; kept by `split`, as it is a group.
_ENDS_SEGMENT: Final = re.compile(r"([/?#])")
#: A segment that leads to another one.
_DOTS: Final = re.compile(r"(?:\.|%2[eE]){1,2}")
#: What URLs write as it is wherever it stands (RFC 3986, 2.3).
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]+")


class PathParam(UrlCarrier):
    """The id as a parameter of the last segment of the path: `/page;sid=<id>`, as servlets do.

    Only of the last segment: elsewhere it stays, and no `;` but ours is touched, so a filter in
    front and the application agree on the path (CVE-2018-1199 is what happens else). Some
    proxies refuse every `;`. Leaks: as `Query`.
    """

    def __init__(self, name: str = "sid") -> None:
        self.name = _token(name, "a parameter name")
        if not _UNRESERVED.fullmatch(name):
            raise ConfigError(
                f"{name!r} is written otherwise in a path: the name of its parameter consists of "
                "letters, digits, and - . _ ~"
            )
        self.place_in_url = f"param:{name}"
        self.where = InParameter(name)
        self._params = re.compile(rf";{re.escape(name)}=([^;/?#]*)")
        self._mark = f";{name}="

    def prepare(self, environ: WSGIEnvironment) -> str | None:
        received(environ)
        if "HTTP_REFERER" in environ:
            RequestView(environ).strip_referer(self.bare)
        path: str = environ.get("PATH_INFO", "")
        folder, slash, last = path.rpartition("/")
        ids = tuple(self._params.findall(last))
        if not ids:
            if self._mark in path and any(map(_is_id, self._params.findall(path))):
                received(environ).has_hidden = True
            return None
        request = RequestView(environ)
        sent = (request.sent_path or path).rpartition("/")[2]
        if len(self._params.findall(sent)) == len(ids):
            bare = folder + slash + self._without(last)
            request.relocate(environ.get("SCRIPT_NAME", ""), bare)
            take_ids(environ, self.place_in_url, ids, self.bare)
        else:
            request.hide_ids(ids, self.bare)
        return None

    def bare(self, url: str) -> str:
        if self._mark not in url:
            return url
        # Piece by piece: a pattern that looked ahead for what ends a segment would do so again for
        # each parameter in it.
        pieces = _ENDS_SEGMENT.split(url)
        for at in range(0, len(pieces), 2):
            if pieces[at + 1 : at + 2] != ["/"]:
                pieces[at] = self._without(pieces[at])
        return "".join(pieces)

    def _without(self, segment: str) -> str:
        """Return a segment without the id. Where dots are left, a filter in front has seen none:
        a `;` behind them keeps them from leading elsewhere."""
        bare = self._params.sub("", segment)
        return f"{bare};" if bare != segment and _DOTS.fullmatch(bare) else bare

    def __repr__(self) -> str:
        return f"PathParam({self.name!r})"


#: A form with an id in it is small; a body that is larger is somebody's upload.
FORM_LIMIT: Final = 65536


#: Where a form waits between `prepare` and `read`.
_FORM: Final = "nocookie.form"


class _Posted:
    """The body of a form, kept in environ. It may hold an id, so it is not shown."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __repr__(self) -> str:
        return "<the form as it was received>"


class Form(RawCarrier):
    """The id in a field of an urlencoded form, posted with up to 64 KiB.

    The body is read before the application runs, which may read it by whatever means it has, and
    is given to it whole. Leaks: not by URL; by the page that holds the field, when it is saved or
    cached. Multipart forms are not read.
    """

    def __init__(self, name: str = "sid") -> None:
        self.name = _token(name, "a field name")

    def prepare(self, environ: WSGIEnvironment) -> None:
        kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded" or _FORM in environ:
            return
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            return
        if 0 < length <= FORM_LIMIT:
            body = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(body)
            environ[_FORM] = _Posted(body)

    def read(self, environ: WSGIEnvironment) -> str | None:
        there: _Posted | None = environ.get(_FORM)
        text = "" if there is None else there.body.decode("latin-1")
        return _only(_split_query(text, self.name)[0])

    def find(self, request: Request) -> str | None:
        self.prepare(request.environ)
        return self.read(request.environ)

    def __repr__(self) -> str:
        return f"Form({self.name!r})"


#: Names that promise something of a cookie (RFC 6265bis, 4.1.3), in any case.
_PREFIX: Final = re.compile(r"(?i)__(?:Secure|Host-Http|Host|Http)-")

#: For a cookie that is to last: longer than any browser keeps one (RFC 6265bis: 400 days).
NEVER: Final = timedelta(days=3650)
#: The end of the year 9999: the last that a date in a header can say.
_LAST_DATE: Final = 253_402_300_799


#: A name that has parents, and no address of the Internet Protocol.
_is_name: Final = re.compile(r"(?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]{0,62}").fullmatch
#: What a cookie's path can be written of.
_is_cookie_path: Final = re.compile(r"/[\w.~!$&'()*+,=:@%/-]{0,200}", re.ASCII).fullmatch
#: Parents of a host that a cookie may have been set for, the host itself and none among them.
MOST_DOMAINS: Final = 4


class Cookie(RawCarrier):
    """The id in a cookie, for clients that keep one. With a `secret` the id is signed, as every
    id is.

    *expires* says when the browser drops it: True, at the end of its own session; False, never;
    a timedelta, so long after the last use; a datetime, then (in UTC unless it
    says otherwise). *partitioned*: in a frame the browser keeps it for the site around the frame
    alone (CHIPS), where it keeps no other cookie of a third party.

    Leaks: not to scripts (`HttpOnly`), not to other sites (`SameSite`).
    """

    vary = "Cookie"

    def __init__(
        self,
        name: str = "nocookie.session.id",
        *,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = True,
        samesite: str | None = "Lax",
        partitioned: bool = False,
        expires: bool | timedelta | datetime = True,
    ) -> None:
        self.name = _token(name, "a cookie name")
        if isinstance(expires, datetime) and expires.tzinfo is None:
            expires = expires.replace(tzinfo=UTC)
        self._expires = expires
        #: Whether the cookie has to be sent again as long as the session is used.
        self.renews = isinstance(expires, timedelta)
        self._attributes: dict[str, Any] = {
            "path": path,
            "domain": domain,
            "secure": secure,
            "httponly": httponly,
            "samesite": samesite,
        }
        #: WebOb has no word for it.
        self._further = "; Partitioned" if partitioned else ""
        if partitioned and not secure:
            raise ConfigError("partitioned needs secure = True: browsers drop the cookie else")
        if samesite == "None" and not secure:
            raise ConfigError("samesite = None needs secure = True: browsers drop the cookie else")
        kind = _PREFIX.match(name)
        if kind is not None and not secure:
            raise ConfigError(f"a cookie {kind[0]}... needs secure = True: browsers drop it else")
        if kind is not None and "host" in kind[0].lower() and (domain or path != "/"):
            raise ConfigError(
                f"a cookie {kind[0]}... has the path / and no domain: browsers drop it else"
            )
        if kind is not None and "http-" in kind[0].lower() and not httponly:
            raise ConfigError(f"a cookie {kind[0]}... needs httponly: browsers drop it else")
        self._values = re.compile(
            r"(?:^|;)[ \t]*" + re.escape(name) + r'[ \t]*=[ \t]*"?([^;"]*)'
        ).findall

    def read(self, environ: WSGIEnvironment) -> str | None:
        values: list[str] = self._values(environ.get("HTTP_COOKIE", ""))
        return _only(value.strip() for value in values)

    def place(self, id: str, reply: Reply) -> bool:
        if not id.isascii():  # a gateway's, who has it without us
            return False
        self._take_back_others(reply)
        cookie = make_cookie(self.name, id, **self._attributes) + self._further
        age = self._max_age()
        if age is not None:
            # Not by WebOb, which asks Python 3.12 and newer for the time as it should not.
            seconds = int(age.total_seconds())
            ends = formatdate(min(time.time() + seconds, _LAST_DATE), usegmt=True)
            cookie = f"{cookie}; Max-Age={seconds}; expires={ends}"
        reply.headerlist.append(("Set-Cookie", cookie))
        return True

    def _max_age(self) -> timedelta | None:
        if isinstance(self._expires, datetime):
            # Browsers keep no cookie of the past: what is over is over at once.
            return max(self._expires - datetime.now(UTC), timedelta(0))
        if isinstance(self._expires, timedelta):
            return self._expires
        return None if self._expires else NEVER

    def _take_back_others(self, reply: Reply) -> None:
        """Where a browser has several cookies of this name, as after a change of their domain or
        path: take back those that are none of ours any more, as far as they can be guessed."""
        environ = reply.environ
        if len(set(self._values(environ.get("HTTP_COOKIE", "")))) < 2:
            return
        host = reply.request.origin.partition("://")[2].partition(":")[0]
        labels = host.split(".") if _is_name(host) else []
        own = self._attributes["domain"]
        domains = [None, *(".".join(labels[at:]) for at in range(len(labels) - 1))]
        mount = environ.get("SCRIPT_NAME", "")
        first = "/" + environ.get("PATH_INFO", "").lstrip("/").partition("/")[0]
        paths = dict.fromkeys(["/", mount, mount + first, self._attributes["path"]])
        for domain in domains[:MOST_DOMAINS]:
            for path in paths:
                is_own = (domain, path) == (own and own.lstrip("."), self._attributes["path"])
                if not is_own and _is_cookie_path(path):
                    others = {**self._attributes, "domain": domain, "path": path}
                    reply.headerlist.append(("Set-Cookie", make_cookie(self.name, None, **others)))

    def forget(self, reply: Reply) -> None:
        self._take_back_others(reply)
        cookie = make_cookie(self.name, None, **self._attributes) + self._further
        reply.headerlist.append(("Set-Cookie", cookie))

    def __repr__(self) -> str:
        return f"Cookie({self.name!r})"


class Callback:
    """A bare finder as a carrier: the application tells the client its id by itself (see
    `is_new` and `must_propagate`), or leaves that to `id_header`."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def find(self, request: Request) -> str | None:
        return self._finder(request)

    def place(self, id: str, reply: Reply) -> bool:
        return False

    def forget(self, reply: Reply) -> None:
        """The application's own business."""

    def __repr__(self) -> str:
        return f"Callback({getattr(self._finder, '__qualname__', type(self._finder).__name__)})"


class FirstOf:
    """Several carriers, the strongest first: what a list means as `find_id`.

    The first id that could be ours counts, and if the store does not know it, the next. A new
    id goes out by the first that can carry it; a known one only by the one that brought it.
    """

    def __init__(self, *carriers: Carrier | Finder | str) -> None:
        if not carriers:
            raise ConfigError("find_id is an empty list; name a carrier or a callable")
        self.carriers = carriers_from(carriers)
        #: As they were written: text may mean another cookie where options for one are given.
        self.written = carriers

    def find(self, request: Request) -> str | None:
        for carrier in self.carriers:
            text = carrier.find(request)
            if text is not None:
                return text
        return None

    def place(self, id: str, reply: Reply) -> bool:
        return any(carrier.place(id, reply) for carrier in self.carriers)

    def forget(self, reply: Reply) -> None:
        for carrier in self.carriers:
            carrier.forget(reply)

    def __repr__(self) -> str:
        return f"FirstOf({', '.join(map(repr, self.carriers))})"


# -- what a user writes as find_id ---------------------------------------------------------------

#: The ini spelling of each carrier: `scheme:argument`, or `scheme` alone.
SCHEMES: Final[Mapping[str, Callable[..., Carrier]]] = {
    "header": Header,
    "asked-header": AskedHeader,
    "bearer": Bearer,
    "query": Query,
    "form": Form,
    "path": PathSegment,
    "param": PathParam,
    "cookie": Cookie,
}


def carriers_from(find_id: Any, cookie: Callable[..., Carrier] = Cookie) -> tuple[Carrier, ...]:
    """Return the carriers that *find_id* means: a carrier, a callable, the text of one, or a
    list of these. *cookie* makes the one of the text `cookie` or `cookie:name`. Raises
    `ConfigError`."""
    if isinstance(find_id, str):
        return tuple(_from_text(part.strip(), cookie) for part in find_id.split(","))
    if isinstance(find_id, FirstOf):
        return carriers_from(find_id.written, cookie)
    if isinstance(find_id, type):
        raise ConfigError(f"find_id is the class {find_id.__name__}; call it: {find_id.__name__}()")
    if isinstance(find_id, Carrier):
        return (find_id,)
    if isinstance(find_id, (list, tuple)):
        if not find_id:
            raise ConfigError("find_id is an empty list; name a carrier or a callable")
        return tuple(carrier for item in find_id for carrier in carriers_from(item, cookie))
    if callable(find_id):
        return (Callback(find_id),)
    raise ConfigError(
        f"find_id is a carrier, a callable, a text or a list of these, not {type(find_id).__name__}"
    )


def _from_text(text: str, cookie: Callable[..., Carrier]) -> Carrier:
    scheme, colon, argument = text.partition(":")
    make = cookie if scheme.lower() == "cookie" else SCHEMES.get(scheme.lower())
    if make is not None:
        if scheme.lower() == "bearer" and colon:
            raise ConfigError("find_id: bearer takes no argument")
        return make(argument.strip()) if colon else make()
    if not colon or not argument.isidentifier():
        raise ConfigError(
            f"find_id = {text!r} is neither a carrier ({', '.join(SCHEMES)}) "
            "nor package.module:callable"
        )
    try:
        found = getattr(importlib.import_module(scheme), argument)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"find_id = {text!r} is none of the carriers {', '.join(SCHEMES)}, and cannot be "
            f"imported: {error}"
        ) from error
    (carrier,) = carriers_from(found)
    return carrier


def _token(name: str, what: str) -> str:
    if not isinstance(name, str) or not is_token(name):
        raise ConfigError(f"{name!r} is not {what}")
    return name


def _only(values: Iterable[str]) -> str | None:
    different = dict.fromkeys(values)
    if len(different) > 1:
        raise AmbiguousId(different)
    return next(iter(different), None)
