"""Owners and ids that change by themselves, under load: on every place, across threads and
processes."""

import itertools
import json
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import serve
from lengths import ROUNDS
from stores.places import places
from stores.test_races import NOTICE, OFFSET, in_a_process, in_a_thread

from nocookie import Session, SessionMiddleware, session
from nocookie.owners import end_all, sessions_of
from nocookie.stores.base import ByOwner, Listable

#: Rounds of the end of all sessions of an owner.
ENDS = ROUNDS // 2
#: Rounds of many requests under an id that is due for another, on the places that are quick.
QUICK = {"memory", "file", "valkey"}
TURNS = ROUNDS // 4

#: Requests at once.
MANY = 20
EVERY, GRACE = 600.0, 10.0


# -- rotation by itself, under many requests -------------------------------------------------------


class Site:
    """An application on a place, and what its requests saw."""

    def __init__(self, place, clock):
        options = place.at(clock)
        self._app = SessionMiddleware(
            self._handle, use_cookies=False, rotate_every=EVERY, rotation_grace=GRACE, **options
        )
        self.options = options
        self.manager = self._app.manager

    def _handle(self, environ, start_response):
        environ["page"]()
        start_response("200 OK", [])
        return [b""]

    def get(self, page, id=None):
        """Return the status and the id that the client is told."""
        from webob import Request

        environ = Request.blank("/").environ | {"page": page}
        if id is not None:
            environ["HTTP_X_SESSION_ID"] = id
        answer = serve(self._app, environ=environ)
        return answer.status[:3], answer.id

    def new(self):
        def page():
            session["kept"] = 1
            session.save()

        return self.get(page)[1]

    def peek(self, id):
        """What lies under an id; None if nothing does."""
        found = Session({}, id=id, **self.options)
        return None if found.is_new else dict(found)


class Client:
    """One of many requests: when it began and ended, and what came of it."""

    def __init__(self, site, id, name):
        self._site, self._id, self._name = site, id, name
        self.knew = None
        self.began = self.ended = 0.0
        self.status = self.told = None

    def __call__(self):
        self.began = time.monotonic()
        self.status, self.told = self._site.get(self._page, self._id)
        self.ended = time.monotonic()

    def _page(self):
        self.knew = session.get("kept") == 1
        if self.knew and self._name is not None:
            session[self._name] = 1
            session.save()


def rounds(place):
    return TURNS if place.name in QUICK else TURNS // 10


@places()
def test_of_many_requests_that_are_due_for_an_id_none_is_logged_out(place, clock):
    site = Site(place, clock)
    with ThreadPoolExecutor(MANY) as pool:
        for _ in range(rounds(place)):
            id = site.new()
            clock.advance(EVERY)
            clients = [Client(site, id, f"k{n}" if n % 3 else None) for n in range(MANY)]
            for done in [pool.submit(client) for client in clients]:
                done.result(60)
            assert {client.status for client in clients} == {"200"}
            assert all(client.knew for client in clients), "a request was logged out"
            told = {client.told for client in clients} - {None}
            assert len(told) == 1, "the clients were told different ids"
            (after,) = told
            expected = {f"k{n}": 1 for n in range(MANY) if n % 3} | {"kept": 1}
            assert site.peek(after) == expected, "an acknowledged save was lost"
            clock.advance(GRACE)
            assert site.peek(id) is None, "the old id is alive after the grace"
            store = site.manager.backend.store
            if isinstance(store, Listable):
                assert len(list(store.keys())) == 1, "there are two live ids"
            Session({}, id=after, **site.options).delete()


