"""What else a page says by which other origins would be told its URL: style sheets of svg, which
are read otherwise than those of HTML, documents in attributes, and rules for fetching ahead."""

import re

import pytest
from helpers import serve

from nocookie import SessionMiddleware, session
from nocookie.html import HtmlRewriter
from nocookie.rewriting import InQuery, Scope

ID = "k" * 43
LAX = "a{b:url('//other/x' referrer-policy(unsafe-url))}"
PIECES = [
    LAX.replace("policy", "polic&#121;"),
    LAX.replace("policy", "pol<!-- -->icy"),
    LAX.replace("policy", "pol<!-- x > y -->icy"),
    LAX.replace("policy(unsafe-url)", "pol<![CDATA[icy(unsafe-url)]]>"),
    LAX.replace("policy", "<![CDATA[pol]]>icy"),
    LAX.replace("(unsafe", "&lpar;unsafe"),
    f"<!-->{LAX}-->".replace("policy", "polic&#121;"),
]


def rewritten(page, step=None):
    grammar = re.compile("[A-Za-z0-9_-]{43}")
    scope = Scope("http://own.example/p", InQuery("sid"), ID, grammar=grammar)
    leaks = []
    rewriter = HtmlRewriter(scope, sniffed=False, on_leak=leaks.append)
    raw = page.encode()
    step = step or len(raw)
    out = b"".join(rewriter.feed(raw[at : at + step]) for at in range(0, len(raw), step))
    return (out + rewriter.close()).decode(), leaks


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize("css", PIECES)
def test_a_style_sheet_of_svg_that_is_put_together_to_tell_is_emptied(css, step):
    page, leaks = rewritten(f"<svg><style>{css}</style></svg><a href=/x>x</a>", step)
    assert page == f'<svg><style></style></svg><a href="/x?sid={ID}">x</a>'
    assert len(leaks) == 1


@pytest.mark.parametrize(
    "css",
    [
        "a{b:c} /* &amp; */",
        "<![CDATA[a > b {fill:url(#c)}]]>",
        "<!-- a{b:url('//other/x' referrer-policy(origin))} -->",
    ],
)
def test_any_other_style_sheet_of_svg_stays(css):
    page = f"<svg><style>{css}</style></svg>"
    assert rewritten(page) == (page, [])


@pytest.mark.parametrize("start", ["<svg></math><g", "<svg><g></svg></math><svg", "<svg"])
@pytest.mark.parametrize("end", [">", "/>"])
def test_an_attribute_of_svg_tells_nobody_also_where_the_page_is_out_of_order(start, end):
    mask = "mask=\"url('//other/x' referrer-policy({}))\""
    page, _ = rewritten(f"{start} {mask.format('unsafe-url')}{end}")
    assert page == f"{start} {mask.format('same-origin')}{end}"


@pytest.mark.parametrize("css", [*PIECES[:5], LAX.replace("policy", "pol<g/>icy")])
def test_a_document_in_an_attribute_is_read_as_a_page_is(css):
    document = f"<svg><style>{css}</style></svg>".replace("&", "&amp;")
    page, leaks = rewritten(f'<iframe srcdoc="{document}"></iframe>')
    assert page == '<iframe srcdoc=""></iframe>'
    assert leaks


@pytest.mark.parametrize(
    "document",
    [
        "<p>a <a href=/x>b</a><form action=/y><input name=q></form><form></form>",
        "<base href=//other/><a href=x>x</a><script>1 < 2</script><svg><style>a{}</style></svg>",
        "<iframe srcdoc='&amp;lt;p>x'></iframe>",
    ],
)
def test_a_document_that_tells_nothing_stays(document):
    page = f'<iframe srcdoc="{document}"></iframe>'
    assert rewritten(page) == (page, [])


@pytest.mark.parametrize(
    "tag",
    [
        *("<script type={}>", '<script type="{}">', "<script async type='{}'>", "<SCRIPT TYPE={}>"),
        *("<script type = '{}' id=a>", '<svg><script type="{}">', "<script\ntype={}\n>"),
    ],
)
@pytest.mark.parametrize("step", [None, 1])
def test_rules_for_fetching_ahead_are_taken_out_of_force(tag, step):
    page, leaks = rewritten(tag.format("speculationrules") + "{}</script>", step)
    assert page == tag.format("no-speculationrules") + "{}</script>"
    assert leaks == []
    for kind in ("module", "text/javascript", "importmap", "speculationrulesx"):
        page = tag.format(kind) + "{}</script>"
        assert rewritten(page, step) == (page, [])


def test_rules_whose_type_is_written_in_references_are_too():
    page, _ = rewritten("<script type='&#83;peculation&#x52;ules '>{}</script>")
    assert page == "<script type='no-speculationrules'>{}</script>"


NUMBER = "1" * 5000


@pytest.mark.parametrize("rewrite", ["html", "location"])
@pytest.mark.parametrize(
    "tag",
    [
        f"<iframe srcdoc='&amp;#{NUMBER};'></iframe>",
        f"<form action='//other.example/&#{NUMBER};'><input value=x></form>",
        f"<svg><style>&#{NUMBER};</style></svg>",
        f"<a href='/x&#{NUMBER};'>x</a>",
    ],
)
def test_a_page_with_a_reference_of_any_length_goes_out(tag, rewrite):
    def application(environ, start_response):
        session["visits"] = 1
        session.save()
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [f"{tag}{session.id}".encode()]

    app = SessionMiddleware(application, use_cookies=False, find_id="query:sid", rewrite=rewrite)
    found = serve(app)
    again = serve(app, path=f"/?sid={found.id or found.body[-43:].decode()}")
    assert NUMBER.encode() in again.body


def headed(rewrite, page=b"x", *headers):
    def application(environ, start_response):
        session["visits"] = 1
        session.save()
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), *headers])
        return [page]

    events = []
    app = SessionMiddleware(
        application,
        use_cookies=False,
        find_id="query:sid",
        rewrite=rewrite,
        on_event=lambda event: events.append(event.name),
    )
    id = serve(app).id
    del events[:]
    return serve(app, path=f"/?sid={id}"), events


@pytest.mark.parametrize("rewrite", ["html", "location"])
def test_a_header_with_rules_for_fetching_ahead_goes(rewrite):
    answer, _ = headed(rewrite, b"x", ("Speculation-Rules", '"/rules.json"'))
    assert answer.header("Speculation-Rules") is None


def test_rules_in_a_page_that_is_not_rewritten_are_reported():
    rules = b'<script type="speculationrules">{"prefetch":[{"referrer_policy": "unsafe-url"}]}'
    answer, events = headed("location", rules)
    assert answer.body == rules
    assert events == ["leak"]
