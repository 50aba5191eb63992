"""What sessions are made of: the opened store, the id scheme, the codec, the lifetimes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from nocookie.beaker_ids import BeakerIds
from nocookie.codecs import JsonCodec, PickleCodec
from nocookie.errors import NocookieError
from nocookie.events import Events
from nocookie.ids import FINGERPRINT_LENGTH, GatewayIds, IdScheme, NotAnId, RandomIds, SignedIds
from nocookie.options import MOST_TURNS, OPTIONS
from nocookie.sealing import Keyed, Sealer, derive
from nocookie.stores import open_store
from nocookie.stores.base import Missing, Moved, Record, Renewing, Store
from nocookie.tokens import Nowhere, Tokens

__all__ = ["Backend", "Presented"]

#: The ids of a client that could be ours, each with its store key and the carrier that brought
#: it, the strongest first.
Presented = tuple[tuple[str, str, Any], ...]

#: A touch is due when the last one is older than this many seconds, or than a twentieth of the
#: idle timeout: the session may then end up to 5 % early, and reads stay reads.
TOUCH_EVERY: Final = 60.0
TOUCH_SHARE: Final = 20


#: How much further than ours another host's clock may be, in seconds.
CLOCK_SKEW: Final = 120.0

#: Bytes by which a store knows an owner.
_OWNER_SIZE: Final = 32
_OWNER_PURPOSE: Final = "nocookie owner"

#: More than a seal adds to a value.
SEAL_ROOM: Final = 100


class Backend:
    """One application's options, made into the parts that its sessions work with.

    *cookie* is the name of the cookie that brings its ids, if one does.
    """

    def __init__(self, settings: Mapping[str, Any], cookie: str = "") -> None:
        secrets = settings["secret"]
        self.clock: Callable[[], float] = settings["clock"]
        self.timeout: float = settings["timeout"] or math.inf
        self.lifetime: float = settings["lifetime"] or math.inf
        self.request_limit: float = settings["request_limit"]
        self.renew_after = self.touch_after = min(TOUCH_EVERY, self.timeout / TOUCH_SHARE)
        self.auto: bool = settings["auto"]
        self.max_size: int = settings["max_size"]
        self.max_value_size: int = settings["max_value_size"]
        self.max_keys: int = settings["max_keys"]
        self.needs_session: bool = settings["on_unknown"] == "error"
        self.rotate_every: float = settings["rotate_every"] or math.inf
        self.grace: float = settings["rotation_grace"]
        #: How many trails may lie one behind the other: as many rotations as a request may see.
        self.most_turns = MOST_TURNS + 2 + math.ceil(self.request_limit / self.rotate_every)
        self.events = Events(settings["on_event"])
        self.emit = self.events.emit
        #: What is larger is not even looked at: somebody else wrote it. Not less than the default,
        #: so that lowering the option loses no session.
        self.decode_limit = max(self.max_value_size, OPTIONS["max_value_size"].default) + SEAL_ROOM
        #: Whether values of subclasses are kept as their plain types.
        self.keeps_bases: bool = settings["values"] == "base"
        pickles = settings["data_serializer"] == "pickle"
        self.codec = PickleCodec() if pickles else JsonCodec(base=self.keeps_bases)
        self.sealer = Sealer(secrets, settings["encrypt_key"] or ()) if secrets else None
        #: What makes of an owner's name what the store knows it by; the newest first. Names can be
        #: guessed, so with a secret it needs that to do so.
        self._owner_keys = [Keyed(derive(s, _OWNER_PURPOSE), _OWNER_SIZE) for s in secrets or ()]
        self._owner_keys = self._owner_keys or [Keyed(_OWNER_PURPOSE.encode(), _OWNER_SIZE)]
        self.ids: IdScheme
        #: What seals whole sessions, where the client keeps them: `type = cookie`.
        self.tokens: Tokens | None = None
        type = settings["type"] or ("file" if settings["data_dir"] else "memory")
        if type == "cookie":
            self.tokens = self.ids = Tokens(
                settings["encrypt_key"] or secrets, cookie, settings["key_prefix"]
            )
            self.sealer = None  # a token is sealed as a whole
            self.store: Store = Nowhere()
        else:
            if not settings["strict"]:
                self.ids = GatewayIds(settings["id_key"])
            else:
                self.ids = SignedIds(secrets) if secrets else RandomIds()
            self.store = open_store(type, settings) if isinstance(type, str) else type
        #: The same scheme as `ids` where Beaker's are recognised too.
        self.beaker_ids: BeakerIds | None = None
        if settings["beaker_ids_until"] is not None:
            until = settings["beaker_ids_until"].timestamp()
            self.ids = self.beaker_ids = BeakerIds(self.ids, until, self.clock)
        #: Whether ids change though nobody asked for that.
        self.leaves_trails = self.rotate_every != math.inf or self.beaker_ids is not None
        #: How a request reads a record: with the touch that is due, where one trip can do both.
        self.load: Callable[[str], Record | Missing | Moved] = self.store.load
        if isinstance(self.store, Renewing):
            self.load = partial(
                self.store.load_and_touch,
                idle=self.timeout,
                further=self.request_limit,
                lifetime=self.lifetime,
                after=self.touch_after,
            )
            self.touch_after = math.inf
        #: How it is read where it is not to be renewed.
        self.peek: Callable[[str], Record | Missing | Moved] = self.store.load

    def owner_tags(self, owner: str) -> list[bytes]:
        """Return what the store may know this owner by: the first is what it is told now, the
        others what it was told with older secrets."""
        try:
            name = owner.encode()
        except UnicodeEncodeError:
            raise NocookieError("the name of an owner is text that UTF-8 can encode") from None
        return [key(name) for key in self._owner_keys]

    def presented(self, text: object) -> tuple[Presented, str]:
        """Check one text, however it came; return it, and why it is none of ours if it is not."""
        if text is None:
            return (), "absent"
        if not isinstance(text, str):
            return (), "malformed"
        try:
            return ((text, self.ids.key(text), None),), ""
        except NotAnId as error:
            return (), error.reason

    def fingerprint(self, id: str) -> str:
        return self.ids.key(id)[:FINGERPRINT_LENGTH]
