"""Secure forms: a token per session, a field with it, and handlers that run only with it."""

import re
import threading

import bottle
import flask
import pytest
from helpers import CountingStore, serve
from webob import Request, Response
from webob.dec import wsgify
from webtest import TestApp

from nocookie import (
    Bearer,
    Cookie,
    Form,
    Header,
    NocookieError,
    PathParam,
    PathSegment,
    Query,
    SessionMiddleware,
    StoreError,
    session,
)
from nocookie.forms import (
    FIELD,
    authenticate_form,
    authentication_token,
    hidden_field,
    refusal,
)

TOKEN = re.compile(r"[0-9a-f]{40}")


@pytest.fixture
def done():
    """What the handlers of this test did."""
    return []


@pytest.fixture
def shop(done):
    """An application with a page that has a form, and handlers for it, in WebOb's manner."""

    @authenticate_form
    def buy(request):
        done.append(request.POST.get("item"))
        return Response("bought")

    @wsgify
    def application(request):
        if request.path_info == "/buy":
            return buy(request)
        if request.path_info == "/login":
            session["user"] = "ada"
            session.regenerate_id()
            return hidden_field()
        if request.path_info == "/logout":
            session.delete()
            return ""
        if request.path_info == "/untouched":
            return ""
        return hidden_field()

    return application


@pytest.fixture
def visit(shop):
    """`visit(**options)` is a client of the shop, in cookie mode if nothing else is said."""

    def visit(**options):
        return TestApp(SessionMiddleware(shop, **{"secure": False, **options}))

    return visit


def token_on(page):
    return TOKEN.search(page.text)[0]


# -- the token -----------------------------------------------------------------------------------


def test_a_session_has_one_token(visit):
    client = visit()

    assert token_on(client.get("/")) == token_on(client.get("/"))
    assert token_on(client.get("/")) != token_on(visit().get("/"))


