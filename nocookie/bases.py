"""Values as their plain types: what is left of a subclass when only its data counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

__all__ = ["CONTAINERS", "base_of", "is_markup"]

CONTAINERS: Final = (list, dict, tuple, set, frozenset, bytearray)


def _date(value: date) -> date:
    return date(value.year, value.month, value.day)


def _time(value: datetime | time) -> time:
    zone = value.tzinfo
    if isinstance(zone, ZoneInfo) and zone.key is not None:
        zone = ZoneInfo(zone.key)
    return time(
        *(value.hour, value.minute, value.second, value.microsecond), tzinfo=zone, fold=value.fold
    )


#: By the plain type, what makes one of a subclass's value. `datetime` is a `date`: the first of a
#: class's bases that is here counts.
_MAKE: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: lambda value: bytearray(memoryview(value)),
    datetime: lambda value: datetime.combine(_date(value), _time(value)),
    date: _date,
    time: _time,
    timedelta: lambda value: timedelta(value.days, value.seconds, value.microseconds),
    Decimal: lambda value: Decimal(value.as_tuple()),
    UUID: lambda value: UUID(int=value.int),
}


def base_of(value: Any, deepest: int) -> Any:
    """Return *value* with each instance of a subclass of a plain type as one of that type, down to
    *deepest* levels; what is of no plain type stays. A `Markup` stays too: it is a type by itself.

    Raises `ValueError` for what is nested deeper.
    """
    if deepest < 0:
        raise ValueError("nested too deep, or in a circle")
    deepest -= 1
    if is_markup(type(value)):
        return value
    for kind in type(value).__mro__:
        if kind is dict:
            return {base_of(k, deepest): base_of(v, deepest) for k, v in value.items()}
        if kind in CONTAINERS and kind is not bytearray:
            return kind(base_of(item, deepest) for item in value)
        if kind in _MAKE:
            return value if kind is type(value) else _MAKE[kind](value)
    return value


def is_markup(kind: type) -> bool:
    """Whether this is MarkupSafe's type of text that is HTML already."""
    return kind.__qualname__ == "Markup" and kind.__module__ == "markupsafe"
