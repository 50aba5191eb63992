"""`nocookie secret` and `nocookie make-config`: a secret for production, and an ini file."""

import configparser
import os
import re
import stat

import pytest
from paste.deploy import appconfig, loadapp
from webob import Response
from webtest import TestApp

from nocookie import SessionMiddleware, cli, session
from nocookie.inifile import read
from nocookie.stores import close_all
from nocookie.strength import weakness


@pytest.fixture
def run(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([*map(str, arguments)])
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return run


def visits(environ, start_response):
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    return Response(str(session["visits"]))(environ, start_response)


def make_app(global_conf, **local_conf):
    """The application that the ini file names; as Pylons, it hands on all that was configured."""
    return SessionMiddleware(visits, {**global_conf, **local_conf})


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """An installed project called shop, and its folder."""
    metadata = tmp_path / "site" / "shop-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[paste.app_factory]\nmain = {__name__}:make_app\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "shop").mkdir()
    yield tmp_path / "shop"
    close_all()


def section(file):
    parser = configparser.ConfigParser({"here": str(file.parent)})
    parser.read(file)
    return parser["app:main"]


def test_secret_prints_another_one_each_time(run):
    made = [run("secret") for _ in range(3)]
    assert [(status, err) for status, _, err in made] == [(0, "")] * 3
    assert len({out for _, out, _ in made}) == 3
    assert all(
        re.fullmatch(r"[\w-]{43}\n", out) and weakness(out.strip()) is None for _, out, _ in made
    )


def test_the_file_has_a_fresh_secret_and_the_name_of_its_folder(run, shop):
    status, out, _ = run("make-config", shop / "prod.ini")

    assert status == 0
    made = section(shop / "prod.ini")
    assert made["nocookie.key"] == "shop"
    assert weakness(made["nocookie.secret"]) is None
    assert made["nocookie.secret"] not in out
    run("make-config", shop / "again.ini")
    assert section(shop / "again.ini")["nocookie.secret"] != made["nocookie.secret"]


def test_the_file_is_for_its_owner_alone_whatever_the_umask(run, shop):
    old = os.umask(0)
    try:
        run("make-config", shop / "prod.ini")
        (shop / "open.ini").write_text("mine")
        (shop / "open.ini").chmod(0o666)
        run("make-config", "--force", shop / "open.ini")
    finally:
        os.umask(old)
    for name in ("prod.ini", "open.ini"):
        assert stat.S_IMODE((shop / name).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("pyproject", "options", "name"),
    [
        ('[project]\nname = "corner-shop"\n', [], "corner-shop"),
        ('[project]\nname = "corner-shop"\n', ["--name", "mine"], "mine"),
        ("[tool.x]\n", [], "shop"),
        ("not toml", [], "shop"),
        (None, ["--name", "Mein Lädchen; Path=/"], "Mein_L_dchen_Path"),
        (None, ["--name", "100%(x)s"], "100_x_s"),
        (None, ["--name", ";;;"], "app"),
    ],
)
def test_the_key_is_the_name_of_the_project(run, shop, pyproject, options, name):
    if pyproject is not None:
        (shop / "pyproject.toml").write_text(pyproject)
    run("make-config", *options, shop / "prod.ini")
    assert section(shop / "prod.ini")["nocookie.key"] == name


@pytest.mark.parametrize("options", [[], ["--no-cookies"]])
def test_the_file_loads_under_paste_and_the_application_keeps_sessions(run, shop, options):
    run("make-config", *options, shop / "prod.ini")
    uri = f"config:{shop / 'prod.ini'}"
    app = loadapp(uri)
    client = TestApp(app, extra_environ={"wsgi.url_scheme": "https", "HTTP_HOST": "localhost:443"})

    first = client.get("/")
    id = first.headers.get("X-Session-Id")
    second = client.get("/", headers={"X-Session-Id": id} if id else {})

    assert second.text == "2"
    assert bool(id) == bool(options)
    if not options:
        cookie = first.headers["Set-Cookie"]
        assert cookie.startswith("shop=")
        assert {"secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))
    assert (shop / "data" / "sessions").is_dir()
    assert appconfig(uri)["nocookie.key"] == "shop"


def test_the_file_is_read_by_the_commands_too(run, shop):
    run("make-config", shop / "prod.ini")
    assert read(shop / "prod.ini", "app:main")["cache_dir"] == str(shop / "data")
    assert run("purge", "--config", shop / "prod.ini")[0] == 0


def test_what_is_commented_out_is_taken_when_it_is_not(run, shop):
    """Comments with an option begin `#nocookie.`; all others with a blank after the sign."""
    run("make-config", shop / "prod.ini")
    text = (shop / "prod.ini").read_text()
    text = re.sub(r"^nocookie\.secret = .*\n", "", text, flags=re.MULTILINE)
    (shop / "prod.ini").write_text(
        re.sub(r"^#(?! |$)", "", text, flags=re.MULTILINE).replace("#  ", "  ")
    )
    found = read(shop / "prod.ini", "app:main")
    assert {"nocookie.type", "nocookie.url", "nocookie.cookie_expires"} <= found.keys()
    SessionMiddleware(visits, found)
    assert found["nocookie.secret"].split("\n") == ["", "the new one", "the old one"]


def test_a_file_that_is_there_is_kept_unless_forced(run, shop):
    (shop / "prod.ini").write_text("mine")

    status, out, err = run("make-config", shop / "prod.ini")

    assert (status, out) == (2, "")
    assert (
        err
        == f"nocookie make-config: {shop / 'prod.ini'} is there already; --force writes over it\n"
    )
    assert (shop / "prod.ini").read_text() == "mine"
    assert run("make-config", "--force", shop / "prod.ini")[0] == 0
    assert section(shop / "prod.ini")["nocookie.key"] == "shop"
    assert sorted(path.name for path in shop.iterdir()) == ["prod.ini"]


def test_a_link_leads_to_no_other_file(run, shop, tmp_path):
    (tmp_path / "theirs").write_text("theirs")
    (shop / "prod.ini").symlink_to(tmp_path / "theirs")
    assert run("make-config", shop / "prod.ini")[0] == 2
    assert run("make-config", "--force", shop / "prod.ini")[0] == 0
    assert (tmp_path / "theirs").read_text() == "theirs"


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_a_folder_that_is_not_there_is_one_sentence(run, shop, options):
    status, _, err = run("make-config", *options, shop / "nowhere" / "prod.ini")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "cannot be written: No such file" in err


def test_the_secret_is_on_no_other_line(run, shop):
    run("make-config", shop / "prod.ini")
    text = (shop / "prod.ini").read_text()
    assert text.count(section(shop / "prod.ini")["nocookie.secret"]) == 1
