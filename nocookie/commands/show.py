"""`nocookie show`: one session, all but its id and its values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import click

from nocookie.commands.fingerprints import fingerprints
from nocookie.commands.showing import as_json, moment, printable, seconds, table
from nocookie.commands.where import opened, where
from nocookie.commands.working import counting
from nocookie.errors import ConfigError
from nocookie.listing import Contents, contents, with_fingerprints

__all__ = ["command"]


@click.command("show")
@click.argument("fingerprint", callback=lambda ctx, param, value: fingerprints((value,))[0])
@where
@click.option("--utc", is_flag=True, help="Show times in UTC, not in the zone of this machine.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object.")
def command(
    fingerprint: str,
    config: Path | None,
    section: str,
    utc: bool,
    as_object: bool,
    **options: str | None,
) -> None:
    """Show what is known of the session with a FINGERPRINT, the 10 characters that logs and
    `nocookie list` name it by.

    Its keys are named, with their sizes and how their values are written. No value is shown, nor
    read: what is pickled stays so.
    """
    backend = opened(config, section, options)
    try:
        with counting("Looking") as looked:
            keys = with_fingerprints(backend, [fingerprint], looked)[fingerprint]
        if len(keys) > 1:
            raise ConfigError(
                f"{len(keys)} sessions have the fingerprint {fingerprint}: it names none of them"
            )
        found = contents(backend, keys[0]) if keys else None
    finally:
        backend.store.close()
    if found is None:
        click.echo(f"nocookie show: there is no living session {fingerprint}", err=True)
        click.get_current_context().exit(1)
    if as_object:
        click.echo(json.dumps(_as_json(found), indent=2))
    else:
        click.echo("\n".join(_told(found, utc)))


def _as_json(found: Contents) -> dict[str, object]:
    return {
        **as_json(found.listed),
        "version": found.version,
        "rotated": seconds(found.rotated),
        "timeout": _limit(found.life.timeout),
        "lifetime": _limit(found.life.lifetime),
        "keys": [field._asdict() for field in found.fields],
    }


def _limit(seconds: float | None) -> float | str | None:
    return "none" if seconds == math.inf else seconds


def _told(found: Contents, utc: bool) -> Iterator[str]:
    written, one = moment(utc), found.listed
    lines = {
        "session": one.fingerprint,
        "unreadable": one.unreadable,
        "owner": one.owner,
        "created": written(one.created),
        "last used": written(one.last_accessed),
        "ends": written(one.expires),
        "rotated": None if found.rotated is None else written(found.rotated),
        "timeout": _own(found.life.timeout),
        "lifetime": _own(found.life.lifetime),
        "carrier": one.carrier,
        "client": one.client,
        "version": None if found.version is None else str(found.version),
    }
    for name, text in lines.items():
        if text is not None:
            yield f"{name:10}  {printable(text)}"
    yield f"{'keys':10}  {len(found.fields):,}"
    if found.fields:
        yield ""
        rows = [(printable(f.name), f"{f.size:>9,}", f.encoding) for f in found.fields]
        yield from table(("key", "    bytes", "written as"), rows)


def _own(limit: float | None) -> str | None:
    if limit is None:
        return None
    return "none, its own" if limit == math.inf else f"{limit:,.0f} seconds, its own"
