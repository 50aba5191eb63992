"""The recipe of the Pylons documentation, "Hacking the session for no cookies", word for word.

    python examples/pylons_recipe.py
    curl http://127.0.0.1:8000/            # says where to go on

Only the import differs: nocookie stands where Beaker stood. The application finds the id and
propagates it by itself, here in the query of a link. In new code the same is one argument,
`find_id=Query("sid")`, or one call, `session.rebuild(id)`.
"""

import os
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, make_server

from webob import Request, Response

from nocookie import Session as BeakerSession
from nocookie import SessionMiddleware, session


def controller(environ, start_response):
    request = Request(environ)
    link = None

    def find_id_func():
        return parse_qs(request.query_string).get("sid", [None])[0]

    # The action, as published. ruff would prefer other quotes.
    # fmt: off

    # Get the actual session object through the global proxy
    real_session = session._get_current_obj()

    # Duplicate the session init options to avoid screwing up other sessions in
    # other threads
    params = real_session.__dict__['_params']

    # Now set the id param used to make a session to our session maker,
    # if id is None, a new id will be made automatically
    params['id'] = find_id_func()
    real_session.__dict__['_sess'] = BeakerSession({}, **params)

    # Now we can use the session as usual
    session['fred'] = 42
    session.save()

    # At the end, we need to see if the session was used and handle its id
    if session.is_new:
        # do something with session.id to make sure its around next time
        link = request.relative_url("?sid=" + session.id)

    # fmt: on
    if link is not None:
        text = f"You are new here. Go on at {link}\n"
    else:
        text = f"You were here before; fred is {session['fred']}.\n"
    return Response(text, content_type="text/plain", charset="utf-8")(environ, start_response)


application = SessionMiddleware(controller, {"beaker.session.use_cookies": "False"})


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format, *args):
        """Not the request line: it holds the id."""


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    with make_server("127.0.0.1", port, application, handler_class=QuietHandler) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
