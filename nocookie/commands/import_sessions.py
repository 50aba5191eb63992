"""`nocookie import`: `nocookie.importing`, with a bar on a terminal and a summary."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from nocookie.beaker_bounds import most_bytes
from nocookie.beaker_stores import decoder, open_beaker, options_of
from nocookie.commands.where import settings_of, where
from nocookie.commands.working import say, stoppable
from nocookie.errors import ConfigError
from nocookie.importing import Importer
from nocookie.inifile import read
from nocookie.options import in_seconds

__all__ = ["command"]


@click.command("import")
@click.option(
    "--from",
    "source",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="The ini file that Beaker was configured with.",
)
@click.option(
    "--from-section",
    default="app:main",
    show_default=True,
    help="The section of that ini file.",
)
@click.option(
    "--beaker-type", metavar="TEXT", help="file, dbm, ext:database, ext:redis or ext:memcached."
)
@click.option(
    "--beaker-url",
    metavar="TEXT",
    envvar="NOCOOKIE_BEAKER_URL",
    show_envvar=True,
    help="Where Beaker's database or Redis is.",
)
@click.option("--beaker-data-dir", metavar="TEXT", help="Beaker's data_dir.")
@click.option(
    "--trust-pickles",
    is_flag=True,
    help="Read sessions that are pickles. That runs whatever they say: only if nobody but your "
    "application could write to Beaker's store.",
)
@where
@click.option(
    "--beaker-ids-until",
    metavar="DATE",
    help="As the application's option of this name, for one that has no ini file.",
)
@click.option(
    "--lifetime-from-last-use",
    is_flag=True,
    help="Have the lifetime of a session count from its last use under Beaker, which knows no "
    "lifetime, and not from its beginning.",
)
@click.option(
    "--leave-out-values",
    is_flag=True,
    help="Import sessions without the values that cannot be stored, instead of not at all.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    help="As the application's option of this name. Without it and without one in --config, "
    "Beaker's own.",
)
@click.option("--lifetime", metavar="SECONDS", help="As the application's option of this name.")
@click.option(
    "--owner-key",
    metavar="TEXT",
    help="The key under which Beaker's application notes who has logged in: its value is the owner "
    "of the session here, as after session.login(owner).",
)
@click.option(
    "--python-2-text",
    "encoding",
    metavar="ENCODING",
    default="ascii",
    help="The encoding of what Python 2 called str: utf-8, or latin-1.",
)
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing, say the same.")
@click.option("--quiet", is_flag=True, help="Say nothing but what was not imported.")
def command(
    source: Path | None,
    from_section: str,
    beaker_type: str | None,
    beaker_url: str | None,
    beaker_data_dir: str | None,
    trust_pickles: bool,
    config: Path | None,
    section: str,
    lifetime_from_last_use: bool,
    leave_out_values: bool,
    owner_key: str | None,
    encoding: str,
    dry_run: bool,
    quiet: bool,
    **options: str | None,
) -> None:
    """Move the sessions that Beaker stored, so that nobody is logged out.

    They are read where --from or the options with "beaker" say, and written where --config and the
    other options do. Beaker's store is not changed. Another run goes on where one was stopped.
    """
    beaker = options_of(read(source, from_section)) if source else {}
    given = {"type": beaker_type, "url": beaker_url, "data_dir": beaker_data_dir}
    beaker.update((name, value) for name, value in given.items() if value is not None)
    if source is None and not {"type", "data_dir"} & beaker.keys():
        raise click.UsageError(
            "Which sessions? Say it with --from, --beaker-type or --beaker-data-dir."
        )
    timeout = _seconds(beaker.get("timeout"))
    if config is None and options["timeout"] is None and timeout:
        options["timeout"] = beaker["timeout"]
    settings = settings_of(config, section, options)
    try:
        "".encode(encoding)
    except LookupError:
        raise click.UsageError(f"There is no encoding {encoding}.") from None
    most = most_bytes(settings["max_size"])
    decode = decoder(beaker, trust_pickles, encoding, most)
    store = open_beaker(beaker, settings["deadline"], trust_pickles, encoding, most)
    try:
        importer = Importer(
            store,
            decode,
            settings,
            timeout=timeout,
            from_last_use=lifetime_from_last_use,
            partly=leave_out_values,
            dry_run=dry_run,
            owner_key=owner_key,
        )
        try:
            if source is not None:
                for sentence in _misfits(beaker, settings):
                    click.echo(f"Note: {sentence}", err=True)
            clean = _import(importer, store.ids(), _sentences(settings), dry_run, quiet)
        finally:
            importer.backend.store.close()
    finally:
        store.close()
    if not clean:
        click.get_current_context().exit(1)


def _seconds(text: str | None) -> float | None:
    if not text:
        return None
    if not text.strip().isdigit():
        raise ConfigError(f"Beaker's timeout is a whole number of seconds, not {text!r}")
    return float(text)


def _misfits(beaker: Mapping[str, str], settings: Mapping[str, Any]) -> Iterator[str]:
    """Say what would keep the clients of a Beaker with cookies from being recognised."""
    if beaker.get("use_cookies", "true").strip().lower() in ("false", "no", "off", "n", "f", "0"):
        return
    key = beaker.get("key") or "beaker.session.id"
    ours = _cookies(settings)
    if not ours:
        yield f"Beaker's ids are in the cookie {key}; find_id has no cookie:{key}."
    elif key not in ours:
        remedy = f"set key = {key}" if settings["key"] in ours else f"write cookie:{key} in find_id"
        yield (
            f"Beaker's ids are in the cookie {key}, and yours in {', '.join(ours)}; {remedy}, or "
            "nobody is recognised."
        )
    if beaker.get("secret") and settings["beaker_secret"] != beaker["secret"]:
        yield "Beaker's cookies are signed; set beaker_secret to its secret."


def _cookies(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the cookies that ids are looked for in. Nothing is imported for that."""
    if settings["use_cookies"]:
        return [settings["key"]]
    parts = [part.strip().partition(":") for part in str(settings["find_id"] or "").split(",")]
    return [name.strip() or settings["key"] for word, _, name in parts if word.lower() == "cookie"]


