"""What an attack on this library broke, each through the middleware as a client meets it."""

import contextlib
import json
import re
import sqlite3
from datetime import datetime
from urllib.parse import unquote

import pytest
from helpers import serve
from webob import Request
from webob.dec import wsgify

from nocookie import (
    ConfigError,
    Cookie,
    PathParam,
    Session,
    SessionMiddleware,
    TooManyTries,
    manager,
    session,
)
from nocookie.entities import unescaped
from nocookie.forms import authenticate_form, refusal
from nocookie.logs import mask
from nocookie.stores.memory import MemoryStore

SECRET = "nine words that nobody would ever publish together anywhere"


def answer(page, environ=None, **options):
    """What a client gets from an application whose handler is *page*."""

    def app(environ, start_response):
        body = page()
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [body or b""]

    options.setdefault("type", MemoryStore())
    return serve(SessionMiddleware(app, **{"use_cookies": False, **options}), **(environ or {}))


# -- require_https -------------------------------------------------------------------------------


def begin():
    session["user"] = "ada"
    session.save()


def end_and_begin():
    session.invalidate()
    begin()


def log_out_and_say_so():
    session.logout()
    begin()


def rebuild():
    session.rebuild(None)
    begin()


def follow_the_recipe():
    real = session._get_current_obj()
    params = real.__dict__["_params"]
    params["id"] = None
    real.__dict__["_sess"] = Session({}, **params)
    begin()


@pytest.mark.parametrize(
    "page", [begin, end_and_begin, log_out_and_say_so, rebuild, follow_the_recipe]
)
def test_over_plain_http_no_id_is_given_however_the_session_began(page):
    got = answer(page, require_https=True)
    assert got.status == "403 Forbidden"
    assert json.loads(got.body)["error"] == "https_required"
    assert "X-Session-Id" not in dict(got.headers)


@pytest.mark.parametrize("page", [begin, end_and_begin, rebuild])
def test_over_plain_http_no_client_is_given_its_session_to_keep(page):
    pytest.importorskip("cryptography")
    got = answer(page, use_cookies=True, type="cookie", secret=SECRET, require_https=True)
    assert got.status == "403 Forbidden"
    assert "Set-Cookie" not in dict(got.headers)


def test_what_was_written_at_once_is_not_told_over_plain_http():
    def page():
        session.delete()
        session["user"] = "ada"
        session.persist()

    store = MemoryStore()
    assert answer(page, require_https=True, type=store).status == "403 Forbidden"


def test_over_plain_http_an_application_can_rebuild_no_session():
    store, ids = MemoryStore(), []

    def first():
        begin()
        ids.append(session.id)

    answer(first, type=store)

    def page():
        session.rebuild(ids[0])
        return f"{session.get('user')} {session.reason}".encode()

    assert answer(page, type=store).body == b"ada None"
    assert answer(page, type=store, require_https=True).body == b"None insecure"


# -- pages ---------------------------------------------------------------------------------------

MANY_DIGITS = b"9" * 5000


@pytest.mark.parametrize("digits", [MANY_DIGITS, b"0" * 5000, b"0" * 5000 + b"65"])
@pytest.mark.parametrize("amp", [b"&amp;", b"&amp;amp;", b"&amp;amp;amp;"])
def test_a_reference_of_many_digits_in_a_frame_is_no_error(digits, amp):
    def page():
        begin()
        return b'<iframe srcdoc="' + amp + b"#" + digits + b';"></iframe><a href="/x">x</a>'

    got = answer(page, find_id="query:sid", rewrite="html")
    assert got.status == "200 OK"
    assert b"/x?sid=" in got.body


def test_a_reference_of_many_digits_in_the_action_of_a_form_is_no_error():
    def page():
        begin()
        field = f'<input name="back" value="{session.id}"></form>'.encode()
        return b'<form action="&#' + MANY_DIGITS + b'">' + field

    assert answer(page, find_id="query:sid").status == "200 OK"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("&#65;&#065;&#00000000065;x", "AAAx"),
        ("&#00000000", "\ufffd"),
        ("&#99999999;&#1114112;", "\ufffd\ufffd"),
        ("&#" + "9" * 5000, "\ufffd"),
        ("&amp;#65; &lt &notit;", "&#65; < \xacit;"),
    ],
)
def test_a_reference_means_what_it_means_to_browsers(text, meant):
    assert unescaped(text) == meant


