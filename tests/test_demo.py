"""The demo: the notebook itself, and the process that serves it."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from webtest import TestApp

from nocookie import demo

BROWSER = {"HTTP_ACCEPT": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
LONGER_THAN_A_START_TAKES = 60


@pytest.fixture
def notebook(tmp_path):
    app = demo.application(tmp_path)
    yield TestApp(app)
    app.manager.backend.store.close()


@pytest.fixture
def browser(notebook):
    return TestApp(notebook.app, extra_environ=BROWSER)


def visit(notebook):
    return notebook.get("/").headers["X-Session-Id"]


# -- the notebook --------------------------------------------------------------------------------


def test_the_first_visit_is_counted_and_told_its_id(notebook):
    answer = notebook.get("/")

    assert re.fullmatch(r"[\w-]{43}", answer.headers["X-Session-Id"])
    fingerprint = answer.json.pop("fingerprint")
    assert re.fullmatch("[0-9a-f]{10}", fingerprint)
    assert {
        "visits": 1,
        "notes": [],
        "is_new": True,
        "reason": "absent",
        "id_came_by": None,
        "fingerprint": fingerprint,
    } == answer.json
    assert "Set-Cookie" not in answer.headers


def test_a_known_id_in_the_header_keeps_the_session(notebook):
    id = visit(notebook)

    answer = notebook.get("/", headers={"X-Session-Id": id})

    assert answer.json["visits"] == 2
    assert tuple(answer.json[name] for name in ("is_new", "reason", "id_came_by")) == (
        False,
        None,
        "header",
    )
    assert "X-Session-Id" not in answer.headers


def test_a_known_id_in_the_query_keeps_the_session(notebook):
    id = visit(notebook)

    answer = notebook.get(f"/?sid={id}")

    assert tuple(answer.json[name] for name in ("visits", "is_new", "id_came_by")) == (
        2,
        False,
        "query",
    )
    assert "X-Session-Id" not in answer.headers


@pytest.mark.parametrize(
    ("id", "reason"),
    [("A" * 43, "unknown"), ("../../etc/passwd", "malformed"), ("%ff", "malformed")],
)
def test_an_id_that_is_not_ours_is_not_adopted(notebook, id, reason):
    answer = notebook.get(f"/?sid={id}")

    assert (1, True, reason) == tuple(answer.json[n] for n in ("visits", "is_new", "reason"))
    assert id != answer.headers["X-Session-Id"]


def test_notes_are_kept_whether_posted_as_a_form_or_as_json(notebook):
    as_header = {"X-Session-Id": visit(notebook)}

    notebook.post("/notes", {"note": "milk"}, headers=as_header)
    notebook.post_json("/notes", {"note": "brød"}, headers=as_header)

    assert notebook.get("/", headers=as_header).json["notes"] == ["milk", "brød"]


def test_a_note_begins_a_session_too(notebook):
    id = notebook.post("/notes", {"note": "milk"}).headers["X-Session-Id"]

    assert notebook.get(f"/?sid={id}").json["notes"] == ["milk"]


def test_no_note_of_many_at_once_is_lost(notebook):
    as_header = {"X-Session-Id": visit(notebook)}

    def add(number):
        app = TestApp(notebook.app)
        app.post("/notes", {"note": str(number)}, headers=as_header)
        app.get("/", headers=as_header)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))

    seen = notebook.get("/", headers=as_header).json
    assert sorted(map(str, range(40))) == sorted(seen["notes"])
    assert seen["visits"] == 42


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"\xff\xfe"),
        ("application/json", b"[1]"),
        ("application/json", b"[" * 9000),
        ("application/json", b'{"note": 1}'),
        ("application/json", b'{"note": "\\ud800"}'),
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"note=+"),
        ("application/x-www-form-urlencoded", b"note=" + b"x" * 1001),
        ("multipart/form-data", b"x"),
        ("text/plain", b"note=milk"),
    ],
)
def test_a_body_that_is_no_note_is_400_and_changes_nothing(notebook, kind, body):
    answer = notebook.post("/notes", body, content_type=kind, status=400)

    assert "X-Session-Id" not in answer.headers


def test_a_body_that_is_too_large_is_413(notebook):
    notebook.post("/notes", b"x" * (demo.MAX_BODY + 1), status=413)


def test_only_the_last_notes_are_kept(notebook, monkeypatch):
    monkeypatch.setattr(demo, "MAX_NOTES", 2)
    as_header = {"X-Session-Id": visit(notebook)}

    for note in ("a", "b", "c"):
        notebook.post("/notes", {"note": note}, headers=as_header)

    assert notebook.get("/", headers=as_header).json["notes"] == ["b", "c"]


def test_a_rotation_keeps_the_notes_and_kills_the_old_id(notebook):
    old = {"X-Session-Id": visit(notebook)}
    notebook.post("/notes", {"note": "milk"}, headers=old)

    new = {"X-Session-Id": notebook.post("/rotate", headers=old).headers["X-Session-Id"]}

    assert old != new
    assert notebook.get("/", headers=new).json["notes"] == ["milk"]
    assert notebook.get("/", headers=old).json["reason"] == "unknown"


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/session"), ("POST", "/logout")])
def test_an_ended_session_is_gone(notebook, method, path):
    as_header = {"X-Session-Id": visit(notebook)}

    answer = notebook.request(path, method=method, headers=as_header)

    assert (answer.json["visits"], answer.json["reason"]) == (0, "destroyed")
    assert "X-Session-Id" not in answer.headers
    assert tuple(
        notebook.get("/", headers=as_header).json[name] for name in ("visits", "reason")
    ) == (1, "unknown")


def test_what_is_not_there_is_404_and_what_cannot_be_done_405(notebook):
    notebook.get("/favicon.ico", status=404)
    notebook.get("/%ff", status=404)

    assert notebook.put("/notes", status=405).headers["Allow"] == "POST"


# -- in a browser --------------------------------------------------------------------------------


def test_a_browser_keeps_its_session_by_links_and_forms(browser):
    page = browser.get("/")
    assert page.content_type == "text/html"
    assert "Set-Cookie" not in page.headers

    form = page.forms[0]
    form["note"] = "milk"
    page = form.submit().follow()
    page = page.click("come again")
    assert "<li>milk</li>" in page
    assert "query" in page

    rotated = page.forms[1].submit().follow()
    assert "<li>milk</li>" in rotated
    assert "<li>milk</li>" not in page.click("come again")

    ended = rotated.forms[2].submit()
    assert "sid=" not in ended.location
    assert "<li>milk</li>" not in rotated.click("come again")


def test_a_note_is_text_and_never_markup(notebook, browser):
    id = notebook.post("/notes", {"note": "<script>x</script>{0}'\""}).headers["X-Session-Id"]

    page = browser.get(f"/?sid={id}")

    assert "<script>" not in page
    assert "&lt;script&gt;x&lt;/script&gt;{0}&#x27;&quot;" in page


def test_a_page_that_holds_an_id_is_not_stored_and_sends_no_referrer(browser):
    first = browser.get("/")
    second = first.click("come again")

    for page in (first, second):
        assert page.headers["Cache-Control"] == "no-store"
        assert page.headers["Referrer-Policy"] == "same-origin"


# -- the process ---------------------------------------------------------------------------------


class Process:
    """`nocookie demo` on a free port."""

    def __init__(self, data_dir):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nocookie", "demo", "--port=0", f"--data-dir={data_dir}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        # A start that hangs ends the reading below instead of the patience of whoever waits.
        watchdog = threading.Timer(LONGER_THAN_A_START_TAKES, self.process.kill)
        watchdog.start()
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("The sessions lie in "):
                break
        watchdog.cancel()
        watchdog.join()
        self.introduction = "".join(lines)
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.introduction)
        assert found, self.introduction
        self.url, self.port = found[0], int(found[1])

    def get(self, path="/", **headers):
        request = urllib.request.Request(self.url + path, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=LONGER_THAN_A_START_TAKES) as response:
            return response.headers, json.load(response)

    def end(self, signal):
        """Send *signal*; return the exit status, and what was printed since the start."""
        if self.process.poll() is None:
            self.process.send_signal(signal)
        rest, _ = self.process.communicate(timeout=LONGER_THAN_A_START_TAKES)
        return self.process.returncode, rest


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as running:

        def start():
            process = Process(tmp_path / "data")
            running.callback(process.process.stdout.close)
            running.callback(process.process.wait, LONGER_THAN_A_START_TAKES)
            running.callback(process.process.kill)
            return process

        yield start


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_restart_keeps_the_session(start, how):
    first = start()
    headers, _ = first.get()
    id = headers["X-Session-Id"]
    first.end(how)

    _, seen = start().get("/", **{"X-Session-Id": id})

    assert (seen["visits"], seen["is_new"]) == (2, False)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_clean_and_quiet(start, tmp_path, how):
    process = start()
    process.get()

    status, said = process.end(how)

    assert status == 0
    assert "Traceback" not in said
    assert "Stopped. The sessions are kept.\n" in said
    # The last connection is closed, so SQLite has put everything into the one file.
    assert os.listdir(tmp_path / "data" / "sessions") == ["sessions.db"]


def test_it_says_where_the_data_lies(start, tmp_path):
    process = start()
    process.get()

    said = re.search(r"The sessions lie in (.+)", process.introduction)[1]

    with contextlib.closing(sqlite3.connect(os.path.join(said, "sessions.db"))) as sql:
        assert sql.execute("SELECT count(*) FROM sessions").fetchall() == [(1,)]


def test_no_id_gets_into_the_request_log(start):
    process = start()
    headers, _ = process.get()
    id = headers["X-Session-Id"]
    for head in (
        f"GET /?sid={id} HTTP/1.0",
        f"GET / HTTP/1.0\r\nX-Session-Id: {id}",
        f"GET /{'x' * 70_000}?sid={id} HTTP/1.0",
        f"GET /?sid={id} HTTP/9.9",
        f"GET /?sid={id} x y",
        f"/?sid={id}",
    ):
        with socket.create_connection(("127.0.0.1", process.port), timeout=60) as raw:
            raw.sendall(head.encode() + b"\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while raw.recv(65536):  # to the end, which comes after the line in the log
                    pass

    _, said = process.end(signal.SIGTERM)

    assert id not in process.introduction + said
    assert said.count("GET / 200\n") >= 2
    assert "414" in said


def test_the_printed_lines_work_when_pasted(start):
    if not shutil.which("curl") or not shutil.which("bash"):
        if os.environ.get("CI") == "true":
            pytest.fail("curl and bash are needed to run the lines that the demo prints")
        pytest.skip("curl or bash is missing: the lines that the demo prints are NOT tested")
    process = start()
    lines = [line.strip() for line in process.introduction.splitlines() if line.startswith("    ")]
    assert len(lines) == 8

    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=LONGER_THAN_A_START_TAKES,
        env={**os.environ, "no_proxy": "127.0.0.1"},
    )

    assert (done.returncode, done.stderr) == (0, "")
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(s["visits"], s["notes"], s["id_came_by"], s["reason"]) for s in seen] == [
        (2, [], "header", None),
        (2, ["milk"], "header", None),
        (3, ["milk"], "query", None),
        (3, ["milk", "bread"], "query", None),
        (4, ["milk", "bread"], "header", None),
        (0, [], "header", "destroyed"),
    ]
    assert len({s["fingerprint"] for s in seen[:4]}) == 1
