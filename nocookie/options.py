"""The options: one table of name, converter, default and meaning.

Keywords, dicts and ini text go through the same converters, so `"False"` is false wherever it
comes from. An unknown name or a wrong value is a `ConfigError` at construction. The page
`docs/configuration.md` is written from this table.
"""

from __future__ import annotations

import difflib
import importlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from nocookie.beaker_options import (
    BEAKER_PREFIXES,
    BEAKERS,
    HINTS,
    NEEDLESS,
    OLDEST,
    REFUSED,
    RENAMED,
    Note,
    translated,
)
from nocookie.errors import ConfigError

__all__ = [
    *("LONGEST", "MOST_TURNS", "OPTIONS", "PREFIXES"),
    *("Configuration", "Option", "Settings", "agree", "by_name", "converted", "imported"),
    *("in_seconds", "is_ours", "is_secret", "is_token"),
    *("known", "lengthened", "reference", "resolve", "with_cache_dir"),
]

#: The prefixes that mark our keys in a shared configuration, the strongest first.
PREFIXES: Final = ("nocookie.", "session.", "beaker.session.")

#: How like an option another name must be to be taken for a misspelling of it: 1 is the same.
NEAR: Final = 0.6


class Option(NamedTuple):
    """One row. `convert` raises ValueError with a sentence that ends "... not <value>"."""

    name: str
    convert: Callable[[Any], Any]
    default: Any
    doc: str
    #: Never shown in an error.
    hidden: bool = False


# -- converters ----------------------------------------------------------------------------------

#: How many rotations by themselves one grace may hold: an old id is followed over each of them.
MOST_TURNS: Final = 32

#: What is to last for longer, in seconds, lasts for ever: 100 years of 365.25 days. The stores can
#: hold the moments that follow from it.
LONGEST: Final = 100 * 31_557_600.0
#: What sockets and locks can wait for is some weeks, and nobody waits for so long.
LONGEST_CALL: Final = 86_400.0

_TRUE: Final = frozenset({"true", "yes", "on", "y", "t", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "n", "f", "0"})
_NONE: Final = frozenset({"", "none", "off"})

#: RFC 9110, section 5.6.2: what a header name or a cookie name may consist of.
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


def _bool(value: Any) -> bool:
    word = str(value).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("must be true or false")


def _optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def convert_or_none(value: Any) -> Any:
        if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
            return None
        try:
            return convert(value)
        except ValueError as error:
            raise ValueError(f"{error}, or none") from None

    return convert_or_none


def _given(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _path(value: Any) -> str:
    path = _text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if "://" in path:
        raise ValueError("must be a folder; a server is named by type and url")
    return path


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    text = value.strip()
    if not text.isprintable():
        raise ValueError("must be a text without control characters")
    return text


def _seconds_to(longest: float, which_is: str) -> Callable[[Any], float]:
    """What follows from a time has to fit into what stores, sockets and dates can hold."""

    def convert(value: Any) -> float:
        if not isinstance(value, bool):
            try:
                seconds = float(value)
            except (TypeError, ValueError, OverflowError):
                seconds = math.nan
            if 0 < seconds <= longest:
                return seconds
        raise ValueError(
            f"must be a number of seconds above 0, and at most {longest:.0f} ({which_is})"
        )

    return convert


_seconds: Final = _seconds_to(LONGEST, "100 years")


def _count(value: Any) -> int:
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number > 0:
            return number
    raise ValueError("must be a whole number above 0")


def _secrets(value: Any) -> tuple[str, ...]:
    """One secret, or several with the newest first: a list, or lines of ini text. An empty one
    is an environment variable that was forgotten, and no way to ask for no secret."""
    texts = value.splitlines() if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise ValueError("must be a text, or a list of texts with the newest first")
    secrets = tuple(text.strip() for text in texts if text.strip())
    if not secrets or not all(text.isprintable() for text in secrets):
        raise ValueError("must not be empty, nor hold control characters")
    if not _NONE.isdisjoint(text.lower() for text in secrets):
        raise ValueError("must be a secret; to have none, leave the option out")
    return secrets


def _exact(value: Any) -> str:
    # Somebody else's secret: every character of it counts.
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be a text")
    return value


def _until(value: Any) -> datetime:
    """A moment, in UTC unless it says otherwise; a day is there to its end."""
    if isinstance(value, str):
        text = value.strip()
        try:
            value = date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
        except ValueError:
            value = None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date) and value < date.max:
        return datetime(value.year, value.month, value.day, tzinfo=UTC) + timedelta(days=1)
    raise ValueError("must be a date such as 2030-12-31, or a date and time")


