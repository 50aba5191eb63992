"""What sees the session, and what does not: layers above and below, and a cache on either side.

    python examples/middleware_order.py
    curl http://127.0.0.1:8000/about                          # made once, then from the cache
    curl -i http://127.0.0.1:8000/me?name=ada                 # answers X-Session-Id: ...
    curl -H 'X-Session-Id: ...' http://127.0.0.1:8000/me      # made anew each time

The response header Seen-By lists what each layer saw: the one below the session the visitor, the
one above nobody. The cache is a small one, for pages that say that they may be kept.
"""

import os
from wsgiref.simple_server import make_server

from webob import Request, Response

from nocookie import SessionMiddleware, UnboundSessionError, session


def pages(environ, start_response):
    request = Request(environ)
    if request.path_info == "/about":
        response = Response("about us\n", cache_control="public, max-age=60")
    else:
        if "name" in request.GET:
            session["name"] = request.GET["name"]
            session.save()
        response = Response(f"{session.get('name', 'stranger')}\n")
        response.cache_control = "public, max-age=60"  # by mistake: it is still nobody else's
    return response(environ, start_response)


class MyMiddleware:
    """Writes down who is there, of whom the page asked. Above the session that is nobody."""

    def __init__(self, app, name):
        self.app, self.name = app, name

    def __call__(self, environ, start_response):
        request = Request(environ)
        response = request.get_response(self.app)
        try:
            # Whoever asks makes the answer depend on the session: it is cached no more.
            who = session.get("name", "stranger") if session.accessed() else "not asked"
        except UnboundSessionError:
            who = "no session"
        response.headers.add("Seen-By", f"{self.name}: {who}")
        return response(environ, start_response)


class CacheMiddleware:
    """Keeps what is public. A shared cache that obeys RFC 9111 looks at more; this one at least
    keeps nothing that must not be kept, and gives nothing to who sent what the page depends on."""

    def __init__(self, app):
        self.app, self.kept = app, {}

    def __call__(self, environ, start_response):
        request = Request(environ)
        response = self.kept.get(request.url)
        if response is None:
            response = request.get_response(self.app)
            control = response.cache_control
            if control.public and not control.no_store and not response.vary:
                self.kept[request.url] = response
        else:
            response = response.copy()
            response.headers["X-Cache"] = "hit"
        return response(environ, start_response)


app = MyMiddleware(pages, "below")
app = SessionMiddleware(app, use_cookies=False)
# MyMiddleware can see no session here, nothing above SessionMiddleware can.
app = MyMiddleware(app, "above")
# What the session middleware said about caching is seen from here only.
application = CacheMiddleware(app)


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
