"""nocookie for the request-cost benchmark that compares session libraries.

A plugin: `register` and `WsgiPeer` come from the benchmark that loads it. As the peer it is
compared with, it takes the id from a query parameter.
"""

# ruff: noqa: F821
import nocookie


class NocookiePeer(WsgiPeer):  # type: ignore[name-defined, misc]
    def __init__(self, store, label, **options):
        self.store, self.name, self.options = store, f"nocookie {label}", options

    def setup(self, ctx):
        if self.store == "file":
            self.options["data_dir"] = ctx.path(self.name.replace(" ", "-"))

    def wrap(self, app):
        find_id = nocookie.Query("sid")
        # "sqlite" is only the group in which the benchmark compares: see below.
        kind = "file" if self.store in ("file", "sqlite") else self.store
        return nocookie.SessionMiddleware(
            app, use_cookies=False, find_id=find_id, type=kind, **self.options
        )

    def open(self, environ):
        return environ["nocookie.session"]

    def save(self, session):
        session.save()

    def prepare(self, environ, token):
        environ["QUERY_STRING"] = "page=2&sid=" + token

    def harvest(self, environ, headers):
        return dict(headers).get("X-Session-Id")


SECRET = "a secret for benchmarks, and nothing else"

register(NocookiePeer("memory", "memory"))
register(NocookiePeer("memory", "memory, with a secret", secret=SECRET))
register(NocookiePeer("file", "file"))
register(NocookiePeer("file", "file, with a secret", secret=SECRET))
