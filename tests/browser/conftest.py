"""A browser, and the servers that it visits: the shop with what is beside it, and the partner."""

import importlib.util
import os
from pathlib import Path

import pytest
from browser.recording import partner
from browser.sites import Site
from realservers.chromium import Chromium

PATH = Path(__file__).resolve().parents[2] / "examples" / "shop" / "application.py"


@pytest.fixture(scope="session")
def example():
    spec = importlib.util.spec_from_file_location("example_shop_in_chromium", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("chromium"), cookies=False) as browser:
        yield browser


@pytest.fixture
def elsewhere():
    """The partner's site: the same host, another port, so another origin."""
    with Site(partner) as site:
        yield site


@pytest.fixture
def screenshot(chromium):
    """Keep what the browser shows, under this name, in the folder that SCREENSHOTS names."""
    folder = os.environ.get("SCREENSHOTS")

    def take(name):
        if folder:
            chromium.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    return take
