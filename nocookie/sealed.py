"""`type = cookie`: a session that its client keeps.

There is no record on the server, and so no promise that needs one. Two responses that cross lose
one another's changes; an end is a request to the client to forget, and a copy that somebody kept
opens until its time is over. docs/cookie-sessions.md says when that is good enough.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TypeVar

from nocookie.errors import NoSession, ValueRefused
from nocookie.ids import NotAnId
from nocookie.sessions import Session
from nocookie.stores.base import Delta, merge
from nocookie.tokens import TOKEN_LIMIT, Tokens

__all__ = ["SealedSession"]

T = TypeVar("T")


class SealedSession(Session):
    """A session in a token. What the client carries changes with every save."""

    #: The token that the client is to be given.
    _token: str | None = None

    @property
    def _tokens(self) -> Tokens:
        tokens = self._backend.tokens
        assert tokens is not None
        return tokens

    @property
    def _carried(self) -> str:
        assert self._token is not None
        return self._token

    @property
    def must_propagate(self) -> bool:
        if self._values is None:
            self._look()
        return self._token is not None or self._will_be_stored()

    def _load(self) -> None:
        if self._needed is not None:
            raise NoSession(self._needed)
        why: str | None = None
        for text, key, carrier in self._presented:
            try:
                id, record = self._tokens.open(text)
            except NotAnId as error:
                why = why or error.reason
                continue
            outcome = self._accept(id, key, record)
            if outcome is None and self._has_rival(text, carrier):
                why = "ambiguous"
                break
            if outcome is None:
                # The text, so that a token made anew is never taken for it.
                self._given, self._brought_by = text, carrier
                self._is_new = False if self._is_new is None else self._is_new
                return
            why = why or outcome
            self._backend.emit(outcome, "", self._backend.fingerprint(id))
        self._be_new(why or self._reason or "absent")

    def load(self) -> None:
        """Drop what was not saved. There is nothing newer to read: the client brought it all."""
        self.revert()

    def _checked_delta(self) -> Delta:
        delta = super()._checked_delta()
        if delta.set:
            length = self._tokens.length(self._whole(delta))
            if length > TOKEN_LIMIT:
                self._ready = None
                largest = max(delta.set, key=lambda name: len(delta.set[name]))
                raise ValueRefused(
                    largest,
                    f"the session would be a text of {length} characters, and a cookie holds "
                    f"{TOKEN_LIMIT}",
                )
        return delta

    def _whole(self, delta: Delta) -> dict[str, bytes]:
        fields = merge(self._stored, delta)
        return fields if self._facts is None else {**fields, **self._own_fields()}

    def _write(self, delta: Delta) -> None:
        fields = self._whole(delta)
        if self._key is None and (not fields or self._passive):
            return
        if self._insecure:
            self._refuse_plain_http()
        # Before it is given to the client: a listener may refuse that.
        id, name = self.id, self._backend.fingerprint(self.id)
        if self._key is None:
            self._backend.emit("created", "", name)
        if self._owner is not None:
            self._backend.emit("login", "", name)
        now = self._backend.clock()
        if self._created is None or self._owner is not None:
            self._created = now
        self._ttl()  # raises where its lifetime is over
        self._token = self._tokens.seal(id, self._created, now, fields)
        self._key = self._backend.ids.key(id)
        self._old = None
        self._begin_owned()
        self._settle(delta)

    def _touch(self) -> None:
        if not self._passive:
            self._life = self._stored_life
            self._write(Delta())

    def delete(self) -> None:
        """Have the client forget the session. A copy of what it sent opens until its time is
        over: with `type = cookie` there is nobody to ask whether it was ended."""
        if self._values is None:
            self._look()
        if self._key is not None:
            self._backend.emit("ended", "", self._named())
            self._ended = True
        self._token = None
        self._detach("destroyed")

    invalidate = delete

    def mutate(self, change: Callable[[MutableMapping[str, T]], T]) -> T:
        """Change the session, to be saved at the commit. Of two requests at once one loses."""
        return self._change_new(change)
