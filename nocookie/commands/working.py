"""What commands share that work for a while: what they say, and how they are stopped."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

__all__ = ["counting", "say", "stoppable"]


def say(quiet: bool, sentence: str) -> None:
    if not quiet:
        click.echo(sentence)


@contextmanager
def counting(label: str, quiet: bool = False) -> Iterator[Callable[[], object]]:
    """Show on a terminal how many were looked at, where nobody knows how many there are; yield
    what counts one more."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    none: Iterator[None] = iter(())
    with click.progressbar(
        none, label=label, show_pos=True, show_eta=False, file=sys.stderr, update_min_steps=200
    ) as bar:
        yield lambda: bar.update(1)


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yield what says whether SIGINT or SIGTERM came: so what is at work is done and counted.
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
