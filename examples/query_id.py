"""The id in the query: for a page in a frame on another site, where cookies are blocked.

    python examples/query_id.py           # then open http://127.0.0.1:8000/ in a browser

Every link and form of the page carries the id, so each frame has a session of its own. An id in
a URL can leak: the page forbids caching and referrers, it takes a fresh id when the visitor
gains rights, and the server below does not log the query. A header is better where the client
can send one.
"""

import os
from html import escape
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIRequestHandler, make_server

from webob import Request, Response
from webob.exc import HTTPSeeOther

from nocookie import Query, SessionMiddleware, session


def link(path):
    return f"{path}?{urlencode({'sid': session.id})}"


def quiz(environ, start_response):
    request = Request(environ)
    if request.method == "POST":
        if request.POST.get("name"):
            session.login(request.POST["name"][:100])
        session["clicks"] = session.get("clicks", 0) + 1
        session.save()
        response = HTTPSeeOther(location=link("/"))
    else:
        response = Response(page(), content_type="text/html", charset="utf-8")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "same-origin"
    return response(environ, start_response)


def page():
    action = escape(link("/"))
    if session.owner is not None:
        return f"""<!doctype html><title>Clicks</title>
            <p>{escape(session.owner)} clicked {session["clicks"]} times.</p>
            <form method=post action="{action}"><button>click</button></form>"""
    # Only what is saved has an id that lasts: begin the session with the page that links to it.
    session["clicks"] = 0
    session.save()
    return f"""<!doctype html><title>Clicks</title>
        <form method=post action="{action}">
        <label>Your name <input name=name required maxlength=100></label> <button>begin</button>
        </form>"""


application = SessionMiddleware(
    quiz,
    use_cookies=False,
    find_id=Query("sid"),
    id_header="none",  # the page has told the id; a header would tell it twice
)


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format, *args):
        """Not the request line: it holds the id."""


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    with make_server("127.0.0.1", port, application, handler_class=QuietHandler) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
