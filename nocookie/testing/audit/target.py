"""What an audit has to know of an application: where it is, how its ids travel, what it can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from difflib import get_close_matches
from string import Formatter
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from nocookie.errors import ConfigError

__all__ = ["NAMES", "Endpoint", "Target"]

#: The endpoints that an audit can use, with the fields that their templates may have.
NAMES: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(fields.split())
    for name, fields in {
        "get": "",  # show what the session holds
        "set": "k v",  # store v under k
        "incr": "k",  # add one to the number under k
        "append": "k v",  # add v to the list under k, in place
        "fill": "k bytes",  # store a text of that many bytes under k
        "slow": "ms k",  # read the session, wait, store something under k
        "slowread": "ms",  # read the session, wait, store nothing
        "login": "user",
        "logout": "",
        "rotate": "",  # a new id for the session
        "renew": "",  # the same, with the grace that the old id has
        "boom": "k",  # store something under k, then fail
        "stream": "k",  # begin the response, then store something under k
        "page": "",  # HTML with links of every kind
        "go": "to",  # redirect there
        "token": "",  # the text of a token against forged requests
        "guarded": "token",  # do something that needs it
        "admin": "",  # what is forbidden to a visitor who has not logged in
        "sessions": "",  # list the sessions of the user who is logged in
        "end_all": "",  # end all of them, this one too
        "end_others": "",  # end all but this one
    }.items()
}

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

KINDS: Final = ("header", "bearer", "query", "path", "cookie")


class Endpoint(NamedTuple):
    """`GET /path?a={a}` or `POST /path a={a}`: a method, a path, and a form, with fields."""

    method: str
    path: str
    form: str

    @classmethod
    def read(cls, name: str, text: str) -> Endpoint:
        parts = text.split()
        if parts and parts[0] in _METHODS:
            method, *parts = parts
        else:
            method = "GET"
        if not 1 <= len(parts) <= 2 or not parts[0].startswith("/"):
            raise ConfigError(
                f"the endpoint {name} is a text such as '/x?k={{k}}' or 'POST /x k={{k}}', "
                f"not {text!r}"
            )
        try:
            fields = {part[1] for part in Formatter().parse(text)} - {None}
        except ValueError as error:
            raise ConfigError(f"the endpoint {name}: {error}") from error
        for unknown in fields - NAMES[name]:
            known = ", ".join(sorted(NAMES[name])) or "none"
            raise ConfigError(f"the endpoint {name} has no field {unknown!r}; it has: {known}")
        return cls(method, parts[0], parts[1] if len(parts) == 2 else "")

    def filled(self, values: Mapping[str, str]) -> tuple[str, str]:
        """Return path and form with *values* in their places."""
        quoted = {name: quote(value, safe="") for name, value in values.items()}
        return self.path.format(**quoted), self.form.format(**quoted)

    def takes(self, name: str) -> bool:
        """Whether the template has this field."""
        return f"{{{name}}}" in self.path + self.form


@dataclass(frozen=True, kw_only=True)
class Target:
    """An application to audit. Raises `ConfigError`."""

    #: The URL below which the endpoints are: `http://127.0.0.1:8000/app`.
    base: str
    #: How a request carries its id: `header:NAME`, `bearer`, `query:NAME`, `path:MARKER` (the
    #: segment `/MARKER<id>` below the base) or `cookie:NAME`.
    carrier: str = "header:X-Session-Id"
    #: The response header that tells a client its id. Cookies are read where they are set, ids in
    #: URLs also in `Location` and in links.
    id_header: str = "X-Session-Id"
    #: What the application can do, each a text as `Endpoint` reads it. See `NAMES`; only `get`
    #: and `set` must be there, and their defaults are the reference application's.
    endpoints: Mapping[str, str] = field(default_factory=dict)
    #: Headers that every request needs: an API key, or what a proxy would add.
    headers: Mapping[str, str] = field(default_factory=dict)

    # -- what the audit may take

    #: Seconds that one answer may take, to its last byte.
    patience: float = 10.0
    #: Seconds that the audit may take; what comes later is not applicable.
    limit: float = 300.0
    #: How many new ids are looked at: enough to tell 122 random bits from 128.
    ids: int = 600
    #: How often a race is run.
    rounds: int = 25
    #: How many requests are made at once.
    threads: int = 8

    # -- what the application promises, in seconds

    #: After which an idle session ends.
    timeout: float | None = None
    #: After which any session ends.
    lifetime: float | None = None
    #: For which an old id answers after `renew`.
    grace: float | None = None
    #: Which an id must be old for `renew` to give another; without it any is.
    renew_after: float = 0.0
    #: Which a call of its store may take.
    deadline: float | None = None

    # -- what it may be configured for

    #: The origin that clients know, such as `https://shop.example`, where a proxy between them and
    #: the base ends TLS; else that of the base.
    origin: str | None = None
    #: The base at which it is reached over plain HTTP, to be refused there.
    plain: str | None = None
    #: The request header whose change must end the use of an id, such as `User-Agent`.
    bound_to: str | None = None
    #: Whether the id holds the session, so that there is no store.
    stateless: bool = False
    #: Whether the answer to a logout must have `Clear-Site-Data`.
    clears_site_data: bool = False

    # -- what cannot be seen over HTTP

    #: Return all that the store holds, as raw as can be.
    store_dump: Callable[[], bytes | Iterable[bytes]] | None = None
    #: Return how many sessions the store holds, expired ones too.
    store_count: Callable[[], int] | None = None
    #: Return how many calls the store has had.
    store_calls: Callable[[], int] | None = None
    #: Replace every stored value by these bytes.
    overwrite: Callable[[bytes], object] | None = None
    #: Remove what has expired.
    purge: Callable[[], object] | None = None
    #: The store is down inside of the context.
    outage: Callable[[], AbstractContextManager[object]] | None = None
    #: Return all that the application has logged.
    log_text: Callable[[], str] | None = None
    #: Return what the server and its proxies have logged of requests.
    access_log: Callable[[], str] | None = None
    #: Return the names of all events so far.
    events: Callable[[], Sequence[str]] | None = None
    #: Move the clock of the application, also backwards.
    advance: Callable[[float], object] | None = None

    def __post_init__(self) -> None:
        for base in (self.base, self.plain, self.origin):
            if base is not None and not _is_base(base):
                raise ConfigError(f"the target is a URL such as http://host:8000/app, not {base!r}")
        kind, _, name = self.carrier.partition(":")
        if kind not in KINDS or bool(name) == (kind == "bearer"):
            raise ConfigError(
                "the carrier is header:NAME, bearer, query:NAME, path:MARKER or cookie:NAME, "
                f"not {self.carrier!r}"
            )
        for name in self.endpoints:
            if name not in NAMES:
                near = get_close_matches(name, NAMES, 1)
                hint = f"; did you mean {near[0]}?" if near else f": {', '.join(NAMES)}"
                raise ConfigError(f"there is no endpoint {name!r}{hint}")
        for name, text in self.endpoints.items():
            Endpoint.read(name, text)
        for name in ("ids", "rounds", "threads", "patience", "limit"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is a number above 0, not {getattr(self, name)!r}")

    @property
    def kind(self) -> str:
        """`header`, `bearer`, `query`, `path` or `cookie`."""
        return self.carrier.partition(":")[0]

    @property
    def name(self) -> str:
        """The name of the header, parameter or cookie, or what a segment begins with."""
        return self.carrier.partition(":")[2]

    @property
    def in_url(self) -> bool:
        return self.kind in ("query", "path")

    def endpoint(self, name: str) -> Endpoint | None:
        text = self.endpoints.get(name) or {"get": "/get", "set": "/set?k={k}&v={v}"}.get(name)
        return None if text is None else Endpoint.read(name, text)


def _is_base(text: str) -> bool:
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - raises for what is none
    except ValueError:
        return False
    return (
        url.scheme in ("http", "https") and bool(url.hostname) and not (url.query or url.fragment)
    )
