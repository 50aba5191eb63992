"""Options: one table, and the same conversion wherever a value comes from."""

import math
import os
from datetime import UTC, date, datetime, timedelta, timezone
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import pytest

import nocookie
from nocookie import ConfigError, Session, SessionMiddleware
from nocookie.beaker_options import REFUSED
from nocookie.options import OPTIONS, PREFIXES, reference, resolve
from nocookie.stores.memory import MemoryStore

STORE = MemoryStore()
CARRIER = nocookie.Header()
ENGINE = SimpleNamespace(dialect="any")
CLOCK = lambda: 5.0  # noqa: E731 - a value of an option

TRUE = [True, "True", "true", "TRUE", "yes", "on", "1", 1, " on ", "y", "t"]
FALSE = [False, "False", "false", "FALSE", "no", "off", "0", 0, " off ", "n", "f"]
NO_BOOL = ["", "maybe", "2", 2, None, [], 1.5, "truefalse"]
SECONDS = [(5, 5.0), ("5", 5.0), ("0.5", 0.5), (0.5, 0.5), (" 7 ", 7.0), ("1e3", 1000.0)]
NO_SECONDS = [0, -1, "0", "-1", "soon", math.nan, math.inf, "inf", "nan", [], True, b"5 s"]
NO_SECONDS += [1e21, "3155760001", 10**400]
NONE = [None, "none", "None", "", "off", " none "]
COUNTS = [(5, 5), ("5", 5), (" 7 ", 7)]
NO_COUNTS = [0, -1, "0", "-1", "many", 1.5, "1.5", None, True, [], ""]
TEXT = [("a", "a"), (" a b ", "a b")]
NO_TEXT = [5, b"a", ["a"], "a\nb", "a\0", "\x7f"]
SECRETS = [
    ("s", ("s",)),
    (" s ", ("s",)),
    ("new\nold", ("new", "old")),
    ("\n  new\n  old\n\n", ("new", "old")),
    (["new", "old"], ("new", "old")),
    (("one",), ("one",)),
]
NO_SECRETS = [5, b"bytes", [5], ["a", 5], [], [""], {"a": 1}, True]


def pairs(values, expected):
    return [(value, expected) for value in values]


BOOLS = pairs(TRUE, True) + pairs(FALSE, False)
NONES = pairs(NONE, None)

