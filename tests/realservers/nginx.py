"""nginx as a shared cache in front of a server, from the PATH."""

from __future__ import annotations

import shutil
from pathlib import Path

from realservers import Server, missing

CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache keys_zone=pages:1m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
            proxy_cache pages;
            proxy_cache_key $uri;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
}}
"""


class Nginx(Server):
    """It keeps pages by their path, whoever asks, as long as *upstream* lets it."""

    def __init__(self, folder: Path, upstream: str) -> None:
        # Where Debian has it, which is not on the PATH of everybody.
        self.program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if self.program is None:
            missing("nginx", "apt-get install nginx-light")
        super().__init__(folder)
        text = CONFIG.format(folder=folder, port=self.port, upstream=upstream)
        (folder / "nginx.conf").write_text(text)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        assert self.program is not None
        where = ["-p", str(self.folder), "-e", str(self.folder / "error.log")]
        user = ["-g", "user root;"]
        return [self.program, *where, *user, "-c", str(self.folder / "nginx.conf")]
