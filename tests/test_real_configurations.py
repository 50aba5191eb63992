"""Configurations that people have written for Beaker start as they are, and mean what they say."""

from datetime import timedelta

import pytest
from beaker.middleware import SessionMiddleware as BeakerMiddleware
from real_configurations import ANOTHERS, CANNOT_START, CONFIGURATIONS, NEEDLESS, SECRET

from nocookie import ConfigError, Session, SessionMiddleware
from nocookie.beaker_options import HINTS
from nocookie.beaker_options import NEEDLESS as NEEDLESS_OPTIONS
from nocookie.checking import check, check_options
from nocookie.inifile import read
from nocookie.manager import SessionManager
from nocookie.options import OPTIONS, resolve
from nocookie.stores import close_all

pytestmark = pytest.mark.usefixtures("stores_are_closed")


@pytest.fixture
def stores_are_closed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    close_all()


STARTING = [one for one in CONFIGURATIONS if one.name not in CANNOT_START]
LINES = [(one, line) for one in STARTING for line in one.lines]


def named(one):
    return one.name if hasattr(one, "name") else getattr(one, "key", None)


def written(one, folder, as_ini):
    """The section of an ini file as PasteDeploy hands it over, or the dict of a program."""
    if as_ini:
        file = folder / "app.ini"
        lines = [f"{line.key} = {line.value}" for line in one.lines]
        file.write_text("\n".join(["[app:main]", *lines]))
        return read(file, "app:main")
    return {
        line.key: line.value.replace("%(here)s", str(folder))
        if isinstance(line.value, str)
        else line.value
        for line in one.lines
    }


def both_ways(one):
    """None and a truth value are not written in an ini file in a way that means the same."""
    return [True, False] if one.is_ini else [False]


def options_of(records):
    return [record.detail for record in records if getattr(record, "event", None) == "options"]


def test_there_are_26_and_25_of_them_start():
    assert len(CONFIGURATIONS) == 26
    assert len(STARTING) == 25


@pytest.mark.parametrize("one", STARTING, ids=named)
def test_it_starts_as_it_is_and_says_at_most_one_thing(one, tmp_path, caplog):
    for as_ini in both_ways(one):
        caplog.clear()
        SessionManager(written(one, tmp_path, as_ini))
        said = options_of(caplog.records)
        needless = [line.key for line in one.lines if line.means == NEEDLESS]
        assert len(said) <= 1
        assert all(key in said[0] for key in needless)


@pytest.mark.parametrize("one", STARTING, ids=named)
def test_the_check_is_of_the_same_mind(one, tmp_path):
    if one.is_ini and one.lines:
        written(one, tmp_path, True)
        (report,) = check(tmp_path / "app.ini")
        assert report.status < 2
        assert [line.key for line in report.lines] == [
            line.key for line in one.lines if line.means != ANOTHERS
        ]
    assert check_options(written(one, tmp_path, False)).status < 2


@pytest.mark.parametrize(("one", "line"), LINES, ids=named)
def test_a_line_means_what_it_says(one, line, tmp_path):
    for as_ini in both_ways(one):
        config = written(one, tmp_path, as_ini)
        settings = resolve(config, {})
        if line.means in (NEEDLESS, ANOTHERS):
            without = resolve({key: config[key] for key in config if key != line.key}, {})
            assert settings == without, "it changes nothing"
            assert any(note.startswith(line.key) for note in settings.notes) is (
                line.means == NEEDLESS
            )
            continue
        for name, value in line.means.items():
            value = value.replace("{here}", str(tmp_path)) if isinstance(value, str) else value
            assert settings[name] == value
        others = {
            name for other in one.lines if isinstance(other.means, dict) for name in other.means
        }
        for name, option in OPTIONS.items():
            assert name in {*others, *one.together} or settings[name] == option.default


@pytest.mark.parametrize("one", [one for one in STARTING if one.together], ids=named)
def test_nothing_written_is_all_by_default(one, tmp_path):
    settings = resolve(written(one, tmp_path, False), {})
    assert {name: settings[name] for name in one.together} == one.together