#: option -> what is right and what becomes of it, what is wrong.
ROWS = {
    "use_cookies": (BOOLS, NO_BOOL),
    "find_id": ([(CARRIER, CARRIER), ("query:sid", "query:sid"), (len, len)], []),
    "id_header": (
        [("X-Id", "X-Id"), (" X-Id ", "X-Id"), *NONES],
        ["a b", "a:b", "é", "a\r\nb", 5],
    ),
    "rewrite": (
        [("off", "off"), (" Location ", "location"), ("html", "html"), (None, None), ("", None)],
        ["none", "all", True, 5],
    ),
    "origin": (
        [
            ("https://shop.example", "https://shop.example"),
            ("https://Shop.Example:8443/", "https://shop.example:8443"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("https://192.0.2.1:65535", "https://192.0.2.1:65535"),
            ("https://Shop.Example/Shop/", "https://shop.example/Shop"),
            ("https://a/b/c%20d", "https://a/b/c%20d"),
            *NONES,
        ],
        [
            *("shop.example", "//shop.example", "https://", "ftp://shop.example"),
            *("https://u:p@a", "https://a:b", "https://a?b", "https://a b", 5),
            *("https://a:0", "https://a:0443", "https://a:65536", "https://a:", "https://a:99999"),
            *(
                "https://.",
                "https://a..b",
                "https://a.",
                "https://-a",
                "https://a-.b",
                "https://[]",
            ),
            *(
                "https://1.2.3",
                "https://127.1",
                "https://a.0x7f",
                "https://[1::2::3]",
                "https://[a",
            ),
            *("https://a//b", "https://a/./b", "https://a/..", "https://a/%2e%2e", "https://a/b;c"),
            *(
                "https://a/b%2fc",
                "https://a/b%5cc",
                "https://a/b%00",
                "https://a/%",
                "https://a/b#c",
            ),
            *("https://a/é", "https://a/b\\c", "https://a/b?c"),
        ],
    ),
    "leak_guard": (
        [("off", "off"), (" LOG ", "log"), ("raise", "raise")],
        ["", "none", None, True, "warn"],
    ),
    "type": ([("file", "file"), (STORE, STORE), *NONES], [5, object(), ["memory"], b"memory"]),
    "data_dir": ([*TEXT, *NONES], NO_TEXT),
    "url": ([("redis://h", "redis://h"), *NONES], NO_TEXT),
    "engine": ([(ENGINE, ENGINE), *NONES], [5, "sqlite://", object()]),
    "table_name": (TEXT, [*NO_TEXT, "", None]),
    "schema_name": ([*TEXT, *NONES], NO_TEXT),
    "create_table": (BOOLS, NO_BOOL),
    "key_prefix": (TEXT, [*NO_TEXT, "", None]),
    "durability": (
        [("full", "full"), (" FULL ", "full"), ("normal", "normal")],
        ["", "none", None, 1, "fsync"],
    ),
    "max_sessions": (COUNTS, NO_COUNTS),
    "deadline": ([*SECONDS, (86400, 86400.0)], [*NO_SECONDS, None, "none", 86401]),
    "timeout": ([*SECONDS, ("3155760000", 3155760000.0), *NONES], NO_SECONDS),
    "lifetime": ([*SECONDS, ("3155760000", 3155760000.0), *NONES], NO_SECONDS),
    "auto": (BOOLS, NO_BOOL),
    "secret": (SECRETS, NO_SECRETS),
    "encrypt_key": (SECRETS, NO_SECRETS),
    "data_serializer": (
        [("json", "json"), ("Pickle", "pickle")],
        ["yaml", "", None, 5, "json,pickle"],
    ),
    "values": ([("exact", "exact"), (" Base ", "base")], ["plain", "", None, True]),
    "max_value_size": (COUNTS, NO_COUNTS),
    "max_size": (COUNTS, NO_COUNTS),
    "max_keys": (COUNTS, NO_COUNTS),
    "rotate_every": ([*SECONDS, *NONES], NO_SECONDS),
    "request_limit": (SECONDS, [*NO_SECONDS, None, "none"]),
    "rotation_grace": (SECONDS, [*NO_SECONDS, None, "none"]),
    "on_unknown": ([("new", "new"), (" Error ", "error")], ["", "none", None, True, "raise"]),
    "require_https": (BOOLS, NO_BOOL),
    "watch_client": (BOOLS, NO_BOOL),
    "trusted_proxies": (
        [
            ("10.0.0.1", (ip_network("10.0.0.1"),)),
            ("10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
            (["fd00::/8"], (ip_network("fd00::/8"),)),
            *pairs([None, "none", ""], ()),
        ],
        ["proxy.example", "10.0.0.1/8", "10.0.0.0/40", 5.5, [[1]]],
    ),
    "on_event": (
        [
            (len, (len,)),
            ([len, print], (len, print)),
            ("builtins:len", (len,)),
            *pairs([None, ""], ()),
        ]
        + [("builtins:len, builtins:print", (len, print)), ("os:path.join", (os.path.join,))]
        + [(["builtins:len", print], (len, print))],
        ["len", "nowhere:len", "builtins:nothing", "builtins:__doc__", 5, [5], [len, "len"]],
    ),
    "strict": (BOOLS, NO_BOOL),
    "id_key": ([*TEXT, *NONES], NO_TEXT),
    "key": (TEXT, [*NO_TEXT, "", None]),
    "cookie_path": (TEXT, [*NO_TEXT, "", None]),
    "cookie_domain": ([*TEXT, *NONES], NO_TEXT),
    "cookie_expires": (
        [
            *pairs([True, "True", "true", "yes", "on"], True),
            *pairs([False, "False", "false", "no", "off"], False),
            *pairs([300, "300", 300.0, timedelta(minutes=5)], timedelta(seconds=300)),
            (datetime(2030, 1, 1), datetime(2030, 1, 1, tzinfo=UTC)),
            (datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)),
        ],
        [0, "0", -1, "-1", timedelta(0), timedelta(-1), "soon", None, [], math.nan, 1e300]
        + [datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12)))]
        + [3155760001, "1e13", timedelta(days=36526), timedelta.max],
    ),
    "secure": (BOOLS, NO_BOOL),
    "httponly": (BOOLS, NO_BOOL),
    "samesite": (
        [("Lax", "Lax"), ("strict", "Strict"), (None, None)],
        ["Loose", 5, True],
    ),
    "partitioned": (BOOLS, NO_BOOL),
    "beaker_ids_until": (
        [
            ("2030-12-31", datetime(2031, 1, 1, tzinfo=UTC)),
            (" 2030-12-31 ", datetime(2031, 1, 1, tzinfo=UTC)),
            (date(2030, 12, 31), datetime(2031, 1, 1, tzinfo=UTC)),
            ("2030-12-31 18:30", datetime(2030, 12, 31, 18, 30, tzinfo=UTC)),
            ("2030-12-31T18:30+01:00", datetime(2030, 12, 31, 17, 30, tzinfo=UTC)),
            (datetime(2030, 12, 31, 5), datetime(2030, 12, 31, 5, tzinfo=UTC)),
            *NONES,
        ],
        [5, "soon", True, "2030-13-01", "31.12.2030", [], date.max],
    ),
    "beaker_secret": (
        [("s", "s"), (" s ", " s "), (None, None)],
        [5, b"s", "", " ", "a\nb", ["s"]],
    ),
    "clock": ([(CLOCK, CLOCK)], [5, None, "time.time"]),
}

