"""How an id travels: find it in a request, place it in a response, forget it.

A *finder* is a callable `find_id(request) -> str | None`. A *carrier* is a finder that can give
the id back, three verbs in one object so that they cannot drift apart. Each says where its id
can leak; the header is the recommended one.

What `find` returns is checked by the manager before anything else sees it. A carrier that meets
several different ids raises `AmbiguousId`: choosing one of them would let whoever can add a
parameter choose the session.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable
from urllib.parse import unquote_plus

from webob import Request
from webob.cookies import make_cookie
from webob.headers import ResponseHeaders

from nocookie.errors import ConfigError
from nocookie.options import is_token

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = [
    "AmbiguousId",
    "Bearer",
    "Callback",
    "Carrier",
    "Cookie",
    "FirstOf",
    "Form",
    "Header",
    "Query",
    "RawCarrier",
    "Reply",
    "carriers_from",
]

Finder = Callable[[Request], "str | None"]


class AmbiguousId(Exception):
    """A carrier found several different ids in one request: they count as none."""


class Reply:
    """The head of a response, as a carrier may change it. Named as in `webob.Response`."""

    __slots__ = ("environ", "headerlist", "status")

    def __init__(
        self, status: str, headerlist: list[tuple[str, str]], environ: WSGIEnvironment
    ) -> None:
        self.status = status
        self.headerlist = headerlist
        #: The environ of the request that is answered.
        self.environ = environ

    @property
    def headers(self) -> ResponseHeaders:
        """A mapping over `headerlist`; to change one is to change the other."""
        return ResponseHeaders.view_list(self.headerlist)

    def announce(self, name: str, id: str) -> None:
        """Give the client its id in a header, which browser code of another origin may then
        read (Fetch, section 3.3.2)."""
        self.set(name, id)
        origin = self.environ.get("HTTP_ORIGIN")
        if origin is not None and origin.lower() != _origin(self.environ):
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
    must be read or taken away before it sees the request.
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


class Header(RawCarrier):
    """The id in a request header, and in the response header of the same name.

    Leaks: hardly. Headers of one's own are seldom logged, never cached as part of a URL, never
    sent to another origin, and never sent by a browser without a script that means to.
    """

    def __init__(self, name: str = "X-Session-Id") -> None:
        self.name = self.vary = _token(name, "a header name")
        self._key = "HTTP_" + name.upper().replace("-", "_")

    def read(self, environ: WSGIEnvironment) -> str | None:
        text: str | None = environ.get(self._key)
        if text is not None and "," in text:
            # Servers join repeated headers by commas, which no id contains.
            return _only(part.strip() for part in text.split(","))
        return text

    def place(self, id: str, reply: Reply) -> bool:
        reply.announce(self.name, id)
        return True

    def __repr__(self) -> str:
        return f"Header({self.name!r})"


class Bearer(RawCarrier):
    """The id as a bearer token (RFC 6750): `Authorization: Bearer <id>`.

    Other schemes, `Basic` among them, are no id. A response has no header to answer in, so a
    new id is announced in `id_header`. Leaks: as `Header`; proxies know to hide this one.
    """

    vary = "Authorization"

    def read(self, environ: WSGIEnvironment) -> str | None:
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    def __repr__(self) -> str:
        return "Bearer()"


class Query(RawCarrier):
    """The id in a query parameter.

    Leaks: by history, bookmarks, shared links, logs and `Referer`. Responses get
    `Referrer-Policy` and `Cache-Control: no-store`; prefer a header where the client can.
    """

    in_url = True

    def __init__(self, name: str = "sid") -> None:
        self.name = _token(name, "a parameter name")
        self._mark = f"&{name}="

    def read(self, environ: WSGIEnvironment) -> str | None:
        query: str = environ.get("QUERY_STRING", "")
        if "%" in query or "+" in query:  # the name or the value may be written otherwise
            return _only(
                unquote_plus(value)
                for name, _, value in (part.partition("=") for part in query.split("&"))
                if unquote_plus(name) == self.name
            )
        found = ("&" + query).split(self._mark)
        if len(found) < 2:
            return None
        if len(found) > 2:
            return _only(part.partition("&")[0] for part in found[1:])
        return found[1].partition("&")[0]

    def __repr__(self) -> str:
        return f"Query({self.name!r})"


#: A form with an id in it is small; a body that is larger is somebody's upload.
FORM_LIMIT: Final = 65536


#: Where a form waits between `prepare` and `read`.
_FORM: Final = "nocookie.form"


class Form(RawCarrier):
    """The id in a field of an urlencoded form, posted with up to 64 KiB.

    The body is read before the application runs, which may read it by whatever means it has, and
    is given to it whole. Leaks: not by URL; by the page that holds the field, when it is saved or
    cached. Multipart forms are not read.
    """

    def __init__(self, name: str = "sid") -> None:
        self.name = _token(name, "a field name")
        self._query = Query(name)

    def prepare(self, environ: WSGIEnvironment) -> None:
        kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded" or _FORM in environ:
            return
        try:
            length = int(environ.get("CONTENT_LENGTH") or 0)
        except ValueError:
            return
        if 0 < length <= FORM_LIMIT:
            body = environ[_FORM] = environ["wsgi.input"].read(length)
            environ["wsgi.input"] = io.BytesIO(body)

    def read(self, environ: WSGIEnvironment) -> str | None:
        body: bytes = environ.get(_FORM, b"")
        return self._query.read({"QUERY_STRING": body.decode("latin-1")})

    def find(self, request: Request) -> str | None:
        self.prepare(request.environ)
        return self.read(request.environ)

    def __repr__(self) -> str:
        return f"Form({self.name!r})"


class Cookie(RawCarrier):
    """The id in a cookie, for clients that keep one. With a `secret` the id is signed, as every
    id is.

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
    ) -> None:
        self.name = _token(name, "a cookie name")
        self._attributes: dict[str, Any] = {
            "path": path,
            "domain": domain,
            "secure": secure,
            "httponly": httponly,
            "samesite": samesite,
        }
        if samesite == "None" and not secure:
            raise ConfigError("samesite = None needs secure = True: browsers drop the cookie else")
        self._values = re.compile(
            r"(?:^|;)[ \t]*" + re.escape(name) + r'[ \t]*=[ \t]*"?([^;"]*)'
        ).findall

    def read(self, environ: WSGIEnvironment) -> str | None:
        values: list[str] = self._values(environ.get("HTTP_COOKIE", ""))
        return _only(value.strip() for value in values)

    def place(self, id: str, reply: Reply) -> bool:
        reply.headerlist.append(("Set-Cookie", make_cookie(self.name, id, **self._attributes)))
        return True

    def forget(self, reply: Reply) -> None:
        cookie = make_cookie(self.name, None, **self._attributes)
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
_SCHEMES: Final[Mapping[str, Callable[..., Carrier]]] = {
    "header": Header,
    "bearer": Bearer,
    "query": Query,
    "form": Form,
    "cookie": Cookie,
}


