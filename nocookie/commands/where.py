"""The options of a command that works on a store: which one, and how to reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from nocookie.backend import Backend
from nocookie.inifile import read
from nocookie.options import OPTIONS, resolve

__all__ = ["WHERE", "opened", "settings_of", "where"]

F = TypeVar("F", bound=Callable[..., Any])

#: The options that say which store, and how to reach it.
WHERE: Final = ("type", "url", "data_dir", "table_name", "schema_name", "deadline")


def where(function: F) -> F:
    """Add `--config`, `--section` and the options of the table that WHERE names; the table's
    converters see to their values. `opened` takes them all."""
    for name in reversed(WHERE):
        option = OPTIONS[name]
        function = click.option(
            f"--{name.replace('_', '-')}",
            name,
            metavar="TEXT",
            # A password on a command line is in the list of processes for everybody to read.
            envvar="NOCOOKIE_URL" if name == "url" else None,
            show_envvar=True,
            help=option.doc.replace("`", ""),
        )(function)
    function = click.option(
        "--section", default="app:main", show_default=True, help="The section of the ini file."
    )(function)
    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
        help="The ini file of the application: the store is where its options say.",
    )(function)


def opened(config: Path | None, section: str, options: Mapping[str, str | None]) -> Backend:
    """Return the backend that `settings_of` these describe."""
    settings = settings_of(config, section, options)
    if config is None:
        # What the application's are nobody said: then what the store says of a record counts.
        settings["timeout"] = settings["lifetime"] = None
    return Backend(settings)


def settings_of(
    config: Path | None, section: str, options: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return the settings in *section* of the file *config*, or of *options*, or of both: these
    win. Raises `click.UsageError` if neither names a store, and `ConfigError`."""
    given = {name: value for name, value in options.items() if value is not None}
    if config is None and not {"type", "data_dir"} & given.keys():
        raise click.UsageError("Which store? Say it with --config, --type or --data-dir.")
    # What a command does is not told to the application's callbacks, nor are they imported.
    return resolve(read(config, section) if config else None, {"on_event": (), **given})
