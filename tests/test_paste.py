"""Sessions from an ini file: Paste's entry points, the composite of the Pylons page, its registry.

The packages that an ini file speaks of are real ones, made in a folder of the test: PasteDeploy
finds applications by the metadata of installed packages and in no other way.
"""

import configparser
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from importlib.metadata import distribution
from pathlib import Path

import pytest
from helpers import CountingStore
from paste.deploy import loadapp, loadfilter
from paste.registry import RegistryManager, StackedObjectProxy
from webob import Response
from webtest import TestApp

import nocookie
from nocookie import ConfigError
from nocookie.adapters.paste import SessionMiddleware, beaker_session
from nocookie.stores import close_all

ROOT = Path(__file__).resolve().parent.parent
COMPOSITE = ROOT / "examples" / "composite"

#: The composite of the Pylons page, as it is printed there.
PRINTED = """\
# Here's an example of configuring multiple apps to use a common
# middleware filter
# The [app:home] section is a standard pylons app
# The ``/servicebroker`` and ``/proxy`` apps both want to be able
# to use the same session management

[server:main]
use = egg:Paste#http
host = 0.0.0.0
port = 5000

[filter-app:main]
use = egg:Beaker#beaker_session
next = sessioned
beaker.session.key = my_project_key
beaker.session.secret = i_wear_two_layers_of_socks

[composite:sessioned]
use = egg:Paste#urlmap
/ = home
/servicebroker = servicebroker
/proxy = cross_domain_proxy

[app:servicebroker]
use = egg:Appcelerator#service_broker

[app:cross_domain_proxy]
use = egg:Appcelerator#cross_domain_proxy

[app:home]
use = egg:my_project
full_stack = true
cache_dir = %(here)s/data
"""
OURS = PRINTED.replace("egg:Beaker#", "egg:nocookie#")
KEY = "beaker.session.key = my_project_key\n"
WITHOUT_COOKIES = OURS.replace(KEY, KEY + "beaker.session.use_cookies = False\n")
PATHS = ("/", "/servicebroker", "/proxy", "/servicebroker/deeper", "/")


class Counted(CountingStore):
    """What `type = counted` names here."""

    opened: "Counted"

    def __init__(self):
        super().__init__()
        Counted.opened = self


def notes(environ, start_response):
    """Adds its own name to what the session holds, and tells it."""
    session = environ["beaker.session"]
    session["seen"] = [*session.get("seen", []), environ["SCRIPT_NAME"] or "/"]
    session.save()
    return Response(json=session["seen"])(environ, start_response)


def quiet(environ, start_response):
    """Does not touch the session."""
    return Response("ok")(environ, start_response)


def make_notes(global_conf, **local_conf):
    return notes


def make_quiet(global_conf, **local_conf):
    return quiet


def make_project(global_conf, full_stack, cache_dir):
    """As the template of Pylons: its own session middleware, and Paste's registry around it."""
    return RegistryManager(SessionMiddleware(notes, {"cache_dir": cache_dir}))


@pytest.fixture(autouse=True)
def eggs(tmp_path, monkeypatch):
    """The packages that the ini files of this test name, installed."""
    site = tmp_path / "site"
    for package, points in {
        "Appcelerator": {
            "paste.app_factory": {
                "service_broker": "make_notes",
                "cross_domain_proxy": "make_notes",
            }
        },
        "my_project": {"paste.app_factory": {"main": "make_project", "quiet": "make_quiet"}},
        "counted": {"nocookie.stores": {"counted": "Counted"}},
    }.items():
        parser = configparser.ConfigParser()
        parser.read_dict(
            {
                group: {name: f"{__name__}:{value}" for name, value in names.items()}
                for group, names in points.items()
            }
        )
        folder = site / f"{package}-1.0.dist-info"
        folder.mkdir(parents=True)
        folder.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        with open(folder / "entry_points.txt", "w") as file:
            parser.write(file)
    monkeypatch.syspath_prepend(site)
    yield
    close_all()


@pytest.fixture
def write(tmp_path):
    """Write an ini file, and return where it is as PasteDeploy takes it."""

    def write(text):
        (tmp_path / "test.ini").write_text(text)
        return f"config:{tmp_path / 'test.ini'}"

    return write