@places()
def test_a_login_among_many_requests_leaves_one_live_id(place, clock):
    seed = random.randrange(10**9)
    sys.stdout.write(f"seed = {seed}\n")
    dice = random.Random(seed)
    site = Site(place, clock)
    before = after = 0
    with ThreadPoolExecutor(MANY + 1) as pool:
        for turn in range(rounds(place)):
            id = site.new()
            clock.advance(EVERY)
            clients = [Client(site, id, f"k{n}" if n % 3 else None) for n in range(MANY)]
            login = Client(site, id, None)
            owner = f"ann {turn}"
            login._page = lambda owner=owner: session.login(owner)
            delays = [dice.uniform(0, 5 * OFFSET) for _ in clients]

            def later(client, delay):
                time.sleep(delay)
                client()

            running = [pool.submit(later, *pair) for pair in zip(clients, delays, strict=True)]
            time.sleep(dice.uniform(0, 3 * OFFSET))
            login()
            for done in running:
                done.result(60)

            assert login.status == "200"
            assert login.told is not None
            final = site.peek(login.told)
            assert final is not None, "the login was lost"
            told = {client.told for client in clients} - {None, login.told}
            clock.advance(GRACE / 2)  # within the grace, after a login
            assert [old for old in {id, *told} if site.peek(old) is not None] == []
            for client in clients:
                assert client.status in ("200", "409")
                if client.ended < login.began:
                    before += 1
                    assert client.status == "200"
                    assert client.knew, "logged out before the login"
                if client.began > login.ended:
                    after += 1
                    assert not client.knew, "the old id was good after the login"
                if client.status == "200" and client.knew and client._name is not None:
                    assert client._name in final, "an acknowledged save was lost"
            store = site.manager.backend.store
            if isinstance(store, Listable):
                assert len(list(store.keys())) == 1, "there are two live ids"
            if isinstance(store, ByOwner):
                assert len(site.manager.sessions_of(owner)) == 1
            Session({}, id=login.told, **site.options).delete()
    if rounds(place) >= 50:  # of few rounds all may miss
        assert min(before, after) > 0, "the login did not meet the requests"


# -- the end of all sessions of an owner -----------------------------------------------------------


def end_all_among_racers(place, racers):
    """Two sessions of one owner, each in use all the time: one goes on under fresh ids, the other
    saves. At some moment all of the owner's end."""
    store = place.store()
    if not isinstance(store, ByOwner):
        pytest.skip("the store is not ByOwner")
    seed = random.randrange(10**9)
    sys.stdout.write(f"seed = {seed}\n")
    dice = random.Random(seed)
    rotations = saves = 0
    assert [hear() for _, hear in racers] == ["ready", "ready"]
    for turn in range(ENDS):
        owner = f"ann {turn}"
        sessions = []
        for _ in racers:
            one = Session({}, **place.options)
            one["kept"] = 1
            one.login(owner)
            one.save()
            sessions.append(one)
        for (tell, hear), role, one in zip(racers, ("rotator", "keeper"), sessions, strict=True):
            tell(json.dumps([role, one.id]))
            assert hear() == "loaded"
        moment = time.monotonic() + NOTICE
        for tell, _ in racers:
            tell(str(moment))
        time.sleep(max(0.0, moment + dice.uniform(0, 5 * OFFSET) - time.monotonic()))
        ended = end_all(one._backend, owner)
        ids, turns = (json.loads(hear()) for _, hear in racers)
        rotations += len(ids) - 1
        saves += turns
        assert ended == 2, "one of them was not found"
        assert sessions_of(one._backend, owner) == []
        survivors = [id for id in ids if not Session({}, id=id, **place.options).is_new]
        assert survivors == [], "a session outlived the end of all"
        assert Session({}, id=sessions[1].id, **place.options).is_new
    for tell, _ in racers:
        tell("")
    if isinstance(store, Listable):
        assert list(store.keys()) == []
    assert min(rotations, saves) > ENDS / 20, "the end did not meet them"


@places()
def test_no_session_of_another_thread_outlives_the_end_of_all(place, crew):
    end_all_among_racers(place, [in_a_thread(place, crew) for _ in range(2)])


@places("shared")
def test_no_session_of_another_process_outlives_the_end_of_all(place, crew):
    end_all_among_racers(place, [in_a_process(place, crew) for _ in range(2)])


@places()
def test_of_many_that_end_all_each_session_is_counted_once(place):
    store = place.store()
    if not isinstance(store, ByOwner):
        pytest.skip("the store is not ByOwner")
    one = None
    for _ in range(40):
        one = Session({}, **place.options)
        one.login("ann")
        one.save()
    counts = []
    enders = [
        threading.Thread(target=lambda: counts.append(end_all(one._backend, "ann")))
        for _ in range(4)
    ]
    for ender in enders:
        ender.start()
    for ender in enders:
        ender.join(60)
    assert sum(counts) == 40
    assert list(itertools.chain(sessions_of(one._backend, "ann"))) == []
