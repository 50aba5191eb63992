"""What becomes of a page: the corpus, every way to cut it, and a browser's reading of it."""

import random
import re
import tracemalloc
from unittest import mock

import ada_url
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lengths import FUZZ
from rewriting.browser import Page, settled
from rewriting.cases import cases, scope_of

from nocookie.html import HtmlRewriter, is_rewritable
from nocookie.markup import decoded
from nocookie.rewriting import InParameter, InQuery, InSegment, Scope

ID, OLD = "S" * 43, "O" * 43
GRAMMAR = re.compile(r"[A-Za-z0-9_-]{43}")
PAGE = "https://app.example/shop/list?p=1"


def pages(mount="", on_leak=lambda what: None, page=PAGE, place=None, **options):
    scope = Scope(page, place or InQuery(), ID, grammar=GRAMMAR, mount=mount)
    return HtmlRewriter(scope, on_leak=on_leak, **options)


def rewritten(rewriter, html, *cuts):
    """Return the page, fed in pieces that end where *cuts* says."""
    html = html if isinstance(html, bytes) else html.encode()
    out, start = [], 0
    for cut in (*cuts, len(html)):
        out.append(rewriter.feed(html[start:cut]))
        start = cut
    return b"".join((*out, rewriter.close()))


# --- The corpus ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("html"))
def test_a_page_gets_ids_where_a_browser_would_follow_them(case):
    leaks = []
    rewriter = HtmlRewriter(scope_of(case), on_leak=leaks.append)
    assert rewritten(rewriter, case["input"]).decode() == case["output"]
    assert bool(leaks) == case.get("leak", False)


@pytest.mark.parametrize("case", cases("html"))
def test_the_same_comes_out_however_a_page_is_cut(case):
    page = case["input"].encode()
    wanted = case["output"].encode()
    for cut in range(len(page) + 1):
        assert rewritten(HtmlRewriter(scope_of(case)), page, cut) == wanted, page[:cut]
    assert rewritten(HtmlRewriter(scope_of(case)), page, *range(len(page))) == wanted


@pytest.mark.parametrize("case", cases("html"))
def test_what_is_rewritten_is_not_rewritten_again(case):
    assert rewritten(HtmlRewriter(scope_of(case)), case["output"]).decode() == case["output"]


@pytest.mark.parametrize("case", cases("responses"))
def test_only_whole_readable_pages_are_rewritten(case):
    headers = [tuple(pair) for pair in case["input"]]
    assert is_rewritable(f"{case['status']} Whatever", headers) is case["output"]


# --- Bounds -------------------------------------------------------------------------------

