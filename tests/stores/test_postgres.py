"""The database store on a real PostgreSQL."""

import pytest

from nocookie.stores.sqlalchemy import SqlAlchemyStore
from nocookie.testing import StoreSuite

pytestmark = pytest.mark.server


@pytest.fixture
def url(postgres_url):
    return postgres_url


@pytest.fixture
def open_store(url):
    """`open_store(**options)`: a store on the database of this test; several share it."""
    opened = []

    def open_one(**options):
        where = {} if "engine" in options else {"url": url}
        store = SqlAlchemyStore(**{**where, "create_table": True, **options})
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


class TestOnPostgres(StoreSuite):
    @pytest.fixture
    def store(self, clock, open_store):
        return open_store(clock=clock, deadline=30)


class TestWhereBytesCannotBeAppended(StoreSuite):
    """What MySQL and every other database gets: read, merge, compare, write."""

    @pytest.fixture
    def store(self, clock, open_store):
        store = open_store(clock=clock, deadline=30)
        store._sql = type(store._sql)(store._table, "another")
        return store
