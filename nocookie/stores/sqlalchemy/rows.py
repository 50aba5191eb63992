"""The table, and what is in a row of it."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from nocookie.stores.base import Missing, Moved, Record, new_record, pack, unpack

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

__all__ = ["FAR", "FORMAT", "TRAIL", "entry", "record_of", "renewal", "sweep_minute", "table"]

#: The version of a row's layout. A newer one is refused, and kept.
FORMAT: Final = 1
#: The `format` of what is no record any more, but the trail of one: `data` is the ticket.
TRAIL: Final = 2

#: In seconds. The index is by the minute after `expires`: so most saves leave it as it is, and
#: PostgreSQL can write the new row beside the old one.
SWEEP_GRID: Final = 60.0
#: The `sweep` and the `expires` of what never expires. Not every database can store infinity.
NEVER: Final = 2**63 - 1
FAR: Final = 1e300


def table(
    metadata: MetaData, table_name: str = "nocookie_sessions", schema: str | None = None
) -> Table:
    """Return the table of the store, for migrations: put it into the metadata Alembic knows."""
    from sqlalchemy import BigInteger, Column, Double, Index, LargeBinary, SmallInteger, Table
    from sqlalchemy.dialects import mysql

    both = ("mysql", "mariadb")
    sweep = Column("sweep", BigInteger, nullable=False)
    owner = Column("owner", LargeBinary(64).with_variant(mysql.VARBINARY(64), *both))
    owned = owner.is_not(None)
    return Table(
        table_name,
        metadata,
        Column("key", LargeBinary(32).with_variant(mysql.BINARY(32), *both), primary_key=True),
        Column("data", LargeBinary().with_variant(mysql.LONGBLOB(), *both), nullable=False),
        # How long `data` is, and how long it was when it was last written as a whole.
        Column("size", BigInteger, nullable=False),
        Column("whole", BigInteger, nullable=False),
        Column("created", Double, nullable=False),
        Column("accessed", Double, nullable=False),
        Column("expires", Double, nullable=False),
        sweep,
        Column("version", BigInteger, nullable=False),
        Column("seal", LargeBinary(255).with_variant(mysql.VARBINARY(255), *both), nullable=False),
        Column("format", SmallInteger, nullable=False),
        owner,
        Index(f"ix_{table_name}_sweep", sweep),
        # Most sessions are nobody's, or of nobody who asks: they cost it nothing.
        Index(f"ix_{table_name}_owner", owner, postgresql_where=owned, sqlite_where=owned),
        schema=schema,
    )


# `data` is one or more entries: 4 bytes, the length of what is set; 4 bytes, the length of what is
# deleted; what is set, as `pack` makes it; the names that are deleted, packed with empty values,
# or nothing.


def entry(changes: Mapping[str, bytes], deleted: Collection[str] = ()) -> bytes:
    there = pack(changes)
    gone = pack(dict.fromkeys(deleted, b"")) if deleted else b""
    return b"".join((struct.pack(">II", len(there), len(gone)), there, gone))


def _play(data: bytes) -> dict[str, bytes]:
    """Return the fields of a journal. Raises ValueError if it is not one, to the last byte."""
    fields: dict[str, bytes] = {}
    at = 0
    while True:
        try:
            changed, gone = struct.unpack_from(">II", data, at)
        except struct.error:
            raise ValueError("cut short") from None
        at += 8
        if gone:
            for name in unpack(data[at + changed : at + changed + gone]):
                fields.pop(name, None)
        fields.update(unpack(data[at : at + changed]))
        at += changed + gone
        if at == len(data):
            return fields


def record_of(row: Any, now: float) -> Record | Missing | Moved:
    data, size, created, accessed, expires, version, seal, format = row
    try:
        if expires <= now:
            return Missing.UNKNOWN if format == TRAIL else Missing.EXPIRED
        if format != FORMAT or len(data) != size:
            return Moved(bytes(data)) if format == TRAIL else Missing.CORRUPTED
        if not all(map(math.isfinite, (created, accessed, expires))):
            return Missing.CORRUPTED
        fields = _play(data)
    except (ValueError, TypeError):
        return Missing.CORRUPTED
    if type(version) is not int or type(seal) is not bytes:
        return Missing.CORRUPTED
    ends = math.inf if expires >= FAR else float(expires)
    return new_record((fields, float(created), float(accessed), ends, version, seal))


def renewal(now: float, ttl: float) -> dict[str, Any]:
    ends = min(now + ttl, FAR)
    return {"now": now, "ends": ends, "minute": sweep_minute(ends)}


def sweep_minute(ends: float) -> int:
    return NEVER if ends >= FAR else math.ceil(ends / SWEEP_GRID)