# -- session.url as the first touch --------------------------------------------------------------


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("find_id", ["query:sid", "param:sid", "path:~"])
def test_a_url_has_the_id_though_nothing_else_of_the_session_was_touched(find_id, auto):
    store = MemoryStore()

    def first():
        begin()
        return session.url("/").encode()

    def page():
        return session.url("/next").encode()

    options = {"find_id": find_id, "auto": auto, "type": store}
    url = answer(first, **options).body.decode()
    id = re.search("[A-Za-z0-9_-]{43}", url)[0]
    assert id in answer(page, {"path": url}, **options).body.decode()
    assert answer(page, **options).body == b"/next"


# -- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("application/x-www-form-urlencoded; charset=nonsense", b"a=b"),
        ("application/x-www-form-urlencoded; charset=utf-16", b"a=b"),
    ],
)
@pytest.mark.parametrize("by", ["wsgi", "webob"])
def test_a_body_that_is_no_form_has_no_token(kind, body, by):
    @authenticate_form
    def acts(environ, start_response):
        raise AssertionError

    @wsgify
    @authenticate_form
    def acts_by_webob(request):
        raise AssertionError

    app = SessionMiddleware(acts if by == "wsgi" else acts_by_webob, type=MemoryStore())
    got = serve(app, method="POST", content_type=kind, body=body)
    assert got.status == "403 Forbidden"


# -- gateways ------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["1", "text", "Content-Type", "public", "max-age=60", "a"])
def test_no_id_of_a_gateway_makes_a_leak_of_what_the_response_says(id):
    def app(environ, start_response):
        begin()
        headers = [("Content-Type", "text/plain"), ("Content-Length", "1")]
        start_response("200 OK", [*headers, ("Cache-Control", "public, max-age=60")])
        return [b"a"]

    app = SessionMiddleware(
        app,
        use_cookies=False,
        type=MemoryStore(),
        strict=False,
        id_key=SECRET,
        leak_guard="raise",
    )
    assert serve(app, id).status == "200 OK"
    assert "leak" not in app.manager.backend.events.counts()


# -- what environ shows --------------------------------------------------------------------------

ID = "Zq-7_" * 8 + "ZqA"


def seen_by_application(environ, **options):
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b""]

    app = SessionMiddleware(app, use_cookies=False, type=MemoryStore(), **options)
    got = serve(app, environ=Request.blank("/style.css", environ).environ)
    return seen, dict(got.headers)


@pytest.mark.parametrize(
    ("find_id", "page"),
    [
        ("query:sid", f"/cart?a=1&sid={ID}"),
        ("query:sid", f"/cart?a=1&sid=%{ord(ID[0]):02x}{ID[1:]}"),
        ("query:sid", f"/cart?a=1&amp;sid={ID}"),
        ("param:sid", f"/cart;sid={ID}?a=1"),
        ("path:~", f"/~{ID}/cart?a=1"),
    ],
)
def test_what_a_page_loads_shows_no_id_of_the_page(find_id, page):
    seen, _ = seen_by_application({"HTTP_REFERER": f"http://localhost{page}"}, find_id=find_id)
    assert seen["HTTP_REFERER"] == "http://localhost/cart?a=1"


@pytest.mark.parametrize("page", ["http://other.example/?sid=42", "http://other.example/;sid=a/b"])
@pytest.mark.parametrize("find_id", ["query:sid", "param:sid", "path:~"])
def test_what_is_no_id_stays_in_the_address_of_the_page_before(find_id, page):
    seen, _ = seen_by_application({"HTTP_REFERER": page}, find_id=find_id)
    assert seen["HTTP_REFERER"] == page


