"""What is known of a request: which paths hold an id, what of it is left to see, who says how it
came, and what our own answers say back."""

import re

import pytest
from helpers import Answer, serve
from webob import Request as WebObRequest

from nocookie import (
    ConfigError,
    Header,
    PathParam,
    PathSegment,
    Query,
    SessionMiddleware,
    StoreError,
    TooManyTries,
    session,
)
from nocookie.ids import SignedIds
from nocookie.processes import Serving
from nocookie.request import Deployment, Request
from nocookie.stores.memory import MemoryStore
from nocookie.testing import FakeClock

SECRET = "a secret for tests, long enough"
S = SignedIds((SECRET,)).new()


def wrapped(app, find_id, **options):
    options.setdefault("type", MemoryStore())
    options.setdefault("secret", SECRET)
    return SessionMiddleware(app, use_cookies=False, find_id=find_id, **options)


def seen_by(find_id, environ, **options):
    """What the application sees of a request: reason, and environ."""
    seen = []

    def app(environ, start_response):
        seen.append((session.reason, dict(environ)))
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b""]

    serve(wrapped(app, find_id, **options), environ=environ)
    return seen[0]


def environ_of(path, sent=None, root="", query="", **more):
    environ = WebObRequest.blank("/").environ
    environ |= {"SCRIPT_NAME": root, "PATH_INFO": path, "QUERY_STRING": query, **more}
    if sent is not None:
        environ["REQUEST_URI"] = sent
    return environ


# -- the path as it was sent ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["REQUEST_URI", "RAW_URI"])
@pytest.mark.parametrize(
    "before",
    [
        *("/", "//", "/.", "/./.", "/a/..", "/%2e", "/%2E/.", "/a/%2e%2e", "/a/.%2e", "/a", "x"),
        *("http://shop.example/", "http://shop.example/a/..", "http://shop.example/%2e", "/%2f"),
        *("//shop.example", "/http://shop.example"),
    ],
)
def test_a_path_id_behind_slashes_and_dots_opens_nothing_where_the_server_tells(before, name):
    """Servers fold them before we look; a guard in front may have seen another path."""
    reason, environ = seen_by(
        PathSegment(), environ_of(f"/~{S}/x", **{name: f"{before}/~{S}/x?a=1"})
    )
    assert reason == "absent"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/~[masked]/x", "it leads where it led: nowhere"
    assert S not in repr(environ)


@pytest.mark.parametrize(
    "after", ["/../~S/x", "/%2e%2e/~S/x", "/./x", "/%2E/x", "/~S/x", "/%7eS/x"]
)
def test_a_path_id_before_dots_or_another_opens_nothing_where_the_server_tells(after):
    reason, environ = seen_by(
        PathSegment(), environ_of(f"/~{S}/x", f"/~{S}{after.replace('S', S)}")
    )
    assert (reason, environ["SCRIPT_NAME"]) == ("absent", "")


@pytest.mark.parametrize(
    ("root", "sent"),
    [
        ("", "/~S/x"),
        ("", "/~S/x?/../~S"),
        ("", "http://shop.example/~S/x"),
        ("", "HTTPS://shop.example:8443/~S/x"),
        ("/shop", "/shop/~S/x"),
        ("/shop", "http://shop.example/shop/~S/x"),
        ("/shop/de", "/shop/de/~S/x"),
        ("/my shop", "/my%20shop/~S/x"),
        ("/caf\xc3\xa9", "/caf%C3%A9/~S/x"),
        ("/caf\xc3\xa9", "/caf\xc3\xa9/~S/x"),
        # a proxy has taken off what a layer has put back
        ("/shop", "/~S/x"),
        ("/shop/de", "/de/~S/x"),
    ],
)
def test_what_was_sent_begins_with_the_mount_and_the_segment(root, sent):
    environ = environ_of(f"/~{S}/x", sent.replace("S/", f"{S}/"), root)
    reason, environ = seen_by(PathSegment(), environ)
    assert (reason, environ["SCRIPT_NAME"]) == ("unknown", f"{root}/~{S}")


