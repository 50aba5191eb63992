"""Ids on links: which responses get them, and where they never go."""

import io
import json
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from helpers import serve
from webob import Request

from nocookie import (
    ConfigError,
    Cookie,
    Header,
    PathParam,
    PathSegment,
    Query,
    SessionMiddleware,
    UnboundSessionError,
    session,
)
from nocookie.stores.memory import MemoryStore

SECRET = "a secret for tests, long enough"
HOST = "app.example"


class Site:
    """An application that does what each request's header X-Do says, behind a middleware."""

    def __init__(self, find_id, **options):
        self.store = MemoryStore()
        self.app = SessionMiddleware(
            self.respond,
            use_cookies=False,
            find_id=find_id,
            type=self.store,
            secret=SECRET,
            **options,
        )

    def respond(self, environ, start_response):
        do = environ.get("test.do", "")
        if "read" in do:
            session.get("a")
        if "save" in do:
            session["a"] = 1
            session.save()
        if "rotate" in do:
            session.regenerate_id()
        if "end" in do:
            session.delete()
        headers = environ.get("test.headers", [("Content-Type", "text/plain")])
        start_response(environ.get("test.status", "200 OK"), list(headers))
        return [b"body"]

    def get(self, path="/", do="", status="200 OK", headers=(), **environ):
        request = Request.blank(path, host=HOST)
        request.environ |= {"test.do": do, "test.status": status, "test.headers": list(headers)}
        request.environ |= environ
        return serve(self.app, environ=request.environ)

    def redirect(self, to, path="/shop/list?p=1", do="save", status="302 Found", **more):
        return self.get(path, do, status, [("Location", to)], **more).header("Location")


@pytest.fixture
def new_id(monkeypatch):
    """The next new id, known beforehand."""
    from nocookie.ids import SignedIds

    id = SignedIds((SECRET,)).new()
    monkeypatch.setattr(SignedIds, "new", lambda self: id)
    return id


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
@pytest.mark.parametrize(
    ("carrier", "to", "expected"),
    [
        (Query(), "/x", "/x?sid=S"),
        (Query(), "x?a=1#f", "x?a=1&sid=S#f"),
        (Query(), f"http://{HOST}/x", f"http://{HOST}/x?sid=S"),
        (PathSegment(), "/x", "/~S/x"),
        (PathParam(), "/x", "/x;sid=S"),
    ],
)
def test_a_redirect_carries_a_new_id(new_id, carrier, to, expected, status):
    found = Site(carrier).redirect(to, status=status)
    assert found.replace(new_id, "S") == expected


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        f"https://{HOST}/x",  # the page is http
        f"http://{HOST}:8080/x",
        f"http://user@{HOST}/x",
        "mailto:a@b.example",
        "javascript:x()",
        "http://[",
    ],
)
@pytest.mark.parametrize("carrier", [Query(), PathSegment(), PathParam()])
def test_another_origin_gets_nothing(new_id, carrier, to):
    assert Site(carrier).redirect(to) == to


def test_a_location_that_names_a_resource_is_left_alone(new_id):
    assert Site(Query()).redirect("/items/7", status="201 Created") == "/items/7"


@pytest.mark.parametrize("name", ["Content-Location", "Link", "Alt-Svc", "X-Next"])
def test_other_headers_are_left_alone(new_id, name):
    answer = Site(Query()).get("/", "save", "302 Found", [(name, "/x")])
    assert answer.header(name) == "/x"


def test_a_refresh_carries_the_id(new_id):
    answer = Site(Query()).get("/", "save", headers=[("Refresh", "5; url=/x")])
    assert answer.header("Refresh") == f"5; url=/x?sid={new_id}"


def test_what_is_not_written_into_the_response_is_announced(new_id):
    site = Site(Query())
    assert site.get("/", "save").id == new_id
    site = Site(Query())
    assert site.get("/", "save", "302 Found", [("Location", "//evil.example/")]).id == new_id
    site = Site(Query())
    assert site.get("/", "save", "302 Found", [("Location", "/x")]).id is None, "it is there"


def test_off_is_off(new_id):
    site = Site(Query(), rewrite="off")
    answer = site.get("/", "save", "302 Found", [("Location", "/x")])
    assert (answer.header("Location"), answer.id) == ("/x", new_id)


@pytest.mark.parametrize("do", ["", "read", "save"])
@pytest.mark.parametrize("carrier", [Query(), PathSegment(), PathParam()])
def test_an_id_from_the_url_stays_on_the_way(new_id, carrier, do):
    """Also where the handler never asks for the session."""
    site = Site(carrier)
    address = site.redirect("/shop/list")
    again = site.get(address, do, "302 Found", [("Location", "/next")])
    assert again.header("Location") == address.replace("/shop/list", "/next")
    assert again.header("Cache-Control") == "no-store"
    assert again.header("Referrer-Policy") == "same-origin"
    assert again.id is None


def test_a_page_that_nobody_asked_anything_of_costs_no_trip(new_id):
    site = Site(Query())
    address = site.redirect("/")
    site.store.load = None
    assert site.get(address, "", "302 Found", [("Location", "/x")]).header("Location")


@pytest.mark.parametrize("carrier", [Header(), Cookie("sid")])
def test_an_id_that_came_otherwise_stays_off_links(new_id, carrier):
    site = Site([carrier, Query()])
    first = site.get("/", "save")
    sent = {"HTTP_X_SESSION_ID": new_id, "HTTP_COOKIE": f"sid={new_id}"}
    assert first.id == new_id or first.header("Set-Cookie")
    assert site.redirect("/x", do="read", **sent) == "/x"
    assert site.redirect("/x", do="", **sent) == "/x"


def test_a_new_id_takes_the_first_way_that_is_open(new_id):
    answer = Site([Header(), Query()]).get("/", "save", "302 Found", [("Location", "/x")])
    assert (answer.header("Location"), answer.id) == ("/x", new_id)
    answer = Site([Query(), Header()]).get("/", "save", "302 Found", [("Location", "/x")])
    assert (answer.header("Location"), answer.id) == (f"/x?sid={new_id}", None)


