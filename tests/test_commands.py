"""`nocookie list`, `show` and `end`: what they say, their exit status, and what they never say."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nocookie import Session, SessionMiddleware, cli, session
from nocookie.commands.showing import moment, printable, table
from nocookie.stores import close_all
from nocookie.stores.base import Record
from nocookie.stores.file import FileStore

SECRET = "k8Jq0x_Wz3mB7vCe9Ls-and-some-more"
LONGER_THAN_A_RUN_TAKES = 60


@pytest.fixture
def config(tmp_path):
    """The ini file of an application with a file store."""
    file = tmp_path / "app.ini"
    file.write_text(
        f"[app:main]\ncache_dir = %(here)s/data\nnocookie.secret = {SECRET}\n"
        "nocookie.on_event = an.application:that_is_not_here\n"
    )
    return file


@pytest.fixture
def make(tmp_path):
    """Store a session of that application."""

    def make(owner=None, client=None, secret=SECRET, **values):
        made = Session({}, data_dir=tmp_path / "data", secret=secret)
        made.update(values or {"n": 1})
        if owner is not None:
            made.login(owner, client)
        made.save()
        return made

    yield make
    close_all()


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a command here; return its status, and what it said to both sides."""
    monkeypatch.delenv("NOCOOKIE_URL", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([*map(str, arguments)])
        return (stop.value.code, *capsys.readouterr())

    yield run
    close_all()


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def is_there(made):
    return made.get_by_id(made.id) is not None


# -- list ----------------------------------------------------------------------------------------


def test_list_has_a_row_for_each_session(run, config, make):
    ada, nobody = make("ada", "curl/8"), make()

    status, out, err = run("list", "--config", config)

    assert (status, err) == (0, "")
    title, *rows = out.splitlines()
    assert title.split("  ")[0].strip() == "session"
    found = {row.split()[0]: row for row in rows}
    assert found.keys() == {ada.fingerprint, nobody.fingerprint}
    assert re.fullmatch(
        rf"{ada.fingerprint}  ada    (\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  ){{3}}-        curl/8",
        found[ada.fingerprint],
    )
    assert title.index("owner") == found[ada.fingerprint].index("ada")
    assert title.index("client") == found[ada.fingerprint].index("curl/8")


@pytest.mark.parametrize(
    ("arguments", "ahead"),
    # A table waits for the rows that say how wide its columns are.
    [(["--json"], 0), (["--limit", "0"], 1000)],
)
def test_a_list_begins_before_the_last_session_is_read(
    run, config, make, monkeypatch, arguments, ahead
):
    for number in range(ahead + 30):
        make(f"ada {number}")
    loads, said = [], []
    load = FileStore.load
    monkeypatch.setattr(FileStore, "load", lambda *a: loads.append(a) or load(*a))
    monkeypatch.setattr("click.echo", lambda text: said.append(len(loads)))

    assert run("list", "--config", config, *arguments)[0] == 0

    rows = said if "--json" in arguments else said[1:]
    assert len(rows) == len(loads) == ahead + 30
    waited = [max(0, number + 1 - ahead) for number in range(len(rows))]
    assert [max(0, read - ahead) for read in rows] == waited


def test_an_empty_store_is_no_error_and_no_file_is_made(run, tmp_path):
    assert run("list", "--data-dir", tmp_path / "none") == (0, "No session.\n", "")
    assert run("list", "--data-dir", tmp_path / "none", "--json") == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_a_line_of_one_shape(run, config, make):
    make("ada", "curl/8"), make()

    status, out, err = run("list", "--config", config, "--json")

    assert (status, err) == (0, "")
    rows = lines(out)
    assert [list(row) for row in rows] == [
        [
            *("fingerprint", "created", "last_accessed", "expires"),
            *("owner", "carrier", "client", "unreadable"),
        ]
    ] * 2
    (ada,) = (row for row in rows if row["owner"] == "ada")
    assert ada["expires"] - ada["last_accessed"] == 1800
    assert (ada["client"], ada["carrier"], ada["unreadable"]) == ("curl/8", None, None)


def test_a_session_without_an_end_has_null_for_it(run, config, make):
    mine = make("ada")
    mine.timeout = mine.lifetime = None
    mine.save()

    (row,) = lines(run("list", "--config", config, "--json")[1])
    assert row["expires"] is None
    assert "  never  " in run("list", "--config", config)[1]


def test_list_begins_with_what_was_used_last_and_says_what_it_leaves_out(run, tmp_path):
    now = time.time()
    for age in (30, 10, 50, 20):
        store = FileStore(data_dir=tmp_path, clock=lambda age=age: now - age)
        store.create(f"{age:064}", Record({}, now, 0.0, 0.0, 0), 600)
        store.create(f"1{age:063}", Record({}, now, 0.0, 0.0, 0), 600)
        store.close()

    def order(*arguments):
        status, out, _ = run("list", "--data-dir", tmp_path, *arguments)
        assert status == 0
        return out.splitlines()

    _, *rows, last = order("--limit", "3")
    used = [re.findall(r"\d\d:\d\d:\d\d", row)[1] for row in rows]
    assert used == sorted(used, reverse=True) and len(used) == 3
    assert last == "The 3 that were used last, of 8. --limit 0 lists all."
    assert len(order()) == len(order("--limit", "0")) == 9
    ages = [now - row["last_accessed"] for row in lines("\n".join(order("--json", "--limit", "3")))]
    assert ages == pytest.approx([10, 10, 20])


def test_list_of_an_owner(run, config, make):
    ada = [make("ada").fingerprint for _ in range(2)]
    make("bob")

    status, out, _ = run("list", "--config", config, "--owner", "ada", "--json")

    assert status == 0
    assert {row["fingerprint"] for row in lines(out)} == set(ada)
    assert run("list", "--config", config, "--owner", "eve") == (0, "No session.\n", "")


def test_without_the_secret_sessions_are_listed_and_owners_are_not_found(run, make, tmp_path):
    mine = make("ada")

    status, out, _ = run("list", "--data-dir", tmp_path / "data")
    assert status == 0
    assert mine.fingerprint in out and "unreadable: sealed with a secret" in out
    assert " ada " not in out
    for command in (["list"], ["end", "--yes"]):
        _, out, _ = run(*command, "--data-dir", tmp_path / "data", "--owner", "ada")
        assert "owners are found by that alone: name it with --config" in out
    assert is_there(mine)


def test_times_are_local_or_utc(run, config, make, monkeypatch):
    monkeypatch.setenv("TZ", "Etc/GMT-5")
    time.tzset()
    try:
        mine = make()
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(mine.created))
        in_utc = time.strftime("%Y-%m-%d %H:%M", time.gmtime(mine.created))
        assert written != in_utc
        assert written in run("list", "--config", config)[1]
        assert written in run("show", mine.fingerprint, "--config", config)[1]
        for command in (["list"], ["show", mine.fingerprint]):
            out = run(*command, "--config", config, "--utc")[1]
            assert re.search(rf"{in_utc}:\d\dZ", out)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_time_that_no_clock_says_is_no_error():
    assert [moment(True)(t) for t in (None, 1e300, float("inf"), 0.0)] == [
        *("?", "?", "never"),
        "1970-01-01 00:00:00Z",
    ]


