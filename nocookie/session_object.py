"""The session of one request, not yet made: what an application finds in environ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from nocookie.backend import Backend, Presented
from nocookie.errors import Refusal, StoreError, UnboundSessionError
from nocookie.farewell import Farewell
from nocookie.sessions import OfCookies, Session, new_session

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from nocookie.carriers import Carrier
    from nocookie.owners import SessionInfo
    from nocookie.request import Request
    from nocookie.rewriting import Scope

__all__ = ["Opener", "SessionObject"]

T = TypeVar("T")

#: How much of a User-Agent is kept to tell sessions apart by.
CLIENT_LENGTH: Final = 200

#: The methods of requests that show nobody a page, or may be such: see `Request.is_passive`.
_OF_INTEREST: Final = frozenset({"HEAD", "OPTIONS"})


class Opener(Protocol):
    """What a session object needs of the manager that opens it."""

    backend: Backend
    session_class: type[Session]

    def request(self, environ: WSGIEnvironment) -> Request: ...
    def is_insecure(self, environ: WSGIEnvironment) -> bool: ...
    def find(self, environ: WSGIEnvironment) -> tuple[Presented, str]: ...
    def scope(self, session: SessionObject) -> Scope | None: ...
    def bare_url(self, environ: WSGIEnvironment, url: str) -> str: ...
    def sessions_of(self, owner: str) -> list[SessionInfo]: ...
    def end_all(self, owner: str, but: Session | SessionObject | None = None) -> int: ...
    def end_one(self, owner: str, fingerprint: str) -> bool: ...


class _Params(dict[str, Any]):
    """What `Session({}, **params)` takes. It may hold an id, so it is not shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<session parameters: {', '.join(self)}>"


class _Attributed:
    """Has attributes of the ordinary kind."""


#: The real `__dict__` of an object.
_attributes: Callable[[object], dict[str, Any]]
_attributes = _Attributed.__dict__["__dict__"].__get__


