"""A real browser that takes no cookies walks the shop in examples/shop: it stays logged in wherever
its clicks lead, and the other origin is told no id, not in a Referer either.

With SCREENSHOTS=folder the pictures of docs/ids-in-urls.md are taken anew.
"""

import pytest
from browser.recording import Recorder
from browser.sites import Site
from realservers.chromium import Chromium

from nocookie import SessionMiddleware, session

pytestmark = pytest.mark.server

CARRIERS = ["query:sid", "path:~", "param:sid"]


class Visit:
    """A visitor of one shop, by clicks."""

    def __init__(self, chromium, shop, beside):
        self.chromium, self.driver = chromium, chromium.driver
        self.shop, self.beside = shop, beside

    @property
    def ids(self):
        return {id for request in self.shop.recorder.requests for id in request.ids}

    @property
    def who(self):
        return self.driver.find_element("id", "who").text

    def see(self, css):
        """Return the text of what is on the page, or comes to be there."""
        return self.chromium.wait(lambda driver: driver.find_element("css selector", css)).text

    def start(self, path="/shop/"):
        self.driver.get(self.shop.origin + path)

    def click(self, what, to):
        """Click on a link, or on a button by its form, and arrive at the page with this heading."""
        how = "css selector" if what.startswith(("form", "#", "button")) else "link text"
        self.leave(lambda: self.driver.find_element(how, what).click(), to)

    def leave(self, act, to):
        page = self.driver.find_element("tag name", "html").id

        def arrived(driver):
            if driver.find_element("tag name", "html").id == page:
                return False
            ready = driver.execute_script("return document.readyState") == "complete"
            return ready and driver.find_element("tag name", "h1").text == to

        act()
        self.chromium.wait(arrived, f"no page {to!r} came")

    def log_in(self):
        self.click("Log in", to="Log in")
        self.driver.find_element("name", "name").send_keys("ada")
        self.click("form button", to="The shop")


def served(example, elsewhere, find_id):
    """The shop on its port, with the application beside it, whose own records come second."""
    beside = Recorder(example.beside)
    shop = example.with_sessions(elsewhere.origin, find_id)
    return Site(example.house(shop, beside)), beside


@pytest.fixture(params=CARRIERS)
def visit(request, example, chromium, elsewhere):
    shop, beside = served(example, elsewhere, request.param)
    with shop:
        visit = Visit(chromium, shop, beside)
        visit.start()
        visit.log_in()
        assert visit.who == "ada"
        yield visit
        chromium.driver.get("about:blank")
        assert visit.ids
        assert not list(elsewhere.recorder.with_an_id(*visit.ids))
        # The first page, before there was an id, says where it is from by the browser's own rule.
        told = {request.headers.get("HTTP_REFERER", "") for request in elsewhere.recorder.requests}
        assert {url for url in told if url.startswith(shop.origin)} <= {f"{shop.origin}/"}
        requests = shop.recorder.requests + elsewhere.recorder.requests
        assert not [request for request in requests if "HTTP_COOKIE" in request.headers]


# -- the browser itself --------------------------------------------------------------------------


def baker(environ, start_response):
    head = [("Content-Type", "text/html"), ("Set-Cookie", "probe=1; Path=/")]
    start_response("200 OK", head)
    return [b"<h1>A cookie</h1>"]


@pytest.mark.parametrize("cookies", [True, False])
def test_the_browser_takes_cookies_only_where_it_is_told_to(tmp_path, cookies):
    with Site(baker) as site, Chromium(tmp_path, cookies=cookies) as browser:
        browser.driver.get(f"{site.origin}/first")
        browser.driver.get(f"{site.origin}/second")
        script = browser.driver.execute_script("document.cookie = 'a=1'; return document.cookie")

    (second,) = (r for r in site.recorder.requests if r.address == "/second")
    assert second.headers.get("HTTP_COOKIE") == ("probe=1" if cookies else None)
    assert bool(script) == cookies


