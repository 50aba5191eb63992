"""`secret`, `encrypt_key` and `data_serializer` are changed under clients that are there: each of
them finds its data, or a new session that says why, and can go on with it."""

from itertools import product

import pytest
from helpers import serve
from webob import Request

from nocookie import Session, SessionMiddleware, session
from nocookie.flash import flash, pop_messages
from nocookie.stores import close_all
from nocookie.stores.memory import MemoryStore

pytest.importorskip("cryptography")

A, B = "a secret of a good length: " + "a" * 32, "another secret of a good length: " + "b" * 32

SECRETS = {"none": None, "A": [A], "B": [B], "B and A": [B, A]}
KEYS = {"none": None, "A": [A], "B": [B], "B and A": [B, A]}
CONFIGURATIONS = {
    f"secret {secret}, key {key}, {serializer}": {
        "secret": SECRETS[secret],
        "encrypt_key": KEYS[key],
        "data_serializer": serializer,
    }
    for secret, key, serializer in product(SECRETS, KEYS, ("json", "pickle"))
    # Both need a secret.
    if secret != "none" or (key == "none" and serializer == "json")
}


def expected(old, new):
    """Return the reason of a session that was stored with *old* and is looked for with *new*; None
    if it is there."""
    if new["secret"] and (old["secret"] or [None])[0] not in new["secret"]:
        return "forged"
    if old["secret"] and not new["secret"]:
        return "corrupted"
    if old["encrypt_key"] and old["encrypt_key"][0] not in (new["encrypt_key"] or ()):
        return "corrupted"
    if old["data_serializer"] == "pickle" and new["data_serializer"] == "json":
        return "corrupted"
    return None


class Site:
    """One store; its middleware is made anew for each configuration."""

    def __init__(self, store, clock, **options):
        self.options = {**store, "clock": clock, "use_cookies": False, **options}
        self.apps = {}

    def ask(self, configuration, page, id):
        def application(environ, start_response):
            self.result = page()
            start_response("200 OK", [])
            return [b""]

        key = str(configuration)
        if key not in self.apps:
            self.apps[key] = SessionMiddleware(application, **self.options, **configuration)
        self.apps[key].app = application
        answer = serve(self.apps[key], id)
        assert answer.status == "200 OK"
        return answer.id or id


@pytest.fixture(params=["memory", "file"])
def store(request, clock, tmp_path):
    yield (
        {"type": MemoryStore(clock=clock)}
        if request.param == "memory"
        else {"data_dir": str(tmp_path)}
    )
    close_all()


@pytest.fixture(params=CONFIGURATIONS)
def old(request):
    return CONFIGURATIONS[request.param]


def begin():
    session.update(user="ann", cart=["tea"], n=1)
    session.save()


def log_in():
    session.update(user="ann", cart=["tea"], n=1)
    session.login("ann")
    session.save()


def visit():
    """As applications are written: they ask, and then read."""
    user = session["user"] if "user" in session else None  # noqa: SIM401 - that is how
    session["n"] = n = session["n"] + 1 if "n" in session else 1
    session.save()
    return session.reason, user, n


@pytest.mark.parametrize("first", [begin, log_in])
def test_with_changed_keys_there_is_the_data_or_a_new_session_and_the_client_goes_on(
    store, clock, old, first
):
    site = Site(store, clock)
    for new in CONFIGURATIONS.values():
        reason = expected(old, new)
        before = site.ask(old, first, None)

        id = site.ask(new, visit, before)
        assert site.result == ((None, "ann", 2) if reason is None else (reason, None, 1)), new
        assert (id == before) is (reason is None), "who has a new session is told its id"

        assert site.ask(new, visit, id) == id
        assert site.result == ((None, "ann", 3) if reason is None else (None, None, 2)), new


@pytest.mark.parametrize("first", [begin, log_in])
def test_the_session_of_a_gateway_begins_anew_where_it_cannot_be_read(store, clock, old, first):
    """The id is the gateway's, and stays; under it there is one session that can be read."""
    site = Site(store, clock, strict=False, id_key="the key of the gateway, long enough")
    for number, new in enumerate(CONFIGURATIONS.values()):
        reason = expected(old, new)
        site.ask(old, first, f"dialogue {number}")
        for kept, begun in ((2, 1), (3, 2), (4, 3)):
            site.ask(new, visit, f"dialogue {number}")
            _, user, n = site.result
            assert (user, n) == ((None, begun) if reason else ("ann", kept)), new
        site.ask(new, lambda: dict(session), f"dialogue {number}")
        assert site.result == ({"n": 3} if reason else {"user": "ann", "cart": ["tea"], "n": 4})


