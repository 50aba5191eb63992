"""HTML as bytes: its tokens as patterns, attributes and what their values mean.

After the HTML standard, section 13.2.5. The patterns are possessive: what a token has taken it
keeps, so that no text takes more than linear time, and a token that the buffer holds only in part
is no match.
"""

from __future__ import annotations

import re
from html.entities import html5
from typing import Final, NamedTuple

from nocookie.places import Edits, edited
from nocookie.policies import CALM_STYLE

__all__ = [
    "ATTRIBUTES",
    "BASE_TAG",
    "BASE_TAIL",
    "BREAKOUT",
    "CDATA",
    "CDATA_AS_COMMENT",
    "CDATA_CONTRADICTS",
    "CDATA_EITHER_WAY",
    "CDATA_LOWER",
    "DEPTH_LIMIT",
    "DULL",
    "DULL_QUICKLY",
    "DULL_SLOWLY",
    "FORMATTING",
    "HOLDS_HTML",
    "IS_QUOTED",
    "IS_TAG",
    "NOSCRIPT_END",
    "OTHER",
    "PLAIN",
    "PLAIN_END",
    "RAW",
    "RAW_END",
    "RAW_END_IN_NOSCRIPT",
    "RAW_TAIL",
    "SCRIPT",
    "TAG",
    "TEXT",
    "UNTOLD",
    "VOID",
    "Attribute",
    "beginning",
    "closes_itself",
    "decoded",
    "escaped",
    "written",
]

# Possessive throughout: what a token has taken it keeps, so no text takes quadratic time.
_NAME_ENDS: Final = rb"(?=[\t\n\f\r />])"
#: A name and its value. A name may start with `=`, but not right behind another name.
_ATTRIBUTE: Final = rb"""[\t\n\f\r /]*+([^\t\n\f\r />][^\t\n\f\r />=]*+)
    (?:[\t\n\f\r ]*+(=)[\t\n\f\r ]*+
        (?:"([^"]*+)"|'([^']*+)'|([^\t\n\f\r >"'][^\t\n\f\r >]*+)|(?=>))
    |(?![\t\n\f\r ]*+=))"""
_REST: Final = (
    rb"(?:[\t\n\f\r ]++%s[\w:.-]++=\"[^\"]*+\")*+"  # nearly every attribute looks so
    rb"(?:[\t\n\f\r /]*+%s%s)*+[\t\n\f\r /]*+>"
)
_NAMELESS: Final = re.sub(rb"\((?!\?)", rb"(?:", _ATTRIBUTE).removeprefix(rb"[\t\n\f\r /]*+")
_ANY_REST: Final = _REST % (b"", b"", _NAMELESS)
#: Not before an attribute that may have a browser tell more of the page's URL than its origin.
UNTOLD: Final = (
    rb"(?![rR](?i:eferrerpolicy)(?!=[\"'](?:no-referrer|same-origin|(?:strict-)?origin"
    rb"(?:-when-cross-origin)?)[\"'])[\t\n\f\r />=]"
    rb"|[sS](?i:rcdoc[\t\n\f\r />=]|tyle(?!=%s)[\t\n\f\r />=]))" % CALM_STYLE
)
_UNTOLD_REST: Final = _REST % (UNTOLD, UNTOLD, _NAMELESS)
_COMMENT: Final = rb"<!--(?:-?>|(?:[^-]++|-(?!-!?>))*+--!?>)"
#: Doctypes, and what the standard calls bogus comments.
_BOGUS: Final = rb"<(?:!(?!--|\[CDATA\[)|\?|/(?![A-Za-z]))[^>]*+>"
#: A `<` that opens nothing.
_STRAY: Final = rb"<(?=[^A-Za-z/!?])"


def _names(*names: str) -> bytes:
    return rb"(?i:%s)%s" % ("|".join(names).encode(), _NAME_ENDS)


#: Tags that mean something here, first letters in common taken out.
_TELLING: Final = rb"(?:%s|/%s)" % (
    _names(
        "a(?:rea)?|b(?:ase|ig|utton)?|code|em|f(?:o(?:nt|rm)|rame(?:set)?)|i(?:frame|nput)?",
        "m(?:ath|eta)|no(?:br|embed|frames|script)|plaintext",
        "s(?:cript|elect|mall|tr(?:ike|ong)|tyle|vg)?|t(?:able|e(?:mplate|xtarea)|itle|t)|u|xmp",
    ),
    _names("form|math|noscript|select|svg|template"),
)
FORMATTING: Final = frozenset(b"a b big code em font i nobr s small strike strong tt u".split())

