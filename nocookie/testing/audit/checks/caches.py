"""A cache between visitors and the application, that keeps what it may: REQ-25."""

from __future__ import annotations

from nocookie.testing.audit.auditor import Auditor
from nocookie.testing.audit.client import Answer
from nocookie.testing.audit.requirements import Failed, check

__all__ = ["nothing_shared"]


@check(25)
def nothing_shared(audit: Auditor) -> str:
    pages = [name for name in ("get", "page") if audit.has(name)]
    # The first answer that gives out an id: the next visitor must not get it from the cache.
    fresh = audit.visitor()
    answer = fresh.ask("set", k="k", v="v")
    if fresh.id is not None and _may_keep(answer):
        raise Failed("/set gave out an id, and a shared cache may keep the answer")
    if audit.has("rotate"):
        answer = fresh.ask("rotate")
        if audit.told(answer) is not None and _may_keep(answer):
            raise Failed("/rotate gave out an id, and a shared cache may keep the answer")
    for name in pages:
        (one, _), (two, _) = audit.known(), audit.known()
        answer = one.ask(name)
        if answer.status >= 400 or not _may_keep(answer):
            continue
        if audit.target.in_url:
            raise Failed(f"a shared cache may keep /{name} under a URL that holds an id")
        if _may_reuse(audit, answer):
            who = "without an id" if two.id is None else "with another id"
            raise Failed(f"a shared cache may give /{name} of one visitor to one {who}")
    return f"{', '.join('/' + name for name in ['set', *pages])}: nothing a cache may share"


def _directives(answer: Answer) -> set[str]:
    value = answer.header("Cache-Control") or ""
    return {word.partition("=")[0].strip().lower() for word in value.split(",")}


def _may_keep(answer: Answer) -> bool:
    """Whether a shared cache may store the answer (RFC 9111, section 3): by heuristics it may
    keep any that does not forbid it."""
    return not {"no-store", "private"} & _directives(answer)


def _may_reuse(audit: Auditor, answer: Answer) -> bool:
    """Whether it may answer a request with another id from it (section 4.1)."""
    vary = {name.strip().lower() for name in (answer.header("Vary") or "").split(",")}
    header = {
        "header": audit.target.name.lower(),
        "bearer": "authorization",
        "cookie": "cookie",
    }[audit.target.kind]
    if header == "authorization" and not _directives(answer) & {"public", "s-maxage"}:
        return False  # section 3.5
    return not vary & {header, "*"}
