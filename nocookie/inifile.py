"""An ini file, read as PasteDeploy reads one. No error shows a value: a password may be in it."""

from __future__ import annotations

import re
from configparser import ConfigParser, RawConfigParser
from configparser import Error as ParserError
from pathlib import Path
from typing import Final

from nocookie.errors import ConfigError
from nocookie.options import is_ours

__all__ = ["IniFile", "read"]

#: A section, or a key with what is between it and its value.
_LINE: Final = re.compile(r"\[(?P<section>[^]]+)\]|\s*+(?P<key>[^\s#;=:\[][^=:]*+)[=:]")


def read(path: Path, section: str) -> dict[str, str]:
    """Return our keys in a section of an ini file, with those of `[DEFAULT]`. Raises
    `ConfigError`."""
    file = IniFile(path)
    file.check(section)
    keys = [key for key in file.keys(section) if key == "cache_dir" or is_ours(key)]
    return {key: file.value(section, key) for key in keys}


class IniFile:
    """The sections of the file *path*, and what is on which line. Raises `ConfigError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        at = path.absolute()
        self._parser = ConfigParser({"here": str(at.parent), "__file__": str(at)})
        self._parser.optionxform = str  # type: ignore[assignment,method-assign]
        # For this one [DEFAULT] is a section as any.
        self._written = RawConfigParser(default_section="")
        self._written.optionxform = str  # type: ignore[assignment,method-assign]
        try:
            text = path.read_text("utf-8")
            self._parser.read_string(text)
            self._written.read_string(text)
        except (ParserError, ValueError, OSError) as error:
            raise ConfigError(f"{path} cannot be read as an ini file{_line(error)}") from None
        self._lines = _lines(text)

    @property
    def sections(self) -> list[str]:
        return self._parser.sections()

    def check(self, section: str) -> None:
        """Raise `ConfigError` if there is no such section."""
        if section not in self._parser:
            there = ", ".join(self.sections) or "none"
            raise ConfigError(
                f"{self.path} has no section {section}; name one with --section: {there}"
            )

    def keys(self, section: str) -> list[str]:
        """Return the keys of a section and those that it has of `[DEFAULT]`."""
        return list(self._parser[section])

    def has(self, section: str, key: str) -> bool:
        """Whether a key is written in a section itself, and not in `[DEFAULT]` alone."""
        return self._written.has_option(section, key)

    def line(self, section: str, key: str) -> int | None:
        """Return the number of the line of a key that the section itself has."""
        return self._lines.get((section, key)) if self.has(section, key) else None

    def value(self, section: str, key: str) -> str:
        """Return what is written, with what it refers to. Raises `ConfigError`."""
        try:
            return self._parser[section][key]
        except ParserError:
            raise ConfigError(
                f"{self.path}: in {key}, write %% for a percent sign, and %(name)s for nothing "
                "else than what the file defines"
            ) from None


def _lines(text: str) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.match(line)
        if match is None:
            continue
        if match["section"] is not None:
            section = match["section"]
        else:
            found.setdefault((section, match["key"].rstrip()), number)
    return found


def _line(error: Exception) -> str:
    number = getattr(error, "lineno", None)
    if number is None and getattr(error, "errors", None):
        number = error.errors[0][0]  # type: ignore[attr-defined]
    return "" if number is None else f"; look at line {number}"