@pytest.fixture
def filtered(write):
    """Put an application under the filter that lines of ini text describe."""

    def filtered(lines, app=notes, use="beaker_session", default=""):
        text = f"[DEFAULT]\n{default}\n[filter:main]\nuse = egg:nocookie#{use}\n{lines}\n"
        return loadfilter(write(text))(app)

    return filtered


def visit(client, id=None, path="/"):
    return client.get(path, headers={"X-Session-Id": id} if id else {})


# -- the composite of the Pylons page ------------------------------------------------------------


def test_the_printed_composite_shares_one_session_by_its_cookie(write):
    client = TestApp(loadapp(write(OURS)))
    answers = [client.get(path) for path in PATHS]
    assert answers[-1].json == ["/", "/servicebroker", "/proxy", "/servicebroker", "/"]
    assert answers[0].headers["Set-Cookie"].startswith("my_project_key=")
    assert list(client.cookies) == ["my_project_key"]
    assert ["Set-Cookie" in answer.headers for answer in answers[1:]] == [False] * 4


def test_the_printed_composite_shares_one_session_by_a_header(write):
    client = TestApp(loadapp(write(WITHOUT_COOKIES)))
    first = client.get("/proxy")
    id = first.headers["X-Session-Id"]
    answers = [visit(client, id, path) for path in PATHS]
    assert answers[-1].json == ["/proxy", "/", "/servicebroker", "/proxy", "/servicebroker", "/"]
    assert not any("Set-Cookie" in answer.headers for answer in (first, *answers))
    assert not any("X-Session-Id" in answer.headers for answer in answers)
    assert not client.cookies


def test_the_printed_composite_shares_one_session_by_the_query(write):
    with_query = WITHOUT_COOKIES.replace(KEY, KEY + "beaker.session.find_id = query:sid\n")
    client = TestApp(loadapp(write(with_query)))
    id = client.get("/").headers["X-Session-Id"]
    answers = [client.get(path, {"sid": id}) for path in PATHS]
    assert answers[-1].json == ["/", "/", "/servicebroker", "/proxy", "/servicebroker", "/"]
    assert not any("Set-Cookie" in answer.headers for answer in answers)


def test_the_printed_composite_shares_one_session_by_a_segment_of_the_path(write):
    """The mounts are found below the id, and what an application calls its own root has it."""
    with_path = WITHOUT_COOKIES.replace(KEY, KEY + "beaker.session.find_id = path:~\n")
    client = TestApp(loadapp(write(with_path)))
    id = client.get("/").headers["X-Session-Id"]
    client.get(f"/~{id}/servicebroker")
    assert client.get(f"/~{id}/proxy/").json == ["/", f"/~{id}/servicebroker", f"/~{id}/proxy"]


def test_a_request_to_the_composite_is_one_load_and_one_save(write):
    """Also to an application that brings the same middleware itself, as one of Pylons does."""
    counted = WITHOUT_COOKIES.replace(KEY, KEY + "beaker.session.type = counted\n")
    client = TestApp(loadapp(write(counted)))
    id = client.get("/").headers["X-Session-Id"]
    for path in PATHS:
        Counted.opened.trips.clear()
        visit(client, id, path)
        assert Counted.opened.trips == ["load", "save"]


def test_a_request_to_the_composite_that_needs_no_session_asks_no_store(write):
    counted = WITHOUT_COOKIES.replace(KEY, KEY + "beaker.session.type = counted\n")
    app = loadapp(write(counted.replace("Appcelerator#service_broker", "my_project#quiet")))
    client = TestApp(app)
    id = client.get("/proxy").headers["X-Session-Id"]
    Counted.opened.trips.clear()
    answer = visit(client, id, "/servicebroker")
    assert Counted.opened.trips == []
    assert "Vary" not in answer.headers


