"""Which store a `type` names, loaded on demand; one opened store per process and options.

A store outside this package announces itself by an entry point in the group `nocookie.stores`:
its name is the `type`, its object a class that takes its options as keywords.
"""

from __future__ import annotations

import atexit
import difflib
import importlib
import inspect
import threading
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from nocookie.errors import ConfigError
from nocookie.forks import ProcessLocal
from nocookie.stores.base import Store

__all__ = [
    *("ALIASES", "ENTRY_POINT_GROUP", "STORES"),
    *("arguments", "close_all", "open_store", "store_class"),
]

ENTRY_POINT_GROUP: Final = "nocookie.stores"

#: type -> where its class is.
STORES: Final[Mapping[str, str]] = {
    "memory": "nocookie.stores.memory:MemoryStore",
    "file": "nocookie.stores.file:FileStore",
    "memcached": "nocookie.stores.memcached:MemcachedStore",
    "redis": "nocookie.stores.redis:RedisStore",
    "sqlalchemy": "nocookie.stores.sqlalchemy:SqlAlchemyStore",
}

#: Beaker's names, and what succeeds them here.
ALIASES: Final[Mapping[str, str]] = {
    "dbm": "file",
    "ext:redis": "redis",
    "ext:rediscluster": "redis",
    "ext:memcached": "memcached",
    "ext:database": "sqlalchemy",
    "ext:sqla": "sqlalchemy",
}

#: `*args` and `**kwargs` of a constructor: they name nothing, so they get nothing.
_REST: Final = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})

#: What a fork inherits belongs to the parent.
_opened: ProcessLocal[dict[tuple[Any, ...], Store]] = ProcessLocal(dict)
_lock: Final = ProcessLocal(threading.Lock)


def store_class(type: str) -> Any:
    """Return the class for a *type*, or raise `ConfigError` naming the nearest."""
    type = ALIASES.get(type, type)
    if type in STORES:
        module, _, name = STORES[type].partition(":")
        return getattr(importlib.import_module(module), name)
    found = entry_points(group=ENTRY_POINT_GROUP)
    if type in found.names:
        try:
            return found[type].load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"type = {type!r} cannot be loaded: {error}") from error
    known = sorted({*STORES, *found.names})
    near = difflib.get_close_matches(type, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise ConfigError(f"type = {type!r}: there is no such store; {hint}")


def arguments(type: str, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the class for a *type*, and of *options* those that its constructor names. Raises
    `ConfigError` if one is missing that it needs."""
    cls = store_class(type)
    taken = inspect.signature(cls).parameters
    chosen = {name: value for name, value in options.items() if name in taken and value is not None}
    for name, parameter in taken.items():
        required = parameter.default is parameter.empty and parameter.kind not in _REST
        if required and name not in chosen:
            raise ConfigError(f"type = {type!r} needs {name}")
    return cls, chosen


def open_store(type: str, options: Mapping[str, Any]) -> Store:
    """Return the store of this process for *type* and *options*, opened on first use.

    Of *options*, the store gets those that its constructor names. The same type and options
    give the same store, so every `Session({}, type="memory")` of a process shares one.
    """
    cls, chosen = arguments(type, options)
    with _lock.here():
        opened = _opened.here()
        # Values by themselves, not by what they look like: two engines may show the same URL.
        key = (cls, frozenset((name, value) for name, value in chosen.items()))
        if key not in opened:
            opened[key] = cls(**chosen)
        return opened[key]


def close_all() -> None:
    """Close every store that this process opened, and forget them."""
    with _lock.here():
        opened = _opened.here()
        while opened:
            opened.popitem()[1].close()


atexit.register(close_all)
