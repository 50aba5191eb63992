"""What a carrier has to do, as tests."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

from webob import Request

from nocookie.carriers import AmbiguousId, Carrier, Reply

try:
    import pytest
except ImportError as error:
    raise ImportError("nocookie.testing.CarrierSuite needs pytest: pip install pytest") from error

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["CarrierSuite"]

#: Texts of the form that ids have.
ID: Final = "bm9jb29raWUtdGVzdGluZy1maXJzdC1pZC0wMDAwMDA"
OTHER_ID: Final = "bm9jb29raWUtdGVzdGluZy1vdGhlci1pZC0wMDAwMDE"

#: What a hostile client may send. WSGI hands all of it over as Latin-1 text (PEP 3333).
HOSTILE: Final = (
    "",
    " ",
    "\0",
    f"{ID}\0",
    "\xe9\xff\x80",
    "%",
    "%zz",
    "%00",
    "%ff%fe",
    "%E9",
    ",",
    ";",
    "=",
    '"',
    f'"{ID}',
    "&" * 1000,
    ";" * 1000,
    "a" * 100_000,
    "\r\nSet-Cookie: x=1",
    "../../etc/passwd",
    "{0}%s",
    "\\",
)


class CarrierSuite:
    """What a carrier has to do: find, place and forget, without harm.

    Subclass it with a fixture `carrier`, a method `put`, and, if the carrier can place an id,
    `client_sends_back`.
    """

    @pytest.fixture
    def carrier(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a fixture named carrier")

    def put(self, environ: WSGIEnvironment, *ids: str) -> None:
        """Change *environ* into a request that holds *ids* where the carrier looks; several
        as a client would send several. The texts are not always ids: write them as they are."""
        raise NotImplementedError(f"{type(self).__name__} needs a method put(environ, *ids)")

    def client_sends_back(self, reply: Reply, environ: WSGIEnvironment) -> None:
        """Change *environ* into the next request of a client that got *reply*."""
        raise NotImplementedError(
            "the carrier placed an id: say how the client sends it back, in "
            f"{type(self).__name__}.client_sends_back(reply, environ)"
        )

    # -- find

    def test_is_a_carrier(self, carrier: Carrier) -> None:
        assert isinstance(carrier, Carrier)

    def test_nothing_sent_is_none(self, carrier: Carrier) -> None:
        assert carrier.find(Request(blank())) is None

    def test_optional_parts_of_the_environ_may_be_missing(self, carrier: Carrier) -> None:
        """PEP 3333: QUERY_STRING, CONTENT_TYPE and CONTENT_LENGTH may be empty or absent."""
        environ = blank()
        for name in ("QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_HOST"):
            environ.pop(name, None)
        assert carrier.find(Request(environ)) is None

    def test_finds_the_id_that_was_sent(self, carrier: Carrier) -> None:
        assert carrier.find(Request(self._request(ID))) == ID

    def test_finds_it_again(self, carrier: Carrier) -> None:
        environ = self._request(ID)
        carrier.find(Request(environ))
        assert carrier.find(Request(environ)) == ID

    def test_remembers_nothing_of_other_requests(self, carrier: Carrier) -> None:
        carrier.find(Request(self._request(ID)))
        assert carrier.find(Request(self._request(OTHER_ID))) == OTHER_ID
        assert carrier.find(Request(blank())) is None

    def test_the_same_id_twice_is_one(self, carrier: Carrier) -> None:
        assert carrier.find(Request(self._request(ID, ID))) == ID

    def test_different_ids_count_as_none(self, carrier: Carrier) -> None:
        """Whoever can add a parameter must not choose the session."""
        for ids in ((ID, OTHER_ID), (OTHER_ID, ID), (ID, OTHER_ID, ID)):
            try:
                found = carrier.find(Request(self._request(*ids)))
            except AmbiguousId:
                continue
            # None, or a text that no id can be: in either case there is no session to choose.
            assert found is None or not {ID, OTHER_ID} & {found}

    @pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
    def test_hostile_input_raises_nothing_else(self, carrier: Carrier, text: str) -> None:
        for ids in ((text,), (text, ID), (ID, text)):
            try:
                found = carrier.find(Request(self._request(*ids)))
            except AmbiguousId:
                continue
            assert found is None or type(found) is str

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
    def test_the_application_reads_the_whole_body(self, carrier: Carrier, method: str) -> None:
        for kind, body in (
            ("application/x-www-form-urlencoded", b"a=1&b=%C3%A9&c=" + b"x" * 70_000),
            ("application/x-www-form-urlencoded", b"a=1&b=2"),
            ("application/json", b'{"sid": "1"}'),
            ("multipart/form-data; boundary=b", b"--b\r\n\r\n1\r\n--b--\r\n"),
        ):
            environ = blank()
            environ["REQUEST_METHOD"] = method
            environ["CONTENT_TYPE"] = kind
            environ["CONTENT_LENGTH"] = str(len(body))
            environ["wsgi.input"] = io.BytesIO(body)
            carrier.find(Request(environ))
            assert environ["wsgi.input"].read() == body

    def test_the_application_reads_the_body_that_held_the_id(self, carrier: Carrier) -> None:
        environ = self._request(ID)
        body = environ["wsgi.input"].read()
        environ["wsgi.input"] = io.BytesIO(body)
        assert carrier.find(Request(environ)) == ID
        assert environ["wsgi.input"].read() == body

    # -- place and forget

    def test_what_is_placed_comes_back(self, carrier: Carrier) -> None:
        reply = self._reply()
        before = list(reply.headerlist)
        placed = carrier.place(ID, reply)
        assert placed is True or placed is False
        if not placed:
            assert (reply.status, reply.headerlist) == ("200 OK", before)
            return
        assert reply.headerlist != before or reply.status != "200 OK"
        environ = blank()
        self.client_sends_back(reply, environ)
        assert carrier.find(Request(environ)) == ID

    def test_headers_that_were_there_stay(self, carrier: Carrier) -> None:
        reply = self._reply()
        reply.headerlist += [("X-Theirs", "1"), ("Set-Cookie", "theirs=1")]
        carrier.place(ID, reply)
        carrier.forget(reply)
        assert ("X-Theirs", "1") in reply.headerlist
        assert ("Set-Cookie", "theirs=1") in reply.headerlist

    def test_headers_are_safe(self, carrier: Carrier) -> None:
        reply = self._reply()
        carrier.place(ID, reply)
        carrier.forget(reply)
        for name, value in reply.headerlist:
            assert type(name) is type(value) is str
            assert not set(name + value) & set("\r\n\0")
            assert (name + value).encode("latin-1")

    @pytest.mark.parametrize("status", ["200 OK", "304 Not Modified", "404 Not Found"])
    def test_forget_never_raises(self, carrier: Carrier, status: str) -> None:
        reply = self._reply()
        reply.status = status
        carrier.forget(reply)
        carrier.forget(reply)

    def test_what_is_forgotten_is_not_sent_back(self, carrier: Carrier) -> None:
        reply = self._reply()
        before = list(reply.headerlist)
        carrier.forget(reply)
        assert ID not in str([header for header in reply.headerlist if header not in before])

    def _request(self, *ids: str) -> WSGIEnvironment:
        environ = blank()
        self.put(environ, *ids)
        return environ

    def _reply(self) -> Reply:
        return Reply("200 OK", [("Content-Type", "text/html; charset=utf-8")], blank())


def blank() -> WSGIEnvironment:
    """The environ of a plain request."""
    environ: WSGIEnvironment = Request.blank("/page").environ
    environ["wsgi.input"] = io.BytesIO()
    return environ
