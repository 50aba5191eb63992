"""The session of a client: its data, where it lies, and what becomes of it.

How a session works:

* Nothing is loaded until something asks. Then the ids that the client presented are tried in
  their order; the first that the store knows is the session. None known: the session is new,
  under a fresh id, and `reason` says why.
* A value is decoded when its key is first read, and encoded when it may have changed: when it
  was assigned, or when it is a container that somebody has had in hands.
* A save sends the difference. `_stored` is what the store had; what was set, deleted or cleared
  since is the delta. See `nocookie.stores.base` for what that buys.
* The store never sees the id, only its hash, here called the key.
* What is known of the session beside its data are its facts (`nocookie.facts`).

In a request the session is made by `nocookie.session_object`, when it is first touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeGuard, TypeVar
from uuid import UUID

from nocookie.backend import CLOCK_SKEW, TOUCH_EVERY, TOUCH_SHARE, Backend, Presented
from nocookie.bases import CONTAINERS
from nocookie.beaker_ids import is_beaker_id, mark_key
from nocookie.codecs import Undecodable
from nocookie.errors import (
    ConfigError,
    InsecureTransport,
    NocookieError,
    NoSession,
    Refusal,
    SessionConflict,
    SessionGone,
    StoreError,
    ValueRefused,
)
from nocookie.events import report_once
from nocookie.facts import FACTS, OWN, RESERVED, Facts, Life
from nocookie.ids import FINGERPRINT_LENGTH, NotAnId, redeemed, ticket
from nocookie.options import OPTIONS, resolve
from nocookie.sealing import BadSeal, random_bytes
from nocookie.stores.base import (
    OWN_LIFE,
    Delta,
    InOneStep,
    KeyTaken,
    Missing,
    Moved,
    Record,
    Trail,
    VersionChanged,
    merge,
    new_delta,
    new_record,
)
from nocookie.stores.retry import tries

if TYPE_CHECKING:
    from nocookie.carriers import Carrier

__all__ = ["OfCookies", "Session", "fields_of", "new_session", "size_of"]

T = TypeVar("T")

#: A fresh id that is taken means a broken random generator; the second try is generous.
FRESH_TRIES: Final = 3
#: Bytes that tell two sessions of one gateway id apart: as many as make a chance meeting moot.
SEAL_SIZE: Final = 8
_KEPT_CHANGING: Final = "other requests kept changing the session"
_REPEATS: Final = "fresh ids are in use already: the random generator repeats itself"

#: How often `mutate` tries against other writers before it gives up, and how long in seconds
#: it waits at most before a try: 32 writers on one key finish well within.
MUTATE_TRIES: Final = 200
MUTATE_PAUSE: Final = 0.005

#: A record that was used so many seconds ago is from the future.
_AHEAD: Final = -CLOCK_SKEW

#: Bytes that facts may have however small values must be, and what is kept free of them for those
#: that are learnt later.
FACTS_LEAST: Final = 4096
FACTS_ROOM: Final = 256

#: Bytes that the name of a key may have: it is a name, and no place for data.
NAME_SIZE: Final = 1024

_NO_CHANGE: Final = Delta()
_NOTHING_DELETED: Final[frozenset[str]] = frozenset()

#: Types whose values cannot change in place: what was not assigned has not changed.
_IMMUTABLE: Final = frozenset(
    {str, int, float, bool, type(None), bytes, Decimal, UUID}
    | {date, datetime, time_of_day, timedelta}
)
#: Types whose values are compared with what was loaded, because they may have.
_COMPARED: Final = frozenset({list, dict, set, bytearray, tuple, frozenset})


class _Gone:
    """An attribute of Beaker's session that is none here. To assign it would else do nothing, in
    silence."""

    def __init__(self, name: str, sentence: str) -> None:
        self._error = f"a session has no {name}: {sentence}"

    def __get__(self, session: object, owner: object = None) -> NoReturn:
        raise AttributeError(self._error)

    def __set__(self, session: object, value: object) -> NoReturn:
        raise AttributeError(self._error)


class OfCookies:
    """What Beaker's session has of its cookie."""

    __slots__ = ()

    domain = _Gone("domain", "set the option cookie_domain, for all of them")
    path = _Gone("path", "set the option cookie_path, for all of them")


#: Make a `Session` without a call of `__init__`.
new_session: Callable[[type[Session]], Session] = object.__new__


