"""The redis store on a cluster: the suite, moving slots, the loss of a primary."""

import pytest

from nocookie.stores.redis import RedisStore
from nocookie.testing import StoreSuite

pytestmark = pytest.mark.server


class TestRedisStoreOnACluster(StoreSuite):
    @pytest.fixture
    def store(self, valkey_cluster, clock):
        store = RedisStore(url=valkey_cluster.url, clock=clock)
        yield store
        store.close()
