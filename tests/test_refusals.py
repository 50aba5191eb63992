"""Clients that are told what is wrong, quotas, and requests that nobody made on purpose."""

import json
import logging
import tracemalloc

import pytest
from helpers import CountingStore, serve
from webob import Request

import nocookie
from nocookie import (
    NoSession,
    Session,
    SessionConflict,
    SessionGone,
    SessionMiddleware,
    StoreError,
    StoreTimeout,
    TooManyTries,
    ValueRefused,
    session,
)
from nocookie.ids import RandomIds, SignedIds

SECRET = "s" * 32


@pytest.fixture
def store(clock):
    return CountingStore(clock=clock)


class Site:
    def __init__(self, **options):
        self.middleware = SessionMiddleware(self._app, use_cookies=False, **options)
        self.manager = self.middleware.manager

    def _app(self, environ, start_response):
        try:
            self.result = self.page()
        except nocookie.NocookieError:
            if not self.own_500:
                raise
            start_response("500 Oops", [])
            return [b"made by a framework"]
        start_response(self.status, [])
        return [b"done"]

    own_500 = False
    status = "200 OK"

    def get(self, page, id=None, **request):
        self.page = page
        return serve(self.middleware, id, **request)


def visit():
    session["n"] = session.get("n", 0) + 1
    session.save()


def begin():
    session.start()
    visit()


def said(answer):
    body = json.loads(answer.body)
    assert body["status"] == int(answer.status[:3])
    return body["error"], body["reason"]


@pytest.fixture
def site(store, clock):
    return Site(type=store, clock=clock, on_unknown="error", secret=SECRET)


# -- on_unknown = error --------------------------------------------------------------------------

FORGED = SignedIds(["another " * 4]).new()


@pytest.mark.parametrize("by_a_framework", [False, True])
@pytest.mark.parametrize(
    ("id", "status", "error", "reason"),
    [
        (None, "400 Bad Request", "session_required", "absent"),
        ("nonsense", "400 Bad Request", "session_required", "malformed"),
        (FORGED, "400 Bad Request", "session_required", "forged"),
        ("a, b", "400 Bad Request", "session_required", "malformed"),
        ("two", "400 Bad Request", "session_required", "ambiguous"),
        ("known to nobody", "404 Not Found", "session_ended", "unknown"),
        ("expired", "404 Not Found", "session_ended", "expired"),
    ],
)
def test_a_client_without_a_session_is_told_what_is_wrong(
    site, clock, id, status, error, reason, by_a_framework
):
    site.own_500 = by_a_framework
    if id == "known to nobody":
        id = SignedIds([SECRET]).new()
    if id == "two":
        id = f"{site.get(begin).id}, {site.get(begin).id}"
    if id == "expired":
        id = site.get(begin).id
        clock.advance(1800)
    answer = site.get(visit, id)
    assert answer.status == status
    assert said(answer) == (error, reason)
    assert answer.header("Content-Type") == "application/problem+json"
    assert answer.header("Cache-Control") == "no-store"
    assert (id or "x" * 43).encode() not in answer.body
    assert answer.id is None


TEXT = [
    "text/plain",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "application/json;q=0.5, text/*",
]
JSON = [
    None,
    "",
    "*/*",
    "application/*",
    "application/problem+json",
    "image/png",
    ";;;",
    "é",
    "a" * 9999,
]


@pytest.mark.parametrize("accept", TEXT)
def test_who_asks_for_text_gets_a_sentence(site, accept):
    answer = site.get(visit, headers={"Accept": accept})
    assert answer.status == "400 Bad Request"
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    assert answer.body == b"This needs a session. Begin one first.\n"


@pytest.mark.parametrize("accept", JSON)
def test_who_asks_for_anything_else_gets_problem_details(site, accept):
    answer = site.get(visit, headers={} if accept is None else {"Accept": accept})
    assert answer.header("Content-Type") == "application/problem+json"
    assert json.loads(answer.body) == {
        "title": "Bad Request",
        "status": 400,
        "detail": "This needs a session. Begin one first.",
        "error": "session_required",
        "reason": "absent",
    }