class Session(OfCookies, MutableMapping[str, Any]):
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
    #: The request is a HEAD or a preflight: it shows nobody a page, so it neither begins a session
    #: nor renews one.
    _passive = False
    #: The request is a prefetch: its page may never be looked at, so its id does not change by
    #: itself, and `auto` begins no session.
    _speculative = False
    #: The client came by plain HTTP where that is ruled out. The reason is another one once the
    #: session was ended.
    _insecure = False
    #: The id that goes with `_key`, after a rotation was asked for and before it is done.
    _old: str | None = None
    #: The rotation that is due comes from nobody but the clock.
    _turning = False
    #: What the store is to know the owner by, after a login and before it is saved.
    _owner: bytes | None = None
    #: The store key of which it was said that a session is to be stored there.
    _announced = ""
    #: What is known of it beside its data, and whether that is to be saved.
    _facts: Facts | None = None
    _life: Life | None = None
    #: The same as the store has them: the application may have assigned others and not saved them.
    _stored_facts: Facts | None = None
    _stored_life: Life | None = None
    _facts_changed = False
    #: The application said that this session may be a new one.
    _may_be_new = False
    #: Why there is no session where one is needed: see `NoSession`.
    _needed: str | None = None
    #: What the client is then told, if it was refused.
    _refusal: Callable[[], Refusal] | None = None
    #: To be saved at the commit.
    _marked = False
    #: What a save would send, as long as nothing can have changed since it was made.
    _ready: Delta | None = None
    #: The record is to be renewed though nothing is saved: at once, or if the request lasts beyond
    #: a moment.
    _touch_due = False
    _renew_at = math.inf
    #: "store", "gone" or "refused" after an operation failed that way: see the middleware.
    _failed: str | None = None
    #: The store key of a record that the client's id names and that cannot be read.
    _unreadable: str | None = None
    #: The seal of one that turned out to be so when a value was read.
    _distrusted: bytes | None = None
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
            settings = resolve(None, options)
            backend = Backend(settings)
            report_once(settings.notes)
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
        session = new_session(cls)
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
            self._look()
        return bool(self._is_new)

    @property
    def reason(self) -> str | None:
        """Why there is no data from earlier: `absent`, `malformed`, `ambiguous`, `forged`,
        `unknown`, `expired`, `corrupted`, `insecure`, `destroyed`; None if there is."""
        if self._values is None:
            self._look()
        return self._reason

    @property
    def must_propagate(self) -> bool:
        """True if the client has to be told the id: the record is stored, or will be at the
        commit, under an id that is not the one the client presented."""
        if self._values is None:
            self._look()
        if self._key is None and not self._will_be_stored():
            return False
        return self._id is None or self._id != self._given

    @property
    def created(self) -> float:
        """When the session began, in seconds since the epoch: of a new one, when this was first
        asked or when it is stored, whichever is first."""
        if self._values is None:
            self._load()
        if self._created is None:
            self._created = self._backend.clock()
        return self._created

    @property
    def last_accessed(self) -> float | None:
        """When an earlier request used it, exact to `timeout` / 20 or a minute, in seconds since
        the epoch; None for a new one."""
        if self._values is None:
            self._load()
        return self._last_accessed

    @property
    def timeout(self) -> float | None:
        """Seconds that the session may lie unused; None for ever.

        What is assigned counts for this session from its next save on, instead of the option.
        Raises `ConfigError` if that is no number of seconds.
        """
        if self._values is None:
            self._load()
        timeout = self._times()[0]
        return None if timeout == math.inf else timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._live(timeout=_limit("timeout", seconds))

    @property
    def lifetime(self) -> float | None:
        """Seconds that the session lives, however much it is used, from `created` on; None for
        ever. To be assigned as `timeout`, for a "remember me" after the login say."""
        if self._values is None:
            self._load()
        lifetime = self._times()[1]
        return None if lifetime == math.inf else lifetime

    @lifetime.setter
    def lifetime(self, seconds: float | None) -> None:
        self._live(lifetime=_limit("lifetime", seconds))

    @property
    def owner(self) -> str | None:
        """Whose session it is: what `login` was told; None if nobody logged in."""
        if self._values is None:
            self._load()
        return None if self._facts is None else self._facts.owner

    @property
    def carrier(self) -> Carrier | None:
        """The carrier by which the client brought the id that the store knew; None if it brought
        none, and after `rebuild`."""
        if self._values is None:
            self._look()
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
        # Who asks reads the value next. One that cannot be read makes the session new, and then
        # it is not there: so it is read first.
        return key in self._values or (key in self._fields and self._can_be_read(str(key)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._readable())

    def __len__(self) -> int:
        return len(self._readable())

    def _readable(self) -> list[str]:
        """Return the names of all keys, whose values have been read: see `__contains__`."""
        if self._values is None:
            self._load()
        assert self._values is not None
        for name in self._fields:
            if name not in self._values and not self._can_be_read(name):
                break  # now there are none
        return [*self._fields, *(name for name in self._values if name not in self._fields)]

    def _can_be_read(self, key: str) -> bool:
        try:
            self._decoded(key)
        except KeyError:
            return False
        return True

    def has_key(self, key: str) -> bool:
        """As `in`: Beaker's name for it."""
        return key in self

    def clear(self) -> None:
        """Remove everything, also what other requests add before this one is saved; a login that
        is not saved yet is undone."""
        if self._values is None:
            self._load()
        self._undo_login()
        self._begin({})
        self._cleared = True

    def changed(self, key: str) -> None:
        """Say that the value under *key* was changed in place. Needed for objects of your own;
        changes in lists, dicts, sets, tuples of them and bytearrays are noticed."""
        self[key] = self[key]

    def revert(self) -> None:
        """Undo every change since the session was loaded or last saved, nested ones too, and a
        login. A fresh id that was asked for still comes."""
        if self._values is not None:
            self._undo_login()
            self._begin(self._stored)

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Say that the session may be a new one. Needed with `on_unknown = error` only, where a
        client that has none would else be refused: so in handlers that begin sessions."""
        self._may_be_new = True
        if self._needed is not None:
            self._detach(self._needed)
            self._needed = self._failed = None

    def login(self, owner: str, client: str | None = None) -> None:
        """Make this the session of *owner*, by whatever name the application knows its users.

        What an anonymous visitor had stays; where the owner was another, the session is emptied,
        and its own `timeout` and `lifetime` go with what was in it. The id is a fresh one from the
        next save on, and the old one is dead then (OWASP ASVS 5.0, 7.2.4); `created` and with it
        `lifetime` begin anew. *client* is what `sessions_of` shows of the client, its User-Agent
        for instance.

        Raises `ValueRefused` if these are longer than a value may be (`max_value_size`).
        """
        if type(owner) is not str or not owner:
            raise NocookieError("an owner is named by a text that is not empty")
        tag = self._backend.owner_tags(owner)[0]
        self.start()
        if self._values is None:
            self._load()
        carrier = None if self._brought_by is None else repr(self._brought_by)
        facts = Facts(owner, carrier, client)
        self._check_facts(facts)
        if self._facts is not None and self._facts.owner not in (None, owner):
            self._begin({})
            self._cleared, self._life = True, None
        if self._key is not None and not self._backend.ids.adopts:
            self.regenerate_id()
        self._owner = tag
        self._learn(facts)
        self._marked = True

    def load(self) -> None:
        """Read the record again; changes that were not saved are dropped, a login among them; a
        new id is not."""
        if self._key is None:
            self._load()
            return
        self._owner = None
        given, fresh, old = self._given, self._id, self._old
        held = old or fresh
        assert held is not None
        self._presented = ((held, self._key, self._brought_by),)
        self._facts = self._life = self._stored_facts = self._stored_life = None
        self._facts_changed = False
        self._load()
        if self._key is not None:
            self._given = given
            if old is not None:
                self._id, self._old = fresh, self._id

    def save(self, accessed_only: bool = False) -> None:
        """Write what changed, at once; with *accessed_only*, as Beaker has it, nothing but that the
        session was used, and for a new one nothing at all.

        Raises `ValueRefused`, before anything is written; `SessionGone` if the session was
        ended meanwhile; `StoreError`. A new session without data is not stored.
        """
        if self._values is None:
            self._load()
        if accessed_only:
            if self._key is not None:
                self._touch()
            return
        delta = self._ready or self._checked_delta()
        try:
            try:
                self._write_where_it_is(delta)
            except SessionGone:
                if self._owner is None:
                    raise
                self._log_in_anew()
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
            self._look()
        key = self._key or self._unreadable
        if key is not None:
            try:
                self._destroy(key)
            except StoreError as error:
                self._note(error)
                raise
            self._ended, self._failed, self._unreadable = True, None, None
        self._detach("destroyed")
        if key is not None:
            self._backend.emit("ended", "", key[:FINGERPRINT_LENGTH])

    invalidate = delete

    def regenerate_id(self) -> None:
        """Take a fresh id. The record moves there, with the changes of this request, when the
        session is saved; from then on the old id is dead. Needed whenever the visitor gains
        rights, first of all at login (OWASP ASVS 5.0, 7.2.4)."""
        if self._backend.ids.adopts:
            raise NocookieError("ids that a gateway issues cannot be rotated")
        if self._values is None:
            self._load()
        self._take_fresh_id()
        self._turning = False
        self._marked = True

    def get_by_id(self, id: str) -> Session | None:
        """Return the session with another *id*, or None if the store does not know it."""
        other = type(self)._of(self._backend, *self._backend.presented(id))
        try:
            return None if other.is_new else other
        except StoreError:
            self._failed = other._failed
            raise

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
            for _ in islice(tries(math.inf, MUTATE_PAUSE), MUTATE_TRIES):
                found = self._backend.store.load(key)
                if type(found) is Moved and self._catch_up():
                    assert self._key is not None
                    key = self._key
                    continue
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
                    continue
                self._rebase(found, delta)
                return result
        except (SessionGone, StoreError) as error:
            self._note(error)
            raise
        raise SessionConflict(_KEPT_CHANGING)

    # -- loading --------------------------------------------------------------------------------

    def _look(self) -> None:
        """Load, and take it as it is that there is no session where one is needed."""
        try:
            self._load()
        except NoSession:
            pass

    def _load(self) -> None:
        backend = self._backend
        if backend.needs_session and self._needed is not None:
            raise NoSession(self._needed)
        load = backend.peek if self._passive else backend.load
        why: str | None = None
        try:
            for id, key, carrier in self._presented:
                found = load(key)
                presented = id
                if type(found) is not Record and type(found) is Moved:
                    id, key, found = self._follow(id, key, found, backend.clock())
                if type(found) is Record:
                    outcome = self._accept(id, key, found)
                    if outcome is None and self._has_rival(presented, carrier):
                        why = "ambiguous"
                        break
                    if outcome is None:
                        self._given, self._brought_by = presented, carrier
                        if self._failed is not None:
                            self._failed = None
                        if self._is_new is None:
                            self._is_new = False
                        beaker_ids = backend.beaker_ids
                        if beaker_ids is not None and is_beaker_id(id) and self._may_turn():
                            self._take_over(id, beaker_ids.until)
                        return
                    self._facts = self._life = self._stored_facts = self._stored_life = None
                else:
                    assert isinstance(found, Missing)
                    outcome = found.value
                why = why or outcome
                if outcome == "corrupted" and self._unreadable is None:
                    self._unreadable = key
                if outcome != "unknown":
                    backend.emit(outcome, "", key[:FINGERPRINT_LENGTH])
                if found is Missing.EXPIRED and not backend.ids.adopts:
                    self._end_expired(key)
        except StoreError as error:
            self._note(error)
            raise
        self._be_new(why or self._reason or "absent")
        if backend.ids.adopts and self._presented:
            self._id, _, self._brought_by = self._presented[0]
            self._given = self._id

    def _has_rival(self, text: str, carrier: Any) -> bool:
        """Whether, behind the id that counts, the same place holds that of another session that
        lives: then none counts."""
        if len(self._presented) == 1:
            return False
        texts = [one[0] for one in self._presented]
        for one in self._presented[texts.index(text) + 1 :]:
            if one[2] is carrier:
                other = self._of(self._backend, (one,), None)
                other._passive = True
                other._look()
                if not other._is_new and other._key != self._key:
                    return True
        return False

    def _end_expired(self, key: str) -> None:
        # For good: else it would live again if the clock that says so is ahead, and put back. Not
        # before no request can be under way any more: until then the store has a record.
        try:
            self._backend.store.destroy(key, expired=True)
        except StoreError:
            pass  # it has expired all the same

    def _be_new(self, why: str) -> None:
        """Be a new session. Raises `NoSession` where none may be new."""
        if self._is_new is None:
            self._is_new = True
        if why != "absent":
            known = self._presented[0][1][:FINGERPRINT_LENGTH] if self._presented else None
            self._backend.emit("refused", why, known)
        self._detach(why)
        if self._backend.needs_session and not self._may_be_new:
            self._needed, self._values = why, None
            self._refuse(partial(NoSession, why))
            raise NoSession(why)

    def _follow(
        self, id: str, key: str, moved: Moved, now: float = -math.inf
    ) -> tuple[str, str, Record | Missing]:
        """Go where the trail of a session leads a request that begins *now*, or that was under
        way; return the id and the key there, and what is."""
        found: Record | Missing | Moved = moved
        seen = set()
        for _ in range(self._backend.most_turns):
            if type(found) is not Moved or key in seen:
                break
            seen.add(key)
            id = redeemed(id, found.ticket, now)
            try:
                key = self._backend.ids.key(id)
            except NotAnId:
                break
            found = self._backend.peek(key)
        return id, key, Missing.UNKNOWN if isinstance(found, Moved) else found

    def _catch_up(self) -> bool:
        """Go on where a rotation of another request has gone; return whether there was one."""
        backend, key, held = self._backend, self._key, self._old or self._id
        if not backend.leaves_trails or key is None or held is None:
            return False
        found = backend.peek(key)
        if type(found) is not Moved:
            return False
        id, key, there = self._follow(held, key, found)
        if not isinstance(there, Record):
            return False
        if backend.sealer is not None:
            try:
                backend.sealer.open_record(key, there.seal)
            except BadSeal:
                return False
        self._key = key
        if self._old is None or self._turning:
            self._id, self._old, self._turning = id, None, False
        else:  # the fresh id that was asked for is still to come
            self._old = id
        return True

    def _accept(self, id: str, key: str, record: Record) -> str | None:
        """Make *record* the one of this session, or return why it cannot be."""
        backend = self._backend
        fields, created, accessed, _, _, seal = record
        now = backend.clock()
        idle = now - accessed
        if backend.sealer is not None:
            try:
                self._nonce = backend.sealer.open_record(key, seal)
            except BadSeal:
                return "corrupted"
        life = None
        if FACTS in fields:
            try:
                fields = self._take_facts(fields)
            except (BadSeal, Undecodable, TypeError, ValueError):
                return "corrupted"
            life = self._life
        if life is None:
            if now >= created + backend.lifetime or now >= accessed + backend.timeout:
                return "expired"
            due = backend.renew_after
            if idle <= due:
                self._renew_at = accessed + due
            elif idle > backend.touch_after:
                self._touch_due = True
            else:  # the load has done it
                self._renew_at = now + due
        else:
            timeout, lifetime, since = self._times()
            if now >= (since or created) + lifetime or now >= accessed + timeout:
                return "expired"
            due = min(TOUCH_EVERY, timeout / TOUCH_SHARE)
            if idle > due:
                self._touch_due = True
            else:
                self._renew_at = accessed + due
        if idle < _AHEAD:
            self._set_right(key, created, now)
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
        """A client came with an id of Beaker's: mark that, and go on under one of ours."""
        if self._facts is not None:
            self._facts = self._facts._replace(imported=None)
        self._prepare_turn()
        now = self._backend.clock()
        mark = new_record(({}, now, now, until, 1, b""))
        try:
            self._backend.store.create(mark_key(id), mark, until - now)
        except KeyTaken:
            pass  # another request did

    def _take_facts(self, fields: Mapping[str, bytes]) -> dict[str, bytes]:
        """Read what is ours among *fields*, and return the rest. Raises `BadSeal`,
        `Undecodable`, TypeError and ValueError for what we have not written."""
        self._facts = Facts.read(self._opened(FACTS, fields[FACTS]))
        life = fields.get(OWN_LIFE)
        self._life = None if life is None else Life.read(self._opened(OWN_LIFE, life))
        self._stored_facts, self._stored_life = self._facts, self._life
        return _without_own(fields)

    def _set_right(self, key: str, created: float, now: float) -> None:
        """The record is from a clock that was ahead. Left so, it would live for longer than it
        may: so what counts is now."""
        self._backend.emit("clock", "a record from the future", key[:FINGERPRINT_LENGTH])
        life = self._life or Life()
        if max(created, life.since or 0.0) - now > CLOCK_SKEW:
            self._life = self._stored_life = life._replace(since=now)
        # A touch may leave times alone that are ahead of it; a save does not.
        self._touch_due = True
        self._learn(self._facts or Facts())

    def _times(self) -> tuple[float, float, float | None]:
        """The timeout, the lifetime, and where that begins if not at `created`."""
        backend, life = self._backend, self._life
        if life is None:
            return backend.timeout, backend.lifetime, None
        return (
            backend.timeout if life.timeout is None else life.timeout,
            backend.lifetime if life.lifetime is None else life.lifetime,
            life.since,
        )

    def _undo_login(self) -> None:
        """Forget a login, and times of its own, that are not saved yet."""
        self._owner = None
        if self._facts_changed:
            assert self._facts is not None
            # When the id was changed by itself is no change of the application's.
            stored = self._stored_facts or Facts()
            self._facts = stored._replace(rotated=self._facts.rotated)
            self._life = self._stored_life
            self._facts_changed = self._key is not None

    def _begin(self, fields: Mapping[str, bytes]) -> None:
        """Have these values, and no changes."""
        self._fields, self._values, self._changed = fields, {}, {}
        self._deleted, self._cleared, self._ready = _NOTHING_DELETED, False, None

    def _detach(self, reason: str) -> None:
        """Be an empty session without a record, for *reason*."""
        self._reason = reason
        fields: dict[str, bytes] = {}
        self._stored = fields
        if self._values is None and not self._presented:  # all is so by default
            self._fields, self._values, self._changed = fields, {}, {}
            return
        self._id = self._key = self._seal = self._old = None
        self._facts = self._life = self._stored_facts = self._stored_life = self._owner = None
        self._facts_changed = self._turning = False
        self._created = self._last_accessed = None
        self._nonce = b""
        self._marked = self._touch_due = False
        self._renew_at = math.inf
        self._begin(fields)
        if self._backend.ids.adopts:  # the gateway will send this id again
            self._id = self._given

    def _decoded(self, key: str) -> Any:
        data = self._fields[key]
        assert self._values is not None
        try:
            value = self._values[key] = self._opened(key, data)
        except (BadSeal, Undecodable, UnicodeEncodeError) as error:
            # What one value can no longer be trusted for, the whole session cannot. The record
            # is kept: it may be a later version's, or the secret that is missing here.
            self._backend.emit("corrupted", str(error), self._named())
            self._distrust()
            raise KeyError(key) from None
        if type(value) in _COMPARED:
            self._ready = None  # from here on it may change in place
        return value

    def _opened(self, name: str, data: bytes) -> Any:
        backend = self._backend
        if len(data) > backend.decode_limit:
            raise Undecodable("it is larger than any value may be")
        if backend.sealer is not None:
            data = backend.sealer.open(self._nonce, name, data)
        return backend.codec.loads(data)

    def _distrust(self) -> None:
        """Be new, because the record turned out to be corrupted. It stays where it is."""
        self._unreadable, self._distrusted = self._key, self._seal
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
        elif self._saves_by_itself() and self._has_changes():
            self.save()
        elif self._is_touch_due():
            self._touch()

    def _saves_by_itself(self) -> bool:
        """Whether what was changed is saved though nobody called `save()`."""
        return self._backend.auto and not (self._speculative and self._key is None)

    def _is_touch_due(self) -> bool:
        return self._touch_due or self._renew_at < self._backend.clock()

    def _renewed(self) -> None:
        """Remember that the record was renewed just now."""
        self._touch_due = False
        after = self._backend.renew_after
        if self._life is not None:
            after = min(TOUCH_EVERY, self._times()[0] / TOUCH_SHARE)
        self._renew_at = self._backend.clock() + after

    def _will_be_stored(self) -> bool:
        if self._passive or not (self._marked or self._saves_by_itself()):
            return False
        return bool(self._changed) or self._facts_changed

    def _is_due(self) -> bool:
        """Whether the session was last renewed so long ago that it had to be now."""
        backend, last = self._backend, self._last_accessed
        return last is not None and backend.clock() - last > backend.renew_after

    def _has_changes(self) -> bool:
        if self._cleared or self._facts_changed:
            return True
        return bool(self._changed or self._deleted or self._checked_delta().set)

    def _write(self, delta: Delta) -> None:
        key = self._key
        if key is None:
            if delta.set and not self._passive:
                self._create(delta)
            return
        if self._old is not None:
            self._rotate(key, delta)
        elif self._owner is not None:
            self._begin_again(key, delta)
            delta = _NO_CHANGE  # it is in already
        elif delta.set or delta.deleted or delta.cleared:
            self._save(key, delta)
        elif self._is_touch_due():
            self._touch()
            return
        self._settle(delta)

    def _write_where_it_is(self, delta: Delta) -> None:
        """Write, if need be where a rotation of another request has gone."""
        try:
            self._write(delta)
        except SessionGone:
            if not self._catch_up():
                raise
            self._write(delta)

    def _save(self, key: str, delta: Delta, expect: int | None = None) -> None:
        store, ttl = self._backend.store, self._ttl()
        if self._seal is None:
            store.save(key, delta, ttl, expect)
        else:
            store.save(key, delta, ttl, expect, self._seal)

    # -- rotating -------------------------------------------------------------------------------

    def _take_fresh_id(self) -> None:
        if self._key is not None and self._old is None:
            self._old = self._id
        self._id = self._backend.ids.new()

    def _is_turn_due(self) -> bool:
        """Whether the id is so old that the session should go on under another. Not if the client
        is told one in this response anyway."""
        if self._key is None or self._id != self._given or not self._may_turn():
            return False
        created, facts = self._created, self._facts
        assert created is not None
        last = created if facts is None or facts.rotated is None else facts.rotated
        return self._backend.clock() - last >= self._backend.rotate_every

    def _may_turn(self) -> bool:
        """Whether what this response says will be heard: otherwise the id stays as it is."""
        return not self._passive and not self._speculative

    def _prepare_turn(self) -> None:
        """Have the commit rotate, with a trail for those who still have the old id."""
        self._take_fresh_id()
        self._turning = self._touch_due = True
        self._learn((self._facts or Facts())._replace(rotated=self._backend.clock()))

    def _rotate(self, key: str, delta: Delta) -> None:
        backend, old = self._backend, self._old
        assert old is not None
        for _ in range(FRESH_TRIES):
            id = self.id
            new_key = backend.ids.fresh_key(id)
            further: dict[str, Any] = {}
            if self._owner is not None:
                further["owner"] = self._owner
            elif self._turning:
                # Requests that begin may follow for the grace; those under way, as long as one
                # may take.
                until = backend.clock() + backend.grace
                left_for = max(backend.grace, backend.request_limit)
                further["trail"] = Trail(ticket(old, id, until), left_for)
            seal = self._new_seal(new_key, self._nonce)
            self._announce("rotated" if self._owner is None else "login", new_key)
            try:
                backend.store.rotate(key, new_key, delta, seal, self._ttl(), **further)
            except KeyTaken:
                self._id = backend.ids.new()
                continue
            except StoreError as error:
                if not self._is_done(new_key):
                    raise
                backend.emit("store error", str(error), new_key[:FINGERPRINT_LENGTH])
            self._key, self._old, self._turning = new_key, None, False
            self._begin_owned()
            return
        raise StoreError(_REPEATS)

    def _is_done(self, key: str) -> bool:
        """Whether a rotation to *key* is done though the store says that it failed: its answer got
        lost. The client would be left with an id that is dead."""
        store = self._backend.store
        try:
            return isinstance(store, InOneStep) and isinstance(store.load(key), Record)
        except StoreError:
            return False

    def _begin_again(self, key: str, delta: Delta) -> None:
        """Have an owner under the id of a gateway, which cannot be another one. What is under way
        under this id has ended then: the seal is another."""
        backend, before = self._backend, self._nonce
        sealer, store = backend.sealer, backend.store
        is_said = False
        for _ in islice(tries(math.inf, MUTATE_PAUSE), MUTATE_TRIES):
            found = store.load(key)
            if not isinstance(found, Record) or found.seal != self._seal:
                raise SessionGone("the session has ended")
            fields, nonce = merge(found.fields, delta), before
            if sealer is not None:  # the nonce makes the seal, so it must be another
                nonce = sealer.new_nonce()
                try:
                    fields = sealer.resealed(before, nonce, fields)
                except BadSeal as error:
                    # The owner begins with what this request knows, and is not kept out for ever.
                    backend.emit("corrupted", str(error), self._named())
                    fields = sealer.resealed(before, nonce, delta.set)
                    self._values = {
                        n: value for n, value in (self._values or {}).items() if n in fields
                    }
            if not is_said:
                # Before it is stored: a listener may refuse that.
                backend.emit("login", "", key[:FINGERPRINT_LENGTH])
                is_said = True
            seal, now = self._new_seal(key, nonce), backend.clock()
            record = new_record((fields, now, now, now, 1, seal))
            try:
                store.create(key, record, self._ttl(), self._owner, found)
            except VersionChanged:
                continue  # what was saved meanwhile comes along
            self._seal, self._nonce, self._created = seal, nonce, now
            self._stored = _without_own(fields)
            self._begin_owned()
            return
        raise SessionConflict(_KEPT_CHANGING)

    def _log_in_anew(self) -> None:
        """The session that was to become the owner's has ended meanwhile. The owner needs nothing
        of it: begin another, which has what this request has set and nothing else."""
        assert self._values is not None
        values = {name: self._values[name] for name in self._changed}
        owner, facts, life, stored = self._owner, self._facts, self._life, self._stored_life
        assert facts is not None
        self._detach("destroyed")
        self._owner = owner
        self._learn(facts._replace(rotated=None))
        if life is not None:
            before = stored or Life()
            own = [
                now if now != then else None for now, then in zip(life[:2], before[:2], strict=True)
            ]
            self._life = Life(*own) if own != [None, None] else None
        self._values, self._changed = values, dict.fromkeys(values)
        self._write(self._checked_delta())

    def _begin_owned(self) -> None:
        if self._owner is not None:
            self._created, self._owner = self._backend.clock(), None

    def _announce(self, event: str, key: str) -> None:
        """Report what is about to be stored under *key*: a listener may refuse it, and then nothing
        is. Once, though it may take several tries."""
        if self._announced != key:
            self._backend.emit(event, "", key[:FINGERPRINT_LENGTH])
            self._announced = key

    def _create(self, delta: Delta) -> None:
        backend = self._backend
        if self._insecure:
            self._refuse_plain_http()
        owner, is_said = self._owner, False
        further: dict[str, Any] = {} if owner is None else {"owner": owner}
        for _ in range(MUTATE_TRIES if backend.ids.adopts else FRESH_TRIES):
            key = backend.ids.fresh_key(self.id)
            if not is_said:
                # Before it is stored: a listener may refuse that.
                backend.emit("created", "", key[:FINGERPRINT_LENGTH])
                if owner is not None:
                    backend.emit("login", "", key[:FINGERPRINT_LENGTH])
                is_said = True
            now = backend.clock()
            if self._created is None or owner is not None:
                self._created = now
            created = self._created = min(self._created, now)
            seal = self._new_seal(key, self._nonce)
            record = new_record((delta.set, created, now, now, 1, seal))
            try:
                backend.store.create(key, record, self._ttl(), **further)
            except (KeyTaken, VersionChanged):
                if not backend.ids.adopts:
                    self._id = None
                    continue
                found = backend.store.load(key)
                if self._can_join(found, key):
                    self._join(key, found)
                    return
                # It cannot be read, or not be used: its time is over by our limits, its secret is
                # not ours. Only if it is the same still: others may be at this, too.
                is_there = isinstance(found, Record) or found is Missing.CORRUPTED
                further["instead_of"] = found if is_there else None
                continue
            self._key = key
            self._seal = seal if backend.ids.adopts else None
            self._begin_owned()
            self._settle(delta)
            return
        if backend.ids.adopts:
            raise SessionConflict(_KEPT_CHANGING)
        raise StoreError(_REPEATS)

    def _new_seal(self, key: str, nonce: bytes) -> bytes:
        backend = self._backend
        if backend.sealer is not None:
            return backend.sealer.seal_record(key, nonce)
        # A gateway uses its ids again; what its next session is told apart by is random.
        return random_bytes(SEAL_SIZE) if backend.ids.adopts else b""

    def _can_join(self, found: Record | Missing | Moved, key: str) -> TypeGuard[Record]:
        """Whether another request of the same gateway session stored it first."""
        if not isinstance(found, Record) or found.seal == self._distrusted:
            return False
        other = Session._of(self._backend, (), None)
        return other._accept(self.id, key, found) is None

    def _join(self, key: str, found: Record) -> None:
        changes, owner, life = self._values, self._owner, self._life
        facts = self._facts
        assert changes is not None
        assert self._id is not None
        self._facts = self._life = None
        self._accept(self._id, key, found)
        if owner is not None:
            assert facts is not None
            if self._facts is not None and self._facts.owner not in (None, facts.owner):
                self._begin({})
                self._cleared, self._life = True, None
            self._learn(facts)
        if life is not None:
            self._life = life
            self._learn(self._facts or Facts())
        self.update(changes)
        self._write(self._checked_delta())

    def _settle(self, delta: Delta) -> None:
        """Remember that *delta* is stored."""
        if self._facts_changed:
            delta, self._facts_changed = delta._replace(set=_without_own(delta.set)), False
            self._stored_facts, self._stored_life = self._facts, self._life
        changes, deleted, cleared = delta
        if deleted or cleared:
            self._stored = merge(self._stored, delta)
            self._deleted, self._cleared = _NOTHING_DELETED, False
        else:
            self._stored = {**self._stored, **changes}
        self._fields = self._stored
        self._changed, self._ready = {}, None
        self._renewed()

    def _touch(self) -> None:
        """Renew the record, under another id if one is due; save nothing of the application's."""
        assert self._key is not None
        if self._passive:
            return
        self._life = self._stored_life
        try:
            self._renew()
        except SessionGone:
            self._renew_where_it_is()
        except StoreError as error:
            self._note(error)
            raise
        self._facts_changed = False
        self._renewed()

    def _renew(self) -> None:
        assert self._key is not None
        if self._old is not None:
            self._rotate(self._key, new_delta((self._own_due(), (), False)))
        elif self._facts_changed:
            # Of a clock that was wrong: a save sets all times right.
            self._save(self._key, new_delta((self._own_due(), (), False)))
        elif self._seal is None:
            self._backend.store.touch(self._key, self._ttl())
        else:
            self._backend.store.touch(self._key, self._ttl(), self._seal)

    def _renew_where_it_is(self) -> None:
        """It ended while this request read it, or moved. If it ended: nothing was promised, nothing
        is lost."""
        # Without a trail the client is told nothing: it may have heard of another id meanwhile.
        if self._old is not None:
            self._id, self._old, self._turning = self._old, None, False
        self._last_accessed = None
        try:
            if self._catch_up():
                assert self._key is not None
                self._backend.store.touch(self._key, self._ttl())
        except SessionGone:
            pass
        except StoreError as error:
            self._note(error)
            raise

    def _ttl(self) -> float:
        """For how long the store keeps the record if it is not used: for requests that are under
        way then, longer than requests that begin may open it."""
        backend = self._backend
        assert self._created is not None
        now, timeout, lifetime = backend.clock(), backend.timeout, backend.lifetime
        # With an owner, the session begins anew.
        begun = self._created if self._owner is None else now
        if self._life is not None:
            timeout, lifetime, since = self._times()
            begun = since or begun
        left = begun + lifetime - now
        if left <= 0:
            raise SessionGone("the session has reached the end of its lifetime")
        return min(timeout + backend.request_limit, left)

    def _ends(self) -> float:
        """When the session ends if it is not used any more."""
        assert self._created is not None
        assert self._last_accessed is not None
        timeout, lifetime, since = self._times()
        return min(self._last_accessed + timeout, (since or self._created) + lifetime)

    def _checked_delta(self) -> Delta:
        """Encode what changed, and check that the record can hold it. Raises `ValueRefused`."""
        assert self._values is not None
        changed, fields = self._changed, self._fields
        bases = self._backend.keeps_bases
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
            elif type(value) in _COMPARED or (bases and isinstance(value, CONTAINERS)):
                final = False
                if self._differs(name, value, fields[name]):
                    encoded[name] = self._encoded(name, value)
        if len(changed) + len(fields) > self._backend.max_keys:
            self._check_count()
        limit = self._backend.max_size
        if encoded and _most_of(encoded) + _most_of(fields) > limit:
            self._check_size(encoded)
        if self._facts_changed or (self._cleared and self._facts is not None):
            encoded |= self._own_fields()
            final = False
        delta = new_delta((encoded, self._deleted, self._cleared))
        self._ready = delta if final else None
        return delta

    def _own_fields(self) -> dict[str, bytes]:
        """Encode what is known of the session beside its data."""
        facts, life = self._facts or Facts(), self._life
        fields = {FACTS: self._sealed(FACTS, self._backend.codec.dumps(facts.written()))}
        if life is not None:
            fields[OWN_LIFE] = self._sealed(OWN_LIFE, self._backend.codec.dumps(life.written()))
        return fields

    def _check_facts(self, facts: Facts) -> None:
        """Raise `ValueRefused` for facts that would be too long to be read again."""
        limit, dumps = self._backend.max_value_size, self._backend.codec.dumps
        size = len(dumps(facts.owner))
        if size <= limit:
            # With what else is known of a login, for which a small limit leaves room.
            limit = max(limit, FACTS_LEAST)
            size = len(dumps(facts.written())) + FACTS_ROOM
        if size > limit:
            raise ValueRefused("owner", f"{size} bytes, and max_value_size is {limit}")

    def _own_due(self) -> dict[str, bytes]:
        return self._own_fields() if self._facts_changed else {}

    def _encoded(self, name: str, value: Any) -> bytes:
        backend = self._backend
        if name[:1] == RESERVED:
            raise ValueRefused(name, "names that begin with NUL are the library's own")
        try:
            size = len(name) if name.isascii() else len(name.encode())
            data = backend.codec.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueRefused(name, str(error)) from error
        if size > NAME_SIZE:
            raise ValueRefused(name, f"its name has {size} bytes, and {NAME_SIZE} are the most")
        if len(data) > backend.max_value_size:
            raise ValueRefused(
                name, f"{len(data)} bytes, and max_value_size is {backend.max_value_size}"
            )
        return data if backend.sealer is None else self._sealed(name, data)

    def _sealed(self, name: str, data: bytes) -> bytes:
        sealer = self._backend.sealer
        if sealer is None:
            return data
        if not self._nonce:
            self._nonce = sealer.new_nonce()
        return sealer.seal(self._nonce, name, data)

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

    def _check_count(self) -> None:
        assert self._values is not None
        limit, count = self._backend.max_keys, len(self._fields.keys() | self._values.keys())
        if count > limit:
            last = next(reversed(self._changed), "")
            raise ValueRefused(last, f"the session would have {count} keys; max_keys is {limit}")

    def _check_size(self, encoded: Mapping[str, bytes]) -> None:
        limit = self._backend.max_size
        size = size_of({**self._fields, **encoded})
        if size > limit:
            largest = max(encoded, key=lambda name: len(encoded[name]))
            raise ValueRefused(largest, f"the session would have {size} bytes; max_size is {limit}")

    def _destroy(self, key: str) -> None:
        """End the record under *key*, and if another request rotated it, its successor."""
        id = self._old or self._id
        store, ids = self._backend.store, self._backend.ids
        moved = store.destroy(key)
        # What is destroyed leads nowhere, so there is no circle.
        for _ in range(self._backend.most_turns):
            if type(moved) is not Moved or id is None:
                return
            id = redeemed(id, moved.ticket)
            try:
                moved = store.destroy(ids.key(id))
            except NotAnId:
                return

    def _is_anothers(self, agent: str) -> bool:
        """Whether the client of the login said that it is another than *agent*."""
        facts = self._facts
        return facts is not None and facts.agent is not None and facts.agent != agent

    def _learn(self, facts: Facts) -> None:
        self._facts, self._facts_changed, self._ready = facts, True, None

    def _live(self, **times: float | None) -> None:
        if self._values is None:
            self._load()
        self._life = (self._life or Life())._replace(**times)
        self._learn(self._facts or Facts())

    # -- compare and set ------------------------------------------------------------------------

    def _change_new(self, change: Callable[[MutableMapping[str, Any]], T]) -> T:
        result = change(self)
        self._mark()
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
        self._stored = fields = _without_own(merge(found.fields, delta))
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
        self._renewed()
        self._touch_due = self._old is not None

    def _notice_changes(self) -> None:
        """Note which containers were changed in place, while what they were is still known."""
        assert self._values is not None
        bases = self._backend.keeps_bases
        for name, value in self._values.items():
            if name in self._changed:
                continue
            if type(value) not in _COMPARED and not (bases and isinstance(value, CONTAINERS)):
                continue
            if self._differs(name, value, self._fields[name]):
                self._changed[name] = None

    def _refuse_plain_http(self) -> NoReturn:
        self._backend.emit("plain http")
        self._refuse(partial(InsecureTransport, "insecure"))
        raise InsecureTransport("insecure")

    def _refuse(self, refusal: Callable[[], Refusal]) -> None:
        self._failed, self._refusal = "refused", refusal

    def _note(self, error: SessionGone | StoreError) -> None:
        """Remember a failure, for when a framework makes its own answer of it."""
        if isinstance(error, SessionGone):
            # Known now, and the application's to handle: the commit must not try again.
            self._failed, self._marked = "gone", False
        else:
            self._failed = "store"
            self._backend.emit("store error", str(error), self._named())

    def _named(self) -> str | None:
        return self._key[:FINGERPRINT_LENGTH] if self._key else None


def fields_of(session: Session, facts: Facts) -> dict[str, bytes]:
    """Return *facts* as they lie in the record of *session*. Raises `ValueRefused` if they are
    longer than may be."""
    session._check_facts(facts)
    session._learn(facts)
    return session._own_fields()


def _most_of(fields: Mapping[str, bytes]) -> int:
    """Return at least what `size_of` does, in less time: UTF-8 has at most four bytes a letter."""
    return 4 * sum(map(len, fields)) + sum(map(len, fields.values()))


def size_of(fields: Mapping[str, bytes]) -> int:
    """Return how many bytes of `max_size` encoded values take, with their names."""
    names = "".join(fields).encode("utf-8", "surrogatepass")
    return len(names) + sum(map(len, fields.values()))


def _without_own(fields: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in fields.items() if name not in OWN}


def _limit(name: str, seconds: float | None) -> float:
    if seconds is None:
        return math.inf
    try:
        limit: float = OPTIONS[name].convert(seconds)
    except ValueError as error:
        raise ConfigError(f"session.{name} {error}, not {seconds!r}") from None
    return limit
