"""The fingerprints that somebody typed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import click

from nocookie.ids import FINGERPRINT_LENGTH

__all__ = ["fingerprints"]

_is_fingerprint: Final = re.compile(rf"[0-9a-f]{{{FINGERPRINT_LENGTH}}}", re.ASCII).fullmatch


def fingerprints(texts: Iterable[str]) -> list[str]:
    """Return each text once. Raises `click.BadParameter` for what is no fingerprint: perhaps it
    is an id, so it is not repeated."""
    found = dict.fromkeys(texts)
    if not all(map(_is_fingerprint, found)):
        raise click.BadParameter(
            f"a fingerprint is {FINGERPRINT_LENGTH} characters of 0-9 and a-f, as logs and "
            "`nocookie list` show them; no more of a store key, and no id."
        )
    return list(found)
