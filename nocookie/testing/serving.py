"""A WSGI application behind a real socket of this host, for as long as a test lasts."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["serving"]


@contextmanager
def serving(app: WSGIApplication, port: int = 0) -> Iterator[str]:
    """Serve *app* in a thread a connection, and give its URL. For tests: the server of the
    standard library is neither fast nor hardened. Raises OSError if the port is taken."""
    server = _Server(("127.0.0.1", port), _Handler)
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    # A request that hangs must not keep the test from ending.
    daemon_threads = True
    #: As many as an audit opens at once, and some more.
    request_queue_size = 128

    def server_bind(self) -> None:
        # Not as the base class does, which asks the resolver for this host's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of tests hang up in the middle; that is nothing to print."""


class _Handler(WSGIRequestHandler):
    #: Seconds that a client may be silent.
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a URL may hold an id."""
