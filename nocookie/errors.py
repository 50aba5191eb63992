"""What can go wrong, and whose fault it was.

::

    NocookieError
    ├── ConfigError (ValueError)             you: an option is wrong; raised at construction
    ├── UnboundSessionError (RuntimeError)   you: the session was used outside a request
    ├── ValueRefused (ValueError)            you: the session cannot hold this value
    ├── IdLeak                               you: an id was about to leave (leak_guard = raise)
    ├── StoreError                           the store: down, slow, full, forbidden (503)
    │   └── StoreTimeout                     ... or not back within the deadline (503)
    ├── SessionConflict                      other requests: they won the race (409)
    │   └── SessionGone                      ... or the session has ended meanwhile (409)
    └── Refusal                              the client: it is told what was wrong
        ├── NoSession                        ... it needs a session, and has none (400, 404)
        ├── InsecureTransport                ... it came by plain HTTP (403)
        └── TooManyTries                     ... it came too often (429)

A bad id from a client is not here: it is never an exception, it is a new session with a
`reason`, unless the application asked for an answer instead (`on_unknown = error`). No message
of ours holds an id; where one session must be named, its fingerprint stands in.
"""

from typing import Final

__all__ = [
    "ConfigError",
    "IdLeak",
    "InsecureTransport",
    "NoSession",
    "NocookieError",
    "Refusal",
    "SessionConflict",
    "SessionGone",
    "StoreError",
    "StoreTimeout",
    "TooManyTries",
    "UnboundSessionError",
    "ValueRefused",
]

#: Characters of a session key that a message repeats: a client may have made it.
_SHOWN: Final = 80


class NocookieError(Exception):
    """The root: catch this to catch everything the library raises on purpose."""


class ConfigError(NocookieError, ValueError):
    """An option is unknown, has a wrong value, or needs something that is not installed."""


class UnboundSessionError(NocookieError, RuntimeError):
    """`nocookie.session` was used where no request is being served."""


class ValueRefused(NocookieError, ValueError):
    """A session cannot hold this value: its type, its depth, its size, or that of its name.

    Raised by `save()`, inside the handler, before anything is written; and out of the middleware
    for what is still in the session at the end of a request that is to save it: with `auto`, or
    after `login()`, `regenerate_id()` or an earlier `save()`. `revert()` takes it back.
    """

    #: The session key the value was found under.
    key: str

    def __init__(self, key: str, why: str) -> None:
        shown = key if len(key) <= _SHOWN else f"{key[:_SHOWN]}..."
        super().__init__(f"session[{shown!r}]: {why}")
        self.key = key


class IdLeak(NocookieError):
    """A response was about to give a live id to another origin, to a public cache, or in a
    header where none belongs; nothing of it was sent. Only with `leak_guard = raise`."""


class StoreError(NocookieError):
    """The store failed. That is never an empty session: unless the application handles it,
    the middleware answers 503 and the client keeps its id.

    The driver's exception is `__cause__`.
    """

    status, code, reason = 503, "session_unavailable", "failed"
    detail = "Sessions are not available. Try again."


class StoreTimeout(StoreError):
    """The store did not answer within the deadline."""

    reason = "timeout"


class SessionConflict(NocookieError):
    """Other requests kept changing this session; nothing was written."""

    status, code, reason = 409, "session_conflict", "changed"
    detail = "Other requests were changing the session. Try again."


class SessionGone(SessionConflict):
    """The session has ended while this request still used it: by a logout, a login, a rotation
    that was asked for, an eviction, at the end of its `lifetime`, or `request_limit` after the end
    of its `timeout`. The save is refused: an ended session is never revived.
    """

    code, reason = "session_gone", "ended"
    detail = "The session has ended."


class Refusal(NocookieError):
    """The client gets an answer instead of what it asked for, with a code and a reason."""

    #: The status code of HTTP.
    status: int
    #: What went wrong, for programs: the value of `error` in the answer.
    code: str
    #: More of it, for programs; of a fixed set of words.
    reason: str
    #: The same for people, in a sentence.
    detail = "The session does not allow this request."

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.code}: {reason}")
        self.reason = reason


class NoSession(Refusal):
    """A session is needed here, and the client has none. Only with `on_unknown = error`.

    400 where it brought no id, or what cannot be one; 404 where it brought the id of a session
    that has ended: it has to begin a new one. Where the id is a bearer token, 401 (RFC 6750).
    """

    def __init__(self, reason: str) -> None:
        ended = reason in ("unknown", "expired", "corrupted")
        if ended:
            self.status, self.code = 404, "session_ended"
            self.detail = "The session has ended. Begin another one."
        else:
            self.status, self.code = 400, "session_required"
            self.detail = "This needs a session. Begin one first."
        super().__init__(reason)


class InsecureTransport(Refusal):
    """The session was to be saved for a client that came by plain HTTP. Only with
    `require_https`. Nothing was stored, and the client got no id."""

    status, code = 403, "https_required"
    detail = "Sessions need HTTPS."


class TooManyTries(Refusal):
    """For callbacks of `on_event` to raise: this client guesses, and is to wait *retry_after*
    seconds."""

    status, code = 429, "too_many_tries"
    detail = "There were too many tries. Wait, then try again."

    def __init__(self, retry_after: int = 60) -> None:
        super().__init__("guessing")
        self.retry_after = retry_after
