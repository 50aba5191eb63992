"""An ini file, read as PasteDeploy reads one. No error shows a value: a password may be in it."""

from __future__ import annotations

from configparser import ConfigParser
from configparser import Error as ParserError
from pathlib import Path

from nocookie.errors import ConfigError
from nocookie.options import PREFIXES

__all__ = ["read"]


def read(path: Path, section: str) -> dict[str, str]:
    """Return our keys in a section of an ini file, read as PasteDeploy does.

    No sentence holds a value: a password may be in it.
    """
    here = str(path.absolute().parent)
    parser = ConfigParser({"here": here, "__file__": str(path.absolute())})
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with open(path, encoding="utf-8") as lines:
            parser.read_file(lines)
    except (ParserError, ValueError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as an ini file{_line(error)}") from None
    if section not in parser:
        there = ", ".join(parser.sections()) or "none"
        raise ConfigError(f"{path} has no section {section}; name one with --section: {there}")
    found = {}
    for key in parser[section]:
        if key == "cache_dir" or key.startswith(PREFIXES):
            try:
                found[key] = parser[section][key]
            except ParserError:
                raise ConfigError(
                    f"{path}: in {key}, write %% for a percent sign, and %(name)s for nothing else "
                    "than what the file defines"
                ) from None
    return found


def _line(error: Exception) -> str:
    number = getattr(error, "lineno", None)
    if number is None and getattr(error, "errors", None):
        number = error.errors[0][0]  # type: ignore[attr-defined]
    return "" if number is None else f"; look at line {number}"
