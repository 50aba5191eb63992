"""What can go wrong, and whose fault it was.

::

    NocookieError
    ├── ConfigError (ValueError)             you: an option is wrong; raised at construction
    ├── UnboundSessionError (RuntimeError)   you: the session was used outside a request
    ├── ValueRefused (ValueError)            you: the session cannot hold this value
    ├── IdLeak                               you: an id was about to leave (leak_guard = raise)
    ├── StoreError                           the store: down, slow, full, forbidden (503)
    │   └── StoreTimeout                     ... or not back within the deadline (503)
    └── SessionConflict                      another request: it won the race (409)
        └── SessionGone                      ... and ended the session meanwhile (409)

A bad id from a client is not here: it is never an exception, it is a new session with a
`reason`. No message of ours holds an id; where one session must be named, its fingerprint
stands in.
"""

__all__ = [
    "ConfigError",
    "IdLeak",
    "NocookieError",
    "SessionConflict",
    "SessionGone",
    "StoreError",
    "StoreTimeout",
    "UnboundSessionError",
    "ValueRefused",
]


class NocookieError(Exception):
    """The root: catch this to catch everything the library raises on purpose."""


class ConfigError(NocookieError, ValueError):
    """An option is unknown, has a wrong value, or needs something that is not installed."""


class UnboundSessionError(NocookieError, RuntimeError):
    """`nocookie.session` was used where no request is being served."""


class ValueRefused(NocookieError, ValueError):
    """A session cannot hold this value: its type, its depth, or its size.

    Raised by `save()`, inside the handler, before anything is written.
    """

    #: The session key the value was found under.
    key: str

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"session[{key!r}]: {why}")
        self.key = key


class IdLeak(NocookieError):
    """A response was about to give a live id to another origin, to a public cache, or in a
    header where none belongs; nothing of it was sent. Only with `leak_guard = raise`."""


class StoreError(NocookieError):
    """The store failed. That is never an empty session: unless the application handles it,
    the middleware answers 503 and the client keeps its id.

    The driver's exception is `__cause__`.
    """


class StoreTimeout(StoreError):
    """The store did not answer within the deadline."""


class SessionConflict(NocookieError):
    """Other requests kept changing this session; nothing was written."""


class SessionGone(SessionConflict):
    """The session was ended (logout, rotation, expiry, eviction) while this request still
    used it. The save is refused: an ended session is never revived.
    """
