"""The demo gives the same answers under real servers."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest


def has(module):
    found = importlib.util.find_spec(module) is not None
    assert found or not os.environ.get("CI"), f"{module} is missing, and this is CI"
    return found


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


#: A worker that is told to stop while it starts does not hear it, and is waited for.
GUNICORN = ["--no-control-socket", "--graceful-timeout=3", "served:application"]

SERVERS = {
    "waitress": [
        "-m",
        "waitress",
        "--threads=4",
        "--listen=127.0.0.1:{port}",
        "served:application",
    ],
    "gunicorn": [
        *["-m", "gunicorn", "--workers=2", "--threads=4", "--bind=127.0.0.1:{port}"],
        *GUNICORN,
    ],
    "gevent": [
        *["-m", "gunicorn", "--workers=2", "--worker-class=gevent", "--bind=127.0.0.1:{port}"],
        *GUNICORN,
    ],
}


@contextlib.contextmanager
def serving(server, folder):
    (folder / "served.py").write_text(
        f"import nocookie.demo\napplication = nocookie.demo.application({str(folder / 'data')!r})\n"
    )
    port = free_port()
    command = [sys.executable, *(part.format(port=port) for part in SERVERS[server])]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 30
            while True:
                try:
                    urllib.request.urlopen(url + "/", timeout=10).close()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < until, (folder / "log").read_text()
                    time.sleep(0.05)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()


def get(url, id=None, **headers):
    request = urllib.request.Request(url, headers=headers)
    if id:
        request.add_header("X-Session-Id", id)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response), response.headers


@pytest.mark.parametrize("server", SERVERS)
def test_the_demo_gives_the_same_answers_under(server, tmp_path):
    for module in {"gevent": ["gunicorn", "gevent"]}.get(server, [server]):
        if not has(module):
            pytest.skip(f"{module} is not installed")
    with serving(server, tmp_path) as url:
        first, headers = get(url + "/")
        assert (first["visits"], first["is_new"], first["reason"]) == (1, True, "absent")
        id = headers["X-Session-Id"]
        assert len(id) == 43
        for visits in range(2, 12):
            answer, headers = get(url + "/", id)
            assert (answer["visits"], answer["is_new"], answer["reason"]) == (visits, False, None)
            assert headers["X-Session-Id"] is None
        answer, headers = get(f"{url}/?sid={id}")
        assert answer["visits"] == 12
        assert headers["Referrer-Policy"] in ("same-origin", "no-referrer")
        answer, headers = get(url + "/", "A" * 43)
        assert (answer["visits"], answer["reason"]) == (1, "unknown")
        assert headers["X-Session-Id"] not in (None, id, "A" * 43)
    log = (tmp_path / "log").read_text()
    assert not re.search("Traceback|Error", log), log
