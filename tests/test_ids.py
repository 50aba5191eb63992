"""Ids: what is issued, what is recognised, what a store sees."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocookie import StoreError, ids
from nocookie.ids import GatewayIds, NotAnId, RandomIds, SignedIds

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SCHEMES = {
    "random": RandomIds(),
    "signed": SignedIds(["a secret"]),
    "gateway": GatewayIds("a key"),
}


@pytest.fixture(params=SCHEMES)
def scheme(request):
    return SCHEMES[request.param]


@pytest.fixture(params=["random", "signed"])
def strict(request):
    return SCHEMES[request.param]


def refused(scheme, text):
    with pytest.raises(NotAnId) as caught:
        scheme.key(text)
    return caught.value.reason


# -- what is issued ------------------------------------------------------------------------------


def test_a_new_id_is_43_url_safe_characters(scheme):
    for _ in range(200):
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", scheme.new())


def test_new_ids_differ(scheme):
    assert len({scheme.new() for _ in range(1000)}) == 1000


def test_a_new_id_is_recognised(scheme):
    for _ in range(200):
        assert re.fullmatch("[0-9a-f]{64}", scheme.key(scheme.new()))


@pytest.mark.parametrize(("name", "random"), [("random", 32), ("signed", 20), ("gateway", 32)])
def test_every_random_byte_comes_from_the_system(monkeypatch, name, random):
    asked = []

    def urandom(size):
        asked.append(size)
        return bytes(size)

    monkeypatch.setattr(os, "urandom", urandom)
    id = SCHEMES[name].new()
    assert asked == [random]
    assert random * 8 >= 128, "OWASP ASVS 5.0, 7.2.3"
    assert urlsafe_b64decode(id + "=")[:random] == bytes(random)


def test_without_randomness_there_is_no_id(scheme, monkeypatch):
    """And never a weaker one."""

    def urandom(size):
        raise OSError("no entropy")

    monkeypatch.setattr(os, "urandom", urandom)
    with pytest.raises(StoreError, match="random"):
        scheme.new()


def test_every_character_of_an_id_varies(strict):
    seen = [set() for _ in range(43)]
    for _ in range(400):
        for place, character in zip(seen, strict.new(), strict=True):
            place.add(character)
    assert all(len(place) > 30 for place in seen[:42])
    assert len(seen[42]) > 10, "the last one has 4 bits"


# -- what is recognised --------------------------------------------------------------------------

HOSTILE = [
    "",
    " ",
    "a",
    "A" * 42,
    "A" * 44,
    "A" * 86,
    "A" * 100_000,
    "A" * 42 + "B",  # bits that no id has: it would decode as A...A
    "A" * 42 + "=",
    "A" * 42 + "\n",
    "\n" + "A" * 42,
    "A" * 43 + "\n",
    "A" * 43 + "\0",
    " " + "A" * 43,
    "A" * 43 + " ",
    "A" * 42 + "+",
    "A" * 42 + "/",
    "A" * 42 + "é",
    "A" * 42 + "\u0391",  # GREEK CAPITAL LETTER ALPHA
    "A" * 42 + "\uff21",  # FULLWIDTH LATIN CAPITAL LETTER A
    "A" * 42 + "\u0660",  # ARABIC-INDIC DIGIT ZERO
    "\ud800" * 43,
    "../" * 14 + "A",
    "'" * 43,
    "%41" * 14 + "A",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[-8:]))
def test_what_has_not_the_form_is_malformed(strict, text):
    assert refused(strict, text) == "malformed"


@given(st.text() | st.text(ALPHABET, min_size=43, max_size=43))
def test_any_text_is_an_id_or_refused(text):
    for name in ("random", "signed"):
        try:
            key = SCHEMES[name].key(text)
        except NotAnId as error:
            assert error.reason in ("malformed", "forged")  # noqa: PT017 - or no error at all
        else:
            assert name == "random" and re.fullmatch("[A-Za-z0-9_-]{43}", text)
            assert len(key) == 64


@given(st.binary(min_size=32, max_size=32))
def test_one_id_has_one_spelling(raw):
    text = urlsafe_b64encode(raw).decode()[:43]
    scheme = SCHEMES["random"]
    spellings = [text[:42] + last for last in ALPHABET]
    recognised = []
    for spelling in spellings:
        try:
            scheme.key(spelling)
        except NotAnId:
            continue
        recognised.append(spelling)
    assert text in recognised
    decoded = [urlsafe_b64decode(spelling + "=") for spelling in recognised]
    assert len(set(decoded)) == len(decoded) == 16


def test_every_flipped_bit_of_a_signed_id_is_forged():
    scheme = SignedIds(["a secret"])
    raw = urlsafe_b64decode(scheme.new() + "=")
    for bit in range(256):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refused(scheme, urlsafe_b64encode(flipped).decode()[:43]) == "forged"


def test_an_id_of_another_secret_or_of_none_is_forged():
    scheme = SignedIds(["a secret"])
    assert refused(scheme, SignedIds(["another"]).new()) == "forged"
    assert refused(scheme, RandomIds().new()) == "forged"


def test_the_first_secret_signs_and_all_of_them_verify():
    old, both, new = SignedIds(["old"]), SignedIds(["new", "old"]), SignedIds(["new"])
    assert both.key(old.new())
    assert new.key(both.new())
    assert refused(old, both.new()) == "forged"
    assert refused(new, old.new()) == "forged"


def test_a_changed_secret_does_not_change_the_key():
    """So secrets rotate without losing a session."""
    id = SignedIds(["old"]).new()
    assert SignedIds(["old"]).key(id) == SignedIds(["new", "old"]).key(id)
    assert SignedIds(["old"]).key(id) == RandomIds().key(id)


# -- what the store sees -------------------------------------------------------------------------


def test_the_key_is_blake2b_256_of_the_id(strict):
    id = strict.new()
    assert strict.key(id) == hashlib.blake2b(id.encode(), digest_size=32).hexdigest()


def test_different_ids_have_different_keys(scheme):
    issued = [scheme.new() for _ in range(500)]
    assert len({scheme.key(id) for id in issued}) == 500


def test_the_key_does_not_depend_on_what_was_asked_before(scheme):
    id = scheme.new()
    key = scheme.key(id)
    for _ in range(2 * ids.REMEMBERED):
        scheme.key(scheme.new())
    assert scheme.key(id) == key


def test_what_is_refused_stays_refused(strict):
    """What is remembered is what was recognised."""
    for _ in range(3):
        assert refused(strict, "A" * 44) == "malformed"


def test_two_schemes_remember_nothing_of_each_other():
    id = SignedIds(["one"]).new()
    assert SignedIds(["one"]).key(id)
    assert refused(SignedIds(["two"]), id) == "forged"


def test_a_refusal_does_not_hold_the_text(scheme):
    text = "secret text" * 100
    with pytest.raises(NotAnId) as caught:
        scheme.key(text)
    assert "secret" not in repr(caught.value) + str(caught.value) + repr(vars(caught.value))


# -- ids of a gateway ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["1", "+49 30 1234567", "é", "鍵", "A" * 43, "x" * 256, "a b", "'"]
)
def test_a_gateway_may_bring_any_printable_text(text):
    assert re.fullmatch("[0-9a-f]{64}", GatewayIds("a key").key(text))


@pytest.mark.parametrize(
    "text", ["", "x" * 257, "a\nb", "a\0", "\ud800", "\x7f", "a\u2028b", "\x85"]
)
def test_what_a_gateway_cannot_mean_is_malformed(text):
    assert refused(GatewayIds("a key"), text) == "malformed"


def test_ids_of_a_gateway_are_hashed_with_the_key():
    """They may be guessable, so whoever reads the store must learn none of them."""
    one, other = GatewayIds("one").key("12345"), GatewayIds("other").key("12345")
    assert one != other
    assert one != hashlib.blake2b(b"12345", digest_size=32).hexdigest()
    assert one == GatewayIds("one").key("12345")


def test_only_ids_of_a_gateway_are_adopted():
    assert (RandomIds().adopts, SignedIds(["s"]).adopts, GatewayIds("k").adopts) == (
        False,
        False,
        True,
    )


def test_a_fingerprint_says_too_little_to_find_the_id():
    assert ids.FINGERPRINT_LENGTH * 4 == 40


# -- many ids ------------------------------------------------------------------------------------

#: Eight workers of one parent, as a server forks them: it has made sessions already, and so has
#: each of them when it begins. Four threads in each.
WORKERS = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, {folder!r})
from helpers import serve
from nocookie import SessionMiddleware, session

def app(environ, start_response):
    session["n"] = 1
    session.save()
    start_response("200 OK", [])
    return [b""]

middleware = SessionMiddleware(app, use_cookies=False, secret={secret!r})
serve(middleware)

def visit(times):
    return [serve(middleware).id for _ in range(times)]

children = []
for _ in range(8):
    reader, writer = os.pipe()
    if os.fork() == 0:
        with ThreadPoolExecutor(4) as pool:
            ids = sum(pool.map(visit, [625] * 4), [])
        with open(writer, "w") as out:
            json.dump(ids, out)
        os._exit(0)
    os.close(writer)
    children.append(open(reader))
print(json.dumps([json.load(child) for child in children]))
"""