# -- within the shop -----------------------------------------------------------------------------


def test_the_login_holds_on_every_link(visit, screenshot):
    screenshot("shop")
    visit.click("Tea", to="A tin of tea")
    for link, heading in [
        ("coffee", "A bag of coffee"),
        ("Large", "A bag of coffee"),
        ("cart", "Your cart"),
        ("Shop", "The shop"),
        ("Coffee", "A bag of coffee"),
        ("up", "The shop"),
        ("Catalogue", "Catalogue"),
        ("tea", "A tin of tea"),
        ("Search", "Search"),
        ("Cart", "Your cart"),
        ("Pay", "Pay"),
        ("Shop", "The shop"),
        ("Tour", "Tour"),
        ("Shop", "The shop"),
        ("home", "The shop"),
        ("wait", "Your cart"),
        ("Shop", "The shop"),
        ("wait by header", "Your cart"),
    ]:
        visit.click(link, to=heading)
        assert visit.who == "ada", link


def test_the_login_holds_over_a_page_that_asks_for_no_session(visit):
    visit.click("About", to="About")
    visit.click("Shop", to="The shop")

    assert visit.who == "ada"


def test_a_place_on_the_page_is_reached_without_asking_again(visit):
    visit.click("Tea", to="A tin of tea")
    visit.driver.find_element("link text", "reviews").click()
    visit.chromium.wait(lambda driver: driver.current_url.endswith("#reviews"))

    asked = [address for address in visit.shop.recorder.addresses if "/tea" in address]
    assert len(asked) == 1
    assert visit.who == "ada"


def test_the_login_holds_over_forms(visit):
    visit.click("Tea", to="A tin of tea")
    visit.click("Large", to="A tin of tea")
    assert visit.see("#size") == "large"
    visit.click("form[action*=cart] button", to="Your cart")
    assert (visit.who, visit.see("#cart")) == ("ada", "A tin of tea")

    visit.click("Search", to="Search")
    visit.driver.find_element("name", "q").send_keys("bag")
    visit.click("form[action*=search] button", to="Search")
    assert (visit.who, visit.see("#found")) == ("ada", "coffee")
    visit.click("coffee", to="A bag of coffee")
    visit.click("form[action*=cart] button", to="Your cart")
    assert (visit.who, visit.see("#cart")) == ("ada", "A tin of tea\nA bag of coffee")


def test_the_login_holds_in_a_frame(visit, elsewhere, screenshot):
    visit.click("Tour", to="Tour")
    visit.driver.switch_to.frame("ours")
    assert (visit.see("h1"), visit.who) == ("Your cart", "ada")
    visit.click("Search", to="Search")
    assert visit.who == "ada"
    visit.driver.switch_to.default_content()
    visit.driver.switch_to.frame("theirs")

    assert visit.see("#partner") == "The partner's page"
    screenshot("shop-with-frames")
    assert "/widget" in elsewhere.recorder.addresses


def test_the_login_holds_on_the_way_back_and_after_a_reload(visit):
    visit.click("Tea", to="A tin of tea")
    visit.click("cart", to="Your cart")
    visit.leave(visit.driver.back, to="A tin of tea")
    assert visit.who == "ada"
    visit.leave(visit.driver.back, to="The shop")
    assert visit.who == "ada"
    visit.leave(visit.driver.forward, to="A tin of tea")
    visit.leave(visit.driver.refresh, to="A tin of tea")
    assert visit.who == "ada"


def test_the_login_holds_in_a_new_tab(visit):
    from selenium.webdriver import ActionChains, Keys

    first = visit.driver.current_window_handle
    link = visit.driver.find_element("link text", "Tea")
    ActionChains(visit.driver).key_down(Keys.CONTROL).click(link).key_up(Keys.CONTROL).perform()
    in_new_tab(visit, first)
    try:
        assert (visit.see("h1"), visit.see("#who")) == ("A tin of tea", "ada")
    finally:
        visit.driver.close()
        visit.driver.switch_to.window(first)
    assert visit.who == "ada"


