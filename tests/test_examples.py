"""Every program in examples/ does what its first lines say, imported and run by name."""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import xmlrpc.client
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from babel.messages.pofile import read_po
from helpers import RECIPE
from paste.deploy import loadapp
from sqlalchemy.event import listen
from webob import Request
from webtest import TestApp

from nocookie import StoreError, cli
from nocookie.stores import close_all

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
#: Each example has a test below whose name starts with test_<example>.
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
SERVED = [name for name in NAMES if name not in ("header_client", "xmlrpc_client")]
#: What an example answers to GET / from nobody in particular, if it is not 200.
FIRST_ANSWER = {"gateway": 403, "header_api": 404, "mapped_objects": 404}
LONGER_THAN_A_START_TAKES = 60


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Import an example by its name; the data that it makes goes into the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_DIR", raising=False)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        # What is pickled is found by the name of its module.
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    yield load
    close_all()


@contextlib.contextmanager
def serving(application):
    """Serve an application on a free port, as `http://127.0.0.1:<port>`."""

    class Quiet(WSGIRequestHandler):
        def log_message(self, format, *args):
            pass

    with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# -- all of them ---------------------------------------------------------------------------------


def test_every_example_has_a_test():
    tests = [name for name in globals() if name.startswith("test_")]

    assert [n for n in NAMES if not any(test.startswith(f"test_{n}_") for test in tests)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_example_says_what_it_shows_and_how_to_run_it(name):
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")

    assert text.startswith('"""')
    assert f"    python examples/{name}.py" in text.split('"""')[1]
    assert text.count("\n") <= 120


@pytest.mark.parametrize("name", SERVED)
def test_the_example_runs_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PORT", "0")
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    )
    watchdog = threading.Timer(LONGER_THAN_A_START_TAKES, process.kill)
    watchdog.start()
    try:
        url = process.stdout.readline().strip()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=LONGER_THAN_A_START_TAKES) as response:
                status = response.status
        except urllib.error.HTTPError as error:
            with error:
                status = error.code
    finally:
        watchdog.cancel()
        watchdog.join()
        process.kill()
        process.communicate()

    assert status == FIRST_ANSWER.get(name, 200)


# -- one_line ------------------------------------------------------------------------------------


def test_one_line_counts_the_visits_of_each_client(load):
    app = TestApp(load("one_line").application)

    first = app.get("/")
    again = app.get("/", headers={"X-Session-Id": first.headers["X-Session-Id"]})

    assert (first.text, again.text, app.get("/").text) == ("visit 1\n", "visit 2\n", "visit 1\n")
    assert "X-Session-Id" not in again.headers


# -- header_api and header_client ----------------------------------------------------------------


def test_header_api_keeps_a_list_for_who_is_logged_in(load):
    app = TestApp(load("header_api").application)
    app.post_json("/items", {"item": "milk"}, status=401)

    id = app.post_json("/login", {"user": "ada"}).headers["X-Session-Id"]
    as_ada = {"X-Session-Id": id}
    app.post_json("/items", {"item": "milk"}, headers=as_ada)
    seen = app.get("/items", headers=as_ada).json

    assert seen == {"user": "ada", "items": ["milk"]}


def test_header_api_gives_a_fresh_id_at_every_login(load):
    app = TestApp(load("header_api").application)
    old = app.post_json("/login", {"user": "ada"}).headers["X-Session-Id"]

    answer = app.post_json("/login", {"user": "eve"}, headers={"X-Session-Id": old})

    assert answer.headers["X-Session-Id"] != old
    assert app.get("/items", headers={"X-Session-Id": old}).json["user"] is None


def test_header_api_forgets_who_logged_out(load):
    app = TestApp(load("header_api").application)
    as_ada = {"X-Session-Id": app.post_json("/login", {"user": "ada"}).headers["X-Session-Id"]}

    app.post("/logout", headers=as_ada)

    assert app.get("/items", headers=as_ada).json == {"user": None, "items": []}