def test_what_a_client_said_does_not_reach_the_terminal(run, config, make):
    mine = make("a\x1b[1mda", "x\x1b]0;y\x07", **{"k\x1b[2J": "v"})

    shown = (
        run("list", "--config", config)[1] + run("show", mine.fingerprint, "--config", config)[1]
    )
    assert "\x1b" not in shown and "\x07" not in shown
    assert "\\x1b[1mda" in shown
    assert printable("two\nlines") == "two lines"


def test_columns_are_as_wide_as_what_is_in_them():
    rows = table(("a", "b", "c"), [["日本", "x" * 50, "y" * 50], ["é", "short", ""]])
    assert list(rows) == [
        f"a     b{' ' * 31}  c",
        f"日本  {'x' * 31}…  {'y' * 50}",
        "é     short",
    ]


def test_later_rows_keep_to_the_columns_of_the_first_thousand():
    rows = list(table(("a", "b"), ([text, "-"] for text in ["aa"] * 1000 + ["aaaa"])))
    assert rows[1] == "aa  -"
    assert rows[-1] == "a…  -"


# -- show ----------------------------------------------------------------------------------------


def test_show_tells_all_but_id_and_values(run, config, make):
    mine = make("ada", "curl/8", colour="geheim", cart=[1, 2])
    mine.lifetime = 7200
    mine.save()

    status, out, err = run("show", mine.fingerprint, "--config", config)

    assert (status, err) == (0, "")
    told = dict(line.split("  ", 1) for line in out.split("\n\n")[0].splitlines())
    told = {name.strip(): text.strip() for name, text in told.items()}
    assert (told["session"], told["owner"], told["client"]) == (mine.fingerprint, "ada", "curl/8")
    assert (told["lifetime"], told["keys"]) == ("7,200 seconds, its own", "2")
    assert re.search(r"^cart +\d+  JSON$", out, re.MULTILINE)
    assert re.search(r"^colour +\d+  text$", out, re.MULTILINE)
    assert mine.id not in out and "geheim" not in out