@pytest.mark.parametrize("carrier", [Query(), PathSegment(), PathParam()])
def test_a_rotation_goes_on_the_links(carrier):
    site = Site(carrier)
    before = site.redirect("/x")
    after = site.redirect("/x", path=before, do="rotate")
    assert before != after
    assert site.get(after, "read").status == "200 OK"
    assert site.redirect("/x", path=after, do="read") == after


def test_an_ended_session_leaves_no_id_behind(new_id):
    site = Site(Query())
    page = site.redirect("/")
    assert site.redirect(f"/bye?sid={new_id}&a=1", path=page, do="end") == "/bye?a=1"


@pytest.mark.parametrize("text", ["A" * 43, "short", "", "S S", "<script>"])
def test_an_id_that_is_not_ours_is_not_passed_on(text):
    site = Site(Query())
    answer = site.get(f"/?sid={text}", "", "302 Found", [("Location", "/x")])
    assert answer.header("Location") == "/x"
    assert answer.header("Referrer-Policy") == "same-origin"


def test_nothing_happens_without_a_session():
    answer = Site(Query()).get("/", "", "302 Found", [("Location", "/x")])
    assert answer.headers == [("Location", "/x")]


@pytest.mark.parametrize("carrier", [Query(), PathSegment(), PathParam()])
def test_the_mount_is_the_limit(new_id, carrier):
    for to, inside in (("/app/x", True), ("/app", True), ("/application", False), ("/", False)):
        found = Site(carrier).redirect(to, path="/page", SCRIPT_NAME="/app")
        if carrier.place_in_url != "param:sid" or to != "/app":
            assert (new_id in found) is inside


def test_the_origin_can_be_pinned(new_id):
    for to, expected in (
        ("https://shop.example/x", f"https://shop.example/x?sid={new_id}"),
        (f"http://{HOST}/x", f"http://{HOST}/x"),
        ("/x", f"/x?sid={new_id}"),
    ):
        assert Site(Query(), origin="https://shop.example").redirect(to) == expected


def test_a_host_header_of_the_clients_own_gets_nothing_where_the_origin_is_pinned(new_id):
    site = Site(Query(), origin="https://shop.example")
    assert site.redirect("http://evil.example/x", HTTP_HOST="evil.example") == (
        "http://evil.example/x"
    )


@pytest.mark.parametrize("rewrite", ["location", "html"])
@pytest.mark.parametrize("find_id", [Header(), "bearer", lambda request: None])
def test_rewriting_needs_a_carrier_in_the_url(rewrite, find_id):
    with pytest.raises(ConfigError, match="query:sid"):
        SessionMiddleware(None, use_cookies=False, find_id=find_id, rewrite=rewrite)


# -- session.url and session.bare_url


def ask(find_id, question, path="/page", do="save", **options):
    """What *question* gives inside a request."""
    found = []

    def app(environ, start_response):
        if do == "save":
            session["a"] = 1
            session.save()
        elif do == "set":
            session["a"] = 1
        found.append(question())
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    middleware = SessionMiddleware(
        app, use_cookies=False, find_id=find_id, type=MemoryStore(), secret=SECRET, **options
    )
    answer = serve(middleware, path=path)
    return found[0], answer


@pytest.mark.parametrize(
    ("carrier", "expected"),
    [(Query(), "/x?sid=S"), (PathSegment(), "/~S/x"), (PathParam(), "/x;sid=S")],
)
def test_url_puts_the_id_on(new_id, carrier, expected):
    found, _ = ask(carrier, lambda: session.url("/x"))
    assert found.replace(new_id, "S") == expected
    assert ask(carrier, lambda: session.url("//evil.example/"))[0] == "//evil.example/"
    assert ask(carrier, lambda: session.bare_url(session.url("/x?a=1#f")))[0] == "/x?a=1#f"


def test_url_leaves_alone_what_needs_no_id(new_id):
    for find_id in (Header(), [Header(), Query()], "bearer"):
        assert ask(find_id, lambda: session.url("/x"))[0] == "/x"
    assert ask(Query(), lambda: session.url("/x"), do="")[0] == "/x", "nothing is stored"
    assert ask(Query(), lambda: session.url("/x"), do="set")[0] == "/x", "nor will it be"
    assert ask(Query(), lambda: session.url("/x"), do="set", auto=True)[0] == f"/x?sid={new_id}"


def test_bare_url_works_without_a_session():
    id = "A" * 43
    assert ask([PathSegment(), Query()], lambda: session.bare_url(f"/~{id}/x?sid=1&a=2"), do="")[
        0
    ] == ("/x?a=2")
    assert ask(Header(), lambda: session.bare_url(f"/x?sid={id}"), do="")[0] == f"/x?sid={id}"


def test_url_needs_a_request():
    kept = []
    ask(Query(), lambda: kept.append(session._get_current_obj()))
    with pytest.raises(UnboundSessionError):
        kept[0].url("/x")
    with pytest.raises(UnboundSessionError):
        kept[0].bare_url("/x")


# -- frameworks, whose own generators carry a path segment


def test_flask_carries_the_segment_by_itself(new_id):
    flask = pytest.importorskip("flask")
    site = flask.Flask("site")

    @site.get("/")
    def home():
        session["visits"] = session.get("visits", 0) + 1
        session.save()
        return flask.redirect(flask.url_for("page", n=session["visits"]))

    @site.get("/page/<int:n>")
    def page(n):
        return f"{session['visits']} {flask.url_for('home')}"

    app = SessionMiddleware(
        site, use_cookies=False, find_id="path:~", rewrite="off", type=MemoryStore()
    )
    first = serve(app, path="/")
    assert first.id == new_id or first.id
    root = f"/~{first.id}"
    second = serve(app, path=f"{root}/")
    assert second.header("Location") == f"{root}/page/2"
    assert serve(app, path=second.header("Location")).body == f"2 {root}/".encode()


def test_pyramid_carries_the_segment_by_itself():
    config_module = pytest.importorskip("pyramid.config")
    response = pytest.importorskip("pyramid.response")
    config = config_module.Configurator()
    config.add_route("home", "/")
    config.add_route("page", "/page/{n}")

    def home(request):
        session["visits"] = session.get("visits", 0) + 1
        session.save()
        return response.Response(request.route_path("page", n=session["visits"]))

    def page(request):
        return response.Response(f"{session['visits']} {request.route_path('home')}")

    config.add_view(home, route_name="home")
    config.add_view(page, route_name="page")
    app = SessionMiddleware(
        config.make_wsgi_app(),
        use_cookies=False,
        find_id="path:~",
        rewrite="off",
        type=MemoryStore(),
    )
    root = f"/~{serve(app, path='/').id}"
    assert serve(app, path=f"{root}/").body == f"{root}/page/2".encode()
    assert serve(app, path=f"{root}/page/2").body == f"2 {root}/".encode()