TAIL = b'<a href="/x">x</a>'
TAIL_WITH_ID = b'<a href="/x?sid=%s">x</a>' % ID.encode()


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (b'<a href="/', b'">'),
        (b"<a href='/", b"'>"),
        (b"<a href=/", b">"),
        (b"<a ", b">"),
        (b"<a x=", b">"),
        (b"<a x ", b">"),
        (b"<a x", b"=y>"),
        (b"<a/", b">"),
        (b'<a x=""', b">"),
        (b"<a", b">"),
        (b"</", b">"),
        (b'</p x="', b'">'),
        (b'<xmp x="', b'"><a href="/y"></xmp>'),
    ],
)
@pytest.mark.parametrize("filler", [b"a", b"=", b" ", b"<", b"<a href=/y ", b"a b=c "])
def test_a_tag_too_long_to_hold_passes_and_ends_where_it_ends(start, end, filler):
    """Fed whole and fed in pieces, past the limit and just below it."""
    for size in (1, 90, 101, 300, 5000):
        page = start + filler * (size // len(filler) + 1) + end + TAIL
        whole = rewritten(pages(tag_limit=100), page)
        for step in (1, 7, 64, 4096):
            cuts = range(0, len(page), step)
            assert rewritten(pages(tag_limit=100), page, *cuts) == whole
        if size > 101:
            head = whole.removesuffix(TAIL_WITH_ID).removesuffix(TAIL)
            assert head == page.removesuffix(TAIL), "what is too long is not edited"


@pytest.mark.parametrize(
    "start",
    [
        b'<a href="',
        b"<a ",
        b"<a",
        b"<!--",
        b"<!x",
        b"<![CDATA[",
        b"<svg><![CDATA[",
        b"<svg><style>",
        b"<script>",
        b"<script><!--<script>",
        b"<textarea>",
        b"<noscript><!--",
        b"<noscript><a title='",
        b"<form>",
        b"<form id=f></form>",
        b"",
    ],
)
def test_fifty_megabytes_of_anything_take_no_memory(start):
    rewriter = pages()
    rewriter.feed(start)
    chunk = b"x" * 65536
    out = 0
    tracemalloc.start()
    try:
        for _ in range(800):
            out += len(rewriter.feed(chunk))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_500_000
    assert out > 49_000_000, "and all but a little has gone out"


def test_a_get_form_too_long_to_hold_gets_nothing():
    page = "<form>" + "x" * 1000 + "</form>"
    assert b"hidden" in rewritten(pages(form_limit=len(page)), page)
    for cuts in ([], range(len(page))):
        assert rewritten(pages(form_limit=len(page) - 1), page, *cuts) == page.encode()


def test_no_page_takes_quadratic_time():
    """Four times the page takes about four times the steps of the interpreter's clock."""
    import time

    hostile = [
        b"<", b"<a ", b"<a href=", b'<a href="/', b"<!--", b"<!-", b"<!---", b"--", b"<script>",
        b"<script><!--", b"</script", b"<svg>", b"<svg><title>", b"<b>", b"<b></i>", b"<form>",
        b"<form id=f>", b"<select>", b"<base href=x>", b"&#47", b"<a x='", b"<a x=\"y\"", b"]]>",
        b"<![CDATA[", b"<svg><![CDATA[", b"<noscript>", b"<p a=b c='d' e=\"f\" g>", b"\"", b"=",
    ]  # fmt: skip
    for text in hostile:
        times = []
        for size in (60_000, 240_000):
            page = text * (size // len(text))
            best = min(_timed(time.process_time, page) for _ in range(2))
            times.append(best)
        assert times[1] < 10 * times[0] + 0.05, text


def _timed(clock, page):
    start = clock()
    rewritten(pages(), page, *range(4096, len(page), 4096))
    return clock() - start


def test_a_page_without_links_is_handed_through():
    rewriter = pages()
    chunk = b"<p class=x>text</p>" * 100
    assert rewriter.feed(chunk) is chunk


def test_what_can_go_out_goes_out_at_once():
    rewriter = pages()
    assert rewriter.feed(b"<p>one</p>") == b"<p>one</p>"
    assert rewriter.feed(b'two <a href="/') == b"two "
    assert rewriter.feed(b'x">three</a>') == b'<a href="/x?sid=%s">three</a>' % ID.encode()
    assert rewriter.feed(b"<form><input>") == b""
    assert rewriter.feed(b"</form>!").endswith(b"<input></form>!")


# --- Encodings ----------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf_16_is_left_alone_whatever_the_header_says(mark):
    page = mark + b'<a href="/x">'
    for cuts in ([], [1], [2]):
        assert rewritten(pages(), page, *cuts) == page


def test_a_page_in_iso_2022_jp_that_browsers_have_to_guess_is_left_alone_from_there():
    """Between its escapes, what looks like a tag is Japanese, and the other way round."""
    page = b'<a href="/x">\x1b$B<a href="/y">\x1b(B<a href="/z">'
    wanted = b'<a href="/x?sid=%s">\x1b$B<a href="/y">\x1b(B<a href="/z">' % ID.encode()
    for cuts in ([], *([at] for at in range(len(page)))):
        assert rewritten(pages(sniffed=True), page, *cuts) == wanted
    assert rewritten(pages(sniffed=False), page).count(ID.encode()) == 3


def test_a_base_behind_what_is_not_read_any_more_cannot_lead_links_away():
    page = '<a href="/x"><svg><style><a></style></svg><BASE href="https://evil.example/"><bases>'
    wanted = page.replace("/x", f"/x?sid={ID}").replace("<BASE ", "<link ")
    for cuts in ([], *([at] for at in range(len(page))), range(len(page))):
        assert rewritten(pages(), page, *cuts).decode() == wanted


REFERENCES = [
    *("&amp;", "&amp", "&amp=", "&ampx", "&amp1", "&copy", "&copy=1", "&copy;=1", "&copyx", "&not"),
    *("&notin;", "&notit;", "&lt", "&lt;", "&AMP", "&AMP;", "&Amp;", "&nosuch;", "&", "&&amp;"),
    *("&#65;", "&#65", "&#x41;", "&#X41", "&#0;", "&#128;", "&#x9f;", "&#x81;", "&#xd800;"),
    *("&#x110000;", "&#9999999999999;", "&#", "&#;", "&#x", "&#xg", "&#x2fevil", "&#13;", "&#1;"),
    *("&NotEqualTilde;", "&eacute;", "&eacute", "&colon;", "&Tab;", "&NewLine;", "&sol;", "&bsol;"),
]


@pytest.mark.parametrize("text", REFERENCES)
@pytest.mark.parametrize("after", ["", "/", "=", "a", " "])
def test_references_in_attributes_mean_what_they_mean_to_a_browser(text, after):
    raw = f"x{text}{after}"
    [element] = [e for e, _ in Page(f'<p title="{raw}">', PAGE, True).elements if e.name == "p"]
    found, _ = decoded(raw.encode())
    assert found.encode("latin-1").decode() == element.attrs["title"]


# --- Generated pages ----------------------------------------------------------------------

URLS = [
    *("/x", "x", "", "#t", "?q=1", "/shop/y", "https://app.example/x", "//evil.example/"),
    *("https://evil.example/x", "/\\evil.example", "javascript:x()", "mailto:a", f"/x?sid={OLD}"),
    *("/x?a=1&amp;b=2", "&#47;x", "../..", "/a&#x23;b", "https&colon;//evil.example/"),
    *("/it&#39;s", "/x?a=&copy", "//app.example"),
]
NAMES = [
    *("b", "i", "a", "p", "div", "span", "td", "tr", "table", "li", "ul", "select", "option"),
    *("template", "svg", "math", "title", "desc", "foreignObject", "mi", "form", "noscript"),
    *("button", "font", "nobr", "h1", "h2", "object", "style", "script", "textarea", "iframe"),
    *("xmp", "noembed", "noframes", "body", "html", "head", "br", "frameset", "annotation-xml"),
    *("g", "caption", "optgroup", "label", "fieldset", "plaintext", "image", "dd", "ruby", "em"),
]
BITS = [
    *("text", " ", "<", "</", ">", "<!--", "-->", "--!>", "<!-->", "<![CDATA[", "]]>", "<!x>"),
    *("<?x>", "</>", "</ x>", "&amp;", '"', "'", "=", "/", "<!doctype html>", "\0", "<a"),
    *("<b title='", '<x y="', "/>"),
]


def one_of(*texts):
    return st.sampled_from(texts)


@st.composite
def value(draw, prefix=""):
    """An attribute's value in one of the three ways to write it."""
    url = prefix + draw(st.sampled_from(URLS))
    way = draw(one_of('"', '"', '"', "'", ""))
    if way == "'":
        return f"'{url.replace(way, '')}'"
    if way == "" and url and not re.search(r"[\s>\"']", url):
        return url
    return f'"{url}"'


def tag(pattern, *texts):
    """Return a strategy for *pattern*, its %s filled from *texts*."""
    return st.tuples(*texts).map(lambda filled: pattern % filled)


POLICIES = one_of(
    *("unsafe-url", '"UNSAFE-url"', "'no-referrer-when-downgrade'", '"origin"', '"no-referrer"'),
    *("always", '"x, unsafe-url"', '"unsafe&#45;url"', '""'),
)
FORM_ATTRIBUTES = one_of("", " id=f", " method=post", ' method="get"', " method=dialog")
FRAGMENTS = st.one_of(
    tag("<a href=%s>", value()),
    tag("<form%s action=%s%s>", FORM_ATTRIBUTES, value(), one_of("", "", " id=f")),
    one_of("<form>", "<form method=post>", "</form>", "</form>"),
    tag(
        "<button%s formaction=%s%s>",
        one_of("", " form=f", " form=''"),
        value(),
        one_of("", "", " formmethod=post"),
    ),
    tag(
        "<input type=%s name=%s value=%s formaction=%s>",
        one_of("hidden", "submit", "text"),
        one_of("sid", "x"),
        one_of(ID, OLD, "v"),
        value(),
    ),
    tag('<input type="hidden" name="sid" value="%s">', one_of(ID, OLD)),
    tag("<base href=%s%s>", value(), one_of("", " target=x")),
    tag("<meta http-equiv=refresh content=%s>", value("5;url=")),
    tag("<iframe src=%s>", value()),
    tag("<svg><a xlink:href=%s>", value()),
    tag("<%s referrerpolicy=%s src=%s>", one_of("img", "iframe", "script", "P"), POLICIES, value()),
    tag("<a%s href=%s ping=%s>", one_of("", " referrerpolicy=unsafe-url"), value(), value()),
    tag(
        "<a href=%s ping='%s' referrerpolicy=%s>", value(), one_of("/t", "t //x.example"), POLICIES
    ),
    tag("<meta name=%s content=%s>", one_of("referrer", "Referrer", "x"), POLICIES),
    st.sampled_from(BITS),
    tag(
        "<%s%s>",
        st.sampled_from(NAMES),
        one_of("", "", " class='x'", "/", " a=b/", ' title="</noscript>"', " x='</form>'"),
    ),
    tag("</%s>", st.sampled_from(NAMES)),
)
PAGES = st.lists(FRAGMENTS, max_size=9).map("".join)


def check(page, mount, cuts, url=PAGE):
    """What has to hold for any page."""
    changed = rewritten(pages(mount, page=url), page).decode()
    assert rewritten(pages(mount, page=url), page, *cuts).decode() == changed
    assert rewritten(pages(mount, page=url), page, *range(len(page.encode()))).decode() == changed
    if changed == page:
        return
    assert rewritten(pages(mount, page=url), changed).decode() == changed, "once is enough"
    is_read = not is_given_up(page, mount, url)
    for scripting in (True, False):
        before, after = Page(page, url, scripting), Page(changed, url, scripting)
        for _, destination in after.destinations():
            if destination is not None and ID in destination.href:
                assert after.is_own(destination)
                assert f"{destination.pathname}/".startswith(f"{mount}/")
        if ID not in page:  # else it may be the author who sends it away
            assert not any(after.stolen_fields("sid", ID))
        if is_read:
            assert not any(after.told(ID))
        first, second = before.outline("sid"), after.outline("sid")
        if is_late(page) or "data-href" in changed or "<link" in changed:
            # What stands before a base has been read without it.
            first, second = ([row[:3] for row in rows] for rows in (first, second))
        if first != second and "<input" in changed:
            first, second = settled(first), settled(second)
        assert first == second


def is_given_up(page, mount, url):
    """Whether the rest of a page was left as it is: what it asks for was not read."""
    rewriter = pages(mount, page=url)
    rewriter.feed(page.encode())
    return rewriter._off


PLAIN_URLS = st.sampled_from(
    [
        *("/x", "x.html", "/x?a=1", "/x?a=1&amp;b=2", "/x?a=1&b=2", "/x?a=1&copy", "/a/../b?c#d"),
        *("?q=1", "", "#t", ".", "//evil.example/", "https://evil.example/x?y=1&amp;z", "/\\evil"),
        *("https://app.example/x", "https://app.example", "https://APP.example/y", "/%2e%2e/x"),
        *(f"/x?sid={OLD}", f"/x?a=1&amp;sid={OLD}", f"https://evil.example/{ID}", "/x?s%69d=1"),
        *(
            "mailto:a@b?c",
            "tel:1",
            "javascript:x()",
            f"javascript:'{ID}'",
            "/shop/y",
            "/shop",
            "/~",
        ),
        *(
            "http://app.example/x",
            "https://app.example//x",
            "/x?sid",
            "/x?sidebar=1&=2",
            "a:b",
            "/&#47;x",
        ),
    ]
)
PLAIN_ATTRIBUTES = st.lists(
    st.sampled_from(
        [
            *(' class="c"', " id=i", " title='>'", ' TITLE = "t"', " nowrap", "\nx=y", ' x="<a>"'),
            *(
                ' name="q"',
                " name=sid",
                ' name="sid"',
                " type=hidden",
                ' value="v"',
                f" value={ID}",
            ),
            *(
                ' formaction="//evil.example/"',
                " form=f",
                " form=g id=f",
                ' href="/z"',
                " src=z",
                "/",
            ),
            *(" ping=x", ' referrerpolicy="unsafe-url"', ' http-equiv="refresh"', ' content="5"'),
            *(
                " method=post",
                ' method="get"',
                ' METHOD = "POST"',
                " method",
                ' action="/z"',
                " =x",
            ),
            *(' name="referrer"', " content=always", ' a="&copy"', ' x="y"z', " a = b", " a= 'b'"),
        ]
    ),
    max_size=3,
).map("".join)
PLAIN_NAMES = [
    *("div", "p", "b", "em", "span", "li", "h2", "section", "td", "ul", "font", "small"),
    *("DIV", "P", "B", "button", "BUTTON", "option", "label"),
]
BASES = [
    *(
        "<base href='//evil.example/'>",
        "<base href=/shop/>",
        "<base href=''>",
        "<base href='/x?a'>",
    ),
    f"<base href='/~{ID}/y/'>",
]
VOID_NAMES = ["img", "br", "input", "INPUT", "meta", "hr", "link", "wbr", "table", "select"]


@st.composite
def plain_markup(draw, depth=3):
    """Elements as most pages have them, and now and then a bit that is not."""
    kind = draw(st.integers(0, 9 if depth else 3))
    attributes = draw(PLAIN_ATTRIBUTES)
    if kind == 0:
        return draw(one_of("text", "text", " ", "\n", "&amp;", "<!-- c -->", "<!x>", "<", *BASES))
    if kind == 1:
        return f"<{draw(st.sampled_from(VOID_NAMES))}{attributes}>"
    if kind == 2:
        name = draw(one_of("script", "style", "title", "textarea", "SCRIPT"))
        return f"<{name}{attributes}>{draw(one_of('', 'a < b', '<!--', '<a>', '<i>'))}</{name}>"
    if kind == 3:
        return draw(st.sampled_from(BITS))
    inner = "".join(draw(st.lists(plain_markup(depth=depth - 1), max_size=3)))
    if kind < 6:
        name, close = draw(st.sampled_from(PLAIN_NAMES)), draw(st.integers(0, 9))
        return f"<{name}{attributes}>{inner}" + f"</{name}>" * (close > 0)
    url = draw(PLAIN_URLS)
    quote = draw(one_of('"', '"', "'", ""))
    is_ = draw(one_of("=", "=", " = ", "= "))
    more = draw(PLAIN_ATTRIBUTES)
    names = [
        ("a", "href"),
        ("A", "HREF"),
        ("iframe", "src"),
        ("form", "action"),
        ("form", "action"),
    ]
    name, attribute = draw(st.sampled_from(names))
    return f"<{name}{attributes} {attribute}{is_}{quote}{url}{quote}{more}>{inner}</{name}>"


IN_SEGMENT = f"https://app.example/~{ID}/shop/list"


@settings(max_examples=600 * FUZZ, deadline=None)
@given(
    st.lists(plain_markup(), max_size=4).map("".join),
    st.sampled_from(["", "", "/shop"]),
    st.sampled_from(
        [
            *((InQuery(), PAGE), (InQuery(), PAGE), (InQuery(), f"{PAGE}&sid={ID}")),
            *((InParameter(), PAGE), (InSegment(), PAGE), (InSegment(), IN_SEGMENT)),
            (InSegment(), f"https://app.example/shop/~{ID}/list"),
            (InSegment(), f"https://app.example/shop/~{ID}"),
            (InSegment(), f"https://app.example/~{OLD}/list"),
        ]
    ),
    st.sampled_from([20, 100, 65_536, 65_536]),
    st.data(),
)
def test_plain_markup_taken_at_once_becomes_what_it_becomes_tag_by_tag(
    page, mount, where, limit, data
):
    place, url = where

    limits = {"tag_limit": limit, "form_limit": 2 * limit}

    def once(*cuts):
        leaks = []
        return rewritten(pages(mount, leaks.append, url, place, **limits), page, *cuts), leaks

    def both(*cuts):
        at_once = once(*cuts)
        with mock.patch("nocookie.html.plain_markup", return_value=None):
            return at_once, once(*cuts)

    at_once, by_tags = both()
    assert at_once == by_tags
    size = len(page.encode())
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=3)))
    at_once, by_tags = both(*cuts)
    assert at_once == by_tags


