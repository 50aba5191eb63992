"""`nocookie secret`: a fresh one."""

from __future__ import annotations

import click

from nocookie.strength import fresh_secret

__all__ = ["command"]


@click.command("secret")
def command() -> None:
    """Print a fresh secret: 43 characters, of 256 random bits."""
    click.echo(fresh_secret())