def in_new_tab(visit, first):
    (tab,) = visit.chromium.wait(lambda driver: set(driver.window_handles) - {first})
    visit.driver.switch_to.window(tab)


def test_a_login_takes_a_fresh_id_and_the_one_of_before_is_dead(visit):
    visit.leave(lambda: visit.start(), to="The shop")
    visit.click("Tea", to="A tin of tea")
    visit.click("form[action*=cart] button", to="Your cart")
    before = visit.driver.current_url
    visit.log_in()
    assert visit.who == "ada"
    visit.click("Cart", to="Your cart")
    assert visit.see("#cart") == "A tin of tea"
    visit.driver.get(before)

    assert visit.who == "nobody we know"
    assert visit.see("h1") == "Your cart"


def test_after_the_logout_no_link_has_an_id_and_the_way_back_leads_to_no_login(visit):
    ids = visit.ids
    visit.click("form[action*=logout] button", to="The shop")
    assert visit.who == "nobody we know"
    links = visit.driver.find_elements("css selector", "a[href]")
    seen = [link.get_attribute("href") for link in links] + [visit.driver.current_url]
    assert not [url for url in seen if any(id in url for id in ids)]
    assert not [url for url in seen if "sid=" in url or "/~" in url]

    visit.leave(visit.driver.back, to="The shop")
    assert visit.who == "nobody we know"


# -- beyond it -----------------------------------------------------------------------------------


def test_no_id_goes_to_another_origin(visit, elsewhere):
    """Nor in a Referer: the fixture looks at all that came there, after every test."""
    first = visit.driver.current_window_handle
    there = "The partner's page"
    visit.click("Partner", to=there)
    visit.leave(visit.driver.back, to="The shop")
    visit.driver.find_element("link text", "in a new tab").click()
    in_new_tab(visit, first)
    assert visit.see("#partner")
    visit.driver.close()
    visit.driver.switch_to.window(first)
    visit.click("away", to=there)
    visit.leave(visit.driver.back, to="The shop")
    for form in ("#by-post button", "#by-get button", "button[formaction]"):
        visit.click("Cart", to="Your cart")
        visit.click("Pay", to="Pay")
        visit.click(form, to=there)
        visit.leave(visit.driver.back, to="Pay")
        visit.click("Shop", to="The shop")
        assert visit.who == "ada"

    asked = {(r.method, r.address, r.body) for r in elsewhere.recorder.requests}
    assert asked - {("GET", "/favicon.ico", "")} == {
        ("GET", "/banner.svg", ""),
        ("GET", "/offers", ""),
        ("GET", "/offers?from=shop", ""),
        ("GET", "/offers?by=redirect", ""),
        ("GET", "/pay", ""),
        ("POST", "/pay", "sum=5"),
    } | {request for request in asked if request[:2] == ("GET", "/pay?")}


def test_no_id_is_in_an_address_of_the_application_beside(visit):
    """In a Referer it is: that application has the same origin, and could read the page itself."""
    visit.click("The application beside", to="Beside")
    visit.leave(visit.driver.back, to="The shop")
    visit.click("another page of it", to="Beside")

    asked = [request for request in visit.beside.requests if request.address != "/favicon.ico"]
    assert [(request.address, request.body) for request in asked] == [("/", ""), ("/shopping", "")]
    assert all(visit.ids & set(request.ids) for request in asked)


def careless(application):
    """Ask browsers to tell everybody the whole address, whatever the middleware says."""

    def with_a_wrong_policy(environ, start_response):
        def start(status, headers, exc_info=None):
            headers = [pair for pair in headers if pair[0].lower() != "referrer-policy"]
            headers.append(("Referrer-Policy", "unsafe-url"))
            return start_response(status, headers, exc_info)

        return application(environ, start)

    return with_a_wrong_policy