def _header_name(value: Any) -> str:
    name = _text(value)
    if not is_token(name):
        raise ValueError("must be a header name")
    return name


def _one_of(*words: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        for word in words:
            if str(value).strip().lower() == word.lower():
                return word
        raise ValueError(f"must be one of {', '.join(words)}")

    return convert


#: As Python writes a timedelta.
_TIMEDELTA: Final = re.compile(r"(?:([0-9]{1,9}) days?, )?([0-9]{1,2}):([0-9]{2}):([0-9]{2})")


def _cookie_expires(value: Any) -> bool | timedelta | datetime:
    """As Beaker: true is the browser's session, false never, a number so many seconds."""
    found = _TIMEDELTA.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        with suppress(OverflowError):
            value = timedelta(days, seconds, minutes=minutes, hours=hours)
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        with suppress(OverflowError):  # in UTC it is in the year 10000
            return moment.astimezone(UTC)
    if isinstance(value, timedelta) and timedelta(0) < value <= timedelta(seconds=LONGEST):
        return value
    if not isinstance(value, (timedelta, bool, type(None))):
        with suppress(ValueError):
            return timedelta(seconds=_seconds(value))
    try:
        if str(value).strip() != "0":  # neither never nor at once
            return _bool(value)
        raise ValueError
    except ValueError:
        raise ValueError(
            "must be true (until the browser ends), false (never), a number of seconds above 0 or "
            "a timedelta, at most 100 years, or a datetime"
        ) from None


def _samesite(value: Any) -> str | None:
    # The word None is a policy of browsers; no policy is no text at all.
    return None if value is None or value == "" else _one_of("Lax", "Strict", "None")(value)


def _anything(value: Any) -> Any:
    return value


def _clock(value: Any) -> Any:
    if not callable(value):
        raise ValueError("must be a callable that returns seconds")
    return value


def _optional_word(convert: Callable[[Any], str]) -> Callable[[Any], str | None]:
    # "off" is a word here, and no word at all is none.
    return lambda value: None if value is None or value == "" else convert(value)


#: An origin (RFC 6454): scheme, host and perhaps a port; and here perhaps a path.
_ORIGIN: Final = re.compile(
    r"(https?://(?:([A-Za-z0-9.-]+)|\[([0-9A-Fa-f:.]+)\])(?::([1-9][0-9]{0,4}))?)((?:/[^/?#]+)*)"
)
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
#: What a browser takes for a part of an IPv4 address (WHATWG URL, "ends in a number").
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
#: What servers decode into another path, or refuse.
_ODD_IN_PATH: Final = frozenset({*map(chr, range(0x20)), "\x7f", "/", "\\", ";"})
#: A segment of a path as RFC 3986 has it, without parameters.
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})+")


def _origin(value: Any) -> str:
    found = _ORIGIN.fullmatch(_text(value).rstrip("/"))
    try:
        if found is None:
            raise ValueError
        origin, host, address, port, path = found.groups()
        if int(port or 0) > 65535:
            raise ValueError
        labels = (host or "").split(".")
        if address is not None:
            IPv6Address(address)
        elif _NUMBER.fullmatch(labels[-1]):
            IPv4Address(host)
        elif not all(map(_LABEL.fullmatch, labels)):
            raise ValueError
    except ValueError:
        raise ValueError(
            "must be an origin such as https://shop.example, perhaps with the path that a proxy "
            "takes off"
        ) from None
    for segment in path.split("/")[1:]:
        plain = unquote(segment, "latin-1")
        is_odd = plain in (".", "..") or not _ODD_IN_PATH.isdisjoint(plain)
        if is_odd or not _SEGMENT.fullmatch(segment):
            raise ValueError(
                "must have a plain path or none: no dots alone, no ; and no slash, backslash or "
                "control character in percents"
            )
    return f"{origin.lower()}{path}"