def test_who_asks_for_plain_json_gets_the_same_under_that_name(site):
    answer = site.get(visit, headers={"Accept": "application/json"})
    assert answer.header("Content-Type") == "application/json"
    assert said(answer) == ("session_required", "absent")


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (StoreError("down"), "503 Service Unavailable", ("session_unavailable", "failed")),
        (StoreTimeout("late"), "503 Service Unavailable", ("session_unavailable", "timeout")),
        (SessionConflict("busy"), "409 Conflict", ("session_conflict", "changed")),
        (SessionGone("over"), "409 Conflict", ("session_gone", "ended")),
    ],
)
def test_failures_have_the_form_of_refusals(site, error, status, expected):
    def page():
        raise error

    answer = site.get(page)
    assert (answer.status, said(answer)) == (status, expected)
    assert answer.header("Content-Type") == "application/problem+json"
    assert (answer.header("Retry-After") is not None) == status.startswith("503")


# -- under Bearer (RFC 6750, section 3.1) --------------------------------------------------------


@pytest.mark.parametrize("by_a_framework", [False, True])
@pytest.mark.parametrize(
    ("sent", "challenge", "error", "reason"),
    [
        (None, "Bearer", "session_required", "absent"),
        ("Basic YWRhOmFkYQ==", "Bearer", "session_required", "absent"),
        ("Bearer nonsense", 'Bearer error="invalid_token"', "session_required", "malformed"),
        (f"bearer {FORGED}", 'Bearer error="invalid_token"', "session_required", "forged"),
        ("Bearer {known}", 'Bearer error="invalid_token"', "session_ended", "unknown"),
    ],
)
def test_a_bearer_token_that_does_not_count_is_401(
    store, clock, by_a_framework, sent, challenge, error, reason
):
    site = Site(type=store, clock=clock, on_unknown="error", secret=SECRET, find_id="bearer")
    site.own_500 = by_a_framework
    known = SignedIds([SECRET]).new()
    headers = {} if sent is None else {"Authorization": sent.format(known=known)}
    answer = site.get(visit, headers=headers)
    assert answer.status == "401 Unauthorized"
    assert answer.header("WWW-Authenticate") == challenge
    assert said(answer) == (error, reason)
    assert known.encode() not in answer.body


def test_beside_bearer_an_id_of_another_carrier_keeps_its_status(store, clock):
    site = Site(type=store, clock=clock, on_unknown="error", find_id=["bearer", "header:X-Sid"])
    answer = site.get(visit, headers={"X-Sid": "nonsense"})
    assert (answer.status, answer.header("WWW-Authenticate")) == ("400 Bad Request", None)


# -- X-Session-Reason ----------------------------------------------------------------------------


CARRY = {
    "header:X-Session-Id": lambda ids: {"headers": {"X-Session-Id": ", ".join(ids)}},
    "bearer": lambda ids: {"headers": {"Authorization": "Bearer " + " ".join(ids)}},
    "query:sid": lambda ids: {"query_string": "&".join(f"sid={id}" for id in ids)},
    "cookie": lambda ids: {"headers": {"Cookie": "; ".join(f"sid={id}" for id in ids)}},
}


@pytest.mark.parametrize("page", [visit, lambda: session.get("n")], ids=["saved", "read"])
@pytest.mark.parametrize(
    ("find_id", "reason"),
    [
        (find_id, reason)
        for find_id in CARRY
        for reason in ["malformed", "forged", "ambiguous", "unknown", "expired"]
        if (find_id, reason) != ("bearer", "ambiguous")  # there is one token
    ],
)
def test_a_client_whose_id_does_not_count_hears_why(store, clock, find_id, reason, page):
    site = Site(type=store, clock=clock, secret=SECRET, find_id=find_id, key="sid")
    ids = {
        "malformed": ["nonsense"],
        "forged": [FORGED],
        "unknown": [SignedIds([SECRET]).new()],
    }.get(reason, [])
    for _ in range({"expired": 1, "ambiguous": 2}.get(reason, 0)):
        site.get(lambda: (visit(), ids.append(session.id)))
    if reason == "expired":
        clock.advance(1800)
    answer = site.get(page, **CARRY[find_id](ids))
    assert answer.header("X-Session-Reason") == reason
    assert answer.header("Cache-Control") == "no-store"


def test_browser_code_of_another_origin_may_read_why(site, store, clock):
    site = Site(type=store, clock=clock)
    headers = {"Origin": "https://app.example", "X-Session-Id": "nonsense"}
    answer = site.get(visit, headers=headers)
    exposed = answer.header("Access-Control-Expose-Headers").split(", ")
    assert {"X-Session-Id", "X-Session-Reason"} <= set(exposed)


