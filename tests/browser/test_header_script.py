"""The script that docs/carriers/header.md prints, in a real browser, with a second origin that
would like to have its id, or to plant one."""

import re
from pathlib import Path

import pytest
from browser.sites import Site
from realservers.chromium import Chromium

from nocookie import SessionMiddleware, session

pytestmark = pytest.mark.server

PAGE = Path(__file__).parents[2] / "docs" / "carriers" / "header.md"
(SCRIPT,) = re.findall(r"```javascript\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
PLANTED = "P" * 42 + "A"


def greedy(environ, start_response):
    """Takes every header of every origin, and answers with an id of its own."""
    allow = [
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Headers", "X-Session-Id"),
        ("Access-Control-Expose-Headers", "X-Session-Id"),
    ]
    start_response("200 OK", [*allow, ("X-Session-Id", PLANTED)])
    return [b"mine"]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One that may keep something: where cookies are blocked, so is `sessionStorage`."""
    with Chromium(tmp_path_factory.mktemp("chromium"), cookies=True) as browser:
        yield browser


@pytest.fixture
def other():
    with Site(greedy) as site:
        yield site


class Calls:
    def __init__(self, chromium, script, other):
        def application(environ, start_response):
            if environ["PATH_INFO"] == "/away":
                start_response("307 Temporary Redirect", [("Location", other.origin + "/taken")])
                return [b""]
            if environ["PATH_INFO"] == "/page":
                start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
                return [f"<!doctype html><script>{script}</script>".encode()]
            session["n"] = session.get("n", 0) + 1
            session.save()
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(session["n"]).encode()]

        self.driver = chromium.driver
        self.site = Site(SessionMiddleware(application, use_cookies=False))

    def __enter__(self):
        self.site.__enter__()
        self.driver.get(self.site.origin + "/page")
        return self

    def __exit__(self, *error):
        self.site.__exit__(*error)

    def call(self, path):
        """Return what the script's `call` came to."""
        return self.driver.execute_async_script(
            """const [path, done] = arguments;
            call(path).then((answer) => answer.text()).then(done, (error) => done(error.name))""",
            path,
        )

    @property
    def id(self):
        return self.driver.execute_script("return sessionStorage.getItem('session')")


def test_the_script_keeps_its_session(chromium, other):
    with Calls(chromium, SCRIPT, other) as page:
        assert [page.call("/api"), page.call("api?x=1"), page.call("/api")] == ["1", "2", "3"]


def test_no_other_origin_is_told_the_id_or_believed(chromium, other):
    with Calls(chromium, SCRIPT, other) as page:
        page.call("/api")
        id = page.id
        for path in ("/away", other.origin + "/asked", other.origin.removeprefix("http:") + "/x"):
            assert page.call(path) == "TypeError"
        assert page.id == id
        assert page.call("/api") == "2"
    assert not list(other.recorder.with_an_id(id))


def test_a_script_that_follows_redirects_tells_it_and_is_told_another(chromium, other):
    """So the test above can fail."""
    with Calls(chromium, SCRIPT.replace(', redirect: "error"', ""), other) as page:
        page.call("/api")
        id = page.id
        assert page.call("/away") == "mine"
        assert page.id == PLANTED
    assert list(other.recorder.with_an_id(id))


def allowing(origin, application):
    """CORS outside, as docs/cors.md has it."""

    def allow(environ, start_response):
        def start(status, headers, *rest):
            return start_response(
                status, [*headers, ("Access-Control-Allow-Origin", origin())], *rest
            )

        return application(environ, start)

    return allow


@pytest.mark.parametrize("outside", [True, False])
def test_a_script_of_another_origin_reads_our_answers_if_cors_is_outside(chromium, outside):
    def api(environ, start_response):
        session["n"]
        raise AssertionError("there is a session")

    def page(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<!doctype html>"]

    with Site(page) as app:
        if outside:
            site = allowing(lambda: app.origin, SessionMiddleware(api, on_unknown="error"))
        else:
            site = SessionMiddleware(allowing(lambda: app.origin, api), on_unknown="error")
        with Site(site) as other:
            chromium.driver.get(app.origin + "/")
            found = chromium.driver.execute_async_script(
                """const [url, done] = arguments;
                fetch(url).then((answer) => answer.json())
                    .then((said) => done(said.error), (error) => done(error.name))""",
                other.origin + "/api",
            )
    assert found == ("session_required" if outside else "TypeError")