@pytest.mark.parametrize(
    ("root", "sent"),
    [
        ("", "/shop/~S/x"),
        ("/shop", "//shop/~S/x"),
        ("/shop", "/shop//~S/x"),
        ("/shop", "/./shop/~S/x"),
        ("/shop", "/shop/%2e/~S/x"),
        ("/shop/de", "/shop%2fde/~S/x"),
        ("/shop/de", "/shop/~S/x"),
        ("/shop", "shop/~S/x"),
        ("/shop", "/op/~S/x"),
    ],
)
def test_what_is_before_the_segment_is_the_mount_and_nothing_else(root, sent):
    environ = environ_of(f"/~{S}/x", sent.replace("S/", f"{S}/"), root)
    reason, environ = seen_by(PathSegment(), environ)
    assert (reason, environ["SCRIPT_NAME"]) == ("absent", root)


@pytest.mark.parametrize("control", ["\n", "\r", "\t", "\0", "\x1f", "\x7f"])
@pytest.mark.parametrize("where", ["/x{}", "/{}", "/x/{}/y"])
def test_no_segment_is_taken_off_a_path_with_a_control_character(where, control):
    path = where.format(control)
    reason, environ = seen_by(PathSegment(), environ_of(f"/~{S}{path}"))
    assert (reason, environ["SCRIPT_NAME"]) == ("absent", "")
    assert environ["PATH_INFO"] == f"/~[masked]{path}"


# -- spellings -----------------------------------------------------------------------------------

