"""No id from a URL in any log line, traceback or access log that passes through the stack."""

import collections
import dataclasses
import importlib.util
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from wsgiref.simple_server import make_server

import pytest
from helpers import serve
from webob import Request

from nocookie import IdLeak, PathParam, PathSegment, Query, SessionMiddleware, StoreError, session
from nocookie.ids import GRAMMAR
from nocookie.logs import MaskIds, MaskingRequestHandler, mask
from nocookie.stores.memory import MemoryStore

ADDRESSES = {
    "query": (Query(), "/page?a=1&sid={}"),
    "path": (PathSegment(), "/~{}/page?a=1"),
    "param": (PathParam(), "/page;sid={}?a=1"),
}
SECRET = "a secret for tests, long enough"


def page(environ, start_response):
    """Say everything that an error reporter would."""
    log = logging.getLogger("site")
    log.debug("environ %r", environ)
    log.info("at %s", environ["PATH_INFO"], extra={"environ": environ})
    session["n"] = session.get("n", 0) + 1
    session.save()
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError(f"no {environ['PATH_INFO']}?{environ['QUERY_STRING']} here")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


@pytest.fixture
def log():
    """Everything that is logged at DEBUG, by one handler with `MaskIds`."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(MaskIds())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield out
    root.removeHandler(handler)
    root.setLevel(before)


def app_of(kind, **options):
    return SessionMiddleware(
        page,
        use_cookies=False,
        find_id=ADDRESSES[kind][0],
        type=MemoryStore(),
        secret=SECRET,
        **options,
    )


def visit(app, kind, id, path=None):
    address = ADDRESSES[kind][1].format(id)
    environ = Request.blank(address if path is None else address.replace("/page", path)).environ
    environ |= {"REQUEST_URI": address, "RAW_URI": address, "HTTP_REFERER": f"http://h{address}"}
    return serve(app, environ=environ)


@pytest.mark.parametrize("kind", ADDRESSES)
def test_the_application_and_its_tracebacks_show_no_id(kind, caplog):
    """Without any filter: what it sees has no id. Under a path segment SCRIPT_NAME has one."""
    caplog.set_level(logging.DEBUG)
    app = app_of(kind)
    id = serve(app).id
    assert visit(app, kind, id).status == "200 OK"
    with pytest.raises(RuntimeError) as caught:
        visit(app, kind, id, "/fail")
    shown = caplog.text + "".join(traceback.format_exception(caught.value))
    if kind == "path":
        shown = shown.replace(f"'SCRIPT_NAME': '/~{id}'", "")
    assert "no /fail?a=1 here" in shown
    assert id not in shown


@pytest.mark.parametrize("kind", ADDRESSES)
def test_with_the_filter_no_log_has_one_at_all(kind, log):
    app = app_of(kind)
    id = serve(app).id
    visit(app, kind, id)
    with pytest.raises(RuntimeError):
        visit(app, kind, id, "/fail")
    app.manager.backend.load = broken
    assert visit(app, kind, id).status.startswith("503")
    assert "environ {" in log.getvalue()
    assert "store error" in log.getvalue()
    assert not re.search(rf"(?<![\w-]){GRAMMAR}(?![\w-])", log.getvalue())


def broken(key):
    raise StoreError("down, for the test")


@pytest.mark.parametrize("kind", ADDRESSES)
@pytest.mark.parametrize("where", ["above", "below"])
def test_an_access_log_inside_the_stack(kind, where, log):
    translogger = pytest.importorskip("paste.translogger")
    inner = page if where == "above" else translogger.TransLogger(page, setup_console_handler=False)
    app = SessionMiddleware(
        inner, use_cookies=False, find_id=ADDRESSES[kind][0], type=MemoryStore(), secret=SECRET
    )
    stack = translogger.TransLogger(app, setup_console_handler=False) if where == "above" else app
    id = serve(stack).id
    visit(stack, kind, id)
    assert "GET " in log.getvalue()
    assert "/page" in log.getvalue()
    assert id not in log.getvalue()


@pytest.mark.parametrize("kind", ADDRESSES)
def test_the_access_log_of_wsgiref(kind, capfd):
    app = app_of(kind)
    id = serve(app).id
    with make_server("127.0.0.1", 0, app, handler_class=MaskingRequestHandler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = ADDRESSES[kind][1].format(id)
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{address}").read()
        thread.join()
    written = capfd.readouterr().err
    assert '"GET /' in written
    assert id not in written


SERVED = """
import nocookie, warnings

def page(environ, start_response):
    nocookie.session["n"] = nocookie.session.get("n", 0) + 1
    nocookie.session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]