@pytest.mark.parametrize(
    ("find_id", "environ"),
    [
        ("query:sid", {"QUERY_STRING": f"a=1&amp;sid={ID}"}),
        ("param:sid", {"PATH_INFO": f"/a;sid={ID}", "REQUEST_URI": f"/a%3Bsid={ID}"}),
        ("path:~", {"PATH_INFO": f"/~{ID}/", "REQUEST_URI": f"/%7E{ID}/"}),
    ],
)
def test_an_address_with_an_id_that_counts_for_nothing_is_told_nobody(find_id, environ):
    _, head = seen_by_application(environ, find_id=find_id)
    assert head["Referrer-Policy"] == "same-origin"
    assert head["Cache-Control"] == "no-store"

    got = answer(begin, {"environ": {**Request.blank("/").environ, **environ}}, find_id=find_id)
    assert dict(got.headers)["Referrer-Policy"] == "same-origin"


# -- cookies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("expires", [datetime.max])
def test_a_cookie_may_last_beyond_the_last_date(expires):
    got = answer(begin, use_cookies=True, cookie_expires=expires)
    assert "expires=Fri, 31 Dec 9999 23:59:59 GMT" in dict(got.headers)["Set-Cookie"]


def test_the_end_of_a_cookie_is_in_utc_unless_it_says_otherwise():
    got = answer(begin, find_id=Cookie("sid", expires=datetime(2999, 1, 1)))
    cookie = dict(got.headers)["Set-Cookie"]
    assert re.search("expires=.*(31 Dec 2998 23:59:59|01 Jan 2999 00:00:00) GMT", cookie)


# -- callbacks -----------------------------------------------------------------------------------


def look():
    session.get("user")


def find_nothing(request):
    raise ValueError


@pytest.mark.parametrize(
    ("event", "page", "options", "headers"),
    [
        ("refused", look, {}, {"X-Session-Id": "nonsense"}),
        ("created", begin, {}, {}),
        ("plain http", begin, {"require_https": True}, {}),
        ("finder failed", look, {"find_id": find_nothing}, {}),
        ("form refused", lambda: refusal(None), {"find_id": "query:sid"}, {}),
        (
            *("conflict", look, {"find_id": "header:X-Session-Id,bearer"}),
            {"X-Session-Id": "A" * 43, "Authorization": f"Bearer {ID}"},
        ),
    ],
)
def test_a_client_that_is_to_wait_hears_it_though_a_framework_answers_500(
    event, page, options, headers
):
    def app(environ, start_response):
        try:
            page()
        except Exception:
            start_response("500 Oops", [])
            return [b"made by a framework"]
        start_response("200 OK", [])
        return [b""]

    def limit(seen):
        if seen.name == event:
            raise TooManyTries(7)

    options = {"use_cookies": False, "type": MemoryStore(), "on_event": limit, **options}
    got = serve(SessionMiddleware(app, **options), headers=headers)
    assert got.status == "429 Too Many Requests"
    assert dict(got.headers)["Retry-After"] == "7"


@pytest.mark.parametrize("id", [None, "A" * 43, "no id"])
@pytest.mark.parametrize("on_unknown", ["new", "error"])
def test_a_callback_may_look_at_the_session_that_it_hears_of(id, on_unknown, caplog):
    heard = []

    def listener(event):
        heard.append(event.name)
        session.get("user")

    def page():
        session.start()
        begin()

    environ = Request.blank("/").environ
    if id is not None:
        environ["HTTP_X_SESSION_ID"] = id
    got = answer(page, {"environ": environ}, on_event=listener, on_unknown=on_unknown)
    assert got.status == "200 OK"
    assert heard in (["created"], ["refused", "created"])
    # With `error` there may be no session to look at, and that is what the callback fails with.
    assert on_unknown == "error" or not [record for record in caplog.records if record.exc_info]


# -- what was sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "counts"),
    [
        ("/cart", True),
        ("/shop/cart", True),
        ("/sh%6Fp/cart", True),
        ("/shop//cart", False),
        ("/other/cart", False),
        ("/x/shop/cart", False),
        ("/shop/shop/cart", False),
        ("//shop/cart", False),
    ],
)
def test_the_prefix_that_a_proxy_took_off_may_be_in_what_was_sent(sent, counts):
    store, ids = MemoryStore(), []

    def first():
        begin()
        ids.append(session.id)

    answer(first, type=store)
    environ = Request.blank(f"/~{ids[0]}/cart").environ
    environ["REQUEST_URI"] = sent.replace("cart", f"~{ids[0]}/cart")
    options = {"find_id": "path:~", "origin": "https://shop.example/shop", "type": store}
    got = answer(lambda: str(session.get("user")).encode(), {"environ": environ}, **options)
    assert got.body == (b"ada" if counts else b"None")


