"""`nocookie check`: what `nocookie.checking` found, for people or as JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from nocookie.checking import RULES, Finding, Line, Report, check, check_options
from nocookie.commands.showing import printable
from nocookie.errors import ConfigError
from nocookie.options import Configuration, imported, is_ours
from nocookie.successor import Successor

__all__ = ["command"]

#: Columns: as wide as the documentation.
WIDTH: Final = 100

#: What can be meant.
ACCEPTED: Final = sorted({rule.name for rule in RULES if rule.kind == "unsafe"})

_RESULT: Final = ("Nothing unsafe was found.", "This is not safe.", "This cannot be used.")


@click.command("check")
@click.argument("source", metavar="FILE|MODULE:NAME")
@click.option(
    "--section",
    metavar="NAME",
    help="The section of the ini file. Without it, all that configure sessions.",
)
@click.option(
    "--accept",
    metavar="WORD",
    multiple=True,
    type=click.Choice(ACCEPTED),
    help="The word of a finding that is meant; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context, source: str, section: str | None, accept: Sequence[str], as_json: bool
) -> None:
    """Say what a configuration of nocookie or Beaker means, and what is not safe about it.

    It is in an ini file; or a dict of options, or an application with the middleware of nocookie or
    Beaker around it, in a module, which is imported. Of Beaker's it says also what to write
    instead, and what brings its sessions along.

    The exit status is 0 if nothing is wrong, 1 if something is not safe, 2 if no application would
    start with it. No store is opened, and no secret shown.
    """
    reports = _reports(source, section, frozenset(accept))
    status = max(report.status for report in reports)
    if as_json:
        click.echo(json.dumps(_as_json(source, reports, status), indent=2))
    else:
        for report in reports:
            click.echo("\n".join(_told(report)) + "\n")
        click.echo(_RESULT[status])
    ctx.exit(status)


def _reports(source: str, section: str | None, accept: frozenset[str]) -> Sequence[Report]:
    file = Path(source)
    if file.is_file() or not _OBJECT.fullmatch(source):
        if not file.is_file():
            raise click.BadParameter(f"there is no file {source}, nor is it MODULE:NAME")
        return check(file, section, accept)
    if section is not None:
        raise click.UsageError("--section is for ini files.")
    if os.getcwd() not in sys.path:  # as servers find an application
        sys.path.insert(0, os.getcwd())
    configuration = _configuration(_found(source))
    if configuration is None:
        raise ConfigError(
            f"{source} is neither a dict of options nor an application with sessions around it"
        )
    return [check_options(configuration.config, configuration.keywords, accept)]


_OBJECT: Final = re.compile(r"[\w.]+:[\w.]+")

#: Where an application has the one that it is around.
_INNER: Final = ("wsgi_app", "app", "wrap_app", "application")
#: More layers than anybody has.
_DEEPEST: Final = 50


def _found(source: str) -> Any:
    try:
        return imported(source, is_callable=False)
    except ValueError as error:
        raise ConfigError(f"what is checked {error}, not {source}") from None


def _configuration(found: Any) -> Configuration | None:
    """Return what an application, or the layer of it that has sessions, was given."""
    if isinstance(found, Mapping):
        # Without a prefix they are keywords: in a dict they would be somebody else's.
        is_config = any(map(is_ours, found)) or "cache_dir" in found
        return Configuration(found, {}) if is_config else Configuration(None, found)
    for _ in range(_DEEPEST):
        given = getattr(found, "configuration", None)
        if isinstance(given, Configuration):
            return given
        if type(found).__module__ == "beaker.middleware" and hasattr(found, "options"):
            options = {f"beaker.session.{name}": value for name, value in found.options.items()}
            return Configuration(
                {key: value for key, value in options.items() if value is not None}, {}
            )
        found = next((there for name in _INNER if (there := getattr(found, name, None))), None)
    return None


def _as_json(source: str, reports: Sequence[Report], status: int) -> dict[str, object]:
    sections = [
        {
            "section": report.section,
            "options": [line._asdict() for line in report.lines],
            "findings": [finding._asdict() for finding in report.findings],
            "successor": report.successor and report.successor._asdict(),
        }
        for report in reports
    ]
    return {"file": source, "status": status, "sections": sections}


def _told(report: Report) -> Iterator[str]:
    yield f"[{printable(report.section)}]"
    for line in report.lines:
        yield from _option(line)
    if report.findings:
        yield ""
    for finding in report.findings:
        yield _finding(finding)
    if report.successor is not None:
        yield from _takes_over(report.successor)


def _takes_over(successor: Successor) -> Iterator[str]:
    yield "\nIn its place, as new.ini:\n"
    yield "\n".join(map(printable, successor.ini.splitlines()))
    if successor.command is not None:
        yield "\nAnd once the old application has stopped, so that nobody is logged out:\n"
        yield printable(successor.command)
    if successor.remark is not None:
        yield f"\n{successor.remark}"


def _option(line: Line) -> Iterator[str]:
    where = "" if line.number is None else f"{line.number}:"
    yield f"{where:>6} {printable(line.key)} = {printable(line.value)}"
    yield _wrapped(line.means)
    if line.beaker is not None:
        yield _wrapped(f"With Beaker: {line.beaker}")


def _finding(finding: Finding) -> str:
    number = "" if finding.number is None else f"line {finding.number}, "
    about = "" if finding.key is None else f"{number}{printable(finding.key)}: "
    word = f" [{finding.name}]" if finding.kind in ("unsafe", "accepted") else ""
    end = "" if finding.sentence.endswith("?") else "."
    return click.wrap_text(
        f"{finding.kind:9}{about}{finding.sentence}{end}{word}", WIDTH, subsequent_indent=" " * 9
    )


def _wrapped(text: str) -> str:
    return click.wrap_text(text, WIDTH, initial_indent=" " * 9, subsequent_indent=" " * 9)
