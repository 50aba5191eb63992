"""The login and logout of the Pylons documentation, and what a site needs beside them.

    python examples/login.py               # ids in the links, no cookie
    COOKIES=1 python examples/login.py     # the same, ids in a cookie

Log in as ada with the password "correct horse". The handlers are the same in both modes: redirects
get the id by themselves where it is needed, and forms by `session.url`. A token in the forms keeps
other sites' pages from posting them; what is to be said after a redirect waits in the session.
"""

import hashlib
import hmac
import os
from html import escape
from wsgiref.simple_server import WSGIRequestHandler, make_server

from webob import Request, Response
from webob.exc import HTTPNotFound, HTTPSeeOther

from nocookie import SessionMiddleware, session
from nocookie.flash import flash, pop_messages
from nocookie.forms import authenticate_form, hidden_field


def hashed(password, salt):
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


USERS = {"ada": (b"a salt", hashed("correct horse", b"a salt"))}  # in earnest: in a database


def is_right(name, password):
    salt, wanted = USERS.get(name, (b"", b""))  # to find nobody takes as long
    return hmac.compare_digest(hashed(password[:100], salt), wanted)


# -- what is shown -------------------------------------------------------------------------------


def home(request):
    if session.owner is None:
        flash("Please log in.")
        return HTTPSeeOther(location="/login")
    return page(f"""<p>You are {escape(session.owner)}.</p>{form("/logout", "")}""")


def login_form(request):
    return page(form("/login", "<input name=name autofocus> <input name=password type=password>"))


def form(path, fields):
    token = hidden_field()  # before the URL: it begins a session where there is none
    return f"""<form method=post action="{escape(session.url(path))}">{token}{fields}
        <button>{path[1:]}</button></form>"""


def about(request):
    """No session is loaded or made for this page, because it asks for none."""
    return Response("<!doctype html><title>About</title><p>An example of nocookie.")


def page(body):
    messages = "".join(f"<p class={m.category}>{escape(str(m))}</p>" for m in pop_messages())
    return Response(f"<!doctype html><title>Login</title>{messages}{body}")


# -- what is done --------------------------------------------------------------------------------


@authenticate_form
def log_in(request):
    name = request.POST.get("name", "")
    if not is_right(name, request.POST.get("password", "")):
        flash("Wrong name or password.", "error")
        return HTTPSeeOther(location="/login")
    session.login(name)  # under a fresh id: whoever knew the one of before does not know this one
    flash(f"Welcome, {name}.")
    return HTTPSeeOther(location="/")


@authenticate_form
def log_out(request):
    farewell = session.logout("/login")  # the session has ended; the next one begins empty
    flash("Goodbye.")
    return HTTPSeeOther(headers=farewell.headers)


HANDLERS = {
    ("GET", "/"): home,
    ("GET", "/about"): about,
    ("GET", "/login"): login_form,
    ("POST", "/login"): log_in,
    ("POST", "/logout"): log_out,
}


def site(environ, start_response):
    request = Request(environ)
    handler = HANDLERS.get((request.method, request.path_info), lambda request: HTTPNotFound())
    return handler(request)(environ, start_response)


if os.environ.get("COOKIES"):
    application = SessionMiddleware(site, use_cookies=True)  # under HTTPS: secure=True
else:
    application = SessionMiddleware(site, use_cookies=False, find_id="query:sid", id_header="none")


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format, *args):
        """Not the request line: it may hold the id."""


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    with make_server("127.0.0.1", port, application, handler_class=QuietHandler) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
