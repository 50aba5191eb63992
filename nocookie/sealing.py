"""Keys from secrets, and values that only we could have written.

With a secret, a stored value is bound to its field and to its session, so that whoever can
write to the store can neither plant a value nor move one from a session to another:

    the record   seal  = nonce | MAC(record key, nonce | store key)
    each value   value | MAC(value key, nonce | field name | value)

The random nonce is the session's own and stays with it. A rotation changes the store key, so
it re-seals the nonce, and no value is touched. With an encrypt_key, AES-256-GCM (NIST SP
800-38D) takes the place of the second MAC and hides the value as well; field names stay
readable.

What this does not notice, and nothing short of a second store could: a whole record set back
to an earlier state, or one field removed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from nocookie.errors import ConfigError, StoreError

__all__ = ["BadSeal", "Keyed", "Sealer", "derive", "random_bytes"]

#: 128 bits: a forgery succeeds once in 2**128 tries, and each try costs a store trip.
MAC_SIZE: Final = 16
NONCE_SIZE: Final = 16
#: The nonce length that SP 800-38D recommends for GCM.
GCM_NONCE_SIZE: Final = 12
#: Sessions whose ciphers are kept, for their other values and for the next request.
CIPHERS_KEPT: Final = 256


class BadSeal(Exception):
    """Bytes that we did not write, or not here. Never leaves the library."""


def derive(secret: str, purpose: str) -> bytes:
    """Return 32 bytes for one *purpose*, so that one secret can serve several.

    HKDF with SHA-256 (RFC 5869): extract with an empty salt, expand by one block.
    """
    return _expand(hmac.digest(bytes(32), secret.encode(), "sha256"), purpose.encode())


def _expand(prk: bytes, info: bytes) -> bytes:
    return hmac.digest(prk, info + b"\x01", "sha256")


def random_bytes(size: int) -> bytes:
    """Return bytes of the system's generator; never of a weaker one. Raises `StoreError` if it
    has none to give: then there is no new session, as if the store had failed."""
    try:
        return os.urandom(size)
    except (OSError, NotImplementedError) as error:
        raise StoreError("the system has no random bytes to give") from error


class Keyed:
    """Keyed BLAKE2b (RFC 7693), from a state that has swallowed the key already: copying it
    is the cheapest good MAC that Python has (0.4 us against 1.6 for HMAC-SHA256)."""

    __slots__ = ("_state",)

    def __init__(self, key: bytes, size: int) -> None:
        self._state = hashlib.blake2b(key=key, digest_size=size)

    def __call__(self, message: bytes) -> bytes:
        state = self._state.copy()
        state.update(message)
        return state.digest()


class Sealer:
    """Authenticate, and with `encrypt_keys` encrypt. The first of the secrets and the first
    of the keys seal; each of them opens.

    A sealed value starts with the letter of its kind: `m` for a MAC, `e` for encryption. A
    value that is not sealed is refused.
    """

    def __init__(self, secrets: Sequence[str], encrypt_keys: Sequence[str] = ()) -> None:
        self._records = [Keyed(derive(s, "nocookie record"), MAC_SIZE) for s in secrets]
        self._values = [Keyed(derive(s, "nocookie value"), MAC_SIZE) for s in secrets]
        self._value_mac = self._values[0]
        self._encryption_keys = [derive(k, "nocookie encryption") for k in encrypt_keys]
        if encrypt_keys:
            try:
                from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            except ImportError as error:
                raise ConfigError(
                    "encrypt_key needs the package cryptography: pip install nocookie[crypto]"
                ) from error

            def cipher(key: bytes, nonce: bytes) -> AESGCM:
                return AESGCM(_expand(key, b"nocookie session" + nonce))

            #: What encrypts the session with this nonce. To make it takes longer than to use it.
            self._cipher = lru_cache(CIPHERS_KEPT)(cipher)

    def new_nonce(self) -> bytes:
        return random_bytes(NONCE_SIZE)

    def seal_record(self, key: str, nonce: bytes) -> bytes:
        """Bind *nonce*, and with it the session's values, to the store *key*."""
        return nonce + self._records[0](nonce + key.encode())

    def open_record(self, key: str, seal: bytes) -> bytes:
        """Return the nonce, or raise `BadSeal` if this record belongs under another key."""
        nonce, mac = seal[:NONCE_SIZE], seal[NONCE_SIZE:]
        for record_mac in self._records:
            if hmac.compare_digest(record_mac(nonce + key.encode()), mac):
                return nonce
        raise BadSeal("the record is not sealed for this key")

    def seal(self, nonce: bytes, name: str, value: bytes) -> bytes:
        bound = _bound(nonce, name)
        if self._encryption_keys:
            salt = random_bytes(GCM_NONCE_SIZE)
            cipher = self._cipher(self._encryption_keys[0], nonce)
            return b"e" + salt + cipher.encrypt(salt, value, bound)
        return b"m" + self._value_mac(bound + value) + value

    def open(self, nonce: bytes, name: str, sealed: bytes) -> bytes:
        """Return the value, or raise `BadSeal`. There is no fall-back: what does not open
        does not exist (CVE-2026-39324 came from one)."""
        kind, bound = sealed[:1], _bound(nonce, name)
        if kind == b"m":
            mac, value = sealed[1 : 1 + MAC_SIZE], sealed[1 + MAC_SIZE :]
            for value_mac in self._values:
                if hmac.compare_digest(value_mac(bound + value), mac):
                    return value
        elif kind == b"e":
            salt, box = sealed[1 : 1 + GCM_NONCE_SIZE], sealed[1 + GCM_NONCE_SIZE :]
            for key in self._encryption_keys:
                try:
                    return self._cipher(key, nonce).decrypt(salt, box, bound)
                except Exception:  # noqa: S112 - InvalidTag, or too short: the next key
                    continue
        raise BadSeal("the value is not sealed for this field and session")

    def resealed(
        self, before: bytes, after: bytes, fields: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """Return values that were sealed with the nonce *before*, sealed with *after*. Raises
        `BadSeal` if one of them does not open."""
        return {
            name: self.seal(after, name, self.open(before, name, sealed))
            for name, sealed in fields.items()
        }


def _bound(nonce: bytes, name: str) -> bytes:
    """What a value is bound to. The length keeps (name, value) from being cut elsewhere."""
    encoded = name.encode()
    return nonce + len(encoded).to_bytes(4, "big") + encoded
