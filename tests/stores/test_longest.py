"""The longest times that the options take, and none longer."""

import pytest
from helpers import serve
from stores.places import places

from nocookie import ConfigError, Session, SessionMiddleware, session
from nocookie.options import LONGEST


@places()
def test_the_longest_times_that_are_taken_fit_into_every_store(place):
    def longest():
        session["a"] = 1
        session.timeout = session.lifetime = LONGEST
        session.save()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/own":
            longest()
        elif environ["PATH_INFO"] == "/login":
            session.login("ada")
        else:
            session["a"] = 1
            session.save()
        start_response("200 OK", [])
        return [b""]

    times = dict.fromkeys(("timeout", "lifetime", "rotate_every", "rotation_grace"), LONGEST)
    app = SessionMiddleware(application, use_cookies=False, **{**place.options, **times})
    id = serve(app).id
    assert serve(app, id, path="/own").status == "200 OK"
    id = serve(app, id, path="/login").id
    assert serve(app, id).status == "200 OK"
    assert Session({}, id=id, **place.options)["a"] == 1


@pytest.mark.parametrize("name", ["timeout", "lifetime"])
@pytest.mark.parametrize("seconds", [LONGEST + 1, 1e21, 1e300, 10**400, "1e21"])
def test_a_longer_time_cannot_be_assigned(name, seconds):
    made = Session({})
    with pytest.raises(ConfigError, match=f"session.{name} .* at most 3155760000"):
        setattr(made, name, seconds)
