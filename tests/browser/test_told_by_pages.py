"""What a page says of referrers in svg and in rules for fetching ahead, in Chromium: it asks the
other origin, and tells it no id."""

import pytest
from browser.sites import Site

from nocookie import SessionMiddleware, session

pytestmark = pytest.mark.server

URL = "{other}/%s.svg' referrer-policy(unsafe-url)"
CSS = "body{background:url('" + URL + ")}"
MASK = f' mask="url(\'{URL})"/>'
RULES = (
    '{"prefetch":[{"source":"list","urls":["OTHER/ahead"],"referrer_policy":"unsafe-url",'
    '"eagerness":"immediate"}]}'
)

PAGES = {
    "svg-reference": "<svg><style>" + CSS.replace("policy", "polic&#121;"),
    "svg-comment": "<svg><style>" + CSS.replace("policy", "pol<!-- -->icy"),
    "svg-section": "<svg><style>" + CSS.replace("policy", "pol<![CDATA[icy") + "]]>",
    "svg-in-a-frame": '<iframe srcdoc="<svg><style>' + CSS.replace("policy", "pol<!-- -->icy"),
    "svg-out-of-order": "<svg></math><rect width=9 height=9" + MASK,
    "svg-closed": "<svg width=9 height=9" + MASK,
    "rules": f"<script type=speculationrules>{RULES}",
}
ENDS = {"<svg><style>": "</style></svg><p>x", "<iframe": '</style></svg><p>x"></iframe>'}


def page_of(name, other):
    page = PAGES[name]
    end = next((end for start, end in ENDS.items() if page.startswith(start)), "</script>")
    page = page.replace("{other}", other).replace("OTHER", other).replace("%s", name)
    probe = f"<img src='{other}/probe.svg'>"
    return f"<!DOCTYPE html><title>{name}</title>{page}{end}{probe}"


@pytest.mark.parametrize("find_id", ["query:sid", "path:~"])
@pytest.mark.parametrize("name", PAGES)
def test_another_origin_is_told_no_id(chromium, elsewhere, name, find_id):
    def application(environ, start_response):
        session["visits"] = session.get("visits", 0) + 1
        session.save()
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        if environ["PATH_INFO"] == "/page":
            return [page_of(name, elsewhere.origin).encode()]
        return [b"<!DOCTYPE html><title>door</title><a id=in href=/page>in</a>"]

    options = {"use_cookies": False, "find_id": find_id, "rewrite": "html"}
    with Site(SessionMiddleware(application, **options)) as site:
        chromium.driver.get(site.origin)
        chromium.driver.find_element("id", "in").click()
        chromium.wait(lambda driver: driver.title == name)
        chromium.driver.refresh()  # so that the page is laid out and done with once more
        chromium.wait(lambda _: elsewhere.recorder.addresses.count("/probe.svg") >= 2 or None)
        chromium.wait(
            lambda driver: driver.execute_script("return document.readyState") == "complete"
        )
        assert any(id in chromium.driver.current_url for id in find_ids_of(site))
    assert list(elsewhere.recorder.with_an_id()) == []


def find_ids_of(site):
    return {id for request in site.recorder.requests for id in request.ids}
