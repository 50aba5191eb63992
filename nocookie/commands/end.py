"""`nocookie end`: sessions are ended from outside, for good and at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from nocookie.backend import Backend
from nocookie.commands.fingerprints import fingerprints
from nocookie.commands.showing import printable
from nocookie.commands.where import opened, where
from nocookie.commands.working import counting, say, stoppable
from nocookie.ids import FINGERPRINT_LENGTH
from nocookie.listing import end_every, end_key, end_owned, no_session, with_fingerprints

__all__ = ["command"]


@click.command("end")
@click.argument(
    "sessions",
    metavar="[FINGERPRINT]...",
    nargs=-1,
    callback=lambda ctx, param, values: fingerprints(values),
)
@where
@click.option("--owner", metavar="OWNER", help="End all sessions of this owner.")
@click.option("--all", "every", is_flag=True, help="End every session of the store.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
def command(
    sessions: Sequence[str],
    config: Path | None,
    section: str,
    owner: str | None,
    every: bool,
    yes: bool,
    quiet: bool,
    **options: str | None,
) -> None:
    """End sessions: those with a FINGERPRINT each, all of an owner, or all.

    They are dead when this is done, for requests that are under way too. On a terminal it asks
    first. The exit status is 1 if there was none to end, or one that was named is not there.
    """
    if (bool(sessions) + (owner is not None) + every) != 1:
        raise click.UsageError("Which sessions? Name fingerprints, or --owner, or --all.")
    backend = opened(config, section, options)
    missing: list[str] = []
    try:
        if owner is not None:
            what, ends = f"all sessions of {printable(owner)}", end_owned(backend, owner)
        elif every:
            what, ends = "every session of this store", end_every(backend)
        else:
            keys = _named(backend, sessions, missing, quiet)
            what = f"{len(keys)} {'session' if len(keys) == 1 else 'sessions'}"
            ends = _each(backend, keys, missing)
            yes = yes or not keys
        if not yes and sys.stdin.isatty() and not click.confirm(f"End {what}?", err=True):
            say(quiet, "Nothing was ended.")
            click.get_current_context().exit(1)
        ended = _end(ends, quiet)
        if not ended and not missing:
            say(quiet, no_session(backend, owner))
    finally:
        backend.store.close()
    for why in missing:
        click.echo(f"nocookie end: {why}", err=True)
    if missing or not ended:
        click.get_current_context().exit(1)


def _named(backend: Backend, sessions: Sequence[str], missing: list[str], quiet: bool) -> list[str]:
    """Return the store keys of these fingerprints; note which name none, or several."""
    with counting("Looking", quiet) as looked:
        found = with_fingerprints(backend, sessions, looked)
    for fingerprint, keys in found.items():
        if not keys:
            missing.append(f"there is no living session {fingerprint}")
        elif len(keys) > 1:
            missing.append(
                f"{len(keys)} sessions have the fingerprint {fingerprint}: it names none of them"
            )
    return [keys[0] for keys in found.values() if len(keys) == 1]


def _each(backend: Backend, keys: Sequence[str], missing: list[str]) -> Iterator[int]:
    for key in keys:
        ended = end_key(backend, key)
        if not ended:
            missing.append(
                f"{key[:FINGERPRINT_LENGTH]} goes on under a new id since this moment, and only "
                "its client knows that; list the sessions again"
            )
        yield int(ended)


def _end(ends: Iterable[int], quiet: bool) -> int:
    """Return how many were ended; say it, also where the store fails in between."""
    ended, early = 0, False
    try:
        with stoppable() as stopped, counting("Ending", quiet) as one_more:
            for count in ends:
                ended += count
                for _ in range(count):
                    one_more()
                if stopped():
                    early = True
                    break
    finally:
        if ended:
            say(quiet, f"Ended {ended:,} {'session' if ended == 1 else 'sessions'}.")
    if early:
        say(quiet, "Stopped early; there may be more.")
    return ended
