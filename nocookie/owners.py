"""The sessions of an owner: to show them, and to end them.

Whose a session is, its store learns by `session.login(owner)`: not the name, but a digest of it,
made with the secret if there is one. Stores with the power `ByOwner` find a session by that.
"""

from __future__ import annotations

from typing import NamedTuple

from nocookie.backend import Backend
from nocookie.errors import NocookieError
from nocookie.ids import FINGERPRINT_LENGTH
from nocookie.sessions import Session
from nocookie.stores.base import ByOwner, Record

__all__ = ["SessionInfo", "end_all", "end_one", "info", "sessions_of"]


class SessionInfo(NamedTuple):
    """One session, for its owner or an operator to see. Times are in seconds since the epoch."""

    fingerprint: str
    #: When it began: at the login, where there was one.
    created: float
    #: When it was last used, exact to `timeout` / 20 or a minute.
    last_accessed: float
    #: When it ends if it is not used.
    expires: float
    owner: str | None
    #: How its id travelled at the login.
    carrier: str | None
    #: What the client said it is.
    client: str | None


def sessions_of(backend: Backend, owner: str) -> list[SessionInfo]:
    """Return the living sessions of *owner*, the one used last first.

    Raises `NocookieError` if the store cannot find sessions by owner, and `StoreError`.
    """
    store = _by_owner(backend)
    found = []
    for tag in backend.owner_tags(owner):
        for key in store.owned(tag):
            one = info(backend, key)
            if one is not None and one.owner == owner:
                found.append(one)
    return sorted(found, key=lambda one: one.last_accessed, reverse=True)


def end_all(backend: Backend, owner: str, but: str | None = None) -> int:
    """End every session of *owner* except the one under the store key *but*; return how many.

    They are dead when this returns: a request that is under way in one of them cannot save any
    more. Raises as `sessions_of`.
    """
    store = _by_owner(backend)
    ended = sum(store.end_owned(tag, but) for tag in backend.owner_tags(owner))
    for _ in range(ended):
        backend.emit("ended", "with all of its owner")
    return ended


def end_one(backend: Backend, owner: str, fingerprint: str) -> bool:
    """End the session of *owner* with this *fingerprint*; return whether it was there.

    One that just goes on under a fresh id by itself (`rotate_every`) has another fingerprint from
    then on. Raises as `sessions_of`.
    """
    store = _by_owner(backend)
    for tag in backend.owner_tags(owner):
        for key in store.owned(tag):
            if key[:FINGERPRINT_LENGTH] != fingerprint:
                continue
            if backend.store.destroy(key) is None:
                backend.emit("ended", "by its owner", fingerprint)
                return True
    return False


def info(backend: Backend, key: str) -> SessionInfo | None:
    """Return what is to be seen of the session under a store key; None if it has ended, or cannot
    be read."""
    found = backend.peek(key)
    if not isinstance(found, Record):
        return None
    session = Session._of(backend, (), None)
    if session._accept("", key, found) is not None:
        return None
    facts = session._facts
    return SessionInfo(
        key[:FINGERPRINT_LENGTH],
        found.created,
        found.accessed,
        session._ends(),
        facts and facts.owner,
        facts and facts.carrier,
        facts and facts.client,
    )


def _by_owner(backend: Backend) -> ByOwner:
    store = backend.store
    if not isinstance(store, ByOwner):
        raise NocookieError(
            f"{type(store).__name__} cannot find sessions by their owner; memory, file, sqlalchemy "
            "and redis can"
        )
    return store
