"""What strangers write is read in linear time: four times the text takes at most eight times as
long, for every pattern of the package and for everything that reads what clients and pages say.

A pattern or a reader that is not in these tables fails: whoever writes one says here what would
be worst for it. A row is what runs, and texts: a beginning, what is repeated, an end.
"""

import ast
import contextlib
import gc
import importlib
import inspect
import io
import logging
import pickle
import re
import time
from collections import Counter, deque
from copy import copy
from functools import partial
from ipaddress import ip_network
from itertools import product
from pathlib import Path

import pytest
from helpers import serve
from webob import Request

import nocookie
from nocookie import (
    SessionMiddleware,
    ValueRefused,
    carriers,
    cli,
    codecs,
    ids,
    inifile,
    leaks,
    links,
    logs,
    markup,
    places,
    policies,
    reporting,
)
from nocookie.beaker_ids import BeakerIds, is_beaker_id, unsigned
from nocookie.beaker_stores import open_beaker
from nocookie.carriers import (
    AskedHeader,
    Bearer,
    Callback,
    Cookie,
    FirstOf,
    Form,
    Header,
    PathParam,
    PathSegment,
    Query,
    Reply,
)
from nocookie.codecs import JsonCodec
from nocookie.commands import showing
from nocookie.entities import unescaped
from nocookie.html import HtmlRewriter, is_rewritable, says_charset
from nocookie.ids import GRAMMAR, GatewayIds, RandomIds, SignedIds
from nocookie.leaks import BodyWatch
from nocookie.manager import SessionManager
from nocookie.options import OPTIONS
from nocookie.plain import plain_markup
from nocookie.request import Deployment
from nocookie.request import Request as View
from nocookie.rewriting import InParameter, InQuery, InSegment, Scope
from nocookie.stores import close_all
from nocookie.stores.base import Record
from nocookie.stores.file import FileStore
from nocookie.stores.memory import MemoryStore
from nocookie.testing.audit.auditor import Auditor, cookies_of, links_of
from nocookie.testing.audit.client import Answer
from nocookie.testing.audit.elsewhere import leads_elsewhere
from nocookie.testing.audit.target import Target
from nocookie.tokens import Tokens

ROOT = Path(nocookie.__file__).parent
ID = "A" * 43

# -- the measure ---------------------------------------------------------------------------------

#: What four times the text may cost, in times.
MOST = 8
#: Seconds of which such a multiple is not looked at: less is measured badly, and hurts nobody.
FLOOR = 0.0004
#: Seconds after which no longer text is tried.
LONG = 0.15
#: Seconds that no noise explains.
HOPELESS = 3


def cost(make, size):
    """Return the time that the processor takes for a text of this size."""
    run = make(size)
    begin = time.thread_time()
    run()
    return time.thread_time() - begin


@pytest.fixture(autouse=True)
def no_garbage():
    """Garbage is collected when there is much of it, and not while it is measured."""
    gc.disable()
    yield
    gc.enable()


def check_growth(make, name, top=65_536):
    """Fail if what `make(size)` returns takes more than linear time. Where it seems to, it is
    measured again: noise goes away by that, and what is quadratic stays so."""
    size = 1024
    least = min(cost(make, size), cost(make, size))  # the first may have had to prepare
    while True:
        size *= 4
        more = cost(make, size)
        for _ in range(12):
            if more <= MOST * max(least, FLOOR) or more > HOPELESS:
                break
            more = min(more, cost(make, size))
        assert more <= MOST * max(least, FLOOR), (
            f"{name}: {size // 4} take {least:.5f} s, {size} take {more:.5f} s"
        )
        if size >= top or more > LONG:
            return
        least = more


