"""What an operator sees of the sessions in a store, and how they are ended from outside.

Who has no id goes by what the store has: its keys, of which the first characters are the
fingerprint that logs name a session by. What is told is never a value, and what cannot be read,
for want of the secret say, is told as such.

Only living records are listed: neither what has expired and was not purged yet, nor the trail that
a rotation leaves under the old id for some seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import Final, NamedTuple

from nocookie.backend import Backend
from nocookie.errors import ConfigError
from nocookie.facts import Life
from nocookie.ids import FINGERPRINT_LENGTH
from nocookie.sealing import MAC_SIZE, NONCE_SIZE, BadSeal
from nocookie.sessions import Session
from nocookie.stores.base import ByOwner, Listable, Missing, Record

__all__ = [
    *("Contents", "Field", "Listed"),
    *("contents", "end_every", "end_key", "end_owned", "keys", "listed", "look", "no_session"),
    *("of_owner", "with_fingerprints"),
]


class Listed(NamedTuple):
    """A living record. Times are in seconds since the epoch; None where they cannot be read."""

    fingerprint: str
    #: When the session began: at the login, where there was one.
    created: float | None
    #: When it was last used, exact to `timeout` / 20 or a minute.
    last_accessed: float | None
    #: When it ends if it is not used; infinity for never.
    expires: float | None
    #: Whose it is, how its id travelled at the login, what the client said it is.
    owner: str | None = None
    carrier: str | None = None
    client: str | None = None
    #: Why the session cannot be read; None if it can.
    unreadable: str | None = None


class Field(NamedTuple):
    """What is to be seen of one value."""

    name: str
    #: As it is stored, sealed if it is.
    size: int
    #: How it is written: one of ENCODINGS, or why that cannot be told.
    encoding: str


class Contents(NamedTuple):
    """A living record, and what it holds."""

    listed: Listed
    #: Changes with every save.
    version: int | None = None
    #: When the id was last changed by itself.
    rotated: float | None = None
    #: The limits of this session alone; None where the application's count.
    life: Life = Life()
    fields: tuple[Field, ...] = ()


#: What the first letter of an encoded value says (`nocookie.codecs`).
ENCODINGS: Final = {b"s": "text", b"i": "integer", b"j": "JSON", b"p": "pickle"}
#: What the first letter of a sealed one says (`nocookie.sealing`).
SEALED: Final = {b"m": "sealed", b"e": "encrypted"}

#: Why a session cannot be read.
_NO_RECORD: Final = "its bytes are no record"
_NOT_GIVEN: Final = "sealed with a secret that is not given"
_OF_OTHERS: Final = "sealed with another secret, or with none"
_NO_FACTS: Final = "what it says of itself cannot be read"


def keys(backend: Backend) -> Iterator[str]:
    """Yield the store keys of living sessions, in no order. Raises `ConfigError` where nobody can
    know them, and `StoreError`."""
    store = backend.store
    if backend.tokens is not None:
        raise ConfigError("with type = cookie sessions lie with their clients, who alone have them")
    if not store.shared:
        raise ConfigError("sessions in the memory of a process are seen by that process alone")
    if not isinstance(store, Listable):
        raise ConfigError(
            f"{type(store).__name__} cannot list what it holds; file, sqlalchemy and redis can"
        )
    return store.keys()


def listed(backend: Backend) -> Iterator[Listed]:
    """Yield every living session, in no order, one at a time. Raises as `keys`."""
    return filter(None, (look(backend, key) for key in keys(backend)))


def of_owner(backend: Backend, owner: str) -> Iterator[Listed]:
    """Yield the living sessions of *owner*. Raises as `keys`."""
    store = backend.store
    found = listed(backend)
    if store.shared and isinstance(store, ByOwner):
        owned = (key for tag in backend.owner_tags(owner) for key in store.owned(tag))
        found = filter(None, (look(backend, key) for key in owned))
    return (one for one in found if one.owner == owner)


def no_session(backend: Backend, owner: str | None) -> str:
    """Say that nothing was found, and why that may be."""
    if owner is None or backend.sealer is not None:
        return "No session."
    return "No session. With a secret, owners are found by that alone: name it with --config."


def look(backend: Backend, key: str) -> Listed | None:
    """Return what is to be seen of the session under a store key; None if it has ended."""
    seen = contents(backend, key)
    return None if seen is None else seen.listed


def contents(backend: Backend, key: str) -> Contents | None:
    """Return what the session under a store key holds, without a value; None if it has ended."""
    found, name = backend.store.load(key), key[:FINGERPRINT_LENGTH]
    if found is Missing.CORRUPTED:
        return Contents(Listed(name, None, None, None, unreadable=_NO_RECORD))
    if not isinstance(found, Record):
        return None
    session = Session._of(backend, (), None)
    outcome = session._accept("", key, found)
    if outcome == "expired":
        return None
    sealer, nonce = backend.sealer, session._nonce
    why: str | None = None
    if sealer is None and len(found.seal) == NONCE_SIZE + MAC_SIZE:
        why = _NOT_GIVEN
    elif sealer is not None and not nonce:
        why = _OF_OTHERS
    elif outcome is not None:
        why = _NO_FACTS
    # It lies longer than it may be opened; how much is for the session itself to say.
    ends = max(found.accessed, found.expires - backend.request_limit)
    one = Listed(name, found.created, found.accessed, ends, unreadable=why)
    facts, life = session._facts, session._life
    if why is None:
        one = one._replace(expires=session._ends())
        if facts is not None:
            one = one._replace(owner=facts.owner, carrier=facts.carrier, client=facts.client)
    readable = session._stored if outcome is None else found.fields
    fields = (
        Field(name, len(data), _encoding(backend, nonce, name, data))
        for name, data in sorted(readable.items())
        if not name.startswith("\0")
    )
    return Contents(
        one,
        found.version,
        facts.rotated if facts is not None and why is None else None,
        life if life is not None and why is None else Life(),
        tuple(fields),
    )


def _encoding(backend: Backend, nonce: bytes, name: str, data: bytes) -> str:
    sealer = backend.sealer
    if sealer is not None and nonce:
        try:
            data = sealer.open(nonce, name, data)
        except BadSeal:
            return "not ours"
        return ENCODINGS.get(data[:1], "unknown")
    return SEALED.get(data[:1]) or ENCODINGS.get(data[:1], "unknown")


def with_fingerprints(
    backend: Backend, fingerprints: Collection[str], looked: Callable[[], object] = lambda: None
) -> dict[str, list[str]]:
    """Return the store keys that begin with each of *fingerprints*: none, one, or by a rare chance
    several. Every key is looked at, and *looked* called for each. Raises as `keys`."""
    found: dict[str, list[str]] = {fingerprint: [] for fingerprint in fingerprints}
    for key in keys(backend):
        looked()
        if key[:FINGERPRINT_LENGTH] in found:
            found[key[:FINGERPRINT_LENGTH]].append(key)
    return found


# -- ending --------------------------------------------------------------------------------------


def end_key(backend: Backend, key: str) -> bool:
    """End the session under a store key; return False if a rotation took it away just now: only
    who has its id can follow it."""
    return backend.store.destroy(key) is None


def end_owned(backend: Backend, owner: str) -> Iterator[int]:
    """End the sessions of *owner*; yield how many, as they end. Raises as `keys`, at once."""
    store = backend.store
    if store.shared and isinstance(store, ByOwner):
        return map(store.end_owned, backend.owner_tags(owner))
    keys(backend)

    def is_owned(key: str) -> bool:
        one = look(backend, key)
        return one is not None and one.owner == owner

    return _end_until_none_is_left(backend, is_owned)


def end_every(backend: Backend) -> Iterator[int]:
    """End every session there is now; yield how many, as they end. Raises as `keys`, at once."""
    keys(backend)
    begun = backend.clock()

    def is_older(key: str) -> bool:
        found = backend.store.load(key)
        return isinstance(found, Record) and found.created <= begun

    # First all, then what a rotation carried past us meanwhile: that began before we did. What
    # clients begin after us is none of ours, and without end.
    return chain(
        _end(backend, lambda key: True),
        _end_until_none_is_left(backend, is_older),
    )


def _end_until_none_is_left(backend: Backend, is_meant: Callable[[str], bool]) -> Iterator[int]:
    found = True
    while found:
        found = False
        for ended in _end(backend, is_meant):
            found = True
            yield ended


def _end(backend: Backend, is_meant: Callable[[str], bool]) -> Iterator[int]:
    for key in keys(backend):
        if is_meant(key):
            # Where it moved away, 0: it has to be looked for once more.
            yield int(end_key(backend, key))
