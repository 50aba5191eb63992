"""What the sections of the Pylons page promise, beside the recipe: the session object, mapped
objects, the order of middleware and caches. Their pages in docs/ run too; secure forms, flash
messages and the composite application have test files of their own."""

import contextlib
import sqlite3

import hishel
import hishel.httpx
import httpx
import pytest
from helpers import CountingStore, serve
from sqlalchemy import ForeignKey, create_engine, delete, inspect, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker
from sqlalchemy.orm.exc import DetachedInstanceError, StaleDataError
from webob import Request, Response
from webob.dec import wsgify
from webob.exc import HTTPSeeOther
from webtest import TestApp

from nocookie import Session, SessionMiddleware, UnboundSessionError, ValueRefused, session
from nocookie.flash import flash, pop_messages
from nocookie.stores import close_all

# -- the session object --------------------------------------------------------------------------


class LoginController:
    """The controller of the page; what Pylons gave it is here by hand."""

    USERS = {("ada", "correct horse")}

    def authenticate(self, request):
        name = request.POST["name"]
        password = request.POST["password"]
        user = (name, password) in self.USERS
        if user:
            msg = f"Successfully logged in as {name}"
            location = "/index"
            session["logged_in"] = True
            session.save()
        else:
            msg = "Invalid username/password"
            location = "/login"
        flash(msg)
        return HTTPSeeOther(location=location)

    def logout(self, request):
        # Clear all values in the session associated with the client
        session.clear()
        session.save()

    def index(self, request):
        if not session.get("logged_in"):
            flash("Please login")
            return HTTPSeeOther(location="/login")
        return "index: " + " ".join(map(str, pop_messages()))

    def login(self, request):
        return "login: " + " ".join(map(str, pop_messages()))

    def about(self, request):
        return "about"


@wsgify
def login_site(request):
    answer = getattr(LoginController(), request.path_info[1:])(request)
    return answer or "done"


class ByHeader(TestApp):
    """A client that keeps its id and sends it in the header."""

    def do_request(self, req, *arguments, **options):
        if self.extra_environ.get("HTTP_X_SESSION_ID"):
            req.headers["X-Session-Id"] = self.extra_environ["HTTP_X_SESSION_ID"]
        response = super().do_request(req, *arguments, **options)
        told = response.headers.get("X-Session-Id")
        if told:
            self.extra_environ["HTTP_X_SESSION_ID"] = told
        return response


MODES = {
    "cookies": (TestApp, {"use_cookies": True}),
    "header": (ByHeader, {"use_cookies": False}),
    "beaker's ini": (
        ByHeader,
        {"config": {"beaker.session.use_cookies": "False", "beaker.session.timeout": "600"}},
    ),
}


@pytest.fixture(params=MODES)
def visitor(request):
    """A visitor of an application, cookieless or not: `visitor(app, **options)`."""
    client, mode = MODES[request.param]
    return lambda app, **options: client(SessionMiddleware(app, **mode, **options))


def test_the_login_of_the_page_lets_in_and_out(visitor):
    client = visitor(login_site)

    assert client.get("/index").follow().text == "login: Please login"
    wrong = client.post("/authenticate", {"name": "ada", "password": "guess"})
    assert wrong.follow().text == "login: Invalid username/password"
    right = client.post("/authenticate", {"name": "ada", "password": "correct horse"})
    assert right.follow().text == "index: Successfully logged in as ada"
    assert client.get("/index").text == "index: "

    client.get("/logout")
    assert client.get("/index").follow().text == "login: Please login"


def test_clear_removes_every_value_and_keeps_the_session(visitor):
    store = CountingStore()
    client = visitor(login_site, type=store)
    client.post("/authenticate", {"name": "ada", "password": "correct horse"})
    (key,) = store.keys()

    client.get("/logout")

    assert list(store.keys()) == [key]
    assert store.load(key).fields == {}