#: What an option needs beside it.
WITH = {
    "rewrite": {"use_cookies": False, "find_id": "query:sid"},
    "find_id": {"use_cookies": False},
    "encrypt_key": {"secret": "s"},
    "data_serializer": {"secret": "s"},
    "strict": {"id_key": "k"},
    "partitioned": {"secure": "True"},
    "beaker_secret": {"beaker_ids_until": "2030-12-31"},
}


def resolved(option, value, **more):
    return resolve(None, {**WITH.get(option, {}), option: value, **more})[option]


def test_every_option_has_its_row_here():
    assert ROWS.keys() == OPTIONS.keys()


RIGHT = [(name, value, expected) for name, (right, _) in ROWS.items() for value, expected in right]
WRONG = [(name, value) for name, (_, wrong) in ROWS.items() for value in wrong]


@pytest.mark.parametrize(("name", "value", "expected"), RIGHT)
def test_a_right_value_is_converted(name, value, expected):
    found = resolved(name, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_names_the_option_and_itself(name, value):
    with pytest.raises(ConfigError) as caught:
        resolved(name, value)
    message = str(caught.value)
    assert repr(name) in message
    if not OPTIONS[name].hidden:
        assert repr(value) in message


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.hidden])
@pytest.mark.parametrize(
    "value", ["hunter2\x00\nhunter2", [b"hunter2"], ["hunter2", 5], b"hunter2"]
)
def test_a_secret_value_is_never_shown(name, value):
    if name in ("secret", "encrypt_key") and value == "hunter2\x00\nhunter2":
        pytest.skip("two secrets, if odd ones")
    with pytest.raises(ConfigError) as caught:
        resolved(name, value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_secrets_are_hidden():
    assert {name for name, option in OPTIONS.items() if option.hidden} == {
        "secret",
        "beaker_secret",
        "encrypt_key",
        "id_key",
        "url",
        "engine",
    }


@pytest.mark.parametrize(("name", "option"), OPTIONS.items())
def test_every_default_passes_its_own_converter(name, option):
    assert resolve(None, {})[name] == option.default
    assert option.default is None or option.convert(option.default) == option.default


def test_samesite_can_be_none_for_embedded_frames():
    """Browsers ask for it, with Secure, where the page is a frame of another site."""
    app = SessionMiddleware(None, samesite="None", secure=True)
    reply = nocookie.Reply("200 OK", [], {})
    app.manager.carriers[0].place("A" * 43, reply)
    assert "samesite=none" in reply.headers["Set-Cookie"].lower()


@pytest.mark.parametrize("name", ["timeout", "lifetime", "deadline"])
def test_a_number_beyond_float_is_a_wrong_value(name):
    with pytest.raises(ConfigError, match=name):
        resolved(name, 10**400)


def test_a_wrong_deadline_is_not_told_that_there_is_none():
    with pytest.raises(ConfigError) as caught:
        resolved("deadline", "none")
    assert "or none" not in str(caught.value)


# -- where values come from ----------------------------------------------------------------------


def test_a_keyword_wins_then_each_prefix_in_turn():
    config = {
        "beaker.session.timeout": "1",
        "session.timeout": "2",
        "nocookie.timeout": "3",
    }
    assert resolve(config, {"timeout": 4})["timeout"] == 4
    assert resolve(config, {})["timeout"] == 3
    del config["nocookie.timeout"]
    assert resolve(config, {})["timeout"] == 2
    del config["session.timeout"]
    assert resolve(config, {})["timeout"] == 1
    assert resolve(dict(reversed(config.items())), {})["timeout"] == 1


def test_the_order_of_keys_makes_no_difference():
    keys = ["nocookie.timeout", "beaker.session.timeout", "session.timeout"]
    config = {key: number for number, key in enumerate(keys, 1)}
    assert resolve(config, {})["timeout"] == 1


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("value", FALSE)
def test_false_is_false_wherever_it_comes_from(prefix, value):
    assert resolve({f"{prefix}use_cookies": value}, {})["use_cookies"] is False
    assert resolve({}, {"use_cookies": value})["use_cookies"] is False


def test_cache_dir_gives_the_data_dir():
    assert resolve({"cache_dir": "/a"}, {})["data_dir"] == "/a"
    assert resolve({"cache_dir": ""}, {})["data_dir"] is None
    for key in ("nocookie.data_dir", "session.data_dir", "beaker.session.data_dir"):
        assert resolve({"cache_dir": "/a", key: "/b"}, {})["data_dir"] == "/b"
    assert resolve({"cache_dir": "/a"}, {"data_dir": "/b"})["data_dir"] == "/b"


def test_keys_of_others_are_ignored():
    config = {
        "debug": "true",
        "timeout": "5",
        "sqlalchemy.url": "sqlite://",
        "beaker.cache.type": "memory",
        "sessions.timeout": "5",
        "mynocookie.timeout": "5",
        "__file__": "development.ini",
        "here": "/srv",
    }
    assert resolve(config, {}) == resolve(None, {})
    assert config["timeout"] == "5", "and left alone"


def test_keys_of_others_may_be_of_any_type():
    assert resolve({5: "five", None: 1}, {}) == resolve(None, {})


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("timout", "timeout"),
        ("nocookie.timout", "timeout"),
        ("session.use_cookie", "use_cookies"),
        ("beaker.session.lifetme", "lifetime"),
        ("findid", "find_id"),
        ("secrets", "secret"),
        ("same_site", "samesite"),
    ],
)
def test_an_unknown_option_names_the_nearest(key, near):
    with pytest.raises(ConfigError) as caught:
        resolve(*(({key: "1"}, {}) if "." in key else (None, {key: "1"})))
    assert repr(key) in str(caught.value)
    assert f"did you mean '{near}'?" in str(caught.value)


