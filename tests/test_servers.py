"""The demo gives the same answers under real servers."""

import json
import re
import time
from pathlib import Path

import pytest
from realservers.wsgi import NAMES, WITH_WORKERS, Rig

#: In the group `test`, so that every Python has them.
EVERYWHERE = ("wsgiref", "waitress", "gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent")


def each(*names):
    """The parameter `name`: each of these servers."""
    marks = [() if name in EVERYWHERE else pytest.mark.server for name in names]
    params = [pytest.param(name, marks=mark) for name, mark in zip(names, marks, strict=True)]
    return pytest.mark.parametrize("name", params)


def get(server, target, id=None):
    headers = [("X-Session-Id", id)] if id else []
    answer = server.request("GET", target, headers)
    return json.loads(answer.body), answer.headers


@each(*NAMES)
def test_the_demo_gives_the_same_answers_under(name, wsgi_server):
    workers = 2 if name in WITH_WORKERS else 1
    server = wsgi_server(name, "notebook:application", workers=workers)
    first, headers = get(server, "/")
    assert (first["visits"], first["is_new"], first["reason"]) == (1, True, "absent")
    id = headers["X-Session-Id"]
    assert len(id) == 43
    for visits in range(2, 12):
        answer, headers = get(server, "/", id)
        assert (answer["visits"], answer["is_new"], answer["reason"]) == (visits, False, None)
        assert headers["X-Session-Id"] is None
    answer, headers = get(server, f"/?sid={id}")
    assert answer["visits"] == 12
    assert headers["Referrer-Policy"] in ("same-origin", "no-referrer")
    answer, headers = get(server, "/", "A" * 43)
    assert (answer["visits"], answer["reason"]) == (1, "unknown")
    assert headers["X-Session-Id"] not in (None, id, "A" * 43)
    assert not re.search("Traceback|Error", server.log), server.log


@each(*NAMES)
def test_a_late_change_is_written_and_once_under(name, wsgi_server):
    server = wsgi_server(name, "late:application")
    id = server.request("GET", "/").headers["X-Session-Id"]
    assert server.request("GET", "/late", [("X-Session-Id", id)]).body == b"one two"
    shown = server.request("GET", "/show", [("X-Session-Id", id)])
    assert json.loads(shown.body) == {"late": 1, "saves": 1}


# -- the rig itself ------------------------------------------------------------------------------


def test_a_server_is_started_once_and_another_application_by_another_server(wsgi_server):
    server = wsgi_server("waitress")
    assert wsgi_server("waitress", "probe:application") is server
    assert wsgi_server("waitress", "notebook:application").port != server.port


@each("waitress", "apache")
def test_a_test_may_serve_an_application_of_its_own(name, wsgi_server, tmp_path):
    (tmp_path / "hello.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '5')])\n"
        "    return [b'hello']\n"
    )
    server = wsgi_server(name, "hello:application", modules=tmp_path)
    assert server.request("GET", "/").body == b"hello"


@each("waitress", "uwsgi", "apache")
def test_an_application_that_is_not_there_is_a_failed_start(name, tmp_path):
    rig = Rig(lambda name: tmp_path)
    with pytest.raises(AssertionError, match="No module named 'nowhere'"):
        rig.server(name, "nowhere:application")
    rig.stop()


@each("gunicorn-gevent", "uwsgi", "granian", "hypercorn", "uvicorn-a2wsgi", "apache")
def test_nothing_of_a_server_is_left_when_it_was_stopped(name, tmp_path):
    rig = Rig(lambda name: tmp_path)
    server = rig.server(name, workers=2)
    group = server.pid
    rig.stop()
    until = time.monotonic() + 5
    while members(group) and time.monotonic() < until:
        time.sleep(0.02)
    assert members(group) == []
    assert name != "apache" or not server.folder.exists()


def members(group):
    """The processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # ended meanwhile
            continue
        if int(its_group) == group and state != "Z":
            found.append(stat.parent.name)
    return found
