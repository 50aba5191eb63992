"""Tests that a store, a carrier or an application has to pass, and a clock to pass them by.

For whoever writes a store or a carrier, inside this package or outside it::

    import pytest
    from nocookie.testing import CarrierSuite, StoreSuite

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def store(self, clock):
            store = MyStore(clock=clock)
            yield store
            store.close()

    class TestMyCarrier(CarrierSuite):
        @pytest.fixture
        def carrier(self):
            return MyCarrier()

        def put(self, environ, *ids):
            environ["HTTP_X_MINE"] = ",".join(ids)

        def client_sends_back(self, reply, environ):
            environ["HTTP_X_MINE"] = reply.headers["X-Mine"]

For whoever has an application with sessions, of whatever library: `nocookie.testing.audit`, and
`nocookie.testing.reference`, an application to try it on.

`pytest.register_assert_rewrite("nocookie.testing")` in a conftest.py makes failures talk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nocookie.testing.clock import FakeClock as FakeClock

if TYPE_CHECKING:
    from nocookie.testing.carriers import CarrierSuite as CarrierSuite
    from nocookie.testing.stores import StoreSuite as StoreSuite

__all__ = ["CarrierSuite", "FakeClock", "StoreSuite"]


def __getattr__(name: str) -> Any:
    """Load a suite when it is asked for: only the suites need pytest."""
    if name == "StoreSuite":
        from nocookie.testing.stores import StoreSuite

        return StoreSuite
    if name == "CarrierSuite":
        from nocookie.testing.carriers import CarrierSuite

        return CarrierSuite
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