#: Carrier, PATH_INFO, QUERY_STRING, what was sent, and the two as the application gets them.
SPELLINGS = {
    "escaped tilde": (PathSegment(), "/~S/x", "", "/%7ES/x", "/~[masked]/x", ""),
    "letter in percents": (PathSegment(), "/~S/x", "", "/~P/x", "/~[masked]/x", ""),
    "escaped semicolon": (
        *(PathParam(), "/cart;sid=S", "a=1", "/cart%3Bsid=S?a=1"),
        *("/cart;sid=[masked]", "a=1"),
    ),
    "escaped end": (PathSegment(), "/~S?a", "", "/~S%3Fa", "/~[masked]?a", ""),
    "before dots": (PathSegment(), "/~S/../x", "", "/~S/../x", "/~[masked]/../x", ""),
    "before another": (PathSegment(), "/~S/~S/x", "", "/~S/~S/x", "/~[masked]/~[masked]/x", ""),
    "escaped mark": (Query(), "/a?sid=S", "b=1", "/a%3Fsid=S?b=1", "/a?sid=[masked]", "b=1"),
    "and equals sign": (Query(), "/a?sid=S", "", "/a%3fsid%3DS", "/a?sid=[masked]", ""),
    "and letters of it": (Query(), "/a?b&sid=S", "", "/a%3Fb%26sid=P", "/a?b&sid=[masked]", ""),
    "and of the name": (Query(), "/a?s%69d=S", "", "/a%3Fs%2569d=S", "/a?s%69d=[masked]", ""),
    "from a page's source": (Query(), "/x", "a=1&amp;sid=S", "/x?a=1&amp;sid=S", "/x", "a=1"),
    "twice": (Query(), "/x", "a=1&amp;amp;sid=S&b=2", "/x?a=1&amp;amp;sid=S&b=2", "/x", "a=1&b=2"),
    "first": (Query(), "/x", "amp;sid=S", "/x?amp;sid=S", "/x", ""),
    "in percents": (Query(), "/x", "a&amp%3Bsid=S", "/x?a&amp%3Bsid=S", "/x", "a"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_another_spelling_opens_nothing_and_is_taken_out_of_environ(spelling):
    carrier, *texts = SPELLINGS[spelling]
    in_percents = f"%{ord(S[0]):02x}{S[1:]}"
    path, query, sent, path_after, query_after = (
        text.replace("P", in_percents).replace("S", S) for text in texts
    )
    environ = environ_of(
        path,
        sent,
        query=query,
        RAW_URI=sent,
        HTTP_REFERER=f"http://localhost{sent}",
        HTTP_X_ORIGINAL_URL=sent,
        REDIRECT_QUERY_STRING=query,
    )
    reason, environ = seen_by(carrier, environ)
    assert reason == "absent"
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path_after, query_after)
    assert S not in repr(environ)
    assert in_percents not in environ["REQUEST_URI"]


CARRIERS = {
    "query": (Query(), f"/page?a=1&sid={S}"),
    "path": (PathSegment(), f"/~{S}/page?a=1"),
    "param": (PathParam(), f"/page;sid={S}?a=1"),
}


@pytest.mark.parametrize("kind", CARRIERS)
def test_no_copy_of_the_address_shows_the_id(kind):
    carrier, address = CARRIERS[kind]
    environ = WebObRequest.blank(address).environ
    WebObRequest(environ).GET.items()  # WebOb keeps what it has parsed
    environ |= {
        "REQUEST_URI": address,
        "REDIRECT_URL": address.partition("?")[0],
        "REDIRECT_QUERY_STRING": environ["QUERY_STRING"] + f"&sid={S}",
        "HTTP_X_ORIGINAL_QUERY": f"sid={S}&a=1",
        "HTTP_X_ORIGINAL_URL": address,
        "HTTP_X_REWRITE_URL": f"/inner;sid={S}/x",
        "HTTP_REFERER": f"http://localhost/%7E{S}/login?next=%2F%3Fsid%3D{S}",
        "HTTP_X_BACK": f"/back?sid%3D{S}",
    }
    reason, environ = seen_by(carrier, environ)
    assert reason == "unknown"
    del environ["SCRIPT_NAME"]  # has to keep it under a path segment
    assert S not in repr(environ)
    assert dict(WebObRequest(environ).GET) == {"a": "1"}


@pytest.mark.parametrize("kind", CARRIERS)
def test_an_id_where_another_carrier_looks_for_it_stays_there(kind):
    carrier, address = CARRIERS[kind]
    environ = WebObRequest.blank(address).environ
    kept = {
        "HTTP_X_SESSION_ID": S,
        "HTTP_AUTHORIZATION": f"Bearer {S}",
        "HTTP_COOKIE": f"a=1; sid={S}",
    }
    _, environ = seen_by([Header(), carrier], environ | kept)
    assert {name: environ[name] for name in kept} == kept


def test_many_ids_in_one_request_show_none():
    ids = [SignedIds((SECRET,)).new() for _ in range(50)]
    query = "&".join(f"sid={id}" for id in ids)
    reason, environ = seen_by(Query(), environ_of("/", f"/?{query}", query=query, HTTP_X_Q=query))
    assert reason == "ambiguous"
    assert not any(id in repr(environ) for id in ids)


# -- markers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("marker", ["s:", ":", "a:b", "https:", "javascript:"])
def test_a_marker_that_would_read_as_a_scheme_is_refused(marker):
    with pytest.raises(ConfigError, match="colon"):
        PathSegment(marker)
    with pytest.raises(ConfigError, match="colon"):
        SessionMiddleware(None, use_cookies=False, find_id=f"path:{marker}")


@pytest.mark.parametrize("marker", ["~", "s.", "s!", "@", "(", "$", "*", ",", "'"])
def test_with_any_other_marker_a_relative_link_stays_relative(marker):
    def app(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [b'<a href="cart">cart</a>']

    page = serve(wrapped(app, PathSegment(marker), rewrite="html")).body.decode()
    link = re.search('href="([^"]*)"', page)[1].replace("&#39;", "'")
    assert re.fullmatch(rf"{re.escape(marker)}[A-Za-z0-9_-]{{43}}/cart", link)


# -- our own answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a=1&b=%20", "a=1&b=%20"),
        ("\x00", "%00"),
        ("a\r\nX-Injected: 1", "a%0D%0AX-Injected:%201"),
        ("\x01\x7f\t", "%01%7F%09"),
        ("\xc3\xa9\xff", "%C3%A9%FF"),
    ],
)
def test_the_redirect_to_the_slash_writes_the_clients_query_in_letters_that_can_be_seen(
    query, expected
):
    answer = serve(wrapped(None, PathSegment()), environ=environ_of(f"/~{S}", query=query))
    assert answer.status == "307 Temporary Redirect"
    assert answer.header("Location") == f"~{S}/?{expected}"


