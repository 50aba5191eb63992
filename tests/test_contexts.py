"""What sets a context variable in the call of an application and resets it in its body works as
without us, under real servers: Flask's `stream_with_context`, OpenTelemetry's middleware."""

import json
import shutil
import subprocess
import sys

import pytest
from realservers import PATIENCE, missing
from realservers.wsgi import APPLICATIONS

pytestmark = pytest.mark.server

#: From 2.2 to 3.1.1, Flask sets in the call what it resets in the body.
FLASK = "3.0.3"
SERVERS = ["gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent", "waitress", "uvicorn-a2wsgi"]


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """A folder with the application, and the Flask that it is served with."""
    folder = tmp_path_factory.mktemp("flask")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    done = subprocess.run(
        [*pip, f"Flask=={FLASK}"], stdin=subprocess.DEVNULL, timeout=PATIENCE * 5, check=False
    )
    if done.returncode != 0:
        missing(f"Flask {FLASK}", "pip has to reach an index")
    shutil.copy(APPLICATIONS / "contexts.py", folder)
    return folder


@pytest.fixture(params=SERVERS)
def server(request, wsgi_server, modules):
    return wsgi_server(request.param, "contexts:application", modules=modules)


def ended(server):
    return json.loads(server.request("GET", "/ended").body)["ended"]


def test_the_stream_is_of_the_flask_that_it_was_reported_for(server):
    assert json.loads(server.request("GET", "/ended").body)["flask"] == FLASK


def test_a_stream_of_flask_is_whole_and_its_contexts_end(server):
    before = ended(server)
    for _ in range(3):
        assert server.request("GET", "/stream").body == b"/stream /stream"
    # Three streams, and the request before them.
    assert ended(server) == before + 4
    assert "different Context" not in server.log


def test_opentelemetry_ends_what_it_began(server):
    for _ in range(3):
        assert server.request("GET", "/traced").body == b"/traced"
    assert "Traceback" not in server.log, server.log
