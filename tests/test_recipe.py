"""The published recipe for sessions without cookies works, word for word, and so does one line."""

import pytest
from webob import Request, Response
from webtest import TestApp

import nocookie
from nocookie import FirstOf, Header, Query, SessionMiddleware, session
from nocookie.stores.file import FileStore
from nocookie.stores.memory import MemoryStore

OFF = ["False", "false", False]


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else FileStore(data_dir=tmp_path)
    yield store
    store.close()


def recipe(environ, start_response):
    """The published lines, as they stand; only the import is ours."""
    request = Request(environ)

    def find_id_func():
        return request.params.get("sid")

    # fmt: off
    from nocookie import Session as BeakerSession

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
    session['fred'] = session.get('fred', 0) + 1
    session.save()

    # At the end, we need to see if the session was used and handle its id
    told = None
    if session.is_new:
        # do something with session.id to make sure its around next time
        told = session.id
    # fmt: on
    return Response(json={"fred": session["fred"], "id": told})(environ, start_response)


def counter(environ, start_response):
    """An application without a line about ids."""
    session["n"] = session.get("n", 0) + 1
    session.save()
    return Response(json=session["n"])(environ, start_response)


@pytest.mark.parametrize("off", OFF)
def test_the_recipe_counts_and_sets_no_cookie(store, off):
    app = TestApp(SessionMiddleware(recipe, {"beaker.session.use_cookies": off}, type=store))
    first = app.get("/")
    assert first.json["fred"] == 1
    second = app.get("/", {"sid": first.json["id"]})
    assert second.json == {"fred": 2, "id": None}
    assert "Set-Cookie" not in first.headers
    assert "Set-Cookie" not in second.headers


@pytest.mark.parametrize("off", OFF)
@pytest.mark.parametrize("invented", ["attacker-chosen", "A" * 43, "../../etc/x", "a" * 100_000])
def test_the_recipe_adopts_no_invented_id(store, off, invented):
    app = TestApp(SessionMiddleware(recipe, {"beaker.session.use_cookies": off}, type=store))
    for _ in range(2):
        response = app.get("/", {"sid": invented})
        assert response.json["fred"] == 1
        assert response.json["id"] != invented


def test_the_recipe_works_with_a_secret_and_on_an_environ_session(store):
    def app(environ, start_response):
        real = environ["nocookie.session"]
        params = real.__dict__["_params"]
        params["id"] = Request(environ).params.get("sid")
        real.__dict__["_sess"] = nocookie.Session({}, **params)
        return counter(environ, start_response)

    client = TestApp(SessionMiddleware(app, use_cookies=False, secret="s" * 32, type=store))
    first = client.get("/")
    second = client.get("/", {"sid": first.headers["X-Session-Id"]})
    assert (first.json, second.json) == (1, 2)


def test_the_parameters_of_a_request_are_its_own_and_are_not_shown(store):
    seen = []

    def app(environ, start_response):
        params = session._get_current_obj().__dict__["_params"]
        seen.append(params)
        params["id"] = "told to nobody"
        return Response("ok")(environ, start_response)

    client = TestApp(SessionMiddleware(app, use_cookies=False, type=store))
    client.get("/")
    client.get("/")
    assert seen[0] is not seen[1]
    assert "told to nobody" not in repr(seen[0])


def test_rebuild_is_the_recipe_as_one_call(store):
    def app(environ, start_response):
        session._get_current_obj().rebuild(Request(environ).params.get("sid"))
        return counter(environ, start_response)

    client = TestApp(SessionMiddleware(app, use_cookies=False, type=store))
    first = client.get("/")
    id = first.headers["X-Session-Id"]
    second = client.get("/", {"sid": id})
    assert (first.json, second.json) == (1, 2)
    assert "X-Session-Id" not in second.headers  # the application found it, so the client has it


@pytest.mark.parametrize("junk", [b"bytes", 123, ["list"], {"a": 1}, object(), "", "é" * 43])
def test_rebuild_takes_junk_for_no_id(store, junk):
    def app(environ, start_response):
        session.rebuild(junk)
        return Response(json=[session.is_new, session.reason])(environ, start_response)

    client = TestApp(SessionMiddleware(app, use_cookies=False, type=store))
    assert client.get("/").json == [True, "malformed"]


def from_x(request):
    return request.headers.get("X-Session-Id")


def send_header(client, id):
    return client.get("/", headers={"X-Session-Id": id})


def send_query(client, id):
    return client.get("/", {"sid": id})


@pytest.mark.parametrize(
    ("find_id", "send"),
    [
        (Header("X-Session-Id"), send_header),
        (None, send_header),
        ("header:X-Session-Id", send_header),
        (Query("sid"), send_query),
        ("query:sid", send_query),
        (from_x, send_header),
        (lambda request: request.GET.get("sid"), send_query),
        ("nocookie_test_finders:find", send_header),
        ([Header("X-Session-Id"), Query("sid")], send_query),
        ("header:X-Session-Id, query:sid", send_header),
        (FirstOf(Query("sid"), from_x), send_header),
    ],
    ids=str,
)
def test_one_line_of_configuration_is_enough(store, find_id, send, monkeypatch, tmp_path):
    (tmp_path / "nocookie_test_finders.py").write_text(
        "def find(request):\n    return request.headers.get('X-Session-Id')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    client = TestApp(SessionMiddleware(counter, use_cookies=False, find_id=find_id, type=store))
    first = client.get("/")
    id = first.headers["X-Session-Id"]
    assert first.json == 1
    for expected in (2, 3):
        response = send(client, id)
        assert response.json == expected
        assert "X-Session-Id" not in response.headers
        assert "Set-Cookie" not in response.headers


def test_the_default_is_a_signed_cookie(store):
    client = TestApp(SessionMiddleware(counter, type=store, secret="s" * 32))
    first = client.get("/")
    cookie = first.headers["Set-Cookie"]
    assert cookie.startswith("nocookie.session.id=")
    assert {"Path=/", "HttpOnly", "SameSite=Lax"} <= {p.strip() for p in cookie.split(";")}
    assert "X-Session-Id" not in first.headers
    assert [client.get("/").json, client.get("/").json] == [2, 3]
    client.reset()
    client.set_cookie("nocookie.session.id", "A" * 43)
    assert client.get("/").json == 1
