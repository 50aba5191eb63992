"""One audit under way: what every check needs."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

from nocookie.testing.audit.client import Answer, Client
from nocookie.testing.audit.elsewhere import leads_elsewhere
from nocookie.testing.audit.requirements import Failed, NotApplicable
from nocookie.testing.audit.target import Endpoint, Target

__all__ = ["WAIT", "Auditor", "Visitor", "cookies_of", "fields_of", "links_of", "marker_text"]

T = TypeVar("T")


class Auditor:
    """Makes the requests, remembers the ids that were issued, and keeps them out of evidence."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.client = Client(target.base, target.patience, target.origin)
        #: Every id that the application gave to us.
        self.issued: set[str] = set()
        #: Which endpoints answered 5xx with the id in the page.
        self.told_in_errors: set[str] = set()
        self._lock = threading.Lock()
        marker = re.escape(target.name)
        self._in_url = {
            "query": re.compile(rf"[?&]{marker}=([^&#;\"'<>\s]+)"),
            "path": re.compile(rf"/{marker}([^/?#\"'<>\s]+)"),
        }.get(target.kind)

    # -- requests

    def ask(
        self,
        name: str,
        *ids: str,
        raw: bool = False,
        method: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        only_head: bool = False,
        base: str | None = None,
        **values: Any,
    ) -> Answer:
        """Ask an endpoint, with these ids. With *raw* they are put into URLs without percents.
        Raises `NotApplicable` if the target has no such endpoint, `NoAnswer`."""
        endpoint = self.need(name)
        path, form = endpoint.filled({key: str(value) for key, value in values.items()})
        given = list(self.target.headers.items())
        path, more = self._carry(path, ids, raw)
        given += [*more, *headers]
        if form or endpoint.method == "POST":
            given.append(("Content-Type", "application/x-www-form-urlencoded"))
        client = self.client
        if base is not None:
            client = Client(base, self.target.patience)
            client.until = self.client.until
        answer = client.send(
            method or endpoint.method,
            client.mount + path,
            given,
            form.encode(),
            only_head=only_head,
        )
        self._remember(name, answer, ids)
        return answer

    def _carry(self, path: str, ids: Sequence[str], raw: bool) -> tuple[str, list[tuple[str, str]]]:
        """Put the ids on a request: return its path and the headers for them."""
        kind, name = self.target.kind, self.target.name
        if kind == "header":
            return path, [(name, id) for id in ids]
        if kind == "bearer":
            return path, [("Authorization", f"Bearer {id}") for id in ids]
        if kind == "cookie":
            return path, [("Cookie", f"{name}={id}") for id in ids]
        texts = list(ids) if raw else [quote(id, safe="", errors="surrogateescape") for id in ids]
        if kind == "path":
            return "".join(f"/{name}{text}" for text in texts) + path, []
        for text in texts:
            path += f"{'&' if '?' in path else '?'}{name}={text}"
        return path, []

    def _remember(self, name: str, answer: Answer, ids: Sequence[str]) -> None:
        told = self.told(answer)
        if answer.status >= 500 and any(len(id) > 7 and id in answer.text for id in ids):
            self.told_in_errors.add(name)
        if told is not None:
            with self._lock:
                self.issued.add(told)

    def told(self, answer: Answer) -> str | None:
        """Return the id that an answer gives to its client, or None."""
        if self.target.kind == "cookie":
            return next(cookies_of(answer, self.target.name), None)
        id = answer.header(self.target.id_header)
        if id or self._in_url is None:
            return id or None
        links = [answer.header("Location") or "", *links_of(answer)]
        for link in links:
            found = self._in_url.search(link)
            if found is not None and not leads_elsewhere(link, self.client.origin + "/"):
                return unquote(found[1])
        return None

    # -- what the target has

    def has(self, name: str) -> bool:
        return self.target.endpoint(name) is not None

    def need(self, name: str) -> Endpoint:
        endpoint = self.target.endpoint(name)
        if endpoint is None:
            raise NotApplicable(f"needs an endpoint /{name}")
        return endpoint

    def hook(self, name: str, why: str) -> Any:
        """Return a hook of the target. Raises `NotApplicable` with *why* it is needed."""
        hook = getattr(self.target, name)
        if hook is None:
            raise NotApplicable(f"cannot be seen from outside: {why} (give {name})")
        return hook

    def promised(self, name: str) -> float:
        seconds: float | None = getattr(self.target, name)
        if seconds is None:
            raise NotApplicable(f"the target does not say its {name}")
        return seconds

    # -- visitors

    def visitor(self, id: str | None = None) -> Visitor:
        """Return a client without a session, or with this id."""
        return Visitor(self, id)

    def known(self) -> tuple[Visitor, str]:
        """Return a client with a stored session, and a marker that only that session holds."""
        visitor, marker = Visitor(self), marker_text()
        visitor.store("marker", marker)
        return visitor, marker

    def shows(self, id: str, marker: str, **options: Any) -> bool:
        """Whether the session of *id* is the one that holds *marker*."""
        answer = self.ask("get", id, **options)
        if answer.status >= 500:
            raise Failed(f"/get answered {answer.status}")
        return answer.status < 400 and marker in answer.text

    # -- at once

    def at_once(self, functions: Sequence[Callable[[], T]]) -> list[T]:
        """Run each function, as many at once as the target allows; return what they returned."""
        with ThreadPoolExecutor(min(len(functions), self.target.threads) or 1) as pool:
            return list(pool.map(lambda function: function(), functions))

    def behind(self, slow: Callable[[], T], meanwhile: Callable[[], object]) -> T:
        """Run *slow*, a request that waits `WAIT`, and *meanwhile* while it waits."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(slow)
            time.sleep(WAIT / 2500)
            meanwhile()
            return running.result()

    # -- evidence

    def traces(self, text: str, ids: Iterable[str] | None = None) -> int:
        """Return how many of these ids, or of all that were issued, can be read in *text*, whole
        or in pieces."""
        pieces = _pieces(self.issued if ids is None else ids)
        found = set()
        # In megabytes, not every place is looked at: what is 4 characters longer is found still.
        step = 1 if len(text) < 1_000_000 else 4
        for size in {len(piece) for piece in pieces}:
            windows = (text[at : at + size] for at in range(0, len(text) - size + 1, step))
            found |= {pieces[window] for window in windows if window in pieces}
        return len(found)

    def masker(self) -> Callable[[str], str]:
        """Return what masks the words that give away an id which was issued to us."""
        pieces = _pieces(self.issued)
        sizes = {len(piece) for piece in pieces}

        def mask(word: re.Match[str]) -> str:
            found = unquote(word[0])
            for size in sizes:
                if any(found[at : at + size] in pieces for at in range(len(found) - size + 1)):
                    digest = hashlib.blake2b(found.encode(), digest_size=32).hexdigest()
                    return f"[id {digest[:10]}]"
            return word[0]

        return lambda text: re.sub(r"[^\s\"'<>=&/?:;,]+", mask, text)


def _pieces(ids: Iterable[str]) -> dict[str, str]:
    """Return what gives an id away, with the id: so many of its characters in a row that chance
    does not write them. 48 bits are 8 characters, or 12 hexadecimal digits."""
    ids = list(ids)
    size = 12 if all(map(_is_hex, ids)) else 8
    return {id[at : at + size]: id for id in ids for at in range(max(1, len(id) - size + 1))}


def _is_hex(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F-]+", text) is not None


#: Milliseconds that a slow request waits: long enough for another to come and go meanwhile.
WAIT: Final = 250


def marker_text() -> str:
    """Return a text that is nowhere by chance."""
    return "m" + secrets.token_hex(8)


class Visitor:
    """A client: it sends back the id that it was told last."""

    def __init__(self, auditor: Auditor, id: str | None = None) -> None:
        self._auditor = auditor
        self.id = id

    def ask(self, name: str, **values: Any) -> Answer:
        answer = self._auditor.ask(name, *([] if self.id is None else [self.id]), **values)
        told = self._auditor.told(answer)
        if told is not None:
            self.id = told
        return answer

    def store(self, key: str, value: str) -> Answer:
        """Store a value. Raises `Failed` if that does not work."""
        answer = self.ask("set", k=key, v=value)
        if answer.status >= 400:
            raise Failed(f"/set answered {answer.status}")
        if self.id is None:
            raise Failed("/set gave a new visitor no id")
        return answer

    def sees(self, marker: str) -> bool:
        answer = self.ask("get")
        if answer.status >= 500:
            raise Failed(f"/get answered {answer.status}")
        return answer.status < 400 and marker in answer.text


def cookies_of(answer: Answer, name: str) -> Iterator[str]:
    """Yield the values that an answer gives to a cookie: not those that it is taken away with."""
    for header, line in answer.headers:
        if header.lower() == "set-cookie":
            crumb, *attributes = line.split(";")
            key, _, value = crumb.partition("=")
            if key.strip() == name and value and not any(map(_has_passed, attributes)):
                yield value.strip(' "')


def _has_passed(attribute: str) -> bool:
    key, _, value = attribute.strip().partition("=")
    try:
        if key.lower() == "max-age":
            return int(value) <= 0
        if key.lower() == "expires":
            return parsedate_to_datetime(value).timestamp() < time.time()
    except ValueError:
        pass  # browsers ignore what they cannot read (RFC 6265, section 5.2)
    return False


class _Links(HTMLParser):
    """Collects what a browser would go to or send to, and the forms' fields with their action."""

    _URLS = frozenset({"href", "src", "action", "formaction", "cite", "data", "poster", "ping"})

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fields: list[tuple[str, str]] = []
        self._action: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.links += [value for name, value in given.items() if name in self._URLS]
        if tag == "form":
            self._action = given.get("action", "")
        elif tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.links.append(given.get("content", "").partition("=")[2].strip("\"' "))
        elif self._action is not None and "value" in given:
            self.fields.append((self._action, given["value"]))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._action = None


def _read(answer: Answer) -> _Links:
    links = _Links()
    if "html" in (answer.header("Content-Type") or ""):
        links.feed(answer.text.replace("\0", "\ufffd"))  # as browsers read it in an attribute
        links.close()
    return links


def links_of(answer: Answer) -> list[str]:
    """Return the URLs on a page; none if it is no page."""
    return _read(answer).links


def fields_of(answer: Answer) -> list[tuple[str, str]]:
    """Return (the action of its form, its value) for each field on a page."""
    return _read(answer).fields
