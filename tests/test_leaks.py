"""What the leak guard takes for a leak in a head, and what it leaves alone."""

import pytest
from helpers import serve

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
