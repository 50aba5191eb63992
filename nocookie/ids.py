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
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final, Protocol

from nocookie.sealing import Keyed, derive

__all__ = ["FINGERPRINT_LENGTH", "GatewayIds", "IdScheme", "Ids", "RandomIds", "SignedIds"]

#: How much of a store key names a session in logs and commands: 40 bits, enough to tell a
#: million sessions apart, far too few to find the id.
FINGERPRINT_LENGTH: Final = 10

ID_BYTES: Final = 32
#: With a secret: 160 random bits and a 96-bit MAC.
RANDOM_BYTES: Final = 20

#: 42 characters of 6 bits leave 4 bits for the last one, so only 16 characters can stand
#: there. Without this rule four texts would decode to one id.
GRAMMAR: Final = r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"

#: The longest text a gateway may bring as an id.
GATEWAY_ID_LENGTH: Final = 256


class IdScheme(Protocol):
    """How ids are made and recognised. `checked` does no I/O and never raises."""

    #: Whether a well-formed id that the store does not know may be used for a new session.
    adopts: bool

    def new(self) -> str:
        """Return an id that nobody could have guessed, or raise OSError: never a weaker one."""
        ...

    def checked(self, text: object) -> str | None:
        """Return why *text* cannot be an id of ours ("malformed", "forged"), or None if it can."""
        ...

    def key(self, id: str) -> str:
        """Return the store key of an id that passed `checked`."""
        ...


class Ids:
    """What the two schemes of our own have in common: the grammar and the store key."""

    adopts = False
    _matches = staticmethod(re.compile(GRAMMAR, re.ASCII).fullmatch)
    _digest = hashlib.blake2b(digest_size=32)

    def key(self, id: str) -> str:
        digest = self._digest.copy()  # cheaper than to set up another
        digest.update(id.encode())
        return digest.hexdigest()


class RandomIds(Ids):
    """Without a secret: 256 random bits."""

    def new(self) -> str:
        return _text(os.urandom(ID_BYTES))

    def checked(self, text: object) -> str | None:
        if type(text) is str and self._matches(text):
            return None
        return "malformed"


class SignedIds(Ids):
    """With a secret: 160 random bits and a MAC. The first secret signs, all of them verify."""

    def __init__(self, secrets: Sequence[str]) -> None:
        size = ID_BYTES - RANDOM_BYTES
        self._macs = [Keyed(derive(s, "nocookie id"), size) for s in secrets]

    def new(self) -> str:
        random = os.urandom(RANDOM_BYTES)
        return _text(random + self._macs[0](random))

    def checked(self, text: object) -> str | None:
        if type(text) is not str or not self._matches(text):
            return "malformed"
        raw = urlsafe_b64decode(text + "=")
        random, mac = raw[:RANDOM_BYTES], raw[RANDOM_BYTES:]
        for expected in self._macs:
            if hmac.compare_digest(expected(random), mac):
                return None
        return "forged"


class GatewayIds:
    """`strict = False`: ids that a gateway issues and its signature vouches for.

    Any text up to 256 characters is an id, known or not. Such ids may be guessable (a phone
    number, a counter), so the store key is keyed: whoever reads the store learns none. They
    cannot be rotated, because the gateway would not hear of it.
    """

    adopts = True

    def __init__(self, id_key: str) -> None:
        self._digest = Keyed(derive(id_key, "nocookie gateway id"), 32)
        self._own = RandomIds()

    def new(self) -> str:
        return self._own.new()

    def checked(self, text: object) -> str | None:
        if type(text) is str and 0 < len(text) <= GATEWAY_ID_LENGTH and text.isprintable():
            return None
        return "malformed"

    def key(self, id: str) -> str:
        return self._digest(id.encode()).hex()


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw)[:43].decode("ascii")
