"""What Beaker's options mean here, where they are none of ours.

Beaker takes whatever it is given, so real configurations are full of options that change nothing.
What can do no harm is taken, and named in one note when the application starts:

* NEEDLESS: nothing here needs it, and what it asks for is so, or does not matter.
* RENAMED: an option of ours has another name.
* A table of `ext:database` is Beaker's own; ours is beside it.

REFUSED is what cannot be meant here. HINTS are for names that are neither Beaker's nor ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from nocookie.errors import ConfigError

__all__ = [
    *("BEAKERS", "BEAKER_PREFIXES", "HINTS", "NEEDLESS", "OLDEST", "REFUSED", "RENAMED"),
    *("Note", "cluster", "translated"),
]

#: The oldest prefix of Beaker's options, and all of them.
OLDEST: Final = "session_"
BEAKER_PREFIXES: Final = ("session.", "beaker.session.", OLDEST)

#: By name: the key as it is written, and its value.
Given = dict[str, tuple[str, Any]]


class Note(NamedTuple):
    """What became of an option that was taken otherwise than it is written."""

    name: str
    key: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.key}: {self.sentence}"


#: Option -> why nothing is lost without it.
NEEDLESS: Final[Mapping[str, str]] = {
    "lock_dir": "nothing is locked by files here",
    "log_file": "what happens goes to the logger 'nocookie'",
    "crypto_type": "there is one kind of encryption",
    "encrypt_nonce_bits": "there is one kind of encryption",
    "save_accessed_time": "it is so, and never costs a request its changes",
    "invalidate_corrupt": "a corrupted record is always a new session with reason 'corrupted'",
    "cookie_on_exception": "an application that raises saves nothing, and sends no cookie",
    "webtest_varname": "only nocookie.adapters.paste knows it; in a test, read "
    "environ['nocookie.session']",
    "optimistic": "every save is guarded",
    "memcache_module": "the store needs no driver",
    "dbmmodule": "type = dbm is one SQLite database here",
    "sa_opts": "the store keeps its own connections; for others, give it an engine",
    "validate_key": "secret proves who wrote what is stored",
}

#: Option -> the one of ours that it means.
RENAMED: Final[Mapping[str, str]] = {
    "sa.url": "url",
    "urls": "url",
    "bind": "engine",
    "file_dir": "data_dir",
    "dbm_dir": "data_dir",
}

#: What is not taken -> what to do about it.
REFUSED: Final[Mapping[str, str]] = {
    "id": "use session.rebuild(id), or Session({}, id=...)",
    "namespace_class": "give a store object as type",
    "session_class": "give a store object as type, or wrap the session",
    "namespace_args": "give a store object as type",
    "save_accessed_time": "the access time is kept apart from the data and never costs a request "
    "its changes; for no idle timeout set timeout = none, and leave this out",
    "sa": "use url, or engine for an Engine with options of its own",
    "table": "use table_name and schema_name; nocookie.stores.sqlalchemy.table() makes the Table",
    "client": "use url",
}

#: What else people write -> the option that they look for.
HINTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("carrier", "carriers", "finder", "transport"), "find_id"),
    **dict.fromkeys(("cookie_name", "cookie_key", "name"), "key"),
    **dict.fromkeys(("expires", "max_age", "cookie_max_age", "cookie_lifetime"), "cookie_expires"),
    **dict.fromkeys(("expire", "ttl", "idle_timeout", "max_inactive_interval"), "timeout"),
    **dict.fromkeys(("absolute_timeout", "max_lifetime"), "lifetime"),
    **dict.fromkeys(("backend", "store", "storage"), "type"),
    **dict.fromkeys(("host", "server", "servers"), "url"),
    **dict.fromkeys(("dir", "directory", "folder"), "data_dir"),
    "domain": "cookie_domain",
    "path": "cookie_path",
    "cookie_secure": "secure",
    "cookie_httponly": "httponly",
    "cookie_samesite": "samesite",
    "serializer": "data_serializer",
    "prefix": "key_prefix",
    "cookies": "use_cookies",
    "autosave": "auto",
}

#: The options of Beaker: under its oldest prefix, `session_`, no other key is taken for one.
BEAKERS: Final = frozenset(
    {
        *("use_cookies", "key", "type", "data_dir", "timeout", "auto", "secret", "encrypt_key"),
        *("data_serializer", "cookie_expires", "cookie_domain", "cookie_path", "secure"),
        *("httponly", "samesite", "url", "table_name", "schema_name"),
        *NEEDLESS,
        *RENAMED,
    }
)

#: Options of both for which Beaker takes None, or makes nothing of it.
_NONE_IS_DEFAULT: Final = frozenset(
    {"key", "auto", "secure", "httponly", "cookie_path", "cookie_expires", "table_name"}
)

#: Values that ask for what is not so here.
_IS_ASKED: Final[Mapping[str, Callable[[Any], bool]]] = {
    "save_accessed_time": lambda value: (
        str(value).strip().lower() in ("true", "yes", "on", "1")
        or str(value).strip().lower() in ("y", "t", "none")
    ),
}


def translated(given: Given) -> tuple[Given, list[Note]]:
    """Return *given* with options of ours only, and those that are nobody's as they are; and a note
    for each that was something else. Raises `ConfigError`."""
    options = dict(given)
    notes: list[Note] = []

    def drop(name: str, sentence: str) -> None:
        notes.append(Note(name, options.pop(name)[0], sentence))

    for name in [name for name in options if name in _NONE_IS_DEFAULT]:
        key, value = options[name]
        if value is None and key.startswith(BEAKER_PREFIXES):
            drop(name, "it is None, as if it were not written")
    _unpack(options)
    for name, ours in RENAMED.items():
        if name in options:
            key, value = options[name]
            wins = ours not in options or name in ("file_dir", "dbm_dir")
            if wins:
                options[ours] = key, cluster(value) if name == "urls" else value
            drop(name, f"it is {ours}" if wins else f"{options[ours][0]} wins")
    _secret(options, notes)
    for name in [name for name in options if name in NEEDLESS or name.startswith("sa.")]:
        if _IS_ASKED.get(name, _whatever)(options[name][1]):
            drop(name, NEEDLESS.get(name, NEEDLESS["sa_opts"]))
    _table(options, notes)
    noted = {note.key for note in notes}
    for name, (key, _) in options.items():
        if key.startswith(OLDEST) and key not in noted:
            notes.append(Note(name, key, f"taken for session.{name}, as by Beaker"))
            noted.add(key)
    return options, notes


def _whatever(value: Any) -> bool:
    return True


def _unpack(options: Given) -> None:
    """Take the URL out of `sa_opts`."""
    key, value = options.get("sa_opts", ("", None))
    if isinstance(value, Mapping) and value.get("sa.url") and "sa.url" not in options:
        options["sa.url"] = key, value["sa.url"]


def _secret(options: Given, notes: list[Note]) -> None:
    """Where there is no secret, Beaker's `validate_key` proves who wrote a session."""
    key, value = options.get("validate_key", ("", None))
    if value is None or value == "":
        options.pop("validate_key", None)
    elif not isinstance(value, str):
        # Beaker takes the text of it, "True" say, and so does everybody who wants to forge one.
        raise ConfigError(
            f"option {key!r} must be a text that nobody knows, and is {type(value).__name__}"
        )
    elif not options.get("secret", ("", None))[1]:
        del options["validate_key"]
        options["secret"] = key, value
        notes.append(Note("validate_key", key, "it is secret"))


def _table(options: Given, notes: list[Note]) -> None:
    """Beaker makes its table by itself. It has other columns, and what is to be imported."""
    if str(options.get("type", ("", ""))[1]).strip() != "ext:database":
        return
    key, _ = options["type"]
    options.setdefault("create_table", (key, True))
    if "table_name" in options:
        written, name = options["table_name"]
        if isinstance(name, str) and name.strip():
            options["table_name"] = written, f"nocookie_{name.strip()}"
            notes.append(
                Note("table_name", written, f"Beaker's table; ours is nocookie_{name.strip()}")
            )


def cluster(urls: Any) -> str:
    """Return the URL here of what Beaker writes as `redis://host:port,redis://host:port`. Raises
    `ConfigError`."""
    scheme, _, first = str(urls).partition("://")
    nodes = [
        first.partition(",")[0],
        *(url.rpartition("://")[2].rpartition("@")[2] for url in str(urls).split(",")[1:]),
    ]
    if scheme not in ("redis", "rediss") or not all(nodes):
        raise ConfigError("Beaker's sessions of type ext:rediscluster need the urls of its nodes")
    return f"{scheme}+cluster://{','.join(nodes)}"
