"""The session of a client: `Session`, the data, and `SessionObject`, its lazy stand-in.

How a session works:

* Nothing is loaded until something asks. Then the ids that the client presented are tried in
  their order; the first that the store knows is the session. None known: the session is new,
  under a fresh id, and `reason` says why.
* A value is decoded when its key is first read, and encoded when it may have changed: when it
  was assigned, or when it is a container that somebody has had in hands.
* A save sends the difference. `_record` is what the store had; what was set, deleted or cleared
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
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from nocookie.codecs import JsonCodec, PickleCodec, Undecodable
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
from nocookie.ids import FINGERPRINT_LENGTH, GatewayIds, IdScheme, RandomIds, SignedIds
from nocookie.local import Forwarding
from nocookie.options import resolve
from nocookie.sealing import BadSeal, Sealer, Unsealed
from nocookie.stores import open_store
from nocookie.stores.base import Delta, KeyTaken, Missing, Record, Store, VersionChanged, merge

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Backend", "Presented", "Session", "SessionObject"]

T = TypeVar("T")

#: The ids that a client presented and that could be ours, each with the carrier that brought it
#: (the strongest first), and why there is none if there is none.
Presented = tuple[tuple[tuple[str, Any], ...], str]

#: A touch is due when the last one is older than this many seconds, or than a twentieth of the
#: idle timeout: the session may then end up to 5 % early, and reads stay reads.
TOUCH_EVERY: Final = 60.0
TOUCH_SHARE: Final = 20

#: A fresh id that is taken means a broken random generator; the second try is generous.
CREATE_TRIES: Final = 3

#: How often `mutate` tries against other writers before it gives up, and how long in seconds
#: it waits at most before a try: 32 writers on one key finish well within.
MUTATE_TRIES: Final = 200
MUTATE_PAUSE: Final = 0.005

#: Types whose values cannot change in place: what was not assigned has not changed.
_IMMUTABLE: Final = frozenset(
    {str, int, float, bool, type(None), bytes, Decimal, UUID}
    | {date, datetime, time_of_day, timedelta}
)
#: Types whose values are compared with what was loaded, because they may have.
_COMPARED: Final = frozenset({list, dict, set, bytearray, tuple, frozenset})


class Backend:
    """What sessions are made of: the opened store, the id scheme, the codec, the lifetimes."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        secrets = settings["secret"]
        self.clock: Callable[[], float] = settings["clock"]
        self.timeout: float = settings["timeout"] or math.inf
        self.lifetime: float = settings["lifetime"] or math.inf
        self.auto: bool = settings["auto"]
        self.max_size: int = settings["max_size"]
        self.max_value_size: int = settings["max_value_size"]
        self.codec = PickleCodec() if settings["data_serializer"] == "pickle" else JsonCodec()
        self.sealer = Sealer(secrets, settings["encrypt_key"] or ()) if secrets else Unsealed()
        self.ids: IdScheme
        if not settings["strict"]:
            self.ids = GatewayIds(settings["id_key"])
        else:
            self.ids = SignedIds(secrets) if secrets else RandomIds()
        type = settings["type"] or ("file" if settings["data_dir"] else "memory")
        self.store: Store = open_store(type, settings) if isinstance(type, str) else type

    def presented(self, text: object) -> Presented:
        """Check one text, however it came."""
        if text is None:
            return (), "absent"
        why = self.ids.checked(text)
        if why is not None:
            return (), why
        assert isinstance(text, str)
        return ((text, None),), ""

    def fingerprint(self, id: str) -> str:
        return self.ids.key(id)[:FINGERPRINT_LENGTH]


