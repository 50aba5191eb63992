"""Which secrets are none: those that are short, that repeat themselves, or that are printed where
everybody can read them.

A secret that is in somebody's documentation is the first that is tried, whatever its length: there
are tools that try them all.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

__all__ = ["PUBLISHED", "SECRETS", "SHORTEST", "fresh_secret", "weakness"]

#: The options that are secrets.
SECRETS: Final = ("secret", "encrypt_key", "id_key")
#: 16 characters at random are 96 bits; a phrase of that length is less, and still beyond trying.
SHORTEST: Final = 16
#: 16 random hex digits have fewer than 6 different ones once in 10,000 times.
FEWEST: Final = 6
#: Bytes of a fresh secret: as many as the hash that is keyed with it has.
FRESH: Final = 32

#: Where -> what is printed there as a secret, a key or a password. How it is written (capitals,
#: blanks, punctuation) makes no difference.
PUBLISHED: Final[Mapping[str, tuple[str, ...]]] = {
    "Beaker": (
        *("asdlkj23f8sd", "blah", "hoobermas", "666a19cf7f61c64c", "validate_key", "encrypt_key"),
    ),
    "Pylons": ("somesecret", "i_wear_two_layers_of_socks", "${app_instance_secret}"),
    "Pyramid": (
        *("itsaseekreet", "seekrit", "real-seekrit", "test-seekrit", "sosecret", "mysecret"),
        *("98zd", "youllneverguess", "needtochangethistoo"),
    ),
    "TurboGears": ("ChangeME", "SECRET", "{{cookiesecret}}"),
    "Flask": (
        *("dev", "development key", "A0Zr98j/3yX R~XHH!jmN]LWX/,?RT", r'_5#y2L"F4Q8z\n\xec]/'),
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        *("you-will-never-guess", "hard to guess string"),
    ),
    "Bottle": ("some-secret-key", "please use a random key and keep it secret!"),
    "CKAN": ("super_secret", "This_is_a_secret_or_is_it"),
    "velruse": ("STRONG_KEY_HERE",),
    "RhodeCode": (
        "key_for_encryption",
        "validation_key",
        "production-rc-uytcxaz",
        "test-rc-uytcxaz",
    ),
    "pypicloud": (
        "FFpoaaM3LAJm8wc9qNQDUoC28hrwumyRJPzMA9X0wgA=",
        "hVW5NHQFlDm+iuycdE/TyzcDyTJtfyg5K+XxyKcxBWc=",
    ),
    "Tornado": ("__TODO:_GENERATE_YOUR_OWN_RANDOM_VALUE_HERE__",),
    "nocookie": (
        *("a long random text of yours", "one secret of enough characters"),
        "a long random text of this page's own",
        *("another of enough characters", "from the environment, 32 characters or more"),
        *("read this from the environment, not from the source", "shared with the gateway alone"),
        *("hashes the gateway's ids for the store", "another key, kept from the store"),
        *("at least thirty-two characters of it", "the new one, thirty-two characters or more"),
        *(
            "the old one, until everything it signed has ended",
            "32 random characters, or more of them",
        ),
    ),
    "what everybody tries": (
        *("secret key", "my secret key", "mysupersecret", "super secret key"),
        *("asecretkey", "thisisasecret", "topsecret", "verysecretkey", "sessionsecret"),
        *("password", "mysecretpassword", "passphrase", "letmein", "administrator", "swordfish"),
        *("correct horse battery staple", "keyboard cat", "seekr1t", "test", "testkey", "foo"),
        *("qwertyuiopasdfghjklzxcvbnm", "1qaz2wsx3edc4rfv", "random secret", "session"),
    ),
}

#: What is left of a secret that says of itself that it is to be replaced.
_PLACEHOLDERS: Final = (
    *("changeme", "changethis", "changeit", "pleasechange", "needtochange", "replaceme"),
    *("replacethis", "replacewith", "yoursecret", "yourkey", "yourownsecret", "yourrandom"),
    *("secrethere", "keyhere", "secretgoeshere", "keygoeshere", "randomkey", "randomstring"),
    *("setthis", "insertrandom", "djangoinsecure", "notsecret", "notsosecret", "insecurekey"),
    *("neverguess", "donottell", "generateyourown"),
)


def fresh_secret() -> str:
    """Return a new secret: 43 characters, of 256 random bits."""
    return secrets.token_urlsafe(FRESH)


def weakness(secret: str) -> str | None:
    """Say why *secret* is none, in a sentence that begins with "it" and does not show it; None if
    nothing is wrong with it that can be seen."""
    plain = _plain(secret)
    where = _WHERE.get(plain)
    if where is not None:
        return f"it is published ({where})"
    if any(word in plain for word in _PLACEHOLDERS):
        return "it says that it is to be replaced"
    if len(secret) < SHORTEST:
        return f"it has fewer than {SHORTEST} characters"
    if len(_unrepeated(secret)) < SHORTEST or len(set(secret)) < FEWEST or _is_a_run(secret):
        return "it repeats itself"
    return None


def _plain(secret: str) -> str:
    """How it is written aside; but what has nothing else stays as it is."""
    return "".join(filter(str.isalnum, secret.casefold())) or secret


_WHERE: Final = {_plain(text): where for where, texts in PUBLISHED.items() for text in texts}


def _unrepeated(secret: str) -> str:
    """Return what *secret* consists of, if it is the same again and again; else all of it."""
    return secret[: (secret + secret).index(secret, 1)]


def _is_a_run(secret: str) -> bool:
    """Whether most characters follow from the one before: abcdef..., 98765..., aaaa..."""
    steps = [ord(after) - ord(before) for before, after in pairwise(secret)]
    return sum(-1 <= step <= 1 for step in steps) > len(steps) * 2 / 3
