"""Which URLs get the id: the corpus, and a browser's URL parser that reads what comes out."""

import re
from urllib.parse import unquote, unquote_plus

import ada_url
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lengths import FUZZ
from rewriting.cases import cases, scope_of

from nocookie.places import InParameter, InQuery, InSegment
from nocookie.rewriting import Scope

ID, OLD = "S" * 43, "O" * 43
GRAMMAR = re.compile(r"[A-Za-z0-9_-]{43}")


@pytest.mark.parametrize(
    "case", cases("urls-query", "urls-mount", "urls-segment", "urls-parameter")
)
def test_a_url_gets_the_id_or_is_left_alone(case):
    assert scope_of(case).url(case["input"]) == case["output"]


@pytest.mark.parametrize(
    "case", cases("urls-query", "urls-mount", "urls-segment", "urls-parameter")
)
def test_what_has_the_id_is_not_changed_again(case):
    assert scope_of(case).url(case["output"]) == case["output"]


@pytest.mark.parametrize(
    "case", cases("urls-query", "urls-mount", "urls-segment", "urls-parameter")
)
def test_the_expectations_hold_to_a_browsers_parser(case):
    """The corpus itself is checked, not this library."""
    page = ada_url.URL(case.get("origin", case["page"]))
    if case["input"] != case["output"]:
        leads = ada_url.URL(case["output"], base=case["page"])
        if not case.get("origin"):
            assert (leads.protocol, leads.host) == (page.protocol, page.host)
        assert leads.href.count(case["session"].lower()) + leads.href.count(case["session"]) > 0


@pytest.mark.parametrize("case", cases("urls-bare"))
def test_a_bare_url_has_no_id(case):
    assert scope_of(case).bare_url(case["input"]) == case["output"]


@pytest.mark.parametrize("case", cases("headers"))
def test_headers_that_browsers_follow_get_the_id(case):
    scope = scope_of(case)
    found = scope.headers(f"{case['status']} Whatever", [tuple(pair) for pair in case["input"]])
    assert found == [tuple(pair) for pair in case["output"]]
    assert scope.headers(f"{case['status']} Whatever", found) == found


def test_an_id_that_is_none_is_refused_before_any_output():
    """CVE-2003-0442: an id was echoed into links unescaped."""
    with pytest.raises(ValueError) as caught:
        Scope("https://app.example/", InQuery(), 'S"><b>', grammar=GRAMMAR)
    assert "<b>" not in str(caught.value)


def test_a_name_is_encoded_on_its_way_out():
    scope = Scope("https://app.example/", InQuery("a&b"), ID, grammar=GRAMMAR)
    assert scope.url("/x") == f"/x?a%26b={ID}"
    assert scope.url(f"/x?a%26b={OLD}") == f"/x?a%26b={ID}"


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/shop", "ftp://x", ""])
def test_an_origin_that_is_none_is_refused(origin):
    with pytest.raises(ValueError, match="an origin is"):
        Scope("https://app.example/", InQuery(), ID, grammar=GRAMMAR, origin=origin)


@pytest.mark.parametrize("page", ["", "*", "/list", "app.example:443", "https:/x", "ftp://h/"])
def test_a_page_without_an_address_rewrites_nothing(page):
    scope = Scope(page, InQuery(), ID, grammar=GRAMMAR)
    for url in ("/x", "x", "", "?a", "https://app.example/x", "//app.example/x", "//", "https://"):
        assert scope.url(url) == url


def test_a_lone_surrogate_is_left_alone():
    scope = Scope("https://app.example/", InQuery(), ID, grammar=GRAMMAR)
    assert scope.url("/\ud800") == "/\ud800"
    assert scope.bare_url("/\ud800") == "/\ud800"


# --- Beside a browser's parser ------------------------------------------------------------

PIECES = [
    *("/", "//", "\\", "..", ".", "%2e", "%2E.", "a", "b", "shop", "shopping", "x:80", ":", "@"),
    *("app.example", "APP.example", "evil.example", "https:", "http:", "https://app.example"),
    *("https://app.example:443", "https://evil.example", ":8443", "?", "#", "&", "sid=", "sid"),
    *("sid=OLD", "s%69d=1", "&amp;", "javascript:", "mailto:a@b", " ", "\t", "\n", "\r", "\0"),
    *("\x0b", "é", "。", "⁄", "~", f"~{ID}", f"~{OLD}", f"%7E{OLD}", ";", ";sid=x", f";sid={ID}"),
    *(";v=1", "a=1", "p=1&q=2", "[::1]", "127.0.0.1", "0x7f.1", "%2f", "%5c", "﹖", "＃", "／"),
    *("ⓐ", "xn--", "|", "^", "`", "<", ">", '"', "'", "{", "*", "data:", "blob:", "file:///"),
    *("ws:", "user:pw@", f"?sid={ID}"),
]
URLS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
PAGES = st.sampled_from(
    [
        "https://app.example/shop/list?p=1",
        "https://app.example/",
        "https://app.example/shop",
        f"https://app.example/shop/~{ID}/a/b?sid={ID}",
        f"https://app.example/~{ID}/shop/list",
        "http://app.example:8080/shop/x:y",
        f"https://app.example/shop//a;sid={OLD}?sid=1&x",
        "https://[::1]:8443/shop/",
    ]
)
PLACES = st.sampled_from([InQuery(), InSegment(), InParameter()])