def test_header_api_refuses_a_body_without_the_text(load):
    app = TestApp(load("header_api").application)

    for body in (b"", b"{", b"[]", b'{"user": 1}'):
        answer = app.post("/login", body, content_type="application/json", status=400)
        assert "X-Session-Id" not in answer.headers


def test_header_client_uses_the_api_from_login_to_logout(load, capsys):
    with serving(load("header_api").application) as url:
        load("header_client").main(url + "/")

    assert capsys.readouterr().out.splitlines() == [
        "POST /login {'user': 'ada'}",
        "POST /items {'user': 'ada', 'items': ['milk']}",
        "POST /items {'user': 'ada', 'items': ['milk', 'bread']}",
        "GET /items {'user': 'ada', 'items': ['milk', 'bread']}",
        "POST /logout {'user': None}",
        "GET /items {'user': None, 'items': []}",
    ]


def test_header_client_takes_over_a_fresh_id(load):
    module = load("header_client")
    with serving(load("header_api").application) as url, module.client() as api:
        ids = api.adapters["http://"].ids
        api.post(f"{url}/login", json={"user": "ada"})
        (before,) = ids.values()
        api.post(f"{url}/login", json={"user": "ada"})
        (after,) = ids.values()

        assert before != after
        assert api.get(f"{url}/items").json()["user"] == "ada"


def test_header_client_sends_no_id_to_another_origin(load):
    got = []

    def other(environ, start_response):
        got.append(environ.get("HTTP_X_SESSION_ID"))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"the other one"]

    module = load("header_client")
    with serving(other) as there, contextlib.ExitStack() as stack:

        def redirecting(environ, start_response):
            if environ["PATH_INFO"] == "/away":
                start_response("307 Temporary Redirect", [("Location", f"{there}/")])
                return []
            if environ["PATH_INFO"] == "/back":
                start_response("307 Temporary Redirect", [("Location", "/items")])
                return []
            return api_application(environ, start_response)

        api_application = load("header_api").application
        url = stack.enter_context(serving(redirecting))
        api = stack.enter_context(module.client())
        api.post(f"{url}/login", json={"user": "ada"})

        assert api.get(there).text == "the other one"
        assert api.get(f"{url}/away").text == "the other one"
        assert api.get(f"{there}/", headers={"X-Session-Id": "by hand"}).text == "the other one"
        assert api.get(f"{url}/back").json()["user"] == "ada"

    assert got == [None, None, None]


# -- query_id ------------------------------------------------------------------------------------


def test_query_id_keeps_the_session_by_links(load):
    app = TestApp(load("query_id").application)
    page = app.get("/")
    assert "Set-Cookie" not in page.headers

    form = page.form
    form["name"] = "<ada>"
    page = form.submit().follow()
    page = page.form.submit().follow()

    assert "&lt;ada&gt; clicked 2 times" in page
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["Cache-Control"] == "no-store"


def test_query_id_gives_each_frame_a_session_of_its_own(load):
    app = TestApp(load("query_id").application)

    actions = {app.get("/").form.action for _ in range(2)}

    assert len(actions) == 2


def test_query_id_takes_a_fresh_id_with_the_name(load):
    app = TestApp(load("query_id").application)
    before = app.get("/").form
    before["name"] = "ada"

    after = before.submit().location

    assert re.search("sid=[^&]+", after)[0] not in before.action
    assert "ada" not in app.get(before.action)


# -- find_id_callback ----------------------------------------------------------------------------


def test_find_id_callback_knows_the_conversation_again(load):
    app = TestApp(load("find_id_callback").application)

    first = app.post_json("/", {"say": "ada"})
    again = app.post_json("/", {"say": "?", "conversation": first.json["conversation"]})

    assert first.json["answer"] == "Hello, ada!"
    assert again.json == {"answer": "You are ada."}
    assert "X-Session-Id" not in first.headers


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"conversation": "../x"}', b"\xff"])
def test_find_id_callback_takes_anything_a_client_sends(load, body):
    app = TestApp(load("find_id_callback").application)

    assert app.post("/", body).json == {"answer": "What is your name?"}


