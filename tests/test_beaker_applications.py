"""Applications written for Beaker run after changing the import, with cookies and without.

The applications are in tests/beaker_applications/, and import Beaker. They run as they are, to show
that they are what they seem; then with nothing replaced in their text but what the name of the case
says.
"""

from pathlib import Path

import pytest
from tg import FullStackApplicationConfigurator, TGController, expose
from tg import session as tg_session
from webtest import TestApp

from nocookie.adapters.paste import SessionMiddleware
from nocookie.stores import close_all

HERE = Path(__file__).parent / "beaker_applications"

IMPORT = "from beaker.middleware import SessionMiddleware"
#: What is replaced in the text of an application, by what.
CHANGES = {
    "nothing": {},
    "the import": {IMPORT: "from nocookie.adapters.paste import SessionMiddleware"},
    "the import and the key": {
        IMPORT: "from nocookie import SessionMiddleware",
        ", options)": ', options, environ_key="beaker.session")',
    },
}
OURS = [change for change in CHANGES if change != "nothing"]

#: As people configure Beaker: all options in one dict, under its prefix.
OPTIONS = {
    "memory": {"session.type": "memory"},
    "file": {
        "session.type": "file",
        "session.data_dir": "./data",
        "session.cookie_expires": "300",
        "session.auto": "True",
    },
}


@pytest.fixture(params=["on_bottle", "on_turbogears"])
def build(request, tmp_path, monkeypatch):
    """Build the application with a change, and options for the session."""
    monkeypatch.chdir(tmp_path)

    def build(change, options):
        text = (HERE / f"{request.param}.py").read_text("utf-8")
        for old, new in CHANGES[change].items():
            assert text.count(old) == 1
            text = text.replace(old, new)
        names = {"__name__": request.param}
        exec(compile(text, request.param, "exec"), names)
        return names["application"](options)

    yield build
    close_all()


class Browser:
    """Keeps what it is told: cookies, and the header that an id comes in."""

    def __init__(self, app):
        self.client = TestApp(app)
        self.id = None

    def send(self, method, path, status=200, **fields):
        headers = {"X-Session-Id": self.id} if self.id else {}
        answer = getattr(self.client, method)(path, fields, headers, status=status)
        self.id = answer.headers.get("X-Session-Id", self.id)
        return answer

    def log_in(self):
        answer = self.send("post", "/login", 302, name="ada", password="lovelace")
        assert answer.location.endswith("/account")


def live(browser, stranger):
    """Use the application as its visitors do."""
    assert [browser.send("get", "/").json["visits"] for _ in range(3)] == [1, 2, 3]
    browser.send("get", "/account", 401)
    browser.send("post", "/login", 403, name="ada", password="babbage")
    browser.send("get", "/account", 401)
    browser.log_in()
    assert browser.send("get", "/").json == {"visits": 4, "user": "ada"}
    browser.send("post", "/notes", text="one")
    browser.send("post", "/notes", text="two")
    assert browser.send("get", "/account").json == {"user": "ada", "notes": ["one", "two"]}

    assert stranger.send("get", "/").json == {"visits": 1, "user": None}
    stranger.send("get", "/account", 401)

    browser.send("post", "/logout")
    browser.send("get", "/account", 401)
    assert browser.send("get", "/").json == {"visits": 1, "user": None}
    assert stranger.send("get", "/").json == {"visits": 2, "user": None}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_application_works_with_cookies(build, change, options):
    app = build(change, {"session.key": "shop", **OPTIONS[options]})
    browser = Browser(app)
    live(browser, Browser(app))
    assert browser.id is None
    assert list(browser.client.cookies) == ["shop"]


@pytest.mark.parametrize("change", OURS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("off", ["False", False])
def test_the_application_works_without_cookies(build, change, options, off):
    app = build(change, {"session.use_cookies": off, **OPTIONS[options]})
    browser = Browser(app)
    live(browser, Browser(app))
    assert len(browser.id) == 43
    assert not browser.client.cookies


def test_under_beaker_the_application_does_not_work_without_cookies(build):
    """What the change is for."""
    browser = Browser(build("nothing", {"session.use_cookies": False}))
    with pytest.raises(KeyError, match="set_cookie"):
        browser.send("get", "/")


@pytest.mark.parametrize("change", OURS)
def test_the_id_may_come_in_the_query_of_a_link(build, change):
    app = build(change, {"session.use_cookies": "False", "session.find_id": "query:sid"})
    id = TestApp(app).get("/").headers["X-Session-Id"]
    assert TestApp(app).get("/", {"sid": id}).json["visits"] == 2


@pytest.mark.parametrize("change", OURS)
@pytest.mark.parametrize("use_cookies", [True, False])
def test_after_logout_the_old_id_opens_nothing(build, change, use_cookies):
    app = build(change, {"session.use_cookies": use_cookies, "session.key": "shop"})
    browser, thief = Browser(app), Browser(app)
    browser.log_in()
    thief.id = browser.id
    for cookie in browser.client.cookiejar:
        thief.client.set_cookie(cookie.name, cookie.value)
    assert thief.send("get", "/account").json["user"] == "ada"
    browser.send("post", "/logout")
    thief.send("get", "/account", 401)


class Visits(TGController):
    @expose("json")
    def index(self):
        tg_session["visits"] = tg_session.get("visits", 0) + 1
        tg_session.save()
        return {"visits": tg_session["visits"]}


def test_the_full_configurator_of_turbogears_leaves_its_session_to_the_middleware():
    configurator = FullStackApplicationConfigurator()
    configurator.update_blueprint(
        {
            "root_controller": Visits(),
            "renderers": ["json"],
            "errorpage.enabled": False,
            "session.enabled": False,
        }
    )
    app = configurator.make_wsgi_app({}, {})
    browser = Browser(SessionMiddleware(app, {"session.use_cookies": "False"}))
    assert [browser.send("get", "/").json["visits"] for _ in range(3)] == [1, 2, 3]
    assert not browser.client.cookies
