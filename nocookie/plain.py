"""Plain markup: what most pages mostly consist of, as one pattern.

To follow a page tag by tag is exact, and takes Python microseconds a tag. But most tags mean
nothing to `nocookie.html`, and most links, frames and forms are written in a few ways. Those a
pattern takes in one match, and says where the id goes; whatever it leaves is followed tag by tag.

So it takes only what the tags one by one would come to as well: whole elements, whose attributes
cannot be misread and whose URLs hold no reference but `&amp;`. It holds where no element is open
that counts, where raw text is raw for certain, and where relative URLs lead to the own origin: see
`HtmlRewriter._in_plain_markup`. The tests compare both ways.

To editors: a branch whose first character is known is skipped for next to nothing, and a loop over
one character is fast where a loop over a group is slow. So the common ways of writing come first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from string import ascii_letters
from typing import Final

from nocookie.markup import DULL_QUICKLY, DULL_SLOWLY, IS_QUOTED, UNTOLD
from nocookie.places import InParameter, InQuery, InSegment
from nocookie.policies import CALM_CSS
from nocookie.rewriting import Scope

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
    names = (*names, "referrerpolicy", "style")
    first = {letter for name in names for letter in (name[0], name[0].upper())}
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
_RULES: Final = "(?i:speculationrules)"
_SCRIPT: Final = rf"""{_one_of("script")}(?:{_SPACE}++(?:
    {_UNTOLD}(?!{_one_of("type")}{_NAME_ENDS}){_ATTRIBUTE}
    |{_one_of("type")}=(?:"(?!{_RULES}")[\w/.+-]*+"|'(?!{_RULES}')[\w/.+-]*+'
        |(?!{_RULES}[\t\n\f\r >])[\w/.+-]++(?=[\t\n\f\r >]))))*+>
    (?:[^<]++|<(?!!--|/?(?i:script)))*+</(?i:script)>"""
_TEXT: Final = "|".join(
    rf"{_one_of(name)}{_ATTRIBUTES}>[^<]*+</(?i:{name})>" for name in ("title", "textarea")
)
_STYLE: Final = rf"{_one_of('style')}{_ATTRIBUTES}>{CALM_CSS.decode()}</(?i:style)>"
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
    <(?:{_SCRIPT}|{_STYLE}|{_TEXT}|{_META}|{_CONTROL}|{_SELECT})|{DULL_SLOWLY.decode()}))*+"""


# --- What does ----------------------------------------------------------------------------------

#: What stands for itself in a path and in a query.
_PLAIN: Final = r"a-zA-Z0-9_~.%+,@!$*()\-"
_URL_ENDS: Final = r"[\"'>\t\n\f\r ]"
_ANYTHING: Final = r"[^\"'&]*+"
_WRITTEN_AS_IT_IS: Final = re.compile(r"[\w~.-]+", re.ASCII)
#: What follows the first segment of a path, without a dot segment.
_BELOW: Final = rf"[{_PLAIN}:]*+(?:/(?!\.|%2)[{_PLAIN}:]*+)*+(?=[?\#]|{_URL_ENDS})"
#: The first segment of a relative path, which holds no colon. It is no dot segment.
_RELATIVE: Final = rf"(?!\.|%2)[{_PLAIN}]++(?=[/?\#]|{_URL_ENDS})"


def _query_without(name: str) -> str:
    pair = (
        rf"(?!{name}(?:[=&\#]|{_URL_ENDS}))[a-zA-Z0-9_~.-]++(?=[=&\#]|{_URL_ENDS})[{_PLAIN}:/=]*+"
    )
    # A reference without its semicolon is none before letters, digits and `=`.
    return rf"\?{pair}(?:&(?:amp;|(?=[a-zA-Z][a-zA-Z0-9]*+=)){pair})*+"


#: Returns URLs that lead inside the mount, with groups that say where the id goes. Their names
#: begin with what is given.
_Urls = Callable[[str], str]


def _urls_for_query(mount: str, name: str) -> _Urls:
    query = _query_without(name)
    if mount:
        path = rf"{mount}(?:/(?!\.|%2)[{_PLAIN}:]*+)*+(?=[?\#]|{_URL_ENDS})"
    else:
        path = rf"(?:/(?![/\\])|[{_PLAIN}]++(?=[/?\#]|{_URL_ENDS}))[{_PLAIN}:/]*+"
    return lambda group: rf"{path}(?:(?P<{group}first>)|{query}(?P<{group}further>))"


def _urls_for_parameter(mount: str) -> _Urls:
    path = rf"{mount}/(?![/\\.]|%2){_BELOW}"
    if not mount:
        path = rf"(?:{path}|{_RELATIVE}{_BELOW})"
    return lambda group: rf"{path}(?P<{group}first>)(?:{_query_without('(?!)')}|)"


def _urls_for_segment(mount: str, mark: str, inherits: bool) -> _Urls:
    query = rf"(?:{_query_without('(?!)')}|)"
    # Relative URLs have the id of a page whose own URL has it.
    relative = rf"|(?!{mark}|%){_RELATIVE}{_BELOW}" if inherits else ""
    return lambda group: (
        rf"(?:{mount}/(?P<{group}first>)(?!{mark}|[/\\.%]){_BELOW}{relative}){query}"
    )


