"""Ids in URLs: where exactly one is taken, and that nothing of it is left to see."""

import io
import logging
import re
import sys
from wsgiref.simple_server import make_server
from wsgiref.validate import validator

import pytest
from helpers import serve
from webob import Request

from nocookie import (
    ConfigError,
    Form,
    Header,
    PathParam,
    PathSegment,
    Query,
    SessionMiddleware,
    session,
)
from nocookie.logs import MaskIds, MaskingRequestHandler, mask
from nocookie.request import TAKEN
from nocookie.stores.memory import MemoryStore
from nocookie.testing import CarrierSuite

S = "S" * 42 + "A"
OLD = "O" * 42 + "A"


def environ_of(path, query="", root="", **more):
    environ = Request.blank("/").environ
    environ |= {"SCRIPT_NAME": root, "PATH_INFO": path, "QUERY_STRING": query, **more}
    return environ


class TestPathSegment(CarrierSuite):
    @pytest.fixture
    def carrier(self):
        return PathSegment("~")

    def put(self, environ, *ids):
        environ["PATH_INFO"] = "".join(f"/~{id}" for id in dict.fromkeys(ids)) + "/page"


class TestPathParam(CarrierSuite):
    @pytest.fixture
    def carrier(self):
        return PathParam("sid")

    def put(self, environ, *ids):
        environ["PATH_INFO"] = "/page" + "".join(f";sid={id}" for id in ids)


@pytest.mark.parametrize(
    ("path", "root_after", "path_after"),
    [
        ("/~S/", "/~S", "/"),
        ("/~S/x", "/~S", "/x"),
        ("/~S//x", "/~S", "//x"),
        ("/~S/.hidden", "/~S", "/.hidden"),
        ("/~S/...", "/~S", "/..."),
        ("/~S/x/~S", "/~S", "/x/~S"),
        ("/~S/~user", "/~S", "/~user"),
        # never taken off; hidden where one comes first and does not count
        ("/x/~S/y", "", "/x/~S/y"),
        ("//~S/x", "", "//~S/x"),
        ("/./~S/x", "", "/./~S/x"),
        ("/x/../~S/y", "", "/x/../~S/y"),
        ("/~S/~S/x", "", "/~[masked]/~[masked]/x"),
        ("/~S/~OLD/x", "", "/~[masked]/~[masked]/x"),
        ("/~S/~OLD", "", "/~[masked]/~[masked]"),
        ("/~S/../x", "", "/~[masked]/../x"),
        ("/~S/./x", "", "/~[masked]/./x"),
        ("/~S/..", "", "/~[masked]/.."),
        ("/~S;v=1/x", "", "/~[masked];v=1/x"),
        ("/~Sx/y", "", "/~Sx/y"),
        ("/~SxS/y", "", "/~SxS/y"),
        ("/S/x", "", "/S/x"),
        ("/~/x", "", "/~/x"),
        ("/~S\n/x", "", "/~[masked]\n/x"),
        ("~S/x", "", "~S/x"),
        ("", "", ""),
    ],
)
@pytest.mark.parametrize("root", ["", "/shop"])
def test_the_segment_is_taken_at_one_place_in_one_form(root, path, root_after, path_after):
    write = lambda text: text.replace("OLD", "_").replace("S", S).replace("_", OLD)  # noqa: E731
    environ = environ_of(write(path), root=root)
    assert PathSegment("~").prepare(environ) is None
    assert environ["SCRIPT_NAME"] == root + write(root_after)
    assert environ["PATH_INFO"] == write(path_after)
    assert PathSegment("~").read(environ) == (S if root_after else None)


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("/~S/x", True),
        ("/~S/x?a=1", True),
        ("https://app.example/~S/x", True),
        ("/~S/x#~S", True),
        ("/%7eS/x", False),
        ("/~%53" + "S" * 41 + "A/x", False),
        # a slash in percents: what was sent is one segment, and no id
        ("/~S%2fx", False),
        ("/~S%2fx?/~S/", False),
        ("/~S%2fx/~S/", False),
        ("/%7eS%2fx/~S/x", False),
        ("/%7eS/x?a=/~S/x", False),
    ],
)
def test_a_segment_that_was_written_in_percents_is_not_taken(sent, taken):
    """PATH_INFO is decoded; what a guard in front of us saw is not."""
    environ = environ_of(f"/~{S}/x", REQUEST_URI=re.sub("(?<=[~e])S", S, sent))
    PathSegment("~").prepare(environ)
    assert (environ["PATH_INFO"] == "/x") is taken


@pytest.mark.parametrize(
    ("sent", "taken"),
    [("/x;sid=S", True), ("/x%3bsid=S", False), ("/x%3bsid=S?;sid=S", False), ("/x", False)],
)
def test_a_parameter_that_was_written_in_percents_is_not_taken(sent, taken):
    environ = environ_of(f"/x;sid={S}", REQUEST_URI=sent.replace("S", S))
    PathParam("sid").prepare(environ)
    assert (environ["PATH_INFO"] == "/x") is taken


