"""An application to audit: it has every endpoint that `nocookie.testing.audit` can ask for.

`application(find_id="query:sid", type="redis", url=...)` takes the options of `SessionMiddleware`;
`ENDPOINTS` describes it to the audit. From the shell, to try the audit on::

    python -m nocookie.testing.reference --port 8000

Each answer says in `X-Session-State` what became of its session: `new`, `known`, `rotated` (the
client has to be told another id), `none` (nothing is stored), or `gone` (the save was refused,
because another request ended the session).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urljoin

import click
from webob import Request, Response

from nocookie import SessionMiddleware, ValueRefused, session
from nocookie.forms import authentication_token, refusal
from nocookie.testing.audit.elsewhere import leads_elsewhere, ways_elsewhere
from nocookie.testing.serving import serving

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["ENDPOINTS", "Reference", "application"]

#: The endpoints of this application, as the audit wants them described.
ENDPOINTS: Final[Mapping[str, str]] = {
    "get": "/get",
    "set": "/set?k={k}&v={v}",
    "incr": "/incr?k={k}",
    "append": "/append?k={k}&v={v}",
    "fill": "/fill?k={k}&bytes={bytes}",
    "slow": "/slow?ms={ms}&k={k}",
    "slowread": "/slowread?ms={ms}",
    "login": "POST /login user={user}",
    "logout": "POST /logout",
    "rotate": "POST /rotate",
    "renew": "/renew",
    "sessions": "/sessions",
    "end_all": "POST /end_all",
    "end_others": "POST /end_others",
    "boom": "/boom?k={k}",
    "stream": "/stream?k={k}",
    "page": "/page",
    "go": "/go?to={to}",
    "token": "/token",
    "admin": "/admin",
    "guarded": "POST /guarded _authentication_token={token}",
}

STATE: Final = "X-Session-State"


def application(**options: Any) -> Reference:
    """Return the application, with the options of `SessionMiddleware`; without one the id travels
    in the header `X-Session-Id`. Raises `ConfigError`."""
    return Reference(SessionMiddleware(_respond, **{"use_cookies": False, **options}))


class Reference:
    """The application as a server sees it: around the middleware, what only it can see."""

    def __init__(self, sessions: SessionMiddleware) -> None:
        #: The middleware, and by it the store: `sessions.manager.backend.store`.
        self.sessions = sessions

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            if status.startswith("409") and not any(name == STATE for name, _ in headers):
                headers = [*headers, (STATE, "gone")]
            return start_response(status, headers, *exc_info)

        if self.sessions.manager.request(environ).came_by_https:
            environ["wsgi.url_scheme"] = "https"  # which a server behind a proxy may not know
        try:
            return self.sessions(environ, start)
        except _Boom:
            return Response("The application failed.\n", 500)(environ, start_response)


class _Boom(Exception):
    """What an application raises that has a fault."""


def _respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    request = Request(environ)
    handle = HANDLERS.get(environ.get("PATH_INFO", ""))  # WebOb would decode it, and some cannot be
    response = Response(status=404) if handle is None else handle(request)
    response.headers[STATE] = _state()
    # Not by a call of the response: that makes a Location absolute, as WebOb understands it.
    start_response(response.status, response.headerlist)
    return [] if request.method == "HEAD" else response.app_iter


def _state() -> str:
    if session.must_propagate:
        return "new" if session.is_new else "rotated"
    return "known" if session.reason is None else "none"


# -- reading and writing -------------------------------------------------------------------------


def get(request: Request) -> Response:
    return _json(dict(session))


def set(request: Request) -> Response:
    session[_given(request, "k")] = _given(request, "v")
    session.save()
    return _json("stored")


def incr(request: Request) -> Response:
    count = session.incr(_given(request, "k"))
    return _json(count)


def append(request: Request) -> Response:
    session.setdefault(_given(request, "k"), []).append(_given(request, "v"))
    session.save()
    return _json("stored")


def fill(request: Request) -> Response:
    try:
        session[_given(request, "k")] = "x" * int(_given(request, "bytes"))
        session.save()
    except ValueRefused:
        session.revert()
        return Response("That is more than a session holds.\n", 413, content_type="text/plain")
    return _json("stored")


def slow(request: Request) -> Response:
    _read_for(request)
    session[_given(request, "k")] = "slow"
    session.save()
    return _json("stored")


def slowread(request: Request) -> Response:
    _read_for(request)
    return _json(dict(session))


def _read_for(request: Request) -> None:
    dict(session)
    time.sleep(int(_given(request, "ms")) / 1000)


# -- the life of a session -----------------------------------------------------------------------


def login(request: Request) -> Response:
    user = _given(request, "user")
    if not user:
        return Response("Who are you?\n", 400, content_type="text/plain")
    session["user"] = user
    session.login(user)
    return _json("welcome")


def logout(request: Request) -> Response:
    return Response(status=303, headerlist=session.logout().headers)


def rotate(request: Request) -> Response:
    session.regenerate_id()
    return _json("rotated")


def renew(request: Request) -> Response:
    """Where the client can be told another id, whatever carries it; it is if that is due: see the
    options `rotate_every` and `rotation_grace`."""
    dict(session)
    return Response(status=303, location="get")


def sessions(request: Request) -> Response:
    return _json([one._asdict() for one in session.sessions_of()])


def end_all(request: Request) -> Response:
    return _json(session.end_all())


def end_others(request: Request) -> Response:
    return _json(session.end_all(but=session))


# -- what goes wrong -----------------------------------------------------------------------------


def boom(request: Request) -> Response:
    session[_given(request, "k")] = "boom"
    session.save()
    raise _Boom


def stream(request: Request) -> Response:
    key = _given(request, "k")
    dict(session)

    def body() -> Iterator[bytes]:
        yield b"first\n"
        session[key] = "late"
        session.save()
        yield b"last\n"

    return Response(app_iter=body(), content_type="text/plain")


# -- pages and links -----------------------------------------------------------------------------

LINKS: Final = (
    *("get", "./get", "?tab=2", "#below", "page#below", "/get", "get?a=1&b=2", "../get"),
    *('get?q="><b>', "get;v=1", "%67et", ""),
)


def page(request: Request) -> Response:
    """Links of every kind, for the rewriter to put ids on, or not."""
    here = request.path_url
    links = [*LINKS, f"{request.host_url}/get", f"//{request.host}/get", *ways_elsewhere(here)]
    rows = "".join(f'<li><a href="{escape(url)}">link</a>\n' for url in links)
    forms = "".join(
        f'<form method="{method}" action="{escape(url)}"><button>go</button></form>\n'
        for method in ("get", "post")
        for url in ("/set", "", "//elsewhere.example/", "https://elsewhere.example/post")
    )
    return Response(f"<!doctype html><title>Links</title>\n<ul>\n{rows}</ul>\n{forms}")


#: What stands for itself in a URL (RFC 3986), and what is in percents already.
_AS_IT_IS: Final = ":/?#[]@!$&'()*+,;=%~"


def go(request: Request) -> Response:
    """Redirect, but never to another origin."""
    to = _given(request, "to")
    if leads_elsewhere(to, request.path_url) or not to.isprintable():
        return Response("That is not here.\n", 400, content_type="text/plain")
    # A header holds no more than Latin-1, and a URL no more than ASCII.
    return Response(status=303, location=quote(urljoin(request.path, to), safe=_AS_IT_IS))


def token(request: Request) -> Response:
    return Response(authentication_token(), content_type="text/plain")


def guarded(request: Request) -> Response:
    """What another site must not be able to have done."""
    why = refusal(_given(request, "_authentication_token"))
    if why is not None:
        return Response(why, 403, content_type="text/plain")
    return _json("done")


def admin(request: Request) -> Response:
    """What nobody may see who has not logged in, whatever path leads here."""
    if "user" not in session:
        return Response("Log in first.\n", 403, content_type="text/plain")
    return _json("the accounts")


def _given(request: Request, name: str) -> str:
    value = request.params.get(name)
    return value if isinstance(value, str) else ""


def _json(value: Any) -> Response:
    return Response(json_body=value, content_type="application/json")


HANDLERS: Final[Mapping[str, Callable[[Request], Response]]] = {
    f"/{handle.__name__}": handle
    for handle in (
        *(get, set, incr, append, fill, slow, slowread, login, logout, rotate, renew),
        *(sessions, end_all, end_others, boom, stream, page, go, token, guarded, admin),
    )
}


@click.command()
@click.option("--port", default=8000, show_default=True, help="0 means any that is free.")
@click.option("--find-id", default="header:X-Session-Id", show_default=True)
@click.option(
    "--data-dir", help="Where the sessions lie; without it, in the memory of the process."
)
def main(port: int, find_id: str, data_dir: str | None) -> None:
    """Serve the application on this host until Ctrl-C."""
    rewrite = {"rewrite": "html"} if find_id.startswith(("query:", "path:", "param:")) else {}
    app = application(find_id=find_id, data_dir=data_dir, **rewrite)
    with serving(app, port) as url, suppress(KeyboardInterrupt):
        click.echo(f"the reference application, on {url}")
        threading.Event().wait()


if __name__ == "__main__":
    main(prog_name="python -m nocookie.testing.reference")