def is_late(page):
    base = re.search("<base", page)
    link = re.search(r"<(?:a|form|meta|button|input|iframe)[\s>]", page)
    return bool(base and link and base.start() > link.start())


@settings(max_examples=600 * FUZZ)
@given(PAGES, st.sampled_from(["", "", "/shop"]), one_of(PAGE, PAGE + f"&sid={ID}"), st.data())
def test_only_what_stays_with_us_changes_in_what_a_browser_sees(page, mount, url, data):
    size = len(page.encode())
    check(page, mount, sorted(data.draw(st.lists(st.integers(0, size), max_size=4))), url)


@settings(max_examples=300 * FUZZ)
@given(PAGES, st.integers(0, 2**32))
def test_a_page_with_broken_bytes_is_cut_and_put_together_alike(page, seed):
    """Bytes flipped, dropped and doubled."""
    rnd = random.Random(seed)
    broken = bytearray(page.encode())
    for _ in range(rnd.randint(1, 5)):
        if broken:
            at = rnd.randrange(len(broken))
            broken[at : at + 1] = rnd.choice([b"", b"<", b">", b'"', b"\0", b"\xe2", b"<a ", b"="])
    cuts = sorted(rnd.randrange(len(broken) + 1) for _ in range(3))
    whole = rewritten(pages(sniffed=False), bytes(broken))
    assert rewritten(pages(sniffed=False), bytes(broken), *cuts) == whole
    assert rewritten(pages(sniffed=False), bytes(broken), *range(len(broken))) == whole


