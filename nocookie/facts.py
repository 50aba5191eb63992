"""What is known of a session beside its data: whose it is, since when, for how long.

It lies in fields of the record whose names an application's never have, sealed like every value.
A session that nobody logged in to, and whose times are the application's, has none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from nocookie.options import LONGEST
from nocookie.stores.base import OWN_LIFE

__all__ = ["FACTS", "OWN", "RESERVED", "Facts", "Life"]

#: What the names of our own fields begin with.
RESERVED: Final = "\0"
FACTS: Final = "\0facts"
#: A record with any of these has the first.
OWN: Final = (FACTS, OWN_LIFE)

#: No limit: infinity is no number for JSON.
_NEVER: Final = 0


class Facts(NamedTuple):
    """Each may be None."""

    owner: str | None = None
    #: How the id travelled at the login, as text: `Header('X-Session-Id')`.
    carrier: str | None = None
    #: What the client is called, for people.
    client: str | None = None
    #: A digest of what the client said it is at the login.
    agent: str | None = None
    #: When the id was last changed by itself, in seconds since the epoch.
    rotated: float | None = None
    #: Where `nocookie import` has it from, as a digest; until its client comes.
    imported: str | None = None

    def written(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def read(cls, value: Any) -> Facts:
        """Raises TypeError or ValueError for what `written` did not return."""
        facts = cls(**value)
        texts = facts.owner, facts.carrier, facts.client, facts.agent, facts.imported
        if not all(text is None or type(text) is str for text in texts):
            raise ValueError("a fact is no text")
        return facts._replace(rotated=_moment(facts.rotated))


class Life(NamedTuple):
    """How long a session lives, where that is not what the application's options say. None is
    what they say, infinity no limit; all in seconds."""

    timeout: float | None = None
    lifetime: float | None = None
    #: Where `lifetime` begins, if not at `created`: that came from a clock that was ahead.
    since: float | None = None

    def written(self) -> dict[str, Any]:
        return {
            name: _NEVER if value == math.inf else value
            for name, value in self._asdict().items()
            if value is not None
        }

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Life:
        """Raises TypeError or ValueError for what `written` did not return."""
        life = cls(**value)
        return cls(_seconds(life.timeout), _seconds(life.lifetime), _moment(life.since))


def _seconds(value: Any) -> float | None:
    seconds = _moment(value)
    if seconds is None:
        return None
    # Not every store can hold more; the record may be another's work.
    return math.inf if seconds == _NEVER else min(seconds, LONGEST)


def _moment(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ValueError("a time is no number")
    return float(value)