# -- the leak guard


def guarded(find_id, headers, body=b"", do="save", guard="log", expect_error=None):
    """An application that puts its id where it should not: `S` in a header or the body."""

    def app(environ, start_response):
        if do == "save":
            session["a"] = 1
            session.save()
        id = session.id if do else "S" * 42 + "A"
        start_response("200 OK", [(name, value.replace("S!", id)) for name, value in headers])
        return [part.replace(b"S!", id.encode()) for part in ([body] if body else [])]

    middleware = SessionMiddleware(
        app, use_cookies=False, find_id=find_id, type=MemoryStore(), leak_guard=guard
    )
    return serve(middleware, environ=Request.blank("/shop/list", host=HOST).environ)


def leaks(caplog):
    return [record.detail for record in caplog.records if record.event == "leak"]


LEAKS = {
    "another origin": [("Location", "https://evil.example/?sid=S!")],
    "the same host without TLS's other side": [("Location", f"https://{HOST}/?sid=S!")],
    "a backslash": [("Location", "/\\evil.example/S!")],
    "inside a foreign query": [("Location", f"https://evil.example/?back=//{HOST}/?sid=S!")],
    "a link": [("Link", "</a>; rel=next, <https://evil.example/S!>; rel=prefetch")],
    "a refresh": [("Refresh", "5; url=https://evil.example/S!")],
    "a content location": [("Content-Location", "//evil.example/S!")],
    "an etag": [("ETag", '"S!"')],
    "a debugging header": [("Server-Timing", "app;desc=S!")],
}


@pytest.mark.parametrize("case", LEAKS)
@pytest.mark.parametrize("find_id", [Query(), Header(), lambda request: None])
def test_a_leak_in_a_header_is_an_event_without_the_id(caplog, find_id, case):
    answer = guarded(find_id, LEAKS[case])
    (found,) = leaks(caplog)
    assert LEAKS[case][0][0] in found
    assert answer.status == "200 OK"
    ids = [part for _, value in answer.headers for part in value.split("S!")]
    assert not any(id in caplog.text for id in ids if len(id) == 43)


@pytest.mark.parametrize(
    "headers",
    [
        [("Location", "/x?sid=S!")],
        [("Location", f"http://{HOST}/x?sid=S!")],
        [("Link", "</x?sid=S!>; rel=next")],
        [("X-Session-Id", "S!")],
        [("Location", "https://evil.example/")],
        [("Content-Type", "text/plain")],
    ],
)
def test_an_id_where_it_belongs_is_no_leak(caplog, headers):
    guarded(Query(), headers)
    assert leaks(caplog) == []


def test_an_application_that_propagates_by_hand_has_headers_of_its_own(caplog):
    guarded(lambda request: None, [("X-My-Session", "S!")])
    assert leaks(caplog) == []


@pytest.mark.parametrize("policy", ["public, max-age=60", "S-MaxAge=60", "max-age=1,Public"])
def test_a_body_for_public_caches_must_not_hold_an_id(caplog, policy):
    app_id = []

    def app(environ, start_response):
        session["a"] = session.get("a", 0) + 1
        session.save()
        app_id.append(session.id)
        start_response("200 OK", [("Cache-Control", policy)])
        if environ["PATH_INFO"] == "/stream":
            return iter([b"id=" + session.id[:20].encode(), session.id[20:].encode() + b";"])
        return [b"id=" + session.id.encode() + b";"]

    middleware = SessionMiddleware(app, use_cookies=False, type=MemoryStore())
    serve(middleware)
    assert leaks(caplog) == [], "it goes out with the id, and so with no-store"
    for path in ("/", "/stream"):
        caplog.clear()
        body = serve(middleware, app_id[0], path).body
        assert body == b"id=" + app_id[0].encode() + b";"
        assert leaks(caplog) == ["into a body that public caches keep"]


TELLING = [
    '<meta name="referrer" content="unsafe-url">',
    "<META CONTENT = unsafe-url NAME=referrer>",
    '<meta name="referrer" content="no-referrer, unsafe-url">',
    '<iframe src="https://maps.example/" referrerpolicy="no-referrer-when-downgrade"></iframe>',
    '<style>b{background:url("//evil.example/" referrer-policy(unsafe-url))}</style>',
    '<p style="background:url(//evil.example/ Referrer-Policy( unsafe-url))">',
    '<iframe srcdoc="<img src=//evil.example/ referrerpolicy=&quot;unsafe-url&quot;>"></iframe>',
]


def told(markup, rewrite="location", path="/?sid=S!", guard="log"):
    """What the second page of a session says, and how often the bytes came out as they were."""
    ids = []

    def app(environ, start_response):
        if environ["PATH_INFO"] != "/untouched":
            session["n"] = session.get("n", 0) + 1
            session.save()
            ids.append(session.id)
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return iter([bytes([byte]) for byte in markup.encode()])

    middleware = SessionMiddleware(
        app, use_cookies=False, find_id=Query(), rewrite=rewrite, leak_guard=guard
    )
    serve(middleware)
    return serve(middleware, path=path.replace("S!", ids[0])).body.decode()


@pytest.mark.parametrize("rewrite", ["off", "location"])
@pytest.mark.parametrize("markup", TELLING)
def test_a_page_that_tells_others_its_address_is_noticed_where_it_is_not_rewritten(
    caplog, markup, rewrite
):
    assert told(markup, rewrite) == markup
    assert leaks(caplog) == ["in a Referer: by a policy that the page asks for"]


@pytest.mark.parametrize("markup", TELLING)
def test_where_it_is_rewritten_it_tells_them_nothing(caplog, markup):
    assert "same-origin" in told(markup, "html")
    assert "unsafe-url" not in told(markup, "html")
    assert leaks(caplog) == []