@pytest.mark.parametrize("sent", [f"//~{S}", f"/a/../~{S}", f"/%7E{S}", f"/~{S}%2f"])
def test_what_was_written_otherwise_is_not_redirected(sent):
    reason, environ = seen_by(PathSegment(), environ_of(f"/~{S}", sent))
    assert (reason, environ["PATH_INFO"]) == ("absent", "/~[masked]")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_each_answer_of_ours_has_a_body_of_one_piece(method):
    """An empty list is no answer to hypercorn 0.18."""
    moved = environ_of(f"/~{S}") | {"REQUEST_METHOD": method}
    failed = environ_of("/", HTTP_X_SESSION_ID=S) | {"REQUEST_METHOD": method}

    def late(environ, start_response):
        session.get("a")
        start_response("200 OK", [])
        return [b"fine"]

    class Unread(MemoryStore):
        def load(self, key):
            raise StoreError("down, for the test")

    for app, environ in (
        (wrapped(late, PathSegment()), moved),
        (wrapped(late, Header(), type=Unread()), failed),
    ):
        answer = Answer()
        body = app(environ, answer.start_response)
        assert [type(part) for part in body] == [bytes]
        assert method == "HEAD" or len(body[0]) == int(answer.header("Content-Length"))


@pytest.mark.parametrize("what", ["finder failed", "misfit"])
def test_a_callback_that_refuses_before_the_application_runs_is_answered_as_elsewhere(
    what, monkeypatch
):
    def limit(event):
        if event.name == what:
            raise TooManyTries(retry_after=30)

    class Fails(Query):
        def prepare(self, environ):
            if what == "finder failed":
                raise RuntimeError
            return super().prepare(environ)

    def app(environ, start_response):
        raise AssertionError("it is not asked")

    monkeypatch.setattr(Serving, "is_alone", lambda self, environ: False)
    answer = serve(wrapped(app, Fails(), on_event=limit), environ=environ_of("/"))
    assert answer.status == "429 Too Many Requests"
    assert answer.header("Retry-After") == "30"


@pytest.mark.parametrize(
    ("root", "front"),
    [
        ("", "/"),
        ("/shop", "/shop/"),
        ("/my shop", "/my%20shop/"),
        ("/a?b#c%20", "/a%3Fb%23c%2520/"),
        ("/caf\xc3\xa9", "/caf%C3%A9/"),
        ("/a\r\nX-Injected: 1", "/a%0D%0AX-Injected:%201/"),
        ("//evil.example", "/evil.example/"),
        ("/shop//x/", "/shop/x/"),
        ("/a\\b", "/a%5Cb/"),
        ("\\\\evil.example", "/%5C%5Cevil.example/"),
    ],
)
@pytest.mark.parametrize("carrier", [Header(), Query(), PathSegment()])
def test_after_a_logout_the_front_page_is_one_of_ours_whatever_the_mount_is_called(
    carrier, root, front
):
    found = []

    def app(environ, start_response):
        found.append(session.logout())
        start_response("303 See Other", found[0].headers)
        return [b""]

    path = f"/~{S}/out" if isinstance(carrier, PathSegment) else "/out"
    answer = serve(wrapped(app, carrier), environ=environ_of(path, root=root))
    assert found[0].location == answer.header("Location") == front


# -- ids of Beaker's in a URL --------------------------------------------------------------------