def _networks(value: Any) -> tuple[IPv4Network | IPv6Network, ...]:
    """Addresses and networks, in a list or separated by commas; none for none."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _NONE):
        return ()
    texts = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else value
    try:
        return tuple(ip_network(str(text)) for text in texts if text)
    except (TypeError, ValueError):
        raise ValueError("must be addresses or networks such as 10.0.0.0/8") from None


def _callbacks(value: Any) -> tuple[Callable[..., Any], ...]:
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    given = value if isinstance(value, (list, tuple)) else (value,)
    callbacks = tuple(imported(one) if isinstance(one, str) else one for one in given)
    if not all(map(callable, callbacks)):
        raise ValueError("must be a callable, package.module:callable, or a list of these")
    return callbacks


def imported(text: str, is_callable: bool = True) -> Any:
    """Return what `package.module:name` names. Raises ValueError with a sentence that ends
    "... not <value>"."""
    module, colon, name = text.partition(":")
    try:
        if not colon:
            raise ValueError
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        raise ValueError(
            "must be package.module:callable, of a module that can be imported"
        ) from None
    if is_callable and not callable(found):
        raise ValueError("must name a callable")
    return found


def _engine(value: Any) -> Any:
    if not hasattr(value, "dialect"):
        raise ValueError("must be an Engine of SQLAlchemy")
    return value


def _store(value: Any) -> Any:
    return value if hasattr(value, "load") else _text(value)


# -- the table -----------------------------------------------------------------------------------

OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("use_cookies", _bool, True, "Carry the id in a cookie. With `False`, by `find_id`."),
        Option(
            "find_id",
            _anything,
            None,
            "Where the id is in a request: a carrier, a callable `find_id(request)`, a list of "
            "them, or the text of one: `header:X-Session-Id`, `asked-header:X-Session-Id`, "
            "`bearer`, `query:sid`, `form:sid`, `path:~`, `param:sid`, `cookie` (with the options "
            "for cookies below), `package.module:callable`, comma-separated for several. Without "
            "it and without cookies: `header:X-Session-Id`.",
        ),
        Option(
            "id_header",
            _optional(_header_name),
            "X-Session-Id",
            "The response header that announces a new id where the carrier cannot place it "
            "itself; `none` for no announcement.",
        ),
        Option(
            "rewrite",
            _optional_word(_one_of("off", "location", "html")),
            None,
            "Where an id in URLs is put by itself: `location`, on the redirects and refreshes of "
            "the response; `html`, on the links and forms of its page too; `off`, nowhere. "
            "Without it `location` if a carrier's id is in the URL, else `off`.",
        ),
        Option(
            "origin",
            _optional(_origin),
            None,
            "The public origin, such as `https://shop.example`, where a proxy hides it: only "
            "URLs of this origin get the id. Without it, what the request says in its `Host`. With "
            "the path that a proxy takes off and nothing puts back into `SCRIPT_NAME`: "
            "`https://shop.example/shop`; then only URLs below it get the id.",
        ),
        Option(
            "leak_guard",
            _one_of("off", "log", "raise"),
            "log",
            "What to do about an id on its way to another origin, into a public cache or into a "
            "header where it does not belong: `log` an event, `raise` and answer 500, or `off`.",
        ),
        Option(
            "type",
            _optional(_store),
            None,
            "The store: `memory`, `file`, `sqlalchemy`, `redis`, `memcached`, the name of an entry "
            "point in the group `nocookie.stores`, or a store object; `cookie`, which keeps "
            "sessions with their clients (needs `secret` and `nocookie[crypto]`). Without it "
            "`file` if there is a `data_dir`, else `memory`.",
        ),
        Option(
            "url",
            _optional(_text),
            None,
            "Where the store's server is. `redis`: `redis://`, `rediss://` (TLS), `unix://` or "
            "`redis+cluster://`. `memcached`: `host:port`, several with `;` between them. "
            "`sqlalchemy`: any URL of SQLAlchemy.",
            hidden=True,  # there may be a password in it
        ),
        Option(
            "engine",
            _optional(_engine),
            None,
            "For `sqlalchemy` instead of `url`: an `Engine` that the application has already.",
            hidden=True,
        ),
        Option("table_name", _text, "nocookie_sessions", "The table of the `sqlalchemy` store."),
        Option(
            "schema_name",
            _optional(_text),
            None,
            "The schema that the table is in; `none` for the connection's own.",
        ),
        Option(
            "create_table",
            _bool,
            False,
            "Make the table of the `sqlalchemy` store if it is missing.",
        ),
        Option(
            "key_prefix",
            _text,
            "nocookie:",
            "What the keys of the `redis` and `memcached` stores begin with, and what tokens of "
            "`type = cookie` are bound to: another prefix, other sessions.",
        ),
        Option("data_dir", _optional(_path), None, "The folder of the `file` store."),
        Option(
            "durability",
            _one_of("normal", "full"),
            "normal",
            "What a save to the `file` store "
            "survives: `normal`, a crash of the process; `full`, a loss of power too.",
        ),
        Option(
            "max_sessions",
            _count,
            100_000,
            "How many sessions the `memory` store holds; past that, the longest idle one without "
            "an owner makes room.",
        ),
        Option(
            "deadline",
            _seconds_to(LONGEST_CALL, "a day"),
            2.0,
            "Seconds that one call of the store may take, at most a day.",
        ),
        Option(
            "timeout",
            _optional(_seconds),
            1800.0,
            "Seconds a session may lie unused, at most 100 years; `none` for ever.",
        ),
        Option(
            "lifetime",
            _optional(_seconds),
            43200.0,
            "Seconds a session lives, however much it is used, at most 100 years; `none` for ever. "
            "Where it is not written, it is no less than `timeout`.",
        ),
        Option(
            "request_limit",
            _seconds,
            3600.0,
            "Seconds that a request may take: for so long a session whose `timeout` is over stays, "
            "within its `lifetime`, and what a request that began before then saves is not lost. "
            "To a request that begins later it has ended all the same.",
        ),
        Option(
            "rotate_every",
            _optional(_seconds),
            None,
            "Seconds after which a session in use goes on under a fresh id by itself, at most 100 "
            "years; `none` for never. Only where the response can tell the client, so not with a "
            "finder of your own.",
        ),
        Option(
            "rotation_grace",
            _seconds,
            10.0,
            "Seconds for which the old id still leads to the session after such a rotation: for "
            "requests that were on their way, and responses that got lost. Never across a login.",
        ),
        Option("auto", _bool, False, "Save what a request changed without a call of `save()`."),
        Option(
            "secret",
            _given(_secrets),
            None,
            "Signs ids, so that forged ones are refused "
            "without asking the store, and stored values, so that none can be planted. Several: "
            "the newest first; it signs, all verify.",
            hidden=True,
        ),
        Option(
            "encrypt_key",
            _given(_secrets),
            None,
            "Encrypts stored values (AES-256-GCM). "
            "Needs `secret` and `nocookie[crypto]`. Several: the newest first.",
            hidden=True,
        ),
        Option(
            "data_serializer",
            _one_of("json", "pickle"),
            "json",
            "How values become bytes. `pickle` takes any object, and needs `secret`.",
        ),
        Option(
            "values",
            _one_of("exact", "base"),
            "exact",
            "What becomes of a value whose type is a subclass of a plain one (`IntEnum`, "
            "`OrderedDict`): `exact` refuses it, `base` keeps it as the plain type. For JSON.",
        ),
        Option("max_value_size", _count, 1_000_000, "Bytes that one value may have when encoded."),
        Option(
            "max_size",
            _count,
            1_000_000,
            "Bytes that all values of a session and the names of their keys may have: by "
            "default what every store can take (memcached's items end at 1 MiB).",
        ),
        Option(
            "max_keys",
            _count,
            1000,
            "Keys that a session may have. The name of one has at most 1024 bytes.",
        ),
        Option(
            "on_unknown",
            _one_of("new", "error"),
            "new",
            "What a client without a session that we know gets where one is needed: `new`, an "
            "empty one; `error`, 400 if it brought no id and 404 if its session has ended, unless "
            "the handler called `session.start()` or `session.login(owner)` first.",
        ),
        Option(
            "require_https",
            _bool,
            False,
            "Neither accept nor give out ids over plain HTTP: such a request has no session, and "
            "403 if it wants to save one; and no link, redirect or script that is plain HTTP gets "
            "an id.",
        ),
        Option(
            "trusted_proxies",
            _networks,
            (),
            "The addresses or networks of proxies whose `Forwarded` or `X-Forwarded-Proto` says "
            "how the client came: `10.0.0.1, 192.168.0.0/16`. Plain HTTP in either of the two "
            "counts, because a proxy writes one and may pass on the client's other. What others "
            "say of it is ignored.",
        ),
        Option(
            "watch_client",
            _bool,
            False,
            "Report the event `client changed` when a session is used by a client whose "
            "`User-Agent` is not the one of the login. Advice, no defence: agents are updated, and "
            "can be copied.",
        ),
        Option(
            "on_event",
            _callbacks,
            (),
            "What is called with each event (`nocookie.events.Event`): a callable, "
            "`package.module:callable`, or a list of these. It may raise `TooManyTries`.",
        ),
        Option(
            "strict",
            _bool,
            True,
            "Never adopt an id that we did not issue. `False` is for "
            "gateways that issue ids themselves; it needs `id_key`.",
        ),
        Option(
            "id_key",
            _optional(_text),
            None,
            "With `strict = False`, the key under which the "
            "gateway's ids are hashed for the store.",
            hidden=True,
        ),
        Option("key", _text, "nocookie.session.id", "The name of the cookie."),
        Option("cookie_path", _text, "/", "The cookie's `Path`."),
        Option("cookie_domain", _optional(_text), None, "The cookie's `Domain`."),
        Option(
            "cookie_expires",
            _cookie_expires,
            True,
            "When the browser drops the cookie: `true`, at the end of its own session; `false`, "
            "never; a number of seconds or a `timedelta`, so long after the last use, at most 100 "
            "years; a `datetime`, then.",
        ),
        Option("secure", _bool, False, "Send the cookie over HTTPS only."),
        Option("httponly", _bool, True, "Hide the cookie from scripts."),
        Option(
            "samesite",
            _samesite,
            "Lax",
            "The cookie's `SameSite`.",
        ),
        Option(
            "partitioned",
            _bool,
            False,
            "In a frame of another site, keep the cookie for that site alone (CHIPS): the only one "
            "that browsers keep there. Needs `secure`.",
        ),
        Option(
            "beaker_ids_until",
            _optional(_until),
            None,
            "Until when clients of Beaker may come with the ids that it gave them: a date, or a "
            "date and time (UTC). Only sessions that `nocookie import` brought over have such an "
            "id, and at their first use they get one of ours.",
        ),
        Option(
            "beaker_secret",
            _given(_exact),
            None,
            "Beaker's `secret`, with which its cookies are signed: an id of its own then counts "
            "only with the right signature, in whatever carrier. Leave it out if clients have ids "
            "without one.",
            hidden=True,
        ),
        Option(
            "clock",
            _clock,
            time.time,
            "What tells the time, in seconds since the epoch: for tests.",
        ),
    )
}


class Configuration:
    """What an application was given: *config* and *keywords*, as for `resolve`. There are secrets
    in it, so it is not shown."""

    def __init__(self, config: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> None:
        self.config = config
        self.keywords = keywords


class Settings(dict[str, Any]):
    """A value for every option."""

    #: What was taken otherwise than it is written.
    notes: Sequence[str] = ()


def resolve(config: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> Settings:
    """Return a value for every option, and what there is to note about them.

    The strongest source wins: a keyword, then the keys of *config* under `nocookie.`,
    `session.`, `beaker.session.` and, of Beaker's options, `session_`. Keys without one of these
    prefixes belong to others and are ignored, but for `cache_dir`, which gives `data_dir`. A
    keyword may have a prefix too, as Beaker takes it.

    Raises `ConfigError`.
    """
    config = config or {}
    ours = {key: value for key, value in config.items() if is_ours(key)}
    given, notes = translated(
        with_cache_dir(by_name(ours) | by_name(keywords), config.get("cache_dir"))
    )
    settings = Settings((name, option.default) for name, option in OPTIONS.items())
    for name, (key, value) in given.items():
        name = known(name, key)
        settings[name] = converted(name, value)
    settings.notes = [str(note) for note in (*notes, *lengthened(settings, given))]
    agree(settings)
    return settings


def is_ours(key: Any) -> bool:
    """Whether a key is an option of sessions wherever it is written."""
    return isinstance(key, str) and _prefix(key) != ""


def _prefix(key: str) -> str:
    if key.startswith(PREFIXES):
        return next(prefix for prefix in PREFIXES if key.startswith(prefix))
    is_old = key.startswith(OLDEST) and key.removeprefix(OLDEST) in BEAKERS
    return OLDEST if is_old else ""


def by_name(conf: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Return the options of *conf* by name, each as it is written and its value. If one is written
    under several prefixes, the strongest counts; without any is stronger still."""
    found = {}
    for prefix in (OLDEST, *reversed(PREFIXES), ""):
        for key, value in conf.items():
            if _prefix(key) == prefix:
                found[key.removeprefix(prefix)] = key, value
    return found


