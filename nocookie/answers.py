"""Answers of our own, in place of the application's: problem details (RFC 9457), or text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from webob.acceptparse import create_accept_header

from nocookie.carriers import Bearer, Carrier
from nocookie.errors import NoSession, Refusal, SessionConflict, StoreError, TooManyTries
from nocookie.request import has_id_in_address

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["ANSWERED", "Answer", "answer"]

#: The errors that are answered here, if the application does not handle them.
ANSWERED: Final = (StoreError, SessionConflict, Refusal)

#: Seconds after which a client may try again when the store failed: long enough for a restart
#: or a fail-over to be over.
RETRY_AFTER: Final = 5

#: The best first; a browser asks for HTML, and gets the sentence.
_TYPES: Final = ("application/problem+json", "application/json", "text/plain", "text/html")
#: Longer ones are not read.
_LONGEST_ACCEPT: Final = 1000


class Answer(NamedTuple):
    """A whole response: status line, headers, and the body as GET has it."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


def answer(
    error: StoreError | SessionConflict | Refusal,
    environ: WSGIEnvironment,
    carriers: Iterable[Carrier] = (),
) -> Answer:
    """Answer for a session that could not be loaded or saved, or must not be. Nothing in it is the
    client's, nor the application's, which believed in a save that did not happen.

    A refusal under `Bearer` is a 401 with a challenge (RFC 6750, section 3).
    """
    status, further = error.status, []
    if isinstance(error, NoSession) and any(isinstance(c, Bearer) for c in carriers):
        was_sent = environ.get("HTTP_AUTHORIZATION", "").lower().startswith("bearer")
        if was_sent or error.reason == "absent":
            status = 401
            invalid = ' error="invalid_token"' if was_sent else ""
            further.append(("WWW-Authenticate", f"Bearer{invalid}"))
    if isinstance(error, StoreError):
        further.append(("Retry-After", str(RETRY_AFTER)))
    elif isinstance(error, TooManyTries):
        further.append(("Retry-After", str(error.retry_after)))
    if has_id_in_address(environ):
        further.append(("Referrer-Policy", "same-origin"))
    phrase = HTTPStatus(status).phrase
    type = _wanted(environ.get("HTTP_ACCEPT", ""))
    if type.startswith("text/"):
        type, text = "text/plain; charset=utf-8", error.detail
    else:
        text = json.dumps(
            {
                "title": phrase,
                "status": status,
                "detail": error.detail,
                "error": error.code,
                "reason": error.reason,
            }
        )
    body = f"{text}\n".encode()
    headers = [
        ("Content-Type", type),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept"),
        *further,
        ("Content-Length", str(len(body))),
    ]
    return Answer(f"{status} {phrase}", headers, body)


def _wanted(accept: str) -> str:
    if not accept or len(accept) > _LONGEST_ACCEPT:
        return _TYPES[0]
    offers = create_accept_header(accept).acceptable_offers(_TYPES)
    return offers[0][0] if offers else _TYPES[0]
