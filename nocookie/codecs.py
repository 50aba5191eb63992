"""Values to bytes and back, one value at a time.

`JsonCodec` is the default. It holds what JSON holds, and by tags what JSON lacks: bytes,
bytearray, tuple, set, frozenset, datetime, date, time, timedelta, Decimal, UUID, and dicts
whose keys are not all strings, and MarkupSafe's `Markup`. A value comes back equal and of the same
type, or it is refused by name when it is saved: nothing is turned into something similar, so a
subclass (an IntEnum, a namedtuple) is refused too; unless `values = base` says that its plain type
will do.

A tag is an object with one key that starts with "!":

    {"!tuple": [1, 2]}    {"!bytes": "AAE="}    {"!dict": [[1, "one"]]}

A dict of the application that looks like one is written as a "!dict" itself, so no data can
pass for a tag.

`PickleCodec` takes whatever pickle takes. Unpickling runs what the bytes say, so it is used
only on bytes that a secret has authenticated first.

Encoded values start with a letter for their form: `j` JSON, `s` text in UTF-8, `i` an int, `p` a
pickle. So after a change of `data_serializer` the values that are there can still be read, and
the two commonest types skip the detours that the json module takes for them.
"""

from __future__ import annotations

import json
import pickle
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from nocookie.bases import base_of, is_markup

__all__ = ["Codec", "JsonCodec", "PickleCodec", "Undecodable"]

#: Deep enough for data, shallow enough that no interpreter's recursion limit is in sight.
MAX_DEPTH: Final = 64

#: The letters of the forms, as bytes are when they are indexed.
_TEXT, _INT, _JSON = b"sij"

#: What the parsers below raise when bytes are not what we wrote.
_BAD_DATA: Final = (
    *(ValueError, TypeError, ArithmeticError, LookupError, AttributeError),
    *(OSError, RecursionError),
    StopIteration,  # the scanner's word for "no value starts here"
)


class Undecodable(Exception):
    """Bytes that are no value of ours, or of a later version. Never leaves the library."""


class _UnknownType(TypeError):
    """A value of no type that is held."""


class Codec(Protocol):
    """`dumps` raises TypeError or ValueError with a reason that a person can act on; `loads`
    raises `Undecodable` and nothing else. A value that was decoded and not changed gives the same
    bytes again, each time: that is how a change in place is noticed."""

    def dumps(self, value: Any) -> bytes: ...
    def loads(self, data: bytes) -> Any: ...


class JsonCodec:
    """JSON (RFC 8259) with tags. With *base*, a value of a subclass is kept as its plain type."""

    def __init__(self, base: bool = False) -> None:
        self._base = base

    def dumps(self, value: Any) -> bytes:
        kind = type(value)
        if kind is str:
            return b"s" + str.encode(value, "utf-8", "surrogatepass")
        if kind is int:
            return b"i%d" % value
        try:
            plain = _plain(value, 0)
        except _UnknownType:
            if not self._base:
                raise
            return _EXACT.dumps(base_of(value, MAX_DEPTH + 2))
        return b"j" + _encode(plain).encode("utf-8", "surrogatepass")

    def loads(self, data: bytes) -> Any:
        try:
            form = data[0]
            if form == _TEXT:
                return data[1:].decode("utf-8", "surrogatepass")
            if form == _INT:
                return int(data[1:])
            if form == _JSON:
                text = data.decode("utf-8", "surrogatepass")
                value, end = _decode(text, 1)
                if end == len(text):
                    return value
        except _BAD_DATA as error:
            raise Undecodable(f"not JSON of ours: {type(error).__name__}") from None
        raise Undecodable("not a value of the JSON codec")


_EXACT: Final = JsonCodec()


class PickleCodec:
    """Whatever can be pickled; what JSON values are there can still be read.

    Must only be given bytes that have been authenticated (CVE-2013-7489 is what happens else): the
    options refuse a pickle codec without a secret.
    """

    def __init__(self) -> None:
        self._json = JsonCodec()

    def dumps(self, value: Any) -> bytes:
        try:
            return b"p" + pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # __reduce__ and __getstate__ are anybody's code
            raise TypeError(f"{type(value).__name__} cannot be pickled: {error}") from error

    def loads(self, data: bytes) -> Any:
        if data[:1] != b"p":
            return self._json.loads(data)
        try:
            return pickle.loads(data[1:])  # noqa: S301 - authenticated: see the class
        except Exception as error:  # a class that moved, a __setstate__ that raises
            raise Undecodable(f"not unpicklable here: {type(error).__name__}") from error


