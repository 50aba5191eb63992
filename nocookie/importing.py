"""Sessions of Beaker's, moved into a store of ours.

Each goes under a key made of the id that its client has (`nocookie.beaker_ids`), with its times: it
ends when it would have ended. Nothing in Beaker's store is changed.

The import may be interrupted, and run again:

* What a client has come with since is marked, and left alone: it is ours now, moved or ended.
* What nobody has come with is overwritten if Beaker was used with it later than what is here. So a
  first run beside a Beaker that still serves, and a second one after it has stopped, lose nothing.
* What nobody has come with, and Beaker has ended or emptied since, is ended here too: else a logout
  between two runs would be undone.
* All else is there already.

What an earlier run has put here is known by its key (`nocookie.beaker_ids`), and whether it came
from this store of Beaker's by one of its facts. So a run against another store, or against one that
was emptied, ends nothing.

A session is taken over as a whole or not at all: one with a value that cannot be stored stays where
it is, and is reported, unless what cannot be stored is to be left out.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from nocookie.backend import Backend
from nocookie.beaker_bounds import Unreadable
from nocookie.beaker_ids import is_beaker_id, is_older_id, is_store_key, mark_of, store_key
from nocookie.beaker_stores import BeakerStore, Kept
from nocookie.codecs import Undecodable
from nocookie.errors import ConfigError, SessionGone, ValueRefused
from nocookie.facts import FACTS, Facts
from nocookie.ids import FINGERPRINT_LENGTH
from nocookie.sealing import BadSeal
from nocookie.sessions import Session, fields_of, size_of
from nocookie.stores import store_class
from nocookie.stores.base import (
    Delta,
    KeyTaken,
    Listable,
    Missing,
    Record,
    VersionChanged,
    new_record,
)

__all__ = ["Importer", "Outcome"]

#: What Beaker keeps among the data.
_CREATED, _ACCESSED = "_creation_time", "_accessed_time"
_COOKIE: Final = ("_domain", "_path")

#: What Beaker itself has ended.
_ENDED: Final = ("other", "empty", "expired")

#: Times are stored as they are, or in a database's number: nearer than this is the same.
SAME: Final = 0.001

#: Bytes that tell one store of Beaker's from another.
PLACE_SIZE: Final = 8
#: Seconds that a session which is being ended is still there for, empty.
_EMPTY_FOR: Final = 1.0


class Outcome(NamedTuple):
    """What became of one session."""

    #: `imported`, `there` (already), `taken` (a client came with it already), `expired` (in
    #: Beaker), `unused` (beyond timeout), `old` (beyond lifetime), `empty`, `other` (no session
    #: under an id of Beaker's), `older` (under an id that can be guessed, as Beaker before 1.6 made
    #: them), `refused` (values cannot be stored), `unreadable`; of what an earlier run imported and
    #: Beaker has no more: `ended`, `elsewhere` (from another store of Beaker's), `left` (Beaker's
    #: store is empty).
    kind: str
    #: How the session is named in listings.
    fingerprint: str = ""
    #: A sentence for each value that cannot be stored, or why it cannot be read.
    why: tuple[str, ...] = ()


class _Values(NamedTuple):
    """What is read of Beaker's record."""

    data: dict[Any, Any]
    created: float
    accessed: float


