"""`nocookie check`: what a configuration means, and what is not safe about it."""

import inspect
import itertools
import json
import logging
import os
import re
import shlex
import socket
import sys
from datetime import date
from pathlib import Path

import pytest
from beaker import session as beaker
from beaker.middleware import SessionMiddleware as BeakerMiddleware
from hypothesis import given, settings
from hypothesis import strategies as st
from webtest import TestApp

from nocookie import ConfigError, SessionMiddleware, cli
from nocookie.adapters.paste import session_filter_app_factory
from nocookie.beaker_options import REFUSED
from nocookie.checking import BEAKER, DEFAULTS, RULES, check
from nocookie.commands.check import ACCEPTED
from nocookie.inifile import read
from nocookie.manager import SessionManager
from nocookie.options import OPTIONS, PREFIXES
from nocookie.stores import close_all
from nocookie.strength import fresh_secret

SECRET = "k8Jq0x_Wz3mB7vCe9Ls"
#: A configuration that nothing is wrong with.
SAFE = {"cache_dir": "%(here)s/data", "nocookie.secure": "true"}


@pytest.fixture
def ini(tmp_path):
    """Write an ini file for its owner alone: a text, or the options of [app:main]."""

    def write(text=None, /, **options):
        if text is None:
            text = "[app:main]\n"
        elif isinstance(text, dict):
            text = section(text)
        file = tmp_path / "app.ini"
        file.write_text(text, "utf-8")
        file.chmod(0o600)
        return file

    return write


def section(options):
    return "[app:main]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())


@pytest.fixture
def run(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["check", *map(str, arguments)])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return run


def found(file, kind="unsafe", **more):
    return [
        finding.name
        for report in check(file, **more)
        for finding in report.findings
        if finding.kind == kind
    ]


# -- the exit status -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "last"),
    [
        (SAFE, 0, "Nothing unsafe was found."),
        ({**SAFE, "nocookie.timeout": "none"}, 1, "This is not safe."),
        ({**SAFE, "nocookie.timeout": "soon"}, 2, "This cannot be used."),
        ({**SAFE, "nocookie.timeout": "none", "nocookie.tmeout": "5"}, 2, "This cannot be used."),
    ],
)
def test_it_ends_with_0_if_fine_1_if_unsafe_2_if_of_no_use(run, ini, options, status, last):
    ended, out, err = run(ini(options))
    assert (ended, out.splitlines()[-1], err) == (status, last, "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense", "cannot be read as an ini file; look at line 1"),
        ("[app:main]\nuse = egg:foo\n", "has no section that configures sessions"),
        ("[app:main]\nsession.key = %(oops)s\n", "in session.key, write %% for a percent sign"),
    ],
)
def test_a_file_that_says_nothing_is_one_sentence_and_status_2(run, ini, text, why):
    status, out, err = run(ini(text))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("nocookie check: ")
    assert why in line


def test_a_section_that_is_not_there_names_those_that_are(run, ini):
    status, _, err = run(ini(SAFE), "--section", "app:other")
    assert status == 2
    assert "has no section app:other; name one with --section: app:main" in err


def test_a_file_that_is_not_there_is_status_2(run, tmp_path):
    assert run(tmp_path / "none.ini")[0] == 2


@pytest.mark.parametrize("more", [[], ["--no-cookies"]])
def test_what_make_config_writes_is_fine(run, tmp_path, more):
    with pytest.raises(SystemExit):
        cli.main(["make-config", *more, str(tmp_path / "prod.ini")])
    status, out, _ = run(tmp_path / "prod.ini")
    assert (status, out.splitlines()[-1]) == (0, "Nothing unsafe was found.")


# -- what is not safe ----------------------------------------------------------------------------

COOKIELESS = {
    "cache_dir": "%(here)s/data",
    "nocookie.use_cookies": "False",
    "nocookie.require_https": "true",
}
PROXIES = {**SAFE, "nocookie.trusted_proxies": "10.0.0.0/8, fc00::/7, 192.0.2.1"}
URLS = {**COOKIELESS, "nocookie.find_id": "query:sid", "nocookie.origin": "https://shop.example"}
REDIS = {**COOKIELESS, "nocookie.type": "redis"}