# -- xmlrpc_client -------------------------------------------------------------------------------


def test_xmlrpc_client_runs_by_its_name(tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "xmlrpc_client.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONGER_THAN_A_START_TAKES,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "ada: Hello, ada. 1 2 ada",
        "bob: None 1 None",
        "ada left: None 2",
    ]


def test_xmlrpc_client_calls_a_server_that_is_there(load, capsys):
    module = load("xmlrpc_client")
    with serving(module.application) as url:
        module.talk(url + "/")

    assert capsys.readouterr().out.startswith("ada: Hello, ada. 1 2 ada\n")


def test_xmlrpc_client_takes_over_a_fresh_id_and_sends_it(load):
    module = load("xmlrpc_client")
    transport = module.SessionTransport()
    with (
        serving(module.application) as url,
        xmlrpc.client.ServerProxy(url, transport=transport) as server,
    ):
        assert server.count() == 1
        before = transport.id
        server.enter("ada")
        after = transport.id
        assert server.count() == 2

        assert before != after == transport.id


def test_xmlrpc_client_tells_mistakes_from_failures(load, monkeypatch):
    module = load("xmlrpc_client")
    with serving(module.application) as url, module.client(url) as server:
        for call in (server.nothing, lambda: server.enter(), lambda: server.count(1)):
            with pytest.raises(xmlrpc.client.Fault, match="no such procedure, or other arguments"):
                call()

        def down(*args):
            raise StoreError("out of order")

        server.count()
        monkeypatch.setattr(module.application.manager.backend, "load", down)
        with pytest.raises(xmlrpc.client.ProtocolError) as caught:
            server.who()

    assert caught.value.errcode == 503


@pytest.mark.parametrize("body", [b"", b"<", b"<a/>", b"x" * 70000])
def test_xmlrpc_client_server_refuses_what_is_no_call(load, body):
    app = TestApp(load("xmlrpc_client").application)

    assert "X-Session-Id" not in app.post("/", body, status=400).headers


# -- gateway -------------------------------------------------------------------------------------


class Telephone:
    """Says something through the gateway, and reads what it shows."""

    def __init__(self, module, id="4711"):
        self.module = module
        self.app = TestApp(module.application)
        self.id = id

    def say(self, text="", status=200, **changes):
        fields = {"sessionId": self.id, "text": text}
        body = changes.get("signed_body") or urllib.parse.urlencode(fields).encode()
        when = changes.get("when") or str(int(time.time()))
        sign = changes.get("signature") or self.module.signature(when, body)
        headers = {"X-Gateway-Time": when, "X-Gateway-Signature": sign}
        return self.app.post("/", changes.get("body") or body, headers, status=status).text


def test_gateway_leads_through_the_menu(load):
    phone = Telephone(load("gateway"))

    assert phone.say() == "CON 1 Balance\n2 Top up"
    assert phone.say("2") == "CON How much?"
    assert phone.say("a lot") == phone.say("\u00b2") == "CON A number up to 100, please."
    assert phone.say("50") == "CON 50, really?\n1 Yes\n2 No"
    assert phone.say("1") == "END Topped up by 50."
    assert phone.say("1") == "END Your balance is 12.50."


def test_gateway_keeps_dialogues_apart(load):
    module = load("gateway")
    one, two = Telephone(module, "1"), Telephone(module, "2")

    one.say("2")

    assert two.say("50") == "CON 1 Balance\n2 Top up"
    assert one.say("50").startswith("CON 50, really?")