def test_two_first_pages_at_once_have_one_token(shop):
    """A browser opens two tabs under an id that has no token yet: both forms can be posted."""
    store = CountingStore()
    app = SessionMiddleware(shop, use_cookies=False, type=store)
    id = serve(app, path="/login").id
    together = threading.Barrier(2)
    pages = []

    @wsgify
    def both(request):
        page = hidden_field()
        together.wait(10)
        return page

    app.app = both
    threads = [threading.Thread(target=lambda: pages.append(serve(app, id).body)) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(pages) == 2
    assert pages[0] == pages[1]


def test_a_token_does_not_tell_the_id_nor_the_store_key(visit):
    store = CountingStore()
    client = visit(use_cookies=False, type=store)
    page = client.get("/")
    token = token_on(page)
    (key,) = store.keys()

    assert token not in page.headers["X-Session-Id"] + key
    assert page.headers["X-Session-Id"] not in page.text
    assert key[:40] != token


def test_a_token_is_nowhere_in_the_store(visit):
    store = CountingStore()
    token = token_on(visit(type=store).get("/"))

    assert token not in repr(vars(store))


@pytest.mark.parametrize("secret", [None, "thirty-two characters, or a few more"])
def test_a_new_id_means_a_new_token(visit, done, secret):
    client = visit(secret=secret)
    before = token_on(client.get("/"))
    after = token_on(client.post("/login"))

    refused = client.post("/buy", {FIELD: before}, status=403)
    client.post("/buy", {FIELD: after, "item": "tea"})

    assert before != after
    assert after == token_on(client.get("/"))
    assert "from before your login" in refused
    assert done == ["tea"]


def test_a_session_that_its_client_keeps_has_one_token_too(visit, done):
    """What the cookie holds is another text after every save; the id stays."""
    client = visit(type="cookie", secret="thirty-two characters, or a few more")
    token = token_on(client.get("/"))
    text = client.cookies["nocookie.session.id"]
    client.post("/buy", {FIELD: token, "item": "tea"})
    after = token_on(client.post("/login"))

    assert client.cookies["nocookie.session.id"] != text
    assert after != token
    client.post("/buy", {FIELD: token, "item": "milk"}, status=403)
    client.post("/buy", {FIELD: after, "item": "bread"})
    assert done == ["tea", "bread"]


def test_a_page_without_a_form_makes_no_session(visit):
    store = CountingStore()
    client = visit(type=store)
    client.get("/untouched")

    assert store.trips == []
    assert client.cookies == {}


def test_a_form_for_a_known_session_costs_no_write(visit):
    store = CountingStore()
    client = visit(type=store)
    client.get("/login")
    store.trips.clear()

    client.post("/buy", {FIELD: token_on(client.get("/"))})

    assert store.trips == ["load", "load"]


def test_a_form_keeps_no_session_that_was_ended_in_the_same_request():
    @wsgify
    def application(request):
        if request.path_info == "/":
            session.delete()
        return hidden_field()

    client = TestApp(SessionMiddleware(application))
    old = token_on(client.get("/first"))
    new = token_on(client.get("/"))

    assert old != new
    assert token_on(client.get("/first")) == new


def test_the_field_is_markup_that_no_template_escapes_again():
    seen = []

    @wsgify
    def application(request):
        seen.append(hidden_field())
        return ""

    TestApp(SessionMiddleware(application)).get("/")
    (field,) = seen

    assert re.fullmatch(rf'<input type="hidden" name="{FIELD}" value="[0-9a-f]{{40}}">', field)
    assert field.__html__() == field


def test_ids_of_a_gateway_have_no_tokens():
    @wsgify
    def application(request):
        with pytest.raises(NocookieError, match="a gateway issues the ids"):
            authentication_token()
        return "none"

    options = {"strict": False, "id_key": "hashes the gateway's ids for the store"}
    app = SessionMiddleware(application, use_cookies=False, find_id=lambda r: "4711", **options)

    assert TestApp(app).get("/").text == "none"


# -- the check -----------------------------------------------------------------------------------


def test_the_handler_runs_with_the_token(visit, done):
    client = visit()
    page = client.get("/")

    assert client.post("/buy", {FIELD: token_on(page), "item": "tea"}).text == "bought"
    assert done == ["tea"]


def test_a_script_may_send_the_token_in_a_header(visit, done):
    client = visit()
    token = token_on(client.get("/"))

    client.post_json("/buy", {}, headers={"X-CSRF-Token": token})

    assert len(done) == 1


def test_a_form_with_files_has_its_token_too(visit, done):
    client = visit()
    token = token_on(client.get("/"))

    client.post("/buy", {FIELD: token, "item": "tea"}, upload_files=[("file", "f", b"x" * 2000)])

    assert done == ["tea"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "has no token"),
        ({FIELD: ""}, "has no token"),
        ({FIELD: "0" * 40}, "not from here"),
        ({FIELD: "\u00e9\U0001f511" * 20}, "not from here"),
        ({FIELD: "x" * 5_000}, "not from here"),
    ],
    ids=["none", "empty", "guessed", "no ASCII", "long"],
)
def test_nothing_happens_without_the_token(visit, done, caplog, fields, why):
    client = visit()
    client.get("/")
    caplog.set_level("INFO", "nocookie")
    caplog.clear()

    refused = client.post("/buy", fields, status=403)

    assert why in refused
    assert done == []
    (record,) = caplog.records
    assert record.event == "form refused"
    assert len(record.fingerprint) == 10


def test_an_upload_in_place_of_the_token_is_no_token(visit, done):
    client = visit()
    token = token_on(client.get("/"))

    client.post("/buy", upload_files=[(FIELD, "name", token.encode())], status=403)

    assert done == []


@pytest.mark.parametrize("header", ["\xe9" * 40, "\xff", "0" * 40])
def test_odd_headers_are_refused_too(visit, done, header):
    client = visit()
    client.get("/")
    request = Request.blank("/buy", method="POST")
    request.environ["HTTP_X_CSRF_TOKEN"] = header
    request.headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in client.cookies.items())

    assert request.get_response(client.app).status_int == 403
    assert done == []


