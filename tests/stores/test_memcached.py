"""The memcached store: the suite, what breaks, what memcached does by itself, many at once."""

import pytest

from nocookie.stores.memcached import MemcachedStore
from nocookie.testing import StoreSuite

pytestmark = pytest.mark.server


class TestMemcachedStore(StoreSuite):
    @pytest.fixture
    def store(self, clock, memcached):
        store = MemcachedStore(url=memcached.url, clock=clock)
        yield store
        store.close()


class TestMemcachedStoreOnThreeServers(StoreSuite):
    """And with a pool that is smaller than the number of threads."""

    @pytest.fixture
    def store(self, clock, memcached_servers):
        url = ";".join(server.url for server in memcached_servers)
        store = MemcachedStore(url=url, clock=clock, pool_size=2, deadline=30)
        yield store
        store.close()