@pytest.mark.parametrize(
    ("markup", "path"),
    [
        ("<p>Say unsafe-url and everybody is told.", "/?sid=S!"),
        ('<meta name="referrer" content="origin">', "/?sid=S!"),
        (TELLING[0], "/"),
        (TELLING[0], "/untouched?sid=S!"),
    ],
    ids=["a word", "an origin", "no id in its address", "a session that is not touched"],
)
def test_what_tells_no_id_is_not_reported(caplog, markup, path):
    told(markup, path=path)
    assert leaks(caplog) == []


def test_a_guard_that_is_off_does_not_look_at_pages(caplog):
    told(TELLING[0], guard="off")
    assert leaks(caplog) == []


@pytest.mark.parametrize("find_id", [Query(), PathSegment(), PathParam()])
@pytest.mark.parametrize(
    "markup",
    [
        *('<a href="{}">k</a>', "<a href={}>k</a>", "<b><a href='{}'>k</a></b>", "<A HREF = '{}'>"),
        *('<iframe src="{}"></iframe>', '<form action="{}"><input></form>'),
    ],
)
def test_an_id_in_the_path_of_a_foreign_url_is_noticed(caplog, find_id, markup):
    """In markup that is read in stretches, and in markup that is read tag by tag."""

    def app(environ, start_response):
        session["n"] = 1
        session.save()
        start_response("200 OK", [("Content-Type", HTML)])
        return [markup.format(f"https://evil.example/~{session.id}/x").encode()]

    serve(SessionMiddleware(app, use_cookies=False, find_id=find_id, rewrite="html"))
    (found,) = leaks(caplog)
    assert found.startswith("a URL of another origin in <")


def test_a_guard_that_raises_lets_nothing_out():
    from nocookie import IdLeak

    with pytest.raises(IdLeak, match="Location") as caught:
        guarded(Query(), LEAKS["another origin"], guard="raise")
    assert not [word for word in str(caught.value).split() if len(word) > 40]


def test_a_guard_that_is_off_says_nothing(caplog):
    guarded(Query(), LEAKS["another origin"], guard="off")
    assert leaks(caplog) == []


def test_what_is_no_live_id_is_no_leak(caplog):
    guarded(Query(), LEAKS["another origin"], do="")
    assert leaks(caplog) == []


# -- pages


PAGE = (
    b"<!DOCTYPE html><title>t</title><a href=/x>x</a> <a href='https://evil.example/'>e</a>"
    b'<form method=post action="/p"><input name=q></form><form action="/g"><input name=q></form>'
)


def page(find_id, how="list", rewrite="html", headers=(), path="/shop/list", do="save", **more):
    """One response of a site with a page, in whichever way WSGI knows."""

    def app(environ, start_response):
        if do == "save":
            session["n"] = session.get("n", 0) + 1
            session.save()
        kind = [] if any(n == "Content-Type" for n, _ in headers) else [("Content-Type", HTML)]
        write = start_response(more.get("status", "200 OK"), [*kind, *headers])
        pieces = [PAGE[at : at + 7] for at in range(0, len(PAGE), 7)]
        if how == "write":
            for piece in pieces:
                write(piece)
            return []
        if how == "both":
            write(PAGE[:50])
            return [PAGE[50:]]
        if how == "file":
            return environ["wsgi.file_wrapper"](io.BytesIO(PAGE))
        return {"list": [PAGE], "tuple": tuple(pieces), "iter": iter(pieces)}[how]

    middleware = SessionMiddleware(
        app,
        use_cookies=False,
        find_id=find_id,
        type=more.get("store") or MemoryStore(),
        secret=SECRET,
        rewrite=rewrite,
    )
    environ = Request.blank(path, host=HOST).environ
    environ["wsgi.file_wrapper"] = FileWrapper
    environ |= more.get("environ", {})
    return serve(validator(middleware) if how != "file" else middleware, environ=environ)


HTML = "text/html; charset=utf-8"
WAYS = ["list", "tuple", "iter", "write", "both"]


@pytest.mark.parametrize("how", WAYS)
def test_a_page_carries_the_id_on_its_links_and_forms(new_id, how):
    answer = page(Query(), how)
    expected = (
        PAGE.replace(b"href=/x", b'href="/x?sid=S"')
        .replace(b'action="/p"', b'action="/p?sid=S"')
        .replace(b'"/g">', b'"/g"><input type="hidden" name="sid" value="S">')
    )
    assert answer.body.replace(new_id.encode(), b"S") == expected
    assert answer.id is None, "the page says it"
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Referrer-Policy") == "same-origin"


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize(
    ("carrier", "link"), [(PathSegment(), b'"/~S/x"'), (PathParam(), b'"/x;sid=S"')]
)
def test_the_other_carriers_do_too(new_id, carrier, link, how):
    assert b"href=" + link in page(carrier, how).body.replace(new_id.encode(), b"S")


@pytest.mark.parametrize("how", ["list", "tuple"])
def test_a_page_that_is_there_has_its_new_length(new_id, how):
    answer = page(Query(), how, headers=[("Content-Length", str(len(PAGE)))])
    assert int(answer.header("Content-Length")) == len(answer.body) > len(PAGE)


@pytest.mark.parametrize("how", ["iter", "write", "both"])
def test_a_page_that_streams_has_no_length(new_id, how):
    answer = page(Query(), how, headers=[("Content-Length", str(len(PAGE)))])
    assert answer.header("Content-Length") is None


def test_a_head_request_promises_no_length(new_id):
    store = MemoryStore()
    page(Query(), store=store)
    head = {"REQUEST_METHOD": "HEAD", "QUERY_STRING": f"sid={new_id}"}
    answer = page(Query(), headers=[("Content-Length", "5")], environ=head, store=store)
    assert answer.header("Content-Length") is None


