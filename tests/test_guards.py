"""The rules for proxies that docs/carriers/path.md prints, in front of us: no spelling of a path
with an id leads past them. The servers are the real ones."""

import http.client
import os
import re
import shutil
import urllib.request
from pathlib import Path

import pytest
from realservers import Server, missing

from nocookie import SessionMiddleware, session
from nocookie.testing.serving import serving

PAGE = Path(__file__).parent.parent / "docs" / "carriers" / "path.md"
MODULES = Path("/usr/lib/apache2/modules")


def snippet(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


class Proxy(Server):
    def __init__(self, folder, upstream):
        super().__init__(folder)
        self.upstream = upstream.rpartition("/")[2]

    def write(self, name, *parts):
        (self.folder / name).write_text("\n".join(parts).replace("127.0.0.1:8000", self.upstream))
        return str(self.folder / name)


class Nginx(Proxy):
    program = "nginx"

    def command(self):
        listening = snippet("nginx").replace("server {", f"server {{ listen 127.0.0.1:{self.port};")
        temporary = (
            f"{kind}_temp_path {self.folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        path = self.write(
            "nginx.conf",
            *("daemon off;", f"pid {self.folder}/pid;", "error_log stderr;", "events {}"),
            *("http { access_log off;", *temporary, listening, "}"),
        )
        return [self.program, "-p", str(self.folder), "-c", path, "-e", "stderr"]


class Apache(Proxy):
    program = "apache2"

    def command(self):
        names = ("mpm_event", "authz_core", "rewrite", "proxy", "proxy_http")
        user = ["User nobody", "Group nogroup"] if os.geteuid() == 0 else []
        path = self.write(
            "apache.conf",
            *(f"ServerRoot {self.folder}", "ServerName here", f"PidFile {self.folder}/pid"),
            *("ErrorLog /dev/stderr", f"Listen 127.0.0.1:{self.port}", *user),
            *(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in names),
            snippet("apache"),
        )
        return [self.program, "-f", path, "-DFOREGROUND"]


def application(environ, start_response):
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"saw {environ['PATH_INFO']!r}".encode()]


@pytest.fixture(params=[Nginx, Apache])
def proxy(request, tmp_path):
    """A server with its rule in front of ours, and a live id."""
    if shutil.which(request.param.program) is None:
        missing(request.param.program, "tests/realservers/install.py")
    app = SessionMiddleware(application, use_cookies=False, find_id="path:~")
    with serving(app) as upstream:
        with urllib.request.urlopen(upstream) as answer:
            id = answer.headers["X-Session-Id"]
        server = request.param(tmp_path, upstream)
        try:
            server.start()
            yield server.port, id
        finally:
            server.stop()


def answer(port, target):
    """Ask for *target* as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest("GET", target)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_what_is_not_guarded_is_open_with_an_id_and_without(proxy):
    port, id = proxy
    for target, seen in (("/cart", "/cart"), (f"/~{id}/cart?a=1", "/cart"), ("/a%20b", "/a b")):
        assert answer(port, target) == (200, f"saw {seen!r}"), target


GUARDED = [
    *("/admin", "/admin/x", "//admin", "/./admin", "/a/../admin", "/%61dmin"),
    *("/~S/admin", "/~S/admin/x?a=1", "/~S/%61dmin", "/%7eS/admin", "//~S/admin", "/~S//admin"),
    *("/./~S/admin", "/~S/./admin", "/a/../~S/admin", "/~S/a/../admin", "/~S/admin%0ax"),
    *("/~S/admin%0d", "/~S/admin/%00", "/%0a/~S/admin", "/~S/~S/admin", "/~S%2fadmin"),
]


@pytest.mark.parametrize("target", GUARDED)
def test_no_spelling_of_a_guarded_path_leads_past_the_rule(proxy, target):
    port, id = proxy
    status, seen = answer(port, target.replace("S", id))
    assert status in (403, 404, 400) or not seen.startswith("saw '/admin"), (status, seen)