@pytest.mark.parametrize("page", [visit, lambda: session.get("n"), lambda: None])
def test_whoever_brings_no_id_or_one_that_counts_hears_no_reason(store, clock, page):
    site = Site(type=store, clock=clock)
    first = site.get(visit)
    for id in (None, first.id):
        assert site.get(page, id).header("X-Session-Reason") is None
    assert site.get(lambda: session.logout(), first.id).header("X-Session-Reason") is None


def test_a_304_and_a_page_that_asked_for_no_session_say_no_reason(store, clock):
    site = Site(type=store, clock=clock)
    assert site.get(lambda: None, "nonsense").header("X-Session-Reason") is None
    site.status = "304 Not Modified"
    assert site.get(lambda: session.get("n"), "nonsense").header("X-Session-Reason") is None


def test_a_gateways_id_that_is_taken_for_a_new_session_is_no_reason(store, clock):
    site = Site(type=store, clock=clock, strict=False, id_key="k" * 32)
    assert site.get(visit, "+4915112345678").header("X-Session-Reason") is None


def test_a_handler_may_begin_a_session(site):
    id = site.get(begin).id
    assert site.get(visit, id).status == "200 OK"
    assert site.get(lambda: session["n"], id).status == "200 OK"
    assert site.result == 2


def test_a_login_begins_a_session(site):
    id = site.get(lambda: session.login("ann")).id
    site.get(lambda: session.owner, id)
    assert site.result == "ann"


def test_a_handler_may_ask_whether_there_is_a_session(site, store):
    def page():
        return session.is_new, session.reason, session.must_propagate, session.carrier

    assert site.get(page).status == "200 OK"
    assert site.result == (True, "absent", False, None)


def test_a_handler_that_touches_no_session_needs_none(site):
    assert site.get(lambda: None).status == "200 OK"


def test_a_handler_may_change_its_mind(site, store):
    def page():
        with pytest.raises(NoSession):
            session.get("n")
        with pytest.raises(NoSession) as caught:
            session["n"] = 1
        assert (caught.value.status, caught.value.reason) == (404, "unknown")
        store.trips.clear()
        session.start()
        session["n"] = 5
        session.save()

    id = site.get(page, SignedIds([SECRET]).new()).id
    assert store.trips == ["create"], "what is known is not asked again"
    site.get(lambda: session["n"], id)
    assert site.result == 5


def test_a_logout_without_a_session_is_none(site):
    assert site.get(lambda: session.delete()).status == "200 OK"


def test_after_a_logout_the_empty_session_is_no_error(site):
    id = site.get(begin).id

    def page():
        session.delete()
        return session.get("n")

    assert site.get(page, id).status == "200 OK"


def test_it_holds_for_sessions_that_clients_keep(clock):
    site = Site(
        type="cookie", secret=SECRET, clock=clock, on_unknown="error", find_id="header:X-Session-Id"
    )
    assert site.get(visit).status == "400 Bad Request"
    assert site.get(visit, site.get(begin).id).status == "200 OK"


# -- quotas --------------------------------------------------------------------------------------


def test_a_session_has_so_many_keys_and_no_more(store, clock):
    site = Site(type=store, clock=clock, max_keys=3)

    def fill():
        session.update(a=1, b=2, c=3)
        session.save()

    id = site.get(fill).id

    def more():
        session["d"] = 4
        with pytest.raises(ValueRefused, match="max_keys is 3"):
            session.save()
        del session["d"]
        del session["a"]
        session["e"] = 5
        session["b"] = [2]
        session.save()

    assert site.get(more, id).status == "200 OK"
    site.get(lambda: dict(session), id)
    assert site.result == {"b": [2], "c": 3, "e": 5}


def assign(names):
    for name in names:
        session[name] = 1