class Importer:
    """Moves sessions from *source* to the store that *settings*, resolved options, name.

    *decode* reads a session's text (`nocookie.beaker_stores.decoder`); *timeout* is Beaker's, in
    seconds. With *from_last_use* the lifetime of a session counts from its last use, not from its
    beginning. With *partly*, values that cannot be stored are left out; the session goes over
    without them. With *dry_run* nothing is written. Under *owner_key* the application has noted
    whose session it is: that is its owner here, as after `session.login(owner)`.

    Raises `ConfigError` if the settings are not those of an application that will recognise what is
    imported.
    """

    def __init__(
        self,
        source: BeakerStore,
        decode: Callable[[Kept], dict[Any, Any]],
        settings: Mapping[str, Any],
        *,
        timeout: float | None = None,
        from_last_use: bool = False,
        partly: bool = False,
        dry_run: bool = False,
        owner_key: str | None = None,
    ) -> None:
        if settings["beaker_ids_until"] is None:
            raise ConfigError(
                "the application that takes over needs beaker_ids_until, a date: until then it "
                "recognises the ids that clients have from Beaker. Set it first, then import"
            )
        self._source = source
        self._decode = decode
        self._now: Callable[[], float] = settings["clock"]
        self._at: float | None = None
        #: With a clock that can be put back: a store notes when a record is written as its last
        #: use, and that was when Beaker's client came.
        self.backend = Backend({**settings, "clock": self._clock})
        self._can_put_back = "clock" in _parameters(settings["type"] or "file")
        if not self.backend.store.shared:
            raise ConfigError(
                "the store that takes over is the memory of a process: this one's would end with it"
            )
        #: What the facts of an imported session say of where it is from.
        self._place = hashlib.blake2b(source.place.encode(), digest_size=PLACE_SIZE).hexdigest()
        self._timeout = math.inf if timeout is None else timeout
        self._from_last_use = from_last_use
        self._partly = partly
        self._dry_run = dry_run
        self._owner_key = owner_key

    def __call__(self, ids: list[str]) -> Iterator[Outcome]:
        """Import what the source has under *ids*; yield what became of each. Raises
        `StoreError`; what was imported by then is, and another run goes on."""
        for id in ids:
            if not is_beaker_id(id):
                yield Outcome("older" if self._is_older(id) else "other")
                continue
            fingerprint = store_key(id)[:FINGERPRINT_LENGTH]
            try:
                kind, *why = self._import(id)
            except Unreadable as error:
                kind, why = "unreadable", [str(error)]
            yield Outcome(kind, fingerprint, tuple(why))

    def _is_older(self, id: str) -> bool:
        if not is_older_id(id):
            return False
        try:
            return self._source.read(id) is not None
        except Unreadable:
            return True

    @property
    def finds_ended(self) -> bool:
        """Whether `ended` can find anything: both stores have to list all that they hold."""
        return self._source.lists_all and isinstance(self.backend.store, Listable)

    def ended(self, ids: list[str]) -> Iterator[Outcome]:
        """End what an earlier run imported from this source and is not among *ids*, all that Beaker
        has now, unless its client came. Yield what became of each, and nothing where one of the
        stores cannot list all that it holds. Raises `StoreError`; another run goes on."""
        store = self.backend.store
        if not isinstance(store, Listable) or not self._source.lists_all:
            return
        there = {store_key(id) for id in ids if is_beaker_id(id)}
        keys = store.keys()
        for key in keys:
            if is_store_key(key) and key not in there:
                # A store that is empty is more often a wrong or a cleared one.
                kind = self._end(key, is_listed=False, only_look=not ids)
                if kind:
                    yield Outcome(
                        "left" if kind == "ended" and not ids else kind, key[:FINGERPRINT_LENGTH]
                    )

    def _end(self, key: str, is_listed: bool, only_look: bool = False) -> str:
        """End what was imported under *key*, if its client has not come; return what became of it,
        nothing if it is not there."""
        store = self.backend.store
        found = store.load(key)
        if not isinstance(found, Record):
            return ""
        if isinstance(store.load(mark_of(key)), Record):
            return "taken"
        if not is_listed and self._origin(key, found) != self._place:
            return "elsewhere"
        if not (self._dry_run or only_look):
            try:
                # Its client may come in this moment. Then it moves what is empty.
                store.save(key, Delta(cleared=True), _EMPTY_FOR, found.version)
            except (VersionChanged, SessionGone):
                return "taken"
            store.destroy(key)
        return "ended"

    def _origin(self, key: str, found: Record) -> str | None:
        """Return what the record says of where it was imported from; None if that is not to be
        read."""
        sealer = self.backend.sealer
        try:
            data = found.fields[FACTS]
            if sealer is not None:
                data = sealer.open(sealer.open_record(key, found.seal), FACTS, data)
            return Facts.read(self.backend.codec.loads(data)).imported
        except (BadSeal, Undecodable, KeyError, TypeError, ValueError):
            return None

    def _import(self, id: str) -> tuple[str, ...]:
        """Return a kind of outcome, and sentences for it."""
        text = self._source.read(id)
        key = store_key(id)
        # Beaker leaves the place of what it has ended, with nothing in it.
        values = None if text is None else self._read(text)
        over = "other" if values is None else self._is_over(values)
        if values is None or over:
            is_ended = over in _ENDED and self._end(key, is_listed=True) == "ended"
            return ("ended" if is_ended else over,)
        store = self.backend.store
        if isinstance(store.load(mark_of(key)), Record):
            return ("taken",)
        found = store.load(key)
        if found is Missing.CORRUPTED:
            return ("refused", "there is a record in its place that cannot be read")
        before = found if isinstance(found, Record) else None
        if before is not None and before.accessed > values.accessed - SAME:
            return ("there",)
        session = Session._of(self.backend, (), None)
        if before is not None and self.backend.sealer is not None:
            try:
                session._nonce = self.backend.sealer.open_record(key, before.seal)
            except BadSeal:
                return ("refused", "it is there already, imported with another secret")
        fields, refused = self._encoded(session, values.data)
        if refused and not (self._partly and fields):
            return ("refused", *refused)
        owner = self._owner(values.data)
        try:
            fields |= fields_of(session, Facts(owner, imported=self._place))
        except ValueRefused as error:
            return ("refused", str(error))
        written = (session, key, fields, values, before, owner)
        if not self._dry_run and not self._write(*written):
            return ("taken",)
        return ("imported", *refused)

    def _owner(self, data: Mapping[Any, Any]) -> str | None:
        """Return whose session it is, as far as Beaker's application has noted it."""
        owner = data.get(self._owner_key) if self._owner_key is not None else None
        is_name = isinstance(owner, (str, int)) and not isinstance(owner, bool)
        return str(owner) if is_name and owner != "" else None

    def _read(self, text: Kept) -> _Values:
        data = self._decode(text)
        accessed, created = (_time(data.pop(name, None)) for name in (_ACCESSED, _CREATED))
        for name in _COOKIE:
            data.pop(name, None)
        now = self._now()
        # No clock of another host makes a session live longer.
        accessed = min(now, accessed or created or now)
        created = min(accessed, created or accessed)
        return _Values(data, accessed if self._from_last_use else created, accessed)

    def _is_over(self, values: _Values) -> str:
        """Return the kind of outcome of what is not to be imported; nothing if it is."""
        now, backend = self._now(), self.backend
        if not values.data:
            return "empty"
        if now - values.accessed > self._timeout:
            return "expired"
        if now >= values.accessed + backend.timeout:
            return "unused"
        if now >= values.created + backend.lifetime:
            return "old"
        return ""

    def _encoded(
        self, session: Session, data: dict[Any, Any]
    ) -> tuple[dict[str, bytes], list[str]]:
        """Return what can be stored, and a sentence for each value that cannot."""
        fields: dict[str, bytes] = {}
        refused = []
        for name, value in data.items():
            try:
                if type(name) is not str:
                    raise ValueRefused(str(name), f"keys are text, not {type(name).__name__}")
                fields[name] = session._encoded(name, value)
            except ValueRefused as error:
                refused.append(str(error))
        size, limit = size_of(fields), self.backend.max_size
        if size > limit:
            refused.append(f"the session would have {size} bytes; max_size is {limit}")
            fields = {}
        count, most = len(fields), self.backend.max_keys
        if count > most:
            refused.append(f"the session would have {count} keys; max_keys is {most}")
            fields = {}
        return fields, refused

    def _write(
        self,
        session: Session,
        key: str,
        fields: dict[str, bytes],
        values: _Values,
        before: Record | None,
        owner: str | None,
    ) -> bool:
        """Write, and return whether nobody came first: another import, or its client."""
        backend, accessed = self.backend, values.accessed
        ends = min(accessed + backend.timeout, values.created + backend.lifetime)
        if self._can_put_back:
            self._at = accessed
        ttl = ends - self._clock()
        try:
            if before is not None:
                backend.store.save(key, Delta(fields, cleared=True), ttl, before.version)
                return True
            seal = session._new_seal(key, session._nonce)
            record = new_record((fields, values.created, accessed, ends, 1, seal))
            # One that expired since an earlier run looks alive to a clock that is put back.
            there = backend.store.load(key)
            further: dict[str, Any] = {}
            if owner is not None:
                further["owner"] = backend.owner_tags(owner)[0]
            if isinstance(there, Record):
                further["instead_of"] = there
            backend.store.create(key, record, ttl, **further)
        except (KeyTaken, VersionChanged, SessionGone):
            return False
        finally:
            self._at = None
        return True

    def _clock(self) -> float:
        return self._now() if self._at is None else self._at


def _parameters(type: Any) -> Collection[str]:
    """What a store of this type is made with; of a store object that is over."""
    return inspect.signature(store_class(type)).parameters if isinstance(type, str) else ()


def _time(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    return None
