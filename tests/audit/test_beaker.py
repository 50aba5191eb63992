"""The audit of another library: an application on Beaker's own middleware, with cookies. Without
them Beaker answers nothing. What fails is what Beaker is known for."""

import contextlib
import json
import time
from urllib.parse import parse_qs

import pytest

from nocookie.testing import audit
from nocookie.testing.serving import serving

pytest.importorskip("beaker")

ENDPOINTS = {
    "slow": "/slow?ms={ms}&k={k}",
    "slowread": "/slowread?ms={ms}",
    "login": "/login",
    "logout": "/logout",
}


KNOWN = {
    1: "uuid4 has 122 random bits",
    2: "any id is adopted",
    3: "a long one is an OSError",
    4: "dots and slashes in an id are taken out of the file name",
    5: "the files are named after the ids",
    6: "the old id goes on after regenerate_id",
    10: "a request under way writes the session again",
    11: "... and is told nothing",
    12: "a save writes all that was read",
    13: "... also if nothing was changed",
}


def application(environ, start_response):
    session = environ["beaker.session"]
    form = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    path = environ["PATH_INFO"]
    seen = {key: value for key, value in session.items() if not key.startswith("_")}
    time.sleep(int(form.get("ms", 0)) / 1000)
    if path == "/set":
        session[form["k"]] = form["v"]
        session.save()
    elif path == "/slow":
        session[form["k"]] = "slow"
        session.save()
    elif path == "/login":
        session["user"] = "ada"
        session.regenerate_id()
        session.save()
    elif path == "/logout":
        session.delete()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]


def test_an_application_on_beaker_is_found_out(tmp_path):
    from beaker.middleware import SessionMiddleware

    options = {"session.type": "file", "session.data_dir": str(tmp_path), "session.auto": False}
    with serving(SessionMiddleware(application, options)) as url:
        report = audit.run(
            url,
            carrier="cookie:beaker.session.id",
            endpoints=ENDPOINTS,
            store_dump=lambda: (str(path).encode() for path in tmp_path.rglob("*")),
            rounds=5,
        )
    assert {result.number for result in report.failed} >= KNOWN.keys(), str(report)
    assert "about 122 random bits" in report.of(1).evidence


def test_without_cookies_beaker_cannot_be_audited():
    from beaker.middleware import SessionMiddleware

    options = {"session.type": "memory", "session.use_cookies": False}
    inside = SessionMiddleware(application, options)

    def answering(environ, start_response):
        with contextlib.suppress(KeyError):
            return inside(environ, start_response)
        start_response("500 Internal Server Error", [])
        return [b""]

    with serving(answering) as url, pytest.raises(audit.Unusable, match="/set answered 500"):
        audit.run(url)
