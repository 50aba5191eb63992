"""`nocookie list`, `show` and `end` on every place that other processes see."""

import json

import pytest
from stores.places import places

from nocookie import Session, cli
from nocookie.stores.base import ByOwner, Listable

SECRET = "k8Jq0x_Wz3mB7vCe9Ls-and-some-more"


@pytest.fixture
def config(place, tmp_path):
    """An ini file that names the place."""
    options = "".join(f"nocookie.{name} = {value}\n" for name, value in place.options.items())
    file = tmp_path / "app.ini"
    file.write_text(f"[app:main]\nnocookie.secret = {SECRET}\n{options}")
    return file


@pytest.fixture
def run(capsys, config):
    def run(command, *arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "--config", str(config), *map(str, arguments)])
        return (stop.value.code, *capsys.readouterr())

    return run


def made(place, owner=None, **values):
    mine = Session({}, secret=SECRET, **place.options)
    mine.update(values or {"n": 1})
    if owner is not None:
        mine.login(owner)
    mine.save()
    return mine


def living(run):
    status, out, err = run("list", "--json")
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    return {row["fingerprint"]: row["owner"] for row in rows}


def can_list(place):
    return isinstance(place.store(), Listable)


@places("shared")
def test_sessions_are_listed_shown_and_ended_wherever_that_can_be(place, run):
    one, two, three = made(place), made(place, colour="geheim"), made(place)
    fingerprints = [mine.fingerprint for mine in (one, two, three)]
    if not can_list(place):
        for command in (["list"], ["show", fingerprints[0]], ["end", "--all"]):
            status, out, err = run(*command)
            assert (status, out) == (2, "")
            assert "cannot list what it holds; file, sqlalchemy and redis can" in err
        return

    assert living(run) == dict.fromkeys(fingerprints)
    status, out, _ = run("show", fingerprints[1])
    assert status == 0
    assert "colour" in out and "geheim" not in out
    assert run("end", fingerprints[1]) == (0, "Ended 1 session.\n", "")
    assert two.get_by_id(two.id) is None
    assert living(run).keys() == {fingerprints[0], fingerprints[2]}
    assert run("end", fingerprints[1])[0] == 1
    assert run("end", "--all") == (0, "Ended 2 sessions.\n", "")
    assert living(run) == {}


@places("shared")
def test_the_sessions_of_an_owner_are_listed_and_ended(place, run):
    if not can_list(place):
        for command in ("list", "end"):
            assert run(command, "--owner", "ada")[:2] == (2, "")
        return
    if not isinstance(place.store(), ByOwner):
        pytest.skip("this store does not find sessions by owner")
    ada, bob = [made(place, "ada") for _ in range(2)], made(place, "bob")

    status, out, _ = run("list", "--json", "--owner", "ada")
    assert (status, len(out.splitlines())) == (0, 2)
    assert run("end", "--owner", "ada") == (0, "Ended 2 sessions.\n", "")
    assert [mine.get_by_id(mine.id) for mine in ada] == [None, None]
    assert living(run) == {bob.fingerprint: "bob"}