def test_an_option_like_none_of_ours_points_to_the_documentation():
    with pytest.raises(ConfigError, match=r"docs/configuration\.md"):
        resolve(None, {"qqqqqqqq": 1})


def test_an_unknown_option_does_not_show_its_value():
    """It may be a secret under a name that was misspelt."""
    with pytest.raises(ConfigError) as caught:
        resolve(None, {"secrte": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_option_of_beaker_that_has_no_counterpart_says_what_to_do(prefix, name):
    with pytest.raises(ConfigError) as caught:
        resolve({prefix + name: "0"}, {})
    assert str(caught.value) == f"option {prefix + name!r} is not taken: {REFUSED[name]}"
    assert len(REFUSED[name].split()) >= 2
    assert name not in OPTIONS


# -- together ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"data_serializer": "pickle"}, "secret"),
        ({"encrypt_key": "k"}, "secret"),
        ({"strict": False}, "id_key"),
        ({"find_id": "query:sid"}, "use_cookies = False"),
        ({"find_id": CARRIER, "use_cookies": True}, "use_cookies = False"),
        ({"type": "file"}, "data_dir"),
        ({"rotate_every": 10, "rotation_grace": 321}, "32 times rotate_every"),
        ({"samesite": "None", "use_cookies": False, "find_id": []}, "empty list"),
    ],
)
def test_options_that_contradict_one_another_say_what_they_need(options, needs):
    with pytest.raises(ConfigError, match=needs):
        SessionMiddleware(None, **options)


