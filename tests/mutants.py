"""Break the code on purpose, one promise at a time, and see which test notices.

    python tests/mutants.py [WORD ...]

Each mutant is a change of one place in the library. A copy of the package with that change is put
before the installed one, and the test files that should notice are run until the first failure.
Prints the first test that failed for each, and fails itself if a mutant lives. Not part of the
suite: it runs the suite some thirty times.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "nocookie"


class Mutant(NamedTuple):
    promise: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "a 304 tells no id",
        "manager.py", 'is_for_all = reply.status[:3] == "304"', "is_for_all = False", "test_methods",
    ),
    Mutant(
        "a segment counts as it was sent, and the first one only",
        "carriers.py", "if plain is None or plain[1] != id or segment in unquote(sent[: plain.start()]):",
        "if plain is None:", "test_url_carriers",
    ),
    Mutant(
        "what a query says is no path",
        "carriers.py", 'return sent.partition("?")[0]', "return sent", "test_url_carriers",
    ),
    Mutant(
        "an id that the store does not know is not adopted",
        "ids.py", "    adopts = False", "    adopts = True", "test_recipe test_state_table",
    ),
    Mutant(
        "the grammar comes before everything",
        "ids.py", "if not _matches(text):", "if not text:", "test_hostile_ids test_ids",
    ),
    Mutant(
        "a forged id is refused without a trip",
        "ids.py", "if hmac.compare_digest(expected(random), mac):", "if True:",
        "test_hostile_ids test_state_table",
    ),
    Mutant(
        "the store sees a hash and not the id",
        "ids.py", 'return hashlib.blake2b(id.encode(), digest_size=32).hexdigest()',
        "return id", "test_ids test_hostile_ids",
    ),
    Mutant(
        "several ids in one carrier count as none",
        "carriers.py", "    if len(different) > 1:\n        raise AmbiguousId\n", "",
        "test_flow test_state_table",
    ),
    Mutant(
        "a finder that raises costs the id and no more",
        "manager.py", "except Exception as error:  # a finder",
        "except KeyError as error:  # a finder", "test_flow",
    ),
    Mutant(
        "a known id goes back by the carrier that brought it",
        "manager.py", "self.carriers if brought_by is None else (brought_by,)",
        "self.carriers", "test_flow",
    ),
    Mutant(
        "a response with an id is not cached",
        "manager.py", '    kept.append(("Cache-Control", "no-store"))\n', "", "test_flow",
    ),
    Mutant(
        "Vary names the header that was consulted",
        "manager.py", 'reply.add_word("Vary", name)', "pass", "test_flow",
    ),
    Mutant(
        "the referrer policy is strict with a URL carrier",
        "manager.py", "if in_url and not strict:", "if False:", "test_flow",
    ),
    Mutant(
        "headers with control characters are refused by us",
        "manager.py", 'if "\\r" in text or', 'if "\\a" in text or', "test_flow",
    ),
    Mutant(
        "the commit comes before the head",
        "middleware.py",
        "        self._manager.commit(self, reply)\n",
        "        self._start_response(status, headers)\n        self._manager.commit(self, reply)\n",
        "test_flow test_failures",
    ),
    Mutant(
        "nothing is left behind in the thread",
        "middleware.py", "return copy_context().run(self._respond, environ, start_response)",
        "return self._respond(environ, start_response)", "test_isolation",
    ),
    Mutant(
        "a stream runs in the context of its own request",
        "middleware.py", "return self._context.run(self._step)", "return self._step()",
        "test_isolation",
    ),
    Mutant(
        "a request leaves no cycle",
        "middleware.py", "self._environ = self._start_response = self._server_write = None",
        "pass", "test_isolation",
    ),
    Mutant(
        "a store that fails is 503",
        "middleware.py", "except _ANSWERED as error:\n            exchange._give_up",
        "except SessionConflict as error:\n            exchange._give_up", "test_failures",
    ),
    Mutant(
        "a 500 that a framework made of our error is ours again",
        "middleware.py", 'if session is not None and session._failed and status.startswith("500"):', "if False:",
        "test_failures",
    ),
    Mutant(
        "after a failure nothing is saved any more",
        "middleware.py", "        self._sess = None\n        self._let_go()", "        self._let_go()",
        "test_failures test_flow",
    ),
    Mutant(
        "a late save is written",
        "middleware.py", "        if session is not None and self._sent:\n            _finish_late(session)\n",
        "", "test_flow",
    ),
    Mutant(
        "a nested middleware is one session",
        "middleware.py", "if is_bound(there):", "if False:", "test_flow",
    ),
    Mutant(
        "a shared header list is never changed",
        "middleware.py", "Reply(status, list(headers), self._environ, as_it_is)",
        "Reply(status, headers, self._environ, as_it_is)", "test_flow",
    ),
    Mutant(
        "a save sends the difference only",
        "sessions.py", "            if name in changed:\n", "            if True:\n",
        "test_session test_state_machine",
    ),
    Mutant(
        "containers changed in place are noticed",
        "sessions.py", "            elif type(value) in _COMPARED:\n", "            elif False:\n", "test_session",
    ),
    Mutant(
        "clear is part of the delta",
        "sessions.py", "        self._begin({})\n        self._cleared = True\n", "        self._begin({})\n",
        "test_session test_state_machine",
    ),
    Mutant(
        "delete acts at once",
        "sessions.py", "                self._destroy(key)\n            except StoreError",
        "                pass\n            except StoreError", "test_session test_state_table",
    ),
    Mutant(
        "a login takes a fresh id",
        "sessions.py", "            self.regenerate_id()\n        self._owner", "            pass\n        self._owner",
        "test_logins",
    ),
    Mutant(
        "a login begins the lifetime anew",
        "stores/memory.py", "began = created if owner is None else now", "began = created", "test_logins",
    ),
    Mutant(
        "a login leaves no trail",
        "sessions.py", '            elif self._turning:\n                further["trail"]',
        '            if True:\n                further["trail"]', "test_rotation",
    ),
    Mutant(
        "a logout with the old id ends the successor",
        "sessions.py", "            if type(moved) is not Moved or id is None:", "            if True:",
        "test_rotation",
    ),
    Mutant(
        "a save with the old id follows a rotation",
        "sessions.py", "                if not self._catch_up():", "                if True:", "test_rotation",
    ),
    Mutant(
        "a session's own times count",
        "sessions.py", "backend.timeout if life.timeout is None else life.timeout",
        "backend.timeout", "test_logins",
    ),
    Mutant(
        "what expired is not revived",
        "sessions.py", "            self._backend.store.destroy(key)\n        except StoreError:",
        "            pass\n        except StoreError:", "test_clocks",
    ),
    Mutant(
        "a record from the future is set right",
        "sessions.py", "        if idle < _AHEAD:", "        if False:", "test_clocks",
    ),
    Mutant(
        "nobody begins a session by a prefetch",
        "sessions.py", "if delta.set and not self._passive:", "if delta.set:", "test_refusals",
    ),
    Mutant(
        "nobody renews a session by a prefetch",
        "sessions.py", "        if self._passive:\n            return\n", "", "test_refusals",
    ),
    Mutant(
        "no id over plain HTTP",
        "manager.py", "if self._requires_https and not is_secure(environ, self._proxies):",
        "if False:", "test_refusals",
    ),
    Mutant(
        "a proxy is believed only if it is trusted",
        "transport.py", 'if not proxies or not _is_in(environ.get("REMOTE_ADDR", ""), proxies):',
        "if not proxies:", "test_refusals",
    ),
    Mutant(
        "a session that is needed is not begun in silence",
        "sessions.py", "if self._backend.needs_session and not self._may_be_new:", "if False:",
        "test_refusals",
    ),
    Mutant(
        "the lifetime is decided on read",
        "sessions.py", "now >= created + backend.lifetime or ", "", "test_session",
    ),
    Mutant(
        "a touch is due at times only",
        "sessions.py", "if idle > backend.touch_after:", "if True:", "test_flow",
    ),
    Mutant(
        "incr is exact",
        "sessions.py", "expect=found.version", "expect=None", "test_session test_state_machine",
    ),
    Mutant(
        "sizes are refused before the store",
        "sessions.py", "if len(data) > backend.max_value_size:", "if False:", "test_session",
    ),
    Mutant(
        "a record belongs under its key",
        "sealing.py", "if hmac.compare_digest(record_mac(nonce + key.encode()), mac):", "if True:",
        "test_session test_sealing",
    ),
    Mutant(
        "a value belongs to its field and session",
        "sealing.py", "return nonce + len(encoded).to_bytes(4, \"big\") + encoded", 'return b""',
        "test_session test_sealing",
    ),
    Mutant(
        "pickles need a secret",
        "options.py", 'if settings["data_serializer"] == "pickle" and not settings["secret"]:',
        "if False:", "test_construction test_options",
    ),
    Mutant(
        "the text False is false",
        "options.py", "    if word in _FALSE:\n        return False\n", "    if word in _FALSE:\n        return True\n",
        "test_recipe test_options",
    ),
    Mutant(
        "values come back exactly as they were",
        "codecs.py", 'tuple: ("!tuple", _items),', 'tuple: ("!list", _items),',
        "test_codecs test_session",
    ),
    Mutant(
        "a save never brings a record into being (memory)",
        "stores/memory.py", 'raise SessionGone("the session has ended")',
        "return Record({}, now, now, now, 0)", "stores/test_memory.py test_session",
    ),
    Mutant(
        "a save never revives what expired (file)",
        "stores/file.py", "    WHERE key = ? AND expires > ? AND version <> 0\n\"\"\"\nEXPECTED",
        "    WHERE key = ? AND ? > 0 AND version <> 0\n\"\"\"\nEXPECTED", "stores/test_file.py",
    ),
    Mutant(
        "the trail of a rotation takes no save (file)",
        "stores/file.py", "    WHERE key = ? AND expires > ? AND version <> 0\n\"\"\"\nEXPECTED",
        "    WHERE key = ? AND expires > ?\n\"\"\"\nEXPECTED", "stores/test_file.py",
    ),
    Mutant(
        "a rotation and its trail are one step (file)",
        "stores/file.py", "        with _transaction(self.sql, \"BEGIN IMMEDIATE\"):\n            cursor",
        "        if True:\n            cursor", "stores/test_file.py",
    ),
    Mutant(
        "a read makes no file",
        "stores/file.py", "            if not create:\n                return None\n", "",
        "stores/test_file.py",
    ),
    Mutant(
        "what a fork inherits is not used",
        "forks.py", "self._values[os.getpid()]", "self._values[next(iter(self._values), 0)]",
        "test_forks.py",
    ),
    Mutant(
        "a session that is destroyed while it is rotated does not live on (Redis)",
        "stores/redis.py", "old, new, now, trail, soon) != 1:",
        "old, new, now, trail, soon) is None:", "stores/test_redis.py",
    ),
    Mutant(
        "who reads what is moving waits for its trail (redis)",
        "stores/redis.py", "return _Moving.MOVING if WAIT in found else Missing.UNKNOWN",
        "return Missing.UNKNOWN", "stores/test_redis.py",
    ),
    Mutant(
        "who ends a trail is told where it led, though an answer was lost (redis)",
        "stores/redis_scripts.py", "if trail ~= ARGV[1] then return trail end\n",
        "if trail ~= ARGV[1] then redis.call('UNLINK', key) return trail end\n",
        "stores/test_redis.py",
    ),
    Mutant(
        "the new key is in the index of its owner before the old one is buried (redis)",
        "stores/redis_scripts.py", "if owned == 'o' and ARGV[5] == '' then", "if false then",
        "stores/test_redis.py",
    ),
    Mutant(
        "the end of all of an owner looks again (redis)",
        "stores/redis.py", "            seen.update(left)\n            for key",
        "            seen.update(left + self._entries(owner, until))\n            for key",
        "stores/test_redis.py",
    ),
    Mutant(
        "what is moving is ended where it was, too (redis)",
        "stores/redis_scripts.py", "if type(owner) ~= 'string' or string.match(owner",
        "if not living(key) or string.match(owner", "stores/test_redis.py",
    ),
    Mutant(
        "a key that is used again is not ended for its former owner (redis)",
        "stores/redis_scripts.py", "'^%S+ (.*)$') ~= ARGV[2] then return 0 end\nlocal moving",
        "'^%S+ (.*)$') == nil then return 0 end\nlocal moving", "stores/test_redis.py",
    ),
    Mutant(
        "an entry of the index is not judged while its record may be about to come (redis)",
        "stores/redis_scripts.py", "  if score and number(score) <= time then", "  if score then",
        "stores/test_redis.py",
    ),
    Mutant(
        "the index of an owner reaches as far as what is renewed (redis)",
        "stores/redis_scripts.py", "if owned == '' then return false end", "if true then return false end",
        "stores/test_redis.py",
    ),
    Mutant(
        "the index of an owner does not grow for ever (redis)",
        "stores/redis_scripts.py", "if old <= KEPT then return {} end", "if old then return {} end",
        "stores/test_redis.py",
    ),
    Mutant(
        "a session with a life of its own is not renewed by others' (redis)",
        "stores/redis_scripts.py", "'.\\\\0life') == 1 then", "'.\\\\0life') == 2 then",
        "stores/test_redis.py",
    ),
    Mutant(
        "a session that is destroyed while it is rotated does not live on (memcached)",
        "stores/memcached.py", "if not self._delete(old, soon):",
        "if self._delete(old, soon) is None:", "stores/test_memcached.py",
    ),
    Mutant(
        "who follows a trail early waits (memcached)",
        "stores/memcached.py", "    if kind == AWAITED:\n        return _NotYet.COUNTS\n",
        "    if kind == AWAITED:\n        return Missing.UNKNOWN\n", "stores/test_memcached.py",
    ),
    Mutant(
        "a destroy ends nothing but what it has seen (memcached)",
        "stores/memcached_wire.py", 'b"md %b C%b\\r\\n" % (name, token)', 'b"md %b\\r\\n" % name',
        "stores/test_memcached.py",
    ),
    Mutant(
        "an answer of memcached about another key is refused",
        "stores/memcached_wire.py", " or words[1] != name", "", "stores/test_memcached_wire.py",
    ),
    Mutant(
        "an answer of memcached with more behind it is refused",
        "stores/memcached_wire.py", "        if answer == yes:\n",
        "        if answer.startswith(yes):\n", "stores/test_memcached_wire.py",
    ),
    Mutant(
        "a published secret is warned about",
        "strength.py", "    if where is not None:\n", "    if False:\n", "test_strength test_check",
    ),
    Mutant(
        "a warning of a secret is said once",
        "manager.py", "if why is not None and sentence not in _said:", "if why is not None:",
        "test_strength",
    ),
    Mutant(
        "a check shows nothing that may be a secret",
        "checking.py", '"(not shown)" if option.hidden else text, means, beaker', "text, means, beaker",
        "test_check",
    ),
    Mutant(
        "a check opens no store",
        "checking.py", "type = store if store == \"cookie\" else Nowhere()", "type = store",
        "test_check",
    ),
    Mutant(
        "an ini file for production is its owner's alone",
        "commands/make_config.py", "os.O_EXCL, 0o600)", "os.O_EXCL, 0o666)", "test_make_config",
    ),
    Mutant(
        "a cookie in a list has the attributes that are configured",
        "manager.py", "return carriers_from(settings[\"find_id\"], cookie)",
        "return carriers_from(settings[\"find_id\"])", "test_cookies",
    ),
    Mutant(
        "a session with an id of Beaker's moves at its first use",
        "sessions.py",
        "if beaker_ids is not None and is_beaker_id(id) and not self._passive:", "if False:",
        "test_beaker_ids",
    ),
    Mutant(
        "a prefetch with an id of Beaker's is told none of ours",
        "sessions.py", "is_beaker_id(id) and not self._passive:", "is_beaker_id(id):",
        "test_beaker_ids",
    ),
    Mutant(
        "a session of Beaker's that is changed exactly moves all the same",
        "sessions.py", "self._touch_due = self._old is not None", "self._touch_due = False",
        "test_beaker_ids",
    ),
    Mutant(
        "requests that come at once with an id of Beaker's tell the same new one",
        "sessions.py", "if not backend.leaves_trails or", "if backend.rotate_every == math.inf or",
        "test_beaker_ids",
    ),
    Mutant(
        "a cookie is not renewed with an id that another request has replaced",
        "sessions.py", "            self._last_accessed = None\n", "", "test_cookies",
    ),
    Mutant(
        "an id of Beaker's counts until its day",
        "beaker_ids.py", " and self._clock() < self.until", "", "test_beaker_ids",
    ),
    Mutant(
        "Beaker's ids are what it can have issued",
        "beaker_ids.py", 'r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}"', 'r"[0-9a-f]{32}"',
        "test_beaker_ids",
    ),
    Mutant(
        "an id in Beaker's cookie needs its signature",
        "beaker_ids.py", "        if is_beaker_id(text):\n            raise", "        if False:\n            raise",
        "test_beaker_ids",
    ),
    Mutant(
        "the signature of Beaker's cookie is checked",
        "beaker_ids.py",
        'if not hmac.compare_digest(hmac.new(key, id.encode(), "sha1").hexdigest(), signature):',
        "if False:", "test_beaker_ids",
    ),
    Mutant(
        "what a client came with is not imported again",
        "importing.py", "if isinstance(store.load(mark_key(id)), Record):", "if False:",
        "test_beaker_ids",
    ),
    Mutant(
        "an import overwrites no session that is newer",
        "importing.py", "before.accessed > values.accessed - SAME", "False", "test_beaker_ids",
    ),
    Mutant(
        "what expired here since the first import is imported again",
        "importing.py", "            backend.store.destroy(key)\n", "            pass\n",
        "stores/test_importing",
    ),
    Mutant(
        "an imported session ends when it would have ended",
        "importing.py", "            self._at = accessed\n", "            pass\n",
        "stores/test_importing",
    ),
    Mutant(
        "what Beaker let expire is not imported",
        "importing.py", "if now - values.accessed > self._timeout:", "if False:",
        "stores/test_importing",
    ),
    Mutant(
        "what is around a session of Beaker's runs nothing",
        "beaker_stores.py",
        'raise Unreadable("it is no session: there are objects around where a text should be")',
        "return super().find_class(module, name)", "stores/test_importing",
    ),
    Mutant(
        "the id of a session after a logout stays where the visitor is sent",
        "manager.py", "elif real._ended and not tell:", "elif real._ended:", "test_logins",
    ),
    Mutant(
        "a session is ended for its owner alone",
        "owners.py", "        for key in store.owned(tag):\n            if key[:FINGERPRINT_LENGTH]",
        "        for key in store.keys():\n            if key[:FINGERPRINT_LENGTH]", "test_logins",
    ),
    Mutant(
        "an operator ends a session that moves past",
        "listing.py", "        _end_until_none_is_left(backend, is_older),\n", "", "test_listing",
    ),
    Mutant(
        "a session of another secret is listed as unreadable",
        "listing.py", "    elif sealer is not None and not nonce:\n", "    elif False:\n",
        "test_listing",
    ),
    Mutant(
        "an operator is asked first",
        "commands/end.py", "if not yes and sys.stdin.isatty() and not click.confirm",
        "if False and not click.confirm", "test_commands",
    ),
    Mutant(
        "a page's own policy tells other origins no URL with an id",
        "html.py", "return not _LAX.isdisjoint(words)", "return False", "rewriting/test_html",
    ),
    Mutant(
        "nor does a ping",
        "html.py", "ping is not None and is_told and self._scope.has_id(text)", "False",
        "rewriting/test_html",
    ),
    Mutant(
        "where a page is not rewritten, its policy is noticed",
        "leaks.py", "_SAYS_LAX.search(page) is not None", "False", "test_links",
    ),
    Mutant(
        "plain markup becomes what it becomes tag by tag: a form that others may name waits",
        "plain.py", '_attributes_but("action", "method", "id")',
        '_attributes_but("action", "method")', "rewriting/test_html",
    ),
    Mutant(
        "and a base behind plain links is looked at",
        "html.py", 'place, new = found.end("first"), self._first\n                self._relied = '
        "self._scope.base\n", 'place, new = found.end("first"), self._first\n',
        "rewriting/test_html",
    ),
]  # fmt: skip


def first_failure(mutant: Mutant) -> str | None:
    """Return the first test that fails with *mutant*, or None if all pass."""
    with tempfile.TemporaryDirectory(prefix="nocookie-mutant-") as folder:
        copy = Path(folder) / "nocookie"
        shutil.copytree(PACKAGE, copy)
        file = copy / mutant.file
        source = file.read_text()
        if source.count(mutant.old) != 1:
            sys.exit(f"{mutant.promise}: {mutant.file} has changed; this mutant must follow")
        file.write_text(source.replace(mutant.old, mutant.new))
        names = [name if name.endswith(".py") else f"{name}.py" for name in mutant.tests.split()]
        ran = subprocess.run(
            [
                *(
                    sys.executable,
                    "-P",
                    "-m",
                    "pytest",
                    "-x",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "--tb=no",
                ),
                *("-o", "faulthandler_timeout=60", *(str(TESTS / name) for name in names)),
            ],
            cwd=TESTS.parent,
            env={**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
    if ran.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) \S*?(\w+\.py\S*)", ran.stdout, re.MULTILINE)
    return found.group(1) if found else ran.stdout[-300:] + ran.stderr[-300:]


def main(words: list[str]) -> int:
    alive = 0
    for mutant in MUTANTS:
        if words and not any(word in mutant.promise for word in words):
            continue
        failure = first_failure(mutant)
        alive += failure is None
        print(f"{mutant.promise}: {failure or 'NOBODY NOTICED'}", flush=True)
    print(f"{alive} of {len(MUTANTS)} mutants live")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
