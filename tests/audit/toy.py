"""An application with sessions that are done right, unless a fault is asked for.

`Toy("adopts")` is wrong in one way. What passes against `Toy()` and fails against a faulty one can
tell them apart. Nothing of nocookie is in it: the rig is not to be judged by what it was written
for.
"""

import contextlib
import hashlib
import itertools
import json
import pickle
import secrets
import threading
import time
from html import escape
from urllib.parse import parse_qs, quote, unquote_plus

from nocookie.testing import FakeClock
from nocookie.testing.audit.elsewhere import leads_elsewhere, ways_elsewhere

TIMEOUT, LIFETIME, GRACE = 100.0, 1000.0, 10.0

ENDPOINTS = {
    "set": "/set?k={k}&v={v}",
    "incr": "/incr?k={k}",
    "append": "/append?k={k}&v={v}",
    "fill": "/fill?k={k}&bytes={bytes}",
    "slow": "/slow?ms={ms}&k={k}",
    "slowread": "/slowread?ms={ms}",
    "login": "POST /login user={user}",
    **{name: f"POST /{name}" for name in ("logout", "rotate", "renew", "end_all", "end_others")},
    "boom": "/boom?k={k}",
    "stream": "/stream?k={k}",
    **{name: f"/{name}" for name in ("get", "page", "token", "sessions", "admin")},
    "go": "/go?to={to}",
    "guarded": "POST /guarded token={token}",
}


class Down(Exception):
    """The store is down."""


class Toy:
    def __init__(self, *faults, carrier="header:X-Session-Id"):
        self.faults = set(faults)
        self.kind, _, self.name = carrier.partition(":")
        self.clock = FakeClock()
        self.records = {}
        self.graces = {}
        self.down = False
        self.calls = 0
        self.events = []
        self.log = []
        self.access = []
        self.last = {}
        self.counter = itertools.count(10**6)
        self.lock = threading.RLock()

    def has(self, fault):
        return fault in self.faults

    def description(self):
        """What the audit is told of it."""
        return {
            "carrier": f"{self.kind}:{self.name}",
            "endpoints": ENDPOINTS,
            "timeout": TIMEOUT,
            "lifetime": LIFETIME,
            "grace": GRACE,
            "deadline": 0.2,
            "bound_to": "User-Agent",
            "store_dump": lambda: repr(self.records).encode(),
            "store_count": lambda: len(self.records),
            "store_calls": lambda: self.calls,
            "overwrite": self.overwrite,
            "purge": self.purge,
            "outage": self.outage,
            "log_text": lambda: "\n".join(self.log),
            "access_log": lambda: "\n".join(self.access),
            "events": lambda: self.events,
            "advance": self.clock.advance,
            "clears_site_data": True,
            # As few as there may be: this application is as fast as it is wrong.
            "ids": 400,
            "rounds": 3,
            "threads": 4,
        }

    # -- the store

    def key(self, id):
        return id if self.has("stores ids") else hashlib.sha256(id.encode()).hexdigest()

    def load(self, id):
        """Return the living record of an id, or None."""
        self.calls += 1
        if self.down:
            if self.has("hangs when the store is down"):
                time.sleep(1)
            raise Down
        if self.has("folds case"):
            id = id.lower()
        with self.lock:
            if id in self.graces:
                successor, until = self.graces[id]
                if self.clock.now <= until:
                    id = successor
            record = self.records.get(self.key(id))
            if record is None:
                return None
            dead = record["accessed"] + TIMEOUT <= self.clock.now
            dead = dead and not self.has("never idles")
            over = record["created"] + LIFETIME <= self.clock.now
            dead = dead or (over and not self.has("lives for ever"))
            if record["accessed"] > self.clock.now and not self.has("trusts the future"):
                back = record["accessed"] - self.clock.now
                record["accessed"] -= back
                record["created"] -= back
            if dead:
                if not self.has("forgets nothing"):
                    del self.records[self.key(id)]
                return None
            record["accessed"] = self.clock.now
            return record

    def read(self, record):
        if self.has("unpickles"):
            with contextlib.suppress(Exception):
                return pickle.loads(record["data"])
        try:
            data = json.loads(record["data"])
            assert isinstance(data, dict)
        except Exception:
            if self.has("crashes on corruption"):
                raise
            return None
        return data

    def write(self, record, data):
        record["data"] = json.dumps(data).encode()

    def create(self, data, **more):
        if self.down:
            raise Down
        record = {"created": self.clock.now, "accessed": self.clock.now, "user": None, **more}
        self.write(record, data)
        id = self.new_id()
        with self.lock:
            self.records[self.key(id)] = record
        self.happened("created")
        return id

    def new_id(self):
        if self.has("counts"):
            return str(next(self.counter)).rjust(32, "0")
        if self.has("ids of 122 bits"):
            return f"{secrets.token_hex(6)}4{secrets.token_hex(1)[0]}{secrets.token_hex(8)}0a"
        if self.has("ids in order"):
            return f"{time.time_ns():032x}{secrets.token_hex(16)}"
        if self.has("repeats ids"):
            return f"{next(self.counter) // 2:x}".rjust(32, "a")
        if self.has("ids with markup"):
            return f"<{secrets.token_hex(16)}>"
        return secrets.token_hex(16)

    def happened(self, event):
        if not self.has("tells no events"):
            self.events.append(event)

    def overwrite(self, data):
        for record in self.records.values():
            record["data"] = data

    def purge(self):
        if self.has("sweeps nothing"):
            return
        with self.lock:
            for key, record in list(self.records.items()):
                idle = record["accessed"] + TIMEOUT <= self.clock.now
                if idle or self.has("sweeps the living"):
                    del self.records[key]

    @contextlib.contextmanager
    def outage(self):
        self.down = True
        try:
            yield
        finally:
            self.down = False

    # -- a request

    def __call__(self, environ, start_response):
        path = environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        if not self.has("masks nothing") and self.kind in ("query", "path"):
            self.access.append(f"{path[:3]}...")
        else:
            self.access.append(f"{path}?{query}")
        request = Request(self, environ, path, query)
        try:
            answer = request.answer()
        except Down:
            if self.has("empty when the store is down"):
                answer = ("200 OK", [], [b"{}"])
            else:
                answer = ("503 Service Unavailable", [], [b""])
        except Exception:
            text = f"failed: {request.id}" if self.has("shows ids in errors") else "failed"
            answer = ("500 Internal Server Error", [], [text.encode()])
        status, headers, body = answer
        if self.has("logs ids") and request.id:
            self.log.append(f"{environ['PATH_INFO']} {request.id}")
        headers = [(n, v.encode().decode("latin-1", "replace")) for n, v in headers]
        start_response(status, headers)
        return body