def test_a_token_in_the_query_does_not_count(visit, done):
    """Addresses are logged, kept and passed on; and a link is made by anybody."""
    client = visit()
    token = token_on(client.get("/"))

    client.get(f"/buy?{FIELD}={token}", status=403)
    client.post(f"/buy?{FIELD}={token}", status=403)

    assert done == []


def test_another_sessions_token_does_not_count(visit, done):
    client, stranger = visit(), visit()
    client.get("/")

    client.post("/buy", {FIELD: token_on(stranger.get("/"))}, status=403)

    assert done == []


def test_a_request_without_a_session_is_refused_and_gets_none(visit, done):
    store = CountingStore()
    client = visit(type=store)

    refused = client.post("/buy", {FIELD: "0" * 40}, status=403)

    assert "there was none" in refused
    assert store.trips == []
    assert client.cookies == {}
    assert done == []


def test_a_form_of_a_session_that_has_ended_is_refused(visit, done):
    client = visit()
    token = token_on(client.get("/"))
    id = client.cookies["nocookie.session.id"]
    client.get("/logout")
    client.set_cookie("nocookie.session.id", id.strip('"'))

    assert "has ended" in client.post("/buy", {FIELD: token}, status=403)
    assert done == []


def test_the_log_has_neither_token_nor_id(visit, caplog):
    caplog.set_level("DEBUG")
    client = visit()
    token = token_on(client.get("/"))
    id = client.cookies["nocookie.session.id"].strip('"')

    client.post("/buy", {FIELD: token[:-1]}, status=403)

    assert caplog.records
    for record in caplog.records:
        assert token[:-1] not in repr(vars(record))
        assert id not in repr(vars(record))


def test_a_get_is_checked_like_any_other(visit, done):
    """A handler that acts on GET is what an image on another site's page is for."""
    client = visit()
    client.get("/")

    for method in ("GET", "HEAD", "PUT", "DELETE"):
        client.request("/buy", method=method, status=403)

    assert done == []


def test_a_failing_store_is_not_a_wrong_token(visit, done):
    store = CountingStore()
    client = visit(type=store)
    token = token_on(client.get("/"))
    store.failing = {"load": StoreError("down, for the test")}

    client.post("/buy", {FIELD: token}, status=503)

    assert done == []


# -- which carriers need one ---------------------------------------------------------------------

#: A carrier, how a client sends its id ({}), and whether only a script can have sent it.
CARRIERS = [
    (Header(), {"headers": {"X-Session-Id": "{}"}}, True),
    (Bearer(), {"headers": {"Authorization": "Bearer {}"}}, True),
    (Cookie("sid"), {"headers": {"Cookie": "sid={}"}}, False),
    (Query(), {"path": "/buy?sid={}"}, False),
    (PathSegment(), {"path": "/~{}/buy"}, False),
    (PathParam(), {"path": "/buy;sid={}"}, False),
    (Form(), {"POST": {"sid": "{}"}}, False),
    (lambda request: request.headers.get("X-Call"), {"headers": {"X-Call": "{}"}}, False),
]


def with_id(sent, id):
    if isinstance(sent, str):
        return sent.format(id)
    return {name: with_id(value, id) for name, value in sent.items()}


@pytest.mark.parametrize(("carrier", "sent", "by_script"), CARRIERS, ids=lambda c: type(c).__name__)
def test_a_token_is_needed_unless_only_a_script_can_have_sent_the_id(
    shop, done, carrier, sent, by_script
):
    app = SessionMiddleware(shop, use_cookies=False, find_id=[Header("X-First"), carrier])
    first = serve(app)
    id, token = first.header("X-First"), TOKEN.search(first.body.decode())[0]
    request = {"path": "/buy", "method": "POST", **with_id(sent, id)}

    without = serve(app, **request)
    headers = {**request.pop("headers", {}), "X-CSRF-Token": token}
    with_it = serve(app, headers=headers, **request)

    assert without.status.startswith("200" if by_script else "403")
    assert with_it.status.startswith("200")


