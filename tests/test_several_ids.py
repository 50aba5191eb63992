"""Several different ids in one place of a request: the one that the store knows counts."""

import urllib.request
from email.message import Message
from http.cookiejar import CookieJar
from types import SimpleNamespace

import pytest
from helpers import CountingStore, serve
from webob import Request

from nocookie import SessionMiddleware, session
from nocookie.ids import RandomIds, SignedIds

SECRET = "s" * 32


def form(ids):
    body = "&".join(f"sid={id}" for id in ids)
    return {"method": "POST", "POST": body}


#: By what finds the ids: how a client sends several.
PLACES = {
    "header:X-Session-Id": lambda ids: {"headers": {"X-Session-Id": ", ".join(ids)}},
    "query:sid": lambda ids: {"query_string": "&".join(f"sid={id}" for id in ids)},
    "form:sid": form,
    "cookie": lambda ids: {"headers": {"Cookie": "; ".join(f"sid={id}" for id in ids)}},
}


@pytest.fixture(params=PLACES)
def place(request):
    return request.param


@pytest.fixture
def store(clock):
    return CountingStore(clock=clock)


@pytest.fixture(params=[None, SECRET], ids=["plain", "signed"])
def site(request, place, store, clock):
    class Site:
        secret = request.param

        def __init__(self):
            self.middleware = SessionMiddleware(
                self._app, type=store, clock=clock, use_cookies=False,
                find_id=place, key="sid", secret=self.secret,
            )  # fmt: skip

        def _app(self, environ, start_response):
            self.reason, self.seen = session.reason, dict(session)
            if environ["PATH_INFO"] == "/begin":
                session["who"] = environ["HTTP_X_WHO"]
                session.save()
                self.id = session.id
            start_response("200 OK", [])
            return [b""]

        def begin(self, who):
            serve(self.middleware, path="/begin", headers={"X-Who": who})
            return self.id

        def get(self, *ids):
            store.trips.clear()
            return serve(self.middleware, path="/", **PLACES[place](ids))

        def unknown(self):
            return (SignedIds([SECRET]) if self.secret else RandomIds()).new()

    return Site()


def in_every_order(*ids):
    return [ids, tuple(reversed(ids))]


def test_what_cannot_be_ours_hides_no_id(site):
    id = site.begin("ada")
    others = ["nonsense", "x" * 42, *([SignedIds(["another " * 4]).new()] if site.secret else [])]
    for ids in in_every_order(id, *others):
        site.get(*ids)
        assert (site.reason, site.seen) == (None, {"who": "ada"})


def test_the_one_that_the_store_knows_counts(site, store):
    id = site.begin("ada")
    for ids in in_every_order(id, site.unknown(), site.unknown()):
        site.get(*ids)
        assert (site.reason, site.seen) == (None, {"who": "ada"})
        assert len(store.trips) <= 3


def test_two_that_the_store_knows_are_ambiguous(site):
    ada, eve = site.begin("ada"), site.begin("eve")
    for ids in in_every_order(ada, site.unknown(), eve):
        site.get(*ids)
        assert (site.reason, site.seen) == ("ambiguous", {})
    for id, who in ((ada, "ada"), (eve, "eve")):
        site.get(id)
        assert site.seen == {"who": who}


def test_one_that_has_expired_is_no_rival(site, clock):
    old = site.begin("ada")
    clock.advance(1700)
    id = site.begin("ada again")
    clock.advance(200)
    for ids in in_every_order(old, id):
        site.get(*ids)
        assert site.seen == {"who": "ada again"}


def test_none_that_the_store_knows_is_unknown(site):
    site.get(site.unknown(), site.unknown())
    assert (site.reason, site.seen) == ("unknown", {})


@pytest.mark.parametrize("place", ["header:X-Session-Id"], indirect=True)
def test_a_comma_that_joins_nothing_is_another_spelling(site):
    id = site.begin("ada")
    for text in (f"{id},", f",{id}", f"{id}, ,{id}"):
        site.get(text)
        assert (site.reason, site.seen) == ("malformed", {})


def test_only_what_cannot_be_ours_has_the_reason_of_that(site):
    site.get("nonsense", "x" * 42)
    assert site.reason == "malformed"


def test_more_than_four_are_ambiguous_and_none_is_asked_for(site, store):
    id = site.begin("ada")
    site.get(id, *[site.unknown() for _ in range(3)])
    assert site.seen == {"who": "ada"}
    site.get(id, *[site.unknown() for _ in range(4)])
    assert (site.reason, site.seen) == ("ambiguous", {})
    assert store.trips == []


def test_several_carriers_still_count_in_their_order(store, clock):
    def app(environ, start_response):
        seen.append(dict(session))
        if environ["PATH_INFO"] == "/begin":
            session["who"] = environ["QUERY_STRING"]
            session.save()
            ids.append(session.id)
        start_response("200 OK", [])
        return [b""]

    ids, seen = [], []
    site = SessionMiddleware(
        app, type=store, clock=clock, use_cookies=False, find_id=["query:sid", "header:X-Sid"]
    )
    for who in ("ada", "eve"):
        serve(site, path="/begin", query_string=who)
    ada, eve = ids
    unknown = RandomIds().new()
    serve(site, query_string=f"sid={unknown}&sid={ada}", headers={"X-Sid": eve})
    assert seen[-1] == {"who": "ada"}
    serve(site, query_string=f"sid={unknown}&sid={RandomIds().new()}", headers={"X-Sid": eve})
    assert seen[-1] == {"who": "eve"}


