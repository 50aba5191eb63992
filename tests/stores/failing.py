"""A store that fails at one call, every operation that an application can ask of a session, and
what has to hold after such a failure: for test_failing_calls.py.

    world = World(store, clock, **options)
    visitor = world.visitor(OPERATIONS["login"])
    world.fail(at=2, how="before")
    answer = visitor.ask()
    visitor.check(answer)
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from helpers import serve
from webob import Request

from nocookie import SessionMiddleware, StoreError, session
from nocookie.codecs import JsonCodec
from nocookie.facts import FACTS, Facts
from nocookie.stores.base import ByOwner, InOneStep, Listable, Record, Renewing

#: Every call of a store that can fail.
CALLS = (
    *("load", "create", "save", "touch", "rotate", "destroy"),
    *("load_and_touch", "owned", "end_owned"),
)

#: How a call fails. before: it does nothing, and says that it failed. after: it is done, and its
#: answer gets lost. down: nothing of it is done, nor of any after it. cut: it is done, its answer
#: gets lost, and nothing is done of any after it.
FAILS = ("before", "after", "down", "cut")
#: How the process dies instead.
DIES = ("dies before", "dies after")

#: What a process that dies says to its parent.
DEAD = 99


class Failing:
    """Around a store: counts its calls, and fails as it is told."""

    def __init__(self, store: Any) -> None:
        self.inner = store
        self.shared = store.shared
        self.calm()

    def calm(self) -> None:
        self.calls: list[str] = []
        self.at, self.how, self.hit = 0, "before", False

    def call(self, name: str, *args: Any, **options: Any) -> Any:
        self.calls.append(name)
        nth = len(self.calls)
        if nth != self.at and not (self.hit and self.how in ("down", "cut")):
            return getattr(self.inner, name)(*args, **options)
        is_first, self.hit = not self.hit, True
        if is_first and self.how in ("after", "cut", "dies after"):
            getattr(self.inner, name)(*args, **options)
        if self.how in DIES:
            os._exit(DEAD)
        raise StoreError(f"failed at call {nth}, {name}, for the test")


def failing(store: Any) -> Failing:
    """Return *store* so that it can fail, with the powers that it has and no other."""

    def forward(name: str) -> Callable[..., Any]:
        return lambda self, *args, **options: self.call(name, *args, **options)

    methods: dict[str, Any] = {name: forward(name) for name in CALLS if hasattr(store, name)}
    for name in ("keys", "close", "rotates_in_one_step"):  # not calls of a request
        if hasattr(store, name):
            methods[name] = property(lambda self, name=name: getattr(self.inner, name))
    return type("FailingStore", (Failing,), methods)(store)


# -- the operations ------------------------------------------------------------------------------

#: What is in each session before an operation, beside its `life`.
BEFORE = {"kept": 1, "gone": 2, "n": 5, "list": [1]}
EVERY, GRACE = 600.0, 10.0
#: A session that nobody renewed for so long is due for that.
IDLE = 300.0
GATEWAY = {"strict": False, "id_key": "a key for ids of a gateway, long enough"}


class Operation(NamedTuple):
    """What one request does with a session."""

    page: Callable[[Visitor], object]
    #: How often it asks a store that cannot renew what it loads, when nothing fails.
    calls: int
    #: What is in the session then, beside its life; None where that has ended.
    after: dict[str, Any] | None = BEFORE
    #: The same where only a part of it was done: what acts at once stays though the rest fails.
    between: tuple[dict[str, Any] | None, ...] = ()
    #: Whose the session is before and after: the visitor's own name, another's, or nobody's.
    owners: tuple[str, str] = ("", "")
    options: dict[str, Any] = {}
    #: Seconds that pass before it.
    later: float = 0.0
    #: The client has no session yet.
    is_first: bool = False
    #: The client comes with its id of before a rotation by time.
    is_stale: bool = False
    #: It is done while the body is sent.
    is_late: bool = False
    #: A store that renews what it loads needs one call less.
    renews: bool = False
    #: It needs a store that finds sessions by their owner.
    by_owner: bool = False
    #: It ends the session beside.
    ends_beside: bool = False
    #: The client gets another id, and its old one is dead.
    moves: bool = False
    #: Its session is another from then on, with nothing of the one before.
    begins_anew: bool = False


ROTATING = {"rotate_every": EVERY, "rotation_grace": GRACE}


def keeping(**more: Any) -> dict[str, Any]:
    return {**BEFORE, **more}


def read(visitor: Visitor) -> None:
    assert session["kept"] == 1


def change(visitor: Visitor) -> None:
    session["kept"] = 7
    session.save()


def first_save(visitor: Visitor) -> None:
    session.update(BEFORE, life=visitor.life)
    session.save()


def first_login(visitor: Visitor) -> None:
    session.update(BEFORE, life=visitor.life)
    session.login(visitor.name)


def change_and_count(visitor: Visitor) -> None:
    change(visitor)
    session.incr("n")


def end_and_begin(visitor: Visitor) -> None:
    session.delete()
    session["kept"] = 3
    session.save()


def logout(visitor: Visitor) -> None:
    session.logout()


def end_beside(visitor: Visitor) -> None:
    ids = visitor.world.manager.backend.ids
    session.end_one(ids.key(visitor.beside)[:10], visitor.name)


def delete_key(visitor: Visitor) -> None:
    session.pop("gone", None)
    session.save()


def clear(visitor: Visitor) -> None:
    session.clear()
    session.save()


def login(visitor: Visitor) -> None:
    session.login(visitor.name)


def login_as_another(visitor: Visitor) -> None:
    session.login(visitor.other)
    session["kept"] = 8


def revert(visitor: Visitor) -> None:
    session["kept"] = 9
    session.save()
    session.revert()


OPERATIONS = {
    "read": Operation(read, 1),
    "set": Operation(change, 2, keeping(kept=7)),
    "delete key": Operation(delete_key, 2, {"kept": 1, "n": 5, "list": [1]}),
    "clear": Operation(clear, 2, {}, begins_anew=True),
    "login": Operation(login, 2, owners=("", "own"), moves=True),
    "login as another": Operation(
        login_as_another, 2, {"kept": 8}, owners=("own", "other"), moves=True, begins_anew=True
    ),
    "first save": Operation(first_save, 1, is_first=True),
    "first login": Operation(first_login, 1, owners=("", "own"), is_first=True),
    "logout": Operation(logout, 2, None, owners=("own", "")),
    "delete": Operation(lambda visitor: session.delete(), 2, None),
    "delete and begin": Operation(
        end_and_begin, 3, {"kept": 3}, between=(None,), moves=True, begins_anew=True
    ),
    "regenerate_id": Operation(
        lambda visitor: session.regenerate_id(), 2, owners=("own", "own"), moves=True
    ),
    "rotation by time": Operation(
        read, 2, owners=("own", "own"), options=ROTATING, later=EVERY + 1
    ),
    "rotation by time and set": Operation(
        change, 2, keeping(kept=7), owners=("own", "own"), options=ROTATING, later=EVERY + 1
    ),
    "read by an old id": Operation(read, 2, options=ROTATING, is_stale=True),
    "set by an old id": Operation(change, 3, keeping(kept=7), options=ROTATING, is_stale=True),
    "incr by an old id": Operation(
        lambda visitor: session.incr("n"), 4, keeping(n=6), options=ROTATING, is_stale=True
    ),
    "login by an old id": Operation(
        login, 3, owners=("", "own"), options=ROTATING, is_stale=True, moves=True
    ),
    "logout by an old id": Operation(
        logout, 3, None, owners=("own", ""), options=ROTATING, is_stale=True
    ),
    "incr": Operation(lambda visitor: session.incr("n"), 3, keeping(n=6)),
    "mutate": Operation(
        lambda visitor: session.mutate(lambda stored: stored.update(list=[*stored["list"], 2])),
        3,
        keeping(list=[1, 2]),
    ),
    "set and incr": Operation(
        change_and_count, 4, keeping(kept=7, n=6), between=(keeping(kept=7),)
    ),
    "late save": Operation(change, 2, keeping(kept=7), is_late=True),
    "revert": Operation(revert, 1),
    "end_all": Operation(
        lambda visitor: session.end_all(but=session),
        2,
        owners=("own", "own"),
        ends_beside=True,
        by_owner=True,
    ),
    "end_all with its own": Operation(
        lambda visitor: session.end_all(),
        2,
        None,
        owners=("own", ""),
        ends_beside=True,
        by_owner=True,
    ),
    "end_one": Operation(end_beside, 2, ends_beside=True, by_owner=True),
    "sessions_of": Operation(
        lambda visitor: session.sessions_of(), 4, owners=("own", "own"), by_owner=True
    ),
    "get_by_id": Operation(lambda visitor: session.get_by_id(visitor.beside), 1),
    "gateway login": Operation(login, 3, owners=("", "own"), options=GATEWAY),
    "renewal": Operation(read, 2, later=IDLE, renews=True),
    "late renewal": Operation(read, 2, later=IDLE, renews=True, is_late=True),
}

# -- the world -----------------------------------------------------------------------------------

_numbers = itertools.count(1)


class World:
    """An application on a store that can fail."""

    def __init__(self, store: Any, clock: Any, **options: Any) -> None:
        self.store, self.clock = failing(store), clock
        self.events: list[str] = []
        #: The application is in a framework, which makes an answer of its own of every error.
        self.has_framework = False
        self.app = SessionMiddleware(
            self._handle,
            use_cookies=False,
            type=self.store,
            clock=clock,
            on_event=lambda event: self.events.append(event.name),
            **options,
        )
        self.manager = self.app.manager

    def _handle(self, environ: Any, start_response: Any) -> Any:
        page, is_late = environ["test.page"], environ["test.late"]
        try:
            if not is_late:
                page()
        except Exception:
            if not self.has_framework:
                raise
            start_response("500 Internal Server Error", [])
            return [b"sorry"]
        start_response("200 OK", [])
        return self._late(page) if is_late else [b""]

    def _late(self, page: Callable[[], object]) -> Any:
        yield b"begun"
        page()

    def get(self, page: Callable[[], object], id: str | None, is_late: bool = False) -> Any:
        environ = Request.blank("/").environ
        environ |= {"test.page": page, "test.late": is_late}
        if id is not None:
            environ["HTTP_X_SESSION_ID"] = id
        return serve(self.app, environ=environ)

    def fail(self, at: int, how: str) -> None:
        self.store.calm()
        self.store.at, self.store.how = at, how

    def calls(self, operation: Operation) -> int:
        """How often the store is asked when nothing fails."""
        return operation.calls - (operation.renews and isinstance(self.store.inner, Renewing))

    def records(self) -> list[tuple[str, str | None, str | None]]:
        """Every living record, as it is stored: its key, its life and its owner."""
        found = []
        for key in list(self.store.inner.keys()):
            record = self.store.inner.load(key)
            if isinstance(record, Record):
                loads = JsonCodec().loads
                life = record.fields.get("life")
                facts = record.fields.get(FACTS)
                owner = facts and Facts.read(loads(facts)).owner
                found.append((key, life and loads(life), owner))
        return found

    def visitor(self, operation: Operation) -> Visitor:
        return Visitor(self, operation)


class Visitor:
    """A client whose session an operation is done to, and the sessions beside it."""

    def __init__(self, world: World, operation: Operation) -> None:
        self.world, self.operation = world, operation
        number = f"{next(_numbers)} of {os.getpid()}"
        self.name, self.other = f"own {number}", f"other {number}"
        self.life = f"life {number}"
        self.owners = tuple(
            {"own": self.name, "other": self.other}.get(o) for o in operation.owners
        )
        is_gateway = not operation.options.get("strict", True)
        self.id: str | None = None
        if not operation.is_first:
            self.id = self._begin(self.life, self.owners[0], f"id {number}" if is_gateway else None)
        if operation.is_stale:
            world.clock.advance(EVERY + 1)
            told = world.get(lambda: read(self), self.id).id
            assert told not in (None, self.id)
        # Of the same owner; of another; one that has ended.
        self.beside = self._begin("beside " + number, self.name)
        self.neighbour = self._begin("neighbour " + number, self.other)
        self.ended = self._begin("ended " + number, self.other)
        world.get(lambda: session.delete(), self.ended)
        world.clock.advance(operation.later)
        world.events.clear()

    def _begin(self, life: str, owner: str | None, id: str | None = None) -> str:
        def page() -> None:
            session.update(BEFORE, life=life)
            session.save()
            if owner is not None:
                session.login(owner)

        answer = self.world.get(page, id)
        assert answer.status == "200 OK"
        if id is None and not self.world.manager.backend.ids.adopts:
            assert answer.id is not None
            return str(answer.id)
        return id or self._begin(life, owner, f"id {life}")

    def ask(self) -> Any:
        """Do the operation, and let the store be well again."""
        page = self.operation.page
        answer = None
        try:
            answer = self.world.get(lambda: page(self), self.id, self.operation.is_late)
        except StoreError:  # of a body that has begun: the connection breaks
            assert self.operation.is_late
        self.was_hit, self.calls = self.world.store.hit, list(self.world.store.calls)
        self.world.store.calm()
        return answer

    # -- what has to hold after it

    def check(self, answer: Any, how: str) -> None:
        """*answer* is None where the process has died, or the connection broke."""
        is_done = answer is not None and answer.status == "200 OK"
        is_done = is_done and "lost" not in self.world.events
        assert answer is None or answer.status[:3] in ("200", "503")
        told = None if answer is None else answer.id
        # An end whose answer was lost has happened: nobody knows that yet.
        if not is_done and told is not None and self.operation.after is not None:
            assert self.see(told)[0] is not None, "what has failed tells an id that lives, or none"
        if is_done and (self.operation.moves or self.operation.is_first):
            assert told not in (None, self.id)
        old, self.id = self.id, told or self.id

        state, owner = self.see(self.id)
        self.check_state(state, owner, is_done, how)
        self.check_ended(old, is_done)
        self.check_records(state, is_done)
        self.check_next(state)

    def see(self, id: str | None) -> tuple[dict[str, Any] | None, str | None]:
        """What the next request of the client finds; None where its session is a new one."""
        seen: list[Any] = []

        def page() -> None:
            seen.append(None if session.is_new else dict(session))
            seen.append(session.owner)

        answer = self.world.get(page, id)
        assert answer.status == "200 OK", "the client's next request works"
        if id is self.id and answer.id is not None:
            self.id = answer.id
        return seen[0], seen[1]

    def check_state(
        self, state: dict[str, Any] | None, owner: str | None, is_done: bool, how: str
    ) -> None:
        before = {**BEFORE, "life": self.life}, self.owners[0]
        nothing = None, None
        after: tuple[dict[str, Any] | None, str | None] = (None, None)
        if self.operation.after is not None:
            after = {**self.operation.after}, self.owners[1]
            if not self.operation.begins_anew:
                assert after[0] is not None
                after[0]["life"] = self.life
        if is_done:
            assert (state, owner) == after, "what was acknowledged is lost"
            return
        allowed = [nothing if self.operation.is_first else before, after]
        allowed += [
            nothing if part is None else ({**part, "life": self.life}, before[1])
            for part in self.operation.between
        ]
        # The session goes on under an id that nobody has been told.
        untold = how in ("cut", "dies after")
        untold |= how == "after" and not isinstance(self.world.store.inner, InOneStep)
        if self.operation.moves and untold:
            allowed.append(nothing)
        assert (state, owner) in allowed, "what an earlier request was told is lost"

    def check_ended(self, old: str | None, is_done: bool) -> None:
        assert self.see(self.ended) == (None, None), "what ended is back"
        if is_done and self.operation.moves:
            assert self.see(old) == (None, None), "two ids lead to one session"
        state, owner = self.see(self.neighbour)
        assert state is not None
        assert owner == self.other
        state, owner = self.see(self.beside)
        if self.operation.ends_beside:
            assert state is None or not is_done, "what was said to be ended lives"
        else:
            assert state is not None
            assert owner == self.name

    def check_records(self, state: dict[str, Any] | None, is_done: bool = True) -> None:
        store, manager = self.world.store.inner, self.world.manager
        if not isinstance(store, Listable):
            return
        records = self.world.records()
        lives = [key for key, life, _ in records if life == self.life]
        assert len(lives) <= 1, "a session has two lives"
        if state is not None and state.get("life") == self.life:
            assert self.id is not None
            assert lives == [manager.backend.ids.key(self.id)]
        elif is_done:
            assert lives == [], "what ended, or is another's now, lives on"
        if isinstance(store, ByOwner):
            for name in (self.name, self.other):
                told = {each.fingerprint for each in manager.sessions_of(name)}
                there = {key[:10] for key, _, owner in records if owner == name}
                assert told == there, "sessions_of does not tell the truth"

    def check_next(self, state: dict[str, Any] | None) -> None:
        """The client goes on: it writes, reads, and does the same once more."""
        expected = self.owners[1]
        if state is None:
            self.life += " anew"
            if self.owners[0] == expected:  # an operation that is no login
                expected = None

        def write() -> None:
            session["again"] = 1
            session["life"] = self.life
            session.setdefault("kept", 1)
            session.setdefault("list", [1])
            session.save()

        answer = self.world.get(write, self.id)
        assert answer.status == "200 OK"
        self.id = answer.id or self.id
        state, _ = self.see(self.id)
        assert state is not None
        assert state["again"] == 1
        answer = self.ask()
        assert answer.status == "200 OK"
        old, self.id = self.id, answer.id or self.id
        state, owner = self.see(self.id)
        if self.operation.after is not None:
            assert state is not None
            assert owner == expected
        self.check_records(state)
        if old != self.id and self.operation.moves:
            assert self.see(old) == (None, None)
