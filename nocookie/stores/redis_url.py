"""The URL of a Redis or Valkey: where it is, and what each connection to it is told.

The options behind `?` have the names that redis-py gives them. One that is not known, or whose
value cannot be one, is refused at once, with its name and never with its value.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from nocookie.errors import ConfigError
from nocookie.stores.timed import Address

__all__ = ["Location", "Settings", "Tls", "read"]

#: How many connections to one server a process opens at most.
POOL_SIZE: Final = 50
#: How many bytes are received at once, at most.
PIECE: Final = 65536

TRUE: Final = ("1", "t", "true", "y", "yes", "on")
FALSE: Final = ("0", "f", "false", "n", "no", "off")
CERT_REQS: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


@dataclass(frozen=True)
class Tls:
    """What `rediss://` asks of the other end, and shows it."""

    cert_reqs: ssl.VerifyMode = ssl.CERT_REQUIRED
    check_hostname: bool = True
    ca_certs: str | None = None
    ca_path: str | None = None
    ca_data: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    #: That of the key.
    password: str = field(default="", repr=False)
    min_version: ssl.TLSVersion | None = None
    ciphers: str | None = None
    include_verify_flags: tuple[ssl.VerifyFlags, ...] = ()
    exclude_verify_flags: tuple[ssl.VerifyFlags, ...] = ()

    def context(self) -> ssl.SSLContext:
        """Made for each connection, so that a renewed certificate counts from the next one on.
        Raises OSError if a file cannot be read."""
        context = self.without_files()
        if self.certfile or self.keyfile:
            # Were there no password at all, OpenSSL would ask for it at the terminal.
            context.load_cert_chain(self.certfile or "", self.keyfile, self.password)
        if self.ca_certs or self.ca_path or self.ca_data:
            context.load_verify_locations(self.ca_certs, self.ca_path, self.ca_data)
        return context

    def without_files(self) -> ssl.SSLContext:
        """Raises ValueError or OSError for what this OpenSSL does not know."""
        context = ssl.create_default_context()
        context.check_hostname = self.check_hostname and self.cert_reqs != ssl.CERT_NONE
        context.verify_mode = self.cert_reqs
        for flag in self.include_verify_flags:
            context.verify_flags |= flag
        for flag in self.exclude_verify_flags:
            context.verify_flags &= ~flag
        if self.min_version is not None:
            context.minimum_version = self.min_version
        if self.ciphers:
            context.set_ciphers(self.ciphers)
        return context


@dataclass(frozen=True)
class Settings:
    """What every connection of a store has in common."""

    username: str = ""
    password: str = field(default="", repr=False)
    client_name: str = ""
    db: int = 0
    max_connections: int = POOL_SIZE
    socket_keepalive: bool = True
    socket_read_size: int = PIECE
    tls: Tls | None = None


@dataclass(frozen=True)
class Location:
    #: One server, or the nodes of a cluster that are asked first.
    addresses: tuple[Address, ...]
    cluster: bool
    settings: Settings


def read(url: str) -> Location:
    """Raises `ConfigError`, which does not show *url*."""
    scheme, _, rest = url.partition("://")
    cluster = scheme in ("redis+cluster", "rediss+cluster")
    if not cluster and scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(
            "url: it begins with redis://, rediss://, unix://, redis+cluster:// or "
            "rediss+cluster://"
        )
    if "#" in rest:
        raise ConfigError("url: there is a # in it; in a password it is written %23")
    addresses: list[Address] = []
    try:
        if cluster:
            rest, addresses = _seeds(rest)
        parts = urlsplit(f"x://{rest}")
        port = parts.port or 6379  # raises for what is not a number
        given = {name: values[0] for name, values in parse_qs(parts.query).items()}
        for name, text in ("username", parts.username), ("password", parts.password):
            if text:
                given[name] = unquote(text)
        "".join(given.values()).encode()  # raises for what cannot be sent
    except ValueError:  # its text may show the URL
        raise ConfigError("url: it cannot be read as a URL of Redis") from None
    if scheme == "unix":
        if not parts.path.strip("/"):
            raise ConfigError(
                "url: unix:// needs the path of a socket, as in unix:///run/redis.sock"
            )
        addresses = [unquote(parts.path)]
    else:
        if not re.fullmatch(r"/?[0-9]*/?", parts.path):
            raise ConfigError("url: after the host there is the number of a database, or nothing")
        if number := parts.path.strip("/"):
            given.setdefault("db", number)
        addresses = addresses or [(unquote(parts.hostname or "localhost"), port)]
    settings = _settings(given, scheme)
    if cluster and settings.db:
        raise ConfigError("url: a cluster has only the database 0")
    return Location(tuple(addresses), cluster, settings)


def _seeds(rest: str) -> tuple[str, list[Address]]:
    """Return *rest* with the first of its hosts, and all of them. Raises ValueError."""
    netloc, slash, after = re.fullmatch(r"([^/?]*)([/?]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    user, at, hosts = netloc.rpartition("@")
    seeds: list[Address] = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        if not parts.hostname:
            raise ValueError
        seeds.append((unquote(parts.hostname), parts.port or 6379))
    first = hosts.partition(",")[0]
    return f"{user}{at}{first}{slash}{after}", seeds


# -- options -------------------------------------------------------------------------------------


def _settings(given: dict[str, str], scheme: str) -> Settings:
    with_tls = scheme.startswith("rediss")
    ours: dict[str, Any] = {}
    of_tls: dict[str, Any] = {}
    for name, text in given.items():
        if name in OPTIONS and not (name == "socket_keepalive" and scheme == "unix"):
            into, option, (value_of, allowed) = ours, name, OPTIONS[name]
        elif name in TLS_OPTIONS and with_tls:
            into, option, (value_of, allowed) = of_tls, name.partition("_")[2], TLS_OPTIONS[name]
        elif name in TLS_OPTIONS:
            raise ConfigError(f"url: {name} needs rediss:// or rediss+cluster://")
        else:
            raise ConfigError(f"url: {name} cannot be set here")
        try:
            into[option] = value_of(text)
        except (ValueError, KeyError):  # its text is the value
            raise ConfigError(f"url: {name} does not take this value: it is {allowed}") from None
    if not with_tls:
        return Settings(**ours)
    tls = Tls(**of_tls)
    try:
        tls.without_files()
    except (ValueError, OSError):
        raise ConfigError(
            "url: OpenSSL does not take ssl_ciphers, ssl_min_version or the ssl_*_verify_flags"
        ) from None
    return Settings(**ours, tls=tls)


def _number(least: int) -> Callable[[str], int]:
    def value_of(text: str) -> int:
        if int(text) < least:
            raise ValueError
        return int(text)

    return value_of


def _truth(text: str) -> bool:
    return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[text.lower()]


def _client_name(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError
    return text


def _verify_flags(text: str) -> tuple[ssl.VerifyFlags, ...]:
    return tuple(ssl.VerifyFlags[name.strip()] for name in text.strip("[]").split(","))


#: By name: how its value is read, and which it takes.
Option = tuple[Callable[[str], Any], str]

_TEXT: Final[Option] = str, "text"
_TRUTH: Final[Option] = _truth, "true or false"
_FLAGS: Final[Option] = _verify_flags, "names of ssl.VerifyFlags, with commas between them"

OPTIONS: Final[dict[str, Option]] = {
    "db": (_number(0), "a number, at least 0"),
    "username": _TEXT,
    "password": _TEXT,
    "client_name": (_client_name, "text of ASCII without spaces"),
    "max_connections": (_number(1), "a number, at least 1"),
    "socket_keepalive": _TRUTH,
    "socket_read_size": (_number(1), "a number, at least 1"),
}

TLS_OPTIONS: Final[dict[str, Option]] = {
    "ssl_cert_reqs": (CERT_REQS.__getitem__, "none, optional or required"),
    "ssl_check_hostname": _TRUTH,
    "ssl_ca_certs": _TEXT,
    "ssl_ca_path": _TEXT,
    "ssl_ca_data": _TEXT,
    "ssl_certfile": _TEXT,
    "ssl_keyfile": _TEXT,
    "ssl_password": _TEXT,
    "ssl_min_version": (lambda text: ssl.TLSVersion(int(text)), "a number of ssl.TLSVersion"),
    "ssl_ciphers": _TEXT,
    "ssl_include_verify_flags": _FLAGS,
    "ssl_exclude_verify_flags": _FLAGS,
}
