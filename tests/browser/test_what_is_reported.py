"""What cannot be prevented is reported, in Chromium: where the other origin is told an id there is
an event, and where it is told none there is none."""

import pytest
from browser.sites import Site
from browser.test_walk import Visit

from nocookie import Form, PathSegment, SessionMiddleware, session

pytestmark = pytest.mark.server

HTML = [("Content-Type", "text/html; charset=utf-8")]


class Told:
    """An application whose second page is *answer*, and what became of a visit there."""

    def __init__(self, chromium, elsewhere, find_id, first, answer, go):
        self.events = []

        def application(environ, start_response):
            visits = session["visits"] = session.get("visits", 0) + 1
            session.save()
            if visits == 1:
                start_response("200 OK", HTML)
                return [f"<!doctype html><h1>1</h1>{first()}".encode()]
            status, headers, body = answer(elsewhere.origin)
            start_response(status, headers)
            return [body.encode()]

        app = SessionMiddleware(
            application,
            use_cookies=False,
            find_id=find_id,
            rewrite="html" if find_id.in_url else None,
            on_event=lambda event: self.events.append(event.name),
        )
        with Site(app) as site:
            visit = Visit(chromium, site, None)
            visit.start("/")
            before = len(elsewhere.recorder.requests)
            visit.driver.find_element("css selector", go).click()
            chromium.wait(lambda driver: len(elsewhere.recorder.requests) > before)
        self.ids = [id for request in elsewhere.recorder.requests for id in request.ids]


def form():
    field = f'<input type="hidden" name="sid" value="{session.id}">'
    return f'<form method="post">{field}<button>go</button></form>'


@pytest.mark.parametrize("status", ["302 Found", "303 See Other", "307 Again", "308 Again"])
def test_a_form_that_is_sent_on_to_another_origin(chromium, elsewhere, status):
    told = Told(
        chromium,
        elsewhere,
        Form(),
        form,
        lambda there: (status, [("Location", f"{there}/pay")], ""),
        "button",
    )
    keeps_the_form = status[:3] in ("307", "308")
    assert bool(told.ids) == keeps_the_form
    assert ("redirect_abroad" in told.events) == keeps_the_form


PAGE = """<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title>
<meta name="referrer" content="unsafe-url"/></head><body><img src="{}/i.svg"/></body></html>"""


@pytest.mark.parametrize("kind", ["application/xhtml+xml", "text/xml", None, "text/html"])
def test_a_document_of_another_kind_with_a_lax_policy(chromium, elsewhere, kind):
    headers = [] if kind is None else [("Content-Type", kind)]
    told = Told(
        chromium,
        elsewhere,
        PathSegment(),
        lambda: f'<a href="{session.url("/")}">go</a>',
        lambda there: ("200 OK", headers, PAGE.format(there)),
        "a",
    )
    is_read = kind == "text/html"
    assert bool(told.ids) != is_read, "what is read and rewritten tells nobody"
    assert ("leak" in told.events) != is_read
