"""How a browser may tell another origin the address of a page, in a real browser. No id
is told where pages are rewritten; where they go out as they are it is, so each test can fail.
"""

import pytest
from browser.sites import Site
from browser.test_walk import Visit
from test_links import SURE, UNSURE

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

    def visit(self, markup, headers=(), until=None, outside=False):
        """Show the page, wait for what it does, and leave for the other origin. Return what that
        was told with an id in it. With *outside* the headers are set behind the middleware's
        back."""
        there = self.elsewhere.origin

        head = [(name, value.replace("{}", there)) for name, value in headers]

        def application(environ, start_response):
            own = f"http://{environ['HTTP_HOST']}"
            if environ["PATH_INFO"] != "/":
                start_response("200 OK", HTML)
                return [b"<!doctype html><h1>own</h1>"]
            session["visits"] = session.get("visits", 0) + 1
            session.save()
            start_response("200 OK", [*HTML, *([] if outside else head)])
            links = f'<a href="{session.url("/")}">again</a>'
            page = f"<!doctype html><h1>{session['visits']}</h1>{links}"
            return [(page + markup.replace("{}", there).replace("{own}", own)).encode()]

        app = with_head = SessionMiddleware(application, use_cookies=False, **self.options)
        if outside:

            def with_head(environ, start_response):
                def start(status, given, exc_info=None):
                    return start_response(status, [*given, *head], exc_info)

                return app(environ, start)

        with Site(with_head) as site:
            visit = Visit(self.chromium, site, None)
            visit.start("/")
            again = visit.driver.find_element("link text", "again").get_dom_attribute("href")
            visit.leave(lambda: visit.driver.get(site.origin + again), to="2")
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


# -- reports -------------------------------------------------------------------------------------

#: By CSP's own directive. Endpoints of the Reporting API are asked by HTTPS only: what becomes of
#: those is in tests/test_links.py.
VIOLATION = '<img src="/forbidden.png">'
REPORTS = {
    "report-uri": [("Content-Security-Policy", "img-src 'none'; report-uri {}/csp")],
    "report only": [("Content-Security-Policy-Report-Only", "img-src 'none'; report-uri {}/csp")],
}


def reports(page, what, outside):
    until = page.asked_more_than(0) if outside else rest
    return page.visit(VIOLATION, REPORTS[what], until, outside)


def rest(visit):
    """Let a browser that has nothing to send have the time to send it."""
    visit.chromium.wait(lambda driver: driver.execute_script(WAITED))


#: True a second after it was asked first.
WAITED = """
if (!window.asked) window.asked = performance.now();
return performance.now() - window.asked > 1000"""


@pytest.mark.parametrize("what", REPORTS)
def test_a_report_goes_to_no_other_origin(page, what):
    assert reports(page, what, outside=False) == []


@pytest.mark.parametrize("what", REPORTS)
def test_one_whose_policy_we_do_not_see_tells_the_id(chromium, elsewhere, what):
    page = Page(chromium, elsewhere, Query())
    assert "/csp" in reports(page, what, outside=True)


# -- referrer policies ---------------------------------------------------------------------------

CSS = 'width: 9px; height: 9px; background: url("{}/told" referrer-policy(unsafe-url))'
FRAMED = "<img src={}/told referrerpolicy=unsafe-url>"
TELLING = {
    "a style sheet": f"<style>h1 {{{CSS}}}</style>",
    "a style sheet in escapes": f"<style>h1 {{{CSS}}}</style>".replace("policy(", r"\70 olicy("),
    "a style sheet that has no end": f"<style>h1 {{{CSS}",
    "an import": '<style>@import url("{}/told" referrer-policy(unsafe-url));</style>',
    "a style attribute": f"<p style='{CSS}'>k</p>",
    "a style attribute with references": f"<p style='{CSS}'>k</p>".replace("(un", "&#40;un"),
    "the document of a frame": f'<iframe srcdoc="{FRAMED}"></iframe>',
    "one with a policy of its own": '<iframe srcdoc="<meta name=referrer content=unsafe-url>'
    '<img src={}/told>"></iframe>',
    "a sandboxed one": f'<iframe sandbox="allow-same-origin" srcdoc="{FRAMED}"></iframe>',
    "one with CSS": f"""<iframe srcdoc="<p style='{CSS}'>k</p>"></iframe>""".replace(
        '"{}/told"', "&quot;{}/told&quot;"
    ),
}


@pytest.mark.parametrize("what", TELLING)
def test_no_policy_of_a_rewritten_page_tells_the_id(page, what):
    until = rest if "references" in what else page.asked_more_than(0)
    assert page.visit(TELLING[what], until=until) == []


@pytest.mark.parametrize("what", TELLING)
def test_that_of_one_that_is_not_rewritten_tells_it(chromium, elsewhere, what):
    page = Page(chromium, elsewhere, Query(), "location")
    assert "/told" in page.visit(TELLING[what], until=page.asked_more_than(0))


PRELOAD = [("Link", "<{}/told>; rel=preload; as=image; referrerpolicy=unsafe-url")]


def test_no_preload_tells_the_id(page):
    assert page.visit("", PRELOAD, page.asked_more_than(0)) == []


def test_one_that_we_do_not_see_tells_it(chromium, elsewhere):
    page = Page(chromium, elsewhere, Query())
    assert "/told" in page.visit("", PRELOAD, page.asked_more_than(0), outside=True)


# -- charsets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", [*SURE, *UNSURE])
def test_what_we_take_for_a_charset_the_browser_takes_too(chromium, parameter):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", f"text/html; {parameter}")])
        return [b"<h1>\x1b$B%F%9%H\x1b(B</h1>" * 20]  # in ISO-2022-JP, for who guesses

    with Site(application) as site:
        chromium.driver.get(site.origin)
        charset = chromium.driver.execute_script("return document.characterSet")
    assert charset == "UTF-8" or parameter in UNSURE
