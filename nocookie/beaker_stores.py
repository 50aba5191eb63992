"""What Beaker stored, read without Beaker.

A session of Beaker's is one text under its id: Base64 of the serialized dict, encrypted or not.
Each of its stores keeps that text in a pickle around it:

    file        <data_dir>/container_file/4/4f/4f....cache      {"session": text}
    dbm         <data_dir>/container_dbm/4/4f/4f....dbm         "session" -> text
    database    a row, `namespace` being the id                 {"session": text}
    redis       beaker_cache:<id>:session                       text
    memcached   <id>_session                                    text, without a pickle around it

These outer pickles hold nothing but texts, so they are read by an unpickler that makes nothing
else. What is inside is JSON, or a pickle that can be anything: reading that one is running it.

So it is from Beaker 1.12 on. Before, a session that was not encrypted was no text but the dict
itself in the outer pickle, whatever the serializer. Where only texts, numbers, lists and dicts are
in it, the same unpickler reads it; objects take a real one.

Python 2 had texts that are bytes, and pickles do not say in which encoding.
"""

from __future__ import annotations

import binascii
import dbm
import hashlib
import io
import json
import pickle
import time
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from nocookie.beaker_memcached import BeakerMemcached
from nocookie.beaker_options import cluster
from nocookie.errors import ConfigError, StoreError

__all__ = ["BeakerStore", "Unreadable", "decoder", "open_beaker", "options_of"]

#: The prefixes under which Beaker's middleware looks; where both have an option, its last counts.
BEAKER_PREFIXES: Final = ("beaker.session.", "session.")

#: How many keys one step of a listing of Redis looks at.
BATCH: Final = 500


class Unreadable(Exception):
    """A record that is no session of Beaker's, or not with these options."""


#: What is in an outer pickle: a text; of Beaker before 1.12, the session itself.
Kept = str | dict[Any, Any]


class BeakerStore(Protocol):
    """A store of Beaker's. Raises `StoreError` and `Unreadable`."""

    def ids(self) -> list[str]:
        """Return the names of all that lies there, sessions and others."""
        ...

    def read(self, id: str) -> Kept | None:
        """Return what is kept of a session; None if there is none."""
        ...

    def close(self) -> None: ...


def options_of(config: Mapping[str, str]) -> dict[str, str]:
    """Return Beaker's options in a section of an ini file, without their prefix."""
    found = {}
    if config.get("cache_dir"):  # as Pylons did
        found["data_dir"] = str(Path(config["cache_dir"], "sessions"))
    for key, value in config.items():
        for prefix in BEAKER_PREFIXES:
            if key.startswith(prefix):
                found[key.removeprefix(prefix)] = value
                break
    return found


#: Beaker's types that cannot be read, and why.
_OUT_OF_REACH: Final[Mapping[str, str]] = {
    "memory": "they are in the memory of the application's processes, and end with them",
    "cookie": "they are with their clients; nothing is stored that could be imported",
    "ext:google": "they can only be read from within App Engine",
    "ext:mongodb": "there is no reader for MongoDB; move them to another type of Beaker's first",
}


def open_beaker(
    options: Mapping[str, str],
    deadline: float,
    trust_pickles: bool = False,
    encoding: str = "ascii",
) -> BeakerStore:
    """Return the store that *options* of Beaker's name, to be read: with *trust_pickles* also the
    objects that Beaker before 1.12 kept around, and texts of Python 2 in *encoding*. Raises
    `ConfigError`."""
    around = _Around(trust_pickles, encoding)
    type = options.get("type") or ("file" if options.get("data_dir") else "memory")
    if type in _OUT_OF_REACH:
        raise ConfigError(f"Beaker's sessions of type {type}: {_OUT_OF_REACH[type]}")
    if type == "file":
        return _Files(_folder(options, "file_dir", "container_file"), around)
    if type == "dbm":
        return _Dbms(_folder(options, "dbm_dir", "container_dbm"), around)
    if type in ("ext:database", "ext:sqla"):
        url = options.get("url") or options.get("sa.url")
        if not url:
            raise ConfigError(f"Beaker's sessions of type {type} need the url of their database")
        table_name = options.get("table_name") or "beaker_cache"
        return _Table(url, table_name, options.get("schema_name") or None, around)
    if type == "ext:redis":
        if not options.get("url"):
            raise ConfigError("Beaker's sessions of type ext:redis need the url of their server")
        return _Redis(options["url"], deadline, around)
    if type == "ext:rediscluster":
        urls = options.get("urls") or options.get("url") or ""
        return _Redis(cluster(urls), deadline, around)
    if type == "ext:memcached":
        if not options.get("url"):
            raise ConfigError("Beaker's sessions of type ext:memcached need the url of the servers")
        return BeakerMemcached(options["url"], deadline, around.kept)
    known = "file, dbm, ext:database, ext:sqla, ext:redis, ext:rediscluster, ext:memcached"
    raise ConfigError(f"Beaker has no type {type!r}; these can be read: {known}")


