"""A JSON API whose clients carry the id in a header: a shopping list with a login.

    python examples/header_api.py
    python examples/header_client.py          # in another terminal

Shows the header carrier, sessions in a file that survive a restart, a fresh id at the login,
and the end of a session at the logout. The data lies in ./data, or in the folder DATA_DIR.
"""

import os
from wsgiref.simple_server import make_server

from webob import Request, Response
from webob.exc import HTTPBadRequest, HTTPException, HTTPNotFound, HTTPUnauthorized

from nocookie import Header, SessionMiddleware, session


def login(request):
    # Whoever gains rights gets a fresh id: one that somebody else may know is then worthless.
    session.login(text_of(request, "user"))
    return {"user": session.owner}


def logout(request):
    session.logout()
    return {"user": None}


def show(request):
    return {"user": session.owner, "items": session.get("items", [])}


def add(request):
    if session.owner is None:
        raise HTTPUnauthorized("Log in first.")
    item = text_of(request, "item")
    # Many requests may add at once. mutate() applies the change to the list as it is stored.
    session.mutate(lambda stored: stored.update(items=[*stored.get("items", []), item]))
    return show(request)


def text_of(request, name):
    try:
        text = request.json_body[name]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str) or not text.isprintable() or not text:
        raise HTTPBadRequest(f"The body is JSON with a text under {name!r}.")
    return text


ROUTES = {
    ("POST", "/login"): login,
    ("POST", "/logout"): logout,
    ("GET", "/items"): show,
    ("POST", "/items"): add,
}


def api(environ, start_response):
    request = Request(environ)
    handler = ROUTES.get((request.method, environ["PATH_INFO"]))
    try:
        if handler is None:
            raise HTTPNotFound
        response = Response(json_body=handler(request), content_type="application/json")
    except HTTPException as error:
        response = error
    return response(environ, start_response)


application = SessionMiddleware(
    api,
    use_cookies=False,
    find_id=Header("X-Session-Id"),
    type="file",
    data_dir=os.environ.get("DATA_DIR", "data"),
)


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
