"""Sessions as text: sealed, so that clients can keep them and neither read nor change them.

    base64url(nonce | AES-256-GCM(created | accessed | id | fields))

The key comes from a secret. The newest of several seals, each of them opens. A token is bound to
the application that it is for, so that another with the same secret does not open it.
"""

from __future__ import annotations

import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from nocookie.errors import ConfigError
from nocookie.ids import ID_BYTES, NotAnId, RandomIds
from nocookie.sealing import derive, random_bytes
from nocookie.stores.base import Missing, Record, pack, unpack

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["TOKEN_LIMIT", "Nowhere", "Tokens"]

#: Characters that a token may have. Browsers drop a cookie of more than 4096 bytes, its name and
#: attributes included (RFC 6265, 6.1); this leaves them some room.
TOKEN_LIMIT: Final = 3800

_GCM_NONCE_SIZE: Final = 12
_GCM_TAG_SIZE: Final = 16
_PURPOSE: Final = "nocookie token 2"
_TIMES: Final = struct.Struct(">dd")

#: Characters of a token without fields. An id is shorter.
SHORTEST: Final = 100

_is_text: Final = re.compile(rf"[A-Za-z0-9_-]{{{SHORTEST},{TOKEN_LIMIT}}}", re.ASCII).fullmatch


class Tokens:
    """An id scheme: what a client presents is its whole session, and opens or is forged.

    *cookie* is the name of the cookie that it is in, if it is in one, and *prefix* the option
    `key_prefix`: an application with another of these does not open it.

    Raises `ConfigError` if the package cryptography is missing.
    """

    adopts = False

    def __init__(self, secrets: Sequence[str], cookie: str = "", prefix: str = "") -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ConfigError(
                "type = cookie needs the package cryptography: pip install nocookie[crypto]"
            ) from error
        self._ciphers: list[AESGCM] = [AESGCM(derive(s, "nocookie token")) for s in secrets]
        # The name of a cookie has no NUL in it, so this can be read in one way.
        self._bound = "\0".join((_PURPOSE, cookie, prefix)).encode()
        self._ids = RandomIds()
        self.key: Callable[[str], str] = self._key
        self.fresh_key: Callable[[str], str] = self._ids.fresh_key

    def new(self) -> str:
        return self._ids.new()

    def _key(self, text: str) -> str:
        # An id names a session in logs; a token is what opens one.
        return self._ids.key(text if len(text) < SHORTEST else self.open(text)[0])

    def seal(self, id: str, created: float, accessed: float, fields: Mapping[str, bytes]) -> str:
        nonce = random_bytes(_GCM_NONCE_SIZE)
        plain = _TIMES.pack(created, accessed) + urlsafe_b64decode(id + "=") + pack(fields)
        sealed = nonce + self._ciphers[0].encrypt(nonce, plain, self._bound)
        return urlsafe_b64encode(sealed).decode("ascii").rstrip("=")

    def length(self, fields: Mapping[str, bytes]) -> int:
        """Return how many characters the token of *fields* has."""
        size = _GCM_NONCE_SIZE + _TIMES.size + ID_BYTES + len(pack(fields)) + _GCM_TAG_SIZE
        return -(-size * 4 // 3)

    def newer(self, text: str, other: str) -> str:
        """Return that of two tokens which was made later."""
        return max(other, text, key=lambda token: self.open(token)[1].accessed)

    def open(self, text: str) -> tuple[str, Record]:
        """Return the id and the record in a token. Raises `NotAnId`."""
        if _is_text(text) is None:
            raise NotAnId("malformed")
        try:
            sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            raise NotAnId("malformed") from None
        nonce, box = sealed[:_GCM_NONCE_SIZE], sealed[_GCM_NONCE_SIZE:]
        for cipher in self._ciphers:
            try:
                plain = cipher.decrypt(nonce, box, self._bound)
            except Exception:  # noqa: S112 - InvalidTag: the next key
                continue
            created, accessed = _TIMES.unpack_from(plain)
            at = _TIMES.size + ID_BYTES
            id = urlsafe_b64encode(plain[_TIMES.size : at]).decode("ascii").rstrip("=")
            return id, Record(unpack(plain[at:]), created, accessed, 0.0, 0)
        raise NotAnId("forged")


class Nowhere:
    """The store of sessions that clients keep: nothing is asked of it."""

    shared = True

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"sessions of type = cookie are in no store, so there is no {name}")

    def load(self, key: str) -> Missing:
        return Missing.UNKNOWN

    def close(self) -> None:
        """Nothing to release."""