application = nocookie.SessionMiddleware(page, use_cookies=False, find_id={find_id!r})
"""


@pytest.mark.parametrize("kind", ADDRESSES)
def test_the_access_log_of_gunicorn_is_clean_by_itself(kind, tmp_path):
    """It is written from environ, after the response; so it has what we left there."""
    if importlib.util.find_spec("gunicorn") is None:
        assert not os.environ.get("CI"), "gunicorn is missing, and this is CI"
        pytest.skip("gunicorn is not installed")
    find_id = {"query": "query:sid", "path": "path:~", "param": "param:sid"}[kind]
    (tmp_path / "served.py").write_text(SERVED.format(find_id=find_id))
    socket = tmp_path / "gunicorn.sock"
    access = tmp_path / "access.log"
    command = ["-m", "gunicorn", "--no-control-socket", "--graceful-timeout=3"]
    command += [f"--bind=unix:{socket}", f"--access-logfile={access}", "served:application"]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until = time.monotonic() + 60
        while not socket.exists():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < until
            time.sleep(0.05)
        id = fetch(socket, "/first")[0]["x-session-id"]
        address = ADDRESSES[kind][1].format(id)
        headers, body = fetch(socket, address, Referer=f"http://localhost{address}")
        assert body == b"ok"
        assert "x-session-id" not in headers, "it was found"
        while access.read_text().count("\n") < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert "GET /page" in access.read_text()
    assert id not in access.read_text()


def fetch(path, address, **headers):
    import http.client
    import socket

    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(path))
    try:
        connection.request("GET", address, headers=headers)
        response = connection.getresponse()
        return {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


# -- what reporters show of a frame


ID = "S" * 42 + "A"


@dataclasses.dataclass
class Order:
    session: str


class Unshowable:
    def __repr__(self):
        raise ValueError(ID)


HIDDEN = {
    "a letter in percents": "/~%53" + ID[1:],
    "all in percents": "sid=" + "".join(f"%{ord(letter):02x}" for letter in ID),
    "a dash in percents": "/~%2D" + "-" * 41 + "A",
    "behind a colour": f"\x1b[31m{ID}\x1b[0m",
    "behind the repr of a colour": repr(f"\x1b[1;31m{ID}\x1b[0m"),
    "behind a line break in a repr": repr(f"a\n{ID}\tb"),
    "behind a tab in JSON": json.dumps(f"a\t{ID}\u2028"),
    "behind an escape in JSON": json.dumps(f"\u2028{ID}"),
    "in a longer segment, in percents": "/~%53" + ID[1:] + "AAAA",
}


@pytest.mark.parametrize("how", HIDDEN)
def test_an_id_is_masked_however_it_is_written(how):
    shown = mask(HIDDEN[how])
    assert "[session " in shown or "[masked]" in shown
    assert not {ID[1:], "".join(f"%{ord(letter):02x}" for letter in ID)} & set(
        re.split("[ /=~]", shown)
    )
    assert ID[1:] not in shown
    assert ID[1:].lower() not in shown.lower()


@pytest.mark.parametrize(
    "text", [ID + "x", "x" + ID, "%53" * 44 + "x", "[m", "\\n" + "x" * 42, "%zz" * 43]
)
def test_what_is_no_id_is_left_as_it_is(text):
    assert mask(text) == text


@pytest.mark.parametrize(
    "value",
    [
        *(ID, ID.encode(), bytearray(ID.encode()), {ID}, frozenset([(ID,)]), {"a": [ID]}),
        *(Order(ID), ValueError(f"no {ID} here"), collections.deque([ID]), Unshowable()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_extra_fields_show_no_id(value):
    record = logging.makeLogRecord({"msg": "m", "extra_field": value})
    MaskIds().filter(record)
    assert ID not in f"{record.extra_field!r} {record.extra_field}"


def test_extra_fields_without_an_id_stay_what_they_are():
    for value in (1, None, {1}, b"a", Order("a"), 1.5, True):
        record = logging.makeLogRecord({"msg": "m", "extra_field": value})
        MaskIds().filter(record)
        assert record.extra_field is value


def with_locals(error):
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(shown.format())


def faulty(*call):
    raise RuntimeError("a fault that is none of a store")


def handler(how):
    def application(environ, start_response):
        session["n"] = session.get("n", 0) + 1
        session.save()
        if how == "raise":
            raise RuntimeError("of the application")
        location = "https://other.example/?" + (session.id if how == "leak" else "")
        start_response("302 Found", [("Location", location)])
        if how == "generate":
            return failing()
        return [b"body"]

    def failing():
        yield b"one"
        raise RuntimeError("of the application")

    return application


@pytest.mark.parametrize("carrier", ["query:sid", "param:sid", "path:~", "header"])
@pytest.mark.parametrize("how", ["raise", "leak", "generate", "load", "save"])
def test_no_error_that_reaches_the_server_has_an_id_in_our_frames(how, carrier):
    """With the values of all variables, as error reporters show them. The request itself, which the
    server has too, holds what the client sent: a header, and the mount under a path segment."""
    store = MemoryStore()
    app = SessionMiddleware(
        handler(how),
        use_cookies=False,
        find_id=carrier,
        type=store,
        secret=SECRET,
        leak_guard="off" if how == "generate" else "raise",
    )
    begin = SessionMiddleware(
        handler(""), use_cookies=False, find_id="header", type=store, secret=SECRET
    )
    id = serve(begin).id
    if how == "load":
        app.manager.backend.load = faulty
    elif how == "save":
        store.save = faulty
    urls = {"query:sid": f"/?sid={id}", "param:sid": f"/x;sid={id}", "path:~": f"/~{id}/"}
    environ = Request.blank(urls.get(carrier, "/")).environ
    if carrier == "header":
        environ["HTTP_X_SESSION_ID"] = id
    with pytest.raises((RuntimeError, IdLeak)) as caught:
        list(app(environ, lambda *_: print))
    shown = with_locals(caught.value)
    shown = shown.replace(f"'HTTP_X_SESSION_ID': '{id}'", "").replace(f"'/~{id}'", "")
    ours = re.split(r'(?m)^  File "', shown)
    assert [frame for frame in ours if "/nocookie/" in frame]
    assert not [frame for frame in ours if id in frame and "test_url_logs" not in frame]