@pytest.mark.parametrize(
    "forged",
    [
        {"signature": "0" * 64},
        {"signature": "\xff" * 64},
        {"body": b"sessionId=4711&text=50"},
        {"when": "1"},
        {"when": "9" * 5000},
        {"when": "now"},
        {"signed_body": b"text=50"},
        {"signed_body": b"sessionId=4711&sessionId=4712&text=50"},
        {"signed_body": b"sessionId=" + b"4" * 300},
        {"signed_body": b"sessionId=4711&text=" + b"5" * 5000},
    ],
    ids=str,
)
def test_gateway_believes_no_id_without_its_signature(load, forged):
    phone = Telephone(load("gateway"))
    phone.say("2")

    assert phone.say(status=403, **forged) == "Not from the gateway.\n"
    assert phone.say("50").startswith("CON 50, really?")


def test_gateway_refuses_who_signs_nothing(load):
    app = TestApp(load("gateway").application)

    answer = app.post("/", {"sessionId": "4711", "text": "2"}, status=403)

    assert "X-Session-Id" not in answer.headers


def test_gateway_dials_by_itself(load, capsys):
    module = load("gateway")
    with serving(module.application) as url:
        module.dial(url, ["2", "50", "2"])

    assert capsys.readouterr().out.endswith("2\nEND Nothing was done.\n")


# -- login ---------------------------------------------------------------------------------------


@pytest.fixture(params=["cookies", "query"])
def login(load, monkeypatch, request):
    """A visitor of the login example, in either mode."""
    monkeypatch.setenv("COOKIES", "1" if request.param == "cookies" else "")
    client = TestApp(load("login").application)
    yield client
    assert bool(client.cookies) == (request.param == "cookies")


def log_in(client, name="ada", password="correct horse"):
    """Return the answer to the filled-in form, which sends the visitor on."""
    form = client.get("/login").form
    form["name"], form["password"] = name, password
    return form.submit(status=303)


def with_the_id_of_before(client, url, cookies):
    """Ask as somebody who kept the old id."""
    old = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return TestApp(client.app).get(url, headers={"Cookie": old})


def test_login_asks_who_is_there_before_it_shows_anything(login):
    assert "Please log in." in login.get("/", status=303).follow()


def test_login_lets_in_and_out_again(login):
    answer = log_in(login)
    home = answer.follow()
    assert "Welcome, ada." in home
    assert "You are ada." in home
    assert "Welcome" not in answer.follow()

    assert "Goodbye." in home.form.submit().follow()
    assert "Please log in." in answer.follow().follow()


def test_login_says_when_it_is_wrong_and_not_what(login):
    for name, password in [("ada", "wrong"), ("eve", "wrong"), ("eve", ""), ("", "")]:
        assert "Wrong name or password." in log_in(login, name, password).follow()


def test_login_takes_a_new_id_and_the_old_one_opens_nothing(login):
    form = login.get("/login").form
    url, cookies = form.action.replace("/login", "/"), dict(login.cookies)
    form["name"], form["password"] = "ada", "correct horse"
    assert "You are ada." in form.submit().follow()

    assert with_the_id_of_before(login, url, cookies).status_int == 303


def test_login_out_empties_the_session_and_the_old_id_opens_nothing(login):
    answer = log_in(login)
    url, cookies = answer.location, dict(login.cookies)
    assert with_the_id_of_before(login, url, cookies).status_int == 200
    answer.follow().form.submit()

    assert with_the_id_of_before(login, url, cookies).status_int == 303


def test_login_acts_on_no_form_of_another_site(login):
    answer = log_in(login)
    home = answer.follow()

    login.post(home.form.action, {}, status=403)

    assert "You are ada." in answer.follow()


def test_login_page_that_needs_no_session_has_none(login):
    log_in(login)

    about = login.get("/about")

    assert {"Vary", "Set-Cookie"} & set(about.headers) == set()
    assert "sid=" not in about.text


# -- mapped_objects ------------------------------------------------------------------------------


@pytest.fixture
def mapped(load):
    """The example, and a client of it."""
    module = load("mapped_objects")
    yield module, TestApp(module.application)
    module.engine.dispose()


