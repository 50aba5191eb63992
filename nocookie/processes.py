"""Whether several processes serve one application, seen by what happens.

`wsgi.multiprocess` does not tell: servers say no with several processes, and yes with one. But the
workers of an application have a process in common: the one that made it, and forked them since, or
the one that started each of them. So a process that serves takes a name after that one, which only
one can have at a time. Who finds it taken is not alone.

The names are those of abstract sockets, which Linux has: no file is made, and a name is free when
its process is gone. Elsewhere the server's word has to do.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from nocookie.forks import ProcessLocal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["TRIES", "Serving"]

#: How many requests of this process have to find a name taken. While a server is reloaded, the
#: worker that goes has it still when the next one comes.
TRIES: Final = 10

_HAS_NAMES: Final = sys.platform == "linux"

#: The names that this process has, each with a descriptor that stays open as long as it lives.
_taken: Final[ProcessLocal[dict[str, int]]] = ProcessLocal(dict)


class Serving:
    """This process, as one that serves what the process *maker* has made."""

    def __init__(self, maker: int) -> None:
        self._names = _names(maker) if _HAS_NAMES else []
        self._tries = count(1)

    def is_alone(self, environ: WSGIEnvironment) -> bool | None:
        """Whether no other process serves the same; None as long as that is not certain. It is
        asked once for each request, until it has said one or the other."""
        if not _HAS_NAMES:
            return not environ.get("wsgi.multiprocess")
        self._names = [name for name in self._names if not _take(name)]
        if not self._names:
            return True
        return False if next(self._tries) == TRIES else None


def _names(maker: int) -> list[str]:
    here = os.getpid()
    makers = [maker, os.getppid()] if maker == here else [maker]
    # Unrelated programs may have the same parent: init, say.
    program: list[Any] = [os.geteuid(), getattr(sys, "argv", None)]
    for path in ("/proc/self/ns/pid", "/proc/self/cwd"):
        try:
            program.append(os.readlink(path))
        except OSError:
            program.append(None)
    digests = (hashlib.blake2b(repr([*program, one]).encode(), digest_size=16) for one in makers)
    return [f"nocookie-{digest.hexdigest()}" for digest in digests]


def _take(name: str) -> bool:
    """Whether this process has the name now."""
    taken = _taken.here()
    if name in taken:
        return True
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        one.bind(f"\0{name}")
    except OSError:
        one.close()
        return False
    taken[name] = one.detach()
    return True