def pumped(start, repeated, end, size):
    return start + repeated * max(size // len(repeated), 1) + end


def check_texts(run, texts, name, top=65_536):
    for start, repeated, end in texts:
        check_growth(
            lambda size, a=start, b=repeated, c=end: partial(run, pumped(a, b, c, size)),
            f"{name} of {start[:60]!r} + {repeated[:60]!r} * n + {end[:60]!r}",
            top,
        )


# -- the texts -----------------------------------------------------------------------------------

_REPEATED = [
    *("a", "/", ";", "=", "&", "?", "#", ".", ":", "@", "\\", "\t", "\n", " ", "0", ",", "~", "%"),
    *("'", '"', "<", ">", "[", "-", "\x00", "\xe9", "..", "/.", "/..", "a/", "a;", "=;", ";a=b"),
    *(
        "%41",
        "%2e",
        "%2E/",
        "0.",
        "0;",
        " ;",
        "\t;",
        "\r\n",
        "http:",
        "http://",
        "//a",
        "url=",
        "+",
    ),
    *(";sid=", ";sid=1", "&sid=1", "&s%69d=1", "/~", f"/~{ID}", f";sid={ID}", f"&sid={ID}", "&&"),
    *(f"<{ID}>", "<a>", "proto=", ";proto=https", " proto", "k v\n", "sid=", "ssl", "/A", "%7E"),
]
#: What a URL, or a header, may consist of: each to the end, and up to what may not follow.
WORDS = [("", repeated, end) for repeated in _REPEATED for end in ("", "/\x00")]
#: The same where something else came before.
URLS = [
    *WORDS,
    *product(
        (";sid=", "/x;sid=", "?sid=", "//", "http://localhost/", "a:", "\n", f"/~{ID}/"),
        ("a", "/", ";", "\n", "%41", "..", "/..", ";sid=1", "&", "A/"),
        ("", "/"),
    ),
]

#: The same for what takes Python more than a pattern.
FEW = list(
    product(
        ("", "?sid=", "/x;sid=", "//", "\n", "/?a#"),
        ("a", "/", ";sid=1", "&", "/..", "%41", "\n", ID, "&sid=1"),
        ("",),
    )
)

_TAGS = [
    *("<", "<a ", "<a href=", '<a href="/', "<a href=/x>", "<a href=/x>y</a>", '<a href="/x"><b>'),
    *(
        "<a href=x>",
        "<a href=''>",
        "<a href='#a'>b</a>",
        "<a href='?a'>",
        "<p a=b c='d' e=\"f\" g>",
    ),
    *("<!--", "<!-", "<!---", "--", "--!", "-->", "<!x", "<?", "</", "</x", "</a", "</a>", "<!x>"),
    *("<script>", "<script><!--", "</script", "<!--<script>", "<script></script>", "<style>"),
    *("<svg>", "<math>", "</svg>", "<svg><title>", "<title>", "<title></title>", "</title>"),
    *("<b>", "<b></i>", "<b>x</b>", "<b><i>", "<i>", "<u><br>", "<form>", "<form id=f>", "</form>"),
    *("<form><input></form>", "<form x=&><p></form>", "<form action=/x>", "<form method=post>"),
    *("<select>", "<option>", "<select><option>", "</select>", "<textarea>", "<table>", "<tr><td>"),
    *("<base href=x>", "<base>", "<noscript>", "</noscript>", "<noscript><a>", "<template>"),
    *("<button formaction=//o>", "<input name=sid>", "<button>", "<iframe src=/x>", "<frameset>"),
    *("<meta http-equiv=refresh content='0;url=x'>", "<meta name=referrer content=always>"),
    *("&", "&lt", "&#47", "&#x", "&amp;", "&a", "]]>", "]]", "]", "<![CDATA[", "<![CDATA[>]]>"),
    *('"', "'", "=", "/", ">", " ", "\n", "x", "a=", 'a="', 'a=b "', "\t=", "\x00", "\x1b", "-"),
    *("referrerpolicy", "<p referrerpolicy=always>", "<a ping='/x /y' href=/z>", "href=/x "),
    *("content=unsafe-url", "content= ", "content=a-a,", "unsafe-url", "<label>", "<div><p>"),
]
PAGES = [
    *(("", repeated, "") for repeated in _TAGS),
    *product(
        ("<svg>", "<svg><![CDATA[", "<select>", "<noscript>", "<svg><title>", "<a x='", '<a x="'),
        (
            "<title></title>",
            "x",
            ">",
            "<",
            "<a href=x>",
            "<!-- -->",
            "]]",
            '"',
            "' y='",
            "<b>",
            "/",
        ),
        ("", "</svg>"),
    ),
    *product(
        ("<a href='", "<form action='/x?", "<meta http-equiv=refresh content='", "<a ping='"),
        ("&lt", "&", "&#47;", "0", "0.", "\n", "/", "/..", "a&", "\t/", ";", "x ", "&#x2f"),
        ("", "'>", "x' href=/y>z</a>"),
    ),
    *product(
        ("<!--", "<!", "</ ", "<script>", "<textarea>", "<form>", "<form id=f></form>", "<b>"),
        ("x", "-", "<", ">", "<!--", "<script", "</form>", "<p>", "<form></form>", "<b></b>"),
        ("",),
    ),
]

#: Of a page that is fed in small pieces: what is unfinished for long.
PIECES = [
    *product(
        (
            "<svg><![CDATA[",
            "<a x='",
            '<a x="',
            "<noscript><!--",
            "<svg><title>",
            "<!--",
            "<a href=",
        ),
        ("x", ">", "<", '"', "-", "'>", "]"),
        ("",),
    ),
    *(
        ("", repeated, "")
        for repeated in ("<form id=f>", "<form id=f></form>", "<a ", "<b>", "<svg>")
    ),
    *(
        ("", repeated, "")
        for repeated in ("<script>", "<title>", "&lt", "<base href=x>", "<!", "\x1b")
    ),
    *(
        ("<form id=f>", repeated, "")
        for repeated in ("</form><form x=&><p></form>", "<input name=sid>")
    ),
]

# -- the patterns --------------------------------------------------------------------------------

_CALLS = {"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}


def patterns_of(source, module):
    """Yield (name, call) for each pattern in the source of a module. Its name says where it is and
    what it is put into."""
    counts = Counter()

    def walk(node, path):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            path = [*path, node.name]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            path = [*path, ast.unparse(target).removeprefix("self.")]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            # By another name a pattern would not be found here.
            assert not (isinstance(node, ast.ImportFrom) and node.module == "re"), module
            assert all(each.name != "re" or not each.asname for each in node.names), module
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and ast.unparse(node.func.value) == "re"
            and node.func.attr in _CALLS
        ):
            called = "" if node.func.attr == "compile" else f" {node.func.attr}"
            name = f"{module}:{'.'.join(path)}{called}"
            counts[name] += 1
            yield name if counts[name] == 1 else f"{name} {counts[name]}", node
        for child in ast.iter_child_nodes(node):
            yield from walk(child, path)

    yield from walk(ast.parse(source), [])


def all_patterns():
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(("nocookie", *path.relative_to(ROOT).with_suffix("").parts))
        found |= patterns_of(path.read_text("utf-8"), module.removesuffix(".__init__"))
    return found


FOUND = all_patterns()


def use(method):
    """Return what finds a pattern by its name, and what runs it as the package does."""

    def find(name):
        module, _, where = name.partition(":")
        there = getattr(importlib.import_module(module), where, None)
        if there is None:  # it is in a function, and says what it is
            there = re.compile(ast.literal_eval(FOUND[name].args[0]))
        calls = []
        for each in there.values() if isinstance(there, dict) else [there]:
            pattern = each if isinstance(each, re.Pattern) else each.__self__
            call = getattr(pattern, method)
            calls.append(partial(call, b"" if type(pattern.pattern) is bytes else "")
                         if method == "sub" else call)  # fmt: skip
        is_bytes = type(pattern.pattern) is bytes

        def run(text):
            given = text.encode("latin-1") if is_bytes else text
            for call in calls:
                found = call(given)
                if method == "finditer":
                    deque(found, 0)

        return run

    return find


def by(run):
    """Return the same for a pattern that is run by what it belongs to."""
    return lambda name: run


def at_tags(method="match"):
    """Return the same for a pattern that is tried where a tag may begin, and nowhere twice."""

    def find(name):
        module, _, where = name.partition(":")
        there = getattr(importlib.import_module(module), where)
        patterns = there.values() if isinstance(there, dict) else [there]
        calls = [getattr(pattern, method) for pattern in patterns]

        def run(text):
            given = text.encode("latin-1")
            for call in calls:
                at = 0
                while (found := call(given, at)) and found.end() > at:
                    at = found.end()

        return run

    return find


def environ(**more):
    return {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": "", **more}


def refusing(call):
    """Return *call*, which may say no."""

    def run(text):
        try:
            return call(text)
        except (ValueError, carriers.AmbiguousId, nocookie.NocookieError, ids.NotAnId):
            return None
        except codecs.Undecodable:
            return None

    return run


def preparing(carrier):
    """Return what has a carrier look at a text wherever it looks."""
    own = {"PATH_INFO": f"/~{ID}/x;sid={ID}", "QUERY_STRING": f"sid={ID}"}

    def run(text):
        for name in ("PATH_INFO", "QUERY_STRING"):
            carrier.prepare(environ(**{name: text}))
        carrier.prepare(environ(PATH_INFO=text, REQUEST_URI=text))
        for name in ("REQUEST_URI", "HTTP_REFERER", "HTTP_X"):
            carrier.prepare(environ(**own, **{name: text + ID}))

    return run


PLACES = [InQuery("sid"), InParameter("sid"), InSegment("~")]


def scopes(page="http://localhost/app/page?a=b", mount="/app"):
    return [Scope(page, place, ID, grammar=re.compile(GRAMMAR), mount=mount) for place in PLACES]


def in_scopes(method, **options):
    def run(text):
        for scope in scopes():
            getattr(scope, method)(text, **options)

    return run


def in_plain_markup(text):
    given = text.encode("latin-1")
    for scope in (*scopes(), *scopes(mount="")):
        for found in plain_markup(scope).finditer(given):
            if found.lastgroup is None:
                break


def option(name):
    convert = next(each.convert for each in OPTIONS.values() if each.name == name)
    return refusing(convert)


def ini(text):
    with contextlib.suppress(nocookie.ConfigError):
        inifile.IniFile(Written(text))


class Written:
    """A file that is a text."""

    def __init__(self, text):
        self.text = text

    def absolute(self):
        return Path("/nowhere")

    def read_text(self, encoding):
        return self.text


def told(carrier):
    auditor = Auditor(Target(base="http://localhost", carrier=carrier))
    return lambda text: auditor.told(Answer(200, [("Location", text)], b"", 0.0))


def masked(text):
    auditor = Auditor(Target(base="http://localhost"))
    auditor.issued.add(ID)
    auditor.masker()(text)


def tag_of(text):
    tag = b"<a " + text.encode("latin-1")
    markup.beginning(tag)
    found = markup.TAG.match(tag + b">")
    if found is not None:
        markup.closes_itself(tag + b">", found)


LETTERS = [
    *(("", letter, end) for letter in ("a", "A", "0", "-", ".", " ", ID) for end in ("", "!")),
    ("a" * 40, "f", ""),
]
BLANKS = [
    ("k", " ", ""),
    ("k", " ", "x"),
    *product(("",), (" ", "k", "k ", "k \t", "[", "=", ":"), ("", "=", "\n")),
]

HEADERS = [
    *(
        ("", repeated, "")
        for repeated in (",", ";", "a,", "a=b,", " ", "<", "public,", "=", '"', "/")
    ),
    *(("", repeated, "!") for repeated in (" ,", ";a=b", "proto=https;", "prefetch", "no-store,")),
]
#: What style sheets, policies and what says where reports go may consist of.
_PARTS = [
    *(
        "r",
        "referrer-policy(",
        "referrer-policy(a)",
        "\\",
        "\\72 ",
        "\\0000",
        "policy(",
        '"',
        '\\"',
    ),
    *('"\\', "<", "<input ", "<textarea>", "<form action=x>", "content=", "content=a ", "&amp;"),
    *("referrerpolicy=", "referrerpolicy=\t", "report-uri x;", "report-to ", "a=", "[", "[0;", "{"),
    *(
        'a="b",',
        '{"endpoints":[]},',
        "\\x41",
        "action=",
        'action="',
        "value=x ",
        " ",
        ",",
        "(",
        "y(",
    ),
]
POLICIES = list(product(("", "r", '"', "<form action=//o><input value="), _PARTS, ("", "!")))


def css_of(text):
    policies.lax_css(text.encode("latin-1"), 0, len(text), is_whole=False)


SVG = POLICIES + [("", repeated, "") for repeated in ("<!--", "<!-- -->", "<![CDATA[", "]]>", "-")]
REFERENCES = [*product(("", "&#"), ("1", "0", "&#", "&#1", "&#12345678;", "&amp;"), ("", ";"))]


def svg_css_of(text):
    policies.says_lax_in_svg(text.encode("latin-1"))


def forms_of(text):
    page = b"<form action=x>" + ID.encode() + text.encode("latin-1")
    for step in (1024, len(page)):
        watch = leaks.FormWatch([ID], lambda url: False, lambda: None)
        for at in range(0, len(page), step):
            watch.feed(page[at : at + step])
        watch.close()


def urls_of(text):
    ids = [ID, "B" * 43]
    page = f"<p {text} src='{ID}<a {text}{ID} {text} style={ids[1]}".encode("latin-1")
    for step in (1024, len(page)):
        watch = leaks.LaterWatch(lambda: leaks.UrlWatch(ids, lambda url: True, lambda name: None))
        for at in range(0, len(page), step):
            watch.feed(page[at : at + step])
        watch.close()


def others(text):
    found = leaks.PlacedIds(
        [Query(), PathSegment(), PathParam()], lambda one: one != ID, signed=False
    )
    for scope in scopes():
        found.other_than([ID], text.encode("latin-1"), partial(copy, scope))
        page = f"{text}/~{'B' * 43} {text}?sid={'B' * 43} ".encode("latin-1")
        found.other_than([], page, partial(copy, scope))


def reports_of(text):
    for name in (
        *("Content-Security-Policy", "Content-Security-Policy-Report-Only"),
        *("Reporting-Endpoints", "Report-To", "NEL"),
    ):
        given = [(name, text)]
        reporting.says_where(given)
        for is_own in (True, False):
            reporting.keep_reports(given, lambda url, own=is_own: own, of_this_page=True)


#: How each pattern is run, and on what.
PATTERNS = {
    "nocookie.beaker_ids:_matches": (use("fullmatch"), LETTERS),
    "nocookie.beaker_ids:_is_md5": (use("fullmatch"), LETTERS),
    "nocookie.commands.check:_OBJECT": (use("fullmatch"), [*LETTERS, ("", "a.", ":a")]),
    "nocookie.options:_TIMEDELTA": (use("fullmatch"), [*LETTERS, ("", "9", " days, 0:00:00")]),
    "nocookie.carriers:Query.__init__._is_escaped": (
        by(preparing(Query())),
        [*WORDS, ("", "amp;", ""), ("&", "amp;", "sid"), ("", "&amp;", "sid=1")],
    ),
    "nocookie.carriers:_PREFIX": (use("match"), [*LETTERS, ("", "__Host-", "")]),
    "nocookie.carriers:_is_name": (
        use("fullmatch"),
        [*LETTERS, ("", "a.", ""), ("", "a.", "."), ("", "a-", ".b")],
    ),
    "nocookie.carriers:_is_cookie_path": (use("fullmatch"), [*LETTERS, ("/", "a/", "\n")]),
    "nocookie.carriers:_control": (use("search"), WORDS),
    "nocookie.beaker_ids:_signed": (use("fullmatch"), LETTERS),
    "nocookie.carriers:PathSegment.__init__ fullmatch": (use("fullmatch"), LETTERS),
    "nocookie.carriers:PathSegment.__init__._first": (by(preparing(PathSegment())), WORDS),
    "nocookie.carriers:PathSegment.__init__._odd": (by(preparing(PathSegment())), WORDS),
    "nocookie.carriers:PathSegment.__init__.anywhere": (by(PathSegment().bare), URLS),
    "nocookie.carriers:_ENDS_SEGMENT": (use("split"), WORDS),
    "nocookie.carriers:_DOTS": (use("fullmatch"), URLS),
    "nocookie.carriers:_UNRESERVED": (use("fullmatch"), LETTERS),
    "nocookie.carriers:_is_id": (use("fullmatch"), LETTERS),
    "nocookie.carriers:PathParam.__init__._params": (by(PathParam().bare), URLS),
    "nocookie.carriers:Cookie.__init__._values": (
        by(refusing(lambda text: Cookie("sid").read({"HTTP_COOKIE": text}))),
        [*WORDS, *product(("", ";", "sid", "a;sid"), (" ", "\t", "; ", ";sid =", '"'), ("", "x"))],
    ),
    "nocookie.checking:_TLS": (use("search"), LETTERS + [("", "ssl", ""), ("", "sslmode=", "")]),
    "nocookie.checking:_EGG": (use("fullmatch"), LETTERS),
    "nocookie.commands.fingerprints:_is_fingerprint": (use("fullmatch"), LETTERS),
    "nocookie.commands.make_config:_ODD": (use("sub"), WORDS),
    "nocookie.html:_CHARSET": (use("fullmatch"), [*HEADERS, ("charset=", "a", "!"), ("", " ", "")]),
    "nocookie.html:_POLICY": (use("search"), PAGES),
    "nocookie.html:_POLICY_IN_SVG": (use("search"), PAGES),
    "nocookie.html:_WORDS": (use("findall"), WORDS),
    "nocookie.html:_ABSOLUTE": (use("match"), URLS),
    "nocookie.html:HtmlRewriter._shorten match": (use("match"), PAGES),
    "nocookie.ids:_matches": (use("fullmatch"), LETTERS),
    "nocookie.inifile:_LINE": (use("match"), BLANKS),
    "nocookie.leaks:_ADDRESSES": (use("findall"), WORDS),
    "nocookie.leaks:_is_of_document": (
        use("match"),
        [*HEADERS, *product(("", "a/"), (" ", "+", "+xml", "a"), ("", ";"))],
    ),
    "nocookie.leaks:_urls": (use("sub"), WORDS + URLS),
    "nocookie.leaks:_SAYS_LAX": (
        use("search"),
        [*PAGES, *product(("", "content="), ("content=", "a", " ", "content= ", "a-,"), ("", "x"))],
    ),
    "nocookie.leaks:PlacedIds.__init__": (by(others), WORDS + POLICIES),
    "nocookie.leaks:_before_url": (by(others), WORDS + POLICIES),
    "nocookie.leaks:_unquoted": (by(others), WORDS + POLICIES),
    "nocookie.leaks:_tag": (use("match"), [*PAGES, ("<", "a", "")]),
    "nocookie.leaks:_attributes": (
        use("finditer"),
        [*PAGES, *POLICIES, ("", "a=", ""), ("", "a =", "")],
    ),
    "nocookie.leaks:_in_css": (use("split"), POLICIES),
    "nocookie.leaks:_form_tags": (use("finditer"), [*PAGES, *POLICIES]),
    "nocookie.leaks:_action": (by(forms_of), POLICIES),
    "nocookie.leaks:_actions": (by(forms_of), POLICIES),
    "nocookie.leaks:_value": (by(forms_of), POLICIES),
    "nocookie.links:_grammar": (use("fullmatch"), LETTERS),
    "nocookie.manager:_PLAIN_ORIGIN": (use("fullmatch"), URLS),
    "nocookie.logs:_ids": (use("sub"), WORDS + LETTERS + POLICIES),
    "nocookie.logs:_is_id": (use("fullmatch"), LETTERS),
    "nocookie.logs:_segments": (use("sub"), WORDS + LETTERS),
    "nocookie.markup:_NAMELESS sub": (use("sub"), [("", "(", ""), ("", "(?", "")]),
    "nocookie.markup:TAG": (at_tags(), PAGES),
    "nocookie.markup:ATTRIBUTES": (by(tag_of), PAGES),
    "nocookie.markup:OTHER": (at_tags(), PAGES),
    "nocookie.markup:_UNFINISHED": (at_tags(), PAGES),
    "nocookie.markup:NOSCRIPT_END": (use("match"), PAGES),
    "nocookie.markup:BASE_TAG": (use("sub"), PAGES),
    "nocookie.markup:BASE_TAIL": (use("search"), PAGES),
    "nocookie.markup:IS_TAG": (use("match"), PAGES),
    "nocookie.markup:TEXT": (at_tags(), PAGES),
    "nocookie.markup:DULL": (at_tags(), PAGES),
    "nocookie.entities:_decimal": (
        by(unescaped),
        [*PAGES, ("&#", "9", ";"), ("&#", "0", "65;"), ("", "&#12345678", ""), ("", "&", "#1;")],
    ),
    "nocookie.markup:CDATA_CONTRADICTS": (at_tags(), PAGES),
    "nocookie.markup:CDATA_EITHER_WAY": (at_tags(), PAGES),
    "nocookie.markup:CDATA_AS_COMMENT": (at_tags(), PAGES),
    "nocookie.markup:RAW_END": (use("search"), PAGES),
    "nocookie.markup:RAW_END_IN_NOSCRIPT": (use("search"), PAGES),
    "nocookie.markup:SCRIPT": (use("finditer"), PIECES),
    "nocookie.markup:PLAIN_END": (use("match"), PAGES),
    "nocookie.markup:PLAIN": (at_tags(), PAGES),
    "nocookie.markup:_REFERENCE": (use("finditer"), PAGES),
    "nocookie.options:_LABEL": (use("fullmatch"), LETTERS + [("", "a-", "")]),
    "nocookie.options:_NUMBER": (use("fullmatch"), LETTERS),
    "nocookie.options:_SEGMENT": (use("fullmatch"), URLS),
    "nocookie.options:_TOKEN": (use("fullmatch"), LETTERS),
    "nocookie.options:_ORIGIN": (by(option("origin")), URLS),
    "nocookie.options:_networks.texts split": (by(option("trusted_proxies")), WORDS),
    "nocookie.places:UNSEEN": (use("sub"), WORDS),
    "nocookie.places:_ANY_AUTHORITY": (use("match"), URLS),
    "nocookie.places:_SLASHES": (use("split"), URLS),
    "nocookie.places:_AFTER_PATH": (use("search"), URLS),
    "nocookie.places:_EMPTY_OR_DOTS": (use("fullmatch"), URLS),
    "nocookie.plain:_WRITTEN_AS_IT_IS": (use("fullmatch"), LETTERS),
    "nocookie.plain:_compiled": (by(in_plain_markup), PAGES),
    "nocookie.policies:_functions": (use("finditer"), POLICIES),
    "nocookie.policies:_unfinished": (by(css_of), POLICIES),
    "nocookie.policies:_unsaid": (by(svg_css_of), SVG),
    "nocookie.policies:_marks": (by(svg_css_of), SVG),
    "nocookie.policies:_lax": (use("finditer"), POLICIES + PAGES),
    "nocookie.policies:_link_policies": (use("sub"), POLICIES + HEADERS),
    "nocookie.policies:_tightened.said sub": (use("sub"), POLICIES),
    "nocookie.reporting:_endpoint": (use("fullmatch"), POLICIES + HEADERS),
    "nocookie.reporting:_members": (use("findall"), POLICIES + HEADERS),
    "nocookie.rewriting:_ODD": (use("search"), URLS),
    "nocookie.rewriting:_SCHEME": (use("match"), URLS),
    "nocookie.rewriting:_ABSOLUTE": (use("match"), URLS),
    "nocookie.rewriting:_HOST": (use("fullmatch"), URLS),
    "nocookie.rewriting:_DOT": (use("fullmatch"), URLS),
    "nocookie.rewriting:_DOTS": (use("fullmatch"), URLS),
    "nocookie.rewriting:_ENCODED_IN_PATH": (use("sub"), URLS),
    "nocookie.rewriting:_ENCODED_IN_QUERY": (use("sub"), URLS),
    "nocookie.rewriting:_REFRESH": (
        use("match"),
        [
            *URLS,
            *product(
                ("", "0", "0.", ".", "0;", "0 url"), ("0", "0.", ".", " ", "\n", "url="), ("", "x")
            ),
        ],
    ),
    "nocookie.request:_quoted_text": (use("sub"), POLICIES + HEADERS),
    "nocookie.request:_no_marks": (use("sub"), POLICIES + HEADERS),
    "nocookie.request:_absolute": (use("match"), URLS),
    "nocookie.request:_is_id": (use("fullmatch"), LETTERS),
    "nocookie.request:_long": (use("sub"), WORDS + LETTERS),
    "nocookie.request:_of_addresses": (use("search"), WORDS),
    "nocookie.stores.memcached:MemcachedStore.__init__ fullmatch": (use("fullmatch"), LETTERS),
    "nocookie.stores.memcached_servers:_address fullmatch": (use("fullmatch"), URLS),
    "nocookie.stores.memcached_servers:_address.match fullmatch": (use("fullmatch"), URLS),
    "nocookie.stores.redis_url:read fullmatch": (use("fullmatch"), URLS),
    "nocookie.stores.redis_url:_client_name fullmatch": (use("fullmatch"), LETTERS),
    "nocookie.stores.redis_url:_seeds.(netloc, slash, after) fullmatch": (use("fullmatch"), URLS),
    "nocookie.stores.redis:RedisStore.keys.pattern sub": (use("sub"), WORDS),
    "nocookie.testing.audit.auditor:Auditor.__init__._in_url": (by(told("query:sid")), URLS),
    "nocookie.testing.audit.auditor:Auditor.__init__._in_url 2": (by(told("path:~")), URLS),
    "nocookie.testing.audit.auditor:Auditor.masker sub": (by(masked), LETTERS),
    "nocookie.testing.audit.auditor:_is_hex fullmatch": (use("fullmatch"), LETTERS),
    "nocookie.testing.audit.checks.ids:like fullmatch": (use("fullmatch"), LETTERS),
    "nocookie.testing.audit.checks.ids:not_stored.keys findall": (use("findall"), LETTERS),
    "nocookie.testing.audit.checks.ids:safe_texts fullmatch": (use("fullmatch"), LETTERS),
    "nocookie.testing.audit.checks.ids:_look_for_injection search": (use("search"), WORDS),
    "nocookie.testing.audit.elsewhere:_SCHEME": (use("fullmatch"), URLS),
    "nocookie.testing.audit.elsewhere:leads_elsewhere.authority split": (use("split"), URLS),
    "nocookie.tokens:_is_text": (use("fullmatch"), LETTERS),
}
#: Others that are put into the same name, and tried with the first.
TOGETHER = {f"nocookie.leaks:_ADDRESSES {n}" for n in (2, 3, 4)}


def test_every_pattern_has_texts():
    assert set(FOUND) - set(PATTERNS) - TOGETHER == set(), "say what would be worst for these"
    assert set(PATTERNS) | TOGETHER <= set(FOUND), "these are gone"


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_linear_time(name):
    find, texts = PATTERNS[name]
    check_texts(find(name), texts, name)


# -- the readers ---------------------------------------------------------------------------------


def reply(*headers, **more):
    return Reply("200 OK", list(headers), environ(**more))


def ask(carrier):
    """Return what has a carrier read a text from wherever it may."""

    def run(text):
        place = text.encode("latin-1")
        env = environ(
            REQUEST_METHOD="POST",
            PATH_INFO=text,
            QUERY_STRING=text,
            CONTENT_TYPE="application/x-www-form-urlencoded",
            CONTENT_LENGTH=str(len(place)),
            HTTP_COOKIE=text,
            HTTP_AUTHORIZATION="Bearer " + text,
            HTTP_X_SESSION_ID=text,
        )
        env["wsgi.input"] = io.BytesIO(place)
        getattr(carrier, "prepare", lambda env: None)(env)
        if hasattr(carrier, "read"):
            refusing(carrier.read)(env)
        refusing(carrier.find)(Asked(env))

    return run


class Asked:
    """A request, for carriers that look no further than its environ."""

    def __init__(self, environ):
        self.environ = environ


def placed(carrier):
    def run(text):
        carrier.place(ID, reply(("Access-Control-Expose-Headers", text), HTTP_ORIGIN=text))
        carrier.forget(reply())

    return run


def to_environ(call, *names, **more):
    """Return what puts a text into environ and calls."""
    return lambda text: call(environ(**more, **dict.fromkeys(names, text)))


def fed(step, finish=True, sniffed=False):
    """Return what feeds a page in pieces to a rewriter."""

    def run(text):
        page = text.encode("latin-1")
        for scope in scopes()[: len(PLACES) if step == 4096 else 1]:
            rewriter = HtmlRewriter(scope, sniffed=sniffed)
            for at in range(0, len(page), step):
                rewriter.feed(page[at : at + step])
            rewriter.close()

    return run


def watched(text):
    page = text.encode("latin-1")
    for step in (16, len(page)):
        watch = BodyWatch(leaks.tells_others, 160, lambda: None)
        for at in range(0, len(page), step):
            watch.feed(page[at : at + step])
        watch.close()


GUARD = SessionManager(use_cookies=False, find_id="query:sid, path:~, param:sid")


def pages_of(text):
    page = f"<form action=//o><input value={ID}>?sid={ID} {text}".encode("latin-1")
    for step in (1024, len(page)):
        watch = leaks.PageWatch(GUARD, environ(), (ID,), ID, None)
        for at in range(0, len(page), step):
            watch.feed(page[at : at + step])
        watch.close()


def filtered(text):
    record = logging.makeLogRecord({"msg": "%s", "args": (text,), "more": text, "some": [text]})
    record.exc_text, record.stack_info = text, text
    logs.MaskIds().filter(record)


def leaking(text):
    for name in ("Location", "Content-Location", "Refresh", "Link", "X-Else"):
        for scope in scopes():
            leaks.leak_in_head(reply((name, text + ID)), ID, scope, lambda name: False)


def linked(text):
    env = environ(PATH_INFO=text, QUERY_STRING=text, HTTP_HOST=text, SERVER_NAME="a")
    for carrier in (Query(), PathSegment(), PathParam()):
        scope = links.scope_of(View(env), carrier, ID)
        for status in ("200 OK", "302 Found"):
            given = reply(("Location", text), ("Refresh", text), ("Content-Type", text))
            given.status = status
            links.put_on_head(scope, given)
            links.strip_head(scope, given)
            links.leads_on(given)
            links.is_page(given)
            links.put_on_body(scope, given, lambda what: None)


def viewed(text):
    """What is known of a request, wherever a text may stand in it."""
    deployment = Deployment(proxies=[ip_network("127.0.0.0/8")])
    purposes = ("HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_MOZ")
    names = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_PROTO", "HTTP_HOST", "HTTP_USER_AGENT")
    for name in (*names, *purposes, "PATH_INFO", "QUERY_STRING", "SCRIPT_NAME"):
        view = View(environ(REMOTE_ADDR="127.0.0.1", REQUEST_URI=text, **{name: text}), deployment)
        for each in (
            "is_passive",
            "is_speculative",
            "may_tell",
            "front",
            "url",
            "is_moved",
            "sent_path",
        ):
            getattr(view, each)
        view.client_digest()
        view.is_mounted_at(text)
        view.hide_ids((ID,), Query().bare)
    View(environ(HTTP_REFERER=text), deployment).strip_referer(Query().bare)
    View(environ(REMOTE_ADDR=text), deployment).came_by_https  # noqa: B018
    View(environ(REMOTE_ADDR=text), deployment).is_local  # noqa: B018


def in_places(method):
    """Return what has each place of an id edit a URL that is inside, or any."""

    def run(text):
        for scope in scopes(mount=""):
            if method == "scrub":
                scope.place.scrub(text, scope)
            elif (url := scope.read("/x" + text)) is not None:
                getattr(scope.place, method)(url, scope)

    return run


def attribute_of(text):
    raw = text.encode("latin-1")
    value, marks = markup.decoded(raw)
    markup.escaped(value)
    given = markup.Attribute(0, 0, len(raw), b'"')
    markup.written(raw, given, value, marks, [(0, 1, "a"), (len(value), len(value), "b")])


def keyed(scheme):
    return refusing(scheme.key)


def encoded(text):
    codec = JsonCodec()
    for value in (
        text,
        [text, {text: text}],
        list(text[:9999]),
        dict.fromkeys(text[:9999]),
        {text},
    ):
        assert codec.loads(codec.dumps(value)) == value


def stored(text):
    for form in ("s", "i", "j", 'j{"!decimal":"', 'j"', 'j{"!datetime":["', 'j{"!timedelta":['):
        refusing(JsonCodec().loads)((form + text).encode())
        refusing(JsonCodec().loads)((form + text + '"}').encode())


def shown(text):
    list(showing.table(["a", "b", "c"], [[text, text, text]] * 3))
    showing.printable(text)


VALUES = [
    *(("", repeated, "") for repeated in ("1", "[", "[1,", '{"a":', "\\", "9", "e9", "-1,", 'a"')),
    *(("[", repeated, "0]") for repeated in ("1,", "[1],", '"a",', '{"!tuple":[]},', "1.5e3,")),
    *(('{"!set":[', repeated, "0]}") for repeated in ('"a",', '"\\u00e9",')),
]
NAMES = [
    *(("", letter, "") for letter in ("a", " ", "\n", "\x1b", "\u0301", "\u4e00", "a\u0301", ",")),
    *(("a" * 20, letter, "b") for letter in ("\u0301", "\u4e00", "\t")),
]
URL_CARRIERS = {"Query": Query(), "PathSegment": PathSegment(), "PathParam": PathParam()}
CARRIERS = {
    **URL_CARRIERS,
    "Header": Header(),
    "AskedHeader": AskedHeader(),
    "Bearer": Bearer(),
    "Form": Form(),
    "Cookie": Cookie("sid"),
    "Callback": Callback(lambda request: request.environ["QUERY_STRING"]),
    "FirstOf": FirstOf(Query(), Header()),
}
SCHEMES = {
    "RandomIds": RandomIds(),
    "SignedIds": SignedIds(["k" * 40]),
    "GatewayIds": GatewayIds("k" * 40),
    "BeakerIds": BeakerIds(RandomIds(), 1.0, lambda: 0.0),
}

#: Everything that reads what strangers write, by its name: what runs, and on what.
READERS = {
    **{f"carriers.{kind}.prepare": (preparing(URL_CARRIERS[kind]), WORDS) for kind in URL_CARRIERS},
    **{f"carriers.{kind}.bare": (URL_CARRIERS[kind].bare, URLS) for kind in URL_CARRIERS},
    **{f"carriers.{kind}.find": (ask(CARRIERS[kind]), WORDS) for kind in CARRIERS},
    **{f"carriers.{kind}.place": (placed(CARRIERS[kind]), HEADERS) for kind in CARRIERS},
    "carriers.Reply.add_word": (
        lambda text: reply(("Vary", text), ("Vary", text)).add_word("Vary", "Cookie"),
        HEADERS,
    ),
    **{
        f"rewriting.Scope.{method}": (in_scopes(method), FEW)
        for method in ("url", "bare_url", "location", "refresh", "under", "stays", "has_id", "read")
    },
    "rewriting.Scope.headers": (
        lambda text: [
            s.headers("302 Found", [("Location", text), ("Refresh", text)]) for s in scopes()
        ],
        HEADERS,
    ),
    "rewriting.Scope.here": (
        lambda text: [s.under("/b").here() for s in scopes("http://localhost/app/" + text)],
        FEW,
    ),
    "rewriting.Scope": (lambda text: scopes("http://localhost/" + text, mount=text), FEW),
    **{f"places.{method}": (in_places(method), FEW) for method in ("put", "take", "scrub")},
    "places.edited": (
        lambda text: places.edited(text, [(n, n, "a") for n in range(len(text))]),
        [("", "a", "")],
    ),
    "html.is_rewritable": (
        lambda text: is_rewritable("200 OK", [("Content-Type", text)] * 3),
        HEADERS,
    ),
    "html.HtmlRewriter.feed whole": (fed(1 << 30), PAGES),
    "html.HtmlRewriter.feed 4096": (fed(4096), PIECES),
    "html.HtmlRewriter.feed 16": (fed(16), PIECES),
    "html.HtmlRewriter.feed 1": (fed(1), PIECES[::3]),
    "markup.decoded": (attribute_of, WORDS + [("", "&lt", ""), ("", "&#47", ""), ("", "&", "lt")]),
    "markup.beginning": (tag_of, PAGES),
    "leaks.leak_in_head": (leaking, FEW + HEADERS),
    "leaks.is_publicly_cacheable": (
        lambda text: leaks.is_publicly_cacheable(reply(("Cache-Control", text))),
        HEADERS,
    ),
    "leaks.is_document": (lambda text: leaks.is_document(reply(("Content-Type", text))), HEADERS),
    "leaks.tells_others": (lambda text: leaks.tells_others(text.encode("latin-1")), PAGES),
    "leaks.BodyWatch": (watched, PIECES),
    "leaks.FormWatch": (forms_of, POLICIES[:80] + PIECES),
    "leaks.PageWatch": (pages_of, POLICIES[:80] + PIECES),
    "leaks.PlacedIds": (others, FEW),
    "leaks.LaterWatch": (urls_of, FEW),
    "leaks.UrlWatch": (urls_of, POLICIES[:80] + PIECES + [("", ID, ""), ("", f"<a b=//{ID} ", "")]),
    "leaks.Watched": (watched, FEW),
    "leaks.speaks_to_caches": (leaks.speaks_to_caches, HEADERS),
    "html.says_charset": (says_charset, HEADERS + [("a;", "charset=a;", "")]),
    "policies.lax_css": (css_of, POLICIES),
    "policies.says_lax_in_svg": (svg_css_of, SVG),
    "policies.unescaped": (policies.unescaped, REFERENCES),
    "policies.tightened_html": (policies.tightened_html, POLICIES),
    "policies.tightened_link": (policies.tightened_link, POLICIES + HEADERS),
    "reporting.keep_reports": (reports_of, POLICIES + HEADERS + VALUES),
    "links": (linked, FEW),
    "logs.mask": (logs.mask, WORDS),
    "logs.MaskIds": (filtered, WORDS),
    "request.Request": (viewed, WORDS + HEADERS),
    **{f"ids.{kind}": (keyed(SCHEMES[kind]), LETTERS) for kind in SCHEMES},
    "tokens.Tokens": (refusing(Tokens(["k" * 40]).open), LETTERS),
    "beaker_ids.is_beaker_id": (is_beaker_id, LETTERS),
    "beaker_ids.unsigned": (refusing(unsigned("k" * 40)), LETTERS),
    "codecs.JsonCodec.dumps": (encoded, [("", "a", ""), ("", "\x00", ""), ("", '"', "")]),
    "codecs.JsonCodec.loads": (stored, VALUES),
    "commands.showing.table": (shown, NAMES),
    "inifile.IniFile": (ini, BLANKS),
    "testing.audit.links_of": (
        lambda text: cookies_and_links(text),
        [("", "<a href=/x>", ""), ("", "a=b;", ""), ("", "/", "")],
    ),
    "testing.audit.leads_elsewhere": (
        lambda text: refusing(lambda text: leads_elsewhere(text, "http://localhost/"))(text),
        WORDS,
    ),
}


def cookies_and_links(text):
    answer = Answer(200, [("Content-Type", "text/html"), ("Set-Cookie", text)], text.encode(), 0.0)
    links_of(answer)
    list(cookies_of(answer, "sid"))


@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_linear_time(name):
    run, texts = READERS[name]
    check_texts(run, texts, name, 16_384)


def own_methods(cls):
    return {name for name, each in vars(cls).items() if callable(each) and name[0] != "_"}


def test_every_carrier_is_read():
    kinds = {
        name: cls
        for name, cls in vars(carriers).items()
        if inspect.isclass(cls)
        and hasattr(cls, "find")
        and hasattr(cls, "place")
        and name not in ("Carrier", "RawCarrier", "UrlCarrier")  # what the others have in common
    }
    assert set(kinds) == set(CARRIERS)
    #: `prepare` and `read` of those with no address to strip go with `find`.
    together = {"read": "find", "prepare": "find", "forget": "place"}
    for name, cls in kinds.items():
        for method in own_methods(cls):
            rows = {f"carriers.{name}.{each}" for each in (method, together.get(method))}
            assert rows & set(READERS), f"{name}.{method}: say what would be worst for it"


#: What reads nothing that a stranger wrote, or goes with what is named here.
WITH_OTHERS = {
    "rewriting.Scope": {
        **dict.fromkeys(["edits", "bare_edits", "refresh_edits"], "url, bare_url, refresh"),
        "is_id": "an id",
        "nowhere": "reads nothing",
    },
    "leaks": dict.fromkeys(["BodyWatch"], "leaks.BodyWatch"),
    "links": dict.fromkeys(links.__all__, "links"),
    "markup": {
        **dict.fromkeys(["escaped", "written"], "markup.decoded"),
        "closes_itself": "markup.beginning",
    },
    "logs": dict.fromkeys(["MaskingRequestHandler"], "logs.mask"),
    "request": {
        **dict.fromkeys(["has_id_in_address", "ids_taken", "received"], "reads nothing"),
        "take_ids": "carriers.Query.prepare",
    },
    "commands.showing": {
        **dict.fromkeys(["as_json", "moment", "seconds"], "numbers"),
        "printable": "commands.showing.table",
    },
    "policies": {},
    "reporting": {"says_where": "reporting.keep_reports"},
    "html": {},
    "places": {},
}


@pytest.mark.parametrize("module", [name for name in WITH_OTHERS if name != "rewriting.Scope"])
def test_every_reader_is_read(module):
    there = importlib.import_module(f"nocookie.{module}")
    for name in there.__all__:
        each = getattr(there, name)
        if inspect.isfunction(each):
            assert name in WITH_OTHERS[module] or f"{module}.{name}" in READERS, name
        elif inspect.isclass(each) and {"feed", "filter"} & own_methods(each):
            assert any(row.startswith(f"{module}.{name}") for row in READERS), name
        elif module == "places" and inspect.isclass(each) and "put" in own_methods(each):
            public = own_methods(each) - {"pieces"}
            assert public == {"put", "take", "scrub"}, "and pieces, which reads an id only"


def test_every_way_into_a_scope_is_read():
    rows = {name.rpartition(".")[2] for name in READERS if name.startswith("rewriting.Scope.")}
    assert own_methods(Scope) == rows | (set(WITH_OTHERS["rewriting.Scope"]) - {"is_id"})


# -- one thing for each of another: what is quadratic without any pattern -----------------------


def test_many_ids_and_many_headers():
    def make(size):
        count = size // 100
        query = "&".join(f"sid={n:042d}A" for n in range(count))
        headers = {f"HTTP_X_{n}": f"{n:050d}" for n in range(count)}
        return partial(Query().prepare, environ(QUERY_STRING=query, **headers))

    check_growth(make, "ids and headers", 1 << 20)


@pytest.mark.parametrize("where", ["path", "query", "base", "query of a base"])
@pytest.mark.parametrize("link", ["x", "", "?b", "#c", "../x"])
@pytest.mark.parametrize("is_long", [False, True], ids=["many", "long"])
def test_many_links_and_a_long_address(where, link, is_long):
    # Longer than what is written out with each link, and no longer than a tag that is read.
    times, top = (2, 4096) if "base" in where else (8, 16_384)

    def make(size):
        part = "a;b" if is_long else ("/a;b" if where in ("path", "base") else "&a")
        address = "http://localhost/" + ("?" if "query" in where else "") + part * (times * size)
        # Without its end a link is no plain markup, and followed by itself.
        links = f"<a href='{link}'>b<form method=post action='{link}' x=&></form>"
        page = (links * (size // 2 // len(links))).encode()
        if "base" in where:
            page, address = f"<base href='{address}'>".encode() + page, "http://localhost/"
        every = scopes(address, mount="")

        def run():
            for scope in every:
                rewriter = HtmlRewriter(scope)
                rewriter.feed(page)
                rewriter.close()

        return run

    check_growth(make, f"links {link!r} and {where}", top)


@pytest.mark.parametrize("start", ["<svg>", "<select>", "<noscript><b></i></noscript><math>"])
def test_many_elements_whose_content_must_be_plain(start):
    page = partial(pumped, start, "<title></title>", "")
    check_growth(lambda size: partial(fed(1 << 30), page(size)), "plain elements", 1 << 22)


def test_many_references_in_one_attribute():
    value = partial(pumped, "", "&lt", "")
    check_growth(lambda size: partial(markup.decoded, value(size).encode()), "references", 1 << 20)


def test_many_forms_that_wait_and_pieces_of_a_page():
    page = partial(pumped, "", "<form id=f>x</form x>", "")
    check_growth(lambda size: partial(fed(50), page(size)), "forms", 1 << 18)


@pytest.mark.parametrize("has_owner", [False, True])
def test_many_sessions_in_a_full_memory(has_owner):
    """Who is idle longest is known, and not looked for."""

    def make(size):
        store = MemoryStore(max_sessions=size)
        owner = b"ann" if has_owner else None

        def create(numbers, owner=None):
            for number in numbers:
                store.create(f"{number:064x}", Record({}, 0.0, 0.0, 0.0, 0), 600, owner)

        create(range(size // 2), owner)
        create(range(size // 2, size))
        return partial(create, range(size, 2 * size))

    check_growth(make, "sessions", 1 << 16)


@pytest.mark.parametrize("arguments", [["--json"], ["--limit", "0"], ["--limit", "10"]])
def test_a_list_of_many_sessions(arguments, tmp_path, capsys):
    def make(size):
        folder = tmp_path / str(size)
        store = FileStore(data_dir=str(folder))
        if not folder.exists():
            now = time.time()
            for number in range(size):
                store.create(f"{number:064x}", Record({}, now, 0.0, 0.0, 0), 600)
        store.close()
        return partial(listed, ["list", "--data-dir", str(folder), *arguments])

    def listed(command):
        with pytest.raises(SystemExit):
            cli.main(command)
        close_all()
        capsys.readouterr()

    check_growth(make, f"list {arguments}", 4096)


def test_what_beaker_has_is_listed_in_linear_time(tmp_path):
    def make(size):
        folder = tmp_path / str(size) / "container_file"
        if not folder.exists():
            for number in range(size):
                id = f"{number:032x}"[::-1]
                path = folder / id[:1] / id[:2] / f"{id}.cache"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(pickle.dumps({"session": "e30="}))
        store = open_beaker({"type": "file", "data_dir": str(folder.parent)}, 1.0)
        return lambda: [store.read(id) for id in store.ids()]

    check_growth(make, "Beaker's files", 4096)


# -- through the middleware ----------------------------------------------------------------------


def served(headers=(), body=b"", environ=None, **options):
    """Return what asks an application whose answers have these headers and this body."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html"), *headers])
        session = environ["nocookie.session"]
        session["a"] = 1
        session.save()
        return [body]

    wrapped = SessionMiddleware(app, use_cookies=False, **options)
    id = serve(wrapped).id if options.get("find_id") is None else None

    def ask():
        given = Request.blank("/").environ | (environ or {})
        if id is not None:
            given["HTTP_X_SESSION_ID"] = id
        answer = serve(wrapped, environ=given)
        assert answer.status == "200 OK"
        return answer

    return ask


@pytest.mark.parametrize("header", ["HTTP_REFERER", "REQUEST_URI", "HTTP_X_URL"])
def test_a_request_with_long_segments_and_parameters(header):
    """A parameter of a segment that is none of the last: what ends it was looked for again at each
    of its characters."""

    def make(size):
        text = f"/;sid={'A' * (size // 2)}{';sid=1' * (size // 12)}/{ID}"
        sent = {"PATH_INFO": f"/x;sid={ID}", header: text}
        return served(find_id="param:sid", environ=sent)

    check_growth(make, header)


def test_a_request_with_many_ids_and_headers():
    def make(size):
        query = "&".join(f"sid={n:042d}A" for n in range(size // 100))
        headers = {f"HTTP_X_{n}": f"{n:050d}" for n in range(size // 100)}
        return served(find_id="query:sid", environ={"QUERY_STRING": query, **headers})

    check_growth(make, "ids and headers", 1 << 20)


@pytest.mark.parametrize("find_id", ["query:sid", "param:sid", "path:~"])
def test_a_request_with_a_long_path_for_a_page_with_many_links(find_id):
    def make(size):
        page = b"<a href=x>y<br>" * (size // 16)  # without its end it is followed by itself
        sent = {"PATH_INFO": "/a;b" * (size // 8)}
        return served(find_id=find_id, rewrite="html", body=page, environ=sent)

    check_growth(make, find_id)


@pytest.mark.parametrize("value", ["0", "0.", "1;", "\t;", "0;url="])
def test_a_refresh_of_many_digits(value):
    def make(size):
        text = value * (size // len(value)) + "x"
        page = f"<meta http-equiv=refresh content='{text}' x=&>".encode()
        options = {"find_id": "query:sid", "rewrite": "html"}
        return served([("Refresh", text)], page, **options)

    check_growth(make, value)


def test_a_link_header_of_many_marks_with_the_id():
    def app(environ, start_response):
        session = environ["nocookie.session"]
        session["a"] = 1
        session.save()
        marks = "<" * int(environ["QUERY_STRING"])
        start_response("200 OK", [("Link", marks + session.id)])
        return [b""]

    wrapped = SessionMiddleware(app, use_cookies=False, leak_guard="log")
    check_growth(lambda size: partial(serve, wrapped, None, f"/?{size}"), "Link")


@pytest.mark.parametrize(
    "page",
    [
        ("<svg>", "<title></title>"),
        ("<a x='", "&lt"),
        ("<svg><![CDATA[", "x"),
        ("", "<form id=f>x</form x>"),
        ("<svg x", " /"),
    ],
)
def test_a_page_that_streams(page):
    """The attribute whose references are read is that of a link."""

    def make(size):
        text = pumped(*page, "", size).replace("<a x", "<a href").encode()
        text += b"'>" if b"href" in text else b""

        def app(environ, start_response):
            environ["nocookie.session"]["a"] = 1
            environ["nocookie.session"].save()
            start_response("200 OK", [("Content-Type", "text/html")])
            return (text[at : at + 32] for at in range(0, len(text), 32))

        wrapped = SessionMiddleware(app, use_cookies=False, find_id="query:sid", rewrite="html")
        return partial(serve, wrapped)

    check_growth(make, page)


def test_the_name_of_an_owner_is_no_longer_than_a_value():
    def app(environ, start_response):
        session = environ["nocookie.session"]
        with pytest.raises(ValueRefused, match="max_value_size"):
            session.login("a" * int(environ["QUERY_STRING"]))
        assert session.owner is None
        session.login("a" * 900)
        start_response("200 OK", [])
        return [b""]

    for limit in (1000, 1_000_000):
        wrapped = SessionMiddleware(app, use_cookies=False, max_value_size=limit)
        answer = serve(wrapped, path=f"/?{limit}")

        def look(environ, start_response):
            assert environ["nocookie.session"].owner == "a" * 900
            start_response("200 OK", [])
            return [b""]

        wrapped.app = look
        assert serve(wrapped, answer.id).status == "200 OK"