def test_mapped_objects_are_taken_along_and_merged_back(mapped):
    module, app = mapped
    chosen = app.post("/choose?id=1")
    as_before = {"X-Session-Id": chosen.headers["X-Session-Id"]}

    assert chosen.text == app.get("/", headers=as_before).text == "Ada, London\n"
    assert app.post("/move?city=Turin", headers=as_before).text == "Ada, Turin\n"
    assert app.get("/", headers=as_before).text == "Ada, Turin\n"
    assert app.post("/move?city=Paris", headers=as_before).text == "Ada, Paris\n"
    with module.DBSession() as db:
        assert db.get(module.Address, 1).city == "Paris"


def test_mapped_objects_are_read_without_the_database(mapped):
    module, app = mapped
    as_before = {"X-Session-Id": app.post("/choose?id=1").headers["X-Session-Id"]}
    asked = []
    listen(module.engine, "before_cursor_execute", lambda *about: asked.append(about))

    assert app.get("/", headers=as_before).text == "Ada, London\n"
    assert asked == []


def test_mapped_objects_that_others_changed_are_not_overwritten(mapped):
    module, app = mapped
    as_before = {"X-Session-Id": app.post("/choose?id=1").headers["X-Session-Id"]}
    with module.DBSession.begin() as db:
        db.get(module.Address, 1).city = "Cambridge"

    app.post("/move?city=Turin", headers=as_before, status=409)

    with module.DBSession() as db:
        assert db.get(module.Address, 1).city == "Cambridge"
    assert app.post("/choose?id=1", headers=as_before).text == "Ada, Cambridge\n"


def test_mapped_objects_that_were_deleted_are_not_made_anew(mapped):
    module, app = mapped
    as_before = {"X-Session-Id": app.post("/choose?id=1").headers["X-Session-Id"]}
    with module.DBSession.begin() as db:
        db.delete(db.get(module.Address, 1))

    app.post("/move?city=Turin", headers=as_before, status=410)

    app.get("/", headers=as_before, status=404)
    with module.DBSession() as db:
        assert db.get(module.Address, 1) is None


# -- cookie_session ------------------------------------------------------------------------------


def test_cookie_session_keeps_the_cart_with_its_visitor(load, monkeypatch):
    monkeypatch.setenv("SECRET", "k8Jq0x_Wz3mB7vCe9Ls")
    app = TestApp(load("cookie_session").application)

    app.post("/", {"item": "tea"})
    first = app.post("/", {"item": "milk"})

    assert app.get("/").text == "tea\nmilk\n"
    assert "tea" not in first.headers["Set-Cookie"]
    again = TestApp(load("cookie_session").application)  # another process, with the same secret
    assert again.get("/", headers={"Cookie": first.headers["Set-Cookie"]}).text == "tea\nmilk\n"
    monkeypatch.setenv("SECRET", "another_Wz3mB7vCe9Ls")
    other = TestApp(load("cookie_session").application)
    assert other.get("/", headers={"Cookie": first.headers["Set-Cookie"]}).text == "empty\n"


def test_cookie_session_is_for_every_host_below_its_domain(load, monkeypatch):
    monkeypatch.setenv("COOKIE_DOMAIN", ".example.com")
    app = TestApp(load("cookie_session").application, {"HTTP_HOST": "www.example.com"})
    cookie = app.post("/", {"item": "tea"}).headers["Set-Cookie"]
    assert {"Domain=.example.com", "Max-Age=1209600"} <= set(cookie.split("; "))


def test_cookie_session_refuses_what_no_cookie_holds_and_empties_the_cart(load):
    app = TestApp(load("cookie_session").application)
    app.post("/", {"item": "tea"})

    assert app.post("/", {"item": "x" * 5000}, status=413).text == "The cart is full.\n"

    assert app.get("/").text == "tea\n"
    assert app.post("/", {"item": ""}).text == "empty\n"
    assert app.get("/").text == "empty\n"


