"""One WSGI request without a server, and what it costs: the cells of the tables of the other files.

With the standard library and the public names of nocookie only, so that an older nocookie is
measured by it too.
"""

import io
import random
import string
import time

import nocookie

OPERATIONS = ("untouched", "read", "write", "new")
SAMPLE = 0.003  # seconds: short enough to fall between the slices of whatever else runs
HEADERS = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "2")]
ENVIRON = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/",
    "QUERY_STRING": "",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "HTTP_HOST": "localhost",
    "wsgi.url_scheme": "http",
    "wsgi.input": io.BytesIO(),
    "wsgi.multiprocess": False,
}


def text(length):
    return "".join(random.Random(length).choices(string.ascii_letters, k=length))


PAYLOADS = {
    "small": {"user_id": 123456, "name": "Ada Lovelace", "csrf": text(32)},
    "large": {"user_id": 123456} | {f"key_{n:03}": text(195) for n in range(99)},
}


class Nocookie:
    def __init__(self, **options):
        self.options = options

    def wrap(self, app):
        return nocookie.SessionMiddleware(app, use_cookies=False, **self.options)

    def open(self, environ):
        return environ["nocookie.session"]


class Bare:
    """No session."""

    def wrap(self, app):
        return app


class Closure(Bare):
    """The least that a middleware can be and still add a header."""

    def wrap(self, app):
        def middleware(environ, start_response):
            found = environ["x.found"] = [None]

            def start(status, headers, exc_info=None):
                if found[0] is not None:
                    headers.append(("X", "y"))
                return start_response(status, headers, exc_info)

            return app(environ, start)

        return middleware


class Cell:
    """One operation of one library, ready to be called."""

    def __init__(self, library, operation, size):
        self.library, self.payload, self.samples = library, PAYLOADS[size], []
        self.app = library.wrap(getattr(self, operation))
        self.environ = dict(ENVIRON)
        self.said = None
        if operation in ("read", "write") or (
            operation == "untouched" and hasattr(library, "open")
        ):
            token = self.stored()
            self.environ["QUERY_STRING"] = "page=2&sid=" + token
            self.environ["HTTP_X_SESSION_ID"] = token
        self.request()
        self.calls = 1
        while self.sample() < SAMPLE:
            self.calls *= 2

    def stored(self):
        app, self.app = self.app, self.library.wrap(self.new)
        self.request()
        self.app = app
        return self.id

    def untouched(self, environ, start_response):
        start_response("200 OK", list(HEADERS))
        return [b"ok"]

    def read(self, environ, start_response):
        assert self.library.open(environ)["user_id"]
        start_response("200 OK", list(HEADERS))
        return [b"ok"]

    def write(self, environ, start_response):
        session = self.library.open(environ)
        session["user_id"] = session["user_id"] + 1
        session.save()
        start_response("200 OK", list(HEADERS))
        return [b"ok"]

    def new(self, environ, start_response):
        session = self.library.open(environ)
        for name, value in self.payload.items():
            session[name] = value
        session.save()
        start_response("200 OK", list(HEADERS))
        if hasattr(self.library, "options"):
            self.id = session.id
        return [b"ok"]

    def start_response(self, status, headers, exc_info=None):
        self.said = headers

    def request(self):
        for _ in self.app(self.environ.copy(), self.start_response):
            pass

    def sample(self):
        request = self.request
        request()
        begin = time.perf_counter()
        for _ in range(self.calls):
            request()
        return time.perf_counter() - begin

    @property
    def figure(self):
        return sorted(self.samples)[len(self.samples) // 10]