def parsed(url, base):
    try:
        return ada_url.URL(url, base=base)
    except ValueError:
        return None


def without_id(url, place, mount):
    """What of a URL must stay as it was."""
    path = url.pathname.split("/")[1:]
    query = url.search[1:].split("&") if url.search else []
    depth = len(mount.split("/")) - 1
    if isinstance(place, InSegment):
        if len(path) > depth and GRAMMAR.fullmatch(path[depth].removeprefix("~")):
            del path[depth]
        if len(path) == depth:
            path.append("")  # /shop becomes /shop/~id/
    elif isinstance(place, InParameter):
        for at, segment in enumerate(path):
            name, *rest = segment.split(";")
            kept = [part for part in rest if unquote(part.partition("=")[0]) != "sid"]
            path[at] = ";".join([name, *kept]).removesuffix(";")
    else:
        query = [p for p in query if p and unquote_plus(p.partition("=")[0]) != "sid"]
    return path, query, url.hash


def ids(url, place, mount):
    """Every id that a URL carries where the place has it."""
    if isinstance(place, InQuery):
        pairs = (part.partition("=") for part in url.search[1:].split("&"))
        return [value for name, _, value in pairs if unquote_plus(name) == "sid"]
    path = url.pathname.split("/")[1:]
    if isinstance(place, InSegment):
        depth = len(mount.split("/")) - 1
        return [part[1:] for part in path[depth : depth + 1]]
    pairs = (part.partition("=") for segment in path for part in segment.split(";")[1:])
    return [value for name, _, value in pairs if unquote(name) == "sid"]


@settings(max_examples=2000 * FUZZ, deadline=None)
@example(f";sid={ID}//evil.example/x", "https://app.example/", InParameter(), "", None)
@example(f"/a/..;sid={ID}/../x", "https://app.example/", InParameter(), "/a", None)
@example("", "https://app.example/shop", InSegment(), "/shop", None)
@given(URLS, PAGES, PLACES, st.sampled_from(["", "/shop"]), st.none() | URLS)
def test_no_foreign_url_gets_an_id(url, page, place, mount, href):
    scope = Scope(page, place, ID, grammar=GRAMMAR, mount=mount)
    base = page
    if href is not None:
        scope = scope.under(href.encode().decode("latin-1"))
        found = parsed(href, page)
        if found is not None and found.protocol not in ("data:", "javascript:"):
            base = found.href
    changed = scope.url(url)
    if changed == url:
        return
    before, after, home = parsed(url, base), parsed(changed, base), ada_url.URL(page)
    assert before is not None
    assert (after.protocol, after.host) == (home.protocol, home.host)
    assert (after.username, after.password) == ("", "")
    assert f"{after.pathname}/".startswith(f"{mount}/")
    assert ids(after, place, mount) == [ID]
    assert without_id(after, place, mount) == without_id(before, place, mount)
    assert scope.url(changed) == changed, "once is enough"


@settings(max_examples=1000 * FUZZ, deadline=None)
@given(URLS, PAGES, PLACES, st.sampled_from(["", "/shop"]))
def test_a_bare_url_of_the_scope_leads_to_the_same_place(url, page, place, mount):
    scope = Scope(page, place, ID, grammar=GRAMMAR, mount=mount)
    if scope.read(url.encode().decode("latin-1")) is None:
        return
    bare = scope.bare_url(url)
    before, after = parsed(url, page), parsed(bare, page)
    assert (after.protocol, after.host) == (before.protocol, before.host)
    if not url.startswith("#") and not isinstance(place, InSegment):
        assert without_id(after, place, mount) == without_id(before, place, mount)


@settings(max_examples=1000 * FUZZ, deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=30) | URLS)
def test_a_header_never_raises(value):
    scope = Scope("https://app.example/shop/", InQuery(), ID, grammar=GRAMMAR)
    for changed in (scope.location(value), scope.refresh(value), scope.refresh("5;url=" + value)):
        assert isinstance(changed, str)
