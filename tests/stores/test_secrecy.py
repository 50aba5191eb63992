"""What lies in a store is of no use to whoever reads it, and what they put there is refused."""

import base64
import os
import pickle
import traceback

import pytest
from helpers import serve
from stores.places import needs, places

from nocookie import Session, SessionGone, SessionMiddleware, ValueRefused, session
from nocookie.stores.base import Delta, Record

SECRET = "a secret of more than thirty-two characters"
OLDER = "an older secret of thirty-two characters"
KEY = "a key for what is stored, of enough characters"

SEALED = {"mac": {"secret": SECRET}, "encrypted": {"secret": SECRET, "encrypt_key": KEY}}


@pytest.fixture(params=SEALED)
def sealed(request, place):
    if request.param == "encrypted":
        needs("cryptography")
    return {**place.options, **SEALED[request.param]}


def stored(options, **values):
    """Store a session; return it and its store key."""
    made = Session({}, **options)
    made.update(values)
    made.save()
    return made, made._backend.ids.key(made.id)


def traces(id):
    """What would give an id away: it, what it is the base64 of, and how databases print these."""
    raw = base64.urlsafe_b64decode(id + "=")
    for form in (id.encode(), raw):
        yield form
        yield form.hex().encode()
        yield base64.b64encode(form).rstrip(b"=")


# -- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, "mac", "encrypted"])
@places()
def test_no_id_is_in_a_store_nor_in_logs_nor_in_errors(place, secret, caplog):
    caplog.set_level("DEBUG")
    options = {**place.options, **SEALED.get(secret, {})}
    if secret == "encrypted":
        needs("cryptography")
    ids, shown = set(), []

    def app(environ, start_response):
        turn = session.get("turn", 0)
        session["turn"] = turn + 1
        session["n"] = session.get("n", 0) + 1
        session.save()
        if turn % 4 == 2:
            session.regenerate_id()
        if turn == 6:
            session.delete()
        if turn == 3:
            session.incr("n")
        ids.add(session.id)
        shown.append(repr(session) + repr(environ["nocookie.session"]))
        start_response("200 OK", [])
        return [b""]

    middleware = SessionMiddleware(app, use_cookies=False, **options)
    id = None
    for _ in range(10):
        answer = serve(middleware, id)
        assert answer.status == "200 OK"
        id = answer.id or id
        ids.add(id)
    mine, there = Session({}, id=id, **options), Session({}, id=id, **options)
    mine["bad"] = object()
    errors = []
    for error, act in (
        (ValueRefused, mine.save),
        (SessionGone, lambda: (there.get("turn"), there.update(a=1), mine.delete(), there.save())),
    ):
        with pytest.raises(error) as caught:
            act()
        errors += traceback.format_exception(caught.value)
    kept, key = stored(options, a=1)
    ids.add(kept.id)
    assert len(ids) >= 5

    dump = b"\n".join(place.dump())
    assert key.encode() in dump or bytes.fromhex(key) in dump, "the dump is not of this place"
    said = "".join([caplog.text, *shown, *errors, *(repr(vars(r)) for r in caplog.records)])
    assert kept.fingerprint in said
    for id in ids:
        for trace in traces(id):
            assert trace not in dump
            assert trace not in said.encode()


@places()
def test_a_store_key_is_no_id(place):
    for options in (place.options, {**place.options, "secret": SECRET}):
        victim, key = stored(options, user="victim")
        for text in (key, base64.urlsafe_b64encode(bytes.fromhex(key)).decode().rstrip("=")):
            found = Session({}, id=text, **options)
            assert (found.is_new, dict(found)) == (True, {})
            assert found.reason in ("malformed", "unknown", "forged")
            assert found.id not in (text, victim.id)


# -- writing -------------------------------------------------------------------------------------


@places()
def test_a_value_from_another_session_or_field_is_refused(place, sealed):
    store = place.store()
    eve, eve_key = stored(sealed, user="eve", wanted="admin", own=1)
    _, admin_key = stored(sealed, user="admin")
    planted = store.load(admin_key).fields["user"], store.load(eve_key).fields["wanted"]
    for value in planted:
        before = store.load(eve_key).fields["user"]
        store.save(eve_key, Delta({"user": value}), 600)
        found = Session({}, id=eve.id, **sealed)
        assert found.get("user") is None
        assert (found.is_new, found.reason, dict(found)) == (True, "corrupted", {})
        store.save(eve_key, Delta({"user": before}), 600)
        assert Session({}, id=eve.id, **sealed)["user"] == "eve"