def carriers_from(find_id: Any) -> tuple[Carrier, ...]:
    """Return the carriers that *find_id* means: a carrier, a callable, the text of one, or a
    list of these. Raises `ConfigError`."""
    if isinstance(find_id, str):
        return tuple(_from_text(part.strip()) for part in find_id.split(","))
    if isinstance(find_id, FirstOf):
        return find_id.carriers
    if isinstance(find_id, type):
        raise ConfigError(f"find_id is the class {find_id.__name__}; call it: {find_id.__name__}()")
    if isinstance(find_id, Carrier):
        return (find_id,)
    if isinstance(find_id, (list, tuple)):
        if not find_id:
            raise ConfigError("find_id is an empty list; name a carrier or a callable")
        return tuple(carrier for item in find_id for carrier in carriers_from(item))
    if callable(find_id):
        return (Callback(find_id),)
    raise ConfigError(
        f"find_id is a carrier, a callable, a text or a list of these, not {type(find_id).__name__}"
    )


def _from_text(text: str) -> Carrier:
    scheme, colon, argument = text.partition(":")
    make = _SCHEMES.get(scheme.lower())
    if make is not None:
        if scheme.lower() == "bearer" and colon:
            raise ConfigError("find_id: bearer takes no argument")
        return make(argument.strip()) if colon else make()
    if not colon or not argument.isidentifier():
        raise ConfigError(
            f"find_id = {text!r} is neither a carrier ({', '.join(_SCHEMES)}) "
            "nor package.module:callable"
        )
    try:
        found = getattr(importlib.import_module(scheme), argument)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"find_id = {text!r} is none of the carriers {', '.join(_SCHEMES)}, and cannot be "
            f"imported: {error}"
        ) from error
    (carrier,) = carriers_from(found)
    return carrier


def _token(name: str, what: str) -> str:
    if not isinstance(name, str) or not is_token(name):
        raise ConfigError(f"{name!r} is not {what}")
    return name


def _origin(environ: WSGIEnvironment) -> str:
    host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
    return f"{environ.get('wsgi.url_scheme', 'http')}://{host}".lower()


def _only(values: Iterable[str]) -> str | None:
    different = set(values)
    if len(different) > 1:
        raise AmbiguousId
    return different.pop() if different else None
