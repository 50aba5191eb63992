"""Every way that a browser has to tell another origin the address of a page, in a real one: none
tells an id where pages are rewritten. Where a page goes out as it is, some do, so each test can fail.
"""

import pytest
from browser.sites import Site
from browser.test_walk import Visit

from nocookie import PathParam, PathSegment, Query, SessionMiddleware, session

pytestmark = pytest.mark.server

CARRIERS = [Query(), PathSegment(), PathParam()]
HTML = [("Content-Type", "text/html; charset=utf-8")]


class Page:
    """A page of an application of ours, whose second visit has the id in its address. `{}` in its
    head and its markup is the other origin, `{own}` its own."""

    def __init__(self, chromium, elsewhere, find_id, rewrite="html", **options):
        self.chromium, self.elsewhere = chromium, elsewhere
        self.options = {"find_id": find_id, "rewrite": rewrite, **options}
        self.own = []

    def visit(self, markup, headers=(), until=None):
        """Show the page, wait for what it does, and leave for the other origin. Return what that
        was told with an id in it."""
        there = self.elsewhere.origin

        def application(environ, start_response):
            own = f"http://{environ['HTTP_HOST']}"
            if environ["PATH_INFO"] != "/":
                start_response("200 OK", HTML)
                return [b"<!doctype html><h1>own</h1>"]
            session["visits"] = session.get("visits", 0) + 1
            session.save()
            head = [(name, value.replace("{}", there)) for name, value in headers]
            start_response("200 OK", [*HTML, *head])
            page = f"<!doctype html><h1>{session['visits']}</h1>" 
            page += markup.replace("{}", there).replace("{own}", own)
            links = f'<a href="{session.url("/")}">again</a> <a href="{there}/last">last</a>'
            return [(page + links).encode()]

        with Site(SessionMiddleware(application, use_cookies=False, **self.options)) as site:
            visit = Visit(self.chromium, site, None)
            # By hand: a base may lead the link that says "again" astray.
            visit.start("/")
            again = visit.driver.find_element("link text", "again").get_attribute("href")
            if not again.startswith(site.origin):
                again = site.origin + again[len(there) :]
            visit.leave(lambda: visit.driver.get(again), to="2")
            if until is not None:
                until(visit)
            visit.leave(lambda: visit.driver.get(there + "/last"), to="The partner's page")
            self.own = site.recorder.requests
        assert visit.ids
        return [r.address for r in self.elsewhere.recorder.with_an_id(*visit.ids)]

    def asked_more_than(self, count):
        """Return what waits until the other origin has been asked for that many things and more."""
        requests = self.elsewhere.recorder.requests
        return lambda visit: self.chromium.wait(lambda driver: len(requests) > count)


@pytest.fixture(params=CARRIERS, ids=repr)
def page(request, chromium, elsewhere):
    return Page(chromium, elsewhere, request.param)


# -- a base of another origin --------------------------------------------------------------------


def test_a_raw_nul_before_an_own_url_below_a_foreign_base_tells_the_base_nothing(page):
    """The frame is loaded without a click: by the base's site."""
    frame = '<iframe src="\0{own}/x"></iframe>'
    assert page.visit(f'<base href="{{}}/">{frame}', until=page.asked_more_than(0)) == []