@pytest.mark.parametrize(
    "find_id",
    ["", "nothing", "header:", "header:a b", "bearer:x", "query:a=b", "cookie:;", "os:nothing"]
    + ["no.such.module:f", "a:b:c", 5, [5], [], {}, ","],
)
def test_a_find_id_that_means_nothing_is_a_config_error(find_id):
    with pytest.raises(ConfigError):
        SessionMiddleware(None, use_cookies=False, find_id=find_id)


def test_a_class_as_find_id_says_to_call_it():
    with pytest.raises(ConfigError, match=r"call it: Header\(\)"):
        SessionMiddleware(None, use_cookies=False, find_id=nocookie.Header)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("header:X-Id", "Header('X-Id')"),
        ("header", "Header('X-Session-Id')"),
        ("asked-header:X-Id", "AskedHeader('X-Id')"),
        ("bearer", "Bearer()"),
        ("query:s", "Query('s')"),
        ("form:s", "Form('s')"),
        ("cookie:s", "Cookie('s')"),
        ("cookie", "Cookie('nocookie.session.id')"),
        ("path:~", "PathSegment('~')"),
        ("param:s", "PathParam('s')"),
        ("Header:X-Id", "Header('X-Id')"),
        ("os.path:basename", "Callback(basename)"),
        ("header:X-Id, query:s", "Header('X-Id') Query('s')"),
    ],
)
def test_a_find_id_can_be_written_as_text(text, shown):
    app = SessionMiddleware(None, {"nocookie.use_cookies": "false", "nocookie.find_id": text})
    assert " ".join(map(repr, app.manager.carriers)) == shown


def test_a_session_by_hand_takes_the_same_options():
    with pytest.raises(ConfigError, match="did you mean 'timeout'"):
        Session({}, timout=5)
    with pytest.raises(ConfigError, match="'timeout'"):
        Session({}, timeout="soon")
    assert Session({}, type=STORE, timeout="5").timeout == 5


def test_a_config_error_is_a_value_error_of_ours():
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, nocookie.NocookieError)


# -- the page ------------------------------------------------------------------------------------


def test_the_page_has_every_option():
    page = reference()
    for name in [*OPTIONS, *REFUSED]:
        assert f"| `{name}` |" in page


def test_the_table_has_no_row_that_breaks_it():
    rows = [line for line in reference().splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {3, 4}


def test_the_page_in_the_documentation_is_the_table():
    path = Path(__file__).parent.parent / "docs" / "configuration.md"
    if not path.exists():
        pytest.skip("the documentation is not here")
    assert path.read_text() == reference()
