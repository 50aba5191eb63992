"""How much is read of one of Beaker's sessions.

Whoever could write to Beaker's store decides what is in it. So no entry takes more memory than a
few times the largest session, whatever it says of its size.
"""

from __future__ import annotations

import pickletools
import zlib
from io import BytesIO
from typing import Any, Final

__all__ = ["LARGER", "MOST", "Unreadable", "bounded", "check_extent", "check_steps", "inflated"]
__all__ += ["most_bytes", "too_large"]

#: By how much Beaker's form of a session may be longer than ours: Base64, JSON that spells every
#: character that is not ASCII in six, pickled bytes that take two for each.
LARGER: Final = 4
LEAST: Final = 65_536


def most_bytes(max_size: int) -> int:
    """Return how many bytes of Beaker's can become a session of *max_size* here. What is larger is
    not read."""
    return max(LARGER * max_size, LEAST)


#: For the default of max_size.
MOST: Final = most_bytes(1_000_000)


class Unreadable(Exception):
    """A record that is no session of Beaker's, or not with these options."""


def bounded(data: bytes, most: int) -> bytes:
    """Return *data*. Raises `Unreadable` for more than *most* bytes."""
    if len(data) > most:
        raise too_large(most)
    return data


def too_large(most: int) -> Unreadable:
    return Unreadable(f"it has more than {most:,} bytes, {LARGER} times max_size")


def inflated(data: bytes, most: int) -> bytes:
    """Return what zlib has deflated, and inflate no more than *most* bytes of it. Raises
    `Unreadable` for more; ValueError or zlib.error for what is cut short or broken."""
    inflater = zlib.decompressobj()
    plain = inflater.decompress(data, most + 1)
    if not inflater.eof and len(plain) <= most:
        raise ValueError("it is cut short")
    return bounded(plain, most)


def check_steps(data: bytes, most: int) -> None:
    """Raise `Unreadable` for a pickle that an unpickler would take far more memory for than the
    pickle has: one of very many steps, or that counts on places which are not there. Raises nearly
    anything for one that is broken, or that counts on lengths which are not there."""
    pickle = BytesIO(data)
    number = 0
    while True:
        try:
            for step, argument, _ in pickletools.genops(pickle):
                # Each step makes one thing at most. Whoever pickles numbers what it keeps one after
                # the other.
                if number > most // LARGER or ("PUT" in step.name and int(argument or 0) > number):
                    raise Unreadable("it is no session: its pickle makes too much of too little")
                number += 1
            return
        except UnicodeDecodeError:
            # Of a text of Python 2, which is not read here; on with the step behind it.
            number += 1


def check_extent(value: Any, most: int) -> None:
    """Raise `Unreadable` for lists and dicts that would be more than *most* written out: a pickle
    can name one of them, or a long text, in many places."""
    left, size = [value], 1
    while left:
        value = left.pop()
        if isinstance(value, dict):
            inside = [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            inside = list(value)
        else:
            inside = []
        size += len(inside) + (len(value) if isinstance(value, (str, bytes, bytearray)) else 0)
        if size > most:
            raise too_large(most)
        left += inside
