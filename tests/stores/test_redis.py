"""The redis store on one server: the suite, trips, faults, forks, threads, TLS."""

import pytest

from nocookie.stores.redis import RedisStore
from nocookie.testing import StoreSuite

pytestmark = pytest.mark.server


class TestRedisStore(StoreSuite):
    @pytest.fixture
    def store(self, valkey, clock):
        store = RedisStore(url=valkey.url, clock=clock)
        yield store
        store.close()