# -- logs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", range(4))
def test_an_id_in_a_url_in_a_url_is_masked(depth):
    percent = "%" + "25" * depth
    masked = mask(f"GET /sso?next={percent}2F{percent}3Fsid{percent}3D{ID}{percent}26x HTTP/1.1")
    assert ID not in masked
    assert masked.startswith(f"GET /sso?next={percent}2F{percent}3Fsid{percent}3D[session ")


# -- mounts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mount", ["/", "/shop/", "/shop//"])
def test_a_slash_behind_the_mount_makes_no_second_id(mount):
    """PEP 3333 has none there, but whoever writes `X-Forwarded-Prefix: /shop/` gets one."""
    environ = Request.blank(f"/~{ID}/cart").environ
    environ["SCRIPT_NAME"] = mount

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        root = environ["SCRIPT_NAME"]
        return [f'<a href="next">1</a><a href="{root}/next">2</a>'.encode()]

    app = SessionMiddleware(app, use_cookies=False, find_id="path:~", rewrite="html")
    page = serve(app, environ=environ).body.decode()
    assert page == f'<a href="next">1</a><a href="{mount.rstrip("/")}/~{ID}/next">2</a>'


# -- once more: what a client sends --------------------------------------------------------------


@pytest.mark.parametrize("dots", ["..", ".", "%2e%2e"])
def test_a_path_parameter_leaves_no_dots_behind_that_a_filter_in_front_has_not_seen(dots):
    sent = f"/public/{dots};sid=x"
    environ = {"PATH_INFO": unquote(sent), "REQUEST_URI": sent}
    seen, _ = seen_by_application(environ, find_id="param:sid")
    assert seen["PATH_INFO"] == f"/public/{unquote(dots)};"
    assert seen["REQUEST_URI"] == f"/public/{dots};"


def test_a_path_parameter_still_goes_from_a_folder_without_a_trace():
    seen, _ = seen_by_application({"PATH_INFO": f"/a/;sid={ID}"}, find_id="param:sid")
    assert seen["PATH_INFO"] == "/a/"


@pytest.mark.parametrize("letter", "!#$%&'*+^`|")
def test_the_name_of_a_path_parameter_is_one_that_a_path_writes_as_it_is(letter):
    with pytest.raises(ConfigError, match="written otherwise in a path"):
        PathParam(f"s{letter}d")


@pytest.mark.parametrize(
    ("find_id", "path"),
    [
        ("path:~", f"/~{ID}/~{ID}/"),
        ("path:~", f"/a/~{ID}"),
        ("path:~", f"//~{ID}/"),
        ("path:~", f"/~{ID}/../x"),
        ("param:sid", f"/a;sid={ID}/b"),
    ],
)
def test_an_id_that_stays_in_the_path_is_told_nobody_and_kept_by_no_cache(find_id, path):
    _, head = seen_by_application({"PATH_INFO": path, "REQUEST_URI": path}, find_id=find_id)
    assert head["Referrer-Policy"] == "same-origin"
    assert head["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/~ada/", "/a;sid=x/b", "/a/b"])
@pytest.mark.parametrize("find_id", ["path:~", "param:sid"])
def test_a_path_without_an_id_changes_no_response(find_id, path):
    _, head = seen_by_application({"PATH_INFO": path, "REQUEST_URI": path}, find_id=find_id)
    assert head == {"Content-Type": "text/html"}


FIRST_IN_PERCENTS = f"%{ord(ID[0]):02X}{ID[1:]}"


@pytest.mark.parametrize("id", [FIRST_IN_PERCENTS, "".join(f"%{ord(c):02X}" for c in ID)])
def test_no_copy_of_the_address_shows_an_id_in_percents(id):
    sent = f"/?sid={id}"
    seen, _ = seen_by_application(
        {
            "QUERY_STRING": sent[2:],
            "REQUEST_URI": sent,
            "HTTP_X_ORIGINAL_URL": f"http://localhost{sent}",
            "REDIRECT_QUERY_STRING": sent[2:],
        },
        find_id="query:sid",
    )
    assert not [name for name, value in seen.items() if ID in unquote(str(value))]