TAG: Final = re.compile(rb"(?x)<(/?)([A-Za-z][^\t\n\f\r />]*+)" + _ANY_REST)
#: Each attribute of a tag; and, as a match of no group, what is left behind the last: to find none
#: in it would else be tried at each of its characters.
ATTRIBUTES: Final = re.compile(rb"(?x)" + _ATTRIBUTE + rb"|[\t\n\f\r /]++")
OTHER: Final = re.compile(b"|".join((_COMMENT, _BOGUS, _STRAY)))
#: An unfinished tag: its name, what is between, and the name and value that it stops in.
_UNFINISHED: Final = re.compile(
    rb"""(?x)(</?[A-Za-z][^\t\n\f\r />]*+)
    (?:[\t\n\f\r /]*+[^\t\n\f\r />][^\t\n\f\r />=]*+
        (?:[\t\n\f\r ]*+=[\t\n\f\r ]*+
            (?:"[^"]*+"|'[^']*+'|[^\t\n\f\r >"'][^\t\n\f\r >]*+(?=[\t\n\f\r ]))
        |(?=[\t\n\f\r ]*+[^\t\n\f\r =])))*+
    ([\t\n\f\r /]*+)
    (?:([^\t\n\f\r />][^\t\n\f\r />=]*+)([\t\n\f\r ]*+)(?:(=)[\t\n\f\r ]*+(["']|[^"'])?)?)?"""
)
NOSCRIPT_END: Final = re.compile(rb"</" + _names("noscript"))
BASE_TAG: Final = re.compile(rb"<" + _names("base"))
BASE_TAIL: Final = re.compile(rb"(?i)<(?:b(?:a(?:se?)?)?)?\Z")
IS_TAG: Final = re.compile(rb"</?[A-Za-z]")
TEXT: Final = re.compile(rb"[^<]*+")
#: What means nothing here: as it is commonly written, with few blanks or in capitals, and in any
#: way. A branch whose first character is known is skipped for next to nothing, a loop over one
#: character is fast and one over a group slow; so the common ways are worth their own.
_QUOTED: Final = rb"(?:\"[^\"]*+\"|'[^']*+')"
#: The same behind an equals sign, alone or between blanks.
IS_QUOTED: Final = rb"(?:=\"[^\"]*+\"|\ =\ \"[^\"]*+\"|='[^']*+'|\ =\ '[^']*+')"
DULL_QUICKLY: Final = (
    rb"<(?:/(?:div|span|p|li|[a-eg-lo-ru-z][a-z0-9-]*+|t[drh]|strong|section|small|table|nav|main"
    rb"|footer|DIV|SPAN|P|LI|[A-EG-LO-RU-Z][A-Z0-9-]*+|T[DRH]|TABLE)>"
    rb"|(?:div|p|span|img|[dghj-loqrvwyz][a-z0-9-]*+|t[drh]|ul|b(?:r|ody)|section|nav|main|footer)"
    rb"(?:\ (?:[a-qt-z][a-z-]*+=%s|s(?:rc=%s|tyle=%s|(?!tyle=|rcdoc=)[a-z-]*+=%s)))*+>"
    rb"|(?:DIV|P|SPAN|IMG|[DGHJ-LOQRVWYZ][A-Z0-9-]*+|T[DRH]|UL|B(?:R|ODY))"
    rb"(?:\ (?:[A-QT-Z][A-Z-]*+|SRC)%s)*+>"
    rb"|!(?:--(?!-?>)[^-]*+-->|(?i:doctype)[^>]*+>))[^<]*+|[^<]++"
    % (_QUOTED, _QUOTED, CALM_STYLE, _QUOTED, IS_QUOTED)
)
_DULL_NAME: Final = rb"(?:[dghj-loqrvwyzDGHJ-LOQRVWYZ][a-zA-Z0-9-]*+|p|span|t[drh]|ul|img|br)"
#: Text in an element that would be opened again if it were left open. Said for each name: a group
#: in a possessive loop can end up with a wrong span, for which `re` raises SystemError.
_FORMATTED: Final = b"|".join(
    rb"[%c%c](?i:%s)%s%s[^<]*+</(?i:%s)>"
    % (name[0], name.upper()[0], name[1:], _NAME_ENDS, _UNTOLD_REST, name)
    for name in b"b big code em font i nobr s small strike strong tt u".split()
)
DULL_SLOWLY: Final = (
    rb"<%s(?:\ %s[a-zA-Z-]++(?:\ ?+=\ ?+%s|=[\w%%#.-]++(?=[\ >])|(?=[\ >])))*+\ ?+/?+>"
    rb"|<(?!%s)/?[A-Za-z][^\t\n\f\r />]*+%s"
    rb"|<(?:%s)|%s|%s|%s"
    % (_DULL_NAME, UNTOLD, _QUOTED, _TELLING, _UNTOLD_REST, _FORMATTED, _COMMENT, _BOGUS, _STRAY)
)
#: Everything up to the next tag that means something.
DULL: Final = re.compile(rb"(?x)(?:%s|%s)*+" % (DULL_QUICKLY, DULL_SLOWLY))

