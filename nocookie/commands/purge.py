"""`nocookie purge`: `nocookie.purge`, with a bar on a terminal and a summary."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from nocookie.commands.where import opened, where
from nocookie.commands.working import say, stoppable
from nocookie.errors import ConfigError
from nocookie.purge import Batch, in_batches
from nocookie.stores.base import Countable, Purgeable

__all__ = ["command"]


@click.command("purge")
@where
@click.option(
    "--max-time",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=math.inf,
    help="Stop after so many seconds, though there be more.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
def command(
    config: Path | None,
    section: str,
    max_time: float,
    dry_run: bool,
    quiet: bool,
    **options: str | None,
) -> None:
    """Remove the expired sessions of a store, in small batches beside live traffic.

    The store is that of --config, of the options here, or of both: the options win.
    """
    store = opened(config, section, options).store
    try:
        if not isinstance(store, Purgeable) or not store.shared:
            say(quiet, "Nothing to do: this store gets rid of expired sessions by itself.")
        elif not dry_run:
            _purge(store, max_time, quiet)
        elif isinstance(store, Countable):
            say(quiet, f"{_sessions(store.expired())} to remove.")
        else:
            raise ConfigError("this store cannot count; leave out --dry-run")
    finally:
        store.close()


def _purge(store: Purgeable, max_time: float, quiet: bool) -> None:
    begun = time.monotonic()
    batches: list[Batch] = []
    try:
        with stoppable() as stopped, _progress(store, quiet) as progress:
            for batch in in_batches(store):
                batches.append(batch)
                progress(batch.removed)
                if stopped() or time.monotonic() - begun >= max_time:
                    break
    finally:
        if batches:
            say(quiet, _summary(batches, time.monotonic() - begun))


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


@contextmanager
def _progress(store: Purgeable, quiet: bool) -> Iterator[Callable[[int], object]]:
    """Show a bar on a terminal; yield what moves it."""
    if quiet or not sys.stderr.isatty() or not isinstance(store, Countable):
        yield lambda removed: None
        return
    total = store.expired()
    with click.progressbar(length=total, label="Removing", show_pos=True, file=sys.stderr) as bar:
        yield bar.update
