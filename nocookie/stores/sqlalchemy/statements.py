"""Every statement of the store."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, Final

from nocookie.stores.sqlalchemy.rows import FORMAT, TRAIL

if TYPE_CHECKING:
    from sqlalchemy import Delete, Insert, Select, Table, TextClause, Update

__all__ = ["LEAVES_TRAIL", "LOOK", "MOVES", "SLACK", "STAYS", "Statements"]

#: A journal may be so many bytes longer than twice the record it began with. About 25 small saves:
#: so few pay for writing the record anew, and playing the rest costs a reader less than a trip.
SLACK: Final = 2048

#: In the minute that is not over yet, expired records lie among living ones, and the index does
#: not tell which. With many sessions there are many, so a sweep looks at no more than these.
LOOK: Final = 100

#: How many keys a page of `keys` has.
PAGE: Final = 1000

#: What becomes of the key in a change.
STAYS, MOVES, LEAVES_TRAIL = range(3)


class Statements:
    """Every statement of the store, made once."""

    #: Whether the database appends bytes and replaces on conflict. If not, we read and compare.
    direct: bool
    table: Table
    load: Select[Any]
    insert: Insert
    replace: Update
    #: Where that is still what a load has found.
    instead_of_record: Update
    instead_of_row: Update
    #: By: appends, what becomes of the key, compares the version, compares the seal.
    change: dict[tuple[bool, int, bool, bool], Update | Insert]
    #: Where a change that leaves a trail takes two statements: the second.
    leave_trail: Insert | None
    #: By: compares the seal.
    touch: dict[bool, Update]
    destroy: Delete
    destroy_expired: Delete
    find_trail: Select[Any]
    remove_trail: Delete
    purge: Delete
    expired: Select[Any]
    count: Select[Any]
    purge_keys: Delete
    keys: Select[Any]
    owned: Select[Any]
    end_owned: Delete
    end_others: Delete
    #: For SQLite: brings what was written into the main file, and gives back the disk it took.
    shorten: TextClause

    def __init__(self, table: Table, dialect: str) -> None:
        from sqlalchemy import bindparam, delete, func, insert, literal, select, text, update

        self.direct = dialect in ("postgresql", "sqlite")
        self._dialect = dialect
        self.table, c = table, table.c
        given = bindparam
        self.shorten = text("PRAGMA wal_checkpoint(TRUNCATE)")
        self.load = select(
            c.data, c.size, c.created, c.accessed, c.expires, c.version, c.seal, c.format
        ).where(c.key == given("old"))
        row = {
            "key": given("new"),
            "data": given("delta"),
            "size": given("n"),
            "whole": given("n"),
            "created": given("began"),
            "accessed": given("now"),
            "expires": given("ends"),
            "sweep": given("minute"),
            # At random, so that no record passes for an earlier one under the same key.
            "version": given("first"),
            "seal": given("new_seal"),
            "format": FORMAT,
            "owner": given("whose"),
        }
        self.insert = insert(table).values(row)
        rest = {name: value for name, value in row.items() if name != "key"}
        self.replace = (
            update(table).values(rest).where(c.key == given("new"), c.expires <= given("now"))
        )
        same = c.key == given("new"), c.version == given("expect")
        self.instead_of_record = (
            update(table)
            .values({**rest, "version": c.version + 1})
            .where(*same, c.seal == given("sealed"), c.format == FORMAT)
        )
        # What puts a record in this place gives it a version that no other has.
        self.instead_of_row = (
            update(table).values(rest).where(*same, c.format == given("format_there"))
        )
        if self.direct:
            self.insert = self._insert_or_replace(row)
        both = (False, True)
        self.change = {by: self._change(*by) for by in product(both, (STAYS, MOVES), both, both)}
        trail = {
            "key": given("old", type_=c.key.type),
            "data": given("ticket", type_=c.data.type),
            "size": given("ticket_size", type_=c.size.type),
            "whole": given("ticket_size", type_=c.whole.type),
            "created": given("now", type_=c.created.type),
            "accessed": given("now", type_=c.accessed.type),
            "expires": given("over", type_=c.expires.type),
            "sweep": given("over_minute", type_=c.sweep.type),
            "version": literal(0, c.version.type),
            "seal": literal(b"", c.seal.type),
            "format": literal(TRAIL, c.format.type),
        }
        self.leave_trail = None if dialect == "postgresql" else insert(table).values(trail)
        for append, _, expect, seal in product(both, (LEAVES_TRAIL,), both, both):
            move: Any = self.change[append, MOVES, expect, seal]
            if self.leave_trail is None:
                moved = move.returning(c.version).cte("moved")
                there = select(*trail.values()).select_from(moved)
                move = insert(table).from_select(list(trail), there)
                move = move.execution_options(preserve_rowcount=True)
            self.change[append, LEAVES_TRAIL, expect, seal] = move
        self.touch = {seal: self._touch(seal) for seal in both}
        self.destroy = delete(table).where(c.key == given("old"), c.format != TRAIL)
        self.destroy_expired = self.destroy.where(c.expires <= given("now"))
        there_is_trail = c.key == given("old"), c.format == TRAIL
        self.find_trail = select(c.data).where(*there_is_trail, c.expires > given("now"))
        self.remove_trail = delete(table).where(*there_is_trail)
        # The earliest come first: of minutes that are over, where all has expired.
        first = select(c.key).where(c.sweep <= given("minute")).order_by(c.sweep)
        looked_at = first.limit(given("look")).subquery()
        one = table.alias()
        self.expired = (
            select(one.c.key)
            .join(looked_at, one.c.key == looked_at.c.key)
            .where(one.c.expires <= given("now"))
            .limit(given("limit"))
        )
        over = select(func.count()).where(c.sweep < given("minute")).scalar_subquery()
        latest = select(c.expires).where(c.sweep == given("minute")).limit(given("look")).subquery()
        late = select(func.count()).where(latest.c.expires <= given("now")).scalar_subquery()
        self.count = select(over + late)
        # Whoever holds a row is renewing it, or purging too.
        skipping = self.expired.with_for_update(skip_locked=True, of=one)
        self.purge = delete(table).where(c.key.in_(skipping.scalar_subquery()))
        self.purge_keys = delete(table).where(
            c.key.in_(given("keys", expanding=True)), c.expires <= given("now")
        )
        self.keys = (
            select(c.key)
            .where(c.expires > given("now"), c.key > given("last"), c.format == FORMAT)
            .order_by(c.key)
            .limit(PAGE)
        )
        # The trail of a record has no owner.
        theirs = c.owner == given("whose"), c.expires > given("now")
        self.owned = select(c.key).where(*theirs)
        self.end_owned = delete(table).where(*theirs)
        self.end_others = self.end_owned.where(c.key != given("kept"))

    def _insert_or_replace(self, row: Mapping[str, Any]) -> Insert:
        from sqlalchemy.dialects import postgresql, sqlite

        c = self.table.c
        statement = (postgresql if self._dialect == "postgresql" else sqlite).insert(self.table)
        inserted: Insert = statement.values(row).on_conflict_do_update(
            index_elements=[c.key],
            set_={name: statement.excluded[name] for name in row if name != "key"},
            where=c.expires <= statement.excluded.accessed,
        )
        return inserted.execution_options(preserve_rowcount=True)

    def _change(self, append: bool, key: int, expect: bool, seal: bool) -> Update:
        from sqlalchemy import bindparam, func, update

        c, given = self.table.c, bindparam
        values: dict[str, Any] = {
            "accessed": given("now"),
            "expires": given("ends"),
            "sweep": given("minute"),
            "version": c.version + 1,
        }
        conditions = [c.key == given("old"), c.expires > given("now"), c.format == FORMAT]
        if append:
            values |= {"data": self._appended(), "size": c.size + given("n")}
            conditions += [c.size + given("n") <= 2 * c.whole + SLACK]
            if self._dialect == "sqlite":
                # SQLite appends bytes as text: in UTF-16 it cuts them to an even number.
                conditions += [_text("(SELECT encoding FROM pragma_encoding) = 'UTF-8'")]
        else:
            values |= {"data": given("delta"), "size": given("n"), "whole": given("n")}
        if key == MOVES:
            began = given("began", type_=c.created.type)
            whose = given("whose", type_=c.owner.type)
            values |= {
                "key": given("new"),
                "seal": given("new_seal"),
                "created": func.coalesce(began, c.created),
                "owner": func.coalesce(whose, c.owner),
            }
        if expect:
            conditions += [c.version == given("expect")]
        if seal:
            conditions += [c.seal == given("sealed")]
        return update(self.table).values(values).where(*conditions)

    def _appended(self) -> Any:
        from sqlalchemy import LargeBinary, bindparam, cast

        joined = self.table.c.data.op("||")(bindparam("delta", type_=LargeBinary))
        return cast(joined, LargeBinary) if self._dialect == "sqlite" else joined

    def _touch(self, seal: bool) -> Update:
        from sqlalchemy import bindparam, case, update

        c, given = self.table.c, bindparam
        # Who comes from a clock that is behind does not take back what another has given.
        ahead = c.accessed > given("now")
        values = {
            "accessed": case((ahead, c.accessed), else_=given("now")),
            "expires": case((ahead, c.expires), else_=given("ends")),
            "sweep": case((ahead, c.sweep), else_=given("minute")),
        }
        conditions = [c.key == given("old"), c.expires > given("now"), c.format == FORMAT]
        if seal:
            conditions += [c.seal == given("sealed")]
        return update(self.table).values(values).where(*conditions)


def _text(sql: str) -> Any:
    from sqlalchemy import text

    return text(sql)