# -- from values to JSON --------------------------------------------------------------------

# Not in ASCII: two escaped lone surrogates would come back as the one character they spell.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode

#: What JSON gives back as it got it. Exact types: True is not 1 here, and an IntEnum not int.
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def _plain(value: Any, depth: int) -> Any:
    """Return *value* as the json module can write it, or raise TypeError or ValueError."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep, or in a circle")
    depth += 1
    if kind is list:
        return [v if type(v) in _SCALARS else _plain(v, depth) for v in value]
    if kind is dict:
        for key in value:
            if type(key) is not str or key[:1] == "!":
                pairs = [[_plain(k, depth), _plain(v, depth)] for k, v in value.items()]
                return {"!dict": pairs}
        return {k: v if type(v) in _SCALARS else _plain(v, depth) for k, v in value.items()}
    try:
        tag, convert = _TAGS[kind]
    except KeyError:
        if is_markup(kind):
            return {"!markup": str.__str__(value)}
        raise _UnknownType(
            f"{kind.__module__}.{kind.__qualname__} is no type that a session holds; "
            "convert it, or set data_serializer = pickle"
        ) from None
    return {tag: convert(value, depth)}


def _items(value: Any, depth: int) -> list[Any]:
    return [_plain(v, depth) for v in value]


def _sorted_items(value: Any, depth: int) -> list[Any]:
    # Sets have no order; without one, an unchanged set would look changed at every save.
    return sorted(_items(value, depth), key=_encode)


def _base64(value: bytes | bytearray, depth: int) -> str:
    return b64encode(value).decode("ascii")


def _datetime(value: datetime | time, depth: int) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, _zone(value.tzinfo)]


def _zone(zone: tzinfo | None) -> str | float | list[Any] | None:
    if zone is None:
        return None
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        seconds = offset.total_seconds()
        return seconds if name == timezone(offset).tzname(None) else [seconds, name]
    raise TypeError(f"a time zone of type {type(zone).__name__} has no name to store")


_TAGS: Final[dict[type, tuple[str, Callable[[Any, int], Any]]]] = {
    tuple: ("!tuple", _items),
    set: ("!set", _sorted_items),
    frozenset: ("!frozenset", _sorted_items),
    bytes: ("!bytes", _base64),
    bytearray: ("!bytearray", _base64),
    datetime: ("!datetime", _datetime),
    time: ("!time", _datetime),
    date: ("!date", lambda value, _: value.isoformat()),
    timedelta: ("!timedelta", lambda value, _: [value.days, value.seconds, value.microseconds]),
    Decimal: ("!decimal", lambda value, _: str(value)),
    UUID: ("!uuid", lambda value, _: value.hex),
}

# -- and back ----------------------------------------------------------------------------------


def _zone_of(zone: str | float | list[Any] | None) -> tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        return ZoneInfo(zone)
    if isinstance(zone, list):
        seconds, name = zone
        return timezone(timedelta(seconds=seconds), name)
    return timezone(timedelta(seconds=zone))


def _to_datetime(parts: list[Any]) -> datetime:
    text, fold, zone = parts
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=_zone_of(zone))


def _to_time(parts: list[Any]) -> time:
    text, fold, zone = parts
    return time.fromisoformat(text).replace(fold=fold, tzinfo=_zone_of(zone))


def _to_timedelta(parts: list[int]) -> timedelta:
    return timedelta(*parts)


def _to_markup(text: str) -> str:
    """Where MarkupSafe is missing now, it is text, which templates escape."""
    try:
        from markupsafe import Markup
    except ImportError:
        return text
    return Markup(text)  # noqa: S704 - what was stored as such


_UNTAG: Final[dict[str, Callable[[Any], Any]]] = {
    "!tuple": tuple,
    "!set": set,
    "!frozenset": frozenset,
    "!bytes": b64decode,
    "!bytearray": lambda text: bytearray(b64decode(text)),
    "!datetime": _to_datetime,
    "!time": _to_time,
    "!date": date.fromisoformat,
    "!timedelta": _to_timedelta,
    "!decimal": Decimal,
    "!uuid": UUID,
    "!dict": dict,
    "!markup": _to_markup,
}


def _untagged(pairs: dict[str, Any]) -> Any:
    if len(pairs) == 1:
        (tag,) = pairs
        if tag[:1] == "!":
            return _UNTAG[tag](pairs[tag])
    return pairs


# What decode() and raw_decode() come to, without their detours.
_decode: Callable[[str, int], tuple[Any, int]]
_decode = json.JSONDecoder(object_hook=_untagged).scan_once  # type: ignore[attr-defined]
