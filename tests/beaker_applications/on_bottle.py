"""An application for Bottle and Beaker, as its author would have written it."""

from beaker.middleware import SessionMiddleware
from bottle import Bottle, HTTPError, redirect, request

PASSWORDS = {"ada": "lovelace", "alan": "turing"}

bottle = Bottle()


@bottle.get("/")
def visits():
    session = request.environ["beaker.session"]
    session["visits"] = session.get("visits", 0) + 1
    session.save()
    return {"visits": session["visits"], "user": session.get("user")}


@bottle.post("/login")
def login():
    name = request.forms.get("name")
    if name not in PASSWORDS or PASSWORDS[name] != request.forms.get("password"):
        raise HTTPError(403, "wrong name or password")
    session = request.environ.get("beaker.session")
    session["user"] = name
    session.save()
    redirect("/account")


@bottle.get("/account")
def account():
    session = request.environ.get("beaker.session")
    if "user" not in session:
        raise HTTPError(401, "log in first")
    return {"user": session["user"], "notes": session.get("notes", [])}


@bottle.post("/notes")
def add_note():
    session = request.environ.get("beaker.session")
    session.setdefault("notes", []).append(request.forms.get("text"))
    session.save()


@bottle.post("/logout")
def logout():
    request.environ.get("beaker.session").delete()


def application(options):
    return SessionMiddleware(bottle, options)
