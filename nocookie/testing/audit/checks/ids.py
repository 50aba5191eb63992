"""What an id is, and what is not one: REQ-01 to REQ-05, 29, 30, 32, 33, 50."""

from __future__ import annotations

import math
import random
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Final

from nocookie.testing.audit.auditor import Auditor, marker_text
from nocookie.testing.audit.client import Answer, NoAnswer
from nocookie.testing.audit.requirements import Failed, NotApplicable, check

__all__ = [
    "dumped",
    "entropy",
    "gated",
    "junk_is_contained",
    "like",
    "no_injection",
    "not_stored",
    "one_source",
    "one_spelling",
    "safe_texts",
    "sealed_token",
    "strict",
    "unpredictable",
]

#: What ASVS 5.0, 7.2.3, asks; one bit is left to the error of the estimate.
BITS: Final = 128
ERROR: Final = 1.0


@check(1)
def unpredictable(audit: Auditor) -> str:
    count = audit.target.ids
    crews = audit.target.threads
    each = max(1, count // crews)

    def collect() -> list[str]:
        return [_new_id(audit) for _ in range(each)]

    sequences = audit.at_once([collect] * crews)
    ids = [id for sequence in sequences for id in sequence]
    if len(set(ids)) != len(ids):
        raise Failed(f"{len(ids) - len(set(ids))} of {len(ids)} ids came twice")
    lengths = Counter(map(len, ids))
    if len(lengths) > 1:
        raise Failed(f"ids of {len(lengths)} lengths: {sorted(lengths)}")
    ascending = [a < b for ids in sequences for a, b in pairwise(ids)]
    # Of random neighbours half ascend; six standard deviations are beyond bad luck.
    if ascending and abs(sum(ascending) - len(ascending) / 2) > 6 * math.sqrt(len(ascending) / 12):
        raise Failed(f"the ids are in order: {sum(ascending)} of {len(ascending)} ascend")
    bits = entropy(ids)
    if bits < BITS - ERROR:
        raise Failed(f"{len(ids)} ids have about {bits:.0f} random bits, less than {BITS}")
    alphabet = len(set("".join(ids)))
    return (
        f"{len(ids)} ids, all different, each of {len(ids[0])} characters out of {alphabet}: "
        f"about {bits:.0f} random bits"
    )


def _new_id(audit: Auditor) -> str:
    visitor = audit.visitor()
    visitor.store("k", "v")
    assert visitor.id is not None
    return visitor.id


def entropy(ids: Sequence[str]) -> float:
    """Return how many bits the characters of equally long ids have, place by place: an upper
    bound of what is random in them. (Miller and Madow's estimate.)"""
    bits = 0.0
    for column in zip(*ids, strict=True):
        counts = Counter(column).values()
        total = len(column)
        plain = -sum(count / total * math.log2(count / total) for count in counts)
        bits += plain + (len(counts) - 1) / (2 * total * math.log(2))
    return bits


@check(2)
def strict(audit: Auditor) -> str:
    ended = []
    if audit.has("logout"):
        visitor, _ = audit.known()
        assert visitor.id is not None
        ended.append(visitor.id)
        visitor.ask("logout")
    forged = [like(_new_id(audit)) for _ in range(3)]
    for id in ["a" * 32, *forged, *ended]:
        what = "an ended id" if id in ended else f"an id of {len(id)} characters that we made up"
        marker = marker_text()
        answer = audit.ask("set", id, k="k", v=marker)
        if answer.status >= 500:
            raise Failed(f"{what}: /set answered {answer.status}")
        if audit.told(answer) == id or audit.shows(id, marker):
            raise Failed(f"{what} was adopted")
    return f"{3 + 1 + len(ended)} ids were refused: made up ones" + (
        " and an ended one" if ended else ""
    )


def like(id: str) -> str:
    """Return a text of the form of *id* that nobody issued: other letters, other digits."""
    kinds = ["0123456789", "abcdef", "ABCDEF"]
    if not re.fullmatch(r"[0-9a-fA-F-]+", id):
        kinds = ["0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    by_kind = {letter: kind for kind in kinds for letter in kind}
    # Not the last one: in base64 it may not be free.
    return "".join(
        secrets.choice(by_kind[c]) if c in by_kind and at < len(id) - 1 else c
        for at, c in enumerate(id)
    )


#: A word that is in no page by itself, inside of what a client sends.
WORD: Final = "xq7echo7qx"

#: What a client may send in the place of an id.
JUNK: Final[Sequence[str]] = (
    *("", " ", ".", "..", "/", "\\", "*", "%", "%00", "\x00", "\x7f", "'", '"', ";", ",", "="),
    *("\u00e9", "\u212a", "\U0001f36a", "\udcff\udcfe", "null", "None", "undefined", "0", "-1"),
    *(f"../../{WORD}", f"{WORD}\x00", f"{WORD}\r\nX-Injected: 1", f"{WORD}\nX-Injected: 1"),
    *(f"<script>{WORD}</script>", f'"><img src={WORD}>', f"'; DROP TABLE {WORD}; --"),
    *(f"%0d%0aX-Injected: {WORD}", f"${{{WORD}}}", f"{{{{{WORD}}}}}", f"{WORD} {WORD}"),
    *(WORD * 30, WORD * 10_000),
)

#: Longer requests are refused by servers before an application sees them, and some hang up.
SERVER_LIMIT: Final = 4000


@check(3)
def gated(audit: Auditor) -> str:
    calls = audit.target.store_calls
    before = calls() if calls else 0
    for junk in JUNK:
        for name in ("get", "set"):
            if name == "set" and calls:
                continue  # it creates a session, which is a call
            answer = _send_junk(audit, name, junk)
            if answer is None or answer.status in (400, 404, 405, 413, 414, 431):
                continue  # refused by the server, before the application, which may show it
            if answer.status >= 500:
                raise Failed(f"{_shown(junk)}: /{name} answered {answer.status}")
            told = audit.told(answer)
            if told is not None and told == junk:
                raise Failed(f"{_shown(junk)} was adopted")
            if WORD in junk and (WORD in answer.head or WORD in answer.text):
                raise Failed(f"{_shown(junk)} came back in the answer")
    if calls and calls() != before:
        raise Failed(f"{len(JUNK)} texts that are no ids cost {calls() - before} store calls")
    return f"{len(JUNK)} texts in the place of an id: no error, no echo" + (
        ", no store call" if calls else ""
    )


def _send_junk(audit: Auditor, name: str, junk: str) -> Answer | None:
    """Ask an endpoint with what is no id; None if the server hung up on what it may hang up on."""
    values: dict[str, Any] = {"k": "k", "v": "v"} if name == "set" else {}
    if not audit.target.in_url:
        # What ends a line begins the next one: that is another request, not another id.
        junk = junk.replace("\r", "").replace("\n", "")
    try:
        return audit.ask(name, junk, **values)
    except NoAnswer as error:
        if len(junk) > SERVER_LIMIT or not junk.isprintable():
            return None
        raise Failed(f"{_shown(junk)}: {error}") from error


def _shown(text: str) -> str:
    return ascii(text[:40]) + ("..." if len(text) > 40 else "")


#: What is no part of an id where it stands: the ends of cookies and of segments.
_SYNTAX: Final = {"cookie": set('";'), "path": set("/")}


@check(4)
def one_spelling(audit: Auditor) -> str:
    visitor, marker = audit.known()
    id = visitor.id
    assert id is not None
    tried = 0
    for other in _spellings(id):
        if set(other) & _SYNTAX.get(audit.target.kind, set()):
            continue
        tried += 1
        try:
            answer = audit.ask("get", other)
        except NoAnswer:
            continue
        if answer.status < 400 and marker in answer.text:
            raise Failed(f"another spelling of {id} opened its session ({_difference(id, other)})")
    return f"{tried} other spellings of an id opened nothing"


def _spellings(id: str) -> Iterator[str]:
    changed = {id.swapcase(), id.upper(), id.lower(), id[::-1], id[:-1], id + "A", id + "=", id * 2}
    changed |= {
        f"{id}.",
        f".{id}",
        f"../x/{id}",
        f"./{id}",
        f"{id}/",
        f"/{id}",
        f"{id[:5]}.{id[5:]}",
    }
    changed |= {f"{id}\x00", f"{id[:5]}\x00{id[5:]}", f"{id};", f'"{id}"', f"{id},", f"-{id}"}
    changed |= {f"%{ord(id[0]):02X}{id[1:]}", "".join(f"%{ord(c):02x}" for c in id)}
    changed.add("".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in id))
    # Of the last character of base64, some bits count for nothing.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    changed |= {id[:-1] + c for c in alphabet}
    yield from sorted(changed - {id})


def _difference(id: str, other: str) -> str:
    if other.lower() == id.lower():
        return "upper and lower case"
    if len(other) == len(id):
        return "other characters"
    return f"{len(other) - len(id):+} characters"


@check(5)
def not_stored(audit: Auditor) -> str:
    visitor, marker = audit.known()
    dump = audit.hook("store_dump", "where the store's bytes lie")
    stored = dumped(dump())
    found = audit.traces(stored)
    if found:
        raise Failed(f"the store holds {found} of the {len(audit.issued)} ids that were issued")
    keys = sorted(set(re.findall(r"[0-9a-fA-F]{32,128}|[A-Za-z0-9_-]{20,64}", stored)))
    keys = random.Random(1).sample(keys, min(len(keys), 200))  # noqa: S311 - nothing is secret
    for key in keys:
        answer = audit.ask("get", key)
        if answer.status < 400 and marker in answer.text:
            raise Failed("what the store calls a session opens it, sent as an id")
    assert visitor.id is not None
    return (
        f"{len(audit.issued)} ids, none in the store; {len(keys)} words of the store open nothing"
    )


def dumped(dump: object) -> str:
    """Return what a hook gave, as text of the same length."""
    pieces = [dump] if isinstance(dump, bytes) else dump
    return b"\n".join(pieces).decode("latin-1")  # type: ignore[arg-type]


@check(29)
def safe_texts(audit: Auditor) -> str:
    ids = [_new_id(audit) for _ in range(5)]
    for id in ids:
        if not re.fullmatch(r"[A-Za-z0-9._~-]+", id):
            raise Failed("an id has characters that URLs or markup would have to escape")
    pages = [name for name in ("get", "page") if audit.has(name)]
    for junk in JUNK:
        if "<" not in junk:
            continue
        for name in pages:
            answer = _send_junk(audit, name, junk)
            if answer is not None and junk in answer.text:
                raise Failed(f"/{name} repeated {_shown(junk)} as markup")
    return "ids need no escaping anywhere, and markup sent as an id was not repeated"


@check(30)
def no_injection(audit: Auditor) -> str:
    """CR, LF and NUL, in every place whose text an application may put into a header."""
    ends = ("\r\n", "\n", "\r", "\x00\r\n", "\u560d\u560a")  # the last: cut to bytes, CR LF
    places = [
        *([] if not audit.target.in_url else [("get", "")]),
        *[
            (name, field)
            for name, field in (("set", "v"), ("set", "k"), ("go", "to"), ("login", "user"))
            if (endpoint := audit.target.endpoint(name)) is not None and endpoint.takes(field)
        ],
    ]
    sent = 0
    for end in ends:
        text = f"/x{end}X-Injected: 1{end}Set-Cookie: injected=1"
        for name, field in places:
            values: dict[str, Any] = {"k": "k", "v": "v"} if name == "set" else {}
            if field:
                values[field] = text
            try:
                answer = audit.ask(name, *([] if field else [text]), **values)
            except NoAnswer:
                continue
            sent += 1
            _look_for_injection(answer, f"/{name}")
    if audit.target.kind in ("header", "bearer", "cookie"):
        for end in ("\n", "\r", "\x00", "\r\n\t", "\x0b", "\x0c", "\u2028"):
            try:
                answer = audit.ask("set", f"x{end}X-Injected: 1", k="k", v="v")
            except NoAnswer:
                continue
            sent += 1
            _look_for_injection(answer, "/set")
    return f"{sent} requests with ends of lines in their texts put no header into an answer"


def _look_for_injection(answer: Answer, where: str) -> None:
    cookies = answer.header("Set-Cookie") or ""
    if answer.header("X-Injected") is not None or "injected=1" in cookies.split(";")[0]:
        raise Failed(f"{where} let a client write a header of the answer")
    if re.search(r"[\r\n\x00]", "".join(value for _, value in answer.headers)):
        raise Failed(f"{where} answered with a control character in a header")


@check(32)
def one_source(audit: Auditor) -> str:
    """Two different ids, and ids where nobody was told to look."""
    (one, first), (two, second) = audit.known(), audit.known()
    assert one.id is not None
    assert two.id is not None
    for ids in ((one.id, two.id), (two.id, one.id)):
        answer = audit.ask("get", *ids)
        if answer.status < 400 and (first in answer.text or second in answer.text):
            raise Failed("a request with two different ids got one of the sessions")
    if audit.target.kind != "cookie":
        names = (audit.target.name, "sid", "session", "sessionid", "beaker.session.id", "PHPSESSID")
        for name in filter(None, names):
            answer = audit.ask("get", headers=[("Cookie", f"{name}={one.id}")])
            if answer.status < 400 and first in answer.text:
                raise Failed("the id was read from a cookie, where nobody said it would be")
    seen = "two ids in one request opened neither session"
    return seen if audit.target.kind == "cookie" else f"{seen}; an id in a cookie was not read"


@check(33)
def junk_is_contained(audit: Auditor) -> str:
    """Bytes that are no text, in the place of the id, and the next request."""
    visitor, marker = audit.known()
    junk = ["\udcff\udcfe", "\udcc3", "\udc80" * 50, "\udced\udca0\udc80", "%ff%fe", "%", "%c0%af"]
    for text in junk:
        try:
            answer = audit.ask("get", text, raw=True)
        except NoAnswer:
            continue
        if answer.status >= 500:
            raise Failed(f"{_shown(text)} in the place of the id: {answer.status}")
    if not visitor.sees(marker):
        raise Failed("after junk from one client, another lost its session")
    return f"{len(junk)} kinds of broken bytes in the place of the id were no error"


@check(50)
def sealed_token(audit: Auditor) -> str:
    if not audit.target.stateless:
        raise NotApplicable("the id is a reference to a session, not the session")
    visitor, marker = audit.known()
    id = visitor.id
    assert id is not None
    places = range(0, len(id) - 1, max(1, len(id) // 150))
    flipped = [f"{id[:at]}{'B' if id[at] == 'A' else 'A'}{id[at + 1 :]}" for at in places]
    cut = [id[:at] for at in range(1, len(id), max(1, len(id) // 30))]
    opened = audit.at_once([partial(audit.shows, text, marker) for text in flipped + cut])
    if any(opened):
        raise Failed(f"{sum(opened)} tokens that were changed still opened the session")
    return f"{len(flipped)} changed and {len(cut)} cut tokens opened nothing"