@pytest.mark.parametrize("one", [one for one in CONFIGURATIONS if one.name in CANNOT_START])
def test_a_key_that_everybody_knows_is_refused_and_said_so(one, tmp_path):
    with pytest.raises(ConfigError, match=r"'session\.validate_key' must be a text that nobody"):
        SessionManager(written(one, tmp_path, False))
    assert check_options(written(one, tmp_path, False)).status == 2


@pytest.mark.parametrize(
    "one", [one for one in CONFIGURATIONS if not one.name.startswith("ayame")], ids=named
)
def test_beaker_takes_it(one, tmp_path):
    """So it is a configuration. (What ayame has was a timedelta before it was written down.)"""
    config = written(one, tmp_path, False)
    BeakerMiddleware(lambda environ, start_response: [], config)


# -- long times ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [43201, 604800, "2592000"])
def test_a_lifetime_that_is_not_written_does_not_end_a_session_before_its_timeout(seconds, caplog):
    app = SessionMiddleware(None, {"beaker.session.timeout": seconds})
    assert app.manager.backend.lifetime == app.manager.backend.timeout == float(seconds)
    (said,) = options_of(caplog.records)
    assert said == f"lifetime: as long as timeout, {seconds} seconds"


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 43200},
        {"timeout": 600},
        {"timeout": None},
        {"timeout": 90000, "lifetime": 43200},
        {"timeout": 90000, "lifetime": None},
    ],
)
def test_else_the_lifetime_is_what_it_was(options, caplog):
    settings = resolve(None, options)
    assert settings["lifetime"] == options.get("lifetime", 43200)
    assert not settings.notes


def test_a_session_by_hand_lives_as_long_as_its_timeout_too():
    assert Session({}, timeout=90000).lifetime == 90000


def test_a_cookie_that_outlasts_its_session_is_noted():
    for value in (False, 50000, timedelta(days=31)):
        notes = resolve({"session.cookie_expires": value}, {}).notes
        assert notes == ["timeout: 1800 seconds, before session.cookie_expires ends the cookie"]
        assert not resolve({"session.cookie_expires": value, "session.timeout": 600}, {}).notes
        assert not resolve({"nocookie.cookie_expires": value}, {}).notes
    assert not resolve({"session.cookie_expires": 300}, {}).notes
    assert not resolve({"session.cookie_expires": True}, {}).notes


# -- options that nothing needs ------------------------------------------------------------------


@pytest.mark.parametrize("name", NEEDLESS_OPTIONS)
@pytest.mark.parametrize("prefix", ["", "session.", "beaker.session.", "session_"])
def test_what_nothing_needs_is_taken_and_named(prefix, name):
    keywords = {"secret": SECRET, prefix + name: "1"}
    settings = resolve(None, keywords)
    assert settings == resolve(None, {"secret": SECRET})
    assert settings.notes == [f"{prefix}{name}: {NEEDLESS_OPTIONS[name]}"]


def test_one_record_lists_all_of_it(caplog):
    SessionMiddleware(None, lock_dir="x", timeout=90000, log_file=None, memcache_module="auto")
    (said,) = options_of(caplog.records)
    assert [part.partition(":")[0] for part in said.split("; ")] == [
        *("lock_dir", "log_file", "memcache_module", "lifetime")
    ]


