"""nocookie for a benchmark of session libraries that loads its peers as plugins.

`register` and `WsgiPeer` come from the benchmark. The id travels in the header, which is our
default and what we recommend, and for comparison in a query parameter, where every response
gets two headers more that keep the id in.
"""

# ruff: noqa: F821
import nocookie

SECRET = "a secret for benchmarks, and nothing else"


class NocookiePeer(WsgiPeer):  # type: ignore[name-defined, misc]
    def __init__(self, store, label, find_id="header:X-Session-Id", **options):
        self.store, self.name = store, f"nocookie {label}"
        self.find_id, self.options = find_id, options

    def setup(self, ctx):
        folder = ctx.path(self.name.replace(" ", "-"))
        self.type = self.store
        if self.store == "file":
            self.options["data_dir"] = folder
        elif self.store == "redis":
            if not ctx.redis_port:
                raise RuntimeError("no redis-server")
            self.options["url"] = f"redis://127.0.0.1:{ctx.redis_port}/3"
        elif self.store == "memcached":
            if not ctx.memcached_port:
                raise RuntimeError("no memcached")
            self.options["url"] = f"127.0.0.1:{ctx.memcached_port}"
        elif self.store == "sqlite":
            self.type = "sqlalchemy"
            self.options |= {"url": f"sqlite:///{folder}/sessions.db", "create_table": True}

    def wrap(self, app):
        return nocookie.SessionMiddleware(
            app, use_cookies=False, find_id=self.find_id, type=self.type, **self.options
        )

    def open(self, environ):
        return environ["nocookie.session"]

    def save(self, session):
        session.save()

    def prepare(self, environ, token):
        environ["HTTP_X_SESSION_ID"] = token
        environ["QUERY_STRING"] = "page=2&sid=" + token

    def harvest(self, environ, headers):
        return dict(headers).get("X-Session-Id")


for store in ("memory", "file", "redis", "memcached", "sqlite"):
    register(NocookiePeer(store, store))
    register(NocookiePeer(store, f"{store}, secret", secret=SECRET))
    register(NocookiePeer(store, f"{store}, query", find_id="query:sid"))