def test_what_counts_is_the_carrier_that_brought_the_session(shop, done):
    """A cookie comes by itself: it is not made good by a header with an id that opens nothing."""
    app = SessionMiddleware(shop, use_cookies=False, find_id=[Header(), Cookie("sid")])
    id = serve(app).id

    forged = serve(
        app, path="/buy", method="POST", headers={"Cookie": f"sid={id}", "X-Session-Id": "A" * 43}
    )

    assert forged.status.startswith("403")
    assert done == []


def test_a_header_without_a_session_is_no_permission(shop, done):
    app = SessionMiddleware(shop, use_cookies=False)

    answers = [serve(app, id, path="/buy", method="POST") for id in (None, "A" * 43, "nonsense")]

    assert {answer.status[:3] for answer in answers} == {"403"}
    assert done == []


def test_a_header_that_a_proxy_sets_is_not_a_scripts(shop):
    carrier = Header("X-Proxy-Session")
    carrier.by_script = False
    app = SessionMiddleware(shop, use_cookies=False, find_id=carrier)
    id = serve(app).header("X-Proxy-Session")

    answer = serve(app, path="/buy", method="POST", headers={"X-Proxy-Session": id})

    assert answer.status.startswith("403")


def test_a_third_partys_carrier_may_say_that_it_is_a_scripts(shop):
    class Signed:
        by_script = True

        def find(self, request):
            return request.headers.get("X-Signed")

        def place(self, id, reply):
            reply.headers["X-Signed"] = id
            return True

        def forget(self, reply):
            pass

    app = SessionMiddleware(shop, use_cookies=False, find_id=Signed())
    id = serve(app).header("X-Signed")

    answer = serve(app, path="/buy", method="POST", headers={"X-Signed": id})

    assert answer.status.startswith("200")


def test_a_session_that_the_application_found_needs_a_token():
    """Only the application knows where it had the id from."""
    answers = []

    @wsgify
    def application(request):
        session.rebuild(request.GET.get("id"))
        session["x"] = 1
        session.save()
        answers.append(refusal(None))
        return session.id

    client = TestApp(SessionMiddleware(application, use_cookies=False))
    id = client.get("/").text
    client.get(f"/?id={id}", headers={"X-Session-Id": id})

    assert "there was none" in answers[0]
    assert "has no token" in answers[1]


# -- kinds of handlers ---------------------------------------------------------------------------


