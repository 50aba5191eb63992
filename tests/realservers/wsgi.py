"""Real WSGI servers, each in a process of its own: what the fixture `wsgi_server` gives.

    server = wsgi_server("gunicorn-gthread")
    server.request("GET", "/a/../b").status

A server serves an application named `module:name`. The module lies in `applications` beside this
file, in the *modules* that a test names, or in an installed package. The server runs in a folder of
its own, which is the current folder of the application too. Before a test gets it, it has answered
`GET /`.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import io
import os
import pwd
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable
from email.message import Message
from pathlib import Path
from typing import NamedTuple

from realservers import PATIENCE, Server, missing

APPLICATIONS = Path(__file__).resolve().parent / "applications"

#: What every server is told to serve: `application` for WSGI, `asgi` for the servers of ASGI.
SERVED = """\
from {module} import {name} as application
"""
SERVED_BY_ASGI = """\
from a2wsgi import WSGIMiddleware
from {module} import {name}
asgi = WSGIMiddleware({name})
"""

#: wsgiref has no command: this program takes the port.
WSGIREF = """\
import sys
from wsgiref.simple_server import make_server
from served import application
make_server("127.0.0.1", int(sys.argv[1]), application).serve_forever()
"""
UWSGI = "import pyuwsgi; pyuwsgi.run()"


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes


class HttpServer(Server):
    """A server of HTTP, and what a test sends to it."""

    #: The path that the application is mounted at.
    prefix = ""

    def answers(self) -> bool:
        """Whether the application answers `GET /` below its prefix. Raises AssertionError for 500,
        which is how Apache says that it could not load it."""
        assert self.request("GET", f"{self.prefix}/").status != 500, self.log
        return True

    def remove(self) -> None:
        """End it, and leave nothing behind that pytest does not take away. It has nothing to write,
        and some that are told to stop while they start do not hear it."""
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def versions(self) -> list[str]:
        """The version of the server, then those of what it serves by."""
        raise NotImplementedError

    @property
    def configuration(self) -> str:
        """How it was told what to do."""
        return " ".join(self.command())

    @property
    def log(self) -> str:
        """What the server, and the application, have written so far."""
        return (self.folder / "server.log").read_text("utf-8", "replace")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def send(self, raw: bytes) -> bytes:
        """Send these bytes, and return all that comes back until the server closes."""
        with self.connect() as sock:
            sock.sendall(raw)
            said = b""
            while True:
                try:
                    piece = sock.recv(65536)
                except ConnectionResetError:
                    return said
                if not piece:
                    return said
                said += piece

    def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Answer:
        """Ask for *target*, which is sent as it is. A body is told by its length, if *headers* do
        not say another thing. Raises http.client.HTTPException for what is no answer."""
        lines = [("Host", f"127.0.0.1:{self.port}"), ("Connection", "close"), *headers]
        if body and not any(name.lower() == "transfer-encoding" for name, _ in lines):
            lines.append(("Content-Length", str(len(body))))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return parsed(
            self.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body), method
        )


def parsed(raw: bytes, method: str = "GET") -> Answer:
    response = http.client.HTTPResponse(_Said(raw), method=method)  # type: ignore[arg-type]
    response.begin()
    return Answer(response.status, response.headers, response.read())


class _Said:
    """As much of a socket as HTTPResponse asks for."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self.raw)


# -- the servers ---------------------------------------------------------------------------------


class Kind(NamedTuple):
    """How a server is started: `python <run> <options> <serve>`."""

    run: tuple[str, ...]
    #: With {port} and {workers} in them.
    options: str
    serve: str = "served:application"
    #: In the place of *serve* where the application is mounted at {prefix}.
    mounted: str = ""
    #: What pip installs for it: the server, then what it serves by.
    packages: tuple[str, ...] = ()
    is_asgi: bool = False

    @property
    def has_workers(self) -> bool:
        """Whether it can be told how many processes work for it."""
        return "{workers}" in self.options


def gunicorn(options: str, *more: str) -> Kind:
    # A worker that is told to stop while it starts does not hear it, and is waited for.
    control = "--no-control-socket --graceful-timeout=3"
    return Kind(
        ("-m", "gunicorn"),
        f"--bind=127.0.0.1:{{port}} --workers={{workers}} {control} {options}",
        mounted="--env=SCRIPT_NAME={prefix} served:application",
        packages=("gunicorn", *more),
    )


def asgi(name: str, options: str) -> Kind:
    return Kind(
        ("-m", name),
        f"{options} --workers={{workers}}",
        serve="served:asgi",
        mounted="--root-path={prefix} served:asgi",
        packages=(name, "a2wsgi"),
        is_asgi=True,
    )


