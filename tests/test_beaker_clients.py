"""One backend for browsers that Beaker knew, for new ones, and for a program without cookies."""

import pytest
from beaker.middleware import SessionMiddleware as BeakerMiddleware
from webtest import TestApp

from nocookie import AskedHeader, Cookie, FirstOf, SessionMiddleware, cli
from nocookie.carriers import ASKING
from nocookie.stores import close_all

OLD = {"session.type": "file", "session.secret": "somesecret"}


def visits(environ, start_response):
    session = environ["beaker.session"]
    action = environ["PATH_INFO"].strip("/")
    if action == "logout":
        session.delete()
    elif action == "rotate":
        session.regenerate_id()
        session.save()
    else:
        session["visits"] = session.get("visits", 0) + 1
        session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % session.get("visits", 0)]


@pytest.fixture
def new():
    return {
        "nocookie.use_cookies": "False",
        "nocookie.find_id": "asked-header:X-Session-Id, cookie",
        "nocookie.key": "beaker.session.id",
        "nocookie.secret": "a secret for tests, long enough",
        "nocookie.beaker_ids_until": "2100-01-01",
        "nocookie.beaker_secret": "somesecret",
        "nocookie.data_dir": "data",
    }


@pytest.fixture
def app(new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield SessionMiddleware(visits, new, environ_key="beaker.session")
    close_all()


def ids(answer):
    return "Set-Cookie" in answer.headers, "X-Session-Id" in answer.headers


def test_all_three_are_served_by_one_backend(app, new, tmp_path):
    old_browser = TestApp(BeakerMiddleware(visits, {**OLD, "session.data_dir": "data"}))
    assert old_browser.get("/").text == "1"
    lines = [f"{key} = {value}" for key, value in new.items()]
    (tmp_path / "new.ini").write_text("\n".join(["[app:main]", *lines]))
    source = ["--beaker-type", "file", "--beaker-data-dir", "data"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["import", *source, "--config", "new.ini", "--trust-pickles"])
    assert stop.value.code == 0

    old_browser.app = app
    answer = old_browser.get("/")
    assert (answer.text, ids(answer)) == ("2", (True, False))
    assert old_browser.get("/").text == "3"

    new_browser = TestApp(app)
    assert ids(new_browser.get("/")) == (True, False)
    assert new_browser.get("/").text == "2"

    program = TestApp(app)
    answer = program.get("/", headers={"X-Session-Id": "new"})
    assert ids(answer) == (False, True)
    headers = {"X-Session-Id": answer.headers["X-Session-Id"]}
    answer = program.get("/", headers=headers)
    assert (answer.text, ids(answer)) == ("2", (False, False))


@pytest.mark.parametrize("word", ["new", "New", " new ", ""])
def test_a_program_without_an_id_asks_by_a_word(app, word, caplog):
    caplog.set_level("INFO", "nocookie")
    answer = TestApp(app).get("/", headers={"X-Session-Id": word})
    assert ids(answer) == (False, True)
    if word.strip():
        assert "refused" not in {record.event for record in caplog.records}


def test_an_id_that_opens_nothing_asks_too(app):
    assert ids(TestApp(app).get("/", headers={"X-Session-Id": "A" * 43})) == (False, True)


def test_a_program_is_told_a_rotated_id_in_its_header_and_a_browser_in_its_cookie(app):
    program, browser = TestApp(app), TestApp(app)
    id = program.get("/", headers={"X-Session-Id": ASKING}).headers["X-Session-Id"]
    answer = program.get("/rotate", headers={"X-Session-Id": id})
    assert ids(answer) == (False, True)
    browser.get("/")
    assert ids(browser.get("/rotate")) == (True, False)


def test_a_program_that_logged_out_asks_again(app):
    program = TestApp(app)
    id = program.get("/", headers={"X-Session-Id": ASKING}).headers["X-Session-Id"]
    program.get("/logout", headers={"X-Session-Id": id})
    answer = program.get("/", headers={"X-Session-Id": id})
    assert (answer.text, ids(answer)) == ("1", (False, True))


def test_a_cookie_counts_beside_the_word(app):
    browser = TestApp(app)
    browser.get("/")
    answer = browser.get("/", headers={"X-Session-Id": ASKING})
    assert (answer.text, ids(answer)) == ("2", (False, False))


def test_both_are_named_in_vary(app):
    assert TestApp(app).get("/").headers["Vary"] == "X-Session-Id, Cookie"


def test_it_can_be_written_as_an_object_too():
    find_id = FirstOf(AskedHeader("X-Api-Session"), Cookie("sid"))
    app = SessionMiddleware(
        visits, use_cookies=False, find_id=find_id, environ_key="beaker.session"
    )
    answer = TestApp(app).get("/", headers={"X-Api-Session": ASKING})
    assert "X-Api-Session" in answer.headers
    assert ids(answer) == (False, False)