# -- middleware_order ----------------------------------------------------------------------------


def test_middleware_order_shows_who_sees_the_session(load):
    app = TestApp(load("middleware_order").application)
    assert app.get("/me?name=ada").headers.getall("Seen-By") == ["below: ada", "above: no session"]
    assert app.get("/about").headers.getall("Seen-By") == ["below: not asked", "above: no session"]


def test_middleware_order_keeps_what_is_the_same_for_all_and_nothing_else(load):
    app = TestApp(load("middleware_order").application)
    assert ["X-Cache" in app.get("/about").headers for _ in range(3)] == [False, True, True]

    id = app.get("/me?name=ada").headers["X-Session-Id"]
    answers = [app.get("/me", headers=headers) for headers in ({"X-Session-Id": id}, {}) * 2]

    assert [answer.text for answer in answers] == ["ada\n", "stranger\n"] * 2
    assert not any("X-Cache" in answer.headers for answer in answers)
    assert id not in "".join(map(str, app.get("/me?name=ada").headers.items()))


# -- devices -------------------------------------------------------------------------------------


@pytest.fixture
def device(load):
    """`device(client)` is another browser, logged in as ada unless another name is given."""
    application = load("devices").application

    def device(client, name="ada", **fields):
        browser = TestApp(application, extra_environ={"HTTP_USER_AGENT": client})
        form = browser.get("/").form
        form["name"], form["password"] = name, "correct horse"
        for field, value in fields.items():
            form[field] = value
        form.submit(status=303)
        return browser

    return device


def test_devices_are_listed_for_their_owner_alone(device):
    phone, desk = device("Phone <1>"), device("Desk")
    device("Stranger", "eve")

    page = desk.get("/")
    assert "Phone &lt;1&gt;, last seen on" in page and "<b>This one</b>: Desk" in page
    assert "Stranger" not in page
    assert "<b>This one</b>: Phone &lt;1&gt;" in phone.get("/")


def test_devices_are_ended_one_by_one_or_all_but_this(device):
    phone, tablet, desk = device("Phone"), device("Tablet"), device("Desk")

    page = desk.get("/")
    (row,) = (row for row in page.html.find_all("li") if row.text.startswith("Phone"))
    fingerprint = row.find("input", {"name": "fingerprint"})["value"]
    (end,) = (
        form
        for form in page.forms.values()
        if form.action == "/end" and form["fingerprint"].value == fingerprint
    )
    end["password"] = "guess"
    assert end.submit(status=403)
    assert "You are ada." in phone.get("/")
    end["password"] = "correct horse"
    end.submit(status=303)
    assert "You are ada." not in phone.get("/")
    assert "You are ada." in tablet.get("/")

    (others,) = (form for form in desk.get("/").forms.values() if form.action == "/end-others")
    others["password"] = "correct horse"
    others.submit(status=303)
    assert "You are ada." not in tablet.get("/")
    assert "You are ada." in desk.get("/")


def test_devices_of_others_are_out_of_reach(device):
    eve, desk = device("Stranger", "eve"), device("Desk")
    device("Phone")
    (end,) = (form for form in desk.get("/").forms.values() if form.action == "/end")
    end["password"] = "correct horse"
    end["fingerprint"].force_value("0" * 10)
    end.submit(status=303)
    assert "You are eve." in eve.get("/")


def test_devices_may_be_remembered(device):
    device("Phone")
    device("Desk", remember=True)

    manager = sys.modules["example_devices"].application.manager
    lives = {one.client: one.expires - one.last_accessed for one in manager.sessions_of("ada")}
    assert (round(lives["Phone"]), round(lives["Desk"])) == (1800, 30 * 86400)


# -- configured ----------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A copy of the example, because it makes data beside its ini file."""
    folder = tmp_path / "configured"
    ignored = shutil.ignore_patterns("__pycache__", "data")
    shutil.copytree(EXAMPLES / "configured", folder, ignore=ignored)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("application", None)
    close_all()


