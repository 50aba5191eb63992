"""Each check can pass, and can fail: against an application that is right, and one that is wrong in
one way."""

import contextlib
import re
import socketserver
import threading
from base64 import b64decode, urlsafe_b64encode
from urllib.parse import parse_qs, unquote

import pytest
from audit.toy import Toy

from nocookie.testing import audit, reference
from nocookie.testing.audit.requirements import CHECKS, NOT_FROM_OUTSIDE, TITLES
from nocookie.testing.serving import serving

CARRIERS = ["header:X-Session-Id", "query:sid", "path:~"]

#: What an application does wrong, the requirements that it fails by it, and the carrier if it
#: matters.
FAULTS = [
    ("counts", [1]),
    ("ids of 122 bits", [1]),
    ("ids in order", [1]),
    ("repeats ids", [1]),
    ("adopts", [2]),
    ("echoes", [3, 29]),
    ("no gate", [3]),
    ("breaks on junk", [33], "path:~"),
    ("breaks on junk", [3]),
    ("folds case", [4]),
    ("stores ids", [5]),
    ("keeps the id at login", [6]),
    ("keeps the old id", [6]),
    ("loses data at login", [6]),
    ("revives", [7, 10]),
    ("long grace", [8]),
    ("no grace", [8]),
    ("grace over a login", [8]),
    ("ends nothing", [9, 10]),
    ("hides refusals", [7, 11]),
    ("saves all it read", [12]),
    ("readers save", [13]),
    ("adds inexactly", [14]),
    ("misses inner changes", [15]),
    ("never idles", [16, 18]),
    ("lives for ever", [17]),
    ("sweeps nothing", [19]),
    ("sweeps the living", [19]),
    ("ends only some", [20]),
    ("ends everybody", [20]),
    ("lists ids", [20]),
    ("creates at once", [21]),
    ("takes any size", [22]),
    ("logs ids", [23]),
    ("shows ids in errors", [23]),
    ("masks nothing", [24], "query:sid"),
    ("masks nothing", [24], "path:~"),
    ("lets caches keep", [25]),
    ("lets caches keep", [25], "query:sid"),
    ("tells referrers", [26], "query:sid"),
    ("puts ids on every link", [27], "query:sid"),
    ("puts ids into every form", [27]),
    ("redirects anywhere", [28]),
    ("believes its eyes", [28]),
    ("ids with markup", [29]),
    ("asks for no token", [31], "query:sid"),
    ("the id for a token", [31], "query:sid"),
    ("takes the first of two", [32]),
    ("takes the first of two", [32], "query:sid"),
    ("reads cookies", [32]),
    ("strips the path again and again", [34], "path:~"),
    ("unpickles", [35]),
    ("crashes on corruption", [37]),
    ("empty when the store is down", [38]),
    ("hangs when the store is down", [39]),
    ("saves late", [40]),
    ("loses what is late", [40]),
    ("saves when it fails", [41]),
    ("one session for all", [42, 47]),
    ("tells no events", [49, 51]),
    ("forgets nothing", [53]),
    ("trusts the future", [53]),
    ("binds nothing", [54]),
    ("repeats the id at logout", [55]),
    ("clears no data", [55]),
]

#: Proven elsewhere in this file: they need another server, or another application.
APART = {30, 50, 52}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_an_application_that_is_right_fails_nothing(carrier):
    toy = Toy(carrier=carrier)
    with serving(toy) as url:
        report = audit.run(url, **toy.description())
    assert not report.failed, str(report)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}-{fault[1]}")
def test_a_fault_is_found(fault):
    name, numbers, *carrier = fault
    toy = Toy(name, carrier=carrier[0] if carrier else "header:X-Session-Id")
    with serving(toy) as url:
        report = audit.run(url, only=numbers, **toy.description())
    assert [result.number for result in report.failed] == numbers, str(report)


class Naive(socketserver.ThreadingTCPServer):
    """A server that writes what an application calls a header, whatever is in it."""

    daemon_threads = True

    class RequestHandlerClass(socketserver.StreamRequestHandler):
        def handle(self):
            method, target, _ = self.rfile.readline().decode("latin-1").split(" ")
            path, _, query = target.partition("?")
            environ = {"REQUEST_METHOD": method, "PATH_INFO": unquote(path), "QUERY_STRING": query}
            while (line := self.rfile.readline().decode("latin-1").strip()) != "":
                name, _, value = line.partition(":")
                environ["HTTP_" + name.upper().replace("-", "_")] = value.strip()
            environ["CONTENT_LENGTH"] = environ.get("HTTP_CONTENT_LENGTH", "0")
            environ["wsgi.input"] = self.rfile
            head = []
            body = b"".join(self.server.app(environ, lambda *started: head.extend(started)))
            lines = [f"HTTP/1.1 {head[0]}", *(f"{name}: {value}" for name, value in head[1])]
            self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)


@pytest.mark.parametrize(("faults", "failed"), [((), []), (("writes headers of clients",), [30])])
def test_a_header_that_a_client_writes_is_found(faults, failed):
    """Most servers refuse it; the audit must not rely on that."""
    with Naive(("127.0.0.1", 0), Naive.RequestHandlerClass) as server:
        server.app = toy = Toy(*faults)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        report = audit.run(url, only=[30], **toy.description())
        server.shutdown()
    assert [result.number for result in report.failed] == failed, str(report)
    assert not report.not_applicable


def refuse(environ, start_response):
    start_response("403 Forbidden", [])
    return [b"not without TLS"]


@pytest.mark.parametrize(("what_is_plain", "failed"), [(refuse, []), (None, [52])])
def test_ids_over_plain_http_are_found(what_is_plain, failed):
    toy = Toy()
    with serving(toy) as url, serving(what_is_plain or toy) as plain:
        report = audit.run(url, only=[52], plain=plain, **toy.description())
    assert [result.number for result in report.failed] == failed, str(report)
    assert not report.not_applicable


def unsigned(environ, start_response):
    """The session is what the client says."""
    data = {}
    with contextlib.suppress(ValueError):
        text = b64decode(environ.get("HTTP_X_SESSION_ID", "") + "==", b"-_").decode("latin-1")
        data = dict(re.findall(r"(\w+)=(\w*)", text))
    given = parse_qs(environ["QUERY_STRING"])
    headers = [("Content-Type", "text/plain")]
    if given:
        data[given["k"][0]] = given["v"][0]
        text = "&".join(f"{k}={v}" for k, v in data.items())
        token = urlsafe_b64encode(text.encode()).decode().rstrip("=")
        headers.append(("X-Session-Id", token))
    start_response("200 OK", headers)
    return [str(data).encode()]


@pytest.mark.parametrize("signed", [True, False])
def test_a_token_that_can_be_changed_is_found(signed):
    app = unsigned
    if signed:
        app = reference.application(type="cookie", secret="a secret of thirty-two characters")
    with serving(app) as url:
        report = audit.run(url, only=[50], stateless=True)
    assert [result.number for result in report.failed] == ([] if signed else [50]), str(report)
    assert not report.not_applicable


def test_every_check_can_fail():
    found = {number for _, numbers, *_ in FAULTS for number in numbers}
    assert found | APART == CHECKS.keys()
    assert CHECKS.keys() | NOT_FROM_OUTSIDE.keys() == TITLES.keys()
    assert not CHECKS.keys() & NOT_FROM_OUTSIDE.keys()