def test_a_gateway_that_sends_several_opens_nothing(store, clock):
    def app(environ, start_response):
        seen.append((session.reason, dict(session)))
        session["n"] = 1
        session.save()
        start_response("200 OK", [])
        return [b""]

    seen = []
    site = SessionMiddleware(
        app, type=store, clock=clock, use_cookies=False, find_id="header:X-Msisdn",
        strict=False, id_key="k" * 32,
    )  # fmt: skip
    serve(site, headers={"X-Msisdn": "4711"})
    serve(site, headers={"X-Msisdn": "4711, 4712"})
    assert seen[-1] == ("ambiguous", {})


def test_a_link_without_its_session_takes_no_id_on_that_could_be_either(clock):
    def app(environ, start_response):
        start_response("302 Found", [("Location", "/next")])
        return [b""]

    site = SessionMiddleware(app, use_cookies=False, find_id="query:sid")
    one, other = RandomIds().new(), RandomIds().new()
    assert serve(site, query_string=f"sid={one}&sid={other}").header("Location") == "/next"
    assert one in serve(site, query_string=f"sid={one}&sid=x").header("Location")


# -- cookies whose domain or path was changed ----------------------------------------------------

HOST = "www.shop.example"
BEFORE_AND_AFTER = [
    ({}, {"cookie_domain": "shop.example"}),
    ({"cookie_domain": "shop.example"}, {}),
    ({"cookie_domain": ".shop.example"}, {"cookie_domain": HOST}),
    ({"cookie_path": "/shop"}, {"cookie_path": "/"}),
    ({"cookie_path": "/"}, {"cookie_path": "/shop"}),
    ({"cookie_path": "/shop/page"}, {"cookie_domain": "shop.example"}),
]
TYPES = {
    "plain": {},
    "signed": {"secret": SECRET},
    "in the cookie": {"type": "cookie", "secret": SECRET},
}


class Browser:
    """Keeps cookies as browsers do, for one host."""

    def __init__(self):
        self.jar = CookieJar()

    def get(self, app, path):
        request = urllib.request.Request(f"http://{HOST}/shop{path}")
        self.jar.add_cookie_header(request)
        sent = request.get_header("Cookie")
        environ = Request.blank(path, base_url=f"http://{HOST}/shop").environ
        answer = serve(app, environ={**environ, **({"HTTP_COOKIE": sent} if sent else {})})
        headers = Message()
        for name, value in answer.headers:
            headers[name] = value
        self.jar.extract_cookies(SimpleNamespace(info=lambda: headers), request)
        return answer.body.decode()


def visit(environ, start_response):
    if environ["PATH_INFO"] == "/page/login":
        session.login("ada")
    if environ["PATH_INFO"] == "/page/logout":
        session.delete()
    start_response("200 OK", [])
    return [str(session.owner).encode()]


@pytest.mark.parametrize("options", TYPES.values(), ids=TYPES)
@pytest.mark.parametrize(("before", "after"), BEFORE_AND_AFTER)
def test_after_a_change_of_the_cookies_attributes_a_visitor_stays_logged_in(
    store, clock, before, after, options
):
    options = {"type": store, "clock": clock, "key": "sid", **options}
    old = SessionMiddleware(visit, **options, **before)
    new = SessionMiddleware(visit, **options, **after)
    browser = Browser()
    assert browser.get(old, "/page/login") == "ada"
    assert browser.get(new, "/page/x") == "ada"
    # A login has the cookie set anew; no other of this name is left once both came along.
    assert browser.get(new, "/page/login") == "ada"
    # A session that is in the cookie opens as long as its cookie is there, ended or not.
    is_ambiguous = options["type"] == "cookie"
    assert browser.get(new, "/page/x") == ("None" if is_ambiguous else "ada")
    assert browser.get(new, "/page/login") == "ada"
    assert browser.get(new, "/page/x") == "ada"
    assert len(browser.jar) == 1
    assert browser.get(new, "/page/logout") == "None"
    assert len(browser.jar) == 0
    assert browser.get(new, "/page/x") == "None"


def test_one_cookie_has_no_others_taken_back(store, clock):
    app = SessionMiddleware(visit, type=store, clock=clock, key="sid")
    browser = Browser()
    browser.get(app, "/page/login")
    environ = Request.blank("/page/login", base_url=f"http://{HOST}/shop").environ
    [cookie] = browser.jar
    answer = serve(app, environ={**environ, "HTTP_COOKIE": f"sid={cookie.value}"})
    assert [name for name, _ in answer.headers].count("Set-Cookie") == 1


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost", "[::1]", "a..b", "", "x\ty.example"])
def test_an_odd_host_or_path_makes_no_odd_cookie(store, clock, host):
    app = SessionMiddleware(visit, type=store, clock=clock, key="sid")
    environ = Request.blank("/login", base_url="http://x").environ
    environ |= {"HTTP_HOST": host, "SCRIPT_NAME": "/page", "PATH_INFO": "/page/login"}
    environ |= {"HTTP_COOKIE": "sid=a; sid=b"}
    for mount in ("/a;b", "/a\nb", "/\xe9", "/" + "x" * 300):
        answer = serve(app, environ={**environ, "SCRIPT_NAME": mount})
        cookies = [value for name, value in answer.headers if name == "Set-Cookie"]
        assert cookies
        for cookie in cookies:
            assert "Domain" not in cookie
            assert cookie.count("Path=") == 1
            assert "\n" not in cookie and "a;b" not in cookie