def test_configured_keeps_sessions_as_the_ini_file_says(configured):
    app = TestApp(loadapp(f"config:{configured / 'development.ini'}"))
    first = app.get("/")

    assert first.headers["Set-Cookie"].startswith("foo=")
    assert [app.get("/").text for _ in range(2)] == ["visit 2\n", "visit 3\n"]
    assert os.listdir(configured / "data") == ["sessions"]


def test_configured_is_served_by_the_file_that_make_config_writes(configured, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        cli.main(["make-config", "--no-cookies", str(configured / "production.ini")])
    assert stop.value.code == 0
    text = (configured / "production.ini").read_text()
    text = text.replace("use = egg:configured", "paste.app_factory = application:make_app")
    (configured / "production.ini").write_text(text)
    monkeypatch.setenv("INI", "production.ini")
    monkeypatch.setenv("PORT", "0")
    # The ini file imports it, and the folder of a script is not always where modules are found.
    monkeypatch.setenv("PYTHONPATH", str(configured))
    command = [sys.executable, "-W", "ignore", str(configured / "application.py")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            url = server.stdout.readline().strip()
            by_https = {"X-Forwarded-Proto": "https"}  # as the proxy in front says
            first = urllib.request.Request(url, headers=by_https)
            with urllib.request.urlopen(first, timeout=LONGER_THAN_A_START_TAKES) as answer:
                headers = {**by_https, "X-Session-Id": answer.headers["X-Session-Id"]}
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(url, timeout=30)
            with urllib.request.urlopen(
                urllib.request.Request(url, headers=headers), timeout=30
            ) as answer:
                assert answer.read() == b"visit 2\n"
        finally:
            server.terminate()


# -- languages -----------------------------------------------------------------------------------


@pytest.fixture
def languages(load):
    return load("languages/application").application


def choose(app, lang):
    answer = TestApp(app).post("/language", {"lang": lang})
    return {"X-Session-Id": answer.headers["X-Session-Id"]}


def test_languages_stay_as_they_were_chosen_and_need_no_cookie(languages):
    app = TestApp(languages)
    as_before = choose(languages, "pl")

    assert app.get("/?letters=1", headers=as_before).text == "Dzie\u0144 dobry. Masz 1 list.\n"
    assert app.get("/?letters=3", headers=as_before).text == "Dzie\u0144 dobry. Masz 3 listy.\n"
    answer = app.get("/?letters=5", headers={**as_before, "Accept-Language": "de"})
    assert answer.text == "Dzie\u0144 dobry. Masz 5 list\u00f3w.\n"
    assert answer.headers["Content-Language"] == "pl"
    assert app.cookies == {}


def test_languages_are_the_browsers_until_one_is_chosen(languages):
    app = TestApp(languages)

    answers = [
        app.get("/?letters=2", headers={"Accept-Language": wanted})
        for wanted in ("de-AT, en;q=0.5", "fr, pl;q=0.5", "fr", "")
    ]

    assert [answer.headers["Content-Language"] for answer in answers] == ["de", "pl", "en", "en"]
    assert answers[0].text == "Guten Morgen. Sie haben 2 Briefe.\n"
    assert answers[2].text == "Good morning. You have 2 letters.\n"
    for answer in answers:
        assert "X-Session-Id" not in answer.headers
        assert "Accept-Language" in answer.headers["Vary"]


def test_languages_that_there_are_none_of_are_refused(languages):
    for lang in ("fr", "", "../de"):
        answer = TestApp(languages).post("/language", {"lang": lang}, status=400)
        assert "X-Session-Id" not in answer.headers


def test_languages_of_one_thread_are_not_another_threads(languages):
    greetings = {"en": "Good morning.", "de": "Guten Morgen.", "pl": "Dzie\u0144 dobry."}
    together = threading.Barrier(len(greetings) * 3)
    wrong = []

    def visit(lang):
        as_before = choose(languages, lang)
        together.wait(10)
        texts = [TestApp(languages).get("/", headers=as_before).text for _ in range(50)]
        wrong.extend(text for text in texts if not text.startswith(greetings[lang]))

    threads = [threading.Thread(target=visit, args=[lang]) for lang in list(greetings) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_languages_have_a_translation_for_every_text():
    folder = EXAMPLES / "languages"
    program = (folder / "application.py").read_text("utf-8")
    texts = set(re.findall(r"gettext\(\"(.+?)\"", program)) | set(
        re.findall(r"\b_\('(.+?)'\)", program)
    )
    assert len(texts) == 3
    for path in folder.glob("*.po"):
        with path.open("rb") as file:
            catalogue = read_po(file)
        assert {m.id[0] if m.pluralizable else m.id for m in catalogue if m.id} == texts
        assert all(all([m.string] if isinstance(m.string, str) else m.string) for m in catalogue)
        assert not any(list(message.check(catalogue)) for message in catalogue)


# -- streaming -----------------------------------------------------------------------------------


@pytest.fixture
def stream(load, monkeypatch):
    monkeypatch.setenv("PAUSE", "0")
    return load("streaming").application


def test_streaming_saves_early_and_late(stream):
    app = TestApp(stream)

    first = app.get("/export")
    as_before = {"X-Session-Id": first.headers["X-Session-Id"]}
    app.get("/export", headers=as_before)

    assert first.text.splitlines()[0] == "export 1"
    assert app.get("/", headers=as_before).text == "begun 2, finished 2\n"


def test_streaming_counts_no_end_for_a_client_that_went_away(stream):
    app = TestApp(stream)
    as_before = {"X-Session-Id": app.get("/export").headers["X-Session-Id"]}

    request = Request.blank("/export", headers=as_before)
    body = stream(request.environ, lambda status, headers, exc_info=None: None)
    assert next(body) == b"export 2\n"
    body.close()

    assert app.get("/", headers=as_before).text == "begun 2, finished 1\n"


def test_streaming_says_what_came_too_late(stream, caplog):
    app = TestApp(stream)
    id = app.get("/export").headers["X-Session-Id"]
    caplog.clear()

    as_new = app.get("/too-late")
    as_known = app.get("/too-late", headers={"X-Session-Id": id})

    assert [record.event for record in caplog.records] == ["lost", "lost"]
    assert "X-Session-Id" not in {**as_new.headers, **as_known.headers}
    assert app.get("/", headers={"X-Session-Id": id}).text == "begun 1, finished 1\n"


# -- pylons_recipe -------------------------------------------------------------------------------

#: Without the import, which is the one line that changes, and the place where an example acts.
PUBLISHED = RECIPE.partition("\n\n")[2].removesuffix("    pass\n")


def test_pylons_recipe_is_the_published_one_word_for_word():
    text = (EXAMPLES / "pylons_recipe.py").read_text("utf-8")
    lines = [line.removeprefix("    ") for line in text.splitlines()]

    assert "\n" + PUBLISHED in "\n".join(lines)
    assert "\nfrom nocookie import Session as BeakerSession\n" in text


def test_pylons_recipe_keeps_the_session_by_the_link_it_gives(load):
    app = TestApp(load("pylons_recipe").application)

    first = app.get("/")
    link = re.search(r"Go on at (\S+)", first.text)[1]

    assert "You are new here." in first
    assert app.get(link).text == "You were here before; fred is 42.\n"
    assert app.get(link).text == "You were here before; fred is 42.\n"


@pytest.mark.parametrize("id", ["A" * 43, "x", "%ff", "../../etc/passwd", ""])
def test_pylons_recipe_adopts_no_id_that_is_not_ours(load, id):
    answer = TestApp(load("pylons_recipe").application).get(f"/?sid={id}")

    assert "You are new here." in answer
    assert not id or f"sid={id}\n" not in answer
