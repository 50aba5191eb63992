"""Applications on ports of their own, for a browser."""

import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from browser.recording import Recorder


class Quiet(WSGIRequestHandler):
    def log_message(self, format, *args):
        pass


class Threads(ThreadingMixIn, WSGIServer):
    """A browser opens connections that it may need, and those would keep a single thread busy."""

    daemon_threads = True


class Site:
    """An application, served on a port of its own; what it is asked is recorded."""

    def __init__(self, application):
        self.recorder = Recorder(application)
        self._server = make_server("127.0.0.1", 0, self.recorder, Threads, Quiet)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
