"""XML-RPC with a session: a client on xmlrpc.client that keeps its id, and a server for it.

    python examples/xmlrpc_client.py                            # serves, calls, and prints
    python examples/xmlrpc_client.py http://127.0.0.1:8000/     # calls a server that is there

XML-RPC clients keep no cookies, and to give each procedure an argument for the id would change
the interface. A request header changes nothing: the transport sends and keeps it, the middleware
finds it, and the procedures use `session` as any handler does.
"""

import sys
import threading
import xmlrpc.client
from wsgiref.simple_server import WSGIRequestHandler, make_server
from xmlrpc.client import Fault

from webob import Request, Response
from webob.exc import HTTPBadRequest

from nocookie import Header, SessionMiddleware, session

HEADER = "X-Session-Id"
LARGEST_CALL = 65536

# -- the server ----------------------------------------------------------------------------------


def enter(name):
    if type(name) is not str or not name:
        raise TypeError("a name is a text")
    session.login(name)  # whoever becomes somebody gets a fresh id; this saves, too
    return f"Hello, {name}."


def count():
    # Calls may come at once: they are counted in the store, so none is lost.
    return session.incr("calls")


def who():
    return session.owner


def leave():
    session.logout()


PROCEDURES = {procedure.__name__: procedure for procedure in (enter, count, who, leave)}


def server(environ, start_response):
    request = Request(environ)
    try:
        if not 0 < (request.content_length or 0) <= LARGEST_CALL:
            raise ValueError("no call, or too large a one")
        arguments, name = xmlrpc.client.loads(request.body)
    except Exception:  # whatever the parser finds wrong with what anybody may send
        return HTTPBadRequest()(environ, start_response)
    try:
        # A fault is for mistakes of the caller. A store that fails passes through: it is a 503.
        answer = (PROCEDURES[name](*arguments),)
    except (KeyError, TypeError) as error:
        answer = Fault(1, f"no such procedure, or other arguments: {error}")
    text = xmlrpc.client.dumps(answer, methodresponse=True, allow_none=True)
    return Response(text, content_type="text/xml", charset="utf-8")(environ, start_response)


application = SessionMiddleware(server, use_cookies=False, find_id=Header(HEADER))

# -- the client ----------------------------------------------------------------------------------


class KeepsSession:
    """What a transport needs. One transport is for one server: no other gets the id."""

    id = None

    def send_headers(self, connection, headers):
        super().send_headers(connection, headers)
        if self.id is not None:
            connection.putheader(HEADER, self.id)

    def parse_response(self, response):
        self.id = response.getheader(HEADER, self.id)
        return super().parse_response(response)


class SessionTransport(KeepsSession, xmlrpc.client.Transport):
    """For http."""


class SafeSessionTransport(KeepsSession, xmlrpc.client.SafeTransport):
    """For https."""


def client(url):
    transport = SafeSessionTransport() if url.startswith("https:") else SessionTransport()
    return xmlrpc.client.ServerProxy(url, transport=transport, allow_none=True)


def talk(url):
    with client(url) as ada, client(url) as bob:
        print("ada:", ada.enter("ada"), ada.count(), ada.count(), ada.who())
        print("bob:", bob.who(), bob.count(), bob.who())
        ada.leave()
        print("ada left:", ada.who(), bob.count())


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format, *args):
        """Leave the terminal to the clients."""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        talk(sys.argv[1])
    else:
        with make_server("127.0.0.1", 0, application, handler_class=QuietHandler) as httpd:
            threading.Thread(target=httpd.serve_forever, daemon=True).start()
            talk(f"http://127.0.0.1:{httpd.server_port}/")
