"""An application that takes sockets over, with sessions: by flask-sock, or by what the server
itself gives an application for that (gevent-websocket).

    /begin           a new session
    /show            what is in the session, and when it was used before
    /later?seconds=  from now on it is so much later
    /handled         how many WebSockets are done with
    /socket          a WebSocket: each message is an order, one of ORDERS, and is answered
"""

import time
from functools import partial

from flask import Flask, jsonify, request
from flask_sock import Sock

from nocookie import SessionMiddleware, session

flask = Flask(__name__)
later = 0.0
handled = 0


def clock():
    return time.time() + later


@flask.get("/")
def index():
    return "here"


@flask.get("/begin")
def begin():
    session["begun"] = True
    session.save()
    return "begun"


@flask.get("/show")
def show():
    return jsonify({**session, "idle": clock() - (session.last_accessed or clock())})


@flask.get("/later")
def make_later():
    global later
    later += float(request.args["seconds"])
    return "later"


def save():
    session["said"] = session.get("said", 0) + 1
    session.save()


@flask.get("/handled")
def show_handled():
    return f"{handled}"


ORDERS = {"read": lambda: session.get("begun"), "save": save}


@Sock(flask).route("/socket")
def by_flask_sock(socket):
    while True:
        order = socket.receive()
        socket.send(f"{ORDERS[order]()}")


def by_gevent_websocket(socket):
    """A body that works while it is iterated; nobody calls its close()."""
    while (order := socket.receive()) is not None:
        socket.send(f"{ORDERS[order]()}")
    yield from ()


def choose(environ, start_response):
    if environ["PATH_INFO"] == "/socket" and "wsgi.websocket" in environ:
        return by_gevent_websocket(environ["wsgi.websocket"])
    return flask(environ, start_response)


with_sessions = SessionMiddleware(
    choose, use_cookies=False, clock=clock, on_event=partial(print, flush=True)
)


def application(environ, start_response):
    try:
        body = with_sessions(environ, start_response)
    except StopIteration:  # of flask-sock
        count()
        raise
    return counted(body) if environ["PATH_INFO"] == "/socket" else body


def counted(body):
    yield from body
    count()


def count():
    global handled
    handled += 1