class SessionObject(OfCookies, _Attributed, MutableMapping[str, Any]):
    """The session of one request, not yet made: it becomes a `Session` when it is touched, and
    answers what that answers.

    Its `__dict__` is public, because the Pylons documentation has applications assign into it:
    `_params` is a fresh dict for every request, and what is put into `_sess` is the session of
    this request.
    """

    __slots__ = ("_environ", "_manager")

    _sess: Session | None = None
    _manager: Opener
    #: Until the end of the request.
    _environ: WSGIEnvironment | None
    #: The response has begun: the client can be told nothing else any more.
    _sent: bool = False
    #: What a callback of `on_event` has refused the client with.
    _refused: Refusal | None = None

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        # Few requests look: what only they need is made when they do.
        attributes = _attributes(self)
        if "_params" not in attributes:
            attributes["_params"] = _Params(id=None, backend=self._manager.backend)
            attributes.setdefault("_sess", None)
        return attributes

    def _session(self) -> Session:
        session = self._sess
        if session is None:
            if self._environ is None:
                raise UnboundSessionError("the request of this session is over")
            manager = self._manager
            session = new_session(manager.session_class)
            session._backend = manager.backend
            environ = self._environ
            # A view of most requests would be made for nothing.
            if (
                environ["REQUEST_METHOD"] in _OF_INTEREST
                or "HTTP_SEC_PURPOSE" in environ
                or "HTTP_PURPOSE" in environ
                or "HTTP_X_MOZ" in environ
            ):
                self._look_at_purpose(session, environ)
            session._presented, session._reason = manager.find(environ)
            if session._reason == "insecure":
                session._insecure = True
            self._sess = session
        return session

    def _look_at_purpose(self, session: Session, environ: WSGIEnvironment) -> None:
        request = self._manager.request(environ)
        session._passive, session._speculative = request.is_passive, request.is_speculative

    def _get_current_obj(self) -> SessionObject:
        """Return itself: the proxy has the same method and returns this object."""
        return self

    _current_obj = _get_current_obj
    _get_current_object = _get_current_obj

    # -- what only the session of a request has -------------------------------------------------

    def rebuild(self, id: object) -> None:
        """Make the session of this request the one with this *id*, whatever the client sent.

        The Pylons recipe as one call. The id goes through the same checks as any other; None or
        an id that is not known gives a new session; so does any that came by plain HTTP, where
        that is ruled out. Nothing else is touched: no other request,
        and not the session that was in this place before.
        """
        backend, environ = self._manager.backend, self._environ
        insecure = environ is not None and self._manager.is_insecure(environ)
        presented, reason = ((), "insecure") if insecure else backend.presented(id)
        session = self._manager.session_class._of(backend, presented, reason)
        session._insecure = insecure
        if environ is not None:
            self._look_at_purpose(session, environ)
        self._sess = session

    def url(self, url: str) -> str:
        """Return *url* with the id on it, if the client needs that and the URL may have it.

        It needs it if the id came in a URL, or is new and would go there. Only URLs of this
        origin below the mount get it, as a browser would read them (`nocookie.rewriting`); any
        other comes back as it is. A session that is not stored, nor marked to be by `save()`, has
        no id to put on a URL. Raises `UnboundSessionError` if the request is over.
        """
        if self._environ is None:
            raise UnboundSessionError("the request of this session is over")
        scope = self._manager.scope(self)
        return url if scope is None else scope.url(url)

    def bare_url(self, url: str) -> str:
        """Return *url* without an id: for mail, for redirects by way of another site, for
        canonical links. Raises `UnboundSessionError` if the request is over."""
        if self._environ is None:
            raise UnboundSessionError("the request of this session is over")
        return self._manager.bare_url(self._environ, url)

    def save(self) -> None:
        """Have the session saved at the commit, before the response's first byte leaves.

        Raises `ValueRefused` now, in the handler, if a value cannot be saved, and
        `UnboundSessionError` if the request is over and no commit will come.
        """
        if self._environ is None:
            raise UnboundSessionError("the request of this session is over")
        self._session()._mark()

    def persist(self) -> None:
        """Save now. Raises as `Session.save`."""
        self._session().save()

    def login(self, owner: str, client: str | None = None) -> None:
        """As `Session.login`, done at the commit. *client* is the request's User-Agent unless the
        application says something better."""
        if self._environ is None:
            raise UnboundSessionError("the request of this session is over")
        if client is None:
            said = str(self._environ.get("HTTP_USER_AGENT", ""))
            client = "".join(filter(str.isprintable, said))[:CLIENT_LENGTH] or None
        session = self._session()
        session.login(owner, client)
        assert session._facts is not None
        agent = self._manager.request(self._environ).client_digest()
        session._learn(session._facts._replace(agent=agent))
        session._mark()

    def logout(self, to: str | None = None) -> Farewell:
        """End the session now, as `delete`, and say what the response should do: headers, and a
        URL without an id, that of the page *to* or the front page below the mount."""
        environ = self._environ
        if environ is None:
            raise UnboundSessionError("the request of this session is over")
        self.delete()
        manager = self._manager
        front = manager.request(environ).front
        return Farewell(front if to is None else manager.bare_url(environ, to))

    def sessions_of(self, owner: str | None = None) -> list[SessionInfo]:
        """Return the living sessions of *owner*, by default of this session's own; none if it has
        none. Raises as `nocookie.owners.sessions_of`."""
        owner = self.owner if owner is None else owner
        return [] if owner is None else self._asked(self._manager.sessions_of, owner)

    def end_all(self, owner: str | None = None, but: Session | SessionObject | None = None) -> int:
        """End all sessions of *owner*, by default of this session's own, except *but*; return how
        many. Raises as `nocookie.owners.end_all`."""
        owner = self.owner if owner is None else owner
        return 0 if owner is None else self._asked(self._manager.end_all, owner, but)

    def end_one(self, fingerprint: str, owner: str | None = None) -> bool:
        """End the session with this *fingerprint*, if it is one of *owner*, by default of this
        session's own; return whether it was there. Raises as `nocookie.owners.end_one`."""
        owner = self.owner if owner is None else owner
        return owner is not None and self._asked(self._manager.end_one, owner, fingerprint)

    def _asked(self, ask: Callable[..., T], *what: object) -> T:
        """Ask of other sessions than this one. That the store fails is noted here, too, for when a
        framework makes its own answer of it."""
        try:
            return ask(*what)
        except StoreError as error:
            self._session()._note(error)
            raise

    def accessed(self) -> bool:
        """Whether anything has asked for the session in this request."""
        return self._sess is not None

    def dirty(self) -> bool:
        """Whether `save()` was called and is not done yet."""
        return self._sess is not None and self._sess._marked

    # -- the session ----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._session().id

    @property
    def is_new(self) -> bool:
        return self._session().is_new

    @property
    def reason(self) -> str | None:
        return self._session().reason

    @property
    def must_propagate(self) -> bool:
        return self._session().must_propagate

    @property
    def created(self) -> float:
        return self._session().created

    @property
    def last_accessed(self) -> float | None:
        return self._session().last_accessed

    @property
    def timeout(self) -> float | None:
        return self._session().timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._session().timeout = seconds

    @property
    def lifetime(self) -> float | None:
        return self._session().lifetime

    @lifetime.setter
    def lifetime(self, seconds: float | None) -> None:
        self._session().lifetime = seconds

    @property
    def owner(self) -> str | None:
        return self._session().owner

    @property
    def carrier(self) -> Carrier | None:
        return self._session().carrier

    @property
    def fingerprint(self) -> str:
        return self._session().fingerprint

    def start(self) -> None:
        self._session().start()

    def load(self) -> None:
        self._session().load()

    def delete(self) -> None:
        self._session().delete()

    invalidate = delete

    def regenerate_id(self) -> None:
        self._session().regenerate_id()

    def get_by_id(self, id: str) -> Session | None:
        return self._session().get_by_id(id)

    def revert(self) -> None:
        self._session().revert()

    def changed(self, key: str) -> None:
        self._session().changed(key)

    def incr(self, key: str, by: float = 1) -> Any:
        return self._session().incr(key, by)

    def mutate(self, change: Callable[[MutableMapping[str, Any]], T]) -> T:
        return self._session().mutate(change)

    def has_key(self, key: str) -> bool:
        return key in self._session()

    def clear(self) -> None:
        self._session().clear()

    def __getitem__(self, key: str) -> Any:
        session = self._sess
        return (self._session() if session is None else session)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        session = self._sess
        (self._session() if session is None else session)[key] = value

    def __delitem__(self, key: str) -> None:
        del self._session()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._session()

    def __iter__(self) -> Iterator[str]:
        return iter(self._session())

    def __len__(self) -> int:
        return len(self._session())

    def __bool__(self) -> bool:
        """There is a session, empty or not. Paste's registry asks this of whatever it holds, at
        the end of every request, and to look would be to load it."""
        return True

    def __repr__(self) -> str:
        return "<Session, untouched>" if self._sess is None else repr(self._sess)