def with_cache_dir(given: dict[str, tuple[str, Any]], folder: Any) -> dict[str, tuple[str, Any]]:
    """Return *given* with the `data_dir` that a *folder* named `cache_dir` is. One that is a URL is
    somebody else's cache, if sessions have a `type`."""
    if not folder or "data_dir" in given or ("type" in given and "://" in str(folder)):
        return given
    return {"data_dir": ("cache_dir", folder), **given}


def lengthened(settings: dict[str, Any], given: Mapping[str, tuple[str, Any]]) -> Iterator[Note]:
    """Have `lifetime` not end a session before the `timeout` that is written, unless it is written
    itself; yield a note on times that are not as long as what is written suggests."""
    timeout, lifetime = settings["timeout"], settings["lifetime"]
    if "lifetime" not in given and timeout is not None and timeout > lifetime:
        settings["lifetime"] = timeout
        yield Note("lifetime", "lifetime", f"as long as timeout, {in_seconds(timeout)}")
    expires = settings["cookie_expires"]
    outlasts = isinstance(expires, timedelta) and expires.total_seconds() > (timeout or math.inf)
    key, _ = given.get("cookie_expires", ("", None))
    # Beaker has no timeout unless it is written: then the cookie was all that ended.
    if (
        (outlasts or expires is False)
        and "timeout" not in given
        and key.startswith(BEAKER_PREFIXES)
    ):
        yield Note("timeout", "timeout", f"{in_seconds(timeout)}, before {key} ends the cookie")