@pytest.mark.parametrize("find_id", CARRIERS)
def test_without_the_policy_the_id_would_be_in_the_referer(example, chromium, elsewhere, find_id):
    """What the other tests look for is there to be seen."""
    shop = careless(example.with_sessions(elsewhere.origin, find_id))
    with Site(example.house(shop, example.beside)) as site:
        visit = Visit(chromium, site, None)
        visit.start()
        visit.log_in()
        visit.click("Partner", to="The partner's page")

    told = {r.address for r in elsewhere.recorder.with_an_id(*visit.ids)}
    assert {"/offers?from=shop", "/banner.svg"} <= told


@pytest.mark.parametrize("find_id", CARRIERS)
def test_the_login_holds_in_a_frame_of_another_site(
    example, chromium, elsewhere, screenshot, find_id
):
    """Of another site, not only of another origin: there the cookies of the frame would be third
    parties', which browsers block by themselves."""
    shop, _ = served(example, elsewhere, find_id)
    with shop:
        visit = Visit(chromium, shop, None)
        there = elsewhere.origin.replace("127.0.0.1", "localhost")
        chromium.driver.get(f"{there}/embeds?{shop.origin}/shop/")
        chromium.driver.switch_to.frame(0)
        visit.log_in()
        visit.click("Tea", to="A tin of tea")
        visit.click("form[action*=cart] button", to="Your cart")
        assert (visit.who, visit.see("#cart")) == ("ada", "A tin of tea")
        screenshot("shop-in-a-frame")
        chromium.driver.get("about:blank")

    assert not list(elsewhere.recorder.with_an_id(*visit.ids))


#: What has a browser tell the page's address, whatever our header says. A ping does where the page
#: came by plain HTTP (HTML, "hyperlink auditing").
TELLING = {
    "a policy of the page": '<meta name="referrer" content="unsafe-url"><a href="{}/told">on</a>',
    "a policy of a link": '<a href="{}/told" referrerpolicy="unsafe-url">on</a>',
    "a policy of an image": '<a href="/">on</a><img src="{}/told" referrerpolicy="unsafe-url">',
    "a ping": '<a href="/" ping="{}/told">on</a>',
}


def walk_on(chromium, elsewhere, markup, rewrite):
    """Go on from a page whose address holds the id; return what came to the other origin."""

    def application(environ, start_response):
        session["visits"] = session.get("visits", 0) + 1
        session.save()
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        page = f"""<!doctype html><h1>{session["visits"]}</h1>{markup.format(elsewhere.origin)}
            <a href="{session.url("/")}">again</a> <a href="{elsewhere.origin}/last">last</a>"""
        return [page.encode()]

    with Site(
        SessionMiddleware(application, use_cookies=False, find_id="query:sid", rewrite=rewrite)
    ) as site:
        visit = Visit(chromium, site, None)
        visit.start("/")
        visit.click("again", to="2")
        if markup.startswith('<a href="/"') and rewrite != "html":
            visit.click("on", to="1")  # a link without the id
        elif markup.startswith('<a href="/"'):
            visit.click("on", to="3")
        else:
            visit.click("on", to="The partner's page")
            return elsewhere.recorder, visit.ids
        # What the page sent on its own has come when this has.
        visit.click("last", to="The partner's page")
    return elsewhere.recorder, visit.ids


@pytest.mark.parametrize("what", TELLING)
def test_a_rewritten_page_that_tells_others_its_address_tells_no_id(chromium, elsewhere, what):
    told, ids = walk_on(chromium, elsewhere, TELLING[what], "html")
    assert ("/told" in told.addresses) == (what != "a ping")
    assert not list(told.with_an_id(*ids))


@pytest.mark.parametrize("what", TELLING)
def test_one_that_is_not_rewritten_tells_it(chromium, elsewhere, what):
    """What the test above looks for is there to be seen."""
    told, ids = walk_on(chromium, elsewhere, TELLING[what], "location")
    assert "/told" in [request.address for request in told.with_an_id(*ids)]
