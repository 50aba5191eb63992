"""What the leak guard takes for a leak in a head, and what it leaves alone."""

import pytest
from helpers import CountingStore, serve

from nocookie import IdLeak, SessionMiddleware, session

HERE = {"base_url": "http://own.example"}


def answering(headers, find_id="path:~", **options):
    """Return what answers a known visitor with these headers; `{id}` and `{root}` are filled in."""
    found = {}

    def application(environ, start_response):
        session["visits"] = session.get("visits", 0) + 1
        session.save()
        found["id"] = session.id
        root = environ["SCRIPT_NAME"]
        filled = [(name, value.format(id=session.id, root=root)) for name, value in headers]
        start_response("200 OK", [("Content-Type", "text/plain"), *filled])
        return [b""]

    options = {"use_cookies": False, "find_id": find_id, "leak_guard": "raise", **options}
    app = SessionMiddleware(application, **options)

    def answer():
        quiet = SessionMiddleware(application, **{**options, "leak_guard": "off"})
        serve(quiet, **HERE)
        id = found["id"]
        if find_id == "header:X-Session-Id":
            return serve(app, id, **HERE)
        return serve(app, path=f"/~{id}/" if find_id == "path:~" else f"/?sid={id}", **HERE)

    return answer


@pytest.mark.parametrize(
    "value",
    [
        "0;https://other.example/{id}",
        "0; https://other.example/?back={id}",
        "0, https://other.example/?a=b&back={id}",
        ".5 'https://other.example/?back={id}'",
        "0; url=https://other.example/?back={id}",
    ],
)
@pytest.mark.parametrize("find_id", ["query:sid", "path:~", "header:X-Session-Id"])
def test_a_refresh_to_another_origin_is_a_leak_however_it_is_written(value, find_id):
    with pytest.raises(IdLeak, match="Refresh"):
        answering([("Refresh", value)], find_id)()


@pytest.mark.parametrize("value", ["3", "3;{root}/next", "3; url=http://own.example{root}/next"])
def test_a_refresh_within_the_origin_is_none(value):
    assert answering([("Refresh", value)])().status == "200 OK"


OWN = [
    ("HX-Redirect", "{root}/login"),
    ("HX-Push-Url", "http://own.example{root}/cart?page=2"),
    ("HX-Location", '{{"path":"{root}/cart","target":"#main"}}'),
    ("Content-Security-Policy", "default-src 'self'; report-uri {root}/csp"),
    ("Reporting-Endpoints", 'default="{root}/reports"'),
    ("SourceMap", "{root}/script.js.map"),
    ("Service-Worker-Allowed", "{root}/"),
    ("X-Accel-Redirect", "{root}/files/1"),
    ("Set-Cookie", "theme=dark; Path={root}/; HttpOnly"),
]


@pytest.mark.parametrize("header", OWN, ids=[name for name, _ in OWN])
def test_a_url_of_the_own_origin_is_no_leak_in_any_header(header):
    answer = answering([header])()
    assert "/~" in answer.header(header[0])


FOREIGN = [
    ("HX-Redirect", "https://other.example/?back=http://own.example{root}/"),
    ("HX-Redirect", "//other.example/{id}"),
    ("HX-Location", '{{"path":"https://other.example{root}/"}}'),
    ("Content-Security-Policy", "report-uri /csp https://other.example/{id}"),
    ("SourceMap", "/\\other.example/{id}"),
    ("X-Visitor", "{id}"),
    ("X-Visitor", "url=/cart?sid={id}, id={id}"),
    ("Set-Cookie", "last={root}/cart; Domain=example"),
    ("Set-Cookie", "sid={id}; Path=/"),
]


@pytest.mark.parametrize("header", FOREIGN, ids=[f"{name}: {value}" for name, value in FOREIGN])
def test_any_other_place_in_a_header_is_one(header):
    with pytest.raises(IdLeak, match=header[0]):
        answering([header])()


def numbered(headers, body=b""):
    """Return an application behind a gateway that numbers its sessions."""

    def application(environ, start_response):
        session["visits"] = 1
        session.save()
        start_response("200 OK", [(name, value.format(id=session.id)) for name, value in headers])
        return [body]

    return SessionMiddleware(
        application,
        find_id=lambda request: request.headers.get("X-Number"),
        use_cookies=False,
        strict=False,
        id_key="a key of a gateway that nobody else knows",
        leak_guard="raise",
    )


def test_a_gateways_short_id_is_not_seen_in_whatever_holds_its_digits():
    headers = [("Content-Length", "142"), ("ETag", '"42"'), ("Cache-Control", "public")]
    answer = serve(numbered(headers, b"42" * 71), headers={"X-Number": "42"})
    assert answer.status == "200 OK"


def test_a_gateways_long_id_is_watched():
    app = numbered([("Copy", "{id}")])
    with pytest.raises(IdLeak, match="Copy"):
        serve(app, headers={"X-Number": "subscriber-0049-1234567"})


# -- a leak in the response that would tell the client a new id ----------------------------------

