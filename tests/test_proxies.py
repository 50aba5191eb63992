"""Proxies in front: one that ends TLS, one that takes a prefix off, and the layers that put right
what they changed. Links and redirects have to lead where the client is."""

import re
import types
from urllib.parse import urljoin

import pytest
from helpers import serve
from webob import Request

from nocookie import ConfigError, PathParam, PathSegment, Query, SessionMiddleware, session
from nocookie.stores.memory import MemoryStore

PUBLIC = "https://shop.example/shop"
CARRIERS = {"query": Query(), "path": PathSegment(), "param": PathParam()}


def through_the_proxy(app, url):
    """Send a request as nginx would that ends TLS, and takes /shop off."""
    assert url.startswith(f"{PUBLIC}/"), f"{url} is another application's"
    path = url.removeprefix(PUBLIC)
    environ = Request.blank(path).environ | {
        "REQUEST_URI": path,
        "HTTP_HOST": "backend:8000",
        "REMOTE_ADDR": "10.0.0.7",
        "HTTP_X_FORWARDED_FOR": "192.0.2.1",
        "HTTP_X_FORWARDED_PROTO": "https",
        "HTTP_X_FORWARDED_HOST": "shop.example",
        "HTTP_X_FORWARDED_PREFIX": "/shop",
    }
    return serve(app, environ=environ)


def count():
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    return session["visits"]


def page_of(link):
    return f'{count()} <a href="{link}">cart</a>'


def flask():
    flask = pytest.importorskip("flask")
    site = flask.Flask("site")
    site.add_url_rule("/", "home", lambda: page_of(flask.url_for("cart")))
    site.add_url_rule("/cart", "cart", lambda: page_of(flask.url_for("home", _external=True)))
    site.add_url_rule("/go", "go", lambda: flask.redirect(flask.url_for("cart")))
    return site.wsgi_app


def pyramid():
    config = pytest.importorskip("pyramid.config").Configurator()
    http = pytest.importorskip("pyramid.httpexceptions")
    response = pytest.importorskip("pyramid.response").Response

    def view(name, path, make):
        config.add_route(name, path)
        config.add_view(make, route_name=name)

    view("home", "/", lambda request: response(page_of(request.route_path("cart"))))
    view("cart", "/cart", lambda request: response(page_of(request.route_url("home"))))
    view("go", "/go", lambda request: http.HTTPFound(request.route_url("cart")))
    return config.make_wsgi_app()


@pytest.fixture
def django():
    pytest.importorskip("django")
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse, HttpResponseRedirect
    from django.test.utils import override_settings
    from django.urls import path, reverse

    if not settings.configured:
        settings.configure()

    def cart(request):
        return HttpResponse(page_of(request.build_absolute_uri(reverse("home"))))

    urls = types.ModuleType("urls")
    urls.urlpatterns = [
        path("", lambda request: HttpResponse(page_of(reverse("cart"))), name="home"),
        path("cart", cart, name="cart"),
        path("go", lambda request: HttpResponseRedirect(reverse("cart")), name="go"),
    ]
    with override_settings(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], USE_TZ=True):
        yield WSGIHandler


@pytest.fixture(params=["flask", "pyramid", "django"])
def framework(request):
    if request.param == "django":
        return request.getfixturevalue("django")()
    return {"flask": flask, "pyramid": pyramid}[request.param]()


def fixed(app, **counts):
    fixers = pytest.importorskip("werkzeug.middleware.proxy_fix")
    return fixers.ProxyFix(app, x_for=1, x_proto=1, x_host=1, x_prefix=1, **counts)


def sessions(app, kind, **options):
    return SessionMiddleware(
        app,
        use_cookies=False,
        find_id=CARRIERS[kind],
        rewrite="html",
        type=MemoryStore(),
        **options,
    )


LAYOUTS = {
    "outside": lambda app, kind: fixed(sessions(app, kind)),
    "inside": lambda app, kind: sessions(fixed(app), kind),
    "inside, with HTTPS required": lambda app, kind: sessions(
        fixed(app), kind, require_https=True, trusted_proxies="10.0.0.7"
    ),
    "inside, with an origin": lambda app, kind: sessions(
        fixed(app), kind, origin="https://shop.example"
    ),
}


def link_of(answer, url):
    return urljoin(url, re.search(rb'href="([^"]*)"', answer.body)[1].decode())


