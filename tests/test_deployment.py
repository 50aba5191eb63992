"""docs/deployment.md says what each server tells an application, and each cell of its tables is
asked of the real server here: the page and the servers cannot drift apart."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from realservers import PATIENCE, wait_until
from realservers.wsgi import NAMES, WITH_PREFIX, WITH_WORKERS, HttpServer, Nginx

pytestmark = pytest.mark.server

PAGE = Path(__file__).resolve().parent.parent / "docs" / "deployment.md"

GUNICORN = ["gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent"]
#: The servers that a row of a table speaks of.
ROWS = {
    "wsgiref": ["wsgiref"],
    "waitress": ["waitress"],
    "cheroot": ["cheroot"],
    "gunicorn": GUNICORN,
    **{name.replace("-", ", "): [name] for name in GUNICORN},
    "gunicorn behind nginx": ["gunicorn-sync behind nginx"],
    "uWSGI": ["uwsgi"],
    "granian": ["granian"],
    "hypercorn": ["hypercorn"],
    "hypercorn, a2wsgi": ["hypercorn-a2wsgi"],
    "uvicorn, a2wsgi": ["uvicorn-a2wsgi"],
    "Apache, mod_wsgi": ["apache"],
}

Start = Callable[..., HttpServer]


# -- what is on the page -------------------------------------------------------------------------


class Cell(NamedTuple):
    table: str
    row: str
    column: str
    text: str


def cells() -> list[Cell]:
    """The cells of every table on the page, in order, each under the heading that is above it."""
    found = []
    heading, columns = "", []
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            columns = []
            continue
        row, *texts = (text.strip() for text in line.strip("|").split("|"))
        if not columns:
            columns = texts
        elif set(row) != set("-"):
            found += [
                Cell(heading, row, column, text)
                for column, text in zip(columns, texts, strict=True)
            ]
    return found


CELLS = cells()


# -- what a server does --------------------------------------------------------------------------


def of_the_server(look: Callable[[HttpServer], str]) -> Callable[[Start, str], str]:
    """An observation of a server as it is by default."""

    def observe(start: Start, name: str) -> str:
        return look(started(start, name))

    return observe


def started(start: Start, name: str, **how: Any) -> HttpServer:
    name, _, front = name.partition(" behind ")
    return start(name, front=front, **how)


def told(server: HttpServer, target: str = "/", **request: Any) -> dict[str, Any]:
    """What the application is told of a request. Raises ValueError if it does not get it."""
    answer = server.request("POST" if request.get("body") else "GET", target, **request)
    if answer.status != 200:
        raise ValueError(answer.status)
    return json.loads(answer.body)


def path_of(target: str) -> Callable[[Start, str], str]:
    """How PATH_INFO says this target: `kept` for its path with each percent decoded."""

    @of_the_server
    def observe(server: HttpServer) -> str:
        sent = target.replace("host", f"127.0.0.1:{server.port}")
        try:
            path = told(server, sent)["PATH_INFO"]
        except ValueError as error:
            return str(error)
        return "kept" if path == unquote(sent) else f"`{path}`"

    return observe


@of_the_server
def as_sent(server: HttpServer) -> str:
    """Under which name the application is told the target as it was sent."""
    target = "//a/./%7Eb;c?d=%7E"
    try:
        environ = told(server, target)
    except ValueError:  # cheroot takes no such slashes
        target = "/a/./%7Eb;c?d=%7E"
        environ = told(server, target)
    names = [name for name in ("REQUEST_URI", "RAW_URI") if environ.get(name) == target]
    return ", ".join(f"`{name}`" for name in names) or "-"


def mounted(target: str) -> Callable[[Start, str], str]:
    """SCRIPT_NAME and PATH_INFO of an application that is mounted at /shop."""

    def observe(start: Start, name: str) -> str:
        try:
            environ = told(start(name, prefix="/shop"), target)
        except ValueError as error:
            return str(error)
        paths = environ["SCRIPT_NAME"], environ["PATH_INFO"]
        return " + ".join(f"`{path}`" if path else "nothing" for path in paths)

    return observe


def flag(key: str, workers: int) -> Callable[[Start, str], str]:
    def observe(start: Start, name: str) -> str:
        if workers > 1 and name not in WITH_WORKERS:
            return "-"
        return "yes" if told(started(start, name, workers=workers))[key] else "no"

    return observe


@of_the_server
def repeated(server: HttpServer) -> str:
    environ = told(server, headers=[("X-Id", "a"), ("X-Id", "b")])
    return f"`{environ['HTTP_X_ID']}`"


@of_the_server
def underscored(server: HttpServer) -> str:
    environ = told(server, headers=[("X_Id", "b")])
    if "HTTP_X_ID" not in environ:
        return "left out"
    assert environ["HTTP_X_ID"] == "b"
    both = told(server, headers=[("X-Id", "a"), ("X_Id", "b")])["HTTP_X_ID"]
    return f"taken, `{both}`"


def chunked(server: HttpServer, query: str) -> dict[str, Any]:
    """What the application is told of a body that is sent as a chunk of five bytes."""
    body = b"5\r\nhello\r\n0\r\n\r\n"
    return told(server, f"/?{query}", headers=[("Transfer-Encoding", "chunked")], body=body)


@of_the_server
def chunked_body(server: HttpServer) -> str:
    body = chunked(server, "read=5")["body"]
    return {"hello": "read", "": "empty", "5\r\nhe": "with its framing"}[body]


@of_the_server
def chunked_length(server: HttpServer) -> str:
    length = chunked(server, "").get("CONTENT_LENGTH")
    return "-" if length is None else f'`"{length}"`'


@of_the_server
def is_terminated(server: HttpServer) -> str:
    """Whether the server says that reading ends where the body does."""
    return "yes" if chunked(server, "").get("wsgi.input_terminated") else "no"


@of_the_server
def writes(server: HttpServer) -> str:
    body = server.request("GET", "/?do=write").body
    return {b"wrote": "yes", b"none.": "no"}[body]


def empty(blank: str) -> Callable[[Start, str], str]:
    """Whether a body of nothing arrives, with the status that the application gave."""

    @of_the_server
    def observe(server: HttpServer) -> str:
        seen = {}
        for status in (200, 303, 307):
            answer = server.request("GET", f"/?do=answer&status={status}{blank}")
            seen[status] = "sent" if answer.status == status else str(answer.status)
            assert answer.body == b"" or answer.status == 500
        (one,) = set(seen.values())
        return one

    return observe


@of_the_server
def late_start(server: HttpServer) -> str:
    """What becomes of a status and a header that are given for the first piece only."""
    answer = server.request("GET", "/?do=late")
    assert answer.body == b"late"
    if answer.status == 404 and answer.headers["X-Late"] == "yes":
        return "sent"
    assert answer.headers["X-Late"] is None
    return f"{answer.status}, no headers"


@of_the_server
def head(server: HttpServer) -> str:
    """What a client gets of the body that an application returns for HEAD."""
    raw = server.send(b"HEAD /?do=text HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    heading, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-length: 5" in heading.lower()
    return {b"": "left out", b"hello": "sent"}[body]


def pieces_and_closes(server: HttpServer, method: str, query: str, *, leave: bool) -> list[int]:
    """How many pieces of a body were asked for and how often it was closed, in the end."""
    application = server.behind if isinstance(server, Nginx) else server
    note = application.folder / "note"
    note.unlink(missing_ok=True)
    with server.connect() as sock:
        head = f"{method} /?{query}&note=note HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        while sock.recv(1000) and not leave:
            pass

    def lines() -> list[str]:
        return note.read_text().split() if note.exists() else []

    try:
        wait_until(lambda: "closed" in lines(), str)
    except AssertionError:
        return [lines().count("piece"), 0]
    time.sleep(0.1)  # a second call would be as quick
    return [lines().count("piece"), lines().count("closed")]


@of_the_server
def closes(server: HttpServer) -> str:
    """How often close() is called, for a body that was sent and for that of a HEAD request."""
    pieces, whole = pieces_and_closes(server, "GET", "do=text", leave=False)
    assert pieces == 1
    _, headed = pieces_and_closes(server, "HEAD", "do=text", leave=False)
    assert whole == headed
    return {0: "never", 1: "once"}[whole]


@of_the_server
def left(server: HttpServer) -> str:
    """How far a body is run whose client has left after the first bytes."""
    pieces, closed = pieces_and_closes(server, "GET", "do=stream&pieces=100", leave=True)
    run = "runs on" if pieces == 100 else "stops"
    return f"{run}, {'closed' if closed == 1 else f'{closed} times closed'}"


COLUMNS: dict[str, dict[str, Callable[[Start, str], str]]] = {
    "The path": {
        "as it was sent": as_sent,
        **{
            f"`{target}`": path_of(target)
            for target in (
                *("//a/b", "/a//b", "/./a", "/a/../b", "/%2e/a"),
                *("/a%2Fb", "/%7Ea", "/a;b", "http://host/a"),
            )
        },
    },
    "Below a prefix": {
        f"`{target}`": mounted(target) for target in ("/shop/cart", "/shop", "/cart", "/shopping")
    },
    "Processes and threads": {
        "multithread": flag("wsgi.multithread", 1),
        "multiprocess": flag("wsgi.multiprocess", 1),
        "multithread, two workers": flag("wsgi.multithread", 2),
        "multiprocess, two workers": flag("wsgi.multiprocess", 2),
    },
    "The request": {
        "header sent twice": repeated,
        "name with `_`": underscored,
        "chunked body": chunked_body,
        "its `CONTENT_LENGTH`": chunked_length,
        "its `wsgi.input_terminated`": is_terminated,
    },
    "The response": {
        "`write()`": writes,
        "body `[]`": empty(""),
        'body `[b""]`': empty("&blank="),
        "late `start_response`": late_start,
        "body for HEAD": head,
        "`close()`": closes,
        "client gone": left,
    },
}

#: Which servers each table has to have a row for.
BEHIND = "gunicorn-sync behind nginx"
WANTED = {
    "The servers": {*NAMES, BEHIND},
    "The path": {*NAMES, BEHIND},
    "Below a prefix": set(WITH_PREFIX),
    "Processes and threads": set(NAMES),
    "The request": {*NAMES, BEHIND},
    "The response": {*NAMES, BEHIND},
}


# -- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        pytest.param(name, cell, id=f"{cell.table}-{name}-{cell.column}")
        for cell in CELLS
        if cell.table in COLUMNS
        for name in ROWS[cell.row]
    ],
)
def test_a_server_does_what_the_page_says(name: str, cell: Cell, wsgi_server: Start) -> None:
    assert COLUMNS[cell.table][cell.column](wsgi_server, name) == cell.text


def test_the_page_has_every_server_and_no_cell_that_nothing_looks_at() -> None:
    rows = defaultdict(list)
    columns = defaultdict(set)
    for cell in CELLS:
        columns[cell.table].add(cell.column)
        rows[cell.table, cell.column] += ROWS[cell.row]
    looked_at = {table: set(observers) for table, observers in COLUMNS.items()}
    assert columns == {"The servers": {"started as", "seen with"}, **looked_at}
    for (table, _), names in rows.items():
        assert sorted(names) == sorted(WANTED[table])


def of_each_server(column: str) -> pytest.MarkDecorator:
    found = [cell for cell in CELLS if cell.column == column]
    named = [pytest.param(name, cell, id=name) for cell in found for name in ROWS[cell.row]]
    return pytest.mark.parametrize(("name", "cell"), named)


@of_each_server("started as")
def test_a_server_is_started_as_the_page_says(name: str, cell: Cell, wsgi_server: Start) -> None:
    configuration = started(wsgi_server, name).configuration
    words = " ".join(re.findall(r"`([^`]+)`", cell.text)).split()
    assert words
    assert [word for word in words if word not in configuration] == []


@of_each_server("seen with")
def test_the_page_was_written_with_no_newer_server_than_this(
    name: str, cell: Cell, wsgi_server: Start
) -> None:
    """What an older one does is not what the page says; a newer one is asked by the other tests."""
    here = [numbers(version) for version in started(wsgi_server, name).versions]
    there = [numbers(version) for version in re.findall(r"\d+\.\d+", cell.text)]
    assert there
    for ours, theirs in zip(here, there, strict=False):
        assert ours >= theirs


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


@pytest.mark.parametrize("name", WITH_WORKERS)
def test_two_workers_are_two_processes(name: str, wsgi_server: Start) -> None:
    """Whatever `wsgi.multiprocess` says."""
    server = wsgi_server(name, workers=2)
    until = time.monotonic() + PATIENCE
    seen = set()
    with ThreadPoolExecutor(8) as pool:
        while len(seen) < 2 and time.monotonic() < until:
            seen |= set(pool.map(lambda _: told(server)["pid"], range(16)))
    assert len(seen) == 2


def test_nginx_leaves_out_a_name_with_an_underscore_that_the_server_behind_it_takes(
    wsgi_server: Start,
) -> None:
    assert underscored(wsgi_server, "granian") == "taken, `b`"
    assert underscored(wsgi_server, "granian behind nginx") == "left out"


@pytest.mark.parametrize("name", NAMES)
def test_an_application_that_is_mounted_nowhere_has_an_empty_script_name(
    name: str, wsgi_server: Start
) -> None:
    assert told(wsgi_server(name), "/a/b")["SCRIPT_NAME"] == ""
