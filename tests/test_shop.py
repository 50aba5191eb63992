"""The shop in examples/shop, walked by WebTest: every page is reached, by every way that leads
there, and knows the visitor; what leads elsewhere has no id. `tests/browser` walks it in Chromium.
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urldefrag, urlencode, urljoin, urlsplit

import pytest
from browser.recording import Recorder, find_ids
from bs4 import BeautifulSoup
from webtest import TestApp, TestResponse

PATH = Path(__file__).resolve().parent.parent / "examples" / "shop" / "application.py"
HERE = "localhost:80"
#: The same host; what makes it another origin is the port.
PARTNER = "http://localhost:8081"
CARRIERS = ["query:sid", "path:~", "param:sid"]


class Way(NamedTuple):
    """What a browser would ask for, next."""

    method: str
    url: str
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def is_here(self):
        return urlsplit(self.url).netloc in (HERE, "localhost")

    @property
    def text(self):
        """It without its id, and without the host if that is ours."""
        text = f"{self.method} {'' if self.is_here else PARTNER}"
        text += urlsplit(self.url)._replace(scheme="", netloc="").geturl()
        for id in find_ids(text):
            for form in (f"/~{id}", f";sid={id}", f"?sid={id}", f"&sid={id}"):
                text = text.replace(form, "")
        rest = [(name, value) for name, value in self.fields if name != "sid"]
        return f"{text} {urlencode(rest)}".strip()


class Page(NamedTuple):
    #: As it was asked for: WebTest's own request is without the id by now.
    url: str
    response: TestResponse

    @property
    def soup(self):
        return BeautifulSoup(self.response.text, "html.parser")

    @property
    def who(self):
        """Whom it says that the visitor is; None if it does not ask."""
        shown = self.soup.find(id="who")
        return None if shown is None else shown.text

    @property
    def ways(self):
        """All that leads on: what visitors follow, and what browsers load by themselves."""
        ways = []
        for name in ("Location", "Refresh"):
            if name in self.response.headers:
                to = self.response.headers[name].rpartition("url=")[2]
                ways.append(Way("GET", urljoin(self.url, to)))
        soup = self.soup
        base = urljoin(self.url, soup.base["href"]) if soup.base else self.url
        for element in soup.select("a, iframe, img"):
            url = urljoin(base, element.get("href") or element["src"])
            ways.append(Way("GET", urldefrag(url)[0]))
        for element in soup.select("meta[http-equiv=refresh]"):
            url = urljoin(base, element["content"].rpartition("url=")[2])
            ways.append(Way("GET", url))
        for form in soup.select("form"):
            fields = tuple((field["name"], field.get("value", "")) for field in form("input"))
            method = form.get("method", "get").upper()
            buttons = form.select("[formaction]")
            for action in form.get("action"), *(button["formaction"] for button in buttons):
                url = urljoin(base, action) if action else self.url
                # The fields take the place of the query that the action of a GET form had.
                url = url.partition("?")[0] if method == "GET" else url
                ways.append(Way(method, url, fields))
        return ways

    def way(self, text):
        (way,) = {way for way in self.ways if way.text == text}
        return way


class Visit:
    """A client without cookies, of one shop."""

    def __init__(self, example, find_id):
        self.beside = Recorder(example.beside)
        self.shop = Recorder(example.with_sessions(PARTNER, find_id))
        self.client = TestApp(example.house(self.shop, self.beside))

    def start(self, path="/shop/"):
        return self.go(Way("GET", f"http://{HERE}{path}"))

    def log_in(self, page=None):
        page = page or self.start()
        form = self.go(page.way("GET /shop/login")).way("POST /shop/login name=")
        return self.follow(form._replace(fields=(("name", "ada"),)))

    def go(self, way):
        if way.method == "POST":
            return Page(way.url, self.client.post(way.url, list(way.fields)))
        url = f"{way.url}?{urlencode(way.fields)}" if way.fields else way.url
        return Page(url, self.client.get(url))

    def follow(self, way):
        """Go where the answer leads to."""
        return self.go(self.go(way).ways[0])

    @property
    def ids(self):
        return {id for request in self.shop.requests for id in request.ids}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_shop", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=CARRIERS)
def visit(request, example):
    visit = Visit(example, request.param)
    yield visit
    assert not visit.client.cookies
    assert not list(visit.beside.with_an_id(*visit.ids))


def walk(visit, page):
    """Follow everything from this page on, but what logs in and out. Return each way's text with
    the page that it led to, and the ways to another origin."""
    pages, elsewhere, pending = {}, [], [page]
    while pending:
        for way in pending.pop().ways:
            if not way.is_here:
                elsewhere.append(way)
            elif way.text not in pages and "/log" not in way.text:
                pages[way.text] = visit.go(way)
                pending.append(pages[way.text])
    return pages, elsewhere


def test_the_login_holds_on_every_page_by_every_way(visit):
    pages, _ = walk(visit, visit.log_in())

    answers = {way: page.response.status_int for way, page in pages.items()}
    assert {way: page.who for way, page in pages.items() if answers[way] == 200} == {
        "GET /": None,
        "GET /shopping": None,
        "GET /shop/": "ada",
        "GET /shop/about": None,
        "GET /shop/cart": "ada",
        "GET /shop/catalogue": "ada",
        "GET /shop/goods/coffee": "ada",
        "GET /shop/goods/coffee?size=large": "ada",
        "GET /shop/goods/tea": "ada",
        "GET /shop/goods/tea?size=large": "ada",
        "GET /shop/pay": "ada",
        "GET /shop/search": "ada",
        "GET /shop/search q=": "ada",
        "GET /shop/tour": "ada",
        "GET /shop/wait": "ada",
        "GET /shop/wait-by-header": "ada",
    }
    assert {way for way in pages if answers[way] != 200} == {
        "GET /shop/away",
        "GET /shop/home",
        "POST /shop/cart what=coffee",
        "POST /shop/cart what=tea",
    }


def test_what_leads_elsewhere_has_no_id(visit):
    _, elsewhere = walk(visit, visit.log_in())

    assert {way.text for way in elsewhere} == {
        f"GET {PARTNER}/banner.svg",
        f"GET {PARTNER}/offers",
        f"GET {PARTNER}/offers?by=redirect",
        f"GET {PARTNER}/offers?from=shop",
        f"GET {PARTNER}/pay",
        f"GET {PARTNER}/widget",
        f"POST {PARTNER}/pay sum=5",
    }
    assert not [way for way in elsewhere if find_ids(repr(way)) or "sid" in repr(way)]


def test_a_form_that_may_lead_elsewhere_takes_no_id_along(visit):
    pay = visit.go(visit.go(visit.log_in().way("GET /shop/cart")).way("GET /shop/pay"))

    (form,) = pay.soup.select("#either")
    assert not form("input")


def test_every_page_forbids_caches_and_says_no_address_to_others(visit):
    pages, _ = walk(visit, visit.log_in())

    for way, page in pages.items():
        if "/shop/" in way:
            assert page.response.headers["Cache-Control"] == "no-store", way
            assert page.response.headers["Referrer-Policy"] == "same-origin", way


def test_no_response_hands_out_the_id_in_another_way(visit):
    """Who walks by links needs no header and no cookie."""
    pages, _ = walk(visit, visit.log_in())

    heads = [page.response.headers for page in pages.values()]
    assert heads and not [h for h in heads if "X-Session-Id" in h or "Set-Cookie" in h]


def test_the_login_takes_a_fresh_id_and_keeps_the_cart(visit):
    tea = visit.go(visit.start().way("GET /shop/goods/tea"))
    cart = visit.follow(tea.way("POST /shop/cart what=tea"))
    (before,) = visit.ids
    front = visit.log_in(cart)

    assert cart.who == visit.go(Way("GET", cart.url)).who == "nobody we know"
    assert visit.go(front.way("GET /shop/cart")).soup.select_one("#cart").text == "A tin of tea"
    assert len(visit.ids) == 2 and before not in front.url + front.response.text


def test_after_the_logout_no_link_has_an_id(visit):
    front = visit.log_in()
    (ended,) = visit.ids
    bye = visit.go(front.way("POST /shop/logout"))
    after = visit.go(bye.ways[0])

    assert ended in front.url
    assert after.who == visit.go(Way("GET", front.url)).who == "nobody we know"
    assert not find_ids(bye.response.headers["Location"] + after.url + after.response.text)
    pages, _ = walk(visit, after)
    assert not [page for page in pages.values() if ended in page.url + page.response.text]
