"""The command `nocookie`: one function a subcommand.

What the user got wrong is a `ConfigError`, which becomes one sentence and the status 2, as a wrong
argument does. A store that fails is one sentence and the status 1.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from configparser import ConfigParser
from configparser import Error as ParserError
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from nocookie.backend import Backend
from nocookie.errors import ConfigError, StoreError
from nocookie.options import OPTIONS, PREFIXES, resolve
from nocookie.purge import Batch, in_batches
from nocookie.stores.base import Countable, Purgeable

__all__ = ["main"]

F = TypeVar("F", bound=Callable[..., Any])


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command with *argv*, or with what the shell gave. Raises SystemExit."""
    commands(argv, prog_name="nocookie")
    raise AssertionError("click has its own way to end")


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigError, StoreError) as error:
            click.echo(f"nocookie {ctx.invoked_subcommand}: {error}", err=True)
            ctx.exit(2 if isinstance(error, ConfigError) else 1)


def _version() -> str:
    try:
        return version("nocookie")
    except PackageNotFoundError:
        return "(not installed)"


@click.group(cls=_Commands, no_args_is_help=False)
@click.version_option(_version(), message="nocookie %(version)s")
def commands() -> None:
    """Server-side sessions for clients that carry no cookies."""


# -- nocookie demo -------------------------------------------------------------------------------


def _port(ctx: click.Context, param: click.Parameter, text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise click.BadParameter(f"a port is a number from 0 to 65535, not {text!r}")


@commands.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    callback=_port,
    default="8000",
    metavar="PORT",
    show_default=True,
    help="0 means any that is free.",
)
@click.option(
    "--data-dir", default="data", metavar="DIR", show_default=True, help="Where the sessions lie."
)
def demo(host: str, port: int, data_dir: str) -> None:
    """Serve a notebook that keeps its notes without a cookie."""
    from nocookie import demo

    demo.serve(host, port, data_dir)


# -- nocookie purge ------------------------------------------------------------------------------

#: The options that say which store, and how to reach it.
WHERE: Final = ("type", "url", "data_dir", "table_name", "schema_name", "deadline")


def _where(function: F) -> F:
    """Add the options of the table that WHERE names; the table's converters see to their values."""
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
    return function


@commands.command()
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="The ini file of the application: the store is where its options say.",
)
@click.option(
    "--section", default="app:main", show_default=True, help="The section of the ini file."
)
@_where
@click.option(
    "--max-time",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=math.inf,
    help="Stop after so many seconds, though there be more.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
def purge(
    config: Path | None,
    section: str,
    max_time: float,
    dry_run: bool,
    quiet: bool,
    **where: str | None,
) -> None:
    """Remove the expired sessions of a store, in small batches beside live traffic.

    The store is that of --config, of the options here, or of both: the options win.
    """
    given = {name: value for name, value in where.items() if value is not None}
    if config is None and not {"type", "data_dir"} & given.keys():
        raise click.UsageError("Which store? Say it with --config, --type or --data-dir.")
    settings = resolve(_read(config, section) if config else None, given)
    store = Backend(settings).store
    try:
        if not isinstance(store, Purgeable) or not store.shared:
            _say(quiet, "Nothing to do: this store gets rid of expired sessions by itself.")
        elif not dry_run:
            _purge(store, max_time, quiet)
        elif isinstance(store, Countable):
            _say(quiet, f"{_sessions(store.expired())} to remove.")
        else:
            raise ConfigError("this store cannot count; leave out --dry-run")
    finally:
        store.close()


def _purge(store: Purgeable, max_time: float, quiet: bool) -> None:
    begun = time.monotonic()
    batches: list[Batch] = []
    try:
        with _stoppable() as stopped, _progress(store, quiet) as progress:
            for batch in in_batches(store):
                batches.append(batch)
                progress(batch.removed)
                if stopped() or time.monotonic() - begun >= max_time:
                    break
    finally:
        if batches:
            _say(quiet, _summary(batches, time.monotonic() - begun))


def _summary(batches: Sequence[Batch], took: float) -> str:
    removed = sum(batch.removed for batch in batches)
    if not removed:
        return "Nothing to purge."
    count = f"{len(batches):,} {'batch' if len(batches) == 1 else 'batches'}"
    longest = max(batch.took for batch in batches) * 1000
    return (
        f"Removed {_sessions(removed)} in {took:.1f} s: {count}, the longest of {longest:.0f} ms."
        f"{'' if batches[-1].last else ' Stopped early; the next run goes on.'}"
    )


def _sessions(count: int) -> str:
    return f"{count:,} expired {'session' if count == 1 else 'sessions'}"


def _say(quiet: bool, sentence: str) -> None:
    if not quiet:
        click.echo(sentence)


@contextmanager
def _progress(store: Purgeable, quiet: bool) -> Iterator[Callable[[int], object]]:
    """Show a bar on a terminal; yield what moves it."""
    if quiet or not sys.stderr.isatty() or not isinstance(store, Countable):
        yield lambda removed: None
        return
    total = store.expired()
    with click.progressbar(length=total, label="Removing", show_pos=True, file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Yield what says whether SIGINT or SIGTERM came: so the batch at work is done and counted.
    A second one ends the program at once."""
    caught: list[int] = []

    def note(number: int, frame: object) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    before = {int(name): signal.signal(name, note) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _read(path: Path, section: str) -> dict[str, str]:
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