def _folder(options: Mapping[str, str], own: str, below: str) -> Path:
    if options.get(own):
        folder = Path(options[own])
    elif options.get("data_dir"):
        folder = Path(options["data_dir"], below)
    else:
        raise ConfigError("Beaker's sessions in files need data_dir: the folder that they are in")
    if not folder.is_dir():
        raise ConfigError(f"there are no sessions of Beaker's: {folder} is no folder")
    return folder


# -- the stores ----------------------------------------------------------------------------------


class _Files:
    def __init__(self, folder: Path, around: _Around) -> None:
        self._folder = folder
        self._around = around

    def ids(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*/*/*.cache"))

    def read(self, id: str) -> Kept | None:
        try:
            data = _nested(self._folder, id, ".cache").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"Beaker's files cannot be read: {error.strerror}") from error
        return self._around.session_in(data)

    def close(self) -> None:
        """Nothing is held open."""


class _Dbms:
    #: What the different kinds of dbm append.
    _ENDINGS: Final = ("", ".db", ".dat", ".dir", ".bak", ".pag")

    def __init__(self, folder: Path, around: _Around) -> None:
        self._folder = folder
        self._around = around

    def ids(self) -> list[str]:
        names = (path.name.partition(".dbm") for path in self._folder.glob("*/*/*.dbm*"))
        return sorted({name for name, _, ending in names if ending in self._ENDINGS})

    def read(self, id: str) -> Kept | None:
        path = str(_nested(self._folder, id, ".dbm"))
        try:
            with dbm.open(path, "r") as there:
                data = there.get(b"session")
        except FileNotFoundError:
            return None
        except dbm.error as error:
            # Among them: its kind of dbm is not in this Python.
            raise Unreadable(f"its file cannot be opened by dbm: {error}") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise Unreadable(f"its file is broken: {type(error).__name__}") from error
        return None if data is None else self._around.kept(data)

    def close(self) -> None:
        """Nothing is held open."""


def _nested(folder: Path, id: str, ending: str) -> Path:
    return folder / id[:1] / id[:2] / (id + ending)


class _Table:
    def __init__(self, url: str, table_name: str, schema_name: str | None, around: _Around) -> None:
        self._around = around
        try:
            import sqlalchemy
        except ImportError as error:
            raise ConfigError(
                "Beaker's sessions in a database need SQLAlchemy: pip install nocookie[sqlalchemy]"
            ) from error
        try:
            where = sqlalchemy.make_url(url)
            file = where.database if where.get_backend_name() == "sqlite" else None
            # To open a file that is not there is to make it.
            if file is not None and not file.startswith("file:") and not Path(file).is_file():
                raise ConfigError(f"there are no sessions of Beaker's: {file} is no file")
            # One statement is one trip then: nothing is changed, so there is nothing to commit.
            self._engine = sqlalchemy.create_engine(
                where, isolation_level="AUTOCOMMIT", hide_parameters=True
            )
        except ImportError as error:
            raise ConfigError(f"url needs a driver that is not installed: {error.name}") from error
        except ConfigError:
            raise
        except (sqlalchemy.exc.ArgumentError, TypeError, ValueError):
            # The text may quote the password.
            raise ConfigError("url is not one that SQLAlchemy knows") from None
        self._sql: Any = sqlalchemy
        self._table: Any = sqlalchemy.Table(
            table_name,
            sqlalchemy.MetaData(),
            sqlalchemy.Column("namespace", sqlalchemy.String),
            sqlalchemy.Column("data", sqlalchemy.LargeBinary),  # as it is: not unpickled here
            schema=schema_name,
        )

    def ids(self) -> list[str]:
        table = self._table.c
        rows = self._ask(self._sql.select(table.namespace).order_by(table.namespace))
        return [namespace for (namespace,) in rows]

    def read(self, id: str) -> Kept | None:
        table = self._table.c
        rows = self._ask(self._sql.select(table.data).where(table.namespace == id))
        return self._around.session_in(rows[0][0]) if rows else None

    def _ask(self, statement: Any) -> list[Any]:
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(statement))
        except self._sql.exc.SQLAlchemyError as error:
            driver = getattr(error, "orig", None) or error
            raise StoreError(
                f"Beaker's table {self._table.name} cannot be read: {type(driver).__name__}"
            ) from error

    def close(self) -> None:
        self._engine.dispose()


class _Redis:
    def __init__(self, url: str, deadline: float, around: _Around) -> None:
        from nocookie.stores.redis_wire import connect

        self._wire = connect(url)
        self._deadline = deadline
        self._around = around

    def ids(self) -> list[str]:
        return sorted(set(self._listed()))

    def _listed(self) -> Iterator[str]:
        pattern = (b"MATCH", b"beaker_cache:*:session", b"COUNT", b"%d" % BATCH)
        for node in self._wire.primaries(self._until()):
            cursor = b"0"
            while True:
                (reply,) = node.ask([(b"SCAN", cursor, *pattern)], self._until(), again=True)
                cursor, keys = _replied(reply)
                for key in keys:
                    yield key.decode("utf-8", "replace").split(":", 1)[1].rpartition(":")[0]
                if cursor == b"0":
                    break

    def read(self, id: str) -> Kept | None:
        key = f"beaker_cache:{id}:session".encode()
        data = _replied(self._wire.call(key, (b"GET", key), self._until(), again=True))
        return None if data is None else self._around.kept(data)

    def _until(self) -> float:
        return time.monotonic() + self._deadline

    def close(self) -> None:
        self._wire.close()


def _replied(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise StoreError(f"Beaker's Redis refuses to be read: {str(reply).partition(' ')[0]}")
    return reply


# -- the pickles around --------------------------------------------------------------------------


class _HasObjects(Exception):
    """There is more in a pickle than texts, numbers, dicts and lists."""


class _PlainUnpickler(pickle.Unpickler):
    """Makes texts, numbers, dicts and lists, and calls nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise _HasObjects


class _Around:
    """Opens the pickles around sessions; with *trusted* those that hold objects, too."""

    def __init__(self, trusted: bool, encoding: str) -> None:
        self._trusted = trusted
        self._encoding = encoding

    def kept(self, data: bytes) -> Kept:
        return _kept(self._opened(data))

    def session_in(self, data: bytes) -> Kept | None:
        there = self._opened(data)
        if not isinstance(there, dict):
            raise Unreadable("it is no session: there is no dict in it")
        return _kept(there["session"]) if "session" in there else None

    def _opened(self, data: bytes) -> Any:
        try:
            return _PlainUnpickler(io.BytesIO(data), encoding=self._encoding).load()
        except _HasObjects:
            if not self._trusted:
                raise Unreadable(
                    "there are objects around it, as Beaker before 1.12 stored them: to read them "
                    "is to run what they say, which takes --trust-pickles"
                ) from None
        except Exception as error:  # a pickle that is cut short raises nearly anything
            raise _unreadable(error, self._encoding) from error
        try:
            return pickle.loads(data, encoding=self._encoding)  # noqa: S301 - the operator said so
        except Exception as error:
            raise _unreadable(error, self._encoding) from error


def _unreadable(error: Exception, encoding: str) -> Unreadable:
    if isinstance(error, UnicodeDecodeError):
        return Unreadable(
            f"Python 2 wrote it, and there are bytes in it that are no text in {encoding}: "
            "--python-2-text names the encoding"
        )
    return Unreadable(f"it is cut short or broken: {type(error).__name__}")


def _kept(value: Any) -> Kept:
    if not isinstance(value, (str, dict)):
        raise Unreadable("it is no session: there is neither a text nor a dict in it")
    return value


# -- what is inside ------------------------------------------------------------------------------


def decoder(
    options: Mapping[str, str], trust_pickles: bool = False, encoding: str = "ascii"
) -> Callable[[Kept], dict[Any, Any]]:
    """Return what makes a dict of what a store keeps of a session, by the serializer and keys in
    *options*. Texts of Python 2 are in *encoding*.

    It raises `Unreadable`. With `data_serializer = pickle`, Beaker's default, it runs whatever the
    text says: that takes *trust_pickles*. Raises `ConfigError`.
    """
    serializer = options.get("data_serializer") or "pickle"
    if serializer not in ("json", "pickle"):
        raise ConfigError(f"data_serializer = {serializer!r} is none of Beaker's: json, pickle")
    if serializer == "pickle" and not trust_pickles:
        raise ConfigError(
            "these sessions are pickles, and to read a pickle is to run what it says: whoever "
            "could write to Beaker's store can run code here. If nobody could but your own "
            "application, say --trust-pickles"
        )
    opened = _decipher(options)

    def decode(kept: Kept) -> dict[Any, Any]:
        if isinstance(kept, dict):
            if options.get("encrypt_key"):
                raise Unreadable("it is not encrypted, and encrypt_key says that it should be")
            return kept
        try:
            data = opened(kept)
        except (binascii.Error, ValueError) as error:
            raise Unreadable(f"it is not Base64: {type(error).__name__}") from error
        try:
            if serializer == "json":
                session = json.loads(zlib.decompress(data))
            else:
                session = pickle.loads(data, encoding=encoding)  # noqa: S301 - the operator said so
        except UnicodeDecodeError as error:
            raise _unreadable(error, encoding) from error
        except Exception as error:  # a class that is not here, a __setstate__ that raises
            why = f"{type(error).__name__}: {error}"
            raise Unreadable(f"it is not {serializer} that can be read here: {why}") from error
        if not isinstance(session, dict):
            raise Unreadable(f"it holds no dict but {type(session).__name__}")
        return session

    return decode


#: Of AES-GCM as Beaker uses it, in bytes: salt, tag, then what is encrypted.
_SALT_SIZE: Final = 12
_TAG_SIZE: Final = 16


def _decipher(options: Mapping[str, str]) -> Callable[[str], bytes]:
    encrypt_key, validate_key = options.get("encrypt_key"), options.get("validate_key")
    if not encrypt_key:
        return lambda text: b64decode(text, validate=True)
    if not validate_key:
        raise ConfigError("Beaker's encrypt_key needs its validate_key")
    if options.get("crypto_type", "default") not in ("default", "cryptography"):
        raise ConfigError(
            f"crypto_type = {options['crypto_type']}: what another package than cryptography "
            "encrypted carries no proof of who wrote it, and is not read; have Beaker write its "
            "sessions once more with cryptography"
        )
    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise ConfigError(
            "encrypted sessions need the package cryptography: pip install nocookie[crypto]"
        ) from error
    bits = options.get("encrypt_nonce_bits") or "128"
    if not bits.isdigit() or int(bits) % 8:
        raise ConfigError(f"encrypt_nonce_bits = {bits!r} is no multiple of 8")
    # As Beaker reckons it; for 48 bits that is 8, for 128 it is 24.
    nonce_length = ((4 * (int(bits) // 8) // 3) + 3) & ~3

    def opened(text: str) -> bytes:
        salt = (validate_key + text[:nonce_length]).encode()
        key = hashlib.pbkdf2_hmac("sha1", encrypt_key.encode(), salt, 1, 32)
        sealed = b64decode(text[nonce_length:], validate=True)
        nonce, rest = sealed[:_SALT_SIZE], sealed[_SALT_SIZE:]
        tag, data = rest[:_TAG_SIZE], rest[_TAG_SIZE:]
        try:
            return AESGCM(key).decrypt(nonce, data + tag, None)
        except (InvalidTag, ValueError) as error:
            raise Unreadable("it does not open with this encrypt_key and validate_key") from error

    return opened
