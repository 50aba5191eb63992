"""How commands show sessions: tables and times for people, one shape of JSON for programs."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate, chain, islice
from typing import Final

from nocookie.listing import Listed

__all__ = ["as_json", "moment", "printable", "seconds", "table"]

#: Rows that decide how wide the columns are. More may follow, and are never all in memory.
BLOCK: Final = 1000
#: A column is no wider than this, but for the last.
WIDEST: Final = 32


def printable(text: str) -> str:
    """Return *text* without what a terminal would act upon."""
    text = " ".join(text.split())
    return text if text.isprintable() else ascii(text)


def moment(utc: bool) -> Callable[[float | None], str]:
    """Return what writes a time, in seconds since the epoch, as people read it."""

    def written(seconds: float | None) -> str:
        if seconds is None:
            return "?"
        if seconds == math.inf:
            return "never"
        try:
            then = datetime.fromtimestamp(seconds, UTC if utc else None)
        except (OverflowError, ValueError, OSError):
            return "?"  # no clock was that wrong: somebody wrote it
        return f"{then:%Y-%m-%d %H:%M:%S}{'Z' if utc else ''}"

    return written


def seconds(value: float | None) -> float | None:
    """Return a time for JSON, which has no infinity."""
    return None if value is None or not math.isfinite(value) else value


def as_json(one: Listed) -> dict[str, object]:
    return {
        **one._asdict(),
        "created": seconds(one.created),
        "last_accessed": seconds(one.last_accessed),
        "expires": seconds(one.expires),
    }


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table; the first rows decide its columns, later ones keep to them."""
    rows = iter(rows)
    first = [titles, *islice(rows, BLOCK)]
    widths = [min(WIDEST, max(map(_width, column))) for column in zip(*first, strict=True)]
    for row in chain(first, rows):
        cells = map(_padded, row[:-1], widths)
        yield "  ".join((*cells, row[-1])).rstrip()


def _padded(text: str, width: int) -> str:
    widths = list(accumulate(map(_columns, text)))
    if widths and widths[-1] > width:
        text = text[: bisect_left(widths, width)] + "…"
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(map(_columns, text))


def _columns(one: str) -> int:
    return 0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
