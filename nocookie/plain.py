"""Plain markup: what most pages mostly consist of, as one pattern.

To follow a page tag by tag is exact, and takes Python microseconds a tag. But most tags mean
nothing to `nocookie.html`, and most links, frames and forms are written in a few ways. Those a
pattern takes in one match, and says where the id goes; whatever it leaves is followed tag by tag.

So it takes only what the tags one by one would come to as well: whole elements, whose attributes
cannot be misread and whose URLs hold no reference but `&amp;`. It holds where no element is open
that counts, where raw text is raw for certain, and on a page without a base: see
`HtmlRewriter._in_plain_markup`. The tests compare both ways.

To editors: a branch whose first character is known is skipped for next to nothing, and a loop over
one character is fast where a loop over a group is slow. So the common ways of writing come first.
"""

from __future__ import annotations

import re
from functools import lru_cache
from string import ascii_letters
from typing import Final

from nocookie.markup import DULL_QUICKLY, DULL_SLOWLY, IS_QUOTED, UNTOLD

__all__ = ["plain_markup"]

_SPACE: Final = r"[\t\n\f\r ]"
_IS: Final = rf"{_SPACE}*+={_SPACE}*+"
_END: Final = rf"{_SPACE}*+/?+>"
_NAME_ENDS: Final = r"[\t\n\f\r />=]"
_ATTRIBUTE: Final = (
    rf"""[\w:.@-]++(?:{_IS}(?:"[^"]*+"|'[^']*+'|[^\t\n\f\r >"'][^\t\n\f\r >]*+)|(?!{_SPACE}*+=))"""
)
_UNTOLD: Final = UNTOLD.decode()
_ATTRIBUTES: Final = rf"(?:{_SPACE}++{_UNTOLD}{_ATTRIBUTE})*+"


def _one_of(*names: str) -> str:
    """Return names in any case, each so that its branch can be skipped by the first letter."""
    return "|".join(f"[{name[0]}{name[0].upper()}](?i:{name[1:]})" for name in names)


def _attributes_but(*names: str) -> str:
    """Return any attributes but these, and none that has a browser tell more than the origin."""
    return rf"(?:{_SPACE}++{_UNTOLD}(?!(?:{_one_of(*names)}){_NAME_ENDS}){_ATTRIBUTE})*+"


def _common_attributes_but(*names: str) -> str:
    """Return the same in the common ways, if not even the first letter is that of a name."""
    first = {letter for name in (*names, "referrerpolicy") for letter in (name[0], name[0].upper())}
    letters = "".join(letter for letter in ascii_letters if letter not in first)
    return rf"(?:\ [{letters}][a-zA-Z-]*+{IS_QUOTED.decode()})*+"


def _nested(names: str, attributes: str, content: str, depth: int, group: str) -> str:
    """Return *content* or elements of these names in each other, closed in their order.

    These loops are not possessive: in one that is, a group can end up with a wrong span, for which
    `re` raises SystemError. They are bounded, because such loops remember each turn.
    """
    inner = content
    for level in range(depth):
        name = f"{group}_{level}"
        element = rf"<(?P<{name}>(?i:{names})){attributes}>(?:{inner}){{0,200}}</(?P={name})>"
        inner = rf"(?:{content}|{element})"
    return inner


# --- What gets no id ----------------------------------------------------------------------------

#: Elements whose content is text.
_SCRIPT: Final = (
    rf"{_one_of('script')}{_ATTRIBUTES}>(?:[^<]++|<(?!!--|/?(?i:script)))*+</(?i:script)>"
)
_TEXT: Final = "|".join(
    rf"{_one_of(name)}{_ATTRIBUTES}>[^<]*+</(?i:{name})>" for name in ("style", "title", "textarea")
)
_META: Final = rf"""{_one_of("meta")}(?:{_SPACE}++(?:
    {_UNTOLD}(?!(?:{_one_of("http-equiv", "name")}){_NAME_ENDS}){_ATTRIBUTE}
    |{_one_of("name")}=(?:"(?!(?i:referrer)")[\w:.-]*+"|'(?!(?i:referrer)')[\w:.-]*+')))*+{_END}"""
#: Controls that lead nowhere by themselves.
_CONTROL: Final = rf"""(?:{_one_of("input", "button")}){_common_attributes_but("formaction")}
    {_attributes_but("formaction")}{_END}"""
_SELECT: Final = rf"""{_one_of("select")}{_ATTRIBUTES}>
    (?:[^<]++|<(?i:option|optgroup){_ATTRIBUTES}>|</(?i:option|optgroup)>)*+</(?i:select)>"""
#: All of that, and what means nothing anywhere, up to a link.
_DULL: Final = rf"""(?:{DULL_QUICKLY.decode()}|(?!<[aA]{_SPACE})(?:
    <(?:{_SCRIPT}|{_TEXT}|{_META}|{_CONTROL}|{_SELECT})|{DULL_SLOWLY.decode()}))*+"""


# --- What does ----------------------------------------------------------------------------------

#: What stands for itself in a path and in a query.
_PLAIN: Final = r"a-zA-Z0-9_~.%+,@!$*()\-"
_URL_ENDS: Final = r"[\"'>\t\n\f\r ]"
_ANYTHING: Final = r"[^\"'&]*+"


def _path(mount: str) -> str:
    """Return paths that lead inside the mount."""
    if mount:
        return rf"{re.escape(mount)}(?:/(?!\.|%2)[{_PLAIN}:]*+)*+(?=[?\#]|{_URL_ENDS})"
    return rf"(?:/(?![/\\])|[{_PLAIN}]++(?=[/?\#]|{_URL_ENDS}))[{_PLAIN}:/]*+"


