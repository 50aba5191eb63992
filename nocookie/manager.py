"""The way of a request: `open` before the application, `commit` before the response leaves.

Frameworks that are not reached by the WSGI middleware call the same two. Most applications
will not need this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from webob import Request

from nocookie.carriers import AmbiguousId, Carrier, Cookie, Header, RawCarrier, Reply, carriers_from
from nocookie.errors import NocookieError
from nocookie.events import emit
from nocookie.options import resolve
from nocookie.sessions import Backend, Presented, Session, SessionObject

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["SessionManager"]

#: Referrer policies (W3C) under which an id in a URL stays with its origin.
_STRICT_REFERRER: Final = frozenset({"no-referrer", "same-origin"})

#: What would end a header and begin another (RFC 9110, section 5.5).
_CONTROLS: Final = re.compile(r"[\r\n\0]")


class SessionManager:
    """Sessions for one application: its carriers, and the backend they are made with."""

    def __init__(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        settings = resolve(config, options)
        self.carriers = _carriers(settings)
        self._readers = [(carrier, _reader(carrier)) for carrier in self.carriers]
        self.id_header: str | None = settings["id_header"]
        self.backend = Backend(settings)
        self._in_url = any(getattr(carrier, "in_url", False) for carrier in self.carriers)
        self._vary = [v for c in self.carriers if (v := getattr(c, "vary", None))]

    def open(self, environ: WSGIEnvironment) -> SessionObject:
        """Return the session of this request; nothing is loaded yet."""
        return SessionObject(self, environ)

    def find(self, environ: WSGIEnvironment) -> Presented:
        """Return what the client presented: every id that could be ours, or why there is none."""
        presented: tuple[tuple[str, Carrier], ...] = ()
        reason = "absent"
        for carrier, read in self._readers:
            why: str | None
            try:
                text = read(environ)
                if text is None:
                    continue
                why = self.backend.ids.checked(text)
            except AmbiguousId:
                why = "ambiguous"
            except Exception as error:  # a finder is anybody's code: it costs the id, no more
                emit("finder failed", type(error).__name__)
                continue
            if why is None:
                presented += ((text, carrier),)
            elif reason == "absent":
                reason = why
        if not presented:
            return reason
        if len(presented) > 1 and len({id for id, _ in presented}) > 1:
            emit("conflict", "one request, several ids")
        return presented

    def commit(self, session: SessionObject, reply: Reply) -> None:
        """Save what the application saved, and tell the client its id if it must be told.

        Raises `SessionGone` and `StoreError`; then nothing was changed in *reply*.
        """
        real = session._sess
        if real is None or real._values is None:
            return
        real._commit()
        for name in self._vary:
            reply.add_word("Vary", name)
        if real.must_propagate:
            self._propagate(real, reply)
        elif real._ended:
            brought_by = real._brought_by
            if brought_by is not None:
                brought_by.forget(reply)

    def _propagate(self, session: Session, reply: Reply) -> None:
        id = session.id
        brought_by = session._brought_by
        carriers = (brought_by,) if brought_by is not None else self.carriers
        if not any(carrier.place(id, reply) for carrier in carriers):
            if self.id_header is None:
                return
            reply.announce(self.id_header, id)
        for name, value in reply.headerlist:
            if _CONTROLS.search(name) or _CONTROLS.search(value):
                raise NocookieError("a carrier made a header with a control character in it")
        reply.set("Cache-Control", "no-store")
        if self._in_url:
            policies = [v.lower() for n, v in reply.headerlist if n.lower() == "referrer-policy"]
            if not policies or policies[-1] not in _STRICT_REFERRER:
                reply.set("Referrer-Policy", "same-origin")


def _carriers(settings: Mapping[str, Any]) -> tuple[Carrier, ...]:
    if settings["use_cookies"]:
        return (
            Cookie(
                settings["key"],
                path=settings["cookie_path"],
                domain=settings["cookie_domain"],
                secure=settings["secure"],
                httponly=settings["httponly"],
                samesite=settings["samesite"],
            ),
        )
    if settings["find_id"] is None:
        return (Header(),)
    return carriers_from(settings["find_id"])


def _reader(carrier: Carrier) -> Callable[[WSGIEnvironment], Any]:
    """Return what asks one carrier. Ours read the environ; others get a WebOb request."""
    if isinstance(carrier, RawCarrier):
        return carrier.read

    def read(environ: WSGIEnvironment) -> Any:
        text: Any = carrier.find(Request(environ))
        if text is not None and type(text) is not str:
            emit("finder failed", f"returned {type(text).__name__}")
        return text

    return read
