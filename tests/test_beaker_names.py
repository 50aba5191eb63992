"""Each name of Beaker's session classes is here too, or in the table that says why not."""

import re
from collections.abc import MutableMapping
from pathlib import Path

import pytest
from beaker import session as beaker

from nocookie import Session, SessionObject
from nocookie.beaker_options import NEEDLESS, REFUSED, RENAMED
from nocookie.options import OPTIONS
from nocookie.sealed import SealedSession

PAGE = (Path(__file__).parent.parent / "docs" / "from-beaker.md").read_text("utf-8")
GONE = {
    name
    for row in PAGE[PAGE.index("## Names that are gone") :].splitlines()
    if row.startswith("| `")
    for name in re.findall(r"`(\w+)(?:\(\))?`", row.split("|")[1])
}

CONFIGURATION = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text("utf-8")

#: What every mapping has.
MAPPING = {*dir(MutableMapping)}

words = str.split

#: The public names of Beaker 1.14.1's classes, instance attributes among them.
SESSION = words("""
    accessed_dict clear cookie cookie_domain cookie_expires cookie_path copy created crypto_module
    data_dir data_serializer delete domain encrypt_key encrypt_nonce_size fromkeys get get_by_id
    has_key httponly id invalidate invalidate_corrupt is_new items key keys last_accessed load lock
    namespace namespace_args namespace_class path pop popitem regenerate_id request revert
    samesite save save_atime secret secure serialize_cookie_date serializer setdefault timeout
    type unlock update use_cookies validate_key values was_invalidated
""")
OBJECT = words("""
    accessed clear delete dirty get get_by_id has_key invalidate items keys load persist pop
    popitem regenerate_id revert save setdefault update values
    id is_new created last_accessed timeout
""")
COOKIE = words("""
    clear cookie cookie_domain cookie_expires cookie_path copy created crypto_module
    data_serializer delete domain encrypt_key encrypt_nonce_size fromkeys get has_key httponly id
    invalidate invalidate_corrupt is_new items key keys load lock path pop popitem regenerate_id
    request revert samesite save save_atime secure serialize_cookie_date serializer setdefault
    timeout unlock update validate_key values
""")

#: The options of Beaker's middleware and of its stores.
BEAKER_OPTIONS = words("""
    use_cookies id key type data_dir lock_dir timeout save_accessed_time auto invalidate_corrupt
    data_serializer encrypt_key validate_key encrypt_nonce_bits crypto_type secret cookie_expires
    cookie_domain cookie_path secure httponly samesite session_class namespace_class
    webtest_varname log_file url table_name schema_name sa_opts bind table memcache_module
    file_dir dbm_dir dbmmodule client urls
""")


@pytest.mark.parametrize("name", SESSION)
def test_a_name_of_the_session_is_there_or_in_the_table(name):
    assert hasattr(Session, name) is not (name in GONE)


@pytest.mark.parametrize("name", OBJECT)
def test_a_name_of_the_session_object_is_there(name):
    assert hasattr(SessionObject, name)


@pytest.mark.parametrize("name", COOKIE)
def test_a_name_of_the_cookie_session_is_there_or_in_the_table(name):
    assert hasattr(SealedSession, name) is not (name in GONE)


@pytest.mark.parametrize("name", BEAKER_OPTIONS)
def test_an_option_is_taken_or_refused_with_what_to_do_instead(name):
    is_taken = name in {*OPTIONS, *NEEDLESS, *RENAMED} - {"save_accessed_time"}
    assert is_taken is not (name in REFUSED)
    for table in (REFUSED, NEEDLESS):
        assert len(table.get(name, "a sentence of some length")) > 5


@pytest.mark.parametrize("name", sorted({*SESSION, *OBJECT, *COOKIE, *BEAKER_OPTIONS} - MAPPING))
def test_the_page_has_a_word_on_each_name(name):
    """Or the page that it leads to has, where the options that are not taken are."""
    assert re.search(rf"\b{name}\b", PAGE) or f"| `{name}` |" in CONFIGURATION


def test_the_lists_are_beakers_own():
    def public(cls, *instances):
        names = {*dir(cls), *(name for instance in instances for name in vars(instance))}
        return {name for name in names if not name.startswith("_")}

    known = beaker.Session({"cookie": ""}, type="memory", secret="s")
    known.save()
    known = beaker.Session({"cookie": ""}, id=known.id, type="memory", secret="s")
    assert public(beaker.Session, known) <= set(SESSION)
    sealed = beaker.CookieSession({"cookie": ""}, validate_key="s")
    assert public(beaker.CookieSession, sealed) <= set(COOKIE)
    assert public(beaker.SessionObject) <= set(OBJECT)