#: What is said of each kind of outcome, after how many there are.
_SENTENCES: Final[Mapping[str, str]] = {
    "there": "imported before",
    "taken": "with a client that came here already",
    "ended": "imported before and ended now, because Beaker has ended or emptied them since",
    "elsewhere": "imported before from another store of Beaker's, and left: to end what that has "
    "ended, import from there again",
    "left": "imported before and left, though Beaker's store is empty now: nocookie end ends one",
    "expired": "expired in Beaker",
    "unused": "not used for longer than timeout",
    "old": "older than lifetime: --lifetime-from-last-use imports them",
    "empty": "without data",
    "other": "other entries, under no id of Beaker's",
    "older": "not imported: their ids are MD5, as Beaker before 1.6 made them, and can be guessed",
    "refused": "not imported: they have values that cannot be stored",
    "unreadable": "not imported: they cannot be read",
}


def _sentences(settings: Mapping[str, Any]) -> dict[str, str]:
    """With the numbers that count, and what to do about them."""
    timeout, lifetime = (in_seconds(settings[name] or 0.0) for name in ("timeout", "lifetime"))
    return {
        **_SENTENCES,
        "unused": f"not used for longer than timeout, {timeout}: a larger one (--timeout, "
        "and the same for the application) imports them",
        "old": f"older than lifetime, {lifetime}: --lifetime-from-last-use imports them, "
        "or a larger one (--lifetime, and the same for the application)",
    }


def _import(
    importer: Importer, ids: list[str], sentences: Mapping[str, str], dry_run: bool, quiet: bool
) -> bool:
    """Return whether nothing has to be looked at."""
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    early = False
    try:
        with stoppable() as stopped, _progress(len(ids), quiet) as progress:
            for outcome in importer(ids):
                counts[outcome.kind] += 1
                for why in outcome.why:
                    click.echo(f"{outcome.fingerprint} {outcome.kind}: {why}", err=True)
                progress(1)
                if stopped():
                    early = counts.total() < len(ids)
                    break
            if not early:
                for outcome in importer.ended(ids):
                    counts[outcome.kind] += 1
                    early = stopped()
                    if early:
                        break
    finally:
        took = time.monotonic() - begun
        for sentence in _summary(importer, counts, sentences, took, dry_run):
            say(quiet, sentence)
        if early:
            say(quiet, "Stopped early; the next run goes on.")
    return not (counts["older"] or counts["refused"] or counts["unreadable"])


def _summary(
    importer: Importer,
    counts: Counter[str],
    sentences: Mapping[str, str],
    took: float,
    dry_run: bool,
) -> Iterator[str]:
    imported = f"{counts['imported']:,} {'session' if counts['imported'] == 1 else 'sessions'}"
    yield f"{imported} to import." if dry_run else f"Imported {imported} in {took:.1f} s."
    for kind, sentence in sentences.items():
        if counts[kind]:
            yield f"{counts[kind]:,} {sentence}."
    if not importer.finds_ended and (counts["there"] or counts["taken"]):
        yield (
            "What Beaker has deleted since an earlier run is not found here: not all can be listed "
            "that memcached holds. Import once, after Beaker has stopped."
        )


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int], object]]:
    """Show a bar on a terminal; yield what moves it."""
    if quiet or not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=total, label="Importing", show_pos=True, file=sys.stderr) as bar:
        yield bar.update
