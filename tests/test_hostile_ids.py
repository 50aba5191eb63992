"""Whatever a client sends as its id: a new session with a reason, no echo, no trip, no trace."""

import random
import string

import pytest
from helpers import CountingStore, serve

import nocookie
from nocookie import Bearer, Cookie, Form, Header, Query, SessionMiddleware, session
from nocookie.ids import RandomIds

SECRET = "at least thirty-two characters of it"
FUZZED = 10_000

CARRIERS = {
    "header": Header(),
    "bearer": Bearer(),
    "query": Query(),
    "form": Form(),
    "cookie": Cookie("sid"),
    "callable": lambda request: request.environ.get("HTTP_X_SESSION_ID"),
}


def put(kind, text):
    """An environ that carries *text*, as raw as a server would ever pass it on."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    if kind in ("header", "callable"):
        environ["HTTP_X_SESSION_ID"] = text
    elif kind == "bearer":
        environ["HTTP_AUTHORIZATION"] = "Bearer " + text
    elif kind == "query":
        environ["QUERY_STRING"] = "sid=" + text
    elif kind == "cookie":
        environ["HTTP_COOKIE"] = "sid=" + text
    else:
        import io

        body = ("sid=" + text).encode("utf-8", "surrogatepass")
        environ.update(
            {
                "REQUEST_METHOD": "POST",
                "CONTENT_TYPE": "application/x-www-form-urlencoded",
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": io.BytesIO(body),
            }
        )
    return environ


def texts(live):
    """Endless hostile ids, near-misses of a live one among them."""
    chance = random.Random(20260101)
    fixed = ["", ".", "..", "/", "../../etc/passwd", "\0", "a\r\nSet-Cookie: x=1", "'\"><script>"]
    fixed += ["é" * 43, "\U0001f36a", "%00", "%2e%2e%2f", "null", "None", "undefined", "0", " "]
    fixed += ["a" * 300, "A" * 43, "A" * 100_000, live + "A", live[:-1], live.swapcase()]
    fixed += [
        live + "=",
        " ." + live,
        live + "\n",
        live + "\0",
        "../x/" + live,
        live[:20] + "." + live[20:],
    ]
    fixed += [
        "％" + live,
        live.replace(live[3], "．"),
        "\udcff" * 43,
        "${jndi:ldap://x}",
        "{{7*7}}",
    ]
    yield from fixed
    alphabet = string.printable + "éß\x7f\x80ÿ\u2028"
    while True:
        kind = chance.randrange(3)
        if kind == 0:
            yield "".join(chance.choices(alphabet, k=chance.randrange(60)))
        elif kind == 1:
            place = chance.randrange(43)
            other = chance.choice([c for c in alphabet if c != live[place]])
            yield live[:place] + other + live[place + 1 :]
        else:
            yield "".join(chance.choices(string.ascii_letters + string.digits + "-_", k=43))


def application(environ, start_response):
    if environ["PATH_INFO"] == "/save":
        session["mine"] = True
        session.save()
    text = f"{session.is_new} {session.reason} {session.get('secret')}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


@pytest.mark.parametrize("kind", CARRIERS)
def test_a_hostile_id_is_a_new_session_and_leaves_no_trace(kind, caplog):
    caplog.set_level("DEBUG")
    store = CountingStore()
    middleware = SessionMiddleware(
        application, use_cookies=False, find_id=CARRIERS[kind], secret=SECRET, type=store
    )
    victim = nocookie.Session({}, backend=middleware.manager.backend)
    victim["secret"] = "the victim's"
    victim.save()
    before = list(store.keys())
    hostile = texts(victim.id)
    for turn in range(FUZZED // len(CARRIERS) + 1):
        text = next(hostile)
        store.trips.clear()
        caplog.clear()
        answer = serve(middleware, environ=put(kind, text))
        body = answer.body.decode()
        if _is_the_id(text, victim.id, kind):
            continue
        assert answer.status == "200 OK"
        assert body.startswith("True "), (text, body)
        assert "victim" not in body
        assert body.split()[1] in ("malformed", "forged", "absent", "ambiguous")
        assert store.trips == [], text
        assert list(store.keys()) == before
        if len(text) > 8:
            shown = body + repr(answer.headers) + caplog.text
            assert text not in shown
        if turn % 50 == 0:
            environ = put(kind, text)
            environ["PATH_INFO"] = "/save"
            saved = serve(middleware, environ=environ)
            given = saved.id or saved.header("Set-Cookie").split("=")[1].split(";")[0]
            assert given not in (text, victim.id)
            nocookie.Session({}, given, backend=middleware.manager.backend).delete()


def _is_the_id(text, id, kind):
    """Whether a carrier rightly reads the live id out of this text."""
    if kind in ("query", "form"):
        return text.partition("&")[0] == id
    if kind == "cookie":
        return text.partition(";")[0].strip(' \t\r\n\x0b\x0c"') == id
    return text.strip() == id if kind == "bearer" else text == id


@pytest.mark.parametrize("kind", CARRIERS)
def test_what_the_fuzz_looks_for_would_be_found(kind):
    """The rig presents a good id so that it is taken: else the test above could not fail."""
    middleware = SessionMiddleware(
        application, use_cookies=False, find_id=CARRIERS[kind], secret=SECRET, type=CountingStore()
    )
    victim = nocookie.Session({}, backend=middleware.manager.backend)
    victim["secret"] = "the victim's"
    victim.save()
    assert serve(middleware, environ=put(kind, victim.id)).body == b"False None the victim's"


def test_a_hit_and_a_miss_are_the_same_trips_to_the_store():
    """So the time of an answer is that of one look-up by a digest, right or wrong: an id that
    begins like a live one is looked up somewhere else altogether."""
    store = CountingStore()
    middleware = SessionMiddleware(application, use_cookies=False, type=store)
    live = nocookie.Session({}, backend=middleware.manager.backend)
    live["secret"] = "the victim's"
    live.save()
    other = "B" if live.id[0] == "A" else "A"
    near = [other + live.id[1:], live.id[:41] + other + live.id[42:], RandomIds().new()]
    seen = []
    for id in (live.id, *near):
        store.trips.clear()
        store.keys_asked.clear()
        assert (serve(middleware, id).body == b"False None the victim's") == (id == live.id)
        seen.append((tuple(store.trips), len(store.keys_asked[0])))
    assert set(seen) == {(("load",), 64)}


def test_with_a_secret_what_is_forged_makes_no_trip_however_near_it_is():
    store = CountingStore()
    middleware = SessionMiddleware(application, use_cookies=False, type=store, secret=SECRET)
    live = nocookie.Session({}, backend=middleware.manager.backend)
    live["secret"] = "the victim's"
    live.save()
    store.trips.clear()
    for place in range(42):
        other = "B" if live.id[place] == "A" else "A"
        near = live.id[:place] + other + live.id[place + 1 :]
        assert serve(middleware, near).body == b"True forged None"
    assert store.trips == []


def test_basic_authentication_is_no_id():
    environ = put("bearer", "x")
    for credentials in ("Basic dXNlcjpwYXNz", "basic x", "Digest x", "Bearer", ""):
        environ["HTTP_AUTHORIZATION"] = credentials
        assert Bearer().read(environ) in (None, "")
    for scheme in ("Bearer", "bearer", "BEARER"):
        environ["HTTP_AUTHORIZATION"] = f"{scheme}  token "
        assert Bearer().read(environ) == "token"


def test_no_id_is_in_any_log_or_repr_or_error(caplog, tmp_path):
    caplog.set_level("DEBUG")
    shown = []

    def app(environ, start_response):
        session["n"] = session.get("n", 0) + 1
        session.save()
        shown.append(repr(session) + repr(environ["nocookie.session"]) + repr(session.reason))
        if session["n"] == 3:
            session.regenerate_id()
        if session["n"] == 4:
            session.delete()
        start_response("200 OK", [])
        return [b""]

    middleware = SessionMiddleware(app, use_cookies=False, type="file", data_dir=str(tmp_path))
    ids = set()
    id = None
    for _ in range(8):
        answer = serve(middleware, id)
        id = answer.id or id
        ids.add(id)
    assert len(ids) > 2
    assert len(caplog.records) > 5
    files = b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())
    text = caplog.text + "".join(map(repr, (r.__dict__ for r in caplog.records))) + "".join(shown)
    for id in ids:
        assert id not in text
        assert id.encode() not in files
        assert middleware.manager.backend.fingerprint(id) in text
