"""Cookie mode: what the users of cookies rely on."""

import locale
import os
import re
import shutil
import subprocess
import time
import urllib.request
from datetime import UTC, datetime, timedelta, timezone
from email.message import Message
from http.cookiejar import CookieJar

import pytest
from helpers import serve
from hypothesis import given
from hypothesis import strategies as st
from webob import Request

from nocookie import ConfigError, Cookie, FirstOf, Header, SessionMiddleware, session
from nocookie.stores.memory import MemoryStore

SECRET = "a secret for tests, long enough"


@pytest.fixture
def wrap(clock):
    store = MemoryStore(clock=clock)

    def make(**options):
        return SessionMiddleware(visit, type=store, clock=clock, **options)

    return make


def visit(environ, start_response):
    action = environ["PATH_INFO"].rpartition("/")[2]
    if action == "write":
        session["visits"] = session.get("visits", 0) + 1
        session.save()
    elif action == "read":
        session.get("visits")
    elif action == "end":
        session.delete()
    elif action == "rotate":
        session.regenerate_id()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(session.get("visits")).encode() if action else b"untouched"]


def get(app, path, cookie=None, **environ):
    return serve(app, environ={**Request.blank(path, **environ).environ, **_cookie(cookie)})


def _cookie(text):
    return {} if text is None else {"HTTP_COOKIE": text}


def pair(answer):
    return answer.header("Set-Cookie").partition(";")[0]


def attributes(answer):
    _, *rest = answer.header("Set-Cookie").split("; ")
    return {name.lower(): value for name, _, value in (part.partition("=") for part in rest)}


def test_set_cookie_goes_out_only_when_it_is_due(wrap):
    app = wrap()
    assert get(app, "/").header("Set-Cookie") is None
    assert get(app, "/read").header("Set-Cookie") is None
    first = get(app, "/write")
    cookie = pair(first)
    for path in ("/", "/read", "/write"):
        assert get(app, path, cookie).header("Set-Cookie") is None
    rotated = get(app, "/rotate", cookie)
    assert pair(rotated) != cookie
    assert get(app, "/write", pair(rotated)).body == b"3"
    assert get(app, "/write", cookie).body == b"1", "the old id is dead"


def test_the_end_of_a_session_takes_the_cookie_back(wrap):
    app = wrap(cookie_path="/app", cookie_domain=".example.com")
    ended = get(app, "/end", pair(get(app, "/write")))
    sent = attributes(ended)
    assert (sent["max-age"], sent["path"], sent["domain"]) == ("0", "/app", ".example.com")
    assert pair(ended) == "nocookie.session.id="


def test_a_cookie_is_not_renewed_with_an_id_that_another_request_has_replaced(wrap, clock):
    app = wrap(cookie_expires=300)
    cookie = pair(get(app, "/write"))
    clock.advance(100)
    rotated = []

    def slow(environ, start_response):
        session.get("visits")
        rotated.append(get(app, "/rotate", cookie))
        return visit(environ, start_response)

    manager = app.manager
    late = SessionMiddleware(slow, type=manager.backend.store, clock=clock, cookie_expires=300)
    assert get(late, "/read", cookie).header("Set-Cookie") is None
    assert pair(rotated[0]) != cookie


def test_a_cookie_that_is_sent_again_is_for_no_cache(clock):
    def public(environ, start_response):
        def start(status, headers):
            kept = ("Cache-Control", "public, max-age=600"), ("CDN-Cache-Control", "max-age=600")
            return start_response(status, [*headers, *kept])

        return visit(environ, start)

    app = SessionMiddleware(public, clock=clock, cookie_expires=3000)
    cookie = pair(get(app, "/write"))
    assert get(app, "/read", cookie).header("Cache-Control") == "public, max-age=600"
    clock.advance(100)
    again = get(app, "/read", cookie)
    assert pair(again) == cookie
    assert again.header("Cache-Control") == "no-store"
    assert again.header("CDN-Cache-Control") is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("__Secure-sid", {}),
        ("__Host-sid", {}),
        ("__host-sid", {"secure": True, "cookie_domain": "example.com"}),
        ("__Host-sid", {"secure": True, "cookie_path": "/shop"}),
        ("__Http-sid", {"secure": True, "httponly": False}),
        ("__Host-Http-sid", {"secure": True, "httponly": False}),
        ("__Host-Http-sid", {"secure": True, "cookie_path": "/shop"}),
    ],
)
def test_a_name_that_promises_what_the_attributes_do_not_keep_is_refused(name, options):
    with pytest.raises(ConfigError, match="browsers drop it else"):
        SessionMiddleware(visit, key=name, **options)


