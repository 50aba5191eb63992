"""`type = cookie`: sessions that their clients keep."""

import pytest
from helpers import serve
from webob import Request

from nocookie import (
    Bearer,
    ConfigError,
    Cookie,
    Header,
    PathSegment,
    Query,
    Session,
    SessionMiddleware,
    ValueRefused,
    session,
)

SECRET = "a secret for tests, long enough"


class Browser:
    """A client with one application and one cookie."""

    def __init__(self, clock, **options):
        options = {"type": "cookie", "secret": SECRET, **options}
        self.app = SessionMiddleware(self.respond, clock=clock, **options)
        self.cookie = None
        self.seen = {}

    def respond(self, environ, start_response):
        self.action(environ)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]

    def __call__(self, action=lambda environ: session.get("a"), cookie=None):
        self.action = lambda environ: self.seen.update(found=action(environ))
        environ = Request.blank("/").environ
        if cookie or self.cookie:
            environ["HTTP_COOKIE"] = f"nocookie.session.id={cookie or self.cookie}"
        answer = serve(self.app, environ=environ)
        self.sent = answer.header("Set-Cookie")
        if self.sent is not None and cookie is None:
            self.cookie = self.sent.partition(";")[0].partition("=")[2] or None
        return self.seen["found"]


@pytest.fixture
def browser(clock):
    return Browser(clock)


def put(**values):
    def action(environ):
        session.update(values)
        session.save()
        return session.id

    return action


def facts(environ):
    return session.is_new, session.reason, dict(session)


def test_the_session_is_in_the_cookie_and_nobody_can_read_it(browser):
    id = browser(put(user="ada", roles=["admin"]))
    assert browser(facts) == (False, None, {"user": "ada", "roles": ["admin"]})
    assert browser(lambda environ: session.id) == id
    assert "ada" not in browser.cookie
    assert id not in browser.cookie


def test_another_process_with_the_secret_opens_it(browser, clock):
    browser(put(a=1))
    assert Browser(clock)(facts, cookie=browser.cookie) == (False, None, {"a": 1})


def test_set_cookie_goes_out_only_when_something_changed(browser):
    browser(lambda environ: None)
    assert browser.sent is None
    browser(lambda environ: session.get("a"))
    assert browser.sent is None
    browser(put(a=1))
    assert browser.sent
    browser(lambda environ: session["a"])
    assert browser.sent is None
    browser(lambda environ: None)
    assert browser.sent is None


def test_changes_deletions_and_clear_reach_the_client(browser):
    browser(put(a=[1], b=2))

    def change(environ):
        session["a"].append(2)
        del session["b"]
        session.save()

    browser(change)
    assert browser(facts)[2] == {"a": [1, 2]}

    def clear(environ):
        session.clear()
        session["c"] = 3
        session.save()

    browser(clear)
    assert browser(facts)[2] == {"c": 3}


def test_auto_saves_by_itself(clock):
    browser = Browser(clock, auto=True)
    browser(lambda environ: session.update(a=1))
    assert browser(facts)[2] == {"a": 1}


def test_a_new_session_without_data_is_not_sent(browser):
    browser(lambda environ: session.save())
    assert browser.sent is None


@pytest.mark.parametrize("at", range(0, 150, 7))
def test_a_token_that_was_changed_is_forged(browser, at):
    browser(put(a=1, b="x" * 40))
    text = browser.cookie
    other = "A" if text[at] != "A" else "B"
    found = browser(facts, cookie=text[:at] + other + text[at + 1 :])
    assert found in ((True, "forged", {}), (True, "malformed", {}))


@pytest.mark.parametrize(
    "text", ["x", "A" * 43, "A" * 99, "A" * 200, "A" * 5000, "A" * 101, "é" * 120, "." * 120]
)
def test_what_is_no_token_is_a_new_session(browser, text):
    is_new, reason, data = browser(facts, cookie=text)
    assert (is_new, data) == (True, {})
    assert reason in ("malformed", "forged")


def test_expiry_is_inside(clock):
    browser = Browser(clock, timeout=100, lifetime=250)
    browser(put(a=1))
    kept = browser.cookie
    clock.advance(90)
    browser(lambda environ: session.get("a"))
    assert browser.sent, "it was due to be renewed"
    clock.advance(90)
    assert browser(facts)[0] is False
    assert browser(facts, cookie=kept)[:2] == (True, "expired"), "the older one was not"
    clock.advance(80)
    assert browser(facts)[:2] == (True, "expired"), "its lifetime is over"


def test_an_end_takes_the_cookie_back(browser):
    browser(put(a=1))
    browser(lambda environ: session.delete())
    assert "Max-Age=0" in browser.sent
    assert browser(facts)[1] == "absent"


def test_a_rotation_keeps_the_data_and_changes_the_id(browser):
    before = browser(put(a=1))
    browser(lambda environ: session.regenerate_id())
    assert browser(facts)[2] == {"a": 1}
    assert browser(lambda environ: session.id) != before


