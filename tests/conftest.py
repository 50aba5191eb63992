"""What all tests share: time that stands still, and how long hypothesis may search."""

import os
import signal
import warnings

import pytest
from hypothesis import HealthCheck, settings

with warnings.catch_warnings():
    # WebOb 1.8 imports cgi where there is one, and Python 3.11 and 3.12 warn about that.
    warnings.simplefilter("ignore", DeprecationWarning)
    import webob  # noqa: F401

pytest.register_assert_rewrite("nocookie.testing")

# What a shell starts in the background ignores this signal, and so would every process that a test
# starts, to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from nocookie.testing import FakeClock  # noqa: E402 - after the line above

settings.register_profile(
    "nocookie", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.register_profile("ci", settings.get_profile("nocookie"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "nocookie")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
