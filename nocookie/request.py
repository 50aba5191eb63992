"""What sessions need to know of a request: how it came, from whom, to which address.

This is the one place that answers it. A `Request` is a view of a WSGI environ: it keeps nothing, so
each answer is that of environ as it is when it is asked, after what layers inside of us changed in
it. What environ does not show any more is in a `Received` that is kept in it: the address as it was
received, and the ids that were taken out of it. It does not show the ids, so that neither an access
log inside the stack nor an error report has them, and a second pass of the same environ still finds
them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

from nocookie.ids import GRAMMAR

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = [
    *("DIRECT", "MASK", "TAKEN", "Deployment", "Received", "Request"),
    *("has_id_in_address", "ids_taken", "received", "take_ids"),
]

#: Where in environ the `Received` is.
TAKEN: Final = "nocookie.taken"

#: Where a2wsgi has the request as it got it from a server of ASGI.
_SCOPE: Final = "asgi.scope"

#: What stands in place of an id that is hidden.
MASK: Final = "[masked]"

#: What servers and proxies keep the address in as it was sent, and the address before.
_ADDRESSES: Final = frozenset({"REQUEST_URI", "RAW_URI", "UNENCODED_URL", "HTTP_REFERER"})

#: What the application finds its way by, in which the carrier itself has changed what is to change;
#: and headers for credentials, in which another carrier looks for its id.
_KEPT: Final = frozenset(
    {"SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "HTTP_AUTHORIZATION", "HTTP_COOKIE"}
)

#: Where WebOb and Paste keep what they have parsed of the query.
_PARSED: Final = frozenset(
    {
        "webob._parsed_query_vars",
        "paste.parsed_querystring",
        "paste.parsed_dict_querystring",
    }
)
_OF_THE_URL: Final = _ADDRESSES | _PARSED

#: Some of this is in every text that is, or holds, an address or a query.
_of_addresses: Final = re.compile("[/?&=%]").search

#: An id of ours, or one that Beaker issued.
_is_id: Final = re.compile(rf"{GRAMMAR}|[0-9a-f]{{32}}", re.ASCII).fullmatch
_LENGTH: Final = 32
_long: Final = re.compile(rf"[A-Za-z0-9_-]{{{_LENGTH},}}")

_is_text: Final = str.__instancecheck__

#: So many different ids are looked for one by one. Whoever sends more has none of them.
_SEVERAL: Final = 4

#: The scheme and host of a request target in absolute form (RFC 9112, 3.2.2).
_absolute: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*").match

#: What RFC 3986 lets stand in a path.
_PATH_SAFE: Final = "/!$&'()*+,;=:@~"

#: By which header a browser says that it fetches ahead: today's, then those of older ones.
_PURPOSES: Final = ("HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_MOZ")

_DEFAULT_PORT: Final = {"http": ":80", "https": ":443"}
_AGENT_SIZE: Final = 8


class Deployment(NamedTuple):
    """What the operator says of the way between clients and us."""

    #: The proxies that are believed when they say how the client came.
    proxies: Sequence[IPv4Network | IPv6Network] = ()
    #: The public origin, such as `https://shop.example`; None for the request's own.
    origin: str | None = None
    #: The path that a proxy takes off, decoded as in WSGI: `/shop`, or nothing.
    prefix: str = ""
    #: No id travels by plain HTTP.
    requires_https: bool = False

    @classmethod
    def of(
        cls,
        origin: str | None,
        proxies: Sequence[IPv4Network | IPv6Network] = (),
        requires_https: bool = False,
    ) -> Deployment:
        """Return it for an *origin* that may have a path, as the option is converted."""
        if origin is None:
            return cls(proxies, requires_https=requires_https)
        scheme, _, rest = origin.partition("://")
        host, slash, path = rest.partition("/")
        prefix = unquote_to_bytes(slash + path).decode("latin-1")
        return cls(proxies, f"{scheme}://{host}", prefix, requires_https)


#: Nothing in front, and nothing asked for.
DIRECT: Final = Deployment()


class Received:
    """The address of a request as it came, and the ids that were taken from it, by position."""

    __slots__ = ("came_from_id", "given", "has_hidden", "ids", "path", "prefix", "query", "root")

    def __init__(self, environ: WSGIEnvironment) -> None:
        self.ids: dict[str, tuple[str, ...]] = {}
        self.root: str = environ.get("SCRIPT_NAME", "")
        self.path: str = environ.get("PATH_INFO", "")
        self.query: str = environ.get("QUERY_STRING", "")
        #: What a proxy took off, as the operator says: servers that are told the whole address by
        #: it, over the protocol of uWSGI say, show that as what was sent.
        self.prefix = ""
        #: Whether there are ids in it that count for nothing, as they were written otherwise.
        self.has_hidden = False
        #: Whether an id was in the address of the page that the client came from.
        self.came_from_id = False
        #: SCRIPT_NAME and PATH_INFO as the application gets them; None if they are as they came.
        self.given: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return "<the address as it was received>"


def received(environ: WSGIEnvironment) -> Received:
    """Return the address as it was received; to be called before anything is taken from it."""
    there: Received | None = environ.get(TAKEN)
    if there is None:
        there = environ[TAKEN] = Received(environ)
    return there


def ids_taken(environ: WSGIEnvironment) -> dict[str, tuple[str, ...]]:
    """Return the ids that came in the URL of this request, by position."""
    there: Received | None = environ.get(TAKEN)
    return {} if there is None else there.ids


def has_id_in_address(environ: WSGIEnvironment) -> bool:
    """Whether the URL of this request has an id in it, be it one that counts for nothing: a browser
    that has the address may tell it."""
    there: Received | None = environ.get(TAKEN)
    return there is not None and (there.has_hidden or bool(there.ids))


class Request:
    """A view of the request that *environ* is, come through a *deployment*.

    It holds environ, so nothing in environ holds it: it is made when something is asked.
    """

    __slots__ = ("deployment", "environ")

    def __init__(self, environ: WSGIEnvironment, deployment: Deployment = DIRECT) -> None:
        self.environ = environ
        self.deployment = deployment

    # -- who came, and how ------------------------------------------------------------------------

    @property
    def came_by_https(self) -> bool:
        """Whether the client came by HTTPS, to us or to the first of our trusted proxies.

        The server knows how the last hop came. If that was from a proxy that is trusted, what the
        proxy says counts. It says it in `X-Forwarded-Proto` or in `Forwarded`, and passes on what
        the client sent of the other one. Which is which nobody can see, so plain HTTP in either of
        them counts.
        """
        environ = self.environ
        by_https: bool = environ.get("wsgi.url_scheme") == "https"
        proxies = self.deployment.proxies
        if proxies and _is_in(environ.get("REMOTE_ADDR", ""), proxies):
            said = {*_x_forwarded_proto(environ), *_forwarded_proto(environ)}
            return said == {"https"} if said else by_https
        return by_https

    @property
    def is_local(self) -> bool:
        """Whether it came from this host: from a developer, or a proxy beside us."""
        # By the text: a Unix socket has no address, nor has a test.
        address: str = self.environ.get("REMOTE_ADDR", "")
        return not address or address.startswith("127.") or address == "::1"

    @property
    def is_passive(self) -> bool:
        """Whether this request shows nobody a page: a checker of links looks, or a browser asks
        ahead of a request to another origin (Fetch: a CORS-preflight request)."""
        method = self.environ["REQUEST_METHOD"]
        if method == "OPTIONS":
            return "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in self.environ
        return bool(method == "HEAD")

    @property
    def is_speculative(self) -> bool:
        """Whether a browser fetches ahead what its user may never look at (Fetch: `Sec-Purpose`;
        the others are of older browsers). If the user does, there is no other request."""
        return any("prefetch" in self.environ.get(name, "").lower() for name in _PURPOSES)

    def client_digest(self) -> str:
        """Return what tells one kind of client from another, by what it says of itself."""
        said = self.environ.get("HTTP_USER_AGENT", "").encode("utf-8", "surrogatepass")
        return hashlib.blake2b(said, digest_size=_AGENT_SIZE).hexdigest()

    # -- its address, as clients write it ---------------------------------------------------------

    @property
    def scheme(self) -> str:
        """`http` or `https`, as the client came."""
        if self.came_by_https:
            return "https"
        scheme: str = self.environ.get("wsgi.url_scheme", "http")
        return "http" if scheme == "https" else scheme

    @property
    def may_tell(self) -> bool:
        """Whether links to this origin may have an id: not if they are plain HTTP where that is
        ruled out."""
        return not self.deployment.requires_https or self.origin.startswith("https:")

    @property
    def origin(self) -> str:
        """The public origin as browsers write it: `https://shop.example`, in lower case."""
        if self.deployment.origin is not None:
            return _written(self.deployment.origin)
        environ = self.environ
        host = environ.get("HTTP_HOST") or ":".join(
            (environ.get("SERVER_NAME", ""), environ.get("SERVER_PORT", ""))
        )
        return _written(f"{self.scheme}://{host}".lower())

    @property
    def mount(self) -> str:
        """Where the application is for its clients, decoded as in WSGI: what a proxy takes off,
        and SCRIPT_NAME without the id segment, nor the slash that some write behind it."""
        return (self.deployment.prefix + self._root()).rstrip("/")

    @property
    def front(self) -> str:
        """The path of the front page, as URLs write it. It leads to our origin whatever
        SCRIPT_NAME holds."""
        parts = [_quoted(part) for part in self.mount.split("/") if part]
        return "/".join(["", *parts, ""])

    @property
    def url(self) -> str:
        """The absolute URL of the page as the browser has it, with an id if it came in it."""
        return self.address()[0]

    def address(self) -> tuple[str, str]:
        """Return `url` and `mount`."""
        there, mount = received(self.environ), self.mount
        query = "?" + there.query if there.query else ""
        return f"{self.origin}{_quoted(mount + there.path) or '/'}{query}", mount

    @property
    def is_moved(self) -> bool:
        """Whether the segment with the id is in SCRIPT_NAME no more: a layer inside of us has
        set that anew, for a proxy that takes a prefix off."""
        there = received(self.environ)
        root = self.environ.get("SCRIPT_NAME", "")
        if there.given is None or root == there.given[0]:
            return False
        return there.given[0].removeprefix(there.root) not in root

    def _root(self) -> str:
        """Return SCRIPT_NAME as it was received, or as a layer inside of us has corrected it."""
        there = received(self.environ)
        given_root, given_path = there.given or (there.root, there.path)
        root: str = self.environ.get("SCRIPT_NAME", "")
        if root == given_root:
            return there.root
        whole: str = root + self.environ.get("PATH_INFO", "")
        # A dispatcher moves segments from the path to the root.
        if whole != given_root + given_path and whole.endswith(given_path):
            segment = given_root.removeprefix(there.root)
            return whole[: len(whole) - len(given_path)].removesuffix(segment)
        return there.root

    # -- the address, as it was sent --------------------------------------------------------------

    @property
    def sent_path(self) -> str | None:
        """The path as the client wrote it; None where the server does not tell. PATH_INFO is
        decoded, and some servers have folded slashes and dots in it."""
        sent: str = self.environ.get("REQUEST_URI") or self.environ.get("RAW_URI") or ""
        path = sent.partition("?")[0]
        found = _absolute(path)
        return (path[found.end() :] if found else path) or None

    def is_mounted_at(self, path: str) -> bool:
        """Whether *path*, as it was sent, is that of our mount, or the end of it: what a proxy has
        taken off need not have been sent to us."""
        first, *parts = (unquote(part, "latin-1") for part in path.split("/"))
        prefix = received(self.environ).prefix
        mount = [part for part in (prefix + self.environ.get("SCRIPT_NAME", "")).split("/") if part]
        return not first and parts == mount[len(mount) - len(parts) :]

    # -- ids in its URL ---------------------------------------------------------------------------

    def relocate(self, root: str, path: str) -> None:
        """Give the application another SCRIPT_NAME and PATH_INFO than those that came."""
        there = received(self.environ)
        there.given = root, path
        self.environ["SCRIPT_NAME"], self.environ["PATH_INFO"] = root, path

    def strip_referer(self, bare: Callable[[str], str]) -> None:
        """Strip the address of the page before of an id: a style sheet has none in its own. What
        another site has under the same name, and is no id by its length, stays."""
        before: str = self.environ.get("HTTP_REFERER", "")
        if len(before) < _LENGTH or not _long.search(unquote(before)):
            return
        after = bare(before)
        path = unquote(after.partition("?")[0])
        if bare(path) != path:
            after = MASK  # written otherwise, it is none for us, but for whoever reads it
        if after != before:
            received(self.environ).came_from_id = True
            self.environ["HTTP_REFERER"] = after

    def hide_ids(self, ids: tuple[str, ...], bare: Callable[[str], str]) -> None:
        """Hide *ids* that stand where a carrier has them, but count for nothing: they were
        written otherwise. The path stays one that leads nowhere."""
        root, path = self.environ.get("SCRIPT_NAME", ""), self.environ.get("PATH_INFO", "")
        received(self.environ).has_hidden = True
        masked = _masked(path, set(filter(_is_id, ids)))
        if masked != path:
            self.relocate(root, masked)
        _strip(self.environ, ids, bare)


def take_ids(
    environ: WSGIEnvironment, position: str, ids: tuple[str, ...], bare: Callable[[str], str]
) -> None:
    """Keep the *ids* that a carrier found at its *position*, and strip the addresses in environ of
    them by *bare*, which returns a URL without the id. To be called after `received`."""
    there: Received = environ[TAKEN]
    there.ids[position] = ids
    _strip(environ, ids, bare)


def _strip(environ: WSGIEnvironment, ids: tuple[str, ...], bare: Callable[[str], str]) -> None:
    suspects = set(filter(_is_id, ids))
    for name in environ.keys() & _OF_THE_URL:
        if name in _PARSED:
            del environ[name]
        elif type(environ[name]) is str:
            environ[name] = _without(bare(environ[name]), suspects)
    if not suspects:
        return
    if type(environ.get(_SCOPE)) is dict:
        environ[_SCOPE] = _masked_scope(environ[_SCOPE], suspects)
    [one] = suspects if len(suspects) == 1 else ("",)
    if one:
        # As a rule it is in no text any more, but for the path and a header that is nothing else.
        texts = list(filter(_is_text, environ.values()))
        text = "\n".join(texts)
        expected = texts.count(one) + environ.get("SCRIPT_NAME", "").count(one)
        if text.count(one) == expected and "%" not in text:
            return
    for name, value in environ.items():
        if (
            type(value) is str
            and (one in value or "%" in value)
            and value not in suspects
            and name not in _KEPT
            and _holds(value, suspects)
            and _of_addresses(value)
        ):
            environ[name] = _without(bare(value), suspects)


def _holds(text: str, ids: Collection[str]) -> bool:
    """Whether one of the *ids* is in a text, be it in percents."""
    if "%" in text:
        text = f"{text} {unquote(text)}"
    if len(ids) > _SEVERAL:
        return _long.search(text) is not None
    return any(id in text for id in ids)


def _masked(text: str, ids: Collection[str]) -> str:
    """Return *text* with something else in the place of each of the *ids*."""
    if len(ids) > _SEVERAL:
        return _long.sub(MASK, text)
    for id in ids:
        text = text.replace(id, MASK)
    return text


def _without(url: str, ids: Collection[str]) -> str:
    """As `_masked`, for a URL in which letters of an id may be in percents."""
    masked = _masked(url, ids)
    return MASK if "%" in masked and _holds(masked, ids) else masked


def _masked_scope(scope: dict[str, Any], ids: Collection[str]) -> dict[str, Any]:
    """Return a copy of an ASGI scope with none of the *ids* in its address and headers: the one
    that servers go by stays as it is."""

    def masked(value: Any) -> Any:
        if isinstance(value, bytes):
            return _without(value.decode("latin-1"), ids).encode("latin-1")
        return _without(value, ids) if isinstance(value, str) else value

    copy = {name: masked(value) for name, value in scope.items()}
    if isinstance(scope.get("headers"), (list, tuple)):
        copy["headers"] = [(name, masked(value)) for name, value in scope["headers"]]
    return copy


def _written(origin: str) -> str:
    """Return an origin without the port that its scheme has anyway."""
    scheme = origin.partition(":")[0]
    return origin.removesuffix(_DEFAULT_PORT.get(scheme, ""))


def _quoted(path: str) -> str:
    # WSGI paths are decoded bytes, written as latin-1 (PEP 3333).
    return quote(path.encode("latin-1", "replace"), safe=_PATH_SAFE)


def _is_in(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        there = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(there, "ipv4_mapped", None)
    return any(one in network for one in (there, mapped) if one for network in networks)


def _last(text: str) -> str:
    """Return the last element of a list: what the proxy nearest to us said. Those before it may be
    anybody's."""
    return text.rpartition(",")[2].strip().lower()


def _x_forwarded_proto(environ: WSGIEnvironment) -> list[str]:
    said = _last(environ.get("HTTP_X_FORWARDED_PROTO", ""))
    return [said] if said else []


#: A quoted string (RFC 9110, 5.6.4), closed or not; what in it is no mark of the list around it.
_quoted_text: Final = re.compile(r'"(?:[^"\\]|\\.)*+("|\\?\Z)', re.DOTALL)
_no_marks: Final = re.compile(r"\\.|[,;]", re.DOTALL)


def _value(found: re.Match[str]) -> str:
    return _no_marks.sub("", found[0]) if found[1] == '"' else '"'


def _forwarded_proto(environ: WSGIEnvironment) -> list[str]:
    """Return the values of the parameter `proto` (RFC 7239, section 5.4).

    What is in quotes is a value: a proxy may write there what the client sent, as its `Host`.
    """
    text = _quoted_text.sub(_value, environ.get("HTTP_FORWARDED", ""))
    if text.count('"') % 2:
        return ["unreadable"]
    pairs = [part.partition("=") for part in _last(text).split(";")]
    return [said.strip().strip('"') for name, _, said in pairs if name.strip() == "proto"]