def _query(name: str) -> str:
    """Return queries without a parameter of this name."""
    pair = (
        rf"(?!{name}(?:[=&\#]|{_URL_ENDS}))[a-zA-Z0-9_~.-]++(?=[=&\#]|{_URL_ENDS})[{_PLAIN}:/=]*+"
    )
    # A reference without its semicolon is none before letters, digits and `=`.
    return rf"\?{pair}(?:&(?:amp;|(?=[a-zA-Z][a-zA-Z0-9]*+=)){pair})*+"


def _link(path: str, query: str) -> str:
    """Return links and frames that ping nobody."""

    def upto(name: str) -> str:
        upper = name.upper()
        return rf"{common}(?:\ {name}=|\ {upper}\ =\ |{others}{_SPACE}++{_one_of(name)}{_IS})"

    def where(group: str) -> str:
        return rf"(?:(?P<{group}first>)|{query}(?P<{group}further>))"

    beside = ("href", "ping", "src")
    common, others = _common_attributes_but(*beside), _attributes_but(*beside)
    fragment = r"(?:\#[^\"'&]*+|)"
    names = "span|b|strong|em|i|small|code|u|div|p|h[1-6]"
    leaf = rf"[^<]++|<(?i:br|img|wbr){_ATTRIBUTES}{_END}"
    inside = _nested(names, _ATTRIBUTES, leaf, 2, "in_link")
    return rf"""<(?:(?P<is_link>[aA]){upto("href")}|{_one_of("iframe")}{upto("src")})
        (?:(?P<quote>[\"'])
            (?:{path}{where("")}{fragment}
            |(?P<root>https?://[a-z0-9_.:-]++)(?=/){path}{where("root_")}{fragment}
            |(?P<away>https?://[\w.:-]++)(?=[/?\#\"']){_ANYTHING}(?:&amp;{_ANYTHING})*+
            |(?:\#|(?:mailto|tel|javascript):){_ANYTHING})
            (?P=quote)
        |(?P<bare>){path}{where("bare_")}(?=[\t\n\f\r >]))
        {common}(?:>|{others}{_SPACE}*+>)
        (?(is_link)(?:[^<]*+|{inside}{{0,200}})</[aA]>|[^<]*+</(?i:iframe)>)[^<]*+
        (?(first)(?P<is_first>)|(?(further)(?P<is_further>)|(?(root)(?P<is_absolute>)
        |(?(away)(?P<is_away>)|(?(bare)(?P<is_bare>)|(?P<is_still>))))))"""


def _form(path: str, query: str, field: str) -> str:
    """Return whole forms that have no id and no field of this name, and lead nowhere else."""
    named = rf"""(?:{_SPACE}++(?:
        {_UNTOLD}(?!(?:{_one_of("formaction", "name")}){_NAME_ENDS}){_ATTRIBUTE}
        |{_one_of("name")}{_IS}
            (?:"(?!{field}")[^"&]*+"|'(?!{field}')[^'&]*+'|(?!{field}[\t\n\f\r >])[\w.-]++)))*+"""
    names = "button|label|p|div|span|fieldset|legend|ul|li|h[1-6]|b|strong|em|i|small"
    leaf = rf"""[^<]++|<(?:{_one_of("input", "img", "br", "hr")}){named}{_END}
        |<{_one_of("textarea")}{named}>[^<]*+</(?i:textarea)>
        |<{_one_of("select")}{named}>(?:[^<]++|<(?i:option){named}>[^<]*+</(?i:option)>)*+
            </(?i:select)>"""
    inside = _nested(names, named, leaf, 3, "in_form")
    others = _attributes_but("action", "method", "id")

    def method(group: str) -> str:
        return rf"""(?:{_SPACE}++{_one_of("method")}{_IS}(?P<{group}_quote>[\"']|)
            (?:(?i:get)|(?P<{group}>(?i:post)))(?P={group}_quote)(?=[\t\n\f\r >]){others}|)"""

    return rf"""<{_one_of("form")}{others}{method("post")}
        (?:{_SPACE}++{_one_of("action")}{_IS}(?P<action>[\"']){path}
            (?:(?P<form_first>)|{query}(?P<form_further>))(?:\#[^\"'&]*+|)(?P=action)
            {others}{method("late_post")}|)
        {_SPACE}*+>(?P<open>)(?:{inside}){{0,200}}</(?i:form)>[^<]*+
        (?(post)(?P<is_post>)|(?(late_post)(?P<is_late_post>)|(?P<is_get>)))"""


@lru_cache(32)
def plain_markup(mount: str, name: str) -> re.Pattern[bytes] | None:
    """Return what takes dull markup and then, perhaps, something that may get the id.

    Its `lastgroup` says what that is:

    - `is_first`: a link or frame that gets a query at the end of the group `first`,
    - `is_further`: one that gets a parameter behind others, at the end of `further`,
    - `is_absolute`: either, at `root_first` or `root_further`, if `root` is our own origin,
    - `is_bare`: either, at `bare_first` or `bare_further`, in quotes, the first at `bare`,
    - `is_away`: a link that is left alone, unless `away` is our own origin,
    - `is_still`: a link that is left alone in any case,
    - `is_get`: a form that gets a hidden input at the end of `open`,
    - `is_post`, `is_late_post`: a form whose action gets a query or a parameter at `form_first` or
      `form_further`, if it has an action,
    - `is_table`: the tag of a table.

    It starts at the end of the group `start`. None if the parameter has an odd name.
    """
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        return None
    field = re.escape(name)
    path, query = _path(mount), _query(field)
    table = rf"<{_one_of('table')}{_ATTRIBUTES}{_END}[^<]*+(?P<is_table>)"
    found = rf"{_link(path, query)}|{_form(path, query, field)}|{table}"
    return re.compile(rf"(?x){_DULL}(?:(?P<start>)(?:{found})|)".encode())