def in_seconds(time: float) -> str:
    """Return a number of seconds as it is written for people."""
    return f"{int(time) if time.is_integer() else time} seconds"


def known(name: str, written: str) -> str:
    """Return *name*, if it is an option. Raises `ConfigError`, which says what to do instead."""
    if name in OPTIONS:
        return name
    if name in REFUSED:
        raise ConfigError(f"option {written!r} is not taken: {REFUSED[name]}")
    near = HINTS.get(name) or "".join(
        difflib.get_close_matches(name, [*OPTIONS, *NEEDLESS], 1, NEAR)
    )
    hint = f"did you mean {near!r}?" if near else "see docs/configuration.md for what there is"
    raise ConfigError(f"unknown option {written!r}; {hint}")


def is_secret(name: str, value: Any) -> bool:
    """Whether the value of an option is never shown. A folder that is the URL of a server may have
    a password in it."""
    return OPTIONS[name].hidden or (name == "data_dir" and "://" in str(value))


def converted(name: str, value: Any) -> Any:
    """Return the value of an option as it is taken. Raises `ConfigError`; if the option is a
    hidden one, that does not show the value."""
    option = OPTIONS[name]
    try:
        return option.convert(value)
    except ValueError as error:
        shown = "the value given" if is_secret(name, value) else repr(value)
        raise ConfigError(f"option {option.name!r} {error}, not {shown}") from None


