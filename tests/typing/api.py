"""Uses of the public API as a type checker sees them. Checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, assert_type

from webob import Request

from nocookie import (
    Bearer,
    Carrier,
    ConfigError,
    Cookie,
    FirstOf,
    Form,
    Header,
    IdLeak,
    NocookieError,
    PathParam,
    PathSegment,
    Query,
    Reply,
    Session,
    SessionConflict,
    SessionGone,
    SessionManager,
    SessionMiddleware,
    SessionObject,
    StoreError,
    StoreTimeout,
    UnboundSessionError,
    ValueRefused,
    session,
)
from nocookie.logs import MaskIds, MaskingRequestHandler, mask
from nocookie.owners import SessionInfo
from nocookie.stores.base import (
    ByOwner,
    Countable,
    Delta,
    Listable,
    Missing,
    Moved,
    Purgeable,
    Record,
    Renewing,
    Store,
)
from nocookie.stores.file import FileStore
from nocookie.stores.memcached import MemcachedStore
from nocookie.stores.memory import MemoryStore
from nocookie.stores.redis import RedisStore
from nocookie.stores.sqlalchemy import SqlAlchemyStore

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


# -- construction --------------------------------------------------------------------------------


def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [])
    return []


def find_id(request: Request) -> str | None:
    return request.headers.get("X-Device")


class PathCarrier:
    """A carrier of somebody else's: it inherits from nothing of ours."""

    def find(self, request: Request) -> str | None:
        return request.path_info_peek()

    def place(self, id: str, reply: Reply) -> bool:
        reply.headers["Location"] = f"/{id}/"
        assert_type(reply.status, str)
        assert_type(reply.headerlist, list[tuple[str, str]])
        return True

    def forget(self, reply: Reply) -> None:
        reply.headers.pop("Location", None)


carrier: Carrier = PathCarrier()
carriers: list[Carrier] = [
    Header(),
    Header("X-Session-Id"),
    Bearer(),
    Query("sid"),
    Form("sid"),
    Cookie("id", path="/", secure=True, samesite="Strict"),
    FirstOf(Header(), find_id, "query:sid", PathCarrier()),
]
finder: Callable[[Request], str | None] = find_id

wrapped: WSGIApplication = SessionMiddleware(app)
SessionMiddleware(app, use_cookies=False)
SessionMiddleware(app, use_cookies=False, find_id=Header("X-Session-Id"))
SessionMiddleware(app, use_cookies=False, find_id=find_id)
SessionMiddleware(app, use_cookies=False, find_id=PathCarrier())
SessionMiddleware(app, use_cookies=False, find_id=[Header(), Query("sid"), find_id])
SessionMiddleware(app, use_cookies=False, find_id="header:X-Session-Id, query:sid")
SessionMiddleware(app, {"beaker.session.use_cookies": "False"}, environ_key="beaker.session")
SessionMiddleware(app, type=MemoryStore(max_sessions=10), timeout=None, secret=["new", "old"])
SessionMiddleware(SessionMiddleware(app), use_cookies=False)


# -- the session ---------------------------------------------------------------------------------


def handler(environ: WSGIEnvironment) -> None:
    assert_type(session, SessionObject)
    mapping: MutableMapping[str, Any] = session
    mapping.update(a=1)

    session["x"] = 1
    assert_type(session["x"], Any)
    assert_type(session.get("x"), Any | None)
    assert_type("x" in session, bool)
    assert_type(len(session), int)
    assert_type(list(session), list[str])
    del session["x"]
    session.clear()

    assert_type(session.id, str)
    assert_type(session.is_new, bool)
    assert_type(session.must_propagate, bool)
    assert_type(session.reason, str | None)
    assert_type(session.created, float)
    assert_type(session.last_accessed, float | None)
    assert_type(session.timeout, float | None)
    assert_type(session.fingerprint, str)
    assert_type(session.carrier, Carrier | None)
    assert_type(session.has_key("x"), bool)

    session.save()
    session.persist()
    session.load()
    session.revert()
    session.changed("x")
    session.regenerate_id()
    session.delete()
    session.invalidate()
    session.rebuild(None)
    session.rebuild("an id")
    assert_type(session.get_by_id("an id"), Session | None)