def test_the_session_is_not_loaded_before_it_is_asked_for(visitor):
    store = CountingStore()
    client = visitor(login_site, type=store)
    client.post("/authenticate", {"name": "ada", "password": "correct horse"})
    store.trips.clear()

    client.get("/about")
    assert store.trips == []

    client.get("/index")
    assert store.trips[0] == "load"


@pytest.mark.parametrize("auto", [False, True])
def test_without_save_nothing_is_written_but_with_auto(visitor, auto):
    @wsgify
    def application(request):
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    client = visitor(application, auto=auto)
    client.get("/")

    assert client.get("/").text == ("2" if auto else "1")


class Basket:
    """What only pickle can hold."""

    def __init__(self):
        self.items = []


def test_anything_that_can_be_pickled_is_kept_with_pickle(visitor):
    @wsgify
    def application(request):
        basket = session.setdefault("basket", Basket())
        basket.items.append("tea")
        session.changed("basket")
        session.save()
        return " ".join(basket.items)

    client = visitor(application, data_serializer="pickle", secret="thirty-two characters, or more")
    client.get("/")

    assert client.get("/").text == "tea tea"
    with pytest.raises(ValueRefused, match="basket"):
        visitor(application).get("/")


# -- mapped objects ------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    addresses: Mapped[list["Address"]] = relationship(back_populates="user")


class Address(Base):
    __tablename__ = "addresses"

    id: Mapped[int] = mapped_column(primary_key=True)
    city: Mapped[str]
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    user: Mapped[User | None] = relationship(back_populates="addresses")


class Ticket(Base):
    """Its version says which state of the row a copy is of."""

    __tablename__ = "tickets"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    version: Mapped[int] = mapped_column()

    __mapper_args__ = {"version_id_col": version}


