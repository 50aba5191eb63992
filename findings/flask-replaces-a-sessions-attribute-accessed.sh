#!/usr/bin/env bash
# Flask 3.1.3 assigns `accessed = True` on whatever a SessionInterface returns, the first time that
# flask.session is used. A session class of one's own that has a method of that name loses it there:
# the first look finds a bool. A view that leaves the session alone still sees the method.
# Seen: Flask 3.1.3.
#   untouched: method
#   touched:   bool
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet Flask==3.1.3 Werkzeug==3.1.9
"$folder/venv/bin/python" - <<'PYTHON'
from flask import Flask, session
from flask.sessions import SessionInterface


class Session(dict):
    permanent = new = modified = False

    def accessed(self):
        return "when it was used last"


made = []


class Interface(SessionInterface):
    def open_session(self, app, request):
        made.append(Session())
        return made[-1]

    def save_session(self, app, session, response):
        pass


app = Flask(__name__)
app.session_interface = Interface()
app.add_url_rule("/untouched", "untouched", lambda: "")
app.add_url_rule("/touched", "touched", lambda: str(session.get("a")))
client = app.test_client()
client.get("/untouched")
untouched = type(made[-1].accessed).__name__
client.get("/touched")
touched = type(made[-1].accessed).__name__
print("untouched:", untouched)
print("touched:  ", touched)
assert (untouched, touched) == ("method", "bool")
PYTHON
