"""Streams of applications that set a context variable in their call, and reset it in their body.

/stream  by Flask's stream_with_context
/traced  by OpenTelemetry's middleware, around any body
/ended   how many of Flask's contexts have ended, and its version
"""

import importlib.metadata

from flask import Flask, request, stream_with_context
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider

from nocookie import SessionMiddleware, session

flask = Flask(__name__)
ended = 0


@flask.get("/")
def index():
    return "here"


@flask.get("/stream")
def stream():
    session["path"] = request.path
    session.save()

    def pieces():
        yield f"{request.path} "
        yield session["path"]

    return flask.response_class(stream_with_context(pieces()))


@flask.teardown_appcontext
def count(error):
    global ended
    ended += 1


@flask.get("/ended")
def show():
    return {"ended": ended, "flask": importlib.metadata.version("flask")}


def plain(environ, start_response):
    session["path"] = environ["PATH_INFO"]
    session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [session["path"].encode()]


traced = OpenTelemetryMiddleware(plain, tracer_provider=TracerProvider())


def choose(environ, start_response):
    app = traced if environ["PATH_INFO"] == "/traced" else flask
    return app(environ, start_response)


application = SessionMiddleware(choose, use_cookies=False)
