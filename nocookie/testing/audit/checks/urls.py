"""Ids in URLs, links, redirects and forms: REQ-24, 26 to 28, 31, 34."""

from __future__ import annotations

from typing import Final

from nocookie.testing.audit.auditor import Auditor, fields_of, links_of
from nocookie.testing.audit.client import NoAnswer
from nocookie.testing.audit.elsewhere import leads_elsewhere, ways_elsewhere
from nocookie.testing.audit.requirements import Failed, NotApplicable, check

__all__ = ["links_stay", "masked", "no_permission", "no_referrer", "one_path", "redirects_stay"]

#: Referrer policies (W3C) under which another origin sees no path and no query.
_STRICT: Final = frozenset({"no-referrer", "same-origin"})


def _only_in_urls(audit: Auditor) -> None:
    if not audit.target.in_url:
        raise NotApplicable(f"the id is not in URLs: {audit.target.carrier}")


@check(24)
def masked(audit: Auditor) -> str:
    _only_in_urls(audit)
    log = audit.hook("access_log", "what the server logs of requests")
    # Ids where they belong: of what an attacker writes elsewhere, nobody knows what it is.
    ids = set()
    for _ in range(5):
        visitor, _ = audit.known()
        for name in ("get", "page", "rotate", "boom", "login", "logout"):
            if audit.has(name):
                ids.add(visitor.id or "")
                visitor.ask(name, k="k", user="ada")
    text = log()
    if not text.strip():
        raise Failed("the access log is empty: it is not the log of these requests")
    found = audit.traces(text, ids)
    if found:
        raise Failed(f"{found} of {len(ids)} ids are in the access log")
    return f"{len(ids)} ids, none in the access log"


@check(26)
def no_referrer(audit: Auditor) -> str:
    _only_in_urls(audit)
    visitor, _ = audit.known()
    names = [name for name in ("page", "get") if audit.has(name)]
    for name in names:
        answer = visitor.ask(name)
        # The last one that a browser knows counts.
        policy = (answer.header("Referrer-Policy") or "").rpartition(",")[2].strip().lower()
        if policy not in _STRICT:
            raise Failed(f"/{name} with an id in its URL has Referrer-Policy: {policy or 'none'}")
    return f"{' and '.join('/' + name for name in names)} tell other origins nothing of their URL"


@check(27)
def links_stay(audit: Auditor) -> str:
    audit.need("page")
    visitor, _ = audit.known()
    id = visitor.id
    assert id is not None
    answer = visitor.ask("page")
    here = f"{audit.client.origin}{audit.client.mount}/page"
    links = links_of(answer)
    if not links:
        raise NotApplicable("needs a /page of HTML with links")
    away = [url for url in links if leads_elsewhere(url, here)]
    for url in away:
        if id in url:
            raise Failed(f"the id is on a link that leads elsewhere: {url.replace(id, '<id>')!r}")
    for action, value in fields_of(answer):
        if id in value and leads_elsewhere(action, here):
            raise Failed(f"the id is in a form that is sent elsewhere: {action!r}")
    ours = sum(id in url for url in links)
    return f"{len(away)} links that lead elsewhere are without the id; {ours} of ours have it"


@check(28)
def redirects_stay(audit: Auditor) -> str:
    audit.need("go")
    visitor, _ = audit.known()
    id = visitor.id
    assert id is not None
    here = f"{audit.client.origin}{audit.client.mount}/go"
    inside = visitor.ask("go", to=f"{audit.client.mount}/get")
    if not 300 <= inside.status < 400 or leads_elsewhere(inside.header("Location") or "", here):
        raise Failed(f"a redirect to our own /get was answered with {inside.status}")
    tried = 0
    for url in ways_elsewhere(here):
        tried += 1
        answer = visitor.ask("go", to=url)
        to = answer.header("Location")
        if answer.status >= 500:
            raise Failed(f"to={url!r} was answered with {answer.status}")
        if to is None or not leads_elsewhere(to, here):
            continue
        if id in to:
            raise Failed(f"to={url!r}: the redirect took the id to another origin")
        raise Failed(f"to={url!r}: redirected to another origin")
    return f"{tried} ways to other origins were refused"


@check(31)
def no_permission(audit: Auditor) -> str:
    if audit.target.kind in ("header", "bearer"):
        raise NotApplicable("no other site can set this header without being asked by CORS")
    audit.need("token")
    endpoint = audit.need("guarded")
    if not endpoint.takes("token"):
        raise NotApplicable("the endpoint /guarded has no field {token}")
    visitor, _ = audit.known()
    token = visitor.ask("token").text.strip()
    id = visitor.id
    assert id is not None
    if not token or token in id or id in token:
        raise Failed("the token is the id, or holds it")
    other, _ = audit.known()
    foreign = other.ask("token").text.strip()
    for wrong, what in (("", "no token"), (id, "the id for a token"), (foreign, "another's token")):
        answer = audit.ask("guarded", id, token=wrong)
        if answer.status < 400:
            raise Failed(f"a request with {what} was answered with {answer.status}")
    answer = audit.ask("guarded", id, token=token)
    if answer.status >= 400:
        raise Failed(f"a request with its token was answered with {answer.status}")
    return "a request with the id alone was refused; with the session's token it was not"


@check(34)
def one_path(audit: Auditor) -> str:
    if audit.target.kind != "path":
        raise NotApplicable(f"the id is not in the path: {audit.target.carrier}")
    visitor, marker = audit.known()
    id = visitor.id
    assert id is not None
    segment = f"/{audit.target.name}{id}"
    # None of these is the path of a page under the id, however a server may normalise it.
    odd = {
        "the id twice": f"{segment}{segment}/get",
        "a segment before it": f"/x{segment}/get",
        "two dots after it": f"{segment}/../get",
        "dots in percents after it": f"{segment}/%2e%2e/get",
        "a slash in percents twice": f"{segment}%252fget",
        "percents twice": f"/{''.join(f'%25{ord(c):02X}' for c in segment[1:])}/get",
        "a parameter": f"/;x{segment[1:]}/get",
    }
    opened = [what for what, path in odd.items() if _reaches(audit, path, marker)]
    if opened:
        raise Failed(f"other spellings of the path opened the session: {', '.join(opened)}")
    if not audit.has("admin"):
        return f"{len(odd)} other spellings of the path opened nothing"
    admin = audit.need("admin").path
    # What a server may make the same path of, a guard must know for the same path.
    encoded = "/" + "".join(f"%{ord(c):02X}" for c in segment[1:])
    fronts = ("", segment, f"/{segment}", segment * 2, encoded, f"/x/..{segment}", f"{segment}/.")
    forbidden = [
        f"{front}{path}" for front in fronts for path in (admin, f"/{admin}", f"/.{admin}")
    ]
    forbidden += [f"{segment}{admin.replace('/', '%2f', 1)}", f"{segment}/x/..{admin}"]
    for path in forbidden:
        if _reaches(audit, path, ""):
            raise Failed(f"another spelling of its path got past the guard of {admin}")
    return f"{len(odd)} other spellings opened nothing; {len(forbidden)} did not reach {admin}"


def _reaches(audit: Auditor, path: str, marker: str) -> bool:
    try:
        answer = audit.client.send(
            "GET", audit.client.mount + path, list(audit.target.headers.items())
        )
    except NoAnswer:
        return False
    if answer.status >= 500:
        raise Failed(f"a path was answered with {answer.status}")
    return answer.status < 300 and marker in answer.text