def test_the_composite_works_as_a_pipeline_and_as_filter_with(write):
    for text in (
        "[pipeline:main]\npipeline = sessions notes\n",
        "[app:main]\nuse = notes\nfilter-with = sessions\n",
    ):
        text += (
            "[filter:sessions]\nuse = egg:nocookie#beaker_session\nuse_cookies = False\n"
            "[app:notes]\nuse = egg:Appcelerator#service_broker\n"
        )
        client = TestApp(loadapp(write(text)))
        id = client.get("/").headers["X-Session-Id"]
        assert visit(client, id).json == ["/", "/"]


# -- the entry points ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["filter", "filter-app"])
@pytest.mark.parametrize(
    ("use", "lines", "key"),
    [
        ("beaker_session", "", "beaker.session"),
        ("session", "", "nocookie.session"),
        ("beaker_session", "environ_key = shop.session", "shop.session"),
        ("session", "beaker.session.environ_key = shop.session", "shop.session"),
    ],
)
def test_the_session_is_in_environ_where_its_entry_point_says(write, kind, use, lines, key):
    text = (
        f"[{kind}:sessions]\nuse = egg:nocookie#{use}\n{lines}\n"
        + ("next = quiet\n" if kind == "filter-app" else "")
        + "[app:quiet]\nuse = egg:my_project#quiet\n"
        + "[pipeline:main]\npipeline = sessions quiet\n"
    )
    uri = write(text)
    app = loadapp(uri, "sessions" if kind == "filter-app" else "main")
    assert isinstance(app, nocookie.SessionMiddleware)
    answer = TestApp(app).get("/")
    keys = {key for key in answer.request.environ if key.endswith(".session")}
    assert keys == {key}


def test_an_empty_environ_key_is_refused(filtered):
    with pytest.raises(ConfigError, match="environ_key"):
        filtered("environ_key =")


# -- what a section may say ----------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "nocookie.", "session.", "beaker.session."])
def test_options_of_the_section_count_with_and_without_a_prefix(filtered, prefix):
    client = TestApp(filtered(f"{prefix}use_cookies = False\n{prefix}timeout = 600"))
    assert "Set-Cookie" not in client.get("/").headers
    assert client.app.manager.backend.timeout == 600


@pytest.mark.parametrize("prefix", ["", "nocookie.", "session.", "beaker.session."])
def test_an_unknown_option_of_the_section_is_refused_and_the_nearest_named(filtered, prefix):
    with pytest.raises(ConfigError, match=rf"'{prefix}tmeout'; did you mean 'timeout'"):
        filtered(f"{prefix}tmeout = 600")


@pytest.mark.parametrize("prefix", ["nocookie.", "session.", "beaker.session."])
def test_options_under_a_prefix_count_in_the_default_section(filtered, prefix):
    app = filtered("", default=f"{prefix}timeout = 600")
    assert app.manager.backend.timeout == 600
    with pytest.raises(ConfigError, match=rf"'{prefix}tmeout'; did you mean 'timeout'"):
        filtered("", default=f"{prefix}tmeout = 600")


def test_what_else_is_in_the_default_section_belongs_to_others(filtered):
    app = filtered("", default="debug = true\ntimeout = 600\nenviron_key = x\nkey = theirs")
    assert app.manager.backend.timeout == 1800
    assert app.environ_key == "beaker.session"


@pytest.mark.parametrize("key", ["cache.type", "sqlalchemy.url", "full_stack", "session_maker"])
def test_the_section_itself_belongs_to_nobody_else(filtered, key):
    with pytest.raises(ConfigError, match=re.escape(repr(key))):
        filtered(f"{key} = x")


def test_the_section_wins_over_the_default_one_whatever_their_prefixes(filtered):
    app = filtered("beaker.session.timeout = 60", default="nocookie.timeout = 600")
    assert app.manager.backend.timeout == 60


def test_within_a_section_the_stronger_prefix_wins_whatever_the_order(filtered):
    lines = ["timeout = 1", "nocookie.timeout = 2", "session.timeout = 3"]
    lines += ["beaker.session.timeout = 4"]
    while lines:
        for order in (lines, lines[::-1]):
            app = filtered("\n".join(order))
            assert app.manager.backend.timeout == float(lines[0][-1])
        del lines[0]


