"""The session of a client: `Session`, the data, and `SessionObject`, its lazy stand-in.

How a session works:

* Nothing is loaded until something asks. Then the ids that the client presented are tried in
  their order; the first that the store knows is the session. None known: the session is new,
  under a fresh id, and `reason` says why.
* A value is decoded when its key is first read, and encoded when it may have changed: when it
  was assigned, or when it is a container that somebody has had in hands.
* A save sends the difference. `_stored` is what the store had; what was set, deleted or cleared
  since is the delta. See `nocookie.stores.base` for what that buys.
* The store never sees the id, only its hash, here called the key.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from uuid import UUID

from nocookie.backend import Backend, Presented
from nocookie.beaker_ids import is_beaker_id, mark_key
from nocookie.codecs import Undecodable
from nocookie.errors import (
    ConfigError,
    NocookieError,
    SessionConflict,
    SessionGone,
    StoreError,
    UnboundSessionError,
    ValueRefused,
)
from nocookie.events import emit
from nocookie.ids import FINGERPRINT_LENGTH
from nocookie.options import resolve
from nocookie.sealing import BadSeal, random_bytes
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Missing,
    Record,
    VersionChanged,
    merge,
    new_delta,
    new_record,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from nocookie.carriers import Carrier
    from nocookie.rewriting import Scope

__all__ = ["Opener", "Session", "SessionObject"]

T = TypeVar("T")

#: A fresh id that is taken means a broken random generator; the second try is generous.
FRESH_TRIES: Final = 3
#: Bytes that tell two sessions of one gateway id apart: as many as make a chance meeting moot.
SEAL_SIZE: Final = 8
_REPEATS: Final = "fresh ids are in use already: the random generator repeats itself"

#: How often `mutate` tries against other writers before it gives up, and how long in seconds
#: it waits at most before a try: 32 writers on one key finish well within.
MUTATE_TRIES: Final = 200
MUTATE_PAUSE: Final = 0.005

_NOTHING_DELETED: Final[frozenset[str]] = frozenset()

#: Types whose values cannot change in place: what was not assigned has not changed.
_IMMUTABLE: Final = frozenset(
    {str, int, float, bool, type(None), bytes, Decimal, UUID}
    | {date, datetime, time_of_day, timedelta}
)
#: Types whose values are compared with what was loaded, because they may have.
_COMPARED: Final = frozenset({list, dict, set, bytearray, tuple, frozenset})


#: Make a `Session` without a call of `__init__`.
_new: Callable[[type[Session]], Session] = object.__new__


class Session(MutableMapping[str, Any]):
    """A session: a mapping that is saved under an id.

    Made by the middleware, and by hand where there is no request (`Session({}, id=..., **options)`
    with the options of `SessionMiddleware`); then `save()` writes at once. The first argument is
    Beaker's request dict; it is not used.

    Raises `StoreError` when it first needs the store, and `ConfigError` for a wrong option.
    """

    # Defaults of the instance: a request that only reads sets few of them.

    #: The id; None until somebody asks for the id of a new session.
    _id: str | None = None
    #: The store key of the record; None as long as there is none.
    _key: str | None = None
    _created: float | None = None
    _last_accessed: float | None = None
    _nonce: bytes = b""
    #: The seal of the record, where its key may be used again after its end.
    _seal: bytes | None = None
    #: None until the first touch.
    _is_new: bool | None = None
    _reason: str | None = None
    #: The id that the client presented and the store knew, and the carrier that brought it.
    _given: str | None = None
    _brought_by: Carrier | None = None
    #: To be saved at the commit.
    _marked = False
    #: What a save would send, as long as nothing can have changed since it was made.
    _ready: Delta | None = None
    #: The record is to be renewed though nothing is saved.
    _touch_due = False
    #: "store" or "gone" after an operation failed that way: see the middleware.
    _failed: str | None = None
    #: The store key of a record that the client's id names and that cannot be read.
    _unreadable: str | None = None
    #: A record that the client knew was ended in this request.
    _ended = False
    #: Encoded values as the store has them, and the same less what was deleted since.
    _stored: Mapping[str, bytes]
    _fields: Mapping[str, bytes]
    #: Values that were read or assigned. None until the first touch.
    _values: dict[str, Any] | None = None
    #: The names assigned since the last save, with their encodings once known.
    _changed: dict[str, bytes | None]
    _deleted: frozenset[str] = _NOTHING_DELETED
    _cleared = False

    def __init__(
        self,
        request: Mapping[str, Any] | None = None,
        id: object = None,
        *,
        backend: Backend | None = None,
        **options: Any,
    ) -> None:
        if backend is None:
            backend = Backend(resolve(None, options))
        elif options:
            raise ConfigError(
                f"{', '.join(sorted(options))} cannot be given for one session; "
                "set it where the middleware is made"
            )
        if backend.tokens is not None:
            raise ConfigError(
                "a session of type = cookie goes out with a response: it needs SessionMiddleware"
            )
        self._backend = backend
        self._presented, self._reason = backend.presented(id)

    @classmethod
    def _of(cls, backend: Backend, presented: Presented, reason: str | None) -> Session:
        session = _new(cls)
        session._backend = backend
        session._presented, session._reason = presented, reason
        return session

    # -- what it is -----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The id: the client's own if the store knows it, else a fresh one."""
        if self._values is None:
            self._load()
        if self._id is None:
            self._id = self._backend.ids.new()
        return self._id

    @property
    def _carried(self) -> str:
        """What the client has to bring with its next request."""
        return self.id

    @property
    def is_new(self) -> bool:
        """True if the client presented no id that the store knew when this session was first
        touched. It does not change within a request, except that a record which turns out to be
        corrupted makes the session new."""
        if self._values is None:
            self._load()
        return bool(self._is_new)

    @property
    def reason(self) -> str | None:
        """Why there is no data from earlier: `absent`, `malformed`, `ambiguous`, `forged`,
        `unknown`, `expired`, `corrupted`, `destroyed`; None if there is."""
        if self._values is None:
            self._load()
        return self._reason

    @property
    def must_propagate(self) -> bool:
        """True if the client has to be told the id: the record is stored, or will be at the
        commit, under an id that is not the one the client presented."""
        if self._values is None:
            self._load()
        if self._key is None and not self._will_be_stored():
            return False
        return self._id is None or self._id != self._given

    @property
    def created(self) -> float:
        """When the session began, in seconds since the epoch."""
        if self._values is None:
            self._load()
        return self._backend.clock() if self._created is None else self._created

    @property
    def last_accessed(self) -> float | None:
        """When an earlier request used it, exact to `timeout` / 20 or a minute, in seconds since
        the epoch; None for a new one."""
        if self._values is None:
            self._load()
        return self._last_accessed

    @property
    def timeout(self) -> float | None:
        """Seconds that the session may lie unused; None for ever."""
        timeout = self._backend.timeout
        return None if timeout == math.inf else timeout

    @property
    def carrier(self) -> Carrier | None:
        """The carrier by which the client brought the id that the store knew; None if it brought
        none, and after `rebuild`."""
        if self._values is None:
            self._load()
        return self._brought_by

    @property
    def fingerprint(self) -> str:
        """How this session is named in logs, listings and commands."""
        return self._backend.fingerprint(self.id)

    def __repr__(self) -> str:
        # No load, no id, no values: a repr ends up in logs and tracebacks.
        if self._values is None:
            return "<Session, untouched>"
        name = self._backend.fingerprint(self._id) if self._id else "without id"
        return f"<Session {name}, {'new' if self._is_new else 'known'}>"

    # -- the mapping ----------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        if self._values is None:
            self._load()
        values = self._values
        assert values is not None
        if key in values:
            return values[key]
        return self._decoded(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if self._values is None:
            self._load()
        assert self._values is not None
        if type(key) is not str:
            raise ValueRefused(str(key), f"keys are text, not {type(key).__name__}")
        self._values[key] = value
        self._changed[key] = self._ready = None
        if key in self._deleted:
            self._deleted -= {key}

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        assert self._values is not None
        self._values.pop(key, None)
        self._changed.pop(key, None)
        if key in self._fields:
            self._fields = {name: data for name, data in self._fields.items() if name != key}
        if key in self._stored:
            self._deleted |= {key}
        self._ready = None

    def __contains__(self, key: object) -> bool:
        if self._values is None:
            self._load()
        assert self._values is not None
        return key in self._values or key in self._fields

    def __iter__(self) -> Iterator[str]:
        if self._values is None:
            self._load()
        assert self._values is not None
        # Who iterates reads the values next. One that cannot be read makes the session new, and
        # then there is nothing to iterate over: so they are read first.
        for name in self._fields:
            self.get(name)
        return iter([*self._fields, *(name for name in self._values if name not in self._fields)])

    def __len__(self) -> int:
        if self._values is None:
            self._load()
        assert self._values is not None
        return len(self._fields.keys() | self._values.keys())

    def has_key(self, key: str) -> bool:
        """As `in`: Beaker's name for it."""
        return key in self

    def clear(self) -> None:
        """Remove everything, also what other requests add before this one is saved."""
        if self._values is None:
            self._load()
        self._begin({})
        self._cleared = True

    def changed(self, key: str) -> None:
        """Say that the value under *key* was changed in place. Needed for objects of your own;
        changes in lists, dicts, sets, tuples of them and bytearrays are noticed."""
        self[key] = self[key]

    def revert(self) -> None:
        """Undo every change since the session was loaded or last saved, nested ones too."""
        if self._values is not None:
            self._begin(self._stored)

    # -- life -----------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the record again; changes that were not saved are dropped, a new id is not."""
        if self._key is None:
            self._load()
            return
        assert self._id is not None
        given = self._given
        self._presented = ((self._id, self._key, self._brought_by),)
        self._load()
        if self._key is not None:
            self._given = given

    def save(self) -> None:
        """Write what changed, at once.

        Raises `ValueRefused`, before anything is written; `SessionGone` if the session was
        ended meanwhile; `StoreError`. A new session without data is not stored.
        """
        if self._values is None:
            self._load()
        delta = self._ready or self._checked_delta()
        try:
            self._write(delta)
        except (SessionGone, StoreError) as error:
            self._note(error)
            raise
        self._marked = False
        self._failed = None

    persist = save

    def delete(self) -> None:
        """End the session now: the record is removed before this returns, and no request in
        flight brings it back. What is left is an empty session under a fresh id, which is not
        stored unless something is put into it and saved. Raises `StoreError`."""
        if self._values is None:
            self._load()
        key = self._key or self._unreadable
        if key is not None:
            try:
                self._backend.store.destroy(key)
            except StoreError as error:
                self._note(error)
                raise
            emit("ended", "", key[:FINGERPRINT_LENGTH])
            self._ended, self._failed, self._unreadable = True, None, None
        self._detach("destroyed")

    invalidate = delete

    def regenerate_id(self) -> None:
        """Take a fresh id. The record moves there, with the changes of this request, when the
        session is saved; from then on the old id is dead. Needed whenever the visitor gains
        rights, first of all at login (OWASP ASVS 5.0, 7.2.4)."""
        if self._backend.ids.adopts:
            raise NocookieError("ids that a gateway issues cannot be rotated")
        if self._values is None:
            self._load()
        self._id = self._backend.ids.new()
        self._marked = True

    def get_by_id(self, id: str) -> Session | None:
        """Return the session with another *id*, or None if the store does not know it."""
        other = type(self)._of(self._backend, *self._backend.presented(id))
        return None if other.is_new else other

    def incr(self, key: str, by: float = 1) -> Any:
        """Add *by* to a number, starting from 0, and return the sum. Exact, however many do it
        at once; see `mutate`."""

        def add(stored: MutableMapping[str, Any]) -> Any:
            stored[key] = stored.get(key, 0) + by
            return stored[key]

        return self.mutate(add)

    def mutate(self, change: Callable[[MutableMapping[str, Any]], T]) -> T:
        """Change the stored session by compare-and-set, now; return what *change* returned.

        *change* gets the session as it is stored, without what this request has not saved, and
        is called again whenever another writer came first: it must do nothing else. A session
        that is not stored yet is changed as it is, and stored when it is saved; in a request,
        that is at the commit.

        Raises `SessionGone`, `SessionConflict` if others kept winning, `StoreError`.
        """
        if self._values is None:
            self._load()
        if self._marked and self._key is not None:
            self.save()  # what was saved before comes before
        key = self._key
        if key is None:
            return self._change_new(change)
        self._notice_changes()
        try:
            for _ in range(MUTATE_TRIES):
                found = self._backend.store.load(key)
                if not isinstance(found, Record) or self._seal not in (None, found.seal):
                    raise SessionGone("the session has ended")
                draft = self._draft(key, found)
                result = change(draft)
                if draft._key is None:  # it met a value that is corrupted
                    self._distrust()
                    return self._change_new(change)
                delta = draft._checked_delta()
                try:
                    self._save(key, delta, expect=found.version)
                except VersionChanged:
                    time.sleep(random.uniform(0, MUTATE_PAUSE))  # noqa: S311 - only to spread out
                    continue
                self._rebase(found, delta)
                return result
        except (SessionGone, StoreError) as error:
            self._note(error)
            raise
        raise SessionConflict("other requests kept changing the session")

    # -- loading --------------------------------------------------------------------------------

    def _load(self) -> None:
        backend = self._backend
        why: str | None = None
        try:
            for id, key, carrier in self._presented:
                found = backend.load(key)
                if type(found) is Record:
                    outcome = self._accept(id, key, found)
                    if outcome is None:
                        self._given, self._brought_by = id, carrier
                        if self._failed is not None:
                            self._failed = None
                        if self._is_new is None:
                            self._is_new = False
                        if backend.beaker_ids is not None and is_beaker_id(id):
                            self._take_over(id, backend.beaker_ids.until)
                        return
                else:
                    assert isinstance(found, Missing)
                    outcome = found.value
                why = why or outcome
                if outcome == "corrupted" and self._unreadable is None:
                    self._unreadable = key
                if outcome != "unknown":
                    emit(outcome, "", key[:FINGERPRINT_LENGTH])
        except StoreError as error:
            self._note(error)
            raise
        if self._is_new is None:
            self._is_new = True
        why = why or self._reason or "absent"
        if why != "absent":
            emit("refused", why)
        self._detach(why)
        if backend.ids.adopts and self._presented:
            self._id, _, self._brought_by = self._presented[0]
            self._given = self._id

    def _accept(self, id: str, key: str, record: Record) -> str | None:
        """Make *record* the one of this session, or return why it cannot be."""
        backend = self._backend
        fields, created, accessed, _, _, seal = record
        now = backend.clock()
        if now >= created + backend.lifetime or now >= accessed + backend.timeout:
            return "expired"
        if backend.sealer is not None:
            try:
                self._nonce = backend.sealer.open_record(key, seal)
            except BadSeal:
                return "corrupted"
        if now - accessed > backend.touch_after:
            self._touch_due = True
        if backend.ids.adopts:
            self._seal = seal
        self._id, self._key = id, key
        self._created, self._last_accessed = created, accessed
        self._reason = None
        self._stored = fields
        if self._values is not None:
            self._begin(fields)
        else:  # the rest of what `_begin` does is so by default
            self._fields, self._values, self._changed = fields, {}, {}
        return None

    def _take_over(self, id: str, until: float) -> None:
        """A client came with an id of Beaker's: mark that, and move the session at the commit to
        an id of ours, as a touch that is due."""
        backend = self._backend
        self._id, self._touch_due = backend.ids.new(), True
        now = backend.clock()
        mark = new_record(({}, now, now, until, 1, b""))
        try:
            backend.store.create(mark_key(id), mark, until - now)
        except KeyTaken:
            pass  # another request did

    def _begin(self, fields: Mapping[str, bytes]) -> None:
        """Have these values, and no changes."""
        self._fields, self._values, self._changed = fields, {}, {}
        self._deleted, self._cleared, self._ready = _NOTHING_DELETED, False, None

    def _detach(self, reason: str) -> None:
        """Be an empty session without a record, for *reason*."""
        self._id = self._key = self._seal = None
        self._created = self._last_accessed = None
        self._nonce = b""
        self._marked = self._touch_due = False
        self._reason = reason
        self._stored: Mapping[str, bytes] = {}
        self._begin(self._stored)
        if self._backend.ids.adopts:  # the gateway will send this id again
            self._id = self._given

    def _decoded(self, key: str) -> Any:
        data = self._fields[key]
        backend = self._backend
        assert self._values is not None
        try:
            if len(data) > backend.decode_limit:
                raise Undecodable("it is larger than any value may be")
            if backend.sealer is not None:
                data = backend.sealer.open(self._nonce, key, data)
            value = self._values[key] = backend.codec.loads(data)
        except (BadSeal, Undecodable, UnicodeEncodeError) as error:
            # What one value can no longer be trusted for, the whole session cannot. The record
            # is kept: it may be a later version's, or the secret that is missing here.
            emit("corrupted", str(error), self._named())
            self._distrust()
            raise KeyError(key) from None
        if type(value) in _COMPARED:
            self._ready = None  # from here on it may change in place
        return value

    def _distrust(self) -> None:
        """Be new, because the record turned out to be corrupted. It stays where it is."""
        self._unreadable = self._key
        self._detach("corrupted")
        self._is_new, self._given = True, None

    # -- saving ---------------------------------------------------------------------------------

    def _mark(self) -> None:
        """Check that everything can be saved, and have the commit do it."""
        if self._values is None:
            self._load()
        self._checked_delta()
        self._marked = True

    def _commit(self) -> None:
        """What the end of a request does to the store. Raises as `save`; a touch only
        `StoreError`."""
        if self._marked:
            self.save()
        elif self._values is None or self._failed == "gone":
            return
        elif self._backend.auto and self._has_changes():
            self.save()
        elif self._touch_due:
            self._touch()

    def _will_be_stored(self) -> bool:
        return (self._marked or self._backend.auto) and bool(self._changed)

    def _is_due(self) -> bool:
        """Whether the session was last renewed so long ago that it had to be now."""
        backend, last = self._backend, self._last_accessed
        return last is not None and backend.clock() - last > backend.renew_after

    def _is_moving(self) -> bool:
        return self._key is not None and self._backend.ids.key(self.id) != self._key

    def _has_changes(self) -> bool:
        return self._cleared or bool(self._changed or self._deleted or self._checked_delta().set)

    def _write(self, delta: Delta) -> None:
        key = self._key
        if key is None:
            if delta.set:
                self._create(delta)
            return
        if self._id != self._given and self._is_moving():
            self._rotate(key, delta)
        elif delta.set or delta.deleted or delta.cleared:
            self._save(key, delta)
        elif self._touch_due:
            self._touch()
            return
        self._settle(delta)

    def _save(self, key: str, delta: Delta, expect: int | None = None) -> None:
        store, ttl = self._backend.store, self._ttl()
        if self._seal is None:
            store.save(key, delta, ttl, expect)
        else:
            store.save(key, delta, ttl, expect, self._seal)

    def _rotate(self, key: str, delta: Delta) -> None:
        backend = self._backend
        for _ in range(FRESH_TRIES):
            new_key = backend.ids.key(self.id)
            try:
                backend.store.rotate(key, new_key, delta, self._new_seal(new_key), self._ttl())
            except KeyTaken:
                self._id = backend.ids.new()
                continue
            emit("rotated", "", self._named())
            self._key = new_key
            return
        raise StoreError(_REPEATS)

    def _create(self, delta: Delta) -> None:
        backend = self._backend
        for _ in range(FRESH_TRIES):
            key = backend.ids.key(self.id)
            self._created = now = backend.clock()
            seal = self._new_seal(key)
            record = new_record((delta.set, now, now, now, 1, seal))
            try:
                backend.store.create(key, record, self._ttl())
            except KeyTaken:
                if backend.ids.adopts:
                    self._join(key)
                    return
                self._id = None
                continue
            self._key = key
            self._seal = seal if backend.ids.adopts else None
            emit("created", "", key[:FINGERPRINT_LENGTH])
            self._settle(delta)
            return
        raise StoreError(_REPEATS)

    def _new_seal(self, key: str) -> bytes:
        backend = self._backend
        if backend.sealer is not None:
            return backend.sealer.seal_record(key, self._nonce)
        # A gateway uses its ids again; what its next session is told apart by is random.
        return random_bytes(SEAL_SIZE) if backend.ids.adopts else b""

    def _join(self, key: str) -> None:
        """Another request of the same gateway session stored it first: save into that."""
        found = self._backend.store.load(key)
        changes, id = self._values, self._id
        assert changes is not None
        assert id is not None
        if not isinstance(found, Record) or self._accept(id, key, found) is not None:
            # It cannot be ours: its time is over by our limits, or its secret is not ours.
            self._backend.store.destroy(key)
        self.update(changes)
        self._write(self._checked_delta())

    def _settle(self, delta: Delta) -> None:
        """Remember that *delta* is stored."""
        changes, deleted, cleared = delta
        if deleted or cleared:
            self._stored = merge(self._stored, delta)
            self._deleted, self._cleared = _NOTHING_DELETED, False
        else:
            self._stored = {**self._stored, **changes}
        self._fields = self._stored
        self._changed, self._ready = {}, None
        self._touch_due = False

    def _touch(self) -> None:
        assert self._key is not None
        try:
            if self._id != self._given and self._is_moving():
                self._rotate(self._key, Delta())
            elif self._seal is None:
                self._backend.store.touch(self._key, self._ttl())
            else:
                self._backend.store.touch(self._key, self._ttl(), self._seal)
        except SessionGone:
            # It ended while this request read it, or moved: nothing was promised, nothing is lost.
            # The client is told nothing: it may have heard of another id meanwhile.
            if self._given is not None:
                self._id, self._last_accessed = self._given, None
        except StoreError as error:
            self._note(error)
            raise
        self._touch_due = False

    def _ttl(self) -> float:
        backend = self._backend
        assert self._created is not None
        left = self._created + backend.lifetime - backend.clock()
        if left <= 0:
            raise SessionGone("the session has reached the end of its lifetime")
        return min(backend.timeout, left)

    def _checked_delta(self) -> Delta:
        """Encode what changed, and check that the record can hold it. Raises `ValueRefused`."""
        assert self._values is not None
        changed, fields = self._changed, self._fields
        encoded: dict[str, bytes] = {}
        final = True
        for name, value in self._values.items():
            if name in changed:
                data = changed[name]
                if type(value) not in _IMMUTABLE:
                    # It may still change in place before the commit: not to be remembered.
                    final = False
                    data = self._encoded(name, value)
                elif data is None:
                    data = changed[name] = self._encoded(name, value)
                encoded[name] = data
            elif type(value) in _COMPARED:
                final = False
                if self._differs(name, value, fields[name]):
                    encoded[name] = self._encoded(name, value)
        limit = self._backend.max_size
        if encoded and sum(map(len, encoded.values())) + sum(map(len, fields.values())) > limit:
            self._check_size(encoded)
        delta = new_delta((encoded, self._deleted, self._cleared))
        self._ready = delta if final else None
        return delta

    def _encoded(self, name: str, value: Any) -> bytes:
        backend = self._backend
        try:
            if not name.isascii():
                name.encode()
            data = backend.codec.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueRefused(name, str(error)) from error
        if len(data) > backend.max_value_size:
            raise ValueRefused(
                name, f"{len(data)} bytes, and max_value_size is {backend.max_value_size}"
            )
        if backend.sealer is None:
            return data
        if not self._nonce:
            self._nonce = backend.sealer.new_nonce()
        return backend.sealer.seal(self._nonce, name, data)

    def _differs(self, name: str, value: Any, before: bytes) -> bool:
        """Whether a container was changed in place since it was decoded from *before*."""
        backend = self._backend
        try:
            now = backend.codec.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueRefused(name, str(error)) from error
        if backend.sealer is not None:
            before = backend.sealer.open(self._nonce, name, before)
        # Not against the stored bytes alone: another version may have written them otherwise.
        return now != before and now != backend.codec.dumps(backend.codec.loads(before))

    def _check_size(self, encoded: Mapping[str, bytes]) -> None:
        limit = self._backend.max_size
        size = sum(map(len, {**self._fields, **encoded}.values()))
        if size > limit:
            largest = max(encoded, key=lambda name: len(encoded[name]))
            raise ValueRefused(largest, f"the session would have {size} bytes; max_size is {limit}")

    # -- compare and set ------------------------------------------------------------------------

    def _change_new(self, change: Callable[[MutableMapping[str, Any]], T]) -> T:
        result = change(self)
        self._marked = True
        return result

    def _draft(self, key: str, found: Record) -> Session:
        """A session on the record as it is stored now."""
        draft = Session._of(self._backend, (), None)
        assert self._id is not None
        draft._is_new = False
        if draft._accept(self._id, key, found) is not None:
            draft._detach("corrupted")
        return draft

    def _rebase(self, found: Record, delta: Delta) -> None:
        """Take over the record as it is stored now, under the changes of this request."""
        assert self._values is not None
        before = self._stored
        self._stored = fields = merge(found.fields, delta)
        mutated = {*delta.set, *delta.deleted}
        for name in mutated:
            self._changed.pop(name, None)
        self._deleted -= mutated
        self._values = {
            name: value
            for name, value in self._values.items()
            if name in self._changed
            or (name not in mutated and fields.get(name) == before.get(name))
        }
        self._fields = (
            {}
            if self._cleared
            else {name: data for name, data in fields.items() if name not in self._deleted}
        )
        self._ready = None
        self._touch_due = self._is_moving()

    def _notice_changes(self) -> None:
        """Note which containers were changed in place, while what they were is still known."""
        assert self._values is not None
        for name, value in self._values.items():
            if name in self._changed or type(value) not in _COMPARED:
                continue
            if self._differs(name, value, self._fields[name]):
                self._changed[name] = None

    def _note(self, error: SessionGone | StoreError) -> None:
        """Remember a failure, for when a framework makes its own answer of it."""
        if isinstance(error, SessionGone):
            # Known now, and the application's to handle: the commit must not try again.
            self._failed, self._marked = "gone", False
        else:
            self._failed = "store"
            emit("store error", str(error), self._named())

    def _named(self) -> str | None:
        return self._key[:FINGERPRINT_LENGTH] if self._key else None


class Opener(Protocol):
    """What a session object needs of the manager that opens it."""

    backend: Backend
    session_class: type[Session]

    def find(self, environ: WSGIEnvironment) -> tuple[Presented, str]: ...
    def scope(self, session: SessionObject) -> Scope | None: ...
    def bare_url(self, environ: WSGIEnvironment, url: str) -> str: ...


class _Params(dict[str, Any]):
    """What `Session({}, **params)` takes. It may hold an id, so it is not shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<session parameters: {', '.join(self)}>"


class _Attributed:
    """Has attributes of the ordinary kind."""


#: The real `__dict__` of an object.
_attributes: Callable[[object], dict[str, Any]]
_attributes = _Attributed.__dict__["__dict__"].__get__


class SessionObject(_Attributed, MutableMapping[str, Any]):
    """The session of one request, not yet made: it becomes a `Session` when it is touched, and
    answers what that answers.

    Its `__dict__` is public, because the Pylons documentation has applications assign into it:
    `_params` is a fresh dict for every request, and what is put into `_sess` is the session of
    this request.
    """

    __slots__ = ("_environ", "_manager")

    _sess: Session | None = None
    _manager: Opener
    #: Until the end of the request.
    _environ: WSGIEnvironment | None

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        # Few requests look: what only they need is made when they do.
        attributes = _attributes(self)
        if "_params" not in attributes:
            attributes["_params"] = _Params(id=None, backend=self._manager.backend)
            attributes.setdefault("_sess", None)
        return attributes

    def _session(self) -> Session:
        session = self._sess
        if session is None:
            if self._environ is None:
                raise UnboundSessionError("the request of this session is over")
            manager = self._manager
            session = self._sess = _new(manager.session_class)
            session._backend = manager.backend
            session._presented, session._reason = manager.find(self._environ)
        return session

    def _get_current_obj(self) -> SessionObject:
        """Return itself: the proxy has the same method and returns this object."""
        return self

    _current_obj = _get_current_obj
    _get_current_object = _get_current_obj

    # -- what only the session of a request has -------------------------------------------------

    def rebuild(self, id: object) -> None:
        """Make the session of this request the one with this *id*, whatever the client sent.

        The Pylons recipe as one call. The id goes through the same checks as any other; None or
        an id that is not known gives a new session. Nothing else is touched: no other request,
        and not the session that was in this place before.
        """
        backend = self._manager.backend
        self._sess = self._manager.session_class._of(backend, *backend.presented(id))

    def url(self, url: str) -> str:
        """Return *url* with the id on it, if the client needs that and the URL may have it.

        It needs it if the id came in a URL, or is new and would go there. Only URLs of this
        origin below the mount get it, as a browser would read them (`nocookie.rewriting`); any
        other comes back as it is. A session that is not stored, nor marked to be by `save()`, has
        no id to put on a URL. Raises `UnboundSessionError` if the request is over.
        """
        if self._environ is None:
            raise UnboundSessionError("the request of this session is over")
        scope = self._manager.scope(self)
        return url if scope is None else scope.url(url)

    def bare_url(self, url: str) -> str:
        """Return *url* without an id: for mail, for redirects by way of another site, for
        canonical links. Raises `UnboundSessionError` if the request is over."""
        if self._environ is None:
            raise UnboundSessionError("the request of this session is over")
        return self._manager.bare_url(self._environ, url)

    def save(self) -> None:
        """Have the session saved at the commit, before the response's first byte leaves.

        Raises `ValueRefused` now, in the handler, if a value cannot be saved, and
        `UnboundSessionError` if the request is over and no commit will come.
        """
        if self._environ is None:
            raise UnboundSessionError("the request of this session is over")
        self._session()._mark()

    def persist(self) -> None:
        """Save now. Raises as `Session.save`."""
        self._session().save()

    def accessed(self) -> bool:
        """Whether anything has asked for the session in this request."""
        return self._sess is not None

    def dirty(self) -> bool:
        """Whether `save()` was called and is not done yet."""
        return self._sess is not None and self._sess._marked

    # -- the session ----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._session().id

    @property
    def is_new(self) -> bool:
        return self._session().is_new

    @property
    def reason(self) -> str | None:
        return self._session().reason

    @property
    def must_propagate(self) -> bool:
        return self._session().must_propagate

    @property
    def created(self) -> float:
        return self._session().created

    @property
    def last_accessed(self) -> float | None:
        return self._session().last_accessed

    @property
    def timeout(self) -> float | None:
        return self._session().timeout

    @property
    def carrier(self) -> Carrier | None:
        return self._session().carrier

    @property
    def fingerprint(self) -> str:
        return self._session().fingerprint

    def load(self) -> None:
        self._session().load()

    def delete(self) -> None:
        self._session().delete()

    invalidate = delete

    def regenerate_id(self) -> None:
        self._session().regenerate_id()

    def get_by_id(self, id: str) -> Session | None:
        return self._session().get_by_id(id)

    def revert(self) -> None:
        self._session().revert()

    def changed(self, key: str) -> None:
        self._session().changed(key)

    def incr(self, key: str, by: float = 1) -> Any:
        return self._session().incr(key, by)

    def mutate(self, change: Callable[[MutableMapping[str, Any]], T]) -> T:
        return self._session().mutate(change)

    def has_key(self, key: str) -> bool:
        return key in self._session()

    def clear(self) -> None:
        self._session().clear()

    def __getitem__(self, key: str) -> Any:
        session = self._sess
        return (self._session() if session is None else session)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        session = self._sess
        (self._session() if session is None else session)[key] = value

    def __delitem__(self, key: str) -> None:
        del self._session()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._session()

    def __iter__(self) -> Iterator[str]:
        return iter(self._session())

    def __len__(self) -> int:
        return len(self._session())

    def __bool__(self) -> bool:
        """There is a session, empty or not. Paste's registry asks this of whatever it holds, at
        the end of every request, and to look would be to load it."""
        return True

    def __repr__(self) -> str:
        return "<Session, untouched>" if self._sess is None else repr(self._sess)