def test_a_session_by_hand_says_it_once_in_a_process(caplog):
    for _ in range(3):
        Session({}, lock_dir="said once")
        Session({}, type="memory", optimistic=False)
    assert len(options_of(caplog.records)) <= 2


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"type": "ext:sqla", "bind": "engine"}, "engine", None),
        ({"sa_opts": {"sa.url": "sqlite://", "sa.echo": True}}, "url", "sqlite://"),
        ({"sa.url": "sqlite:///a", "url": "sqlite:///b"}, "url", "sqlite:///b"),
        ({"file_dir": "there", "data_dir": "here"}, "data_dir", "there"),
        (
            {"urls": "redis://a.example:1,redis://b.example:2"},
            "url",
            "redis+cluster://a.example:1,b.example:2",
        ),
        ({"validate_key": SECRET}, "secret", (SECRET,)),
        ({"validate_key": SECRET, "secret": SECRET[::-1]}, "secret", (SECRET[::-1],)),
        ({"type": "ext:database", "create_table": False}, "create_table", False),
        ({"type": "ext:database"}, "table_name", "nocookie_sessions"),
        ({"type": "sqlalchemy", "table_name": "mine"}, "table_name", "mine"),
        ({"type": "sqlalchemy"}, "create_table", False),
    ],
)
def test_what_has_another_name_here_is_taken_under_that(given, name, value):
    if "bind" in given:
        sqlalchemy = pytest.importorskip("sqlalchemy")
        given["bind"] = value = sqlalchemy.create_engine("sqlite://")
    assert resolve(None, given)[name] == value


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"session.save_accessed_time": "False"}, "for no idle timeout set timeout = none"),
        ({"session.validate_key": 5}, "a text that nobody knows"),
        ({"session.urls": "a.example"}, "need the urls of its nodes"),
        ({"cache_dir": "redis://127.0.0.1:6379"}, "must be a folder"),
        ({"session.timeout": "0"}, "above 0"),
        ({"session.secret": ""}, "must not be empty"),
        ({"session.samesite": "None"}, "secure = True"),
    ],
)
def test_what_does_harm_or_means_nothing_is_refused(config, why):
    with pytest.raises(ConfigError, match=why):
        SessionManager(config)


def test_the_password_of_a_server_that_is_no_folder_is_not_shown(tmp_path):
    config = {"cache_dir": "redis://:hunter2@127.0.0.1:6379"}
    with pytest.raises(ConfigError, match="must be a folder") as caught:
        SessionManager(config)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(check_options(config))


def test_a_cache_that_is_a_server_is_nobodys_folder():
    config = {"cache_dir": "redis://127.0.0.1:6379", "session.type": "memory"}
    assert resolve(config, {})["data_dir"] is None


# -- prefixes ------------------------------------------------------------------------------------


def test_beakers_oldest_prefix_counts_and_is_the_weakest():
    config = {"session_type": "file", "session_data_dir": "x", "session_timeout": "600"}
    settings = resolve(config, {})
    assert (settings["type"], settings["data_dir"], settings["timeout"]) == ("file", "x", 600)
    assert settings.notes == [
        f"{key}: taken for session.{key.removeprefix('session_')}, as by Beaker" for key in config
    ]
    assert resolve({**config, "session.timeout": "5"}, {})["timeout"] == 5
    assert resolve({**config, "beaker.session.timeout": "5"}, {})["timeout"] == 5


def test_what_beaker_never_had_is_anothers_under_that_prefix():
    config = {"session_lifetime": "5", "session_id": "x", "session_store": "y", "session_maker": 1}
    assert resolve(config, {}) == resolve(None, {})


def test_the_check_reads_that_prefix_too(tmp_path):
    file = tmp_path / "app.ini"
    file.write_text("[app:main]\nsession_timeout = 600\nsession_maker = x\n")
    (report,) = check(file)
    assert [line.key for line in report.lines] == ["session_timeout"]


def test_keywords_may_have_a_prefix_as_beaker_takes_them():
    settings = resolve(None, {"session.timeout": 5, "beaker.session.key": "a", "session_auto": 1})
    assert (settings["timeout"], settings["key"], settings["auto"]) == (5, "a", True)


# -- hints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HINTS)
def test_a_hint_names_an_option(name):
    assert HINTS[name] in OPTIONS
    assert name not in OPTIONS
    with pytest.raises(ConfigError, match=f"did you mean '{HINTS[name]}'"):
        resolve(None, {name: "x"})


@pytest.mark.parametrize("name", ["constant_csrf_token", "reset", "pool"])
def test_a_name_that_is_like_nothing_is_given_no_misleading_hint(name):
    with pytest.raises(ConfigError, match=r"see docs/configuration\.md"):
        resolve(None, {name: "x"})


def test_a_misspelt_option_that_nothing_needs_is_known_by_its_own_name():
    with pytest.raises(ConfigError, match="did you mean 'cookie_on_exception'"):
        resolve(None, {"cookie_on_exceptions": True})