@pytest.mark.parametrize(
    ("path", "ids", "after"),
    [
        ("/x;sid=S", ("S",), "/x"),
        ("/a/x;sid=S", ("S",), "/a/x"),
        ("/;sid=S", ("S",), "/"),
        ("/x;v=1;sid=S;w=2", ("S",), "/x;v=1;w=2"),
        ("/x;sid=S;sid=OLD", ("S", "OLD"), "/x"),
        ("/x;sid=", ("",), "/x"),
        ("/x;sid=S/", (), "/x;sid=S/"),
        ("/x;sid=S/y", (), "/x;sid=S/y"),
        ("/x;side=S", (), "/x;side=S"),
        ("/x;SID=S", (), "/x;SID=S"),
        ("/x,sid=S", (), "/x,sid=S"),
    ],
)
def test_the_parameter_is_taken_from_the_last_segment_only(path, ids, after):
    environ = environ_of(path)
    PathParam("sid").prepare(environ)
    assert environ["PATH_INFO"] == after
    assert environ[TAKEN].ids.get("param:sid", ()) == ids


@pytest.mark.parametrize("marker", ["", "/", "a/b", "%7e", "?", "#", ";", "é", " ", None, 5])
def test_a_marker_that_no_path_can_hold_is_refused(marker):
    with pytest.raises(ConfigError, match="segment"):
        PathSegment(marker)


CARRIERS = {
    "query": (Query("sid"), f"/page?a=1&sid={S}&b=2"),
    "path": (PathSegment("~"), f"/~{S}/page?a=1&b=2"),
    "param": (PathParam("sid"), f"/page;sid={S}?a=1&b=2"),
}


def everything(environ):
    """All that an error reporter could show of an environ."""
    return "\n".join(
        f"{name}: {value!s} {value!r}"
        for name, value in environ.items()
        if name != "SCRIPT_NAME"  # has to keep it under PathSegment
    )


@pytest.mark.parametrize("kind", CARRIERS)
def test_nothing_in_environ_shows_the_id_and_a_second_pass_still_finds_it(kind):
    carrier, address = CARRIERS[kind]
    environ = Request.blank(address).environ
    environ |= {
        "REQUEST_URI": address,
        "RAW_URI": address,
        "HTTP_REFERER": f"http://localhost{address}#f",
        "HTTP_X_ORIGINAL_URI": address,
        "HTTP_X_FORWARDED_URI": f"http://front{address}",
    }
    for _ in range(2):
        assert carrier.prepare(environ) is None
        assert carrier.read(environ) == S
        assert S not in everything(environ)
        assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/page", "a=1&b=2")
        assert environ["REQUEST_URI"] == environ["RAW_URI"] == "/page?a=1&b=2"
        assert environ["HTTP_REFERER"] == "http://localhost/page?a=1&b=2#f"
    assert environ["SCRIPT_NAME"] == (f"/~{S}" if kind == "path" else "")


@pytest.mark.parametrize("kind", CARRIERS)
def test_an_older_id_in_the_referer_goes_too(kind):
    carrier, address = CARRIERS[kind]
    environ = Request.blank(address).environ
    environ["HTTP_REFERER"] = "http://localhost" + address.replace(S, OLD)
    carrier.prepare(environ)
    assert OLD not in everything(environ)


def test_the_id_in_a_header_of_its_own_stays_where_its_carrier_finds_it():
    environ = environ_of("/", f"sid={S}", HTTP_X_SESSION_ID=S)
    Query().prepare(environ)
    assert Header().read(environ) == Query().read(environ) == S


@pytest.mark.parametrize("text", ["a", "http", "localhost", "GET", ""])
def test_a_short_text_where_the_id_should_be_changes_nothing_else(text):
    environ = environ_of("/", f"sid={text}")
    before = {**environ, "QUERY_STRING": ""}
    Query().prepare(environ)
    assert environ.pop(TAKEN).ids == {"query:sid": (text,)}
    assert environ == before


def wrap(app, find_id, **options):
    options.setdefault("type", MemoryStore())
    return SessionMiddleware(app, use_cookies=False, find_id=find_id, **options)


def page(environ, start_response):
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{session['visits']} {environ['PATH_INFO']} {environ['QUERY_STRING']}".encode()]


@pytest.mark.parametrize("kind", CARRIERS)
def test_a_session_lives_on_in_the_url(kind):
    carrier, address = CARRIERS[kind]
    app = validator(wrap(validator(page), carrier, secret="a secret for tests, long enough"))
    first = serve(app, path="/page?a=1&b=2")
    assert first.body == b"1 /page a=1&b=2"
    again = serve(app, path=address.replace(S, first.id))
    assert again.body == b"2 /page a=1&b=2"
    assert again.id is None
    assert again.header("Cache-Control") == "no-store"
    assert again.header("Referrer-Policy") == "same-origin"