@pytest.mark.parametrize("name", ["__Secure-sid", "__Host-sid", "__Http-sid", "__Host-Http-sid"])
def test_a_name_that_promises_what_the_attributes_keep_is_taken(name):
    app = SessionMiddleware(visit, key=name, secure=True)
    assert get(app, "/write", pair(get(app, "/write"))).body == b"2"


@pytest.mark.parametrize("domain", ["example.com", ".example.com", "app.example.com"])
def test_the_attributes_are_as_they_were_set(wrap, domain):
    app = wrap(key="sid", cookie_domain=domain, cookie_path="/a/b", secure=True, samesite="Strict")
    answer = get(app, "/write")
    assert pair(answer).startswith("sid=")
    assert attributes(answer) == {
        "domain": domain,
        "path": "/a/b",
        "secure": "",
        "httponly": "",
        "samesite": "Strict",
    }


@pytest.mark.parametrize(
    ("expires", "seconds"),
    [
        ("300", 300),
        (300, 300),
        (timedelta(days=1), 86400),
        (False, 10 * 365 * 86400),
        ("false", 10 * 365 * 86400),
        (datetime(2001, 1, 1), 0),
    ],
)
def test_a_cookie_may_outlive_the_browser(wrap, expires, seconds):
    sent = attributes(get(wrap(cookie_expires=expires), "/write"))
    assert int(sent["max-age"]) == seconds
    # RFC 9110, 5.6.7: in English, whatever the locale.
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", sent["expires"])


@pytest.mark.parametrize("zone", [UTC, None, timezone(timedelta(hours=5))])
def test_a_datetime_is_a_moment_in_utc_unless_it_says_otherwise(wrap, zone):
    moment = datetime.now(zone or UTC) + timedelta(hours=1)
    expires = moment if zone else moment.replace(tzinfo=None)
    sent = attributes(get(wrap(cookie_expires=expires), "/write"))
    assert 3500 < int(sent["max-age"]) <= 3600


@pytest.mark.parametrize("expires", [True, "true"])
def test_by_default_the_cookie_ends_with_the_browser(wrap, expires):
    assert {"max-age", "expires"}.isdisjoint(
        attributes(get(wrap(cookie_expires=expires), "/write"))
    )


def test_a_cookie_for_some_time_lives_on_while_it_is_used(wrap, clock):
    app = wrap(cookie_expires=300, timeout=300)
    cookie = pair(get(app, "/write"))
    assert get(app, "/read", cookie).header("Set-Cookie") is None, "not at each request"
    for _ in range(10):
        clock.advance(100)
        answer = get(app, "/read", cookie)
        assert pair(answer) == cookie
        assert attributes(answer)["max-age"] == "300"
        assert get(app, "/read", cookie).header("Set-Cookie") is None


@pytest.mark.parametrize(
    "neighbours",
    [
        "a=b; {}",
        "{}; a=b",
        'a="unclosed; {}',
        "a[b]=c; {}",
        "noequals; {}",
        "=empty; {}",
        "a=\xff\xfe; {}",
        ";;; {} ;;;",
        "$Version=1; {}",
        'json={{"a": 1, "b": [2]}}; {}',
        "a b=c; {}",
        "x{}; {}",
    ],
)
def test_a_malformed_neighbour_hides_nothing(wrap, neighbours):
    app = wrap()
    cookie = pair(get(app, "/write"))
    assert get(app, "/write", neighbours.format(*[cookie] * 2)).body == b"2"


#: What may stand in a header, the name of our cookie apart.
NEIGHBOURS = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")).filter(
    lambda text: "nocookie" not in text
)