@pytest.mark.parametrize("rewrite", ["location", "html", "off"])
@pytest.mark.parametrize("more", [{}, {"REQUEST_METHOD": "HEAD"}, {"HTTP_SEC_PURPOSE": "prefetch"}])
@pytest.mark.parametrize("carrier", [Query(), PathParam()])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("use", ["", "read", "url", "bare"])
def test_an_id_of_beakers_in_a_url_is_put_on_no_link_and_raises_nothing(
    carrier, more, rewrite, known, use
):
    from nocookie.beaker_ids import store_key

    id = "0123456789ab4def8123456789abcdef"
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    found = []

    def begin(environ, start_response):
        session["a"] = 1
        session.save()
        start_response("200 OK", [])
        return [b""]

    options = {"rewrite": rewrite, "type": store, "clock": clock, "beaker_ids_until": "2999-01-01"}
    if known:
        serve(wrapped(begin, Header(), type=store, clock=clock))
        (key,) = store._records
        store._records[store_key(id)] = store._records.pop(key)

    def app(environ, start_response):
        if use == "read":
            session.get("a")
        elif use:
            found.append((session.url if use == "url" else session.bare_url)("/x"))
        headers = [("Content-Type", "text/html; charset=utf-8"), ("Location", "/x")]
        start_response(environ["test.status"], headers)
        return [b'<a href="/x">x</a>']

    address = f"/?sid={id}" if isinstance(carrier, Query) else f"/page;sid={id}"
    for status in ("302 Found", "200 OK"):
        environ = WebObRequest.blank(address).environ | more | {"test.status": status}
        answer = serve(wrapped(app, carrier, **options), environ=environ)
        assert answer.status == status
        assert id not in f"{answer.headers} {answer.body} {found}"


# -- how the client came -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        # The proxy's own is the last of its list, and which of the two it writes nobody can see.
        ({"X_FORWARDED_PROTO": "http", "FORWARDED": "proto=https"}, "http"),
        ({"X_FORWARDED_PROTO": "https", "FORWARDED": "proto=http"}, "http"),
        ({"X_FORWARDED_PROTO": "https", "FORWARDED": "proto=https"}, "https"),
        ({"X_FORWARDED_PROTO": "https", "FORWARDED": "for=192.0.2.1"}, "https"),
        ({"X_FORWARDED_PROTO": "https", "FORWARDED": "proto=http, proto=https"}, "https"),
        ({"X_FORWARDED_PROTO": "", "FORWARDED": "proto=https"}, "https"),
        ({"FORWARDED": "proto=https;proto=http"}, "http"),
        ({"FORWARDED": ' Proto = "HTTPS" ; for=x'}, "https"),
        ({"FORWARDED": "xproto=https"}, "http"),
    ],
)
def test_what_the_proxy_says_counts_before_what_a_client_sent_through_it(headers, scheme):
    for hop in ("http", "https"):
        environ = environ_of("/", REMOTE_ADDR="10.0.0.7") | {"wsgi.url_scheme": hop}
        environ |= {f"HTTP_{name}": value for name, value in headers.items()}

        def app(environ, start_response):
            session["a"] = 1
            session.save()
            start_response("200 OK", [])
            return [b""]

        site = wrapped(app, Header(), require_https=True, trusted_proxies="10.0.0.7")
        said_nothing = "xproto" in str(headers)
        expected = hop if said_nothing else scheme
        assert bool(serve(site, environ=dict(environ)).id) == (expected == "https")
        trusting = Deployment.of(None, site.manager.deployment.proxies)
        assert Request(environ, trusting).scheme == expected


def test_what_others_say_of_how_they_came_is_ignored():
    environ = environ_of("/", REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_PROTO="https")
    assert Request(environ, Deployment.of(None)).scheme == "http"
    environ["wsgi.url_scheme"] = "https"
    environ["HTTP_X_FORWARDED_PROTO"] = "http"
    assert Request(environ).scheme == "https"


def test_a_view_of_a_request_keeps_nothing():
    """Each answer is that of environ as it is when it is asked, and no cycle is left in it."""
    environ = environ_of("/x", root="/shop", HTTP_HOST="a.example")
    request = Request(environ)
    assert (request.url, request.mount) == ("http://a.example/shop/x", "/shop")
    environ |= {"HTTP_HOST": "B.example:443", "wsgi.url_scheme": "https"}
    assert request.url == "https://b.example/shop/x"
    assert request not in environ.values()


def test_the_address_as_it_was_received_shows_no_id():
    environ = environ_of("/", query=f"sid={S}")
    Query().prepare(environ)
    assert S not in repr(environ)