class Request:
    def __init__(self, toy, environ, path, query):
        self.toy, self.environ = toy, environ
        self.told = None
        self.headers = []
        raw = [part.partition("=") for part in query.split("&")]
        ids = []
        if toy.kind == "header":
            key = "HTTP_" + toy.name.upper().replace("-", "_")
            ids = [environ[key]] if key in environ else []
            if toy.has("takes the first of two"):
                ids = [id.partition(",")[0] for id in ids]
        elif toy.kind == "query":
            ids = [unquote_plus(value) for name, _, value in raw if name == toy.name]
            ids = ids[:1] if toy.has("takes the first of two") else ids
        elif path.startswith("/" + toy.name):
            while path.startswith("/" + toy.name):
                id, slash, rest = path[1 + len(toy.name) :].partition("/")
                path = slash + rest
                ids.append(id)
                if not toy.has("strips the path again and again"):
                    break
            ids = ids[-1:]
        if toy.has("reads cookies") and not ids:
            ids = [environ.get("HTTP_COOKIE", "").partition("=")[2]]
        self.id = ids[0] if len(set(ids)) == 1 else None
        self.path = path
        self.form = parse_qs(query, keep_blank_values=True)
        if environ["REQUEST_METHOD"] == "POST":
            size = int(environ.get("CONTENT_LENGTH") or 0)
            self.form |= parse_qs(environ["wsgi.input"].read(size).decode())

    def given(self, name):
        return self.form.get(name, [""])[0]

    def answer(self):
        toy = self.toy
        handle = getattr(self, "do_" + self.path.strip("/"), None)
        if handle is None:
            return "404 Not Found", [], [b"nothing here"]
        if toy.has("breaks on junk") and self.id and not self.id.isascii():
            raise ValueError
        self.record = self.data = None
        known = self.id is not None and (self.is_an_id(self.id) or toy.has("no gate"))
        if known:
            self.record = toy.load(self.id)
        if self.record is None and self.id:
            toy.happened("unknown")
        if self.record is not None:
            agent = self.environ.get("HTTP_USER_AGENT", "")
            if self.record.setdefault("agent", agent) != agent and not toy.has("binds nothing"):
                self.record = None
        if self.record is not None:
            self.data = toy.read(self.record)
            if self.data is None:
                self.record = None
        if self.record is None and toy.has("creates at once"):
            self.store({})
        if toy.has("one session for all") and self.data is not None:
            toy.last, self.data = self.data, toy.last or self.data
        status, body = handle()
        headers = [("Content-Type", "application/json"), *self.headers]
        if self.told is not None:
            headers.append(("X-Session-Id", self.told))
        if toy.has("lets caches keep"):
            headers.append(("Cache-Control", "public, max-age=60"))
        elif self.told is not None or toy.kind != "header":
            headers.append(("Cache-Control", "no-store"))
        headers.append(("Vary", "X-Session-Id"))
        if not toy.has("tells referrers"):
            headers.append(("Referrer-Policy", "same-origin"))
        if toy.has("echoes") and self.id:
            body = [*body, self.id.encode("utf-8", "surrogateescape")]
        return status, headers, body

    def is_an_id(self, text):
        if self.toy.has("no gate"):
            return True
        digits = "0123456789abcdef" + ("ABCDEF" if self.toy.has("folds case") else "")
        return 25 < len(text) < 70 and set(text) <= set(digits + "<>")

    def store(self, changes, whole=None):
        """Save changes to the session of now; make one if there was none."""
        toy = self.toy
        if self.record is None:
            if toy.has("adopts") and self.id:
                with toy.lock:
                    toy.records[toy.key(self.id)] = self.record = {
                        "created": toy.clock.now,
                        "accessed": toy.clock.now,
                        "user": None,
                    }
                toy.write(self.record, changes)
                return True
            self.told = toy.create(changes, agent=self.environ.get("HTTP_USER_AGENT", ""))
            self.record = toy.records[toy.key(self.told)]
            return True
        with toy.lock:
            here = toy.key(self.current())
            if toy.records.get(here) is not self.record:
                if not toy.has("revives"):
                    return False
                toy.records[here] = self.record
            data = toy.read(self.record) if whole is None else whole
            toy.write(self.record, {**data, **changes})
        return True

    def current(self):
        id = self.told or self.id
        id = id.lower() if self.toy.has("folds case") else id
        if id in self.toy.graces and self.toy.key(id) not in self.toy.records:
            return self.toy.graces[id][0]
        return id

    # -- endpoints

    def do_get(self):
        return "200 OK", [json.dumps(self.data or {}).encode()]

    def do_set(self):
        if self.toy.has("saves late"):
            told = self.told = self.id if self.record else secrets.token_hex(16)
            changes, record = {self.given("k"): self.given("v")}, self.record

            def later():
                yield b"stored"
                time.sleep(0.1)
                if record:
                    self.store(changes)
                else:
                    self.toy.records[self.toy.key(told)] = new = {"created": self.toy.clock.now}
                    new |= {"accessed": self.toy.clock.now, "user": None}
                    self.toy.write(new, changes)

            return "200 OK", later()
        self.store({self.given("k"): self.given("v")})
        if self.toy.has("writes headers of clients"):
            self.headers.append(("X-Stored", self.given("v")))
        return "200 OK", [b"stored"]

    def do_incr(self):
        with contextlib.nullcontext() if self.toy.has("adds inexactly") else self.toy.lock:
            count = (self.toy.read(self.record) if self.record else {}).get(self.given("k"), 0)
            if self.toy.has("adds inexactly"):
                time.sleep(0.002)
            self.store({self.given("k"): count + 1})
        return "200 OK", [b"added"]

    def do_append(self):
        values = [*(self.data or {}).get(self.given("k"), []), self.given("v")]
        if len(values) == 1 or not self.toy.has("misses inner changes"):
            self.store({self.given("k"): values})
        return "200 OK", [b"appended"]

    def do_fill(self):
        size = int(self.given("bytes"))
        if size > 10**6 and not self.toy.has("takes any size"):
            return "413 Content Too Large", [b"too large"]
        if size > 10**6 and self.toy.has("breaks what is too large"):
            self.toy.records.clear()
        self.store({self.given("k"): "x" * size})
        return "200 OK", [b"stored"]

    def do_slow(self):
        time.sleep(int(self.given("ms")) / 1000)
        whole = self.data if self.toy.has("saves all it read") else None
        stored = self.store({self.given("k"): 1}, whole)
        if not stored and not self.toy.has("hides refusals"):
            return "409 Conflict", [b"gone"]
        return "200 OK", [b"stored"]

    def do_slowread(self):
        time.sleep(int(self.given("ms")) / 1000)
        if self.record and (self.toy.has("readers save") or self.toy.has("revives")):
            self.store({}, self.data)
        return "200 OK", [b"read"]

    def move(self, keep_old=False):
        if self.record is None:
            self.store({})
        toy, old = self.toy, self.current()
        with toy.lock:
            if not keep_old:
                toy.records.pop(toy.key(old), None)
            self.told = toy.new_id()
            toy.records[toy.key(self.told)] = self.record
        toy.happened("rotated")
        return old

    def do_login(self):
        if self.toy.has("keeps the id at login"):
            self.store({})
        elif self.toy.has("loses data at login"):
            self.record = None
            self.store({})
        else:
            self.move(keep_old=self.toy.has("keeps the old id"))
        for id in list(self.toy.graces):
            if self.toy.has("grace over a login"):
                self.toy.graces[id] = (self.told, self.toy.clock.now + GRACE)
            else:
                del self.toy.graces[id]
        self.record["user"] = self.given("user")
        return "200 OK", [b"welcome"]

    def do_rotate(self):
        self.move(keep_old=self.toy.has("keeps the old id"))
        return "200 OK", [b"rotated"]

    def do_renew(self):
        graces = self.toy.graces
        old = self.move()
        span = 100 * GRACE if self.toy.has("long grace") else GRACE
        if not self.toy.has("no grace"):
            graces[old] = (self.told, self.toy.clock.now + span)
        return "200 OK", [b"renewed"]

    def do_logout(self):
        if self.record is not None:
            self.toy.happened("ended")
            if not self.toy.has("ends nothing"):
                with self.toy.lock:
                    self.toy.records.pop(self.toy.key(self.current()), None)
        to = "/"
        if self.toy.has("repeats the id at logout") and self.id:
            to = f"/get?sid={quote(self.id)}"
        if not self.toy.has("clears no data"):
            self.headers.append(("Clear-Site-Data", '"*"'))
        self.headers.append(("Location", to))
        return "303 See Other", [b"bye"]

    def do_boom(self):
        if self.toy.has("saves when it fails"):
            self.store({self.given("k"): 1})
        raise RuntimeError

    def do_stream(self):
        def body():
            yield b"first"
            if not self.toy.has("loses what is late") and self.record is not None:
                self.store({self.given("k"): 1})
            yield b"last"

        return "200 OK", body()

    def do_page(self):
        here = f"http://{self.environ['HTTP_HOST']}/page"
        links = ["get", "/get", *ways_elsewhere(here)]
        if self.toy.kind == "query" and self.record is not None:
            everywhere = self.toy.has("puts ids on every link")
            links = [
                f"{url}?{self.toy.name}={self.id}"
                if everywhere or not leads_elsewhere(url, here)
                else url
                for url in links
            ]
        self.headers.append(("Content-Type", "text/html; charset=utf-8"))
        html = "".join(f'<a href="{escape(url)}">link</a>' for url in links)
        if self.toy.has("puts ids into every form"):
            html += f'<form action="//elsewhere.example/"><input name=s value="{self.id}"></form>'
        return "200 OK", [html.encode()]

    def do_go(self):
        to = self.given("to")
        here = f"http://{self.environ['HTTP_HOST']}/go"
        if self.toy.has("believes its eyes"):
            refused = to.startswith(("http:", "https:", "//"))
        else:
            refused = leads_elsewhere(to, here) and not self.toy.has("redirects anywhere")
        if refused or not to.isprintable():
            return "400 Bad Request", [b"not here"]
        self.headers.append(("Location", quote(to, safe=":/?#[]@!$&'()*+,;=%~\\")))
        return "303 See Other", [b"there"]

    def token(self):
        return hashlib.sha256(b"token" + (self.id or "").encode()).hexdigest()[:20]

    def do_token(self):
        token = self.id if self.toy.has("the id for a token") else self.token()
        return "200 OK", [token.encode()]

    def do_guarded(self):
        right = self.given("token") == self.token() or self.toy.has("asks for no token")
        return ("200 OK", [b"done"]) if right else ("403 Forbidden", [b"no"])

    def do_admin(self):
        return "403 Forbidden", [b"no"]

    def mine(self):
        user = (self.record or {}).get("user")
        return [k for k, r in self.toy.records.items() if user and r["user"] == user]

    def do_sessions(self):
        if self.toy.has("lists ids"):
            return "200 OK", [json.dumps([self.id]).encode()]
        return "200 OK", [json.dumps(len(self.mine())).encode()]

    def end(self, keys):
        with self.toy.lock:
            for key in keys[1:] if self.toy.has("ends only some") else keys:
                del self.toy.records[key]
        return "200 OK", [b"ended"]

    def do_end_all(self):
        if self.toy.has("ends everybody"):
            return self.end(list(self.toy.records))
        return self.end(self.mine())

    def do_end_others(self):
        return self.end([key for key in self.mine() if key != self.toy.key(self.current())])
