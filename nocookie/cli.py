"""The command `nocookie`: one function a subcommand, one line in `_parser` for each.

A command returns the exit status. What the user got wrong is a `ConfigError`, which becomes one
sentence and the status 2, as a wrong argument does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nocookie.errors import ConfigError

__all__ = ["main"]

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    run: Command = arguments.run
    try:
        return run(arguments)
    except ConfigError as error:
        sys.stderr.write(f"nocookie {arguments.command}: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nocookie", description="Server-side sessions for clients that carry no cookies."
    )
    parser.add_argument("--version", action="version", version=f"nocookie {_version()}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    _add_demo(commands)
    return parser


def _version() -> str:
    try:
        return version("nocookie")
    except PackageNotFoundError:
        return "(not installed)"


# -- nocookie demo -------------------------------------------------------------------------------


def _add_demo(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "demo",
        help="serve a notebook that keeps its notes without a cookie",
        description="Serve a notebook that keeps its notes without a cookie.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen: %(default)s")
    parser.add_argument(
        "--port", type=_port, default=8000, help="%(default)s; 0 means any that is free"
    )
    parser.add_argument(
        "--data-dir", default="data", metavar="DIR", help="where the sessions lie: %(default)s"
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from nocookie import demo

    demo.serve(arguments.host, arguments.port, arguments.data_dir)
    return 0


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
