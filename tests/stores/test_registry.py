"""Which store a type names, and that a process opens it once."""

import sys
import threading

import pytest

from nocookie import ConfigError, Session, SessionMiddleware
from nocookie import stores as registry
from nocookie.forks import ProcessLocal
from nocookie.stores import close_all, open_store, store_class
from nocookie.stores.file import FileStore
from nocookie.stores.memory import MemoryStore


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """A registry of this test's own."""
    monkeypatch.setattr(registry, "_opened", ProcessLocal(dict))
    yield
    close_all()


def test_types_name_their_stores(tmp_path):
    assert type(open_store("memory", {})) is MemoryStore
    assert type(open_store("file", {"data_dir": tmp_path})) is FileStore
    assert type(open_store("dbm", {"data_dir": tmp_path})) is FileStore, "Beaker's name"


def test_the_same_options_are_the_same_store(tmp_path):
    assert open_store("memory", {}) is open_store("memory", {})
    file = open_store("file", {"data_dir": str(tmp_path)})
    assert file is open_store("file", {"data_dir": str(tmp_path), "max_sessions": 5}), (
        "an option that the store does not take makes no difference"
    )
    assert file is open_store("dbm", {"data_dir": str(tmp_path)})


def test_other_options_are_another_store(tmp_path):
    assert open_store("memory", {"max_sessions": 5}) is not open_store("memory", {})
    assert open_store("file", {"data_dir": str(tmp_path / "a")}) is not open_store(
        "file", {"data_dir": str(tmp_path / "b")}
    )


def test_sessions_by_hand_share_the_store_of_their_process():
    first = Session({}, type="memory")
    first["a"] = 1
    first.save()
    assert Session({}, id=first.id, type="memory")["a"] == 1
    assert Session({}, id=first.id, type="memory", max_sessions=5).is_new


def test_a_forked_child_opens_its_own(fork):
    """What a fork inherits belongs to the parent."""
    store = open_store("memory", {})

    def child():
        assert open_store("memory", {}) is not store

    assert fork(child).wait() == 0
    assert open_store("memory", {}) is store


def test_a_fork_while_another_thread_opens_a_store_leaves_the_child_able_to(fork):
    held, release = threading.Event(), threading.Event()

    def hold():
        with registry._lock.here():
            held.set()
            release.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    try:
        assert fork(lambda: open_store("memory", {})).wait() == 0
    finally:
        release.set()
        holder.join()


def test_threads_that_open_one_store_get_one():
    found = []
    start = threading.Barrier(8)

    def find():
        start.wait(10)
        found.append(open_store("memory", {}))

    threads = [threading.Thread(target=find) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_close_all_closes_and_forgets(tmp_path):
    store = open_store("file", {"data_dir": tmp_path})
    store.create("0" * 64, registry.base.Record({}, 0.0, 0.0, 0.0, 0), 60)
    close_all()
    assert not any(store._pool.here()._places)
    assert open_store("file", {"data_dir": tmp_path}) is not store


def test_a_file_store_needs_a_data_dir():
    with pytest.raises(ConfigError, match=r"'file' needs data_dir"):
        open_store("file", {"data_dir": None})
    with pytest.raises(ConfigError, match="data_dir"):
        SessionMiddleware(None, type="file")


def test_a_data_dir_alone_means_file(tmp_path):
    app = SessionMiddleware(None, data_dir=str(tmp_path))
    assert type(app.manager.backend.store) is FileStore
    assert type(SessionMiddleware(None).manager.backend.store) is MemoryStore
    app = SessionMiddleware(None, data_dir=str(tmp_path), type="memory")
    assert type(app.manager.backend.store) is MemoryStore


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("memroy", "'memory'"),
        ("files", "'file'"),
        ("Memory", "'memory'"),
        ("zzz", "file, memcached, memory"),
    ],
)
def test_an_unknown_type_names_the_nearest(wrong, hint):
    with pytest.raises(ConfigError) as caught:
        open_store(wrong, {})
    assert wrong in str(caught.value)
    assert hint in str(caught.value)


# -- stores outside this package -----------------------------------------------------------------

MODULE = """
from nocookie import ConfigError
from nocookie.stores.memory import MemoryStore

class Plain(MemoryStore):
    def __init__(self, *, deadline=1.0, clock=None, **rest):
        super().__init__()
        self.given = (deadline, rest)

class Needs(MemoryStore):
    def __init__(self, *, url):
        super().__init__()

class Extra(MemoryStore):
    def __init__(self):
        try:
            import a_driver_that_is_not_installed
        except ImportError as error:
            raise ConfigError("type = 'extra' needs a_driver: pip install it") from error
"""

ENTRY_POINTS = """
[nocookie.stores]
plain = a_third_party_store:Plain
needs = a_third_party_store:Needs
extra = a_third_party_store:Extra
broken = a_third_party_module_that_is_missing:Store
absent = a_third_party_store:Absent
memory = a_third_party_store:Plain
"""


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    (tmp_path / "a_third_party_store.py").write_text(MODULE)
    info = tmp_path / "a_third_party_store-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-third-party-store\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("a_third_party_store", None)


@pytest.mark.usefixtures("third_party")
class TestEntryPoints:
    def test_a_store_is_found_by_its_name_and_gets_the_options_that_it_names(self):
        store = open_store("plain", {"deadline": 7.0, "max_sessions": 5, "data_dir": "x"})
        assert type(store).__module__ == "a_third_party_store"
        assert store.given == (7.0, {})
        assert store is open_store("plain", {"deadline": 7.0})

    def test_it_serves_the_middleware(self):
        app = SessionMiddleware(None, type="plain")
        assert type(app.manager.backend.store).__name__ == "Plain"

    def test_it_does_not_take_the_place_of_ours(self):
        assert store_class("memory") is MemoryStore

    def test_it_is_named_when_a_type_is_misspelt(self):
        with pytest.raises(ConfigError, match="'plain'"):
            open_store("plian", {})

    def test_what_it_needs_is_asked_for(self):
        with pytest.raises(ConfigError, match="'needs' needs url"):
            open_store("needs", {})

    def test_its_own_config_error_passes_through(self):
        with pytest.raises(ConfigError, match="pip install it"):
            open_store("extra", {})
        with pytest.raises(ConfigError, match="pip install it"):
            open_store("extra", {})

    @pytest.mark.parametrize("name", ["broken", "absent"])
    def test_one_that_cannot_be_loaded_is_a_config_error(self, name):
        with pytest.raises(ConfigError, match=f"{name}.*cannot be loaded"):
            open_store(name, {})
