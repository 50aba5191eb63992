"""Forms that only our own pages can post, as Pylons' `secure_form`: against cross-site request
forgery.

A browser sends a cookie with every request to our site, also with those that a page of another
site makes. So a request that does something has to show more than the id: a token that only a page
of ours can know, because only such a page was given it.

The token is a hash of the session id. So it is another one after every rotation, above all after
login: whoever knew the id of before knew its token too. It is the same for all forms of a
session; the id cannot be found from it; nothing has to be stored for it; and two first pages at
once agree on it.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import html
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, overload

from webob import Request
from webob.exc import HTTPForbidden

from nocookie.carriers import Bearer, Header
from nocookie.errors import NocookieError
from nocookie.local import session

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = [
    "FIELD",
    "HEADER",
    "authenticate_form",
    "authentication_token",
    "hidden_field",
    "refusal",
]

P = ParamSpec("P")
T = TypeVar("T")

#: The form field that holds the token: the name that Pylons used.
FIELD: Final = "_authentication_token"
#: The request header that holds it, for scripts.
HEADER: Final = "X-CSRF-Token"

_HEADER_KEY: Final = "HTTP_" + HEADER.upper().replace("-", "_")

#: 160 bits are as many as an id has at least, and their 40 digits are not taken for an id.
_TOKEN_SIZE: Final = 20
#: Tells this hash of an id from the one that is the store key, which anybody may see who can
#: read the store.
_PURPOSE: Final = b"nocookie form"
#: The session key that keeps a session alive that has nothing in it but forms to come.
_MARK: Final = "_forms"

#: Why a request is refused: the event's detail, and what the visitor reads.
_REASONS: Final = {
    "no session": "Your session has ended, or there was none. Load the page again.",
    "no token": "The request has no token. Use the form of the page.",
    "wrong token": "The form is from before your login, or not from here. Load the page again.",
}

#: What frameworks call a form that they have parsed: WebOb, Pyramid, Bottle, Django; Werkzeug.
_FORMS: Final = ("POST", "form")
#: Where those leave their request in environ that do not hand it to handlers.
_REQUESTS: Final = ("werkzeug.request", "bottle.request")


#: What WebOb raises for a body that is no form, or is in an encoding that it does not take. What
#: other frameworks raise they answer themselves.
_UNREADABLE: Final = (ValueError, LookupError, DeprecationWarning)


class _Html(str):
    """Markup that a template does not escape again."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def authentication_token() -> str:
    """Return the token for the forms of this session: text of 40 characters.

    A visitor without a session gets one, and `save` is called, because a token is good for
    nothing if the next request is another visitor's. Raises `NocookieError` if the ids are a
    gateway's: who may have chosen the id may have reckoned the token.
    """
    if session._get_current_obj()._session()._backend.ids.adopts:
        raise NocookieError("there are no form tokens where a gateway issues the ids")
    if session.reason is not None and not session.must_propagate:
        session[_MARK] = True
        session.save()
    id = session.id.encode()
    return hashlib.blake2b(id, digest_size=_TOKEN_SIZE, person=_PURPOSE).hexdigest()


def hidden_field() -> str:
    """Return the field for a form, as markup: `<input type="hidden" ...>`."""
    return _Html(
        f'<input type="hidden" name="{html.escape(FIELD)}" '
        f'value="{html.escape(authentication_token())}">'
    )


def refusal(token: str | None) -> str | None:
    """Say why a request with this *token* must not be acted upon, in a sentence for the visitor;
    None if it may be. For frameworks that `authenticate_form` does not fit.

    None is needed if the session's id came by a carrier that only a script can set, which a
    browser lets no other site do: `Header` and `Bearer`, and any that says so by a true attribute
    `by_script`. A false one says that a header is none of these, because a proxy sets it.
    """
    carrier = session.carrier
    if getattr(carrier, "by_script", isinstance(carrier, (Header, Bearer))):
        return None
    if session.reason is not None:
        why = "no session"
    elif not token:
        why = "no token"
    elif _same(token, authentication_token()):
        return None
    else:
        why = "wrong token"
    emit = session._get_current_obj()._manager.backend.emit
    emit("form refused", why, None if why == "no session" else session.fingerprint)
    return _REASONS[why]


@overload
def authenticate_form(handler: Callable[P, T], /) -> Callable[P, T | Any]: ...
@overload
def authenticate_form(
    *, refuse: Callable[[str], Any]
) -> Callable[[Callable[P, T]], Callable[P, T | Any]]: ...
def authenticate_form(
    handler: Callable[..., Any] | None = None, /, *, refuse: Callable[[str], Any] = HTTPForbidden
) -> Callable[..., Any]:
    """Decorate a handler that does something: it runs only if the request has the token, in the
    form field or in the header `X-CSRF-Token`, or needs none.

    The handler may be a WSGI application, or take a request (of WebOb, Pyramid, Werkzeug,
    Bottle, Django), or neither. Without a token the answer is 403 and says why. *refuse* makes it
    from that sentence, and what it returns is returned in place of the handler's answer; by default
    that is `webob.exc.HTTPForbidden`, an application that WSGI servers, WebOb and Flask take.

    The method does not matter: whatever does something on GET is what a link of another site is
    made for.
    """
    if handler is None:
        return functools.partial(authenticate_form, refuse=refuse)

    @functools.wraps(handler)
    def checked(*args: Any, **kwargs: Any) -> Any:
        request, start_response = _request_among((*args, *kwargs.values()))
        why = refusal(_token_in(request))
        if why is None:
            return handler(*args, **kwargs)
        answer = refuse(why)
        return answer if start_response is None else answer(request, start_response)

    return checked


def _same(given: str, token: str) -> bool:
    # What a client sends may be text that cannot be encoded.
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _request_among(arguments: Iterable[Any]) -> tuple[Any, Any]:
    """Return the request that a handler was called with, and the `start_response` if it is
    WSGI's. A handler that takes none is in a request all the same: the session's."""
    arguments = iter(arguments)
    for argument in arguments:
        if isinstance(argument, dict) and "wsgi.input" in argument:
            return argument, next(arguments, None)
        if hasattr(argument, "environ"):
            return argument, None
    return session._get_current_obj()._environ, None


def _token_in(request: Any) -> str | None:
    """Return what the request has for a token, unchecked."""
    environ: WSGIEnvironment = request if isinstance(request, dict) else request.environ
    token = environ.get(_HEADER_KEY) or _form_of(request, environ).get(FIELD)
    return token if isinstance(token, str) else None  # it might be a file


def _form_of(request: Any, environ: WSGIEnvironment) -> Any:
    """Return the form, as the framework has read it: what is read twice may be gone."""
    try:
        return _read_form(request, environ)
    except _UNREADABLE:
        return {}


def _read_form(request: Any, environ: WSGIEnvironment) -> Any:
    for reader in (request, *map(environ.get, _REQUESTS)):
        for name in _FORMS:
            form = getattr(reader, name, None)
            if form is not None:
                return form
    reader = Request(environ)
    form = reader.POST
    if reader.is_body_seekable:  # WebOb has made it so; the handler begins at the beginning
        environ["wsgi.input"].seek(0)
    return form
