"""What a store promises.

A store keeps records under keys. It sees a hash of the id and encoded values: never the id,
never a Python object. A key is 64 hexadecimal digits; a field has for its name any text that
UTF-8 can encode, and for its value any bytes, also none; a record may have no fields. Times are
seconds since the epoch; a `ttl` is how many seconds a record may lie unused from now, `inf` for
ever. That is longer than a session may: a request that began before its time was over can still
save, so sessions ask for `timeout` and `request_limit` together, within `lifetime`, and decide by
`Record.accessed` whether a request that begins may have one.

The promises, each of them in `nocookie.testing.StoreSuite`:

* **An answer is the truth or an error.** What is missing is `Missing`; a store that cannot say
  raises `StoreError`, within the deadline. It never answers "nothing" because it failed.
* **Create is not save.** `create` never overwrites a living record; `save`, `touch` and
  `rotate` never bring one into being. On a record that is gone they raise `SessionGone`, so a
  request that was under way at a logout cannot undo it.
* **A save is a delta**, applied in one step to the record as it is by then: two requests that
  change different fields lose nothing, and readers see all of a delta or nothing.
* **Ended is ended.** After `destroy(key)` or `rotate(key, ...)` returns, *key* is missing for
  everybody. A living key is never missing, however much others write to it.
* **Moved is not living.** A rotation may leave a trail under the old key for some seconds. It
  answers `load` with `Moved`, and nothing else: what is written there raises `SessionGone`.
* **Expiry is decided on read**, by `Record.expires`. Sweeping only frees space. To read a record
  that has expired changes nothing: to a host whose clock is behind it lives, and may be renewed.
* **What lives is there.** Until `Record.expires` nothing but an end removes a record: no read, no
  purge, no expiry that a server has of its own. (Where a server evicts, that is an end.)
* **What is acknowledged is stored**, at the level of durability that the store states.

Optional powers are protocols of their own (`Renewing`, `InOneStep`, `Purgeable`, `Countable`,
`Listable`, `ByOwner`); ask with isinstance.

Fields whose names begin with NUL are the library's own (`OWN_LIFE` below); an application's never
do. To a store they are fields like all others, but for `Renewing`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol, runtime_checkable

__all__ = [
    "OWN_LIFE",
    "ByOwner",
    "Countable",
    "Delta",
    "InOneStep",
    "KeyTaken",
    "Listable",
    "Missing",
    "Moved",
    "Purgeable",
    "Record",
    "Renewing",
    "Store",
    "Trail",
    "VersionChanged",
    "is_same",
    "merge",
    "pack",
    "unpack",
]


#: The field of a session whose timeout and lifetime are its own, not the application's.
OWN_LIFE: Final = "\0life"


class Record(NamedTuple):
    """One session as a store holds it."""

    #: Encoded values by name. What `load` returns may be shared between readers and is never
    #: changed in place; what a store is given it copies.
    fields: Mapping[str, bytes]
    #: When the session began. A rotation does not change it.
    created: float
    #: The last save or touch.
    accessed: float
    #: The first moment at which the record does not count any more.
    expires: float
    #: Changes with every save and rotation; what `expect` is compared with.
    version: int
    #: Opaque to the store; replaced by a rotation.
    seal: bytes = b""


class Delta(NamedTuple):
    """What a save sends: how the record changed since it was loaded. Cleared first, then
    deleted, then set: a name in both is set."""

    set: Mapping[str, bytes] = {}
    deleted: Collection[str] = ()
    #: Remove every field first, also those that others added meanwhile.
    cleared: bool = False


#: Make a `Record` or a `Delta` of a tuple, without the detour of the named constructor.
new_record: Callable[[tuple[Mapping[str, bytes], float, float, float, int, bytes]], Record]
new_record = partial(tuple.__new__, Record)
new_delta: Callable[[tuple[Mapping[str, bytes], Collection[str], bool]], Delta]
new_delta = partial(tuple.__new__, Delta)


class Missing(enum.Enum):
    """Why there is no record. A store that cannot tell says UNKNOWN."""

    UNKNOWN = "unknown"
    #: It is still here, but its time is over.
    EXPIRED = "expired"
    #: It is here, and its bytes are not a record, or one of a later version. It is kept.
    CORRUPTED = "corrupted"


class Moved(NamedTuple):
    """There was a record, and it goes on under another key."""

    #: What the rotation left: enough for whoever has the old id, and for nobody else.
    ticket: bytes


class Trail(NamedTuple):
    """What a rotation leaves under the old key, and for how many seconds."""

    ticket: bytes
    ttl: float


class KeyTaken(Exception):
    """`create` or `rotate` found a living record under the new key. Nothing was written."""


class VersionChanged(Exception):
    """`save` with `expect`, or `create` with `instead_of`, found another version. Nothing was
    written."""


class Store(Protocol):
    """The contract. Synchronous; every method may be called from any thread at any time."""

    #: True where other processes see what this one stores.
    shared: bool

    def load(self, key: str) -> Record | Missing | Moved:
        """Return the record, or why there is none. Writes nothing, creates nothing."""
        ...

    def create(
        self,
        key: str,
        record: Record,
        ttl: float,
        owner: bytes | None = None,
        instead_of: Record | Missing | None = None,
    ) -> None:
        """Store a new record; its `accessed`, `expires` and `version` are the store's to set.

        *owner* is whose it is, for stores that are `ByOwner`; others have no use for it. Raises
        `KeyTaken` if a living record, or a trail, is there; an expired one is replaced.

        With *instead_of*, what a load has found here, the new record takes its place in the same
        step, with another version. That is a record, if its version and seal are still the same,
        or `Missing.CORRUPTED`, if it is that still; raises `VersionChanged` if not. Asked for with
        ids of gateways only, which are used again.
        """
        ...

    def save(
        self,
        key: str,
        delta: Delta,
        ttl: float,
        expect: int | None = None,
        seal: bytes | None = None,
    ) -> None:
        """Apply *delta* to the record as it is now, and renew it.

        Raises `SessionGone`, or `VersionChanged` if *expect* is given and is not its version.
        With *seal*, a record that carries another one counts as gone: it is the next session
        under a key that is used again, which only keys of gateways are.
        """
        ...

    def touch(self, key: str, ttl: float, seal: bytes | None = None) -> None:
        """Renew the record. Raises `SessionGone`; *seal* is as for `save`."""
        ...

    def rotate(
        self,
        old: str,
        new: str,
        delta: Delta,
        seal: bytes,
        ttl: float,
        owner: bytes | None = None,
        trail: Trail | None = None,
    ) -> None:
        """Move the record to another key, with *delta* applied and the seal replaced.

        With *owner*, the record is that owner's from now on, and begins anew: `created` is now.
        Without, it keeps the one it has. With *trail*, the old key answers `load` with its ticket
        until its time is over; from the first moment on at which the old record is gone, and not
        before the new one can be loaded.

        Raises `SessionGone` if the old one is gone, `KeyTaken` if the new key is in use. Where
        this cannot be one step, a crash in between may lose the session but never leave two, and
        a `destroy` of the old one in between is as good as one before.
        """
        ...

    def destroy(self, key: str, expired: bool = False) -> Moved | None:
        """End the record, or the trail. No error if there is none. What is returned if it was a
        trail is what `load` would have said: its successor lives on.

        With *expired*, only a record whose time is over, in one step: another host, whose clock is
        behind, may have renewed it since it was read."""
        ...

    def close(self) -> None:
        """Release connections. The store opens new ones if it is used again."""
        ...


@runtime_checkable
class Renewing(Protocol):
    """A store that can renew a record in the same trip that loads it."""

    def load_and_touch(
        self, key: str, idle: float, lifetime: float, after: float, further: float = 0.0
    ) -> Record | Missing | Moved:
        """Load as `load` does; a living record that was last renewed more than *after* seconds
        ago, and less than *idle*, is renewed as by `touch`, to live *idle* and *further* seconds
        from now, though not beyond *lifetime* seconds from its creation. One with the field
        `OWN_LIFE` is not: these times are not its own. Return it as it was before.
        """
        ...


@runtime_checkable
class InOneStep(Protocol):
    """A store whose rotations are one step. Where the new record is there, the old one is gone, and
    nothing that is under way takes that back: so whoever did not get the answer may go and look.
    """

    #: True.
    rotates_in_one_step: bool


@runtime_checkable
class Purgeable(Protocol):
    """A store in which expired records stay until somebody removes them."""

    def purge(self, limit: int) -> int:
        """Remove up to *limit* expired records in one short step; return how many. Fewer than
        *limit* means that there are no more for now."""
        ...


@runtime_checkable
class Countable(Protocol):
    """A store that can cheaply say how much a `purge` has to do."""

    def expired(self) -> int:
        """Return how many expired records there are; a few of the latest may not be among them.
        Writes nothing, and holds nobody up."""
        ...


@runtime_checkable
class Listable(Protocol):
    """A store that can enumerate what it holds."""

    def keys(self) -> Iterator[str]:
        """Yield the keys of living records, in no order, while others write."""
        ...


@runtime_checkable
class ByOwner(Protocol):
    """A store that finds the records of an owner, as `create` or `rotate` was told."""

    def owned(self, owner: bytes) -> list[str]:
        """Return the keys of the owner's living records, in no order."""
        ...

    def end_owned(self, owner: bytes, but: str | None = None) -> int:
        """End every record of the owner except the one under the key *but*; return how many.

        A record that was living and the owner's when this was called is dead when it returns,
        also if a rotation was moving it at the time.
        """
        ...