def add(stored: MutableMapping[str, Any]) -> int:
    stored["n"] = 1
    return 1


def exact() -> None:
    assert_type(session.incr("n"), Any)
    assert_type(session.incr("n", by=2.5), Any)
    assert_type(session.mutate(add), int)


def the_recipe() -> None:
    real_session = session._get_current_obj()
    params = real_session.__dict__["_params"]
    params["id"] = None
    real_session.__dict__["_sess"] = Session({}, **params)


def stand_alone() -> None:
    alone = Session({}, id=None, type="memory", timeout=60)
    mapping: MutableMapping[str, Any] = alone
    mapping["x"] = 1
    alone.save()
    assert_type(alone.id, str)
    assert_type(alone.is_new, bool)
    assert_type(alone.get_by_id("an id"), Session | None)


def by_hand(environ: WSGIEnvironment) -> None:
    manager = SessionManager(use_cookies=False)
    opened = manager.open(environ)
    assert_type(opened, SessionObject)
    reply = Reply("200 OK", [], environ)
    manager.commit(opened, reply)


# -- errors --------------------------------------------------------------------------------------


def errors() -> None:
    roots: list[type[NocookieError]] = [
        ConfigError,
        SessionConflict,
        SessionGone,
        StoreError,
        StoreTimeout,
        UnboundSessionError,
        ValueRefused,
    ]
    conflict: type[SessionConflict] = SessionGone
    failure: type[StoreError] = StoreTimeout
    also: tuple[type[ValueError], type[RuntimeError]] = (ConfigError, UnboundSessionError)
    try:
        session.save()
    except ValueRefused as error:
        assert_type(error.key, str)
    del roots, conflict, failure, also


# -- stores --------------------------------------------------------------------------------------


def stores() -> None:
    memory: Store = MemoryStore()
    file: Store = FileStore(data_dir="data")
    for store in (memory, file):
        assert_type(store.load("key"), Record | Missing | Moved)
        store.save("key", Delta({"x": b""}, ["y"], cleared=True), 60.0, expect=1)
        if isinstance(store, Purgeable):
            assert_type(store.purge(100), int)
    purgeable: list[Purgeable] = [MemoryStore(), FileStore(data_dir="data")]
    listable: list[Listable] = [MemoryStore(), FileStore(data_dir="data")]
    del purgeable, listable


# -- ids in URLs ---------------------------------------------------------------------------------

SessionMiddleware(
    app,
    use_cookies=False,
    find_id=[PathSegment("~"), PathParam("sid")],
    rewrite="html",
    origin="https://shop.example",
    leak_guard="raise",
)
assert_type(session.url("/cart"), str)
assert_type(session.bare_url("/cart"), str)
assert_type(mask("GET /"), str)
MaskIds()
request_handler: type[MaskingRequestHandler] = MaskingRequestHandler
leak: type[NocookieError] = IdLeak

# -- owners --------------------------------------------------------------------------------------

session.login("ada", "her telephone")
session.timeout = session.lifetime = None
assert_type(session.owner, str | None)
assert_type(session.sessions_of(), list[SessionInfo])
assert_type(session.end_all(but=session), int)
assert_type(session.end_one("0123456789"), bool)
assert_type(session.logout("/bye").headers, list[tuple[str, str]])

# -- stores with servers -------------------------------------------------------------------------

with_servers: list[Store] = [
    RedisStore(url="redis://localhost"),
    MemcachedStore(url="localhost:11211"),
    SqlAlchemyStore(url="sqlite:///sessions.db", create_table=True),
]
renewing: Renewing = RedisStore(url="redis://localhost")
by_owner: ByOwner = RedisStore(url="redis://localhost")
countable: Countable = FileStore(data_dir="data")