def test_the_judge_can_say_no():
    """A page that leaks is seen to leak."""
    leaking = f'<base href="https://evil.example/"><a href="/x?sid={ID}">'
    page = Page(leaking, PAGE, True)
    assert not any(page.is_own(url) for _, url in page.destinations())
    field = f"<input name=sid value={ID}>"
    for html in (
        f"<form action=/x>{field}<button formaction=//evil.example/></form>",
        f"<form action=/x id=f>{field}</form><button form=f formaction=//evil.example/>",
        f"<form action=//evil.example/>{field}",
    ):
        assert list(Page(html, PAGE, True).stolen_fields("sid", ID)) == ["https://evil.example/"]
    assert Page("<a href=/x>", PAGE, True).outline("sid") == Page(
        f"<a href=/x?sid={ID}>", PAGE, True
    ).outline("sid")
    assert Page("<a href=/x>", PAGE, True).outline("sid") != Page(
        "<a href=/y>", PAGE, True
    ).outline("sid")
    assert ada_url.URL(PAGE).host == "app.example"
    telling = (
        '<img referrerpolicy="Unsafe-URL">',
        "<meta name=referrer content='no-referrer, always'>",
        f"<a href=/x?sid={ID} ping='/t //evil.example/'>",
    )
    for html in telling:
        assert list(Page(html, PAGE, True).told(ID))
    with_id = f"{PAGE}&sid={ID}"
    assert list(Page("<a href=/x ping=//evil.example/>", with_id, True).told(ID)) == ["ping"]
    for html in ("<a href=/x ping=//evil.example/>", "<a ping=/t href=/x>", "<img referrerpolicy>"):
        assert not list(Page(html, PAGE, True).told(ID))