@given(NEIGHBOURS, NEIGHBOURS)
def test_no_neighbour_whatever_it_is_hides_anything(before, after):
    app = SessionMiddleware(visit)
    cookie = pair(get(app, "/write"))
    assert get(app, "/read", f"{before};{cookie}; {after}").body == b"1"


def test_a_cookie_that_is_not_signed_is_refused(wrap):
    app = wrap(secret=SECRET)
    cookie = pair(get(app, "/write"))
    assert get(app, "/write", cookie).body == b"2"
    unsigned = pair(get(wrap(), "/write"))
    answer = get(app, "/write", unsigned)
    assert answer.body == b"1"
    assert pair(answer) != unsigned


def test_browsers_and_api_clients_share_one_application(wrap):
    """What the client proved it can carry is what it gets back, never both."""
    app = wrap(use_cookies=False, find_id=FirstOf(Cookie("sid"), Header("X-Session-Id")))
    browser = get(app, "/write")
    cookie = pair(browser)
    assert browser.id is None
    id = cookie.removeprefix("sid=")
    for headers in ({"Cookie": cookie}, {"X-Session-Id": id}):
        again = serve(app, environ=Request.blank("/write", headers=headers).environ)
        assert again.body in (b"2", b"3")
        assert (again.id, again.header("Set-Cookie")) == (None, None)
    by_header = Request.blank("/rotate", headers={"X-Session-Id": id}).environ
    rotated = serve(app, environ=by_header)
    assert rotated.id
    assert rotated.header("Set-Cookie") is None


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("cookie, header:X-Session-Id", "shop"),
        ("cookie:sid, header:X-Session-Id", "sid"),
        (["cookie", Header()], "shop"),
        (FirstOf("cookie:sid", Header()), "sid"),
    ],
)
def test_a_cookie_among_other_carriers_has_the_attributes_that_are_configured(wrap, written, name):
    options = {
        "key": "shop",
        "secure": "true",
        "cookie_domain": "example.com",
        "samesite": "Strict",
    }
    app = wrap(use_cookies=False, find_id=written, **options)
    answer = get(app, "/write")
    assert pair(answer).startswith(f"{name}=")
    expected = {"domain": "example.com", "path": "/", "samesite": "Strict"}
    assert attributes(answer) == {**expected, "secure": "", "httponly": ""}


@pytest.mark.parametrize("expires", ["0", 0, -5, "soon", timedelta(0)])
def test_an_expiry_that_is_none_is_refused(wrap, expires):
    with pytest.raises(ConfigError, match="cookie_expires"):
        wrap(cookie_expires=expires)


@pytest.mark.parametrize(("samesite", "sent"), [("None", "None"), ("lax", "Lax"), ("", None)])
def test_samesite_can_be_every_policy_and_none(wrap, samesite, sent):
    answer = get(wrap(samesite=samesite, secure=True), "/write")
    assert attributes(answer).get("samesite") == sent


def test_httponly_and_secure_can_be_off(wrap):
    sent = attributes(get(wrap(httponly=False, secure=False), "/write"))
    assert not {"httponly", "secure"} & sent.keys()


# -- as a browser sees it ------------------------------------------------------------------------


class Browser:
    """A client that keeps cookies by the rules: http.cookiejar."""

    def __init__(self, app):
        self.app = app
        self.jar = CookieJar()

    def get(self, url):
        request = urllib.request.Request(url)
        self.jar.add_cookie_header(request)
        answer = get(self.app, url, request.get_header("Cookie"))
        head = Message()
        for name, value in answer.headers:
            head[name] = value
        answer.info = lambda: head
        self.jar.extract_cookies(answer, request)
        return answer


def test_a_cookie_is_for_its_host_alone_unless_a_domain_is_set(wrap):
    for domain, elsewhere in [(None, b"1"), (".example.com", b"2"), ("example.com", b"2")]:
        browser = Browser(wrap(cookie_domain=domain))
        browser.get("http://www.example.com/write")
        assert browser.get("http://shop.example.com/write").body == elsewhere
        assert browser.get("http://www.example.org/write").body == b"1"


def test_a_cookie_is_for_its_path(wrap):
    browser = Browser(wrap(cookie_path="/shop"))
    browser.get("http://example.com/shop/write")
    assert browser.get("http://example.com/shop/read").body == b"1"
    assert browser.get("http://example.com/read").body == b"None"


