"""The way of a request: `open` before the application, `commit` before the response leaves.

Frameworks that are not reached by the WSGI middleware call the same two. Most applications
will not need this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from webob import Request

from nocookie.backend import Backend, Presented
from nocookie.carriers import AmbiguousId, Carrier, Cookie, Header, RawCarrier, Reply, carriers_from
from nocookie.errors import ConfigError, NocookieError
from nocookie.events import emit
from nocookie.ids import NotAnId
from nocookie.options import resolve
from nocookie.sessions import Session, SessionObject

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["SessionManager"]

#: 16 characters at random are 96 bits; a phrase of that length is less, and still beyond trying.
SHORT_SECRET: Final = 16

#: Referrer policies (W3C) under which an id in a URL stays with its origin.
_STRICT_REFERRER: Final = frozenset({"no-referrer", "same-origin"})


class SessionManager:
    """Sessions for one application: its carriers, and the backend they are made with."""

    def __init__(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        settings = resolve(config, options)
        self.carriers = _carriers(settings)
        self._readers = [(carrier, _reader(carrier)) for carrier in self.carriers]
        self.id_header: str | None = settings["id_header"]
        self.backend = Backend(settings)
        self._key = self.backend.ids.key
        self._auto = self.backend.auto
        for secret in settings["secret"] or ():
            if len(secret) < SHORT_SECRET:
                emit("misfit", f"a secret of fewer than {SHORT_SECRET} characters can be guessed")
        self._in_url = [c for c in self.carriers if getattr(c, "in_url", False)]
        self.prepares = [p for c in self.carriers if (p := getattr(c, "prepare", None))]
        self._vary = [v for c in self.carriers if (v := getattr(c, "vary", None))]
        if self._in_url and self.backend.ids.adopts:
            raise ConfigError(
                "strict = False goes with no URL carrier: anybody could send out links with an id "
                "that the visitor's session would then be stored under"
            )

    def open(self, environ: WSGIEnvironment) -> SessionObject:
        """Return the session of this request; nothing is loaded yet."""
        self.prepare(environ)
        session = SessionObject()
        session._manager, session._environ = self, environ
        return session

    def prepare(self, environ: WSGIEnvironment) -> str | None:
        """Have the carriers take from the request what the application would take first. Return
        where to send the client instead, if one of them says so."""
        elsewhere: str | None = None
        for prepare in self.prepares:
            try:
                elsewhere = prepare(environ) or elsewhere
            except Exception as error:
                emit("finder failed", type(error).__name__)
        return elsewhere

    def find(self, environ: WSGIEnvironment) -> tuple[Presented, str]:
        """Return the ids that could be ours, and for when there is none the reason."""
        presented: Presented = ()
        reason = "absent"
        for carrier, read in self._readers:
            try:
                text = read(environ)
                if text is None:
                    continue
                key = self._key(text)
                if not presented or key != presented[0][1]:
                    presented += ((text, key, carrier),)
                continue
            except NotAnId as error:
                why = error.reason
            except AmbiguousId:
                why = "ambiguous"
            except Exception as error:  # a finder is anybody's code: it costs the id, no more
                emit("finder failed", type(error).__name__)
                continue
            if reason == "absent":
                reason = why
        if len(presented) > 1:
            emit("conflict", "one request, several ids")
        return presented, reason

    def commit(self, session: SessionObject, reply: Reply) -> None:
        """Save what the application saved, and tell the client its id if it must be told.

        Raises `SessionGone` and `StoreError`; then nothing was changed in *reply*.
        """
        real = session._sess
        if real is None:
            return
        if real._marked or real._touch_due or self._auto:
            real._commit()
        for name in self._vary:
            reply.add_word("Vary", name)
        if real._values is None:
            return
        tell = real._id is not real._given and real.must_propagate
        if tell:
            self._tell(real, reply)
        elif real._brought_by is not None:
            if real._ended:
                real._brought_by.forget(reply)
            elif getattr(real._brought_by, "renews", False) and real._is_due():
                real._brought_by.place(real.id, reply)
        in_url = bool(self._in_url) and (tell or real._brought_by in self._in_url)
        if tell or in_url:
            _keep_in(reply, in_url)

    def _tell(self, session: Session, reply: Reply) -> None:
        """Give the client its id. Where no header can, the application does, in its page."""
        if not self._placed(session, reply):
            if self.id_header is None:
                return
            reply.announce(self.id_header, session.id)
        text = "".join([part for pair in reply.headerlist for part in pair])
        # What would end a header and begin another (RFC 9110, section 5.5).
        if "\r" in text or "\n" in text or "\0" in text:
            raise NocookieError("a header of the response has a control character in it")

    def _placed(self, session: Session, reply: Reply) -> bool:
        # What the client proved that it can carry is what it gets back.
        brought_by = session._brought_by
        for carrier in self.carriers if brought_by is None else (brought_by,):
            if carrier.place(session.id, reply):
                return True
        return False


def _keep_in(reply: Reply, in_url: bool) -> None:
    """Keep a response that holds an id out of caches, and if its address or its links hold it,
    out of what browsers tell other origins."""
    kept = []
    strict = False
    for pair in reply.headerlist:
        name = pair[0].lower()
        if name == "cache-control":
            continue
        if in_url and name == "referrer-policy":
            if pair[1].lower() not in _STRICT_REFERRER:
                continue
            strict = True
        kept.append(pair)
    kept.append(("Cache-Control", "no-store"))
    if in_url and not strict:
        kept.append(("Referrer-Policy", "same-origin"))
    reply.headerlist[:] = kept


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
                expires=settings["cookie_expires"],
            ),
        )
    if settings["find_id"] is None:
        return (Header(),)
    return carriers_from(settings["find_id"])


def _reader(carrier: Carrier) -> Callable[[WSGIEnvironment], str | None]:
    """Return what asks one carrier. Ours read the environ; others get a WebOb request."""
    if isinstance(carrier, RawCarrier):
        return carrier.read

    def read(environ: WSGIEnvironment) -> str | None:
        text: Any = carrier.find(Request(environ))
        if text is None or type(text) is str:
            return text
        emit("finder failed", f"returned {type(text).__name__}")
        raise NotAnId("malformed")

    return read
