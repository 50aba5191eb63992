"""Your devices: where somebody is logged in, and how they log out elsewhere.

    python examples/devices.py            # then open http://127.0.0.1:8000/ in two browsers

Log in under any name; with "remember me" the session lives for 30 days instead of 12 hours. The
page lists the sessions of that owner, each with a button that ends it, and one that ends all but
this. Before it ends anything it asks who is there once more (OWASP ASVS 5.0, 7.5.2).
"""

import os
from html import escape
from time import gmtime, strftime
from wsgiref.simple_server import make_server

from webob import Request, Response
from webob.exc import HTTPForbidden, HTTPNotFound, HTTPSeeOther

from nocookie import SessionMiddleware, session
from nocookie.forms import authenticate_form, hidden_field

DAY = 86400
PASSWORD = "correct horse"  # in earnest: one for each name; see examples/login.py


def devices(request):
    if session.owner is None:
        return page(form("/login", NAME + PASSWORD_FIELD + REMEMBER, "Log in"))
    rows = "".join(f"<li>{told(one)}</li>" for one in session.sessions_of())
    others = form("/end-others", PASSWORD_FIELD, "Log out everywhere else")
    return page(
        f"<p>You are {escape(session.owner)}.</p><ul>{rows}</ul>"
        f"{others}{form('/logout', '', 'Log out here')}"
    )


def told(one):
    client = escape(one.client or "an unknown client")
    last = strftime("%d %B %Y, %H:%M", gmtime(one.last_accessed))
    if one.fingerprint == session.fingerprint:
        return f"<b>This one</b>: {client}"
    name = f'<input type=hidden name=fingerprint value="{one.fingerprint}">'
    return f"{client}, last seen on {last} (UTC) {form('/end', name + PASSWORD_FIELD, 'End')}"


NAME = "<label>Name <input name=name required maxlength=100></label> "
PASSWORD_FIELD = "<label>Password <input name=password type=password required></label> "
REMEMBER = "<label><input name=remember type=checkbox> remember me</label> "


def form(path, fields, button):
    return f"""<form method=post action="{escape(session.url(path))}">{hidden_field()}{fields}
        <button>{button}</button></form>"""


def page(body):
    return Response(f"<!doctype html><title>Your devices</title>{body}")


# -- what is done --------------------------------------------------------------------------------


@authenticate_form
def log_in(request):
    name = request.POST.get("name", "").strip()[:100]
    if not name or request.POST.get("password") != PASSWORD:
        return HTTPForbidden()
    session.login(name)
    if "remember" in request.POST:
        session.timeout = session.lifetime = 30 * DAY
    return HTTPSeeOther(location="/")


@authenticate_form
def log_out(request):
    return HTTPSeeOther(headers=session.logout("/").headers)


@authenticate_form
def end(request):
    if request.POST.get("password") != PASSWORD:
        return HTTPForbidden()
    session.end_one(request.POST.get("fingerprint", ""))  # only if it is one of this owner
    return HTTPSeeOther(location="/")


@authenticate_form
def end_others(request):
    if request.POST.get("password") != PASSWORD:
        return HTTPForbidden()
    session.end_all(but=session)
    return HTTPSeeOther(location="/")


HANDLERS = {
    ("GET", "/"): devices,
    ("POST", "/login"): log_in,
    ("POST", "/logout"): log_out,
    ("POST", "/end"): end,
    ("POST", "/end-others"): end_others,
}


def site(environ, start_response):
    request = Request(environ)
    handler = HANDLERS.get((request.method, request.path_info), lambda request: HTTPNotFound())
    return handler(request)(environ, start_response)


application = SessionMiddleware(site)  # under HTTPS: secure=True


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