def agree(settings: Mapping[str, Any]) -> None:
    """Refuse options that contradict one another: raise `ConfigError`."""
    if settings["data_serializer"] == "pickle" and not settings["secret"]:
        raise ConfigError(
            "data_serializer = pickle needs a secret: unpickling runs what the bytes say, so they "
            "must be known to be ours"
        )
    if settings["data_serializer"] == "pickle" and settings["values"] == "base":
        raise ConfigError("values = base is for JSON: pickle keeps values of any type exactly")
    if settings["type"] == "cookie":
        if not settings["secret"]:
            raise ConfigError("type = cookie needs a secret: the client keeps the whole session")
        if not settings["strict"]:
            raise ConfigError("type = cookie and strict = False exclude one another")
    if settings["encrypt_key"] and not settings["secret"]:
        raise ConfigError("encrypt_key needs a secret too: it binds a record to its id")
    if not settings["strict"] and not settings["id_key"]:
        raise ConfigError(
            "strict = False needs id_key: ids of a gateway may be guessable, so the store only "
            "sees them hashed with a key"
        )
    if settings["beaker_ids_until"]:
        if settings["type"] == "cookie" or not settings["strict"]:
            raise ConfigError(
                "beaker_ids_until is for sessions in a store with ids of ours: it goes neither "
                "with type = cookie nor with strict = False"
            )
    elif settings["beaker_secret"]:
        raise ConfigError(
            "beaker_secret is for ids that Beaker issued: it needs beaker_ids_until, and goes when "
            "that goes"
        )
    if settings["require_https"] and (settings["origin"] or "").startswith("http:"):
        raise ConfigError(
            "require_https and an origin with http: exclude one another: no link could have an id"
        )
    if settings["use_cookies"] and settings["rewrite"] in ("location", "html"):
        raise ConfigError(
            "rewrite puts ids into URLs, and with use_cookies = True there are none; it needs "
            "use_cookies = False and a find_id such as query:sid"
        )
    if settings["use_cookies"] and settings["find_id"] is not None:
        raise ConfigError(
            "find_id needs use_cookies = False; for a cookie among other carriers put "
            "Cookie(...) into its list"
        )

    if settings["rotate_every"] is not None and not settings["strict"]:
        raise ConfigError(
            "rotate_every goes with strict = True: ids that a gateway issues cannot be rotated"
        )
    if settings["rotate_every"] is not None and settings["type"] == "cookie":
        raise ConfigError(
            "rotate_every goes with no type = cookie: what the client holds changes with every save"
        )
    if (settings["rotate_every"] or math.inf) * MOST_TURNS < settings["rotation_grace"]:
        raise ConfigError(
            f"rotation_grace is at most {MOST_TURNS} times rotate_every: an old id leads on over "
            "so many rotations, and over no more"
        )


