"""WSGI in, WSGI out (PEP 3333).

The rules of this file:

1. `start_response` only records. The *commit* happens once, at the earliest of: the application
   has returned and had called it; the application calls `write()`; a lazy body yields its first
   chunk. Until then a failed save can still become the whole response.
2. The application, every step of its body and its `close()` run in one context, the request's
   own: what the application sets in its call it can reset in its body, and nothing is left in a
   thread when a response is dropped. Context variables that the application sets do not reach
   outer layers.
3. An application that raises before the commit commits nothing.
4. What is saved after the commit, or where there is none because the application has taken the
   socket over, is a late change: it is written when the body is at its end, or is closed.
5. environ and session hold each other while the request runs; at its end the session lets go,
   so a request leaves nothing for the garbage collector.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Context, copy_context
from functools import partial
from traceback import walk_tb
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nocookie.answers import ANSWERED, answer
from nocookie.carriers import BodyFilter, Reply
from nocookie.errors import Refusal, SessionConflict, SessionGone, StoreError
from nocookie.events import logger
from nocookie.forks import ProcessLocal
from nocookie.local import bind, is_bound
from nocookie.manager import SessionManager
from nocookie.options import Configuration
from nocookie.processes import Serving
from nocookie.session_object import SessionObject
from nocookie.sessions import Session

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["SessionMiddleware"]

ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Headers = list[tuple[str, str]]
T = TypeVar("T")


class SessionMiddleware:
    """Give an application sessions: `environ[environ_key]`, and `nocookie.session`.

    *config* holds options under the prefixes `nocookie.`, `session.` and `beaker.session.`;
    *options* are the same without a prefix, and win. See docs/configuration.md.

    Raises `ConfigError`.
    """

    def __init__(
        self,
        app: WSGIApplication,
        config: Mapping[str, Any] | None = None,
        environ_key: str = "nocookie.session",
        **options: Any,
    ) -> None:
        self.app = app
        self.manager = SessionManager(config, **options)
        #: For `nocookie check`.
        self.configuration = Configuration(config, options)
        self.environ_key = environ_key
        #: This process, as one of those that may serve; whether it is alone shows with requests.
        self._serving = ProcessLocal(partial(Serving, os.getpid()))
        self._knows_processes = self.manager.backend.store.shared
        #: There is something to do before the application: most have nothing, most of the time.
        self._has_to_prepare = True

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        context = copy_context()
        return context.run(self._respond, environ, start_response, context)

    def _respond(
        self, environ: WSGIEnvironment, start_response: StartResponse, context: Context
    ) -> Iterable[bytes]:
        key = self.environ_key
        manager = self.manager
        # Without a call of __init__: this is the way of every request.
        exchange = _Exchange()
        exchange._manager = manager
        exchange._environ = environ
        exchange._start_response = start_response
        exchange._status = ""
        exchange._sent = False
        if key in environ:
            there = environ[key]
            if is_bound(there):
                # An outer SessionMiddleware serves this request already: one load, one commit.
                return self.app(environ, start_response)
            if there._manager is manager:
                exchange._go_on(there)
        environ[key] = exchange
        bind(exchange)
        body: Iterable[bytes] = ()
        try:
            if self._has_to_prepare:
                elsewhere = self._prepare(environ)
                if elsewhere is not None:
                    exchange._let_go()
                    return _moved(elsewhere, start_response)
            body = self.app(environ, exchange._start)
            status = exchange._status
            if (
                exchange._sess is None
                and type(body) is list
                and status
                and not manager.in_url
                and (status < "3" or "4" <= status < "5")
            ):
                # The way of most requests, in few steps: nobody asked for the session.
                exchange._environ = exchange._start_response = None
                if exchange._sent:
                    exchange._server_write = None
                else:
                    start_response(status, exchange._headers)
                return body
            is_file = _is_file(body, environ)
            whole = is_file or type(body) is list or type(body) is tuple
            if status and not exchange._sent:
                if whole:  # nothing of the application runs any more
                    body = exchange._send_all(body, is_file)
                    exchange._let_go()
                    return body
                exchange._send()
            elif whole:
                if exchange._sent and exchange._rewriter is not None:
                    body = exchange._rewritten(body)
                exchange._end()
                return body
        except ANSWERED as error:
            session = exchange._sess
            exchange._give_up(body)
            body = ()
            if exchange._sent:
                _forget_locals(error)
                raise
            return _failure(error, manager, session, environ, start_response)
        except BaseException as error:
            if type(error) is StopIteration and not exchange._status and _is_upgrade(environ):
                exchange._end()  # this is how gunicorn is told that the socket is not its own now
            else:
                exchange._give_up(body)
            body = ()  # this frame is shown with the error, and pages hold ids
            _forget_locals(error)
            raise
        return _Body(body, exchange, environ, context)

    def _prepare(self, environ: WSGIEnvironment) -> str | None:
        if not self._knows_processes:
            self._look_for_processes(environ)
        if self._knows_processes:
            self._has_to_prepare = bool(self.manager.prepares)
        return self.manager.prepare(environ)

    def _look_for_processes(self, environ: WSGIEnvironment) -> None:
        is_alone = self._serving.here().is_alone(environ)
        if is_alone is not None:
            self._knows_processes = True
        if is_alone is False:
            self.manager.emit(
                "misfit",
                "a memory store under several processes: each has sessions of its own; set "
                "data_dir, or another type",
            )


class _Exchange(SessionObject):
    """The session of a request, and the response that it goes out with.

    One object for both, because each request makes one: it is what the application finds in
    environ, and its `_start` is what the application gets as start_response.
    """

    __slots__ = (
        *("_headers", "_refused", "_rewriter", "_sent", "_server_write", "_start_response"),
        "_status",
    )

    _manager: SessionManager
    _start_response: Any
    _status: str
    _headers: Headers
    _sent: bool
    #: Not set as long as there is none.
    _refused: Refusal | None
    _server_write: Any
    #: Puts the id on the links of the page: set by the commit.
    _rewriter: BodyFilter | None
    #: The application raised before the commit: nothing of it is saved.
    _has_raised = False
    #: A late change could not be written, and that was said.
    _has_lost = False

    def _start(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        if exc_info is not None:
            try:
                if self._sent:
                    write: Callable[[bytes], object] = self._start_response(
                        status, headers, exc_info
                    )
                    return write
            finally:
                exc_info = None  # a traceback in a frame of its own is a cycle
        elif self._status:
            raise AssertionError("start_response was called twice without exc_info")
        self._status, self._headers = status, headers
        return self._write

    def _write(self, data: bytes) -> None:
        if not self._sent:
            self._send()
        self._server_write(data if self._rewriter is None else self._rewriter.feed(data))

    def _send(self) -> None:
        """Commit, then let the head go. Raises `StoreError` or `SessionConflict` before."""
        status, headers = self._commit()
        self._sent = True
        self._server_write = self._start_response(status, headers)

    def _send_all(self, body: Iterable[bytes], as_it_is: bool) -> Iterable[bytes]:
        """As `_send`, where the whole body is there; return what is to be sent of it."""
        status, headers = self._commit(as_it_is, None if as_it_is else body)
        rewriter = self._rewriter
        if rewriter is not None and not rewriter.changes:
            for chunk in body:
                rewriter.feed(chunk)
            self._rewriter = None
        elif rewriter is not None:
            body = rewritten = self._rewritten(body)
            assert self._environ is not None
            if self._environ.get("REQUEST_METHOD") != "HEAD":
                headers = [*headers, ("Content-Length", str(len(rewritten[0])))]
        self._sent = True
        self._start_response(status, headers)
        return body

    def _commit(
        self, as_it_is: bool = False, body: Iterable[bytes] | None = None
    ) -> tuple[str, Headers]:
        session, status, headers = self._sess, self._status, self._headers
        self._rewriter = None
        if status >= "500":
            self._answer_instead(status, session)
        if session is None and not self._manager.in_url:
            if status >= "3" and self._environ is not None:
                self._manager.look_at_redirect(status, headers, self._environ)
            return status, headers
        assert self._environ is not None
        # A copy: the application's list may be a constant.
        reply = Reply(status, list(headers), self._environ, as_it_is, body)
        self._manager.commit(self, reply)
        self._rewriter = reply.rewriter
        return reply.status, reply.headerlist

    def _answer_instead(self, status: str, session: Session | None) -> None:
        """Raise our own error where the framework made its own answer of it; ours says more."""
        if not status.startswith("500"):
            return
        refused: Refusal | None = getattr(self, "_refused", None)
        if refused is not None:  # what a callback said to the client
            raise refused.with_traceback(None)
        if session is not None and session._failed:
            if session._refusal is not None:
                raise session._refusal()
            raise _FAILURES[session._failed]("and the framework answered 500")

    def _rewritten(self, rest: Iterable[bytes]) -> list[bytes]:
        """Return the rest of the body with ids on its links."""
        rewriter, self._rewriter = self._rewriter, None
        assert rewriter is not None
        return [rewriter.feed(b"".join(rest)) + rewriter.close()]

    def _finish(self) -> None:
        """Write what is late. More may come: a body is at its end before it is closed."""
        session = self._sess
        if session is None or self._has_raised:
            return
        if session._marked or not self._has_lost:
            self._has_lost = not _finish_late(session)

    def _end(self) -> None:
        """The application is done: nothing of it runs any more."""
        self._finish()
        self._let_go()

    def _give_up(self, body: Iterable[bytes]) -> None:
        """The request failed: nothing more of it is saved, not even by an error page."""
        self._sess = None
        self._let_go()
        try:
            _close(body)
        except Exception:  # the failure before is what counts
            logger.exception("closing the body of a failed response failed too")

    def _let_go(self) -> None:
        # environ holds this object, and what the server gave us may hold environ: see rule 5.
        self._environ = self._start_response = self._server_write = None
        self._refused = self._rewriter = None  # they may hold the request, too

    def _go_on(self, earlier: SessionObject) -> None:
        """Serve a request once more, after an internal redirect: the session is the same."""
        self._sess = earlier._sess
        if self._sess is not None:
            self._sess._failed = None


class _Body:
    """A body that is made while it is sent."""

    __slots__ = ("_app_body", "_chunks", "_context", "_environ", "_exchange")

    def __init__(
        self,
        body: Iterable[bytes],
        exchange: _Exchange,
        environ: WSGIEnvironment,
        context: Context,
    ) -> None:
        self._app_body: Iterable[bytes] | None = body
        self._chunks: Iterator[bytes] | None = None
        self._exchange = exchange
        self._environ = environ
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._run(self._step)

    def close(self) -> None:
        self._run(self._finish)

    def _run(self, call: Callable[[], T]) -> T:
        try:
            return self._context.run(call)
        except RuntimeError as error:
            traceback = error.__traceback__
            if traceback is None or traceback.tb_next is not None:
                raise  # from within
        # The context is in use: another thread or greenlet, or one further out in this, is in a
        # step of this body. Such a call has no context of its own without us, either.
        return self._context.copy().run(call)

    def _step(self) -> bytes:
        exchange = self._exchange
        try:
            if self._chunks is None:
                assert self._app_body is not None
                self._chunks = iter(self._app_body)
            chunk = next(self._chunks, None)
            if not exchange._sent and exchange._status and self._app_body is not None:
                exchange._send()
            if chunk is None:  # servers may forget to close it
                exchange._finish()
        except ANSWERED as error:
            if exchange._sent:
                _forget_locals(error)
                raise
            start_response, manager = exchange._start_response, exchange._manager
            session = exchange._sess
            exchange._give_up(self._app_body or ())
            self._app_body = None
            answered = _failure(error, manager, session, self._environ, start_response)
            self._chunks = iter(answered)
            chunk = next(self._chunks, None)
        except BaseException as error:
            exchange._has_raised = not exchange._sent
            _forget_locals(error)
            raise
        if exchange._sent and exchange._rewriter is not None:
            try:
                chunk = self._rewritten(exchange, chunk)
            except BaseException as error:
                chunk = None  # as in the frame of `_respond`
                _forget_locals(error)
                raise
        if chunk is None:
            raise StopIteration
        return chunk

    def _rewritten(self, exchange: _Exchange, chunk: bytes | None) -> bytes | None:
        """Each chunk of the application is one of ours, perhaps empty: it may be a flush."""
        assert exchange._rewriter is not None
        if chunk is not None:
            return exchange._rewriter.feed(chunk)
        rest = exchange._rewriter.close()
        exchange._rewriter = None
        return rest or None

    def _finish(self) -> None:
        try:
            self._close_app_body()
        finally:
            self._exchange._end()

    def _close_app_body(self) -> None:
        body, self._app_body = self._app_body, None
        if body is not None:
            _close(body)


def _finish_late(session: Session) -> bool:
    """Write what was saved after the commit: into a record that exists, under the id that the
    client has. Anything else cannot be done any more, and is reported. Renew what was only read.
    Return whether nothing was lost."""
    lost = None
    try:
        if not session._marked and not (session._saves_by_itself() and session._has_changes()):
            _renew_late(session)
        elif session._key is not None and session._old is None and session._backend.tokens is None:
            session.save()
        elif session._changed or session._key is not None:
            lost = "what the client would have to be told, saved after the response began"
    except Exception as error:  # the response is out: nobody is left to be told but the log
        lost = f"saved after the response began: {type(error).__name__}"
    session._marked = session._touch_due = False
    if lost is None:
        return True
    try:
        session._backend.emit("lost", lost, session._named())
    except Refusal:  # of a callback: there is no answer any more that could say so
        pass
    return False


def _renew_late(session: Session) -> None:
    if session._is_touch_due() and session._backend.tokens is None:
        try:
            session._touch()
        except StoreError:  # an event says so already, and nothing of the application's is lost
            pass


# -- answers of our own --------------------------------------------------------------------------

_FAILURES: Final[Mapping[str, type[StoreError] | type[SessionConflict]]] = {
    "store": StoreError,
    "gone": SessionGone,
}


def _failure(
    error: StoreError | SessionConflict | Refusal,
    manager: SessionManager,
    session: Session | None,
    environ: WSGIEnvironment,
    start_response: StartResponse,
) -> list[bytes]:
    """Answer in the application's place. The client is told what was stored before that under
    another id than it has."""
    status, headers, body = answer(error, environ, manager.carriers)
    reply = Reply(status, headers, environ, as_it_is=True)
    if session is not None:
        manager.tell_stored(session, reply)
    start_response(reply.status, reply.headerlist)
    # A list with nothing in it is no answer to every server.
    return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]


def _moved(to: str, start_response: StartResponse) -> list[bytes]:
    """Send the client to the same page under the URL that it should have. 307: with the same
    method, and not for ever (RFC 9110, 15.4.8)."""
    headers = [
        ("Location", to),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", "0"),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "same-origin"),
    ]
    start_response("307 Temporary Redirect", headers)
    return [b""]


def _forget_locals(error: BaseException) -> None:
    """Empty our own frames in the tracebacks of an error: ids were in them, and reporters show what
    the variables of a frame were."""
    errors: list[BaseException | None] = [error]
    seen: set[int] = set()
    while errors:
        each = errors.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        errors += each.__cause__, each.__context__
        if isinstance(each, BaseExceptionGroup):
            errors += each.exceptions
        for frame, _ in walk_tb(each.__traceback__):
            if frame.f_globals.get("__name__", "").startswith("nocookie."):
                try:
                    frame.clear()
                except RuntimeError:  # it is running, and ends with this error
                    pass


def _is_upgrade(environ: WSGIEnvironment) -> bool:
    """Whether the client asks to go on by another protocol, such as that of WebSockets."""
    return "HTTP_UPGRADE" in environ


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _is_file(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Whether the server can send this body by itself, which wrapping it would prevent."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