def _link(urls: _Urls, at_home: bool) -> str:
    """Return links and frames that ping nobody."""

    def upto(name: str) -> str:
        upper = name.upper()
        return rf"{common}(?:\ {name}=|\ {upper}\ =\ |{others}{_SPACE}++{_one_of(name)}{_IS})"

    further = "(?(further)(?P<is_further>)|" if "<further>" in urls("") else ""
    beside = ("href", "ping", "src")
    common, others = _common_attributes_but(*beside), _attributes_but(*beside)
    fragment = r"(?:\#[^\"'&]*+|)"
    # Under a base, a bare fragment leads there.
    still = r"(?:\#|(?:mailto|tel|javascript):)" if at_home else "(?:mailto|tel|javascript):"
    names = "span|b|strong|em|i|small|code|u|div|p|h[1-6]"
    leaf = rf"[^<]++|<(?i:br|img|wbr){_ATTRIBUTES}{_END}"
    inside = _nested(names, _ATTRIBUTES, leaf, 2, "in_link")
    return rf"""<(?:(?P<is_link>[aA]){upto("href")}|{_one_of("iframe")}{upto("src")})
        (?:(?P<quote>[\"'])
            (?:{urls("")}{fragment}
            |(?P<root>https?://[a-z0-9_.:-]++)(?=/){urls("root_")}{fragment}
            |(?P<away>https?://[\w.:-]++)(?=[/?\#\"']){_ANYTHING}(?:&amp;{_ANYTHING})*+
            |{still}{_ANYTHING})
            (?P=quote)
        |(?P<bare>){urls("bare_")}(?P<bare_end>)(?=[\t\n\f\r >]))
        {common}(?:>|{others}{_SPACE}*+>)
        (?(is_link)(?:[^<]*+|{inside}{{0,200}})</[aA]>|[^<]*+</(?i:iframe)>)[^<]*+
        (?(first)(?P<is_first>)|{further}(?(root)(?P<is_absolute>)
        |(?(away)(?P<is_away>)|(?(bare)(?P<is_bare>)|(?P<is_still>)))){")" if further else ""})"""


def _form(urls: _Urls, field: str) -> str:
    """Return whole forms that have no id and no field of this name, and lead nowhere else."""
    named = rf"""{_common_attributes_but("formaction", "name")}(?:{_SPACE}++(?:
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
        (?:{_SPACE}++{_one_of("action")}{_IS}(?P<action>[\"']){urls("form_")}(?:\#[^\"'&]*+|)(?P=action)
            {others}{method("late_post")}|)
        {_SPACE}*+>(?P<open>)(?:{inside}){{0,200}}</(?i:form)>[^<]*+
        (?(post)(?P<is_post>)|(?(late_post)(?P<is_late_post>)|(?P<is_get>)))"""


def plain_markup(scope: Scope) -> re.Pattern[bytes] | None:
    """Return what takes dull markup and then, perhaps, something that may get the id.

    Its `lastgroup` says what that is:

    - `is_first`: a link or frame that gets the id at the end of the group `first`,
    - `is_further`: one that gets a parameter behind others, at the end of `further`,
    - `is_absolute`: either, at `root_first` or `root_further`, if `root` is our own origin,
    - `is_bare`: either, at `bare_first` or `bare_further`, in quotes at `bare` and `bare_end`,
    - `is_away`: a link that is left alone, unless `away` is our own origin,
    - `is_still`: a link that is left alone in any case,
    - `is_get`: a form that gets a hidden input at the end of `open`,
    - `is_post`, `is_late_post`: a form whose action gets the id at `form_first` or `form_further`,
      if it has an action,
    - `is_table`: the tag of a table.

    It starts at the end of the group `start`. Under a path segment, the first of two may have
    matched nothing: then the URL has the id. None if the base is not ours, or the
    name an odd one.
    """
    place, base = scope.place, scope.base
    if not base.own:
        return None
    mount = "".join([f"/{part}" for part in scope.mount])
    if isinstance(place, InQuery):
        return _compiled("query", mount, place.name, scope.at_home)
    if isinstance(place, InParameter):
        return _compiled("parameter", mount, place.name, scope.at_home)
    if isinstance(place, InSegment):
        depth = len(scope.mount)
        above, first = base.segments[:depth], base.segments[depth:-1][:1]
        inherits = above == scope.mount and first == [place.mark + scope.id]
        return _compiled("segment", mount, place.mark, scope.at_home, inherits)
    return None


@lru_cache(64)  # each takes 30 ms to make, and 80 KB
def _compiled(
    place: str, mount: str, name: str, at_home: bool, inherits: bool = False
) -> re.Pattern[bytes] | None:
    if not _WRITTEN_AS_IT_IS.fullmatch(name):
        return None
    mount, name = re.escape(mount), re.escape(name)
    if place == "query":
        urls = _urls_for_query(mount, name)
    elif place == "parameter":
        urls = _urls_for_parameter(mount)
    else:
        urls = _urls_for_segment(mount, name, inherits)
    table = rf"<{_one_of('table')}{_ATTRIBUTES}{_END}[^<]*+(?P<is_table>)"
    found = rf"{_link(urls, at_home)}|{_form(urls, name)}|{table}"
    return re.compile(rf"(?x){_DULL}(?:(?P<start>)(?:{found})|)".encode())