KINDS = {
    "wsgiref": Kind(("-c", WSGIREF), "{port}"),
    "waitress": Kind(
        ("-m", "waitress"),
        "--listen=127.0.0.1:{port} --threads=4",
        mounted="--url-prefix={prefix} served:application",
        packages=("waitress",),
    ),
    "cheroot": Kind(
        ("-m", "cheroot"), "--bind=127.0.0.1:{port} --threads=4", packages=("cheroot",)
    ),
    "gunicorn-sync": gunicorn("--worker-class=sync"),
    "gunicorn-gthread": gunicorn("--worker-class=gthread --threads=4"),
    "gunicorn-gevent": gunicorn("--worker-class=gevent", "gevent"),
    "uwsgi": Kind(
        ("-c", UWSGI),
        "--http-socket=127.0.0.1:{port} --processes={workers} --threads=4 --master --need-app"
        " --die-on-term",
        serve="--module=served:application",
        mounted="--mount={prefix}=served:application --manage-script-name",
        packages=("pyuwsgi",),
    ),
    "granian": Kind(
        ("-m", "granian"),
        "--interface=wsgi --host=127.0.0.1 --port={port} --workers={workers} --blocking-threads=4",
        mounted="--url-path-prefix={prefix} served:application",
        packages=("granian",),
    ),
    "hypercorn": Kind(
        ("-m", "hypercorn"),
        "--bind=127.0.0.1:{port} --workers={workers}",
        serve="wsgi:served:application",
        mounted="--root-path={prefix} wsgi:served:application",
        packages=("hypercorn",),
    ),
    "hypercorn-a2wsgi": asgi("hypercorn", "--bind=127.0.0.1:{port}"),
    "uvicorn-a2wsgi": asgi("uvicorn", "--host=127.0.0.1 --port={port} --http=h11 --lifespan=off"),
}

#: How a package is imported where that is not its name.
MODULES_OF = {"gevent-websocket": "geventwebsocket"}

#: Servers for one purpose, which a test asks for by name and no page lists.
SPECIAL = {
    "gevent-websocket": gunicorn(
        "--worker-class=geventwebsocket.gunicorn.workers.GeventWebSocketWorker",
        "gevent",
        "gevent-websocket",
    ),
}


class Asked(NamedTuple):
    """What a test asks for."""

    #: One of NAMES, or of SPECIAL.
    name: str
    #: `module:name`.
    application: str
    #: How many processes work for it.
    workers: int
    #: The path that the application is mounted at.
    prefix: str
    #: The folder of its module.
    modules: Path
    #: What is in front of it: "nginx", or nothing.
    front: str


class WsgiServer(HttpServer):
    """A server that Python packages carry, by its name in KINDS."""

    def __init__(self, folder: Path, asked: Asked) -> None:
        name, application, workers, prefix, modules, _ = asked
        self.kind = {**KINDS, **SPECIAL}[name]
        for package in self.kind.packages:
            if importlib.util.find_spec(MODULES_OF.get(package, package)) is None:
                missing(package, "pip install --group servers")
        assert workers == 1 or self.kind.has_workers, f"{name} is one process"
        assert not prefix or self.kind.mounted, f"{name} has no prefix"
        super().__init__(folder)
        self.prefix = prefix
        self.workers = workers
        write_served(folder, application, SERVED_BY_ASGI if self.kind.is_asgi else SERVED)
        search = [str(folder), str(modules), os.environ.get("PYTHONPATH", "")]
        self.environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))}

    def command(self) -> list[str]:
        serve = self.kind.mounted if self.prefix else self.kind.serve
        options = f"{self.kind.options} {serve}".format(
            port=self.port, workers=self.workers, prefix=self.prefix
        )
        return [sys.executable, *self.kind.run, *options.split()]

    @property
    def versions(self) -> list[str]:
        packages = self.kind.packages
        if not packages:  # of the standard library
            return [".".join(map(str, sys.version_info[:3]))]
        return [importlib.metadata.version(package) for package in packages]


def write_served(folder: Path, application: str, text: str) -> None:
    module, _, name = application.partition(":")
    (folder / "served.py").write_text(text.format(module=module, name=name), "utf-8")


# -- Apache --------------------------------------------------------------------------------------

MODULES = Path("/usr/lib/apache2/modules")
APACHE = """\
ServerName localhost
ServerRoot {folder}
DefaultRuntimeDir {folder}
PidFile {folder}/pid
Listen 127.0.0.1:{port}
{user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
ErrorLog /dev/stderr
WSGISocketPrefix {folder}/socket
WSGIDaemonProcess served {processes} threads=4 home={folder} python-path={folder}:{folder}/packages
WSGIScriptAlias {prefix} {folder}/served.py process-group=served application-group=%{{GLOBAL}}
WSGIChunkedRequest On
<Directory {folder}>
    Require all granted
</Directory>
"""