HTML = ("Content-Type", "text/html; charset=utf-8")
#: Carrier, rewriting, headers and page.
LEAKING = {
    "a link": ("query:sid", "html", [HTML], '<a href="https://other.example/?back={id}">x</a>'),
    "a link by path": ("path:~", "html", [HTML], '<a href="https://other.example/{id}">x</a>'),
    "a form": (
        *("query:sid", "location", [HTML]),
        '<form action="//other.example/"><input value="{id}"></form>',
    ),
    "a redirect": ("query:sid", "location", [("Location", "//other.example/{id}")], ""),
    "a header": ("header:X-Session-Id", None, [("X-Debug", "{id}")], ""),
    "another visitor": ("query:sid", "html", [HTML], '<img src="/x?sid={another}&">'),
    "another in a header": ("query:sid", "html", [HTML, ("Link", "</x?sid={another}&>")], ""),
}


class Leaking:
    """An application whose responses leak once `leaks` is set."""

    def __init__(self, case, clock, **options):
        carrier, rewrite, self.headers, self.page = LEAKING[case]
        self.store = CountingStore(clock=clock)
        self.do = self.leaks = self.id = self.another = None
        self.status = "302 Found" if case == "a redirect" else "200 OK"
        self.app = SessionMiddleware(
            self.respond,
            find_id=carrier,
            use_cookies=False,
            rewrite=rewrite,
            type=self.store,
            leak_guard="raise",
            secret="a secret for tests, long enough",
            **{"clock": clock, **options},
        )
        self.address = {"header:X-Session-Id": "/", "path:~": "/~{}/"}.get(carrier, "/?sid={}")

    def respond(self, environ, start_response):
        if self.do is not None:
            self.do()
        session["n"] = session.get("n", 0) + 1
        session.save()
        self.id = session.id
        texts = {"id": session.id, "another": self.another}
        filled = [(name, value.format(**texts)) for name, value in self.headers]
        start_response(self.status, filled if self.leaks else [HTML])
        return [self.page.format(**texts).encode() if self.leaks else b"<p>"]

    def get(self, id=None):
        serve(self.app, id, "/" if id is None else self.address.format(id), **HERE)
        return self.id

    def records(self):
        return {key: self.store.load(key) for key in list(self.store.keys())}


DOING = {
    "login": lambda: session.login("ada"),
    "regenerate_id": lambda: session.regenerate_id(),
    "another login": lambda: session.login("bob"),
}


@pytest.mark.parametrize("do", DOING)
@pytest.mark.parametrize("case", LEAKING)
def test_what_leaks_is_found_before_the_old_id_ends(case, do, clock):
    """Else nobody would tell the client the new one."""
    site = Leaking(case, clock)
    site.another = site.get()
    site.do = DOING["login"] if do == "another login" else None
    id = site.get()
    before = site.records()
    site.do, site.leaks = DOING[do], True
    with pytest.raises(IdLeak):
        site.get(id)
    assert site.id != id
    assert site.records() == before
    site.do, site.leaks = None, False
    assert site.get(id) == id, "it is known still"


@pytest.mark.parametrize("case", LEAKING)
def test_what_leaks_is_found_before_a_session_begins(case, clock):
    site = Leaking(case, clock)
    site.another = site.get()
    before = site.records()
    site.leaks = True
    with pytest.raises(IdLeak):
        site.get()
    assert site.records() == before


@pytest.mark.parametrize("case", ["a link", "a link by path", "another visitor"])
def test_what_leaks_is_found_before_an_id_is_changed_by_itself(case, clock):
    site = Leaking(case, clock, rotate_every=60)
    site.another = site.get()
    id = site.get()
    before = site.records()
    clock.advance(100)
    site.page = site.page.replace("{id}", id)
    site.leaks = True
    with pytest.raises(IdLeak):
        site.get(id)
    assert site.records() == before


def test_what_is_prevented_is_said_once(clock, caplog):
    site = Leaking("a link", clock)
    site.headers = [HTML, ("Content-Security-Policy", "report-uri https://other.example/")]
    site.page, site.leaks, site.do = "<p>", True, DOING["login"]
    site.get(site.get())
    said = [record.detail for record in caplog.records if record.event == "leak"]
    assert len(said) == 2, "one for each response"


# -- URLs of another origin in a page ------------------------------------------------------------