def test_what_was_true_of_the_bytes_is_not_said(new_id):
    headers = [
        ("ETag", '"strong"'),
        ("Accept-Ranges", "bytes"),
        ("Content-MD5", "x"),
        ("Digest", "x"),
        ("Repr-Digest", "x"),
        ("X-Other", "kept"),
    ]
    answer = page(Query(), headers=headers)
    assert answer.header("ETag") == 'W/"strong"'
    assert answer.header("X-Other") == "kept"
    for name in ("Accept-Ranges", "Content-MD5", "Digest", "Repr-Digest"):
        assert answer.header(name) is None
    assert page(Query(), headers=[("ETag", 'W/"weak"')]).header("ETag") == 'W/"weak"'


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "text/plain")],
        [("Content-Type", "text/htmlx")],
        [("Content-Type", "text/html; charset=utf-16")],
        [("Content-Encoding", "gzip")],
        [("Content-Disposition", "attachment")],
        [("Content-Range", "bytes 0-5/10")],
    ],
)
@pytest.mark.parametrize("how", WAYS)
def test_what_is_no_page_is_left_alone_and_the_id_announced(new_id, how, headers):
    answer = page(Query(), how, headers=[*headers, ("Content-Length", str(len(PAGE)))])
    assert answer.body == PAGE
    assert answer.header("Content-Length") == str(len(PAGE))
    assert answer.id == new_id


def test_a_file_goes_out_as_the_server_sends_it(new_id):
    answer = page(Query(), "file", headers=[("Content-Length", str(len(PAGE)))])
    assert answer.body == PAGE
    assert answer.id == new_id
    assert answer.header("Content-Length") == str(len(PAGE))


@pytest.mark.parametrize("how", WAYS)
def test_pages_that_need_no_id_are_not_looked_at(how, monkeypatch):
    import nocookie.html

    def never(*args, **options):
        raise AssertionError("a page was looked at")

    monkeypatch.setattr(nocookie.html, "HtmlRewriter", never)
    assert page(Query(), how, do="").body == PAGE
    assert page([Header(), Query()], how).body == PAGE
    assert page(Query(), how, rewrite="location").body == PAGE


@pytest.mark.parametrize("how", WAYS)
def test_a_page_carries_on_the_id_it_came_with(new_id, how):
    """Though its handler never asks for the session."""
    answer = page(Query(), how, path=f"/shop/list?sid={new_id}", do="")
    assert f'href="/x?sid={new_id}"'.encode() in answer.body
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Referrer-Policy") == "same-origin"


def test_each_chunk_goes_out_when_it_comes(new_id):
    """Flushes are kept: what waits is at most a tag."""

    def app(environ, start_response):
        session["n"] = 1
        session.save()
        start_response("200 OK", [("Content-Type", HTML)])
        for n in range(5):
            sent.append(n)
            yield b"<p>%d</p><a href=/%d>x</a>" % (n, n)
            yield b""

    sent = []
    middleware = SessionMiddleware(
        app, use_cookies=False, find_id=Query(), type=MemoryStore(), rewrite="html", secret=SECRET
    )
    body = middleware(Request.blank("/", host=HOST).environ, lambda *args: None)
    for n in range(5):
        chunk = next(body)
        assert b'<p>%d</p><a href="/%d?sid=' % (n, n) in chunk
        assert sent == list(range(n + 1))
        assert next(body) == b""
    assert list(body) == []
    body.close()


def test_a_page_that_breaks_off_has_said_what_it_said(new_id):
    closed = []

    class Body:
        def __iter__(self):
            yield b"<a href=/x>x</a>"
            raise RuntimeError("no more")

        def close(self):
            closed.append(True)

    def app(environ, start_response):
        session["n"] = 1
        session.save()
        start_response("200 OK", [("Content-Type", HTML)])
        return Body()

    middleware = SessionMiddleware(
        app, use_cookies=False, find_id=Query(), type=MemoryStore(), rewrite="html", secret=SECRET
    )
    body = middleware(Request.blank("/", host=HOST).environ, lambda *args: None)
    assert next(body) == f'<a href="/x?sid={new_id}">x</a>'.encode()
    with pytest.raises(RuntimeError, match="no more"):
        next(body)
    body.close()
    assert closed == [True]


def test_an_id_that_a_page_hands_to_another_origin_is_noticed(caplog):
    ids = []

    def app(environ, start_response):
        session["n"] = 1
        session.save()
        ids.append(session.id)
        start_response("200 OK", [("Content-Type", HTML)])
        return [f'<a href="https://evil.example/?back={session.id}">x</a>'.encode()]

    middleware = SessionMiddleware(
        app, use_cookies=False, find_id=Query(), type=MemoryStore(), rewrite="html"
    )
    serve(middleware)
    assert leaks(caplog)
    assert ids[0] not in caplog.text