#: Name of a finding -> configurations that have it, and what to change so that it is gone.
UNSAFE = [
    ("memory", {"nocookie.secure": "true"}, {"nocookie.data_dir": "data"}),
    ("memory", {**SAFE, "nocookie.type": "memory"}, {"nocookie.type": "file"}),
    (
        "pickle",
        {**SAFE, "nocookie.secret": SECRET, "nocookie.data_serializer": "pickle"},
        {"nocookie.data_serializer": "json"},
    ),
    ("secure", {"cache_dir": "x", "nocookie.key": "foo"}, {"nocookie.secure": "true"}),
    ("secure", {**SAFE, "nocookie.secure": "false"}, {"nocookie.secure": "true"}),
    ("secure", {**COOKIELESS, "nocookie.find_id": "header, cookie"}, {"nocookie.secure": "yes"}),
    ("httponly", {**SAFE, "nocookie.httponly": "off"}, {"nocookie.httponly": "on"}),
    ("samesite", {**SAFE, "nocookie.samesite": "None"}, {"nocookie.samesite": "strict"}),
    ("samesite", {**SAFE, "nocookie.samesite": ""}, {"nocookie.samesite": "Lax"}),
    ("timeout", {**SAFE, "nocookie.timeout": "none"}, {"nocookie.timeout": "600"}),
    ("lifetime", {**SAFE, "nocookie.lifetime": "none"}, {"nocookie.lifetime": "86400"}),
    ("origin", {**URLS, "nocookie.origin": "none"}, {"nocookie.origin": "https://a.example"}),
    ("origin", {**COOKIELESS, "nocookie.find_id": "path:~"}, {"nocookie.find_id": "header"}),
    (
        "transport",
        {**SAFE, "nocookie.origin": "http://shop.example"},
        {"nocookie.origin": "https://shop.example"},
    ),
    *(
        (
            "plain_http",
            {**COOKIELESS, "nocookie.require_https": "no", **more},
            {"nocookie.require_https": "yes"},
        )
        for more in (
            {},
            {"nocookie.find_id": "header"},
            {"nocookie.find_id": "cookie, bearer", "nocookie.secure": "true"},
        )
    ),
    (
        "plain_http",
        {**COOKIELESS, "nocookie.require_https": "no"},
        {"nocookie.find_id": "cookie", "nocookie.secure": "true"},
    ),
    *(
        ("proxies", {**PROXIES, "nocookie.trusted_proxies": wide}, PROXIES)
        for wide in ("0.0.0.0/0", "::/0", "10.0.0.1, 128.0.0.0/1")
    ),
    (
        "grace",
        {**SAFE, "nocookie.rotate_every": "600", "nocookie.rotation_grace": "31"},
        {"nocookie.rotation_grace": "30"},
    ),
    (
        "grace",
        {**SAFE, "nocookie.rotate_every": "600", "nocookie.rotation_grace": "31"},
        {"nocookie.rotate_every": "none"},
    ),
    ("leak_guard", {**URLS, "nocookie.leak_guard": "off"}, {"nocookie.leak_guard": "log"}),
    (
        "strict",
        {**COOKIELESS, "nocookie.strict": "no", "nocookie.id_key": SECRET},
        {"nocookie.strict": "yes"},
    ),
    ("order", {**URLS, "nocookie.find_id": "param:sid, bearer"}, {"nocookie.find_id": "bearer"}),
    (
        "order",
        {**URLS, "nocookie.find_id": "query:sid, shop:find"},
        {"nocookie.find_id": "shop:find, query:sid"},
    ),
    *(
        ("transport", {**REDIS, "nocookie.url": unsafe}, {"nocookie.url": safe})
        for unsafe, safe in [
            ("redis://redis.example.com", "rediss://redis.example.com"),
            ("redis://10.0.0.1:6379/1", "redis://127.0.0.1:6379/1"),
            ("redis+cluster://a.example:1,b.example:2", "rediss+cluster://a.example:1,b.example:2"),
            ("redis://:pw@[2001:db8::1]", "redis://:pw@[::1]"),
            ("redis://redis", "unix:///run/redis.sock"),
        ]
    ),
    (
        "transport",
        {**REDIS, "nocookie.type": "memcached", "nocookie.url": "localhost:11211;10.0.0.1:11211"},
        {"nocookie.url": "localhost:11211;127.0.0.1:11212"},
    ),
    *(
        (
            "transport",
            {**REDIS, "nocookie.type": "sqlalchemy", "nocookie.url": f"postgresql+psycopg://{url}"},
            {"nocookie.url": safe},
        )
        for url, safe in [
            ("u:pw@db.example/x", "postgresql+psycopg://u:pw@db.example/x?sslmode=require"),
            ("u@db.example/x?sslmode=prefer", "postgresql+psycopg://u@localhost/x"),
            ("db.example/x", "sqlite:///x.db"),
        ]
    ),
    ("secret", {**SAFE, "nocookie.secret": "somesecret"}, {"nocookie.secret": SECRET}),
    (
        "secret",
        {**SAFE, "nocookie.secret": "\n  " + SECRET + "\n  kurz"},
        {"nocookie.secret": SECRET},
    ),
    (
        "secret",
        {**SAFE, "nocookie.secret": SECRET, "nocookie.encrypt_key": "0" * 32},
        {"nocookie.encrypt_key": SECRET},
    ),
    ("secret", {**COOKIELESS, "nocookie.id_key": "k"}, {"nocookie.id_key": SECRET}),
]