@places()
def test_a_record_from_another_session_is_refused(place, sealed):
    store = place.store()
    eve, eve_key = stored(sealed, user="eve")
    _, admin_key = stored(sealed, user="admin")
    store.destroy(eve_key)
    store.create(eve_key, store.load(admin_key), 600)
    found = Session({}, id=eve.id, **sealed)
    assert (found.is_new, found.reason, dict(found)) == (True, "corrupted", {})


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@places()
def test_a_planted_pickle_does_not_run(place, sealed, serializer, tmp_path):
    options = {**sealed, "data_serializer": serializer}
    path = tmp_path / "executed"
    bomb = pickle.dumps(Bomb(path))
    pickle.loads(bomb)
    path.rmdir()  # it would work
    store = place.store()
    mac = bytes(16)
    for planted in (bomb, b"p" + bomb, b"m" + mac + b"p" + bomb, b"e" + mac + b"p" + bomb):
        victim, key = stored(options, user="victim")
        store.save(key, Delta({"user": planted, "more": planted}), 600)
        found = Session({}, id=victim.id, **options)
        assert found.get("more") is None
        assert (found.is_new, found.reason, dict(found)) == (True, "corrupted", {})
    assert not path.exists()


@places()
def test_a_planted_pickle_does_not_run_where_there_is_no_secret(place, tmp_path):
    path = tmp_path / "executed"
    for planted in (pickle.dumps(Bomb(path)), b"p" + pickle.dumps(Bomb(path))):
        victim, key = stored(place.options, user="victim")
        place.store().save(key, Delta({"user": planted}), 600)
        assert Session({}, id=victim.id, **place.options).get("user") is None
    assert not path.exists()


@places()
def test_every_flipped_bit_is_noticed(place, sealed):
    """In a value and in the seal of its record; elsewhere lie names and times, which are not
    authenticated."""
    store = place.store()
    mine, key = stored(sealed, user="eve")
    value = store.load(key).fields["user"]
    for flipped in flips(value):
        store.save(key, Delta({"user": flipped}), 600)
        found = Session({}, id=mine.id, **sealed)
        assert found.get("user") is None
        assert found.reason == "corrupted"
    store.save(key, Delta({"user": value}), 600)
    record = store.load(key)
    for seal in flips(record.seal):
        store.destroy(key)
        store.create(key, record._replace(seal=seal), 600)
        found = Session({}, id=mine.id, **sealed)
        assert found.get("user") is None
        assert found.reason == "corrupted"
    store.destroy(key)
    store.create(key, record, 600)
    assert Session({}, id=mine.id, **sealed)["user"] == "eve"


def flips(data):
    for place in range(len(data) * 8):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


# -- changing one's mind -------------------------------------------------------------------------

PICKLE = {"data_serializer": "pickle"}

#: What was configured, what is now, and what becomes of the sessions that are there: None if they
#: go on, else their reason.
CHANGES = {
    "json to pickle": ({"secret": SECRET}, {"secret": SECRET, **PICKLE}, None),
    "pickle to json": ({"secret": SECRET, **PICKLE}, {"secret": SECRET}, "corrupted"),
    "a newer secret": ({"secret": OLDER}, {"secret": [SECRET, OLDER]}, None),
    "the old secret dropped": ({"secret": OLDER}, {"secret": SECRET}, "forged"),
    "a secret added": ({}, {"secret": SECRET}, "forged"),
    "a secret and pickle added": ({}, {"secret": SECRET, **PICKLE}, "forged"),
    "the secret removed": ({"secret": SECRET}, {}, "corrupted"),
    "an encrypt_key added": (SEALED["mac"], SEALED["encrypted"], None),
    "a newer encrypt_key": (
        {"secret": SECRET, "encrypt_key": "older"},
        {"secret": SECRET, "encrypt_key": [KEY, "older"]},
        None,
    ),
    "the encrypt_key removed": (SEALED["encrypted"], SEALED["mac"], "corrupted"),
}


@pytest.mark.parametrize("change", CHANGES)
@places()
def test_after_a_change_of_configuration_sessions_go_on_or_are_kept(place, change):
    """And none is half there: what cannot be read is a new session, not an error, and comes back
    with the configuration."""
    if "encrypt" in change:
        needs("cryptography")
    before, now, reason = CHANGES[change]
    before, now = {**place.options, **before}, {**place.options, **now}
    mine, key = stored(before, user="eve", cart=["tea"])

    def app(environ, start_response):
        session.get("user")
        session["seen"] = 1
        session.save()
        start_response("200 OK", [])
        return [str(session.reason).encode()]

    answer = serve(SessionMiddleware(app, use_cookies=False, **now), mine.id)
    assert answer.status == "200 OK"
    if reason is None:
        assert (answer.body, answer.id) == (b"None", None)
        expected = {"user": "eve", "cart": ["tea"], "seen": 1}
        assert dict(Session({}, id=mine.id, **now)) == expected
        return
    assert answer.body == reason.encode()
    assert answer.id not in (None, mine.id)
    assert isinstance(place.store().load(key), Record)
    assert dict(Session({}, id=mine.id, **before)) == {"user": "eve", "cart": ["tea"]}
