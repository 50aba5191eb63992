"""memcached, from the PATH."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

from realservers import Server, missing


class Memcached(Server):
    """With the options that are given, and of one thread: it has little to do."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.program = shutil.which("memcached")
        if self.program is None:
            missing("memcached", "apt-get install memcached")
        super().__init__(folder)
        self.options = options

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        assert self.program is not None
        # Started by root, it insists on being told whom to become, root or somebody else.
        user = ["-u", "root"] if os.geteuid() == 0 else []
        where = ["-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-t", "1"]
        return [self.program, *user, *where, *self.options]

    def answers(self) -> bool:
        return self.ask("version").startswith(b"VERSION")

    def flush(self) -> None:
        """Make it forget every item, and what it counted."""
        assert self.ask("flush_all") == b"OK\r\n"
        assert self.ask("stats reset") == b"RESET\r\n"

    def stats(self, *kind: str) -> dict[str, str]:
        lines = self.ask(" ".join(["stats", *kind]), b"END\r\n").decode().splitlines()
        return dict(line.split(" ", 2)[1:] for line in lines[:-1])

    def seconds_left(self, name: str) -> int:
        """How long it will keep an item; -1 is for ever."""
        return int(self.ask(f"mg {name} t").split(b" t")[1])

    def put(self, name: str, item: bytes) -> None:
        assert self.ask(f"set {name} 0 0 {len(item)}", item=item) == b"STORED\r\n"

    def item(self, name: str) -> bytes:
        """Raises `ValueError` if there is none."""
        answer = self.ask(f"get {name}", b"END\r\n")
        begin = answer.index(b"\r\n") + 2
        return answer[begin : answer.rindex(b"\r\nEND\r\n", begin)]

    def ask(self, command: str, end: bytes = b"\r\n", item: bytes | None = None) -> bytes:
        """What it answers to a line, by a connection of our own."""
        lines = command.encode() + b"\r\n"
        if item is not None:
            lines += item + b"\r\n"
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(lines)
            answer = b""
            while not answer.endswith(end):
                piece = sock.recv(65536)
                if not piece:
                    raise ConnectionResetError
                answer += piece
            return answer