@pytest.mark.parametrize(("name", "options", "change"), UNSAFE)
def test_a_danger_is_named_and_gone_when_it_is_gone(ini, name, options, change):
    assert (found(ini(options)), found(ini(options), "unusable")) == ([name], [])
    assert (found(ini({**options, **change})), found(ini(options), "unusable")) == ([], [])


def test_every_rule_is_tried():
    assert {name for name, _, _ in UNSAFE} == {*ACCEPTED, "secret"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("beaker_ids", {**SAFE, "nocookie.beaker_ids_until": "2001-01-01"}),
        ("cookie_domain", {**SAFE, "nocookie.cookie_domain": ".example.com"}),
        ("stateless", {**SAFE, "nocookie.type": "cookie", "nocookie.secret": SECRET}),
        ("long", {**SAFE, "nocookie.lifetime": "2592001"}),
        ("url", URLS),
    ],
)
def test_what_is_to_be_thought_about_is_a_note_and_fine(run, ini, name, options):
    assert name not in found(ini(SAFE), "note")
    assert found(ini(options), "note") == [name]
    assert run(ini(options))[0] == 0


def test_every_note_is_tried():
    assert {rule.name for rule in RULES if rule.kind == "note"} == {
        *("beaker_ids", "cookie_domain", "stateless", "long", "url")
    }


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o666])
@pytest.mark.parametrize("key", ["secret", "url", "validate_key", "encrypt_key"])
def test_a_secret_in_a_file_that_everybody_can_read_is_not_safe(ini, mode, key):
    value = "unix:///x" if key == "url" else SECRET
    file = ini({**SAFE, f"session.{key}": value})
    assert "readable" not in found(file)
    file.chmod(mode)
    assert "readable" in found(file)


def test_a_file_without_a_secret_may_be_read_by_everybody(ini):
    file = ini(SAFE)
    file.chmod(0o644)
    assert found(file) == []


def test_callbacks_are_not_imported(ini):
    """They may be of an application that is not installed here."""
    file = ini({**SAFE, "nocookie.on_event": "no.such:callback, another.one:of.them"})
    assert (found(file), found(file, "unusable")) == ([], [])
    assert found(ini({**SAFE, "nocookie.on_event": "nonsense"}), "unusable") == ["on_event"]


def test_what_is_meant_can_be_accepted(run, ini):
    file = ini({**SAFE, "nocookie.timeout": "none", "nocookie.lifetime": "none"})
    assert run(file, "--accept", "timeout")[0] == 1
    status, out, _ = run(file, "--accept", "timeout", "--accept", "lifetime")
    assert status == 0
    assert re.findall(r"^accepted .*", out, re.MULTILINE)


@pytest.mark.parametrize("word", ["secret", "readable", "url", "nonsense"])
def test_a_bad_secret_cannot_be_meant(run, ini, word):
    status, _, err = run(ini(SAFE), "--accept", word)
    assert status == 2
    assert f"'{word}' is not one of" in err


# -- what is of no use ---------------------------------------------------------------------------

#: Each of these, and what the application would say.
WRONG = [
    {"nocookie.tmeout": "5"},
    {"session.client": "x"},
    {"session.validate_key": "none"},
    {"nocookie.timeout": "soon"},
    {"nocookie.use_cookies": "perhaps"},
    {"nocookie.data_serializer": "pickle"},
    {"nocookie.encrypt_key": SECRET},
    {"nocookie.type": "cookie"},
    {"nocookie.type": "filee"},
    {"nocookie.type": "redis"},
    {"nocookie.type": "redis", "nocookie.url": "http://x"},
    {"nocookie.type": "sqlalchemy", "nocookie.url": "nonsense"},
    {"nocookie.strict": "false"},
    {"nocookie.find_id": "query:sid"},
    {"nocookie.use_cookies": "no", "nocookie.find_id": "nonsense"},
    {"nocookie.use_cookies": "no", "nocookie.find_id": "query:s i d"},
    {"nocookie.use_cookies": "no", "nocookie.rewrite": "html"},
    {"nocookie.samesite": "None"},
    {"nocookie.key": "a b"},
    {"nocookie.secret": ""},
    {"nocookie.secret": "none"},
    {
        "nocookie.use_cookies": "no",
        "nocookie.find_id": "query:sid",
        "nocookie.strict": "no",
        "nocookie.id_key": SECRET,
    },
    {
        "nocookie.use_cookies": "no",
        "nocookie.find_id": "query:sid",
        "nocookie.type": "cookie",
        "nocookie.secret": SECRET,
    },
]


