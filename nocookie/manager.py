"""The way of a request: `open` before the application, `commit` before the response leaves.

Frameworks that are not reached by the WSGI middleware call the same two. Most applications
will not need this module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import webob

from nocookie import owners
from nocookie.backend import Backend, Presented
from nocookie.beaker_ids import unsigned
from nocookie.carriers import (
    USUAL,
    AmbiguousId,
    BodyFilter,
    Callback,
    Carrier,
    Cookie,
    Form,
    Header,
    PathSegment,
    Query,
    RawCarrier,
    Reply,
    UrlCarrier,
    carriers_from,
)
from nocookie.errors import ConfigError, IdLeak, NocookieError, Refusal
from nocookie.events import emit
from nocookie.ids import ID_LENGTH, NotAnId
from nocookie.leaks import (
    SHORTEST,
    BodyWatch,
    LaterWatch,
    PageWatch,
    PlacedIds,
    UrlWatch,
    Watched,
    is_document,
    is_publicly_cacheable,
    leak_in_head,
    speaks_to_caches,
)
from nocookie.links import (
    REDIRECTS,
    can_be_told,
    is_page,
    leads_on,
    put_on_body,
    put_on_head,
    scope_of,
    strip_head,
)
from nocookie.options import resolve
from nocookie.policies import tightened_link
from nocookie.reporting import keep_reports, says_where
from nocookie.request import Deployment, Request, has_id_in_address, ids_taken, received
from nocookie.rewriting import Scope
from nocookie.sealed import SealedSession
from nocookie.session_object import SessionObject
from nocookie.sessions import Session
from nocookie.strength import SECRETS, weakness

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from nocookie.owners import SessionInfo

__all__ = ["SessionManager"]

#: An id by its grammar that is nobody's, for what only takes ids away.
NO_ID: Final = "A" * ID_LENGTH

#: So many different ids in one place are asked for; more are none.
MOST_ASKED: Final = 4

#: Referrer policies (W3C) under which an id in a URL stays with its origin.
_STRICT_REFERRER: Final = frozenset({"no-referrer", "same-origin"})


class SessionManager:
    """Sessions for one application: its carriers, and the backend they are made with."""

    def __init__(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        settings = resolve(config, options)
        self.carriers = _carriers(settings)
        self.id_header: str | None = settings["id_header"]
        cookies = [c.name for c in self.carriers if isinstance(c, Cookie)]
        self.backend = Backend(settings, cookies[0] if cookies else "")
        self.session_class: type[Session] = Session
        if self.backend.tokens is not None:
            self.session_class = SealedSession
        self._key = self.backend.ids.key
        self._auto = self.backend.auto
        self.emit = emit = self.backend.emit
        beaker = settings["beaker_secret"]
        self._readers = [(carrier, _reader(carrier, beaker, emit)) for carrier in self.carriers]
        self._rotates = self.backend.rotate_every != math.inf
        self._requires_https: bool = settings["require_https"]
        #: What is between clients and us: every view of a request is made with it.
        self.deployment = Deployment.of(
            settings["origin"], settings["trusted_proxies"], self._requires_https
        )
        self._watches_client: bool = settings["watch_client"]
        #: Ids have gone out by plain HTTP, and that was said.
        self._warned_of_http = False
        #: Whether SCRIPT_NAME holds ids that a layer inside of us may lose, and none has been lost.
        self._watches_mount = any(isinstance(c, PathSegment) for c in self.carriers)
        _warn_of_weak_secrets(settings)
        if settings.notes:
            emit("options", "; ".join(settings.notes))
        beaker_ids = self.backend.beaker_ids
        if beaker_ids is not None and beaker_ids.until <= self.backend.clock():
            emit("misfit", "beaker_ids_until is over: take it out, and beaker_secret with it")
        self._in_url = [c for c in self.carriers if getattr(c, "in_url", False)]
        #: Whether responses may have to change though nobody asked for the session.
        self.in_url = bool(self._in_url)
        self._prefix = self.deployment.prefix if self.in_url else ""
        self._url_carriers = [c for c in self.carriers if isinstance(c, UrlCarrier)]
        signed = self.backend.sealer is not None
        self.placed_ids = PlacedIds(self._url_carriers, self._is_ours, signed=signed)
        self._leak_guard: str = settings["leak_guard"]
        self._guards = self._leak_guard != "off"
        #: Whether a leak has to be found before anything is stored. A token ends no other.
        self._looks_ahead = self._leak_guard == "raise" and self.backend.tokens is None
        self._is_id_header = _is_id_header(self.carriers, self.id_header)
        self.rewrite: str = settings["rewrite"] or ("location" if self._in_url else "off")
        if self.rewrite != "off" and not any(isinstance(c, UrlCarrier) for c in self.carriers):
            raise ConfigError(
                f"rewrite = {self.rewrite} puts ids into URLs; it needs a find_id that finds them "
                "there, such as query:sid or path:~"
            )
        #: Whether ids are looked for in a request that nobody used the session of.
        self._always_finds = self.rewrite == "html" or len(self.carriers) > 1
        self._headers = [c for c in self.carriers if isinstance(c, Header)]
        self._forms = [c for c in self.carriers if isinstance(c, Form)]
        #: Where clients with an id in a header were sent: once is enough, and not for ever more.
        self._abroad: dict[str, object] = {}
        self.prepares = [p for c in self.carriers if (p := getattr(c, "prepare", None))]
        self._renewing = [c for c in self.carriers if getattr(c, "renews", False)]
        self._vary = [v for c in self.carriers if (v := getattr(c, "vary", None))]
        if self._in_url and self.backend.tokens is not None:
            raise ConfigError(
                "type = cookie goes with no URL carrier: the whole session would be in the address"
            )
        if self._in_url and self.backend.ids.adopts:
            raise ConfigError(
                "strict = False goes with no URL carrier: anybody could send out links with an id "
                "that the visitor's session would then be stored under"
            )

    def open(self, environ: WSGIEnvironment) -> SessionObject:
        """Return the session of this request; nothing is loaded yet."""
        self.prepare(environ)
        session = SessionObject()
        session._manager, session._environ = self, environ
        return session

    def request(self, environ: WSGIEnvironment) -> Request:
        """Return a view of the request, as it is now."""
        return Request(environ, self.deployment)

    def prepare(self, environ: WSGIEnvironment) -> str | None:
        """Have the carriers take from the request what the application would take first. Return
        where to send the client instead, if one of them says so."""
        elsewhere: str | None = None
        if self._prefix:
            received(environ).prefix = self._prefix
        for prepare in self.prepares:
            try:
                elsewhere = prepare(environ) or elsewhere
            except Exception as error:
                self.emit("finder failed", type(error).__name__)
        return elsewhere

    def is_insecure(self, environ: WSGIEnvironment) -> bool:
        """Whether a client came by plain HTTP, and no id may: neither be taken, nor given out."""
        return self._requires_https and not self.request(environ).came_by_https

    def find(self, environ: WSGIEnvironment) -> tuple[Presented, str]:
        """Return the ids that could be ours, and for when there is none the reason."""
        presented: Presented = ()
        if self._requires_https and self.is_insecure(environ):
            return presented, "insecure"
        reason, is_one = "absent", True
        for carrier, read in self._readers:
            try:
                text = read(environ)
                if text is None:
                    continue
                key = self._key(text)
                if not presented or key != presented[0][1]:
                    presented += ((text, key, carrier),)
                continue
            except NotAnId as error:
                why = error.reason
            except AmbiguousId as error:
                several, why = self._possible(error.ids, carrier)
                is_one = False
                if several:
                    known = presented[0][1] if presented else None
                    presented += tuple(one for one in several if one[1] != known)
                    continue
            except Refusal:  # of a callback
                raise
            except Exception as error:  # a finder is anybody's code: it costs the id, no more
                self.emit("finder failed", type(error).__name__)
                continue
            if reason == "absent":
                reason = why
        if len(presented) > 1 or not is_one:
            self.emit("conflict", "one request, several ids")
        return presented, reason

    def _possible(self, texts: Sequence[str], carrier: Carrier) -> tuple[Presented, str]:
        """Return those of several ids in one place that could be ours, if they are few enough to
        ask for, and for when there is none the reason."""
        possible: dict[str, str] = {}
        reasons = []
        for text in texts:
            try:
                key = self._key(text)
            except NotAnId as error:
                reasons.append(error.reason)
                continue
            if key in possible and self.backend.tokens is not None:
                text = self.backend.tokens.newer(possible[key], text)
            possible[key] = text
        if not possible:
            return (), reasons[0] if reasons else "ambiguous"
        if len(possible) == 1 or (len(possible) <= MOST_ASKED and not self.backend.ids.adopts):
            found = tuple((text, key, carrier) for key, text in possible.items())
            return found, ""
        return (), "ambiguous"

    def commit(self, session: SessionObject, reply: Reply) -> None:
        """Save what the application saved, and tell the client its id if it must be told.

        Raises `SessionGone` and `StoreError`; then nothing was changed in *reply*.
        """
        reply.deployment = self.deployment
        # Caches put the head of a 304 on a page that they keep for everybody, whatever it says of
        # being stored (RFC 9111, section 4.3.4): it tells no id.
        is_for_all = False
        if reply.status >= "3":
            is_for_all = reply.status[:3] == "304"
            self.look_at_redirect(reply.status, reply.headerlist, reply.environ)
        real = session._sess
        if real is not None:
            is_cached = False
            id = real._id
            if id is not None and self._guards and len(id) >= SHORTEST:
                is_told = False
                for name, value in reply.headerlist:
                    if id in value:
                        is_told = True
                    elif name not in USUAL and speaks_to_caches(name.lower()):
                        is_cached = True
                if is_told:
                    self._check_head(id, reply)
            if self._rotates and self._can_be_told(real, reply) and real._is_turn_due():
                real._prepare_turn()
            if is_for_all and real._key is None:
                real._passive = True  # no session begins where its id cannot be told
            # However the application came by this session.
            if (
                self._requires_https
                and real._values is not None
                and self.is_insecure(reply.environ)
                and real.must_propagate
            ):
                real._refuse_plain_http()
            if (
                self._watches_client
                and real._values is not None
                and real._is_anothers(reply.request.client_digest())
            ):
                self.emit("client changed", "", real._named())
            if (
                real._marked
                or real._touch_due
                or self._auto
                or real._renew_at < self.backend.clock()
            ):
                if self._looks_ahead and not is_for_all and real._values is not None:
                    self._look_ahead(real, reply, is_cached)
                real._commit()
            for name in self._vary:
                reply.add_word("Vary", name)
            if real._values is not None:
                in_url = self._propagate(real, reply, is_for_all)
                if is_cached and real._key is not None:
                    self._watch_body(real, reply)
                if self.in_url:
                    self._keep_reports(reply, in_url)
                return
        if has_id_in_address(reply.environ):
            self._pass_on(reply)
            self._keep_reports(reply, True)
        elif self.in_url:
            self._look_around(reply)
            self._keep_reports(reply, False)

    def _look_ahead(self, real: Session, reply: Reply, is_cached: bool) -> None:
        """Look for leaks before a new id is stored. Afterwards the old one would have ended, and
        the response that is not to leave would be what tells the client the new one."""
        if not (real.must_propagate and real.id):  # a new session has an id once it is asked for
            return
        trial = Reply(reply.status, list(reply.headerlist), reply.environ, reply.as_it_is)
        trial.deployment = reply.deployment
        self._propagate(real, trial, False)
        if is_cached:
            self._watch_body(real, trial)
        if trial.rewriter is not None and reply.body is not None:
            for chunk in reply.body:
                trial.rewriter.feed(chunk)
            trial.rewriter.close()

    def tell_stored(self, real: Session, reply: Reply) -> None:
        """Tell the client an id that is stored already, in an answer of ours in the place of the
        application's."""
        reply.deployment = self.deployment
        if real._key is None or real._old is not None or real._id == real._given:
            return
        if not self.is_insecure(reply.environ):
            self._tell(real, reply)

    def _propagate(self, real: Session, reply: Reply, is_for_all: bool) -> bool:
        """Tell the client the id of a session that was used, if it must be told. Return whether an
        id is in the address or the links of the response."""
        brought_by = real._brought_by
        is_renewed = False
        tell = real._id is not real._given and real.must_propagate
        if tell and is_for_all:
            tell = False
            self.emit("lost", "a new id, which no 304 can tell", real._named())
        elif tell:
            self._tell(real, reply)
        elif real._ended:
            if brought_by is not None:
                brought_by.forget(reply)
        elif brought_by in self._renewing and not is_for_all and real._is_due():
            is_renewed = brought_by.place(real._carried, reply)
        reason = real._reason
        is_refused = reason in _REFUSED and real._given is None and not is_for_all
        if is_refused:
            assert reason is not None
            reply.announce(REASON_HEADER, reason)
        if not self.in_url:
            if tell or is_renewed or is_refused:
                _keep_in(reply, False)
            return False
        if real._key is not None and not tell and isinstance(brought_by, UrlCarrier):
            self._put(brought_by, real.id, reply)
        elif real._ended and not tell:
            self._strip(reply)
        in_address = has_id_in_address(reply.environ)
        in_url = in_address or brought_by in self._in_url or (tell and brought_by is None)
        if tell or is_renewed or is_refused or in_url:
            _keep_in(reply, in_url)
        told = real._id if in_address and (real._key is not None or tell) else None
        self._look_around(reply, real, told)
        return in_url

    def _pass_on(self, reply: Reply) -> None:
        """Nobody used the session. If its id came in the URL, the next page needs it there too;
        whether it still opens anything, that request will see."""
        # Most responses have no place for it. But several ids are to be noticed in any.
        if self._always_finds or leads_on(reply):
            presented, _ = self.find(reply.environ)
            if presented:
                id, _, carrier = presented[0]
                is_one = len([other for _, _, other in presented if other is carrier]) == 1
                if is_one and isinstance(carrier, UrlCarrier):
                    self._put(carrier, id, reply)
        _keep_in(reply, True)
        self._look_around(reply)

    def _put(self, carrier: UrlCarrier, id: str, reply: Reply) -> bool:
        """Put the id on the response's links; return whether a client will come with it."""
        if self.rewrite == "off":
            return False
        page = self.rewrite == "html" and is_page(reply)
        if not page and not leads_on(reply):
            return False
        request = reply.request
        if not can_be_told(request, id):
            return False
        scope = scope_of(request, carrier, id)
        is_there = put_on_head(scope, reply)
        if page:
            leak = cache(partial(self.leak, id=id)) if self._guards else _ignore
            put_on_body(scope, reply, leak)
        return page or is_there

    def _strip(self, reply: Reply) -> None:
        """Take the id of a session that ended from where the response sends the client."""
        if self.rewrite != "off" and leads_on(reply):
            for carrier in self.carriers:
                if isinstance(carrier, UrlCarrier):
                    strip_head(scope_of(reply.request, carrier, NO_ID), reply)

    def scope(self, session: SessionObject) -> Scope | None:
        """Return where the id of this session may be put by the application; None where it needs
        no URL: nothing is stored, or another carrier has it."""
        assert session._environ is not None
        real = session._session()
        if real._values is None:
            real._look()
        if not (real._key is not None or real._will_be_stored()):
            return None
        carrier = real._brought_by or self._first_that_can_be_written(session._environ)
        if not isinstance(carrier, UrlCarrier):
            return None
        request = self.request(session._environ)
        return scope_of(request, carrier, session.id) if can_be_told(request, session.id) else None

    # -- owners

    def sessions_of(self, owner: str) -> list[SessionInfo]:
        """Return the living sessions of *owner*, the one used last first. Raises `NocookieError`
        if the store cannot find them, and `StoreError`."""
        return owners.sessions_of(self.backend, owner)

    def end_all(self, owner: str, but: Session | SessionObject | None = None) -> int:
        """End all sessions of *owner* except *but*; return how many. Raises as `sessions_of`."""
        kept = but if but is None or isinstance(but, Session) else but._get_current_obj()._session()
        if kept is not None and kept._values is None:
            kept._look()
        return owners.end_all(self.backend, owner, None if kept is None else kept._key)

    def end_one(self, owner: str, fingerprint: str) -> bool:
        """End the session of *owner* with this fingerprint; return whether it was there. Raises as
        `sessions_of`."""
        return owners.end_one(self.backend, owner, fingerprint)

    def bare_url(self, environ: WSGIEnvironment, url: str) -> str:
        """Return *url* without an id, whichever of our carriers put it there."""
        for carrier in self.carriers:
            if isinstance(carrier, UrlCarrier):
                url = scope_of(self.request(environ), carrier, NO_ID).bare_url(url)
        return url

    # -- the leak guard

    def look_at_redirect(
        self, status: str, headers: Sequence[tuple[str, str]], environ: WSGIEnvironment
    ) -> None:
        """Report a client that is sent to another origin with its id in a header of our own, which
        programs, and `fetch` in a browser, take along; or in a form, which is posted there again.
        Once for each origin; never raises."""
        if not self._guards or status[:3] not in REDIRECTS:
            return
        carriers: list[RawCarrier] = [*self._headers]
        if status[:3] in _POSTED_AGAIN:
            carriers += self._forms
        if not any(_has_sent(carrier, environ) for carrier in carriers):
            return
        for name, value in headers:
            if name.lower() == "location" and not self._anywhere(environ).stays(value):
                origin = _origin_of(value, environ)
                if origin is None or len(self._abroad) >= REMEMBERED_ORIGINS:
                    continue
                ours = object()
                if self._abroad.setdefault(origin, ours) is ours:  # one of several threads
                    try:
                        self.emit("redirect_abroad", f"to {origin}")
                    except Refusal:
                        pass  # a callback's answer to a client who did nothing

    def _check_head(self, id: str, reply: Reply) -> None:
        # Within the origin, the application may send its id where it likes.
        why = leak_in_head(reply, id, self._anywhere(reply.environ), self._is_id_header)
        if why is not None:
            self.leak(why, id)

    def _watch_body(self, real: Session, reply: Reply) -> None:
        is_rewritten = reply.rewriter is not None and reply.rewriter.changes
        if is_rewritten or reply.as_it_is or len(real.id) < SHORTEST:
            return
        if is_publicly_cacheable(reply):
            leak = partial(self.leak, "into a body that public caches keep", real.id)
            id = real.id.encode()
            _watch(reply, BodyWatch(lambda seen: id in seen, len(id), leak))

    def _look_around(
        self, reply: Reply, real: Session | None = None, told: str | None = None
    ) -> None:
        """Look at a response of an application whose ids are in URLs: used or not, a session's id
        is in the request's, and so in what the application says of itself. *told* is the id that a
        page tells others who are told its URL."""
        environ = reply.environ
        if self._watches_mount and ids_taken(environ):
            self._warn_of_mount(reply.request)
        if not self._guards:
            return
        # Of a session that was used the own ids were looked for before it was saved; those of
        # others come with more before them.
        used = () if real is None else (real._id, real._old, real._given)
        shortest = ID_LENGTH if real is None else ID_LENGTH + 1
        values = [value for _, value in reply.headerlist if len(value) >= shortest]
        if values:
            self._look_at_head(reply, values, self.known_ids(environ, used), real is None)
        if reply.as_it_is or not is_document(reply):
            return
        rewriter = reply.rewriter
        if self._url_carriers or told:
            reply.rewriter = PageWatch(self, environ, used, told, rewriter)
        if self._url_carriers and (real is None or real._key is not None or not real._ended):
            # At the page as the application wrote it: what puts an id on its links comes after.
            is_rewritten = rewriter is not None and rewriter.changes
            placed = None if real is None else real._id
            watch = LaterWatch(partial(self._url_watch, environ, used, placed, is_rewritten))
            there = reply.rewriter
            reply.rewriter = watch if there is None else Watched(watch, there)

    def _url_watch(
        self,
        environ: WSGIEnvironment,
        used: Sequence[str | None],
        placed: str | None,
        is_rewritten: bool,
    ) -> UrlWatch:
        """Return what looks at the URLs of a page. If that *is_rewritten*, its links get the id
        *placed*, or without one that of the request."""
        ids = self.known_ids(environ, used)
        told = (placed or next(iter(ids), None)) if is_rewritten else None
        home = cache(partial(self.home, environ))

        def is_own(url: str) -> bool:
            return home().stays(url)

        def leak(element: str) -> None:
            self.leak(f"a URL of another origin in <{element}>", ids[0])

        return UrlWatch(ids, is_own, leak, told)

    def _look_at_head(
        self, reply: Reply, values: list[str], known: list[str], for_own: bool
    ) -> None:
        """Look at the values of headers that are long enough for an id, also *for_own* ones."""
        if for_own:
            for id in known:
                if any(id in value for value in values):
                    self._check_head(id, reply)
        home = cache(partial(self.home, reply.environ))
        for value in values:
            text = f"{value} ".encode("latin-1", "replace")
            other = self.placed_ids.other_than(known, text, home)
            if other is not None:
                self.leak("to another visitor, in a header", other)

    def known_ids(self, environ: WSGIEnvironment, used: Sequence[str | None]) -> list[str]:
        """Return the ids of a visitor: those in the request's URL that could be ours, and those
        *used*."""
        return [*self._ids_in_url(environ), *(id for id in used if id is not None)]

    def home(self, environ: WSGIEnvironment) -> Scope:
        """Return what reads URLs of the own origin."""
        return scope_of(self.request(environ), _ANYWHERE, NO_ID)

    def _is_ours(self, id: str) -> bool:
        try:
            self._key(id)
        except NotAnId:
            return False
        return True

    def _keep_reports(self, reply: Reply, in_url: bool) -> None:
        """Have no other origin be sent reports about a page that has an id in its URL, or, as a
        report says too where a visitor came from, in that of the page before. What a browser
        keeps for later pages is looked at with every page."""
        if not says_where(reply.headerlist):
            return
        environ = reply.environ
        of_this_page = in_url or received(environ).came_from_id
        where = self._anywhere(environ)
        reply.headerlist[:], changed = keep_reports(
            reply.headerlist, where.stays, of_this_page=of_this_page
        )
        if changed and self._guards:
            # Nothing leaves any more, so nothing is raised.
            id = next(iter(self._ids_in_url(environ)), None)
            self._say_leak(f"in reports to another origin, by the header {changed[0]}", id)

    def _ids_in_url(self, environ: WSGIEnvironment) -> list[str]:
        """Return the ids in the request's URL that could be ours."""
        return [id for ids in ids_taken(environ).values() for id in ids if self._is_ours(id)]

    def _anywhere(self, environ: WSGIEnvironment) -> Scope:
        """Return what reads URLs of the own origin, in the mount or not."""
        where = scope_of(self.request(environ), _ANYWHERE, NO_ID)
        where.mount = []
        return where

    def _say_leak(self, why: str, id: str | None) -> None:
        self.emit("leak", why, None if id is None else self.backend.fingerprint(id))

    def leak(self, why: str, id: str | None) -> None:
        """Report an id on its way to where it must not go. Raises `IdLeak` if that is asked for."""
        self._say_leak(why, id)
        if self._leak_guard == "raise":
            raise IdLeak(f"an id was about to leave {why}")

    def _first_that_can_be_written(self, environ: WSGIEnvironment) -> Carrier | None:
        for carrier in self.carriers:
            if isinstance(carrier, UrlCarrier) or carrier.place(NO_ID, Reply("", [], environ)):
                return carrier
        return None

    def _tell(self, session: Session, reply: Reply) -> None:
        """Give the client its id. Where no header can, the application does, in its page."""
        # Every new session comes by here; most servers hear from a proxy beside them.
        if not self._warned_of_http and reply.environ.get("REMOTE_ADDR", "127.")[:4] != "127.":
            self._warn_of_http(reply.environ)
        if not self._placed(session, reply):
            if self.id_header is None:
                return
            reply.announce(self.id_header, session._carried)
        text = "".join(chain.from_iterable(reply.headerlist))
        # What would end a header and begin another (RFC 9110, section 5.5).
        if "\r" in text or "\n" in text or "\0" in text:
            raise NocookieError("a header of the response has a control character in it")

    def _warn_of_mount(self, request: Request) -> None:
        if request.is_moved:
            self._watches_mount = False
            self.emit(
                "misfit",
                "a layer inside of SessionMiddleware has set SCRIPT_NAME anew, so the URLs that "
                "the application builds have lost the id: what puts a proxy's prefix back "
                "(ProxyFix, say) belongs outside",
            )

    def _warn_of_http(self, environ: WSGIEnvironment) -> None:
        request = self.request(environ)
        if not request.is_local and not request.came_by_https:
            self._warned_of_http = True
            self.emit(
                "misfit",
                "ids go over plain HTTP, where anybody on the way can read them; if a proxy ends "
                "TLS name it in trusted_proxies, and set require_https",
            )

    def _can_be_told(self, session: Session, reply: Reply) -> bool:
        """Whether this response would tell the client another id, and the client would hear it."""
        carrier = session._brought_by
        if carrier is None or isinstance(carrier, Callback) or reply.status[:3] in _UNHEARD:
            return False
        if isinstance(carrier, UrlCarrier):
            page = self.rewrite == "html" and is_page(reply)
            return page or (self.rewrite != "off" and leads_on(reply))
        return self.id_header is not None or carrier.place(NO_ID, Reply("", [], reply.environ))

    def _placed(self, session: Session, reply: Reply) -> bool:
        # What the client proved that it can carry is what it gets back.
        brought_by = session._brought_by
        for carrier in self.carriers if brought_by is None else (brought_by,):
            if isinstance(carrier, UrlCarrier):
                if self._put(carrier, session.id, reply):
                    return True
            elif carrier.place(session._carried, reply):
                return True
        return False


