"""Pages and URLs with which others test their parsers (html5lib-tests, web-platform-tests): what
holds for any page holds for these. A part of them here, and all of them where `NOCOOKIE_FUZZ` is
set."""

import html

import corpora
import pytest
from lengths import FUZZ
from rewriting.test_html import PAGE, check

pytestmark = pytest.mark.server

#: Of so many cases one is tried.
SHARE = 1 if FUZZ > 1 else 4


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    unpacked = corpora.sdist("html5lib==1.1", tmp_path_factory.mktemp("html5lib"))
    found = list(corpora.html5lib_pages(unpacked))
    assert len(found) == 8508
    return found


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    files = corpora.debian("librust-url-dev", tmp_path_factory.mktemp("urls"))
    found = list(corpora.url_cases(files))
    assert len(found) > 600
    return found


def is_text(page):
    try:
        page.encode()
    except UnicodeEncodeError:  # half a surrogate pair, for parsers of UTF-16
        return False
    return True


@pytest.mark.parametrize("part", range(8))
def test_the_pages_of_html5lib_hold_alone_and_between_links_of_ours(pages, part):
    tried = 0
    for page in pages[part * SHARE :: 8 * SHARE]:
        for text in (page, f'<!doctype html><a href="/own">1</a>{page}<a href="/own2">2</a>'):
            if is_text(text):
                check(text, "", [len(text.encode()) // 2])
                tried += 1
    assert tried > 1800 / SHARE


@pytest.mark.parametrize("mount", ["", "/shop"])
def test_the_urls_of_web_platform_tests_hold_as_links(urls, mount):
    tried = 0
    for text, base in urls[::SHARE]:
        link = f'<a href="{html.escape(text)}">x</a>'
        below = f'<base href="{html.escape(base or "about:blank")}">'
        places = [(link, PAGE), (below + link, PAGE)]
        if base is not None and base.startswith("http"):
            places.append((link, base))
        for page, url in places:
            if is_text(page):
                check(f"<!doctype html>{page}", mount, [len(page.encode()) // 2], url)
                tried += 1
    assert tried > 1400 / SHARE
