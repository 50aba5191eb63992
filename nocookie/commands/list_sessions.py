"""`nocookie list`: the sessions of a store, a row or a line of JSON each."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click

from nocookie.commands.showing import as_json, moment, printable, table
from nocookie.commands.where import opened, where
from nocookie.commands.working import counting
from nocookie.listing import Listed, listed, no_session, of_owner

__all__ = ["command"]

#: More than that nobody reads.
LIMIT: Final = 100

_TITLES: Final = ("session", "owner", "created", "last used", "ends", "carrier", "client")


@click.command("list")
@where
@click.option("--owner", metavar="OWNER", help="Only the sessions of this owner.")
@click.option(
    "--limit",
    metavar="NUMBER",
    type=click.IntRange(min=0),
    help=f"How many, those that were used last first; 0 for all, in no order.  [default: {LIMIT}; "
    "with --json 0]",
)
@click.option("--utc", is_flag=True, help="Show times in UTC, not in the zone of this machine.")
@click.option("--json", "lines", is_flag=True, help="Print a JSON object a line.")
def command(
    config: Path | None,
    section: str,
    owner: str | None,
    limit: int | None,
    utc: bool,
    lines: bool,
    **options: str | None,
) -> None:
    """List the living sessions of a store.

    Neither ids nor values are shown. Who owns a session is written with the secret of the
    application, so it takes --config to read that; without, sessions are listed as unreadable.
    """
    if limit is None:
        limit = 0 if lines else LIMIT
    backend = opened(config, section, options)
    try:
        found = listed(backend) if owner is None else of_owner(backend, owner)
        count = 0

        def counted() -> Iterator[Listed]:
            nonlocal count
            for one in found:
                count += 1
                yield one

        rows = _last_used(counted(), limit) if limit else counted()
        shown = _lines(rows) if lines else _table(rows, utc)
        for line in shown:
            click.echo(line)
    finally:
        backend.store.close()
    if lines:
        return
    if limit and count > limit:
        click.echo(f"The {limit:,} that were used last, of {count:,}. --limit 0 lists all.")
    elif not count:
        click.echo(no_session(backend, owner))


def _last_used(found: Iterable[Listed], limit: int) -> list[Listed]:
    """No more than *limit* are kept in memory, however many there are."""
    with counting("Looking") as looked:

        def each() -> Iterator[Listed]:
            for one in found:
                looked()
                yield one

        return heapq.nlargest(limit, each(), key=lambda one: one.last_accessed or 0.0)


def _lines(rows: Iterable[Listed]) -> Iterator[str]:
    for one in rows:
        yield json.dumps(as_json(one))


def _table(found: Iterable[Listed], utc: bool) -> Iterator[str]:
    written = moment(utc)
    rows = (
        (
            one.fingerprint,
            printable(one.owner or "-"),
            *map(written, (one.created, one.last_accessed, one.expires)),
            printable(one.carrier or "-"),
            f"unreadable: {one.unreadable}" if one.unreadable else printable(one.client or "-"),
        )
        for one in found
    )
    first = next(rows, None)
    if first is not None:
        yield from table(_TITLES, _with(first, rows))


def _with(first: tuple[str, ...], rest: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    yield first
    yield from rest