def test_show_as_json_has_one_shape(run, config, make, tmp_path):
    mine = make("ada", colour="geheim")

    with_secret = json.loads(run("show", mine.fingerprint, "--config", config, "--json")[1])
    without = json.loads(
        run("show", mine.fingerprint, "--data-dir", tmp_path / "data", "--json")[1]
    )

    assert list(with_secret) == list(without)
    assert with_secret["keys"] == [
        {"name": "colour", "size": without["keys"][0]["size"], "encoding": "text"}
    ]
    assert without["keys"][0]["encoding"] == "sealed"
    assert (with_secret["owner"], without["owner"]) == ("ada", None)
    assert (with_secret["timeout"], with_secret["lifetime"]) == (None, None)
    mine.timeout = None
    mine.save()
    shown = json.loads(run("show", mine.fingerprint, "--config", config, "--json")[1])
    assert shown["timeout"] == "none"


def test_show_of_nobody_is_status_1(run, config, make):
    make()
    sentence = "nocookie show: there is no living session 0123456789\n"
    assert run("show", "0123456789", "--config", config) == (1, "", sentence)


@pytest.mark.parametrize("command", ["show", "end"])
def test_what_is_no_fingerprint_is_status_2_and_not_repeated(run, config, make, command):
    mine = make()
    key = mine._backend.ids.key(mine.id)
    for text in (mine.id, key, key[:11], key[:9], mine.fingerprint.upper() + "!", "0123456789\n"):
        status, out, err = run(command, "--config", config, "--", text)
        assert (status, out) == (2, "")
        assert "a fingerprint is 10 characters of 0-9 and a-f" in err
        assert text.strip() not in err
    assert is_there(mine)


@pytest.fixture
def twins(tmp_path):
    """Two sessions with one fingerprint, and a third."""
    store = FileStore(data_dir=tmp_path / "data")
    for key in ("ab" * 32, "ab" * 31 + "cd", "cd" * 32):
        store.create(key, Record({}, time.time(), 0.0, 0.0, 0), 600)
    yield store
    store.close()


def test_a_fingerprint_of_two_sessions_names_none(run, tmp_path, twins):
    where = ["--data-dir", tmp_path / "data"]
    sentence = "2 sessions have the fingerprint ababababab: it names none of them\n"
    assert run("show", "ab" * 5, *where) == (2, "", f"nocookie show: {sentence}")
    status, out, err = run("end", "--yes", "ab" * 5, "cd" * 5, *where)
    assert (status, out, err) == (1, "Ended 1 session.\n", f"nocookie end: {sentence}")
    assert len(list(twins.keys())) == 2


