"""`session`, the session of the current request, as handlers import it.

The middleware runs each request in a context of its own (PEP 567) and binds its session there,
so threads, asyncio tasks and greenlets each see their own, and nothing stays behind when the
request is over, however it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from nocookie.errors import UnboundSessionError

if TYPE_CHECKING:
    from nocookie.session_object import SessionObject

__all__ = ["bind", "current", "is_bound", "session"]

_current: ContextVar[Any] = ContextVar("nocookie.session")

#: Make *session* the current one of this context.
bind = _current.set


def current() -> Any:
    """Return what is bound in this context, or None."""
    return _current.get(None)


def is_bound(session: object) -> bool:
    """Whether *session* is the current one of this context."""
    return _current.get(None) is session


class _Proxy(MutableMapping[str, Any]):
    """Stands for the session of the request that is being served in this context."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # questions of the interpreter, not of the application
            raise AttributeError(name)
        return getattr(_bound(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_bound(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_bound(), name)

    def __getitem__(self, key: str) -> Any:
        return _bound()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        _bound()[key] = value

    def __delitem__(self, key: str) -> None:
        del _bound()[key]

    def __contains__(self, key: object) -> bool:
        return key in _bound()

    def __iter__(self) -> Iterator[str]:
        return iter(_bound())

    def __len__(self) -> int:
        return len(_bound())

    def __bool__(self) -> bool:
        return bool(_bound())

    def clear(self) -> None:
        _bound().clear()

    def _get_current_obj(self) -> Any:
        """Return the session itself, without the proxy. Three libraries gave this three names,
        and old code uses each: the Pylons documentation, Paste and Werkzeug."""
        return _bound()

    _current_obj = _get_current_obj
    _get_current_object = _get_current_obj

    def __repr__(self) -> str:
        bound = _current.get(None)
        return "<nocookie.session, unbound>" if bound is None else repr(bound)


def _bound() -> Any:
    try:
        return _current.get()
    except LookupError:
        raise UnboundSessionError(
            "nocookie.session is the session of a request, and none is being served here; "
            "use it in code that SessionMiddleware calls, or make a session of your own: "
            "nocookie.Session({}, id=..., ...)"
        ) from None


session = cast("SessionObject", _Proxy())