@pytest.mark.parametrize("options", WRONG, ids=repr)
def test_what_the_application_refuses_is_of_no_use(ini, options):
    with pytest.raises(ConfigError) as refused:
        SessionManager(options)
    (report,) = check(ini(options))
    sentences = [finding.sentence for finding in report.findings if finding.kind == "unusable"]
    assert (report.status, sentences) == (2, [str(refused.value)])


@pytest.mark.parametrize("options", [options for _, options, _ in UNSAFE], ids=repr)
def test_what_is_not_refused_the_application_takes(tmp_path, options, monkeypatch):
    monkeypatch.setitem(sys.modules, "shop", type(sys)("shop"))
    sys.modules["shop"].find = lambda request: None
    try:
        SessionManager(
            {key: value.replace("%(here)s", str(tmp_path)) for key, value in options.items()}
        )
    finally:
        close_all()


#: Not "on_event": what it names is not imported by the check, so it cannot know that it is missing.
NAMES = sorted(OPTIONS.keys() - {"clock", "engine", "on_event"}) + [
    "tmeout",
    *("lock_dir", "validate_key", "save_accessed_time", "urls", "sa.url", "client"),
]
VALUES = [
    *("true", "no", "none", "", "0", "5", "1e999", "x", "a b", "\u00e9", SECRET, "2030-12-31"),
    *("memory", "file", "redis", "memcached", "sqlalchemy", "cookie", "dbm", "ext:redis", "oops"),
    *("redis://127.0.0.1", "127.0.0.1:1", "sqlite:///x.db", "https://shop.example", "http://a b"),
    *("header", "query:sid", "path:~", "cookie, header:X-Id", "bearer:x", "param:s;id"),
    *("html", "location", "off", "raise", "pickle", "json", "Lax", "None", "full"),
]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from(PREFIXES), st.sampled_from(NAMES)).map("".join),
        st.sampled_from(VALUES),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=300)
def test_the_middleware_and_the_check_are_of_one_mind(tmp_path_factory, options):
    file = tmp_path_factory.getbasetemp() / "generated.ini"
    file.write_text(section(options), "utf-8")
    (report,) = check(file)
    try:
        SessionManager(options)
    except ConfigError:
        assert report.status == 2
    else:
        assert report.status < 2
    finally:
        close_all()


def test_everything_that_is_wrong_is_said_at_once(ini):
    options = {"session.client": "x", "session.timeout": "soon", "session.tmeout": "5"}
    assert found(ini(options), "unusable") == ["option", "timeout", "option"]
    options = {"session.client": "x", "session.data_serializer": "pickle"}
    assert found(ini(options), "unusable") == ["option", "options"]


def test_a_wrong_value_brings_no_other_mistakes_with_it(ini):
    options = {"session.secret": "", "session.data_serializer": "pickle", "session.type": "cookie"}
    assert found(ini(options), "unusable") == ["secret"]


# -- line by line --------------------------------------------------------------------------------


def lines(file, **more):
    return [line for report in check(file, **more) for line in report.lines]


#: Options of a kind that no ini file can hold.
IN_CODE = {"clock", "engine"}


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in IN_CODE])
@pytest.mark.parametrize("prefix", ["nocookie.", "session.", "beaker.session."])
def test_every_option_is_told_in_the_words_of_the_table(ini, prefix, name):
    (line,) = lines(ini({f"{prefix}{name}": "x"}))
    assert (line.number, line.key) == (2, f"{prefix}{name}")
    assert line.means == OPTIONS[name].doc.replace("`", "")
    assert line.beaker == (None if prefix == "nocookie." else BEAKER.get(name))


@pytest.mark.parametrize("name", REFUSED)
def test_every_option_that_is_not_taken_says_what_to_do(ini, name):
    file = ini({f"beaker.session.{name}": "x"})
    (line,) = lines(file)
    assert line.means == f"Not taken: {REFUSED[name]}."
    assert found(file, "unusable") == ["option"]


def test_what_is_told_of_beaker_is_of_options_that_there_are():
    assert BEAKER.keys() | DEFAULTS.keys() <= OPTIONS.keys()


def test_what_is_told_of_beakers_defaults_is_so():
    taken = inspect.signature(beaker.Session).parameters
    for name, default in [
        ("key", "beaker.session.id"),
        ("httponly", False),
        ("timeout", None),
        ("data_serializer", "pickle"),
        ("use_cookies", True),
        ("cookie_expires", True),
    ]:
        assert taken[name].default == default
    assert "lifetime" not in taken