@pytest.mark.parametrize("kind", CARRIERS)
def test_an_id_with_a_bad_mac_is_taken_off_and_counts_as_forged(kind):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{session.reason} {environ['PATH_INFO']}".encode()]

    carrier, address = CARRIERS[kind]
    middleware = wrap(app, carrier, secret="a secret for tests, long enough")
    assert serve(middleware, path=address).body == b"forged /page"


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("root", ["", "/shop"])
def test_the_segment_alone_is_sent_to_where_relative_links_work(method, root):
    def app(environ, start_response):
        raise AssertionError("it is not asked")

    environ = environ_of(f"/~{S}", "a=1", root)
    environ["REQUEST_METHOD"] = method
    answer = serve(validator(wrap(app, PathSegment())), environ=environ)
    assert answer.status == "307 Temporary Redirect"
    # Relative, so that it is right behind any proxy and under any mount.
    assert answer.header("Location") == f"~{S}/?a=1"
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Referrer-Policy") == "same-origin"
    assert answer.body == b""


@pytest.mark.parametrize("text", ["path:~", "param:sid", "path", "param"])
def test_the_ini_spelling(text):
    middleware = SessionMiddleware(page, {"session.use_cookies": "no", "session.find_id": text})
    assert repr(middleware.manager.carriers) in (
        "(PathSegment('~'),)",
        "(PathParam('sid'),)",
    )


def test_a_form_beside_a_query_reads_its_own():
    environ = environ_of("/", f"sid={OLD}", CONTENT_TYPE="application/x-www-form-urlencoded")
    body = f"sid={S}".encode()
    environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    for carrier in (Form(), Query()):
        carrier.prepare(environ)
    assert (Form().read(environ), Query().read(environ)) == (S, OLD)


# -- logs


def test_a_mask_names_the_session_and_not_the_id():
    from nocookie.ids import FINGERPRINT_LENGTH, RandomIds

    fingerprint = RandomIds().key(S)[:FINGERPRINT_LENGTH]
    assert mask(f"GET /~{S}/x?sid={S} HTTP/1.1") == (
        f"GET /~[session {fingerprint}]/x?sid=[session {fingerprint}] HTTP/1.1"
    )
    assert mask(f"x{S} {S}x {S[:-1]}") == f"x{S} {S}x {S[:-1]}", "no ids"


@pytest.mark.parametrize("sent", ["/~SA", "/~AS", "/x/~SS/y", "/%7eSA", "/~S-_9/", "//%7ES_?a"])
def test_an_id_with_characters_attached_is_masked_where_a_client_tried_it(sent):
    shown = mask(f'"GET {sent.replace("S", S)} HTTP/1.1" 404')
    assert "S" * 5 not in shown
    assert "[masked]" in shown


@pytest.mark.parametrize(
    "path",
    [
        *("/~ada/page", f"/{'f' * 64}", f"/objects/{S}x", "/~" + "a" * 41, f"~{S}x"),
        "/how-the-people-of-a-small-town-built-a-library",
    ],
)
def test_what_is_long_elsewhere_is_shown(path):
    assert mask(path) == path


@pytest.fixture
def log():
    """A logger with `MaskIds` on its handler, and what it wrote."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("%(message)s %(who)s", defaults={"who": ""}))
    handler.addFilter(MaskIds())
    logger = logging.Logger("masked")  # noqa: LOG001 - of this test alone
    logger.addHandler(handler)
    return logger, out


def test_a_filter_masks_messages_arguments_fields_and_tracebacks(log):
    logger, out = log
    logger.info("at %s", f"/~{S}/")
    logger.info("at %(url)s", {"url": f"/?sid={S}"})
    logger.info(f"/x;sid={S}", extra={"who": S})
    logger.info("field", extra={"who": {"url": f"/?sid={S}"}})
    logger.info("too few %s %s", S)
    logger.info("stack", stack_info=True)
    try:
        raise ValueError(f"no route to /~{S}/")
    except ValueError:
        logger.exception("failed")
    assert S not in out.getvalue()
    assert out.getvalue().count("[session ") == 6
    assert "ValueError: no route to" in out.getvalue()


def test_a_filter_leaves_the_rest_alone(log):
    logger, out = log
    logger.info("%d of %s", 5, ["a"], extra={"who": 5})
    assert out.getvalue() == "5 of ['a'] 5\n"


def test_the_access_log_of_wsgiref_is_masked(capsys):
    import threading
    import urllib.request

    with make_server("127.0.0.1", 0, wrap(page, Query()), handler_class=MaskingRequestHandler) as s:
        thread = threading.Thread(target=s.handle_request)
        thread.start()
        urllib.request.urlopen(f"http://127.0.0.1:{s.server_port}/x?sid={S}").read()
        thread.join()
    written = capsys.readouterr().err
    assert "/x?sid=[session " in written
    assert S not in written
    assert sys.stderr is not None