# -- end -----------------------------------------------------------------------------------------


def test_end_ends_what_is_named_and_nothing_else(run, config, make):
    one, two, three = make(), make(), make()

    done = run("end", "--config", config, one.fingerprint, two.fingerprint, one.fingerprint)

    assert done == (0, "Ended 2 sessions.\n", "")
    assert [is_there(made) for made in (one, two, three)] == [False, False, True]


def test_end_of_one_that_is_not_there_ends_the_others_and_is_status_1(run, config, make):
    mine = make()

    status, out, err = run("end", "--config", config, "0123456789", mine.fingerprint)

    assert (status, out) == (1, "Ended 1 session.\n")
    assert err == "nocookie end: there is no living session 0123456789\n"
    assert not is_there(mine)


def test_end_of_an_owner(run, config, make):
    ada, bob = [make("ada") for _ in range(3)], make("bob")

    assert run("end", "--config", config, "--owner", "ada") == (0, "Ended 3 sessions.\n", "")
    assert [is_there(made) for made in ada] == [False] * 3
    assert is_there(bob)
    assert run("end", "--config", config, "--owner", "ada") == (1, "No session.\n", "")


def test_end_of_all_takes_the_unreadable_ones_too(run, config, make):
    made = [make("ada"), make(secret="another" * 5), make(secret=None)]

    assert run("end", "--config", config, "--all", "--quiet") == (0, "", "")
    assert [is_there(one) for one in made] == [False] * 3
    assert run("end", "--config", config, "--all") == (1, "No session.\n", "")


@pytest.mark.parametrize(
    "what", [[], ["--all", "--owner", "ada"], ["--all", "0123456789"], ["--owner=a", "0123456789"]]
)
def test_end_wants_to_know_which_by_one_way(run, config, make, what):
    mine = make("ada")

    status, out, err = run("end", "--config", config, *what)

    assert (status, out) == (2, "")
    assert "Which sessions? Name fingerprints, or --owner, or --all." in err
    assert is_there(mine)


def test_an_end_is_told_to_nobody_but_the_one_who_asked(run, config, make, caplog):
    make("ada")
    caplog.clear()
    with caplog.at_level("INFO", "nocookie"):
        run("end", "--config", config, "--owner", "ada")
    assert caplog.records == []


def test_a_request_under_way_does_not_save_into_an_ended_session(run, tmp_path):
    from helpers import serve

    def application(environ, start_response):
        session["n"] = session.get("n", 0) + 1
        session.save()
        if environ["PATH_INFO"] == "/slow":
            fingerprint = session.fingerprint
            assert run("end", fingerprint, "--data-dir", tmp_path / "data")[0] == 0
        start_response("200 OK", [])
        return [b""]

    site = SessionMiddleware(application, use_cookies=False, data_dir=tmp_path / "data")
    id = serve(site).id
    assert serve(site, id, "/slow").status.startswith("409")
    assert serve(site, id).id not in (None, id)


def test_an_owner_that_is_no_text_is_one_sentence(run, config, make):
    for command in (["list"], ["end"]):
        status, out, err = run(*command, "--config", config, "--owner", "\udcff")
        assert (status, out) == (2, "")
        assert err.endswith("the name of an owner is text that UTF-8 can encode\n")


@pytest.mark.parametrize("command", [["list"], ["show", "0" * 10], ["end", "0" * 10]])
@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (["--type=memory"], "sessions in the memory of a process are seen by that process alone"),
        (["--type=memcached", "--url=127.0.0.1:1"], "MemcachedStore cannot list what it holds"),
    ],
)
def test_a_store_that_cannot_list_says_so_without_asking_a_server(run, command, where, sentence):
    status, out, err = run(*command, *where)

    assert (status, out) == (2, "")
    assert sentence in err