def test_the_numbers_are_those_of_the_file(ini):
    text = (
        "# ours\n\n[DEFAULT]\nsession.timeout = 60\n\n[app:main]\nuse=egg:a\n; no\nsession.key: a\n"
    )
    text += "session.secret =\n    one\n    two\nsession.auto=1\n\n[app:b]\nsession.key = b\n"
    told = [[(line.number, line.key) for line in report.lines] for report in check(ini(text))]
    shared = (None, "session.timeout")
    assert told == [
        [shared, (9, "session.key"), (10, "session.secret"), (13, "session.auto")],
        [shared, (16, "session.key")],
    ]


def test_an_ini_file_may_be_indented(ini):
    text = "[DEFAULT]\n  session.auto = 1\n[filter:a]\n  use = egg:nocookie#session\n\n  key = a\n"
    text += "  secret =\n     key = one\n     two\n"
    (report,) = check(ini(text))
    told = [(line.number, line.key) for line in report.lines]
    assert told == [(None, "session.auto"), (6, "key"), (7, "secret")]
    assert [(f.name, f.number) for f in report.findings if f.name == "secret"] == [
        ("secret", 7)
    ] * 2


def test_cache_dir_gives_the_data_dir(ini, tmp_path):
    file = ini("[app:main]\ncache_dir = %(here)s/data\nsession.secure = true\n")
    first, _ = lines(file)
    assert first.means.startswith("Gives data_dir. The folder")
    assert first.value == f"{tmp_path}/data"
    assert found(file) == []


def test_what_does_not_count_says_what_does(ini):
    options = {**SAFE, "session.timeout": "none", "beaker.session.timeout": "x"}
    options |= {"nocookie.timeout": "60", "session.data_dir": "x"}
    file = ini(options)
    idle = {line.key: line.means for line in lines(file) if line.means.startswith("Does not")}
    assert idle == {
        "session.timeout": "Does not count: nocookie.timeout wins.",
        "beaker.session.timeout": "Does not count: nocookie.timeout wins.",
        "cache_dir": "Does not count: session.data_dir wins.",
    }
    assert (found(file), found(file, "unusable")) == ([], [])


def test_what_beaker_did_when_nothing_was_written_is_noted(ini):
    file = ini({"cache_dir": "x", "beaker.session.secure": "true"})
    assert found(file, "note") == list(DEFAULTS)
    assert found(ini(SAFE), "note") == []
    without = ini({"cache_dir": "x", "beaker.session.use_cookies": "false"})
    assert found(without, "note") == [name for name in DEFAULTS if name not in ("key", "httponly")]


# -- which sections ------------------------------------------------------------------------------

COMPOSITE = """
[server:main]
use = egg:Paste#http
host = 0.0.0.0

[filter-app:main]
use = egg:Beaker#beaker_session
next = sessioned
beaker.session.key = my_project_key
secret = i_wear_two_layers_of_socks

[app:home]
use = egg:my_project
cache_dir = %(here)s/data
"""


def test_the_section_of_an_egg_is_read_as_the_egg_reads_it(ini):
    (report,) = check(ini(COMPOSITE))
    assert report.section == "filter-app:main"
    assert [line.key for line in report.lines] == ["beaker.session.key", "secret"]
    assert {finding.name for finding in report.findings} == {
        *("memory", "secure", "secret", "egg"),
        *DEFAULTS,
    } - {"key"}


@pytest.mark.parametrize(
    "lines",
    [
        "use_cookies = False\nsession.timeout = none\ntimeout = 60",
        "nocookie.use_cookies = no\nenviron_key = x\nsession.webtest_varname = z",
        "webtest_varname = y\ncache_dir = data\nsession.cache_dir = data",
        "use_cookies = no\nkey = a\nfilter-with = other\nset debug = false",
        "tmeout = 5",
        "full_stack = true",
        "session.sa.url = x",
    ],
)
@pytest.mark.parametrize(
    "default", ["", "session.timeout = none\nkey = a b", "beaker.session.xyz = 1"]
)
def test_the_egg_and_the_check_are_of_one_mind(ini, tmp_path, lines, default):
    file = ini(f"[DEFAULT]\n{default}\n[filter:a]\nuse = egg:nocookie#session\n{lines}\n")
    pairs = [line.split(" = ") for line in lines.splitlines()]
    # What PasteDeploy keeps to itself.
    local = {k: v for k, v in pairs if not k.startswith("set ") and k != "filter-with"}
    shared = dict(line.split(" = ") for line in default.splitlines())
    (report,) = check(file, "filter:a")
    try:
        app = session_filter_app_factory(None, {"here": str(tmp_path), **shared}, **local)
    except ConfigError:
        assert report.status == 2
    else:
        assert report.status < 2
        forever = app.manager.backend.timeout == float("inf")
        assert ("timeout" in found(file, section="filter:a")) == forever


