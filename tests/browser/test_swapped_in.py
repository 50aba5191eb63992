"""Pages that a script swaps in, as htmx and Turbo do: with all on them at once that may tell
another origin of an id, none is told."""

import shutil
import subprocess

import pytest
from browser.sites import Site
from browser.test_walk import Visit
from browser.test_ways_out import rest
from realservers import missing
from realservers.chromium import Chromium

from nocookie import PathParam, PathSegment, Query, SessionMiddleware, session
from nocookie.html import HtmlRewriter

pytestmark = pytest.mark.server

SCRIPTS = {
    "htmx": ("htmx.org", "dist/htmx.min.js"),
    "turbo": ("@hotwired/turbo", "dist/turbo.es2017-umd.js"),
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One that may keep something: where cookies are blocked, so is what these scripts store."""
    with Chromium(tmp_path_factory.mktemp("chromium"), cookies=True) as browser:
        yield browser


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """The folder with the packages of npm, fetched by the tests."""
    folder = tmp_path_factory.mktemp("npm")
    names = [name for name, _ in SCRIPTS.values()]
    how = f"npm, and a registry with {' and '.join(names)}"
    if shutil.which("npm") is None:
        missing("npm", how)
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]
    done = subprocess.run(
        [*command, str(folder), *names], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        missing("htmx and Turbo", how)
    return folder / "node_modules"


HEAD = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Link", "<{}/preload.png>; rel=preload; as=image; referrerpolicy=unsafe-url"),
    ("Content-Security-Policy-Report-Only", "img-src 'none'; report-uri {}/csp"),
]
#: What every page has. `{}` is the other origin. htmx up to 2 inherits by itself, 4 if it is told.
PAGE = """<!doctype html><html><head><title>t</title><script src="/script.js"></script>
<style>h1 { background: url("{}/style.png" referrer-policy(unsafe-url)) }</style>
<meta name="referrer" content="unsafe-url"></head><body hx-boost:inherited="true" hx-boost="true">
<h1>VISITS</h1>
<a id="next" href="/next">next</a> <a id="away" href="{}/link" referrerpolicy="unsafe-url">away</a>
<a id="ping" href="/next" ping="{}/ping">ping</a>
<img src="{}/image.png" referrerpolicy="no-referrer-when-downgrade">
<p style='background: url("{}/attribute.png" referrer-policy(unsafe-url))'>p</p>
<iframe srcdoc="<img src={}/srcdoc.png referrerpolicy=unsafe-url>"></iframe>
<iframe src="{}/frame" referrerpolicy="unsafe-url"></iframe>
<form action="{}/form"><div><button id="theirs">theirs</button></form>
<table><form action="/found"><tr><td><input name="q"><button>ours</button></tr></form></table>
</body></html>"""


class Walk:
    def __init__(self, chromium, elsewhere, packages, script, find_id):
        name, path = SCRIPTS[script]
        source = (packages / name / path).read_bytes()

        def application(environ, start_response):
            if environ["PATH_INFO"] == "/script.js":
                start_response("200 OK", [("Content-Type", "text/javascript")])
                return [source]
            session["visits"] = session.get("visits", 0) + 1
            session.save()
            there = elsewhere.origin
            start_response("200 OK", [(name, value.replace("{}", there)) for name, value in HEAD])
            return [PAGE.replace("{}", there).replace("VISITS", str(session["visits"])).encode()]

        self.elsewhere = elsewhere
        self.site = Site(
            SessionMiddleware(application, use_cookies=False, find_id=find_id, rewrite="html")
        )
        self.visit = Visit(chromium, self.site, None)

    def __enter__(self):
        self.site.__enter__()
        self.visit.start("/")
        self.seen("1")
        return self

    def __exit__(self, *error):
        self.site.__exit__(*error)

    def seen(self, heading):
        find = self.visit.chromium.wait
        find(lambda driver: driver.find_element("tag name", "h1").text == heading, heading)

    def click(self, id, heading):
        # By a script, as an image may be in the way of the mouse.
        driver = self.visit.driver
        driver.execute_script("document.getElementById(arguments[0]).click()", id)
        self.seen(heading)

    def go_round(self):
        """Go on by links that the script follows, leave by the other's form, and by a link."""
        self.visit.driver.execute_script("window.isTheSame = true")
        self.click("next", "2")
        self.click("next", "3")
        assert self.visit.driver.execute_script("return window.isTheSame"), "nothing was swapped"
        rest(self.visit)
        self.click("theirs", "The partner's page")
        self.visit.driver.back()
        self.visit.chromium.wait(lambda driver: driver.find_element("id", "away"))
        self.click("away", "The partner's page")
        return [r.address for r in self.elsewhere.recorder.with_an_id(*self.visit.ids)]


@pytest.mark.parametrize("find_id", [Query(), PathSegment(), PathParam()], ids=repr)
@pytest.mark.parametrize("script", SCRIPTS)
def test_no_request_to_another_origin_has_the_id(chromium, elsewhere, packages, script, find_id):
    with Walk(chromium, elsewhere, packages, script, find_id) as walk:
        assert walk.go_round() == []
    asked = {address.partition("?")[0] for address in elsewhere.recorder.addresses}
    assert {"/style.png", "/image.png", "/srcdoc.png", "/frame", "/form", "/link"} <= asked
    assert len(walk.visit.ids) == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_field_in_a_form_that_is_moved_into_another_would_tell_it(
    chromium, elsewhere, packages, script, monkeypatch
):
    """So the test above can fail."""
    monkeypatch.setattr(HtmlRewriter, "_is_inside_another", property(lambda self: False, print))
    monkeypatch.setattr(HtmlRewriter, "_lose_form", lambda self: None)
    with Walk(chromium, elsewhere, packages, script, Query()) as walk:
        told = walk.go_round()
    assert [address for address in told if address.startswith("/form?")]