def is_same(there: Record | Missing, seen: Record | Missing) -> bool:
    """Whether what was *seen* has been neither saved nor followed by another since."""
    if isinstance(there, Record) and isinstance(seen, Record):
        return there.version == seen.version and there.seal == seen.seal
    return there is seen


def merge(fields: Mapping[str, bytes], delta: Delta) -> dict[str, bytes]:
    """Return *fields* with *delta* applied: cleared, then deleted, then set."""
    changes, deleted, cleared = delta
    if cleared:
        return dict(changes)
    if not deleted:
        return {**fields, **changes}
    return {**{name: data for name, data in fields.items() if name not in deleted}, **changes}


# -- for stores that keep a record's fields in one piece ----------------------------------------
#
#     4 bytes        n, how many fields there are
#     n x 4 bytes    the length of each name, in characters
#     n x 4 bytes    the length of each value, in bytes
#     names          one after the other, in UTF-8
#     values         one after the other
#
# Numbers are big-endian. Names are decoded all at once and values are only cut.


#: What reads the lengths of a record with n fields, and writes them behind n, for the usual n.
_LENGTHS: Final = {n: struct.Struct(f">{2 * n}I").unpack_from for n in range(33)}
_COUNTED: Final = {n: struct.Struct(f">{2 * n + 1}I").pack for n in range(33)}