@pytest.mark.parametrize("where", ["section", "default"])
def test_cache_dir_is_where_sessions_lie(filtered, tmp_path, where):
    line = "cache_dir = %(here)s/data"
    app = filtered(line if where == "section" else "", default=line if where == "default" else "")
    TestApp(app).get("/")
    assert (tmp_path / "data" / "sessions" / "sessions.db").exists()


def test_data_dir_counts_more_than_cache_dir(filtered, tmp_path):
    app = filtered("session.data_dir = %(here)s/ours\ncache_dir = %(here)s/all")
    TestApp(app).get("/")
    assert (tmp_path / "ours").exists()
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("option", ["client", "save_accessed_time", "session_class"])
def test_an_option_of_beaker_that_is_not_taken_says_what_to_do(filtered, option):
    with pytest.raises(ConfigError, match=f"'beaker.session.{option}' is not taken: "):
        filtered(f"beaker.session.{option} = x")


def test_a_wrong_value_is_refused_when_the_file_is_loaded(filtered):
    with pytest.raises(ConfigError, match="'timeout' must be a number"):
        filtered("beaker.session.timeout = soon")


def test_no_secret_is_in_an_error(filtered):
    with pytest.raises(ConfigError) as caught:
        filtered("beaker.session.secret = hush-hush\nbeaker.session.secert = hush-hush")
    assert "hush" not in str(caught.value)


# -- Paste's registry ----------------------------------------------------------------------------


def say(value):
    """Make an application that answers what *value* returns."""

    def app(environ, start_response):
        return Response(json=value(environ))(environ, start_response)

    return app


def test_the_global_is_the_session_of_the_request():
    def through_the_global(environ):
        assert beaker_session._current_obj() is environ["beaker.session"]
        beaker_session["n"] = beaker_session.get("n", 0) + 1
        beaker_session.save()
        return [beaker_session["n"], "n" in beaker_session, len(beaker_session)]

    sessions = SessionMiddleware(say(through_the_global), use_cookies=False)
    client = TestApp(RegistryManager(sessions))
    id = client.get("/").headers["X-Session-Id"]
    assert visit(client, id).json == [2, True, 1]


def test_the_global_is_there_under_the_egg_of_paste_and_the_egg_of_this_library(write):
    text = """
[pipeline:main]
pipeline = registry sessions globals
[filter:registry]
use = egg:Paste#registry
[filter:sessions]
use = egg:nocookie#session
[app:globals]
paste.app_factory = the_globals:make
"""
    module = type(sys)("the_globals")
    module.make = lambda global_conf: say(
        lambda environ: beaker_session._current_obj() is environ["nocookie.session"]
    )
    sys.modules["the_globals"] = module
    try:
        assert TestApp(loadapp(write(text))).get("/").json is True
    finally:
        del sys.modules["the_globals"]


def test_the_global_is_unbound_where_no_registry_is():
    def is_unbound(environ):
        with pytest.raises(TypeError, match="the session of nocookie"):
            beaker_session._current_obj()
        return True

    for environ in ({}, {"paste.registry": type("Empty", (), {"reglist": []})()}):
        app = SessionMiddleware(say(is_unbound))
        assert TestApp(app, extra_environ=environ).get("/").json is True


def test_the_global_is_unbound_after_the_request():
    TestApp(RegistryManager(SessionMiddleware(quiet))).get("/")
    assert beaker_session._object_stack() == []


def test_the_global_of_a_mounted_application_is_the_shared_session():
    """Paste's registry below the outer middleware, and a second middleware below that."""

    def is_the_one(environ):
        return beaker_session._current_obj() is environ["beaker.session"]

    inner = RegistryManager(SessionMiddleware(say(is_the_one)))
    assert TestApp(SessionMiddleware(inner)).get("/").json is True