def test_a_secure_cookie_is_not_sent_without_tls(wrap):
    browser = Browser(wrap(secure=True))
    browser.get("https://example.com/write")
    assert browser.get("http://example.com/read").body == b"None"
    assert browser.get("https://example.com/read").body == b"1"


@pytest.mark.parametrize("path", ["/", "/shop"])
@pytest.mark.parametrize("domain", [None, ".example.com"])
@pytest.mark.parametrize("expires", [True, False, 300])
def test_the_end_of_a_session_removes_the_cookie_from_the_browser(wrap, path, domain, expires):
    browser = Browser(wrap(cookie_path=path, cookie_domain=domain, cookie_expires=expires))
    browser.get("http://www.example.com/shop/write")
    assert len(browser.jar) == 1
    browser.get("http://www.example.com/shop/end")
    assert len(browser.jar) == 0


# -- dates ---------------------------------------------------------------------------------------


@pytest.fixture
def german(tmp_path, monkeypatch):
    """The month and the day in German, for whatever asks the locale."""
    name = "de_DE.UTF-8"
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        localedef = shutil.which("localedef")
        made = localedef and subprocess.run(
            [localedef, "-i", "de_DE", "-f", "UTF-8", str(tmp_path / name)], capture_output=True
        )
        if not made or not (tmp_path / name).exists():
            assert not os.environ.get("CI"), "no German locale, and none can be made"
            pytest.skip("no German locale, and none can be made")
        monkeypatch.setenv("LOCPATH", str(tmp_path))
        locale.setlocale(locale.LC_ALL, name)
    yield
    locale.setlocale(locale.LC_ALL, before)


def test_dates_are_in_english_whatever_the_locale(wrap, german):
    assert time.strftime("%A", time.gmtime(0)) == "Donnerstag"
    app = wrap(cookie_expires=datetime(2031, 5, 6, tzinfo=UTC))
    sent = attributes(get(app, "/write"))["expires"]
    assert sent == "Tue, 06 May 2031 00:00:00 GMT" or sent == "Mon, 05 May 2031 23:59:59 GMT"
    ended = attributes(get(app, "/end", pair(get(app, "/write"))))["expires"]
    assert re.fullmatch(r"Wed, 31[ -]Dec[ -](19)?97 23:59:59 GMT", ended)


def test_samesite_none_needs_secure():
    with pytest.raises(ConfigError, match="secure"):
        SessionMiddleware(visit, samesite="None")


def test_a_partitioned_cookie_needs_secure():
    with pytest.raises(ConfigError, match="partitioned needs secure"):
        Cookie(partitioned=True)
    with pytest.raises(ConfigError, match="partitioned needs secure"):
        SessionMiddleware(visit, partitioned=True)


def test_a_partitioned_cookie_says_so_when_it_comes_and_when_it_goes(wrap):
    app = wrap(partitioned=True, secure=True, samesite="None")
    told = get(app, "/write")
    assert told.header("Set-Cookie").endswith("; Partitioned")
    ended = get(app, "/end", pair(told))
    assert "Max-Age=0" in ended.header("Set-Cookie")
    assert ended.header("Set-Cookie").endswith("; Partitioned")
    other = get(wrap(), "/write")
    assert "Partitioned" not in other.header("Set-Cookie")


def test_a_partitioned_cookie_may_have_an_end(wrap):
    app = wrap(partitioned=True, secure=True, cookie_expires=timedelta(days=1))
    words = get(app, "/write").header("Set-Cookie").split("; ")
    assert "Partitioned" in words and "Max-Age=86400" in words


def test_a_gateways_cookie_that_no_header_can_say_again_is_left_to_the_gateway(clock):
    store = MemoryStore(clock=clock)
    app = SessionMiddleware(
        visit, type=store, clock=clock, strict=False, id_key="k" * 32,
        cookie_expires=timedelta(days=1), key="sid",
    )  # fmt: skip
    for _ in range(2):
        clock.advance(600)
        answer = get(app, "/write", "sid=user-4711 / M\xfcller")
        assert answer.status == "200 OK"
        assert answer.header("Set-Cookie") is None
    assert answer.body == b"2"
