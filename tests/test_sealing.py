"""Sealing: keys from secrets, and values that only we could have written, here."""

import hashlib
import hmac
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocookie import ConfigError, Session
from nocookie.sealing import BadSeal, Keyed, Sealer, derive
from nocookie.stores.base import Delta
from nocookie.stores.memory import MemoryStore

KEY, OTHER_KEY = "1" * 64, "2" * 64


@pytest.fixture(params=["mac", "encrypted"])
def sealer(request):
    if request.param == "mac":
        return Sealer(["a secret"])
    pytest.importorskip("cryptography")
    return Sealer(["a secret"], ["an encrypt key"])


def flips(data):
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


# -- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["a", "a secret", "é" * 100, "x" * 1000])
@pytest.mark.parametrize("purpose", ["nocookie id", "nocookie value", ""])
def test_keys_are_derived_by_hkdf(secret, purpose):
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    oracle = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode())
    assert derive(secret, purpose) == oracle.derive(secret.encode())


def test_the_construction_is_that_of_rfc_5869():
    """Appendix A.3: zero-length salt and info, 22 octets 0x0b; the first block of its output."""
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert derive("\x0b" * 22, "").hex() == expected


def test_each_purpose_and_each_secret_has_a_key_of_its_own():
    keys = {derive(s, p) for s in ("one", "two") for p in ("nocookie id", "nocookie record")}
    assert len(keys) == 4


def test_the_mac_is_keyed_blake2b():
    mac = Keyed(b"k" * 32, 16)
    expected = hashlib.blake2b(b"message", key=b"k" * 32, digest_size=16).digest()
    assert mac(b"message") == expected
    assert mac(b"message") == expected, "a use leaves no trace"
    assert mac(b"other") != expected


# -- values --------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=50))
def test_what_was_sealed_opens(name, value):
    sealer = Sealer(["a secret"])
    nonce = sealer.new_nonce()
    assert sealer.open(nonce, name, sealer.seal(nonce, name, value)) == value


def test_what_was_encrypted_opens(sealer):
    nonce = sealer.new_nonce()
    for value in (b"", b"j1", bytes(range(256)) * 100):
        assert sealer.open(nonce, "a", sealer.seal(nonce, "a", value)) == value


def test_every_flipped_bit_of_a_value_is_noticed(sealer):
    nonce = sealer.new_nonce()
    sealed = sealer.seal(nonce, "name", b"jvalue")
    for flipped in flips(sealed):
        with pytest.raises(BadSeal):
            sealer.open(nonce, "name", flipped)


def test_every_way_to_cut_a_value_is_noticed(sealer):
    nonce = sealer.new_nonce()
    sealed = sealer.seal(nonce, "name", b"jvalue")
    for changed in [*(sealed[:n] for n in range(len(sealed))), sealed + b"\0", b"\0" + sealed]:
        with pytest.raises(BadSeal):
            sealer.open(nonce, "name", changed)


def test_a_value_moved_to_another_field_is_noticed(sealer):
    nonce = sealer.new_nonce()
    sealed = sealer.seal(nonce, "is_admin_requested", b"jtrue")
    with pytest.raises(BadSeal):
        sealer.open(nonce, "is_admin", sealed)


def test_a_value_moved_to_another_session_is_noticed(sealer):
    sealed = sealer.seal(sealer.new_nonce(), "user", b"j1")
    with pytest.raises(BadSeal):
        sealer.open(sealer.new_nonce(), "user", sealed)


def test_name_and_value_cannot_be_cut_elsewhere(sealer):
    nonce = sealer.new_nonce()
    sealed = sealer.seal(nonce, "ab", b"cd")
    for name in ("a", "abc", "abcd", ""):
        with pytest.raises(BadSeal):
            sealer.open(nonce, name, sealed)


@pytest.mark.parametrize("value", [b"", b"j1", b"s", b"m", b"e", b"p", b"m" * 17, b"e" * 29, b"x"])
def test_what_is_not_sealed_is_refused_where_there_is_a_secret(sealer, value):
    with pytest.raises(BadSeal):
        sealer.open(sealer.new_nonce(), "a", value)