def test_options_for_all_sections_alone_are_read_too(ini):
    file = ini("[DEFAULT]\nsession.timeout = none\n[server:main]\nuse = egg:waitress\n[app:main]\n")
    assert [report.section for report in check(file)] == ["DEFAULT"]
    assert [report.section for report in check(file, "app:main")] == ["app:main"]
    assert "timeout" in found(file, section="app:main")


def test_a_file_with_a_cache_dir_alone_is_one_of_sessions(ini):
    assert [report.section for report in check(ini("[app:main]\ncache_dir = x\n"))] == ["app:main"]


# -- what it does not do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        section({**SAFE, "nocookie.secret": "geheim"}),
        section({**SAFE, "nocookie.secret": "geheim geheim geheim", "nocookie.timeout": "x"}),
        section({**SAFE, "beaker.session.validate_key": "geheim", "session.scret": "geheim"}),
        section({**SAFE, "nocookie.secret": SECRET, "session.secret": "geheim"}),
        section({**REDIS, "nocookie.url": "redis://:geheim@redis.example.com:x/geheim"}),
        section({**REDIS, "nocookie.url": "geheim://geheim"}),
        section({**REDIS, "nocookie.type": "sqlalchemy", "nocookie.url": "geheim"}),
        section({**REDIS, "nocookie.type": "memcached", "nocookie.url": "u:geheim@x:1"}),
        section({**REDIS, "session.sa.url": "mysql://u:geheim@x", "nocookie.id_key": "geheim"}),
        "[filter:x]\nuse = egg:nocookie#session\nsecret = geheim\nscret = geheim\npass = geheim\n",
        "[app:main]\nsession.secret = geheim%\n",
        "[app:main]\nsession.secret\ngeheim\n",
    ],
)
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_no_secret_and_no_password_is_shown(run, ini, caplog, text, more):
    caplog.set_level(logging.DEBUG)
    _, out, err = run(ini(text), *more)
    assert out or err
    assert "geheim" not in out + err + caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"nocookie.type": "redis", "nocookie.url": "redis://127.0.0.1:1"},
        {"nocookie.type": "memcached", "nocookie.url": "127.0.0.1:1"},
        {"nocookie.type": "sqlalchemy", "nocookie.url": "postgresql+psycopg://127.0.0.1:1/x"},
        {
            "nocookie.type": "sqlalchemy",
            "nocookie.url": "sqlite:///x.db",
            "nocookie.create_table": "1",
        },
        {"cache_dir": "data"},
        {"nocookie.data_dir": "data", "nocookie.durability": "full"},
    ],
)
def test_no_store_is_opened(ini, tmp_path, monkeypatch, options):
    def refuse(*arguments):
        raise AssertionError("a connection")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert found(ini({**options, "nocookie.secure": "true"}), "unusable") == []
    assert os.listdir(tmp_path) == ["app.ini"]


class Elsewhere:
    """A store of somebody else's, which connects when it is made."""

    def __init__(self, *, url):
        raise AssertionError("a connection")


def test_a_store_of_somebody_elses_is_known_and_not_opened(ini, tmp_path, monkeypatch):
    folder = tmp_path / "site" / "elsewhere-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[nocookie.stores]\nelse = {__name__}:Elsewhere\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    options = {"nocookie.type": "else", "nocookie.secure": "true"}
    assert found(ini(options), "unusable") == ["options"], "its url is missing"
    assert found(ini({**options, "nocookie.url": "x"}), "unusable") == []