@pytest.fixture(scope="module")
def postgres():
    from realservers.postgres import Postgres

    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def engine(request, tmp_path):
    """A database with the tables, and rows 1 in each."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'shop.db'}"
    else:
        server = request.getfixturevalue("postgres")
        url = server.url(server.make_database())
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with sessionmaker(engine).begin() as db:
        db.add(User(name="Ada", addresses=[Address(city="London"), Address(city="Ockham")]))
        db.add(Ticket(text="as it was"))
    yield engine
    close_all()
    engine.dispose()


@pytest.fixture
def unit_of_work(engine):
    return sessionmaker(engine)


@pytest.fixture
def requests(engine):
    """`requests(handler)` makes a request of one visitor, cookieless, with sessions in the same
    database as the mapped objects."""
    handlers = []

    @wsgify
    def application(request):
        handlers[-1]()
        return ""

    client = ByHeader(
        SessionMiddleware(
            application,
            use_cookies=False,
            type="sqlalchemy",
            engine=engine,
            create_table=True,
            data_serializer="pickle",
            secret="thirty-two characters, or a few more",
        )
    )

    def requests(handler):
        handlers.append(handler)
        client.get("/")

    return requests


def keeping(requests, unit_of_work, query):
    """Have the object that *query* finds in the session, and the unit of work closed."""

    def handler():
        with unit_of_work() as db:
            session["object"] = db.scalars(query).one()
            session.save()

    requests(handler)


def test_a_mapped_object_comes_back_detached_with_its_values(requests, unit_of_work):
    keeping(requests, unit_of_work, select(Address).where(Address.city == "London"))

    @requests
    def later():
        address = session["object"]
        assert type(address) is Address
        assert address.city == "London"
        assert inspect(address).detached


def test_a_merged_object_is_in_the_unit_of_work_again(requests, unit_of_work):
    keeping(requests, unit_of_work, select(Address).where(Address.city == "London"))

    @requests
    def later():
        with unit_of_work.begin() as db:
            address = db.merge(session["object"])
            assert inspect(address).persistent
            address.city = "Turin"

    with unit_of_work() as db:
        assert sorted(db.scalars(select(Address.city))) == ["Ockham", "Turin"]


def test_relationships_that_were_loaded_come_along(requests, unit_of_work):
    def load():
        with unit_of_work() as db:
            user = session["user"] = db.scalars(select(User)).one()
            assert len(user.addresses) == 2  # loads them
            session.save()

    requests(load)

    @requests
    def later():
        user = session["user"]
        assert [address.city for address in user.addresses] == ["London", "Ockham"]
        with unit_of_work.begin() as db:
            merged = db.merge(user)
            merged.addresses[0].city = "Turin"
            merged.addresses.append(Address(city="Paris"))

    with unit_of_work() as db:
        assert sorted(db.scalars(select(Address.city))) == ["Ockham", "Paris", "Turin"]
        assert set(db.scalars(select(Address.user_id))) == {1}


def test_relationships_that_were_not_loaded_are_after_the_merge(requests, unit_of_work):
    keeping(requests, unit_of_work, select(Address).where(Address.city == "London"))

    @requests
    def later():
        with pytest.raises(DetachedInstanceError):
            _ = session["object"].user
        with unit_of_work() as db:
            assert db.merge(session["object"]).user.name == "Ada"


def test_an_object_that_was_expired_has_its_values_after_the_merge(requests, unit_of_work):
    """By default a commit of the unit of work expires what it holds, and a copy of that is empty
    but for its identity."""

    def load():
        with unit_of_work() as db:
            session["object"] = db.get(Address, 1)
            db.commit()
            session.save()

    requests(load)

    @requests
    def later():
        with pytest.raises(DetachedInstanceError):
            _ = session["object"].city
        with unit_of_work() as db:
            assert db.merge(session["object"]).city == "London"


def test_a_new_object_is_inserted_by_the_merge(requests, unit_of_work):
    """A form of several steps collects it in the session, and the last one stores it."""

    def begin():
        session["object"] = Address(city="Paris")
        session.save()

    requests(begin)

    @requests
    def fill_in():
        session["object"].user_id = 1
        session.changed("object")
        session.save()

    @requests
    def store():
        with unit_of_work.begin() as db:
            db.merge(session.pop("object"))
        session.save()

    with unit_of_work() as db:
        assert db.scalars(select(Address.user_id).where(Address.city == "Paris")).all() == [1]

    @requests
    def later():
        assert "object" not in session


def test_a_change_in_place_is_kept_only_if_it_is_said(requests, unit_of_work):
    keeping(requests, unit_of_work, select(Address).where(Address.id == 1))

    @requests
    def unsaid():
        session["object"].city = "Turin"
        session.save()

    @requests
    def said():
        assert session["object"].city == "London"
        session["object"].city = "Paris"
        session.changed("object")
        session.save()

    @requests
    def later():
        assert session["object"].city == "Paris"


def test_a_merge_writes_the_old_copy_over_what_was_changed_since(requests, unit_of_work):
    """As SQLAlchemy means it: the values of the copy are the ones that are wanted."""
    keeping(requests, unit_of_work, select(Address).where(Address.id == 1))
    with unit_of_work.begin() as db:
        db.execute(update(Address).where(Address.id == 1).values(city="Turin"))

    @requests
    def later():
        with unit_of_work.begin() as db:
            db.merge(session["object"])

    with unit_of_work() as db:
        assert db.get(Address, 1).city == "London"


def test_a_merge_of_an_old_copy_is_refused_where_rows_have_versions(requests, unit_of_work):
    keeping(requests, unit_of_work, select(Ticket))
    with unit_of_work.begin() as db:
        db.get(Ticket, 1).text = "as it is"

    @requests
    def later():
        with unit_of_work() as db, pytest.raises(StaleDataError):
            db.merge(session["object"])

    with unit_of_work() as db:
        assert db.get(Ticket, 1).text == "as it is"


def test_who_wants_the_row_as_it_is_asks_by_the_copys_identity(requests, unit_of_work):
    keeping(requests, unit_of_work, select(Ticket))
    with unit_of_work.begin() as db:
        db.get(Ticket, 1).text = "as it is"

    @requests
    def later():
        with unit_of_work() as db:
            assert db.get(Ticket, session["object"].id).text == "as it is"


def test_a_row_that_was_deleted_is_made_anew_by_the_merge_unless_somebody_looks(
    requests, unit_of_work
):
    keeping(requests, unit_of_work, select(Address).where(Address.id == 1))
    with unit_of_work.begin() as db:
        db.execute(delete(Address).where(Address.id == 1))

    @requests
    def later():
        copy = session["object"]
        with unit_of_work() as db:
            assert db.get(Address, copy.id) is None
            assert inspect(db.merge(copy)).pending


def test_a_mapped_object_needs_pickle(engine, unit_of_work):
    mine = Session({})
    mine["before"] = 1
    mine.save()
    with unit_of_work() as db:
        mine["address"] = db.get(Address, 1)

    with pytest.raises(ValueRefused, match="address"):
        mine.save()

    assert dict(Session({}, id=mine.id)) == {"before": 1}


def test_keys_are_text_also_for_objects_by_their_id(requests, unit_of_work):
    """The page writes `session[id] = address`."""

    def load():
        with unit_of_work() as db:
            address = db.get(Address, 1)
            with pytest.raises(ValueRefused, match="keys are text, not int"):
                session[address.id] = address
            session[str(address.id)] = address
            session.save()

    requests(load)

    @requests
    def later():
        assert session["1"].city == "London"


# -- custom middleware ---------------------------------------------------------------------------


class Layer:
    """A middleware that looks at the session on the way in, and when the response is there."""

    def __init__(self, app):
        self.app = app
        self.seen = []

    def __call__(self, environ, start_response):
        self.look(environ)
        body = self.app(environ, start_response)
        self.look(environ)
        return body

    def look(self, environ):
        there = environ.get("nocookie.session")
        try:
            self.seen.append((there is not None, session.get("user")))
        except UnboundSessionError:
            self.seen.append((there is not None, "unbound"))


@wsgify
def says_who(request):
    session["user"] = "ada"
    session.save()
    return "ada"


def test_a_layer_below_sees_the_session():
    below = Layer(says_who)
    TestApp(SessionMiddleware(below, use_cookies=False)).get("/")

    assert below.seen == [(True, None), (True, "ada")]


def test_a_layer_above_sees_no_session():
    """On the way in there is none. On the way back environ still has the object, as anything has
    that was put there; the proxy has none."""
    above = Layer(SessionMiddleware(says_who, use_cookies=False))
    TestApp(above).get("/")

    assert above.seen == [(False, "unbound"), (True, "unbound")]


def test_a_layer_above_cannot_begin_a_session_by_what_is_left_in_environ():
    left = []

    @wsgify
    def untouched(request):
        return ""

    def above(environ, start_response):
        body = SessionMiddleware(untouched, use_cookies=False)(environ, start_response)
        left.append(environ["nocookie.session"])
        return body

    TestApp(above).get("/")

    with pytest.raises(UnboundSessionError):
        left[0]["user"] = "eve"


def test_a_layer_below_may_answer_by_itself_and_there_is_no_session():
    def below(environ, start_response):
        return Response("maintenance", status=503)(environ, start_response)

    store = CountingStore()
    answer = TestApp(SessionMiddleware(below, use_cookies=False, type=store)).get("/", status=503)

    assert store.trips == []
    assert not {"X-Session-Id", "Vary"} & set(answer.headers)


# -- caches --------------------------------------------------------------------------------------


class SharedCache:
    """A cache for all visitors that obeys RFC 9111, which is hishel's part, as WSGI middleware."""

    def __init__(self, app):
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        self.transport = hishel.httpx.CacheTransport(
            httpx.WSGITransport(app),
            hishel.SqliteStorage(connection=self.connection),
            rfc=hishel.CacheOptions(shared=True),
        )
        #: Whether each answer came from the cache.
        self.hits = []

    def __call__(self, environ, start_response):
        asked = Request(environ)
        headers = list(asked.headers.items())
        there = self.transport.handle_request(
            httpx.Request(asked.method, asked.url, headers=headers, content=asked.body)
        )
        self.hits.append(there.extensions["caching"]["from_cache"])
        answer = Response(there.read(), status=there.status_code)
        answer.headerlist = [(name.decode(), value.decode()) for name, value in there.headers.raw]
        there.close()
        return answer(environ, start_response)