#: Elements by which a browser asks another origin; `{}` is where the URL goes.
ASKING = {
    "img": '<img src="{}">',
    "img srcset": '<p>Hi<img alt="a > b" srcset="/a.png 1x, {} 2x">',
    "source": "<picture><source srcset='{} 2x'></picture>",
    "script": "<script async src={}></script>",
    "link": '<link rel="stylesheet" href="{}">',
    "link imagesrcset": '<link rel=preload as=image imagesrcset="{} 1x">',
    "video": '<video poster="{}"></video>',
    "audio": '<audio SRC = "{}"></audio>',
    "track": '<video><track src="{}"></video>',
    "embed": '<embed src="{}">',
    "object": "<object data='{}'></object>",
    "body": '<body background="{}">',
    "input": '<form><input type=image src="{}"></form>',
    "a": '<a ping="{}" href="/x">x</a>',
    "a attributionsrc": '<a attributionsrc="{}" href="/x">x</a>',
    "use": '<svg><use xlink:href="{}"></use></svg>',
    "image": '<svg><image href="{}"/></svg>',
    "rect": '<svg><rect fill="url({})"/></svg>',
    "p": "<p style=\"background: url('{}')\">",
    "style": '<style>@import "{}";</style>',
    "style url": "<style>p > b { background: url({}) }</style>",
    "iframe": '<iframe srcdoc="<img src=&quot;{}&quot;>"></iframe>',
    "iframe src": '<iframe src="{}"></iframe>',
    "a href": '<b><a title=x href="{}">x</a></b>',
    "area": '<map><area href="{}"></map>',
    "form": '<form action="{}" method=post><input></form>',
    "button": '<form method=post><button formaction="{}">x</button></form>',
    "meta": '<meta http-equiv="refresh" content="5; url={}">',
}
ABROAD = ["https://other.example/~ID/x", "//other.example/?sid=ID", "/\\other.example/ID"]
#: URLs that are asked of nobody else.
HOME = ["/~ID/x.png", "http://own.example/~ID/x", "x.png?sid=ID", "data:,ID", "#ID"]
ADDRESSES = {"query:sid": "/?sid={}", "path:~": "/~{}/", "param:sid": "/a;sid={}"}


def said_of(caplog, markup, find_id="query:sid", logout=False, **options):
    """Return what is said of the second page of a session, in which ID is its id: of the whole,
    byte by byte, and where nobody uses the session."""
    ids, way = [], None

    def application(environ, start_response):
        if way is None or way in ("whole", "in pieces"):
            session["n"] = session.get("n", 0) + 1
            session.save()
            ids.append(session.id)
        if logout and way is not None:
            session.delete()
        start_response("200 OK", [HTML])
        page = b"<!DOCTYPE html><title>t</title>"
        if way is not None:
            page += markup.replace("ID", ids[0]).encode()
        return iter([bytes([byte]) for byte in page]) if way == "in pieces" else [page]

    app = SessionMiddleware(application, use_cookies=False, find_id=find_id, **options)
    serve(app, **HERE)
    said = []
    for way in ("whole", "in pieces", "untouched"):  # noqa: B007 - the application reads it
        caplog.clear()
        serve(app, path=ADDRESSES[find_id].format(ids[0]), **HERE)
        said.append([record.detail for record in caplog.records if record.event == "leak"])
        assert ids[0] not in caplog.text
    return said


@pytest.mark.parametrize("find_id", ["query:sid", "path:~", "param:sid"])
@pytest.mark.parametrize("rewrite", ["off", "html"])
@pytest.mark.parametrize("element", ASKING)
def test_a_url_of_another_origin_in_a_page_is_noticed(caplog, element, rewrite, find_id):
    for url in ABROAD:
        if element == "a ping":
            url = url.replace("\\", "/")  # a list, of which a browser takes what it can read
        markup = ASKING[element].replace("{}", url)
        for said in said_of(caplog, markup, find_id, rewrite=rewrite):
            assert len(said) == 1, (url, said)
            assert said[0].startswith("a URL of another origin in <") or "submitter" in said[0]


@pytest.mark.parametrize("find_id", ["query:sid", "path:~", "param:sid"])
@pytest.mark.parametrize(
    ("rewrite", "url"),
    # Of the last two the rewriter of links says that they lead nowhere on the site.
    [*(("off", url) for url in HOME), *(("html", url) for url in HOME[:3])],
)
def test_one_of_the_own_origin_is_no_leak(caplog, rewrite, url, find_id):
    for markup in ASKING.values():
        said = said_of(caplog, markup.replace("{}", url), find_id, rewrite=rewrite)
        assert said == [[], [], []], markup


@pytest.mark.parametrize("rewrite", ["off", "html"])
@pytest.mark.parametrize(
    "markup",
    [
        "<p>The address https://other.example/?sid=ID is a bad one.",
        '<p>say "src=https://other.example/?sid=ID", or src="https://other.example/?sid=ID"',
        '<img alt="https://other.example/?sid=ID" src="/x">',
        '<img src="https://other.example/"><img src="/~ID/x">',
        '<meta property="og:url" content="https://other.example/?sid=ID">',
    ],
)
def test_what_no_browser_asks_for_is_no_leak(caplog, markup, rewrite):
    assert said_of(caplog, markup, rewrite=rewrite) == [[], [], []]


def test_a_guard_that_raises_keeps_such_a_page_in(caplog):
    with pytest.raises(IdLeak, match="<img>"):
        said_of(caplog, '<img src="//other.example/ID">', leak_guard="raise")


def test_after_a_logout_an_id_is_none(caplog):
    assert said_of(caplog, '<img src="//other.example/ID">', logout=True)[0] == []