@pytest.mark.parametrize(
    ("find_id", "page"),
    [
        ("path:~", f"/%7E{ID}/cart"),
        ("path:~", f"/~{FIRST_IN_PERCENTS}/cart"),
        ("param:sid", f"/cart%3Bsid={ID}"),
        ("param:sid", f"/cart;s%69d={ID}"),
    ],
)
def test_the_page_before_shows_no_id_that_was_written_otherwise(find_id, page):
    seen, head = seen_by_application({"HTTP_REFERER": f"http://localhost{page}"}, find_id=find_id)
    assert ID not in unquote(seen["HTTP_REFERER"])
    assert "Referrer-Policy" not in head


@pytest.mark.parametrize("id", [ID, FIRST_IN_PERCENTS])
def test_what_a_server_of_asgi_was_sent_shows_no_id_to_the_application(id):
    scope = {
        "type": "http",
        "path": "/cart",
        "query_string": f"sid={id}".encode(),
        "headers": [(b"referer", f"http://localhost/?sid={id}".encode()), (b"x", b"y")],
    }
    environ = {"QUERY_STRING": f"sid={id}", "asgi.scope": scope}
    seen, _ = seen_by_application(environ, find_id="query:sid")
    assert ID[1:] not in repr(seen["asgi.scope"])
    assert seen["asgi.scope"]["headers"][1] == (b"x", b"y")
    assert id in repr(scope), "the server's own is as it was"


@pytest.mark.parametrize(
    "said",
    [
        'proto=http;host="x,proto=https"',
        'proto=http;host="x;y\\",proto=https"',
        'for="x;proto=https"',
        'for="x, for=1.2.3.4;proto=https',
    ],
)
def test_what_a_proxy_quotes_of_the_client_does_not_say_how_it_came(said):
    options = {"require_https": True, "trusted_proxies": "10.0.0.0/8"}
    environ = {**Request.blank("/").environ, "REMOTE_ADDR": "10.0.0.1", "HTTP_FORWARDED": said}
    assert answer(begin, {"environ": environ}, **options).status == "403 Forbidden"


@pytest.mark.parametrize("said", ["proto=https", 'for="[2001::1]:80";Proto="https";host="a,b;c"'])
def test_what_a_proxy_says_beside_that_counts(said):
    options = {"require_https": True, "trusted_proxies": "10.0.0.0/8"}
    environ = {**Request.blank("/").environ, "REMOTE_ADDR": "10.0.0.1", "HTTP_FORWARDED": said}
    assert answer(begin, {"environ": environ}, **options).status == "200 OK"


COLOURS = ["1;38;2;255;100;100", "38;2;255;255;255;48;2;10;10;10", "38:5:1", "38:2::255:0:0"]


@pytest.mark.parametrize("before", [*(f"\x1b[{one}m" for one in COLOURS), "\x1b[?25h", "\x1b[>c"])
def test_an_id_behind_whatever_moves_a_terminal_is_masked(before):
    assert ID not in mask(f"{before}{ID} opened")


@pytest.mark.parametrize(
    ("find_id", "url"),
    [
        ("query:sid", f"/a\\b?sid={ID}\t"),
        ("query:sid", f"%00?sid=\n{ID} "),
        ("path:~", f"\\~{ID}/a"),
        ("path:~", f"\\~{ID}\\b"),
        ("param:sid", f"/a\\b;sid={ID}\t"),
    ],
)
def test_no_odd_spelling_of_a_url_keeps_its_id(find_id, url):
    def page():
        return session.bare_url(url).encode()

    assert ID.encode() not in answer(page, find_id=find_id).body


# -- once more: the leak guard -------------------------------------------------------------------