def test_another_secret_opens_nothing():
    sealer, other = Sealer(["one"]), Sealer(["other"])
    nonce = sealer.new_nonce()
    with pytest.raises(BadSeal):
        other.open(nonce, "a", sealer.seal(nonce, "a", b"j1"))
    with pytest.raises(BadSeal):
        other.open_record(KEY, sealer.seal_record(KEY, nonce))


def test_the_newest_secret_seals_and_all_open():
    old, both, new = Sealer(["old"]), Sealer(["new", "old"]), Sealer(["new"])
    nonce = old.new_nonce()
    assert both.open(nonce, "a", old.seal(nonce, "a", b"j1")) == b"j1"
    assert new.open(nonce, "a", both.seal(nonce, "a", b"j1")) == b"j1"
    assert both.open_record(KEY, old.seal_record(KEY, nonce)) == nonce
    assert new.open_record(KEY, both.seal_record(KEY, nonce)) == nonce
    with pytest.raises(BadSeal):
        old.open(nonce, "a", both.seal(nonce, "a", b"j1"))


def test_the_newest_encrypt_key_encrypts_and_all_decrypt():
    pytest.importorskip("cryptography")
    old, both, new = Sealer(["s"], ["old"]), Sealer(["s"], ["new", "old"]), Sealer(["s"], ["new"])
    nonce = old.new_nonce()
    assert both.open(nonce, "a", old.seal(nonce, "a", b"j1")) == b"j1"
    assert new.open(nonce, "a", both.seal(nonce, "a", b"j1")) == b"j1"
    with pytest.raises(BadSeal):
        old.open(nonce, "a", both.seal(nonce, "a", b"j1"))


def test_what_was_sealed_before_there_was_an_encrypt_key_still_opens():
    pytest.importorskip("cryptography")
    before, after = Sealer(["s"]), Sealer(["s"], ["k"])
    nonce = before.new_nonce()
    assert after.open(nonce, "a", before.seal(nonce, "a", b"j1")) == b"j1"
    with pytest.raises(BadSeal):
        before.open(nonce, "a", after.seal(nonce, "a", b"j1"))


def test_what_is_encrypted_cannot_be_read():
    pytest.importorskip("cryptography")
    sealer = Sealer(["s"], ["k"])
    nonce = sealer.new_nonce()
    sealed = [sealer.seal(nonce, "a", b"jfindable") for _ in range(100)]
    assert not any(b"findable" in one for one in sealed)
    assert len(set(sealed)) == 100, "a salt used twice gives AES-GCM away"
    assert b"findable" in Sealer(["s"]).seal(nonce, "a", b"jfindable"), "a MAC hides nothing"


def test_each_session_is_encrypted_with_a_key_of_its_own():
    """By HKDF from the encrypt_key and the session's nonce: what one key may encrypt with random
    nonces (2**32 values, SP 800-38D) is for each session."""
    pytest.importorskip("cryptography")
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    def key_of(nonce):
        prk = derive("k", "nocookie encryption")
        return HKDFExpand(SHA256(), 32, b"nocookie session" + nonce).derive(prk)

    sealer = Sealer(["s"], ["k"])
    one, other = sealer.new_nonce(), sealer.new_nonce()
    for nonce in (one, other, one):
        sealed = sealer.seal(nonce, "a", b"j1")
        salt, box = sealed[1:13], sealed[13:]
        bound = nonce + (1).to_bytes(4, "big") + b"a"
        assert AESGCM(key_of(nonce)).decrypt(salt, box, bound) == b"j1"
        with pytest.raises(InvalidTag):
            AESGCM(key_of(other if nonce == one else one)).decrypt(salt, box, bound)


