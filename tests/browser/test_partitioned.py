"""A cookie that is partitioned, in a frame of another site, in a browser."""

import pytest
from browser.sites import Site
from realservers.chromium import Chromium

from nocookie import Cookie, SessionMiddleware, session

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chromium")
    with Chromium(folder, cookies=True, third_party=False) as browser:
        yield browser


def count(environ, start_response):
    session["n"] = session.get("n", 0) + 1
    session.save()
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"<!doctype html><p>%d</p>" % session["n"]]


def around(url):
    def page(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return [f'<!doctype html><iframe src="{url}"></iframe>'.encode()]

    return page


@pytest.mark.parametrize(("partitioned", "seen"), [(True, ["1", "2"]), (False, ["1", "1"])])
def test_in_a_frame_of_another_site_a_partitioned_cookie_is_kept(chromium, partitioned, seen):
    # A name for each: cookies are those of a host, whatever its port.
    cookie = Cookie(f"sid-{partitioned}", secure=True, samesite="None", partitioned=partitioned)
    app = SessionMiddleware(count, use_cookies=False, find_id=cookie)
    found = []
    with Site(app) as framed, Site(around(framed.origin + "/")) as outer:
        for _ in range(2):
            # Another name, another site. Both are of this machine, so `Secure` needs no TLS.
            chromium.driver.get(outer.origin.replace("127.0.0.1", "localhost") + "/")
            chromium.driver.switch_to.frame(0)
            found.append(chromium.wait(lambda driver: driver.find_element("tag name", "p").text))
            chromium.driver.switch_to.default_content()
    assert found == seen
