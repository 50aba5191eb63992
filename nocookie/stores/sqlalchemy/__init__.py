"""Sessions in one table of a database, by SQLAlchemy: PostgreSQL, SQLite, and others.

    store         SqlAlchemyStore: the contract
      statements    every statement, made once
        rows          the table, and what is in a row
      calls         one connection, and a moment by which all is over
        watchdog      ends what is blocked in the driver
        failures      what drivers say, and what it means
    engines       what a URL, or an engine of the application, has to be

The rules:

1. A change is one UPDATE, guarded by all that must still hold: the key, that the record lives, the
   version or the seal if the caller named one. There is no moment between reading and writing.
2. So that one statement can apply a delta to the record as it is by then, `data` is a journal: the
   fields, and after them the deltas since, appended by the database. A reader plays it. When the
   journal has outgrown the record, and wherever a database cannot append bytes, the record is
   read, merged here, and written back on the condition that its version is still the one read.
3. Statements run in AUTOCOMMIT: one trip each, no transaction that a lost process leaves open.
   A rotation that leaves a trail moves one row and inserts another. On PostgreSQL that is one
   statement too; elsewhere it is the one transaction.
4. One call is over by the deadline, also if the server is frozen: see `Watchdog`.
5. A forked child opens connections of its own and never touches its parent's.
6. Driver exceptions become `StoreError` here. Their texts quote rows, so none goes along.
"""

from nocookie.stores.sqlalchemy.rows import table
from nocookie.stores.sqlalchemy.store import SqlAlchemyStore

__all__ = ["SqlAlchemyStore", "table"]
