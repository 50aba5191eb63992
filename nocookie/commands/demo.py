"""`nocookie demo`: the notebook."""

from __future__ import annotations

import click

from nocookie import demo

__all__ = ["command"]


def _port(ctx: click.Context, param: click.Parameter, text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise click.BadParameter(f"a port is a number from 0 to 65535, not {text!r}")


@click.command("demo")
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
def command(host: str, port: int, data_dir: str) -> None:
    """Serve a notebook that keeps its notes without a cookie."""
    demo.serve(host, port, data_dir)
