"""What is wrong in a configuration is one clear sentence, when the middleware is made."""

import builtins

import pytest

from nocookie import ConfigError, Cookie, Header, Query, Session, SessionMiddleware, manager
from nocookie.processes import Serving


def application(environ, start_response):
    raise AssertionError("never called")


def sentence(config=None, **options):
    with pytest.raises(ConfigError) as caught:
        SessionMiddleware(application, config, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tiemout": 5}, ["tiemout", "timeout"]),
        ({"use_cookie": False}, ["use_cookie", "use_cookies"]),
        ({"config": {"beaker.session.usecookies": "x"}}, ["beaker.session.usecookies"]),
        ({"client": "x"}, ["client", "use url"]),
        ({"use_cookies": "maybe"}, ["use_cookies", "maybe", "true or false"]),
        ({"timeout": "-5"}, ["timeout", "-5", "seconds"]),
        ({"timeout": 0}, ["timeout", "0", "none"]),
        ({"type": "memroy"}, ["memroy", "memory"]),
        ({"type": "file"}, ["file", "data_dir"]),
        ({"data_serializer": "yaml"}, ["data_serializer", "json, pickle"]),
        ({"data_serializer": "pickle"}, ["pickle", "secret"]),
        ({"encrypt_key": "k"}, ["encrypt_key", "secret"]),
        ({"strict": False}, ["strict", "id_key"]),
        ({"find_id": Header()}, ["find_id", "use_cookies = False"]),
        ({"samesite": "None"}, ["samesite", "secure"]),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(options, words):
    text = sentence(**options)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("find_id", "words"),
    [
        (7, ["int"]),
        ([], ["empty list"]),
        ([Header(), 7], ["int"]),
        (Header, ["Header()"]),
        ("heder:X", ["heder:X", "header"]),
        ("query:", ["parameter name"]),
        ("query:a b", ["a b", "parameter name"]),
        ("header:X\r\nY", ["header name"]),
        ("bearer:x", ["no argument"]),
        ("no.such.module:find", ["no.such.module"]),
        ("os.path:no_such_thing", ["no_such_thing"]),
        ("os.path:sep", ["neither", "header"]),
        ("", ["neither"]),
    ],
    ids=str,
)
def test_a_bad_find_id_is_explained(find_id, words):
    text = sentence(use_cookies=False, find_id=find_id)
    assert "find_id" in text or "name" in text
    for word in words:
        assert word in text


def test_a_gateway_goes_with_no_url_carrier():
    text = sentence(use_cookies=False, find_id=Query(), strict=False, id_key="k")
    assert "URL" in text


def test_a_missing_extra_names_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    text = sentence(secret="s" * 32, encrypt_key="k" * 32)
    assert "pip install nocookie[crypto]" in text


@pytest.mark.parametrize("name", ["secret", "encrypt_key", "id_key"])
def test_a_secret_is_never_shown(name):
    text = sentence(**{name: ["a secret", 7]})
    assert name in text
    assert "a secret" not in text


def test_header_names_are_checked_by_us():
    for name in ("X\r\nY", "X:", "", "X Y", "Ü", "X\0"):
        with pytest.raises(ConfigError):
            Header(name)
        with pytest.raises(ConfigError):
            Cookie(name)
    with pytest.raises(ConfigError):
        SessionMiddleware(application, use_cookies=False, id_header="X\r\nY")


def test_one_session_takes_no_options_of_its_own():
    backend = SessionMiddleware(application).manager.backend
    with pytest.raises(ConfigError, match="timeout"):
        Session({}, None, backend=backend, timeout=5)


def test_a_short_secret_and_a_lonely_memory_store_are_warned_about(caplog, monkeypatch):
    monkeypatch.setattr(manager, "_said", set())  # as in a process of its own

    def app(environ, start_response):
        start_response("200 OK", [])
        return []

    middleware = SessionMiddleware(app, secret="somesecret")
    assert [r.event for r in caplog.records] == ["misfit"]
    assert "somesecret" not in caplog.text
    caplog.clear()
    monkeypatch.setattr(Serving, "is_alone", lambda self, environ: False)
    for _ in range(3):
        middleware({"REQUEST_METHOD": "GET"}, lambda *_: None)
    assert [r.event for r in caplog.records] == ["misfit"]
