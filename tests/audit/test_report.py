"""What an audit says, and to whom: people, programs, the shell."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import ada_url
import pytest
from audit.toy import Toy

from nocookie.errors import ConfigError
from nocookie.testing import audit, reference
from nocookie.testing.audit.auditor import Auditor
from nocookie.testing.audit.client import Answer, Client, NoAnswer, OutOfTime
from nocookie.testing.audit.elsewhere import leads_elsewhere, ways_elsewhere
from nocookie.testing.serving import serving

PAGE = "http://127.0.0.1:8000/app/page"


def shell(*arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "nocookie.testing.audit", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_report_is_a_sequence_of_results():
    toy = Toy("keeps the id at login")
    with serving(toy) as url:
        report = audit.run(url, only=[6, 2, 36], **toy.description())
    assert [result.name for result in report] == ["REQ-02", "REQ-06", "REQ-36"]
    assert len(report) == 3
    assert report[1] is report.of(6)
    assert report.failed == [report.of(6)]
    assert report.passed == [report.of(2)]
    assert report.not_applicable == [report.of(36)]
    with pytest.raises(KeyError):
        report.of(1)
    assert repr(report) == f"<Report {url}: 1 passed, 1 failed, 1 not applicable>"
    assert "REQ-06  FAIL  a login" in str(report)
    found = json.loads(report.as_json())
    assert found["target"] == url
    assert [each["outcome"] for each in found["results"]] == ["pass", "fail", "not applicable"]
    assert found["results"][1]["evidence"] == "/login kept the id"


@pytest.mark.parametrize("carrier", ["header:X-Session-Id", "query:sid", "path:~"])
def test_no_report_holds_an_id(carrier):
    """Not even of an application that has its ids everywhere, and whose every check fails."""
    faults = ["echoes", "repeats the id at logout", "puts ids on every link", "folds case"]
    toy = Toy(*faults, carrier=carrier)
    issued = []
    new_id = toy.new_id
    toy.new_id = lambda: issued.append(new_id()) or issued[-1]
    with serving(toy) as url:
        report = audit.run(url, **toy.description())
    assert len(report.failed) > 2
    text = report.as_json() + str(report)
    assert not [id for id in issued if any(id[n : n + 12] in text for n in range(len(id) - 12))]
    assert "[id " in text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sid=abc; Path=/", "abc"),
        ('sid="abc"; Max-Age=60; Expires=Fri, 01 Jan 2100 00:00:00 GMT', "abc"),
        ("sid=abc; Expires=nonsense; Max-Age=x", "abc"),
        ("sid=abc; expires=Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("sid=abc; Max-Age=0; path=/", None),
        ("sid=; Path=/", None),
        ("other=abc", None),
    ],
)
def test_a_cookie_that_is_taken_away_gives_no_id(line, told):
    auditor = Auditor(audit.Target(base=PAGE, carrier="cookie:sid"))
    answer = Answer(200, [("Set-Cookie", "x=1"), ("Set-Cookie", line)], b"", 0.0)
    assert auditor.told(answer) == told


def test_words_of_evidence_with_an_id_in_them_are_masked():
    auditor = Auditor(audit.Target(base=PAGE))
    id = "Zm9vYmFyYmF6-1234567890_qrstuvwxyzABCDEFGHI"
    auditor.issued.add(id)
    mask = auditor.masker()
    percents = "".join(f"%{ord(c):02x}" for c in id)
    for given in (id, id[:20], id[5:30], f"/~{id}/x", f"?sid={id}&a=1", percents):
        masked = mask(f"before {given} after")
        assert not any(id[n : n + 8] in masked for n in range(len(id) - 8)), masked
        assert percents not in masked
        assert re.fullmatch(r"before .*\[id [0-9a-f]{10}\].* after", masked)
    assert mask("nothing to hide in /get?k=v") == "nothing to hide in /get?k=v"


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ({"carrier": "headers:X"}, "carrier is header:NAME"),
        ({"carrier": "header"}, "carrier is header:NAME"),
        ({"carrier": "bearer:x"}, "carrier is header:NAME"),
        ({"carier": "bearer"}, "did you mean 'carrier'?"),
        ({"endpoints": {"log_in": "/x"}}, "did you mean login?"),
        ({"endpoints": {"login": "x"}}, "the endpoint login is a text such as"),
        ({"endpoints": {"login": "POST /x a b"}}, "the endpoint login is a text such as"),
        ({"endpoints": {"login": "/x?u={name}"}}, "no field 'name'; it has: user"),
        ({"endpoints": {"login": "/x?u={user"}}, "the endpoint login: "),
        ({"rounds": 0}, "rounds is a number above 0"),
        ({"plain": "127.0.0.1"}, "the target is a URL such as"),
    ],
)
def test_a_wrong_description_is_an_error_before_the_first_request(description, says):
    with pytest.raises(ConfigError, match=re.escape(says)):
        audit.run("http://127.0.0.1:9", **description)


@pytest.mark.parametrize(
    "base", ["", "localhost:80", "ftp://x/", "http:///x", "http://x/?a=1", "http://x:y"]
)
def test_a_target_is_a_url(base):
    with pytest.raises(ConfigError, match="the target is a URL"):
        audit.run(base)


def test_a_target_that_does_not_answer_or_stores_nothing_is_unusable():
    with pytest.raises(audit.Unusable, match="no answer: ConnectionRefusedError"):
        audit.run("http://127.0.0.1:9")

    def nothing(environ, start_response):
        start_response("200 OK", [])
        return [b"{}"]

    with serving(nothing) as url, pytest.raises(audit.Unusable, match="gave a new visitor no id"):
        audit.run(url)


def test_an_audit_ends_at_its_limit():
    with serving(Toy()) as url:
        report = audit.run(url, only=[1, 2], limit=1e-9)
    assert [result.evidence for result in report] == ["not reached within 1e-09 s"] * 2


def test_a_target_below_a_path_with_forms_and_a_key():
    """As applications are, and the reference application is not."""
    toy = Toy()

    def mounted(environ, start_response):
        path = environ["PATH_INFO"]
        if environ.get("HTTP_X_KEY") != "k1" or not path.startswith("/app/v1/"):
            start_response("403 Forbidden", [])
            return [b""]
        environ["PATH_INFO"] = path.removeprefix("/app/v1").replace("/keep", "/set")
        return toy(environ, start_response)

    description = {**toy.description(), "headers": {"X-Key": "k1"}, "ids": 200}
    description["endpoints"] = {"set": "POST /keep k={k}&v={v}", "logout": "POST /logout"}
    with serving(mounted) as url:
        report = audit.run(url + "/app/v1/", only=[1, 2, 4, 9], **description)
    assert [result.outcome for result in report] == ["pass"] * 4, str(report)


def test_the_shell_reports_and_tells_by_its_status():
    with serving(reference.application(type="memory")) as url:
        status, out, err = shell(url, "--reference", "--only", "2", "--only", "9")
        assert (status, err) == (0, "")
        assert "REQ-02  pass" in out
        assert "REQ-09  pass" in out
    toy = Toy("keeps the id at login", carrier="query:sid")
    login = "login=POST /login user={user}"
    with serving(toy) as url:
        given = ("--carrier", "query:sid", "--endpoint", login, "--only", "6", "--json")
        status, out, err = shell(url, *given)
        assert (status, err) == (1, "")
        assert json.loads(out)["results"][0]["outcome"] == "fail"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://127.0.0.1:9"], "no answer: ConnectionRefusedError"),
        (["http://127.0.0.1:9", "--carrier", "x"], "the carrier is"),
        (["http://127.0.0.1:9", "--endpoint", "login"], "'login' is not NAME=TEMPLATE"),
        (["http://127.0.0.1:9", "--only", "56"], "56 is not in the range 1<=x<=55"),
        ([], "Missing argument 'URL'"),
    ],
)
def test_the_shell_says_in_a_sentence_what_is_wrong(arguments, says):
    status, out, err = shell(*arguments)
    assert (status, out) == (2, "")
    assert says in " ".join(err.split())
    assert "Traceback" not in err


# -- the judge of URLs ---------------------------------------------------------------------------

HERE = [
    *("", "x", "/x", "./x", "../x", "?a=1", "#f", "//127.0.0.1:8000/x", "HTTP://127.0.0.1:8000"),
    *(
        "http:x",
        "http:/x",
        "/a//evil",
        "http://u@127.0.0.1:8000/x",
        " /x",
        "\t/x\n",
        "a:8000".replace(":", "/"),
    ),
]


@pytest.mark.parametrize("url", [*HERE, *ways_elsewhere(PAGE)], ids=repr)
def test_the_judge_of_urls_agrees_with_a_browser(url):
    try:
        joined = ada_url.URL(url, base=PAGE)
        # A blob is of the origin that made it, and no page that it leads to.
        elsewhere = joined.origin != ada_url.URL(PAGE).origin or joined.protocol == "blob:"
    except ValueError:
        elsewhere = True
    assert leads_elsewhere(url, PAGE) == elsewhere


class Dripping:
    """A server that begins to answer, and goes on with a byte at a time for as long as one likes:
    in the head, or in the body."""

    def __init__(self, start):
        self.start = start
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.listener.close()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.drip, args=[connection], daemon=True).start()

    def drip(self, connection):
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(self.start)
                while not self.over.wait(0.02):
                    connection.sendall(b"x")
            except OSError:
                pass


DRIPS = {"head": b"HTTP/1.1 200 OK\r\nX-Slow: ", "body": b"HTTP/1.1 200 OK\r\n\r\n"}


@pytest.mark.parametrize("start", DRIPS.values(), ids=list(DRIPS))
def test_a_server_that_drips_holds_nobody_longer_than_the_patience(start):
    with Dripping(start) as server:
        client = Client(server.url, 0.3)
        began = time.monotonic()
        with pytest.raises(NoAnswer, match="TimeoutError"):
            client.send("GET", "/")
        assert 0.2 < time.monotonic() - began < 5


@pytest.mark.parametrize("start", DRIPS.values(), ids=list(DRIPS))
def test_a_server_that_drips_holds_an_audit_no_longer_than_its_limit(start):
    with Dripping(start) as server:
        client = Client(server.url, 600)
        client.until = time.monotonic() + 0.3
        for _ in range(2):  # in the middle of an answer, and before one
            with pytest.raises(OutOfTime):
                client.send("GET", "/")
        assert time.monotonic() < client.until + 5


def test_a_server_that_begins_to_drip_leaves_a_report_in_time():
    """What the audit was about when the time was over is not applicable, as what comes later."""
    toy, dripping = Toy(), threading.Event()
    over = threading.Event()

    def app(environ, start_response):
        if not dripping.is_set():
            if environ["PATH_INFO"] == "/login":
                dripping.set()
            return toy(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter(lambda: b"" if over.wait(0.02) else b"x", b"")

    with serving(app) as url:
        began = time.monotonic()
        try:
            report = audit.run(url, only=[2, 6, 7], limit=1.0, **toy.description())
        finally:
            over.set()
        assert time.monotonic() - began < 9, "and not the ten seconds that an answer may take"
    assert report.not_applicable
    assert "not reached within 1 s" in {result.evidence for result in report.not_applicable}


def test_a_body_without_an_end_is_not_kept(monkeypatch):
    monkeypatch.setattr("nocookie.testing.audit.client.LONGEST_BODY", 100_000)
    taken = 0

    def app(environ, start_response):
        nonlocal taken
        start_response("200 OK", [("Content-Type", "text/plain")])
        while True:
            taken += 1
            yield b"x" * 10_000

    with serving(app) as url, pytest.raises(NoAnswer, match="longer than 100000 bytes"):
        Client(url, 30).send("GET", "/")
    assert taken > 10


def test_a_body_that_breaks_off_is_no_answer():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

        server = threading.Thread(target=answer)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(NoAnswer, match="IncompleteRead"):
            Client(url, 30).send("GET", "/")
        server.join()
