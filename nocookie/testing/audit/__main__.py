"""The audit from the shell: 0 if nothing failed, 1 if something did, 2 if it could not begin."""

from __future__ import annotations

import sys
from typing import Any

import click

from nocookie.errors import ConfigError
from nocookie.testing import audit
from nocookie.testing.reference import ENDPOINTS

__all__ = ["main"]


@click.command()
@click.argument("url")
@click.option(
    "--carrier",
    default="header:X-Session-Id",
    show_default=True,
    metavar="KIND:NAME",
    help="header:NAME, bearer, query:NAME, path:MARKER or cookie:NAME.",
)
@click.option(
    "--id-header",
    default="X-Session-Id",
    show_default=True,
    metavar="NAME",
    help="The response header that tells a client its id.",
)
@click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    metavar="NAME=TEMPLATE",
    help="Such as login='POST /login user={user}'. Again for each.",
)
@click.option(
    "--reference", is_flag=True, help="The target has the endpoints of nocookie.testing.reference."
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME:VALUE",
    help="A header that every request needs. Again for each.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.IntRange(1, 55),
    metavar="NUMBER",
    help="Check this requirement. Again for each.",
)
@click.option("--limit", default=300.0, show_default=True, help="Seconds for all of it.")
@click.option("--json", "as_json", is_flag=True, help="For a program.")
def main(
    url: str,
    carrier: str,
    id_header: str,
    endpoints: tuple[str, ...],
    reference: bool,
    headers: tuple[str, ...],
    only: tuple[int, ...],
    limit: float,
    as_json: bool,
) -> None:
    """Audit the sessions of the application at URL, over HTTP."""
    known = {**(ENDPOINTS if reference else {}), **_pairs(endpoints, "=", "NAME=TEMPLATE")}
    description: dict[str, Any] = {
        "carrier": carrier,
        "id_header": id_header,
        "endpoints": known,
        "headers": _pairs(headers, ":", "NAME:VALUE"),
        "limit": limit,
    }
    try:
        report = audit.run(url, only=only or None, **description)
    except (ConfigError, audit.Unusable) as error:
        raise click.UsageError(str(error)) from error
    click.echo(report.as_json() if as_json else report.as_text(), nl=as_json)
    sys.exit(1 if report.failed else 0)


def _pairs(texts: tuple[str, ...], between: str, form: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, found, value = text.partition(between)
        if not found:
            raise click.UsageError(f"{text!r} is not {form}")
        pairs[name.strip()] = value.strip()
    return pairs


if __name__ == "__main__":
    main(prog_name="python -m nocookie.testing.audit")
