"""What to write instead of Beaker's options, and how its sessions come along.

The ini text has every option that counts under our name for it, and those with which clients of
Beaker are recognised. Beaker's secret and the password of a server are not shown: in their place
stands where they are written. `secret` and `encrypt_key` are fresh.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from nocookie.options import OPTIONS
from nocookie.stores import ALIASES
from nocookie.strength import fresh_secret

__all__ = ["Successor", "successor"]

#: Days for which ids of Beaker's are recognised, if sessions do not last for longer.
FEWEST_DAYS: Final = 7
MOST_DAYS: Final = 365

#: Beaker's types whose sessions nobody can read.
_LOST: Final[Mapping[str, str]] = {
    "memory": "Beaker's sessions end with its processes: they are in their memory.",
    "cookie": "Beaker's sessions are with their clients, who log in again.",
    "ext:google": "Beaker's sessions can only be read from within App Engine.",
    "ext:mongodb": "There is no reader for Beaker's sessions in MongoDB.",
}


class Successor(NamedTuple):
    """The configuration that takes over."""

    #: The section of an ini file.
    ini: str
    #: What brings the sessions along, and what to know about it.
    command: str | None
    remark: str | None


def successor(
    section: str,
    before: Mapping[str, tuple[str, Any]],
    options: Mapping[str, tuple[str, Any]],
    settings: Mapping[str, Any],
    path: Path | None,
) -> Successor:
    """Return what to write for the options of Beaker *before*, which are *options* in our words
    and mean *settings*; they are written in *section* of the file *path*, or in a program."""
    type = before.get("type", ("", None))[1] or ("file" if "data_dir" in options else "memory")
    remark = _LOST.get(str(type))
    is_moved = remark is None
    lines = [f"[{'app:main' if path is None else section}]"]
    shown = {name: _shown(name, *options[name]) for name in options if name in OPTIONS}
    shown.pop("beaker_secret", None)
    if "type" in shown:
        shown["type"] = ALIASES.get(shown["type"], shown["type"])
    if settings["use_cookies"] and "key" not in shown:
        shown["key"] = "beaker.session.id"
    if "lifetime" not in shown and settings["lifetime"] != OPTIONS["lifetime"].default:
        shown["lifetime"] = f"{settings['lifetime']:.0f}"
    shown["secret"] = fresh_secret()
    if "encrypt_key" in shown:
        shown["encrypt_key"] = fresh_secret()
    if is_moved:
        shown["beaker_ids_until"] = _day(settings)
        if "secret" in before and settings["use_cookies"]:
            shown["beaker_secret"] = f"<the value of {before['secret'][0]}>"
    lines += [f"nocookie.{name} = {shown[name]}" for name in OPTIONS if name in shown]
    command = _command(section, before, path) if is_moved else None
    return Successor("\n".join(lines), command, remark)


def _shown(name: str, key: str, value: Any) -> str:
    if name == "url":
        if "@" in str(value) or "password" in str(value):
            return f"<the value of {key}>"
    elif OPTIONS[name].hidden:
        return f"<the value of {key}>"
    if name == "cookie_expires" and isinstance(value, timedelta):
        return f"{value.total_seconds():.0f}"
    text = str(value)
    return text.replace("%", "%%")


def _day(settings: Mapping[str, Any]) -> str:
    longest = settings["lifetime"] or math.inf
    days = min(max(FEWEST_DAYS, math.ceil(min(longest, MOST_DAYS * 86400) / 86400)), MOST_DAYS)
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


def _command(section: str, before: Mapping[str, tuple[str, Any]], path: Path | None) -> str:
    words = ["nocookie", "import"]
    if path is not None:
        words += ["--from", path.name]
        if section != "app:main":
            words += ["--from-section", section]
    else:
        for option in ("type", "data_dir"):
            if option in before:
                words += [f"--beaker-{option.replace('_', '-')}", str(before[option][1])]
    words += ["--config", "new.ini"]
    if path is not None and section != "app:main":
        words += ["--section", section]
    if str(before.get("data_serializer", ("", "pickle"))[1]) != "json":
        words.append("--trust-pickles")
    return shlex.join(words)