def test_the_global_is_each_threads_own():
    together = threading.Barrier(4, timeout=30)
    answers = []

    def mine(environ):
        together.wait()
        beaker_session["name"] = environ["QUERY_STRING"]
        together.wait()
        return beaker_session["name"]

    app = RegistryManager(SessionMiddleware(say(mine), use_cookies=False))
    names = ["a", "b", "c", "d"]
    threads = [
        threading.Thread(target=lambda n=name: answers.append(TestApp(app).get(f"/?{n}").json))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == names


@pytest.mark.parametrize("id", [None, "A" * 43])
def test_a_registry_that_takes_the_session_back_does_not_load_it(id):
    store = CountingStore()
    sessions = SessionMiddleware(quiet, use_cookies=False, type=store)
    for app in (RegistryManager(sessions), SessionMiddleware(RegistryManager(sessions.app))):
        answer = visit(TestApp(app), id)
        assert answer.text == "ok"
        assert store.trips == []
        assert "Vary" not in answer.headers


def test_an_application_that_raises_leaves_nothing_in_the_global():
    def fail(environ):
        raise LookupError("the application's own")

    app = RegistryManager(SessionMiddleware(say(fail)))
    with pytest.raises(LookupError):
        TestApp(app).get("/")
    assert beaker_session._object_stack() == []


#: As `pylons.session`: an application's own global, which it registers itself.
pylons_session = StackedObjectProxy(name="session")


def pylons_style(controller):
    """What an application of Pylons is around its controllers."""

    def app(environ, start_response):
        environ["paste.registry"].register(pylons_session, environ["beaker.session"])
        return controller(environ, start_response)

    return RegistryManager(SessionMiddleware(app, use_cookies=False))


def test_a_global_of_the_applications_own_is_served():
    def through_the_global(environ):
        pylons_session["n"] = pylons_session.get("n", 0) + 1
        pylons_session.save()
        assert pylons_session._current_obj() is environ["beaker.session"]
        return pylons_session["n"]

    client = TestApp(pylons_style(say(through_the_global)))
    id = client.get("/").headers["X-Session-Id"]
    assert visit(client, id).json == 2


def test_a_global_of_the_applications_own_does_not_load_the_session():
    assert TestApp(pylons_style(quiet)).get("/").text == "ok"


# -- what else Beaker's middleware does ----------------------------------------------------------


def test_a_session_of_its_own_can_be_had_beside_the_one_of_the_request():
    def second(environ):
        other = environ["beaker.get_session"]()
        other["of"] = "another"
        other.save()
        return [other.id, environ["beaker.session"].get_by_id(other.id)["of"]]

    answer = TestApp(SessionMiddleware(say(second), use_cookies=False)).get("/")
    assert answer.json[1] == "another"
    assert "X-Session-Id" not in answer.headers


def test_a_session_of_its_own_is_the_one_with_an_id_if_it_is_asked_for_that():
    """So TurboGears 2 asks; Beaker itself takes no id."""

    def both(environ):
        get_session = environ["beaker.get_session"]
        other = get_session()
        other["of"] = "another"
        other.save()
        again, none = get_session(other.id), get_session("nobody's")
        return [again.is_new, again.get("of"), none.is_new, none.id == "nobody's"]

    answer = TestApp(SessionMiddleware(say(both), use_cookies=False)).get("/")
    assert answer.json == [False, "another", True, False]


@pytest.mark.parametrize("where", ["section", "default", "keyword"])
def test_responses_of_webtest_have_the_session_when_asked(filtered, where):
    line = "beaker.session.webtest_varname = session"
    if where == "keyword":
        app = SessionMiddleware(notes, webtest_varname="session")
    else:
        app = filtered(**{"lines": line} if where == "section" else {"lines": "", "default": line})
    assert TestApp(app).get("/").session["seen"] == ["/"]


def test_responses_of_webtest_are_left_alone_when_not_asked():
    assert not hasattr(TestApp(SessionMiddleware(notes)).get("/"), "session")


def test_without_paste_all_but_its_global_works(tmp_path):
    """PasteDeploy alone serves an ini file, and a registry may be of TurboGears."""
    code = f"""
import sys
sys.modules["paste.registry"] = None
from paste.deploy import loadapp
from webtest import TestApp
from nocookie.adapters.paste import beaker_session
assert beaker_session is None
open({str(tmp_path / "a.ini")!r}, "w").write('''
[filter-app:main]
use = egg:nocookie#beaker_session
next = app
use_cookies = False
[app:app]
paste.app_factory = __main__:make
''')
def make(global_conf):
    def app(environ, start_response):
        environ["beaker.session"]["n"] = 1
        environ["beaker.session"].save()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]
    return app
class Registry:
    reglist = [{{}}]
client = TestApp(loadapp({f"config:{tmp_path / 'a.ini'}"!r}))
answer = client.get("/", extra_environ={{"paste.registry": Registry()}})
assert len(answer.headers["X-Session-Id"]) == 43
"""
    run(code)


@pytest.mark.parametrize("name", ["beaker_session", "session"])
@pytest.mark.parametrize("group", ["paste.filter_factory", "paste.filter_app_factory"])
def test_what_is_installed_offers_each_egg_in_both_ways(group, name):
    """PasteDeploy takes the first way for every section; others may ask for the second."""
    (point,) = distribution("nocookie").entry_points.select(group=group, name=name)
    factory, options = point.load(), {"use_cookies": "False"}
    if group == "paste.filter_factory":
        app = factory({}, **options)(quiet)
    else:
        app = factory(quiet, {}, **options)
    key = {"beaker_session": "beaker.session", "session": "nocookie.session"}[name]
    assert key in TestApp(app).get("/").request.environ


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# -- the page and the example --------------------------------------------------------------------


INI_BLOCK = re.compile(r"^```ini\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def composites():
    found = []
    for page in ("composite.md", "from-beaker.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        for number, block in enumerate(INI_BLOCK.findall(text), 1):
            if "[composite:" in block:
                found.append(pytest.param(block, id=f"{page}-{number}"))
    return found


@pytest.mark.parametrize("text", composites())
def test_the_composites_on_the_pages_load_and_share_one_session(write, text):
    client = TestApp(loadapp(write(text)))
    id = client.get("/").headers.get("X-Session-Id")
    for path in PATHS[1:]:
        answer = visit(client, id, path)
    assert answer.json == ["/", "/servicebroker", "/proxy", "/servicebroker", "/"]


def test_there_is_a_composite_on_a_page():
    assert len(composites()) >= 2


@pytest.fixture
def example(tmp_path, monkeypatch):
    """A copy of the example, because it may make data beside its ini file."""
    folder = tmp_path / "composite"
    shutil.copytree(COMPOSITE, folder, ignore=shutil.ignore_patterns("__pycache__", "data"))
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("applications", None)


def test_the_example_logs_in_at_one_application_and_is_known_at_the_others(example):
    client = TestApp(loadapp(f"config:{example / 'composite.ini'}"))
    client.get("/proxy", status=403)
    first = client.get("/servicebroker/maps")
    before = first.headers["X-Session-Id"]
    login = client.post("/login", {"name": "ada"}, headers={"X-Session-Id": before})
    id = login.headers["X-Session-Id"]
    assert login.text == "ada was here\nmaps\n"
    assert visit(client, id, "/proxy").json == {"fetched for": "ada"}
    assert client.get("/servicebroker/news", {"sid": id}).json == ["maps", "news"]
    assert client.get("/proxy", headers={"X-Session-Id": before}, status=403)
    visit(client, id, "/logout")
    client.get("/proxy", headers={"X-Session-Id": id}, status=403)
    assert not client.cookies


def test_the_example_is_served_as_its_first_lines_say(example):
    command = [sys.executable, "-W", "ignore", str(example / "serve.py")]
    environment = {**os.environ, "PORT": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            with urllib.request.urlopen(url + "/servicebroker/maps", timeout=30) as answer:
                id = answer.headers["X-Session-Id"]
            request = urllib.request.Request(url, headers={"X-Session-Id": id})
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.read() == b"stranger was here\nmaps\n"
        finally:
            server.terminate()


def test_the_example_is_on_a_page():
    assert "examples/composite" in (ROOT / "docs" / "composite.md").read_text("utf-8")


def test_no_id_is_logged_on_the_way_through_the_composite(write, caplog):
    caplog.set_level(logging.DEBUG)
    client = TestApp(loadapp(write(WITHOUT_COOKIES)))
    id = client.get("/").headers["X-Session-Id"]
    visit(client, id, "/proxy")
    assert caplog.records
    assert id not in caplog.text
