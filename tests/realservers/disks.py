"""File systems of a test's own: small ones, which can be filled to the last byte."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from realservers import missing

MEBIBYTE = 2**20


class Disk:
    """A file system that is mounted at *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Take all the room that is left."""
        with open(self.folder / "filler", "ab", buffering=0) as filler:
            for length in (MEBIBYTE, 65536, 4096, 1):
                try:
                    while True:
                        filler.write(b"x" * length)
                except OSError:
                    pass

    def free(self) -> None:
        """Give back what `fill` took."""
        os.unlink(self.folder / "filler")


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Disk]:
    """Mount a tmpfs of this size at *folder*, as long as the test lasts."""
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    folder.mkdir()
    options = f"size={mebibytes}m,mode=700,uid={os.geteuid()}"
    mount = [*root, "mount", "-t", "tmpfs", "-o", options, "nocookie", str(folder)]
    if shutil.which(mount[0]) is None or subprocess.run(mount, capture_output=True).returncode:
        missing("a file system of a test's own", "run the tests as root, who may mount one")
    try:
        yield Disk(folder)
    finally:
        subprocess.run([*root, "umount", "--lazy", str(folder)], check=True)
