"""A finder of your own: a chat bot whose clients name their conversation inside the JSON body.

    python examples/find_id_callback.py
    curl -d '{"say": "ada"}' http://127.0.0.1:8000/
    curl -d '{"say": "what is my name?", "conversation": "..."}' http://127.0.0.1:8000/

A finder is any callable that takes a WebOb request and returns a text or None. What it returns
may be anything a client sends: it is checked afterwards. Telling the client its id is then the
application's business: `session.must_propagate` says when.
"""

import os
from wsgiref.simple_server import make_server

from webob import Request, Response

from nocookie import SessionMiddleware, session


def find_conversation(request):
    message = message_of(request)
    return message.get("conversation")


def message_of(request):
    try:
        message = request.json_body
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def bot(environ, start_response):
    said = str(message_of(Request(environ)).get("say", "")).strip()[:100]
    if "name" in session:
        answer = {"answer": f"You are {session['name']}."}
    elif said:
        session["name"] = said
        session.save()
        answer = {"answer": f"Hello, {said}!"}
    else:
        answer = {"answer": "What is your name?"}
    if session.must_propagate:
        answer["conversation"] = session.id
    return Response(json_body=answer, content_type="application/json")(environ, start_response)


application = SessionMiddleware(
    bot,
    use_cookies=False,
    find_id=find_conversation,
    id_header="none",  # the body tells the id
)


if __name__ == "__main__":
    with make_server("127.0.0.1", int(os.environ.get("PORT", "8000")), application) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()