@pytest.mark.parametrize("how", ["list", "tuple", "iter", "write", "both"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_page_that_is_only_looked_at_goes_out_as_it_was(new_id, how, cached):
    """The guard reads pages whose URL has the id, and those that public caches keep."""
    store = MemoryStore()
    page(Query(), store=store, rewrite="location")
    headers = [("Content-Length", str(len(PAGE)))]
    if cached:
        headers.append(("Cache-Control", "public"))
    environ = {"QUERY_STRING": f"sid={new_id}"}
    answer = page(Query(), how, "location", headers, environ=environ, store=store)
    assert answer.body == PAGE
    assert answer.header("Content-Length") == str(len(PAGE)), "once, and as it was"


# -- reports to other origins

AWAY = "https://collector.example/r"


def group(name, *urls):
    return json.dumps({"group": name, "max_age": 9, "endpoints": [{"url": url} for url in urls]})


REPORTING = {
    "report-uri": [("Content-Security-Policy", f"default-src 'self'; report-uri {AWAY}")],
    "report only": [("content-security-policy-report-only", f"img-src x;REPORT-URI\t{AWAY} ;a b")],
    "two policies": [("Content-Security-Policy", f"img-src a, img-src b; report-uri /x {AWAY}")],
    "a group": [
        ("Content-Security-Policy", "default-src 'self'; report-to away"),
        ("Reporting-Endpoints", f'home="/r", away="{AWAY}"'),
    ],
    "a group of before": [("Content-Security-Policy", "default-src 'self'; report-to before")],
    "endpoints": [("Reporting-Endpoints", f'default="{AWAY}"')],
    "endpoints in an odd form": [("Reporting-Endpoints", 'default="\\/\\/collector.example/r"')],
    "report-to": [("Report-To", group("default", AWAY))],
    "one group of two": [("Report-To", f"{group('home', '/r')}, {group('away', '/r', AWAY)}")],
    "network errors": [("NEL", '{"report_to": "before", "max_age": 9}')],
}


def reported(headers, how="read", find_id="query:sid", **options):
    """The headers of a second page of a session, whose URL holds the id."""
    site = Site(find_id, **options)
    id = site.get("/", "save").header("X-Session-Id")
    urls = {"query:sid": f"/p?sid={id}", "path:~": f"/~{id}/p", "param:sid": f"/p;sid={id}"}
    return id, site.get(urls[find_id], how, headers=headers)


@pytest.mark.parametrize("how", ["read", "nothing"])
@pytest.mark.parametrize("carrier", ["query:sid", "path:~", "param:sid"])
@pytest.mark.parametrize("case", REPORTING)
def test_no_other_origin_is_sent_reports_about_a_page_with_an_id(caplog, case, carrier, how):
    id, answer = reported(REPORTING[case], how, carrier)
    assert "collector" not in str(answer.headers)
    assert "before" not in str(answer.headers)
    (found,) = leaks(caplog)
    assert found.startswith("in reports to another origin, by the header ")
    assert id not in caplog.text


@pytest.mark.parametrize(
    ("name", "given", "left"),
    [
        ("Content-Security-Policy", f"img-src a; report-uri {AWAY}; b c", "img-src a; b c"),
        ("Content-Security-Policy", f"report-uri /r {AWAY}; a b", "report-uri /r; a b"),
        ("Content-Security-Policy", f"report-uri {AWAY}", None),
        ("Reporting-Endpoints", f'a="/r", b="{AWAY}",c="//{HOST}/r"', f'a="/r",c="//{HOST}/r"'),
    ],
)
def test_what_leads_home_and_what_else_a_policy_says_stays(name, given, left):
    _, answer = reported([(name, given)])
    assert answer.header(name) == left


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Security-Policy", f"default-src 'self' {AWAY}; report-uri /r http://{HOST}/r")],
        [
            ("Content-Security-Policy", "default-src 'self'; report-to home"),
            ("NEL", '{"report_to": "old", "max_age": 9}'),
            ("Report-To", '{"group": "old", "max_age": 9, "endpoints": [{"url": "/r"}]}'),
            ("Reporting-Endpoints", f'home="http://{HOST}/r"'),
        ],
        [("NEL", '{"report_to": "before", "max_age": 0}'), ("Report-To", '{"max_age": 0}')],
    ],
)
def test_reports_to_the_own_origin_stay_as_they_are(caplog, headers):
    _, answer = reported(headers)
    assert [pair for pair in answer.headers if pair in headers] == headers
    assert leaks(caplog) == []


def test_a_report_says_where_a_visitor_came_from(caplog):
    """A page without an id, behind one that had it in its URL."""
    site = Site("query:sid")
    id = site.get("/", "save").header("X-Session-Id")
    for case in ("report-uri", "endpoints"):
        before = f"http://{HOST}/p?sid={id}"
        answer = site.get("/", headers=REPORTING[case], HTTP_REFERER=before)
        assert "collector" not in str(answer.headers)


@pytest.mark.parametrize("case", REPORTING)
def test_a_page_without_an_id_is_told_nothing_but_what_would_hold_for_pages_to_come(case):
    headers = Site("query:sid").get("/", headers=REPORTING[case]).headers
    lasting = case in ("report-to", "one group of two", "network errors")
    assert [pair for pair in headers if pair in REPORTING[case]] == (
        [] if lasting else REPORTING[case]
    )


def test_ids_in_headers_leave_reports_alone():
    site = Site("header")
    for do in ("save", ""):
        for case in REPORTING.values():
            assert set(case) <= set(site.get("/", do, headers=case).headers)


@pytest.mark.parametrize("guard", ["raise", "off"])
def test_a_guard_that_raises_says_of_reports_only_that_they_were_prevented(caplog, guard):
    _, answer = reported(REPORTING["report-uri"], leak_guard=guard)
    assert answer.status == "200 OK"
    assert "collector" not in str(answer.headers)
    said = "in reports to another origin, by the header Content-Security-Policy"
    assert leaks(caplog) == ([said] if guard == "raise" else [])


# -- other policies


@pytest.mark.parametrize("how", ["read", "nothing"])
@pytest.mark.parametrize("carrier", ["query:sid", "path:~", "param:sid"])
@pytest.mark.parametrize(
    "said",
    [
        *("unsafe-url", '"unsafe-url"', '"UNSAFE\\-URL"', " no-referrer-when-downgrade"),
        *('"a, unsafe-url"', "always"),
    ],
)
def test_a_link_in_the_head_has_nobody_told_the_address(said, carrier, how):
    link = "<//evil.example/x>; rel=preload; as=image; ReferrerPolicy={}, </y>; rel=next".format
    _, answer = reported([("Link", link(said))], how, carrier)
    assert answer.header("Link") in (link("same-origin"), link(" same-origin"))


@pytest.mark.parametrize("said", ["no-referrer", '"origin"', "strict-origin-when-cross-origin"])
def test_a_link_whose_policy_tells_no_more_than_ours_stays(said):
    links = [("Link", f"<//evil.example/x>; rel=preload; referrerpolicy={said}; as=image")]
    _, answer = reported(links)
    assert set(links) <= set(answer.headers)
    links = [("Link", "<//evil.example/x>; rel=preload; referrerpolicy=unsafe-url")]
    assert set(links) <= set(Site("query:sid").get("/", headers=links).headers)


# -- what a page says though nobody used the session

URLS = {"query:sid": "/p?sid={}", "path:~": "/~{}/p", "param:sid": "/p;sid={}"}


@pytest.mark.parametrize("how", ["read", "nothing"])
@pytest.mark.parametrize("rewrite", ["location", "html", "off"])
@pytest.mark.parametrize("carrier", URLS)
def test_a_redirect_to_a_login_elsewhere_with_the_own_address_in_it_is_noticed(
    caplog, carrier, rewrite, how
):
    """As single sign-on does: the address to come back to is the application's."""
    site = Site(carrier, rewrite=rewrite)
    id = site.get("/", "save").header("X-Session-Id")
    back = f"http%3A%2F%2F{HOST}%2F~{id}%2F"
    headers = [("Location", f"https://login.example/?next={back}")]
    site.get(URLS[carrier].format(id), how, "302 Found", headers)
    assert leaks(caplog) == ["to another origin, in the header Location"]
    assert id not in caplog.text
    caplog.clear()
    site.get(URLS[carrier].format(id), how, "302 Found", [("Location", f"/~{id}/next")])
    assert leaks(caplog) == []