@pytest.fixture
def cache():
    """`cache(app)` is a `SharedCache` before *app*."""
    with contextlib.ExitStack() as stack:

        def cache(app):
            made = SharedCache(app)
            stack.callback(made.connection.close)
            return made

        yield cache


def private_if_session_used(app):
    """The layer that docs/middleware-order.md recommends between an application and a cache."""

    def wrapped(environ, start_response):
        def start(status, headers, exc_info=None):
            if session.accessed():
                headers = [pair for pair in headers if pair[0].lower() != "cache-control"]
                headers.append(("Cache-Control", "private, no-store"))
            return start_response(status, headers, exc_info)

        return app(environ, start)

    return wrapped


def pages(cache_control, **headers):
    """An application whose pages show who is there, and say this about caching."""

    @wsgify
    def application(request):
        if request.path_info == "/login":
            session["user"] = request.GET["name"]
            session.save()
        if request.path_info == "/about":
            body = "about"
        else:
            body = f"{session.get('user', 'nobody')} {session.id}"
        response = Response(body)
        response.headers.update(headers)
        if cache_control:
            response.headers["Cache-Control"] = cache_control
        return response

    return application


#: The options of a carrier, and how a visitor sends an id by it: the path and the headers.
CARRIED = {
    "header": ({}, "{path}", {"X-Session-Id": "{id}"}),
    "bearer": ({"find_id": "bearer"}, "{path}", {"Authorization": "Bearer {id}"}),
    "query": ({"find_id": "query:sid"}, "{path}?sid={id}", {}),
    "path": ({"find_id": "path:~"}, "/~{id}{path}", {}),
    "cookie": ({"find_id": "cookie:sid"}, "{path}", {"Cookie": "sid={id}"}),
}
SAYS = ["public, max-age=600", "max-age=600", "s-maxage=600", None]