#: Every way by which a key gets into a session.
WAYS = {
    "item": assign,
    "update": lambda names: session.update(dict.fromkeys(names, 1)),
    "setdefault": lambda names: [session.setdefault(name, 1) for name in names],
    "incr": lambda names: [session.incr(name) for name in names],
    "mutate": lambda names: session.mutate(lambda draft: draft.update(dict.fromkeys(names, 1))),
}
#: Every way by which it is saved.
SAVES = {
    "save": lambda: session.save(),
    "persist": lambda: session.persist(),
    "login": lambda: (session.login("ann"), session.save()),
    "regenerate_id": lambda: (session.regenerate_id(), session.save()),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    ("names", "limit"),
    [
        ([f"{n:04d}" + "n" * 496 for n in range(5)], "max_size is 2000"),
        # Two and four bytes each, in UTF-8.
        (["é" * 400, "\N{SNAKE}" * 200, "ü" * 400], "max_size is 2000"),
        (["n" * 1025], "1024 are the most"),
        (["é" * 513], "1024 are the most"),
    ],
)
def test_the_names_of_keys_are_in_the_limits(store, clock, way, save, is_new, names, limit):
    site = Site(type=store, clock=clock, max_size=2000)
    id = None if is_new else site.get(visit).id

    def names_stored():
        fields = [store.load(key).fields for key in list(store.keys())]
        return [[name for name in each if name[0] != "\0"] for each in fields]

    def put():
        WAYS[way](names)
        SAVES[save]()

    def fill():
        with pytest.raises(ValueRefused, match=limit) as caught:
            put()
        assert caught.value.key in names
        assert len(str(caught.value)) < 300
        session.revert()
        return dict(session)

    assert site.get(fill, id).status == "200 OK"
    if is_new:
        assert names_stored() in ([], [[]])  # a login is saved by itself
    elif way == "incr":  # at once, each
        assert len("".join(names_stored()[0]).encode()) <= 2000
    else:
        assert names_stored() == [["n"]]


def test_the_names_of_keys_are_in_the_limits_of_what_is_saved_by_itself(store, clock):
    site = Site(type=store, clock=clock, max_size=2000, auto=True)
    with pytest.raises(ValueRefused, match="max_size is 2000"):
        site.get(lambda: session.update({f"{n:04d}" + "n" * 496: 1 for n in range(5)}))
    assert list(store.keys()) == []


def test_a_name_as_long_as_may_be_is_no_matter(store, clock):
    site = Site(type=store, clock=clock, max_size=2000)
    names = ["n" * 1023, "\N{SNAKE}" * 240]

    def fill():
        assign(names)
        session.save()

    id = site.get(fill).id
    site.get(lambda: dict(session), id)
    assert site.result == dict.fromkeys(names, 1)


def test_a_key_that_is_replaced_is_counted_once(store, clock):
    site = Site(type=store, clock=clock, max_size=2000)

    def fill():
        session["n" * 1000] = "x" * 900
        session.save()

    id = site.get(fill).id
    assert site.get(fill, id).status == "200 OK"


# -- plain HTTP ----------------------------------------------------------------------------------


@pytest.fixture
def secure(store, clock):
    return Site(type=store, clock=clock, require_https=True, trusted_proxies="10.1.0.0/16, ::1")


def https(**more):
    return {"environ": None, "base_url": "https://shop.example", **more}


def test_over_https_all_is_as_ever(secure):
    id = secure.get(visit, base_url="https://shop.example").id
    secure.get(lambda: session["n"], id, base_url="https://shop.example")
    assert secure.result == 1


def test_over_plain_http_no_id_counts_and_none_is_given(secure, store):
    id = secure.get(visit, base_url="https://shop.example").id
    store.trips.clear()
    answer = secure.get(visit, id)
    assert answer.status == "403 Forbidden"
    assert said(answer) == ("https_required", "insecure")
    assert answer.id is None
    answer = secure.get(lambda: (dict(session), session.reason), id)
    assert (answer.status, answer.id) == ("200 OK", None)
    assert secure.result == ({}, "insecure")
    assert store.trips == []
    secure.own_500 = True
    answer = secure.get(lambda: (session.update(a=1), session.persist()), id)
    assert answer.status == "403 Forbidden"


