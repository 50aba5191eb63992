"""Break the code on purpose, one promise at a time, and see which test notices: `make mutants`.

    python tests/mutants.py [-j N] [WORD ...]

Each mutant is a change of one named piece of the library; `mutation` says what an address is and
what the operators do. The test files that should notice are run until the first failure, with a
copy of the package that has the change put before the installed one, N mutants at a time (as many
as there are processors). Prints the test that failed, and fails itself if a mutant lives. Not part
of the suite, as it runs a good part of it a hundred times; test_mutants.py is, and sees that every
address leads somewhere. A WORD selects the mutants with it in their promise.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mutation import (
    PACKAGE,
    Operator,
    always,
    apart,
    body,
    call,
    catches,
    condition,
    constant,
    direct,
    drop,
    expression,
    instead,
    keyword,
    mutated,
    never,
    no_with,
    once,
    preceded,
    returns,
    text,
    unwrapped,
    value,
    without_argument,
)

TESTS = Path(__file__).resolve().parent
#: Seconds for the tests of one mutant. One that makes them hang has been noticed.
PATIENCE = 900
#: How often they are run, if the test that failed is not sure of it.
TRIES = 3


class Mutant(NamedTuple):
    promise: str
    name: str
    operator: Operator
    #: The files, without their ending, whose tests should notice.
    tests: str
    module: str = ""

    def source(self) -> str:
        """Return the module with the change. Raises `NoSuchPlace`."""
        return mutated(self.module, self.name, self.operator)


def of(module: str, *mutants: Mutant) -> list[Mutant]:
    return [mutant._replace(module=module) for mutant in mutants]


MUTANTS = [
    *of(
        "manager.py",
        Mutant("a 304 tells no id", "SessionManager.commit", never("304"), "test_methods"),
        Mutant(
            "a finder that raises costs the id and no more",
            "SessionManager.find", catches("KeyError", "Exception"), "test_flow",
        ),
        Mutant(
            "a known id goes back by the carrier that brought it",
            "SessionManager._placed", always("brought_by"), "test_flow",
        ),
        Mutant("a response with an id is not cached", "_keep_in", drop("no-store"), "test_flow"),
        Mutant(
            "Vary names the header that was consulted",
            "SessionManager.commit", drop("add_word"), "test_flow",
        ),
        Mutant(
            "the referrer policy is strict with a URL carrier",
            "_keep_in", drop("same-origin"), "test_flow",
        ),
        Mutant(
            "headers with control characters are refused by us",
            "SessionManager._tell", never("\r"), "test_flow",
        ),
        Mutant(
            "no id over plain HTTP", "SessionManager.find", never("is_insecure"),
            "test_refusals",
        ),
        Mutant(
            "a warning of a secret is said once",
            "_warn_of_weak_secrets", always("_said"), "test_strength",
        ),
        Mutant(
            "a cookie in a list has the attributes that are configured",
            "_carriers", without_argument("carriers_from", 1), "test_cookies",
        ),
        Mutant(
            "the id of a session after a logout stays where the visitor is sent",
            "SessionManager._propagate", always("tell", near=("_ended", "_strip")), "test_logins",
        ),
    ),
    *of(
        "carriers.py",
        Mutant(
            "a segment counts as it was sent, and the first one only",
            "PathSegment._was_sent", always("is_mounted_at"), "test_url_carriers",
        ),
        Mutant(
            "no segment is taken off a path with a control character",
            "PathSegment.prepare", never("_control"), "test_request",
        ),
        Mutant(
            "several ids in one carrier count as none",
            "_only", drop("AmbiguousId"), "test_flow test_state_table",
        ),
    ),
    *of(
        "ids.py",
        Mutant(
            "an id that the store does not know is not adopted",
            "RandomIds.adopts", value("True"), "test_recipe test_state_table",
        ),
        Mutant(
            "the grammar comes before everything",
            "RandomIds._key", never("_matches"), "test_hostile_ids test_ids",
        ),
        Mutant(
            "a forged id is refused without a trip",
            "SignedIds._key", always("compare_digest"),
            "test_hostile_ids test_state_table",
        ),
        Mutant(
            "the store sees a hash and not the id",
            "_store_key", returns("id"), "test_ids test_hostile_ids",
        ),
    ),
    *of(
        "middleware.py",
        Mutant(
            "the commit comes before the head",
            "_Exchange._commit",
            preceded("self._start_response(self._status, self._headers)", "commit"),
            "test_flow test_failures",
        ),
        Mutant(
            "nothing is left behind in the thread",
            "SessionMiddleware.__call__", direct("run"), "test_isolation",
        ),
        Mutant(
            "a stream runs in the context of its own request",
            "_Body.__next__", direct("_run"), "test_isolation",
        ),
        Mutant("a request leaves no cycle", "_Exchange._let_go", body("pass"), "test_isolation"),
        Mutant(
            "a store that fails is 503",
            "SessionMiddleware._respond", catches("SessionConflict", "ANSWERED"), "test_failures",
        ),
        Mutant(
            "a 500 that a framework made of our error is ours again",
            "_Exchange._commit", never("500"), "test_failures",
        ),
        Mutant(
            "after a failure nothing is saved any more",
            "_Exchange._give_up", drop("_sess"), "test_failures test_flow",
        ),
        Mutant(
            "a request runs in one context", "SessionMiddleware._respond",
            returns("_Body(body, exchange, environ, copy_context())", "_Body"), "test_flow",
        ),
        Mutant("a late save is written", "_Exchange._finish", drop("_finish_late"), "test_flow"),
        Mutant(
            "a late save is written though nobody calls close()",
            "_Body._step", drop("_finish"), "test_flow",
        ),
        Mutant(
            "what a socket's handler saved is written",
            "SessionMiddleware._respond", never("_is_upgrade"), "test_flow",
        ),
        Mutant(
            "a nested middleware is one session",
            "SessionMiddleware._respond", never("is_bound"), "test_flow",
        ),
        Mutant(
            "a shared header list is never changed",
            "_Exchange._commit", unwrapped("list"), "test_flow",
        ),
    ),
    *of(
        "sessions.py",
        Mutant(
            "a save sends the difference only",
            "Session._checked_delta", always("_differs"), "test_session test_state_machine",
        ),
        Mutant(
            "containers changed in place are noticed",
            "Session._checked_delta", never("_COMPARED"), "test_session",
        ),
        Mutant(
            "clear is part of the delta",
            "Session.clear", drop("_cleared"), "test_session test_state_machine",
        ),
        Mutant(
            "delete acts at once", "Session.delete", drop("_destroy"),
            "test_session test_state_table",
        ),
        Mutant(
            "a login takes a fresh id", "Session.login", drop("regenerate_id"), "test_logins",
        ),
        Mutant("a login leaves no trail", "Session._rotate", apart("_turning"), "test_rotation"),
        Mutant(
            "a logout with the old id ends the successor",
            "Session._destroy", always("Moved"), "test_rotation",
        ),
        Mutant(
            "a save with the old id follows a rotation",
            "Session._write_where_it_is", condition("True", "_catch_up"), "test_rotation",
        ),
        Mutant(
            "a rotation whose answer is lost is looked for", "Session._rotate", always("_is_done"),
            "stores/test_failing_calls",
        ),
        Mutant(
            "a session's own times count", "Session._times", always("timeout"), "test_logins",
        ),
        Mutant(
            "what expired is not revived", "Session._end_expired", drop("destroy"), "test_clocks",
        ),
        Mutant(
            "a record from the future is set right", "Session._accept", never("_AHEAD"),
            "test_clocks",
        ),
        Mutant(
            "nobody begins a session by a HEAD", "Session._write", always("_passive"),
            "test_refusals",
        ),
        Mutant(
            "nobody renews a session by a HEAD", "Session._touch", never("_passive"),
            "test_refusals",
        ),
        Mutant(
            "a prefetch begins no session by itself",
            "Session._saves_by_itself", never("_speculative"), "test_refusals",
        ),
        Mutant(
            "a prefetch changes no id", "Session._may_turn", always("_speculative"),
            "test_refusals",
        ),
        Mutant(
            "a session that is needed is not begun in silence",
            "Session._be_new", never("needs_session"), "test_refusals",
        ),
        Mutant(
            "the lifetime is decided on read",
            "Session._accept", never("created", "lifetime"), "test_session",
        ),
        Mutant(
            "a touch is due at times only", "Session._accept", always("touch_after"), "test_flow",
        ),
        Mutant(
            "incr is exact", "Session.mutate", keyword("expect", "None"),
            "test_session test_state_machine",
        ),
        Mutant(
            "sizes are refused before the store",
            "Session._encoded", never("max_value_size"), "test_session",
        ),
        Mutant(
            "what cannot be read is not said to be there",
            "Session._can_be_read", returns("True", "False"), "test_changed_keys",
        ),
        Mutant(
            "a session of a gateway that cannot be read is begun anew",
            "Session._can_join", never("_distrusted"), "test_changed_keys",
        ),
        Mutant(
            "names of keys are in the limits",
            "size_of", returns("sum(map(len, fields.values()))"), "test_refusals",
        ),
        Mutant(
            "a session with an id of Beaker's moves at its first use",
            "Session._load", never("is_beaker_id"), "test_beaker_ids",
        ),
        Mutant(
            "a HEAD with an id of Beaker's is told none of ours",
            "Session._load", always("_may_turn", near=("is_beaker_id",)), "test_beaker_ids",
        ),
        Mutant(
            "a session of Beaker's that is changed exactly moves all the same",
            "Session._rebase", never("_old", near=("_touch_due",)), "test_beaker_ids",
        ),
        Mutant(
            "requests that come at once with an id of Beaker's tell the same new one",
            "Session._catch_up",
            condition('self._backend.rotate_every == float("inf")', "leaves_trails"),
            "test_beaker_ids",
        ),
        Mutant(
            "a cookie is not renewed with an id that another request has replaced",
            "Session._renew_where_it_is", drop("_last_accessed"), "test_cookies",
        ),
    ),
    *of(
        "links.py",
        Mutant(
            "an id that is none of ours is put on no link",
            "can_be_told", always("_grammar"), "test_request",
        ),
    ),
    *of(
        "request.py",
        Mutant(
            "a proxy is believed only if it is trusted",
            "Request.came_by_https", always("_is_in"), "test_refusals",
        ),
        Mutant(
            "what either header of a proxy says of plain HTTP counts",
            "Request.came_by_https", returns('"https" in said', "said"), "test_request",
        ),
        Mutant(
            "the scheme of a link is that of the client, not of the last hop",
            "Request.scheme", never("came_by_https"), "test_proxies",
        ),
        Mutant(
            "where HTTPS is required no link is plain HTTP",
            "Request.may_tell", returns("True"), "test_proxies",
        ),
        Mutant(
            "a layer inside may put back the prefix that a proxy took off",
            "Request._root", condition("True", "root", "given_root"), "test_proxies",
        ),
        Mutant(
            "what a query says is no path",
            "Request.sent_path", constant("?", "\0"), "test_url_carriers",
        ),
        Mutant(
            "an id in another spelling is hidden",
            "Request.hide_ids", never("masked", "path"), "test_request",
        ),
    ),
    *of(
        "sealing.py",
        Mutant(
            "a record belongs under its key",
            "Sealer.open_record", always("compare_digest"), "test_session test_sealing",
        ),
        Mutant(
            "a value belongs to its field and session",
            "_bound", returns('b""'), "test_session test_sealing",
        ),
        Mutant(
            "each session is encrypted with a key of its own",
            "Sealer.__init__", returns("AESGCM(key)", "_expand"), "test_sealing",
        ),
    ),
    *of(
        "options.py",
        Mutant(
            "pickles need a secret", "agree", never("pickle"), "test_construction test_options",
        ),
        Mutant(
            "the text False is false",
            "_bool", returns("True", near=("_FALSE",)), "test_recipe test_options",
        ),
    ),
    *of(
        "codecs.py",
        Mutant(
            "values come back exactly as they were",
            "_TAGS", constant("!tuple", "!list"), "test_codecs test_session",
        ),
    ),
    *of(
        "stores/memory.py",
        Mutant(
            "a login begins the lifetime anew",
            "MemoryStore.rotate", always("owner", near=("created", "owner")), "test_logins",
        ),
        Mutant(
            "robots end no session that has an owner",
            "MemoryStore._make_room", condition("records", "_ownerless"), "stores/test_memory",
        ),
        Mutant(
            "a save never brings a record into being (memory)",
            "MemoryStore._alive",
            instead("return Record({}, now, now, now, 0)", "SessionGone"),
            "stores/test_memory test_session",
        ),
    ),
    *of(
        "stores/file.py",
        Mutant(
            "a save never revives what expired (file)",
            "SAVE", text("expires > ?", "? > 0"), "stores/test_file",
        ),
        Mutant(
            "the trail of a rotation takes no save (file)",
            "SAVE", text(" AND version <> 0", ""), "stores/test_file",
        ),
        Mutant(
            "a rotation and its trail are one step (file)",
            "_Connection.execute_both", no_with("BEGIN"), "stores/test_file",
        ),
        Mutant("a read makes no file", "FileStore._open", never("create"), "stores/test_file"),
    ),
    *of(
        "forks.py",
        Mutant(
            "what a fork inherits is not used",
            "ProcessLocal.here", returns("self._values[next(iter(self._values), 0)]", "_process"),
            "test_forks",
        ),
    ),
    *of(
        "stores/redis.py",
        Mutant(
            "a session that is destroyed while it is rotated does not live on (redis)",
            "RedisStore.rotate", never("done"), "stores/test_redis",
        ),
        Mutant(
            "who reads what is moving waits for its trail (redis)",
            "RedisStore._wait_for", always("MOVING"), "stores/test_redis",
        ),
        Mutant(
            "the end of all of an owner looks again (redis)",
            "RedisStore.end_owned", once("_entries"), "stores/test_redis",
        ),
    ),
    *of(
        "stores/redis_scripts.py",
        Mutant(
            "who ends a trail is told where it led, though an answer was lost (redis)",
            "DESTROY", text("return trail", "redis.call('UNLINK', key) return trail"),
            "stores/test_redis",
        ),
        Mutant(
            "the new key is in the index of its owner before the old one is buried (redis)",
            "BURY", text("if owned == 'o'", "if false"), "stores/test_redis",
        ),
        Mutant(
            "what is moving is ended where it was, too (redis)",
            "END", text("type(owner) ~= 'string'", "not living(key)"), "stores/test_redis",
        ),
        Mutant(
            "a key that is used again is not ended for its former owner (redis)",
            "END", text("~= ARGV[2]", "== nil"), "stores/test_redis",
        ),
        Mutant(
            "an entry of the index is not judged while its record may be about to come (redis)",
            "PRUNE", text("number(score) <= time", "true"), "stores/test_redis",
        ),
        Mutant(
            "the index of an owner reaches as far as what is renewed (redis)",
            "FUNCTIONS.outlives", text("owned == ''", "true"), "stores/test_redis",
        ),
        Mutant(
            "the index of an owner does not grow for ever (redis)",
            "ADD", text("old <= KEPT", "old"), "stores/test_redis",
        ),
        Mutant(
            "a session with a life of its own is not renewed by others' (redis)",
            "LOAD", text("== 1 then return fields", "== 2 then return fields"), "stores/test_redis",
        ),
    ),
    *of(
        "stores/memcached.py",
        Mutant(
            "a session that is destroyed while it is rotated does not live on (memcached)",
            "MemcachedStore._move", drop("delete_if"), "stores/test_memcached",
        ),
        Mutant(
            "who follows a trail early waits (memcached)",
            "MemcachedStore._wait_for", always("isinstance"), "stores/test_memcached",
        ),
    ),
    *of(
        "stores/memcached_wire.py",
        Mutant(
            "a destroy ends nothing but what it has seen (memcached)",
            "Connection.delete_if", expression('b"md %b\\r\\n" % name', "md"),
            "stores/test_memcached",
        ),
        Mutant(
            "an answer of memcached about another key is refused",
            "Connection._gets", never("name", "words"), "stores/test_memcached_wire",
        ),
        Mutant(
            "an answer of memcached with more behind it is refused",
            "Connection._ask", condition("answer.startswith(yes)", "yes"),
            "stores/test_memcached_wire",
        ),
    ),
    *of(
        "strength.py",
        Mutant(
            "a published secret is warned about",
            "weakness", call("get", "None", near=("_WHERE",)), "test_strength test_check",
        ),
    ),
    *of(
        "checking.py",
        Mutant(
            "a check shows nothing that may be a secret",
            "_Section._tell", always("is_harmless"), "test_check",
        ),
        Mutant("a check opens no store", "_Section._make", call("Nowhere", "store"), "test_check"),
    ),
    *of(
        "commands/make_config.py",
        Mutant(
            "an ini file for production is its owner's alone",
            "_write", constant(0o600, 0o666), "test_make_config",
        ),
    ),
    *of(
        "commands/end.py",
        Mutant("an operator is asked first", "command", never("isatty"), "test_commands"),
    ),
    *of(
        "beaker_ids.py",
        Mutant(
            "an id of Beaker's counts until its day",
            "BeakerIds._key", always("until"), "test_beaker_ids",
        ),
        Mutant(
            "Beaker's ids are what it can have issued",
            "_UUID4", value('r"[0-9a-f]{32}"'), "test_beaker_ids",
        ),
        Mutant(
            "an id in Beaker's cookie needs its signature",
            "unsigned", never("is_beaker_id"), "test_beaker_ids",
        ),
        Mutant(
            "the signature of Beaker's cookie is checked",
            "unsigned", never("compare_digest"), "test_beaker_ids",
        ),
    ),
    *of(
        "importing.py",
        Mutant(
            "what a client came with is not imported again",
            "Importer._import", never("mark_of"), "test_beaker_ids",
        ),
        Mutant(
            "an import overwrites no session that is newer",
            "Importer._import", never("accessed", "SAME"), "test_beaker_ids",
        ),
        Mutant(
            "what a client came with is not ended by the next import",
            "Importer._end", never("mark_of"), "test_beaker_ids",
        ),
        Mutant(
            "what was imported from elsewhere is not ended",
            "Importer._end", never("_place"), "stores/test_importing",
        ),
        Mutant(
            "what is being ended is empty for who comes then",
            "Importer._end", call("save", "int"), "test_beaker_ids",
        ),
        Mutant(
            "what Beaker has emptied is ended",
            "Importer._import", never("_ENDED"), "stores/test_importing",
        ),
        Mutant(
            "what expired here since the first import is imported again",
            "Importer._write", never("isinstance"), "stores/test_importing",
        ),
        Mutant(
            "an imported session ends when it would have ended",
            "Importer._write", drop("_at"), "stores/test_importing",
        ),
        Mutant(
            "what Beaker let expire is not imported",
            "Importer._is_over", never("_timeout"), "stores/test_importing",
        ),
    ),
    *of(
        "beaker_bounds.py",
        Mutant(
            "a pickle around a session makes no more than it may",
            "check_steps", never("LARGER"), "stores/test_importing",
        ),
        Mutant(
            "what is in many places counts as often",
            "check_extent", never("size"), "stores/test_importing",
        ),
        Mutant(
            "no more is inflated than can be stored",
            "inflated", call("decompress", "data"), "stores/test_importing",
        ),
    ),
    *of(
        "beaker_stores.py",
        Mutant(
            "what is around a session of Beaker's runs nothing",
            "_PlainUnpickler.find_class",
            body("return super().find_class(module, name)"),
            "stores/test_importing",
        ),
    ),
    *of(
        "owners.py",
        Mutant(
            "a session is ended for its owner alone",
            "end_one", call("owned", "store.keys()"), "test_logins",
        ),
    ),
    *of(
        "listing.py",
        Mutant(
            "an operator ends a session that moves past",
            "end_every", call("_end_until_none_is_left", "()"), "test_listing",
        ),
        Mutant(
            "a session of another secret is listed as unreadable",
            "contents", never("nonce"), "test_listing",
        ),
    ),
    *of(
        "html.py",
        Mutant(
            "a page's own policy tells other origins no URL with an id",
            "_is_lax", returns("False"), "rewriting/test_html",
        ),
        Mutant(
            "nor does a ping", "HtmlRewriter._on_link", never("has_id"), "rewriting/test_html",
        ),
        Mutant(
            "and a base behind plain links is looked at",
            "HtmlRewriter._in_plain_markup", drop("_relied"), "rewriting/test_html",
        ),
    ),
    *of(
        "leaks.py",
        Mutant(
            "where a page is not rewritten, its policy is noticed",
            "tells_others", returns("False"), "test_links",
        ),
    ),
    *of(
        "plain.py",
        Mutant(
            "plain markup becomes what it becomes tag by tag: a form that others may name waits",
            "_form", constant("id", "method"), "rewriting/test_html",
        ),
    ),
]  # fmt: skip


class Ran(NamedTuple):
    """What a run of tests came to: its status, the first test that failed, and what it said."""

    status: int
    failed: str | None
    said: str


def run(package: Path, tests: list[str]) -> Ran:
    """Run tests with the package that lies in a folder, until the first failure. Raises
    TimeoutExpired."""
    with tempfile.TemporaryDirectory(prefix="nocookie-ran-") as cache:
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "pytest", "-x", "-q", "--tb=short"),
                *("-o", "faulthandler_timeout=60", "-o", f"cache_dir={cache}", *tests),
            ],
            cwd=TESTS.parent,
            env={**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        said = done.stdout[-5000:] + done.stderr[-5000:]
        if done.returncode != 1:
            return Ran(done.returncode, None, said)
        [failed] = json.loads((Path(cache) / "v/cache/lastfailed").read_text())
    return Ran(1, failed, said)


def outcome(mutant: Mutant) -> tuple[bool, str]:
    """Return whether a test notices *mutant*, and which, or what else happened.

    That test fails again when it is run alone, and passes with the package as it is.
    """
    with tempfile.TemporaryDirectory(prefix="nocookie-mutant-") as folder:
        package = Path(folder)
        shutil.copytree(PACKAGE, package / "nocookie")
        (package / "nocookie" / mutant.module).write_text(mutant.source())
        said = ""
        for _ in range(TRIES):
            try:
                ran = run(package, [f"tests/{name}.py" for name in mutant.tests.split()])
                if ran.status == 0:
                    return False, "NOBODY NOTICED"
                if ran.failed is None:
                    return False, f"THE TESTS DID NOT RUN\n{ran.said}"
                again = run(package, [ran.failed])
            except subprocess.TimeoutExpired:
                return True, f"the tests did not end within {PATIENCE} s"
            if again.failed and run(PACKAGE.parent, [ran.failed]).status == 0:
                return True, ran.failed
            said += ran.said
    return False, f"NO TEST IS SURE\n{said}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("-j", type=int, default=os.cpu_count(), metavar="N", dest="jobs")
    arguments = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not arguments.words or any(word in mutant.promise for word in arguments.words)
    ]
    alive = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, (noticed, by) in zip(chosen, pool.map(outcome, chosen), strict=True):
            alive += not noticed
            print(f"{mutant.promise}: {by}", flush=True)
    print(f"{alive} of {len(chosen)} mutants live")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
