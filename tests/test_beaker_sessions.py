"""What a handler that was written for Beaker does with its session, and Beaker's answer to it."""

import pytest
from beaker.session import Session as BeakerSession
from helpers import CountingStore
from webob.dec import wsgify
from webtest import TestApp

import nocookie
from nocookie import Session, SessionMiddleware


@pytest.fixture
def store(clock):
    return CountingStore(clock=clock)


@pytest.fixture
def options(store, clock):
    return {"type": store, "clock": clock}


@pytest.fixture
def stored(options):
    session = Session({}, **options)
    session["a"] = 1
    session.save()
    return session


# -- the cookie's attributes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["domain", "path"])
def test_an_attribute_of_the_cookie_is_not_assigned_in_silence(name, options):
    """Beaker sets that of its cookie. Here the option for it is named."""

    @wsgify
    def app(request):
        for session in (nocookie.session, Session({}, **options)):
            with pytest.raises(AttributeError, match=f"set the option cookie_{name}"):
                setattr(session, name, ".example.com")
            with pytest.raises(AttributeError, match=f"a session has no {name}"):
                getattr(session, name)
        return ""

    TestApp(SessionMiddleware(app, **options)).get("/")
    assert not hasattr(Session, name)
    assert hasattr(BeakerSession, name)


# -- when it began -------------------------------------------------------------------------------


def test_created_before_the_first_save_is_what_is_stored(options, clock):
    began = clock()
    session = Session({}, **options)
    assert session.created == began
    clock.advance(5)
    session["a"] = 1
    session.save()
    assert session.created == began
    assert Session({}, session.id, **options).created == began
    assert Session({}, session.id, **options).last_accessed == began + 5


def test_a_session_that_nobody_asked_began_when_it_was_stored(options, clock):
    session = Session({}, **options)
    session["a"] = 1
    clock.advance(5)
    session.save()
    assert session.created == clock()


def test_a_login_is_a_beginning_however_early_somebody_asked(options, clock):
    session = Session({}, **options)
    assert session.created == clock()
    clock.advance(5)
    session.login("ada")
    session.save()
    assert Session({}, session.id, **options).created == clock()


def test_a_clock_that_was_put_back_makes_no_session_begin_in_the_future(options, clock):
    session = Session({}, **options)
    assert session.created
    clock.advance(-60)
    session["a"] = 1
    session.save()
    assert session.created == clock()


# -- saving the access time ----------------------------------------------------------------------


def test_save_with_accessed_only_saves_no_value(options, stored, store, clock):
    clock.advance(1000)
    session = Session({}, stored.id, **options)
    session["a"] = 2
    store.trips.clear()
    session.save(accessed_only=True)
    assert store.trips == ["touch"]
    again = Session({}, stored.id, **options)
    assert (again["a"], again.last_accessed) == (1, clock())


def test_save_with_accessed_only_does_nothing_for_a_new_session(options, store):
    session = Session({}, **options)
    session["a"] = 1
    session.save(accessed_only=True)
    assert store.trips == []
    session.save(accessed_only=False)
    assert store.trips == ["create"]