def pack(fields: Mapping[str, bytes]) -> bytes:
    n, values = len(fields), fields.values()
    counted = _COUNTED.get(n) or struct.Struct(f">{2 * n + 1}I").pack
    names = "".join(fields).encode("utf-8", "surrogatepass")
    return b"".join((counted(n, *map(len, fields), *map(len, values)), names, *values))


def unpack(data: bytes) -> dict[str, bytes]:
    """Raises ValueError if *data* is not what `pack` made, to the last byte."""
    n = int.from_bytes(data[:4], "big")
    try:
        lengths = (_LENGTHS.get(n) or struct.Struct(f">{2 * n}I").unpack_from)(data, 4)
    except (struct.error, OverflowError, MemoryError):
        raise ValueError("cut short") from None
    value_lengths = lengths[n:]
    names_at, here = 4 + 8 * n, len(data) - sum(value_lengths)
    if here < names_at:
        raise ValueError("cut short")
    names = data[names_at:here].decode("utf-8", "surrogatepass")
    fields = {}
    at = 0
    for name_length, value_length in zip(lengths, value_lengths):  # noqa: B905 - n of both
        end, after = at + name_length, here + value_length
        fields[names[at:end]] = data[here:after]
        at, here = end, after
    if at != len(names) or len(fields) != n:
        raise ValueError("the names do not fit")
    return fields
