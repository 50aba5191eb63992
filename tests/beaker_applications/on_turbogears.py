"""An application for TurboGears 2 and Beaker's middleware, as its author would have written it."""

from beaker.middleware import SessionMiddleware
from tg import (
    MinimalApplicationConfigurator,
    TGController,
    abort,
    expose,
    redirect,
    session,
)

PASSWORDS = {"ada": "lovelace", "alan": "turing"}


class RootController(TGController):
    @expose("json")
    def index(self):
        session["visits"] = session.get("visits", 0) + 1
        session.save()
        return {"visits": session["visits"], "user": session.get("user")}

    @expose()
    def login(self, name, password):
        if name not in PASSWORDS or PASSWORDS[name] != password:
            abort(403)
        session["user"] = name
        session.save()
        redirect("/account")

    @expose("json")
    def account(self):
        if "user" not in session:
            abort(401)
        return {"user": session["user"], "notes": session.get("notes", [])}

    @expose()
    def notes(self, text):
        session.setdefault("notes", []).append(text)
        session.save()
        return ""

    @expose()
    def logout(self):
        session.delete()
        return ""


def application(options):
    configurator = MinimalApplicationConfigurator()
    configurator.update_blueprint({"root_controller": RootController()})
    return SessionMiddleware(configurator.make_wsgi_app(), options)
