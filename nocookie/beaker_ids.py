"""Ids that Beaker issued, for as long as clients still come with them.

`nocookie import` puts Beaker's sessions into the store under the ids that their clients have. With
the option `beaker_ids_until` such an id is recognised here, until then and only if the import
wrote a record for it: nothing else ever writes a record under one, so none can be planted. The
session that it opens is given an id of ours at once, and the old one dies with the commit.

A client that comes with such an id leaves a mark in the store. A session that has been taken over,
moved on or ended here since is so never imported a second time.

Beaker's ids are `uuid4().hex`, 122 random bits. Without cookies clients hold just that. Its cookies
have, with a secret, an HMAC-SHA1 in front: 40 hexadecimal digits. Who says that secret says that
no id counts without it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final

from nocookie.ids import IdScheme, NotAnId

__all__ = [
    *("BeakerIds", "is_beaker_id", "is_older_id", "is_store_key", "mark_key", "mark_of"),
    *("store_key", "unsigned"),
]

#: RFC 9562, section 5.4: the version is 4, the variant is one of four digits.
_UUID4: Final = r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}"

#: Hexadecimal digits of a key by which it is known for one of the import's: a later run finds what
#: an earlier one has put there, and reads no other record for that.
CHECK_LENGTH: Final = 16

_matches: Final = re.compile(_UUID4, re.ASCII).fullmatch
_is_md5: Final = re.compile(r"[0-9a-f]{32}", re.ASCII).fullmatch
_signed: Final = re.compile(rf"([0-9a-f]{{40}})({_UUID4})", re.ASCII).fullmatch


def is_beaker_id(text: str) -> bool:
    """Whether Beaker can have made this id; it took others too, from whoever came with them."""
    return _matches(text) is not None


def is_older_id(text: str) -> bool:
    """Whether Beaker before 1.6 can have made this id: an MD5 of things that can be guessed."""
    return _is_md5(text) is not None and not is_beaker_id(text)


def store_key(id: str) -> str:
    """Return where the import puts the session with this id of Beaker's."""
    return _checked(_digest(id, b"Beaker id")[:-CHECK_LENGTH])


def is_store_key(key: str) -> bool:
    """Whether `store_key` made this key. That of another session looks so once in 2**64."""
    return key == _checked(key[:-CHECK_LENGTH])


def mark_key(id: str) -> str:
    """Return where it is marked that a client came with this id."""
    return mark_of(store_key(id))


def mark_of(key: str) -> str:
    """Return the same for a session that the import put under this key."""
    return _digest(key, b"Beaker id used")


def _checked(beginning: str) -> str:
    return beginning + _digest(beginning, b"Beaker id key")[:CHECK_LENGTH]


def _digest(id: str, purpose: bytes) -> str:
    return hashlib.blake2b(id.encode(), digest_size=32, person=purpose).hexdigest()


class BeakerIds:
    """An id scheme: *ours*, and until the time *until* what Beaker issued."""

    adopts = False

    def __init__(self, ours: IdScheme, until: float, clock: Callable[[], float]) -> None:
        self.until = until
        self.new: Callable[[], str] = ours.new
        self.key: Callable[[str], str] = self._key
        self.fresh_key: Callable[[str], str] = ours.fresh_key
        self._ours = ours.key
        self._clock = clock

    def _key(self, text: str) -> str:
        try:
            return self._ours(text)
        except NotAnId as error:
            if error.reason == "malformed" and is_beaker_id(text) and self._clock() < self.until:
                return store_key(text)
            raise


def unsigned(secret: str) -> Callable[[str], str]:
    """Return what takes an id of Beaker's out of its signature, and leaves any other text.

    What it returns raises `NotAnId` if the signature is missing or wrong, wherever the id came:
    Beaker would not have taken that in its cookie, and a signature that may be left out proves
    nothing.
    """
    key = secret.encode()

    def checked(text: str) -> str:
        if is_beaker_id(text):
            raise NotAnId("forged")
        found = _signed(text)
        if found is None:
            return text  # ours, or nothing
        signature, id = found.groups()
        if not hmac.compare_digest(hmac.new(key, id.encode(), "sha1").hexdigest(), signature):
            raise NotAnId("forged")
        return id

    return checked
