"""Where browsers send reports about a page: they hold its URL, and so an id that is in it.

After Content Security Policy 3, the Reporting API and its older `Report-To`, and Network Error
Logging. Endpoints of other origins are taken out; what cannot be read is taken for one of those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from nocookie.carriers import USUAL

__all__ = ["keep_reports", "says_where"]

Headers = list[tuple[str, str]]

#: What a browser keeps for the whole origin, and so for pages to come.
_LASTING: Final = frozenset({"report-to", "nel"})
_REPORTING: Final = _LASTING | {
    *("content-security-policy", "content-security-policy-report-only", "reporting-endpoints")
}
_GROUPS: Final = frozenset({"reporting-endpoints", "report-to"})
#: Others, as we write them.
_OTHERS: Final = USUAL | {"Cache-Control", "Referrer-Policy"}

#: A member of a dictionary of RFC 8941: what is between commas, strings apart.
_members: Final = re.compile(r'(?s)(?:"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[^",])++').findall
_endpoint: Final = re.compile(r'\s*+([a-z*][a-z0-9_.*-]*+)="([^"\\]*+)"\s*+').fullmatch


def says_where(headers: Headers) -> bool:
    """Whether a response says where reports go."""
    return not _REPORTING.isdisjoint([name.lower() for name, _ in headers if name not in _OTHERS])


def keep_reports(
    headers: Headers, is_own: Callable[[str], bool], *, of_this_page: bool
) -> tuple[Headers, list[str]]:
    """Return *headers* without endpoints of other origins, and the names of those changed.

    *is_own* says of a URL, as it is written, whether it leads to the own origin. Unless
    *of_this_page*, only what holds for later pages is looked at.
    """
    kinds = _REPORTING if of_this_page else _LASTING
    groups: set[str] = set()
    kept: dict[int, str] = {}
    # First the groups of endpoints, then what names one.
    found = [(at, name.lower()) for at, (name, _) in enumerate(headers)]
    for at, kind in sorted(found, key=lambda each: each[1] not in _GROUPS):
        if kind not in kinds:
            continue
        value = headers[at][1]
        if kind == "reporting-endpoints":
            new = _home_endpoints(value, is_own, groups)
        elif kind == "report-to":
            new = _home_groups(value, is_own, groups)
        elif kind == "nel":
            new = value if _is_home_nel(value, groups) else ""
        else:
            new = _home_policies(value, is_own, groups)
        if new != value:
            kept[at] = new
    if not kept:
        return headers, []
    changed = [headers[at][0] for at in sorted(kept)]
    new_headers = [(name, kept.get(at, value)) for at, (name, value) in enumerate(headers)]
    return [pair for at, pair in enumerate(new_headers) if pair[1] or at not in kept], changed


def _home_endpoints(value: str, is_own: Callable[[str], bool], groups: set[str]) -> str:
    members = _members(value)
    kept = []
    for member in members:
        found = _endpoint(member)
        if found is not None and is_own(found[2]):
            groups.add(found[1])
            kept.append(member)
    return value if len(kept) == len(members) else ",".join(kept).strip()


def _home_groups(value: str, is_own: Callable[[str], bool], groups: set[str]) -> str:
    found = _read(f"[{value}]")
    if not isinstance(found, list):
        return ""
    names = []
    for group in found:
        if not isinstance(group, dict):
            return ""
        endpoints = group.get("endpoints", [])
        if not isinstance(endpoints, list):
            return ""
        urls = [each.get("url") if isinstance(each, dict) else None for each in endpoints]
        if not all(isinstance(url, str) and is_own(url) for url in urls):
            return ""
        names.append(group.get("group", "default"))
    groups.update(name for name in names if isinstance(name, str))
    return value


def _is_home_nel(value: str, groups: set[str]) -> bool:
    found = _read(value)
    if not isinstance(found, dict):
        return False
    group = found.get("report_to")
    # With no time to live it ends what there was.
    return found.get("max_age") == 0 or (isinstance(group, str) and group in groups)


def _home_policies(value: str, is_own: Callable[[str], bool], groups: set[str]) -> str:
    policies = value.split(",")
    kept = [_home_policy(policy, is_own, groups) for policy in policies]
    return value if kept == policies else ", ".join(p for p in map(str.strip, kept) if p)


def _home_policy(policy: str, is_own: Callable[[str], bool], groups: set[str]) -> str:
    directives = policy.split(";")
    kept = []
    for directive in directives:
        name, *values = directive.split() or [""]
        kind = name.lower()
        if kind == "report-uri":
            home = [url for url in values if is_own(url)]
        elif kind == "report-to":
            home = [group for group in values if group in groups]
        else:
            home = values
        if home == values:
            kept.append(directive)
        elif home:
            kept.append(" ".join((" " + name, *home)))
    return policy if kept == directives else ";".join(kept)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
