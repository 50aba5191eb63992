"""The command `nocookie`: what is common to its subcommands, each a module in `nocookie.commands`.

What the user got wrong is one sentence and the status 2, as a wrong argument is. A store that fails
is one sentence and the status 1.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NoReturn

import click

from nocookie.errors import NocookieError, StoreError

__all__ = ["COMMANDS", "main"]

#: Name -> the module in `nocookie.commands` that has it as `command`. It is imported when the
#: command is called: none has to wait for what only another needs.
COMMANDS: Final[Mapping[str, str]] = {
    "check": "check",
    "demo": "demo",
    "end": "end",
    "import": "import_sessions",
    "list": "list_sessions",
    "make-config": "make_config",
    "purge": "purge",
    "secret": "secret",
    "show": "show",
}


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command with *argv*, or with what the shell gave. Raises SystemExit."""
    commands(argv, prog_name="nocookie")
    raise AssertionError("click has its own way to end")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"nocookie.commands.{COMMANDS[name]}").command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NocookieError as error:
            click.echo(f"nocookie {ctx.invoked_subcommand}: {error}", err=True)
            ctx.exit(1 if isinstance(error, StoreError) else 2)


def _version() -> str:
    try:
        return version("nocookie")
    except PackageNotFoundError:
        return "(not installed)"


@click.group(cls=_Commands, no_args_is_help=False)
@click.version_option(_version(), message="nocookie %(version)s")
def commands() -> None:
    """Server-side sessions for clients that carry no cookies."""
