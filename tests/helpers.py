"""What several test files need: the published recipe, a server that follows the rules, and a store
that fails on demand."""

from webob import Request

from nocookie.errors import SessionGone, StoreError
from nocookie.stores.memory import MemoryStore

#: The lines of the Pylons page "Hacking the session for no cookies", from the import to the end.
RECIPE = """\
from beaker.session import Session as BeakerSession

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
    pass
"""


class Answer:
    """What a server saw of one request, in order."""

    def __init__(self):
        self.log = []
        self.status = None
        self.headers = []
        self.body = b""

    def start_response(self, status, headers, exc_info=None):
        if exc_info is not None and self.body:
            raise exc_info[1]
        self.log.append("head")
        self.status, self.headers = status, headers
        return self.write

    def write(self, data):
        self.log.append("write")
        self.body += data

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else None

    @property
    def id(self):
        return self.header("X-Session-Id")


def serve(app, id=None, path="/", environ=None, **options):
    """Make one request, as a server would."""
    answer = Answer()
    if environ is None:
        environ = Request.blank(path, **options).environ
        if id is not None:
            environ["HTTP_X_SESSION_ID"] = id
    body = app(environ, answer.start_response)
    try:
        for chunk in body:
            answer.log.append("chunk")
            answer.body += chunk
    finally:
        if hasattr(body, "close"):
            body.close()
    return answer


class CountingStore(MemoryStore):
    """Counts trips, and fails on demand."""

    def __init__(self, **options):
        super().__init__(**options)
        self.trips = []
        #: What was asked for by `load`.
        self.keys_asked = []
        #: What to raise, by the name of the call.
        self.failing = {}

    def _trip(self, name):
        self.trips.append(name)
        if name in self.failing:
            raise self.failing[name]

    def load(self, key):
        self._trip("load")
        self.keys_asked.append(key)
        return super().load(key)

    def create(self, key, record, ttl, owner=None, instead_of=None):
        self._trip("create")
        super().create(key, record, ttl, owner, instead_of)

    def save(self, key, delta, ttl, expect=None, seal=None):
        self._trip("save")
        super().save(key, delta, ttl, expect, seal)

    def touch(self, key, ttl, seal=None):
        self._trip("touch")
        super().touch(key, ttl, seal)

    def rotate(self, old, new, delta, seal, ttl, owner=None, trail=None):
        self._trip("rotate")
        super().rotate(old, new, delta, seal, ttl, owner, trail)

    def destroy(self, key, expired=False):
        self._trip("destroy")
        return super().destroy(key, expired)

    def fail(self, *calls, gone=False):
        error = SessionGone("gone, for the test") if gone else StoreError("down, for the test")
        self.failing = dict.fromkeys(calls, error)
