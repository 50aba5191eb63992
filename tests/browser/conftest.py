"""A browser, and the servers that it visits: the shop with what is beside it, and the partner."""

import importlib.util
import os
import threading
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from browser.recording import Recorder, partner
from realservers.chromium import Chromium

PATH = Path(__file__).resolve().parents[2] / "examples" / "shop" / "application.py"


class Quiet(WSGIRequestHandler):
    def log_message(self, format, *args):
        pass


class Threads(ThreadingMixIn, WSGIServer):
    """A browser opens connections that it may need, and those would keep a single thread busy."""

    daemon_threads = True


class Site:
    """An application, served on a port of its own; what it is asked is recorded."""

    def __init__(self, application):
        self.recorder = Recorder(application)
        self._server = make_server("127.0.0.1", 0, self.recorder, Threads, Quiet)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


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
