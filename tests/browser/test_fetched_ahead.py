"""A page that Chromium has fetched ahead by speculation rules is the one that the click shows, with
no further request: what it saved has to be there, and its visitor has to stay logged in."""

import pytest
from browser.sites import Site
from realservers.chromium import Chromium

from nocookie import SessionMiddleware, session

pytestmark = pytest.mark.server

RULES = '{"%s":[{"source":"list","urls":["/form"],"eagerness":"immediate"}]}'
FORM = "<!DOCTYPE html><title>form</title><form method=post action=/sent><button id=b>send"


def application(environ, start_response):
    path = environ["PATH_INFO"]
    page = f"<!DOCTYPE html><title>{path}</title>"
    if path in ("/prefetch", "/prerender"):
        rules = RULES % path[1:]
        page += f"<script type=speculationrules>{rules}</script><a id=a href=/form>form</a>"
    elif path == "/form":
        session["form"] = "was shown"
        session.save()
        page = FORM
    elif path == "/sent":
        page += f"<p id=p>{session.get('form', 'never seen')}"
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [page.encode()]


@pytest.fixture
def with_cookies(tmp_path):
    with Chromium(tmp_path, cookies=True) as browser:
        yield browser


@pytest.mark.parametrize("how", ["prefetch", "prerender"])
def test_a_form_that_was_fetched_ahead_has_the_session_that_its_page_began(with_cookies, how):
    chromium = with_cookies
    with Site(SessionMiddleware(application, use_cookies=True)) as site:
        chromium.driver.get(f"{site.origin}/{how}")
        chromium.wait(lambda _: "/form" in site.recorder.addresses)
        [ahead] = [each for each in site.recorder.requests if each.address == "/form"]
        assert "prefetch" in ahead.headers["HTTP_SEC_PURPOSE"]
        chromium.driver.find_element("id", "a").click()
        chromium.wait(lambda driver: driver.title == "form")
        chromium.driver.find_element("id", "b").click()
        chromium.wait(lambda driver: driver.title == "/sent")
        assert chromium.driver.find_element("id", "p").text == "was shown"
        assert site.recorder.addresses.count("/form") == 1