def reference() -> str:
    """Return the table as the Markdown page docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "<!-- Written from nocookie/options.py by `make docs`; a test compares them. -->",
        "",
        "Options are keywords of `SessionMiddleware`, or keys of its `config` under one of the",
        "prefixes `nocookie.`, `session.` and `beaker.session.`; the first that has an option",
        "wins, and a keyword wins over all. Beaker's options may also have its oldest prefix,",
        '`session_`. Text is converted: `"False"` is false, `"1800"` a number. An unknown option',
        "or a wrong value is a `ConfigError` at construction. Keys of `config` without these",
        "prefixes belong to others and are ignored, except `cache_dir`, which gives `data_dir`.",
        "",
        "| option | default | meaning |",
        "| --- | --- | --- |",
    ]
    for option in OPTIONS.values():
        default = "the system's" if option.name == "clock" else f"`{_written(option.default)}`"
        lines.append(f"| `{option.name}` | {default} | {option.doc} |")
    lines += [
        "",
        "## Options of Beaker that are not needed",
        "",
        "They are taken, and named once in the log when the application starts, in one event",
        "`options`.",
        "",
        "| option | why |",
        "| --- | --- |",
    ]
    lines += [f"| `{name}` | {why} |" for name, why in NEEDLESS.items()]
    lines += [f"| `{name}` | it is `{ours}` |" for name, ours in RENAMED.items()]
    lines += [
        "",
        "`save_accessed_time = False` is not taken. Without a `secret`, `validate_key` is it.",
        "",
        "## Options of Beaker that are not taken",
        "",
        "| option | instead |",
        "| --- | --- |",
    ]
    lines += [f"| `{name}` | {why} |" for name, why in REFUSED.items()]
    return "\n".join(lines) + "\n"


def _written(value: Any) -> str:
    if value is None or value == ():
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