@pytest.mark.parametrize("command", [["list"], ["show", "0" * 10], ["end", "--all"]])
def test_a_store_that_fails_is_one_sentence_and_status_1(run, tmp_path, command):
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "sessions.db").write_bytes(b"not a database" * 100)

    status, out, err = run(*command, "--data-dir", tmp_path)

    assert (status, out) == (1, "")
    assert err == f"nocookie {command[0]}: the file store failed: SQLITE_NOTADB\n"


def test_what_was_ended_is_told_though_the_store_fails_then(run, config, make, monkeypatch):
    from nocookie import StoreError

    make(), make()
    destroy, calls = FileStore.destroy, []

    def once(self, key):
        calls.append(key)
        if len(calls) > 1:
            raise StoreError("the disk is gone")
        return destroy(self, key)

    monkeypatch.setattr(FileStore, "destroy", once)
    done = run("end", "--config", config, "--all")
    assert done == (1, "Ended 1 session.\n", "nocookie end: the disk is gone\n")


# -- on a terminal -------------------------------------------------------------------------------


def on_a_terminal(answer, *arguments):
    """Run it with a terminal before it, which types *answer*; return the status and what both
    sides got."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "nocookie", *map(str, arguments)],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    os.close(theirs)
    seen = []

    def read():
        try:
            while data := os.read(ours, 65536):
                seen.append(data)
        except OSError:
            pass  # how Linux says that the other side is closed

    reader = threading.Thread(target=read)
    reader.start()
    os.write(ours, answer.encode())
    out, _ = process.communicate(timeout=LONGER_THAN_A_RUN_TAKES)
    reader.join()
    os.close(ours)
    return process.returncode, out, b"".join(seen).decode()


def test_on_a_terminal_end_asks_first(config, make):
    mine = make("ada")

    status, out, seen = on_a_terminal("n\n", "end", "--owner", "ada", "--config", config)
    assert (status, out) == (1, "Nothing was ended.\n")
    assert "End all sessions of ada? [y/N]: " in seen
    assert is_there(mine)

    status, out, seen = on_a_terminal("y\n", "end", mine.fingerprint, "--config", config)
    assert (status, out) == (0, "Ended 1 session.\n")
    assert "End 1 session? [y/N]: " in seen
    assert not is_there(mine)


def test_on_a_terminal_yes_is_not_asked(config, make):
    mine = make()

    status, out, seen = on_a_terminal("", "end", "--all", "--yes", "--config", config)

    assert (status, out) == (0, "Ended 1 session.\n")
    assert "[y/N]" not in seen and "Ending" in seen
    assert not is_there(mine)


def test_on_a_terminal_a_long_look_shows_that_it_goes_on(config, make):
    make()
    status, out, seen = on_a_terminal("", "list", "--config", config)
    assert (status, len(out.splitlines())) == (0, 2)
    assert "Looking" in seen


# -- the page ------------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"


def test_the_page_has_a_row_for_each_command():
    rows = re.findall(r"^\| `nocookie ([a-z-]+)[^`]*` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert rows == list(cli.COMMANDS)


def shape(text):
    """A text without what another run has otherwise: fingerprints, times, the width of columns."""
    text = re.sub(r"\d+\.\d+", "NUMBER", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{10}\b", "FINGERPRINT", text)
    return re.sub(r"\b\d{2}\b", "NUMBER", text)


def test_what_the_page_shows_is_what_is_seen(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text("utf-8")
    for code in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(code, {})
    sessions = lines(run("list", "--config", "production.ini", "--json")[1])
    ada = max((s for s in sessions if s["owner"] == "ada"), key=lambda s: s["created"])
    printed = re.search(r"^(\w{10})  ada .*Till 7$", text, re.MULTILINE)[1]
    seen = 0
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for command, said in re.findall(
            r"^\$ nocookie (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE
        ):
            status, out, err = run(*command.replace(printed, ada["fingerprint"]).split())
            assert (status, err) == (0, "")
            assert shape(out) == shape(said), command
            seen += 1
    assert seen == 6