@pytest.mark.parametrize(
    ("address", "headers", "is_secure"),
    [
        ("10.1.2.3", {"X-Forwarded-Proto": "https"}, True),
        ("::1", {"X-Forwarded-Proto": "HTTPS"}, True),
        ("::ffff:10.1.2.3", {"X-Forwarded-Proto": "https"}, True),
        ("10.1.2.3", {"X-Forwarded-Proto": "http"}, False),
        ("10.1.2.3", {}, False),
        ("10.2.2.3", {"X-Forwarded-Proto": "https"}, False),
        ("", {"X-Forwarded-Proto": "https"}, False),
        ("nonsense", {"X-Forwarded-Proto": "https"}, False),
        ("10.1.2.3", {"X-Forwarded-Proto": "https, http"}, False),
        ("10.1.2.3", {"X-Forwarded-Proto": "http, https"}, True),
        ("10.1.2.3", {"Forwarded": "for=1.2.3.4;proto=https;by=5.6.7.8"}, True),
        ("10.1.2.3", {"Forwarded": 'Proto="HTTPS"'}, True),
        ("10.1.2.3", {"Forwarded": "proto=https, for=x;proto=http"}, False),
        ("10.1.2.3", {"Forwarded": "for=x", "X-Forwarded-Proto": "https"}, True),
        ("10.1.2.3", {"Forwarded": "proto=http", "X-Forwarded-Proto": "https"}, False),
        ("10.2.2.3", {"Forwarded": "proto=https"}, False),
    ],
)
def test_a_proxy_is_believed_only_if_it_is_trusted(secure, address, headers, is_secure):
    # What the client itself sent is before what the proxy added.
    id = secure.get(visit, headers=headers, remote_addr=address or None).id
    assert (id is not None) == is_secure


def test_ids_over_plain_http_are_warned_about_once(store, clock, caplog):
    site = Site(type=store, clock=clock)

    def warnings():
        return [r for r in caplog.records if r.event == "misfit" and "plain HTTP" in r.detail]

    site.get(visit)
    site.get(visit, remote_addr="127.0.0.1")
    site.get(visit, remote_addr="192.0.2.1", base_url="https://shop.example")
    site.get(lambda: None, remote_addr="192.0.2.1")
    assert warnings() == []
    for _ in range(3):
        site.get(visit, remote_addr="192.0.2.1")
    assert len(warnings()) == 1


# -- nobody asked for it -------------------------------------------------------------------------

PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
PASSIVE = [{"method": "HEAD"}, {"method": "OPTIONS", "headers": PREFLIGHT}]
AHEAD = [
    {"headers": {"Sec-Purpose": "prefetch"}},
    {"headers": {"Sec-Purpose": "prefetch;prerender"}},
    {"headers": {"Purpose": "prefetch"}},
    {"headers": {"X-Moz": "Prefetch"}},
]


@pytest.mark.parametrize("request_", PASSIVE)
def test_a_request_that_nobody_made_on_purpose_begins_no_session(store, clock, request_):
    site = Site(type=store, clock=clock)
    answer = site.get(visit, **request_)
    assert (answer.status, answer.id) == ("200 OK", None)
    assert answer.header("Set-Cookie") is None
    site.get(lambda: session.rebuild(RandomIds().new()) or visit(), **request_)
    assert set(store.trips) <= {"load"}
    assert not store._records


@pytest.mark.parametrize("request_", PASSIVE)
def test_a_request_that_nobody_made_on_purpose_renews_no_session(store, clock, request_):
    site = Site(type=store, clock=clock)
    id = site.get(visit).id
    clock.advance(1000)
    site.get(lambda: session["n"], id, **request_)
    clock.advance(800)
    site.get(lambda: session.reason, id)
    assert site.result == "expired"


@pytest.mark.parametrize("request_", AHEAD)
def test_what_a_browser_fetches_ahead_renews_a_session(store, clock, request_):
    site = Site(type=store, clock=clock)
    id = site.get(visit).id
    for _ in range(3):
        clock.advance(1000)
        site.get(lambda: session["n"], id, **request_)
    assert site.result == 1


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("request_", AHEAD)
def test_what_a_browser_fetches_ahead_begins_a_session_by_a_save_and_not_by_itself(
    store, clock, request_, auto
):
    """The page with its form is the one that the click shows: no other request comes."""
    site = Site(type=store, clock=clock, auto=auto)

    def change():
        session["n"] = 1
        assert not session.must_propagate

    assert site.get(change, **request_).id is None
    assert not store._records
    id = site.get(visit, **request_).id
    site.get(lambda: session["n"], id)
    assert site.result == 1