def test_a_login_of_a_gateway_is_no_conflict_for_ever(store, clock):
    """Under an id that stays, the login stores everything anew."""

    def log_in_again():
        list(session.items()) if reads else session.get("n")
        session.login("ann")
        session.save()
        return session.owner

    options = {"strict": False, "id_key": "the key of the gateway, long enough"}
    site = Site(store, clock, **options)
    old, new = {"secret": A, "encrypt_key": A}, {"secret": A, "encrypt_key": B}
    for reads in (False, True):
        site.ask(old, begin, f"dialogue {reads}")
        site.ask(old, lambda: session.update(more=[1]) or session.save(), f"dialogue {reads}")
        site.ask({"secret": A}, lambda: session.update(n=7) or session.save(), f"dialogue {reads}")
        for _ in range(2):
            site.ask(new, log_in_again, f"dialogue {reads}")
            assert site.result == "ann"
        site.ask(new, lambda: (session.owner, dict(session)), f"dialogue {reads}")
        assert site.result == ("ann", {})


#: What an application may ask before it reads.
QUESTIONS = {
    "in": lambda: "user" in session,
    "has_key": lambda: session.has_key("user"),
    "len": lambda: len(session) > 0,
    "iteration": lambda: "user" in list(session),
    "items": lambda: bool(dict(session.items())),
    "get": lambda: session.get("user") is not None,
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_cannot_be_read_is_not_said_to_be_there(store, clock, question):
    def ask():
        if QUESTIONS[question]():
            session["user"].upper()
        return session.reason, session.is_new

    site = Site(store, clock)
    id = site.ask({"secret": A, "encrypt_key": A}, begin, None)
    for _ in range(3):
        site.ask({"secret": A, "encrypt_key": B}, ask, id)
        assert site.result == ("corrupted", True)
    site.ask({"secret": A, "encrypt_key": [B, A]}, ask, id)
    assert site.result == (None, False), "the record was kept"


def test_a_key_that_cannot_be_read_can_be_deleted_and_set(store, clock):
    site = Site(store, clock)
    for change in (
        lambda: session.pop("user", None),
        lambda: session.setdefault("user", "bob"),
        lambda: session.update(user="bob"),
        lambda: session.clear(),
    ):
        id = site.ask({"secret": A, "encrypt_key": A}, begin, None)

        def page(change=change):
            change()
            session["n"] = 5
            session.save()
            return session["n"]

        id = site.ask({"secret": A, "encrypt_key": B}, page, id)
        assert site.ask({"secret": A, "encrypt_key": B}, lambda: dict(session), id) == id
        site.ask({"secret": A, "encrypt_key": B}, visit, id)


def test_messages_that_cannot_be_read_are_none(store, clock):
    site = Site(store, clock)
    id = site.ask({"secret": A, "encrypt_key": A}, lambda: flash("saved"), None)
    for _ in range(2):
        site.ask({"secret": A, "encrypt_key": B}, pop_messages, id)
        assert site.result == []
    id = site.ask({"secret": A, "encrypt_key": B}, lambda: flash("again"), id)
    site.ask({"secret": A, "encrypt_key": B}, pop_messages, id)
    assert [message.message for message in site.result] == ["again"]


def test_a_count_of_keys_reads_no_values(clock):
    """It is asked for at every save of many keys."""
    options = {"type": MemoryStore(clock=clock), "clock": clock, "secret": A, "max_keys": 3}
    first = Session({}, **options, encrypt_key=A)
    first.update(a=1, b=2, c=3)
    first.save()
    other = Session({}, first.id, **options, encrypt_key=B)
    other["a"] = 2
    other["b"] = 2
    other.save()
    assert dict(Session({}, first.id, **options, encrypt_key=B)) == {}


#: Of `type = cookie`; each needs a secret.
SEALED = [each for each in CONFIGURATIONS.values() if each["secret"]]


@pytest.mark.parametrize("old", SEALED, ids=str)
def test_a_whole_session_in_a_cookie_is_there_or_new_and_the_next_request_works(clock, old):
    """`encrypt_key` is its key where there is one, and `secret` else."""
    for new in SEALED:
        cookie, seen = None, []
        for configuration in (old, new, new):

            def application(environ, start_response, seen=seen):
                seen.append(visit())
                start_response("200 OK", [])
                return [b""]

            options = {"type": "cookie", "secure": False, "clock": clock, **configuration}
            environ = Request.blank("/").environ | ({"HTTP_COOKIE": cookie} if cookie else {})
            answer = serve(SessionMiddleware(application, **options), environ=environ)
            assert answer.status == "200 OK"
            cookie = answer.header("Set-Cookie").partition(";")[0]
        first, second, third = seen
        assert first == ("absent", None, 1)
        opens = (old["encrypt_key"] or old["secret"])[0] in (new["encrypt_key"] or new["secret"])
        is_pickle = old["data_serializer"] == "pickle" and new["data_serializer"] == "json"
        reason = "corrupted" if opens and is_pickle else None if opens else "forged"
        assert second == ((None, None, 2) if reason is None else (reason, None, 1)), new
        assert third == (None, None, second[2] + 1), new