CDATA: Final = b"<![CDATA["
CDATA_LOWER: Final = CDATA.lower()
CDATA_CONTRADICTS: Final = re.compile(rb"<!\[CDATA\[(?:(?!\]\]>)[^>])*+>(?:(?!\]\]>)[^<])*+<")
#: A CDATA section that ends at the same place as the comment HTML takes it for.
CDATA_EITHER_WAY: Final = re.compile(
    rb"<!\[CDATA\[(?:(?!\]\]>)[^>])*+(?:\]\]>|>(?:(?!\]\]>)[^<])*+\]\]>)"
)
CDATA_AS_COMMENT: Final = re.compile(rb"<!\[CDATA\[[^>]*+>")

#: Elements whose content is text, up to their end tag.
RAW: Final = frozenset(b"iframe noembed noframes script style textarea title xmp".split())
RAW_END: Final = {name: re.compile(rb"</" + _names(name.decode())) for name in RAW}
RAW_END_IN_NOSCRIPT: Final = {
    name: re.compile(rb"</(?:%s|(?i:(noscript)))" % _names(name.decode())) for name in RAW
}
SCRIPT: Final = re.compile(rb"(<!--)|(-->)|<(/?)%s" % _names("script"))
#: The longest thing that ends raw text, `</textarea>` or `</noscript`, less its last byte.
RAW_TAIL: Final = 10
#: Content that is text in HTML, and holds no tags if it is not.
PLAIN_END: Final = {
    name: re.compile(rb"</" + _names(name.decode()))
    for name in (*RAW, *b"title desc foreignobject mi mo mn ms mtext annotation-xml".split())
}
PLAIN: Final = re.compile(
    rb"[^<]*+(?:<!--(?:(?!-->)[^<])*+-->[^<]*+|<!\[CDATA\[(?:(?!\]\]>)[^<])*+\]\]>[^<]*+)*+"
)

VOID: Final = frozenset(
    b"area base br col embed hr img input link meta param source track wbr".split()
)
#: Start tags that end `svg` and `math` (HTML, "any other start tag in foreign content").
BREAKOUT: Final = frozenset(
    b"""b big blockquote body br center code dd div dl dt em embed font h1 h2 h3 h4 h5 h6 head hr
    i img li listing menu meta nobr ol p pre ruby s small span strike strong sub sup table tt u ul
    var""".split()
)
#: Elements of `svg` and `math` that hold HTML.
HOLDS_HTML: Final = frozenset(b"title desc foreignobject mi mo mn ms mtext annotation-xml".split())
#: Deeper than any page; then its order is taken for lost.
DEPTH_LIMIT: Final = 500

#: And a NUL, which the tokenizer takes for U+FFFD (HTML, "attribute value states").
_REFERENCE: Final = re.compile(
    rb"&(?:#([0-9]+);?|#[xX]([0-9A-Fa-f]+);?|([A-Za-z][A-Za-z0-9]*)(;?))|\0"
)
#: Where numeric references do not mean the number (HTML, "numeric character reference end").
_WINDOWS_1252: Final = {
    n: bytes([n]).decode("windows-1252", "replace") for n in range(0x80, 0xA0)
} | {n: chr(n) for n in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}


