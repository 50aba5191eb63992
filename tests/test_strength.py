"""What is no secret: it is found, it is never shown, and it is warned about once."""

import re
import secrets
from pathlib import Path

import pytest

from nocookie import SessionMiddleware, manager
from nocookie.strength import PUBLISHED, SHORTEST, fresh_secret, weakness

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    """As in a process of its own."""
    monkeypatch.setattr(manager, "_said", set())


@pytest.mark.parametrize(
    ("text", "where"), [(text, where) for where, texts in PUBLISHED.items() for text in texts]
)
def test_what_is_published_is_no_secret_however_it_is_written(text, where):
    written = [text, text.upper(), f" {text}!", text.replace(" ", "_"), text.replace("_", "-")]
    assert {weakness(secret) for secret in written} == {f"it is published ({where})"}


@pytest.mark.parametrize(
    "text",
    [
        "change me",
        "CHANGE_ME_IN_PRODUCTION_PLEASE",
        "replace-this-with-a-random-string",
        "<your-secret-key>",
        "django-insecure-x^3k0!fzq6@#1c9t5v+w",
        "put your secret here, 32 characters!",
    ],
)
def test_what_says_that_it_is_to_be_replaced_is_no_secret(text):
    assert weakness(text) == "it says that it is to be replaced" or "published" in weakness(text)


def test_a_short_text_is_no_secret():
    assert weakness("k8Jq0x_Wz3mB7vC") == f"it has fewer than {SHORTEST} characters"
    assert weakness("k8Jq0x_Wz3mB7vCe") is None


@pytest.mark.parametrize(
    "text",
    [
        "0" * 64,
        "ab" * 32,
        "k8Jq0x_Wz3" * 4,
        "abcdefghijklmnopqrstuvwxyz",
        "0123456789abcdef",
        "zyxwvutsrqponmlkjihg",
        "aaaabbbbccccddddeeeeffff",
        "-" * 20,
    ],
)
def test_a_text_that_repeats_itself_is_no_secret(text):
    assert weakness(text) == "it repeats itself"


@pytest.mark.parametrize(
    "make",
    [fresh_secret, lambda: secrets.token_hex(16), lambda: secrets.token_urlsafe(16)],
    ids=["fresh", "hex", "urlsafe"],
)
def test_random_text_passes(make):
    made = [make() for _ in range(2000)]
    assert [secret for secret in made if weakness(secret)] == []


def test_a_phrase_of_ones_own_passes():
    assert weakness("thirty-two characters, or a few more") is None


def test_a_fresh_secret_is_256_bits_that_an_ini_file_takes_as_they_are():
    made = {fresh_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in made)


#: How a secret is written in documentation and examples: in Python, and in an ini file.
IN_PYTHON = re.compile(
    r"""(?:(?:SECRET|secret|encrypt_key|id_key)["']?\s*[=:]\s*|_KEY",\s*)"""
    r"""(?P<quote>["'])(?P<text>.+?)(?P=quote)"""
)
IN_INI = re.compile(
    r"^ *[\w.]*(?:secret|encrypt_key|id_key) =(?: *(?P<one>[^\s#].*)$|\n(?P<several>(?: +.*\n)+))",
    re.MULTILINE,
)


def test_what_our_own_documentation_and_examples_print_is_published():
    found = set()
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.py")]:
        text = page.read_text("utf-8")
        found |= {match["text"] for match in IN_PYTHON.finditer(text)}
        for match in IN_INI.finditer(text):
            found |= {line.strip() for line in (match["one"] or match["several"]).splitlines()}
    found = {text for text in found if "(" not in text}  # a call, not a secret
    assert len(found) > 8
    missing = {text for text in found if weakness(text) is None}
    assert missing == set(), "printed by us, so it belongs into PUBLISHED"


def misfits(caplog):
    return [record.detail for record in caplog.records if record.event == "misfit"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"secret": "somesecret"}, ["secret can be guessed: it is published (Pylons)"]),
        (
            {"secret": ["k8Jq0x_Wz3mB7vCe", "short"]},
            ["secret can be guessed: it has fewer than 16"],
        ),
        ({"secret": "k8Jq0x_Wz3mB7vCe", "encrypt_key": "a" * 32}, ["encrypt_key can be guessed"]),
        ({"strict": False, "id_key": "k"}, ["id_key can be guessed: it has fewer"]),
        ({"secret": "k8Jq0x_Wz3mB7vCe"}, []),
    ],
)
def test_a_weak_secret_is_warned_about_once_in_a_process(caplog, options, said):
    for _ in range(3):
        SessionMiddleware(None, use_cookies=False, **options)
    assert len(misfits(caplog)) == len(said)
    for detail, begin in zip(misfits(caplog), said, strict=True):
        assert detail.startswith(begin)


def test_a_warning_does_not_show_the_secret(caplog):
    SessionMiddleware(None, secret=["kurz", "aaaaaaaaaaaaaaaaaa", "somesecret"])
    assert len(misfits(caplog)) == 3
    assert not [word for word in ("kurz", "aaaa", "somesecret") if word in caplog.text]
