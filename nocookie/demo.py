"""The demo: a notebook whose notes survive a restart, for clients without cookies.

An application as anybody would write it, with the session in its handlers; the rest of this
file serves it and says how to try it. `nocookie demo` runs it.
"""

from __future__ import annotations

import os
import signal
import socketserver
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from webob import Request, Response
from webob.exc import (
    HTTPBadRequest,
    HTTPException,
    HTTPMethodNotAllowed,
    HTTPNotFound,
    HTTPRequestEntityTooLarge,
    HTTPSeeOther,
)

from nocookie import Header, Query, SessionMiddleware, session
from nocookie.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["application", "serve"]

#: What a notebook holds: enough to try things out, and no free storage for strangers.
MAX_NOTES: Final = 100
MAX_NOTE_LENGTH: Final = 1000
MAX_BODY: Final = 65536


def application(data_dir: str | os.PathLike[str]) -> SessionMiddleware:
    """Return the notebook, with its sessions in *data_dir*."""
    return SessionMiddleware(
        _notebook,
        use_cookies=False,
        find_id=[Header("X-Session-Id"), Query("sid")],
        type="file",
        data_dir=os.fspath(data_dir),
    )


# -- the notebook --------------------------------------------------------------------------------


def _notebook(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    request = Request(environ)
    try:
        return _route(environ)(request)(environ, start_response)
    except HTTPException as error:
        return error(environ, start_response)


def _route(environ: WSGIEnvironment) -> Callable[[Request], Response]:
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
    if (method, path) in ROUTES:
        return ROUTES[method, path]
    allowed = [method for method, known in ROUTES if known == path]
    raise HTTPMethodNotAllowed(allow=", ".join(allowed)) if allowed else HTTPNotFound()


def show(request: Request) -> Response:
    session.incr("visits")
    return _answer(request)


def add_note(request: Request) -> Response:
    note = _posted_note(request)

    def add(stored: MutableMapping[str, Any]) -> None:
        stored["notes"] = [*stored.get("notes", []), note][-MAX_NOTES:]

    session.mutate(add)
    return _answer(request, then="/")


def rotate(request: Request) -> Response:
    session.regenerate_id()
    return _answer(request, then="/")


def end(request: Request) -> Response:
    session.delete()
    return _answer(request, then="/")


ROUTES: Final[Mapping[tuple[str, str], Callable[[Request], Response]]] = {
    ("GET", "/"): show,
    ("HEAD", "/"): show,
    ("POST", "/notes"): add_note,
    ("POST", "/rotate"): rotate,
    ("DELETE", "/session"): end,
    ("POST", "/logout"): end,
}


def _posted_note(request: Request) -> str:
    try:
        if (request.content_length or 0) > MAX_BODY:
            raise HTTPRequestEntityTooLarge()
        if request.content_type == "application/json":
            body = request.json_body
            note = body.get("note") if isinstance(body, dict) else None
        else:
            note = request.POST.get("note")
        if isinstance(note, str):
            note.encode()  # JSON can spell what UTF-8 cannot
    except (ValueError, RecursionError) as error:
        raise HTTPBadRequest("The body is neither a form nor JSON.") from error
    if not isinstance(note, str) or not 0 < len(note.strip()) <= MAX_NOTE_LENGTH:
        raise HTTPBadRequest(f"A note is a text of 1 to {MAX_NOTE_LENGTH} characters.")
    return note.strip()


# -- answers: JSON, or a page for a browser ------------------------------------------------------


def _answer(request: Request, then: str | None = None) -> Response:
    """Show the session: as JSON, or as a page. A form's answer is to go to *then*."""
    if "text/html" in [kind for kind, _ in request.accept.acceptable_offers(OFFERS)][:1]:
        response: Response = HTTPSeeOther(location=_link(then)) if then else _page(request)
    else:
        response = Response(json_body=_seen(request), content_type="application/json")
        response.body += b"\n"
    response.vary = ("Accept",)
    # The id is in the links of the page, and may be in its address.
    response.cache_control = "no-store"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


OFFERS: Final = ("application/json", "text/html")


def _seen(request: Request) -> dict[str, Any]:
    return {
        "visits": session.get("visits", 0),
        "notes": session.get("notes", []),
        "is_new": session.is_new,
        "reason": session.reason,
        "id_came_by": _came_by(request),
        "fingerprint": session.fingerprint,
    }


def _came_by(request: Request) -> str | None:
    if request.headers.get("X-Session-Id"):
        return "header"
    # An id in the address is taken out of it before the application could see it.
    return None if session.is_new else "query"


def _link(path: str) -> str:
    """Return a link that keeps the session: its id goes with it, once there is a session."""
    if session:
        return f"{path}?{urlencode({'sid': session.id})}"
    return path


def _page(request: Request) -> Response:
    seen = _seen(request)
    notes = "".join(f"<li>{escape(note)}</li>" for note in seen["notes"]) or "<li>none yet</li>"
    facts = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in seen.items()
        if name != "notes"
    )
    return Response(
        PAGE.format(
            facts=facts,
            notes=notes,
            again=escape(_link("/")),
            notes_url=escape(_link("/notes")),
            rotate_url=escape(_link("/rotate")),
            logout_url=escape(_link("/logout")),
        )
    )


PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>A notebook without cookies</title>
<style>
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto }}
  th {{ text-align: left; padding-right: 1rem }}
  form {{ display: inline }}
</style>
<h1>A notebook without cookies</h1>
<p>This page sets no cookie. Its links and forms carry the id of your session, so
<a href="{again}">come again by this link</a> and the notes are still here; open the bare address
and you are a stranger.</p>
<ul>{notes}</ul>
<form method="post" action="{notes_url}">
  <input name="note" required maxlength="1000" placeholder="a note" aria-label="a note" autofocus>
  <button>add</button>
</form>
<h2>What the server saw</h2>
<table>{facts}</table>
<p>
<form method="post" action="{rotate_url}"><button>take a fresh id</button></form>
<form method="post" action="{logout_url}"><button>end the session</button></form>
</p>
</html>
"""


# -- the server ----------------------------------------------------------------------------------


def serve(host: str, port: int, data_dir: str | os.PathLike[str]) -> None:
    """Serve the notebook until Ctrl-C or SIGTERM. Raises `ConfigError`."""
    app = application(data_dir)
    try:
        Path(data_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot use the folder {data_dir}: {error.strerror}") from error
    try:
        server = _Server((host, port), _Handler)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}; name another with --port"
        ) from error
    server.set_app(app)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shown = "127.0.0.1" if host in ("", "0.0.0.0") else host  # noqa: S104 - shown, not bound
    url = f"http://{shown}:{server.server_port}"
    try:
        with suppress(KeyboardInterrupt):
            _say(INTRODUCTION.format(url=url, data=Path(data_dir).resolve() / "sessions"))
            server.serve_forever()
        with suppress(KeyboardInterrupt):  # the second one, from somebody in a hurry
            server.server_close()
        _say("\nStopped. The sessions are kept.")
    finally:
        app.manager.backend.store.close()


INTRODUCTION: Final = """\
A notebook without cookies, on {url}/ (a browser may go there too).

Copy these lines into another terminal. The id in a header, the recommended way:

    SID=$(curl -s -o /dev/null -D - {url}/ | tr -d '\\r' \
| sed -n 's/^[Xx]-[Ss]ession-[Ii]d: *//p')
    curl -s -H "X-Session-Id: $SID" {url}/
    curl -s -H "X-Session-Id: $SID" -d note=milk {url}/notes

The same session with the id in the query, for clients that can send no header:

    curl -s "{url}/?sid=$SID"
    curl -s -d note=bread "{url}/notes?sid=$SID"

A fresh id for the session, after which the old one is dead:

    SID=$(curl -s -o /dev/null -D - -X POST -H "X-Session-Id: $SID" {url}/rotate | tr -d '\\r' \
| sed -n 's/^[Xx]-[Ss]ession-[Ii]d: *//p')

Now stop this program, or kill it, and start it again. The notes are still there:

    curl -s -H "X-Session-Id: $SID" {url}/

The end of the session, here and for every copy of its id:

    curl -s -X DELETE -H "X-Session-Id: $SID" {url}/session

The sessions lie in {data}
"""


def _say(text: str) -> None:
    # In one piece: print() would let the lines of two threads mix.
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    #: Closing the server waits for the requests that it is serving.
    daemon_threads = False
    #: Else a second demo on the same port would get every other request of the first.
    allow_reuse_port = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(WSGIRequestHandler):
    #: Seconds until a silent client loses its thread: browsers open connections ahead of need,
    #: and a stop waits for them.
    timeout = 5

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # Not the request line: it may hold an id, in the query.
        path = quote(getattr(self, "path", "").partition("?")[0], safe="/%")
        _say(f"{self.command or '-'} {path} {code}")

    def log_message(self, format: str, *args: Any) -> None:
        """Not what the base class says of bad requests: it quotes them, ids included."""