def test_the_finder_of_an_application_is_not_imported(ini, tmp_path, monkeypatch):
    (tmp_path / "shop_finder.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    file = ini({**COOKIELESS, "nocookie.find_id": "header:X-Sid, shop_finder:find"})
    assert (found(file), found(file, "unusable")) == ([], [])
    assert "shop_finder" not in sys.modules


def test_nothing_is_logged(ini, caplog):
    caplog.set_level(logging.DEBUG)
    options = {"nocookie.secret": "somesecret", "nocookie.beaker_ids_until": "2001-01-01"}
    check(ini({**SAFE, **options}))
    assert caplog.records == []


def test_a_terminal_is_told_nothing_that_it_would_act_upon(run, ini):
    _, out, _ = run(ini("[app:\x1b[2J]\nsession.key = a\x1b]0;x\x07b\nsession.a\x1b[1m = 5\n"))
    assert all(character.isprintable() or character == "\n" for character in out)


# -- as JSON -------------------------------------------------------------------------------------


def test_json_says_the_same(run, ini):
    file = ini({**SAFE, "beaker.session.timeout": "none", "nocookie.secret": SECRET})
    status, out, _ = run(file, "--json")
    told = json.loads(out)
    assert (status, told["status"], told["file"]) == (1, 1, str(file))
    (only,) = told["sections"]
    assert only["section"] == "app:main"
    assert only["options"][2] == {
        "number": 4,
        "key": "beaker.session.timeout",
        "value": "none",
        "means": OPTIONS["timeout"].doc.replace("`", ""),
        "beaker": BEAKER["timeout"],
    }
    (unsafe,) = [finding for finding in only["findings"] if finding["kind"] == "unsafe"]
    assert (unsafe["name"], unsafe["number"]) == ("timeout", 4)
    text = " ".join(run(file)[1].split())
    for finding in only["findings"]:
        assert " ".join(finding["sentence"].split()) in text


# -- options in a program ------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write the module `shop` beside, as it is imported from the folder that one is in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])

    def write(text):
        (tmp_path / "shop.py").write_text(text)

    yield write
    sys.modules.pop("shop", None)
    close_all()


OPTIONS_OF_A_PROGRAM = {
    "session.type": "file",
    "session.data_dir": "data",
    "session.auto": True,
    "session.timeout": 600,
    "session.secret": SECRET,
}


#: A dict, and applications that are made with it.
PROGRAMS = {
    "dict": "app = OPTIONS",
    "ours": "from nocookie import SessionMiddleware\napp = SessionMiddleware(None, OPTIONS)",
    "Beaker's": """
from beaker.middleware import SessionMiddleware
app = SessionMiddleware(None, OPTIONS)
""",
    "Flask": """
import flask, nocookie
app = flask.Flask("shop")
app.wsgi_app = nocookie.SessionMiddleware(app.wsgi_app, OPTIONS)
""",
    "outer layers": """
import nocookie
class Outer:
    def __init__(self, app):
        self.app = app
app = Outer(Outer(nocookie.SessionMiddleware(None, OPTIONS)))
""",
}


@pytest.mark.parametrize("text", PROGRAMS.values(), ids=PROGRAMS)
def test_a_dict_and_an_application_are_read_as_a_file_is(run, module, text):
    module(f"OPTIONS = {OPTIONS_OF_A_PROGRAM!r}\n{text}")
    status, out, err = run("shop:app")
    assert (status, err) == (1, "")  # the cookie is not secure
    assert "[options]" in out
    for key, value in {
        "type": "file",
        "data_dir": "data",
        "auto": "True",
        "timeout": "600",
    }.items():
        assert re.search(rf"session\.{key} = {value}$", out, re.MULTILINE)
    assert SECRET not in out
    assert "nocookie import --beaker-type file --beaker-data-dir data" in out


def test_keywords_are_read_too(run, module):
    module("options = {'data_dir': 'x', 'secure': True, 'tmeout': 5}")
    status, out, _ = run("shop:options")
    assert status == 2
    assert "tmeout = (not shown)" in out
    assert "secure = True" in out


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("shop:nothing", "of a module that can be imported"),
        ("shop:five", "neither a dict of options nor an application"),
        ("shop:inner", "neither a dict of options nor an application"),
        ("no.such.module:app", "of a module that can be imported"),
        ("none.ini", "there is no file none.ini"),
    ],
)
def test_what_has_no_options_is_one_sentence_and_status_2(run, module, source, why):
    module("five = 5\n\n\ndef inner(environ, start_response):\n    return []\n")
    status, out, err = run(source)
    assert (status, out) == (2, "")
    assert why in err


def test_what_a_middleware_was_given_is_not_shown_by_itself():
    app = SessionMiddleware(None, {"session.secret": SECRET}, timeout=5)
    assert SECRET not in repr(vars(app))
    assert app.configuration.keywords == {"timeout": 5}


# -- what takes its place ------------------------------------------------------------------------


OLD = {
    "beaker.session.type": "file",
    "beaker.session.data_dir": "%(here)s/data",
    "beaker.session.lock_dir": "%(here)s/lock",
    "beaker.session.key": "shop",
    "beaker.session.secret": "Beaker's own secret, of some length",
    "beaker.session.timeout": "2592000",
}


def test_what_takes_its_place_is_told_whole_with_the_command_beneath(run, ini, tmp_path):
    file = ini(OLD)
    _, out, _ = run(file)
    told = out.partition("In its place, as new.ini:\n\n")[2]
    text, _, rest = told.partition("\n\n")
    lines = dict(line.split(" = ", 1) for line in text.splitlines()[1:])
    assert text.startswith("[app:main]\n")
    assert lines["nocookie.data_dir"] == f"{tmp_path}/data"
    assert lines["nocookie.key"] == "shop"
    assert (lines["nocookie.timeout"], lines["nocookie.lifetime"]) == ("2592000", "2592000")
    assert lines["nocookie.beaker_secret"] == "<the value of beaker.session.secret>"
    assert date.fromisoformat(lines["nocookie.beaker_ids_until"]) >= date.today()
    assert not {"nocookie.lock_dir", "beaker.session.key"} & lines.keys()
    assert "\nnocookie import --from app.ini --config new.ini --trust-pickles\n" in rest
    assert "Beaker's own secret" not in out