#: What was said of secrets already. Once is enough, however many applications a process makes.
_said: set[str] = set()


def _warn_of_weak_secrets(settings: Mapping[str, Any]) -> None:
    for name in SECRETS:
        given = settings[name] or ()
        for secret in (given,) if isinstance(given, str) else given:
            why = weakness(secret)
            sentence = f"{name} can be guessed: {why}"
            if why is not None and sentence not in _said:
                _said.add(sentence)
                emit("misfit", sentence)


#: How many origins a process remembers having reported. They may be a client's to choose.
REMEMBERED_ORIGINS: Final = 100

#: What can stand in a log as it is.
_PLAIN_ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]{1,100}(?::[0-9]{1,5})?")


#: The redirects that a browser follows with the form that it posted (RFC 9110, 15.4.8).
_POSTED_AGAIN: Final = frozenset({"307", "308"})


def _has_sent(carrier: RawCarrier, environ: WSGIEnvironment) -> bool:
    try:
        return carrier.read(environ) is not None
    except AmbiguousId:
        return True


def _origin_of(url: str, environ: WSGIEnvironment) -> str | None:
    """Return the other origin that a client goes to, as far as it can be told; None if it goes
    nowhere by HTTP, or to the same host by HTTPS."""
    scheme = environ.get("wsgi.url_scheme", "http")
    try:
        found = urlsplit(url.strip(), scheme)
    except ValueError:
        return "somewhere odd"
    host = found.netloc.rpartition("@")[2].lower()
    if found.scheme not in ("http", "https") or not host:
        return None
    if found.scheme == "https" and host == environ.get("HTTP_HOST", "").lower():
        return None
    origin = f"{found.scheme}://{host}"
    return origin if _PLAIN_ORIGIN.fullmatch(origin) else "somewhere odd"


