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

What is read has a limit (`nocookie.beaker_bounds`), and only regular files are read.
"""

from __future__ import annotations

import binascii
import dbm
import errno
import hashlib
import io
import json
import os
import pickle
import stat
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from nocookie.beaker_bounds import (
    LARGER,
    MOST,
    Unreadable,
    bounded,
    check_extent,
    check_steps,
    inflated,
    too_large,
)
from nocookie.beaker_memcached import BeakerMemcached
from nocookie.beaker_options import cluster
from nocookie.errors import ConfigError, StoreError

__all__ = ["BeakerStore", "Kept", "decoder", "open_beaker", "options_of"]

#: The prefixes under which Beaker's middleware looks; where both have an option, its last counts.
BEAKER_PREFIXES: Final = ("beaker.session.", "session.")

#: How many keys one step of a listing of Redis looks at.
BATCH: Final = 500

#: How long the ids of Beaker's are. Of a longer name no more is kept than shows that.
ID_LENGTH: Final = 32


#: What is in an outer pickle: a text; of Beaker before 1.12, the session itself.
Kept = str | dict[Any, Any]


class BeakerStore(Protocol):
    """A store of Beaker's. Raises `StoreError` and `Unreadable`."""

    #: Tells it from other stores of Beaker's: where it is, without a password.
    place: str
    #: Whether `ids` leaves nothing out: where it may, nothing is known of what it does not name.
    lists_all: bool

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
    most: int = MOST,
) -> BeakerStore:
    """Return the store that *options* of Beaker's name, to be read: with *trust_pickles* also the
    objects that Beaker before 1.12 kept around, and texts of Python 2 in *encoding*; no session of
    more than *most* bytes. Raises `ConfigError`."""
    around = _Around(trust_pickles, encoding, most)
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
        return BeakerMemcached(options["url"], deadline, around.kept, most)
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
    lists_all = True

    def __init__(self, folder: Path, around: _Around) -> None:
        self.place = f"file {folder.resolve()}"
        self._folder = folder
        self._around = around

    def ids(self) -> list[str]:
        names = _names(self._folder)
        return sorted(name.removesuffix(".cache") for name in names if name.endswith(".cache"))

    def read(self, id: str) -> Kept | None:
        path = _nested(self._folder, id, ".cache")
        if not _is_there(path, self._around.most):
            return None
        # Neither a link nor what waits for somebody to write, should it have become one.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            with open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags)) as file:
                data = file.read(self._around.most + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(error) from error
        return self._around.session_in(data)

    def close(self) -> None:
        """Nothing is held open."""


class _Dbms:
    lists_all = True

    #: What the different kinds of dbm append.
    _ENDINGS: Final = ("", ".db", ".dat", ".dir", ".bak", ".pag")

    def __init__(self, folder: Path, around: _Around) -> None:
        self.place = f"dbm {folder.resolve()}"
        self._folder = folder
        self._around = around

    def ids(self) -> list[str]:
        names = (name.partition(".dbm") for name in _names(self._folder))
        return sorted({name for name, dot, ending in names if dot and ending in self._ENDINGS})

    def read(self, id: str) -> Kept | None:
        path = _nested(self._folder, id, ".dbm")
        for ending in self._ENDINGS:
            # Some kinds take room before they need it.
            _is_there(path.with_name(path.name + ending), LARGER * self._around.most)
        try:
            with dbm.open(str(path), "r") as there:
                data = there.get(b"session")
        except FileNotFoundError:
            return None
        except dbm.error as error:
            # Among them: its kind of dbm is not in this Python.
            raise Unreadable(f"its file cannot be opened by dbm: {error}") from error
        except Exception as error:  # a file that lies about lengths raises nearly anything
            raise Unreadable(f"its file is broken: {type(error).__name__}") from error
        return None if data is None else self._around.kept(data)

    def close(self) -> None:
        """Nothing is held open."""


def _nested(folder: Path, id: str, ending: str) -> Path:
    return folder / id[:1] / id[:2] / (id + ending)


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of what is two folders deep. Raises `StoreError` for a folder that cannot be
    read: nothing must look ended that could not be seen."""
    try:
        for first in _folders(folder):
            for second in _folders(first):
                yield from os.listdir(second)
    except OSError as error:
        raise _failed(error) from error


def _folders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield Path(entry.path)


def _is_there(path: Path, most: int) -> bool:
    """Return whether there is a regular file at *path*. Raises `Unreadable` for anything else, for
    what is behind a link, and for more than *most* bytes; `StoreError`."""
    try:
        there = path.lstat()
        links = [path.parent, path.parent.parent]
        if stat.S_ISLNK(there.st_mode) or any(folder.is_symlink() for folder in links):
            raise Unreadable("its file is a link, or behind one: links are not followed")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _failed(error) from error
    if not stat.S_ISREG(there.st_mode):
        raise Unreadable("it is no file, but a folder, a pipe or a device")
    if there.st_size > most:
        raise Unreadable(f"its file has {there.st_size:,} bytes, and {most:,} are read")
    return True


def _failed(error: OSError) -> StoreError | Unreadable:
    if error.errno in (errno.ELOOP, errno.ENXIO):  # it has become a link, or a socket
        return Unreadable("it is no file")
    return StoreError(f"Beaker's files cannot be read: {error.strerror}")


class _Table:
    lists_all = True

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
        database = where.database if file is None else str(Path(file).absolute())
        table = f"{schema_name or ''}.{table_name}"
        kind = where.get_backend_name()
        self.place = f"{kind} {where.host}:{where.port}/{database} {table}"
        self._sql: Any = sqlalchemy
        self._table: Any = sqlalchemy.Table(
            table_name,
            sqlalchemy.MetaData(),
            sqlalchemy.Column("namespace", sqlalchemy.String),
            sqlalchemy.Column("data", sqlalchemy.LargeBinary),  # as it is: not unpickled here
            schema=schema_name,
        )

    def ids(self) -> list[str]:
        name = self._sql.func.substr(self._table.c.namespace, 1, ID_LENGTH + 1)
        return [namespace for (namespace,) in self._ask(self._sql.select(name).order_by(name))]

    def read(self, id: str) -> Kept | None:
        sql, table, most = self._sql, self._table.c, self._around.most
        size = sql.func.length(table.data)
        # The database measures it, and sends none that is too large.
        data = sql.case((size <= most, table.data), else_=None)
        rows = self._ask(sql.select(size, data).where(table.namespace == id).limit(1))
        if not rows:
            return None
        ((size, data),) = rows
        if size is not None and size > most:
            raise too_large(most)
        return self._around.session_in(data)

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


#: What is around an id in a key of Redis.
_PREFIX, _SUFFIX = b"beaker_cache:", b":session"


class _Redis:
    lists_all = True

    def __init__(self, url: str, deadline: float, around: _Around) -> None:
        from nocookie.stores.redis_wire import connect

        scheme, _, rest = url.partition("://")
        self.place = f"{scheme} {rest.rpartition('@')[2]}"
        self._wire = connect(url)
        self._deadline = deadline
        self._around = around

    def ids(self) -> list[str]:
        return sorted(set(self._listed()))

    def _listed(self) -> Iterator[str]:
        pattern = (b"MATCH", _PREFIX + b"*" + _SUFFIX, b"COUNT", b"%d" % BATCH)
        for node in self._wire.primaries(self._until()):
            cursor = b"0"
            while True:
                (reply,) = node.ask([(b"SCAN", cursor, *pattern)], self._until(), again=True)
                cursor, keys = _replied(reply)
                for key in keys:
                    name = key.removeprefix(_PREFIX).removesuffix(_SUFFIX)
                    yield name[: ID_LENGTH + 1].decode("utf-8", "replace")
                if cursor == b"0":
                    break

    def read(self, id: str) -> Kept | None:
        key = _PREFIX + id.encode() + _SUFFIX
        # One byte more than may be, of whatever there is; what is not there is empty.
        part = (b"GETRANGE", key, b"0", b"%d" % self._around.most)
        reply = self._wire.call(key, part, self._until(), again=True)
        if isinstance(reply, Exception) and str(reply).startswith("WRONGTYPE"):
            raise Unreadable("it is no session: there is no text under its key")
        data = _replied(reply)
        return self._around.kept(data) if data else None

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
    """Opens the pickles around sessions, none of more than *most* bytes; with *trusted* those that
    hold objects, too."""

    def __init__(self, trusted: bool, encoding: str, most: int) -> None:
        self.most = most
        self._trusted = trusted
        self._encoding = encoding

    def kept(self, data: Any) -> Kept:
        return _kept(self._opened(data))

    def session_in(self, data: Any) -> Kept | None:
        there = self._opened(data)
        if not isinstance(there, dict):
            raise Unreadable("it is no session: there is no dict in it")
        return _kept(there["session"]) if "session" in there else None

    def _opened(self, data: Any) -> Any:
        if not isinstance(data, bytes):
            raise Unreadable("it is no session: there are no bytes in it")
        try:
            check_steps(bounded(data, self.most), self.most)
            there = _PlainUnpickler(io.BytesIO(data), encoding=self._encoding).load()
            check_extent(there, self.most)
            return there
        except Unreadable:
            raise
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
    options: Mapping[str, str],
    trust_pickles: bool = False,
    encoding: str = "ascii",
    most: int = MOST,
) -> Callable[[Kept], dict[Any, Any]]:
    """Return what makes a dict of what a store keeps of a session, by the serializer and keys in
    *options*. Texts of Python 2 are in *encoding*.

    It raises `Unreadable`, also for what unpacks to more than *most* bytes.

    With `data_serializer = pickle`, Beaker's default, it runs whatever the
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
                session = json.loads(inflated(data, most))
            else:
                session = pickle.loads(data, encoding=encoding)  # noqa: S301 - the operator said so
        except Unreadable:
            raise
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