@pytest.fixture(params=CARRIED)
def carried(request):
    return CARRIED[request.param]


def ask(app, carried, path, id=None):
    """Ask as the visitor with this id, or as a stranger."""
    _, there, headers = carried
    if id is None:
        return serve(app, path=path)
    headers = {name: value.format(id=id) for name, value in headers.items()}
    return serve(app, path=there.format(path=path, id=id), headers=headers)


def visits(app, carried):
    """Two visitors log in; then they and a stranger look at one page by turns, twice each time.
    Return the ids, and the pages: of the first, of the second, of the stranger."""
    ids = [told(ask(app, carried, f"/login?name={name}")) for name in ("ada", "eve")]
    looks = [[], [], []]
    for _ in range(2):
        for shown, id in zip(looks, [*ids, None], strict=True):
            shown += [ask(app, carried, "/", id), ask(app, carried, "/", id)]
    return ids, looks


def told(answer):
    if answer.header("X-Session-Id"):
        return answer.header("X-Session-Id")
    return answer.header("Set-Cookie").partition("=")[2].partition(";")[0]


def assert_apart(ids, looks):
    (ada, eve), (of_ada, of_eve, of_nobody) = ids, looks
    for shown, user, id in [(of_ada, "ada", ada), (of_eve, "eve", eve)]:
        assert {answer.body for answer in shown} == {f"{user} {id}".encode()}
    for answer in of_nobody:
        assert answer.body.startswith(b"nobody ")
    for answer in (*of_ada, *of_eve, *of_nobody):
        theirs = {answer.body.split()[1].decode()}
        assert not any(id in repr(answer.headers) for id in {ada, eve} - theirs)


