"""Caches that go by other headers than `Cache-Control`: no id is kept by one, whatever the
application says to it. nginx is real; of those in content delivery networks there is a model."""

from email.utils import formatdate

import pytest
import requests
from browser.sites import Site
from helpers import serve
from webob import Request

from nocookie import SessionMiddleware, session

LATER = formatdate(4_000_000_000, usegmt=True)

#: What an application may say to a cache.
INVITATIONS = {
    "CDN-Cache-Control": "max-age=600",
    "Cloudflare-CDN-Cache-Control": "public, max-age=600",
    "Surrogate-Control": "max-age=600",
    "Edge-Control": "max-age=600",
    "X-Accel-Expires": "600",
    "Expires": LATER,
    "Cache-Control": "public, max-age=600",
}
CARRIERS = ["header", "bearer", "cookie", "query:sid", "path:~", "param:sid", "form:sid"]


def inviting(*names):
    def application(environ, start_response):
        if environ["PATH_INFO"] != "/for-all":
            session["n"] = session.get("n", 0) + 1
            session.save()
        headers = [(name, INVITATIONS[name]) for name in names]
        start_response("200 OK", [("Content-Type", "text/html"), *headers])
        return [b"a page"]

    return application


def kept(headers, cache=None):
    """A model of a cache after RFC 9213: for how long it keeps a response. *cache* is the field
    that is meant for it, which counts more than `Cache-Control`."""
    said = {name.lower(): value for name, value in headers}
    words = said.get((cache or "").lower(), said.get("cache-control", ""))
    if "no-store" in words or "private" in words:
        return False
    return "max-age" in words or words.isdigit()


TARGETED = [name for name in INVITATIONS if name not in ("Expires", "Cache-Control")]


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("cache", TARGETED)
def test_a_response_with_a_new_id_is_kept_by_no_cache_that_is_spoken_to_apart(cache, carrier):
    app = SessionMiddleware(inviting(*INVITATIONS), use_cookies=False, find_id=carrier)
    assert kept(serve(app, path="/for-all").headers, cache), "the model"
    first = serve(app)
    assert not kept(first.headers, cache)
    assert first.header("Expires") is None
    assert first.header("Cache-Control") == "no-store"


@pytest.mark.parametrize("cache", TARGETED)
@pytest.mark.parametrize("path", ["/?sid={}", "/for-all?sid={}"])
def test_nor_is_one_with_an_id_in_its_url(cache, path):
    app = SessionMiddleware(inviting(cache), use_cookies=False, find_id="query:sid")
    url = path.format(serve(app).id)
    assert not kept(serve(app, environ=Request.blank(url).environ).headers, cache)


@pytest.mark.parametrize(
    ("name", "value", "is_public"),
    [
        *((name, value, True) for name, value in INVITATIONS.items()),
        ("CDN-Cache-Control", "no-store", False),
        ("Surrogate-Control", "private, max-age=3", False),
        ("X-Accel-Expires", "0", False),
        ("Expires", "0", False),
        ("Expires", formatdate(0, usegmt=True), False),
        ("Access-Control-Allow-Credentials", "true", False),
    ],
)
def test_an_id_in_a_body_that_such_a_cache_may_keep_is_a_leak(caplog, name, value, is_public):
    def application(environ, start_response):
        session["n"] = session.get("n", 0) + 1
        session.save()
        start_response("200 OK", [(name, value)])
        return [session.id.encode()]

    app = SessionMiddleware(application, use_cookies=False)
    id = serve(app).id
    assert not caplog.records or caplog.records[-1].event != "leak"
    serve(app, id)
    leaks = [record.detail for record in caplog.records if record.event == "leak"]
    assert leaks == (["into a body that public caches keep"] if is_public else [])


@pytest.fixture
def asked_twice(tmp_path):
    """What two visitors get through nginx: the headers of each."""
    from realservers.nginx import Nginx

    def ask(app, path):
        with Site(app) as site:
            cache = Nginx(tmp_path, site.origin)
            cache.start()
            try:
                return [requests.get(cache.url + path, timeout=30).headers for _ in range(2)]
            finally:
                cache.stop()

    return ask


@pytest.mark.server
@pytest.mark.parametrize("name", ["X-Accel-Expires", "Expires", "Cache-Control"])
def test_nginx_gives_nobody_the_new_id_of_another(asked_twice, name):
    app = SessionMiddleware(inviting(name), use_cookies=False)
    first, second = asked_twice(app, "/")
    assert second["X-Cache"] == "MISS"
    assert first["X-Session-Id"] != second["X-Session-Id"]


@pytest.mark.server
@pytest.mark.parametrize("name", ["X-Accel-Expires", "Expires", "Cache-Control"])
def test_what_asks_for_no_session_it_keeps(asked_twice, name):
    """So the test above can fail."""
    app = SessionMiddleware(inviting(name), use_cookies=False)
    assert asked_twice(app, "/for-all")[1]["X-Cache"] == "HIT"