def test_incr_and_mutate_work_for_one_at_a_time(browser):
    assert browser(lambda environ: session.incr("n", 5)) == 5
    assert browser(lambda environ: session.incr("n")) == 6
    browser(lambda environ: session.mutate(lambda stored: stored.update(m=1)))
    assert browser(facts)[2] == {"n": 6, "m": 1}


def test_several_secrets_the_newest_seals_all_open(clock):
    old = Browser(clock, secret="the old secret, long enough")
    old(put(a=1))
    both = Browser(clock, secret=["the new secret, long enough", "the old secret, long enough"])
    both.cookie = old.cookie
    assert both(facts)[2] == {"a": 1}
    both(put(b=2))
    new = Browser(clock, secret="the new secret, long enough")
    new.cookie = both.cookie
    assert new(facts)[2] == {"a": 1, "b": 2}
    assert old(facts, cookie=both.cookie)[1] == "forged"


@pytest.mark.parametrize(
    "options",
    [
        {"key": "admin"},
        {"key_prefix": "admin:"},
        {"use_cookies": False, "find_id": "cookie:admin"},
        {"use_cookies": False, "find_id": [Cookie("admin"), Header()]},
        {"use_cookies": False, "find_id": Header()},
    ],
    ids=repr,
)
def test_a_token_of_one_application_opens_in_no_other_with_the_same_secret(browser, clock, options):
    browser(put(user="ada"))
    other = Browser(clock, **options)
    asked = {
        "HTTP_COOKIE": f"nocookie.session.id={browser.cookie}; admin={browser.cookie}",
        "HTTP_X_SESSION_ID": browser.cookie,
    }
    other.action = lambda environ: other.seen.update(found=facts(environ))
    serve(other.app, environ={**Request.blank("/").environ, **asked})
    assert other.seen["found"] == (True, "forged", {})


def test_a_token_opens_whatever_carries_it_beside_the_cookie(clock):
    shared = {"use_cookies": False, "key_prefix": "shop:"}
    one = Browser(clock, **shared, find_id=Cookie("nocookie.session.id"))
    one(put(user="ada"))
    two = Browser(clock, **shared, find_id=[Header(), Cookie("nocookie.session.id")])
    assert two(facts, cookie=one.cookie) == (False, None, {"user": "ada"})


def test_what_is_too_large_for_a_cookie_is_refused_in_the_handler(browser):
    browser(put(a=1))

    def fill(environ):
        session["large"] = "x" * 4000
        for _ in range(2):
            with pytest.raises(ValueRefused, match=r"'large'.*cookie holds"):
                session.save()
        session.revert()

    browser(fill)
    assert browser(facts)[2] == {"a": 1}
    browser(put(large="x" * 2500))
    assert len(browser.sent) < 4096
    assert browser(facts)[2]["large"] == "x" * 2500


def test_pickles_are_possible_because_it_is_sealed(clock):
    browser = Browser(clock, data_serializer="pickle")
    browser(put(value=complex(1, 2)))
    assert browser(facts)[2] == {"value": complex(1, 2)}


@pytest.mark.parametrize("find_id", [Header(), Bearer(), [Header(), Cookie("sid")]])
def test_a_header_can_carry_it_too(find_id, clock):
    def app(environ, start_response):
        session["n"] = session.get("n", 0) + 1
        session.save()
        start_response("200 OK", [])
        return [str(session["n"]).encode()]

    middleware = SessionMiddleware(
        app, use_cookies=False, find_id=find_id, type="cookie", secret=SECRET, clock=clock
    )
    first = serve(middleware)
    again = serve(
        middleware,
        environ={
            **Request.blank("/").environ,
            "HTTP_X_SESSION_ID": first.id,
            "HTTP_AUTHORIZATION": f"Bearer {first.id}",
        },
    )
    assert again.body == b"2"
    assert again.id != first.id


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"secret": None}, "secret"),
        ({"use_cookies": False, "find_id": Query()}, "address"),
        ({"use_cookies": False, "find_id": [Header(), PathSegment()]}, "address"),
        ({"strict": False, "id_key": "k"}, "strict"),
    ],
)
def test_what_does_not_go_together_is_refused(options, why):
    with pytest.raises(ConfigError, match=why):
        SessionMiddleware(None, **{"type": "cookie", "secret": SECRET, **options})


def test_a_session_by_hand_has_no_response_to_go_out_with():
    with pytest.raises(ConfigError, match="SessionMiddleware"):
        Session({}, type="cookie", secret=SECRET)


def test_no_log_shows_a_token_or_an_id(browser, caplog):
    caplog.set_level(0)
    id = browser(put(a=1))
    browser(lambda environ: session.regenerate_id())
    browser(facts, cookie=browser.cookie[:-1] + "!")
    browser(lambda environ: session.delete())
    assert id not in caplog.text
    assert browser.cookie is None
    assert {record.event for record in caplog.records} >= {"created", "refused", "ended"}