class Apache(HttpServer):
    """Apache with mod_wsgi, both as Debian has them, in daemon mode.

    The application runs under the Python that mod_wsgi was built for, which is Debian's and need
    not be the one that runs the tests: so it has nocookie and WebOb, which are of no version of
    Python, and no other package. Started by root, the application is run by nobody, who may not
    be able to read the packages where they are: it gets copies.
    """

    PACKAGES = ("nocookie", "webob")

    def __init__(self, asked: Asked) -> None:
        _, application, workers, prefix, modules, _ = asked
        self.program = program("apache2")
        if self.program is None or not (MODULES / "mod_wsgi.so").exists():
            missing("Apache with mod_wsgi", "apt-get install libapache2-mod-wsgi-py3")
        # Not in pytest's own folder, which is closed to nobody.
        super().__init__(Path(tempfile.mkdtemp(prefix="nocookie-apache-")))
        self.prefix = prefix
        write_served(self.folder, application, SERVED)
        packages = self.folder / "packages"
        shutil.copytree(modules, packages)
        for name in self.PACKAGES:
            shutil.copytree(package_folder(name), packages / name)
        user = "User nobody\nGroup nogroup" if os.geteuid() == 0 else ""
        settings = {
            "folder": self.folder,
            "modules": MODULES,
            "port": self.port,
            "prefix": prefix or "/",
        }
        # Of one process it says wsgi.multiprocess as soon as their number is written down.
        processes = f"processes={workers}" if workers > 1 else ""
        text = APACHE.format(user=user, processes=processes, **settings)
        (self.folder / "apache.conf").write_text(text, "utf-8")
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody").pw_uid
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, nobody, -1)

    @property
    def configuration(self) -> str:
        return (self.folder / "apache.conf").read_text("utf-8")

    def command(self) -> list[str]:
        assert self.program is not None
        return [self.program, "-f", str(self.folder / "apache.conf"), "-D", "FOREGROUND"]

    @property
    def versions(self) -> list[str]:
        """Of Apache, mod_wsgi and Python, in the order in which Apache names them."""
        software = self.request("GET", "/").headers["Server"]
        return re.findall(r"/(\d+(?:\.\d+)+)", software)

    def remove(self) -> None:
        self.stop()  # when killed, it leaves semaphores
        shutil.rmtree(self.folder)


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


# -- nginx ---------------------------------------------------------------------------------------

NGINX = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{ }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


class Nginx(HttpServer):
    """nginx in front of the server *behind*, to which it sends each path on as it was sent."""

    def __init__(self, folder: Path, behind: HttpServer) -> None:
        self.program = program("nginx")
        if self.program is None:
            missing("nginx", "apt-get install nginx")
        super().__init__(folder)
        self.behind = behind
        self.prefix = behind.prefix
        user = "user root;" if os.geteuid() == 0 else ""
        text = NGINX.format(folder=folder, port=self.port, behind=behind.port, user=user)
        (folder / "nginx.conf").write_text(text, "utf-8")

    @property
    def configuration(self) -> str:
        return (self.folder / "nginx.conf").read_text("utf-8")

    def command(self) -> list[str]:
        assert self.program is not None
        return [self.program, "-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr"]

    @property
    def versions(self) -> list[str]:
        return re.findall(r"\d+(?:\.\d+)+", self.request("GET", "/").headers["Server"])


def program(name: str) -> str | None:
    """Where a server is: Debian puts it where only root's PATH leads."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


# -- all of them ---------------------------------------------------------------------------------

#: Every server that can be asked for, in the order of the pages that list them.
NAMES = (*KINDS, "apache")
#: Those that can be told how many processes work for them, and those that can be told a prefix.
WITH_WORKERS = (*(name for name, kind in KINDS.items() if kind.has_workers), "apache")
WITH_PREFIX = (*(name for name, kind in KINDS.items() if kind.mounted), "apache")


class Rig:
    """The servers of one run: each is started when it is first asked for, and stays."""

    def __init__(self, make_folder: Callable[[str], Path]) -> None:
        self._make_folder = make_folder
        self._servers: dict[Asked, HttpServer] = {}
        #: Those that could not start, too.
        self._begun: list[HttpServer] = []

    def server(
        self,
        name: str,
        application: str = "probe:application",
        *,
        workers: int = 1,
        prefix: str = "",
        modules: Path = APPLICATIONS,
        front: str = "",
    ) -> HttpServer:
        """Return the server *name*, one of NAMES, that serves *application*, found in the folder
        *modules*, by so many *workers*, mounted at *prefix*. Where *front* is "nginx", return nginx
        in front of it."""
        asked = Asked(name, application, workers, prefix, modules, front)
        if asked not in self._servers:
            self._servers[asked] = self._start(asked)
        return self._servers[asked]

    def _start(self, asked: Asked) -> HttpServer:
        server: HttpServer
        if asked.front:
            assert asked.front == "nginx"
            behind = self.server(**asked._replace(front="")._asdict())
            server = Nginx(self._make_folder(asked.front), behind)
        elif asked.name == "apache":
            server = Apache(asked)
        else:
            server = WsgiServer(self._make_folder(asked.name), asked)
        self._begun.append(server)
        server.start()
        return server

    def stop(self) -> None:
        for server in self._begun:
            server.remove()