def test_a_guard_that_raises_keeps_such_a_redirect_in():
    from nocookie import IdLeak

    site = Site("path:~", leak_guard="raise")
    id = site.get("/", "save").header("X-Session-Id")
    with pytest.raises(IdLeak, match="Location"):
        site.redirect(f"https://login.example/?next=/~{id}/", f"/~{id}/", do="nothing")


AWAY_FORMS = [
    '<form action="https://pay.example/" method=post><input type=hidden value="{}"></form>',
    "<FORM METHOD=post ACTION=//pay.example/ ><p><textarea name=back>{}</textarea></form>",
    "<form method='post' action='https&#58;//pay.example/'><select><option>{}</select></form>",
    '<form method="post"><input name="b" value="{}"><button formaction="//pay.example/">x</form>',
]
HOME_FORMS = [
    '<form action="/pay" method="post"><input type="hidden" name="back" value="{}"></form>',
    f'<form method="post" action="http://{HOST}/p"><input value="{{}}"></form>',
    '<form action="https://pay.example/" method=post><input value="x"></form><input value="{}">',
    '<form action="https://pay.example/" method=post></form><a href="/x">{}</a>',
]


def form_page(caplog, markup, carrier, rewrite, how, pieces):
    site = Site(carrier, rewrite=rewrite)
    id = site.get("/", "save").header("X-Session-Id")
    page = ("<p>" + markup.format(f"http://{HOST}/~{id}/x")).encode()

    def respond(environ, start_response):
        if how == "read":
            session.get("a")
        start_response("200 OK", [("Content-Type", HTML)])
        return [page] if pieces == "whole" else iter([bytes([byte]) for byte in page])

    site.app.app = respond
    site.get(URLS[carrier].format(id))
    return leaks(caplog)


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
@pytest.mark.parametrize("how", ["read", "nothing"])
@pytest.mark.parametrize("rewrite", ["location", "html"])
@pytest.mark.parametrize("carrier", URLS)
@pytest.mark.parametrize("markup", AWAY_FORMS)
def test_a_field_that_takes_the_own_address_to_another_origin_is_noticed(
    caplog, markup, carrier, rewrite, how, pieces
):
    found = form_page(caplog, markup, carrier, rewrite, how, pieces)
    assert "in a field of a form to another origin" in found


@pytest.mark.parametrize("pieces", ["whole", "byte by byte"])
@pytest.mark.parametrize("rewrite", ["location", "html"])
@pytest.mark.parametrize("carrier", URLS)
@pytest.mark.parametrize("markup", HOME_FORMS)
def test_one_that_stays_at_home_is_not(caplog, markup, carrier, rewrite, pieces):
    assert form_page(caplog, markup, carrier, rewrite, "read", pieces) == []


# -- the ids of other visitors

STATIC = [
    '<link rel=stylesheet href="{}x.css">',
    "<script src='{}x.js'></script>",
    "<img src={}x.png>",
    '<img srcset="{}x.png 2x">',
]


def two_visitors(caplog, carrier, markup, secret=SECRET, **options):
    """What is said when the page of one visitor holds a URL of another, to one and to a third."""
    site = Site(carrier, **options)
    if secret is None:
        site.app = SessionMiddleware(
            site.respond, use_cookies=False, find_id=carrier, type=site.store, **options
        )
    ada, eve = (site.get("/", "save").header("X-Session-Id") for _ in range(2))
    places = {"query:sid": "/s?sid={}&f=", "path:~": "/~{}/", "param:sid": "/s;sid={}?"}
    page = markup.format(places[carrier].format(ada)).encode()
    said = []

    def respond(environ, start_response):
        start_response("200 OK", [("Content-Type", HTML)])
        return [page]

    site.app.app = respond
    for path in (URLS[carrier].format(eve), "/p", URLS[carrier].format(ada)):
        caplog.clear()
        body = site.get(path).body
        said.append(leaks(caplog))
        assert ada not in caplog.text
    return said, body


@pytest.mark.parametrize("secret", [SECRET, None])
@pytest.mark.parametrize("rewrite", ["location", "html", "off"])
@pytest.mark.parametrize("carrier", URLS)
@pytest.mark.parametrize("markup", STATIC)
def test_the_id_of_another_visitor_in_a_page_is_noticed(caplog, markup, carrier, rewrite, secret):
    said, _ = two_visitors(caplog, carrier, markup, secret, rewrite=rewrite)
    assert said == [["to another visitor, in a page"]] * 2 + [[]]


@pytest.mark.parametrize("secret", [SECRET, None])
def test_with_the_origin_before_it_too_and_in_a_header(caplog, secret):
    said, _ = two_visitors(caplog, "path:~", f'<link href="http://{HOST}{{}}x.css">', secret)
    assert said[0] == ["to another visitor, in a page"]
    site = Site("path:~")
    ada, eve = (site.get("/", "save").header("X-Session-Id") for _ in range(2))
    caplog.clear()
    site.get(f"/~{eve}/", headers=[("Link", f"</~{ada}/x.css>; rel=preload")])
    assert leaks(caplog) == ["to another visitor, in a header"]


def test_on_links_that_are_rewritten_it_gives_way(caplog):
    site = Site("path:~", rewrite="html")
    ada, eve = (site.get("/", "save").header("X-Session-Id") for _ in range(2))

    def respond(environ, start_response):
        start_response("200 OK", [("Content-Type", HTML)])
        return [f'<a href="/~{ada}/x">x</a><iframe src="/~{ada}/y"></iframe>'.encode()]

    site.app.app = respond
    body = site.get(f"/~{eve}/").body.decode()
    assert (body.count(eve), body.count(ada)) == (2, 0)
    assert leaks(caplog) == []


#: 43 characters that every second protocol has: none of them an id of ours.
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
FORTY_THREE = [
    "https://login.example/authorize?code_challenge={}&code_challenge_method=S256",
    "https://login.example/~{}/keys",
    "https://login.example/?sid={}",
    "https://login.example/x;sid={}",
    "/keys/{}?jkt={}",
    "/authorize?code_challenge={}",
]