#: Tells a client why the id that it brought does not count: that it should forget it, mostly.
REASON_HEADER: Final = "X-Session-Reason"
_REFUSED: Final = frozenset(
    {"malformed", "ambiguous", "forged", "unknown", "expired", "corrupted", "insecure"}
)

#: Responses that few programs look at.
_UNHEARD: Final = frozenset({"204", "205", "304"})

#: For reading URLs only: what it is about where an id stands does not matter then.
_ANYWHERE: Final = Query()


def _ignore(what: str) -> None:
    """Nobody wants to know."""


def _is_id_header(carriers: Sequence[Carrier], id_header: str | None) -> Callable[[str], bool]:
    """Return what says of a response header, in lower case, whether ids travel in it."""
    names = {"set-cookie"} if any(isinstance(c, Cookie) for c in carriers) else set()
    names |= {c.name.lower() for c in carriers if isinstance(c, Header)}
    if id_header is not None:
        names.add(id_header.lower())
    # With a finder of its own the application tells the client by a header of its own.
    by_hand = not all(isinstance(c, RawCarrier) for c in carriers)
    return lambda name: name in names or (by_hand and name.startswith(("x-", "set-cookie")))


def _watch(reply: Reply, watch: BodyFilter) -> None:
    """Have what goes out looked at, after whatever its body goes through already."""
    reply.rewriter = watch if reply.rewriter is None else Watched(reply.rewriter, watch)