@pytest.mark.parametrize("kind", CARRIERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_links_and_redirects_lead_on_below_a_prefix_that_proxyfix_puts_back(
    framework, layout, kind
):
    app = LAYOUTS[layout](framework, kind)
    url = f"{PUBLIC}/"
    for visits in range(1, 5):
        answer = through_the_proxy(app, url)
        assert answer.body.startswith(f"{visits} ".encode()), (url, answer.status, answer.body)
        url = link_of(answer, url)
    first = through_the_proxy(app, f"{PUBLIC}/")
    home = link_of(through_the_proxy(app, link_of(first, f"{PUBLIC}/")), url)
    start = re.sub("(/~[^/]*|)/(?=[?;]|$)", r"\1/go", home)
    answer = through_the_proxy(app, start)
    assert answer.status.startswith("302"), (start, answer.status)
    answer = through_the_proxy(app, urljoin(start, answer.header("Location")))
    assert answer.body.startswith(b"3 ")


@pytest.mark.parametrize("kind", CARRIERS)
@pytest.mark.parametrize("layout", ["outside", "inside"])
def test_a_prefix_that_a_layer_inside_puts_back_is_reported_if_it_costs_ids(layout, kind, caplog):
    app = LAYOUTS[layout](flask(), kind)
    for _ in range(2):
        answer = through_the_proxy(app, f"{PUBLIC}/")
        for _ in range(2):
            answer = through_the_proxy(app, link_of(answer, f"{PUBLIC}/"))
    said = [r.detail for r in caplog.records if r.event == "misfit" and "SCRIPT_NAME" in r.detail]
    assert len(said) == ((layout, kind) == ("inside", "path"))


@pytest.mark.parametrize("kind", CARRIERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_neighbours_of_the_prefix_get_no_id(layout, kind):
    def app(environ, start_response):
        count()
        start_response("302 Found", [("Location", environ["test.to"])])
        return [b""]

    def to(location):
        def with_it(environ, start_response):
            return app({**environ, "test.to": location}, start_response)

        return through_the_proxy(LAYOUTS[layout](with_it, kind), f"{PUBLIC}/").header("Location")

    assert to("/other") == "/other"
    assert to("/shop/cart") != "/shop/cart"


def test_a_dispatcher_inside_moves_no_mount(caplog):
    dispatcher = pytest.importorskip("werkzeug.middleware.dispatcher").DispatcherMiddleware

    def app(environ, start_response):
        count()
        start_response("302 Found", [("Location", "/outer")])
        return [b""]

    for kind in CARRIERS:
        site = sessions(dispatcher(app, {"/admin": app}), kind)
        environ = Request.blank("/admin/x").environ
        once = serve(site, environ=environ).header("Location")
        assert once != "/outer", "the mount is the one of the middleware"
        again = once.replace("outer", "admin/x")
        assert serve(site, path=again).header("Location") == once
    assert not [r for r in caplog.records if r.event == "misfit"]


# -- an origin with a path -----------------------------------------------------------------------


def told(kind, location, headers=(), question=None, path="/list", **options):
    """What comes of an application that redirects to *location*, behind a proxy."""
    found = []

    def app(environ, start_response):
        count()
        found.append(question() if question else None)
        start_response("302 Found", [("Location", location), *headers])
        return [b""]

    options = {"origin": PUBLIC, "find_id": CARRIERS[kind], **options}
    site = SessionMiddleware(app, use_cookies=False, type=MemoryStore(), **options)
    environ = Request.blank(path).environ | {"HTTP_HOST": "backend:8000", "REQUEST_URI": path}
    answer = serve(site, environ=environ)
    return answer, found[0], site


def hidden(text):
    return re.sub("[A-Za-z0-9_-]{43}", "S", text)


@pytest.mark.parametrize(
    ("kind", "to", "expected"),
    [
        ("query", "/shop/cart", "/shop/cart?sid=S"),
        ("path", "/shop/cart", "/shop/~S/cart"),
        ("param", "/shop/cart", "/shop/cart;sid=S"),
        ("query", f"{PUBLIC}/cart", f"{PUBLIC}/cart?sid=S"),
        ("path", f"{PUBLIC}/cart", f"{PUBLIC}/~S/cart"),
        ("query", "cart", "cart?sid=S"),
        ("path", "cart", "~S/cart"),
        ("param", "cart", "cart;sid=S"),
        ("path", "/shop", "/shop/~S/"),
    ],
)
def test_below_the_path_of_the_origin_urls_get_the_id(kind, to, expected):
    answer, url, _ = told(kind, to, question=lambda: session.url(to))
    assert hidden(answer.header("Location")) == hidden(url) == expected
    answer, _, _ = told(kind, "/x", [("Refresh", f"5; url={to}")])
    assert hidden(answer.header("Refresh")) == f"5; url={expected}"


@pytest.mark.parametrize("kind", CARRIERS)
@pytest.mark.parametrize(
    "to",
    [
        *("/cart", "/shopping", "/", "../cart", "https://shop.example/cart", "/Shop/cart"),
        *("http://shop.example/shop/cart", "http://backend:8000/shop/cart", "/shop/../cart"),
    ],
)
def test_outside_of_the_path_of_the_origin_no_url_gets_the_id(kind, to):
    answer, url, _ = told(kind, to, question=lambda: session.url(to))
    assert answer.header("Location") == url == to


@pytest.mark.parametrize("kind", CARRIERS)
def test_an_id_below_the_path_of_the_origin_is_found_behind_the_proxy(kind):
    answer, _, site = told(kind, "/shop/list")
    sent = answer.header("Location").removeprefix("/shop")
    environ = Request.blank(sent).environ | {"REQUEST_URI": sent, "HTTP_HOST": "backend:8000"}
    again = serve(site, environ=environ)
    assert again.header("Location") == answer.header("Location")
    assert again.id is None


def test_the_path_of_an_origin_is_before_the_mount_and_the_front_page_below_both():
    def app(environ, start_response):
        count()
        start_response("303 See Other", session.logout().headers)
        return [b""]

    site = sessions(app, "query", origin="https://shop.example/my%20shop")
    environ = Request.blank("/out").environ | {"SCRIPT_NAME": "/de"}
    assert serve(site, environ=environ).header("Location") == "/my%20shop/de/"


# -- plain HTTP ----------------------------------------------------------------------------------

BEHIND_TLS = {
    "HTTP_HOST": "shop.example",
    "REMOTE_ADDR": "10.0.0.7",
    "HTTP_X_FORWARDED_PROTO": "https",
}

ORIGINS = [{}, {"origin": "https://shop.example"}]


def behind_tls(kind, headers, body=b"", question=None, environ=BEHIND_TLS, **options):
    found = []

    def app(environ, start_response):
        count()
        found.append(question() if question else None)
        status = "302 Found" if dict(headers).get("Location") else "200 OK"
        start_response(status, list(headers))
        return [body]

    site = SessionMiddleware(
        app,
        use_cookies=False,
        find_id=CARRIERS.get(kind, kind),
        type=MemoryStore(),
        require_https=True,
        trusted_proxies="10.0.0.7",
        **options,
    )
    answer = serve(site, environ=Request.blank("/list").environ | environ)
    return answer, found[0]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("kind", CARRIERS)
def test_behind_a_proxy_that_ends_tls_https_urls_get_the_id_and_http_urls_none(kind, origin):
    for scheme in ("http", "https"):
        to = f"{scheme}://shop.example/next"
        answer, url = behind_tls(
            kind, [("Location", to)], question=lambda to=to: session.url(to), **origin
        )
        refreshed, _ = behind_tls(kind, [("Refresh", f"1; url={to}")], **origin)
        page = [("Content-Type", "text/html; charset=utf-8")]
        linked, _ = behind_tls(
            kind, page, f'<a href="{to}">next</a>'.encode(), rewrite="html", **origin
        )
        said = [
            *(answer.header("Location"), url, refreshed.header("Refresh")),
            linked.body.decode(),
        ]
        assert [hidden(text) != text for text in said] == [scheme == "https"] * 4, said


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_script_that_came_by_plain_http_may_not_read_the_id(origin):
    for asking, exposed in (
        ("https://shop.example", None),
        ("http://shop.example", None),
        ("http://app.example", None),
        ("HTTP://app.example", None),
        ("https://app.example", "X-Session-Id"),
    ):
        environ = {**BEHIND_TLS, "HTTP_ORIGIN": asking}
        answer, _ = behind_tls("header", [], environ=environ, **origin)
        assert answer.id
        assert answer.header("Access-Control-Expose-Headers") == exposed


@pytest.mark.parametrize("kind", CARRIERS)
def test_over_plain_http_no_url_gets_an_id_that_is_never_to_be(kind):
    """The handler asks for a URL before the save is refused."""
    plain = {**BEHIND_TLS, "HTTP_X_FORWARDED_PROTO": "http"}
    found = []
    answer, _ = behind_tls(
        kind, [], question=lambda: found.append(session.url("/next")), environ=plain
    )
    assert answer.status == "403 Forbidden"
    assert found in ([], ["/next"])


def test_an_origin_without_https_is_refused_where_it_is_required():
    with pytest.raises(ConfigError, match="require_https"):
        SessionMiddleware(None, require_https=True, origin="http://shop.example")


def test_the_scheme_is_the_proxys_for_scripts_of_the_same_origin_too():
    """Without `require_https` as well: one answer to how the client came."""

    def app(environ, start_response):
        count()
        start_response("302 Found", [("Location", "https://shop.example/next")])
        return [b""]

    site = sessions(app, "query", trusted_proxies="10.0.0.7")
    answer = serve(site, environ=Request.blank("/").environ | BEHIND_TLS)
    assert "sid=" in answer.header("Location")