@pytest.mark.parametrize("secret", [None, "a secret for tests, long enough"])
def test_20_000_ids_of_eight_forked_workers_are_all_different_and_look_random(secret):
    code = WORKERS.format(folder=os.path.dirname(__file__), secret=secret)
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    workers = json.loads(ran.stdout)
    ids = [id for worker in workers for id in worker]
    assert len(ids) == len(set(ids)) == 20_000
    assert {len(id) for id in ids} == {43}
    for place, column in enumerate(zip(*ids, strict=True)):
        # 256 bits end after four of the six of the last character.
        letters = 64 if place < 42 else 16
        counts, expected = Counter(column), len(ids) / letters
        assert len(counts) == letters
        squares = sum((count - expected) ** 2 for count in counts.values()) / expected
        # Chi-square: its mean is letters - 1. Eight standard deviations are beyond bad luck.
        assert squares < letters - 1 + 8 * math.sqrt(2 * (letters - 1)), place
    for worker in workers:
        ascending = sum(one < next for one, next in pairwise(worker))
        assert abs(ascending - len(worker) / 2) < 6 * math.sqrt(len(worker) / 12)


@pytest.mark.parametrize(
    "ids",
    [RandomIds(), SignedIds(["s" * 32]), GatewayIds("k" * 32)],
    ids=lambda ids: type(ids).__name__,
)
def test_a_fresh_id_has_the_key_that_it_is_found_by(ids):
    fresh = [ids.new() for _ in range(100)]
    assert [ids.fresh_key(id) for id in fresh] == [ids.key(id) for id in fresh]