def _keep_in(reply: Reply, in_url: bool) -> None:
    """Keep a response that holds an id out of caches, and if its address or its links hold it,
    out of what browsers tell other origins."""
    kept = []
    strict = False
    for pair in reply.headerlist:
        if pair[0] in USUAL:
            kept.append(pair)
            continue
        name = pair[0].lower()
        if speaks_to_caches(name):
            continue
        if in_url and name == "speculation-rules":
            continue  # by these, too, others are told the page's URL
        if in_url and name == "link":
            kept.append((pair[0], tightened_link(pair[1])))
            continue
        if in_url and name == "referrer-policy":
            if pair[1].lower() not in _STRICT_REFERRER:
                continue
            strict = True
        kept.append(pair)
    kept.append(("Cache-Control", "no-store"))
    if in_url and not strict:
        kept.append(("Referrer-Policy", "same-origin"))
    reply.headerlist[:] = kept


def _carriers(settings: Mapping[str, Any]) -> tuple[Carrier, ...]:
    def cookie(name: str = settings["key"]) -> Cookie:
        return Cookie(
            name,
            path=settings["cookie_path"],
            domain=settings["cookie_domain"],
            secure=settings["secure"],
            httponly=settings["httponly"],
            samesite=settings["samesite"],
            partitioned=settings["partitioned"],
            expires=settings["cookie_expires"],
        )

    if settings["use_cookies"]:
        return (cookie(),)
    if settings["find_id"] is None:
        return (Header(),)
    return carriers_from(settings["find_id"], cookie)


def _unsigned(
    read: Callable[[WSGIEnvironment], str | None], secret: str
) -> Callable[[WSGIEnvironment], str | None]:
    """Return what reads as *read* does, where ids of Beaker's are signed."""
    without_signature = unsigned(secret)

    def checked(environ: WSGIEnvironment) -> str | None:
        try:
            text = read(environ)
            return None if text is None else without_signature(text)
        except AmbiguousId as error:
            ids = []
            for text in error.ids:
                try:
                    ids.append(without_signature(text))
                except NotAnId:
                    pass
            raise AmbiguousId(ids) from None

    return checked


def _reader(
    carrier: Carrier, beaker: str | None, emit: Callable[[str, str], None]
) -> Callable[[WSGIEnvironment], str | None]:
    """Return what asks one carrier. Ours read the environ; others get a WebOb request."""

    def find(environ: WSGIEnvironment) -> str | None:
        text: Any = carrier.find(webob.Request(environ))
        if text is None or type(text) is str:
            return text
        emit("finder failed", f"returned {type(text).__name__}")
        raise NotAnId("malformed")

    read = carrier.read if isinstance(carrier, RawCarrier) else find
    return read if beaker is None else _unsigned(read, beaker)