class Session(MutableMapping[str, Any]):
    """A session: a mapping that is saved under an id.

    Made by the middleware, and by hand where there is no request (`Session({}, id=..., **options)`
    with the options of `SessionMiddleware`); then `save()` writes at once. The first argument is
    Beaker's request dict; it is not used.

    Raises `StoreError` when it first needs the store, and `ConfigError` for a wrong option.
    """

    # Defaults of the instance: a request that only reads sets few of them.
    _id: str | None = None
    #: The store key of the record, as long as there is one.
    _key: str | None = None
    _record: Record | None = None
    _nonce: bytes | None = None
    #: None until the first touch.
    _is_new: bool | None = None
    _given: str | None = None
    _brought_by: Any = None
    _marked = False
    _cleared = False
    #: "store" or "gone" after an operation failed that way: see the middleware.
    _failed: str | None = None
    #: A record that the client knew was ended in this request.
    _ended = False
    #: Encoded values as they were loaded, less what was deleted.
    _fields: Mapping[str, bytes]
    #: Values that were read or assigned. None until the first touch.
    _values: dict[str, Any] | None = None
    #: The names assigned since the last save, with their encodings once known.
    _changed: dict[str, bytes | None]
    _deleted: set[str]

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
        self._backend = backend
        self._presented, self._reason = backend.presented(id)

    @classmethod
    def _of(cls, backend: Backend, presented: Presented) -> Session:
        session = cls.__new__(cls)
        session._backend = backend
        session._presented, session._reason = presented
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
        return self._reason or None

    @property
    def must_propagate(self) -> bool:
        """True if the client has to be told the id: the record is stored, or will be at the
        commit, under an id that is not the one the client presented."""
        if self._values is None:
            self._load()
        stored = self._record is not None or self._will_be_stored()
        return stored and self.id != self._given

    @property
    def created(self) -> float:
        """When the session began, in seconds since the epoch."""
        if self._values is None:
            self._load()
        return self._record.created if self._record else self._backend.clock()

    @property
    def last_accessed(self) -> float | None:
        """When an earlier request used it, exact to `timeout` / 20 or a minute, in seconds since
        the epoch; None for a new one."""
        if self._values is None:
            self._load()
        return self._record.accessed if self._record else None

    @property
    def timeout(self) -> float | None:
        """Seconds that the session may lie unused; None for ever."""
        timeout = self._backend.timeout
        return None if timeout == math.inf else timeout

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
        self._changed[key] = None

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        assert self._values is not None
        self._values.pop(key, None)
        self._changed.pop(key, None)
        if key in self._fields:
            self._fields = {name: data for name, data in self._fields.items() if name != key}
            self._deleted.add(key)

    def __contains__(self, key: object) -> bool:
        if self._values is None:
            self._load()
        assert self._values is not None
        return key in self._values or key in self._fields

    def __iter__(self) -> Iterator[str]:
        if self._values is None:
            self._load()
        assert self._values is not None
        # A list, because reading values while iterating adds to them.
        return iter([*self._fields, *(name for name in self._values if name not in self._fields)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def has_key(self, key: str) -> bool:
        """As `in`: Beaker's name for it."""
        return key in self

    def clear(self) -> None:
        """Remove everything, also what other requests add before this one is saved."""
        if self._values is None:
            self._load()
        self._fields, self._values, self._changed = {}, {}, {}
        self._deleted, self._cleared = set(), True

    def changed(self, key: str) -> None:
        """Say that the value under *key* was changed in place. Needed for objects of your own;
        changes in lists, dicts, sets, tuples of them and bytearrays are noticed."""
        self[key] = self[key]

    def revert(self) -> None:
        """Undo every change since the session was loaded or last saved, nested ones too."""
        if self._values is None:
            return
        self._adopt_fields(self._record.fields if self._record else {})

    # -- life -----------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the record again; changes that were not saved are dropped."""
        if self._record is not None:
            assert self._id is not None
            self._presented, self._reason = ((self._id, self._brought_by),), ""
        self._load()

    def save(self) -> None:
        """Write what changed, at once.

        Raises `ValueRefused`, before anything is written; `SessionGone` if the session was
        ended meanwhile; `StoreError`. A new session without data is not stored.
        """
        if self._values is None:
            self._load()
        try:
            self._write()
        except SessionGone:
            self._failed = "gone"
            raise
        except StoreError as error:
            self._failed = "store"
            emit("store error", str(error), self._named())
            raise
        self._marked = False

    persist = save

    def delete(self) -> None:
        """End the session now: the record is removed before this returns, and no request in
        flight brings it back. What is left is an empty session under a fresh id, which is not
        stored unless something is put into it and saved. Raises `StoreError`."""
        if self._values is None:
            self._load()
        if self._key is not None:
            try:
                self._backend.store.destroy(self._key)
            except StoreError:
                self._failed = "store"
                raise
            emit("ended", "", self._named())
            self._ended = True
        self._forget("destroyed")

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
        other = Session._of(self._backend, self._backend.presented(id))
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
        is called again whenever another writer came first: it must do nothing else. On a session
        that is not stored yet it is applied to this one, which is then saved.

        Raises `SessionGone`, `SessionConflict` if others kept winning, `StoreError`.
        """
        if self._values is None:
            self._load()
        if self._key is None:
            result = change(self)
            self._marked = True
            return result
        for _ in range(MUTATE_TRIES):
            found = self._backend.store.load(self._key)
            if not isinstance(found, Record):
                self._failed = "gone"
                raise SessionGone("the session has ended")
            draft = self._draft(found)
            result = change(draft)
            delta = draft._delta()
            ttl = self._ttl(found.created)
            try:
                self._backend.store.save(self._key, delta, ttl, expect=found.version)
            except VersionChanged:
                time.sleep(random.uniform(0, MUTATE_PAUSE))  # noqa: S311 - only to spread out
                continue
            self._rebase(found, delta)
            return result
        raise SessionConflict("other requests kept changing the session")

    # -- loading --------------------------------------------------------------------------------

    def _load(self) -> None:
        backend = self._backend
        reason = self._reason
        try:
            for id, carrier in self._presented:
                key = backend.ids.key(id)
                found = backend.store.load(key)
                if type(found) is Record:
                    why = self._accept(id, key, found)
                    if why is None:
                        self._given, self._brought_by = id, carrier
                        if self._is_new is None:
                            self._is_new = False
                        return
                else:
                    assert isinstance(found, Missing)
                    why = found.value
                reason = reason or why
                if why != "unknown":
                    emit(why, "", key[:FINGERPRINT_LENGTH])
        except StoreError as error:
            self._failed = "store"
            emit("store error", str(error))
            raise
        if self._is_new is None:
            self._is_new = True
        if reason != "absent":
            emit("refused", reason)
        self._forget(reason)
        if backend.ids.adopts and self._presented:
            self._id = self._given = self._presented[0][0]
            self._brought_by = self._presented[0][1]

    def _accept(self, id: str, key: str, record: Record) -> str | None:
        """Make *record* the one of this session, or return why it cannot be."""
        backend = self._backend
        now = backend.clock()
        if now >= record.created + backend.lifetime or now >= record.accessed + backend.timeout:
            return "expired"
        try:
            self._nonce = backend.sealer.open_record(key, record.seal)
        except BadSeal:
            return "corrupted"
        self._id, self._key, self._record = id, key, record
        self._reason = ""
        self._adopt_fields(record.fields)
        return None

    def _adopt_fields(self, fields: Mapping[str, bytes]) -> None:
        self._fields, self._values, self._changed = fields, {}, {}
        self._deleted, self._cleared = set(), False

    def _forget(self, reason: str) -> None:
        """Be an empty session without a record, for *reason*."""
        self._id = self._key = self._record = self._nonce = None
        self._marked = False
        self._reason = reason
        self._adopt_fields({})
        if self._backend.ids.adopts:  # the gateway will send this id again
            self._id = self._given

    def _opened(self, name: str, data: bytes) -> Any:
        assert self._nonce is not None
        return self._backend.codec.loads(self._backend.sealer.open(self._nonce, name, data))

    def _decoded(self, key: str) -> Any:
        data = self._fields[key]
        assert self._values is not None
        try:
            value = self._values[key] = self._opened(key, data)
        except (BadSeal, Undecodable) as error:
            # What one value can no longer be trusted for, the whole session cannot. The record
            # is kept: it may be a later version's, or the secret that is missing here.
            emit("corrupted", str(error), self._named())
            self._forget("corrupted")
            self._is_new, self._given = True, None
            raise KeyError(key) from None
        return value

    # -- saving ---------------------------------------------------------------------------------

    def _mark(self) -> None:
        """Check that everything can be saved, and have the commit do it."""
        if self._values is None:
            self._load()
        self._checked(self._delta())
        self._marked = True

    def _commit(self) -> None:
        """What the end of a request does to the store. Raises as `save`; a touch only
        `StoreError`."""
        if self._values is None:
            return
        if self._marked or (self._backend.auto and self._has_changes()):
            self.save()
        elif self._record is not None and self._touch_is_due(self._record):
            self._touch()

    def _will_be_stored(self) -> bool:
        return (self._marked or self._backend.auto) and bool(self._changed)

    def _is_moving(self) -> bool:
        return self._key is not None and self._backend.ids.key(self.id) != self._key

    def _has_changes(self) -> bool:
        return self._cleared or bool(self._changed or self._deleted or self._delta().set)

    def _write(self) -> None:
        delta = self._checked(self._delta())
        record = self._record
        if record is None:
            if delta.set:
                self._create(delta)
            return
        assert self._key is not None and self._nonce is not None
        store, ttl = self._backend.store, self._ttl(record.created)
        new_key = self._backend.ids.key(self.id)
        if new_key != self._key:
            seal = self._backend.sealer.seal_record(new_key, self._nonce)
            store.rotate(self._key, new_key, delta, seal, ttl)
            emit("rotated", "", self._named())
            self._key = new_key
        elif delta.set or delta.deleted or delta.cleared:
            store.save(self._key, delta, ttl)
        elif self._touch_is_due(record):
            store.touch(self._key, ttl)
        else:
            return
        self._settle(record, delta)

    def _create(self, delta: Delta) -> None:
        backend = self._backend
        for _ in range(CREATE_TRIES):
            key = backend.ids.key(self.id)
            assert self._nonce is not None
            now = backend.clock()
            seal = backend.sealer.seal_record(key, self._nonce)
            record = Record(delta.set, now, now, 0.0, 1, seal)
            try:
                backend.store.create(key, record, self._ttl(now))
            except KeyTaken:
                if backend.ids.adopts:
                    return self._join(key)
                self._id = None
                continue
            self._key = key
            emit("created", "", self._named())
            return self._settle(record, Delta())
        raise StoreError("fresh ids are in use already: the random generator repeats itself")

    def _join(self, key: str) -> None:
        """Another request of the same gateway session stored it first: save into that."""
        found = self._backend.store.load(key)
        changes = self._values
        assert changes is not None and self._id is not None
        if not isinstance(found, Record) or self._accept(self._id, key, found) is not None:
            raise SessionConflict("another request ended the session")
        self.update(changes)
        self._write()

    def _settle(self, record: Record, delta: Delta) -> None:
        """Remember that *delta* is stored."""
        now = self._backend.clock()
        fields = merge(record.fields, delta)
        self._record = record._replace(fields=fields, accessed=now)
        self._fields = fields
        self._changed, self._deleted, self._cleared = {}, set(), False

    def _touch_is_due(self, record: Record) -> bool:
        backend = self._backend
        return backend.clock() - record.accessed > min(TOUCH_EVERY, backend.timeout / TOUCH_SHARE)

    def _touch(self) -> None:
        assert self._key is not None and self._record is not None
        try:
            self._backend.store.touch(self._key, self._ttl(self._record.created))
        except SessionGone:
            pass  # it ended while this request read it: nothing was promised, nothing is lost
        except StoreError as error:
            self._failed = "store"
            emit("store error", str(error), self._named())
            raise

    def _ttl(self, created: float) -> float:
        backend = self._backend
        left = created + backend.lifetime - backend.clock()
        if left <= 0:
            raise SessionGone("the session has reached the end of its lifetime")
        return min(backend.timeout, left)

    def _delta(self) -> Delta:
        """Encode what changed. Raises `ValueRefused`."""
        assert self._values is not None
        changed, fields = self._changed, self._fields
        encoded: dict[str, bytes] = {}
        for name, value in self._values.items():
            if name in changed:
                data = changed[name]
                if data is None:
                    data = self._encoded(name, value)
                    if type(value) in _IMMUTABLE:  # what else changes until the commit counts too
                        changed[name] = data
                encoded[name] = data
            elif type(value) in _COMPARED and self._differs(name, value, fields[name]):
                encoded[name] = self._encoded(name, value)
        return Delta(encoded, self._deleted - encoded.keys(), self._cleared)

    def _encoded(self, name: str, value: Any) -> bytes:
        backend = self._backend
        try:
            name.encode()
            data = backend.codec.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueRefused(name, str(error)) from error
        if len(data) > backend.max_value_size:
            raise ValueRefused(
                name, f"{len(data)} bytes, and max_value_size is {backend.max_value_size}"
            )
        if self._nonce is None:
            self._nonce = backend.sealer.new_nonce()
        return backend.sealer.seal(self._nonce, name, data)

    def _differs(self, name: str, value: Any, data: bytes) -> bool:
        codec = self._backend.codec
        try:
            now = codec.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueRefused(name, str(error)) from error
        assert self._nonce is not None
        before = self._backend.sealer.open(self._nonce, name, data)
        # Not against the stored bytes alone: another version may have written them otherwise.
        return now != before and now != codec.dumps(codec.loads(before))

    def _checked(self, delta: Delta) -> Delta:
        """Refuse what would make the record too large."""
        if not delta.set:
            return delta
        limit = self._backend.max_size
        size = sum(map(len, delta.set.values()))
        for name, data in self._fields.items():
            if name not in delta.set:
                size += len(data)
        if size > limit:
            largest = max(delta.set, key=lambda name: len(delta.set[name]))
            raise ValueRefused(largest, f"the session would have {size} bytes; max_size is {limit}")
        return delta

    # -- compare and set ------------------------------------------------------------------------

    def _draft(self, found: Record) -> Session:
        draft = Session._of(self._backend, ((), ""))
        draft._id, draft._key, draft._record = self._id, self._key, found
        draft._nonce, draft._is_new = self._nonce, False
        draft._adopt_fields(found.fields)
        return draft

    def _rebase(self, found: Record, delta: Delta) -> None:
        """Take over the record as it is stored now, under the changes of this request."""
        assert self._values is not None
        fields = merge(found.fields, delta)
        for name in [*delta.set, *delta.deleted]:
            self._changed.pop(name, None)
            self._deleted.discard(name)
        kept = {
            name: value
            for name, value in self._values.items()
            if name in self._changed or (name in fields and fields[name] == self._fields.get(name))
        }
        accessed = self._backend.clock()
        self._record = found._replace(fields=fields, version=found.version + 1, accessed=accessed)
        self._fields = (
            {}
            if self._cleared
            else {name: data for name, data in fields.items() if name not in self._deleted}
        )
        self._values = kept

    def _named(self) -> str | None:
        return self._key[:FINGERPRINT_LENGTH] if self._key else None


class _Params(dict[str, Any]):
    """What `Session({}, **params)` takes. It may hold an id, so it is not shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<session parameters: {', '.join(self)}>"


class SessionObject(Forwarding):
    """The session of one request, not yet made: it becomes a `Session` when it is touched.

    Its `__dict__` is public, because the Pylons documentation has applications assign into it:
    `_params` is a fresh dict for every request, and what is put into `_sess` is the session of
    this request.
    """

    if TYPE_CHECKING:
        id: str
        is_new: bool
        reason: str | None
        must_propagate: bool
        created: float
        last_accessed: float | None
        timeout: float | None
        fingerprint: str
        load: Callable[[], None]
        delete: Callable[[], None]
        invalidate: Callable[[], None]
        regenerate_id: Callable[[], None]
        revert: Callable[[], None]
        changed: Callable[[str], None]
        has_key: Callable[[str], bool]

        def incr(self, key: str, by: float = 1) -> Any: ...
        def mutate(self, change: Callable[[MutableMapping[str, Any]], T]) -> T: ...

    def __init__(
        self,
        environ: WSGIEnvironment,
        find: Callable[[WSGIEnvironment], Presented],
        backend: Backend,
    ) -> None:
        slots = self.__dict__
        slots["_params"] = _Params(id=None, backend=backend)
        slots["_sess"] = None
        slots["_backend"] = backend
        slots["_find"] = find
        slots["_environ"] = environ

    def _target(self) -> Session:
        slots = self.__dict__
        session: Session | None = slots["_sess"]
        if session is None:
            environ = slots["_environ"]
            if environ is None:
                raise UnboundSessionError("the request of this session is over")
            session = slots["_sess"] = Session._of(slots["_backend"], slots["_find"](environ))
        return session

    def _get_current_obj(self) -> SessionObject:
        """Return itself: the proxy has the same method and returns this object."""
        return self

    _current_obj = _get_current_obj
    _get_current_object = _get_current_obj

    def rebuild(self, id: object) -> None:
        """Make the session of this request the one with this *id*, whatever the client sent.

        The Pylons recipe as one call. The id goes through the same checks as any other; None or
        an id that is not known gives a new session. Nothing else is touched: no other request,
        and not the session that was in this place before.
        """
        backend = self.__dict__["_backend"]
        self.__dict__["_sess"] = Session._of(backend, backend.presented(id))

    def save(self) -> None:
        """Have the session saved at the commit, before the response's first byte leaves.

        Raises `ValueRefused` now, in the handler, if a value cannot be saved.
        """
        self._target()._mark()

    def persist(self) -> None:
        """Save now. Raises as `Session.save`."""
        self._target().save()

    def get_by_id(self, id: str) -> Session | None:
        """Return the session with another *id*, or None if the store does not know it."""
        return self._target().get_by_id(id)

    def accessed(self) -> bool:
        """Whether anything has asked for the session in this request."""
        return self.__dict__["_sess"] is not None

    def dirty(self) -> bool:
        """Whether `save()` was called and is not done yet."""
        return self.accessed() and self._target()._marked

    def _reopen(self, environ: WSGIEnvironment) -> None:
        """Serve the same request once more."""
        self.__dict__["_environ"] = environ
        session = self.__dict__["_sess"]
        if session is not None:
            session._failed = None

    def _end(self) -> None:
        """The request is over. Letting go of environ, which holds this object, leaves no cycle."""
        self.__dict__["_environ"] = None

    def __repr__(self) -> str:
        session = self.__dict__["_sess"]
        return "<Session, untouched>" if session is None else repr(session)