@pytest.mark.parametrize("request_", AHEAD)
def test_what_a_browser_fetches_ahead_changes_no_id(store, clock, request_):
    site = Site(type=store, clock=clock, rotate_every=100)
    id = site.get(visit).id
    clock.advance(1000)
    assert site.get(visit, id, **request_).id is None
    assert site.get(visit, id).id not in (None, id)


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": {"Sec-Purpose": "something else", "Purpose": "preview"}},
        {"method": "OPTIONS"},
    ],
)
def test_a_request_on_purpose_does_both(store, clock, request_):
    site = Site(type=store, clock=clock)
    id = site.get(visit, **request_).id
    clock.advance(1000)
    site.get(lambda: session["n"], id)
    clock.advance(800)
    site.get(lambda: session.reason, id)
    assert site.result is None


@pytest.mark.parametrize("request_", PASSIVE + AHEAD)
def test_what_it_saves_into_a_known_session_is_saved(store, clock, request_):
    site = Site(type=store, clock=clock)
    id = site.get(visit).id
    site.get(visit, id, **request_)
    site.get(lambda: session["n"], id)
    assert site.result == 2


# -- guessing ------------------------------------------------------------------------------------


class Limiter:
    """Three refusals from an address, and it has to wait."""

    def __init__(self):
        self.seen = {}

    def __call__(self, event):
        if event.name == "refused":
            address = event.environ["REMOTE_ADDR"]
            self.seen[address] = self.seen.get(address, 0) + 1
            if self.seen[address] > 3:
                raise TooManyTries(retry_after=30)


@pytest.mark.parametrize("by_a_framework", [False, True])
def test_a_client_that_guesses_can_be_made_to_wait(store, clock, by_a_framework):
    site = Site(type=store, clock=clock, secret=SECRET, on_event=Limiter())
    site.own_500 = by_a_framework
    forged = [SignedIds(["another " * 4]).new() for _ in range(5)]
    answers = [site.get(visit, id, remote_addr="192.0.2.1") for id in forged]
    assert [answer.status[:3] for answer in answers] == ["200", "200", "200", "429", "429"]
    assert answers[-1].header("Retry-After") == "30"
    assert said(answers[-1]) == ("too_many_tries", "guessing")
    assert answers[-1].id is None
    assert site.get(visit, forged[0], remote_addr="192.0.2.2").status == "200 OK"
    assert site.get(visit, answers[0].id, remote_addr="192.0.2.1").status == "200 OK"


@pytest.mark.parametrize("by_a_framework", [False, True])
def test_who_begins_too_many_sessions_is_refused_and_nothing_is_stored(
    store, clock, by_a_framework
):
    def brake(event):
        if event.name == "created":
            raise TooManyTries(retry_after=30)

    site = Site(type=store, clock=clock, secret=SECRET, on_event=brake)
    site.own_500 = by_a_framework
    answers = [site.get(visit) for _ in range(100)]
    assert {answer.status[:3] for answer in answers} == {"429"}
    assert {answer.header("Retry-After") for answer in answers} == {"30"}
    assert {answer.id for answer in answers} == {None}
    assert list(store.keys()) == []


def brake(name, retry_after=30):
    """Return a listener that refuses what is to happen at the event *name*, as long as it is on."""

    def listen(event):
        if event.name == name and listen.is_on:
            raise TooManyTries(retry_after)

    listen.is_on = True
    return listen


def log_in():
    session["n"] = session.get("n", 0) + 1
    session.login("ada")


def log_in_as_another():
    session.login("bob")
    session["n"] = 7


def turn():
    session["n"] = session.get("n", 0) + 1
    session.regenerate_id()


def log_in_at_once():
    log_in()
    session.persist()


def log_in_and_try_again():
    log_in()
    for _ in range(3):
        with pytest.raises(TooManyTries):
            session.persist()