def test_encryption_without_its_package_says_what_to_install(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == "cryptography":
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert Sealer(["s"])
    with pytest.raises(ConfigError, match=r"pip install nocookie\[crypto\]"):
        Sealer(["s"], ["k"])


# -- records -------------------------------------------------------------------------------------


def test_the_seal_of_a_record_gives_its_nonce_back(sealer):
    nonce = sealer.new_nonce()
    assert len(nonce) == 16
    assert sealer.open_record(KEY, sealer.seal_record(KEY, nonce)) == nonce


def test_every_flipped_bit_and_every_cut_of_a_record_seal_is_noticed(sealer):
    seal = sealer.seal_record(KEY, sealer.new_nonce())
    for changed in [*flips(seal), *(seal[:n] for n in range(len(seal))), seal + b"\0"]:
        with pytest.raises(BadSeal):
            sealer.open_record(KEY, changed)


def test_a_record_under_another_key_is_noticed(sealer):
    seal = sealer.seal_record(KEY, sealer.new_nonce())
    with pytest.raises(BadSeal):
        sealer.open_record(OTHER_KEY, seal)


def test_nonces_differ(sealer):
    assert len({sealer.new_nonce() for _ in range(1000)}) == 1000


# -- in a session --------------------------------------------------------------------------------


@pytest.fixture(params=["mac", "encrypted"])
def options(request):
    options = {"type": MemoryStore(), "secret": "a secret of a good length, for tests"}
    if request.param == "encrypted":
        pytest.importorskip("cryptography")
        options["encrypt_key"] = "a key"
    return options


def stored(options, **values):
    session = Session({}, **options)
    session.update(values)
    session.save()
    return session, session._backend.ids.key(session.id)


def test_a_value_swapped_between_fields_is_corrupted(options):
    session, key = stored(options, user="eve", wanted="admin")
    store = options["type"]
    store.save(key, Delta({"user": store.load(key).fields["wanted"]}), 60)
    again = Session({}, id=session.id, **options)
    assert again.get("user") is None
    assert (again.reason, again.is_new, dict(again)) == ("corrupted", True, {})


def test_a_value_swapped_between_sessions_is_corrupted(options):
    eve, eve_key = stored(options, user="eve")
    _, admin_key = stored(options, user="admin")
    store = options["type"]
    store.save(eve_key, Delta({"user": store.load(admin_key).fields["user"]}), 60)
    again = Session({}, id=eve.id, **options)
    assert again.get("user") is None
    assert again.reason == "corrupted"


def test_a_record_copied_under_another_key_is_corrupted(options):
    eve, eve_key = stored(options, user="eve")
    _, admin_key = stored(options, user="admin")
    store = options["type"]
    store.destroy(eve_key)
    store.create(eve_key, store.load(admin_key), 600)
    again = Session({}, id=eve.id, **options)
    assert (again.reason, dict(again)) == ("corrupted", {})


def test_a_planted_value_is_corrupted(options):
    session, key = stored(options, user="eve")
    options["type"].save(key, Delta({"user": b"sadmin"}), 60)
    assert Session({}, id=session.id, **options).get("user") is None


def test_what_is_sealed_is_corrupted_where_there_is_no_secret(options):
    """And kept: the secret may only be missing here."""
    session, _ = stored(options, user="eve")
    again = Session({}, id=session.id, type=options["type"])
    assert again.get("user") is None
    assert again.reason == "corrupted"
    assert Session({}, id=session.id, **options)["user"] == "eve"


def test_a_rotation_reseals_one_thing(options):
    session, key = stored(options, user="eve", other=[1])
    before = options["type"].load(key).fields
    session.regenerate_id()
    session.save()
    after = options["type"].load(session._backend.ids.key(session.id)).fields
    assert dict(after) == dict(before), "no value was touched"
    assert dict(Session({}, id=session.id, **options)) == {"user": "eve", "other": [1]}


def test_a_changed_secret_keeps_the_sessions(options):
    session, _ = stored(options, user="eve")
    newer = {**options, "secret": ["a newer secret, which is as long", options["secret"]]}
    again = Session({}, id=session.id, **newer)
    assert again["user"] == "eve"
    again["more"] = 1
    again.save()
    assert dict(Session({}, id=session.id, **newer)) == {"user": "eve", "more": 1}
    gone = Session({}, id=session.id, **{**options, "secret": "a newer secret, which is as long"})
    assert (gone.reason, dict(gone)) == ("forged", {})


def test_macs_are_compared_in_constant_time():
    """Not a measurement: that the function made for it is called."""
    calls = []
    real = hmac.compare_digest

    def compare(a, b):
        calls.append(1)
        return real(a, b)

    sealer = Sealer(["s"])
    nonce = os.urandom(16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hmac, "compare_digest", compare)
        sealer.open(nonce, "a", sealer.seal(nonce, "a", b"j1"))
        sealer.open_record(KEY, sealer.seal_record(KEY, nonce))
    assert len(calls) == 2
