"""The file store opens what its user alone could have put there."""

import os
import time

import pytest

from nocookie import StoreError
from nocookie.stores import ownership
from nocookie.stores.base import Record
from nocookie.stores.file import FileStore

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no modes here")


def key(number):
    return f"{number:064x}"


def record(**fields):
    return Record(fields, time.time(), 0.0, 0.0, 0)


@pytest.fixture
def data(tmp_path):
    """The `data_dir`, with a session in it."""
    folder = tmp_path / "data"
    store = FileStore(data_dir=folder)
    store.create(key(1), record(a=b"1"), 600)
    store.close()
    return folder


@pytest.fixture
def folder(data):
    return data / "sessions"


@pytest.fixture
def path(folder):
    return folder / "sessions.db"


@pytest.fixture
def owned_by_another():
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    return lambda path: os.chown(path, NOBODY, NOBODY)


def refuses(data, *words):
    """Every call is a StoreError that says what to do, and no path."""
    store = FileStore(data_dir=data)
    for call in (
        lambda: store.load(key(1)),
        lambda: store.create(key(2), record(), 600),
        lambda: store.destroy(key(1)),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        said = str(caught.value)
        assert str(data) not in said
        for word in words:
            assert word in said
    store.close()


def takes(data):
    store = FileStore(data_dir=data)
    assert isinstance(store.load(key(1)), Record)
    store.create(key(3), record(), 600)
    store.close()


def test_a_link_to_a_file_that_is_there_is_refused(data, path, tmp_path):
    path.rename(tmp_path / "real.db")
    path.symlink_to(tmp_path / "real.db")
    before = (tmp_path / "real.db").read_bytes()
    refuses(data, "sessions.db is a link", "put the file itself there")
    assert (tmp_path / "real.db").read_bytes() == before


def test_a_folder_of_the_file_that_is_a_link_is_refused(data, folder, tmp_path):
    folder.rename(tmp_path / "real")
    folder.symlink_to(tmp_path / "real")
    refuses(data, "data_dir/sessions is a link", "name as data_dir")


def test_a_data_dir_that_is_a_link_of_the_operators_is_followed(data, tmp_path):
    (tmp_path / "link").symlink_to(data)
    takes(tmp_path / "link")


@pytest.mark.parametrize("side", ["-wal", "-shm"])
def test_a_link_beside_the_file_is_refused(data, path, tmp_path, side):
    (tmp_path / "other").touch()
    path.with_name(path.name + side).symlink_to(tmp_path / "other")
    refuses(data, f"sessions.db{side} is a link")


def test_a_fifo_in_the_place_of_the_file_is_refused_at_once(data, path):
    path.unlink()
    os.mkfifo(path)
    refuses(data, "is no file")


@pytest.mark.parametrize("what", ["data_dir", "data_dir/sessions", "sessions.db"])
def test_what_belongs_to_another_user_is_refused(data, folder, path, owned_by_another, what):
    """By root too: whoever owns the folder reads and writes what is in it."""
    owned_by_another({"data_dir": data, "data_dir/sessions": folder, "sessions.db": path}[what])
    refuses(data, f"{what} belongs to another user ({NOBODY})", "run as that user", "chown")


def test_what_belongs_to_root_is_taken_by_others(data, folder, path, owned_by_another, fork):
    """A volume that is mounted for a container, say."""
    for one in [data.parent, *data.parent.parents]:
        if one == data.parent or one.name.startswith("pytest-"):
            one.chmod(0o755)
    data.chmod(0o755)
    owned_by_another(folder)
    owned_by_another(path)

    def child():
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        takes(data)

    assert fork(child).wait() == 0


@pytest.mark.parametrize("mode", [0o020, 0o002, 0o022])
@pytest.mark.parametrize("what", ["data_dir", "data_dir/sessions", "sessions.db"])
def test_what_others_may_write_to_is_refused(data, folder, path, what, mode, monkeypatch):
    monkeypatch.setattr(ownership, "_is_private", lambda group: False)
    one = {"data_dir": data, "data_dir/sessions": folder, "sessions.db": path}[what]
    one.chmod(one.stat().st_mode | mode)
    refuses(data, f"others than its owner may write to {what}", "chmod go-w")


@pytest.mark.parametrize("what", ["data_dir", "data_dir/sessions", "sessions.db"])
def test_the_group_of_a_user_alone_may_write(data, folder, path, what, monkeypatch):
    """Where the umask is 002, everybody's own folders are like that."""
    monkeypatch.setattr(ownership, "_is_private", lambda group: True)
    one = {"data_dir": data, "data_dir/sessions": folder, "sessions.db": path}[what]
    one.chmod(one.stat().st_mode | 0o020)
    takes(data)
    one.chmod(one.stat().st_mode | 0o002)
    refuses(data, "others than its owner")


def test_a_group_is_of_a_user_alone_by_its_name_and_its_members(monkeypatch):
    import grp
    import pwd

    user = pwd.getpwuid(os.geteuid())

    def says(name=user.pw_name, members=(), gid=user.pw_gid):
        group = grp.struct_group((name, "x", gid, list(members)))
        monkeypatch.setattr(grp, "getgrgid", lambda asked: group)
        return ownership._is_private(gid)

    assert says()
    assert says(members=[user.pw_name])
    assert not says(members=["eve"])
    assert not says(name="staff")
    assert not says(gid=user.pw_gid + 1)


def test_a_data_dir_with_the_sticky_bit_is_taken(data):
    """As /tmp is: others may add to it, but not move or remove what is ours."""
    data.chmod(0o1777)
    takes(data)


def test_a_folder_of_the_file_with_the_sticky_bit_is_refused(data, folder):
    """Others could put a -wal beside the file."""
    folder.chmod(0o1777)
    refuses(data, "others than its owner may write to data_dir/sessions")


def test_a_folder_above_that_anybody_may_write_to_is_refused(data):
    data.parent.chmod(0o777)
    refuses(data, "a folder above data_dir", "chmod o-w")
    data.parent.chmod(0o1777)
    takes(data)


def test_nothing_is_made_where_somebody_could_replace_it(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    store = FileStore(data_dir=tmp_path / "data")
    with pytest.raises(StoreError, match="others than its owner"):
        store.create(key(1), record(), 600)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_file_that_others_may_read_is_said_once_and_used(data, folder, path, caplog):
    folder.chmod(0o755)
    path.chmod(0o644)
    takes(data)
    store = FileStore(data_dir=data)
    caplog.clear()
    for _ in range(3):
        store.load(key(1))
        store.close()
    assert [(r.event, r.detail) for r in caplog.records] == [
        ("misfit", "others may read sessions.db, and what is in it: chmod 600 sessions.db*")
    ]


def test_a_file_that_nobody_else_reaches_may_have_any_mode(data, path, caplog):
    """A copy that was put back, say."""
    path.chmod(0o644)
    takes(data)
    assert caplog.records == []


def test_a_file_that_is_replaced_is_looked_at_again(data, path, tmp_path):
    store = FileStore(data_dir=data)
    assert isinstance(store.load(key(1)), Record)
    path.rename(tmp_path / "real.db")
    path.symlink_to(tmp_path / "other.db")
    (tmp_path / "other.db").touch()
    with pytest.raises(StoreError, match="is a link"):
        store.load(key(1))
    store.close()