@pytest.mark.parametrize("by_a_framework", [False, True])
@pytest.mark.parametrize(
    ("event", "do"),
    [
        ("login", log_in),
        ("login", log_in_as_another),
        ("login", log_in_at_once),
        ("login", log_in_and_try_again),
        ("rotated", turn),
        ("rotated", visit),
    ],
)
def test_a_login_or_rotation_that_is_refused_leaves_the_session_as_it_was(
    store, clock, event, do, by_a_framework
):
    listen = brake(event)
    site = Site(type=store, clock=clock, secret=SECRET, on_event=listen, rotate_every=600)
    id = site.get(begin).id
    if do is log_in_as_another:
        listen.is_on = False
        id = site.get(log_in, id).id
        listen.is_on = True
    if do is visit:
        clock.advance(601)
    before = {key: store.load(key) for key in list(store.keys())}
    site.own_500 = by_a_framework
    for _ in range(3):
        answer = site.get(do, id)
        assert (answer.status[:3], answer.header("Retry-After")) == ("429", "30")
        assert answer.id is None
    assert {key: store.load(key) for key in list(store.keys())} == before
    listen.is_on = False
    counts = site.manager.backend.events.counts()[event]
    assert site.get(do if do is not log_in_and_try_again else log_in, id).id not in (None, id)
    assert site.manager.backend.events.counts()[event] == counts + 1


def test_the_first_login_of_a_client_is_refused_and_nothing_is_stored(store, clock):
    site = Site(type=store, clock=clock, secret=SECRET, on_event=brake("login"))
    assert site.get(log_in).status[:3] == "429"
    assert list(store.keys()) == []


def test_a_login_under_the_id_of_a_gateway_is_refused_and_nothing_changes(store, clock):
    listen = brake("login")
    site = Site(
        type=store, clock=clock, strict=False, id_key="k" * 40, secret=SECRET, on_event=listen
    )
    site.get(visit, "subscriber 0049")
    before = {key: store.load(key) for key in list(store.keys())}
    assert site.get(log_in, "subscriber 0049").status[:3] == "429"
    assert {key: store.load(key) for key in list(store.keys())} == before


@pytest.mark.parametrize("event", ["created", "login"])
@pytest.mark.parametrize("do", [log_in, log_in_and_try_again])
def test_a_session_that_its_client_would_keep_is_not_given_to_it(clock, event, do):
    site = Site(type="cookie", clock=clock, secret=SECRET, on_event=brake(event))
    answer = site.get(do)
    assert (answer.status[:3], answer.id) == ("429", None)


@pytest.mark.parametrize("what", [StoreError("down, for the test"), SessionGone("for the test")])
@pytest.mark.parametrize("do", [log_in_at_once, lambda: (turn(), session.persist())])
def test_an_answer_of_ours_tells_the_id_that_was_stored_before(store, clock, do, what):
    """The old id is dead by then, and the record is there."""
    site = Site(type=store, clock=clock, secret=SECRET)
    id = site.get(begin).id

    def page():
        do()
        store.failing = {"save": what}
        session["more"] = 1
        session.persist()

    answer = site.get(page, id)
    assert answer.status[:3] in ("503", "409")
    assert answer.id not in (None, id)
    store.failing = {}
    assert site.get(lambda: session["n"], answer.id).status == "200 OK"
    assert site.result == 2


def test_one_that_was_not_stored_it_does_not_tell(store, clock):
    site = Site(type=store, clock=clock, secret=SECRET)
    id = site.get(begin).id
    store.failing = {"rotate": StoreError("down, for the test")}
    answer = site.get(log_in, id)
    assert (answer.status[:3], answer.id) == ("503", None)


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_over_plain_http_it_tells_none(store, clock, scheme):
    site = Site(type=store, clock=clock, secret=SECRET, require_https=True)

    def page():
        """By the published recipe, which knows nothing of the request."""
        real_session = session._get_current_obj()
        params = real_session.__dict__["_params"] | {"id": None}
        real_session.__dict__["_sess"] = Session({}, **params)
        session["n"] = 1
        session.persist()
        raise StoreError("down, for the test")

    answer = site.get(page, environ=Request.blank("/", base_url=f"{scheme}://own.example").environ)
    assert answer.status[:3] == "503"
    assert (answer.id is not None) == (scheme == "https")


def test_a_hundred_thousand_forged_ids_cost_no_trip_and_no_memory(store, clock, caplog):
    caplog.set_level(logging.WARNING, "nocookie")  # what is caught of the log takes memory
    site = Site(type=store, clock=clock, secret=SECRET)
    forger = SignedIds(["another " * 4])
    page = lambda: session.get("n")  # noqa: E731
    for _ in range(3000):  # past what is remembered of ids that are right
        site.get(page, forger.new())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(97_000):
            site.get(page, forger.new())
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert store.trips == []
    assert grown < 50_000
    assert site.manager.backend.events.counts() == {"refused: forged": 100_000}
