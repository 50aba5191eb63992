"""Ids on the links and forms of an HTML page, while it streams by.

What a browser would make of the page decides, so the page is cut into tokens by the rules of the
HTML standard (section 13.2.5): comments, raw text, script escapes, attributes of which the first
of a name counts. No tree is built. Where a tag's meaning depends on the tree (inside `svg`,
`select`, `noscript`), both readings have to agree; where they do not, the rest of the page is
left as it is. Which URL gets the id is the business of `nocookie.rewriting`.

Bytes go out as they came in, edits apart: an id, quotes around an unquoted value, a hidden input
after a GET form, whose action's query a browser would throw away.

Memory is bounded. A tag longer than `TAG_LIMIT` passes without an id. A GET form is held back up
to its end, because a submitter in it may lead to another origin and would take the hidden input
there; if the end does not come within `FORM_LIMIT`, the form gets nothing.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from nocookie.markup import (
    ATTRIBUTES,
    BASE_TAG,
    BASE_TAIL,
    BREAKOUT,
    CDATA,
    CDATA_AS_COMMENT,
    CDATA_CONTRADICTS,
    CDATA_EITHER_WAY,
    CDATA_LOWER,
    DEPTH_LIMIT,
    DULL,
    FORMATTING,
    HOLDS_HTML,
    IS_TAG,
    NOSCRIPT_END,
    OTHER,
    PLAIN,
    PLAIN_END,
    RAW,
    RAW_END,
    RAW_END_IN_NOSCRIPT,
    RAW_TAIL,
    SCRIPT,
    TAG,
    TEXT,
    VOID,
    Attribute,
    beginning,
    closes_itself,
    decoded,
    escaped,
    written,
)
from nocookie.places import Base, Edits
from nocookie.plain import plain_markup
from nocookie.policies import STRICT, lax_css, says_lax_in_svg, tightened_html
from nocookie.rewriting import Scope

__all__ = ["FORM_LIMIT", "TAG_LIMIT", "HtmlRewriter", "is_rewritable", "says_charset"]

#: The longest tag, in bytes, that is looked into.
TAG_LIMIT: Final = 65_536
#: How many bytes, from the form's tag on, are held back until we know who submits it.
FORM_LIMIT: Final = 262_144
#: How often a byte of what is unfinished is looked at again, while the rest of it comes in pieces,
#: and how many bytes may be before that counts.
AGAIN: Final = 8
IN_ADVANCE: Final = 65_536

#: Encodings in which every byte below 128 is the ASCII character (WHATWG Encoding, its names
#: and the common labels). Not Shift_JIS, Big5 or GBK, where it may be half of another one.
_ENCODINGS: Final = frozenset(
    ["utf-8", "utf8", "us-ascii", "ascii", "latin1", "koi8-r", "koi8-u", "macintosh", "ibm866"]
    + [f"iso-8859-{n}" for n in (*range(1, 12), *range(13, 17))]
    + [f"windows-{n}" for n in (874, *range(1250, 1259))]
    + [f"cp{n}" for n in range(1250, 1259)]
    + ["euc-jp"]
)


def is_rewritable(status: str, headers: Iterable[tuple[str, str]]) -> bool:
    """Whether a response's body is HTML that may be rewritten.

    It is if it is whole, named `text/html`, in an encoding in which markup is ASCII, not
    compressed, and not for saving: a file should not hold a live id.
    """
    kind = None
    for name, value in headers:
        match name.lower():
            case "content-type":
                if kind is not None:
                    return False
                kind = value
            case "content-encoding" | "transfer-encoding":
                if value.strip().lower() not in ("", "identity"):
                    return False
            case "content-range":
                return False
            case "content-disposition":
                if value.partition(";")[0].strip().lower() != "inline":
                    return False
    if kind is None or status[:3] in ("204", "206", "304"):
        return False
    media, *parameters = kind.split(";")
    if media.strip().lower() != "text/html":
        return False
    return all(
        value.strip().strip("\"'").lower() in _ENCODINGS
        for name, _, value in (parameter.partition("=") for parameter in parameters)
        if name.strip().lower() == "charset"
    )


def says_charset(kind: str) -> bool:
    """Whether the value of `Content-Type` names the charset so that every browser takes it (WHATWG
    MIME Sniffing): in no or in double quotes, with no blank before the equals sign, and once."""
    named = [part for part in kind.split(";")[1:] if "charset" in part.lower()]
    return len(named) == 1 and _CHARSET.fullmatch(named[0]) is not None


_CHARSET: Final = re.compile(r'(?i)[ \t]*charset=("?)[a-z0-9_:.-]+\1[ \t]*')


#: What gets an id, and what is looked into for it.
_LINKS: Final = {b"a": b"href", b"area": b"href", b"iframe": b"src", b"frame": b"src"}
_SUBMITTERS: Final = frozenset(b"button input select textarea".split())
_EDITED: Final = frozenset((*_LINKS, *_SUBMITTERS, b"base", b"form", b"meta", b"script"))
#: The type of a script that says which pages to fetch ahead, and by which referrer policy.
_RULES: Final = "speculationrules"
#: An attribute by which any element may have a browser tell more than we do; in svg, any that may
#: hold a function of CSS.
_POLICY: Final = re.compile(rb"(?i)referrerpolicy|style|srcdoc")
_POLICY_IN_SVG: Final = re.compile(rb"(?i)referrerpolicy|style|srcdoc|[(&]")
#: Referrer policies (W3C) by which another origin is told the page's whole URL; `always` is what
#: the first was called once.
_LAX: Final = frozenset({"unsafe-url", "no-referrer-when-downgrade", "always"})
#: How often a document may be in an attribute of another.
_DEEPEST: Final = 4
_BLANK: Final = "".join(map(chr, range(0x21)))
_WORDS: Final = re.compile(r"[^\t\n\f\r ,]+")
_ABSOLUTE: Final = re.compile(r"[\x00-\x20]*[A-Za-z][A-Za-z0-9+.-]*:")


#: What `</form>` closes without a word, what other end tags do, and which close nothing alone
#: (HTML, "generate implied end tags", "in table").
_CLOSED_BY_FORM: Final = frozenset(b"dd dt li optgroup option p rb rp rt rtc".split())
_CLOSED_BY_OTHERS: Final = _CLOSED_BY_FORM | frozenset(
    b"caption colgroup tbody td tfoot th thead tr".split()
)
_NEVER_STRAY: Final = frozenset(b"br p".split())


class _Held:
    """Bytes that wait for a decision."""

    __slots__ = ("choice", "plain", "with_id")

    def __init__(self, plain: bytes, with_id: bytes) -> None:
        self.plain = plain
        self.with_id = with_id
        self.choice: bytes | None = None


class _Form:
    """The form that is open."""

    __slots__ = ("held", "in_noscript", "inside", "is_get", "leads_away", "start", "to_the_end")

    def __init__(self, start: int, *, is_get: bool, in_noscript: bool) -> None:
        self.start = start
        self.is_get = is_get
        self.in_noscript = in_noscript
        #: What waits for its end: its tag, and a field of our name. Empty once decided.
        self.held: list[_Held] = []
        #: What is open in it. None if it is not known any more, or nobody asks.
        self.inside: list[bytes] | None = None
        #: Whether it, or a submitter in it, may lead to another origin.
        self.leads_away = False
        #: Whether elements behind its end tag may still belong to it.
        self.to_the_end = False

    def decide(self, with_id: bool) -> None:
        for held in self.held:
            held.choice = held.with_id if with_id else held.plain
        self.held.clear()


class HtmlRewriter:
    """Rewrites one page: `feed` it, then `close` it. Cut as you like, the result is the same.

    *on_leak* is called with a few words, never with the id, when the page leads an id to another
    origin (an application that propagates by hand), or when it would have and was stopped.

    Give *sniffed* as true if the response names no charset, so that browsers guess one.
    """

    changes = True

    # How a page begins. On the class, where it costs nothing.

    #: Whether the rest goes through as it is.
    _off = False
    _is_first = True

    #: The input that is not consumed yet. Its first `_ghost` bytes were not in the page: they
    #: stand for a longer beginning that has gone out.
    _buffer = b""
    #: More of it, kept apart as long as it is not worth to look at it: see `_is_due`.
    _waiting: list[bytes]
    _waiting_size = 0
    #: Whether a tag may end in it.
    _may_end = False
    #: How many bytes may be looked at again.
    _credit = IN_ADVANCE
    _ghost = 0
    #: Where in the page the buffer starts.
    _offset = 0
    #: Up to where the buffer has gone to `_out`.
    _copied = 0
    #: What goes out, and whether anything in it waits for a decision.
    _out: list[bytes | memoryview | _Held]
    _is_holding = False

    #: The element we are in whose content is text.
    _raw: bytes | None = None
    #: 0 script, 1 `<!--` in it, 2 `<script` in that (HTML, "script data escaped" and on).
    _escaped = 0
    #: An element whose content must be plain for both readings to agree.
    _plain: bytes | None = None
    _foreign: list[bytes]
    _select = 0
    _template = 0
    _in_noscript = False
    #: Whether we may be in a frameset, in svg or in select for all we know.
    _lost = False
    _has_table = False

    #: Elements open since the outermost that counts; is each closed in its order?
    _open: list[bytes]
    _untidy = False

    _form: _Form | None = None
    #: Whether a form of the page, or a submitter in one, may lead to another origin.
    leads_away = False
    #: Forms that wait for the end of the page, the open one among them, in their order. Some may
    #: be decided already, and hold nothing.
    _pending: deque[_Form]
    #: Whether an open form may be closed or not, for all we know: then no other gets an id.
    _form_is_stuck = False
    #: Whether what follows may be inside of a form of another origin, whose end tag came while
    #: elements in it were open. Forms that follow keep their fields, as long as nobody moves them:
    #: a script that swaps pages in does, and then the fields are that form's.
    _is_inside_another = False
    #: Whether a submitter that names its form by id leads to another origin.
    _foreign_by_name = False

    _has_base = False
    #: Whether there may be a base, and we cannot tell which: then no relative URL gets an id.
    _is_blind = False
    #: The base of relative URLs that went out with the id: another would lead them elsewhere.
    _relied: Base | None = None

    #: In how many attributes of others the page is.
    _depth = 0

    _input = b""
    #: What takes plain markup, unless a base leads elsewhere.
    _usual: re.Pattern[bytes] | None = None

    def __init__(
        self,
        scope: Scope,
        *,
        sniffed: bool = True,
        tag_limit: int = TAG_LIMIT,
        form_limit: int = FORM_LIMIT,
        on_leak: Callable[[str], object] = lambda what: None,
    ) -> None:
        self._scope = scope
        self._sniffed = sniffed
        self._tag_limit = tag_limit
        self._form_limit = form_limit
        self._on_leak = on_leak
        self._id = scope.id.encode()
        self._roots = scope.roots
        self._field = scope.place.field
        self._usual = plain_markup(scope)
        #: What plain URLs get, and what those with a query get if that is different.
        self._first, self._further = scope.place.pieces(scope)

        self._waiting: list[bytes] = []
        self._out: list[bytes | memoryview | _Held] = []
        self._foreign: list[bytes] = []
        self._open: list[bytes] = []
        self._pending: deque[_Form] = deque()

    # --- In and out -------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> bytes:
        """Return what can go out, now that *chunk* has come."""
        if self._off:
            return self._passed(chunk)
        if self._is_first:
            chunk = self._buffer + chunk
            self._buffer = b""
            if len(chunk) < 2:
                self._buffer = chunk
                return b""
            self._is_first = False
            if chunk[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16, whatever the header says
                self._off = True
                return chunk
        rest = b""
        if self._sniffed:
            # ISO-2022-JP, which browsers guess: what looks like a tag may be Japanese.
            escape = chunk.find(b"\x1b")
            if escape >= 0:
                chunk, rest = chunk[:escape], chunk[escape:]
        if self._buffer and not rest and not self._is_due(chunk):
            self._waiting.append(chunk)
            self._waiting_size += len(chunk)
            return b""
        self._may_end = False
        if self._waiting:
            chunk = b"".join((*self._waiting, chunk))
            self._waiting.clear()
            self._waiting_size = 0
        buffer = self._buffer + chunk if self._buffer else chunk
        self._copied = self._ghost
        self._keep(buffer, self._scan(buffer))
        if rest:
            self._give_up()
            unfinished, self._buffer = self._buffer[self._ghost :], b""
            self._ghost = 0
            if BASE_TAG.match(unfinished):
                unfinished = self._passed(unfinished)
            self._out += unfinished, self._passed(rest)
        return self._flushed()

    def _is_due(self, chunk: bytes) -> bool:
        """Whether to look again at what is unfinished. To do so at each byte would take long."""
        self._credit += AGAIN * len(chunk)
        self._may_end = self._may_end or b">" in chunk
        if not self._may_end and IS_TAG.match(self._buffer):
            # No tag ends without one.
            return self._waiting_size + len(chunk) >= self._tag_limit // 4
        size = len(self._buffer) + self._waiting_size
        if self._credit < size:
            return False
        self._credit -= size
        return True

    def close(self) -> bytes:
        """Return what is left, when the page is over."""
        if self._waiting:
            buffer = b"".join((self._buffer, *self._waiting))
            self._waiting.clear()
            self._waiting_size = 0
            self._copied = self._ghost
            self._keep(buffer, self._scan(buffer))
        tail = self._buffer[self._ghost :]
        if self._raw == b"style" and not self._off:
            self._copied = 0
            self._in_style(tail, 0, len(tail), is_whole=True)
            tail = tail[self._copied :]
        end = self._offset + len(self._buffer)
        for form in self._pending:
            form.decide(not self._off and end - form.start <= self._form_limit)
        self._pending.clear()
        self._out.append(tail)
        self._buffer, self._off = b"", True
        return self._flushed()

    def _passed(self, chunk: bytes) -> bytes:
        """Return what we do not look into, less a base that would lead the links above away."""
        if self._relied is None or self._has_base:
            return chunk
        chunk = self._buffer + chunk
        tail = BASE_TAIL.search(chunk)
        at = tail.start() if tail else len(chunk)
        self._buffer = chunk[at:]
        # A link without a rel does nothing, and is empty as a base is.
        return BASE_TAG.sub(b"<link", chunk[:at])

    def _keep(self, buffer: bytes, consumed: int) -> None:
        if self._copied < consumed:
            self._out.append(buffer[self._copied : consumed])
        self._ghost = max(self._ghost - consumed, 0)
        self._buffer = buffer[consumed:]
        self._offset += consumed
        if not self._off and self._buffer:
            self._shorten()
        if self._off:
            rest, self._buffer = self._buffer[self._ghost :], b""
            self._ghost = 0
            self._out.append(self._passed(rest))
        pending = self._pending
        while pending and (
            not pending[0].held or self._offset - pending[0].start > self._form_limit
        ):
            pending.popleft().decide(False)

    def _flushed(self) -> bytes:
        if not self._is_holding:
            whole: list[bytes] = self._out  # type: ignore[assignment]
            joined = whole[0] if len(whole) == 1 else b"".join(whole)
            whole.clear()
            return joined
        ready: list[bytes | memoryview] = []
        for item in self._out:
            if isinstance(item, _Held):
                if item.choice is None:
                    break
                item = item.choice
            ready.append(item)
        del self._out[: len(ready)]
        self._is_holding = bool(self._out)
        return b"".join(ready)

    def _give_up(self) -> None:
        """Leave the rest as it is."""
        self._off = True
        for form in self._pending:
            form.decide(False)
        self._pending.clear()

    def _shorten(self) -> None:
        """Let the beginning of an unfinished token go, if all that counts is how it goes on."""
        buffer = self._buffer
        ghost = None
        if self._raw or buffer[:1] != b"<":
            return
        if self._plain or self._in_noscript or (buffer.startswith(CDATA) and self._is_unsure):
            # To be seen whole, or not at all.
            if len(buffer) - self._ghost > self._tag_limit:
                self._give_up()
            return
        if buffer.startswith(b"<!--"):
            if len(buffer) > 16:
                ghost, kept = b"<!--x", 3
        elif buffer.startswith((b"<!", b"<?")) or re.match(rb"</[^A-Za-z]", buffer):
            if len(buffer) > 16:
                ghost, kept = b"<?", 0
        elif len(buffer) - self._ghost > self._tag_limit:
            ghost, kept = beginning(buffer), 0
        if ghost is not None:
            size = len(buffer)
            self._out.append(buffer[self._ghost : size - kept])
            self._buffer = ghost + buffer[size - kept :]
            self._offset += size - kept - len(ghost)
            self._ghost = len(ghost)

    # --- Tokens -----------------------------------------------------------------------------

    @property
    def _is_unsure(self) -> bool:
        """Whether what is raw text in HTML may be something else here."""
        return bool(self._foreign or self._lost or self._select)

    def _scan(self, buffer: bytes) -> int:
        """Return up to where the buffer is done with."""
        at, size = 0, len(buffer)
        while True:
            if self._raw is not None:
                at = self._in_raw(buffer, at)
                if self._raw is not None or self._off:
                    return at
            elif self._plain is not None:
                done = self._in_plain(buffer, at)
                if done < 0 or self._off:
                    return at
                at = done
            is_svg = self._foreign or self._lost
            if self._open or is_svg or self._in_noscript or self._is_counting:
                at = TEXT.match(buffer, at).end()  # type: ignore[union-attr]
            elif self._usual is None or self._is_unusual(at):
                at = DULL.match(buffer, at).end()  # type: ignore[union-attr]
            else:
                at = self._in_plain_markup(buffer, at, self._usual)
            if at == size:
                return at
            tag = TAG.match(buffer, at)
            token = tag or self._other(buffer, at)
            if token is None or self._off:
                return at
            if self._in_noscript and self._is_disputed(token):
                self._give_up()
                return at
            if tag is not None:
                self._on_tag(buffer, tag)
            at = token.end()
            if self._off:
                return at

    def _is_unusual(self, at: int) -> bool:
        """Whether plain markup cannot be told by itself at this place."""
        is_held = self._form is not None and bool(self._form.held)
        return is_held or self._is_unsure or at < self._ghost

    def _in_plain_markup(self, buffer: bytes, at: int, usual: re.Pattern[bytes]) -> int:
        """Put the id where it goes in plain markup; return where that ends."""
        out, copied, limit = self._out, self._copied, self._tag_limit
        view = memoryview(buffer)
        is_long = len(buffer) - at > limit
        for found in usual.finditer(buffer, at):
            kind = found.lastgroup
            end = found.end()
            if kind is None:  # nothing but dull markup, so there is no other match
                at = end
                break
            if is_long and end - at > limit and end - found.start("start") > limit:
                at = found.start("start")
                break
            if kind == "is_first":
                place, new = found.end("first"), self._first
                self._relied = self._scope.base
            elif kind == "is_further":
                place, new = found.end("further"), self._further
                self._relied = self._scope.base
            elif (
                kind == "is_absolute"
                and found["root"] not in self._roots
                and buffer.find(self._id, found.start("start"), end) < 0
            ):
                at = end  # another origin's, and no id in it
                continue
            else:
                edits = self._in_other(buffer, found, kind)
                if edits is None:
                    at = found.start("start")
                    break
                for place, new in edits:
                    out += buffer[copied:place], new
                    copied = place
                at = end
                continue
            # Long stretches are copied once, when they go out.
            out.append(buffer[copied:place] if place - copied < 1000 else view[copied:place])
            out.append(new)
            copied = place
            at = end
        self._copied = copied
        return at

    def _in_other(
        self, buffer: bytes, found: re.Match[bytes], kind: str
    ) -> list[tuple[int, bytes]] | None:
        """Return what goes where in plain markup other than the plainest links.

        None if it has to be followed tag by tag.
        """
        match kind:
            case "is_table":
                self._has_table = True
                return []
            case "is_bare":
                edits = self._in_url(found, "bare_")
                if edits:
                    self._relied = self._scope.base
                quotes = [(found.end("bare"), b'"'), (found.end("bare_end"), b'"')]
                return [quotes[0], *edits, quotes[1]] if edits else []
            case "is_get" | "is_post" | "is_late_post":
                has_action = found.end("action") >= 0
                has_input = kind == "is_get" and self._field is not None
                is_whole = found.end() - found.start("start") <= self._form_limit
                if not (is_whole and self._takes_forms and (has_action or has_input)):
                    return None
                if has_input:
                    if has_action:
                        self._relied = self._scope.base
                    return [(found.end("open"), self._hidden_input())]
                edits = self._in_url(found, "form_")
                if edits:
                    self._relied = self._scope.base
                return edits
            case "is_absolute" if found["root"] in self._roots:
                return self._in_url(found, "root_")
            case "is_away" if found["away"].lower() in self._roots:
                return None
        is_leak = buffer.find(self._id, found.start("start"), found.end()) >= 0
        return None if is_leak else []

    def _in_url(self, found: re.Match[bytes], group: str) -> list[tuple[int, bytes]]:
        """Return what goes where in a plain URL; nothing if it has the id already."""
        place = found.end(f"{group}first")
        if place >= 0:
            return [(place, self._first)]
        return [(found.end(f"{group}further"), self._further)] if self._further else []

    def _hidden_input(self) -> bytes:
        """Return what gives a GET form the id."""
        if not self._input:
            assert self._field is not None
            name, value = escaped(self._field), escaped(self._scope.id)
            self._input = f'<input type="hidden" name="{name}" value="{value}">'.encode()
        return self._input

    @property
    def _takes_forms(self) -> bool:
        """Whether a whole form could have no effect beyond its end."""
        is_odd = self._untidy or self._template or self._is_inside_another
        return not (self._form or self._form_is_stuck or is_odd)

    @property
    def _is_counting(self) -> bool:
        """Whether what is open in a form is noted."""
        return self._form is not None and self._form.inside is not None

    def _is_disputed(self, token: re.Match[bytes]) -> bool:
        """Whether noscript ends inside a token, if its content is text for the browser."""
        text = token[0].lower()
        inside = text[2:] if NOSCRIPT_END.match(text) else text
        return b"</noscript" in inside or len(text) > self._tag_limit

    def _other(self, buffer: bytes, at: int) -> re.Match[bytes] | None:
        if not buffer.startswith(CDATA, at):
            return OTHER.match(buffer, at)
        if not self._is_unsure:
            return CDATA_AS_COMMENT.match(buffer, at)
        found = CDATA_EITHER_WAY.match(buffer, at)
        too_long = found is not None and found.end() - at > self._tag_limit
        if too_long or (found is None and CDATA_CONTRADICTS.match(buffer, at)):
            self._give_up()
        return found

    def _in_raw(self, buffer: bytes, at: int) -> int:
        """Return where raw text ends, or up to where it has been seen."""
        raw = self._raw
        assert raw is not None
        if raw == b"script":
            return self._in_script(buffer, at)
        ends = RAW_END_IN_NOSCRIPT if self._in_noscript else RAW_END
        end = ends[raw].search(buffer, at)
        if end is None:
            tail = buffer.find(b"<", max(at, len(buffer) - RAW_TAIL))
            stop = len(buffer) if tail < 0 else tail
            return self._in_style(buffer, at, stop) if raw == b"style" else stop
        if raw == b"style":
            self._in_style(buffer, at, end.start(), is_whole=True)
        if self._in_noscript and end[1]:
            self._give_up()
        self._raw = None
        return end.start()

    def _in_style(self, buffer: bytes, at: int, stop: int, *, is_whole: bool = False) -> int:
        """Tighten the policies in a style sheet; return up to where it has been seen."""
        spans, seen = lax_css(buffer, at, stop, is_whole=is_whole)
        for start, end in spans:
            self._replace(buffer, start, end, STRICT.encode())
        return seen

    def _in_plain_style(self, buffer: bytes, start: int, end: int) -> None:
        """The same for a whole one that may be one of svg, where it is not what is written."""
        css = buffer[start:end]
        if (b"&" in css or b"<" in css) and says_lax_in_svg(css):
            self._on_leak("in a Referer: by a policy in a style sheet")
            self._replace(buffer, start, end, b"")
        else:
            self._in_style(buffer, start, end, is_whole=True)

    def _in_script(self, buffer: bytes, at: int) -> int:
        if self._in_noscript:
            # Rare, and what ends it would be disputed.
            self._give_up()
            return at
        while found := SCRIPT.search(buffer, at):
            at = found.end()
            if found[1]:
                self._escaped = self._escaped or 1
                at -= 2  # its dashes count for --> as well
            elif found[2]:
                self._escaped = 0
            elif found[3]:
                if self._escaped < 2:
                    self._escaped = 0
                    self._raw = None
                    return found.start()
                self._escaped = 1
            elif self._escaped:
                self._escaped = 2
        return max(at, len(buffer) - RAW_TAIL)

    def _in_plain(self, buffer: bytes, at: int) -> int:
        """Return where plain content ends; -1 if that is not to be seen yet."""
        name = self._plain
        assert name is not None
        end = PLAIN.match(buffer, at).end()  # type: ignore[union-attr]
        if end - at <= self._tag_limit:
            if PLAIN_END[name].match(buffer, end):
                self._plain = None
                if name == b"style":
                    self._in_plain_style(buffer, at, end)
                return end
            # What is cut short in a mark is shorter than the longest.
            rest = buffer[end : end + 16].lower()
            unfinished = buffer.find(b"<", end + 1) < 0 and (
                buffer.startswith((b"<!--", CDATA), end)
                or any(mark.startswith(rest) for mark in (b"</" + name, b"<!--", CDATA_LOWER))
            )
            if unfinished and len(buffer) - at <= self._tag_limit:
                return -1
        self._plain = None
        if name in RAW:
            self._give_up()
        else:
            self._lose()
        return at

    # --- Tags -------------------------------------------------------------------------------

    def _on_tag(self, buffer: bytes, tag: re.Match[bytes]) -> None:
        start, end = tag.span()
        name = tag[2].lower()
        if tag[1]:
            self._on_end_tag(name, self._offset + end)
            return
        # A tag that began before the buffer, or is too long, has an effect but is not edited.
        is_seen = start >= self._ghost and end - start <= self._tag_limit
        attributes = None
        policy = _POLICY_IN_SVG if self._is_unsure or name == b"svg" else _POLICY
        if is_seen and (name in _EDITED or policy.search(buffer, start, end)):
            attributes = self._attributes(buffer, tag)
        self._follow(name, buffer, tag)
        styles = self._tightened_styles(buffer, attributes or {}, policy is _POLICY_IN_SVG)
        if not styles or name in _LINKS or name not in _EDITED:
            self._on_start_tag(name, buffer, tag, attributes, styles)
            return
        # Rare. What else is to be edited is edited in the tag as it is then.
        self._out.append(buffer[self._copied : start])
        tight = buffer[start:end]
        for first, last, new in sorted(styles, reverse=True):
            tight = tight[: first - start] + new + tight[last - start :]
        again = TAG.match(tight)
        assert again is not None
        self._copied, self._offset = 0, self._offset + start
        self._on_start_tag(name, tight, again, self._attributes(tight, again), [])
        self._out.append(tight[self._copied :])
        self._copied, self._offset = end, self._offset - start

    def _on_start_tag(
        self,
        name: bytes,
        buffer: bytes,
        tag: re.Match[bytes],
        attributes: dict[bytes, Attribute] | None,
        styles: list[tuple[int, int, bytes]],
    ) -> None:
        if name == b"base":
            self._on_base(buffer, tag, attributes)
        elif name == b"form":
            self._on_form(buffer, tag, attributes)
        elif attributes is None:
            if name in _SUBMITTERS:
                self._on_foreign_submitter(by_name=True)
        elif name in _SUBMITTERS:
            self._on_control(name, buffer, tag, attributes)
        elif name == b"meta":
            self._on_meta(buffer, attributes)
        elif name in _LINKS:
            self._on_link(name, buffer, attributes, styles)
        else:
            styles += self._tightened(buffer, attributes.get(b"referrerpolicy"))
            if name == b"script":
                styles += self._without_rules(buffer, attributes.get(b"type"))
            for edit in sorted(styles):
                self._replace(buffer, *edit)

    def _follow(self, name: bytes, buffer: bytes, tag: re.Match[bytes]) -> None:
        """Note where a start tag leads us."""
        was_unsure = self._is_unsure
        in_foreign = bool(self._foreign)
        is_closed = (in_foreign or name in (b"svg", b"math")) and closes_itself(buffer, tag)
        if in_foreign and name in BREAKOUT:
            self._lose_order()
        if name not in VOID and not is_closed and not (name == b"form" and self._form):
            counts = name in FORMATTING or name in (b"svg", b"math")
            if not self._untidy and (self._open or counts):
                self._open.append(name)
                if len(self._open) > DEPTH_LIMIT:
                    self._lose_order()
        inside = self._form.inside if self._form else None
        if inside is not None and name not in VOID and not is_closed and name != b"form":
            inside.append(name)
            if len(inside) > DEPTH_LIMIT:
                self._lose_form()
        match name:
            case b"svg" | b"math" if not is_closed:
                self._foreign.append(name)
                if len(self._foreign) > DEPTH_LIMIT:
                    self._lose()
            case b"select":
                self._select += 1
            case b"template":
                self._template += 1
                if self._select:
                    self._lose()
            case b"noscript":
                self._in_noscript = True
            case b"frameset":
                self._lose()
            case b"table":
                self._has_table = True
            case b"plaintext":
                self._give_up()
                if not was_unsure and not self._in_noscript:
                    self._relied = None  # what follows is text, and holds no base
        if is_closed:
            if name in RAW:
                self._lose()  # closed in svg, but not in HTML
        elif name in RAW and not was_unsure:
            self._raw = name
            self._escaped = 0
        elif name in RAW or (in_foreign and name in HOLDS_HTML):
            self._plain = name

    def _lose_form(self) -> None:
        """Where the open form ends in the tree cannot be told."""
        assert self._form is not None
        self._form.inside = None
        self._is_inside_another |= self._form.leads_away

    def _on_end_tag(self, name: bytes, end: int) -> None:
        inside = self._form.inside if self._form else None
        if inside is not None:
            closed = _CLOSED_BY_FORM if name == b"form" else _CLOSED_BY_OTHERS
            while inside and inside[-1] != name and inside[-1] in closed:
                inside.pop()
            if inside and inside[-1] == name:
                inside.pop()
            elif (inside or name != b"form") and name not in _NEVER_STRAY:
                self._lose_form()
        if self._open:
            if self._open[-1] == name:
                self._open.pop()
            else:
                self._lose_order()
        match name:
            case b"svg" | b"math" if self._foreign:
                if self._foreign.pop() != name:
                    self._lose()
            case b"select" if self._select:
                self._select -= 1
            case b"template" if self._template:
                self._template -= 1
            case b"noscript" if self._in_noscript:
                self._in_noscript = False
                if self._form and self._form.in_noscript:
                    self._form_is_stuck = True
            case b"form" if self._form and not self._template:
                self._on_form_end(self._form, end)

    def _lose_order(self) -> None:
        """Elements are not closed in their order: a form's end tag need not end it."""
        self._untidy = True
        self._open.clear()
        if self._form:
            self._form.to_the_end = True

    def _lose(self) -> None:
        """Whether this is HTML, svg or select cannot be told any more."""
        self._lost = True
        self._foreign.clear()
        self._lose_order()

    # --- Links ------------------------------------------------------------------------------

    def _on_link(
        self,
        name: bytes,
        buffer: bytes,
        attributes: dict[bytes, Attribute],
        edits: list[tuple[int, int, bytes]],
    ) -> None:
        edits += self._tightened(buffer, attributes.get(b"referrerpolicy"))
        if name == b"iframe" and b"srcdoc" in attributes:
            edits += self._tightened_document(buffer, attributes[b"srcdoc"])
        attribute = attributes.get(_LINKS[name])
        if attribute is None and name == b"a" and self._is_unsure:
            attribute = attributes.get(b"xlink:href")
        if attribute is not None:
            text, marks = decoded(buffer[attribute.start : attribute.end])
            ping = attributes.get(b"ping") if name in (b"a", b"area") else None
            is_told = ping is not None and self._pings_abroad(buffer, ping)
            if ping is not None and is_told and self._scope.has_id(text):
                # It tells the link's URL, and by plain HTTP the page's too.
                edits.append(_emptied(ping))
                is_told = False
            if not is_told:
                edits += self._link_edits(name, buffer, attribute, text, marks)
        for edit in sorted(edits):
            self._replace(buffer, *edit)

    def _link_edits(
        self,
        name: bytes,
        buffer: bytes,
        attribute: Attribute,
        text: str,
        marks: list[int] | None,
    ) -> list[tuple[int, int, bytes]]:
        """Return what puts the id on a link, if that is right."""
        if name in (b"iframe", b"frame") and text.strip(_BLANK)[:1] in ("", "#"):
            return []  # no page, or the page in itself
        edits = self._scope.edits(text)
        if edits:
            found = self._written(buffer, attribute, text, marks, edits)
            return [found] if found else []
        if edits is None:
            self._look_for_leak(text, name)
        return []

    def _pings_abroad(self, buffer: bytes, ping: Attribute) -> bool:
        """Whether a link's ping (HTML, "hyperlink auditing") goes to another origin."""
        urls = decoded(buffer[ping.start : ping.end])[0].split()
        if not all(map(self._scope.stays, urls)):
            return True
        if urls and not all(map(_ABSOLUTE.match, urls)):
            self._relied = self._scope.base
        return False

    def _tightened(self, buffer: bytes, policy: Attribute | None) -> list[tuple[int, int, bytes]]:
        """Return what keeps the page's URL from other origins, if this policy does not."""
        if policy is None or not _is_lax(buffer, policy):
            return []
        return [(policy.start, policy.end, STRICT.encode())]

    def _without_rules(self, buffer: bytes, kind: Attribute | None) -> list[tuple[int, int, bytes]]:
        """Return what keeps a script from being rules by which pages are fetched ahead."""
        if kind is None:
            return []
        text, _ = decoded(buffer[kind.start : kind.end])
        is_rules = text.strip(_BLANK).lower() == _RULES
        return [(kind.start, kind.end, f"no-{_RULES}".encode())] if is_rules else []

    def _tightened_styles(
        self, buffer: bytes, attributes: dict[bytes, Attribute], in_svg: bool
    ) -> list[tuple[int, int, bytes]]:
        """Return the same for what is CSS in attributes: in svg, that may be any."""
        edits = []
        for name, attribute in attributes.items():
            if name != b"style" and not in_svg:
                continue
            text, marks = decoded(buffer[attribute.start : attribute.end])
            spans, _ = lax_css(text.encode("latin-1"), 0, len(text), is_whole=True)
            if spans:
                changes = [(start, end, STRICT) for start, end in spans]
                found = written(buffer, attribute, text, marks, changes)
                edits.append(found or _emptied(attribute))
        return edits

    def _tightened_document(
        self, buffer: bytes, attribute: Attribute
    ) -> list[tuple[int, int, bytes]]:
        """Return the same for a document in an attribute."""
        text, marks = decoded(buffer[attribute.start : attribute.end])
        tight = tightened_html(text)
        if tight is not None and not self._is_calm(tight):
            tight = None
        if tight == text:
            return []
        if tight is not None:
            found = written(buffer, attribute, text, marks, [(0, len(text), tight)])
            if found is not None:
                return [found]
        self._on_leak("in a Referer: by a policy in the document of a frame")
        return [_emptied(attribute)]

    def _is_calm(self, document: str) -> bool:
        """Whether a document in an attribute, read as a page, is left as it is and to its end."""
        if self._depth == _DEEPEST:
            return False
        page = HtmlRewriter(self._scope.nowhere(), sniffed=False, on_leak=self._on_leak)
        page._depth, page._field = self._depth + 1, None
        text = document.encode("latin-1")
        seen = page.feed(text)
        return not page._off and seen + page.close() == text

    def _on_meta(self, buffer: bytes, attributes: dict[bytes, Attribute]) -> None:
        content = attributes.get(b"content")
        name = attributes.get(b"name")
        if name and decoded(buffer[name.start : name.end])[0].lower() == "referrer":
            for edit in self._tightened(buffer, content):
                self._replace(buffer, *edit)
            return
        kind = attributes.get(b"http-equiv")
        if kind is None or content is None:
            return
        if decoded(buffer[kind.start : kind.end])[0].lower() != "refresh":
            return
        text, marks = decoded(buffer[content.start : content.end])
        edits = self._scope.refresh_edits(text)
        if edits:
            self._relied = self._scope.base
            self._edit(buffer, content, text, marks, edits)
        elif edits is None:
            self._look_for_leak(text, b"meta")

    def _on_base(
        self, buffer: bytes, tag: re.Match[bytes], attributes: dict[bytes, Attribute] | None
    ) -> None:
        if attributes is None:
            self._give_up()
            return
        href = attributes.get(b"href")
        if href is None or self._template:
            return  # no effect, or no part of the document
        text, _ = decoded(buffer[href.start : href.end])
        scope = self._scope.under(text)
        is_sure = not self._is_unsure and not self._in_noscript
        if self._has_base and is_sure and not self._has_table:
            return  # the first counts, and what a table throws out may come before it
        if self._relied is not None and not _is_harmless(scope, self._relied):
            # The links above have gone out with the id, and would follow this base.
            self._on_leak("a base behind links")
            for each in ATTRIBUTES.finditer(buffer, tag.end(2), tag.end()):
                if each[1].lower() == b"href":  # the next one would count without the first
                    self._replace(buffer, each.start(1), each.start(1), b"data-")
            return
        if self._has_base or not is_sure or self._is_blind:
            self._is_blind = True
            scope = self._scope.under("data:")
        else:
            self._has_base = True
        self._scope = scope
        self._usual = plain_markup(scope)

    # --- Forms ------------------------------------------------------------------------------

    def _on_form(
        self,
        buffer: bytes,
        tag: re.Match[bytes],
        attributes: dict[bytes, Attribute] | None,
    ) -> None:
        if self._form and not self._template:
            return  # browsers ignore a form in a form
        method = ""
        action = None
        if attributes is not None:
            if b"method" in attributes:
                found = attributes[b"method"]
                method = decoded(buffer[found.start : found.end])[0].lower()
            action = attributes.get(b"action")
        is_get = method not in ("post", "dialog")
        form = _Form(self._offset + tag.start(), is_get=is_get, in_noscript=self._in_noscript)
        if not self._template:
            self._form = form
            self._form_is_stuck |= self._is_unsure
            if self._field is not None:
                form.inside = []
        if attributes is None or method == "dialog":
            form.leads_away = attributes is None
            self.leads_away |= form.leads_away
            return

        if action is None:
            text, marks = "", None
        else:
            text, marks = decoded(buffer[action.start : action.end])
            form.leads_away = bool(text) and self._scope.read(text) is None
            self.leads_away |= form.leads_away
        if is_get and self._field is not None:
            self._hold(buffer, tag, attributes, form, text, marks)
        elif text:
            assert action is not None
            edits = self._scope.edits(text, navigates=True)
            if edits:
                self._edit(buffer, action, text, marks, edits)
            elif edits is None:
                self._look_for_leak(text, b"form")
        elif here := self._scope.here():
            # Without an action it is the page's own URL, whatever the base.
            if self._scope.at_home:
                self._relied = self._scope.base
            if action is None:
                written = escaped(here).encode("latin-1")
                self._replace(buffer, tag.end(2), tag.end(2), b' action="' + written + b'"')
            else:
                self._edit(buffer, action, text, marks, [(0, 0, here)])

    def _hold(
        self,
        buffer: bytes,
        tag: re.Match[bytes],
        attributes: dict[bytes, Attribute],
        form: _Form,
        text: str,
        marks: list[int] | None,
    ) -> None:
        """Wait for the end of a GET form, to see whether its hidden input would stay with us."""
        is_ours = not text or self._scope.read(text) is not None
        if not is_ours:
            self._look_for_leak(text, b"form")
            return
        if self._template or self._form_is_stuck or self._is_inside_another:
            return
        if b"id" in attributes:
            # Any element of the page may name it as its form.
            form.to_the_end = True
            if self._foreign_by_name:
                self._on_leak("a form with a submitter of another origin")
                return
        if self._untidy or self._open:
            # What is open here may be opened again inside the form, and stay open behind it.
            form.to_the_end = True
        if not self._untidy:
            self._open.append(b"form")
        if text and not _ABSOLUTE.match(text):
            self._relied = self._scope.base
        start, end = tag.span()
        with_id = plain = tag[0]
        if text:
            action = attributes[b"action"]
            edits = self._scope.bare_edits(text)
            if edits:
                found = written(buffer, action, text, marks, edits)
                if found is not None:
                    at, stop, new = found
                    with_id = buffer[start:at] + new + buffer[stop:end]
        self._put(buffer, start, end, _Held(plain, with_id + self._hidden_input()), form)
        self._pending.append(form)

    def _on_form_end(self, form: _Form, end: int) -> None:
        if self._is_unsure or (self._in_noscript and not form.in_noscript):
            # Some browsers end the form here, and some do not.
            self._form_is_stuck = True
        if self._form_is_stuck:
            return
        self._form = None
        if form.held and not form.to_the_end:
            form.decide(end - form.start <= self._form_limit)

    def _on_control(
        self,
        name: bytes,
        buffer: bytes,
        tag: re.Match[bytes],
        attributes: dict[bytes, Attribute],
    ) -> None:
        values = {
            key: decoded(buffer[found.start : found.end])[0] for key, found in attributes.items()
        }
        action = attributes.get(b"formaction")
        if action is not None and name in (b"button", b"input"):
            text, marks = decoded(buffer[action.start : action.end])
            if text and self._scope.read(text) is None:
                self._look_for_leak(text, name)
                self._on_foreign_submitter(by_name=b"form" in attributes)
            else:
                self._on_own_submitter(buffer, action, text, marks, values)
        form = self._form
        if form and form.held and values.get(b"name") == self._field and b"form" not in values:
            self._on_field(name, buffer, tag, attributes, values, form)

    def _on_own_submitter(
        self,
        buffer: bytes,
        action: Attribute,
        text: str,
        marks: list[int] | None,
        values: dict[bytes, str],
    ) -> None:
        method = values.get(b"formmethod", "").lower()
        by_get = self._form is not None and self._form.is_get and b"form" not in values
        if self._field is not None and (method == "get" or (by_get and method != "post")):
            return  # its query is thrown away; the hidden input goes with it
        if text:
            edits = self._scope.edits(text, navigates=True)
        else:
            here = self._scope.here()
            edits = [(0, 0, here)] if here else None
        if edits:
            self._edit(buffer, action, text, marks, edits)

    def _on_foreign_submitter(self, *, by_name: bool) -> None:
        """Keep the id from the forms that it may submit."""
        self._foreign_by_name |= by_name
        form = self._form
        self.leads_away = True
        if form:
            form.leads_away = True
        if form and not by_name and not self._template and not self._form_is_stuck:
            forms = [form]
        else:
            forms = [*self._pending, *([form] if form else [])]
            self._pending.clear()
        for each in forms:
            if each.held:
                self._on_leak("a form with a submitter of another origin")
                each.decide(False)

    def _on_field(
        self,
        name: bytes,
        buffer: bytes,
        tag: re.Match[bytes],
        attributes: dict[bytes, Attribute],
        values: dict[bytes, str],
        form: _Form,
    ) -> None:
        """The application has put a field of our name into a form that waits."""
        is_hidden = name == b"input" and values.get(b"type", "").lower() == "hidden"
        is_sure = not self._is_unsure and not self._in_noscript and not self._template
        if not is_hidden or not is_sure or b"value" not in values or len(form.held) > 1:
            form.decide(False)
            return
        first = form.held[0]
        first.with_id = first.with_id[: first.with_id.rindex(b"<input ")]
        start, end = tag.span()
        with_id = tag[0]
        value = attributes[b"value"]
        text = values[b"value"]
        if text != self._scope.id:
            edits: Edits = [(0, len(text), self._scope.id)]
            _, marks = decoded(buffer[value.start : value.end])
            found = written(buffer, value, text, marks, edits)
            if found is None:
                form.decide(False)
                return
            at, stop, new = found
            with_id = buffer[start:at] + new + buffer[stop:end]
        self._put(buffer, start, end, _Held(tag[0], with_id), form)

    # --- Edits ------------------------------------------------------------------------------

    def _attributes(self, buffer: bytes, tag: re.Match[bytes]) -> dict[bytes, Attribute]:
        """Return the attributes by name in lower case. The first of a name counts."""
        found: dict[bytes, Attribute] = {}
        for each in ATTRIBUTES.finditer(buffer, tag.end(2), tag.end()):
            which = each.lastindex
            if which is None:
                break  # behind the last
            if which > 2:
                start, end = each.span(which)
                kind = (b'"', b"'", b" ")[which - 3]
            else:
                start = end = each.end()
                kind = b"=" if which == 2 else b""
            found.setdefault(each[1].lower(), Attribute(each.start(1), start, end, kind))
        return found

    def _edit(
        self,
        buffer: bytes,
        attribute: Attribute,
        text: str,
        marks: list[int] | None,
        edits: Edits,
    ) -> None:
        found = self._written(buffer, attribute, text, marks, edits)
        if found is not None:
            self._replace(buffer, *found)

    def _written(
        self,
        buffer: bytes,
        attribute: Attribute,
        text: str,
        marks: list[int] | None,
        edits: Edits,
    ) -> tuple[int, int, bytes] | None:
        found = written(buffer, attribute, text, marks, edits)
        if found is not None and not _ABSOLUTE.match(text):
            self._relied = self._scope.base
        return found

    def _replace(self, buffer: bytes, start: int, end: int, new: bytes) -> None:
        self._out += buffer[self._copied : start], new
        self._copied = end

    def _put(self, buffer: bytes, start: int, end: int, held: _Held, form: _Form) -> None:
        self._out += buffer[self._copied : start], held
        self._is_holding = True
        self._copied = end
        form.held.append(held)

    def _look_for_leak(self, text: str, name: bytes) -> None:
        if self._scope.id in text:
            self._on_leak(f"a URL of another origin in <{name.decode()}>")


def _is_lax(buffer: bytes, policy: Attribute) -> bool:
    """Whether a referrer policy is one that tells too much.

    A list is meant to end in what the browser knows, so any word of it may be what counts.
    """
    words = _WORDS.findall(decoded(buffer[policy.start : policy.end])[0].lower())
    return not _LAX.isdisjoint(words)


def _emptied(attribute: Attribute) -> tuple[int, int, bytes]:
    return attribute.start, attribute.end, b"" if attribute.kind in (b'"', b"'") else b'""'


def _is_harmless(scope: Scope, relied: Base) -> bool:
    """Whether relative URLs that got the id under a base stay inside under the scope's."""
    base = scope.base
    return base.own and (not scope.mount or base.segments[:-1] == relied.segments[:-1])
