"""New ids; could we have issued this text?; the key a store sees.

An id is 43 URL-safe characters, the base64 of 32 bytes. Without a secret all 32 are random.
With one, 20 are random and 12 are a MAC over them, so that a forged id is refused without
asking the store. Both keep what OWASP ASVS 5.0 (7.2.3) asks, 128 random bits, with room.

The store never sees an id. It sees BLAKE2b-256 of it, in hex: a listing or a backup of the
store hands out no live session, and a look-up by digest has no timing to measure
(CVE-2019-16782). 160 random bits need no key against guessing, so the digest has none and
secrets can be changed without losing a session.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import struct
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Protocol

from nocookie.sealing import Keyed, derive, random_bytes

__all__ = [
    "FINGERPRINT_LENGTH",
    "GRAMMAR",
    "ID_LENGTH",
    "GatewayIds",
    "IdScheme",
    "NotAnId",
    "RandomIds",
    "SignedIds",
    "redeemed",
    "ticket",
]

#: How much of a store key names a session in logs and commands: 40 bits, enough to tell a
#: million sessions apart, far too few to find the id.
FINGERPRINT_LENGTH: Final = 10

ID_BYTES: Final = 32
#: With a secret: 160 random bits and a 96-bit MAC.
RANDOM_BYTES: Final = 20

#: 42 characters of 6 bits leave 4 bits for the last one, so only 16 characters can stand
#: there. Without this rule four texts would decode to one id.
GRAMMAR: Final = r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"
ID_LENGTH: Final = 43

#: The longest text a gateway may bring as an id.
GATEWAY_ID_LENGTH: Final = 256


#: How many store keys a process remembers. A client sends one id many times within a short
#: while, and to look its key up is ten times cheaper than to check the id and hash it again.
REMEMBERED: Final = 1024


class NotAnId(Exception):
    """A text that we cannot have issued. Never leaves the library."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        #: `malformed` or `forged`.
        self.reason = reason


class IdScheme(Protocol):
    """How ids are made and recognised."""

    #: Whether a well-formed id that the store does not know may be used for a new session.
    adopts: bool
    #: Return the store key of a text, or raise `NotAnId`: nothing of another length or alphabet
    #: goes further. Does no I/O.
    key: Callable[[str], str]
    #: The same for an id that `new` has returned: it need not be checked.
    fresh_key: Callable[[str], str]

    def new(self) -> str:
        """Return an id that nobody could have guessed, or raise `StoreError`: never a
        weaker one."""
        ...


class RandomIds:
    """Without a secret: 256 random bits."""

    adopts = False

    def __init__(self) -> None:
        self.key = _remembered(self._key)
        self.fresh_key: Callable[[str], str] = _store_key

    def new(self) -> str:
        return _text(random_bytes(ID_BYTES))

    def _key(self, text: str) -> str:
        if not _matches(text):
            raise NotAnId("malformed")
        return _store_key(text)


class SignedIds(RandomIds):
    """With a secret: 160 random bits and a MAC. The first secret signs, all of them verify."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__()
        size = ID_BYTES - RANDOM_BYTES
        self._macs = [Keyed(derive(s, "nocookie id"), size) for s in secrets]

    def new(self) -> str:
        random = random_bytes(RANDOM_BYTES)
        return _text(random + self._macs[0](random))

    def _key(self, text: str) -> str:
        key = super()._key(text)
        raw = urlsafe_b64decode(text + "=")
        random, mac = raw[:RANDOM_BYTES], raw[RANDOM_BYTES:]
        for expected in self._macs:
            if hmac.compare_digest(expected(random), mac):
                return key
        raise NotAnId("forged")


class GatewayIds:
    """`strict = False`: ids that a gateway issues and its signature vouches for.

    Any text up to 256 characters is an id, known or not. Such ids may be guessable (a phone
    number, a counter), so the store key is keyed: whoever reads the store learns none. They
    cannot be rotated, because the gateway would not hear of it.
    """

    adopts = True

    def __init__(self, id_key: str) -> None:
        self._digest = Keyed(derive(id_key, "nocookie gateway id"), 32)
        self.key = self.fresh_key = _remembered(self._key)

    def new(self) -> str:
        return _text(random_bytes(ID_BYTES))

    def _key(self, text: str) -> str:
        if 0 < len(text) <= GATEWAY_ID_LENGTH and text.isprintable():
            return self._digest(text.encode()).hex()
        raise NotAnId("malformed")


# -- from an old id to the new one ---------------------------------------------------------------
#
# A rotation may leave a trail in the store: a ticket, from which whoever has the old id learns the
# new one. The store has no id, and must not learn any. So the new id is hidden by as many bytes
# that follow from the old one and from nothing else; each id is rotated once, so these are used
# once (a one-time pad), and they are no part of the store key, which is another function of it.

_PAD_PURPOSE: Final = b"nocookie ticket"


#: Behind the id: until when a ticket is good for a request that begins. One of an earlier version
#: ends with its trail.
_UNTIL: Final = struct.Struct(">d")


def ticket(old: str, new: str, until: float) -> bytes:
    """Return what leads from the id *old* to the id *new*: a request that begins, before the time
    *until*; one that was under way at the rotation, as long as there is a trail."""
    return _xor(_pad(old), urlsafe_b64decode(new + "=")) + _UNTIL.pack(until)


def redeemed(old: str, ticket: bytes, now: float = -math.inf) -> str:
    """Return the id that a ticket leads to a request that begins *now*, or that was under way. It
    may be no id, if the ticket is none of ours, or too old."""
    if len(ticket) == ID_BYTES + _UNTIL.size:
        (until,) = _UNTIL.unpack_from(ticket, ID_BYTES)
        ticket = ticket[:ID_BYTES] if now < until else b""
    return _text(_xor(_pad(old), ticket)) if len(ticket) == ID_BYTES else ""


def _pad(id: str) -> bytes:
    return hashlib.blake2b(id.encode(), digest_size=ID_BYTES, person=_PAD_PURPOSE).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    both = int.from_bytes(one, "big") ^ int.from_bytes(other, "big")
    return both.to_bytes(ID_BYTES, "big")


def _store_key(id: str) -> str:
    return hashlib.blake2b(id.encode(), digest_size=32).hexdigest()


_matches: Final = re.compile(GRAMMAR, re.ASCII).fullmatch


def _remembered(key: Callable[[str], str]) -> Callable[[str], str]:
    # What is no id raises, and what raises is not remembered.
    return lru_cache(REMEMBERED)(key)


_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def _text(raw: bytes) -> str:
    return b2a_base64(raw).translate(_URL_SAFE)[:43].decode("ascii")