def test_wsgi_applications_are_handlers(done):
    @authenticate_form
    def buy(environ, start_response):
        done.append(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"bought"]

    def page(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [hidden_field().encode()]

    def application(environ, start_response):
        return (buy if environ["PATH_INFO"] == "/buy" else page)(environ, start_response)

    client = TestApp(SessionMiddleware(application))
    token = token_on(client.get("/"))

    assert "has no token" in client.post("/buy", {"item": "tea"}, status=403)
    assert client.post("/buy", {FIELD: token}).text == "bought"
    assert done == [f"{FIELD}={token}".encode()]  # the body is there to be read as if never read


def test_methods_of_objects_are_handlers(done):
    class Controller:
        @authenticate_form
        def buy(self, environ, start_response):
            done.append(self)
            return Response("bought")(environ, start_response)

        @authenticate_form
        def sell(self, *, request):
            done.append(self)
            return Response("sold")

    controller = Controller()

    @wsgify
    def application(request):
        if request.path_info == "/buy":
            return controller.buy
        if request.path_info == "/sell":
            return controller.sell(request=request)
        return hidden_field()

    client = TestApp(SessionMiddleware(application))
    token = token_on(client.get("/"))

    client.post("/buy", status=403)
    client.post("/sell", status=403)
    assert client.post("/buy", {FIELD: token}).text == "bought"
    assert client.post("/sell", {FIELD: token}).text == "sold"
    assert done == [controller, controller]


def test_a_decorated_wsgify_application_is_a_handler():
    @authenticate_form
    @wsgify
    def application(request):
        return "bought"

    def page(environ, start_response):
        handler = application if environ["REQUEST_METHOD"] == "POST" else wsgify(field)
        return handler(environ, start_response)

    def field(request):
        return hidden_field()

    client = TestApp(SessionMiddleware(page))
    token = token_on(client.get("/"))

    client.post("/", status=403)
    assert client.post("/", {FIELD: token}).text == "bought"


@pytest.mark.parametrize("read_before", [False, True])
def test_flask_views_take_no_request(done, read_before):
    app = flask.Flask("shop")

    if read_before:

        @app.before_request
        def look():
            done.append(flask.request.form.get("item"))

    @app.get("/")
    def page():
        return hidden_field()

    @app.post("/buy")
    @authenticate_form
    def buy():
        done.append(flask.request.form["item"])
        return "bought"

    client = TestApp(SessionMiddleware(app))
    token = token_on(client.get("/"))
    done.clear()

    assert "has no token" in client.post("/buy", {"item": "tea"}, status=403)
    assert client.post("/buy", {FIELD: token, "item": "tea"}).text == "bought"
    assert done[-1] == "tea"
    assert len(done) == (3 if read_before else 1)


@pytest.mark.parametrize("read_before", [False, True])
def test_bottle_views_take_no_request(done, read_before):
    app = bottle.Bottle()
    app.catchall = False

    if read_before:
        app.add_hook("before_request", lambda: done.append(bottle.request.forms.get("item")))

    @app.get("/")
    def page():
        return hidden_field()

    @app.post("/buy")
    @authenticate_form(refuse=lambda why: bottle.HTTPError(403, why))
    def buy():
        done.append(bottle.request.forms["item"])
        return "bought"

    client = TestApp(SessionMiddleware(app))
    token = token_on(client.get("/"))
    done.clear()

    assert "has no token" in client.post("/buy", {"item": "tea"}, status=403)
    assert client.post("/buy", {FIELD: token, "item": "tea"}).text == "bought"
    assert done[-1] == "tea"


# Pyramid imports what setuptools has deprecated.
@pytest.mark.filterwarnings("ignore:.*pkg_resources")
def test_pyramid_views_answer_with_what_pyramid_takes(done):
    from pyramid.config import Configurator
    from pyramid.httpexceptions import HTTPForbidden

    def page(request):
        return Response(hidden_field())

    def buy(request):
        done.append(request.POST["item"])
        return Response("bought")

    with Configurator() as config:
        config.add_route("page", "/")
        config.add_route("buy", "/buy")
        config.add_view(page, route_name="page")
        config.add_view(buy, route_name="buy", decorator=authenticate_form(refuse=HTTPForbidden))
        app = config.make_wsgi_app()

    client = TestApp(SessionMiddleware(app))
    token = token_on(client.get("/"))

    assert "has no token" in client.post("/buy", {"item": "tea"}, status=403)
    assert client.post("/buy", {FIELD: token, "item": "tea"}).text == "bought"
    assert done == ["tea"]


def test_the_decorator_keeps_the_handlers_name():
    @authenticate_form
    def buy():
        """Buy it."""

    assert (buy.__name__, buy.__doc__) == ("buy", "Buy it.")


def test_frameworks_that_answer_otherwise_ask_for_the_refusal():
    @wsgify
    def application(request):
        if request.method == "POST":
            return refusal(request.headers.get("X-Token")) or "fine"
        return authentication_token()

    client = TestApp(SessionMiddleware(application))
    token = client.get("/").text

    assert client.post("/", headers={"X-Token": token}).text == "fine"
    assert "has no token" in client.post("/")


def test_a_token_that_cannot_be_encoded_is_a_wrong_one():
    @wsgify
    def application(request):
        if request.method == "POST":
            return refusal("\udcff")
        return authentication_token()

    client = TestApp(SessionMiddleware(application))
    client.get("/")

    assert "not from here" in client.post("/")