@pytest.mark.parametrize("secret", [SECRET, None])
@pytest.mark.parametrize("carrier", URLS)
@pytest.mark.parametrize("rewrite", ["location", "html"])
@pytest.mark.parametrize("url", FORTY_THREE)
def test_what_only_looks_like_an_id_is_not_reported(caplog, url, rewrite, carrier, secret):
    """A challenge of PKCE (RFC 7636), the thumbprint of a key (RFC 7638)."""
    url = url.replace("{}", CHALLENGE)
    markup = f'<a href="{url}">k</a><link href={url}><input value="{CHALLENGE}"> {CHALLENGE}'
    said, _ = two_visitors(caplog, carrier, markup, secret, rewrite=rewrite, leak_guard="raise")
    assert said == [[], [], []]
    site = Site(carrier, rewrite=rewrite, leak_guard="raise")
    headers = [("Location", url), ("DPoP-Nonce", CHALLENGE), ("Link", f"<{url}>; rel=x")]
    site.get("/", "save", "302 Found", headers)


@pytest.mark.parametrize("carrier", URLS)
def test_with_a_secret_nothing_without_our_mac_is_reported(caplog, carrier):
    url = {"query:sid": "/s?sid={}", "path:~": "/~{}/", "param:sid": "/s;sid={}"}[carrier]
    said, _ = two_visitors(caplog, carrier, f'<img src="{url.format(CHALLENGE)}">')
    assert said == [[], [], []]


# -- redirects of clients that have their id in a header


def abroad(caplog):
    return [record.detail for record in caplog.records if record.event == "redirect_abroad"]


class Asked(Site):
    """A client with its id in a header."""

    def __init__(self, find_id="header", **options):
        super().__init__(find_id, **options)
        self.id = self.get("/", "save").header("X-Session-Id")

    def sent_to(self, to, do="", status="307 T", **more):
        more = {"HTTP_X_SESSION_ID": self.id, **more}
        return self.get("/", do, status, [("Location", to)], **more)


@pytest.mark.parametrize("find_id", ["header", "header, query:sid", [Query(), Header()]])
@pytest.mark.parametrize("do", ["", "read", "save"])
@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
def test_a_client_that_is_sent_abroad_with_its_id_is_an_event(caplog, status, do, find_id):
    site = Asked(find_id)
    answer = site.sent_to("https://other.example:81/x?y", do, status)
    assert answer.header("Location") == "https://other.example:81/x?y"
    site.sent_to("https://other.example:81/z", do, status)
    site.sent_to("//more.example/", do, status)
    assert abroad(caplog) == ["to https://other.example:81", "to http://more.example"]
    assert site.id not in caplog.text


@pytest.mark.parametrize(
    ("to", "status"),
    [
        *((to, "307 T") for to in ("/x", f"http://{HOST}/x", "x", "", "mailto:a@b.example")),
        (f"https://{HOST}/x", "301 M"),
        *(("https://other.example/", status) for status in ("201 C", "200 OK", "304 N")),
    ],
)
def test_one_that_stays_or_does_not_go_is_none(caplog, to, status):
    Asked().sent_to(to, status=status)
    assert abroad(caplog) == []


def test_without_an_id_in_such_a_header_there_is_nothing_to_take_along(caplog):
    Asked().get("/", "", "302 F", [("Location", "https://other.example/")])
    for find_id, given in [("bearer", "HTTP_AUTHORIZATION"), ("cookie:sid", "HTTP_COOKIE")]:
        site = Site(find_id)
        site.get("/", "", "302 F", [("Location", "https://other.example/")], **{given: "Bearer x"})
    Asked(leak_guard="off").sent_to("https://other.example/")
    assert abroad(caplog) == []


@pytest.mark.parametrize("guard", ["log", "raise"])
def test_it_raises_nothing_whatever_a_callback_does(guard):
    from nocookie import TooManyTries

    def refuse(event):
        if event.name == "redirect_abroad":
            told.append(event.detail)
            raise TooManyTries(60)

    told = []
    site = Asked(on_event=refuse, leak_guard=guard)
    for do in ("", "read"):
        assert site.sent_to(f"https://{do}other.example/", do).status == "307 T"
    assert told == ["to https://other.example", "to https://readother.example"]


def test_clients_cannot_fill_the_log_nor_the_memory(caplog):
    site = Asked()
    for number in range(300):
        site.sent_to(f"https://h{number}.example/")
    for odd in ("https://a\tb/", f"https://{'x' * 200}/", "https://[::1/", "https://u:p@é/"):
        site.sent_to(odd)
    assert len(abroad(caplog)) == 100
    assert len(site.app.manager._abroad) == 100


def test_what_is_odd_is_not_repeated(caplog):
    site = Asked()
    for odd in (f"https://{'x' * 200}/", "https://[::1/", "https://u:p@\xe9/"):
        site.sent_to(odd)
    assert abroad(caplog) == ["to somewhere odd"]


# -- which charset a page has

SURE = ["charset=utf-8", 'Charset="UTF-8"', "a=b; charset=utf-8 ", "charset=utf-8;a=b"]
UNSURE = [
    *("charset='utf-8'", "charset =utf-8", "charset = 'utf-8'", 'charset="utf-8', "a=charset"),
    *('charset =utf-8;charset="utf-8"', "a=b", "charset=utf-8; charset ='utf-8'"),
]


@pytest.mark.parametrize("parameter", [*SURE, *UNSURE])
def test_a_page_of_which_browsers_guess_the_charset_is_read_up_to_an_escape(parameter):
    """They may take it for ISO-2022-JP, in which what looks like a tag is none."""
    site = Site("query:sid", rewrite="html")
    headers = [("Content-Type", f"text/html; {parameter}")]

    def respond(environ, start_response):
        session["n"] = 1
        session.save()
        start_response("200 OK", headers)
        return [b'<a href="/x">x</a>\x1b$B<a href="/y">y</a>']

    site.app.app = respond
    body = site.get("/").body
    assert b'"/x?sid=' in body
    assert (b'"/y?sid=' in body) == (parameter in SURE)