@pytest.mark.parametrize("says", SAYS)
def test_a_cache_above_gives_no_visitors_page_or_id_to_another(cache, carried, says):
    above = cache(SessionMiddleware(pages(says), use_cookies=False, **carried[0]))

    assert_apart(*visits(above, carried))


@wsgify
def unchanged(request):
    """A page for everybody, that caches have to ask about each time."""
    if "X-Save" in request.headers:
        session["n"] = 1
        session.save()
    is_known = request.headers.get("If-None-Match") == '"1"'
    response = Response(status=304) if is_known else Response("the same for all")
    response.headers.update({"ETag": '"1"', "Cache-Control": "public, no-cache"})
    return response


def test_a_cache_above_learns_no_id_from_a_304(cache, carried):
    """It puts the head of a 304 on the page that it has, `no-store` or not."""
    above = cache(SessionMiddleware(unchanged, use_cookies=False, **carried[0]))
    answers = [serve(above, headers=headers) for headers in ({}, {"X-Save": "1"}, {})]

    assert above.hits == [False, True, True]
    assert [answer.body for answer in answers] == [b"the same for all"] * 3
    names = {name.lower() for answer in answers for name, _ in answer.headers}
    assert names <= {"etag", "cache-control", "vary", "content-type", "content-length"}


def test_a_cache_above_keeps_what_is_the_same_for_all(cache, carried):
    """The tests beside it can fail: this cache does serve from what it has stored."""
    above = cache(SessionMiddleware(pages("public, max-age=600"), use_cookies=False, **carried[0]))
    id = told(ask(above, carried, "/login?name=ada"))

    for _ in range(2):
        ask(above, carried, "/about")
    again = ask(above, carried, "/about", id)

    assert above.hits[1:3] == [False, True]
    assert again.body == b"about"


@pytest.mark.parametrize("says", SAYS)
def test_a_cache_below_gives_no_visitors_page_or_id_to_another(cache, carried, says):
    below = cache(private_if_session_used(pages(says)))

    assert_apart(*visits(SessionMiddleware(below, use_cookies=False, **carried[0]), carried))
    assert not any(below.hits)


@pytest.mark.parametrize("says", ["private, max-age=600", "no-store", "max-age=0", None])
def test_a_cache_below_believes_an_application_that_tells_the_truth(cache, carried, says):
    below = cache(pages(says))

    assert_apart(*visits(SessionMiddleware(below, use_cookies=False, **carried[0]), carried))


def test_a_cache_below_tells_visitors_apart_by_what_vary_names(cache):
    below = cache(pages("max-age=600", Vary="X-Session-Id"))
    ids, looks = visits(SessionMiddleware(below, use_cookies=False), CARRIED["header"])

    assert {answer.body for answer in looks[0]} == {f"ada {ids[0]}".encode()}
    assert {answer.body for answer in looks[1]} == {f"eve {ids[1]}".encode()}
    assert any(below.hits)


def test_a_cache_below_believes_an_application_that_lies(cache):
    """What goes out later, `Vary` and `no-store`, it cannot see: hence the layer between."""
    below = cache(pages("max-age=600"))
    ids, looks = visits(SessionMiddleware(below, use_cookies=False), CARRIED["header"])

    assert looks[1][0].body == f"ada {ids[0]}".encode()


def test_a_cache_below_has_no_id_in_the_heads_that_it_keeps(cache, carried):
    """A new id is placed above it, into each response by itself."""

    @wsgify
    def application(request):
        session["seen"] = True
        session.save()
        return Response("the same for all", cache_control="max-age=600")

    below = cache(application)
    app = SessionMiddleware(below, use_cookies=False, **carried[0])

    first, second = serve(app), serve(app)

    assert below.hits == [False, True]
    assert told(first)
    assert told(first) not in repr(second.headers)
    dump = "\n".join(below.connection.iterdump())
    assert b"the same for all".hex() in dump.lower()
    assert told(first) not in dump
    assert told(first).encode().hex() not in dump.lower()