def events_of(page, headers, status="200 OK", times=1, method="GET", body=b"", **options):
    """The events of requests with an id that is known, to an application that uses its session."""
    events, ids = [], []
    name = options.setdefault("find_id", "query:sid")

    def app(environ, start_response):
        session["visits"] = 1
        session.save()
        if not ids:
            ids.append(session.id)
            start_response("200 OK", [])
            return [b""]
        start_response(status, list(headers))
        return [page(session.id) if callable(page) else page]

    options.setdefault("on_event", lambda event: events.append((event.name, event.detail)))
    app = SessionMiddleware(app, use_cookies=False, type=MemoryStore(), **options)
    serve(app)
    events.clear()
    for _ in range(times):
        known = f"sid={ids[0]}".encode()
        if name == "form:sid":
            kind = "application/x-www-form-urlencoded"
            request = Request.blank("/", method="POST", body=known, content_type=kind)
        elif name == "query:sid":
            request = Request.blank(f"/?{known.decode()}", method=method)
        else:
            request = Request.blank(f"/~{ids[0]}/")
        serve(app, environ=request.environ)
    return events


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_form_that_is_posted_on_to_another_origin_is_reported(status):
    abroad = [("Location", "https://pay.example/x")]
    events = events_of(b"", abroad, status, times=2, find_id="form:sid")
    assert events == [("redirect_abroad", "to https://pay.example")]


@pytest.mark.parametrize("status", ["302 Found", "303 See Other"])
def test_a_redirect_that_leaves_the_form_behind_is_not(status):
    abroad = [("Location", "https://pay.example/x")]
    assert events_of(b"", abroad, status, find_id="form:sid") == []
    home = [("Location", "/x")]
    assert events_of(b"", home, "307 Temporary Redirect", find_id="form:sid") == []


UNSAFE = b'<html xmlns="http://www.w3.org/1999/xhtml"><meta name="referrer" content="unsafe-url"/>'


@pytest.mark.parametrize(
    "kind",
    [
        "application/xhtml+xml",
        "image/svg+xml; charset=utf-8",
        "text/xml",
        "application/xml",
        "*/*",
        "unknown/unknown",
        "",
        None,
    ],
)
@pytest.mark.parametrize("rewrite", ["location", "html"])
def test_a_document_of_another_kind_that_tells_others_its_url_is_reported(kind, rewrite):
    headers = [] if kind is None else [("Content-Type", kind)]
    events = events_of(UNSAFE, headers, find_id="path:~", rewrite=rewrite)
    assert events == [("leak", "in a Referer: by a policy that the page asks for")]


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "text/css", "image/png"])
def test_what_no_browser_shows_as_a_page_is_not(kind):
    assert events_of(UNSAFE, [("Content-Type", kind)], find_id="path:~") == []


HTML = [("Content-Type", "text/html; charset=utf-8")]


def test_a_page_says_once_what_it_leads_away():
    def page(id):
        return f"<a href='https://o.example/?{id}'>x</a>".encode() * 1000

    events = events_of(page, HTML, rewrite="html")
    assert events == [("leak", "a URL of another origin in <a>")]


MANY = 300
LINKS = {
    "links": b"".join(
        b"<a href='https://o.example/?sid=%s%012dA'>" % (b"A" * 30, n) for n in range(MANY)
    ),
    "forms": b"".join(b"<form action='x%d'><input value=1></form>" % n for n in range(MANY)),
}


@pytest.mark.parametrize("kind", LINKS)
def test_the_guard_reads_the_address_once_however_much_is_on_the_page(kind, monkeypatch):
    """By counting: each time costs what the address is long, and that is the client's to say."""
    made = []
    of = manager.scope_of
    monkeypatch.setattr(manager, "scope_of", lambda *given: (made.append(1), of(*given))[1])
    events_of(lambda known: known.encode() + LINKS[kind], HTML)
    assert 0 < len(made) < 20


# -- once more: stores ---------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["file", "sqlalchemy"])
@pytest.mark.parametrize("key", ["", "1e400", 7, 3.5])
def test_a_row_whose_key_is_none_costs_its_owner_nothing(tmp_path, type, key):
    where = {"data_dir": tmp_path}
    if type == "sqlalchemy":
        pytest.importorskip("sqlalchemy")
        where = {"url": f"sqlite:///{tmp_path}/sessions.db", "create_table": True}

    def page():
        session.login("ada")
        session.persist()
        return str(len(session.sessions_of("ada"))).encode()

    assert answer(page, type=type, **where).body == b"1"
    (file,) = tmp_path.rglob("sessions.db")
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        table = "sessions" if type == "file" else "nocookie_sessions"
        connection.execute(f"UPDATE {table} SET key = ?", (key,))
    assert answer(page, type=type, **where).body == b"1"
