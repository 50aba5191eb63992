"""`nocookie make-config`: an ini file for production, as `paster make-config` wrote one."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from pathlib import Path
from typing import Final

import click

from nocookie.errors import ConfigError
from nocookie.strength import fresh_secret

__all__ = ["command"]

#: What is written. It has to pass `nocookie check` as it is.
TEMPLATE: Final = """\
# {name} - production configuration
#
# %(here)s is the folder of this file. The file holds a secret: nobody but its owner may read it,
# and it belongs into no repository. `nocookie check` looks whether all of it is safe.

[server:main]
use = egg:waitress#main
# Only for the proxy in front, which is to speak HTTPS, and to say so in X-Forwarded-Proto.
host = 127.0.0.1
port = 8080
trusted_proxy = 127.0.0.1
trusted_proxy_headers = x-forwarded-proto

[app:main]
use = egg:{name}

# Sessions lie in a database in its folder sessions/, for all processes of this machine.
cache_dir = %(here)s/data
# For several machines:
#nocookie.type = redis
#nocookie.url = rediss://redis.example.com

{carrier}

# Signs ids and what is stored. Made for this file, at random; `nocookie secret` makes another. To
# change it without ending the sessions that are there, put the new one on a line before it:
#nocookie.secret =
#    the new one
#    the old one
nocookie.secret = {secret}

# Seconds that a session may lie unused, and that it lives in all.
nocookie.timeout = 1800
nocookie.lifetime = 43200
"""

COOKIES: Final = """\
# The name of the cookie.
nocookie.key = {name}
# Browsers send it over HTTPS only and show it to no script; where a page of another site has them
# make a request, they send it only if somebody followed a link.
nocookie.secure = true
nocookie.httponly = true
nocookie.samesite = Lax
# To keep it when the browser is closed, for so many seconds after the last use:
#nocookie.cookie_expires = 1209600"""

NO_COOKIES: Final = """\
# The id travels in a header, both ways.
nocookie.use_cookies = False
nocookie.find_id = header:X-Session-Id
# No id is taken or given out over plain HTTP. Which way a client came, the proxy says.
nocookie.require_https = true
nocookie.trusted_proxies = 127.0.0.1
# The name of the cookie, should there be one again.
nocookie.key = {name}"""

#: What may not be in the name of a cookie, nor as it is in an ini file.
_ODD: Final = re.compile(r"[^A-Za-z0-9._-]+")


@click.command("make-config")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--name",
    metavar="TEXT",
    help="The name of the project and its cookie. Without it, the name in a pyproject.toml "
    "beside the file, or the folder's.",
)
@click.option("--no-cookies", is_flag=True, help="Carry the id in the header X-Session-Id.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def command(file: Path, name: str | None, no_cookies: bool, force: bool) -> None:
    """Write an ini file for production, with a fresh secret, that its owner alone can read.

    Sections are those of PasteDeploy; the application's own options are to be added.
    """
    name = _ODD.sub("_", name or _project(file.absolute().parent)).strip("_") or "app"
    carrier = (NO_COOKIES if no_cookies else COOKIES).format(name=name)
    text = TEMPLATE.format(name=name, carrier=carrier, secret=fresh_secret())
    try:
        _write(file, text, force)
    except FileExistsError:
        raise ConfigError(f"{file} is there already; --force writes over it") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
    click.echo(f"Wrote {file}, with a fresh secret and the key {name}.")


def _project(folder: Path) -> str:
    try:
        name = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name
    return str(name)


def _write(file: Path, text: str, force: bool) -> None:
    """Write a file that its owner alone can read, from its first byte on."""
    if not force:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(text)
        return
    # Put in its place as a whole: the one that is there may be readable for all, or be in use.
    handle, beside = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w") as new:
            new.write(text)
        os.replace(beside, file)
    except OSError:
        os.unlink(beside)
        raise