class Attribute(NamedTuple):
    at: int
    """Where its name starts."""
    start: int
    end: int
    #: What stands around the value: a quote; nothing; `=` if there is no value behind it; the
    #: empty bytes if there is no `=` either.
    kind: bytes


def closes_itself(buffer: bytes, tag: re.Match[bytes]) -> bool:
    end = tag.end(2)
    for attribute in ATTRIBUTES.finditer(buffer, end, tag.end()):
        if attribute.lastindex is not None:
            end = attribute.end()
    return buffer.endswith(b"/", end, tag.end() - 1)  # and not in an unquoted value


def beginning(tag: bytes) -> bytes:
    """Return a short tag that goes on as this unfinished one does."""
    found = _UNFINISHED.match(tag)
    assert found is not None
    name, between, attribute, space, equals, value = found.groups()
    if len(name) > 32:  # longer than any that counts
        name = name[:2] + b"-" * 32
    if attribute is None:
        if found.end() == found.end(1):
            return name
        return name + (b" /" if between.endswith(b"/") else b" " if between else b' a=""')
    if equals is None:
        return name + (b" a " if space else b" a")
    if value is None:
        return name + b" a="
    return name + b" a=" + (value if value in b"\"'" else b"b")


def written(
    buffer: bytes, attribute: Attribute, text: str, marks: list[int] | None, edits: Edits
) -> tuple[int, int, bytes] | None:
    """Return the bytes that make *edits* in an attribute; None if they would not say that."""
    _, start, end, kind = attribute
    raw = buffer[start:end]
    if kind in (b"=", b""):
        new = escaped(edited("", edits)).encode("latin-1")
        return start, end, (b"" if kind else b"=") + b'"' + new + b'"'
    parts: list[bytes] = []
    at = 0
    for first, last, replacement in edits:
        if marks is not None:
            first, last = marks[first], marks[last]
        parts += raw[at:first], escaped(replacement).encode("latin-1")
        at = last
    new = b"".join((*parts, raw[at:]))
    if marks is not None and decoded(new)[0] != edited(text, edits):
        return None  # an unfinished reference that what is new would finish
    if kind == b" ":
        if b'"' in raw:
            return None
        new = b'"' + new + b'"'
    return start, end, new


def escaped(text: str) -> str:
    """Return what stands for a text in an attribute, in quotes of either kind."""
    # str.translate raises, and catches, a KeyError for each letter that it leaves as it is.
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return text.replace('"', "&quot;").replace("'", "&#39;")


def decoded(raw: bytes) -> tuple[str, list[int] | None]:
    """Return what a browser takes for an attribute's value, one character per byte.

    If there are references in it, say also where in *raw* each character starts, and the end.
    """
    text = raw.decode("latin-1")
    if "&" not in text and "\0" not in text:  # of bytes, that takes long
        return text, None
    parts: list[str] = []
    marks: list[int] = []
    at = 0
    for found in _REFERENCE.finditer(raw):
        meant = _meant(raw, found)
        if meant is not None:
            start, end = found.span()
            marks += range(at, start)
            parts += text[at:start], meant
            marks += [start] * len(meant)
            at = end
    parts.append(text[at:])
    marks += range(at, len(raw) + 1)
    return "".join(parts), marks


def _meant(raw: bytes, found: re.Match[bytes]) -> str | None:
    """Return what a character reference in an attribute stands for, if it is one; or a NUL."""
    decimal, hexadecimal, name, mark = found.groups()
    if name is not None:
        character = html5.get((name + mark).decode())
        if character is None or (not mark and raw.startswith(b"=", found.end())):
            return None
    elif found[0] == b"\0":
        character = "\ufffd"
    else:
        # More digits than a code point has, and than int() takes quickly.
        digits = (decimal or hexadecimal).lstrip(b"0")
        number = int(digits or b"0", 10 if decimal else 16) if len(digits) < 8 else 0
        if not 0 < number < 0x110000 or 0xD800 <= number < 0xE000:
            number = 0xFFFD
        character = _WINDOWS_1252.get(number, chr(number))
    return character.encode().decode("latin-1")
