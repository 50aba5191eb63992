"""What all tests share: time that stands still, how long hypothesis may search, and a record of
what ran, for the pages that name tests as their proof."""

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

from evidence import Run  # noqa: E402 - after the lines above

from nocookie.testing import FakeClock  # noqa: E402

settings.register_profile(
    "nocookie", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.register_profile("ci", settings.get_profile("nocookie"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "nocookie")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


RUN = Run()


def pytest_configure(config: pytest.Config) -> None:
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    RUN.is_whole = everything and not config.option.keyword


def pytest_itemcollected(item: pytest.Item) -> None:
    RUN.collect(item)


def pytest_deselected(items: list[pytest.Item]) -> None:
    RUN.deselected.update(item.nodeid for item in items)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What judges the run comes last.
    items.sort(key=lambda item: item.path.name == "test_requirements.py")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    RUN.report(report)


@pytest.fixture(scope="session")
def run() -> Run:
    """What became of the tests before this one."""
    return RUN


@pytest.fixture(scope="session")
def wsgi_server(tmp_path_factory):
    """`wsgi_server(name, application="probe:application", workers=1, front="")` gives a real
    server that serves this application: see realservers.wsgi."""
    from realservers.wsgi import Rig

    rig = Rig(tmp_path_factory.mktemp)
    yield rig.server
    rig.stop()
