"""`nocookie check`: what `nocookie.checking` found, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from nocookie.checking import RULES, Finding, Line, Report, check
from nocookie.commands.showing import printable

__all__ = ["command"]

#: Columns: as wide as the documentation.
WIDTH: Final = 100

#: What can be meant.
ACCEPTED: Final = sorted({rule.name for rule in RULES if rule.kind == "unsafe"})

_RESULT: Final = ("Nothing unsafe was found.", "This is not safe.", "This cannot be used.")


@click.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
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
    ctx: click.Context, file: Path, section: str | None, accept: Sequence[str], as_json: bool
) -> None:
    """Say what a configuration of nocookie or Beaker means, and what is not safe about it.

    The exit status is 0 if nothing is wrong, 1 if something is not safe, 2 if no application would
    start with it. No store is opened, and no secret shown.
    """
    reports = check(file, section, frozenset(accept))
    status = max(report.status for report in reports)
    if as_json:
        click.echo(json.dumps(_as_json(file, reports, status), indent=2))
    else:
        for report in reports:
            click.echo("\n".join(_told(report)) + "\n")
        click.echo(_RESULT[status])
    ctx.exit(status)


def _as_json(file: Path, reports: Sequence[Report], status: int) -> dict[str, object]:
    sections = [
        {
            "section": report.section,
            "options": [line._asdict() for line in report.lines],
            "findings": [finding._asdict() for finding in report.findings],
        }
        for report in reports
    ]
    return {"file": str(file), "status": status, "sections": sections}


def _told(report: Report) -> Iterator[str]:
    yield f"[{printable(report.section)}]"
    for line in report.lines:
        yield from _option(line)
    if report.findings:
        yield ""
    for finding in report.findings:
        yield _finding(finding)


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