def test_a_cookie_without_a_name_keeps_the_one_that_beaker_gave_it(ini):
    (report,) = check(ini({**OLD, "beaker.session.key": ""} | {"cache_dir": "x"}))
    assert report.successor is None, "a name of nothing is wrong"
    options = {key: value for key, value in OLD.items() if not key.endswith(".key")}
    (report,) = check(ini(options))
    assert "\nnocookie.key = beaker.session.id\n" in report.successor.ini
    (report,) = check(ini({**options, "beaker.session.use_cookies": "false"}))
    assert "nocookie.key" not in report.successor.ini
    assert "beaker_secret" not in report.successor.ini, "no cookie, no signature"


def test_beakers_users_stay_logged_in_by_what_is_told(run, ini, tmp_path, monkeypatch):
    """The new ini as it is printed, with the one value filled in, and the command as it is."""
    monkeypatch.chdir(tmp_path)

    def visits(environ, start_response):
        session = environ["beaker.session"]
        session["n"] = session.get("n", 0) + 1
        session.save()
        start_response("200 OK", [])
        return [b"%d" % session["n"]]

    file = ini(OLD)
    browser = TestApp(BeakerMiddleware(visits, read(file, "app:main")))
    assert browser.get("/").text == "1"
    _, out, _ = run(file)
    told = out.partition("In its place, as new.ini:\n\n")[2]
    text = told.partition("\n\n")[0]
    text = text.replace("<the value of beaker.session.secret>", OLD["beaker.session.secret"])
    (tmp_path / "new.ini").write_text(text + "\n")
    (command,) = [line for line in told.splitlines() if line.startswith("nocookie import")]
    with pytest.raises(SystemExit) as stop:
        cli.main(shlex.split(command)[1:])
    assert stop.value.code == 0
    close_all()
    config = read(tmp_path / "new.ini", "app:main")
    browser.app = SessionMiddleware(visits, config, environ_key="beaker.session")
    assert browser.get("/").text == "2"
    assert browser.app.manager.backend.timeout == 2592000
    close_all()


@pytest.mark.parametrize(
    ("options", "remark"),
    [
        ({"session.type": "memory"}, "end with its processes"),
        ({"session.secret": SECRET}, "end with its processes"),
        ({"session.type": "cookie", "session.validate_key": SECRET}, "with their clients"),
    ],
)
def test_what_cannot_be_brought_along_is_said(ini, options, remark):
    (report,) = check(ini(options))
    assert report.successor.command is None
    assert remark in report.successor.remark
    assert "beaker_" not in report.successor.ini


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"session.type": "ext:redis", "session.url": "redis://127.0.0.1:1/2"}, "redis"),
        (
            {"session.type": "ext:database", "session.sa.url": "postgresql://a:hunter2@b/c"},
            "<the value of session.sa.url>",
        ),
        (
            {
                "session.type": "ext:database",
                "session.url": "sqlite:///x",
                "session.table_name": "t",
            },
            "nocookie_t",
        ),
    ],
)
def test_where_a_server_is_comes_along_without_its_password(ini, options, words):
    (report,) = check(ini(options))
    assert words in report.successor.ini
    assert "hunter2" not in report.successor.ini
    assert "nocookie.type = ext" not in report.successor.ini


@pytest.mark.parametrize("options", [SAFE, {"session.tmeout": "5"}, {"session.timeout": "soon"}])
def test_where_there_is_nothing_of_beakers_or_no_start_there_is_no_successor(ini, options):
    (report,) = check(ini(options))
    assert report.successor is None


def test_a_value_in_which_no_secret_can_be_is_shown(ini):
    file = ini(
        {**SAFE, "session.lock_dir": "/lock", "session.timeout": "5", "nocookie.timeout": "6"}
    )
    shown = {line.key: line.value for line in lines(file)}
    assert shown["session.lock_dir"] == "/lock"
    assert shown["session.timeout"] == "5"


def test_the_page_lists_every_danger():
    page = (Path(__file__).parent.parent / "docs" / "production.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    names = [*(rule.name for rule in RULES if rule.kind == "unsafe"), "secret", "readable"]
    assert rows == [name for name, _ in itertools.groupby(sorted(names))]


def test_a_fresh_secret_passes(ini):
    assert found(ini({**SAFE, "nocookie.secret": fresh_secret()})) == []
