"""uWSGI, of the package pyuwsgi: a server in C, which forks in C."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

from realservers import Server, missing


class Uwsgi(Server):
    """A master that loads *application*, `module:callable` of the folder of its module, and three
    workers that it forks then."""

    def __init__(
        self, folder: Path, application: str, environ: dict[str, str], *options: str
    ) -> None:
        if importlib.util.find_spec("pyuwsgi") is None:
            missing("uWSGI", "pip install --group servers")
        super().__init__(folder)
        self._application = application
        path = os.pathsep.join(filter(None, sys.path))
        self.environ = {**os.environ, **environ, "PYTHONPATH": path}
        self._options = options

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        run = "import sys; from pyuwsgi import run; sys.exit(run())"
        return [
            *(sys.executable, "-W", "ignore", "-c", run),
            *("--http-socket", f"127.0.0.1:{self.port}", "--module", self._application),
            *("--master", "--processes", "3", "--need-app", "--die-on-term", "--listen", "64"),
            *("--disable-logging", *self._options),
        ]

    def kill(self) -> None:
        """The workers, too, and at once: the master takes a second or two to end."""
        if self.process is not None:
            os.killpg(self.pid, signal.SIGKILL)
        super().kill()
