"""What a client writes stays out of the head of the response, whatever server is in front: some
servers send on any text that an application calls a header."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading

import pytest
from realservers import free_port, wait_until
from stores.places import needs

from nocookie.testing.serving import serving

#: `/wrong` is what must not work: an application that does by itself what no carrier can.
SERVED = """
from urllib.parse import unquote_to_bytes
from nocookie import Header, SessionMiddleware, session

class Echo(Header):
    # A carrier with a fault: it sends back what the client sent.
    def place(self, id, reply):
        said = unquote_to_bytes(reply.environ["QUERY_STRING"]).decode("latin-1")
        reply.headerlist.append(("X-Echo", said))
        return True

def visit(environ, start_response):
    session["n"] = session.get("n", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Length", "2"), ("X-Visits", str(session["n"]))])
    return [b"ok"]

right = SessionMiddleware(visit, use_cookies=False, find_id="header:X-Session-Id,query:sid,path:~")
faulty = SessionMiddleware(visit, use_cookies=False, find_id=Echo("X-Echo"))

def wrong(environ, start_response):
    said = unquote_to_bytes(environ["QUERY_STRING"]).decode("latin-1")
    start_response("200 OK", [("X-Echo", said), ("Content-Length", "2")])
    return [b"ok"]

def application(environ, start_response):
    which = {"/faulty": faulty, "/wrong": wrong}.get(environ["PATH_INFO"], right)
    return which(environ, start_response)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    (folder / "served.py").write_text(SERVED)
    return folder


def application():
    names = {}
    exec(SERVED, names)
    return names["application"]


@contextlib.contextmanager
def wsgiref(folder):
    with serving(application()) as url:
        yield int(url.rpartition(":")[2])


@contextlib.contextmanager
def werkzeug(folder):
    needs("werkzeug")
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *args):
            pass

    server = make_server("127.0.0.1", 0, application(), threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def command(*words):
    """A server of its own process."""

    @contextlib.contextmanager
    def server(folder):
        needs(words[0])
        port = free_port()
        with open(folder / f"{words[0]}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *(w.format(port=port) for w in words)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(folder)},
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(lambda: answers(process, port), (folder / f"{words[0]}.log").read_text)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()

    return server


def answers(process, port):
    assert process.poll() is None
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


SERVERS = {
    "wsgiref": wsgiref,
    "werkzeug": werkzeug,
    "waitress": command("waitress", "--listen=127.0.0.1:{port}", "served:application"),
    "gunicorn": command(
        *("gunicorn", "--no-control-socket", "--graceful-timeout=3", "--threads=2"),
        *("--bind=127.0.0.1:{port}", "served:application"),
    ),
}

BAD = ("%0d%0aX-Injected:%201", "%0aX-Injected:%201", "%0dX-Injected:%201", "%00%0aX-Injected: 1")


def head_of(port, target, *lines):
    """Send a request byte by byte as it is here, and return the head of what comes back."""
    with socket.create_connection(("127.0.0.1", port), 30) as raw:
        raw.sendall("\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1"))
        raw.shutdown(socket.SHUT_WR)
        said = b""
        while b"\r\n\r\n" not in said and (more := raw.recv(65536)):
            said += more
    return said.partition(b"\r\n\r\n")[0].decode("latin-1")


def is_injected(head):
    return "x-injected" in [line.partition(":")[0].lower() for line in head.splitlines()]


@pytest.mark.parametrize("server", SERVERS)
def test_no_client_puts_a_header_into_a_response(server, folder):
    basic = ("Host: here", "Connection: close")
    with SERVERS[server](folder) as port:
        for bad in BAD:
            plain = bad.replace("%0d", "\r").replace("%0a", "\n").replace("%20", " ")
            heads = [
                head_of(port, f"/?sid={bad}".replace(" ", "%20"), *basic),
                head_of(port, f"/~{bad}/".replace(" ", "%20"), *basic),
                head_of(port, "/", *basic, f"X-Session-Id: A{plain.replace('%00', chr(0))}"),
                head_of(port, f"/faulty?{bad}".replace(" ", "%20"), *basic),
            ]
            assert not any(map(is_injected, heads)), heads
            assert heads[0].startswith("HTTP/1.") and " 200 " in heads[0].splitlines()[0]
            assert " 200 " not in (heads[3].splitlines() or [""])[0], "refused by us"
        assert " 200 " in head_of(port, "/faulty?fine", *basic).splitlines()[0]


def test_the_rig_sees_a_header_that_a_server_lets_through(folder):
    with wsgiref(folder) as port:
        assert is_injected(head_of(port, f"/wrong?{BAD[0]}", "Host: here", "Connection: close"))


def value_of(head, name):
    found = re.search(rf"(?im)^{name}: *(.*?)\r?$", head)
    return found and found[1]


@pytest.mark.parametrize("server", ["waitress", "gunicorn"])
def test_a_path_id_counts_where_it_was_sent_first_and_nowhere_else(server, folder):
    """Servers fold slashes, and tell what was sent."""
    basic = ("Host: here", "Connection: close")
    with SERVERS[server](folder) as port:
        id = value_of(head_of(port, "/", *basic), "X-Session-Id")
        for target in (f"/~{id}/", f"/~{id}/x?a=1", f"http://here/~{id}/"):
            assert int(value_of(head_of(port, target, *basic), "X-Visits")) > 1, target
        before = (
            *("//", "///", "/./", "/a/../", "/%2e/", "/a/%2e%2e/", "/%2f", "/a//"),
            *("http://here//", "http://here/./", "http://here/a/../"),
        )
        for start in before:
            head = head_of(port, f"{start}~{id}/x", *basic)
            assert value_of(head, "X-Visits") in ("1", None), (start, head)
        for after in ("%0a", "x%0d", "%00/x", "%7f"):
            head = head_of(port, f"/~{id}/{after}", *basic)
            assert value_of(head, "X-Visits") in ("1", None), (after, head)


@pytest.mark.parametrize("server", SERVERS)
def test_no_control_character_of_a_client_is_in_the_redirect_to_the_slash(server, folder):
    id = "A" * 43
    with SERVERS[server](folder) as port:
        assert value_of(head_of(port, f"/~{id}?a=1", "Host: here"), "Location") == f"~{id}/?a=1"
        for said in ("\0", "\x01\x7f", "a\tb", "\x1b[2J", "\xff"):
            head = head_of(port, f"/~{id}?{said}", "Host: here", "Connection: close")
            location = value_of(head, "Location") or ""
            assert location.isascii() and location.isprintable(), (said, head)
